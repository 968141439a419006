"""A run that fails leaves a page that says where, why and what to do, and no results."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from test_report import Page

from pipeline.core.errors import InputError
from pipeline.core.results import Finding, Severity
from pipeline.flow import STAGES, process_subject
from pipeline.report import Failure, render_failure

ERROR = InputError(
    "The water image is empty", expected="an image", found="0 bytes", action="copy the file again"
)


def failure(error: Exception, **changes) -> Failure:
    values = {
        "subject": "sub-02",
        "session": None,
        "stage": "separate",
        "stages": STAGES,
        "error": error,
        "findings": (),
    }
    return Failure(**{**values, **changes})


def test_the_page_says_the_stage_the_reason_and_the_remedy():
    noticed = Finding(code="x", severity=Severity.WARNING, stage="load", message="Odd header.")
    text = Page(render_failure(failure(ERROR, findings=(noticed,)))).text
    for part in ("Not measured", "stage “separate” (3 of 7)", ERROR.problem, ERROR.expected):
        assert part in text
    assert "0 bytes" in text
    assert "Copy the file again." in text
    assert "Odd header." in text
    assert "canonicalise: done" in text
    assert "segment: not reached" in text
    assert "fault of the program" not in text


def test_a_bug_is_called_one():
    text = Page(render_failure(failure(ZeroDivisionError("division by zero")))).text
    assert "ZeroDivisionError in an unknown place" in text
    # The words of an exception may quote names of files and values of headers.
    assert "division by zero" not in text
    assert "fault of the program" in text


def test_markup_is_escaped_and_nothing_is_fetched():
    evil = "<script>alert(1)</script>"
    text = render_failure(failure(InputError(evil, found=evil, action=evil), subject=evil))
    assert "<script" not in text
    assert text.count(html.escape(evil)) >= 4
    assert "http:" not in text


@pytest.mark.parametrize("earlier", [False, True], ids=["nothing before", "results before"])
def test_a_subject_that_cannot_be_read_gets_a_page_but_earlier_results_keep_theirs(
    tmp_path: Path, earlier
):
    folder = tmp_path / "data/sub-02"
    folder.mkdir(parents=True)
    (folder / "sub-02_water.nii.gz").write_bytes(b"")
    report = tmp_path / "out/sub-02/sub-02_report.html"
    measures = tmp_path / "out/sub-02/sub-02_measures.json"
    if earlier:
        report.parent.mkdir(parents=True)
        report.write_text("earlier report")
        measures.write_text("{}")
    with pytest.raises(InputError) as raised:
        process_subject(tmp_path / "data", tmp_path / "out", "sub-02")
    if earlier:
        assert report.read_text() == "earlier report"
    else:
        assert raised.value.problem in Page(report.read_text()).text
        assert "load: failed" in Page(report.read_text()).text
        assert not measures.exists()
