"""Separate: two legs out of one scan, the left one mirrored into the pose of a right leg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SeparateConfig
from pipeline.core.anatomy import LEG_SCHEME, Side
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import CanonicalScan, Index3, Leg, LegPair, StageResult
from pipeline.core.transform import identity, mirror
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.imaging.boxes import box_of, widened
from pipeline.imaging.labels import leg_labels
from pipeline.imaging.threads import one_thread
from pipeline.separating.checks import check_both_sides, check_sizes, check_width
from pipeline.separating.doubts import (
    LEVEL_DOUBTS,
    ghosts,
    labels_astray,
    legs_alike,
    legs_touch,
    off_isocentre,
    unlike_bright,
)
from pipeline.separating.levels import seen_levels
from pipeline.separating.parting import part_legs

Flags = NDArray[np.bool_]

_SPACES = {Side.RIGHT: "right-leg", Side.LEFT: "left-leg-mirrored"}


@one_thread()
def separate_legs(scan: CanonicalScan, *, config: SeparateConfig) -> StageResult[LegPair]:
    """Cut a scan into two legs, each in the pose of a right leg.

    The boxes of the legs overlap by a margin around the mid-sagittal surface and hold every
    given label of their side; `tissue` says which voxels lie on the leg's own side. Arrays are
    views of the scan's: nothing is copied or resampled.

    Raises:
        InputError: a scan far smaller or larger than legs.
        SubjectUnusableError: fewer than two legs in view, or labels of one side only.
    """
    check_width(scan.grid)
    findings: list[Finding] = []
    given = None
    if scan.labels is not None:
        given = {side: leg_labels(scan.labels.data, side) for side in Side}
        check_both_sides(given)
    if scan.images:
        tissue, seen, findings = _from_images(scan, config)
    else:
        assert given is not None
        tissue, seen = _from_labels(given)
    legs = {}
    middle = _middle_x(scan.grid, tissue)
    for side in Side:
        own = None if given is None else given[side]
        legs[side] = _leg(
            scan,
            side,
            _box(scan, tissue[side], own, config),
            tissue=tissue[side],
            seen=seen[side],
            given=own,
            middle_mm=middle,
        )
    alike = legs_alike(legs, config) if scan.images else []
    findings += alike
    doubt = next((f.message for f in alike if f.severity is Severity.ERROR), None)
    if given is not None and scan.images:
        findings += labels_astray(scan, given, tissue, config)
    doubts = [finding for finding in findings if finding.code in LEVEL_DOUBTS]
    findings = [finding for finding in findings if finding.code not in LEVEL_DOUBTS]
    doubts += off_isocentre(middle, config) if scan.from_isocentre else []
    if scan.images:
        doubts += unlike_bright(legs, config)
    findings += doubts
    caveats = tuple(dict.fromkeys((*scan.caveats, *(finding.code for finding in doubts))))
    return StageResult(LegPair(legs[Side.RIGHT], legs[Side.LEFT], doubt, caveats), tuple(findings))


def _from_images(
    scan: CanonicalScan, config: SeparateConfig
) -> tuple[Mapping[Side, Flags], dict[Side, Flags], list[Finding]]:
    """Own-side body mask and seen levels of both legs, and what is said of how they were found."""
    parting = part_legs(scan, config)
    voxel_ml = scan.grid.voxel_volume_ml
    check_sizes({side: float(parting.tissue[side].sum()) * voxel_ml for side in Side}, config)
    seen, findings = seen_levels(scan, parting, config)
    findings += legs_touch(scan.grid, parting.touching_share())
    findings += ghosts(scan, parting, config)
    return parting.tissue, seen, findings


def _from_labels(
    given: Mapping[Side, NDArray[np.uint8]],
) -> tuple[dict[Side, Flags], dict[Side, Flags]]:
    """Without an image the labels are all there is; every level counts as seen."""
    tissue = {side: given[side] != 0 for side in Side}
    levels = next(iter(given.values())).shape[2]
    return tissue, {side: np.ones(levels, dtype=np.bool_) for side in Side}


def _middle_x(grid: Grid, tissue: Mapping[Side, Flags]) -> float:
    """World x of the plane the left leg is mirrored through: half-way between the legs."""
    centres = []
    for mask in tissue.values():
        weights = [mask.sum(axis=tuple({0, 1, 2} - {k}), dtype=np.float64) for k in range(3)]
        index = [float(w @ np.arange(w.size) / w.sum()) for w in weights]
        centres.append(grid.index_to_world(index)[0])
    return float(np.mean(centres))


def _box(
    scan: CanonicalScan, tissue: Flags, labels: NDArray[np.uint8] | None, config: SeparateConfig
) -> tuple[Index3, Index3]:
    """Box of a leg: its tissue and its labels with a margin, all levels."""
    mask = tissue if labels is None else tissue | (labels != 0)
    plane: Flags = np.asarray(mask.any(axis=2))
    margin = [int(np.ceil(config.margin_mm / size)) for size in scan.grid.voxel_sizes_mm[:2]]
    across, along = widened(box_of(plane), margin, plane.shape)
    return (across.start, along.start, 0), (across.stop, along.stop, scan.grid.shape[2])


def _leg(
    scan: CanonicalScan,
    side: Side,
    ends: tuple[Index3, Index3],
    *,
    tissue: Flags,
    seen: Flags,
    given: NDArray[np.uint8] | None,
    middle_mm: float,
) -> Leg:
    """A leg out of the arrays of a scan, as views of them.

    Args:
        scan: both legs.
        side: which.
        ends: its box, lower <= index < upper.
        tissue, seen, given: of this leg, on the grid of the scan.
        middle_mm: world x of the plane that the left leg is mirrored through.
    """
    lower, upper = ends
    box = tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))
    space = _SPACES[side]
    grid = scan.grid.crop(lower, upper)
    if side is Side.LEFT:
        # Mirrored world, and storage reversed so that its first axis again runs to the right.
        to_leg = mirror(middle_mm, grid.space, space)
        flip = np.eye(4)
        flip[0, 0], flip[0, 3] = -1.0, grid.shape[0] - 1
        grid = Grid(grid.shape, to_leg.matrix @ grid.affine @ flip, space)
    else:
        to_leg = identity(grid.space, space)
        grid = grid.renamed(space)

    def own(array: NDArray[Any]) -> NDArray[Any]:
        part = array[box]
        return part[::-1] if side is Side.LEFT else part

    images = {
        quantity: Volume(own(image.data), grid, quantity, image.unit)
        for quantity, image in scan.images.items()
    }
    dixon = None
    if scan.dixon is not None:
        dixon = replace(
            scan.dixon,
            water=images[Quantity.WATER],
            fat=images[Quantity.FAT],
            valid=own(scan.dixon.valid),
        )
    labels = None
    if given is not None:
        labels = LabelMap(np.ascontiguousarray(own(given)), grid, LEG_SCHEME)
    return Leg(
        side=side,
        grid=grid,
        images=images,
        dixon=dixon,
        tissue=own(tissue),
        seen=seen,
        given=labels,
        to_scanner=to_leg.inverse(),
        lower=lower,
    )
