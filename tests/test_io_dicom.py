"""DICOM series: contrasts, order of slices, geometry; broken series are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from pipeline.config import default_config, load_config
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.volume import Quantity
from pipeline.io.contrast import ImageFacts, contrast_of, no_image_reason
from pipeline.io.dicom import DicomSeries, find_dicom, open_dicom
from pipeline.io.dicom_planes import planes_of
from pipeline.stages.canonicalise import canonicalise
from pipeline.stages.load import load_subject

RULES = list(default_config().load.dicom_contrasts.items())
PERSON = "DOE^JANE"
LEVELS, ROWS, COLUMNS = 6, 10, 12
SPACING = (1.5, 1.25)
#: Axial, head first supine, the table tilted by a little.
ROW = np.array([1.0, 0.0, 0.0])
COLUMN = np.array([0.0, np.cos(0.1), np.sin(0.1)])
NORMAL = np.cross(ROW, COLUMN)
STEP = 4.0
SERIES = (generate_uid(), generate_uid())


def position(level: int) -> np.ndarray:
    return np.array([-110.0, -60.0, -500.0]) + level * STEP * NORMAL


def pixels(level: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(100 * seed + level)
    return rng.integers(1, 900, (ROWS, COLUMNS)).astype(np.uint16)


def slice_file(
    path: Path, level: int, *, uid: str, image_type: str = "W", seed: int = 0, **tags: object
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate = PERSON, "4711", "19700101"
    data.Modality, data.SeriesInstanceUID = "MR", uid
    data.ImageType = ["DERIVED", "PRIMARY", "DIXON", image_type]
    data.Rows, data.Columns, data.PixelSpacing = ROWS, COLUMNS, list(SPACING)
    data.ImageOrientationPatient = [*ROW, *COLUMN]
    data.ImagePositionPatient = [f"{v:.6f}" for v in position(level)]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.RescaleSlope, data.RescaleIntercept = 2, -1
    data.PixelData = pixels(level, seed).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def series(folder: Path, image_type: str, seed: int = 0, **tags: object) -> None:
    uid = generate_uid()
    # File names in another order than the slices.
    for number, level in enumerate(np.random.default_rng(seed).permutation(LEVELS)):
        path = folder / f"DOE_{image_type}_{number:03d}"
        slice_file(path, int(level), uid=uid, image_type=image_type, seed=seed, **tags)


def test_a_dixon_pair_is_found_sorted_and_placed(tmp_path: Path) -> None:
    series(tmp_path / "sub-01" / "dicom", "W", 1)
    series(tmp_path / "sub-01" / "dicom", "F", 2)
    result = load_subject(tmp_path, "01", config=default_config().load)
    scan = canonicalise(result.value, config=default_config().canonicalise).value

    assert set(scan.images) == {Quantity.WATER, Quantity.FAT}
    assert "DICOM" in result.value.side_evidence[0]
    assert set(result.value.inputs) == {"dicom:water", "dicom:fat"}
    source = result.value.images[Quantity.WATER]
    assert source.grid.shape == (COLUMNS, ROWS, LEVELS)
    assert source.grid.voxel_sizes_mm == pytest.approx((1.25, 1.5, 4.0))
    # The first voxel of the lowest slice, LPS in the file, RAS here.
    np.testing.assert_allclose(source.grid.index_to_world([0, 0, 0]), [110, 60, -500], atol=1e-5)
    # A voxel that was stored at row 3, column 7 of slice 4.
    world = position(4) + 7 * SPACING[1] * ROW + 3 * SPACING[0] * COLUMN
    index = np.rint(scan.grid.world_to_index(world * (-1, -1, 1))).astype(int)
    expected = 2.0 * pixels(4, 1)[3, 7] - 1.0
    assert scan.images[Quantity.WATER].data[tuple(index)] == expected
    part = source.read((1, 2, 1), (9, 10, 6), 2)
    np.testing.assert_array_equal(
        part, source.read((0, 0, 0), source.grid.shape)[1:9:2, 2:10:2, 1:6:2]
    )


def test_one_series_may_hold_several_contrasts(tmp_path: Path) -> None:
    uid = generate_uid()
    for kind in ("W", "F"):
        for level in range(LEVELS):
            slice_file(tmp_path / f"{kind}{level}", level, uid=uid, image_type=kind)
    found, left = find_dicom(sorted(tmp_path.iterdir()), RULES)
    assert {one.quantity for one in found} == {Quantity.WATER, Quantity.FAT}
    assert left == []


@pytest.mark.parametrize(
    ("image_type", "name", "quantity"),
    [
        (("W",), "", Quantity.WATER),
        (("M", "DIXON", "WATER"), "t1_vibe_dixon_tra_F", Quantity.WATER),
        (("OP", "OP"), "", Quantity.OPPOSED_PHASE),
        (("IN_PHASE",), "", Quantity.IN_PHASE),
        (("FF", "FF"), "", Quantity.FAT_FRACTION),
        (("M",), "t1_vibe_dixon_tra_bh_W", Quantity.WATER),
        (("M",), "t1_vibe_dixon_tra_opp", Quantity.OPPOSED_PHASE),
        (("M",), "WATER: Ax T1 LAVA Flex", Quantity.WATER),
        (("M",), "InPhase: Ax LAVA", Quantity.IN_PHASE),
        (("M",), "mDIXON fat fraction", Quantity.FAT_FRACTION),
        (("M",), "t1_tse_tra", Quantity.T1W),
        (("M",), "t1_tse_fat_sat", Quantity.T1W),
        (("M",), "t1_std_tra", Quantity.T1W),
        (("M",), "T1 FatSup post op", Quantity.T1W),
        (("M",), "t2_tse_fs_post_op", Quantity.OTHER),
        (("M",), "tirm_tra", Quantity.OTHER),
        (("M",), "t1_vibe_dixon_tra", None),
        (("M",), "water excitation dess", None),
        (("T1", "NONE"), "", None),
        (("P", "WATER"), "", None),
        (("M", "LOCALIZER"), "t1 scout", None),
        (("M",), "t1_map_molli", None),
        (("M",), "T1 mapping cor", None),
        (("M",), "fat fraction error", None),
        (("M",), "pdff std", None),
        (("M",), "water frac", None),
        (("M",), "svs water ref", None),
        (("M",), "fat navigator", None),
        (("M",), "T1_Maps", None),
        (("M",), "t2map_tra", None),
        (("M", "T1 MAP"), "t1_molli", None),
        (("M", "T1_MAP"), "t1_molli", None),
        (("M", "T2 MAP"), "t2_tse", None),
        (("M", "R2_STAR_MAP"), "t1_vibe_dixon_tra_W", None),
        (("ADC",), "t1", None),
        (("M", "SUB"), "t1_fl3d_tra", None),
        (("M", "WATER", "SUB"), "t1_vibe_dixon_tra_W", None),
        ((), "", None),
    ],
)
def test_contrasts(image_type: tuple[str, ...], name: str, quantity: Quantity | None) -> None:
    header = Dataset()
    header.ImageType = ["ORIGINAL", "PRIMARY", *image_type]
    header.SeriesDescription = name
    facts = ImageFacts.of(header)
    contrast = None if no_image_reason(facts) else contrast_of(facts, RULES)
    found = None if contrast is None else contrast.shows
    assert found is quantity


def missing(folder: Path) -> None:
    series(folder, "W")
    for path in folder.iterdir():
        level = pydicom.dcmread(path).ImagePositionPatient
        if np.allclose(np.array(level, dtype=float), position(3), atol=1e-3):
            path.unlink()


def doubled(folder: Path) -> None:
    series(folder, "W")
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    slice_file(folder / "again", 3, uid=uid)


def turned(folder: Path) -> None:
    series(folder, "W")
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    slice_file(folder / "x", LEVELS, uid=uid, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])


def resized(folder: Path) -> None:
    series(folder, "W")
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    slice_file(folder / "x", LEVELS, uid=uid, PixelSpacing=[2, 2])


def tilted(folder: Path) -> None:
    uid = generate_uid()
    for level in range(LEVELS):
        place = [-110.0, -60.0 + level, -500.0 + level * STEP]
        slice_file(
            folder / str(level),
            level,
            uid=uid,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=place,
        )


def placeless(folder: Path) -> None:
    series(folder, "W")
    path = next(folder.iterdir())
    data = pydicom.dcmread(path)
    del data.ImagePositionPatient
    data.save_as(path)


def seven_cosines(folder: Path) -> None:
    series(folder, "W", ImageOrientationPatient=[1, 0, 0, 0, 1, 0, 0])


def single(folder: Path) -> None:
    slice_file(folder / "x", 0, uid=generate_uid())


def twice(folder: Path) -> None:
    series(folder / "a", "W")
    series(folder / "b", "W")


def damaged(folder: Path) -> None:
    series(folder, "W")
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, r"missing or uneven.*4\.000 mm.*8\.000 mm between slices 3 and 4"),
        (doubled, "several slices at one level.*1 of 7 slices"),
        (turned, "different orientation"),
        (resized, "different size"),
        (tilted, "sheared"),
        (placeless, "does not say where its slices lie"),
        (seven_cosines, "does not say where its slices lie"),
        (single, "too few slices"),
        (twice, "More than one image shows water"),
        (damaged, "DICOM file . of a series (cannot be decoded|does not hold)"),
    ],
)
def test_broken_series_are_refused_without_naming_the_person(
    tmp_path: Path, make: object, message: str
) -> None:
    make(tmp_path / "sub-01")
    config = default_config()
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        canonicalise(
            load_subject(tmp_path, "01", config=config.load).value, config=config.canonicalise
        )
    for secret in ("DOE", "JANE", "4711", "1970"):
        assert secret not in str(caught.value)


def test_dicom_of_no_known_contrast_is_counted_not_named(tmp_path: Path) -> None:
    series(tmp_path / "sub-01", "M", SeriesDescription="ep2d DOE")
    with pytest.raises(
        InputError,
        match=r"(?s)6 other files.*Series without a number .*: 6 files left out: its contrast is "
        "not known",
    ) as caught:
        load_subject(tmp_path, "01", config=default_config().load)
    assert "DOE" not in str(caught.value)


def enhanced(frame_types: list[str]) -> Dataset:
    header = Dataset()
    header.Rows, header.Columns, header.NumberOfFrames = ROWS, COLUMNS, len(frame_types)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(SPACING)
    orientation.ImageOrientationPatient = [*ROW, *COLUMN]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for level, kind in enumerate(frame_types):
        frame, place, what = Dataset(), Dataset(), Dataset()
        # Stored from the top downwards.
        place.ImagePositionPatient = [f"{v:.6f}" for v in position(-level)]
        what.FrameType = ["DERIVED", "PRIMARY", kind, "NONE"]
        frame.PlanePositionSequence = [place]
        frame.MRImageFrameTypeSequence = [what]
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = frames
    return header


def of_enhanced(path: Path, frame_types: list[str]) -> list[DicomSeries]:
    # Only its size is looked at before the pixels are decoded.
    path.write_bytes(bytes(1_000_000))
    planes = planes_of(path, enhanced(frame_types))
    quantities = [contrast_of(plane.facts, RULES).shows for plane in planes]
    return [
        DicomSeries(
            wanted, tuple(p for p, q in zip(planes, quantities, strict=True) if q is wanted)
        )
        for wanted in Quantity
        if wanted in quantities
    ]


def test_frames_of_an_enhanced_file_are_ordered_by_position(tmp_path: Path) -> None:
    (found,) = of_enhanced(tmp_path / "x", ["W"] * 5)
    source = open_dicom(found, largest_image_million_voxels=1)
    assert [plane.frame for plane in source.planes] == [4, 3, 2, 1, 0]
    assert source.grid.voxel_sizes_mm == pytest.approx((1.25, 1.5, 4.0))


def test_contrasts_that_alternate_in_one_enhanced_file_are_told_apart(tmp_path: Path) -> None:
    water, fat = of_enhanced(tmp_path / "x", ["W", "F"] * 4)
    assert [plane.frame for plane in water.planes] == [0, 2, 4, 6]
    assert [plane.frame for plane in fat.planes] == [1, 3, 5, 7]
    assert open_dicom(fat, largest_image_million_voxels=1).grid.voxel_sizes_mm[2] == pytest.approx(
        2 * STEP
    )


Frame = tuple[int, str, tuple[float, float] | None]


def enhanced_file(path: Path, frames: list[Frame], **tags: object) -> None:
    """A file of frames: level, what it shows, slope and intercept; stored values as in pixels()."""
    slice_file(path, 0, uid=generate_uid())
    data = pydicom.dcmread(path)
    for keyword in ("RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "PixelSpacing"):
        delattr(data, keyword)
    data.update(enhanced([kind for _, kind, _ in frames]))
    for (level, _, scale), frame in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.6f}" for v in position(level)]
        if scale is not None:
            frame.PixelValueTransformationSequence = [Dataset()]
            values = frame.PixelValueTransformationSequence[0]
            values.RescaleSlope, values.RescaleIntercept = scale
    data.PixelData = b"".join(pixels(level).tobytes() for level, _, _ in frames)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_frame_is_scaled_by_its_own_slope_and_intercept(
    tmp_path: Path, compressed: bool
) -> None:
    path = tmp_path / "sub-01" / "x"
    scales = {"W": [(1.0 + k, -1.0) for k in range(LEVELS)], "F": [(0.25, 2.0)] * LEVELS}
    enhanced_file(path, [(k, kind, scales[kind][k]) for k in range(LEVELS) for kind in "WF"])
    if compressed:
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    images = load_subject(tmp_path, "01", config=default_config().load).value.images
    for kind, quantity in (("W", Quantity.WATER), ("F", Quantity.FAT)):
        source = images[quantity]
        found = source.read((0, 0, 0), source.grid.shape)
        for level, (slope, intercept) in enumerate(scales[kind]):
            expected = pixels(level).T * slope + intercept
            np.testing.assert_allclose(found[:, :, level], expected, rtol=1e-6)
    cut = path.read_bytes()[:-60]
    path.write_bytes(cut)
    source = load_subject(tmp_path, "01", config=default_config().load).value.images[Quantity.FAT]
    with pytest.raises(InputError, match="cannot be decoded") as caught:
        source.read((0, 0, 0), source.grid.shape)
    assert "DOE" not in str(caught.value)


def test_a_scale_of_the_whole_file_or_of_all_frames_holds_for_each(tmp_path: Path) -> None:
    enhanced_file(tmp_path / "x", [(k, "W", None) for k in range(LEVELS)], RescaleSlope=3)
    data = pydicom.dcmread(tmp_path / "x")
    data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [Dataset()]
    data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleSlope = 5
    data.save_as(tmp_path / "y")
    for name, slope in (("x", 3), ("y", 5)):
        (found,), _ = find_dicom([tmp_path / name], RULES)
        source = open_dicom(found, largest_image_million_voxels=1)
        values = source.read((0, 0, 0), source.grid.shape)
        np.testing.assert_array_equal(values[:, :, 2], slope * pixels(2).T)


def test_frames_of_mixed_scales_are_refused_and_zero_is_no_scale(tmp_path: Path) -> None:
    scales = [(2.0, 0.0)] * (LEVELS - 1)
    enhanced_file(tmp_path / "x", [(k, "W", s) for k, s in enumerate([*scales, None])])
    (found,), _ = find_dicom([tmp_path / "x"], RULES)
    with pytest.raises(InputError, match=r"mixes slices whose values are scaled.*one in 5 of 6"):
        open_dicom(found, largest_image_million_voxels=1)
    enhanced_file(tmp_path / "x", [(k, "W", s) for k, s in enumerate([*scales, (0.0, 1.0)])])
    found_with_zero, (left,) = find_dicom([tmp_path / "x"], RULES)
    assert found_with_zero == []
    assert "RescaleSlope 0" in left.reason


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes that pydicom would not write."""
    content = path.read_bytes()
    assert content.count(old) > 0
    assert len(new) == len(old)
    path.write_bytes(content.replace(old, new))


def private_syntax(path: Path) -> str:
    decoy(path)
    rewrite(path, b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0")
    return "its transfer syntax is not known"


def two_syntaxes(path: Path) -> str:
    decoy(path)
    rewrite(path, b"1.2.840.10008.1.2.1\0", b"1.2.840\\10008.1.2.1\0")
    return "its transfer syntax is not known"


def damaged_frame(path: Path) -> str:
    enhanced_file(path, [(k, "W", None) for k in range(LEVELS)])
    rewrite(path, b"-110.0", b"-11\x9b.0")
    return "A DICOM header is damaged"


def unknown_type_in_a_frame(path: Path) -> str:
    enhanced_file(path, [(k, "W", (2.0, 0.0)) for k in range(LEVELS)])
    rewrite(path, b"\x28\x00\x45\x91SQ", b"\x28\x00\x45\x91S\x5c")
    return "A DICOM header is damaged"


def two_numbers_of_rows(path: Path) -> str:
    decoy(path)
    rewrite(path, b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00IS\x02\x00")
    return "A DICOM header is damaged"


@pytest.mark.parametrize(
    "make",
    [private_syntax, two_syntaxes, damaged_frame, unknown_type_in_a_frame, two_numbers_of_rows],
)
def test_a_file_that_cannot_be_read_is_left_out_beside_good_series(
    tmp_path: Path, make: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "sub-01"
    series(folder, "W", 1)
    series(folder, "F", 2)
    reason = make(folder / "DOE_foreign")
    result = load_subject(tmp_path, "01", config=default_config().load)
    assert set(result.value.images) == {Quantity.WATER, Quantity.FAT}
    (said,) = [f.message for f in result.findings if f.code == "left_out"]
    assert f"1 file left out: {reason}" in said
    assert "DOE" not in said + caplog.text


def decoy(path: Path, **tags: object) -> None:
    slice_file(path, 2, uid=generate_uid(), **tags)


def test_what_is_no_image_of_the_legs_is_left_out_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    series(folder, "W", 1)
    series(folder, "F", 2)
    series(folder, "M", 3, SeriesDescription="t1_tse_tra")
    series(folder / "other", "M", 4, SeriesDescription="t2_tse_tra")
    decoy(folder / "a", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    decoy(folder / "b", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    decoy(folder / "c", BurnedInAnnotation="YES")
    decoy(folder / "d", Modality="SR")
    decoy(folder / "e", ImageType=["ORIGINAL", "PRIMARY", "P"])
    decoy(folder / "f", ImageType=["DERIVED", "PRIMARY", "R2STAR"])
    (folder / "notes.txt").write_text("DOE")
    first = min(path for path in folder.iterdir() if path.name.startswith("DOE_W"))
    (folder / "copy").write_bytes(first.read_bytes())

    result = load_subject(tmp_path, "01", config=default_config().load)
    assert set(result.value.images) == {Quantity.WATER, Quantity.FAT}
    said = " ".join(f.message for f in result.findings if f.code == "left_out")
    for reason in (
        "a localiser",
        "screen shot",
        "burned into",
        "no MR image",
        "a phase image",
        "a relaxation map",
        "no DICOM image",
        "there twice",
        "6 files left out: T1-weighted",
        "6 files left out: of a weighting that does not tell fat",
    ):
        assert reason in said
    assert "DOE" not in said


def test_two_echoes_with_interleaved_instance_numbers(tmp_path: Path) -> None:
    uid = generate_uid()
    for level in range(LEVELS):
        for number, echo in enumerate((2.39, 4.78)):
            slice_file(
                tmp_path / f"{2 * level + number}",
                level,
                uid=uid,
                image_type="M",
                seed=number,
                SeriesDescription="t1_vibe_dixon_tra",
                EchoTime=echo,
                MagneticFieldStrength=1.5,
                InstanceNumber=2 * level + number + 1,
            )
    found, _ = find_dicom(sorted(tmp_path.iterdir()), RULES)
    assert {one.quantity: len(one.planes) for one in found} == {
        Quantity.OPPOSED_PHASE: LEVELS,
        Quantity.IN_PHASE: LEVELS,
    }


def test_series_are_called_by_their_number_and_say_what_told_their_contrast(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "sub-01"
    name = f"{PERSON}_vibe_dixon_F"
    series(folder, "W", 1, SeriesNumber=301, Manufacturer="SIEMENS")
    series(folder, "M", 2, SeriesNumber=302, Manufacturer="SIEMENS", SeriesDescription=name)
    series(folder, "X", 3, SeriesNumber=7)
    decoy(folder / "a", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesNumber=7)
    decoy(folder / "b", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    result = load_subject(tmp_path, "01", config=default_config().load)
    assert result.value.reasons == {
        "dicom:water": "Series 301, 6 files: water by ImageType w (rule 1 of 'siemens')",
        "dicom:fat": "Series 302, 6 files: fat by the last word f of the series' name "
        "(rule 2 of 'siemens')",
    }
    said = [f.message for f in result.findings if f.code == "left_out"]
    assert sum(message.startswith("Series 7 (place ") for message in said) == 2
    assert sum(message.startswith("Series without a number (place ") for message in said) == 1
    assert not [message for message in said if PERSON[:3] in message]


def repeats(folder: Path, *marks: str) -> None:
    """Water and fat once for each mark of distortion."""
    for number, (mark, kind) in enumerate(product(marks, "WF"), start=1):
        image_type = ["DERIVED", "PRIMARY", "DIXON", kind, mark]
        uid = generate_uid()
        for level in range(LEVELS):
            path = folder / f"{number}_{level}"
            slice_file(path, level, uid=uid, SeriesNumber=number, ImageType=image_type)


def test_of_a_scan_with_and_without_distortion_correction_the_corrected_one_is_used(
    tmp_path: Path,
) -> None:
    repeats(tmp_path / "sub-01", "ND", "DIS2D")
    result = load_subject(tmp_path, "01", config=default_config().load)
    assert {name: reason[:8] for name, reason in result.value.reasons.items()} == {
        "dicom:water": "Series 3",
        "dicom:fat": "Series 4",
    }
    said = [f.message for f in result.findings if f.code == "left_out"]
    assert [message[:8] for message in said] == ["Series 1", "Series 2"]
    assert all("distortion corrected is there" in message for message in said)


def test_other_repeats_are_refused_by_the_number_of_their_series(tmp_path: Path) -> None:
    repeats(tmp_path / "sub-01", "DIS2D", "DIS2D")
    with pytest.raises(InputError, match=r"Found: Series 2, .* and Series 4, .*What to do: move"):
        load_subject(tmp_path, "01", config=default_config().load)


def test_a_contrast_rule_of_ones_own_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "load:\n  own_dicom_contrasts:\n    acme:\n"
        "      - {shows: water, image_type: [aqua]}\n      - {shows: fat, name: lipid}\n"
    )
    config = load_config(path).load
    folder = tmp_path / "sub-01"
    series(folder, "AQUA", 1, Manufacturer="ACME Imaging")
    series(folder, "M", 2, Manufacturer="ACME Imaging", SeriesDescription="lipid_dixon")
    loaded = load_subject(tmp_path, "01", config=config).value
    assert set(loaded.images) == {Quantity.WATER, Quantity.FAT}


@pytest.mark.parametrize(
    "load",
    [
        {"own_dicom_contrasts": {"x": [{"shows": "water", "name": "("}]}},
        {"own_dicom_contrasts": {"(": [{"shows": "water", "name": "w"}]}},
        {"station_pattern": "station-("},
    ],
)
def test_what_is_no_regular_expression_is_refused(load: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="regular expression"):
        load_config(overrides={"load": load})


def tagged(folder: Path, **tags: object) -> Path:
    """A subject of water and fat with tags that speak of sides."""
    for number, kind in enumerate(("W", "F")):
        for level in range(LEVELS):
            path = folder / "sub-01" / f"{kind}{level}"
            path.parent.mkdir(parents=True, exist_ok=True)
            slice_file(path, level, uid=SERIES[number], image_type=kind, seed=number, **tags)
    return folder


def test_tags_that_agree_are_evidence_of_the_sides(tmp_path: Path) -> None:
    data = tagged(tmp_path, PatientOrientation=["L", "PH"], PatientPosition="HFS")
    result = load_subject(data, "01", config=default_config().load)
    assert result.value.side_evidence == (
        "position and orientation stated by the DICOM headers",
        "PatientOrientation says the same",
        "patient position HFS",
    )
    (finding,) = result.findings
    assert finding.code == "side_unproven"
    for evidence in result.value.side_evidence:
        assert evidence in finding.message
    assert "heart and liver are not looked for" in finding.message


def test_two_orientations_in_one_header_are_refused(tmp_path: Path) -> None:
    data = tagged(tmp_path, PatientOrientation=["R", "P"])
    with pytest.raises(InputError, match=r"two orientations that disagree.*Found: R by the one"):
        load_subject(data, "01", config=default_config().load)


@pytest.mark.parametrize(("laterality", "doubted"), [("R", True), ("B", False)])
def test_a_laterality_of_one_side_is_doubted(
    tmp_path: Path, laterality: str, doubted: bool
) -> None:
    data = tagged(tmp_path, Laterality=laterality)
    found = [f.code for f in load_subject(data, "01", config=default_config().load).findings]
    assert ("laterality_of_one_side" in found) == doubted


def test_series_in_different_patient_positions_are_told(tmp_path: Path) -> None:
    data = tagged(tmp_path, PatientPosition="HFS")
    for path in (data / "sub-01").glob("F*"):
        header = pydicom.dcmread(path)
        header.PatientPosition = "FFS"
        header.save_as(path)
    found = [f.code for f in load_subject(data, "01", config=default_config().load).findings]
    assert "patient_positions_differ" in found


@pytest.mark.parametrize(
    ("fat", "message"),
    [
        ({"PatientID": "4712"}, "of 2 persons.*one with Series 5; one with Series 6"),
        (
            {"StudyInstanceUID": "1.2.3.2", "StudyDate": "20260103"},
            "of 2 examinations.*one with Series 5; one with",
        ),
    ],
)
def test_images_of_two_persons_or_examinations_are_refused(
    tmp_path: Path, fat: dict[str, str], message: str
) -> None:
    origin = {"PatientID": "4711", "StudyInstanceUID": "1.2.3.1", "StudyDate": "20260102"}
    series(tmp_path / "sub-01", "W", 1, SeriesNumber=5, **origin)
    series(tmp_path / "sub-01", "F", 2, SeriesNumber=6, **{**origin, **fat})
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        load_subject(tmp_path, "01", config=default_config().load)
    for secret in ("DOE", "4711", "4712", "1.2.3"):
        assert secret not in str(caught.value)


def _one_by_one(data: Path, **of_fat: str) -> str:
    """Water and fat with an examination each, as an anonymiser left them; what is said of it."""
    series(data / "sub-01", "W", 1, SeriesNumber=5, StudyInstanceUID="1.2.3.1")
    fat = {"StudyInstanceUID": "1.2.3.2", **of_fat}
    series(data / "sub-01", "F", 2, SeriesNumber=6, **fat)
    result = load_subject(data, "01", config=default_config().load)
    assert set(result.value.images) == {Quantity.WATER, Quantity.FAT}
    return " ".join(f.code for f in result.findings)


@pytest.mark.parametrize(
    "fat",
    [
        {},
        {"FrameOfReferenceUID": "1.2.3.9"},
        {"PatientID": "", "PatientName": ""},
        {"StudyDate": "20260102", "AcquisitionTime": "101112.5"},
    ],
)
def test_an_examination_for_each_series_is_one_where_all_else_agrees(
    tmp_path: Path, fat: dict[str, str]
) -> None:
    said = _one_by_one(tmp_path, **fat)
    assert "examination_per_series" in said
    assert "frames_of_reference_differ" not in said


@pytest.mark.parametrize(
    ("fat", "why"),
    [
        ({"PatientID": "4712"}, "of 2 persons"),
        ({"PatientName": "ROE^RICHARD"}, "different values of PatientName"),
        ({"PatientBirthDate": "19710101"}, "different values of PatientBirthDate"),
    ],
)
def test_but_not_where_anything_speaks_against_it(
    tmp_path: Path, fat: dict[str, str], why: str
) -> None:
    with pytest.raises(InputError, match=why) as caught:
        _one_by_one(tmp_path, **fat)
    assert "ROE" not in str(caught.value)
    assert "1971" not in str(caught.value)


@pytest.mark.parametrize(
    ("water", "fat", "why"),
    [
        ({"StudyDate": "20260102"}, {"StudyDate": "20260103"}, "different values of StudyDate"),
        ({"StudyTime": "101112"}, {"StudyTime": "141112"}, "different values of StudyTime"),
        ({"AcquisitionTime": "080000"}, {"AcquisitionTime": "160000"}, "8.0 hours apart"),
        ({"StationName": "MR1"}, {"StationName": "MR2"}, "different values of StationName"),
    ],
)
def test_nor_where_dates_or_scanners_differ(
    tmp_path: Path, water: dict[str, str], fat: dict[str, str], why: str
) -> None:
    series(tmp_path / "sub-01", "W", 1, StudyInstanceUID="1.2.3.1", **water)
    series(tmp_path / "sub-01", "F", 2, StudyInstanceUID="1.2.3.2", **fat)
    with pytest.raises(InputError, match=why):
        load_subject(tmp_path, "01", config=default_config().load)


def _above(folder: Path, kind: str, number: int, **tags: str) -> None:
    """A series of a station above that of series()."""
    for level in range(LEVELS):
        slice_file(
            folder / f"{kind}{number}-{level}",
            level + LEVELS,
            uid=f"1.2.4.{number}",
            image_type=kind,
            **tags,
        )


@pytest.mark.parametrize("shared", [True, False])
def test_stations_of_an_examination_each_need_a_frame_of_reference(
    tmp_path: Path, shared: bool
) -> None:
    for number, (make, kind) in enumerate(
        [(series, "W"), (series, "F"), (_above, "W"), (_above, "F")], start=1
    ):
        frame = "1.2.5" if shared else f"1.2.5.{number}"
        tags = {"StudyInstanceUID": f"1.2.3.{number}", "FrameOfReferenceUID": frame}
        make(tmp_path / "sub-01", kind, number, **tags)
    if shared:
        result = load_subject(tmp_path, "01", config=default_config().load)
        assert len(result.value.stations) == 2
        return
    with pytest.raises(InputError, match="neither a frame of reference nor their places"):
        load_subject(tmp_path, "01", config=default_config().load)


def test_two_examinations_of_two_series_each_stay_two(tmp_path: Path) -> None:
    for number, (make, kind) in enumerate(
        [(series, "W"), (series, "F"), (_above, "W"), (_above, "F")]
    ):
        tags = {"StudyInstanceUID": f"1.2.3.{number // 2}", "FrameOfReferenceUID": "1.2.5"}
        make(tmp_path / "sub-01", kind, number, **tags)
    with pytest.raises(InputError, match="of 2 examinations"):
        load_subject(tmp_path, "01", config=default_config().load)


def test_slices_that_are_there_twice_are_called_so(tmp_path: Path) -> None:
    """Copies with numbers of their own: the distance from one to the next is 0 for most."""
    for kind in ("W", "F"):
        series(tmp_path / "sub-01", kind, 1)
    for path in list((tmp_path / "sub-01").iterdir()):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(path.with_name(f"again{path.name}"))
    with pytest.raises(InputError, match=r"several slices at one level.*6 of 12 slices"):
        load_subject(tmp_path, "01", config=default_config().load)


def test_one_slice_of_another_person_is_refused(tmp_path: Path) -> None:
    data = tagged(tmp_path)
    slice_file(data / "sub-01" / "F3", 3, uid=SERIES[1], image_type="F", PatientID="4712")
    with pytest.raises(InputError, match="of 2 persons"):
        load_subject(data, "01", config=default_config().load)


def test_what_is_not_stated_or_not_used_is_no_other_person(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    series(folder, "W", 1, PatientID="4711", StudyInstanceUID="1.2.3.1")
    series(folder, "F", 2, PatientID="")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    decoy(folder / "x", ImageType=scout, PatientID="4712", StudyInstanceUID="1.2.3.2")
    loaded = load_subject(tmp_path, "01", config=default_config().load)
    assert set(loaded.value.images) == {Quantity.WATER, Quantity.FAT}


@pytest.mark.parametrize(("fat", "doubted"), [("1.2.3.1", False), ("1.2.3.2", True), ("", False)])
def test_other_frames_of_reference_are_told(tmp_path: Path, fat: str, doubted: bool) -> None:
    series(tmp_path / "sub-01", "W", 1, FrameOfReferenceUID="1.2.3.1")
    series(tmp_path / "sub-01", "F", 2, FrameOfReferenceUID=fat)
    findings = load_subject(tmp_path, "01", config=default_config().load).findings
    assert ("frames_of_reference_differ" in [f.code for f in findings]) == doubted


def philips_scale(data: Dataset, slope: float) -> None:
    block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0E, "FL", slope)


def philips(folder: Path, slopes: dict[str, float | None]) -> None:
    """Series of rescale slope 2 and intercept -1, stored values as in pixels()."""
    for kind, slope in slopes.items():
        series(folder / kind, kind)
        for path in (folder / kind).iterdir():
            data = pydicom.dcmread(path)
            if slope is not None:
                philips_scale(data, slope)
            data.save_as(path)


def level_2(data: Path, quantity: Quantity) -> np.ndarray:
    source = load_subject(data, "01", config=default_config().load).value.images[quantity]
    return source.read((0, 0, 2), (COLUMNS, ROWS, 3))[:, :, 0]


def test_philips_images_are_put_on_one_scale_and_fractions_keep_theirs(tmp_path: Path) -> None:
    slopes = {"W": 0.01, "F": 0.04, "IP": 0.02, "OP": 0.05, "FF": 0.5}
    philips(tmp_path / "sub-01", dict(slopes))
    shown = {
        "W": Quantity.WATER,
        "F": Quantity.FAT,
        "IP": Quantity.IN_PHASE,
        "OP": Quantity.OPPOSED_PHASE,
    }
    scaled = 2.0 * pixels(2).T - 1.0
    for kind, quantity in shown.items():
        expected = scaled / (2.0 * slopes[kind])
        np.testing.assert_allclose(level_2(tmp_path, quantity), expected, rtol=1e-5)
    np.testing.assert_allclose(level_2(tmp_path, Quantity.FAT_FRACTION), scaled)


def test_philips_frames_are_put_on_one_scale(tmp_path: Path) -> None:
    path = tmp_path / "sub-01" / "x"
    enhanced_file(path, [(k, kind, (2.0, -1.0)) for kind in "WF" for k in range(LEVELS)])
    data = pydicom.dcmread(path)
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        values = Dataset()
        philips_scale(values, 0.01 if number < LEVELS else 0.04)
        block = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        block.add_new(0x0F, "SQ", [values])
    data.save_as(path)
    for quantity, slope in ((Quantity.WATER, 0.01), (Quantity.FAT, 0.04)):
        expected = (2.0 * pixels(2).T - 1.0) / (2.0 * slope)
        np.testing.assert_allclose(level_2(tmp_path, quantity), expected, rtol=1e-5)


def test_a_philips_scale_of_some_images_is_refused(tmp_path: Path) -> None:
    philips(tmp_path / "sub-01", {"W": 0.01, "F": None})
    with pytest.raises(InputError, match=r"how Philips scaled.*one in 6 of 12 slices"):
        load_subject(tmp_path, "01", config=default_config().load)
