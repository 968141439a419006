"""Time and memory of building the report of whole legs again, and whether its bytes repeat."""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Report, command_line
from pipeline import load_config, process_subject
from pipeline.io.nifti import write_label_map, write_volume
from pipeline.phantom import Acquisition, BodyParameters, Pose, acquire, grid_for, make_body

VOXEL_MM = (1.2, 1.2, 3.0)
_SUBJECT = "sub-report"
_LIMIT_S, _LIMIT_GIB = 20.0, 1.5
_KIB_PER_GIB = 2.0**20


def run(options: argparse.Namespace) -> Report:
    """Process whole legs with their true labels, then build the report in fresh processes."""
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "data", Path(scratch) / "out"
        grid = _write_whole_legs(data / _SUBJECT)
        config = load_config(overrides={"segment": {"engine": "given"}})
        process_subject(data, out, _SUBJECT, config=config)
        first = _digests(out)
        for run_number in (1, 2):
            seconds = _rebuild(out)
            again = _digests(out)
            changed = sorted(name for name in first if again.get(name) != first[name])
            report.add("runs", run=run_number, seconds=seconds, files_changed=len(changed))
    # The peak of the largest child: both did the same.
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _KIB_PER_GIB
    rows = report.tables["runs"]
    report.at_most("report of whole legs, s", max(row["seconds"] for row in rows), _LIMIT_S)
    report.at_most("peak resident memory, GiB", peak_gib, _LIMIT_GIB)
    report.at_most("files whose bytes changed", max(row["files_changed"] for row in rows), 0)
    report.report("grid", grid)
    report.report("load average when it ended", os.getloadavg()[0])
    return report


def _write_whole_legs(folder: Path) -> str:
    """Both legs of a phantom with their true labels as NIfTI files; returns the grid in words."""
    body = make_body(BodyParameters(pose=Pose(gap_mm=6.0), seed=5950), detail="reduced")
    scan = acquire(body, Acquisition(grid_for(body, VOXEL_MM), seed=5950))
    folder.mkdir(parents=True)
    for quantity, volume in scan.images.items():
        write_volume(folder / f"{folder.name}_{quantity}.nii.gz", volume, dtype=np.int16)
    write_label_map(folder / f"{folder.name}_dseg.nii.gz", scan.labels)
    return scan.labels.grid.describe()


def _rebuild(out: Path) -> float:
    """Seconds of a fresh process that builds the report, start of Python included."""
    command = [sys.executable, "-m", "pipeline.cli", "report", str(out)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(command_line("report_speed", __doc__, run))
