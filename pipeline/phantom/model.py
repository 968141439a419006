"""One leg as a stack of cross-sections: a power diagram with prescribed areas at each level.

Leg coordinates of a right leg in mm: x to the outer side, y to the front, z up along the limb,
0 at the knee. A left leg is the mirror image.

A power diagram parts the space inside the fascia: a point belongs to the site with the smallest
d^2 - w. The weights w are moved until each muscle's cell is as large as prescribed (semi-
discrete transport). From each cell the points furthest from its neighbours are taken, exactly
as many as the muscle's area needs, and what remains between the cells is fascia. What a level
gives too much or too little by rounding is carried to the next, so that volumes are exact to a
voxel of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import MUSCLES
from pipeline.phantom.tables import BONES, COURSES, FAT_SPACES, OUTLINE, SUBCUTANEOUS

Floats = NDArray[np.float64]

#: Tissue codes of the model besides muscle and bone ids (the cortex carries the bone's id).
AIR, MARROW_OFFSET = 0, 20
SUBCUTANEOUS_FAT, FAT_SPACE, FASCIA, SKIN, SOFT_TISSUE = 80, 81, 82, 83, 84

#: Person that lengths in the tables are given for, and segment lengths as shares of height
#: (hip to knee and knee to ankle; femur : tibia near 1.28 with both joints' heights counted).
REFERENCE_HEIGHT_M = 1.75
HIP_TO_KNEE_SHARE = 0.245
KNEE_TO_ANKLE_SHARE = 0.222
TOP_LEVEL, BOTTOM_LEVEL = -0.35, 2.22
SKIN_MM = 1.5
#: Share of the space inside the fascia that is no muscle, besides bones and fascia.
_FAT_SPACE_SHARE = 0.05
_ITERATIONS = 14
_SOLVER_STEP = 3


@dataclass(frozen=True)
class Detail:
    """How fine the model is: in-plane and level spacing, mm."""

    in_plane_mm: float
    level_mm: float


DETAILS = {"full": Detail(0.8, 3.0), "reduced": Detail(1.6, 6.0)}


@dataclass(frozen=True, eq=False)
class LegModel:
    """Tissue codes of a right-leg cross-section stack.

    Attributes:
        codes: uint8, axes x (outwards), y (front), z (up).
        origin: mm of codes[0, 0, 0] in leg coordinates.
        spacing: voxel size, mm.
        thigh_mm, shank_mm: hip-knee and knee-ankle distances.
        inner_skin_mm: by level, how far the skin reaches to the inner side.
    """

    codes: NDArray[np.uint8]
    origin: Floats
    spacing: Floats
    thigh_mm: float
    shank_mm: float
    inner_skin_mm: Floats

    @property
    def voxel_ml(self) -> float:
        """Volume of a model voxel, mL."""
        return float(np.prod(self.spacing)) / 1000.0

    def level_z(self) -> Floats:
        """z of each level, mm."""
        return np.asarray(self.origin[2] + self.spacing[2] * np.arange(self.codes.shape[2]))


def level_of(z: Floats, thigh_mm: float, shank_mm: float) -> Floats:
    """Level (hip 0, knee 1, ankle 2) of heights z in mm above the knee."""
    return np.asarray(1.0 - np.where(z > 0, z / thigh_mm, z / shank_mm))


def build_leg(
    volumes_ml: dict[str, float],
    *,
    height_m: float,
    female: bool,
    fatness: float,
    fascia_mm: float,
    detail: Detail,
) -> LegModel:
    """Cross-sections of one leg with exactly these muscle volumes (to a model voxel).

    Args:
        volumes_ml: volume by muscle name.
        height_m: scales lengths.
        female, fatness: thickness of subcutaneous fat.
        fascia_mm: thickness of the fascia between muscles.
        detail: resolution of the model.
    """
    scale = height_m / REFERENCE_HEIGHT_M
    thigh, shank = 1000.0 * height_m * HIP_TO_KNEE_SHARE, 1000.0 * height_m * KNEE_TO_ANKLE_SHARE
    top, bottom = (1.0 - TOP_LEVEL) * thigh, (1.0 - BOTTOM_LEVEL) * shank
    z = np.arange(bottom, top + detail.level_mm, detail.level_mm)
    levels = level_of(z, thigh, shank)
    areas = _areas(volumes_ml, levels, z, detail)
    half = np.array([125.0, 150.0]) * max(1.0, scale) * max(1.0, float(
        np.sqrt(areas.sum(axis=0).max() / 15000.0)))
    n = (2 * np.ceil(half / detail.in_plane_mm) + 1).astype(int)
    x = (np.arange(n[0]) - n[0] // 2) * detail.in_plane_mm
    y = (np.arange(n[1]) - n[1] // 2) * detail.in_plane_mm
    codes = np.zeros((n[0], n[1], z.size), dtype=np.uint8)
    inner = np.zeros(z.size)
    weights: dict[int, float] = {}
    carried = np.zeros(len(MUSCLES))
    for k in range(z.size):
        plane, weights, carried = _level(
            float(levels[k]),
            areas[:, k],
            weights,
            carried,
            (x, y),
            scale=scale,
            fascia_mm=fascia_mm,
            fat_mm=_skin_fold(float(levels[k]), female=female) * fatness,
        )
        codes[:, :, k] = plane
        present = np.flatnonzero((plane != AIR).any(axis=1))
        inner[k] = -x[present[0]] if present.size else 0.0
    origin = np.array([x[0], y[0], z[0]])
    spacing = np.array([detail.in_plane_mm, detail.in_plane_mm, detail.level_mm])
    return LegModel(codes, origin, spacing, thigh, shank, inner)


def _areas(
    volumes_ml: dict[str, float], levels: Floats, z: Floats, detail: Detail
) -> Floats:
    """Area of each muscle at each level, mm^2, shape (30, nz); sums to the volume exactly."""
    out = np.zeros((len(MUSCLES), z.size))
    for k, muscle in enumerate(MUSCLES):
        course = COURSES[muscle.name]
        s = np.clip((levels - course.top) / (course.bottom - course.top), 0.0, 1.0)
        peak = (course.peak - course.top) / (course.bottom - course.top)
        # s^p (1 - s)^q has its peak at p / (p + q).
        p, q = 2.4 * peak, 2.4 * (1.0 - peak)
        shape = s**p * (1.0 - s) ** q
        out[k] = shape / shape.sum() * volumes_ml[muscle.name] * 1000.0 / detail.level_mm
    return out


def _skin_fold(level: float, *, female: bool) -> float:
    table = np.array(SUBCUTANEOUS)
    return float(np.interp(level, table[:, 0], table[:, 2 if female else 1]))


def _level(
    level: float,
    areas: Floats,
    weights: dict[int, float],
    carried: Floats,
    axes: tuple[Floats, Floats],
    *,
    scale: float,
    fascia_mm: float,
    fat_mm: float,
) -> tuple[NDArray[np.uint8], dict[int, float], Floats]:
    """Tissue codes of one level; updated weights and rounding carried on."""
    x, y = axes
    pixel = (x[1] - x[0]) ** 2
    gx, gy = x[:, None], y[None, :]
    plane = np.zeros((x.size, y.size), dtype=np.uint8)
    bones = _bones(level, scale, gx, gy)
    bone = bones != 0

    wanted = areas / pixel + carried
    names = [k for k in range(len(MUSCLES)) if wanted[k] > 0.5]
    count = np.rint(wanted[names]).astype(int)
    smallest, stretch, offset, egg = _outline(level)
    # Space for the muscles, their fascia and the fat between them, outside the bones.
    rim = fascia_mm * np.sqrt(np.pi * count * pixel) if names else np.zeros(0)
    need = float((count * pixel + rim).sum()) / (1.0 - _FAT_SPACE_SHARE)
    radius = smallest * scale
    for _ in range(6):
        inside = _egg(gx, gy - offset * scale, radius, stretch, egg)
        free = float((inside & ~bone).sum()) * pixel
        if free >= need:
            break
        radius = float(np.sqrt(radius**2 + 1.02 * (need - free) / (np.pi * stretch)))
    space = inside & ~bone
    _fill(plane, space, level, names, count, weights, radius, stretch, offset * scale, axes, fascia_mm)
    taken = np.bincount(plane.ravel(), minlength=256)[[MUSCLES[k].id for k in names]]
    left_over = wanted.copy()
    left_over[names] -= taken
    left_over[areas == 0] = 0.0
    plane[bone] = bones[bone]
    # Thicker behind than in front, and over the bones of the shank hardly any.
    body = plane != AIR
    outside = ndimage.distance_transform_edt(~(body | inside)) * (x[1] - x[0])
    behind = 1.0 - 0.35 * np.tanh((gy - offset * scale) / 40.0)
    fat = (outside > 0) & (outside <= fat_mm * behind)
    skin = (outside > 0) & ~fat & (outside <= fat_mm * behind + SKIN_MM)
    plane[fat], plane[skin] = SUBCUTANEOUS_FAT, SKIN
    return plane, weights, left_over


def _outline(level: float) -> tuple[float, float, float, float]:
    table = np.array(OUTLINE)
    values = [float(np.interp(level, table[:, 0], table[:, c])) for c in range(1, 5)]
    return values[0], values[1], values[2], values[3]


def _egg(gx: Floats, gy: Floats, radius: float, stretch: float, egg: float) -> NDArray[np.bool_]:
    """An egg-shaped region: radius to the sides, radius * stretch front to back."""
    along = gy / (radius * stretch)
    across = gx / (radius * (1.0 - egg * along))
    return np.asarray(along**2 + across**2 <= 1.0)


def _bones(level: float, scale: float, gx: Floats, gy: Floats) -> NDArray[np.uint8]:
    """Cortex (bone id) and marrow (id + MARROW_OFFSET) at a level."""
    out = np.zeros((gx.shape[0], gy.shape[1]), dtype=np.uint8)
    for value, stack in BONES:
        at = [b.level for b in stack]
        if not at[0] <= level <= at[-1]:
            continue
        cx, cy, rx, ry, rim = (
            scale * float(np.interp(level, at, [getattr(b, name) for b in stack]))
            for name in ("x", "y", "rx", "ry", "cortex")
        )
        outer = ((gx - cx) / rx) ** 2 + ((gy - cy) / ry) ** 2 <= 1.0
        out[outer & (out == 0)] = value
        if rx > rim and ry > rim:
            marrow = ((gx - cx) / (rx - rim)) ** 2 + ((gy - cy) / (ry - rim)) ** 2 <= 1.0
            out[marrow & (out == value)] = value + MARROW_OFFSET
    return out


def _sites(
    level: float, names: list[int], radius: float, stretch: float, offset: float
) -> tuple[Floats, int]:
    """Places of the muscles, then of the fat spaces, mm; and how many are muscles."""
    places = []
    for k in names:
        path = np.array(COURSES[MUSCLES[k].name].path)
        angle = np.deg2rad(np.interp(level, path[:, 0], np.unwrap(path[:, 1], period=360.0)))
        depth = np.interp(level, path[:, 0], path[:, 2])
        places.append((angle, depth))
    muscles = len(places)
    for low, high, azimuth, depth in FAT_SPACES:
        if low <= level <= high:
            places.append((np.deg2rad(azimuth), depth))
    if len(places) == muscles:
        places.append((np.pi, 0.3))
    angles, depths = np.array(places).T
    return (
        np.stack(
            [
                radius * depths * np.sin(angles),
                offset + radius * stretch * depths * np.cos(angles),
            ],
            axis=1,
        ),
        muscles,
    )


def _fill(
    plane: NDArray[np.uint8],
    space: NDArray[np.bool_],
    level: float,
    names: list[int],
    count: NDArray[np.intp],
    weights: dict[int, float],
    radius: float,
    stretch: float,
    offset: float,
    axes: tuple[Floats, Floats],
    fascia_mm: float,
) -> None:
    """Part the space among the muscles, in place."""
    x, y = axes
    step = x[1] - x[0]
    sites, muscles = _sites(level, names, radius, stretch, offset)
    index = np.argwhere(space)
    points = np.stack([x[index[:, 0]], y[index[:, 1]]], axis=1)
    if len(points) == 0:
        return
    rim = fascia_mm * np.sqrt(np.pi * count) / step
    target = np.empty(len(sites))
    target[:muscles] = count + rim
    fat = max(1.0, len(points) - target[:muscles].sum())
    target[muscles:] = fat / (len(sites) - muscles)
    w = np.array([weights.get(k, np.nan) for k in names] + [0.0] * (len(sites) - muscles))
    between = _squared(sites, sites)
    np.fill_diagonal(between, np.inf)
    w = np.where(np.isnan(w), np.nanmean(w) if names else 0.0, w)
    born = np.array([k not in weights for k in names] + [False] * (len(sites) - muscles))
    w = _alive(w, born, target, between, step)
    # The weights are found on every third point, then finished on all of them.
    for stride, rounds in ((_SOLVER_STEP**2, 2 * _ITERATIONS), (1, 16)):
        subset = points[::stride] if stride == 1 else points[_thin(index)]
        distances = _squared(subset, sites)
        share = len(points) / max(1, len(subset))
        for turn in range(rounds):
            cell = np.bincount((distances - w).argmin(axis=1), minlength=len(sites)) * share
            gain = 0.5 / (1.0 + 0.05 * turn)
            w += gain * np.clip(target - cell, -0.5 * target, 0.5 * target) * step**2 / np.pi
            if turn < rounds - 2:
                w = _alive(w, cell == 0, target, between, step)
            w -= w.mean()
    power = distances - w
    nearest = power.argmin(axis=1)
    # Distance of each point from the border of its cell: half the difference of powers over the
    # distance of the two sites, smallest over all neighbours.
    own = power[np.arange(len(points)), nearest]
    apart = np.sqrt(np.where(np.isinf(between), 0.0, between))
    margin = np.full(len(points), np.inf)
    for k in range(len(sites)):
        other = nearest != k
        to_k = np.maximum(apart[nearest[other], k], 1e-6)
        margin[other] = np.minimum(margin[other], (power[other, k] - own[other]) / (2.0 * to_k))
    code = np.full(len(points), FASCIA, dtype=np.uint8)
    code[nearest >= muscles] = FAT_SPACE
    for k in range(muscles):
        mine = np.flatnonzero(nearest == k)
        keep = mine[np.argsort(-margin[mine], kind="stable")[: count[k]]]
        code[keep] = MUSCLES[names[k]].id
    plane[index[:, 0], index[:, 1]] = code
    weights.clear()
    weights.update({k: float(w[j]) for j, k in enumerate(names)})


def _alive(
    w: Floats, dead: NDArray[np.bool_], target: Floats, between: Floats, step: float
) -> Floats:
    """Weights that give empty cells room around their own site, about as much as they need."""
    out = w.copy()
    for k in np.flatnonzero(dead):
        out[k] = (w - between[k]).max() + 0.5 * target[k] * step**2 / np.pi
    return out


def _thin(index: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.asarray((index[:, 0] % _SOLVER_STEP == 0) & (index[:, 1] % _SOLVER_STEP == 0))


def _squared(a: Floats, b: Floats) -> Floats:
    return np.asarray(
        (a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2
    )
