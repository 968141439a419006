"""Small subjects of NIfTI and DICOM, and what may happen to their files on the way."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian
from scanner import write_vendor

from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.io.nifti import write_volume
from pipeline.phantom import Scan

Random = np.random.Generator
Mutation = Callable[[Random, Path], None]

SHAPE = (44, 26, 10)
AFFINE = np.diag([6.0, 6.0, 12.0, 1.0])


@lru_cache(maxsize=1)
def two_legs() -> Scan:
    """Two cylinders of muscle under fat, each with a bone."""
    grid = Grid(SHAPE, AFFINE, SCANNER_SPACE)
    x, y, _ = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    water, fat = np.zeros(SHAPE), np.zeros(SHAPE)
    for column, radius in ((32, 8.0), (11, 7.5)):
        away = np.hypot(x - column, y - 13)
        fat += np.where(away < radius + 1.5, 800.0, 0.0)
        muscle = (away < radius) & (away > 2)
        water += np.where(muscle, 900.0, 0.0)
        fat -= np.where(muscle, 720.0, 0.0)
    rng = np.random.default_rng(2)
    images = {
        q: Volume(np.abs(v + rng.normal(0, 8, SHAPE)).round().astype(np.float32), grid, q)
        for q, v in ((Quantity.WATER, water), (Quantity.FAT, fat))
    }
    labels = LabelMap(np.zeros(SHAPE, dtype=np.uint8), grid, OWN_SCHEME)
    return Scan(images, labels, {}, 8.0)


def write_nifti(folder: Path) -> None:
    folder.mkdir(parents=True)
    for quantity, volume in two_legs().images.items():
        write_volume(folder / f"x_{quantity}.nii.gz", volume, dtype=np.int16)


def write_dicom(folder: Path) -> None:
    write_vendor(folder / "raw", "siemens", [two_legs()], seed=3)


def some_file(rng: Random, folder: Path) -> Path:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 500)
    return files[int(rng.integers(len(files)))]


def some_files(rng: Random, folder: Path) -> list[Path]:
    """One file, some, or all of them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 500)
    count = int(rng.choice([1, 3, len(files)]))
    return [files[k] for k in rng.permutation(len(files))[:count]]


# What happens to any file.


def truncated(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])


def bytes_flipped(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    content = bytearray(path.read_bytes())
    # Half of the time near the beginning, where the headers are.
    end = len(content) if rng.random() < 0.5 else 1200
    for at in rng.integers(min(end, len(content)), size=int(rng.choice([1, 4, 30]))):
        content[at] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))


def block_overwritten(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    size = min(int(rng.integers(1, 4000)), len(content) - start)
    content[start : start + size] = rng.bytes(size) if rng.random() < 0.5 else bytes(size)
    path.write_bytes(bytes(content))


def file_deleted(rng: Random, folder: Path) -> None:
    some_file(rng, folder).unlink()


def file_emptied(rng: Random, folder: Path) -> None:
    some_file(rng, folder).write_bytes(b"")


def file_copied(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    shutil.copy(path, path.with_name(f"copy{path.name}"))


def unreadable(rng: Random, folder: Path) -> None:
    some_file(rng, folder).chmod(0)


def folder_in_place_of_a_file(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    path.unlink()
    path.mkdir()


def pipe_in_place_of_a_file(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    path.unlink()
    os.mkfifo(path)


def link_loops(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    (path.parent / "again").symlink_to(folder)
    (path.parent / "up").symlink_to(folder.parent, target_is_directory=True)
    if rng.random() < 0.5:
        path.unlink()
        path.symlink_to(path.name)


def zip_bomb(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    target = path if rng.random() < 0.5 else path.with_name("export.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(30_000_000))


# NIfTI.


def rewrite_nifti(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    path.write_bytes(gzip.compress(bytes(change(bytearray(gzip.decompress(path.read_bytes()))))))


def in_header(offset: int, layout: str, *values: float) -> Callable[[bytearray], bytearray]:
    def change(content: bytearray) -> bytearray:
        struct.pack_into(f"<{layout}", content, offset, *values)
        return content

    return change


def nifti_dimensions(rng: Random, folder: Path) -> None:
    sizes = rng.choice([-3, 0, 1, 2, 9, 44, 300, 32767], size=3)
    count = int(rng.choice([0, 2, 3, 3, 3, 4, 7, 9, -1]))
    change = in_header(40, "4h", count, *map(int, sizes))
    rewrite_nifti(some_file(rng, folder), change)


def nifti_enormous(rng: Random, folder: Path) -> None:
    size = int(rng.choice([700, 1200, 32767]))
    rewrite_nifti(some_file(rng, folder), in_header(40, "4h", 3, size, size, size))


def nifti_number(rng: Random, folder: Path) -> None:
    """A number that cannot be right; of a scale that can be right nobody sees that it is wrong."""
    # pixdim 1, vox_offset, scl_slope, scl_inter, srow_x, srow_z, quatern_b
    offset = int(rng.choice([80, 108, 112, 116, 280, 312, 256]))
    values = [np.nan, np.inf, -np.inf, 1e30, 1e9, -1e30]
    if offset == 112:
        values += [-1.0, 1e-30, -1e9]
    elif offset != 116:
        values += [0.0, -1.0, 1e-30, 351.5]
    value = float(rng.choice(values))
    rewrite_nifti(some_file(rng, folder), in_header(offset, "f", value))


def nifti_code(rng: Random, folder: Path) -> None:
    # datatype, bitpix, qform code, sform code, intent
    offset = int(rng.choice([70, 72, 252, 254, 68]))
    value = int(rng.choice([0, 1, 2, 8, 16, 32, 64, 128, 256, 1536, 32767, -1]))
    rewrite_nifti(some_file(rng, folder), in_header(offset, "h", value))


def nifti_magic(rng: Random, folder: Path) -> None:
    magic = rng.choice([b"ni1\0", b"n+2\0", b"zzz\0", b"\0\0\0\0"])

    def change(content: bytearray) -> bytearray:
        content[344:348] = bytes(magic).ljust(4, b"\0")
        return content

    rewrite_nifti(some_file(rng, folder), change)


def gzip_bomb(rng: Random, folder: Path) -> None:
    """Some gigabytes of zeros behind, or in place of, the data."""
    path = some_file(rng, folder)
    zeros = gzip.compress(bytes(10_000_000))
    if rng.random() < 0.5:
        content = path.read_bytes()
    else:
        content = gzip.compress(gzip.decompress(path.read_bytes())[:352])
    path.write_bytes(content + zeros * 800)


def other_bytes_order(rng: Random, folder: Path) -> None:
    def change(content: bytearray) -> bytes:
        return bytes(content[:4][::-1]) + bytes(content[4:])

    rewrite_nifti(some_file(rng, folder), change)


# DICOM.


def in_dicom(path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def dicom_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("DOEPLANT*"))


def values_swapped(rng: Random, folder: Path) -> None:
    """Two files exchange what one tag says."""
    files = dicom_files(folder)
    one, two = (files[int(k)] for k in rng.permutation(len(files))[:2])
    keyword = str(
        rng.choice(
            [
                "ImagePositionPatient",
                "SOPInstanceUID",
                "SeriesInstanceUID",
                "ImageType",
                "PixelData",
            ]
        )
    )
    values = [getattr(pydicom.dcmread(path), keyword) for path in (one, two)]
    in_dicom(one, lambda data: setattr(data, keyword, values[1]))
    in_dicom(two, lambda data: setattr(data, keyword, values[0]))


def tag_removed(rng: Random, folder: Path) -> None:
    keyword = str(
        rng.choice(
            [
                "ImagePositionPatient",
                "ImageOrientationPatient",
                "PixelSpacing",
                "SeriesInstanceUID",
                "SOPInstanceUID",
                "ImageType",
                "Modality",
                "Rows",
                "BitsAllocated",
                "PixelData",
                "RescaleSlope",
                "PhotometricInterpretation",
            ]
        )
    )
    for path in some_files(rng, folder):
        in_dicom(path, lambda data: data.__delitem__(keyword) if keyword in data else None)


def tag_absurd(rng: Random, folder: Path) -> None:
    changes: list[tuple[str, object]] = [
        ("Rows", 65535),
        ("Columns", 1),
        ("Rows", 0),
        ("NumberOfFrames", 100000),
        ("NumberOfFrames", "-1"),
        ("PixelSpacing", [0.0, 0.0]),
        ("PixelSpacing", [-6.0, 6.0]),
        ("PixelSpacing", [1e30, 1e-30]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [2, 0, 0, 0, 0.5, 0]),
        ("ImagePositionPatient", [0, 0, 1e12]),
        ("BitsAllocated", 64),
        ("BitsStored", 33),
        ("SamplesPerPixel", 3),
        ("RescaleSlope", 0),
        ("RescaleSlope", "1e300"),
        ("EchoTime", "-1"),
    ]
    keyword, value = changes[int(rng.integers(len(changes)))]
    for path in some_files(rng, folder):
        in_dicom(path, lambda data: setattr(data, keyword, value))


def tag_undecodable(rng: Random, folder: Path) -> None:
    """Bytes that are no number where a decimal stands."""
    for path in some_files(rng, folder):
        content = path.read_bytes()
        at = content.find(b"DS", 200)
        path.write_bytes(content[: at + 4] + b"a\\b\xff" + content[at + 8 :])


def slices_deleted(rng: Random, folder: Path) -> None:
    files = dicom_files(folder)
    for k in rng.permutation(len(files))[: int(rng.integers(1, len(files)))]:
        files[int(k)].unlink()


def slice_twice_under_another_uid(rng: Random, folder: Path) -> None:
    path = some_file(rng, folder)
    copy = path.with_name("twice")
    shutil.copy(path, copy)
    in_dicom(copy, lambda data: setattr(data, "SOPInstanceUID", "1.2.3.4"))


def deflate_bomb(rng: Random, folder: Path) -> None:
    """A deflated data set that grows a thousandfold."""
    path = some_file(rng, folder)
    data = pydicom.dcmread(path)
    if "TransferSyntaxUID" not in data.file_meta:
        return
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    content = path.read_bytes()
    meta = 132 + 12 + int.from_bytes(content[140:144], "little")
    plain = zlib.decompress(content[meta:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(plain) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a piece stands for itself and can be repeated.
    zeros = packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(content[:meta] + packed + zeros * 300 + packer.flush())


def nested_without_end(rng: Random, folder: Path) -> None:
    """Sequences inside sequences inside sequences."""
    path = some_file(rng, folder)
    content = path.read_bytes()
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    at = content.find(struct.pack("<HH", 0x0010, 0x0010))
    path.write_bytes(content[:at] + (sequence + item) * 3000)


ANY: tuple[Mutation, ...] = (
    truncated,
    bytes_flipped,
    pipe_in_place_of_a_file,
    link_loops,
    zip_bomb,
    folder_in_place_of_a_file,
    unreadable,
    block_overwritten,
    file_deleted,
    file_emptied,
    file_copied,
    truncated,
    bytes_flipped,
    bytes_flipped,
)
NIFTI: tuple[Mutation, ...] = (
    nifti_dimensions,
    nifti_dimensions,
    nifti_enormous,
    nifti_number,
    nifti_number,
    nifti_number,
    nifti_code,
    nifti_code,
    nifti_magic,
    gzip_bomb,
    other_bytes_order,
)
DICOM: tuple[Mutation, ...] = (
    values_swapped,
    values_swapped,
    tag_removed,
    tag_removed,
    tag_absurd,
    tag_absurd,
    tag_absurd,
    tag_undecodable,
    slices_deleted,
    slice_twice_under_another_uid,
    deflate_bomb,
    nested_without_end,
)


def mutated(folder: Path, seed: int) -> str:
    """Write a subject's folder and let one thing happen to it; NIfTI and DICOM in turns.

    Returns:
        what happened, in words.
    """
    rng = np.random.default_rng([seed, 77])
    dicom = seed % 2 == 1
    (write_dicom if dicom else write_nifti)(folder)
    kinds = (*(DICOM if dicom else NIFTI), *ANY)
    # In turns too, so that every kind comes up.
    kind = kinds[(seed // 2) % len(kinds)]
    kind(rng, folder)
    return f"{'DICOM' if dicom else 'NIfTI'}: {kind.__name__.replace('_', ' ')}"
