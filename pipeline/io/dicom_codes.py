"""What the DICOM objects of a result share: coded terms, identifiers and who made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.uid import UID, generate_uid

from pipeline.core.anatomy import Muscle, Side
from pipeline.core.results import Measures

if TYPE_CHECKING:
    import highdicom as hd

#: Codes that no public terminology has are this program's own, as DICOM asks: 99 and a name.
_OWN_CODES = "99MYOSYM"
_LATERALITY = {Side.LEFT: ("7771000", "Left"), Side.RIGHT: ("24028007", "Right")}
_SERIES = {"seg": (9701, "muscles"), "sr": (9702, "muscle volumes"), "pdf": (9703, "report")}


def made_by(measures: Measures, kind: str, *, content: str = "") -> dict[str, Any]:
    """Series, identifier and maker of an object, as highdicom takes them.

    Args:
        measures: the results.
        kind: seg, sr or pdf.
        content: digest of what the results alone do not settle, as the layout of a report.
    """
    number, description = _SERIES[kind]
    used = measures.provenance
    return {
        "series_instance_uid": uid_of(measures, f"{kind} series"),
        "series_number": number,
        "series_description": f"{used.software}: {description}",
        "sop_instance_uid": uid_of(measures, f"{kind} {content}".strip()),
        "instance_number": 1,
        "manufacturer": used.software,
        "manufacturer_model_name": used.software,
        "software_versions": used.software_version,
    }


def uid_of(measures: Measures, what: str) -> UID:
    """The same results give the same object: its identifier comes from their digests."""
    used = measures.provenance
    entropy = [what, measures.subject, str(measures.session), used.code_digest]
    return generate_uid(
        entropy_srcs=[*entropy, used.configuration_digest, *sorted(used.inputs.values())]
    )


def segment_label(title: str, side: Side) -> str:
    """Name of a muscle or group on one side; a segment's label and what is tracked."""
    return f"{title}, {side}"


def code_of_muscle(muscle: Muscle) -> hd.sr.CodedConcept:
    """SNOMED CT where there is a code, else FMA, else MDC, else this program's own."""
    import highdicom as hd

    for value, scheme in (
        (muscle.codes.snomed_ct, "SCT"),
        (muscle.codes.fma, "FMA"),
        (muscle.codes.mdc, "MDC"),
    ):
        if value is not None:
            return hd.sr.CodedConcept(value=value, scheme_designator=scheme, meaning=muscle.title)
    return own_code(muscle.name, muscle.title)


def laterality(side: Side) -> hd.sr.CodedConcept:
    """The code of a side (SNOMED CT)."""
    return sct(*_LATERALITY[side])


def sct(value: str, meaning: str) -> hd.sr.CodedConcept:
    """A term of SNOMED CT."""
    import highdicom as hd

    return hd.sr.CodedConcept(value=value, scheme_designator="SCT", meaning=meaning)


def unit_code(ucum: str) -> hd.sr.CodedConcept:
    """A unit of UCUM."""
    import highdicom as hd

    return hd.sr.CodedConcept(value=ucum, scheme_designator="UCUM", meaning=ucum)


def own_code(value: str, meaning: str) -> hd.sr.CodedConcept:
    """A term of this program's own."""
    import highdicom as hd

    return hd.sr.CodedConcept(value=value, scheme_designator=_OWN_CODES, meaning=meaning)
