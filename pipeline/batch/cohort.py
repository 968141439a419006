"""Arithmetic over people: spread, limits, lines by body size, distance from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.asymmetry import Z95
from pipeline.measuring.limits import se_of_limit

Floats = NDArray[np.float64]

#: Standard deviation of a normal distribution divided by its median absolute deviation, and by its
#: mean absolute deviation.
_SD_OVER_MAD, _SD_OVER_MEAN_AD = 1.4826, 1.2533


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a measure over people.

    Attributes:
        people: how many.
        mean, sd: of the measure, in its unit; sd with n - 1.
        se_sd: standard error of sd, sd / sqrt(2 (n - 1)), as for a normal distribution.
    """

    people: int
    mean: float
    sd: float
    se_sd: float

    @property
    def limit(self) -> float:
        """A limit about 0 that 95 % stay within: the farther end of mean +- 1.96 SD.

        Bland and Altman 1986 (Lancet 327:307) take mean +- 1.96 SD as limits of agreement; one
        figure for both directions needs the farther of the two.
        """
        return abs(self.mean) + Z95 * self.sd

    @property
    def se_limit(self) -> float:
        """Standard error of limit: of the mean and of 1.96 SD together."""
        return se_of_limit(self.sd, self.people)


@dataclass(frozen=True)
class SizeLine:
    """A volume by body size: slope x height x mass + intercept.

    Attributes:
        people: how many it rests on.
        slope_ml_per_m_kg, intercept_ml: of the line of least squares.
        residual_sd_ml: spread about the line, with n - 2.
    """

    people: int
    slope_ml_per_m_kg: float
    intercept_ml: float
    residual_sd_ml: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of two people or more."""
    array = np.asarray(values, dtype=np.float64)
    sd = float(array.std(ddof=1))
    return Spread(array.size, float(array.mean()), sd, sd / math.sqrt(2.0 * (array.size - 1)))


def percentiles(values: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Percentiles (0 to 100) by linear interpolation between the ordered values."""
    return [float(p) for p in np.percentile(np.asarray(values, dtype=np.float64), wanted)]


def size_line(sizes_m_kg: Sequence[float], volumes_ml: Sequence[float]) -> SizeLine | None:
    """The line of volume over height x mass, the form of Handsfield et al. 2014.

    Returns:
        None for fewer than three people, or where all have one size.
    """
    size = np.asarray(sizes_m_kg, dtype=np.float64)
    volume = np.asarray(volumes_ml, dtype=np.float64)
    if size.size < 3 or np.ptp(size) == 0:
        return None
    slope, intercept = np.polyfit(size, volume, 1)
    rest = volume - (slope * size + intercept)
    sd = math.sqrt(float(rest @ rest) / (size.size - 2))
    return SizeLine(size.size, float(slope), float(intercept), sd)


def robust_distances(values: Sequence[float | None]) -> Floats:
    """How far each value lies from the median, in robust standard deviations.

    Where half of the values or more are equal the median absolute deviation is 0 and the mean one
    gives the scale (Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers).

    Returns:
        one distance per value, >= 0; NaN where the value is None, and for all values where all are
        equal, since then there is no scale.
    """
    array = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    known = array[~np.isnan(array)]
    if known.size == 0:
        return array
    middle = np.median(known)
    apart = np.abs(known - middle)
    scale = _SD_OVER_MAD * float(np.median(apart)) or _SD_OVER_MEAN_AD * float(apart.mean())
    return np.abs(array - middle) / scale if scale > 0 else np.full(array.shape, np.nan)
