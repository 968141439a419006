"""Affine alignment of two legs by their labels, structure by structure.

Each structure is a smooth channel (its label blurred by a few millimetres). The transform
minimises the squared difference of same-named channels by Gauss-Newton steps, over the points
that both legs show. Forward and backward fits are averaged as geodesic mean, so that exchanging
the legs inverts the transform.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from pipeline.core.anatomy import LEG_SCHEME, STRUCTURE_IDS, Side
from pipeline.core.grid import Grid
from pipeline.core.match import LegMatch, MatchedExtent
from pipeline.core.scan import SegmentedLeg
from pipeline.core.transform import SpatialTransform
from pipeline.imaging.limb_axis import axis_mm

Floats = NDArray[np.float64]
Matrix = NDArray[np.float64]

#: A radius typical of a leg, mm: turns strains and rotations into millimetres for the prior.
_LEG_RADIUS_MM = 100.0
_ITERATIONS = 25
_LARGEST_STRAIN = 0.25
#: Blur in lattice voxels, stride of the points that are compared, and whether the fit is affine.
_LEVELS = ((4.0, 4, False), (2.0, 3, False), (1.2, 2, True))


@dataclass(frozen=True, eq=False)
class Window:
    """The levels of a leg's grid that were imaged and labelled."""

    grid: Grid
    first: int
    last: int

    def contains(self, points: Floats) -> NDArray[np.bool_]:
        """Whether points (..., 3) of the leg's space lie in the window, to the voxel edges."""
        level = self.grid.world_to_index(points)[..., 2]
        return np.asarray((level > self.first - 0.5) & (level < self.last + 0.5))

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
class Channel:
    """One structure as a smooth image on an axis-aligned working lattice.

    Attributes:
        values: float32, 0 to 1; outside the box it is 0.
        origin: RAS mm of values[0, 0, 0].
        spacing_mm: working voxel size.
        volume_mm3: labelled volume of the structure.
    """

    values: NDArray[np.float32]
    origin: Floats
    spacing_mm: float
    volume_mm3: float

    def samples(self, stride: int) -> tuple[Floats, Floats]:
        """RAS mm (n, 3) and values (n,) of every stride-th lattice point along each axis."""
        first = [((n - 1) % stride) // 2 for n in self.values.shape]
        index = np.stack(
            np.meshgrid(
                *(np.arange(f, n, stride) for f, n in zip(first, self.values.shape, strict=True)),
                indexing="ij",
            ),
            axis=-1,
        ).reshape(-1, 3)
        points = self.origin + self.spacing_mm * index
        return points, self.values[tuple(index.T)].astype(np.float64)


def occupancies(
    leg: SegmentedLeg, names: Iterable[str], *, spacing_mm: float
) -> dict[str, Channel]:
    """How much of each lattice point's neighbourhood a structure fills, 0 to 1.

    One channel per structure the leg shows, on lattices of the same spacing.
    """
    labels, grid = leg.labels.data, leg.leg.grid
    boxes = ndimage.find_objects(labels)
    # Averages over about one lattice voxel where the scan is finer than the lattice.
    smoothing = [max(0.0, 0.4 * (spacing_mm / size - 1.0)) for size in grid.voxel_sizes_mm]
    reach = [int(np.ceil(2.0 * spacing_mm / size)) for size in grid.voxel_sizes_mm]
    out = {}
    for name in names:
        value = STRUCTURE_IDS[name]
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        start = np.array([max(0, s.start - r) for s, r in zip(box, reach, strict=True)])
        stop = [min(n, s.stop + r) for s, r, n in zip(box, reach, grid.shape, strict=True)]
        mask = labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] == value
        smooth = ndimage.gaussian_filter(
            mask.astype(np.float32), smoothing, mode="nearest", truncate=2.5
        )
        out[name] = _on_lattice(
            smooth, grid, start, spacing_mm, float(mask.sum()) * grid.voxel_volume_mm3
        )
    return out


def blurred(channel: Channel, blur_mm: float) -> Channel:
    """A channel blurred by a Gaussian and widened by the blur.

    Where a structure is cut by the field of view it is blurred as if it went on.
    """
    sigma = blur_mm / channel.spacing_mm
    pad = int(np.ceil(2.5 * sigma))
    wide = np.pad(channel.values, pad, mode="edge")
    return Channel(
        ndimage.gaussian_filter(wide, sigma, mode="nearest", truncate=2.5),
        channel.origin - pad * channel.spacing_mm,
        channel.spacing_mm,
        channel.volume_mm3,
    )


def _on_lattice(
    smooth: NDArray[np.float32],
    grid: Grid,
    start: NDArray[np.integer],
    spacing: float,
    volume: float,
) -> Channel:
    """Sample a crop of the leg's grid on an axis-aligned lattice of its world."""
    ends = np.stack([start, start + np.array(smooth.shape) - 1]).astype(np.float64)
    corners = np.array(list(itertools.product(*ends.T)))
    world = grid.index_to_world(corners)
    origin = world.min(axis=0)
    shape = np.ceil((world.max(axis=0) - origin) / spacing).astype(int) + 1
    inverse = np.linalg.inv(grid.affine)
    values = ndimage.affine_transform(
        smooth,
        inverse[:3, :3] * spacing,
        offset=inverse[:3, :3] @ origin + inverse[:3, 3] - start,
        output_shape=tuple(shape),
        order=1,
        mode="nearest",
        output=np.float32,
    )
    return Channel(values, origin, spacing, volume)


@dataclass(frozen=True, eq=False)
class _Term:
    """One structure of a fit: points of the source with values, and the target's image."""

    points: Floats
    values: Floats
    target: Channel
    gradients: tuple[NDArray[np.float32], ...]
    weight: float


@dataclass(frozen=True, eq=False)
class _Problem:
    """Everything a fit from one leg to the other needs."""

    terms: Sequence[_Term]
    target_window: Window
    centre: Floats


def _problem(
    source: Mapping[str, Channel],
    target: Mapping[str, Channel],
    windows: tuple[Window, Window],
    *,
    stride: int,
) -> _Problem:
    """Terms of a fit of source onto target, over the points in both windows."""
    terms, centres, volumes = [], [], []
    for name in sorted(source.keys() & target.keys()):
        channel, other = source[name], target[name]
        points, values = channel.samples(stride)
        keep = windows[0].contains(points)
        if not keep.any() or min(other.values.shape) < 2:
            continue
        points, values = points[keep], values[keep]
        gradients = tuple(
            (g / other.spacing_mm).astype(np.float32) for g in np.gradient(other.values)
        )
        # Large muscles would otherwise drown small ones altogether.
        weight = float(np.mean([channel.volume_mm3, other.volume_mm3])) ** (-1.0 / 3.0)
        terms.append(_Term(points, values, other, gradients, weight))
        centres.append(np.average(points, axis=0, weights=values + 1e-9))
        volumes.append(channel.volume_mm3)
    centre = np.average(centres, axis=0, weights=volumes) if centres else np.zeros(3)
    return _Problem(terms, windows[1], np.asarray(centre, dtype=np.float64))


def _sample(channel: Channel, image: NDArray[np.float32], points: Floats) -> Floats:
    index = ((points - channel.origin) / channel.spacing_mm).T
    return np.asarray(
        ndimage.map_coordinates(image, index, order=1, mode="constant", cval=0.0),
        dtype=np.float64,
    )


def _normal_equations(
    problem: _Problem, matrix: Matrix, *, affine: bool
) -> tuple[Matrix, Floats, float]:
    """J'J, J'r and mean squared residual at a transform."""
    size = 12 if affine else 6
    jtj, jtr = np.zeros((size, size)), np.zeros(size)
    cost, total = 0.0, 0.0
    for term in problem.terms:
        moved = term.points @ matrix[:3, :3].T + matrix[:3, 3]
        inside = problem.target_window.contains(moved)
        if not inside.any():
            continue
        moved, arm = moved[inside], term.points[inside] - problem.centre
        residual = _sample(term.target, term.target.values, moved) - term.values[inside]
        gradient = np.stack([_sample(term.target, g, moved) for g in term.gradients], axis=1)
        if affine:
            jacobian = np.concatenate(
                [gradient, (gradient[:, :, None] * arm[:, None, :]).reshape(-1, 9)], axis=1
            )
        else:
            turned = arm @ matrix[:3, :3].T
            jacobian = np.concatenate([gradient, np.cross(turned, gradient)], axis=1)
        jtj += term.weight * jacobian.T @ jacobian
        jtr += term.weight * jacobian.T @ residual
        cost += term.weight * float(residual @ residual)
        # What the source holds there, so that a fit cannot win by leaving the window.
        total += term.weight * float((term.values[inside] ** 2).sum())
    return jtj, jtr, cost / total if total > 0 else np.inf


def _step(matrix: Matrix, centre: Floats, delta: Floats) -> Matrix:
    """Apply a parameter step: translation and strain about centre, or a rotation."""
    out = matrix.copy()
    moved_centre = matrix[:3, :3] @ centre + matrix[:3, 3] + delta[:3]
    if delta.size == 12:
        out[:3, :3] = matrix[:3, :3] + delta[3:].reshape(3, 3)
    else:
        wx, wy, wz = delta[3:]
        out[:3, :3] = (
            linalg.expm(np.array([[0, -wz, wy], [wz, 0, -wx], [-wy, wx, 0]])) @ (matrix[:3, :3])
        )
    out[:3, 3] = moved_centre - out[:3, :3] @ centre
    return out


def _fit(problem: _Problem, start: Matrix, *, affine: bool) -> tuple[Matrix, float]:
    """Damped Gauss-Newton from a start; returns the transform and its cost.

    A weak prior holds each parameter near the start where the images say nothing (e.g. the
    level of a slab through straight muscles).
    """
    matrix = start.copy()
    jtj, jtr, cost = _normal_equations(problem, matrix, affine=affine)
    damping = 1e-3
    scale = np.full(12 if affine else 6, 1.0)
    scale[3:] = _LEG_RADIUS_MM
    for _ in range(_ITERATIONS):
        information = np.trace(jtj[:3, :3]) / 3.0
        prior = 1e-3 * information * np.diag(scale**2)
        system = jtj + prior + damping * np.diag(np.diag(jtj) + 1e-12)
        delta = -np.linalg.solve(system, jtr)
        # One step never moves the leg by more than a muscle's width.
        delta *= min(1.0, 15.0 / max(1e-9, float(np.abs(delta * scale).max())))
        trial = _step(matrix, problem.centre, delta)
        if affine:
            trial = _bounded(trial, problem.centre)
        new_jtj, new_jtr, new_cost = _normal_equations(problem, trial, affine=affine)
        if new_cost < cost:
            matrix, jtj, jtr = trial, new_jtj, new_jtr
            gain, cost = cost - new_cost, new_cost
            damping = max(damping / 3.0, 1e-6)
            if gain < 1e-6 * cost or float(np.abs(delta * scale).max()) < 0.02:
                break
        else:
            damping *= 10.0
            if damping > 1e3:
                break
    return matrix, cost


def _bounded(matrix: Matrix, centre: Floats) -> Matrix:
    """The nearest transform whose stretches stay within 1 +- the largest strain."""
    u, stretch, vt = np.linalg.svd(matrix[:3, :3])
    clipped = np.clip(stretch, 1.0 - _LARGEST_STRAIN, 1.0 + _LARGEST_STRAIN)
    if np.array_equal(stretch, clipped):
        return matrix
    out = matrix.copy()
    moved = matrix[:3, :3] @ centre + matrix[:3, 3]
    out[:3, :3] = (u * clipped) @ vt
    out[:3, 3] = moved - out[:3, :3] @ centre
    return out


def translation(shift: Floats) -> Matrix:
    """4x4 matrix of a translation in mm."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def geodesic_mean(forward: Matrix, backward: Matrix) -> Matrix:
    """Transform half-way between a forward fit and the inverse of a backward fit.

    exp((log F - log B) / 2), which becomes its own inverse when the two are exchanged.
    """
    logarithm = (np.real(linalg.logm(forward)) - np.real(linalg.logm(backward))) / 2.0
    mean = np.real(linalg.expm(logarithm))
    mean[3] = (0.0, 0.0, 0.0, 1.0)
    return np.asarray(mean, dtype=np.float64)


def align(
    left: SegmentedLeg,
    right: SegmentedLeg,
    names: Sequence[str],
    *,
    starts: Sequence[Matrix],
    spacing_mm: float,
) -> Matrix | None:
    """Affine transform of the left leg onto the right one, from the named structures.

    Args:
        left, right: both in right-leg pose.
        names: structures that move as one segment.
        starts: first guesses, left to right; the best after a coarse rigid fit is followed.
        spacing_mm: working voxel size.

    Returns:
        4x4 matrix in mm, or None where the legs share no structure.
    """
    windows = window_of(left), window_of(right)
    if windows[0] is None or windows[1] is None:
        return None
    base = [occupancies(leg, names, spacing_mm=spacing_mm) for leg in (left, right)]
    best: Matrix | None = None
    for blur, stride, affine in _LEVELS:
        pair = [
            {name: blurred(channel, blur * spacing_mm) for name, channel in leg.items()}
            for leg in base
        ]
        forward = _problem(pair[0], pair[1], (windows[0], windows[1]), stride=stride)
        backward = _problem(pair[1], pair[0], (windows[1], windows[0]), stride=stride)
        if not forward.terms or not backward.terms:
            return None
        fits = []
        for start in list(starts) if best is None else [best]:
            there, cost_there = _fit(forward, start, affine=affine)
            back, cost_back = _fit(backward, np.linalg.inv(start), affine=affine)
            fits.append((cost_there + cost_back, there, back))
        _, there, back = min(fits, key=lambda fit: fit[0])
        best = geodesic_mean(there, back)
    return best


def label_pairs(
    left: SegmentedLeg, right: SegmentedLeg, left_to_right: SpatialTransform, *, spacing_mm: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels of both legs on one lattice in the left leg's space, 0 where not both were seen.

    Nearest-neighbour look-up; for judging the overlap only, nothing is measured on it.
    """
    windows = window_of(left), window_of(right)
    box = ndimage.find_objects((left.labels.data != 0).astype(np.uint8))
    if not box or windows[0] is None or windows[1] is None:
        empty = np.zeros((1, 1, 1), dtype=np.uint8)
        return empty, empty
    grid = left.leg.grid
    corners = grid.index_to_world(
        np.array(
            [[(s.start, s.stop - 1)[(k >> a) & 1] for a, s in enumerate(box[0])] for k in range(8)],
            dtype=np.float64,
        )
    )
    low, high = corners.min(axis=0) - 20.0, corners.max(axis=0) + 20.0
    shape = np.ceil((high - low) / spacing_mm).astype(int) + 1
    out = (np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8))
    plane = np.indices((shape[0], shape[1], 1)).reshape(3, -1).T.astype(np.float64)
    for level in range(shape[2]):
        plane[:, 2] = level
        points = low + spacing_mm * plane
        moved = left_to_right.apply(points)
        both = windows[0].contains(points) & windows[1].contains(moved)
        out[0][:, :, level] = np.where(both, _nearest(left, points), 0).reshape(shape[:2])
        out[1][:, :, level] = np.where(both, _nearest(right, moved), 0).reshape(shape[:2])
    return out


def _nearest(leg: SegmentedLeg, points: Floats) -> NDArray[np.integer]:
    index = np.rint(leg.leg.grid.world_to_index(points)).astype(int)
    shape = leg.leg.grid.shape
    inside = np.all((index >= 0) & (index < shape), axis=-1)
    values = np.zeros(len(index), dtype=leg.labels.data.dtype)
    values[inside] = leg.labels.data[tuple(index[inside].T)]
    return values


def overlaps(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> dict[str, float]:
    """Dice coefficient by structure name, of structures that occur in both arrays."""
    size = max(LEG_SCHEME.structures) + 1
    count_a = np.bincount(a.ravel(), minlength=size)
    count_b = np.bincount(b.ravel(), minlength=size)
    common = np.bincount(a.ravel()[a.ravel() == b.ravel()], minlength=size)
    return {
        name: 2.0 * float(common[value]) / float(count_a[value] + count_b[value])
        for value, (name, _) in LEG_SCHEME.structures.items()
        if count_a[value] and count_b[value]
    }


def surface_distances(
    a: NDArray[np.uint8], b: NDArray[np.uint8], names: Iterable[str], spacing_mm: float
) -> dict[str, float]:
    """Mean symmetric distance of the boundaries by structure name, mm."""
    boxes = [ndimage.find_objects(array) for array in (a, b)]
    out = {}
    for name in names:
        value = STRUCTURE_IDS[name]
        box = tuple(
            slice(max(0, min(s.start, t.start) - 1), max(s.stop, t.stop) + 1)
            for s, t in zip(boxes[0][value - 1], boxes[1][value - 1], strict=True)
        )
        masks = [array[box] == value for array in (a, b)]
        edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in masks]
        if not all(edge.any() for edge in edges):
            continue
        away = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
        distances = np.concatenate([away[1][edges[0]], away[0][edges[1]]])
        out[name] = float(distances.mean())
    return out


def find_matched_extent(
    right: SegmentedLeg, left: SegmentedLeg, left_to_right: SpatialTransform
) -> MatchedExtent | None:
    """Distances down the right leg's axis between which both legs were imaged and labelled."""
    lows, highs = [], []
    for leg, transform in ((right, None), (left, left_to_right)):
        window = window_of(leg)
        if window is None:
            return None
        for edge in window.edge_levels():
            points = _footprint(leg, edge)
            moved = points if transform is None else transform.apply(points)
            along = axis_mm(right.axis, moved)
            # The third axis points up: its lower edge ends the extent, its upper one begins it.
            # A level that is oblique to the limb is counted only where it is seen all over.
            if edge == window.edge_levels()[0]:
                highs.append(float(along.min()))
            else:
                lows.append(float(along.max()))
    low, high = max(lows), min(highs)
    return MatchedExtent(right.axis, low, high) if low < high else None


def _footprint(leg: SegmentedLeg, edge: float) -> Floats:
    """Points of the muscles' outline carried to an edge of the window, in the leg's space."""
    labels = leg.labels.data
    present = np.flatnonzero(labels.any(axis=(0, 1)))
    nearest = int(present[np.argmin(np.abs(present - edge))])
    index = np.argwhere(labels[:, :, nearest]).astype(np.float64)
    low, high = index.min(axis=0), index.max(axis=0)
    middle = (low + high) / 2.0
    # Half the width: the rim of an oblique level would cost more extent than it is worth.
    corners = [
        middle + 0.25 * (high - low) * np.array(s) for s in ((-1, -1), (-1, 1), (1, -1), (1, 1))
    ]
    points = np.array([[x, y, edge] for x, y in [*corners, middle]])
    return leg.leg.grid.index_to_world(points)


def matched_coordinate(
    match: LegMatch, extent: MatchedExtent, points: Floats, side: Side
) -> Floats:
    """Distance down the right leg's axis of points (n, 3) of either leg, mm."""
    moved = points if side is Side.RIGHT else match.left_to_right.apply(points)
    return axis_mm(extent.axis, moved)
