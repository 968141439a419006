"""Images or labels of one body of which one is stored the other way round, with the same affine.

A body is nearly symmetric, so that fat or labels reversed against water still look like a person;
but each muscle would then have the fat, or the voxels, of the other leg. Where water ends fat
begins, and labels end: edges have much to do with each other where they belong together, and
nothing where one was reversed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating]
Flags = tuple[bool, bool, bool]

AS_STORED: Flags = (False, False, False)
#: So many levels are enough to tell by.
_LEVELS = 24
#: Cosine of the edges of water and fat: -0.13 to -0.42 in real scans and -0.70 in phantoms, where
#: they belong together; -0.12 to 0.01 where one was reversed. Of an image and its labels, either
#: sign: 0.10 to 0.43, and 0.00 to 0.11. Less than this says nothing.
_BELONGS = 0.08
#: So many times as well: the calves of `leg_dwi_f` are alike enough for half of it when mirrored.
_CLEARLY = 1.5


def reversal(image: Numbers, other: NDArray[np.generic]) -> Flags:
    """Which axes of another image, or of labels, are stored the other way round than an image's.

    Args:
        image: signal (nx, ny, nz).
        other: signal or labels on the same grid; of labels it counts where there are some.

    Returns:
        per axis; AS_STORED unless another order fits clearly better.
    """
    levels = _levels(other)
    of_image = np.issubdtype(other.dtype, np.floating)
    edges = _edges(image[:, :, levels])
    fits: dict[Flags, float] = {}
    either = (False, True)
    for flags in ((x, y, z) for x in either for y in either for z in either):
        turned = np.flip(other, tuple(axis for axis, flag in enumerate(flags) if flag))
        part = turned[:, :, levels]
        if of_image:
            fits[flags] = -_cosine(edges, _edges(part))
        else:
            # Muscle is bright in one contrast, and dark in another.
            fits[flags] = abs(_cosine(edges, _differences((part != 0).astype(np.float32))))
    best = max(fits, key=fits.__getitem__)
    return best if fits[best] > max(_BELONGS, _CLEARLY * fits[AS_STORED]) else AS_STORED


def _levels(other: NDArray[np.generic]) -> NDArray[np.intp]:
    """Levels at which there is something in the image, as it is stored or reversed."""
    some = np.flatnonzero(other.any(axis=(0, 1)))
    if some.size > _LEVELS:
        some = some[np.linspace(0, some.size - 1, _LEVELS).astype(int)]
    return np.union1d(some, other.shape[2] - 1 - some)


def _edges(image: Numbers) -> Numbers:
    """Differences of signal; none at the rim of what was imaged, which all images share."""
    lit = image != 0
    shown = np.stack([lit[1:, 1:] & lit[:-1, 1:], lit[1:, 1:] & lit[1:, :-1]])
    return np.where(shown, _differences(image), np.float32(0.0))


def _differences(image: Numbers) -> Numbers:
    """Of neighbours within the levels, along both axes (2, nx-1, ny-1, levels)."""
    return np.stack([np.diff(image, axis=0)[:, 1:], np.diff(image, axis=1)[1:]])


def _cosine(one: Numbers, other: Numbers) -> float:
    size = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.vdot(one, other)) / size if size > 0.0 else 0.0
