"""How far charts of differences reach, and what goes on beyond their ends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from pipeline.core.results import Asymmetry

#: A chart reaches at least so far to both sides, percent.
_LEAST = 10.0
#: A typical row fills at least this share of its half of the chart, however far single ones go.
_TYPICAL_SHARE = 0.25


def drawn_values(asymmetry: Asymmetry) -> tuple[float, ...]:
    """What is drawn of a difference, percent: itself and the ends of its interval."""
    values = (
        asymmetry.index_percent,
        asymmetry.interval_low_percent,
        asymmetry.interval_high_percent,
    )
    return tuple(value for value in values if value is not None)


def shared_reach(rows: Iterable[Sequence[float]]) -> float:
    """Half width of a chart whose rows stand around 0, in the unit of their values.

    Everything fits, unless single rows go so far that the others would shrink to nothing: one
    poor muscle must not hide twenty good ones. What goes further is drawn to the end and marked.

    Args:
        rows: the values drawn in each row.
    """
    ends = [max(map(abs, row)) for row in rows if row]
    if not ends:
        return _LEAST
    return max(_LEAST, min(max(ends), statistics.median(ends) / _TYPICAL_SHARE))


def axis_reach(rows: Iterable[Sequence[float]]) -> float:
    """The same for an axis with ticks: in steps of 5, with a little room."""
    return 5.0 * math.ceil(shared_reach(rows) / 5.0 + 0.2)


def share_of_reach(value: float, reach: float) -> float:
    """Where a value stands between the ends of a chart, -1 to 1; what goes further, at the end."""
    return max(-1.0, min(1.0, value / reach))


def goes_on(values: Sequence[float], reach: float) -> tuple[float | None, float | None]:
    """The furthest values beyond the left and the right end of a chart; None: nothing is."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return low if low < -reach else None, high if high > reach else None
