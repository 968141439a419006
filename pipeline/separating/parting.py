"""Where the legs part: body, midline and the surface between them, found on a coarse lattice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config import SeparateConfig
from pipeline.core.anatomy import Side
from pipeline.core.scan import CanonicalScan, Index3
from pipeline.core.volume import Quantity
from pipeline.imaging.body import (
    around_body,
    body_threshold,
    hulls,
    without_arms,
    without_specks,
)
from pipeline.imaging.noise import air_limits, noise_level
from pipeline.imaging.separation import (
    Lattice,
    between_shares,
    coarse,
    lattice_for,
    mask_at_full_size,
    midline,
    on_both_sides,
    seam,
)
from pipeline.imaging.single_leg import left_whole, narrow_levels
from pipeline.separating.checks import check_two_legs

Flags = NDArray[np.bool_]

#: Fat can be so much brighter than muscle there that muscle is taken for air.
_MUSCLE_MAY_BE_DARK = (Quantity.T1W, Quantity.FAT, Quantity.OTHER)


@dataclass(frozen=True, eq=False)
class Parting:
    """Where the legs of a scan part.

    Attributes:
        lattice: a coarse lattice over the scan (nx, ny, nz).
        lattice_mm: distances of its columns, rows and levels.
        body: body mask on the lattice.
        middle: lattice column of the midline, by level (nz,).
        surface: lattice column between the legs (ny, nz).
        halves: which voxels of the scan lie on a leg's side of the surface.
        tissue: which of them are body of that leg, without arms.
    """

    lattice: Lattice
    lattice_mm: tuple[float, float, float]
    body: Flags
    middle: NDArray[np.float64]
    surface: NDArray[np.float64]
    halves: Mapping[Side, Flags]
    tissue: Mapping[Side, Flags]

    def touching_share(self) -> float:
        """Share of the levels on which the body is in one piece between the legs."""
        both = on_both_sides(self.body, self.middle)
        return float(np.mean(both & (between_shares(self.body, self.middle) > 0)))


def part_legs(scan: CanonicalScan, config: SeparateConfig) -> Parting:
    """Find the surface between the legs, and the body on either side of it.

    Raises:
        SubjectUnusableError: no body, or one piece that never parts.
    """
    shape = scan.grid.shape
    lattice = lattice_for(shape, scan.grid.voxel_sizes_mm, config.search_voxel_mm)
    lattice_mm = _lattice_mm(scan, lattice)
    body, muscle, inside = _body(scan, lattice)
    middle, narrow = _midline(body, lattice_mm)
    check_two_legs(body, middle, narrow, config)
    surface = left_whole(seam(body, muscle, middle, lattice_mm[0]), body, narrow)
    border = _at_full_size(surface, lattice, shape)
    columns = np.arange(shape[0], dtype=np.float64)[:, None, None]
    halves = {Side.RIGHT: columns > border, Side.LEFT: columns < border}
    tissue = {}
    for side, half in halves.items():
        mask = inside & half
        thin_mask = coarse(mask.astype(np.float32), lattice) > 0.5
        arms = thin_mask & ~without_arms(thin_mask)
        if arms.any():
            mask = mask & ~mask_at_full_size(arms, lattice, shape)
        tissue[side] = mask
    return Parting(lattice, lattice_mm, body, middle, surface, halves, tissue)


def _body(scan: CanonicalScan, lattice: Lattice) -> tuple[Flags, NDArray[np.float64], Flags]:
    """Body on the lattice, how much it looks like muscle there (0 to 1), and body at full size."""
    signal, shown = _signal(scan)
    thin = coarse(signal, lattice)
    lattice_mm = _lattice_mm(scan, lattice)
    rare_air, unseen_air = air_limits(_noise(scan, signal))
    threshold = body_threshold(thin, rare_air)
    in_plane = np.ones((3, 3, 1))
    body = ndimage.binary_opening(thin > threshold, in_plane)
    inside = signal > threshold
    if threshold < unseen_air:
        around = mask_at_full_size(around_body(body, lattice_mm[0]), lattice, inside.shape)
        inside = without_specks(inside, around, scan.grid.voxel_sizes_mm)
    muscle = np.ones_like(thin)
    if scan.dixon is not None:
        water = coarse(scan.dixon.water.data, lattice)
        muscle = np.clip(water / np.maximum(thin, 1e-6 + threshold), 0.0, 1.0)
    elif shown in _MUSCLE_MAY_BE_DARK and body.any():
        if shown is not Quantity.OTHER:
            muscle = np.clip(1.0 - thin / float(np.median(thin[body])), 0.0, 1.0)
        # Noise in the air must not be taken for fat that the hull goes round.
        bright = thin > max(threshold, unseen_air)
        body |= hulls(bright, _midline(body, lattice_mm)[0], lattice_mm[0])
        inside |= mask_at_full_size(ndimage.binary_erosion(body, in_plane), lattice, inside.shape)
    return body, muscle, inside


def _lattice_mm(scan: CanonicalScan, lattice: Lattice) -> tuple[float, float, float]:
    """Distance of a lattice's columns, rows and levels."""
    sizes = scan.grid.voxel_sizes_mm
    return lattice.step[0] * sizes[0], lattice.step[1] * sizes[1], lattice.step[2] * sizes[2]


def _midline(
    body: Flags, lattice_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], Flags]:
    """The midline by the levels that show two legs, by all where none does; and those of one leg.

    A leg that is alone over much of a scan would tilt the midline into itself.
    """
    column_mm, row_mm, level_mm = lattice_mm
    narrow = narrow_levels(body, column_mm, row_mm)
    voting = body & ~narrow
    return midline(voting if voting.any() else body, column_mm, level_mm), narrow


def _signal(scan: CanonicalScan) -> tuple[NDArray[np.float32], Quantity | None]:
    """What shows the body best: water + fat (None), else in-phase, else what there is."""
    if scan.dixon is not None:
        return np.asarray(scan.dixon.water.data + scan.dixon.fat.data), None
    for quantity in (Quantity.IN_PHASE, Quantity.T1W, Quantity.WATER):
        if quantity in scan.images:
            return scan.images[quantity].data, quantity
    quantity, image = next(iter(scan.images.items()))
    return image.data, quantity


def _noise(scan: CanonicalScan, signal: NDArray[np.float32]) -> list[float]:
    """Noise levels of the images that the signal is the sum of; those that can be told."""
    pair = scan.dixon
    images = [signal] if pair is None else [pair.water.data, pair.fat.data]
    levels = [noise_level(image, signal) for image in images]
    return [level for level in levels if level is not None]


def _at_full_size(
    surface: NDArray[np.float64], lattice: Lattice, shape: Index3
) -> NDArray[np.float64]:
    """The surface as fractional index of the first axis for every (y, z) of the array."""
    y = np.clip(np.arange(shape[1]) / lattice.step[1], 0, surface.shape[0] - 1)
    z = np.clip(np.arange(shape[2]) / lattice.step[2], 0, surface.shape[1] - 1)
    grid = np.meshgrid(y, z, indexing="ij")
    columns = ndimage.map_coordinates(surface, grid, order=1, mode="nearest")
    # Counted from the middle, so that mirrored surfaces stay exact mirror images.
    middle = (len(lattice.x) - 1) / 2.0
    return np.asarray((shape[0] - 1) / 2.0 + (columns - middle) * lattice.step[0])
