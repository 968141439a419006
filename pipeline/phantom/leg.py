"""The inside of one leg in its own coordinates, as a fine raster of tissues.

Leg coordinates: x outwards and y forwards from the straight limb axis, s downwards along it from
the hip centre, all in mm. At every level muscles are cells of a power diagram whose distances are
elliptic (centre, elongation and direction from the tables); the weights are iterated until each
cell has its prescribed area, which is the semi-discrete transport of the cross-section onto the
muscles. Cells end at bones, at thin intermuscular fat and where their own ellipse ends. Last, the
border of each muscle is moved by fractions of a voxel until its voxel count is exact.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from pipeline.core.anatomy import MUSCLES, STRUCTURE_IDS
from pipeline.phantom.courses import (
    MUSCLE_COURSES,
    REFERENCE_LENGTH_MM,
    REFERENCE_VOLUME_ML,
    Row,
)
from pipeline.phantom.skeleton import BONE_COURSES, Segments

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

#: Tissue codes of the raster. Muscles have their label id (1 to 30), bones 41 to 47 for marrow
#: and 31 to 37 for cortex.
AIR, FAT, SUBCUTANEOUS, SKIN, VISCERA = 0, 50, 51, 52, 53
CORTEX_OFFSET = -10

#: Half the least distance of two muscles, mm.
HALF_GAP_MM = 0.55
SKIN_MM = 1.8
#: How firmly the fascia holds the muscles in: levels, and factors. The hip has no tube of fascia,
#: and at the knee bones and fat shape the outline.
FIRMNESS = ((0.12, 0.3, 0.8, 0.95, 1.08, 1.2), (0.0, 1.0, 1.0, 0.3, 0.3, 1.0))
#: Dents of the fascia narrower than twice this are filled with fat before the skin is laid.
CLOSING_MM = 40.0
#: The same where the two halves of the body are one.
PELVIC_CLOSING_MM = 90.0
#: Lowest and highest level of the model: just above the iliac crest, and below the foot.
TOP_LEVEL, BOTTOM_LEVEL = -0.46, 2.215
#: Reference height of the bone tables, m, and half distance of the hip centres at that height.
BONE_HEIGHT_M = 1.70
REFERENCE_HALF_HIP_MM = 91.0
HALF_HIP_MM = {"male": 86.0, "female": 88.0}

#: Subcutaneous fat for fatness 1: level, man, woman, mm. Mid-thigh 5-10 / 10-20 and calf 3-8 /
#: 6-14 mm; the rest follows smoothly.
SUBCUTANEOUS_MM = (
    (-0.46, 13.0, 20.0),
    (0.0, 12.0, 22.0),
    (0.25, 9.0, 18.0),
    (0.6, 7.0, 14.0),
    (1.0, 4.5, 8.0),
    (1.4, 5.0, 9.5),
    (1.8, 3.5, 6.0),
    (2.22, 2.5, 3.5),
)

#: Half width and half depth of the trunk inside its fascia at the middle of the body, and the
#: offset of its centre to the front, by level (mm of the bone reference).
PELVIS = (
    (-0.46, 128.0, 82.0, 0.0),
    (-0.3, 140.0, 88.0, -4.0),
    (-0.15, 140.0, 86.0, -8.0),
    (-0.02, 120.0, 80.0, -14.0),
    (0.05, 90.0, 62.0, -12.0),
    (0.09, 55.0, 40.0, -8.0),
    (0.115, 14.0, 14.0, -6.0),
)

#: Bones that the fascia of the limb goes round: neither those of the pelvis nor the foot.
_IN_LIMB = frozenset(STRUCTURE_IDS[bone] for bone in ("femur", "tibia", "fibula", "patella"))
#: Bones that meet their twins in the mid-sagittal plane.
_AT_MIDLINE = frozenset(STRUCTURE_IDS[bone] for bone in ("hip_bone", "sacrum"))


@dataclass(frozen=True)
class LegKey:
    """All that shapes a leg before its pose; hashable, so that equal legs are built once."""

    volumes_ml: tuple[float, ...]
    mean_volumes_ml: tuple[float, ...]
    height_m: float
    thigh_mm: float
    shank_mm: float
    sex: str
    fatness: float
    detail: str


@dataclass(frozen=True, eq=False)
class LegModel:
    """A leg as a raster of tissue codes.

    Attributes:
        codes: uint8 (nx, ny, ns), read-only.
        origin: x, y, s of the first voxel centre, mm.
        spacing: voxel edges, mm.
        thigh_mm, shank_mm: lengths of the two segments.
        half_hip_mm: distance of the limb axis from the mid-sagittal plane at the hip.
    """

    codes: NDArray[np.uint8]
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    thigh_mm: float
    shank_mm: float
    half_hip_mm: float

    def position_mm(self, level: float) -> float:
        """s of a level (hip 0, knee 1, ankle 2)."""
        return self.segments.mm(level)

    @property
    def segments(self) -> Segments:
        """Lengths of thigh and shank."""
        return Segments(self.thigh_mm, self.shank_mm)

    @property
    def positions_mm(self) -> Floats:
        """s of every plane of the raster."""
        return np.array([self.origin[2] + self.spacing[2] * k for k in range(self.codes.shape[2])])

    @property
    def voxel_ml(self) -> float:
        """Volume of a raster voxel."""
        return self.spacing[0] * self.spacing[1] * self.spacing[2] / 1000.0

    def volumes_ml(self) -> dict[str, float]:
        """Volume of each muscle in the raster."""
        counts = np.bincount(self.codes.ravel(order="K"), minlength=256)
        return {m.name: float(counts[m.id]) * self.voxel_ml for m in MUSCLES}


@dataclass(frozen=True)
class Detail:
    """Sizes of the rasters, mm."""

    in_plane: float
    level: float
    solve_in_plane: float
    solve_level: float
    iterations: int


DETAILS = {
    "full": Detail(0.8, 1.5, 2.5, 10.0, 40),
    "reduced": Detail(1.6, 5.0, 4.0, 22.0, 25),
}


@dataclass(frozen=True, eq=False)
class _Ellipse:
    """Rows of a table as smooth functions of the level."""

    lower: float
    upper: float
    values: PchipInterpolator
    turn: tuple[Floats, Floats]

    @staticmethod
    def of(rows: Sequence[Row]) -> _Ellipse:
        table = np.asarray(rows, dtype=np.float64)
        # The direction has a period of 180 degrees: unwrapped before it is interpolated.
        turn = np.unwrap(np.radians(table[:, 5]), period=math.pi)
        # Widths, not areas, are interpolated: ends then taper like tips instead of wedges.
        table[:, 3] = np.sqrt(table[:, 3])
        values = PchipInterpolator(table[:, 0], table[:, 1:5], axis=0)
        return _Ellipse(table[0, 0], table[-1, 0], values, (table[:, 0], turn))

    def at(self, level: float) -> tuple[float, float, float, float, float]:
        """x, y, area, elongation, direction in radians."""
        x, y, width, ratio = (float(v) for v in self.values(level))
        return x, y, width * width, max(ratio, 1.0), float(np.interp(level, *self.turn))


@functools.lru_cache(maxsize=1)
def _tables() -> tuple[tuple[_Ellipse, ...], tuple[_Ellipse, ...]]:
    muscles = tuple(_Ellipse.of(MUSCLE_COURSES[m.name]) for m in MUSCLES)
    bones = tuple(_Ellipse.of(rows) for _, rows, _, _ in BONE_COURSES)
    return muscles, bones


@dataclass(frozen=True)
class _Frame:
    """How levels and the mm of the tables become the mm of this leg."""

    key: LegKey
    scale: float
    bone_scale: float
    half_hip_mm: float

    @staticmethod
    def of(key: LegKey) -> _Frame:
        length = key.thigh_mm + key.shank_mm
        total = sum(key.mean_volumes_ml)
        scale = math.sqrt((total / length) / (REFERENCE_VOLUME_ML / REFERENCE_LENGTH_MM))
        bone_scale = key.height_m / BONE_HEIGHT_M
        return _Frame(key, scale, bone_scale, HALF_HIP_MM[key.sex] * bone_scale)

    @property
    def segments(self) -> Segments:
        """Lengths of thigh and shank."""
        return Segments(self.key.thigh_mm, self.key.shank_mm)

    def spread(self, level: float) -> float:
        """Factor on the positions of muscles: the pelvis grows with the bones, limbs with flesh."""
        pelvic = self.half_hip_mm / REFERENCE_HALF_HIP_MM
        share = min(1.0, max(0.0, (level + 0.05) / 0.35))
        return pelvic + (self.scale - pelvic) * share * share * (3.0 - 2.0 * share)

    def medial_limit(self, level: float) -> float:
        """Smallest x of a muscle: clear of the mid-sagittal plane, and of the skin of the thigh."""
        share = min(1.0, max(0.0, (level - 0.02) / 0.10))
        return -self.half_hip_mm + 3.0 + 7.0 * share


@dataclass(frozen=True)
class _Cell:
    """One muscle at one level: ellipse in mm and the area it shall have, mm2."""

    index: int
    x: float
    y: float
    ratio: float
    turn: float
    area: float


def _cost(
    x: Floats | Singles, y: Floats | Singles, cell: _Cell
) -> tuple[Singles, Singles, Singles]:
    """Elliptic squared distance (mm2; the contour of cost c has area pi c) and its gradient."""
    dx, dy = x - cell.x, y - cell.y
    sin, cos = math.sin(cell.turn), math.cos(cell.turn)
    along, across = 1.0 / cell.ratio, cell.ratio
    a = along * sin * sin + across * cos * cos
    b = along * cos * cos + across * sin * sin
    c = (along - across) * sin * cos
    gx = 2.0 * (a * dx + c * dy)
    gy = 2.0 * (c * dx + b * dy)
    return (
        (0.5 * (gx * dx + gy * dy)).astype(np.float32),
        gx.astype(np.float32),
        gy.astype(np.float32),
    )


def _cells(frame: _Frame, level: float, per_mm: Floats) -> list[_Cell]:
    """The muscles of a level; per_mm turns table areas into mm2."""
    cells = []
    for k, ellipse in enumerate(_tables()[0]):
        if ellipse.lower < level < ellipse.upper:
            x, y, area, ratio, turn = ellipse.at(level)
            mm2 = area * float(per_mm[k])
            if mm2 > 1.0:
                spread = frame.spread(level)
                cells.append(_Cell(k, x * spread, y * spread, ratio, turn, mm2))
    return cells


@dataclass(frozen=True)
class _Outline:
    """The fascia of a level as an ellipse, and how firmly it holds the muscles in.

    Attributes:
        cell: the ellipse.
        stiffness: what a mm2 beyond it costs; 0 = it holds nothing.
    """

    cell: _Cell
    stiffness: float

    def penalty(self, x: Floats | Singles, y: Floats | Singles) -> tuple[Singles, Singles, Singles]:
        """Cost (mm2) of lying outside, and its gradient."""
        cost, gx, gy = _cost(x, y, self.cell)
        radius2 = self.cell.area / math.pi
        out = np.maximum(cost - np.float32(radius2), 0) * np.float32(self.stiffness)
        factor = np.where(out > 0, np.float32(self.stiffness), np.float32(0))
        return out, gx * factor, gy * factor


def _outline(frame: _Frame, level: float, cells: Sequence[_Cell]) -> _Outline:
    """The ellipse with the second moments of all muscles and bones of a level."""
    parts = [*cells, *(bone for label, _, bone in _bone_cells(frame, level) if label in _IN_LIMB)]
    area = sum(p.area for p in parts)
    x = sum(p.area * p.x for p in parts) / area
    y = sum(p.area * p.y for p in parts) / area
    moments = np.zeros((2, 2))
    for p in parts:
        sin, cos = math.sin(p.turn), math.cos(p.turn)
        long, short = np.array([sin, cos]), np.array([cos, -sin])
        own = p.area / (4.0 * math.pi)
        moments += p.area * (
            own * p.ratio * np.outer(long, long) + own / p.ratio * np.outer(short, short)
        )
        moments += p.area * np.outer((p.x - x, p.y - y), (p.x - x, p.y - y))
    values, vectors = np.linalg.eigh(moments / area)
    ratio = min(1.35, math.sqrt(values[1] / values[0]))
    turn = math.atan2(vectors[0, 1], vectors[1, 1])
    firm = float(np.interp(level, *FIRMNESS))
    room = 1.0 + 0.16 + HALF_GAP_MM * 12.0 / math.sqrt(area)
    return _Outline(_Cell(-1, x, y, ratio, turn, area * room), 2.0 * firm)


def _area_factors(frame: _Frame, volumes_ml: Sequence[float]) -> Floats:
    """mm2 of this leg per unit of the area tables, so that areas integrate to the volumes."""
    factors = []
    for ellipse, volume in zip(_tables()[0], volumes_ml, strict=True):
        levels = np.linspace(ellipse.lower, ellipse.upper, 400)
        positions = np.array([frame.segments.mm(float(v)) for v in levels])
        integral = float(np.trapezoid(ellipse.values(levels)[:, 2] ** 2, positions))
        factors.append(volume * 1000.0 / integral)
    return np.array(factors)


def _bone_cells(frame: _Frame, level: float) -> list[tuple[int, float, _Cell]]:
    """Label id, cortex in mm and ellipse of the bones of a level."""
    found = []
    for (label, _, cortex_end, cortex_shaft), ellipse in zip(
        BONE_COURSES, _tables()[1], strict=True
    ):
        if ellipse.lower <= level <= ellipse.upper:
            x, y, area, ratio, turn = ellipse.at(level)
            if area <= 0.05:
                continue
            middle = 1.0 - abs(2.0 * (level - ellipse.lower) / (ellipse.upper - ellipse.lower) - 1)
            share = min(1.0, max(0.0, (middle - 0.2) / 0.25))
            cortex = cortex_end + share * (cortex_shaft - cortex_end)
            x = x * frame.bone_scale
            if label in _AT_MIDLINE:
                # The sacrum and the pubis meet their twins in the mid-sagittal plane.
                x = max(x, -frame.half_hip_mm)
            cell = _Cell(
                label, x, y * frame.bone_scale, ratio, turn, area * 100.0 * frame.bone_scale**2
            )
            found.append((label, cortex * frame.bone_scale, cell))
    return found


def _solve(
    frame: _Frame, level: float, cells: list[_Cell], start: Floats, detail: Detail
) -> Floats:
    """Weights (one per muscle of the vocabulary) that give every cell its area at a level."""
    step = detail.solve_in_plane
    x, y = np.meshgrid(
        np.arange(-frame.half_hip_mm + 0.5 * step, 170.0, step),
        np.arange(-190.0, 170.0, step),
        indexing="ij",
    )
    keep = np.zeros(x.shape, dtype=bool)
    for cell in cells:
        keep |= (x - cell.x) ** 2 + (y - cell.y) ** 2 < (12.0 + 2.5 * math.sqrt(cell.area)) ** 2
    for _, _, bone in _bone_cells(frame, level):
        keep &= _cost(x, y, bone)[0] * math.pi > bone.area
    keep &= x > frame.medial_limit(level)
    x, y = x[keep], y[keep]
    bound = _outline(frame, level, cells).penalty(x, y)[0]
    costs = np.stack([_cost(x, y, cell)[0] + bound for cell in cells])
    target = np.array([cell.area for cell in cells])
    # A cell loses a seam of half a gap along its border; asked for in advance.
    target = target + HALF_GAP_MM * 3.5 * np.sqrt(target)
    index = np.array([cell.index for cell in cells])
    weights = np.where(np.isfinite(start[index]), start[index], target / math.pi)
    for _ in range(detail.iterations):
        excess = costs - weights[:, None].astype(np.float32)
        winner = excess.argmin(axis=0)
        inside = np.take_along_axis(excess, winner[None], axis=0)[0] < 0
        areas = np.bincount(winner[inside], minlength=len(cells)) * step * step
        change = (target - areas) / math.pi
        limit = 0.5 * np.sqrt(target) + 5.0
        weights = weights + np.clip(0.7 * change, -4 * limit, 4 * limit)
    found = np.full(len(MUSCLES), np.nan)
    found[index] = weights
    return found


def _weights(frame: _Frame, per_mm: Floats, detail: Detail) -> tuple[Floats, Floats]:
    """Levels (mm) and weights (level, muscle); NaN where a muscle is absent."""
    positions = np.arange(
        frame.segments.mm(TOP_LEVEL),
        frame.segments.mm(BOTTOM_LEVEL) + detail.solve_level,
        detail.solve_level,
    )
    rows = []
    previous = np.full(len(MUSCLES), np.nan)
    for s in positions:
        level = frame.segments.level(float(s))
        cells = _cells(frame, level, per_mm)
        if cells:
            previous = _solve(frame, level, cells, previous, detail)
        else:
            previous = np.full(len(MUSCLES), np.nan)
        rows.append(previous)
    return positions, np.array(rows)


def _weight_at(positions: Floats, weights: Floats, index: int, s: float, area: float) -> float:
    """Weight of a muscle at a level, interpolated between levels; that of its free ellipse where it
    has none on any."""
    row = weights[:, index]
    good = np.isfinite(row)
    if not good.any():
        return area / math.pi
    return float(np.interp(s, positions[good], row[good]))


def _level_raster(
    x: Singles,
    y: Singles,
    cells: list[_Cell],
    weights: list[float],
    outline: _Outline,
    blocked: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], Singles]:
    """Winner (id, 0 = none) and signed distance in mm to its border, at one level.

    x (nx, 1) and y (1, ny) are the axes. The border of a cell is where its ellipse ends or half
    a gap before it meets the next cell.
    """
    shape = blocked.shape
    best = np.full(shape, np.inf, dtype=np.float32)
    gx = np.zeros(shape, dtype=np.float32)
    gy = np.zeros(shape, dtype=np.float32)
    owner = np.zeros(shape, dtype=np.uint8)
    margin = np.full(shape, -1e3, dtype=np.float32)
    apart = np.full(shape, 1e3, dtype=np.float32)
    bound, bound_x, bound_y = outline.penalty(x, y)
    for cell, weight in zip(cells, weights, strict=True):
        reach = math.sqrt(max(weight, cell.area / math.pi) * cell.ratio) + 6.0
        i0, i1 = np.searchsorted(x[:, 0], (cell.x - reach, cell.x + reach))
        j0, j1 = np.searchsorted(y[0], (cell.y - reach, cell.y + reach))
        if i0 == i1 or j0 == j1:
            continue
        box = (slice(i0, i1), slice(j0, j1))
        cost, cx, cy = _cost(x[i0:i1], y[:, j0:j1], cell)
        excess = cost + bound[box] - np.float32(weight)
        cx, cy = cx + bound_x[box], cy + bound_y[box]
        steep = np.sqrt(cx * cx + cy * cy) + 1e-3
        own = -excess / steep
        old = best[box]
        met = np.isfinite(old)
        distance = np.full(old.shape, 1e3, dtype=np.float32)
        slope = np.sqrt((cx - gx[box]) ** 2 + (cy - gy[box]) ** 2) + 1e-3
        np.divide(np.abs(excess - np.where(met, old, 0)), slope, out=distance, where=met)
        wins = excess < old
        apart[box] = np.where(wins, distance, np.minimum(apart[box], distance))
        best[box] = np.where(wins, excess, old)
        gx[box] = np.where(wins, cx, gx[box])
        gy[box] = np.where(wins, cy, gy[box])
        owner[box] = np.where(wins, cell.index + 1, owner[box])
        margin[box] = np.where(wins, own, margin[box])
    owner[blocked] = 0
    return owner, np.minimum(margin, apart - np.float32(HALF_GAP_MM))


@functools.lru_cache(maxsize=8)
def _symmetric_weights(key: LegKey) -> tuple[Floats, Floats]:
    frame = _Frame.of(key)
    return _weights(frame, _area_factors(frame, key.mean_volumes_ml), DETAILS[key.detail])


@functools.lru_cache(maxsize=6)
def leg_model(key: LegKey) -> LegModel:
    """Build a leg.

    Raises:
        KeyError: a detail or sex that does not exist (parameters check them before).
    """
    detail = DETAILS[key.detail]
    frame = _Frame.of(key)
    shared = LegKey(**{**key.__dict__, "volumes_ml": key.mean_volumes_ml})
    positions, weights = _symmetric_weights(shared)
    per_mm = _area_factors(frame, key.volumes_ml)
    mean_per_mm = _area_factors(frame, key.mean_volumes_ml)

    wide = 1.12 * frame.scale
    fat = 22.0 * key.fatness + 8.0
    xs = np.arange(-frame.half_hip_mm + 0.5 * detail.in_plane, 112.0 * wide + fat, detail.in_plane)
    ys = np.arange(-118.0 * wide - fat, 110.0 * wide + fat, detail.in_plane)
    ss = np.arange(
        frame.segments.mm(TOP_LEVEL) + 0.5 * detail.level,
        frame.segments.mm(BOTTOM_LEVEL),
        detail.level,
    )
    x = xs.astype(np.float32)[:, None]
    y = ys.astype(np.float32)[None, :]
    # Levels first in memory: the work is done level by level.
    shape = (len(ss), len(xs), len(ys))
    codes = np.zeros(shape, dtype=np.uint8)
    owners = np.zeros(shape, dtype=np.uint8)
    margins = np.full(shape, -1e3, dtype=np.float16)
    for k, s in enumerate(ss):
        level = frame.segments.level(float(s))
        plane = codes[k]
        blocked = np.zeros(plane.shape, dtype=bool)
        for label, cortex, bone in _bone_cells(frame, level):
            cost, bx, by = _cost(x, y, bone)
            radius2 = bone.area / math.pi
            # A plate of cartilage keeps the two halves of pubis and sacrum apart.
            inside = (cost < radius2) & (x > -frame.half_hip_mm + detail.in_plane)
            depth = (radius2 - cost) / (np.sqrt(bx * bx + by * by) + 1e-3)
            plane[inside] = np.where(depth[inside] < cortex, label + CORTEX_OFFSET, label)
            blocked |= inside
        # Muscles keep clear of the mid-sagittal plane.
        blocked |= np.broadcast_to(x < frame.medial_limit(level), plane.shape)
        cells = _cells(frame, level, per_mm)
        if not cells:
            continue
        now = []
        for cell in cells:
            mean_area = cell.area * float(mean_per_mm[cell.index] / per_mm[cell.index])
            value = _weight_at(positions, weights, cell.index, float(s), mean_area)
            now.append(value + (cell.area - mean_area) / math.pi)
        owners[k], found = _level_raster(x, y, cells, now, _outline(frame, level, cells), blocked)
        margins[k] = found.clip(-100, 100).astype(np.float16)
    voxel_ml = detail.in_plane**2 * detail.level / 1000.0
    _exact_volumes(codes, owners, margins, [v / voxel_ml for v in key.volumes_ml])
    codes = codes.transpose(1, 2, 0)
    _envelope(codes, frame, xs, ys, ss, detail)
    codes.setflags(write=False)
    return LegModel(
        codes,
        (float(xs[0]), float(ys[0]), float(ss[0])),
        (detail.in_plane, detail.in_plane, detail.level),
        key.thigh_mm,
        key.shank_mm,
        frame.half_hip_mm,
    )


def _exact_volumes(
    codes: NDArray[np.uint8],
    owners: NDArray[np.uint8],
    margins: NDArray[np.float16],
    voxels: Sequence[float],
) -> None:
    """Give each muscle the innermost voxels of its cell, exactly as many as asked for."""
    flat, depth, out = owners.ravel(), margins.ravel(), codes.ravel()
    order = np.flatnonzero((flat > 0) & (depth > -4.0))
    ids = flat[order]
    for k, wanted in enumerate(voxels):
        mine = order[ids == k + 1]
        count = min(round(wanted), len(mine))
        # Stable, so that ties are broken alike on both sides and on every machine.
        inner = mine[np.argsort(-depth[mine].astype(np.float32), kind="stable")[:count]]
        out[inner] = k + 1


def _envelope(
    codes: NDArray[np.uint8],
    frame: _Frame,
    xs: Floats,
    ys: Floats,
    ss: Floats,
    detail: Detail,
) -> None:
    """Fill what is left: intermuscular fat inside the fascia, viscera, subcutaneous fat, skin."""
    cut = max(1, round(2.5 / detail.in_plane))
    deep = max(1, round(10.0 / detail.level))
    core = codes[::cut, ::cut, ::deep] > 0
    xc, yc, sc = xs[::cut], ys[::cut], ss[::deep]
    viscera = np.zeros(core.shape, dtype=bool)
    table = np.array(PELVIS)
    for k, s in enumerate(sc):
        level = frame.segments.level(float(s))
        if level > table[-1, 0]:
            continue
        wide, thick, y0 = (
            frame.bone_scale * float(np.interp(level, table[:, 0], table[:, c])) for c in (1, 2, 3)
        )
        radius = np.hypot((xc[:, None] + frame.half_hip_mm) / wide, (yc[None, :] - y0) / thick)
        viscera[:, :, k] = radius < 1.0
    step = (cut * detail.in_plane, cut * detail.in_plane, deep * detail.level)
    # The mid-sagittal plane is a mirror, so the half body is continued across it; the ends are
    # continued as they are.
    solid = (core | viscera).astype(np.float32)
    sigma = (6.0 / step[0], 6.0 / step[1], 7.0 / step[2])
    smooth = ndimage.gaussian_filter(solid, sigma, mode="nearest")
    fascia = (smooth > 0.42) | core
    reach = np.empty(core.shape, dtype=np.float32)
    for k in range(core.shape[2]):
        whole = ndimage.binary_fill_holes(fascia[:, :, k])
        fascia[:, :, k] = whole
        joined = frame.segments.level(float(sc[k])) < PELVIS[-1][0]
        reach[:, :, k] = _outside(whole, step[0], joined)
    reach = ndimage.gaussian_filter(reach, (0.8, 0.8, 1.2), mode="nearest")
    thick_table = np.array(SUBCUTANEOUS_MM)
    column = 1 if frame.key.sex == "male" else 2
    ix = np.arange(len(xs)) / cut
    iy = np.arange(len(ys)) / cut
    for k, s in enumerate(ss):
        level = frame.segments.level(float(s))
        where = min(k / deep, core.shape[2] - 1)
        low = int(where)
        high = min(low + 1, core.shape[2] - 1)
        share = where - low
        plane = (1 - share) * reach[:, :, low] + share * reach[:, :, high]
        fine = _upsample(plane, ix, iy)
        inner = _upsample(
            (1 - share) * viscera[:, :, low].astype(np.float32)
            + share * viscera[:, :, high].astype(np.float32),
            ix,
            iy,
        )
        base = frame.key.fatness * float(
            np.interp(level, thick_table[:, 0], thick_table[:, column])
        )
        # Thicker behind and on the inner side, thinner over the shin and the outer side.
        azimuth = np.arctan2(xs[:, None], ys[None, :] + 8.0)
        behind = 0.28 if level < 0.9 else 0.18
        ring = base * (1.0 - behind * np.cos(azimuth) - 0.15 * np.sin(azimuth))
        out = codes[:, :, k]
        free = out == 0
        out[free & (fine <= ring + SKIN_MM)] = SKIN
        out[free & (fine <= ring)] = SUBCUTANEOUS
        out[free & (fine <= 0.5 * step[0])] = FAT
        out[(out == FAT) & (inner > 0.9)] = VISCERA


def _outside(region: NDArray[np.bool_], step: float, joined: bool) -> Singles:
    """Distance in mm to a region whose dents are filled; mirrored at the first row if joined."""
    closing = PELVIC_CLOSING_MM if joined else CLOSING_MM
    pad = round(1.3 * closing / step)
    wide = np.pad(region, pad)
    if joined:
        wide[:pad] = wide[2 * pad - 1 : pad - 1 : -1]
    if not region.any():
        return np.full(region.shape, 1e3, dtype=np.float32)
    near = ndimage.distance_transform_edt(~wide) * step < closing
    closed = ndimage.distance_transform_edt(near) * step > closing
    away = ndimage.distance_transform_edt(~(closed | wide)) * step
    return cast(Singles, away[pad:-pad, pad:-pad].astype(np.float32))


def _upsample(plane: NDArray[np.float32], ix: Floats, iy: Floats) -> Singles:
    """Linear interpolation of a plane at fractional row and column indices."""
    i0 = np.minimum(ix.astype(int), plane.shape[0] - 1)
    i1 = np.minimum(i0 + 1, plane.shape[0] - 1)
    j0 = np.minimum(iy.astype(int), plane.shape[1] - 1)
    j1 = np.minimum(j0 + 1, plane.shape[1] - 1)
    a = (ix - i0).astype(np.float32)[:, None]
    b = (iy - j0).astype(np.float32)[None, :]
    rows = plane[i0] * (1 - a) + plane[i1] * a
    return cast(Singles, rows[:, j0] * (1 - b) + rows[:, j1] * b)
