"""Sheets of paper: places in mm, and text that flows from one sheet to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle

from pipeline.report.drawing import COLOURS, lines_of

WIDTH_MM, HEIGHT_MM = 210.0, 297.0
MARGIN_MM = 16.0
#: Width between the margins.
TEXT_MM = WIDTH_MM - 2.0 * MARGIN_MM
#: Level of the lowest line of text; below it stands the foot of the page.
LOWEST_MM = HEIGHT_MM - 15.0
#: Level of the line at the foot of the page.
FOOT_MM = HEIGHT_MM - 10.0
_MM_PER_INCH = 25.4
_POINTS_PER_MM = 72.0 / _MM_PER_INCH
#: Height of a line of text of one point, in mm.
_LINE_MM_PER_POINT = 0.48
#: Sizes of letters in points; smaller ones than the first cannot be read on paper.
SMALL, BODY, HEADING, TITLE = 8.0, 9.0, 11.5, 17.0


@dataclass
class Sheet:
    """One A4 page, filled from the top; places are in mm from its upper left corner."""

    figure: Figure = field(
        default_factory=lambda: Figure(figsize=(WIDTH_MM / _MM_PER_INCH, HEIGHT_MM / _MM_PER_INCH))
    )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = BODY,
        bold: bool = False,
        colour: str = "ink",
        align: str = "left",
    ) -> None:
        """One line of text with its baseline at y."""
        self.figure.text(
            x / WIDTH_MM,
            1.0 - y / HEIGHT_MM,
            text,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            color=COLOURS[colour],
            ha=align,
            # A dollar sign in a label is a dollar sign, not the start of a formula.
            parse_math=False,
        )

    def paragraph(
        self,
        x: float,
        y: float,
        width: float,
        text: str,
        *,
        size: float = BODY,
        colour: str = "ink",
    ) -> float:
        """Text in lines of at most a width; returns where the next line would stand."""
        for line in wrapped(text, width, size):
            self.text(x, y, line, size=size, colour=colour)
            y += line_mm(size)
        return y

    def rule(self, y: float, x0: float = MARGIN_MM, x1: float = WIDTH_MM - MARGIN_MM) -> None:
        """A thin line across."""
        self.line((x0, x1), y, colour="line", width=0.6)

    def line(self, ends: tuple[float, float], y: float, *, colour: str, width: float) -> None:
        """A horizontal line."""
        x = [end / WIDTH_MM for end in ends]
        level = 1.0 - y / HEIGHT_MM
        self.figure.add_artist(
            Line2D(x, [level, level], color=COLOURS[colour], linewidth=width, zorder=3)
        )

    def arrow(self, x: float, y: float, *, to_right: bool) -> None:
        """A small arrow head that begins at x, its middle at y: what ends here goes on."""
        tip = x + (1.8 if to_right else -1.8)
        corners = [(x, y - 1.2), (x, y + 1.2), (tip, y)]
        places = [(a / WIDTH_MM, 1.0 - b / HEIGHT_MM) for a, b in corners]
        self.figure.add_artist(
            Polygon(places, facecolor=COLOURS["ink"], edgecolor="none", zorder=4)
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle with its upper edge at y; colour as #rrggbb."""
        self.figure.add_artist(
            Rectangle(
                (x / WIDTH_MM, 1.0 - (y + height) / HEIGHT_MM),
                width / WIDTH_MM,
                height / HEIGHT_MM,
                facecolor=colour,
                edgecolor="none",
                zorder=2,
            )
        )


def line_mm(size: float) -> float:
    """Height of a line of text of so many points."""
    return _LINE_MM_PER_POINT * size


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Text broken into lines of at most a width in mm."""
    return lines_of(text, width * _POINTS_PER_MM, size)


class Flow:
    """Text from the top of a sheet down, and on to another sheet where one is full."""

    def __init__(self, begin: Callable[[str], tuple[Sheet, float]], title: str) -> None:
        """Args:
        begin: makes a sheet with this title; returns it and the level of its first line.
        title: of the first sheet; those it goes on to carry it with the word "continued".
        """
        self._begin, self._title = begin, title
        self.sheet, self.y = begin(title)
        self.sheets = [self.sheet]

    def need(self, height_mm: float) -> None:
        """Go on to another sheet unless so much room is left on this one."""
        if self.y + height_mm > LOWEST_MM:
            self.sheet, self.y = self._begin(f"{self._title}, continued")
            self.sheets.append(self.sheet)

    def space(self, height_mm: float) -> None:
        """Leave room before what follows."""
        self.y += height_mm

    def heading(self, text: str) -> None:
        """A heading that is not parted from two lines below it."""
        self.need(6.0 + line_mm(BODY))
        self.sheet.text(MARGIN_MM, self.y, text, size=HEADING, bold=True)
        self.y += 6.0

    def paragraph(
        self, text: str, *, size: float = BODY, colour: str = "ink", after: float = 0.0
    ) -> None:
        """Text across the sheet, with room after it; every line finds its place on a sheet."""
        for line in wrapped(text, TEXT_MM, size):
            self.need(0.0)
            self.sheet.text(MARGIN_MM, self.y, line, size=size, colour=colour)
            self.y += line_mm(size)
        self.y += after
