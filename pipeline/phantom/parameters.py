"""What a phantom is made from: a person, a pose, a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from pipeline.core.anatomy import MUSCLES, MUSCLES_BY_NAME, Side
from pipeline.core.errors import InvariantError


@dataclass(frozen=True)
class Pose:
    """How the legs lie on the table; pairs are (right, left).

    Attributes:
        gap_mm: distance of the thighs where they are closest; 0 = touching.
        rotation_deg: turn about the long axis, + = toes outwards.
        knee_flexion_deg: the shank falls back behind the thigh's line, 0 to 15.
        shift_mm: along the table, + = towards the head.
    """

    gap_mm: float = 20.0
    rotation_deg: tuple[float, float] = (0.0, 0.0)
    knee_flexion_deg: tuple[float, float] = (0.0, 0.0)
    shift_mm: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class BodyParameters:
    """A person.

    Attributes:
        height_m, mass_kg: give the muscle volumes (Handsfield et al. 2014).
        sex: "male" or "female"; thickness of subcutaneous fat only.
        fatness: factor on the thickness of subcutaneous fat.
        asymmetry_percent: 100 (R - L) / ((R + L) / 2) of total volume by muscle; others 0.
        fat_fraction: 0 to 1 by muscle, or by (muscle, side); others are drawn by the seed from
            the published range of young thighs, 4.8 to 8.6 %, alike on both sides.
        fat_texture: fat spread evenly, or in streaks along the muscle (the same mean).
        pose: how the legs lie.
        whole_body: adds trunk, head and arms of plain tissue.
        seed: for everything drawn.
    """

    height_m: float = 1.75
    mass_kg: float = 72.0
    sex: Literal["male", "female"] = "male"
    fatness: float = 1.0
    asymmetry_percent: Mapping[str, float] = field(default_factory=dict)
    fat_fraction: Mapping[str | tuple[str, Side], float] = field(default_factory=dict)
    fat_texture: Literal["uniform", "streaky"] = "uniform"
    pose: Pose = field(default_factory=Pose)
    whole_body: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        names = set(self.asymmetry_percent) | {
            key if isinstance(key, str) else key[0] for key in self.fat_fraction
        }
        unknown = names - MUSCLES_BY_NAME.keys()
        if unknown:
            raise InvariantError(
                "A phantom was given muscles that are not in the vocabulary",
                found=", ".join(sorted(unknown)),
            )
        if not (1.0 <= self.height_m <= 2.3 and 25.0 <= self.mass_kg <= 250.0):
            raise InvariantError(
                "A phantom needs a height of 1 to 2.3 m and a mass of 25 to 250 kg",
                found=f"{self.height_m} m, {self.mass_kg} kg",
            )
        if not all(0.0 <= angle <= 15.0 for angle in self.pose.knee_flexion_deg):
            raise InvariantError(
                "A phantom's knees bend by 0 to 15 degrees",
                found=str(self.pose.knee_flexion_deg),
            )
        for name in ("asymmetry_percent", "fat_fraction"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def volumes_ml(self, side: Side) -> dict[str, float]:
        """Volume of each muscle on a side, mL."""
        total = 47.0 * self.height_m * self.mass_kg + 1285.0
        sign = 0.5 if side is Side.RIGHT else -0.5
        return {
            m.name: (m.reference_slope * total + m.reference_intercept_ml)
            * (1.0 + sign * self.asymmetry_percent.get(m.name, 0.0) / 100.0)
            for m in MUSCLES
        }

    def fat_fractions(self, side: Side) -> dict[str, float]:
        """Mean fat fraction of each muscle on a side, 0 to 1."""
        rng = np.random.default_rng([self.seed, 1])
        drawn = rng.uniform(0.048, 0.086, size=len(MUSCLES))
        return {
            m.name: self.fat_fraction.get(
                (m.name, side), self.fat_fraction.get(m.name, float(drawn[k]))
            )
            for k, m in enumerate(MUSCLES)
        }


def mirrored(parameters: BodyParameters) -> BodyParameters:
    """The person in the mirror: what was left is right."""
    pose = parameters.pose
    return replace(
        parameters,
        asymmetry_percent={k: -v for k, v in parameters.asymmetry_percent.items()},
        fat_fraction={
            key if isinstance(key, str) else (key[0], key[1].other): value
            for key, value in parameters.fat_fraction.items()
        },
        pose=Pose(
            gap_mm=pose.gap_mm,
            rotation_deg=pose.rotation_deg[::-1],
            knee_flexion_deg=pose.knee_flexion_deg[::-1],
            shift_mm=pose.shift_mm[::-1],
        ),
    )
