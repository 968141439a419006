"""A whole phantom: two legs in a pose, what surrounds them, and the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import MUSCLES, Side
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE
from pipeline.phantom.model import (
    AIR,
    BOTTOM_LEVEL,
    DETAILS,
    SKIN,
    SOFT_TISSUE,
    SUBCUTANEOUS_FAT,
    TOP_LEVEL,
    LegModel,
    build_leg,
    level_of,
)
from pipeline.phantom.parameters import BodyParameters, Pose

Floats = NDArray[np.float64]

#: Half the distance of the hip centres as a share of height.
_HIP_SHARE = 0.052
_FASCIA_MM = 1.2
#: Below this level the legs are apart; above it the pelvis joins them.
_CROTCH_LEVEL = 0.1
#: The knee bends over this length below the joint, mm.
_BEND_MM = 60.0
#: Streaks: cells of the texture, mm, and how far the fraction swings about its mean.
_STREAK_MM = (5.0, 5.0, 25.0)
_STREAK_SWING = 0.8


@dataclass(frozen=True)
class MuscleTruth:
    """True values of one muscle on one side."""

    volume_ml: float
    lean_volume_ml: float
    fat_fraction: float


Truth = Mapping[tuple[str, Side], MuscleTruth]


def asymmetry_percent(truth: Truth, name: str, *, lean: bool) -> float:
    """True asymmetry index 100 (R - L) / ((R + L) / 2) of a muscle, percent."""
    right, left = (
        getattr(truth[name, side], "lean_volume_ml" if lean else "volume_ml")
        for side in (Side.RIGHT, Side.LEFT)
    )
    return float(200.0 * (right - left) / (right + left))


@dataclass(frozen=True, eq=False)
class PosedLeg:
    """A leg model and where it lies. Leg coordinates are those of a right leg.

    Attributes:
        model: cross-sections.
        hip_x_mm: distance of the hip centre from the midline.
        spread: outward shift per mm below the hip.
        rotation_deg, knee_flexion_deg, shift_mm: see Pose.
        fractions: fat fraction by muscle id, 256 entries.
        texture: factor field about 0, or None for evenly spread fat.
        texture_mean: mean of the texture over each muscle, 256 entries.
    """

    model: LegModel
    hip_x_mm: float
    spread: float
    rotation_deg: float
    knee_flexion_deg: float
    shift_mm: float
    fractions: NDArray[np.float32]
    texture: NDArray[np.float32] | None
    texture_mean: NDArray[np.float32]

    def offsets(self, z: Floats) -> tuple[Floats, Floats]:
        """Where the limb axis runs at heights z of the leg: x from the midline, y, mm."""
        model = self.model
        below_hip = np.maximum(model.thigh_mm - z, 0.0)
        x = self.hip_x_mm + self.spread * below_hip
        below_knee = np.maximum(-z, 0.0)
        bent = np.where(
            below_knee < _BEND_MM,
            below_knee**2 / (2.0 * _BEND_MM),
            below_knee - _BEND_MM / 2.0,
        )
        # A shear, not a turn: it leaves every cross-section and so every volume as it is.
        return x, -np.tan(np.deg2rad(self.knee_flexion_deg)) * bent

    def lookup(self, x: Floats, y: Floats, z: Floats) -> tuple[NDArray[np.uint8], Floats]:
        """Tissue code and fat fraction (of muscles) at points of this side, x >= 0 outwards."""
        model = self.model
        own_z = z - self.shift_mm
        at_x, at_y = self.offsets(own_z)
        angle = np.deg2rad(self.rotation_deg)
        dx, dy = x - at_x, y - at_y
        u = np.cos(angle) * dx - np.sin(angle) * dy
        v = np.sin(angle) * dx + np.cos(angle) * dy
        index = [
            np.floor((c - o) / s + 0.5).astype(np.int32)
            for c, o, s in zip((u, v, own_z), model.origin, model.spacing, strict=True)
        ]
        inside = np.ones(u.shape, dtype=np.bool_)
        for k in range(3):
            inside &= (index[k] >= 0) & (index[k] < model.codes.shape[k])
        codes = np.zeros(u.shape, dtype=np.uint8)
        picked = tuple(i[inside] for i in index)
        codes[inside] = model.codes[picked]
        fractions = self.fractions[codes].astype(np.float64)
        if self.texture is not None:
            codes_here = codes[inside]
            cell = tuple(
                np.minimum((i * s / m).astype(np.int32), n - 1)
                for i, s, m, n in zip(
                    picked, model.spacing, _STREAK_MM, self.texture.shape, strict=True
                )
            )
            swing = self.texture[cell] - self.texture_mean[codes_here]
            fractions[inside] *= 1.0 + _STREAK_SWING * swing
        return codes, fractions


@dataclass(frozen=True, eq=False)
class Body:
    """A phantom ready to be scanned. World: RAS mm, x = 0 the midline, z = 0 the knees.

    Attributes:
        parameters: what it was made from.
        legs: posed legs by side.
        truth: continuous truth, from the model itself.
        landmarks: hip, knee and ankle centre by side, RAS mm.
    """

    parameters: BodyParameters
    legs: Mapping[Side, PosedLeg]
    truth: Truth
    landmarks: Mapping[tuple[str, Side], tuple[float, float, float]]

    def lookup(self, x: Floats, y: Floats, z: Floats) -> tuple[NDArray[np.uint8], Floats, Floats]:
        """Tissue code, fat fraction, and sign of the side (+1 right, -1 left) at points.

        All arrays of one shape, RAS mm.
        """
        codes = np.zeros(x.shape, dtype=np.uint8)
        fractions = np.zeros(x.shape)
        side = np.where(x >= 0, 1.0, -1.0)
        for name, sign in ((Side.RIGHT, 1.0), (Side.LEFT, -1.0)):
            mine = side == sign
            codes[mine], fractions[mine] = self.legs[name].lookup(sign * x[mine], y[mine], z[mine])
        self._surround(codes, np.abs(x), y, z)
        return codes, fractions, side

    def _surround(
        self, codes: NDArray[np.uint8], x: Floats, y: Floats, z: Floats
    ) -> None:
        """Pelvis, and trunk, head and arms where asked for, in place; alike on both sides."""
        model = self.legs[Side.RIGHT].model
        height = 1000.0 * self.parameters.height_m
        scale = height / 1750.0
        level = level_of(z, model.thigh_mm, model.shank_mm)
        empty = (codes == AIR) | (codes == SKIN)
        # The pelvis closes smoothly towards the crotch.
        closing = np.clip((_CROTCH_LEVEL - level) / 0.15, 0.0, 1.0) ** 0.5
        pelvis = (level < _CROTCH_LEVEL) & (level >= TOP_LEVEL - 0.02)
        _ellipse(codes, empty & pelvis, x, y + 10 * scale, 165 * scale * closing, 100 * scale)
        if not self.parameters.whole_body:
            return
        sole = (1.0 - BOTTOM_LEVEL) * model.shank_mm
        up = (z - sole) / height
        trunk = (level < TOP_LEVEL) & (up < 0.82)
        _ellipse(codes, empty & trunk, x, y, 160 * scale, 105 * scale)
        neck = (up >= 0.82) & (up < 0.87)
        _ellipse(codes, empty & neck, x, y, 58 * scale, 58 * scale)
        head = (up >= 0.87) & (up < 1.0)
        roundness = np.sqrt(np.clip(1.0 - ((up - 0.93) / 0.075) ** 2, 0.0, 1.0))
        _ellipse(codes, empty & head, x, y, 78 * scale * roundness, 98 * scale * roundness)
        arm = (up > 0.38) & (up < 0.80)
        width = np.interp(up, [0.38, 0.45, 0.5, 0.62, 0.8], [10, 24, 26, 38, 50]) * scale
        _ellipse(codes, empty & arm, x - 235 * scale, y, width, np.maximum(width, 30 * scale))


def _ellipse(
    codes: NDArray[np.uint8],
    where: NDArray[np.bool_],
    x: Floats,
    y: Floats,
    a: Floats | float,
    b: Floats | float,
) -> None:
    """Soft tissue with a rim of fat and skin inside an ellipse, in place."""
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.sqrt((x / np.maximum(a, 1e-6)) ** 2 + (y / np.maximum(b, 1e-6)) ** 2)
    for limit, code in ((1.0, SKIN), (0.985, SUBCUTANEOUS_FAT), (0.85, SOFT_TISSUE)):
        codes[where & (r < limit)] = code


def make_body(
    parameters: BodyParameters, *, detail: Literal["full", "reduced"] = "full"
) -> Body:
    """Build a phantom.

    Args:
        parameters: person, pose and seed.
        detail: "full" (0.8 x 0.8 x 3 mm model) or "reduced" (1.6 x 1.6 x 6 mm, for tests).
    """
    pose = parameters.pose
    hip_x = _HIP_SHARE * 1000.0 * parameters.height_m
    models = {
        side: _leg_model(
            tuple(parameters.volumes_ml(side).items()),
            parameters.height_m,
            parameters.sex == "female",
            parameters.fatness,
            detail,
        )
        for side in Side
    }
    # One spread for both legs, so that a symmetric person lies symmetrically.
    spread = max(_spread(model, hip_x, pose.gap_mm) for model in models.values())
    legs = {}
    for k, side in enumerate((Side.RIGHT, Side.LEFT)):
        texture, texture_mean = _texture(models[side], parameters)
        table = np.zeros(256, dtype=np.float32)
        fractions = parameters.fat_fractions(side)
        for muscle in MUSCLES:
            table[muscle.id] = fractions[muscle.name]
        legs[side] = PosedLeg(
            model=models[side],
            hip_x_mm=hip_x,
            spread=spread,
            rotation_deg=pose.rotation_deg[k],
            knee_flexion_deg=pose.knee_flexion_deg[k],
            shift_mm=pose.shift_mm[k],
            fractions=table,
            texture=texture,
            texture_mean=texture_mean,
        )
    truth = {}
    landmarks = {}
    for side, leg in legs.items():
        counts = np.bincount(leg.model.codes.ravel(), minlength=256)
        for muscle in MUSCLES:
            volume = float(counts[muscle.id]) * leg.model.voxel_ml
            fraction = float(leg.fractions[muscle.id])
            truth[muscle.name, side] = MuscleTruth(volume, volume * (1.0 - fraction), fraction)
        landmarks.update(_landmarks(leg, side))
    return Body(parameters, legs, truth, landmarks)


@lru_cache(maxsize=16)
def _leg_model(
    volumes: tuple[tuple[str, float], ...],
    height_m: float,
    female: bool,
    fatness: float,
    detail: str,
) -> LegModel:
    return build_leg(
        dict(volumes),
        height_m=height_m,
        female=female,
        fatness=fatness,
        fascia_mm=_FASCIA_MM,
        detail=DETAILS[detail],
    )


def _spread(model: LegModel, hip_x: float, gap_mm: float) -> float:
    """Outward shift per mm below the hip that leaves the gap between the thighs."""
    z = model.level_z()
    level = level_of(z, model.thigh_mm, model.shank_mm)
    free = (level > _CROTCH_LEVEL + 0.05) & (level < 2.0)
    needed = model.inner_skin_mm[free] + gap_mm / 2.0 - hip_x
    return float(max(0.0, (needed / (model.thigh_mm - z[free])).max()))


def _texture(
    model: LegModel, parameters: BodyParameters
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
    """Smooth random field within +-1 along the limb, the same for both sides."""
    means = np.zeros(256, dtype=np.float32)
    if parameters.fat_texture == "uniform":
        return None, means
    rng = np.random.default_rng([parameters.seed, 2])
    extent = np.array(model.codes.shape) * model.spacing
    shape = np.maximum(np.ceil(extent / np.array(_STREAK_MM)).astype(int), 1)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 0.8)
    field = np.tanh(noise / noise.std()).astype(np.float32)
    cells = [
        np.minimum((np.arange(n) * s / m).astype(int), c - 1)
        for n, s, m, c in zip(model.codes.shape, model.spacing, _STREAK_MM, shape, strict=True)
    ]
    total, count = np.zeros(256), np.zeros(256)
    for k, cell in enumerate(cells[2]):
        plane = model.codes[:, :, k].ravel()
        values = field[:, :, cell][np.ix_(cells[0], cells[1])].ravel()
        total += np.bincount(plane, weights=values, minlength=256)
        count += np.bincount(plane, minlength=256)
    means[:] = total / np.maximum(count, 1.0)
    return field, means


def _landmarks(leg: PosedLeg, side: Side) -> dict[tuple[str, Side], tuple[float, float, float]]:
    sign = 1.0 if side is Side.RIGHT else -1.0
    out = {}
    joints = (("hip", leg.model.thigh_mm), ("knee", 0.0), ("ankle", -leg.model.shank_mm))
    for name, z in joints:
        x, y = leg.offsets(np.array(z))
        out[name, side] = (sign * float(x), float(y), z + leg.shift_mm)
    return out


def grid_for(
    body: Body,
    voxel_mm: tuple[float, float, float],
    *,
    z_range_mm: tuple[float, float] | None = None,
    oblique_deg: float = 0.0,
    margin_mm: float = 12.0,
) -> Grid:
    """A grid that shows both legs (or the whole body) with axial slices.

    Args:
        body: the phantom.
        voxel_mm: voxel size.
        z_range_mm: only these heights (0 = the knees); None: everything.
        oblique_deg: tilt about the x and y axes.
        margin_mm: air around.
    """
    model = body.legs[Side.RIGHT].model
    pose = body.parameters.pose
    low = (1.0 - BOTTOM_LEVEL) * model.shank_mm + min(pose.shift_mm)
    high = (1.0 - TOP_LEVEL) * model.thigh_mm + max(pose.shift_mm)
    legs = body.legs.values()
    reach = max(
        float(leg.offsets(np.array(-leg.model.shank_mm))[0]) for leg in legs
    )
    half_x = max(reach + 70.0, 190.0 * body.parameters.height_m / 1.75)
    half_x = max(half_x, max(leg.hip_x_mm - leg.model.origin[0] * 0.8 for leg in legs))
    front, back = 130.0, 150.0 + max(
        abs(float(leg.offsets(np.array(-leg.model.shank_mm))[1])) for leg in legs
    )
    if body.parameters.whole_body:
        high = (1.0 - BOTTOM_LEVEL) * model.shank_mm + 1000.0 * body.parameters.height_m
        half_x = max(half_x, 300.0)
    if z_range_mm is not None:
        low, high = z_range_mm
    elif oblique_deg == 0.0:
        low, high = low - margin_mm, high + margin_mm
    lower = np.array([-half_x - margin_mm, -back - margin_mm, low])
    upper = np.array([half_x + margin_mm, front + margin_mm, high])
    size = np.array(voxel_mm)
    shape = np.ceil((upper - lower) / size).astype(int)
    angle = np.deg2rad(oblique_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    about_y = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    turn = about_y @ about_x
    if oblique_deg:
        # A tilted box must be larger to hold the same body.
        shape = shape + np.ceil(2.0 * np.tan(angle) * (shape * size).max() / 2.0 / size).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = turn * size
    middle = (lower + upper) / 2.0
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2.0)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, SCANNER_SPACE)
