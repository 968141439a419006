"""Follow-up: what is called a change, what is not judged, and what a reader is warned of."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bodies import GIVEN, PERSON, VOXEL_MM, small_scan, write_subject
from factories import make_measures
from test_report import Page, assert_cell, at

from benchmarks.follow_up import shaved
from pipeline import cli, load_config, process_subject
from pipeline.core.anatomy import Side
from pipeline.core.change import Changes, ChangeVerdict
from pipeline.core.errors import UsageError
from pipeline.core.results import Finding, Measures, ScannerSettings, Severity, Status
from pipeline.imaging.asymmetry import se_from_scan_rescan
from pipeline.imaging.change import (
    detectable_change,
    judge_change,
    volume_interval_percent,
)
from pipeline.phantom import Acquisition, Pose, acquire, grid_for, make_body
from pipeline.report.change import change_table, render_change
from pipeline.report.format import Style, show
from pipeline.stages.compare import compare

CONFIG = GIVEN.compare


def scan(session: str, *, number: int = 1, **changes) -> Measures:
    """Hand-made results of one session; every session has input files of its own."""
    made = make_measures(session=session)
    used = made.provenance.model_copy(update={"inputs": {"water.nii.gz": f"{number:02d}" * 32}})
    return made.model_copy(update={"provenance": used, **changes})


def copied(measures: Measures) -> Measures:
    """The same images in the folder of another session, under its names."""
    inputs = {f"ses-2_{name}": digest for name, digest in measures.provenance.inputs.items()}
    inputs["participants.tsv"] = "ab" * 32
    used = measures.provenance.model_copy(update={"inputs": inputs})
    return measures.model_copy(update={"session": "ses-2", "provenance": used})


def scaled(measures: Measures, name: str, side: Side, factor: float) -> Measures:
    """Results in which one muscle's volumes on one side are so many times as large."""
    muscles = []
    for m in measures.measures.muscles:
        if m.name == name:
            part = getattr(m, side)
            fields = [f for f in type(part).model_fields if "volume" in f and f.endswith("_ml")]
            update = {f: getattr(part, f) * factor for f in fields if getattr(part, f) is not None}
            right = part.model_copy(update=update)
            moved = 100.0 * math.log(factor) * (1 if side is Side.RIGHT else -1)
            index = m.asymmetry.index_percent + moved
            m = m.model_copy(
                update={
                    str(side): right,
                    "asymmetry": m.asymmetry.model_copy(update={"index_percent": index}),
                }
            )
        muscles.append(m)
    limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
    return measures.model_copy(update={"measures": limb})


def with_error(measures: Measures, name: str, side: Side, percent: float) -> Measures:
    """Results in which the volume of a muscle on one side moves by so much from scan to scan."""
    muscles = tuple(
        m.model_copy(
            update={str(side): getattr(m, side).model_copy(update={"se_repeat_percent": percent})}
        )
        if m.name == name
        else m
        for m in measures.measures.muscles
    )
    limb = measures.measures.model_copy(update={"muscles": muscles})
    return measures.model_copy(update={"measures": limb})


def estimated(measures: Measures) -> Measures:
    """The same results, had lean volumes and fat fractions been estimated of a single contrast."""
    said = "an estimate from the T1w image alone"
    limb = measures.measures
    update = {
        rows: tuple(
            m.model_copy(
                update={
                    **{
                        side: getattr(m, side).model_copy(update={"lean_estimate": said})
                        for side in Side
                    },
                    "asymmetry": m.asymmetry.model_copy(update={"verdict": None, "reason": said}),
                }
            )
            for m in getattr(limb, rows)
        )
        for rows in ("muscles", "groups")
    }
    return measures.model_copy(update={"measures": limb.model_copy(update=update)})


def change_of(changes: Changes, name: str, later: int = 0):
    return next(c for c in changes.later[later].changes if c.name == name)


@pytest.fixture(scope="module")
def changes() -> Changes:
    """Three scans: nothing new in the second, a loss and a gain in the third."""
    third = scaled(scan("ses-3", number=3), "soleus", Side.LEFT, 0.90)
    third = scaled(third, "vastus_lateralis", Side.RIGHT, 1.08)
    return compare([scan("ses-1"), scan("ses-2", number=2), third], config=CONFIG)


class TestArithmetic:
    @pytest.mark.parametrize(
        ("cv", "volume", "asymmetry"), [(1.2, 3.3, 4.7), (3.0, 8.3, 11.8), (5.0, 13.9, 19.6)]
    )
    def test_detectable_changes_are_the_published_multiples_of_the_cv(self, cv, volume, asymmetry):
        assert detectable_change(cv, cv) == pytest.approx(volume, abs=0.05)
        of_both = se_from_scan_rescan(cv)
        assert 100.0 * detectable_change(of_both, of_both) == pytest.approx(asymmetry, abs=0.05)

    def test_the_less_precise_scan_decides(self):
        assert detectable_change(3.0, 4.0) == pytest.approx(1.959964 * 5.0)

    def test_the_interval_excludes_no_change_exactly_when_a_change_is_called(self):
        for log_percent in (-6.0, -3.4, -3.2, 0.5, 3.2, 3.4):
            low, high = volume_interval_percent(log_percent / 100.0, 3.3)
            called = judge_change(log_percent, 3.3) is not ChangeVerdict.NONE
            assert called == (low > 0 or high < 0)

    def test_errors_that_are_normal_are_called_changes_one_time_in_twenty(self):
        rng = np.random.default_rng(3)
        cv = 0.015
        before, after = rng.normal(0.0, cv, (2, 20000))
        limit = detectable_change(100.0 * cv, 100.0 * cv)
        called = [judge_change(100.0 * d, limit) is not ChangeVerdict.NONE for d in after - before]
        assert np.mean(called) == pytest.approx(0.05, abs=0.005)


class TestVerdicts:
    def test_only_what_changed_is_called_changed(self, changes):
        assert [one.muscles_changed for one in changes.later] == [0, 2]
        lost = change_of(changes, "soleus", 1).volume_left
        assert lost.verdict is ChangeVerdict.DECREASED
        assert lost.change_percent == pytest.approx(-10.0)
        assert change_of(changes, "soleus", 1).volume_right.verdict is ChangeVerdict.NONE
        grown = change_of(changes, "vastus_lateralis", 1)
        assert grown.volume_right.verdict is ChangeVerdict.INCREASED
        assert grown.asymmetry.verdict is ChangeVerdict.INCREASED

    def test_chance_is_counted_in_volumes_that_were_judged(self, changes):
        for one in changes.later:
            volumes = [
                v.verdict
                for c in one.changes
                if c.kind == "muscle"
                for v in (c.volume_right, c.volume_left)
            ]
            judged = [v for v in volumes if v is not None]
            assert one.expected_by_chance == pytest.approx(0.05 * len(judged))

    def test_what_is_not_whole_is_never_a_change(self, changes):
        cut = change_of(changes, "gluteus_maximus").volume_left
        assert (cut.change_percent, cut.verdict) == (None, None)
        assert "truncated in the first scan" in cut.reason
        gone = change_of(changes, "popliteus").volume_left
        assert "absent in the first scan" in gone.reason
        doubted = change_of(changes, "flexor_digitorum_longus").volume_right
        assert doubted.change_percent == pytest.approx(0.0)
        assert doubted.verdict is None
        assert "unreliable" in doubted.reason

    def test_matched_parts_get_no_verdict_over_time(self, changes):
        part = change_of(changes, "gluteus_maximus").asymmetry
        assert part.change_points == pytest.approx(0.0)
        assert part.verdict is None

    def test_each_side_is_held_against_its_own_error(self):
        """An error that both sides share cancels in their difference, and not over time."""
        scans = [scan("ses-1"), scaled(scan("ses-2", number=2), "soleus", Side.LEFT, 0.93)]
        known = change_of(compare(scans, config=CONFIG), "soleus")
        moving = [with_error(s, "soleus", Side.LEFT, 5.3) for s in scans]
        unsure = change_of(compare(moving, config=CONFIG), "soleus")
        assert known.volume_left.verdict is ChangeVerdict.DECREASED
        assert unsure.volume_left.verdict is ChangeVerdict.NONE
        assert unsure.volume_left.detectable_percent == pytest.approx(1.96 * 5.3 * 2**0.5, rel=1e-3)
        assert (unsure.volume_right, unsure.asymmetry) == (known.volume_right, known.asymmetry)

    def test_the_error_of_the_fat_fraction_counts_in_lean_volume_too(self):
        """Of a muscle that is half fat, 3 points of fat are 6 % of the lean volume."""
        fat = [fatter(scan(f"ses-{n}", number=n), 40.0, error=1.0) for n in (1, 2)]
        lean, usual = (compare(pair, config=CONFIG) for pair in (fat, [scan("ses-1"), fat[1]]))
        soleus = change_of(lean, "soleus")
        share = 1.0 - fat[0].measures.muscles[0].right.fat_fraction_percent / 100.0
        assert 0.4 < share < 0.6
        side = next(m for m in fat[0].measures.muscles if m.name == "soleus").right
        both = math.hypot(side.se_repeat_percent, 100.0 / (100.0 - side.fat_fraction_percent))
        detectable = soleus.volume_right.detectable_percent
        assert detectable == pytest.approx(1.96 * both * 2**0.5, rel=1e-3)
        detectable = soleus.fat_fraction_right.detectable_points
        assert detectable == pytest.approx(1.96 * 2**0.5, rel=1e-3)
        small = change_of(usual, "soleus").fat_fraction_right.detectable_points
        assert small == pytest.approx(1.96, rel=0.02)

    def test_an_error_in_a_scan_withholds_every_verdict(self):
        error = Finding(code="swap", severity=Severity.ERROR, stage="load", message="Swapped.")
        bad = scan("ses-2", number=2, findings=(error,))
        changes = compare([scan("ses-1"), bad], config=CONFIG)
        for change in changes.later[0].changes:
            for part in (change.volume_right, change.fat_fraction_left, change.asymmetry):
                assert part.verdict is None
        assert changes.later[0].expected_by_chance is None
        assert "error (swap)" in change_of(changes, "soleus").volume_right.reason

    def test_total_volumes_lead_where_a_scan_has_no_lean_ones(self):
        single = make_measures(session="ses-2", single_contrast=True)
        changes = compare([scan("ses-1"), single], config=CONFIG)
        assert changes.of == "total_volume"
        assert change_of(changes, "soleus").volume_right.verdict is ChangeVerdict.NONE
        codes = {f.code for f in changes.findings}
        assert {"lean_volume_missing", "protocol_differs"} <= codes

    @pytest.mark.parametrize("guessed", [(True, True), (True, False), (False, True)])
    def test_nothing_is_concluded_from_estimated_lean_volumes_and_fat_fractions(self, guessed):
        scans = [scan("ses-1"), scaled(scan("ses-2", number=2), "soleus", Side.LEFT, 0.90)]
        scans = [estimated(s) if guess else s for s, guess in zip(scans, guessed, strict=True)]
        changes = compare(scans, config=CONFIG)
        assert changes.of == "total_volume"
        soleus = change_of(changes, "soleus")
        first = scans[0].measures.muscles[25]
        assert (first.name, soleus.volume_left.before_ml) == ("soleus", first.left.volume_whole_ml)
        assert soleus.volume_left.verdict is ChangeVerdict.DECREASED
        which = "first" if guessed[0] else "later"
        for change in changes.later[0].changes:
            for part in (change.fat_fraction_right, change.fat_fraction_left):
                assert (part.change_points, part.detectable_points, part.verdict) == (None,) * 3
        assert soleus.fat_fraction_left.before_percent is not None
        assert f"only estimated in the {which} scan" in soleus.fat_fraction_left.reason
        (warning,) = changes.findings
        words = ["estimated" if guess else "measured" for guess in guessed]
        assert f"ses-1: {words[0]}; ses-2: {words[1]}" in warning.message

    def test_one_estimated_side_among_measured_ones_gets_no_verdict(self):
        second = scan("ses-2", number=2)
        guess = estimated(second).measures.muscles[25]
        muscles = (*second.measures.muscles[:25], guess, *second.measures.muscles[26:])
        limb = second.measures.model_copy(update={"muscles": muscles})
        mixed = second.model_copy(update={"measures": limb})
        changes = compare([scan("ses-1"), mixed], config=CONFIG)
        assert changes.of == "lean_volume"
        volume = change_of(changes, "soleus").volume_left
        assert (volume.change_percent, volume.verdict) == (None, None)
        assert "only estimated in the later scan" in volume.reason
        assert change_of(changes, "sartorius").volume_left.verdict is ChangeVerdict.NONE


def other(code: str) -> Measures:
    """A second scan that differs from the first in one respect."""
    second = scan("ses-2", number=2)
    used = second.provenance
    if code == "grid_differs":
        return second.model_copy(update={"grid": "100 x 90 x 80 voxels of 2 x 2 x 5 mm"})
    if code == "protocol_differs":
        return second.model_copy(update={"contrasts": ("T1w", "water", "fat")})
    if code in ("fat_correction_differs", "body_size_differs"):
        corrected = code == "fat_correction_differs"
        note = Finding(
            code="t1_bias_corrected" if corrected else "unusual_size",
            severity=Severity.INFO,
            stage="canonicalise" if corrected else "segment",
            message="Fat fractions were corrected." if corrected else "A child's legs.",
            value=None if corrected else 0.77,
        )
        return second.model_copy(update={"findings": (*second.findings, note)})
    if code == "scanner_differs":
        settings = ScannerSettings(field_t=1.494, repetition_ms=None, flip_deg=10.0)
        return second.model_copy(update={"scanner_settings": {"water": settings, "fat": settings}})
    if code == "caveats_differ":
        return make_measures(session="ses-2", caveats=("no_signal",)).model_copy(
            update={"provenance": used}
        )
    if code == "engine_differs":
        engine = second.engine.model_copy(update={"version": "9"})
        return second.model_copy(update={"engine": engine})
    if code == "software_differs":
        return second.model_copy(
            update={"provenance": used.model_copy(update={"software_version": "9.9"})}
        )
    if code in ("configuration_differs", "consensus_differs"):
        settings = (
            {"measure": {"scan_rescan_cv_percent": 3.0}}
            if code == "configuration_differs"
            else {**used.configuration, "reconcile": {"consensus": True}}
        )
        return second.model_copy(
            update={"provenance": used.model_copy(update={"configuration": settings})}
        )
    muscles = list(second.measures.muscles)
    whole = muscles[5]
    cut = whole.left.model_copy(
        update={
            "status": Status.TRUNCATED,
            "reason": "cut",
            "volume_whole_ml": None,
            "lean_volume_whole_ml": None,
        }
    )
    muscles[5] = whole.model_copy(update={"left": cut})
    limb = second.measures.model_copy(update={"muscles": tuple(muscles)})
    return second.model_copy(update={"measures": limb})


def noise(measures: Measures, right: float, left: float | None = None) -> Measures:
    """Results of a scan in which noise alone reads as so much fat, percent."""
    told = tuple(
        Finding(
            code="noise_floor_high" if floor > 4 else "noise_floor",
            severity=Severity.INFO,
            stage="measure",
            side=side,
            message="Noise alone reads as fat.",
            value=floor,
        )
        for side, floor in ((Side.RIGHT, right), (Side.LEFT, right if left is None else left))
    )
    return measures.model_copy(update={"findings": told})


def fatter(measures: Measures, points: float, *, error: float | None = None) -> Measures:
    """Results in which every muscle is so much fatter, with such an error of it in points."""
    muscles = []
    for m in measures.measures.muscles:
        sides = {}
        for side in Side:
            part = getattr(m, side)
            fields = ("fat_fraction_percent", "fat_fraction_core_percent")
            more = {f: getattr(part, f) for f in fields}
            more = {f: v + points for f, v in more.items() if v is not None}
            if error is not None and more:
                more["fat_fraction_se_repeat_points"] = error
            sides[str(side)] = part.model_copy(update=more)
        muscles.append(m.model_copy(update=sides))
    limb = measures.measures.model_copy(update={"muscles": tuple(muscles)})
    return measures.model_copy(update={"measures": limb})


class TestWarnings:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("grid_differs", "2 x 2 x 5 mm"),
            ("protocol_differs", "T1w"),
            ("fat_correction_differs", "ses-1: no; ses-2: yes"),
            ("body_size_differs", "ses-1: 1; ses-2: 0.77"),
            (
                "scanner_differs",
                "ses-1: not stated; ses-2: field strength 1.49 T, flip angle 10 degrees, "
                "repetition time not known",
            ),
            ("engine_differs", "given 9"),
            ("software_differs", "9.9"),
            ("configuration_differs", "measure.scan_rescan_cv_percent"),
            ("consensus_differs", "reconcile.consensus"),
            ("coverage_differs", "deep hip rotators"),
            ("caveats_differ", "ses-1: nothing; ses-2: no signal"),
        ],
    )
    def test_what_makes_scans_less_comparable_is_said(self, code, words):
        changes = compare([scan("ses-1"), other(code)], config=CONFIG)
        told = "configuration_differs" if code == "consensus_differs" else code
        assert [f.code for f in changes.findings] == [told]
        assert words in changes.findings[0].message

    def test_more_noise_alone_is_no_change_of_fat(self):
        """Noise reads as fat: 2 points more of it are 2 points that may not be called a change."""
        quiet, noisy = (
            noise(scan(f"ses-{n}", number=n), floor) for n, floor in ((1, 2.4), (2, 4.8))
        )
        noisy = fatter(noisy, 2.0)
        changes = compare([quiet, noisy], config=CONFIG)
        assert [f.code for f in changes.findings] == ["noise_differs"]
        assert "2.4 points more fat" in changes.findings[0].message
        told = [c.fat_fraction_right.verdict for c in changes.later[0].changes]
        assert ChangeVerdict.NONE in told
        assert ChangeVerdict.INCREASED not in told
        alike = compare([quiet, noise(noisy, 2.4)], config=CONFIG)
        assert alike.findings == ()
        told = [c.fat_fraction_right.verdict for c in alike.later[0].changes]
        assert ChangeVerdict.INCREASED in told
        # What noise reads as fat is missing from the lean volume.
        wider, usual = (change_of(c, "soleus").volume_right for c in (changes, alike))
        assert wider.detectable_percent == pytest.approx(usual.detectable_percent + 2.4)
        wider, usual = (change_of(c, "soleus").asymmetry for c in (changes, alike))
        assert wider.detectable_points == usual.detectable_points, "the same on both sides"

    def test_more_noise_on_one_side_alone_is_no_change_of_the_asymmetry(self):
        before, after = (scan(f"ses-{n}", number=n) for n in (1, 2))
        one_sided = noise(after, 3.4, left=1.0)
        quiet = noise(before, 1.0)
        wider = change_of(compare([quiet, one_sided], config=CONFIG), "soleus").asymmetry
        usual = change_of(compare([before, after], config=CONFIG), "soleus").asymmetry
        assert wider.detectable_points == pytest.approx(usual.detectable_points + 2.4)

    def test_warnings_stand_at_the_top_of_the_page(self):
        changes = compare([scan("ses-1"), other("grid_differs")], config=CONFIG)
        text = Page(render_change(changes, largest=5)).text
        assert text.index(changes.findings[0].message) < text.index("No muscle changed detectably")

    def test_alike_scans_have_no_warning(self, changes):
        assert changes.findings == ()

    def test_another_number_of_slices_is_the_same_grid(self):
        second = scan("ses-2", number=2)
        longer = second.model_copy(update={"grid": "320 x 260 x 362 voxels of 1.2 x 1.2 x 3 mm"})
        assert compare([scan("ses-1"), longer], config=CONFIG).findings == ()

    @pytest.mark.parametrize(
        ("scans", "words"),
        [
            ([scan("ses-1")], "at least two"),
            ([scan("ses-1"), scan("ses-2")], "given twice"),
            ([scan("ses-1"), copied(scan("ses-1"))], "given twice"),
            ([scan("ses-1"), scan("ses-2", number=2, subject="sub-02")], "one person"),
        ],
        ids=["one", "twice", "a copy", "two people"],
    )
    def test_what_cannot_be_compared_is_refused(self, scans, words):
        with pytest.raises(UsageError, match=words):
            compare(scans, config=CONFIG)


@pytest.fixture(scope="module")
def page(changes) -> Page:
    return Page(render_change(changes, largest=5))


class TestPage:
    def test_every_number_of_the_page_is_the_one_of_the_json(self, changes, page):
        document = json.loads(changes.model_dump_json())
        numbers = page.numbers
        assert len(numbers) > 1000
        for element, text in numbers:
            value = at(document, element["data-pointer"])
            assert float(element["value"]) == value
            style = Style(element["data-style"])
            assert text in (show(value, style), show(value, style, unit=True))

    def test_the_table_holds_the_same_values(self, changes):
        rows = list(csv.DictReader(io.StringIO(change_table(changes)), delimiter="\t"))
        expected = [(changes.scans[o.scan].label, c) for o in changes.later for c in o.changes]
        assert len(rows) == len(expected)
        for row, (label, change) in zip(rows, expected, strict=True):
            assert (row["scan"], row["name"]) == (label, change.name)
            assert_cell(row["volume_left_change_percent"], change.volume_left.change_percent)
            assert_cell(row["volume_right_after_ml"], change.volume_right.after_ml)
            assert_cell(row["asymmetry_change_points"], change.asymmetry.change_points)
            assert_cell(row["fat_fraction_left_detectable_points"],
                        change.fat_fraction_left.detectable_points)  # fmt: skip

    def test_the_first_screen_says_what_changed(self, page):
        text = page.text
        told = "Soleus : the left lost 10.0 % (95 % interval"
        assert told in text.replace("\N{NO-BREAK SPACE}", " ")
        assert text.index("Soleus : the left") < text.index("Vastus lateralis : the right gained")

    def test_nothing_is_fetched_ids_are_unique_and_markup_is_escaped(self, changes):
        evil = "<script>alert(1)</script>"
        spoilt = changes.model_copy(update={"subject": evil, "basis": evil})
        text = render_change(spoilt, largest=5)
        page = Page(text)
        assert text.count("<script") == 1
        assert page.text.count(evil) >= 2
        assert len(page.ids) == len(set(page.ids))
        assert not {"link", "iframe", "img"} & set(page.tags)
        assert "http:" not in text


OTHER_POSE = Pose(
    gap_mm=14.0, rotation_deg=(-2.0, 6.0), knee_flexion_deg=(3.0, 1.0), shift_mm=(4.0, -3.0)
)
#: About 330 mL a side.
SHRUNK = "gluteus_medius"


def check_two_scans_of_one_body(changes: Changes) -> None:
    """At most 5 % of the muscles that did not change are called changed, and the loss is found."""
    muscles = [c for c in changes.later[0].changes if c.kind == "muscle"]
    planted = next(c for c in muscles if c.name == SHRUNK)
    assert planted.volume_right.before_ml > 250.0
    assert planted.volume_right.verdict is ChangeVerdict.DECREASED
    assert planted.volume_right.change_percent == pytest.approx(-6.0, abs=1.5)
    assert planted.volume_left.verdict is ChangeVerdict.NONE
    sides = ("volume_right", "volume_left", "fat_fraction_right", "fat_fraction_left")
    for quantity in (*sides, "asymmetry"):
        others = [c for c in muscles if c.name != SHRUNK]
        verdicts = {c.name: getattr(c, quantity).verdict for c in others}
        judged = [v for v in verdicts.values() if v is not None]
        called = [n for n, v in verdicts.items() if v not in (None, ChangeVerdict.NONE)]
        assert len(judged) >= 27
        assert len(called) <= 0.05 * len(judged), (quantity, called)


@pytest.mark.slow
def test_two_scans_of_one_body_and_a_loss_in_one_muscle(tmp_path, capsys):
    """On a coarse grid and with the usual scan-rescan variation."""
    write_subject(tmp_path / "data/sub-01/ses-1/sub-01_ses-1", small_scan())
    body = make_body(replace(PERSON, pose=OTHER_POSE), detail="reduced")
    later = acquire(body, Acquisition(grid_for(body, VOXEL_MM), seed=11))
    shrunk = shaved(later, SHRUNK, Side.RIGHT, 0.06)
    write_subject(tmp_path / "data/sub-01/ses-2/sub-01_ses-2", shrunk)
    out = tmp_path / "out"
    for session in ("ses-1", "ses-2"):
        process_subject(tmp_path / "data", out, "sub-01", session=session, config=GIVEN)
    folders = [str(out / "sub-01" / session) for session in ("ses-1", "ses-2")]
    command = ["compare", *folders, "--out", str(tmp_path / "change")]
    capsys.readouterr()
    assert cli.main(command) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "change/sub-01_ses-1_ses-2_change.html"
    changes = Changes.model_validate_json(page.with_suffix(".json").read_text())
    check_two_scans_of_one_body(changes)
    assert changes.findings == ()
    assert page.with_suffix(".tsv").read_text() == change_table(changes)
    before = page.read_bytes()
    assert cli.main(command) == 0
    assert page.read_bytes() == before


@pytest.mark.slow
def test_two_fine_scans_of_one_body(tmp_path):
    """The full model on the grid of a usual protocol, at a scan-rescan variation of 1.2 %."""
    config = load_config(
        overrides={"segment": {"engine": "given"}, "measure": {"scan_rescan_cv_percent": 1.2}}
    )
    for number, pose in enumerate((PERSON.pose, OTHER_POSE), start=1):
        body = make_body(replace(PERSON, pose=pose))
        scanned = acquire(body, Acquisition(grid_for(body, (2.2, 2.2, 5.0)), seed=20 + number))
        if number == 2:
            scanned = shaved(scanned, SHRUNK, Side.RIGHT, 0.06)
        session = f"ses-{number}"
        write_subject(tmp_path / f"data/sub-01/{session}/sub-01_{session}", scanned)
        process_subject(
            tmp_path / "data", tmp_path / "out", "sub-01", session=session, config=config
        )
    folders = [str(tmp_path / f"out/sub-01/ses-{number}") for number in (1, 2)]
    assert cli.main(["compare", *folders]) == 0
    path = tmp_path / "out/sub-01/sub-01_ses-1_ses-2_change.json"
    check_two_scans_of_one_body(Changes.model_validate_json(path.read_text()))


@pytest.mark.parametrize("empty", [True, False], ids=["no results", "broken results"])
def test_folders_without_results_are_named(tmp_path, capsys, empty):
    folders = [tmp_path / "sub-01/ses-1", tmp_path / "sub-01/ses-2"]
    for folder in folders:
        folder.mkdir(parents=True)
        if not empty:
            (folder / "sub-01_x_measures.json").write_text("{}")
    assert cli.main(["compare", *map(str, folders)]) == 2
    said = capsys.readouterr().err
    assert "ses-1" in said
    assert "process the scan first" in said


def test_results_in_different_places_need_an_output_folder(tmp_path, capsys):
    paths = []
    for number, place in enumerate(("a", "b"), start=1):
        path = tmp_path / place / "sub-01_measures.json"
        path.parent.mkdir()
        path.write_text(scan(f"ses-{number}", number=number).model_dump_json())
        paths.append(str(path))
    assert cli.main(["compare", *paths]) == 2
    assert "--out" in capsys.readouterr().err
    assert cli.main(["compare", *paths, "--out", str(tmp_path / "c")]) == 0
    assert len(list((tmp_path / "c").iterdir())) == 3
