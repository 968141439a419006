"""DICOM structured report (TID 1500): what the JSON says, its doubts beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from pipeline.core.anatomy import MUSCLES, Side, title_of
from pipeline.core.results import (
    Asymmetry,
    Compared,
    Measurement,
    Measures,
    MuscleResult,
    Status,
    on_side,
)
from pipeline.io.dicom_codes import (
    code_of_muscle,
    laterality,
    made_by,
    own_code,
    sct,
    segment_label,
    uid_of,
    unit_code,
)

if TYPE_CHECKING:
    import highdicom as hd

_ASYMMETRIES: Mapping[str, str] = {
    "lean_volume": "Asymmetry of lean volume, R - L of mean",
    "total_volume": "Asymmetry of total volume, R - L of mean",
}
_EXTENTS: Mapping[str, str] = {"whole": "Whole", "matched": "The part that both legs show"}


def make_structured_report(
    measures: Measures, segmentation: Dataset, slices: Sequence[Dataset]
) -> hd.sr.Comprehensive3DSR:
    """Volumes, fat fractions and asymmetries of every muscle and group, each with its status.

    One group of content for the scan as a whole (findings, what the intervals hold, what the
    sides rest on), then for every muscle, compartment and functional group one a side and one for
    each asymmetry (lean and total volume). As in the JSON, a missing number is left out and its
    reason stands there in words; an estimate and an unreliable value say so in a concept modifier,
    which readers must not drop; an asymmetry carries its 95 % interval, its extent, its verdict or
    the reason why there is none, and its caveats.

    Args:
        measures: the published results.
        segmentation: the segmentation of the same results, to which volumes of muscles refer.
        slices: headers of the slices that were measured.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segments = {
        segment.SegmentLabel: int(segment.SegmentNumber) for segment in segmentation.SegmentSequence
    }
    groups = [_about_the_scan(measures)]
    found: list[tuple[Compared, hd.sr.CodedConcept]] = [
        *zip(measures.measures.muscles, map(code_of_muscle, MUSCLES), strict=True),
        *(
            (group, own_code(group.name, title_of(group.name)))
            for group in measures.measures.groups
        ),
    ]
    for result, code in found:
        for side in Side:
            number = segments.get(segment_label(title_of(result.name), side))
            segment = None
            if number is not None and isinstance(result, MuscleResult):
                segment = hd.sr.ReferencedSegment(
                    sop_class_uid=segmentation.SOPClassUID,
                    sop_instance_uid=segmentation.SOPInstanceUID,
                    segment_number=number,
                    source_series=hd.sr.SourceSeriesForSegmentation(
                        str(slices[0].SeriesInstanceUID)
                    ),
                )
            groups.append(_one_side(measures, result, side, code, segment))
        groups += [
            _asymmetry(measures, result, asymmetry, code)
            for asymmetry in (result.asymmetry, result.asymmetry_total_volume)
        ]
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of(measures, "device"),
            name=measures.provenance.software,
            manufacturer_name=measures.provenance.software,
            model_name=measures.provenance.software_version,
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=sct("113091000", "Magnetic resonance imaging"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[*slices, segmentation],
        content=content[0],
        **made_by(measures, "sr"),
        is_complete=True,
    )


def _about_the_scan(measures: Measures) -> Any:
    """What holds for all numbers: how they were made, and every finding, the gravest first."""
    import highdicom as hd

    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(measures, "The scan"),
        finding_type=own_code("scan", "The scan as a whole"),
    )
    texts = [
        ("labels", "Who outlined the muscles", measures.engine.note),
        ("interval_basis", "What the 95 % intervals hold", measures.interval_basis),
        *(("side_evidence", "What the sides rest on", text) for text in measures.side_evidence),
    ]
    for severity in ("error", "warning", "info"):
        texts += [
            (f"finding_{severity}", f"Finding ({severity})", f"{finding.code}: {finding.message}")
            for finding in measures.findings
            if finding.severity == severity
        ]
    for value, meaning, text in texts:
        _say(group, own_code(value, meaning), text)
    return group


def _one_side(
    measures: Measures,
    result: Compared,
    side: Side,
    code: hd.sr.CodedConcept,
    segment: hd.sr.ReferencedSegment | None,
) -> Any:
    """Status and numbers of a muscle or group on one side."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    measured = on_side(result, side)
    common: dict[str, Any] = {
        "tracking_identifier": _tracking(measures, segment_label(title_of(result.name), side)),
        "finding_type": code,
        "finding_sites": [hd.sr.FindingSite(code, laterality=laterality(side))],
        "measurements": list(_numbers(measured)),
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(_status_name(), _status(measured.status))
        ],
    }
    group = (
        hd.sr.MeasurementsAndQualitativeEvaluations(**common)
        if segment is None
        else hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=segment, **common
        )
    )
    for text in (measured.reason, measured.lean_reason, measured.lean_estimate):
        if text is not None:
            _say(group, codes.DCM.Comment, text)
    return group


def _numbers(m: Measurement) -> Iterator[hd.sr.Measurement]:
    """Of the whole where it is whole, else of the part in view, which is named so."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    volumes: tuple[tuple[Any, float | None], tuple[Any, float | None]]
    if m.volume_whole_ml is not None:
        volumes = (
            (sct("118565006", "Volume"), m.volume_whole_ml),
            (own_code("lean_volume", "Lean volume"), m.lean_volume_whole_ml),
        )
    else:
        volumes = (
            (own_code("volume_in_view", "Volume of the part in view"), m.volume_in_view_ml),
            (
                own_code("lean_in_view", "Lean volume of the part in view"),
                m.lean_volume_in_view_ml,
            ),
        )
    estimate = codes.SCT.Estimated if m.lean_estimate is not None else None
    for name, value, unit, derivation in (
        (*volumes[0], "mL", None),
        (*volumes[1], "mL", estimate),
        (own_code("fat_fraction", "Fat fraction"), m.fat_fraction_percent, "%", estimate),
    ):
        if value is None:
            continue
        number = hd.sr.Measurement(
            name=name, value=value, unit=unit_code(unit), derivation=derivation
        )
        if m.why_doubted is not None:
            _modify(number, _status_name(), _status(Status.UNRELIABLE))
        yield number


def _asymmetry(
    measures: Measures,
    result: Compared,
    asymmetry: Asymmetry,
    code: hd.sr.CodedConcept,
) -> Any:
    """A difference of the sides with what it is of, its interval, verdict, reason and caveats."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    verdict = asymmetry.verdict
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(
            measures, f"{title_of(result.name)}, asymmetry of {asymmetry.of.replace('_', ' ')}"
        ),
        finding_type=code,
        measurements=list(_index(result, asymmetry)),
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(
                own_code("verdict", "What the difference means"),
                own_code("no_verdict", "no verdict")
                if verdict is None
                else own_code(verdict.name.lower(), verdict.value),
            )
        ],
    )
    if asymmetry.reason is not None:
        _say(group, codes.DCM.Comment, asymmetry.reason)
    for finding in measures.findings:
        if finding.code in asymmetry.caveats:
            _say(group, own_code("caveat", "What may fake such a difference"), finding.message)
    return group


def _index(result: Compared, asymmetry: Asymmetry) -> Iterator[Any]:
    """The index and the ends of its interval; nothing where there is none."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if asymmetry.index_percent is None or asymmetry.extent is None:
        return
    estimated = asymmetry.of == "lean_volume" and (
        result.right.lean_estimate or result.left.lean_estimate
    )
    number = hd.sr.Measurement(
        name=own_code(f"asymmetry_{asymmetry.of}", _ASYMMETRIES[asymmetry.of]),
        value=asymmetry.index_percent,
        unit=unit_code("%"),
        derivation=codes.SCT.Estimated if estimated else None,
    )
    _modify(
        number,
        own_code("extent", "Extent that is compared"),
        own_code(asymmetry.extent, _EXTENTS[asymmetry.extent]),
    )
    if result.right.why_doubted or result.left.why_doubted:
        _modify(number, _status_name(), _status(Status.UNRELIABLE))
    # highdicom's own properties state an uncertainty without its unit and its level.
    for value, meaning, end in (
        ("interval_low", "Lower end of the 95 % interval", asymmetry.interval_low_percent),
        ("interval_high", "Upper end of the 95 % interval", asymmetry.interval_high_percent),
    ):
        if end is not None:
            _below(number).append(
                hd.sr.NumContentItem(
                    name=own_code(value, meaning),
                    value=end,
                    unit=unit_code("%"),
                    relationship_type=hd.sr.RelationshipTypeValues.HAS_PROPERTIES,
                )
            )
    yield number


def _modify(number: hd.sr.Measurement, name: hd.sr.CodedConcept, value: hd.sr.CodedConcept) -> None:
    """Say what a number means in a concept modifier."""
    import highdicom as hd

    _below(number).append(
        hd.sr.CodeContentItem(
            name=name,
            value=value,
            relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )


def _below(number: hd.sr.Measurement) -> Any:
    """The content below a number, made where there is none yet."""
    import highdicom as hd

    item: Any = number[0]
    if "ContentSequence" not in item:
        item.ContentSequence = hd.sr.ContentSequence()
    return item.ContentSequence


def _say(group: Any, name: Any, text: str) -> None:
    """Words in a group of content: its template is extensible, highdicom takes codes only."""
    import highdicom as hd

    group[0].ContentSequence.append(
        hd.sr.TextContentItem(
            name=name, value=text, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
        )
    )


def _status_name() -> hd.sr.CodedConcept:
    return own_code("status", "Status")


def _status(status: Status) -> hd.sr.CodedConcept:
    return own_code(status.value, status.value)


def _tracking(measures: Measures, name: str) -> hd.sr.TrackingIdentifier:
    import highdicom as hd

    return hd.sr.TrackingIdentifier(uid=uid_of(measures, name), identifier=name)
