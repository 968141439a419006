"""DICOM out: valid objects of the right study, on the same voxels, sides kept, codes unique."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from bodies import small_scan
from factories import make_measures
from pydicom.uid import generate_uid
from scanner import save, slice_of

from pipeline import cli
from pipeline.core.anatomy import MUSCLES, OWN_SCHEME, Side
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Measures
from pipeline.core.volume import LabelMap, Quantity
from pipeline.io.derivatives import SubjectFolder, finished_measures
from pipeline.io.dicom_out import export_dicom, make_encapsulated_pdf, make_segmentation
from pipeline.io.dicom_report import make_structured_report
from pipeline.io.nifti import read_label_map

hd = pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")

_STUDY = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.2",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "1",
    "PatientSex": "F",
    "ReferringPhysicianName": "",
    "PositionReferenceIndicator": "",
    "SeriesNumber": 3,
    "AccessionNumber": "7",
    "PatientName": "Plant^Test",
    "PatientID": "plant",
    "PatientBirthDate": "19700102",
}


@pytest.fixture(scope="module")
def exported(processed, tmp_path_factory) -> tuple[Path, Path]:
    """The scan of the small subject as DICOM slices, its results as objects: both folders."""
    root = tmp_path_factory.mktemp("dicom")
    volume = small_scan().images[Quantity.WATER]
    (root / "slices").mkdir()
    series = generate_uid()
    for level in range(volume.grid.shape[2]):
        data = slice_of(volume.grid, volume.data[:, :, level], level)
        for keyword, value in _STUDY.items():
            setattr(data, keyword, value)
        data.SeriesInstanceUID, data.InstanceNumber = series, level + 1
        data.Manufacturer, data.SeriesDescription = "SIEMENS", "t1_vibe_dixon_tra_W"
        data.ImageType = ["DERIVED", "PRIMARY", "M", "DIXON", "WATER"]
        save(data, root / f"slices/{level:03d}")
    command = ["dicom", str(processed), "--participant-label", "01"]
    assert cli.main([*command, "--source", f"{root}/slices", "--to", f"{root}/objects"]) == 0
    return processed, root / "objects"


def object_of(exported: tuple[Path, Path], kind: str) -> pydicom.Dataset:
    return pydicom.dcmread(exported[1] / f"sub-01_{kind}.dcm")


def test_objects_belong_to_the_study_of_the_scan(exported):
    uids = set()
    for kind in ("seg", "sr", "pdf"):
        data = object_of(exported, kind)
        for keyword in ("StudyInstanceUID", "PatientID", "StudyDate", "AccessionNumber"):
            assert data.get(keyword) == _STUDY[keyword], (kind, keyword)
        uids.add(data.SOPInstanceUID)
    assert len(uids) == 3
    assert object_of(exported, "seg").FrameOfReferenceUID == _STUDY["FrameOfReferenceUID"]


def label_map(exported) -> tuple[np.ndarray, Grid, dict[tuple[str, Side], int]]:
    """The labels that were exported, their grid, and their values by title and side."""
    labels = read_label_map(SubjectFolder(exported[0], "sub-01", None).labels, OWN_SCHEME)
    values = {(m.title, side): OWN_SCHEME.value_of(m.name, side) for m in MUSCLES for side in Side}
    return labels.data, labels.grid, values


@pytest.mark.parametrize("uids", [("", ""), ("1.2.3", ""), ("1.2.3", "1.2.4")])
def test_slices_without_one_frame_of_reference_are_refused(uids):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    labels = LabelMap(np.ones((4, 4, 2), np.int16), Grid((4, 4, 2), affine, "scanner"), OWN_SCHEME)
    slices = [pydicom.Dataset(), pydicom.Dataset()]
    for header, uid in zip(slices, uids, strict=True):
        if uid:
            header.FrameOfReferenceUID = uid
    with pytest.raises(InputError, match="of 2 slices without one") as raised:
        make_segmentation(labels, make_measures(), slices)
    assert "FrameOfReferenceUID" in raised.value.expected


def test_highdicom_reads_back_the_same_voxels_and_sides(exported):
    labels, grid, values = label_map(exported)
    seg = hd.seg.segread(exported[1] / "sub-01_seg.dcm")
    found = seg.get_volume(combine_segments=True)
    # Slices without any segment are not stored, and their order is the reader's own.
    volume = np.zeros(labels.shape, dtype=np.int16)
    for k, plane in enumerate(found.array):
        place = (found.affine @ [k, 0.0, 0.0, 1.0])[:3] * [-1.0, -1.0, 1.0]
        volume[:, :, round(float(grid.world_to_index(place)[2]))] = plane.T
    described = {int(s.SegmentNumber): s for s in seg.SegmentSequence}
    assert len(described) == 2 * len(MUSCLES)
    for number, segment in described.items():
        title, _, side = segment.SegmentLabel.rpartition(", ")
        value = values[title, Side(side)]
        assert np.array_equal(volume == number, labels == value), segment.SegmentLabel
        (modifier,) = segment.SegmentedPropertyTypeCodeSequence[
            0
        ].SegmentedPropertyTypeModifierCodeSequence
        assert modifier.CodeMeaning.lower() == side


def test_simpleitk_reads_back_the_same_places(exported):
    labels, grid, values = label_map(exported)
    data = object_of(exported, "seg")
    image = sitk.ReadImage(str(exported[1] / "sub-01_seg.dcm"))
    frames = sitk.GetArrayFromImage(image)
    for number in (1, 31):
        segment = data.SegmentSequence[number - 1]
        title, _, side = segment.SegmentLabel.rpartition(", ")
        value = values[title, Side(side)]
        mine = [
            k
            for k, frame in enumerate(data.PerFrameFunctionalGroupsSequence)
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        ]
        counted = sum(np.count_nonzero(frames[k]) for k in mine)
        assert counted == np.count_nonzero(labels == value)
        # The middle of the segment, from positions in DICOM (left, back, up) and in the map.
        points = []
        for k in mine:
            position = data.PerFrameFunctionalGroupsSequence[k].PlanePositionSequence[0]
            rows, columns = np.nonzero(frames[k])
            spot = np.array(position.ImagePositionPatient, dtype=float)
            shared = data.SharedFunctionalGroupsSequence[0]
            cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
            spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
            points.append(
                spot
                + columns[:, None] * spacing[1] * cosines[:3]
                + rows[:, None] * spacing[0] * cosines[3:]
            )
        middle = np.concatenate(points).mean(axis=0) * [-1.0, -1.0, 1.0]
        wanted = grid.index_to_world(np.argwhere(labels == value)).mean(axis=0)
        assert middle == pytest.approx(wanted, abs=0.01)
        assert (middle[0] > grid.index_to_world(np.argwhere(labels > 0)).mean(axis=0)[0]) == (
            side == "right"
        )


def test_codes_are_unique_per_muscle_and_from_the_registry(exported):
    found = Counter()
    for segment in object_of(exported, "seg").SegmentSequence:
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        # Names of our own may be longer than the 16 characters of a code value.
        term = code.get("CodeValue") or code.LongCodeValue
        found[code.CodingSchemeDesignator, term] += 1
        muscle = next(m for m in MUSCLES if segment.SegmentLabel.startswith(f"{m.title},"))
        if code.CodingSchemeDesignator == "SCT":
            assert term == muscle.codes.snomed_ct
        else:
            assert muscle.codes.snomed_ct is None
    assert set(found.values()) == {2}
    assert {scheme for scheme, _ in found} == {"SCT", "FMA", "MDC", "99MYOSYM"}


def meaning(item) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def groups_of(report: pydicom.Dataset) -> dict[str, dict[str, list]]:
    """Items of every group of measurements by the meaning of their names, by what is tracked."""
    found = {}
    for container in report.ContentSequence:
        for group in container.get("ContentSequence", []):
            items: dict[str, list] = {}
            for item in group.ContentSequence:
                items.setdefault(meaning(item), []).append(item)
            found[items["Tracking Identifier"][0].TextValue] = items
    return found


def value(item) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def coded(item) -> str:
    return item.ConceptCodeSequence[0].CodeMeaning


def below(item) -> dict[str, object]:
    """What stands below a number: its modifiers and properties."""
    return {
        meaning(part): coded(part) if part.ValueType == "CODE" else value(part)
        for part in item.get("ContentSequence", [])
    }


def said(items: dict[str, list], name: str) -> list[str]:
    return [item.TextValue for item in items.get(name, [])]


@pytest.fixture(scope="module")
def doubtful(exported, tmp_path_factory) -> tuple[Measures, Path]:
    """Results of which much is in doubt, as a structured report on the scan's segmentation."""
    caveat = Finding(
        code="far_from_isocentre", severity="warning", stage="measure", message="Lies far out."
    )
    measures = make_measures(findings=(caveat,), caveats=(caveat.code,))
    muscles = list(measures.measures.muscles)
    first = muscles[1]
    estimated = {
        side: getattr(first, side).model_copy(update={"lean_estimate": "from T1w alone"})
        for side in ("right", "left")
    }
    muscles[1] = first.model_copy(update=estimated)
    limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
    measures = measures.model_copy(update={"measures": limb})
    slices = [pydicom.dcmread(p) for p in sorted((exported[1].parent / "slices").iterdir())]
    report = make_structured_report(measures, object_of(exported, "seg"), slices)
    path = tmp_path_factory.mktemp("sr") / "sr.dcm"
    report.save_as(path, enforce_file_format=True)
    return measures, path


def test_the_structured_report_holds_the_numbers_of_the_json(exported):
    measures = finished_measures(SubjectFolder(exported[0], "sub-01", None))
    groups = groups_of(object_of(exported, "sr"))
    results = [*measures.measures.muscles, *measures.measures.groups]
    # Each side, lean and total asymmetry of each; and the scan.
    assert len(groups) == 4 * len(results) + 1
    for result in results:
        title = result.name.replace("_", " ").capitalize()
        for side in Side:
            found, m = groups[f"{title}, {side}"], getattr(result, side)
            assert value(found["Volume"][0]) == pytest.approx(m.volume_whole_ml, rel=1e-9)
            assert value(found["Lean volume"][0]) == pytest.approx(m.lean_volume_whole_ml, rel=1e-9)
            fraction = value(found["Fat fraction"][0])
            assert fraction == pytest.approx(m.fat_fraction_percent, rel=1e-9)
            assert coded(found["Status"][0]) == m.status
            assert ("Referenced Segment" in found) == (result in measures.measures.muscles)
        for of, a in (
            ("lean volume", result.asymmetry),
            ("total volume", result.asymmetry_total_volume),
        ):
            items = groups[f"{title}, asymmetry of {of}"]
            (index,) = items[f"Asymmetry of {of}, R - L of mean"]
            assert value(index) == pytest.approx(a.index_percent, rel=1e-9)
            beside = below(index)
            assert beside.pop("Extent that is compared") == "Whole"
            assert a.extent == "whole"
            ends = (a.interval_low_percent, a.interval_high_percent)
            names = ("Lower end of the 95 % interval", "Upper end of the 95 % interval")
            assert beside == pytest.approx(dict(zip(names, ends, strict=True)), rel=1e-9)
            assert coded(items["What the difference means"][0]) == (a.verdict or "no verdict")
            assert said(items, "Comment") == ([] if a.reason is None else [a.reason])
    scan = groups["The scan"]
    assert said(scan, "Who outlined the muscles") == [measures.engine.note]
    assert len(said(scan, "Finding (info)")) == sum(f.severity == "info" for f in measures.findings)


def test_what_is_in_doubt_says_so_beside_its_number(doubtful):
    measures, path = doubtful
    groups = groups_of(pydicom.dcmread(path))
    by_name = {m.name: m for m in measures.measures.muscles}
    # Cut by the scan: the part in view is not called its volume, both shown parts are compared.
    cut = groups["Gluteus maximus, left"]
    assert coded(cut["Status"][0]) == "truncated"
    assert "Volume" not in cut
    part = value(cut["Volume of the part in view"][0])
    assert part == pytest.approx(by_name["gluteus_maximus"].left.volume_in_view_ml)
    assert said(cut, "Comment") == ["cut by the upper end of the scan"]
    compared = groups["Gluteus maximus, asymmetry of lean volume"]
    (index,) = compared["Asymmetry of lean volume, R - L of mean"]
    assert below(index)["Extent that is compared"] == "The part that both legs show"
    assert said(compared, "What may fake such a difference") == ["Lies far out."]
    # Absent: no number, and why.
    absent = groups["Popliteus, left"]
    assert not [k for k, items in absent.items() if items[0].ValueType == "NUM"]
    assert coded(absent["Status"][0]) == "absent"
    no_index = groups["Popliteus, asymmetry of lean volume"]
    assert not [k for k, items in no_index.items() if items[0].ValueType == "NUM"]
    assert said(no_index, "Comment") == [by_name["popliteus"].asymmetry.reason]
    # Unreliable: every number of it is marked, and there is no verdict.
    doubted = groups["Flexor digitorum longus, right"]
    for name in ("Volume", "Lean volume", "Fat fraction"):
        assert below(doubted[name][0])["Status"] == "unreliable"
    without = groups["Flexor digitorum longus, asymmetry of total volume"]
    (index,) = without["Asymmetry of total volume, R - L of mean"]
    assert below(index)["Status"] == "unreliable"
    assert coded(without["What the difference means"][0]) == "no verdict"
    # Estimated: lean values, not the volume.
    title = measures.measures.muscles[1].name.replace("_", " ").capitalize()
    guessed = groups[f"{title}, right"]
    assert "from T1w alone" in said(guessed, "Comment")
    assert below(guessed["Lean volume"][0])["Derivation"] == "Estimated"
    assert "Derivation" not in below(guessed["Volume"][0])
    lean = groups[f"{title}, asymmetry of lean volume"]["Asymmetry of lean volume, R - L of mean"]
    assert below(lean[0])["Derivation"] == "Estimated"


def test_labels_that_were_given_are_not_called_artificial_intelligence(exported):
    for segment in object_of(exported, "seg").SegmentSequence:
        made = segment.SegmentationAlgorithmIdentificationSequence[0]
        family = made.AlgorithmFamilyCodeSequence[0].CodeMeaning
        assert family == "Labels made elsewhere or by hand"
        assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_results_that_hold_an_error_are_not_exported(exported, tmp_path):
    wrong = Finding(
        code="one_leg_twice", severity="error", stage="separate", message="One leg is shown twice."
    )
    folder = SubjectFolder(exported[0], "sub-01", None)
    with pytest.raises(SubjectUnusableError, match="One leg is shown twice"):
        export_dicom(
            folder,
            make_measures(findings=(wrong,)),
            exported[1].parent / "slices",
            tmp_path / "to",
            rules=[],
            largest_image_million_voxels=100.0,
        )
    assert not (tmp_path / "to").exists()


def test_the_pdf_comes_out_as_it_went_in(exported):
    data = object_of(exported, "pdf")
    held = data.EncapsulatedDocument[: data.EncapsulatedDocumentLength]
    assert held == (exported[0] / "sub-01/sub-01_report.pdf").read_bytes()


def test_another_pdf_of_the_same_results_has_another_identifier():
    one_slice = pydicom.Dataset()
    one_slice.StudyInstanceUID = _STUDY["StudyInstanceUID"]
    first, again, other = (
        make_encapsulated_pdf(pdf, make_measures(), one_slice) for pdf in (b"a", b"a", b"b")
    )
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert other.file_meta.MediaStorageSOPInstanceUID == other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID


def errors_in(path: Path) -> list[str]:
    """What the validator calls errors; it must have known what kind of object it read."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    said = (done.stderr + done.stdout).splitlines()
    assert any(re.search(r"Segmentation|SR|EncapsulatedPDF", line) for line in said), said
    return [line for line in said if line.startswith("Error")]


needs_validator = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dicom3tools is not on this machine"
)


@needs_validator
@pytest.mark.parametrize(
    "kind",
    # The validator takes half a minute for the 5000 frames of a whole segmentation.
    ["sr", "pdf", pytest.param("seg", marks=pytest.mark.slow)],
)
def test_the_validator_finds_no_error(exported, kind):
    assert errors_in(exported[1] / f"sub-01_{kind}.dcm") == []


@needs_validator
def test_the_validator_finds_no_error_in_a_report_full_of_doubts(doubtful):
    assert errors_in(doubtful[1]) == []


@needs_validator
def test_the_validator_finds_no_error_in_a_segmentation_of_one_muscle(exported, tmp_path):
    labels, grid, values = label_map(exported)
    one = np.isin(labels, [values["Popliteus", side] for side in Side])
    alone = LabelMap(np.where(one, labels, 0), grid, OWN_SCHEME)
    measures = finished_measures(SubjectFolder(exported[0], "sub-01", None))
    slices = [pydicom.dcmread(p) for p in sorted((exported[1].parent / "slices").iterdir())]
    path = tmp_path / "seg.dcm"
    make_segmentation(alone, measures, slices).save_as(path)
    assert errors_in(path) == []
    broken = pydicom.dcmread(path)
    del broken.SegmentSequence
    broken.save_as(path)
    assert errors_in(path) != []


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dcmtk is not on this machine")
def test_the_report_reads_as_a_structured_report(exported, doubtful):
    for path in (exported[1] / "sub-01_sr.dcm", doubtful[1]):
        done = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Gluteus maximus, right" in done.stdout
        assert not [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))]


def test_slices_of_another_scan_are_refused(exported, tmp_path, capsys):
    empty = tmp_path / "nothing"
    empty.mkdir()
    command = ["dicom", str(exported[0]), "--participant-label", "01"]
    assert cli.main([*command, "--source", str(empty), "--to", str(tmp_path / "to")]) == 3
    assert "No DICOM series lies on the grid" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def refused(exported, source: Path, capsys) -> str:
    """What is said to results that are asked for on these slices."""
    command = ["dicom", str(exported[0]), "--participant-label", "01", "--source", str(source)]
    assert cli.main([*command, "--to", str(source / "to")]) == 3
    assert not (source / "to").exists()
    return capsys.readouterr().err


def test_joined_stations_are_refused_by_name(exported, tmp_path, capsys):
    slices = [pydicom.dcmread(p) for p in sorted((exported[1].parent / "slices").iterdir())]
    uids = [generate_uid(), generate_uid()]
    for k, data in enumerate(slices):
        data.SeriesInstanceUID = uids[k >= len(slices) // 2]
        save(data, tmp_path / f"{k:03d}")
    assert "not made of stations that were joined" in refused(exported, tmp_path, capsys)


def test_an_enhanced_file_is_refused_by_name(exported, tmp_path, capsys):
    slices = [pydicom.dcmread(p) for p in sorted((exported[1].parent / "slices").iterdir())]
    frames = []
    for data in slices:
        frame, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = data.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    shared, measure, plane = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measure.PixelSpacing = slices[0].PixelSpacing
    plane.ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measure], [plane]
    whole = slices[0]
    whole.NumberOfFrames = len(frames)
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = frames
    save(whole, tmp_path / "enhanced")
    said = refused(exported, tmp_path, capsys)
    assert "not made of files that hold several slices" in said
    assert "classic MR images" in said
