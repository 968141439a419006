"""What cannot be the signal of two images of one acquisition: refused, with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.volume import Quantity, Volume
from pipeline.imaging.reversal import reversal

#: Fat fraction maps come as fractions (noise reaches a little beyond 1) or as percent.
_LARGEST_FRACTION = 2.0
_LARGEST_PERCENT = 200.0
#: Filters and interpolation leave a little below 0; normalised images reach this far.
_LARGEST_NEGATIVE_SHARE = 2.0
#: Air is dark: an image with a smaller range, relative to its values, was shifted or cut.
_SMALLEST_RANGE_SHARE = 0.01
#: Water and fat are bright in different places: they correlate by 0.1 to 0.5 in real scans, whose
#: muscles were healthy and full of fat; one image and its copy by 1, whatever their scales.
_LARGEST_CORRELATION = 0.999
#: So many voxels are enough to tell a copy by.
_COPY_VOXELS = 1e6
#: Water and fat may be negative by their noise; a share of voxels that lie so far below 0, as part
#: of what is bright, were filled in.
_FAR_BELOW, _LARGEST_SHARE_BELOW = 0.5, 0.01
#: Directions of the canonical axes.
_WAYS = ("left to right", "back to front", "foot to head")


def as_image(data: NDArray[Any], grid: Grid, quantity: Quantity) -> Volume:
    """Voxels as an image of a quantity; fat fractions as fractions.

    Raises:
        InputError: values that are no signal.
    """
    # One memory layout whatever the file's: sums over voxels then agree to the last digit.
    values = np.ascontiguousarray(data, dtype=np.float32)
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        raise InputError(
            f"The {quantity} image has voxels that are not numbers",
            expected="finite values everywhere",
            found=f"{wrong} NaN or infinite voxels of {values.size}",
            action="export the image again, or replace them by 0 where nothing was measured",
        )
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise InputError(
            f"The {quantity} image is empty: every voxel is {low:g}",
            expected="an image with signal",
            found=f"one value in all {values.size} voxels",
            action="export the image again",
        )
    if np.all((values == low) | (values == high)):
        raise InputError(
            f"The {quantity} image is a mask: it has two values only",
            expected="an image with signal, in which tissues differ by shades",
            found=f"{low:g} and {high:g} and nothing between",
            action="give the image that the mask was made from; masks of muscles go into the label "
            "map (*_dseg.nii.gz)",
        )
    _check_signal(low, high, quantity)
    if quantity is not Quantity.FAT_FRACTION:
        return Volume(values, grid, quantity)
    typical = float(np.percentile(np.abs(values), 99))
    if typical > _LARGEST_PERCENT:
        raise InputError(
            "The fat fraction image is neither in fractions nor in percent",
            expected="values from 0 to 1 or from 0 to 100",
            found=f"1 % of the voxels above {typical:.4g}",
            action="set its scale (scl_slope) so that pure fat is 1 or 100",
        )
    if typical > _LARGEST_FRACTION:
        values = values * np.float32(0.01)
    return Volume(values, grid, quantity, "1")


def _check_signal(low: float, high: float, quantity: Quantity) -> None:
    """Refuse what a wrong scale of the file made of an image."""
    if -low > _LARGEST_NEGATIVE_SHARE * high:
        raise InputError(
            f"The {quantity} image is negative",
            expected="signal, which is positive",
            found=f"values from {low:.4g} to {high:.4g}",
            action="check the scale in the file (scl_slope, RescaleSlope), and export it again",
        )
    if high - low < _SMALLEST_RANGE_SHARE * max(abs(low), abs(high)):
        raise InputError(
            f"The {quantity} image hardly differs from one value",
            expected="signal of tissue and dark air",
            found=f"values from {low:.9g} to {high:.9g}",
            action="check the scale in the file (scl_inter, RescaleIntercept), and export it again",
        )


def check_two_images(images: Mapping[Quantity, Volume]) -> None:
    """Refuse one image that was given for both water and fat, half of everything would be fat;
    air that was filled with negative numbers; and fat that was reversed."""
    step = max(1, round((images[Quantity.WATER].data.size / _COPY_VOXELS) ** (1 / 3)))
    thin = (slice(None, None, step),) * 3
    water, fat = (images[q].data[thin].ravel() for q in (Quantity.WATER, Quantity.FAT))
    if not (np.ptp(water) and np.ptp(fat)):
        return
    for quantity, values in ((Quantity.WATER, water), (Quantity.FAT, fat)):
        high = float(np.percentile(values, 99))
        below = float(np.mean(values < -_FAR_BELOW * high))
        if below > _LARGEST_SHARE_BELOW:
            raise InputError(
                f"The {quantity} image is far below zero in {100 * below:.0f} % of its voxels",
                expected="signal, and air near 0: fat fractions rest on both images",
                found=f"values down to {float(values.min()):.4g}; bright tissue has {high:.4g}",
                action="set what a program filled in around the body to 0, or export it again",
            )
    correlation = float(np.corrcoef(water.astype(np.float64), fat.astype(np.float64))[0, 1])
    if correlation > _LARGEST_CORRELATION:
        raise InputError(
            "The water and the fat image are one and the same image",
            expected=f"two images with a correlation of {_LARGEST_CORRELATION:g} at most, since "
            "what is bright in the one is dark in the other",
            found=f"a correlation of {correlation:.4f}",
            action="give the image of the other contrast: one of the two was copied or misnamed",
        )
    check_order(images[Quantity.WATER], images[Quantity.FAT].data, "fat image")


def check_order(image: Volume, other: NDArray[Any], what: str) -> None:
    """Refuse what was reversed against an image: each muscle would have what is another's."""
    ways = [way for way, flag in zip(_WAYS, reversal(image.data, other), strict=True) if flag]
    if ways:
        raise InputError(
            f"The {what} is stored the other way round than the {image.quantity} image",
            expected="voxels that lie in one place where the affines say so",
            found=f"voxels that fit only once the {what} is reversed {' and '.join(ways)}",
            action="convert both anew from their source, in the same way",
        )
