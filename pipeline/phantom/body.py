"""A whole phantom: two legs in a pose, what surrounds them, and the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import MUSCLES, Side
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.core.grid import Grid
from pipeline.core.scan import SCANNER_SPACE
from pipeline.phantom.leg import (
    AIR,
    BOTTOM_LEVEL,
    DETAILS,
    SKIN,
    SUBCUTANEOUS,
    TOP_LEVEL,
    VISCERA,
    LegKey,
    LegModel,
    leg_model,
)
from pipeline.phantom.parameters import SHANK_SHARE, THIGH_SHARE, BodyParameters
from pipeline.phantom.pose import CROTCH_LEVEL, PosedAxis

Floats = NDArray[np.float64]

#: Streaks: cells of the texture (mm), and the spread of the logarithm of the fat fraction.
_STREAK_MM = (3.2, 3.2, 20.0)
_STREAK_SPREAD = 0.7
#: Fat fraction no streak goes above.
_STREAK_LIMIT = 0.9


@dataclass(frozen=True)
class MuscleTruth:
    """True values of one muscle on one side."""

    volume_ml: float
    lean_volume_ml: float
    fat_fraction: float


Truth = Mapping[tuple[str, Side], MuscleTruth]


def asymmetry_percent(truth: Truth, name: str, *, lean: bool) -> float:
    """True asymmetry index 100 (R - L) / ((R + L) / 2) of a muscle, percent.

    Raises:
        KeyError: the truth does not have the muscle on both sides.
    """
    right, left = (
        getattr(truth[name, side], "lean_volume_ml" if lean else "volume_ml")
        for side in (Side.RIGHT, Side.LEFT)
    )
    return float(200.0 * (right - left) / (right + left))


@dataclass(frozen=True, eq=False)
class Streaks:
    """Fat fraction relative to its mean, in leg coordinates.

    Attributes:
        field: positive factors on a coarse raster over the leg model.
        norm: by muscle id, what the fat fraction is multiplied with besides the field, so that
            the mean over the muscle is exact.
    """

    field: NDArray[np.float32]
    norm: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PosedLeg:
    """A leg, where it lies and how fat its muscles are.

    Attributes:
        pose: model and place.
        fractions: mean fat fraction by tissue code, 256 entries.
        streaks: None where fat is spread evenly.
    """

    pose: PosedAxis
    fractions: NDArray[np.float32]
    streaks: Streaks | None

    @cached_property
    def outer_skin_mm(self) -> float:
        """Largest distance of the skin from the midline, the pelvis included."""
        model = self.model
        rows = np.flatnonzero(np.asarray(model.codes.max(axis=(1, 2)) > AIR))
        outermost = model.origin[0] + model.spacing[0] * float(rows[-1])
        return model.half_hip_mm + self.pose.widening + outermost

    @property
    def model(self) -> LegModel:
        """The leg before its pose."""
        return self.pose.model

    def lookup(
        self, x: Floats, y: Floats, s: Floats
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Tissue code and fat fraction (of muscles) at points in leg coordinates."""
        model = self.model
        shape = model.codes.shape
        index = [
            np.rint((c - o) / d).astype(np.int32)
            for c, o, d in zip((x, y, s), model.origin, model.spacing, strict=True)
        ]
        # Where legs are moved apart, the middle of the pelvis is drawn out with them.
        np.maximum(index[0], 0, out=index[0], where=s < model.position_mm(CROTCH_LEVEL))
        inside = np.ones(index[0].shape, dtype=np.bool_)
        for k in range(3):
            inside &= (index[k] >= 0) & (index[k] < shape[k])
            np.clip(index[k], 0, shape[k] - 1, out=index[k])
        codes = model.codes[index[0], index[1], index[2]]
        codes[~inside] = AIR
        fractions = self.fractions[codes]
        if self.streaks is not None:
            cell = [
                np.minimum((i * d / c).astype(np.int32), n - 1)
                for i, d, c, n in zip(
                    index, model.spacing, _STREAK_MM, self.streaks.field.shape, strict=True
                )
            ]
            factor = self.streaks.field[cell[0], cell[1], cell[2]] * self.streaks.norm[codes]
            fractions = np.minimum(fractions * factor, np.float32(_STREAK_LIMIT))
        return codes, fractions


@dataclass(frozen=True, eq=False)
class Body:
    """A phantom ready to be scanned. World: RAS mm, x = 0 the midline, z = 0 the straight knees.

    Attributes:
        parameters: what it was made from.
        legs: by side.
        truth: continuous truth, counted in the model itself.
        landmarks: "hip", "knee" and "ankle" centre by side, RAS mm.
    """

    parameters: BodyParameters
    legs: Mapping[Side, PosedLeg]
    truth: Truth
    landmarks: Mapping[tuple[str, Side], tuple[float, float, float]]

    def straighten(self, x: Floats, z: Floats) -> Floats:
        """x of points with the sideways bend of the body taken out."""
        sway = self.parameters.pose.sway_mm
        if sway == 0.0:
            return x
        model = self.legs[Side.RIGHT].model
        return x - sway * bent(z, model)

    def surround(self, x: Floats, y: Floats, z: Floats) -> NDArray[np.uint8]:
        """Trunk, head and arms at points (x from the straightened midline); AIR elsewhere."""
        codes = np.zeros(x.shape, dtype=np.uint8)
        model = self.legs[Side.RIGHT].model
        height = 1000.0 * self.parameters.height_m
        k = height / 1750.0
        sole = model.thigh_mm - model.position_mm(BOTTOM_LEVEL)
        up = (z - sole) / height
        top = model.thigh_mm - TOP_LEVEL * model.thigh_mm
        side = np.abs(x)
        top_x, top_y = 141.0 * k, 93.0 * k
        share = np.clip((z - top) / (0.82 * height + sole - top), 0.0, 1.0)
        trunk = (up < 0.82) & (z > top - model.spacing[2])
        fat = 12.0 * self.parameters.fatness
        _ellipse(codes, trunk, side, y, (top_x + 30 * k * share, top_y + 14 * k * share), fat)
        _ellipse(codes, (up >= 0.82) & (up < 0.88), side, y, (56 * k, 58 * k), 4.0)
        roundness = np.sqrt(np.clip(1.0 - ((up - 0.935) / 0.068) ** 2, 0.0, 1.0))
        _ellipse(codes, up >= 0.86, side, y - 8 * k, (76 * k * roundness, 96 * k * roundness), 4.0)
        arm = (up > 0.39) & (up < 0.815)
        wide = np.interp(up, [0.39, 0.43, 0.48, 0.53, 0.62, 0.80], [6, 24, 20, 24, 36, 46]) * k
        deep = np.interp(up, [0.39, 0.43, 0.48, 0.53, 0.62, 0.80], [14, 44, 24, 26, 38, 50]) * k
        # The arm leaves the trunk at the shoulder; the hand lies next to the thigh.
        hand = max(leg.outer_skin_mm for leg in self.legs.values()) + 28.0 * k
        centre = np.interp(
            up, [0.39, 0.5, 0.62, 0.8], [hand, hand + 4, 0.5 * hand + 125 * k, 190 * k]
        )
        _ellipse(codes, arm, side - centre, y + 14 * k, (wide, deep), 3.0)
        return codes


def bent(z: Floats, model: LegModel) -> Floats:
    """Course of the sideways bend: 0 at the hips, 1 at the ankles, quadratic between."""
    below = (model.thigh_mm - z) / (model.thigh_mm + model.shank_mm)
    return below * np.abs(below)


def _ellipse(
    codes: NDArray[np.uint8],
    where: NDArray[np.bool_],
    x: Floats,
    y: Floats,
    axes: tuple[Floats | float, Floats | float],
    fat_mm: float,
) -> None:
    """Soft tissue, a rim of fat and skin inside an ellipse, in place where there is air."""
    a, b = (np.maximum(v, 1e-3) for v in axes)
    where = where & (codes == AIR)
    radius = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    depth = (1.0 - radius) * np.minimum(a, b)
    codes[where & (depth > 0)] = SKIN
    codes[where & (depth > 2.0)] = SUBCUTANEOUS
    codes[where & (depth > 2.0 + fat_mm)] = VISCERA


def make_body(parameters: BodyParameters, *, detail: Literal["full", "reduced"] = "full") -> Body:
    """Build a phantom.

    Args:
        parameters: person, pose and seed.
        detail: "full" (0.8 x 0.8 x 1.5 mm model) or "reduced" (1.6 x 1.6 x 5 mm, for tests).

    Raises:
        InvariantError: no such detail.
    """
    if detail not in DETAILS:
        raise InvariantError(
            "A phantom has no such detail", expected=" or ".join(DETAILS), found=repr(detail)
        )
    models = {side: leg_model(_key(parameters, side, detail)) for side in Side}
    pose = parameters.pose
    straight = {side: PosedAxis(models[side], 0.0, 0.0, 0.0, *pose.of(side)) for side in Side}
    # The same for both legs, so that the midline stays in the middle.
    needs = [leg.needs(pose.gap_mm) for leg in straight.values()]
    widening, slope, shank_slope = (max(values) for values in zip(*needs, strict=True))
    legs = {}
    truth: dict[tuple[str, Side], MuscleTruth] = {}
    landmarks: dict[tuple[str, Side], tuple[float, float, float]] = {}
    for side, model in models.items():
        placed = PosedAxis(model, widening, slope, shank_slope, *pose.of(side))
        fractions = np.zeros(256, dtype=np.float32)
        by_name = parameters.fat_fractions(side)
        for m in MUSCLES:
            fractions[m.id] = by_name[m.name]
        streaks = _streaks(model, parameters.seed, fractions, parameters.fat_texture)
        legs[side] = PosedLeg(placed, fractions, streaks)
        for name, volume in model.volumes_ml().items():
            fraction = by_name[name]
            truth[name, side] = MuscleTruth(volume, volume * (1.0 - fraction), fraction)
        sign = 1.0 if side is Side.RIGHT else -1.0
        for name, level in (("hip", 0.0), ("knee", 1.0), ("ankle", 2.0)):
            x, y, z = placed.axis_point(level)
            x = sign * x + pose.sway_mm * float(bent(np.array(z), model))
            landmarks[name, side] = (x, y, z)
    return Body(parameters, FrozenDict(legs), FrozenDict(truth), FrozenDict(landmarks))


def _key(parameters: BodyParameters, side: Side, detail: str) -> LegKey:
    own = tuple(parameters.volumes_ml(side).values())
    other = tuple(parameters.volumes_ml(side.other).values())
    return LegKey(
        volumes_ml=own,
        mean_volumes_ml=tuple(0.5 * (a + b) for a, b in zip(own, other, strict=True)),
        height_m=parameters.height_m,
        thigh_mm=1000.0 * THIGH_SHARE * parameters.height_m,
        shank_mm=1000.0 * SHANK_SHARE * parameters.height_m,
        sex=parameters.sex,
        fatness=parameters.fatness,
        detail=detail,
    )


def _streaks(
    model: LegModel, seed: int, fractions: NDArray[np.float32], texture: str
) -> Streaks | None:
    """Log-normal factors, long along the limb; the same field for both sides."""
    if texture == "uniform":
        return None
    rng = np.random.default_rng([seed, 2])
    extent = np.array(model.codes.shape) * np.array(model.spacing)
    shape = np.maximum(np.ceil(extent / np.array(_STREAK_MM)).astype(int), 1)
    noise = ndimage.gaussian_filter(rng.standard_normal(tuple(shape)), (0.7, 0.7, 1.0))
    field = np.exp(_STREAK_SPREAD * noise / noise.std()).astype(np.float32)
    cells = [
        np.minimum((np.arange(n) * np.float64(d) / c).astype(np.int32), m - 1)
        for n, d, c, m in zip(model.codes.shape, model.spacing, _STREAK_MM, shape, strict=True)
    ]
    i, j, k = np.nonzero((model.codes > 0) & (model.codes <= MUSCLES[-1].id))
    codes = model.codes[i, j, k]
    factor = field[cells[0][i], cells[1][j], cells[2][k]]
    norm = np.ones(256, dtype=np.float32)
    # The cap on single streaks lowers the mean a little: a few rounds put it back.
    for _ in range(6):
        capped = np.minimum(fractions[codes] * norm[codes] * factor, np.float32(_STREAK_LIMIT))
        counts = np.bincount(codes, minlength=256)
        sums = np.bincount(codes, weights=capped, minlength=256)
        means = sums / np.maximum(counts, 1)
        ratio = np.divide(fractions, means, out=np.ones(256), where=means > 0)
        norm = (norm * ratio).astype(np.float32)
    return Streaks(field, norm)


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
        voxel_mm: voxel size along x, y, z.
        z_range_mm: only these heights (0 = the knees); None: everything.
        oblique_deg: tilt about the x and y axes.
        margin_mm: air around.
    """
    parameters = body.parameters
    right = body.legs[Side.RIGHT].model
    low_z, high_z = (
        right.thigh_mm - right.position_mm(level) for level in (BOTTOM_LEVEL, TOP_LEVEL)
    )
    lower = np.array([np.inf, np.inf, low_z + min(0.0, *parameters.pose.shift_mm)])
    upper = np.array([-np.inf, -np.inf, high_z + max(0.0, *parameters.pose.shift_mm)])
    for side, leg in body.legs.items():
        model = leg.model
        filled = np.asarray(model.codes.max(axis=2) > AIR)
        xs = model.origin[0] + model.spacing[0] * np.flatnonzero(filled.any(axis=1))
        ys = model.origin[1] + model.spacing[1] * np.flatnonzero(filled.any(axis=0))
        tilt = abs(leg.pose.rotation_deg) / 45.0 * 30.0
        outer = max(leg.pose.axis_point(0.0)[0] + xs[-1], leg.pose.axis_point(2.0)[0] + 75.0 + tilt)
        knee_y, ankle_y = leg.pose.axis_point(1.0)[1], leg.pose.axis_point(2.0)[1]
        sway = parameters.pose.sway_mm
        sign = 1.0 if side is Side.RIGHT else -1.0
        lower[0] = min(lower[0], sign * outer + min(0.0, sway), -sign * outer + min(0.0, sway))
        upper[0] = max(upper[0], sign * outer + max(0.0, sway), -sign * outer + max(0.0, sway))
        lower[1] = min(lower[1], ys[0] + min(0.0, ankle_y))
        upper[1] = max(upper[1], ys[-1] + 0.6 * knee_y)
    if parameters.whole_body:
        k = parameters.height_m / 1.75
        upper[2] = low_z + 1000.0 * parameters.height_m
        reach = max(leg.outer_skin_mm for leg in body.legs.values()) + 75.0 * k
        lower[0], upper[0] = min(lower[0], -reach), max(upper[0], reach)
    lower, upper = lower - margin_mm, upper + margin_mm
    if z_range_mm is not None:
        lower[2], upper[2] = z_range_mm
    size = np.array(voxel_mm, dtype=np.float64)
    angle = np.deg2rad(oblique_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    about_y = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    turn = about_y @ about_x
    # A tilted box must be larger to hold the same body.
    extent = np.abs(turn.T) @ (upper - lower)
    if z_range_mm is not None:
        extent[2] = upper[2] - lower[2]
    shape = np.maximum(np.ceil(extent / size - 1e-9).astype(int), 1)
    affine = np.eye(4)
    affine[:3, :3] = turn * size
    affine[:3, 3] = 0.5 * (lower + upper) - affine[:3, :3] @ ((shape - 1) / 2.0)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, SCANNER_SPACE)
