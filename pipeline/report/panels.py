"""Many small charts in one figure, drawn by a few artists of matplotlib.

Axes of its own for each of 60 panels would take three times as long: what looks alike in all of
them is one line or one area, in pixels of the figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from pipeline.report.drawing import COLOURS, POINTS_PER_INCH, axes_at

#: Left, bottom, width, height in CSS pixels.
Box = tuple[float, float, float, float]
Doubles = NDArray[np.float64]

#: Room between a panel and the words around it, CSS pixels.
_PAD_PX, _TITLE_PAD_PX = 3.0, 5.0
_TITLE_SIZE, _LEVEL_SIZE = 10.0, 8.5


@dataclass(frozen=True)
class Pen:
    """How a line is drawn.

    Attributes:
        colour: of the line.
        width: in points.
        dashes: points drawn and left out by turns; empty: solid.
        order: what has more lies above what has less; areas have 1.
    """

    colour: str
    width: float
    dashes: tuple[float, ...] = ()
    order: float = 2.0


_AXIS = Pen(COLOURS["line"], 0.8, order=2.5)
_GRID = Pen(COLOURS["line"], 0.6, order=1.5)


class Panels:
    """The panels of a figure; `draw` puts into it what they collected."""

    def __init__(self, figure: Figure) -> None:
        width, height = (inches * POINTS_PER_INCH for inches in figure.get_size_inches())
        self._axes = axes_at(figure, (0.0, 0.0, width, height))
        self._axes.set_axis_off()
        self._axes.set_xlim(0.0, width)
        self._axes.set_ylim(0.0, height)
        self._lines: dict[Pen, list[Doubles]] = {}
        self._areas: dict[tuple[str, float], list[Doubles]] = {}

    def panel(self, box_px: Box, *, across: tuple[float, float], up: tuple[float, float]) -> Panel:
        """A panel in a box, from which to which value it reaches."""
        return Panel(self, box_px, across, up)

    def line(self, points_px: Doubles, pen: Pen) -> None:
        """A line through points (n, 2); NaN interrupts it."""
        self._lines.setdefault(pen, []).extend((points_px, np.full((1, 2), np.nan)))

    def area(self, corners_px: Doubles, colour: str, order: float) -> None:
        """Filled shapes (n, corners, 2)."""
        self._areas.setdefault((colour, order), []).append(corners_px)

    def text(self, x_px: float, y_px: float, text: str, **style: Any) -> None:
        """Words at a place."""
        self._axes.text(x_px, y_px, text, parse_math=False, **style)

    def draw(self) -> None:
        """Put all lines and areas into the figure."""
        for (colour, order), shapes in self._areas.items():
            path = Path.make_compound_path_from_polys(np.concatenate(shapes))
            self._axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0.0, zorder=order))
        for pen, lines in self._lines.items():
            self._axes.plot(
                *np.concatenate(lines).T,
                color=pen.colour,
                linewidth=pen.width,
                linestyle=(0, pen.dashes) if pen.dashes else "-",
                zorder=pen.order,
            )


@dataclass(frozen=True)
class Panel:
    """One small chart.

    Attributes:
        panels: those it belongs to.
        box_px: where it lies in the figure.
        across, up: the values at its edges.
    """

    panels: Panels
    box_px: Box
    across: tuple[float, float]
    up: tuple[float, float]

    def line(self, across: Sequence[float], up: Sequence[float], pen: Pen) -> None:
        """A line through points; NaN interrupts it."""
        self.panels.line(self._px(np.column_stack((across, up))), pen)

    def area(
        self, shapes: Sequence[Sequence[tuple[float, float]]], colour: str, *, order: float = 1.0
    ) -> None:
        """Filled shapes of as many corners each, cut where the panel ends."""
        if not shapes:
            return
        low, high = zip(self.across, self.up, strict=True)
        self.panels.area(self._px(np.clip(np.array(shapes), low, high)), colour, order)

    def title(self, text: str) -> None:
        """Above the panel, at its left edge."""
        x, y, _, height = self.box_px
        self.panels.text(x, y + height + _TITLE_PAD_PX, text, fontsize=_TITLE_SIZE)

    def above(self, across: float, text: str, *, size: float) -> None:
        """A word on the upper edge."""
        self._write(across, self.up[1], text, ha="center", va="bottom", fontsize=size)

    def scale(self, ticks: Iterable[tuple[float, str]], *, size: float, grid: bool) -> None:
        """Numbers beside the panel, on request with lines across it."""
        for value, text in ticks:
            self._write(
                *(self.across[0], value, text),
                dx=-_PAD_PX,
                ha="right",
                va="center_baseline",
                fontsize=size,
            )
            if grid:
                self.line(self.across, (value, value), _GRID)

    def levels(self, names: Iterable[tuple[float, str]]) -> None:
        """Names below the panel; those at its ends stay inside it."""
        ends = {self.across[0]: "left", self.across[1]: "right"}
        for at, text in names:
            ha = ends.get(at, "center")
            self._write(at, self.up[0], text, dy=-_PAD_PX, ha=ha, va="top", fontsize=_LEVEL_SIZE)

    def axes(self) -> None:
        """The left and the lower edge."""
        (left, right), (low, high) = self.across, self.up
        self.line((left, left, right), (high, low, low), _AXIS)

    def _write(
        self,
        across: float,
        up: float,
        text: str,
        *,
        dx: float = 0.0,
        dy: float = 0.0,
        **style: Any,
    ) -> None:
        x, y = self._px(np.array([across, up]))
        self.panels.text(x + dx, y + dy, text, color=COLOURS["muted"], **style)

    def _px(self, values: Doubles) -> Doubles:
        """Values (..., 2) in pixels of the figure."""
        low, high = np.transpose((self.across, self.up))
        box = np.array(self.box_px)
        return np.asarray(box[:2] + (values - low) / (high - low) * box[2:], dtype=np.float64)
