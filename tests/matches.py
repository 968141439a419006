"""Matches of legs for tests that need none."""

from __future__ import annotations

from pipeline import SegmentedLegs, Side
from pipeline.core.match import LegMatch
from pipeline.core.transform import identity


def unregistered(legs: SegmentedLegs) -> LegMatch:
    """A failed match: whole muscles are compared, nothing else."""
    spaces = [legs[side].leg.grid.space for side in (Side.LEFT, Side.RIGHT)]
    return LegMatch(
        left_to_right=identity(*spaces),
        right_to_left=identity(*reversed(spaces)),
        overlap={},
        overlap_before={},
        surface_distance_mm={},
        extent=None,
        inverse_error_mm=0.0,
        succeeded=False,
        reason="not needed here",
    )
