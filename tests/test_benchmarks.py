"""The arithmetic of the tools in benchmarks/: what they call a truth must be one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.agreement import dice, rank_correlation, surface_dice, tolerance_dice
from benchmarks.warp import PlaneWarp, planted


def ball(radius: float, size: int = 64, levels: int = 9) -> np.ndarray:
    x, y = (np.arange(size) - size / 2 + 0.2 for _ in range(2))
    z = 2.0 * (np.arange(levels) - levels // 2)
    return x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2 < radius**2


def counted_change(warp: PlaneWarp, mask: np.ndarray, fine: int = 16) -> float:
    """The same by counting points of a fine raster that come from inside the mask."""
    count = 0
    steps = (np.arange(fine) + 0.5) / fine - 0.5
    for k, d in warp.displacement.items():
        lines = [
            np.arange(np.flatnonzero(line)[0] - 3, np.flatnonzero(line)[-1] + 4)
            for line in (mask[:, :, k].any(axis=1), mask[:, :, k].any(axis=0))
        ]
        goal = np.stack(np.meshgrid(*((n[:, None] + steps).ravel() for n in lines), indexing="ij"))
        place = goal
        for _ in range(20):
            place = goal - [ndimage.map_coordinates(part, place, order=1) for part in d]
        count += int(ndimage.map_coordinates(mask[:, :, k].astype(np.uint8), place, order=0).sum())
    return count / fine**2 / np.count_nonzero(mask) - 1.0


@pytest.mark.parametrize("share", [-0.2, -0.05, 0.05, 0.2])
def test_planted_change_is_exact_on_a_ball(share):
    mask = ball(8.0, size=44, levels=1)
    air = ~ball(18.0, size=44, levels=1)
    warp = planted(mask, share, air=air, sizes_mm=(1.5, 1.5))
    assert warp.share_of(mask) == pytest.approx(share, abs=1e-9)
    assert counted_change(warp, mask) == pytest.approx(share, abs=2e-3)


def test_planted_change_spares_the_neighbours():
    mask = ball(8.0)
    neighbour = np.roll(ball(8.0), 17, axis=0)
    warp = planted(mask, 0.2, air=~ball(30.0), sizes_mm=(1.5, 1.5))
    assert abs(warp.share_of(neighbour)) < 0.005


def test_slices_without_the_muscle_stay_as_they_are():
    mask = ball(8.0)
    image = np.random.default_rng(0).random(mask.shape, dtype=np.float32)
    warped = planted(mask, 0.1, air=~ball(30.0), sizes_mm=(1.5, 1.5)).image(image)
    empty = ~mask.any(axis=(0, 1))
    assert empty.any()
    assert np.array_equal(warped[:, :, empty], image[:, :, empty])
    assert not np.allclose(warped[:, :, ~empty], image[:, :, ~empty])


def square(low: int, high: int) -> np.ndarray:
    mask = np.zeros((20, 20, 1), dtype=bool)
    mask[low:high, low:high] = True
    return mask


def test_dice_of_squares():
    assert dice(square(2, 10), square(2, 10)) == 1.0
    assert dice(square(2, 6), square(6, 10)) == 0.0
    assert dice(square(2, 6), square(2, 4)) == pytest.approx(2 * 4 / (16 + 4))
    assert dice(square(0, 0), square(0, 0)) is None


def test_one_voxel_of_tolerance_forgives_one_voxel_in_the_plane():
    wide, narrow = np.zeros((2, 20, 20, 1), dtype=bool)
    wide[4:10, 3:11], narrow[4:10, 4:10] = True, True
    assert tolerance_dice(wide, narrow) == 1.0
    narrow[4:10, 4:6] = False
    # Of 48 + 24 voxels the two outer columns on one side stay 12 misses.
    assert tolerance_dice(wide, narrow) == pytest.approx((48 + 24 - 12) / (48 + 24))
    assert tolerance_dice(square(0, 0), square(0, 0)) is None
    apart = np.concatenate([square(4, 10), np.zeros_like(square(0, 0))], axis=2)
    assert tolerance_dice(apart, apart[:, :, ::-1]) == 0.0


def test_surface_dice_counts_the_contours_within_the_tolerance():
    a, b = square(4, 12), square(5, 13)
    # Only the two corners that stick out are further away than one voxel.
    near = surface_dice(a, b, sizes_mm=(1.5, 1.5), tolerance_mm=1.5)
    assert near == pytest.approx(54 / 56)
    assert surface_dice(a, a, sizes_mm=(1.5, 1.5), tolerance_mm=0.0) == 1.0
    shifted = np.zeros_like(a)
    shifted[4:12, 8:16] = True
    # Of each contour of 28 voxels, 8 lie on the two lines they share.
    near = surface_dice(a, shifted, sizes_mm=(1.0, 1.0), tolerance_mm=0.5)
    assert near == pytest.approx(8 / 28)


def test_rank_correlation():
    assert rank_correlation([1.0, 2.0, 3.0], [2.0, 4.0, 9.0]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 1.0, 1.0], [2.0, 4.0, 9.0]) is None
