"""Where along a muscle the sides differ: planted losses, the same leg twice, cuts, exchanged sides.

Labels are true ones ("given"); what a network adds to these errors is in docs/validation.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
from legs import ENGINE, changed, phantom_legs, segmented, swapped, with_fat
from scipy import ndimage

from pipeline.config import Config, default_config, load_config
from pipeline.core.anatomy import STRUCTURE_IDS, Side
from pipeline.core.match import LegMatch
from pipeline.core.results import LimbMeasures, LocalDifference, MuscleResult, Status
from pipeline.core.scan import SegmentedLeg, SegmentedLegs
from pipeline.core.volume import Quantity, Volume
from pipeline.imaging.limb_axis import axis_mm
from pipeline.imaging.local_difference import (
    MatchedCourse,
    Placement,
    going_on,
    matched_levels,
    thirds,
)
from pipeline.measuring.difference import level_error_mm
from pipeline.measuring.sides import Sides
from pipeline.phantom import BodyParameters, Pose, make_body
from pipeline.stages.measure import measure
from pipeline.stages.register import register

CONFIG: Config = default_config()
VOXEL_MM = (2.0, 2.0, 4.0)
#: Both thighs and knees: one leg turned by 8 degrees, the other bent by 10 and half a voxel off.
POSE = Pose(rotation_deg=(8.0, 0.0), knee_flexion_deg=(0.0, 10.0), shift_mm=(0.0, 6.0))
PLANTED = "vastus_medialis"
NEIGHBOURS = ("vastus_intermedius", "vastus_lateralis", "sartorius", "adductor_magnus")

Results = tuple[SegmentedLegs, LegMatch, LimbMeasures]


def run(legs: SegmentedLegs, config: Config = CONFIG) -> Results:
    match = register(legs, config=config.register_).value
    return legs, match, measure(legs, match, config=config.measure).value


@lru_cache(maxsize=1)
def plain_legs() -> SegmentedLegs:
    """Two thighs that differ in pose only."""
    body = make_body(BodyParameters(pose=POSE), detail="reduced")
    legs = phantom_legs(body, VOXEL_MM, z_range_mm=(-40.0, 310.0))
    return SegmentedLegs(with_fat(legs.right), with_fat(legs.left), ENGINE)


@pytest.fixture(scope="module")
def plain() -> Results:
    return run(plain_legs())


def by_name(measures: LimbMeasures) -> dict[str, MuscleResult]:
    return {m.name: m for m in measures.muscles}


def large(measures: LimbMeasures) -> list[MuscleResult]:
    """Muscles of which 80 mL and more are compared."""
    return [m for m in measures.muscles if (m.right.volume_matched_ml or 0.0) > 80.0]


def ratios(difference: LocalDifference) -> np.ndarray:
    return np.array([np.nan if p.log_ratio is None else p.log_ratio for p in difference.levels])


def distal_third(leg: SegmentedLeg) -> np.ndarray:
    """Voxels of the planted muscle in the distal third of its length."""
    mask = leg.labels.data == STRUCTURE_IDS[PLANTED]
    along = axis_mm(leg.axis, leg.leg.grid.index_to_world(np.argwhere(mask)))
    out = np.zeros(mask.shape, dtype=bool)
    out[mask] = along > along.min() + 2.0 / 3.0 * np.ptp(along)
    return out


def fattier(leg: SegmentedLeg) -> SegmentedLeg:
    """10 % of the lean tissue in the distal third turned to fat."""
    fraction = np.where(leg.labels.data > 0, 0.05, 0.9)
    fraction[distal_third(leg)] = 1.0 - 0.9 * 0.95
    return with_fat(leg, fraction)


def thinner(leg: SegmentedLeg) -> SegmentedLeg:
    """10 % of the cross-sections in the distal third gone from the border of the muscle."""
    third = distal_third(leg)
    labels = leg.labels.data.copy()
    muscle = labels == STRUCTURE_IDS[PLANTED]
    for k in np.flatnonzero(third.any(axis=(0, 1))):
        depth = np.where(third[:, :, k], ndimage.distance_transform_edt(muscle[:, :, k]), np.inf)
        count = round(0.1 * np.count_nonzero(third[:, :, k]))
        outermost = np.argsort(depth, axis=None, kind="stable")[:count]
        labels[:, :, k][np.unravel_index(outermost, depth.shape)] = 0
    return with_fat(segmented(labels, leg.leg.grid.affine, Side.LEFT))


@pytest.mark.parametrize("loss", [fattier, thinner])
def test_a_loss_in_one_third_is_found_there(plain: Results, loss) -> None:
    legs, _, before = plain
    _, match, after = run(SegmentedLegs(legs.right, loss(legs.left), ENGINE))
    assert match.succeeded
    found, was = by_name(after), by_name(before)
    local = found[PLANTED].local_difference
    assert local.largest is not None
    assert local.largest.third == "distal"
    assert local.largest.name == "vastus medialis, distal third"
    # What was planted: the distal third of the left side has 90 % of its lean area.
    changes = [
        a.index_percent - b.index_percent
        for a, b in zip(local.thirds, was[PLANTED].local_difference.thirds, strict=True)
    ]
    assert changes[0] == pytest.approx(0.0, abs=1.0)
    assert changes[1] == pytest.approx(0.0, abs=1.0)
    assert changes[2] == pytest.approx(200.0 * 0.1 / 1.9, abs=2.0)
    for name in NEIGHBOURS:
        assert found[name].asymmetry.index_percent == pytest.approx(
            was[name].asymmetry.index_percent, abs=1.0
        )


def test_the_same_leg_twice_has_no_difference(plain: Results) -> None:
    _, match, measures = plain
    assert match.succeeded
    assert match.folded_voxels == 0
    assert match.inverse_error_mm < 0.1
    assert np.mean(list(match.overlap.values())) > 0.9
    muscles = [m for m in large(measures) if m.region == "thigh"]
    assert len(muscles) >= 10
    for m in muscles:
        # Counting voxels of this size alone has a standard deviation of 0.3 to 0.8 points.
        volume = m.right.volume_matched_ml
        assert abs(m.asymmetry.index_percent) < (1.5 if volume > 150.0 else 2.5), m.name
        local = m.local_difference
        # Within 60 mm of a knee that is bent on one side only, cross-sections truly differ.
        above = np.array([p.position_right < -60.0 for p in local.levels])
        shown = ratios(local)[above & np.isfinite(ratios(local))]
        assert shown.size >= 5
        assert abs(np.mean(shown)) < 0.015, m.name
        assert np.sqrt(np.mean(shown**2)) < (0.03 if volume > 150.0 else 0.055), m.name
        assert all(abs(t.index_percent) < 3.0 for t in local.thirds[:2]), m.name


def test_thick_slices_set_the_levels() -> None:
    """The two thighs in slices of 24 mm, half a slice off each other."""
    pose = replace(POSE, shift_mm=(0.0, 12.0))
    body = make_body(BodyParameters(pose=pose), detail="reduced")
    legs = phantom_legs(body, (2.0, 2.0, 24.0), z_range_mm=(-40.0, 310.0))
    _, match, measures = run(legs)
    assert match.succeeded
    muscles = [m for m in large(measures) if m.region == "thigh"]
    assert len(muscles) >= 10
    for m in muscles:
        local = m.local_difference
        assert all(p.length_right_mm + p.length_left_mm > 40.0 for p in local.levels)
        assert local.sum_points == pytest.approx(m.asymmetry_total_volume.index_percent, abs=0.5)
    shown = [ratios(m.local_difference) for m in muscles]
    roughness = [np.sqrt(np.nanmean(r**2)) for r in shown]
    # Levels of 10 mm hold shifted slices against each other: 0.14.
    assert np.median(roughness) < 0.10


def test_levels_and_thirds_add_up_to_the_muscle(plain: Results) -> None:
    _, _, measures = plain
    for m in measures.muscles:
        local, extent = m.local_difference, m.asymmetry.extent
        if local.reason is not None:
            assert extent is None
            continue
        right, left = (getattr(s, f"lean_volume_{extent}_ml") for s in (m.right, m.left))
        own = 100.0 * (right - left) / (0.5 * (right + left))
        assert local.sum_points == pytest.approx(own, abs=0.5)
        assert sum(t.points for t in local.thirds) == pytest.approx(own, abs=0.5)
        volume = sum(p.area_right_mm2 * p.length_right_mm for p in local.levels) / 1e3
        assert volume == pytest.approx(right, rel=0.005)
        assert sum(t.volume_left_ml for t in local.thirds) == pytest.approx(left, rel=0.005)
        assert local.band_half_width_percent is None
        assert local.band_reason


def test_an_estimate_of_lean_volume_does_not_say_where_the_sides_differ(plain: Results) -> None:
    """Of a water image alone total volume leads, and what the parts add up to is its difference."""

    def water_only(leg: SegmentedLeg) -> SegmentedLeg:
        fraction = leg.leg.images[Quantity.FAT_FRACTION].data
        water = Volume(900.0 * (1.0 - fraction), leg.leg.grid, Quantity.WATER)
        return replace(leg, leg=replace(leg.leg, images={Quantity.WATER: water}))

    legs, match, _ = plain
    single = SegmentedLegs(water_only(legs.right), water_only(fattier(legs.left)), ENGINE)
    found = measure(single, match, config=CONFIG.measure).value
    compared = [m for m in found.muscles if m.local_difference.reason is None]
    assert len(compared) >= 8
    for m in compared:
        assert m.right.lean_estimate
        assert m.asymmetry.index_percent is not None
        assert m.local_difference.of == "total_volume"
        total = m.asymmetry_total_volume
        right, left = (getattr(s, f"volume_{total.extent}_ml") for s in (m.right, m.left))
        own = 100.0 * (right - left) / (0.5 * (right + left))
        assert sum(t.points for t in m.local_difference.thirds) == pytest.approx(own, abs=0.5)


def test_exchanging_the_sides_changes_the_sign_and_nothing_else(plain: Results) -> None:
    legs, _, measures = plain
    other = swapped(legs)
    _, _, exchanged = run(SegmentedLegs(with_fat(other.right), with_fat(other.left), ENGINE))
    for here, there in zip(measures.muscles, exchanged.muscles, strict=True):
        index = here.asymmetry.index_percent
        if index is None:
            assert there.asymmetry.index_percent is None
            continue
        assert here.asymmetry.extent == there.asymmetry.extent
        if here.asymmetry.extent == "whole":
            assert there.asymmetry.index_percent == pytest.approx(-index, abs=1e-9)
        elif here.right.volume_matched_ml > 20.0:
            assert there.asymmetry.index_percent == pytest.approx(-index, abs=1.0)
        if here.right.volume_matched_ml > 80.0:
            for a, b in zip(
                here.local_difference.thirds, there.local_difference.thirds, strict=True
            ):
                assert b.index_percent == pytest.approx(-a.index_percent, abs=1.0)
            assert len(here.local_difference.levels) == len(there.local_difference.levels)
            apart = 100.0 * (ratios(here.local_difference) + ratios(there.local_difference))
            assert np.nanmax(np.abs(apart)) < 1.0, here.name


def test_one_leg_cut_40_mm_shorter(plain: Results) -> None:
    legs, _, uncut = plain
    cut = with_fat(changed(legs.left, levels=slice(10, None)))
    _, match, measures = run(SegmentedLegs(legs.right, cut, ENGINE))
    assert match.succeeded
    for m, was in zip(measures.muscles, uncut.muscles, strict=True):
        if (m.right.volume_matched_ml or 0.0) > 80.0:
            # The legs are the same: so is any part of them.
            assert m.asymmetry.index_percent == pytest.approx(
                was.asymmetry.index_percent, abs=1.0
            ), m.name


def test_a_failed_registration_withholds_what_rests_on_it(plain: Results) -> None:
    legs, _, _ = plain
    strict = CONFIG.register_.model_copy(update={"lowest_overlap": 0.99})
    result = register(legs, config=strict)
    assert not result.value.succeeded
    assert [f.code for f in result.findings] == ["registration_failed"]
    measures = measure(legs, result.value, config=CONFIG.measure).value
    for m in measures.muscles:
        assert m.local_difference.levels == ()
        assert m.local_difference.reason
        assert m.right.volume_matched_ml is None or m.asymmetry.extent == "whole"
    whole = [m for m in measures.muscles if m.asymmetry.extent == "whole"]
    assert whole
    assert all("registration failed" in m.local_difference.reason for m in whole)


def test_what_both_legs_show_is_the_same_part(plain: Results) -> None:
    legs, match, _ = plain
    cut = with_fat(changed(legs.left, levels=slice(10, None)))
    pair = SegmentedLegs(legs.right, cut, ENGINE)
    right = legs.right
    points = right.leg.grid.index_to_world(np.argwhere(right.labels.data)[::53])
    placed = Placement(Side.RIGHT, pair, match).of(points)
    level = cut.leg.grid.world_to_index(match.right_to_left.apply(points))[:, 2]
    assert np.all(placed.shared[(level > 0.7) & (level < cut.leg.grid.shape[2] - 1.7)] == 1.0)
    assert np.all(placed.shared[level < -1.2] == 0.0)
    # Corresponding points lie on the same matched level, whichever leg they are looked at from.
    points, placed_mm = points[placed.shared == 1.0], placed.matched_mm[placed.shared == 1.0]
    there = Placement(Side.LEFT, pair, match).of(match.right_to_left.apply(points))
    assert np.abs(there.matched_mm - placed_mm).max() < 0.5


def test_a_part_cut_by_the_view_is_compared_less_surely_the_shorter_it_is(plain: Results) -> None:
    legs, _, _ = plain
    standard_errors = []
    for levels in (slice(38, None), slice(45, 60)):
        cut = with_fat(changed(legs.left, levels=levels))
        pair, _, found = run(SegmentedLegs(legs.right, cut, ENGINE))
        muscle = by_name(found)["vastus_lateralis"]
        right = muscle.right
        assert muscle.asymmetry.extent == "matched"
        # The other leg's view ends here: the cross-section of this leg there.
        areas = [p.area_mm2 for p in right.profile]
        assert 0.25 * max(areas) < right.matched_cut_lower_mm2 < 1.05 * max(areas)
        assert muscle.left.matched_cut_lower_mm2 < 0.1 * right.matched_cut_lower_mm2
        ends = np.hypot(right.matched_cut_upper_mm2, right.matched_cut_lower_mm2)
        expected = level_error_mm(pair, CONFIG.measure) * ends / (10.0 * right.volume_matched_ml)
        assert muscle.asymmetry.se_method_percent == pytest.approx(expected, rel=0.1)
        standard_errors.append(muscle.asymmetry.se_method_percent)
    assert standard_errors[1] > 2.0 * standard_errors[0]
    whole = [m for m in large(found) if m.asymmetry.extent == "whole"]
    assert all(m.asymmetry.se_method_percent is None for m in whole)


def with_gap(leg: SegmentedLeg, first: int, last: int) -> SegmentedLeg:
    """A leg of which some levels were not scanned; labels reach one level into the gap."""
    labels, seen = leg.labels.data.copy(), np.ones(leg.labels.data.shape[2], dtype=bool)
    labels[:, :, first + 1 : last - 1], seen[first:last] = 0, False
    return with_fat(segmented(labels, leg.leg.grid.affine, leg.leg.side, seen))


def test_around_a_gap_what_both_legs_show_is_compared(plain: Results) -> None:
    """Legs that differ in pose only, in other parts of which 40 mm were not scanned."""
    legs, _, uncut = plain
    pair = SegmentedLegs(with_gap(legs.right, 40, 50), with_gap(legs.left, 43, 53), ENGINE)
    _, match, measures = run(pair)
    assert match.succeeded
    compared = 0
    for m, was in zip(measures.muscles, uncut.muscles, strict=True):
        if not all("cut by a gap in what was seen" in (s.reason or "") for s in (m.right, m.left)):
            continue
        assert m.right.status is m.left.status is Status.TRUNCATED
        assert m.right.volume_whole_ml is None
        assert m.asymmetry.extent == "matched"
        assert m.asymmetry.verdict is not None
        apart = m.asymmetry.index_percent - was.asymmetry.index_percent
        assert abs(apart) < 2.0 * m.asymmetry.se_total_percent
        # Ends of what both show lie at the gap: it is known to a mm or two where.
        assert m.right.matched_cut_lower_mm2 + m.left.matched_cut_lower_mm2 > 0.0
        assert m.asymmetry.se_method_percent > 0.5
        assert m.right.matched_share < 0.97
        compared += 1
        # Of levels that neither side shows nothing is said.
        assert all(
            p.area_right_mm2 > 0.0 or p.area_left_mm2 > 0.0 for p in m.local_difference.levels
        )
    assert compared >= 8


def broken_off(leg: SegmentedLeg, name: str, end: str, share: float) -> SegmentedLeg:
    """A leg without the labels of one end of a muscle, a share of its length."""
    muscle = leg.labels.data == STRUCTURE_IDS[name]
    levels = np.flatnonzero(muscle.any(axis=(0, 1)))
    count = round(share * levels.size)
    gone = np.zeros(muscle.shape[2], dtype=bool)
    gone[levels[-count:] if end == "upper" else levels[:count]] = True
    labels = np.where(muscle & gone, 0, leg.labels.data)
    return with_fat(segmented(labels, leg.leg.grid.affine, leg.leg.side))


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(("end", "share"), [("lower", 0.25), ("lower", 0.5), ("upper", 0.5)])
def test_labels_that_break_off_where_the_other_side_goes_on_are_not_judged(
    plain: Results, side: Side, end: str, share: float
) -> None:
    legs, match, before = plain
    name = "biceps_femoris_short"
    pair = {s: broken_off(legs[s], name, end, share) if s is side else legs[s] for s in Side}
    broken = SegmentedLegs(pair[Side.RIGHT], pair[Side.LEFT], ENGINE)
    result = measure(broken, match, config=CONFIG.measure)
    muscle, was = by_name(result.value)[name], by_name(before)[name]
    assert (was.right.status, was.left.status) == (Status.OK, Status.OK)
    here, there = getattr(muscle, side), getattr(muscle, side.other)
    assert (here.status, there.status) == (Status.UNRELIABLE, Status.OK)
    # It may be so: the values stay.
    assert here.volume_whole_ml < 0.95 * getattr(was, side).volume_whole_ml
    for asymmetry in (muscle.asymmetry, muscle.asymmetry_total_volume):
        assert asymmetry.index_percent is not None
        assert asymmetry.verdict is None
        assert f"the {side} side is unreliable: its labels end at z = " in asymmetry.reason
    (finding,) = (f for f in result.findings if f.code == "labels_broken_off")
    assert finding.side is side
    assert f"biceps femoris short end at z = {broken_at(pair[side], name, end):.0f} mm" in (
        finding.message
    )
    assert finding.value > 0.8
    assert f"where the {side.other} side goes on" in finding.message
    others = [m for m in result.value.muscles if m.name != name]
    assert [m.right.status for m in others] == [
        m.right.status for m in before.muscles if m.name != name
    ]


def test_levels_without_labels_are_an_error_of_what_is_missing(plain: Results) -> None:
    legs, match, before = plain
    name = "biceps_femoris_short"
    labels = legs.left.labels.data.copy()
    muscle = labels == STRUCTURE_IDS[name]
    fullest = int(np.argmax(muscle.sum(axis=(0, 1))))
    forgotten = slice(fullest, fullest + 1)
    labels[..., forgotten][muscle[..., forgotten]] = 0
    left = with_fat(segmented(labels, legs.left.leg.grid.affine, Side.LEFT))
    found = measure(SegmentedLegs(legs.right, left, ENGINE), match, config=CONFIG.measure).value
    now, was = by_name(found)[name], by_name(before)[name]
    missing = 100.0 * muscle[..., forgotten].sum() / muscle.sum()
    assert 1.0 < missing < 5.0
    assert now.left.status is Status.OK
    assert now.left.counting_se_percent == pytest.approx(missing, rel=0.1)
    assert now.right.counting_se_percent == was.right.counting_se_percent
    moved = now.asymmetry.index_percent - was.asymmetry.index_percent
    assert moved == pytest.approx(missing, rel=0.1)
    widened = np.sqrt(now.asymmetry.se_total_percent**2 - was.asymmetry.se_total_percent**2)
    assert widened == pytest.approx(missing, rel=0.15)


def broken_at(leg: SegmentedLeg, name: str, end: str) -> float:
    """Height of the last level of a muscle."""
    levels = np.flatnonzero((leg.labels.data == STRUCTURE_IDS[name]).any(axis=(0, 1)))
    return leg.leg.grid.index_to_world([0, 0, levels[-1 if end == "upper" else 0]])[2]


def test_ends_of_muscles_are_not_taken_for_broken_labels(plain: Results) -> None:
    legs, match, measures = plain
    assert any(m.right.status is Status.OK for m in measures.muscles)
    assert all(Status.UNRELIABLE not in (m.right.status, m.left.status) for m in measures.muscles)
    # Both sides broken off at the same place do not differ by it.
    both = [broken_off(legs[side], "biceps_femoris_short", "lower", 0.4) for side in Side]
    pair = SegmentedLegs(*sorted(both, key=lambda leg: leg.leg.side is Side.LEFT), ENGINE)
    result = measure(pair, match, config=CONFIG.measure)
    assert "labels_broken_off" not in {f.code for f in result.findings}


@pytest.mark.parametrize("slice_mm", [2.0, 12.0, 24.0])
def test_what_goes_on_is_told_from_what_tapers(slice_mm: float) -> None:
    """A spindle 240 mm long, whole and broken off, in slices that lie differently."""

    def spindle(first_mm: float, last_mm: float) -> MatchedCourse:
        at = np.arange(first_mm + slice_mm / 2.0, last_mm, slice_mm)
        return MatchedCourse(
            at, at, slice_mm * (120.0**2 - (at - 120.0) ** 2) + 1e-6, voxel_extent_mm=slice_mm
        )

    whole, shifted = spindle(0.0, 240.0), spindle(slice_mm / 3.0, 240.0)
    for end in ("upper", "lower"):
        assert (
            max(
                going_on(a, b, end, step_mm=5.0)
                for a, b in ((whole, whole), (whole, shifted), (shifted, whole))
            )
            < 0.5
        )
    assert going_on(spindle(0.0, 168.0), shifted, "lower", step_mm=5.0) > 0.7
    assert going_on(spindle(72.0, 240.0), whole, "upper", step_mm=5.0) > 0.7
    # The longer side is not the one that was broken off.
    assert going_on(whole, spindle(72.0, 240.0), "upper", step_mm=5.0) == 0.0


def test_the_step_of_the_profile_does_not_decide_what_broke_off() -> None:
    at = np.arange(1.0, 240.0, 2.0)
    area = 120.0**2 - (at - 120.0) ** 2
    sides = [
        SimpleNamespace(
            course=MatchedCourse(at[:n], at[:n], area[:n], voxel_extent_mm=2.0),
            extent=SimpleNamespace(blunt=blunt),
            ends_mm={"lower": 0.0},
        )
        for n, blunt in ((120, {}), (84, {"lower": 0.8}))
    ]
    right, left = ({"soleus": side} for side in sides)
    found = [
        Sides(right, left, SimpleNamespace(succeeded=False), config).broken_ends("soleus")
        for config in (
            CONFIG.measure,
            load_config(overrides={"measure": {"profile_step_mm": 60}}).measure,
        )
    ]
    assert [(end.side, end.end) for end in found[0]] == [(Side.LEFT, "lower")]
    assert found[0] == found[1]


def course(own: np.ndarray, matched: np.ndarray, area_mm2: np.ndarray) -> MatchedCourse:
    """A muscle of voxels 1 mm long with an area at each."""
    return MatchedCourse(own, matched, area_mm2, voxel_extent_mm=1.0)


def test_a_longer_leg_of_equal_areas_has_no_difference_of_areas() -> None:
    own = np.arange(200.0) + 0.5
    longer = np.arange(220.0) + 0.5
    right = course(own, own * 1.05, np.full(200, 500.0))
    left = course(longer, longer * 1.05 / 1.1, np.full(220, 500.0))
    levels = matched_levels(right, left, step_mm=10.0)
    inner = slice(2, -2)
    assert levels.area_mm2[:, inner] == pytest.approx(500.0, rel=0.01)
    assert levels.amount_mm3.sum(axis=1) == pytest.approx([100e3, 110e3])
    _, parts = thirds(right, left)
    assert parts.amount_mm3.sum(axis=1) == pytest.approx([100e3, 110e3])
    assert parts.length_mm[1] / parts.length_mm[0] == pytest.approx(1.1, rel=0.02)


def test_a_level_that_runs_backwards_is_put_straight() -> None:
    own = np.arange(100.0) + 0.5
    matched = own + 20.0 * np.sin(own / 8.0)
    jumbled = course(own, matched, np.full(100, 300.0))
    at = np.linspace(-20.0, 140.0, 400)
    assert np.all(np.diff(jumbled.own_at(at)) > 0)
    assert jumbled.below(at)[[0, -1]] == pytest.approx([0.0, 30e3])


def test_a_third_that_one_side_does_not_reach_has_nothing_in_it_and_never_less():
    rng = np.random.default_rng(5)
    for _ in range(50):
        # Two thick slices on one side, five on the other: amounts add up with rounding.
        amounts = [rng.uniform(0.1, 40.0, n) for n in (200, 500)]
        own = [np.repeat(np.arange(len(a) // 100) * 24.0, 100) for a in amounts]
        right, left = (
            MatchedCourse(o, o, a, voxel_extent_mm=24.0) for o, a in zip(own, amounts, strict=True)
        )
        _, parts = thirds(right, left)
        assert parts.amount_mm3.min() >= 0.0
        assert parts.amount_mm3.sum(axis=1) == pytest.approx([a.sum() for a in amounts])
