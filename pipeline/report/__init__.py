"""The report: a pure function of the results and the saved derivatives."""

from pipeline.report.evidence import RenderedReport, ReportEvidence
from pipeline.report.failure import Failure, render_failure
from pipeline.report.html import render_report
from pipeline.report.saved import load_evidence
from pipeline.report.tables import label_table, measures_table, wide_table
from pipeline.report.writing import write_report

__all__ = [
    "Failure",
    "RenderedReport",
    "ReportEvidence",
    "label_table",
    "load_evidence",
    "measures_table",
    "render_failure",
    "render_report",
    "wide_table",
    "write_report",
]
