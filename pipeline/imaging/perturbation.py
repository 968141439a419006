"""The same leg seen a little differently: how much do its labels change?

What is done to an image depends on the perturbation and the shape of the image alone, so both
legs are treated alike and a run can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Perturbation:
    """One way to see a leg a little differently.

    Attributes:
        seed: of the noise.
        noise_share: standard deviation of added noise, as a share of the full scale.
        bias_share: largest change of a smooth gain, as a share.
        bias_direction_deg: where the gain rises, 0 outwards, 90 forwards.
        shift_pixels: where the pixels look, in pixels, outwards and forwards.
        tilt: sideways move of slices per distance from the slice looked at (tangent of the
            angle), outwards and forwards.
    """

    seed: int
    noise_share: float
    bias_share: float
    bias_direction_deg: float
    shift_pixels: tuple[float, float]
    tilt: tuple[float, float]


def perturbations(
    count: int, *, noise_share: float, bias_share: float, shift_pixels: float, tilt_deg: float
) -> tuple[Perturbation, ...]:
    """Perturbations spread evenly over the directions of the plane, each of full strength."""
    out = []
    slope = float(np.tan(np.deg2rad(tilt_deg)))
    for k in range(count):
        angle = 2.0 * np.pi * k / count
        # The tilt is at a right angle to the shift.
        along, across = np.cos(angle), np.sin(angle)
        out.append(
            Perturbation(
                seed=k,
                noise_share=noise_share,
                bias_share=bias_share,
                bias_direction_deg=float(np.rad2deg(angle)) + 45.0,
                shift_pixels=(float(shift_pixels * along), float(shift_pixels * across)),
                tilt=(float(-slope * across), float(slope * along)),
            )
        )
    return tuple(out)


def disturbed(slices: Singles, level: int, perturbation: Perturbation) -> Singles:
    """Slices (..., row, column) with noise and a smooth gain; never below 0.

    Args:
        slices: scaled to about 1.
        level: of the slice looked at; gives the noise its own values.
        perturbation: what to do.
    """
    rows, columns = slices.shape[-2:]
    angle = np.deg2rad(perturbation.bias_direction_deg)
    x = np.linspace(-1.0, 1.0, columns) * np.cos(angle)
    y = np.linspace(-1.0, 1.0, rows) * np.sin(angle)
    gain = 1.0 + perturbation.bias_share * np.clip(x[None, :] + y[:, None], -1.0, 1.0)
    rng = np.random.default_rng([perturbation.seed, level])
    noise = rng.standard_normal(slices.shape, dtype=np.float32)
    noise *= np.float32(perturbation.noise_share)
    return np.asarray(np.maximum(slices * gain.astype(np.float32) + noise, 0.0))


def overlap_sums(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> tuple[float, float, float]:
    """What two soft structures share, and the size of each."""
    shared = float(np.minimum(first, second).sum(dtype=np.float64))
    return shared, float(first.sum(dtype=np.float64)), float(second.sum(dtype=np.float64))
