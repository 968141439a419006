"""Noise level of an image, and where its signal can be told from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.sampling import centred_lattice, odd_step, otsu

#: Where the scanner blanked the air, or no air is in view, noise cannot be measured; voxels
#: below this share of the tissue's signal are taken as having none (cortical bone, metal, air).
_SHARE_WITHOUT_AIR = 0.05
#: The limit never reaches further into the tissue than this share of its signal.
_LARGEST_SHARE = 0.25
#: Air reaches this share of the way from the mean of the dark to the median of the bright class.
_AIR_SHARE = 0.25
#: A dark class with more exact zeros than this was blanked by the scanner.
_BLANKED_SHARE = 0.5
#: Fewer voxels than this share of an image are no measurable air.
_SMALLEST_AIR = 0.02
#: Median of a Rayleigh distribution in units of its mode: sqrt(2 ln 2).
_RAYLEIGH_MEDIAN = 1.1774
#: ... its mean and standard deviation.
_RAYLEIGH_MEAN, _RAYLEIGH_SD = 1.2533, 0.6551
#: Air so many standard deviations above its mean is rare (one voxel in 40), or not seen (one in
#: 25,000).
_RARE, _UNSEEN = 2.3, 5.0
_LARGEST_SAMPLE = 2_000_000
#: Brighter voxels than so many percent are spikes, or blood that flows in.
_NO_SPIKE = 99.9


def noise_level(
    image: NDArray[np.float32], signal: NDArray[np.float32] | None = None
) -> float | None:
    """Standard deviation of the noise of a magnitude image, from the air around the body.

    The air of a magnitude image is Rayleigh distributed with mode sigma; its median is
    sigma sqrt(2 ln 2) (Gudbjartsson and Patz 1995, doi 10.1002/mrm.1910340618). Exact zeros are
    blanked voxels, not measurements.

    Args:
        image: magnitudes, arbitrary units.
        signal: image that tells air from body, same shape; None: `image` itself.

    Returns:
        sigma in units of the image; None where there is no measurable air.
    """
    values = _sample(image)
    body = values if signal is None else _sample(signal)
    threshold = otsu(body)
    if threshold is None:
        return None
    # Where the classes are far apart Otsu's threshold may lie anywhere between: not used itself.
    dark = float(body[body <= threshold].mean())
    bright = float(np.median(body[body > threshold]))
    in_air = body < dark + _AIR_SHARE * (bright - dark)
    air = values[in_air & (values > 0)]
    few = air.size < _SMALLEST_AIR * values.size
    if few or air.size < (1.0 - _BLANKED_SHARE) * np.count_nonzero(in_air):
        return None
    return float(np.median(air)) / _RAYLEIGH_MEDIAN


def air_limits(noise: Sequence[float]) -> tuple[float, float]:
    """Signal of air that is rare, and that is not seen, in a sum of magnitude images.

    Args:
        noise: noise_level of each image; none: air is 0.
    """
    levels = np.asarray(noise, dtype=np.float64)
    mean = _RAYLEIGH_MEAN * float(levels.sum())
    sd = _RAYLEIGH_SD * float(np.sqrt((levels**2).sum()))
    return mean + _RARE * sd, mean + _UNSEEN * sd


def above_noise(
    water: NDArray[np.float32], fat: NDArray[np.float32], multiple: float
) -> tuple[NDArray[np.bool_], float | None]:
    """Voxels whose signal, water + fat, stands clear of the noise, and the noise of the fat image.

    Args:
        water, fat: magnitude images of one shape, arbitrary units.
        multiple: how many standard deviations of the noise of the sum count as clear.

    Returns:
        True where a fraction of the signal means anything; noise_level of the fat image.
    """
    signal = water + fat
    typical = _of_tissue(signal)
    limit = _SHARE_WITHOUT_AIR * typical
    sigmas = [noise_level(image, signal) for image in (water, fat)]
    if sigmas[0] is not None and sigmas[1] is not None:
        measured = multiple * float(np.hypot(sigmas[0], sigmas[1]))
        limit = min(max(limit, measured), _LARGEST_SHARE * typical)
    return np.asarray(signal > limit), sigmas[1]


def with_signal(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Voxels that are not dark as compact bone, metal and air are.

    Args:
        image: magnitudes in which both muscle and fat are bright, arbitrary units.
    """
    return np.asarray(image > _SHARE_WITHOUT_AIR * _of_tissue(image))


def bright_signal(image: NDArray[np.float32]) -> float:
    """The usual signal of what is bright in an image, on whatever scale, a few spikes left aside.

    Of a water image that is muscle, of a fat image the fat under the skin and in the marrow.
    """
    sample = _sample(image)
    return _of_tissue_in(np.minimum(sample, np.percentile(sample, _NO_SPIKE)))


def _of_tissue(signal: NDArray[np.float32]) -> float:
    """The usual signal of what is bright, 0 where nothing is."""
    return _of_tissue_in(_sample(signal))


def _of_tissue_in(sample: NDArray[np.float32]) -> float:
    tissue = sample[sample > (otsu(sample) or 0.0)]
    return float(np.median(tissue)) if tissue.size else 0.0


def fraction_of_noise(noise: float, lean_signal: float, fat_gain: float = 1.0) -> float:
    """Fat fraction that noise alone gives in muscle without fat: the Rician floor.

    A magnitude image without signal reads sigma sqrt(pi / 2) on average (Gudbjartsson and Patz
    1995, doi 10.1002/mrm.1910340618). The floor fades as the fat's signal rises above the noise.

    Args:
        noise: standard deviation of the noise of the fat image, a.u.
        lean_signal: signal of muscle without fat in the water image, a.u., clear of its noise.
        fat_gain: as of DixonPair.

    Returns:
        0 to 1.
    """
    floor = noise * math.sqrt(math.pi / 2.0)
    return floor / (floor + fat_gain * lean_signal)


def _sample(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Voxels on a coarse lattice that a mirrored image shares."""
    step = odd_step((image.size / _LARGEST_SAMPLE) ** (1.0 / 3.0) + 1.0)
    parts = []
    for size in image.shape:
        first, count = centred_lattice(size, step)
        parts.append(slice(first, first + (count - 1) * step + 1, step))
    return np.ascontiguousarray(image[tuple(parts)]).ravel()
