"""DICOM in: one stack of slices per contrast and station. pydicom reads headers
(dicom_planes.py), GDCM (SimpleITK) decodes pixels (dicom_pixels.py).

No message names a person: series are called by the number that the scanner gave them, never by
their description, and files by their place in the series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.misc
from numpy.typing import NDArray

from pipeline.config import DistortionMark
from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE, Index3, ScanSettings
from pipeline.core.volume import Quantity
from pipeline.io.contrast import (
    ContrastRules,
    contrast_of,
    no_image_reason,
)
from pipeline.io.contrast import number as number_in
from pipeline.io.dicom_pixels import not_as_stated, pixels_of_file, slice_of
from pipeline.io.dicom_planes import (
    Plane,
    SideTags,
    planes_of,
    read_header,
    transfer_syntax,
)
from pipeline.io.settings import LPS_TO_RAS, agreed

Floats = NDArray[np.float64]

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
#: Axis and sign of the letters of PatientOrientation in DICOM's left-posterior-head world.
_TOWARDS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "H": (2, 1), "F": (2, -1)}
#: A cosine this far on the other side contradicts a letter whatever the obliquity.
_SURELY_AGAINST = 0.5
#: Images whose values are compared with each other.
_DIXON = frozenset({Quantity.WATER, Quantity.FAT, Quantity.IN_PHASE, Quantity.OPPOSED_PHASE})


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
        return _files_of(self.planes)


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
        return _files_of(self.planes)

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
                decoded = plane.path, pixels_of_file(plane, numbers[plane.path])
            part = slice_of(plane, decoded[1], numbers[plane.path])[
                lower[0] : upper[0] : step, lower[1] : upper[1] : step
            ]
            slope, intercept = plane.scale or (1.0, 0.0)
            out[:, :, k] = (part * slope + intercept) * plane.gain
        return out


def _files_of(planes: Sequence[Plane]) -> tuple[Path, ...]:
    """Files of slices, each once: one file may hold several."""
    return tuple(dict.fromkeys(plane.path for plane in planes))


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


def _unusable(header: pydicom.Dataset) -> str | None:
    """Why a file is no slice of an MR image; None where it is one."""
    if "Secondary Capture" in pydicom.uid.UID(str(header.SOPClassUID)).name:
        return "a screen shot (secondary capture)"
    if str(header.get("BurnedInAnnotation") or "").upper() == "YES":
        return "text is burned into its pixels"
    if header.get("Modality") != "MR":
        return "no MR image"
    syntax = transfer_syntax(header)
    if syntax is not None and not syntax.is_transfer_syntax:
        return "its transfer syntax is not known"
    if header.get("RescaleSlope") == 0:
        return "its values are all scaled to one (RescaleSlope 0)"
    return None if header.get("SeriesInstanceUID") else "it names no series"


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
            action="export the series again, or raise load.largest_image_million_voxels",
        )
    # Before anything is decoded: the decoder fills up what a file lacks.
    for number, plane in enumerate(source.planes, start=1):
        if plane.least_bytes == 0:
            continue
        size = plane.path.stat().st_size
        if size < plane.least_bytes:
            expected = f"at least {plane.least_bytes} bytes of pixels"
            raise not_as_stated(number, expected, f"a file of {size} bytes")
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


def on_one_scale(used: Sequence[DicomSeries]) -> list[DicomSeries]:
    """Series that are used together, with water, fat, in and opposed phase on one scale.

    Philips scales each image by itself and says how: where all state it, their values are made the
    scanner's floating point values again. Fat fractions have a unit and keep their rescale slope.

    Raises:
        InputError: only some of the images state their scale.
    """
    planes = [plane for series in used if series.quantity in _DIXON for plane in series.planes]
    stated = sum(plane.floating is not None for plane in planes)
    if stated == 0:
        return list(used)
    if stated < len(planes):
        raise InputError(
            "Only some of the DICOM images say how Philips scaled their values",
            expected="the private scale slope (2005,100E) in each water, fat, in-phase and "
            "opposed-phase image, or in none",
            found=f"one in {stated} of {len(planes)} slices",
            action="export all series again in the same way, with private fields",
        )
    return [
        replace(series, planes=tuple(replace(p, gain=p.floating or 1.0) for p in series.planes))
        if series.quantity in _DIXON
        else series
        for series in used
    ]


def series_settings(series: DicomSeries) -> ScanSettings:
    """How a series was acquired; what differs between its slices is not stated."""
    return agreed([plane.settings for plane in series.planes])


def _rows(values: Sequence[Any], length: int) -> Floats:
    return np.array(values, dtype=np.float64).reshape(len(values), length)


def _geometry(name: str, series: DicomSeries) -> tuple[Floats, Floats, Floats]:
    """Positions (n, 3), orientations (n, 6) and pixel spacings (n, 2) of planes that fit together.

    Raises:
        InputError: they are too few, do not say where they lie, or differ.
    """
    planes = [plane.place for plane in series.planes]
    sizes = {plane.size for plane in series.planes}
    try:
        # One number too many, or too few, in all slices alike is found by the shapes.
        positions = _rows([p.ImagePositionPatient for p in planes], 3)
        orientations = _rows([p.ImageOrientationPatient for p in planes], 6)
        spacings = _rows([p.PixelSpacing for p in planes], 2)
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
    return positions, orientations, spacings


def _stack(series: DicomSeries) -> DicomSource:
    """Order planes along their normal and find their grid."""
    name = f"The DICOM {series.quantity} series"
    positions, orientations, spacings = _geometry(name, series)
    row, column = orientations[0][:3], orientations[0][3:]
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    step = float(np.median(steps))
    uneven = np.abs(steps - step)
    doubled = int(np.count_nonzero(steps <= _UNEVEN_MM))
    if doubled:
        raise InputError(
            f"{name} has several slices at one level",
            expected="one slice at each level",
            found=f"{doubled} of {len(order)} slices at the level of another one",
            action="keep one of them: the series was exported twice, or holds several repetitions "
            "or echoes that its headers do not tell apart",
        )
    if uneven.max() > max(_UNEVEN_SHARE * step, _UNEVEN_MM):
        worst = int(np.argmax(uneven))
        raise InputError(
            f"{name} has missing or unevenly spaced slices",
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
    columns, rows = series.planes[0].size
    affine = np.eye(4)
    affine[:3, 0] = row * spacings[0][1]
    affine[:3, 1] = column * spacings[0][0]
    affine[:3, 2] = between
    affine[:3, 3] = first
    grid = Grid((columns, rows, len(order)), LPS_TO_RAS @ affine, SCANNER_SPACE)
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
