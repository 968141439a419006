"""Labels between the scan (both sides, own ids) and the legs (right-leg pose, right ids)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import LEFT_OFFSET, LEG_SCHEME, Side
from pipeline.core.grid import Grid
from pipeline.core.scan import Leg, SegmentedLegs
from pipeline.core.volume import LabelMap


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

    Where both legs claim a voxel, it goes to the leg whose side of the body it lies on.
    """
    out = np.zeros(grid.shape, dtype=np.uint8)
    for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET)):
        segmented = legs[side]
        leg = segmented.leg
        labels = leg.to_canonical(segmented.labels.data)
        region = out[leg.canonical_box]
        mine = (labels != 0) & ((region == 0) | leg.to_canonical(leg.tissue))
        region[mine] = labels[mine] + offset
    return out


def crop_of(outer: Grid, inner: Grid, array: NDArray[Any]) -> NDArray[Any]:
    """The part of an array on `outer` that a grid cut out of it covers (same axes)."""
    start = np.rint(outer.world_to_index(inner.affine[:3, 3])).astype(int)
    return array[tuple(slice(a, a + n) for a, n in zip(start, inner.shape, strict=True))]
