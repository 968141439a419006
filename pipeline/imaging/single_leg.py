"""Levels that show one leg alone: the other one was amputated, or is not in the images there.

They know nothing of the middle between the legs, and all that they show belongs to one side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Width over depth. One leg of real and synthetic bodies, or one behind the other: .3 to 1.1; two
#: thighs that touch, a pelvis: 1.43 to 2.
_WIDEST_LEG = 1.25
#: Of the body at a level in one piece, at least: the rest is noise or fingers.
_ONE_PIECE_SHARE = 0.9
#: A piece that hangs on both legs by more than this share of it is both (feet that touch).
_LARGEST_SHARE_OF_OTHER = 0.15
#: Lattice columns between a leg and the surface that leaves it whole.
_ASIDE = 2


def narrow_levels(body: Flags, column_mm: float, row_mm: float) -> Flags:
    """Levels whose body is one piece that is too narrow for two legs side by side, shape (nz,).

    Args:
        body: body mask on a lattice (nx, ny, nz).
        column_mm, row_mm: distances of its columns and rows.
    """
    narrow = np.zeros(body.shape[2], dtype=np.bool_)
    for level in np.flatnonzero(body.any(axis=(0, 1))):
        piece = _largest_piece(body[:, :, level])
        if np.count_nonzero(piece) < _ONE_PIECE_SHARE * np.count_nonzero(body[:, :, level]):
            continue
        narrow[level] = too_narrow(piece[:, :, None], column_mm, row_mm)[0]
    return narrow


def too_narrow(body: Flags, column_mm: float, row_mm: float) -> Flags:
    """Levels (nz,) of a body (nx, ny, nz) on which it is too narrow for legs side by side."""
    width, depth = (body.any(axis=axis).sum(axis=0) for axis in (1, 0))
    return np.asarray(width * column_mm < _WIDEST_LEG * depth * row_mm)


def left_whole(surface: Floats, body: Flags, narrow: Flags) -> Floats:
    """The surface between the legs, moved aside where it would cut a leg that is alone.

    A narrow level belongs to the side that it hangs on: that of what it overlaps on the next level
    towards one that shows two legs. Mirrored input gives mirrored results, exactly.

    Args:
        surface: lattice column between the legs, shape (ny, nz); columns above it are right.
        body: body mask on the lattice (nx, ny, nz).
        narrow: `narrow_levels` of it.
    """
    there: Flags = np.asarray(body.any(axis=(0, 1)))
    both = np.flatnonzero(there & ~narrow)
    if both.size == 0:
        return surface
    surface = surface.copy()
    columns = np.arange(body.shape[0], dtype=np.float64)[:, None]
    alone = np.flatnonzero(there & narrow)
    distance = np.abs(alone[:, None] - both).min(axis=1)
    for level in alone[np.argsort(distance, kind="stable")]:
        nearest = int(both[np.abs(both - level).argmin()])
        towards = range(int(level), nearest, 1 if nearest > level else -1)[1:]
        before = next((k for k in towards if there[k]), nearest)
        piece = _largest_piece(body[:, :, level])
        # What of the level before is right and left, where this piece lies.
        shared, edge = piece & body[:, :, before], surface[:, before]
        right = int(np.count_nonzero(shared & (columns > edge)))
        left = int(np.count_nonzero(shared & (columns < edge)))
        if min(right, left) > _LARGEST_SHARE_OF_OTHER * (right + left) or right == left:
            continue
        places = np.flatnonzero(piece.any(axis=1))
        if right > left:
            surface[:, level] = np.minimum(surface[:, level], places[0] - _ASIDE)
        else:
            surface[:, level] = np.maximum(surface[:, level], places[-1] + _ASIDE)
    return surface


def _largest_piece(plane: Flags) -> Flags:
    pieces, count = ndimage.label(plane)
    if count < 2:
        return plane
    sizes = np.bincount(pieces.ravel())[1:]
    return np.asarray(pieces == 1 + int(sizes.argmax()))
