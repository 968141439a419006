"""Ends of a scan that are bent or slanted: what is cut there is not compared as if whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from bodies import GIVEN, body, loaded, run_stages, small_scan

from pipeline import ArraySource, LoadedSubject, Side, canonicalise, separate_legs
from pipeline.core.results import Status
from pipeline.imaging.cut_ends import whole_levels
from pipeline.phantom import asymmetry_percent

VOXEL_MM = (3.0, 3.0, 6.0)


def leg(radius_mm: Callable[[np.ndarray], np.ndarray], levels: int = 40) -> np.ndarray:
    """A round leg whose radius changes along it."""
    x, y = (VOXEL_MM[k] * (np.arange(70) - 35) for k in (0, 1))
    radius = radius_mm(VOXEL_MM[2] * np.arange(levels))
    return np.hypot(x[:, None], y[None, :])[..., None] < radius


def whole(tissue: np.ndarray, lit: np.ndarray) -> np.ndarray:
    return whole_levels(tissue, lit, np.ones(tissue.shape[2], dtype=bool), VOXEL_MM)


def slanted(shape: tuple[int, int, int], degrees: float, first: float) -> np.ndarray:
    """Voxels above a plane that rises from left to right."""
    index = np.indices(shape)
    rise = np.tan(np.deg2rad(degrees)) * (index[0] - shape[0] / 2) * VOXEL_MM[0] / VOXEL_MM[2]
    return index[2] >= first + rise


@pytest.mark.parametrize("degrees", [5.0, 10.0, 18.0])
def test_a_slanted_end_is_found_where_it_begins(degrees):
    tissue = leg(lambda z: np.full(z.shape, 80.0))
    shown = slanted(tissue.shape, degrees, 6.0)
    found = whole(tissue & shown, shown)
    # Levels of which a rim alone is lost still count.
    lost = 1.0 - (tissue & shown).sum(axis=(0, 1)) / tissue.sum(axis=(0, 1))
    assert not found[lost > 0.12].any()
    assert found[lost == 0.0].all()
    assert np.array_equal(whole((tissue & shown)[..., ::-1], shown[..., ::-1]), found[::-1])


@pytest.mark.parametrize(
    "radius_mm",
    [
        lambda z: 80.0 - 0.2 * z,
        lambda z: 40.0 + 40.0 * np.cos(z / 60.0) ** 2,
        lambda z: np.where(z < 120.0, 80.0, 40.0),
    ],
    ids=["a cone", "calf and ankle", "a step far from the ends"],
)
def test_a_leg_that_grows_thinner_in_dark_air_is_not_cut(radius_mm):
    tissue = leg(radius_mm)
    assert whole(tissue, tissue).all()


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_of_a_few_slices_one_stays(levels):
    """A leg without a level that was seen could not be measured at all."""
    tissue = leg(lambda z: np.full(z.shape, 80.0), levels)
    shown = slanted(tissue.shape, 15.0, levels / 2)
    for stack in (shown, ~shown):
        assert whole(tissue & stack, stack).any()


def test_what_is_dark_inside_is_no_end():
    tissue = leg(lambda z: np.full(z.shape, 80.0))
    lit = tissue.copy()
    lit[28:42, 28:42, 30:] = False
    assert whole(tissue, lit).all()


def test_levels_of_noise_are_whole():
    tissue = leg(lambda z: np.where(z < 200.0, 80.0, 20.0))
    assert whole(tissue, np.ones_like(tissue)).all()


def with_bent_ends(subject: LoadedSubject, lowest: int) -> LoadedSubject:
    """What the correction of distortion leaves of a body that lay to one side: ends that droop."""
    grid = next(iter(subject.images.values())).grid
    x = np.arange(grid.shape[0]) - 0.65 * grid.shape[0]
    droop = 40.0 * (x * grid.voxel_sizes_mm[0] / 250.0) ** 2 / grid.voxel_sizes_mm[2]
    shown = np.arange(grid.shape[2]) >= lowest + droop[:, None, None]
    images = {q: ArraySource(s.data * shown, s.grid) for q, s in subject.images.items()}
    labels = ArraySource(subject.labels.data * shown, subject.labels.grid)
    return LoadedSubject(
        subject=subject.subject,
        session=None,
        images=images,
        labels=labels,
        label_scheme=subject.label_scheme,
    )


@pytest.mark.parametrize("side", Side)
def test_a_bent_upper_end_is_seen_alike_beside_a_stump(side: Side) -> None:
    """That a leg ends early below says nothing of its upper end."""
    subject = loaded(small_scan())
    grid = subject.labels.grid
    half = np.arange(grid.shape[0])[:, None, None] >= grid.shape[0] // 2
    own = half if side is Side.RIGHT else ~half
    levels = np.arange(grid.shape[2])
    bent = ~slanted(grid.shape, 12.0, 0.6 * grid.shape[2])
    noise = np.random.default_rng(5).rayleigh(5.0, grid.shape).astype(np.float32)
    gone = own & (levels < 0.2 * grid.shape[2])

    def shown(stump: bool) -> dict[Side, np.ndarray]:
        images = {
            q: ArraySource(np.where(gone, noise, s.data) * bent if stump else s.data * bent, s.grid)
            for q, s in subject.images.items()
        }
        only = replace(subject, images=images, labels=None, label_scheme=None)
        scan = canonicalise(only, config=GIVEN.canonicalise).value
        legs = separate_legs(scan, config=GIVEN.separate).value
        return {each: legs[each].seen for each in Side}

    above = slice(grid.shape[2] // 2, None)
    whole, stumped = shown(False), shown(True)
    for each in Side:
        np.testing.assert_array_equal(stumped[each][above], whole[each][above])


def test_muscles_at_a_bent_end_are_compared_in_what_both_legs_show():
    lowest = int(np.argwhere(small_scan().labels.data % 100 == 26)[:, 2].min()) + 14
    subject = with_bent_ends(loaded(small_scan()), lowest)
    scan = canonicalise(subject, config=GIVEN.canonicalise).value
    told = separate_legs(scan, config=GIVEN.separate).findings
    assert {f.side for f in told if f.code == "ends_not_straight"} >= {Side.LEFT}
    measures, match, _ = run_stages(subject)
    assert match.succeeded
    cut = [m for m in measures.muscles if m.name in ("soleus", "tibialis_anterior", "fibulares")]
    for muscle in cut:
        for side in Side:
            assert getattr(muscle, side).status is Status.TRUNCATED, muscle.name
        assert muscle.asymmetry.extent == "matched"
        truth = asymmetry_percent(body().truth, muscle.name, lean=True)
        error = muscle.asymmetry.index_percent - truth
        assert abs(error) < max(3.0, 2.0 * muscle.asymmetry.se_total_percent), muscle.name
