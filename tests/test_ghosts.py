"""Ghosts in the air beside the legs."""

from dataclasses import replace

import numpy as np
import pytest
from bodies import GIVEN, loaded, small_scan

from pipeline import canonicalise, separate_legs
from pipeline.core.volume import Quantity, Volume
from pipeline.imaging.ghosts import ghost_signal

MM = (5.0, 5.0, 5.0)


def room(ghost: float, axis: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A disc of signal 100 in noise of 2, seen again at a share of it 20 voxels further."""
    x, y, _ = np.ogrid[:60, :60, :8]
    body = np.broadcast_to(np.hypot(x - 29.5, y - 29.5) < 9.0, (60, 60, 8))
    rng = np.random.default_rng(seed)
    signal = 100.0 * body + ghost * 100.0 * np.roll(body, 20, axis)
    return np.hypot(signal + rng.normal(0, 2, body.shape), rng.normal(0, 2, body.shape)), body


@pytest.mark.parametrize("axis", [0, 1])
def test_a_ghost_is_found_with_its_strength_and_axis(axis: int) -> None:
    for strength in (0.1, 0.4):
        signal, body = room(strength, axis)
        found = ghost_signal(signal, body, MM)
        assert found is not None
        assert found[1] == axis
        # Of the air in line with the disc, 46 of 60 voxels less its rim, the ghost fills a third.
        assert 0.3 * 100 * strength < found[0] < 0.8 * 100 * strength


def test_noise_alone_is_no_ghost() -> None:
    signal, body = room(0.0, 0)
    found = ghost_signal(signal, body, MM)
    assert found is not None
    assert found[0] < 1.0


def test_noise_that_grows_towards_the_middle_is_no_ghost() -> None:
    """As where coils were combined and the image was evened out."""
    signal, body = room(0.0, 0)
    x, y, _ = np.ogrid[:60, :60, :8]
    louder = np.where(body, 1.0, 1.0 + 2.0 * np.exp(-np.hypot(x - 29.5, y - 29.5) / 15.0))
    found = ghost_signal(signal * louder, body, MM)
    assert found is not None
    assert found[0] < 1.0


def test_blanked_air_tells_nothing() -> None:
    signal, body = room(0.3, 0)
    assert ghost_signal(np.where(body, signal, 0.0), body, MM) is None


@pytest.mark.parametrize("strength", [0.0, 0.005, 0.25])
def test_a_scan_with_ghosts_is_told(strength: float) -> None:
    scan = small_scan()
    images = {
        q: v.with_data(v.data + np.float32(strength) * np.roll(v.data, v.data.shape[1] // 2, 1))
        for q, v in scan.images.items()
    }
    subject = loaded(replace(scan, images=images), labels=False)
    canonical = canonicalise(subject, config=GIVEN.canonicalise).value
    assert Quantity.WATER in canonical.images
    result = separate_legs(canonical, config=GIVEN.separate)
    told = [f for f in result.findings if f.code == "ghosts"]
    assert bool(told) == (strength > 0.1)
    assert all("from front to back" in f.message for f in told)
    # Another image beside water and fat has units of its own.
    water = canonical.images[Quantity.WATER]
    other = Volume(np.float32(1000.0) * water.data, water.grid, Quantity.OTHER)
    images = {**canonical.images, Quantity.OTHER: other}
    found = separate_legs(replace(canonical, images=images), config=GIVEN.separate).findings
    assert [f.code for f in found if f.code == "ghosts"] == [f.code for f in told]
