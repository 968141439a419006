"""Finding subjects, sessions and their files."""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.core.anatomy import Side
from pipeline.core.errors import InputError, UsageError
from pipeline.core.scan import Participant

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_.-]*")
_MISSING = {"", "n/a", "na", "nan", "none"}


def subject_labels(subject: str, session: str | None) -> tuple[str, str | None]:
    """Labels with their prefixes: "01" -> "sub-01".

    Raises:
        UsageError: a label that is no plain name (a path, an empty one).
    """
    return _label(subject, "sub-"), None if session is None else _label(session, "ses-")


def _label(text: str, prefix: str) -> str:
    bare = text.removeprefix(prefix)
    if not _LABEL.fullmatch(bare) or ".." in bare:
        raise UsageError(
            f"{text!r} is not a {'subject' if prefix == 'sub-' else 'session'} label",
            expected=f"letters, digits, '-', '_', '+', '.', with or without {prefix}",
            found=repr(text),
            action="give the name of the folder, not a path",
        )
    return prefix + bare


def list_subjects(data: Path) -> list[str]:
    """Subjects (with their prefix) of a data folder, in order.

    Raises:
        InputError: no such folder, or no subject in it.
    """
    return _list(data, "sub-", "subject")


def list_sessions(data: Path, subject: str) -> list[str]:
    """Sessions (with their prefix) of a subject, in order; empty where it has none."""
    folder = data / subject_labels(subject, None)[0]
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name.startswith("ses-"))


def _list(data: Path, prefix: str, what: str) -> list[str]:
    if not data.is_dir():
        raise InputError(
            f"The data folder {data} is not there",
            expected=f"a folder with one {prefix}... folder per {what}",
            found="nothing" if not data.exists() else "a file",
            action="check the path",
        )
    names = sorted(p.name for p in data.iterdir() if p.is_dir() and p.name.startswith(prefix))
    if not names:
        raise InputError(
            f"There is no {what} in {data}",
            expected=f"folders named {prefix}...",
            found=some(sorted(p.name for p in data.iterdir())) or "an empty folder",
        )
    return names


def subject_folder(data: Path, subject: str, session: str | None) -> Path:
    """The input folder of a subject and session (labels with their prefix).

    Raises:
        InputError: it is not there; near names are listed.
        UsageError: the subject has several sessions and none was named.
    """
    names = _list(data, "sub-", "subject")
    if subject not in names:
        near = difflib.get_close_matches(subject, names, n=3) or names
        raise InputError(
            f"There is no subject {subject} in {data}",
            expected="a folder of that name",
            found=f"{len(names)} subjects, such as {some(near)}",
            action="check the label",
        )
    folder = data / subject
    sessions = list_sessions(data, subject)
    if session is None:
        if len(sessions) > 1:
            raise UsageError(
                f"{subject} has several sessions",
                expected="--session-label with one of them",
                found=some(sessions),
            )
        return folder
    if session not in sessions:
        raise InputError(
            f"{subject} has no session {session}",
            expected="a folder of that name",
            found=some(sessions) or "no sessions",
            action="check the label",
        )
    return folder / session


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, in order; links to folders are not followed, so no loops.

    Links that lead nowhere are among them, so that they are told; pipes and devices, which may
    never end, are not.
    """
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        paths = [Path(parent) / name for name in sorted(names) if not name.startswith(".")]
        found += [path for path in paths if path.is_file() or not path.exists()]
    return found


def by_pattern(
    files: Sequence[Path], patterns: Mapping[str, Sequence[str]]
) -> dict[str, list[Path]]:
    """NIfTI files by what the end of their name says they show."""
    out: dict[str, list[Path]] = {}
    for path in files:
        stem = nifti_stem(path)
        if stem is None:
            continue
        for kind, endings in patterns.items():
            if any(stem.lower().endswith(ending.lower()) for ending in endings):
                out.setdefault(kind, []).append(path)
                break
    return out


def nifti_stem(path: Path) -> str | None:
    """File name without .nii or .nii.gz; None for other files."""
    name = path.name.lower()
    for suffix in (".nii.gz", ".nii"):
        if name.endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def read_participant(data: Path, subject: str) -> Participant:
    """The row of a subject in participants.tsv; every column and the file are optional.

    Raises:
        InputError: a value that cannot be right.
    """
    path = data / "participants.tsv"
    if not path.is_file():
        return Participant()
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            "participants.tsv cannot be read",
            expected="a table with tabs between its columns, in UTF-8",
            found=str(error),
            action="save it again as tab-separated UTF-8 text",
        ) from error
    names = (subject, subject.removeprefix("sub-"))
    mine = [r for r in rows if (r.get("participant_id") or "").strip() in names]
    if not mine:
        return Participant()
    if len(mine) > 1:
        raise InputError(
            f"participants.tsv has {len(mine)} rows for {subject}",
            expected="one row per subject",
            found=f"{len(mine)} rows",
            action="keep one of them",
        )
    row = mine[0]
    return Participant(
        height_m=_number(row, "height_m", 0.5, 2.6, subject),
        mass_kg=_number(row, "mass_kg", 5.0, 400.0, subject),
        sex=_sex(row, subject),
        dominant_side=_side(row, "dominant_side", subject),
        injured_side=_side(row, "injured_side", subject),
    )


def _text(row: Mapping[str, str | None], column: str) -> str | None:
    value = (row.get(column) or "").strip()
    return None if value.lower() in _MISSING else value


def _number(
    row: Mapping[str, str | None], column: str, low: float, high: float, subject: str
) -> float | None:
    text = _text(row, column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InputError(
            f"participants.tsv: {column} of {subject} cannot be right",
            expected=f"a number from {low:g} to {high:g}, or n/a",
            found=repr(text),
            action=f"correct it (the unit is in the column's name: {column})",
        )
    return value


def _sex(row: Mapping[str, str | None], subject: str) -> str | None:
    text = _text(row, "sex")
    if text is None:
        return None
    sexes = {"f": "female", "female": "female", "m": "male", "male": "male"}
    sexes |= {"o": "other", "other": "other"}
    if text.lower() not in sexes:
        raise InputError(
            f"participants.tsv: sex of {subject} is not one that is known",
            expected="female, male, other (or f, m, o), or n/a",
            found=repr(text),
            action="correct it",
        )
    return sexes[text.lower()]


def _side(row: Mapping[str, str | None], column: str, subject: str) -> Side | None:
    text = _text(row, column)
    if text is None or text.lower() in ("both", "ambidextrous"):
        return None
    sides = {"l": Side.LEFT, "left": Side.LEFT, "r": Side.RIGHT, "right": Side.RIGHT}
    if text.lower() not in sides:
        raise InputError(
            f"participants.tsv: {column} of {subject} is not a side",
            expected="left, right, both or n/a",
            found=repr(text),
        )
    return sides[text.lower()]


def some(names: Sequence[str], count: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
