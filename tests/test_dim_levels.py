"""Levels on which one leg alone is dim."""

from __future__ import annotations

import numpy as np

from pipeline.imaging.dim_levels import dim_levels


def flagged(own: np.ndarray, other: np.ndarray) -> list[int]:
    found = dim_levels(own, other, 10.0, largest_share=0.5, largest_ratio=0.7)
    return np.flatnonzero(found).tolist()


def test_a_dip_of_one_leg_is_told():
    calf = np.array([40.0, 60.0, 80.0, 100.0, 110.0, 100.0, 90.0, 80.0])
    lost = calf.copy()
    lost[3:5] *= 0.3
    assert flagged(lost, calf) == [3, 4]
    assert flagged(calf, lost) == []
    # Both alike, as at an ankle; or a little of it only.
    assert flagged(lost, lost) == []
    assert flagged(0.7 * lost + 0.3 * calf, calf) == []


def test_what_grows_thinner_towards_an_end_is_not_dim():
    stump = np.array([0.0, 0.0, 5.0, 30.0, 70.0, 100.0, 100.0])
    assert flagged(stump, np.full(7, 100.0)) == []


def test_beside_the_end_of_the_other_leg_nothing_is_known_of_it():
    dipped = np.array([100.0, 100.0, 45.0, 100.0, 100.0, 100.0, 100.0, 100.0])
    stump = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 90.0, 100.0, 100.0])
    assert flagged(dipped, np.full(8, 100.0)) == [2]
    assert flagged(dipped, stump) == []
