"""Which way legs lie is seen in them: wrong axes, legs exchanged, one leg twice; never a mirror."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from bodies import GIVEN, loaded, small_scan
from matches import unregistered
from scipy import ndimage

from pipeline import LoadedSubject, canonicalise, default_config, measure, segment, separate_legs
from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.errors import SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import ArraySource, ImageSource
from pipeline.core.soft import LegPose
from pipeline.engines.session import WEIGHTS
from pipeline.imaging.pose import LOOKS, certainty, difference_of_legs, pose_seen
from pipeline.stages.load import load_subject

needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="the weights of the network are not in this tree yet"
)
FRONT = "front and back exchanged"
HEAD = "head and foot exchanged"
#: Signs of the axes of the world, and what is seen of it; a sign of x alone is never seen.
WRONG_AXES = {
    "y negated": ((1, -1, 1), FRONT),
    "z negated": ((1, 1, -1), HEAD),
    "half a turn about z: prone for supine": ((-1, -1, 1), FRONT),
    "half a turn about y: feet first for head first": ((-1, 1, -1), HEAD),
    "half a turn about x": ((1, -1, -1), f"front and back and {HEAD}"),
}


@lru_cache(maxsize=1)
def person() -> LoadedSubject:
    """The test person on every second voxel: enough to see which way a leg lies."""

    def change(source: ImageSource) -> ArraySource:
        affine = source.grid.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
        data = source.read((0, 0, 0), source.grid.shape)[::2, ::2]
        return ArraySource(data, Grid(data.shape, affine, source.grid.space))

    return with_images(loaded(small_scan()), change)


def with_images(
    subject: LoadedSubject, change: Callable[[ImageSource], ArraySource]
) -> LoadedSubject:
    images = {quantity: change(source) for quantity, source in subject.images.items()}
    labels = None if subject.labels is None else change(subject.labels)
    return replace(subject, images=images, labels=labels)


def turned(subject: LoadedSubject, signs: tuple[int, int, int]) -> LoadedSubject:
    """The same arrays with other signs in the affine."""

    def change(source: ImageSource) -> ArraySource:
        affine = np.diag([*signs, 1.0]) @ source.grid.affine
        data = source.read((0, 0, 0), source.grid.shape)
        return ArraySource(data, Grid(source.grid.shape, affine, source.grid.space))

    return with_images(subject, change)


def rearranged(subject: LoadedSubject, halves: Callable) -> LoadedSubject:
    """Other halves of the canonical array along the first axis; both grow to the right."""

    def change(source: ImageSource) -> ArraySource:
        data = source.read((0, 0, 0), source.grid.shape)
        half = data.shape[0] // 2
        left, right = data[:half], data[data.shape[0] - half :]
        return ArraySource(
            np.concatenate([*halves(left, right)]),
            source.grid.crop((0, 0, 0), (2 * half, *source.grid.shape[1:])),
        )

    return with_images(subject, change)


def findings_of(subject: LoadedSubject, config=GIVEN) -> tuple[Finding, ...]:
    scan = canonicalise(subject, config=config.canonicalise).value
    legs = separate_legs(scan, config=config.separate)
    return (*legs.findings, *segment(legs.value, config=config.segment).findings)


def unsided(subject: LoadedSubject) -> LoadedSubject:
    """Given labels whose names say no side: each is on the side it lies on."""
    labels = subject.labels
    assert labels is not None
    data = np.asarray(labels.read((0, 0, 0), labels.grid.shape)) % 100
    return replace(subject, labels=ArraySource(data, labels.grid), label_scheme=LEG_SCHEME)


def test_a_leg_as_stated_agrees_with_its_anatomy_and_is_not_proven():
    (said,) = [f for f in findings_of(person()) if f.code == "sides_from_anatomy"]
    assert said.value == 3
    assert "front and back, outer and inner sides, head and foot" in said.message
    assert "a mirror image would look the same" in said.message


@pytest.mark.parametrize("error", list(WRONG_AXES))
def test_wrong_axes_are_seen_in_the_labels(error):
    signs, message = WRONG_AXES[error]
    with pytest.raises(SubjectUnusableError, match=message) as caught:
        findings_of(unsided(turned(person(), signs)))
    assert caught.value.exit_code == 4


def test_a_mirrored_body_is_not_noticed_and_never_called_proven():
    said = [f.message for f in findings_of(unsided(turned(person(), (-1, 1, 1))))]
    assert any("a mirror image would look the same" in message for message in said)
    assert not any("prove" in message.lower() for message in said)


def test_legs_in_each_others_place():
    exchanged = rearranged(person(), lambda left, right: (right, left))
    with pytest.raises(SubjectUnusableError, match=r"both legs face each other.*other's place"):
        findings_of(unsided(exchanged))


@pytest.mark.parametrize("mirrored", [False, True])
def test_one_leg_twice(mirrored):
    def twice(left, right):
        return (right[::-1] if mirrored else right), right

    subject = rearranged(person(), twice)
    if not mirrored:
        # The left leg points the wrong way as well: two right legs are no pair.
        with pytest.raises(SubjectUnusableError, match="outer side of the left leg"):
            findings_of(unsided(subject))
    scan = canonicalise(unsided(subject), config=GIVEN.canonicalise).value
    legs = separate_legs(scan, config=GIVEN.separate)
    (said,) = [f for f in legs.findings if f.code == "one_leg_twice"]
    assert said.severity is Severity.ERROR
    assert legs.value.doubt == said.message
    if mirrored:
        segmented = segment(legs.value, config=GIVEN.segment).value
        found = measure(segmented, unregistered(segmented), config=GIVEN.measure).value
        compared = [m.asymmetry_total_volume for m in (*found.muscles, *found.groups)]
        assert any(a.index_percent is not None for a in compared)
        assert all(a.verdict is None and a.reason for a in compared)
        assert found.expected_flagged_by_chance is None


def test_one_leg_twice_with_noise_of_its_own_is_seen_by_its_outer_side():
    rng = np.random.default_rng(5)

    def twice(left, right):
        noise = rng.normal(0.0, 60.0, right.shape) if right.dtype.kind == "f" else 0
        return (right + noise).astype(right.dtype), right

    with pytest.raises(SubjectUnusableError, match="outer side of the left leg faces the other"):
        findings_of(unsided(rearranged(person(), twice)))


def test_the_difference_of_legs_is_the_same_whichever_of_them_is_the_right_one():
    rng = np.random.default_rng(2)
    body = np.zeros((60, 50, 9), dtype=np.float32)
    body[8:50, 6:44] = 100.0 + 20.0 * ndimage.gaussian_filter(rng.normal(size=(42, 38, 9)), 2.0)
    one = body + rng.normal(0, 2, body.shape).astype(np.float32)
    two = body + rng.normal(0, 8, body.shape).astype(np.float32)
    copied = ndimage.gaussian_filter(one, (0.6, 0.6, 0.0))
    mask, smaller = body > 0, np.roll(body > 0, 3, 0) & (body > 0)
    for other, others in ((two, mask), (two, smaller), (copied, mask)):
        apart = difference_of_legs(one, other, mask, others)
        assert difference_of_legs(other, one, others, mask) == pytest.approx(apart, rel=0.05)
    assert difference_of_legs(one, copied, mask, mask) < 0.8


def test_the_difference_of_legs():
    rng = np.random.default_rng(3)
    body = np.zeros((40, 40, 6), dtype=np.float32)
    body[8:32, 8:32] = 100.0
    mask = body > 0
    noisy = [np.asarray(body + rng.normal(0, 5, body.shape), np.float32) for _ in range(2)]
    assert difference_of_legs(noisy[0], noisy[1], mask, mask) == pytest.approx(1.0, abs=0.1)
    moved = np.roll(noisy[0], (3, -2), (0, 1))
    assert difference_of_legs(noisy[0], moved, mask, np.roll(mask, (3, -2), (0, 1))) == 0.0
    assert difference_of_legs(noisy[0], noisy[0][::-1], mask, mask[::-1]) == 0.0
    # Without noise and structure there is nothing to go by.
    assert difference_of_legs(body, body, mask, mask) is None
    assert difference_of_legs(body, body, mask, np.zeros_like(mask)) is None


def test_what_certainties_tell():
    sure = dict.fromkeys(LOOKS, 0.5)
    for look in LOOKS:
        seen = pose_seen({**sure, look: 0.8}, None, 0.05, 0.65)
        assert seen == LegPose(front=not look[1], outside=not look[0], upright=None)
    assert pose_seen(sure, True, 0.05, 0.65) == LegPose(None, None, True)
    # Noise looks like anything: it is not said to lie the other way round.
    noise = dict(zip(LOOKS, (0.43, 0.40, 0.49, 0.51), strict=True))
    assert pose_seen(noise, None, 0.05, 0.65) == LegPose(None, None, None)
    assert certainty([np.array([1.0, 0.0], np.float32)]) == 1.0
    assert certainty([np.full((2, 3), 0.5, np.float32), np.zeros(4, np.float32)]) == 0.5
    assert certainty([]) == 0.0


def real(shared_data: Path, tmp_path: Path, name: str) -> LoadedSubject:
    folder = tmp_path / "sub-x"
    folder.mkdir()
    for kind in ("water", "fat"):
        path = shared_data / "images" / f"{name}_{kind}.nii.gz"
        (folder / f"x_{kind}.nii.gz").symlink_to(path)
    subject = load_subject(tmp_path, "x", config=default_config().load).value
    scan = canonicalise(subject, config=default_config().canonicalise).value
    images = {q: ArraySource(image.data, scan.grid) for q, image in scan.images.items()}
    return replace(subject, images=images)


@needs_weights
def test_a_real_scan_with_front_and_back_exchanged(shared_data, tmp_path):
    whole = real(shared_data, tmp_path, "leg_dixon_e")
    calf = with_images(
        whole,
        lambda source: ArraySource(
            source.data[:, :, 8:14], source.grid.crop((0, 0, 8), (*source.grid.shape[:2], 14))
        ),
    )
    subject = turned(calf, (1, -1, 1))
    with pytest.raises(SubjectUnusableError, match=FRONT):
        findings_of(subject, default_config())


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["thigh_dixon_a", "leg_dixon_e"])
def test_real_scans_in_every_wrong_way(shared_data, tmp_path, name):
    subject = real(shared_data, tmp_path, name)
    config = default_config()
    for signs, _ in WRONG_AXES.values():
        with pytest.raises(SubjectUnusableError, match="does not lie as the position"):
            findings_of(turned(subject, signs), config)
    with pytest.raises(SubjectUnusableError, match="both legs face each other"):
        findings_of(rearranged(subject, lambda left, right: (right, left)), config)
    with pytest.raises(SubjectUnusableError, match="outer side of the left leg"):
        findings_of(rearranged(subject, lambda _, right: (right, right)), config)
    mirrored = findings_of(rearranged(subject, lambda _, right: (right[::-1], right)), config)
    assert "one_leg_twice" in {f.code for f in mirrored}
    for signs in ((1, 1, 1), (-1, 1, 1)):
        codes = {f.code: f for f in findings_of(turned(subject, signs), config)}
        assert codes["sides_from_anatomy"].value == 3
        assert "legs_alike" not in codes
