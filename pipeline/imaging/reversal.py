"""Images of one body of which one is stored the other way round, with the affine of the first.

A body is nearly symmetric, so that fat reversed against water still looks like a person; but the
fat of each muscle would then be that of the other leg. Where water ends fat begins: the edges of
the two images cancel where they belong together, and have nothing to do with each other where not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.floating]
Flags = tuple[bool, bool, bool]

AS_STORED: Flags = (False, False, False)
#: So many levels are enough to tell by.
_LEVELS = 24
#: Edges of water and fat correlate by -0.13 to -0.17 in noisy real scans and -0.70 in a clean one
#: where they belong together, by -0.05 to 0.01 where one was reversed.
_BELONGS = -0.08


def reversal(water: Signal, fat: Signal) -> Flags:
    """Which axes of the fat image are stored the other way round than those of the water image.

    Args:
        water, fat: signal (nx, ny, nz), on one grid.

    Returns:
        per axis; AS_STORED unless another order fits at least twice as well.
    """
    levels = np.unique(np.linspace(0, water.shape[2] - 1, _LEVELS).astype(int))
    edges = _edges(water[:, :, levels])
    fits: dict[Flags, float] = {}
    either = (False, True)
    for flags in ((x, y, z) for x in either for y in either for z in either):
        turned = np.flip(fat, tuple(axis for axis, flag in enumerate(flags) if flag))
        fits[flags] = _cosine(edges, _edges(turned[:, :, levels]))
    best = min(fits, key=fits.__getitem__)
    return best if fits[best] < min(_BELONGS, 2.0 * fits[AS_STORED]) else AS_STORED


def _edges(image: Signal) -> Signal:
    """Differences between neighbours within the levels, along both axes (2, nx-1, ny-1, levels)."""
    return np.stack([np.diff(image, axis=0)[:, 1:], np.diff(image, axis=1)[1:]])


def _cosine(one: Signal, other: Signal) -> float:
    size = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.vdot(one, other)) / size if size > 0.0 else 0.0
