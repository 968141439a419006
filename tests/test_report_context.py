"""Context: for differences outside the healthy spread, never after a failed check."""

from __future__ import annotations

import pytest
from factories import make_measures
from test_report import CONFIG, Page

from pipeline.core.results import Finding, Measures, Severity, Verdict
from pipeline.report import render_report
from pipeline.report.context import CAUSES, PRACTICE, context_of

ERROR = Finding(code="swap", severity=Severity.ERROR, stage="load", message="Swapped.")


def judged(*outside: str, **keywords) -> Measures:
    """Results in which exactly these muscles lie outside the healthy spread."""
    made = make_measures(**keywords)

    def with_verdict(result, verdict):
        if result.asymmetry.verdict is None:
            return result
        update = {"asymmetry": result.asymmetry.model_copy(update={"verdict": verdict})}
        return result.model_copy(update=update)

    muscles = tuple(
        with_verdict(m, Verdict.OUTSIDE_HEALTHY if m.name in outside else Verdict.MEASURABLE)
        for m in made.measures.muscles
    )
    groups = tuple(with_verdict(g, Verdict.MEASURABLE) for g in made.measures.groups)
    limb = made.measures.model_copy(update={"muscles": muscles, "groups": groups})
    return made.model_copy(update={"measures": limb})


def test_it_speaks_of_the_muscles_outside_the_healthy_spread():
    page = Page(render_report(judged("vastus_medialis"), None, config=CONFIG).html)
    assert "outside the healthy spread here: Vastus medialis." in page.text
    assert "PMID 28290752" in page.text
    assert "28 prospective studies were highly inconsistent" in page.text
    assert ("a", "href", "#context") in page.attributes
    # The gluteal bridge says nothing about a vastus.
    assert "Single-leg bridge" not in page.text


def test_statements_are_chosen_by_muscle():
    said = " ".join(s.said for s in context_of(judged("gluteus_medius"), "lean_volume").practice)
    assert "single-leg bridge" in said
    said = " ".join(s.said for s in context_of(judged("soleus"), "lean_volume").practice)
    assert "hip thrusts" not in said
    assert "measure again" in said


def test_every_statement_has_its_evidence_and_limit():
    for statement in (*CAUSES, *PRACTICE):
        assert len(statement.evidence) > 20
        assert len(statement.limit) > 20


@pytest.mark.parametrize(
    "measures",
    [
        judged(),
        judged("vastus_medialis", findings=(ERROR,)),
        judged("vastus_medialis", registered=False),
    ],
    ids=["none outside", "an error", "not registered"],
)
def test_nothing_is_known_otherwise(measures):
    assert context_of(measures, "lean_volume") is None


@pytest.mark.parametrize(
    ("measures", "config"),
    [
        (judged("vastus_medialis", findings=(ERROR,)), CONFIG),
        (judged("vastus_medialis"), CONFIG.model_copy(update={"context": False})),
    ],
    ids=["nothing known", "switched off"],
)
def test_the_page_says_nothing_of_it_then(measures, config):
    page = Page(render_report(measures, None, config=config).html)
    assert "context" not in page.ids
    assert "What is known about such differences" not in page.text
    assert "deadlift" not in page.text


def test_it_is_on_by_default():
    assert CONFIG.context is True
