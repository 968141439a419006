"""Labels between the scan (both sides, own ids) and the legs (right-leg pose, right ids)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes
from skimage.filters import threshold_otsu

from pipeline.core.anatomy import LEFT_OFFSET, LEG_SCHEME, OWN_SCHEME, Side
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


def sides_by_place(
    labels: NDArray[np.integer],
    structures: Mapping[int, str],
    grid: Grid,
    out: NDArray[np.uint8],
) -> None:
    """Give labels that do not name a side the side they lie on, in place.

    The border between the sides at each level is the x that parts all labelled voxels best into
    two groups (Otsu); a straight line through those borders, by medians, is the midline.

    Args:
        labels: label array in canonical orientation.
        structures: name by value, of the values without a side.
        grid: its grid; +x is the patient's right.
        out: label array of OWN_SCHEME, filled where `labels` holds one of the values.
    """
    index = np.argwhere(labels != 0)
    points = grid.index_to_world(index)
    borders = []
    for level in np.unique(index[:, 2]):
        x = points[index[:, 2] == level, 0]
        if np.ptp(x) > 0:
            borders.append((float(points[index[:, 2] == level, 2].mean()), threshold_otsu(x)))
    z, x_border = np.array(borders).T
    slope = 0.0
    if len(z) > 4:
        slope = float(theilslopes(x_border, z)[0])
    middle = float(np.median(x_border - slope * z))
    for value, name in structures.items():
        mine = labels[tuple(index.T)] == value
        right = points[mine, 0] > middle + slope * points[mine, 2]
        values = np.where(
            right,
            OWN_SCHEME.value_of(name, Side.RIGHT),
            OWN_SCHEME.value_of(name, Side.LEFT),
        )
        out[tuple(index[mine].T)] = values
