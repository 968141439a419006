"""Fat or labels stored the other way round than water, with the affine of water."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import nibabel as nib
import numpy as np
import pytest
from bodies import loaded, small_scan

from pipeline import ArraySource, canonicalise, default_config
from pipeline.core.errors import InputError
from pipeline.core.volume import Quantity
from pipeline.imaging.reversal import AS_STORED, reversal

WAYS = [flags for flags in product((False, True), repeat=3) if any(flags)]


def axes(flags: tuple[bool, bool, bool]) -> list[int]:
    return [axis for axis, flag in enumerate(flags) if flag]


def dixon() -> tuple[np.ndarray, np.ndarray]:
    images = small_scan().images
    return images[Quantity.WATER].data, images[Quantity.FAT].data


@pytest.mark.parametrize("flags", WAYS)
def test_each_way_of_being_reversed_is_told(flags):
    water, fat = dixon()
    assert reversal(water, fat) == AS_STORED
    assert reversal(water, np.flip(fat, axes(flags))) == flags


@pytest.mark.parametrize(
    "disturbed",
    ["noise", "fat shifted by 8 mm", "a mirrored body", "no fat", "noise in a round field of view"],
)
def test_fat_that_was_not_reversed_is_let_through(disturbed):
    water, fat = dixon()
    if disturbed == "noise":
        rng = np.random.default_rng(3)
        water, fat = (im + rng.normal(0.0, 0.5 * im.max(), im.shape) for im in (water, fat))
    elif disturbed == "fat shifted by 8 mm":
        fat = np.roll(fat, 2, axis=0)
    elif disturbed == "noise in a round field of view":
        rng = np.random.default_rng(3)
        x, y, _ = (np.linspace(-1.0, 1.0, n) for n in water.shape)
        round_view = (np.hypot(*np.meshgrid(x, y, indexing="ij")) < 0.8)[..., None]
        noisy = (np.abs(im + rng.normal(0.0, 0.1 * im.max(), im.shape)) for im in (water, fat))
        water, fat = (im * round_view for im in noisy)
    elif disturbed == "a mirrored body":
        water, fat = water[::-1], fat[::-1]
    else:
        fat = np.zeros_like(fat)
    assert reversal(water, fat) == AS_STORED


def test_fat_equal_on_both_sides_is_not_reversed():
    """In the mirror image of itself there is no other way round."""
    water, fat = (np.concatenate([im, im[::-1]]) for im in dixon())
    assert reversal(water, fat) == AS_STORED


def test_a_subject_with_reversed_fat_is_refused():
    subject = loaded(small_scan(), labels=False)
    fat = subject.images[Quantity.FAT]
    images = {**subject.images, Quantity.FAT: ArraySource(fat.data[::-1], fat.grid)}
    with pytest.raises(InputError, match="only once the fat image is reversed left to right"):
        canonicalise(replace(subject, images=images), config=default_config().canonicalise)


@pytest.mark.parametrize("flags", WAYS)
def test_labels_too(flags):
    water, _ = dixon()
    labels = small_scan().labels.data
    assert reversal(water, labels) == AS_STORED
    assert reversal(water, np.flip(labels, axes(flags))) == flags


def test_labels_of_one_leg_alone_are_let_through():
    water, _ = dixon()
    labels = small_scan().labels.data
    for one_leg in (labels < 100, labels > 100):
        assert reversal(water, np.where(one_leg, labels, 0)) == AS_STORED


def test_a_mirrored_label_map_is_refused_though_every_label_lies_on_its_side():
    subject = loaded(small_scan())
    labels = subject.labels.data[::-1]
    named = np.where(labels > 100, labels - 100, np.where(labels > 0, labels + 100, 0))
    mirrored = replace(subject, labels=ArraySource(named, subject.labels.grid))
    with pytest.raises(InputError, match=r"label map .* only once the label map is reversed left"):
        canonicalise(mirrored, config=default_config().canonicalise)


@pytest.mark.parametrize(
    ("image", "labels"),
    [("thigh_water_b", "thigh_water_b_dseg-silver"), ("leg_dwi_f", "leg_dwi_f_dseg")],
)
def test_real_labels(shared_data, image, labels):
    signal, drawn = (
        np.asarray(nib.load(shared_data / "images" / f"{name}.nii.gz").dataobj)
        for name in (image, labels)
    )
    signal = signal.astype(np.float32)
    assert reversal(signal, drawn) == AS_STORED
    for flags in WAYS:
        assert reversal(signal, np.flip(drawn, axes(flags))) == flags


@pytest.mark.parametrize("name", ["thigh_dixon_a", "leg_dixon_e"])
def test_real_scans(shared_data, name):
    water, fat = (
        nib.load(shared_data / "images" / f"{name}_{kind}.nii.gz").get_fdata(dtype=np.float32)
        for kind in ("water", "fat")
    )
    assert reversal(water, fat) == AS_STORED
    for flags in WAYS:
        assert reversal(water, np.flip(fat, axes(flags))) == flags
