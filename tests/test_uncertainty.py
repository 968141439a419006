"""What disturbed looks at the legs do to intervals and verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from bodies import VOXEL_MM, body
from factories import make_measures
from legs import phantom_legs
from matches import unregistered

from pipeline import SegmentedLegs, default_config, measure
from pipeline.core.results import GroupResult, LimbMeasures, MuscleResult, Status
from pipeline.core.soft import Confidence
from pipeline.measuring.difference import asymmetries
from pipeline.measuring.groups import ratio

CONFIG = default_config().measure


def measured(right: dict[str, Confidence], left: dict[str, Confidence]) -> LimbMeasures:
    legs = phantom_legs(body(), VOXEL_MM)
    legs = SegmentedLegs(
        replace(legs.right, confidence=right), replace(legs.left, confidence=left), legs.engine
    )
    return measure(legs, unregistered(legs), config=CONFIG).value


def named(rows: tuple[MuscleResult, ...] | tuple[GroupResult, ...], name: str):
    return next(row for row in rows if row.name == name)


def test_without_looks_the_published_figure_stands_alone():
    soleus = named(measured({}, {}).muscles, "soleus")
    found = soleus.asymmetry_total_volume
    assert found.se_method_percent is None
    published = 2**0.5 * CONFIG.scan_rescan_cv_percent
    assert found.se_total_percent == pytest.approx(published, rel=0.01)
    # But for what slices leave open: little in many of them.
    counting = (soleus.right.counting_se_percent, soleus.left.counting_se_percent)
    assert all(0.0 < se < 1.0 for se in counting)
    assert found.se_total_percent == pytest.approx(math.hypot(published, *counting))


def test_a_muscle_in_a_few_slices_is_less_certain():
    """Half a muscle in two slices against all of it in many: no measurable difference in a
    sliver."""
    legs = phantom_legs(body(), VOXEL_MM)
    found = measure(legs, unregistered(legs), config=CONFIG).value
    by_size = sorted(found.muscles, key=lambda m: m.right.length_mm)
    errors = [m.asymmetry_total_volume.se_total_percent for m in by_size]
    # On this coarse grid thin muscles have empty levels between their ends, an error of its own.
    assert errors[0] > np.median(errors)
    group = named(found.groups, "limb")
    assert group.right.counting_se_percent < min(m.right.counting_se_percent for m in by_size)


def test_looks_of_one_side_alone_judge_nothing():
    still = Confidence(0.97, (1.0, 1.0, 1.0))
    found = named(measured({"soleus": still}, {}).muscles, "soleus").asymmetry_total_volume
    assert found.verdict is None
    assert found.reason == "how steady the labels of the left side are is not known"


def test_a_group_with_a_muscle_without_looks_is_not_judged():
    """Its error would count as none, and make the interval of the group narrower."""
    unsteady = Confidence(0.9, (1.3, 0.8, 1.0))
    known = {"rectus_femoris": unsteady, "vastus_lateralis": unsteady, "vastus_medialis": unsteady}
    group = named(measured(known, known).groups, "quadriceps")
    assert group.asymmetry_total_volume.verdict is None
    assert "1 of its muscles with an error that is not known" in group.right.reason


def test_a_muscle_that_moves_on_one_side_is_less_certain():
    still, moved = Confidence(0.97, (1.0, 1.0, 1.0)), Confidence(0.9, (1.1, 0.95, 0.9))
    calm = named(measured({"soleus": still}, {"soleus": still}).muscles, "soleus")
    one = named(measured({"soleus": moved}, {"soleus": still}).muscles, "soleus")
    other = named(measured({"soleus": still}, {"soleus": moved}).muscles, "soleus")
    both = named(measured({"soleus": moved}, {"soleus": moved}).muscles, "soleus")
    assert one.right.repeat_volume_ratios == moved.volume_ratios
    assert (
        one.asymmetry_total_volume.se_method_percent
        > 2 * calm.asymmetry_total_volume.se_method_percent
    )
    assert other.asymmetry_total_volume.se_method_percent == pytest.approx(
        one.asymmetry_total_volume.se_method_percent
    )
    # What both sides do alike cancels for the most part: that it was alike may be chance.
    apart, alike = (m.asymmetry_total_volume.se_method_percent for m in (one, both))
    assert calm.asymmetry_total_volume.se_method_percent < alike < 0.45 * apart
    width = [
        m.asymmetry_total_volume.interval_high_percent
        - m.asymmetry_total_volume.interval_low_percent
        for m in (calm, one)
    ]
    assert width[1] > width[0]


def test_a_side_moves_from_scan_to_scan_by_what_both_sides_do_alike_too():
    """It cancels in their difference for the most part."""
    still, alike = Confidence(0.97, (1.0, 1.0, 1.0)), Confidence(0.9, (1.06, 0.95, 1.05))
    calm = named(measured({"soleus": still}, {"soleus": still}).muscles, "soleus")
    both = named(measured({"soleus": alike}, {"soleus": alike}).muscles, "soleus")
    one = named(measured({"soleus": alike}, {"soleus": still}).muscles, "soleus")
    given = named(measured({}, {}).muscles, "soleus")
    calmer, alone, apart = (m.asymmetry_total_volume.se_total_percent for m in (calm, both, one))
    assert calmer < alone < apart
    # Less than the published figure is not claimed; a few slices leave a little more open.
    least = math.hypot(CONFIG.scan_rescan_cv_percent, calm.right.counting_se_percent)
    assert calm.right.se_repeat_percent == pytest.approx(least)
    assert given.right.se_repeat_percent == pytest.approx(least)
    spread = 100.0 * math.sqrt(sum(math.log(r) ** 2 for r in alike.volume_ratios) / 3.0)
    for found in (both.right, both.left, one.right):
        moves = math.hypot(spread, found.counting_se_percent)
        assert found.se_repeat_percent == pytest.approx(moves)
    assert one.left.se_repeat_percent == calm.left.se_repeat_percent
    group = named(measured({"soleus": alike}, {"soleus": alike}).groups, "limb")
    assert group.right.se_repeat_percent < both.right.se_repeat_percent


def test_a_group_moves_as_its_muscles_do_together():
    quadriceps = ("rectus_femoris", "vastus_lateralis", "vastus_intermedius", "vastus_medialis")
    still = dict.fromkeys(quadriceps, Confidence(0.97, (1.0, 1.0)))
    up = {**still, "vastus_lateralis": Confidence(0.9, (1.2, 0.8))}
    one = measured(up, still)
    alone = named(one.muscles, "vastus_lateralis").asymmetry_total_volume.se_method_percent
    together = named(one.groups, "quadriceps")
    volumes = {m.name: m.right.volume_in_view_ml for m in one.muscles if m.name in quadriceps}
    share = volumes["vastus_lateralis"] / sum(volumes.values())
    assert together.right.repeat_volume_ratios == pytest.approx((1 + 0.2 * share, 1 - 0.2 * share))
    assert together.asymmetry_total_volume.se_method_percent < alone
    # A member without looks leaves the group without.
    del up["rectus_femoris"]
    assert (
        named(measured(up, still).groups, "quadriceps").asymmetry_total_volume.se_method_percent
        is None
    )


def test_sides_exchanged_exchange_the_interval():
    a, b = {"soleus": Confidence(0.9, (1.05, 0.98))}, {"soleus": Confidence(0.95, (1.01, 1.0))}
    one = named(measured(a, b).muscles, "soleus").asymmetry_total_volume.se_method_percent
    assert named(
        measured(b, a).muscles, "soleus"
    ).asymmetry_total_volume.se_method_percent == pytest.approx(one, rel=0.01)


def test_a_ratio_to_muscles_without_lean_tissue_is_none_with_a_reason():
    groups = make_measures().measures.groups
    by_name = {group.name: group for group in groups}
    fat = by_name["quadriceps"].right.model_copy(update={"lean_volume_whole_ml": 0.0})
    doubted = by_name["quadriceps"].left.model_copy(
        update={"status": Status.UNRELIABLE, "reason": "a mess"}
    )
    changed = [
        group.model_copy(update={"right": fat, "left": doubted})
        if group.name == "quadriceps"
        else group
        for group in groups
    ]
    found = ratio(("hamstrings", "quadriceps"), changed, "lean_volume")
    assert found.right is None
    assert "right: the muscles it is a ratio to hold no lean tissue" in found.reason
    assert found.left is not None
    assert "left: a mess" in found.reason


def test_a_muscle_that_is_all_fat_on_one_side_says_so():
    """Its lean volume is 0, a measurement, and nothing can be divided by it."""
    whole = make_measures().measures.muscles[8]
    fat = whole.left.model_copy(
        update={f"lean_volume_{part}_ml": 0.0 for part in ("whole", "in_view", "matched")}
    )
    lean, total = asymmetries(whole.right, fat, 12.0, (whole.name,), CONFIG, level_error_mm=1.0)
    assert (lean.index_percent, lean.verdict) == (None, None)
    assert lean.reason == "the left side holds no lean tissue, all of it is fat"
    assert total.index_percent is not None


def test_scraps_that_a_program_found_have_no_verdict():
    """4 times apart: the program missed the muscle. A person's labels may be so."""
    whole = make_measures().measures.muscles[8]
    seen = {"repeat_volume_ratios": (1.0, 1.01, 0.99)}
    right = whole.right.model_copy(update=seen)
    for factor, looks, judged in ((2.0, seen, True), (4.0, seen, False), (4.0, {}, True)):
        smaller = {
            f"{of}_{part}_ml": getattr(right, f"{of}_{part}_ml") / factor
            for of in ("volume", "lean_volume")
            for part in ("whole", "in_view", "matched")
        }
        sides = (
            whole.right.model_copy(update=looks),
            whole.right.model_copy(update=looks | smaller),
        )
        for found in asymmetries(*sides, None, (whole.name,), CONFIG, level_error_mm=1.0):
            assert (found.verdict is not None) == judged
            assert found.index_percent is not None
            assert judged or "volumes are 4.0 times apart" in found.reason


def test_sides_that_differ_in_fat_are_less_sure():
    """Labels of a program change where there is fat in a muscle; a person's do not."""
    muscle = make_measures().measures.muscles[8]

    def errors(fat_percent: float, looks: tuple[float, ...] | None) -> list[float | None]:
        right, left = (
            muscle.right.model_copy(
                update={"repeat_volume_ratios": looks, "fat_fraction_percent": fat}
            )
            for fat in (6.0, fat_percent)
        )
        found = asymmetries(right, left, None, (muscle.name,), CONFIG, level_error_mm=1.0)
        return [asymmetry.se_method_percent for asymmetry in found]

    looks = (1.0, 1.01, 0.99)
    for alike, apart in zip(errors(6.0, looks), errors(26.0, looks), strict=True):
        added = 20.0 * CONFIG.method_error_of_fat_percent
        assert apart == pytest.approx(math.hypot(alike, added))
    assert errors(26.0, None) == [None, None]
