"""Canonicalise: everything on one grid, axes closest to right, anterior, superior."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import CanonicaliseConfig
from pipeline.core.anatomy import OWN_SCHEME, LabelScheme
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import (
    CanonicalScan,
    ImageSource,
    Index3,
    LoadedSubject,
    StageResult,
    StorageMap,
)
from pipeline.core.volume import DixonPair, LabelMap, Quantity, Volume
from pipeline.imaging.labels import sides_by_place
from pipeline.imaging.lower_limbs import body_mask, upper_end_of_hips
from pipeline.imaging.noise import above_noise
from pipeline.imaging.orientation import input_box, nearest_axes, reorient, reoriented_grid


def canonicalise(
    subject: LoadedSubject, *, config: CanonicaliseConfig
) -> StageResult[CanonicalScan]:
    """Read a subject's images into canonical storage order, cropped to the lower limbs.

    Voxels stay exactly those of the input: axes are renamed and reversed, nothing is resampled.

    Raises:
        InputError: images or labels on different grids, values that are no signal, labels
            without a meaning.
        SubjectUnusableError: a long scan in which no pair of legs is found.
    """
    sources: dict[str, ImageSource] = {str(q): s for q, s in subject.images.items()}
    if subject.labels is not None:
        sources["labels"] = subject.labels
    grid = _common_grid(sources, config.same_grid_tolerance_mm)
    axes, flips = nearest_axes(grid.affine)
    whole = reoriented_grid(grid, axes, flips)
    uncropped = StorageMap(grid, axes, flips, (0, 0, 0))
    first, last, findings = _lower_limbs(subject, whole, uncropped, config)
    storage = StorageMap(grid, axes, flips, (0, 0, first))
    lower, upper = (0, 0, first), (whole.shape[0], whole.shape[1], last)
    canonical = whole.crop(lower, upper)
    box = input_box(uncropped, lower, upper)

    images = {}
    for quantity, source in subject.images.items():
        data = reorient(source.read(*box), axes, flips)
        images[quantity] = _image(data, canonical, quantity)
    labels = None
    if subject.labels is not None and subject.label_scheme is not None:
        data = reorient(subject.labels.read(*box), axes, flips)
        labels = _labels(data, canonical, subject.label_scheme)
    dixon = None
    if Quantity.WATER in images and Quantity.FAT in images:
        water, fat = images[Quantity.WATER], images[Quantity.FAT]
        valid = above_noise(water.data + fat.data, config.noise_multiple)
        dixon = DixonPair(water, fat, valid)
    scan = CanonicalScan(canonical, images, dixon, labels, storage)
    return StageResult(scan, tuple(findings))


def _common_grid(sources: Mapping[str, ImageSource], tolerance_mm: float) -> Grid:
    """The one grid of all images, that of the first."""
    (first, reference), *others = sources.items()
    for name, source in others:
        same_shape = source.grid.shape == reference.grid.shape
        apart = source.grid.largest_corner_distance_mm(reference.grid)
        if not same_shape or apart > tolerance_mm:
            raise InputError(
                f"The {first} and the {name} image lie on different grids",
                expected=f"{reference.grid.describe()}, as {first}, corners at most "
                f"{tolerance_mm:g} mm apart",
                found=f"{source.grid.describe()}, corners up to {apart:.1f} mm apart",
                action="give images of one acquisition; resample label maps onto the image "
                "with nearest-neighbour interpolation",
            )
    return reference.grid


def _lower_limbs(
    subject: LoadedSubject, whole: Grid, storage: StorageMap, config: CanonicaliseConfig
) -> tuple[int, int, list[Finding]]:
    """Levels to read: all of a scan of the legs, the lower part of one of the whole body."""
    levels = whole.shape[2]
    level_mm = whole.voxel_sizes_mm[2]
    if levels * level_mm <= config.longest_lower_limb_mm or not subject.images:
        return 0, levels, []
    step = max(1, int(config.search_voxel_mm / max(whole.voxel_sizes_mm)))
    signal: NDArray[np.floating] | None = None
    for source in subject.images.values():
        coarse = source.read((0, 0, 0), source.grid.shape, step).astype(np.float32)
        signal = coarse if signal is None else signal + coarse
    assert signal is not None
    body = body_mask(reorient(np.nan_to_num(signal), storage.axes, storage.flips))
    found = upper_end_of_hips(body, step * level_mm, margin_mm=config.hip_margin_mm)
    if found is None:
        raise SubjectUnusableError(
            "No pair of legs was found in a scan longer than the lower limbs",
            expected="two legs side by side",
            found=f"a scan of {levels * level_mm:.0f} mm without them",
            action="check that the scan shows both legs, and its orientation",
        )
    first, last = (min(levels, k * step) for k in found)
    message = (
        f"The scan shows {levels * level_mm:.0f} mm of the body; the {(last - first) * level_mm:.0f} "
        f"mm from the feet to above the hips were used."
    )
    return first, last, [
        Finding(
            code="cropped_to_lower_limbs",
            severity=Severity.INFO,
            stage="canonicalise",
            message=message,
            value=(last - first) * level_mm,
            threshold=config.longest_lower_limb_mm,
            unit="mm",
        )
    ]


def _image(data: NDArray[np.generic], grid: Grid, quantity: Quantity) -> Volume:
    values = data.astype(np.float32, copy=False)
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
    unit = "a.u."
    if quantity is Quantity.FAT_FRACTION:
        # Maps come as fractions or as percent; no fraction exceeds 1 by more than noise.
        unit = "percent" if float(np.percentile(values[values > 0], 99)) > 2.0 else "1"
    return Volume(values, grid, quantity, unit)


def _labels(data: NDArray[np.generic], grid: Grid, scheme: LabelScheme) -> LabelMap:
    """A given label map in the project's own ids."""
    values = np.unique(data)
    if not np.array_equal(values, np.rint(values.astype(np.float64))):
        raise InputError(
            "The label map holds values between the integers",
            expected="whole numbers",
            found=f"for example {values[values != np.rint(values.astype(np.float64))][0]:g}",
            action="resample label maps with nearest-neighbour interpolation",
        )
    known = scheme.structures.keys() | scheme.ignored | {0}
    unknown = [int(v) for v in values if int(v) not in known]
    if unknown:
        raise InputError(
            f"The label map has values without a meaning in the scheme {scheme.name!r}",
            expected="0 and " + _ranges(known - {0}),
            found=", ".join(map(str, unknown[:10])),
            action="name the right scheme with --label-scheme, or write a mapping file",
        )
    integers = data.astype(np.int64)
    table = np.zeros(int(values.max(initial=0)) + 1, dtype=np.uint8)
    placed: dict[int, str] = {}
    for value, (name, side) in scheme.structures.items():
        if value >= table.size or value not in values:
            continue
        if side is None:
            placed[value] = name
        else:
            table[value] = OWN_SCHEME.value_of(name, side)
    out = table[integers]
    if placed:
        sides_by_place(integers, placed, grid, out)
    return LabelMap(out, grid, OWN_SCHEME)


def _ranges(values: set[int]) -> str:
    """Integers in words: 1-30, 41-47."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
