"""Where the lower limbs are in a long scan, from a coarse look at it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

#: Proportions of the standing body as shares of its height: crotch and iliac crest above the
#: soles (anthropometric proportions of adults; both vary by about 2 % of the height).
_CROTCH_SHARE = 0.47
_CREST_SHARE = 0.61
#: A body whose both ends are in view is about this tall, mm; pointed toes and arms count.
_BODY_MM = (1200.0, 2300.0)


def body_mask(signal: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The body in a magnitude image: above half of Otsu's threshold, small specks removed."""
    if signal.max() <= signal.min():
        return np.zeros(signal.shape, dtype=np.bool_)
    mask = signal > 0.5 * threshold_otsu(np.sort(signal, axis=None))
    return np.asarray(ndimage.binary_opening(mask), dtype=np.bool_)


def upper_end_of_hips(
    body: NDArray[np.bool_], level_mm: float, *, margin_mm: float
) -> tuple[int, int] | None:
    """Levels of the lower limbs, feet to iliac crest, in a scan that shows more.

    The crotch is the highest level at which two columns of similar size stand side by side
    (arms are smaller, further out). The crest follows from the height of the crotch, and from
    the height of the body where all of it is in view; the higher of both counts, since cutting
    a muscle is worse than keeping some trunk.

    Args:
        body: mask in canonical orientation (right, anterior, superior), coarse.
        level_mm: distance of its levels.
        margin_mm: added above the crest.

    Returns:
        first and last level (exclusive), or None where no pair of legs is seen.
    """
    levels = np.flatnonzero(body.any(axis=(0, 1)))
    if levels.size == 0:
        return None
    bottom, top = int(levels[0]), int(levels[-1]) + 1
    paired = np.array([_two_columns(body[:, :, k]) for k in range(bottom, top)])
    # Single levels deceive; pairs count where most of 50 mm agree.
    width = max(1, round(50.0 / level_mm)) | 1
    steady = ndimage.median_filter(paired.astype(np.uint8), size=width, mode="nearest") > 0
    if not steady.any():
        return None
    crotch = int(np.flatnonzero(steady)[-1]) + 1
    crest = crotch * _CREST_SHARE / _CROTCH_SHARE
    height = (top - bottom) * level_mm
    if top < body.shape[2] and _BODY_MM[0] < height < _BODY_MM[1]:
        crest = max(crest, _CREST_SHARE * height / level_mm)
    upper = bottom + int(np.ceil(crest + margin_mm / level_mm))
    return bottom, min(upper, body.shape[2])


def _two_columns(level: NDArray[np.bool_]) -> bool:
    """Whether the two largest pieces of a level are of similar size, as two legs are."""
    labelled, count = ndimage.label(level)
    if count < 2:
        return False
    areas = np.sort(np.bincount(labelled.ravel())[1:])[::-1]
    return bool(areas[1] > 0.5 * areas[0])
