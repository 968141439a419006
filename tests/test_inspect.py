"""What `inspect` says of good and bad subjects: files used and left out, each with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_io_dicom import PERSON, series

from pipeline import cli, load_config, process_subject
from pipeline.core.errors import InputError
from pipeline.flow import inspect_subject


def nifti(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.ones((6, 5, 4), dtype=np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0])), path)


def four_subjects(data: Path) -> None:
    """NIfTI with other files beside it; a broken one; DICOM; nothing of use."""
    for kind in ("water", "fat", "b0map", "dseg"):
        nifti(data / f"sub-01/sub-01_{kind}.nii.gz")
    series(data / "sub-01/dicom", "W", 1)
    (data / "sub-02").mkdir()
    (data / "sub-02/sub-02_water.nii.gz").write_bytes(b"")
    for number, kind in enumerate(("W", "F"), start=31):
        series(data / "sub-03", kind, number, SeriesNumber=number)
    series(data / "sub-04", "M", 1, SeriesNumber=9, SeriesDescription="flair")


def test_a_subject_that_cannot_be_used_stops_no_other(tmp_path, capsys):
    four_subjects(tmp_path)
    assert cli.main(["inspect", str(tmp_path), "--json"]) == 3
    first, broken, dicom, useless = json.loads(capsys.readouterr().out)
    assert first["reasons"] == {
        f"nifti:{kind}": f"{kind} by the end of its name" for kind in ("water", "fat")
    }
    assert first["files"]["nifti:fat"] == "sub-01_fat.nii.gz"
    said = " ".join(first["left_out"])
    assert "NIfTI files: 1 file left out: no ending that load.patterns knows" in said
    assert first["files_left_out"] == {"sub-01_b0map.nii.gz": "no ending that load.patterns knows"}
    assert "DICOM files: 6 files left out: there are NIfTI images" in said
    assert broken["subject"] == "sub-02"
    assert "sub-02_water.nii.gz" in broken["error"]
    assert dicom["reasons"]["dicom:fat"].startswith("Series 32, 6 files: fat by ImageType f (rule ")
    assert "Series 9: 6 files left out: its contrast is not known" in useless["error"]


def test_the_only_session_need_not_be_named(tmp_path):
    nifti(tmp_path / "data/sub-01/ses-2/sub-01_ses-2_T1w.nii.gz")
    assert inspect_subject(tmp_path / "data", "01")["session"] == "ses-2"
    config = load_config(overrides={"load": {"patterns": {"T1w": []}}})
    with pytest.raises(InputError, match="no image that can be used"):
        process_subject(tmp_path / "data", tmp_path / "out", "01", config=config)
    assert (tmp_path / "out/sub-01/ses-2/log/sub-01_ses-2_failure.json").is_file()


def test_the_same_is_said_in_words(tmp_path, capsys):
    four_subjects(tmp_path)
    assert cli.main(["inspect", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert "used           nifti:water (water by the end of its name): sub-01_water.nii.gz" in said
    assert "left out       sub-01_b0map.nii.gz: no ending that load.patterns knows" in said
    assert "used           dicom:water (Series 31, 6 files: water by ImageType w (rule " in said
    assert said.count("unusable       ") == 2
    assert PERSON[:3] not in said
    good = ["inspect", str(tmp_path), "--participant-label", "03"]
    assert cli.main(good) == 0


def test_a_label_map_of_the_folder_that_another_one_replaces_is_told(tmp_path):
    from pipeline.config import default_config
    from pipeline.stages.load import load_subject

    four_subjects(tmp_path)
    nifti(tmp_path / "mine.nii.gz")
    result = load_subject(
        tmp_path, "01", labels=tmp_path / "mine.nii.gz", config=default_config().load
    )
    said = " ".join(f.message for f in result.findings if f.code == "left_out")
    assert "NIfTI files: 1 file left out: another label map was named" in said
    assert result.value.unused["sub-01_dseg.nii.gz"] == "another label map was named"


def test_files_that_nothing_reads_are_told(tmp_path, capsys):
    nifti(tmp_path / "sub-01/x_water.nii.gz")
    (tmp_path / "sub-01/x_fat.nrrd").write_bytes(b"NRRD0004")
    (tmp_path / "sub-01/x_fat.hdr").write_bytes(bytes(348))
    (tmp_path / "sub-01/20201_2_0.zip").write_bytes(b"PK")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sub-01/dicom").symlink_to(tmp_path / "elsewhere")
    # A DICOM file may be called anything.
    series(tmp_path / "sub-01", "W", 1)
    next((tmp_path / "sub-01").glob("DOE_*")).rename(tmp_path / "sub-01/1.img")
    assert cli.main(["inspect", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)[0]["left_out"]
    for words in (
        "DICOM files: 6 files",
        "Images of another format (.hdr): 1 file left out: only NIfTI",
        "Images of another format (.nrrd): 1 file left out: only NIfTI",
        "Packed files: 1 file left out: nothing is unpacked",
        "Links to folders: 1 file left out: they are not followed",
    ):
        assert any(words in text for text in said), words
    assert len(said) == 5


def test_a_scan_beside_the_sessions_is_told(tmp_path, capsys):
    for folder in ("anat", "ses-2"):
        nifti(tmp_path / f"sub-01/{folder}/x_water.nii.gz")
    assert cli.main(["inspect", str(tmp_path), "--json"]) == 0
    (second,) = json.loads(capsys.readouterr().out)
    assert second["session"] == "ses-2"
    said = " ".join(second["findings"])
    assert "Beside the sessions of sub-01 lie folders or NIfTI files (1)" in said
