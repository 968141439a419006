"""The arithmetic of the tools in benchmarks/: what they call a truth must be one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from bodies import small_scan
from factories import asymmetry, make_measures
from scipy import ndimage

from benchmarks.agreement import dice, rank_correlation, surface_dice, tolerance_dice
from benchmarks.cohort_norms import compare
from benchmarks.common import Report
from benchmarks.follow_up import shaved, shrunk
from benchmarks.many_subjects import OneResult, write_varied
from benchmarks.perturb import (
    bias_field,
    coarser,
    every_second,
    infiltrated,
    out_of_view,
    rims,
    rotated,
    rotated_labels,
    shifted,
    with_one_coil,
)
from benchmarks.phantoms import SPREAD_PERCENT
from benchmarks.planted_change import slope_of
from benchmarks.segmentation_speed import network_peer, peer_patches
from benchmarks.simulator import (
    CORTEX,
    MARROW,
    SKIN,
    SUBCUTANEOUS,
    Protocol,
    mixtures,
    overlap,
    tissue_of,
    true_volumes,
)
from benchmarks.unseen_anatomy import completed
from benchmarks.warp import PlaneWarp, planted
from benchmarks.whole_flow import STAGE_LIMITS_S, line_through, page
from pipeline import OWN_SCHEME, Grid, LabelMap, Quantity, Side, Volume
from pipeline.batch.jobs import Job
from pipeline.batch.norms import write_norms
from pipeline.batch.results import read_outcome
from pipeline.config import default_config
from pipeline.core.anatomy import MUSCLES
from pipeline.flow import STAGES
from pipeline.io.derivatives import SubjectFolder, read_measures, write_json


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


def two_muscles() -> LabelMap:
    """Two touching muscles on each side, one of them with a bone-sized hole, on 1.5 mm voxels."""
    right = np.zeros((45, 50, 10), dtype=np.uint8)
    right[7:22, 8:40] = 11
    right[22:37, 8:40] = 9
    right[15:27, 18:30] = 0
    labels = np.concatenate([np.where(right > 0, right + 100, 0)[::-1], right]).astype(np.uint8)
    grid = Grid((90, 50, 10), np.diag([1.5, 1.5, 1.5, 1.0]), "scanner")
    return LabelMap(labels, grid, OWN_SCHEME)


def test_overlap_conserves_what_it_averages():
    for count, size, new in ((40, 1.5, 1.9), (33, 1.5, 6.0), (20, 1.5, 1.5)):
        weights = overlap(count, size, new)
        assert weights.sum(axis=0) * new == pytest.approx(np.full(count, size))
        assert weights[:-1].sum(axis=1) == pytest.approx(1.0)


def test_simulated_partial_volume_conserves_volume():
    tissue = tissue_of(two_muscles(), seed=3)
    flat = Protocol(
        (Quantity.WATER,), (1.9, 1.7, 5.0), fascia_mm=0.0, fat_range=(0.0, 0.0), spread=0.0
    )
    water, _, labels = mixtures(tissue, flat)
    voxel_ml = 1.9 * 1.7 * 5.0 / 1000.0
    muscle = tissue.codes.copy()
    muscle[muscle >= 200] = 0
    only = replace(tissue, codes=muscle)
    lean, _, _ = mixtures(only, flat)
    assert lean.sum() * voxel_ml == pytest.approx(sum(true_volumes(tissue).values()), rel=1e-9)
    assert water.sum() > lean.sum()
    counted = np.bincount(labels.ravel(), minlength=200) * voxel_ml
    for (name, side), volume in true_volumes(tissue).items():
        value = OWN_SCHEME.value_of(name, side)
        # Whole voxels of 16 mm^3 on a muscle three slices high: the border's share is large.
        assert counted[value] == pytest.approx(volume, rel=0.12), (name, side)


def test_simulated_body_has_bone_fat_and_skin_where_they_belong():
    tissue = tissue_of(two_muscles(), seed=3)
    level = tissue.codes[:, :, 6]
    assert level[18 + 66, 18 + 24] == MARROW
    assert CORTEX in level
    assert SUBCUTANEOUS in level
    outer = level[np.flatnonzero(level.any(axis=1))[0]]
    assert set(np.unique(outer)) <= {0, SKIN}


def test_simulated_septum_darkens_the_border_of_two_muscles():
    tissue = tissue_of(two_muscles(), seed=3)
    with_septum, without = (
        mixtures(tissue, Protocol((Quantity.WATER,), (1.5, 1.5, 1.5), fascia_mm=t))[0]
        for t in (1.0, 0.0)
    )
    border = (slice(18 + 65, 18 + 69), 18 + 12, 6)
    inside = (slice(18 + 54, 18 + 60), 18 + 12, 6)
    assert with_septum[border].min() < 0.8 * without[border].min()
    assert with_septum[inside] == pytest.approx(without[inside])


def test_missing_muscles_are_filled_in_from_the_other_side():
    labels = two_muscles()
    data = np.array(labels.data)
    data[data == 9] = 0
    filled = completed(
        LabelMap(data, labels.grid, OWN_SCHEME), frozenset({("vastus_lateralis", Side.RIGHT)})
    )
    assert np.count_nonzero(filled.data == 9) == np.count_nonzero(labels.data == 109)


def images(shape: tuple[int, int, int] = (40, 30, 5)) -> dict[Quantity, Volume]:
    data = np.zeros(shape, dtype=np.float32)
    data[8:20, 10:20] = 100.0
    smooth = ndimage.gaussian_filter(data, (2.0, 2.0, 0.0))
    return {
        Quantity.WATER: Volume(
            smooth, Grid(shape, np.diag([1.5, 1.5, 6.0, 1.0]), "scanner"), Quantity.WATER
        )
    }


def test_a_shift_of_whole_voxels_moves_the_body_by_them():
    before = images()
    after = shifted(before, (3.0, -2.0))[Quantity.WATER].data
    moved = np.roll(before[Quantity.WATER].data, (3, -2), axis=(0, 1))
    assert after == pytest.approx(moved, abs=1e-3)


def test_turned_and_turned_back():
    before = images()[Quantity.WATER]
    mask = (before.data > 50).astype(np.uint8)
    grid = before.grid
    back = rotated_labels(rotated_labels(mask, grid, 10.0, 2), grid, -10.0, 2)
    assert dice(back > 0, mask > 0) > 0.93
    turned = rotated({Quantity.WATER: before}, 10.0, 2)[Quantity.WATER].data > 50
    assert dice(turned, rotated_labels(mask, grid, 10.0, 2) > 0) > 0.93


def test_every_second_slice_keeps_its_place():
    before = images()
    odd = every_second(before, 1)[Quantity.WATER]
    assert odd.grid.shape == (40, 30, 2)
    assert odd.grid.index_to_world([0, 0, 1]) == pytest.approx(
        before[Quantity.WATER].grid.index_to_world([0, 0, 3])
    )


def test_bias_field_reaches_what_it_says_and_differs_between_sides():
    field = bias_field(images()[Quantity.WATER].grid, 0.4)
    assert field.max() == pytest.approx(1.4, abs=1e-6)
    assert field.min() == pytest.approx(0.6, abs=1e-6)
    assert abs(field[:20].mean() - field[20:].mean()) > 0.1


def test_coarser_keeps_the_signal():
    before = images()[Quantity.WATER]
    after = coarser({Quantity.WATER: before}, (2.2, 2.2, 5.0))[Quantity.WATER]
    total = after.data.sum() * after.grid.voxel_volume_ml
    assert total == pytest.approx(before.data.sum() * before.grid.voxel_volume_ml, rel=0.02)


@pytest.mark.parametrize("patches", [0.0, 0.2])
def test_infiltrated_muscle_has_the_share_of_fat_it_was_given_and_nothing_else_changes(patches):
    water = images()[Quantity.WATER]
    muscle = water.data > 95
    fat = Volume(100.0 - water.data, water.grid, Quantity.FAT)
    sick = infiltrated(
        {Quantity.WATER: water, Quantity.FAT: fat}, muscle, 0.5, patches, np.random.default_rng(1)
    )
    lost = 1.0 - sick[Quantity.WATER].data[muscle] / water.data[muscle]
    inner = lost[ndimage.binary_erosion(muscle)[muscle]]
    assert lost.mean() == pytest.approx(0.5, abs=0.1)
    assert inner.std() > 0.05 if patches else inner.max() < 0.51
    away = ~ndimage.maximum_filter(muscle, (7, 7, 1))
    for quantity, before in ((Quantity.WATER, water), (Quantity.FAT, fat)):
        assert np.array_equal(sick[quantity].data[away], before.data[away])
    total = sum(image.data for image in sick.values())[muscle]
    assert total == pytest.approx(np.full(total.shape, 100.0), rel=0.1)


def test_a_rim_is_what_lies_near_the_border_of_each_label_in_the_plane():
    labels = np.zeros((20, 12, 3), dtype=np.uint8)
    labels[2:10, 2:10], labels[10:18, 2:10] = 3, 5
    rim = rims(labels, 3.0, (1.5, 3.0, 50.0))
    kept = labels * ~rim
    assert np.array_equal(np.unique(kept), [0, 3, 5])
    for value, first in ((3, 2), (5, 10)):
        expected = np.zeros(labels.shape, dtype=np.bool_)
        expected[first + 2 : first + 6, 3:9] = True
        assert np.array_equal(kept == value, expected)
    assert not rim[labels == 0].any()


@pytest.mark.parametrize(("axis", "last"), [(0, 39), (1, 29)])
def test_a_coil_on_one_side_lets_the_signal_fall_by_its_ratio(axis, last):
    water = images()[Quantity.WATER].with_data(np.full((40, 30, 5), 7.0, dtype=np.float32))
    muscle = np.ones(water.grid.shape, dtype=np.bool_)
    shaded = with_one_coil({Quantity.WATER: water}, muscle, axis, 5.0)[Quantity.WATER].data
    strong, weak = (np.take(shaded, place, axis=axis) for place in (last, 0))
    assert strong == pytest.approx(np.full_like(strong, 7.0), rel=1e-5)
    assert weak == pytest.approx(np.full_like(weak, 1.4), rel=1e-5)


@pytest.mark.parametrize(
    ("axis", "shares", "seen"),
    [(0, (0.2, 0.2), (slice(12, 29), slice(None))), (1, (0.2, 0.0), (slice(None), slice(9, None)))],
)
def test_out_of_view_is_what_the_named_shares_of_the_muscles_reach(axis, shares, seen):
    water = images()[Quantity.WATER].with_data(np.ones((40, 30, 5), dtype=np.float32))
    muscle = np.zeros(water.grid.shape, dtype=np.bool_)
    muscle[7:34, 5:26] = True
    cut, shown = out_of_view({Quantity.WATER: water}, muscle, axis, shares)
    expected = np.zeros(muscle.shape, dtype=np.bool_)
    expected[seen] = True
    assert np.array_equal(shown, expected)
    assert np.array_equal(cut[Quantity.WATER].data > 0, expected)


def test_slope_of_planted_against_measured():
    goal = np.array([-5.0, 5.0, 10.0])
    assert slope_of(goal, 0.9 * goal) == pytest.approx(0.9)


def test_report_writes_tables_and_criteria(tmp_path):
    report = Report()
    report.add("rows", muscle="soleus", dice=0.5)
    report.at_least("mean Dice", 0.5, 0.85)
    report.at_most("nothing measured", None, 1.0)
    report.write(tmp_path, "tool")
    written = json.loads((tmp_path / "tool.json").read_text())
    assert [row["met"] for row in written["criteria"]] == [False, None]
    assert (tmp_path / "tool_rows.tsv").read_text().splitlines() == ["muscle\tdice", "soleus\t0.5"]
    assert "NO" in report.text()


def test_a_line_through_costs_says_how_straight_they_are():
    slope, start, explained = line_through([1.0, 2.0, 4.0], [5.0, 7.0, 11.0])
    assert (slope, start, explained) == pytest.approx((2.0, 3.0, 1.0))
    assert line_through([1.0, 2.0, 4.0], [5.0, 11.0, 7.0])[2] < 0.5


def test_the_benchmark_holds_every_stage_of_the_flow():
    assert sorted(name for names, _ in STAGE_LIMITS_S for name in names) == sorted(STAGES)


def test_the_page_of_the_benchmark_puts_ratios_first():
    report = Report()
    report.at_most("whole legs, s", 45.0, 90.0)
    report.at_most("again, s", 3.0, 2.0)
    report.at_most("folded voxels", 0.0, 0.0)
    report.report("threads", 2)
    report.notes.append("registration peers: skipped: no interpreter")
    for table in ("stages", "floor", "extent", "voxels", "subjects"):
        report.add(table, what=table, seconds=1.5)
    report.add("peers", tool="this one", wall_s=2.0)
    report.add("peers", tool="another", wall_s=8.0, settings="its defaults")
    text = page(report)
    assert "| whole legs, s | 0.5 | 45 | <= 90 | yes |" in text
    assert "| again, s | 1.5 | 3 | <= 2 | **no** |" in text
    assert "| folded voxels |  | 0 | <= 0 | yes |" in text
    assert "- threads: 2" in text
    assert text.index("found / limit") < text.index("| another |") < text.index("| stages |")
    assert "| this one | 2 |  |" in text
    assert "- registration peers: skipped: no interpreter" in text
    assert "TotalSegmentator" not in text


def test_patches_of_a_sliding_window():
    # 384 x 312 x 1080 mm are 256 x 208 x 720 voxels of 1.5 mm: patches of 128 begin every 64 at
    # most, at 0, 64, 128 along the first axis.
    assert peer_patches((320, 260, 360), (1.2, 1.2, 3.0), 0.5) == 3 * 3 * 11
    # Steps of 102.4: three along the first axis, since two patches would be 128 apart.
    assert peer_patches((320, 260, 360), (1.2, 1.2, 3.0), 0.8) == 3 * 2 * 7
    assert peer_patches((50, 50, 50), (1.5, 1.5, 1.5), 0.5) == 1


def test_peers_that_are_not_there_leave_a_note(tmp_path):
    report = Report()
    network_peer(report, None, 20.0, 2)
    broken = tmp_path / "python"
    broken.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    network_peer(report, broken, 20.0, 2)
    assert not report.tables
    assert report.notes == [
        "segmentation peers: skipped: no interpreter with torch was named",
        "segmentation peers: skipped: ModuleNotFoundError: No module named 'torch'",
    ]


def test_networks_of_a_peer_are_counted_from_one_patch(tmp_path):
    report = Report()
    peer = tmp_path / "python"
    row = {"patch_s": 2.0, "million_parameters": 31.2, "settings": "torch"}
    peer.write_text(f"#!/bin/sh\necho '{json.dumps(row)}'\n")
    peer.chmod(0o755)
    network_peer(report, peer, 22.0, 2)
    found = {
        row["task"]: (row["seconds"], row["times_ours"])
        for row in report.tables["segmentation_peers"]
    }
    assert found["TotalSegmentator thigh_shoulder_muscles_mr"] == (198.0, 9.0)
    assert found["TotalSegmentator total_mr"] == (396.0, 18.0)


@pytest.mark.parametrize(("spread", "met"), [(SPREAD_PERCENT, True), (1.4 * SPREAD_PERCENT, False)])
def test_a_cohort_of_another_spread_does_not_pass_for_the_planted_one(tmp_path, spread, met):
    planted = spread * np.random.default_rng(11).standard_normal((20, len(MUSCLES)))
    subjects = [f"sub-{k:02d}" for k in range(len(planted))]
    for subject, row in zip(subjects, planted, strict=True):
        values = make_measures(subject=subject).model_dump(mode="json")
        by_name = {result["name"]: result for result in values["measures"]["muscles"]}
        for muscle, percent in zip(MUSCLES, row, strict=True):
            found = asymmetry(200.0 + percent, 200.0 - percent, of="total_volume")
            by_name[muscle.name]["asymmetry_total_volume"] = found.model_dump(mode="json")
        write_json(SubjectFolder(tmp_path, subject, None).measures, values)
    write_norms(tmp_path, tmp_path, [Job(s, None) for s in subjects], config=default_config().group)
    report = Report()
    compare(report, tmp_path, subjects, planted)
    assert [row["people"] for row in report.tables["muscles"]] == [20] * len(MUSCLES)
    held = {row["what"]: row["met"] for row in report.criteria if row["met"] is not None}
    assert held["muscles with a limit of their own"]
    assert held["pooled measured spread over planted"] is met


def test_varied_results_are_valid_results_of_other_people(tmp_path):
    one = OneResult(make_measures().model_dump(mode="json"), b"{}")
    outcomes = []
    for k in range(2):
        folder = SubjectFolder(tmp_path, f"sub-{k}", None)
        write_varied(folder, one, np.random.default_rng(k))
        outcomes.append(read_outcome(folder, rows=False))
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert read_measures(SubjectFolder(tmp_path, "sub-1", None).measures).subject == "sub-1"
    assert outcomes[0].values.keys() == outcomes[1].values.keys()
    assert outcomes[0].values != outcomes[1].values


@pytest.mark.parametrize("side", Side)
def test_a_planted_loss_takes_the_stated_share_of_one_muscle(side):
    scan, name, share = small_scan(), "soleus", 0.06
    value = OWN_SCHEME.value_of(name, side)
    lean = scan.images[Quantity.WATER].data / sum(v.data for v in scan.images.values())

    in_labels = shaved(scan, name, side, share)
    gone = in_labels.labels.data != scan.labels.data
    before = scan.labels.data == value
    assert not (gone & ~before).any()
    assert lean[gone].sum() / lean[before].sum() == pytest.approx(share, abs=0.005)
    assert in_labels.images is scan.images

    in_images = shrunk(scan, name, side, share)
    assert in_images.labels is scan.labels
    water, new = (s.images[Quantity.WATER].data for s in (scan, in_images))
    # Other tissue moves but keeps its area: what is missing from the image is the muscle's loss.
    assert (water.sum() - new.sum()) / water[before].sum() == pytest.approx(share, abs=0.02)
