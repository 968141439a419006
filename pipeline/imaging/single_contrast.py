"""Fat fraction out of a single contrast: where between muscle and fat a voxel's signal lies.

With water and fat the fraction is measured; from one image it is told by comparison. The signal
of lean muscle is taken from the leg's own muscles, that of fat from what lies around them; what
lies between is a mixture. Two things cannot be told apart this way: an even share of fat in a
muscle, or in all muscles of a leg, from muscle that is darker (or brighter) by nature, and a smooth
change of fat along the leg from the sensitivity of the coil. Lean volume so found is lean relative
to the leg's own lean muscle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import downscale_local_mean

from pipeline.core.scan import SegmentedLeg
from pipeline.core.volume import Quantity
from pipeline.imaging.labels import is_muscle
from pipeline.imaging.sampling import otsu
from pipeline.imaging.threads import one_thread
from pipeline.imaging.tissue import core_mask

Flags = NDArray[np.bool_]
Singles = NDArray[np.float32]

#: What lies around the muscles is looked at this far outside them, mm.
_RING_MM = (3.0, 15.0)
#: ... on levels about this far apart, mm.
_EVERY_MM = 10.0
#: Fewest voxels of muscle, and around it, to compare.
_SMALLEST_SAMPLE = 200
#: The coil's field is found on blocks of about this edge, mm: it is smooth, and their mean signal
#: has little noise.
_BLOCK_MM = 6.0
#: Order of its splines.
_ORDER = 3
#: Distance of the field's control points in the last of three rounds, mm, and steps of a round.
#: Of 120, 80, 50 and 40 mm, 50 came nearest to the Dixon values and leaves healthy muscles alike.
_CONTROL_MM, _ROUNDS, _STEPS = 50.0, 3, 50
#: Share of the blocks of muscle that are leaner than what counts as lean.
_LEANEST = 0.25
#: Fat must differ from muscle by this share of the muscle's signal to be told from it.
_SMALLEST_DIFFERENCE = 0.3
#: Estimates reach this far beyond 0 and 1, so that noise cancels in sums.
_BEYOND = 0.5


def split_tissue(segmented: SegmentedLeg, quantity: Quantity) -> Singles | None:
    """Estimate the fat fraction of a leg from one image.

    The sensitivity of the coil is a smooth field, found inside the muscles as the one that makes
    their signals most alike (N4: Tustison et al. 2010, doi 10.1109/TMI.2010.2046908). With S the
    signal over that field and that of lean muscle, and r that of fat, FF = (S - 1) / (r - 1).

    Args:
        segmented: a leg with labels.
        quantity: the image; in it fat is much brighter (T1) or much darker (water) than muscle.

    Returns:
        estimated fat fraction, float32 on the leg's grid; noise reaches below 0. None where muscle
        or fat cannot be found, or look alike.
    """
    leg, labels = segmented.leg, segmented.labels.data
    image, sizes = leg.images[quantity].data, leg.grid.voxel_sizes_mm
    muscle = is_muscle(labels)
    core = core_mask(labels, 1.0) & muscle & (image > 0)
    ring, inner = _rings(leg.tissue, labels, muscle, sizes)
    if np.count_nonzero(core) < _SMALLEST_SAMPLE or np.count_nonzero(ring) < _SMALLEST_SAMPLE:
        return None
    field, blocks = _coil_field(image, core, sizes)
    out = image / field
    middle = float(np.median(blocks))
    if np.count_nonzero(inner) < _SMALLEST_SAMPLE:
        inner = _fat(out, ring, middle)
    fat = float(np.median(out[inner]))
    lean = float(np.quantile(blocks, _LEANEST if fat > middle else 1.0 - _LEANEST))
    ratio = fat / lean
    if abs(ratio - 1.0) < _SMALLEST_DIFFERENCE:
        return None
    out /= np.float32(lean)
    out -= np.float32(1.0)
    out /= np.float32(ratio - 1.0)
    return np.clip(out, -_BEYOND, 1.0 + _BEYOND, out=out)


@one_thread()
def _coil_field(
    image: Singles, core: Flags, sizes_mm: tuple[float, float, float]
) -> tuple[Singles, Singles]:
    """The sensitivity of the coil, as the smooth field under which muscles look most alike.

    Args:
        image: signal, shape (nx, ny, nz).
        core: what is surely muscle.
        sizes_mm: edges of a voxel.

    Returns:
        the field, float32 of the image's shape; and the mean signal of blocks of muscle over it.
    """
    library: Any = sitk
    block_mean: Any = downscale_local_mean
    step = tuple(max(1, round(_BLOCK_MM / size)) for size in sizes_mm)
    share = block_mean(core.astype(np.float32), step)
    blocks = block_mean(np.where(core, image, np.float32(0.0)), step)
    inside = share >= min(0.5, float(share.max()))
    blocks[inside] /= share[inside]
    # Axes are reversed on both sides of the library alike.
    spacing = [size * n for size, n in zip(sizes_mm, step, strict=True)][::-1]
    origin = [(size * (n - 1)) / 2 for size, n in zip(sizes_mm, step, strict=True)][::-1]
    signal, mask = (_as_image(a, spacing, origin) for a in (blocks, inside.astype(np.uint8)))
    n4 = library.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([_STEPS] * _ROUNDS)
    # Each round halves the distance of the control points.
    first_mm = _CONTROL_MM * 2 ** (_ROUNDS - 1)
    n4.SetNumberOfControlPoints(
        [
            max(1, round(n * edge / first_mm)) + _ORDER
            for n, edge in zip(signal.GetSize(), spacing, strict=True)
        ]
    )
    n4.Execute(signal, mask)
    coarse = n4.GetLogBiasFieldAsImage(signal)
    even: Singles = blocks[inside] / np.exp(library.GetArrayViewFromImage(coarse)[inside])
    fine = library.Resample(
        coarse,
        image.shape[::-1],
        library.Transform(),
        library.sitkLinear,
        (0.0, 0.0, 0.0),
        sizes_mm[::-1],
        useNearestNeighborExtrapolator=True,
    )
    field: Singles = library.GetArrayFromImage(fine)
    return np.exp(field, out=field), even


def _as_image(array: NDArray[np.generic], spacing: list[float], origin: list[float]) -> Any:
    image: Any = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def _rings(
    tissue: Flags,
    labels: NDArray[np.integer],
    muscle: Flags,
    sizes: tuple[float, float, float],
) -> tuple[Flags, Flags]:
    """Voxels without a label at some distance outside the muscles, on some levels; and those of
    them that are as far from the skin: fat without anything else in the voxel."""
    ring, inner = np.zeros_like(muscle), np.zeros_like(muscle)
    levels = np.flatnonzero(muscle.any(axis=(0, 1)))
    for k in levels[:: max(1, round(_EVERY_MM / sizes[2]))]:
        limb = ndimage.binary_fill_holes(labels[:, :, k] > 0)
        away = ndimage.distance_transform_edt(~limb, sizes[:2])
        ring[:, :, k] = (away >= _RING_MM[0]) & (away <= _RING_MM[1]) & (labels[:, :, k] == 0)
        leg = np.pad(ndimage.binary_fill_holes(limb | tissue[:, :, k]), 1)
        deep = ndimage.distance_transform_edt(leg, sizes[:2])[1:-1, 1:-1]
        inner[:, :, k] = ring[:, :, k] & (deep > _RING_MM[0])
    return ring, inner


def _fat(image: Singles, ring: Flags, muscle_signal: float) -> Flags:
    """Where fat is thin: the bright class of the ring where it outshines muscle (T1), else the
    dark one (a water image, where fat is as dark as the air beyond it)."""
    threshold = otsu(image[ring])
    if threshold is None:
        return ring
    bright = ring & (image > threshold)
    outshines = float(np.median(image[bright])) > (1.0 + _SMALLEST_DIFFERENCE) * muscle_signal
    return bright if outshines else ring & (image <= threshold)
