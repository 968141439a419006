"""The label side of the training, which needs no torch."""

from __future__ import annotations

import numpy as np
import pytest

from training.between import with_other_leg
from training.codes import (
    CLASS_COUNT,
    CLASS_IDS,
    OTHER_MUSCLE,
    OUTSIDE,
    SEAM,
    UNKNOWN,
    allowed_classes,
)
from training.prepare import Source, _close_gaps, _cut_seams, prepare


def test_a_labelled_pixel_is_what_it_says() -> None:
    table = allowed_classes([9], never_labelled=[14], complete=True)
    assert table[9].sum() == 1
    assert table[9, CLASS_IDS.index(9)]
    assert table[OUTSIDE].nonzero()[0].tolist() == [0]
    assert table[OTHER_MUSCLE].nonzero()[0].tolist() == [0]


def test_a_gap_hides_what_the_source_never_draws() -> None:
    table = allowed_classes([9, 10], never_labelled=[14], complete=True)
    assert {CLASS_IDS[i] for i in table[SEAM].nonzero()[0]} == {0, 14}


def test_a_gap_in_an_automatic_map_hides_every_muscle_not_on_the_slice() -> None:
    table = allowed_classes([9, 53], never_labelled=[], complete=False)
    hidden = {CLASS_IDS[i] for i in table[SEAM].nonzero()[0]}
    assert not hidden & {9, 24, 25}
    assert {0, 7, 8} <= hidden


def test_a_union_allows_its_members_only() -> None:
    table = allowed_classes([53], never_labelled=[], complete=True)
    assert {CLASS_IDS[i] for i in table[53].nonzero()[0]} == {24, 25}
    assert table.shape[1] == CLASS_COUNT


def test_narrow_gaps_are_shared_and_wide_ones_stay() -> None:
    codes = np.zeros((60, 60), dtype=np.uint8)
    codes[10:30, 10:50] = 9
    codes[32:50, 10:50] = 10  # 2 pixels = 1.5 mm away
    closed = _close_gaps(codes)
    assert (closed[15:45, 25] > 0).all()
    codes[32:40] = 0  # 10 pixels = 7.5 mm away
    assert (_close_gaps(codes) == codes).all()


def test_a_seam_takes_as_much_from_either_side() -> None:
    codes = np.full((200, 200), 9, dtype=np.uint8)
    codes[:, 100:] = 10
    seamed = _cut_seams(codes)
    lost = [(codes == value).sum() - (seamed == value).sum() for value in (9, 10)]
    assert lost == [100, 100]
    assert set(np.unique(seamed)) == {9, 10, SEAM}


@pytest.mark.parametrize("offset", [0, 100])
def test_a_femur_is_found_where_the_vasti_leave_a_hole(offset: int) -> None:
    rows, columns = np.ogrid[:150, :150]
    radius = np.hypot(rows - 75, columns - 75)
    plane = np.where((radius < 50) & (radius > 13), 10 + offset, 0).astype(np.uint8)
    plane[(radius < 70) & (radius >= 50)] = 9 + offset
    source = Source("map", "person", "thigh", 0, 0, ())
    body = prepare(source, plane.T[:, :, None], (1.0, 1.0, 10.0))
    bone = body.codes == 41 + offset
    assert np.sqrt(bone.sum() * 0.75**2 / np.pi) == pytest.approx(13, abs=1.0)
    assert body.distance.min() == 0


def test_what_lies_between_two_equal_halves_is_no_muscle() -> None:
    half = np.zeros((60, 90), dtype=np.uint8)
    half[40:, 10:80] = 1  # gluteus maximus outside, the inside of the pelvis open
    plane = np.concatenate([np.where(half > 0, half + 100, 0)[::-1], half]).astype(np.uint8)
    source = Source("map", "person", "whole", 0, 0, ())
    codes = prepare(source, plane[:, :, None], (1.0, 1.0, 10.0)).codes
    assert set(np.unique(codes % 100)) == {OUTSIDE, 1, SEAM, UNKNOWN}


def test_a_leg_gets_its_mirror_image_beside_it() -> None:
    leg = np.zeros((40, 30, 41), dtype=np.uint8)
    for level in range(41):
        leg[5 + level // 4 : 25 + level // 4, 5:25, level] = 9
    both = with_other_leg(leg)
    right, left = both % 100 * (both < 100), both % 100 * (both > 100)
    assert np.array_equal(right[::-1], left)
    assert np.count_nonzero(right) == np.count_nonzero(leg[:, :, ::2])
    inner = np.argmax((right > 0).any(axis=1), axis=0) - len(both) // 2
    # Half of 12 mm in cubes of 1.5 mm; towards the ends the shift lags behind.
    assert inner[4:-4] == pytest.approx(4, abs=1.5)
    assert inner == pytest.approx(4, abs=3)
