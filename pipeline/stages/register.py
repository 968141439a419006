"""Register: the mirrored left leg onto the right leg, thigh and shank each on their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RegisterConfig
from pipeline.core.anatomy import MUSCLES, UNIONS
from pipeline.core.match import LegMatch
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import LimbAxis, SegmentedLeg, SegmentedLegs, StageResult
from pipeline.core.transform import AffineTransform, BlendedAffine, SpatialTransform
from pipeline.imaging.alignment import (
    align,
    find_matched_extent,
    label_pairs,
    overlaps,
    surface_distances,
    translation,
)

_THIGH = tuple(m.name for m in MUSCLES if m.region in ("hip", "thigh")) + ("femur", "hip_bone")
_SHANK = (
    tuple(m.name for m in MUSCLES if m.region == "leg")
    + tuple(u.name for u in UNIONS)
    + ("tibia", "fibula")
)


def register(legs: SegmentedLegs, *, config: RegisterConfig) -> StageResult[LegMatch]:
    """Find where each point of the mirrored left leg lies in the right leg.

    Per segment rigid, then affine, driven by the labels of both legs and blended over the knee.
    Nothing that is measured is resampled: the result is a correspondence.

    Args:
        legs: both legs with labels, in right-leg pose.
        config: working resolution and the overlap below which the registration has failed.
    """
    right, left = legs.right, legs.left
    starts = _starts(left, right)
    # A handful of voxels across the knee is no segment.
    segments = [
        align(left, right, names, starts=starts, spacing_mm=config.working_voxel_mm)
        if _shared(left, right, names)
        else None
        for names in (_THIGH, _SHANK)
    ]
    before = AffineTransform(starts[0], left.leg.grid.space, right.leg.grid.space)
    transform = _transform(left, right, segments, config)
    if transform is None:
        return _failed(before, "the legs have no labelled structure in common")
    spacing = config.working_voxel_mm
    pair = label_pairs(left, right, transform, spacing_mm=spacing)
    overlap = overlaps(*pair)
    if not overlap:
        return _failed(before, "no structure is seen in both legs at matching levels")
    mean = float(np.mean(list(overlap.values())))
    inverse = transform.inverse()
    points = left.leg.grid.index_to_world(np.argwhere(left.labels.data)[::97])
    there_and_back = inverse.apply(transform.apply(points))
    succeeded = mean >= config.lowest_overlap
    reason = (
        None
        if succeeded
        else f"mean overlap of the structures is {mean:.2f}, at least "
        f"{config.lowest_overlap:.2f} is needed"
    )
    match = LegMatch(
        left_to_right=transform,
        right_to_left=inverse,
        overlap=overlap,
        overlap_before=overlaps(*label_pairs(left, right, before, spacing_mm=spacing)),
        surface_distance_mm=surface_distances(*pair, overlap, spacing),
        extent=find_matched_extent(right, left, transform) if succeeded else None,
        inverse_error_mm=float(np.median(np.linalg.norm(there_and_back - points, axis=1))),
        succeeded=succeeded,
        reason=reason,
    )
    return StageResult(match, () if reason is None else (_finding(reason, mean, config),))


def _shared(left: SegmentedLeg, right: SegmentedLeg, names: Sequence[str]) -> bool:
    """Whether both legs show at least 10 mL of the structures of a segment."""
    from_names = {m: n for n, (m, _) in left.labels.scheme.structures.items()}
    ids = [from_names[name] for name in names]
    for leg in (left, right):
        voxels = int(np.isin(leg.labels.data, ids).sum())
        if voxels * leg.leg.grid.voxel_volume_ml < 10.0:
            return False
    return True


def _starts(left: SegmentedLeg, right: SegmentedLeg) -> list[NDArray[np.float64]]:
    """First guesses of the transform: whole legs, joints, and the scanner's own levels."""
    centres = [_centre(leg) for leg in (left, right)]
    shift = centres[1] - centres[0]
    starts = [translation(shift)]
    level = shift.copy()
    # Both legs lie on one table: the same level of the scanner is a good guess too.
    level[2] = 0.0
    starts.append(translation(level))
    for joint in ("knee", "hip", "ankle"):
        pair = [getattr(leg.axis, joint) for leg in (left, right)]
        if None not in pair:
            starts.append(translation(np.array(pair[1]) - np.array(pair[0])))
            break
    return starts


def _centre(leg: SegmentedLeg) -> NDArray[np.float64]:
    index = np.argwhere(leg.labels.data)
    return np.asarray(leg.leg.grid.index_to_world(index.mean(axis=0)), dtype=np.float64)


def _transform(
    left: SegmentedLeg,
    right: SegmentedLeg,
    segments: Sequence[NDArray[np.float64] | None],
    config: RegisterConfig,
) -> SpatialTransform | None:
    thigh, shank = segments
    spaces = (left.leg.grid.space, right.leg.grid.space)
    if thigh is None or shank is None:
        only = thigh if thigh is not None else shank
        return None if only is None else AffineTransform(only, *spaces)
    return BlendedAffine(
        upper=thigh,
        lower=shank,
        centre=_knee(left, config),
        direction=np.array(_towards_shank(left.axis)),
        half_width_mm=config.knee_blend_mm,
        from_space=spaces[0],
        to_space=spaces[1],
    )


def _knee(leg: SegmentedLeg, config: RegisterConfig) -> NDArray[np.float64]:
    """The knee, or the level between the thigh and the shank muscles."""
    if leg.axis.knee is not None:
        return np.array(leg.axis.knee)
    ids = {name: value for value, (name, _) in leg.labels.scheme.structures.items()}
    levels = []
    for names, share in ((_THIGH, 2.0), (_SHANK, 98.0)):
        index = np.argwhere(np.isin(leg.labels.data, [ids[n] for n in names]))
        points = leg.leg.grid.index_to_world(index)
        level = np.percentile(points[:, 2], share)
        near = np.abs(points[:, 2] - level) <= config.knee_blend_mm / 2
        levels.append(points[near].mean(axis=0))
    return np.asarray(np.mean(levels, axis=0), dtype=np.float64)


def _towards_shank(axis: LimbAxis) -> tuple[float, float, float]:
    return axis.direction


def _failed(before: AffineTransform, reason: str) -> StageResult[LegMatch]:
    match = LegMatch(
        left_to_right=before,
        right_to_left=before.inverse(),
        overlap={},
        overlap_before={},
        surface_distance_mm={},
        extent=None,
        inverse_error_mm=0.0,
        succeeded=False,
        reason=reason,
    )
    return StageResult(match, (_finding(reason, None, None),))


def _finding(reason: str, value: float | None, config: RegisterConfig | None) -> Finding:
    return Finding(
        code="registration_failed",
        severity=Severity.WARNING,
        stage="register",
        message=f"The left leg could not be laid onto the right one: {reason}. Parts of cut "
        "muscles are not compared; whole muscles are.",
        value=value,
        threshold=None if config is None else config.lowest_overlap,
        unit="Dice",
    )
