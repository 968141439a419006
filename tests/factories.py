"""Hand-made results for tests of whatever reads results: no image, no pipeline."""

from __future__ import annotations

import math
from itertools import pairwise

from pipeline.core.anatomy import GROUPS, MUSCLES, Muscle, MuscleGroup, Side
from pipeline.core.results import (
    Asymmetry,
    Compared,
    EngineUsed,
    Finding,
    GroupResult,
    LargestDifference,
    LimbMeasures,
    LocalDifference,
    MatchedLevel,
    Measurement,
    Measures,
    MuscleResult,
    PositionScale,
    ProfilePoint,
    Provenance,
    RatioResult,
    RegistrationQuality,
    Severity,
    Status,
    ThirdDifference,
    Verdict,
)
from pipeline.imaging.local_difference import no_local_difference

#: Relative size of the right side, percent of the mean of both; the others get small ones.
ASYMMETRIES_PERCENT = {
    "vastus_lateralis": 9.8,
    "vastus_medialis": 16.4,
    "rectus_femoris": -11.2,
    "gluteus_medius": -6.9,
    "semitendinosus": 13.1,
    "soleus": 4.9,
    "biceps_femoris_long": -8.3,
    "gastrocnemius_medialis": -7.5,
}

#: What is wrong with which muscle: side, status and the reason.
TROUBLES = {
    "gluteus_maximus": (Side.LEFT, Status.TRUNCATED, "cut by the upper end of the scan"),
    "iliopsoas": (Side.RIGHT, Status.TRUNCATED, "cut by the upper end of the scan"),
    "popliteus": (Side.LEFT, Status.ABSENT, "not labelled, though its level was labelled"),
    "flexor_digitorum_longus": (
        Side.RIGHT,
        Status.UNRELIABLE,
        "flexor digitorum longus: 31 % of its voxels have no defined fat fraction (limit 10 %)",
    ),
}

THIRD_HALF_WIDTH_PERCENT = 7.0
SE_TOTAL_PERCENT = 1.5 * math.sqrt(2.0)
SINGLE_CONTRAST_REASON = "fat fraction needs a water and a fat image; only T1w was given"


def asymmetry(
    right: float | None,
    left: float | None,
    *,
    of: str = "lean_volume",
    extent: str = "whole",
    share: float | None = 1.0,
    limit: float | None = None,
    reason: str | None = None,
    verdict: bool = True,
) -> Asymmetry:
    """The asymmetry of two volumes by its own formula; None where one is missing."""
    missing = right is None or left is None
    index = None if missing else 200.0 * (right - left) / (right + left)
    low = None if index is None else index - 1.96 * SE_TOTAL_PERCENT
    high = None if index is None else index + 1.96 * SE_TOTAL_PERCENT
    judged: Verdict | None = None
    if index is not None and verdict:
        if low < 0 < high:
            judged = Verdict.WITHIN_ERROR
        elif limit is None or extent == "matched":
            judged = Verdict.MEASURABLE
        elif min(abs(low), abs(high)) > limit:
            judged = Verdict.OUTSIDE_HEALTHY
        else:
            judged = Verdict.WITHIN_HEALTHY
    return Asymmetry(
        of=of,
        extent=None if index is None else extent,
        index_percent=index,
        log_ratio=None if index is None else math.log(right / left),
        smaller_over_larger=None if index is None else min(right, left) / max(right, left),
        smaller_side=(None if not index else (Side.LEFT if index > 0 else Side.RIGHT)),
        se_method_percent=None,
        se_total_percent=None if index is None else SE_TOTAL_PERCENT,
        interval_low_percent=low,
        interval_high_percent=high,
        matched_share=None if index is None else share,
        verdict=judged,
        reason=None if judged else (reason or "not comparable"),
    )


def measurement(
    volume_ml: float | None,
    *,
    status: Status = Status.OK,
    reason: str | None = None,
    fat_percent: float | None = 6.0,
    lean_reason: str | None = None,
    matched: float = 1.0,
    profile: tuple[ProfilePoint, ...] = (),
) -> Measurement:
    """A measurement of a muscle of this volume in view; lean values follow from the fat."""
    absent = status is Status.ABSENT
    whole = volume_ml if status in (Status.OK, Status.UNRELIABLE) else None
    lean = None if fat_percent is None or absent else 1.0 - fat_percent / 100.0

    def times(volume: float | None, factor: float | None) -> float | None:
        return None if volume is None or factor is None else volume * factor

    in_view = None if absent else volume_ml
    return Measurement(
        status=status,
        reason=reason,
        volume_whole_ml=whole,
        volume_in_view_ml=in_view,
        volume_matched_ml=times(in_view, matched),
        lean_volume_whole_ml=times(whole, lean),
        lean_volume_in_view_ml=times(in_view, lean),
        lean_volume_matched_ml=times(times(in_view, matched), lean),
        lean_volume_core_ml=times(in_view, None if lean is None else min(1.0, lean + 0.011)),
        fat_free_volume_in_view_ml=times(in_view, None if lean is None else lean + 0.02),
        fat_volume_in_view_ml=times(in_view, None if lean is None else 1.0 - lean),
        fat_fraction_percent=None if lean is None else fat_percent,
        fat_fraction_core_percent=None if lean is None else max(0.0, fat_percent - 1.1),
        fat_fraction_se_repeat_points=None if lean is None else 0.021 * fat_percent,
        lean_reason=None if lean is not None or absent else (lean_reason or "no fat image"),
        valid_share=None if lean is None else 0.998,
        matched_share=None if absent else matched,
        length_mm=None if absent else 240.0,
        area_max_mm2=None if absent else volume_ml * 6.0,
        se_repeat_percent=None if absent else SE_TOTAL_PERCENT / math.sqrt(2.0),
        confidence=None,
        profile=() if absent else profile,
    )


def profile(
    volume_ml: float, centre: float, *, lean: float | None, cut_above: float | None = None
) -> tuple[ProfilePoint, ...]:
    """A smooth bump of cross-sections around a level (hip 0, knee 1, ankle 2)."""
    points = []
    for step in range(25):
        t = step / 12.0 - 1.0
        position = centre + 0.33 * t
        if cut_above is not None and position < cut_above:
            continue
        area = volume_ml * 6.0 * max(0.0, 1.0 - t * t) * (1.0 + 0.12 * math.sin(4.0 * t))
        points.append(
            ProfilePoint(
                position=position,
                area_mm2=area,
                lean_area_mm2=None if lean is None else area * lean,
            )
        )
    return tuple(points)


def make_measures(
    *,
    subject: str = "sub-01",
    session: str | None = None,
    single_contrast: bool = False,
    registered: bool = True,
    findings: tuple[Finding, ...] | None = None,
    caveats: tuple[str, ...] = (),
) -> Measures:
    """A whole-legs result with muscles that are ok, truncated, absent and unreliable.

    Args:
        subject, session: labels with their prefix.
        single_contrast: no fat fraction: every lean value is None with a reason.
        registered: False: the registration failed and matched values are withheld.
        findings: instead of the usual ones.
        caveats: codes of findings that may fake every difference.
    """
    muscles = tuple(
        _muscle_result(m, number, single_contrast=single_contrast, registered=registered)
        for number, m in enumerate(MUSCLES)
    )
    groups = tuple(_group_result(g, muscles, single_contrast) for g in GROUPS)
    muscles, groups = (tuple(_doubted(r, caveats) for r in rows) for rows in (muscles, groups))
    by_name = {g.name: g for g in groups}
    ratio_of = "total_volume" if single_contrast else "lean_volume"
    key = "volume_whole_ml" if single_contrast else "lean_volume_whole_ml"
    quadriceps, hamstrings = by_name["quadriceps"], by_name["hamstrings"]
    scale = PositionScale(
        unit="joints",
        reference="hip 0, knee 1, ankle 2",
        hip_seen=True,
        knee_seen=True,
        ankle_seen=True,
    )
    judged = [m for m in muscles if m.asymmetry.verdict or m.asymmetry_total_volume.verdict]
    return Measures(
        subject=subject,
        session=session,
        contrasts=("T1w",) if single_contrast else ("water", "fat"),
        grid="320 x 260 x 360 voxels of 1.2 x 1.2 x 3 mm",
        side_evidence=("NIfTI affine", "order of muscles agrees with the affine"),
        interval_basis=(
            "published scan-rescan variation of thigh muscle volume, 1.5 % per side "
            "(PMC6240750); segmentation and registration errors of this scan are not in it yet"
        ),
        engine=EngineUsed(
            name="given",
            version="1.0",
            digest="0f" * 32,
            note="Labels: given by the user (not found by this program)",
        ),
        registration=RegistrationQuality(
            succeeded=registered,
            reason=None if registered else "mean overlap 0.31 is below the limit of 0.50",
            overlap_mean=0.871 if registered else 0.31,
            overlap_before_mean=0.412,
            overlap={m.name: 0.80 + 0.004 * i for i, m in enumerate(MUSCLES)},
            disagreement_ml={m.name: 60.0 - 1.7 * i for i, m in enumerate(MUSCLES)},
            outside_share={m.name: 0.20 - 0.004 * i for i, m in enumerate(MUSCLES)},
            surface_distance_mm={m.name: 2.4 - 0.04 * i for i, m in enumerate(MUSCLES)},
            inverse_error_mm=0.02,
            folded_voxels=0,
            similar_image="fatfraction",
            similarity=0.94 if registered else 0.4,
            similarity_before=0.71,
        ),
        measures=LimbMeasures(
            muscles=muscles,
            groups=groups,
            ratios=(
                RatioResult(
                    name="hamstrings_to_quadriceps",
                    of=ratio_of,
                    right=getattr(hamstrings.right, key) / getattr(quadriceps.right, key),
                    left=getattr(hamstrings.left, key) / getattr(quadriceps.left, key),
                    reason=None,
                ),
            ),
            position_right=scale,
            position_left=scale,
            expected_flagged_by_chance=0.05 * len(judged),
        ),
        findings=_findings() if findings is None else findings,
        provenance=Provenance(
            software="myosymmetry",
            software_version="0.1.0",
            code_digest="ab" * 32,
            python_version="3.11.7",
            libraries={"numpy": "2.4.6", "scipy": "1.17.0"},
            configuration_digest="cd" * 32,
            configuration={"measure": {"scan_rescan_cv_percent": 1.5}},
            inputs={"nifti:water": "12" * 32, "nifti:fat": "34" * 32},
        ),
    )


def unreliable(result: MuscleResult, side: Side, reason: str) -> MuscleResult:
    """The same muscle, unreliable on one side where it was ok there, and not judged."""
    found = getattr(result, side)
    if found.status is not Status.OK:
        return result
    said = {"verdict": None, "reason": f"the {side} side is unreliable: {reason}"}
    return result.model_copy(
        update={
            str(side): found.model_copy(update={"status": Status.UNRELIABLE, "reason": reason}),
            "asymmetry": result.asymmetry.model_copy(update=said),
            "asymmetry_total_volume": result.asymmetry_total_volume.model_copy(update=said),
        }
    )


def _limit_fields(structure: Muscle | MuscleGroup) -> dict[str, float | None]:
    """How unsure a limit of 21 people is, about 0.38 of it."""
    limit = structure.healthy_limit_percent
    return {
        "healthy_limit_people": None if limit is None else 21,
        "healthy_limit_half_width_percent": None if limit is None else 0.38 * limit,
    }


def _doubted(result: Compared, caveats: tuple[str, ...]) -> Compared:
    names = ("asymmetry", "asymmetry_total_volume")
    return result.model_copy(
        update={n: getattr(result, n).model_copy(update={"caveats": caveats}) for n in names}
    )


def local_difference(
    name: str,
    right: Measurement,
    left: Measurement,
    *,
    of: str = "lean_volume",
    extent: str = "whole",
    reason: str | None = None,
) -> LocalDifference:
    """Where two muscles differ whose levels are those of their profiles."""
    if reason is not None or not right.profile or not left.profile:
        return no_local_difference(reason or "no levels")
    field = "lean_area_mm2" if of == "lean_volume" else "area_mm2"
    there = {point.position: getattr(point, field) for point in left.profile}
    pairs = [
        (point.position, getattr(point, field), there[point.position])
        for point in right.profile
        if point.position in there
    ]
    mean = sum(a + b for _, a, b in pairs) / 2.0
    ends = [round(k * len(pairs) / 3) for k in range(4)]
    parts = [pairs[a:b] for a, b in pairwise(ends)]
    sums = [(sum(a for _, a, _ in part), sum(b for _, _, b in part)) for part in parts]
    names = ("proximal", "middle", "distal")
    indices = [200.0 * (right - left) / (right + left) for right, left in sums]
    top = max(range(len(pairs)), key=lambda k: abs(pairs[k][1] - pairs[k][2]))
    third = names[sum(top >= end for end in ends[1:3])]
    return LocalDifference(
        of=of,
        extent=extent,
        levels=tuple(
            MatchedLevel(
                position_right=position,
                position_left=position,
                area_right_mm2=a,
                area_left_mm2=b,
                length_right_mm=10.0,
                length_left_mm=10.0,
                log_ratio=math.log(a / b) if a > 0 and b > 0 else None,
            )
            for position, a, b in pairs
        ),
        thirds=tuple(
            ThirdDifference(
                name=part,
                position_from=pairs[ends[k]][0],
                position_to=pairs[ends[k + 1] - 1][0],
                volume_right_ml=sums[k][0] / 100.0,
                volume_left_ml=sums[k][1] / 100.0,
                index_percent=indices[k],
                half_width_percent=THIRD_HALF_WIDTH_PERCENT,
                points=100.0 * (sums[k][0] - sums[k][1]) / mean,
            )
            for k, part in enumerate(names)
        ),
        largest=LargestDifference(
            name=f"{name.replace('_', ' ')}, {third} third",
            third=third,
            position=pairs[top][0],
            log_ratio=math.log(pairs[top][1] / pairs[top][2]) if min(pairs[top][1:]) > 0 else None,
            stands_out=abs(indices[names.index(third)]) > THIRD_HALF_WIDTH_PERCENT,
        ),
        sum_points=100.0 * sum(a - b for _, a, b in pairs) / mean,
        band_half_width_percent=None,
        band_reason="the error of the method is not known",
        reason=None,
    )


def _muscle_result(
    m: Muscle, number: int, *, single_contrast: bool, registered: bool
) -> MuscleResult:
    expected = m.reference_slope * 7572.0 + m.reference_intercept_ml
    mean = max(8.0, expected)
    index = ASYMMETRIES_PERCENT.get(m.name, 2.6 * math.sin(1.7 * number))
    side, status, reason = TROUBLES.get(m.name, (None, Status.OK, None))
    truncated = status is Status.TRUNCATED
    centre = {"hip": 0.05, "thigh": 0.52, "leg": 1.45}[m.region]
    sides: dict[Side, Measurement] = {}
    for this in Side:
        volume = mean * (1.0 + (0.005 if this is Side.RIGHT else -0.005) * index)
        fat = None if single_contrast else 5.0 + number % 7 + (0.6 if this is Side.LEFT else 0.0)
        here = this is side
        matched = 1.0
        if truncated:
            # The cut side shows 70 %; what both show is all of that and 70 % of the other.
            volume *= 0.7 if here else 1.0
            matched = 1.0 if here else 0.7
        sides[this] = measurement(
            volume,
            status=status if here else Status.OK,
            reason=reason if here else None,
            fat_percent=fat,
            lean_reason=SINGLE_CONTRAST_REASON if single_contrast else None,
            matched=matched,
            profile=profile(
                volume,
                centre,
                lean=None if fat is None else 1.0 - fat / 100.0,
                cut_above=-0.05 if here and truncated else None,
            ),
        )
    right, left = sides[Side.RIGHT], sides[Side.LEFT]
    withheld = truncated and not registered
    extent = "matched" if truncated else "whole"
    field = "volume_matched_ml" if truncated else "volume_whole_ml"
    judged = status in (Status.OK, Status.TRUNCATED)
    why = f"{m.title}: {reason} on the {side}" if reason else None
    if withheld:
        why = "the registration failed, so the part both legs show is not known"

    def compare(prefix: str, of: str) -> Asymmetry:
        pair = (getattr(right, prefix + field), getattr(left, prefix + field))
        no_lean = SINGLE_CONTRAST_REASON if prefix and single_contrast else None
        return asymmetry(
            *((None, None) if withheld else pair),
            of=of,
            extent=extent,
            share=0.7 if truncated else 1.0,
            limit=m.healthy_limit_percent,
            verdict=judged,
            reason=why or no_lean,
        )

    return MuscleResult(
        id=m.id,
        name=m.name,
        region=m.region,
        compartment=m.compartment,
        functional_group=m.functional_group,
        right=right,
        left=left,
        asymmetry=compare("lean_", "lean_volume"),
        asymmetry_total_volume=compare("", "total_volume"),
        local_difference=local_difference(
            m.name,
            right,
            left,
            of="total_volume" if single_contrast else "lean_volume",
            extent=extent,
            reason=(why or "not comparable") if withheld or status is Status.ABSENT else None,
        ),
        healthy_limit_percent=m.healthy_limit_percent,
        **_limit_fields(m),
        expected_volume_ml=expected,
    )


def _group_result(group, muscles: tuple[MuscleResult, ...], single_contrast: bool) -> GroupResult:
    members = [m for m in muscles if m.name in group.muscles]
    good = [m for m in members if (m.right.status, m.left.status) == (Status.OK, Status.OK)]
    missing = [m.name for m in members if m not in good]
    sides = {}
    for side in Side:
        volumes = [getattr(m, side).volume_in_view_ml for m in good]
        fats = [getattr(m, side).fat_fraction_percent for m in good]
        fat = None if single_contrast or not good else sum(fats) / len(fats)
        sides[side] = measurement(
            sum(volumes) if volumes else None,
            status=(Status.OK if not missing else Status.TRUNCATED if volumes else Status.ABSENT),
            reason=f"not whole on both sides: {', '.join(missing)}" if missing else None,
            fat_percent=fat,
            lean_reason=SINGLE_CONTRAST_REASON if single_contrast else None,
        )
    right, left = sides[Side.RIGHT], sides[Side.LEFT]
    extent = "matched" if missing else "whole"
    return GroupResult(
        name=group.name,
        kind=group.kind,
        muscles=group.muscles,
        muscles_compared=tuple(m.name for m in good),
        right=right,
        left=left,
        asymmetry=asymmetry(
            right.lean_volume_matched_ml,
            left.lean_volume_matched_ml,
            extent=extent,
            limit=group.healthy_limit_percent,
            reason=SINGLE_CONTRAST_REASON if single_contrast else None,
        ),
        asymmetry_total_volume=asymmetry(
            right.volume_matched_ml,
            left.volume_matched_ml,
            of="total_volume",
            extent=extent,
            limit=group.healthy_limit_percent,
        ),
        healthy_limit_percent=group.healthy_limit_percent,
        **_limit_fields(group),
    )


def _findings() -> tuple[Finding, ...]:
    return (
        Finding(
            code="dixon_two_point_bias",
            severity=Severity.INFO,
            stage="measure",
            message="Repetition time and flip angle are unknown: T1 bias was not corrected.",
        ),
        Finding(
            code="muscle_truncated",
            severity=Severity.WARNING,
            stage="measure",
            message="Two muscles are cut by the upper end of the scan.",
            value=2.0,
            threshold=0.0,
            unit="muscles",
        ),
    )
