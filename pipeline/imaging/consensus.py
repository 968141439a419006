"""One opinion out of the labels of both legs, in which neither side counts more.

Each voxel of a leg is decided by the mean of two signed distances to the border of a structure:
that of the leg's own label and that of the other leg's label at the corresponding point
(shape-based averaging; Rohlfing & Maurer, IEEE Trans Image Process 2007;16:153). Corresponding
points get the same mean, so that both legs end with the same structure, one the image of the other:
what is left between them is what the registration stretches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import LEG_SCHEME, Side
from pipeline.core.grid import Grid
from pipeline.core.match import LegMatch
from pipeline.core.scan import SegmentedLeg, SegmentedLegs
from pipeline.core.transform import interpolate, on_lattice
from pipeline.core.volume import LabelMap
from pipeline.imaging.surfaces import window_of

Singles = NDArray[np.float32]


def consensus_labels(
    legs: SegmentedLegs, match: LegMatch, *, reach_mm: float
) -> dict[Side, LabelMap]:
    """Labels of both legs by the mean of both, each decided on the leg's own grid.

    Where only one leg was seen, or only one has the structure, its own label stands. Exchanging
    the legs exchanges the result.

    Args:
        legs: both legs with labels.
        match: a registration that succeeded.
        reach_mm: further than this from a structure's border one place is as good as another.
    """
    ways = {
        Side.RIGHT: _Way(legs.right, legs.left, match, Side.RIGHT),
        Side.LEFT: _Way(legs.left, legs.right, match, Side.LEFT),
    }
    shown = {side: _shown(legs[side]) for side in Side}
    for value in LEG_SCHEME.structures:
        distances = {
            side: _signed_distance(shown[side], value, legs[side].leg.grid, reach_mm)
            for side in Side
        }
        for side in Side:
            own = distances[side]
            if own is not None:
                ways[side].weigh(value, own, distances[side.other], reach_mm)
    return {
        side: LabelMap(way.labels, legs[side].leg.grid, LEG_SCHEME) for side, way in ways.items()
    }


@dataclass(frozen=True, eq=False)
class _Distance:
    """Signed distance to the border of one structure, mm, positive inside, in a box around it."""

    values: Singles
    lower: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Shown:
    """Labels of a leg on the levels that were imaged and labelled.

    Attributes:
        labels: a view of them.
        first: index of its lowest level in the leg.
        boxes: by label value.
    """

    labels: NDArray[np.integer]
    first: int
    boxes: Mapping[int, tuple[slice, ...]]


def _shown(leg: SegmentedLeg) -> _Shown:
    window = window_of(leg)
    first, stop = (0, 0) if window is None else (window.first, window.last + 1)
    labels = leg.labels.data[:, :, first:stop]
    found = enumerate(ndimage.find_objects(labels), start=1)
    return _Shown(labels, first, {value: box for value, box in found if box is not None})


def _signed_distance(shown: _Shown, value: int, grid: Grid, reach_mm: float) -> _Distance | None:
    """None where the leg does not have the structure. Cuts by the field of view are no border."""
    if value not in shown.boxes:
        return None
    labels, box = shown.labels, shown.boxes[value]
    sizes = grid.voxel_sizes_mm
    room = [int(np.ceil(reach_mm / mm)) + 1 for mm in sizes]
    wider = tuple(
        slice(max(0, s.start - r), min(n, s.stop + r))
        for s, r, n in zip(box, room, labels.shape, strict=True)
    )
    mask = labels[wider] == value
    # Distances are to the nearest voxel centre beyond the border, which lies half a voxel nearer.
    half = 0.5 * min(sizes)
    inside = ndimage.distance_transform_edt(mask, sampling=sizes) if not mask.all() else reach_mm
    outside = ndimage.distance_transform_edt(~mask, sampling=sizes)
    signed = np.where(mask, inside - half, half - outside)
    lower = np.array([wider[0].start, wider[1].start, wider[2].start + shown.first], dtype=np.intp)
    return _Distance(np.clip(signed, -reach_mm, reach_mm).astype(np.float32), lower)


class _Way:
    """One leg, asked structure by structure, with what the other leg says at the same points."""

    def __init__(self, leg: SegmentedLeg, other: SegmentedLeg, match: LegMatch, side: Side) -> None:
        self.labels = np.zeros(leg.leg.grid.shape, dtype=np.uint8)
        self._best = np.zeros(leg.leg.grid.shape, dtype=np.float32)
        self._grid, self._window = leg.leg.grid, window_of(other)
        self._partner, self._lattice = on_lattice(match.out_of(side), self._grid)

    def weigh(self, value: int, own: _Distance, other: _Distance | None, reach_mm: float) -> None:
        """Let one structure claim the voxels that lie inside of it by the mean of both legs."""
        near = np.argwhere(own.values > -reach_mm)
        mean = own.values[tuple(near.T)].astype(np.float64)
        index = near + own.lower
        if other is not None and self._window is not None:
            points = interpolate(self._partner, self._lattice, self._grid.index_to_world(index))
            seen = self._window.contains(points)
            there = self._window.grid.world_to_index(points[seen]) - other.lower
            carried = ndimage.map_coordinates(
                other.values, there.T, order=1, mode="constant", cval=-reach_mm
            )
            mean[seen] = 0.5 * (mean[seen] + carried)
        voxels = tuple(index.T)
        claimed = mean > self._best[voxels]
        taken = tuple(axis[claimed] for axis in voxels)
        self.labels[taken] = value
        self._best[taken] = mean[claimed]
