"""One canonical scan: every storage gives the same, nothing moves, a mirror gives the mirror."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import CanonicaliseConfig, default_config
from pipeline.core.anatomy import OWN_SCHEME, LabelScheme, Side
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.scan import (
    SCANNER_SPACE,
    ArraySource,
    CanonicalScan,
    Index3,
    LoadedSubject,
    StorageMap,
)
from pipeline.core.volume import Quantity
from pipeline.imaging.noise import above_noise, bright_signal, noise_level
from pipeline.imaging.orientation import (
    input_box,
    nearest_axes,
    reorient,
    reoriented_grid,
    restore,
    to_canonical,
    unorient,
)
from pipeline.imaging.sampling import centred_lattice, odd_step
from pipeline.imaging.sides import place_sides
from pipeline.io.schemes import load_label_scheme
from pipeline.stages.canonicalise import canonicalise

CONFIG = default_config().canonicalise
ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
OBLIQUE = np.deg2rad(20.0)


def grid(shape: Index3, sizes: tuple[float, float, float] = (1.5, 2.0, 3.0)) -> Grid:
    """An oblique RAS-like grid."""
    turn = np.eye(4)
    turn[1:3, 1:3] = [
        [np.cos(OBLIQUE), -np.sin(OBLIQUE)],
        [np.sin(OBLIQUE), np.cos(OBLIQUE)],
    ]
    affine = turn @ np.diag([*sizes, 1.0])
    affine[:3, 3] = (-40.0, 25.0, -300.0)
    return Grid(shape, affine, SCANNER_SPACE)


def stored(array: np.ndarray, world: Grid, axes: Index3, flips: tuple[bool, ...]) -> ArraySource:
    """The same voxels in another storage."""
    return ArraySource(reorient(array, axes, flips), reoriented_grid(world, axes, flips))


def subject(
    images: Mapping[Quantity, ArraySource],
    labels: ArraySource | None = None,
    scheme: LabelScheme | None = None,
) -> LoadedSubject:
    scheme = OWN_SCHEME if labels is not None and scheme is None else scheme
    return LoadedSubject("sub-x", None, images, labels, scheme)


def run(loaded: LoadedSubject, config: CanonicaliseConfig = CONFIG) -> CanonicalScan:
    return canonicalise(loaded, config=config).value


def legs(shape: Index3 = (40, 20, 24)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Water, fat and labels of two unequal legs with noise around them."""
    rng = np.random.default_rng(4)
    x, y, _ = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    right = (x - 29) ** 2 + (y - 10) ** 2 < 64
    left = (x - 10) ** 2 + (y - 9) ** 2 < 49
    noise = np.abs(rng.normal(0, 3, (2, *shape)))
    water = np.where(right | left, 300.0, 0.0) + noise[0]
    fat = np.where(right | left, 40.0, 0.0) + noise[1]
    labels = np.where(right, 8, 0) + np.where(left, 108, 0)
    return water.astype(np.float32), fat.astype(np.float32), labels.astype(np.uint8)


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_every_storage_gives_the_same_scan(axes: Index3, flips: tuple[bool, bool, bool]) -> None:
    water, fat, labels = legs()
    world = grid(water.shape)
    plain = {Quantity.WATER: ArraySource(water, world), Quantity.FAT: ArraySource(fat, world)}
    expected = run(subject(plain, ArraySource(labels, world)))

    sources = {
        Quantity.WATER: stored(water, world, axes, flips),
        Quantity.FAT: stored(fat, world, axes, flips),
    }
    found = run(subject(sources, stored(labels, world, axes, flips)))

    assert found.grid.same_as(expected.grid)
    for quantity in sources:
        np.testing.assert_array_equal(found.images[quantity].data, expected.images[quantity].data)
    np.testing.assert_array_equal(found.dixon.valid, expected.dixon.valid)
    np.testing.assert_array_equal(found.labels.data, expected.labels.data)
    assert found.images[Quantity.WATER].data.flags.c_contiguous
    back = restore(found.labels.data, found.storage)
    np.testing.assert_array_equal(back, reorient(labels, axes, flips))
    np.testing.assert_array_equal(to_canonical(back, found.storage, found.grid.shape), labels)


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_reorienting_moves_no_voxel_and_twice_is_once(
    axes: Index3, flips: tuple[bool, bool, bool]
) -> None:
    world = grid((4, 5, 6))
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    source = stored(array, world, axes, flips)
    turn = nearest_axes(source.grid.affine)
    turned, turned_grid = reorient(source.data, *turn), reoriented_grid(source.grid, *turn)

    np.testing.assert_array_equal(turned, array)
    assert turned_grid.same_as(world, tolerance_mm=1e-9)
    np.testing.assert_array_equal(unorient(turned, *turn), source.data)
    assert nearest_axes(turned_grid.affine) == ((0, 1, 2), (False, False, False))
    # A voxel keeps its place in the world.
    index = np.argwhere(source.data == 77)[0]
    np.testing.assert_allclose(
        source.grid.index_to_world(index), world.index_to_world(np.argwhere(array == 77)[0])
    )


@given(data=st.data())
def test_restore_undoes_a_crop_wherever_it_was(data: st.DataObject) -> None:
    axes, flips = data.draw(st.sampled_from(ORIENTATIONS))
    shape = (5, 6, 7)
    source = np.arange(210).reshape(shape) + 1
    whole = tuple(shape[a] for a in axes)
    lower = tuple(data.draw(st.integers(0, n - 1)) for n in whole)
    upper = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(lower, whole, strict=True))
    storage = StorageMap(grid(shape), axes, flips, lower)
    part = tuple(b - a for a, b in zip(lower, upper, strict=True))

    low, high = input_box(storage, lower, upper)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    cropped = reorient(source[box], axes, flips)

    np.testing.assert_array_equal(cropped, to_canonical(source, storage, part))
    back = restore(cropped, storage)
    np.testing.assert_array_equal(back[box], source[box])
    assert np.count_nonzero(back) == cropped.size


def test_a_mirrored_body_gives_the_mirrored_scan() -> None:
    water, fat, labels = legs()
    world = grid(water.shape)
    swap = np.zeros(256, dtype=np.uint8)
    swap[[8, 108]] = 108, 8

    def scan(flip: bool) -> CanonicalScan:
        part = slice(None, None, -1 if flip else 1)
        images = {
            Quantity.WATER: ArraySource(water[part], world),
            Quantity.FAT: ArraySource(fat[part], world),
        }
        given = swap[labels[part]] if flip else labels
        return run(subject(images, ArraySource(given, world)))

    one, other = scan(False), scan(True)
    np.testing.assert_array_equal(
        one.images[Quantity.WATER].data, other.images[Quantity.WATER].data[::-1]
    )
    np.testing.assert_array_equal(one.dixon.valid, other.dixon.valid[::-1])
    np.testing.assert_array_equal(one.labels.data, swap[other.labels.data[::-1]])


def test_labels_stored_in_another_order_are_on_the_same_grid() -> None:
    water, _, labels = legs()
    world = grid(water.shape)
    given = stored(labels, world, (2, 0, 1), (True, False, True))
    scan = run(subject({Quantity.T1W: ArraySource(water, world)}, given))
    np.testing.assert_array_equal(scan.labels.data, labels)
    assert scan.storage.input_grid is world


def test_single_images_stay_images() -> None:
    water, fat, _ = legs()
    world = grid(water.shape)
    scan = run(
        subject(
            {
                Quantity.IN_PHASE: ArraySource(water, world),
                Quantity.OPPOSED_PHASE: ArraySource(fat, world),
            }
        )
    )
    assert scan.dixon is None
    assert set(scan.images) == {Quantity.IN_PHASE, Quantity.OPPOSED_PHASE}


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_fat_fractions_come_in_two_units(scale: float) -> None:
    data = np.linspace(0, scale, 1000).reshape(10, 10, 10).astype(np.float32)
    source = ArraySource(data, grid((10, 10, 10)))
    found = run(subject({Quantity.FAT_FRACTION: source})).images[Quantity.FAT_FRACTION]
    np.testing.assert_allclose(found.data, data / scale, rtol=1e-6)


def test_labels_alone_are_enough_and_floats_are_whole_numbers() -> None:
    _, _, labels = legs()
    scan = run(subject({}, ArraySource(labels.astype(np.float32), grid(labels.shape))))
    np.testing.assert_array_equal(scan.labels.data, labels)
    assert scan.images == {}


def test_labels_of_other_tools_get_our_ids() -> None:
    _, _, labels = legs()
    theirs = np.where(labels == 8, 7102, np.where(labels == 108, 7101, 0)).astype(np.int16)
    theirs[0, 0, :] = 1101  # a neck muscle: known, not used
    scheme = load_label_scheme("musclemap")
    scan = run(subject({}, ArraySource(theirs, grid(labels.shape)), scheme))
    assert scan.labels.values() == [9, 109]
    np.testing.assert_array_equal(scan.labels.data == 9, labels == 8)


# Sides from geometry


def unsided() -> tuple[np.ndarray, Grid]:
    """Tibiae without a side; the right one (larger x) is further back and longer."""
    labels = np.zeros((40, 30, 60), dtype=np.uint8)
    labels[28:33, 5:12, 5:55] = 33
    labels[8:13, 15:22, 5:40] = 33
    return labels, grid(labels.shape)


def test_sides_come_from_the_world_not_from_the_array() -> None:
    labels, world = unsided()
    scheme = load_label_scheme("totalsegmentator_total_mr_2_4")
    for axes, flips in ORIENTATIONS[::5]:
        scan = run(subject({}, stored(labels, world, axes, flips), scheme))
        tibia = OWN_SCHEME.value_of("tibia", Side.RIGHT)
        assert int(np.count_nonzero(scan.labels.data == tibia)) == 5 * 7 * 50
        assert int(np.count_nonzero(scan.labels.data == tibia + 100)) == 5 * 7 * 35


def test_the_middle_follows_labels_that_name_a_side() -> None:
    labels, world = unsided()
    labels[33:36, 5:12, 5:55] = 32  # one fibula, of the right leg only
    own = np.zeros_like(labels)
    own[26:38, 4:14, 20:30], own[6:16, 14:24, 20:30] = 8, 108
    out = place_sides(own, labels, {32: "fibula"}, world)
    assert set(np.unique(out[labels == 32])) == {43}


def test_a_piece_across_the_middle_is_cut_there() -> None:
    labels = np.zeros((40, 10, 10), dtype=np.uint8)
    labels[10:30] = 1
    own = np.zeros_like(labels)
    own[0:4, :, :], own[36:40, :, :] = 108, 8
    out = place_sides(own, labels, {1: "hip_bone"}, grid(labels.shape))
    assert np.count_nonzero(out == 45) == np.count_nonzero(out == 145) == 1000
    assert out[29, 0, 0] == 45


def placed_hip_bone(first: int) -> np.ndarray:
    """A piece without a side from a column up to the 28th, placed; the middle is column 20."""
    labels = np.zeros((41, 10, 10), dtype=np.uint8)
    labels[first:29] = 1
    own = np.zeros_like(labels)
    own[0:4], own[37:41] = 108, 8
    return place_sides(own, labels, {1: "hip_bone"}, grid(labels.shape))


def test_a_column_on_the_middle_itself_is_nobodys() -> None:
    out = placed_hip_bone(12)
    assert np.count_nonzero(out == 45) == np.count_nonzero(out == 145) == 8 * 10 * 10
    assert not out[20].any()


def test_a_piece_that_reaches_the_middle_stays_whole() -> None:
    out = placed_hip_bone(20)
    assert np.count_nonzero(out == 45) == 9 * 10 * 10


def test_one_leg_without_a_side_is_not_guessed() -> None:
    labels = np.zeros((20, 10, 10), dtype=np.uint8)
    labels[5:9] = 1
    with pytest.raises(InputError, match="side of tibia cannot be told"):
        place_sides(np.zeros_like(labels), labels, {1: "tibia"}, grid(labels.shape))


# Noise


@pytest.mark.parametrize("blanked", [False, True])
def test_bone_and_air_have_no_fraction_and_muscle_has(blanked: bool) -> None:
    rng = np.random.default_rng(5)
    shape = (60, 60, 10)
    x, y, _ = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    body = (x - 30) ** 2 + (y - 30) ** 2 < 400
    bone = (x - 30) ** 2 + (y - 30) ** 2 < 16
    truth = np.where(bone, 0.0, np.where(body, 200.0, 0.0))

    def magnitude(of: np.ndarray) -> np.ndarray:
        real, imaginary = rng.normal(0, 4.0, (2, *shape))
        out = np.hypot(of + real, imaginary)
        return (out * body if blanked else out).astype(np.float32)

    water, fat = magnitude(0.9 * truth), magnitude(0.1 * truth)
    valid, _ = above_noise(water, fat, 5.0)

    assert valid[body & ~bone].mean() > 0.999
    assert valid[~body].mean() < 0.001
    # Where the air was blanked, noise is not measured and bone marrow's noise may pass the floor.
    assert valid[bone].mean() < (0.8 if blanked else 0.01)
    sigma = noise_level(water, water + fat)
    assert sigma is None if blanked else sigma == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, None),
        (3.0, None),
        (0.3, None),
        (15.0, "warned"),
        (1 / 15, "warned"),
        (500.0, "refused"),
        (1 / 500, "refused"),
    ],
)
def test_water_and_fat_on_two_scales_are_told(factor: float, said: str | None) -> None:
    world = grid((40, 20, 24))
    water, fat, labels = legs()
    fat[labels == 0] += np.where(np.roll(labels != 0, 3, axis=0), 300.0, 0.0)[labels == 0]
    # A spike is no scale.
    water[0, 0, 0] = 1e6
    two = {
        Quantity.WATER: ArraySource(water, world),
        Quantity.FAT: ArraySource((factor * fat).astype(np.float32), world),
    }
    if said == "refused":
        with pytest.raises(InputError, match="different scales"):
            canonicalise(subject(two), config=CONFIG)
    else:
        found = canonicalise(subject(two), config=CONFIG).findings
        assert ("water_fat_scale" in {f.code for f in found}) == (said == "warned")


@pytest.mark.parametrize("name", ["thigh_dixon_a", "leg_dixon_e"])
def test_water_and_fat_of_real_scans_are_on_one_scale(shared_data: Path, name: str) -> None:
    water, fat = (
        bright_signal(np.asarray(nib.load(path).dataobj, dtype=np.float32))
        for path in (shared_data / "images" / f"{name}_{q}.nii.gz" for q in ("water", "fat"))
    )
    assert 0.5 < fat / water < 2.5


@given(size=st.integers(1, 200), step=st.floats(0.2, 12.0))
def test_a_centred_lattice_reads_the_same_from_both_ends(size: int, step: float) -> None:
    odd = odd_step(step)
    first, count = centred_lattice(size, odd)
    index = first + odd * np.arange(count)
    assert odd % 2 == 1
    assert odd <= max(1.0, step)
    assert index[-1] < size
    if size > odd:
        np.testing.assert_array_equal(index, (size - 1 - index)[::-1])


# The legs in a whole body

VOXEL = 8.0


def body(
    *,
    height: float = 1720.0,
    touching: bool = False,
    thick: bool = False,
    raised_arms: bool = False,
    above: float = 40.0,
    below: float = 40.0,
) -> tuple[np.ndarray, Grid, float]:
    """A standing figure of ellipses with arms beside it; and the height of the crest, mm."""
    h = height
    shape = (72, 40, int((h * (1.12 if raised_arms else 1.0) + above + below) / VOXEL))
    x, y, z = np.meshgrid(
        (np.arange(shape[0]) - 35.5) * VOXEL,
        (np.arange(shape[1]) - 19.5) * VOXEL,
        np.arange(shape[2]) * VOXEL - below,
        indexing="ij",
    )

    def ellipse(cx: object, cy: float, rx: object, ry: object) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1

    leg_r = np.interp(z, [0, 0.05 * h, 0.2 * h, 0.28 * h, 0.47 * h], [45, 40, 60, 58, 85])
    centre = np.interp(z, [0, 0.47 * h], [80, 84 if touching else 92])
    if touching:
        centre = np.minimum(centre, 0.97 * leg_r + 4)
    out = np.zeros(shape, dtype=bool)
    for side in (-1, 1):
        out |= ellipse(side * centre, 0.0, leg_r, leg_r) & (z >= 0) & (z < 0.48 * h)
        if thick:
            between = np.maximum(np.abs(x) / centre, np.abs(y) / (0.65 * leg_r)) < 1
            out |= between & (z >= 0.3 * h) & (z < 0.48 * h)
        low, high = (0.8, 1.12) if raised_arms else (0.42, 0.8)
        out |= ellipse(side * 225.0, 0.0, 40.0, 40.0) & (z > low * h) & (z < high * h)
    out |= ellipse(0.0, 0.0, 175.0, 110.0) & (z >= 0.47 * h) & (z < 0.82 * h)
    out |= ellipse(0.0, 0.0, 55.0, 60.0) & (z >= 0.82 * h) & (z < 0.87 * h)
    out |= ellipse(0.0, 0.0, 80.0, 90.0) & (z >= 0.87 * h) & (z < h)
    signal = out * 200.0 + np.abs(np.random.default_rng(6).normal(0, 5, shape))
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = (-283.0, -150.0, -below)
    return signal.astype(np.float32), Grid(shape, affine, SCANNER_SPACE), 0.59 * h


@pytest.mark.parametrize(
    "figure",
    [
        {},
        {"touching": True},
        {"raised_arms": True},
        {"height": 1500.0},
        {"height": 1950.0},
        {"height": 1950.0, "above": -250.0},
        {"touching": True, "above": -250.0, "height": 1850.0},
        {"thick": True, "above": -250.0},
        {"below": -350.0},
        {"height": 1100.0},
        {"height": 900.0, "touching": True},
        {"height": 750.0, "raised_arms": True},
    ],
    ids=str,
)
def test_a_whole_body_is_cropped_to_its_legs(figure: dict[str, float]) -> None:
    signal, world, crest = body(**figure)
    loaded = subject({Quantity.WATER: ArraySource(signal, world)})
    result = canonicalise(loaded, config=CONFIG)
    scan = result.value

    top = scan.grid.corners_mm()[:, 2].max()
    bottom = scan.grid.corners_mm()[:, 2].min()
    # Nothing of the hips is cut; at most the lower half of the trunk is kept.
    assert crest + 20 < top < 0.8 * figure.get("height", 1720.0)
    assert bottom < max(0.0, -figure.get("below", 0.0)) + 1
    (finding,) = [f for f in result.findings if f.code == "cropped_to_lower_limbs"]
    assert finding.value == pytest.approx(scan.grid.shape[2] * VOXEL)
    part = restore(scan.images[Quantity.WATER].data, scan.storage)
    assert part.shape == signal.shape
    np.testing.assert_array_equal(part[part != 0], signal[part != 0])


@pytest.mark.parametrize("thick", [False, True])
@pytest.mark.parametrize("ends_at", [0.52, 0.66, 0.76])
def test_legs_between_air_are_not_taken_for_a_whole_child(ends_at: float, thick: bool) -> None:
    """A scan of legs and trunk, set into an array that is too large for it, stays as it is."""
    signal, world, _ = body(height=1450.0, thick=thick)
    signal = signal[:, :, : int((40.0 + 0.8 * 1450.0) / VOXEL)]
    signal[:, :, int((40.0 + ends_at * 1450.0) / VOXEL) :] = signal[:, :, :1]
    grid = Grid(signal.shape, world.affine, SCANNER_SPACE)
    result = canonicalise(subject({Quantity.WATER: ArraySource(signal, grid)}), config=CONFIG)
    assert not [f for f in result.findings if f.code == "cropped_to_lower_limbs"]
    assert result.value.grid.shape[2] >= ends_at * 1450.0 / VOXEL


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS[::7])
@pytest.mark.parametrize("search", [8.0, 25.0, 41.0])
def test_the_crop_does_not_depend_on_storage_or_mirroring(
    axes: Index3, flips: tuple[bool, bool, bool], search: float
) -> None:
    signal, world, _ = body(touching=True)
    signal[:20] *= 0.97
    config = CONFIG.model_copy(update={"search_voxel_mm": search})
    plain = run(subject({Quantity.WATER: ArraySource(signal, world)}), config)
    other = run(subject({Quantity.WATER: stored(signal, world, axes, flips)}), config)
    mirrored = run(subject({Quantity.WATER: ArraySource(signal[::-1], world)}), config)
    assert other.grid.same_as(plain.grid)
    assert mirrored.grid.same_as(plain.grid)


def test_a_long_scan_without_legs_is_refused() -> None:
    signal, world, _ = body()
    signal[:, :, : int(0.55 * 1720 / VOXEL)] = 1.0
    signal[0, 0, 0] = 2.0
    short = CONFIG.model_copy(update={"longest_lower_limb_mm": 600.0})
    with pytest.raises(SubjectUnusableError, match="No pair of legs"):
        run(subject({Quantity.WATER: ArraySource(signal, world)}), short)


def test_the_whole_body_never_fills_the_memory(tmp_path: Path) -> None:
    from pipeline.core.volume import Volume
    from pipeline.io.nifti import Called, open_nifti, write_volume

    signal, world, _ = body()
    fine = np.repeat(np.repeat(signal, 2, axis=0), 2, axis=1)
    affine = world.affine @ np.diag([0.5, 0.5, 1.0, 1.0])
    write_volume(
        tmp_path / "x_water.nii.gz",
        Volume(fine, Grid(fine.shape, affine, SCANNER_SPACE), Quantity.WATER),
        dtype=np.int16,
    )
    source = open_nifti(
        tmp_path / "x_water.nii.gz",
        Called("The water image"),
        affine_tolerance_mm=1,
        largest_image_million_voxels=100,
    )
    del signal, fine
    tracemalloc.start()
    coarse = CONFIG.model_copy(update={"search_voxel_mm": 16.0})
    scan = run(LoadedSubject("sub-x", None, {Quantity.WATER: source}), coarse)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole_float64 = int(np.prod(source.grid.shape)) * 8
    kept = scan.images[Quantity.WATER].data.nbytes
    assert kept < 0.4 * whole_float64
    assert peak < 0.8 * whole_float64
