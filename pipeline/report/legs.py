"""The legs from front and back as their own labels show them, coloured by what differs.

What is drawn is the surface that a viewer in front of or behind the labelled muscles would see:
the first labelled voxel along every line of sight, shaded by its depth. From the front the
patient's right is on the picture's left, from the back on its right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES_BY_ID, STRUCTURE_IDS, UNIONS, Side
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Compared,
    Lead,
    Measures,
    Verdict,
    leading,
)
from pipeline.report.drawing import Pixels, deepest
from pipeline.report.evidence import ReportEvidence
from pipeline.report.head import Head

View = Literal["front", "back"]
VIEWS: tuple[View, ...] = ("front", "back")

#: Purple (smaller) over pale (equal) to green (larger): apart for every kind of colour vision, and
#: apart from the blue and orange that name the sides elsewhere on the page.
_DIVERGING = matplotlib.colormaps["PRGn"]
#: The ends of the colour map are almost black; the scale stops short of them.
_FIRST, _LAST = 0.1, 0.9
BONE, HATCH, UNJUDGED, UNJUDGED_DOT = "#d9d3c3", "#8d8d94", "#b9bec6", "#7b838f"

#: Structures that carry a result; every other label is bone.
_MEASURED = (*MUSCLES_BY_ID, *(union.id for union in UNIONS))

#: Size of a pixel in the plane of the picture; finer than most scans, so that borders are smooth.
_PIXEL_MM = 1.25
#: Width of the blur that turns voxel steps into smooth borders and surfaces.
_SMOOTH_MM = 2.0
#: Distance between hatching lines, and their width, in pixels.
_HATCH_PX, _HATCH_LINE_PX = 9, 3
#: Distance between the dots on what was not judged, in pixels.
_DOT_PX = 8
#: A muscle counts as seen where it fills at least this area of one view.
_SEEN_MM2 = 250.0
#: How dark a surface turned away from the viewer becomes.
_SHADE = 0.5


@dataclass(frozen=True)
class Paint:
    """How one muscle of one leg is painted.

    Attributes:
        excess_percent: how much larger than the other leg's, negative = smaller; None = no number.
        certain: whether more than measurement error.
        judged: whether there is a verdict.
    """

    excess_percent: float | None
    certain: bool
    judged: bool


@dataclass(frozen=True)
class Pin:
    """A number on a muscle: its place in percent of the picture's width and height."""

    number: int
    x_percent: float
    y_percent: float


@dataclass(frozen=True, eq=False)
class LegsView:
    """One view of both legs.

    Attributes:
        view: from the front or the back.
        pixels: RGBA, transparent around the legs.
        visible: label value of OWN_SCHEME at every pixel, 0 = none.
    """

    view: View
    pixels: Pixels
    visible: NDArray[np.int16]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.visible.shape[1], self.visible.shape[0]

    def shows(self, muscle: str, side: Side) -> float:
        """Area of a muscle in this view, mm^2."""
        return float(np.count_nonzero(self.visible == _value(muscle, side))) * _PIXEL_MM**2


def paints(measures: Measures, lead: Lead) -> Mapping[int, Paint]:
    """How every muscle of both legs is painted, by label value."""
    unions = [g for g in measures.measures.groups if g.kind == "union"]
    found = {}
    results: tuple[Compared, ...] = (*measures.measures.muscles, *unions)
    for result in results:
        a = leading(result, lead)
        for sign, offset in ((1.0, 0), (-1.0, LEFT_OFFSET)):
            found[STRUCTURE_IDS[result.name] + offset] = Paint(
                excess_percent=None if a.index_percent is None else sign * a.index_percent,
                certain=a.verdict not in (None, Verdict.WITHIN_ERROR),
                judged=a.verdict is not None,
            )
    return FrozenDict(found)


def draw_view(
    evidence: ReportEvidence, painted: Mapping[int, Paint], view: View, *, scale_percent: float
) -> LegsView | None:
    """Both legs from one side; None where no muscle is labelled.

    Args:
        evidence: labels on a canonical grid.
        painted: how each label value is painted; what is missing is drawn as not judged.
        view: from the front or the back.
        scale_percent: difference at which the colours end.
    """
    grid = evidence.labels.grid
    x_mm, y_mm, z_mm = grid.voxel_sizes_mm
    data = evidence.labels.data
    if not np.isin(np.unique(data) % LEFT_OFFSET, _MEASURED).any():
        return None
    occupied = np.argwhere((data > 0).any(axis=1))
    (i0, k0), (i1, k1) = occupied.min(axis=0), occupied.max(axis=0) + 1
    # Lines of sight run along the second axis; the viewer stands at its upper end in front.
    seen = data[i0:i1, :, k0:k1]
    seen = seen[:, ::-1, :] if view == "front" else seen
    first = np.argmax(seen > 0, axis=1)
    labels = np.take_along_axis(seen, first[:, None, :], axis=1)[:, 0, :]
    depth_mm = first * y_mm
    # Rows run down from the head; from the front the patient's right lies on the left.
    labels, depth_mm = labels.T[::-1], depth_mm.T[::-1]
    if view == "front":
        labels, depth_mm = labels[:, ::-1], depth_mm[:, ::-1]
    visible, depth = _enlarged(labels, depth_mm, (z_mm / _PIXEL_MM, x_mm / _PIXEL_MM))
    light = _light(visible, depth)
    colours = _colours(visible, painted, scale_percent)
    pixels = np.zeros((*visible.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.clip(255.0 * colours * light[..., None], 0.0, 255.0)
    pixels[..., 3] = np.where(visible > 0, 255, 0)
    return LegsView(view, pixels, visible)


def head_of(view: View, lead: Lead, who: str, *, scale_percent: float) -> Head:
    """What stands above a view where it is saved as a file.

    Args:
        view: from the front or the back.
        lead: which difference the colours show.
        who: subject and session.
        scale_percent: difference at which the colours end.
    """
    sides = ("right", "left") if view == "front" else ("left", "right")

    def patch(colour: str, **style: Any) -> Patch:
        return Patch(**{"facecolor": colour, "edgecolor": "none", **style})

    return Head(
        title=f"Difference in {lead.replace('_', ' ')} from the other leg, from the {view}",
        notes=f"{who}. The patient's {sides[0]} leg, beside it the {sides[1]} one.",
        key=[
            (
                patch(colour_of(-scale_percent, scale_percent)),
                f"smaller than in the other leg by {scale_percent:g} % or more",
            ),
            (patch(colour_of(0.0, scale_percent), edgecolor=HATCH, linewidth=0.5), "equal"),
            (
                patch(colour_of(scale_percent, scale_percent)),
                f"larger than in the other leg by {scale_percent:g} % or more",
            ),
            (patch("none", hatch="/////", edgecolor=HATCH), "may be measurement error"),
            (patch(UNJUDGED, hatch="...", edgecolor=UNJUDGED_DOT), "not judged"),
            (patch(BONE), "bone"),
        ],
        size=8.0,
    )


def colour_of(excess_percent: float, scale_percent: float) -> str:
    """Colour of a muscle so much larger (negative: smaller) than the other leg's, #rrggbb."""
    share = 0.5 + 0.5 * np.clip(excess_percent / scale_percent, -1.0, 1.0)
    return to_hex(_DIVERGING(_FIRST + (_LAST - _FIRST) * float(share)))


def place_pins(
    views: Sequence[LegsView], muscles: Sequence[tuple[str, Side]]
) -> Mapping[View, tuple[Pin, ...]]:
    """Numbers from 1 for muscles, each in the view that shows most of it; unseen ones get none.

    Args:
        views: what is drawn.
        muscles: names and the side that carries the number, in order.
    """
    placed: dict[View, list[Pin]] = {view.view: [] for view in views}
    for number, (name, side) in enumerate(muscles, start=1):
        best = max(views, key=lambda view: view.shows(name, side))
        if best.shows(name, side) < _SEEN_MM2:
            continue
        row, column, _ = deepest(best.visible == _value(name, side))
        width, height = best.size
        placed[best.view].append(
            Pin(number, 100.0 * (column + 0.5) / width, 100.0 * (row + 0.5) / height)
        )
    return FrozenDict({view: tuple(pins) for view, pins in placed.items()})


def hidden(views: Sequence[LegsView], measures: Measures) -> tuple[str, ...]:
    """Names of the muscles that are measured but covered by others in every view."""
    return tuple(
        m.name
        for m in measures.measures.muscles
        if m.right.volume_in_view_ml is not None
        and m.left.volume_in_view_ml is not None
        and max(view.shows(m.name, side) for view in views for side in Side) < _SEEN_MM2
    )


def _value(muscle: str, side: Side) -> int:
    return STRUCTURE_IDS[muscle] + (LEFT_OFFSET if side is Side.LEFT else 0)


def _enlarged(
    labels: NDArray[np.integer], depth_mm: NDArray[np.floating], factors: tuple[float, float]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Labels and depth at the resolution of the picture, borders smooth instead of stepped."""
    shape = tuple(max(1, round(n * f)) for n, f in zip(labels.shape, factors, strict=True))
    blur = tuple(_SMOOTH_MM / (f * _PIXEL_MM) for f in factors)

    def enlarged(plane: NDArray[np.floating]) -> NDArray[np.float64]:
        smooth = ndimage.gaussian_filter(plane, blur, mode="nearest")
        # Linear between voxels, as scipy's, in a tenth of its time.
        picture = Image.fromarray(smooth.astype(np.float32))
        return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR), dtype=np.float64)

    visible = np.zeros(shape, dtype=np.int16)
    best = enlarged((labels == 0).astype(np.float64))
    for value in np.unique(labels[labels > 0]):
        share = enlarged((labels == value).astype(np.float64))
        visible[share > best] = value
        best = np.maximum(best, share)
    inside = (labels > 0).astype(np.float64)
    weight = np.maximum(enlarged(inside), 1e-6)
    return visible, enlarged(inside * depth_mm) / weight


def _light(visible: NDArray[np.int16], depth_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """How bright every pixel is: full where the surface faces the viewer, darker on its borders."""
    down, across = np.gradient(depth_mm, _PIXEL_MM)
    facing = 1.0 / np.sqrt(1.0 + down**2 + across**2)
    light = 1.0 - _SHADE * (1.0 - np.clip(facing, 0.0, 1.0))
    border = np.zeros(visible.shape, dtype=bool)
    border[1:] |= visible[1:] != visible[:-1]
    border[:, 1:] |= visible[:, 1:] != visible[:, :-1]
    light[border] *= 0.55
    return np.asarray(light)


def _colours(
    visible: NDArray[np.int16], painted: Mapping[int, Paint], scale_percent: float
) -> NDArray[np.float64]:
    rows, columns = np.indices(visible.shape)
    stripe = (rows + columns) % _HATCH_PX < _HATCH_LINE_PX
    dot = (rows % _DOT_PX < 2) & ((columns + (rows // _DOT_PX % 2) * (_DOT_PX // 2)) % _DOT_PX < 2)
    colours = np.zeros((*visible.shape, 3))
    for value in np.unique(visible[visible > 0]):
        inside = visible == value
        if int(value) % LEFT_OFFSET not in _MEASURED:
            colours[inside] = to_rgb(BONE)
            continue
        paint = painted.get(int(value), Paint(None, certain=False, judged=False))
        if not paint.judged or paint.excess_percent is None:
            colours[inside] = to_rgb(UNJUDGED)
            colours[inside & dot] = to_rgb(UNJUDGED_DOT)
            continue
        colours[inside] = to_rgb(colour_of(paint.excess_percent, scale_percent))
        if not paint.certain:
            colours[inside & stripe] = to_rgb(HATCH)
    return colours
