"""Label maps that were made elsewhere: their values, and what these mean here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import OWN_SCHEME, LabelScheme
from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.volume import LabelMap
from pipeline.imaging.sides import place_sides


def whole_numbers(data: NDArray[Any]) -> NDArray[np.integer]:
    """Label values as integers; files often store them as floats.

    Raises:
        InputError: values between the integers.
    """
    if np.issubdtype(data.dtype, np.integer):
        return np.asarray(data)
    whole = np.rint(data)
    broken = data[~(data == whole)]
    if broken.size:
        raise InputError(
            "The label map holds values between the integers",
            expected="whole numbers",
            found=f"{broken.size} others, for example {float(broken[0]):g}",
            action="resample label maps with nearest-neighbour interpolation",
        )
    return np.asarray(whole, dtype=np.int64)


def values_of(integers: NDArray[np.integer]) -> list[int]:
    """The values that occur, ascending."""
    low, high = int(integers.min()), int(integers.max())
    if low >= 0 and high < 2**16:
        # Counting is many times faster than the sorting of np.unique.
        return [int(v) for v in np.flatnonzero(np.bincount(integers.ravel()))]
    return [int(v) for v in np.unique(integers)]


def in_own_scheme(
    integers: NDArray[np.integer], values: Sequence[int], grid: Grid, scheme: LabelScheme
) -> LabelMap:
    """A given label map in the project's own ids.

    Args:
        integers: label values, canonical orientation.
        values: those that occur.
        grid: their grid.
        scheme: what they mean.

    Raises:
        InputError: a value that the scheme does not know.
    """
    known = scheme.structures.keys() | scheme.ignored | {0}
    unknown = [value for value in values if value not in known]
    if unknown:
        raise InputError(
            f"The label map has values without a meaning in the scheme {scheme.name!r}",
            expected="0 and " + _ranges(known - {0}),
            found=", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else ""),
            action="name the right scheme with --label-scheme, or write a mapping file",
        )
    table = np.zeros(max(values) + 1, dtype=np.uint8)
    unsided: dict[int, str] = {}
    for value in values:
        name, side = scheme.structures.get(value, (None, None))
        if name is not None and side is None:
            unsided[value] = name
        elif name is not None:
            table[value] = OWN_SCHEME.value_of(name, side)
    own = table[integers]
    if unsided:
        own = place_sides(own, integers, unsided, grid)
    return LabelMap(np.ascontiguousarray(own), grid, OWN_SCHEME)


def _ranges(values: set[int]) -> str:
    """Integers in words: 1-30, 41-47."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
