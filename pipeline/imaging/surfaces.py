"""The labelled structures of a leg as surfaces with normals, in mm, and what the leg shows.

Surfaces that exist only because the field of view or the labelling ends there are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.grid import Grid
from pipeline.core.scan import SegmentedLeg

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]

#: A surface of fewer faces says nothing of where a structure lies.
_FEWEST_FACES = 10


@dataclass(frozen=True, eq=False)
class Window:
    """The part of a leg's space that was imaged and labelled: its grid between two levels, but for
    levels among them that nobody scanned.

    Attributes:
        grid: grid of the leg.
        first, last: the levels, both included.
        seen: boolean per level of the grid: it was imaged.
    """

    grid: Grid
    first: int
    last: int
    seen: Flags

    def contains(self, points: Floats, margin: float = 0.5) -> Flags:
        """Whether points (..., 3) of the leg's space lie in the window.

        Args:
            points: RAS mm in the leg's space.
            margin: voxels beyond the centres of the outermost ones; 0.5 reaches their edges.
        """
        index = self.grid.world_to_index(points)
        low = np.array([0, 0, self.first]) - margin
        high = np.array([self.grid.shape[0] - 1, self.grid.shape[1] - 1, self.last]) + margin
        inside = np.all((index >= low) & (index <= high), axis=-1)
        level = np.clip(np.rint(index[..., 2]), self.first, self.last).astype(np.intp)
        return np.asarray(inside & self.seen[level])

    def parts(self) -> list[tuple[float, float]]:
        """Lower and upper edges, as fractional index of the third axis, of what lies between gaps
        that nobody scanned; one part where there is no gap."""
        runs = ndimage.find_objects(ndimage.label(self.seen[self.first : self.last + 1])[0])
        return [(self.first + run.start - 0.5, self.first + run.stop - 0.5) for (run,) in runs]


def window_of(leg: SegmentedLeg) -> Window | None:
    """The window of a leg; None where no level was both imaged and labelled."""
    levels = np.flatnonzero(leg.leg.seen & leg.labelled)
    if levels.size == 0:
        return None
    return Window(leg.leg.grid, int(levels[0]), int(levels[-1]), leg.leg.seen)


@dataclass(frozen=True, eq=False)
class Surface:
    """Small faces of the surface of one structure.

    Attributes:
        points: RAS mm (n, 3), centres of the faces.
        normals: outward unit vectors (n, 3).
        areas: mm^2 (n,).
        volume_mm3: labelled volume.
        centre: RAS mm (3,), centre of the labelled volume.
        cut: whether the field of view or the labelling cuts the structure.
    """

    points: Floats
    normals: Floats
    areas: Floats
    volume_mm3: float
    centre: Floats
    cut: bool

    def thinned(self, count: int) -> Surface:
        """The surface with at most so many faces, evenly spread."""
        return self.where(spread_evenly(len(self.points), count))

    def where(self, keep: Flags | Ints) -> Surface:
        """The surface with some of its faces only."""
        return Surface(
            self.points[keep],
            self.normals[keep],
            self.areas[keep],
            self.volume_mm3,
            self.centre,
            self.cut,
        )


def surfaces(leg: SegmentedLeg, *, spacing_mm: float, blunt_end_share: float) -> dict[str, Surface]:
    """Surfaces of the structures of a leg by name, without faces that are cuts.

    Between thick slices the outline is interpolated by shape (signed distances of the outlines
    in their slices; Raya & Udupa, IEEE Trans Med Imaging 1990;9:32). A structure that is not
    labelled in single levels between its ends is taken to go on there.

    Args:
        leg: a leg with labels.
        spacing_mm: length of the faces along the limb; half of it across.
        blunt_end_share: see register in the configuration.
    """
    window = window_of(leg)
    if window is None:
        return {}
    labels = leg.labels.data
    out = {}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        surface = _surface(labels, value, box, window, spacing_mm, blunt_end_share)
        if surface is not None:
            out[LEG_SCHEME.structures[value][0]] = surface
    return out


def mask_surface(
    mask: Flags, window: Window, *, spacing_mm: float, blunt_end_share: float
) -> Surface | None:
    """Surface of a mask on the grid of a window; see surfaces. None where it is too small."""
    data = mask.view(np.uint8)
    (box,) = ndimage.find_objects(data) or (None,)
    if box is None:
        return None
    return _surface(data, 1, box, window, spacing_mm, blunt_end_share)


def _surface(
    labels: NDArray[np.integer],
    value: int,
    box: tuple[slice, slice, slice],
    window: Window,
    spacing_mm: float,
    blunt_end_share: float,
) -> Surface | None:
    grid = window.grid
    sizes = np.array(grid.voxel_sizes_mm)
    wanted = np.array([spacing_mm / 2, spacing_mm / 2, spacing_mm])
    step = np.maximum(1, np.rint(wanted / sizes).astype(int))
    step[2] = max(1, int(spacing_mm / sizes[2]))
    # Lattices of all structures share their phase: lattice index 0 is voxel 0, in plane, and the
    # first level of the window.
    zero = np.array([0, 0, window.first])
    low = np.array([(s.start - z) // n for s, z, n in zip(box, zero, step, strict=True)])
    high = np.array([-((z + 1 - s.stop) // n) for s, z, n in zip(box, zero, step, strict=True)])
    ends = (np.array([*labels.shape[:2], window.last + 1]) - 1 - zero) // step
    low, high = np.maximum(low, 0), np.minimum(high, ends)
    if np.any(high < low):
        return None
    part = labels[
        tuple(
            slice(z + a * n, z + b * n + 1, n)
            for z, a, b, n in zip(zero, low, high, step, strict=True)
        )
    ]
    inside = part == value
    areas = inside.sum(axis=(0, 1))
    if np.count_nonzero(areas) < 2 or areas.max() < 4:
        return None
    # What touches the border of the field of view is taken to go on beyond it; the faces there
    # are dropped below.
    open_low, open_high = low == 0, high == ends
    mask = _padded(_padded(inside, open_low, open_high, axis=0), open_low, open_high, axis=1)
    start = low - np.array([2, 2, 0])
    field = _shape_field(mask, sizes[:2] * step[:2], (bool(open_low[2]), bool(open_high[2])))
    start[2] -= 1
    finer = max(1, int(np.ceil(step[2] * sizes[2] / spacing_mm - 0.01)))
    field = _finer_levels(field, finer)
    vertices, faces = _isosurface(field)
    lattice = vertices[faces] / np.array([1.0, 1.0, finer]) + start
    corners = grid.index_to_world(lattice * step + zero)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Descent of the field leads outwards; marching_cubes winds its faces accordingly for a
    # right-handed lattice.
    across *= np.sign(np.linalg.det(grid.affine[:3, :3]))
    length = np.linalg.norm(across, axis=1)
    centre = lattice.mean(axis=1)
    eps = 1e-6
    keep = (length > 0) & np.all((centre >= -eps) & (centre <= ends + eps), axis=1)
    normals = across / np.maximum(length, 1e-12)[:, None]
    up = grid.affine[:3, 2] / sizes[2]
    present = np.flatnonzero(areas) + low[2]
    largest = float(areas.max())
    cut = bool(open_low.any() or open_high.any())
    for level in (present[0], present[-1]):
        if areas[level - low[2]] > blunt_end_share * largest:
            cut = True
            keep &= (np.abs(centre[:, 2] - level) > 1.0) | (np.abs(normals @ up) < 0.7)
    if np.count_nonzero(keep) < _FEWEST_FACES:
        return None
    index = np.argwhere(inside).mean(axis=0)
    middle = grid.index_to_world((index + low) * step + zero)
    volume = float(np.count_nonzero(inside)) * float(np.prod(sizes * step))
    return Surface(
        points=corners[keep].mean(axis=1),
        normals=normals[keep],
        areas=length[keep] / 2.0,
        volume_mm3=volume,
        centre=middle,
        cut=cut,
    )


def _isosurface(field: NDArray[np.float32]) -> tuple[Floats, Ints]:
    vertices, faces, _, _ = marching_cubes(field, 0.0)  # type: ignore[no-untyped-call]
    return np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.intp)


def _padded(mask: Flags, open_low: Flags, open_high: Flags, *, axis: int) -> Flags:
    """Two more columns on both sides: empty, or the border's where the view ends."""
    for at_end, go_on in ((False, open_low[axis]), (True, open_high[axis])):
        width = [(0, 0)] * 3
        width[axis] = (0, 2) if at_end else (2, 0)
        mask = np.pad(mask, width, mode="edge") if go_on else np.pad(mask, width)
    return mask


def _shape_field(mask: Flags, sizes: Floats, goes_on: tuple[bool, bool]) -> NDArray[np.float32]:
    """Signed distance in mm to the outline within each level, positive inside.

    One level is added at each end: the same again where the structure goes on, else such that
    linear interpolation ends in a tip half a level beyond the last outline.
    """
    levels = np.flatnonzero(mask.any(axis=(0, 1)))
    some = mask[:, :, levels]
    sampling = (float(sizes[0]), float(sizes[1]), 1e6)
    field = np.asarray(
        ndimage.distance_transform_edt(some, sampling=sampling)
        - ndimage.distance_transform_edt(~some, sampling=sampling),
        dtype=np.float32,
    )
    count = mask.shape[2]
    first, last = int(levels[0]), int(levels[-1])
    open_ends = (goes_on[0] and first == 0, goes_on[1] and last == count - 1)
    ends = []
    for level, go_on in ((0, open_ends[0]), (-1, open_ends[1])):
        outline = field[:, :, level]
        ends.append(outline if go_on else outline - 2.0 * float(outline.max()))
    stack = np.empty((*mask.shape[:2], count + 2), dtype=np.float32)
    known = np.arange(first, last + 1)
    at = np.interp(known, levels, np.arange(levels.size))
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, levels.size - 1)
    share = (at - below).astype(np.float32)
    stack[:, :, first + 1 : last + 2] = _between(field, below, above, share)
    stack[:, :, : first + 1] = ends[0][:, :, None]
    stack[:, :, last + 2 :] = ends[1][:, :, None]
    return stack


def _finer_levels(field: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Linear interpolation between the levels of the third axis."""
    if times == 1:
        return field
    at = np.arange((field.shape[2] - 1) * times + 1) / times
    below = np.minimum(at.astype(int), field.shape[2] - 2)
    share = (at - below).astype(np.float32)
    return np.asarray(_between(field, below, below + 1, share), dtype=np.float32)


def _between(
    field: NDArray[np.float32], below: Ints, above: Ints, share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Levels of the third axis, each so far from one to another."""
    return (1 - share) * field[:, :, below] + share * field[:, :, above]


@dataclass(frozen=True)
class LegSurfaces:
    """What one leg shows for an alignment."""

    surfaces: Mapping[str, Surface]
    window: Window

    def only(self, names: Iterable[str]) -> LegSurfaces:
        """The same leg with some of its structures only."""
        kept = {name: self.surfaces[name] for name in names if name in self.surfaces}
        return LegSurfaces(kept, self.window)

    def beyond(self, point: Floats, direction: Floats) -> LegSurfaces:
        """The same leg without what lies before a plane; `direction` points to what is kept."""
        kept = {}
        for name, surface in self.surfaces.items():
            keep = (surface.points - point) @ direction > 0.0
            if np.count_nonzero(keep) >= _FEWEST_FACES:
                kept[name] = surface.where(keep)
        return LegSurfaces(kept, self.window)


def leg_surfaces(
    leg: SegmentedLeg, *, spacing_mm: float, blunt_end_share: float
) -> LegSurfaces | None:
    """Surfaces and window of a leg; None where no level was both imaged and labelled."""
    window = window_of(leg)
    if window is None:
        return None
    found = surfaces(leg, spacing_mm=spacing_mm, blunt_end_share=blunt_end_share)
    return LegSurfaces(found, window)


def common_structures(left: LegSurfaces, right: LegSurfaces) -> list[str]:
    """Structures both legs show, in the order of the vocabulary."""
    return [name for name in left.surfaces if name in right.surfaces]


def spread_evenly(count: int, wanted: int) -> Ints:
    """At most `wanted` of `count` indices, evenly spread."""
    kept = min(count, wanted)
    return np.asarray((np.arange(kept) * count) // kept, dtype=np.intp)
