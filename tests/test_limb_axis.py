"""Joints from labels, and positions along the limb."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legs import changed, file_legs, phantom_legs

from pipeline.core.anatomy import MUSCLES, Side
from pipeline.core.scan import LimbAxis, SegmentedLegs
from pipeline.core.volume import LabelMap
from pipeline.imaging.limb_axis import axis_mm, find_limb_axis, position_at, position_scale
from pipeline.phantom import Body, BodyParameters, Pose, make_body

MUSCLE_NAMES = tuple(m.name for m in MUSCLES)
#: What thigh maps of neuromuscular cohorts label.
THIGH_NAMES = tuple(
    m.name
    for m in MUSCLES
    if m.region == "thigh" and m.name not in ("adductor_longus", "adductor_brevis", "pectineus")
)


@pytest.fixture(scope="module")
def body() -> Body:
    pose = Pose(rotation_deg=(10.0, -10.0), knee_flexion_deg=(5.0, 0.0), shift_mm=(0.0, 20.0))
    return make_body(BodyParameters(pose=pose), detail="reduced")


def error_mm(body: Body, legs: SegmentedLegs, side: Side, joint: str) -> float:
    truth = np.array(body.landmarks[joint, side])
    if side is Side.LEFT:
        truth[0] = -truth[0]
    found = getattr(legs[side].axis, joint)
    assert found is not None, f"{joint} of the {side} leg was not found"
    return float(np.linalg.norm(np.array(found) - truth))


@pytest.mark.parametrize("voxel_mm", [(3.0, 3.0, 3.0), (2.0, 2.0, 6.0)])
def test_joints_from_bones(body: Body, voxel_mm: tuple[float, float, float]) -> None:
    legs = phantom_legs(body, voxel_mm)
    for side in Side:
        for joint in ("hip", "knee", "ankle"):
            assert error_mm(body, legs, side, joint) < 10.0


@pytest.mark.parametrize("size", [0.5, 0.65, 1.25])
def test_joints_of_a_child_and_of_a_giant_are_found_from_bones(body: Body, size: float) -> None:
    for leg in (legs := phantom_legs(body, (3.0, 3.0, 3.0))).right, legs.left:
        labels = LabelMap(leg.labels.data, leg.labels.grid.resized(size), leg.labels.scheme)
        found = find_limb_axis(labels, leg.leg.seen)
        for joint in ("hip", "knee", "ankle"):
            there = np.array(getattr(found, joint))
            away = np.linalg.norm(there - size * np.array(getattr(leg.axis, joint)))
            assert away < 15.0, joint


def test_joints_from_thick_slices_are_known_to_half_a_slice(body: Body) -> None:
    legs = phantom_legs(body, (2.0, 2.0, 24.0))
    for side in Side:
        for joint in ("hip", "knee", "ankle"):
            assert error_mm(body, legs, side, joint) < 15.0


@pytest.mark.parametrize("voxel_mm", [(3.0, 3.0, 3.0), (2.0, 2.0, 24.0)])
def test_joints_from_muscles_alone(body: Body, voxel_mm: tuple[float, float, float]) -> None:
    legs = phantom_legs(body, voxel_mm, keep=MUSCLE_NAMES)
    for side in Side:
        assert error_mm(body, legs, side, "hip") < 20.0
        assert error_mm(body, legs, side, "knee") < 20.0
        assert legs[side].axis.ankle is None


def test_joints_from_eleven_thigh_muscles(body: Body) -> None:
    legs = phantom_legs(body, (2.0, 2.0, 6.0), keep=THIGH_NAMES)
    for side in Side:
        assert error_mm(body, legs, side, "hip") < 20.0
        # Thigh muscles of the phantom end about 20 mm lower than those of the bodies the
        # levels were measured from.
        assert error_mm(body, legs, side, "knee") < 30.0


def test_a_tilted_grid_finds_the_same_joints(body: Body) -> None:
    straight, tilted = (
        phantom_legs(body, (3.0, 3.0, 3.0), oblique_deg=angle) for angle in (0.0, 8.0)
    )
    for side in Side:
        for joint in ("hip", "knee", "ankle"):
            points = [getattr(legs[side].axis, joint) for legs in (straight, tilted)]
            assert np.linalg.norm(np.subtract(*points)) < 8.0


def test_cut_ends_are_not_joints(body: Body) -> None:
    slab = phantom_legs(body, (3.0, 3.0, 3.0), z_range_mm=(80.0, 330.0))
    for side in Side:
        axis = slab[side].axis
        assert (axis.hip, axis.knee, axis.ankle) == (None, None, None)
        assert axis.direction[2] < -0.9


def test_a_joint_next_to_the_field_of_view_is_not_invented(body: Body) -> None:
    # The vasti and hamstrings end inside, the knee lies 20 mm below the last slice.
    legs = phantom_legs(body, (3.0, 3.0, 3.0), z_range_mm=(22.0, 480.0), keep=THIGH_NAMES)
    assert legs.right.axis.knee is None
    assert legs.right.axis.hip is not None


def test_bones_that_end_before_levels_nobody_scanned_have_no_joint_there(body: Body) -> None:
    legs = phantom_legs(body, (3.0, 3.0, 3.0))
    for side in Side:
        leg = legs[side]
        knee = round(leg.leg.grid.world_to_index(leg.axis.knee)[2])
        labels, seen = np.array(leg.labels.data), np.array(leg.leg.seen)
        labels[:, :, knee - 8 : knee + 5] = 0
        gap = LabelMap(labels, leg.labels.grid, leg.labels.scheme)
        assert find_limb_axis(gap, seen).knee is not None
        seen[knee - 8 : knee + 5] = False
        axis = find_limb_axis(gap, seen)
        assert axis.knee is None
        assert axis.hip == leg.axis.hip
        assert axis.ankle == leg.axis.ankle


def test_labels_that_stop_in_mid_thigh_have_no_knee(body: Body) -> None:
    legs = phantom_legs(body, (3.0, 3.0, 3.0), keep=(*THIGH_NAMES, "femur"))
    leg = legs.right
    middle = round(leg.leg.grid.world_to_index(leg.axis.knee)[2]) + 50

    def erase(labels: np.ndarray) -> np.ndarray:
        labels[:, :, :middle] = 0
        return labels

    assert changed(leg, change=erase).axis.knee is None


def test_empty_labels_have_an_axis_of_the_scanner() -> None:
    body = make_body(BodyParameters(), detail="reduced")
    leg = phantom_legs(body, (5.0, 5.0, 10.0)).right
    axis = changed(leg, change=np.zeros_like).axis
    assert (axis.hip, axis.knee, axis.ankle) == (None, None, None)
    assert axis.direction == pytest.approx((0.0, 0.0, -1.0))


def test_real_knees_from_muscles_agree_with_bones(shared_data) -> None:
    legs = file_legs(shared_data / "anatomy" / "mm_pelvis_calf.nii.gz")
    for side in Side:

        def without_bones(labels: np.ndarray) -> np.ndarray:
            return np.where(np.isin(labels, (41, 42, 43, 44, 45, 46, 47)), 0, labels)

        whole, muscles = legs[side].axis, changed(legs[side], change=without_bones).axis
        for joint in ("hip", "knee"):
            assert np.linalg.norm(np.subtract(getattr(whole, joint), getattr(muscles, joint))) < 20


WHOLE = LimbAxis((10.0, 5.0, 400.0), (5.0, 0.0, 0.0), (0.0, -20.0, -380.0), (0, 0, -1), (0, 0, 0))
THIGH = LimbAxis(WHOLE.hip, WHOLE.knee, None, (0.0, 0.0, -1.0), (0.0, 0.0, 500.0))
KNEE = LimbAxis(None, WHOLE.knee, None, (0.0, 0.0, -1.0), (0.0, 0.0, 500.0))
NONE = LimbAxis(None, None, None, (0.0, 0.0, -1.0), (0.0, 0.0, 500.0))


def position(axis: LimbAxis, points: np.ndarray) -> np.ndarray:
    return position_at(axis, axis_mm(axis, points))


def test_joints_are_at_0_1_and_2() -> None:
    points = np.array([WHOLE.hip, WHOLE.knee, WHOLE.ankle])
    assert position(WHOLE, points) == pytest.approx([0.0, 1.0, 2.0])
    assert position_scale(WHOLE).unit == "joints"


def test_positions_go_on_beyond_the_ends() -> None:
    points = np.array([[10.0, 5.0, 440.0], [0.0, -20.0, -418.0]])
    found = position(WHOLE, points)
    assert found[0] == pytest.approx(-0.1, abs=0.001)
    assert found[1] == pytest.approx(2.1, abs=0.001)


def test_one_joint_gives_millimetres_from_it() -> None:
    points = np.array([[5.0, 0.0, 30.0], [80.0, 9.0, -30.0]])
    assert position(KNEE, points) == pytest.approx([-30.0, 30.0])
    scale = position_scale(KNEE)
    assert scale.unit == "mm"
    assert "from the knee" in scale.reference


def test_no_joint_gives_millimetres_from_the_top() -> None:
    assert position(NONE, np.array([[0.0, 0.0, 400.0]])) == pytest.approx([100.0])
    assert "top of the labelled part" in position_scale(NONE).reference


def test_a_missing_joint_is_said() -> None:
    scale = position_scale(THIGH)
    assert (scale.hip_seen, scale.knee_seen, scale.ankle_seen) == (True, True, False)
    assert "the ankle is out of view" in scale.reference


@given(
    st.sampled_from([WHOLE, THIGH, KNEE, NONE]),
    st.floats(-60, 60),
    st.floats(-60, 60),
    st.floats(-400, 420),
)
def test_the_coordinate_is_continuous_and_grows_downwards(
    axis: LimbAxis, x: float, y: float, z: float
) -> None:
    here, below = axis_mm(axis, np.array([[x, y, z], [x, y, z - 1.0]]))
    assert 0.7 < below - here < 1.3
