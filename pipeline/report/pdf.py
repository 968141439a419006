"""The report for the clinician's inbox: three A4 pages or little more, results in, PDF bytes out.

Page 1 answers which muscles differ, by how much and how surely; the next holds the number of every
muscle; the last those of the groups and how all of it was measured. What is too much for a page
goes on on another one: nothing is left out and nothing runs off the sheet. Text stays text (fonts
are embedded), and every number is shown by the same rules as on the HTML page.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.patches import Circle

from pipeline.core.anatomy import Side
from pipeline.core.results import (
    Asymmetry,
    Compared,
    GroupResult,
    Lead,
    Measures,
    Severity,
    Verdict,
    leading,
    on_side,
    volume_field,
)
from pipeline.report import selection, words
from pipeline.report.drawing import COLOURS, drawing
from pipeline.report.format import MISSING
from pipeline.report.legs import LegsView, Pin, colour_of
from pipeline.report.methods import methods_of
from pipeline.report.numbers import Numbers
from pipeline.report.reach import drawn_values, goes_on, share_of_reach, shared_reach
from pipeline.report.sheet import (
    FOOT_MM,
    HEADING,
    HEIGHT_MM,
    MARGIN_MM,
    SMALL,
    TEXT_MM,
    TITLE,
    WIDTH_MM,
    Flow,
    Sheet,
    line_mm,
    wrapped,
)

#: Columns of the tables: heading and the place of its right (first: left) edge, mm.
_COLUMNS = (
    ("", MARGIN_MM),
    ("right, mL", 79.5),
    ("left, mL", 93.5),
    ("R \N{MINUS SIGN} L, %", 108.5),
    ("95 % interval, %", 136.2),
    ("verdict", 138.3),
)
_ROW_MM = 5.0
#: Width and largest height of each view of the legs, and what stands below them.
_LEGS_MM, _TALLEST_MM, _BELOW_LEGS_MM = 46.0, 104.0, 23.0
#: Height of a group's bar with its name and the first line of its verdict; width of the bars
#: beside the legs.
_BAR_MM = 10.8
_BARS_MM = 76.0


def render_pdf(
    measures: Measures,
    views: Sequence[tuple[LegsView, Sequence[Pin]]],
    *,
    largest: int,
    scale_percent: float,
) -> bytes:
    """The report as PDF, the same bytes every time.

    Args:
        measures: the published results; every number is one of theirs.
        views: the legs from front and back with their numbers; empty: no picture.
        largest: how many differences are told in words.
        scale_percent: difference at which the colours of the legs end.
    """
    num = Numbers(measures)
    lead = measures.measures.lead
    buffer = io.BytesIO()
    with drawing(), PdfPages(buffer, metadata=_metadata(measures)) as pages:
        flows = (
            _first(measures, views, lead, num, largest=largest, scale_percent=scale_percent),
            _muscles(measures, lead, num),
            _groups_and_methods(measures, lead, num),
        )
        sheets = [sheet for flow in flows for sheet in flow.sheets]
        for number, sheet in enumerate(sheets, start=1):
            # A sheet that is lost on the way from the printer is missed.
            place = (WIDTH_MM - MARGIN_MM, FOOT_MM)
            text = f"page {number} of {len(sheets)}"
            sheet.text(*place, text, size=SMALL, colour="muted", align="right")
            pages.savefig(sheet.figure)
    return buffer.getvalue()


def table_rows(measures: Measures) -> list[list[str]]:
    """Title, volumes, difference and interval of every row of the tables on pages 2 and 3."""
    num, lead = Numbers(measures), measures.measures.lead
    limb = measures.measures
    rows: list[tuple[str, Compared, str]] = [
        (words.muscle_title(m.name), m, f"/measures/muscles/{i}")
        for i, m in enumerate(limb.muscles)
    ]
    rows += [(_group_title(g), g, f"/measures/groups/{i}") for i, g in enumerate(limb.groups)]
    return [[title, *_cells(result, base, lead, num)] for title, result, base in rows]


def _group_title(group: GroupResult) -> str:
    return f"{words.group_title(group.name)} ({words.kind_title(group.kind)})"


def _metadata(measures: Measures) -> dict[str, str | None]:
    # No dates and no versions of libraries: the bytes depend on the results alone.
    return {
        "Title": f"{words.who(measures)}: left and right leg muscles",
        "Creator": f"{measures.provenance.software} {measures.provenance.software_version}",
        "Producer": None,
        "CreationDate": None,
    }


def _flow(measures: Measures, title: str) -> Flow:
    return Flow(lambda shown: _head(measures, shown), title)


def _head(measures: Measures, title: str) -> tuple[Sheet, float]:
    sheet = Sheet()
    sheet.text(MARGIN_MM, 21.0, title, size=TITLE, bold=True)
    sheet.text(WIDTH_MM - MARGIN_MM, 21.0, words.who(measures), size=HEADING, align="right")
    sheet.text(
        MARGIN_MM,
        FOOT_MM,
        "It measures; it does not diagnose, and it predicts no injury.",
        size=SMALL,
        colour="muted",
    )
    note = measures.engine.note
    y = sheet.paragraph(MARGIN_MM, 28.0, TEXT_MM, note, size=SMALL, colour="muted")
    return sheet, y + 3.0


def _first(
    measures: Measures,
    views: Sequence[tuple[LegsView, Sequence[Pin]]],
    lead: Lead,
    num: Numbers,
    *,
    largest: int,
    scale_percent: float,
) -> Flow:
    flow = _flow(measures, "Left and right leg muscles")
    name = "lean volume" if lead == "lean_volume" else "total volume"
    flow.paragraph(
        f"Compared: {name} of each muscle, right against left, in percent of their mean; "
        "+ means that the right is larger.",
    )
    for notice in _notices(measures, lead):
        flow.paragraph(notice, colour="left")
    flow.space(4.0)
    width = _BARS_MM if views else TEXT_MM
    bars = _group_bars(measures, lead, num, width)
    legs_mm = _legs_height(views) + _BELOW_LEGS_MM if views else 0.0
    flow.need(max(legs_mm, 11.5 + sum(bar.height_mm for bar in bars)))
    below = _draw_legs(flow.sheet, views, flow.y, scale_percent) if views else flow.y
    bars_below = _draw_bars(flow.sheet, bars, width=width, y=flow.y + 3.0)
    flow.y = max(below, bars_below) + 6.0
    flow.heading("Largest differences")
    chosen = selection.largest(measures, lead, largest)
    for number, i in enumerate(chosen, start=1):
        muscle, base = measures.measures.muscles[i], f"/measures/muscles/{i}"
        said = [words.difference(muscle, base, lead, num).striptags()]
        between = words.interval(muscle, base, lead, num).striptags()
        note = words.extent_note(muscle, base, lead, num).striptags()
        said += [between] if between else []
        said += [note] if note else []
        limit = words.limit_note(muscle, base, lead, num).striptags()
        said += [limit] if limit else []
        verdict = words.verdict_text(muscle, lead)
        text = f"{number}. {words.muscle_title(muscle.name)}: {'; '.join(said)}; {verdict}."
        flow.paragraph(text, after=0.8)
    if not chosen:
        flow.paragraph("No muscle could be judged on both sides.")
    flow.space(3.0)
    flow.heading("How sure is this?")
    for text in _trust(measures, lead, num):
        flow.paragraph(text, size=8.5, after=0.8)
    return flow


def _notices(measures: Measures, lead: Lead) -> list[str]:
    """What must be known before any number is read: the first sentence of each."""
    told = words.common_lean_reason(measures) if lead == "total_volume" else None
    quality = measures.registration
    failed = "The legs could not be laid onto each other"
    said = [
        None if told is None else f"{words.lean_heading(measures)}: {told}",
        None if quality.succeeded else f"{failed}: {quality.reason}" if quality.reason else failed,
    ]
    doubts = selection.caveats(measures)
    errors = [f for f in measures.findings if f.severity is Severity.ERROR and f not in doubts]
    said += [f"Error: {words.first_sentence(f.message)}" for f in errors]
    said += [f"Caveat on every difference: {words.first_sentence(f.message)}" for f in doubts]
    return [text for text in said if text is not None]


def _legs_height(views: Sequence[tuple[LegsView, Sequence[Pin]]]) -> float:
    return max(min(_TALLEST_MM, _LEGS_MM * view.size[1] / view.size[0]) for view, _ in views)


def _draw_legs(
    sheet: Sheet,
    views: Sequence[tuple[LegsView, Sequence[Pin]]],
    top: float,
    scale_percent: float,
) -> float:
    """The legs side by side with their scale; returns the level below them."""
    width, height = _LEGS_MM, _legs_height(views)
    for n, (view, pins) in enumerate(views):
        x = MARGIN_MM + n * (width + 3.0)
        axes = sheet.figure.add_axes(
            (
                x / WIDTH_MM,
                1.0 - (top + height) / HEIGHT_MM,
                width / WIDTH_MM,
                height / HEIGHT_MM,
            )
        )
        axes.set_axis_off()
        axes.imshow(view.pixels, interpolation="nearest")
        columns, rows = view.size
        for pin in pins:
            place = (pin.x_percent * columns / 100.0, pin.y_percent * rows / 100.0)
            axes.add_patch(
                Circle(place, columns / 19.0, facecolor="white", edgecolor=COLOURS["ink"], lw=0.8)
            )
            axes.text(
                *place, str(pin.number), fontsize=SMALL, fontweight="bold", ha="center", va="center"
            )
        letters = ("R", "L") if view.view == "front" else ("L", "R")
        below = top + height + 3.5
        sheet.text(x, below, letters[0], bold=True)
        sheet.text(x + width / 2.0, below, view.view, colour="muted", align="center")
        sheet.text(x + width, below, letters[1], bold=True, align="right")
    y = top + height + 7.0
    steps = 24
    for step in range(steps):
        share = 2.0 * (step + 0.5) / steps - 1.0
        sheet.box(50.0 + step * 1.25, y, 1.3, 2.6, colour_of(share * scale_percent, scale_percent))
    sheet.text(48.5, y + 2.2, "smaller than the other", size=SMALL, align="right")
    sheet.text(81.5, y + 2.2, "larger than the other", size=SMALL)
    return sheet.paragraph(
        MARGIN_MM,
        y + 7.0,
        98.0,
        f"Full colour from {scale_percent:g} %. Hatched: may be measurement error. Grey with dots: "
        "not judged. Numbers: the differences below, on the smaller side.",
        size=SMALL,
        colour="muted",
    )


@dataclass(frozen=True)
class _Bar:
    """The difference of a group.

    Attributes:
        title, value: its name and its difference in words.
        asymmetry: the difference itself.
        reach: difference at the ends of the bars, percent.
        said: lines below the bar.
    """

    title: str
    value: str
    asymmetry: Asymmetry
    reach: float
    said: tuple[str, ...]

    @property
    def height_mm(self) -> float:
        """With the room below."""
        return _BAR_MM + (len(self.said) - 1) * line_mm(SMALL)


def _group_bars(measures: Measures, lead: Lead, num: Numbers, width: float) -> list[_Bar]:
    """A bar of each group that has a difference to draw, all on one scale."""
    found = [
        (group, f"/measures/groups/{i}", leading(group, lead))
        for i in selection.summary_groups(measures, lead)
        if leading(group := measures.measures.groups[i], lead).index_percent is not None
    ]
    reach = shared_reach(drawn_values(asymmetry) for *_, asymmetry in found)
    bars = []
    for group, base, asymmetry in found:
        cut = words.cut_note(group, base, lead, num, reach=reach).striptags()
        said = (words.verdict_text(group, lead), words.group_note(group, lead), cut)
        bars.append(
            _Bar(
                title=words.group_title(group.name),
                value=num.text(
                    f"{base}/{words.lead_key(lead)}/index_percent", "signed_percent", unit=True
                ),
                asymmetry=asymmetry,
                reach=reach,
                said=tuple(wrapped("; ".join(filter(None, said)), width, SMALL)),
            )
        )
    return bars


def _draw_bars(sheet: Sheet, bars: Sequence[_Bar], *, width: float, y: float) -> float:
    """The groups below each other at the right margin; returns the level below them."""
    right = WIDTH_MM - MARGIN_MM
    x = right - width
    middle = (x + right) / 2.0
    sheet.text(x, y, "Muscle groups", size=HEADING, bold=True)
    y += 4.5
    sheet.text(
        middle - 1.0, y, "\N{LEFTWARDS ARROW} left larger", size=SMALL, colour="left", align="right"
    )
    sheet.text(middle + 1.0, y, "right larger \N{RIGHTWARDS ARROW}", size=SMALL, colour="right")
    y += 4.5
    for bar in bars:
        sheet.text(x, y, bar.title, size=SMALL)
        sheet.text(right, y, bar.value, size=SMALL, bold=True, align="right")
        low, high = bar.asymmetry.interval_low_percent, bar.asymmetry.interval_high_percent
        index = bar.asymmetry.index_percent or 0.0
        faint = bar.asymmetry.verdict in (None, Verdict.WITHIN_ERROR)
        side = "right" if index > 0 else "left"

        def place(percent: float, reach: float = bar.reach) -> float:
            return middle + 0.5 * width * share_of_reach(percent, reach)

        ends = sorted((middle, place(index)))
        sheet.box(x, y + 1.3, width, 1.8, COLOURS["band"])
        colour = COLOURS[f"{side}-soft" if faint else side]
        sheet.box(ends[0], y + 1.3, ends[1] - ends[0], 1.8, colour)
        if low is not None and high is not None:
            sheet.line((place(low), place(high)), y + 2.2, colour="ink", width=1.0)
        beyond = goes_on(drawn_values(bar.asymmetry), bar.reach)
        for value, end, to_right in zip(beyond, (x, right), (False, True), strict=True):
            if value is not None:
                sheet.arrow(end, y + 2.2, to_right=to_right)
        for n, line in enumerate(bar.said):
            sheet.text(x, y + 5.9 + n * line_mm(SMALL), line, size=SMALL, colour="muted")
        y += bar.height_mm
    return y


def _trust(measures: Measures, lead: Lead, num: Numbers) -> list[str]:
    """How many were judged, how many stand out by chance, what was not judged and why."""
    said = [words.how_many_differ(measures, lead)]
    if measures.measures.expected_flagged_by_chance is not None:
        count = num.text("/measures/expected_flagged_by_chance", "count")
        said[0] += f" By chance alone about {count} would stand out: look at the groups first."
    for kind in selection.unjudged(measures, lead):
        head = f"Not judged, {kind.heading.lower()}: {words.names(kind.muscles)}"
        if len(kind.reasons) == 1:
            said.append(f"{head} ({kind.reasons[0][0]}).")
            continue
        said.append(f"{head}.")
        said += [f"{words.names(titles)}: {reason}." for reason, titles in kind.reasons]
    if not selection.unjudged(measures, lead):
        said.append("Not judged: none.")
    partly = words.judged_in_part(measures, lead)
    if partly:
        said.append(f"Judged in part, where both legs show them: {words.names(partly)}.")
    return said


def _muscles(measures: Measures, lead: Lead, num: Numbers) -> Flow:
    flow = _flow(measures, "Every muscle")
    _table_head(flow, lead)
    region = ""
    for i, muscle in enumerate(measures.measures.muscles):
        if muscle.region != region:
            region = muscle.region
            flow.space(1.5)
            flow.need(_ROW_MM)
            flow.sheet.text(MARGIN_MM, flow.y, words.region_title(region), bold=True)
            flow.space(_ROW_MM)
        title = words.muscle_title(muscle.name)
        _table_row(flow, title, muscle, f"/measures/muscles/{i}", lead, num)
    flow.space(4.0)
    flow.paragraph(
        "Volumes are of the whole muscle; *: of the part in view, and only the part that both "
        "legs show is compared, so that the percentage does not follow from them. "
        f"{MISSING}: not available, never zero. Why a muscle was not "
        "judged stands under “How sure is this?” and, muscle by muscle, in the HTML report.",
        size=SMALL,
        colour="muted",
        after=1.5,
    )
    key = " ".join(f"{verdict}: {meaning}" for verdict, meaning in words.VERDICT_KEY.items())
    flow.paragraph(f"{words.INTERVAL_KEY}. {key}", size=SMALL, colour="muted")
    return flow


def _groups_and_methods(measures: Measures, lead: Lead, num: Numbers) -> Flow:
    flow = _flow(measures, "Groups and methods")
    _table_head(flow, lead)
    for i, group in enumerate(measures.measures.groups):
        _table_row(flow, _group_title(group), group, f"/measures/groups/{i}", lead, num)
    flow.space(3.0)
    for i, ratio in enumerate(measures.measures.ratios):
        sides = [
            f"{side} {num.text(f'/measures/ratios/{i}/{side}', 'ratio')}"
            for side in ("right", "left")
        ]
        title = words.ratio_title(ratio.name)
        text = f"{title} ({ratio.of.replace('_', ' ')}): {', '.join(sides)}"
        flow.paragraph(f"{text} ({ratio.reason})" if ratio.reason else text)
    flow.space(5.0)
    flow.heading("How it was measured")
    used = measures.provenance
    for text in (
        *methods_of(measures, lead).paragraphs,
        f"{used.software} {used.software_version}, code {used.code_digest[:12]}, configuration "
        f"{used.configuration_digest[:12]}; labels by {measures.engine.name} "
        f"{measures.engine.version}. Pictures of every step, profiles along the limb and all "
        "findings are in the HTML report.",
        "A side difference can come from a preferred leg, training, an old injury or operation, "
        "the position in the scanner, or an error in the labels. Before anything is concluded "
        "from it, repeat the scan with the same protocol.",
    ):
        flow.paragraph(text, size=8.5, after=1.5)
    return flow


def _table_head(flow: Flow, lead: Lead) -> None:
    name = "Lean volume" if lead == "lean_volume" else "Total volume"
    flow.sheet.text(MARGIN_MM, flow.y, name, size=SMALL, bold=True, colour="muted")
    for heading, x in _COLUMNS[1:]:
        align = "left" if heading == "verdict" else "right"
        flow.sheet.text(x, flow.y, heading, size=SMALL, bold=True, colour="muted", align=align)
    flow.sheet.rule(flow.y + 1.6)
    flow.space(_ROW_MM + 1.0)


def _table_row(
    flow: Flow,
    title: str,
    result: Compared,
    base: str,
    lead: Lead,
    num: Numbers,
) -> None:
    verdict = wrapped(
        words.verdict_text(result, lead), WIDTH_MM - MARGIN_MM - _COLUMNS[5][1], SMALL
    )
    flow.need((len(verdict) - 1) * line_mm(SMALL))
    sheet, y = flow.sheet, flow.y
    sheet.text(MARGIN_MM, y, title, size=SMALL)
    for (_, x), cell in zip(_COLUMNS[1:5], _cells(result, base, lead, num), strict=True):
        sheet.text(x, y, cell, size=SMALL, align="right", bold=x == _COLUMNS[3][1])
    x = _COLUMNS[5][1]
    for n, line in enumerate(verdict):
        sheet.text(x, y + n * line_mm(SMALL), line, size=SMALL, colour="muted")
    further = (len(verdict) - 1) * line_mm(SMALL)
    sheet.rule(y + 1.5 + further)
    flow.space(_ROW_MM + further)


def _cells(result: Compared, base: str, lead: Lead, num: Numbers) -> list[str]:
    """Right and left volume, difference and interval of a row."""
    asymmetry = f"{base}/{words.lead_key(lead)}"
    volumes = []
    for side in (Side.RIGHT, Side.LEFT):
        extent = words.shown_extent(on_side(result, side), lead)
        pointer = f"{base}/{side}/{volume_field(lead, extent)}"
        in_part = extent == "in_view" and num.value(pointer) is not None
        volumes.append(num.text(pointer, "ml") + "*" * in_part)
    ends = [f"{asymmetry}/interval_{end}_percent" for end in ("low", "high")]
    between = " to ".join(num.text(end, "signed_percent") for end in ends)
    return [
        *volumes,
        num.text(f"{asymmetry}/index_percent", "signed_percent"),
        MISSING if num.value(ends[0]) is None else between,
    ]
