"""NIfTI files: every storage is read to the same values; what is written is whole and exact."""

from __future__ import annotations

import errno
import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.errors import InputError, UsageError
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.io.atomic import atomic_write
from pipeline.io.nifti import (
    Called,
    NiftiSource,
    open_nifti,
    read_label_map,
    read_volume,
    write_label_map,
    write_volume,
)

SHAPE = (7, 5, 9)
TILT = np.deg2rad(12.0)
AFFINE = np.array(
    [
        [-1.2, 0.0, 0.0, 90.0],
        [0.0, 1.3 * np.cos(TILT), -3.0 * np.sin(TILT), -70.0],
        [0.0, 1.3 * np.sin(TILT), 3.0 * np.cos(TILT), 11.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def open_(path: Path) -> NiftiSource:
    called = Called("The image", path.name)
    return open_nifti(path, called, affine_tolerance_mm=1.0, largest_image_million_voxels=2000)


def values(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 100, SHAPE).astype(dtype)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8", ">i2", ">f4"]
)
def test_any_numeric_type_reads_to_the_same_values(tmp_path: Path, dtype: str, suffix: str) -> None:
    data = values(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(data.dtype)
    path = tmp_path / f"x{suffix}"
    nib.save(nib.Nifti1Image(data, AFFINE, header), path)

    source = open_(path)
    read = source.read((0, 0, 0), SHAPE)

    np.testing.assert_array_equal(read, data)
    assert read.dtype.kind == ("f" if "f" in dtype else data.dtype.kind)
    np.testing.assert_allclose(source.grid.affine, AFFINE, atol=1e-5)


def test_slope_and_intercept_are_honoured(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values("i2"), AFFINE)
    image.header.set_slope_inter(0.5, -3.0)
    nib.save(image, tmp_path / "x.nii.gz")

    read = open_(tmp_path / "x.nii.gz").read((0, 0, 0), SHAPE)

    assert read.dtype == np.float32
    expected = nib.load(tmp_path / "x.nii.gz").get_fdata()
    np.testing.assert_allclose(read, expected, atol=1e-5)
    assert np.ptp(expected) < 60


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_box_with_a_step_is_the_same_as_slicing(tmp_path: Path, suffix: str) -> None:
    data = values("i2")
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / f"x{suffix}")
    source = open_(tmp_path / f"x{suffix}")
    for step, lower in itertools.product((1, 2, 3), ((0, 0, 0), (2, 1, 4))):
        box = tuple(slice(a, b, step) for a, b in zip(lower, (6, 5, 8), strict=True))
        np.testing.assert_array_equal(source.read(lower, (6, 5, 8), step), data[box])


def test_a_fourth_axis_of_one_is_no_fourth_axis(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(values("i2")[..., None], AFFINE), tmp_path / "x.nii")
    assert open_(tmp_path / "x.nii").grid.shape == SHAPE


def test_the_sform_counts_before_the_qform(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values("i2"), None)
    shifted = np.diag([2.0, 2.0, 3.0, 1.0])
    shifted[0, 3] = 0.3
    image.header.set_sform(np.diag([2.0, 2.0, 3.0, 1.0]), code=1)
    image.header.set_qform(shifted, code=1)
    nib.save(image, tmp_path / "x.nii")
    assert open_(tmp_path / "x.nii").grid.affine[0, 3] == 0.0


def test_a_qform_alone_is_enough(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values("i2"), None)
    image.header.set_qform(np.diag([2.0, 2.0, 3.0, 1.0]), code=1)
    nib.save(image, tmp_path / "x.nii")
    assert open_(tmp_path / "x.nii").grid.voxel_sizes_mm == pytest.approx((2, 2, 3))


def volume(affine: np.ndarray = AFFINE) -> Volume:
    data = np.random.default_rng(2).normal(100, 30, SHAPE).astype(np.float32)
    return Volume(data, Grid(SHAPE, affine, SCANNER_SPACE), Quantity.WATER)


def test_a_written_image_comes_back_exactly(tmp_path: Path) -> None:
    write_volume(tmp_path / "x.nii.gz", volume())
    back = read_volume(tmp_path / "x.nii.gz", Quantity.WATER, SCANNER_SPACE)
    np.testing.assert_array_equal(back.data, volume().data)
    assert back.grid.same_as(volume().grid)
    assert back.unit == "a.u."
    assert read_volume(tmp_path / "x.nii.gz", Quantity.FAT_FRACTION, SCANNER_SPACE).unit == "1"
    header = nib.load(tmp_path / "x.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)


def test_an_integer_image_comes_back_to_a_step_of_its_scale(tmp_path: Path) -> None:
    write_volume(tmp_path / "x.nii.gz", volume(), dtype=np.int16)
    back = read_volume(tmp_path / "x.nii.gz", Quantity.WATER, SCANNER_SPACE)
    step = float(np.ptp(volume().data)) / 65534
    np.testing.assert_allclose(back.data, volume().data, atol=step)


def test_a_sheared_grid_is_written_without_a_qform_that_contradicts_it(tmp_path: Path) -> None:
    sheared = np.diag([1.5, 1.5, 6.0, 1.0])
    sheared[0, 2] = 2.0
    write_volume(tmp_path / "x.nii.gz", volume(sheared))
    np.testing.assert_allclose(open_(tmp_path / "x.nii.gz").grid.affine, sheared, atol=1e-5)


def test_labels_come_back_and_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    data = np.zeros(SHAPE, dtype=np.uint8)
    data[2:4] = 9
    labels = LabelMap(data, volume().grid, OWN_SCHEME)
    write_label_map(tmp_path / "a.nii.gz", labels)
    write_label_map(tmp_path / "b.nii.gz", labels)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.nii.gz", OWN_SCHEME).data, data)


def interrupted(path: Path, error: BaseException) -> None:
    with atomic_write(path) as stream:
        stream.write(b"half of it")
        raise error


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"older")
    with pytest.raises(UsageError, match="No space left"):
        interrupted(path, OSError(errno.ENOSPC, "No space left on device"))
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["x.nii.gz"]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "x", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checksum_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    shape = (64, 64, 64)
    nib.save(
        nib.Nifti1Image(np.random.default_rng(3).integers(0, 9000, shape, np.int16), AFFINE), path
    )
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged"):
        open_(path).read((0, 0, 0), shape)


def test_a_long_file_is_read_without_holding_all_of_it(tmp_path: Path) -> None:
    import tracemalloc

    shape = (100, 100, 400)
    path = tmp_path / "x.nii.gz"
    with gzip.open(path, "wb", 1) as stream:
        header = nib.Nifti1Header()
        header.set_data_shape(shape)
        header.set_data_dtype(np.int16)
        header.set_sform(np.diag([2.0, 2.0, 3.0, 1.0]), code=1)
        header["magic"], header["vox_offset"] = b"n+1", 352
        stream.write(header.binaryblock + bytes(4 + 2 * 100 * 100 * 400))
    source = open_(path)
    tracemalloc.start()
    source.read((0, 0, 390), shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The whole is 8 MB in the file and 32 MB in float64.
    assert peak < 4e6
