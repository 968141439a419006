"""What the images behind the numbers leave to be doubted: noise that reads as fat, swaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import Side
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import SegmentedLegs
from pipeline.imaging.labels import is_muscle
from pipeline.imaging.noise import fraction_of_noise
from pipeline.measuring.one_leg import Structure

#: Code of the finding that is a caveat on differences of lean volume alone.
NOISE_DIFFERS = "noise_floors_differ"


def noise_floors(legs: SegmentedLegs, config: MeasureConfig) -> Iterator[Finding]:
    """What fat fraction noise alone gives in the muscles of each leg."""
    floors: dict[Side, float] = {}
    for side in Side:
        leg, labels = legs[side].leg, legs[side].labels.data
        if leg.dixon is None:
            return
        pair = leg.dixon
        muscle = is_muscle(labels) & pair.valid
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
            code=NOISE_DIFFERS,
            severity=Severity.WARNING,
            stage="measure",
            side=noisy,
            message=f"Noise alone reads as {abs(apart):.1f} points more fat in the {noisy} leg, "
            "whose signal is weaker: lean volumes of muscles with little fat differ by that alone.",
            value=abs(apart),
            threshold=config.largest_noise_floor_difference_points,
            unit="points",
        )


def swap_findings(
    structures: Mapping[Side, Mapping[str, Structure]],
) -> Iterator[Finding]:
    """Legs in which water and fat look exchanged and were not put right."""
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
