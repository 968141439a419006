"""The chart of asymmetries: results in, SVG bytes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from pipeline.core.results import (
    Asymmetry,
    Lead,
    Measures,
    Verdict,
    leading,
)
from pipeline.report import words
from pipeline.report.drawing import (
    COLOURS,
    NARROW_PX,
    both_sides,
    chart_figure,
    drawing,
    label_width_px,
    mark_cuts,
    row_axes,
    to_svg,
)
from pipeline.report.format import Style, show
from pipeline.report.head import Entry, Head
from pipeline.report.reach import axis_reach, drawn_values, goes_on

#: The line around a bar that is not judged, and the hatch of one of a part of a muscle.
_NOT_JUDGED = (0, (3, 2))
_IN_PART = "////"


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
    narrow = width_px < NARROW_PX
    row_px, bottom_px = 21.0, 40.0
    label_px, number_px = label_width_px(width_px), 44.0 if narrow else 170.0
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
            (both_sides(""), "larger than the measurement error"),
        ),
        (
            Verdict.WITHIN_ERROR in verdicts,
            (both_sides("-soft", linewidth=0.8), "may be nothing but measurement error"),
        ),
        (
            None in verdicts,
            (both_sides(None, linewidth=0.8, linestyle=_NOT_JUDGED), "not judged"),
        ),
        (
            any(a.extent == "matched" for a in drawn),
            (
                both_sides("-soft", linewidth=0.8, hatch=_IN_PART),
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


def _reach(rows: Sequence[_Row]) -> float:
    """Half width of the axis, percent: nearly everything drawn fits, in steps of 5."""
    drawn = [
        (*drawn_values(row.asymmetry), *([] if row.limit_percent is None else [row.limit_percent]))
        for row in rows
        if row.asymmetry is not None
    ]
    return axis_reach(drawn)


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
        linestyle=_NOT_JUDGED if a.verdict is None else "-",
        hatch=_IN_PART if matched else None,
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
