"""What every tool shares: its command line, the engine it tries, the tables it leaves behind."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import default_config
from pipeline.config import SegmentConfig
from pipeline.engines import Engine, get_engine
from pipeline.engines.embedded import EmbeddedEngine
from pipeline.engines.session import OnnxNetwork, allocated_threads, read_contract

Row = Mapping[str, Any]

#: Names the folder of real scans; without it the folder beside the checkout is looked for.
SHARED_DATA_VARIABLE = "MYOSYMMETRY_SHARED_DATA"


ROOT = Path(__file__).resolve().parents[1]
#: The command line of this project, with the interpreter that runs this.
PROGRAM = (sys.executable, "-m", "pipeline.cli")


class SkippedError(Exception):
    """A tool cannot run here; the message says why."""


@dataclass
class Report:
    """Tables by name, and what was promised next to what was found.

    Attributes:
        tables: rows by table name; the columns are those of the rows, in order of appearance.
        criteria: one row per promise: what, found, limit and whether it is met (None: reported
            only, nothing was promised or nothing could be measured).
        notes: sentences a reader of the figures needs.
    """

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    criteria: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, table: str, **row: Any) -> None:
        """Append a row to a table."""
        self.tables.setdefault(table, []).append(row)

    def at_least(self, what: str, found: float | None, limit: float) -> None:
        """Hold a figure against a lower limit."""
        self._hold(what, found, f">= {limit:g}", None if found is None else found >= limit)

    def at_most(self, what: str, found: float | None, limit: float) -> None:
        """Hold a figure against an upper limit."""
        self._hold(what, found, f"<= {limit:g}", None if found is None else found <= limit)

    def below(self, what: str, found: float | None, limit: float) -> None:
        """Hold a figure against an upper limit that it must stay under."""
        self._hold(what, found, f"< {limit:g}", None if found is None else found < limit)

    def within(self, what: str, found: float, low: float, high: float) -> None:
        """Hold a figure against a range."""
        self._hold(what, found, f"{low:g} to {high:g}", low <= found <= high)

    def report(self, what: str, found: Any) -> None:
        """State a figure that has no limit."""
        self._hold(what, found, "reported", None)

    def _hold(self, what: str, found: Any, limit: str, met: bool | None) -> None:
        self.criteria.append({"what": what, "found": found, "limit": limit, "met": met})

    def write(self, out: Path, name: str) -> None:
        """Leave NAME.json and one NAME_<table>.tsv per table in a folder."""
        out.mkdir(parents=True, exist_ok=True)
        everything = {"criteria": self.criteria, "notes": self.notes, "tables": self.tables}
        text = json.dumps(everything, indent=1, default=float)
        (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        for table, rows in {**self.tables, "criteria": self.criteria}.items():
            with (out / f"{name}_{table}.tsv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, columns(rows), delimiter="\t", restval="")
                writer.writeheader()
                writer.writerows({k: _shown(v) for k, v in row.items()} for row in rows)

    def text(self) -> str:
        """Everything as text for a terminal."""
        parts = [f"## {table}\n{_as_text(rows)}" for table, rows in self.tables.items()]
        if self.criteria:
            parts.append(f"## criteria\n{_as_text(self.criteria)}")
        return "\n\n".join([*parts, *self.notes])


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: on the clock.
        processor_s: of processors, of all its processes together.
        peak_gib: peak of the resident memory of its largest process.
    """

    seconds: float
    processor_s: float
    peak_gib: float


def cost_of(command: Sequence[str], log: Path) -> Cost:
    """Run a command in the root of this project and say what it took.

    Raises:
        RuntimeError: it did not end well; the message holds what it said.
    """
    started = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}: {log.read_text()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def columns(rows: Sequence[Row]) -> list[str]:
    """Names of all columns of a table, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _as_text(rows: Sequence[Row]) -> str:
    names = columns(rows)
    cells = [names, *([_shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shared_data() -> Path:
    """Folder of real scans and anatomies.

    Raises:
        SkippedError: there is none on this machine.
    """
    named = os.environ.get(SHARED_DATA_VARIABLE)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(named) if named else beside
    if not path.is_dir():
        raise SkippedError(f"real scans are not on this machine (set {SHARED_DATA_VARIABLE})")
    return path


def command_line(
    name: str,
    description: str,
    run: Callable[[argparse.Namespace], Report],
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Parse the arguments, run a tool, print and write what it found. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("out", type=Path, help="folder for tables and pictures")
    parser.add_argument("--engine", default="embedded", help="engine to try (default embedded)")
    parser.add_argument("--weights", type=Path, help="another network file than the shipped one")
    if extend is not None:
        extend(parser)
    options = parser.parse_args()
    try:
        report = run(options)
    except SkippedError as reason:
        print(f"{name}: skipped: {reason}")
        return 0
    report.write(options.out, name)
    print(report.text())
    return 0


def segment_config(options: argparse.Namespace) -> SegmentConfig:
    """The default configuration of the segmentation, with the engine of the command line."""
    return default_config().segment.model_copy(update={"engine": options.engine})


def engine_of(options: argparse.Namespace) -> Engine:
    """The engine that the command line asks for."""
    config = segment_config(options)
    if options.weights is None:
        return get_engine(config)
    network = OnnxNetwork(options.weights, read_contract(options.weights), allocated_threads())
    return EmbeddedEngine(config.embedded, network)
