"""What a run costs besides its results: imports, threads, loaded weights."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pipeline.engines.session import WEIGHTS, OnnxNetwork, allocated_threads, read_contract
from pipeline.runner import pool_of

ROOT = Path(__file__).resolve().parent.parent


def modules_after(code: str) -> set[str]:
    """Names of the modules that a new process has imported after some code."""
    result = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy():
    code = "from pipeline.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    heavy = {"numpy", "scipy", "onnxruntime", "SimpleITK", "nibabel", "matplotlib", "pydantic"}
    assert not heavy & modules_after(code)


def test_a_run_that_finds_its_results_draws_nothing():
    """What decides whether anything has changed imports neither charts nor statistics."""
    found = modules_after("from pipeline.flow import process_subject")
    assert "pipeline.stages.measure" in found
    assert not {"matplotlib", "jinja2", "scipy.stats", "scipy.signal"} & found


def test_workers_share_the_threads_and_leave_the_process_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = dict(os.environ)
    with pool_of(2) as pool:
        assert pool.submit(allocated_threads).result() == 3
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"
        assert pool.submit(tempfile.gettempdir).result() == str(tmp_path)
    assert dict(os.environ) == before
    assert allocated_threads() == 6


def test_a_thread_more_changes_no_probability():
    contract = read_contract(WEIGHTS)
    size = 4 * contract.size_multiple
    slices = np.random.default_rng(3).random((2, 10, size, size), dtype=np.float32)
    one, two = (OnnxNetwork(WEIGHTS, contract, threads).predict(slices) for threads in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7)


def test_weights_are_loaded_once(monkeypatch):
    loaded = []
    session = onnxruntime.InferenceSession

    def counted(*arguments, **keywords):
        loaded.append(1)
        return session(*arguments, **keywords)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    contract = read_contract(WEIGHTS)
    network = OnnxNetwork(WEIGHTS, contract, 1)
    size = contract.size_multiple
    for _ in range(2):
        network.predict(np.zeros((1, 10, size, size), dtype=np.float32))
    assert len(loaded) == 1


_HOLES = """
import numpy as np
from pipeline.runner import return_free_memory

def resident_mib():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20

del (large := [np.ones(2**21)])[:]  # glibc now takes arrays of up to 16 MiB from its heap
arrays = [np.ones(2**17) for _ in range(200)]
before = resident_mib()
del arrays[::2]
holes = resident_mib()
return_free_memory()
print(before - holes, holes - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_free_memory_goes_back_to_the_system():
    """Every second of 200 arrays of 1 MiB is deleted: the holes are kept until asked for."""
    result = subprocess.run(
        [sys.executable, "-c", _HOLES], capture_output=True, text=True, cwd=ROOT, check=True
    )
    by_itself, when_asked = map(float, result.stdout.split())
    assert by_itself < 20.0
    assert when_asked > 80.0


def numbers_of(value: object) -> list[float]:
    """All numbers of a JSON value, in order."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return []
    if isinstance(value, int | float):
        return [float(value)]
    parts = value.values() if isinstance(value, dict) else value
    return [number for part in parts for number in numbers_of(part)]


@pytest.mark.slow
def test_one_and_two_threads_measure_the_same(tmp_path):
    """The whole flow with the network on the smaller sample, to six significant digits."""
    found = []
    for threads in ("1", "2"):
        out = tmp_path / threads
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        environment.pop("SLURM_CPUS_PER_TASK", None)
        subprocess.run(
            [
                *(sys.executable, "-m", "pipeline.cli", "sample_data", out, "participant"),
                *("--participant-label", "02"),
            ],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        found.append(json.loads((out / "sub-02/sub-02_measures.json").read_text())["measures"])
    one, two = map(numbers_of, found)
    assert len(one) == len(two) > 500
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_the_wheel_holds_everything_that_runs(tmp_path):
    """Weights, templates, configuration and workflow are data; a wheel without them fails late."""
    listed = subprocess.run(
        ["git", "ls-files", "pipeline"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = listed.stdout.split()
    # Built from a copy: what an earlier build left beside the sources would hide a gap.
    source = tmp_path / "source"
    for name in (*tracked, "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", tmp_path, source),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert set(tracked) <= packed
    assert not [name for name in packed if name.startswith(("training/", "tests/"))]


@pytest.mark.slow
def test_an_install_without_a_network(tmp_path):
    """`make wheelhouse`, then an install from it alone, and a subject measured with it."""
    house, venv = tmp_path / "wheelhouse", tmp_path / "venv"
    # Else the checkout would count as installed already.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [
            *("make", "wheelhouse", f"WHEELHOUSE={house}", f"VENV={sys.prefix}"),
            f"--old-file={sys.prefix}/.installed",
        ],
        cwd=ROOT,
        check=True,
    )
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run(
        [
            *(venv / "bin/python", "-m", "pip", "install", "--quiet", "--no-index"),
            *("--find-links", house, "myosymmetry"),
        ],
        env=environment,
        check=True,
    )
    subprocess.run(
        [
            *(venv / "bin/myosymmetry", ROOT / "sample_data", tmp_path / "out", "participant"),
            *("--participant-label", "02"),
        ],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert (tmp_path / "out/sub-02/sub-02_measures.json").is_file()
