"""Headers of DICOM files, and the slices they speak of: one, frames, or tiles of a mosaic.

Nothing here reads a pixel.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.misc
from pydicom.errors import BytesLengthException, InvalidDicomError

from pipeline.config import DistortionMark
from pipeline.core.errors import InputError
from pipeline.core.scan import ScanSettings
from pipeline.io.contrast import ImageFacts, number
from pipeline.io.digest import text_digest
from pipeline.io.settings import mark_tags, private_tags, settings_of_header

with warnings.catch_warnings():
    # nibabel calls its DICOM readers experimental; of them only the private header is used.
    warnings.simplefilter("ignore", UserWarning)
    from nibabel.nicom import csareader

_MOSAIC_COUNT = pydicom.tag.Tag(0x0019, 0x100A)
#: What is alike in all images of one examination of one person, as far as it is stated.
EXAMINATION_TRAITS = (
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "StudyTime",
    "SeriesDate",
    "AcquisitionDate",
    "AccessionNumber",
    "StudyID",
    "InstitutionName",
    "StationName",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "MagneticFieldStrength",
)
_TAGS: tuple[Any, ...] = (
    *EXAMINATION_TRAITS,
    "AcquisitionTime",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "SeriesDescription",
    "SeriesNumber",
    "AcquisitionNumber",
    "ProtocolName",
    "ImageType",
    "Modality",
    "EchoTime",
    "ScanningSequence",
    "EchoPulseSequence",
    "SteadyStatePulseSequence",
    "RepetitionTime",
    "FlipAngle",
    "PixelBandwidth",
    "InPlanePhaseEncodingDirection",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "BitsAllocated",
    "RescaleSlope",
    "RescaleIntercept",
    "PatientOrientation",
    "PatientPosition",
    "Laterality",
    "ImageLaterality",
    "BurnedInAnnotation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    # Where Siemens says how many slices a mosaic holds and which way they follow.
    0x00190010,
    int(_MOSAIC_COUNT),
    0x00290010,
    0x00290011,
    0x00291010,
    0x00291110,
)
#: Where Philips says by how much an image was scaled to be stored: creator, group, element.
_SCALE_SLOPE = ("Philips MR Imaging DD 001", 0x2005, 0x0E)
#: What pydicom ends in where a file is damaged or of a kind that it does not know.
UNREADABLE = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    struct.error,
    zlib.error,
)
#: Terms of the standard for sides. They are shown, so nothing else that stands there is read.
_DIRECTION = re.compile("[LRPAHF]{1,3}")
_POSITION = re.compile("[HF]F(S|P|D[LR])|[LR]F[SP]|[AP]FD[LR]")
_LATERALITY = re.compile("[LRBU]")
#: What places a slice.
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
#: The deflated transfer syntax, where files name theirs, and how far one may grow.
_DEFLATED = str(pydicom.uid.DeflatedExplicitVRLittleEndian).encode()
_META_BYTES = 2048
_LARGEST_INFLATED_BYTES = 2**28
_PYDICOM_LOG = logging.getLogger("pydicom")


@dataclass(frozen=True)
class SideTags:
    """What a header says of sides besides the orientation of the image.

    Attributes:
        directions: letters of PatientOrientation, e.g. ("L", "P"): where columns and rows run.
        position: PatientPosition, e.g. "HFS"; "" not stated.
        laterality: "R", "L", "B" (both) or "".
    """

    directions: tuple[str, ...]
    position: str
    laterality: str

    @classmethod
    def of(cls, header: pydicom.Dataset) -> SideTags:
        """The tags of a file."""
        directions = header.get("PatientOrientation") or ()
        laterality = header.get("ImageLaterality") or header.get("Laterality")
        letters = tuple(_term(part, _DIRECTION) for part in directions)
        return cls(
            letters if any(letters) else (),
            _term(header.get("PatientPosition"), _POSITION),
            _term(laterality, _LATERALITY),
        )


def _term(value: object, known: re.Pattern[str]) -> str:
    """A value of a header where it is one of the terms of the standard, else ""."""
    text = str(value or "").strip().upper()
    return text if known.fullmatch(text) else ""


@dataclass(frozen=True)
class Origin:
    """Whose image a file holds, from which examination and in whose coordinates: digests, to be
    compared in memory and passed on to nothing; "" not stated.

    Attributes:
        person, examination, coordinates, series: which.
        traits: by EXAMINATION_TRAITS.
        acquired_s: time of the day; None: not stated.
    """

    person: str
    examination: str
    coordinates: str
    series: str
    traits: tuple[str, ...]
    acquired_s: float | None

    @classmethod
    def of(cls, header: pydicom.Dataset) -> Origin:
        """The origin of a file."""

        def digest(keyword: str) -> str:
            text = str(header.get(keyword) or "").strip()
            return text_digest(text) if text else ""

        return cls(
            digest("PatientID"),
            digest("StudyInstanceUID"),
            digest("FrameOfReferenceUID"),
            digest("SeriesInstanceUID"),
            tuple(map(digest, EXAMINATION_TRAITS)),
            _seconds(header.get("AcquisitionTime")),
        )


def _seconds(time: object) -> float | None:
    """Seconds since midnight of a time as DICOM writes it (HHMMSS.FFFFFF)."""
    found = re.match(r"(\d{2})(\d{2})(\d{2})", str(time or ""))
    return None if found is None else 3600.0 * int(found[1]) + 60.0 * int(found[2]) + int(found[3])


@dataclass(frozen=True)
class Plane:
    """One slice: where its pixels are, where it lies, and what else tells slices apart.

    Attributes:
        path: its file.
        frame: its number in a file of several frames, else 0.
        tile: corner (column, row) of its part of a mosaic, else None.
        size: columns and rows.
        place: position, orientation and pixel spacing, as DICOM states them.
        acquisition: number of the acquisition or name of the stack; "" unknown.
        facts: what its header says of its contrast.
        scaled: whether its header scales its values.
        scale: slope and intercept of a frame; None: its file has one for all, which the decoder
            applies.
        floating: what turns its values into Philips' floating point values, which are on one scale
            in all images of a scan: 1 / (rescale slope x scale slope); None: not stated.
        gain: what its values are multiplied by after they are scaled.
        origin: of its file; None where it was not asked.
        tags: what its header says of sides; None where it was not asked.
        least_bytes: smallest size of its file; 0 where its pixels may be compressed.
        settings: how it was acquired.
    """

    path: Path
    frame: int
    tile: tuple[int, int] | None
    size: tuple[int, int]
    place: pydicom.Dataset
    acquisition: str
    facts: ImageFacts
    scaled: bool = False
    scale: tuple[float, float] | None = None
    floating: float | None = None
    gain: float = 1.0
    origin: Origin | None = None
    tags: SideTags | None = None
    least_bytes: int = 0
    settings: ScanSettings = field(default_factory=ScanSettings)


def is_dicom(path: Path) -> bool:
    """Whether a file calls itself DICOM; a link that leads nowhere does not."""
    try:
        return pydicom.misc.is_dicom(path)
    except OSError:
        return False


def read_header(path: Path, marks: Sequence[DistortionMark] = ()) -> pydicom.Dataset | None:
    """The header of a DICOM image; None for anything else."""
    try:
        if _inflates_too_far(path):
            return None
        tags = [*_TAGS, *mark_tags(marks), *private_tags(*_SCALE_SLOPE[1:])]
        with unheard():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            # Values are decoded when first asked for, and numbers once more where they are passed
            # on: a damaged one is found here.
            for element in header:
                if element.tag.is_private:
                    continue
                _ = element.value
            _place(header)
    except UNREADABLE:
        return None
    stated = [header.get(keyword) for keyword in ("Rows", "Columns", "SOPClassUID")]
    return header if all(stated) else None


@contextmanager
def unheard() -> Iterator[None]:
    """Without what pydicom warns of: its words hold values of headers and names of files."""
    was = _PYDICOM_LOG.disabled
    _PYDICOM_LOG.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _PYDICOM_LOG.disabled = was


def _inflates_too_far(path: Path) -> bool:
    """Whether a file in the deflated transfer syntax grows beyond what an image can be: pydicom
    inflates it whole before it looks at anything.

    Raises:
        zlib.error: what follows the file meta information is nothing deflated.
    """
    with path.open("rb") as stream:
        head = stream.read(_META_BYTES)
        if _DEFLATED not in head:
            return False
        # Preamble, "DICM", and the element that says how long the meta information is.
        stream.seek(144 + int.from_bytes(head[140:144], "little"))
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflater.decompress(stream.read(), _LARGEST_INFLATED_BYTES)
        return bool(inflater.unconsumed_tail)


def planes_of(
    path: Path, header: pydicom.Dataset, marks: Sequence[DistortionMark] = ()
) -> list[Plane]:
    """The slices of a file: one, the frames of an enhanced file, or the tiles of a mosaic.

    Raises:
        InputError: a damaged header; frames or tiles without what they need.
    """
    try:
        # Values inside of sequences are decoded here only.
        with unheard():
            origin = Origin.of(header)
            return [replace(plane, origin=origin) for plane in _planes(path, header, marks)]
    except UNREADABLE as error:
        raise InputError(
            "A DICOM header is damaged",
            expected="values of the type that DICOM gives them",
            found="one that cannot be read",
            action="export the series again",
        ) from error


def _planes(path: Path, header: pydicom.Dataset, marks: Sequence[DistortionMark]) -> list[Plane]:
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    size = (int(header.Columns), int(header.Rows))
    if frames:
        return _frames(path, header, size, marks)
    if "MOSAIC" in [str(part).upper() for part in header.get("ImageType") or ()]:
        return _tiles(path, header, size, marks)
    facts = ImageFacts.of(header)
    plane = Plane(
        path,
        frame=0,
        tile=None,
        size=size,
        place=_place(header),
        acquisition=str(header.get("AcquisitionNumber") or ""),
        facts=facts,
        scaled="RescaleSlope" in header,
        floating=_floating([header], number(header.get("RescaleSlope", 1))),
        tags=SideTags.of(header),
        least_bytes=least_bytes(header),
        settings=settings_of_header(header, None, facts.image_type, marks=marks),
    )
    return [plane]


def transfer_syntax(header: pydicom.Dataset) -> pydicom.uid.UID | None:
    """How a file's values are written down; None where none is stated."""
    meta = getattr(header, "file_meta", pydicom.Dataset())
    stated = meta.get("TransferSyntaxUID")
    with unheard():
        return None if stated is None else pydicom.uid.UID(str(stated))


def least_bytes(header: pydicom.Dataset) -> int:
    """Bytes that the pixels of an uncompressed file take; 0 where they may take fewer."""
    syntax = transfer_syntax(header)
    if syntax is None or syntax.is_compressed:
        return 0
    voxels = int(header.Rows) * int(header.Columns) * max(1, int(header.get("NumberOfFrames") or 1))
    return voxels * int(header.get("BitsAllocated") or 0) // 8


def _place(*stated: pydicom.Dataset) -> pydicom.Dataset:
    place = pydicom.Dataset()
    for values in stated:
        for keyword in _PLACE:
            if keyword in values:
                setattr(place, keyword, values.get(keyword))
    return place


def _frames(
    path: Path,
    header: pydicom.Dataset,
    size: tuple[int, int],
    marks: Sequence[DistortionMark],
) -> list[Plane]:
    """Frames of one enhanced file: what each shows, where, and how its values are scaled stands in
    its functional groups.

    Raises:
        InputError: a frame whose values are all scaled to one.
    """
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    least = least_bytes(header)
    planes = []
    for place, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        merged, private = pydicom.Dataset(), []
        for groups in (shared, frame):
            for element in groups:
                if element.VR != "SQ" or not element.value:
                    continue
                if element.tag.is_private:
                    private.append(element.value[0])
                else:
                    merged.update(element.value[0])
        facts = ImageFacts.of(header, merged)
        settings = settings_of_header(
            header, merged, facts.image_type, private=private, marks=marks
        )
        # Where no group says how a frame is scaled, the file may.
        scaling = merged if "RescaleSlope" in merged else header
        scale = _scale(scaling)
        planes.append(
            Plane(
                path,
                frame=place,
                tile=None,
                size=size,
                place=_place(merged),
                acquisition=str(merged.get("StackID") or ""),
                facts=facts,
                scaled="RescaleSlope" in scaling,
                scale=scale,
                floating=_floating([*reversed(private), header], scale[0]),
                least_bytes=least,
                settings=settings,
            )
        )
    return planes


def _scale(stated: pydicom.Dataset) -> tuple[float, float]:
    """Slope and intercept of a frame; 1 and 0 where none are stated.

    Raises:
        InputError: a slope of 0, or what is no number.
    """
    slope = number(stated.get("RescaleSlope", 1))
    intercept = number(stated.get("RescaleIntercept", 0))
    if not slope or intercept is None:
        raise InputError(
            "The values of a DICOM frame are all scaled to one (RescaleSlope 0) or by no number",
            expected="a RescaleSlope other than 0 and a RescaleIntercept",
            found=f"slope {slope}, intercept {intercept}",
            action="export the series again",
        )
    return slope, intercept


def _floating(stated: Sequence[pydicom.Dataset], rescale_slope: float | None) -> float | None:
    """See Plane.floating; by the first data set that states a scale slope."""
    creator, group, element = _SCALE_SLOPE
    for dataset in stated:
        try:
            slope = number(dataset.private_block(group, creator)[element].value)
        # Private elements are nobody's standard: what cannot be read says nothing.
        except UNREADABLE:
            continue
        if slope and slope > 0 and rescale_slope:
            return 1.0 / (rescale_slope * slope)
    return None


def _tiles(
    path: Path,
    header: pydicom.Dataset,
    size: tuple[int, int],
    marks: Sequence[DistortionMark],
) -> list[Plane]:
    """Slices of a Siemens mosaic; their order stands in its private header only."""
    try:
        csa = csareader.get_csa_header(header) or {}  # type: ignore[no-untyped-call]
    except csareader.CSAError:
        csa = {}
    stated = csareader.get_n_mosaic(csa)  # type: ignore[no-untyped-call]
    count = _mosaic_count(header) or stated or 0
    normal = csareader.get_slice_normal(csa) if csa else None  # type: ignore[no-untyped-call]
    step = float(header.get("SpacingBetweenSlices") or 0.0)
    located = len(_place(header)) == len(_PLACE)
    if count < 1 or normal is None or step <= 0 or not located:
        raise InputError(
            "A DICOM mosaic does not say how its slices lie",
            expected="their number, their distance and the vendor's private header",
            found=f"{count or 'no'} slices, {step:g} mm apart, "
            f"private header {'there' if csa else 'missing'}",
            action="export it again with private fields, or convert it to NIfTI",
        )
    across = isqrt(count - 1) + 1
    columns, rows = size[0] // across, size[1] // across
    spacing = np.array(header.PixelSpacing, dtype=np.float64)
    orientation = np.array(header.ImageOrientationPatient, dtype=np.float64)
    # The stated position is that of the corner of the whole mosaic around the first slice.
    first = (
        np.array(header.ImagePositionPatient, dtype=np.float64)
        + orientation[:3] * spacing[1] * (size[0] - columns) / 2
        + orientation[3:] * spacing[0] * (size[1] - rows) / 2
    )
    planes = []
    for k in range(count):
        place = _place(header)
        position = first + k * step * np.asarray(normal, dtype=np.float64)
        place.ImagePositionPatient = [f"{value:.8g}" for value in position]
        tile = (k % across * columns, k // across * rows)
        facts = ImageFacts.of(header)
        settings = settings_of_header(header, None, facts.image_type, marks=marks)
        planes.append(
            Plane(
                path,
                frame=0,
                tile=tile,
                size=(columns, rows),
                place=place,
                acquisition="",
                facts=facts,
                settings=settings,
            )
        )
    return planes


def _mosaic_count(header: pydicom.Dataset) -> int | None:
    if _MOSAIC_COUNT not in header:
        return None
    value = header[_MOSAIC_COUNT].value
    # Without a dictionary of private fields the number comes as its two bytes.
    return int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
