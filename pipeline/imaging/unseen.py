"""Where a leg was not imaged: beyond an edge of the images, and where metal left no signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.grid import Grid

Flags = NDArray[np.bool_]

#: Names of the edges of a leg's box in right-leg pose, by axis and end (0: low, 1: high).
EDGES = {(0, 0): "inner", (0, 1): "outer", (1, 0): "back", (1, 1): "front"}
#: The outermost line of voxels that are not 0 may be dimmed by interpolation: the next counts too.
_LINES = 2
#: What is darker than this share of the leg, beside it, is air and not the other leg; air of which
#: no more than the second share is other than 0 was blanked.
_DARK_SHARE, _NOISY_SHARE = 0.2, 0.5


def near_edges(
    tissue: Flags,
    images: Sequence[NDArray[np.floating]],
    voxel_mm: tuple[float, float, float],
    *,
    reach_mm: float,
) -> dict[str, Flags]:
    """Voxels near a place where the leg goes on beyond an edge of the images.

    An image ends where its last voxels other than exactly 0 are, on whatever level: what lies
    further out was padded, after a correction of distortion or a crop, or around a round field of
    view. Where the air beside the leg was blanked too, that cannot be told, and the image ends
    where its array does.

    Args:
        tissue: the leg, shape (nx, ny, nz), in right-leg pose.
        images: on its grid; none where there are labels alone.
        voxel_mm: voxel sizes.
        reach_mm: how near, in the plane of a level.

    Returns:
        masks of the shape of the leg by the names of EDGES; edges that the leg does not reach are
        missing, all where there is no image.
    """
    if not images or not tissue.any():
        return {}
    signal = np.zeros(tissue.shape, dtype=np.float32)
    for image in images:
        signal += np.abs(image)
    lit = signal > 0
    air = signal < _DARK_SHARE * np.median(signal[tissue])
    shown = ndimage.binary_fill_holes(lit.any(axis=2))
    around = air & shown[..., None]
    if np.count_nonzero(lit & around) <= _NOISY_SHARE * np.count_nonzero(around):
        shown = np.ones_like(shown)
    found = {}
    for (axis, end), name in EDGES.items():
        cut = tissue & _outermost(shown, axis, end)[..., None]
        if cut.any():
            found[name] = near(cut, voxel_mm, reach_mm=reach_mm)
    return found


def cut_deep(
    edges: Mapping[str, Flags],
    section_mm2: NDArray[np.float64],
    other_mm2: NDArray[np.float64],
    *,
    largest_lost_share: float,
) -> Flags:
    """Levels on which an edge of the images takes a large part of a leg.

    Args:
        edges: as near_edges gives them, of shape (nx, ny, nz).
        section_mm2: cross-section of the leg on each level, shape (nz,).
        other_mm2: that of the other leg at the same height; 0 where it is not seen.
        largest_lost_share: share of the other leg's cross-section by which it may be smaller.

    Returns:
        flags of shape (nz,).
    """
    cut = np.zeros(section_mm2.shape, dtype=np.bool_)
    for mask in edges.values():
        cut |= mask.any(axis=(0, 1))
    return np.asarray(cut & (section_mm2 < (1.0 - largest_lost_share) * other_mm2))


def _outermost(shown: Flags, axis: int, end: int) -> Flags:
    """Pixels (nx, ny) beyond which, towards one end of an axis, the image ends."""
    lines = [(0, 0), (0, 0)]
    lines[axis] = (0, _LINES) if end else (_LINES, 0)
    padded = np.pad(shown, lines)
    first = 1 if end else 0
    beyond = [
        np.take(padded, range(first + k, first + k + shown.shape[axis]), axis=axis)
        for k in range(_LINES)
    ]
    return np.asarray(shown & ~np.logical_and.reduce(beyond))


def enclosed_voids(
    tissue: Flags, signal: Flags, voxel_mm: tuple[float, float, float], *, smallest_mm: float
) -> Flags:
    """Parts of a leg without signal, such as metal leaves: enclosed by it, and thicker than the
    compact bone of a shaft.

    Args:
        tissue: the leg, shape (nx, ny, nz).
        signal: voxels with signal, of whatever leg.
        voxel_mm: voxel sizes.
        smallest_mm: diameter of the smallest disc in the plane of a level that is no bone.
    """
    voids = np.zeros_like(tissue)
    for level in range(tissue.shape[2]):
        filled = ndimage.binary_fill_holes(tissue[:, :, level])
        dark = filled & ~signal[:, :, level]
        if not dark.any():
            continue
        inside = ndimage.distance_transform_edt(np.pad(dark, 1), sampling=voxel_mm[:2])
        middle = inside[1:-1, 1:-1] > smallest_mm / 2.0
        if middle.any():
            away = ndimage.distance_transform_edt(~middle, sampling=voxel_mm[:2])
            voids[:, :, level] = dark & (away <= smallest_mm / 2.0)
    return voids


def at_heights(
    grid: Grid, other: Grid, values: NDArray[np.float64], *, outside: float
) -> NDArray[np.float64]:
    """What is known of each level of one leg's grid, at the heights of the other leg's levels.

    Args:
        grid: the grid wanted.
        other: the grid of the values.
        values: shape (nz of the other,).
        outside: what is told of levels above and below.
    """
    heights = grid.level_heights_mm, other.level_heights_mm
    return np.asarray(np.interp(*heights, values, left=outside, right=outside))


def near(mask: Flags, voxel_mm: tuple[float, float, float], *, reach_mm: float) -> Flags:
    """Voxels of a mask, and those near it in the plane of a level."""
    out = np.zeros_like(mask)
    for level in np.flatnonzero(mask.any(axis=(0, 1))):
        away = ndimage.distance_transform_edt(~mask[:, :, level], sampling=voxel_mm[:2])
        out[:, :, level] = away <= reach_mm
    return out
