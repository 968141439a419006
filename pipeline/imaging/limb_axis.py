"""The long axis of a leg: joints found from labels, and positions along it.

Positions count hip 0, knee 1, ankle 2. Where a joint is out of view they are millimetres from
the joint that is seen; a joint is never invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.core.grid import Grid
from pipeline.core.results import PositionScale
from pipeline.core.scan import Leg, LimbAxis, SegmentedLeg
from pipeline.core.soft import Confidence
from pipeline.core.volume import LabelMap
from pipeline.imaging.extent import gap_beside

Floats = NDArray[np.float64]
Point = tuple[float, float, float]

#: Femur : tibia length (doi 10.3390/osteology1020009); scales the segment whose far joint is
#: out of view when positions are counted in joints.
FEMUR_TO_TIBIA = 1.28
#: Radius of a femoral head, mm: the mean shift that finds its centre looks this far.
_HEAD_RADIUS_MM = 24.0
#: The axis turns from thigh to shank over this distance each side of the knee, mm.
_KNEE_TURN_MM = 40.0
#: The ends of a long bone are this much wider than its thinnest part (area); a bone that was
#: merely cut is not.
_FLARE = 1.5
#: Hip centre to knee of people, mm: femurs measure 393 to 584 mm (doi 10.3390/osteology1020009),
#: from head to condyles about 30 mm more; adolescents are a little shorter. Ends of muscles show
#: the joints of adults; ends of bones also those of children (a femur of two years measures
#: about 170 mm) and of very tall people.
_HIP_TO_KNEE_MM = (300.0, 560.0)
_HIP_TO_KNEE_OF_BONES_MM = (170.0, 640.0)
#: From the lower end of the tibia (inner malleolus) up to the joint.
_ANKLE_ABOVE_END_MM = 8.0
#: A muscle ends, for the anchors below, where its area falls below this share of its largest
#: one: thin tips are drawn differently by every source of labels.
_END_SHARE = 0.2
#: The last 10 mm before such an end have less than this share, or the muscle was cut.
_TAPER_SHARE = 0.7
#: Length of the end of a structure whose centre is taken, mm.
_END_MM = 20.0


@dataclass(frozen=True)
class _Anchor:
    """An end of a muscle near a joint, and the way from there to the joint.

    Attributes:
        muscles: taken together.
        upper: which end.
        length_mm: so much of it must be in view; of less, the largest area is not known.
        to_joint: mm to the right (outwards), to the front and up, in right-leg pose.
    """

    muscles: tuple[str, ...]
    upper: bool
    length_mm: float
    to_joint: Point


_GASTROCNEMII = ("gastrocnemius_medialis", "gastrocnemius_lateralis", "gastrocnemius")
#: Means over both legs of bodies whose bones show where the joint is: the two automatic
#: segmentations of the MuscleMap toolbox (MIT) and the Visible Human female (Andreassen et al.,
#: CC BY 4.0). Single ends lie within about 15 mm of the mean.
_HIP_ANCHORS = (_Anchor(("vastus_lateralis",), True, 120.0, (-56.0, -3.0, 33.0)),)
_BEHIND_KNEE_ANCHORS = (
    _Anchor(("popliteus",), True, 40.0, (1.0, 22.0, 21.0)),
    _Anchor(_GASTROCNEMII, True, 40.0, (5.0, 34.0, -41.0)),
)
_ABOVE_KNEE_ANCHORS = (
    _Anchor(("vastus_medialis",), False, 120.0, (27.0, -29.0, -46.0)),
    _Anchor(("vastus_lateralis",), False, 120.0, (-44.0, -18.0, -95.0)),
    _Anchor(("semimembranosus",), False, 120.0, (26.0, 32.0, -39.0)),
    _Anchor(("biceps_femoris_short",), False, 80.0, (-33.0, 29.0, -35.0)),
)


def find_limb_axis(labels: LabelMap, seen: NDArray[np.bool_]) -> LimbAxis:
    """Joint centres of one leg in right-leg pose.

    From bones where they are labelled and their end is in view; else the hip and the knee from
    ends of muscles next to them. The ankle is known from the tibia only. A joint that is out of
    view, or whose end of bone or muscle is cut by the field of view or the labelling, is None.
    In thick slices the end of a bone is known to half a slice.

    Args:
        labels: LEG_SCHEME on the leg's grid.
        seen: per level of the third axis, whether the leg was imaged there.
    """
    shape = _Shape(labels, seen if seen.any() else np.ones_like(seen))
    hip, knee, ankle = (
        joint if joint is not None and shape.shows(joint) else None
        for joint in (_hip(shape), _knee(shape), _ankle(shape))
    )
    if hip is not None and knee is not None:
        apart = float(np.linalg.norm(knee - hip))
        of_bones = _head(shape) is not None and _ends_at_knee(shape) is not None
        low, high = _HIP_TO_KNEE_OF_BONES_MM if of_bones else _HIP_TO_KNEE_MM
        if not low <= apart <= high:
            # One of them is an end of patchy labels, and which one cannot be told.
            hip = knee = None
    direction, origin = _downwards(shape.level_centres(), labels.grid)
    joints = [joint for joint in (hip, knee, ankle) if joint is not None]
    if len(joints) > 1:
        between = joints[-1] - joints[0]
        direction = between / np.linalg.norm(between)
    return LimbAxis(
        hip=_point(hip),
        knee=_point(knee),
        ankle=_point(ankle),
        direction=_as_point(direction),
        origin=_as_point(origin),
    )


def with_labels(
    leg: Leg, labels: LabelMap, *, confidence: Mapping[str, Confidence], labelled: NDArray[np.bool_]
) -> SegmentedLeg:
    """A leg with its labels and the axis they define; labels saved earlier come back this way."""
    axis = find_limb_axis(labels, leg.seen)
    return SegmentedLeg(leg, labels, axis, confidence, labelled)


@dataclass(frozen=True, eq=False)
class _Run:
    """Voxels of a structure on the levels that belong to its largest piece.

    Attributes:
        index: (n, 3).
        levels: first and last level, both included.
        areas: mm^2 by level, from the first to the last.
    """

    index: NDArray[np.intp]
    levels: tuple[int, int]
    areas: Floats


class _Shape:
    """The labelled structures of one leg and their ends, in mm."""

    def __init__(self, labels: LabelMap, seen: NDArray[np.bool_]) -> None:
        self._labels = labels.data
        self.grid = labels.grid
        self._seen = seen
        levels = np.flatnonzero(seen)
        first, last = int(levels[0]), int(levels[-1])
        self._first, self._last = first, last
        self._boxes = ndimage.find_objects(labels.data)
        used = [box[2] for box in self._boxes if box is not None]
        # Levels the labels speak of, as far as they were imaged.
        self._ends = (
            max(first, min((s.start for s in used), default=0)),
            min(last, max((s.stop for s in used), default=0) - 1),
        )

    def run(self, names: Sequence[str]) -> _Run | None:
        """Largest piece of some structures together; None where they are not labelled."""
        parts = []
        for name in names:
            value = STRUCTURE_IDS[name]
            box = self._boxes[value - 1] if value <= len(self._boxes) else None
            if box is not None:
                lower = [s.start for s in box]
                parts.append(np.argwhere(self._labels[box] == value) + lower)
        if not parts:
            return None
        index = np.concatenate(parts)
        counts = np.bincount(index[:, 2]).astype(np.float64)
        # A single level that the labelling skipped does not end a structure.
        joined = ndimage.binary_closing(np.pad(counts > 0, 2), np.ones(3))[2:-2] | (counts > 0)
        pieces, _ = ndimage.label(joined)
        mine = np.flatnonzero(pieces == pieces[np.argmax(counts)])
        bottom, top = int(mine[0]), int(mine[-1])
        keep = (index[:, 2] >= bottom) & (index[:, 2] <= top)
        area = self.grid.voxel_volume_mm3 / self.grid.voxel_sizes_mm[2]
        return _Run(index[keep], (bottom, top), counts[bottom : top + 1] * area)

    def shows(self, point: Floats) -> bool:
        """Whether a point lies on an imaged level."""
        level = round(float(self.grid.world_to_index(point)[2]))
        return 0 <= level < self._seen.size and bool(self._seen[level])

    def in_view(self, run: _Run, *, upper: bool) -> bool:
        """Whether an end of a structure lies inside the field of view."""
        level = run.levels[1] if upper else run.levels[0]
        inside = level < self._last if upper else level > self._first
        return inside and not gap_beside(self._seen, level, level)

    def end(self, run: _Run, level: float, *, upper: bool, depth_mm: float) -> Floats:
        """Centre of the last depth_mm of a structure before a level, moved to that level."""
        depth = max(1.0, depth_mm / self.grid.voxel_sizes_mm[2])
        away = (level - run.index[:, 2]) * (1.0 if upper else -1.0)
        middle = run.index[(away > -0.5) & (away < depth)].mean(axis=0)
        middle[2] = level
        return self.grid.index_to_world(middle)

    def joint(self, anchor: _Anchor) -> Floats | None:
        """Where an end of a muscle says a joint is; None where that end is not in view."""
        run = self.run(anchor.muscles)
        if run is None:
            return None
        size = self.grid.voxel_sizes_mm[2]
        if run.areas.size * size < anchor.length_mm:
            return None
        # From the belly outwards; one more level, empty where labels of others go on.
        shares = run.areas / run.areas.max()
        shares, last = (shares, run.levels[1]) if anchor.upper else (shares[::-1], run.levels[0])
        if gap_beside(self._seen, last, last):
            return None
        beyond = last < self._ends[1] if anchor.upper else last > self._ends[0]
        if beyond:
            shares = np.append(shares, 0.0)
        below = np.flatnonzero(shares < _END_SHARE)
        below = below[below > np.argmax(shares)]
        if below.size == 0:
            return None
        k = int(below[0])
        count = max(1, round(_END_MM / 2 / size))
        if shares[max(0, k - count) : k].mean() > _TAPER_SHARE:
            return None
        part = (shares[k - 1] - _END_SHARE) / (shares[k - 1] - shares[k])
        steps = k - 1 + float(part)
        level = run.levels[0] + steps if anchor.upper else run.levels[1] - steps
        end = self.end(run, level, upper=anchor.upper, depth_mm=_END_MM)
        return np.asarray(end + np.array(anchor.to_joint), dtype=np.float64)

    def bone_end(self, name: str, *, upper: bool, depth_mm: float) -> Floats | None:
        """End of a long bone; None where it is not labelled or was cut."""
        run = self.run((name,))
        if run is None or not self.in_view(run, upper=upper):
            return None
        count = max(1, round(60.0 / self.grid.voxel_sizes_mm[2]))
        wide = run.areas[-count:].max() if upper else run.areas[:count].max()
        if wide < _FLARE * np.percentile(run.areas, 10):
            return None
        level = run.levels[1] + 0.5 if upper else run.levels[0] - 0.5
        return self.end(run, level, upper=upper, depth_mm=depth_mm)

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
        return self.grid.index_to_world(index), areas[levels]


def _hip(shape: _Shape) -> Floats | None:
    head = _head(shape)
    return head if head is not None else _mean([shape.joint(anchor) for anchor in _HIP_ANCHORS])


def _head(shape: _Shape) -> Floats | None:
    """Centre of the head of the femur."""
    run = shape.run(("femur",))
    if run is None or shape.bone_end("femur", upper=True, depth_mm=10.0) is None:
        return None
    points = shape.grid.index_to_world(run.index)
    upper = points[points[:, 2] > points[:, 2].max() - 60.0]
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


def _ends_at_knee(shape: _Shape) -> Floats | None:
    """The middle between the ends of femur and tibia at the knee, or the one that is in view."""
    return _mean(
        [
            shape.bone_end("femur", upper=False, depth_mm=25.0),
            shape.bone_end("tibia", upper=True, depth_mm=20.0),
        ]
    )


def _knee(shape: _Shape) -> Floats | None:
    from_bones = _ends_at_knee(shape)
    if from_bones is not None:
        return from_bones
    # Behind and in front, inside and outside: what a turn of the leg does to one end, it undoes
    # on another.
    groups = [
        _mean([shape.joint(anchor) for anchor in anchors])
        for anchors in (_BEHIND_KNEE_ANCHORS, _ABOVE_KNEE_ANCHORS)
    ]
    return _mean(groups)


def _ankle(shape: _Shape) -> Floats | None:
    end = shape.bone_end("tibia", upper=False, depth_mm=10.0)
    return None if end is None else end + np.array([0.0, 0.0, _ANKLE_ABOVE_END_MM])


def _mean(points: Sequence[Floats | None]) -> Floats | None:
    known = [point for point in points if point is not None]
    return np.asarray(np.mean(known, axis=0), dtype=np.float64) if known else None


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
