"""Which voxels show body: above the noise of the air, and inside what is bright around it.

Everything here gives mirrored results for mirrored input, exactly. Lattices are those of
imaging.separation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from pipeline.imaging.sampling import otsu

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Pieces of a level smaller than this are noise in the air, not body.
_SPECK_MM2 = 20.0
#: Skin may lie so far from what else is bright.
_SKIN_REACH_MM = 12.0
#: Gaps in the fat around a leg up to twice this wide are closed before its hull is drawn.
_RING_REACH_MM = 12.0


def body_threshold(signal: Floats, rare_air: float = 0.0) -> float:
    """Signal above which a voxel is body: half of Otsu's threshold, so that dim coils count.

    Args:
        signal: values of the image.
        rare_air: the threshold is not below this, nor above Otsu's.
    """
    threshold = otsu(np.sort(signal, axis=None))
    return np.inf if threshold is None else min(threshold, max(0.5 * threshold, rare_air))


def around_body(body: Flags, column_mm: float) -> Flags:
    """A body mask on the lattice and what may still be its skin."""
    reach = max(1, round(_SKIN_REACH_MM / column_mm))
    return np.asarray(ndimage.binary_dilation(body, np.ones((3, 3, 1)), iterations=reach))


def without_specks(mask: Flags, around: Flags, voxel_mm: tuple[float, float, float]) -> Flags:
    """A mask without pieces of a level that are smaller than anything of a body.

    Args:
        mask: voxels (nx, ny, nz).
        around: where a small piece may belong to the body, as large.
        voxel_mm: voxel sizes.
    """
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[:, :, (0, 2)] = False
    pieces, count = ndimage.label(mask, in_plane)
    areas = np.bincount(pieces.ravel(), minlength=count + 1) * (voxel_mm[0] * voxel_mm[1])
    kept = areas >= _SPECK_MM2
    kept[0] = False
    return np.asarray(kept[pieces] | (mask & around))


def without_arms(side: Flags) -> Flags:
    """The leg of one side's body mask: arms and hands removed, level by level.

    A piece stays if it is at least a third of the largest piece of its level; arms and hands
    beside thighs and hips are smaller.
    """
    out = np.zeros_like(side)
    for level in range(side.shape[2]):
        pieces, count = ndimage.label(side[:, :, level])
        if count == 0:
            continue
        areas = np.bincount(pieces.ravel())
        areas[0] = 0
        out[:, :, level] = (areas >= areas.max() / 3.0)[pieces] & (pieces > 0)
    return out


def hulls(body: Flags, middle: Floats, column_mm: float) -> Flags:
    """Body of an image in which muscle may be as dark as air: the hull of what lies around it.

    The section of a leg is nearly convex, and fat lies around it, thinly in places. Gaps are
    closed, arms left out, and the convex hull is drawn level by level on either side of the
    midline.

    Args:
        body: what is bright, on the lattice.
        middle: midline, lattice column by level.
        column_mm: distance of the lattice's columns.
    """
    columns = np.arange(body.shape[0], dtype=np.float64)[:, None, None]
    reach = max(1, round(_RING_REACH_MM / column_mm))
    out = np.zeros_like(body)
    for own in (body & (columns > middle), body & (columns < middle)):
        around = np.pad(own, ((reach, reach), (reach, reach), (0, 0)))
        closed = ndimage.binary_closing(around, np.ones((3, 3, 1)), iterations=reach)
        leg = without_arms(closed[reach:-reach, reach:-reach])
        for level in np.flatnonzero(leg.any(axis=(0, 1))):
            section = leg[:, :, level]
            # The hull of the mirror image must be the mirror image of the hull, exactly.
            out[:, :, level] |= _hull(section) & _hull(section[::-1])[::-1]
    return out


def _hull(section: Flags) -> Flags:
    if min(np.ptp(places) for places in np.nonzero(section)) < 2:
        return section
    hull = convex_hull_image(section)  # type: ignore[no-untyped-call]
    return np.asarray(hull, dtype=np.bool_)
