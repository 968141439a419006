"""Measure: volumes, lean volumes and their asymmetry, on each leg's own voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import (
    GROUPS,
    MUSCLES,
    MUSCLES_BY_NAME,
    STRUCTURES,
    UNIONS,
    Muscle,
    MuscleGroup,
    Side,
)
from pipeline.core.match import LegMatch
from pipeline.core.results import (
    Asymmetry,
    Finding,
    GroupResult,
    LimbMeasures,
    LocalDifference,
    Measurement,
    MuscleResult,
    ProfilePoint,
    RatioResult,
    Severity,
    Status,
)
from pipeline.core.scan import Participant, SegmentedLeg, SegmentedLegs, StageResult
from pipeline.core.soft import Confidence
from pipeline.core.volume import Quantity
from pipeline.imaging.asymmetry import (
    MethodError,
    index_from_log_ratio,
    interval_percent,
    judge,
    se_from_scan_rescan,
    se_of_method,
    se_total,
    spread_between_looks,
)
from pipeline.imaging.extent import Extent, structure_extent
from pipeline.imaging.limb_axis import axis_mm, position_at, position_scale
from pipeline.imaging.local_difference import (
    MatchedCourse,
    Placed,
    Placement,
    describe,
    no_local_difference,
)
from pipeline.imaging.noise import fraction_of_noise
from pipeline.imaging.single_contrast import split_tissue
from pipeline.imaging.swaps import doubted_swaps
from pipeline.imaging.tissue import (
    TissueSums,
    area_profile,
    core_mask,
    fat_fraction,
    in_opposed_fraction,
    tissue_sums,
)

#: Single contrasts in which muscle and fat are told apart.
_SPLITTABLE = (Quantity.T1W, Quantity.WATER)
_FROM_ONE = (
    "lean volume is an estimate from the {} image alone, relative to the leg's own leanest muscle"
)
_FROM_PHASES = (
    "lean volume is an estimate from in- and opposed-phase images: more than half fat reads as less"
)

#: Code of the finding that is a caveat on differences of lean volume alone.
_NOISE_DIFFERS = "noise_floors_differ"

Extents = Literal["whole", "matched"]
Row = TypeVar("Row", MuscleResult, GroupResult)
Of = Literal["lean_volume", "total_volume"]

#: Numerator, denominator and name of the ratios reported (functional groups).
_RATIOS = (("hamstrings", "quadriceps"),)


def measure(
    legs: SegmentedLegs,
    match: LegMatch,
    *,
    participant: Participant | None = None,
    config: MeasureConfig,
) -> StageResult[LimbMeasures]:
    """Measure every muscle and group on both sides and compare the sides.

    Each leg is measured on its own voxels; the match only says which part of a muscle both legs
    show.

    Args:
        legs: both legs with labels.
        match: correspondence of the legs; where it failed, nothing matched is reported.
        participant: height and mass give expected volumes (Handsfield et al. 2014).
        config: thresholds.

    Returns:
        measures of 30 muscles and their groups, in the order of the vocabulary, and findings.
    """
    scales = {side: position_scale(legs[side].axis) for side in Side}
    structures = {side: _measure_leg(legs, side, match, config) for side in Side}
    sums = _Compare(structures[Side.RIGHT], structures[Side.LEFT], config)
    expected = _expected_volumes(participant, config)
    muscles = []
    for muscle in MUSCLES:
        right, left = sums.measurements(muscle.name)
        limit = _healthy_limit(muscle, config)
        lean, total = _asymmetries(right, left, limit, (muscle.name,), config)
        muscles.append(
            MuscleResult(
                id=muscle.id,
                name=muscle.name,
                region=muscle.region,
                compartment=muscle.compartment,
                functional_group=muscle.functional_group,
                right=right,
                left=left,
                asymmetry=lean,
                asymmetry_total_volume=total,
                local_difference=_local_difference(
                    muscle.name, lean, total, structures, legs, match, config
                ),
                healthy_limit_percent=limit,
                expected_volume_ml=expected.get(muscle.name),
            )
        )
    groups = [_group(group, muscles, config) for group in GROUPS]
    groups += [
        _union(name, members, sums, config)
        for name, members in ((u.name, u.muscles) for u in UNIONS)
        if any(name in structures[side] for side in Side)
    ]
    noise = list(_noise_floors(legs, config))
    of_noise = tuple(finding.code for finding in noise if finding.code == _NOISE_DIFFERS)
    muscles = [_with_caveats(muscle, legs.caveats, of_noise) for muscle in muscles]
    groups = [_with_caveats(group, legs.caveats, of_noise) for group in groups]
    if legs.doubt is not None:
        muscles = [_without_verdicts(muscle, legs.doubt) for muscle in muscles]
        groups = [_without_verdicts(group, legs.doubt) for group in groups]
    judged = sum(m.asymmetry_total_volume.verdict is not None for m in muscles)
    measures = LimbMeasures(
        muscles=tuple(muscles),
        groups=tuple(groups),
        ratios=tuple(_ratio(pair, groups, of) for pair in _RATIOS for of in _OFS),
        position_right=scales[Side.RIGHT],
        position_left=scales[Side.LEFT],
        expected_flagged_by_chance=0.05 * judged if judged else None,
    )
    findings = [
        *_swap_findings(structures),
        *noise,
        *_findings(muscles),
        *_own_reference_used(config),
        *_lean_estimated(muscles),
        *_unlikely_volumes(muscles, groups, participant, config),
    ]
    return StageResult(measures, tuple(findings))


def _without_verdicts(row: Row, doubt: str) -> Row:
    """The same values, of which none is judged."""
    compared = {name: getattr(row, name) for name in ("asymmetry", "asymmetry_total_volume")}
    return row.model_copy(
        update={
            name: a.model_copy(update={"verdict": None, "reason": a.reason or doubt})
            for name, a in compared.items()
        }
    )


def _with_caveats(row: Row, caveats: tuple[str, ...], of_lean: tuple[str, ...]) -> Row:
    """The same values, of which each difference names what may fake it, and one of lean volume
    what may fake that alone."""
    named = {"asymmetry": (*caveats, *of_lean), "asymmetry_total_volume": caveats}
    return row.model_copy(
        update={
            name: getattr(row, name).model_copy(update={"caveats": codes})
            for name, codes in named.items()
            if codes and getattr(row, name).index_percent is not None
        }
    )


_OFS: tuple[Of, ...] = ("lean_volume", "total_volume")


@dataclass(frozen=True)
class _Structure:
    """Raw values of one structure in one leg, in mm and mL."""

    in_view: TissueSums
    matched: TissueSums | None
    placed: Placed | None
    fractions: NDArray[np.float32] | None
    extent: Extent
    length_mm: float
    profile: tuple[ProfilePoint, ...]
    confidence: Confidence | None
    lean_reason: str | None
    lean_estimate: str | None
    swap: str | None


def _measure_leg(
    legs: SegmentedLegs, side: Side, match: LegMatch, config: MeasureConfig
) -> dict[str, _Structure]:
    """Raw values by structure name; structures without a voxel are missing."""
    segmented = legs[side]
    leg, labels = segmented.leg, segmented.labels.data
    fractions, lean_reason, lean_estimate = _fractions(segmented)
    swap = _doubted_swap(segmented, fractions)
    core = core_mask(labels, config.core_margin_voxels)
    boxes = ndimage.find_objects(labels)
    placement = Placement(side, legs, match) if match.succeeded else None
    out = {}
    for structure in STRUCTURES:
        box = boxes[structure.id - 1] if structure.id <= len(boxes) else None
        if box is None:
            continue
        mask = labels[box] == structure.id
        lower = (box[0].start, box[1].start, box[2].start)
        index = np.argwhere(mask) + lower
        voxels = tuple(index.T)
        points = leg.grid.index_to_world(index)
        values = None if fractions is None else fractions[voxels]

        def sums(
            weights: NDArray[np.float64] | None,
            values: NDArray[np.float32] | None = values,
            inner: NDArray[np.bool_] = core[voxels],
        ) -> TissueSums:
            return tissue_sums(
                voxel_volume_ml=leg.grid.voxel_volume_ml,
                fractions=values,
                core=inner,
                weights=weights,
                fat_free_below=config.fat_free_below_percent / 100.0,
                smallest_core_share=config.smallest_core_share,
            )

        matched = placed = None
        if placement is not None:
            placed = placement.of(points)
            matched = sums(placed.shared) if placed.shared.any() else None
        length, profile = _profile(segmented, points, values, config)
        out[structure.name] = _Structure(
            in_view=sums(None),
            matched=matched,
            placed=placed,
            fractions=values,
            extent=structure_extent(
                mask,
                lower_index=lower,
                box_shape=leg.grid.shape,
                seen=leg.seen,
                labelled=segmented.labelled,
                blunt_end_share=config.blunt_end_share,
            ),
            length_mm=length,
            profile=profile,
            confidence=segmented.confidence.get(structure.name),
            lean_reason=lean_reason,
            lean_estimate=lean_estimate,
            swap=swap,
        )
    return out


def _fractions(
    segmented: SegmentedLeg,
) -> tuple[NDArray[np.float32] | None, str | None, str | None]:
    """Fat fraction of a leg (NaN where undefined), or why there is none; and, where it is no
    measurement of water and fat, how it was estimated."""
    leg = segmented.leg
    if leg.dixon is not None:
        return fat_fraction(leg.dixon), None, None
    given = leg.images.get(Quantity.FAT_FRACTION)
    if given is not None:
        scale = 0.01 if given.unit == "percent" else 1.0
        return np.clip(given.data * np.float32(scale), 0.0, 1.0), None, None
    if not leg.images:
        return None, "a label map without an image has volumes only", None
    if {Quantity.IN_PHASE, Quantity.OPPOSED_PHASE} <= leg.images.keys():
        pair = [leg.images[q].data for q in (Quantity.IN_PHASE, Quantity.OPPOSED_PHASE)]
        return in_opposed_fraction(pair[0], pair[1]), None, _FROM_PHASES
    for quantity in _SPLITTABLE:
        if quantity in leg.images:
            split = split_tissue(segmented, quantity)
            if split is not None:
                return split.fractions, None, _FROM_ONE.format(quantity)
    shown = ", ".join(str(q) for q in leg.images)
    return (
        None,
        f"lean volume needs water and fat (or fat fraction) images; given: {shown}",
        None,
    )


def _is_muscle(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Voxels of any muscle, or of several drawn as one."""
    return np.isin(labels, [*(m.id for m in MUSCLES), *(union.id for union in UNIONS)])


def _doubted_swap(segmented: SegmentedLeg, fractions: NDArray[np.float32] | None) -> str | None:
    """Why nothing may rest on a leg: water and fat look exchanged in it and were not put right."""
    leg, labels = segmented.leg, segmented.labels.data
    of_water = set(leg.images) == {Quantity.WATER}
    image = leg.images[Quantity.WATER].data if of_water else fractions
    # In a single image of another kind, or in- and opposed phase, there is nothing to exchange.
    measured = leg.dixon is not None or Quantity.FAT_FRACTION in leg.images or of_water
    if image is None or not measured:
        return None
    muscle = _is_muscle(labels)
    stretches = doubted_swaps(image, muscle, labels == 0, leg.grid, of_water=of_water)
    if not stretches:
        return None
    where = ", ".join(f"from {low:.0f} to {high:.0f} mm (z)" for low, high in stretches)
    why = (
        "it is not clear enough to exchange them back"
        if leg.dixon is not None
        else "one image alone cannot be put right"
    )
    return f"water and fat look exchanged in this leg {where}, and {why}"


def _profile(
    segmented: SegmentedLeg,
    points: NDArray[np.float64],
    fractions: NDArray[np.float32] | None,
    config: MeasureConfig,
) -> tuple[float, tuple[ProfilePoint, ...]]:
    """Length in mm and cross-sections along the limb's own axis."""
    grid = segmented.leg.grid
    along = axis_mm(segmented.axis, points)
    extent = grid.voxel_sizes_mm[2]
    step = config.profile_step_mm
    volumes = np.full(along.size, grid.voxel_volume_mm3)
    levels, areas = area_profile(along, volumes, step_mm=step, voxel_extent_mm=extent)
    lean: Sequence[float | None] | NDArray[np.float64] = [None] * len(levels)
    if fractions is not None and np.isfinite(fractions).any():
        filled = np.where(np.isfinite(fractions), fractions, np.nanmean(fractions))
        _, lean = area_profile(
            along,
            volumes * (1.0 - filled.astype(np.float64)),
            step_mm=step,
            voxel_extent_mm=extent,
        )
    positions = position_at(segmented.axis, levels)
    profile = tuple(
        ProfilePoint(
            position=round(float(p), 6),
            area_mm2=float(a),
            lean_area_mm2=None if b is None else float(b),
        )
        for p, a, b in zip(positions, areas, lean, strict=True)
    )
    return float(along.max() - along.min() + extent), profile


class _Compare:
    """Turns the raw values of both sides into measurements that know each other."""

    def __init__(
        self,
        right: Mapping[str, _Structure],
        left: Mapping[str, _Structure],
        config: MeasureConfig,
    ) -> None:
        self._raw = {Side.RIGHT: right, Side.LEFT: left}
        self._config = config

    def measurements(self, name: str) -> tuple[Measurement, Measurement]:
        """Right and left measurement of a structure."""
        both_whole = all(name in raw and raw[name].extent.cut is None for raw in self._raw.values())
        right, left = (
            self._measurement(name, side, both_whole=both_whole) for side in (Side.RIGHT, Side.LEFT)
        )
        return right, left

    def _measurement(self, name: str, side: Side, *, both_whole: bool) -> Measurement:
        raw = self._raw[side].get(name)
        if raw is None:
            return _absent(self._absent_reason(name, side))
        status, reason = self._status(raw)
        view = raw.in_view
        whole = status in (Status.OK, Status.UNRELIABLE) and raw.extent.cut is None
        # A muscle that is whole on both sides is matched in full: the levels of its ends are
        # its own anatomy, not the field of view's.
        matched = view if both_whole else raw.matched
        other = self._raw[side.other].get(name)
        if other is None or matched is None or matched.volume_ml <= 0:
            matched = None
        if not both_whole and other is not None and other.matched is None:
            matched = None
        lean_reason = raw.lean_reason
        if lean_reason is None and view.fat_fraction is None:
            lean_reason = "no voxel of the muscle has a defined fat fraction"
        return Measurement(
            status=status,
            reason=reason,
            volume_whole_ml=view.volume_ml if whole else None,
            volume_in_view_ml=view.volume_ml,
            volume_matched_ml=matched.volume_ml if matched else None,
            lean_volume_whole_ml=view.lean_ml if whole else None,
            lean_volume_in_view_ml=view.lean_ml,
            lean_volume_matched_ml=matched.lean_ml if matched else None,
            lean_volume_core_ml=view.lean_core_ml,
            fat_free_volume_in_view_ml=view.fat_free_ml,
            fat_volume_in_view_ml=view.fat_ml,
            fat_fraction_percent=_percent(view.fat_fraction),
            fat_fraction_core_percent=_percent(view.core_fat_fraction),
            lean_reason=lean_reason,
            lean_estimate=raw.lean_estimate,
            valid_share=view.valid_share,
            matched_share=min(matched.volume_ml / view.volume_ml, 1.0) if matched else None,
            length_mm=raw.length_mm,
            area_max_mm2=max(point.area_mm2 for point in raw.profile),
            confidence=None if raw.confidence is None else raw.confidence.agreement,
            repeat_volume_ratios=None if raw.confidence is None else raw.confidence.volume_ratios,
            profile=raw.profile,
        )

    def _status(self, raw: _Structure) -> tuple[Status, str | None]:
        config = self._config
        if raw.swap is not None:
            # Of a muscle that is cut too, the part in view must not be compared either.
            return Status.UNRELIABLE, "; ".join(filter(None, (raw.swap, raw.extent.cut)))
        if raw.extent.cut is not None:
            return Status.TRUNCATED, raw.extent.cut
        reasons = []
        confidence = None if raw.confidence is None else raw.confidence.agreement
        if confidence is not None and confidence < config.lowest_confidence:
            reasons.append(
                f"confidence {confidence:.2f} of the segmentation is below "
                f"{config.lowest_confidence:.2f}"
            )
        valid = raw.in_view.valid_share
        if valid is not None and 1.0 - valid > config.largest_invalid_share:
            reasons.append(
                f"{100 * (1 - valid):.0f} % of its voxels have no defined fat fraction "
                f"(limit {100 * config.largest_invalid_share:.0f} %)"
            )
        if raw.extent.gap_share > config.largest_gap_share:
            reasons.append(
                f"its labels are missing on levels between its ends "
                f"({100 * raw.extent.gap_share:.0f} % of its volume)"
            )
        return (Status.UNRELIABLE, "; ".join(reasons)) if reasons else (Status.OK, None)

    def _absent_reason(self, name: str, side: Side) -> str:
        for union in UNIONS:
            if name in union.muscles and union.name in self._raw[side]:
                return f"not labelled on its own; it is part of {union.title.lower()}"
        return "not labelled anywhere in the field of view"


def _local_difference(
    name: str,
    lean: Asymmetry,
    total: Asymmetry,
    structures: Mapping[Side, Mapping[str, _Structure]],
    legs: SegmentedLegs,
    match: LegMatch,
    config: MeasureConfig,
) -> LocalDifference:
    """Where along a muscle the sides differ, of the same volume and extent as its asymmetry."""
    compared = lean if lean.index_percent is not None else total
    if compared.extent is None:
        return no_local_difference(compared.reason or "there is nothing to compare")
    if not match.succeeded:
        return no_local_difference(f"the registration failed: {match.reason}")
    courses = []
    for side in (Side.RIGHT, Side.LEFT):
        raw, grid = structures[side][name], legs[side].leg.grid
        assert raw.placed is not None
        share = (
            raw.placed.shared if compared.extent == "matched" else np.ones(raw.placed.own_mm.size)
        )
        amounts = share * grid.voxel_volume_mm3
        if compared.of == "lean_volume":
            assert raw.fractions is not None
            defined = np.isfinite(raw.fractions)
            # As in the sums: voxels without a fraction count with the mean of the others.
            mean = np.average(raw.fractions[defined], weights=share[defined])
            amounts = amounts * (1.0 - np.where(defined, raw.fractions, mean))
        courses.append(MatchedCourse(raw.placed, amounts, voxel_extent_mm=grid.voxel_sizes_mm[2]))
    return describe(
        courses[0],
        courses[1],
        (legs.right.axis, legs.left.axis),
        name=name,
        asymmetry=compared,
        step_mm=config.local_step_mm,
        smallest_share=config.smallest_area_share,
    )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100.0 * fraction


def _absent(reason: str) -> Measurement:
    return Measurement(
        status=Status.ABSENT,
        reason=reason,
        volume_whole_ml=None,
        volume_in_view_ml=None,
        volume_matched_ml=None,
        lean_volume_whole_ml=None,
        lean_volume_in_view_ml=None,
        lean_volume_matched_ml=None,
        lean_volume_core_ml=None,
        fat_free_volume_in_view_ml=None,
        fat_volume_in_view_ml=None,
        fat_fraction_percent=None,
        fat_fraction_core_percent=None,
        lean_reason=reason,
        valid_share=None,
        matched_share=None,
        length_mm=None,
        area_max_mm2=None,
        confidence=None,
        repeat_volume_ratios=None,
    )


def _asymmetries(
    right: Measurement,
    left: Measurement,
    healthy_limit: float | None,
    members: Sequence[str],
    config: MeasureConfig,
) -> tuple[Asymmetry, Asymmetry]:
    """Asymmetry of lean volume and of total volume of one or several muscles."""
    error = _method_error(members, config)
    total = _asymmetry("total_volume", right, left, None, healthy_limit, error, config)
    lean = _asymmetry("lean_volume", right, left, total, healthy_limit, error, config)
    return lean, total


def _method_error(members: Sequence[str], config: MeasureConfig) -> MethodError:
    hip = any(MUSCLES_BY_NAME[name].region == "hip" for name in members)
    return MethodError(
        gain=config.method_error_gain,
        floor=config.method_error_floor_percent / 100.0,
        of_100_ml=config.method_error_of_100_ml_percent / 100.0,
        factor=config.method_error_hip_factor if hip else 1.0,
    )


def _asymmetry(
    of: Of,
    right: Measurement,
    left: Measurement,
    total: Asymmetry | None,
    healthy_limit: float | None,
    error: MethodError,
    config: MeasureConfig,
) -> Asymmetry:
    extent, values, reason = _comparable(of, right, left)
    if extent is None or values is None:
        return Asymmetry(
            of=of,
            extent=None,
            index_percent=None,
            log_ratio=None,
            smaller_over_larger=None,
            smaller_side=None,
            se_method_percent=None,
            se_total_percent=None,
            interval_low_percent=None,
            interval_high_percent=None,
            matched_share=None,
            verdict=None,
            reason=reason,
        )
    log_ratio = math.log(values[0] / values[1])
    method, se = _standard_errors(right, left, error, config)
    estimate = right.lean_estimate or left.lean_estimate if of == "lean_volume" else None
    if estimate is not None:
        added = config.lean_estimate_se_percent / 100.0
        method, se = math.hypot(method or 0.0, added), math.hypot(se, added)
    interval = interval_percent(log_ratio, se)
    share = _smaller(right.matched_share, left.matched_share)
    why_not = _no_verdict(right, left, extent, share, config) or estimate
    verdict = None
    if why_not is None:
        # Published limits are of the total volume of whole muscles and are held against that.
        reference = total if total is not None else None
        healthy = interval
        if reference is not None and reference.interval_low_percent is not None:
            assert reference.interval_high_percent is not None
            healthy = (reference.interval_low_percent, reference.interval_high_percent)
        verdict = judge(
            interval,
            healthy_interval=healthy if extent == "whole" else None,
            healthy_limit_percent=healthy_limit,
        )
    smaller = None if log_ratio == 0 else (Side.LEFT if log_ratio > 0 else Side.RIGHT)
    return Asymmetry(
        of=of,
        extent=extent,
        index_percent=index_from_log_ratio(log_ratio),
        log_ratio=log_ratio,
        smaller_over_larger=math.exp(-abs(log_ratio)),
        smaller_side=smaller,
        se_method_percent=None if method is None else 100.0 * method,
        se_total_percent=100.0 * se,
        interval_low_percent=interval[0],
        interval_high_percent=interval[1],
        matched_share=share,
        verdict=verdict,
        reason=why_not,
    )


def _standard_errors(
    right: Measurement, left: Measurement, error: MethodError, config: MeasureConfig
) -> tuple[float | None, float]:
    """Standard error of ln(R / L) of the method, where it can be told, and in all."""
    scan_rescan = se_from_scan_rescan(config.scan_rescan_cv_percent)
    looks = right.repeat_volume_ratios, left.repeat_volume_ratios
    volumes = right.volume_in_view_ml, left.volume_in_view_ml
    if looks[0] is None or looks[1] is None or volumes[0] is None or volumes[1] is None:
        return None, scan_rescan
    spread = spread_between_looks(looks[0], looks[1])
    method = se_of_method(spread, (volumes[0] + volumes[1]) / 2.0, error)
    return method, se_total(method, spread, scan_rescan)


def _comparable(
    of: Of, right: Measurement, left: Measurement
) -> tuple[Extents | None, tuple[float, float] | None, str | None]:
    """Which extent of which values can be compared, or why none can."""
    for side, m in ((Side.RIGHT, right), (Side.LEFT, left)):
        if m.status is Status.ABSENT:
            return None, None, f"the {side} side is absent: {m.reason}"
        if of == "lean_volume" and m.lean_volume_in_view_ml is None:
            return None, None, m.lean_reason
    prefix = "lean_volume" if of == "lean_volume" else "volume"
    extents: tuple[Extents, ...] = ("whole", "matched")
    for extent in extents:
        pair = tuple(getattr(m, f"{prefix}_{extent}_ml") for m in (right, left))
        if pair[0] and pair[1]:
            return extent, (pair[0], pair[1]), None
    return None, None, "there is no part of the muscle that both legs show"


def _no_verdict(
    right: Measurement,
    left: Measurement,
    extent: Extents,
    share: float | None,
    config: MeasureConfig,
) -> str | None:
    for side, m in ((Side.RIGHT, right), (Side.LEFT, left)):
        if m.status is Status.UNRELIABLE:
            return f"the {side} side is unreliable: {m.reason}"
    if extent == "matched" and share is not None and share < config.smallest_matched_share:
        return (
            f"both legs show only {100 * share:.0f} % of it "
            f"(at least {100 * config.smallest_matched_share:.0f} % needed)"
        )
    return None


def _smaller(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else min(a, b)


def _group(
    group: MuscleGroup, muscles: Sequence[MuscleResult], config: MeasureConfig
) -> GroupResult:
    members = [m for m in muscles if m.name in group.muscles]
    compared = [m for m in members if Status.ABSENT not in (m.right.status, m.left.status)]
    right = _sum([m.right for m in compared], missing=len(members) - len(compared))
    left = _sum([m.left for m in compared], missing=len(members) - len(compared))
    limit = _healthy_limit(group, config)
    names = tuple(m.name for m in compared)
    lean, total = _asymmetries(right, left, limit, names, config)
    return GroupResult(
        name=group.name,
        kind=group.kind,
        muscles=group.muscles,
        muscles_compared=names,
        right=right,
        left=left,
        asymmetry=lean,
        asymmetry_total_volume=total,
        healthy_limit_percent=limit,
    )


def _union(
    name: str, members: tuple[str, ...], sums: _Compare, config: MeasureConfig
) -> GroupResult:
    """A union label that a source drew in place of its single muscles."""
    right, left = sums.measurements(name)
    lean, total = _asymmetries(right, left, None, members, config)
    return GroupResult(
        name=name,
        kind="union",
        muscles=members,
        muscles_compared=members,
        right=right,
        left=left,
        asymmetry=lean,
        asymmetry_total_volume=total,
        healthy_limit_percent=None,
    )


def _sum(members: Sequence[Measurement], *, missing: int) -> Measurement:
    """Members taken together. `missing` members are not seen on both sides and left out."""
    if not members:
        return _absent("no muscle of the group is seen on both sides")
    cut = sum(m.status is Status.TRUNCATED for m in members)
    doubtful = sum(m.status is Status.UNRELIABLE for m in members)
    reasons = []
    if missing:
        reasons.append(f"{missing} of its muscles not seen on both sides and left out")
    if cut:
        reasons.append(f"{cut} of its muscles truncated")
    if doubtful:
        reasons.append(f"{doubtful} of its muscles unreliable")
    status = Status.OK
    if missing or cut:
        status = Status.TRUNCATED
    elif doubtful:
        status = Status.UNRELIABLE
    volume = _total(members, "volume_in_view_ml")
    lean = _total(members, "lean_volume_in_view_ml")
    fat = _total(members, "fat_volume_in_view_ml")
    matched = _total(members, "volume_matched_ml")
    core = _total(members, "lean_volume_core_ml")
    whole = status is not Status.TRUNCATED
    assert volume is not None
    return Measurement(
        status=status,
        reason="; ".join(reasons) or None,
        volume_whole_ml=_total(members, "volume_whole_ml") if whole else None,
        volume_in_view_ml=volume,
        volume_matched_ml=matched,
        lean_volume_whole_ml=_total(members, "lean_volume_whole_ml") if whole else None,
        lean_volume_in_view_ml=lean,
        lean_volume_matched_ml=_total(members, "lean_volume_matched_ml"),
        lean_volume_core_ml=core,
        fat_free_volume_in_view_ml=_total(members, "fat_free_volume_in_view_ml"),
        fat_volume_in_view_ml=fat,
        fat_fraction_percent=100.0 * fat / volume if fat is not None else None,
        fat_fraction_core_percent=100.0 * (1.0 - core / volume) if core is not None else None,
        lean_reason=None
        if lean is not None
        else next(m.lean_reason for m in members if m.lean_reason is not None),
        lean_estimate=next((m.lean_estimate for m in members if m.lean_estimate), None),
        valid_share=_mean_share(members, volume),
        matched_share=min(matched / volume, 1.0) if matched is not None else None,
        length_mm=None,
        area_max_mm2=None,
        confidence=None,
        repeat_volume_ratios=_repeats(members),
    )


def _repeats(members: Sequence[Measurement]) -> tuple[float, ...] | None:
    """Volume ratios of all members together, look by look."""
    ratios = [m.repeat_volume_ratios for m in members]
    if any(r is None for r in ratios):
        return None
    volumes = np.array([m.volume_in_view_ml for m in members], dtype=np.float64)
    together = volumes @ np.array(ratios, dtype=np.float64) / volumes.sum()
    return tuple(float(ratio) for ratio in together)


def _total(members: Sequence[Measurement], field: str) -> float | None:
    """Sum of a field; None as soon as one member lacks it."""
    values = [getattr(m, field) for m in members]
    return None if any(v is None for v in values) else math.fsum(values)


def _mean_share(members: Sequence[Measurement], volume: float) -> float | None:
    if any(m.valid_share is None for m in members):
        return None
    share = sum((m.valid_share or 0.0) * (m.volume_in_view_ml or 0.0) for m in members) / volume
    return min(share, 1.0)


def _ratio(pair: tuple[str, str], groups: Sequence[GroupResult], of: Of) -> RatioResult:
    field = "lean_volume_whole_ml" if of == "lean_volume" else "volume_whole_ml"
    by_name = {g.name: g for g in groups}
    values: dict[Side, float | None] = {}
    reasons: list[str] = []
    for side in Side:
        sides: list[Measurement] = [getattr(by_name[name], side) for name in pair]
        top, bottom = (getattr(m, field) for m in sides)
        values[side] = None if top is None or bottom is None else top / bottom
        if values[side] is None:
            why = next((m.lean_reason for m in sides if m.lean_reason), None)
            if of == "total_volume" or why is None:
                why = "one of the groups is not whole"
            reasons.append(f"{side}: {why}")
    return RatioResult(
        name=f"{pair[0]}_to_{pair[1]}",
        of=of,
        right=values[Side.RIGHT],
        left=values[Side.LEFT],
        reason="; ".join(reasons) or None,
    )


def _healthy_limit(structure: Muscle | MuscleGroup, config: MeasureConfig) -> float | None:
    """The limit of the user's own cohort, else the published one, percent of total volume."""
    return config.own_limits_percent.get(structure.name, structure.healthy_limit_percent)


def _expected_volumes(participant: Participant | None, config: MeasureConfig) -> dict[str, float]:
    """Expected volumes in mL by muscle: of the user's own cohort where it has them, else
    published (Handsfield et al. 2014, J Biomech 47:631)."""
    if participant is None or participant.height_m is None or participant.mass_kg is None:
        return {}
    size = participant.height_m * participant.mass_kg
    own = {
        name: line.slope_ml_per_m_kg * size + line.intercept_ml
        for name, line in config.own_expected_volumes_ml.items()
    }
    return _volumes_of_leg(47.0 * size + 1285.0) | own


def _volumes_of_leg(total_ml: float) -> dict[str, float]:
    """Reference volumes in mL by muscle of a leg with so much muscle in all."""
    return {m.name: m.reference_slope * total_ml + m.reference_intercept_ml for m in MUSCLES}


def _unlikely_volumes(
    muscles: Sequence[MuscleResult],
    groups: Sequence[GroupResult],
    participant: Participant | None,
    config: MeasureConfig,
) -> Iterator[Finding]:
    """Whole muscles far from the reference, and sides far from each other.

    Without height and mass the reference is that of the leg's own size: of the whole muscles
    taken together. The border between vastus lateralis and intermedius is weak in images, so the
    two are judged as one.
    """
    pairs = [group for group in groups if group.kind == "pair"]
    taken = {name for group in pairs for name in group.muscles}
    rows: list[MuscleResult | GroupResult] = [m for m in muscles if m.name not in taken]
    rows += pairs
    for side in Side:
        measured = {m.name: getattr(m, side).volume_whole_ml for m in muscles}
        whole = {name: volume for name, volume in measured.items() if volume is not None}
        expected = _expected_volumes(participant, config) or _own_reference(whole, config)
        doubtful = []
        for row in rows:
            volume = getattr(row, side).volume_whole_ml
            members = row.muscles if isinstance(row, GroupResult) else (row.name,)
            usual = sum(expected.get(name, 0.0) for name in members)
            if volume is None or usual < config.smallest_reference_ml:
                continue
            factor = max(volume / usual, usual / volume) if volume > 0 else math.inf
            if factor > config.largest_volume_factor:
                doubtful.append(f"{row.name.replace('_', ' ')} {volume:.0f} mL (usual {usual:.0f})")
        if doubtful:
            yield Finding(
                code="volumes_unlikely",
                severity=Severity.WARNING,
                stage="measure",
                side=side,
                message=f"Volumes on the {side} are far from what is usual in a leg of this size: "
                f"{', '.join(doubtful)}. Look at the pictures of the labels.",
                value=float(len(doubtful)),
                threshold=0.0,
                unit="muscles",
            )
    apart = []
    for row in rows:
        right, left = row.right.volume_whole_ml, row.left.volume_whole_ml
        if right and left and max(right / left, left / right) > config.largest_side_factor:
            apart.append(f"{row.name.replace('_', ' ')} {right:.0f} and {left:.0f} mL")
    if apart:
        yield Finding(
            code="sides_far_apart",
            severity=Severity.WARNING,
            stage="measure",
            message="Right and left differ by more than sides of one person do without an "
            f"operation or a palsy: {', '.join(apart)}. Look at the pictures of the labels.",
            value=float(len(apart)),
            threshold=0.0,
            unit="muscles",
        )


def _own_reference_used(config: MeasureConfig) -> Iterator[Finding]:
    limits, volumes = config.own_limits_percent, config.own_expected_volumes_ml
    if limits or volumes:
        yield Finding(
            code="own_cohort",
            severity=Severity.INFO,
            stage="measure",
            message="The configuration brings a cohort of its own: healthy limits of "
            f"{len(limits)} muscles and groups and expected volumes of {len(volumes)} are taken "
            "from it, in place of the published ones.",
        )


def _own_reference(whole: Mapping[str, float], config: MeasureConfig) -> dict[str, float]:
    """Reference of a leg whose whole muscles together are as large as these; {} for too few."""
    if len(whole) < config.fewest_whole_muscles:
        return {}
    known = [m for m in MUSCLES if m.name in whole]
    slope = sum(m.reference_slope for m in known)
    rest = math.fsum(whole.values()) - sum(m.reference_intercept_ml for m in known)
    return _volumes_of_leg(rest / slope)


def _lean_estimated(muscles: Sequence[MuscleResult]) -> Iterator[Finding]:
    said = {m.right.lean_estimate or m.left.lean_estimate for m in muscles} - {None}
    for estimate in sorted(filter(None, said)):
        yield Finding(
            code="lean_estimated",
            severity=Severity.WARNING,
            stage="measure",
            message=f"Water and fat were not both measured: {estimate}. Total volumes do not "
            "depend on it; no verdict rests on the lean ones.",
        )


def _noise_floors(legs: SegmentedLegs, config: MeasureConfig) -> Iterator[Finding]:
    """What fat fraction noise alone gives in the muscles of each leg."""
    floors: dict[Side, float] = {}
    for side in Side:
        leg, labels = legs[side].leg, legs[side].labels.data
        if leg.dixon is None:
            return
        pair = leg.dixon
        muscle = _is_muscle(labels) & pair.valid
        if pair.fat_noise is None or not muscle.any():
            continue
        # The signal that the muscle would have without its fat.
        lean = pair.water.data[muscle] + pair.fat.data[muscle] / np.float32(pair.fat_gain)
        floors[side] = 100.0 * fraction_of_noise(
            pair.fat_noise, float(np.median(lean)), pair.fat_gain
        )
    if len(floors) < len(Side):
        yield Finding(
            code="noise_floor_unknown",
            severity=Severity.INFO,
            stage="measure",
            message="How much fat noise alone reads as could not be told: the images show no air "
            "with noise in it around the legs.",
        )
        return
    limit = config.largest_noise_floor_percent
    for side, floor in floors.items():
        high = floor > limit
        yield Finding(
            code="noise_floor_high" if high else "noise_floor",
            severity=Severity.WARNING if high else Severity.INFO,
            stage="measure",
            side=side,
            message=f"Noise alone reads as {floor:.1f} % fat in lean muscle of the {side} leg"
            + ("; fat fractions of healthy muscle are no larger." if high else "."),
            value=floor,
            threshold=limit,
            unit="percent",
        )
    apart = floors[Side.RIGHT] - floors[Side.LEFT]
    if abs(apart) > config.largest_noise_floor_difference_points:
        noisy = Side.RIGHT if apart > 0 else Side.LEFT
        yield Finding(
            code=_NOISE_DIFFERS,
            severity=Severity.WARNING,
            stage="measure",
            side=noisy,
            message=f"Noise alone reads as {abs(apart):.1f} points more fat in the {noisy} leg, "
            "whose signal is weaker: lean volumes of muscles with little fat differ by that alone.",
            value=abs(apart),
            threshold=config.largest_noise_floor_difference_points,
            unit="points",
        )


def _swap_findings(
    structures: Mapping[Side, Mapping[str, _Structure]],
) -> Iterator[Finding]:
    for side in Side:
        swap = next((raw.swap for raw in structures[side].values()), None)
        if swap is not None:
            yield Finding(
                code="fat_water_swap_not_corrected",
                severity=Severity.ERROR,
                stage="measure",
                side=side,
                message=f"The {side} leg cannot be relied on: {swap}. None of its muscles is "
                "judged. Reconstruct the images again, or give water and fat images.",
            )


def _findings(muscles: Sequence[MuscleResult]) -> list[Finding]:
    findings = []
    for status in (Status.TRUNCATED, Status.UNRELIABLE):
        for side in Side:
            names = [m.name for m in muscles if getattr(m, side).status is status]
            if names:
                listed = ", ".join(n.replace("_", " ") for n in names)
                findings.append(
                    Finding(
                        code=f"muscles_{status}",
                        severity=Severity.WARNING,
                        stage="measure",
                        side=side,
                        message=f"{len(names)} muscles are {status} on the {side}: {listed}.",
                        value=float(len(names)),
                        unit="muscles",
                    )
                )
    return findings
