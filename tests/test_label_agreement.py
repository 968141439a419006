"""How far left and right labels agree when each is carried over to the other side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from legs import ENGINE, SPACES, segmented, swapped

from pipeline import LegMatch, SegmentedLegs, Side, default_config, measure
from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.core.results import LimbMeasures, Severity, Status
from pipeline.core.scan import SegmentedLeg
from pipeline.core.soft import Confidence
from pipeline.core.transform import identity
from pipeline.imaging.agreement import Agreement, label_agreement

NAME = "gracilis"
CONFIG = default_config().measure
SPACING_MM = 2.0


def block(side: Side, box: tuple[slice, slice, slice]) -> SegmentedLeg:
    """A leg with one block of a muscle between slices that show another one everywhere."""
    labels = np.zeros((40, 40, 30), dtype=np.uint8)
    labels[2:6, 2:6, :] = STRUCTURE_IDS["sartorius"]
    labels[box] = STRUCTURE_IDS[NAME]
    return segmented(labels, np.diag([2.0, 2.0, 2.0, 1.0]), side)


def agreement(
    left: tuple[slice, slice, slice], right: tuple[slice, slice, slice]
) -> dict[str, Agreement]:
    carry = identity(SPACES[Side.RIGHT], SPACES[Side.LEFT])
    return label_agreement(
        block(Side.LEFT, left), block(Side.RIGHT, right), carry, spacing_mm=SPACING_MM
    )


TEN = slice(10, 20)


@pytest.mark.parametrize(
    ("left", "dice", "disagreement_voxels", "outside"),
    [
        ((TEN, TEN, TEN), 1.0, 0, 0.0),
        # Moved by two voxels: 200 voxels on each side have no partner.
        ((slice(12, 22), TEN, TEN), 0.8, 400, 0.2),
        # Smaller by a fifth, inside: all of the disagreement is the difference in volume.
        ((slice(11, 19), TEN, TEN), 16 / 18, 200, 0.0),
        # Elsewhere altogether.
        ((slice(25, 35), TEN, TEN), 0.0, 2000, 1.0),
    ],
    ids=["same", "moved", "smaller", "elsewhere"],
)
def test_disagreement_of_blocks(left, dice, disagreement_voxels, outside):
    found = agreement(left, (TEN, TEN, TEN))[NAME]
    assert found.dice == pytest.approx(dice)
    assert found.disagreement_ml == pytest.approx(disagreement_voxels * 0.008)
    assert found.outside_share == pytest.approx(outside)


def test_a_structure_of_one_leg_alone_has_no_agreement():
    found = agreement((slice(0, 0), TEN, TEN), (TEN, TEN, TEN))
    assert set(found) == {"sartorius"}


def test_exchanging_the_legs_changes_nothing():
    """Also where both legs lie on grids of their own."""
    carry = identity(SPACES[Side.RIGHT], SPACES[Side.LEFT])
    finer = np.repeat(block(Side.LEFT, (TEN, TEN, slice(12, 25))).labels.data, 2, axis=0)
    affine = np.diag([1.0, 2.0, 2.0, 1.0])
    affine[0, 3] = 0.3
    legs = SegmentedLegs(
        block(Side.RIGHT, (TEN, TEN, TEN)), segmented(finer, affine, Side.LEFT), ENGINE
    )
    found, other = (
        label_agreement(pair.left, pair.right, carry, spacing_mm=SPACING_MM)
        for pair in (legs, swapped(legs))
    )
    assert found == other
    assert 0.0 < found[NAME].outside_share < 0.5


def sure(side: Side) -> SegmentedLeg:
    """A leg whose engine is sure of every structure."""
    confidence = dict.fromkeys((NAME, "sartorius"), Confidence(0.9, (1.0, 1.01)))
    return replace(block(side, (TEN, TEN, TEN)), confidence=confidence)


def measured(outside: float, *, succeeded: bool = True) -> tuple[LimbMeasures, list]:
    """Measures where the labels of one muscle disagree by so much, and the findings about it."""
    carry = identity(SPACES[Side.LEFT], SPACES[Side.RIGHT])
    match = replace(
        LegMatch.failed(carry, "not yet"),
        outside_share={NAME: outside, "sartorius": CONFIG.usual_outside_share},
        succeeded=succeeded,
        reason=None if succeeded else "no overlap",
    )
    legs = SegmentedLegs(sure(Side.RIGHT), sure(Side.LEFT), ENGINE)
    result = measure(legs, match, config=CONFIG)
    return result.value, [f for f in result.findings if f.code == "labels_disagree"]


def sides_of(measures: LimbMeasures, name: str) -> list:
    muscle = next(m for m in measures.muscles if m.name == name)
    return [muscle.right, muscle.left]


def test_usual_disagreement_says_nothing():
    measures, findings = measured(CONFIG.usual_outside_share)
    assert not findings
    assert [m.confidence for m in sides_of(measures, NAME)] == [0.9, 0.9]


def test_disagreement_in_shape_lowers_the_confidence_of_both_sides_alike():
    measures, (finding,) = measured(0.44)
    assert finding.severity is Severity.WARNING
    assert finding.side is None
    assert "gracilis 44 %" in finding.message
    assert "sartorius" not in finding.message
    sides = sides_of(measures, NAME)
    expected = 0.9 * 0.56 / (1.0 - CONFIG.usual_outside_share)
    assert [m.confidence for m in sides] == pytest.approx([expected, expected])
    assert [m.status for m in sides] == [Status.OK, Status.OK]
    assert [m.confidence for m in sides_of(measures, "sartorius")] == [0.9, 0.9]


def test_labels_of_different_things_are_unreliable_on_both_sides():
    measures, (finding,) = measured(0.8)
    assert finding.value == 0.8
    for side in sides_of(measures, NAME):
        assert side.status is Status.UNRELIABLE
        assert "labels disagree: 80 %" in side.reason
        assert side.volume_whole_ml is not None
    muscle = next(m for m in measures.muscles if m.name == NAME)
    assert muscle.asymmetry_total_volume.index_percent is not None
    assert muscle.asymmetry_total_volume.verdict is None


def test_a_failed_registration_says_nothing_of_labels():
    measures, findings = measured(0.8, succeeded=False)
    assert not findings
    assert [m.confidence for m in sides_of(measures, NAME)] == [0.9, 0.9]
