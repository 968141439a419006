"""How far two legs agree at corresponding points: their labels and their images.

Labels are looked up at the nearest voxel where a transform carries a point; nothing is measured on
them. What only one leg shows is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.scan import SegmentedLeg
from pipeline.core.transform import SpatialTransform
from pipeline.core.volume import Quantity
from pipeline.imaging.surfaces import window_of

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

#: Labels of the other leg are looked for this far around those of a leg.
_ROOM_MM = 40.0


@dataclass(frozen=True)
class Agreement:
    """How far the labels of one structure agree, each side's carried over to the other.

    Attributes:
        dice: overlap, 2 |A and B| / (|A| + |B|), of both directions together.
        disagreement_ml: volume that belongs to the structure in one leg only, mean of both
            directions.
        outside_share: share of the smaller label that lies outside the larger one, mean of both
            directions, 0 to 1. A muscle that is only smaller lies inside and gives 0.
    """

    dice: float
    disagreement_ml: float
    outside_share: float


def label_agreement(
    left: SegmentedLeg,
    right: SegmentedLeg,
    right_to_left: SpatialTransform,
    *,
    spacing_mm: float,
) -> dict[str, Agreement]:
    """Agreement by structure name, where both legs show the structure.

    Both directions count alike: exchanging the legs changes nothing.

    Args:
        left, right: legs with labels.
        right_to_left: where each point of the right leg lies in the left one.
        spacing_mm: labels are looked up on every n-th voxel, about this far apart.
    """
    ways = [
        _volumes(right, left, right_to_left, spacing_mm),
        _volumes(left, right, right_to_left.inverse(), spacing_mm),
    ]
    out = {}
    for value, (name, _) in LEG_SCHEME.structures.items():
        own, carried, shared = (np.array([way[k, value] for way in ways]) for k in range(3))
        smaller = np.minimum(own, carried)
        if not np.all(smaller > 0.0):
            continue
        out[name] = Agreement(
            dice=float(2.0 * shared.sum() / (own + carried).sum()),
            disagreement_ml=float((own + carried - 2.0 * shared).mean()),
            outside_share=float((1.0 - shared / smaller).mean()),
        )
    return out


def _volumes(
    leg: SegmentedLeg, other: SegmentedLeg, to_other: SpatialTransform, spacing_mm: float
) -> Floats:
    """Volumes in mL by structure id (3, n): of the leg's own labels, of the other leg's labels
    carried over, and of what both have in common; where both legs were seen."""
    windows = window_of(leg), window_of(other)
    size = max(LEG_SCHEME.structures) + 1
    counts = np.zeros((3, size), dtype=np.int64)
    if windows[0] is None or windows[1] is None:
        return counts.astype(np.float64)
    grid = leg.leg.grid
    step = [max(1, round(spacing_mm / mm)) for mm in grid.voxel_sizes_mm]
    room = [math.ceil(_ROOM_MM / mm) for mm in grid.voxel_sizes_mm]
    for level in range(windows[0].first, windows[0].last + 1, step[2]):
        # Labels of the other leg arrive near those of this one.
        (box,) = ndimage.find_objects(
            np.any(leg.labels.data[:, :, level : level + step[2]] > 0, axis=2).view(np.uint8)
        ) or (None,)
        if box is None:
            box = (slice(0, grid.shape[0]), slice(0, grid.shape[1]))
        lines = [
            np.arange(max(0, s.start - r), min(n, s.stop + r), d)
            for s, r, n, d in zip(box, room, grid.shape, step, strict=False)
        ]
        index = np.stack(np.meshgrid(*lines, [level], indexing="ij"), axis=-1).reshape(-1, 3)
        moved = to_other.apply(grid.index_to_world(index))
        both = windows[1].contains(moved)
        if not both.any():
            continue
        own = leg.labels.data[tuple(index[both].T)]
        carried = _nearest(other, moved[both])
        counts[0] += np.bincount(own, minlength=size)
        counts[1] += np.bincount(carried, minlength=size)
        counts[2] += np.bincount(own[own == carried], minlength=size)
    return np.asarray(counts * (math.prod(step) * grid.voxel_volume_ml), dtype=np.float64)


def _nearest(leg: SegmentedLeg, points: Floats) -> NDArray[np.integer]:
    """Labels of a leg at points (n, 3) inside its window."""
    index = np.rint(leg.leg.grid.world_to_index(points)).astype(np.intp)
    index = np.clip(index, 0, np.array(leg.leg.grid.shape) - 1)
    return np.asarray(leg.labels.data[tuple(index.T)])


def image_correlation(
    left: SegmentedLeg,
    right: SegmentedLeg,
    right_to_left: SpatialTransform,
    quantity: Quantity,
    *,
    spacing_mm: float,
) -> float | None:
    """Correlation of an image of both legs at corresponding points of their tissue.

    Args:
        left, right: legs that both have the image.
        right_to_left: where each point of the right leg lies in the left one.
        quantity: which image; FAT_FRACTION may come from water and fat.
        spacing_mm: distance of the points.

    Returns:
        Pearson's r; None where too few points are seen in both legs or one leg is uniform.
    """
    windows = window_of(left), window_of(right)
    if windows[0] is None or windows[1] is None:
        return None
    grid = right.leg.grid
    step = [max(1, round(spacing_mm / mm)) for mm in grid.voxel_sizes_mm]
    levels = slice(windows[1].first, windows[1].last + 1)
    places = np.argwhere(right.leg.tissue[:: step[0], :: step[1], levels][:, :, :: step[2]])
    index = places * step + (0, 0, windows[1].first)
    moved = right_to_left.apply(grid.index_to_world(index))
    both = windows[0].contains(moved)
    there = np.rint(left.leg.grid.world_to_index(moved[both])).astype(np.intp)
    there = np.clip(there, 0, np.array(left.leg.grid.shape) - 1)
    values = [
        _image_at(right, quantity, index[both]),
        _image_at(left, quantity, there),
    ]
    known = np.isfinite(values[0]) & np.isfinite(values[1]) & left.leg.tissue[tuple(there.T)]
    own, other = (v[known] for v in values)
    if own.size < 100 or own.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(own, other)[0, 1])


def _image_at(leg: SegmentedLeg, quantity: Quantity, index: Ints) -> Floats:
    """Values of an image of a leg at voxels (n, 3); NaN where undefined."""
    where = tuple(index.T)
    images = leg.leg
    if quantity is Quantity.FAT_FRACTION and images.dixon is not None:
        water = images.dixon.water.data[where].astype(np.float64) * images.dixon.fat_gain
        fat = images.dixon.fat.data[where].astype(np.float64)
        defined = images.dixon.valid[where] & (water + fat > 0)
        return np.asarray(np.where(defined, fat / np.where(defined, water + fat, 1.0), np.nan))
    return np.asarray(images.images[quantity].data[where], dtype=np.float64)
