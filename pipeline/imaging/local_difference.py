"""Where along a muscle the sides differ: areas at matched levels, and what they add up to.

Registration says which point of one leg is which of the other. The mean of the distances of both
down their own limb is the matched level: the same number for corresponding points, and nobody's
reference. Each leg is then measured on its own: its cross-section at a matched level is the lean
volume between two levels over the length of its own limb between them. So areas stand
perpendicular to each leg's own axis, lengths are each leg's own, and volume = area x length adds
up to the muscle exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import Side
from pipeline.core.match import LegMatch
from pipeline.core.results import (
    Extents,
    LargestDifference,
    LocalDifference,
    MatchedLevel,
    Of,
    ThirdDifference,
)
from pipeline.core.scan import LimbAxis, SegmentedLegs
from pipeline.core.transform import interpolate, on_lattice
from pipeline.imaging.asymmetry import Z95, index_from_log_ratio
from pipeline.imaging.extent import End
from pipeline.imaging.limb_axis import axis_mm, position_at, position_scale
from pipeline.imaging.surfaces import window_of
from pipeline.imaging.tissue import amount_below, slab_weights

Floats = NDArray[np.float64]

#: A matched level passes at least this much of a leg for each mm of its own: maps stay one-to-one.
_LEAST_SLOPE = 0.2
#: Length over which the cross-section at an end of a third is taken.
_END_MM = 10.0
#: What lies beyond the ends, as a share of the muscle: single voxels do not move the thirds.
_TAIL_SHARE = 0.005


@dataclass(frozen=True, eq=False)
class Placed:
    """Voxels of one structure of one leg, placed along both limbs.

    Attributes:
        own_mm: distance down the leg's own axis (n,).
        matched_mm: matched level (n,): mean of own_mm and of the partner's in the other leg.
        shared: share of each voxel that both legs show (n,), 0 to 1.
        at_lower, at_upper: change of that share (n,), per mm that the lower (upper) ends of what
            the other leg shows would lie further out: not 0 where such an end cuts.
    """

    own_mm: Floats
    matched_mm: Floats
    shared: Floats
    at_lower: Floats
    at_upper: Floats


class Placement:
    """Where the points of one leg lie along both limbs."""

    def __init__(self, side: Side, legs: SegmentedLegs, match: LegMatch) -> None:
        """Args:
        side: whose points.
        legs: both legs.
        match: correspondence of the legs.
        """
        leg, other = legs[side], legs[side.other]
        window = window_of(other)
        self._leg, self._parts = leg, [] if window is None else window.parts()
        partner, self._lattice = on_lattice(match.out_of(side), leg.leg.grid)
        level = other.leg.grid.world_to_index(partner)[..., 2]
        self._field = np.stack([axis_mm(other.axis, partner), level], axis=-1)
        self._other_mm = other.leg.grid.voxel_sizes_mm[2]
        self._extent = leg.leg.grid.voxel_sizes_mm[2] / self._other_mm

    def of(self, points: Floats) -> Placed:
        """Place voxel centres (n, 3), RAS mm in the leg's space."""
        own = axis_mm(self._leg.axis, points)
        there, level = interpolate(self._field, self._lattice, points).T
        own_level = np.rint(self._leg.leg.grid.world_to_index(points)[:, 2]).astype(np.intp)
        # Labels reach a little into a gap that nobody scanned.
        seen = self._leg.leg.seen[own_level].astype(np.float64)

        def shared(below: float, above: float) -> Floats:
            """Share of each voxel between the ends of what the other leg shows, moved outwards."""
            parts = [
                slab_weights(level, low - below, high + above, self._extent)
                for low, high in self._parts
            ]
            return seen * sum(parts, np.zeros(len(points)))

        step = 1.0 / self._other_mm
        return Placed(
            own,
            0.5 * (own + there),
            shared(0.0, 0.0),
            0.5 * (shared(step, 0.0) - shared(-step, 0.0)),
            0.5 * (shared(0.0, step) - shared(0.0, -step)),
        )


class MatchedCourse:
    """One structure of one leg along the matched levels."""

    def __init__(
        self, own_mm: Floats, matched_mm: Floats, amounts_mm3: Floats, *, voxel_extent_mm: float
    ) -> None:
        """Args:
        own_mm, matched_mm: where its voxels lie (n,), see Placed.
        amounts_mm3: what is counted of each voxel (n,), e.g. its lean volume; not all 0.
        voxel_extent_mm: length a voxel covers along the limb.
        """
        counted = np.flatnonzero(amounts_mm3 > 0)
        # In order once: each count along the limb would sort them again.
        counted = counted[np.argsort(own_mm[counted], kind="stable")]
        self._own, self._amounts = own_mm[counted], amounts_mm3[counted]
        self._extent = voxel_extent_mm
        self._knots = _knots(self._own, matched_mm[counted], voxel_extent_mm)

    @property
    def voxel_extent_mm(self) -> float:
        """Length a voxel covers along the limb."""
        return self._extent

    @property
    def total_mm3(self) -> float:
        """Everything counted."""
        return float(self._amounts.sum())

    def own_at(self, matched_mm: Floats) -> Floats:
        """Distance down the leg's own axis at matched levels; beyond the ends one to one."""
        own, matched = self._knots
        inside = np.interp(matched_mm, matched, own)
        beyond = np.minimum(matched_mm - matched[0], 0.0) + np.maximum(
            matched_mm - matched[-1], 0.0
        )
        return np.asarray(inside + beyond)

    def below(self, matched_mm: Floats) -> Floats:
        """Amount above (towards the hip of) matched levels, mm^3."""
        return amount_below(
            self._own, self._amounts, self.own_at(matched_mm), voxel_extent_mm=self._extent
        )

    def ends(self, tail_share: float = 0.0) -> tuple[float, float]:
        """Matched levels between which the structure lies, without a share at each end."""
        own, matched = self._knots
        reach = 0.5 * self._extent
        low = float(np.interp(self._own.min() - reach, own, matched))
        low -= max(0.0, float(own[0] - self._own.min()) + reach)
        high = float(np.interp(self._own.max() + reach, own, matched))
        high += max(0.0, float(self._own.max() - own[-1]) + reach)
        if tail_share == 0.0:
            return low, high
        levels = np.linspace(low, high, 512)
        share = self.below(levels) / self.total_mm3
        return (
            float(np.interp(tail_share, share, levels)),
            float(np.interp(1.0 - tail_share, share, levels)),
        )


def _knots(own_mm: Floats, matched_mm: Floats, voxel_extent_mm: float) -> tuple[Floats, Floats]:
    """Own distance and matched level, mean over the voxels of each level of the leg."""
    step = max(5.0, voxel_extent_mm)
    bins = np.floor((own_mm - own_mm.min()) / step).astype(np.intp)
    counts = np.bincount(bins)
    filled = counts > 0
    own = np.bincount(bins, weights=own_mm)[filled] / counts[filled]
    matched = np.bincount(bins, weights=matched_mm)[filled] / counts[filled]
    # Bins of a few voxels at an end may lie askew; a level never runs backwards.
    least = _LEAST_SLOPE * (own - own[0])
    matched = np.maximum.accumulate(matched - least) + least
    return own, matched


@dataclass(frozen=True, eq=False)
class MatchedLevels:
    """Both sides of a structure between the same matched levels.

    Attributes:
        edges_mm: matched levels (n + 1,).
        amount_mm3: counted between two levels, right and left (2, n).
        length_mm: length of the leg's own limb between two levels, right and left (2, n).
    """

    edges_mm: Floats
    amount_mm3: Floats
    length_mm: Floats

    @property
    def area_mm2(self) -> Floats:
        """Cross-section perpendicular to each leg's own axis (2, n)."""
        return self.amount_mm3 / self.length_mm


def between(right: MatchedCourse, left: MatchedCourse, edges_mm: Floats) -> MatchedLevels:
    """Both sides of a structure between given matched levels."""
    courses = (right, left)
    return MatchedLevels(
        edges_mm,
        np.stack([np.maximum(np.diff(c.below(edges_mm)), 0.0) for c in courses]),
        np.stack([np.diff(c.own_at(edges_mm)) for c in courses]),
    )


def matched_levels(right: MatchedCourse, left: MatchedCourse, *, step_mm: float) -> MatchedLevels:
    """Both sides of a structure in steps from its upper to its lower end, whoever's is further."""
    ends = right.ends(), left.ends()
    first = np.floor(min(low for low, _ in ends) / step_mm)
    last = np.ceil(max(high for _, high in ends) / step_mm)
    return between(right, left, np.arange(first, last + 1) * step_mm)


def going_on(own: MatchedCourse, other: MatchedCourse, end: End, *, step_mm: float) -> float:
    """How much of a structure goes on in the other leg beyond the level where it ends in this one.

    Args:
        own, other: the structure in both legs.
        end: which end of this leg's.
        step_mm: length over which cross-sections are taken; thicker slices set it themselves.

    Returns:
        mean cross-section of the other side over a step beyond that matched level, as a share of
        this side's over the last step before it: about 1 where a structure that goes on was broken
        off, less where both taper.
    """
    step = max(step_mm, own.voxel_extent_mm, other.voxel_extent_mm)
    low, high = own.ends()
    edges = (low if end == "upper" else high) + step * np.array([-1.0, 0.0, 1.0])
    amounts = between(own, other, edges).amount_mm3
    before, beyond = (1, 0) if end == "upper" else (0, 1)
    return float(amounts[1, beyond] / amounts[0, before])


def thirds(right: MatchedCourse, left: MatchedCourse) -> tuple[Floats, MatchedLevels]:
    """Both sides of a structure in three parts of equal length.

    The ends are the mean of both sides', without the last half percent; what lies beyond them
    counts to the outer parts.

    Returns:
        the four levels between which the thirds lie, mm, and the thirds, proximal first.
    """
    ends = np.array([right.ends(_TAIL_SHARE), left.ends(_TAIL_SHARE)]).mean(axis=0)
    edges = np.linspace(ends[0], ends[1], 4)
    inner = between(right, left, edges)
    amounts = inner.amount_mm3.copy()
    for k, course in enumerate((right, left)):
        below = course.below(edges)
        amounts[k, 0] += below[0]
        # Sums of many voxels round: where nothing is left, nothing is left.
        amounts[k, -1] += max(0.0, course.total_mm3 - float(below[-1]))
    return edges, MatchedLevels(edges, amounts, inner.length_mm)


def _ratios(areas: Floats, smallest_share: float) -> Floats:
    """ln(right / left) of areas (2, n); NaN where a side is below a share of its largest area.

    Towards its ends a muscle is thin: a ratio of two thin ends says nothing.
    """
    shown = np.all(areas >= smallest_share * areas.max(axis=1, keepdims=True), axis=0)
    out = np.full(areas.shape[1], np.nan)
    shown &= np.all(areas > 0, axis=0)
    out[shown] = np.log(areas[0, shown] / areas[1, shown])
    return out


def _level_of_largest(areas: Floats) -> int:
    """Index of the level at which areas (2, n) differ most, mean of three neighbours."""
    apart = areas[0] - areas[1]
    smooth = np.convolve(np.pad(apart, 1, mode="edge"), np.full(3, 1.0 / 3.0), mode="valid")
    return int(np.argmax(np.abs(smooth)))


_THIRDS: tuple[Literal["proximal", "middle", "distal"], ...] = ("proximal", "middle", "distal")


def no_local_difference(reason: str) -> LocalDifference:
    """A local difference that could not be had, and why."""
    return LocalDifference(
        of=None,
        extent=None,
        levels=(),
        thirds=(),
        largest=None,
        sum_points=None,
        band_half_width_percent=None,
        band_reason=reason,
        reason=reason,
    )


@dataclass(frozen=True)
class LocalErrors:
    """How sure the differences along a muscle are.

    Attributes:
        method: standard error of ln(R / L) of the labels, which gives the band; None where it is
            not known.
        whole: that and what a second scan adds, which gives the error of the thirds.
        level_mm: standard error of where a level of one leg lies in the other.
    """

    method: float | None
    whole: float
    level_mm: float


def describe_difference(
    courses: tuple[MatchedCourse, MatchedCourse],
    axes: tuple[LimbAxis, LimbAxis],
    *,
    name: str,
    of: Of,
    extent: Extents,
    errors: LocalErrors,
    step_mm: float,
    smallest_share: float,
) -> LocalDifference:
    """Where along a muscle its sides differ, in words and numbers.

    Args:
        courses: its voxels on the right and the left along the matched levels, of the volume and
            extent compared.
        axes: limb axes of the right and the left leg.
        name: the muscle.
        of, extent: what is compared.
        errors: how sure that is.
        step_mm: distance of the levels.
        smallest_share: areas below this share of the largest give no ratio.
    """
    right, left = courses
    levels = _where_there_is_some(matched_levels(right, left, step_mm=step_mm))
    areas = levels.area_mm2
    ratios = [None if math.isnan(r) else float(r) for r in _ratios(areas, smallest_share)]

    def positions(at: Floats) -> Floats:
        """Positions (2, n) of matched levels on the right and on the left."""
        return np.stack(
            [position_at(axis, c.own_at(at)) for axis, c in zip(axes, courses, strict=True)]
        )

    middles_mm = 0.5 * (levels.edges_mm[:-1] + levels.edges_mm[1:])
    middle = positions(middles_mm)
    mean_mm3 = 0.5 * (right.total_mm3 + left.total_mm3)
    edges, parts = thirds(right, left)
    # Levels counted from different joints or in different units have no mean.
    scales = [position_scale(axis) for axis in axes]
    alike = scales[0].counts_like(scales[1])
    ends = [float(p) if alike else None for p in positions(edges).mean(axis=0)]
    half_widths = _third_half_widths(courses, edges, parts, errors)
    described = _thirds(parts, ends, half_widths, mean_mm3)
    top = _level_of_largest(areas)
    third = described[int(np.clip(np.searchsorted(edges, middles_mm[top]) - 1, 0, 2))]
    return LocalDifference(
        of=of,
        extent=extent,
        levels=tuple(
            MatchedLevel(
                position_right=round(float(middle[0, k]), 6),
                position_left=round(float(middle[1, k]), 6),
                area_right_mm2=float(areas[0, k]),
                area_left_mm2=float(areas[1, k]),
                length_right_mm=float(levels.length_mm[0, k]),
                length_left_mm=float(levels.length_mm[1, k]),
                log_ratio=ratios[k],
            )
            for k in range(areas.shape[1])
            # In a gap that nobody scanned neither side has anything to show.
            if areas[:, k].any()
        ),
        thirds=described,
        largest=LargestDifference(
            name=f"{name.replace('_', ' ')}, {third.name} third",
            third=third.name,
            position=float(middle[:, top].mean()) if alike else None,
            log_ratio=ratios[top],
            # A side that has nothing there at all does differ.
            stands_out=third.index_percent is None
            or third.half_width_percent is None
            or abs(third.index_percent) > third.half_width_percent,
        ),
        sum_points=float(100.0 * (levels.amount_mm3[0] - levels.amount_mm3[1]).sum() / mean_mm3),
        band_half_width_percent=None if errors.method is None else 100.0 * Z95 * errors.method,
        band_reason=None if errors.method is not None else "the error of the method is not known",
        reason=None,
    )


def _where_there_is_some(levels: MatchedLevels) -> MatchedLevels:
    """The levels from the first to the last on which either side has something."""
    filled = np.flatnonzero(levels.area_mm2.any(axis=0))
    first, last = int(filled[0]), int(filled[-1])
    return MatchedLevels(
        levels.edges_mm[first : last + 2],
        levels.amount_mm3[:, first : last + 1],
        levels.length_mm[:, first : last + 1],
    )


def _thirds(
    parts: MatchedLevels,
    ends: Sequence[float | None],
    half_widths: Sequence[float],
    mean_mm3: float,
) -> tuple[ThirdDifference, ...]:
    """The thirds in words and numbers.

    Args:
        parts: their amounts and lengths.
        ends: positions of the four levels between which they lie; None where there are none.
        half_widths: of the 95 % intervals, percent.
        mean_mm3: mean volume of the whole muscle.
    """
    described = []
    for k, name in enumerate(_THIRDS):
        right, left = (float(amount) for amount in parts.amount_mm3[:, k])
        index = _index(parts.area_mm2[:, k])
        described.append(
            ThirdDifference(
                name=name,
                position_from=ends[k],
                position_to=ends[k + 1],
                volume_right_ml=right / 1e3,
                volume_left_ml=left / 1e3,
                index_percent=index,
                half_width_percent=None if index is None else half_widths[k],
                points=100.0 * (right - left) / mean_mm3,
            )
        )
    return tuple(described)


def _third_half_widths(
    courses: tuple[MatchedCourse, MatchedCourse],
    edges_mm: Floats,
    parts: MatchedLevels,
    errors: LocalErrors,
) -> list[float]:
    """Half widths of the 95 % intervals of the differences of the thirds, percent.

    A third that is displaced by d has a mean cross-section that is d (A_below - A_above) / L
    larger, A being the cross-sections at its ends.
    """
    reach = 0.5 * _END_MM
    area = np.array(
        [
            (course.below(edges_mm + reach) - course.below(edges_mm - reach)) / (2.0 * reach)
            for course in courses
        ]
    )
    slope = np.abs(np.diff(area, axis=1)) / parts.length_mm
    mean = parts.area_mm2
    relative = np.where(mean > 0, slope / np.where(mean > 0, mean, 1.0), 0.0).mean(axis=0)
    own = math.sqrt(3.0) * errors.whole
    return [100.0 * Z95 * math.hypot(own, errors.level_mm * float(r)) for r in relative]


def _index(areas: Floats) -> float | None:
    """Difference of two areas in percent; None where a side has none."""
    if not np.all(areas > 0):
        return None
    return index_from_log_ratio(float(np.log(areas[0] / areas[1])))
