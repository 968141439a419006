"""The command line on the sample subjects and on real scans: images in, report out."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import Report, SkippedError, command_line
from benchmarks.scans import REAL, real_path
from pipeline import Side
from pipeline.cli import main
from pipeline.io.derivatives import SubjectFolder, read_measures

SAMPLE_DATA = Path(__file__).resolve().parents[1] / "sample_data"
SAMPLES = ("sub-01", "sub-02")


def run(options: argparse.Namespace) -> Report:
    """Process each subject with the configured engine and say how it ended."""
    if options.weights is not None:
        raise SkippedError("the command line runs the shipped network only")
    report = Report()
    results = options.out / "derivatives"
    for subject in SAMPLES:
        _process(report, options, SAMPLE_DATA, results, subject)
    for scan in options.scans:
        subject = "sub-" + scan.replace("_", "")
        data = options.out / "data"
        _link(data / subject, scan)
        _process(report, options, data, results, subject)
    return report


def _link(folder: Path, scan: str) -> None:
    """A subject's folder that points at the files of a real scan."""
    folder.mkdir(parents=True, exist_ok=True)
    for quantity, stem in REAL[scan].items():
        link = folder / f"{folder.name}_{quantity}.nii.gz"
        link.unlink(missing_ok=True)
        link.symlink_to(real_path(stem).resolve())


def _process(
    report: Report, options: argparse.Namespace, data: Path, out: Path, subject: str
) -> None:
    started = time.perf_counter()
    code = main(
        [
            *(str(data), str(out), "participant", "--participant-label", subject),
            *("--engine", options.engine, "--force"),
        ]
    )
    seconds = time.perf_counter() - started
    folder = SubjectFolder(out, subject, None)
    measures = read_measures(folder.measures) if code == 0 else None
    states: Counter[str] = Counter()
    if measures is not None:
        states.update(
            str(getattr(muscle, side).status)
            for muscle in measures.measures.muscles
            for side in Side
        )
    done = measures is not None and folder.report.is_file()
    report.add(
        "runs",
        subject=subject,
        exit_code=code,
        seconds=seconds,
        report=folder.report.name if done else None,
        **{state: states[state] for state in ("ok", "truncated", "unreliable", "absent")},
        warnings=None
        if measures is None
        else ", ".join(sorted({f.code for f in measures.findings if f.severity != "info"})),
    )
    report.at_least(f"{subject}: ends in a report", int(done), 1)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument(
        "--scans",
        nargs="*",
        choices=list(REAL),
        default=["thigh_dixon_a", "thigh_water_b", "leg_dixon_e"],
    )


if __name__ == "__main__":
    sys.exit(command_line("whole_runs", __doc__, run, extend))
