"""Levels on which one leg gives less signal than above and below: it moved, or slices were lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: What lies this far above and below, mm, says what is to be expected in between.
_REACH_MM = 60.0


def dim_levels(
    own: Floats, other: Floats, level_mm: float, *, largest_share: float, largest_ratio: float
) -> Flags:
    """Levels of one leg that are dim, and those of the other are not.

    Legs grow thinner and thicker, so that a level is dim only where the signal rises again on
    both of its sides, and there is more of it in the other leg.

    Args:
        own, other: signal of all of the leg, and of the other one, on the same levels (nz,).
        level_mm: distance of the levels.
        largest_share: signal of a dim level, as part of what there is above and below.
        largest_ratio: the same, as part of what it is in the other leg.

    Returns:
        flags (nz,).
    """
    reach = max(1, round(_REACH_MM / level_mm))
    share, usual = (_share_of_around(values, reach) for values in (own, other))
    # Beside the end of the other leg nothing is known of it.
    known = np.isfinite(usual)
    return np.asarray(known & (share < largest_share) & (share < largest_ratio * usual))


def _share_of_around(values: Floats, reach: int) -> Floats:
    """Each level as part of the smaller of the largest ones below and above; at ends infinite."""
    count = len(values)
    around = np.array(
        [
            min(
                values[max(0, level - reach) : level].max(initial=0.0),
                values[level + 1 : level + 1 + reach].max(initial=0.0),
            )
            for level in range(count)
        ]
    )
    share = np.full(count, np.inf)
    np.divide(values, around, out=share, where=around > 0)
    return share
