"""Overlays of labels on slices, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from benchmarks.scans import Labels
from pipeline import LegMatch, SegmentedLegs
from pipeline.core.anatomy import LEFT_OFFSET, STRUCTURES
from pipeline.core.transform import AffineTransform

_COLUMNS = 4


def overlay(
    path: Path,
    image: NDArray[np.float32],
    labels: Mapping[str, Labels],
    *,
    sizes_mm: tuple[float, float, float],
    title: str,
    levels: int = 8,
) -> None:
    """Slices of an image, bare and under label maps, with one colour a muscle on both sides.

    Args:
        path: PNG to write.
        image: (x, y, slice), first axis towards the patient's right.
        labels: label maps (ids of OWN_SCHEME) by name; each gets a row under the bare image.
        sizes_mm: voxel size.
        title: above the picture.
        levels: how many slices, spread evenly over those with signal.
    """
    seen = np.flatnonzero(image.any(axis=(0, 1)))
    shown = seen[np.unique(np.linspace(0, len(seen) - 1, levels + 2).round().astype(int)[1:-1])]
    body = image > 0.1 * np.percentile(image, 99)
    box = tuple(
        slice(max(int(np.flatnonzero(line)[0]) - 2, 0), int(np.flatnonzero(line)[-1]) + 3)
        for line in (body.any(axis=(1, 2)), body.any(axis=(0, 2)))
    )
    rows = 1 + len(labels)
    blocks = -(-len(shown) // _COLUMNS)
    figure, axes = plt.subplots(
        blocks * rows, _COLUMNS, figsize=(4.2 * _COLUMNS, 2.6 * rows * blocks), squeeze=False
    )
    top = float(np.percentile(image[body], 99))
    table = _colours()
    for axis in axes.flat:
        axis.set_axis_off()
    for n, k in enumerate(shown):
        block, column = divmod(n, _COLUMNS)
        grey = np.clip(image[box[0], box[1], k] / top, 0.0, 1.0)
        for row, (name, data) in enumerate({"": None, **labels}.items()):
            colour = np.repeat(grey[:, :, None], 3, axis=2)
            if data is not None:
                own = data[box[0], box[1], k]
                colour = np.where(own[:, :, None] > 0, 0.45 * colour + 0.55 * table[own], colour)
            axis = axes[block * rows + row, column]
            # As seen from the feet: the patient's right on the left of the picture.
            axis.imshow(
                colour.transpose(1, 0, 2)[:, ::-1],
                origin="lower",
                aspect=sizes_mm[1] / sizes_mm[0],
                interpolation="nearest",
            )
            axis.set_title(f"slice {k} {name}", fontsize=8, pad=2)
    figure.suptitle(f"{title} (patient's right on the left)", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _colours() -> NDArray[np.float64]:
    """Colour by label value of OWN_SCHEME."""
    table = np.zeros((256, 3))
    for structure in STRUCTURES:
        table[structure.id] = table[structure.id + LEFT_OFFSET] = to_rgb(structure.colour)
    return table


def outlines(
    path: Path, legs: SegmentedLegs, match: LegMatch, *, title: str, levels: int = 6
) -> None:
    """Outlines of the right leg's labels and of the left's, before and after registration.

    Args:
        path: PNG to write.
        legs: both legs.
        match: how they correspond. Before: the centres of the labels on each other.
        title: above the picture.
        levels: how many slices of the right leg, spread evenly over its labels.
    """
    right, left = legs.right, legs.left
    centres = [
        leg.leg.grid.index_to_world(np.argwhere(leg.labels.data).mean(axis=0))
        for leg in (right, left)
    ]
    shift = np.eye(4)
    shift[:3, 3] = centres[1] - centres[0]
    before = AffineTransform(shift, right.leg.grid.space, left.leg.grid.space)
    occupied = np.flatnonzero(right.labels.data.any(axis=(0, 1)))
    places = np.linspace(0, occupied.size - 1, levels + 2).round().astype(int)[1:-1]
    image = next(iter(right.leg.images.values()), None)
    figure, axes = plt.subplots(2, levels, figsize=(3.2 * levels, 6.4), squeeze=False)
    sizes = right.leg.grid.voxel_sizes_mm
    for column, k in enumerate(occupied[places]):
        index = np.stack(
            np.meshgrid(*(np.arange(n) for n in right.labels.data.shape[:2]), [k], indexing="ij"),
            axis=-1,
        )[:, :, 0]
        points = right.leg.grid.index_to_world(index)
        for row, (name, transform) in enumerate(
            (("before", before), ("after", match.right_to_left))
        ):
            there = np.rint(left.leg.grid.world_to_index(transform.apply(points))).astype(int)
            inside = np.all((there >= 0) & (there < left.labels.data.shape), axis=-1)
            carried = np.zeros(inside.shape, dtype=np.uint8)
            carried[inside] = left.labels.data[tuple(there[inside].T)]
            axis = axes[row, column]
            axis.set_axis_off()
            axis.set_aspect(sizes[1] / sizes[0])
            if image is not None:
                axis.imshow(image.data[:, :, k].T, cmap="gray", origin="lower")
            for data, colour in ((right.labels.data[:, :, k], "deepskyblue"), (carried, "orange")):
                for value in np.unique(data[data > 0]):
                    axis.contour(
                        (data == value).T.astype(float), [0.5], colors=colour, linewidths=0.8
                    )
            axis.set_title(f"slice {k}, {name}", fontsize=8)
    figure.suptitle(f"{title}: right blue, mirrored left orange", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)
