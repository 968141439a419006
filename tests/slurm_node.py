"""A real SLURM of one node, started by a test in a folder of its own (Debian: slurm-wlm, munge)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo")

_CONFIGURATION = """\
ClusterName=myosymmetry
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Which of the programs are not installed."""
    return [name for name in PROGRAMS if _where(name) is None]


def _where(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def slurm_node(folder: Path, *, cpus: int, memory_mb: int) -> Iterator[dict[str, str]]:
    """Run the daemons in the foreground of this process group; yields the environment to use."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname(),
            controller_port=_free_port(),
            node_port=_free_port(),
            cpus=cpus,
            memory_mb=memory_mb,
        )
    )
    # Snakemake hides SLURM's variables from the steps of its jobs. Where SLURM is installed for
    # good it finds its configuration all the same; here the command brings it.
    step = folder / "bin" / "srun"
    step.parent.mkdir()
    step.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {_where("srun")} "$@"\n')
    step.chmod(0o755)
    path = f"{step.parent}:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "SLURM_CONF": str(configuration), "PATH": path}
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/m.pid"]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed", "--force"]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (
            ["munged", "--foreground", *munge],
            ["slurmctld", "-D", "-f", str(configuration)],
            ["slurmd", "-D", "-f", str(configuration)],
        ):
            daemons.append(_start(command, environment, folder))
            time.sleep(1.0)
        _wait_for_node(environment, folder)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _start(
    command: list[str], environment: dict[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    path = _where(command[0])
    assert path is not None
    with (folder / f"{command[0]}.out").open("wb") as out:
        return subprocess.Popen([path, *command[1:]], env=environment, stdout=out, stderr=out)


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    last = ""
    for _ in range(60):
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        last = found.stdout + found.stderr
        if found.stdout.strip() == "idle":
            return
        time.sleep(1.0)
    logs = "\n".join(p.read_text(errors="replace")[-1500:] for p in folder.glob("*.log"))
    raise RuntimeError(f"the node did not come up: {last}\n{logs}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
