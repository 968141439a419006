"""The long axis of a leg: joints found from labels, and positions along it.

Positions count hip 0, knee 1, ankle 2. Where a joint is out of view they are millimetres from
the joint that is seen; a joint is never invented.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.core.grid import Grid
from pipeline.core.results import PositionScale
from pipeline.core.scan import LimbAxis
from pipeline.core.volume import LabelMap

Floats = NDArray[np.float64]
Point = tuple[float, float, float]

#: Femur : tibia length (doi 10.3390/osteology1020009); scales the segment whose far joint is
#: out of view when positions are counted in joints.
FEMUR_TO_TIBIA = 1.28
#: Radius of a femoral head, mm: the mean shift that finds its centre looks this far.
_HEAD_RADIUS_MM = 24.0
#: The axis turns from thigh to shank over this distance each side of the knee, mm.
_KNEE_TURN_MM = 40.0
#: Hip centre to knee of the reference person, mm, and the share of it at which the vastus
#: lateralis begins (attachment levels in percent of hip centre to knee: 4 to 72).
_HIP_TO_KNEE_MM = 410.0
_VASTUS_LATERALIS_TOP = 0.04


def find_limb_axis(labels: LabelMap, seen: NDArray[np.bool_]) -> LimbAxis:
    """Joint centres of one leg in right-leg pose.

    From bones where they are labelled and their end is in view; else the hip from the upper end
    of the vastus lateralis and the knee from the upper end of the popliteus. The ankle is
    known from the tibia only.

    Args:
        labels: LEG_SCHEME on the leg's grid.
        seen: per level of the third axis, whether the leg was imaged there.
    """
    levels = np.flatnonzero(seen)
    first, last = (int(levels[0]), int(levels[-1])) if levels.size else (0, len(seen) - 1)
    shape = _Shape(labels, first, last)
    hip = _hip(shape)
    knee = _knee(shape)
    ankle = shape.end("tibia", upper=False, depth_mm=10.0)
    centres = shape.level_centres()
    direction, origin = _downwards(centres, labels.grid)
    return LimbAxis(
        hip=_point(hip),
        knee=_point(knee),
        ankle=_point(ankle),
        direction=_as_point(direction),
        origin=_as_point(origin),
    )


class _Shape:
    """Points and ends of the labelled structures of one leg, in mm."""

    def __init__(self, labels: LabelMap, first: int, last: int) -> None:
        self._labels = labels.data
        self._grid = labels.grid
        self._first, self._last = first, last

    def points(self, name: str) -> tuple[NDArray[np.intp], Floats] | None:
        """Indices (n, 3) and RAS mm (n, 3) of a structure, None where it is not labelled."""
        index = np.argwhere(self._labels == STRUCTURE_IDS[name])
        return None if len(index) == 0 else (index, self._grid.index_to_world(index))

    def end(self, name: str, *, upper: bool, depth_mm: float) -> Floats | None:
        """Centre of the last depth_mm of a structure, moved to its very end.

        None where the structure is not labelled or goes on beyond the field of view.
        """
        found = self.points(name)
        if found is None:
            return None
        index, points = found
        level = index[:, 2].max() if upper else index[:, 2].min()
        if level == (self._last if upper else self._first):
            return None
        edge = points[index[:, 2] == level, 2].mean()
        edge += (0.5 if upper else -0.5) * self._grid.voxel_sizes_mm[2]
        near = np.abs(points[:, 2] - edge) <= max(depth_mm, self._grid.voxel_sizes_mm[2])
        centre = points[near].mean(axis=0)
        centre[2] = edge
        return np.asarray(centre, dtype=np.float64)

    def centre_at(self, z_mm: float) -> Floats | None:
        """Centre of everything labelled near one level."""
        index = np.argwhere(self._labels)
        points = self._grid.index_to_world(index)
        near = np.abs(points[:, 2] - z_mm) <= max(15.0, self._grid.voxel_sizes_mm[2])
        if not near.any():
            return None
        centre = points[near].mean(axis=0)
        centre[2] = z_mm
        return np.asarray(centre, dtype=np.float64)

    def level_centres(self) -> tuple[Floats, Floats]:
        """Centre (n, 3) in mm and area in voxels (n,) of everything labelled, level by level."""
        present = self._labels != 0
        areas = present.sum(axis=(0, 1)).astype(np.float64)
        levels = np.flatnonzero(areas)
        columns = present.sum(axis=1, dtype=np.float64)
        rows = present.sum(axis=0, dtype=np.float64)
        x = np.arange(present.shape[0]) @ columns
        y = np.arange(present.shape[1]) @ rows
        index = np.stack([x[levels] / areas[levels], y[levels] / areas[levels], levels], axis=1)
        return self._grid.index_to_world(index), areas[levels]


def _hip(shape: _Shape) -> Floats | None:
    found = shape.points("femur")
    if found is not None:
        top = shape.end("femur", upper=True, depth_mm=10.0)
        if top is None:
            return None
        points = found[1]
        upper = points[points[:, 2] > top[2] - 60.0]
        # The head is the inner upper part; in right-leg pose the inner side is at low x.
        inner = upper[upper[:, 0] < upper[:, 0].min() + 2 * _HEAD_RADIUS_MM]
        centre = inner[inner[:, 2] > inner[:, 2].max() - 2 * _HEAD_RADIUS_MM].mean(axis=0)
        for _ in range(20):
            near = points[np.linalg.norm(points - centre, axis=1) < _HEAD_RADIUS_MM]
            moved = near.mean(axis=0)
            if np.linalg.norm(moved - centre) < 0.05:
                break
            centre = moved
        return np.asarray(centre, dtype=np.float64)
    start = shape.end("vastus_lateralis", upper=True, depth_mm=10.0)
    if start is None:
        return None
    return shape.centre_at(float(start[2]) + _VASTUS_LATERALIS_TOP * _HIP_TO_KNEE_MM)


def _knee(shape: _Shape) -> Floats | None:
    femur = shape.end("femur", upper=False, depth_mm=25.0)
    tibia = shape.end("tibia", upper=True, depth_mm=20.0)
    ends = [end for end in (femur, tibia) if end is not None]
    if ends:
        return np.asarray(np.mean(ends, axis=0), dtype=np.float64)
    popliteus = shape.end("popliteus", upper=True, depth_mm=10.0)
    return None if popliteus is None else shape.centre_at(float(popliteus[2]))


def _downwards(centres: tuple[Floats, Floats], grid: Grid) -> tuple[Floats, Floats]:
    """Direction of the line through the centres of the levels, and its uppermost point."""
    points, areas = centres
    down = -grid.affine[:3, 2] / np.linalg.norm(grid.affine[:3, 2])
    if len(points) == 0:
        return down, grid.affine[:3, 3].copy()
    origin = points[np.argmax(points[:, 2])]
    middle = np.average(points, axis=0, weights=areas)
    spread = points - middle
    length = np.ptp(spread @ down)
    # A short stack says nothing about a tilt: the scanner's own axis is the better guess.
    if len(points) < 3 or length < 100.0:
        return down, origin
    moment = (spread * areas[:, None]).T @ spread
    axis = np.linalg.eigh(moment)[1][:, -1]
    axis = axis if axis @ down > 0 else -axis
    return (axis, origin) if axis @ down > 0.8 else (down, origin)


def _point(point: Floats | None) -> Point | None:
    return None if point is None else _as_point(point)


def _as_point(point: Sequence[float] | Floats) -> Point:
    return (float(point[0]), float(point[1]), float(point[2]))


def _reference(axis: LimbAxis) -> tuple[str, Point]:
    """Name and place of the point that distances along the axis count from."""
    for name in ("knee", "hip", "ankle"):
        joint: Point | None = getattr(axis, name)
        if joint is not None:
            return f"the {name}", joint
    return "the top of the labelled part", axis.origin


def _directions(axis: LimbAxis) -> tuple[Floats, Floats]:
    """Unit vectors downwards along the thigh and along the shank."""
    own = np.array(axis.direction)
    thigh = _between(axis.hip, axis.knee)
    shank = _between(axis.knee, axis.ankle)
    return (own if thigh is None else thigh), (own if shank is None else shank)


def _between(upper: Point | None, lower: Point | None) -> Floats | None:
    if upper is None or lower is None:
        return None
    vector = np.array(lower) - np.array(upper)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)


def axis_mm(axis: LimbAxis, points: Floats) -> Floats:
    """Distance of points (..., 3) down the limb in mm, counted from the knee where it is known.

    Along hip-knee above the knee and knee-ankle below it, turning smoothly over the knee;
    without a knee from the hip, else the ankle, else the top of the labelled part.
    """
    _, reference = _reference(axis)
    thigh, shank = _directions(axis)
    relative = points - np.array(reference)
    if axis.knee is None:
        return np.asarray(relative @ thigh, dtype=np.float64)
    above, below = relative @ thigh, relative @ shank
    t = np.clip(((above + below) / 2 + _KNEE_TURN_MM) / (2 * _KNEE_TURN_MM), 0.0, 1.0)
    weight = t * t * (3.0 - 2.0 * t)
    return np.asarray((1.0 - weight) * above + weight * below, dtype=np.float64)


def _segment_lengths(axis: LimbAxis) -> tuple[float, float] | None:
    """Hip-knee and knee-ankle distance in mm; the one not seen from the other; None without."""
    if axis.knee is None or (axis.hip is None and axis.ankle is None):
        return None
    knee = np.array(axis.knee)
    thigh = None if axis.hip is None else float(np.linalg.norm(knee - np.array(axis.hip)))
    shank = None if axis.ankle is None else float(np.linalg.norm(np.array(axis.ankle) - knee))
    if thigh is None:
        assert shank is not None
        thigh = FEMUR_TO_TIBIA * shank
    if shank is None:
        shank = thigh / FEMUR_TO_TIBIA
    return thigh, shank


def position_at(axis: LimbAxis, along_mm: Floats) -> Floats:
    """Positions (hip 0, knee 1, ankle 2, or mm) of distances that axis_mm gave."""
    lengths = _segment_lengths(axis)
    if lengths is None:
        return along_mm
    thigh, shank = lengths
    return np.asarray(1.0 + np.where(along_mm < 0, along_mm / thigh, along_mm / shank))


def position_scale(axis: LimbAxis) -> PositionScale:
    """How position_at counts, in words."""
    seen = {name: getattr(axis, name) is not None for name in ("hip", "knee", "ankle")}
    if _segment_lengths(axis) is None:
        return PositionScale(
            unit="mm",
            reference=f"millimetres down the limb from {_reference(axis)[0]}",
            hip_seen=seen["hip"],
            knee_seen=seen["knee"],
            ankle_seen=seen["ankle"],
        )
    missing = [name for name in ("hip", "ankle") if not seen[name]]
    note = f"; beyond the knee scaled, the {missing[0]} is out of view" if missing else ""
    return PositionScale(
        unit="joints",
        reference=f"hip 0, knee 1, ankle 2{note}",
        hip_seen=seen["hip"],
        knee_seen=seen["knee"],
        ankle_seen=seen["ankle"],
    )
