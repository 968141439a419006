"""How the two legs correspond: the result of registration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.anatomy import Side
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.core.transform import SpatialTransform

#: Fields of a match that hold one value by structure name.
BY_STRUCTURE = (
    "overlap",
    "overlap_before",
    "disagreement_ml",
    "outside_share",
    "surface_distance_mm",
)


@dataclass(frozen=True)
class LegMatch:
    """Correspondence of the mirrored left leg with the right leg.

    Attributes:
        left_to_right: left leg space -> right leg space.
        right_to_left: its inverse.
        overlap: Dice by structure name after registration, both directions together, where both
            legs show it.
        overlap_before: the same before registration (centres aligned only).
        disagreement_ml: volume by structure name that belongs to it in one leg only, after
            registration, mean of both directions; what both legs show.
        outside_share: share of the smaller label by structure name that lies outside the larger
            one, after registration, mean of both directions (0 to 1).
        surface_distance_mm: mean boundary distance by structure name, after registration.
        similarity, similarity_before: correlation of the images of both legs after and before
            registration; None without an image.
        similar_image: which image it is of; None without.
        inverse_error_mm: median distance of points carried over and back.
        folded_voxels: places of the right leg that are turned inside out.
        succeeded: False withholds everything that rests on the correspondence.
        reason: why it failed, None where it succeeded.
    """

    left_to_right: SpatialTransform
    right_to_left: SpatialTransform
    overlap: Mapping[str, float]
    overlap_before: Mapping[str, float]
    disagreement_ml: Mapping[str, float]
    outside_share: Mapping[str, float]
    surface_distance_mm: Mapping[str, float]
    similarity: float | None
    similarity_before: float | None
    similar_image: str | None
    inverse_error_mm: float
    folded_voxels: int
    succeeded: bool
    reason: str | None = None

    @classmethod
    def failed(cls, left_to_right: SpatialTransform, reason: str) -> LegMatch:
        """A match that says nothing but why there is none; the transform is a first guess."""
        return cls(
            left_to_right=left_to_right,
            right_to_left=left_to_right.inverse(),
            overlap={},
            overlap_before={},
            disagreement_ml={},
            outside_share={},
            surface_distance_mm={},
            similarity=None,
            similarity_before=None,
            similar_image=None,
            inverse_error_mm=0.0,
            folded_voxels=0,
            succeeded=False,
            reason=reason,
        )

    def out_of(self, side: Side) -> SpatialTransform:
        """The transform out of the space of a leg into that of the other one."""
        return self.right_to_left if side is Side.RIGHT else self.left_to_right

    def __post_init__(self) -> None:
        if self.left_to_right.from_space != self.right_to_left.to_space:
            raise InvariantError("A leg match holds a transform and its own inverse")
        if self.succeeded == (self.reason is not None):
            raise InvariantError("A failed registration says why; a successful one has no reason")
        for name in BY_STRUCTURE:
            object.__setattr__(self, name, FrozenDict(dict(getattr(self, name))))
