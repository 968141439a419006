"""The legs on the first screen: right sides, right colours, nothing unsure drawn as sure."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_measures
from matplotlib.colors import to_rgb
from test_report import evidence

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES_BY_NAME, Side
from pipeline.core.results import Verdict
from pipeline.report import legs, words

VASTUS, GRACILIS = MUSCLES_BY_NAME["vastus_lateralis"].id, 13


@pytest.fixture(scope="module")
def measures():
    return make_measures()


@pytest.fixture(scope="module")
def painted(measures):
    return legs.paints(measures, "lean_volume")


@pytest.fixture(scope="module")
def views(painted):
    return [legs.draw_view(evidence(), painted, view, scale_percent=20) for view in legs.VIEWS]


def test_from_the_front_the_right_leg_is_on_the_left_and_from_the_back_on_the_right(views):
    for view, sign in zip(views, (1, -1), strict=True):
        columns = np.indices(view.visible.shape)[1]
        right = columns[(view.visible > 0) & (view.visible < LEFT_OFFSET)].mean()
        left = columns[view.visible > LEFT_OFFSET].mean()
        assert sign * (left - right) > 0, view.view


def test_what_lies_in_front_hides_what_lies_behind():
    # A muscle in front of another over the same columns: each is seen from its own side alone.
    both = evidence(image=False, fat=False)
    data = np.zeros_like(both.labels.data)
    data[40:50, 18:24, 4:20], data[40:50, 8:14, 4:20] = 8, 20
    labels = type(both.labels)(data, both.labels.grid, both.labels.scheme)
    alone = type(both)(**{**vars(both), "labels": labels})
    front, back = (legs.draw_view(alone, {}, view, scale_percent=20) for view in legs.VIEWS)
    assert set(np.unique(front.visible)) - {0} == {8}
    assert set(np.unique(back.visible)) - {0} == {20}


def test_both_legs_are_painted_from_one_number_with_opposite_signs(measures, painted):
    for muscle in measures.measures.muscles:
        right, left = painted[muscle.id], painted[muscle.id + LEFT_OFFSET]
        index = muscle.asymmetry.index_percent
        assert right.excess_percent == index
        assert left.excess_percent == (None if index is None else -index)
        verdict = muscle.asymmetry.verdict
        assert right.judged == left.judged == (verdict is not None)
        assert right.certain == (verdict not in (None, Verdict.WITHIN_ERROR))


def test_uncertain_muscles_are_hatched_and_unjudged_ones_dotted_grey():
    states = {
        "certain": legs.Paint(15.0, certain=True, judged=True),
        "uncertain": legs.Paint(3.0, certain=False, judged=True),
        "unjudged": legs.Paint(None, certain=False, judged=False),
    }
    hatch, grey = np.array(to_rgb(legs.HATCH)), np.array(to_rgb(legs.UNJUDGED))
    for state, paint in states.items():
        view = legs.draw_view(evidence(), {VASTUS: paint}, "front", scale_percent=20)
        inside = legs._colours(view.visible, {VASTUS: paint}, 20.0)[view.visible == VASTUS]
        hatched = np.isclose(inside, hatch).all(axis=1).mean()
        unjudged = np.isclose(inside, grey).all(axis=1).mean()
        assert (hatched > 0.2) == (state == "uncertain"), state
        assert (unjudged > 0.5) == (state == "unjudged"), state


def test_colours_are_symmetric_in_meaning_and_end_at_the_scale():
    smaller, equal, larger = (np.array(to_rgb(legs.colour_of(v, 20))) for v in (-20, 0, 20))
    assert smaller[0] > smaller[1]
    assert larger[1] > larger[0]
    assert equal.min() > 0.9
    assert legs.colour_of(55.0, 20) == legs.colour_of(20.0, 20)
    lightness = [np.array(to_rgb(legs.colour_of(v, 20))).mean() for v in range(0, 21, 5)]
    assert lightness == sorted(lightness, reverse=True)


def test_pins_lie_on_the_muscle_they_number(views):
    pins = legs.place_pins(views, [("vastus_lateralis", Side.LEFT), ("popliteus", Side.RIGHT)])
    placed = [(view, pin) for view in views for pin in pins[view.view]]
    assert [pin.number for _, pin in placed] == [1]
    view, pin = placed[0]
    width, height = view.size
    row, column = int(pin.y_percent * height / 100), int(pin.x_percent * width / 100)
    assert view.visible[row, column] == VASTUS + LEFT_OFFSET


def test_muscles_that_no_view_shows_are_named(views, measures):
    shown = {m.name for m in measures.measures.muscles if m.id in (VASTUS, GRACILIS)}
    unseen = set(legs.hidden(views, measures))
    assert not shown & unseen
    assert "soleus" in unseen


def test_the_alternative_text_names_what_surely_differs_and_no_more(measures):
    text = words.legs_alternative(measures, "lean_volume", "front")
    left = text.split("smaller on the left: ")[1].split(";")[0]
    assert "vastus medialis" in left
    assert "rectus femoris" not in left
    assert "popliteus" not in text
