"""Time and memory of building the report of whole legs again, and whether its bytes repeat."""

from __future__ import annotations

import argparse
import hashlib
import os
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
#: The command, then its own account; what the system keeps of a child starts with its parent's.
_CHILD = """
import re, sys, time
from pathlib import Path
from pipeline.cli import main
code = main(["report", sys.argv[1]])
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(time.process_time(), peak)
sys.exit(code)
"""


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
            figures = _rebuild(out)
            again = _digests(out)
            changed = [name for name in first if again.get(name) != first[name]]
            report.add("runs", run=run_number, **figures, files_changed=len(changed))
    worst = {
        key: max(row[key] for row in report.tables["runs"]) for key in report.tables["runs"][0]
    }
    report.at_most("report of whole legs, s", worst["seconds"], _LIMIT_S)
    report.report("of that, processor time, s", worst["cpu_seconds"])
    report.at_most("peak resident memory, GiB", worst["peak_gib"], _LIMIT_GIB)
    report.at_most("files whose bytes changed", worst["files_changed"], 0)
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


def _rebuild(out: Path) -> dict[str, float]:
    """Wall time, processor time and peak memory of a fresh process that builds the report."""
    started = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(out)], check=True, stdout=subprocess.PIPE, text=True
    )
    cpu_seconds, peak_kib = child.stdout.split()[-2:]
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": float(cpu_seconds),
        "peak_gib": float(peak_kib) / _KIB_PER_GIB,
    }


def _digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(command_line("report_speed", __doc__, run))
