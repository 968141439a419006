"""The report: a pure function of the results and the saved derivatives.

What draws is imported on first use: a run that finds its results unchanged draws nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.report.evidence import RenderedReport, ReportEvidence
    from pipeline.report.failure import Failure, failure_values, render_failure
    from pipeline.report.html import render_report
    from pipeline.report.overview import OverviewTile, render_overview
    from pipeline.report.saved import load_evidence
    from pipeline.report.tables import (
        label_table,
        measures_rows,
        measures_table,
        table_line,
        table_text,
        wide_table,
    )
    from pipeline.report.writing import write_report

_HOME_OF = {
    "RenderedReport": "evidence",
    "ReportEvidence": "evidence",
    "Failure": "failure",
    "failure_values": "failure",
    "render_failure": "failure",
    "render_report": "html",
    "load_evidence": "saved",
    "label_table": "tables",
    "OverviewTile": "overview",
    "measures_rows": "tables",
    "measures_table": "tables",
    "render_overview": "overview",
    "table_line": "tables",
    "table_text": "tables",
    "wide_table": "tables",
    "write_report": "writing",
}

__all__ = [
    "Failure",
    "OverviewTile",
    "RenderedReport",
    "ReportEvidence",
    "failure_values",
    "label_table",
    "load_evidence",
    "measures_rows",
    "measures_table",
    "render_failure",
    "render_overview",
    "render_report",
    "table_line",
    "table_text",
    "wide_table",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pipeline.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.report.{_HOME_OF[name]}"), name)
