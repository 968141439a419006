"""Legs that lie across each other: levels that no surface from front to back can part."""

from dataclasses import replace

import numpy as np
import pytest
from bodies import GIVEN, VOXEL_MM, loaded, small_scan
from numpy.typing import NDArray

from pipeline import Side, canonicalise, separate_legs
from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.imaging.crossing import levels_of_crossing
from pipeline.phantom import Scan

SHAPE = (40, 40)
MM = (6.0, 6.0, 5.0)


def level(*centres: tuple[float, float]) -> NDArray[np.bool_]:
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return np.any([np.hypot(x - a, y - b) <= 6.0 for a, b in centres], axis=0)


def stacked(*parts: tuple[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Levels from the foot up: (how many, what each shows)."""
    return np.stack([shown for count, shown in parts for _ in range(count)], axis=2)


APART = level((11, 20), (28, 20))
TOUCHING = level((13, 20), (26, 20)) | np.pad(np.ones((12, 12), bool), ((14, 14), (14, 14)))
ABOVE = level((19, 12), (20, 27))
SLANTED = level((16, 14), (23, 25))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (stacked((30, APART)), 0),
        (stacked((20, APART), (10, TOUCHING)), 0),
        (stacked((6, TOUCHING), (14, APART), (10, TOUCHING)), 0),
        (stacked((3, ABOVE), (17, APART), (10, TOUCHING)), 0),
        (stacked((6, ABOVE), (14, APART), (10, TOUCHING)), 6),
        (stacked((8, APART), (5, ABOVE), (3, SLANTED), (4, APART), (10, TOUCHING)), 16),
        (stacked((30, ABOVE)), 0),
    ],
    ids=["apart", "thighs", "knees", "short", "ankles", "crossed shins", "on the side"],
)
def test_levels_from_a_crossing_down(body: NDArray[np.bool_], expected: int) -> None:
    surface = np.full((SHAPE[1], body.shape[2]), 19.5)
    wanted = np.arange(body.shape[2]) < expected
    limits = {"cut_share": 0.75, "apart_share": 0.3, "shortest_mm": 20.0}
    np.testing.assert_array_equal(levels_of_crossing(body, surface, MM, **limits), wanted)
    mirrored = levels_of_crossing(body[::-1], SHAPE[0] - 1 - surface, MM, **limits)
    np.testing.assert_array_equal(mirrored, wanted)


def with_legs_crossed(scan: Scan, below: int, sideways: int, lift: int) -> Scan:
    """Both legs led across each other, level by level from `below` down, by so many voxels."""
    half = np.arange(scan.labels.grid.shape[0])[:, None, None] >= scan.labels.grid.shape[0] // 2

    def moved(data: np.ndarray) -> np.ndarray:
        out = np.pad(data, ((0, 0), (lift, lift), (0, 0)), mode="edge")
        one, other = np.where(half, data, 0), np.where(half, 0, data)
        for k in range(below):
            share = (below - k) / below
            x, y = round(sideways * share), round(lift * share)
            legs = [
                np.roll(np.pad(leg[:, :, k], ((0, 0), (lift, lift))), shift, (0, 1))
                for leg, shift in ((one, (-x, y)), (other, (x, -y)))
            ]
            out[:, :, k] = np.maximum(*legs)
        return out[:, lift:-lift]

    images = {q: v.with_data(moved(np.asarray(v.data))) for q, v in scan.images.items()}
    return replace(scan, images=images)


def test_crossed_legs_are_told_and_not_measured_below() -> None:
    scan = small_scan()
    knee = int(np.argwhere(scan.labels.data == STRUCTURE_IDS["tibia"])[:, 2].max())
    for sideways, expected in ((6, False), (44, True)):
        body = with_legs_crossed(scan, knee, sideways, 12)
        subject = loaded(body, labels=False)
        canonical = canonicalise(subject, config=GIVEN.canonicalise).value
        result = separate_legs(canonical, config=GIVEN.separate)
        told = [f for f in result.findings if f.code == "legs_cross"]
        assert bool(told) == expected
        assert ("legs_cross" in result.value.caveats) == expected
        top = round(told[0].value / VOXEL_MM[2]) if expected else 0
        assert (knee // 4 < top <= knee) == expected
        for side in Side:
            seen = result.value[side].seen
            assert not seen[:top].any()
            first = max(top, int(np.flatnonzero(seen)[0]) if not expected else top)
            assert seen[first:knee].all()
