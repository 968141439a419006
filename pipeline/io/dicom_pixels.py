"""Pixels of DICOM files: GDCM (SimpleITK) decodes them.

No message names a file: files are called by their place in the series.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.io.dicom_planes import UNREADABLE, Plane, least_bytes, unheard

#: What pixels are decoded by.
_PIXELS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def pixels_of_file(plane: Plane, number: int) -> NDArray[Any]:
    """Pixels of the file of a plane, axes x, y, z; rescaled where the file has one scale for all.

    Args:
        plane: one of its slices.
        number: place of the file in its series, for messages.

    Raises:
        InputError: a file that cannot be decoded, or holds less than its header says.
    """
    decode = _decode if plane.scale is None else _decode_stored
    return decode(plane.path, number)


def slice_of(plane: Plane, pixels: NDArray[Any], number: int) -> NDArray[Any]:
    """The slice of a plane in the pixels of its file, axes x and y.

    Raises:
        InputError: the file holds less than its header says.
    """
    (x, y), (columns, rows) = plane.tile or (0, 0), plane.size
    part = pixels if plane.tile is None else pixels[x : x + columns, y : y + rows]
    if part.shape[:2] != plane.size or plane.frame >= pixels.shape[2]:
        raise _sizes_differ(number, (columns, rows, plane.frame + 1), pixels.shape)
    return part[:, :, plane.frame]


def not_as_stated(number: int, expected: str, found: str) -> InputError:
    """A file whose pixels are not those of its header."""
    return InputError(
        f"DICOM file {number} of a series does not hold what its header says",
        expected=expected,
        found=found,
        action="export the series again",
    )


def _sizes_differ(number: int, stated: Sequence[int], found: Sequence[int]) -> InputError:
    expected, there = (" x ".join(map(str, size)) for size in (stated, found))
    return not_as_stated(number, expected, there)


def _decode(path: Path, number: int) -> NDArray[Any]:
    """Pixels of a file, axes x, y, z, rescaled as the header says."""
    image: Any = _read(path, number)
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        size = image.GetSize()
        raise _sizes_differ(number, size, (*size, array.shape[-1]))
    array = array.reshape((-1, *array.shape[-2:]))
    return np.asarray(array.transpose(2, 1, 0))


def _decode_stored(path: Path, number: int) -> NDArray[Any]:
    """Pixels of a file of several frames as they are stored, axes x, y, z.

    GDCM scales every frame as the first. It is given a copy that says nothing of scales (nor of the
    person).
    """
    try:
        with unheard():
            data = pydicom.dcmread(path, specific_tags=list(_PIXELS))
        # The length that the copy states is what there is: the decoder would fill up the rest.
        if len(data.PixelData) < least_bytes(data):
            raise _undecodable(number)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "frames.dcm"
            data.save_as(copy)
            return _decode(copy, number)
    except UNREADABLE as error:
        raise _undecodable(number) from error


def _read(path: Path, number: int) -> sitk.Image:
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _undecodable(number) from error


def _undecodable(number: int) -> InputError:
    return InputError(
        f"DICOM file {number} of a series cannot be decoded",
        expected="pixel data in a known transfer syntax",
        found="the decoder refused it",
        action="export the series again, uncompressed if need be",
    )
