"""The jobs of a batch: one per subject and session, from a table or from the data folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.io.derivatives import stem_of
from pipeline.io.discover import (
    list_subjects,
    present,
    read_table,
    subject_labels,
    with_sessions,
)


@dataclass(frozen=True)
class Job:
    """One subject and session.

    Attributes:
        subject: "sub-01".
        session: "ses-1" or None.
        memory_mb: memory of the first attempt, MB, where the table states it.
    """

    subject: str
    session: str | None
    memory_mb: int | None = None

    @property
    def name(self) -> str:
        """What the file names of its results start with."""
        return stem_of(self.subject, self.session)


def list_jobs(data: Path, table: Path | None = None) -> list[Job]:
    """All jobs of a batch, in the order of the table or of the names.

    Args:
        data: folder with one folder per subject.
        table: tab-separated, with the columns participant_id and, as wanted, session_id (else
            every session found) and memory_mb; None: every subject of the data folder.

    Raises:
        InputError: a table without subjects, with one twice or with a value that cannot be right.
        UsageError: a label that is no plain name.
    """
    if table is None:
        return [Job(*pair) for pair in with_sessions(data, list_subjects(data))]
    rows = read_table(table)
    if not rows or "participant_id" not in rows[0]:
        raise InputError(
            f"{table.name} names no subjects",
            expected="a column participant_id with one row per subject, columns parted by tabs",
            found=f"{len(rows)} rows with the columns {', '.join(rows[0]) if rows else '(none)'}",
            action="correct the table of subjects",
        )
    jobs: list[Job] = []
    for row in rows:
        session = present(row, "session_id")
        subject, session = subject_labels(row["participant_id"].strip(), session)
        memory = _memory_mb(table, row, subject)
        pairs = [(subject, session)] if session else with_sessions(data, [subject])
        jobs += [Job(*pair, memory) for pair in pairs]
    _refuse_twins(table, jobs)
    return jobs


def _memory_mb(table: Path, row: dict[str, str], subject: str) -> int | None:
    text = present(row, "memory_mb")
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise InputError(
            f"{table.name}: memory_mb of {subject} is not an amount of memory",
            expected="whole megabytes, such as 4000, or n/a",
            found=repr(text),
            action="correct the table of subjects",
        )
    return int(text)


def _refuse_twins(table: Path, jobs: Sequence[Job]) -> None:
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen:
            raise InputError(
                f"{table.name} names {job.name} twice",
                expected="one row per subject and session",
                found="two rows or more",
                action="keep one of them",
            )
        seen.add(job.name)
