"""The legs are told apart from the images alone: phantoms in every pose, and real scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bodies import GIVEN, PERSON, VOXEL_MM, cropped, loaded, small_scan
from hypothesis import given
from hypothesis import strategies as st
from matches import unregistered
from scipy import ndimage

from pipeline import (
    Side,
    canonicalise,
    default_config,
    load_subject,
    measure,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.scan import ArraySource, CanonicalScan, LegPair
from pipeline.core.volume import Quantity, Volume
from pipeline.imaging.body import hulls
from pipeline.imaging.separation import lattice_for, mask_at_full_size
from pipeline.phantom import Acquisition, Pose, Scan, acquire, grid_for, make_body

POSES = {
    "apart": Pose(gap_mm=40.0),
    "touching": Pose(gap_mm=0.0),
    "rotated and shifted": Pose(gap_mm=5.0, rotation_deg=(15.0, -10.0), shift_mm=(0.0, 40.0)),
    "bent knees": Pose(gap_mm=10.0, knee_flexion_deg=(12.0, 3.0)),
}


def scanned(**changes) -> Scan:
    person = replace(PERSON, **changes)
    body = make_body(person, detail="reduced")
    return acquire(body, Acquisition(grid_for(body, VOXEL_MM), seed=1))


def share_on_own_side(scan: CanonicalScan, labels: np.ndarray) -> float:
    """Labelled voxels that lie on their leg's own side, of those on either side."""
    legs = separate_legs(replace(scan, labels=None), config=default_config().separate).value
    own, wrong = 0, 0
    for side, mine in ((Side.RIGHT, (labels > 0) & (labels <= 30)), (Side.LEFT, labels > 100)):
        leg, other = legs[side], legs[side.other]
        own += int((leg.to_canonical(leg.tissue) & mine[leg.canonical_box]).sum())
        wrong += int((other.to_canonical(other.tissue) & mine[other.canonical_box]).sum())
    return own / (own + wrong)


@pytest.mark.parametrize("pose", list(POSES))
def test_muscles_lie_on_their_own_side_in_every_pose(pose):
    subject = loaded(scanned(pose=POSES[pose]))
    scan = canonicalise(subject, config=default_config().canonicalise).value
    assert share_on_own_side(scan, np.where(scan.labels.data % 100 <= 30, scan.labels.data, 0)) > (
        0.999
    )


def test_a_whole_body_is_cropped_to_the_legs_and_arms_are_left_out():
    whole = scanned(whole_body=True)
    result = canonicalise(loaded(whole), config=default_config().canonicalise)
    assert "cropped_to_lower_limbs" in {finding.code for finding in result.findings}
    assert result.value.grid.shape[2] < 0.8 * whole.labels.grid.shape[2]
    pair = separate_legs(result.value, config=GIVEN.separate).value
    segmented = segment(pair, config=GIVEN.segment).value
    measures = measure(segmented, unregistered(segmented), config=GIVEN.measure).value
    for muscle in measures.muscles:
        for side in Side:
            truth = whole.truth_on_grid[muscle.name, side].volume_ml
            assert getattr(muscle, side).volume_whole_ml == pytest.approx(truth, rel=1e-6)
    legs = separate_legs(replace(result.value, labels=None), config=default_config().separate).value
    labels = result.value.labels.data
    for side in Side:
        leg = legs[side]
        x = np.abs(leg.grid.index_to_world(np.argwhere(leg.tissue))[:, 0])
        # Arms lie 60 mm and more beyond the outermost muscle; skin and fat take less than that.
        mine = np.argwhere(labels > 100 if side is Side.LEFT else (labels > 0) & (labels < 100))
        outermost = np.abs(result.value.grid.index_to_world(mine)[:, 0]).max()
        assert np.percentile(x, 99.5) < outermost + 60.0


def test_one_leg_alone_is_refused():
    scan = scanned()
    half = scan.labels.grid.shape[0] // 2
    subject = loaded(scan, labels=False)
    images = {q: ArraySource(np.array(s.data), s.grid) for q, s in subject.images.items()}
    for source in images.values():
        source.data[:half] = 0.0
    one = canonicalise(replace(subject, images=images), config=default_config().canonicalise).value
    with pytest.raises(SubjectUnusableError):
        separate_legs(one, config=default_config().separate)


@pytest.mark.parametrize("factor", [0.001, 0.1, 1000.0], ids=["m", "cm", "microns"])
def test_sizes_that_were_not_written_in_mm_are_refused(factor):
    scan = canonicalise(loaded(small_scan()), config=default_config().canonicalise).value
    affine = scan.grid.affine.copy()
    affine[:3] *= factor
    grid = Grid(scan.grid.shape, affine, scan.grid.space)
    images = {q: Volume(v.data, grid, q, v.unit) for q, v in scan.images.items()}
    wrong = replace(scan, grid=grid, images=images, labels=None, dixon=None)
    with pytest.raises(InputError, match="of a size that no pair of legs has") as caught:
        separate_legs(wrong, config=default_config().separate)
    assert "in mm" in caught.value.action


def test_a_person_on_the_side_is_told_so():
    scan = small_scan()
    turn = np.eye(4)
    turn[:2, :2] = [[0.0, -1.0], [1.0, 0.0]]
    subject = loaded(scan, labels=False)
    images = {
        q: ArraySource(image.data, Grid(image.grid.shape, turn @ image.grid.affine, "scanner"))
        for q, image in subject.images.items()
    }
    turned = canonicalise(
        replace(subject, images=images), config=default_config().canonicalise
    ).value
    with pytest.raises(SubjectUnusableError, match="lay on the side"):
        separate_legs(turned, config=default_config().separate)


def noisy(data: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Rician noise."""
    real, imaginary = sd * rng.standard_normal((2, *data.shape))
    return np.hypot(data + real, imaginary).astype(np.float32)


def separated(scan: Scan, images: dict[Quantity, np.ndarray]) -> LegPair:
    sources = {q: ArraySource(data, scan.labels.grid) for q, data in images.items()}
    subject = replace(loaded(scan, labels=False), images=sources)
    whole = canonicalise(subject, config=default_config().canonicalise).value
    return separate_legs(whole, config=default_config().separate).value


def tissue_of(legs: LegPair, shape: tuple[int, ...]) -> np.ndarray:
    tissue = np.zeros(shape, dtype=bool)
    for leg in (legs.right, legs.left):
        tissue[leg.canonical_box] |= leg.to_canonical(leg.tissue)
    return tissue


@pytest.mark.parametrize(
    ("quantity", "water"), [(Quantity.T1W, 0.4), (Quantity.T1W, 0.1), (Quantity.FAT, 0.03)]
)
def test_muscle_as_dark_as_air_is_found_by_the_fat_around_it(quantity, water):
    scan = scanned()
    data = water * scan.images[Quantity.WATER].data + scan.images[Quantity.FAT].data
    sd = 0.01 * float(np.percentile(data, 99))
    legs = separated(scan, {quantity: noisy(data, sd, np.random.default_rng(3))})
    labels = np.asarray(scan.labels.data)
    muscle = (labels % 100 > 0) & (labels % 100 <= 30)
    assert tissue_of(legs, labels.shape)[muscle].mean() > 0.99


def test_noise_in_the_air_is_no_body():
    scan = scanned()
    clean = [np.asarray(scan.images[q].data) for q in (Quantity.WATER, Quantity.FAT)]
    sd = 0.15 * float(np.percentile(clean[0], 95))
    rng = np.random.default_rng(3)
    images = [noisy(data, sd, rng) for data in clean]
    legs = separated(scan, dict(zip((Quantity.WATER, Quantity.FAT), images, strict=True)))
    labels = np.asarray(scan.labels.data)
    tissue = tissue_of(legs, labels.shape)
    air = ndimage.binary_erosion(sum(clean) < 0.1 * np.percentile(sum(clean), 95), iterations=3)
    assert air.mean() > 0.2
    assert tissue[air].mean() < 0.002
    assert tissue[(labels % 100 > 0) & (labels % 100 <= 30)].mean() > 0.97


@pytest.mark.parametrize(("quantity", "water"), [(Quantity.T1W, 0.4), (Quantity.FAT, 0.05)])
def test_no_hull_is_drawn_around_noise_in_the_air(quantity, water):
    scan = scanned()
    data = water * scan.images[Quantity.WATER].data + scan.images[Quantity.FAT].data
    labels = np.asarray(scan.labels.data)
    signal = float(np.median(data[(labels % 100 > 0) & (labels % 100 <= 30)]))
    volumes = [
        tissue_of(
            separated(scan, {quantity: noisy(data, sd, np.random.default_rng(3))}), labels.shape
        ).sum()
        for sd in (signal / 50.0, max(signal, 0.2 * float(np.percentile(data, 95))) / 4.0)
    ]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.08)


@given(size=st.integers(1, 90), spacing=st.floats(1.0, 9.0))
def test_a_mask_on_a_lattice_is_mirrored_to_the_voxel_at_full_size(size, spacing):
    shape = (size, 3, 2)
    lattice = lattice_for(shape, (1.0, 1.0, 1.0), spacing)
    coarse_shape = (len(lattice.x), -(-3 // lattice.step[1]), -(-2 // lattice.step[2]))
    mask = np.random.default_rng(size).random(coarse_shape) < 0.5
    found = mask_at_full_size(mask, lattice, shape)
    np.testing.assert_array_equal(mask_at_full_size(mask[::-1], lattice, shape), found[::-1])
    nearest = np.abs(np.arange(size)[:, None] - lattice.x).argmin(axis=1)
    assert found[mask[nearest][:, :1, :1][:, 0, 0], 0, 0].all()


def test_levels_that_show_one_leg_alone_are_not_levels_where_legs_touch():
    touching = []
    scan = scanned()
    for lowest in (0, 30):
        images = {q: np.array(scan.images[q].data) for q in (Quantity.WATER, Quantity.FAT)}
        for image in images.values():
            image[: image.shape[0] // 2, :, :lowest] = 0.0
        sources = {q: ArraySource(data, scan.labels.grid) for q, data in images.items()}
        subject = replace(loaded(scan, labels=False), images=sources)
        whole = canonicalise(subject, config=default_config().canonicalise).value
        findings = separate_legs(whole, config=default_config().separate).findings
        touching.append([f.value for f in findings if f.code == "legs_touch"])
    assert touching[0]
    assert touching[1] == touching[0]


def test_levels_of_a_missing_station_are_not_seen_in_either_leg():
    scan = small_scan()
    n = scan.labels.grid.shape[2]
    low, high = n // 3, n // 3 + 4
    stations = [cropped(scan, 0, low), cropped(scan, high, n)]
    parts = tuple(loaded(part, labels=False).images for part in stations)
    subject = replace(loaded(scan, labels=False), images={}, stations=parts)
    whole = canonicalise(subject, config=default_config().canonicalise).value
    for legs in (
        separate_legs(whole, config=default_config().separate).value,
        separated(scan, {q: np.array(image.data) for q, image in whole.images.items()}),
    ):
        for side in Side:
            seen = np.flatnonzero(legs[side].seen)
            hole = np.setdiff1d(np.arange(seen[0], seen[-1]), seen)
            np.testing.assert_array_equal(hole, np.arange(low, high))


def test_hulls_close_a_ring_with_gaps_on_either_side_and_mirror_exactly():
    y, x = np.meshgrid(np.arange(60), np.arange(90), indexing="ij")
    body = np.zeros((90, 60, 2), dtype=bool)
    for middle, radius in ((20.0, 16.3), (66.5, 18.7)):
        distance = np.hypot(x - middle, y - 30.0).T
        body[:, :, 0] |= (distance < radius) & (distance > radius - 2.0)
    body[18:24, 40:60, 0] = False
    found = hulls(body, np.array([43.0, 43.0]), column_mm=4.0)
    assert found[[20, 66], 30, 0].all()
    assert not found[43, 30, 0]
    assert not found[:, :, 1].any()
    turned = hulls(body[::-1], np.array([46.0, 46.0]), column_mm=4.0)
    np.testing.assert_array_equal(turned, found[::-1])


@pytest.mark.parametrize(
    ("image", "labels"),
    [("thigh_water_b", "thigh_water_b_dseg-silver"), ("leg_dwi_f", "leg_dwi_f_dseg")],
)
def test_real_scans_without_using_their_labels(shared_data, tmp_path, image, labels):
    folder = tmp_path / "sub-real"
    folder.mkdir()
    for name, suffix in ((image, "water"), (labels, "dseg")):
        source = shared_data / "images" / f"{name}.nii.gz"
        (folder / f"sub-real_{suffix}.nii.gz").symlink_to(source)
    config = default_config()
    subject = load_subject(tmp_path, "sub-real", config=config.load).value
    scan = canonicalise(subject, config=config.canonicalise).value
    assert share_on_own_side(scan, np.asarray(scan.labels.data)) > 0.999


def test_unlabelled_real_scans_are_separated(shared_data, tmp_path):
    for name in ("thigh_water_c", "leg_water_d", "leg_dixon_e_water", "thigh_dixon_a_water"):
        folder = tmp_path / f"sub-{name.replace('_', '')}"
        folder.mkdir()
        source = shared_data / "images" / f"{name}.nii.gz"
        (folder / f"{folder.name}_water.nii.gz").symlink_to(source)
        config = default_config()
        subject = load_subject(tmp_path, folder.name, config=config.load).value
        scan = canonicalise(subject, config=config.canonicalise).value
        legs = separate_legs(scan, config=config.separate).value
        sizes = [float(legs[side].tissue.sum()) for side in Side]
        # Two legs of one person differ by far less than a leg that lost a part to the other.
        assert 0.8 < sizes[0] / sizes[1] < 1.25, name


@pytest.mark.parametrize("above_the_knee", [-10, 30])
@pytest.mark.parametrize("side", Side)
def test_a_leg_that_ends_while_the_other_goes_on_is_told(side: Side, above_the_knee: int) -> None:
    """The levels below it were imaged: muscles end there, and no end of the scan cuts them.

    Where most of the scan shows one leg only, that one is not cut by a midline that tilts into it.
    """
    scan = small_scan()
    knee = int(np.argwhere(scan.labels.data == STRUCTURE_IDS["tibia"])[:, 2].max())
    end = knee + above_the_knee
    half = np.arange(scan.labels.grid.shape[0]) >= scan.labels.grid.shape[0] // 2
    gone = np.zeros(scan.labels.grid.shape, dtype=bool)
    gone[half if side is Side.RIGHT else ~half, :, :end] = True
    rng = np.random.default_rng(3)
    noise = rng.rayleigh(5.0, gone.shape).astype(np.float32)
    blanked, noisy = (
        replace(
            scan,
            images={q: v.with_data(np.where(gone, air, v.data)) for q, v in scan.images.items()},
        )
        for air in (np.float32(0), noise)
    )
    for body, expected in ((scan, []), (blanked, [side]), (noisy, [side])):
        subject = loaded(body, labels=False)
        canonical = canonicalise(subject, config=GIVEN.canonicalise).value
        result = separate_legs(canonical, config=GIVEN.separate)
        told = [f for f in result.findings if f.code == "leg_ends_early"]
        assert [f.side for f in told] == expected
        assert ("leg_ends_early" in result.value.caveats) == bool(expected)
        assert not [
            f for f in result.findings if f.code == "ends_not_straight" and f.side in expected
        ]
        below = result.value[side].seen[:end].sum() * VOXEL_MM[2]
        if body is scan:
            assert below > 0.9 * end * VOXEL_MM[2] - 50.0
        else:
            # Zeros may be levels that were not imaged on this side.
            assert below == pytest.approx(told[0].value if body is noisy else 0.0)
