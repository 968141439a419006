"""Alignment of two legs by the surfaces of their labelled structures.

Each structure becomes a surface with normals, in mm. Surfaces of the same name are laid onto each
other by iterated closest points with point-to-plane distances (Chen & Medioni, Image Vis Comput
1992;10:145), measured in both directions: from the left leg to the right one in the right leg's
space and back in the left leg's. Exchanging the legs therefore inverts the transform. Distances
are down-weighted as in Geman & McClure (Bull ISI 1987;52:5), so that what only one leg shows
pulls little.

Surfaces that exist only because the field of view or the labelling ends there are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.grid import Grid
from pipeline.core.scan import SegmentedLeg
from pipeline.core.transform import SpatialTransform

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Flags = NDArray[np.bool_]
Matrix = NDArray[np.float64]

#: Length, mm, over which strains and turns of a leg act: makes parameters comparable.
_LEG_RADIUS_MM = 100.0
#: Stretches of one leg against the other stay between 1 / this and this.
_LARGEST_STRETCH = 1.25
#: Strain of a leg against the other that needs no proof; larger ones must be earned.
_USUAL_STRAIN = 0.06
#: Labelling that ends with more than this share of a structure's largest area ends bluntly: the
#: end is not anatomy. Natural ends taper.
_BLUNT_SHARE = 0.25
#: Faces of one structure that are searched for partners, and that look for one: in coarse fits,
#: and in fine ones.
_COARSE = (400, 100)
_FINE = (3000, 400)
#: Neighbouring samples err together; about this many of them count as one in the prior.
_SAMPLES_PER_OBSERVATION = 10.0
#: Structures lie this far apart in the fourth coordinate of the search tree: never neighbours.
APART_MM = 1e5
#: Surfaces of the same structure face the same way; below this cosine they do not correspond.
LEAST_COSINE = 0.3
#: Starts that are followed, after a look at all of them.
_FOLLOWED = 4
#: Cost of a sample that the other leg cannot show, between 0 (on the surface) and 1 (far off).
_UNSEEN_COST = 0.35


@dataclass(frozen=True, eq=False)
class Window:
    """The part of a leg's space that was imaged and labelled: its grid between two levels."""

    grid: Grid
    first: int
    last: int

    def contains(self, points: Floats, margin: float = 0.5) -> Flags:
        """Whether points (..., 3) of the leg's space lie in the window.

        Args:
            points: RAS mm in the leg's space.
            margin: voxels beyond the centres of the outermost ones; 0.5 reaches their edges.
        """
        index = self.grid.world_to_index(points)
        low = np.array([0, 0, self.first]) - margin
        high = np.array([self.grid.shape[0] - 1, self.grid.shape[1] - 1, self.last]) + margin
        return np.asarray(np.all((index >= low) & (index <= high), axis=-1))

    def edge_levels(self) -> tuple[float, float]:
        """Lower and upper edge as fractional index of the third axis."""
        return self.first - 0.5, self.last + 0.5


def window_of(leg: SegmentedLeg) -> Window | None:
    """The window of a leg; None where no level was both imaged and labelled."""
    levels = np.flatnonzero(leg.leg.seen & leg.labelled)
    if levels.size == 0:
        return None
    return Window(leg.leg.grid, int(levels[0]), int(levels[-1]))


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
        return self.where(_spread(len(self.points), count))

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


def surfaces(leg: SegmentedLeg, *, spacing_mm: float) -> dict[str, Surface]:
    """Surfaces of the structures of a leg by name, without faces that are cuts.

    Between thick slices the outline is interpolated by shape (signed distances of the outlines
    in their slices; Raya & Udupa, IEEE Trans Med Imaging 1990;9:32). A structure that is not
    labelled in single levels between its ends is taken to go on there.

    Args:
        leg: a leg with labels.
        spacing_mm: length of the faces along the limb; half of it across.
    """
    window = window_of(leg)
    if window is None:
        return {}
    labels = leg.labels.data
    out = {}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        surface = _surface(labels, value, box, window, spacing_mm)
        if surface is not None:
            out[LEG_SCHEME.structures[value][0]] = surface
    return out


def mask_surface(mask: Flags, window: Window, *, spacing_mm: float) -> Surface | None:
    """Surface of a mask on the grid of a window; see surfaces. None where it is too small."""
    data = mask.view(np.uint8)
    (box,) = ndimage.find_objects(data) or (None,)
    return None if box is None else _surface(data, 1, box, window, spacing_mm)


def _surface(
    labels: NDArray[np.integer],
    value: int,
    box: tuple[slice, slice, slice],
    window: Window,
    spacing_mm: float,
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
    mask = part == value
    areas = mask.sum(axis=(0, 1))
    if np.count_nonzero(areas) < 2 or areas.max() < 4:
        return None
    # What touches the border of the field of view is taken to go on beyond it; the faces there
    # are dropped below.
    open_low, open_high = low == 0, high == ends
    mask = _padded(_padded(mask, open_low, open_high, axis=0), open_low, open_high, axis=1)
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
        if areas[level - low[2]] > _BLUNT_SHARE * largest:
            cut = True
            keep &= (np.abs(centre[:, 2] - level) > 1.0) | (np.abs(normals @ up) < 0.7)
    if np.count_nonzero(keep) < 10:
        return None
    index = np.argwhere(part == value).mean(axis=0)
    middle = grid.index_to_world((index + low) * step + zero)
    volume = float(np.count_nonzero(part == value)) * float(np.prod(sizes * step))
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
    stack[:, :, first + 1 : last + 2] = (1 - share) * field[:, :, below] + share * field[
        :, :, above
    ]
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
    finer = (1 - share) * field[:, :, below] + share * field[:, :, below + 1]
    return np.asarray(finer, dtype=np.float32)


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
            if np.count_nonzero(keep) >= 10:
                kept[name] = surface.where(keep)
        return LegSurfaces(kept, self.window)


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Surfaces of one leg, ready to be searched.

    Attributes:
        points, normals: all faces (m, 3), and the structure each belongs to (m,).
        tree: nearest face of the same structure, in four dimensions.
        sample: which faces are compared (n,), and how much each counts (n,).
        window: what the leg shows.
    """

    points: Floats
    normals: Floats
    structure: Ints
    tree: cKDTree
    sample: Ints
    weight: Floats
    window: Window

    def nearest(self, points: Floats, structure: Ints, reach_mm: float) -> tuple[Floats, Ints]:
        """Distance to the nearest face of the same structure (inf if out of reach), and which."""
        query = np.concatenate([points, APART_MM * structure[:, None]], axis=1)
        distance, index = self.tree.query(query, distance_upper_bound=reach_mm)
        return np.asarray(distance), np.asarray(index)


def _cloud(leg: LegSurfaces, names: Sequence[str], counts: tuple[int, int]) -> _Cloud:
    parts = [leg.surfaces[name].thinned(counts[0]) for name in names]
    points = np.concatenate([s.points for s in parts])
    structure = np.concatenate(
        [np.full(len(s.points), n, dtype=np.intp) for n, s in enumerate(parts)]
    )
    sample, weight, start = [], [], 0
    for part in parts:
        chosen = _spread(len(part.points), counts[1])
        area = float(part.areas.sum())
        # Large muscles count more than small ones, but do not drown them.
        share = part.areas[chosen] / part.areas[chosen].sum()
        weight.append(len(chosen) * share * min(1.0, np.sqrt(area / 1e4)))
        sample.append(start + chosen)
        start += len(part.points)
    tree = cKDTree(np.concatenate([points, APART_MM * structure[:, None]], axis=1))
    return _Cloud(
        points=points,
        normals=np.concatenate([s.normals for s in parts]),
        structure=structure,
        tree=tree,
        sample=np.concatenate(sample),
        weight=np.concatenate(weight),
        window=leg.window,
    )


def _spread(count: int, wanted: int) -> Ints:
    """At most `wanted` of `count` indices, evenly spread."""
    kept = min(count, wanted)
    return np.asarray((np.arange(kept) * count) // kept, dtype=np.intp)


@dataclass(frozen=True, eq=False)
class _Matches:
    """Samples of one leg with their partners in the other, and what became of the rest."""

    offset: Floats
    moved: Floats
    normals: Floats
    weight: Floats
    unseen_weight: float
    lost_weight: float


def _matches(source: _Cloud, target: _Cloud, matrix: Matrix, *, reach_mm: float) -> _Matches:
    """Partners of the samples of a leg, at a transform source -> target."""
    chosen, weight = source.sample, source.weight
    moved = source.points[chosen] @ matrix[:3, :3].T + matrix[:3, 3]
    # Half a level inside: faces were only kept between the centres of the end levels.
    inside = target.window.contains(moved, margin=0.0)
    unseen = float(weight[~inside].sum())
    chosen, weight, moved = chosen[inside], weight[inside], moved[inside]
    distance, partner = target.nearest(moved, source.structure[chosen], reach_mm)
    found = np.isfinite(distance)
    partner = np.where(found, partner, 0)
    turned = source.normals[chosen] @ np.linalg.inv(matrix[:3, :3])
    turned /= np.linalg.norm(turned, axis=1)[:, None]
    normals = target.normals[partner]
    found &= np.einsum("ij,ij->i", turned, normals) > LEAST_COSINE
    return _Matches(
        offset=moved[found] - target.points[partner[found]],
        moved=moved[found],
        normals=normals[found],
        weight=weight[found],
        unseen_weight=unseen,
        lost_weight=float(weight[~found].sum()),
    )


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two legs to be laid onto each other."""

    left: _Cloud
    right: _Cloud

    def both_ways(self, matrix: Matrix, *, reach_mm: float) -> tuple[_Matches, _Matches]:
        """Matches left -> right at the transform, and right -> left at its inverse."""
        return (
            _matches(self.left, self.right, matrix, reach_mm=reach_mm),
            _matches(self.right, self.left, _inverse(matrix), reach_mm=reach_mm),
        )

    def cost(self, matrix: Matrix, *, scale_mm: float) -> float:
        """Mean saturating distance of the surfaces, 0 (identical) to 1 (nowhere near)."""
        total, weight = 0.0, 0.0
        for found in self.both_ways(matrix, reach_mm=4.0 * scale_mm):
            square = np.einsum("ij,ij->i", found.offset, found.offset)
            total += float(found.weight @ (square / (square + scale_mm**2)))
            total += _UNSEEN_COST * found.unseen_weight + found.lost_weight
            weight += float(found.weight.sum()) + found.unseen_weight + found.lost_weight
        return total / weight if weight > 0 else 1.0


def _fit(
    pair: _Pair,
    start: Matrix,
    *,
    affine: bool,
    scale_mm: float,
    iterations: int,
) -> Matrix:
    """Gauss-Newton steps on the weighted point-to-plane distances, both ways.

    A weak prior keeps an affine fit near the transform it starts from where the surfaces say
    nothing, e.g. of the stretch along a slab of straight muscles.
    """
    matrix = start.copy()
    centre = np.average(pair.right.points[pair.right.sample], axis=0, weights=pair.right.weight)
    size = 12 if affine else 6
    lengths = np.concatenate([np.ones(3), np.full(size - 3, _LEG_RADIUS_MM)])
    for _ in range(iterations):
        information, pull = np.zeros((size, size)), np.zeros(size)
        forth, back = pair.both_ways(matrix, reach_mm=4.0 * scale_mm)
        residuals = []
        for found, is_forth in ((forth, True), (back, False)):
            residual = np.einsum("ij,ij->i", found.normals, found.offset)
            square = np.einsum("ij,ij->i", found.offset, found.offset)
            weight = found.weight / (1.0 + square / scale_mm**2) ** 2
            if is_forth:
                normals, arm = found.normals, found.moved - centre
            else:
                # A right sample q lies at T^-1 q; a step of T moves it the other way.
                normals = -found.normals @ np.linalg.inv(matrix[:3, :3])
                arm = found.moved @ matrix[:3, :3].T + matrix[:3, 3] - centre
            if affine:
                turns = (normals[:, :, None] * arm[:, None, :]).reshape(-1, 9)
            else:
                turns = np.cross(arm, normals)
            jacobian = np.concatenate([normals, turns], axis=1) / lengths
            information += (jacobian * weight[:, None]).T @ jacobian
            pull += (jacobian * weight[:, None]).T @ residual
            residuals.append((weight, residual))
        weights = np.concatenate([w for w, _ in residuals])
        if weights.sum() < 1.0:
            return matrix
        noise = float(weights @ np.concatenate([r for _, r in residuals]) ** 2 / weights.sum())
        noise = max(noise, 0.25) * _SAMPLES_PER_OBSERVATION
        if affine:
            prior, offset = _strain_prior(matrix, start, lengths)
            information += noise * prior
            pull += noise * offset
        information += 1e-6 * np.trace(information) / size * np.eye(size)
        delta = -np.linalg.solve(information, pull)
        matrix = _stepped(matrix, centre, delta / lengths)
        if affine:
            matrix = _bounded(matrix, centre)
        if float(np.abs(delta).max()) < 0.01:
            break
    return matrix


def _strain_prior(matrix: Matrix, start: Matrix, lengths: Floats) -> tuple[Matrix, Floats]:
    """Normal equations of the wish that strains against the start stay small.

    Only the symmetric part of the change costs anything: turning is free.
    """
    change = matrix[:3, :3] @ np.linalg.inv(start[:3, :3]) - np.eye(3)
    prior, offset = np.zeros((12, 12)), np.zeros(12)
    for i in range(3):
        for j in range(i, 3):
            row = np.zeros(12)
            row[3 + 3 * i + j] += 0.5
            row[3 + 3 * j + i] += 0.5
            row /= lengths * _USUAL_STRAIN
            value = 0.5 * (change[i, j] + change[j, i]) / _USUAL_STRAIN
            times = 1.0 if i == j else 2.0
            prior += times * np.outer(row, row)
            offset += times * value * row
    return prior, offset


def _stepped(matrix: Matrix, centre: Floats, delta: Floats) -> Matrix:
    """A transform followed by a small translation and turn (or strain) about a centre."""
    if delta.size == 12:
        linear = np.eye(3) + delta[3:].reshape(3, 3)
    else:
        x, y, z = delta[3:]
        linear = linalg.expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
    step = np.eye(4)
    step[:3, :3] = linear
    step[:3, 3] = centre + delta[:3] - linear @ centre
    return np.asarray(step @ matrix, dtype=np.float64)


def _bounded(matrix: Matrix, centre: Floats) -> Matrix:
    """The nearest transform whose stretches stay within bounds; `centre` (target) stays put."""
    u, stretch, vt = np.linalg.svd(matrix[:3, :3])
    clipped = np.clip(stretch, 1.0 / _LARGEST_STRETCH, _LARGEST_STRETCH)
    if np.array_equal(stretch, clipped):
        return matrix
    out = matrix.copy()
    source = np.linalg.solve(matrix[:3, :3], centre - matrix[:3, 3])
    out[:3, :3] = (u * clipped) @ vt
    out[:3, 3] = centre - out[:3, :3] @ source
    return out


def translation(shift: Floats) -> Matrix:
    """4x4 matrix of a translation in mm."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def rigid_from_points(source: Floats, target: Floats, weights: Floats) -> Matrix:
    """Closed-form rigid transform of point pairs (Kabsch, Acta Cryst A 1976;32:922)."""
    centres = [np.average(p, axis=0, weights=weights) for p in (source, target)]
    spread = ((source - centres[0]) * weights[:, None]).T @ (target - centres[1])
    u, _, vt = np.linalg.svd(spread)
    turn = vt.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centres[1] - turn @ centres[0]
    return matrix


def leg_surfaces(leg: SegmentedLeg, *, spacing_mm: float) -> LegSurfaces | None:
    """Surfaces and window of a leg; None where no level was both imaged and labelled."""
    window = window_of(leg)
    return None if window is None else LegSurfaces(surfaces(leg, spacing_mm=spacing_mm), window)


def common_structures(left: LegSurfaces, right: LegSurfaces) -> list[str]:
    """Structures both legs show, in the order of the vocabulary."""
    return [name for name in left.surfaces if name in right.surfaces]


def centroid_start(left: LegSurfaces, right: LegSurfaces) -> Matrix | None:
    """Rigid transform by the centres of structures that neither leg shows cut; None below four."""
    names = [
        name
        for name in common_structures(left, right)
        if not (left.surfaces[name].cut or right.surfaces[name].cut)
    ]
    if len(names) < 4:
        return None
    pairs = [(left.surfaces[name], right.surfaces[name]) for name in names]
    weights = np.sqrt([a.volume_mm3 * b.volume_mm3 for a, b in pairs])
    return rigid_from_points(
        np.array([a.centre for a, _ in pairs]), np.array([b.centre for _, b in pairs]), weights
    )


def align_rigid(left: LegSurfaces, right: LegSurfaces, starts: Sequence[Matrix]) -> Matrix:
    """Rigid transform of the left leg onto the right one, by the best of several starts.

    Args:
        left, right: at least one structure in common.
        starts: first guesses, left to right.
    """
    pair = _pair(left, right, _COARSE)
    by_cost = sorted(starts, key=lambda start: pair.cost(start, scale_mm=12.0))
    tried = [
        _fit(pair, start, affine=False, scale_mm=20.0, iterations=12)
        for start in by_cost[:_FOLLOWED]
    ]
    best = min(tried, key=lambda matrix: pair.cost(matrix, scale_mm=8.0))
    for scale in (12.0, 8.0):
        best = _fit(pair, best, affine=False, scale_mm=scale, iterations=15)
    return best


def align_affine(left: LegSurfaces, right: LegSurfaces, start: Matrix) -> Matrix:
    """Affine transform of the left leg onto the right one, from a rigid start nearby."""
    pair = _pair(left, right, _FINE)
    matrix = _fit(pair, start, affine=False, scale_mm=6.0, iterations=15)
    for scale in (8.0, 5.0):
        matrix = _fit(pair, matrix, affine=True, scale_mm=scale, iterations=20)
    return matrix


def _pair(left: LegSurfaces, right: LegSurfaces, counts: tuple[int, int]) -> _Pair:
    names = common_structures(left, right)
    return _Pair(_cloud(left, names, counts), _cloud(right, names, counts))


def surface_distances(
    left: LegSurfaces, right: LegSurfaces, left_to_right: SpatialTransform
) -> dict[str, float]:
    """Mean distance of the surfaces by structure, mm, in the right leg's space and both ways.

    Sideways distances up to the spacing of the faces are free: a face stands for the surface
    around it.
    """
    right_to_left = left_to_right.inverse()
    out = {}
    for name in common_structures(left, right):
        a, b = (leg.surfaces[name].thinned(_FINE[0]) for leg in (left, right))
        carried = left_to_right.apply(a.points)
        here = right.window.contains(carried, margin=0.0)
        there = left.window.contains(right_to_left.apply(b.points), margin=0.0)
        if not (here.any() and there.any()):
            continue
        forth = _distances(carried[here], b.points, b.normals, b.areas)
        # The normals of the left surface were not carried over: distances to a right point are
        # taken along the right surface's own normal.
        index = cKDTree(carried).query(b.points[there])[1]
        offset = b.points[there] - carried[index]
        back = _across(offset, b.normals[there], b.areas[there])
        total = float(a.areas[here] @ forth + b.areas[there] @ back)
        out[name] = total / float(a.areas[here].sum() + b.areas[there].sum())
    return out


def _distances(points: Floats, onto: Floats, normals: Floats, areas: Floats) -> Floats:
    index = cKDTree(onto).query(points)[1]
    return _across(points - onto[index], normals[index], areas[index])


def _across(offset: Floats, normals: Floats, areas: Floats) -> Floats:
    along = np.einsum("ij,ij->i", offset, normals)
    sideways = np.linalg.norm(offset - along[:, None] * normals, axis=1)
    return np.asarray(np.hypot(along, np.maximum(0.0, sideways - np.sqrt(areas))))
