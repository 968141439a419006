"""Where the lower limbs are in a long scan, from a coarse look at it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.imaging.sampling import otsu

#: Iliac crest above crotch and above the soles, as shares of the height of the body. From
#: standing proportions of adults (crotch at 0.47, crest at 0.59 of the height); each has 0.02
#: added, which is their spread: keeping some trunk costs nothing, cutting a muscle does.
_CREST_ABOVE_CROTCH = 0.14
_CREST_ABOVE_SOLES = 0.61
#: Height taken for a body that is not in view as a whole, and the least one to believe, mm.
_TALL_MM = 2050.0
_SMALL_MM = 1200.0
#: Two pieces are a pair of legs when the smaller has this share of the larger.
_SIMILAR_SHARE = 0.5
#: Legs that touch are one piece with a waist: thinner than this share of both its lobes.
_WAIST_SHARE = 0.6
#: Levels without a pair, on the way up from the lowest one, that are passed over: knees that are
#: pressed together, one foot further down than the other.
_LARGEST_GAP_MM = 120.0
_LOWEST_PAIR_MM = 300.0
#: Pieces smaller than this share of the largest are not part of the body.
_SPECK_SHARE = 0.01


def body_mask(signal: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The body in a magnitude image: above half of Otsu's threshold, without specks and holes.

    Args:
        signal: coarse image in canonical orientation (right, anterior, superior), finite.
    """
    threshold = otsu(signal)
    if threshold is None:
        return np.zeros(signal.shape, dtype=np.bool_)
    mask = signal > 0.5 * threshold
    labelled, count = ndimage.label(ndimage.binary_opening(mask))
    if count == 0:
        return np.zeros(signal.shape, dtype=np.bool_)
    sizes = np.bincount(labelled.ravel())
    sizes[0] = 0
    kept = np.asarray(sizes >= _SPECK_SHARE * sizes.max())
    kept[0] = False
    body = kept[labelled]
    for level in range(body.shape[2]):
        body[:, :, level] = ndimage.binary_fill_holes(body[:, :, level])
    return np.asarray(body, dtype=np.bool_)


def find_lower_limbs(
    body: NDArray[np.bool_], level_mm: float, *, margin_mm: float
) -> tuple[int, int] | None:
    """Levels of the lower limbs, feet to iliac crest, in a scan that shows more.

    From the lowest level of the body upwards, legs are two pieces of similar size side by side,
    or one piece with a waist where they touch; the crotch is where that ends. Arms, raised or
    beside the body, stand above that end or are much smaller than what they stand beside. The
    crest follows from the crotch and, where the feet are in view, from the height of the body (a
    tall one's, if not all of it is in view); the higher of both counts.

    Args:
        body: mask in canonical orientation, coarse.
        level_mm: distance of its levels.
        margin_mm: added above the crest.

    Returns:
        first and last level (exclusive), or None where no pair of legs is seen.
    """
    levels = np.flatnonzero(body.any(axis=(0, 1)))
    if levels.size == 0:
        return None
    bottom, top = int(levels[0]), int(levels[-1]) + 1
    paired = [k for k in range(bottom, top) if _is_pair(body[:, :, k])]
    if not paired or (paired[0] - bottom) * level_mm > _LOWEST_PAIR_MM:
        return None
    gaps = np.flatnonzero(np.diff(paired) * level_mm > _LARGEST_GAP_MM)
    crotch = paired[int(gaps[0])] if gaps.size else paired[-1]

    height_mm = (top - bottom) * level_mm
    seen_whole = bottom > 0 and top < body.shape[2] and height_mm > _SMALL_MM
    crest_mm = (crotch + 1 - bottom) * level_mm
    crest_mm += _CREST_ABOVE_CROTCH * (min(height_mm, _TALL_MM) if seen_whole else _TALL_MM)
    if bottom > 0:
        # Thick thighs that touch all along end the pairs below the crotch.
        crest_mm = max(crest_mm, _CREST_ABOVE_SOLES * (height_mm if seen_whole else _TALL_MM))
    upper = bottom + int(np.ceil((crest_mm + margin_mm) / level_mm))
    return bottom, min(upper, body.shape[2])


def _is_pair(level: NDArray[np.bool_]) -> bool:
    """Whether a level shows two legs, apart or touching.

    Args:
        level: mask, axes right and anterior.
    """
    labelled, count = ndimage.label(level)
    if count == 0:
        return False
    areas = np.bincount(labelled.ravel())[1:]
    order = np.argsort(areas)[::-1]
    if count > 1 and areas[order[1]] > _SIMILAR_SHARE * areas[order[0]]:
        return True
    thickness = np.count_nonzero(labelled == order[0] + 1, axis=1)
    columns = np.flatnonzero(thickness)
    thickness = thickness[columns[0] : columns[-1] + 1]
    half = len(thickness) // 2
    if half < 2:
        return False
    one, other = thickness[:half], thickness[-half:]
    between = thickness[int(np.argmax(one)) : len(thickness) - int(np.argmax(other[::-1]))]
    return bool(between.min() < _WAIST_SHARE * min(one.max(), other.max()))
