"""The report as files in the output folder of a subject."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import ReportConfig
from pipeline.core.results import Measures
from pipeline.io.derivatives import SubjectFolder, write_bytes, write_text
from pipeline.report.evidence import ReportEvidence
from pipeline.report.html import render_report
from pipeline.report.surface import render_surface
from pipeline.report.tables import label_table, measures_table, wide_table


def write_report(
    measures: Measures,
    evidence: ReportEvidence | None,
    folder: SubjectFolder,
    *,
    config: ReportConfig,
    surfaces: bool = False,
) -> Path:
    """Render the report and write it with its tables and figures; the page appears last.

    Args:
        measures: the published results.
        evidence: what the pictures are drawn from; None: a page without pictures.
        folder: the subject's output folder.
        config: what is shown and how finely.
        surfaces: also write the page with both legs to turn, where there are labels.

    Returns:
        The path of the page.
    """
    rendered = render_report(measures, evidence, config=config)
    for name, content in rendered.figures.items():
        write_bytes(folder.figure(name), content)
    if surfaces and evidence is not None:
        scale = config.asymmetry_scale_percent
        write_text(folder.surface_page, render_surface(measures, evidence, scale_percent=scale))
    write_text(folder.label_table, label_table())
    write_text(folder.table, measures_table(measures))
    write_text(folder.wide_table, wide_table(measures))
    write_bytes(folder.pdf, rendered.pdf)
    write_text(folder.report, rendered.html)
    return folder.report
