"""How far asymmetry moves when the same legs are seen a little differently: the tool's own floor.

Replicates of a real scan: its odd and its even slices, water alone where there is fat too, the body
tilted about its left-right axis, a bias field. Nothing in the body changed, so that the spread of
each muscle's asymmetry is the method's. It is held against the error that the undisturbed scan
states of itself.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.agreement import asymmetry_percent
from benchmarks.common import Report, command_line, engine_of
from benchmarks.perturb import biased, every_second, grid_of, rotated
from benchmarks.scans import REAL, Images, label, measured, real_scan, volumes_ml
from pipeline import LimbMeasures, Quantity, Side, default_config
from pipeline.core.anatomy import MUSCLES
from pipeline.core.errors import MyosymmetryError
from pipeline.core.results import Status
from pipeline.imaging.asymmetry import Z95, se_of_method, spread_between_looks
from pipeline.measuring.difference import method_error

UNDISTURBED = "undisturbed"
TILT_DEG = 4.0
BIAS_SHARE = 0.25
#: Through thicker slices a tilt is mostly interpolation.
_THICKEST_TILTED_MM = 7.0
#: Every second one of thicker slices is too far from the next to be a replicate.
_THICKEST_JUDGED_MM = 10.0
#: Smaller muscles have no asymmetry worth a name on such scans.
_SMALLEST_ML = 20.0


def replicates(images: Images) -> Iterator[tuple[str, Images]]:
    """The scan itself, then its replicates by name."""
    yield UNDISTURBED, images
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
    errors: list[tuple[bool, float, float]] = []
    for name in options.scans:
        found: dict[str, dict[tuple[str, Side], float]] = {}
        stated: dict[str, tuple[bool, float]] = {}
        slice_mm = grid_of(real_scan(name)[0]).voxel_sizes_mm[2]
        for what, images in replicates(real_scan(name)[0]):
            try:
                labelled = label(images, engine)
            except MyosymmetryError as error:
                report.notes.append(f"{name}, {what}: {error}")
                continue
            found[what] = volumes_ml(labelled.labels, labelled.scan.grid.voxel_volume_ml)
            if what == UNDISTURBED:
                stated = stated_errors(measured(labelled))
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
            size = [v for (n, _), v in found.get(UNDISTURBED, {}).items() if n == muscle.name]
            sd = float(np.std(there, ddof=1))
            variances.setdefault(muscle.name, []).append(sd**2)
            report.add(
                "replicates",
                scan=name,
                muscle=muscle.name,
                volume_ml=float(np.mean(size)) if size else None,
                sd_points=sd,
                found_in=f"{len(there)} of {len(found)}",
                judged=stated[muscle.name][0] if muscle.name in stated else None,
                se_method=stated[muscle.name][1] if muscle.name in stated else None,
                **indices,
            )
            own = indices.get(UNDISTURBED)
            if own is None or muscle.name not in stated or slice_mm > _THICKEST_JUDGED_MM:
                continue
            if np.mean(size) >= _SMALLEST_ML:
                errors += [
                    (*stated[muscle.name], index - own)
                    for what, index in indices.items()
                    if what != UNDISTURBED and index is not None
                ]
    for muscle_name, values in variances.items():
        sd = float(np.sqrt(np.mean(values)))
        report.add("muscles", muscle=muscle_name, scans=len(values), sd_points=sd)
    pooled = [row["sd_points"] for row in report.tables.get("muscles", [])]
    report.report(
        "median over muscles of the standard deviation of AI, points",
        float(np.median(pooled)) if pooled else None,
    )
    for judged, words in ((True, "judged"), (False, "withheld")):
        those = [(se, change) for was, se, change in errors if was is judged]
        if not those:
            continue
        changes = np.array([change for _, change in those])
        # The scan and its replicate are each off by the method's error.
        within = [abs(change) <= math.sqrt(2.0) * Z95 * se for se, change in those]
        which = f"{words} muscles from {_SMALLEST_ML:g} mL, slices up to {_THICKEST_JUDGED_MM:g} mm"
        report.report(f"{which}: changes", len(those))
        report.report(f"{which}: root mean square, points", float(np.sqrt(np.mean(changes**2))))
        report.report(f"{which}: share within the stated 95 % error", float(np.mean(within)))
    return report


def stated_errors(measures: LimbMeasures) -> dict[str, tuple[bool, float]]:
    """Of each muscle in view on both sides: whether a verdict may rest on it, and the standard
    error of its asymmetry that the scan states, in points, from the looks at the part in view."""
    config, out = default_config().measure, {}
    for row in measures.muscles:
        sides = row.right, row.left
        looks = [m.repeat_volume_ratios for m in sides if m.repeat_volume_ratios is not None]
        volumes = [m.volume_in_view_ml for m in sides if m.volume_in_view_ml is not None]
        if len(looks) < 2 or len(volumes) < 2:
            continue
        judged = all(m.status is not Status.UNRELIABLE and m.doubt is None for m in sides)
        spread = spread_between_looks(looks[0], looks[1])
        error = se_of_method(spread, sum(volumes) / 2.0, method_error((row.name,), config))
        out[row.name] = judged, 100.0 * error
    return out


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument(
        "--scans", nargs="+", choices=list(REAL), default=[n for n in REAL if n != "leg_dwi_f"]
    )


if __name__ == "__main__":
    sys.exit(command_line("pseudo_replicates", __doc__, run, extend))
