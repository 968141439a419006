"""How far asymmetry moves when the same legs are seen a little differently: the tool's own floor.

Replicates of a real scan: its odd and its even slices, water alone where there is fat too, the body
tilted about its left-right axis, a bias field. Nothing in the body changed, so that the spread of
each muscle's asymmetry is the method's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.agreement import asymmetry_percent
from benchmarks.common import Report, command_line, engine_of
from benchmarks.perturb import biased, every_second, grid_of, rotated
from benchmarks.scans import REAL, Images, label, real_scan, volumes_ml
from pipeline import Quantity, Side
from pipeline.core.anatomy import MUSCLES
from pipeline.core.errors import MyosymmetryError

TILT_DEG = 4.0
BIAS_SHARE = 0.25
#: Through thicker slices a tilt is mostly interpolation.
_THICKEST_TILTED_MM = 7.0


def replicates(images: Images) -> Iterator[tuple[str, Images]]:
    """The scan itself, then its replicates by name."""
    yield "undisturbed", images
    yield "even slices", every_second(images, 0)
    yield "odd slices", every_second(images, 1)
    if len(images) > 1:
        yield "water alone", {Quantity.WATER: images[Quantity.WATER]}
    if grid_of(images).voxel_sizes_mm[2] <= _THICKEST_TILTED_MM:
        # About the axis from side to side: both legs lose the same levels at the ends.
        yield "tilted", rotated(images, TILT_DEG, 0)
    yield "biased", biased(images, BIAS_SHARE)


def run(options: argparse.Namespace) -> Report:
    """Label every replicate; standard deviation of AI per scan and muscle, then per muscle."""
    report, engine = Report(), engine_of(options)
    variances: dict[str, list[float]] = {}
    for name in options.scans:
        found: dict[str, dict[tuple[str, Side], float]] = {}
        for what, images in replicates(real_scan(name)[0]):
            try:
                labelled = label(images, engine)
            except MyosymmetryError as error:
                report.notes.append(f"{name}, {what}: {error}")
                continue
            found[what] = volumes_ml(labelled.labels, labelled.scan.grid.voxel_volume_ml)
        for muscle in MUSCLES:
            indices = {
                what: asymmetry_percent(
                    volumes.get((muscle.name, Side.RIGHT)), volumes.get((muscle.name, Side.LEFT))
                )
                for what, volumes in found.items()
            }
            there = [v for v in indices.values() if v is not None]
            if len(there) < 2:
                continue
            size = [v for (n, _), v in found.get("undisturbed", {}).items() if n == muscle.name]
            sd = float(np.std(there, ddof=1))
            variances.setdefault(muscle.name, []).append(sd**2)
            report.add(
                "replicates",
                scan=name,
                muscle=muscle.name,
                volume_ml=float(np.mean(size)) if size else None,
                sd_points=sd,
                found_in=f"{len(there)} of {len(found)}",
                **indices,
            )
    for muscle_name, values in variances.items():
        sd = float(np.sqrt(np.mean(values)))
        report.add("muscles", muscle=muscle_name, scans=len(values), sd_points=sd)
    pooled = [row["sd_points"] for row in report.tables.get("muscles", [])]
    report.report(
        "median over muscles of the standard deviation of AI, points",
        float(np.median(pooled)) if pooled else None,
    )
    return report


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument(
        "--scans", nargs="+", choices=list(REAL), default=[n for n in REAL if n != "leg_dwi_f"]
    )


if __name__ == "__main__":
    sys.exit(command_line("pseudo_replicates", __doc__, run, extend))
