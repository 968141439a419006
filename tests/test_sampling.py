"""The threshold between dark and bright."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.imaging.sampling import otsu


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
