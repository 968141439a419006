"""The surface between the legs: from below the crotch up through the pelvis.

Not a plane at the array's middle: at each level a seam x = f(y) runs from back to front through
as little body, and as little muscle, as it can. Which way it tends is given first by a midline
x = a + b z: thin between the legs, and an axis of mirror symmetry of the body.

Everything here gives mirrored results for mirrored input, exactly: ties are broken by solving
the mirrored problem too and taking the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: How far the seam may leave the midline, mm, and what a step aside costs per coarse voxel.
_SEAM_REACH_MM = 32.0
_STEP_COST = 0.15
#: Symmetry weighs more than how thin the body is: inside the pelvis there is no thin place.
_SYMMETRY_WEIGHT = 2.0
_LARGEST_TILT_DEG = 12.0
#: Of a midline where the array has ended: as much as the dearest column.
_OUTSIDE_COST = 3.0
_TILTS = 24
#: Body that is no muscle still costs this share of what muscle does.
_BODY_COST = 0.2


@dataclass(frozen=True)
class Lattice:
    """A coarse lattice over an array, placed symmetrically along the first axis.

    Attributes:
        x: fractional array indices of its columns along the first axis, symmetric about the
            middle of the array.
        step: array voxels between its points along the three axes.
    """

    x: Floats
    step: tuple[int, int, int]

    def points_below(self, axis: int, size: int, count: int) -> NDArray[np.intp]:
        """Of each voxel along axis 1 or 2 (size,), the lattice point at it or below, of count."""
        return np.minimum(np.arange(size) // self.step[axis], count - 1)


def lattice_for(
    shape: tuple[int, int, int], voxel_mm: tuple[float, float, float], spacing_mm: float
) -> Lattice:
    """A lattice of about spacing_mm; never finer than the array."""
    step = tuple(max(1, int(spacing_mm / size)) for size in voxel_mm)
    count = (shape[0] - 1) // step[0] + 1
    x = (shape[0] - 1) / 2.0 + (np.arange(count) - (count - 1) / 2.0) * step[0]
    return Lattice(np.asarray(x, dtype=np.float64), (step[0], step[1], step[2]))


def coarse(array: NDArray[np.floating], lattice: Lattice) -> Floats:
    """Values of an array on a lattice: linear along the first axis, every n-th elsewhere."""
    thin = array[:, :: lattice.step[1], :: lattice.step[2]]
    low = np.floor(lattice.x).astype(int)
    high = np.ceil(lattice.x).astype(int)
    return np.asarray(0.5 * (thin[low].astype(np.float64) + thin[high].astype(np.float64)))


def mask_at_full_size(mask: Flags, lattice: Lattice, shape: tuple[int, int, int]) -> Flags:
    """A mask on a lattice at the full size of the array: along the first axis each voxel has the
    value of the nearest column; one that lies between two belongs to the mask where either does,
    so that a mirrored mask comes out mirrored. Elsewhere the point below counts."""
    place = (np.arange(shape[0]) - lattice.x[0]) / lattice.step[0]
    one, other = (
        np.clip(nearest, 0, mask.shape[0] - 1).astype(int)
        for nearest in (np.ceil(place - 0.5), np.floor(place + 0.5))
    )
    y, z = (lattice.points_below(axis, shape[axis], mask.shape[axis]) for axis in (1, 2))
    return np.asarray(mask[np.ix_(one, y, z)] | mask[np.ix_(other, y, z)])


def midline(body: Flags, column_mm: float, level_mm: float) -> Floats:
    """Lattice column of the midline at each level, shape (nz,).

    At each level a column is cheap where it holds little body and where the body is symmetric
    about it. The midline is the straight line, tilted by up to 12 degrees, with the least cost
    over all levels: a level that shows one leg only cannot pull it into that leg.

    Args:
        body: body mask on the lattice.
        column_mm, level_mm: distances of its columns and levels.
    """
    there = _line(_midline_cost(body), column_mm, level_mm)
    back = body.shape[0] - 1 - _line(_midline_cost(body[::-1]), column_mm, level_mm)
    return np.asarray((there + back) / 2.0, dtype=np.float64)


def _line(cost: Floats, column_mm: float, level_mm: float) -> Floats:
    count, levels = cost.shape
    heights = np.arange(levels) - (levels - 1) / 2.0
    steepest = np.tan(np.deg2rad(_LARGEST_TILT_DEG)) * level_mm / column_mm
    places = np.arange(0.0, count - 0.5, 0.5)
    best, line = np.inf, np.full(levels, (count - 1) / 2.0)
    for slope in np.linspace(-steepest, steepest, 2 * _TILTS + 1):
        columns = places[:, None] + slope * heights
        total = _cost_at(cost, columns).sum(axis=1)
        k = int(total.argmin())
        if total[k] < best:
            best, line = float(total[k]), columns[k]
    return np.asarray(np.clip(line, 0.0, count - 1.0), dtype=np.float64)


def _cost_at(cost: Floats, columns: Floats) -> Floats:
    """Cost (columns, levels) between columns, at some places of each level (places, levels)."""
    last = len(cost) - 1
    lower = np.clip(np.floor(columns).astype(np.intp), 0, max(last - 1, 0))
    share = columns - lower
    level = np.arange(cost.shape[1])
    between = (1.0 - share) * cost[lower, level] + share * cost[np.minimum(lower + 1, last), level]
    return np.where((columns < 0.0) | (columns > last), _OUTSIDE_COST, between)


def _midline_cost(body: Flags) -> Floats:
    """Cost of each column at each level, shape (nx, nz)."""
    columns = body.sum(axis=1).astype(np.float64)
    most = np.maximum(columns.max(axis=0), 1.0)
    # Self-convolution along x: how much of the body finds its mirror image about a column.
    values = body.astype(np.float64)
    doubled = scipy.signal.fftconvolve(values, values, mode="full", axes=0).sum(axis=1)
    symmetry = np.maximum(np.round(doubled[::2], 6), 0.0)
    best = np.maximum(symmetry.max(axis=0), 1e-9)
    empty = columns.sum(axis=0) == 0
    cost = columns / most + _SYMMETRY_WEIGHT * (1.0 - symmetry / best)
    cost[:, empty] = 0.0
    return np.asarray(cost)


def _paths(cost: Floats) -> NDArray[np.int64]:
    """The cheapest path through each slice, at most two columns aside per step.

    Args:
        cost: of a column, (columns, slices, steps).

    Returns:
        The column at each step (slices, steps).
    """
    count, slices, steps = cost.shape
    moves = np.array([0, -1, 1, -2, 2])
    total = cost[:, :, 0].copy()
    moved = np.zeros(cost.shape, dtype=np.int8)
    options = np.full((len(moves), count, slices), np.inf)
    for step in range(1, steps):
        for option, move in zip(options, moves, strict=True):
            to, source = (
                slice(max(0, -move), count - max(0, move)),
                slice(max(0, move), count + min(0, move)),
            )
            option[to] = total[source] + _STEP_COST * abs(move)
        choice = options.argmin(axis=0)
        moved[:, :, step] = moves[choice]
        total = np.take_along_axis(options, choice[None], axis=0)[0] + cost[:, :, step]
    path = np.zeros((slices, steps), dtype=np.int64)
    path[:, -1] = total.argmin(axis=0)
    for step in range(steps - 1, 0, -1):
        at = path[:, step]
        path[:, step - 1] = at + moved[at, np.arange(slices), step]
    return path


def seam(body: Flags, muscle: Floats, middle: Floats, column_mm: float) -> Floats:
    """Lattice column of the surface between the legs, shape (ny, nz).

    Args:
        body: body mask on the lattice.
        muscle: 0 to 1, how much each voxel looks like muscle (1 where nothing is known).
        middle: midline, lattice column by level.
        column_mm: distance of the lattice's columns.
    """
    reach = max(2, round(_SEAM_REACH_MM / column_mm))
    there = _seam(body, muscle, middle, reach)
    last = body.shape[0] - 1
    back = last - _seam(body[::-1], muscle[::-1], last - middle, reach)
    surface = (there + back) / 2.0
    return np.asarray(ndimage.gaussian_filter(surface, (1.0, 1.0), mode="nearest"))


def _seam(body: Flags, muscle: Floats, middle: Floats, reach: int) -> Floats:
    offsets = np.arange(-reach, reach + 1)
    columns = np.floor(middle).astype(int) + offsets[:, None]
    columns = np.clip(columns, 0, body.shape[0] - 1)
    away = np.abs(columns - middle) / reach
    levels = np.arange(body.shape[2])
    # (column, level, row): the seam of a level runs through its rows.
    here = body.transpose(0, 2, 1)[columns, levels]
    cost = here * (_BODY_COST + muscle.transpose(0, 2, 1)[columns, levels])
    cost += 0.05 * away[:, :, None]
    return columns[_paths(cost), levels[:, None]].T.astype(np.float64)


def on_both_sides(body: Flags, surface: Floats) -> Flags:
    """Levels (nz,) with body on both sides of the surface. Arguments as of `between_shares`."""
    columns = np.arange(body.shape[0], dtype=np.float64)[:, None, None]
    surface = np.broadcast_to(surface, body.shape[1:])
    right, left = (
        (body & side).any(axis=(0, 1)) for side in (columns > surface, columns < surface)
    )
    return np.asarray(right & left)


def between_shares(body: Flags, surface: Floats) -> Floats:
    """How deep the valley between the legs is at each level, shape (nz,): body at the surface over
    the largest depth of body on the thinner side. 0: apart; near 1: no valley, or no body on one
    side.

    Args:
        body: body mask on the lattice (nx, ny, nz).
        surface: lattice column between the legs, (ny, nz) or, a midline, (nz,).
    """
    surface = np.broadcast_to(surface, body.shape[1:])
    columns = np.arange(body.shape[0], dtype=np.float64)[:, None, None]
    sides = (columns > surface, columns < surface)
    thinner = np.min([(body & side).sum(axis=1).max(axis=0) for side in sides], axis=0)
    # The thinner of both columns beside it: mirrored input gives the same.
    places = [
        np.clip(edge, 0, body.shape[0] - 1).astype(np.intp)[None]
        for edge in (np.floor(surface), np.ceil(surface))
    ]
    at = np.min([np.take_along_axis(body, at, axis=0)[0].sum(axis=0) for at in places], axis=0)
    return np.where(thinner > 0, np.minimum(1.0, at / np.maximum(thinner, 1)), 1.0)
