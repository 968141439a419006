"""Batches of small phantoms through Snakemake and a SLURM of one node: `make test-batch`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bodies import small_scan, write_subject
from slurm_node import missing_programs, slurm_node

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(sys.prefix)
BATCH_VENV = Path(os.environ.get("MYOSYMMETRY_BATCH_VENV", ROOT / ".venv-batch"))
#: Fewer than the 40 make a quicker trial.
COUNT = int(os.environ.get("MYOSYMMETRY_BATCH_SUBJECTS", "40"))
#: The SLURM of the test keeps no accounts to ask.
STATUS_BY_QUEUE = ("SNAKEMAKE_OPTIONS=--slurm-status-command squeue --slurm-no-account",)
CORRUPT, KILLED, HUNGRY = "sub-03", "sub-04", "sub-05"
#: A coarse registration and few pictures: the batch is looked at here, not what is measured.
_CONFIG = """\
register: {working_voxel_mm: 8, flow_node_mm: 14, flow_smoothing_mm: 16}
report: {picture_dpi: 50, picture_levels: 1}
"""

needs_snakemake = pytest.mark.skipif(
    not (BATCH_VENV / "bin" / "snakemake").is_file(),
    reason="Snakemake is not installed (make batch-setup)",
)
needs_slurm = pytest.mark.skipif(
    bool(missing_programs()),
    reason=f"no SLURM here, missing: {', '.join(missing_programs())} (Debian: slurm-wlm, munge)",
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the SLURM of the test runs as root")

#: Stands for the program: notes each call, and once kills the run of one subject half way.
_PROGRAM = """\
#!{python}
import os, signal, subprocess, sys
with open({calls!r}, "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
command = [sys.executable, "-m", "pipeline.cli", *sys.argv[1:]]
if {killed!r} not in sys.argv or os.path.exists({marker!r}):
    os.execv(command[0], command)
open({marker!r}, "w").close()
process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
for line in process.stderr:
    if "register (" in line:
        os.kill(process.pid, signal.SIGKILL)
        break
sys.exit(process.wait() or 1)
"""


@dataclass(frozen=True)
class Batch:
    """A batch of phantoms: its folders, its table and what was called."""

    data: Path
    out: Path
    table: Path
    config: Path
    program: Path
    calls: Path

    def make(self, target: str, environment: dict[str, str] | None = None, *more: str):
        """Run a make target on the batch."""
        stamps = [f"{folder}/.installed" for folder in (VENV, BATCH_VENV)]
        variables = {
            "DATA": self.data,
            "OUT": self.out,
            "SUBJECTS": self.table,
            "PROGRAM": self.program,
            "ENGINE": "given",
            "CONFIG": self.config,
            "MEMORY_MB": 1000,
            "VENV": VENV,
            "BATCH_VENV": BATCH_VENV,
        }
        return subprocess.run(
            [
                *("make", "--no-print-directory", target),
                *(f"--old-file={stamp}" for stamp in stamps),
                *(f"{name}={value}" for name, value in variables.items()),
                *more,
            ],
            cwd=ROOT,
            env={**(environment or os.environ), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def states(self) -> Counter[str]:
        """How many subjects are complete, failed, missing, stale."""
        self.out.mkdir(exist_ok=True)
        plan = subprocess.run(
            [
                *(sys.executable, "-m", "pipeline.cli", "plan", self.data, self.out),
                *("--table", self.table, "--config", self.config, "--engine", "given"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return Counter(line.split("\t")[3] for line in plan.stdout.splitlines()[1:])

    def called(self) -> Counter[str]:
        """How often the program was called for each subject, and for the group."""
        words = [line.split() for line in self.calls.read_text().splitlines()]
        labels = [w[w.index("--participant-label") + 1] for w in words if "participant" in w]
        return Counter([*labels, *("group" for w in words if "group" in w)])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("phantoms")
    write_subject(data / "sub-01", small_scan())
    for number in range(2, COUNT + 1):
        name = f"sub-{number:02d}"
        (data / name).mkdir()
        for path in (data / "sub-01").iterdir():
            os.link(path, data / name / path.name.replace("sub-01", name))
    water = data / CORRUPT / f"{CORRUPT}_water.nii.gz"
    content = water.read_bytes()
    water.unlink()
    water.write_bytes(content[: len(content) // 2])
    return data


def make_batch(phantoms: Path, folder: Path) -> Batch:
    names = ("out", "list.tsv", "coarse.yaml", "program", "calls")
    batch = Batch(phantoms, *(folder / name for name in names))
    batch.config.write_text(_CONFIG)
    names = [f"sub-{number:02d}" for number in range(1, COUNT + 1)]
    rows = [f"{name}\t{350 if name == HUNGRY else 'n/a'}\n" for name in names]
    batch.table.write_text("participant_id\tmemory_mb\n" + "".join(rows))
    batch.program.write_text(
        _PROGRAM.format(
            python=sys.executable,
            calls=str(batch.calls),
            killed=KILLED,
            marker=str(folder / "killed"),
        )
    )
    batch.program.chmod(0o755)
    return batch


def check_first_run(batch: Batch) -> None:
    """All but the corrupt one are there; the killed and the hungry one took a second attempt."""
    assert batch.states() == {"complete": COUNT - 1, "failed": 1}
    called = batch.called()
    assert (called[KILLED], called[HUNGRY], called["group"]) == (2, 2, 1)
    others = [f"sub-{n:02d}" for n in range(1, COUNT + 1)]
    others = [name for name in others if name not in (CORRUPT, KILLED, HUNGRY)]
    assert {called[name] for name in others} == {1}
    status = batch.make("status").stdout
    assert f"{CORRUPT}\tfailed\tcanonicalise: {CORRUPT}_water.nii.gz is truncated" in status
    assert (batch.out / "sub-01/log/sub-01_batch.log").is_file()


def check_second_run(batch: Batch, run: Callable[[], object]) -> None:
    """Only what is missing is done: the corrupt one is tried again, nobody else."""
    before = batch.called()
    run()
    after = batch.called() - before
    assert set(after) <= {CORRUPT, "group"}
    assert after[CORRUPT] >= 1
    assert batch.states() == {"complete": COUNT - 1, "failed": 1}


@pytest.fixture(scope="module")
def by_snakemake(phantoms, tmp_path_factory) -> Batch:
    batch = make_batch(phantoms, tmp_path_factory.mktemp("snakemake"))
    result = batch.make("batch")
    assert result.returncode != 0, "one subject is corrupt"
    return batch


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_node(tmp_path_factory.mktemp("slurm"), cpus=2, memory_mb=8000) as environment:
        yield environment


def run_through_slurm(batch: Batch, environment: dict[str, str]) -> None:
    result = batch.make("batch-slurm", environment, "CPUS=1")
    assert result.returncode == 0, result.stderr
    last = result.stdout.split()[-1]
    for _ in range(1800):
        queue = subprocess.run(
            ["squeue", "--noheader", "--format=%i"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        if not queue.stdout.strip():
            return
        time.sleep(1.0)
    raise AssertionError(f"SLURM has not ended job {last}")


@needs_snakemake
@pytest.mark.slow
def test_a_batch_through_snakemake(by_snakemake):
    check_first_run(by_snakemake)
    check_second_run(by_snakemake, lambda: by_snakemake.make("batch"))


@needs_slurm
@needs_root
@needs_snakemake
@pytest.mark.slow
def test_the_same_through_a_slurm_array(phantoms, cluster, by_snakemake, tmp_path):
    batch = make_batch(phantoms, tmp_path)
    run_through_slurm(batch, cluster)
    check_first_run(batch)
    for name in ("participants_long.tsv", "participants_wide.tsv", "summary.tsv", "quality.tsv"):
        one, two = (b.out / "group" / name for b in (batch, by_snakemake))
        assert one.read_bytes() == two.read_bytes(), name
    check_second_run(batch, lambda: run_through_slurm(batch, cluster))


@needs_slurm
@needs_root
@needs_snakemake
@pytest.mark.slow
def test_snakemake_hands_subjects_to_slurm(phantoms, cluster, tmp_path):
    batch = make_batch(phantoms, tmp_path)
    batch.table.write_text("participant_id\nsub-01\nsub-02\n")
    result = batch.make("batch", cluster, "PROFILE=slurm", *STATUS_BY_QUEUE)
    assert result.returncode == 0, result.stderr
    assert batch.called() == {"sub-01": 1, "sub-02": 1, "group": 1}
    assert (batch.out / "group" / "summary.tsv").is_file()


def snakemake(folder: Path, plan: Path, *more: str, target: str = "subjects", **settings: object):
    """The workflow on a plan, without a data folder."""
    settings |= {"plan": plan, "data": folder / "none", "out": folder / "out"}
    return subprocess.run(
        [
            *(BATCH_VENV / "bin/snakemake", "--snakefile", ROOT / "pipeline/batch/Snakefile"),
            *("--profile", ROOT / "configs/cluster/local", "--directory", folder, *more),
            *("--config", *(f"{key}={value}" for key, value in settings.items())),
            *("--", target),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def write_plan(folder: Path, count: int, memory_mb: object) -> Path:
    plan = folder / "plan.tsv"
    names = [f"sub-{n:04d}" for n in range(count)]
    rows = [f"{n}\tn/a\t{memory_mb}\tmissing\t{n}/{n}_measures.json\n" for n in names]
    header = "participant_id\tsession_id\tmemory_mb\tstate\tmeasures\n"
    plan.write_text(header + "".join(rows))
    return plan


@needs_snakemake
def test_a_second_attempt_has_twice_the_memory(tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/bash\nulimit -d >> {tmp_path}/limits_kb\nexit 1\n")
    program.chmod(0o755)
    result = snakemake(tmp_path, write_plan(tmp_path, 1, 350), program=program, memory_mb=1000)
    assert result.returncode != 0
    assert (tmp_path / "limits_kb").read_text().split() == [str(350 * 1024), str(700 * 1024)]


@needs_snakemake
def test_jobs_inside_an_allocation_do_not_take_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "16")
    program = tmp_path / "program"
    ask = "from pipeline.engines import session; print(session.allocated_threads())"
    program.write_text(
        f'#!/bin/bash\n"{sys.executable}" -c "{ask}" >> {tmp_path}/threads\n'
        "mkdir -p $2/$5 && touch $2/$5/$5_measures.json\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = snakemake(tmp_path, write_plan(tmp_path, 1, 4000), program=program, memory_mb=4000)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "threads").read_text().split() == ["1"]


def noting(folder: Path, name: str, rest: str = "") -> Path:
    """A program that writes down what it was called with, and then does the rest."""
    program = folder / name
    program.write_text(f'#!/bin/bash\necho "$*" >> {folder}/{name}_calls\n{rest}')
    program.chmod(0o755)
    return program


@needs_snakemake
def test_the_group_has_the_configuration_of_the_batch(tmp_path):
    """Without it a larger smallest cell would silently be the default one."""
    plan = write_plan(tmp_path, 1, "n/a")
    program = noting(tmp_path, "program", "touch $2/group/group.json\n")
    run = {"program": program, "memory_mb": 1000, "options": "--config my.yaml"}
    assert snakemake(tmp_path, plan, target="group", **run).returncode == 0
    calls = (tmp_path / "program_calls").read_text().splitlines()
    assert calls == [f"{tmp_path}/none {tmp_path}/out group --config my.yaml"]


def test_subjects_and_group_of_a_slurm_array_have_the_configuration_of_the_plan(tmp_path):
    write_plan(tmp_path, 1, "n/a")
    program = noting(tmp_path, "program", f'[ "$1" = plan ] && cat {tmp_path}/plan.tsv\nexit 0\n')
    # Stands for SLURM: runs what it is handed at once.
    sbatch = noting(tmp_path, "sbatch", 'SLURM_ARRAY_TASK_ID=1 bash "${@: -1}" && echo 7\n')
    (tmp_path / "data").mkdir()
    folders = [str(tmp_path / "data"), str(tmp_path / "out")]
    subprocess.run(
        [
            *("bash", ROOT / "pipeline/batch/submit_slurm.sh", *folders),
            *("--table", "list.tsv", "--config", "my.yaml", "--engine", "given"),
        ],
        env={
            **os.environ,
            "PATH": f"{sbatch.parent}:{os.environ['PATH']}",
            "PROGRAM": str(program),
        },
        check=True,
    )
    plan, *runs = (tmp_path / "program_calls").read_text().splitlines()
    data, out = folders
    options = "--config my.yaml --engine given"
    assert plan == f"plan {data} {out} --table list.tsv {options}"
    subject = f"{data} {out} participant --participant-label sub-0000 {options}"
    assert runs == [subject, subject, f"{data} {out} group {options}"]


def test_arguments_with_blanks_reach_every_task_of_a_slurm_array_whole(tmp_path):
    folder = tmp_path / "with blanks"
    (folder / "data").mkdir(parents=True)
    plan = write_plan(tmp_path, 1, "n/a")
    words = folder / "words"
    program = noting(
        tmp_path,
        "program",
        f"printf '%s\\n' \"${{@:3}}\" >> '{words}'\n[ \"$1\" = plan ] && cat {plan}\nexit 0\n",
    )
    sbatch = noting(tmp_path, "sbatch", 'SLURM_ARRAY_TASK_ID=1 bash "${@: -1}" && echo 7\n')
    config = "my con'fig $HOME *.yaml"
    subprocess.run(
        [
            *("bash", ROOT / "pipeline/batch/submit_slurm.sh", folder / "data", folder / "out"),
            *("--config", config),
        ],
        env={
            **os.environ,
            "PATH": f"{sbatch.parent}:{os.environ['PATH']}",
            "PROGRAM": str(program),
            "OPTIONS": '--engine "a b"',
        },
        check=True,
    )
    options = ["--engine", "a b", "--config", config]
    subject = ["participant", "--participant-label", "sub-0000", *options]
    # Of the plan, which comes first, the third word is the output folder.
    plan_words = [str(folder / "out"), "--config", config]
    expected = [*plan_words, *subject, *subject, "group", *options]
    assert words.read_text().splitlines() == expected


@pytest.mark.parametrize("target", ["batch", "batch-slurm", "status"])
def test_make_hands_on_the_path_of_a_configuration_with_blanks(target):
    """Absolute, since Snakemake works in another folder, and as one word."""
    stamps = [f"--old-file={folder}/.installed" for folder in (VENV, BATCH_VENV)]
    variables = [f"VENV={VENV}", f"BATCH_VENV={BATCH_VENV}", f"PROGRAM={sys.executable}"]
    for given, used in (("my config.yaml", ROOT / "my config.yaml"), ("/a b/c.yaml",) * 2):
        result = subprocess.run(
            ["make", "--dry-run", target, *stamps, *variables, f"CONFIG={given}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f'--config "{used}"' in result.stdout


@needs_snakemake
def test_a_plan_of_thousands_reads_no_subject(tmp_path):
    """A dry run looks at the table alone: there is no data folder at all."""
    plan = write_plan(tmp_path, 300, "n/a")
    result = snakemake(tmp_path, plan, "--dry-run", program="false", memory_mb=1000)
    assert result.returncode == 0, result.stderr
    found = [line.split() for line in (result.stdout + result.stderr).splitlines()]
    assert ["subject", "300"] in found
    assert not (tmp_path / "out").exists()
