"""Subjects, sessions, file names and participants.tsv."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config import default_config
from pipeline.core.anatomy import Side
from pipeline.core.errors import InputError, UsageError
from pipeline.core.scan import Participant
from pipeline.io.discover import (
    beside_sessions,
    by_pattern,
    files_below,
    list_sessions,
    list_subjects,
    participant_in,
    participant_rows,
    subject_and_session,
    subject_folder,
    subject_labels,
    tells_no_more,
)


def read_participant(data: Path, subject: str) -> Participant:
    return participant_in(participant_rows(data), subject)


def test_labels_with_and_without_prefix() -> None:
    assert subject_labels("01", None) == ("sub-01", None)
    assert subject_labels("sub-01", "ses-2") == subject_labels("01", "2") == ("sub-01", "ses-2")


@pytest.mark.parametrize("label", ["", "sub-", "../x", "a/b", "a\\b", "..", "a b", "/etc", ".x"])
def test_a_path_is_no_label(label: str) -> None:
    with pytest.raises(UsageError, match="not a subject label"):
        subject_labels(label, None)


def test_sessions_are_asked_for(tmp_path: Path) -> None:
    for name in ("sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1", "sub-03/anat"):
        (tmp_path / name).mkdir(parents=True)
    assert list_subjects(tmp_path) == ["sub-01", "sub-02", "sub-03"]
    assert list_sessions(tmp_path, "01") == ["ses-1", "ses-2"]
    with pytest.raises(UsageError, match="ses-1, ses-2"):
        subject_folder(tmp_path, "sub-01", None)
    assert subject_folder(tmp_path, "sub-01", "ses-2").name == "ses-2"
    assert subject_folder(tmp_path, "sub-03", None).name == "sub-03"
    assert subject_and_session(tmp_path, "02", None) == ("sub-02", "ses-1")
    assert subject_and_session(tmp_path, "02", "7") == ("sub-02", "ses-7")
    assert subject_and_session(tmp_path, "01", None) == ("sub-01", None)
    assert subject_and_session(tmp_path, "none", None) == ("sub-none", None)
    with pytest.raises(InputError, match="no session ses-9"):
        subject_folder(tmp_path, "sub-01", "ses-9")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub-01_water.nii.gz", "water"),
        ("x_W.nii", "water"),
        ("x_fat.nii.gz", "fat"),
        ("x_FF.nii.gz", "fatfraction"),
        ("x_T1w.NII.GZ", "T1w"),
        ("x_T2w.nii.gz", "other"),
        ("x_STIR.nii", "other"),
        ("x_dseg.nii.gz", "labels"),
        ("x_waterfall.nii.gz", None),
        ("x_water.json", None),
        ("water.nii.gz", None),
    ],
)
def test_names_say_what_an_image_shows(name: str, kind: str | None) -> None:
    found = by_pattern([Path(name)], default_config().load.patterns)
    assert found == ({} if kind is None else {kind: [Path(name)]})


def participants(folder: Path, text: str) -> Path:
    (folder / "participants.tsv").write_text(text.replace(" ", "\t"))
    return folder


def test_participants_are_read_where_present(tmp_path: Path) -> None:
    assert read_participant(tmp_path, "sub-01") == Participant()
    participants(
        tmp_path,
        "participant_id height_m mass_kg sex dominant_side injured_side\n"
        "sub-01 1.76 n/a M right L\n"
        "sub-99 1.5 50 F n/a n/a\n"
        "02 1.6 60 f both n/a\n",
    )
    assert read_participant(tmp_path, "sub-01") == Participant(
        1.76, None, "male", Side.RIGHT, Side.LEFT
    )
    assert read_participant(tmp_path, "sub-02") == Participant(1.6, 60.0, "female")
    assert read_participant(tmp_path, "sub-03") == Participant()


@pytest.mark.parametrize(
    "text",
    [
        "participant_id height_m\nsub-01 176\n",
        "participant_id height_m\nsub-01 1,76\n",
        "participant_id mass_kg\nsub-01 nan\x00\n",
        "participant_id mass_kg\nsub-01 -3\n",
        "participant_id sex\nsub-01 7\n",
        "participant_id injured_side\nsub-01 port\n",
        "participant_id mass_kg\nsub-01 70\nsub-01 71\n",
    ],
)
def test_values_that_cannot_be_right(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"participants\.tsv"):
        read_participant(participants(tmp_path, text), "sub-01")


@pytest.mark.parametrize(
    "text", ["participant_id,sex\nsub-01,f\n", "Participant\tsex\nsub-01\tf\n", "sub-01\nsub-02\n"]
)
def test_a_table_that_does_not_say_whose_its_rows_are(tmp_path: Path, text: str) -> None:
    (tmp_path / "participants.tsv").write_text(text)
    with pytest.raises(InputError, match="does not say whose") as caught:
        participant_rows(tmp_path)
    assert "sub-01" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "participant_id\tsex\n"])
def test_an_empty_table_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "participants.tsv").write_text(text)
    assert participant_rows(tmp_path) == {}


def test_participants_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_bytes("participant_id\tsex\nsub-01\té".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_participant(tmp_path, "sub-01")


def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sub-01" / "station-2").mkdir(parents=True)

    def refused(path: str) -> object:
        if str(path).endswith("station-2"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(InputError, match="cannot be read") as caught:
        files_below(tmp_path / "sub-01")
    assert caught.value.private.endswith("station-2")


def test_a_subject_that_may_not_be_read_is_no_bug(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sub-01").mkdir()

    def refused(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    for look in (list_subjects, lambda data: list_sessions(data, "01")):
        with pytest.raises(InputError, match="cannot be read"):
            look(tmp_path)


def test_what_belongs_to_no_session_is_counted(tmp_path: Path) -> None:
    for name in ("ses-1", "anat", ".hidden"):
        (tmp_path / "sub-01" / name).mkdir(parents=True)
    for name in ("sub-01_sessions.tsv", "x_water.nii.gz"):
        (tmp_path / "sub-01" / name).write_text("")
    assert beside_sessions(tmp_path, "sub-01") == 2


@pytest.mark.parametrize(
    ("file", "folder", "may_be_kept"),
    [
        ("sub-01_water.nii.gz", "sub-01", True),
        ("anat/sub-0123_run-2_T1w.nii", "sub-0123", True),
        ("sub-a1_ses-pre_dseg.nii.gz", "sub-a1/ses-pre", True),
        ("Doe_water.nii.gz", "sub-01", False),
        ("sub-doe_water.nii.gz", "sub-01", False),
        ("sub-01_19700102_water.nii.gz", "sub-01", False),
        ("M\u00fcller/sub-01_water.nii.gz", "sub-01", False),
    ],
)
def test_only_names_that_say_nothing_of_a_person_may_be_kept(
    file: str, folder: str, may_be_kept: bool
) -> None:
    patterns = default_config().load.patterns
    assert tells_no_more(file, Path("data") / folder, patterns) is may_be_kept
