"""Damaged subjects: each ends in a correct result or a clear error, in limited time and memory."""

from __future__ import annotations

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from mutations import mutated, two_legs, write_dicom, write_nifti

from pipeline import cli
from pipeline.config import default_config
from pipeline.core.errors import MyosymmetryError
from pipeline.core.scan import CanonicalScan
from pipeline.stages.canonicalise import canonicalise
from pipeline.stages.load import load_subject
from pipeline.stages.separate import separate_legs

#: What one run may take beyond what the test process has: a hang or a bomb ends here.
MEMORY_BYTES = 1_500_000_000
CPU_S = 60
WALL_S = 180
#: Voxels that must be the same: what is damaged in the pixels of two of ten slices cannot be seen
#: in a format without checksums.
SAME_SHARE = 0.78


def run(data: Path) -> CanonicalScan:
    config = default_config()
    subject = load_subject(data, "01", config=config.load).value
    scan = canonicalise(subject, config=config.canonicalise).value
    separate_legs(scan, config=config.separate)
    return scan


def wrong_with(scan: CanonicalScan) -> str | None:
    """How a scan differs from the undamaged one where both show the same place; None: it does
    not."""
    expected = two_legs().images
    grid = next(iter(expected.values())).grid
    index = np.moveaxis(np.indices(scan.grid.shape), 0, -1)
    there = grid.world_to_index(scan.grid.index_to_world(index))
    nearest = np.rint(there).astype(int)
    off_mm = np.abs(there - nearest).max() * max(grid.voxel_sizes_mm)
    if off_mm > 1.0 or nearest.min() < 0 or (nearest.max(axis=(0, 1, 2)) >= grid.shape).any():
        return f"it lies elsewhere: {scan.grid.describe()}, {off_mm:.1f} mm off"
    # An image that is gone without a trace is not missed: the results say which were used.
    for quantity, image in scan.images.items():
        values = expected[quantity].data[tuple(np.moveaxis(nearest, -1, 0))]
        same = float(np.mean(np.abs(values - image.data) < 0.5))
        if same < SAME_SHARE:
            return f"{100 * (1 - same):.0f} % of the {quantity} image differ"
    return None


def limit_this_process() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))


def command_line(data: Path, answer: Connection) -> None:
    """The command on a subject whose labels nobody gave: it can only end in an error."""
    limit_this_process()
    code = cli.main([str(data), str(data.parent / "out"), "participant", "--engine", "given"])
    answer.send((f"exit code {code}", None))


def in_a_child(data: Path, answer: Connection) -> None:
    limit_this_process()
    try:
        answer.send(("result", wrong_with(run(data))))
    except MyosymmetryError as error:
        complete = error.expected or error.found or error.action
        answer.send(("refused", None if complete and error.exit_code != 70 else str(error)))
    # Whatever else ends a run is what this test is for.
    except BaseException:  # noqa: BLE001
        answer.send(("broken", traceback.format_exc()))


def outcome(
    data: Path, work: Callable[[Path, Connection], None] = in_a_child
) -> tuple[str, str | None]:
    """How a run in a process of its own ended, and what is wrong with it (None: nothing)."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(data, theirs))
    child.start()
    theirs.close()
    try:
        said: tuple[str, str | None] = (
            ours.recv() if ours.poll(WALL_S) else ("hung", f"no end after {WALL_S} s")
        )
    except EOFError:
        said = ("died", "it was killed by its limits")
    child.kill()
    child.join()
    return said


def assert_ends_well(tmp_path: Path, seed: int) -> None:
    what = mutated(tmp_path / "in" / "sub-01", seed)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    how, wrong = outcome(tmp_path / "in")
    assert how in ("result", "refused"), f"{what}: {how}: {wrong}"
    assert wrong is None, f"{what}: {how}: {wrong}"
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("write", [write_nifti, write_dicom])
def test_an_undamaged_subject_gives_the_result(tmp_path: Path, write) -> None:
    write(tmp_path / "sub-01")
    assert outcome(tmp_path) == ("result", None)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_subjects(tmp_path: Path, seed: int) -> None:
    assert_ends_well(tmp_path, seed)


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 60))]
)
def test_the_command_leaves_nothing_that_looks_finished(tmp_path: Path, seed: int) -> None:
    what = mutated(tmp_path / "in" / "sub-01", seed)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    how, _ = outcome(tmp_path / "in", command_line)
    # 3: the input, 4: nothing to measure, 6: memory. A bug would be 70.
    assert how in ("exit code 3", "exit code 4", "exit code 6"), f"{what}: {how}"
    after = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    assert [p for p in after if p.parts[0] != "out"] == before
    assert not [p for p in after if p.name.endswith("_measures.json")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40, 300))
def test_three_hundred_damaged_subjects(tmp_path: Path, seed: int) -> None:
    assert_ends_well(tmp_path, seed)
