"""Maps between named spaces. Points of one space never enter a transform of another.

`reorient` (in pipeline.imaging) changes how voxels are stored and moves nothing; `mirror` here
changes the anatomy: a mirrored right leg is a left leg. They are different words on purpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InvariantError

Points = NDArray[np.float64]


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
class AffineTransform(SpatialTransform):
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
        return cast(Points, points @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    def inverse(self) -> AffineTransform:
        return AffineTransform(np.linalg.inv(self.matrix), self.to_space, self.from_space)


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
        return cast(NDArray[np.float64], t * t * (3.0 - 2.0 * t))

    def apply(self, points: Points) -> Points:
        weight = self.lower_weight(points)[..., None]
        up = points @ self.upper[:3, :3].T + self.upper[:3, 3]
        low = points @ self.lower[:3, :3].T + self.lower[:3, 3]
        return cast(Points, (1.0 - weight) * up + weight * low)

    def inverse(self) -> NumericInverse:
        return NumericInverse(self)


@dataclass(frozen=True, eq=False)
class NumericInverse(SpatialTransform):
    """The inverse of a blended affine, found by fixed-point iteration.

    The two affines differ little from each other, so the weight seen from the far side changes
    slowly and the iteration contracts; it stops below 1e-4 mm.
    """

    forward: BlendedAffine
    iterations: int = 50

    @property
    def from_space(self) -> str:  # type: ignore[override]
        """Where its points come from: the space the forward transform maps to."""
        return self.forward.to_space

    @property
    def to_space(self) -> str:  # type: ignore[override]
        """Where it maps to: the space the forward transform starts from."""
        return self.forward.from_space

    def apply(self, points: Points) -> Points:
        up_inverse = np.linalg.inv(self.forward.upper)
        low_inverse = np.linalg.inv(self.forward.lower)
        up = points @ up_inverse[:3, :3].T + up_inverse[:3, 3]
        low = points @ low_inverse[:3, :3].T + low_inverse[:3, 3]
        guess = 0.5 * (up + low)
        for _ in range(self.iterations):
            weight = self.forward.lower_weight(guess)[..., None]
            linear = (1.0 - weight) * up + weight * low
            # The blend of inverses is not the inverse of the blend: one Newton-like correction.
            update = linear - (self.forward.apply(linear) - points)
            step = float(np.abs(update - guess).max(initial=0.0))
            guess = update
            if step < 1e-4:
                break
        return guess

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
