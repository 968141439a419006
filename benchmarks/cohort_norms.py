"""Limits from 20 processed digital people, against the spread that was planted in them.

Every person draws the asymmetry of every muscle from one normal distribution. They are processed
and handed to `norms` on the command line, as a group would do with its own healthy cohort.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Report, SkippedError, command_line
from benchmarks.phantoms import SPREAD_PERCENT, person
from pipeline.batch.group import FOLDER
from pipeline.batch.results import read_outcomes
from pipeline.cli import main
from pipeline.core.anatomy import MUSCLES
from pipeline.engines.session import allocated_threads
from pipeline.io.derivatives import SubjectFolder
from pipeline.io.nifti import write_label_map, write_volume
from pipeline.phantom import Acquisition, BodyParameters, acquire, grid_for, make_body

#: Training draws seeds below 1000, the fits of the intervals seeds below 1100.
FIRST_SEED = 2000
VOXEL_MM = (2.5, 2.5, 6.0)
#: Standard deviations of a normal distribution that 95 % lie within.
_NORMAL_95 = 1.96
Floats = np.ndarray[Any, np.dtype[np.float64]]


def run(options: argparse.Namespace) -> Report:
    """Make the people, process them, and hold their limits against the truth."""
    if options.weights is not None:
        raise SkippedError("the command line runs the shipped network only")
    data, out = options.out / "cohort" / "data", options.out / "cohort" / "out"
    subjects = [f"sub-{number + 1:02d}" for number in range(options.people)]
    planted = []
    rows = ["participant_id\theight_m\tmass_kg"]
    for number, subject in enumerate(subjects):
        parameters = person(FIRST_SEED + number)
        write_person(data / subject, parameters)
        planted.append([parameters.asymmetry_percent[muscle.name] for muscle in MUSCLES])
        rows.append(f"{subject}\t{parameters.height_m:.6f}\t{parameters.mass_kg:.6f}")
    (data / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    command = [str(data), str(out), "participant", "--engine", options.engine]
    code = main([*command, "--nprocs", str(min(allocated_threads(), options.people))])
    if code == 0:
        code = main(["norms", str(data), str(out)])
    if code != 0:
        raise RuntimeError(f"the command line ended with exit code {code}")
    report = Report()
    compare(report, out, subjects, np.array(planted))
    return report


def write_person(folder: Path, parameters: BodyParameters) -> None:
    """A subject's folder; the true labels are used with the engine "given" only."""
    body = make_body(parameters, detail="reduced")
    scan = acquire(body, Acquisition(grid_for(body, VOXEL_MM), seed=parameters.seed))
    folder.mkdir(parents=True, exist_ok=True)
    for quantity, volume in scan.images.items():
        write_volume(folder / f"{folder.name}_{quantity}.nii.gz", volume, dtype=np.int16)
    write_label_map(folder / f"{folder.name}_dseg.nii.gz", scan.labels)


def compare(report: Report, out: Path, subjects: list[str], planted: Floats) -> None:
    """Hold what `norms` wrote of people against what was planted in them.

    Args:
        report: gets a table "muscles" and the criteria.
        out: folder with the results and group/norms.tsv.
        subjects: the people.
        planted: asymmetry of total volume by person and muscle (in the order of MUSCLES), percent.
    """
    with (out / FOLDER / "norms.tsv").open(encoding="utf-8", newline="") as stream:
        norms = {row["name"]: row for row in csv.DictReader(stream, delimiter="\t")}
    outcomes = list(read_outcomes([SubjectFolder(out, s, None) for s in subjects], rows=False))
    planted_limit = _NORMAL_95 * SPREAD_PERCENT
    ratios, distances, errors, weights = [], [], [], []
    for k, muscle in enumerate(MUSCLES):
        row = norms[muscle.name]
        measured = [o.values.get((muscle.name, "asymmetry_total_volume_percent")) for o in outcomes]
        error = [m - t for m, t in zip(measured, planted[:, k], strict=True) if m is not None]
        errors += error
        if row["limit_percent"] == "n/a":
            report.add("muscles", muscle=muscle.name, people=len(error))
            continue
        people, sd = int(row["people"]), float(row["asymmetry_sd_percent"])
        limit, se_limit = float(row["limit_percent"]), float(row["se_of_limit_percent"])
        ratios.append((sd / SPREAD_PERCENT) ** 2)
        weights.append(people - 1)
        distances.append((limit - planted_limit) / se_limit)
        report.add(
            "muscles",
            muscle=muscle.name,
            people=people,
            mean_percent=float(row["asymmetry_mean_percent"]),
            sd_percent=sd,
            planted_in_these_percent=float(planted[:, k].std(ddof=1)),
            limit_percent=limit,
            se_of_limit_percent=se_limit,
            limit_away_in_se=distances[-1],
            measuring_error_sd_percent=float(np.std(error)),
        )
    pooled = math.sqrt(np.average(ratios, weights=weights))
    se = 1.0 / math.sqrt(2.0 * sum(weights))
    report.report("planted standard deviation, percent", SPREAD_PERCENT)
    report.report(
        "measured less planted asymmetry, standard deviation, percent", float(np.std(errors))
    )
    report.at_least("muscles with a limit of their own", len(ratios), len(MUSCLES))
    report.within("pooled measured spread over planted", pooled, 1.0 - 3.0 * se, 1.0 + 3.0 * se)
    near = float(np.mean(np.abs(distances) <= 2.0))
    report.at_least("share of limits within two standard errors of the planted", near, 0.9)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--people", type=int, default=20, help="how many (default 20)")


if __name__ == "__main__":
    sys.exit(command_line("cohort_norms", __doc__, run, extend))
