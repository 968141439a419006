"""Scans as they come: five vendors, stations in any order, swaps, and nothing of the person."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bodies import cropped, loaded, small_scan
from pypdf import PdfReader
from scanner import SECRETS, STYLES, write_vendor
from scipy import ndimage

from benchmarks.agreement import asymmetry_percent
from pipeline import cli
from pipeline.config import default_config
from pipeline.core.anatomy import MUSCLES, OWN_SCHEME, Side
from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.scan import ArraySource, CanonicalScan, LoadedSubject
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.imaging.stations import Station, extent_mm, group_stations, join_stations
from pipeline.imaging.swaps import exchange, find_swaps
from pipeline.io.nifti import write_label_map, write_volume
from pipeline.phantom import (
    Acquisition,
    BodyParameters,
    Pose,
    Scan,
    acquire,
    grid_for,
    make_body,
    split_into_stations,
)
from pipeline.stages.canonicalise import canonicalise
from pipeline.stages.load import load_subject
from pipeline.stages.separate import separate_legs

W, F = Quantity.WATER, Quantity.FAT
CONFIG = default_config()


@lru_cache(maxsize=1)
def thighs() -> Scan:
    """The levels of the test person from the knees to the hips."""
    scan = small_scan()
    grid = scan.labels.grid
    bottom = round(float(grid.world_to_index([0.0, 0.0, -40.0])[2]))
    top = bottom + 48
    part = grid.crop((0, 0, bottom), (grid.shape[0], grid.shape[1], top))
    images = {q: Volume(v.data[:, :, bottom:top], part, q) for q, v in scan.images.items()}
    labels = LabelMap(scan.labels.data[:, :, bottom:top], part, OWN_SCHEME)
    return replace(scan, images=images, labels=labels)


def of_stations(stations: list[Scan], labels: LabelMap) -> LoadedSubject:
    return LoadedSubject(
        subject="sub-test",
        session=None,
        images={},
        stations=tuple(
            {q: ArraySource(v.data, v.grid) for q, v in s.images.items()} for s in stations
        ),
        labels=ArraySource(labels.data, labels.grid),
        label_scheme=OWN_SCHEME,
    )


def run(subject: LoadedSubject) -> tuple[CanonicalScan, list[str]]:
    result = canonicalise(subject, config=CONFIG.canonicalise)
    return result.value, [finding.code for finding in result.findings]


def lean_ml(scan: CanonicalScan) -> dict[tuple[str, Side], float]:
    """Sum of 1 - FF over the labels of each muscle of some size."""
    water, fat = scan.images[W].data, scan.images[F].data
    lean = np.divide(water, water + fat, out=np.zeros_like(water), where=water + fat > 0)
    sums = np.bincount(scan.labels.data.ravel(), weights=lean.ravel(), minlength=256)
    out = {(m.name, s): sums[OWN_SCHEME.value_of(m.name, s)] for m in MUSCLES for s in Side}
    return {k: v * scan.grid.voxel_volume_ml for k, v in out.items() if v > 100}


def largest_change_percent(one: CanonicalScan, other: CanonicalScan) -> float:
    a, b = lean_ml(one), lean_ml(other)
    assert a.keys() == b.keys()
    assert len(a) > 20
    return max(100 * abs(b[k] / a[k] - 1) for k in a)


def largest_asymmetry_change(one: CanonicalScan, other: CanonicalScan) -> float:
    """Of lean volume, in points."""
    a, b = (
        {
            name: asymmetry_percent(found[name, Side.RIGHT], found[name, Side.LEFT])
            for name, side in found
            if side is Side.RIGHT and (name, Side.LEFT) in found
        }
        for found in (lean_ml(one), lean_ml(other))
    )
    assert a.keys() == b.keys()
    assert len(a) > 10
    return max(abs(b[name] - a[name]) for name in a)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("stations", [1, 2])
def test_the_phantom_as_dicom_of_each_vendor_measures_as_its_nifti(
    tmp_path: Path, style: str, stations: int
) -> None:
    whole = thighs()
    parts = split_into_stations(whole, stations, overlap_mm=64, gains=[1.0, 1.7][:stations])
    write_vendor(tmp_path / "sub-01" / "raw", style, parts, seed=stations)
    write_label_map(tmp_path / "sub-01" / "x_dseg.nii.gz", whole.labels)
    result = load_subject(tmp_path, "01", config=CONFIG.load)
    said = " ".join(finding.message for finding in result.findings)
    assert "a localiser" in said
    assert "no MR image" in said
    scan, codes = run(result.value)
    assert ("stations_joined" in codes) == (stations > 1)
    expected, _ = run(loaded(whole))
    assert largest_change_percent(expected, scan) < (0.5 if stations == 1 else 1.0)


@pytest.mark.parametrize(
    "count", [2, 5, 9, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4, 6, 7, 8))]
)
def test_stations_join_to_the_unsplit_scan_in_any_order(count: int) -> None:
    whole = small_scan()
    gains = list(np.random.default_rng(count).uniform(0.5, 2.0, count))
    parts = split_into_stations(whole, count, overlap_mm=48, gains=gains)
    scan, codes = run(of_stations(parts, whole.labels))
    expected, _ = run(loaded(whole))
    assert largest_change_percent(expected, scan) < 1.0
    assert not {"station_gap", "station_fat_step", "fat_water_swap_corrected"} & set(codes)
    valid = expected.dixon.valid
    fractions = [s.images[F].data / (s.images[W].data + s.images[F].data) for s in (scan, expected)]
    assert np.abs(fractions[0] - fractions[1])[valid].max() < 0.005
    again, _ = run(of_stations(parts[::-1], whole.labels))
    for quantity in (W, F):
        np.testing.assert_array_equal(again.images[quantity].data, scan.images[quantity].data)


def test_a_station_on_a_slightly_different_grid_after_a_table_shift() -> None:
    whole = thighs()
    lower, upper = split_into_stations(whole, 2, overlap_mm=64, gains=[1.0, 1.3])
    grid = upper.labels.grid
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [0.4, -0.3, 0.5]
    moved = Grid(grid.shape, affine, grid.space)
    images = {
        q: Volume(ndimage.shift(v.data, (-0.4, 0.3, -0.5), order=1, mode="nearest"), moved, q)
        for q, v in upper.images.items()
    }
    subject = of_stations([lower, replace(upper, images=images)], whole.labels)
    scan, codes = run(replace(subject, labels=None, label_scheme=None))
    assert scan.grid.shape[2] in (whole.labels.grid.shape[2], whole.labels.grid.shape[2] + 1)
    assert not {"station_gap", "station_fat_step", "station_outline_step"} & set(codes)


def test_a_missing_station_is_a_gap_and_no_stretch() -> None:
    whole = small_scan()
    parts = split_into_stations(whole, 4, overlap_mm=32, gains=[1.0] * 4)
    subject = of_stations([parts[0], parts[1], parts[3]], whole.labels)
    result = canonicalise(subject, config=CONFIG.canonicalise)
    (gap,) = [finding for finding in result.findings if finding.code == "station_gap"]
    below, above = (extent_mm(parts[k].labels.grid) for k in (1, 3))
    assert gap.value == pytest.approx(above[0] - below[1])
    assert result.value.grid.same_as(whole.labels.grid.crop((0, 0, 0), result.value.grid.shape))
    grid = parts[2].labels.grid
    middle = grid.index_to_world([0, 0, grid.shape[2] // 2])
    level = round(float(result.value.grid.world_to_index(middle)[2]))
    assert not result.value.dixon.valid[:, :, level].any()


@pytest.mark.parametrize("missing", [0, 4])
@pytest.mark.parametrize("gain", [0.2, 1.0, 6.0])
def test_stations_without_an_overlap_are_made_equally_bright(gain: float, missing: int) -> None:
    whole = thighs()
    half = whole.labels.grid.shape[2] // 2
    stations = [cropped(whole, 0, half), cropped(whole, half + missing, 2 * half)]
    stations[1] = replace(
        stations[1],
        images={q: v.with_data(v.data * np.float32(gain)) for q, v in stations[1].images.items()},
    )
    subject = replace(of_stations(stations, whole.labels), labels=None, label_scheme=None)
    result = canonicalise(subject, config=CONFIG.canonicalise)
    (told,) = [f for f in result.findings if f.code == "station_gain_unknown"]
    # Levels that face each other say it better than two parts of a leg far apart.
    assert told.value == pytest.approx(1 / gain, rel=0.25 if missing else 0.03)
    ends = [half - 1, half + missing]
    fractions = [
        i[F].data[:, :, ends].sum(axis=(0, 1)) / i[W].data[:, :, ends].sum(axis=(0, 1))
        for i in (result.value.images, whole.images)
    ]
    np.testing.assert_allclose(*fractions, rtol=1e-4)
    uneven = separate_legs(result.value, config=CONFIG.separate).value
    even = separate_legs(run(loaded(whole))[0], config=CONFIG.separate).value
    for side in Side:
        for part in (slice(0, half), slice(half + missing, None)):
            sizes = [int(legs[side].tissue[:, :, part].sum()) for legs in (uneven, even)]
            assert sizes[0] == pytest.approx(sizes[1], rel=0.03)


def test_a_leg_that_moved_between_stations_is_told() -> None:
    parts = split_into_stations(thighs(), 2, overlap_mm=64, gains=[1.0, 1.0])
    moved = {q: v.with_data(np.roll(v.data, 5, axis=0)) for q, v in parts[1].images.items()}
    _, codes = run(of_stations([parts[0], replace(parts[1], images=moved)], thighs().labels))
    assert "station_outline_step" in codes


def test_nifti_stations_and_one_without_fat(tmp_path: Path) -> None:
    whole = thighs()
    parts = split_into_stations(whole, 3, overlap_mm=48, gains=[1.0, 2.0, 0.7])
    folder = tmp_path / "sub-01"
    folder.mkdir()
    for number, part in zip((3, 1, 2), parts, strict=True):
        for quantity, volume in part.images.items():
            write_volume(folder / f"sub-01_station-{number}_{quantity}.nii.gz", volume)
    write_label_map(folder / "sub-01_dseg.nii.gz", whole.labels)
    scan, _ = run(load_subject(tmp_path, "01", config=CONFIG.load).value)
    expected, _ = run(loaded(whole))
    assert largest_change_percent(expected, scan) < 1.0

    (folder / "sub-01_station-2_fat.nii.gz").unlink()
    result = load_subject(tmp_path, "01", config=CONFIG.load)
    assert len(result.value.stations) == 2
    (finding,) = [f for f in result.findings if f.code == "station_incomplete"]
    assert "has no fat" in finding.message


def test_repeats_are_no_stations() -> None:
    grid = thighs().labels.grid
    again = grid.crop((0, 0, 4), grid.shape)
    names = ["a", "b", "c", "d"]
    with pytest.raises(InputError, match=r"More than one image shows.*Found: b and d, the latter"):
        group_stations([(W, grid), (F, grid), (W, again), (F, again)], names, [""] * 4)


def test_stations_of_two_bodies_far_apart_are_refused() -> None:
    grid = thighs().labels.grid
    affine = grid.affine.copy()
    affine[2, 3] += 5000.0
    images = {W: thighs().images[W].data}
    far = Station(Grid(grid.shape, affine, grid.space), images)
    with pytest.raises(InputError, match="too far apart"):
        join_stations([Station(grid, images), far], largest_million_voxels=500)
    with pytest.raises(InputError, match=r"at most 0.01 million.*largest_joined_million_voxels"):
        join_stations([Station(grid, images)] * 2, largest_million_voxels=0.01)


def swapped(scan: Scan, side: Side) -> Scan:
    """Water and fat exchanged on one side of the phantom's midline (x = 0)."""
    grid = scan.labels.grid
    x = grid.index_to_world(np.stack([np.arange(grid.shape[0]), *np.zeros((2, grid.shape[0]))], 1))
    mine = ((x[:, 0] > 0) == (side is Side.RIGHT))[:, None, None]
    water, fat = scan.images[W], scan.images[F]
    images = {
        W: water.with_data(np.where(mine, fat.data, water.data)),
        F: fat.with_data(np.where(mine, water.data, fat.data)),
    }
    return replace(scan, images=images)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("where", [0, 1, 2])
def test_one_swapped_leg_in_one_station_is_found_and_corrected(side: Side, where: int) -> None:
    whole = small_scan()
    parts = split_into_stations(whole, 3, overlap_mm=48, gains=[1.0, 1.5, 0.8])
    parts[where] = swapped(parts[where], side)
    result = canonicalise(of_stations(parts, whole.labels), config=CONFIG.canonicalise)
    found = [f for f in result.findings if f.code == "fat_water_swap_corrected"]
    assert [finding.side for finding in found] == [side]
    expected, _ = run(loaded(whole))
    assert largest_change_percent(expected, result.value) < 1.0
    assert largest_asymmetry_change(expected, result.value) < 1.0


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("first", [8, 30, 58, 83, 105])
def test_a_swap_over_a_few_levels_of_one_leg_is_undone_exactly(
    side: Side, first: int, count: int
) -> None:
    """From a single level on, anywhere from the ankle to the hip."""
    whole = small_scan()
    water, fat = (whole.images[q].data for q in (W, F))
    bad = swapped(whole, side)
    levels = np.s_[:, :, first : first + count]
    images = [water.copy(), fat.copy()]
    for image, quantity in zip(images, (W, F), strict=True):
        image[levels] = bad.images[quantity].data[levels]
    grid = whole.labels.grid
    swaps = find_swaps(*images, grid)
    tissue = (water + fat)[levels] > 0.25 * np.percentile(water, 99)
    assert [(s.side, s.first, s.last) for s in swaps] == [(side, first, first + count)]
    back = exchange(*images, grid, swaps)
    for image, right in zip(back, (water, fat), strict=True):
        assert np.mean((image != right)[levels] & tissue) < 0.01 * tissue.mean()


@pytest.mark.parametrize("columns_off", [0, 1, 2])
def test_a_swap_in_the_mirror_is_the_same_swap_of_the_other_leg(columns_off: int) -> None:
    whole = small_scan()
    bad = swapped(whole, Side.LEFT)
    images = [bad.images[q].data[columns_off:] for q in (W, F)]
    grid = replace(whole.labels.grid, shape=images[0].shape)
    (found,) = find_swaps(*images, grid)
    (mirrored,) = find_swaps(*(image[::-1] for image in images), grid)
    assert {found.side, mirrored.side} == set(Side)
    assert (mirrored.first, mirrored.last) == (found.first, found.last)
    assert np.allclose(mirrored.middle, len(images[0]) - 1 - found.middle)
    back, turned = (
        exchange(*pair, grid, [swap])
        for pair, swap in ((images, found), ([image[::-1] for image in images], mirrored))
    )
    assert all(np.array_equal(a, b[::-1]) for a, b in zip(back, turned, strict=True))


def test_a_swap_of_both_legs_of_a_single_scan() -> None:
    whole = thighs()
    scan, codes = run(loaded(swapped(swapped(whole, Side.RIGHT), Side.LEFT)))
    assert codes.count("fat_water_swap_corrected") == 2
    expected, _ = run(loaded(whole))
    assert largest_change_percent(expected, scan) == 0.0


def random_scan(seed: int) -> Scan:
    rng = np.random.default_rng(seed)
    parameters = BodyParameters(
        pose=Pose(gap_mm=float(rng.uniform(2, 20)), shift_mm=(0.0, float(rng.uniform(-8, 8)))),
        seed=seed,
    )
    body = make_body(parameters, detail="reduced")
    grid = grid_for(body, (5.0, 5.0, 12.0))
    acquisition = Acquisition(
        grid, snr=float(rng.uniform(15, 60)), bias_field=float(rng.uniform(0, 0.5)), seed=seed
    )
    return acquire(body, acquisition)


def assert_no_swap(scan: Scan) -> None:
    for count in (1, 3):
        for part in split_into_stations(scan, count, overlap_mm=48, gains=[1.0] * count):
            assert find_swaps(part.images[W].data, part.images[F].data, part.labels.grid) == []


@pytest.mark.parametrize("seed", range(2))
def test_no_swap_is_found_where_there_is_none(seed: int) -> None:
    assert_no_swap(random_scan(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 100))
def test_no_swap_is_found_in_a_hundred_random_phantoms(seed: int) -> None:
    assert_no_swap(random_scan(seed))


@pytest.mark.parametrize("name", ["thigh_dixon_a", "leg_dixon_e"])
def test_swaps_of_real_scans(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "sub-x"
    folder.mkdir()
    for kind in ("water", "fat"):
        path = shared_data / "images" / f"{name}_{kind}.nii.gz"
        (folder / f"x_{kind}.nii.gz").symlink_to(path)
    scan, codes = run(load_subject(tmp_path, "x", config=CONFIG.load).value)
    assert "fat_water_swap_corrected" not in codes
    water, fat = scan.images[W].data, scan.images[F].data
    # Air between the legs, or the narrowest column of the body near the middle.
    profile = (water + fat).sum(axis=(1, 2))
    third = len(profile) // 3
    middle = third + int(np.argmin(profile[third : 2 * third]))
    for side in Side:
        mine = np.zeros((len(profile), 1, 1), dtype=bool)
        mine[middle:] = side is Side.RIGHT
        mine[:middle] = side is Side.LEFT
        bad = np.where(mine, fat, water), np.where(mine, water, fat)
        swaps = find_swaps(*bad, scan.grid)
        assert {swap.side for swap in swaps} == {side}
        back = exchange(*bad, scan.grid, swaps)
        tissue = scan.dixon.valid
        assert np.mean((back[0] != water) & tissue) < 0.01 * tissue.mean()


def test_nothing_of_the_person_is_written_anywhere(tmp_path: Path, capsys) -> None:
    write_vendor(tmp_path / "in" / "sub-01" / "raw", "siemens", [thighs()])
    write_label_map(tmp_path / "in" / "sub-01" / "x_dseg.nii.gz", thighs().labels)
    out = tmp_path / "out"
    code = cli.main([str(tmp_path / "in"), str(out), "participant", "--engine", "given"])
    assert code == 0
    assert cli.main(["inspect", str(tmp_path / "in"), "--json"]) == 0
    said = capsys.readouterr()
    written = [said.out, said.err]
    for path in out.rglob("*"):
        written.append(path.name)
        if path.name.endswith(".nii.gz"):
            written.append(str(bytes(nib.load(path).header.binaryblock)))
        elif path.suffix == ".pdf":
            # Its text is compressed in the file.
            pdf = PdfReader(path)
            text = "\n".join(page.extract_text() for page in pdf.pages)
            assert "sub-01" in text
            written += [text, str(dict(pdf.metadata or {}))]
        elif path.is_file():
            written.append(path.read_bytes().decode("latin-1"))
    for secret in SECRETS[:-1]:
        assert not [text for text in written if secret in text]
    assert list(out.rglob("*_report.pdf"))
    report = next(out.rglob("*_report.html")).read_text()
    assert f"JANE{SECRETS[-1]}" not in report
    assert "left_out" in said.out
