"""The arithmetic of a change between two scans: what is detectable, and is it exceeded?

All of it assumes that the errors of two scans are independent.
"""

from __future__ import annotations

import math

from pipeline.core.change import ChangeVerdict
from pipeline.imaging.asymmetry import Z95


def detectable_change(se_first: float, se_later: float) -> float:
    """Smallest detectable change of what has a standard error in each scan: 1.96 sqrt(a^2 + b^2).

    In the unit of the errors: of 100 ln(volume) of one side 2.77 CV where that is all of them, of
    an asymmetry index 3.92 CV where the total standard errors of 100 ln(R/L) are sqrt(2) CV each.
    """
    return Z95 * math.hypot(se_first, se_later)


def volume_interval_percent(log_change: float, detectable_percent: float) -> tuple[float, float]:
    """95 % interval of 100 (after - before) / before from ln(after / before), percent."""
    half = detectable_percent / 100.0
    return 100.0 * math.expm1(log_change - half), 100.0 * math.expm1(log_change + half)


def judge_change(change: float, detectable: float) -> ChangeVerdict:
    """What a change means next to the detectable one, both in the same unit."""
    if abs(change) <= detectable:
        return ChangeVerdict.NONE
    return ChangeVerdict.INCREASED if change > 0 else ChangeVerdict.DECREASED
