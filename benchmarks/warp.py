"""A muscle made larger or smaller in an image, by an amount that is known exactly.

In every slice that shows the muscle, the plane is deformed by y = x + d(x). d is a multiple of the
gradient field that flows out of the muscle (divergence 1 in its mask, 0 in all other tissue, and
drained evenly into the air), linear between the middles of voxels in each direction. Under such a
map the edges of a half voxel stay straight lines, so that its area after the deformation is that
of a quadrilateral: summed over the mask this is the integral of the Jacobian, without error. It is
a quadratic function of the multiple, which is solved for the wanted change, slice by slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: The mask is softened by this many voxels before it becomes a source: no jump in the flow.
_SOFT_VOXELS = 0.7
#: Rounds of looking up where a voxel came from; each leaves a fraction of the error of the last.
_ROUNDS = 40
_CLOSE_ENOUGH_VOXELS = 1e-4


@dataclass(frozen=True, eq=False)
class PlaneWarp:
    """Displacements of one stack of slices.

    Attributes:
        displacement: by slice (third axis), in voxels, at voxel centres: (2, x, y); slices that
            are not there stay as they are.
    """

    displacement: dict[int, Floats]

    def image(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image after the deformation (x, y, slice), by cubic splines."""
        out = data.copy()
        for k, d in self.displacement.items():
            out[:, :, k] = ndimage.map_coordinates(
                data[:, :, k].astype(np.float64), _origins(d), order=3, mode="nearest"
            )
        return np.maximum(out, 0.0)

    def share_of(self, mask: Flags) -> float:
        """True relative change of the volume that a mask (x, y, slice) encloses."""
        before = int(np.count_nonzero(mask))
        after = float(before)
        for k, d in self.displacement.items():
            level = mask[:, :, k]
            if level.any():
                linear, square = _area_terms(d, level)
                after += linear + square
        return after / before - 1.0


def planted(mask: Flags, share: float, *, air: Flags, sizes_mm: tuple[float, float]) -> PlaneWarp:
    """The deformation that changes the area of a mask by a share in each of its slices.

    Args:
        mask: the muscle (x, y, slice).
        share: wanted relative change of its volume, e.g. 0.1.
        air: where no tissue is; what the muscle gains is taken away there.
        sizes_mm: voxel size in the plane.

    Raises:
        ValueError: no deformation of this kind can do it (a share far below -0.5).
    """
    displacement = {}
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        flow = _outflow(mask[:, :, k], air[:, :, k], sizes_mm)
        linear, square = _area_terms(flow, mask[:, :, k])
        wanted = share * float(np.count_nonzero(mask[:, :, k]))
        root = linear**2 + 4.0 * square * wanted
        if root < 0:
            raise ValueError(f"a slice cannot be changed by {100 * share:.0f} %")
        # The root that goes to wanted / linear where the quadratic term vanishes.
        displacement[int(k)] = flow * (2.0 * wanted / (linear + np.sqrt(root)))
    return PlaneWarp(displacement)


def _outflow(mask: Flags, air: Flags, sizes_mm: tuple[float, float]) -> Floats:
    """Displacement in voxels (2, x, y) with divergence about 1 in the mask, 0 in other tissue."""
    source = ndimage.gaussian_filter(mask.astype(np.float64), _SOFT_VOXELS)
    # Air touched by the softened mask is none of its own; a slice full of tissue drains evenly.
    drain = (air & (source < 1e-6)).astype(np.float64)
    if not drain.any():
        drain = np.ones_like(drain)
    source -= drain * (source.sum() / drain.sum())
    kx, ky = (
        2.0 * np.pi * np.fft.fftfreq(n, d)[shape]
        for n, d, shape in zip(
            mask.shape, sizes_mm, ((slice(None), None), (None, slice(None))), strict=True
        )
    )
    squared = kx**2 + ky**2
    squared[0, 0] = 1.0
    spectrum = np.fft.fft2(source) / squared
    parts = [
        np.fft.ifft2(-1j * k * spectrum).real / d for k, d in zip((kx, ky), sizes_mm, strict=True)
    ]
    return np.stack(parts)


def _area_terms(d: Floats, mask: Flags) -> tuple[float, float]:
    """Linear and quadratic part of the change of area of a mask, in voxels.

    The area of each quarter of a voxel after the deformation is a shoelace sum over its corners.
    """
    i, j = np.nonzero(mask)
    linear = square = 0.0
    for a in (-0.5, 0.0):
        for b in (-0.5, 0.0):
            corners = [(i + a + u, j + b + v) for u, v in ((0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5))]
            points = np.array(corners)
            moved = np.stack(
                [
                    ndimage.map_coordinates(
                        part, points.transpose(1, 0, 2), order=1, mode="nearest"
                    )
                    for part in d
                ],
                axis=1,
            )
            for corner in range(4):
                p, q = points[corner], points[(corner + 1) % 4]
                s, t = moved[corner], moved[(corner + 1) % 4]
                # Of the shoelace sum with p + s and q + t; p x q alone adds up to the old area.
                linear += 0.5 * float(np.sum(p[0] * t[1] - p[1] * t[0] + s[0] * q[1] - s[1] * q[0]))
                square += 0.5 * float(np.sum(s[0] * t[1] - s[1] * t[0]))
    return linear, square


def _origins(d: Floats) -> Floats:
    """Where the voxels of the deformed slice were before: x with x + d(x) = y."""
    place = np.indices(d.shape[1:]).astype(np.float64)
    origin = place.copy()
    for _ in range(_ROUNDS):
        moved = np.stack(
            [ndimage.map_coordinates(part, origin, order=1, mode="nearest") for part in d]
        )
        new = place - moved
        step = float(np.abs(new - origin).max())
        origin = new
        if step < _CLOSE_ENOUGH_VOXELS:
            break
    return origin
