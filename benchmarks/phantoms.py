"""Digital legs whose bodies and grids the training never drew, against their truth."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.agreement import asymmetry_percent, dice, mean
from benchmarks.common import Report, command_line, engine_of
from benchmarks.perturb import labels_on
from benchmarks.scans import label, volumes_ml
from pipeline import Side
from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES
from pipeline.core.errors import MyosymmetryError
from pipeline.phantom import (
    Acquisition,
    BodyParameters,
    Pose,
    acquire,
    grid_for,
    make_body,
)
from pipeline.phantom import asymmetry_percent as true_asymmetry

#: Training draws seeds below 1000.
FIRST_SEED = 5000
GRIDS_MM = ((1.7, 1.7, 5.0), (2.0, 2.0, 4.0), (1.4, 1.4, 6.0))
LARGE_ML = 50.0
#: Standard deviation of the asymmetry of every muscle over people.
SPREAD_PERCENT = 6.0


def person(seed: int) -> BodyParameters:
    """A random person; asymmetries spread by SPREAD_PERCENT."""
    rng = np.random.default_rng([seed, 21])
    height = float(rng.uniform(1.52, 1.98))
    spread = np.clip(SPREAD_PERCENT * rng.standard_normal(len(MUSCLES)), -20.0, 20.0)
    turn, bend = rng.uniform(-8.0, 8.0, 2), rng.uniform(0.0, 6.0, 2)
    return BodyParameters(
        height_m=height,
        mass_kg=float(rng.uniform(19.0, 31.0)) * height**2,
        sex="male" if rng.random() < 0.5 else "female",
        fatness=float(rng.uniform(0.6, 1.6)),
        asymmetry_percent={m.name: float(v) for m, v in zip(MUSCLES, spread, strict=True)},
        fat_texture="streaky" if rng.random() < 0.5 else "uniform",
        pose=Pose(
            gap_mm=float(rng.uniform(2.0, 25.0)),
            rotation_deg=(float(turn[0]), float(turn[1])),
            knee_flexion_deg=(float(bend[0]), float(bend[1])),
            shift_mm=(0.0, float(rng.uniform(-15.0, 15.0))),
        ),
        seed=seed,
    )


def run(options: argparse.Namespace) -> Report:
    """Scan each body on one of the grids in turn, label it and compare."""
    report, engine = Report(), engine_of(options)
    for number in range(options.bodies):
        seed = FIRST_SEED + number
        body = make_body(person(seed), detail="reduced")
        voxel_mm = GRIDS_MM[number % len(GRIDS_MM)]
        acquisition = Acquisition(
            grid_for(body, voxel_mm), snr=30.0, bias_field=0.2, water_in_fat=0.03, seed=seed
        )
        scan = acquire(body, acquisition)
        try:
            found = label(scan.images, engine, given=scan.labels)
        except MyosymmetryError as error:
            report.notes.append(f"seed {seed}: {error}")
            continue
        truth = labels_on(scan.labels.data, scan.labels.grid, found.scan.grid)
        own = volumes_ml(found.labels, found.scan.grid.voxel_volume_ml)
        on_grid = volumes_ml(scan.labels.data, scan.labels.grid.voxel_volume_ml)
        for muscle in MUSCLES:
            grid_ai = asymmetry_percent(
                on_grid.get((muscle.name, Side.RIGHT)), on_grid.get((muscle.name, Side.LEFT))
            )
            ai = asymmetry_percent(
                own.get((muscle.name, Side.RIGHT)), own.get((muscle.name, Side.LEFT))
            )
            true_ai = true_asymmetry(body.truth, muscle.name, lean=False)
            report.add(
                "muscles",
                seed=seed,
                voxel_mm="x".join(f"{v:g}" for v in voxel_mm),
                muscle=muscle.name,
                **{
                    f"dice_{side}": dice(
                        found.labels == muscle.id + offset, truth == muscle.id + offset
                    )
                    for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET))
                },
                true_volume_ml=mean([body.truth[muscle.name, side].volume_ml for side in Side]),
                true_asymmetry=true_ai,
                asymmetry=ai,
                asymmetry_error=None if ai is None else ai - true_ai,
                true_labels_error=None if grid_ai is None else grid_ai - true_ai,
            )
    _criteria(report)
    return report


def _criteria(report: Report) -> None:
    rows = report.tables.get("muscles", [])
    scores = [row[f"dice_{side}"] for row in rows for side in Side]
    report.at_least("mean Dice", mean(scores), 0.90)
    large = [row for row in rows if row["true_volume_ml"] > LARGE_ML]
    errors = [abs(r["asymmetry_error"]) for r in large if r["asymmetry_error"] is not None]
    report.at_most("AI error above 50 mL, mean absolute, points", mean(errors), 2.0)
    report.at_most(
        "AI error above 50 mL, 95th percentile, points",
        float(np.percentile(errors, 95)) if errors else None,
        6.0,
    )
    floor = [abs(r["true_labels_error"]) for r in large if r["true_labels_error"] is not None]
    report.report("AI error above 50 mL of the true labels on these grids, points", mean(floor))
    report.report("muscles above 50 mL not found on both sides", len(large) - len(errors))


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--bodies", type=int, default=6, help="how many people")


if __name__ == "__main__":
    sys.exit(command_line("phantoms", __doc__, run, extend))
