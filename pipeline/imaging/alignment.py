"""Alignment of two legs by the surfaces of their labelled structures.

Surfaces of the same name are laid onto each
other by iterated closest points with point-to-plane distances (Chen & Medioni, Image Vis Comput
1992;10:145), measured in both directions: from the left leg to the right one in the right leg's
space and back in the left leg's. Exchanging the legs therefore inverts the transform. Distances
are down-weighted as in Geman & McClure (Bull ISI 1987;52:5), so that what only one leg shows
pulls little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.spatial import cKDTree

from pipeline.core.transform import SpatialTransform, inverted
from pipeline.imaging.surfaces import LegSurfaces, Window, common_structures, spread_evenly

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
#: The same along the limb. Legs of a person differ in length by 5.2 mm on average, 0.6 %
#: (Knutson, Chiropr Osteopat 2005;13:11); muscles that run on beyond both ends of a slab cannot
#: show a stretch, and must not invent one.
_USUAL_STRETCH_ALONG = 0.01
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
        chosen = spread_evenly(len(part.points), counts[1])
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


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two legs to be laid onto each other."""

    left: _Cloud
    right: _Cloud

    def both_ways(self, matrix: Matrix, *, reach_mm: float) -> tuple[_Matches, _Matches]:
        """Matches left -> right at the transform, and right -> left at its inverse."""
        return (
            _matches(self.left, self.right, matrix, reach_mm=reach_mm),
            _matches(self.right, self.left, inverted(matrix), reach_mm=reach_mm),
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
            usual = _USUAL_STRETCH_ALONG if i == j == 2 else _USUAL_STRAIN
            row = np.zeros(12)
            row[3 + 3 * i + j] += 0.5
            row[3 + 3 * j + i] += 0.5
            row /= lengths * usual
            value = 0.5 * (change[i, j] + change[j, i]) / usual
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
