"""What fakes a difference or a fat fraction: T1 bias, noise, distortion, place, chemical shift."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from bodies import GIVEN, VOXEL_MM, body, loaded
from matches import unregistered
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from scanner import SECRETS, save, slice_of
from test_scans import random_scan, swapped

from pipeline import (
    MUSCLES,
    OWN_SCHEME,
    ArraySource,
    Grid,
    LimbMeasures,
    LoadedSubject,
    Side,
    canonicalise,
    load_config,
    load_subject,
    measure,
    register,
    segment,
    separate_legs,
)
from pipeline.core.errors import ConfigError
from pipeline.core.results import Finding, Severity, Status
from pipeline.core.scan import FAT_SHIFT_HZ_PER_T, SCANNER_SPACE, ScanSettings, SegmentedLegs
from pipeline.core.soft import Confidence
from pipeline.core.volume import DixonPair, Quantity, Volume
from pipeline.imaging.noise import fraction_of_noise
from pipeline.imaging.spoiled_echo import fat_gain, signal_fraction, steady_state
from pipeline.imaging.swaps import doubted_swaps
from pipeline.imaging.tissue import fat_fraction
from pipeline.io.contrast import ImageFacts
from pipeline.io.dicom_planes import planes_of, read_header
from pipeline.io.nifti import write_volume
from pipeline.io.settings import agreed, settings_of_header, settings_of_sidecar
from pipeline.measuring.images import fading_surfaces
from pipeline.phantom import Acquisition, Scan, acquire, grid_for

W, F, FF = Quantity.WATER, Quantity.FAT, Quantity.FAT_FRACTION
CONFIG = GIVEN
#: A scan whose T1 bias is large.
STRONG = ScanSettings(field_t=3.0, repetition_ms=10.0, flip_deg=15.0, gradient_echo=True)
MUSCLE_MS, FAT_MS = 1420.0, 371.0


@lru_cache(maxsize=8)
def thighs(snr: float | None = 50.0) -> Scan:
    """Both thighs of the test person on a coarse grid."""
    whole = grid_for(body(), VOXEL_MM)
    grid = whole.crop((0, 0, 84), (whole.shape[0], whole.shape[1], 116))
    return acquire(body(), Acquisition(grid, snr=snr, seed=1))


def codes(findings: tuple[Finding, ...] | list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


def told(findings: tuple[Finding, ...], start: str) -> Finding:
    (found,) = [finding for finding in findings if finding.code.startswith(start)]
    return found


# T1 bias: the kernel


def test_the_steady_state_at_90_degrees_and_after_full_recovery() -> None:
    # sin 90 = 1 and cos 90 = 0 leave what one repetition recovers.
    assert steady_state(400.0, 100.0, 90.0) == pytest.approx(1.0 - math.exp(-0.25))
    assert steady_state(400.0, 8000.0, 30.0) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(("flip", "gain"), [(3.0, 1.20), (5.0, 1.49), (10.0, 2.30)])
def test_the_gain_of_a_population_study_protocol(flip: float, gain: float) -> None:
    """Derived elsewhere for T1 of 1420 and 370 ms and a repetition time of 6.69 ms."""
    assert fat_gain(1420.0, 370.0, repetition_ms=6.69, flip_deg=flip) == pytest.approx(
        gain, abs=0.005
    )


def test_without_a_difference_of_t1_nothing_is_gained_and_no_flip_gains_nothing() -> None:
    assert fat_gain(900.0, 900.0, repetition_ms=10.0, flip_deg=20.0) == 1.0
    assert fat_gain(1420.0, 371.0, repetition_ms=10.0, flip_deg=0.01) == pytest.approx(1, abs=1e-5)
    assert signal_fraction(0.3, 1.0) == pytest.approx(0.3)


def test_the_corrected_fraction_undoes_the_bias_and_is_monotone() -> None:
    gain = fat_gain(MUSCLE_MS, FAT_MS, repetition_ms=10.0, flip_deg=15.0)
    true = np.linspace(0.0, 1.0, 101)
    grid = Grid((101, 1, 1), np.eye(4), SCANNER_SPACE)
    water, fat = 500.0 * (1.0 - true), 500.0 * gain * true
    pair = DixonPair(
        Volume(water.reshape(-1, 1, 1).astype(np.float32), grid, W),
        Volume(fat.reshape(-1, 1, 1).astype(np.float32), grid, F),
        np.ones((101, 1, 1), dtype=bool),
        gain,
    )
    corrected = fat_fraction(pair).ravel()
    np.testing.assert_allclose(corrected, true, atol=1e-6)
    biased = fat_fraction(replace(pair, fat_gain=1.0)).ravel()
    np.testing.assert_allclose(biased, [signal_fraction(t, gain) for t in true], atol=1e-6)
    assert np.all(np.diff(corrected) > 0)
    assert biased[10] > 0.2


# T1 bias: what becomes of a scan


def spoiled(scan: Scan) -> Scan:
    """The scan as STRONG shows it: water and fat weighted by their T1."""
    flip, kept = math.radians(15.0), {W: math.exp(-10.0 / MUSCLE_MS), F: math.exp(-10.0 / FAT_MS)}
    images = {
        q: volume.with_data(
            volume.data
            * np.float32(10.0 * math.sin(flip) * (1 - kept[q]) / (1 - kept[q] * math.cos(flip)))
        )
        for q, volume in scan.images.items()
    }
    return replace(scan, images=images)


def stated(scan: Scan, *settings: ScanSettings) -> LoadedSubject:
    return replace(loaded(scan), settings={W: settings, F: settings})


def muscle_fractions(subject: LoadedSubject) -> tuple[dict[tuple[str, Side], float], list[Finding]]:
    """Mean fat fraction of every muscle under its true label."""
    result = canonicalise(subject, config=CONFIG.canonicalise)
    scan = result.value
    fractions = fat_fraction(scan.dixon)
    labels = scan.labels.data
    means = {}
    for muscle in MUSCLES:
        for side in Side:
            mine = labels == OWN_SCHEME.value_of(muscle.name, side)
            if np.count_nonzero(mine) >= 20:
                means[muscle.name, side] = float(np.nanmean(fractions[mine]))
    assert len(means) > 20
    return means, list(result.findings)


def test_a_phantom_of_10_ms_and_15_degrees_at_3_t_gets_its_true_fat_fractions() -> None:
    clean = thighs(None)
    truth, _ = muscle_fractions(loaded(clean))
    scan = spoiled(clean)
    biased, said = muscle_fractions(loaded(scan))
    assert told(said, "t1_bias").code == "t1_bias_unknown"
    corrected, said = muscle_fractions(stated(scan, STRONG))
    note = told(said, "t1_bias")
    assert note.code == "t1_bias_corrected"
    assert note.severity is Severity.INFO
    gain = fat_gain(MUSCLE_MS, FAT_MS, repetition_ms=10.0, flip_deg=15.0)
    assert note.value == pytest.approx(100 * signal_fraction(0.1, gain) - 10)
    before = [100 * (biased[key] - truth[key]) for key in truth]
    after = [100 * (corrected[key] - truth[key]) for key in truth]
    # A few voxels of thin muscles are mostly fat and lose or gain their validity.
    assert min(before) > 4.0
    assert max(map(abs, after)) < 0.1
    # Both sides are treated alike.
    sides = [("vastus_lateralis", side) for side in Side]
    assert corrected[sides[0]] - corrected[sides[1]] == pytest.approx(
        truth[sides[0]] - truth[sides[1]], abs=1e-3
    )


def test_the_images_stay_what_was_measured() -> None:
    scan = canonicalise(stated(thighs(), STRONG), config=CONFIG.canonicalise).value
    plain = canonicalise(loaded(thighs()), config=CONFIG.canonicalise).value
    assert scan.dixon.fat_gain > 2
    for quantity in (W, F):
        np.testing.assert_array_equal(scan.images[quantity].data, plain.images[quantity].data)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ((replace(STRONG, flip_deg=2.0),), "t1_bias_corrected", "flip angle 2 degrees"),
        ((replace(STRONG, flip_deg=0.5),), "t1_bias_negligible", "was left"),
        ((replace(STRONG, flip_deg=None),), "t1_bias_unknown", "not stated: flip angle"),
        ((replace(STRONG, gradient_echo=False),), "t1_bias_unknown", "spoiled gradient echo"),
        ((replace(STRONG, field_t=7.0),), "t1_bias_unknown", "at 7 T"),
        ((STRONG, replace(STRONG, flip_deg=10.0)), "t1_bias_unknown", "differ"),
        ((replace(STRONG, field_t=2.89),), "t1_bias_corrected", "2.89 T"),
        ((), "t1_bias_unknown", "field strength, flip angle, repetition time"),
    ],
)
def test_what_is_said_of_the_t1_bias(
    settings: tuple[ScanSettings, ...], code: str, words: str
) -> None:
    result = canonicalise(stated(thighs(), *settings), config=CONFIG.canonicalise)
    note = told(result.findings, "t1_bias")
    assert note.code == code
    assert words in note.message
    assert (result.value.dixon.fat_gain == 1.0) == (code != "t1_bias_corrected")


def test_the_configuration_leaves_the_bias() -> None:
    config = load_config(overrides={"canonicalise": {"correct_t1_bias": False}}).canonicalise
    result = canonicalise(stated(thighs(), STRONG), config=config)
    assert told(result.findings, "t1_bias").code == "t1_bias_left"
    assert result.value.dixon.fat_gain == 1.0


# What headers and sidecars say

ROW, COLUMN = [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]


def header(**fields: object) -> Dataset:
    data = Dataset()
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    data.ImageOrientationPatient = [*ROW, *COLUMN]
    data.MagneticFieldStrength, data.RepetitionTime, data.FlipAngle = "1.494", "7.1", "12"
    data.ScanningSequence, data.PixelBandwidth = ["GR"], "390"
    data.InPlanePhaseEncodingDirection = "COL"
    for name, value in fields.items():
        setattr(data, name, value)
    return data


def of_header(data: Dataset, frame: Dataset | None = None) -> ScanSettings:
    return settings_of_header(data, frame, ImageFacts.of(data, frame).image_type)


def test_settings_of_a_dicom_header() -> None:
    found = of_header(header())
    assert found == ScanSettings(
        field_t=1.494,
        repetition_ms=7.1,
        flip_deg=12.0,
        gradient_echo=True,
        bandwidth_hz=390.0,
        frequency_axis=(-1.0, 0.0, 0.0),
        distortion_corrected=False,
        from_isocentre=True,
    )
    other = of_header(
        header(
            InPlanePhaseEncodingDirection="ROW",
            ImageType=["DERIVED", "PRIMARY", "DIXON", "WATER", "DIS3D"],
            ScanningSequence=["SE"],
            FlipAngle=None,
        )
    )
    # Left-posterior of DICOM is right-anterior here.
    assert other.frequency_axis == pytest.approx((0.0, -0.8, -0.6))
    assert (other.distortion_corrected, other.gradient_echo, other.flip_deg) == (True, False, None)
    vague = of_header(header(ImageType=["ORIGINAL", "PRIMARY", "W", "W"], ScanningSequence=None))
    assert (vague.distortion_corrected, vague.gradient_echo) == (None, True)
    slow = of_header(header(ScanningSequence=None, RepetitionTime="600"))
    assert slow.gradient_echo is None
    assert of_header(header(SteadyStatePulseSequence="FREE_PRECESSION")).gradient_echo is False


def test_a_frame_of_an_enhanced_file_comes_first() -> None:
    frame = Dataset()
    frame.FrameType = ["ORIGINAL", "PRIMARY", "WATER", "DIS2D"]
    frame.RepetitionTime, frame.FlipAngle, frame.PixelBandwidth = 5.0, 8.0, 900.0
    frame.InPlanePhaseEncodingDirection, frame.ImageOrientationPatient = "ROW", [*ROW, *COLUMN]
    whole = Dataset()
    whole.MagneticFieldStrength, whole.EchoPulseSequence, whole.FlipAngle = 3.0, "GRADIENT", 90.0
    found = of_header(whole, frame)
    assert (found.field_t, found.repetition_ms, found.flip_deg) == (3.0, 5.0, 8.0)
    assert (found.gradient_echo, found.distortion_corrected) == (True, True)
    assert found.frequency_axis == pytest.approx((0.0, -0.8, -0.6))


MARKS = (*CONFIG.load.own_distortion_marks, *CONFIG.load.distortion_marks)
SIEMENS_XA = ("SIEMENS MR SDI 02", 0x0021, 0x75)
GE = ("GEMS_PARM_01", 0x0043, 0x2D)
PHILIPS = ("Philips MR Imaging DD 001", 0x2005, 0xA9)


def marked(place: tuple[str, int, int], value: object, **fields: object) -> Dataset:
    creator, group, element = place
    data = header(ImageType=["ORIGINAL", "PRIMARY", "M"], **fields)
    # Another creator has the first block: the element is found by the name of its own.
    data.private_block(group, "SOMEONE ELSE", create=True).add_new(element, "LO", "w dis3d 3d")
    data.private_block(group, creator, create=True).add_new(element, "LO", value)
    return data


@pytest.mark.parametrize(
    ("place", "value", "corrected"),
    [
        (SIEMENS_XA, ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"], True),
        (SIEMENS_XA, ["ORIGINAL", "PRIMARY", "M", "ND"], False),
        (SIEMENS_XA, ["ORIGINAL", "PRIMARY", "M", "INDEX"], None),
        (GE, "ws", True),
        (GE, "s", None),
        (PHILIPS, "3D", True),
        (PHILIPS, "DEFAULT", None),
        (("ACME", 0x0043, 0x2D), "ws", None),
    ],
)
@pytest.mark.parametrize("implicit", [True, False])
def test_private_elements_that_say_whether_distortion_was_corrected(
    tmp_path: Path,
    place: tuple[str, int, int],
    value: object,
    corrected: bool | None,
    implicit: bool,
) -> None:
    data = marked(place, value, Rows=4, Columns=4, SOPClassUID=MRImageStorage)
    data.SOPInstanceUID = generate_uid()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    )
    path = tmp_path / "x"
    data.save_as(path, enforce_file_format=True)
    (plane,) = planes_of(path, read_header(path, MARKS), MARKS)
    assert plane.settings.distortion_corrected is corrected
    (plane,) = planes_of(path, read_header(path))
    assert plane.settings.distortion_corrected is None


def test_the_words_of_image_type_come_before_private_elements() -> None:
    data = marked(GE, "ws")
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    found = settings_of_header(data, None, ImageFacts.of(data).image_type, marks=MARKS)
    assert found.distortion_corrected is False


def test_a_mark_of_ones_own_comes_first_and_must_be_private() -> None:
    own = {"creator": "ACME", "group": 0x0043, "element": 1, "value": "^yes$", "corrected": True}
    load = load_config(overrides={"load": {"own_distortion_marks": [own]}}).load
    data = marked(("ACME", 0x0043, 1), "YES")
    found = settings_of_header(data, None, (), marks=load.own_distortion_marks)
    assert found.distortion_corrected is True
    with pytest.raises(ConfigError, match="odd group"):
        load_config(overrides={"load": {"own_distortion_marks": [{**own, "group": 0x0028}]}})


def test_private_groups_of_a_frame_are_asked_too(tmp_path: Path) -> None:
    creator, group, element = SIEMENS_XA
    private = Dataset()
    private.private_block(group, creator, create=True).add_new(
        element, "CS", ["ORIGINAL", "PRIMARY", "M", "DIS3D"]
    )
    frame = Dataset()
    frame.private_block(group, creator, create=True).add_new(0xFE, "SQ", [private])
    whole = header(ImageType=["ORIGINAL", "PRIMARY", "M"], Rows=4, Columns=4)
    whole.PerFrameFunctionalGroupsSequence = [frame]
    (plane,) = planes_of(tmp_path / "x", whole, MARKS)
    assert plane.settings.distortion_corrected is True


def test_what_slices_state_differently_is_not_stated() -> None:
    assert agreed([STRONG, replace(STRONG, flip_deg=10.0)]) == replace(STRONG, flip_deg=None)
    assert agreed([]) == ScanSettings()


SIDECAR: Mapping[str, object] = {
    "MagneticFieldStrength": 3,
    "RepetitionTime": 0.01,
    "FlipAngle": 15,
    "PixelBandwidth": 250,
    "ScanningSequence": "GR",
    "PhaseEncodingDirection": "j-",
    "NonlinearGradientCorrection": False,
    "EchoTime": 0.00246,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"PhaseEncodingDirection": "i"}, {"frequency_axis": (0.0, 1.0, 0.0)}),
        ({"PhaseEncodingDirection": "k"}, {"frequency_axis": None}),
        (
            {
                "PhaseEncodingDirection": "j",
                "InPlanePhaseEncodingDirectionDICOM": "ROW",
                "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0],
            },
            {"frequency_axis": (0.0, -1.0, 0.0)},
        ),
        (
            {"NonlinearGradientCorrection": None, "ImageType": ["ORIGINAL", "W", "DIS2D"]},
            {"distortion_corrected": True},
        ),
        ({"RepetitionTimeExcitation": 0.008}, {"repetition_ms": pytest.approx(8.0)}),
        ({"FlipAngle": "fifteen", "PixelBandwidth": -3}, {"flip_deg": None, "bandwidth_hz": None}),
        ({"MagneticFieldStrength": float("nan")}, {"field_t": None}),
    ],
)
def test_settings_of_a_sidecar(
    tmp_path: Path, changes: dict[str, object], expected: dict[str, object]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**SIDECAR, **changes}))
    grid = Grid((4, 4, 4), np.diag([2.0, 3.0, 5.0, 1.0]), SCANNER_SPACE)
    found = settings_of_sidecar(path, grid)
    usual = ScanSettings(
        field_t=3.0,
        repetition_ms=10.0,
        flip_deg=15.0,
        gradient_echo=True,
        bandwidth_hz=250.0,
        frequency_axis=(1.0, 0.0, 0.0),
        distortion_corrected=False,
    )
    for name, value in expected.items():
        assert getattr(found, name) == value
    assert replace(found, **{n: getattr(usual, n) for n in expected}) == usual


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "[" * 100_000, "\x00"])
def test_a_sidecar_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "sub-01"
    folder.mkdir()
    for quantity, volume in thighs().images.items():
        write_volume(folder / f"x_{quantity}.nii.gz", volume, dtype=np.int16)
    (folder / "x_water.json").write_text(text)
    result = load_subject(tmp_path, "01", config=CONFIG.load)
    assert "sidecar_unreadable" in codes(result.findings)
    assert result.value.settings[W] == (ScanSettings(),)
    assert set(result.value.inputs) == {"nifti:water", "nifti:fat"}


def test_sidecars_of_nifti_correct_and_give_nothing_else_away(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    folder.mkdir()
    smuggled = {
        "PatientName": SECRETS[0],
        "AccessionNumber": SECRETS[3],
        "InstitutionName": SECRETS[4],
        "ImageType": [SECRETS[0], SECRETS[5]],
        "ScanningSequence": SECRETS[1],
        "PhaseEncodingDirection": SECRETS[4],
        "InPlanePhaseEncodingDirectionDICOM": SECRETS[5],
    }
    for quantity, volume in thighs().images.items():
        write_volume(folder / f"x_{quantity}.nii.gz", volume, dtype=np.int16)
        (folder / f"x_{quantity}.json").write_text(json.dumps({**SIDECAR, **smuggled}))
    result = load_subject(tmp_path, "01", config=CONFIG.load)
    assert {"nifti:water:json", "nifti:fat:json"} <= result.value.inputs.keys()
    assert result.value.files["nifti:fat:json"] == "x_fat.json"
    scan = canonicalise(result.value, config=CONFIG.canonicalise)
    assert told(scan.findings, "t1_bias").code == "t1_bias_corrected"
    said = repr((result.findings, result.value, scan.findings))
    assert not [secret for secret in SECRETS if secret in said]


# What may fake a difference


def write_dicom(folder: Path, scan: Scan, *, moved_mm: float = 0.0, **tags: object) -> None:
    """Water and fat as DICOM, the body moved to the right in the magnet."""
    folder.mkdir(parents=True)
    for number, (quantity, volume) in enumerate(scan.images.items()):
        affine = volume.grid.affine.copy()
        affine[0, 3] += moved_mm
        grid = Grid(volume.grid.shape, affine, volume.grid.space)
        for level in range(grid.shape[2]):
            data = slice_of(grid, volume.data[:, :, level], level)
            data.SeriesInstanceUID = f"1.2.{number}"
            data.ImageType = ["DERIVED", "PRIMARY", str(quantity).upper(), "ND"]
            for name, value in tags.items():
                setattr(data, name, value)
            save(data, folder / f"{number}{level}")


def measured(
    subject: LoadedSubject, *, registered: bool = False
) -> tuple[LimbMeasures, list[Finding], SegmentedLegs]:
    """What is measured with given labels, and all that was noticed; registration takes time."""
    scan = canonicalise(subject, config=CONFIG.canonicalise)
    legs = separate_legs(scan.value, config=CONFIG.separate)
    segmented = segment(legs.value, config=CONFIG.segment).value
    match = (
        register(segmented, config=CONFIG.register_).value
        if registered
        else unregistered(segmented)
    )
    result = measure(segmented, match, config=CONFIG.measure)
    findings = [*scan.findings, *legs.findings, *result.findings]
    return result.value, findings, segmented


def test_caveats_reach_every_difference(tmp_path: Path) -> None:
    write_dicom(
        tmp_path / "sub-01",
        thighs(),
        moved_mm=70.0,
        MagneticFieldStrength=3.0,
        PixelBandwidth=200.0,
        # Phase along the columns: the frequency runs across the legs.
        InPlanePhaseEncodingDirection="COL",
        ScanningSequence=SECRETS[0],
    )
    subject = load_subject(tmp_path, "01", config=CONFIG.load)
    grid = subject.value.images[W].grid
    with_labels = replace(
        loaded(thighs()),
        images=subject.value.images,
        settings=subject.value.settings,
    )
    labels = replace(with_labels.labels, grid=grid)
    shown = thighs().labels.grid
    # The file stores its rows in another order than the array the labels are in.
    turned = np.sign(np.linalg.solve(grid.affine[:3, :3], shown.affine[:3, :3])).astype(int)
    assert np.array_equal(turned, np.eye(3, dtype=int))
    limb, findings, segmented = measured(replace(with_labels, labels=labels))
    expected = ("distortion_not_corrected", "chemical_shift_across_legs", "off_isocentre")
    assert segmented.caveats == expected
    compared = [m for m in limb.muscles if m.asymmetry.index_percent is not None]
    assert len(compared) >= 2
    for muscle in compared:
        assert muscle.asymmetry.caveats == expected
        assert muscle.asymmetry_total_volume.caveats == expected
        assert muscle.asymmetry.verdict is not None
    by_code = {finding.code: finding for finding in findings}
    shift = FAT_SHIFT_HZ_PER_T * 3.0 / 200.0
    assert by_code["chemical_shift_across_legs"].value == pytest.approx(shift * VOXEL_MM[0])
    aside = by_code["off_isocentre"]
    assert aside.value == pytest.approx(70.0, abs=5.0)
    assert aside.side is Side.RIGHT
    assert "acquisition_not_stated" not in by_code
    said = " ".join(finding.message for finding in (*subject.findings, *findings))
    assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize(("share", "doubted"), [(0.8, False), (0.4, True)])
def test_one_leg_in_the_dark_is_a_caveat(share: float, doubted: bool) -> None:
    subject = loaded(thighs())
    left = np.arange(thighs().labels.grid.shape[0]) < thighs().labels.grid.shape[0] / 2
    shade = np.where(left, share, 1.0)[:, None, None]
    images = {q: ArraySource(s.data * shade, s.grid) for q, s in subject.images.items()}
    scan = canonicalise(replace(subject, images=images), config=CONFIG.canonicalise)
    result = separate_legs(scan.value, config=CONFIG.separate)
    dark = [f for f in result.findings if f.code == "legs_unlike_bright"]
    assert [f.side for f in dark] == ([Side.LEFT] if doubted else [])
    assert ("legs_unlike_bright" in result.value.caveats) is doubted
    assert all(f.value == pytest.approx(1.0 / share, rel=0.1) for f in dark)


@pytest.mark.parametrize(
    "changes",
    [
        {"bandwidth_hz": 2000.0},
        {"frequency_axis": (0.1, 0.995, 0.0)},
        {"distortion_corrected": True, "bandwidth_hz": 2000.0},
    ],
)
def test_settings_that_fake_nothing_are_no_caveat(changes: dict[str, object]) -> None:
    usual = replace(
        STRONG,
        bandwidth_hz=200.0,
        frequency_axis=(1.0, 0.0, 0.0),
        distortion_corrected=True,
        from_isocentre=True,
    )
    result = canonicalise(stated(thighs(), usual), config=CONFIG.canonicalise)
    assert result.value.caveats == ("chemical_shift_across_legs",)
    harmless = replace(usual, **changes)
    result = canonicalise(stated(thighs(), harmless), config=CONFIG.canonicalise)
    assert result.value.caveats == ()


def test_positions_of_nifti_are_not_taken_for_those_in_the_magnet() -> None:
    scan = thighs()
    affine = scan.labels.grid.affine.copy()
    affine[0, 3] += 300.0
    grid = Grid(scan.labels.grid.shape, affine, scan.labels.grid.space)
    moved = replace(
        scan,
        images={q: Volume(v.data, grid, q) for q, v in scan.images.items()},
        labels=replace(scan.labels, grid=grid),
    )
    result = canonicalise(loaded(moved), config=CONFIG.canonicalise)
    legs = separate_legs(result.value, config=CONFIG.separate)
    assert "off_isocentre" not in codes(legs.findings)
    assert "where in the magnet" in told(result.findings, "acquisition_not_stated").message


# Noise


def test_the_floor_is_what_noise_alone_reads_as() -> None:
    rng = np.random.default_rng(3)
    real, imaginary = rng.normal(0.0, 20.0, (2, 200_000))
    fat, water = np.hypot(real, imaginary), 800.0
    assert fraction_of_noise(20.0, water) == pytest.approx(np.mean(fat / (fat + water)), rel=0.02)
    assert fraction_of_noise(20.0, water, 2.0) == pytest.approx(
        np.mean(fat / (fat + 2 * water)), rel=0.02
    )


@pytest.mark.parametrize("snr", [50.0, 15.0])
def test_the_noise_floor_of_each_leg_is_told(snr: float) -> None:
    _, findings, _ = measured(loaded(thighs(snr)))
    floors = [finding for finding in findings if finding.code.startswith("noise_floor")]
    assert {finding.side for finding in floors} == set(Side)
    expected = 100 * math.sqrt(math.pi / 2) / (math.sqrt(math.pi / 2) + snr)
    for finding in floors:
        assert finding.value == pytest.approx(expected, rel=0.1)
        assert (finding.code == "noise_floor_high") == (snr < 30)
        assert (finding.severity is Severity.WARNING) == (snr < 30)


def test_a_weak_side_is_a_caveat_on_lean_volume_alone() -> None:
    scan = thighs()
    rng = np.random.default_rng(4)
    shape = scan.labels.grid.shape
    # The signal falls to the left, as under a coil to one side; the noise does not.
    coil = np.linspace(0.3, 1.0, shape[0], dtype=np.float32)[:, None, None]
    images = {}
    for quantity, volume in scan.images.items():
        real, imaginary = rng.normal(0.0, 20.0, (2, *shape))
        signal = np.hypot(volume.data * coil + real, imaginary)
        images[quantity] = volume.with_data(signal.astype(np.float32))
    limb, findings, _ = measured(loaded(replace(scan, images=images)))
    differs = told(tuple(findings), "noise_floors_differ")
    assert differs.side is Side.LEFT
    # Whole in these levels.
    muscle = next(m for m in limb.muscles if m.name == "adductor_longus")
    assert muscle.asymmetry.caveats == ("noise_floors_differ",)
    assert muscle.asymmetry_total_volume.caveats == ()


@pytest.mark.parametrize("brighter", [1.1, 1.5])
def test_fat_that_is_brighter_in_one_leg_is_a_caveat_on_lean_volume_alone(brighter: float) -> None:
    """A coil makes water and fat of one leg brighter alike; what was done to fat alone is told."""
    scan = thighs()
    right = np.arange(scan.labels.grid.shape[0]) >= scan.labels.grid.shape[0] // 2
    coil = np.where(right, np.float32(2.0), np.float32(1.0))[:, None, None]
    fat_alone = np.where(right, np.float32(brighter), np.float32(1.0))[:, None, None]
    images = {
        W: scan.images[W].with_data(scan.images[W].data * coil),
        F: scan.images[F].with_data(scan.images[F].data * coil * fat_alone),
    }
    limb, findings, _ = measured(loaded(replace(scan, images=images)))
    muscle = next(m for m in limb.muscles if m.name == "adductor_longus")
    if brighter < 1.25:
        assert "fat_unlike_bright" not in codes(findings)
        return
    finding = told(tuple(findings), "fat_unlike_bright")
    assert finding.side is Side.RIGHT
    assert finding.value == pytest.approx(brighter, rel=0.1)
    assert "fat_unlike_bright" in muscle.asymmetry.caveats
    assert "fat_unlike_bright" not in muscle.asymmetry_total_volume.caveats


def test_blanked_air_leaves_the_noise_unknown() -> None:
    scan = thighs()
    body_only = scan.images[W].data + scan.images[F].data > 150
    images = {q: v.with_data(v.data * body_only) for q, v in scan.images.items()}
    _, findings, _ = measured(loaded(replace(scan, images=images)))
    assert "noise_floor_unknown" in codes(findings)


# Parts of a leg that were not imaged


def without(scan: Scan, gone: np.ndarray, unlabelled: np.ndarray) -> Scan:
    """The scan with nothing in some voxels, and no label in others."""
    images = {q: v.with_data(np.where(gone, np.float32(0), v.data)) for q, v in scan.images.items()}
    labels = replace(scan.labels, data=np.where(unlabelled, 0, scan.labels.data).astype(np.uint8))
    return replace(scan, images=images, labels=labels)


def outer_part(scan: Scan, side: Side, mm: float) -> np.ndarray:
    """What lies further outside than so much short of the outermost vastus lateralis."""
    x = scan.labels.grid.index_to_world(
        np.stack(np.indices(scan.labels.grid.shape), axis=-1).astype(float)
    )[..., 0]
    out = x if side is Side.RIGHT else -x
    lateralis = scan.labels.data == OWN_SCHEME.value_of("vastus_lateralis", side)
    return np.asarray(out > out[lateralis].max() - mm)


def test_a_muscle_that_an_edge_of_the_images_cuts_is_not_compared() -> None:
    scan, side = thighs(), Side.LEFT
    # Where the images end is padded with zeros; labels end 3 mm before it, as those of a network.
    gone, unlabelled = (outer_part(scan, side, mm) for mm in (12.0, 15.0))
    limb, _, _ = measured(loaded(without(scan, gone, unlabelled)), registered=True)
    named = {m.name: m for m in limb.muscles} | {g.name: g for g in limb.groups}
    cut = named["vastus_lateralis"]
    assert getattr(cut, side).status is Status.TRUNCATED
    assert "cut by the outer edge of the field of view" in getattr(cut, side).reason
    assert "edge" not in getattr(cut, side.other).reason
    for row in (cut, named["quadriceps"], named["thigh_anterior"]):
        for asymmetry in (row.asymmetry, row.asymmetry_total_volume):
            assert asymmetry.index_percent is None
            assert asymmetry.verdict is None
            assert "no part of it is known that both legs show" in asymmetry.reason
    # What lies further inside is compared as before.
    for name in ("gracilis", "thigh_medial"):
        assert named[name].asymmetry.verdict is not None


@pytest.mark.parametrize("side", Side)
def test_muscle_without_fat_beneath_the_skin_goes_on_outside_the_images(side: Side) -> None:
    """Where air is blanked, padding beside a leg looks like air."""
    scan = thighs()
    total = scan.images[W].data + scan.images[F].data
    gone = outer_part(scan, side, 14.0)
    limb, findings, _ = measured(loaded(without(scan, gone | (total < 150), gone)), registered=True)
    finding = told(tuple(findings), "cut_aside")
    assert finding.side is side
    named = {m.name: m for m in limb.muscles}
    cut = named["vastus_lateralis"]
    assert "cut by the outer edge of the field of view" in getattr(cut, side).reason
    assert cut.asymmetry.index_percent is None
    assert named["gracilis"].asymmetry.verdict is not None
    whole, findings, _ = measured(loaded(without(scan, total < 150, np.zeros_like(gone))))
    assert "cut_aside" not in codes(findings)
    reasons = [getattr(m, s).reason for m in whole.muscles for s in Side]
    assert not [reason for reason in reasons if reason and "outer edge" in reason]


@lru_cache(maxsize=1)
def undisturbed_thighs() -> LimbMeasures:
    """What is measured of the thighs as they are."""
    return measured(loaded(thighs()), registered=True)[0]


@pytest.mark.parametrize("side", Side)
def test_levels_on_which_one_leg_alone_is_dim_are_not_seen(side: Side) -> None:
    """It moved, or slices were lost: without those levels the legs are compared as before."""
    scan = thighs()
    half = np.arange(scan.labels.grid.shape[0]) >= scan.labels.grid.shape[0] // 2
    dim = np.zeros(scan.labels.grid.shape, dtype=bool)
    dim[half if side is Side.RIGHT else ~half, :, 14:17] = True
    images = {
        q: v.with_data(np.where(dim, np.float32(0.3) * v.data, v.data))
        for q, v in scan.images.items()
    }
    # As a network labels them: not at all there, but for stray voxels.
    stray = dim & (np.random.default_rng(2).random(dim.shape) > 0.02)
    lost = replace(without(scan, np.zeros_like(dim), stray), images=images)
    limb, findings, _ = measured(loaded(lost), registered=True)
    finding = told(tuple(findings), "levels_dim")
    assert (finding.side, finding.value) == (side, pytest.approx(3 * VOXEL_MM[2]))
    for name in ("adductor_magnus", "vastus_lateralis"):
        old, new = (
            next(m for m in x.muscles if m.name == name) for x in (undisturbed_thighs(), limb)
        )
        assert "cut by a gap in what was seen" in getattr(new, side).reason
        assert new.asymmetry.caveats == ("levels_dim",)
        assert new.asymmetry_total_volume.index_percent == pytest.approx(
            old.asymmetry_total_volume.index_percent, abs=3.0
        )
    both = {
        q: v.with_data(np.where(dim | dim[::-1], np.float32(0.3) * v.data, v.data))
        for q, v in scan.images.items()
    }
    canonical = canonicalise(loaded(replace(scan, images=both)), config=CONFIG.canonicalise).value
    findings = list(separate_legs(canonical, config=CONFIG.separate).findings)
    assert "levels_dim" not in codes(findings)
    # A map of fractions beside the images does not get dimmer; and a caveat is named once.
    elsewhere = np.roll(dim[::-1], 5, axis=2)
    fraction = scan.images[Quantity.WATER]
    mapped = {
        **{
            q: v.with_data(np.where(dim | elsewhere, np.float32(3e-4), np.float32(1e-3)) * v.data)
            for q, v in scan.images.items()
        },
        Quantity.FAT_FRACTION: Volume(
            np.full_like(fraction.data, 0.5), fraction.grid, Quantity.FAT_FRACTION, "1"
        ),
    }
    canonical = canonicalise(loaded(scan), config=CONFIG.canonicalise).value
    result = separate_legs(replace(canonical, images=mapped), config=CONFIG.separate)
    dims = {finding.side for finding in result.findings if finding.code == "levels_dim"}
    assert dims == set(Side)
    assert result.value.caveats.count("levels_dim") == 1


@pytest.mark.parametrize(("mm", "doubted"), [(15.0, False), (60.0, True)])
def test_of_a_leg_cut_far_inside_no_label_of_a_network_is_trusted(mm: float, doubted: bool) -> None:
    scan, side = thighs(), Side.LEFT
    gone = outer_part(scan, side, mm)
    _, _, drawn = measured(loaded(without(scan, gone, gone)))
    sure = {muscle.name: Confidence(1.0, (1.0, 1.0, 1.0)) for muscle in MUSCLES}
    right, left = (replace(leg, confidence=sure) for leg in (drawn.right, drawn.left))
    found = replace(drawn, right=right, left=left)
    for legs, expected in ((drawn, False), (found, doubted)):
        limb = measure(legs, unregistered(legs), config=CONFIG.measure).value
        gracilis = next(m for m in limb.muscles if m.name == "gracilis")
        reason = getattr(gracilis, side).why_doubted
        assert (reason is not None and "edge of the images" in reason) == expected
        assert getattr(gracilis, side.other).why_doubted is None


def faded(scan: Scan, side: Side) -> Scan:
    """The scan under a coil that does not reach the outer 30 mm of one leg."""
    grid = scan.labels.grid
    x = grid.index_to_world(np.argwhere(scan.labels.data > 0))[:, 0]
    columns = grid.index_to_world(
        np.stack([np.arange(grid.shape[0]), *np.zeros((2, grid.shape[0]))], 1)
    )[:, 0]
    beyond = x.max() - columns if side is Side.RIGHT else columns - x.min()
    reach = np.clip((beyond + 10.0) / 40.0, 0.05, 1.0).astype(np.float32)[:, None, None]
    return replace(scan, images={q: v.with_data(v.data * reach) for q, v in scan.images.items()})


@pytest.mark.parametrize("side", Side)
def test_where_the_signal_of_one_leg_fades_to_a_side_nothing_is_judged(side: Side) -> None:
    scan = thighs()
    _, findings, _ = measured(loaded(scan))
    assert "signal_fades" not in codes(findings)
    limb, findings, _ = measured(loaded(faded(scan, side)))
    finding = told(tuple(findings), "signal_fades")
    assert finding.side is side
    assert "outer side" in finding.message
    named = {m.name: m for m in limb.muscles}
    assert "fades" in getattr(named["vastus_lateralis"], side).why_doubted
    assert getattr(named["vastus_lateralis"], side.other).why_doubted is None
    assert getattr(named["gracilis"], side).why_doubted is None
    assert "signal_fades" in named["adductor_longus"].asymmetry.caveats


def test_a_side_is_held_against_what_is_seen_of_the_other_leg_alone() -> None:
    _, _, legs = measured(loaded(faded(thighs(), Side.LEFT)))
    levels = len(legs.right.leg.seen)
    half = np.arange(levels) < 2 * levels // 3
    right = replace(legs.right, leg=replace(legs.right.leg, seen=legs.right.leg.seen & half))
    found = fading_surfaces(replace(legs, right=right), CONFIG.measure)
    assert found[Side.RIGHT] == {}
    told_of = found[Side.LEFT]["outer"].any(axis=(0, 1))
    assert told_of[half].any()
    assert not told_of[~half].any()


@pytest.mark.parametrize("side", Side)
def test_beside_a_part_without_signal_nothing_is_judged(side: Side) -> None:
    scan = thighs()
    grid = scan.labels.grid
    _, findings, _ = measured(loaded(scan))
    assert "no_signal" not in codes(findings)
    muscle = np.argwhere(scan.labels.data == OWN_SCHEME.value_of("vastus_intermedius", side))
    middle = grid.index_to_world(np.median(muscle, axis=0))
    points = grid.index_to_world(np.stack(np.indices(grid.shape), axis=-1).astype(float))
    metal = np.linalg.norm(points - middle, axis=-1) < 22.0
    limb, findings, _ = measured(loaded(without(scan, metal, metal)))
    finding = told(findings, "no_signal")
    assert finding.side is side
    # 4/3 pi 22^3 mm^3, where it is at least 16 mm across.
    assert finding.value == pytest.approx(44.6, rel=0.15)
    named = {m.name: m for m in limb.muscles} | {g.name: g for g in limb.groups}
    beside = named["vastus_intermedius"]
    mine = getattr(beside, side)
    # Cut by the levels too, which must not hide it.
    assert mine.status is Status.TRUNCATED
    assert "without signal" in mine.doubt
    assert mine.why_doubted == mine.doubt
    assert mine.doubt in mine.reason
    assert "cut by the lower end of the field of view" in mine.reason
    assert mine.volume_whole_ml is None
    assert getattr(beside, side.other).status is Status.TRUNCATED
    assert getattr(beside, side.other).doubt is None
    for name in ("quadriceps", "thigh_anterior", "limb"):
        assert "unreliable" in getattr(named[name], side).why_doubted
        assert named[name].asymmetry.verdict is None
    far = named["adductor_longus"].asymmetry
    assert far.verdict is not None
    assert far.caveats == ("no_signal",)


# Swaps that cannot be undone


def fraction_map(scan: Scan) -> Volume:
    water, fat = scan.images[W].data, scan.images[F].data
    total = water + fat
    shown = np.divide(fat, total, out=np.zeros_like(fat), where=total > 150)
    return Volume(shown, scan.labels.grid, FF, "1")


@pytest.mark.parametrize("side", Side)
def test_a_fraction_map_with_one_leg_of_one_station_inverted_makes_it_unreliable(
    side: Side,
) -> None:
    scan = thighs()
    grid = scan.labels.grid
    volume = fraction_map(scan)
    clean, findings, _ = measured(loaded(replace(scan, images={FF: volume})))
    assert "fat_water_swap_not_corrected" not in codes(findings)
    data = volume.data.copy()
    data[:, :, 8:24] = fraction_map(swapped(scan, side)).data[:, :, 8:24]
    limb, findings, _ = measured(loaded(replace(scan, images={FF: volume.with_data(data)})))
    (finding,) = [f for f in findings if f.code == "fat_water_swap_not_corrected"]
    assert finding.side is side
    assert finding.severity is Severity.ERROR
    low, high = (float(grid.index_to_world([0, 0, k])[2]) for k in (8, 23))
    assert f"from {low:.0f} to {high:.0f} mm" in finding.message
    unreliable = 0
    for muscle, before in zip(limb.muscles, clean.muscles, strict=True):
        mine, other = getattr(muscle, side), getattr(muscle, side.other)
        assert other.status is getattr(before, side.other).status
        assert muscle.asymmetry.verdict is None
        assert muscle.asymmetry_total_volume.verdict is None
        if getattr(before, side).status is not Status.ABSENT:
            assert "water and fat look exchanged" in mine.why_doubted
            assert mine.why_doubted in mine.reason
            assert mine.volume_in_view_ml == getattr(before, side).volume_in_view_ml
            unreliable += 1
    assert unreliable > 15
    assert any(muscle.asymmetry.verdict is not None for muscle in clean.muscles)
    assert all(group.asymmetry.verdict is None for group in limb.groups)


@pytest.mark.parametrize("levels", [slice(0, 32), slice(10, 20)])
def test_a_swap_is_seen_in_a_water_image_alone(levels: slice) -> None:
    scan = thighs()
    labels = scan.labels.data
    muscle = (labels > 100) & (labels % 100 <= 30)
    outside = (labels == 0) | (labels < 100)

    def found(image: np.ndarray) -> list[tuple[float, float]]:
        return doubted_swaps(image, muscle, outside, scan.labels.grid, of_water=True)

    image = scan.images[W].data.copy()
    assert found(image) == []
    image[:, :, levels] = scan.images[F].data[:, :, levels]
    ((low, high),) = found(image)
    z = [
        float(scan.labels.grid.index_to_world([0, 0, k])[2])
        for k in (levels.start, levels.stop - 1)
    ]
    assert (low, high) == pytest.approx(tuple(z))


@pytest.mark.parametrize("levels", [slice(9, 10), slice(0, 2), slice(20, 32)])
def test_a_swap_of_a_few_levels_is_seen_in_a_fraction_map(levels: slice) -> None:
    scan = thighs()
    grid, labels = scan.labels.grid, scan.labels.data
    muscle = (labels > 100) & (labels % 100 <= 30)
    image = fraction_map(scan).data.copy()

    def found() -> list[tuple[float, float]]:
        return doubted_swaps(image, muscle, labels == 0, grid, of_water=False)

    assert found() == []
    image[:, :, levels] = 1.0 - image[:, :, levels]
    z = [float(grid.index_to_world([0, 0, k])[2]) for k in (levels.start, levels.stop - 1)]
    assert found() == [pytest.approx(tuple(z))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_no_leg_of_a_random_phantom_is_doubted(seed: int) -> None:
    scan = random_scan(seed)
    for images in (scan.images, {FF: fraction_map(scan)}, {W: scan.images[W]}):
        _, findings, _ = measured(loaded(replace(scan, images=images)))
        assert "fat_water_swap_not_corrected" not in codes(findings)
