"""Charts: one function per chart, results in, SVG bytes out."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from pipeline.core.anatomy import Side
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Asymmetry,
    Lead,
    LocalDifference,
    MatchedLevel,
    Measures,
    MuscleResult,
    ProfilePoint,
    Verdict,
    leading,
)
from pipeline.report import words
from pipeline.report.drawing import (
    COLOURS,
    axes_at,
    chart_figure,
    drawing,
    mark_cuts,
    place,
    resize,
    row_axes,
    to_svg,
)
from pipeline.report.format import MINUS, NO_BREAK, Style, show
from pipeline.report.head import Entry, Head
from pipeline.report.reach import drawn_values, goes_on, share_of_reach, shared_reach

#: Below this width a chart drops what a phone has no room for.
_NARROW_PX = 600

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
class _Row:
    label: str
    asymmetry: Asymmetry | None
    limit_percent: float | None = None


def asymmetry_chart(measures: Measures, lead: Lead, *, width_px: int) -> bytes:
    """Bars of every muscle that has an asymmetry, by region, with interval and healthy limits.

    A bar to the right says that the right side is larger. Pale bars are within measurement
    error, empty ones have no verdict, hatched ones stand for the matched extent only. Muscles
    without a number are left out; the page lists them.

    Args:
        measures: the results.
        lead: which asymmetry is drawn.
        width_px: width on the page; narrow charts have no column of numbers with intervals.
    """
    rows: list[_Row] = []
    for region in dict.fromkeys(m.region for m in measures.measures.muscles):
        members = [
            _Row(words.muscle_title(m.name), leading(m, lead), m.healthy_limit_percent)
            for m in measures.measures.muscles
            if m.region == region and leading(m, lead).index_percent is not None
        ]
        if members:
            rows += [_Row(words.region_title(region), None), *members]
    narrow = width_px < _NARROW_PX
    row_px, bottom_px = 21.0, 40.0
    label_px, number_px = (142.0, 44.0) if narrow else (190.0, 170.0)
    size = 10.5 if narrow else 12.0
    reach = _reach(rows)
    head = Head(
        title=f"Difference in {lead.replace('_', ' ')} between the right and the left leg",
        notes=words.who(measures),
        key=_meanings_of_bars(rows, reach),
        columns=1 if narrow else 2,
        size=size - 1.0,
    )
    top_px = head.height(width_px) + 34.0
    height_px = top_px + bottom_px + row_px * max(1, len(rows))
    with drawing():
        figure = chart_figure(width_px, height_px)
        head.draw(figure)
        box_px = (
            label_px,
            bottom_px,
            width_px - label_px - number_px,
            height_px - top_px - bottom_px,
        )
        axes = row_axes(figure, box_px, rows=len(rows), reach=reach)
        axes.axvline(0.0, color=COLOURS["muted"], linewidth=1.0, zorder=3)
        _percent_ticks(axes, reach, size=size)
        for y, row in enumerate(rows):
            beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
            if row.asymmetry is None:
                x = -label_px / box_px[2]
                axes.text(x, y + 0.08, row.label, fontsize=size, fontweight="bold", **beside)
                continue
            axes.text(-8.0 / box_px[2], y, row.label, fontsize=size, ha="right", **beside)
            _bar(axes, y, row)
            mark_cuts(axes, y, drawn_values(row.asymmetry), reach=reach, size=size - 1.5)
            number, x = _number_text(row.asymmetry, narrow=narrow), 1.0 + 8.0 / box_px[2]
            axes.text(x, y, number, fontsize=size - 0.5, color=COLOURS["muted"], **beside)
        _name_directions(axes, above=12.0 / box_px[3], size=size)
        return to_svg(figure)


def _meanings_of_bars(rows: Sequence[_Row], reach: float) -> list[Entry]:
    """The key of the bars: what is drawn here, and nothing else."""
    drawn = [row.asymmetry for row in rows if row.asymmetry is not None]
    verdicts = {a.verdict for a in drawn}
    found: list[tuple[bool, Entry]] = [
        (
            bool(verdicts - {None, Verdict.WITHIN_ERROR}),
            (_both_sides(""), "larger than the measurement error"),
        ),
        (
            Verdict.WITHIN_ERROR in verdicts,
            (_both_sides("-soft", linewidth=0.8), "may be nothing but measurement error"),
        ),
        (
            None in verdicts,
            (_both_sides(None, linewidth=0.8, linestyle=(0, (3, 2))), "not judged"),
        ),
        (
            any(a.extent == "matched" for a in drawn),
            (
                _both_sides("-soft", linewidth=0.8, hatch="////"),
                "only the part that both legs show was compared",
            ),
        ),
        (
            any(a.interval_low_percent is not None for a in drawn),
            (
                Line2D([], [], color=COLOURS["ink"], linewidth=1.3, marker="|", markersize=5.0),
                "95 % interval",
            ),
        ),
        (
            any(row.limit_percent is not None for row in rows),
            (
                Patch(facecolor=COLOURS["band"], edgecolor=COLOURS["muted"], linewidth=0.8),
                "95 % of healthy people (total volume)",
            ),
        ),
        (
            any(goes_on(drawn_values(a), reach) != (None, None) for a in drawn),
            (
                Line2D([], [], color=COLOURS["ink"], linestyle="none", marker=">", markersize=6.0),
                "goes on beyond the scale, to the number beside it",
            ),
        ),
    ]
    return [entry for is_drawn, entry in found if is_drawn]


def _both_sides(shade: str | None, **style: Any) -> tuple[Patch, Patch]:
    """A patch in each side's colour, filled with a shade of it; None: not filled."""
    left, right = (
        Patch(
            facecolor="none" if shade is None else COLOURS[f"{side}{shade}"],
            edgecolor=COLOURS[side],
            **{"linewidth": 0.0, **style},
        )
        for side in ("left", "right")
    )
    return left, right


def _name_directions(axes: Axes, *, above: float, size: float) -> None:
    """Which side is larger to the left and to the right of no difference.

    Args:
        axes: of the chart.
        above: distance from its upper end, as a share of its height.
        size: of the letters.
    """
    for x, text, align, colour in (
        (0.0, "\N{LEFTWARDS ARROW} left larger", "left", "left"),
        (1.0, "right larger \N{RIGHTWARDS ARROW}", "right", "right"),
    ):
        axes.text(
            x,
            1.0 + above,
            text,
            transform=axes.transAxes,
            ha=align,
            va="bottom",
            fontsize=size,
            fontweight="bold",
            color=COLOURS[colour],
        )


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
            head = _head_of_profiles(measures, muscles, narrow=layout.width_px < _NARROW_PX)
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
        key.append((_both_sides(""), "difference: left, right larger"))
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
    label_px = 142.0 if width_px < _NARROW_PX else 190.0
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


def _reach(rows: Sequence[_Row]) -> float:
    """Half width of the axis, percent: nearly everything drawn fits, in steps of 5."""
    drawn = [
        (*drawn_values(row.asymmetry), *([] if row.limit_percent is None else [row.limit_percent]))
        for row in rows
        if row.asymmetry is not None
    ]
    return 5.0 * math.ceil(shared_reach(drawn) / 5.0 + 0.2)


def _percent_ticks(axes: Axes, reach: float, *, size: float) -> None:
    step = next(s for s in (5, 10, 20, 50, 100) if reach / s <= 4.5)
    ticks = np.arange(-step * (reach // step), reach + 0.1, step)
    axes.set_xticks(ticks, [show(float(t), Style.SHARE) for t in ticks / 100.0])
    axes.tick_params(axis="x", length=0, labelsize=size - 1.0, pad=6)
    axes.grid(axis="x", color=COLOURS["line"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("difference between the sides, % of their mean", fontsize=size - 1.0)


def _bar(axes: Axes, y: float, row: _Row) -> None:
    a = row.asymmetry
    if a is None or a.index_percent is None:
        return
    if row.limit_percent is not None:
        axes.add_patch(
            Rectangle(
                (-row.limit_percent, y - 0.42),
                2.0 * row.limit_percent,
                0.84,
                facecolor=COLOURS["band"],
                edgecolor="none",
                zorder=1.5,
            )
        )
        for end in (-row.limit_percent, row.limit_percent):
            axes.plot([end, end], [y - 0.42, y + 0.42], color=COLOURS["muted"], linewidth=1.0)
    side = "right" if a.index_percent > 0 else "left"
    faint = a.verdict is Verdict.WITHIN_ERROR
    matched = a.extent == "matched"
    outlined = faint or matched or a.verdict is None
    fill = COLOURS[f"{side}-soft"] if faint or matched else COLOURS[side]
    axes.barh(
        y,
        a.index_percent,
        height=0.56,
        facecolor="none" if a.verdict is None else fill,
        edgecolor=COLOURS[side],
        linewidth=0.8 if outlined else 0.0,
        linestyle=(0, (3, 2)) if a.verdict is None else "-",
        hatch="////" if matched else None,
        zorder=2.5,
    )
    low, high = a.interval_low_percent, a.interval_high_percent
    if low is not None and high is not None:
        # A pale seam keeps the line readable on a dark bar.
        axes.plot([low, high], [y, y], color=COLOURS["paper"], linewidth=3.2, zorder=3.5)
        axes.plot([low, high], [y, y], color=COLOURS["ink"], linewidth=1.3, zorder=4)
        for end in (low, high):
            axes.plot(
                [end, end], [y - 0.16, y + 0.16], color=COLOURS["ink"], linewidth=1.3, zorder=4
            )


def _number_text(asymmetry: Asymmetry, *, narrow: bool) -> str:
    index = show(asymmetry.index_percent, Style.SIGNED_PERCENT)
    low, high = asymmetry.interval_low_percent, asymmetry.interval_high_percent
    if narrow or low is None or high is None:
        return index
    return f"{index}  ({show(low, Style.SIGNED_PERCENT)} to {show(high, Style.SIGNED_PERCENT)})"


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
