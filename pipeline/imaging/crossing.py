"""Legs that lie across each other: from there to the feet no surface from front to back parts them.

Shins and ankles may lie one on the other, and below a true crossing the right leg lies on the left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.separation import between_shares, on_both_sides
from pipeline.imaging.single_leg import too_narrow

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def levels_of_crossing(
    body: Flags,
    surface: Floats,
    lattice_mm: tuple[float, float, float],
    *,
    cut_share: float,
    apart_share: float,
    shortest_mm: float,
) -> Flags:
    """Levels from where the legs lie across each other down to the feet, shape (nz,).

    They do where the surface between them runs through body, and that is too narrow for legs side
    by side; above, they lie apart.

    Args:
        body: body mask on a lattice (nx, ny, nz), the feet first.
        surface: lattice column between the legs (ny, nz).
        lattice_mm: distances of its columns, rows and levels.
        cut_share: body at the surface, over the depth of the thinner side, where they do at least.
        apart_share: the same where they lie apart, at most.
        shortest_mm: over fewer mm it may be a knee that leans on the other.
    """
    cut = between_shares(body, surface)
    both = on_both_sides(body, surface)
    across = both & (cut >= cut_share) & too_narrow(body, *lattice_mm[:2])
    apart = np.flatnonzero(both & (cut < apart_share))
    out = np.zeros(body.shape[2], dtype=np.bool_)
    if apart.size == 0:
        return out
    across[apart[-1] :] = False
    shortest = max(1, int(np.ceil(shortest_mm / lattice_mm[2])))
    tops = [
        top
        for top in range(shortest - 1, across.size)
        if across[top - shortest + 1 : top + 1].all()
    ]
    if tops:
        # Up to where they lie apart: the surface cuts pieces off either leg there.
        out[: apart[apart > tops[-1]][0]] = True
    return out
