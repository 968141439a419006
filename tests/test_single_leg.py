"""A leg that is alone on many levels: the midline and the surface between the legs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.imaging.single_leg import left_whole, narrow_levels

COLUMNS, ROWS, LEVELS = 40, 20, 30
COLUMN_MM = ROW_MM = 6.0


def discs(*centres: float, radius: float = 7.0) -> NDArray[np.bool_]:
    """A level: discs side by side."""
    x, y = np.ogrid[:COLUMNS, :ROWS]
    return np.any([np.hypot(x - c, y - 9.5) <= radius for c in centres], axis=0)


def stacked(*parts: tuple[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Levels from the foot up: (how many, what each shows)."""
    return np.stack([level for count, level in parts for _ in range(count)], axis=2)


ONE, TWO, TOUCHING = discs(30.0), discs(11.0, 30.0), discs(13.0, 26.0)
AMPUTEE = stacked((18, ONE), (4, TWO), (8, TOUCHING))


def test_only_levels_of_one_leg_are_narrow() -> None:
    assert narrow_levels(AMPUTEE, COLUMN_MM, ROW_MM).tolist() == [True] * 18 + [False] * 12


def test_feet_that_touch_stay_two_and_are_cut_where_they_were() -> None:
    long = np.zeros((COLUMNS, ROWS), dtype=bool)
    long[14:26, 1:19] = True
    body = stacked((3, long), (27, TWO))
    narrow = narrow_levels(body, COLUMN_MM, ROW_MM)
    assert narrow[:3].all()
    surface = np.full((ROWS, LEVELS), 19.5)
    np.testing.assert_array_equal(left_whole(surface, body, narrow), surface)


@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_a_leg_alone_belongs_to_the_side_that_it_hangs_on(tilt: float) -> None:
    """However far the surface has tilted into it, and in a mirror image to the other side."""
    body = AMPUTEE
    middle = 20.5 + tilt * np.maximum(0, 22 - np.arange(LEVELS))
    surface = np.broadcast_to(middle, (ROWS, LEVELS)).copy()
    narrow = narrow_levels(body, COLUMN_MM, ROW_MM)
    whole = left_whole(surface, body, narrow)
    columns = np.arange(COLUMNS)[:, None, None]
    assert not (body & (columns < whole))[:, :, :18].any()
    np.testing.assert_array_equal(whole[:, 18:], surface[:, 18:])
    assert (body & (columns < surface))[:, :, :18].any() == bool(tilt)
    last = COLUMNS - 1
    np.testing.assert_array_equal(last - left_whole(last - surface, body[::-1], narrow), whole)


def test_a_gap_of_empty_levels_is_crossed() -> None:
    body = AMPUTEE.copy()
    body[:, :, 8:12] = False
    surface = np.full((ROWS, LEVELS), 31.0)
    surface[:, 18:] = 20.5
    whole = left_whole(surface, body, narrow_levels(body, COLUMN_MM, ROW_MM))
    assert (whole[:, :8] < 23.0).all()
    assert (whole[:, 8:12] == 31.0).all()


def test_where_nothing_shows_two_legs_nothing_is_moved() -> None:
    body = stacked((LEVELS, ONE))
    surface = np.full((ROWS, LEVELS), 19.5)
    narrow = narrow_levels(body, COLUMN_MM, ROW_MM)
    np.testing.assert_array_equal(left_whole(surface, body, narrow), surface)
