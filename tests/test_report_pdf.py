"""The PDF: A4 pages that hold all of it, fonts embedded, every number equal to the JSON's."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise

import pytest
from factories import make_measures, unreliable
from pypdf import PdfReader
from test_report import CONFIG, at, evidence

from pipeline.core.results import Finding, Severity, Side
from pipeline.report import render_report, selection, words
from pipeline.report.format import MISSING, Style, show
from pipeline.report.pdf import render_pdf


@pytest.fixture(scope="module")
def measures():
    return make_measures()


@pytest.fixture(scope="module")
def content(measures):
    return render_report(measures, evidence(), config=CONFIG).pdf


@pytest.fixture(scope="module")
def pages(content):
    return [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]


def line_of(text: str, title: str) -> str:
    """The text of a table row, its cells in order."""
    found = re.search(rf"^{re.escape(title)}\n?(.*(?:\n.*){{0,4}})", text, flags=re.MULTILINE)
    assert found is not None, title
    return " ".join(found[1].split())


@pytest.mark.parametrize("page", [1, 2])
def test_every_number_of_the_tables_is_the_one_of_the_json(measures, pages, page):
    document = json.loads(measures.model_dump_json())
    if page == 1:
        rows = [
            (words.muscle_title(m.name), f"/measures/muscles/{i}")
            for i, m in enumerate(measures.measures.muscles)
        ]
    else:
        rows = [
            (f"{words.group_title(g.name)} ({words.kind_title(g.kind)})", f"/measures/groups/{i}")
            for i, g in enumerate(measures.measures.groups)
        ]
    for title, base in rows:
        wanted = []
        for side in ("right", "left"):
            whole = at(document, f"{base}/{side}/lean_volume_whole_ml")
            seen = at(document, f"{base}/{side}/lean_volume_in_view_ml")
            part = whole is None and seen is not None
            wanted.append(show(seen if part else whole, Style.MILLILITRES) + "*" * part)
        wanted.append(show(at(document, f"{base}/asymmetry/index_percent"), Style.SIGNED_PERCENT))
        low, high = (
            at(document, f"{base}/asymmetry/interval_{end}_percent") for end in ("low", "high")
        )
        wanted.append(
            MISSING
            if low is None
            else f"{show(low, Style.SIGNED_PERCENT)} to {show(high, Style.SIGNED_PERCENT)}"
        )
        assert line_of(pages[page], title).startswith(" ".join(wanted)), title


def test_the_first_page_tells_the_same_differences_as_the_json(measures, pages):
    text = " ".join(pages[0].split())
    chosen = selection.largest(measures, "lean_volume", CONFIG.largest_differences)
    for number, i in enumerate(chosen, start=1):
        muscle = measures.measures.muscles[i]
        size = show(muscle.asymmetry.index_percent, Style.MAGNITUDE_PERCENT, unit=True)
        title, side = words.muscle_title(muscle.name), muscle.asymmetry.smaller_side
        told = f"{number}. {title}: the {side} is smaller by {' '.join(size.split())}"
        assert told in text
    for i in selection.summary_groups(measures, "lean_volume"):
        group = measures.measures.groups[i]
        if group.asymmetry.index_percent is not None:
            shown = show(group.asymmetry.index_percent, Style.SIGNED_PERCENT, unit=True)
            assert " ".join(shown.split()) in text
    assert "Popliteus" in text
    assert measures.measures.muscles[29].left.reason in text


def test_three_a4_pages_with_embedded_fonts_and_nothing_that_changes(measures, content):
    reader = PdfReader(io.BytesIO(content))
    assert len(reader.pages) == 3
    for page in reader.pages:
        assert [float(v) for v in page.mediabox[2:]] == pytest.approx([595.28, 841.89], abs=0.1)
        for font in page["/Resources"]["/Font"].values():
            font = font.get_object()
            deeper = (
                font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
            )
            kind = deeper["/Subtype"]
            assert kind == "/Type3" or "/FontFile2" in deeper["/FontDescriptor"], kind
    assert "/CreationDate" not in (reader.metadata or {})
    assert render_report(measures, evidence(), config=CONFIG).pdf == content


def test_total_volume_leads_where_there_is_no_lean_volume():
    single = make_measures(single_contrast=True, registered=False)
    content = render_pdf(single, [], largest=5, scale_percent=20)
    text = " ".join(PdfReader(io.BytesIO(content)).pages[0].extract_text().split())
    assert "Compared: total volume" in text
    assert f"No lean volumes: {single.measures.muscles[0].right.lean_reason}" in text
    assert single.registration.reason in text


def text_places(content):
    """Of each page the places (x, y) in mm from its upper left corner at which text begins."""
    out = []
    for page in PdfReader(io.BytesIO(content)).pages:
        width, height = (float(v) for v in page.mediabox[2:])
        found = []

        def keep(text, outer, inner, *_, found=found, height=height):
            if text.strip():
                found.append((inner[4] + outer[4], height - inner[5] - outer[5]))

        page.extract_text(visitor_text=keep)
        assert found
        out.append([(x * 25.4 / 72, y * 25.4 / 72) for x, y in found])
        assert (width, height) == pytest.approx((595.28, 841.89), abs=0.1)
    return out


@pytest.mark.parametrize("doubtful", [6, pytest.param(20, marks=pytest.mark.slow), 30])
def test_whatever_went_wrong_every_line_lies_on_a_sheet_and_every_reason_is_told(doubtful):
    errors = tuple(
        Finding(code=f"e{k}", severity=Severity.ERROR, stage="separate", message=f"Fault {k}. Why.")
        for k in range(3)
    )
    bad = make_measures(registered=False, findings=errors)
    why = "confidence 0.{:02d} of the segmentation is below 0.70; " + "the labels disagree " * 6
    muscles = list(bad.measures.muscles)
    for i in range(doubtful):
        muscles[i] = unreliable(muscles[i], Side.RIGHT, why.format(40 + i).strip())
    bad = bad.model_copy(
        update={"measures": bad.measures.model_copy(update={"muscles": tuple(muscles)})}
    )
    content = render_report(bad, evidence(), config=CONFIG).pdf
    for places in text_places(content):
        assert max(y for _, y in places) <= 287.5
        assert all(15.0 < x < 195.0 for x, _ in places)
        # The foot and the number of the page stand alone: no other line has run into them.
        assert sum(y > 283.0 for _, y in places) == 2
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]
    text = " ".join(" ".join(pages).split())
    told = [m.right.reason for m in muscles if "confidence" in (m.right.reason or "")]
    assert len(told) >= doubtful - 3
    for reason in told:
        assert reason[: len("confidence 0.40")] in text, reason
    for k in range(3):
        assert f"Error: Fault {k}." in " ".join(pages[0].split())
    assert bad.registration.reason in text


def test_every_page_says_which_of_how_many_it_is(pages):
    for number, text in enumerate(pages, start=1):
        assert f"page {number} of {len(pages)}" in text


def test_no_letter_is_too_small_for_paper(content):
    sizes = set()

    def keep(text, outer, inner, _, size):
        if text.strip():
            sizes.add(round(size * abs(outer[0] * inner[0]), 2))

    for page in PdfReader(io.BytesIO(content)).pages:
        page.extract_text(visitor_text=keep)
    assert min(sizes) >= 8.0


def test_long_verdicts_stand_in_lines_of_their_own_below_each_other():
    """Every difference doubted: the longest verdicts take two lines and none runs off."""
    doubt = Finding(code="d", severity=Severity.WARNING, stage="load", message="Doubt.")
    content = render_pdf(
        make_measures(findings=(doubt,), caveats=("d",)), [], largest=5, scale_percent=20
    )
    for places in text_places(content):
        table = sorted(y for x, y in places if x > 137.0)
        gaps = [b - a for a, b in pairwise(table) if b - a > 0.1]
        assert min(gaps) > 3.0
    text = " ".join(PdfReader(io.BytesIO(content)).pages[1].extract_text().split())
    assert "measurable, within the healthy spread (caveat)" in text
    assert len(PdfReader(io.BytesIO(content)).pages) == 3


def test_odd_labels_stay_text():
    odd = make_measures(subject="sub-$x_1$<b>&")
    content = render_pdf(odd, [], largest=5, scale_percent=20)
    assert "sub-$x_1$<b>&" in PdfReader(io.BytesIO(content)).pages[0].extract_text()
