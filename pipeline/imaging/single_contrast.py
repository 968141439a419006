"""Fat fraction out of a single contrast: where between muscle and fat a voxel's signal lies.

With water and fat the fraction is measured; from one image it is told by comparison. The signal
of lean muscle is taken from the leg's own muscles, that of fat from what lies around them; what
lies between is a mixture. Two things cannot be told apart this way: an even share of fat in all
muscles of a leg from muscle that is darker (or brighter) by nature, and a smooth change of fat
along the leg from the sensitivity of the coil. Lean volume so found is lean relative to the leg's
own leanest muscle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.scan import SegmentedLeg
from pipeline.core.volume import Quantity
from pipeline.imaging.labels import is_muscle
from pipeline.imaging.sampling import otsu
from pipeline.imaging.tissue import core_mask

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Singles = NDArray[np.float32]

#: What lies around the muscles is looked at this far outside them, mm.
_RING_MM = (3.0, 15.0)
#: ... on levels about this far apart, mm.
_EVERY_MM = 10.0
#: Voxels the field of the coil is found from, and fewest to find one.
_LARGEST_SAMPLE, _SMALLEST_SAMPLE = 20_000, 200
#: The field follows the lean side of the muscles' signals: their expectile of this order (0.5 is
#: the mean). In real legs 0.8 comes nearest to the Dixon values.
_EXPECTILE = 0.8
_ROUNDS = 25
#: Fat must differ from muscle by this share of the muscle's signal to be told from it.
_SMALLEST_DIFFERENCE = 0.3
#: Estimates reach this far beyond 0 and 1, so that noise cancels in sums.
_BEYOND = 0.5


@dataclass(frozen=True, eq=False)
class TissueSplit:
    """What a single contrast gives of one leg.

    Attributes:
        fractions: estimated fat fraction, float32 on the leg's grid; noise reaches below 0.
        fat_to_muscle: signal of fat over that of lean muscle.
    """

    fractions: Singles
    fat_to_muscle: float


def split_tissue(segmented: SegmentedLeg, quantity: Quantity) -> TissueSplit | None:
    """Estimate the fat fraction of a leg from one image.

    The signal of lean muscle is a smooth field (the sensitivity of the coil): a polynomial of
    second order in space of the logarithm of the signal, fitted to the inside of the muscles as
    an expectile (asymmetric least squares, Newey and Powell 1987, doi 10.2307/1911031) that leans
    towards lean muscle. With S the signal over that field and r that of fat,
    FF = (S - 1) / (r - 1).

    Args:
        segmented: a leg with labels.
        quantity: the image; in it fat is much brighter (T1) or much darker (water) than muscle.

    Returns:
        None where muscle or fat cannot be found, or look alike.
    """
    leg, labels = segmented.leg, segmented.labels.data
    image = leg.images[quantity].data
    muscle = is_muscle(labels)
    index = np.argwhere(core_mask(labels, 1.0) & muscle & (image > 0))
    ring = _ring(labels, muscle, leg.grid.voxel_sizes_mm)
    if len(index) < _SMALLEST_SAMPLE or np.count_nonzero(ring) < _SMALLEST_SAMPLE:
        return None
    index = index[:: max(1, len(index) // _LARGEST_SAMPLE)]
    signals = image[tuple(index.T)].astype(np.float64)
    around = np.argwhere(_fat(image, ring, float(np.median(signals))))
    fat = image[tuple(around.T)]
    bright = float(np.median(fat)) > float(np.median(signals))
    size = np.array(labels.shape, dtype=np.float64)
    field = _expectile(
        _terms(index, size), np.log(signals), 1.0 - _EXPECTILE if bright else _EXPECTILE
    )
    ratio = float(np.median(fat / np.exp(_terms(around, size) @ field)))
    if abs(ratio - 1.0) < _SMALLEST_DIFFERENCE:
        return None
    out = np.empty(image.shape, dtype=np.float32)
    plane = np.indices((*image.shape[:2], 1)).reshape(3, -1).T
    for level in range(image.shape[2]):
        there = np.exp(_terms(plane + np.array([0, 0, level]), size) @ field).reshape(
            image.shape[:2]
        )
        out[:, :, level] = (image[:, :, level] / there - 1.0) / (ratio - 1.0)
    return TissueSplit(np.clip(out, -_BEYOND, 1.0 + _BEYOND, out=out), ratio)


def _ring(labels: NDArray[np.integer], muscle: Flags, sizes: tuple[float, float, float]) -> Flags:
    """Voxels without a label at some distance outside the muscles, on some levels."""
    ring = np.zeros_like(muscle)
    levels = np.flatnonzero(muscle.any(axis=(0, 1)))
    for k in levels[:: max(1, round(_EVERY_MM / sizes[2]))]:
        limb = ndimage.binary_fill_holes(labels[:, :, k] > 0)
        away = ndimage.distance_transform_edt(~limb, sizes[:2])
        ring[:, :, k] = (away >= _RING_MM[0]) & (away <= _RING_MM[1]) & (labels[:, :, k] == 0)
    return ring


def _fat(image: Singles, ring: Flags, muscle_signal: float) -> Flags:
    """The class of the ring that is fat: the bright one where it outshines muscle (T1), else the
    dark one (a water image, where fat is as dark as the air beyond it)."""
    threshold = otsu(image[ring])
    if threshold is None:
        return ring
    bright = ring & (image > threshold)
    outshines = float(np.median(image[bright])) > (1.0 + _SMALLEST_DIFFERENCE) * muscle_signal
    return bright if outshines else ring & (image <= threshold)


def _terms(index: NDArray[np.integer], size: Floats) -> Floats:
    """Polynomial terms of second order at voxels (n, 3), in shares of the leg's box."""
    x, y, z = (2.0 * index / size - 1.0).T
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x, y * y, z * z], axis=1)


def _expectile(terms: Floats, values: Floats, order: float) -> Floats:
    weights = np.full(len(values), 0.5)
    solution = np.zeros(terms.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
        weights = np.where(values > terms @ solution, order, 1.0 - order)
    return solution
