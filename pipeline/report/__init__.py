"""The report: a pure function of the results and the saved derivatives."""

from pipeline.report.evidence import RenderedReport, ReportEvidence
from pipeline.report.html import render_report
from pipeline.report.tables import label_table, measures_table

__all__ = [
    "RenderedReport",
    "ReportEvidence",
    "label_table",
    "measures_table",
    "render_report",
]
