"""Do the 95 % intervals hold the truth? Random asymmetric phantoms, labelled by the network.

What is held against the truth is the interval of the method's own error (`se_method`): a phantom
is scanned once, so that nothing of the published scan-rescan figure is in it. Nothing about
patients follows: a phantom's anatomy is simpler than a person's. What was found of a body is kept
in OUT/interval_coverage and used again after an interruption; parts of the bodies can be measured
by several processes (--first, --pairs) before one run over all of them reads what they kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Report, Row, command_line, engine_of
from benchmarks.phantoms import person
from benchmarks.scans import label, measured
from pipeline import Side, default_config
from pipeline.core.anatomy import MUSCLES_BY_NAME
from pipeline.core.errors import MyosymmetryError
from pipeline.engines import Engine
from pipeline.imaging.asymmetry import Z95
from pipeline.io.derivatives import write_text
from pipeline.io.digest import file_digest
from pipeline.phantom import Acquisition, acquire, grid_for, make_body
from pipeline.phantom import asymmetry_percent as true_asymmetry
from pipeline.provenance import provenance

#: Bodies that neither the training (below 1000) nor the accuracy tool (5000) draws.
FIRST_SEED = 20_000
GRIDS_MM = ((2.0, 2.0, 8.0), (1.6, 1.6, 12.0), (2.2, 2.2, 6.0), (1.4, 1.4, 20.0))
#: Below this a muscle is too small for an asymmetry on such grids.
SMALLEST_ML = 20.0


def run(options: argparse.Namespace) -> Report:
    """Scan each body on one of the grids in turn, label, measure, hold against the truth."""
    report, engine = Report(), engine_of(options)
    kept = options.out / "interval_coverage" / options.engine
    inputs = {"engine": options.engine}
    if options.weights is not None:
        inputs["weights"] = file_digest(options.weights)
    used = provenance(default_config(), inputs).model_dump_json()
    for number in range(options.first, options.first + options.pairs):
        try:
            path = kept / f"body-{number}.json"
            rows = _kept_or(path, used, lambda number=number: _rows(number, engine))
        except MyosymmetryError as error:
            report.notes.append(f"body {number}: {error}")
            continue
        for row in rows:
            report.add("pairs", **row)
    _criteria(report)
    return report


def _kept_or(path: Path, used: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Rows kept earlier, if made by the same code, configuration and network, else new ones."""
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["used"] == used:
            return list(earlier["rows"])
    rows = measure()
    write_text(path, json.dumps({"used": used, "rows": rows}, default=float) + "\n")
    return rows


def _rows(number: int, engine: Engine) -> list[Row]:
    """One row for each muscle of a body that has an asymmetry."""
    seed = FIRST_SEED + number
    body = make_body(person(seed), detail="reduced")
    rng = np.random.default_rng([seed, 3])
    voxel_mm = GRIDS_MM[number % len(GRIDS_MM)]
    acquisition = Acquisition(
        grid_for(body, voxel_mm),
        snr=float(rng.uniform(12.0, 50.0)),
        bias_field=float(rng.uniform(0.0, 0.35)),
        water_in_fat=0.03,
        seed=seed,
    )
    scan = acquire(body, acquisition)
    rows: list[Row] = []
    for muscle in measured(label(scan.images, engine, given=scan.labels)).muscles:
        right, left = (body.truth[muscle.name, side] for side in (Side.RIGHT, Side.LEFT))
        truth = 100.0 * float(np.log(right.lean_volume_ml / left.lean_volume_ml))
        volume = (right.volume_ml + left.volume_ml) / 2.0
        found = muscle.asymmetry
        if found.log_ratio is None or found.se_method_percent is None or volume < SMALLEST_ML:
            continue
        sides = muscle.right, muscle.left
        rows.append(
            {
                "seed": seed,
                "slice_mm": voxel_mm[2],
                "muscle": muscle.name,
                "region": str(MUSCLES_BY_NAME[muscle.name].region),
                "volume_ml": volume,
                "found_ml": float(np.mean([m.volume_in_view_ml or 0.0 for m in sides])),
                "fat_percent": float(np.mean([m.fat_fraction_percent or 0.0 for m in sides])),
                "true_log_ratio": truth,
                "true_asymmetry": true_asymmetry(body.truth, muscle.name, lean=True),
                "error": 100.0 * found.log_ratio - truth,
                "se_method": found.se_method_percent,
                "confidence": min(m.confidence or 0.0 for m in sides),
                "repeats_right": muscle.right.repeat_volume_ratios,
                "repeats_left": muscle.left.repeat_volume_ratios,
            }
        )
    return rows


def _criteria(report: Report) -> None:
    rows = report.tables.get("pairs", [])
    report.report("pairs of muscles", len(rows))
    _coverage(report, rows, "all", lambda row: "")
    _coverage(report, rows, "region", lambda row: row["region"])
    _coverage(report, rows, "slice thickness, mm", lambda row: f"{row['slice_mm']:g}")
    middle = float(np.median([row["fat_percent"] for row in rows])) if rows else 0.0
    _coverage(
        report,
        rows,
        "fat",
        lambda row: f"{'above' if row['fat_percent'] > middle else 'up to'} {middle:.0f} %",
    )
    errors = [abs(row["error"]) for row in rows]
    if errors:
        width = float(np.median([Z95 * row["se_method"] for row in rows]))
        report.at_most(
            "median half-width over the 95th percentile of the errors",
            width / float(np.percentile(errors, 95)),
            1.5,
        )


def _coverage(
    report: Report,
    rows: Iterable[dict[str, Any]],
    what: str,
    group: Callable[[dict[str, Any]], str],
) -> None:
    held: dict[str, list[bool]] = {}
    for row in rows:
        held.setdefault(group(row), []).append(abs(row["error"]) <= Z95 * row["se_method"])
    for name, values in sorted(held.items()):
        report.within(f"coverage, {what} {name}".strip(), float(np.mean(values)), 0.90, 0.99)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--pairs", type=int, default=200, help="how many bodies")
    parser.add_argument("--first", type=int, default=0, help="number of the first body")


if __name__ == "__main__":
    sys.exit(command_line("interval_coverage", __doc__, run, extend))
