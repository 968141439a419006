"""Real scans and label maps: each is read, placed and counted as an independent reader does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.config import default_config
from pipeline.core.errors import InputError
from pipeline.core.scan import CanonicalScan
from pipeline.core.volume import Quantity
from pipeline.imaging.orientation import restore
from pipeline.io.contrast import no_image_reason
from pipeline.io.dicom import DicomSeries, DicomSource, open_dicom
from pipeline.io.dicom_planes import planes_of, read_header
from pipeline.stages.canonicalise import canonicalise
from pipeline.stages.load import load_subject

DIXON = ("thigh_dixon_a", "leg_dixon_e")
LABELLED = (("thigh_water_b", "thigh_water_b_dseg-silver"), ("leg_dwi_f", "leg_dwi_f_dseg"))


def scan_of(folder: Path, files: dict[str, Path]) -> CanonicalScan:
    (folder / "sub-x").mkdir()
    for name, path in files.items():
        (folder / "sub-x" / f"x_{name}.nii.gz").symlink_to(path)
    config = default_config()
    loaded = load_subject(folder, "x", config=config.load).value
    return canonicalise(loaded, config=config.canonicalise).value


def close(path: Path, data: np.ndarray) -> bool:
    expected = nib.load(path).get_fdata()
    return bool(np.allclose(data, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()))


@pytest.mark.parametrize("name", DIXON)
def test_dixon_pairs(shared_data: Path, tmp_path: Path, name: str) -> None:
    files = {kind: shared_data / "images" / f"{name}_{kind}.nii.gz" for kind in ("water", "fat")}
    scan = scan_of(tmp_path, files)
    for kind, path in files.items():
        assert close(path, restore(scan.images[Quantity(kind)].data, scan.storage))
    assert nib.aff2axcodes(scan.grid.affine) == ("R", "A", "S")
    assert scan.dixon is not None
    # Two thighs fill about a third of their field of view, two calves about a tenth.
    low, high = {"thigh_dixon_a": (0.25, 0.45), "leg_dixon_e": (0.07, 0.2)}[name]
    assert low < scan.dixon.valid.mean() < high


@pytest.mark.parametrize(("image", "labels"), LABELLED)
def test_scans_with_labels(shared_data: Path, tmp_path: Path, image: str, labels: str) -> None:
    folder = shared_data / "images"
    files = {"T1w": folder / f"{image}.nii.gz", "dseg": folder / f"{labels}.nii.gz"}
    scan = scan_of(tmp_path, files)
    assert scan.labels is not None
    assert close(files["T1w"], restore(scan.images[Quantity.T1W].data, scan.storage))
    np.testing.assert_array_equal(
        restore(scan.labels.data, scan.storage), np.asarray(nib.load(files["dseg"]).dataobj)
    )


def test_every_anatomy(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "anatomy").glob("*.nii.gz"))
    assert len(paths) > 30
    for number, path in enumerate(paths):
        folder = tmp_path / str(number)
        folder.mkdir()
        scan = scan_of(folder, {"dseg": path})
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        assert scan.labels is not None
        np.testing.assert_array_equal(restore(scan.labels.data, scan.storage), values)
        assert scan.grid.voxel_volume_mm3 == pytest.approx(
            float(np.prod(image.header.get_zooms())), rel=1e-4
        )


GOOD = (
    "generic/anatomical/001",
    "generic/anatomical/001_implicit",
    "generic/anatomical/002_non_isotropic",
    "generic/compressed_j2k/001",
    "generic/compressed_rle/001",
    "philips/anatomical/001",
    "philips/anatomical/001_implicit",
    "philips/anatomical/002",
    "philips_enhanced/anatomical/001",
    "philips_enhanced/anatomical/001_implicit",
    "siemens/anatomical/001",
    "siemens/anatomical/001_implicit",
    "siemens_multiframe/anatomical/001",
)
TRANSFER_SYNTAXES = range(1, 10)
BAD = (
    ("gantrytilting/001", "sheared"),
    ("slicecount/001", "too few slices"),
    ("notavolume/001", "several slices at one level"),
    ("sliceincrement/001", "missing or unevenly"),
    ("sliceincrement/002", "missing or unevenly"),
    ("sliceorientation/001", "mixes slices"),
)


def open_folder(folder: Path) -> DicomSource:
    files = tuple(sorted(folder.iterdir()))
    return open_files(files)


def open_files(files: tuple[Path, ...]) -> DicomSource:
    headers = [read_header(path) for path in files]
    # None of these series is a Dixon series; the contrast is given here.
    planes = [p for path, h in zip(files, headers, strict=True) for p in planes_of(path, h)]
    # One series holds phase images beside the magnitudes.
    planes = [plane for plane in planes if no_image_reason(plane.facts) != "a phase image"]
    series = DicomSeries(Quantity.T1W, tuple(planes))
    return open_dicom(series, largest_image_million_voxels=100)


@pytest.mark.parametrize("name", GOOD)
def test_geometry_and_values_of_dicom_equal_those_of_another_reader(
    shared_data: Path, name: str
) -> None:
    folder = shared_data / "dicom" / "dicom2nifti" / name
    source = open_folder(folder)
    if len(source.files) == 1:
        image = sitk.ReadImage(str(source.files[0]))
    else:
        image = sitk.ReadImage([str(path) for path in source.files])

    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(
        source.grid.affine, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, atol=1e-3
    )
    expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    np.testing.assert_allclose(source.read((0, 0, 0), source.grid.shape), expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "message"), BAD)
def test_broken_dicom_is_refused(shared_data: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_folder(shared_data / "dicom" / "dicom2nifti" / "failing" / name)


@pytest.mark.parametrize("number", TRANSFER_SYNTAXES)
def test_a_mosaic_in_seven_transfer_syntaxes_equals_the_reference(
    shared_data: Path, number: int
) -> None:
    folder = shared_data / "dicom" / "dcm_qa_ts"
    source = open_files((folder / "In" / f"{number}.dcm",))
    reference = nib.as_closest_canonical(nib.load(folder / "Ref" / f"{number}.nii"))
    data = nib.Nifti1Image(source.read((0, 0, 0), source.grid.shape), source.grid.affine)
    mine = nib.as_closest_canonical(data)
    np.testing.assert_allclose(mine.affine, reference.affine, atol=1e-2)
    np.testing.assert_array_equal(mine.get_fdata(), reference.get_fdata())
