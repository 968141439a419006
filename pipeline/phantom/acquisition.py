"""Scanning a phantom: partial volume, coil bias, noise, stations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES, OWN_SCHEME, Side
from pipeline.core.errors import InvariantError
from pipeline.core.grid import Grid
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.phantom.body import Body, MuscleTruth, Truth
from pipeline.phantom.model import (
    FASCIA,
    FAT_SPACE,
    MARROW_OFFSET,
    SKIN,
    SOFT_TISSUE,
    SUBCUTANEOUS_FAT,
)

#: Signal of pure lean tissue in the water image, arbitrary units.
LEAN_SIGNAL = 1000.0
#: Water and fat share of tissues that are no muscle. Fascia is dark collagen with fat; cortical
#: bone (the bone ids) and air give no signal.
_TISSUE: Mapping[int, tuple[float, float]] = {
    SUBCUTANEOUS_FAT: (0.0, 1.0),
    FAT_SPACE: (0.0, 1.0),
    FASCIA: (0.15, 0.55),
    SKIN: (0.4, 0.2),
    SOFT_TISSUE: (0.9, 0.1),
    **{bone + MARROW_OFFSET: (0.05, 0.9) for bone in range(41, 48)},
}
#: T1-weighted signal of lean tissue and of fat relative to the in-phase signal.
_T1_LEAN, _T1_FAT = 0.4, 1.0


@dataclass(frozen=True)
class Acquisition:
    """How a phantom is scanned.

    Attributes:
        grid: voxels of the scan.
        contrasts: images wanted.
        snr: signal of lean tissue over the standard deviation of the noise; None: no noise.
        bias_field: largest relative deviation of the coil's sensitivity, e.g. 0.3.
        water_in_fat: share of water signal that pure fat shows (about 0.05 in real scans).
        supersampling: points per voxel along the three axes; None: from the voxel size.
        seed: for noise and bias field.
    """

    grid: Grid
    contrasts: Sequence[Quantity] = (Quantity.WATER, Quantity.FAT)
    snr: float | None = 50.0
    bias_field: float = 0.0
    water_in_fat: float = 0.0
    supersampling: tuple[int, int, int] | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Scan:
    """A scanned phantom.

    Attributes:
        images: by quantity, with noise and bias.
        labels: OWN_SCHEME; the structure at each voxel's centre.
        truth_on_grid: noise- and bias-free image times true label, by muscle and side; muscles
            without a voxel are missing.
        noise_sd: standard deviation of the noise; None without noise.
    """

    images: Mapping[Quantity, Volume]
    labels: LabelMap
    truth_on_grid: Truth
    noise_sd: float | None


def acquire(body: Body, acquisition: Acquisition) -> Scan:
    """Scan a phantom."""
    grid = acquisition.grid
    water, fat, labels = _partial_volumes(body, acquisition)
    truth = _truth_on_grid(water, fat, labels, grid)
    bias = _bias(acquisition)
    noise_sd = None if acquisition.snr is None else LEAN_SIGNAL / acquisition.snr
    rng = np.random.default_rng([acquisition.seed, 3])
    images = {}
    for quantity in acquisition.contrasts:
        clean = _contrast(quantity, water, fat)
        if quantity is Quantity.FAT_FRACTION:
            images[quantity] = Volume(clean, grid, quantity, "1")
            continue
        signal = clean * np.float32(LEAN_SIGNAL)
        if bias is not None:
            signal *= bias
        if noise_sd is not None:
            # Magnitude of a complex signal with noise in both parts: Rician.
            real = rng.standard_normal(grid.shape, dtype=np.float32)
            imaginary = rng.standard_normal(grid.shape, dtype=np.float32)
            signal = np.hypot(signal + np.float32(noise_sd) * real, np.float32(noise_sd) * imaginary)
        images[quantity] = Volume(signal.astype(np.float32, copy=False), grid, quantity)
    return Scan(images, LabelMap(labels, grid, OWN_SCHEME), truth, noise_sd)


def _contrast(
    quantity: Quantity, water: NDArray[np.float32], fat: NDArray[np.float32]
) -> NDArray[np.float32]:
    total = water + fat
    if quantity is Quantity.WATER:
        return water.copy()
    if quantity is Quantity.FAT:
        return fat.copy()
    if quantity is Quantity.IN_PHASE:
        return total
    if quantity is Quantity.OPPOSED_PHASE:
        return np.abs(water - fat)
    if quantity is Quantity.FAT_FRACTION:
        return np.divide(fat, total, out=np.zeros_like(fat), where=total > 0.02)
    if quantity is Quantity.T1W:
        return np.float32(_T1_LEAN) * water + np.float32(_T1_FAT) * fat
    raise InvariantError(f"The phantom cannot show {quantity}")


def _partial_volumes(
    body: Body, acquisition: Acquisition
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Water and fat averaged over each voxel, and the label at its centre."""
    grid = acquisition.grid
    spacing = body.legs[Side.RIGHT].model.spacing
    factors = acquisition.supersampling
    if factors is None:
        wanted = [int(np.ceil(v / (1.25 * s))) for v, s in zip(grid.voxel_sizes_mm, spacing, strict=True)]
        factors = (max(2, wanted[0]), max(2, wanted[1]), max(2, wanted[2]))
    lean_of, fat_of, muscle = np.zeros(256), np.zeros(256), np.zeros(256, dtype=np.bool_)
    for code, (w, f) in _TISSUE.items():
        lean_of[code], fat_of[code] = w + acquisition.water_in_fat * f, f * (
            1.0 - acquisition.water_in_fat
        )
    muscle[[m.id for m in MUSCLES]] = True
    nx, ny, nz = grid.shape
    codes = np.zeros((nz, nx, ny), dtype=np.uint8)
    fractions = np.zeros((nz, nx, ny), dtype=np.float32)
    right = np.zeros((nz, nx, ny), dtype=np.bool_)
    i, j = (a.ravel() for a in np.indices((nx, ny)).astype(np.float64))
    for k in range(nz):
        code, fraction, side = body.lookup(*_world(grid, i, j, k))
        codes[k], fractions[k] = code.reshape(nx, ny), fraction.reshape(nx, ny)
        right[k] = (side > 0).reshape(nx, ny)
    # A voxel whose neighbours all show its own tissue is pure; only the others are sampled finely.
    key = codes.astype(np.int16) * 2 + right
    mixed = ndimage.maximum_filter(key, 3) != ndimage.minimum_filter(key, 3)
    water = np.where(muscle[codes], 1.0 - fractions, lean_of[codes]).astype(np.float32)
    fat = np.where(muscle[codes], fractions, fat_of[codes]).astype(np.float32)
    shifts = [(np.arange(n) + 0.5) / n - 0.5 for n in factors]
    share = 1.0 / float(np.prod(factors))
    for k in range(nz):
        at = np.flatnonzero(mixed[k])
        sums = np.zeros((2, at.size))
        for di, dj, dk in itertools.product(*shifts):
            code, fraction, _ = body.lookup(*_world(grid, i[at] + di, j[at] + dj, k + dk))
            flesh = muscle[code]
            sums[0] += np.where(flesh, 1.0 - fraction, lean_of[code])
            sums[1] += np.where(flesh, fraction, fat_of[code])
        water[k].reshape(-1)[at] = sums[0] * share
        fat[k].reshape(-1)[at] = sums[1] * share
    labels = _labels(codes, right)
    return water.transpose(1, 2, 0), fat.transpose(1, 2, 0), labels.transpose(1, 2, 0)


def _world(
    grid: Grid, i: NDArray[np.float64], j: NDArray[np.float64], k: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    a = grid.affine
    x, y, z = (a[r, 0] * i + a[r, 1] * j + (a[r, 2] * k + a[r, 3]) for r in range(3))
    return x, y, z


def _labels(codes: NDArray[np.uint8], right: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Label ids of both sides from tissue codes; marrow belongs to its bone."""
    marrow = (codes > 40 + MARROW_OFFSET) & (codes <= 47 + MARROW_OFFSET)
    labels = np.where(marrow, codes - MARROW_OFFSET, codes)
    labels = np.where(labels <= 47, labels, 0)
    return np.where((labels > 0) & ~right, labels + LEFT_OFFSET, labels).astype(np.uint8)


def _truth_on_grid(
    water: NDArray[np.float32], fat: NDArray[np.float32], labels: NDArray[np.uint8], grid: Grid
) -> dict[tuple[str, Side], MuscleTruth]:
    total = water + fat
    fraction = np.divide(fat, total, out=np.zeros_like(fat), where=total > 0)
    flat = labels.ravel(order="F")
    counts = np.bincount(flat, minlength=256)
    sums = np.bincount(flat, weights=fraction.ravel(order="F"), minlength=256)
    out = {}
    for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET)):
        for m in MUSCLES:
            n = int(counts[m.id + offset])
            if n:
                mean = float(sums[m.id + offset]) / n
                volume = n * grid.voxel_volume_ml
                out[m.name, side] = MuscleTruth(volume, volume * (1.0 - mean), mean)
    return out


def _bias(acquisition: Acquisition) -> NDArray[np.float32] | None:
    """Smooth coil sensitivity, 1 on average, the same for every contrast."""
    if acquisition.bias_field == 0.0:
        return None
    rng = np.random.default_rng([acquisition.seed, 4])
    axes = [np.linspace(-1.0, 1.0, n) for n in acquisition.grid.shape]
    field = np.zeros(acquisition.grid.shape)
    for _ in range(4):
        phase = rng.uniform(0, 2 * np.pi, 3)
        rate = rng.uniform(0.5, 1.5, 3)
        waves = [np.cos(r * np.pi * a / 2 + p) for a, r, p in zip(axes, rate, phase, strict=True)]
        field += rng.normal() * waves[0][:, None, None] * waves[1][None, :, None] * waves[2]
    field *= acquisition.bias_field / np.abs(field).max()
    return np.asarray(1.0 + field, dtype=np.float32)


def split_into_stations(
    scan: Scan, count: int, *, overlap_mm: float, gains: Sequence[float]
) -> list[Scan]:
    """The scan as overlapping stations along the third axis, each with its own gain.

    Args:
        scan: the unsplit scan.
        count: number of stations.
        overlap_mm: overlap of neighbours.
        gains: factor on the signal of each station.
    """
    if len(gains) != count:
        raise InvariantError(
            "Every station needs a gain", expected=f"{count} gains", found=str(len(gains))
        )
    grid = scan.labels.grid
    levels, size = grid.shape[2], grid.voxel_sizes_mm[2]
    overlap = round(overlap_mm / size)
    length = int(np.ceil((levels + (count - 1) * overlap) / count))
    stations = []
    for k, gain in enumerate(gains):
        start = min(k * (length - overlap), max(levels - length, 0))
        stop = min(start + length, levels)
        part = grid.crop((0, 0, start), (grid.shape[0], grid.shape[1], stop))
        images = {
            q: Volume(v.data[:, :, start:stop] * np.float32(gain), part, q, v.unit)
            for q, v in scan.images.items()
        }
        labels = LabelMap(scan.labels.data[:, :, start:stop], part, OWN_SCHEME)
        stations.append(replace(scan, images=images, labels=labels))
    return stations
