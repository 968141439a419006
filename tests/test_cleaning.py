"""Cleaning in three dimensions, borders on fat, and the checks without truth, on small arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from legs import segmented

from pipeline.core.anatomy import LEG_SCHEME, STRUCTURE_IDS, Side
from pipeline.core.grid import Grid
from pipeline.core.volume import LabelMap
from pipeline.imaging.cleaning import (
    FULL,
    Rules,
    clean,
    confine,
    decided,
    fill_holes,
    knee_level,
    largest_pieces,
    refuse_levels,
    smoothed,
    without_belly_wall,
)
from pipeline.imaging.fat_border import settle_fat_borders, without_fat_pieces, without_holes
from pipeline.imaging.perturbation import disturbed, overlap_sums, perturbations
from pipeline.imaging.plausibility import (
    border_ridge,
    levels_out_of_order,
    share_of_levels_with_bone,
    unexplained_share,
)

IDS = (0, *range(1, 31), *range(41, 48))
RULES = Rules(
    smoothing_mm=3.0,
    above_knee_reach_mm=60.0,
    below_knee_reach_mm=60.0,
    hip_above_knee_mm=120.0,
    above_crest_reach_mm=10.0,
    bridge_mm=6.0,
    smallest_piece_share=0.2,
    largest_gap_mm=50.0,
    continued_gap_mm=25.0,
    largest_hole_mm2=60.0,
    smallest_muscle_ml=0.5,
)


def stack(labels: np.ndarray) -> np.ndarray:
    """Certain memberships of a label array (level, row, column)."""
    return np.stack([np.where(labels == value, FULL, 0) for value in IDS]).astype(np.uint8)


def cleaned(labels: np.ndarray, *, level_mm: float = 6.0) -> np.ndarray:
    """The label array after cleaning."""
    left = clean(stack(labels), IDS, pixel_mm=1.5, level_mm=level_mm, rules=RULES)
    out = np.zeros(labels.shape, dtype=np.uint8)
    for value, membership in left.items():
        out[membership > FULL // 2] = value
    return out


def block(shape=(12, 40, 40), value: int = 9) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint8)
    labels[:, 8:30, 8:30] = value
    return labels


def test_a_clean_leg_stays_as_it_is():
    labels = block()
    labels[:, 8:18, 8:30] = 10
    np.testing.assert_array_equal(cleaned(labels), labels)


def test_an_island_goes_to_what_surrounds_it():
    labels = block()
    labels[:, 8:14, 8:14] = 12
    island = labels.copy()
    island[5, 22:25, 20:24] = 12
    np.testing.assert_array_equal(cleaned(island), labels)


def test_a_far_island_in_background_is_dropped():
    labels = block()
    island = labels.copy()
    island[2:5, 35:38, 2:5] = 9
    np.testing.assert_array_equal(cleaned(island), labels)


def test_traces_of_a_muscle_are_dropped():
    labels = block()
    trace = labels.copy()
    trace[5, 33:36, 33:36] = 7
    np.testing.assert_array_equal(cleaned(trace), labels)


def test_a_slender_muscle_aslant_through_thick_slices_stays_whole():
    labels = np.zeros((10, 60, 90), dtype=np.uint8)
    for level in range(10):
        labels[level, 20:30, 4 + 7 * level : 10 + 7 * level] = 7
    np.testing.assert_array_equal(cleaned(labels, level_mm=24.0), labels)


def test_a_muscle_missing_on_some_levels_keeps_both_parts():
    """The gap is for the measure stage to see; the lower part is no island."""
    mask = np.zeros((20, 12, 12), dtype=bool)
    mask[:8, 3:9, 3:9] = True
    mask[13:, 3:9, 3:9] = True
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 5, 0), mask)
    mask[2:4, 0:1, 0:1] = True
    found = largest_pieces(mask, 1, 0.2, 5, 0)
    assert not found[2, 0, 0]


def test_what_looks_like_a_muscle_far_along_the_limb_is_none():
    mask = np.zeros((30, 12, 12), dtype=bool)
    mask[:8, 3:9, 3:9] = True
    alone = mask.copy()
    mask[20:25, 3:9, 3:9] = True
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 11, 0), alone)
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 12, 0), mask)
    # A piece between them carries on to the far one, whichever is the larger.
    mask[12:15, 3:9, 3:9] = True
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 5, 0), mask)


def test_a_small_piece_stays_only_where_the_muscle_goes_on():
    mask = np.zeros((30, 40, 40), dtype=bool)
    mask[:20, 10:22, 10:22] = True
    alone = mask.copy()
    mask[23:25, 12:18, 12:18] = True
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 5, 3), mask)
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 5, 2), alone)
    # As far along the limb, and further away than a muscle moves on the way.
    beside = alone.copy()
    beside[23:25, 32:38, 32:38] = True
    np.testing.assert_array_equal(largest_pieces(beside, 2, 0.2, 5, 3), alone)
    # The same upside down, and a speck.
    np.testing.assert_array_equal(largest_pieces(mask[::-1], 2, 0.2, 5, 3), mask[::-1])
    alone[23, 12:15, 12:15] = True
    assert not largest_pieces(alone, 2, 0.2, 5, 3)[23].any()


def test_a_muscle_of_the_hip_comes_down_from_the_pelvis():
    gluteus, ham = STRUCTURE_IDS["gluteus_maximus"], STRUCTURE_IDS["semitendinosus"]
    labels = np.zeros((30, 40, 60), dtype=np.uint8)
    labels[:, 4:36, 4:30] = ham
    labels[8:14, 10:20, 34:50] = gluteus
    assert not (cleaned(labels) == gluteus).any()
    # Where it goes on to the upper end of what is in view it may be one ...
    above = labels.copy()
    above[8:30, 10:20, 34:50] = gluteus
    np.testing.assert_array_equal(cleaned(above), above)
    # ... and where the pelvis is in view, where it reaches that.
    labels[14:, 28:34, 36:50] = STRUCTURE_IDS["hip_bone"]
    np.testing.assert_array_equal(cleaned(labels), labels)


def test_of_two_pieces_the_one_from_the_pelvis_counts():
    mask = np.zeros((30, 12, 12), dtype=bool)
    mask[:8, 3:9, 3:9] = True
    lower = mask.copy()
    mask[24:28, 3:9, 3:9] = True
    np.testing.assert_array_equal(largest_pieces(mask, 2, 0.2, 5, 0, 25), mask & ~lower)
    assert not largest_pieces(mask, 2, 0.2, 5, 0, 29).any()


def test_holes_are_closed_and_large_ones_are_not():
    labels = block()
    holes = labels.copy()
    holes[4, 14:17, 14:17] = 0
    holes[6, 12:22, 12:22] = 0
    expected = labels.copy()
    expected[6, 12:22, 12:22] = 0
    np.testing.assert_array_equal(cleaned(holes, level_mm=24.0), expected)


def test_bone_inside_a_muscle_is_no_hole():
    labels = block()
    labels[:, 16:20, 16:20] = 41
    np.testing.assert_array_equal(cleaned(labels), labels)
    # And background beside the bone is none either: the marrow's rim, not a hole of the muscle.
    memberships = stack(labels)
    winning = decided(memberships)
    winning[:, 16:20, 20:21] = 0
    before = winning.copy()
    fill_holes(memberships, winning, IDS.index(9), np.s_[0:12, 8:30, 8:30], 10)
    np.testing.assert_array_equal(winning, before)


def limb(levels: int = 40) -> np.ndarray:
    """Thigh above, leg below, 6 mm a level, the knee at level 20."""
    labels = np.zeros((levels, 30, 30), dtype=np.uint8)
    labels[20:, 5:25, 5:25] = 9
    labels[:20, 5:25, 5:25] = 26
    return labels


def test_the_knee_parts_thigh_and_leg():
    assert knee_level(stack(limb()), IDS) == 20
    assert knee_level(stack(limb()[20:]), IDS) == 0
    assert knee_level(stack(limb()[:20]), IDS) == 20


def test_muscles_of_the_leg_do_not_reach_the_hip():
    labels = limb()
    wrong = labels.copy()
    wrong[34:38, 5:12, 5:25] = 26
    memberships = stack(wrong)
    memberships[IDS.index(9), 34:38, 5:12, 5:25] = 40
    memberships[IDS.index(26), 34:38, 5:12, 5:25] = FULL - 40
    out = clean(memberships, IDS, pixel_mm=1.5, level_mm=6.0, rules=RULES)
    np.testing.assert_array_equal(out[9] > FULL // 2, labels == 9)
    np.testing.assert_array_equal(out[26] > FULL // 2, labels == 26)


def test_muscles_of_the_pelvis_end_at_the_crest():
    """What looks like gluteus medius beside the belly is none; the psoas comes from the spine."""
    labels = limb(60)
    labels[45:54, 9:16, 10:17] = STRUCTURE_IDS["hip_bone"]
    labels[45:60, 16:24, 16:24] = STRUCTURE_IDS["gluteus_medius"]
    labels[45:60, 6:9, 6:14] = STRUCTURE_IDS["iliopsoas"]
    expected = labels.copy()
    # Two levels of 6 mm are 10 mm.
    expected[56:, 16:24, 16:24] = 0
    np.testing.assert_array_equal(cleaned(labels), expected)
    # Specks of bone further up are none.
    labels[58, 9:16, 16:24] = STRUCTURE_IDS["hip_bone"]
    assert not np.isin(cleaned(labels)[56:], STRUCTURE_IDS["gluteus_medius"]).any()
    labels[58, 9:16, 16:24] = 9
    # A bone that shows on two levels only is not found.
    labels[45:52, 9:16, 10:17] = 9
    np.testing.assert_array_equal(cleaned(labels), labels)


def test_above_the_crest_iliopsoas_is_what_goes_on_from_its_inner_part():
    muscle = np.zeros((14, 30, 30), dtype=bool)
    # Iliacus on the bone and psoas beside it, up to the crest at level 8; psoas moves inwards.
    muscle[:9, 4:16, 18:26] = True
    for level in range(14):
        muscle[level, 5:15, 10 - level // 2 : 18 - level // 2] = True
    wall = np.zeros_like(muscle)
    wall[7:14, 20:28, 14:28] = True
    np.testing.assert_array_equal(without_belly_wall(muscle | wall, 8, 4)[9:], muscle[9:])
    # Below the crest all is left: iliacus lies apart from psoas there.
    np.testing.assert_array_equal(without_belly_wall(muscle | wall, 8, 4)[:9], (muscle | wall)[:9])
    # A level on which it was not seen ends nothing; what begins above the crest is none.
    gap = muscle.copy()
    gap[11] = False
    np.testing.assert_array_equal(without_belly_wall(gap, 8, 4), gap)
    assert not without_belly_wall(muscle, -1, 4).any()


def test_what_a_class_loses_the_others_gain():
    memberships = np.zeros((3, 1, 1, 2), dtype=np.uint8)
    memberships[:, 0, 0, 0] = (55, 100, 100)
    memberships[:, 0, 0, 1] = (0, 0, 255)
    refuse_levels(memberships, {2: np.array([True])})
    np.testing.assert_array_equal(memberships[:, 0, 0, 0], (90, 165, 0))
    np.testing.assert_array_equal(memberships[:, 0, 0, 1], (255, 0, 0))
    kept = np.zeros((1, 1, 2), dtype=np.uint8)
    confine(memberships, kept, 1)
    np.testing.assert_array_equal(memberships[:, 0, 0, 0], (255, 0, 0))


def test_smoothing_removes_a_flicker_between_close_slices_only():
    one = np.zeros((9, 1, 1), dtype=np.uint8)
    one[4] = FULL
    assert smoothed(one, 3.0, 3.0)[4, 0, 0] < FULL / 2
    np.testing.assert_array_equal(smoothed(one, 24.0, 3.0), one)
    even = np.full((9, 1, 1), FULL, dtype=np.uint8)
    np.testing.assert_array_equal(smoothed(even, 3.0, 3.0), even)


def fat_slice() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Muscle 9 in the middle, a thick rim of fat, air outside."""
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[12:28, 12:28] = 9
    fat = np.zeros(labels.shape, dtype=bool)
    fat[4:36, 4:36] = True
    fat[12:28, 12:28] = False
    known = np.zeros(labels.shape, dtype=bool)
    known[4:36, 4:36] = True
    return labels, fat, known


def settled(labels, fat, known):
    return settle_fat_borders(labels, fat, known, (1.5, 1.5), 5.0)


def test_a_border_on_thick_fat_moves_by_one_voxel_at_most():
    labels, fat, known = fat_slice()
    np.testing.assert_array_equal(settled(labels, fat, known), labels)
    wide = labels.copy()
    wide[10:28, 12:28] = 9
    expected = wide.copy()
    expected[10, 12:28] = 0
    # At the corners of the strip the next row borders on fat too.
    np.testing.assert_array_equal(settled(wide, fat, known)[:, 13:27], expected[:, 13:27])
    narrow = labels.copy()
    narrow[12:14, 12:28] = 0
    found = settled(narrow, fat, known)
    # Two voxels short: one is not beside the fat, the other not beside the muscle.
    np.testing.assert_array_equal(found, narrow)
    narrow = labels.copy()
    narrow[12, 12:28] = 0
    np.testing.assert_array_equal(settled(narrow, fat, known)[12, 13:27], labels[12, 13:27])


def test_fat_inside_and_between_muscles_moves_nothing():
    labels, fat, known = fat_slice()
    labels[12:28, 20:28] = 10
    fat[14:26, 19:21] = True
    fat[16:20, 14:18] = True
    np.testing.assert_array_equal(settled(labels, fat, known), labels)


def test_a_piece_of_muscle_in_fat_goes_and_a_muscle_replaced_by_fat_stays():
    labels, fat, _ = fat_slice()
    stray = labels.copy()
    stray[6:9, 15:20] = 9
    np.testing.assert_array_equal(without_fat_pieces(stray, fat), labels)
    np.testing.assert_array_equal(without_fat_pieces(stray, fat | (labels > 0)), labels)
    np.testing.assert_array_equal(without_fat_pieces(stray, fat & (stray == 0)), stray)


def test_what_tissue_encloses_is_inside_the_leg():
    ring = np.zeros((12, 12, 3), dtype=bool)
    ring[2:10, 2:10, :2] = True
    ring[4:8, 4:8, :2] = False
    ring[4:8, 8:, 1] = False
    expected = ring.copy()
    expected[4:8, 4:8, 0] = True
    np.testing.assert_array_equal(without_holes(ring), expected)


def test_perturbations_differ_and_repeat():
    kinds = perturbations(3, noise_share=0.05, bias_share=0.3, shift_pixels=0.5, tilt_deg=4.0)
    image = np.full((2, 5, 32, 32), 0.5, dtype=np.float32)
    looks = [disturbed(image, 7, kind) for kind in kinds]
    np.testing.assert_array_equal(looks[0], disturbed(image, 7, kinds[0]))
    assert np.abs(looks[0] - looks[1]).max() > 0.05
    assert np.abs(looks[0] - image).max() < 0.6
    for kind in kinds:
        assert np.hypot(*kind.shift_pixels) == pytest.approx(0.5)
        assert kind.shift_pixels[0] * kind.tilt[0] + kind.shift_pixels[1] * kind.tilt[1] < 1e-12


def test_overlap_is_what_both_share():
    shared, first, second = overlap_sums(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    assert (shared, first, second) == (1.0, 2.0, 1.0)


def label_map(labels: np.ndarray) -> LabelMap:
    grid = Grid(labels.shape, np.diag([1.5, 1.5, 6.0, 1.0]), "right-leg")
    return LabelMap(labels.astype(np.uint8), grid, LEG_SCHEME)


def test_order_of_levels_is_checked():
    labels = np.zeros((4, 4, 20), dtype=np.uint8)
    labels[:, :, 2:8] = STRUCTURE_IDS["rectus_femoris"]
    labels[:, :, 10:19] = STRUCTURE_IDS["vastus_medialis"]
    assert levels_out_of_order(label_map(labels)) == [("rectus_femoris", "vastus_medialis")]
    assert levels_out_of_order(label_map(labels[:, :, ::-1])) == []
    # 96 mm of a limb show too little to tell.
    assert levels_out_of_order(label_map(labels[:, :, :18])) == []


def test_share_of_levels_with_a_bone():
    labels = np.zeros((6, 6, 10), dtype=np.uint8)
    assert share_of_levels_with_bone(label_map(labels)) is None
    labels[:, :, 2:] = 9
    labels[2, 2, 4:8] = STRUCTURE_IDS["femur"]
    assert share_of_levels_with_bone(label_map(labels)) == pytest.approx(0.5)


def test_borders_on_fascia_are_told_from_borders_beside_it():
    image = np.full((60, 60, 4), 100.0, dtype=np.float32)
    image[30] = 40.0
    on = np.zeros((60, 60, 4), dtype=np.uint8)
    on[10:31, 5:55], on[31:50, 5:55] = 9, 10
    beside = np.zeros_like(on)
    beside[10:34, 5:55], beside[34:50, 5:55] = 9, 10
    assert border_ridge(label_map(on), image) > 3.0
    assert border_ridge(label_map(beside), image) < 1.0
    assert border_ridge(label_map(np.where(on > 0, 9, 0)), image) is None


def test_unlabelled_muscle_is_seen():
    image = np.zeros((60, 60, 6), dtype=np.float32)
    image[5:55, 5:55] = np.random.default_rng(1).normal(100.0, 1.0, (50, 50, 6))
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[5:30, 5:55] = 9
    base = segmented(labels, np.diag([1.5, 1.5, 6.0, 1.0]), Side.RIGHT)
    leg = replace(base.leg, tissue=image > 50.0)
    assert unexplained_share(base.labels, leg, image) > 0.2
    whole = np.where(image > 50.0, 9, 0).astype(np.uint8)
    full = segmented(whole, np.diag([1.5, 1.5, 6.0, 1.0]), Side.RIGHT)
    assert unexplained_share(full.labels, replace(full.leg, tissue=image > 50.0), image) == 0.0


def test_what_the_pelvis_holds_is_no_unlabelled_muscle():
    image = np.full((60, 60, 6), 100.0, dtype=np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[5:30, 5:55] = 9
    labels[40:45, 20:25, 2:] = STRUCTURE_IDS["hip_bone"]
    base = segmented(labels, np.diag([1.5, 1.5, 6.0, 1.0]), Side.RIGHT)
    leg = replace(base.leg, tissue=image > 50.0)
    assert unexplained_share(base.labels, leg, image) > 0.2
    leg = replace(leg, tissue=leg.tissue & ((labels > 0) | (np.arange(6) > 1)))
    assert unexplained_share(base.labels, leg, image) == 0.0
    labels[40:45, 20:25] = STRUCTURE_IDS["hip_bone"]
    base = segmented(labels, np.diag([1.5, 1.5, 6.0, 1.0]), Side.RIGHT)
    assert unexplained_share(base.labels, leg, image) is None
