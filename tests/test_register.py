"""The left leg laid onto the right one: known movements found again, cuts, failures."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from legs import ENGINE, changed, file_legs, moved_copy, phantom_legs, segmented, swapped
from scipy import ndimage
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.config import RegisterConfig, default_config
from pipeline.core.anatomy import MUSCLES, STRUCTURE_IDS, Side
from pipeline.core.errors import InputError, InvariantError
from pipeline.core.grid import Grid
from pipeline.core.match import LegMatch
from pipeline.core.scan import SegmentedLeg, SegmentedLegs
from pipeline.core.transform import (
    AffineTransform,
    BlendedAffine,
    FlowTransform,
    SpatialTransform,
    mirror,
)
from pipeline.imaging.deformation import folded_nodes
from pipeline.imaging.threads import one_thread
from pipeline.io.derivatives import transform_from_json, transform_to_json
from pipeline.io.nifti import read_vectors, write_vectors
from pipeline.phantom import BodyParameters, Pose, make_body
from pipeline.stages.register import register

LEFT, RIGHT = "left-leg-mirrored", "right-leg"
VOXEL_MM = (2.5, 2.5, 4.0)
CONFIG: RegisterConfig = default_config().register_
THIGH = [STRUCTURE_IDS[m.name] for m in MUSCLES if m.region == "thigh"]
CALF = [STRUCTURE_IDS[m.name] for m in MUSCLES if m.region == "leg"]


def rotation(axis: str, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def about(centre: np.ndarray, linear: np.ndarray, shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre + shift
    return matrix


@pytest.fixture(scope="module")
def right() -> SegmentedLeg:
    return phantom_legs(make_body(BodyParameters(), detail="reduced"), VOXEL_MM).right


def centre_of(leg: SegmentedLeg) -> np.ndarray:
    return leg.leg.grid.index_to_world(np.argwhere(leg.labels.data).mean(axis=0))


def only(leg: SegmentedLeg, values: list[int]) -> SegmentedLeg:
    return changed(leg, change=lambda labels: np.where(np.isin(labels, values), labels, 0))


def errors_mm(legs: SegmentedLegs, found: SpatialTransform, truth: SpatialTransform) -> np.ndarray:
    index = np.argwhere(legs.left.labels.data)[::53]
    points = legs.left.leg.grid.index_to_world(index)
    return np.linalg.norm(found.apply(points) - truth.apply(points), axis=1)


def laid(
    right: SegmentedLeg, truth: SpatialTransform, voxel_mm: tuple[float, float, float] = VOXEL_MM
) -> tuple[SegmentedLegs, LegMatch]:
    legs = SegmentedLegs(right, moved_copy(right, truth, voxel_mm), ENGINE)
    return legs, register(legs, config=CONFIG).value


@pytest.mark.parametrize(
    ("linear", "shift"),
    [
        pytest.param(np.eye(3), (8.0, -12.0, 60.0), marks=pytest.mark.slow),
        pytest.param(rotation("z", 20.0), (0.0, 5.0, -30.0), marks=pytest.mark.slow),
        (rotation("x", 12.0) @ rotation("y", -12.0), (0.0, 0.0, 0.0)),
        pytest.param(
            rotation("z", -8.0) @ np.diag([1.1, 1.08, 1.03]),
            (5.0, 0.0, 20.0),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            np.array([[1.04, 0.1, 0.0], [0.0, 0.96, 0.04], [0.0, 0.0, 1.0]]),
            (0.0, 0.0, 0.0),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["shift", "turn", "tilt", "larger", "shear"],
)
def test_affine_movements_are_found(
    right: SegmentedLeg, linear: np.ndarray, shift: tuple[float, float, float]
) -> None:
    truth = AffineTransform(about(centre_of(right), linear, shift), LEFT, RIGHT)
    legs, match = laid(right, truth)
    error = errors_mm(legs, match.left_to_right, truth)
    assert np.median(error) < 1.0
    assert np.percentile(error, 95) < 2.5
    assert match.succeeded
    assert match.reason is None
    assert np.mean(list(match.overlap.values())) > 0.85
    assert match.inverse_error_mm < 0.1
    assert match.folded_voxels == 0


@pytest.fixture(scope="module")
def bent(right: SegmentedLeg) -> tuple[SegmentedLegs, SpatialTransform, LegMatch]:
    """A left knee bent by 10 degrees, thigh and shank turned differently."""
    knee = np.array(right.axis.knee)
    truth = BlendedAffine(
        upper=about(knee, rotation("z", 5.0), (0.0, 0.0, 15.0)),
        lower=about(knee, rotation("z", -6.0) @ rotation("x", 10.0), (0.0, 0.0, 15.0)),
        centre=knee - (0.0, 0.0, 15.0),
        direction=np.array(right.axis.direction),
        half_width_mm=25.0,
        from_space=LEFT,
        to_space=RIGHT,
    )
    with threadpool_limits(2, user_api="blas"):
        legs, match = laid(right, truth)
    return legs, truth, match


def test_a_bent_knee_is_found(bent: tuple[SegmentedLegs, SpatialTransform, LegMatch]) -> None:
    legs, truth, match = bent
    error = errors_mm(legs, match.left_to_right, truth)
    assert np.median(error) < 1.5
    assert np.percentile(error, 95) < 4.0


def test_exchanging_the_legs_inverts_the_transform(
    bent: tuple[SegmentedLegs, SpatialTransform, LegMatch],
) -> None:
    legs, _, match = bent
    other = register(swapped(legs), config=CONFIG).value
    index = np.argwhere(legs.left.labels.data)[::53]
    points = legs.left.leg.grid.index_to_world(index)
    apart = match.left_to_right.apply(points) - other.right_to_left.apply(points)
    assert np.median(np.linalg.norm(apart, axis=1)) < 0.1


def test_the_same_legs_give_the_same_result_with_any_number_of_threads(
    bent: tuple[SegmentedLegs, SpatialTransform, LegMatch],
) -> None:
    legs, _, with_two = bent
    with threadpool_limits(1, user_api="blas"):
        with_one = register(legs, config=CONFIG).value
    assert with_one.overlap == with_two.overlap
    points = legs.left.leg.grid.index_to_world(np.argwhere(legs.left.labels.data)[::53])
    with one_thread():
        ends = [match.left_to_right.apply(points) for match in (with_one, with_two)]
    assert np.array_equal(*ends)


def test_overlapping_blocks_leave_the_settings_as_they_found_them() -> None:
    """As two Python threads have them: the first to enter leaves first."""

    def blas_threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    process = sitk.ProcessObject
    before = process.GetGlobalDefaultNumberOfThreads()
    try:
        process.SetGlobalDefaultNumberOfThreads(4)
        with threadpool_limits(2, user_api="blas"):
            found = blas_threads()
            with ExitStack() as later:
                with one_thread():
                    later.enter_context(one_thread())
                assert (process.GetGlobalDefaultNumberOfThreads(), blas_threads()) == (1, {1})
            assert (process.GetGlobalDefaultNumberOfThreads(), blas_threads()) == (4, found)
    finally:
        process.SetGlobalDefaultNumberOfThreads(before)


def test_a_tilted_grid_changes_little(right: SegmentedLeg) -> None:
    part = only(right, THIGH)
    truth = AffineTransform(
        about(centre_of(part), rotation("z", 6.0), (3.0, 0.0, 10.0)), LEFT, RIGHT
    )
    turn = rotation("x", 10.0) @ rotation("y", 6.0)
    legs = SegmentedLegs(part, moved_copy(part, truth, (2.5, 2.5, 6.0), turn=turn), ENGINE)
    match = register(legs, config=CONFIG).value
    assert np.median(errors_mm(legs, match.left_to_right, truth)) < 1.5


@pytest.mark.parametrize("values", [THIGH, CALF], ids=["thigh", "calf"])
def test_slabs_cut_at_different_levels(right: SegmentedLeg, values: list[int]) -> None:
    part = only(right, values)
    truth = AffineTransform(
        about(centre_of(part), rotation("z", 10.0) @ rotation("x", 5.0), (4.0, 0.0, 25.0)),
        LEFT,
        RIGHT,
    )
    copy = moved_copy(part, truth, VOXEL_MM)
    levels = [np.flatnonzero(leg.labels.data.any(axis=(0, 1))) for leg in (part, copy)]
    legs = SegmentedLegs(
        changed(part, levels=slice(levels[0][0] + 22, levels[0][-1] - 14)),
        changed(copy, levels=slice(levels[1][0] + 15, levels[1][-1] - 25)),
        ENGINE,
    )
    match = register(legs, config=CONFIG).value
    error = errors_mm(legs, match.left_to_right, truth)
    assert np.median(error) < 2.0
    assert np.percentile(error, 95) < 4.0


@pytest.mark.parametrize("thickness", [12.0, 26.0])
def test_thick_slices_of_a_thigh(right: SegmentedLeg, thickness: float) -> None:
    part = only(right, THIGH)
    truth = AffineTransform(
        about(centre_of(part), rotation("z", 10.0), (4.0, 0.0, 0.4 * thickness)), LEFT, RIGHT
    )
    same = AffineTransform(np.eye(4), LEFT, RIGHT)
    thick = moved_copy(part, same, (1.5, 1.5, thickness))
    legs = SegmentedLegs(
        segmented(thick.labels.data, thick.leg.grid.affine, Side.RIGHT),
        moved_copy(part, truth, (1.5, 1.5, thickness)),
        ENGINE,
    )
    match = register(legs, config=CONFIG).value
    assert np.median(errors_mm(legs, match.left_to_right, truth)) < 2.5


@pytest.mark.slow
def test_larger_muscles_and_another_pose() -> None:
    person = BodyParameters(
        asymmetry_percent={m.name: -20.0 for m in MUSCLES},
        pose=Pose(rotation_deg=(5.0, 0.0), knee_flexion_deg=(0.0, 10.0), shift_mm=(0.0, 40.0)),
    )
    legs = phantom_legs(make_body(person, detail="reduced"), VOXEL_MM)
    result = register(legs, config=CONFIG)
    match = result.value
    assert match.succeeded
    after, before = (np.mean(list(o.values())) for o in (match.overlap, match.overlap_before))
    assert after > 0.8
    assert after > before
    big = [m.name for m in MUSCLES if m.name in match.overlap and m.reference_slope > 0.03]
    assert np.mean([match.overlap[name] for name in big]) > 0.85
    assert np.mean(list(match.surface_distance_mm.values())) < 3.0


def test_what_only_one_leg_shows_does_not_pull(right: SegmentedLeg) -> None:
    truth = AffineTransform(
        about(centre_of(right), rotation("z", 8.0), (5.0, 0.0, 20.0)), LEFT, RIGHT
    )
    copy = moved_copy(right, truth, VOXEL_MM)

    def without_calf_and_hip(labels: np.ndarray) -> np.ndarray:
        return np.where(np.isin(labels, THIGH), labels, 0)

    legs = SegmentedLegs(right, changed(copy, change=without_calf_and_hip), ENGINE)
    match = register(legs, config=CONFIG).value
    assert set(match.overlap) == {m.name for m in MUSCLES if m.region == "thigh"}
    assert np.median(errors_mm(legs, match.left_to_right, truth)) < 1.0


def test_nothing_in_common_fails_with_its_reason(right: SegmentedLeg) -> None:
    truth = AffineTransform(np.eye(4), LEFT, RIGHT)
    legs = SegmentedLegs(only(right, THIGH), moved_copy(only(right, CALF), truth, VOXEL_MM), ENGINE)
    result = register(legs, config=CONFIG)
    assert not result.value.succeeded
    assert "no labelled structure in common" in str(result.value.reason)
    assert [f.code for f in result.findings] == ["registration_failed"]


def scrambled(leg: SegmentedLeg, seed: int) -> SegmentedLegs:
    """The thigh of a leg, and the same with the names of its muscles drawn anew on the left."""
    part = only(leg, THIGH)
    copy = moved_copy(part, AffineTransform(np.eye(4), LEFT, RIGHT), VOXEL_MM)
    names = np.arange(256)
    names[THIGH] = np.random.default_rng(seed).permutation(THIGH)
    return SegmentedLegs(part, changed(copy, change=lambda labels: names[labels]), ENGINE)


def test_scrambled_labels_fail_by_their_overlap(right: SegmentedLeg) -> None:
    result = register(scrambled(right, seed=1), config=CONFIG)
    match = result.value
    assert not match.succeeded
    assert match.overlap
    (finding,) = result.findings
    assert finding.code == "registration_failed"
    assert finding.threshold == CONFIG.lowest_overlap
    assert finding.value is not None
    assert finding.value < CONFIG.lowest_overlap


def test_labels_that_fit_only_turned_over_fail_with_that_reason(right: SegmentedLeg) -> None:
    """A half turn has no half-way in which the legs could meet."""
    result = register(scrambled(right, seed=0), config=CONFIG)
    assert not result.value.succeeded
    assert [f.code for f in result.findings] == ["registration_failed"]
    assert "turned over, by 179 degrees" in result.findings[0].message


def test_a_weak_registration_says_so(right: SegmentedLeg) -> None:
    part = only(right, CALF)
    truth = AffineTransform(
        about(centre_of(part), rotation("z", 8.0), (0.0, 0.0, 5.0)), LEFT, RIGHT
    )
    strict = CONFIG.model_copy(update={"weak_overlap": 0.999})
    result = register(SegmentedLegs(part, moved_copy(part, truth, VOXEL_MM), ENGINE), config=strict)
    assert result.value.succeeded
    assert "registration_weak" in [f.code for f in result.findings]


def blended(bend_deg: float, width_mm: float, twist_deg: float) -> BlendedAffine:
    knee = np.array([110.0, -5.0, 40.0])
    return BlendedAffine(
        upper=about(knee, rotation("z", twist_deg), (10.0, 0.0, 30.0)),
        lower=about(knee, rotation("x", bend_deg) * 1.05, (12.0, 3.0, 28.0)),
        centre=knee,
        direction=np.array([0.0, 0.0, -1.0]),
        half_width_mm=width_mm,
        from_space=LEFT,
        to_space=RIGHT,
    )


@given(st.floats(-15, 15), st.floats(40, 80), st.floats(-20, 20), st.integers(0, 2**31))
def test_the_inverse_of_a_bend_is_exact(
    bend_deg: float, width_mm: float, twist_deg: float, seed: int
) -> None:
    transform = blended(bend_deg, width_mm, twist_deg)
    points = np.random.default_rng(seed).uniform((20, -90, -400), (200, 90, 500), (200, 3))
    back = transform.inverse().apply(transform.apply(points))
    assert np.abs(back - points).max() < 1e-4
    assert transform.inverse().inverse() is transform


def smooth_flow(seed: int, largest_mm: float) -> FlowTransform:
    """A random flow that is smooth over 30 mm and rests at the edge of its grid."""
    grid = Grid((16, 16, 24), np.diag([10.0, 10.0, 16.0, 1.0]), "between")
    noise = np.random.default_rng(seed).normal(size=(*grid.shape, 3))
    velocity = ndimage.gaussian_filter(noise, (3.0, 3.0, 3.0, 0.0))
    for axis in range(3):
        ramp = np.minimum(1.0, np.minimum(np.arange(grid.shape[axis]), 5) / 5.0)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        velocity *= (ramp * ramp[::-1]).reshape(shape)
    return FlowTransform(velocity * largest_mm / np.abs(velocity).max(), grid)


@given(st.integers(0, 2**31), st.floats(1.0, 15.0))
@settings(max_examples=15)
def test_a_flow_backwards_is_its_inverse(seed: int, largest_mm: float) -> None:
    flow = smooth_flow(seed, largest_mm)
    points = np.random.default_rng(seed).uniform((0, 0, 0), (150, 150, 360), (300, 3))
    there = flow.apply(points)
    assert np.linalg.norm(there - points, axis=1).max() > 0.1 * largest_mm
    apart = np.linalg.norm(flow.inverse().apply(there) - points, axis=1)
    assert np.median(apart) < 0.1
    assert apart.max() < 0.1 + 0.05 * largest_mm
    assert folded_nodes(flow) == 0


def test_folds_are_counted() -> None:
    flow = smooth_flow(0, 5.0)
    # Squaring cannot help velocities that jump by more than a node from one node to the next.
    rough = flow.velocity + 60.0 * np.random.default_rng(0).normal(size=flow.velocity.shape)
    assert folded_nodes(FlowTransform(rough.astype(np.float32), flow.grid)) > 0


def test_both_legs_go_half_of_the_way() -> None:
    transform = blended(8.0, 60.0, 6.0)
    first, second = transform.halves("between")
    points = np.random.default_rng(2).uniform((20, -90, -400), (200, 90, 500), (200, 3))
    far = np.abs(points[:, 2] - 40.0) > 120.0
    whole = first.then(second.inverse()).apply(points)
    assert np.abs(whole - transform.apply(points))[far].max() < 1e-6
    assert np.abs(whole - transform.apply(points)).max() < 3.0


def test_a_mirror_has_no_half_way() -> None:
    with pytest.raises(InvariantError, match="half-way"):
        mirror(0.0, LEFT, RIGHT).halves("between")


def test_a_saved_deformation_is_the_same_again(tmp_path: Path) -> None:
    halves = blended(8.0, 60.0, 6.0).halves("between")
    flow = smooth_flow(3, 8.0)
    whole = halves[0].then(flow).then(halves[1].inverse())
    write_vectors(tmp_path / "velocity.nii.gz", flow.velocity, flow.grid)
    saved = json.loads(json.dumps(transform_to_json(whole)))
    read = transform_from_json(
        saved, lambda shape: read_vectors(tmp_path / "velocity.nii.gz", shape)
    )
    points = np.random.default_rng(4).uniform((20, -90, -100), (150, 90, 300), (100, 3))
    assert np.array_equal(read.apply(points), whole.apply(points))
    assert np.array_equal(read.inverse().apply(points), whole.inverse().apply(points))
    with pytest.raises(InputError, match="vectors"):
        read_vectors(tmp_path / "velocity.nii.gz", (2, 2, 2))


def test_the_jacobian_of_a_bend_is_its_derivative() -> None:
    transform = blended(12.0, 60.0, 8.0)
    points = np.random.default_rng(1).uniform((20, -90, -100), (200, 90, 200), (50, 3))
    step = 1e-4
    numeric = np.stack(
        [
            (transform.apply(points + step * e) - transform.apply(points - step * e)) / (2 * step)
            for e in np.eye(3)
        ],
        axis=-1,
    )
    assert np.abs(transform.jacobian(points) - numeric).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "levels", "mean", "large"),
    [
        ("images/thigh_water_b_dseg-silver", slice(8, 21), 0.85, 0.9),
        ("images/leg_dwi_f_dseg", slice(None), 0.82, 0.85),
        ("anatomy/hua_014_water", slice(0, 12), 0.82, 0.88),
        ("anatomy/hua_026_fat", slice(2, 13), 0.75, 0.72),
    ],
)
def test_real_legs(shared_data, name: str, levels: slice, mean: float, large: float) -> None:
    # Limits: what was measured, less 0.03.
    legs = file_legs(shared_data / f"{name}.nii.gz", levels)
    match = register(legs, config=CONFIG).value
    assert match.succeeded
    assert np.mean(list(match.overlap.values())) > mean
    big = {"vastus_lateralis", "adductor_magnus", "soleus", "gastrocnemius_medialis"}
    assert np.mean([v for k, v in match.overlap.items() if k in big]) > large
    assert np.mean(list(match.overlap.values())) > np.mean(list(match.overlap_before.values()))


@pytest.mark.parametrize(
    ("name", "levels", "cut"),
    [
        ("images/leg_dwi_f_dseg", slice(None), 6),
        ("images/thigh_water_b_dseg-silver", slice(8, 21), 4),
    ],
)
def test_slabs_of_one_person_are_not_stretched(
    shared_data, name: str, levels: slice, cut: int
) -> None:
    # Each leg is cut at its other end; muscles that run through cannot show how long a leg is.
    # Without the wish for legs of one length the stretch was 0.87 and 1.11.
    legs = file_legs(shared_data / f"{name}.nii.gz", levels)
    shown = np.flatnonzero(legs.right.labels.data.any(axis=(0, 1)))
    first, end = shown[0], shown[-1] + 1
    slabs = SegmentedLegs(
        changed(legs.right, levels=slice(first, end - cut)),
        changed(legs.left, levels=slice(first + cut, end)),
        ENGINE,
    )
    match = register(slabs, config=CONFIG).value
    middle = np.argwhere(slabs.left.labels.data)[:, :2].mean(axis=0)
    ends = np.array([[*middle, first + cut + 1], [*middle, end - cut]])
    points = slabs.left.leg.grid.index_to_world(ends)
    carried = match.left_to_right.apply(points)
    stretch = np.diff(carried[:, 2]) / np.diff(points[:, 2])
    assert abs(stretch[0] - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vhf", "vhm", "mm_neck_knee"])
def test_real_whole_legs(shared_data, name: str) -> None:
    legs = file_legs(shared_data / "anatomy" / f"{name}.nii.gz")
    match = register(legs, config=CONFIG).value
    assert np.mean(list(match.overlap.values())) > 0.8
    other = register(swapped(legs), config=CONFIG).value
    index = np.argwhere(legs.left.labels.data)[::997]
    points = legs.left.leg.grid.index_to_world(index)
    apart = match.left_to_right.apply(points) - other.right_to_left.apply(points)
    assert np.median(np.linalg.norm(apart, axis=1)) < 1.5
