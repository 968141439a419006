"""A person's name, planted wherever an input can hold one, stands in nothing that is kept."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bodies import GIVEN, thighs
from pypdf import PdfReader
from scanner import save, slice_of

from pipeline import cli, flow
from pipeline.core.errors import InputError
from pipeline.core.volume import Quantity
from pipeline.io.discover import participant_in, participant_rows
from pipeline.io.nifti import write_label_map, write_volume

NAME = "Doe_John_1970"
#: Parts of it that nothing else holds, as other programs would write them.
PARTS = (b"doe_john", b"john_1970", b"doe^john", b"doe john")


def planted(folder: Path) -> Path:
    """A study named after a person, whose names are in every file and every field."""
    data = folder / NAME / "data"
    inside = data / "sub-01" / NAME
    inside.mkdir(parents=True)
    scan = thighs()
    for quantity, volume in scan.images.items():
        path = inside / f"{NAME}_{quantity}.nii.gz"
        write_volume(path, volume, dtype=np.int16)
        image = nib.load(path)
        stored = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        for field in ("descrip", "aux_file", "intent_name", "db_name"):
            stored.header[field] = NAME.encode()
        stored.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
        nib.save(stored, path)
        said = {"PatientName": NAME, "ImageType": [NAME], "SeriesDescription": NAME}
        (inside / f"{NAME}_{quantity}.json").write_text(json.dumps(said))
    shutil.copy(path, inside / f"{NAME}_b0map.nii.gz")
    shutil.copy(path, inside / f"{NAME}_T2w.nii.gz")
    (inside / f"{NAME}.txt").write_text(NAME)
    (data / "participants.tsv").write_text(
        f"participant_id\tname\tsex\nsub-01\t{NAME}\tM\nsub-02\t{NAME}\tF\n"
    )
    write_label_map(folder / NAME / f"{NAME}_labels.nii.gz", scan.labels)
    return data


def said_to_a_log(capsys) -> str:
    """What the program said on standard error, which is no terminal here: a batch keeps it."""
    said = capsys.readouterr().err
    assert not any(part in said.lower().encode() for part in PARTS), said
    return said


def texts(path: Path) -> bytes:
    """A file and what is packed in it."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return content + gzip.decompress(content)
    if path.suffix == ".pdf":
        reader = PdfReader(io.BytesIO(content))
        pages = " ".join(page.extract_text() for page in reader.pages)
        return content + pages.encode() + repr(reader.metadata).encode()
    return content


def holders(out: Path) -> list[str]:
    """Files that hold a part of the name, or bear it."""
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files
    return [
        str(path.relative_to(out))
        for path in files
        if any(
            part in (texts(path) + str(path.relative_to(out)).encode()).lower() for part in PARTS
        )
    ]


def test_names_of_files_and_fields_are_kept_nowhere(tmp_path, capsys):
    data = planted(tmp_path)
    out, scheme = tmp_path / NAME / "out", tmp_path / NAME / NAME
    labels = tmp_path / NAME / f"{NAME}_labels.nii.gz"
    scheme.write_text(
        "labels: {"
        + ", ".join(
            f"{value}: [{name}, {side or 'null'}]"
            for value, (name, side) in thighs().labels.scheme.structures.items()
        )
        + "}\n"
    )
    options = ["--labels", str(labels), "--label-scheme", str(scheme)]
    assert cli.main([str(data), str(out), "participant", *options]) == 0
    assert cli.main([str(data), str(out), "group"]) == 0
    said_to_a_log(capsys)
    assert holders(out) == []
    inputs = json.loads((out / "sub-01/sub-01_measures.json").read_text())["provenance"]["inputs"]
    assert set(inputs) == {
        *(f"nifti:{kind}{beside}" for kind in ("water", "fat") for beside in ("", ":json")),
        *("nifti:labels", "label scheme", "participants.tsv"),
    }


@pytest.mark.parametrize("broken", ["cut off", "twice", "nothing of use", "no image"])
def test_neither_are_they_where_the_run_fails(tmp_path, capsys, broken):
    data, out = planted(tmp_path), tmp_path / "out"
    inside = data / "sub-01" / NAME
    water = inside / f"{NAME}_water.nii.gz"
    if broken == "cut off":
        water.write_bytes(water.read_bytes()[:-2000])
    elif broken == "twice":
        shutil.copy(water, inside / f"{NAME}_2_water.nii.gz")
    elif broken == "no image":
        water.write_bytes(b"this is no image")
    else:
        for path in inside.glob("*.gz"):
            path.rename(path.with_name(f"{path.name[:-7]}_x.nii.gz"))
    assert cli.main([str(data), str(out), "participant", "--engine", "given"]) == 3
    assert "is said on a terminal only" in said_to_a_log(capsys)
    assert (out / "sub-01/log/sub-01_failure.json").is_file()
    assert holders(out) == []
    assert cli.main(["status", str(data), str(out)]) == 0


def test_a_bug_keeps_none_either(tmp_path, monkeypatch, capsys):
    def fails(*_: object, **__: object) -> None:
        raise ValueError(f"could not convert string to float: '{NAME}'")

    data, out = planted(tmp_path), tmp_path / "out"
    monkeypatch.setattr(flow, "canonicalise", fails)
    assert cli.main([str(data), str(out), "participant"]) == 70
    said = said_to_a_log(capsys)
    assert "ValueError" in said
    assert "flow.py" in said
    assert holders(out) == []
    record = json.loads((out / "sub-01/log/sub-01_failure.json").read_text())
    assert record["problem"].startswith("ValueError in flow.py, line ")


def test_the_terminal_names_the_file(tmp_path, monkeypatch, capsys):
    data = planted(tmp_path)
    (data / "sub-01" / NAME / f"{NAME}_fat.nii.gz").write_bytes(b"")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main([str(data), str(tmp_path / "out"), "participant"]) == 3
    said = capsys.readouterr().err
    assert "The fat image is empty." in said
    assert f"Which: {NAME}/{NAME}_fat.nii.gz." in said
    assert holders(tmp_path / "out") == []


def test_a_cell_of_the_wrong_column_is_not_part_of_the_message(tmp_path):
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsex\nsub-01\t{NAME}\n")
    with pytest.raises(InputError) as caught:
        participant_in(participant_rows(tmp_path), "sub-01")
    assert NAME not in str(caught.value)
    assert NAME in caught.value.private


def test_dicom_objects_take_over_the_patient_and_nothing_else(processed, tmp_path):
    """They belong to the patient's study and say so; names of files, private fields, names of
    series and remarks are no part of that."""
    pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
    volume = thighs().images[Quantity.WATER]
    slices = tmp_path / NAME
    slices.mkdir()
    for level in range(volume.grid.shape[2]):
        data = slice_of(volume.grid, volume.data[:, :, level], level)
        data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2"
        data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = "1.2.3.3", 3, level + 1
        data.PatientSex, data.StudyDate, data.StudyTime, data.StudyID = "F", "20260102", "10", "1"
        data.ReferringPhysicianName = data.PositionReferenceIndicator = ""
        data.ImageType = ["DERIVED", "PRIMARY", "M", "DIXON", "WATER"]
        data.Manufacturer, data.SeriesDescription = "SIEMENS", f"{NAME} water"
        data.ImageComments = data.ProtocolName = data.OperatorsName = NAME
        data.private_block(0x0019, "PLANT", create=True).add_new(0x11, "LO", NAME)
        save(data, slices / f"{NAME}_{level:03d}")
    command = ["dicom", str(processed), "--participant-label", "01", "--source", str(slices)]
    assert cli.main([*command, "--to", str(tmp_path / "objects")]) == 0
    assert holders(tmp_path / "objects") == []


def test_words_of_a_header_in_the_place_of_a_term_are_not_read(tmp_path):
    from test_io_dicom import series

    for seed, kind in enumerate("WF"):
        series(
            tmp_path / "sub-01" / NAME,
            kind,
            seed,
            PatientPosition=NAME,
            Laterality=NAME,
            PatientOrientation=["DOE_", "JOHN"],
            SeriesDescription=NAME,
            StudyDescription=NAME,
            PatientComments=NAME,
        )
    result = flow.load_subject(tmp_path, "01", config=GIVEN.load)
    value = result.value
    kept = repr((result.findings, value.side_evidence, value.inputs, value.reasons)).lower()
    assert not any(part.decode() in kept for part in PARTS)
