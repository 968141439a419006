"""Small panels: what one draws lies where its scale says, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.report import drawing
from pipeline.report.panels import Panel, Panels, Pen


def drawn(colour: str, fill: Callable[[Panel], None]) -> np.ndarray:
    """Corners of what has a colour, from the lower left, in pixels of a figure of 200 x 100."""
    with drawing.drawing():
        figure = drawing.chart_figure(200.0, 100.0)
        panels = Panels(figure)
        fill(panels.panel((20.0, 10.0, 100.0, 50.0), across=(-1.0, 1.0), up=(0.0, 10.0)))
        panels.draw()
        svg = drawing.to_svg(figure).decode()
    found = re.search(rf'<path d="([^"]*)"[^>]*style="[^"]*{colour}', svg)
    numbers = re.findall(r"-?[\d.]+", found[1])
    corners = np.array(numbers, dtype=float).reshape(-1, 2)
    return np.column_stack((corners[:, 0], 100.0 - corners[:, 1]))


def test_lines():
    pen = Pen("#123456", 1.5)
    corners = drawn(pen.colour, lambda p: p.line((-1.0, 0.0, 1.0), (0.0, 10.0, 5.0), pen))
    np.testing.assert_allclose(corners, [(20, 10), (70, 60), (120, 35)], atol=1e-3)


def test_areas_end_where_the_panel_does():
    box = [(-0.5, -3.0), (-0.5, 30.0), (3.0, 30.0), (3.0, -3.0)]
    corners = drawn("#654321", lambda p: p.area([box], "#654321"))
    assert (corners.min(axis=0), corners.max(axis=0)) == (
        pytest.approx((45.0, 10.0)),
        pytest.approx((120.0, 60.0)),
    )
