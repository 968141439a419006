"""How much the sides of healthy people differ, and how well that itself is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import HEALTHY_LIMIT_PEOPLE, Muscle, MuscleGroup
from pipeline.imaging.asymmetry import Z95


@dataclass(frozen=True)
class HealthyLimit:
    """A 95 % limit of total-volume asymmetry.

    Attributes:
        percent: the limit; None where there is none.
        people: how many people it comes from; None where that is not stated.
        half_width_percent: half width of the 95 % interval of the limit itself, from the number of
            people alone; None where that is not stated.
    """

    percent: float | None
    people: int | None = None
    half_width_percent: float | None = None


def healthy_limit(structure: Muscle | MuscleGroup, config: MeasureConfig) -> HealthyLimit:
    """The limit of the user's own cohort, else the published one."""
    name = structure.name
    if name in config.own_limits_percent:
        se = config.own_limits_se_percent.get(name)
        return HealthyLimit(
            config.own_limits_percent[name],
            config.own_limits_people.get(name),
            None if se is None else Z95 * se,
        )
    limit = structure.healthy_limit_percent
    if limit is None:
        return HealthyLimit(None)
    # Limits of agreement are published as +- 1.96 SD about a mean difference near 0.
    se = se_of_limit(limit / Z95, HEALTHY_LIMIT_PEOPLE)
    return HealthyLimit(limit, HEALTHY_LIMIT_PEOPLE, Z95 * se)


def se_of_limit(sd: float, people: int) -> float:
    """Standard error of a limit mean + 1.96 SD, in the unit of sd, for so many people (2 or more).

    Both the mean (SD / sqrt(n)) and the SD (SD / sqrt(2 (n - 1))) are known from the same few
    people (Bland and Altman 1986, Lancet 327:307); normal distribution.
    """
    return math.hypot(sd / math.sqrt(people), Z95 * sd / math.sqrt(2.0 * (people - 1)))
