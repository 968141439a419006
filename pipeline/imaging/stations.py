"""Stations of one body: which images belong together, and joining them on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.errors import InputError
from pipeline.core.grid import FloatArray, Grid
from pipeline.core.volume import Quantity, signals

Singles = NDArray[np.float32]

#: Images of one station agree in their outer corners to this, mm.
_SAME_PLACE_MM = 0.5
#: Neighbours that share more than this part of the shorter one are repeats, not stations.
_LARGEST_OVERLAP_SHARE = 0.6
#: A station whose voxels fall onto those of the joined grid to this, in voxels, is copied.
_ON_LATTICE = 0.02
#: Parts of a voxel at the rim that are not worth another row of voxels.
_RIM = 0.25
#: No person is longer; stations further apart are not of one body in one position.
_LONGEST_BODY_MM = 2300.0
#: Voxels above this share of a bright voxel's signal (95th percentile) are tissue.
_TISSUE_SHARE = 0.3
#: Fewer tissue voxels than this in an overlap, or in a level, say nothing.
_FEWEST_VOXELS = 50
#: Over so much that nobody scanned a limb looks alike on either side.
_NEAR_MM = 5.0


@dataclass(frozen=True, eq=False)
class Station:
    """Images of one station in canonical storage order.

    Attributes:
        grid: grid of all its images.
        images: arrays of the grid's shape by quantity.
    """

    grid: Grid
    images: Mapping[Quantity, Singles]


@dataclass(frozen=True)
class Seam:
    """Where a station meets the one above it.

    Attributes:
        low_mm, high_mm: levels (z) of the overlap, or of the gap.
        gap: nothing was scanned between them.
        fat_step: median difference of the fat fraction, upper minus lower; None: not known.
        outline_overlap: Dice overlap of the body's outline in both; None: not known.
        guessed_gain: factor that brought the upper station to the signal of the lower one where
            no overlap shows tissue in both; None: an overlap told it, or there is no signal.
    """

    low_mm: float
    high_mm: float
    gap: bool
    fat_step: float | None = None
    outline_overlap: float | None = None
    guessed_gain: float | None = None


@dataclass(frozen=True, eq=False)
class Joined:
    """All stations on one grid, and how they meet."""

    grid: Grid
    images: Mapping[Quantity, Singles]
    seams: tuple[Seam, ...]


def extent_mm(grid: Grid) -> tuple[float, float]:
    """Lowest and highest level (z) that a grid's voxels reach, in mm."""
    ends = grid.corners_mm()[:, 2]
    half = float(np.abs(grid.affine[2, :3]).sum()) / 2.0
    return float(ends.min()) - half, float(ends.max()) + half


def group_stations(
    images: Sequence[tuple[Quantity, Grid]], names: Sequence[str], files: Sequence[str]
) -> list[dict[Quantity, int]]:
    """Which images lie in one place, from the lowest station to the highest.

    Args:
        images: quantity and grid of each, in any order.
        names: of each, for messages.
        files: of each, where it lies, for the terminal alone; "" where no file has that name.

    Returns:
        for each station, the position in `images` by quantity.

    Raises:
        InputError: two images of one quantity in one place.
    """
    groups: list[tuple[Grid, dict[Quantity, int]]] = []
    for number, (quantity, grid) in enumerate(images):
        for other, members in groups:
            if _same_place(grid, other):
                if quantity in members:
                    both = (members[quantity], number)
                    raise _more_than_one(quantity, grid, names, files, both)
                members[quantity] = number
                break
        else:
            groups.append((grid, {quantity: number}))
    groups.sort(key=lambda group: extent_mm(group[0]))
    for (below, lower), (above, upper) in pairwise(groups):
        (a, b), (c, d) = extent_mm(below), extent_mm(above)
        shared = sorted(lower.keys() & upper.keys())
        if shared and min(b, d) - c > _LARGEST_OVERLAP_SHARE * min(b - a, d - c):
            both = (lower[shared[0]], upper[shared[0]])
            raise _more_than_one(shared[0], above, names, files, both)
    return [members for _, members in groups]


def _same_place(one: Grid, other: Grid) -> bool:
    """Whether two grids cover the same box, whatever order their voxels are stored in."""
    corners = one.corners_mm()[:, None] - other.corners_mm()[None]
    return bool(np.linalg.norm(corners, axis=2).min(axis=1).max() <= _SAME_PLACE_MM)


def _more_than_one(
    quantity: Quantity,
    grid: Grid,
    names: Sequence[str],
    files: Sequence[str],
    both: tuple[int, int],
) -> InputError:
    low, high = extent_mm(grid)
    return InputError(
        f"More than one image shows {quantity} in the same place",
        expected="one image per contrast and station",
        found=f"{' and '.join(names[k] for k in both)}, the latter from {low:.0f} to {high:.0f} mm",
        action="move the files of one of them out of the subject's folder",
        private=" and ".join(files[k] for k in both if files[k]),
    )


def join_stations(stations: Sequence[Station], *, largest_million_voxels: float) -> Joined:
    """Blend stations on one grid.

    In an overlap the weight of a station falls linearly to 0 at its end. All contrasts of a
    station get the same weight and the same gain, so the blended fat fraction lies between
    those of the stations. Gains make the signal of neighbours equal where both see tissue;
    where they nowhere do, that of the levels that face each other, or of all their tissue.

    Args:
        stations: in any order; each with the same quantities.
        largest_million_voxels: limit of the joined grid.

    Raises:
        InputError: stations too far apart to be of one body, or too large together.
    """
    ordered = sorted(stations, key=lambda station: extent_mm(station.grid))
    grid = _joined_grid([station.grid for station in ordered], largest_million_voxels)
    placed = [_place(station, grid) for station in ordered]
    pairs = list(pairwise(placed))
    told = [_gain_step(lower, upper) for lower, upper in pairs]
    guessed = [
        _guessed_step(lower, upper, grid.voxel_sizes_mm[2]) if step is None else None
        for step, (lower, upper) in zip(told, pairs, strict=True)
    ]
    steps = [
        step if step is not None else guess or 0.0
        for step, guess in zip(told, guessed, strict=True)
    ]
    gains = np.concatenate([[0.0], np.cumsum(steps)])
    gains = np.exp(gains - gains.mean())
    images: dict[Quantity, Singles] = {}
    for quantity in ordered[0].images:
        total = np.zeros(grid.shape, dtype=np.float32)
        weights = np.zeros(grid.shape, dtype=np.float32)
        for part, gain in zip(placed, gains, strict=True):
            factor = 1.0 if quantity is Quantity.FAT_FRACTION else float(gain)
            total[part.box] += part.weight * part.images[quantity] * np.float32(factor)
            weights[part.box] += part.weight
        images[quantity] = np.divide(total, weights, out=total, where=weights > 0)
    seams = [
        replace(
            _seam(lower, upper, below.grid, above.grid),
            guessed_gain=None if guess is None else float(np.exp(guess)),
        )
        for (lower, upper), below, above, guess in zip(
            pairs, ordered, ordered[1:], guessed, strict=False
        )
    ]
    return Joined(grid, images, tuple(seams))


@dataclass(frozen=True, eq=False)
class _Placed:
    """A station on its box of the joined grid."""

    box: tuple[slice, slice, slice]
    images: Mapping[Quantity, Singles]
    weight: Singles


def _joined_grid(grids: Sequence[Grid], largest_million_voxels: float) -> Grid:
    """The lattice of the lowest station, extended over all of them."""
    first = grids[0]
    corners = np.concatenate([first.world_to_index(grid.corners_mm()) for grid in grids])
    lower = np.floor(corners.min(axis=0) + _RIM).astype(int)
    upper = np.ceil(corners.max(axis=0) - _RIM).astype(int)
    shape = upper - lower + 1
    low = min(extent_mm(grid)[0] for grid in grids)
    high = max(extent_mm(grid)[1] for grid in grids)
    if high - low > _LONGEST_BODY_MM:
        raise InputError(
            "The stations lie too far apart to be of one body",
            expected=f"at most {_LONGEST_BODY_MM:.0f} mm from end to end",
            found=f"{high - low:.0f} mm",
            action="give the stations of one examination",
        )
    if np.prod(shape.astype(float)) > largest_million_voxels * 1e6:
        raise InputError(
            "The stations are of a size, joined, that cannot be right",
            expected=f"at most {largest_million_voxels:g} million voxels",
            found=f"{' x '.join(map(str, shape))} voxels, {high - low:.0f} mm from end to end",
            action="give the stations of one examination, or raise "
            "canonicalise.largest_joined_million_voxels",
        )
    affine = first.affine.copy()
    affine[:3, 3] = first.index_to_world(lower)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, first.space)


def _place(station: Station, grid: Grid) -> _Placed:
    to_own = np.linalg.inv(station.grid.affine) @ grid.affine
    half_voxel = np.array(list(np.ndindex(2, 2, 2))) - 0.5
    shape = np.array(station.grid.shape)
    outer = np.array([np.where(h < 0, -0.5, shape - 0.5) for h in half_voxel])
    corners = grid.world_to_index(station.grid.index_to_world(outer))
    lower = np.maximum(np.ceil(corners.min(axis=0) - 1e-3), 0).astype(int)
    upper = np.minimum(np.floor(corners.max(axis=0) + 1e-3), np.array(grid.shape) - 1).astype(int)
    size = upper - lower + 1
    linear, offset = to_own[:3, :3], to_own[:3, :3] @ lower + to_own[:3, 3]
    box = (
        slice(lower[0], upper[0] + 1),
        slice(lower[1], upper[1] + 1),
        slice(lower[2], upper[2] + 1),
    )
    drift = np.abs((linear - np.eye(3)) @ size).max() + np.abs(offset - np.rint(offset)).max()
    if drift < _ON_LATTICE:
        start = np.rint(offset).astype(int)
        own = tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
        images = {q: np.asarray(data[own]) for q, data in station.images.items()}
    else:
        images = {
            q: ndimage.affine_transform(
                data, linear, offset, tuple(size), order=1, mode="nearest", output=np.float32
            )
            for q, data in station.images.items()
        }
    return _Placed(box, images, _weight(station.grid, linear, offset, size))


def _weight(grid: Grid, linear: FloatArray, offset: FloatArray, size: FloatArray) -> Singles:
    """Distance to the nearer end of a station along its third axis, in mm; 0 outside it."""
    index = [
        sum(linear[axis, n] * part for n, part in enumerate(np.ogrid[tuple(map(slice, size))]))
        + offset[axis]
        for axis in range(3)
    ]
    inside = np.ones(tuple(size), dtype=bool)
    for axis in range(3):
        inside &= (index[axis] > -0.5 - 1e-3) & (index[axis] < grid.shape[axis] - 0.5 + 1e-3)
    ends = np.minimum(index[2] + 0.5, grid.shape[2] - 0.5 - index[2]) * grid.voxel_sizes_mm[2]
    # Never quite 0: an outermost voxel that no other station shows still counts.
    return np.where(inside, np.maximum(ends, 1e-3), 0.0).astype(np.float32)


def _shared(
    lower: _Placed, upper: _Placed, axes: int = 3
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """The box that both show, in the arrays of each; of the first axes alone: at any level."""
    boxes: tuple[list[slice], list[slice]] = ([], [])
    for a, b in zip(lower.box[:axes], upper.box[:axes], strict=True):
        start, stop = max(a.start, b.start), min(a.stop, b.stop)
        if start >= stop:
            return None
        boxes[0].append(slice(start - a.start, stop - a.start))
        boxes[1].append(slice(start - b.start, stop - b.start))
    return tuple(boxes[0]), tuple(boxes[1])


def _signal(part: _Placed, box: tuple[slice, ...]) -> Singles:
    shown = [data[box] for data in signals(part.images).values()]
    if not shown:
        return np.ones_like(part.weight[box])
    return np.asarray(np.sum(shown, axis=0, dtype=np.float32))


def _tissue(signal: Singles) -> NDArray[np.bool_]:
    return np.asarray(signal > _TISSUE_SHARE * np.percentile(signal, 95))


def _gain_step(lower: _Placed, upper: _Placed) -> float | None:
    """Log of the factor that brings the upper station to the signal of the lower one, of what both
    show; None where that is too little."""
    boxes = _shared(lower, upper)
    if boxes is None:
        return None
    return _log_ratio(_signal(lower, boxes[0]), _signal(upper, boxes[1]))


def _log_ratio(one: Singles, other: Singles) -> float | None:
    """Median log of a ratio of signals where both show tissue; None where that is too little."""
    both = _tissue(one) & _tissue(other) & (one > 0) & (other > 0)
    if np.count_nonzero(both) < _FEWEST_VOXELS:
        return None
    return float(np.median(np.log(one[both]) - np.log(other[both])))


def _guessed_step(lower: _Placed, upper: _Placed, level_mm: float) -> float | None:
    """The same of stations that show no tissue in common; None where they have no signal.

    Of the last level of one and the first of the other where these are near each other; else of
    all tissue of each, which is as much as another part of the body says.
    """
    if lower.images.keys() <= {Quantity.FAT_FRACTION}:
        return None
    parts = [
        np.where(part.weight > 0, _signal(part, (slice(None),) * 3), np.float32(0.0))
        for part in (lower, upper)
    ]
    shown = [np.flatnonzero((part > 0).any(axis=(0, 1))) for part in parts]
    if not all(levels.size for levels in shown):
        return None
    ends = int(shown[0][-1]), int(shown[1][0])
    between = ends[1] + upper.box[2].start - ends[0] - lower.box[2].start - 1
    boxes = _shared(lower, upper, axes=2)
    if between * level_mm <= _NEAR_MM and boxes is not None:
        facing = [part[box][:, :, k] for part, box, k in zip(parts, boxes, ends, strict=True)]
        step = _log_ratio(facing[0], facing[1])
        if step is not None:
            return step
    # The share of fat, which is bright, differs between parts of a leg: a median could jump from
    # one tissue to the other.
    typical = [float(np.log(part[_tissue(part) & (part > 0)]).mean()) for part in parts]
    return typical[0] - typical[1]


def _seam(lower: _Placed, upper: _Placed, below: Grid, above: Grid) -> Seam:
    top, bottom = extent_mm(below)[1], extent_mm(above)[0]
    boxes = _shared(lower, upper)
    if boxes is None:
        # Neighbours that touch leave no gap.
        gap = bottom - top > below.voxel_sizes_mm[2] / 2
        return Seam(min(top, bottom), max(top, bottom), gap)
    a, b = _signal(lower, boxes[0]), _signal(upper, boxes[1])
    seen = [_tissue(a), _tissue(b)]
    both = seen[0] & seen[1]
    total = int(seen[0].sum() + seen[1].sum())
    if np.count_nonzero(both) < _FEWEST_VOXELS:
        return Seam(bottom, top, False)
    step = None
    if {Quantity.WATER, Quantity.FAT} <= lower.images.keys():
        fractions = [
            part.images[Quantity.FAT][box][both]
            / (part.images[Quantity.FAT][box][both] + part.images[Quantity.WATER][box][both])
            for part, box in zip((lower, upper), boxes, strict=True)
        ]
        step = float(np.median(fractions[1] - fractions[0]))
    return Seam(bottom, top, False, step, 2.0 * float(both.sum()) / total)
