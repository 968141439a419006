"""Finding and reading the results of many subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic_core import from_json

from pipeline import report
from pipeline.batch.status import failure_reason
from pipeline.core.anatomy import Side
from pipeline.core.results import CONSENSUS, Measurement, Measures, Severity, Status, on_side
from pipeline.io.derivatives import SubjectFolder, read_json


def subject_folders(out: Path) -> list[SubjectFolder]:
    """Output folders of all subjects and sessions, in order."""
    found = []
    for folder in sorted(p for p in out.glob("sub-*") if p.is_dir()):
        sessions = sorted(p.name for p in folder.glob("ses-*") if p.is_dir())
        alone = SubjectFolder(out, folder.name, None)
        if not sessions or alone.measures.is_file():
            found.append(alone)
        found += [SubjectFolder(out, folder.name, session) for session in sessions]
    return found


def read_without_profiles(path: Path) -> Measures | None:
    """Published results less their cross-sections along the limb, which are most of the file.

    Returns:
        None where the file is missing or does not fit its schema.
    """
    try:
        values = from_json(path.read_bytes())
        for result in _results(values):
            for side in ("right", "left"):
                result[side]["profile"] = ()
        return Measures.model_validate(values)
    except (FileNotFoundError, ValueError, ValidationError, KeyError, TypeError):
        return None


def _results(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("muscles", "groups"):
        yield from values["measures"][kind]


@dataclass(frozen=True)
class Outcome:
    """What one subject and session add to a group.

    Attributes:
        folder: where its files are.
        failure: why there are no results, in words; None where there are.
        values: by structure and measure, unit in its name. Only values that may be averaged:
            whole muscles of status ok, differences with a verdict and no caveat; lean volumes and
            fat fractions that were measured, not estimated of a single contrast; none of a scan
            with an error or of labels that both legs agreed on.
        quality: figures by which results that stand apart are found; None where missing, or
            estimated of a single contrast.
        findings: severity and message by code.
        code_digest, configuration_digest: what made the results.
        rows: the rows of the table of measures, where they were asked for.
    """

    folder: SubjectFolder
    failure: str | None
    values: Mapping[tuple[str, str], float]
    quality: Mapping[str, float | None]
    findings: Mapping[str, tuple[str, str]]
    code_digest: str
    configuration_digest: str
    rows: Sequence[Mapping[str, str]]

    @classmethod
    def failed(cls, folder: SubjectFolder, reason: str) -> Self:
        """A folder without results, and why there are none."""
        return cls(
            folder=folder,
            failure=reason,
            values={},
            quality={},
            findings={},
            code_digest="",
            configuration_digest="",
            rows=(),
        )


def read_outcomes(
    folders: Sequence[SubjectFolder], *, rows: bool, workers: int = 1
) -> Iterator[Outcome]:
    """Outcomes in the order of the folders; a folder without results or failure has none."""
    read = partial(read_outcome, rows=rows)
    if workers == 1:
        yield from (outcome for outcome in map(read, folders) if outcome is not None)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        found = pool.map(read, folders, chunksize=32)
        yield from (outcome for outcome in found if outcome is not None)


def read_outcome(folder: SubjectFolder, *, rows: bool) -> Outcome | None:
    """Results of a subject's folder, or why there are none; None: there was no run yet."""
    failure = read_json(folder.failure_record)
    measures = None
    reason = failure_reason(failure) if isinstance(failure, dict) else None
    if reason is None:
        measures = read_without_profiles(folder.measures)
        if measures is None and folder.measures.is_file():
            reason = f"{folder.measures.name} does not fit its schema"
    if measures is None:
        return None if reason is None else Outcome.failed(folder, reason)
    return Outcome(
        folder=folder,
        failure=None,
        values=_values(measures),
        quality=_quality(measures),
        findings={f.code: (f.severity.value, f.message) for f in measures.findings},
        code_digest=measures.provenance.code_digest,
        configuration_digest=measures.provenance.configuration_digest,
        rows=report.measures_rows(measures) if rows else (),
    )


def _values(measures: Measures) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float | None] = {}
    if any(f.severity is Severity.ERROR or f.code == CONSENSUS for f in measures.findings):
        return {}
    for result in measures.measures.compared:
        for side in Side:
            measured = on_side(result, side)
            if measured.status is Status.OK:
                found[result.name, f"volume_{side}_ml"] = measured.volume_whole_ml
            if measured.status is Status.OK and measured.lean_estimate is None:
                found |= {
                    (result.name, f"lean_volume_{side}_ml"): measured.lean_volume_whole_ml,
                    (result.name, f"fat_fraction_core_{side}_percent"): (
                        measured.fat_fraction_core_percent
                    ),
                }
        for name, asymmetry in (
            ("asymmetry_lean_percent", result.asymmetry),
            ("asymmetry_total_volume_percent", result.asymmetry_total_volume),
        ):
            judged = asymmetry.verdict is not None and not asymmetry.caveats
            if judged and asymmetry.extent == "whole":
                found[result.name, name] = asymmetry.index_percent
    return {key: value for key, value in found.items() if value is not None}


def _measured_fat_percent(measured: Measurement) -> float | None:
    """The core fat fraction; None where it is an estimate: those of two scans are no scale."""
    return None if measured.lean_estimate is not None else measured.fat_fraction_core_percent


def _quality(measures: Measures) -> dict[str, float | None]:
    muscles = measures.measures.muscles
    limb = next(g for g in measures.measures.groups if g.kind == "limb")
    statuses = [on_side(m, side).status for m in muscles for side in Side]
    fat = [_measured_fat_percent(on_side(limb, side)) for side in Side]
    indices = [m.asymmetry_total_volume.index_percent for m in muscles]
    known = [abs(index) for index in indices if index is not None]
    return {
        "overlap_mean": measures.registration.overlap_mean,
        "limb_asymmetry_percent": limb.asymmetry_total_volume.index_percent,
        "largest_muscle_asymmetry_percent": max(known, default=None),
        "fat_fraction_difference_points": (
            None if fat[0] is None or fat[1] is None else fat[1] - fat[0]
        ),
        "muscles_not_ok": float(sum(status is not Status.OK for status in statuses)),
    }
