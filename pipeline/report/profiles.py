"""Charts of where along the limb the sides differ: results in, SVG bytes out."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
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
    to_svg,
)
from pipeline.report.format import MINUS, NO_BREAK
from pipeline.report.head import Entry, Head
from pipeline.report.panels import Box, Panels, Pen
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
_DASHES = (4.0, 2.0)
#: The line at an end of a third of a muscle.
_DOTS = (1.0, 1.65)
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


def profile_chart(measures: Measures, layout: ProfileLayout) -> bytes | None:
    """Cross-sections along the limb of both legs, one small panel per muscle.

    The lean cross-section where it was measured, else the whole one (profiles_of). Right is a
    solid blue line, left a dashed orange one. Where the legs were registered, both are shown at
    matched levels, and their difference below them with the thirds of the muscle. None where no
    muscle has a profile on both sides or the two sides count their levels differently.
    """
    muscles = _with_profiles(measures)
    if not muscles or not profiles_comparable(measures):
        return None
    joints = measures.measures.position_right.unit == "joints"
    reach = _difference_reach(muscles)
    below_px = _BELOW_PX if any(m.local_difference.levels for m in muscles) else 0.0
    line_px = _TITLE_PX + _PANEL_PX + below_px + _FOOT_PX
    head = _head_of_profiles(measures, muscles, narrow=layout.width_px < NARROW_PX)
    lines_px = math.ceil(len(muscles) / layout.columns) * line_px
    height_px = lines_px + head.height(layout.width_px)
    gaps_px = _SIDE_PX + (layout.columns - 1) * _GAP_PX + 4.0
    width_px = (layout.width_px - gaps_px) / layout.columns
    with drawing():
        figure = chart_figure(layout.width_px, height_px)
        head.draw(figure)
        panels = Panels(figure)
        for i, muscle in enumerate(muscles):
            line, column = divmod(i, layout.columns)
            x = _SIDE_PX + column * (width_px + _GAP_PX)
            y = lines_px - line * line_px - _TITLE_PX - _PANEL_PX
            _cross_sections(panels, (x, y, width_px, _PANEL_PX), muscle, joints=joints)
            if muscle.local_difference.levels:
                lower = (x, y - below_px, width_px, below_px - _BETWEEN_PX)
                _differences(panels, lower, muscle, joints=joints, reach=reach)
        panels.draw()
        return to_svg(figure)


def _head_of_profiles(measures: Measures, muscles: Sequence[MuscleResult], *, narrow: bool) -> Head:
    position = measures.measures.position_right
    along = "from hip over knee to ankle"
    if position.unit != "joints":
        along = f"by {position.reference}"
    what = words.cross_section(profiles_of(measures)).capitalize()
    notes = f"{words.who(measures)}. Each panel has its own scale."
    key: list[Entry] = [
        (Line2D([], [], color=COLOURS["right"], linewidth=1.5), "right leg"),
        (Line2D([], [], color=COLOURS["left"], linewidth=1.5, linestyle=(0, _DASHES)), "left leg"),
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
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [words.muscle_title(m.name) for m in rows])
        axes.tick_params(length=0, labelsize=10.0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        joints = measures.measures.position_right.unit == "joints"
        span = _span([position for box, _ in boxes for position, _ in box], joints=joints)
        axes.set_xlim(span)
        levels = _named_levels(span, joints=joints)
        axes.set_xticks([position for position, _ in levels], [name for _, name in levels])
        # Names at the ends stay inside the chart.
        for label, (position, _) in zip(axes.get_xticklabels(), levels, strict=True):
            if position in span:
                label.set_horizontalalignment("left" if position == span[0] else "right")
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


def _cross_sections(panels: Panels, box_px: Box, result: MuscleResult, *, joints: bool) -> None:
    """The cross-sections of a muscle on both sides, over the names of its levels."""
    courses = {side: _course(result, side) for side in (Side.RIGHT, Side.LEFT)}
    span = _span(_drawn(result), joints=joints)
    top = 1.05 * max(float(np.nanmax(areas, initial=0.0)) for _, areas in courses.values())
    panel = panels.panel(box_px, across=span, up=(0.0, top or 1.0))
    panel.title(words.muscle_title(result.name))
    panel.scale([(tick, f"{tick:g}") for tick in _few_ticks(*panel.up)], size=8.5, grid=True)
    for side, (positions, areas) in courses.items():
        panel.line(positions, areas, Pen(COLOURS[side], 1.5, _DASHES if side is Side.LEFT else ()))
    panel.axes()
    if not result.local_difference.levels:
        panel.levels(_named_levels(span, joints=joints))


def _differences(
    panels: Panels, box_px: Box, result: MuscleResult, *, joints: bool, reach: float
) -> None:
    """Difference of the cross-sections in percent, with the thirds of the muscle."""
    difference = result.local_difference
    span = _span(_drawn(result), joints=joints)
    panel = panels.panel(box_px, across=span, up=(-reach, reach))
    band = difference.band_half_width_percent
    if band is not None:
        panel.area([_box(span, -band, band)], COLOURS["band"], order=0.5)
    boxes = [(edges, value) for edges, value in _level_boxes(difference) if value is not None]
    for side, larger in (("right", operator.gt), ("left", operator.lt)):
        bars = [_box(edges, 0.0, value) for edges, value in boxes if larger(value, 0.0)]
        panel.area(bars, COLOURS[side])
    panel.line(span, (0.0, 0.0), Pen(COLOURS["muted"], 0.8))
    thirds = [
        (t.position_from, t.position_to, t.name)
        for t in difference.thirds
        if t.position_from is not None and t.position_to is not None
    ]
    for end in sorted({end for start, stop, _ in thirds for end in (start, stop)}):
        panel.line((end, end), panel.up, Pen(COLOURS["muted"], 0.6, _DOTS))
    for start, stop, name in thirds:
        panel.above(0.5 * (start + stop), name[0].upper(), size=7.5)
    panel.scale(
        [(v, f"{v:.0f}".replace("-", MINUS)) for v in (-reach, 0.0, reach)], size=8.0, grid=False
    )
    panel.axes()
    panel.levels(_named_levels(span, joints=joints))


def _course(result: MuscleResult, side: Side) -> tuple[list[float], list[float]]:
    """Positions and cross-sections in cm^2 of one side: at matched levels where there are any."""
    levels = result.local_difference.levels
    if levels:
        matched = [p.area_right_mm2 if side is Side.RIGHT else p.area_left_mm2 for p in levels]
        return [_position(p) for p in levels], [area / 100.0 for area in matched]
    lean = _profile_of(result) == "lean_volume"
    points = result.right.profile if side is Side.RIGHT else result.left.profile
    return [p.position for p in points], [_area_cm2(p, lean=lean) for p in points]


def _drawn(result: MuscleResult) -> list[float]:
    """Positions along the limb at which a muscle is drawn."""
    edges = [edge for edges, _ in _level_boxes(result.local_difference) for edge in edges]
    return edges + [position for side in Side for position in _course(result, side)[0]]


def _span(at: Sequence[float], *, joints: bool) -> tuple[float, float]:
    """From where to where along the limb a chart reaches: between joints by whole half segments, so
    that at least two levels have a name."""
    if joints:
        return math.floor(2.0 * min(at)) / 2.0, math.ceil(2.0 * max(at)) / 2.0
    return min(at), max(at)


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


def _named_levels(span: tuple[float, float], *, joints: bool) -> list[tuple[float, str]]:
    """Levels of a panel that get a name."""
    if not joints:
        return [(at, f"{at:g}".replace("-", MINUS)) for at in _few_ticks(*span)]
    halves = range(round(2.0 * span[0]), round(2.0 * span[1]) + 1)
    named = [half for half in halves if half in _HALF_SEGMENTS]
    if len(named) > _MOST_LEVEL_NAMES:
        named = [half for half in named if half % 2 == 0]
    return [(half / 2.0, _HALF_SEGMENTS[half]) for half in named]


def _area_cm2(point: ProfilePoint, *, lean: bool) -> float:
    area = point.lean_area_mm2 if lean else point.area_mm2
    return math.nan if area is None else area / 100.0


def _few_ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(nbins=3, min_n_ticks=2).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]
