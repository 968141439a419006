"""From what a network says of each slice to what can be anatomy in three dimensions.

Memberships are stacks of bytes (class, level, row, column): 255 is certain, classes add up to
about 255, class 0 is background. Every function treats both legs alike: it sees one leg in
right-leg pose and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import MUSCLES, STRUCTURE_IDS
from pipeline.core.soft import Membership
from pipeline.imaging.boxes import box_of, widened

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: All of a voxel.
FULL = 255

#: Of a muscle's largest piece; less is a speck, wherever it lies.
_SMALLEST_CONTINUATION = 0.02
#: A muscle moves by at most about this much in the plane per distance along the limb.
_ASLANT = 0.5
_ABOVE_KNEE = tuple(m.id for m in MUSCLES if m.region in ("hip", "thigh"))
_BELOW_KNEE = tuple(m.id for m in MUSCLES if m.region == "leg")
_HIP = tuple(m.id for m in MUSCLES if m.region == "hip")
_HIP_BONE = STRUCTURE_IDS["hip_bone"]
#: Of the muscles of the hip only this one begins above the crest of the hip bone, at the spine.
_FROM_SPINE = STRUCTURE_IDS["iliopsoas"]
#: A level shows the hip bone with so much of it; it is found where so much of the limb shows it.
_SMALLEST_BONE_MM2 = 100.0
_SHORTEST_BONE_MM = 30.0
#: Psoas is taken up so far below the crest: the innermost section of at least this share of the
#: largest (iliacus lies outside it, on the bone).
_BELOW_CREST_MM = 20.0
_SMALLEST_SECTION = 0.25
#: A muscle of the hip that goes on to the pelvis is seen up to at least so far from it.
_FROM_PELVIS_MM = 12.0


@dataclass(frozen=True)
class Rules:
    """What is plausible; the keys of segment.embedded in the configuration, explained there."""

    smoothing_mm: float
    above_knee_reach_mm: float
    below_knee_reach_mm: float
    hip_above_knee_mm: float
    above_crest_reach_mm: float
    bridge_mm: float
    smallest_piece_share: float
    largest_gap_mm: float
    continued_gap_mm: float
    largest_hole_mm2: float
    smallest_muscle_ml: float


def clean(
    memberships: Bytes,
    class_ids: Sequence[int],
    *,
    pixel_mm: float,
    level_mm: float,
    rules: Rules,
) -> dict[int, Bytes]:
    """Memberships that can be anatomy, each confined to its own place; `memberships` is used up.

    In turn: smoothed through the plane, order of levels, one piece a muscle, holes closed, traces
    dropped. What a class loses goes to the other classes of the voxel, else to background.

    Args:
        memberships: (class, level, row, column).
        class_ids: id of each class, 0 first.
        pixel_mm, level_mm: voxel sizes.
        rules: what is plausible.

    Returns:
        for each id left, its memberships (level, row, column), views of the given array.
    """
    for k in range(1, len(class_ids)):
        memberships[k] = smoothed(memberships[k], level_mm, rules.smoothing_mm)
    memberships[0] = FULL - np.minimum(memberships[1:].sum(axis=0, dtype=np.uint16), FULL)
    refused = out_of_order(
        memberships, class_ids, pixel_mm=pixel_mm, level_mm=level_mm, rules=rules
    )
    refuse_levels(memberships, refused)
    labels = decided(memberships)
    kept = np.zeros_like(labels)
    boxes = ndimage.find_objects(labels, max_label=len(class_ids) - 1)
    voxel_ml = pixel_mm**2 * level_mm / 1000.0
    reach = max(1, round(rules.bridge_mm / 2.0 / pixel_mm))
    # Between thick slices a slender muscle that runs aslant moves by more than that.
    grown = max(reach, round(_ASLANT * level_mm / 2.0 / pixel_mm))
    largest_gap, continued_gap = (
        max(1, round(gap / level_mm)) for gap in (rules.largest_gap_mm, rules.continued_gap_mm)
    )
    pelvis = _lowest_of_pelvis(labels, class_ids, pixel_mm)
    pelvis -= max(1, round(_FROM_PELVIS_MM / level_mm))
    crest = crest_level(memberships, class_ids, pixel_mm, level_mm)
    for k, value in enumerate(class_ids):
        box = boxes[k - 1] if k else None
        if box is None:
            continue
        # Muscles of the hip come down from the pelvis: what ends below it is none of them.
        lowest_top = max(0, pelvis - box[0].start) if value in _HIP else 0
        piece = largest_pieces(
            labels[box] == k,
            grown,
            rules.smallest_piece_share,
            largest_gap,
            continued_gap,
            lowest_top,
        )
        if value == _FROM_SPINE and crest is not None:
            below = max(1, round(_BELOW_CREST_MM / level_mm))
            piece = without_belly_wall(piece, crest - box[0].start, below)
        if np.count_nonzero(piece) * voxel_ml >= rules.smallest_muscle_ml:
            kept[box][piece] = k
    confine(memberships, kept, reach)
    labels = decided(memberships)
    largest_hole = int(rules.largest_hole_mm2 / pixel_mm**2)
    boxes = ndimage.find_objects(labels, max_label=len(class_ids) - 1)
    for k in range(1, len(class_ids)):
        if boxes[k - 1] is not None:
            fill_holes(memberships, labels, k, boxes[k - 1], largest_hole)
    return {
        value: memberships[k] for k, value in enumerate(class_ids) if k and memberships[k].any()
    }


def smoothed(membership: Bytes, level_mm: float, sigma_mm: float) -> Bytes:
    """One class smoothed through the plane by a Gaussian; thick slices are left as they are."""
    sigma = sigma_mm / level_mm
    reach = int(2.0 * sigma + 0.5)
    occupied: Flags = np.asarray(membership.any(axis=(1, 2)))
    if reach == 0 or not occupied.any():
        return membership
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    out = np.zeros_like(membership)
    count = len(membership)
    plane = box_of(membership)[1:]
    for level in np.flatnonzero(ndimage.binary_dilation(occupied, iterations=reach)):
        around = np.clip(np.arange(level - reach, level + reach + 1), 0, count - 1)
        used = occupied[around]
        parts = membership[around[used]][:, *plane]
        total = np.tensordot(weights[used].astype(np.float32), parts.astype(np.float32), 1)
        out[level][plane] = np.rint(total).astype(np.uint8)
    return out


def decided(memberships: Bytes) -> Bytes:
    """Index of the winning class of each voxel; background wins against the sum of the others.

    Returns:
        (level, row, column), 0 where background holds more than half.
    """
    out = np.zeros(memberships.shape[1:], dtype=np.uint8)
    present: Flags = np.asarray(memberships.any(axis=(2, 3)))
    for level in range(memberships.shape[1]):
        best = np.zeros(out.shape[1:], dtype=np.uint8)
        total = np.zeros(out.shape[1:], dtype=np.uint16)
        # Few classes are on a level; a tie goes to the lower id.
        for k in np.flatnonzero(present[1:, level]) + 1:
            here = memberships[k, level]
            out[level][here > best] = k
            np.maximum(best, here, out=best)
            total += here
        out[level][2 * total < FULL] = 0
    return out


def knee_level(memberships: Bytes, class_ids: Sequence[int]) -> int:
    """The level that best parts thigh (from it upwards) from leg; may be an end of the stack."""
    position = {value: k for k, value in enumerate(class_ids)}
    areas = memberships.sum(axis=(2, 3), dtype=np.int64)
    above = sum((areas[position[v]] for v in _ABOVE_KNEE if v in position), np.zeros(1, np.int64))
    below = sum((areas[position[v]] for v in _BELOW_KNEE if v in position), np.zeros(1, np.int64))
    gain = np.broadcast_to(below - above, areas.shape[1:])
    return int(np.concatenate([[0], np.cumsum(gain)]).argmax())


def crest_level(
    memberships: Bytes, class_ids: Sequence[int], pixel_mm: float, level_mm: float
) -> int | None:
    """The highest level that shows the hip bone; None where it is not found.

    Of several stretches of levels the one with the most bone counts: specks above it are none.
    """
    if _HIP_BONE not in class_ids:
        return None
    bone = memberships[class_ids.index(_HIP_BONE)]
    areas = np.count_nonzero(bone > FULL // 2, axis=(1, 2)) * pixel_mm**2
    stretches, count = ndimage.label(areas >= _SMALLEST_BONE_MM2)
    if count == 0:
        return None
    most = 1 + int(ndimage.sum(areas, stretches, np.arange(1, count + 1)).argmax())
    shown = np.flatnonzero(stretches == most)
    return int(shown[-1]) if len(shown) * level_mm >= _SHORTEST_BONE_MM else None


def out_of_order(
    memberships: Bytes,
    class_ids: Sequence[int],
    *,
    pixel_mm: float,
    level_mm: float,
    rules: Rules,
) -> dict[int, Flags]:
    """By index of class, the levels where a muscle of that region of the limb cannot be."""
    knee = knee_level(memberships, class_ids)
    crest = crest_level(memberships, class_ids, pixel_mm, level_mm)
    count = memberships.shape[1]
    lowest_thigh = max(0, knee - round(rules.above_knee_reach_mm / level_mm))
    highest_leg = min(count, knee + round(rules.below_knee_reach_mm / level_mm))
    lowest_hip = min(count, knee + round(rules.hip_above_knee_mm / level_mm))
    highest_hip = count
    if crest is not None:
        highest_hip = min(count, crest + 1 + round(rules.above_crest_reach_mm / level_mm))
    levels = np.arange(count)
    out = {}
    for k, value in enumerate(class_ids):
        if value in _BELOW_KNEE:
            out[k] = levels >= highest_leg
        elif value in _HIP:
            lowest = lowest_hip if knee > 0 else lowest_thigh
            highest = count if value == _FROM_SPINE else highest_hip
            out[k] = (levels < lowest) | (levels >= highest)
        elif value in _ABOVE_KNEE:
            out[k] = levels < lowest_thigh
    return out


def refuse_levels(memberships: Bytes, refused: Mapping[int, Flags]) -> None:
    """Take classes off the levels they cannot be on, in place; the rest of the voxel grows."""
    changed = np.zeros(memberships.shape[1], dtype=np.bool_)
    for k, levels in refused.items():
        changed |= levels & memberships[k].any(axis=(1, 2))
        memberships[k, levels] = 0
    for level in np.flatnonzero(changed):
        _renormalise(memberships[:, level])


def _renormalise(level: Bytes) -> None:
    """Make the classes (class, row, column) add up to FULL again, in place."""
    total = level.sum(axis=0, dtype=np.uint16)
    # Rounding alone leaves them a few units short.
    short = total < FULL - len(level) // 2
    if not short.any():
        return
    part = level[:, short].astype(np.float32)
    sums = part.sum(axis=0)
    empty = sums < 1.0
    part *= FULL / np.maximum(sums, 1.0)
    part[0, empty] = FULL
    level[:, short] = np.rint(part).astype(np.uint8)


def _lowest_of_pelvis(labels: Bytes, class_ids: Sequence[int], pixel_mm: float) -> int:
    """The lowest level with the hip bone, or the highest with anything: it lies further up."""
    shown = np.flatnonzero((labels != 0).any(axis=(1, 2)))
    if _HIP_BONE in class_ids:
        bone = labels == class_ids.index(_HIP_BONE)
        areas = np.count_nonzero(bone, axis=(1, 2)) * pixel_mm**2
        pelvis = np.flatnonzero(areas >= _SMALLEST_BONE_MM2)
        if len(pelvis):
            return int(pelvis[0])
    return int(shown[-1]) if len(shown) else 0


def largest_pieces(
    mask: Flags,
    grown: int,
    smallest_share: float,
    largest_gap: int,
    continued_gap: int,
    lowest_top: int = 0,
) -> Flags:
    """The largest connected piece of a structure and what continues it on other levels.

    Pieces are joined across `grown` pixels in the plane from both sides and across one empty
    level, so that a slender muscle that runs aslant through thick slices stays one. A further
    piece is kept only if it lies on levels that no kept piece reaches, and is large and begins
    near one (what lies far along the limb is another structure that looks alike), or goes on
    after a few misread levels where a kept one ends.

    Args:
        mask: (level, row, column).
        grown: pixels each piece is grown by, in the plane, before they are joined.
        smallest_share: see Rules.smallest_piece_share.
        largest_gap: empty levels between a large piece and the kept ones.
        continued_gap: empty levels between the end of a kept piece and what goes on there.
        lowest_top: the largest piece is one that reaches up to this level; without one, none is.
    """
    pad = grown + 1
    near = np.pad(mask, ((1, 1), (pad, pad), (pad, pad)))
    disc = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), grown)
    near = ndimage.binary_dilation(near, disc[None])
    # One empty level between two levels that hold the structure in the same place.
    near[1:-1] |= near[:-2] & near[2:]
    pieces, count = ndimage.label(near)
    pieces = pieces[1:-1, pad:-pad, pad:-pad]
    pieces = np.where(mask, pieces, 0)
    high = np.unique(pieces[lowest_top:])
    high = high[high > 0]
    if not len(high):
        return np.zeros_like(mask)
    if count == 1:
        return mask
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    main = int(next(piece for piece in order if piece in high))
    kept = pieces == main
    reached = kept.any(axis=(1, 2))
    waiting = {
        int(piece): (pieces == piece).any(axis=(1, 2))
        for piece in order
        if piece != main and sizes[piece] >= _SMALLEST_CONTINUATION * sizes[main]
    }

    def belongs(piece: int, levels: Flags) -> bool:
        if sizes[piece] >= smallest_share * sizes[main]:
            return bool((levels & _reaching(reached, largest_gap)).any())
        return _continues(pieces == piece, kept, continued_gap, grown)

    while waiting:
        # The largest of those that begin near what is kept; it may lead on to others.
        piece = next((p for p, levels in waiting.items() if belongs(p, levels)), None)
        if piece is None:
            break
        levels = waiting.pop(piece)
        if not (levels & reached).any():
            kept |= pieces == piece
            reached |= levels
    return np.asarray(kept)


def _reaching(levels: Flags, gap: int) -> Flags:
    return np.asarray(ndimage.binary_dilation(levels, iterations=gap + 1))


def _continues(piece: Flags, kept: Flags, gap: int, grown: int) -> bool:
    """Whether a piece goes on where a kept one ends, across at most `gap` empty levels."""
    own, held = (np.flatnonzero(mask.any(axis=(1, 2))) for mask in (piece, kept))
    for end, ends in ((own[0], held[held < own[0]][-1:]), (own[-1], held[held > own[-1]][:1])):
        for other in ends:
            empty = abs(int(end - other)) - 1
            if empty > gap:
                continue
            away = ndimage.distance_transform_edt(~kept[other])
            if away[piece[end]].min() <= grown * (empty + 1):
                return True
    return False


def without_belly_wall(mask: Flags, crest: int, below: int) -> Flags:
    """Iliopsoas without what is the wall of the belly above the crest of the hip bone.

    Above the crest it is psoas alone: what goes on, level by level, from its innermost section a
    little below the crest.

    Args:
        mask: (level, row, column), columns outwards.
        crest: highest level of the hip bone; may lie outside the mask.
        below: levels between the crest and where psoas is taken up.
    """
    out = mask.copy()
    psoas = np.zeros(mask.shape[1:], dtype=np.bool_)
    for level in range(max(0, crest - below), len(mask)):
        pieces, count = ndimage.label(mask[level])
        if count and not psoas.any() and level <= crest:
            areas = np.bincount(pieces.ravel())[1:]
            large = 1 + np.flatnonzero(areas >= _SMALLEST_SECTION * areas.max())
            inner = [np.flatnonzero((pieces == k).any(axis=0))[0] for k in large]
            psoas = pieces == large[int(np.argmin(inner))]
            continue
        goes_on = np.isin(pieces, np.setdiff1d(pieces[psoas], 0))
        if level > crest:
            out[level] = goes_on
        if goes_on.any():
            psoas = goes_on
    return out


def confine(memberships: Bytes, kept: Bytes, reach: int) -> None:
    """Let each class count only near the voxels it keeps, in place.

    Args:
        memberships: (class, level, row, column).
        kept: index of class (level, row, column); 0 elsewhere.
        reach: pixels around kept voxels where the class still counts.
    """
    disc = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), reach)
    changed = np.zeros(kept.shape[0], dtype=np.bool_)
    boxes = ndimage.find_objects(kept, max_label=len(memberships) - 1)
    for k in range(1, len(memberships)):
        box = boxes[k - 1]
        before = memberships[k]
        if box is None:
            changed |= before.any(axis=(1, 2))
            memberships[k] = 0
            continue
        wide = widened(box, (1, reach, reach), kept.shape)
        near = ndimage.binary_dilation(kept[wide] == k, disc[None])
        near[1:] |= near[:-1]
        near[:-1] |= near[1:]
        after = np.zeros_like(before)
        after[wide] = np.where(near, before[wide], 0)
        changed |= (after != before).any(axis=(1, 2))
        memberships[k] = after
    for level in np.flatnonzero(changed):
        _renormalise(memberships[:, level])


def fill_holes(
    memberships: Bytes, labels: Bytes, k: int, box: tuple[slice, ...], largest: int
) -> None:
    """Give background that one class encloses in a slice to that class, in place.

    Args:
        memberships: (class, level, row, column).
        labels: winning class of each voxel; filled voxels are changed too.
        k: the class.
        box: the levels, rows and columns it lies in.
        largest: pixels of the largest hole that is filled; a larger one is no flaw.
    """
    here = labels[box]
    in_plane = np.zeros((3, 3, 3), dtype=np.bool_)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    # Everything that is not the class: what is not connected to the rim of its slice is inside.
    around = np.pad(here != k, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    pieces, count = ndimage.label(around, in_plane)
    if count == 0:
        return
    outside = np.unique(pieces[:, 0, 0])
    pieces = pieces[:, 1:-1, 1:-1]
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    others = np.bincount(pieces[here != 0], minlength=count + 1)
    fill = (sizes <= largest) & (others == 0)
    fill[0] = False
    fill[outside] = False
    holes = fill[pieces]
    here[holes] = k
    level, row, column = np.nonzero(holes)
    where = (level + box[0].start, row + box[1].start, column + box[2].start)
    memberships[(slice(None), *where)] = 0
    memberships[(k, *where)] = FULL


def boxed(membership: Bytes) -> Membership:
    """One class as a membership of a leg, axes (column, row, level), in its bounding box.

    A rim of one voxel stays around it, and the first and last level are repeated once: linear
    interpolation then reaches every slice from inside the box.

    Args:
        membership: (level, row, column), not all zero.
    """
    box = widened(box_of(membership), (1, 1, 1), membership.shape)
    values = membership[box].astype(np.float32) / np.float32(FULL)
    count = membership.shape[0]
    ends = (int(box[0].start == 0), int(box[0].stop == count))
    values = np.pad(values, (ends, (0, 0), (0, 0)), mode="edge")
    lower = (box[2].start, box[1].start, box[0].start + 1 - ends[0])
    return Membership(np.ascontiguousarray(values.transpose(2, 1, 0)), lower)
