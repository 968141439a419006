"""Where a leg lies: from world millimetres into the coordinates of the leg and back.

Every step moves points without changing volume: the sideways shift of the limb axis and the shift
along the table are shears, the turn about the axis is a rotation at each level, and the bend
bows the axis in the plane of hip, knee and ankle while thickening the inner side of the bend by
exactly as much as the bow shortens it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import MUSCLES
from pipeline.phantom.leg import BOTTOM_LEVEL, LegModel

Floats = NDArray[np.float64]

#: Levels between which a leg turns, moves outwards, and starts to lean outwards.
TURN_LEVELS = (-0.02, 0.35)
WIDEN_LEVELS = (-0.14, 0.10)
LEAN_LEVELS = (0.10, 0.35)
SHANK_LEVELS = (0.85, 1.10)
#: The halves of the body part at the first level, and their skin is free of each other below the
#: second; down to the third they are moved outwards, below it they lean, to keep their distance.
CROTCH_LEVEL = 0.12
FREE_LEVEL = 0.16
THIGH_LEVEL = 0.30
KNEE_LEVEL = 0.97
#: Largest inward lean of thigh and shank, so that thin legs do not cross to meet the wanted gap.
LEAST_SHANK_SLOPE = -0.02
LEAST_SLOPE = -0.12
#: A bend of hip or knee reaches this far up and down from the joint, mm.
BEND_HALF_MM = (60.0, 45.0)
#: The bow of the axis is tabulated from here (s, mm).
BOW_START_MM = -400.0
#: The unbending is tabulated this far around the leg, at this step (mm), and linear between: it
#: bends by less than 0.003 per mm, so that the error stays below 0.01 mm.
UNBEND_REACH_MM = 260.0
UNBEND_STEP_MM = 4.0
#: A shift along the table is complete this share of the hip's distance from the middle.
_SHIFT_SHARE = 0.6


def smoothstep(t: Floats) -> Floats:
    """0 below 0, 1 above 1, 3 t^2 - 2 t^3 between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@dataclass(frozen=True, eq=False)
class PosedAxis:
    """How one leg lies, in the world of its own side (x outwards from the midline, z up).

    Attributes:
        model: the leg.
        widening: outward shift of the limb axis below the pelvis, mm.
        slope, shank_slope: further outward shift per mm along the thigh, and along the shank.
        rotation_deg, knee_flexion_deg, shift_mm: see Pose.
    """

    model: LegModel
    widening: float
    slope: float
    shank_slope: float
    rotation_deg: float
    knee_flexion_deg: float
    shift_mm: float

    def turn(self, s: Floats) -> Floats:
        """Outward turn of the cross-section at s, radians."""
        low, high = TURN_LEVELS
        return math.radians(self.rotation_deg) * smoothstep(
            (self.model.segments.levels(s) - low) / (high - low)
        )

    def sideways(self, s: Floats) -> Floats:
        """Distance of the limb axis from the midline at s, mm."""
        low, high = WIDEN_LEVELS
        step = smoothstep((self.model.segments.levels(s) - low) / (high - low))
        lean = self.slope * self._ramp(s, LEAN_LEVELS)
        lean = lean + (self.shank_slope - self.slope) * self._ramp(s, SHANK_LEVELS)
        return self.model.half_hip_mm + self.widening * step + lean

    @cached_property
    def bow(self) -> Floats:
        """y and z of the axis, its angle to the vertical and its curvature, at every mm of s.

        The first row belongs to s = BOW_START_MM.
        """
        thigh, shank = self.model.thigh_mm, self.model.shank_mm
        flexion = math.radians(self.knee_flexion_deg)
        hip = flexion * shank / (thigh + shank)
        s = np.arange(BOW_START_MM, thigh + shank + 300.0)
        angle = hip * smoothstep((s / BEND_HALF_MM[0] + 1.0) / 2.0)
        angle = angle - flexion * smoothstep(((s - thigh) / BEND_HALF_MM[1] + 1.0) / 2.0)
        middle = 0.5 * (angle[1:] + angle[:-1])
        y = np.concatenate([[0.0], np.cumsum(np.sin(middle))])
        z = thigh - BOW_START_MM - np.concatenate([[0.0], np.cumsum(np.cos(middle))])
        return np.stack([y, z, angle, np.gradient(angle)], axis=-1)

    def _bow_at(self, s: Floats) -> Floats:
        """Rows of the bow at s, linear between; shape of s plus 4."""
        where = np.clip(s - BOW_START_MM, 0.0, len(self.bow) - 1.001)
        low = where.astype(np.int32)
        share = (where - low)[..., None]
        return (1.0 - share) * self.bow[low] + share * self.bow[low + 1]

    def to_leg(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Leg coordinates (x outwards, y forwards, s down) of points of this side's world, mm.

        x counts outwards from the midline; z is 0 at the height of the straight knee.
        """
        z = z - self.shift_mm * smoothstep(np.abs(x) / (_SHIFT_SHARE * self.model.half_hip_mm))
        if self.knee_flexion_deg == 0.0:
            s, forward = self.model.thigh_mm - z, y
        else:
            s, forward = self._unbend(y, z)
        outward = x - self.sideways(s)
        if self.rotation_deg != 0.0:
            angle = self.turn(s)
            cos, sin = np.cos(angle), np.sin(angle)
            # Toes outwards: what looked forwards in the leg now looks outwards.
            outward, forward = cos * outward - sin * forward, sin * outward + cos * forward
        return outward, forward, s

    def _unbend(self, y: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Position along the bowed axis and forwards of it, at unchanged volume."""
        first = np.array([-UNBEND_REACH_MM, -UNBEND_REACH_MM - self.model.shank_mm])
        at = [((v - v0) / UNBEND_STEP_MM).ravel() for v, v0 in zip((y, z), first, strict=True)]
        moved = [
            ndimage.map_coordinates(table, at, order=1, mode="nearest").reshape(y.shape)
            for table in self._unbend_table
        ]
        return self.model.thigh_mm - z + moved[0], y + moved[1]

    @cached_property
    def _unbend_table(self) -> tuple[Floats, Floats]:
        """How much bent points move along s and forwards when unbent, on a lattice of y and z."""
        reach, step = UNBEND_REACH_MM, UNBEND_STEP_MM
        y, z = np.meshgrid(
            np.arange(-reach, reach, step),
            np.arange(-reach - self.model.shank_mm, reach + self.model.thigh_mm, step),
            indexing="ij",
        )
        s = self.model.thigh_mm - z
        for _ in range(6):
            axis = self._bow_at(s)
            sin, cos = np.sin(axis[..., 2]), np.cos(axis[..., 2])
            dy, dz = y - axis[..., 0], z - axis[..., 1]
            s = s + (dy * sin - dz * cos) / (1.0 - axis[..., 3] * (dy * cos + dz * sin))
        axis = self._bow_at(s)
        sin, cos = np.sin(axis[..., 2]), np.cos(axis[..., 2])
        across = (y - axis[..., 0]) * cos + (z - axis[..., 1]) * sin
        forward = across - 0.5 * axis[..., 3] * across * across
        return s - (self.model.thigh_mm - z), forward - y

    def axis_point(self, level: float) -> tuple[float, float, float]:
        """World point of this side (x outwards, y, z) on the limb axis at a level."""
        s = self.model.position_mm(level)
        y, z = self._bow_at(np.array(s))[:2]
        return (float(self.sideways(np.array(s))), float(y), float(z) + self.shift_mm)

    def inner_edge(
        self, levels: tuple[float, float], codes: tuple[int, int]
    ) -> tuple[Floats, Floats]:
        """s of the planes between two levels, and the smallest x there of some tissues, mm.

        The tissues are those whose codes are from codes[0] to codes[1]; x is that of the turned
        leg, before it is moved outwards, and infinite where there is no such tissue.
        """
        model = self.model
        s = model.positions_mm
        x = model.origin[0] + model.spacing[0] * (np.arange(model.codes.shape[0]) - 0.5)
        y = model.origin[1] + model.spacing[1] * np.arange(model.codes.shape[1])
        at = model.segments.levels(s)
        keep = np.flatnonzero((at > levels[0]) & (at < levels[1]))
        angles = self.turn(s)
        inner = np.full(len(keep), np.inf)
        for n, k in enumerate(keep):
            plane = model.codes[:, :, k]
            filled = (plane >= codes[0]) & (plane <= codes[1])
            # Turns stay below 90 degrees: in each row only the innermost point can matter.
            rows = np.flatnonzero(filled.max(axis=0))
            innermost = x[filled.argmax(axis=0)[rows]]
            turned = math.cos(angles[k]) * innermost + math.sin(angles[k]) * y[rows]
            inner[n] = turned.min(initial=np.inf)
        return s[keep], inner + model.half_hip_mm

    def needs(self, gap_mm: float) -> tuple[float, float, float]:
        """Widening and the two slopes at which the skin keeps half a gap from the midline."""
        s, edge = self.inner_edge((FREE_LEVEL, BOTTOM_LEVEL), (1, 255))
        missing = 0.5 * gap_mm - edge
        level = self.model.segments.levels(s)
        # Between the thighs skin and fat give way to the other leg, muscle does not.
        _, muscle = self.inner_edge((0.0, FREE_LEVEL), (1, MUSCLES[-1].id))
        upper, lower = level < THIGH_LEVEL, level > KNEE_LEVEL
        middle = ~upper & ~lower
        widening = max(0.0, float(missing[upper].max()), float((1.0 - muscle).max()))
        thigh = (missing[middle] - widening) / self._ramp(s[middle], LEAN_LEVELS)
        slope = max(float(thigh.max()), LEAST_SLOPE)
        moved = widening + slope * (
            self._ramp(s[lower], LEAN_LEVELS) - self._ramp(s[lower], SHANK_LEVELS)
        )
        shank = (missing[lower] - moved) / self._ramp(s[lower], SHANK_LEVELS)
        return widening, slope, max(float(shank.max()), LEAST_SHANK_SLOPE)

    def _ramp(self, s: Floats, levels: tuple[float, float]) -> Floats:
        """Smooth start of a straight line: 0 above the first level, then up to 1 mm per mm."""
        low, high = (self.model.position_mm(level) for level in levels)
        t = np.maximum(s - low, 0.0)
        width = high - low
        return np.where(t < width, t * t / (2.0 * width), t - 0.5 * width)
