"""Boxes in arrays: where something is, and room around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def box_of(values: NDArray[Any]) -> tuple[slice, ...]:
    """From the first to the last that is not 0, along each axis; something is not."""
    box: list[slice] = []
    for axis in range(values.ndim):
        others = tuple(k for k in range(values.ndim) if k != axis)
        where = np.flatnonzero(values[tuple(box)].any(axis=others))
        box.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(box)


def widened(box: Sequence[slice], margin: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """A box with room on both sides of each axis, as far as the array goes."""
    return tuple(
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, more, size in zip(box, margin, shape, strict=True)
    )
