"""Coarse looks at an array that a mirrored array answers in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

#: Values this many times brighter than all but one in a thousand are spikes.
_NO_SPIKE_PERCENT, _SPIKE = 99.9, 10.0


def otsu(values: NDArray[np.floating]) -> float | None:
    """Otsu's threshold between dark and bright; None where all values are one.

    Its histogram has 256 steps from the darkest to the brightest value: a few voxels that wrapped
    around in 16 bits would leave one step for all tissue. They count as bright, and no more.
    """
    top, largest = float(np.percentile(values, _NO_SPIKE_PERCENT)), float(values.max())
    if largest <= values.min():
        return None
    cut = np.minimum(values, top) if 0.0 < _SPIKE * top < largest else values
    untyped: Any = threshold_otsu
    return float(untyped(cut.ravel()))


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
