"""The report: every number is the JSON's, nothing is fetched, nothing missing reads as 0."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import matplotlib
import numpy as np
import pytest
from factories import asymmetry, make_measures, measurement
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader

from pipeline.config import default_config
from pipeline.core.anatomy import LEFT_OFFSET, OWN_SCHEME, STRUCTURES
from pipeline.core.errors import InvariantError
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Measures, Severity, Status, Verdict
from pipeline.core.transform import identity, mirror
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.imaging.local_difference import no_local_difference
from pipeline.report import (
    ReportEvidence,
    drawing,
    label_table,
    legs,
    measures_table,
    pictures,
    profiles,
    reach,
    render_report,
    selection,
    wide_table,
    words,
)
from pipeline.report.format import Style, decimals, show, tsv
from pipeline.report.numbers import Numbers

CONFIG = default_config().report
SIDES = ("right", "left")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a test needs of a page: its numbers, texts, ids, links and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[dict[str, str], str]] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._number: dict[str, str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        found = {k: v or "" for k, v in attrs}
        self.attributes += [(tag, k, v) for k, v in found.items()]
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "data":
            self._number = found

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "data":
            self._number = None

    def handle_data(self, data: str) -> None:
        if {"style", "script", "title"} & set(self._open) or not data.strip():
            return
        self.texts.append(data.strip())
        if self._number is not None:
            self.numbers.append((self._number, data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def evidence(
    *,
    image: bool = True,
    fat: bool = True,
    registered: bool = True,
    shape=(64, 32, 24),
    change: float | None = None,
) -> ReportEvidence:
    """Two mirror-symmetric legs of three muscles and a bone on a small grid around x = 0."""
    affine = np.diag([4.0, 4.0, 12.0, 1.0])
    affine[:3, 3] = [-4.0 * (shape[0] - 1) / 2, -60.0, -500.0]
    grid = Grid(shape, affine, "scanner")
    labels = np.zeros(shape, dtype=np.int16)
    half = shape[0] // 2
    for value, columns, rows in (
        (9, (14, 24), (8, 20)),
        (13, (4, 13), (5, 14)),
        (41, (8, 12), (18, 22)),
    ):
        right = slice(half + columns[0], half + columns[1])
        left = slice(half - columns[1], half - columns[0])
        labels[right, slice(*rows), 2:-2] = value
        labels[left, slice(*rows), 2:-2] = value + LEFT_OFFSET
    rng = np.random.default_rng(5)
    signal = rng.normal(100.0, 12.0, shape).astype(np.float32)
    fraction = rng.uniform(0.0, 0.3, shape)
    fraction[:, :, 0] = np.nan
    to_left = identity("right leg", "left leg") if registered else None
    return ReportEvidence(
        labels=LabelMap(labels, grid, OWN_SCHEME),
        image=Volume(signal, grid, Quantity.WATER) if image else None,
        fat_fraction=fraction if fat else None,
        right_to_scanner=identity("right leg", "scanner"),
        left_to_scanner=mirror(0.0, "left leg", "scanner"),
        right_to_left=to_left,
        log_jacobian=None if change is None else (np.full(shape, change, np.float32), grid),
    )


def without_profiles(measures: Measures, **of_every_muscle: object) -> Measures:
    """The same without what is drawn along the limb, which takes most of the time of a report."""
    nowhere = no_local_difference("not asked for")
    muscles = []
    for m in measures.measures.muscles:
        sides = {s: getattr(m, s).model_copy(update={"profile": ()}) for s in ("right", "left")}
        muscles.append(
            m.model_copy(update={**sides, "local_difference": nowhere, **of_every_muscle})
        )
    limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
    return measures.model_copy(update={"measures": limb})


@pytest.fixture(scope="module")
def measures() -> Measures:
    return make_measures()


@pytest.fixture(scope="module")
def rendered(measures: Measures):
    return render_report(measures, evidence(change=0.1), config=CONFIG)


def found(stage: str, severity: Severity, message: str, code: str = "c") -> Finding:
    return Finding(code=code, severity=severity, stage=stage, message=message)


SWAPPED = found("load", Severity.ERROR, "Fat and water are swapped.", "swap")
CAVEAT = found(
    "separate",
    Severity.WARNING,
    "The body lay to one side. This alone can make the legs differ.",
    "off_isocentre",
)
TOUCH = found("separate", Severity.WARNING, "The legs touch.", "legs_touch")


@pytest.fixture(scope="module")
def doubted() -> Measures:
    """An error, a warning that may fake every difference and one that may not."""
    return make_measures(findings=(SWAPPED, TOUCH, CAVEAT), caveats=(CAVEAT.code,))


@pytest.fixture(scope="module")
def doubted_report(doubted: Measures):
    """Of the results alone, without pictures."""
    return render_report(doubted, None, config=CONFIG)


@pytest.fixture(scope="module")
def single() -> Measures:
    """One contrast, legs that could not be laid onto each other, and checks that struck."""
    noticed = (
        found("separate", Severity.WARNING, "The legs are alike. Look."),
        found("separate", Severity.ERROR, "One leg is shown twice. Look."),
        found("segment", Severity.WARNING, "Labels move. Look."),
        found("load", Severity.INFO, "A file was left out."),
    )
    return make_measures(single_contrast=True, registered=False, findings=noticed)


@pytest.fixture(scope="module")
def single_report(single: Measures):
    only = evidence(image=False, fat=False, registered=False)
    return render_report(single, only, config=CONFIG)


@pytest.fixture(scope="module")
def single_page(single_report) -> Page:
    return Page(single_report.html)


def at(document: Any, pointer: str) -> Any:
    for part in pointer.removeprefix("/").split("/"):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


class TestNumbers:
    def test_every_number_of_the_page_is_the_one_of_the_json(self, measures, rendered):
        document = json.loads(measures.model_dump_json())
        numbers = Page(rendered.html).numbers
        assert len(numbers) > 400
        for element, text in numbers:
            value = at(document, element["data-pointer"])
            assert float(element["value"]) == value, element
            style = Style(element["data-style"])
            assert text in (show(value, style), show(value, style, unit=True)), element

    def test_the_page_shows_what_was_measured_of_every_muscle(self, measures, rendered):
        shown = {e["data-pointer"] for e, _ in Page(rendered.html).numbers}
        for i, muscle in enumerate(measures.measures.muscles):
            wanted = ["asymmetry/index_percent", "asymmetry/interval_low_percent"]
            wanted += ["asymmetry_total_volume/index_percent", "healthy_limit_percent"]
            for side in ("right", "left"):
                whole = getattr(muscle, side).volume_whole_ml is not None
                extent = "whole" if whole else "in_view"
                wanted += [f"{side}/volume_{extent}_ml", f"{side}/lean_volume_{extent}_ml"]
                wanted += [f"{side}/fat_fraction_percent"]
            document = json.loads(muscle.model_dump_json())
            for pointer in wanted:
                if at(document, pointer) is not None:
                    assert f"/measures/muscles/{i}/{pointer}" in shown

    def test_the_chart_writes_the_same_numbers(self, measures, rendered):
        svg = rendered.figures["asymmetry.svg"].decode()
        for muscle in measures.measures.muscles:
            if muscle.asymmetry.index_percent is not None:
                text = show(muscle.asymmetry.index_percent, Style.SIGNED_PERCENT)
                assert re.search(rf">{re.escape(text)}\s+\(", svg), muscle.name

    def test_the_table_for_programs_holds_the_same_values(self, measures):
        rows = list(csv.DictReader(io.StringIO(measures_table(measures)), delimiter="\t"))
        results = [*measures.measures.muscles, *measures.measures.groups]
        assert [r["name"] for r in rows] == [r.name for r in results]
        for row, result in zip(rows, results, strict=True):
            for side in ("right", "left"):
                measurement = getattr(result, side)
                assert row[f"status_{side}"] == measurement.status
                for column, field in (
                    (f"volume_whole_{side}_ml", "volume_whole_ml"),
                    (f"volume_in_view_{side}_ml", "volume_in_view_ml"),
                    (f"lean_volume_matched_{side}_ml", "lean_volume_matched_ml"),
                    (f"fat_fraction_core_{side}_percent", "fat_fraction_core_percent"),
                ):
                    assert_cell(row[column], getattr(measurement, field))
            assert_cell(row["asymmetry_lean_percent"], result.asymmetry.index_percent)
            assert_cell(row["interval_low_percent"], result.asymmetry.interval_low_percent)
            total = result.asymmetry_total_volume.index_percent
            assert_cell(row["asymmetry_total_volume_percent"], total)
            for column in ("healthy_limit_percent", "healthy_limit_half_width_percent"):
                assert_cell(row[column], getattr(result, column))
            assert row["healthy_limit_people"] == str(result.healthy_limit_people or "n/a")

    def test_the_wide_table_holds_every_cell_of_the_long_one_once(self, measures):
        header, *rows = (line.split("\t") for line in wide_table(measures).splitlines())
        assert len(rows) == 1
        assert len(set(header)) == len(header) == len(rows[0])
        wide = dict(zip(header, rows[0], strict=True))
        assert (wide["subject"], wide["session"]) == ("sub-01", "n/a")
        long = list(csv.DictReader(io.StringIO(measures_table(measures)), delimiter="\t"))
        for row in long:
            cells = {k: v for k, v in row.items() if k not in ("name", "kind", "reason")}
            assert {k: wide[f"{row['name']}_{k}"] for k in cells} == cells
        assert len(wide) == 3 + len(long) * (len(long[0]) - 3)


def assert_cell(text: str, value: float | None) -> None:
    if value is None:
        assert text == "n/a"
    else:
        # Two decimals are written.
        assert float(text) == pytest.approx(value, abs=0.0051)


class TestFormat:
    @given(st.floats(1e-6, 1e5), st.integers(0, 3))
    def test_what_is_not_zero_never_reads_as_zero(self, value, places):
        assert float(decimals(value, places)) != 0
        assert float(decimals(-value, places)) == -float(decimals(value, places))
        error = abs(float(decimals(value, places)) - value)
        assert error <= max(0.5 * 10.0**-places, 0.5 * value) * 1.0001

    @given(st.floats(0.5, 1e4))
    def test_volumes_keep_three_digits(self, value):
        assert float(show(value, Style.MILLILITRES)) == pytest.approx(value, rel=0.011)

    @pytest.mark.parametrize(
        ("value", "style", "text"),
        [
            (None, Style.MILLILITRES, "n/a"),
            (523.4, Style.MILLILITRES, "523"),
            (63.24, Style.MILLILITRES, "63.2"),
            (99.97, Style.MILLILITRES, "100"),
            (4.214, Style.MILLILITRES, "4.21"),
            (-9.81, Style.SIGNED_PERCENT, "\N{MINUS SIGN}9.8"),
            (9.81, Style.SIGNED_PERCENT, "+9.8"),
            (0.03, Style.SIGNED_PERCENT, "+0.03"),
            (0.0, Style.SIGNED_PERCENT, "0.0"),
            (-1e-14, Style.SIGNED_PERCENT, "0.0"),
            (-9.81, Style.MAGNITUDE_PERCENT, "9.8"),
            (0.62, Style.SHARE, "62"),
            (0.998, Style.SHARE, ">99"),
            (1.0, Style.SHARE, "100"),
            (8.8, Style.LIMIT_PERCENT, "\N{PLUS-MINUS SIGN}8.8"),
        ],
    )
    def test_examples(self, value, style, text):
        assert show(value, style) == text

    def test_tables_for_programs_are_plain(self):
        assert tsv(-3.14159) == "-3.14"
        assert tsv(0.0004) == "0.0004"
        assert tsv(None) == "n/a"


class TestHonesty:
    def test_the_first_line_says_who_made_the_labels(self, measures, rendered):
        assert Page(rendered.html).texts[0] == measures.engine.note

    def test_every_reason_appears(self, measures, rendered):
        text = Page(rendered.html).text
        for result in (*measures.measures.muscles, *measures.measures.groups):
            for side in (result.right, result.left):
                if side.reason is not None:
                    assert side.reason in text

    def test_every_status_and_finding_appears(self, measures, rendered):
        text = Page(rendered.html).text
        for status in (Status.ABSENT, Status.TRUNCATED, Status.UNRELIABLE):
            assert f"left {status}" in text or f"right {status}" in text
        for finding in measures.findings:
            assert finding.message in text

    def test_missing_values_read_as_missing(self, single, single_page):
        pointers = {e["data-pointer"] for e, _ in single_page.numbers}
        assert not any("lean_volume" in p or "fat_fraction" in p for p in pointers)
        assert single_page.texts.count("n/a") > 100
        for cell in measures_table(single).split("\n")[1].split("\t"):
            assert cell not in ("0", "0.0", "0.00", "")

    def test_total_volume_leads_where_there_is_no_lean_volume_and_says_why(
        self, single, single_page
    ):
        reason = single.measures.muscles[0].right.lean_reason
        assert single_page.text.index(reason) < single_page.text.index("Muscle groups")
        assert "Total volume leads on this page" in single_page.text
        leading = [
            e["data-pointer"]
            for e, _ in single_page.numbers
            if "index_percent" in e["data-pointer"]
        ]
        assert all("asymmetry_total_volume" in p or "local_difference" in p for p in leading)
        assert {m.local_difference.of for m in single.measures.muscles} <= {"total_volume", None}

    def test_a_failed_registration_is_said_at_the_top(self, single, single_page):
        assert single_page.text.index(single.registration.reason) < single_page.text.index(
            "Muscle groups"
        )

    def test_errors_are_said_at_the_top(self, doubted_report):
        text = Page(doubted_report.html).text
        assert text.index(SWAPPED.message) < text.index("Muscle groups")

    def test_what_may_fake_a_difference_is_said_at_the_top_and_with_every_verdict(
        self, doubted, doubted_report
    ):
        assert selection.caveats(doubted) == [CAVEAT]
        text = Page(doubted_report.html).text
        assert text.index(f"Caveat on every difference: {CAVEAT.message}") < text.index(
            "Muscle groups"
        )
        assert "Caveat on every difference: The legs touch" not in text
        judged = [m for m in doubted.measures.muscles if m.asymmetry.verdict is not None]
        assert judged
        assert {words.verdict_text(m, "lean_volume").endswith(" (caveat)") for m in judged} == {
            True
        }
        assert text.count("measurable (caveat)") >= 5
        rows = list(csv.DictReader(io.StringIO(measures_table(doubted)), delimiter="\t"))
        assert {row["caveats"] for row in rows} == {"off_isocentre"}
        assert {row["total_volume_caveats"] for row in rows} == {"off_isocentre"}
        first = PdfReader(io.BytesIO(doubted_report.pdf)).pages[0].extract_text()
        assert "Caveat on every difference: The body lay to one side." in first
        assert "measurable (caveat)" in first

    def test_a_healthy_limit_says_how_unsure_it_is(self, rendered):
        said = "healthy limit 12.0 % ±4.6 (21 people) of total volume, which differs by"
        page = " ".join(Page(rendered.html).text.replace("\xa0", " ").split())
        assert page.replace("( ", "(").count("(21 people)") >= 2
        first = PdfReader(io.BytesIO(rendered.pdf)).pages[0].extract_text()
        assert said in " ".join(first.split())

    def test_every_stage_gets_the_worst_verdict_of_its_checks(self, single, single_page):
        checks = {check.name: check for check in selection.stage_checks(single)}
        assert "reconcile" not in checks
        assert {name: check.verdict for name, check in checks.items()} == {
            "load": "fine",
            "canonicalise": "fine",
            "separate": "failed",
            "segment": "look at",
            "register": "failed",
            "measure": "fine",
        }
        twice = ("One leg is shown twice.", "The legs are alike.")
        assert checks["separate"].noticed == twice
        assert checks["register"].noticed == (f"{single.registration.reason}.",)
        assert f"telling the legs apart failed {' '.join(twice)}" in single_page.text
        # What a stage found without a doubt is told too.
        assert checks["load"].notes == ("A file was left out.",)
        assert checks["load"].summary == "fine; 1 note"
        assert "reading the files fine; 1 note A file was left out." in single_page.text

    def test_the_profiles_say_what_they_are_of(self, measures, rendered, single_page):
        assert "Lean cross-section of every muscle" in Page(rendered.html).text
        assert "Of lean volume." in Page(rendered.html).text
        assert "Cross-section, fat inside the muscle included, of every muscle" in single_page.text
        # An estimate is not drawn, also where no level was matched and the profiles hold it.
        muscles = []
        for m in measures.measures.muscles:
            sides = {
                side: getattr(m, side).model_copy(update={"lean_estimate": "a guess"})
                for side in ("right", "left")
            }
            nowhere = no_local_difference("the registration failed")
            muscles.append(m.model_copy(update={**sides, "local_difference": nowhere}))
        limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
        assert profiles.profiles_of(measures.model_copy(update={"measures": limb})) == {
            "total_volume"
        }

    def test_a_difference_beyond_the_limit_is_not_called_within_it(self, measures):
        """25 % (9 to 41) against a limit of 12 %: not surely more than healthy legs, nor less."""
        wide = measures.measures.muscles[8].asymmetry.model_copy(
            update={
                "index_percent": 25.0,
                "interval_low_percent": 9.0,
                "interval_high_percent": 41.0,
                "verdict": Verdict.NOT_SURELY_OUTSIDE,
            }
        )
        muscles = list(measures.measures.muscles)
        muscles[8] = muscles[8].model_copy(
            update={
                "asymmetry": wide,
                "asymmetry_total_volume": wide.model_copy(update={"of": "total_volume"}),
                "healthy_limit_percent": 12.0,
            }
        )
        limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
        wider = measures.model_copy(update={"measures": limb})
        said = "not surely outside the healthy spread"
        assert words.verdict_text(muscles[8], "lean_volume") == said
        alone = wide.model_copy(update={"verdict": Verdict.MEASURABLE})
        fat = muscles[8].model_copy(update={"asymmetry": alone})
        assert words.verdict_text(fat, "lean_volume") == "beyond the limit in lean volume alone"
        report = render_report(without_profiles(wider), None, config=CONFIG)
        page = Page(report.html).text
        pdf = [
            " ".join(page.extract_text().split())
            for page in PdfReader(io.BytesIO(report.pdf)).pages
        ]
        for text in (page, *pdf[:2]):
            assert said in text
        for text in (page, pdf[0]):
            assert "1 more, but not surely" in text

    def test_a_confidence_names_its_side_and_a_missing_one_is_told_once(self, measures):
        muscles = [
            m.model_copy(
                update={s: getattr(m, s).model_copy(update={"confidence": 0.9}) for s in SIDES}
            )
            for m in without_profiles(measures).measures.muscles
        ]
        limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
        sure = measures.model_copy(update={"measures": limb})
        text = Page(render_report(sure, None, config=CONFIG).html).text
        assert text.count("right 90 left 90") == len(muscles)
        assert "left n/a" not in text

    def test_without_a_caveat_none_is_said(self, measures, rendered):
        assert selection.caveats(measures) == []
        assert "caveat" not in Page(rendered.html).text.lower()

    def test_muscles_without_a_number_are_listed_not_drawn(self, rendered):
        assert "Popliteus" not in rendered.figures["asymmetry.svg"].decode()
        assert "Without a number, so without a bar: Popliteus" in Page(rendered.html).text


def contrast(one: str, other: str) -> float:
    """Contrast of two colours #rrggbb by WCAG 2."""

    def luminance(colour: str) -> float:
        shares = np.array([int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)])
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [drawing.COLOURS, drawing.DARK_COLOURS])
@pytest.mark.parametrize("letters", ["ink", "muted", "left", "right"])
def test_letters_have_enough_contrast_on_every_paper(colours, letters):
    for paper in ("paper", "band"):
        assert contrast(colours[letters], colours[paper]) >= 4.5


class TestCharts:
    def test_one_poor_row_does_not_set_the_scale_of_the_others(self):
        usual = [(3.0, -4.0, 9.0), (5.0, 1.0, 8.0), (1.0, -7.0, 7.5), (6.0, 2.0, 10.0)]
        assert reach.shared_reach(usual) == 10.0
        assert reach.shared_reach([*usual, (15.0, 5.0, 25.0)]) == 25.0
        assert reach.shared_reach([*usual, (60.0, -70.0, 190.0)]) == 4 * 9.0
        assert reach.shared_reach([]) == 10.0
        assert reach.goes_on((60.0, -70.0, 190.0), 36.0) == (-70.0, 190.0)
        assert reach.goes_on((-3.0, 36.0), 36.0) == (None, None)

    def test_what_goes_on_beyond_the_scale_says_so_and_how_far(self, measures):
        """The hip abductors and one of them: 60 % (-70 to 190)."""
        poor = {
            "index_percent": 60.0,
            "interval_low_percent": -70.0,
            "interval_high_percent": 190.0,
            "verdict": Verdict.WITHIN_ERROR,
        }
        limb = without_profiles(measures).measures
        rows = {"muscles": list(limb.muscles), "groups": list(limb.groups)}
        for kind, name in (("muscles", "gluteus_medius"), ("groups", "hip_abductors")):
            i = next(i for i, row in enumerate(rows[kind]) if row.name == name)
            worse = rows[kind][i].asymmetry.model_copy(update=poor)
            rows[kind][i] = rows[kind][i].model_copy(update={"asymmetry": worse})
        limb = limb.model_copy(update={kind: tuple(found) for kind, found in rows.items()})
        report = render_report(measures.model_copy(update={"measures": limb}), None, config=CONFIG)
        said = "drawn cut: the 95 % interval is −70.0 to +190.0 %"
        page = Page(report.html)
        assert said in page.text.replace("\xa0", " ")
        assert page.tags.count("u") == 2
        widths = [
            float(found[1])
            for found in re.finditer(
                r'<i class="\w+(?: faint)?" style="[^"]*width:([\d.]+)%"', report.html
            )
        ]
        assert max(widths) == 50.0
        # On a scale to 190 a typical one would fill a hundredth of it.
        assert np.median(widths) > 3.0
        first = PdfReader(io.BytesIO(report.pdf)).pages[0].extract_text()
        assert said in " ".join(first.split())
        texts = re.findall(r">([^<>]+)</text>", report.figures["asymmetry.svg"].decode())
        assert {"−70.0", "+190.0"} <= set(texts)

    def test_a_saved_chart_is_read_without_the_page(self, measures, rendered):
        """Of whom and what it is, its unit, which side is which, and what lines and bands mean."""
        wanted = {
            "asymmetry": (
                "Difference in lean volume between the right and the left leg",
                "difference between the sides, % of their mean",
                *("\N{LEFTWARDS ARROW} left larger", "right larger \N{RIGHTWARDS ARROW}"),
                *("larger than the measurement error", "may be nothing but measurement error"),
                *("95 % interval", "95 % of healthy people (total volume)"),
            ),
            "profiles": (
                "Lean cross-section of every muscle in cm², from hip over knee to ankle",
                *("right leg", "left leg", "difference: left, right larger"),
            ),
            "local_differences": (
                "Difference of the cross-sections of every muscle along the limb, "
                "right − left in %",
                "left larger \N{LEFTWARDS ARROW}   \N{RIGHTWARDS ARROW} right larger",
            ),
        }
        for name, texts in wanted.items():
            svg = rendered.figures[f"{name}.svg"].decode()
            shown = [html.unescape(text) for text in re.findall(r">([^<>]+)</text>", svg)]
            assert set(texts) <= set(shown), (name, shown)
            assert any(measures.subject in text for text in shown), name
            # Dark letters need paper of their own on a dark viewer.
            assert drawing.COLOURS["paper"] in svg[: svg.index("<text")], name

    def test_a_saved_picture_has_a_head_that_the_page_says_in_its_own_words(self, rendered):
        sizes = [
            (int(found[1]), int(found[2]))
            for found in re.finditer(r'<img [^>]*width="(\d+)" height="(\d+)"', rendered.html)
        ]
        heads = pictures.heads(evidence(), "sub-07 ses-2")
        for name, content in rendered.figures.items():
            if not name.endswith(".png"):
                continue
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
            assert (pixels.shape[1], pixels.shape[0]) not in sizes, name
            stem = name.removesuffix(".png")
            if stem.startswith("legs"):
                head = legs.head_of(
                    stem.removeprefix("legs_"), "lean_volume", "sub-07 ses-2", scale_percent=20.0
                )
            else:
                head = heads[stem]
            meanings = " ".join((head.title, head.notes, *(text for _, text in head.key)))
            assert head.notes.startswith("sub-07 ses-2."), name
            assert "right" in meanings, name
            # Letters as light or dark as the paper is dark or light.
            top = pixels[:20]
            assert abs(top - top[0, 0]).max() > 150, name


class TestWords:
    def test_the_largest_differences_are_judged_ones_in_order(self, measures):
        chosen = selection.largest(measures, "lean_volume", 30)
        found = [measures.measures.muscles[i].asymmetry for i in chosen]
        assert all(a.verdict is not None for a in found)
        doubtful = [a.verdict is Verdict.WITHIN_ERROR for a in found]
        assert doubtful == sorted(doubtful)
        assert any(doubtful)
        assert not all(doubtful)
        for kind in (False, True):
            sizes = [
                abs(a.index_percent) for a, d in zip(found, doubtful, strict=True) if d is kind
            ]
            assert sizes == sorted(sizes, reverse=True)

    @pytest.mark.parametrize(
        ("name", "difference", "interval"),
        [
            ("vastus_lateralis", "the left is smaller by 10.4 %", "95 % interval 6.3 to 14.6 %"),
            ("rectus_femoris", "the right is smaller by 10.6 %", "95 % interval 6.4 to 14.7 %"),
            (
                "deep_hip_rotators",
                "the left is smaller by 2.7 %",
                "95 % interval from 1.4 % larger to 6.9 % smaller",
            ),
            (
                "tensor_fasciae_latae",
                "the right is smaller by 1.8 %",
                "95 % interval from 2.4 % larger to 5.9 % smaller",
            ),
        ],
    )
    def test_differences_in_plain_words(self, measures, name, difference, interval):
        i = next(i for i, m in enumerate(measures.measures.muscles) if m.name == name)
        result, base = measures.measures.muscles[i], f"/measures/muscles/{i}"
        num = Numbers(measures)
        said = words.difference(result, base, "lean_volume", num).striptags()
        assert said.replace("\N{NO-BREAK SPACE}", " ") == difference
        said = words.interval(result, base, "lean_volume", num).striptags()
        assert said.replace("\N{NO-BREAK SPACE}", " ") == interval

    def test_what_was_not_judged_is_grouped_by_why(self, measures, single):
        kinds = {u.heading: u.muscles for u in selection.unjudged(measures, "lean_volume")}
        assert kinds == {
            "Not found": ("Popliteus",),
            "Not reliable": ("Flexor digitorum longus",),
        }
        kinds = {u.heading: u.muscles for u in selection.unjudged(single, "total_volume")}
        assert kinds["Cut by the edge of what was scanned or labelled"] == (
            "Gluteus maximus",
            "Iliopsoas",
        )

    def test_groups_of_the_first_screen_name_equal_sets_once(self, measures):
        groups = [
            measures.measures.groups[i] for i in selection.summary_groups(measures, "lean_volume")
        ]
        sets = [frozenset(g.muscles) for g in groups]
        assert len(sets) == len(set(sets))
        assert groups[0].kind == "limb"


class TestPage:
    def test_the_same_bytes_twice_whatever_the_users_settings(self, measures, rendered):
        with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30.0}):
            again = render_report(measures, evidence(change=0.1), config=CONFIG)
        assert again.html == rendered.html
        assert dict(again.figures) == dict(rendered.figures)

    def test_nothing_is_fetched_and_only_the_sorting_runs(self, rendered):
        page = Page(rendered.html)
        scripts = re.findall(r"<script>(.*?)</script>", rendered.html, flags=re.DOTALL)
        assert page.tags.count("script") == len(scripts) == 1
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in rendered.html
        assert re.search(r"(?i)https?://|//[a-z]+\.", rendered.html) is None
        assert not {"link", "iframe", "object"} & set(page.tags)
        for tag, name, value in page.attributes:
            if name in ("src", "href"):
                assert value.startswith(("data:image/", "#")), (tag, name)
            assert not name.startswith("on")
        assert re.search(r"url\((?!#|&quot;#)", rendered.html) is None

    def test_ids_are_unique_and_links_lead_somewhere(self, rendered):
        page = Page(rendered.html)
        assert len(page.ids) == len(set(page.ids))
        for tag, name, value in page.attributes:
            if name in ("href", "aria-labelledby"):
                assert value.removeprefix("#") in page.ids, (tag, value)

    def test_pictures_have_alternative_texts(self, rendered):
        page = Page(rendered.html)
        pictures_shown = page.tags.count("img")
        assert pictures_shown == 8
        texts = [v for t, k, v in page.attributes if t == "img" and k == "alt"]
        assert len([t for t in texts if len(t) > 20]) == pictures_shown

    def test_reference_volumes_stand_with_their_warning_or_not_at_all(self, measures, rendered):
        page = Page(rendered.html)
        assert "published without a spread" in page.text
        shown = {e["data-pointer"] for e, _ in page.numbers}
        for i in range(len(measures.measures.muscles)):
            assert f"/measures/muscles/{i}/expected_volume_ml" in shown
        unknown = without_profiles(measures, expected_volume_ml=None)
        assert "expected" not in Page(render_report(unknown, None, config=CONFIG).html).ids

    def test_markup_in_texts_is_escaped(self):
        evil = "<script>alert(1)</script>&\"'"
        finding = Finding(code="x", severity=Severity.WARNING, stage="load", message=evil)
        original = make_measures(subject=f"sub-{evil}", findings=(finding,))
        muscles = list(original.measures.muscles)
        absent = muscles[29]
        left = absent.left.model_copy(update={"reason": evil})
        muscles[29] = absent.model_copy(update={"left": left})
        limb = original.measures.model_copy(update={"muscles": tuple(muscles)})
        note = original.engine.model_copy(update={"note": evil})
        spoilt = original.model_copy(
            update={"measures": limb, "engine": note, "interval_basis": evil}
        )
        text = render_report(without_profiles(spoilt), None, config=CONFIG).html
        assert text.count("<script") == 1
        assert "<script>alert" not in text
        assert Page(text).text.count(evil) >= 4
        assert text.count(html.escape("<script>")) >= 4

    def test_a_page_without_pictures(self, doubted_report):
        assert sorted(doubted_report.figures) == [
            "asymmetry.svg",
            "local_differences.svg",
            "profiles.svg",
        ]
        assert "There is nothing to show" in Page(doubted_report.html).text

    def test_a_page_where_nothing_could_be_measured(self, measures):
        gone = measurement(None, status=Status.ABSENT, reason="not labelled")
        none = asymmetry(None, None, reason="absent")
        update = {
            "right": gone,
            "left": gone,
            "asymmetry": none,
            "asymmetry_total_volume": none.model_copy(update={"of": "total_volume"}),
            "local_difference": no_local_difference("absent"),
        }
        limb = measures.measures.model_copy(
            update={
                "muscles": tuple(m.model_copy(update=update) for m in measures.measures.muscles),
                "groups": tuple(
                    g.model_copy(update={**update, "muscles_compared": ()})
                    for g in measures.measures.groups
                ),
                "expected_flagged_by_chance": None,
            }
        )
        empty = measures.model_copy(update={"measures": limb})
        page = Page(render_report(empty, None, config=CONFIG).html)
        assert "No muscle could be judged on both sides" in page.text
        assert not any("index_percent" in e["data-pointer"] for e, _ in page.numbers)

    def test_labels_alone_give_pictures(self, single_report):
        assert "segmentation_axial.png" in single_report.figures
        assert not {"fat_fraction.png", "registration.png"} & set(single_report.figures)

    def test_it_stays_small_even_for_noise(self, measures, rendered):
        noise = evidence(shape=(320, 200, 24))
        page = render_report(without_profiles(measures), noise, config=CONFIG).html
        # The other page holds the charts along the limb, and pictures besides.
        assert len(page.encode()) + len(rendered.html.encode()) < 3_000_000


class TestPictures:
    def test_the_right_leg_is_on_the_left_of_the_picture(self):
        both = evidence(image=False)
        data = both.labels.data.copy()
        data[data > LEFT_OFFSET] = 0
        alone = ReportEvidence(
            labels=LabelMap(data, both.labels.grid, OWN_SCHEME),
            image=None,
            fat_fraction=None,
            right_to_scanner=both.right_to_scanner,
            left_to_scanner=both.left_to_scanner,
            right_to_left=None,
        )
        # The box of the labels is all right leg: put a left voxel far out to widen it.
        data[2, 16, 12] = 9 + LEFT_OFFSET
        for draw in (pictures.segmentation_axial, pictures.segmentation_coronal):
            pixels = draw(alone, [12], dpi=60).astype(int)
            vivid = pixels.max(axis=2) - pixels.min(axis=2) > 60
            columns = np.nonzero(vivid)[1]
            assert np.median(columns) < pixels.shape[1] / 2

    def test_symmetric_legs_cover_each_other(self):
        both = evidence()
        grid = both.labels.grid
        box = (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
        carried = pictures._carried_labels(both, both.right_to_left, 12, box)
        plane = both.labels.data[:, :, 12]
        right = np.where(plane < LEFT_OFFSET, plane, 0)
        assert np.array_equal(carried, right)
        assert right.any()

    def test_the_change_of_volume_is_blue_where_the_right_is_larger(self, rendered):
        both = evidence(image=False)
        assert pictures.volume_change_map(both, scale_percent=20.0, dpi=60) is None
        blue = []
        for change in (0.15, -0.15):
            shown = evidence(image=False, change=change)
            pixels = pictures.volume_change_map(shown, scale_percent=20.0, dpi=60).astype(int)
            vivid = pixels.max(axis=2) - pixels.min(axis=2) > 60
            # Without the scale at the foot, which shows both colours.
            vivid[-40:] = False
            assert vivid.sum() > 100
            blue.append(np.median((pixels[..., 2] - pixels[..., 0])[vivid]))
        assert blue[0] > 60
        assert blue[1] < -60
        said = "it cannot show where within a muscle volume was lost"
        assert said in Page(rendered.html).text

    def test_levels_run_from_the_top_over_what_is_labelled(self):
        levels = pictures.axial_levels(evidence(), 6)
        assert levels == sorted(levels, reverse=True)
        assert len(levels) == 6
        assert min(levels) >= 2
        assert max(levels) <= 21

    def test_figures_are_readable_images(self, rendered):
        for name, content in rendered.figures.items():
            if name.endswith(".png"):
                assert Image.open(io.BytesIO(content)).size[0] > 300, name

    def test_evidence_refuses_what_would_draw_wrong_sides(self):
        good = evidence()
        flipped = good.labels.grid.affine.copy()
        flipped[0] *= -1.0
        grid = Grid(good.labels.grid.shape, flipped, "scanner")
        with pytest.raises(InvariantError, match="canonical"):
            ReportEvidence(
                labels=LabelMap(good.labels.data, grid, OWN_SCHEME),
                image=None,
                fat_fraction=None,
                right_to_scanner=good.right_to_scanner,
                left_to_scanner=good.left_to_scanner,
                right_to_left=None,
            )
        with pytest.raises(InvariantError, match="mirrored"):
            ReportEvidence(
                labels=good.labels,
                image=None,
                fat_fraction=None,
                right_to_scanner=good.right_to_scanner,
                left_to_scanner=identity("left leg", "scanner"),
                right_to_left=None,
            )


class TestLookUpTable:
    def test_every_label_has_one_row(self):
        rows = list(csv.DictReader(io.StringIO(label_table()), delimiter="\t"))
        assert [int(r["index"]) for r in rows] == sorted(OWN_SCHEME.structures)
        assert len(rows) == 2 * len(STRUCTURES)
        for column in ("name", "abbreviation"):
            assert len({r[column] for r in rows}) == len(rows)
        assert all(re.fullmatch(r"#[0-9a-f]{6}", r["color"]) for r in rows)
        for row in rows:
            name, side = OWN_SCHEME.structures[int(row["index"])]
            assert row["name"] == f"{name}_{side}"
