"""Labels of both legs replaced by what both sides say together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from legs import ENGINE, SPACES, both_legs, segmented, swapped

from pipeline import LegMatch, SegmentedLegs, Side, default_config, load_config, measure, reconcile
from pipeline.core.anatomy import LEFT_OFFSET, STRUCTURE_IDS
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE, SegmentedLeg
from pipeline.core.transform import AffineTransform
from pipeline.imaging.labels import join_labels

NAME, OTHER = "gracilis", "sartorius"
CONFIG = load_config(overrides={"reconcile": {"consensus": True}}).reconcile
VOXEL_MM = 2.0
Box = tuple[slice, slice, slice]
TEN, SIX = slice(10, 20), slice(12, 18)
#: All levels: cut by the field of view at both ends, as most muscles of a thigh scan.
ALONG = slice(0, 24)


def block(
    side: Side, box: Box, *, also: Box | None = None, shift_mm: float = 0.0, levels: int = 24
) -> SegmentedLeg:
    """A leg with one block of a muscle and, where wanted, one of another muscle."""
    labels = np.zeros((36, 30, levels), dtype=np.uint8)
    labels[box] = STRUCTURE_IDS[NAME]
    if also is not None:
        labels[also] = STRUCTURE_IDS[OTHER]
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[0, 3] = shift_mm
    return segmented(labels, affine, side)


def along(shift_mm: float = 0.0, reason: str | None = None) -> LegMatch:
    """A match that shifts the left leg along x; failed for a reason."""
    matrix = np.eye(4)
    matrix[0, 3] = shift_mm
    found = AffineTransform(matrix, SPACES[Side.LEFT], SPACES[Side.RIGHT])
    failed = LegMatch.failed(found, reason or "not yet")
    return failed if reason else replace(failed, succeeded=True, reason=None)


def agreed(right: SegmentedLeg, left: SegmentedLeg, match: LegMatch | None = None):
    result = reconcile(SegmentedLegs(right, left, ENGINE), match or along(), config=CONFIG)
    return result.value, result.findings


def extent(leg: SegmentedLeg, name: str = NAME) -> list[tuple[int, int]]:
    """First and last index of a muscle along each axis."""
    index = np.argwhere(leg.labels.data == STRUCTURE_IDS[name])
    return [(int(a), int(b)) for a, b in zip(index.min(axis=0), index.max(axis=0), strict=True)]


def test_a_leg_and_its_mirror_image_stay_as_they_are():
    right = block(Side.RIGHT, (TEN, TEN, ALONG), also=(slice(20, 24), TEN, slice(3, 9)))
    left = block(Side.LEFT, (TEN, TEN, ALONG), also=(slice(20, 24), TEN, slice(3, 9)), shift_mm=7.4)
    legs, findings = agreed(right, left, along(-7.4))
    assert np.array_equal(legs.right.labels.data, right.labels.data)
    assert np.array_equal(legs.left.labels.data, left.labels.data)
    assert [f.code for f in findings] == ["labels_are_consensus"]
    assert findings[0].value == 0.0


def test_both_sides_go_half_of_the_way():
    """Borders two voxels apart meet in the middle; the difference shrinks and it is said."""
    right = block(Side.RIGHT, (TEN, TEN, ALONG))
    left = block(Side.LEFT, (SIX, TEN, ALONG))
    legs, (finding,) = agreed(right, left)
    for leg in (legs.right, legs.left):
        assert extent(leg) == [(11, 18), (10, 19), (0, 23)]
    assert finding.threshold == pytest.approx(100.0 * (10 - 6) / 8)
    assert finding.value == 0.0
    assert "Most in the gracilis: +50.0 % before, +0.0 % after" in finding.message
    assert "hides a part of a true difference" in finding.message


def test_what_the_registration_stretches_stays_different():
    """A left leg that is smaller as a whole, and known to be: the consensus takes nothing away."""
    right = block(Side.RIGHT, (slice(8, 28), TEN, ALONG))
    left = block(Side.LEFT, (slice(8, 18), TEN, ALONG))
    matrix = np.diag([2.0, 1.0, 1.0, 1.0])
    matrix[0, 3] = VOXEL_MM * (7.5 - 2.0 * 7.5)
    stretch = AffineTransform(matrix, SPACES[Side.LEFT], SPACES[Side.RIGHT])
    match = replace(along(), left_to_right=stretch, right_to_left=stretch.inverse())
    legs, (finding,) = agreed(right, left, match)
    assert np.array_equal(legs.right.labels.data, right.labels.data)
    assert np.array_equal(legs.left.labels.data, left.labels.data)
    assert finding.value == finding.threshold == pytest.approx(100.0 * 10 / 15)


def test_exchanging_the_sides_changes_the_sign_and_nothing_else():
    right = block(Side.RIGHT, (TEN, TEN, ALONG), also=(slice(20, 24), TEN, slice(3, 19)))
    left = block(
        Side.LEFT, (slice(11, 18), slice(9, 21), ALONG), also=(slice(19, 25), TEN, slice(5, 20))
    )
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    matrix[:3, 3] = (4.1, -2.3, 0.7)
    turn = AffineTransform(matrix, SPACES[Side.LEFT], SPACES[Side.RIGHT])
    match = replace(along(), left_to_right=turn, right_to_left=turn.inverse())
    other = AffineTransform(turn.inverse().matrix, SPACES[Side.LEFT], SPACES[Side.RIGHT])
    exchanged = replace(along(), left_to_right=other, right_to_left=other.inverse())
    legs = SegmentedLegs(right, left, ENGINE)
    here = reconcile(legs, match, config=CONFIG).value
    there = reconcile(swapped(legs), exchanged, config=CONFIG).value
    assert np.array_equal(here.right.labels.data, there.left.labels.data)
    assert np.array_equal(here.left.labels.data, there.right.labels.data)
    assert not np.array_equal(here.right.labels.data, right.labels.data)
    config = default_config().measure
    one, two = (
        measure(pair, m, config=config).value for pair, m in ((here, match), (there, exchanged))
    )
    for a, b in zip(one.muscles, two.muscles, strict=True):
        index = a.asymmetry_total_volume.index_percent
        if index is not None:
            assert b.asymmetry_total_volume.index_percent == pytest.approx(-index, abs=1e-9)
    assert sum(m.asymmetry_total_volume.index_percent is not None for m in one.muscles) == 2


def test_no_difference_gets_a_verdict():
    right, left = (block(side, (TEN, TEN, slice(4, 20))) for side in (Side.RIGHT, Side.LEFT))
    legs = SegmentedLegs(right, left, ENGINE)
    config = default_config().measure
    for pair, verdict in ((legs, True), (reconcile(legs, along(), config=CONFIG).value, False)):
        measures = measure(pair, along(), config=config).value
        muscle = next(m for m in measures.muscles if m.name == NAME)
        assert muscle.asymmetry_total_volume.index_percent == 0.0
        assert (muscle.asymmetry_total_volume.verdict is not None) == verdict
    assert "consensus of both sides" in muscle.asymmetry_total_volume.reason


def test_where_the_other_leg_says_nothing_the_own_label_stands():
    """Levels it was not scanned on, and muscles it does not have."""
    right = block(Side.RIGHT, (TEN, TEN, ALONG), also=(slice(22, 26), TEN, slice(3, 9)))
    left = block(Side.LEFT, (SIX, TEN, slice(0, 12)), levels=12)
    legs, _ = agreed(right, left)
    beyond = legs.right.labels.data[:, :, 13:]
    assert np.array_equal(beyond, right.labels.data[:, :, 13:])
    assert extent(legs.left) == [(11, 18), (10, 19), (0, 11)]
    assert extent(legs.right, OTHER) == extent(right, OTHER)


def test_it_is_off_unless_asked_for_and_impossible_without_a_match():
    right, left = block(Side.RIGHT, (TEN, TEN, ALONG)), block(Side.LEFT, (SIX, TEN, ALONG))
    legs = SegmentedLegs(right, left, ENGINE)
    untouched = reconcile(legs, along(), config=default_config().reconcile)
    assert untouched.value is legs
    assert not untouched.findings
    failed = reconcile(legs, along(reason="mean overlap 0.2"), config=CONFIG)
    assert failed.value is legs
    (finding,) = failed.findings
    assert finding.code == "no_consensus"
    assert "mean overlap 0.2" in finding.message


@pytest.mark.parametrize(
    ("right_owns", "left_owns", "winner"),
    [(True, False, Side.RIGHT), (False, True, Side.LEFT), (True, True, None), (False, False, None)],
)
def test_a_voxel_that_both_legs_claim_goes_to_the_one_whose_tissue_it_is(
    right_owns: bool, left_owns: bool, winner: Side | None
) -> None:
    value = STRUCTURE_IDS[NAME]
    scanned = np.zeros((2, 40, 8, 4), dtype=np.uint8)
    scanned[0, 5:22, 2:6] = value
    scanned[1, 18:35, 2:6] = value + LEFT_OFFSET
    pairs = [both_legs(labels, np.diag([2.0, 2.0, 5.0, 1.0])) for labels in scanned]
    contested = np.zeros((40, 8, 4), dtype=np.bool_)
    contested[18:22, 2:6] = True

    def owning(own: SegmentedLeg, owns: bool) -> SegmentedLeg:
        mine = own.leg.to_canonical(contested)
        return replace(own, leg=replace(own.leg, tissue=own.leg.tissue & (owns | ~mine)))

    legs = SegmentedLegs(
        owning(pairs[0].right, right_owns), owning(pairs[1].left, left_owns), ENGINE
    )
    joined = join_labels(legs, Grid(contested.shape, np.diag([2.0, 2.0, 5.0, 1.0]), SCANNER_SPACE))
    claimed = {None: 0, Side.RIGHT: value, Side.LEFT: value + LEFT_OFFSET}[winner]
    assert np.all(joined[contested] == claimed)
    for labels in scanned:
        np.testing.assert_array_equal(
            joined[~contested & (labels > 0)], labels[~contested & (labels > 0)]
        )
