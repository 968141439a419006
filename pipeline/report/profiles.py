"""Charts of where along the limb the sides differ: results in, SVG bytes out."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipeline.core.anatomy import Side
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Lead,
    LocalDifference,
    MatchedLevel,
    Measures,
    MuscleResult,
    ProfilePoint,
)
from pipeline.report import words
from pipeline.report.drawing import (
    COLOURS,
    NARROW_PX,
    axes_at,
    both_sides,
    chart_figure,
    drawing,
    label_width_px,
    place,
    resize,
    to_svg,
)
from pipeline.report.format import MINUS, NO_BREAK
from pipeline.report.head import Entry, Head
from pipeline.report.reach import share_of_reach

#: Names of levels, counted in half segments from the hip.
_HALF_SEGMENTS: Mapping[int, str] = FrozenDict(
    {0: "hip", 1: "mid-thigh", 2: "knee", 3: "mid-calf", 4: "ankle"}
)

#: Heights of a panel of the profiles, of the difference below it with the room between them, of
#: the title above and of the names of the levels below; room between panels and beside the first.
_PANEL_PX, _BELOW_PX, _BETWEEN_PX, _TITLE_PX, _FOOT_PX = 96.0, 44.0, 11.0, 22.0, 20.0
_GAP_PX, _SIDE_PX = 22.0, 26.0
#: The line of the left leg.
_DASHES = (0, (4, 2))
#: Where panels stand before a layout moves them.
_ANYWHERE = (0.0, 0.0, 1.0, 1.0)
#: More names than this do not fit below a panel; then only the joints are named.
_MOST_LEVEL_NAMES = 3


@dataclass(frozen=True)
class ProfileLayout:
    """How the panels of the profiles stand on a page of a width.

    Attributes:
        columns: panels beside each other.
        width_px: of the chart.
    """

    columns: int
    width_px: int


def profile_charts(measures: Measures, layouts: Sequence[ProfileLayout]) -> list[bytes]:
    """Cross-sections along the limb of both legs, one small panel per muscle, in every layout.

    The lean cross-section where it was measured, else the whole one (profiles_of). Right is a
    solid blue line, left a dashed orange one. Where the legs were registered, both are shown at
    matched levels, and their difference below them with the thirds of the muscle. Empty where no
    muscle has a profile on both sides or the two sides count their levels differently.
    """
    muscles = _with_profiles(measures)
    if not muscles or not profiles_comparable(measures):
        return []
    joints = measures.measures.position_right.unit == "joints"
    reach = _difference_reach(muscles)
    below_px = _BELOW_PX if any(m.local_difference.levels for m in muscles) else 0.0
    line_px = _TITLE_PX + _PANEL_PX + below_px + _FOOT_PX
    charts = []
    with drawing():
        # Making the panels takes longer than drawing them: they are made once and moved.
        figure = chart_figure(1.0, 1.0)
        panels = [_profile_panels(figure, m, joints=joints, reach=reach) for m in muscles]
        for layout in layouts:
            head = _head_of_profiles(measures, muscles, narrow=layout.width_px < NARROW_PX)
            lines_px = math.ceil(len(muscles) / layout.columns) * line_px
            height_px = lines_px + head.height(layout.width_px)
            gaps_px = _SIDE_PX + (layout.columns - 1) * _GAP_PX + 4.0
            width_px = (layout.width_px - gaps_px) / layout.columns
            resize(figure, layout.width_px, height_px)
            for i, (upper, lower) in enumerate(panels):
                line, column = divmod(i, layout.columns)
                x = _SIDE_PX + column * (width_px + _GAP_PX)
                y = lines_px - line * line_px - _TITLE_PX - _PANEL_PX
                place(upper, (x, y, width_px, _PANEL_PX))
                if lower is not None:
                    place(lower, (x, y - below_px, width_px, below_px - _BETWEEN_PX))
            drawn = head.draw(figure)
            charts.append(to_svg(figure))
            for artist in drawn:
                artist.remove()
    return charts


def _head_of_profiles(measures: Measures, muscles: Sequence[MuscleResult], *, narrow: bool) -> Head:
    position = measures.measures.position_right
    along = "from hip over knee to ankle"
    if position.unit != "joints":
        along = f"by {position.reference}"
    what = words.cross_section(profiles_of(measures)).capitalize()
    notes = f"{words.who(measures)}. Each panel has its own scale."
    key: list[Entry] = [
        (Line2D([], [], color=COLOURS["right"], linewidth=1.5), "right leg"),
        (Line2D([], [], color=COLOURS["left"], linewidth=1.5, linestyle=_DASHES), "left leg"),
    ]
    if any(m.local_difference.levels for m in muscles):
        reach = _difference_reach(muscles)
        notes += (
            f" Below: right \N{MINUS SIGN} left in %, at matched levels, cut at "
            f"{reach:.0f} %; P, M, D: proximal, middle, distal third of the muscle."
        )
        key.append((both_sides(""), "difference: left, right larger"))
    if any(m.local_difference.band_half_width_percent is not None for m in muscles):
        band = "95 % of the method's own error, muscle as a whole"
        key.append((Patch(facecolor=COLOURS["band"]), band))
    return Head(
        title=f"{what} of every muscle in cm\N{SUPERSCRIPT TWO}, {along}",
        notes=notes,
        key=key,
        columns=1 if narrow else len(key),
    )


def local_map(measures: Measures, *, width_px: int) -> bytes | None:
    """Difference of cross-sections by muscle and level, one row per muscle, as colours.

    Blue: the right side is larger; orange: the left one. None where there are no matched levels
    or the sides count their levels differently.
    """
    rows = [m for m in measures.measures.muscles if m.local_difference.levels]
    if not rows or not profiles_comparable(measures):
        return None
    reach = _difference_reach(rows)
    colours = LinearSegmentedColormap.from_list(
        "sides", [COLOURS["left"], COLOURS["paper"], COLOURS["right"]]
    )
    label_px = label_width_px(width_px)
    row_px, bottom_px = 17.0, 74.0
    thin = any(p.log_ratio is None for m in rows for p in m.local_difference.levels)
    head = Head(
        title="Difference of the cross-sections of every muscle along the limb, "
        "right \N{MINUS SIGN} left in %",
        notes=f"{words.who(measures)}. At matched levels"
        + (
            ", named by joints."
            if measures.measures.position_right.unit == "joints"
            else f", by {measures.measures.position_right.reference}."
        ),
        key=[(Patch(facecolor=COLOURS["line"]), "too thin for a ratio")] if thin else [],
    )
    height_px = head.height(width_px) + bottom_px + row_px * len(rows)
    with drawing():
        figure = chart_figure(width_px, height_px)
        head.draw(figure)
        width = width_px - label_px - 12.0
        axes = axes_at(figure, (label_px, bottom_px, width, row_px * len(rows)))
        boxes = [
            (_box(edges, y - 0.42, y + 0.42), percent)
            for y, row in enumerate(rows)
            for edges, percent in _level_boxes(row.local_difference)
        ]
        # One collection: a patch for every level would take ten times as long.
        axes.add_collection(
            PolyCollection(
                [box for box, _ in boxes],
                facecolors=[
                    COLOURS["line"]
                    if percent is None
                    else colours(0.5 + 0.5 * share_of_reach(percent, reach))
                    for _, percent in boxes
                ],
                edgecolors="none",
            )
        )
        axes.autoscale_view()
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [words.muscle_title(m.name) for m in rows])
        axes.tick_params(length=0, labelsize=10.0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _name_levels(axes, joints=measures.measures.position_right.unit == "joints")
        bar = axes_at(figure, (label_px + 0.2 * width, 26.0, 0.6 * width, 9.0))
        steps = np.linspace(-reach, reach, 101)
        bar.pcolormesh(np.linspace(-reach, reach, 102), [0, 1], [steps], cmap=colours)
        bar.set_yticks([])
        bar.tick_params(length=0, labelsize=9.0)
        end = f"\N{GREATER-THAN OR EQUAL TO}{NO_BREAK}{reach:.0f}{NO_BREAK}%"
        bar.set_xticks([-reach, 0.0, reach], [end, "0", end])
        bar.set_title(
            "left larger \N{LEFTWARDS ARROW}   \N{RIGHTWARDS ARROW} right larger",
            fontsize=9.5,
            pad=3,
        )
        return to_svg(figure)


def profiles_comparable(measures: Measures) -> bool:
    """Whether both sides count levels along the limb from the same reference in the same unit."""
    return measures.measures.position_right.counts_like(measures.measures.position_left)


def profiles_of(measures: Measures) -> set[Lead]:
    """What the profiles that are drawn are of."""
    return {_profile_of(result) for result in _with_profiles(measures)}


def _with_profiles(measures: Measures) -> list[MuscleResult]:
    return [m for m in measures.measures.muscles if m.right.profile and m.left.profile]


def _profile_of(result: MuscleResult) -> Lead:
    """What the profiles of a muscle are of: what its local difference compares, else lean volume
    where it was measured on every level of both sides."""
    if result.local_difference.of is not None:
        return result.local_difference.of
    sides = (result.right, result.left)
    points = [point for side in sides for point in side.profile]
    measured = all(side.lean_estimate is None for side in sides)
    lean = measured and all(point.lean_area_mm2 is not None for point in points)
    return "lean_volume" if lean else "total_volume"


def _profile_panels(
    figure: Figure, result: MuscleResult, *, joints: bool, reach: float
) -> tuple[Axes, Axes | None]:
    """The cross-sections of a muscle and, where levels were matched, their difference below."""
    upper = figure.add_axes(_ANYWHERE)
    for (x, y), colour, style in (
        (_course(result, Side.RIGHT), COLOURS["right"], "-"),
        (_course(result, Side.LEFT), COLOURS["left"], _DASHES),
    ):
        upper.plot(x, y, color=colour, linestyle=style, linewidth=1.5)
    upper.set_title(words.muscle_title(result.name), fontsize=10, loc="left", pad=5)
    upper.set_ylim(bottom=0.0)
    upper.yaxis.set_major_locator(_few_ticks())
    upper.tick_params(length=0, labelsize=8.5, pad=3)
    upper.grid(axis="y", color=COLOURS["line"], linewidth=0.6)
    if not result.local_difference.levels:
        _name_levels(upper, joints=joints)
        return upper, None
    lower = figure.add_axes(_ANYWHERE, sharex=upper)
    _difference_panel(lower, result.local_difference, reach=reach)
    _name_levels(lower, joints=joints)
    upper.tick_params(axis="x", labelbottom=False)
    return upper, lower


def _course(result: MuscleResult, side: Side) -> tuple[list[float], list[float]]:
    """Positions and cross-sections in cm^2 of one side: at matched levels where there are any."""
    levels = result.local_difference.levels
    if levels:
        areas = [p.area_right_mm2 if side is Side.RIGHT else p.area_left_mm2 for p in levels]
        return [_position(p) for p in levels], [area / 100.0 for area in areas]
    lean = _profile_of(result) == "lean_volume"
    points = result.right.profile if side is Side.RIGHT else result.left.profile
    return [p.position for p in points], [_area_cm2(p, lean=lean) for p in points]


def _position(level: MatchedLevel) -> float:
    """Where a matched level is drawn: half-way between its positions on both sides."""
    return 0.5 * (level.position_right + level.position_left)


def _level_boxes(
    difference: LocalDifference,
) -> list[tuple[tuple[float, float], float | None]]:
    """From where to where each matched level is drawn, and its difference in percent."""
    at = [_position(level) for level in difference.levels]
    middles = [0.5 * (a + b) for a, b in pairwise(at)]
    if not middles:
        return []
    edges = [2.0 * at[0] - middles[0], *middles, 2.0 * at[-1] - middles[-1]]
    percent = [
        None if level.log_ratio is None else 100.0 * level.log_ratio for level in difference.levels
    ]
    return list(zip(pairwise(edges), percent, strict=True))


def _box(edges: tuple[float, float], low: float, high: float) -> list[tuple[float, float]]:
    """Corners of a rectangle between two edges and two heights."""
    return [(edges[0], low), (edges[1], low), (edges[1], high), (edges[0], high)]


def _difference_reach(muscles: Sequence[MuscleResult]) -> float:
    """End of the scale of local differences, percent: 95 % of all levels fit, in steps of 10."""
    values = [
        abs(100.0 * level.log_ratio)
        for m in muscles
        for level in m.local_difference.levels
        if level.log_ratio is not None
    ]
    return 10.0 * max(1, math.ceil(float(np.percentile(values, 95)) / 10.0)) if values else 10.0


def _difference_panel(axes: Axes, difference: LocalDifference, *, reach: float) -> None:
    """Difference of the cross-sections in percent, with the thirds of the muscle."""
    boxes = [(edges, value) for edges, value in _level_boxes(difference) if value is not None]
    band = difference.band_half_width_percent
    if band is not None:
        axes.axhspan(-band, band, color=COLOURS["band"], linewidth=0.0)
    for side, larger in (("right", operator.gt), ("left", operator.lt)):
        bars = [_box(edges, 0.0, value) for edges, value in boxes if larger(value, 0.0)]
        axes.add_collection(PolyCollection(bars, facecolors=COLOURS[side], edgecolors="none"))
    axes.axhline(0.0, color=COLOURS["muted"], linewidth=0.8)
    thirds = [
        (t.position_from, t.position_to, t.name)
        for t in difference.thirds
        if t.position_from is not None and t.position_to is not None
    ]
    across = axes.get_xaxis_transform()
    axes.vlines(
        sorted({end for start, stop, _ in thirds for end in (start, stop)}),
        *(0.0, 1.0),
        transform=across,
        color=COLOURS["muted"],
        linewidth=0.6,
        linestyle=":",
    )
    for start, stop, name in thirds:
        axes.text(
            0.5 * (start + stop),
            1.0,
            name[0].upper(),
            transform=across,
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=COLOURS["muted"],
        )
    axes.set_ylim(-reach, reach)
    axes.set_yticks(
        [-reach, 0.0, reach], [f"{-reach:.0f}".replace("-", MINUS), "0", f"{reach:.0f}"]
    )
    axes.tick_params(length=0, labelsize=8.0, pad=3)


def _name_levels(axes: Axes, *, joints: bool) -> None:
    if joints:
        # From one half segment to another, so that at least two levels have a name.
        low, high = axes.get_xlim()
        halves = np.arange(math.floor(2.0 * low), math.ceil(2.0 * high) + 1)
        axes.set_xlim(halves[0] / 2.0, halves[-1] / 2.0)
        named = [int(h) for h in halves if h in _HALF_SEGMENTS]
        if len(named) > _MOST_LEVEL_NAMES:
            named = [h for h in named if h % 2 == 0]
        axes.set_xticks([h / 2.0 for h in named], [_HALF_SEGMENTS[h] for h in named])
        # Names at the ends stay inside the panel.
        for label, h in zip(axes.get_xticklabels(), named, strict=True):
            if h in (halves[0], halves[-1]):
                label.set_horizontalalignment("left" if h == halves[0] else "right")
    else:
        axes.xaxis.set_major_locator(_few_ticks())


def _area_cm2(point: ProfilePoint, *, lean: bool) -> float:
    area = point.lean_area_mm2 if lean else point.area_mm2
    return math.nan if area is None else area / 100.0


def _few_ticks() -> MaxNLocator:
    return MaxNLocator(nbins=3, min_n_ticks=2)
