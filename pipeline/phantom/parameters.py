"""What a phantom is made from: a person, a pose, a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pipeline.core.anatomy import MUSCLES, MUSCLES_BY_NAME, Side
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict

FatKey = str | tuple[str, Side]

#: Mean fat fraction of muscle: thighs of young adults 4.8 to 8.6 % (doi 10.1186/s12880-017-0185-9),
#: gluteals and tensor fasciae latae about 10 to 12 % (doi 10.1002/nbm.4636).
THIGH_FAT_RANGE = (0.048, 0.086)
HIP_FAT_RANGE = (0.10, 0.12)
_HIP_FATTY = frozenset(
    {"gluteus_maximus", "gluteus_medius", "gluteus_minimus", "tensor_fasciae_latae"}
)

#: Segment lengths as shares of height: hip centre to knee, knee to ankle.
THIGH_SHARE = 0.243
SHANK_SHARE = 0.222


@dataclass(frozen=True)
class Pose:
    """How the legs lie on the table. Pairs are (right, left).

    Attributes:
        gap_mm: distance of the thighs where they are closest; 0 = touching.
        rotation_deg: turn of the leg about its long axis, + = toes outwards; the pelvis stays.
        knee_flexion_deg: 0 to 15; the hip bends so that the ankle stays on the table.
        shift_mm: of a leg along the table, + = towards the head; the mid-sagittal plane stays.
        sway_mm: sideways bend of the whole body, the offset of the ankles' midline, + = to the
            patient's right.
    """

    gap_mm: float = 20.0
    rotation_deg: tuple[float, float] = (0.0, 0.0)
    knee_flexion_deg: tuple[float, float] = (0.0, 0.0)
    shift_mm: tuple[float, float] = (0.0, 0.0)
    sway_mm: float = 0.0

    def __post_init__(self) -> None:
        if not all(0.0 <= angle <= 15.0 for angle in self.knee_flexion_deg):
            raise InvariantError(
                "A phantom's knees bend by 0 to 15 degrees", found=str(self.knee_flexion_deg)
            )
        if self.gap_mm < 0:
            raise InvariantError(
                "The legs of a phantom cannot overlap",
                expected="a gap of 0 mm or more",
                found=f"{self.gap_mm} mm",
            )
        if not all(abs(angle) <= 45.0 for angle in self.rotation_deg):
            raise InvariantError(
                "A phantom's legs turn by at most 45 degrees", found=str(self.rotation_deg)
            )
        if not all(abs(shift) <= 60.0 for shift in self.shift_mm):
            raise InvariantError(
                "A phantom's legs shift by at most 60 mm", found=str(self.shift_mm)
            )

    def of(self, side: Side) -> tuple[float, float, float]:
        """Rotation in degrees, knee flexion in degrees and shift in mm of one leg."""
        k = 0 if side is Side.RIGHT else 1
        return (self.rotation_deg[k], self.knee_flexion_deg[k], self.shift_mm[k])


@dataclass(frozen=True)
class BodyParameters:
    """A person.

    Attributes:
        height_m, mass_kg: give the muscle volumes (Handsfield et al. 2014) and the lengths.
        sex: thickness of subcutaneous fat and width of the pelvis.
        fatness: factor on the thickness of subcutaneous fat.
        asymmetry_percent: 100 (R - L) / ((R + L) / 2) of total volume by muscle; others 0.
        fat_fraction: mean fat fraction, 0 to 1, by muscle (both sides) or by (muscle, side), which
            goes first; others are drawn by the seed from published ranges, alike on both sides.
        fat_texture: fat spread evenly in a muscle, or in streaks along it (the same mean).
        pose: how the legs lie.
        whole_body: adds trunk, head and arms of plain tissue, the hands next to the thighs.
        seed: for everything drawn.
    """

    height_m: float = 1.75
    mass_kg: float = 72.0
    sex: Literal["male", "female"] = "male"
    fatness: float = 1.0
    asymmetry_percent: Mapping[str, float] = field(default_factory=dict)
    fat_fraction: Mapping[FatKey, float] = field(default_factory=dict)
    fat_texture: Literal["uniform", "streaky"] = "uniform"
    pose: Pose = field(default_factory=Pose)
    whole_body: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        names = set(self.asymmetry_percent)
        names |= {key if isinstance(key, str) else key[0] for key in self.fat_fraction}
        unknown = names - MUSCLES_BY_NAME.keys()
        if unknown:
            raise InvariantError(
                "A phantom was given muscles outside the vocabulary",
                expected="names of pipeline.core.anatomy.MUSCLES",
                found=", ".join(sorted(unknown)),
            )
        if self.sex not in ("male", "female"):
            raise InvariantError(
                "A phantom's sex is not known", expected="male or female", found=repr(self.sex)
            )
        for what, value, low, high in (
            ("height", self.height_m, 1.2, 2.2),
            ("mass", self.mass_kg, 35.0, 160.0),
            ("fatness", self.fatness, 0.1, 4.0),
            *((f"asymmetry of {k}", v, -100.0, 100.0) for k, v in self.asymmetry_percent.items()),
            *((f"fat fraction of {k}", v, 0.0, 0.8) for k, v in self.fat_fraction.items()),
        ):
            if not low <= value <= high:
                raise InvariantError(
                    f"The {what} of a phantom is out of range",
                    expected=f"{low} to {high}",
                    found=f"{value}",
                )
        for name in ("asymmetry_percent", "fat_fraction"):
            object.__setattr__(self, name, FrozenDict(dict(getattr(self, name))))

    def volumes_ml(self, side: Side) -> dict[str, float]:
        """Prescribed volume of each muscle on a side, mL, with the asymmetry in it."""
        total = 47.0 * self.height_m * self.mass_kg + 1285.0
        sign = 0.5 if side is Side.RIGHT else -0.5
        return {
            m.name: (m.reference_slope * total + m.reference_intercept_ml)
            * (1.0 + sign * self.asymmetry_percent.get(m.name, 0.0) / 100.0)
            for m in MUSCLES
        }

    def fat_fractions(self, side: Side) -> dict[str, float]:
        """Mean fat fraction of each muscle on a side, 0 to 1."""
        drawn = np.random.default_rng([self.seed, 1]).uniform(size=len(MUSCLES))
        found: dict[str, float] = {}
        for m, share in zip(MUSCLES, drawn, strict=True):
            low, high = HIP_FAT_RANGE if m.name in _HIP_FATTY else THIGH_FAT_RANGE
            default = self.fat_fraction.get(m.name, low + (high - low) * float(share))
            found[m.name] = self.fat_fraction.get((m.name, side), default)
        return found


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
            rotation_deg=(pose.rotation_deg[1], pose.rotation_deg[0]),
            knee_flexion_deg=(pose.knee_flexion_deg[1], pose.knee_flexion_deg[0]),
            shift_mm=(pose.shift_mm[1], pose.shift_mm[0]),
            sway_mm=-pose.sway_mm,
        ),
    )
