"""Diffeomorphic deformation between two legs that were laid onto each other segment by segment.

Both legs go half of the way and meet in the middle, so that neither is the reference. The map is
the flow of a stationary velocity field (Arsigny et al., MICCAI 2006; symmetric log-domain
registration: Vercauteren et al., MICCAI 2008): smooth, one-to-one, inverse for free.

What drives it are surfaces: of each labelled structure, of the leg's outline and of its lean
tissue. Each face looks for the nearest face of the same surface in the other leg, in both
directions. Only the part of the offset along the normal is evidence: a point may slide within a
surface. In each neighbourhood the velocity is the one that explains these normal offsets best in
the sense of least squares, damped where nothing is known of a direction (as Lucas & Kanade do for
images, IJCAI 1981). Inside a homogeneous muscle the deformation is therefore interpolated, not
observed.

Nothing that is measured is resampled on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.core.grid import Grid
from pipeline.core.scan import SegmentedLeg
from pipeline.core.transform import FlowTransform, SpatialTransform, interpolate
from pipeline.core.volume import Quantity
from pipeline.imaging.alignment import APART_MM, LEAST_COSINE
from pipeline.imaging.surfaces import (
    LegSurfaces,
    Surface,
    Window,
    common_structures,
    mask_surface,
)
from pipeline.imaging.threads import one_thread

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

#: Surfaces that guide besides the labels, and how much they count beside them.
OUTLINE, LEAN = "leg outline", "lean tissue"
_GUIDE_WEIGHT = 0.3
#: One face in so many mm^2 looks for a partner; one in so many may be found.
_ASKING_MM2 = 40.0
_FOUND_MM2 = 20.0
#: Faces of one surface that look for a partner, at most.
_MOST_ASKING = 2500
#: Directions of which the faces around say nothing do not move: share of the evidence against.
_DAMPING = 0.08
#: Evidence of which a node needs about this share of what is usual to follow it.
_LEAST_EVIDENCE = 0.03
#: A velocity changes by this much at most at a time, as a share of the smoothing.
_LARGEST_STEP = 0.25
#: The lattice reaches this many smoothing lengths beyond the surfaces, where the velocity ends.
_MARGIN = 3.0


@dataclass(frozen=True)
class Level:
    """One step from coarse to fine.

    Attributes:
        node_mm: distance of the nodes across the limb; along it they lie 1.6 times as far apart.
        smoothing_mm: standard deviation of the neighbourhood across the limb; along it 1.6 times.
        reach_mm: offsets beyond about this are taken for outliers.
        iterations: how often partners are looked for.
    """

    node_mm: float
    smoothing_mm: float
    reach_mm: float
    iterations: int


#: Muscles run along the limb: neighbourhoods are longer that way.
_ALONG = 1.6


def levels(node_mm: float, smoothing_mm: float) -> tuple[Level, ...]:
    """Steps from coarse to fine that end at a distance of nodes and a smoothing."""
    return (
        Level(2.0 * node_mm, 3.5 * smoothing_mm, 12.0, 4),
        Level(2.0 * node_mm, 2.0 * smoothing_mm, 9.0, 4),
        Level(node_mm, 1.3 * smoothing_mm, 7.0, 3),
        Level(node_mm, smoothing_mm, 5.0, 4),
    )


def guide_surfaces(
    leg: SegmentedLeg, window: Window, *, spacing_mm: float, blunt_end_share: float
) -> dict[str, Surface]:
    """Surfaces of a leg that need no labels: its outline and its lean tissue.

    Args:
        leg: the leg.
        window: what of it was imaged and labelled.
        spacing_mm: length of the faces along the limb; half of it across.
        blunt_end_share: see register in the configuration.

    Returns:
        by name; lean tissue only where there is a fat fraction or its images.
    """
    masks = {OUTLINE: leg.leg.tissue, LEAN: _lean_tissue(leg, spacing_mm)}
    found = {
        name: mask_surface(mask, window, spacing_mm=spacing_mm, blunt_end_share=blunt_end_share)
        for name, mask in masks.items()
        if mask is not None
    }
    return {name: surface for name, surface in found.items() if surface is not None}


def _lean_tissue(leg: SegmentedLeg, spacing_mm: float) -> NDArray[np.bool_] | None:
    """Voxels of a leg that are less than half fat, smoothed over half a face."""
    images = leg.leg
    if images.dixon is not None:
        excess = images.dixon.water.data * images.dixon.fat_gain - images.dixon.fat.data
    elif Quantity.FAT_FRACTION in images.images:
        fraction = images.images[Quantity.FAT_FRACTION]
        excess = np.float32(0.5) - fraction.data
    else:
        return None
    pixels = max(1, round(0.5 * spacing_mm / images.grid.voxel_sizes_mm[0]))
    smooth = ndimage.uniform_filter(excess, size=(pixels, pixels, 1))
    return np.asarray((smooth > 0) & images.tissue)


@dataclass(frozen=True, eq=False)
class _Faces:
    """Faces of one leg, carried half-way by the affine part.

    Attributes:
        points, normals: half-way (n, 3).
        surface: number of the surface each belongs to (n,).
        weight: mm^2 each stands for, times what its surface counts (n,).
        asking: which of them look for a partner.
        window: what the leg shows.
        away: the leg's space -> half-way.
    """

    points: Floats
    normals: Floats
    surface: Ints
    weight: Floats
    asking: Ints
    window: Window
    away: SpatialTransform


def deform(
    left: LegSurfaces,
    right: LegSurfaces,
    halves: tuple[SpatialTransform, SpatialTransform],
    *,
    node_mm: float,
    smoothing_mm: float,
) -> FlowTransform:
    """The flow that lays the left leg, carried half-way, onto the right one, carried half-way.

    Args:
        left, right: surfaces of both legs, at least one in common.
        halves: left leg space -> half-way and right leg space -> half-way.
        node_mm: distance of the nodes of the flow across the limb.
        smoothing_mm: standard deviation of the neighbourhood that moves together.
    """
    names = common_structures(left, right)
    pair = tuple(_faces(leg, names, half) for leg, half in zip((left, right), halves, strict=True))
    flow: FlowTransform | None = None
    for level in levels(node_mm, smoothing_mm):
        grid = _lattice(pair, level)
        flow = _flow_on(flow, grid)
        seen = tuple(
            faces.away.inverse().apply(grid.index_to_world(_nodes(grid))) for faces in pair
        )
        for _ in range(level.iterations):
            flow = _improved(flow, pair, seen, level)
    assert flow is not None
    return flow


def _faces(leg: LegSurfaces, names: Sequence[str], half: SpatialTransform) -> _Faces:
    points, normals, surface, weight, asking, start = [], [], [], [], [], 0
    for number, name in enumerate(names):
        whole = leg.surfaces[name]
        area = float(whole.areas.sum())
        count = int(area / _FOUND_MM2) + 1
        part = whole.thinned(count)
        n = len(part.points)
        chosen = np.arange(0, n, max(1, round(n * _ASKING_MM2 / area), n // _MOST_ASKING))
        points.append(part.points)
        normals.append(part.normals)
        surface.append(np.full(n, number, dtype=np.intp))
        share = _GUIDE_WEIGHT if name in (OUTLINE, LEAN) else 1.0
        weight.append(np.full(n, share * area / len(chosen)))
        asking.append(start + chosen)
        start += n
    own = np.concatenate(points)
    turned = _turned(np.concatenate(normals), own, half)
    return _Faces(
        points=half.apply(own),
        normals=turned,
        surface=np.concatenate(surface),
        weight=np.concatenate(weight),
        asking=np.concatenate(asking),
        window=leg.window,
        away=half,
    )


def _turned(normals: Floats, points: Floats, transform: SpatialTransform) -> Floats:
    """Unit normals of surfaces that a transform carries, by finite differences."""
    step = 0.5
    here = transform.apply(points)
    jacobian = np.stack(
        [(transform.apply(points + step * e) - here) / step for e in np.eye(3)], axis=-1
    )
    return _carried(normals, jacobian)


def _carried(normals: Floats, jacobian: Floats) -> Floats:
    """Unit normals (n, 3) of surfaces after a map with these Jacobians (n, 3, 3): J^-T n."""
    return _normalised(np.linalg.solve(np.swapaxes(jacobian, 1, 2), normals[..., None])[..., 0])


def _normalised(vectors: NDArray[np.floating]) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float64)


def _lattice(pair: Sequence[_Faces], level: Level) -> Grid:
    """Nodes around both legs, with room for the velocity to end."""
    steps = level.node_mm * np.array([1.0, 1.0, _ALONG])
    room = _MARGIN * level.smoothing_mm * np.array([1.0, 1.0, _ALONG])
    low = np.min([faces.points.min(axis=0) for faces in pair], axis=0) - room
    high = np.max([faces.points.max(axis=0) for faces in pair], axis=0) + room
    shape = np.ceil((high - low) / steps).astype(int) + 1
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = 0.5 * (low + high) - 0.5 * (shape - 1) * steps
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, pair[0].away.to_space)


def _nodes(grid: Grid) -> Floats:
    """Indices of all nodes (nx, ny, nz, 3)."""
    return np.asarray(np.moveaxis(np.indices(grid.shape), 0, -1), dtype=np.float64)


def _flow_on(flow: FlowTransform | None, grid: Grid) -> FlowTransform:
    """The same flow on other nodes; rest where there was none."""
    if flow is None:
        return FlowTransform(np.zeros((*grid.shape, 3), dtype=np.float32), grid)
    velocity = interpolate(flow.velocity, flow.grid, grid.index_to_world(_nodes(grid)))
    return FlowTransform(velocity.astype(np.float32), grid)


@dataclass(frozen=True, eq=False)
class _Moved:
    """Faces of one leg at the place where both legs meet.

    Attributes:
        points: there (n, 3).
        visible: of the asking faces, which the other leg could show.
        faces: the same before they moved.
        slopes: of the way they went, d(axis i)/d(axis j) at each node (nx, ny, nz, 3, 3).
        grid: the nodes.
    """

    points: Floats
    visible: Ints
    faces: _Faces
    slopes: NDArray[np.float32]
    grid: Grid

    def normals(self, chosen: Ints) -> Floats:
        """Unit normals, there, of some of the faces (n, 3)."""
        nearest = np.rint(self.grid.world_to_index(self.faces.points[chosen])).astype(np.intp)
        jacobian = self.slopes[tuple(nearest.T)] + np.eye(3)
        return _carried(self.faces.normals[chosen], jacobian)


def _moved(faces: _Faces, flow: FlowTransform, other: Window, elsewhere: Floats) -> _Moved:
    """Faces half of the way along a flow.

    Args:
        faces: those of one leg.
        flow: from this leg to the other.
        other: what the other leg shows.
        elsewhere: of every node, the place in the other leg's space.
    """
    grid, field = flow.grid, flow.half_displacement
    points = faces.points + interpolate(field, grid, faces.points)
    gradient = [np.gradient(field, mm, axis=k) for k, mm in enumerate(grid.voxel_sizes_mm)]
    asking = points[faces.asking]
    arrived = asking + interpolate(field, grid, asking)
    # Half a level inside: faces were only kept between the centres of the end levels.
    shown = other.contains(interpolate(elsewhere, grid, arrived), margin=0.0)
    return _Moved(points, faces.asking[shown], faces, np.stack(gradient, axis=-1), grid)


def _improved(
    flow: FlowTransform, pair: Sequence[_Faces], seen: Sequence[Floats], level: Level
) -> FlowTransform:
    """One step: look for partners where the legs meet, then explain what is left between them."""
    left, right = pair
    here = _moved(left, flow, right.window, seen[1])
    there = _moved(right, flow.inverse(), left.window, seen[0])
    found = [
        _offsets(here, there, level.reach_mm),
        _offsets(there, here, level.reach_mm),
    ]
    # Offsets point from the asking face to its partner: backwards for those of the right leg.
    places, normals, offsets, weights = (
        np.concatenate([found[0][k], found[1][k]]) for k in range(4)
    )
    offsets[len(found[0][2]) :] *= -1.0
    change = _explained(places, normals, offsets, weights, flow.grid, level)
    return FlowTransform(flow.velocity + change, flow.grid)


def _offsets(
    asking: _Moved, asked: _Moved, reach_mm: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Midpoints (n, 3), normals (n, 3), offsets along them in mm (n,) and weights (n,)."""
    chosen, own, other = asking.visible, asking.faces, asked.faces
    tree = cKDTree(
        np.concatenate([asked.points, APART_MM * other.surface[:, None]], axis=1),
        balanced_tree=False,  # built once for each search: quicker in all
    )
    query = np.concatenate([asking.points[chosen], APART_MM * own.surface[chosen][:, None]], axis=1)
    distance, partner = tree.query(query, distance_upper_bound=3.0 * reach_mm)
    near = np.isfinite(distance)
    chosen, partner = chosen[near], partner[near]
    here, there = asking.normals(chosen), asked.normals(partner)
    facing = np.einsum("ij,ij->i", here, there) > LEAST_COSINE
    chosen, partner = chosen[facing], partner[facing]
    apart = asked.points[partner] - asking.points[chosen]
    normals = _normalised(here[facing] + there[facing])
    along = np.einsum("ij,ij->i", apart, normals)
    square = np.einsum("ij,ij->i", apart, apart)
    # Geman & McClure, Bull ISI 1987;52:5: what lies far off is no partner.
    weights = own.weight[chosen] / (1.0 + square / reach_mm**2) ** 2
    middle = 0.5 * (asked.points[partner] + asking.points[chosen])
    return middle, normals, along, weights


def _explained(
    places: Floats, normals: Floats, offsets: Floats, weights: Floats, grid: Grid, level: Level
) -> NDArray[np.float32]:
    """The velocity on the nodes that explains the offsets along the normals around each."""
    shape = grid.shape
    nodes = np.rint(grid.world_to_index(places)).astype(np.intp)
    nodes = np.clip(nodes, 0, np.array(shape) - 1)
    flat = np.ravel_multi_index(tuple(nodes.T), shape)
    sigma = level.smoothing_mm / level.node_mm

    def around(values: Floats) -> NDArray[np.float32]:
        field = np.bincount(flat, weights=values, minlength=int(np.prod(shape)))
        field = field.reshape(shape).astype(np.float32)
        return np.asarray(ndimage.gaussian_filter(field, sigma, mode="constant", truncate=3.0))

    evidence = around(weights)
    squares = np.empty((*shape, 3, 3), dtype=np.float32)
    pull = np.empty((*shape, 3), dtype=np.float32)
    for i in range(3):
        pull[..., i] = around(weights * normals[:, i] * offsets)
        for j in range(i, 3):
            squares[..., i, j] = squares[..., j, i] = around(
                weights * normals[:, i] * normals[:, j]
            )
    usual = float(np.median(evidence.ravel()[flat])) if flat.size else 1.0
    damping = _DAMPING * evidence + _LEAST_EVIDENCE * usual
    squares += damping[..., None, None] * np.eye(3, dtype=np.float32)
    change = np.zeros_like(pull)
    moves = evidence > 1e-3 * usual
    change[moves] = np.linalg.solve(squares[moves], pull[moves][..., None])[..., 0]
    length = np.linalg.norm(change, axis=-1, keepdims=True)
    change *= np.minimum(1.0, _LARGEST_STEP * level.smoothing_mm / np.maximum(length, 1e-6))
    return np.asarray(change * _window_to_rest(shape), dtype=np.float32)


def _window_to_rest(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """1 inside, falling to 0 on the outermost nodes (nx, ny, nz, 1)."""
    ramps = [np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / 2.0) for n in shape]
    product = ramps[0][:, None, None] * ramps[1][None, :, None] * ramps[2][None, None, :]
    return np.asarray(product[..., None], dtype=np.float32)


def folded_nodes(flow: FlowTransform) -> int:
    """Nodes at which a flow turns space inside out: a Jacobian determinant of 0 or less.

    Each node is judged by the one-sided Jacobians of the eight cells around it.
    """
    affine = flow.grid.affine[:3, :3]
    moved = flow.displacement @ np.linalg.inv(affine).T.astype(np.float32)
    sides = []
    for axis in range(3):
        forward = np.diff(moved, axis=axis, append=np.take(moved, [-1], axis=axis))
        forward[..., axis] += 1.0
        sides.append((forward, np.roll(forward, 1, axis=axis)))
    smallest = np.full(flow.grid.shape, np.inf, dtype=np.float32)
    for a, b, c in itertools.product(*sides):
        np.minimum(smallest, np.einsum("...i,...i->...", a, np.cross(b, c)), out=smallest)
    return int(np.count_nonzero(smallest <= 0.0))


def volume_change(
    leg: SegmentedLeg, to_other: SpatialTransform, *, spacing_mm: float
) -> tuple[NDArray[np.float32], Grid]:
    """Jacobian determinant of a transform on every n-th voxel of a leg.

    Args:
        leg: the leg from whose space the transform starts.
        to_other: leg space -> space of the other leg.
        spacing_mm: distance of the voxels looked at.

    Returns:
        determinants (central differences) and the grid they lie on.
    """
    coarse = leg.leg.grid.every(_steps(leg, spacing_mm))
    affine, shape = coarse.affine, coarse.shape
    moved = to_other.apply(coarse.index_to_world(_nodes(coarse)))
    slopes = [
        np.gradient(moved, axis=axis)
        if shape[axis] > 1
        else np.broadcast_to(affine[:3, axis], moved.shape)
        for axis in range(3)
    ]
    determinant = np.einsum("...i,...i->...", slopes[0], np.cross(slopes[1], slopes[2]))
    return (determinant / np.linalg.det(affine[:3, :3])).astype(np.float32), coarse


@one_thread()
def log_jacobian(
    leg: SegmentedLeg, to_other: SpatialTransform, *, spacing_mm: float
) -> tuple[NDArray[np.float32], Grid]:
    """ln of the volume of a leg over that of what it corresponds to in the other leg.

    For display: inside a homogeneous muscle the deformation is interpolated, not observed. 0
    outside the leg's tissue. Arguments and result as volume_change.
    """
    change, grid = volume_change(leg, to_other, spacing_mm=spacing_mm)
    x, y, z = _steps(leg, spacing_mm)
    tissue = leg.leg.tissue[::x, ::y, ::z]
    values = np.where(tissue, -np.log(np.maximum(change, np.float32(1e-3))), 0.0)
    return values.astype(np.float32), grid


def _steps(leg: SegmentedLeg, spacing_mm: float) -> tuple[int, int, int]:
    """Voxels of a leg that make about a spacing."""
    x, y, z = (max(1, round(spacing_mm / mm)) for mm in leg.leg.grid.voxel_sizes_mm)
    return x, y, z


def folded_voxels(leg: SegmentedLeg, to_other: SpatialTransform, *, spacing_mm: float) -> int:
    """Labelled places of a leg that a transform turns inside out."""
    change, _ = volume_change(leg, to_other, spacing_mm=spacing_mm)
    x, y, z = _steps(leg, spacing_mm)
    return int(np.count_nonzero((change <= 0.0) & (leg.labels.data[::x, ::y, ::z] > 0)))
