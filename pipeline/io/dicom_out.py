"""DICOM out: results as a segmentation, a structured report and an encapsulated PDF.

They join the study of the scan they were made from: patient, study and frame of reference are
taken from its slices, so they hold what identifies the patient, as every object of a study does.
Needs the extra "dicom" (highdicom).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian, generate_uid

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES, OWN_SCHEME, Muscle, Side
from pipeline.core.errors import InputError, UsageError
from pipeline.core.results import Measures, MuscleResult
from pipeline.core.volume import LabelMap
from pipeline.io.atomic import atomic_write
from pipeline.io.contrast import ContrastRules
from pipeline.io.derivatives import SubjectFolder
from pipeline.io.dicom import DicomSource, find_dicom, open_dicom
from pipeline.io.nifti import read_label_map

if TYPE_CHECKING:
    import highdicom as hd

#: Corners of the label map and of the slices it was made from agree to this, mm.
_SAME_PLACE_MM = 0.1
#: Codes that no public terminology has are this program's own, as DICOM asks: 99 and a name.
_OWN_CODES = "99MYOSYM"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LATERALITY = {Side.LEFT: ("7771000", "Left"), Side.RIGHT: ("24028007", "Right")}
_SERIES = {"seg": (9701, "muscles"), "sr": (9702, "muscle volumes"), "pdf": (9703, "report")}


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
        InputError: no series below the source lies on the grid of the label map.
    """
    _require_highdicom()
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
    affine = (_LPS_TO_RAS @ labels.grid.affine)[:, [2, 1, 0, 3]]
    volume = hd.Volume(
        array,
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=str(slices[0].FrameOfReferenceUID),
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
        **_made(measures, "seg"),
        device_serial_number=measures.provenance.code_digest[:16],
    )


def make_structured_report(
    measures: Measures, segmentation: Dataset, slices: Sequence[pydicom.Dataset]
) -> hd.sr.Comprehensive3DSR:
    """TID 1500: volumes and fat fraction of every segment, asymmetry of every muscle."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segments = {
        segment.SegmentLabel: int(segment.SegmentNumber) for segment in segmentation.SegmentSequence
    }
    groups: list[Any] = []
    for result, muscle in zip(measures.measures.muscles, MUSCLES, strict=True):
        for side in Side:
            number = segments.get(_label(muscle, side))
            found = _measurements(result, side)
            if number is None or not found:
                continue
            groups.append(
                hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    tracking_identifier=_tracking(measures, _label(muscle, side)),
                    referenced_segment=hd.sr.ReferencedSegment(
                        sop_class_uid=segmentation.SOPClassUID,
                        sop_instance_uid=segmentation.SOPInstanceUID,
                        segment_number=number,
                        source_series=hd.sr.SourceSeriesForSegmentation(
                            str(slices[0].SeriesInstanceUID)
                        ),
                    ),
                    finding_type=_code(muscle),
                    finding_sites=[hd.sr.FindingSite(_code(muscle), laterality=_side(side))],
                    measurements=found,
                )
            )
        index = result.asymmetry.index_percent
        if index is not None:
            groups.append(
                hd.sr.MeasurementsAndQualitativeEvaluations(
                    tracking_identifier=_tracking(measures, f"{muscle.title} asymmetry"),
                    finding_type=_code(muscle),
                    measurements=[
                        hd.sr.Measurement(
                            name=_own("asymmetry_index", "Asymmetry of lean volume, R - L of mean"),
                            value=index,
                            unit=_unit("%"),
                        )
                    ],
                )
            )
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=_uid(measures, "device"),
            name=measures.provenance.software,
            manufacturer_name=measures.provenance.software,
            model_name=measures.provenance.software_version,
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=_sct("113091000", "Magnetic resonance imaging"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[*slices, segmentation],
        content=content[0],
        **{k: v for k, v in _made(measures, "sr").items() if k in _SR_FIELDS},
        is_complete=True,
    )


def make_encapsulated_pdf(
    pdf: bytes, measures: Measures, one_slice: pydicom.Dataset
) -> FileDataset:
    """The report's PDF as an object of the study (Encapsulated PDF Storage)."""
    made = _made(measures, "pdf")
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
    data.ConceptNameCodeSequence = [_own("muscle_report", "Left and right leg muscles")]
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
_SR_FIELDS = frozenset(
    {
        "series_instance_uid",
        "series_number",
        "sop_instance_uid",
        "instance_number",
        "manufacturer",
        "series_description",
        "manufacturer_model_name",
        "software_versions",
    }
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
        if _single_slices(stack) and stack.grid.same_as(labels.grid, tolerance_mm=_SAME_PLACE_MM):
            headers = [pydicom.dcmread(plane.path) for plane in stack.planes]
            return [_completed(header) for header in headers]
        grids.append(stack.grid.describe())
    raise InputError(
        "No DICOM series lies on the grid of the label map",
        expected=f"one file a slice, {labels.grid.describe()}",
        found="; ".join(grids) or "no series of a known contrast",
        action="name the folder of the slices that were measured (joined stations have none)",
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


def _made(measures: Measures, kind: str) -> dict[str, Any]:
    number, description = _SERIES[kind]
    used = measures.provenance
    return {
        "series_instance_uid": _uid(measures, f"{kind} series"),
        "series_number": number,
        "series_description": f"{used.software}: {description}",
        "sop_instance_uid": _uid(measures, kind),
        "instance_number": 1,
        "manufacturer": used.software,
        "manufacturer_model_name": used.software,
        "software_versions": used.software_version,
    }


def _uid(measures: Measures, what: str) -> UID:
    """The same results give the same object: its identifier comes from their digests."""
    used = measures.provenance
    entropy = [what, measures.subject, str(measures.session), used.code_digest]
    return generate_uid(
        entropy_srcs=[*entropy, used.configuration_digest, *sorted(used.inputs.values())]
    )


def _label(muscle: Muscle, side: Side) -> str:
    return f"{muscle.title}, {side}"


def _segment(
    number: int, muscle: Muscle, side: Side, measures: Measures
) -> hd.seg.SegmentDescription:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    given = measures.engine.name == "given"
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_label(muscle, side),
        segmented_property_category=_sct("123037004", "Anatomical Structure"),
        segmented_property_type=_code(muscle),
        algorithm_type="SEMIAUTOMATIC" if given else "AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=measures.engine.name,
            family=codes.DCM.ArtificialIntelligence,
            version=measures.engine.version,
        ),
        tracking_id=_label(muscle, side),
        tracking_uid=_uid(measures, _label(muscle, side)),
        display_color=hd.color.CIELabColor.from_rgb(
            *(int(muscle.colour[k : k + 2], 16) for k in (1, 3, 5))
        ),
    )
    described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
        _side(side)
    ]
    return described


def _tracking(measures: Measures, name: str) -> hd.sr.TrackingIdentifier:
    import highdicom as hd

    return hd.sr.TrackingIdentifier(uid=_uid(measures, name), identifier=name)


def _measurements(result: MuscleResult, side: Side) -> list[hd.sr.Measurement]:
    """Of the whole muscle where it is whole, else of the part in view, which is named so."""
    import highdicom as hd

    m = result.right if side is Side.RIGHT else result.left
    if m.volume_whole_ml is not None:
        wanted = [
            (_sct("118565006", "Volume"), m.volume_whole_ml, _unit("mL")),
            (_own("lean_volume", "Lean volume"), m.lean_volume_whole_ml, _unit("mL")),
        ]
    else:
        wanted = [
            (
                _own("volume_in_view", "Volume of the part in view"),
                m.volume_in_view_ml,
                _unit("mL"),
            ),
            (
                _own("lean_in_view", "Lean volume of the part in view"),
                m.lean_volume_in_view_ml,
                _unit("mL"),
            ),
        ]
    wanted.append((_own("fat_fraction", "Fat fraction"), m.fat_fraction_percent, _unit("%")))
    return [
        hd.sr.Measurement(name=name, value=value, unit=unit)
        for name, value, unit in wanted
        if value is not None
    ]


def _code(muscle: Muscle) -> hd.sr.CodedConcept:
    """SNOMED CT where there is a code, else FMA, else MDC, else this program's own."""
    import highdicom as hd

    for value, scheme in (
        (muscle.codes.snomed_ct, "SCT"),
        (muscle.codes.fma, "FMA"),
        (muscle.codes.mdc, "MDC"),
    ):
        if value is not None:
            return hd.sr.CodedConcept(value=value, scheme_designator=scheme, meaning=muscle.title)
    return _own(muscle.name, muscle.title)


def _side(side: Side) -> hd.sr.CodedConcept:
    return _sct(*_LATERALITY[side])


def _sct(value: str, meaning: str) -> hd.sr.CodedConcept:
    import highdicom as hd

    return hd.sr.CodedConcept(value=value, scheme_designator="SCT", meaning=meaning)


def _unit(ucum: str) -> hd.sr.CodedConcept:
    import highdicom as hd

    return hd.sr.CodedConcept(value=ucum, scheme_designator="UCUM", meaning=ucum)


def _own(value: str, meaning: str) -> hd.sr.CodedConcept:
    import highdicom as hd

    # Code values are at most 16 characters long.
    return hd.sr.CodedConcept(value=value[:16], scheme_designator=_OWN_CODES, meaning=meaning)
