"""The page with both legs to turn: surfaces where the muscles are, numbers those of the JSON."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from factories import make_measures
from test_report import Page, at, evidence

from pipeline.core.grid import Grid
from pipeline.report import legs
from pipeline.report.format import Style, show
from pipeline.report.surface import render_surface, structure_surface


def enclosed_ml(corners: np.ndarray, faces: np.ndarray) -> float:
    """Signed volume inside a closed surface; positive where its triangles look outwards."""
    a, b, c = (corners[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0 / 1000.0)


def test_the_surface_of_a_ball_is_where_and_as_large_as_the_ball():
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = [7.0, -3.0, 20.0]
    grid = Grid((40, 44, 30), affine, "s")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    places = grid.index_to_world(index)
    centre = grid.index_to_world([19, 20, 14])
    ball = np.linalg.norm(places - centre, axis=-1) < 20.0
    corners, faces = structure_surface(ball, grid)
    middle = grid.index_to_world((np.array(grid.shape) - 1.0) / 2.0)
    assert (corners.max(axis=0) + corners.min(axis=0)) / 2.0 + middle == pytest.approx(
        centre, abs=1.0
    )
    # Smoothing for the eye takes a little off a convex surface.
    assert enclosed_ml(corners, faces) == pytest.approx(4.19 * 8.0, rel=0.1)


def test_a_structure_at_the_edge_of_the_scan_is_closed_and_nothing_gives_none():
    grid = Grid((20, 20, 10), np.diag([2.0, 2.0, 4.0, 1.0]), "s")
    mask = np.zeros(grid.shape, dtype=bool)
    assert structure_surface(mask, grid) is None
    mask[:10] = True
    _, faces = structure_surface(mask, grid)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}


@pytest.fixture(scope="module")
def page() -> str:
    return render_surface(make_measures(), evidence(), scale_percent=20.0)


def surfaces_of(page: str) -> dict[str, dict]:
    text = re.search(r'id="surfaces">(.*?)</script>', page, re.DOTALL)[1]
    return {surface["title"]: surface for surface in json.loads(text)}


def test_right_muscles_lie_on_the_right_and_have_their_colours(page):
    found = surfaces_of(page)
    assert set(found) == {
        f"{title}, {side}"
        for title in ("Vastus lateralis", "Adductor magnus", "Femur")
        for side in ("right", "left")
    }
    for title, surface in found.items():
        x = np.frombuffer(base64.b64decode(surface["places"]), dtype="<i2").reshape(-1, 3)[:, 0]
        assert (x.mean() > 0) == title.endswith("right"), title
    # Vastus lateralis is larger on the right: greener there, more purple on the left.
    right, left = (found[f"Vastus lateralis, {side}"]["colour"] for side in ("right", "left"))
    assert right[1] > right[0]
    assert left[1] < left[0]
    assert found["Femur, left"]["colour"] == pytest.approx(
        [int(legs.BONE[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    )


def test_every_number_is_the_one_of_the_json(page):
    document = json.loads(make_measures().model_dump_json())
    numbers = Page(page).numbers
    assert len(numbers) > 200
    for element, text in numbers:
        value = at(document, element["data-pointer"])
        assert float(element["value"]) == value
        style = Style(element["data-style"])
        assert text in (show(value, style), show(value, style, unit=True))


def test_nothing_is_fetched_and_the_bytes_repeat(page):
    assert re.search(r"(?i)https?://", page) is None
    assert page.count("<script") == 2
    assert render_surface(make_measures(), evidence(), scale_percent=20.0) == page
    evil = "</script><script>alert(1)</script>"
    spoilt = render_surface(make_measures(subject=evil), evidence(), scale_percent=20.0)
    assert spoilt.count("<script") == 2
