"""Scanning a phantom: partial volume, coil bias, noise, stations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import BONES, LEFT_OFFSET, MUSCLES, OWN_SCHEME, Side
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.core.grid import Grid
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.phantom.body import Body, MuscleTruth, Truth
from pipeline.phantom.leg import (
    AIR,
    CORTEX_OFFSET,
    FAT,
    SKIN,
    SUBCUTANEOUS,
    VISCERA,
)

Singles = NDArray[np.float32]

#: Signal of pure lean tissue in the water image, arbitrary units.
LEAN_SIGNAL = 1000.0
#: Water and fat share of tissues other than muscle; cortical bone and air give next to none.
_TISSUE: Mapping[int, tuple[float, float]] = FrozenDict(
    {
        FAT: (0.06, 0.92),
        SUBCUTANEOUS: (0.03, 0.97),
        SKIN: (0.40, 0.15),
        VISCERA: (0.70, 0.20),
        **{bone.id: (0.10, 0.85) for bone in BONES},
        **{bone.id + CORTEX_OFFSET: (0.03, 0.02) for bone in BONES},
    }
)
#: T1-weighted signal of lean tissue and of fat relative to the in-phase signal.
_T1_LEAN, _T1_FAT = 0.4, 1.0
#: Points looked up at a time: bounds the memory.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Acquisition:
    """How a phantom is scanned.

    Attributes:
        grid: voxels of the scan.
        contrasts: images wanted.
        snr: signal of lean tissue over the standard deviation of the noise; None: no noise.
        bias_field: largest relative deviation of the coil's sensitivity, e.g. 0.3.
        water_in_fat: share of water signal that pure fat shows besides its own.
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

    def __post_init__(self) -> None:
        if self.snr is not None and self.snr <= 0:
            raise InvariantError(
                "The signal-to-noise ratio is positive, or None", found=f"{self.snr}"
            )
        if not 0.0 <= self.bias_field < 1.0:
            raise InvariantError(
                "A bias field deviates by a share of the signal",
                expected="0 to below 1",
                found=f"{self.bias_field}",
            )


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
    """Scan a phantom.

    Raises:
        InvariantError: a contrast that the phantom does not have.
    """
    grid = acquisition.grid
    water, fat, labels = _partial_volumes(body, acquisition)
    truth = _truth_on_grid(water, fat, labels, grid)
    bias = _bias(acquisition)
    noise_sd = None if acquisition.snr is None else LEAN_SIGNAL / acquisition.snr
    rng = np.random.default_rng([acquisition.seed, 3])
    images: dict[Quantity, Volume] = {}
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
            real *= np.float32(noise_sd)
            signal += real
            imaginary = rng.standard_normal(grid.shape, dtype=np.float32)
            imaginary *= np.float32(noise_sd)
            np.hypot(signal, imaginary, out=signal)
        images[quantity] = Volume(signal, grid, quantity)
    return Scan(FrozenDict(images), LabelMap(labels, grid, OWN_SCHEME), truth, noise_sd)


def _contrast(quantity: Quantity, water: Singles, fat: Singles) -> Singles:
    if quantity is Quantity.WATER:
        return water
    if quantity is Quantity.FAT:
        return fat
    if quantity is Quantity.IN_PHASE:
        return water + fat
    if quantity is Quantity.OPPOSED_PHASE:
        return np.asarray(np.abs(water - fat), dtype=np.float32)
    if quantity is Quantity.FAT_FRACTION:
        total = water + fat
        fraction: Singles = np.zeros_like(fat)
        np.divide(fat, total, out=fraction, where=total > 0.02)
        return fraction
    if quantity is Quantity.T1W:
        return np.asarray(np.float32(_T1_LEAN) * water + np.float32(_T1_FAT) * fat, np.float32)
    raise InvariantError(f"The phantom cannot show {quantity}")


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Tissue at the points of a grid, for whole voxels and inside them.

    Attributes:
        body: the phantom.
        grid: the voxels.
        lean, fat: signal shares by tissue code, 256 entries each.
        muscle: whether a code is a muscle.
    """

    body: Body
    grid: Grid
    lean: Singles
    fat: Singles
    muscle: NDArray[np.bool_]

    @staticmethod
    def of(body: Body, acquisition: Acquisition) -> _Sampler:
        lean, fat = np.zeros(256, dtype=np.float32), np.zeros(256, dtype=np.float32)
        for code, (w, f) in _TISSUE.items():
            lean[code] = w + acquisition.water_in_fat * f
            fat[code] = f * (1.0 - acquisition.water_in_fat)
        muscle = np.zeros(256, dtype=np.bool_)
        muscle[[m.id for m in MUSCLES]] = True
        return _Sampler(body, acquisition.grid, lean, fat, muscle)

    def at(
        self, i: NDArray[np.float64], j: NDArray[np.float64], k: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], Singles, NDArray[np.bool_]]:
        """Tissue code, fat fraction and "is right" at fractional indices, flat arrays."""
        a = self.grid.affine
        x, y, z = (a[r, 0] * i + a[r, 1] * j + a[r, 2] * k + a[r, 3] for r in range(3))
        x = self.body.straighten(x, z)
        right = x > 0
        codes = np.zeros(x.shape, dtype=np.uint8)
        fractions = np.zeros(x.shape, dtype=np.float32)
        for side, leg in self.body.legs.items():
            mine = np.flatnonzero(right if side is Side.RIGHT else ~right)
            own = leg.pose.to_leg(np.abs(x[mine]), y[mine], z[mine])
            codes[mine], fractions[mine] = leg.lookup(*own)
        if self.body.parameters.whole_body:
            empty = np.flatnonzero(codes == AIR)
            codes[empty] = self.body.surround(x[empty], y[empty], z[empty])
        return codes, fractions, right

    def signals(self, codes: NDArray[np.uint8], fractions: Singles) -> tuple[Singles, Singles]:
        """Water and fat share of tissues."""
        flesh = self.muscle[codes]
        return (
            np.where(flesh, 1 - fractions, self.lean[codes]),
            np.where(flesh, fractions, self.fat[codes]),
        )


def _partial_volumes(
    body: Body, acquisition: Acquisition
) -> tuple[Singles, Singles, NDArray[np.uint8]]:
    """Water and fat averaged over each voxel, and the label at its centre."""
    grid = acquisition.grid
    sampler = _Sampler.of(body, acquisition)
    spacing = body.legs[Side.RIGHT].model.spacing
    factors = acquisition.supersampling
    if factors is None:
        sizes = zip(grid.voxel_sizes_mm, _along_axes(grid, spacing), strict=True)
        wanted = [min(5, max(2, int(np.ceil(v / (1.3 * s))))) for v, s in sizes]
        factors = (wanted[0], wanted[1], wanted[2])
    water = np.zeros(grid.shape, dtype=np.float32)
    fat = np.zeros(grid.shape, dtype=np.float32)
    codes = np.zeros(grid.shape, dtype=np.uint8)
    right = np.zeros(grid.shape, dtype=np.bool_)
    size = codes.size
    for start in range(0, size, _CHUNK):
        flat = np.arange(start, min(start + _CHUNK, size))
        i, j, k = (v.astype(np.float64) for v in np.unravel_index(flat, grid.shape))
        code, fraction, is_right = sampler.at(i, j, k)
        codes.reshape(-1)[flat], right.reshape(-1)[flat] = code, is_right
        water.reshape(-1)[flat], fat.reshape(-1)[flat] = sampler.signals(code, fraction)
    # A voxel whose neighbours all show its own tissue is pure; only the others are sampled
    # finely, and all of a muscle with streaks.
    key = codes + right * np.uint8(128)
    mixed = ndimage.maximum_filter(key, 3) != ndimage.minimum_filter(key, 3)
    if body.parameters.fat_texture != "uniform":
        mixed |= sampler.muscle[codes]
    shifts = [(np.arange(n) + 0.5) / n - 0.5 for n in factors]
    share = np.float32(1.0 / float(np.prod(factors)))
    chosen = np.flatnonzero(mixed)
    for start in range(0, len(chosen), _CHUNK):
        flat = chosen[start : start + _CHUNK]
        i, j, k = (v.astype(np.float64) for v in np.unravel_index(flat, grid.shape))
        sums = np.zeros((2, len(flat)), dtype=np.float32)
        for di, dj, dk in itertools.product(*shifts):
            code, fraction, _ = sampler.at(i + di, j + dj, k + dk)
            w, f = sampler.signals(code, fraction)
            sums[0] += w
            sums[1] += f
        water.reshape(-1)[flat], fat.reshape(-1)[flat] = sums[0] * share, sums[1] * share
    return water, fat, _labels(codes, right)


def _along_axes(grid: Grid, spacing: tuple[float, float, float]) -> list[float]:
    """Spacing of the model seen along each axis of the grid."""
    directions = np.abs(grid.affine[:3, :3]) / np.array(grid.voxel_sizes_mm)
    return [float(np.dot(directions[:, c] ** 2, spacing)) for c in range(3)]


def _labels(codes: NDArray[np.uint8], right: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Label ids of both sides from tissue codes; cortex and marrow are one bone."""
    table = np.zeros(256, dtype=np.uint8)
    for m in MUSCLES:
        table[m.id] = m.id
    for bone in BONES:
        table[bone.id] = table[bone.id + CORTEX_OFFSET] = bone.id
    labels = table[codes]
    labels[(labels > 0) & ~right] += np.uint8(LEFT_OFFSET)
    return labels


def _truth_on_grid(
    water: Singles, fat: Singles, labels: NDArray[np.uint8], grid: Grid
) -> Mapping[tuple[str, Side], MuscleTruth]:
    total = water + fat
    fraction = np.divide(fat, total, out=np.zeros_like(fat), where=total > 0)
    flat = labels.ravel()
    counts = np.bincount(flat, minlength=256)
    sums = np.bincount(flat, weights=fraction.ravel(), minlength=256)
    out = {}
    for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET)):
        for m in MUSCLES:
            n = int(counts[m.id + offset])
            if n:
                mean = float(sums[m.id + offset]) / n
                volume = n * grid.voxel_volume_ml
                out[m.name, side] = MuscleTruth(volume, volume * (1.0 - mean), mean)
    return FrozenDict(out)


def _bias(acquisition: Acquisition) -> Singles | None:
    """Smooth coil sensitivity, about 1 on average, the same for every contrast."""
    if acquisition.bias_field == 0.0:
        return None
    rng = np.random.default_rng([acquisition.seed, 4])
    axes = [np.linspace(-1.0, 1.0, n) for n in acquisition.grid.shape]
    field = np.zeros(acquisition.grid.shape, dtype=np.float32)
    for _ in range(4):
        phase = rng.uniform(0, 2 * np.pi, 3)
        rate = rng.uniform(0.5, 1.5, 3)
        waves = [
            np.cos(r * np.pi * a / 2 + p).astype(np.float32)
            for a, r, p in zip(axes, rate, phase, strict=True)
        ]
        weight = np.float32(rng.normal())
        field += weight * waves[0][:, None, None] * waves[1][None, :, None] * waves[2]
    field *= np.float32(acquisition.bias_field) / np.abs(field).max()
    return field + np.float32(1.0)


def split_into_stations(
    scan: Scan, count: int, *, overlap_mm: float, gains: Sequence[float]
) -> list[Scan]:
    """The scan as overlapping stations along the third axis, each with its own gain.

    Args:
        scan: the unsplit scan.
        count: number of stations.
        overlap_mm: overlap of neighbours.
        gains: factor on the signal of each station.

    Raises:
        InvariantError: not one gain per station.
    """
    if count < 1 or len(gains) != count:
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
            q: Volume(
                v.data[:, :, start:stop] * np.float32(1.0 if v.unit == "1" else gain),
                part,
                q,
                v.unit,
            )
            for q, v in scan.images.items()
        }
        labels = LabelMap(scan.labels.data[:, :, start:stop], part, OWN_SCHEME)
        stations.append(replace(scan, images=FrozenDict(images), labels=labels))
    return stations
