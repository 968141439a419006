"""The report for the clinician's inbox: three A4 pages, results in, PDF bytes out.

Page 1 answers which muscles differ, by how much and how surely; page 2 holds the number of every
muscle; page 3 those of the groups and how all of it was measured. Text stays text (fonts are
embedded), and every number is shown by the same rules as on the HTML page.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from pipeline.core.results import GroupResult, Lead, Measures, MuscleResult, Verdict
from pipeline.report import words
from pipeline.report.drawing import COLOURS, drawing
from pipeline.report.format import MISSING
from pipeline.report.legs import LegsView, Pin, colour_of
from pipeline.report.numbers import Numbers

_MM_PER_INCH = 25.4
_WIDTH_MM, _HEIGHT_MM = 210.0, 297.0
_MARGIN_MM = 16.0
#: Height of a line of text of one point, and width of its average letter, in mm.
_LINE_MM_PER_POINT, _LETTER_MM_PER_POINT = 0.48, 0.195
_SMALL, _BODY, _HEADING, _TITLE = 7.5, 9.0, 11.5, 17.0

#: Columns of the tables: heading and the place of its right (first: left) edge, mm.
_COLUMNS = (
    ("", _MARGIN_MM),
    ("right, mL", 82.0),
    ("left, mL", 97.0),
    ("R \N{MINUS SIGN} L, %", 113.0),
    ("95 % interval, %", 141.0),
    ("verdict", 145.0),
)
_ROW_MM = 5.0


@dataclass
class _Sheet:
    """One A4 page, filled from the top; places are in mm from its upper left corner."""

    figure: Figure = field(
        default_factory=lambda: Figure(
            figsize=(_WIDTH_MM / _MM_PER_INCH, _HEIGHT_MM / _MM_PER_INCH)
        )
    )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = _BODY,
        bold: bool = False,
        colour: str = "ink",
        align: str = "left",
    ) -> None:
        """One line of text with its baseline at y."""
        self.figure.text(
            x / _WIDTH_MM,
            1.0 - y / _HEIGHT_MM,
            text,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            color=COLOURS[colour],
            ha=align,
            # A dollar sign in a label is a dollar sign, not the start of a formula.
            parse_math=False,
        )

    def paragraph(
        self,
        x: float,
        y: float,
        width: float,
        text: str,
        *,
        size: float = _BODY,
        colour: str = "ink",
    ) -> float:
        """Text in lines of at most a width; returns where the next line would stand."""
        letters = max(8, int(width / (_LETTER_MM_PER_POINT * size)))
        for line in textwrap.wrap(text, letters):
            self.text(x, y, line, size=size, colour=colour)
            y += _LINE_MM_PER_POINT * size
        return y

    def rule(self, y: float, x0: float = _MARGIN_MM, x1: float = _WIDTH_MM - _MARGIN_MM) -> None:
        """A thin line across."""
        self.line((x0, x1), y, colour="line", width=0.6)

    def line(self, ends: tuple[float, float], y: float, *, colour: str, width: float) -> None:
        """A horizontal line."""
        x = [end / _WIDTH_MM for end in ends]
        level = 1.0 - y / _HEIGHT_MM
        self.figure.add_artist(
            Line2D(x, [level, level], color=COLOURS[colour], linewidth=width, zorder=3)
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle with its upper edge at y; colour as #rrggbb."""
        self.figure.add_artist(
            Rectangle(
                (x / _WIDTH_MM, 1.0 - (y + height) / _HEIGHT_MM),
                width / _WIDTH_MM,
                height / _HEIGHT_MM,
                facecolor=colour,
                edgecolor="none",
                zorder=2,
            )
        )


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
        for sheet in (
            _first(measures, views, lead, num, largest=largest, scale_percent=scale_percent),
            _muscles(measures, lead, num),
            _groups_and_methods(measures, lead, num),
        ):
            pages.savefig(sheet.figure)
    return buffer.getvalue()


def table_rows(measures: Measures) -> list[list[str]]:
    """Title, volumes, difference and interval of every row of the tables on pages 2 and 3."""
    num, lead = Numbers(measures), measures.measures.lead
    limb = measures.measures
    rows = [
        (words.muscle_title(m.name), f"/measures/muscles/{i}") for i, m in enumerate(limb.muscles)
    ]
    rows += [(_group_title(g), f"/measures/groups/{i}") for i, g in enumerate(limb.groups)]
    return [[title, *_cells(base, lead, num)] for title, base in rows]


def _group_title(group: GroupResult) -> str:
    return f"{words.group_title(group.name)} ({words.kind_title(group.kind)})"


def _metadata(measures: Measures) -> dict[str, str | None]:
    # No dates and no versions of libraries: the bytes depend on the results alone.
    return {
        "Title": f"{_who(measures)}: left and right leg muscles",
        "Creator": f"{measures.provenance.software} {measures.provenance.software_version}",
        "Producer": None,
        "CreationDate": None,
    }


def _who(measures: Measures) -> str:
    return " ".join(part for part in (measures.subject, measures.session) if part)


def _head(measures: Measures, title: str) -> tuple[_Sheet, float]:
    sheet = _Sheet()
    sheet.text(_MARGIN_MM, 21.0, title, size=_TITLE, bold=True)
    sheet.text(_WIDTH_MM - _MARGIN_MM, 21.0, _who(measures), size=_HEADING, align="right")
    sheet.text(
        _MARGIN_MM,
        _HEIGHT_MM - 10.0,
        "It measures; it does not diagnose, and it predicts no injury.",
        size=_SMALL,
        colour="muted",
    )
    y = sheet.paragraph(_MARGIN_MM, 28.0, 178.0, measures.engine.note, size=_SMALL, colour="muted")
    return sheet, y + 3.0


def _first(
    measures: Measures,
    views: Sequence[tuple[LegsView, Sequence[Pin]]],
    lead: Lead,
    num: Numbers,
    *,
    largest: int,
    scale_percent: float,
) -> _Sheet:
    sheet, top = _head(measures, "Left and right leg muscles")
    name = "lean volume" if lead == "lean_volume" else "total volume"
    top = sheet.paragraph(
        _MARGIN_MM,
        top,
        178.0,
        f"Compared: {name} of each muscle, right against left, in percent of their mean; "
        "+ means that the right is larger.",
    )
    told = words.common_lean_reason(measures) if lead == "total_volume" else None
    notices = [told, None if measures.registration.succeeded else measures.registration.reason]
    # The page has room for the first sentence of each.
    notices += [
        f"Caveat on every difference: {f.message.split('. ')[0].rstrip('.')}."
        for f in words.caveats(measures)
    ]
    for notice in notices:
        if notice is not None:
            top = sheet.paragraph(_MARGIN_MM, top, 178.0, notice, colour="left")
    top += 4.0
    below = _draw_legs(sheet, views, top, scale_percent) if views else top
    x = 118.0 if views else _MARGIN_MM
    below = max(below, _group_bars(sheet, measures, lead, num, x=x, y=top + 3.0)) + 6.0
    sheet.text(_MARGIN_MM, below, "Largest differences", size=_HEADING, bold=True)
    y = below + 6.0
    chosen = words.largest(measures, lead, largest)
    for number, i in enumerate(chosen, start=1):
        muscle, base = measures.measures.muscles[i], f"/measures/muscles/{i}"
        said = [words.difference(muscle, base, lead, num).striptags()]
        between = words.interval(muscle, base, lead, num).striptags()
        note = words.extent_note(muscle, base, lead, num).striptags()
        said += [between] if between else []
        said += [note] if note else []
        verdict = words.verdict_text(words.leading(muscle, lead))
        text = f"{number}. {words.muscle_title(muscle.name)}: {'; '.join(said)}; {verdict}."
        y = sheet.paragraph(_MARGIN_MM, y, 178.0, text) + 0.8
    if not chosen:
        y = sheet.paragraph(_MARGIN_MM, y, 178.0, "No muscle could be judged on both sides.")
    y += 3.0
    sheet.text(_MARGIN_MM, y, "How sure is this?", size=_HEADING, bold=True)
    y += 6.0
    for text in _trust(measures, lead, num):
        y = sheet.paragraph(_MARGIN_MM, y, 178.0, text, size=8.5) + 0.8
    return sheet


def _draw_legs(
    sheet: _Sheet,
    views: Sequence[tuple[LegsView, Sequence[Pin]]],
    top: float,
    scale_percent: float,
) -> float:
    """The legs side by side with their scale; returns the level below them."""
    width, tallest = 46.0, 104.0
    height = max(min(tallest, width * view.size[1] / view.size[0]) for view, _ in views)
    for n, (view, pins) in enumerate(views):
        x = _MARGIN_MM + n * (width + 3.0)
        axes = sheet.figure.add_axes(
            (
                x / _WIDTH_MM,
                1.0 - (top + height) / _HEIGHT_MM,
                width / _WIDTH_MM,
                height / _HEIGHT_MM,
            )
        )
        axes.set_axis_off()
        axes.imshow(view.pixels, interpolation="nearest")
        columns, rows = view.size
        for pin in pins:
            place = (pin.x_percent * columns / 100.0, pin.y_percent * rows / 100.0)
            axes.add_patch(
                Circle(place, columns / 22.0, facecolor="white", edgecolor=COLOURS["ink"], lw=0.8)
            )
            axes.text(
                *place, str(pin.number), fontsize=6.5, fontweight="bold", ha="center", va="center"
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
    sheet.text(48.5, y + 2.2, "smaller than the other", size=_SMALL, align="right")
    sheet.text(81.5, y + 2.2, "larger than the other", size=_SMALL)
    return sheet.paragraph(
        _MARGIN_MM,
        y + 7.0,
        98.0,
        f"Full colour from {scale_percent:g} %. Hatched: may be measurement error. Grey with dots: "
        "not judged. Numbers: the differences below, on the smaller side.",
        size=_SMALL,
        colour="muted",
    )


def _group_bars(
    sheet: _Sheet, measures: Measures, lead: Lead, num: Numbers, *, x: float, y: float
) -> float:
    sheet.text(x, y, "Muscle groups", size=_HEADING, bold=True)
    y += 6.5
    right = _WIDTH_MM - _MARGIN_MM
    compared = [
        i
        for i in words.summary_groups(measures, lead)
        if words.leading(measures.measures.groups[i], lead).index_percent is not None
    ]
    found = [words.leading(measures.measures.groups[i], lead) for i in compared]
    ends = [
        abs(v)
        for a in found
        for v in (a.index_percent, a.interval_low_percent, a.interval_high_percent)
        if v is not None
    ]
    middle, scale = (x + right) / 2.0, 0.5 * (right - x) / max([10.0, *ends])
    for i, a in zip(compared, found, strict=True):
        group, base = measures.measures.groups[i], f"/measures/groups/{i}"
        pointer = f"{base}/{words.lead_key(lead)}/index_percent"
        sheet.text(x, y, words.group_title(group.name), size=8.0)
        sheet.text(
            right,
            y,
            num.text(pointer, "signed_percent", unit=True),
            size=8.0,
            bold=True,
            align="right",
        )
        index = a.index_percent or 0.0
        faint = a.verdict in (None, Verdict.WITHIN_ERROR)
        side = "right" if index > 0 else "left"
        sheet.box(x, y + 1.3, right - x, 1.8, COLOURS["band"])
        sheet.box(
            min(middle, middle + scale * index),
            y + 1.3,
            abs(scale * index),
            1.8,
            COLOURS[f"{side}-soft" if faint else side],
        )
        if a.interval_low_percent is not None and a.interval_high_percent is not None:
            ends_mm = (
                middle + scale * a.interval_low_percent,
                middle + scale * a.interval_high_percent,
            )
            sheet.line(ends_mm, y + 2.2, colour="ink", width=1.0)
        sheet.text(x, y + 5.6, words.verdict_text(a), size=6.5, colour="muted")
        y += 10.4
    return y


def _trust(measures: Measures, lead: Lead, num: Numbers) -> list[str]:
    """How many were judged, how many stand out by chance, what was not judged and why."""
    said = [words.how_many_differ(measures, lead)]
    if measures.measures.expected_flagged_by_chance is not None:
        count = num.text("/measures/expected_flagged_by_chance", "count")
        said[0] += f" By chance alone about {count} would stand out: look at the groups first."
    for kind in words.unjudged(measures, lead):
        reasons = "; ".join(reason for reason, _ in kind.reasons)
        said.append(f"Not judged, {kind.heading.lower()}: {words.names(kind.muscles)} ({reasons}).")
    if not words.unjudged(measures, lead):
        said.append("Not judged: none.")
    partly = words.judged_in_part(measures, lead)
    if partly:
        said.append(f"Judged in part, where both legs show them: {words.names(partly)}.")
    return said


def _muscles(measures: Measures, lead: Lead, num: Numbers) -> _Sheet:
    sheet, y = _head(measures, "Every muscle")
    y = _table_head(sheet, y, lead)
    region = ""
    for i, muscle in enumerate(measures.measures.muscles):
        if muscle.region != region:
            region = muscle.region
            y += 1.5
            sheet.text(_MARGIN_MM, y, words.region_title(region), bold=True)
            y += _ROW_MM
        title = words.muscle_title(muscle.name)
        _table_row(sheet, y, title, muscle, f"/measures/muscles/{i}", lead, num)
        y += _ROW_MM
    y = sheet.paragraph(
        _MARGIN_MM,
        y + 4.0,
        178.0,
        "Volumes are of the whole muscle; *: of the part in view, and only the part that both "
        f"legs show is compared. {MISSING}: not available, never zero. Why a muscle was not "
        "judged stands on the first page and, muscle by muscle, in the HTML report.",
        size=_SMALL,
        colour="muted",
    )
    key = " ".join(f"{verdict}: {meaning}" for verdict, meaning in words.VERDICT_KEY.items())
    sheet.paragraph(
        _MARGIN_MM, y + 1.5, 178.0, f"{words.INTERVAL_KEY}. {key}", size=_SMALL, colour="muted"
    )
    return sheet


def _groups_and_methods(measures: Measures, lead: Lead, num: Numbers) -> _Sheet:
    sheet, y = _head(measures, "Groups and methods")
    y = _table_head(sheet, y, lead)
    for i, group in enumerate(measures.measures.groups):
        _table_row(sheet, y, _group_title(group), group, f"/measures/groups/{i}", lead, num)
        y += _ROW_MM
    y += 3.0
    for i, ratio in enumerate(measures.measures.ratios):
        sides = [
            f"{side} {num.text(f'/measures/ratios/{i}/{side}', 'ratio')}"
            for side in ("right", "left")
        ]
        title = words.ratio_title(ratio.name)
        text = f"{title} ({ratio.of.replace('_', ' ')}): {', '.join(sides)}"
        y = sheet.paragraph(_MARGIN_MM, y, 178.0, text)
    y += 5.0
    sheet.text(_MARGIN_MM, y, "How it was measured", size=_HEADING, bold=True)
    y += 6.0
    used = measures.provenance
    for text in (
        f"Images: {', '.join(measures.contrasts) or 'none, labels alone'}; {measures.grid}. "
        f"Sides rest on: {'; '.join(measures.side_evidence) or 'nothing that could be checked'}. "
        "The left leg was mirrored into the pose of a right leg, so both went through the same "
        "steps; each was measured on the voxels of the scan itself.",
        "Lean volume is the sum of voxel volume x (1 - fat fraction). The difference is "
        "100 (R - L) / ((R + L) / 2) percent, of the whole muscle where both sides are whole, "
        "else of the part that both legs show.",
        measures.interval_basis,
        f"{used.software} {used.software_version}, code {used.code_digest[:12]}, configuration "
        f"{used.configuration_digest[:12]}; labels by {measures.engine.name} "
        f"{measures.engine.version}. Pictures of every step, profiles along the limb and all "
        "findings are in the HTML report.",
        "A side difference can come from a preferred leg, training, an old injury or operation, "
        "the position in the scanner, or an error in the labels. Before anything is concluded "
        "from it, repeat the scan with the same protocol.",
    ):
        y = sheet.paragraph(_MARGIN_MM, y, 178.0, text, size=8.5) + 1.5
    return sheet


def _table_head(sheet: _Sheet, y: float, lead: Lead) -> float:
    name = "Lean volume" if lead == "lean_volume" else "Total volume"
    sheet.text(_MARGIN_MM, y, name, size=_SMALL, bold=True, colour="muted")
    for heading, x in _COLUMNS[1:]:
        align = "left" if heading == "verdict" else "right"
        sheet.text(x, y, heading, size=_SMALL, bold=True, colour="muted", align=align)
    sheet.rule(y + 1.6)
    return y + _ROW_MM + 1.0


def _table_row(
    sheet: _Sheet,
    y: float,
    title: str,
    result: MuscleResult | GroupResult,
    base: str,
    lead: Lead,
    num: Numbers,
) -> None:
    cells = _cells(base, lead, num)
    sheet.text(_MARGIN_MM, y, title, size=8.0)
    for (_, x), cell in zip(_COLUMNS[1:5], cells, strict=True):
        sheet.text(x, y, cell, size=8.0, align="right", bold=x == _COLUMNS[3][1])
    verdict = words.verdict_text(words.leading(result, lead))
    sheet.text(_COLUMNS[5][1], y, verdict, size=6.8, colour="muted")
    sheet.rule(y + 1.5)


def _cells(base: str, lead: Lead, num: Numbers) -> list[str]:
    """Right and left volume, difference and interval of a row."""
    asymmetry = f"{base}/{words.lead_key(lead)}"
    volumes = []
    for side in ("right", "left"):
        whole = f"{base}/{side}/{lead}_whole_ml".replace("total_", "")
        seen = whole.replace("_whole_", "_in_view_")
        if num.value(whole) is not None or num.value(seen) is None:
            volumes.append(num.text(whole, "ml"))
        else:
            volumes.append(f"{num.text(seen, 'ml')}*")
    ends = [f"{asymmetry}/interval_{end}_percent" for end in ("low", "high")]
    between = " to ".join(num.text(end, "signed_percent") for end in ends)
    return [
        *volumes,
        num.text(f"{asymmetry}/index_percent", "signed_percent"),
        MISSING if num.value(ends[0]) is None else between,
    ]
