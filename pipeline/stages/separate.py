"""Separate: two legs out of one scan, the left one mirrored into the pose of a right leg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config import SeparateConfig
from pipeline.core.anatomy import LEG_SCHEME, Side
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import CanonicalScan, Index3, Leg, LegPair, StageResult
from pipeline.core.transform import identity, mirror
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.imaging.body import (
    around_body,
    body_threshold,
    hulls,
    without_arms,
    without_specks,
)
from pipeline.imaging.boxes import box_of, widened
from pipeline.imaging.crossing import levels_of_crossing
from pipeline.imaging.cut_ends import whole_levels
from pipeline.imaging.dim_levels import dim_levels
from pipeline.imaging.labels import leg_labels
from pipeline.imaging.noise import air_limits, noise_level
from pipeline.imaging.pose import difference_of_legs
from pipeline.imaging.separation import (
    Lattice,
    between_shares,
    coarse,
    lattice_for,
    mask_at_full_size,
    midline,
    seam,
)
from pipeline.imaging.single_leg import left_whole, narrow_levels
from pipeline.imaging.threads import one_thread

Flags = NDArray[np.bool_]

_SPACES = {Side.RIGHT: "right-leg", Side.LEFT: "left-leg-mirrored"}
#: Both legs of a newborn side by side are wider than the one, no magnet shows more than the other.
#: What lies beyond was not written in mm.
_NARROWEST_SCAN_MM, _WIDEST_SCAN_MM = 60.0, 1500.0
#: Codes of findings on levels of one leg that give too little signal, on a leg that ends while the
#: other goes on, and on legs that cannot be told apart: each is a caveat on every difference.
LEVELS_DIM, LEG_ENDS_EARLY, LEGS_CROSS = "levels_dim", "leg_ends_early", "legs_cross"
_DOUBTS = {
    LEGS_CROSS: "The legs lie across each other: which is which cannot be told over {mm:.0f} mm, "
    "from there down to the feet. Those levels count as not seen, and just above them the border "
    "between the legs may be wrong. Scan with the legs side by side.",
    LEVELS_DIM: "Over {mm:.0f} mm the {leg} leg gives far less signal than above and below, and "
    "the other leg does not: it moved, or slices were lost. Those levels count as not seen, and "
    "what is next to them may be wrong.",
    LEG_ENDS_EARLY: "The {leg} leg ends {mm:.0f} mm above the other one, within the images: an "
    "amputation, or images blanked there. The legs are no pair below that, and muscles that end "
    "there are no whole ones.",
}
#: Levels with less body than this show no leg, mm^2.
_SMALLEST_SECTION_MM2 = 100.0
#: Fat can be so much brighter than muscle there that muscle is taken for air.
_MUSCLE_MAY_BE_DARK = (Quantity.T1W, Quantity.FAT, Quantity.OTHER)
#: Legs have a valley between them somewhere: body at the midline below this share of its depth.
_VALLEY_SHARE = 0.7


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
    _check_width(scan.grid)
    findings: list[Finding] = []
    given = None
    if scan.labels is not None:
        given = {side: leg_labels(scan.labels.data, side) for side in Side}
        _check_both_sides(given)
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
    alike = _check_two_different(legs, config) if scan.images else []
    findings += alike
    doubt = next((f.message for f in alike if f.severity is Severity.ERROR), None)
    if given is not None and scan.images:
        findings += _label_findings(scan, given, tissue, config)
    doubts = [finding for finding in findings if finding.code in _DOUBTS]
    findings = [finding for finding in findings if finding.code not in _DOUBTS]
    doubts += _off_isocentre(middle, config) if scan.from_isocentre else []
    if scan.images:
        doubts += _unlike_bright(legs, config)
    findings += doubts
    caveats = (*scan.caveats, *(finding.code for finding in doubts))
    return StageResult(LegPair(legs[Side.RIGHT], legs[Side.LEFT], doubt, caveats), tuple(findings))


def _check_width(grid: Grid) -> None:
    """Refuse metres, centimetres or microns in the place of mm: volumes would be absurd."""
    sizes = [count * size for count, size in zip(grid.shape, grid.voxel_sizes_mm, strict=True)]
    if _NARROWEST_SCAN_MM <= sizes[0] <= _WIDEST_SCAN_MM:
        return
    raise InputError(
        "The scan is of a size that no pair of legs has",
        expected=f"{_NARROWEST_SCAN_MM:g} to {_WIDEST_SCAN_MM:g} mm from right to left",
        found=" x ".join(f"{size:.4g}" for size in sizes) + " mm (right-left, front-back, up-down)",
        action="check the voxel size in the files: it has to be in mm, not in m, cm or microns",
    )


def _off_isocentre(middle_mm: float, config: SeparateConfig) -> list[Finding]:
    """Doubt on a body that lay to one side in the magnet; its middle as world x."""
    limit = config.largest_midline_offset_mm
    if abs(middle_mm) <= limit:
        return []
    side = Side.RIGHT if middle_mm > 0 else Side.LEFT
    return [
        Finding(
            code="off_isocentre",
            severity=Severity.WARNING,
            stage="separate",
            message=f"The body lay {abs(middle_mm):.0f} mm to its {side} in the magnet, so the "
            f"{side} leg was seen further from the centre, where distances and signals are less "
            "true: this alone can make the legs differ. Centre the body between the legs.",
            side=side,
            value=middle_mm,
            threshold=limit if middle_mm > 0 else -limit,
            unit="mm",
        )
    ]


def _unlike_bright(legs: Mapping[Side, Leg], config: SeparateConfig) -> list[Finding]:
    """Doubt on legs of which one is far brighter than the other."""
    bright = {}
    for side, leg in legs.items():
        signal = [v.data for q, v in leg.images.items() if q is not Quantity.FAT_FRACTION]
        if not signal:
            return []
        bright[side] = float(np.median(sum(np.abs(image[leg.tissue]) for image in signal)))
    dark = min(bright, key=bright.__getitem__)
    ratio = bright[dark.other] / max(bright[dark], 1e-12)
    if ratio <= config.largest_brightness_ratio:
        return []
    return [
        Finding(
            code="legs_unlike_bright",
            severity=Severity.WARNING,
            stage="separate",
            message=f"The {dark.other} leg is {ratio:.1f} times as bright as the {dark} one (a "
            "coil far from that one, or a correction of brightness): muscle there may be taken for "
            "air. This alone can make the legs differ.",
            side=dark,
            value=ratio,
            threshold=config.largest_brightness_ratio,
            unit="times",
        )
    ]


def _check_both_sides(given: Mapping[Side, NDArray[np.uint8]]) -> None:
    for side in Side:
        if not given[side].any():
            other = "has labels" if given[side.other].any() else "has none either"
            raise SubjectUnusableError(
                f"The label map has no label of the {side} leg",
                expected="labels of both legs",
                found=f"none on the {side}; the {side.other} leg {other}",
                action="check the label map and its scheme (--label-scheme)",
            )


def _from_images(
    scan: CanonicalScan, config: SeparateConfig
) -> tuple[dict[Side, Flags], dict[Side, Flags], list[Finding]]:
    """Own-side body mask and seen levels of both legs, and what is said of how they were found."""
    findings: list[Finding] = []
    lattice = lattice_for(scan.grid.shape, scan.grid.voxel_sizes_mm, config.search_voxel_mm)
    body, muscle, inside = _body(scan, lattice)
    lattice_mm = _lattice_mm(scan, lattice)
    middle, narrow = _midline(body, lattice_mm)
    _check_two_legs(body, middle, narrow)
    surface = left_whole(seam(body, muscle, middle, lattice_mm[0]), body, narrow)
    border = _at_full_size(surface, lattice, scan.grid.shape)
    columns = np.arange(scan.grid.shape[0], dtype=np.float64)[:, None, None]
    halves = {Side.RIGHT: columns > border, Side.LEFT: columns < border}
    tissue, seen, shown_at, volumes = {}, {}, {}, {}
    lit = np.zeros(scan.grid.shape, dtype=np.bool_)
    for image in scan.images.values():
        lit |= image.data != 0
    area = scan.grid.voxel_volume_mm3 / scan.grid.voxel_sizes_mm[2]
    for side, half in halves.items():
        mask = inside & half
        thin_mask = coarse(mask.astype(np.float32), lattice) > 0.5
        arms = thin_mask & ~without_arms(thin_mask)
        if arms.any():
            mask = mask & ~mask_at_full_size(arms, lattice, scan.grid.shape)
        tissue[side] = mask
        levels = np.flatnonzero(mask.sum(axis=(0, 1)) * area >= _SMALLEST_SECTION_MM2)
        shown = np.zeros(scan.grid.shape[2], dtype=np.bool_)
        seen[side] = shown
        if levels.size:
            # A missing station was filled with zeros; where anything was scanned there is noise.
            between = slice(levels[0], levels[-1] + 1)
            shown[between] = np.any(lit[:, :, between] & half[:, :, between], axis=(0, 1))
            seen[side] = whole_levels(mask, lit, shown, scan.grid.voxel_sizes_mm)
        shown_at[side] = shown
        volumes[side] = float(mask.sum()) * scan.grid.voxel_volume_ml
    _check_sizes(volumes, config)
    for side in Side:
        stump = _beyond_stump(shown_at[side], shown_at[side.other], scan.grid, config)
        if stump.any():
            # Where there is noise, the levels were seen to be empty: muscles end there, and no end
            # of the scan cuts them. Zeros may be levels that were not imaged on this side.
            empty = stump & np.any(lit & halves[side], axis=(0, 1))
            if empty.any():
                seen[side] = shown_at[side] | empty
            findings += _levels_doubted(LEG_ENDS_EARLY, scan.grid, side, stump)
        else:
            findings += _cut_ends(scan.grid, side, shown_at[side], seen[side])
    crossed = levels_of_crossing(body, surface, lattice_mm)
    crossed = crossed[
        np.minimum(np.arange(scan.grid.shape[2]) // lattice.step[2], crossed.size - 1)
    ]
    for side in Side:
        seen[side] &= ~crossed
    findings += _levels_doubted(LEGS_CROSS, scan.grid, None, crossed)
    dim = _dim_levels(scan, tissue, seen, config)
    for side, flags in dim.items():
        seen[side] &= ~flags
        findings += _levels_doubted(LEVELS_DIM, scan.grid, side, flags)
    joined = _both_sides(body, middle) & (between_shares(body, middle) > 0)
    touching = float(joined.mean()) * scan.grid.shape[2] * scan.grid.voxel_sizes_mm[2]
    if touching > 0:
        findings.append(
            Finding(
                code="legs_touch",
                severity=Severity.INFO,
                stage="separate",
                message=f"The body is in one piece between the legs over {touching:.0f} mm "
                "(pelvis and touching thighs); the border there was found from the images.",
                value=touching,
                unit="mm",
            )
        )
    return tissue, seen, findings


def _dim_levels(
    scan: CanonicalScan,
    tissue: Mapping[Side, Flags],
    seen: Mapping[Side, Flags],
    config: SeparateConfig,
) -> dict[Side, Flags]:
    """Seen levels on which one leg alone gives far less signal than above and below."""
    signal = sum(image.data for image in scan.images.values())
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


def _levels_doubted(code: str, grid: Grid, side: Side | None, levels: Flags) -> list[Finding]:
    """What is said of levels of one leg, or of both, that let the legs differ: of _DOUBTS."""
    if not levels.any():
        return []
    length_mm = np.count_nonzero(levels) * grid.voxel_sizes_mm[2]
    return [
        Finding(
            code=code,
            severity=Severity.WARNING,
            stage="separate",
            message=_DOUBTS[code].format(mm=length_mm, leg=side),
            side=side,
            value=length_mm,
            unit="mm",
        )
    ]


def _cut_ends(grid: Grid, side: Side, shown: Flags, whole: Flags) -> list[Finding]:
    """What is said of levels on which a leg is cut by an end of the scan that is not straight."""
    cut = np.flatnonzero(shown & ~whole)
    if cut.size == 0:
        return []
    middle = np.median(np.flatnonzero(whole))
    ends = [end for end, there in (("lower", cut < middle), ("upper", cut > middle)) if there.any()]
    cut_mm = cut.size * grid.voxel_sizes_mm[2]
    return [
        Finding(
            code="ends_not_straight",
            severity=Severity.INFO,
            stage="separate",
            message=f"At the {' and '.join(ends)} end of the scan, {cut_mm:.0f} mm of the {side} "
            "leg are shown in part only: the end is bent or slanted, as the correction of "
            "distortion or resampling leaves it. Those levels count as not seen.",
            side=side,
            value=cut_mm,
            unit="mm",
        )
    ]


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


def _from_labels(
    given: Mapping[Side, NDArray[np.uint8]],
) -> tuple[dict[Side, Flags], dict[Side, Flags]]:
    """Without an image the labels are all there is; every level counts as seen."""
    tissue = {side: given[side] != 0 for side in Side}
    levels = next(iter(given.values())).shape[2]
    return tissue, {side: np.ones(levels, dtype=np.bool_) for side in Side}


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


def _both_sides(body: Flags, middle: NDArray[np.float64]) -> Flags:
    """Levels of a lattice mask with body on both sides of the midline."""
    columns = np.arange(body.shape[0])[:, None]
    there = body.any(axis=1)
    return np.asarray((there & (columns < middle)).any(0) & (there & (columns > middle)).any(0))


def _check_two_legs(body: Flags, middle: NDArray[np.float64], narrow: Flags) -> None:
    if not body.any():
        raise SubjectUnusableError(
            "No body was found in the images",
            expected="both legs in view",
            found="no connected region of signal",
            action="check the images",
        )
    there = body.any(axis=(0, 1))
    shares = between_shares(body, middle)[there & ~narrow if (there & ~narrow).any() else there]
    if float(np.percentile(shares, 5)) > _VALLEY_SHARE:
        raise SubjectUnusableError(
            "The scan does not show two legs side by side",
            expected="two legs with a gap or a valley between them at some level",
            found="one piece of body without a valley (one leg, a trunk, or one leg in front of "
            "the other, as of a person who lay on the side)",
            action="give a scan that shows both legs, with an affine in which right and left are "
            "those of the person; a side difference needs both",
        )


def _check_sizes(volumes: Mapping[Side, float], config: SeparateConfig) -> None:
    small = min(volumes, key=lambda side: volumes[side])
    large = max(volumes.values())
    if large == 0 or volumes[small] < config.smallest_leg_share * large:
        raise SubjectUnusableError(
            f"Only one leg is in view: the {small} one is missing",
            expected="both legs",
            found=f"{volumes[Side.RIGHT]:.0f} mL of body on the right, "
            f"{volumes[Side.LEFT]:.0f} mL on the left",
            action="give a scan that shows both legs",
        )


def _check_two_different(legs: Mapping[Side, Leg], config: SeparateConfig) -> list[Finding]:
    quantity = next(iter(legs[Side.RIGHT].images))
    right, left = (legs[side] for side in (Side.RIGHT, Side.LEFT))
    apart = difference_of_legs(
        right.images[quantity].data, left.images[quantity].data, right.tissue, left.tissue
    )
    if apart is None or apart >= config.usual_leg_difference:
        return []
    same = apart < config.smallest_leg_difference
    return [
        Finding(
            code="one_leg_twice" if same else "legs_alike",
            severity=Severity.ERROR if same else Severity.WARNING,
            stage="separate",
            message="One leg is shown twice: both sides hold the same image. Look for the step "
            "that put the legs together, and give the scan as it came from the scanner."
            if same
            else "The legs look more alike than two legs of a person do. Check that it is not "
            "one leg shown twice.",
            value=apart,
            threshold=config.smallest_leg_difference if same else config.usual_leg_difference,
            unit="difference of neighbouring voxels",
        )
    ]


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


def _label_findings(
    scan: CanonicalScan,
    given: Mapping[Side, NDArray[np.uint8]],
    tissue: Mapping[Side, Flags],
    config: SeparateConfig,
) -> list[Finding]:
    """Labels that lie on the other leg's side of the surface."""
    findings = []
    limit = config.largest_share_on_other_side
    for side in Side:
        wrong = int(np.count_nonzero(tissue[side.other] & (given[side] != 0)))
        share = wrong / max(1, int(np.count_nonzero(given[side])))
        if share > limit:
            volume = wrong * scan.grid.voxel_volume_ml
            findings.append(
                Finding(
                    code="labels_on_other_side",
                    severity=Severity.WARNING,
                    stage="separate",
                    side=side,
                    message=f"{volume:.0f} mL ({100 * share:.1f} %) of the labels given as "
                    f"{side} lie on the {side.other} side of the body; the given sides were kept.",
                    value=100.0 * share,
                    threshold=100.0 * limit,
                    unit="percent",
                )
            )
    return findings
