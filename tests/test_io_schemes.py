"""Label schemes: ready ones are complete and consistent; bad mapping files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.anatomy import OWN_SCHEME, STRUCTURE_IDS, Side
from pipeline.core.errors import ConfigError, InputError
from pipeline.io.schemes import load_label_scheme, scheme_names, settle_version

READY = {
    "myosymmetry",
    "totalsegmentator_total_mr",
    "totalsegmentator_thigh_shoulder_muscles_mr",
    "musclemap",
}


def test_the_promised_schemes_are_there() -> None:
    assert set(scheme_names()) >= READY
    assert load_label_scheme("myosymmetry") is OWN_SCHEME


@pytest.mark.parametrize("name", scheme_names())
def test_every_ready_scheme_names_both_sides(name: str) -> None:
    scheme = load_label_scheme(name)
    assert scheme.name == name
    sided = {key for key in scheme.structures.values() if key[1] is not None}
    assert {n for n, side in sided if side is Side.LEFT} == {
        n for n, side in sided if side is Side.RIGHT
    }
    assert {n for n, _ in scheme.structures.values()} <= STRUCTURE_IDS.keys()


@pytest.mark.parametrize(
    ("scheme", "value", "structure"),
    [
        ("totalsegmentator_total_mr", 40, ("gluteus_maximus", Side.LEFT)),
        ("totalsegmentator_total_mr", 37, ("femur", Side.RIGHT)),
        ("totalsegmentator_total_mr_2_4", 40, ("gluteus_medius", Side.LEFT)),
        ("totalsegmentator_total_mr_2_4", 33, ("tibia", None)),
        ("totalsegmentator_thigh_shoulder_muscles_mr", 7, ("sartorius", Side.LEFT)),
        ("musclemap_1_3", 8161, ("fibula", Side.LEFT)),
        ("musclemap_1_4", 8161, ("tibia", Side.LEFT)),
        ("musclemap_1_4", 7102, ("vastus_lateralis", Side.RIGHT)),
    ],
)
def test_published_values(scheme: str, value: int, structure: tuple[str, Side | None]) -> None:
    assert load_label_scheme(scheme).structures[value] == structure


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("totalsegmentator_total_mr", 50),
        ("totalsegmentator_total_mr_2_4", 56),
        ("totalsegmentator_thigh_shoulder_muscles_mr", 18),
    ],
)
def test_every_class_of_a_tool_is_mapped_or_ignored(name: str, count: int) -> None:
    scheme = load_label_scheme(name)
    assert scheme.structures.keys() | scheme.ignored == set(range(1, count + 1))


def test_the_values_tell_the_version_or_the_map_is_refused() -> None:
    scheme = load_label_scheme("musclemap")
    assert settle_version(scheme, [7101, 7102]).structures[7101][0] == "vastus_lateralis"
    assert settle_version(scheme, [8161, 8171]).name == "musclemap_1_4"
    with pytest.raises(InputError, match="musclemap_1_3"):
        settle_version(scheme, [7101, 8151, 8161])
    explicit = load_label_scheme("musclemap_1_3")
    assert settle_version(explicit, [8151, 8161]) is explicit


def test_a_mapping_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("labels: {3: [soleus, left], 4: [soleus, null]}\nignored: [7-9, 12]\n")
    scheme = load_label_scheme(str(path))
    assert scheme.structures == {3: ("soleus", Side.LEFT), 4: ("soleus", None)}
    assert scheme.ignored == {7, 8, 9, 12}
    # Not after the file, which may be named after a person.
    assert scheme.name == "a mapping file"


@pytest.mark.parametrize(
    "text",
    [
        "labels: {3: [soleus, port]}",
        "labels: {3: [liver, left]}",
        "labels: {three: [soleus, left]}",
        "labels: {3: [soleus]}",
        "labels: {0: [soleus, left]}",
        "labels: {3: [soleus, left]}\nignored: [3]",
        "ignored: [3]",
        "[1, 2]",
        "labels: {",
        "",
    ],
)
def test_a_mapping_file_that_does_not_map(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_label_scheme(str(path))


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="totalsegmentator_total_mr"):
        load_label_scheme("totalsegmentor")
