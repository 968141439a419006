"""Fat/water swaps: water and fat exchanged in a leg, seen from where fat must lie.

Under the skin of a leg lies fat, inside it muscle. Where the rim is water and the inside fat,
reconstruction exchanged the two. Where a stretch begins or ends, a level resembles the next one
with its water and fat exchanged and not as it stands: so even a single level is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import Side
from pipeline.core.grid import FloatArray, Grid
from pipeline.imaging.sampling import centred_lattice, odd_step, otsu

Singles = NDArray[np.float32]

#: The search works on about these voxels, mm.
_IN_PLANE_MM, _LEVEL_MM = 2.0, 6.0
#: Below the skin, where a leg's fat lies, and deep inside it, mm from the air.
_RIM_MM, _DEEP_MM = (1.5, 7.0), 15.0
#: A level is exchanged where its rim has less fat than this, its inside more than this.
_RIM_BELOW, _DEEP_ABOVE = 0.40, 0.50
#: ... and the right way round where the rim has this much more fat than the inside.
_RIGHT_WAY = 0.15
#: Exchanged levels over less than this are no swap: feet and kneecaps look alike.
_SHORTEST_MM = 60.0
#: Two levels next to each other differ at the edge of a swap by this much in their fat fraction,
#: and by less than this share of it once one of them is exchanged.
_EDGE_ABOVE, _EDGE_SHARE = 0.30, 0.5
#: A leg with this share of its judged levels exchanged is exchanged as a whole.
_WHOLE_SHARE = 0.6
#: Labels tell the inside of a leg apart: levels exchanged over this much, and at least so many, are
#: doubted where they cannot be undone.
_SHORTEST_DOUBTED_MM, _FEWEST_DOUBTED = 18.0, 2
#: Fat around labelled muscles is looked for this far from them, mm; nearer lies fascia.
_AROUND_MM = (1.5, 9.0)
#: Smaller insides than this say nothing, mm^2.
_SMALLEST_AREA_MM2 = 300.0
#: Voxels above this share of the typical signal of tissue are body.
_BODY_SHARE = 0.25
#: Parts of a level smaller than this share of it are no leg.
_SMALLEST_PART = 0.15


@dataclass(frozen=True, eq=False)
class Swap:
    """A leg, or some levels of it, with water and fat exchanged.

    Attributes:
        side: the leg; the half of the image that lies on this side.
        first, last: levels (third axis) lower <= k < upper.
        low_mm, high_mm: the same as z.
        middle: column (first axis) of the line between the legs, for every level of the image.
    """

    side: Side
    first: int
    last: int
    low_mm: float
    high_mm: float
    middle: FloatArray


def find_swaps(water: Singles, fat: Singles, grid: Grid) -> list[Swap]:
    """Legs in which water and fat are exchanged.

    Args:
        water, fat: images of one station, canonical storage order.
        grid: their grid.
    """
    sizes = grid.voxel_sizes_mm
    starts, steps = _coarse(grid)
    every = tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))
    small_water, small_fat = water[every], fat[every]
    signal = small_water + small_fat
    if signal.size == 0:
        # Fewer voxels along an axis than the search steps over.
        return []
    threshold = otsu(signal.ravel())
    if threshold is None:
        return []
    least = _BODY_SHARE * float(np.median(signal[signal > threshold]))
    body = signal > least
    fraction = np.divide(small_fat, signal, out=np.zeros_like(signal), where=signal > 0)
    in_plane = (sizes[0] * steps[0], sizes[1] * steps[1])
    levels = body.shape[2]
    middle = np.full(levels, np.nan)
    verdict = {side: np.zeros(levels, dtype=int) for side in Side}
    for k in range(levels):
        filled = ndimage.binary_fill_holes(ndimage.binary_opening(body[:, :, k]))
        if not filled.any():
            continue
        middle[k] = _middle(filled)
        depth = ndimage.distance_transform_edt(np.pad(filled, 1), sampling=in_plane)[1:-1, 1:-1]
        for side in Side:
            mine = _columns_of(side, np.arange(filled.shape[0]), middle[[k]], grid)
            verdict[side][k] = _judge(fraction[:, :, k], depth, mine, in_plane)
    known = np.isfinite(middle)
    if not known.any():
        return []
    at = starts[2] + np.arange(levels) * steps[2]
    smooth = ndimage.median_filter(middle[known], 5, mode="nearest")
    line = np.interp(np.arange(grid.shape[2]), at[known], starts[0] + smooth * steps[0])
    columns = np.arange(grid.shape[0])[every[0]]
    fewest = _SMALLEST_AREA_MM2 / (in_plane[0] * in_plane[1])
    found = []
    for side in Side:
        mine = _columns_of(side, columns, line, grid)
        flipped = _flipped(_levels(water[every[:2]], fat[every[:2]], mine, least), fewest)
        exchanged = _exchanged(verdict[side], flipped, steps[2], sizes[2])
        for low, high in _stretches(exchanged):
            found.append(Swap(side, low, high, *_between(grid, low, high), line))
    return found


def _levels(
    water: Singles, fat: Singles, mine: NDArray[np.bool_], least: float
) -> Iterator[tuple[Singles, NDArray[np.bool_]]]:
    """Fat fraction and body of one side, level by level.

    Args:
        water, fat: every level, some voxels of it.
        mine: columns of this side (first axis) by level.
        least: signal of the body.
    """
    for k in range(water.shape[2]):
        signal = water[:, :, k] + fat[:, :, k]
        body = signal > least
        fraction = np.divide(fat[:, :, k], signal, out=np.zeros_like(signal), where=body)
        yield fraction, body & mine[:, k, None]


def _flipped(
    levels: Iterable[tuple[Singles, NDArray[np.bool_]]], fewest: float
) -> NDArray[np.bool_]:
    """Levels that are the other way round than the first one, told from one to the next.

    Args:
        levels: fat fraction, and where it is known, of one leg.
        fewest: voxels that a level must show to be told.
    """
    turned: list[bool] = []
    before: tuple[Singles, NDArray[np.bool_]] | None = None
    for fraction, known in levels:
        turned.append(bool(turned) and turned[-1])
        if np.count_nonzero(known) < fewest:
            continue
        if before is not None:
            both = known & before[1]
            if np.count_nonzero(both) >= fewest:
                turned[-1] ^= _is_edge(fraction[both], before[0][both])
        before = fraction, known
    return np.array(turned, dtype=np.bool_)


def _is_edge(fractions: Singles, of_neighbour: Singles) -> bool:
    """Whether one of two levels is exchanged against the other, from their fat fractions."""
    as_is = float(np.mean(np.abs(fractions - of_neighbour)))
    exchanged = float(np.mean(np.abs(1.0 - fractions - of_neighbour)))
    return as_is > _EDGE_ABOVE and exchanged < _EDGE_SHARE * as_is


def exchange(
    water: Singles, fat: Singles, grid: Grid, swaps: Sequence[Swap]
) -> tuple[Singles, Singles]:
    """The two images with the swaps undone; the given arrays stay as they are."""
    water, fat = water.copy(), fat.copy()
    for swap in swaps:
        line = swap.middle[swap.first : swap.last]
        mine = _columns_of(swap.side, np.arange(grid.shape[0]), line, grid)[:, None, :]
        levels = np.s_[:, :, swap.first : swap.last]
        before = water[levels].copy()
        water[levels] = np.where(mine, fat[levels], before)
        fat[levels] = np.where(mine, before, fat[levels])
    return water, fat


def _coarse(grid: Grid) -> tuple[list[int], list[int]]:
    """First index and step along each axis of the voxels the search looks at.

    In the plane they are the same voxels whichever way round the image is stored.
    """
    wanted = (_IN_PLANE_MM, _IN_PLANE_MM, _LEVEL_MM)
    steps = [max(1, round(w / s)) for w, s in zip(wanted, grid.voxel_sizes_mm, strict=True)]
    steps[:2] = [odd_step(step) for step in steps[:2]]
    starts = [centred_lattice(grid.shape[axis], steps[axis])[0] for axis in (0, 1)]
    return [*starts, steps[2] // 2], steps


def _columns_of(
    side: Side, columns: NDArray[np.integer], middle: FloatArray, grid: Grid
) -> NDArray[np.bool_]:
    """Which columns (n,) lie on a side of the middle (m,) of each level, (n, m).

    A column on the line itself is nobody's: giving it to one side would prefer that side.
    """
    right_is_beyond = grid.affine[0, 0] > 0
    beyond = columns[:, None] > middle[None, :]
    before = columns[:, None] < middle[None, :]
    return beyond if (side is Side.RIGHT) == right_is_beyond else before


def _middle(body: NDArray[np.bool_]) -> float:
    """Column between the two largest parts of a level, or through the middle of a single one."""
    parts, count = ndimage.label(body)
    areas = np.bincount(parts.ravel())[1:]
    large = np.flatnonzero(areas > _SMALLEST_PART * areas.sum()) + 1
    if count > 1 and len(large) >= 2:
        columns = [np.flatnonzero((parts == part).any(axis=1)) for part in large]
        columns.sort(key=lambda c: float(c.mean()))
        return float(columns[0][-1] + columns[-1][0]) / 2.0
    return float(np.median(np.nonzero(body)[0]))


def _judge(
    fraction: Singles, depth: FloatArray, mine: NDArray[np.bool_], in_plane: tuple[float, float]
) -> int:
    """1: rim of water around fat; -1: rim of fat around water; 0: neither."""
    start = max(_RIM_MM[0], 1.01 * max(in_plane))
    rim = mine & (depth >= start) & (depth <= start + _RIM_MM[1] - _RIM_MM[0])
    deep = mine & (depth > _DEEP_MM)
    if np.count_nonzero(deep) * in_plane[0] * in_plane[1] < _SMALLEST_AREA_MM2 or not rim.any():
        return 0
    return _verdict(float(np.median(fraction[rim])), float(np.median(fraction[deep])))


def _verdict(at_rim: float, inside: float) -> int:
    if at_rim < _RIM_BELOW and inside > _DEEP_ABOVE:
        return 1
    return -1 if at_rim > inside + _RIGHT_WAY else 0


def _exchanged(
    verdict: NDArray[np.int_],
    flipped: NDArray[np.bool_],
    step: int,
    level_mm: float,
    *,
    shortest_mm: float = _SHORTEST_MM,
    fewest: int = 1,
) -> NDArray[np.bool_]:
    """Levels that are exchanged, from what some of them look like and where they turn over.

    Args:
        verdict: of every step-th level, from the middle of a step on: see _verdict.
        flipped: of every level: the other way round than the first one.
        step: levels per verdict.
        level_mm: distance of levels.
        shortest_mm: levels that look exchanged over less than this are no swap by themselves.
        fewest: so many must look exchanged.
    """
    turned = np.where(flipped[step // 2 :: step], -verdict, verdict)
    exchanged = np.zeros(len(flipped), dtype=np.bool_)
    for first, last in _runs(turned, step * level_mm, shortest_mm):
        if np.count_nonzero(turned[first:last] > 0) >= fewest:
            end = len(flipped) if last == len(verdict) else last * step
            exchanged[first * step : end] = True
    return exchanged ^ flipped


def _stretches(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last + 1 of the levels that are set, stretch by stretch."""
    parts, count = ndimage.label(flags)
    members = [np.flatnonzero(parts == part) for part in range(1, count + 1)]
    return [(int(some[0]), int(some[-1]) + 1) for some in members]


def _between(grid: Grid, first: int, last: int) -> tuple[float, float]:
    """Lowest and highest z of the levels first <= k < last, mm."""
    z = [float(grid.index_to_world([0, 0, k])[2]) for k in (first, last - 1)]
    return min(z), max(z)


def doubted_swaps(
    image: Singles,
    muscle: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    grid: Grid,
    *,
    of_water: bool,
) -> list[tuple[float, float]]:
    """Levels of a leg whose labelled muscles look like fat, and what lies around them like water.

    Args:
        image: fat fraction (0 to 1), or a water image alone; NaN and 0: nothing was measured.
        muscle: voxels of muscle.
        outside: voxels without any label.
        grid: their grid.
        of_water: whether it is a water image. What is brighter there holds more water.

    Returns:
        lowest and highest z of each stretch, mm.
    """
    sizes = grid.voxel_sizes_mm
    starts, steps = _coarse(grid)
    every = tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))
    all_muscle = muscle
    values, muscle, outside = image[every], muscle[every], outside[every]
    known = np.isfinite(values) & (values != 0)
    in_plane = (sizes[0] * steps[0], sizes[1] * steps[1])
    fewest = _SMALLEST_AREA_MM2 / (in_plane[0] * in_plane[1])
    start = max(_AROUND_MM[0], 1.01 * max(in_plane))
    verdict = np.zeros(values.shape[2], dtype=int)
    for k in np.flatnonzero(muscle.any(axis=(0, 1))):
        level = np.s_[:, :, k]
        away = ndimage.distance_transform_edt(~muscle[level], sampling=in_plane)
        around = known[level] & outside[level] & (away >= start)
        around &= away <= start + _AROUND_MM[1] - _AROUND_MM[0]
        inside = known[level] & muscle[level]
        if inside.sum() < fewest or not around.any():
            continue
        rim, deep = (float(np.median(values[level][part])) for part in (around, inside))
        if of_water:
            rim, deep = deep / (rim + deep), rim / (rim + deep)
        verdict[k] = _verdict(rim, deep)
    flipped = np.zeros(grid.shape[2], dtype=np.bool_)
    if not of_water:
        flipped = _flipped(_muscle_levels(image[every[:2]], all_muscle[every[:2]]), fewest)
    exchanged = _exchanged(
        verdict,
        flipped,
        steps[2],
        sizes[2],
        shortest_mm=_SHORTEST_DOUBTED_MM,
        fewest=_FEWEST_DOUBTED,
    )
    return [_between(grid, low, high) for low, high in _stretches(exchanged)]


def _muscle_levels(
    fraction: Singles, muscle: NDArray[np.bool_]
) -> Iterator[tuple[Singles, NDArray[np.bool_]]]:
    """Fat fraction and where muscle shows one, level by level."""
    for k in range(fraction.shape[2]):
        level = fraction[:, :, k]
        yield level, muscle[:, :, k] & np.isfinite(level) & (level != 0)


def _runs(
    verdict: NDArray[np.int_], level_mm: float, shortest_mm: float = _SHORTEST_MM
) -> list[tuple[int, int]]:
    """Levels exchanged, as first and last + 1; judged levels decide for those between them."""
    judged = np.flatnonzero(verdict)
    if not judged.size:
        return []
    exchanged = verdict[judged] > 0
    if exchanged.mean() >= _WHOLE_SHARE and np.count_nonzero(exchanged) * level_mm >= min(
        shortest_mm, len(verdict) * level_mm / 2
    ):
        return [(0, len(verdict))]
    parts, count = ndimage.label(exchanged)
    runs = []
    for part in range(1, count + 1):
        members = judged[parts == part]
        first, last = int(members[0]), int(members[-1]) + 1
        if (last - first) * level_mm >= shortest_mm:
            runs.append((first, last))
    return runs
