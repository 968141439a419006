"""Register: the mirrored left leg onto the right leg, segment by segment, then as it deforms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from pipeline.config import RegisterConfig
from pipeline.core.anatomy import MUSCLES, UNIONS
from pipeline.core.match import LegMatch
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import SegmentedLeg, SegmentedLegs, StageResult
from pipeline.core.transform import AffineTransform, BlendedAffine
from pipeline.core.volume import Quantity
from pipeline.imaging.agreement import image_correlation, label_agreement
from pipeline.imaging.alignment import (
    align_affine,
    align_rigid,
    centroid_start,
    surface_distances,
    translation,
)
from pipeline.imaging.deformation import deform, folded_nodes, folded_voxels, guide_surfaces
from pipeline.imaging.surfaces import LegSurfaces, common_structures, leg_surfaces
from pipeline.imaging.threads import one_thread

Floats = NDArray[np.float64]

_THIGH = (*(m.name for m in MUSCLES if m.region in ("hip", "thigh")), "femur", "hip_bone")
_SHANK = (
    *(m.name for m in MUSCLES if m.region == "leg"),
    *(u.name for u in UNIONS),
    "tibia",
    "fibula",
)
#: Name of the space in which the legs meet.
HALF_WAY = "half-way between the legs"
#: A segment of which both legs show less than this is no segment: a few voxels across the knee.
_SMALLEST_SEGMENT_ML = 10.0
#: Legs in one scanner lie turned against each other by less than this.
_LARGEST_TURN_DEG = 90.0
#: Legs lie shifted along the table by up to about this; starts are tried in steps of it.
_TABLE_SHIFTS_MM = (-60.0, -40.0, -20.0, 20.0, 40.0, 60.0)
#: There and back is tried with one labelled voxel in so many; a prime, so that none lie in rows.
_TRIED_VOXELS = 97
#: Overlap is judged on voxels of about this share of the working size.
_OVERLAP_SHARE = 0.75


@one_thread()
def register(legs: SegmentedLegs, *, config: RegisterConfig) -> StageResult[LegMatch]:
    """Find where each point of the mirrored left leg lies in the right leg.

    Per segment rigid, then affine, driven by the surfaces of the labels of both legs and blended
    over the knee; then a diffeomorphic deformation in which both legs go half of the way, driven
    by the surfaces of labels, body and lean tissue together. Nothing that is measured is
    resampled: the result is a correspondence.

    Args:
        legs: both legs with labels, in right-leg pose.
        config: working resolution, and the quality below which the registration has failed.
    """
    right, left = legs.right, legs.left
    before = AffineTransform(_centred(left, right), left.leg.grid.space, right.leg.grid.space)
    shown = [
        leg_surfaces(
            leg, spacing_mm=config.working_voxel_mm, blunt_end_share=config.blunt_end_share
        )
        for leg in (left, right)
    ]
    if shown[0] is None or shown[1] is None or not common_structures(shown[0], shown[1]):
        return _failed(before, "the legs have no labelled structure in common")
    segments = _transform(left, right, shown[0], shown[1], config)
    turn = _turn_deg(segments)
    if turn > _LARGEST_TURN_DEG:
        return _failed(
            before, f"its labels fit those of the right leg best turned over, by {turn:.0f} degrees"
        )
    halves = segments.halves(HALF_WAY)
    flow = deform(
        _guided(left, shown[0], config),
        _guided(right, shown[1], config),
        halves,
        node_mm=config.flow_node_mm,
        smoothing_mm=config.flow_smoothing_mm,
    )
    transform = halves[0].then(flow).then(halves[1].inverse())
    inverse = transform.inverse()
    spacing = _OVERLAP_SHARE * config.working_voxel_mm
    agreement = label_agreement(left, right, inverse, spacing_mm=spacing)
    if not agreement:
        return _failed(before, "no structure is seen in both legs at matching levels")
    points = left.leg.grid.index_to_world(np.argwhere(left.labels.data)[::_TRIED_VOXELS])
    there_and_back = inverse.apply(transform.apply(points))
    quantity = _compared_image(left, right)
    similarity = [
        None
        if quantity is None
        else image_correlation(left, right, t, quantity, spacing_mm=2.0 * spacing)
        for t in (before.inverse(), inverse)
    ]
    match = LegMatch(
        left_to_right=transform,
        right_to_left=inverse,
        overlap={name: a.dice for name, a in agreement.items()},
        overlap_before={
            name: a.dice
            for name, a in label_agreement(
                left, right, before.inverse(), spacing_mm=spacing
            ).items()
        },
        disagreement_ml={name: a.disagreement_ml for name, a in agreement.items()},
        outside_share={name: a.outside_share for name, a in agreement.items()},
        surface_distance_mm=surface_distances(shown[0], shown[1], transform),
        similarity=similarity[1],
        similarity_before=similarity[0],
        similar_image=None if quantity is None else str(quantity),
        inverse_error_mm=float(np.median(np.linalg.norm(there_and_back - points, axis=1))),
        folded_voxels=folded_voxels(right, inverse, spacing_mm=config.flow_node_mm)
        + folded_nodes(flow),
        succeeded=True,
    )
    failure = _judged(match, config)
    if failure is not None:
        reason, finding = failure
        return StageResult(replace(match, succeeded=False, reason=reason), (finding,))
    return StageResult(match, tuple(_weaknesses(match, config)))


def _guided(leg: SegmentedLeg, shown: LegSurfaces, config: RegisterConfig) -> LegSurfaces:
    """The surfaces of a leg's labels, and those that need no labels."""
    guides = guide_surfaces(
        leg,
        shown.window,
        spacing_mm=config.working_voxel_mm,
        blunt_end_share=config.blunt_end_share,
    )
    return LegSurfaces({**shown.surfaces, **guides}, shown.window)


def _compared_image(left: SegmentedLeg, right: SegmentedLeg) -> Quantity | None:
    """The image by which the legs are compared: fat fraction where there is one."""
    legs = (left.leg, right.leg)
    if all(leg.dixon is not None for leg in legs):
        return Quantity.FAT_FRACTION
    return next((q for q in legs[0].images if q in legs[1].images), None)


def _centred(left: SegmentedLeg, right: SegmentedLeg) -> Floats:
    """The translation that lays the centres of all labels onto each other."""
    centres = [
        leg.leg.grid.index_to_world(np.argwhere(leg.labels.data).mean(axis=0))
        if leg.labels.data.any()
        else np.zeros(3)
        for leg in (left, right)
    ]
    return translation(centres[1] - centres[0])


def _transform(
    left: SegmentedLeg,
    right: SegmentedLeg,
    left_shown: LegSurfaces,
    right_shown: LegSurfaces,
    config: RegisterConfig,
) -> AffineTransform | BlendedAffine:
    """Whole leg rigid, then each segment rigid and affine, blended over the knee."""
    spaces = (left.leg.grid.space, right.leg.grid.space)
    starts = _starts(left, right, left_shown, right_shown)
    whole = align_rigid(left_shown, right_shown, starts)
    knees = _knees(left, right, whole)
    segments = []
    for names, way in ((_THIGH, -1.0), (_SHANK, 1.0)):
        parts = [leg.only(names) for leg in (left_shown, right_shown)]
        if knees is not None:
            # Muscles that cross the knee belong to the bone they lie along.
            parts = [
                part.beyond(knee - way * config.knee_blend_mm / 3.0 * down, way * down)
                for part, (knee, down) in zip(parts, knees, strict=True)
            ]
        segments.append(_segment(parts[0], parts[1], whole))
    thigh, shank = segments
    if thigh is None or shank is None:
        only = thigh if thigh is not None else shank
        return AffineTransform(whole if only is None else only, *spaces)
    centre, down = _bend(left, right, thigh, shank, knees)
    return BlendedAffine(
        upper=thigh,
        lower=shank,
        centre=centre,
        direction=down,
        half_width_mm=config.knee_blend_mm,
        from_space=spaces[0],
        to_space=spaces[1],
    )


def _turn_deg(transform: AffineTransform | BlendedAffine) -> float:
    """Largest angle by which a segment turns."""
    if isinstance(transform, BlendedAffine):
        matrices = [transform.upper, transform.lower]
    else:
        matrices = [transform.matrix]
    turns = [linalg.polar(matrix[:3, :3])[0] for matrix in matrices]
    return max(float(np.degrees(np.arccos(np.clip((np.trace(t) - 1) / 2, -1, 1)))) for t in turns)


def _segment(left: LegSurfaces, right: LegSurfaces, whole: Floats) -> Floats | None:
    names = common_structures(left, right)
    for leg in (left, right):
        if sum(leg.surfaces[name].volume_mm3 for name in names) < 1e3 * _SMALLEST_SEGMENT_ML:
            return None
    starts = [whole]
    by_centres = centroid_start(left, right)
    if by_centres is not None:
        starts.append(by_centres)
    return align_affine(left, right, align_rigid(left, right, starts))


def _starts(
    left: SegmentedLeg, right: SegmentedLeg, left_shown: LegSurfaces, right_shown: LegSurfaces
) -> list[Floats]:
    """First guesses: centres, joints, the scanner's own levels and shifts along the table."""
    centred = _centred(left, right)
    # Both legs lie on one table: the same level of the scanner is a good guess.
    level = centred.copy()
    level[2, 3] = 0.0
    starts = [centred, level]
    for joint in ("knee", "hip", "ankle"):
        a, b = getattr(left.axis, joint), getattr(right.axis, joint)
        if a is not None and b is not None:
            starts.append(translation(np.array(b) - np.array(a)))
    by_centres = centroid_start(left_shown, right_shown)
    if by_centres is not None:
        starts.append(by_centres)
    for shift in _TABLE_SHIFTS_MM:
        moved = level.copy()
        moved[2, 3] += shift
        starts.append(moved)
    return starts


def _knees(
    left: SegmentedLeg, right: SegmentedLeg, whole: Floats
) -> list[tuple[Floats, Floats]] | None:
    """Knee and downward direction of the left and the right leg; one carried over if need be."""
    here, there = (None if k is None else np.array(k) for k in (left.axis.knee, right.axis.knee))
    if here is None and there is not None:
        here = np.linalg.solve(whole[:3, :3], there - whole[:3, 3])
    if here is None:
        return None
    if there is None:
        there = whole[:3, :3] @ here + whole[:3, 3]
    return [(here, np.array(left.axis.direction)), (there, np.array(right.axis.direction))]


def _bend(
    left: SegmentedLeg,
    right: SegmentedLeg,
    thigh: Floats,
    shank: Floats,
    knees: list[tuple[Floats, Floats]] | None,
) -> tuple[Floats, Floats]:
    """Where the left leg bends: point and downward direction, from both legs alike."""
    mean = (thigh + shank) / 2.0
    back = np.linalg.inv(mean)
    if knees is None:
        (here, there), downs = (
            [_between(leg) for leg in (left, right)],
            [np.array(leg.axis.direction) for leg in (left, right)],
        )
    else:
        (here, there), downs = [k for k, _ in knees], [d for _, d in knees]
    centre = 0.5 * (here + back[:3, :3] @ there + back[:3, 3])
    carried = back[:3, :3] @ downs[1]
    down = downs[0] + carried / np.linalg.norm(carried)
    return centre, down / np.linalg.norm(down)


def _between(leg: SegmentedLeg) -> Floats:
    """The level between the thigh and the shank muscles of a leg whose knee is not known."""
    ids = {name: value for value, (name, _) in leg.labels.scheme.structures.items()}
    ends = []
    for names, share in ((_THIGH, 2.0), (_SHANK, 98.0)):
        index = np.argwhere(np.isin(leg.labels.data, [ids[n] for n in names]))
        points = leg.leg.grid.index_to_world(index)
        level = np.percentile(points[:, 2], share)
        ends.append(points[np.abs(points[:, 2] - level) <= 30.0].mean(axis=0))
    return np.asarray(np.mean(ends, axis=0), dtype=np.float64)


def _failed(before: AffineTransform, reason: str) -> StageResult[LegMatch]:
    return StageResult(LegMatch.failed(before, reason), (_failure(reason),))


def _failure(
    reason: str,
    value: float | None = None,
    threshold: float | None = None,
    unit: str | None = None,
) -> Finding:
    return Finding(
        code="registration_failed",
        severity=Severity.WARNING,
        stage="register",
        message=f"The left leg could not be laid onto the right one: {reason}. Parts of cut "
        "muscles and places along a muscle are not compared; whole muscles are.",
        value=value,
        threshold=threshold,
        unit=unit,
    )


def _judged(match: LegMatch, config: RegisterConfig) -> tuple[str, Finding] | None:
    """Why a registration has failed and the finding that says so; None where it has not."""
    mean = float(np.mean(list(match.overlap.values())))
    limits: tuple[tuple[bool, str, float, float, str], ...] = (
        (
            mean < config.lowest_overlap,
            f"mean overlap of the structures is {mean:.2f}, at least "
            f"{config.lowest_overlap:.2f} is needed",
            mean,
            config.lowest_overlap,
            "Dice",
        ),
        (
            match.folded_voxels > config.largest_folded_voxels,
            f"the deformation turns {match.folded_voxels} places inside out "
            f"(at most {config.largest_folded_voxels} allowed)",
            match.folded_voxels,
            config.largest_folded_voxels,
            "voxels",
        ),
        (
            match.inverse_error_mm > config.largest_inverse_error_mm,
            f"there and back ends {match.inverse_error_mm:.1f} mm off in the median "
            f"(at most {config.largest_inverse_error_mm:g} mm allowed)",
            match.inverse_error_mm,
            config.largest_inverse_error_mm,
            "mm",
        ),
    )
    for failed, reason, value, threshold, unit in limits:
        if failed:
            return reason, _failure(reason, value, threshold, unit)
    return None


def _weaknesses(match: LegMatch, config: RegisterConfig) -> Iterator[Finding]:
    """What a registration that succeeded still leaves to be doubted."""
    overlap = match.overlap
    mean = float(np.mean(list(overlap.values())))
    if mean < config.weak_overlap:
        yield Finding(
            code="registration_weak",
            severity=Severity.WARNING,
            stage="register",
            message=f"After registration the legs overlap by {mean:.2f} (Dice, mean of "
            f"{len(overlap)} structures; {config.weak_overlap:.2f} is usual): look at the "
            "picture of both outlines before trusting what is compared at matched levels.",
            value=mean,
            threshold=config.weak_overlap,
            unit="Dice",
        )
    low = {name: value for name, value in overlap.items() if value < config.lowest_overlap}
    if low:
        named = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in low.items())
        yield Finding(
            code="structures_overlap_little",
            severity=Severity.INFO,
            stage="register",
            message="Left and right differ in place or shape by more than the registration can "
            f"follow: {named} (Dice).",
            value=min(low.values()),
            threshold=config.lowest_overlap,
            unit="Dice",
        )
    limit = config.largest_boundary_distance_mm
    far = {name: mm for name, mm in match.surface_distance_mm.items() if mm > limit}
    if far:
        named = ", ".join(f"{name.replace('_', ' ')} {mm:.1f}" for name, mm in far.items())
        yield Finding(
            code="boundaries_apart",
            severity=Severity.INFO,
            stage="register",
            message=f"After registration the boundaries of left and right lie apart: {named} (mm, "
            "mean). Where along the limb the sides differ is uncertain there.",
            value=max(far.values()),
            threshold=limit,
            unit="mm",
        )
