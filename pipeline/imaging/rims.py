"""What lies beneath the surface of a leg, on each of its sides.

Skin and the fat under it are about as bright as muscle where all tissue shows, and air begins
within a voxel or two. Beyond the reach of a coil the leg grows dark towards its surface instead;
and where muscle is the first thing beneath it, the leg goes on outside the images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.imaging.unseen import EDGES

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: The tissue is looked at this far inside its surface, mm: behind the skin, before most muscle.
_DEPTH_MM = 4.0
#: What holds for less of the limb than this, mm, is chance.
_ALONG_MM = 30.0
#: Fewest lines through a level that make a side.
_FEWEST_LINES = 8


def beneath_surface(
    tissue: Flags,
    seen: Flags,
    image: NDArray[np.floating],
    voxel_mm: tuple[float, float, float],
) -> dict[str, Floats]:
    """Signal beneath the surface of a leg.

    Args:
        tissue: the leg, shape (nx, ny, nz).
        seen: levels on which it was imaged whole, shape (nz,).
        image: signal on its grid.
        voxel_mm: voxel sizes.

    Returns:
        by the names of EDGES, for each level (nz,) the median in the middle half of that side; NaN
        where no leg is seen.
    """
    width = [max(1, round(_DEPTH_MM / mm)) for mm in voxel_mm[:2]]
    around = [np.arange(wide) - wide // 2 for wide in width]
    found = {}
    for (axis, end), name in EDGES.items():
        leg = np.moveaxis(tissue, axis, 0)
        if end:
            leg = leg[::-1]
        deep = np.minimum(leg.argmax(axis=0) + round(_DEPTH_MM / voxel_mm[axis]), len(leg) - 1)
        if end:
            deep = len(leg) - 1 - deep
        there: Flags = np.asarray(leg.any(axis=0))
        side = np.full(tissue.shape[2], np.nan)
        for level in np.flatnonzero(seen):
            lines = np.flatnonzero(there[:, level])
            if lines.size >= _FEWEST_LINES:
                lines = lines[lines.size // 4 : -(lines.size // 4)]
                places = {axis: deep[lines, level], 1 - axis: lines}
                x, y = (
                    np.clip(places[k][:, None] + around[k], 0, tissue.shape[k] - 1) for k in (0, 1)
                )
                # Means over about the depth, so that noise and vessels do not decide.
                near = image[x[:, :, None], y[:, None, :], level]
                side[level] = np.median(near.mean(axis=(1, 2), dtype=np.float64))
        found[name] = side
    return found


def usual_signal(tissue: Flags, seen: Flags, image: NDArray[np.floating]) -> Floats:
    """Median signal of a leg on each level (nz,); NaN where none is seen. Arguments as above."""
    usual = np.full(tissue.shape[2], np.nan)
    for level in np.flatnonzero(seen & tissue.any(axis=(0, 1))):
        usual[level] = np.median(image[:, :, level][tissue[:, :, level]])
    return usual


def along_limb(values: Floats, level_mm: float) -> Floats:
    """Medians over 30 mm of the limb of what is known of each level (nz,); infinite for NaN."""
    known = np.where(np.isfinite(values), values, np.inf)
    return np.asarray(ndimage.median_filter(known, _levels(level_mm), mode="nearest"))


def long_runs(flags: Flags, level_mm: float) -> Flags:
    """Flags of levels (nz,) that hold for 30 mm of the limb or more at a stretch."""
    run = np.ones(_levels(level_mm), dtype=np.bool_)
    return np.asarray(ndimage.binary_opening(flags, run))


def _levels(level_mm: float) -> int:
    """An odd number of levels that take about 30 mm."""
    return 2 * round(_ALONG_MM / level_mm / 2) + 1


def surface(tissue: Flags, name: str, levels: Flags) -> Flags:
    """The outermost voxels of a leg on one of its sides, on some levels.

    Args:
        tissue: the leg, shape (nx, ny, nz).
        name: one of the names of EDGES.
        levels: flags (nz,).
    """
    axis, end = next(key for key, value in EDGES.items() if value == name)
    leg = np.moveaxis(tissue & levels, axis, 0)
    if end:
        leg = leg[::-1]
    first = leg & (np.cumsum(leg, axis=0) == 1)
    return np.asarray(np.moveaxis(first[::-1] if end else first, 0, axis))
