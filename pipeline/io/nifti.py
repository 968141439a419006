"""NIfTI in and out. The only place that imports nibabel."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from pipeline.core.anatomy import LabelScheme
from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE, Index3
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.io.atomic import atomic_write

_GZIP_LEVEL = 2
_CHUNK_BYTES = 2**20
#: Behind the data of an image stands nothing, or a little that some program left there.
_LARGEST_REST_BYTES = 2**26
#: Corners of a qform further than this from the sform mean that the affine is sheared.
_SHEAR_MM = 0.1
_UNITS_NOT_MM = {1: "metres", 3: "microns"}
#: Codes of positions in an atlas (Talairach, MNI, another template), to which bodies are stretched.
_TEMPLATE_CODES = frozenset({3, 4, 5})
#: Programs write this where they know no position: 1 mm voxels at the origin.
_NO_POSITION = np.eye(4)
#: Deflate never makes more of one byte than this (zlib.net/zlib_tech.html).
_LARGEST_GZIP_RATIO = 1032


@dataclass(frozen=True)
class Called:
    """What a file is called in messages: its name may be that of a person.

    Attributes:
        name: what it is taken for, e.g. "The water image".
        file: where it lies, for the terminal alone (MyosymmetryError.private).
    """

    name: str
    file: str = ""


@dataclass(frozen=True)
class NiftiSource:
    """An ImageSource over a NIfTI file, read piece by piece.

    A compressed file is one stream: each read passes through it once and keeps only the box.

    Attributes:
        path: of the file.
        called: see open_nifti.
    """

    path: Path
    called: Called
    grid: Grid
    offset: int
    dtype: np.dtype[Any]
    slope: float
    intercept: float

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """See ImageSource.read. Integer data without scaling stays integer.

        Raises:
            InputError: the file ends before its data do, or is damaged.
        """
        nx, ny, nz = self.grid.shape
        box = tuple(slice(a, b, step) for a, b in zip(lower, upper, strict=True))
        levels = range(nz)[box[2]]
        plane_bytes = nx * ny * self.dtype.itemsize
        scaled = (self.slope, self.intercept) != (1.0, 0.0)
        keeps = not scaled and self.dtype.kind in "iu"
        shape = tuple(len(range(n)[s]) for n, s in zip(self.grid.shape, box, strict=True))
        # Fortran order: a level of the file is one piece of memory here too.
        out = np.empty(
            shape, dtype=self.dtype.newbyteorder("=") if keeps else np.float32, order="F"
        )
        try:
            with _open(self.path) as stream:
                _skip(stream, self.offset)
                at = 0
                for k, level in enumerate(levels):
                    _skip(stream, (level - at) * plane_bytes)
                    raw = _read_exactly(stream, plane_bytes)
                    at = level + 1
                    plane = np.frombuffer(raw, dtype=self.dtype).reshape((nx, ny), order="F")
                    plane = plane[box[0], box[1]]
                    if scaled:
                        plane = plane.astype(np.float64) * self.slope + self.intercept
                    out[:, :, k] = plane
                if at == nz:
                    _read_rest(stream)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _cut_off(self.called, self.grid, self.dtype, str(error)) from error
        return out


def _cut_off(called: Called, grid: Grid, dtype: np.dtype[Any], detail: str) -> InputError:
    return InputError(
        f"{called.name} is truncated or damaged",
        expected=f"{grid.describe()} of {dtype.name}",
        found=f"the file ends or breaks before its data do ({detail})",
        action="copy or export the file again",
        private=called.file,
    )


def open_nifti(
    path: Path,
    called: Called,
    *,
    affine_tolerance_mm: float,
    largest_image_million_voxels: float,
) -> NiftiSource:
    """Read the header of a NIfTI file and check that it can be trusted.

    Args:
        path: the file.
        called: what it is called in messages.
        affine_tolerance_mm: corners by qform and sform may be this far apart.
        largest_image_million_voxels: declared sizes above are taken for a broken header.

    Raises:
        InputError: not a NIfTI image, 4D, no or contradicting orientation, an atlas's position,
            singular affine, units other than mm, absurd size, data that cannot be numbers.
    """
    size, image = _open_header(path, called)
    header: Any = image.header
    shape = _shape_3d(called, header.get_data_shape(), largest_image_million_voxels)
    unit = int(header["xyzt_units"]) & 7
    if unit in _UNITS_NOT_MM:
        raise InputError(
            f"{called.name} states its lengths in {_UNITS_NOT_MM[unit]}",
            expected="millimetres (or no unit, taken as millimetres)",
            found=_UNITS_NOT_MM[unit],
            action="convert the file so that its affine and unit are in mm",
            private=called.file,
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(
            f"{called.name} does not hold plain numbers",
            expected="an integer or floating-point data type",
            found=str(dtype),
            action="export magnitude images",
            private=called.file,
        )
    grid = Grid(shape, _affine(path, called, header, shape, affine_tolerance_mm), SCANNER_SPACE)
    # Loading resets the scaling of the header; what the file states is on the proxy.
    proxy: Any = image.dataobj
    # Before anything is allocated for it: what the file can hold at most.
    most = size * (_LARGEST_GZIP_RATIO if _is_compressed(path) else 1)
    missing = int(proxy.offset) + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize - most
    if missing > 0:
        raise _cut_off(called, grid, dtype, f"at least {missing} bytes missing")
    return NiftiSource(
        path=path,
        called=called,
        grid=grid,
        offset=int(proxy.offset),
        dtype=dtype,
        slope=float(proxy.slope),
        intercept=float(proxy.inter),
    )


def _open_header(path: Path, called: Called) -> tuple[int, nib.Nifti1Image]:
    """Size of a file in bytes, and the image that its header describes."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{called.name} cannot be read",
            expected="a NIfTI image",
            found=error.strerror or str(error),
            action="check the file, or the link, and its permissions",
            private=called.file,
        ) from error
    if size == 0:
        raise InputError(
            f"{called.name} is empty",
            expected="a NIfTI image",
            found="0 bytes",
            action="copy or export the file again",
            private=called.file,
        )
    try:
        image = nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(
            f"{called.name} is not a readable NIfTI image",
            expected="a .nii or .nii.gz file with a whole header",
            found=_said_of_file(error),
            action="copy or export the file again",
            private=called.file,
        ) from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(
            f"{called.name} is not a NIfTI image",
            expected="NIfTI-1 or -2",
            found=type(image).__name__,
            action="convert the scan to NIfTI",
            private=called.file,
        )
    return size, image


def _said_of_file(error: Exception) -> str:
    """What went wrong with a file, without its name, which libraries quote."""
    if isinstance(error, ImageFileError):
        return "no header of an image"
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return error.strerror or "no access"
    return " ".join(str(error).split()) or type(error).__name__


def _shape_3d(called: Called, shape: tuple[int, ...], limit_million: float) -> Index3:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"{called.name} has {len(shape)} dimensions",
            expected="one 3D image per file",
            found=f"shape {' x '.join(map(str, shape))}",
            action="split the file into one 3D image per contrast",
            private=called.file,
        )
    voxels = int(np.prod(np.array(shape, dtype=object)))
    if min(shape) < 1 or voxels > limit_million * 1e6:
        raise InputError(
            f"{called.name} declares a size that cannot be right",
            expected=f"at most {limit_million:g} million voxels",
            found=f"shape {' x '.join(map(str, shape))}",
            action="check the file, or raise load.largest_image_million_voxels",
            private=called.file,
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def _affine(
    path: Path, called: Called, header: Any, shape: Index3, tolerance_mm: float
) -> NDArray[np.float64]:
    """The affine of a header: sform where its code is set, else qform; never a guess."""
    sform, scode = header.get_sform(coded=True)
    try:
        qform, qcode = header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        qform, qcode = None, 0
    stated = [form for form in (sform, qform) if form is not None]
    codes = {int(code) for form, code in ((sform, scode), (qform, qcode)) if form is not None}
    if codes and codes <= _TEMPLATE_CODES:
        raise InputError(
            f"{called.name} lies in the space of an atlas",
            expected="a position in the scanner (qform or sform code 1 or 2)",
            found=f"qform code {int(qcode)}, sform code {int(scode)}: stretched to a template, "
            "where volumes are not the person's",
            action="give the image as it was scanned; if it was never stretched, set the code to 1",
            private=called.file,
        )
    if any(np.allclose(form, _NO_POSITION, atol=1e-6) for form in stated):
        raise InputError(
            f"{called.name} states no size and no position",
            expected="the affine of the scan: voxel sizes, directions and origin in mm",
            found="the identity, which programs write where they know nothing: sides and volumes "
            "would be guesses",
            action="convert the scan again from DICOM, or write its true affine",
            private=called.file,
        )
    if not stated:
        raise InputError(
            f"{called.name} does not say how it lies in space",
            expected="a qform or sform with its code set",
            found=f"qform code {int(qcode)}, sform code {int(scode)}",
            action="convert the scan again from DICOM; sides cannot be told without it",
            private=called.file,
        )
    if sform is None:
        # A qform takes its voxel size from pixdim; nibabel puts 1 mm where that is 0.
        sizes = _stated_voxel_sizes(path, type(header))
        if not np.all(np.isfinite(sizes) & (sizes != 0)):
            raise InputError(
                f"{called.name} does not state its voxel size",
                expected="pixdim 1 to 3 other than 0, in mm, with a qform and no sform",
                found=f"pixdim {' x '.join(f'{size:g}' for size in sizes)}",
                action="convert the scan again from DICOM",
                private=called.file,
            )
    for form in stated:
        determinant = float(np.linalg.det(form[:3, :3]))
        if not np.all(np.isfinite(form)) or abs(determinant) < 1e-9:
            raise InputError(
                f"{called.name} has an affine that does not span a volume",
                expected="a determinant other than 0 (the voxel volume in mm^3)",
                found=f"{determinant:.3g}",
                action="convert the scan again from DICOM",
                private=called.file,
            )
    if len(stated) == 2:
        grids = [Grid(shape, form, SCANNER_SPACE) for form in stated]
        apart = grids[0].largest_corner_distance_mm(grids[1])
        if apart > tolerance_mm:
            corners = [np.round(grid.corners_mm()[0], 1).tolist() for grid in grids]
            raise InputError(
                f"{called.name} states two positions that disagree (sform and qform)",
                expected=f"corners at most {tolerance_mm:g} mm apart",
                found=f"{apart:.1f} mm; first corner {corners[0]} by sform, {corners[1]} by qform",
                action="decide which is right and write it into both",
                private=called.file,
            )
    return np.asarray(stated[0], dtype=np.float64)


def _stated_voxel_sizes(path: Path, header_class: Any) -> NDArray[np.float64]:
    """The voxel sizes of a header as they stand in the file, unmended."""
    with _open(path) as stream:
        header = header_class.from_fileobj(stream, check=False)
    return np.asarray(header["pixdim"][1:4], dtype=np.float64)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if _is_compressed(path) else path.open("rb")


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0:
        read = len(_read_exactly(stream, min(count, _CHUNK_BYTES)))
        count -= read


def _read_rest(stream: BinaryIO) -> None:
    """Read on to the end, which makes gzip compare its checksum; a file has little more than its
    data, or is none that was meant."""
    for _ in range(_LARGEST_REST_BYTES // _CHUNK_BYTES):
        if not stream.read(_CHUNK_BYTES):
            return
    raise EOFError(f"more than {_LARGEST_REST_BYTES} bytes behind its data")


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count > 0:
        part = stream.read(count)
        if not part:
            raise EOFError(f"{count} bytes missing")
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_volume(path: Path, volume: Volume, *, dtype: DTypeLike = np.float32) -> None:
    """Write an image as .nii.gz, whole or not at all; the same values give the same bytes.

    Integer dtypes keep integral data that fit as they are, and scale everything else over the
    range of the type (scl_slope).
    """
    data, slope, intercept = volume.data, 1.0, 0.0
    wanted = np.dtype(dtype)
    if wanted.kind in "iu":
        low, high = float(data.min()), float(data.max())
        limits = np.iinfo(wanted)
        fits = limits.min <= low and high <= limits.max
        if not (fits and np.array_equal(data, np.rint(data))):
            # The type's range without its lowest value is symmetric for signed types.
            lowest = max(float(limits.min), -float(limits.max))
            slope = (high - low) / (limits.max - lowest) if high > low else 1.0
            intercept = low - slope * lowest
            data = np.rint((data - np.float32(intercept)) / np.float32(slope))
        data = np.clip(data, limits.min, limits.max)
    _write(path, data.astype(wanted), volume.grid, slope, intercept)


def write_label_map(path: Path, labels: LabelMap) -> None:
    """Write a label map as .nii.gz (uint8), whole or not at all."""
    _write(path, labels.data.astype(np.uint8), labels.grid, 1.0, 0.0)


def write_vectors(path: Path, field: NDArray[np.float32], grid: Grid) -> None:
    """Write a field of vectors (nx, ny, nz, 3) as .nii.gz, whole or not at all."""
    _write(path, np.asarray(field, dtype=np.float32)[:, :, :, None, :], grid, 1.0, 0.0)


def write_map(path: Path, data: NDArray[np.float32], grid: Grid) -> None:
    """Write float32 values on a grid as .nii.gz, whole or not at all."""
    _write(path, np.asarray(data, dtype=np.float32), grid, 1.0, 0.0)


def read_vectors(path: Path, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Read a field of vectors that write_vectors wrote.

    Raises:
        InputError: the file is damaged or holds something else.
    """
    expected = (*shape, 1, 3)
    try:
        image: Any = nib.load(path)
        found = image.shape
        if found == expected:
            return np.asarray(image.dataobj, dtype=np.float32)[:, :, :, 0, :]
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError) as error:
        found = _said_of_file(error)
    raise InputError(
        f"{path.name} does not hold the vectors it should",
        expected=f"shape {expected}",
        found=str(found),
        action="run the subject again with --force",
    )


def _write(path: Path, data: NDArray[Any], grid: Grid, slope: float, intercept: float) -> None:
    nifti: Any = nib
    header = nifti.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_sform(grid.affine, code=1)
    header.set_qform(grid.affine, code=1)
    # A qform cannot hold shear; a wrong second statement is worse than none.
    if (
        Grid(grid.shape, header.get_qform(), grid.space).largest_corner_distance_mm(grid)
        > _SHEAR_MM
    ):
        header.set_qform(None, code=0)
    if data.ndim > 3:
        header.set_intent("vector")
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    with (
        atomic_write(path) as raw,
        gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream,
    ):
        stream.write(header.binaryblock)
        stream.write(b"\0" * 4)
        for part in np.moveaxis(data.reshape(*data.shape[:3], -1), -1, 0):
            for level in range(data.shape[2]):
                stream.write(np.asarray(part[:, :, level]).tobytes(order="F"))


def read_volume(path: Path, quantity: Quantity, space: str) -> Volume:
    """Read an image that write_volume wrote: a signal, or a map of fat fractions (0 to 1)."""
    unit = "1" if quantity is Quantity.FAT_FRACTION else "a.u."
    source = _open_own(path)
    data = source.read((0, 0, 0), source.grid.shape)
    return Volume(data.astype(np.float32, copy=False), source.grid.renamed(space), quantity, unit)


def read_map(path: Path, space: str) -> tuple[NDArray[np.float32], Grid]:
    """Read values and grid that write_map wrote; the grid is named as lying in a space."""
    source = _open_own(path)
    data = source.read((0, 0, 0), source.grid.shape)
    return data.astype(np.float32, copy=False), source.grid.renamed(space)


def read_label_map(path: Path, scheme: LabelScheme) -> LabelMap:
    """Read a label map that write_label_map wrote."""
    source = _open_own(path)
    return LabelMap(source.read((0, 0, 0), source.grid.shape), source.grid, scheme)


def _open_own(path: Path) -> NiftiSource:
    return open_nifti(
        path, Called(path.name), affine_tolerance_mm=np.inf, largest_image_million_voxels=np.inf
    )
