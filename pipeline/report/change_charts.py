"""Charts of a follow-up: one function per chart, changes in, SVG bytes out."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.core.anatomy import MUSCLES_BY_NAME
from pipeline.core.change import Changes, ChangeVerdict, MuscleChange, ScanChanges, VolumeChange
from pipeline.report.drawing import (
    COLOURS,
    NARROW_PX,
    axes_at,
    chart_figure,
    drawing,
    label_width_px,
    mark_cuts,
    row_axes,
    to_svg,
)
from pipeline.report.format import Style, show
from pipeline.report.reach import axis_reach
from pipeline.report.words import group_title, muscle_title, region_title

#: How far right and left stand from the middle of their row.
_APART = 0.18
#: Groups whose volumes over time are shown whether they changed or not.
_ALWAYS_SHOWN = frozenset({"limb", "functional_group"})
#: Labels of scans longer than this are cut below a panel; the table of scans has them whole.
_LABEL_LETTERS = 9


def interval_chart(later: ScanChanges, *, width_px: int) -> bytes:
    """Change of both sides of every muscle with its 95 % interval; filled = detectable.

    Args:
        later: the changes of one later scan; muscles without a change are left out.
        width_px: width on the page.
    """
    muscles = [c for c in later.changes if c.kind == "muscle" and _drawn(c)]
    regions = dict.fromkeys(MUSCLES_BY_NAME[c.name].region for c in muscles)
    rows: list[str | MuscleChange] = []
    for region in regions:
        rows.append(region_title(region))
        rows += [c for c in muscles if MUSCLES_BY_NAME[c.name].region == region]
    narrow = width_px < NARROW_PX
    row_px, top_px, bottom_px = 23.0, 30.0, 40.0
    label_px, number_px = label_width_px(width_px), 14.0 if narrow else 150.0
    plot_px = width_px - label_px - number_px
    height_px = top_px + bottom_px + row_px * max(1, len(rows))
    size = 10.5 if narrow else 12.0
    with drawing():
        figure = chart_figure(width_px, height_px)
        reach = _reach(muscles)
        box_px = (label_px, bottom_px, plot_px, height_px - top_px - bottom_px)
        axes = row_axes(figure, box_px, rows=len(rows), reach=reach)
        axes.axvline(0.0, color=COLOURS["muted"], linewidth=1.0, zorder=1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9))
        axes.tick_params(axis="x", length=0, labelsize=size - 1.0, pad=6)
        axes.grid(axis="x", color=COLOURS["line"], linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel("change since the first scan, %", fontsize=size - 1.0)
        beside = axes.get_yaxis_transform()
        for y, row in enumerate(rows):
            if isinstance(row, str):
                axes.text(
                    -label_px / plot_px, y, row, transform=beside, va="center", fontsize=size,
                    fontweight="bold",
                )  # fmt: skip
                continue
            axes.text(
                -8.0 / plot_px, y, muscle_title(row.name), transform=beside, ha="right",
                va="center", fontsize=size,
            )  # fmt: skip
            for at, volume, side in (
                (y - _APART, row.volume_right, "right"),
                (y + _APART, row.volume_left, "left"),
            ):
                _interval(axes, at, volume, side)
                mark_cuts(axes, at, _ends(volume), reach=reach, size=size - 3.5)
            if not narrow:
                axes.text(
                    1.0 + 8.0 / plot_px, y, _numbers(row), transform=beside, va="center",
                    fontsize=size - 1.0, color=COLOURS["muted"],
                )  # fmt: skip
        return to_svg(figure)


def timeline_chart(changes: Changes, *, columns: int, width_px: int) -> bytes:
    """Volumes in every scan, one panel each; bands are 95 % of one scan.

    The limb, the functional groups, and every muscle that changed in some scan. Right is a solid
    blue line, left a dashed orange one.
    """
    changed = {c.name for one in changes.later for c in one.changes if _changed(c)}
    names = [
        c.name
        for c in changes.later[0].changes
        if c.kind in _ALWAYS_SHOWN or (c.kind == "muscle" and c.name in changed)
    ]
    lines = math.ceil(len(names) / columns)
    gap_px, panel_px, title_px, foot_px, side_px = 24.0, 80.0, 22.0, 22.0, 30.0
    line_px = panel_px + title_px + foot_px
    height_px = lines * line_px
    panel_width = (width_px - side_px - (columns - 1) * gap_px - 4.0) / columns
    with drawing():
        figure = chart_figure(width_px, height_px)
        for i, name in enumerate(names):
            x = side_px + (i % columns) * (panel_width + gap_px)
            y = height_px - (i // columns) * line_px - title_px - panel_px
            axes = axes_at(figure, (x, y, panel_width, panel_px))
            _timeline_panel(axes, changes, name)
        return to_svg(figure)


def _changed(change: MuscleChange) -> bool:
    verdicts = (change.volume_right.verdict, change.volume_left.verdict)
    return any(v in (ChangeVerdict.INCREASED, ChangeVerdict.DECREASED) for v in verdicts)


def _drawn(change: MuscleChange) -> bool:
    return any(v.change_percent is not None for v in (change.volume_right, change.volume_left))


def _reach(muscles: list[MuscleChange]) -> float:
    """Half width of the axis, percent: nearly everything drawn fits, in steps of 5."""
    drawn = [_ends(v) for c in muscles for v in (c.volume_right, c.volume_left)]
    return axis_reach(drawn)


def _ends(volume: VolumeChange) -> list[float]:
    ends = (volume.interval_low_percent, volume.interval_high_percent)
    return [end for end in ends if end is not None]


def _interval(axes: Axes, y: float, volume: VolumeChange, side: str) -> None:
    low, high = volume.interval_low_percent, volume.interval_high_percent
    if volume.change_percent is None or low is None or high is None:
        return
    colour = COLOURS[side]
    axes.plot([low, high], [y, y], color=colour, linewidth=1.4, zorder=2)
    found = volume.verdict in (ChangeVerdict.INCREASED, ChangeVerdict.DECREASED)
    axes.plot(
        [volume.change_percent],
        [y],
        marker="o" if side == "right" else "s",
        markersize=5.5,
        markerfacecolor=colour if found else COLOURS["paper"],
        markeredgecolor=colour,
        zorder=3,
    )


def _numbers(change: MuscleChange) -> str:
    texts = [
        show(v.change_percent, Style.SIGNED_PERCENT)
        for v in (change.volume_right, change.volume_left)
    ]
    return f"R {texts[0]}   L {texts[1]}"


def _timeline_panel(axes: Axes, changes: Changes, name: str) -> None:
    later = [next((c for c in one.changes if c.name == name), None) for one in changes.later]
    places = range(len(changes.scans))
    for side, style in (("right", "-"), ("left", (0, (4, 2)))):
        found = [None if c is None else getattr(c, f"volume_{side}") for c in later]
        first = next((v.before_ml for v in found if v is not None), None)
        values = [first, *(None if v is None else v.after_ml for v in found)]
        y = [math.nan if value is None else value for value in values]
        # The detectable change between two scans is sqrt(2) times the 95 % of one.
        detectable = [v.detectable_percent for v in found if v is not None and v.detectable_percent]
        if detectable:
            share = max(detectable) / math.sqrt(2.0) / 100.0
            axes.fill_between(
                places,
                [value * math.exp(-share) for value in y],
                [value * math.exp(share) for value in y],
                color=COLOURS[f"{side}-soft"],
                alpha=0.35,
                linewidth=0,
            )
        axes.plot(
            places, y, color=COLOURS[side], linestyle=style, linewidth=1.5, marker="o", markersize=3
        )
    title = muscle_title(name) if name in MUSCLES_BY_NAME else group_title(name)
    axes.set_title(title, fontsize=10, loc="left", pad=5)
    axes.set_xlim(-0.25, len(changes.scans) - 0.75)
    labels = [scan.label.removeprefix("ses-")[:_LABEL_LETTERS] for scan in changes.scans]
    axes.set_xticks(list(places), labels)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
    axes.tick_params(length=0, labelsize=8.5, pad=3)
    axes.grid(axis="y", color=COLOURS["line"], linewidth=0.6)
