"""The difference between the sides: asymmetry, its error and verdict, and where it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import MUSCLES_BY_NAME, Side
from pipeline.core.match import LegMatch
from pipeline.core.results import Asymmetry, Extents, LocalDifference, Measurement, Of, Status
from pipeline.core.scan import SegmentedLegs
from pipeline.imaging.asymmetry import (
    Estimate,
    MethodError,
    judge,
    se_from_scan_rescan,
    se_of_method,
    se_total,
    spread_between_looks,
)
from pipeline.imaging.local_difference import (
    LocalErrors,
    MatchedCourse,
    describe_difference,
    no_local_difference,
)
from pipeline.measuring.one_leg import RawStructure


def asymmetries(
    right: Measurement,
    left: Measurement,
    healthy_limit: float | None,
    members: Sequence[str],
    config: MeasureConfig,
    *,
    level_error_mm: float,
) -> tuple[Asymmetry, Asymmetry]:
    """Asymmetry of lean volume and of total volume of one or several muscles.

    Args:
        right, left: what was measured.
        healthy_limit: limit of healthy people, percent of total volume, if there is one.
        members: names of the muscles.
        config: figures of the errors, least shares.
        level_error_mm: see level_error_mm.
    """
    error = method_error(members, config, level_error_mm)
    known = partial(
        _asymmetry, right, left, healthy_limit=healthy_limit, error=error, config=config
    )
    total = known(of="total_volume", total=None)
    return known(of="lean_volume", total=total), total


def level_error_mm(legs: SegmentedLegs, config: MeasureConfig) -> float:
    """Standard error of where a level of one leg lies in the other leg."""
    slice_mm = max(legs[side].leg.grid.voxel_sizes_mm[2] for side in Side)
    return math.hypot(config.level_error_mm, config.level_error_slices * slice_mm)


def method_error(
    members: Sequence[str], config: MeasureConfig, level_error_mm: float = 0.0
) -> MethodError:
    """The terms of the method's own error for one or several muscles."""
    hip = any(MUSCLES_BY_NAME[name].region == "hip" for name in members)
    return MethodError(
        gain=config.method_error_gain,
        floor=config.method_error_floor_percent / 100.0,
        of_100_ml=config.method_error_of_100_ml_percent / 100.0,
        factor=config.method_error_hip_factor if hip else 1.0,
        level_mm=level_error_mm,
        of_fat=config.method_error_of_fat_percent / 100.0,
    )


def _asymmetry(
    right: Measurement,
    left: Measurement,
    *,
    of: Of,
    total: Asymmetry | None,
    healthy_limit: float | None,
    error: MethodError,
    config: MeasureConfig,
) -> Asymmetry:
    extent, values, reason = _comparable(of, right, left)
    if extent is None or values is None:
        return _no_asymmetry(of, reason)
    log_ratio = math.log(values[0] / values[1])
    method, se = _errors(of, right, left, extent, error, config)
    if extent == "matched":
        placing = _placing_error(right, left, error.level_mm)
        method = placing or None if method is None else math.hypot(method, placing)
        se = math.hypot(se, placing)
    estimate = right.lean_estimate or left.lean_estimate if of == "lean_volume" else None
    if estimate is not None:
        added = config.lean_estimate_se_percent / 100.0
        method, se = math.hypot(method or 0.0, added), math.hypot(se, added)
    found = Estimate.of(log_ratio, se)
    share = _smaller(right.matched_share, left.matched_share)
    why_not = _no_verdict(right, left, extent, share, config) or estimate
    verdict = None
    if why_not is None:
        # Published limits are of the total volume of whole muscles and are held against that.
        limited = found if total is None else _estimate(total)
        verdict = judge(
            found,
            limited=limited if extent == "whole" else None,
            healthy_limit_percent=healthy_limit,
        )
    smaller = None if log_ratio == 0 else (Side.LEFT if log_ratio > 0 else Side.RIGHT)
    return Asymmetry(
        of=of,
        extent=extent,
        index_percent=found.percent,
        log_ratio=log_ratio,
        smaller_over_larger=math.exp(-abs(log_ratio)),
        smaller_side=smaller,
        se_method_percent=None if method is None else 100.0 * method,
        se_total_percent=100.0 * se,
        interval_low_percent=found.low_percent,
        interval_high_percent=found.high_percent,
        matched_share=share,
        verdict=verdict,
        reason=why_not,
    )


def _estimate(asymmetry: Asymmetry) -> Estimate | None:
    low, high = asymmetry.interval_low_percent, asymmetry.interval_high_percent
    if asymmetry.index_percent is None or low is None or high is None:
        return None
    return Estimate(asymmetry.index_percent, low, high)


def _no_asymmetry(of: Of, reason: str | None) -> Asymmetry:
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


def _errors(
    of: Of,
    right: Measurement,
    left: Measurement,
    extent: Extents,
    error: MethodError,
    config: MeasureConfig,
) -> tuple[float | None, float]:
    """Standard error of ln(R / L) of the labels, where it can be told, and with what a second
    scan adds."""
    scan_rescan = se_from_scan_rescan(config.scan_rescan_cv_percent)
    of_fat = 0.0
    if of == "lean_volume":
        of_fat = math.hypot(*(m.fat_fraction_error_of_lean_percent / 100.0 for m in (right, left)))
    looks = right.repeat_volume_ratios, left.repeat_volume_ratios
    if looks[0] is None or looks[1] is None:
        # The error of the method, where it is told, was fitted with that of counting in it.
        counting = [(m.counting_se_percent or 0.0) / 100.0 for m in (right, left)]
        return None, math.hypot(scan_rescan, of_fat, *counting)
    spread = spread_between_looks(looks[0], looks[1])
    volumes = right.volume_ml("total_volume", extent), left.volume_ml("total_volume", extent)
    assert volumes[0] is not None
    assert volumes[1] is not None
    fat = right.fat_fraction_percent, left.fat_fraction_percent
    apart = 0.0 if fat[0] is None or fat[1] is None else fat[0] - fat[1]
    method = se_of_method(spread, (volumes[0] + volumes[1]) / 2.0, error, apart)
    return method, math.hypot(se_total(method, spread, scan_rescan), of_fat)


def _placing_error(right: Measurement, left: Measurement, level_error_mm: float) -> float:
    """Standard error of ln(R / L) of a matched part, because where the ends of one leg's field of
    view lie in the other leg is known to a mm or two only.

    One leg or the other is cut at each end: d ln(R / L) = (A_R / V_R + A_L / V_L) d.
    """
    per_mm = [
        sum(
            (getattr(m, f"matched_cut_{end}_mm2") or 0.0) / (1e3 * m.volume_matched_ml)
            for m in (right, left)
            if m.volume_matched_ml
        )
        for end in ("upper", "lower")
    ]
    return level_error_mm * math.hypot(*per_mm)


def _comparable(
    of: Of, right: Measurement, left: Measurement
) -> tuple[Extents | None, tuple[float, float] | None, str | None]:
    """Which extent of which values can be compared, or why none can."""
    for side, m in ((Side.RIGHT, right), (Side.LEFT, left)):
        if m.status is Status.ABSENT:
            return None, None, f"the {side} side is absent: {m.reason}"
        if of == "lean_volume" and m.lean_volume_in_view_ml is None:
            return None, None, m.lean_reason
    extents: tuple[Extents, ...] = ("whole", "matched")
    for extent in extents:
        volumes = right.volume_ml(of, extent), left.volume_ml(of, extent)
        if volumes[0] and volumes[1]:
            return extent, (volumes[0], volumes[1]), None
    sides = ((Side.RIGHT, right), (Side.LEFT, left))
    for side, m in sides:
        if of == "lean_volume" and m.lean_volume_in_view_ml == 0:
            return None, None, f"the {side} side holds no lean tissue, all of it is fat"
    cut = ", ".join(f"{side}: {m.reason}" for side, m in sides if m.reason)
    return None, None, "no part of it is known that both legs show" + (f" ({cut})" if cut else "")


def _no_verdict(
    right: Measurement,
    left: Measurement,
    extent: Extents,
    share: float | None,
    config: MeasureConfig,
) -> str | None:
    for side, m in ((Side.RIGHT, right), (Side.LEFT, left)):
        if m.why_doubted is not None:
            return f"the {side} side is unreliable: {m.why_doubted}"
    looks = [m.repeat_volume_ratios is None for m in (right, left)]
    if looks[0] != looks[1]:
        side = Side.RIGHT if looks[0] else Side.LEFT
        return f"how steady the labels of the {side} side are is not known"
    if extent == "matched" and share is not None and share < config.smallest_matched_share:
        return (
            f"both legs show only {100 * share:.0f} % of it "
            f"(at least {100 * config.smallest_matched_share:.0f} % needed)"
        )
    volumes = [m.volume_ml("total_volume", extent) or 0.0 for m in (right, left)]
    factor = max(volumes) / min(volumes)
    if not looks[0] and factor > config.largest_found_side_factor:
        return (
            f"its volumes are {factor:.1f} times apart: that labels found by a program are wrong "
            "is likelier than that (look at the pictures, and correct the labels)"
        )
    return None


def _smaller(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else min(a, b)


def local_difference(
    name: str,
    sides: tuple[Measurement, Measurement],
    asymmetries_of_it: tuple[Asymmetry, Asymmetry],
    *,
    structures: Mapping[Side, Mapping[str, RawStructure]],
    legs: SegmentedLegs,
    match: LegMatch,
    config: MeasureConfig,
) -> LocalDifference:
    """Where along a muscle the sides differ, of the same volume and extent as its asymmetry.

    Of lean volume where it was measured; where it is missing or an estimate, of total volume.

    Args:
        name: the muscle.
        sides: what was measured on the right and on the left.
        asymmetries_of_it: of lean and of total volume.
        structures: raw values of both legs, by name.
        legs, match: both legs and their correspondence.
        config: figures of the errors, step of the levels.
    """
    lean, total = asymmetries_of_it
    found = [structures[side][name] for side in Side if name in structures[side]]
    estimated = any(structure.lean_estimate is not None for structure in found)
    compared = total if estimated or lean.index_percent is None else lean
    if compared.extent is None:
        return no_local_difference(compared.reason or "there is nothing to compare")
    if not match.succeeded:
        return no_local_difference(f"the registration failed: {match.reason}")
    courses, extents = [], []
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
        extents.append(grid.voxel_sizes_mm[2])
        places = raw.placed.own_mm, raw.placed.matched_mm
        courses.append(MatchedCourse(*places, amounts, voxel_extent_mm=extents[-1]))
    level_mm = level_error_mm(legs, config)
    error = method_error((name,), config, level_mm)
    method, se = _errors(compared.of, *sides, compared.extent, error, config)
    return describe_difference(
        (courses[0], courses[1]),
        (legs.right.axis, legs.left.axis),
        name=name,
        of=compared.of,
        extent=compared.extent,
        errors=LocalErrors(method, se, level_mm),
        # A slice has one area: finer levels would hold shifted slices against each other.
        step_mm=max(config.local_step_mm, *extents),
        smallest_share=config.smallest_area_share,
    )
