"""The report: results and evidence in, one HTML page and its figures out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.config import ReportConfig
from pipeline.core.anatomy import Side
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Compared,
    Finding,
    Lead,
    Measures,
    Severity,
    leading,
    volume_field,
)
from pipeline.report import charts, legs, pictures, profiles, selection, words
from pipeline.report.context import context_of
from pipeline.report.drawing import (
    COLOURS,
    DARK_COLOURS,
    Pixels,
    inline_svg,
    picture_url,
    to_png,
)
from pipeline.report.evidence import RenderedReport, ReportEvidence
from pipeline.report.head import framed
from pipeline.report.methods import methods_of
from pipeline.report.numbers import Numbers
from pipeline.report.pdf import render_pdf
from pipeline.report.reach import drawn_values, goes_on, share_of_reach, shared_reach

#: Charts are drawn twice, for a desk and for a phone; the style sheet shows one of them.
_WIDTHS_PX: Mapping[str, int] = FrozenDict({"wide": 980, "narrow": 350})
_PROFILE_COLUMNS: Mapping[str, int] = FrozenDict({"wide": 5, "narrow": 2})

_TEMPLATES = Path(__file__).with_name("templates")
#: The page's only script.
SORTING = "sort.js"

#: Columns of a table of muscles or groups, without the confidence that not every engine states.
_COLUMNS = 15

#: Colours of the scale below the legs, on each side of no difference.
_SCALE_STEPS = 4


@dataclass(frozen=True)
class _Row:
    """A muscle or group in a table.

    Attributes:
        base: JSON pointer of the result.
        title: its name.
        result: the result itself.
        reasons: why something is missing or unsure.
    """

    base: str
    title: str
    result: Compared
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Bar:
    """A difference as a bar from the middle, all in percent of the width.

    Attributes:
        left, width: of the bar.
        side: the larger one.
        interval_left, interval_width: of the 95 % interval; None where there is none.
        goes_on: ends of the scale beyond which it goes on, left or right.
        reach: difference at the ends of the scale, percent.
    """

    left: float
    width: float
    side: str
    interval_left: float | None
    interval_width: float | None
    goes_on: tuple[str, ...]
    reach: float


@dataclass(frozen=True)
class _Picture:
    """A picture on the page."""

    name: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class _Legs:
    """The legs on the first screen.

    Attributes:
        views: (picture, alternative text, numbers on it), front first.
        drawn: the same views as they were drawn.
        hidden: titles of the muscles that no view shows.
        scale_colours: colours from smaller to larger.
        scale_percent: difference at both ends of the colours.
    """

    views: tuple[tuple[_Picture, str, tuple[legs.Pin, ...]], ...]
    drawn: tuple[legs.LegsView, ...]
    hidden: tuple[str, ...]
    scale_colours: tuple[str, ...]
    scale_percent: float


def render_report(
    measures: Measures, evidence: ReportEvidence | None, *, config: ReportConfig
) -> RenderedReport:
    """Build the report. Pure: the same arguments give the same bytes.

    Args:
        measures: the published results; every number of the page is one of theirs.
        evidence: images, labels and transforms for the pictures; None: a page without pictures.
        config: what is shown and how finely.
    """
    lead = measures.measures.lead
    figures: dict[str, bytes] = {}
    shown_charts = _charts(measures, lead, figures)
    shown_pictures = {} if evidence is None else _pictures(measures, evidence, config, figures)
    shown_legs = None if evidence is None else _legs(measures, evidence, lead, config, figures)
    num = Numbers(measures)
    confident = any(
        side.confidence is not None for m in measures.measures.muscles for side in (m.right, m.left)
    )
    environment = page_environment()
    environment.globals.update(
        num=num,
        words=words,
        verdict_text=lambda result: words.verdict_text(result, lead),
        verdict_class=lambda result: words.verdict_class(result, lead),
        lead_key=words.lead_key(lead),
        volume_field=volume_field,
        muscle_title=words.muscle_title,
        has_confidence=confident,
        columns=_COLUMNS + confident,
    )
    script, digest = script_and_digest(SORTING)
    html = environment.get_template("report.html.j2").render(
        _context(measures, evidence, config=config, lead=lead, num=num),
        charts=shown_charts,
        pictures=shown_pictures,
        legs=shown_legs,
        script=Markup(script),
        script_digest=digest,
    )
    pages = render_pdf(
        measures,
        []
        if shown_legs is None
        else [
            (view, pins)
            for view, (_, _, pins) in zip(shown_legs.drawn, shown_legs.views, strict=True)
        ],
        largest=config.largest_differences,
        scale_percent=config.asymmetry_scale_percent,
    )
    return RenderedReport(html, pages, figures)


def script_and_digest(name: str) -> tuple[str, str]:
    """A script among the templates, and the digest by which a page allows it alone."""
    script = (_TEMPLATES / name).read_text(encoding="utf-8")
    return script, base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def page_environment() -> Environment:
    """The templates of the report's pages: everything is escaped, nothing may be undefined."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        leg_colours={
            "bone": legs.BONE,
            "hatch": legs.HATCH,
            "unjudged": legs.UNJUDGED,
            "unjudged-dot": legs.UNJUDGED_DOT,
        },
        picture_colours={"right": pictures.RIGHT_LINE, "left": pictures.LEFT_LINE},
    )
    return environment


def _context(
    measures: Measures,
    evidence: ReportEvidence | None,
    *,
    config: ReportConfig,
    lead: Lead,
    num: Numbers,
) -> dict[str, Any]:
    limb = measures.measures
    told = words.common_lean_reason(measures)
    muscles = [
        _row(f"/measures/muscles/{i}", words.muscle_title(m.name), m, lead, told)
        for i, m in enumerate(limb.muscles)
    ]
    groups = [
        _row(f"/measures/groups/{i}", words.group_title(g.name), g, lead, told)
        for i, g in enumerate(limb.groups)
    ]
    largest = selection.largest(measures, lead, config.largest_differences)
    first_groups = [groups[i] for i in selection.summary_groups(measures, lead)]
    compared = [r for r in first_groups if leading(r.result, lead).index_percent is not None]
    return {
        "measures": measures,
        "lead": lead,
        "lean_reason": told,
        "colours": COLOURS,
        "dark_colours": DARK_COLOURS,
        "regions": [
            (
                words.region_title(region),
                [r for r, m in zip(muscles, limb.muscles, strict=True) if m.region == region],
            )
            for region in dict.fromkeys(m.region for m in limb.muscles)
        ],
        "groups": groups,
        "first_groups": list(zip(compared, _bars(compared, lead), strict=True)),
        "groups_not_compared": [r.title for r in first_groups if r not in compared],
        "largest": [_sentence(muscles[i], lead, num) for i in largest],
        "how_many_differ": words.how_many_differ(measures, lead),
        "unjudged": selection.unjudged(measures, lead),
        "partly": words.judged_in_part(measures, lead),
        "undrawn": words.by_reasons(
            [
                (row.title, row.reasons)
                for row in muscles
                if leading(row.result, lead).index_percent is None
            ]
        ),
        "profiles_comparable": profiles.profiles_comparable(measures),
        "ratios": [
            (f"/measures/ratios/{i}", words.ratio_title(r.name), r)
            for i, r in enumerate(limb.ratios)
        ],
        "ratio_notes": any(r.reason is not None for r in limb.ratios),
        "stages": selection.stage_checks(measures),
        "findings": findings_by_severity(measures.findings),
        "caveats": selection.caveats(measures),
        "quality": [(words.muscle_title(name), name) for name in measures.registration.overlap],
        "local": [
            (f"/measures/muscles/{i}/local_difference", m)
            for i in largest
            if (m := limb.muscles[i]).local_difference.largest is not None
        ],
        "worst_overlaps": sorted(measures.registration.overlap.items(), key=lambda p: (p[1], p[0]))[
            :5
        ],
        "has_limits": any(m.healthy_limit_percent is not None for m in limb.muscles),
        "methods": methods_of(measures, lead),
        "has_expected": any(m.expected_volume_ml is not None for m in limb.muscles),
        "legend": [] if evidence is None else pictures.labels_shown(evidence),
        "evidence": evidence,
        "context": context_of(measures, lead) if config.context else None,
        "configuration": json.dumps(
            measures.provenance.configuration, indent=2, ensure_ascii=False, sort_keys=True
        ),
    }


def _row(base: str, title: str, result: Compared, lead: Lead, told: str | None) -> _Row:
    """A row with its reasons, but for the one (told) that the page gives once for all muscles."""
    return _Row(base, title, result, tuple(words.reasons(result, lead, told=told)))


def _sentence(row: _Row, lead: Lead, num: Numbers) -> dict[str, Any]:
    return {
        "row": row,
        "difference": words.difference(row.result, row.base, lead, num),
        "interval": words.interval(row.result, row.base, lead, num),
        "note": words.extent_note(row.result, row.base, lead, num),
        "limit": words.limit_note(row.result, row.base, lead, num),
    }


def _bars(rows: Sequence[_Row], lead: Lead) -> list[_Bar]:
    """Bars of all rows on one scale; every row has a number."""
    values = [leading(row.result, lead) for row in rows]
    reach = shared_reach(drawn_values(a) for a in values)

    def place(percent: float) -> float:
        return 50.0 + 50.0 * share_of_reach(percent, reach)

    bars: list[_Bar] = []
    for a in values:
        index = a.index_percent or 0.0
        low, high = a.interval_low_percent, a.interval_high_percent
        ends = sorted((50.0, place(index)))
        between = None if low is None or high is None else (place(low), place(high))
        beyond = zip(("left", "right"), goes_on(drawn_values(a), reach), strict=True)
        bars.append(
            _Bar(
                left=ends[0],
                width=ends[1] - ends[0],
                side="right" if index > 0 else "left",
                interval_left=None if between is None else between[0],
                interval_width=None if between is None else between[1] - between[0],
                goes_on=tuple(side for side, value in beyond if value is not None),
                reach=reach,
            )
        )
    return bars


def _charts(
    measures: Measures, lead: Lead, figures: dict[str, bytes]
) -> dict[str, dict[str, Markup]]:
    """Charts as elements of the page, wide and narrow; the wide ones become figure files."""
    asymmetry = [charts.asymmetry_chart(measures, lead, width_px=w) for w in _WIDTHS_PX.values()]
    layouts = [
        profiles.ProfileLayout(columns, _WIDTHS_PX[size])
        for size, columns in _PROFILE_COLUMNS.items()
    ]
    local = [profiles.local_map(measures, width_px=w) for w in _WIDTHS_PX.values()]
    drawn: dict[str, tuple[str, list[bytes]]] = {
        "asymmetry": (
            "Difference between the sides for every muscle with its 95 % interval; "
            "the table below holds the same numbers",
            asymmetry,
        ),
        "profiles": (
            "Cross-sections of every muscle along the limb, right and left overlaid",
            [
                svg
                for svg in (profiles.profile_chart(measures, layout) for layout in layouts)
                if svg
            ],
        ),
        "local_differences": (
            "Difference of the cross-sections by muscle and level along the limb, as colours",
            [svg for svg in local if svg is not None],
        ),
    }
    shown: dict[str, dict[str, Markup]] = {}
    for name, (title, images) in drawn.items():
        if not images:
            continue
        figures[f"{name}.svg"] = images[0]
        shown[name] = {
            size: Markup(inline_svg(svg, prefix=f"{name}-{size}", title=title))
            for size, svg in zip(_WIDTHS_PX, images, strict=True)
        }
    return shown


def _pictures(
    measures: Measures,
    evidence: ReportEvidence,
    config: ReportConfig,
    figures: dict[str, bytes],
) -> dict[str, _Picture]:
    """Pictures as elements of the page; each is a figure file too, below a head of its own."""
    levels = pictures.axial_levels(evidence, config.picture_levels)
    if not levels:
        return {}
    dpi = config.picture_dpi
    drawn: dict[str, Pixels | None] = {
        "segmentation_axial": pictures.segmentation_axial(evidence, levels, dpi=dpi),
        "segmentation_coronal": pictures.segmentation_coronal(evidence, levels, dpi=dpi),
        "fat_fraction": pictures.fat_fraction_map(
            evidence, levels, scale_percent=config.fat_fraction_scale_percent, dpi=dpi
        ),
        "registration_before": pictures.registration_overlay(
            evidence, levels, before=True, dpi=dpi
        ),
        "registration": pictures.registration_overlay(evidence, levels, before=False, dpi=dpi),
        "volume_change": pictures.volume_change_map(
            evidence, scale_percent=config.asymmetry_scale_percent, dpi=dpi
        ),
    }
    shown: dict[str, _Picture] = {}
    heads = pictures.heads(evidence, words.who(measures))
    for name, pixels in drawn.items():
        if pixels is None:
            continue
        saved = framed(pixels, heads[name], dpi=dpi, background=pictures.BACKGROUND)
        figures[f"{name}.png"] = to_png(saved)
        shown[name] = _Picture(name, picture_url(pixels), pixels.shape[1], pixels.shape[0])
    return shown


def _legs(
    measures: Measures,
    evidence: ReportEvidence,
    lead: Lead,
    config: ReportConfig,
    figures: dict[str, bytes],
) -> _Legs | None:
    """Both legs from front and back, numbered as the list of largest differences."""
    scale = config.asymmetry_scale_percent
    painted = legs.paints(measures, lead)
    drawn = [legs.draw_view(evidence, painted, view, scale_percent=scale) for view in legs.VIEWS]
    views = [view for view in drawn if view is not None]
    if not views:
        return None
    named = [
        (m.name, leading(m, lead).smaller_side or Side.RIGHT)
        for m in (
            measures.measures.muscles[i]
            for i in selection.largest(measures, lead, config.largest_differences)
        )
    ]
    pins = legs.place_pins(views, named)
    shown = []
    for view in views:
        head = legs.head_of(view.view, lead, words.who(measures), scale_percent=scale)
        saved = framed(view.pixels, head, dpi=config.picture_dpi, background=COLOURS["paper"])
        figures[f"legs_{view.view}.png"] = to_png(saved)
        picture = _Picture(f"legs_{view.view}", picture_url(view.pixels), *view.size)
        shown.append((picture, words.legs_alternative(measures, lead, view.view), pins[view.view]))
    return _Legs(
        views=tuple(shown),
        drawn=tuple(views),
        hidden=tuple(words.muscle_title(name) for name in legs.hidden(views, measures)),
        scale_colours=tuple(
            legs.colour_of(scale * step / _SCALE_STEPS, scale)
            for step in range(-_SCALE_STEPS, _SCALE_STEPS + 1)
        ),
        scale_percent=scale,
    )


def findings_by_severity(
    findings: Sequence[Finding],
) -> list[tuple[str, list[tuple[str, Finding]]]]:
    """Findings by severity, worst first, each with its JSON pointer; empty severities left out."""
    order: Mapping[Severity, str] = {
        Severity.ERROR: "Errors",
        Severity.WARNING: "Warnings",
        Severity.INFO: "Notes",
    }
    by_severity = [
        (title, [(f"/findings/{i}", f) for i, f in enumerate(findings) if f.severity is severity])
        for severity, title in order.items()
    ]
    return [(title, found) for title, found in by_severity if found]
