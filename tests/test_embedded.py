"""The embedded engine: its weights, both sides alike, and scans that are no legs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from bodies import cropped, loaded, small_scan

from pipeline import (
    ArraySource,
    Grid,
    LoadedSubject,
    SegmentedLegs,
    Side,
    canonicalise,
    default_config,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import LEG_SCHEME, MUSCLES, OWN_SCHEME, STRUCTURE_IDS
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.scan import SCANNER_SPACE, LegPair
from pipeline.core.volume import Quantity
from pipeline.engines.embedded import EmbeddedEngine
from pipeline.engines.session import (
    WEIGHTS,
    Contract,
    OnnxNetwork,
    allocated_threads,
    read_contract,
)
from pipeline.imaging.body_size import body_size_seen

CONFIG = default_config()
IDS = (0, *range(1, 31), *range(41, 48))
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="the weights of the network are not in this tree yet"
)


class Painted:
    """Stands in for the network: a bright slice centre is vastus lateralis, a dark one femur."""

    contract = Contract("1", "painted", IDS, 1.5, 6.0, 27.0, 32)

    def predict(self, slices: np.ndarray) -> np.ndarray:
        out = np.zeros((len(slices), len(IDS), *slices.shape[2:]), dtype=np.float32)
        centre = slices[:, 2]
        muscle = (centre > 0.6).astype(np.float32)
        bone = ((centre > 0.2) & (centre < 0.45)).astype(np.float32)
        out[:, IDS.index(9)] = muscle
        out[:, IDS.index(41)] = bone
        out[:, 0] = 1.0 - muscle - bone
        return out


def two_cylinders(levels: int = 12) -> LoadedSubject:
    """Two legs of muscle around a bone, the right one wider; water only, 2 x 2 x 6 mm."""
    x, y, _ = np.ogrid[:120, :70, :levels]
    image = np.zeros((120, 70, levels), dtype=np.float32)
    for centre, radius in ((90, 22), (30, 20)):
        away = np.hypot(x - centre, y - 34)
        image += np.where(away < radius, 100.0, 0.0) - np.where(away < 7, 65.0, 0.0)
    grid = Grid(image.shape, np.diag([2.0, 2.0, 6.0, 1.0]), SCANNER_SPACE)
    return subject_of({Quantity.WATER: image}, grid)


def subject_of(images: dict[Quantity, np.ndarray], grid: Grid) -> LoadedSubject:
    sources = {q: ArraySource(np.asarray(v, np.float32), grid) for q, v in images.items()}
    return LoadedSubject(subject="sub-test", session=None, images=sources)


def legs_of(subject: LoadedSubject) -> LegPair:
    scan = canonicalise(subject, config=CONFIG.canonicalise).value
    return separate_legs(scan, config=CONFIG.separate).value


def mirrored(subject: LoadedSubject) -> LoadedSubject:
    """The body in the mirror."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    images = {}
    for quantity, source in subject.images.items():
        back = np.diag([-1.0, 1.0, 1.0, 1.0])
        back[0, 3] = source.grid.shape[0] - 1
        grid = Grid(source.grid.shape, flip @ source.grid.affine @ back, SCANNER_SPACE)
        images[quantity] = ArraySource(source.data[::-1], grid)
    return replace(subject, images=images)


def assert_swapped(one: SegmentedLegs, other: SegmentedLegs) -> None:
    for side in Side:
        np.testing.assert_array_equal(one[side].labels.data, other[side.other].labels.data)
        assert dict(one[side].confidence) == dict(other[side.other].confidence)


def test_cylinders_are_found_where_they_are_and_the_mirror_swaps_them():
    engine = EmbeddedEngine(CONFIG.segment.embedded, Painted())
    subject = two_cylinders()
    found = segment(legs_of(subject), config=CONFIG.segment, engine=engine).value
    for side, radius in ((Side.RIGHT, 22), (Side.LEFT, 20)):
        labels = found[side].labels.data
        counts = np.bincount(labels.ravel(), minlength=50) * found[side].leg.grid.voxel_volume_ml
        assert counts[9] == pytest.approx(np.pi * (radius**2 - 49) * 4 * 72 / 1000, rel=0.05)
        assert counts[41] == pytest.approx(np.pi * 49 * 4 * 72 / 1000, rel=0.15)
        assert found[side].confidence["vastus_lateralis"].agreement > 0.9
        assert found[side].labelled.all()
        assert not labels[~found[side].leg.tissue].any()
    again = segment(legs_of(mirrored(subject)), config=CONFIG.segment, engine=engine).value
    assert_swapped(found, again)


def test_a_structure_between_the_levels_looked_at_again_has_a_confidence_too():
    """Without one its error would count as none."""
    subject = two_cylinders()
    water = subject.images[Quantity.WATER]
    image = water.data.copy()
    image[..., 2:][(image[..., 2:] > 20) & (image[..., 2:] < 50)] = 100.0
    low = subject_of({Quantity.WATER: image}, water.grid)
    few = CONFIG.segment.embedded.model_copy(update={"confidence_every_mm": 1000.0})
    legs = legs_of(low)
    for leg in (legs.right, legs.left):
        found = EmbeddedEngine(few, Painted()).segment_leg(leg)
        levels = np.flatnonzero(found.memberships[41].values.any(axis=(0, 1)))
        assert levels.max() < 5  # of 12: the middle one is looked at
        assert set(found.confidence) == {"vastus_lateralis", "femur"}


class PaintedChild(Painted):
    """Sure which muscle it sees only in a leg that fills 2,500 of its pixels."""

    def predict(self, slices: np.ndarray) -> np.ndarray:
        out = super().predict(slices)
        small = (slices[:, 2] > 0.2).sum(axis=(1, 2)) < 2500
        doubt = np.where(small, np.float32(0.4), np.float32(0.05))[:, None, None]
        out[:, IDS.index(10)] = doubt * out[:, IDS.index(9)]
        out[:, IDS.index(9)] *= 1.0 - doubt
        return out


def test_both_legs_are_read_at_one_size_at_which_they_are_known_best():
    """At its own size the right leg has 2,700 pixels, the left one 2,230; at 0.77 both more."""
    engine = EmbeddedEngine(CONFIG.segment.embedded, PaintedChild())
    legs = legs_of(two_cylinders())
    result = segment(legs, config=CONFIG.segment, engine=engine)
    found, (said,) = result.value, [f for f in result.findings if f.code == "unusual_size"]
    assert (engine.body_size(legs), said.value) == (0.77, 0.77)
    for side, radius in ((Side.RIGHT, 22), (Side.LEFT, 20)):
        muscle_ml = (found[side].labels.data == 9).sum() * found[side].leg.grid.voxel_volume_ml
        assert muscle_ml == pytest.approx(np.pi * (radius**2 - 49) * 4 * 72 / 1000, rel=0.05)
    again = segment(legs_of(mirrored(two_cylinders())), config=CONFIG.segment, engine=engine).value
    assert_swapped(found, again)


@pytest.mark.parametrize(
    ("known_best", "size"), [(1.0, 1.0), (0.95, 1.0), (0.75, 0.77), (0.55, 0.6), (1.35, 1.3)]
)
def test_body_size_is_that_of_the_surest_answer(known_best, size):
    sizes = (0.6, 0.77, 1.3)
    assert body_size_seen(lambda s: 1.0 - abs(np.log(s / known_best)), sizes, 0.01) == size


def test_what_chance_gains_does_not_change_the_size():
    surest = {1.0: 0.900, 0.77: 0.905, 1.3: 0.909}
    assert body_size_seen(surest.__getitem__, (0.77, 1.3), 0.01) == 1.0
    assert body_size_seen(surest.__getitem__, (0.77, 1.3), 0.008) == 1.3


class PaintedCalf(Painted):
    """What is bright is soleus; air may look like gluteus maximus, as noise may like anything."""

    def __init__(self, *, misled: bool) -> None:
        self._misled = misled

    def predict(self, slices: np.ndarray) -> np.ndarray:
        out = super().predict(slices)
        out[:, IDS.index(26)] = out[:, IDS.index(9)]
        out[:, IDS.index(9)] = 0.0
        if self._misled:
            air = slices[:, 2] < 0.05
            out[:, IDS.index(1)][air] = 1.0
            out[:, 0][air] = 0.0
        return out


def test_what_the_air_looks_like_changes_nothing():
    plain, misled = (
        segment(
            legs_of(two_cylinders(60)),
            config=CONFIG.segment,
            engine=EmbeddedEngine(CONFIG.segment.embedded, PaintedCalf(misled=wrong)),
        ).value
        for wrong in (False, True)
    )
    for side in Side:
        labels = [legs[side].labels.data for legs in (plain, misled)]
        assert (labels[0] == 26).any(axis=(0, 1)).all()
        for value in (26, 41):
            assert (labels[1] == value).sum() == pytest.approx((labels[0] == value).sum(), rel=0.02)


class PaintedDark(Painted):
    """The same, but a bone without any signal is seen for what it is."""

    def predict(self, slices: np.ndarray) -> np.ndarray:
        out = super().predict(slices)
        rows, columns = (np.arange(n) - (n - 1) / 2.0 for n in slices.shape[2:])
        dark = (slices[:, 2] < 0.2) & (np.hypot(*np.ix_(rows, columns)) * 1.5 < 20.0)
        out[:, IDS.index(41)][dark] = 1.0
        out[:, 0][dark] = 0.0
        return out


def test_bone_that_is_as_dark_as_air_is_found():
    subject = two_cylinders()
    image = subject.images[Quantity.WATER]
    shades = np.random.default_rng(2).uniform(0.95, 1.05, image.data.shape)
    dark = np.where(image.data < 60.0, 0.0, image.data * shades)
    legs = legs_of(subject_of({Quantity.WATER: dark}, image.grid))
    engine = EmbeddedEngine(CONFIG.segment.embedded, PaintedDark())
    found = segment(legs, config=CONFIG.segment, engine=engine).value
    for side in Side:
        bone = found[side].labels.data == 41
        assert found[side].leg.tissue[bone].mean() < 0.2
        bone_ml = bone.sum() * found[side].leg.grid.voxel_volume_ml
        assert bone_ml == pytest.approx(np.pi * 49 * 4 * 72 / 1000, rel=0.15)


def test_an_engine_that_does_not_say_how_sure_it_is_is_told_so():
    class Silent(EmbeddedEngine):
        def segment_leg(self, leg, body_size=1.0):
            return replace(super().segment_leg(leg, body_size), confidence={})

    engine = Silent(CONFIG.segment.embedded, Painted())
    with pytest.raises(SubjectUnusableError, match="no word of the engine how sure it is"):
        segment(legs_of(two_cylinders()), config=CONFIG.segment, engine=engine)


def test_labels_given_by_a_person_are_not_checked():
    """A label map that is no leg at all passes: it is its author's."""
    config = CONFIG.segment.model_copy(update={"engine": "given"})
    subject = two_cylinders()
    grid = subject.images[Quantity.WATER].grid
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[10:20], labels[100:110] = 103, 3
    scan = canonicalise(subject, config=CONFIG.canonicalise).value
    given = replace(
        scan, labels=type(small_scan().labels)(labels, grid, small_scan().labels.scheme)
    )
    legs = separate_legs(given, config=CONFIG.separate).value
    result = segment(legs, config=config)
    assert result.value.right.labels.values() == [3]
    assert result.findings == ()


def test_an_image_that_cannot_be_read_is_refused():
    subject = two_cylinders()
    image = subject.images[Quantity.WATER]
    fractions = replace(
        subject, images={Quantity.FAT_FRACTION: ArraySource(image.data / 100.0, image.grid)}
    )
    engine = EmbeddedEngine(CONFIG.segment.embedded, Painted())
    with pytest.raises(SubjectUnusableError, match="no image it can find muscles in"):
        segment(legs_of(fractions), config=CONFIG.segment, engine=engine)


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "7"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
    ],
)
def test_threads_come_from_the_allocation(variables, threads):
    assert allocated_threads(variables) == threads


@pytest.mark.parametrize("variables", [{}, {"OMP_NUM_THREADS": "many"}, {"OMP_NUM_THREADS": "0"}])
def test_without_an_allocation_all_processors_are_used(variables):
    assert allocated_threads(variables) >= 1


def contract_text(**changes: object) -> str:
    values = {
        "version": "7",
        "sha256": "0" * 64,
        "class_ids": IDS,
        "pixel_mm": 1.5,
        "near_mm": 6.0,
        "far_mm": 27.0,
        "size_multiple": 32,
    }
    return json.dumps(values | changes)


def test_other_weights_than_the_contract_speaks_of_are_refused(tmp_path):
    weights = tmp_path / "legs.onnx"
    weights.write_bytes(b"not the weights")
    weights.with_suffix(".json").write_text(contract_text())
    network = OnnxNetwork(weights, read_contract(weights), 1)
    with pytest.raises(InputError, match=r"sha256 0000.*install the package again"):
        network.predict(np.zeros((1, 10, 32, 32), dtype=np.float32))


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"not installed.*legs\.onnx and legs\.json"):
        read_contract(tmp_path / "legs.onnx")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be understood"),
        (contract_text(pixel_mm="wide"), "cannot be understood"),
        (contract_text(class_ids=[0, 1, 99]), "outside the vocabulary"),
        (contract_text(class_ids=[1, 2]), "outside the vocabulary"),
    ],
)
def test_a_broken_contract_is_refused(tmp_path, text, words):
    weights = tmp_path / "legs.onnx"
    weights.write_bytes(b"")
    weights.with_suffix(".json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_contract(weights)


@lru_cache(maxsize=1)
def thighs() -> LoadedSubject:
    """Mid-thighs of the test person on a coarse grid, water and fat."""
    levels = small_scan().labels.grid.shape[2]
    return loaded(cropped(small_scan(), levels * 11 // 20, levels * 23 // 40), labels=False)


@needs_weights
def test_the_network_finds_the_same_in_the_mirror():
    one = segment(legs_of(thighs()), config=CONFIG.segment).value
    other = segment(legs_of(mirrored(thighs())), config=CONFIG.segment).value
    assert_swapped(one, other)
    assert one.engine.digest == read_contract(WEIGHTS).digest
    thigh = {m.id for m in MUSCLES if m.region == "thigh"}
    for side in Side:
        muscles = {v for v in one[side].labels.values() if v <= 30}
        assert STRUCTURE_IDS["vastus_lateralis"] in muscles
        assert len(muscles - thigh) <= 2


@needs_weights
def test_the_number_of_threads_changes_nothing():
    leg = legs_of(thighs()).right
    contract = read_contract(WEIGHTS)
    settings = CONFIG.segment.embedded.model_copy(update={"perturbations": 1})
    found = [
        EmbeddedEngine(settings, OnnxNetwork(WEIGHTS, contract, threads)).segment_leg(leg)
        for threads in (1, 3)
    ]
    assert found[0].memberships.keys() == found[1].memberships.keys()
    for value, membership in found[0].memberships.items():
        other = found[1].memberships[value]
        assert membership.lower == other.lower
        np.testing.assert_allclose(membership.values, other.values, atol=1.01 / 255)
    one, other = (found[k].confidence for k in (0, 1))
    assert one.keys() == other.keys()
    for name, confidence in one.items():
        assert confidence.agreement == pytest.approx(other[name].agreement, abs=1e-4)
        assert confidence.volume_ratios == pytest.approx(other[name].volume_ratios, abs=1e-4)


def ellipsoid(shape, centre, radii) -> np.ndarray:
    index = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    return sum(((i - c) / r) ** 2 for i, c, r in zip(index, centre, radii, strict=True)) < 1.0


SHAPE = (100, 70, 10)


def empty_room() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return tuple(np.hypot(*rng.normal(0, 3, (2, *SHAPE))) for _ in range(2))


def bottles() -> tuple[np.ndarray, np.ndarray]:
    """Two bottles of water side by side."""
    water, fat = empty_room()
    for centre in (25, 75):
        water = water + 100.0 * ellipsoid(SHAPE, (centre, 35, 7), (18, 18, 1e3))
    return water, fat


def head() -> tuple[np.ndarray, np.ndarray]:
    """Scalp, dark skull, brain with dark ventricles; 3 mm pixels."""
    water, fat = empty_room()
    middle = (49.5, 35, 4)
    scalp, skull, brain = (
        ellipsoid(SHAPE, middle, r) for r in ((27, 33, 16), (25, 31, 15), (23, 29, 14))
    )
    fat = fat + 80.0 * (scalp & ~skull)
    water = water + 90.0 * brain
    for side in (-6, 6):
        water = water - 60.0 * ellipsoid(SHAPE, (49.5 + side, 35, 5), (3, 9, 5))
    return np.abs(water), fat


def abdomen() -> tuple[np.ndarray, np.ndarray]:
    """Fat, wall of muscle, organs, spine."""
    water, fat = empty_room()
    body_outline, wall, inside = (
        ellipsoid(SHAPE, (49.5, 35, 7), (rx, ry, 1e3)) for rx, ry in ((46, 31), (40, 26), (36, 22))
    )
    spine = ellipsoid(SHAPE, (49.5, 24, 7), (8, 7, 1e3))
    fat = fat + 100.0 * (body_outline & ~wall) + 70.0 * (inside & ~spine) + 50.0 * spine
    water = water + 90.0 * (wall & ~inside) + 30.0 * spine
    for centre, radii in (
        ((70, 38, 9), (13, 12, 6)),
        ((32, 40, 5), (9, 9, 6)),
        ((62, 27, 6), (5, 6, 5)),
    ):
        organ = ellipsoid(SHAPE, centre, radii)
        water, fat = np.where(organ, 85.0, water), np.where(organ, 8.0, fat)
    return water, fat


def tubes() -> tuple[np.ndarray, np.ndarray]:
    """Two tubes of muscle in fat, each with a core of fat: nearly legs."""
    water, fat = empty_room()
    for centre, core in ((25, 29), (75, 71)):
        outer, inner, marrow = (
            ellipsoid(SHAPE, (x, 35, 7), (r, r, 1e3))
            for x, r in ((centre, 22), (centre, 18), (core, 5))
        )
        fat = fat + 100.0 * (outer & ~inner) + 100.0 * marrow
        water = water + 90.0 * (inner & ~marrow)
    return water, fat


@needs_weights
@pytest.mark.parametrize(
    "scene", [empty_room, bottles, head, abdomen, pytest.param(tubes, marks=pytest.mark.slow)]
)
def test_what_is_no_leg_is_refused(scene):
    water, fat = scene()
    grid = Grid(SHAPE, np.diag([3.0, 3.0, 8.0, 1.0]), SCANNER_SPACE)
    subject = subject_of({Quantity.WATER: water, Quantity.FAT: fat}, grid)
    with pytest.raises(SubjectUnusableError):
        segment(legs_of(subject), config=CONFIG.segment)


@needs_weights
def test_a_slab_at_the_knee_invents_no_other_muscle():
    """30 mm: what the labels name is at the knee, and the true labels name it too."""
    scan = small_scan()
    femur = np.argwhere(scan.labels.data == STRUCTURE_IDS["femur"])[:, 2].min()
    slab = cropped(scan, femur, femur + 4)
    found = segment(legs_of(loaded(slab, labels=False)), config=CONFIG.segment).value
    for side in Side:
        true = {
            name for name, of in map(OWN_SCHEME.structures.get, slab.labels.values()) if of is side
        }
        named = {LEG_SCHEME.structures[v][0] for v in found[side].labels.values()}
        assert {"femur", "gastrocnemius_medialis", "gastrocnemius_lateralis"} <= named <= true
