"""Legs with labels for tests, out of label arrays, without the stages before registration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np

from pipeline.core.anatomy import LEG_SCHEME, STRUCTURE_IDS, Side
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE, EngineInfo, Leg, SegmentedLeg, SegmentedLegs
from pipeline.core.transform import SpatialTransform, identity, mirror
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.imaging.labels import leg_labels
from pipeline.imaging.limb_axis import find_limb_axis
from pipeline.phantom import Acquisition, Body, acquire, grid_for

SPACES = {Side.RIGHT: "right-leg", Side.LEFT: "left-leg-mirrored"}
ENGINE = EngineInfo("test", "1", "none")


def ids(names: Iterable[str]) -> list[int]:
    return [STRUCTURE_IDS[name] for name in names]


def segmented(
    labels: np.ndarray, affine: np.ndarray, side: Side, seen: np.ndarray | None = None
) -> SegmentedLeg:
    """A leg whose labels are already in right-leg pose; seen everywhere unless said."""
    grid = Grid(labels.shape, affine, SPACES[side])
    label_map = LabelMap(np.ascontiguousarray(labels, dtype=np.uint8), grid, LEG_SCHEME)
    if seen is None:
        seen = np.ones(labels.shape[2], dtype=bool)
    levels = np.flatnonzero(labels.any(axis=(0, 1)))
    labelled = np.zeros(labels.shape[2], dtype=bool)
    if levels.size:
        labelled[levels[0] : levels[-1] + 1] = True
    if side is Side.RIGHT:
        to_scanner = identity(grid.space, SCANNER_SPACE)
    else:
        to_scanner = mirror(0.0, grid.space, SCANNER_SPACE)
    leg = Leg(side, grid, {}, None, labels > 0, seen, label_map, to_scanner, (0, 0, 0))
    return SegmentedLeg(leg, label_map, find_limb_axis(label_map, seen), {}, labelled)


def both_legs(labels: np.ndarray, affine: np.ndarray) -> SegmentedLegs:
    """Both legs of a label array of OWN_SCHEME in RAS storage, the left one mirrored."""
    left = leg_labels(labels, Side.LEFT)[::-1]
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1.0, labels.shape[0] - 1
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine @ flip
    return SegmentedLegs(
        segmented(leg_labels(labels, Side.RIGHT), affine, Side.RIGHT),
        segmented(left, mirrored, Side.LEFT),
        ENGINE,
    )


def phantom_legs(
    body: Body,
    voxel_mm: tuple[float, float, float],
    *,
    keep: Iterable[str] | None = None,
    **grid: float | tuple[float, float],
) -> SegmentedLegs:
    """True labels of a phantom, all structures or the named ones."""
    acquisition = Acquisition(
        grid_for(body, voxel_mm, **grid), contrasts=(), snr=None, supersampling=(1, 1, 1)
    )
    labels = acquire(body, acquisition).labels
    data = labels.data
    if keep is not None:
        data = np.where(np.isin(data % 100, ids(keep)), data, 0)
    return both_legs(data, labels.grid.affine)


def file_legs(path: Path, levels: slice = slice(None)) -> SegmentedLegs:
    """Both legs of a label map on disk, some of its slices."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    labels = np.asarray(image.dataobj).astype(np.uint8)[:, :, levels]
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (levels.start or 0)
    return both_legs(labels, affine)


def swapped(legs: SegmentedLegs) -> SegmentedLegs:
    """The same two legs in each other's place."""
    right, left = (
        segmented(legs[side.other].labels.data, legs[side.other].leg.grid.affine, side)
        for side in (Side.RIGHT, Side.LEFT)
    )
    return SegmentedLegs(right, left, ENGINE)


def moved_copy(
    leg: SegmentedLeg,
    to_leg: SpatialTransform,
    voxel_mm: tuple[float, float, float],
    *,
    turn: np.ndarray | None = None,
) -> SegmentedLeg:
    """A left leg that looks at every point as `leg` does where `to_leg` carries the point.

    Args:
        leg: a right leg.
        to_leg: left leg space -> right leg space, the truth a registration should find.
        voxel_mm: voxels of the copy.
        turn: rotation of the copy's grid against the axes of its space.
    """
    own = leg.leg.grid
    points = to_leg.inverse().apply(own.index_to_world(np.argwhere(leg.labels.data)[::37]))
    axes = np.eye(3) if turn is None else turn
    ends = points @ axes
    low, high = ends.min(axis=0) - 12.0, ends.max(axis=0) + 12.0
    shape = np.ceil((high - low) / voxel_mm).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * voxel_mm
    affine[:3, 3] = axes @ low
    labels = np.zeros(shape, dtype=np.uint8)
    grid = Grid(tuple(shape), affine, SPACES[Side.LEFT])
    for k in range(shape[2]):
        index = np.stack(np.meshgrid(*(np.arange(n) for n in shape[:2]), [k], indexing="ij"), -1)
        there = own.world_to_index(to_leg.apply(grid.index_to_world(index.reshape(-1, 3))))
        nearest = np.rint(there).astype(int)
        inside = np.all((nearest >= 0) & (nearest < own.shape), axis=-1)
        values = np.zeros(len(nearest), dtype=np.uint8)
        values[inside] = leg.labels.data[tuple(nearest[inside].T)]
        labels[:, :, k] = values.reshape(shape[:2])
    return segmented(labels, affine, Side.LEFT)


def changed(
    leg: SegmentedLeg,
    *,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    levels: slice = slice(None),
) -> SegmentedLeg:
    """A leg with other labels, or of which fewer slices were scanned."""
    data = leg.labels.data if change is None else change(leg.labels.data.copy())
    affine = leg.leg.grid.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (levels.start or 0)
    return segmented(data[:, :, levels], affine, leg.leg.side)


def with_fat(leg: SegmentedLeg, fraction: np.ndarray | None = None) -> SegmentedLeg:
    """A leg with a fat fraction image: 5 % in muscle and 90 % around it unless given."""
    if fraction is None:
        fraction = np.where(leg.labels.data > 0, 0.05, 0.9)
    image = Volume(fraction.astype(np.float32), leg.leg.grid, Quantity.FAT_FRACTION, "1")
    return replace(leg, leg=replace(leg.leg, images={Quantity.FAT_FRACTION: image}))
