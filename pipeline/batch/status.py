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
from pipeline.core.results import Provenance
from pipeline.io.derivatives import SubjectFolder, read_json, refuse_output_in_input
from pipeline.io.discover import by_pattern, files_below, sidecar_of
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
    """How far each job is; reads a few small files per job and no image.

    Args:
        data: folder with one folder per subject.
        out: folder with the results.
        jobs: which to look at.
        config: the configuration that results should have been made with.

    Returns:
        one state per job, in their order. Stale: there are results, but the program, the
        configuration or an input (by its date) has changed since. Of inputs the NIfTI files in the
        subject's folder are looked at: series of DICOM files and rows of participants.tsv are not.

    Raises:
        UsageError: results would lie among the data; before a batch writes its logs there.
    """
    given = with_given_labels(config, OWN_SCHEME.name)
    today = {manual: provenance(c, {}) for manual, c in ((False, config), (True, given))}
    found = []
    for job in jobs:
        folder = SubjectFolder(out, job.subject, job.session)
        refuse_output_in_input(folder, data)
        state, reason = _state(data, folder, today[folder.manual_labels.is_file()], config)
        found.append(JobState(job, state, reason, folder.measures))
    return found


def _state(
    data: Path, folder: SubjectFolder, today: Provenance, config: Config
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
    newer = _newer_input(data, folder, made, config)
    if newer is not None:
        return State.STALE, f"{newer} is newer than the results"
    return State.COMPLETE, None


def failure_reason(failure: dict[str, object]) -> str:
    """One line from the record of a failure: the stage, the problem and what was found."""
    text = f"{failure.get('stage', '?')}: {str(failure.get('problem', '')).rstrip('.')}"
    found = str(failure.get("found", ""))
    return " ".join((f"{text} (found: {found})" if found else text).split())


def _newer_input(data: Path, folder: SubjectFolder, made: Provenance, config: Config) -> str | None:
    """What was written after the results of what they were made from, or None."""
    finished = folder.run_record.stat().st_mtime

    def newer(path: Path) -> bool:
        return path.is_file() and path.stat().st_mtime > finished

    if newer(folder.manual_labels):
        return folder.manual_labels.name
    # Series of DICOM files are not looked through: they may be thousands of files.
    kinds = {kind: name for name in made.inputs for kind in _nifti_kind(name)}
    if not kinds:
        return None
    files = files_below(data / folder.subject / (folder.session or ""))
    for kind, paths in by_pattern(files, config.load.patterns).items():
        if kind in kinds and any(newer(path) or newer(sidecar_of(path)) for path in paths):
            return kinds[kind]
    return None


def _nifti_kind(name: str) -> list[str]:
    """What a NIfTI file among the inputs was taken for; nothing for other inputs."""
    source, _, rest = name.partition(":")
    return [rest.partition(":")[0]] if source == "nifti" else []
