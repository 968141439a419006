"""From soft labels to one label per voxel, on the grid that is measured."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.errors import InvariantError
from pipeline.core.grid import Grid
from pipeline.core.soft import Membership, SoftLabels
from pipeline.core.volume import LabelMap


def decide(soft: SoftLabels, grid: Grid) -> LabelMap:
    """The most likely label of every voxel of a grid.

    Memberships are interpolated to the grid first and compared there, so that volumes do not
    depend on the engine's grid. Structure by structure, each in its own box; on a tie the lower
    id wins. Background is held against all structures together: where two muscles share a voxel
    it belongs to one of them, although each alone may be less likely than background.

    Args:
        soft: memberships on the engine's grid.
        grid: grid of the leg, in the same space.
    """
    if soft.grid.space != grid.space:
        raise InvariantError(
            "Soft labels and leg lie in different spaces",
            expected=grid.space,
            found=soft.grid.space,
        )
    same = soft.grid.same_as(grid)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    best = np.zeros(grid.shape, dtype=np.float32)
    total = np.zeros(grid.shape, dtype=np.float32)
    for value, membership in sorted(soft.memberships.items()):
        box, values = _own_box(membership) if same else _resample(membership, soft.grid, grid)
        better = values > best[box]
        labels[box][better] = value
        best[box][better] = values[better]
        total[box] += values
    labels[total < 0.5] = 0
    return LabelMap(labels, grid, LEG_SCHEME)


def labelled_levels(soft: SoftLabels, grid: Grid) -> NDArray[np.bool_]:
    """Levels (third axis) of a grid whose centres lie in the range the soft labels speak of."""
    direction = grid.affine[:3, 2] / grid.voxel_sizes_mm[2]
    middle = (np.array(soft.grid.shape, dtype=np.float64) - 1.0) / 2.0
    ends = np.array([[middle[0], middle[1], level - 0.5] for level in soft.labelled])
    low, high = np.sort(soft.grid.index_to_world(ends) @ direction)
    own = np.zeros((grid.shape[2], 3))
    own[:, :2] = (np.array(grid.shape[:2]) - 1.0) / 2.0
    own[:, 2] = np.arange(grid.shape[2])
    centres = grid.index_to_world(own) @ direction
    return np.asarray((centres > low) & (centres < high))


def membership_of(labels: NDArray[np.integer], value: int, box: tuple[slice, ...]) -> Membership:
    """Hard labels as a membership of 0 or 1 in their bounding box."""
    lower = (int(box[0].start), int(box[1].start), int(box[2].start))
    return Membership((labels[box] == value).astype(np.float32), lower)


def _own_box(membership: Membership) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    pairs = zip(membership.lower, membership.values.shape, strict=True)
    return tuple(slice(low, low + n) for low, n in pairs), membership.values


def _resample(
    membership: Membership, source: Grid, target: Grid
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """Linear interpolation into the target's voxels that the box can reach."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    to_target = np.linalg.inv(to_source)
    low = np.array(membership.lower, dtype=np.float64) - 1.0
    high = low + np.array(membership.values.shape) + 1.0
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    reached = corners @ to_target[:3, :3].T + to_target[:3, 3]
    start = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, target.shape)
    stop = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, start, target.shape)
    offset = to_source[:3, :3] @ start + to_source[:3, 3] - np.array(membership.lower)
    values = ndimage.affine_transform(
        membership.values,
        to_source[:3, :3],
        offset=offset,
        output_shape=tuple(stop - start),
        order=1,
        mode="constant",
        cval=0.0,
        output=np.float32,
    )
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)), values
