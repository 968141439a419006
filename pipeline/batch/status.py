"""How far each job of a batch is, told from its files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from pipeline.batch.jobs import Job
from pipeline.config import Config, with_given_labels
from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.errors import InputError
from pipeline.core.results import Provenance
from pipeline.io.derivatives import SubjectFolder, read_json, refuse_output_in_input
from pipeline.io.discover import (
    PARTICIPANTS,
    ParticipantRows,
    input_state,
    participant_digest,
    participant_in,
    participant_rows,
)
from pipeline.provenance import provenance


class State(StrEnum):
    """How far a job is."""

    COMPLETE = "complete"
    FAILED = "failed"
    MISSING = "missing"
    STALE = "stale"


@dataclass(frozen=True)
class JobState:
    """A job, how far it is, and why it is not complete (None where it is)."""

    job: Job
    state: State
    reason: str | None
    measures: Path


#: What a user reads where a field of the provenance is not what it would be today.
_CHANGED = {
    "software_version": "another version of the program made it",
    "code_digest": "the program has changed since",
    "python_version": "another version of Python made it",
    "libraries": "other versions of libraries made it",
    "configuration_digest": "the configuration has changed since",
}


def job_states(data: Path, out: Path, jobs: Sequence[Job], config: Config) -> list[JobState]:
    """How far each job is; reads a few small files per job, lists its inputs and reads no image.

    Args:
        data: folder with one folder per subject.
        out: folder with the results.
        jobs: which to look at.
        config: the configuration that results should have been made with.

    Returns:
        one state per job, in their order. Stale: there are results, but the program, the
        configuration or an input has changed since. Inputs are the files of the subject's folder
        (by names, sizes and times of change) and what participants.tsv says of the person.

    Raises:
        UsageError: results would lie among the data; before a batch writes its logs there.
        InputError: participants.tsv cannot be read.
    """
    given = with_given_labels(config, OWN_SCHEME.name)
    today = {manual: provenance(c, {}) for manual, c in ((False, config), (True, given))}
    people = participant_rows(data)
    found = []
    for job in jobs:
        folder = SubjectFolder(out, job.subject, job.session)
        refuse_output_in_input(folder, data)
        state, reason = _state(data, folder, today[folder.manual_labels.is_file()], people)
        found.append(JobState(job, state, reason, folder.measures))
    return found


def _state(
    data: Path, folder: SubjectFolder, today: Provenance, people: ParticipantRows
) -> tuple[State, str | None]:
    failure = read_json(folder.failure_record)
    if isinstance(failure, dict):
        return State.FAILED, failure_reason(failure)
    if not folder.measures.is_file():
        begun = folder.run_log.is_file()
        return State.MISSING, "begun and stopped before its end" if begun else "not begun"
    try:
        made = Provenance.model_validate(read_json(folder.run_record))
    except ValidationError:
        return State.STALE, f"{folder.run_record.name} is missing or cut off"
    for field, words in _CHANGED.items():
        if getattr(made, field) != getattr(today, field):
            return State.STALE, words
    changed = _changed_input(data, folder, made, people)
    return (State.COMPLETE, None) if changed is None else (State.STALE, changed)


def failure_reason(failure: dict[str, object]) -> str:
    """One line from the record of a failure: the stage, the problem and what was found."""
    text = f"{failure.get('stage', '?')}: {str(failure.get('problem', '')).rstrip('.')}"
    found = str(failure.get("found", ""))
    return " ".join((f"{text} (found: {found})" if found else text).split())


def _changed_input(
    data: Path, folder: SubjectFolder, made: Provenance, people: ParticipantRows
) -> str | None:
    """What of the inputs is not as the last run found it, or None."""
    before = read_json(folder.input_record)
    if not isinstance(before, dict):
        return f"{folder.input_record.name} is missing or cut off"
    now = input_state(data / folder.subject / (folder.session or ""), folder.manual_labels)
    if now["files"] != before.get("files"):
        return f"there are {now['files']} input files in place of {before.get('files')}"
    if now != before:
        return "input files have changed since"
    try:
        facts = participant_digest(participant_in(people, folder.subject))
    except InputError as error:
        return error.problem
    if facts != made.inputs.get(PARTICIPANTS):
        return f"what {PARTICIPANTS} says has changed since"
    return None
