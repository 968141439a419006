"""Volumes that are to be expected of a person, and those that are far from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import MUSCLES, Side
from pipeline.core.results import Compared, Finding, GroupResult, MuscleResult, Severity, on_side
from pipeline.core.scan import Participant


def expected_volumes(participant: Participant | None, config: MeasureConfig) -> dict[str, float]:
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


def unlikely_volumes(
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
    rows: list[Compared] = [m for m in muscles if m.name not in taken]
    rows += pairs
    for side in Side:
        measured = {m.name: on_side(m, side).volume_whole_ml for m in muscles}
        whole = {name: volume for name, volume in measured.items() if volume is not None}
        expected = expected_volumes(participant, config) or _own_reference(whole, config)
        doubtful = []
        for row in rows:
            volume = on_side(row, side).volume_whole_ml
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


def own_reference_used(config: MeasureConfig) -> Iterator[Finding]:
    """The finding that limits or volumes are those of an own cohort."""
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
