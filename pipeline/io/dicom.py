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

#: What the parts of ImageType and the words of a series description say an image shows.
_WORDS: Mapping[str, Quantity] = MappingProxyType(
    {
        "w": Quantity.WATER,
        "water": Quantity.WATER,
        "f": Quantity.FAT,
        "fat": Quantity.FAT,
        "ip": Quantity.IN_PHASE,
        "in": Quantity.IN_PHASE,
        "inphase": Quantity.IN_PHASE,
        "in_phase": Quantity.IN_PHASE,
        "op": Quantity.OPPOSED_PHASE,
        "opp": Quantity.OPPOSED_PHASE,
        "out": Quantity.OPPOSED_PHASE,
        "outphase": Quantity.OPPOSED_PHASE,
        "out_phase": Quantity.OPPOSED_PHASE,
        "opposedphase": Quantity.OPPOSED_PHASE,
        "opp_phase": Quantity.OPPOSED_PHASE,
        "ff": Quantity.FAT_FRACTION,
        "pdff": Quantity.FAT_FRACTION,
        "fat_frac": Quantity.FAT_FRACTION,
        "fatfraction": Quantity.FAT_FRACTION,
        "fat_fraction": Quantity.FAT_FRACTION,
        "t1": Quantity.T1W,
        "t1w": Quantity.T1W,
    }
)
#: Slices may be this uneven, as a share of their distance, before they are no stack.
_UNEVEN_SHARE = 0.01
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class DicomSeries:
    """Files of one series that show one contrast."""

    quantity: Quantity
    files: tuple[Path, ...]
    headers: tuple[pydicom.Dataset, ...]


@dataclass(frozen=True, eq=False)
class DicomSource:
    """An ImageSource over one DICOM series; level k is files[k], or frame k of one file."""

    files: tuple[Path, ...]
    grid: Grid

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """See ImageSource.read.

        Raises:
            InputError: a file that cannot be decoded.
        """
        box = tuple(slice(a, b, step) for a, b in zip(lower, upper, strict=True))
        if len(self.files) == 1:
            return np.asarray(_decode(self.files[0], 1)[box], dtype=np.float32)
        levels = range(self.grid.shape[2])[box[2]]
        planes = [_decode(self.files[k], k + 1)[:, :, 0][box[0], box[1]] for k in levels]
        return np.stack(planes, axis=2).astype(np.float32, copy=False)


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
    image_type = [str(part).lower() for part in header.get("ImageType") or ()]
    # The first two parts say original or derived, and primary or secondary.
    for part in image_type[2:]:
        if part in _WORDS:
            return _WORDS[part]
    for text in (header.get("SeriesDescription"), header.get("ProtocolName")):
        words = re.split(r"[^a-z0-9]+", str(text or "").lower())
        # The contrast stands at the end of a name: "t1_vibe_dixon_tra_W".
        for word in reversed(words):
            if word in _WORDS:
                return _WORDS[word]
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
    name = f"The DICOM {series.quantity} series"
    try:
        positions = np.array([h.ImagePositionPatient for h in series.headers], dtype=np.float64)
        orientations = np.array(
            [h.ImageOrientationPatient for h in series.headers], dtype=np.float64
        )
        spacings = np.array([h.PixelSpacing for h in series.headers], dtype=np.float64)
        sizes = {(int(h.Columns), int(h.Rows)) for h in series.headers}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not say where its slices lie",
            expected="ImagePositionPatient, ImageOrientationPatient and PixelSpacing in each file",
            found=f"missing or unreadable: {error}",
            action="export the series again",
        ) from error
    if len(sizes) > 1 or np.ptp(spacings, axis=0).max() > 1e-4:
        raise InputError(
            f"{name} mixes slices of different size",
            expected="one matrix and pixel spacing",
            found=f"{len(sizes)} matrix sizes, pixel spacings differing by "
            f"{np.ptp(spacings, axis=0).max():.3g} mm",
        )
    if np.ptp(orientations, axis=0).max() > 1e-3:
        raise InputError(
            f"{name} mixes slices of different orientation",
            expected="one orientation",
            found=f"direction cosines differing by {np.ptp(orientations, axis=0).max():.3g}",
        )
    if len(series.files) < 2:
        raise InputError(f"{name} is a single slice", expected="a stack of slices", found="1 slice")
    row, column = orientations[0][:3], orientations[0][3:]
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    step = float(np.median(steps))
    if step <= 0 or np.abs(steps - step).max() > max(_UNEVEN_SHARE * step, 0.01):
        worst = int(np.argmax(np.abs(steps - step)))
        raise InputError(
            f"{name} has missing, doubled or unevenly spaced slices",
            expected=f"{step:.3f} mm from each slice to the next",
            found=f"{steps[worst]:.3f} mm between slices {worst + 1} and {worst + 2} "
            f"of {len(order)}",
            action="export the whole series again",
        )
    first, last = positions[order[0]], positions[order[-1]]
    between = (last - first) / (len(order) - 1)
    if np.linalg.norm(between - step * normal) > 0.02 * step:
        raise InputError(
            f"{name} is sheared (gantry tilt)",
            expected="slices stacked along their normal",
            found=f"a sideways shift of {np.linalg.norm(between - step * normal):.2f} mm per slice",
        )
    columns, rows = next(iter(sizes))
    affine = np.eye(4)
    affine[:3, 0] = row * spacings[0][1]
    affine[:3, 1] = column * spacings[0][0]
    affine[:3, 2] = between
    affine[:3, 3] = first
    grid = Grid((columns, rows, len(order)), _LPS_TO_RAS @ affine, SCANNER_SPACE)
    return DicomSource(tuple(series.files[k] for k in order), grid)


def _open_enhanced(series: DicomSeries) -> DicomSource:
    image = _read(series.files[0], 1)
    if image.GetDimension() != 3:
        raise InputError(
            f"The DICOM {series.quantity} series is not one volume",
            expected="frames of one stack",
            found=f"{image.GetDimension()} dimensions",
        )
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    size = image.GetSize()
    grid = Grid((size[0], size[1], size[2]), _LPS_TO_RAS @ affine, SCANNER_SPACE)
    return DicomSource(series.files, grid)


def _decode(path: Path, number: int) -> NDArray[Any]:
    """Pixels of a file, axes x, y, z, rescaled as the header says."""
    array = sitk.GetArrayFromImage(_read(path, number))
    if array.ndim == 2:
        array = array[None]
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
