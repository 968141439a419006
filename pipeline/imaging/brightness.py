"""How bright fat is beside muscle: one figure per leg that the coils leave alone.

A coil makes fat and the muscle beside it brighter alike. Their ratio is set by the sequence and
the tissues, and so by nothing that differs from leg to leg, unless water and fat images were
corrected one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Flags = NDArray[np.bool_]
Singles = NDArray[np.float32]

#: More fat than this is fat, less than this lean muscle.
_FAT, _LEAN = 0.8, 0.2
#: Fat this far from lean muscle, mm, is held against it: behind the voxels that both share, and
#: near enough to lie under the same coil.
_NEAREST_MM, _FURTHEST_MM = 2.0, 8.0
#: So many levels of a leg are enough, and fewer voxels than this are too few.
_LEVELS, _FEWEST_VOXELS = 40, 500


def fat_over_muscle(
    water: Singles, fat: Singles, there: Flags, voxel_mm: tuple[float, float, float]
) -> float | None:
    """Median signal of fat over that of the lean muscle nearest to it in its slice.

    Args:
        water, fat: images of one leg, shape (nx, ny, nz).
        there: voxels with a signal that counts.
        voxel_mm: voxel sizes.

    Returns:
        None where too little fat lies beside lean muscle.
    """
    share = fat / np.maximum(water + fat, np.finfo(np.float32).tiny)
    is_fat, is_lean = there & (share > _FAT), there & (share < _LEAN)
    levels = np.flatnonzero(is_fat.any(axis=(0, 1)) & is_lean.any(axis=(0, 1)))
    found = []
    for level in levels[:: max(1, len(levels) // _LEVELS)]:
        lean = is_lean[:, :, level]
        distance, nearest = ndimage.distance_transform_edt(
            ~lean, sampling=voxel_mm[:2], return_indices=True
        )
        beside = is_fat[:, :, level] & (distance > _NEAREST_MM) & (distance < _FURTHEST_MM)
        # Of the border's own voxel a part is fascia: the mean of the lean ones around it.
        weight = ndimage.uniform_filter(lean.astype(np.float64), 3)
        signal = ndimage.uniform_filter(np.where(lean, water[:, :, level], 0.0), 3)
        at = tuple(index[beside] for index in nearest)
        found.append(fat[:, :, level][beside] * weight[at] / signal[at])
    ratios = np.concatenate(found) if found else np.empty(0)
    return float(np.median(ratios)) if ratios.size >= _FEWEST_VOXELS else None
