"""How numbers become text: the only place of the report that rounds.

Rules (HTML and TSV alike):

- A missing value is "n/a", never 0.
- A value that is not 0 never reads as 0: where the usual decimals would round it away, one
  significant digit is shown instead (0.03 % stays 0.03 %, not 0.0 %). What is below a millionth
  is the noise of floating-point arithmetic and reads as 0.
- HTML: volumes have three significant digits (523, 63.2, 4.21 mL), percentages one decimal,
  shares whole percents (and ">99 %" when a share is nearly but not wholly 1), ratios two decimals.
- TSV: volumes, percentages and ratios have two more decimals than a scan can justify, so that
  nothing is lost to rounding when they are used in further arithmetic.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

MISSING = "n/a"
MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


class Style(StrEnum):
    """What kind of number is shown, and with it how it is rounded and which unit follows."""

    MILLILITRES = "ml"
    PERCENT = "percent"
    SIGNED_PERCENT = "signed_percent"
    MAGNITUDE_PERCENT = "magnitude_percent"
    LIMIT_PERCENT = "limit_percent"
    SIGNED_POINTS = "signed_points"
    LIMIT_POINTS = "limit_points"
    SHARE = "share"
    RATIO = "ratio"
    OVERLAP = "overlap"
    MILLIMETRES = "mm"
    COUNT = "count"
    PLAIN = "plain"


#: Styles whose text carries the unit when asked for; the others are bare numbers.
_UNITS = {
    Style.MILLILITRES: "mL",
    Style.PERCENT: "%",
    Style.SIGNED_PERCENT: "%",
    Style.MAGNITUDE_PERCENT: "%",
    Style.LIMIT_PERCENT: "%",
    Style.SIGNED_POINTS: "points",
    Style.LIMIT_POINTS: "points",
    Style.SHARE: "%",
    Style.MILLIMETRES: "mm",
}

_PLACES = {
    Style.PERCENT: 1,
    Style.SIGNED_PERCENT: 1,
    Style.MAGNITUDE_PERCENT: 1,
    Style.LIMIT_PERCENT: 1,
    Style.SIGNED_POINTS: 1,
    Style.LIMIT_POINTS: 1,
    Style.RATIO: 2,
    Style.OVERLAP: 2,
    Style.MILLIMETRES: 1,
    Style.COUNT: 1,
}


#: Smaller values are rounding noise (two equal sums of voxels differ by about 1e-14 of them).
_NOISE = 1e-6


def decimals(value: float, places: int) -> str:
    """The value with so many decimals; one significant digit where that would read as 0."""
    text = f"{value:.{places}f}"
    if float(text) != 0:
        return text
    if abs(value) >= _NOISE:
        return format(Decimal(f"{value:.1g}"), "f")
    return text.removeprefix("-")


def show(value: float | None, style: Style, *, unit: bool = False) -> str:
    """A number as a reader of the report sees it.

    Args:
        value: the number as it stands in the results; a share is 0 to 1. None is "n/a".
        style: what it is.
        unit: append the unit of the style.
    """
    if value is None:
        return MISSING
    if style is Style.SHARE:
        text = decimals(100.0 * value, 0)
        if text == "100" and value < 1.0:
            text = ">99"
    elif style is Style.MILLILITRES:
        # Thresholds are where rounding carries into the next digit: 99.95 reads as 100.
        places = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
        text = decimals(value, places)
    elif style is Style.PLAIN:
        text = f"{value:.4g}"
    elif style in (Style.LIMIT_PERCENT, Style.LIMIT_POINTS):
        text = "\N{PLUS-MINUS SIGN}" + decimals(value, _PLACES[style])
    else:
        shown = abs(value) if style is Style.MAGNITUDE_PERCENT else value
        text = decimals(shown, _PLACES[style])
        if style in (Style.SIGNED_PERCENT, Style.SIGNED_POINTS) and float(text) > 0:
            text = "+" + text
    text = text.replace("-", MINUS) if style is not Style.PLAIN else text.replace("-", MINUS, 1)
    return f"{text}{NO_BREAK}{_UNITS[style]}" if unit and style in _UNITS else text


def tsv(value: float | None, *, places: int = 2) -> str:
    """A number as it stands in a table for programs: ASCII, a point, "n/a" where missing."""
    return MISSING if value is None else decimals(value, places)
