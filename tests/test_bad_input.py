"""Bad input: each kind is refused with its own message and exit code, before anything is made."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.config import default_config, load_config
from pipeline.core.errors import ConfigError, InputError, UsageError
from pipeline.core.volume import Quantity
from pipeline.stages.canonicalise import canonicalise
from pipeline.stages.load import load_subject

SHAPE = (12, 10, 8)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def save(
    path: Path, data: np.ndarray | None = None, affine: np.ndarray | None = AFFINE
) -> nib.Nifti1Image:
    if data is None:
        data = np.random.default_rng(7).integers(1, 500, SHAPE).astype(np.int16)
    image = nib.Nifti1Image(data, affine)
    if affine is not None:
        image.set_qform(affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return image


def good(folder: Path) -> None:
    save(folder / "a_water.nii.gz")
    save(folder / "a_fat.nii.gz", np.random.default_rng(9).integers(1, 500, SHAPE).astype(np.int16))


def rewrite_header(path: Path, change: Callable[[nib.Nifti1Header], None]) -> None:
    """Change header bytes that nibabel would not write."""
    content = gzip.decompress(path.read_bytes())
    header = nib.Nifti1Header(content[:348], check=False)
    change(header)
    path.write_bytes(gzip.compress(header.binaryblock + content[348:]))


def process(data: Path, subject: str = "01", **options: object) -> None:
    config = default_config()
    loaded = load_subject(data, subject, config=config.load, **options)
    canonicalise(loaded.value, config=config.canonicalise)


def nothing(folder: Path) -> None:
    folder.mkdir()


def unmatched(folder: Path) -> None:
    save(folder / "a_scan.nii.gz")


def empty_file(folder: Path) -> None:
    good(folder)
    (folder / "a_fat.nii.gz").write_bytes(b"")


def truncated(folder: Path) -> None:
    good(folder)
    data = np.random.default_rng(8).integers(0, 30000, (40, 40, 40)).astype(np.int16)
    for name in ("water", "fat"):
        save(folder / f"a_{name}.nii.gz", data)
    content = (folder / "a_fat.nii.gz").read_bytes()
    (folder / "a_fat.nii.gz").write_bytes(content[: len(content) // 2])


def truncated_plain(folder: Path) -> None:
    save(folder / "a_T1w.nii")
    content = (folder / "a_T1w.nii").read_bytes()
    (folder / "a_T1w.nii").write_bytes(content[:-10])


def no_nifti(folder: Path) -> None:
    good(folder)
    (folder / "a_fat.nii.gz").write_bytes(b"not an image at all" * 50)


def other_shape(folder: Path) -> None:
    good(folder)
    save(folder / "a_fat.nii.gz", np.ones((12, 10, 9), dtype=np.int16))


def other_place(folder: Path) -> None:
    good(folder)
    moved = AFFINE.copy()
    moved[2, 3] = 4.0
    save(folder / "a_fat.nii.gz", affine=moved)


def four_dimensions(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz", np.ones((*SHAPE, 3), dtype=np.int16))


def not_a_number(folder: Path) -> None:
    good(folder)
    data = np.ones(SHAPE, dtype=np.float32)
    data[3, 3, 3] = np.nan
    save(folder / "a_fat.nii.gz", data)


def all_zero(folder: Path) -> None:
    good(folder)
    save(folder / "a_fat.nii.gz", np.zeros(SHAPE, dtype=np.int16))


def constant(folder: Path) -> None:
    good(folder)
    save(folder / "a_water.nii.gz", np.full(SHAPE, 7, dtype=np.int16))


def mask(folder: Path) -> None:
    good(folder)
    data = np.zeros(SHAPE, dtype=np.int16)
    data[3:7, 3:7] = 1
    save(folder / "a_water.nii.gz", data)


def complex_values(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz", np.ones(SHAPE, dtype=np.complex64))


def flat_affine(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz")

    def change(header: nib.Nifti1Header) -> None:
        header["srow_z"] = 0.0

    rewrite_header(folder / "a_T1w.nii.gz", change)


def forms_disagree(folder: Path) -> None:
    image = save(folder / "a_T1w.nii.gz")
    moved = AFFINE.copy()
    moved[0, 3] = 12.5
    image.set_qform(moved, code=1)
    nib.save(image, folder / "a_T1w.nii.gz")


def no_forms(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz", affine=None)


def copied(folder: Path) -> None:
    good(folder)
    image = save(folder / "a_water.nii.gz")
    save(folder / "a_fat.nii.gz", np.asarray(image.dataobj) * 3)


def air_filled(folder: Path) -> None:
    good(folder)
    values = np.asarray(nib.load(folder / "a_water.nii.gz").dataobj).astype(np.float32)
    values[:3] = -700.0
    save(folder / "a_water.nii.gz", values)


def no_affine(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz", affine=np.eye(4))


def in_an_atlas(folder: Path) -> None:
    image = save(folder / "a_T1w.nii.gz")
    image.set_qform(None, code=0)
    image.set_sform(AFFINE, code=4)
    nib.save(image, folder / "a_T1w.nii.gz")


def unit(code: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save(folder / "a_T1w.nii.gz")

        def change(header: nib.Nifti1Header) -> None:
            header["xyzt_units"] = code

        rewrite_header(folder / "a_T1w.nii.gz", change)

    return make


def absurd(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz")

    def change(header: nib.Nifti1Header) -> None:
        header["dim"] = [3, 32000, 32000, 32000, 1, 1, 1, 1]

    rewrite_header(folder / "a_T1w.nii.gz", change)


def declares_more_than_it_holds(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save(folder / "a_T1w.nii.gz")

        def change(header: nib.Nifti1Header) -> None:
            header["dim"] = [3, 1250, 1250, 1250, 1, 1, 1, 1]

        rewrite_header(folder / "a_T1w.nii.gz", change)
        if suffix == ".nii":
            content = gzip.decompress((folder / "a_T1w.nii.gz").read_bytes())
            (folder / "a_T1w.nii").write_bytes(content)
            (folder / "a_T1w.nii.gz").unlink()

    return make


def no_voxel_size(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz")

    def change(header: nib.Nifti1Header) -> None:
        header["sform_code"] = 0
        header["pixdim"][1] = 0.0

    rewrite_header(folder / "a_T1w.nii.gz", change)


def negative(folder: Path) -> None:
    save(folder / "a_T1w.nii.gz")

    def change(header: nib.Nifti1Header) -> None:
        header["dim"] = [3, -12, 10, 8, 1, 1, 1, 1]

    rewrite_header(folder / "a_T1w.nii.gz", change)


def labels(data: np.ndarray, affine: np.ndarray = AFFINE) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        good(folder)
        save(folder / "a_dseg.nii.gz", data, affine)

    return make


def two_of_a_kind(folder: Path) -> None:
    good(folder)
    save(folder / "b_water.nii.gz")


def large_fractions(folder: Path) -> None:
    save(folder / "a_FF.nii.gz", np.arange(960, dtype=np.int16).reshape(SHAPE))


MOVED = AFFINE.copy()
MOVED[0, 3] = 6.0
LABELS = np.zeros(SHAPE, dtype=np.uint8)
LABELS[2:5] = 77
HALVES = np.zeros(SHAPE, dtype=np.float32)
HALVES[2] = 0.5

CASES = {
    "no usable image, empty folder": (nothing, "no image that can be used.*an empty folder"),
    "no usable image, other names": (
        unmatched,
        "no image that can be used.*NIfTI files: 1 file left out",
    ),
    "empty file": (empty_file, "fat image is empty.*0 bytes"),
    "truncated .nii.gz": (truncated, "fat image is truncated or damaged.*copy or export"),
    "truncated .nii": (truncated_plain, "T1w image is truncated or damaged.*10 bytes missing"),
    "no NIfTI inside": (no_nifti, "fat image is not a readable NIfTI image"),
    "grids of other shape": (other_shape, "different grids.*12 x 10 x 8.*12 x 10 x 9"),
    "grids elsewhere": (other_place, r"different grids.*corners up to 4\.0 mm apart"),
    "4D": (four_dimensions, "has 4 dimensions.*12 x 10 x 8 x 3"),
    "NaN": (not_a_number, "fat image has voxels that are not numbers.*1 NaN"),
    "all zero": (all_zero, "fat image is empty: every voxel is 0"),
    "constant": (constant, "water image is empty: every voxel is 7"),
    "a mask": (mask, "water image is a mask: it has two values only.*0 and 1.*_dseg"),
    "complex": (complex_values, "does not hold plain numbers.*complex64"),
    "determinant 0": (flat_affine, "does not span a volume"),
    "qform and sform disagree": (forms_disagree, r"disagree.*12\.5 mm; first corner \[0"),
    "neither qform nor sform": (no_forms, "does not say how it lies.*sform code 0"),
    "water copied as fat": (copied, "one and the same image.*correlation of 1.0000"),
    "air filled with -700": (air_filled, r"water image is far below zero in \d+ % of its voxels"),
    "the identity in the place of an affine": (no_affine, "no size and no position.*identity"),
    "stretched to an atlas": (in_an_atlas, "space of an atlas.*sform code 4"),
    "metres": (unit(1), "states its lengths in metres.*millimetres"),
    "microns": (unit(3), "states its lengths in microns"),
    "absurd size": (absurd, "declares a size that cannot be right.*32000 x 32000 x 32000"),
    "more declared than a .nii holds": (
        declares_more_than_it_holds(".nii"),
        "T1w image is truncated.*1250 x 1250 x 1250.*3906248080 bytes missing",
    ),
    "more declared than a .nii.gz can hold": (
        declares_more_than_it_holds(".nii.gz"),
        r"T1w image is truncated.*1250 x 1250 x 1250.*at least \d+ bytes missing",
    ),
    "no voxel size": (no_voxel_size, "does not state its voxel size.*pixdim 0 x 2 x 3"),
    "negative size": (negative, "T1w image"),
    "labels without a meaning": (labels(LABELS), r"without a meaning.*1-30, 41-47.*Found: 77"),
    "labels on another grid": (labels(LABELS, MOVED), r"labels image lie on different grids"),
    "labels between integers": (labels(HALVES), r"between the integers.*0\.5"),
    "two files of one kind": (two_of_a_kind, "more than one water file.*2 files"),
    "fractions of no known scale": (large_fractions, "neither in fractions nor in percent"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_images(tmp_path: Path, case: str) -> None:
    make, message = CASES[case]
    make(tmp_path / "sub-01")
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        process(tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.expected
    assert caught.value.found
    assert str(tmp_path) not in str(caught.value).replace(f"in {tmp_path}", "")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_declared_size_is_refused_before_it_is_read(tmp_path: Path, suffix: str) -> None:
    declares_more_than_it_holds(suffix)(tmp_path / "sub-01")
    with pytest.raises(InputError, match="bytes missing"):
        load_subject(tmp_path, "01", config=default_config().load)


def test_a_missing_subject_lists_near_names(tmp_path: Path) -> None:
    for name in ("sub-011", "sub-02", "sub-77"):
        good(tmp_path / name)
    with pytest.raises(InputError, match=r"no subject sub-01 .*sub-011"):
        process(tmp_path)
    with pytest.raises(InputError, match=r"data folder .* is not there"):
        process(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../sub-01", "sub-01/anat", "", "sub-"])
def test_a_subject_that_is_a_path(tmp_path: Path, name: str) -> None:
    good(tmp_path / "sub-01")
    with pytest.raises(UsageError) as caught:
        process(tmp_path, name)
    assert caught.value.exit_code == 2


def test_several_sessions_and_none_named(tmp_path: Path) -> None:
    good(tmp_path / "sub-01" / "ses-a")
    good(tmp_path / "sub-01" / "ses-b")
    with pytest.raises(UsageError, match=r"several sessions.*ses-a, ses-b"):
        process(tmp_path)
    process(tmp_path, session="a")


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    good(tmp_path / "sub-01")
    with pytest.raises(InputError, match="label map is not there") as caught:
        process(tmp_path, labels=tmp_path / "mine.nii.gz")
    assert caught.value.private == str(tmp_path / "mine.nii.gz")


def test_labels_of_an_unknown_scheme(tmp_path: Path) -> None:
    labels(np.ones(SHAPE, dtype=np.uint8))(tmp_path / "sub-01")
    with pytest.raises(ConfigError, match="Unknown label scheme"):
        process(tmp_path, label_scheme="nonsense")


def test_a_dangling_link(tmp_path: Path) -> None:
    good(tmp_path / "sub-01")
    (tmp_path / "sub-01" / "b_T1w.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(InputError, match="T1w image cannot be read") as caught:
        process(tmp_path)
    assert caught.value.private == "b_T1w.nii.gz"


@pytest.mark.parametrize(
    ("load", "told"),
    [
        ({"patterns": {"watter": ["_W"]}}, r"load\.patterns\.watter.*write water"),
        ({"dicom_contrasts": {"acme": []}}, r"contrasts\.acme.*put it below own_dicom_contrasts"),
    ],
)
def test_entries_that_do_not_exist(load: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        load_config(overrides={"load": load})


def test_a_configuration_needs_only_the_entries_it_changes(tmp_path: Path) -> None:
    shipped = default_config().load
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "load:\n  patterns: {water: [_w2], labels: []}\n"
        "  dicom_contrasts: {philips: [{shows: water, image_type: [w]}]}\n"
        "measure:\n  own_limits_percent: {soleus: 9}\n",
        encoding="utf-8",
    )
    config = load_config(mine, overrides={"measure": {"own_limits_percent": {"gracilis": 7}}})
    assert config.load.patterns == {**shipped.patterns, "water": ("_w2",), "labels": ()}
    assert config.load.dicom_contrasts.keys() == shipped.dicom_contrasts.keys()
    assert len(config.load.dicom_contrasts["philips"]) == 1
    assert config.load.dicom_contrasts["siemens"] == shipped.dicom_contrasts["siemens"]
    assert config.measure.own_limits_percent == {"soleus": 9, "gracilis": 7}


def test_endings_can_be_taken_out_of_use(tmp_path: Path) -> None:
    good(tmp_path / "sub-01")
    patterns = {kind: [] for kind in default_config().load.patterns}
    config = load_config(overrides={"load": {"patterns": patterns}})
    with pytest.raises(InputError, match="no image that can be used"):
        load_subject(tmp_path, "01", config=config.load)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("measure", "scan_rescan_cv_percent", float("inf")),
        ("measure", "own_limits_percent", {"soleus": 500.0}),
        ("measure", "usual_outside_share", 0.9),
        ("register", "weak_overlap", 0.1),
        ("segment", "lowest_told_confidence", 0.99),
        ("group", "percentiles", []),
    ],
)
def test_settings_that_cannot_work_are_refused(section: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=section):
        load_config(overrides={section: {key: value}})


def test_an_atlas_named_beside_the_scanner_is_no_reason(tmp_path: Path) -> None:
    good(tmp_path / "sub-01")
    for path in (tmp_path / "sub-01").iterdir():
        image = nib.load(path)
        image.set_sform(AFFINE, code=4)
        nib.save(image, path)
    process(tmp_path)


@pytest.mark.parametrize(("spelt", "told"), [("sub-01", False), ("1", True)])
def test_a_person_who_is_not_listed_is_told(tmp_path: Path, spelt: str, told: bool) -> None:
    good(tmp_path / "sub-01")
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsex\n{spelt}\tf\n")
    found = load_subject(tmp_path, "01", config=default_config().load).findings
    assert ("participant_not_listed" in [finding.code for finding in found]) == told


def test_good_input_is_not_refused(tmp_path: Path) -> None:
    good(tmp_path / "sub-01" / "anat")
    process(tmp_path)
    loaded = load_subject(tmp_path, "sub-01", config=default_config().load).value
    assert sorted(loaded.inputs) == ["nifti:fat", "nifti:water"]
    assert loaded.files == {f"nifti:{kind}": f"anat/a_{kind}.nii.gz" for kind in ("fat", "water")}
    assert all(len(digest) == 64 for digest in loaded.inputs.values())


def test_labels_without_an_image_are_welcome_and_said(tmp_path: Path) -> None:
    save(tmp_path / "sub-01" / "a_dseg.nii.gz", np.where(LABELS > 0, 8, 0).astype(np.uint8))
    result = load_subject(tmp_path, "01", config=default_config().load)
    assert [finding.code for finding in result.findings] == [
        "side_unproven",
        "labels_without_image",
    ]
    scan = canonicalise(result.value, config=default_config().canonicalise).value
    assert scan.labels is not None
    assert scan.labels.values() == [8]


@pytest.mark.parametrize("beside", [False, True])
def test_another_weighting_is_used_where_there_is_nothing_else(
    tmp_path: Path, beside: bool
) -> None:
    folder = tmp_path / "sub-01"
    folder.mkdir()
    names = ["a_T2w.nii.gz", *(["a_water.nii.gz", "a_fat.nii.gz"] if beside else [])]
    for name in names:
        save(folder / name)
    result = load_subject(tmp_path, "01", config=default_config().load)
    if beside:
        assert set(result.value.images) == {Quantity.WATER, Quantity.FAT}
        said = [f.message for f in result.findings if f.code == "left_out"]
        assert any("1 file left out" in text and "does not tell fat" in text for text in said)
        assert "does not tell fat" in result.value.unused["a_T2w.nii.gz"]
    else:
        assert set(result.value.images) == {Quantity.OTHER}
