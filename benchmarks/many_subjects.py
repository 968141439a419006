"""A batch of 5,000 subjects: its plan, its states, its group, each next to what was promised.

The results are one digital person's, varied. Nothing is processed but that one person.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json

from benchmarks.cohort_norms import FIRST_SEED, write_person
from benchmarks.common import PROGRAM, ROOT, Cost, Report, command_line, cost_of
from benchmarks.phantoms import person
from pipeline.batch.group import FOLDER
from pipeline.config import load_config
from pipeline.engines.session import allocated_threads
from pipeline.flow import process_subject
from pipeline.io.derivatives import SubjectFolder

#: Where `make batch-setup` puts Snakemake.
BATCH_VENV = Path(os.environ.get("MYOSYMMETRY_BATCH_VENV", ROOT / ".venv-batch"))
_ONE = "sub-one"


@dataclass(frozen=True)
class OneResult:
    """What a processed person leaves behind: results as JSON values, the record of the run."""

    measures: dict[str, Any]
    run_record: bytes


def run(options: argparse.Namespace) -> Report:
    """Plan a batch that has not begun, then look at one that has ended."""
    report = Report()
    folder = options.out / "many"
    shutil.rmtree(folder, ignore_errors=True)
    data, out = folder / "data", folder / "out"
    table = _table(folder, options.subjects)
    for subject in _names(options.subjects):
        (data / subject).mkdir(parents=True)
    _dry_run(report, data, folder / "planned", table)
    # In a process of its own: Linux counts what a parent holds to the peak of those it starts.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        one = pool.submit(_one_result, folder / "one").result()
    for number, subject in enumerate(_names(options.subjects)):
        write_varied(SubjectFolder(out, subject, None), one, np.random.default_rng([number, 7]))
    status = cost_of(
        [*PROGRAM, "status", str(data), str(out), "--table", str(table)], folder / "log"
    )
    _add(report, "status", status)
    workers = allocated_threads()
    group = cost_of(
        [*PROGRAM, str(data), str(out), "group", "--nprocs", str(workers)], folder / "log"
    )
    _add(report, f"group, {workers} processes", group)
    people = len(_rows(out / FOLDER / "participants_wide.tsv"))
    report.at_least("people in the tables of the group", people, options.subjects)
    report.at_most("group, s", group.seconds, 60.0)
    # Workers come besides the process that collects what they read.
    together = group.peak_gib * (workers + 1 if workers > 1 else 1)
    report.at_most("group, GiB if every process had the memory of the largest", together, 2.0)
    report.report("load average when it ended", os.getloadavg()[0])
    shutil.rmtree(folder)
    return report


def _names(count: int) -> list[str]:
    return [f"sub-{number:05d}" for number in range(count)]


def _table(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    table = folder / "list.tsv"
    table.write_text("\n".join(["participant_id", *_names(count)]) + "\n", encoding="utf-8")
    return table


def _dry_run(report: Report, data: Path, out: Path, table: Path) -> None:
    """`make batch DRY=1`: our plan and Snakemake's."""
    snakemake = BATCH_VENV / "bin" / "snakemake"
    if not snakemake.is_file():
        report.notes.append("dry run: skipped: Snakemake is not installed (make batch-setup)")
        return
    stamps = [f"--old-file={venv}/.installed" for venv in (sys.prefix, BATCH_VENV)]
    variables = {
        "DATA": data,
        "OUT": out,
        "SUBJECTS": table,
        "VENV": sys.prefix,
        "BATCH_VENV": BATCH_VENV,
        "DRY": 1,
    }
    settings = [f"{name}={value}" for name, value in variables.items()]
    cost = cost_of(
        ["make", "--no-print-directory", "batch", *stamps, *settings], out.parent / "log"
    )
    _add(report, "dry run", cost)
    planned = sum(row["state"] == "missing" for row in _rows(out / "batch" / "plan.tsv"))
    report.at_least("rows of the plan", planned, len(_rows(table)))
    report.at_most("dry run, s", cost.seconds, 30.0)
    report.at_most("dry run, MB", cost.peak_gib * 2**30 / 1e6, 500.0)


def _add(report: Report, what: str, cost: Cost) -> None:
    report.add(
        "costs",
        what=what,
        seconds=cost.seconds,
        processor_s=cost.processor_s,
        peak_mib_of_the_largest_process=cost.peak_gib * 1024,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _one_result(folder: Path) -> OneResult:
    """Process one person."""
    write_person(folder / "data" / _ONE, person(FIRST_SEED))
    config = load_config(overrides={"segment": {"engine": "given"}})
    process_subject(folder / "data", folder / "out", _ONE, config=config)
    one = SubjectFolder(folder / "out", _ONE, None)
    return OneResult(json.loads(one.measures.read_bytes()), one.run_record.read_bytes())


def write_varied(folder: SubjectFolder, one: OneResult, random: np.random.Generator) -> None:
    """The same results for another subject, volumes and differences spread as over people."""
    measures = dict(one.measures["measures"])
    size = random.normal(1.0, 0.1)
    for kind in ("muscles", "groups"):
        measures[kind] = [_varied(result, size, random) for result in measures[kind]]
    values = {**one.measures, "subject": folder.subject, "measures": measures}
    folder.run_record.parent.mkdir(parents=True)
    folder.run_record.write_bytes(one.run_record)
    folder.measures.write_bytes(to_json(values))


def _varied(result: dict[str, Any], size: float, random: np.random.Generator) -> dict[str, Any]:
    result = dict(result)
    for side in ("right", "left"):
        result[side] = _scaled(result[side], size, ("volume_whole_ml", "lean_volume_whole_ml"))
    for name in ("asymmetry", "asymmetry_total_volume"):
        result[name] = _scaled(result[name], random.normal(1.0, 0.5), ("index_percent",))
    return result


def _scaled(values: dict[str, Any], factor: float, names: tuple[str, ...]) -> dict[str, Any]:
    known = {name: values[name] for name in names if values[name] is not None}
    return values | {name: value * factor for name, value in known.items()}


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--subjects", type=int, default=5000, help="how many (default 5000)")


if __name__ == "__main__":
    sys.exit(command_line("many_subjects", __doc__, run, extend))
