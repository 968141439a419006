"""How well two sets of labels agree, and asymmetry from two volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

Flags = NDArray[np.bool_]

#: Face neighbours in the plane of the slices: contours and tolerances never reach through the
#: plane, where slices may be many millimetres thick.
_IN_PLANE = ndimage.generate_binary_structure(2, 1)[:, :, None]


def dice(a: Flags, b: Flags) -> float | None:
    """2 |a and b| / (|a| + |b|); None where both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else None


def tolerance_dice(a: Flags, b: Flags) -> float | None:
    """Dice that forgives one voxel in the plane of the slices; None where both are empty.

    A voxel of one mask counts as right when the other mask has it or one of its four neighbours
    in the plane: (|a and grown b| + |b and grown a|) / (|a| + |b|).

    Args:
        a, b: masks (x, y, slice).
    """
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    if not total:
        return None
    hits = np.count_nonzero(a & ndimage.binary_dilation(b, _IN_PLANE))
    hits += np.count_nonzero(b & ndimage.binary_dilation(a, _IN_PLANE))
    return int(hits) / total


def surface_dice(
    a: Flags, b: Flags, *, sizes_mm: tuple[float, float], tolerance_mm: float
) -> float | None:
    """Share of the contours that lie within a tolerance of the other mask's contour.

    Contours are the voxels of a mask with a neighbour in the plane outside it, slice by slice;
    distances are taken in the plane. None where both masks are empty.

    Args:
        a, b: masks (x, y, slice).
        sizes_mm: voxel size in the plane.
        tolerance_mm: largest distance that counts as agreement.
    """
    edges = [mask & ~ndimage.binary_erosion(mask, _IN_PLANE) for mask in (a, b)]
    total = sum(int(np.count_nonzero(edge)) for edge in edges)
    if not total:
        return None
    near = 0
    for own, other in (edges, edges[::-1]):
        for k in np.flatnonzero(own.any(axis=(0, 1)) & other.any(axis=(0, 1))):
            away = ndimage.distance_transform_edt(~other[:, :, k], sampling=sizes_mm)
            near += int(np.count_nonzero(away[own[:, :, k]] <= tolerance_mm + 1e-6))
    return near / total


def asymmetry_percent(right: float | None, left: float | None) -> float | None:
    """100 (R - L) / ((R + L) / 2); None where a side is missing."""
    if right is None or left is None or right + left <= 0:
        return None
    return 200.0 * (right - left) / (right + left)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs or a constant."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(stats.spearmanr(a, b).statistic)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is there; None where nothing is."""
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None
