"""Ghosts: what moves or pulsates while it is imaged is seen again beside itself, along one axis.

Where they lie over the body they cannot be told from it; in the air in line with it they can.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Blur and the rings of an edge reach into the air around the body, mm.
_EDGE_MM = 15.0
#: Fewer points on a lattice than these tell nothing.
_LEAST_AIR = 300


def ghost_signal(
    signal: Floats, body: Flags, lattice_mm: tuple[float, float, float]
) -> tuple[float, int] | None:
    """How strong ghosts are, and along which axis they lie.

    The root mean square of the air in line with the body along one axis of the plane, less that of
    the loudest other air: noise that grows towards the middle of an image is louder in line with
    the body along both axes. Exact zeros are blanked air.

    Args:
        signal: magnitudes on a lattice (nx, ny, nz), arbitrary units.
        body: where the body is, arms included.
        lattice_mm: distances of the points of the lattice.

    Returns:
        Their signal in units of the image, and the axis, 0 (right to left) or 1 (front to back);
        None without two kinds of air.
    """
    reach = [int(np.ceil(_EDGE_MM / size)) for size in lattice_mm[:2]]
    near = ndimage.binary_dilation(body, np.ones((2 * reach[0] + 1, 2 * reach[1] + 1, 1)))
    air = ~near & (signal != 0)
    lines = [np.broadcast_to(near.any(axis=axis, keepdims=True), air.shape) for axis in (0, 1)]
    kinds = (air & lines[0] & ~lines[1], air & lines[1] & ~lines[0], air & ~lines[0] & ~lines[1])
    powers = {
        kind: float(np.mean(signal[where] ** 2))
        for kind, where in enumerate(kinds)
        if np.count_nonzero(where) >= _LEAST_AIR
    }
    along = [axis for axis in (0, 1) if axis in powers]
    if not along or len(powers) < 2:
        return None
    axis = max(along, key=powers.__getitem__)
    elsewhere = max(power for kind, power in powers.items() if kind != axis)
    return float(np.sqrt(max(0.0, powers[axis] - elsewhere))), axis
