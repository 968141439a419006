"""The page that a failed run leaves: at which stage, why, and what to do."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import NAMES_ON_TERMINAL, MyosymmetryError
from pipeline.core.results import Finding
from pipeline.report.drawing import COLOURS, DARK_COLOURS
from pipeline.report.html import findings_by_severity, page_environment

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Failure:
    """A run that could not go on.

    Attributes:
        subject, session: labels with their prefix; session None where there is none.
        stage, stages: the stage that failed, and all of them in order.
        error: what ended the run; anything but a MyosymmetryError is a bug.
        findings: what the stages before noticed.
    """

    subject: str
    session: str | None
    stage: str
    stages: tuple[str, ...]
    error: Exception
    findings: Sequence[Finding]


def failure_values(failure: Failure) -> dict[str, Any]:
    """The same for programs, as JSON values."""
    error = failure.error
    if not isinstance(error, MyosymmetryError):
        known = MyosymmetryError(
            f"{type(error).__name__} in {_where(error)}",
            expected="an error that says what is wrong with the input",
            found="a bug",
            action=NAMES_ON_TERMINAL,
        )
    else:
        known = error
    hint = f"; {NAMES_ON_TERMINAL}" if known.private else ""
    return {
        "stage": failure.stage,
        "exit_code": known.exit_code,
        "problem": known.problem,
        "expected": known.expected,
        "found": known.found,
        "action": f"{known.action}{hint}",
    }


def _where(error: Exception) -> str:
    """Where in this package a bug came up. Its own words, which may quote names of files and
    values of headers, are not kept."""
    places = traceback.extract_tb(error.__traceback__)
    own = [place for place in places if _PACKAGE in Path(place.filename).parents] or places
    if not own:
        return "an unknown place"
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno} ({own[-1].name})"


def render_failure(failure: Failure) -> str:
    """The page as HTML that needs nothing else; it never holds a result."""
    values = failure_values(failure)
    return (
        page_environment()
        .get_template("failure.html.j2")
        .render(
            failure=failure,
            position=failure.stages.index(failure.stage),
            is_bug=values["exit_code"] == MyosymmetryError.exit_code,
            findings=findings_by_severity(failure.findings),
            colours=COLOURS,
            dark_colours=DARK_COLOURS,
            **values,
        )
    )
