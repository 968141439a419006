"""What the voxels of a muscle add up to: volume, lean volume, fat fraction, area profile.

Boundary convention: a label holds the muscle; fascia and intermuscular fat lie outside. A voxel
belongs to the muscle at its centre, so a voxel count is an unbiased volume, while the voxels on
the border also hold some of what lies outside (partial volume). Sums over the whole label
therefore read slightly too fat; the core, away from the border, does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.volume import DixonPair

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def fat_fraction(pair: DixonPair) -> NDArray[np.float32]:
    """Fat fraction F / (F + gain W), NaN where the signal is not above noise.

    The gain (spoiled_echo.py) is 1 where the T1 bias is not known; elsewhere the fraction is that
    of the protons and not of their signals.

    Returns:
        float32 array of the pair's shape, 0 to 1.
    """
    water = pair.water.data
    total = (water if pair.fat_gain == 1.0 else water * np.float32(pair.fat_gain)) + pair.fat.data
    out = np.full(total.shape, np.nan, dtype=np.float32)
    np.divide(pair.fat.data, total, out=out, where=pair.valid & (total > 0))
    return np.clip(out, 0.0, 1.0, out=out)


def given_fraction(fractions: NDArray[np.float32]) -> NDArray[np.float32]:
    """A fat fraction map made elsewhere, NaN where it was masked.

    Masked voxels hold exactly 0 and lie together; in lean muscle single voxels do too. So a
    masked part is one that holds 3 x 3 zeros in a slice somewhere.

    Args:
        fractions: 0 to 1, shape (nx, ny, nz); values beyond are noise.

    Returns:
        float32 array of its shape, 0 to 1.
    """
    masked = ndimage.binary_opening(fractions == 0.0, structure=np.ones((3, 3, 1), dtype=np.bool_))
    return np.where(masked, np.float32(np.nan), np.clip(fractions, 0.0, 1.0))


def in_opposed_fraction(
    in_phase: NDArray[np.float32], opposed: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fat fraction of an in- and an opposed-phase magnitude, (IP - OP) / (2 IP) (Dixon 1984, doi
    10.1148/radiology.153.1.6089263); NaN where there is no in-phase signal.

    The opposed magnitude is |W - F|, so more than half fat reads as less: 0.8 comes out as 0.2.
    T2* between the echoes adds to the fraction.

    Returns:
        float32, 0 to 0.5.
    """
    out = np.full(in_phase.shape, np.nan, dtype=np.float32)
    np.divide(in_phase - opposed, 2.0 * in_phase, out=out, where=in_phase > 0)
    return np.clip(out, 0.0, 0.5, out=out)


def core_mask(labels: NDArray[np.integer], margin_voxels: float) -> Flags:
    """Voxels whose neighbours all carry their own label: away from every border.

    The neighbours are those within margin_voxels in the plane of the first two axes (the four
    beside a voxel for 1.0) and the next level up and down: a slanted border crosses thick
    levels, so a voxel counts as core only if its label goes on above and below.

    Args:
        labels: label values, shape (nx, ny, nz); 0 is never core.
        margin_voxels: in-plane margin, in voxels.
    """
    reach = int(np.ceil(margin_voxels))
    core: Flags = labels != 0
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            if (dx or dy) and dx * dx + dy * dy <= margin_voxels**2:
                core &= _same_as_neighbour(labels, (dx, dy, 0))
    for dz in (-1, 1):
        core &= _same_as_neighbour(labels, (0, 0, dz))
    return core


def _same_as_neighbour(labels: NDArray[np.integer], offset: tuple[int, int, int]) -> Flags:
    """Whether the voxel at +offset exists and carries the same label."""
    same = np.zeros(labels.shape, dtype=np.bool_)
    pairs = list(zip(offset, labels.shape, strict=True))
    here = tuple(slice(max(0, -d), min(n, n - d)) for d, n in pairs)
    there = tuple(slice(max(0, d), min(n, n + d)) for d, n in pairs)
    same[here] = labels[here] == labels[there]
    return same


@dataclass(frozen=True)
class TissueSums:
    """Sums over the voxels of one structure, each voxel counted with a weight 0 to 1.

    Attributes:
        volume_ml: weighted voxels times voxel volume.
        valid_share: share of that with a defined fat fraction; None without fractions.
        fat_fraction: mean over the defined voxels, 0 to 1; None where undefined.
        core_fat_fraction: mean over the core; None where the core is too small or undefined.
        fat_free_ml: volume of the voxels below the threshold fraction, scaled for undefined ones.
    """

    volume_ml: float
    valid_share: float | None
    fat_fraction: float | None
    core_fat_fraction: float | None
    fat_free_ml: float | None

    @property
    def lean_ml(self) -> float | None:
        """Lean volume: sum of v (1 - FF). Voxels without a fraction count with the mean of the
        others: they are missing, not lean and not fat."""
        return None if self.fat_fraction is None else self.volume_ml * (1.0 - self.fat_fraction)

    @property
    def fat_ml(self) -> float | None:
        """Fat volume: sum of v FF."""
        return None if self.fat_fraction is None else self.volume_ml * self.fat_fraction

    @property
    def lean_core_ml(self) -> float | None:
        """Volume times (1 - core fat fraction): the border's partial volume left out."""
        if self.core_fat_fraction is None:
            return None
        return self.volume_ml * (1.0 - self.core_fat_fraction)


def tissue_sums(
    *,
    voxel_volume_ml: float,
    fractions: NDArray[np.float32] | None,
    core: Flags,
    weights: Floats | None,
    fat_free_below: float,
    smallest_core_share: float,
) -> TissueSums:
    """Add up the voxels of one structure.

    Args:
        voxel_volume_ml: volume of a voxel, mL.
        fractions: fat fraction per voxel (n,), NaN where undefined; None without fat fractions.
        core: whether a voxel is core (n,).
        weights: share of each voxel that counts (n,), 0 to 1; None: all of each.
        fat_free_below: threshold fraction of the fat-free volume.
        smallest_core_share: a core with a smaller share of the voxels gives no fraction.
    """
    used = np.ones(core.size) if weights is None else weights
    total = float(used.sum())
    volume = total * voxel_volume_ml
    if fractions is None or total == 0:
        return TissueSums(volume, None, None, None, None)
    defined = np.isfinite(fractions)
    weight = float(used[defined].sum())
    if weight == 0:
        return TissueSums(volume, 0.0, None, None, None)
    values = fractions[defined].astype(np.float64)
    # Fractions estimated from one contrast reach below 0 by noise, so that it cancels in the sum.
    mean = min(max(float(used[defined] @ values) / weight, 0.0), 1.0)
    lean_share = float(used[defined][values < fat_free_below].sum()) / weight
    inner = defined & core
    inner_weight = float(used[inner].sum())
    core_mean = None
    if inner_weight >= max(smallest_core_share * total, 1.0):
        core_mean = float(used[inner] @ fractions[inner].astype(np.float64)) / inner_weight
        core_mean = min(max(core_mean, 0.0), 1.0)
    return TissueSums(volume, min(weight / total, 1.0), mean, core_mean, volume * lean_share)


def slab_weights(
    coordinate_mm: Floats, low_mm: float, high_mm: float, voxel_extent_mm: float
) -> Floats:
    """Share of each voxel that lies between two levels.

    A voxel at coordinate s covers s +- voxel_extent / 2 along the axis; the share of it below
    `high` and above `low` counts, so that a level between two slices cuts a slice in part.
    """
    upper = np.clip((high_mm - coordinate_mm) / voxel_extent_mm + 0.5, 0.0, 1.0)
    lower = np.clip((coordinate_mm - low_mm) / voxel_extent_mm + 0.5, 0.0, 1.0)
    return np.maximum(upper + lower - 1.0, 0.0)


def area_profile(
    coordinate_mm: Floats, amounts_mm3: Floats, *, step_mm: float, voxel_extent_mm: float
) -> tuple[Floats, Floats]:
    """Cross-section along an axis from voxels at coordinates along it: area = dV / ds.

    Each voxel is spread evenly over the length it covers, so the profile adds up to the volume
    exactly: sum(area) * step = sum(amounts).

    Args:
        coordinate_mm: coordinate of each voxel along the axis (n,), n >= 1.
        amounts_mm3: volume (or lean volume) of each voxel (n,).
        step_mm: length of a level; levels are centred on multiples of it.
        voxel_extent_mm: length a voxel covers along the axis.

    Returns:
        centres of the levels in mm and areas in mm^2.
    """
    half = voxel_extent_mm / 2
    first = int(np.floor((coordinate_mm.min() - half) / step_mm + 0.5))
    last = int(np.floor((coordinate_mm.max() + half) / step_mm + 0.5))
    edges: Floats = np.asarray((np.arange(first, last + 2) - 0.5) * step_mm, dtype=np.float64)
    cumulative = amount_below(coordinate_mm, amounts_mm3, edges, voxel_extent_mm=voxel_extent_mm)
    return (edges[:-1] + edges[1:]) / 2, np.maximum(np.diff(cumulative), 0.0) / step_mm


def amount_below(
    coordinate_mm: Floats, amounts_mm3: Floats, at_mm: Floats, *, voxel_extent_mm: float
) -> Floats:
    """How much lies at coordinates smaller than given ones, each voxel spread over its length.

    Args:
        coordinate_mm: coordinate of each voxel along an axis (n,).
        amounts_mm3: volume (or lean volume) of each voxel (n,).
        at_mm: coordinates up to which is counted (m,).
        voxel_extent_mm: length a voxel covers along the axis.

    Returns:
        mm^3 (m,).
    """
    # The volume above level t grows linearly while t passes through a voxel: the sum of one ramp
    # up per voxel start minus one per voxel end, looked up for all edges at once.
    half = voxel_extent_mm / 2
    order = np.argsort(coordinate_mm, kind="stable")
    middles, density = coordinate_mm[order], amounts_mm3[order] / voxel_extent_mm
    return _ramp_sum(at_mm, middles - half, density) - _ramp_sum(at_mm, middles + half, density)


def _ramp_sum(at: Floats, starts: Floats, slopes: Floats) -> Floats:
    """Sum over voxels of slope * max(t - start, 0) for every t in `at`; starts ascend."""
    slope_sum = np.concatenate([[0.0], np.cumsum(slopes)])
    moment_sum = np.concatenate([[0.0], np.cumsum(slopes * starts)])
    count = np.searchsorted(starts, at, side="right")
    return np.asarray(at * slope_sum[count] - moment_sum[count], dtype=np.float64)
