"""The page that a failed run leaves: at which stage, why, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import MyosymmetryError
from pipeline.core.results import Finding
from pipeline.report.drawing import COLOURS, DARK_COLOURS
from pipeline.report.html import findings_by_severity, page_environment


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
    known = error if isinstance(error, MyosymmetryError) else None
    return {
        "stage": failure.stage,
        "exit_code": known.exit_code if known is not None else MyosymmetryError.exit_code,
        "problem": known.problem if known is not None else f"{type(error).__name__}: {error}",
        "expected": known.expected if known is not None else "",
        "found": known.found if known is not None else "",
        "action": known.action if known is not None else "",
    }


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
