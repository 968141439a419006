"""Pictures of the legs: one function per picture, evidence in, RGB pixels out.

All are in radiological convention: the patient's right is on the picture's left, the front of
the body at the top of an axial slice. Sides come from the grid's affine, which the evidence has
checked, and are written on the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES_BY_ID, STRUCTURES, Structure
from pipeline.core.transform import AffineTransform, SpatialTransform, interpolate
from pipeline.imaging.boxes import box_of, widened
from pipeline.report.drawing import COLOURS, Pixels, deepest, drawing, to_pixels
from pipeline.report.evidence import ReportEvidence
from pipeline.report.head import Entry, Head
from pipeline.report.words import image_title

#: Around the pictures and between them.
BACKGROUND = "#0b0e12"
_TEXT = "#f2f4f7"
#: Lines of the sides on pictures, which are dark on every page.
RIGHT_LINE = "#6cb6ff"
LEFT_LINE = "#ff9d3c"
#: Voxels of a muscle whose fat fraction is not defined.
_UNDEFINED = (1.0, 0.42, 0.29)

#: Room around what is labelled, so that the skin is in the picture.
_MARGIN_MM = 18.0
#: A number stands on a muscle whose border is at least so many pixels away from it.
_NUMBERED_DEPTH_PX = 6.0
#: Tissue around a fat fraction map is dimmed, so that grey never competes with the colours.
_DIMMED = 0.45
_WIDTH_INCHES = 8.4


Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class _Slice:
    """A slice as it is shown: rows run down the picture, columns to the right.

    Attributes:
        labels, image, fat: two-dimensional, image and fat None where there is none.
        size_mm: width and height.
    """

    labels: NDArray[np.integer]
    image: NDArray[np.floating] | None
    fat: NDArray[np.floating] | None
    size_mm: tuple[float, float]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges in mm for imshow."""
        return (0.0, self.size_mm[0], self.size_mm[1], 0.0)


def heads(evidence: ReportEvidence, who: str) -> Mapping[str, Head]:
    """What stands above each picture where it is saved as a file, by its name.

    Args:
        evidence: what is drawn.
        who: subject and session.
    """
    sides = f"{who}. R: the patient's right leg, shown on the left; L: the left leg."
    slices = f"{sides} Axial slices seen from the feet, the front of the body on top."
    over = (
        "" if evidence.image is None else f" over the {image_title(evidence.image.quantity)} image"
    )
    legend = [
        (Patch(facecolor=colour, edgecolor=_TEXT, linewidth=0.5), f"{number} {title}".strip())
        for number, title, colour in labels_shown(evidence)
    ]
    outlines = (
        Line2D([], [], color=RIGHT_LINE),
        Line2D([], [], color=LEFT_LINE),
    )
    on_right = f"{who}. Axial slices of the right leg, seen from the feet."

    def head(title: str, notes: str, key: Sequence[Entry] = (), columns: int = 1) -> Head:
        return Head(title=title, notes=notes, key=key, columns=columns, size=8.0, ink=_TEXT)

    return {
        "segmentation_axial": head(f"Labelled muscles{over}", slices, legend, columns=4),
        "segmentation_coronal": head(
            f"Labelled muscles{over}, from the front",
            f"{sides} Dashed lines: levels of the axial slices.",
            legend,
            columns=2,
        ),
        "fat_fraction": head(
            "Fat fraction inside the muscles, %",
            f"{slices} Around the muscles: the image, dimmed.",
            [(Patch(facecolor=_UNDEFINED, edgecolor="none"), "no fat fraction could be had")],
        ),
        "registration_before": head(
            "Outlines of the muscles before the legs were laid onto each other",
            on_right,
            [
                (outlines[0], "right leg"),
                (outlines[1], "left leg, mirrored, centres of the labels on each other"),
            ],
        ),
        "registration": head(
            "Outlines of the muscles after the legs were laid onto each other",
            on_right,
            [(outlines[0], "right leg"), (outlines[1], "left leg, mirrored and carried over")],
        ),
        "volume_change": head(
            "How much larger a place is on one side, % (100 x log Jacobian)",
            f"{who}. The right leg from the front, its outer side on the left. For display only: "
            "it cannot show where within a muscle volume was lost.",
        ),
    }


def labels_shown(evidence: ReportEvidence) -> list[tuple[str, str, str]]:
    """Number, title and colour of what the label map holds; bones have no number."""
    present = {value % LEFT_OFFSET for value in evidence.labels.values()}
    return [
        ("" if isinstance(s, Structure) else str(s.id), s.title, s.colour)
        for s in STRUCTURES
        if s.id in present
    ]


def axial_levels(evidence: ReportEvidence, count: int) -> list[int]:
    """Indices of slices spread over the levels with muscle labels, top of the body first."""
    data = evidence.labels.data
    muscle = (data > 0) & np.isin(data % LEFT_OFFSET, list(MUSCLES_BY_ID))
    occupied = np.flatnonzero(muscle.any(axis=(0, 1)))
    if occupied.size == 0:
        return []
    places = np.linspace(0.0, 1.0, 2 * count + 1)[1::2] * (occupied.size - 1)
    return sorted({int(occupied[round(p)]) for p in places}, reverse=True)


def segmentation_axial(evidence: ReportEvidence, levels: Sequence[int], *, dpi: int) -> Pixels:
    """Labels over the image at several levels; the numbers are those of the legend."""
    slices = [
        _axial(evidence, k, box) for k, box in zip(levels, _boxes(evidence, levels), strict=True)
    ]
    window = _window(slices)
    with drawing():
        figure, panels = _montage(slices, columns=2, dpi=dpi)
        for number, (axes, piece) in enumerate(zip(panels, slices, strict=True), start=1):
            _show_background(axes, piece, window)
            _show_labels(axes, piece, numbered=True)
            _side_letters(axes)
            _caption(axes, f"level {number}")
        return to_pixels(figure)


def segmentation_coronal(evidence: ReportEvidence, levels: Sequence[int], *, dpi: int) -> Pixels:
    """Labels over the image from the front, with the levels of the axial slices marked."""
    box = _label_box(evidence)
    labels = evidence.labels.data
    j = int(np.argmax(np.count_nonzero(labels, axis=(0, 2))))
    piece = _coronal(evidence, j, box)
    height = evidence.labels.grid.voxel_sizes_mm[2]
    with drawing():
        figure, (axes,) = _montage([piece], columns=1, dpi=dpi, width=_WIDTH_INCHES * 0.5)
        _show_background(axes, piece, _window([piece]))
        _show_labels(axes, piece, numbered=False)
        _side_letters(axes)
        for number, k in enumerate(levels, start=1):
            y = (box[2].stop - k - 0.5) * height
            axes.axhline(y, color=_TEXT, linewidth=0.6, alpha=0.7, linestyle=(0, (4, 3)))
            axes.text(
                piece.size_mm[0] - 4.0, y - 3.0, str(number), color=_TEXT, fontsize=8, ha="right"
            )
        return to_pixels(figure)


def fat_fraction_map(
    evidence: ReportEvidence, levels: Sequence[int], *, scale_percent: float, dpi: int
) -> Pixels | None:
    """Fat fraction inside the muscles, grey outside; None where there is none.

    Args:
        evidence: what is drawn.
        levels: slice indices.
        scale_percent: fat fraction at the upper end of the colour scale.
        dpi: pixels per inch.
    """
    if evidence.fat_fraction is None:
        return None
    slices = [
        _axial(evidence, k, box) for k, box in zip(levels, _boxes(evidence, levels), strict=True)
    ]
    window = _window(slices)
    colours = matplotlib.colormaps["viridis"]
    with drawing():
        figure, panels = _montage(slices, columns=2, dpi=dpi, foot_inches=0.62)
        shown = None
        for number, (axes, piece) in enumerate(zip(panels, slices, strict=True), start=1):
            _show_background(axes, piece, window, brightness=_DIMMED)
            if piece.fat is None:
                continue
            inside = np.isin(piece.labels % LEFT_OFFSET, list(MUSCLES_BY_ID))
            shown = axes.imshow(
                np.ma.masked_where(~inside | np.isnan(piece.fat), 100.0 * piece.fat),
                cmap=colours,
                vmin=0.0,
                vmax=scale_percent,
                extent=piece.extent,
                interpolation="nearest",
            )
            undefined = np.zeros((*inside.shape, 4))
            undefined[inside & np.isnan(piece.fat)] = (*_UNDEFINED, 1.0)
            axes.imshow(undefined, extent=piece.extent, interpolation="nearest")
            _side_letters(axes)
            _caption(axes, f"level {number}")
        if shown is not None:
            _colour_bar(figure, shown, "fat fraction, %", extend="max")
        return to_pixels(figure)


def registration_overlay(
    evidence: ReportEvidence, levels: Sequence[int], *, before: bool, dpi: int
) -> Pixels | None:
    """Outlines of the right leg's muscles and of the mirrored left leg's, carried over.

    The points of each slice of the right leg go through right_to_left, and the nearest label of
    the left leg is looked up there. None where there is no registration or no labelled right
    muscle.

    Args:
        evidence: what is drawn.
        levels: slice indices.
        before: the left leg only mirrored and moved so that the centres of the labels agree.
        dpi: pixels per inch.
    """
    transform = evidence.right_to_left
    data = evidence.labels.data
    if transform is not None and before:
        transform = _centres_aligned(evidence)
    if transform is None or not np.any((data > 0) & (data < LEFT_OFFSET)):
        return None
    box = _padded_box(evidence, (data > 0) & (data < LEFT_OFFSET))
    shown: list[tuple[int, _Slice, NDArray[np.integer]]] = []
    for number, k in enumerate(levels, start=1):
        piece = _axial(evidence, k, box)
        right = np.where(piece.labels < LEFT_OFFSET, piece.labels, 0)
        if right.any():
            left = _radiological(_carried_labels(evidence, transform, k, box))
            shown.append((number, replace(piece, labels=right), left))
    if not shown:
        return None
    slices = [piece for _, piece, _ in shown]
    window = _window(slices)
    with drawing():
        figure, panels = _montage(slices, columns=min(3, len(slices)), dpi=dpi)
        for axes, (number, piece, left) in zip(panels, shown, strict=True):
            _show_background(axes, piece, window)
            _outline(axes, piece.labels, piece.extent, RIGHT_LINE)
            _outline(axes, left, piece.extent, LEFT_LINE)
            _caption(axes, f"level {number}")
            for x, text, align in ((0.03, "outer side", "left"), (0.97, "inner side", "right")):
                axes.text(
                    x,
                    0.03,
                    text,
                    transform=axes.transAxes,
                    color=_TEXT,
                    fontsize=6.5,
                    ha=align,
                    path_effects=_seam(),
                )
        return to_pixels(figure)


def volume_change_map(evidence: ReportEvidence, *, scale_percent: float, dpi: int) -> Pixels | None:
    """Local change of volume from the left leg to the right one, in a coronal slice of the right.

    100 x the log Jacobian, about percent: where a place is larger on the right, and where on the
    left, as the registration has it. None where there is none or no labelled right muscle.

    Args:
        evidence: what is drawn.
        scale_percent: change at both ends of the colour scale.
        dpi: pixels per inch.
    """
    data, grid = evidence.labels.data, evidence.labels.grid
    right = (data > 0) & (data < LEFT_OFFSET)
    if evidence.log_jacobian is None or not right.any():
        return None
    box = _padded_box(evidence, right)
    j = int(np.argmax(np.count_nonzero(right, axis=(0, 2))))
    piece = _coronal(evidence, j, box)
    piece = replace(piece, labels=np.where(piece.labels < LEFT_OFFSET, piece.labels, 0))
    i, k = (np.arange(side.start, side.stop) for side in (box[0], box[2]))
    at = np.stack(np.broadcast_arrays(i[:, None], j, k[None, :]), axis=-1)
    values, coarse = evidence.log_jacobian
    change = interpolate(values[..., None], coarse, grid.index_to_world(at))[..., 0]
    colours = LinearSegmentedColormap.from_list("sides", [LEFT_LINE, COLOURS["paper"], RIGHT_LINE])
    with drawing():
        figure, (axes,) = _montage(
            [piece], columns=1, dpi=dpi, width=_WIDTH_INCHES * 0.19, foot_inches=0.62
        )
        _show_background(axes, piece, _window([piece]), brightness=_DIMMED)
        shown = axes.imshow(
            np.ma.masked_where(piece.labels == 0, 100.0 * _radiological(change)),
            cmap=colours,
            vmin=-scale_percent,
            vmax=scale_percent,
            extent=piece.extent,
            interpolation="nearest",
        )
        _outline(axes, piece.labels, piece.extent, BACKGROUND)
        _colour_bar(
            figure, shown, "left larger \N{LEFTWARDS ARROW} % \N{RIGHTWARDS ARROW} right larger"
        )
        return to_pixels(figure)


def _colour_bar(figure: Figure, shown: AxesImage, title: str, *, extend: str = "both") -> None:
    """The scale of an image, at the foot of its figure."""
    height = figure.get_figheight()
    # Half of a wide figure; of a narrow one as much as leaves room for the numbers at the ends.
    width = max(0.5, 0.72 * min(1.0, 2.0 / figure.get_figwidth()))
    bar_axes = figure.add_axes((0.5 - 0.5 * width, 0.36 / height, width, 0.13 / height))
    bar = figure.colorbar(shown, cax=bar_axes, orientation="horizontal", extend=extend)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_TEXT, labelsize=8, length=0)
    bar.ax.set_title(title, color=_TEXT, fontsize=7.5, pad=3)


def _centres_aligned(evidence: ReportEvidence) -> AffineTransform | None:
    """Right leg onto left leg by the centres of their labels; None where a leg has none."""
    data = evidence.labels.data
    centres = []
    for mask, to_scanner in (
        ((data > 0) & (data < LEFT_OFFSET), evidence.right_to_scanner),
        (data > LEFT_OFFSET, evidence.left_to_scanner),
    ):
        if not mask.any():
            return None
        centre = evidence.labels.grid.index_to_world(np.argwhere(mask).mean(axis=0))
        centres.append(to_scanner.inverse().apply(centre))
    matrix = np.eye(4)
    matrix[:3, 3] = centres[1] - centres[0]
    spaces = evidence.right_to_scanner.from_space, evidence.left_to_scanner.from_space
    return AffineTransform(matrix, *spaces)


def _label_box(evidence: ReportEvidence) -> Box:
    """Box of everything labelled, with a margin."""
    return _padded_box(evidence, evidence.labels.data != 0)


def _boxes(evidence: ReportEvidence, levels: Sequence[int]) -> list[Box]:
    """Boxes of one size around the labels of each level: both legs wide, centred front to back.

    A shank lies further back than a thigh; with one box for all levels most of each panel would
    be empty.
    """
    width, _, height = _label_box(evidence)
    grid = evidence.labels.grid
    ends = []
    for k in levels:
        rows = np.flatnonzero(np.any(evidence.labels.data[:, :, k] != 0, axis=0))
        ends.append((int(rows[0]), int(rows[-1]) + 1))
    margin = round(_MARGIN_MM / grid.voxel_sizes_mm[1])
    depth = min(grid.shape[1], max(b - a for a, b in ends) + 2 * margin)
    boxes = []
    for a, b in ends:
        first = min(max(0, (a + b - depth) // 2), grid.shape[1] - depth)
        boxes.append((width, slice(first, first + depth), height))
    return boxes


def _padded_box(evidence: ReportEvidence, mask: NDArray[np.bool_]) -> Box:
    grid = evidence.labels.grid
    margin = [round(_MARGIN_MM / size) for size in grid.voxel_sizes_mm]
    # Where nothing is labelled all is shown.
    shown = box_of(mask) if mask.any() else tuple(slice(0, n) for n in grid.shape)
    x, y, z = widened(shown, margin, grid.shape)
    return x, y, z


def _radiological(plane: NDArray[Any]) -> NDArray[Any]:
    """A plane [towards right, towards front or head] as rows and columns of a picture."""
    return plane[::-1, ::-1].T


def _axial(evidence: ReportEvidence, k: int, box: Box) -> _Slice:
    """Slice k seen from the feet: right on the left, front on top."""
    x, y, _ = evidence.labels.grid.voxel_sizes_mm
    return _cut(evidence, (box[0], box[1], k), (x, y))


def _coronal(evidence: ReportEvidence, j: int, box: Box) -> _Slice:
    """Slice j seen from the front: right on the left, head on top."""
    x, _, z = evidence.labels.grid.voxel_sizes_mm
    return _cut(evidence, (box[0], j, box[2]), (x, z))


def _cut(
    evidence: ReportEvidence, where: tuple[slice | int, ...], voxel_mm: tuple[float, float]
) -> _Slice:
    labels = _radiological(evidence.labels.data[where])
    image, fat = evidence.image, evidence.fat_fraction
    rows, columns = labels.shape
    return _Slice(
        labels=labels,
        image=None if image is None else _radiological(image.data[where]),
        fat=None if fat is None else _radiological(fat[where]),
        size_mm=(columns * voxel_mm[0], rows * voxel_mm[1]),
    )


def _carried_labels(
    evidence: ReportEvidence, right_to_left: SpatialTransform, k: int, box: Box
) -> NDArray[np.integer]:
    """Labels of the left leg at the points of axial slice k of the right leg, as right ids."""
    data, grid = evidence.labels.data, evidence.labels.grid
    i, j = np.meshgrid(
        np.arange(box[0].start, box[0].stop), np.arange(box[1].start, box[1].stop), indexing="ij"
    )
    points = grid.index_to_world(np.stack([i, j, np.full_like(i, k)], axis=-1))
    points = evidence.right_to_scanner.inverse().apply(points)
    points = evidence.left_to_scanner.apply(right_to_left.apply(points))
    index = np.rint(grid.world_to_index(points)).astype(np.int64)
    inside = np.all((index >= 0) & (index < np.array(grid.shape)), axis=-1)
    found = np.zeros(i.shape, dtype=data.dtype)
    found[inside] = data[tuple(index[inside].T)]
    return np.where(found > LEFT_OFFSET, found - LEFT_OFFSET, 0)


def _montage(
    slices: Sequence[_Slice],
    *,
    columns: int,
    dpi: int,
    width: float = _WIDTH_INCHES,
    foot_inches: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """A dark figure with one panel per slice, all at one scale, and room at the foot."""
    gap = 0.06
    widest = max(s.size_mm[0] for s in slices)
    tallest = max(s.size_mm[1] for s in slices)
    panel_width = (width - gap * (columns - 1)) / columns
    panel_height = panel_width * tallest / widest
    lines = -(-len(slices) // columns)
    height = lines * panel_height + (lines - 1) * gap + foot_inches
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=BACKGROUND)
    panels = []
    for n, piece in enumerate(slices):
        x = (n % columns) * (panel_width + gap)
        y = height - (n // columns + 1) * panel_height - (n // columns) * gap
        axes = figure.add_axes((x / width, y / height, panel_width / width, panel_height / height))
        axes.set_facecolor(BACKGROUND)
        axes.set_axis_off()
        axes.set_autoscale_on(False)
        axes.set_xlim(0.0, piece.size_mm[0])
        axes.set_ylim(piece.size_mm[1], 0.0)
        axes.set_aspect("equal")
        panels.append(axes)
    return figure, panels


def _window(slices: Sequence[_Slice]) -> tuple[float, float]:
    """Signal shown as black and as white: one window for all slices of a picture."""
    shown = [s.image.ravel() for s in slices if s.image is not None]
    if not shown:
        return (0.0, 1.0)
    low, high = np.percentile(np.concatenate(shown), (1.0, 99.3))
    return (float(low), float(high) if high > low else float(low) + 1.0)


def _show_background(
    axes: Axes, piece: _Slice, window: tuple[float, float], *, brightness: float = 1.0
) -> None:
    if piece.image is None:
        return
    axes.imshow(
        piece.image,
        cmap="gray",
        vmin=window[0],
        vmax=window[0] + (window[1] - window[0]) / brightness,
        extent=piece.extent,
        interpolation="bilinear",
    )


def _finer(axes: Axes, labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Labels repeated to about one element per pixel, so that an outline is a pixel wide."""
    window = axes.get_window_extent()
    for axis, pixels in ((0, window.height), (1, window.width)):
        times = max(1, round(pixels / labels.shape[axis]))
        labels = np.repeat(labels, times, axis=axis)
    return labels


def _borders(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Elements of a structure that touch another value, diagonals apart."""
    found = find_boundaries(labels, connectivity=1, mode="inner")  # type: ignore[no-untyped-call]
    return np.asarray(found, dtype=np.bool_)


def _show_labels(axes: Axes, piece: _Slice, *, numbered: bool) -> None:
    labels = _finer(axes, piece.labels)
    lookup = np.zeros((256, 3))
    for structure in STRUCTURES:
        colour = to_rgb(structure.colour)
        lookup[structure.id] = lookup[structure.id + LEFT_OFFSET] = colour
    rgba = np.zeros((*labels.shape, 4))
    rgba[..., :3] = lookup[labels]
    filled = 0.42 if piece.image is not None else 0.8
    rgba[..., 3] = np.where(labels > 0, filled, 0.0)
    rgba[_borders(labels), 3] = 1.0
    axes.imshow(rgba, extent=piece.extent, interpolation="nearest")
    if not numbered:
        return
    step = piece.size_mm[1] / piece.labels.shape[0], piece.size_mm[0] / piece.labels.shape[1]
    pixels = axes.get_window_extent().height / piece.labels.shape[0]
    for value in np.unique(piece.labels):
        mask = piece.labels == value
        if int(value) % LEFT_OFFSET not in MUSCLES_BY_ID:
            continue
        row, column, depth = deepest(mask)
        if depth * pixels < _NUMBERED_DEPTH_PX:
            continue
        axes.text(
            (column + 0.5) * step[1],
            (row + 0.5) * step[0],
            str(int(value) % LEFT_OFFSET),
            color=_TEXT,
            fontsize=6.5,
            ha="center",
            va="center",
            path_effects=_seam(),
        )


def _seam() -> list[withStroke]:
    """A dark seam around letters, so that they read on any tissue."""
    return [withStroke(linewidth=1.6, foreground=BACKGROUND)]


def _outline(
    axes: Axes,
    labels: NDArray[np.integer],
    extent: tuple[float, float, float, float],
    colour: str,
) -> None:
    border = _borders(_finer(axes, labels))
    rgba = np.zeros((*border.shape, 4))
    rgba[border] = (*to_rgb(colour), 0.95)
    axes.imshow(rgba, extent=extent, interpolation="nearest")


def _side_letters(axes: Axes) -> None:
    for x, letter, align in ((0.02, "R", "left"), (0.98, "L", "right")):
        axes.text(
            x,
            0.975,
            letter,
            transform=axes.transAxes,
            color=_TEXT,
            fontsize=11,
            fontweight="bold",
            ha=align,
            va="top",
            path_effects=_seam(),
        )


def _caption(axes: Axes, text: str) -> None:
    axes.text(
        0.5,
        0.975,
        text,
        transform=axes.transAxes,
        color=_TEXT,
        fontsize=7.5,
        ha="center",
        va="top",
        path_effects=_seam(),
    )
