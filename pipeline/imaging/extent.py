"""Is a muscle all there? Cut by the field of view, by the labelling, or broken in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.unseen import EDGES

Flags = NDArray[np.bool_]
End = Literal["lower", "upper"]

#: Labels interpolated between levels end so many of them, at most, before levels nobody scanned.
_GAP_REACH = 2


@dataclass(frozen=True)
class Extent:
    """Where one structure ends.

    Attributes:
        cut: why it is not whole, in words ("cut by the lower end of the field of view"), or None.
        cut_aside: it is cut along its length, so that no level of it is known to be whole and no
            part of it is compared.
        gap_share: share of its volume missing on levels between its ends that were imaged, by
            interpolation.
        blunt: ends that neither the field of view nor the labelling cuts and where its
            cross-section is large all the same, by that as a share of its largest one. Between
            thick slices an end may well be so.
    """

    cut: str | None
    cut_aside: bool
    gap_share: float
    blunt: Mapping[End, float]


def structure_extent(
    mask: Flags,
    *,
    lower_index: tuple[int, int, int],
    box_shape: tuple[int, int, int],
    seen: Flags,
    labelled: Flags,
    edges: Mapping[str, Flags],
    blunt_end_share: float,
    largest_edge_share: float,
    gap_area_share: float,
) -> Extent:
    """Judge one structure.

    Args:
        mask: voxels of the structure, cropped to their bounding box.
        lower_index: index of that crop in the leg's box.
        box_shape: shape of the leg's box; its faces are taken for the field of view's, since the
            box reaches beyond every label elsewhere.
        seen: per level of the third axis of the leg's box: the leg was imaged there; at least one.
        labelled: per level: the labels speak of it.
        edges: voxels of the leg's box near where the leg goes on beyond an edge of the images, as
            near_edges gives them.
        blunt_end_share, largest_edge_share, gap_area_share: see measure in the configuration.
    """
    areas = mask.sum(axis=(0, 1)).astype(np.float64)
    levels = np.flatnonzero(areas) + lower_index[2]
    bottom, top = int(levels[0]), int(levels[-1])
    seen_levels = np.flatnonzero(seen)
    labelled_levels = np.flatnonzero(labelled & seen)
    reasons: list[str] = []
    blunt: dict[End, float] = {}
    ends: tuple[tuple[int, int, End], ...] = ((bottom, 0, "lower"), (top, -1, "upper"))
    for level, last, end in ends:
        area_share = areas[level - lower_index[2]] / areas.max()
        if level <= seen_levels[0] if last == 0 else level >= seen_levels[-1]:
            reasons.append(f"cut by the {end} end of the field of view")
        elif area_share > blunt_end_share:
            if level == labelled_levels[last]:
                reasons.append(f"cut by the {end} end of the labelled levels")
            else:
                blunt[end] = float(area_share)
    if gap_beside(seen, bottom, top):
        reasons.append("cut by a gap in what was seen")
    box = tuple(slice(a, a + n) for a, n in zip(lower_index, mask.shape, strict=True))
    total = np.count_nonzero(mask)
    aside = []
    for (axis, high), name in EDGES.items():
        at_face = lower_index[axis] + (mask.shape[axis] if high else 0) == high * box_shape[axis]
        near = name in edges and np.count_nonzero(mask & edges[name][box]) / total
        if at_face or near > largest_edge_share:
            aside.append(f"cut by the {name} edge of the field of view")
    cut = " and ".join([*reasons, *aside]) or None
    return Extent(
        cut, bool(aside), _gap_share(areas, seen[bottom : top + 1], gap_area_share), blunt
    )


def gap_beside(seen: Flags, bottom: int, top: int) -> bool:
    """Whether levels that nobody scanned, with scanned ones on either side of them, lie among some
    levels or next to them.

    Args:
        seen: per level: it was scanned.
        bottom, top: the levels, both included.
    """
    within = np.flatnonzero(seen)
    if within.size == 0:
        return False
    low, high = max(bottom - _GAP_REACH, within[0]), min(top + _GAP_REACH, within[-1])
    return not seen[low : high + 1].all()


def _gap_share(areas: NDArray[np.float64], seen: Flags, gap_area_share: float) -> float:
    """Share of a structure missing on levels between its ends, its areas interpolated there; what
    nobody scanned is no fault of its labels."""
    around = np.minimum(np.maximum.accumulate(areas), np.maximum.accumulate(areas[::-1])[::-1])
    present = areas > gap_area_share * around
    missing = ~present & seen
    if not missing.any():
        return 0.0
    level = np.arange(areas.size)
    filled = np.interp(level, level[present], areas[present])
    return float(np.maximum(filled - areas, 0.0)[missing].sum() / filled.sum())
