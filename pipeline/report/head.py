"""The head of a saved figure: what it shows, of whom, and what its lines and colours mean.

A figure leaves the page it was made for; it has to be read without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple

from pipeline.report.drawing import (
    COLOURS,
    POINTS_PER_INCH,
    Pixels,
    drawing,
    lines_of,
    to_pixels,
)

#: Height of a line of text, and of an entry of the key, in sizes of its letters.
_LINE, _ENTRY = 1.4, 1.55
#: Room at the edges and below the head, points.
_EDGE, _BELOW = 4.0, 8.0
#: Narrower pictures are framed to this width, so that their head can be read; points.
_LEAST_WIDTH = 300.0

#: What stands in the key: a line, a patch or several of them beside each other, and its meaning.
Entry = tuple[Any, str]


@dataclass(frozen=True)
class Head:
    """What stands above a figure.

    Attributes:
        title: what is shown, with its unit.
        notes: of whom, and how it is to be read.
        key: the meaning of lines and colours.
        columns: of the key.
        size: of the letters, points.
        ink: colour of the letters.
    """

    title: str
    notes: str
    key: Sequence[Entry] = ()
    columns: int = 1
    size: float = 10.0
    ink: str = COLOURS["ink"]

    def height(self, width: float) -> float:
        """In points, above a figure of a width in points."""
        titles, notes = self._lines(width)
        lines = _LINE * (self.size + 1.0) * len(titles) + _LINE * self.size * len(notes)
        entries = _ENTRY * self.size * math.ceil(len(self.key) / self.columns)
        return _EDGE + lines + entries + _BELOW

    def draw(self, figure: Figure) -> None:
        """Write it at the upper edge of a figure."""
        width, height = (POINTS_PER_INCH * inches for inches in figure.get_size_inches())
        y = height - _EDGE
        titles, notes = self._lines(width)
        for lines, size, weight in (
            (titles, self.size + 1.0, "bold"),
            (notes, self.size, "normal"),
        ):
            for line in lines:
                figure.text(
                    *(_EDGE / width, y / height),
                    line,
                    va="top",
                    fontsize=size,
                    fontweight=weight,
                    parse_math=False,
                    color=self.ink,
                )
                y -= _LINE * size
        if self.key:
            figure.legend(
                *zip(*self.key, strict=True),
                loc="upper left",
                bbox_to_anchor=(_EDGE / width, y / height),
                ncols=self.columns,
                frameon=False,
                fontsize=self.size,
                labelcolor=self.ink,
                borderpad=0.0,
                borderaxespad=0.0,
                labelspacing=_ENTRY - 1.2,
                handlelength=2.2,
                columnspacing=1.4,
                handler_map={tuple: HandlerTuple(ndivide=None, pad=0.2)},
            )

    def _lines(self, width: float) -> tuple[list[str], list[str]]:
        room = width - 2.0 * _EDGE
        return (
            lines_of(self.title, room, self.size + 1.0, bold=True),
            lines_of(self.notes, room, self.size),
        )


def framed(pixels: Pixels, head: Head, *, dpi: int, background: str) -> Pixels:
    """A picture below its head, RGB.

    Args:
        pixels: RGB or RGBA; what is transparent shows the background.
        head: what stands above it.
        dpi: pixels per inch.
        background: colour around the picture, #rrggbb.
    """
    width = max(pixels.shape[1], round(_LEAST_WIDTH * dpi / POINTS_PER_INCH))
    height = head.height(width * POINTS_PER_INCH / dpi) / POINTS_PER_INCH
    with drawing():
        # A quarter of a pixel more, since what is a hair short of a pixel is cut.
        size = ((width + 0.25) / dpi, height)
        figure = Figure(figsize=size, dpi=dpi, facecolor=background)
        head.draw(figure)
        above = to_pixels(figure)
    below = np.empty((pixels.shape[0], width, 3), dtype=np.uint8)
    below[...] = above[-1, 0]
    left = (width - pixels.shape[1]) // 2
    there = below[:, left : left + pixels.shape[1]]
    opaque = pixels[..., 3:] / 255.0 if pixels.shape[2] == 4 else 1.0
    there[...] = np.rint(opaque * pixels[..., :3] + (1.0 - opaque) * there)
    return np.vstack([above, below])
