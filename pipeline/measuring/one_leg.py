"""What is measured in one leg: raw values of each structure, on the leg's own voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import hypot

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import STRUCTURES, Side
from pipeline.core.grid import Grid
from pipeline.core.match import LegMatch
from pipeline.core.results import ProfilePoint
from pipeline.core.scan import Leg, SegmentedLeg, SegmentedLegs
from pipeline.core.soft import Confidence
from pipeline.core.volume import Quantity, signals
from pipeline.imaging.asymmetry import se_of_counting
from pipeline.imaging.extent import End, Extent, structure_extent
from pipeline.imaging.labels import is_muscle
from pipeline.imaging.limb_axis import axis_mm, position_at
from pipeline.imaging.local_difference import MatchedCourse, Placed, Placement
from pipeline.imaging.single_contrast import split_tissue
from pipeline.imaging.swaps import doubted_swaps
from pipeline.imaging.tissue import (
    TissueSums,
    area_profile,
    core_mask,
    fat_fraction,
    given_fraction,
    in_opposed_fraction,
    tissue_sums,
)
from pipeline.imaging.unseen import at_heights, cut_deep, near, near_edges

Flags = NDArray[np.bool_]

#: Single contrasts in which muscle and fat are told apart.
_SPLITTABLE = (Quantity.T1W, Quantity.WATER)
_FROM_ONE = (
    "lean volume is an estimate from the {} image alone, relative to the leg's own lean muscle"
)
_ALIKE = (
    "muscle and fat cannot be told apart in the {} image (they look too much alike, or too little "
    "of them is in view): lean volume needs water and fat images"
)
_FROM_PHASES = (
    "lean volume is an estimate from in- and opposed-phase images: more than half fat reads as less"
)


@dataclass(frozen=True)
class RawStructure:
    """Raw values of one structure in one leg, in mm and mL.

    Attributes:
        in_view: sums over all of it.
        matched: sums over the part that both legs show; None where there is none.
        cut_mm2: where the matched part ends because the other leg is not shown further, the
            cross-section there, at the upper and at the lower end; 0 where it ends by itself.
        placed: its voxels along both limbs; None where the legs are not registered.
        course: all of it along the matched levels; None where the legs are not registered.
        ends_mm: height (z) of its lowest and its highest level.
        fractions: fat fraction of its voxels, NaN where undefined; None where there is none.
        extent: where it ends, and what cuts it.
        length_mm: along the limb's own axis.
        profile: cross-sections along that axis.
        confidence: what the engine says of it; None where it says nothing.
        lean_reason: why there is no fat fraction; None where there is one.
        lean_estimate: how the fat fraction was estimated; None where it was measured.
        swap: why water and fat look exchanged in the leg; None where they do not.
        void_share: share of it that lies beside a part of the leg without signal.
        fading_share: share of it near the surface of the leg where its signal fades.
        cut_deep_share: share of it on levels on which an edge of the images takes much of the leg.
        counting_se: standard error of ln(volume) because slices stand for the whole; what its
            labels lack on levels between its ends counts as an error of its own size.
    """

    in_view: TissueSums
    matched: TissueSums | None
    cut_mm2: tuple[float, float]
    placed: Placed | None
    course: MatchedCourse | None
    ends_mm: Mapping[End, float]
    fractions: NDArray[np.float32] | None
    extent: Extent
    length_mm: float
    profile: tuple[ProfilePoint, ...]
    confidence: Confidence | None
    lean_reason: str | None
    lean_estimate: str | None
    swap: str | None
    void_share: float
    fading_share: float
    cut_deep_share: float
    counting_se: float


@dataclass(frozen=True, eq=False)
class UnseenParts:
    """What of a leg its images do not show, or not well, as flags on its grid.

    Attributes:
        void: where it has no signal; None where that cannot be told.
        fading: its surface on sides towards which its signal fades; None where there is none.
        cut: its surface where it goes on outside the images, by the names of EDGES.
    """

    void: Flags | None
    fading: Flags | None
    cut: Mapping[str, Flags]


def measure_leg(
    legs: SegmentedLegs,
    side: Side,
    match: LegMatch,
    unseen: UnseenParts,
    config: MeasureConfig,
) -> dict[str, RawStructure]:
    """Raw values by structure name; structures without a voxel are missing.

    Args:
        legs, match: both legs and how they correspond.
        side: the leg to measure.
        unseen: what of it the images do not show well.
        config: thresholds.
    """
    segmented = legs[side]
    leg, labels = segmented.leg, segmented.labels.data
    voxel_mm = leg.grid.voxel_sizes_mm
    edges = _edges(leg, unseen, config)
    deep = _cut_deep(legs, side, edges, config)
    beside, dim = (
        None if mask is None else near(mask, voxel_mm, reach_mm=config.void_reach_mm)
        for mask in (unseen.void, unseen.fading)
    )
    fractions, lean_reason, lean_estimate = _fractions(segmented)
    swap = _doubted_swap(segmented, fractions)
    core = core_mask(labels, config.core_margin_voxels)
    boxes = ndimage.find_objects(labels)
    placement = Placement(side, legs, match) if match.succeeded else None
    out = {}
    for structure in STRUCTURES:
        box = boxes[structure.id - 1] if structure.id <= len(boxes) else None
        if box is None:
            continue
        mask = labels[box] == structure.id
        lower = (box[0].start, box[1].start, box[2].start)
        index = np.argwhere(mask) + lower
        voxels = tuple(index.T)
        points = leg.grid.index_to_world(index)
        values = None if fractions is None else fractions[voxels]

        sums = partial(
            tissue_sums,
            voxel_volume_ml=leg.grid.voxel_volume_ml,
            fractions=values,
            core=core[voxels],
            fat_free_below=config.fat_free_below_percent / 100.0,
            smallest_core_share=config.smallest_core_share,
        )
        placed = None if placement is None else placement.of(points)
        length, profile = _profile(segmented, points, values, config)
        extent = structure_extent(
            mask,
            lower_index=lower,
            box_shape=leg.grid.shape,
            seen=leg.seen,
            labelled=segmented.labelled,
            edges=edges,
            blunt_end_share=config.blunt_end_share,
            largest_edge_share=config.largest_edge_share,
            gap_area_share=config.gap_area_share,
        )
        out[structure.name] = RawStructure(
            in_view=sums(weights=None),
            matched=None
            if placed is None or not placed.shared.any()
            else sums(weights=placed.shared),
            cut_mm2=(0.0, 0.0) if placed is None else _cut_areas(placed, leg.grid),
            placed=placed,
            course=None if placed is None else _course(placed, leg.grid),
            ends_mm={
                "lower": float(points[index[:, 2] == box[2].start, 2].mean()),
                "upper": float(points[index[:, 2] == box[2].stop - 1, 2].mean()),
            },
            fractions=values,
            extent=extent,
            length_mm=length,
            profile=profile,
            confidence=segmented.confidence.get(structure.name),
            lean_reason=lean_reason,
            lean_estimate=lean_estimate,
            swap=swap,
            void_share=0.0 if beside is None else float(beside[voxels].mean()),
            fading_share=0.0 if dim is None else float(dim[voxels].mean()),
            cut_deep_share=float(deep[index[:, 2]].mean()),
            counting_se=hypot(
                se_of_counting(np.count_nonzero(mask, axis=(0, 1)).tolist()), extent.gap_share
            ),
        )
    return out


def _edges(leg: Leg, unseen: UnseenParts, config: MeasureConfig) -> dict[str, Flags]:
    """What of a leg lies near where it goes on outside the images, by the names of EDGES."""
    voxel_mm, reach_mm = leg.grid.voxel_sizes_mm, config.edge_reach_mm
    images = [image.data for image in (signals(leg.images) or leg.images).values()]
    edges = near_edges(leg.tissue, images, voxel_mm, reach_mm=reach_mm)
    for name, surface in unseen.cut.items():
        mask = near(surface, voxel_mm, reach_mm=reach_mm)
        edges[name] = mask | edges[name] if name in edges else mask
    return edges


def _cut_deep(
    legs: SegmentedLegs,
    side: Side,
    edges: Mapping[str, Flags],
    config: MeasureConfig,
) -> Flags:
    """Levels of a leg on which an edge of the images takes much of it, held against the other."""
    own, other = (legs[s].leg for s in (side, side.other))
    there = at_heights(own.grid, other.grid, _sections(other), outside=0.0)
    return cut_deep(edges, _sections(own), there, largest_lost_share=config.largest_cut_share)


def _sections(leg: Leg) -> NDArray[np.float64]:
    """Cross-section of a leg on each level, mm^2."""
    size_x, size_y, _ = leg.grid.voxel_sizes_mm
    return np.asarray(leg.tissue.sum(axis=(0, 1)) * (size_x * size_y))


def _cut_areas(placed: Placed, grid: Grid) -> tuple[float, float]:
    """Cross-sections in mm^2 where the matched part is cut, at the upper and at the lower end."""
    upper, lower = (
        float(grid.voxel_volume_mm3 * per_mm.sum()) for per_mm in (placed.at_upper, placed.at_lower)
    )
    return upper, lower


def _course(placed: Placed, grid: Grid) -> MatchedCourse:
    """All of a structure along the matched levels."""
    volumes = np.full(len(placed.own_mm), grid.voxel_volume_mm3)
    return MatchedCourse(
        placed.own_mm, placed.matched_mm, volumes, voxel_extent_mm=grid.voxel_sizes_mm[2]
    )


def _fractions(
    segmented: SegmentedLeg,
) -> tuple[NDArray[np.float32] | None, str | None, str | None]:
    """Fat fraction of a leg (NaN where undefined), or why there is none; and, where it is no
    measurement of water and fat, how it was estimated."""
    leg = segmented.leg
    if leg.dixon is not None:
        return fat_fraction(leg.dixon), None, None
    given = leg.images.get(Quantity.FAT_FRACTION)
    if given is not None:
        return given_fraction(given.data), None, None
    if not leg.images:
        return None, "a label map without an image has volumes only", None
    if {Quantity.IN_PHASE, Quantity.OPPOSED_PHASE} <= leg.images.keys():
        pair = [leg.images[q].data for q in (Quantity.IN_PHASE, Quantity.OPPOSED_PHASE)]
        return in_opposed_fraction(pair[0], pair[1]), None, _FROM_PHASES
    one = [quantity for quantity in _SPLITTABLE if quantity in leg.images]
    for quantity in one:
        fractions = split_tissue(segmented, quantity)
        if fractions is not None:
            return fractions, None, _FROM_ONE.format(quantity)
    if one:
        return None, _ALIKE.format(" or ".join(map(str, one))), None
    shown = ", ".join(str(q) for q in leg.images)
    return (
        None,
        f"lean volume needs water and fat (or fat fraction) images; given: {shown}",
        None,
    )


def _doubted_swap(segmented: SegmentedLeg, fractions: NDArray[np.float32] | None) -> str | None:
    """Why nothing may rest on a leg: water and fat look exchanged in it and were not put right."""
    leg, labels = segmented.leg, segmented.labels.data
    of_water = set(leg.images) == {Quantity.WATER}
    image = leg.images[Quantity.WATER].data if of_water else fractions
    # In a single image of another kind, or in- and opposed phase, there is nothing to exchange.
    measured = leg.dixon is not None or Quantity.FAT_FRACTION in leg.images or of_water
    if image is None or not measured:
        return None
    muscle = is_muscle(labels)
    stretches = doubted_swaps(image, muscle, labels == 0, leg.grid, of_water=of_water)
    if not stretches:
        return None
    where = ", ".join(f"from {low:.0f} to {high:.0f} mm (z)" for low, high in stretches)
    why = (
        "it is not clear enough to exchange them back"
        if leg.dixon is not None
        else "one image alone cannot be put right"
    )
    return f"water and fat look exchanged in this leg {where}, and {why}"


def _profile(
    segmented: SegmentedLeg,
    points: NDArray[np.float64],
    fractions: NDArray[np.float32] | None,
    config: MeasureConfig,
) -> tuple[float, tuple[ProfilePoint, ...]]:
    """Length in mm and cross-sections along the limb's own axis."""
    grid = segmented.leg.grid
    along = axis_mm(segmented.axis, points)
    extent = grid.voxel_sizes_mm[2]
    step = config.profile_step_mm
    volumes = np.full(along.size, grid.voxel_volume_mm3)
    levels, areas = area_profile(along, volumes, step_mm=step, voxel_extent_mm=extent)
    lean: Sequence[float | None] | NDArray[np.float64] = [None] * len(levels)
    if fractions is not None and np.isfinite(fractions).any():
        filled = np.where(np.isfinite(fractions), fractions, np.nanmean(fractions))
        _, lean = area_profile(
            along,
            volumes * (1.0 - filled.astype(np.float64)),
            step_mm=step,
            voxel_extent_mm=extent,
        )
    positions = position_at(segmented.axis, levels)
    profile = tuple(
        ProfilePoint(
            position=round(float(p), 6),
            area_mm2=float(a),
            lean_area_mm2=None if b is None else float(b),
        )
        for p, a, b in zip(positions, areas, lean, strict=True)
    )
    return float(along.max() - along.min() + extent), profile
