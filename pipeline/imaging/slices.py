"""Stacks of slices on a network's own pixels, and back.

A leg is resampled in the plane only: slices stay the scanner's. Stacks are stored as
(level, row, column): rows along the second axis of the leg (forwards), columns along the first
(outwards in right-leg pose).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.core.grid import Grid

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Flags = NDArray[np.bool_]

#: Points inside a pixel at which a signal is averaged when native pixels are smaller.
_POINTS_PER_VOXEL = 4
#: Bounds the memory of resampling.
_LEVELS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Stack:
    """Where the pixels of a stack lie in a leg.

    Attributes:
        grid: the stack as a grid in the space of the leg, axes (column, row, level), with one
            more level than predicted at either end.
        columns, rows: fractional index of the pixel centres on the leg's first and second axis.
        levels: index on the leg's third axis of the slices to predict, ascending.
        spacing_mm: distance of the leg's own slices.
        pixel_mm: size of the pixels.
    """

    grid: Grid
    columns: Floats
    rows: Floats
    levels: NDArray[np.intp]
    spacing_mm: float
    pixel_mm: float


def stack_over(
    grid: Grid,
    tissue: Flags,
    seen: Flags,
    *,
    pixel_mm: float,
    level_mm: float,
    margin_mm: float,
    multiple: int,
) -> Stack:
    """The pixels that cover the tissue of a leg.

    Slices closer than level_mm are thinned to the nearest whole step below it. The last level
    may then lie a little beyond the last slice and is predicted from that slice.

    Args:
        grid: grid of the leg.
        tissue: its voxels (nx, ny, nz); at least one is True on the levels seen.
        seen: levels that show the leg (nz,); at least one is True.
        pixel_mm: pixels of the stack.
        level_mm: largest distance of the levels of a thinned stack.
        margin_mm: kept around the tissue.
        multiple: rows and columns are a multiple of this.
    """
    sizes = grid.voxel_sizes_mm
    shown = np.flatnonzero(seen)
    first, last = int(shown[0]), int(shown[-1])
    step = max(1, int(level_mm / sizes[2] + 1e-6))
    count = -(-(last - first) // step) + 1
    levels = np.minimum(first + step * np.arange(count), last)
    axes, low = [], []
    for axis in (0, 1):
        present = np.flatnonzero(tissue[:, :, first : last + 1].any(axis=(1 - axis, 2)))
        middle = (present[0] + present[-1]) / 2.0
        wanted = ((present[-1] - present[0] + 1) * sizes[axis] + 2 * margin_mm) / pixel_mm
        pixels = int(np.ceil(wanted / multiple)) * multiple
        index = middle + (np.arange(pixels) - (pixels - 1) / 2.0) * pixel_mm / sizes[axis]
        axes.append(index)
        low.append(float(index[0]))
    to_leg = np.diag([pixel_mm / sizes[0], pixel_mm / sizes[1], float(step), 1.0])
    to_leg[:3, 3] = (low[0], low[1], first - step)
    shape = (len(axes[0]), len(axes[1]), count + 2)
    return Stack(
        Grid(shape, grid.affine @ to_leg, grid.space),
        axes[0],
        axes[1],
        levels.astype(np.intp),
        sizes[2],
        pixel_mm,
    )


def axis_weights(size: int, index: Floats, width: float) -> csr_array:
    """Weights that resample one axis: out = weights @ in.

    Linear interpolation between the voxels' centres, averaged over `width` voxels around each
    wanted point, so that a straight ramp comes out exactly. Beyond the outer faces of the first
    and last voxel there is nothing: 0.

    Args:
        size: voxels along the axis.
        index: fractional index of the wanted points (m,).
        width: length of the average, in voxels; 0: interpolation alone.

    Returns:
        float32, sparse (m, size): few voxels count for a point; and a sparse product adds up in one
        order, whatever the storage of the image and the number of threads.
    """
    points = 1 if width <= 0 else int(np.ceil(width * _POINTS_PER_VOXEL))
    offsets = ((np.arange(points) + 0.5) / points - 0.5) * width
    at = index[:, None] + offsets
    inside = (at >= -0.5) & (at <= size - 0.5)
    at = np.clip(at, 0.0, size - 1.0)
    low = np.minimum(at.astype(np.intp), max(size - 2, 0))
    part = at - low
    weights = np.zeros((len(index), size))
    rows = np.broadcast_to(np.arange(len(index))[:, None], at.shape)
    np.add.at(weights, (rows, low), (1.0 - part) * inside / points)
    np.add.at(weights, (rows, np.minimum(low + 1, size - 1)), part * inside / points)
    return csr_array(weights.astype(np.float32))


def plane_weights(
    grid: Grid, stack: Stack, shift_mm: tuple[float, float] = (0.0, 0.0)
) -> tuple[csr_array, csr_array]:
    """Weights for columns and rows of a stack over a leg.

    Native voxels smaller than a pixel are averaged over what a pixel adds to their own width
    (widths add up in squares).

    Args:
        grid: grid of the leg.
        stack: the pixels.
        shift_mm: moves where the pixels look, outwards and forwards.
    """
    out = []
    for axis, index in ((0, stack.columns), (1, stack.rows)):
        size = grid.voxel_sizes_mm[axis]
        width = np.sqrt(max(0.0, stack.pixel_mm**2 - size**2)) / size
        out.append(axis_weights(grid.shape[axis], index + shift_mm[axis] / size, width))
    return out[0], out[1]


def resample_slices(
    image: Singles | Flags,
    levels: Sequence[int] | NDArray[np.intp],
    weights: tuple[csr_array, csr_array],
) -> Singles:
    """Slices of an image (nx, ny, nz) on the pixels of a stack; fastest where planes lie together
    in memory.

    Returns:
        float32 array (level, row, column).
    """
    columns, rows = weights
    out = np.empty((len(levels), rows.shape[0], columns.shape[0]), dtype=np.float32)
    for start in range(0, len(levels), _LEVELS_AT_ONCE):
        some = levels[start : start + _LEVELS_AT_ONCE]
        part = columns @ image[:, :, some].reshape(image.shape[0], -1)
        part = part.reshape(len(part), -1, len(some)).transpose(1, 0, 2)
        part = rows @ part.reshape(image.shape[1], -1)
        part = part.reshape(len(part), -1, len(some))
        out[start : start + len(some)] = part.transpose(2, 0, 1)
    return out


def neighbour_offsets(spacing_mm: float, near_mm: float, far_mm: float) -> tuple[int, ...]:
    """Slices that a network sees around a slice: (-far, -near, 0, near, far), in slices."""
    near = max(1, round(near_mm / spacing_mm))
    far = max(near + 1, round(far_mm / spacing_mm))
    return (-far, -near, 0, near, far)


def with_neighbours(slices: Singles, at: NDArray[np.intp], offsets: Sequence[int]) -> Singles:
    """Each wanted slice with its neighbours as channels; 0 where there is none.

    Args:
        slices: (image, level, row, column).
        at: levels wanted (n,), index into slices.
        offsets: neighbours, in levels.

    Returns:
        float32 array (n, image x offset, row, column), images first.
    """
    images, count, rows, columns = slices.shape
    out = np.zeros((len(at), images * len(offsets), rows, columns), dtype=np.float32)
    for k, offset in enumerate(offsets):
        there = at + offset
        inside = (there >= 0) & (there < count)
        for image in range(images):
            out[inside, image * len(offsets) + k] = slices[image, there[inside]]
    return out


def shifted_back(values: Singles, shift_pixels: tuple[float, float]) -> Singles:
    """Values (..., row, column) seen too far along columns and rows, on the pixels meant.

    Linear interpolation; beyond the outermost pixels their values go on.

    Args:
        values: what was found on pixels that lay shifted.
        shift_pixels: by how much, along columns (the last axis) and rows.
    """
    out = values
    for axis, shift in ((values.ndim - 1, shift_pixels[0]), (values.ndim - 2, shift_pixels[1])):
        if shift == 0:
            continue
        whole = int(np.floor(-shift))
        part = np.float32(-shift - whole)
        room = (max(0, -whole), max(0, whole + 1))
        wide = np.pad(out, [room if k == axis else (0, 0) for k in range(out.ndim)], mode="edge")
        count = out.shape[axis]
        out = _part(wide, axis, room[0] + whole, count)
        if part:
            out = (1 - part) * out + part * _part(wide, axis, room[0] + whole + 1, count)
    return np.asarray(out, dtype=np.float32)


def _part(values: Singles, axis: int, first: int, count: int) -> Singles:
    """So many places along an axis, as a view."""
    place = [slice(None)] * values.ndim
    place[axis] = slice(first, first + count)
    return values[tuple(place)]


def window_around(
    tissue: Flags,
    levels: Sequence[int] | NDArray[np.intp],
    stack: Stack,
    voxel_mm: tuple[float, float, float],
    *,
    margin_mm: float,
    multiple: int,
) -> tuple[slice, slice] | None:
    """Rows and columns of a stack that some levels need, a multiple of pixels each way.

    Args:
        tissue: voxels of the leg (nx, ny, nz).
        levels: levels of the leg.
        stack: the pixels.
        voxel_mm: voxel sizes of the leg.
        margin_mm: kept around the tissue.
        multiple: of rows and columns.

    Returns:
        rows and columns; None where there is no tissue on these levels.
    """
    mask: Flags = np.asarray(tissue[:, :, levels].any(axis=2))
    if not mask.any():
        return None
    parts = []
    for axis, index in ((1, stack.rows), (0, stack.columns)):
        present = np.flatnonzero(mask.any(axis=1 - axis))
        margin = margin_mm / voxel_mm[axis]
        low = int(np.searchsorted(index, present[0] - margin))
        high = int(np.searchsorted(index, present[-1] + margin, side="right"))
        size = min(-(-(high - low) // multiple) * multiple, len(index))
        start = min(max(0, (low + high - size) // 2), len(index) - size)
        parts.append(slice(start, start + size))
    return parts[0], parts[1]
