"""DICOM in: one stack of slices per contrast and station. pydicom reads headers, GDCM
(SimpleITK) decodes pixels.

No message names a person: series are called by the number that the scanner gave them, never by
their description, and files by their place in the series.
"""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.misc
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from pipeline.config import DistortionMark
from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE, Index3, ScanSettings
from pipeline.core.volume import Quantity
from pipeline.io.contrast import (
    ContrastRules,
    ImageFacts,
    contrast_of,
    no_image_reason,
)
from pipeline.io.contrast import number as number_in
from pipeline.io.settings import agreed, mark_tags, settings_of_header

with warnings.catch_warnings():
    # nibabel calls its DICOM readers experimental; of them only the private header is used.
    warnings.simplefilter("ignore", UserWarning)
    from nibabel.nicom import csareader

_MOSAIC_COUNT = pydicom.tag.Tag(0x0019, 0x100A)
_TAGS: tuple[Any, ...] = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "AcquisitionNumber",
    "ProtocolName",
    "Manufacturer",
    "ImageType",
    "Modality",
    "EchoTime",
    "MagneticFieldStrength",
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
#: What places a slice.
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
#: Slices may be this uneven, as a share of their distance, before they are no stack.
_UNEVEN_SHARE = 0.01
#: ... and this uneven whatever their distance, mm: headers state positions to some digits only.
_UNEVEN_MM = 0.01
#: Slices of one stack agree in pixel spacing and direction cosines to this.
_SAME_SPACING_MM = 1e-4
_SAME_COSINE = 1e-3
#: Larger pixels are no image of a leg.
_LARGEST_PIXEL_MM = 100.0
#: A stack whose slices shift sideways by more than this share of their distance is sheared.
_SHEAR_SHARE = 0.02
#: Fewer slices are no volume: whether they are evenly spaced cannot even be asked.
_FEWEST_SLICES = 3
#: Echo times further apart than this belong to two echoes, ms.
_SAME_ECHO_MS = 0.05
#: The deflated transfer syntax, where files name theirs, and how far one may grow.
_DEFLATED = str(pydicom.uid.DeflatedExplicitVRLittleEndian).encode()
_META_BYTES = 2048
_LARGEST_INFLATED_BYTES = 2**28
#: Axis and sign of the letters of PatientOrientation in DICOM's left-posterior-head world.
_TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "H": (2, 1), "F": (2, -1)}
#: A cosine this far on the other side contradicts a letter whatever the obliquity.
_SURELY_AGAINST = 0.5
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
        laterality = header.get("ImageLaterality") or header.get("Laterality") or ""
        return cls(
            tuple(str(part).strip().upper() for part in directions),
            str(header.get("PatientPosition") or "").strip().upper(),
            str(laterality).strip().upper(),
        )


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
    tags: SideTags | None = None
    least_bytes: int = 0
    settings: ScanSettings = field(default_factory=ScanSettings)


@dataclass(frozen=True)
class DicomSeries:
    """Slices of one series that show one contrast.

    Attributes:
        name: of the series in messages, from its SeriesNumber.
        told_by: what says that it shows this contrast.
    """

    quantity: Quantity
    planes: tuple[Plane, ...]
    name: str = "Series"
    told_by: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, each once."""
        return tuple(dict.fromkeys(plane.path for plane in self.planes))


@dataclass(frozen=True)
class LeftOut:
    """Files of one series, or of none, that are not used, and why."""

    name: str
    files: int
    reason: str


@dataclass(frozen=True, eq=False)
class DicomSource:
    """An ImageSource over slices in the order of their positions."""

    planes: tuple[Plane, ...]
    grid: Grid

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, each once, in the order of their slices."""
        return tuple(dict.fromkeys(plane.path for plane in self.planes))

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """See ImageSource.read.

        Raises:
            InputError: a file that cannot be decoded, or holds less than its header says.
        """
        wanted = self.planes[lower[2] : upper[2] : step]
        numbers = {path: k + 1 for k, path in enumerate(self.files)}
        shape = [len(range(a, b, step)) for a, b in zip(lower[:2], upper[:2], strict=True)]
        out = np.empty((*shape, len(wanted)), dtype=np.float32)
        decoded: tuple[Path, NDArray[Any]] | None = None
        for k, plane in enumerate(wanted):
            # A file of several frames holds its slices next to each other: decoded once.
            if decoded is None or decoded[0] != plane.path:
                decoded = plane.path, _decode(plane.path, numbers[plane.path])
            out[:, :, k] = _part(plane, decoded[1], numbers[plane.path])[
                lower[0] : upper[0] : step, lower[1] : upper[1] : step
            ]
        return out


def _part(plane: Plane, pixels: NDArray[Any], number: int) -> NDArray[Any]:
    """The slice of a plane in the pixels of its file, axes x and y."""
    (x, y), (columns, rows) = plane.tile or (0, 0), plane.size
    part = pixels if plane.tile is None else pixels[x : x + columns, y : y + rows]
    if part.shape[:2] != plane.size or plane.frame >= pixels.shape[2]:
        raise _not_as_stated(number, (columns, rows, plane.frame + 1), pixels.shape)
    return part[:, :, plane.frame]


def _not_as_stated(number: int, stated: Index3, found: tuple[int, ...]) -> InputError:
    return InputError(
        f"DICOM file {number} of a series does not hold what its header says",
        expected=" x ".join(map(str, stated)),
        found=" x ".join(map(str, found)),
        action="export the series again",
    )


def find_dicom(
    files: Sequence[Path], rules: ContrastRules, marks: Sequence[DistortionMark] = ()
) -> tuple[list[DicomSeries], list[LeftOut]]:
    """The series of a folder that show a known contrast, and what is left out and why.

    A series that shows several contrasts, or several echoes of one, gives one entry for each.

    Args:
        files: all that may be DICOM.
        rules: what images show.
        marks: private elements that say whether distortion was corrected.
    """
    numbers: dict[str, int | None] = {}
    groups: dict[tuple[str, Quantity], list[Plane]] = {}
    told_by: dict[tuple[str, Quantity], str] = {}
    left: Counter[tuple[str | None, str]] = Counter()
    seen: set[str] = set()
    for path in files:
        header = read_header(path, marks)
        if header is None:
            left[None, "no DICOM image"] += 1
            continue
        series = str(header.get("SeriesInstanceUID") or "")
        stated = number_in(header.get("SeriesNumber"))
        numbers.setdefault(series, None if stated is None else round(stated))
        reason = _unusable(header)
        uid = str(header.get("SOPInstanceUID") or "")
        if reason is None and uid and uid in seen:
            reason = "the same image is there twice"
        if reason is not None:
            left[series, reason] += 1
            continue
        seen.add(uid)
        kept = False
        reason = "its contrast is not known"
        try:
            planes = planes_of(path, header, marks)
        except InputError as error:
            left[series, error.problem] += 1
            continue
        for plane in planes:
            refused = no_image_reason(plane.facts)
            contrast = None if refused else contrast_of(plane.facts, rules)
            if contrast is None:
                reason = refused or reason
                continue
            key = (series, contrast.shows)
            groups.setdefault(key, []).append(plane)
            told_by.setdefault(key, contrast.told_by)
            kept = True
        if not kept:
            left[series, reason] += 1
    names = _series_names(numbers)
    found = [
        part
        for (series, quantity), planes in groups.items()
        for part in _stations(
            DicomSeries(quantity, tuple(planes), names[series], told_by[series, quantity])
        )
    ]
    return found, [
        LeftOut("Files of no series" if series is None else names[series], count, reason)
        for (series, reason), count in left.items()
    ]


def _series_names(numbers: Mapping[str, int | None]) -> dict[str, str]:
    """What each series is called, by its identifier: its number, with its place among those found
    where the number is missing or another series bears it too."""
    often = Counter(numbers.values())
    names = {}
    for place, (series, stated) in enumerate(numbers.items(), start=1):
        names[series] = "Series without a number" if stated is None else f"Series {stated}"
        if stated is None or often[stated] > 1:
            names[series] += f" (place {place} of {len(numbers)} in the order found)"
    return names


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
        tags = [*_TAGS, *mark_tags(marks)]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        # Values are decoded when first asked for, and numbers once more where they are passed on:
        # a damaged one is found here.
        for element in header:
            if element.tag.is_private:
                continue
            _ = element.value
        _place(header)
    except (
        InvalidDicomError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        RecursionError,
        zlib.error,
    ):
        return None
    stated = [header.get(keyword) for keyword in ("Rows", "Columns", "SOPClassUID")]
    return header if all(stated) else None


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


def _unusable(header: pydicom.Dataset) -> str | None:
    """Why a file is no slice of an MR image; None where it is one."""
    if "Secondary Capture" in pydicom.uid.UID(str(header.SOPClassUID)).name:
        return "a screen shot (secondary capture)"
    if str(header.get("BurnedInAnnotation") or "").upper() == "YES":
        return "text is burned into its pixels"
    if header.get("Modality") != "MR":
        return "no MR image"
    if header.get("RescaleSlope") == 0:
        return "its values are all scaled to one (RescaleSlope 0)"
    return None if header.get("SeriesInstanceUID") else "it names no series"


def planes_of(
    path: Path, header: pydicom.Dataset, marks: Sequence[DistortionMark] = ()
) -> list[Plane]:
    """The slices of a file: one, the frames of an enhanced file, or the tiles of a mosaic."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    size = (int(header.Columns), int(header.Rows))
    if frames:
        return _frames(path, header, size, marks)
    if "MOSAIC" in [str(part).upper() for part in header.get("ImageType") or ()]:
        return _tiles(path, header, size, marks)
    acquisition = str(header.get("AcquisitionNumber") or "")
    facts = ImageFacts.of(header)
    scaled = "RescaleSlope" in header
    plane = Plane(
        path,
        0,
        None,
        size,
        _place(header),
        acquisition,
        facts,
        scaled,
        SideTags.of(header),
        _least_bytes(header),
        settings_of_header(header, None, facts.image_type, marks=marks),
    )
    return [plane]


def _least_bytes(header: pydicom.Dataset) -> int:
    """Bytes that the pixels of an uncompressed file take; 0 where they may take fewer."""
    meta = getattr(header, "file_meta", pydicom.Dataset())
    syntax = meta.get("TransferSyntaxUID")
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
    """Frames of one enhanced file: what each shows and where stands in its functional groups."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    planes = []
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        merged, private = pydicom.Dataset(), []
        for groups in (shared, frame):
            for element in groups:
                if element.VR != "SQ" or not element.value:
                    continue
                if element.tag.is_private:
                    private.append(element.value[0])
                else:
                    merged.update(element.value[0])
        acquisition = str(merged.get("StackID") or "")
        facts = ImageFacts.of(header, merged)
        settings = settings_of_header(
            header, merged, facts.image_type, private=private, marks=marks
        )
        place = _place(merged)
        planes.append(Plane(path, number, None, size, place, acquisition, facts, settings=settings))
    return planes


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
        planes.append(Plane(path, 0, tile, (columns, rows), place, "", facts, settings=settings))
    return planes


def _mosaic_count(header: pydicom.Dataset) -> int | None:
    if _MOSAIC_COUNT not in header:
        return None
    value = header[_MOSAIC_COUNT].value
    # Without a dictionary of private fields the number comes as its two bytes.
    return int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)


def _stations(series: DicomSeries) -> list[DicomSeries]:
    """The parts of a series that each are one stack: its stations or acquisitions.

    Only where slices stand in each other's way or apart is a series divided at all.
    """
    if len(series.planes) < 2 * _FEWEST_SLICES or _is_stack(series):
        return [series]
    parts: dict[tuple[str, int], list[Plane]] = {}
    for plane in series.planes:
        echo = round((plane.facts.echo_ms or 0.0) / _SAME_ECHO_MS)
        parts.setdefault((plane.acquisition, echo), []).append(plane)
    divided = [replace(series, planes=tuple(part)) for part in parts.values()]
    return divided if all(_is_stack(part) for part in divided) else [series]


def _is_stack(series: DicomSeries) -> bool:
    try:
        _stack(series)
    except InputError:
        return False
    return True


def open_dicom(series: DicomSeries, *, largest_image_million_voxels: float) -> DicomSource:
    """Put the slices of a series in order and find where they lie.

    Raises:
        InputError: a file that holds less than its header says; slices that differ in size or
            orientation, are missing, doubled or unevenly spaced, too few, or do not say where they
            lie.
    """
    source = _stack(series)
    if np.prod(np.array(source.grid.shape, dtype=float)) > largest_image_million_voxels * 1e6:
        raise InputError(
            f"The DICOM {series.quantity} series declares a size that cannot be right",
            expected=f"at most {largest_image_million_voxels:g} million voxels",
            found=source.grid.describe(),
        )
    # Before anything is decoded: the decoder fills up what a file lacks.
    for number, plane in enumerate(source.planes, start=1):
        if plane.least_bytes == 0:
            continue
        size = plane.path.stat().st_size
        if size < plane.least_bytes:
            raise InputError(
                f"DICOM file {number} of a series does not hold what its header says",
                expected=f"at least {plane.least_bytes} bytes of pixels",
                found=f"a file of {size} bytes",
                action="export the series again",
            )
    return source


def side_tags(series: DicomSeries) -> SideTags:
    """What a series says of sides: of each tag the one value stated, or several joined by "/"."""
    stated = [plane.tags for plane in series.planes if plane.tags is not None]

    def joined(name: str) -> str:
        return "/".join(sorted({getattr(tags, name) for tags in stated} - {""}))

    directions = {tags.directions for tags in stated}
    return SideTags(
        next(iter(directions)) if len(directions) == 1 else (),
        joined("position"),
        joined("laterality"),
    )


def series_settings(series: DicomSeries) -> ScanSettings:
    """How a series was acquired; what differs between its slices is not stated."""
    return agreed([plane.settings for plane in series.planes])


def _stack(series: DicomSeries) -> DicomSource:
    """Order planes along their normal and find their grid."""
    planes = [plane.place for plane in series.planes]
    sizes = {plane.size for plane in series.planes}
    name = f"The DICOM {series.quantity} series"
    try:
        positions = np.array([p.ImagePositionPatient for p in planes], dtype=np.float64)
        orientations = np.array([p.ImageOrientationPatient for p in planes], dtype=np.float64)
        spacings = np.array([p.PixelSpacing for p in planes], dtype=np.float64)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not say where its slices lie",
            expected="ImagePositionPatient, ImageOrientationPatient and PixelSpacing of each slice",
            found="at least one slice without them",
            action="export the series again",
        ) from error
    if len(planes) < _FEWEST_SLICES:
        raise InputError(
            f"{name} has too few slices to be a volume",
            expected=f"a stack of at least {_FEWEST_SLICES} slices",
            found=f"{len(planes)}",
            action="export the whole series",
        )
    if len(sizes) > 1 or np.ptp(spacings, axis=0).max() > _SAME_SPACING_MM:
        raise InputError(
            f"{name} mixes slices of different size",
            expected="one matrix and pixel spacing",
            found=f"{len(sizes)} matrix sizes, pixel spacings differing by "
            f"{np.ptp(spacings, axis=0).max():.3g} mm",
            action="keep the slices of one acquisition",
        )
    axes = orientations.reshape(-1, 2, 3)
    products = np.einsum("nij,nkj->nik", axes, axes)
    sizes_fit = (spacings > 0).all() and spacings.max() < _LARGEST_PIXEL_MM
    if not (sizes_fit and np.abs(products - np.eye(2)).max() < _SAME_COSINE):
        raise InputError(
            f"{name} states an orientation or a pixel spacing that cannot be right",
            expected="two unit vectors at a right angle, and spacings above 0 mm",
            found=f"row and column {orientations[0].round(3).tolist()}, "
            f"spacing {spacings[0].tolist()} mm",
            action="export the series again",
        )
    _check_directions(name, series, axes)
    if len({plane.scaled for plane in series.planes}) > 1:
        raise InputError(
            f"{name} mixes slices whose values are scaled with others",
            expected="a RescaleSlope in every slice or in none",
            found=f"one in {sum(plane.scaled for plane in series.planes)} of {len(planes)}",
            action="export the series again",
        )
    if np.ptp(orientations, axis=0).max() > _SAME_COSINE:
        raise InputError(
            f"{name} mixes slices of different orientation",
            expected="one orientation",
            found=f"direction cosines differing by {np.ptp(orientations, axis=0).max():.3g}",
            action="keep the slices of one acquisition",
        )
    row, column = orientations[0][:3], orientations[0][3:]
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    step = float(np.median(steps))
    uneven = np.abs(steps - step)
    if step <= 0 or uneven.max() > max(_UNEVEN_SHARE * step, _UNEVEN_MM):
        worst = int(np.argmax(uneven))
        raise InputError(
            f"{name} has missing, doubled or unevenly spaced slices",
            expected=f"{step:.3f} mm from each slice to the next",
            found=f"{steps[worst]:.3f} mm between slices {worst + 1} and {worst + 2} "
            f"of {len(order)}",
            action="export the whole series again",
        )
    first, last = positions[order[0]], positions[order[-1]]
    between = (last - first) / (len(order) - 1)
    sideways = float(np.linalg.norm(between - step * normal))
    if sideways > _SHEAR_SHARE * step:
        raise InputError(
            f"{name} is sheared (gantry tilt)",
            expected="slices stacked along their normal",
            found=f"a sideways shift of {sideways:.2f} mm per slice",
            action="resample the series onto an upright stack first",
        )
    columns, rows = next(iter(sizes))
    affine = np.eye(4)
    affine[:3, 0] = row * spacings[0][1]
    affine[:3, 1] = column * spacings[0][0]
    affine[:3, 2] = between
    affine[:3, 3] = first
    grid = Grid((columns, rows, len(order)), _LPS_TO_RAS @ affine, SCANNER_SPACE)
    return DicomSource(tuple(series.planes[int(k)] for k in order), grid)


def _check_directions(name: str, series: DicomSeries, axes: NDArray[np.float64]) -> None:
    """Refuse a series whose header states two orientations."""
    for plane, pair in zip(series.planes, axes, strict=True):
        if plane.tags is None:
            continue
        for letters, axis in zip(plane.tags.directions, pair, strict=False):
            # The first letter is where the axis mainly runs.
            towards = _TOWARDS.get(letters[:1])
            if towards is not None and float(axis[towards[0]]) * towards[1] < -_SURELY_AGAINST:
                raise InputError(
                    f"{name} states two orientations that disagree",
                    expected="PatientOrientation as ImageOrientationPatient has it",
                    found=f"{letters} by the one, direction cosines {axis.round(3).tolist()} "
                    "by the other",
                    action="find out which is right: left and right depend on it",
                )


def _decode(path: Path, number: int) -> NDArray[Any]:
    """Pixels of a file, axes x, y, z, rescaled as the header says."""
    image: Any = _read(path, number)
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise _not_as_stated(number, image.GetSize(), (*image.GetSize(), array.shape[-1]))
    array = array.reshape((-1, *array.shape[-2:]))
    return np.asarray(array.transpose(2, 1, 0))


def _read(path: Path, number: int) -> sitk.Image:
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"DICOM file {number} of a series cannot be decoded",
            expected="pixel data in a known transfer syntax",
            found="the decoder refused it",
            action="export the series again, uncompressed if need be",
        ) from error
