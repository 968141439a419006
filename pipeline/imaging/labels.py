"""Labels between the scan (both sides, own ids) and the legs (right-leg pose, right ids)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import LEFT_OFFSET, LEG_SCHEME, MUSCLES, UNIONS, Side
from pipeline.core.grid import Grid
from pipeline.core.scan import Leg, SegmentedLeg, SegmentedLegs
from pipeline.core.volume import LabelMap

#: What a leg's claim to a voxel of its own tissue weighs; a claim from outside weighs 1.
_OWN_TISSUE = np.uint8(4)


_MUSCLE = np.zeros(256, dtype=np.bool_)
_MUSCLE[[*(muscle.id for muscle in MUSCLES), *(union.id for union in UNIONS)]] = True


def is_muscle(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Voxels of any muscle, or of several drawn as one, of a label array of LEG_SCHEME."""
    return np.asarray(_MUSCLE[labels])


def leg_labels(labels: NDArray[np.integer], side: Side) -> NDArray[np.uint8]:
    """Labels of one side out of a label array of OWN_SCHEME, with the ids of a leg."""
    if side is Side.LEFT:
        return np.where(labels > LEFT_OFFSET, labels - LEFT_OFFSET, 0).astype(np.uint8)
    return np.where(labels < LEFT_OFFSET, labels, 0).astype(np.uint8)


def split_labels(labels: NDArray[np.integer], leg: Leg) -> LabelMap:
    """Labels of one leg in right-leg pose, out of the label array of the canonical scan."""
    box = leg_labels(labels[leg.canonical_box], leg.side)
    return LabelMap(np.ascontiguousarray(leg.to_canonical(box)), leg.grid, LEG_SCHEME)


def join_labels(legs: SegmentedLegs, grid: Grid) -> NDArray[np.uint8]:
    """Labels of both legs on the canonical grid, in OWN_SCHEME.

    Where both legs claim a voxel, it goes to the leg whose tissue it is; to none if it is both's
    or neither's.
    """
    out = np.zeros(grid.shape, dtype=np.uint8)
    claims = np.zeros(grid.shape, dtype=np.uint8)
    for side in Side:
        claims[legs[side].leg.canonical_box] += _claim(legs[side])
    for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET)):
        leg = legs[side].leg
        labels = leg.to_canonical(legs[side].labels.data)
        # More than half of all claims, the other leg's included.
        mine = 2 * _claim(legs[side]) > claims[leg.canonical_box]
        out[leg.canonical_box][mine] = labels[mine] + offset
    return out


def _claim(segmented: SegmentedLeg) -> NDArray[np.uint8]:
    """Weight of a leg's claim to each voxel of its box on the canonical grid; 0: none."""
    leg = segmented.leg
    labelled = leg.to_canonical(segmented.labels.data) != 0
    weight = np.where(leg.to_canonical(leg.tissue), _OWN_TISSUE, np.uint8(1))
    return np.where(labelled, weight, np.uint8(0))


def crop_of(outer: Grid, inner: Grid, array: NDArray[Any]) -> NDArray[Any]:
    """The part of an array on `outer` that a grid cut out of it covers (same axes)."""
    start = np.rint(outer.world_to_index(inner.affine[:3, 3])).astype(int)
    return array[tuple(slice(a, a + n) for a, n in zip(start, inner.shape, strict=True))]
