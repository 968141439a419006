"""Labels of a disturbed real scan against those of the scan as it was."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import dice, mean
from benchmarks.common import Report, command_line, engine_of
from benchmarks.perturb import (
    biased,
    coarser,
    coarser_grid,
    grid_of,
    infiltrated,
    inverted,
    labels_on,
    like_t1,
    noisy,
    out_of_view,
    resized,
    rotated,
    rotated_labels,
    total_signal,
    wasted,
    with_one_coil,
)
from benchmarks.scans import REAL, Images, Labels, label, real_scan
from pipeline import Quantity
from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES, muscle
from pipeline.core.errors import MyosymmetryError

ROTATION_DEG = 10.0
VOXEL_MM = (2.2, 2.2, 5.0)
_THICKEST_RESAMPLED_MM = 6.5
SNR = 15.0
_LOW_SNR = 6.0
BIAS_SHARE = 0.4
#: A child of about six years, and a very large man, against an adult.
_BODY_SIZES = (0.65, 1.25)
#: Fat in the muscles, and how much it differs from place to place (standard deviation).
_FAT_SHARE, _PATCHES = 0.5, 0.2
#: How much of every muscle has turned to fat from its outside.
_WASTED_MM = 3.0
#: Signal on the side of a coil over that on the other side of the legs.
_COIL_RATIO = 5.0
#: Share of the legs' extent that the field of view leaves out, at each side or at the back.
_UNSEEN_SIDES, _UNSEEN_BACK = 0.1, 0.2
#: Share of the water besides all of the fat in an image like T1-weighted ones.
_T1_WATER = 0.25
#: Less of a muscle than this in view is an end of it: its Dice says little.
_SMALLEST_ML = 2.0
LIMIT = 0.85

Inside = NDArray[np.bool_]


def _as_they_are(labels: Labels) -> Labels:
    return labels


@dataclass(frozen=True, eq=False)
class Disturbance:
    """A scan as it is disturbed, and which labels it should have.

    Attributes:
        what: in words.
        images: the disturbed scan.
        expected: labels on the undisturbed grid.
        back: brings labels of the disturbed scan onto that grid.
    """

    what: str
    images: Images
    expected: Labels
    back: Callable[[Labels], Labels] = _as_they_are


def disturbances(name: str, images: Images, labels: Labels) -> Iterator[Disturbance]:
    """Every disturbance that a scan can bear; `labels` are those of the scan as it was."""
    grid = grid_of(images)
    yield Disturbance(
        "rotated by 10 degrees",
        rotated(images, ROTATION_DEG, 2),
        labels,
        lambda found: rotated_labels(found, grid, -ROTATION_DEG, 2),
    )
    if grid.voxel_sizes_mm[2] <= _THICKEST_RESAMPLED_MM:
        coarse = coarser_grid(grid, VOXEL_MM)
        yield Disturbance(
            "resampled to 2.2 x 2.2 x 5 mm",
            coarser(images, VOXEL_MM),
            labels,
            lambda found: labels_on(found, coarse, grid),
        )
    inside = (labels % LEFT_OFFSET > 0) & (labels % LEFT_OFFSET <= MUSCLES[-1].id)
    if inside.any():
        yield from _in_muscle(images, labels, inside)
    for size in _BODY_SIZES:
        yield Disturbance(f"a body {size:g} times as large", resized(images, size), labels)
    yield Disturbance("bias of 40 %", biased(images, BIAS_SHARE), labels)
    if Quantity.FAT in images:
        fat_alone = {Quantity.FAT: images[Quantity.FAT]}
        yield Disturbance("fat image alone", fat_alone, labels)
        yield Disturbance("like T1", like_t1(images, _T1_WATER), labels)
    if name == "thigh_water_b":
        yield Disturbance("inverted", inverted(images), labels)


def _in_muscle(images: Images, labels: Labels, inside: Inside) -> Iterator[Disturbance]:
    """Disturbances that depend on where the muscles are."""
    signal = float(np.median(total_signal(images)[inside]))
    rng = np.random.default_rng(15)
    for ratio in (SNR, _LOW_SNR):
        noise = noisy(images, signal / ratio, rng)
        yield Disturbance(f"signal to noise {ratio:.0f}", noise, labels)
    for words, patches in (("", 0.0), (", in patches", _PATCHES)):
        sick = infiltrated(images, inside, _FAT_SHARE, patches, rng)
        yield Disturbance(f"half of the muscle fat{words}", sick, labels)
    sick, lost = wasted(images, np.where(inside, labels, 0), _WASTED_MM)
    what = f"the outer {_WASTED_MM:g} mm of every muscle fat"
    yield Disturbance(what, sick, np.where(lost, 0, labels))
    for words, axis in (("on the right", 0), ("at the front", 1)):
        one_sided = with_one_coil(images, inside, axis, _COIL_RATIO)
        yield Disturbance(f"a coil {words}", one_sided, labels)
    for words, axis, shares in (
        ("both sides", 0, (_UNSEEN_SIDES, _UNSEEN_SIDES)),
        ("the back", 1, (_UNSEEN_BACK, 0.0)),
    ):
        cut, seen = out_of_view(images, inside, axis, shares)
        yield Disturbance(f"{words} out of view", cut, np.where(seen, labels, 0))


def run(options: argparse.Namespace) -> Report:
    """Disturb each scan in every way and compare."""
    report, engine = Report(), engine_of(options)
    for name in options.scans:
        images, _ = real_scan(name)
        try:
            before = label(images, engine)
        except MyosymmetryError as error:
            report.notes.append(f"{name}: {error}")
            continue
        least = _SMALLEST_ML / before.scan.grid.voxel_volume_ml
        for disturbance in disturbances(name, images, before.labels):
            what, expected = disturbance.what, disturbance.expected
            try:
                after = disturbance.back(label(disturbance.images, engine).labels)
            except MyosymmetryError as error:
                report.add("disturbances", scan=name, what=what, outcome=str(error))
                report.at_least(f"{name}, {what}: mean Dice", 0.0, LIMIT)
                continue
            counts = np.bincount(expected.ravel(), minlength=2 * LEFT_OFFSET)
            values = [
                m.id + offset
                for m in MUSCLES
                for offset in (0, LEFT_OFFSET)
                if counts[m.id + offset] >= least
            ]
            scores = {value: dice(after == value, expected == value) for value in values}
            average = mean(list(scores.values()))
            worst = min(scores, key=lambda v: scores[v] or 0.0) if scores else None
            report.add(
                "disturbances",
                scan=name,
                what=what,
                outcome="labelled",
                muscles=len(values),
                mean_dice=average,
                lowest_dice=None if worst is None else scores[worst],
                lowest=None if worst is None else _named(worst),
            )
            report.at_least(f"{name}, {what}: mean Dice", average, LIMIT)
    report.notes.append(
        "Labels of turned and resampled scans come back by nearest neighbour, which costs about "
        "half a voxel at every border by itself."
    )
    return report


def _named(value: int) -> str:
    return f"{muscle(value).name} {'left' if value > LEFT_OFFSET else 'right'}"


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument(
        "--scans", nargs="+", choices=list(REAL), default=[n for n in REAL if n != "leg_dwi_f"]
    )


if __name__ == "__main__":
    sys.exit(command_line("robustness", __doc__, run, extend))
