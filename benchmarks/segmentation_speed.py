"""Time and memory of segmenting whole legs, next to what the processor could do at best."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.common import Report, command_line, segment_config
from pipeline import (
    ArraySource,
    Grid,
    LoadedSubject,
    Quantity,
    Side,
    canonicalise,
    default_config,
    segment,
    separate_legs,
)
from pipeline.core.scan import SCANNER_SPACE, Leg, LegPair
from pipeline.core.soft import SoftLabels
from pipeline.engines.embedded import EmbeddedEngine
from pipeline.engines.session import (
    WEIGHTS,
    Contract,
    Network,
    OnnxNetwork,
    allocated_threads,
    read_contract,
)
from pipeline.phantom import Acquisition, BodyParameters, Pose, Scan, acquire, grid_for, make_body

Singles = NDArray[np.float32]
T = TypeVar("T")

SHAPE, VOXEL_MM = (320, 260, 360), (1.2, 1.2, 3.0)
_COARSE_MM = (2.4, 2.4, 6.0)
_LIMIT_S, _LIMIT_GIB = 28.0, 2.0
_MATRIX = 1536
#: How TotalSegmentator works through a volume: voxels of 1.5 mm in every direction
#: (totalsegmentator/map_tasks_config.py), patch after patch. Its plans are not published as text;
#: 128 voxels along each axis are what nnU-Net's default planner gives large volumes of equal
#: spacing. The sum hardly depends on them: at half a patch a step, every voxel is seen eight times.
PEER_SPACING_MM, PEER_PATCH = 1.5, 128
#: By task: networks that run one after the other, and steps as shares of a patch
#: (totalsegmentator/nnunet.py). thigh_shoulder_muscles_mr tells four parts of the thigh, total_mr
#: five muscles about the hip, total (for CT) the same; none tells a muscle below the knee.
PEER_TASKS = {"thigh_shoulder_muscles_mr": (1, 0.5), "total_mr": (2, 0.5), "total": (5, 0.8)}
_STATUS = Path("/proc/self/status")
#: Writing 5 here sets the peak of the resident set back to what is resident now (Linux).
_CLEAR = Path("/proc/self/clear_refs")


class TimedNetwork:
    """A network that counts its seconds and pixels."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.seconds = 0.0
        self.pixels = 0

    @property
    def contract(self) -> Contract:
        """As the network's."""
        return self._network.contract

    def predict(self, slices: Singles) -> Singles:
        """As the network's, timed."""
        started = time.perf_counter()
        out = self._network.predict(slices)
        self.seconds += time.perf_counter() - started
        self.pixels += slices.shape[0] * slices.shape[2] * slices.shape[3]
        return out


class TimedEngine(EmbeddedEngine):
    """The engine, counting the seconds it spends on legs."""

    seconds = 0.0

    def body_size(self, legs: LegPair) -> float:
        """As the engine's, timed."""
        started = time.perf_counter()
        out = super().body_size(legs)
        self.seconds += time.perf_counter() - started
        return out

    def segment_leg(self, leg: Leg, body_size: float = 1.0) -> SoftLabels:
        """As the engine's, timed."""
        started = time.perf_counter()
        out = super().segment_leg(leg, body_size)
        self.seconds += time.perf_counter() - started
        return out


def run(options: argparse.Namespace) -> Report:
    """Segment one pair of whole legs and say where the time went."""
    report = Report()
    images = whole_legs()
    weights = options.weights if options.weights is not None else WEIGHTS
    threads = allocated_threads()
    network = TimedNetwork(OnnxNetwork(weights, read_contract(weights), threads))
    config = segment_config(options)
    engine = TimedEngine(config.embedded, network)
    before_mib, _ = memory_mib(reset=True)
    scan, canonical_s = _timed(lambda: canonicalise(images, config=default_config().canonicalise))
    legs, separate_s = _timed(lambda: separate_legs(scan.value, config=default_config().separate))
    result, segment_s = _timed(lambda: segment(legs.value, config=config, engine=engine))
    _, peak_mib = memory_mib(reset=False)
    flops = flops_per_pixel(weights) * network.pixels
    rate = matrix_rate()
    for step, seconds in (
        ("canonicalise (before segmentation)", canonical_s),
        ("separate (before segmentation)", separate_s),
        ("segmentation: network", network.seconds),
        ("segmentation: the rest of the engine", engine.seconds - network.seconds),
        ("segmentation: decision, borders, limb axis", segment_s - engine.seconds),
        ("segmentation: all", segment_s),
        ("bound: FLOPs of the network / matrix rate", flops / rate),
    ):
        report.add("steps", step=step, seconds=seconds)
    report.at_most("segmentation of whole legs, s", segment_s, _LIMIT_S)
    report.at_most("peak resident memory, the images included, GiB", peak_mib / 1024, _LIMIT_GIB)
    report.report("resident before, with the images, GiB", before_mib / 1024)
    report.report("network, GFLOP", flops / 1e9)
    report.report("matrix rate, GFLOP/s", rate / 1e9)
    report.report("threads", threads)
    network_peer(report, options.peers_python, segment_s, threads)
    found = [int(np.unique(result.value[side].labels.data).size) - 1 for side in Side]
    report.report("structures found, left and right", f"{found[0]} and {found[1]}")
    report.report("load average when it ended", os.getloadavg()[0])
    return report


def network_peer(report: Report, python: Path | None, ours_s: float, threads: int) -> None:
    """What the networks of TotalSegmentator would take for the reference workload.

    One patch is measured, on as many threads; the rest is counted: patches of the volume, networks
    of a task. Loading, resampling and joining, which cost more, are left out.

    Args:
        report: gets a table "segmentation_peers", or a note why it has none.
        python: an interpreter that has torch.
        ours_s: seconds of our segmentation of the same workload, decision on the scanner's grid
            included.
        threads: of both.
    """
    if python is None:
        report.notes.append("segmentation peers: skipped: no interpreter with torch was named")
        return
    script = Path(__file__).with_name("segmentation_peer.py")
    # The interpreter is named by the person who runs this.
    done = subprocess.run(
        [str(python), str(script), str(threads), str(PEER_PATCH)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        report.notes.append(f"segmentation peers: skipped: {reason}")
        return
    peer = json.loads(done.stdout.strip().splitlines()[-1])
    for task, (networks, step) in PEER_TASKS.items():
        patches = peer_patches(SHAPE, VOXEL_MM, step)
        seconds = networks * patches * peer["patch_s"]
        report.add(
            "segmentation_peers",
            task=f"TotalSegmentator {task}",
            times_ours=seconds / ours_s,
            seconds=seconds,
            networks=networks,
            patches=patches,
            seconds_per_patch=peer["patch_s"],
            million_parameters=peer["million_parameters"],
            settings=peer["settings"],
        )


def peer_patches(shape: tuple[int, ...], voxel_mm: tuple[float, ...], step: float) -> int:
    """How many patches the sliding window of nnU-Net needs for a volume.

    Along each axis the fewest patches whose steps are no longer than the given one (Isensee et al.
    2021, doi 10.1038/s41592-020-01008-z).

    Args:
        shape, voxel_mm: of the volume as scanned.
        step: longest step from patch to patch, as a share of a patch.
    """
    sizes = [round(n * v / PEER_SPACING_MM) for n, v in zip(shape, voxel_mm, strict=True)]
    beyond = [max(size - PEER_PATCH, 0) for size in sizes]
    return math.prod(math.ceil(rest / (PEER_PATCH * step)) + 1 for rest in beyond)


def whole_legs(
    shape: tuple[int, int, int] = SHAPE,
    voxel_mm: tuple[float, float, float] = VOXEL_MM,
    *,
    above_middle_mm: float = 0.0,
) -> LoadedSubject:
    """Both legs of a phantom, coarsely scanned and brought to the size of a scan.

    Args:
        shape, voxel_mm: of the scan; by default the reference workload.
        above_middle_mm: how far its middle lies above that of the legs.
    """
    scan = _coarse_scan()
    first = scan.images[Quantity.WATER].grid
    middle = first.index_to_world((np.array(first.shape) - 1.0) / 2.0)
    middle[2] += above_middle_mm
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1.0) / 2.0)
    matrix = np.linalg.inv(first.affine) @ affine
    grid = Grid(shape, affine, SCANNER_SPACE)
    images = {
        quantity: ArraySource(
            ndimage.affine_transform(
                image.data, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1
            ),
            grid,
        )
        for quantity, image in scan.images.items()
    }
    return LoadedSubject(subject="sub-speed", session=None, images=images)


@cache
def _coarse_scan() -> Scan:
    body = make_body(BodyParameters(pose=Pose(gap_mm=6.0), seed=5950), detail="reduced")
    return acquire(body, Acquisition(grid_for(body, _COARSE_MM), seed=5950))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    out = work()
    return out, time.perf_counter() - started


def memory_mib(*, reset: bool) -> tuple[float, float]:
    """Resident memory now and its peak (since the last reset), MiB; Linux only."""
    if reset:
        _CLEAR.write_text("5")
    lines = dict(
        line.split(":", 1)
        for line in _STATUS.read_text(encoding="ascii").splitlines()
        if ":" in line
    )
    now, peak = (float(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return now, peak


def matrix_rate() -> float:
    """Floating-point operations per second of a large single-precision matrix product."""
    a = np.random.default_rng(0).random((_MATRIX, _MATRIX), dtype=np.float32)
    best = np.inf
    for _ in range(5):
        _, seconds = _timed(lambda: a @ a)
        best = min(best, seconds)
    return 2.0 * _MATRIX**3 / best


def flops_per_pixel(weights: Path, size: int = 160) -> float:
    """Operations of the network per pixel of its input, counted on one slice.

    Two per multiply-add of every convolution and matrix product, from the shapes that a profile
    of the unoptimised graph states.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            weights.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        shape = (1, int(session.get_inputs()[0].shape[1]), size, size)
        session.run(None, {session.get_inputs()[0].name: np.zeros(shape, dtype=np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return sum(_operations(event["args"]) for event in events if _is_kernel(event)) / size**2


def _is_kernel(event: dict[str, object]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time")


def _operations(arguments: dict[str, object]) -> float:
    name = arguments.get("op_name")
    if name not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0.0
    inputs, outputs = (
        [next(iter(entry.values())) for entry in arguments[f"{what}_type_shape"]]  # type: ignore[attr-defined]
        for what in ("input", "output")
    )
    if name == "Conv":
        return 2.0 * float(np.prod(outputs[0])) * float(np.prod(inputs[1][1:]))
    if name == "ConvTranspose":
        return 2.0 * float(np.prod(inputs[0])) * float(np.prod(inputs[1][1:]))
    return 2.0 * float(np.prod(outputs[0])) * float(inputs[0][-1])


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--peers-python", type=Path, help="python with torch")


if __name__ == "__main__":
    sys.exit(command_line("segmentation_speed", __doc__, run, extend))
