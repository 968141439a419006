"""What every chart and picture shares: colours, a figure, and bytes that repeat exactly."""

from __future__ import annotations

import base64
import functools
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.report.format import Style, show
from pipeline.report.reach import goes_on

Pixels = NDArray[np.uint8]

#: Comes with matplotlib, so that letters are as wide on every machine.
FONT = "DejaVu Sans"

#: Colours of the page and its charts, by the name of their variable in the style sheet. Blue
#: and orange stay apart for every kind of colour vision; letters in them, in ink and muted have the
#: contrast of WCAG AA on every paper.
COLOURS: Mapping[str, str] = FrozenDict(
    {
        "ink": "#1c2733",
        "muted": "#5d6b7a",
        "line": "#d8dee5",
        "band": "#e9edf1",
        "paper": "#fefefe",
        "right": "#1d69ab",
        "right-soft": "#a5c8e6",
        "left": "#ae4d08",
        "left-soft": "#f2c49c",
    }
)

#: The same for dark screens.
DARK_COLOURS: Mapping[str, str] = FrozenDict(
    {
        "ink": "#e6ebf1",
        "muted": "#9aa8b7",
        "line": "#2c3642",
        "band": "#232c37",
        "paper": "#12171d",
        "right": "#62a9e8",
        "right-soft": "#2b4f70",
        "left": "#f08a3c",
        "left-soft": "#6e4522",
    }
)

#: Below this width a chart drops what a phone has no room for.
NARROW_PX = 600

#: Charts are drawn in CSS pixels: one point of a chart is one pixel of the page.
POINTS_PER_INCH = 72


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib as shipped, whatever the user's own settings, plus what makes bytes repeat."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "myosymmetry",
                "font.family": FONT,
                "axes.facecolor": "none",
                "figure.facecolor": COLOURS["paper"],
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.edgecolor": COLOURS["line"],
                "axes.labelcolor": COLOURS["muted"],
                "xtick.color": COLOURS["muted"],
                "ytick.color": COLOURS["muted"],
                "text.color": COLOURS["ink"],
                "hatch.linewidth": 1.6,
            }
        )
        yield


def label_width_px(width_px: float) -> float:
    """Room for the names of muscles beside a chart of a width."""
    return 142.0 if width_px < NARROW_PX else 190.0


def both_sides(shade: str | None, **style: Any) -> tuple[Patch, Patch]:
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


def chart_figure(width_px: float, height_px: float) -> Figure:
    """An empty figure of a size in CSS pixels."""
    return Figure(figsize=(width_px / POINTS_PER_INCH, height_px / POINTS_PER_INCH))


def axes_at(figure: Figure, box_px: tuple[float, float, float, float]) -> Axes:
    """Axes in a figure, in CSS pixels: left, bottom, width, height."""
    width, height = (inches * POINTS_PER_INCH for inches in figure.get_size_inches())
    x, y, w, h = box_px
    return figure.add_axes((x / width, y / height, w / width, h / height))


def row_axes(
    figure: Figure, box_px: tuple[float, float, float, float], *, rows: int, reach: float
) -> Axes:
    """Axes of a chart with one row per item from the top and values around 0."""
    axes = axes_at(figure, box_px)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return axes


def mark_cuts(axes: Axes, y: float, values: Sequence[float], *, reach: float, size: float) -> None:
    """An arrow with its number at each end of a row that goes on beyond the axes.

    Args:
        axes: of the chart, from -reach to reach.
        y: level of the row.
        values: what is drawn in it, percent.
        reach: where the axes end.
        size: of the number.
    """
    for value, end, arrow, inwards in zip(
        goes_on(values, reach), (-reach, reach), "<>", ("left", "right"), strict=True
    ):
        if value is None:
            continue
        axes.plot(
            [end], [y], marker=arrow, markersize=7.0, color=COLOURS["ink"], clip_on=False, zorder=6
        )
        axes.annotate(
            show(value, Style.SIGNED_PERCENT),
            (end, y),
            (7.0 if inwards == "left" else -7.0, 0.0),
            textcoords="offset points",
            ha=inwards,
            va="center",
            fontsize=size,
            zorder=5,
            bbox={"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1.0},
        )


def lines_of(text: str, width_points: float, size: float, *, bold: bool = False) -> list[str]:
    """Text broken between words into lines that are at most so wide in letters of a size."""
    room, blank = width_points / size, _width(" ", bold=bold)
    lines: list[str] = []
    taken = 0.0
    # No-break spaces hold numbers and their units together.
    for word in re.findall(r"[^ \t\n]+", text):
        needed = _width(word, bold=bold)
        if lines and taken + blank + needed <= room:
            lines[-1] += f" {word}"
            taken += blank + needed
        else:
            lines.append(word)
            taken = needed
    return lines


@functools.cache
def _width(text: str, *, bold: bool) -> float:
    """Width of text in sizes of its letters. Words come again and again: each is measured once."""
    letters = FontProperties(family=FONT, size=1.0, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, letters, False)
    return float(width)


def to_svg(figure: Figure) -> bytes:
    """The figure as a stand-alone SVG file, the same bytes every time.

    It brings its own paper: dark letters on a dark viewer could not be read.
    """
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(
        buffer,
        format="svg",
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    return buffer.getvalue()


def to_pixels(figure: Figure) -> Pixels:
    """The figure at its own resolution as RGB, (height, width, 3)."""
    width, height = FigureCanvasAgg(figure).get_width_height()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi="figure", facecolor=figure.get_facecolor())
    pixels = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    return pixels.reshape(height, width, 4)[:, :, :3].copy()


def to_png(pixels: Pixels) -> bytes:
    """RGB or RGBA pixels as a PNG file without metadata."""
    buffer = io.BytesIO()
    # The usual level, 6, takes twice as long for 3 % less.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def picture_url(pixels: Pixels) -> str:
    """RGB or RGBA pixels as a data URL for the page: WebP, a quarter of the size of PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def deepest(mask: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Row, column and depth (pixels) of the pixel furthest from the border of a shape: a place
    for its number.

    Args:
        mask: pixels of the shape (rows, columns), not empty; it ends where the picture does.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(row) - 1, int(column) - 1, float(depth[row, column])


def inline_svg(svg: bytes, *, prefix: str, title: str) -> str:
    """An SVG made by to_svg as an element of an HTML page.

    Its colours become the page's variables, so that a chart follows light and dark; its ids get
    a prefix, so that two charts never share one; namespaces and sizes, which HTML does not need,
    go.

    Args:
        svg: bytes of to_svg.
        prefix: put before every id, unique on the page.
        title: alternative text; markup in it is escaped.
    """
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    text = re.sub(r"font: ([\d.]+px|(?:\w+ )+[\d.]+px) 'DejaVu Sans'[^;\"]*", _page_font, text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    view_box = re.search(r'viewBox="[^"]*"', text)
    if view_box is None:
        raise InvariantError("An SVG of matplotlib has no viewBox")
    head = f'<svg class="chart" {view_box[0]} role="img" aria-label="{html.escape(title)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)


def _page_font(match: re.Match[str]) -> str:
    return f"font: {match[1]} var(--sans)"
