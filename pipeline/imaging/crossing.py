"""Legs that lie across each other: from there to the feet no surface from front to back parts them.

Shins and ankles may lie one on the other, and below a true crossing the right leg lies on the left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Of the depth of the thinner side, how much body the surface between the legs may cut where they
#: lie across each other, and where they lie apart. Calves and knees of real and synthetic bodies: 0
#: to .4; a pelvis and thighs that touch reach 1, but nothing above them is apart.
_CUT, _APART = 0.75, 0.3
#: Two legs side by side are 1.4 times as wide as they are deep, and more.
_WIDEST = 1.25
#: Shorter than this it may be a knee that leans on the other, mm.
_SHORTEST_MM = 20.0


def levels_of_crossing(
    body: Flags, surface: Floats, lattice_mm: tuple[float, float, float]
) -> Flags:
    """Levels from where the legs lie across each other down to the feet, shape (nz,).

    Args:
        body: body mask on a lattice (nx, ny, nz), the feet first.
        surface: lattice column between the legs (ny, nz).
        lattice_mm: distances of its columns, rows and levels.
    """
    cut = _cut_shares(body, surface)
    width, depth = (body.any(axis=axis).sum(axis=0) for axis in (1, 0))
    across = (cut >= _CUT) & (width * lattice_mm[0] < _WIDEST * depth * lattice_mm[1])
    there = body.any(axis=(0, 1))
    apart = np.flatnonzero(there & (cut < _APART))
    out = np.zeros(body.shape[2], dtype=np.bool_)
    if apart.size == 0:
        return out
    across[apart[-1] :] = False
    shortest = max(1, int(np.ceil(_SHORTEST_MM / lattice_mm[2])))
    tops = [
        top
        for top in range(shortest - 1, across.size)
        if across[top - shortest + 1 : top + 1].all()
    ]
    if tops:
        # Up to where they lie apart: the surface cuts pieces off either leg there.
        out[: apart[apart > tops[-1]][0]] = True
    return out


def _cut_shares(body: Flags, surface: Floats) -> Floats:
    """Body that the surface cuts at each level, over the largest depth of the thinner side."""
    columns = np.arange(body.shape[0])[:, None, None]
    depths = [
        (body & side).sum(axis=1).max(axis=0) for side in (columns > surface, columns < surface)
    ]
    # On both sides of the surface: mirrored input gives the same.
    last = body.shape[0] - 1
    low, high = (
        np.clip(edge, 0, last).astype(np.intp)[None]
        for edge in (np.floor(surface), np.ceil(surface))
    )
    at = [np.take_along_axis(body, place, axis=0)[0].sum(axis=0) for place in (low, high)]
    return np.asarray(np.minimum(*at) / np.maximum(np.minimum(*depths), 1), dtype=np.float64)
