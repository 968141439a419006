"""Reconcile: labels of both legs replaced by a consensus that treats the sides alike (optional)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pipeline.config import ReconcileConfig
from pipeline.core.anatomy import MUSCLES, Side
from pipeline.core.match import LegMatch
from pipeline.core.results import CONSENSUS, Finding, Severity
from pipeline.core.scan import SegmentedLegs, StageResult
from pipeline.imaging.asymmetry import index_from_log_ratio
from pipeline.imaging.consensus import consensus_labels
from pipeline.imaging.limb_axis import find_limb_axis
from pipeline.imaging.threads import one_thread

_DOUBT = "its labels are a consensus of both sides, which hides a part of a true difference"


@one_thread()
def reconcile(
    legs: SegmentedLegs, match: LegMatch, *, config: ReconcileConfig
) -> StageResult[SegmentedLegs]:
    """Replace the labels of both legs by what both sides say together.

    Images are untouched, and each voxel is decided on the grid on which it is measured; but which
    voxels are counted then depends on the other leg and on the registration. Therefore it is off
    unless asked for, no verdict rests on the result, and a finding says how much the difference
    between the sides shrank.

    Args:
        legs: both legs with labels.
        match: how they correspond; where it failed, the labels stay.
        config: whether to do so at all.
    """
    if not config.consensus:
        return StageResult(legs)
    if not match.succeeded:
        finding = Finding(
            code="no_consensus",
            severity=Severity.WARNING,
            stage="reconcile",
            message="A consensus of the labels of both legs was asked for, but the registration "
            f"failed ({match.reason}): the labels are those of each leg.",
        )
        return StageResult(legs, (finding,))
    labels = consensus_labels(legs, match, reach_mm=config.consensus_reach_mm)
    right, left = (
        replace(
            legs[side],
            labels=labels[side],
            axis=find_limb_axis(labels[side], legs[side].leg.seen),
        )
        for side in (Side.RIGHT, Side.LEFT)
    )
    agreed = replace(legs, right=right, left=left, doubt=legs.doubt or _DOUBT)
    return StageResult(agreed, (_shrunk(legs, agreed),))


def _shrunk(before: SegmentedLegs, after: SegmentedLegs) -> Finding:
    """What the consensus did to the difference between the sides."""
    was, now = _differences(before), _differences(after)
    both = [name for name in was if name in now]
    most = max(both, key=lambda name: abs(was[name]) - abs(now[name]), default=None)
    example = ""
    if most is not None:
        example = (
            f" Most in the {most.replace('_', ' ')}: {was[most]:+.1f} % before, "
            f"{now[most]:+.1f} % after."
        )
    sizes = [float(np.mean([abs(v[name]) for name in both])) if both else 0.0 for v in (was, now)]
    return Finding(
        code=CONSENSUS,
        severity=Severity.WARNING,
        stage="reconcile",
        message="Labels are a consensus of both legs (configuration), not those of each leg. That "
        "pulls both sides towards each other and hides a part of a true difference: the difference "
        f"in labelled volume is {sizes[1]:.1f} % now and was {sizes[0]:.1f} % (mean size over "
        f"{len(both)} muscles).{example} No difference gets a verdict.",
        value=sizes[1],
        threshold=sizes[0],
        unit="percent",
    )


def _differences(legs: SegmentedLegs) -> dict[str, float]:
    """Asymmetry index of labelled volume in percent by muscle, of what is in view on both sides."""
    counts = {
        side: np.bincount(legs[side].labels.data.ravel(), minlength=256)
        * legs[side].leg.grid.voxel_volume_ml
        for side in Side
    }
    out = {}
    for muscle in MUSCLES:
        right, left = (float(counts[side][muscle.id]) for side in (Side.RIGHT, Side.LEFT))
        if right > 0.0 and left > 0.0:
            out[muscle.name] = index_from_log_ratio(math.log(right / left))
    return out
