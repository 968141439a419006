"""Lean volume without water and fat both: an estimate, said to be one, and near the truth."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import SimpleITK as sitk
from bodies import GIVEN, loaded, thighs
from matches import unregistered

from pipeline import (
    LimbMeasures,
    SegmentedLegs,
    Side,
    canonicalise,
    measure,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.core.results import Finding, Status
from pipeline.core.volume import Quantity, Volume
from pipeline.imaging.single_contrast import split_tissue
from pipeline.imaging.tissue import given_fraction, in_opposed_fraction

W, F, T1 = Quantity.WATER, Quantity.FAT, Quantity.T1W
IP, OP = Quantity.IN_PHASE, Quantity.OPPOSED_PHASE


@lru_cache(maxsize=1)
def segmented() -> SegmentedLegs:
    """The test person in all contrasts, under a coil that falls off, with true labels."""
    person = thighs()
    water, fat = (person.images[q].data for q in (W, F))
    shape, grid = water.shape, person.labels.grid
    x, y, z = (np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in shape)
    coil = 1.0 + 0.25 * x[:, None, None] - 0.2 * y[None, :, None] ** 2 - 0.15 * z
    shown = {
        W: water,
        F: fat,
        # Signals of lean tissue and fat in a T1 image, as the phantom has them.
        T1: 0.4 * water + fat,
        IP: water + fat,
        OP: np.abs(water - fat),
    }
    images = {q: Volume(np.asarray(data * coil, np.float32), grid, q) for q, data in shown.items()}
    subject = loaded(replace(person, images=images))
    scan = canonicalise(subject, config=GIVEN.canonicalise).value
    legs = separate_legs(scan, config=GIVEN.separate).value
    return segment(legs, config=GIVEN.segment).value


@lru_cache(maxsize=4)
def measured(*quantities: Quantity) -> tuple[LimbMeasures, tuple[Finding, ...]]:
    """What is measured where only some of the contrasts are there; legs not registered."""
    legs = segmented()
    own = {}
    for side in Side:
        leg = legs[side].leg
        images = {q: leg.images[q] for q in quantities}
        dixon = leg.dixon if {W, F} <= images.keys() else None
        own[side] = replace(legs[side], leg=replace(leg, images=images, dixon=dixon))
    pair = SegmentedLegs(own[Side.RIGHT], own[Side.LEFT], legs.engine)
    result = measure(pair, unregistered(pair), config=GIVEN.measure)
    return result.value, result.findings


def measures(*quantities: Quantity) -> LimbMeasures:
    return measured(*quantities)[0]


def lean_of(limb: LimbMeasures) -> dict[tuple[str, Side], float]:
    """Lean volumes of muscles that are not thin, mL."""
    out = {(m.name, s): getattr(m, s) for m in limb.muscles for s in Side}
    return {
        key: m.lean_volume_in_view_ml
        for key, m in out.items()
        if m.volume_in_view_ml and m.volume_in_view_ml > 60
    }


@pytest.mark.parametrize("quantity", [W, T1])
def test_one_contrast_gives_an_estimate_near_the_dixon_values(quantity):
    limb = measures(quantity)
    one, dixon = lean_of(limb), lean_of(measures(W, F))
    assert one.keys() == dixon.keys()
    errors = np.array([one[key] / dixon[key] - 1.0 for key in dixon])
    # The phantom's muscles hold 5 to 15 % of fat, of which the leanest count as 0.
    assert abs(np.median(errors)) < 0.10
    assert np.abs(errors).max() < 0.25
    names = sorted({name for name, _ in dixon})
    apart = [
        np.log(one[n, Side.RIGHT] / one[n, Side.LEFT])
        - np.log(dixon[n, Side.RIGHT] / dixon[n, Side.LEFT])
        for n in names
    ]
    assert np.std(apart) < 0.05


def test_an_estimate_is_said_to_be_one_and_bears_no_verdict():
    limb, dixon = measures(W), measures(W, F)
    for muscle, other in zip(limb.muscles, dixon.muscles, strict=True):
        for side in Side:
            if getattr(other, side).status is Status.ABSENT:
                continue
            assert "estimate from the water image alone" in getattr(muscle, side).lean_estimate
            assert getattr(other, side).lean_estimate is None
        if muscle.asymmetry.index_percent is not None:
            assert muscle.asymmetry.verdict is None
            assert "estimate" in muscle.asymmetry.reason
            assert muscle.asymmetry.se_total_percent > other.asymmetry.se_total_percent + 5
    (said,) = [f for f in measured(W)[1] if f.code == "lean_estimated"]
    assert "no verdict rests on the lean ones" in said.message
    assert not [f for f in measured(W, F)[1] if f.code == "lean_estimated"]
    for muscle, other in zip(limb.muscles, dixon.muscles, strict=True):
        # What does not rest on the estimate is as it was.
        assert muscle.asymmetry_total_volume == other.asymmetry_total_volume
    assert all(
        "estimate" in g.right.lean_estimate for g in limb.groups if g.right.lean_reason is None
    )


def test_another_weighting_gives_volumes_and_says_why_no_lean_ones() -> None:
    legs = segmented()
    own = {}
    for side in Side:
        leg = legs[side].leg
        image = Volume(leg.images[W].data, leg.grid, Quantity.OTHER)
        images = {Quantity.OTHER: image}
        own[side] = replace(legs[side], leg=replace(leg, images=images, dixon=None))
    pair = SegmentedLegs(own[Side.RIGHT], own[Side.LEFT], legs.engine)
    limb = measure(pair, unregistered(pair), config=GIVEN.measure).value
    vastus = next(m for m in limb.muscles if m.name == "vastus_lateralis")
    assert vastus.right.volume_in_view_ml > 100.0
    assert vastus.right.lean_volume_in_view_ml is None
    assert vastus.asymmetry.verdict is None
    assert "lean volume needs water and fat" in str(vastus.asymmetry)


def test_in_and_opposed_phase_give_the_fraction_up_to_a_half():
    limb, dixon = measures(IP, OP), lean_of(measures(W, F))
    for key, value in lean_of(limb).items():
        assert value == pytest.approx(dixon[key], rel=0.06)
    assert "more than half fat reads as less" in limb.muscles[8].right.lean_estimate
    water, fat = np.float32([9, 2, 0, 0]), np.float32([1, 8, 0, 5])
    fractions = in_opposed_fraction(water + fat, np.abs(water - fat))
    np.testing.assert_allclose(fractions, [0.1, 0.2, np.nan, 0.0], atol=1e-6)


def test_what_looks_all_alike_is_not_split():
    whole = segmented().right
    assert split_tissue(whole, T1) is not None
    grid = whole.leg.grid
    even = np.random.default_rng(1).normal(100.0, 1.0, grid.shape).astype(np.float32)
    leg = replace(whole.leg, images={T1: Volume(even, grid, T1)}, dixon=None)
    assert split_tissue(replace(whole, leg=leg), T1) is None


def test_a_masked_part_of_a_fraction_map_is_not_lean_muscle() -> None:
    rng = np.random.default_rng(4)
    # Lean muscle: noise around 1 %, negative values clipped to 0 by the scanner.
    fractions = np.clip(rng.normal(0.01, 0.02, (40, 40, 5)), 0.0, None).astype(np.float32)
    clipped = fractions == 0.0
    fractions[10:20, 5:12, 2] = 0.0
    found = given_fraction(fractions)
    assert np.isnan(found[10:20, 5:12, 2]).all()
    elsewhere = np.isfinite(found)
    assert clipped.mean() > 0.2
    assert np.mean(elsewhere[clipped]) > 0.95
    np.testing.assert_array_equal(found[elsewhere], fractions[elsewhere])


def test_a_dark_place_of_the_coil_is_not_fat() -> None:
    """At 3 T the front of one thigh is often dark: half of the signal, some centimetres wide."""
    legs = segmented()
    right = legs.right
    image, grid, labels = right.leg.images[W].data, right.leg.grid, right.labels.data
    vastus = np.argwhere(labels == STRUCTURE_IDS["vastus_lateralis"])
    sizes = np.array(grid.voxel_sizes_mm)
    away = (np.indices(image.shape).T - vastus.mean(axis=0)) * sizes
    dark = 1.0 - 0.5 * np.exp(-0.5 * (away**2).sum(axis=-1).T / 50.0**2)
    shaded = Volume((image * dark).astype(np.float32), grid, W)
    errors = {}
    for name, shown in (("even", right.leg.images[W]), ("dark", shaded)):
        leg = replace(right.leg, images={W: shown}, dixon=None)
        fractions = split_tissue(replace(right, leg=leg), W)
        assert fractions is not None
        errors[name] = {
            muscle: float(fractions[labels == STRUCTURE_IDS[muscle]].mean())
            for muscle in ("vastus_lateralis", "rectus_femoris", "biceps_femoris_long")
        }
    for muscle, even in errors["even"].items():
        assert errors["dark"][muscle] == pytest.approx(even, abs=0.02), muscle


def test_where_fat_looks_like_muscle_there_is_no_estimate_and_a_reason() -> None:
    """A water image with much of the fat left in it; beyond the skin there is dark air."""
    legs = segmented()
    own = {}
    for side in Side:
        leg = legs[side].leg
        image = leg.images[W].with_data(leg.images[W].data + 0.75 * leg.images[F].data)
        own[side] = replace(legs[side], leg=replace(leg, images={W: image}, dixon=None))
    pair = SegmentedLegs(own[Side.RIGHT], own[Side.LEFT], legs.engine)
    result = measure(pair, unregistered(pair), config=GIVEN.measure)
    vastus = next(m for m in result.value.muscles if m.name == "vastus_lateralis")
    assert vastus.right.lean_volume_in_view_ml is None
    assert vastus.right.volume_in_view_ml > 100.0
    assert "cannot be told apart in the water image" in str(vastus.asymmetry)
    assert result.value.lead == "total_volume"


def test_an_estimate_does_not_depend_on_the_number_of_threads() -> None:
    right = segmented().right
    leg = replace(right.leg, images={W: right.leg.images[W]}, dixon=None)
    process = sitk.ProcessObject
    before = process.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 2, 5):
            process.SetGlobalDefaultNumberOfThreads(threads)
            fractions = split_tissue(replace(right, leg=leg), W)
            assert fractions is not None
            found.append(fractions)
            assert process.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        process.SetGlobalDefaultNumberOfThreads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
