"""The same scan seen a little differently: moved, coarser, noisier, shaded, mirrored.

Every function takes images on one canonical grid and gives new ones; values are resampled with
cubic splines (nothing here is measured against a truth finer than the image itself), labels with
nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.scans import Images, Labels
from pipeline import Grid, Quantity, Volume
from pipeline.imaging.sampling import otsu

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_PATCH_MM = 3.0
#: Share of fat in fat tissue; the rest is water.
_FAT_OF_FAT = 0.95


def changed(
    images: Images, grid: Grid, change: Callable[[Singles], NDArray[np.floating]]
) -> Images:
    """Every image with its values changed, on a grid."""
    return {
        quantity: Volume(np.maximum(change(image.data), 0.0).astype(np.float32), grid, quantity)
        for quantity, image in images.items()
    }


def grid_of(images: Images) -> Grid:
    """The grid that all images share."""
    return next(iter(images.values())).grid


def total_signal(images: Images) -> Singles:
    """Sum of all images."""
    return np.asarray(sum(image.data for image in images.values()), dtype=np.float32)


def foreground(images: Images) -> NDArray[np.bool_]:
    """Voxels brighter than Otsu's threshold, with their holes in the plane closed."""
    total = total_signal(images)
    bright = total > 0.5 * (otsu(total) or 0.0)
    return np.stack([ndimage.binary_fill_holes(level) for level in np.moveaxis(bright, 2, 0)], 2)


def turn(degrees: float, axis: int) -> Floats:
    """Rotation matrix about the first (x), second (y) or third (z) axis."""
    angle = np.deg2rad(degrees)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.eye(3)
    out[i, i] = out[j, j] = np.cos(angle)
    out[i, j], out[j, i] = -np.sin(angle), np.sin(angle)
    return out


def rotated(images: Images, degrees: float, axis: int) -> Images:
    """The body turned about an axis of the grid through its middle; the grid stays."""
    grid = grid_of(images)
    matrix, offset = _index_map(grid, turn(-degrees, axis))
    return changed(
        images,
        grid,
        lambda data: ndimage.affine_transform(data, matrix, offset, order=3, mode="constant"),
    )


def rotated_labels(labels: Labels, grid: Grid, degrees: float, axis: int) -> Labels:
    """Labels turned in the same way."""
    matrix, offset = _index_map(grid, turn(-degrees, axis))
    return ndimage.affine_transform(labels, matrix, offset, order=0, mode="constant")


def _index_map(grid: Grid, rotation: Floats) -> tuple[Floats, Floats]:
    """Where a voxel of the turned image looks in the image as it was, in indices."""
    sizes = np.array(grid.voxel_sizes_mm)
    matrix = rotation * sizes[None, :] / sizes[:, None]
    middle = (np.array(grid.shape) - 1.0) / 2.0
    return matrix, middle - matrix @ middle


def coarser_grid(grid: Grid, voxel_mm: tuple[float, float, float]) -> Grid:
    """A grid over the same box with other voxels."""
    sizes = np.array(grid.voxel_sizes_mm)
    wanted = np.array(voxel_mm)
    shape = np.maximum(np.floor(np.array(grid.shape) * sizes / wanted), 1).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = grid.affine[:3, :3] / sizes * wanted
    middle = grid.index_to_world((np.array(grid.shape) - 1.0) / 2.0)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1.0) / 2.0)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, grid.space)


def coarser(images: Images, voxel_mm: tuple[float, float, float]) -> Images:
    """The scan on voxels of another size: blurred to it where it is coarser, then resampled."""
    grid = grid_of(images)
    target = coarser_grid(grid, voxel_mm)
    matrix = np.linalg.inv(grid.affine) @ target.affine
    sizes, wanted = np.array(grid.voxel_sizes_mm), np.array(voxel_mm)
    # A box of the new voxel's size has variance size^2 / 12; the old voxel brought its own share.
    sigma = np.sqrt(np.maximum(wanted**2 - sizes**2, 0.0) / 12.0) / sizes

    def change(data: Singles) -> NDArray[np.floating]:
        return ndimage.affine_transform(
            ndimage.gaussian_filter(data, sigma),
            matrix[:3, :3],
            matrix[:3, 3],
            output_shape=target.shape,
            order=1,
            mode="nearest",
        )

    return changed(images, target, change)


def labels_on(labels: Labels, source: Grid, target: Grid) -> Labels:
    """Labels of one grid at the voxels of another, nearest neighbour."""
    matrix = np.linalg.inv(source.affine) @ target.affine
    return ndimage.affine_transform(
        labels,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=target.shape,
        order=0,
        mode="constant",
    )


def noisy(images: Images, sd: float, rng: np.random.Generator) -> Images:
    """Rician noise of a standard deviation in every image."""

    def change(data: Singles) -> NDArray[np.floating]:
        return np.hypot(
            data + sd * rng.standard_normal(data.shape, dtype=np.float32),
            sd * rng.standard_normal(data.shape, dtype=np.float32),
        )

    return changed(images, grid_of(images), change)


def resized(images: Images, factor: float) -> Images:
    """The same voxels of a body that is so many times as large."""
    return changed(images, grid_of(images).resized(factor), lambda data: data)


def infiltrated(
    images: Images,
    muscle: NDArray[np.bool_],
    share: float,
    patches: float,
    rng: np.random.Generator,
) -> Images:
    """Muscle with a share of its signal turned into fat: of the water, and as bright as the fat
    of the scan, where there is a fat image.

    Args:
        images: water, or water and fat.
        muscle: where.
        share: of the signal.
        patches: standard deviation of the share from place to place, over about 3 mm.
        rng: of the patches.
    """
    grid, water = grid_of(images), images[Quantity.WATER]
    size = grid.voxel_sizes_mm
    texture = ndimage.gaussian_filter(
        rng.normal(size=grid.shape), (_PATCH_MM / size[0], _PATCH_MM / size[1], 0.0)
    )
    uneven = np.clip(share + patches * texture / texture.std(), 0.0, 0.95)
    part = ndimage.gaussian_filter((muscle * uneven).astype(np.float32), (0.6, 0.6, 0.0))
    out = {Quantity.WATER: water.data * (1.0 - part)}
    if Quantity.FAT in images:
        fat = images[Quantity.FAT].data
        bright = np.percentile(fat[foreground(images)], 90) / np.median(water.data[muscle])
        out[Quantity.FAT] = fat + part * water.data * bright
    return {
        quantity: Volume(np.asarray(data, dtype=np.float32), grid, quantity)
        for quantity, data in out.items()
    }


def rims(
    labels: Labels, width_mm: float, sizes_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """What of each label lies within a distance of its border, level by level."""
    rim = np.zeros(labels.shape, dtype=np.bool_)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        own = np.pad(labels[box] == value, ((1, 1), (1, 1), (0, 0)))
        # Levels so far apart that none is near another.
        depth = ndimage.distance_transform_edt(own, sampling=(*sizes_mm[:2], 1e3 * width_mm))
        rim[box] |= (own & (depth <= width_mm))[1:-1, 1:-1]
    return rim


def wasted(images: Images, labels: Labels, width_mm: float) -> tuple[Images, NDArray[np.bool_]]:
    """Every labelled muscle with its outer millimetres turned into fat, and what was lost."""
    lost = rims(labels, width_mm, grid_of(images).voxel_sizes_mm)
    # Even fat: what is drawn for patches is multiplied by 0.
    return infiltrated(images, lost, _FAT_OF_FAT, 0.0, np.random.default_rng(0)), lost


def with_one_coil(images: Images, muscle: NDArray[np.bool_], axis: int, ratio: float) -> Images:
    """Signal that falls along an axis, exponentially, by a ratio over the extent of the muscles.

    Args:
        images: by quantity.
        muscle: where the muscles are.
        axis: 0 for a coil on the right side, 1 for one at the front.
        ratio: of the signal next to the coil to that on the other side.
    """
    first, last = _extent(muscle, axis)
    place = np.clip((np.arange(muscle.shape[axis]) - first) / (last - first), -0.3, 1.3)
    field = np.expand_dims(
        ratio ** (place - 1.0), tuple(other for other in range(3) if other != axis)
    ).astype(np.float32)
    return changed(images, grid_of(images), lambda data: data * field)


def out_of_view(
    images: Images, muscle: NDArray[np.bool_], axis: int, shares: tuple[float, float]
) -> tuple[Images, NDArray[np.bool_]]:
    """Images that show nothing beyond the field of view, and what they show.

    Args:
        images: by quantity.
        muscle: where the muscles are.
        axis: along which the field of view is too small.
        shares: of the extent of the muscles, left out at the lower and at the upper end.
    """
    first, last = _extent(muscle, axis)
    seen = np.zeros(muscle.shape, dtype=np.bool_)
    inside = [slice(None)] * 3
    inside[axis] = slice(
        round(first + shares[0] * (last - first)) if shares[0] else 0,
        round(last - shares[1] * (last - first)) + 1 if shares[1] else None,
    )
    seen[tuple(inside)] = True
    return changed(images, grid_of(images), lambda data: np.where(seen, data, 0.0)), seen


def _extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and last index of a mask along an axis."""
    places = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(places[0]), int(places[-1])


def like_t1(images: Images, water_share: float) -> Images:
    """One image of water and fat in which fat is the brightest, as in T1-weighted images."""
    grid = grid_of(images)
    data = water_share * images[Quantity.WATER].data + images[Quantity.FAT].data
    return {Quantity.T1W: Volume(data.astype(np.float32), grid, Quantity.T1W)}


def bias_field(grid: Grid, share: float) -> Singles:
    """A smooth field from 1 - share to 1 + share that differs between the sides of the body."""
    x, y, z = (np.linspace(-1.0, 1.0, n) for n in grid.shape)
    field = x[:, None, None] + 0.6 * y[None, :, None] ** 2 - 0.5 * np.cos(2.0 * z)[None, None, :]
    field = field - 0.5 * (field.max() + field.min())
    return (1.0 + share * field / np.abs(field).max()).astype(np.float32)


def biased(images: Images, share: float) -> Images:
    """The images under a bias field that reaches from 1 - share to 1 + share."""
    field = bias_field(grid_of(images), share)
    return changed(images, grid_of(images), lambda data: data * field)


def inverted(images: Images) -> Images:
    """Bright tissue dark and dark tissue bright; air stays dark."""
    body = foreground(images)

    def change(data: Singles) -> NDArray[np.floating]:
        top = float(np.percentile(data[body], 99.5))
        return np.where(body, np.maximum(top - data, 0.0), data)

    return changed(images, grid_of(images), change)


def mirrored(images: Images) -> Images:
    """The body in the mirror: the first axis of the canonical grid runs from left to right."""
    return changed(images, grid_of(images), lambda data: data[::-1])


def shifted(images: Images, voxels: tuple[float, float]) -> Images:
    """The body moved in the plane by parts of a voxel; the spectrum only turns its phase."""

    def change(data: Singles) -> NDArray[np.floating]:
        padded = np.pad(data, ((8, 8), (8, 8), (0, 0)))
        spectrum = np.fft.rfft2(padded, axes=(1, 0))
        phase = np.fft.rfftfreq(padded.shape[0])[:, None] * voxels[0]
        phase = phase + np.fft.fftfreq(padded.shape[1])[None, :] * voxels[1]
        spectrum *= np.exp(-2j * np.pi * phase)[:, :, None]
        moved = np.fft.irfft2(spectrum, s=(padded.shape[1], padded.shape[0]), axes=(1, 0))
        return moved[8:-8, 8:-8]

    return changed(images, grid_of(images), change)


def every_second(images: Images, first: int) -> Images:
    """Every second slice, from the first or the second on."""
    grid = grid_of(images)
    count = len(range(first, grid.shape[2], 2))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_world([0.0, 0.0, float(first)])
    affine[:3, 2] *= 2.0
    thinned = Grid((grid.shape[0], grid.shape[1], count), affine, grid.space)
    return changed(images, thinned, lambda data: data[:, :, first::2])
