"""DICOM out: results as a segmentation, a structured report and an encapsulated PDF.

They join the study of the scan they were made from: patient, study and frame of reference are
taken from its slices, so they hold what identifies the patient, as every object of a study does.
Needs the extra "dicom" (highdicom).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES, OWN_SCHEME, Muscle, Side
from pipeline.core.errors import InputError, SubjectUnusableError, UsageError
from pipeline.core.results import Measures, Severity
from pipeline.core.scan import GIVEN
from pipeline.core.volume import LabelMap
from pipeline.io.atomic import atomic_write
from pipeline.io.contrast import ContrastRules
from pipeline.io.derivatives import SubjectFolder
from pipeline.io.dicom import DicomSource, find_dicom, open_dicom
from pipeline.io.dicom_codes import (
    code_of_muscle,
    laterality,
    made_by,
    own_code,
    sct,
    segment_label,
    uid_of,
)
from pipeline.io.dicom_report import make_structured_report
from pipeline.io.digest import bytes_digest
from pipeline.io.nifti import read_label_map
from pipeline.io.settings import LPS_TO_RAS

if TYPE_CHECKING:
    import highdicom as hd

#: Corners of the label map and of the slices it was made from agree to this, mm.
_SAME_PLACE_MM = 0.1


def export_dicom(
    folder: SubjectFolder,
    measures: Measures,
    source: Path,
    target: Path,
    *,
    rules: ContrastRules,
    largest_image_million_voxels: float,
) -> list[Path]:
    """Write the results of a subject as DICOM objects of the study they were made from.

    Args:
        folder: the subject's results.
        measures: the published results.
        source: folder of the DICOM slices that were measured.
        target: folder for the three objects.
        rules: what DICOM images show (load.dicom_contrasts).
        largest_image_million_voxels: declared sizes above are taken for a broken header.

    Returns:
        paths of the segmentation, the structured report and the encapsulated PDF.

    Raises:
        UsageError: highdicom is not installed.
        SubjectUnusableError: the results hold an error: an archive is no place for them.
        InputError: no series below the source lies on the grid of the label map; it is enhanced
            multi-frame or a mosaic; several stations were joined; its
            slices share no frame of reference.
    """
    _require_highdicom()
    _require_no_error(measures)
    labels = read_label_map(folder.measured_labels, OWN_SCHEME)
    slices = _slices(source, labels, rules, largest_image_million_voxels)
    segmentation = make_segmentation(labels, measures, slices)
    report = make_structured_report(measures, segmentation, slices)
    document = make_encapsulated_pdf(folder.pdf.read_bytes(), measures, slices[0])
    written = []
    for name, data in (("seg", segmentation), ("sr", report), ("pdf", document)):
        path = target / f"{folder.stem}_{name}.dcm"
        with atomic_write(path) as handle:
            data.save_as(handle, enforce_file_format=True)
        written.append(path)
    return written


def make_segmentation(
    labels: LabelMap, measures: Measures, slices: Sequence[pydicom.Dataset]
) -> hd.seg.Segmentation:
    """One binary segment for every muscle and side that is labelled, on the voxels of the scan.

    Args:
        labels: both legs on the grid of the slices, index axes column, row, slice.
        measures: who made the labels.
        slices: headers of the slices, in the order of the grid's third axis.
    """
    import highdicom as hd

    present = set(labels.values())
    kept = [
        (muscle, side, value)
        for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET))
        for muscle in MUSCLES
        if (value := muscle.id + offset) in present
    ]
    numbers = np.zeros(max(present, default=0) + 1, dtype=np.uint8)
    for number, (_, _, value) in enumerate(kept, start=1):
        numbers[value] = number
    # highdicom counts slice, row, column.
    array = np.ascontiguousarray(numbers[labels.data].transpose(2, 1, 0))
    affine = (LPS_TO_RAS @ labels.grid.affine)[:, [2, 1, 0, 3]]
    volume = hd.Volume(
        array,
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=_frame_of_reference(slices),
    )
    return hd.seg.Segmentation(
        source_images=list(slices),
        pixel_array=volume,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, muscle, side, measures)
            for number, (muscle, side, _) in enumerate(kept, start=1)
        ],
        content_label="MUSCLES",
        content_description="Lower-limb muscles",
        **made_by(measures, "seg"),
        device_serial_number=measures.provenance.code_digest[:16],
    )


def _frame_of_reference(slices: Sequence[pydicom.Dataset]) -> str:
    """The one frame of reference of the slices, in which the segments are placed.

    Raises:
        InputError: a slice names none, or they name several.
    """
    named = [str(header.get("FrameOfReferenceUID") or "") for header in slices]
    if len(set(named)) == 1 and named[0]:
        return named[0]
    raise InputError(
        "The slices do not share a frame of reference, so a segmentation has no place",
        expected="the same FrameOfReferenceUID in every slice",
        found=f"{named.count('')} of {len(named)} slices without one, "
        f"{len(set(named) - {''})} different ones in the others",
        action="export the slices again with their frame of reference, as the scanner wrote it",
    )


def make_encapsulated_pdf(
    pdf: bytes, measures: Measures, one_slice: pydicom.Dataset
) -> FileDataset:
    """The report's PDF as an object of the study (Encapsulated PDF Storage)."""
    # The same results can be shown in another way: `myosymmetry report --config`.
    made = made_by(measures, "pdf", content=bytes_digest(pdf))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    meta.MediaStorageSOPInstanceUID = UID(made["sop_instance_uid"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = EncapsulatedPDFStorage, made["sop_instance_uid"]
    # Type 2 attributes are there even where the scan leaves them out.
    for keyword in _OF_PATIENT_AND_STUDY:
        setattr(data, keyword, one_slice.get(keyword, ""))
    data.StudyInstanceUID = one_slice.StudyInstanceUID
    data.Modality, data.ConversionType = "DOC", "WSD"
    data.SeriesInstanceUID, data.SeriesNumber = made["series_instance_uid"], made["series_number"]
    data.SeriesDescription = made["series_description"]
    data.InstanceNumber = made["instance_number"]
    data.Manufacturer = made["manufacturer"]
    data.ManufacturerModelName = made["manufacturer_model_name"]
    data.SoftwareVersions = made["software_versions"]
    data.ContentDate = data.ContentTime = data.AcquisitionDateTime = ""
    data.BurnedInAnnotation = "YES"
    data.DocumentTitle = "Left and right leg muscles"
    data.ConceptNameCodeSequence = [own_code("muscle_report", "Left and right leg muscles")]
    data.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data.EncapsulatedDocumentLength = len(pdf)
    data.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return data


_OF_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def _require_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "DICOM objects cannot be written here",
            expected="the extra 'dicom' of this package (highdicom)",
            found="no highdicom",
            action="pip install 'myosymmetry[dicom]'",
        ) from error


def _require_no_error(measures: Measures) -> None:
    """Who opens a segmentation or a number in an archive may never see the report's errors."""
    errors = [f.message for f in measures.findings if f.severity is Severity.ERROR]
    if errors:
        raise SubjectUnusableError(
            f"The results of {measures.subject} hold an error and are not exported",
            expected="results without a finding of severity error",
            found=" ".join(errors),
            action="do what the error says and process the subject again",
        )


def _slices(
    source: Path, labels: LabelMap, rules: ContrastRules, largest_image_million_voxels: float
) -> list[pydicom.Dataset]:
    """Headers of the slices that lie on the grid of the label map, in its order."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    found, _ = find_dicom(files, rules)
    grids = []
    for series in found:
        try:
            stack = open_dicom(series, largest_image_million_voxels=largest_image_million_voxels)
        except InputError:
            continue
        if not stack.grid.same_as(labels.grid, tolerance_mm=_SAME_PLACE_MM):
            grids.append(stack.grid.describe())
            continue
        if not _single_slices(stack):
            raise InputError(
                "DICOM objects are not made of files that hold several slices",
                expected="one file a slice",
                found=f"{len(stack.planes)} slices in {len(stack.files)} files (enhanced "
                "multi-frame or mosaic)",
                action="export the series as classic MR images, one file a slice, and name their "
                "folder with --source; JSON, tables, page and PDF are complete without it",
            )
        headers = [pydicom.dcmread(plane.path) for plane in stack.planes]
        return [_completed(header) for header in headers]
    if len(found) > len({series.quantity for series in found}):
        raise InputError(
            "DICOM objects are not made of stations that were joined",
            expected=f"one series on the grid of the label map, {labels.grid.describe()}",
            found=f"several series of one contrast: {'; '.join(grids)}",
            action="process and export a station by itself; JSON, tables, page and PDF of the "
            "joined scan are complete without it",
        )
    raise InputError(
        "No DICOM series lies on the grid of the label map",
        expected=f"one file a slice, {labels.grid.describe()}",
        found="; ".join(grids) or "no series of a known contrast",
        action="name the folder of the slices that were measured",
    )


def _single_slices(stack: DicomSource) -> bool:
    return all(plane.tile is None for plane in stack.planes) and len(stack.files) == len(
        stack.planes
    )


def _completed(header: pydicom.Dataset) -> pydicom.Dataset:
    """A slice's header with the attributes that every object of a study must carry, even empty."""
    for keyword in _OF_PATIENT_AND_STUDY:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _segment(
    number: int, muscle: Muscle, side: Side, measures: Measures
) -> hd.seg.SegmentDescription:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    given = measures.engine.name == GIVEN
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment_label(muscle.title, side),
        segmented_property_category=sct("123037004", "Anatomical Structure"),
        segmented_property_type=code_of_muscle(muscle),
        algorithm_type="SEMIAUTOMATIC" if given else "AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=measures.engine.name,
            # How labels that came with the scan were made is not known here.
            family=own_code("given", "Labels made elsewhere or by hand")
            if given
            else codes.DCM.ArtificialIntelligence,
            version=measures.engine.version,
        ),
        tracking_id=segment_label(muscle.title, side),
        tracking_uid=uid_of(measures, segment_label(muscle.title, side)),
        display_color=hd.color.CIELabColor.from_rgb(
            *(int(muscle.colour[k : k + 2], 16) for k in (1, 3, 5))
        ),
    )
    described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
        laterality(side)
    ]
    return described
