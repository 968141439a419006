"""Invariants of the core types and of the kernels that everything rests on, as properties."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from factories import make_measures
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import pipeline
from pipeline import AffineTransform, Grid, LabelMap, LabelScheme, Quantity, Side, Volume
from pipeline.core import errors
from pipeline.core.anatomy import GROUPS, LEG_SCHEME, MUSCLES, OWN_SCHEME
from pipeline.core.errors import InvariantError
from pipeline.core.grid import voxels_described
from pipeline.core.results import Asymmetry, Measurement, Measures, Status, Verdict, volume_field
from pipeline.core.soft import SoftLabels
from pipeline.core.transform import BlendedAffine, identity, mirror
from pipeline.flow import STAGES
from pipeline.imaging.asymmetry import (
    Estimate,
    MethodError,
    index_from_log_ratio,
    interval_percent,
    judge,
    se_from_scan_rescan,
    se_of_counting,
    se_of_method,
    se_total,
    spread_between_looks,
)
from pipeline.imaging.decision import decide, membership_of
from pipeline.imaging.extent import Extent, structure_extent
from pipeline.imaging.tissue import area_profile, core_mask, slab_weights, tissue_sums
from pipeline.imaging.unseen import enclosed_voids, near_edges

ROOT = Path(__file__).resolve().parent.parent
numbers = st.floats(-200.0, 200.0)


@st.composite
def grids(draw) -> Grid:
    """Grids of any orientation and voxel size."""
    turn, _ = np.linalg.qr(
        np.array(draw(st.lists(st.floats(-1, 1), min_size=9, max_size=9))).reshape(3, 3)
        + 3 * np.eye(3)
    )
    sizes = draw(st.tuples(*[st.floats(0.5, 10.0)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(sizes)
    affine[:3, 3] = draw(st.tuples(numbers, numbers, numbers))
    return Grid(draw(st.tuples(*[st.integers(1, 40)] * 3)), affine, "scanner")


@given(grids(), st.tuples(numbers, numbers, numbers))
def test_grid_maps_there_and_back(grid, point):
    index = grid.world_to_index(np.array(point))
    np.testing.assert_allclose(grid.index_to_world(index), point, atol=1e-6)
    assert grid.voxel_volume_mm3 == pytest.approx(math.prod(grid.voxel_sizes_mm), rel=1e-6)


@given(grids(), st.data())
def test_a_crop_keeps_its_voxels_where_they_are(grid, data):
    lower = tuple(data.draw(st.integers(0, n - 1)) for n in grid.shape)
    upper = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(lower, grid.shape, strict=True))
    part = grid.crop(lower, upper)
    np.testing.assert_allclose(
        part.index_to_world((0, 0, 0)), grid.index_to_world(lower), atol=1e-9
    )
    assert not part.renamed("other").same_as(part)


def test_the_size_of_voxels_is_read_back_from_a_description():
    grid = Grid((320, 260, 90), np.diag([1.2, 1.2, 3.0, 1.0]), "a")
    assert grid.describe() == "320 x 260 x 90 voxels of 1.2 x 1.2 x 3 mm"
    assert voxels_described(grid.describe()) == "1.2 x 1.2 x 3 mm"


@pytest.mark.parametrize(
    ("shape", "affine", "space"),
    [
        ((0, 2, 2), np.eye(4), "a"),
        ((2, 2), np.eye(4), "a"),
        ((2, 2, 2), np.diag([1.0, 1.0, 0.0, 1.0]), "a"),
        ((2, 2, 2), np.full((4, 4), np.nan), "a"),
        ((2, 2, 2), np.eye(4) * 2, "a"),
        ((2, 2, 2), np.eye(4), ""),
    ],
)
def test_impossible_grids_are_refused(shape, affine, space):
    with pytest.raises(InvariantError):
        Grid(shape, affine, space)


def test_images_and_labels_are_checked_and_read_only():
    grid = Grid((2, 3, 4), np.eye(4), "scanner")
    volume = Volume(np.zeros((2, 3, 4)), grid, Quantity.WATER)
    with pytest.raises(ValueError, match="read-only"):
        volume.data[0, 0, 0] = 1.0
    with pytest.raises(InvariantError, match="not numbers"):
        Volume(np.full((2, 3, 4), np.nan), grid, Quantity.WATER)
    with pytest.raises(InvariantError, match="does not fit"):
        Volume(np.zeros((2, 3)), grid, Quantity.WATER)
    with pytest.raises(InvariantError, match="integers"):
        LabelMap(np.zeros((2, 3, 4)), grid, OWN_SCHEME)


def test_the_vocabulary_is_one_and_consistent():
    assert [m.id for m in MUSCLES] == list(range(1, 31))
    assert len({m.name for m in MUSCLES}) == 30
    for codes in ("fma", "snomed_ct", "mdc"):
        known = [getattr(m.codes, codes) for m in MUSCLES if getattr(m.codes, codes)]
        assert len(known) == len(set(known)), codes
    for value, (name, side) in OWN_SCHEME.structures.items():
        assert LEG_SCHEME.structures[value % 100] == (name, None)
        assert side is (Side.LEFT if value > 100 else Side.RIGHT)
    assert {m for g in GROUPS if g.kind == "limb" for m in g.muscles} == {m.name for m in MUSCLES}
    # The published coefficients share out the whole limb (sums 1.0006 and -0.3).
    assert sum(m.reference_slope for m in MUSCLES) == pytest.approx(1.0, abs=0.002)
    assert sum(m.reference_intercept_ml for m in MUSCLES) == pytest.approx(0.0, abs=1.0)


def test_a_label_scheme_maps_no_zero_and_nothing_unknown():
    with pytest.raises(InvariantError, match="0 means not labelled"):
        LabelScheme("x", {0: ("soleus", Side.LEFT)})
    with pytest.raises(InvariantError, match="outside the vocabulary"):
        LabelScheme("x", {1: ("wing", None)})


@given(numbers, st.tuples(numbers, numbers, numbers))
def test_a_mirror_undoes_itself(x, point):
    there = mirror(x, "a", "b")
    assert there.determinant == pytest.approx(-1.0)
    points = np.array([point])
    np.testing.assert_allclose(mirror(x, "b", "a").apply(there.apply(points)), points, atol=1e-9)


def test_transforms_of_other_spaces_do_not_compose():
    with pytest.raises(InvariantError, match="do not fit together"):
        identity("a", "b").then(identity("c", "d"))
    both = identity("a", "b").then(mirror(0.0, "b", "c"))
    assert (both.from_space, both.to_space) == ("a", "c")
    assert isinstance(both, AffineTransform)


@given(
    st.floats(-15, 15),
    st.floats(-10, 10),
    st.floats(0.9, 1.1),
    st.tuples(*[st.floats(-30, 30)] * 3),
)
def test_a_bent_knee_is_undone_to_a_hundredth_of_a_millimetre(bend, turn, scale, shift):
    a, b = np.deg2rad([bend, turn])
    upper = np.eye(4)
    upper[:2, :2] = [[np.cos(b), -np.sin(b)], [np.sin(b), np.cos(b)]]
    upper[:3, :3] *= scale
    lower = np.eye(4)
    lower[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    upper[:3, 3] = lower[:3, 3] = shift
    transform = BlendedAffine(
        upper, lower, np.zeros(3), np.array([0.0, 0.0, -1.0]), 60.0, "left", "right"
    )
    points = np.random.default_rng(0).uniform(-90, 90, (200, 3)) * [1.0, 1.0, 4.0]
    back = transform.inverse().apply(transform.apply(points))
    assert np.abs(back - points).max() < 0.01


def test_errors_say_what_to_do_and_carry_their_exit_code():
    codes = {
        errors.UsageError: 2,
        errors.ConfigError: 2,
        errors.InputError: 3,
        errors.SubjectUnusableError: 4,
        errors.ResultsError: 5,
        errors.UnmetNeedError: 6,
        errors.InvariantError: 70,
    }
    for kind, code in codes.items():
        error = kind("It broke", expected="a", found="b", action="c")
        assert isinstance(error, errors.MyosymmetryError)
        assert error.exit_code == code
        assert str(error) == "It broke. Expected: a. Found: b. What to do: c."


def test_every_error_a_user_may_see_says_all_three():
    """What was expected, what was found and what to do, at every place that raises one."""
    seen = 0
    for path in sorted(Path(pipeline.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            kind = getattr(errors, node.func.id, None)
            if isinstance(kind, type) and kind is not errors.InvariantError:
                seen += 1
                given = {keyword.arg for keyword in node.keywords}
                assert {"expected", "found", "action"} <= given, f"{path.name}:{node.lineno}"
    assert seen > 50


def valid_measurement() -> dict:
    return make_measures().measures.muscles[8].right.model_dump()


@pytest.mark.parametrize(
    "change",
    [
        {"status": Status.TRUNCATED, "reason": "cut"},
        {"reason": "a reason although ok"},
        {"volume_in_view_ml": None},
        {"volume_in_view_ml": 0.0},
        {"volume_whole_ml": None},
        {"volume_whole_ml": -1.0},
        {"lean_reason": "missing although given"},
        {"valid_share": 1.2},
        {"volume_whole_ml": math.nan},
    ],
)
def test_a_measurement_that_contradicts_itself_is_refused(change):
    Measurement.model_validate(valid_measurement())
    with pytest.raises(ValidationError):
        Measurement.model_validate({**valid_measurement(), **change})


def test_an_asymmetry_is_given_whole_or_not_at_all():
    good = make_measures().measures.muscles[8].asymmetry.model_dump()
    Asymmetry.model_validate(good)
    for change in ({"index_percent": None}, {"verdict": None}, {"extent": None}):
        with pytest.raises(ValidationError):
            Asymmetry.model_validate({**good, **change})


@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.1))
def test_index_and_interval_are_symmetric_in_the_sides(log_ratio, se):
    right, left = math.exp(log_ratio), 1.0
    expected = 100 * (right - left) / ((right + left) / 2)
    assert index_from_log_ratio(log_ratio) == pytest.approx(expected, abs=1e-9)
    low, high = interval_percent(log_ratio, se)
    other = interval_percent(-log_ratio, se)
    assert (low, high) == pytest.approx((-other[1], -other[0]))
    assert low < index_from_log_ratio(log_ratio) < high


def test_the_band_around_no_difference_is_2_77_cv():
    for cv in (1.2, 3.0):
        assert interval_percent(0.0, se_from_scan_rescan(cv))[1] == pytest.approx(
            2.77 * cv, rel=0.01
        )


@pytest.mark.parametrize("of", ["lean_volume", "total_volume"])
@pytest.mark.parametrize("extent", ["whole", "matched", "in_view"])
def test_every_volume_has_a_field(of, extent):
    assert volume_field(of, extent) in Measurement.model_fields


@pytest.mark.parametrize(
    ("interval", "limited", "limit", "verdict"),
    [
        ((-1.0, 7.0), (-1.0, 7.0), 12.0, Verdict.WITHIN_ERROR),
        ((2.0, 9.0), None, None, Verdict.MEASURABLE),
        ((2.0, 9.0), (2.0, 9.0), 12.0, Verdict.WITHIN_HEALTHY),
        ((8.0, 14.0), (8.0, 14.0), 12.0, Verdict.WITHIN_HEALTHY),
        ((10.0, 18.0), (10.0, 18.0), 12.0, Verdict.NOT_SURELY_OUTSIDE),
        ((13.0, 21.0), (13.0, 21.0), 12.0, Verdict.OUTSIDE_HEALTHY),
        ((-21.0, -13.0), (-21.0, -13.0), 12.0, Verdict.OUTSIDE_HEALTHY),
        ((13.0, 21.0), None, 12.0, Verdict.MEASURABLE),
        # The limit is of total volume: fat in the place of muscle is another matter.
        ((60.0, 67.0), (-2.0, 6.0), 12.0, Verdict.MEASURABLE),
        # Total volume is beyond it as well, if not surely: a larger lean difference says no less.
        ((60.0, 67.0), (10.0, 18.0), 12.0, Verdict.NOT_SURELY_OUTSIDE),
        ((11.0, 15.0), (10.0, 18.0), 12.0, Verdict.NOT_SURELY_OUTSIDE),
        ((13.0, 21.0), (-21.0, -13.0), 12.0, Verdict.NOT_SURELY_OUTSIDE),
        ((2.0, 10.0), (-24.0, -15.0), 12.0, Verdict.NOT_SURELY_OUTSIDE),
    ],
)
def test_verdicts(interval, limited, limit, verdict):
    def estimate(ends):
        return None if ends is None else Estimate(sum(ends) / 2.0, *ends)

    judged = judge(estimate(interval), limited=estimate(limited), healthy_limit_percent=limit)
    assert judged is verdict
    # The same the other way round.
    ends, other = (None if pair is None else (-pair[1], -pair[0]) for pair in (interval, limited))
    assert judge(estimate(ends), limited=estimate(other), healthy_limit_percent=limit) is verdict


def test_counting_slices_has_the_error_that_shifted_slices_show():
    """A spindle of 300 mm in 20 slices, wherever they lie: never less than the true error, and
    within a few times of it; halves fall apart faster than slices do."""
    for slices in (6, 12, 20):
        found, stated = [], []
        for shift in np.linspace(0.0, 1.0, 50, endpoint=False):
            place = (np.arange(slices) + shift) / slices
            areas = np.sin(np.pi * place)
            found.append(math.log(areas.sum() / slices / (2.0 / math.pi)))
            stated.append(se_of_counting(areas.tolist()))
        true = float(np.sqrt(np.mean(np.square(found))))
        assert true < np.mean(stated)
    assert se_of_counting([5.0]) > 0.2
    assert se_of_counting([5.0, 5.0]) > se_of_counting([2.0, 5.0, 2.0])


@given(
    st.lists(st.tuples(st.floats(-300, 300), st.floats(0, 50)), min_size=1, max_size=50),
    st.floats(1, 20),
    st.floats(1, 26),
)
def test_a_profile_adds_up_to_its_volume(voxels, step, extent):
    along, amounts = np.array(voxels).T
    _, areas = area_profile(along, amounts, step_mm=step, voxel_extent_mm=extent)
    assert areas.sum() * step == pytest.approx(amounts.sum(), rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=1), st.floats(-50, 50), st.floats(1, 20))
def test_a_cut_parts_every_voxel_without_loss(along, level, extent):
    s = np.array(along)
    above = slab_weights(s, -1e6, level, extent)
    below = slab_weights(s, level, 1e6, extent)
    np.testing.assert_allclose(above + below, 1.0, atol=1e-9)


def test_missing_fractions_are_neither_lean_nor_fat():
    fractions = np.array([0.1, 0.3, np.nan, np.nan], dtype=np.float32)
    sums = tissue_sums(
        voxel_volume_ml=2.0,
        fractions=fractions,
        core=np.ones(4, dtype=bool),
        weights=None,
        fat_free_below=0.5,
        smallest_core_share=0.1,
    )
    assert sums.volume_ml == 8.0
    assert sums.valid_share == 0.5
    assert sums.fat_fraction == pytest.approx(0.2)
    assert sums.lean_ml == pytest.approx(6.4)
    none = replace(sums, fat_fraction=None)
    assert none.lean_ml is None


def test_a_core_touches_no_other_label():
    labels = np.zeros((7, 7, 5), dtype=np.uint8)
    labels[1:6, 1:6, :] = 3
    core = core_mask(labels, 1.0)
    assert core.sum() == 9 * 3
    assert not core[:, :, 0].any()


def extent_of(mask: np.ndarray, **given: object) -> Extent:
    """What is judged of a structure somewhere inside a box of 20 levels, all seen and labelled."""
    levels = given.get("box_shape", (12, 12, 20))[2]
    usual = {
        "lower_index": (4, 4, 4),
        "box_shape": (12, 12, 20),
        "seen": np.ones(levels, dtype=bool),
        "labelled": np.ones(levels, dtype=bool),
        "edges": {},
        "blunt_end_share": 2.0,
        "largest_edge_share": 0.02,
        "gap_area_share": 0.25,
    }
    return structure_extent(mask, **(usual | given))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((slice(3, 6), slice(3, 6), slice(0, 5)), "lower end of the field of view"),
        ((slice(3, 6), slice(3, 6), slice(5, 12)), "upper end of the field of view"),
        ((slice(0, 4), slice(3, 6), slice(4, 8)), "inner edge"),
        ((slice(5, 10), slice(3, 6), slice(4, 8)), "outer edge"),
        ((slice(3, 6), slice(6, 10), slice(4, 8)), "front edge"),
    ],
)
def test_a_cut_structure_says_where_it_is_cut(place, words):
    extent = extent_of(
        np.ones([s.stop - s.start for s in place], dtype=bool),
        lower_index=tuple(s.start for s in place),
        box_shape=(10, 10, 12),
        blunt_end_share=0.25,
    )
    assert words in extent.cut
    assert extent.cut_aside == ("edge" in words)


def test_a_leg_that_goes_on_beyond_its_image_is_cut_there_wherever_the_file_ends():
    """A bar of tissue, 6 mm of it beyond the outer edge of what was imaged."""
    tissue = np.zeros((20, 12, 3), dtype=bool)
    tissue[4:16, 3:9] = True
    image = np.full(tissue.shape, 0.1)
    image[tissue] = 5.0
    voxel_mm = (1.5, 1.5, 6.0)
    assert near_edges(tissue, [image], voxel_mm, reach_mm=3.0) == {}
    assert near_edges(tissue, [], voxel_mm, reach_mm=3.0) == {}
    padded, seen = image.copy(), tissue.copy()
    padded[12:], seen[12:] = 0.0, False
    edges = near_edges(seen, [padded, padded], voxel_mm, reach_mm=3.0)
    assert edges.keys() == {"outer"}
    # Two lines of the edge, and 3 mm beside them: nothing of the inner half.
    assert edges["outer"][8:14, 3:9].all()
    assert not edges["outer"][:8].any()
    # Beside blanked air padding looks like air; the end of the array is seen all the same.
    blanked = np.where(seen, padded, 0.0)
    assert near_edges(seen, [blanked], voxel_mm, reach_mm=3.0) == {}
    for image in (padded, blanked):
        cropped = near_edges(seen[:12], [image[:12]], voxel_mm, reach_mm=3.0)
        np.testing.assert_array_equal(cropped["outer"], edges["outer"][:12])


def test_a_leg_that_goes_on_beyond_a_round_field_of_view_is_cut_there():
    """A bar of tissue that reaches out of a circle to one side."""
    x, y, _ = np.indices((40, 40, 3)) - 19.5
    image = np.where(np.hypot(x, y) < 18.0, 0.1, 0.0)
    image[np.broadcast_to(np.abs(y) < 5.0, image.shape) & (x > -8.0) & (image > 0.0)] = 5.0
    tissue = image > 1.0
    edges = near_edges(tissue, [image], (1.5, 1.5, 6.0), reach_mm=3.0)
    assert "outer" in edges
    assert "inner" not in edges
    assert edges["outer"][36, 16:24].all()
    assert not edges["outer"][:30].any()


def test_a_void_is_what_a_leg_encloses_and_no_bone():
    x, y, _ = np.indices((60, 60, 2)) * 1.5
    away = np.hypot(x - 44, y - 44)
    leg = away < 40
    shaft = (away > 6) & (away < 14)
    metal = np.hypot(x - 60, y - 44) < 10
    seen = {}
    for name, dark in (("shaft", shaft), ("metal", metal)):
        signal = leg & ~dark
        seen[name] = enclosed_voids(signal, signal, (1.5, 1.5, 5.0), smallest_mm=16.0)
    assert not seen["shaft"].any()
    # Corners of voxels round off.
    assert not (seen["metal"] & ~metal).any()
    assert seen["metal"].sum() > 0.9 * metal.sum()
    # Air beside the leg is none, nor is a hole without tissue that has signal (another leg's).
    assert not enclosed_voids(leg & ~metal, leg, (1.5, 1.5, 5.0), smallest_mm=16.0).any()


@pytest.mark.parametrize(
    ("bottom", "top", "where"),
    [
        (12, 20, None),
        (12, 23, "gap"),
        (12, 24, "gap"),
        (12, 33, "gap"),
        (27, 27, "gap"),
        (30, 38, "gap"),
        (32, 38, None),
        (5, 12, "lower"),
        (38, 44, "upper"),
    ],
)
def test_a_structure_beside_levels_nobody_scanned_is_cut(bottom, top, where):
    seen = np.zeros(50, dtype=bool)
    seen[5:25] = seen[30:45] = True
    extent = extent_of(
        np.ones((2, 2, top - bottom + 1), dtype=bool),
        lower_index=(4, 4, bottom),
        box_shape=(12, 12, 50),
        seen=seen,
    )
    assert (extent.cut is not None) == (where is not None)
    assert where is None or where in extent.cut
    assert not extent.cut_aside


def test_a_large_cross_section_at_an_end_that_nothing_cuts_is_told():
    """Of a bar of 1, 2, 4 and 4 voxels a level, the upper end; it is cut where labels end too."""
    mask = np.zeros((2, 2, 4), dtype=bool)
    mask[0, 0], mask[:, 0, 1:], mask[:, :, 2:] = True, True, True
    for top, blunt, cut in ((12, {"upper": 1.0}, None), (8, {}, "labelled levels")):
        labelled = np.zeros(20, dtype=bool)
        labelled[2:top] = True
        extent = extent_of(mask, labelled=labelled, blunt_end_share=0.25)
        assert extent.blunt == blunt
        assert (extent.cut is None) == (cut is None)


def test_a_hole_in_the_labels_is_noticed():
    mask = np.ones((2, 2, 10), dtype=bool)
    mask[:, :, 4] = False
    extent = extent_of(mask)
    assert extent.cut is None
    assert extent.gap_share == pytest.approx(0.1)


def test_stray_voxels_do_not_fill_a_hole_and_a_waist_is_none():
    """One of four voxels of a level is a scrap, two are a muscle that is thinner there."""
    for there, gap in ((1, 0.075), (2, 0.0)):
        mask = np.ones((2, 2, 10), dtype=bool)
        mask[:, :, 4].flat[there:] = False
        extent = extent_of(mask)
        assert extent.gap_share == pytest.approx(gap)


def test_levels_nobody_scanned_are_no_hole_in_the_labels():
    mask = np.ones((2, 2, 10), dtype=bool)
    mask[:, :, 4:6] = False
    seen = np.ones(20, dtype=bool)
    seen[8:10] = False
    extent = extent_of(mask, seen=seen)
    assert extent.cut == "cut by a gap in what was seen"
    assert (extent.gap_share, extent.cut_aside) == (0.0, False)


def test_hard_labels_survive_the_decision_and_soft_ones_keep_their_volume():
    grid = Grid((24, 20, 30), np.diag([2.0, 2.0, 3.0, 1.0]), "leg")
    x, y, z = np.indices(grid.shape)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[(x - 11) ** 2 + (y - 9) ** 2 < 49] = 9
    labels[((x - 11) ** 2 + (y - 9) ** 2 < 16) & (z > 6) & (z < 24)] = 10
    box = (slice(0, 24), slice(0, 20), slice(0, 30))
    soft = SoftLabels(grid, {v: membership_of(labels, v, box) for v in (9, 10)}, (0, 30))
    np.testing.assert_array_equal(decide(soft, grid).data, labels)
    affine = np.diag([1.1, 1.1, 1.3, 1.0])
    affine[:3, 3] = (0.3, 0.2, 3.1)
    fine = Grid((42, 34, 60), affine, "leg")
    there = (decide(soft, fine).data == 10).sum() * fine.voxel_volume_ml
    here = (labels == 10).sum() * grid.voxel_volume_ml
    assert there == pytest.approx(here, rel=0.05)


def test_results_fit_the_committed_schema():
    committed = json.loads((ROOT / "docs/measures.schema.json").read_text())
    assert committed == Measures.model_json_schema(), "run `make schema`"
    for single_contrast in (False, True):
        document = json.loads(make_measures(single_contrast=single_contrast).model_dump_json())
        jsonschema.validate(document, committed)


def test_the_flow_of_the_readme_is_the_flow():
    flow = " -> ".join(STAGES)
    assert flow in (ROOT / "README.md").read_text(), f"the README does not show: {flow}"


def test_import_costs_nothing_and_every_public_name_is_there():
    code = (
        "import sys, pipeline; print(sorted({'numpy', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None


def test_spread_between_looks_cares_for_the_difference_of_the_sides():
    """What both do alike counts for a part only: it may be chance."""
    alone = math.sqrt((math.log(1.1) ** 2 + math.log(0.9) ** 2) / 2)
    alike = spread_between_looks((1.1, 0.9), (1.1, 0.9))
    assert alike == pytest.approx(0.3 * math.sqrt(2) * alone)
    assert spread_between_looks((1.0, 1.0), (1.0, 1.0)) == 0.0
    apart = spread_between_looks((1.1, 1.0), (1.0, 1.1))
    assert apart == pytest.approx(math.log(1.1))
    assert spread_between_looks((1.0, 1.1), (1.1, 1.0)) == pytest.approx(apart)
    # A muscle that vanishes in one look is doubtful, not infinitely so.
    assert math.log(5) < spread_between_looks((0.0,), (1.0,)) < math.log(50)


def test_error_of_the_method_grows_with_spread_and_falls_with_size():
    error = MethodError(gain=2.0, floor=0.01, of_100_ml=0.03)
    assert se_of_method(0.0, 1e9, error) == pytest.approx(0.01, rel=1e-3)
    assert se_of_method(0.0, 100.0, error) == pytest.approx(math.hypot(0.01, 0.03))
    assert se_of_method(0.1, 1e9, error) == pytest.approx(math.hypot(0.01, 0.2), rel=1e-3)
    assert se_of_method(0.02, 50.0, error) > se_of_method(0.02, 500.0, error)
    with_fat = replace(error, of_fat=0.004)
    assert se_of_method(0.0, 1e9, with_fat, -10.0) == pytest.approx(
        math.hypot(0.01, 0.04), rel=1e-3
    )
    assert se_of_method(0.0, 1e9, with_fat) == pytest.approx(0.01, rel=1e-3)


def test_repeatability_is_not_counted_twice():
    assert se_total(None, None, 0.02) == 0.02
    assert se_total(0.03, 0.0, 0.02) == pytest.approx(math.hypot(0.03, 0.02))
    # What the looks show is part of the published figure already.
    assert se_total(0.03, 0.02, 0.02) == pytest.approx(0.03)
    assert se_total(0.03, 0.05, 0.02) == pytest.approx(0.03)


def test_the_same_muscles_have_one_healthy_limit():
    by_members: dict[frozenset[str], set[float | None]] = {}
    for group in GROUPS:
        by_members.setdefault(frozenset(group.muscles), set()).add(group.healthy_limit_percent)
    assert all(len(limits) == 1 for limits in by_members.values())
    limits = {group.name: group.healthy_limit_percent for group in GROUPS}
    assert (limits["hamstrings"], limits["thigh_posterior"]) == (11.4, 11.4)
