"""Muscles taken together: groups, unions that a source drew as one, and ratios of groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import MuscleGroup, Side
from pipeline.core.results import (
    GroupResult,
    Measurement,
    MuscleResult,
    Of,
    RatioResult,
    Status,
    on_side,
)
from pipeline.imaging.asymmetry import se_of_repeat
from pipeline.measuring.difference import asymmetries
from pipeline.measuring.limits import healthy_limit
from pipeline.measuring.sides import Sides, absent, fat_fraction_error


def group_result(
    group: MuscleGroup,
    muscles: Sequence[MuscleResult],
    config: MeasureConfig,
    *,
    level_error_mm: float,
) -> GroupResult:
    """A compartment or functional group: of its muscles, those seen on both sides."""
    members = [m for m in muscles if m.name in group.muscles]
    compared = [m for m in members if Status.ABSENT not in (m.right.status, m.left.status)]
    missing = len(members) - len(compared)
    right, left = (
        _sum([on_side(m, side) for m in compared], missing=missing, config=config)
        for side in (Side.RIGHT, Side.LEFT)
    )
    limit = healthy_limit(group, config)
    names = tuple(m.name for m in compared)
    lean, total = asymmetries(
        right, left, limit.percent, names, config, level_error_mm=level_error_mm
    )
    return GroupResult(
        name=group.name,
        kind=group.kind,
        muscles=group.muscles,
        muscles_compared=names,
        right=right,
        left=left,
        asymmetry=lean,
        asymmetry_total_volume=total,
        healthy_limit_percent=limit.percent,
        healthy_limit_people=limit.people,
        healthy_limit_half_width_percent=limit.half_width_percent,
    )


def union_result(
    name: str,
    members: tuple[str, ...],
    sums: Sides,
    config: MeasureConfig,
    *,
    level_error_mm: float,
) -> GroupResult:
    """A union label that a source drew in place of its single muscles."""
    right, left = sums.measurements(name)
    lean, total = asymmetries(right, left, None, members, config, level_error_mm=level_error_mm)
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
        healthy_limit_people=None,
        healthy_limit_half_width_percent=None,
    )


def _sum(members: Sequence[Measurement], *, missing: int, config: MeasureConfig) -> Measurement:
    """Members taken together. `missing` members are not seen on both sides and left out."""
    if not members:
        return absent("no muscle of the group is seen on both sides")
    cut = sum(m.status is Status.TRUNCATED for m in members)
    doubtful = sum(m.why_doubted is not None for m in members)
    steady = sum(m.repeat_volume_ratios is not None for m in members)
    reasons = []
    if missing:
        reasons.append(f"{missing} of its muscles not seen on both sides and left out")
    if cut:
        reasons.append(f"{cut} of its muscles truncated")
    doubt = f"{doubtful} of its muscles unreliable" if doubtful else None
    if doubt is None and 0 < steady < len(members):
        doubt = f"{len(members) - steady} of its muscles with an error that is not known"
    if doubt is not None:
        reasons.append(doubt)
    whole = not missing and not any(m.volume_whole_ml is None for m in members)
    # Nothing may be judged by what rests in part on a muscle that may not.
    status = Status.OK if doubt is None else Status.UNRELIABLE
    if not whole:
        status = Status.TRUNCATED
    volume = _total(members, "volume_in_view_ml")
    lean = _total(members, "lean_volume_in_view_ml")
    fat = _total(members, "fat_volume_in_view_ml")
    matched = _total(members, "volume_matched_ml")
    core = _total(members, "lean_volume_core_ml")
    assert volume is not None
    looks, counting = _repeats(members), _counting(members, volume)
    cv = config.scan_rescan_cv_percent / 100.0
    fraction = 100.0 * fat / volume if fat is not None else None
    estimate = next((m.lean_estimate for m in members if m.lean_estimate), None)
    return Measurement(
        status=status,
        reason="; ".join(reasons) or None,
        doubt=None if whole else doubt,
        volume_whole_ml=_total(members, "volume_whole_ml") if whole else None,
        volume_in_view_ml=volume,
        volume_matched_ml=matched,
        lean_volume_whole_ml=_total(members, "lean_volume_whole_ml") if whole else None,
        lean_volume_in_view_ml=lean,
        lean_volume_matched_ml=_total(members, "lean_volume_matched_ml"),
        lean_volume_core_ml=core,
        fat_free_volume_in_view_ml=_total(members, "fat_free_volume_in_view_ml"),
        fat_volume_in_view_ml=fat,
        fat_fraction_percent=fraction,
        fat_fraction_core_percent=100.0 * (1.0 - core / volume) if core is not None else None,
        lean_reason=None
        if lean is not None
        else next(m.lean_reason for m in members if m.lean_reason is not None),
        lean_estimate=estimate,
        valid_share=_mean_share(members, volume),
        matched_share=min(matched / volume, 1.0) if matched is not None else None,
        matched_cut_upper_mm2=_total(members, "matched_cut_upper_mm2"),
        matched_cut_lower_mm2=_total(members, "matched_cut_lower_mm2"),
        counting_se_percent=counting,
        se_repeat_percent=100.0 * se_of_repeat(looks, cv, counting / 100.0),
        fat_fraction_se_repeat_points=fat_fraction_error(fraction, estimate, config),
        length_mm=None,
        area_max_mm2=None,
        confidence=None,
        repeat_volume_ratios=looks,
    )


def _repeats(members: Sequence[Measurement]) -> tuple[float, ...] | None:
    """Volume ratios of all members together, look by look."""
    ratios = [m.repeat_volume_ratios for m in members]
    if any(r is None for r in ratios):
        return None
    volumes = np.array([m.volume_in_view_ml for m in members], dtype=np.float64)
    together = volumes @ np.array(ratios, dtype=np.float64) / volumes.sum()
    return tuple(float(ratio) for ratio in together)


def _counting(members: Sequence[Measurement], volume: float) -> float:
    """Standard error of all members together, as errors that are independent."""
    parts = [(m.counting_se_percent or 0.0) * (m.volume_in_view_ml or 0.0) for m in members]
    return math.hypot(*parts) / volume


def _total(members: Sequence[Measurement], field: str) -> float | None:
    """Sum of a field; None as soon as one member lacks it."""
    values = [getattr(m, field) for m in members]
    return None if any(v is None for v in values) else math.fsum(values)


def _mean_share(members: Sequence[Measurement], volume: float) -> float | None:
    if any(m.valid_share is None for m in members):
        return None
    share = sum((m.valid_share or 0.0) * (m.volume_in_view_ml or 0.0) for m in members) / volume
    return min(share, 1.0)


def ratio(pair: tuple[str, str], groups: Sequence[GroupResult], of: Of) -> RatioResult:
    """Ratio of two groups (numerator, denominator) on each side, of whole volumes only."""
    by_name = {g.name: g for g in groups}
    values: dict[Side, float | None] = {}
    reasons: list[str] = []
    for side in Side:
        sides = [on_side(by_name[name], side) for name in pair]
        top, bottom = (m.volume_ml(of, "whole") for m in sides)
        values[side] = None if top is None or not bottom else top / bottom
        why = "; ".join(dict.fromkeys(m.why_doubted for m in sides if m.why_doubted is not None))
        if values[side] is None:
            no_lean = next((m.lean_reason for m in sides if m.lean_reason), None)
            why = "one of the groups is not whole"
            if bottom == 0:
                why = "the muscles it is a ratio to hold no lean tissue"
            elif of == "lean_volume" and no_lean is not None:
                why = no_lean
        if why:
            reasons.append(f"{side}: {why}")
    return RatioResult(
        name=f"{pair[0]}_to_{pair[1]}",
        of=of,
        right=values[Side.RIGHT],
        left=values[Side.LEFT],
        reason="; ".join(reasons) or None,
    )
