"""Sides of labels that do not name one, from where they lie in the world."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import LEFT_OFFSET, OWN_SCHEME, Side
from pipeline.core.errors import InputError
from pipeline.core.grid import FloatArray, Grid

#: Pieces smaller than this share of the largest piece of a structure say nothing of the midline.
_SPECK_SHARE = 0.2
#: A piece with more than this share of its voxels beyond the midline is cut there.
_CROSSING_SHARE = 0.1
#: Nearer to the midline than this a voxel lies on it, whatever the rounding, mm.
_ON_LINE_MM = 1e-6


def midline_of_labels(
    own: NDArray[np.uint8], labels: NDArray[np.integer], values: Mapping[int, str], grid: Grid
) -> tuple[float, float]:
    """The line between the two sides of the body, x = offset + slope z, in mm.

    Labels that name their side tell it, level by level. Without any, a structure in two large
    pieces lies to both sides of it.

    Args:
        own: labels of OWN_SCHEME that are known, canonical orientation.
        labels: all labels, in the scheme they came in, same shape.
        values: name by value, of the values of `labels` that name no side.
        grid: their grid; +x is the patient's right.

    Returns:
        offset and slope.

    Raises:
        InputError: nothing lies on both sides, so nothing tells where the middle is.
    """
    right = (own > 0) & (own < LEFT_OFFSET)
    left = own > LEFT_OFFSET
    both = np.flatnonzero(right.any(axis=(0, 1)) & left.any(axis=(0, 1)))
    points: list[FloatArray] = []
    for k in both.tolist():
        centres = np.array([_centre(side[:, :, k], k, grid) for side in (right, left)])
        points.append(centres.mean(axis=0))
    if not points:
        for value in values:
            pieces, count = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
            sizes = np.bincount(pieces.ravel())[1:]
            large = np.flatnonzero(sizes > _SPECK_SHARE * sizes.max(initial=0)) + 1
            if count and len(large) == 2:
                centres = np.array(ndimage.center_of_mass(pieces > 0, pieces, large))
                points.append(grid.index_to_world(centres).mean(axis=0))
    if not points:
        names = ", ".join(sorted(set(values.values())))
        raise InputError(
            f"The side of {names} cannot be told",
            expected="labels of both sides, or a structure seen in both legs",
            found="one piece only, whose value names no side",
            action="use a label scheme whose values name the side",
        )
    x, z = np.array(points)[:, 0], np.array(points)[:, 2]
    slope = float(scipy.stats.theilslopes(x, z)[0]) if np.ptp(z) > 0 and len(z) > 4 else 0.0
    return float(np.median(x - slope * z)), slope


def place_sides(
    own: NDArray[np.uint8], labels: NDArray[np.integer], values: Mapping[int, str], grid: Grid
) -> NDArray[np.uint8]:
    """Known labels with those added whose value names no side, each on the side it lies on.

    A connected piece goes to one side as a whole, unless it reaches over the midline. There it is
    cut, and voxels on the line itself stay unlabelled: giving them to one side would prefer it.

    Args:
        own, labels, values, grid: as for `midline_of_labels`.

    Returns:
        labels of OWN_SCHEME.

    Raises:
        InputError: the middle cannot be told.
    """
    offset, slope = midline_of_labels(own, labels, values, grid)
    out = own.copy()
    for value, name in values.items():
        pieces, count = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
        for box, piece in zip(ndimage.find_objects(pieces), range(1, count + 1), strict=True):
            index = np.argwhere(pieces[box] == piece) + [part.start for part in box]
            world = grid.index_to_world(index)
            beyond_mm = world[:, 0] - (offset + slope * world[:, 2])
            there = {Side.RIGHT: beyond_mm > _ON_LINE_MM, Side.LEFT: beyond_mm < -_ON_LINE_MM}
            counts = {side: int(np.count_nonzero(mask)) for side, mask in there.items()}
            larger = max(counts, key=counts.__getitem__)
            if counts[larger.other] <= _CROSSING_SHARE * sum(counts.values()) < counts[larger]:
                there = {larger: np.ones_like(there[larger])}
            for side, mask in there.items():
                out[tuple(index[mask].T)] = OWN_SCHEME.value_of(name, side)
    return out


def _centre(level: NDArray[np.bool_], k: int, grid: Grid) -> FloatArray:
    index = np.argwhere(level).mean(axis=0)
    return grid.index_to_world([index[0], index[1], k])
