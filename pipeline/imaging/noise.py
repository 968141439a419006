"""Noise level of an image, and where its signal can be told from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

#: Where the scanner blanked the air, or no air is in view, noise cannot be measured; voxels
#: below this share of the tissue's signal are taken as having none (cortical bone, metal, air).
_SHARE_WITHOUT_AIR = 0.05
_LARGEST_SAMPLE = 2_000_000


def noise_level(signal: NDArray[np.float32]) -> float | None:
    """Standard deviation of the noise of a magnitude image, from the air around the body.

    The air of a magnitude image is Rayleigh distributed with mode sigma; its median is
    1.1774 sigma. Air is what lies below a quarter of the threshold between body and background;
    exact zeros are blanked voxels, not measurements.

    Returns:
        sigma in units of the signal; None where there is no measurable air.
    """
    sample = _sample(signal)
    threshold = float(threshold_otsu(sample)) if sample.max() > sample.min() else 0.0
    air = sample[(sample > 0) & (sample < 0.25 * threshold)]
    if air.size < 0.02 * sample.size:
        return None
    return float(np.median(air)) / 1.1774


def above_noise(signal: NDArray[np.float32], multiple: float) -> NDArray[np.bool_]:
    """Voxels whose signal stands clear of the noise.

    Args:
        signal: magnitude image (water + fat), arbitrary units.
        multiple: how many standard deviations of the noise count as clear.
    """
    sample = _sample(signal)
    threshold = float(threshold_otsu(sample)) if sample.max() > sample.min() else 0.0
    tissue = sample[sample > threshold]
    typical = float(np.median(tissue)) if tissue.size else 0.0
    limit = _SHARE_WITHOUT_AIR * typical
    sigma = noise_level(signal)
    if sigma is not None:
        # In very noisy scans the multiple may reach into the tissue: never above a quarter of it.
        limit = min(max(limit, multiple * sigma), 0.25 * typical)
    return np.asarray(signal > limit)


def _sample(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every n-th voxel along each axis, symmetric about the middle, so that a mirrored image
    gives the same sample."""
    step = max(1, int(np.ceil((signal.size / _LARGEST_SAMPLE) ** (1.0 / 3.0))))
    parts = tuple(slice(((n - 1) % step) // 2, None, step) for n in signal.shape)
    # Symmetric only where the remainder is even; both halves together always are.
    forward = signal[parts].ravel()
    if all(((n - 1) % step) % 2 == 0 for n in signal.shape):
        return np.sort(forward)
    backward = signal[::-1][parts].ravel()
    return np.sort(np.concatenate([forward, backward]))
