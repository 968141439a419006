"""Subjects side by side: worker processes, their memory and threads, progress, exit codes."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline.core.errors import (
    NAMES_ON_TERMINAL,
    MyosymmetryError,
    UnmetNeedError,
    UsageError,
    out_of_memory,
)

#: What a shell reports of a program that SIGPIPE ended.
_CLOSED_PIPE_EXIT_CODE = 141
#: A subject with whole legs stays below this, so that --mem says how many fit side by side.
_GIB_PER_SUBJECT = 4.0


@dataclass(frozen=True)
class Task:
    """One subject and session, as handed to a worker process."""

    data: Path
    out: Path
    subject: str
    session: str | None
    config: Path | None
    overrides: dict[str, Any]
    labels: Path | None
    force: bool
    report_only: bool
    verbose: bool
    progress: bool


def guarded(work: Callable[[], int], who: str = "") -> int:
    """The exit code of a piece of work; what went wrong in it is said, never passed on."""
    prefix = f"myosymmetry: {who}: " if who else "myosymmetry: "
    try:
        return work()
    except MyosymmetryError as error:
        sys.stderr.write(f"{prefix}{error}{_named(error)}\n")
        return error.exit_code
    except MemoryError as error:
        sys.stderr.write(f"{prefix}{out_of_memory(error)}\n")
        return UnmetNeedError.exit_code
    except BrokenPipeError:
        # Whoever reads the output wants no more of it, as `head` does. What is still to be flushed
        # as the process ends has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE_EXIT_CODE
    except Exception:  # noqa: BLE001 - the last stop: a bug ends with its own exit code
        said = traceback.format_exc() if sys.stderr.isatty() else _traceback_without_names()
        sys.stderr.write(f"{prefix}a bug in myosymmetry, please report this:\n{said}")
        return MyosymmetryError.exit_code


def _named(error: MyosymmetryError) -> str:
    """Which files or words an error means, where a person reads it: what goes elsewhere is kept."""
    if not error.private:
        return ""
    if sys.stderr.isatty():
        return f" Which: {error.private}."
    return f" ({NAMES_ON_TERMINAL[:1].upper()}{NAMES_ON_TERMINAL[1:]}.)"


def _traceback_without_names() -> str:
    """Where a bug came up, without the words of the exception, which may quote names of files and
    values of headers."""
    kind, _, places = sys.exc_info()
    name = "an exception" if kind is None else kind.__name__
    return f"{''.join(traceback.format_tb(places))}{name} ({NAMES_ON_TERMINAL})\n"


def run_tasks(tasks: Sequence[Task], workers: int) -> list[int]:
    """Process subjects, so many at a time; no error of one stops the others.

    Returns:
        one exit code per task, in their order.

    Raises:
        UnmetNeedError: a worker was stopped from outside.
    """
    if workers == 1:
        return [_run_task(task) for task in tasks]
    with pool_of(workers) as pool:
        try:
            return list(pool.map(_run_task, tasks))
        except BrokenProcessPool as error:
            raise UnmetNeedError(
                "A worker process was stopped from outside",
                expected=f"about {_GIB_PER_SUBJECT:g} GiB of memory per subject",
                found="a process that ended without a word, as one killed for its memory does",
                action="run the same command again to go on, with a smaller --nprocs",
            ) from error


def pool_of(workers: int) -> ProcessPoolExecutor:
    """Worker processes that share the threads this process was given.

    They are new processes, not copies, so that each reads its share before a library makes its
    threads; this process's own settings stay as they are.
    """
    from pipeline.engines.session import allocated_threads

    share = max(1, allocated_threads() // workers)
    return ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_set_up_worker,
        initargs=(share, tempfile.tempdir),
    )


def _set_up_worker(threads: int, scratch: str | None) -> None:
    """Give a worker process its share of the threads and the scratch folder."""
    os.environ.update(SLURM_CPUS_PER_TASK=str(threads), OMP_NUM_THREADS=str(threads))
    tempfile.tempdir = scratch


def workers_for(nprocs: int, memory: str | None, tasks: int) -> int:
    """How many subjects run side by side.

    Args:
        nprocs: how many may, at least 1.
        memory: of the whole run, such as "8G"; None: enough.
        tasks: how many there are.

    Raises:
        UsageError: neither a number of processes nor an amount of memory.
    """
    if nprocs < 1:
        raise UsageError(
            "--nprocs is not a number of processes",
            expected="1 or more",
            found=str(nprocs),
            action="say how many subjects to process at a time",
        )
    workers = min(nprocs, tasks)
    if memory is not None:
        workers = min(workers, max(1, int(_gibibytes(memory) / _GIB_PER_SUBJECT)))
    return max(1, workers)


def _gibibytes(text: str) -> float:
    units = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), "G"
    if number and number[-1] in units:
        number, unit = number[:-1], number[-1]
    try:
        value = float(number) * units[unit]
    except ValueError:
        value = 0.0
    if value <= 0:
        raise UsageError(
            "--mem is not an amount of memory",
            expected="e.g. 8G or 6000M",
            found=repr(text),
            action="give the memory of the whole run as a number with K, M, G or T",
        )
    return value


def _run_task(task: Task) -> int:
    """Process one subject; a worker never lets an error of one subject stop the others."""
    _set_up_logging(task.verbose)
    try:
        return guarded(partial(_process_task, task), task.subject)
    finally:
        return_free_memory()


def _process_task(task: Task) -> int:
    from pipeline.config import load_config
    from pipeline.flow import process_subject, rebuild_report

    config = load_config(task.config, overrides=task.overrides)
    if task.report_only:
        path = rebuild_report(task.out, task.subject, session=task.session, config=config)
    else:
        with _Progress(task) as progress:
            path = process_subject(
                task.data,
                task.out,
                task.subject,
                session=task.session,
                labels=task.labels,
                config=config,
                force=task.force,
                progress=progress,
            ).report
    sys.stdout.write(f"{path}\n")
    return 0


def return_free_memory() -> None:
    """Hand what this process no longer uses back to the system, where the C library can (glibc).

    Nothing of a subject lives on after it, but glibc keeps the holes that arrays of up to 32 MiB
    leave behind (100 MiB and more), and the peak of the next subject would stand on top of them.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class _Progress:
    """A bar on a terminal, plain log lines elsewhere."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._bar: Any = None

    def __enter__(self) -> Callable[[str, int, int], None]:
        if self._task.progress:
            from tqdm import tqdm

            self._bar = tqdm(total=1, desc=self._task.subject, leave=False, bar_format=_BAR)
        return self._step

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _step(self, stage: str, number: int, count: int) -> None:
        if self._bar is not None:
            self._bar.total = count
            self._bar.n = number - 1
            self._bar.set_description(f"{self._task.subject}: {stage}")


_BAR = "{desc:<28} {bar:30} {n_fmt}/{total_fmt} {elapsed}"


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    for noisy in ("matplotlib", "PIL", "nibabel", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
