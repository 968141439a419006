"""Levels on which a leg was seen, and those on which the legs are no pair."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SeparateConfig
from pipeline.core.anatomy import Side
from pipeline.core.grid import Grid
from pipeline.core.results import Finding
from pipeline.core.scan import CanonicalScan
from pipeline.core.volume import signals
from pipeline.imaging.crossing import levels_of_crossing
from pipeline.imaging.cut_ends import whole_levels
from pipeline.imaging.dim_levels import dim_levels
from pipeline.separating.doubts import (
    LEG_ENDS_EARLY,
    LEGS_CROSS,
    LEVELS_DIM,
    ends_cut,
    levels_doubted,
)
from pipeline.separating.parting import Parting

Flags = NDArray[np.bool_]

#: Levels with less body than this show no leg, mm^2.
_SMALLEST_SECTION_MM2 = 100.0


def seen_levels(
    scan: CanonicalScan, parting: Parting, config: SeparateConfig
) -> tuple[dict[Side, Flags], list[Finding]]:
    """Levels (nz,) on which each leg was seen wholly and is one of a pair, and what is said of the
    others."""
    findings: list[Finding] = []
    lit = np.zeros(scan.grid.shape, dtype=np.bool_)
    for image in scan.images.values():
        lit |= image.data != 0
    lit_on = {side: lit & half for side, half in parting.halves.items()}
    shown = {side: _shown(scan.grid, parting.tissue[side], lit_on[side]) for side in Side}
    seen = {}
    for side in Side:
        whole = shown[side]
        if whole.any():
            sizes = scan.grid.voxel_sizes_mm
            whole = whole_levels(parting.tissue[side], lit, shown[side], sizes)
        stump = _beyond_stump(shown[side], shown[side.other], scan.grid, config)
        lower = shown[side] & _below_middle(shown[side])
        if stump.any():
            # The lower end is the leg's own. Where there is noise below it, the levels were seen to
            # be empty: muscles end there, and no end of the scan cuts them. Zeros may be levels
            # that were not imaged on this side.
            empty = stump & np.any(lit_on[side], axis=(0, 1))
            seen[side] = whole | lower | empty if empty.any() else whole
            findings += levels_doubted(LEG_ENDS_EARLY, scan.grid, side, stump)
            findings += ends_cut(scan.grid, side, shown[side] & ~lower, whole)
        else:
            seen[side] = whole
            findings += ends_cut(scan.grid, side, shown[side], whole)
    crossed = _crossed(scan.grid, parting, config)
    findings += levels_doubted(LEGS_CROSS, scan.grid, None, crossed)
    seen = {side: flags & ~crossed for side, flags in seen.items()}
    for side, dim in _dim_levels(scan, parting.tissue, seen, config).items():
        findings += levels_doubted(LEVELS_DIM, scan.grid, side, dim)
        seen[side] = seen[side] & ~dim
    return seen, findings


def _below_middle(shown: Flags) -> Flags:
    """Levels below the middle of those that show a leg."""
    levels = np.flatnonzero(shown)
    middle = np.median(levels) if levels.size else 0.0
    return np.asarray(np.arange(shown.size) < middle)


def _shown(grid: Grid, tissue: Flags, lit: Flags) -> Flags:
    """Levels from the first to the last that show a leg, as far as anything was scanned there.

    A missing station was filled with zeros; where anything was scanned there is noise.
    """
    shown = np.zeros(grid.shape[2], dtype=np.bool_)
    area = grid.voxel_volume_mm3 / grid.voxel_sizes_mm[2]
    levels = np.flatnonzero(tissue.sum(axis=(0, 1)) * area >= _SMALLEST_SECTION_MM2)
    if levels.size:
        between = slice(levels[0], levels[-1] + 1)
        shown[between] = np.any(lit[:, :, between], axis=(0, 1))
    return shown


def _crossed(grid: Grid, parting: Parting, config: SeparateConfig) -> Flags:
    """Levels of the scan from where the legs lie across each other down."""
    crossed = levels_of_crossing(
        parting.body,
        parting.surface,
        parting.lattice_mm,
        cut_share=config.crossing_cut_share,
        apart_share=config.crossing_apart_share,
        shortest_mm=config.shortest_crossing_mm,
    )
    return np.asarray(crossed[parting.lattice.points_below(2, grid.shape[2], crossed.size)])


def _dim_levels(
    scan: CanonicalScan,
    tissue: Mapping[Side, Flags],
    seen: Mapping[Side, Flags],
    config: SeparateConfig,
) -> dict[Side, Flags]:
    """Seen levels on which one leg alone gives far less signal than above and below."""
    shown = [image.data for image in signals(scan.images).values()]
    if not shown:
        return {}
    signal = sum(shown)
    totals = {
        side: np.asarray(np.sum(signal, axis=(0, 1), where=tissue[side]), dtype=np.float64)
        for side in Side
    }
    return {
        side: seen[side]
        & dim_levels(
            totals[side],
            totals[side.other],
            scan.grid.voxel_sizes_mm[2],
            largest_share=config.dimmest_level_share,
            largest_ratio=config.dimmest_level_ratio,
        )
        for side in Side
    }


def _beyond_stump(own: Flags, other: Flags, grid: Grid, config: SeparateConfig) -> Flags:
    """Levels below the end of a leg on which the other leg is shown; none where both end alike."""
    below = other.copy()
    below[int(own.argmax()) :] = False
    length_mm = np.count_nonzero(below) * grid.voxel_sizes_mm[2]
    return below if length_mm > config.largest_foot_offset_mm else np.zeros_like(below)
