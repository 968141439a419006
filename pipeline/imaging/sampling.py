"""Coarse looks at an array that a mirrored array answers in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

#: Brighter values than so many percent are cut.
_NO_SPIKE = 99.9


def otsu(values: NDArray[np.floating]) -> float | None:
    """Otsu's threshold between dark and bright; None where all values are one.

    Spikes (a few voxels that wrapped around in 16 bits) count as bright, not as brighter: the
    histogram has 256 steps between the darkest and the brightest value.
    """
    cut = np.minimum(values.ravel(), np.percentile(values, _NO_SPIKE))
    if cut.max() <= cut.min():
        cut = values.ravel()
    if cut.max() <= cut.min():
        return None
    untyped: Any = threshold_otsu
    return float(untyped(cut))


def odd_step(step: float) -> int:
    """The largest odd whole number not above a step, at least 1."""
    return max(1, (int(step) - 1) | 1) if step >= 1 else 1


def centred_lattice(size: int, step: int) -> tuple[int, int]:
    """Every step-th index of an axis, placed so that reversing the axis gives the same voxels.

    An odd step allows that for every size: where one sample too many leaves an odd remainder,
    one sample less leaves an even one.

    Args:
        size: voxels along the axis.
        step: odd distance of the samples.

    Returns:
        first index and number of samples.
    """
    count = (size - 1) // step + 1
    if (size - 1 - (count - 1) * step) % 2 and count > 1:
        count -= 1
    return (size - 1 - (count - 1) * step) // 2, count
