"""Ends of a scan that are no planes of its grid: levels on which only a part of a leg was imaged.

The correction of distortion bends the first and last levels of a stack, and a stack resampled from
an oblique one has slanted ends; what lies beyond them is filled with zeros. A muscle that ends
there is cut, and not at the same level on the two sides.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Flags = NDArray[np.bool_]

#: The search works on about these pixels, mm.
_PIXEL_MM = 3.0
#: Zeros count where the level before has tissue so far inside, mm, and at least as far as levels
#: lie apart: a leg that grows thinner, or a skin that slants by 45 degrees, loses its outside only.
_DEEP_MM = 10.0
#: ... over this share of the leg's cross-section.
_LOST_SHARE = 0.03
#: Ends rise by this much of the way across. What lies less deep was lost farther inside by so much.
_STEEPEST = 0.36
#: Ends bend or slant over this much of the limb at most; farther inside, anatomy ends in air.
_REACH_MM = 100.0


def whole_levels(tissue: Flags, lit: Flags, seen: Flags, voxel_mm: tuple[float, ...]) -> Flags:
    """Levels on which a leg was imaged whole.

    Args:
        tissue: voxels of one leg (nx, ny, nz).
        lit: voxels at which some image is not 0 (nx, ny, nz).
        seen: levels on which the leg was imaged at all (nz,).
        voxel_mm: size of the voxels.

    Returns:
        `seen` less the levels at both ends from the first on that padding cuts.
    """
    levels = np.flatnonzero(seen)
    whole = seen.copy()
    if levels.size < 2:
        return whole
    step = tuple(max(1, round(_PIXEL_MM / mm)) for mm in voxel_mm[:2])
    thin = (slice(None, None, step[0]), slice(None, None, step[1]))
    pixel_mm = (step[0] * voxel_mm[0], step[1] * voxel_mm[1])
    middle = levels.size // 2
    deep_mm = max(_DEEP_MM, voxel_mm[2])
    outside = int(np.ceil(_STEEPEST * deep_mm / voxel_mm[2]))
    reach = int(_REACH_MM / voxel_mm[2])
    for outwards in (levels[middle:], levels[middle::-1]):
        near_end = outwards[-reach - 1 :]
        cut = _first_cut(tissue[thin], lit[thin], near_end, pixel_mm, deep_mm)
        if cut is not None:
            # One level stays in any case: a few slices may be cut on all of them.
            whole[near_end[max(1, cut - outside) :]] = False
    return whole


def _first_cut(
    tissue: Flags,
    lit: Flags,
    levels: NDArray[np.intp],
    pixel_mm: tuple[float, float],
    deep_mm: float,
) -> int | None:
    """Number, among levels from inside outwards, of the first whose inside padding takes away."""
    for number, (before, level) in enumerate(pairwise(levels), start=1):
        own = tissue[:, :, before]
        inside = ndimage.distance_transform_edt(np.pad(own, 1), sampling=pixel_mm)[1:-1, 1:-1]
        lost = (inside > deep_mm) & _padding(lit[:, :, level])
        if np.count_nonzero(lost) > _LOST_SHARE * np.count_nonzero(own):
            return number
    return None


def _padding(lit: Flags) -> Flags:
    """Dark pixels of one level that reach its border: no bone and no implant."""
    parts, _ = ndimage.label(~lit)
    rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.asarray(np.isin(parts, np.unique(rim[rim > 0])))
