"""T1 bias of a fat fraction: in a spoiled gradient echo fat, whose T1 is short, is brighter than
as much water.

The signal of the steady state (Ernst and Anderson 1966, doi 10.1063/1.1719961), T2* left out, is

    S = M sin(a) (1 - E) / (1 - E cos(a)),   E = exp(-TR / T1).

Water and fat of one voxel have the same flip angle and coil, so that their signals differ by one
factor, the gain of fat, besides their amounts (Liu et al. 2007, doi 10.1002/mrm.21301).
"""

from __future__ import annotations

import math


def steady_state(t1_ms: float, repetition_ms: float, flip_deg: float) -> float:
    """Signal of a spoiled gradient echo by the signal that full magnetisation has, 0 to 1.

    Args:
        t1_ms, repetition_ms: above 0.
        flip_deg: above 0, up to 90.
    """
    kept = math.exp(-repetition_ms / t1_ms)
    flip = math.radians(flip_deg)
    return math.sin(flip) * (1.0 - kept) / (1.0 - kept * math.cos(flip))


def fat_gain(
    water_t1_ms: float, fat_t1_ms: float, *, repetition_ms: float, flip_deg: float
) -> float:
    """How much brighter fat is than as much water; 1 for equal T1.

    A fraction of signals s becomes one of protons by s / (s + gain (1 - s)).
    """
    fat, water = (steady_state(t1, repetition_ms, flip_deg) for t1 in (fat_t1_ms, water_t1_ms))
    return fat / water


def signal_fraction(fraction: float, gain: float) -> float:
    """What a fat fraction (0 to 1) of protons reads as in the signals."""
    return gain * fraction / (gain * fraction + 1.0 - fraction)
