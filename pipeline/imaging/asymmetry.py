"""The arithmetic of a side difference: index, interval, verdict."""

from __future__ import annotations

import math

from pipeline.core.results import Verdict


def index_from_log_ratio(log_ratio: float) -> float:
    """Asymmetry index 100 (R - L) / ((R + L) / 2) in percent, from ln(R / L)."""
    return 200.0 * math.tanh(log_ratio / 2.0)


def interval_percent(log_ratio: float, se_log_ratio: float) -> tuple[float, float]:
    """95 % interval of the index in percent, symmetric on the scale of ln(R / L)."""
    half = 1.959964 * se_log_ratio
    return index_from_log_ratio(log_ratio - half), index_from_log_ratio(log_ratio + half)


def se_from_scan_rescan(cv_percent: float) -> float:
    """Standard error of ln(R / L) when each side has a scan-rescan coefficient of variation.

    Independent errors of both sides add up: sqrt(2) CV, so that the 95 % band around no
    difference is 2.77 CV.
    """
    return math.sqrt(2.0) * cv_percent / 100.0


def judge(
    interval: tuple[float, float],
    *,
    healthy_interval: tuple[float, float] | None,
    healthy_limit_percent: float | None,
) -> Verdict:
    """What a difference means.

    Args:
        interval: 95 % interval of the index, percent.
        healthy_interval: interval of the index that the limit applies to (total volume), if any.
        healthy_limit_percent: limit of healthy people, if one exists.

    Returns:
        within measurement error if the interval holds 0; outside healthy spread only if the
        whole healthy_interval lies beyond the limit.
    """
    low, high = interval
    if low <= 0.0 <= high:
        return Verdict.WITHIN_ERROR
    if healthy_limit_percent is None or healthy_interval is None:
        return Verdict.MEASURABLE
    if healthy_interval[0] > healthy_limit_percent or healthy_interval[1] < -healthy_limit_percent:
        return Verdict.OUTSIDE_HEALTHY
    return Verdict.WITHIN_HEALTHY
