"""Where the signal of a leg fades towards one of its sides: what lies there is taken for air.

Skin and the fat under it are about as bright as muscle where all tissue shows, and air begins
within a voxel or two. Beyond the reach of a coil the leg grows dark towards its surface instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.imaging.unseen import EDGES

Flags = NDArray[np.bool_]

#: The rim is looked at this far inside the tissue, mm: behind the skin, before most muscle.
_DEPTH_MM = 4.0
#: What holds for less of the limb than this, mm, is chance.
_ALONG_MM = 30.0
#: Fewest lines through a level that make a rim.
_FEWEST_LINES = 8


def rim_brightness(
    tissue: Flags,
    seen: Flags,
    signal: NDArray[np.floating],
    voxel_mm: tuple[float, float, float],
) -> dict[str, NDArray[np.float64]]:
    """How bright a leg is beneath its surface, on each of its sides.

    Args:
        tissue: the leg, shape (nx, ny, nz).
        seen: levels on which it was imaged whole, shape (nz,).
        signal: an image in which muscle and fat are bright.
        voxel_mm: voxel sizes.

    Returns:
        by the names of EDGES and for each level (nz,): the median of the signal beneath the surface
        over the median of the level, in the middle half of the side, itself a median over 30 mm
        along the limb; infinite where no leg is seen.
    """
    width = [max(1, round(_DEPTH_MM / mm)) for mm in voxel_mm[:2]]
    smooth = ndimage.uniform_filter(signal, (*width, 1), output=np.float32)
    levels = np.flatnonzero(seen & tissue.any(axis=(0, 1)))
    usual = {k: float(np.median(signal[:, :, k][tissue[:, :, k]])) for k in levels}
    along = 2 * int(_ALONG_MM / voxel_mm[2] / 2) + 1
    found = {}
    for (axis, end), name in EDGES.items():
        leg, bright = (np.moveaxis(a, axis, 0) for a in (tissue, smooth))
        if end:
            leg, bright = leg[::-1], bright[::-1]
        deep = np.minimum(leg.argmax(axis=0) + round(_DEPTH_MM / voxel_mm[axis]), len(leg) - 1)
        ratio = np.full(tissue.shape[2], np.inf)
        for level in levels:
            lines = np.flatnonzero(leg[:, :, level].any(axis=0))
            if lines.size < _FEWEST_LINES or usual[level] <= 0:
                continue
            lines = lines[lines.size // 4 : -(lines.size // 4)]
            beneath = bright[deep[lines, level], lines, level]
            ratio[level] = float(np.median(beneath)) / usual[level]
        found[name] = ndimage.median_filter(ratio, along, mode="nearest")
    return found


def surface(tissue: Flags, name: str, levels: Flags) -> Flags:
    """The outermost voxels of a leg on one of its sides, on some levels.

    Args:
        tissue: the leg, shape (nx, ny, nz).
        name: one of the names of EDGES.
        levels: flags (nz,).
    """
    (axis, end) = next(key for key, value in EDGES.items() if value == name)
    leg = np.moveaxis(tissue & levels, axis, 0)
    if end:
        leg = leg[::-1]
    first = leg & (np.cumsum(leg, axis=0) == 1)
    return np.asarray(np.moveaxis(first[::-1] if end else first, 0, axis))
