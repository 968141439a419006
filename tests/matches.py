"""Matches of legs for tests that need none."""

from __future__ import annotations

from pipeline import SegmentedLegs, Side
from pipeline.core.match import LegMatch
from pipeline.core.transform import identity


def unregistered(legs: SegmentedLegs) -> LegMatch:
    """A failed match: whole muscles are compared, nothing else."""
    spaces = [legs[side].leg.grid.space for side in (Side.LEFT, Side.RIGHT)]
    return LegMatch.failed(identity(*spaces), "not needed here")
