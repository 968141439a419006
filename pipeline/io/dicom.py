"""DICOM in: one series per contrast. pydicom reads headers, GDCM (SimpleITK) decodes pixels.

No message names a person: files are called by their number in the series.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE, Index3
from pipeline.core.volume import Quantity

_TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "ProtocolName",
    "ImageType",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)

#: What a part of ImageType says an image shows, as the vendors write it.
_IMAGE_TYPES: Mapping[str, Quantity] = MappingProxyType(
    {
        "w": Quantity.WATER,
        "water": Quantity.WATER,
        "f": Quantity.FAT,
        "fat": Quantity.FAT,
        "ip": Quantity.IN_PHASE,
        "in_phase": Quantity.IN_PHASE,
        "inphase": Quantity.IN_PHASE,
        "op": Quantity.OPPOSED_PHASE,
        "opp_phase": Quantity.OPPOSED_PHASE,
        "out_phase": Quantity.OPPOSED_PHASE,
        "outphase": Quantity.OPPOSED_PHASE,
        "opposed_phase": Quantity.OPPOSED_PHASE,
        "ff": Quantity.FAT_FRACTION,
        "fat_frac": Quantity.FAT_FRACTION,
        "fat_fraction": Quantity.FAT_FRACTION,
    }
)
#: Parts of ImageType of images that are no magnitudes of a whole slice.
_NO_MAGNITUDE = frozenset(
    {"p", "phase", "phase map", "r", "real", "i", "imaginary", "localizer", "mip", "min_ip"}
    | {"projection image"}
)
#: Phrases of a series' name, words parted by single blanks; the first that is found counts.
_PHRASES: tuple[tuple[str, Quantity], ...] = (
    (r"\b(pdff|fat ?frac(tion)?)\b", Quantity.FAT_FRACTION),
    (r"\bwater\b", Quantity.WATER),
    (r"\bfat\b", Quantity.FAT),
    (r"\bin ?phase\b", Quantity.IN_PHASE),
    (r"\b(opp|opposed|out|out of) ?phase\b", Quantity.OPPOSED_PHASE),
)
#: Techniques against fat or water say nothing of what an image shows.
_SUPPRESSED = re.compile(r"\b(fat|water) ?(sat|sup|exc|sel|free)\w*\b")
#: Names of Dixon sequences; only beside one do single letters at the end of a name count.
_DIXON = re.compile(r"dixon|ideal|flex|lava|vibe|star ?map|quant")
_LETTERS: Mapping[str, Quantity] = MappingProxyType(
    {
        "w": Quantity.WATER,
        "f": Quantity.FAT,
        "ip": Quantity.IN_PHASE,
        "in": Quantity.IN_PHASE,
        "op": Quantity.OPPOSED_PHASE,
        "opp": Quantity.OPPOSED_PHASE,
        "out": Quantity.OPPOSED_PHASE,
        "ff": Quantity.FAT_FRACTION,
    }
)
_T1 = re.compile(r"\bt1w?\b")
#: Slices may be this uneven, as a share of their distance, before they are no stack.
_UNEVEN_SHARE = 0.01
#: ... and this uneven whatever their distance, mm: headers state positions to some digits only.
_UNEVEN_MM = 0.01
#: Slices of one stack agree in pixel spacing and direction cosines to this.
_SAME_SPACING_MM = 1e-4
_SAME_COSINE = 1e-3
#: A stack whose slices shift sideways by more than this share of their distance is sheared.
_SHEAR_SHARE = 0.02
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class DicomSeries:
    """Files of one series that show one contrast."""

    quantity: Quantity
    files: tuple[Path, ...]
    headers: tuple[pydicom.Dataset, ...]


@dataclass(frozen=True, eq=False)
class DicomSource:
    """An ImageSource over one DICOM series.

    Level k is the file files[order[k]], or frame order[k] of the only file.
    """

    files: tuple[Path, ...]
    order: tuple[int, ...]
    grid: Grid

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """See ImageSource.read.

        Raises:
            InputError: a file that cannot be decoded.
        """
        in_plane = tuple(slice(a, b, step) for a, b in zip(lower[:2], upper[:2], strict=True))
        wanted = self.order[lower[2] : upper[2] : step]
        if len(self.files) == 1:
            frames = _decode(self.files[0], 1)
            if frames.shape != self.grid.shape:
                raise _not_as_stated(1, self.grid.shape, frames.shape)
            return np.asarray(frames[in_plane][:, :, list(wanted)], dtype=np.float32)
        planes = []
        for k in wanted:
            plane = _decode(self.files[k], k + 1)
            if plane.shape != (*self.grid.shape[:2], 1):
                raise _not_as_stated(k + 1, (*self.grid.shape[:2], 1), plane.shape)
            planes.append(plane[:, :, 0][in_plane].astype(np.float32))
        return np.stack(planes, axis=2)


def _not_as_stated(number: int, stated: Index3, found: tuple[int, ...]) -> InputError:
    return InputError(
        f"DICOM file {number} of a series does not hold what its header says",
        expected=" x ".join(map(str, stated)),
        found=" x ".join(map(str, found)),
        action="export the series again",
    )


def find_dicom(files: Sequence[Path]) -> dict[Quantity, DicomSeries]:
    """The series of a folder by contrast; files that are no MR images are passed over.

    Raises:
        InputError: two series show the same contrast.
    """
    groups: dict[tuple[str, Quantity], list[tuple[Path, pydicom.Dataset]]] = {}
    for path in files:
        header = _header(path)
        if header is None:
            continue
        quantity = contrast_of(header)
        if quantity is not None:
            groups.setdefault((str(header.SeriesInstanceUID), quantity), []).append((path, header))
    out: dict[Quantity, DicomSeries] = {}
    for (_, quantity), members in groups.items():
        if quantity in out:
            raise InputError(
                f"More than one DICOM series shows {quantity}",
                expected="one series per contrast",
                found=f"series of {len(out[quantity].files)} and {len(members)} files",
                action="keep one of them in the subject's folder",
            )
        paths, headers = zip(*members, strict=True)
        out[quantity] = DicomSeries(quantity, paths, headers)
    return out


def _header(path: Path) -> pydicom.Dataset | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError):
        return None
    if header.get("Modality") != "MR" or "SeriesInstanceUID" not in header or "Rows" not in header:
        return None
    return header


def contrast_of(header: pydicom.Dataset) -> Quantity | None:
    """What an image shows: from ImageType first, then from the series' name; None if unknown."""
    # The first two parts say original or derived, and primary or secondary.
    parts = [str(part).lower() for part in list(header.get("ImageType") or ())[2:]]
    if not _NO_MAGNITUDE.isdisjoint(parts):
        return None
    for part in parts:
        if part in _IMAGE_TYPES:
            return _IMAGE_TYPES[part]
    names = [str(header.get(key) or "") for key in ("SeriesDescription", "ProtocolName")]
    for name in names:
        words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
        words = _SUPPRESSED.sub(" ", words)
        for phrase, quantity in _PHRASES:
            if re.search(phrase, words):
                return quantity
        last = words.split()[-1] if words.split() else ""
        if _DIXON.search(words):
            # A Dixon sequence without a stated contrast may be any of its images.
            return _LETTERS.get(last)
        if _T1.search(words):
            return Quantity.T1W
    return None


def open_dicom(series: DicomSeries, *, largest_image_million_voxels: float) -> DicomSource:
    """Put the slices of a series in order and find where they lie.

    Raises:
        InputError: slices that differ in size or orientation, are missing, doubled or unevenly
            spaced, or do not say where they lie.
    """
    if len(series.files) == 1 and int(series.headers[0].get("NumberOfFrames") or 1) > 1:
        source = _open_enhanced(series)
    else:
        source = _open_classic(series)
    if np.prod(np.array(source.grid.shape, dtype=float)) > largest_image_million_voxels * 1e6:
        raise InputError(
            f"The DICOM {series.quantity} series declares a size that cannot be right",
            expected=f"at most {largest_image_million_voxels:g} million voxels",
            found=source.grid.describe(),
        )
    return source


def _open_classic(series: DicomSeries) -> DicomSource:
    return _stack(series, series.headers, {(int(h.Columns), int(h.Rows)) for h in series.headers})


def _open_enhanced(series: DicomSeries) -> DicomSource:
    """Frames of one enhanced file: what each shows and where stands in its functional groups."""
    header = series.headers[0]
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    planes, kinds = [], set()
    for frame in frames:
        plane = pydicom.Dataset()
        for groups in (shared, frame):
            for sequence in (
                "PlanePositionSequence",
                "PlaneOrientationSequence",
                "PixelMeasuresSequence",
            ):
                if groups.get(sequence):
                    plane.update(groups[sequence].value[0])
            if groups.get("MRImageFrameTypeSequence"):
                kinds.add(str(groups.MRImageFrameTypeSequence[0].get("FrameType")))
        planes.append(plane)
    if len(kinds) > 1:
        raise InputError(
            f"The DICOM {series.quantity} series shows several contrasts in one file",
            expected="one file or series per contrast",
            found=f"{len(kinds)} frame types: {'; '.join(sorted(kinds))}",
            action="export the contrasts as series of their own, or convert them to NIfTI",
        )
    return _stack(series, planes, {(int(header.Columns), int(header.Rows))})


def _stack(
    series: DicomSeries, planes: Sequence[pydicom.Dataset], sizes: set[tuple[int, int]]
) -> DicomSource:
    """Order planes along their normal and find their grid.

    Args:
        series: names the series in messages.
        planes: one data set per slice with its position, orientation and pixel spacing.
        sizes: columns and rows that occur.
    """
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
    if len(planes) < 2:
        raise InputError(
            f"{name} is a single slice",
            expected="a stack of slices",
            found=f"{len(planes)} slice",
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
    return DicomSource(series.files, tuple(int(k) for k in order), grid)


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
