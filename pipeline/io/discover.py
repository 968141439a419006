"""Finding subjects, sessions and their files."""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.core.anatomy import Side
from pipeline.core.errors import InputError, UsageError
from pipeline.core.scan import Participant
from pipeline.io.digest import text_digest

#: The table of people beside the subjects' folders (BIDS).
PARTICIPANTS = "participants.tsv"
#: Its rows by subject (with prefix).
ParticipantRows = Mapping[str, Sequence[Mapping[str, str]]]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_.-]*")
#: So many names are listed in a message.
_FEW = 5
_MISSING = {"", "n/a", "na", "nan", "none"}


def subject_labels(subject: str, session: str | None) -> tuple[str, str | None]:
    """Labels with their prefixes: "01" -> "sub-01".

    Raises:
        UsageError: a label that is no plain name (a path, an empty one).
    """
    return _label(subject, "sub-"), None if session is None else _label(session, "ses-")


def subject_and_session(folder: Path, subject: str, session: str | None) -> tuple[str, str | None]:
    """Labels with their prefixes; the only session of a subject need not be named.

    Args:
        folder: with one folder per subject: data, or results.
        subject, session: labels, with or without their prefix.

    Raises:
        UsageError: a label that is no plain name.
    """
    subject, session = subject_labels(subject, session)
    sessions = list_sessions(folder, subject) if session is None else []
    return subject, sessions[0] if len(sessions) == 1 else session


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
    return [p.name for p in _entries(folder) if p.is_dir() and p.name.startswith("ses-")]


def beside_sessions(data: Path, subject: str) -> int:
    """How many folders and NIfTI files of a subject (with its prefix) belong to no session."""
    return sum(
        not path.name.startswith(("ses-", ".")) and (path.is_dir() or nifti_stem(path) is not None)
        for path in _entries(data / subject)
    )


def with_sessions(data: Path, subjects: Sequence[str]) -> list[tuple[str, str | None]]:
    """Each subject with each of its sessions, or with None where it has none."""
    pairs: list[tuple[str, str | None]] = []
    for subject in subjects:
        sessions = list_sessions(data, subject)
        pairs += [(subject, session) for session in sessions] or [(subject, None)]
    return pairs


def _list(data: Path, prefix: str, what: str) -> list[str]:
    if not data.is_dir():
        raise InputError(
            f"The data folder {data} is not there",
            expected=f"a folder with one {prefix}... folder per {what}",
            found="nothing" if not data.exists() else "a file",
            action="check the path",
        )
    entries = _entries(data)
    names = [p.name for p in entries if p.is_dir() and p.name.startswith(prefix)]
    if not names:
        raise InputError(
            f"There is no {what} in {data}",
            expected=f"folders named {prefix}...",
            # Other names may be those of patients.
            found=f"{len(entries)} entries, none of them named so",
            action=f"give the folder that holds the {prefix}... folders",
        )
    return names


def subject_folder(data: Path, subject: str, session: str | None) -> Path:
    """The input folder of a subject and session (labels with their prefix).

    Raises:
        InputError: it is not there; near names are listed.
        UsageError: the subject has several sessions and none was named.
    """
    folder = data / subject
    # Thousands of jobs that each list the whole folder would burden a shared file system.
    if not folder.is_dir():
        names = _list(data, "sub-", "subject")
        near = difflib.get_close_matches(subject, names, n=3) or names
        raise InputError(
            f"There is no subject {subject} in {data}",
            expected="a folder of that name",
            found=f"{len(names)} subjects, such as {some(near)}",
            action="check the label",
        )
    sessions = list_sessions(data, subject)
    if session is None:
        if len(sessions) > 1:
            raise UsageError(
                f"{subject} has several sessions",
                expected="one of them",
                found=some(sessions),
                action="name it with --session-label",
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

    Links that lead nowhere and links to folders are among them, so that they are told; pipes and
    devices, which may never end, are not.

    Raises:
        InputError: a folder that this user may not read.
    """
    found: list[Path] = []
    try:
        for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=False):
            folders.sort()
            links = [name for name in folders if (Path(parent) / name).is_symlink()]
            paths = [Path(parent) / name for name in sorted([*names, *links]) if name[0] != "."]
            found += [
                path for path in paths if not path.exists() or path.is_file() or path.is_dir()
            ]
    except PermissionError as error:
        raise _not_readable(str(error.filename)) from error
    return found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order.

    Raises:
        InputError: this user may not read it.
    """
    try:
        return sorted(folder.iterdir())
    except PermissionError as error:
        raise _not_readable(str(folder)) from error


def _raise(error: OSError) -> None:
    raise error


def _not_readable(folder: str) -> InputError:
    return InputError(
        "A folder with data cannot be read",
        expected="permission to read it and all that it holds",
        found="no permission",
        action="ask for it, or change it (chmod -R u+rX)",
        private=folder,
    )


def input_state(folder: Path, manual: Path) -> dict[str, Any]:
    """Which files an input folder holds, without their contents, as JSON-like values.

    Args:
        folder: of a subject and session.
        manual: a corrected label map, which may be missing.

    Returns:
        how many files there are, and a digest of their names, sizes and times of change. The
        names themselves, which may be those of patients, are not in it. Times count in seconds:
        archives keep no finer ones.
    """
    found = []
    for path in [*files_below(folder), manual]:
        # A link that leads nowhere, or in a circle, has neither size nor time.
        with suppress(OSError):
            stat = path.stat()
            name = path.name if path == manual else path.relative_to(folder).as_posix()
            found.append(f"{name}\t{stat.st_size}\t{int(stat.st_mtime)}")
    return {"files": len(found), "digest": text_digest("\n".join(found))}


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


#: Words in names of files that say nothing of a person.
_PLAIN_WORDS = frozenset(
    ["sub", "ses", "run", "echo", "part", "station", "chunk", "anat", "nii", "gz"]
)


def tells_no_more(file: str, folder: Path, patterns: Mapping[str, Sequence[str]]) -> bool:
    """Whether the name of a file may be kept: it holds the labels of its folder, which results bear
    anyway, numbers of two digits, and words of BIDS and of what an image shows.

    Args:
        file: path in the folder.
        folder: of a subject, or of a session.
        patterns: endings by what they show (load.patterns).
    """
    labels = [folder.name]
    if folder.name.startswith("ses-"):
        labels.append(folder.parent.name)
    shown = [ending for endings in patterns.values() for ending in endings]
    return _words(file) <= _PLAIN_WORDS.union(*map(_words, [*labels, *shown]))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+|\d{3,}", text.lower()))


def nifti_stem(path: Path) -> str | None:
    """File name without .nii or .nii.gz; None for other files."""
    name = path.name.lower()
    for suffix in (".nii.gz", ".nii"):
        if name.endswith(suffix):
            return path.name[: -len(suffix)]
    return None


#: Images of formats that are not read, and packed files, by their endings (lower case).
_OTHER_FORMATS = (
    *(".img", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"),
    *(".mgz", ".mgh", ".mnc", ".par", ".rec"),
)
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar", ".dcm.gz")


def not_read(path: Path) -> tuple[str, str] | None:
    """What a file is called that may hold images and, unless it is DICOM, is of no kind that is
    read, and why not; None for other files."""
    name = path.name.lower()
    if path.is_symlink() and path.is_dir():
        return "Links to folders", "they are not followed; put the files themselves there"
    if name.endswith(_OTHER_FORMATS):
        kind = f"Images of another format ({path.suffix.lower()})"
        return kind, "only NIfTI (.nii, .nii.gz) and DICOM are read"
    return ("Packed files", "nothing is unpacked") if name.endswith(_PACKED) else None


def sidecar_of(path: Path) -> Path:
    """Where the JSON file of a NIfTI file would lie."""
    return path.with_name(f"{nifti_stem(path)}.json")


def participant_rows(data: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of participants.tsv by subject (with its prefix); empty without the file. All columns
    but participant_id are optional.

    Raises:
        InputError: the file cannot be read, or does not say whose its rows are.
    """
    path = data / PARTICIPANTS
    if not path.is_file():
        return {}
    rows = read_table(path)
    if rows and "participant_id" not in rows[0]:
        raise InputError(
            f"{PARTICIPANTS} does not say whose its rows are",
            expected="a column participant_id, columns parted by tabs",
            found=f"{len(rows[0])} columns with other names",
            action="name the column so, and save the table with tabs in place of commas",
            # Without a header the first row of a person stands here.
            private=", ".join(map(str, rows[0])),
        )
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        name = (row.get("participant_id") or "").strip()
        found.setdefault("sub-" + name.removeprefix("sub-"), []).append(row)
    return found


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table with tabs between its columns, by column name.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, delimiter="\t", restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path.name} cannot be read",
            expected="a table with tabs between its columns, in UTF-8",
            found=error.strerror or "no access" if isinstance(error, OSError) else str(error),
            action="save it again as tab-separated UTF-8 text",
        ) from error


def participant_in(rows: ParticipantRows, subject: str) -> Participant:
    """What the rows of participants.tsv say of a subject (with its prefix).

    Raises:
        InputError: a value that cannot be right, or several rows.
    """
    mine = rows.get(subject, ())
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


def participant_digest(participant: Participant) -> str | None:
    """Digest of what is known of a person; None where nothing is."""
    return None if participant == Participant() else text_digest(repr(participant))


def present(row: Mapping[str, str | None], column: str) -> str | None:
    """A cell of a table; None where it is missing or says so (n/a)."""
    value = (row.get(column) or "").strip()
    return None if value.lower() in _MISSING else value


def _number(
    row: Mapping[str, str | None], column: str, low: float, high: float, subject: str
) -> float | None:
    text = present(row, column)
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
            found="another value",
            action=f"correct it (the unit is in the column's name: {column})",
            private=repr(text),
        )
    return value


def _sex(row: Mapping[str, str | None], subject: str) -> str | None:
    text = present(row, "sex")
    if text is None:
        return None
    sexes = {"f": "female", "female": "female", "m": "male", "male": "male"}
    sexes |= {"o": "other", "other": "other"}
    if text.lower() not in sexes:
        raise InputError(
            f"participants.tsv: sex of {subject} is not one that is known",
            expected="female, male, other (or f, m, o), or n/a",
            found="another value",
            action="correct it",
            private=repr(text),
        )
    return sexes[text.lower()]


def _side(row: Mapping[str, str | None], column: str, subject: str) -> Side | None:
    text = present(row, column)
    if text is None or text.lower() in ("both", "ambidextrous"):
        return None
    sides = {"l": Side.LEFT, "left": Side.LEFT, "r": Side.RIGHT, "right": Side.RIGHT}
    if text.lower() not in sides:
        raise InputError(
            f"participants.tsv: {column} of {subject} is not a side",
            expected="left, right, both or n/a",
            found="another value",
            action="correct it",
            private=repr(text),
        )
    return sides[text.lower()]


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
