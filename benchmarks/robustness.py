"""Labels of a disturbed real scan against those of the scan as it was."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np

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
    resized,
    rotated,
    rotated_labels,
    total_signal,
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
#: Share of the water besides all of the fat in an image like T1-weighted ones.
_T1_WATER = 0.25
#: Less of a muscle than this in view is an end of it: its Dice says little.
_SMALLEST_ML = 2.0
LIMIT = 0.85

#: What brings labels of the disturbed scan back onto the undisturbed one's grid.
Back = Callable[[Labels], Labels]


def disturbances(name: str, images: Images, labels: Labels) -> Iterator[tuple[str, Images, Back]]:
    """Every disturbance that a scan can bear, by name."""
    grid = grid_of(images)
    yield (
        "rotated by 10 degrees",
        rotated(images, ROTATION_DEG, 2),
        lambda found: rotated_labels(found, grid, -ROTATION_DEG, 2),
    )
    if grid.voxel_sizes_mm[2] <= _THICKEST_RESAMPLED_MM:
        coarse = coarser_grid(grid, VOXEL_MM)
        yield (
            "resampled to 2.2 x 2.2 x 5 mm",
            coarser(images, VOXEL_MM),
            lambda found: labels_on(found, coarse, grid),
        )
    inside = (labels % LEFT_OFFSET > 0) & (labels % LEFT_OFFSET <= MUSCLES[-1].id)
    if inside.any():
        signal = float(np.median(total_signal(images)[inside]))
        rng = np.random.default_rng(15)
        for ratio in (SNR, _LOW_SNR):
            noise = noisy(images, signal / ratio, rng)
            yield f"signal to noise {ratio:.0f}", noise, lambda found: found
        for words, patches in (("", 0.0), (", in patches", _PATCHES)):
            sick = infiltrated(images, inside, _FAT_SHARE, patches, rng)
            yield f"half of the muscle fat{words}", sick, lambda found: found
    for size in _BODY_SIZES:
        yield f"a body {size:g} times as large", resized(images, size), lambda found: found
    yield "bias of 40 %", biased(images, BIAS_SHARE), lambda found: found
    if Quantity.FAT in images:
        fat_alone = {Quantity.FAT: images[Quantity.FAT]}
        yield "fat image alone", fat_alone, lambda found: found
        yield "like T1", like_t1(images, _T1_WATER), lambda found: found
    if name == "thigh_water_b":
        yield "inverted", inverted(images), lambda found: found


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
        counts = np.bincount(before.labels.ravel(), minlength=2 * LEFT_OFFSET)
        values = [
            m.id + offset
            for m in MUSCLES
            for offset in (0, LEFT_OFFSET)
            if counts[m.id + offset] >= least
        ]
        for what, changed, back in disturbances(name, images, before.labels):
            try:
                after = back(label(changed, engine).labels)
            except MyosymmetryError as error:
                report.add("disturbances", scan=name, what=what, outcome=str(error))
                report.at_least(f"{name}, {what}: mean Dice", 0.0, LIMIT)
                continue
            scores = {value: dice(after == value, before.labels == value) for value in values}
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
