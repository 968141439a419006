"""Storage orientation: which array axis runs along which world axis. Nothing moves.

Algebra: with `axes` and `flips` of an affine, the reoriented array is
B[i, j, k] = A transposed so that its axes follow `axes`, reversed where `flips`. Voxels keep
their place in the world; only the way they are counted changes. Mirroring the anatomy is
another thing (pipeline.core.transform.mirror).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.grid import Grid
from pipeline.core.scan import Index3, StorageMap

Flips = tuple[bool, bool, bool]


def nearest_axes(affine: NDArray[np.float64]) -> tuple[Index3, Flips]:
    """Array axes that run closest to right, anterior and superior.

    Args:
        affine: 4x4, index -> RAS mm.

    Returns:
        axes: axes[k] is the array axis of world axis k, of all assignments the one with the
            largest sum of |cosines|; flips: whether it runs against the world axis.
    """
    linear = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best = max(
        itertools.permutations(range(3)),
        key=lambda p: sum(abs(linear[k, p[k]]) for k in range(3)),
    )
    axes = (best[0], best[1], best[2])
    flips = tuple(bool(linear[k, axes[k]] < 0) for k in range(3))
    return axes, (flips[0], flips[1], flips[2])


def reorient(array: NDArray[Any], axes: Index3, flips: Flips) -> NDArray[Any]:
    """View of an array with its axes in the order of `axes`, reversed where `flips`."""
    step = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
    return array.transpose(axes)[step]


def unorient(array: NDArray[Any], axes: Index3, flips: Flips) -> NDArray[Any]:
    """The inverse of reorient."""
    step = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
    return array[step].transpose(np.argsort(axes))


def reoriented_grid(grid: Grid, axes: Index3, flips: Flips) -> Grid:
    """The grid of reorient(array, axes, flips): the same voxels, counted another way."""
    change = np.zeros((4, 4))
    change[3, 3] = 1.0
    for k in range(3):
        size = grid.shape[axes[k]]
        change[axes[k], k] = -1.0 if flips[k] else 1.0
        if flips[k]:
            change[axes[k], 3] = size - 1
    shape = (grid.shape[axes[0]], grid.shape[axes[1]], grid.shape[axes[2]])
    return Grid(shape, grid.affine @ change, grid.space)


def to_canonical(array: NDArray[Any], storage: StorageMap, shape: Index3) -> NDArray[Any]:
    """The canonical (reoriented, cropped) part of an array on the input grid."""
    turned = reorient(array, storage.axes, storage.flips)
    return turned[tuple(slice(a, a + n) for a, n in zip(storage.offset, shape, strict=True))]


def restore(array: NDArray[Any], storage: StorageMap) -> NDArray[Any]:
    """A canonical array back on the input grid; 0 where the input was cropped away."""
    turned_shape = [storage.input_grid.shape[axis] for axis in storage.axes]
    if tuple(turned_shape) == array.shape:
        return unorient(array, storage.axes, storage.flips)
    out = np.zeros(turned_shape, dtype=array.dtype)
    out[tuple(slice(a, a + n) for a, n in zip(storage.offset, array.shape, strict=True))] = array
    return unorient(out, storage.axes, storage.flips)


def input_box(storage: StorageMap, lower: Index3, upper: Index3) -> tuple[Index3, Index3]:
    """The box of the input array that holds turned indices lower <= i < upper.

    `lower` and `upper` count from the start of the turned, uncropped array.
    """
    low, high = [0, 0, 0], [0, 0, 0]
    for k in range(3):
        axis = storage.axes[k]
        size = storage.input_grid.shape[axis]
        if storage.flips[k]:
            low[axis], high[axis] = size - upper[k], size - lower[k]
        else:
            low[axis], high[axis] = lower[k], upper[k]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
