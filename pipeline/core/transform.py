"""Maps between named spaces. Points of one space never enter a transform of another.

`reorient` (in pipeline.imaging) changes how voxels are stored and moves nothing; `mirror` here
changes the anatomy: a mirrored right leg is a left leg. They are different words on purpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from pipeline.core.errors import InvariantError
from pipeline.core.frozen import Checked
from pipeline.core.grid import Grid

Points = NDArray[np.float64]
Field = NDArray[np.float32]


class SpatialTransform(ABC):
    """A map of points (..., 3) in mm from one named space to another."""

    from_space: str
    to_space: str

    @abstractmethod
    def apply(self, points: Points) -> Points:
        """Map points (..., 3), mm in from_space, to mm in to_space."""

    @abstractmethod
    def inverse(self) -> SpatialTransform:
        """The transform that undoes this one."""

    def then(self, after: SpatialTransform) -> SpatialTransform:
        """This transform followed by another.

        Raises:
            InvariantError: the other one does not start where this one ends.
        """
        if self.to_space != after.from_space:
            raise InvariantError(
                "Transforms do not fit together",
                expected=f"a transform from {self.to_space!r}",
                found=f"one from {after.from_space!r} to {after.to_space!r}",
            )
        if isinstance(self, AffineTransform) and isinstance(after, AffineTransform):
            return AffineTransform(after.matrix @ self.matrix, self.from_space, after.to_space)
        return CompositeTransform(self, after)


@dataclass(frozen=True, eq=False)
class AffineTransform(Checked, SpatialTransform):
    """x -> A x + t, as a 4x4 matrix in mm."""

    matrix: NDArray[np.float64]
    from_space: str
    to_space: str

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.all(np.isfinite(matrix)):
            raise InvariantError("An affine transform is a finite 4x4 matrix")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise InvariantError("An affine transform must be invertible")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @property
    def determinant(self) -> float:
        """Volume scale; negative when the transform mirrors."""
        return float(np.linalg.det(self.matrix[:3, :3]))

    def apply(self, points: Points) -> Points:
        return np.asarray(points @ self.matrix[:3, :3].T + self.matrix[:3, 3], dtype=np.float64)

    def halves(self, space: str) -> tuple[SpatialTransform, SpatialTransform]:
        """Transforms of both ends to the space half-way, named `space`.

        Returns:
            from_space -> space and to_space -> space.
        """
        root = square_root(self.matrix)
        return (
            AffineTransform(root, self.from_space, space),
            AffineTransform(inverted(root), self.to_space, space),
        )

    def inverse(self) -> AffineTransform:
        return AffineTransform(inverted(self.matrix), self.to_space, self.from_space)


def identity(from_space: str, to_space: str) -> AffineTransform:
    """The transform that only changes the name of the space."""
    return AffineTransform(np.eye(4), from_space, to_space)


def mirror(x_mm: float, from_space: str, to_space: str) -> AffineTransform:
    """Reflection through the plane x = x_mm (determinant -1): a left leg becomes a right one."""
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    matrix[0, 3] = 2.0 * x_mm
    return AffineTransform(matrix, from_space, to_space)


@dataclass(frozen=True, eq=False)
class BlendedAffine(SpatialTransform):
    """Two affines, one above and one below a joint, blended smoothly along an axis.

    With s the coordinate of a point along `direction` (pointing from the upper to the lower
    segment) relative to `centre`, the weight of the lower transform is the smoothstep of
    (s + half_width) / (2 half_width).

    Attributes:
        upper, lower: 4x4 matrices, mm.
        centre: point on the joint in from_space, mm.
        direction: unit vector in from_space, towards the lower segment.
        half_width_mm: the blend reaches this far to both sides of the joint.
    """

    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    centre: NDArray[np.float64]
    direction: NDArray[np.float64]
    half_width_mm: float
    from_space: str
    to_space: str

    def __post_init__(self) -> None:
        if self.half_width_mm <= 0:
            raise InvariantError(
                "The blend of two segments needs a positive width",
                found=f"{self.half_width_mm} mm",
            )
        if abs(float(np.linalg.norm(self.direction)) - 1.0) > 1e-6:
            raise InvariantError("The direction of a blended transform is a unit vector")

    def lower_weight(self, points: Points) -> NDArray[np.float64]:
        """Weight of the lower affine at points (..., 3) of from_space, 0 to 1."""
        s = (points - self.centre) @ self.direction
        t = np.clip((s + self.half_width_mm) / (2.0 * self.half_width_mm), 0.0, 1.0)
        return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float64)

    def jacobian(self, points: Points) -> NDArray[np.float64]:
        """Derivative of the map at points (..., 3): matrices (..., 3, 3)."""
        t = (points - self.centre) @ self.direction / (2.0 * self.half_width_mm) + 0.5
        inside = np.clip(t, 0.0, 1.0)
        slope = 6.0 * inside * (1.0 - inside) / (2.0 * self.half_width_mm)
        weight = (inside * inside * (3.0 - 2.0 * inside))[..., None, None]
        change = self.lower - self.upper
        apart = points @ change[:3, :3].T + change[:3, 3]
        linear = self.upper[:3, :3] + weight * change[:3, :3]
        bend = (slope[..., None] * apart)[..., :, None] * self.direction
        return np.asarray(linear + bend, dtype=np.float64)

    def apply(self, points: Points) -> Points:
        weight = self.lower_weight(points)[..., None]
        up = points @ self.upper[:3, :3].T + self.upper[:3, 3]
        low = points @ self.lower[:3, :3].T + self.lower[:3, 3]
        return np.asarray((1.0 - weight) * up + weight * low, dtype=np.float64)

    def inverse(self) -> NumericInverse:
        return NumericInverse(self)

    def halves(self, space: str) -> tuple[SpatialTransform, SpatialTransform]:
        """Transforms of both ends to the space half-way: each segment goes half its way.

        Args:
            space: name of the space half-way.

        Returns:
            from_space -> space and to_space -> space. Half-way through the joint they meet up to
            what the blend itself leaves open; away from it exactly.
        """
        upper, lower = square_root(self.upper), square_root(self.lower)
        mean = 0.5 * (self.upper + self.lower)
        carried = mean[:3, :3] @ self.direction
        first = BlendedAffine(
            upper, lower, self.centre, self.direction, self.half_width_mm, self.from_space, space
        )
        second = BlendedAffine(
            inverted(upper),
            inverted(lower),
            mean[:3, :3] @ self.centre + mean[:3, 3],
            carried / np.linalg.norm(carried),
            self.half_width_mm,
            self.to_space,
            space,
        )
        return first, second


def square_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 4x4 affine matrix that, applied twice, gives this one.

    Raises:
        InvariantError: there is none, as for a mirror or a half turn.
    """
    root = linalg.sqrtm(matrix)
    if np.iscomplexobj(root) and np.abs(np.imag(root)).max() > 1e-9:
        raise InvariantError("A transform that mirrors has no half-way")
    return np.asarray(np.real(root), dtype=np.float64)


def inverted(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a matrix, float64."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _undo(matrix: NDArray[np.float64], points: Points) -> Points:
    inverse = inverted(matrix)
    return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class NumericInverse(SpatialTransform):
    """The inverse of a blended affine, found by Newton steps.

    Each point stops once it is carried to within `tolerance_mm` of where it should be. Outside
    the blend the inverse of one affine is exact; inside, the blend is smooth and one-to-one as
    long as the two affines part by less than about 4/3 of its half-width there (a knee bent by
    15 degrees, 60 mm wide to each side: a tenth of that), and a few steps suffice.
    """

    forward: BlendedAffine
    iterations: int = 30
    tolerance_mm: float = 1e-6

    @property
    def from_space(self) -> str:  # type: ignore[override]
        """Where its points come from: the space the forward transform maps to."""
        return self.forward.to_space

    @property
    def to_space(self) -> str:  # type: ignore[override]
        """Where it maps to: the space the forward transform starts from."""
        return self.forward.from_space

    def apply(self, points: Points) -> Points:
        shape = points.shape
        wanted = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
        up = _undo(self.forward.upper, wanted)
        low = _undo(self.forward.lower, wanted)
        weight = self.forward.lower_weight(0.5 * (up + low))[:, None]
        guess = (1.0 - weight) * up + weight * low
        active = np.arange(len(wanted))
        for _ in range(self.iterations):
            here = guess[active]
            error = self.forward.apply(here) - wanted[active]
            far = np.abs(error).max(axis=-1) > self.tolerance_mm
            active, here, error = active[far], here[far], error[far]
            if active.size == 0:
                break
            step = np.linalg.solve(self.forward.jacobian(here), error[:, :, None])[:, :, 0]
            # Half the blend at most: a longer step leaves the part where the slope is known.
            length = np.linalg.norm(step, axis=-1, keepdims=True)
            step *= np.minimum(1.0, self.forward.half_width_mm / np.maximum(length, 1e-12))
            guess[active] = here - step
        return guess.reshape(shape)

    def inverse(self) -> BlendedAffine:
        return self.forward


@dataclass(frozen=True, eq=False)
class CompositeTransform(SpatialTransform):
    """One transform after another; built by SpatialTransform.then, which checks the names."""

    first: SpatialTransform
    second: SpatialTransform

    @property
    def from_space(self) -> str:  # type: ignore[override]
        """The space the first transform starts from."""
        return self.first.from_space

    @property
    def to_space(self) -> str:  # type: ignore[override]
        """The space the second transform ends in."""
        return self.second.to_space

    def apply(self, points: Points) -> Points:
        return self.second.apply(self.first.apply(points))

    def inverse(self) -> CompositeTransform:
        return CompositeTransform(self.second.inverse(), self.first.inverse())


def interpolate(field: NDArray[np.floating], grid: Grid, points: Points) -> Points:
    """Linear interpolation of a field at points; beyond the grid the value at its edge.

    Args:
        field: values on the grid (nx, ny, nz, c).
        grid: where they lie.
        points: mm in the grid's space (..., 3).

    Returns:
        values (..., c).
    """
    index = grid.world_to_index(points).reshape(-1, 3).T
    out = np.empty((index.shape[1], field.shape[3]))
    for c in range(field.shape[3]):
        ndimage.map_coordinates(field[..., c], index, order=1, mode="nearest", output=out[:, c])
    return out.reshape(*points.shape[:-1], field.shape[3])


#: Nodes between which a smooth correspondence is interpolated; a flow's own are further apart.
_LATTICE_MM = 5.0


def on_lattice(transform: SpatialTransform, grid: Grid) -> tuple[Points, Grid]:
    """A smooth transform looked up on nodes that cover a grid, to be interpolated between.

    Returns:
        where the nodes go (nx, ny, nz, 3), mm, and the grid of the nodes.
    """
    nodes = grid.covered_by(_LATTICE_MM)
    index = np.moveaxis(np.indices(nodes.shape), 0, -1)
    return transform.apply(nodes.index_to_world(index)), nodes


@dataclass(frozen=True, eq=False)
class FlowTransform(Checked, SpatialTransform):
    """Where points are after unit time in a flow whose velocity does not change: exp(v).

    Such a map is smooth and one-to-one, and its inverse is the flow backwards (Arsigny et al.,
    MICCAI 2006, doi 10.1007/11866565_113). It is computed by scaling and squaring.

    Attributes:
        velocity: mm per unit of time on the nodes of the grid (nx, ny, nz, 3); 0 at the edge.
        grid: nodes of the flow; its space is both from_space and to_space.
    """

    velocity: Field
    grid: Grid

    def __post_init__(self) -> None:
        velocity = np.array(self.velocity, dtype=np.float32)
        if velocity.shape != (*self.grid.shape, 3) or not np.all(np.isfinite(velocity)):
            raise InvariantError(
                "A flow has one finite velocity for each node of its grid",
                expected=f"shape {(*self.grid.shape, 3)}",
                found=f"shape {velocity.shape}",
            )
        velocity.setflags(write=False)
        object.__setattr__(self, "velocity", velocity)

    @property
    def from_space(self) -> str:  # type: ignore[override]
        """The space of the grid."""
        return self.grid.space

    @property
    def to_space(self) -> str:  # type: ignore[override]
        """The space of the grid."""
        return self.grid.space

    @cached_property
    def displacement(self) -> Field:
        """Way from each node to where the flow carries it, mm (nx, ny, nz, 3)."""
        return self._displacement(1.0)

    @cached_property
    def half_displacement(self) -> Field:
        """The same after half the time."""
        return self._displacement(0.5)

    def _displacement(self, time: float) -> Field:
        farthest = float(np.abs(self.velocity).max()) * time / min(self.grid.voxel_sizes_mm)
        # A first step of an eighth of a node is short enough for linear interpolation.
        doublings = max(0, int(np.ceil(np.log2(max(farthest, 1e-9) / 0.125))))
        affine = self.grid.affine[:3, :3]
        steps = self.velocity @ np.linalg.inv(affine).T * (time / 2**doublings)
        moved = np.ascontiguousarray(np.moveaxis(steps, -1, 0), dtype=np.float32)
        nodes = np.indices(self.grid.shape, dtype=np.float32)
        for _ in range(doublings):
            there = nodes + moved
            moved += np.stack(
                [ndimage.map_coordinates(part, there, order=1, mode="nearest") for part in moved]
            )
        return np.asarray(np.moveaxis(moved, 0, -1) @ affine.T, dtype=np.float32)

    def apply(self, points: Points) -> Points:
        return points + interpolate(self.displacement, self.grid, points)

    def inverse(self) -> FlowTransform:
        return FlowTransform(-self.velocity, self.grid)
