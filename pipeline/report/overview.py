"""The quality page of a group: a grid of pictures, failures and outliers first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.drawing import COLOURS, DARK_COLOURS
from pipeline.report.html import page_environment, script_and_digest

#: The page's only script: shows the tiles with a finding.
_SCRIPT = "filter.js"


@dataclass(frozen=True)
class OverviewTile:
    """One subject and session on the quality page.

    Attributes:
        participant, session: labels with their prefix; session None where there is none.
        failure: why there are no results, in words; None where there are.
        distance: of the figure that stands furthest apart, in robust standard deviations.
        stands_apart_by: which figure that is.
        is_outlier: whether it is far enough to be looked at.
        quality: figures by name; None where missing.
        findings: severity and message by code.
        page, picture: addresses relative to the quality page, or None.
    """

    participant: str
    session: str | None
    failure: str | None
    distance: float | None
    stands_apart_by: str | None
    is_outlier: bool
    quality: Mapping[str, float | None]
    findings: Mapping[str, tuple[str, str]]
    page: str | None
    picture: str | None


def render_overview(tiles: Sequence[OverviewTile]) -> str:
    """The page as HTML; pictures are those of the subjects' folders, loaded as they are seen."""
    script, digest = script_and_digest(_SCRIPT)
    counts = Counter(code for tile in tiles for code in tile.findings)
    return (
        page_environment()
        .get_template("overview.html.j2")
        .render(
            tiles=tiles,
            failed=sum(tile.failure is not None for tile in tiles),
            outliers=sum(tile.is_outlier for tile in tiles),
            codes=sorted(counts.items(), key=lambda item: (-item[1], item[0])),
            script=Markup(script),
            script_digest=digest,
            colours=COLOURS,
            dark_colours=DARK_COLOURS,
        )
    )
