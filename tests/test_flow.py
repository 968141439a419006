"""The whole flow through files: results, resuming, overrides, failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bodies import GIVEN, body, small_scan, thigh_results, thighs, write_subject
from pypdf import PdfReader
from test_report import Page

import pipeline
from pipeline import cli
from pipeline.batch.jobs import Job
from pipeline.batch.status import State, job_states
from pipeline.config import load_config
from pipeline.core.errors import InputError, SubjectUnusableError, UsageError
from pipeline.core.results import Measurement, Measures, ScannerSettings, Status
from pipeline.flow import STAGES, process_subject
from pipeline.io.derivatives import SubjectFolder, exclusive, read_measures, refuse_output_in_input
from pipeline.report.check import check_results

ROOT = Path(__file__).resolve().parent.parent
WITH_LABELS = ("--engine", "given")


@pytest.fixture
def no_pages(monkeypatch) -> None:
    """Runs end without pages and figures, of which the test says nothing: half of their time."""
    monkeypatch.setattr("pipeline.report.write_report", lambda *_, **__: None)


def run_cli(*arguments: object, **keywords) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        **keywords,
    )


def comparable(path: Path) -> dict:
    return json.loads(path.read_text())


def without_error(results: Measures) -> Measurement:
    """The first muscle on the right, less the error, into which the published variation enters."""
    return results.measures.muscles[0].right.model_copy(update={"se_repeat_percent": None})


def test_everything_promised_is_written(processed):
    names = {str(p.relative_to(processed)) for p in processed.rglob("*") if p.is_file()}
    assert {
        "dataset_description.json",
        "sub-01/sub-01_measures.json",
        "sub-01/sub-01_measures.tsv",
        "sub-01/sub-01_desc-wide_measures.tsv",
        "sub-01/sub-01_report.html",
        "sub-01/anat/sub-01_dseg.nii.gz",
        "sub-01/anat/sub-01_dseg.tsv",
        "sub-01/anat/sub-01_dseg.json",
        "sub-01/xfm/sub-01_from-left_to-right_xfm.json",
        "sub-01/xfm/sub-01_from-left_to-right_desc-velocity_xfm.nii.gz",
        "sub-01/xfm/sub-01_from-left_to-right_desc-logjacobian_map.nii.gz",
        "sub-01/log/sub-01_inputs.json",
        "sub-01/log/sub-01_run.json",
        "sub-01/log/sub-01_run.log",
        "sub-01/figures/sub-01_asymmetry.svg",
    } <= names
    assert not [name for name in names if name.endswith(".part")]


def test_results_through_files_equal_those_in_memory(processed):
    """int16 files quantise the images a little; the volumes are the same voxels."""
    results = read_measures(processed / "sub-01/sub-01_measures.json")
    direct = thigh_results()
    for one, two in zip(results.measures.muscles, direct.muscles, strict=True):
        assert one.right.status is two.right.status
        if one.right.status is Status.ABSENT:
            continue
        assert one.right.volume_in_view_ml == pytest.approx(two.right.volume_in_view_ml, rel=1e-9)
        # Where both legs show a cut muscle rests on the registration, and that on the images.
        if one.asymmetry.index_percent is not None:
            error = one.asymmetry.se_total_percent
            assert one.asymmetry.index_percent == pytest.approx(
                two.asymmetry.index_percent, abs=0.1 * error
            )
    gluteus = results.measures.muscles[0]
    assert gluteus.expected_volume_ml == pytest.approx(
        0.123 * (47 * 1.75 * 72 + 1285) - 25.4, rel=1e-6
    )


def test_labels_come_back_on_the_grid_of_the_input(data, processed):
    given = nib.load(data / "sub-01/sub-01_dseg.nii.gz")
    written = nib.load(processed / "sub-01/anat/sub-01_dseg.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(given.dataobj))
    np.testing.assert_allclose(written.affine, given.affine, atol=1e-4)


def test_a_second_run_changes_nothing(data, processed):
    before = (processed / "sub-01/sub-01_measures.json").stat().st_mtime_ns
    record = SubjectFolder(processed, "sub-01", None).failure_record
    os.utime(data / "sub-01/sub-01_water.nii.gz", (1e9, 1e9))
    jobs = [Job("sub-01", None)]
    assert job_states(data, processed, jobs, GIVEN)[0].state is State.STALE
    record.write_text("{}")
    assert process_subject(data, processed, "01", config=GIVEN).reused
    assert job_states(data, processed, jobs, GIVEN)[0].state is State.COMPLETE
    assert not record.exists(), "of a failure that is over"
    assert (processed / "sub-01/sub-01_measures.json").stat().st_mtime_ns == before


def test_another_process_finds_that_nothing_has_changed(data, processed):
    """The order of sets differs between processes; the digest of a configuration must not."""
    before = (processed / "sub-01/sub-01_measures.json").stat().st_mtime_ns
    for seed in ("1", "2"):
        result = run_cli(
            *(data, processed, "participant", "--participant-label", "01", *WITH_LABELS),
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert "nothing has changed" in result.stderr
    assert (processed / "sub-01/sub-01_measures.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("no_pages")
def test_a_change_of_one_section_reuses_what_does_not_rest_on_it(data, processed, tmp_path, caplog):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    config = load_config(
        overrides={"segment": {"engine": "given"}, "measure": {"scan_rescan_cv_percent": 3.0}}
    )
    caplog.set_level("INFO")
    results = process_subject(data, out, "sub-01", config=config).measures
    assert "labels saved earlier are reused" in caplog.text
    assert "registration saved earlier is reused" in caplog.text
    first = read_measures(processed / "sub-01/sub-01_measures.json")
    assert without_error(results) == without_error(first)
    # The vastus lateralis: of the largest a small part is in view, whose error is the levels'.
    wide, narrow = (m.measures.muscles[8].asymmetry.se_total_percent for m in (results, first))
    # But for the errors of counting slices and of fat fractions, which are the same in both.
    assert 1.8 * narrow < wide < 2 * narrow


def test_labels_of_a_contrast_taken_for_another_are_not_reused(
    data, processed, tmp_path, monkeypatch
):
    """The same files with the same contents, of which each now counts as the other."""
    out = tmp_path / "out"
    shutil.copytree(processed, out)

    def found_anew(*_: object, **__: object) -> None:
        raise SubjectUnusableError("segmented anew")

    monkeypatch.setattr("pipeline.flow.segment", found_anew)
    patterns = {**GIVEN.load.patterns, "water": ["_fat"], "fat": ["_water"]}
    exchanged = {"segment": {"engine": "given"}, "load": {"patterns": patterns}}
    with pytest.raises(SubjectUnusableError, match="segmented anew"):
        process_subject(data, out, "sub-01", config=load_config(overrides=exchanged))


@pytest.mark.usefixtures("no_pages")
def test_reused_stages_give_the_same_results_as_fresh_ones(data, processed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    (out / "sub-01/sub-01_measures.json").unlink()
    process_subject(data, out, "sub-01", config=GIVEN)
    assert comparable(out / "sub-01/sub-01_measures.json") == comparable(
        processed / "sub-01/sub-01_measures.json"
    )


@pytest.mark.usefixtures("no_pages")
def test_a_consensus_is_measured_shown_and_forgotten_again(data, processed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    asked = {"segment": {"engine": "given"}, "reconcile": {"consensus": True}}
    results = process_subject(data, out, "sub-01", config=load_config(overrides=asked)).measures
    assert "labels_are_consensus" in {f.code for f in results.findings}
    assert results.provenance.configuration["reconcile"]["consensus"] is True
    assert not any(m.asymmetry.verdict for m in results.measures.muscles)
    folder = SubjectFolder(out, "sub-01", None)
    own, agreed = (
        np.asarray(nib.load(path).dataobj) for path in (folder.labels, folder.consensus_labels)
    )
    assert np.count_nonzero(own != agreed) > 100
    # The volumes published are those of the consensus: validate counts its voxels.
    assert {problem.said for problem in check_results(out).problems} <= {"is missing"}
    rough = {"measure": {"scan_rescan_cv_percent": 3.0}, "segment": {"engine": "given"}}
    again = process_subject(data, out, "sub-01", config=load_config(overrides=rough)).measures
    assert not folder.consensus_labels.exists()
    first = read_measures(processed / "sub-01/sub-01_measures.json")
    assert without_error(again) == without_error(first)


def test_a_run_that_fails_leaves_no_numbers_of_an_earlier_one(data, processed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    folder = SubjectFolder(out, "sub-01", None)
    folder.surface_page.write_text("<p>both legs to turn")
    own = (folder.manual_labels.with_name("notes.txt"), folder.path / "figures/for_the_paper.svg")
    for path in own:
        path.write_text("mine")
    kept = {folder.labels, folder.label_table, folder.label_record, folder.transform}
    kept |= {folder.velocity, folder.log_jacobian, folder.lock, folder.run_log, *own}
    kept |= {folder.input_record}
    kept |= set(folder.path.glob("anat/*_desc-canonical_*"))
    strict = {"separate": {"smallest_leg_share": 0.9999}, "segment": {"engine": "given"}}
    with pytest.raises(SubjectUnusableError):
        process_subject(data, out, "sub-01", config=load_config(overrides=strict))
    left = {path for path in folder.path.rglob("*") if path.is_file()}
    assert left == kept | {folder.failure_record, folder.report}
    assert "separate: failed" in Page(folder.report.read_text()).text


@pytest.mark.usefixtures("no_pages")
def test_findings_of_a_reused_registration_are_told_again(data, tmp_path):
    strict = {"segment": {"engine": "given"}, "register": {"weak_overlap": 0.99}}
    out = tmp_path / "out"
    fresh = process_subject(data, out, "sub-01", config=load_config(overrides=strict)).measures
    told = [f for f in fresh.findings if f.stage == "register"]
    assert "registration_weak" in {f.code for f in told}
    strict["measure"] = {"scan_rescan_cv_percent": 3.0}
    again = process_subject(data, out, "sub-01", config=load_config(overrides=strict)).measures
    assert [f for f in again.findings if f.stage == "register"] == told
    assert again.registration == fresh.registration


@pytest.mark.usefixtures("no_pages")
def test_manual_labels_win_and_later_stages_run_again(data, processed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    path = out / "sub-01/anat/sub-01_dseg.nii.gz"
    image = nib.load(path)
    labels = np.asarray(image.dataobj).copy()
    labels[labels == 12] = 0  # somebody decides that the right gracilis is not there
    nib.save(
        nib.Nifti1Image(labels, image.affine, image.header),
        path.with_name("sub-01_desc-manual_dseg.nii.gz"),
    )
    results = process_subject(data, out, "sub-01", config=GIVEN).measures
    gracilis = next(m for m in results.measures.muscles if m.name == "gracilis")
    assert gracilis.right.status is Status.ABSENT
    assert "by hand" in results.engine.note


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_labels_edited_in_place_are_neither_used_nor_overwritten(data, processed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    folder = SubjectFolder(out, "sub-01", None)
    image = nib.load(folder.labels)
    edited = np.asarray(image.dataobj).copy()
    edited[edited == 8] = 9
    nib.save(nib.Nifti1Image(edited, image.affine, image.header), folder.labels)
    kept = folder.labels.read_bytes()
    config = load_config(
        overrides={"segment": {"engine": "given"}, "measure": {"scan_rescan_cv_percent": 3.0}}
    )
    with pytest.raises(InputError, match="not as this program wrote it"):
        process_subject(data, out, "01", config=config)
    assert folder.labels.read_bytes() == kept
    assert "desc-manual" in folder.failure_record.read_text()


def test_the_report_is_rebuilt_from_saved_derivatives_alone(processed, tmp_path):
    """Everything the report stage writes comes back with the same bytes, and nothing else moves."""
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    before = contents(out)
    built = [
        name for name in before if "/figures/" in name or name.endswith((".html", ".pdf", ".tsv"))
    ]
    assert {Path(name).suffix for name in built} == {".html", ".pdf", ".tsv", ".svg", ".png"}
    for name in built:
        (out / name).unlink()
    nowhere = tmp_path / "no_scans_here"
    code = cli.main([str(nowhere), str(out), "participant", "--report-only"])
    assert code == 0
    again = contents(out)
    assert again.keys() == before.keys()
    assert not [name for name in before if again[name] != before[name]]


@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize(
    "stage",
    # Killed with labels saved, and with everything but the report: every time; else `make slow`.
    [
        pytest.param("separate", marks=pytest.mark.slow),
        pytest.param("segment", marks=pytest.mark.slow),
        "register",
        pytest.param("measure", marks=pytest.mark.slow),
        "report",
    ],
)
def test_a_killed_run_resumes_to_the_same_results(data, processed, tmp_path, stage):
    """kill -9 as a stage begins; the same command then finishes the work."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", str(data), str(out), "participant", *WITH_LABELS],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    for line in process.stderr:
        if f"{stage} (" in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait(timeout=60)
    process.stderr.close()
    assert not (out / "sub-01/sub-01_measures.json").exists()
    process_subject(data, out, "sub-01", config=GIVEN)
    assert comparable(out / "sub-01/sub-01_measures.json") == comparable(
        processed / "sub-01/sub-01_measures.json"
    )


def test_two_runs_of_one_subject_do_not_meet(data, tmp_path):
    out = tmp_path / "out"
    with exclusive(SubjectFolder(out, "sub-01", None)):
        result = run_cli(data, out, "participant", "--participant-label", "01", *WITH_LABELS)
    assert result.returncode == 2
    assert "Another run is working on sub-01" in result.stderr
    assert not (out / "sub-01/sub-01_measures.json").exists()


def test_a_full_disk_leaves_nothing_that_looks_finished(data, tmp_path):
    """A limit on file sizes stands in for the full disk: writes fail in the middle of a file."""
    out = tmp_path / "out"
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000));"
        "from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(data), str(out), "participant", *WITH_LABELS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "cannot be written" in result.stderr
    assert not (out / "sub-01/sub-01_measures.json").exists()
    assert not list(out.rglob("*.part"))


def test_an_output_folder_that_cannot_be_written(data, tmp_path):
    target = tmp_path / "file"
    target.write_text("not a folder")
    result = run_cli(data, target, "participant")
    assert result.returncode == 2
    assert "cannot be written" in result.stderr


def test_output_inside_the_input_is_refused(data):
    for out in (data / "sub-01", data / "sub-01" / "results"):
        with pytest.raises(UsageError, match="inside the subject's input folder"):
            process_subject(data, out, "sub-01", config=GIVEN)


@pytest.mark.parametrize("place", ["the data folder itself", "a link to it", "links to subjects"])
def test_results_never_take_the_place_of_the_users_own_labels(tmp_path, capsys, place):
    data, out = tmp_path / "data", tmp_path / "out"
    write_subject(data / "sub-01" / "anat", small_scan())
    own = data / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    (data / "sub-01" / "anat" / "anat_dseg.nii.gz").rename(own)
    if place == "the data folder itself":
        out = data
    elif place == "a link to it":
        out.symlink_to(data)
    else:
        out.mkdir()
        (out / "sub-01").symlink_to(data / "sub-01")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for arguments in (
        [str(data), str(out), "participant", *WITH_LABELS],
        ["plan", str(data), str(out)],
    ):
        assert cli.main(arguments) == 2
        assert "results beside the data" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_results_in_a_folder_beside_the_subjects_are_welcome(data, tmp_path):
    folder = SubjectFolder(data / "derivatives", "sub-01", "ses-1")
    refuse_output_in_input(folder, data)
    link = tmp_path / "link"
    link.symlink_to(data)
    refuse_output_in_input(folder, link)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--participant-label", "99"], 3, "sub-99"),
        (["--participant-label", "../secret"], 2, "label"),
        (["--participant-label", "a/b"], 2, "label"),
        (["--engine", "magic"], 2, "magic"),
        (["--config", "missing.yaml"], 2, "missing.yaml"),
        (["--nprocs", "0"], 2, "--nprocs"),
        (["--mem", "lots"], 2, "--mem"),
        (["--labels", "missing.nii.gz"], 3, "label map is not there"),
        (["--label-scheme", "nobodys", *WITH_LABELS], 2, "nobodys"),
    ],
)
def test_wrong_arguments_end_with_a_message_and_their_code(
    data, tmp_path, capsys, arguments, code, words
):
    out = tmp_path / "out"
    assert cli.main([str(data), str(out), "participant", *arguments]) == code
    assert words in capsys.readouterr().err
    assert not list(out.rglob("*_measures.json"))


def test_an_unknown_engine_is_refused_before_any_work(data, tmp_path):
    config = load_config(overrides={"segment": {"engine": "embeded"}})
    with pytest.raises(pipeline.ConfigError, match="embeded"):
        process_subject(str(data), str(tmp_path / "out"), "sub-01", config=config)
    assert not (tmp_path / "out").exists()


def test_a_subject_without_data_leaves_nothing_behind(data, tmp_path):
    with pytest.raises(InputError, match="There is no subject sub-99"):
        process_subject(data, tmp_path / "out", "sub-99")
    assert not (tmp_path / "out").exists()


def test_a_misspelt_command_is_named(capsys):
    assert cli.main(["statsu", "data", "out"]) == 2
    assert "write myosymmetry status, if that is what was meant" in capsys.readouterr().err


def test_a_typo_in_the_configuration_names_the_right_key(data, tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text("measure:\n  profile_stepp_mm: 3\n")
    code = cli.main([str(data), str(tmp_path / "out"), "participant", "--config", str(config)])
    assert code == 2
    assert "write profile_step_mm, if that is what was meant" in capsys.readouterr().err


def one_leg(scan_folder: Path, out: Path) -> None:
    """A subject whose left leg was never imaged."""
    out.mkdir(parents=True)
    for path in scan_folder.glob("*.nii.gz"):
        image = nib.load(path)
        array = np.asarray(image.dataobj).copy()
        array[: array.shape[0] // 2] = 0
        nib.save(nib.Nifti1Image(array, image.affine), out / path.name.replace("sub-01", out.name))


def test_one_leg_in_view_is_unusable(data, tmp_path):
    one_leg(data / "sub-01", tmp_path / "data/sub-02")
    (tmp_path / "data/sub-02/sub-02_dseg.nii.gz").unlink()
    result = run_cli(tmp_path / "data", tmp_path / "out", "participant")
    assert result.returncode == 4, result.stderr
    assert "leg" in result.stderr
    assert not list((tmp_path / "out").rglob("*_measures.json"))


def test_several_subjects_at_once_one_of_them_broken(data, processed, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    shutil.copytree(processed, tmp_path / "out")
    (tmp_path / "out/sub-01/sub-01_measures.json").unlink()
    (folder / "sub-02").mkdir()
    (folder / "sub-02/sub-02_water.nii.gz").write_bytes(b"")
    started = time.monotonic()
    result = run_cli(
        folder, tmp_path / "out", "participant", "--nprocs", "2", "--mem", "9G", *WITH_LABELS
    )
    assert time.monotonic() - started < 300
    assert result.returncode == 3
    assert "sub-02" in result.stderr
    assert (tmp_path / "out/sub-01/sub-01_measures.json").is_file()
    assert not list((tmp_path / "out").rglob("sub-02_measures.json"))
    failure = json.loads((tmp_path / "out/sub-02/log/sub-02_failure.json").read_text())
    assert (failure["exit_code"], failure["stage"]) == (3, "load")
    assert "The water image sub-02_water.nii.gz is empty" in failure["problem"]
    assert not (tmp_path / "out/sub-01/log/sub-01_failure.json").exists()


def test_a_subject_without_results_does_not_keep_others_from_their_reports(
    processed, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(processed, out)
    (out / "sub-00").mkdir()
    page = SubjectFolder(out, "sub-01", None).report
    page.unlink()
    assert cli.main(["report", str(out)]) == UsageError.exit_code
    said = capsys.readouterr()
    assert said.out == f"{page}\n"
    assert "sub-00: There are no finished results of sub-00" in said.err
    assert page.is_file()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ZeroDivisionError("seven"), 70, "a bug in myosymmetry, please report this:"),
        (MemoryError(), 6, "There was not enough memory"),
    ],
)
def test_what_no_command_expected_has_its_exit_code(monkeypatch, capsys, error, code, words):
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr("pipeline.report.check.check_results", fail)
    assert cli.main(["validate", "out"]) == code
    said = capsys.readouterr().err
    assert words in said
    assert ("ZeroDivisionError" in said) == (code == 70)
    # The words of an exception may name a person, and this is no terminal.
    assert "seven" not in said


def test_a_reader_that_wants_no_more_is_no_bug():
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    process.stdout.close()
    assert process.wait(timeout=120) == 141
    assert process.stderr.read() == ""


def test_other_commands(data, processed, capsys):
    assert cli.main(["validate", str(processed)]) == 0
    assert "1 results, 0 problems" in capsys.readouterr().out
    assert cli.main(["inspect", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["subject"] == "sub-01"
    assert cli.main(["schema"]) == 0


@pytest.mark.usefixtures("no_pages")
def test_sessions_have_folders_and_names_of_their_own(tmp_path):
    write_subject(tmp_path / "data/sub-03/ses-1/sub-03_ses-1", thighs())
    out = tmp_path / "out"
    # The only session need not be named, here no more than on the command line.
    process_subject(tmp_path / "data", out, "03", config=GIVEN)
    results = out / "sub-03/ses-1/sub-03_ses-1_measures.json"
    assert Measures.model_validate_json(results.read_text()).session == "ses-1"


@pytest.mark.usefixtures("no_pages")
def test_stages_are_told_to_the_progress_in_order(tmp_path):
    told: list[str] = []
    write_subject(tmp_path / "data/sub-04", thighs())
    process_subject(
        tmp_path / "data",
        tmp_path / "out",
        "sub-04",
        config=GIVEN,
        progress=lambda stage, number, count: told.append(stage),
    )
    assert tuple(told) == STAGES


def test_a_single_contrast_gives_volumes_and_says_that_lean_volume_is_an_estimate(tmp_path):
    from pipeline.core.volume import Quantity
    from pipeline.phantom import Acquisition, acquire

    scan = acquire(body(), Acquisition(thighs().labels.grid, contrasts=(Quantity.T1W,), seed=1))
    write_subject(tmp_path / "data/sub-05", scan)
    (image,) = (tmp_path / "data/sub-05").glob("*_T1w.nii.gz")
    sidecar = {"MagneticFieldStrength": 3, "RepetitionTime": 0.5}
    image.with_name("sub-05_T1w.json").write_text(json.dumps(sidecar))
    results = process_subject(tmp_path / "data", tmp_path / "out", "sub-05", config=GIVEN).measures
    stated = ScannerSettings(field_t=3.0, repetition_ms=500.0, flip_deg=None)
    assert results.scanner_settings == {"T1w": stated}
    muscle = results.measures.muscles[8]
    volume = muscle.right.volume_in_view_ml
    assert 0 < muscle.right.lean_volume_in_view_ml <= volume
    assert muscle.asymmetry.verdict is None
    assert muscle.asymmetry_total_volume.verdict is not None
    said = "an estimate from the T1w image alone"
    page = (tmp_path / "out/sub-05/sub-05_report.html").read_text()
    assert "Lean volumes are estimated" in page
    assert "Total volume leads on this page" in page
    settings = "field strength 3 T, repetition time 500 ms, flip angle not known"
    assert f"Scanner settings, as the files state them: {settings}." in page
    assert said in page
    assert said in (tmp_path / "out/sub-05/sub-05_measures.tsv").read_text()
    assert said in muscle.right.lean_estimate
    pdf = PdfReader(tmp_path / "out/sub-05/sub-05_report.pdf")
    words = " ".join("".join(p.extract_text() for p in pdf.pages).split())
    assert said in words


@pytest.mark.usefixtures("no_pages")
def test_labels_without_an_image_give_volumes(tmp_path):
    write_subject(tmp_path / "data/sub-06", thighs())
    for name in ("water", "fat"):
        (tmp_path / f"data/sub-06/sub-06_{name}.nii.gz").unlink()
    results = process_subject(tmp_path / "data", tmp_path / "out", "sub-06", config=GIVEN).measures
    muscle = results.measures.muscles[8]
    assert muscle.right.volume_in_view_ml > 0
    assert muscle.right.fat_fraction_percent is None
    assert "without an image" in muscle.right.lean_reason
