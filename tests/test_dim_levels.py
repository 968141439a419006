"""Levels on which one leg alone is dim, and the threshold that a few spikes do not move."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.imaging.dim_levels import dim_levels
from pipeline.imaging.sampling import otsu


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


def test_a_few_spikes_do_not_move_the_threshold():
    """Values that wrapped around in 16 bits are a hundred times as bright as tissue."""
    rng = np.random.default_rng(4)
    body = np.concatenate([rng.rayleigh(5.0, 80_000), rng.normal(300.0, 60.0, 20_000)])
    threshold = otsu(body)
    spiked = body.copy()
    spiked[:12] = 65_535.0
    assert 50.0 < threshold < 250.0
    assert otsu(spiked) == pytest.approx(threshold, rel=0.1)


def test_a_few_bright_values_among_one_other_are_told_apart():
    values = np.zeros(100_000)
    assert otsu(values) is None
    values[:20] = 7.0
    assert 0.0 <= otsu(values) < 7.0
