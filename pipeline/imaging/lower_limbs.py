"""Where the lower limbs are in a long scan, from a coarse look at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.imaging.sampling import otsu

#: Iliac crest above crotch and above the soles, as shares of the height of the body. From
#: standing proportions of adults (crotch at 0.47, crest at 0.59 of the height); each has 0.02
#: added, which is their spread: keeping some trunk costs nothing, cutting a muscle does.
_CREST_ABOVE_CROTCH = 0.14
_CREST_ABOVE_SOLES = 0.61
#: Height taken for a body that is not in view as a whole, mm.
_TALL_MM = 2050.0
#: Crotch above the soles as a share of what is seen of the body: 0.40 to 0.48 where that is all of
#: it, child or adult; 0.63 if it ends at the chest, 0.8 at the iliac crest.
_WHOLE_CROTCH_SHARE = 0.55
#: Where a whole body has its neck, as shares of the height (0.80 in small children, 0.87 in tall
#: adults), and how thin that is against its thickest level: hips and thighs are not.
_NECK = (0.75, 0.93)
_NECK_SHARE = 0.45
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


@dataclass(frozen=True)
class LowerLimbs:
    """Where the lower limbs are.

    Attributes:
        first, last: their levels, feet to above the iliac crest (last exclusive).
        of_whole_body: whether the scan shows a body from head to foot, with air beyond both.
    """

    first: int
    last: int
    of_whole_body: bool


def find_lower_limbs(
    body: NDArray[np.bool_], level_mm: float, *, margin_mm: float
) -> LowerLimbs | None:
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
        the levels, or None where no pair of legs is seen.
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

    seen_mm, crotch_mm = ((end - bottom) * level_mm for end in (top, crotch + 1))
    ends_in_air = bottom > 0 and top < body.shape[2]
    low_crotch = crotch_mm < _WHOLE_CROTCH_SHARE * seen_mm
    whole = ends_in_air and low_crotch and _has_neck(body[:, :, bottom:top])
    height_mm = seen_mm if whole else _TALL_MM
    crest_mm = crotch_mm + _CREST_ABOVE_CROTCH * height_mm
    if bottom > 0:
        # Thick thighs that touch all along end the pairs below the crotch.
        crest_mm = max(crest_mm, _CREST_ABOVE_SOLES * height_mm)
    upper = bottom + int(np.ceil((crest_mm + margin_mm) / level_mm))
    return LowerLimbs(bottom, min(upper, body.shape[2]), whole)


def _has_neck(body: NDArray[np.bool_]) -> bool:
    """Whether a body, cut to its levels, is thin where a neck would be."""
    areas = np.count_nonzero(body, axis=(0, 1))
    neck = areas[int(_NECK[0] * len(areas)) : int(np.ceil(_NECK[1] * len(areas)))]
    return bool(neck.min() < _NECK_SHARE * areas.max())


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
