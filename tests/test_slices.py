"""Slices on a network's pixels and back: nothing moves, nothing is invented."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.grid import Grid
from pipeline.core.soft import Membership, SoftLabels
from pipeline.imaging.cleaning import boxed
from pipeline.imaging.decision import decide, labelled_levels
from pipeline.imaging.slices import (
    axis_weights,
    neighbour_offsets,
    plane_weights,
    resample_slices,
    shifted_back,
    stack_over,
    window_around,
    with_neighbours,
)

OBLIQUE = np.array(
    [[0.96, -0.28, 0.0, 17.0], [0.28, 0.96, 0.0, -40.0], [0.0, 0.0, 1.0, 5.0], [0, 0, 0, 1.0]]
)


def leg_grid(voxel_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> Grid:
    return Grid(shape, OBLIQUE @ np.diag([*voxel_mm, 1.0]), "right-leg")


def stack_of(grid: Grid, tissue: np.ndarray, seen: np.ndarray | None = None, **changes):
    values = {"pixel_mm": 1.5, "level_mm": 3.0, "margin_mm": 6.0, "multiple": 32} | changes
    seen = np.ones(grid.shape[2], dtype=bool) if seen is None else seen
    return stack_over(grid, tissue, seen, **values)


def ramp(grid: Grid, direction: tuple[float, float, float]) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return (grid.index_to_world(index) @ np.array(direction)).astype(np.float32)


@pytest.mark.parametrize(
    "voxel_mm", [(0.78, 0.78, 6.0), (1.2, 1.3, 3.0), (1.5, 1.5, 6.0), (3, 2.2, 5)]
)
def test_a_ramp_stays_where_it_is(voxel_mm):
    """Linear interpolation and averages are exact on a ramp: any shift would show."""
    grid = leg_grid(voxel_mm, (61, 70, 4))
    tissue = np.zeros(grid.shape, dtype=bool)
    tissue[20:41, 22:50] = True
    stack = stack_of(grid, tissue)
    direction = (0.9, -0.4, 0.2)
    found = resample_slices(ramp(grid, direction), stack.levels, plane_weights(grid, stack))
    expected = ramp(stack.grid, direction)[:, :, 1:-1].transpose(2, 1, 0)
    columns, rows = (
        (index > 2) & (index < size - 3) for index, size in ((stack.columns, 61), (stack.rows, 70))
    )
    inside = np.ix_(np.arange(len(found)), rows, columns)
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (-2.5, 2.5), (5.0, -5.0)])
def test_what_is_seen_off_its_place_comes_back(shift):
    grid = leg_grid((1.1, 1.2, 5.0), (61, 70, 3))
    tissue = np.zeros(grid.shape, dtype=bool)
    tissue[20:41, 22:50] = True
    stack = stack_of(grid, tissue)
    image = ramp(grid, (0.9, -0.4, 0.2))
    moved = (shift[0] * stack.pixel_mm, shift[1] * stack.pixel_mm)
    seen = resample_slices(image, stack.levels, plane_weights(grid, stack, moved))
    wanted = resample_slices(image, stack.levels, plane_weights(grid, stack))
    columns, rows = (
        (index > 3) & (index < size - 4) for index, size in ((stack.columns, 61), (stack.rows, 70))
    )
    # Near the edge there is no pixel to come back from.
    for kept in (columns, rows):
        kept[:6] = kept[-6:] = False
    inside = np.ix_(np.arange(len(seen)), rows, columns)
    np.testing.assert_allclose(shifted_back(seen, shift)[inside], wanted[inside], atol=2e-3)
    if any(shift):
        assert np.abs(seen[inside] - wanted[inside]).max() > 0.05


def test_weights_add_up_inside_and_vanish_outside():
    index = np.array([-2.0, -0.4, 0.0, 3.3, 9.4, 11.0])
    for width in (0.0, 0.5):
        weights = axis_weights(10, index, width)
        sums = weights.sum(axis=1)
        np.testing.assert_allclose(sums[2:4], 1.0, atol=1e-6)
        assert sums[0] == sums[-1] == 0.0
    np.testing.assert_allclose(axis_weights(1, np.array([0.0]), 0.0).toarray(), [[1.0]])


def test_small_voxels_are_averaged():
    """Stripes one voxel wide vanish; picking every second voxel would keep them."""
    grid = leg_grid((0.5, 0.5, 5.0), (120, 120, 1))
    image = np.zeros(grid.shape, dtype=np.float32)
    image[::2] = 2.0
    stack = stack_of(grid, np.ones(grid.shape, dtype=bool), margin_mm=0.0)
    found = resample_slices(image, stack.levels, plane_weights(grid, stack))
    inside = (stack.columns > 3) & (stack.columns < 116)
    middle = found[0, len(stack.rows) // 2, inside]
    assert np.abs(middle - 1.0).max() < 0.2


def test_there_and_back_a_disc_keeps_its_volume_and_place():
    grid = leg_grid((1.1, 0.9, 4.0), (110, 120, 6))
    x, y = np.ogrid[:110, :120]
    inside = ((x - 54.3) * 1.1) ** 2 + ((y - 61.7) * 0.9) ** 2 < 25.0**2
    image = np.repeat(inside[:, :, None], 6, axis=2).astype(np.float32)
    stack = stack_of(grid, image > 0)
    slices = resample_slices(image, stack.levels, plane_weights(grid, stack))
    soft = SoftLabels(
        stack.grid, {9: boxed(np.rint(255 * slices).astype(np.uint8))}, (1, len(stack.levels) + 1)
    )
    labels = decide(soft, grid).data == 9
    assert labels.any(axis=(0, 1)).all()
    assert np.count_nonzero(labels) == pytest.approx(np.count_nonzero(image), rel=0.005)
    np.testing.assert_allclose(
        np.argwhere(labels).mean(axis=0), np.argwhere(image).mean(axis=0), atol=0.02
    )
    assert labelled_levels(soft, grid).all()


def test_thin_slices_are_thinned_and_every_slice_gets_labels():
    grid = leg_grid((1.5, 1.5, 1.0), (60, 60, 12))
    tissue = np.ones(grid.shape, dtype=bool)
    seen = np.ones(12, dtype=bool)
    seen[0] = False
    stack = stack_of(grid, tissue, seen)
    assert stack.levels.tolist() == [1, 4, 7, 10, 11]
    assert stack.grid.voxel_sizes_mm[2] == pytest.approx(3.0)
    full = np.zeros((5, *stack.grid.shape[1::-1]), dtype=np.uint8)
    full[:, 10:50, 10:50] = 255
    soft = SoftLabels(stack.grid, {8: boxed(full)}, (1, 6))
    labels = decide(soft, grid).data
    assert (labels[30, 30, 1:] == 8).all()
    assert labelled_levels(soft, grid)[1:].all()


def test_thick_slices_are_all_looked_at():
    grid = leg_grid((1.5, 1.5, 24.0), (40, 40, 5))
    assert stack_of(grid, np.ones(grid.shape, dtype=bool)).levels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (1.0, (-27, -6, 0, 6, 27)),
        (3.0, (-9, -2, 0, 2, 9)),
        (6.0, (-4, -1, 0, 1, 4)),
        (24.0, (-2, -1, 0, 1, 2)),
    ],
)
def test_neighbours_lie_at_their_distance(spacing, expected):
    assert neighbour_offsets(spacing, 6.0, 27.0) == expected


def test_neighbours_beyond_the_stack_are_empty():
    slices = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2) + 1.0
    found = with_neighbours(slices, np.array([0, 2]), (-2, -1, 0, 1, 2))
    assert found.shape == (2, 10, 2, 2)
    np.testing.assert_array_equal(found[0, 2], slices[0, 0])
    np.testing.assert_array_equal(found[0, 9], slices[1, 2])
    np.testing.assert_array_equal(found[1, 5], slices[1, 0])
    assert not found[0, :2].any()
    assert not found[1, 3:5].any()


def test_a_window_holds_the_tissue_of_its_levels():
    grid = leg_grid((1.5, 1.5, 5.0), (200, 200, 3))
    tissue = np.zeros(grid.shape, dtype=bool)
    tissue[20:180, 30:170, 0] = True
    tissue[80:120, 90:110, 1] = True
    stack = stack_of(grid, tissue)
    size = grid.voxel_sizes_mm
    rows, columns = window_around(tissue, [1], stack, size, margin_mm=6.0, multiple=32)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (32, 64)
    assert stack.rows[rows][0] <= 86
    assert stack.rows[rows][-1] >= 113
    assert window_around(tissue, [2], stack, size, margin_mm=6.0, multiple=32) is None


def test_background_is_held_against_all_structures_together():
    grid = leg_grid((1.0, 1.0, 1.0), (2, 1, 1))
    values = {
        9: np.array([0.3, 0.2], dtype=np.float32).reshape(2, 1, 1),
        10: np.array([0.25, 0.25], dtype=np.float32).reshape(2, 1, 1),
    }
    soft = SoftLabels(grid, {k: Membership(v, (0, 0, 0)) for k, v in values.items()}, (0, 1))
    assert decide(soft, grid).data.ravel().tolist() == [9, 0]
    assert decide(soft, grid).scheme is LEG_SCHEME
