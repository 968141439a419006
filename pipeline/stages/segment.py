"""Segment: labels for each leg, in right-leg pose, on its own voxels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.core.scan import EngineInfo, Leg, LegPair, SegmentedLeg, SegmentedLegs, StageResult
from pipeline.core.volume import LabelMap
from pipeline.engines import Engine, get_engine
from pipeline.imaging.decision import decide, labelled_levels
from pipeline.imaging.fat_border import keep_to_leg
from pipeline.imaging.limb_axis import find_limb_axis


def segment(
    legs: LegPair, *, config: SegmentConfig, engine: Engine | None = None
) -> StageResult[SegmentedLegs]:
    """Label both legs with one engine, each on its own and in the same pose.

    Args:
        legs: both legs in right-leg pose.
        config: names the engine.
        engine: an engine of the caller's own, in place of the configured one.

    Raises:
        ConfigError: unknown engine.
        SubjectUnusableError: the engine cannot work with these legs.
    """
    chosen = engine if engine is not None else get_engine(config)
    segmented = []
    for leg in (legs.right, legs.left):
        soft = chosen.segment_leg(leg)
        labels = decide(soft, leg.grid)
        if soft.automatic:
            labels = keep_to_leg(
                labels,
                leg,
                fat_border_percent=config.fat_border_percent,
                thick_fat_mm=config.thick_fat_mm,
            )
        labelled = labelled_levels(soft, leg.grid)
        segmented.append(with_labels(leg, labels, confidence=soft.confidence, labelled=labelled))
    right, left = segmented
    return StageResult(SegmentedLegs(right, left, chosen.describe(legs)))


def with_labels(
    leg: Leg, labels: LabelMap, *, confidence: Mapping[str, float], labelled: NDArray[np.bool_]
) -> SegmentedLeg:
    """A leg with its labels and the axis they define; labels saved earlier come back this way."""
    axis = find_limb_axis(labels, leg.seen)
    return SegmentedLeg(leg, labels, axis, confidence, labelled)


def describe_engine(legs: LegPair, *, config: SegmentConfig) -> EngineInfo:
    """What the configured engine would be called in the provenance."""
    return get_engine(config).describe(legs)
