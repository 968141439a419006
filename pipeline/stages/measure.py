"""Measure: volumes, lean volumes and their asymmetry, on each leg's own voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import GROUPS, MUSCLES, UNIONS, Muscle, Side
from pipeline.core.match import LegMatch
from pipeline.core.results import (
    Asymmetry,
    Finding,
    GroupResult,
    LimbMeasures,
    LocalDifference,
    Measurement,
    MuscleResult,
    Of,
    Severity,
    Status,
    on_side,
)
from pipeline.core.scan import Participant, SegmentedLegs, StageResult
from pipeline.imaging.asymmetry import expected_by_chance
from pipeline.imaging.limb_axis import position_scale
from pipeline.imaging.threads import one_thread
from pipeline.measuring.difference import (
    asymmetries,
    level_error_mm,
    local_difference,
)
from pipeline.measuring.expected import expected_volumes, own_reference_used, unlikely_volumes
from pipeline.measuring.groups import group_result, ratio, union_result
from pipeline.measuring.images import (
    CUT_ASIDE,
    FAT_UNLIKE,
    NOISE_DIFFERS,
    SIGNAL_FADES,
    cut_surfaces,
    fading_surfaces,
    fat_brightness,
    joined,
    noise_floors,
    signal_voids,
    surface_findings,
    swap_findings,
    void_findings,
)
from pipeline.measuring.limits import HealthyLimit, healthy_limit
from pipeline.measuring.one_leg import UnseenParts, measure_leg
from pipeline.measuring.sides import BrokenEnd, Sides

Row = TypeVar("Row", MuscleResult, GroupResult)
_OFS: tuple[Of, ...] = ("lean_volume", "total_volume")

#: Numerator, denominator and name of the ratios reported (functional groups).
_RATIOS = (("hamstrings", "quadriceps"),)


@one_thread()
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
    voids = {side: signal_voids(legs[side].leg, config) for side in Side}
    fading = fading_surfaces(legs, config)
    cut = cut_surfaces(legs, fading, config)
    structures = {
        side: measure_leg(
            legs, side, match, UnseenParts(voids[side], joined(fading[side]), cut[side]), config
        )
        for side in Side
    }
    sums = Sides(structures[Side.RIGHT], structures[Side.LEFT], match, config)
    expected = expected_volumes(participant, config)
    level_mm = level_error_mm(legs, config)
    muscles = []
    for muscle in MUSCLES:
        right, left = sums.measurements(muscle.name)
        limit = healthy_limit(muscle, config)
        compared = asymmetries(
            right, left, limit.percent, (muscle.name,), config, level_error_mm=level_mm
        )
        local = local_difference(
            muscle.name,
            (right, left),
            compared,
            structures=structures,
            legs=legs,
            match=match,
            config=config,
        )
        muscles.append(
            _muscle_result(muscle, (right, left), compared, local, limit, expected.get(muscle.name))
        )
    groups = [group_result(group, muscles, config, level_error_mm=level_mm) for group in GROUPS]
    groups += [
        union_result(name, members, sums, config, level_error_mm=level_mm)
        for name, members in ((u.name, u.muscles) for u in UNIONS)
        if any(name in structures[side] for side in Side)
    ]
    of_fat = [*noise_floors(legs, config), *fat_brightness(legs, config)]
    of_lean = tuple(f.code for f in of_fat if f.code in (NOISE_DIFFERS, FAT_UNLIKE))
    unseen = [*void_findings(legs, voids), *surface_findings(legs, SIGNAL_FADES, fading)]
    caveats = (*legs.caveats, *dict.fromkeys(finding.code for finding in unseen))
    muscles = [_with_caveats(muscle, caveats, of_lean) for muscle in muscles]
    groups = [_with_caveats(group, caveats, of_lean) for group in groups]
    if legs.doubt is not None:
        muscles = [_without_verdicts(muscle, legs.doubt) for muscle in muscles]
        groups = [_without_verdicts(group, legs.doubt) for group in groups]
    judged = sum(m.asymmetry_total_volume.verdict is not None for m in muscles)
    measures = LimbMeasures(
        muscles=tuple(muscles),
        groups=tuple(groups),
        ratios=tuple(ratio(pair, groups, of) for pair in _RATIOS for of in _OFS),
        position_right=scales[Side.RIGHT],
        position_left=scales[Side.LEFT],
        expected_flagged_by_chance=expected_by_chance(judged),
    )
    findings = [
        *swap_findings(structures),
        *unseen,
        *of_fat,
        *surface_findings(legs, CUT_ASIDE, cut),
        *_findings(muscles),
        *own_reference_used(config),
        *_broken_off(sums, config),
        *_labels_disagree(muscles, match, config),
        *_lean_estimated(muscles),
        *unlikely_volumes(muscles, groups, participant, config),
    ]
    return StageResult(measures, tuple(findings))


def _muscle_result(
    muscle: Muscle,
    sides: tuple[Measurement, Measurement],
    compared: tuple[Asymmetry, Asymmetry],
    local: LocalDifference,
    limit: HealthyLimit,
    expected_ml: float | None,
) -> MuscleResult:
    """What is published of a muscle; `sides` right and left, `compared` lean and total volume."""
    return MuscleResult(
        id=muscle.id,
        name=muscle.name,
        region=muscle.region,
        compartment=muscle.compartment,
        functional_group=muscle.functional_group,
        right=sides[0],
        left=sides[1],
        asymmetry=compared[0],
        asymmetry_total_volume=compared[1],
        local_difference=local,
        healthy_limit_percent=limit.percent,
        healthy_limit_people=limit.people,
        healthy_limit_half_width_percent=limit.half_width_percent,
        expected_volume_ml=expected_ml,
    )


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


def _broken_off(sums: Sides, config: MeasureConfig) -> Iterator[Finding]:
    """Muscles whose labels end on one side where the other side goes on."""
    found: dict[Side, list[tuple[str, BrokenEnd]]] = {side: [] for side in Side}
    for name in (*(m.name for m in MUSCLES), *(u.name for u in UNIONS)):
        for end in sums.broken_ends(name):
            found[end.side].append((name.replace("_", " "), end))
    for side, ends in found.items():
        if ends:
            listed = "; ".join(f"labels of {name} {end.describe()}" for name, end in ends)
            yield Finding(
                code="labels_broken_off",
                severity=Severity.WARNING,
                stage="measure",
                side=side,
                message=f"On the {side}, {listed}. A muscle tapers to its end: either labels are "
                "missing in the next slices (add them and run again), or it really ends there "
                "(a tear, an operation). Volumes are those of the labels; nothing is concluded "
                "from them.",
                value=max(end.going_on for _, end in ends),
                threshold=config.broken_off_share,
                unit="share",
            )


def _labels_disagree(
    muscles: Sequence[MuscleResult], match: LegMatch, config: MeasureConfig
) -> Iterator[Finding]:
    """Muscles whose labels left and right disagree by more than their volumes do."""
    if not match.succeeded:
        return
    apart = {
        m.name: match.outside_share[m.name]
        for m in muscles
        if match.outside_share.get(m.name, 0.0) > config.usual_outside_share
    }
    if apart:
        named = ", ".join(f"{n.replace('_', ' ')} {100 * v:.0f} %" for n, v in apart.items())
        yield Finding(
            code="labels_disagree",
            severity=Severity.WARNING,
            stage="measure",
            message="Left and right labels, carried over, disagree in shape or place by more than "
            f"a difference in size explains: {named} of the smaller one lies outside the other. "
            "One of the two labels may be wrong, the legs may differ, or the registration does not "
            "follow them: look at the pictures. The confidence of both sides is lowered alike.",
            value=max(apart.values()),
            threshold=config.usual_outside_share,
            unit="share",
        )


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


def _findings(muscles: Sequence[MuscleResult]) -> list[Finding]:
    findings = []
    for status in (Status.TRUNCATED, Status.UNRELIABLE):
        for side in Side:
            names = [
                m.name
                for m in muscles
                if on_side(m, side).status is status
                or (status is Status.UNRELIABLE and on_side(m, side).doubt is not None)
            ]
            if names:
                listed = ", ".join(n.replace("_", " ") for n in names)
                counted = "1 muscle is" if len(names) == 1 else f"{len(names)} muscles are"
                findings.append(
                    Finding(
                        code=f"muscles_{status}",
                        severity=Severity.WARNING,
                        stage="measure",
                        side=side,
                        message=f"{counted} {status} on the {side}: {listed}.",
                        value=float(len(names)),
                        unit="muscles",
                    )
                )
    return findings
