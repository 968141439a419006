"""Many subjects: jobs, states, group tables, the quality page, norms of a cohort."""

from __future__ import annotations

import copy
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from factories import asymmetry, make_measures

from pipeline import cli
from pipeline.batch.cohort import robust_distances, size_line, spread
from pipeline.batch.group import group_results
from pipeline.batch.jobs import Job, list_jobs
from pipeline.batch.norms import write_norms
from pipeline.batch.results import read_outcome
from pipeline.batch.status import State, job_states
from pipeline.config import default_config, load_config, with_given_labels
from pipeline.core.errors import ConfigError, InputError, UsageError
from pipeline.core.results import CONSENSUS, Measures, Severity
from pipeline.io.derivatives import SubjectFolder, write_json, write_text
from pipeline.io.discover import input_state
from pipeline.provenance import provenance
from pipeline.report.tables import wide_table

CONFIG = default_config()
#: Planted mean and spread of total-volume asymmetry, percent.
PLANTED = {"vastus_lateralis": (1.0, 6.0), "soleus": (0.0, 3.0), "quadriceps": (-0.5, 4.0)}
#: Planted line of the volume over height x mass.
SLOPE, INTERCEPT, REST_SD = 5.0, 100.0, 20.0


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def write_people(data: Path, out: Path, count: int, seed: int = 7) -> None:
    """Simulated results: planted asymmetries and volumes by body size, all else from one person."""
    random = np.random.default_rng(seed)
    base = make_measures().model_dump(mode="json")
    results = [*base["measures"]["muscles"], *base["measures"]["groups"]]
    for result in results:
        for side in ("right", "left"):
            result[side]["profile"] = []
    people = ["participant_id\theight_m\tmass_kg"]
    for number in range(count):
        subject = f"sub-{number:04d}"
        height, mass = random.normal(1.72, 0.09), random.normal(72.0, 11.0)
        people.append(f"{subject}\t{height:.6f}\t{mass:.6f}")
        values = copy.deepcopy(base)
        values["subject"] = subject
        for result in [*values["measures"]["muscles"], *values["measures"]["groups"]]:
            if result["name"] not in PLANTED:
                continue
            mean, sd = PLANTED[result["name"]]
            volume = SLOPE * height * mass + INTERCEPT + random.normal(0.0, REST_SD)
            half = volume * random.normal(mean, sd) / 200.0
            sides = {"right": volume + half, "left": volume - half}
            for side, whole in sides.items():
                result[side] |= {"status": "ok", "reason": None, "volume_whole_ml": whole}
            found = asymmetry(sides["right"], sides["left"], of="total_volume")
            result["asymmetry_total_volume"] = found.model_dump(mode="json")
        folder = SubjectFolder(out, subject, None)
        write_text(folder.measures, json.dumps(values))
    data.mkdir(parents=True, exist_ok=True)
    write_text(data / "participants.tsv", "\n".join(people) + "\n")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, Path]:
    """Data folder and results of 500 simulated people."""
    folder = tmp_path_factory.mktemp("cohort")
    write_people(folder / "data", folder / "out", 500)
    return folder / "data", folder / "out"


def test_norms_recover_what_was_planted_within_its_sampling_error(cohort):
    data, out = cohort
    jobs = [Job(f"sub-{number:04d}", None) for number in range(500)]
    path = write_norms(data, out, jobs, config=CONFIG.group)
    table = {row["name"]: row for row in rows_of(path.with_name("norms.tsv"))}
    for name, (mean, sd) in PLANTED.items():
        row = table[name]
        assert row["people"] == "500"
        # Four standard errors: once in 16,000 draws; the seed is fixed.
        assert float(row["asymmetry_mean_percent"]) == pytest.approx(mean, abs=4 * sd / 500**0.5)
        assert float(row["asymmetry_sd_percent"]) == pytest.approx(sd, abs=4 * sd / 1000**0.5)
        assert float(row["limit_percent"]) == pytest.approx(
            abs(mean) + 1.96 * sd, abs=4 * float(row["se_of_limit_percent"])
        )
        assert float(row["asymmetry_se_of_sd_percent"]) == pytest.approx(sd / 998**0.5, rel=0.15)
        # Sizes spread by about 22 m kg, so the slope is known to 20 / (22 sqrt 500).
        assert float(row["slope_ml_per_m_kg"]) == pytest.approx(SLOPE, abs=4 * 0.04)
        assert float(row["residual_sd_ml"]) == pytest.approx(REST_SD, abs=4 * REST_SD / 1000**0.5)


def test_norms_are_a_configuration_that_later_runs_use(cohort):
    data, out = cohort
    jobs = [Job(f"sub-{number:04d}", None) for number in range(100)]
    path = write_norms(data, out, jobs, config=CONFIG.group)
    measure = load_config(path).measure
    written = yaml.safe_load(path.read_text())["measure"]
    assert measure.own_limits_percent == written["own_limits_percent"]
    assert measure.own_limits_percent["soleus"] == pytest.approx(1.96 * 3.0, rel=0.3)
    assert measure.own_limits_people["soleus"] == 100
    # SD sqrt(1 / n + 1.96^2 / (2 (n - 1))) of the planted SD of 3 %.
    assert measure.own_limits_se_percent["soleus"] == pytest.approx(3.0 * 0.171, rel=0.3)
    assert measure.own_expected_volumes_ml["soleus"].slope_ml_per_m_kg == pytest.approx(5, rel=0.1)
    # Expected volumes are of muscles; a group's would have nowhere to go.
    assert "quadriceps" not in measure.own_expected_volumes_ml


def test_what_may_be_faked_or_is_wrong_makes_no_norm(tmp_path):
    """A scan with an error, a consensus of both legs and a difference with a caveat."""
    write_people(tmp_path / "data", tmp_path / "out", 4)
    paths = [SubjectFolder(tmp_path / "out", f"sub-{n:04d}", None).measures for n in range(4)]
    told = {"stage": "measure", "message": "Told.", "value": None, "threshold": None, "unit": None}
    for path, severity, code in (
        (paths[1], "ERROR", "one_leg_twice"),
        (paths[2], "WARNING", CONSENSUS),
    ):
        values = json.loads(path.read_text())
        severity = next(s.value for s in Severity if s.name == severity)
        values["findings"] = [{"code": code, "severity": severity, "side": None, **told}]
        path.write_text(json.dumps(values))
    values = json.loads(paths[3].read_text())
    for result in values["measures"]["muscles"]:
        result["asymmetry_total_volume"]["caveats"] = ["off_isocentre"]
    paths[3].write_text(json.dumps(values))
    read = [
        read_outcome(SubjectFolder(tmp_path / "out", f"sub-{n:04d}", None), rows=False)
        for n in range(4)
    ]
    asymmetry, volume = (
        [(("soleus", name) in outcome.values) for outcome in read]
        for name in ("asymmetry_total_volume_percent", "volume_right_ml")
    )
    assert asymmetry == [True, False, False, False]
    assert volume == [True, False, False, True]


def test_too_small_a_cohort_has_no_limits(tmp_path):
    write_people(tmp_path / "data", tmp_path / "out", 5)
    jobs = [Job(f"sub-{number:04d}", None) for number in range(5)]
    with pytest.raises(UsageError, match="too small for limits"):
        write_norms(tmp_path / "data", tmp_path / "out", jobs, config=CONFIG.group)
    assert not (tmp_path / "out/group").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("own_limits_percent: {vastus_latteralis: 9}", "muscles or groups.*vastus_latteralis"),
        (
            "own_expected_volumes_ml: {quadriceps: {slope_ml_per_m_kg: 5, intercept_ml: 9}}",
            "names of muscles; unknown: quadriceps",
        ),
    ],
)
def test_own_values_of_what_is_not_judged_by_them_are_refused(tmp_path, text, told):
    config = tmp_path / "mine.yaml"
    config.write_text(f"measure:\n  {text}\n")
    with pytest.raises(ConfigError, match=told):
        load_config(config)


def test_group_tables_long_and_wide_say_the_same(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 4)
    group = group_results(data, out, config=CONFIG.group)
    assert (group.results, group.failed, group.notes) == (4, 0, ())
    long = rows_of(out / "group/participants_long.tsv")
    wide = rows_of(out / "group/participants_wide.tsv")
    assert len(wide) == 4
    one = make_measures().measures
    assert len(long) == 4 * (len(one.muscles) + len(one.groups))
    for row in long:
        person = next(w for w in wide if w["participant_id"] == row["participant_id"])
        for column in ("volume_whole_right_ml", "asymmetry_total_volume_percent", "status_left"):
            assert person[f"{row['name']}_{column}"] == row[column]
    assert float(wide[0]["height_m"]) == pytest.approx(1.7, abs=0.5)
    # Structures that nobody labelled on their own are missing, not 0.
    assert wide[0]["gastrocnemius_volume_whole_right_ml"] == "n/a"


def test_the_summary_tells_nothing_of_few_people(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 30)
    # Only nine people have a reliable vastus lateralis.
    for number in range(9, 30):
        path = SubjectFolder(out, f"sub-{number:04d}", None).measures
        values = json.loads(path.read_text())
        vastus = values["measures"]["muscles"][8]
        for side in ("right", "left"):
            vastus[side] |= {"status": "unreliable", "reason": "a hole in its labels"}
        vastus["asymmetry_total_volume"] |= {"verdict": None, "reason": "unreliable"}
        path.write_text(json.dumps(values))
    group_results(data, out, config=CONFIG.group)
    summary = {(r["name"], r["measure"]): r for r in rows_of(out / "group/summary.tsv")}
    few = summary["vastus_lateralis", "volume_right_ml"]
    assert few["people"] == "<10"
    assert {few[k] for k in few if k not in ("name", "measure", "people")} == {"n/a"}
    many = summary["soleus", "volume_right_ml"]
    values = [
        json.loads(p.read_text())["measures"]["muscles"][25]["right"]["volume_whole_ml"]
        for p in sorted(out.glob("sub-*/*_measures.json"))
    ]
    assert many["people"] == "30"
    assert float(many["mean"]) == pytest.approx(np.mean(values), abs=0.01)
    assert float(many["sd"]) == pytest.approx(np.std(values, ddof=1), abs=0.01)
    # Half of 30 people lie beyond the median, a quarter (7.5) beyond a quartile: fewer than ten.
    assert float(many["percentile_50"]) == pytest.approx(np.median(values), abs=0.01)
    assert many["percentile_25"] == many["percentile_97.5"] == "n/a"


def test_estimated_lean_volumes_are_marked_and_stay_out_of_the_summary(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 12)
    wild = 1e4
    for number in (0, 1):
        path = SubjectFolder(out, f"sub-{number:04d}", None).measures
        values = json.loads(path.read_text())
        for result in [*values["measures"]["muscles"], *values["measures"]["groups"]]:
            for side in ("right", "left"):
                if result[side]["lean_volume_in_view_ml"] is not None:
                    result[side]["lean_estimate"] = "an estimate"
                if result[side]["lean_volume_whole_ml"] is not None:
                    result[side]["lean_volume_whole_ml"] = wild
        path.write_text(json.dumps(values))
    group_results(data, out, config=CONFIG.group)
    summary = {(r["name"], r["measure"]): r for r in rows_of(out / "group/summary.tsv")}
    assert summary["soleus", "volume_right_ml"]["people"] == "12"
    for measure in ("lean_volume_right_ml", "fat_fraction_core_left_percent"):
        assert summary["soleus", measure]["people"] == "10"
    assert float(summary["soleus", "lean_volume_right_ml"]["mean"]) < wild / 2
    wide = rows_of(out / "group/participants_wide.tsv")
    assert [row["soleus_lean_estimate_left"] for row in wide] == ["yes"] * 2 + ["no"] * 10
    # There is no popliteus on the left: neither measured nor estimated.
    assert {row["popliteus_lean_estimate_left"] for row in wide} == {"n/a"}
    quality = {row["participant_id"]: row for row in rows_of(out / "group/quality.tsv")}
    fat = [quality[f"sub-{n:04d}"]["fat_fraction_difference_points"] for n in range(12)]
    assert fat[:2] == ["n/a"] * 2
    assert "n/a" not in fat[2:]
    alone = wide_table(Measures.model_validate_json(path.read_text()))
    header, cells = (line.split("\t") for line in alone.splitlines())
    assert dict(zip(header, cells, strict=True))["soleus_lean_estimate_right"] == "yes"


def test_a_person_with_two_sessions_counts_once(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 12)
    for session in ("ses-1", "ses-2"):
        measures = make_measures(subject="sub-0000", session=session)
        folder = SubjectFolder(out, "sub-0000", session)
        write_text(folder.measures, measures.model_dump_json())
    group_results(data, out, config=CONFIG.group)
    summary = {(r["name"], r["measure"]): r for r in rows_of(out / "group/summary.tsv")}
    assert summary["soleus", "volume_right_ml"]["people"] == "12"
    wide = rows_of(out / "group/participants_wide.tsv")
    sessions = [row["session_id"] for row in wide if row["participant_id"] == "sub-0000"]
    assert sessions == ["n/a", "ses-1", "ses-2"]


def test_the_quality_page_shows_failures_then_outliers(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 12)
    strange = SubjectFolder(out, "sub-0007", None)
    for number in range(12):
        folder = SubjectFolder(out, f"sub-{number:04d}", None)
        values = json.loads(folder.measures.read_text())
        values["registration"]["overlap_mean"] = 0.4 if number == 7 else 0.85 + 0.002 * number
        folder.measures.write_text(json.dumps(values))
    write_text(strange.report, "<p>")
    strange.figure("legs_front.png").parent.mkdir()
    strange.figure("legs_front.png").write_bytes(b"png")
    failed = SubjectFolder(out, "sub-9000", None)
    write_json(failed.failure_record, {"stage": "load", "problem": "<b>broken</b>", "found": "x"})
    group = group_results(data, out, config=CONFIG.group)
    assert group.failed == 1
    rows = rows_of(out / "group/quality.tsv")
    assert [row["participant_id"] for row in rows[:2]] == ["sub-9000", "sub-0007"]
    assert rows[0]["failure"] == "load: <b>broken</b> (found: x)"
    assert rows[1]["stands_apart_by"] == "overlap_mean"
    assert [row["is_outlier"] for row in rows[1:3]] == ["yes", "no"]
    page = (out / "group/quality.html").read_text()
    assert page.index("sub-9000") < page.index("sub-0007") < page.index("sub-0000")
    assert "<b>broken" not in page
    assert 'href="../sub-0007/sub-0007_report.html"' in page
    assert 'src="../sub-0007/figures/sub-0007_legs_front.png"' in page
    assert '<option value="muscle_truncated">muscle truncated (12)</option>' in page


def test_results_of_different_programs_are_told(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 2)
    path = SubjectFolder(out, "sub-0001", None).measures
    path.write_text(path.read_text().replace("cd" * 32, "ef" * 32))
    (note,) = group_results(data, out, config=CONFIG.group).notes
    assert "2 different configurations" in note


def test_a_group_without_results_says_so(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    assert cli.main([str(tmp_path / "data"), str(tmp_path / "out"), "group"]) == 2
    assert "no results" in capsys.readouterr().err


def test_a_label_of_nobody_is_not_dropped_from_the_group(tmp_path, capsys):
    write_people(tmp_path / "data", tmp_path / "out", 2)
    call = [str(tmp_path / "data"), str(tmp_path / "out"), "group"]
    assert cli.main([*call, "--participant-label", "0000", "sub-00001"]) == 2
    assert "There is nothing of sub-00001 to put together" in capsys.readouterr().err
    assert not (tmp_path / "out/group").exists()
    assert cli.main([*call, "--participant-label", "0000"]) == 0


@pytest.mark.parametrize("option", ["--session-label=1", "--labels=a.nii.gz", "--report-only"])
def test_options_that_a_group_does_not_have_are_refused(tmp_path, option, capsys):
    write_people(tmp_path / "data", tmp_path / "out", 1)
    assert cli.main([str(tmp_path / "data"), str(tmp_path / "out"), "group", option]) == 2
    assert f"knows no {option.split('=')[0]}" in capsys.readouterr().err


def test_workers_give_the_same_tables(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_people(data, out, 3)
    group_results(data, out, config=CONFIG.group)
    names = ("participants_long.tsv", "summary.tsv", "quality.html")
    before = [(out / "group" / name).read_bytes() for name in names]
    group_results(data, out, config=CONFIG.group, workers=2)
    assert [(out / "group" / name).read_bytes() for name in names] == before


@pytest.fixture
def data(tmp_path) -> Path:
    for name in ("sub-01", "sub-02/ses-1", "sub-02/ses-2"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def test_jobs_from_a_folder_and_from_a_table(data, tmp_path):
    assert list_jobs(data) == [
        Job("sub-01", None),
        Job("sub-02", "ses-1"),
        Job("sub-02", "ses-2"),
    ]
    table = tmp_path / "list.tsv"
    table.write_text("participant_id\tsession_id\tmemory_mb\n02\t2\t900\nsub-01\tn/a\tn/a\n")
    assert list_jobs(data, table) == [Job("sub-02", "ses-2", 900), Job("sub-01", None)]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("participant_id\n", InputError, "names no subjects"),
        ("subject\nsub-01\n", InputError, "participant_id"),
        ("participant_id\n01\nsub-01\n", InputError, "names sub-01 twice"),
        ("participant_id\tmemory_mb\n01\tplenty\n", InputError, "plenty"),
        ("participant_id\n../01\n", UsageError, "label"),
    ],
)
def test_tables_that_cannot_be_right(data, tmp_path, text, error, words):
    table = tmp_path / "list.tsv"
    table.write_text(text)
    with pytest.raises(error, match=words):
        list_jobs(data, table)


def finished(data: Path, out: Path, name: str, *, config=CONFIG) -> SubjectFolder:
    """A subject that looks processed: one input file, results and the record of the run."""
    water = data / name / f"{name}_water.nii.gz"
    water.parent.mkdir(parents=True, exist_ok=True)
    water.write_bytes(b"water")
    os.utime(water, (1e9, 1e9))
    folder = SubjectFolder(out, name, None)
    record = provenance(config, {water.name: "0" * 64})
    write_json(folder.input_record, input_state(water.parent, folder.manual_labels))
    write_json(folder.run_record, record.model_dump(mode="json"))
    write_text(folder.measures, "{}")
    return folder


def test_states_of_jobs(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    names = ("sub-complete", "sub-changed", "sub-failed", "sub-begun", "sub-none")
    other = load_config(overrides={"measure": {"profile_step_mm": 3.0}})
    for name in names[:2]:
        finished(data, out, name, config=other if name == "sub-changed" else CONFIG)
    failed = SubjectFolder(out, "sub-failed", None)
    write_json(failed.failure_record, {"stage": "load", "problem": "No images.", "found": "a file"})
    write_text(SubjectFolder(out, "sub-begun", None).run_log, "load\n")
    states = job_states(data, out, [Job(name, None) for name in names], CONFIG)
    assert [(s.state, s.reason) for s in states] == [
        (State.COMPLETE, None),
        (State.STALE, "the configuration has changed since"),
        (State.FAILED, "load: No images (found: a file)"),
        (State.MISSING, "begun and stopped before its end"),
        (State.MISSING, "not begun"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sub: os.utime(sub / "sub-01_water.nii.gz"), "input files have changed since"),
        (
            lambda sub: (sub / "sub-01_water.nii.gz").rename(sub / "a_water.nii.gz"),
            "input files have changed since",
        ),
        (
            lambda sub: (sub / "sub-01_fat.nii.gz").write_bytes(b"fat"),
            "there are 2 input files in place of 1",
        ),
        (
            lambda sub: (sub / "sub-01_water.nii.gz").unlink(),
            "there are 0 input files in place of 1",
        ),
        (
            lambda sub: (sub.parent / "participants.tsv").write_text(
                "participant_id\theight_m\nsub-01\t1.7\n"
            ),
            "what participants.tsv says has changed since",
        ),
    ],
)
def test_any_change_of_the_inputs_makes_results_stale(tmp_path, change, reason):
    data, out = tmp_path / "data", tmp_path / "out"
    finished(data, out, "sub-01")
    change(data / "sub-01")
    (state,) = job_states(data, out, [Job("sub-01", None)], CONFIG)
    assert (state.state, state.reason) == (State.STALE, reason)


def test_a_corrected_label_map_of_another_time_makes_results_stale(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    given = with_given_labels(CONFIG, "myosymmetry")
    manual = SubjectFolder(out, "sub-01", None).manual_labels
    write_text(manual, "labels")
    finished(data, out, "sub-01", config=given)
    assert job_states(data, out, [Job("sub-01", None)], CONFIG)[0].state is State.COMPLETE
    os.utime(manual, (1e9, 1e9))
    assert job_states(data, out, [Job("sub-01", None)], CONFIG)[0].state is State.STALE


def test_how_groups_are_summed_up_makes_no_result_stale(tmp_path):
    finished(tmp_path / "data", tmp_path / "out", "sub-01")
    config = load_config(overrides={"group": {"smallest_cell_people": 20}})
    (state,) = job_states(tmp_path / "data", tmp_path / "out", [Job("sub-01", None)], config)
    assert state.state is State.COMPLETE


def test_plan_and_status_on_the_command_line(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    finished(data, out, "sub-01")
    (data / "sub-02").mkdir()
    assert cli.main(["plan", str(data), str(out)]) == 0
    header, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["participant_id", "session_id", "memory_mb", "state", "measures"]
    assert [(line[0], line[3]) for line in lines] == [("sub-01", "complete"), ("sub-02", "missing")]
    assert lines[1][4] == "sub-02/sub-02_measures.json"
    assert cli.main(["status", str(data), str(out)]) == 0
    assert capsys.readouterr().out == "sub-02\tmissing\tnot begun\n1 complete, 1 missing\n"


def test_arithmetic_of_a_cohort():
    found = spread([-2.0, 0.0, 2.0, 4.0])
    assert (found.people, found.mean) == (4, 1.0)
    assert found.sd == pytest.approx((20 / 3) ** 0.5)
    assert found.limit == pytest.approx(1.0 + 1.959964 * found.sd)
    line = size_line([100.0, 120.0, 140.0], [600.0, 700.0, 800.0])
    assert (line.slope_ml_per_m_kg, line.intercept_ml) == pytest.approx((5.0, 100.0))
    assert line.residual_sd_ml == pytest.approx(0.0, abs=1e-6)
    assert size_line([120.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    distances = robust_distances([1.0, 2.0, 3.0, None, 9.0])
    # Median 2.5, absolute deviations 1.5 0.5 0.5 6.5: their median is 1.
    assert distances[4] == pytest.approx(6.5 / 1.4826)
    assert np.isnan(distances[3])
    # Most have nothing wrong: the mean deviation is the scale.
    apart = robust_distances([0.0] * 17 + [1.0, 2.0, 60.0])
    assert apart[-1] > CONFIG.group.outlier_distance > apart[-2]
    assert apart[0] == 0.0
    assert apart[-1] == pytest.approx(60.0 / (1.2533 * 63.0 / 20.0))
    assert np.isnan(robust_distances([1.0, 1.0, 1.0])).all()
