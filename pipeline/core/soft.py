"""Soft labels: what an engine thinks of every voxel, before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.core.grid import Grid


@dataclass(frozen=True)
class Confidence:
    """What an engine says of its own labels of one structure.

    Attributes:
        agreement: 0 to 1, how far the labels stay the same when the leg is seen a little
            differently.
        volume_ratios: the structure's volume in each of those looks, divided by its volume in the
            undisturbed one on the same levels. Both legs are disturbed alike, look by look.
    """

    agreement: float
    volume_ratios: tuple[float, ...]


@dataclass(frozen=True)
class LegPose:
    """How a leg lies against what its file says: True as stated, False the other way round, None
    where it cannot be told.

    Attributes:
        front: front and back.
        outside: the outer and the inner side.
        upright: head and foot.
    """

    front: bool | None
    outside: bool | None
    upright: bool | None


@dataclass(frozen=True, eq=False)
class Membership:
    """How much voxels belong to one structure, inside its bounding box.

    Attributes:
        values: float32, 0 to 1.
        lower: index of the box on the grid of the soft labels. Outside it is 0.
    """

    values: NDArray[np.float32]
    lower: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Memberships of one leg in right-leg pose, on the engine's own grid.

    What all structures leave of 1 is background. Each structure is stored in its own box, so
    that 30 muscles take little more memory than one leg.

    Attributes:
        grid: any grid in the space of the leg; it need not be the leg's own.
        memberships: by id of LEG_SCHEME.
        confidence: by structure name, where the engine states one.
        labelled: (low, high) in index of the third axis of grid, high exclusive: the levels the
            engine spoke of; outside, the absence of a label says nothing.
        automatic: found by a program in the images, not drawn by a person: labels are kept to
            the leg's own tissue, and checked for what anatomy allows.
        pose: how the leg lies in the images; None: the engine did not look, the labels tell.
    """

    grid: Grid
    memberships: Mapping[int, Membership]
    labelled: tuple[int, int]
    confidence: Mapping[str, Confidence] = field(default_factory=dict)
    automatic: bool = False
    pose: LegPose | None = None

    def __post_init__(self) -> None:
        for value, membership in self.memberships.items():
            if value not in LEG_SCHEME.structures:
                raise InvariantError(f"Soft labels name the unknown structure id {value}")
            box = zip(membership.lower, membership.values.shape, self.grid.shape, strict=True)
            if any(low < 0 or low + n > size for low, n, size in box):
                raise InvariantError(
                    f"The box of structure id {value} leaves the grid of the soft labels"
                )
        low, high = self.labelled
        if not 0 <= low <= high <= self.grid.shape[2]:
            raise InvariantError(
                "The labelled levels lie outside the grid of the soft labels",
                expected=f"within 0 to {self.grid.shape[2]}",
                found=f"{low} to {high}",
            )
        object.__setattr__(self, "memberships", FrozenDict(dict(self.memberships)))
        object.__setattr__(self, "confidence", FrozenDict(dict(self.confidence)))
