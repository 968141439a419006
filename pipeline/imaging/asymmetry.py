"""The arithmetic of a side difference: index, interval, verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.anatomy import Side
from pipeline.core.results import Verdict


@dataclass(frozen=True)
class Estimate:
    """An asymmetry index and its 95 % interval, percent."""

    percent: float
    low_percent: float
    high_percent: float

    @classmethod
    def of(cls, log_ratio: float, se_log_ratio: float) -> Estimate:
        """From ln(R / L) and its standard error."""
        return cls(index_from_log_ratio(log_ratio), *interval_percent(log_ratio, se_log_ratio))

    def larger_beyond(self, limit_percent: float) -> Side | None:
        """The side that is larger by more than a limit in all of the interval, if one is."""
        if self.low_percent > limit_percent:
            return Side.RIGHT
        return Side.LEFT if self.high_percent < -limit_percent else None


def index_from_log_ratio(log_ratio: float) -> float:
    """Asymmetry index 100 (R - L) / ((R + L) / 2) in percent, from ln(R / L)."""
    return 200.0 * math.tanh(log_ratio / 2.0)


def interval_percent(log_ratio: float, se_log_ratio: float) -> tuple[float, float]:
    """95 % interval of the index in percent, symmetric on the scale of ln(R / L)."""
    half = Z95 * se_log_ratio
    return index_from_log_ratio(log_ratio - half), index_from_log_ratio(log_ratio + half)


def expected_by_chance(count: int) -> float | None:
    """How many of so many 95 % intervals leave out what is true; None where there is none."""
    return 0.05 * count if count else None


def se_from_scan_rescan(cv_percent: float) -> float:
    """Standard error of ln(R / L) when each side has a scan-rescan coefficient of variation.

    Independent errors of both sides add up: sqrt(2) CV, so that the 95 % band around no
    difference is 2.77 CV.
    """
    return math.sqrt(2.0) * cv_percent / 100.0


#: Half-width of a 95 % interval in standard errors.
Z95 = 1.959964
#: How sections of a muscle end, as alpha in se_of_counting.
_SECTIONS = 1.0 / 60.0
#: A muscle that a look loses altogether counts as this much of it.
_LEAST_RATIO = 0.05
#: Of what the sides move on their own, as if independent, so much at least counts as difference:
#: that a few looks moved them alike may be chance.
_LEAST_SPREAD_SHARE = 0.3


@dataclass(frozen=True)
class MethodError:
    """How the method's own error of ln(R / L) is told from a scan; fitted on labelled bodies.

    Attributes:
        gain: error per spread between disturbed looks.
        floor: error of a muscle that is large and the same in every look.
        of_100_ml: further error of a muscle of 100 mL; falls with the root of the volume, as
            that of a border drawn in many places independently.
        factor: on all of these, for a region of the body that is harder to tell.
        level_mm: error of where a level of one leg lies in the other, of muscles that are cut.
        of_fat: further error for every point by which the fat fractions of the sides differ, since
            labels are smaller, or larger, where there is fat in a muscle.
    """

    gain: float
    floor: float
    of_100_ml: float
    factor: float = 1.0
    level_mm: float = 0.0
    of_fat: float = 0.0


def spread_between_looks(right: Sequence[float], left: Sequence[float]) -> float:
    """Root mean square of ln(R / L) over looks, relative to the undisturbed look; at least a share
    of what both sides move on their own (docs/uncertainty.md).

    Args:
        right, left: volume in each disturbed look divided by the undisturbed volume; both legs
            are disturbed alike, look by look.
    """
    logs = [
        math.log(max(a, _LEAST_RATIO) / max(b, _LEAST_RATIO))
        for a, b in zip(right, left, strict=True)
    ]
    alone = math.hypot(spread_of_looks(right), spread_of_looks(left))
    return max(_root_mean_square(logs), _LEAST_SPREAD_SHARE * alone)


def spread_of_looks(ratios: Sequence[float]) -> float:
    """Root mean square over looks of ln(volume) of one side, relative to the undisturbed look."""
    return _root_mean_square([math.log(max(ratio, _LEAST_RATIO)) for ratio in ratios])


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values) / len(values))


def se_of_method(
    spread: float, volume_ml: float, error: MethodError, fat_apart_points: float = 0.0
) -> float:
    """Standard error of ln(R / L) that the method itself adds.

    Args:
        spread: between disturbed looks.
        volume_ml: mean volume of both sides.
        error: the fitted terms; they are independent.
        fat_apart_points: difference of the fat fractions of both sides, where it is known.
    """
    of_size = error.of_100_ml * math.sqrt(100.0 / volume_ml)
    of_looks = error.factor * math.sqrt((error.gain * spread) ** 2 + error.floor**2 + of_size**2)
    return math.hypot(of_looks, error.of_fat * fat_apart_points)


def se_of_counting(areas: Sequence[float]) -> float:
    """Standard error of ln(volume) because a few parallel sections stand for the whole.

    Gundersen and Jensen 1987 (J Microsc 147:229): the variance of the sum is
    alpha (3 A - 4 B + C), with A, B and C the sums of products of each section with itself, the
    next, and the one after. alpha is 1/12 for sections that end abruptly, 1/240 for those that end
    smoothly; muscles end in between (docs/uncertainty.md).

    Args:
        areas: of all sections from the first to the last, equally far apart, in any unit.
    """
    padded = (*areas, 0.0, 0.0)
    triples = zip(areas, padded[1:], padded[2:], strict=False)
    squares = math.fsum(3.0 * a * a - 4.0 * a * b + a * c for a, b, c in triples)
    return math.sqrt(max(0.0, squares) * _SECTIONS) / math.fsum(areas)


def se_total(method: float | None, spread: float | None, scan_rescan: float) -> float:
    """Standard error of ln(R / L) that the interval uses.

    A published scan-rescan figure holds the repeatability of its own segmentation besides
    positioning and scanner. What disturbed looks show is of the same kind and is not added to it
    a second time.
    """
    if method is None or spread is None:
        return scan_rescan
    return math.sqrt(method**2 + max(0.0, scan_rescan**2 - spread**2))


def se_of_repeat(looks: Sequence[float] | None, cv: float, counting: float) -> float:
    """Standard error of ln(volume) of one side from one scan of a person to the next.

    A disturbed look is what a second scan may be. The published figure holds the repeatability of
    its own segmentation, so the larger of both counts; where the slices come to lie is in neither.
    How far the labels are wrong in every scan alike is in it neither, since it is no change.

    Args:
        looks: volume in each disturbed look divided by the undisturbed volume; None without looks.
        cv: published scan-rescan coefficient of variation of one side.
        counting: standard error because slices stand for the whole, see se_of_counting.
    """
    spread = 0.0 if looks is None else spread_of_looks(looks)
    return math.hypot(max(cv, spread), counting)


def judge(
    shown: Estimate, *, limited: Estimate | None, healthy_limit_percent: float | None
) -> Verdict:
    """What a difference means.

    Args:
        shown: the difference to judge.
        limited: that of total volume, which the limit is of; None where the limit does not apply.
        healthy_limit_percent: limit of healthy people, if one exists.

    Returns:
        within measurement error if the interval holds 0; outside healthy spread only if both
        intervals lie beyond the limit on the same side, not surely so if one of the two indices
        does. Measurable, and no more, where the interval of `shown` lies beyond it and `limited`
        does not: the limit says nothing about that.
    """
    if shown.low_percent <= 0.0 <= shown.high_percent:
        return Verdict.WITHIN_ERROR
    if healthy_limit_percent is None or limited is None:
        return Verdict.MEASURABLE
    beyond = shown.larger_beyond(healthy_limit_percent)
    if beyond is not None and beyond is limited.larger_beyond(healthy_limit_percent):
        return Verdict.OUTSIDE_HEALTHY
    if beyond is not None and abs(limited.percent) <= healthy_limit_percent:
        return Verdict.MEASURABLE
    if max(abs(shown.percent), abs(limited.percent)) > healthy_limit_percent:
        return Verdict.NOT_SURELY_OUTSIDE
    return Verdict.WITHIN_HEALTHY
