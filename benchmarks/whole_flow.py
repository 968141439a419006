"""Files to report: time and peak memory by stage, how they grow, and what they cost at least."""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    PROGRAM,
    Cost,
    Report,
    SkippedError,
    columns,
    command_line,
    cost_of,
)
from benchmarks.registration import peers as registration_peers
from benchmarks.segmentation_speed import (
    SHAPE,
    VOXEL_MM,
    flops_per_pixel,
    matrix_rate,
    memory_mib,
    network_peer,
    whole_legs,
)
from pipeline.core.scan import LoadedSubject
from pipeline.core.volume import Volume
from pipeline.engines.session import WEIGHTS, allocated_threads, embedded_network
from pipeline.flow import STAGES, process_subject
from pipeline.io.nifti import write_volume
from pipeline.provenance import DISTRIBUTION, code_digest, version_of

SUBJECT = "sub-bench"
#: A thigh as it is scanned slice by slice: fine in the plane, thick slices.
THIGH_SHAPE, THIGH_VOXEL_MM, THIGH_ABOVE_MM = (512, 512, 16), (0.75, 0.61, 6.0), 220.0
#: Parts of the voxels of the reference workload at which cost is looked at: fewer levels, and
#: coarser voxels.
EXTENT_PARTS = (0.25, 0.5, 0.75, 1.0)
PARTS = (0.125, 0.25, 0.5, 1.0)
SIZES = {"extent": "more of the legs", "voxels": "finer voxels"}
SUBJECTS = (1, 2, 4)
#: Limits in seconds for parts of the flow, by the stages they add up.
STAGE_LIMITS_S = (
    (("load", "canonicalise"), 10.0),
    (("segment",), 28.0),
    (("register",), 28.0),
    (("report",), 15.0),
    (("separate", "measure"), 9.0),
)
_COPIED_MIB = 256


def run(options: argparse.Namespace) -> Report:
    """Run the flow in all its sizes and say what it took."""
    if options.weights is not None:
        raise SkippedError("the command line runs the shipped network only")
    report = Report()
    full = options.out / "full"
    files = write_scan(full / "data", whole_legs())
    whole = command(full, options.engine, "--force")
    again = command(full, options.engine)
    thigh = options.out / "thigh"
    write_scan(
        thigh / "data", whole_legs(THIGH_SHAPE, THIGH_VOXEL_MM, above_middle_mm=THIGH_ABOVE_MM)
    )
    small = command(thigh, options.engine, "--force")
    report.at_most("whole legs, files to report, s", whole.seconds, 90.0)
    report.at_most("whole legs, peak memory, GiB", whole.peak_gib, 4.0)
    report.at_most("whole legs again with nothing changed, s", again.seconds, 2.0)
    report.at_most("thighs of 512 x 512 x 16 voxels, s", small.seconds, 20.0)
    network = _stages(report, full, options.engine)
    _floor(report, files, network)
    (ours,) = (row["seconds"] for row in report.tables["stages"] if row["stage"] == "segment")
    network_peer(report, options.peers_python, ours, allocated_threads())
    registration_peers(report, options.peers_python)
    _by_extent(report, options, whole)
    _by_voxels(report, options, whole)
    _by_subjects(report, options)
    report.report("threads", allocated_threads())
    report.report("load average when it ended", os.getloadavg()[0])
    if options.page is not None:
        # What took minutes is not lost to a page that cannot be written.
        report.write(options.out, "whole_flow")
        options.page.write_text(page(report), encoding="utf-8")
    return report


def write_scan(data: Path, loaded: LoadedSubject, subject: str = SUBJECT) -> list[Path]:
    """Write a scan as a subject's folder of NIfTI files."""
    folder = data / subject
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for quantity, source in loaded.images.items():
        path = folder / f"{subject}_{quantity}.nii.gz"
        image = Volume(source.data, source.grid, quantity, "a.u.")
        write_volume(path, image, dtype=np.int16)
        paths.append(path)
    return paths


def command(folder: Path, engine: str, *more: str) -> Cost:
    """Process every subject of folder/data on the command line, in one process of its own."""
    arguments = [str(folder / "data"), str(folder / "out"), "participant", "--engine", engine]
    return cost_of([*PROGRAM, *arguments, *more], folder / "log.txt")


def staged(folder: Path, engine: str) -> tuple[list[dict[str, Any]], float, int]:
    """Seconds and peak memory of each stage, seconds of the network and the pixels it saw.

    To be called in a fresh process, whose memory is the flow's alone.
    """
    from pipeline.config import load_config

    marks: list[tuple[str, float, float]] = []

    def mark(stage: str) -> None:
        peak = memory_mib(reset=False)[1]
        marks.append((stage, time.perf_counter(), peak))
        memory_mib(reset=True)

    network = embedded_network()
    predict, spent, pixels = network.predict, [], []

    def timed(slices: NDArray[np.float32]) -> NDArray[np.float32]:
        started = time.perf_counter()
        out = predict(slices)
        spent.append(time.perf_counter() - started)
        pixels.append(slices.shape[0] * slices.shape[2] * slices.shape[3])
        return out

    network.predict = timed  # type: ignore[method-assign]
    process_subject(
        folder / "data",
        folder / "out_staged",
        SUBJECT,
        config=load_config(overrides={"segment": {"engine": engine}}),
        force=True,
        progress=lambda stage, number, count: mark(stage),
    )
    mark("end")
    rows = [
        {"stage": stage, "seconds": after[1] - begun, "peak_gib": after[2] / 1024}
        for (stage, begun, _), after in pairwise(marks)
    ]
    return rows, sum(spent), sum(pixels)


def _stages(report: Report, folder: Path, engine: str) -> tuple[float, int]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        rows, seconds, pixels = pool.submit(staged, folder, engine).result()
    report.tables["stages"] = rows
    found = {row["stage"]: row["seconds"] for row in rows}
    assert set(found) == set(STAGES)
    for names, limit in STAGE_LIMITS_S:
        report.at_most(f"{' and '.join(names)}, s", sum(found[name] for name in names), limit)
    return seconds, pixels


def _floor(report: Report, files: Sequence[Path], network: tuple[float, int]) -> None:
    """What the same machine needs for the least that must be done."""
    raw = 0
    started = time.perf_counter()
    for path in files:
        with gzip.open(path) as stream:
            raw += len(stream.read())
    unpacked = time.perf_counter() - started
    flops, rate = flops_per_pixel(WEIGHTS) * network[1], matrix_rate()
    bandwidth = memory_bandwidth()
    floats = 4 * int(np.prod(SHAPE)) * len(files)
    for what, amount, unit, speed, seconds in (
        (
            "unpack the files once",
            raw / 2**20,
            "MiB",
            f"{raw / 2**20 / unpacked:.0f} MiB/s",
            unpacked,
        ),
        (
            "pass both images through memory once, float32",
            floats / 2**20,
            "MiB",
            f"{bandwidth / 2**30:.1f} GiB/s",
            2 * floats / bandwidth,
        ),
        (
            "operations of the network",
            flops / 1e9,
            "GFLOP",
            f"{rate / 1e9:.0f} GFLOP/s",
            flops / rate,
        ),
    ):
        report.add("floor", what=what, amount=amount, unit=unit, rate=speed, seconds=seconds)
    report.report("network, seconds over its floor", network[0] / (flops / rate))


def memory_bandwidth() -> float:
    """Bytes read and written per second by copying a large array."""
    source = np.ones(_COPIED_MIB * 2**17, dtype=np.float64)
    target = np.empty_like(source)
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2.0 * source.nbytes / best


def _by_extent(report: Report, options: argparse.Namespace, whole: Cost) -> None:
    """Cost of showing more of the legs, from the knees up and down, at one size of voxel."""
    levels = [round(SHAPE[2] * part) for part in EXTENT_PARTS]
    scans = {f"extent_{n}": ((*SHAPE[:2], n), VOXEL_MM) for n in levels}
    explained = _by_size(report, options, whole, "extent", scans)
    what = f"{SIZES['extent']}: share of the variance a line explains"
    report.at_least(what, explained, 0.98)


def _by_voxels(report: Report, options: argparse.Namespace, whole: Cost) -> None:
    """Cost of the same legs on finer and finer voxels; the network keeps its own pixels."""
    scans = {}
    for part in PARTS:
        factor = part ** (1 / 3)
        shape = tuple(round(n * factor) for n in SHAPE)
        voxel_mm = tuple(v * n / m for v, n, m in zip(VOXEL_MM, SHAPE, shape, strict=True))
        scans[f"voxels_{part:g}"] = (shape, voxel_mm)
    explained = _by_size(report, options, whole, "voxels", scans)
    report.report(f"{SIZES['voxels']}: share of the variance a line explains", explained)


def _by_size(
    report: Report,
    options: argparse.Namespace,
    whole: Cost,
    table: str,
    scans: Mapping[str, tuple[Any, Any]],
) -> float:
    """Cost of scans by the folder they go to, and a line through it; R squared."""
    title = SIZES[table]
    counts, seconds = [], []
    for folder_name, (shape, voxel_mm) in scans.items():
        if shape == SHAPE:
            cost = whole
        else:
            folder = options.out / folder_name
            write_scan(folder / "data", whole_legs(shape, voxel_mm))
            cost = command(folder, options.engine, "--force")
        millions = float(np.prod(shape)) / 1e6
        report.add(
            table,
            shape=" x ".join(map(str, shape)),
            voxel_mm=" x ".join(f"{v:.3g}" for v in voxel_mm),
            million_voxels=millions,
            seconds=cost.seconds,
            peak_gib=cost.peak_gib,
        )
        counts.append(millions)
        seconds.append(cost.seconds)
    slope, start, explained = line_through(counts, seconds)
    report.report(f"{title}: seconds per million voxels", slope)
    report.report(f"{title}: seconds that do not depend on voxels", start)
    return explained


def line_through(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope and intercept of the line of least squares, and R squared."""
    slope, start = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (slope * np.asarray(x) + start)
    return float(slope), float(start), float(1.0 - rest.var() / np.var(y))


def _by_subjects(report: Report, options: argparse.Namespace) -> None:
    """Several small subjects one after the other in one process: memory must stay flat."""
    costs = []
    for count in SUBJECTS:
        folder = options.out / f"subjects_{count}"
        shape = tuple(round(n / 2) for n in SHAPE)
        scan = whole_legs(shape, tuple(2 * v for v in VOXEL_MM))
        for number in range(count):
            write_scan(folder / "data", scan, f"sub-{number + 1:02d}")
        cost = command(folder, options.engine, "--force")
        costs.append(cost)
        report.add(
            "subjects",
            subjects=count,
            seconds=cost.seconds,
            seconds_per_subject=cost.seconds / count,
            peak_gib=cost.peak_gib,
        )
    # What the first subject's report loads (drawing libraries) stays, so that the second subject
    # stands on more than the first; from then on nothing may be added.
    peaks = dict(zip(SUBJECTS, (cost.peak_gib for cost in costs), strict=True))
    one, two, most = SUBJECTS
    report.report(
        f"peak memory with {most} subjects over that with {one}", peaks[most] / peaks[one]
    )
    what = f"peak memory with {most} subjects over that with {two}"
    report.at_most(what, peaks[most] / peaks[two], 1.1)


def page(report: Report) -> str:
    """The results as a Markdown page, ratios first."""
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}; myosymmetry "
        f"{version_of(DISTRIBUTION)}, code {code_digest()[:12]}.",
        "",
        "Reference workload: whole legs of the phantom, one volume of "
        f"{' x '.join(map(str, SHAPE))} voxels of {' x '.join(map(str, VOXEL_MM))} mm, water and "
        "fat.",
        "",
        "## Against what was promised",
        "",
    ]
    held = [row for row in report.criteria if row["met"] is not None]
    rows = [
        {
            "what": row["what"],
            "found / limit": row["found"] / limit if limit else None,
            "found": row["found"],
            "limit": row["limit"],
            "met": "yes" if row["met"] else "**no**",
        }
        for row, limit in ((row, float(row["limit"].split()[-1])) for row in held)
    ]
    lines += [*_markdown(rows), ""]
    for table, title in (
        ("segmentation_peers", "Networks of TotalSegmentator on the reference workload"),
        ("peers", "Registration of one pair of legs, one thread each"),
        ("stages", "By stage"),
        ("floor", "The least that must be done, on the same machine in the same run"),
        ("extent", "By number of voxels: more of the legs, from the knees up and down"),
        ("voxels", "By number of voxels: the same legs on finer voxels"),
        ("subjects", "Subjects one after the other in one process"),
    ):
        if table in report.tables:
            lines += [f"## {title}", "", *_markdown(report.tables[table]), ""]
    said = [row for row in report.criteria if row["met"] is None]
    lines += ["## Besides", ""]
    lines += [f"- {row['what']}: {_cell(row['found'])}" for row in said]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Processor, cores and memory in words."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, Python {platform.python_version()}"
    )


def _markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = columns(rows)
    lines = [
        f"| {' | '.join(name.replace('_', ' ') for name in names)} |",
        "|---" * len(names) + "|",
    ]
    return lines + [f"| {' | '.join(_cell(row.get(name, '')) for name in names)} |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--page", type=Path, help="Markdown page to write the results to")
    parser.add_argument(
        "--peers-python", type=Path, help="python with torch, itk-elastix and antspyx"
    )


if __name__ == "__main__":
    sys.exit(command_line("whole_flow", __doc__, run, extend))
