"""Labels found by a program, kept to a leg's own tissue and its borders on thick fat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.scan import Leg
from pipeline.core.volume import LabelMap
from pipeline.imaging.boxes import box_of, widened
from pipeline.imaging.labels import is_muscle
from pipeline.imaging.tissue import fat_fraction

Flags = NDArray[np.bool_]
Labels = NDArray[np.integer]

#: The four neighbours of a voxel in its slice.
_IN_PLANE = ndimage.generate_binary_structure(2, 1)


def keep_to_leg(
    labels: LabelMap, leg: Leg, *, fat_border_percent: float, thick_fat_mm: float
) -> LabelMap:
    """Labels inside the outline of the leg only, borders on thick fat where the fat begins.

    The outline holds what tissue encloses in a slice: bone is dark in many images.

    Args:
        labels: LEG_SCHEME on the leg's grid.
        leg: the leg; without water and fat, borders stay where they are.
        fat_border_percent, thick_fat_mm: see settle_fat_borders.
    """
    out = np.where(without_holes(leg.tissue), labels.data, 0).astype(labels.data.dtype)
    if leg.dixon is not None:
        fractions = fat_fraction(leg.dixon)
        fat = np.nan_to_num(fractions, nan=0.0) > fat_border_percent / 100.0
        sizes = leg.grid.voxel_sizes_mm
        known = leg.tissue & np.isfinite(fractions)
        for level in np.flatnonzero((out != 0).any(axis=(0, 1))):
            # No border moves further from the labels than thick fat is wide.
            here = _around(out[:, :, level], sizes, 2.0 * thick_fat_mm)
            place = (*here, level)
            own_fat = fat[place] & leg.tissue[place]
            out[place] = settle_fat_borders(
                without_fat_pieces(out[place], own_fat),
                own_fat,
                known[place],
                (sizes[0], sizes[1]),
                thick_fat_mm,
            )
    return LabelMap(out, labels.grid, labels.scheme)


def _around(
    labels: Labels, voxel_mm: tuple[float, float, float], margin_mm: float
) -> tuple[slice, slice]:
    """Box of what is labelled in a slice (nx, ny), with a margin."""
    margin = [int(np.ceil(margin_mm / size)) + 1 for size in voxel_mm[:2]]
    rows, columns = widened(box_of(labels), margin, labels.shape)
    return rows, columns


def without_holes(mask: Flags) -> Flags:
    """A mask (nx, ny, nz) and what it encloses in each slice of the first two axes."""
    in_plane = np.zeros((3, 3, 3), dtype=np.bool_)
    in_plane[:, :, 1] = _IN_PLANE
    around = np.pad(~mask, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    pieces, count = ndimage.label(around, in_plane)
    outside = np.zeros(count + 1, dtype=np.bool_)
    outside[pieces[0, 0]] = True
    return np.asarray(~outside[pieces[1:-1, 1:-1]])


def without_fat_pieces(labels: Labels, fat: Flags) -> Labels:
    """One slice without pieces of muscles that are mostly fat, beside a larger piece.

    The largest piece of a muscle stays whatever it holds: a muscle may be replaced by fat.

    Args:
        labels: label values (nx, ny).
        fat: voxels with more fat than a muscle's border has.
    """
    out = labels
    for value in np.unique(labels[fat & is_muscle(labels)]):
        pieces, count = ndimage.label(labels == value)
        if count == 1:
            continue
        sizes = np.bincount(pieces.ravel())
        fatty = np.bincount(pieces[fat], minlength=count + 1) > 0.5 * sizes
        fatty[0] = False
        fatty[1 + int(sizes[1:].argmax())] = False
        if fatty.any():
            out = np.where(fatty[pieces], 0, out).astype(labels.dtype)
    return out


def settle_fat_borders(
    labels: Labels,
    fat: Flags,
    known: Flags,
    pixel_mm: tuple[float, float],
    thick_fat_mm: float,
) -> Labels:
    """One slice, in which muscle that borders on thick fat ends where the fat begins.

    The border moves by one voxel at most, in either direction: muscle voxels beside unlabelled
    thick fat that are fat themselves are let go, unlabelled lean voxels between a muscle and
    thick fat are taken in. Fat inside and between muscles moves nothing.

    Args:
        labels: label values (nx, ny).
        fat: voxels with more fat than the border has.
        known: voxels of tissue with a defined fat fraction.
        pixel_mm: voxel sizes.
        thick_fat_mm: fat thinner than this is not thick.
    """
    thick = ndimage.binary_opening(fat, _disc(thick_fat_mm / 2.0, pixel_mm))
    muscle = is_muscle(labels)
    outer = thick & (labels == 0)
    beside = ndimage.binary_dilation(outer, _IN_PLANE)
    out = labels.copy()
    out[muscle & fat & beside] = 0
    free = (labels == 0) & known & ~fat & beside
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        # The neighbour's label, if that neighbour is muscle and the opposite one is thick fat.
        neighbour = _shifted(np.where(muscle & ~fat, labels, 0), axis, step)
        beyond = _shifted(outer, axis, -step)
        take = free & (neighbour != 0) & beyond & (out == 0)
        out[take] = neighbour[take]
    return out


def _disc(radius_mm: float, pixel_mm: tuple[float, float]) -> Flags:
    """Voxels of a plane whose centres lie within a radius, at least the middle one."""
    reach = [int(radius_mm / size) for size in pixel_mm]
    x, y = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    return np.asarray((x * pixel_mm[0]) ** 2 + (y * pixel_mm[1]) ** 2 <= radius_mm**2)


def _shifted(array: NDArray[np.generic], axis: int, step: int) -> NDArray[np.generic]:
    """Each voxel shows what its neighbour at -step along an axis holds; 0 beyond the edge."""
    out = np.zeros_like(array)
    source = [slice(None), slice(None)]
    target = [slice(None), slice(None)]
    source[axis], target[axis] = (
        (slice(None, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(None, -1))
    )
    out[tuple(target)] = array[tuple(source)]
    return out
