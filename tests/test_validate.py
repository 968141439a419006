"""`myosymmetry validate`: every planted fault is found, named and given a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from factories import make_measures

from pipeline import cli
from pipeline.core.errors import InputError, ResultsError, UsageError
from pipeline.followup import compare_results
from pipeline.io.derivatives import SubjectFolder, finished_measures, write_text
from pipeline.report.check import check_results
from pipeline.report.pdf import render_pdf

STEM = "sub-01/sub-01"


@pytest.fixture
def out(processed: Path, tmp_path: Path) -> Path:
    """A copy of good results, to be spoilt."""
    copy = tmp_path / "out"
    shutil.copytree(processed, copy)
    return copy


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def muscle(document: dict, name: str) -> dict:
    return next(m for m in document["measures"]["muscles"] if m["name"] == name)


def replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def negative_volume(out: Path) -> None:
    def change(document: dict) -> None:
        muscle(document, "soleus")["right"]["volume_whole_ml"] = -3.0

    edit(out / f"{STEM}_measures.json", change)


def unknown_field(out: Path) -> None:
    edit(out / f"{STEM}_measures.json", lambda document: document.update(diagnosis="none"))


def another_schema(out: Path) -> None:
    edit(out / f"{STEM}_measures.json", lambda document: document.update(schema_version="0.9"))


def wrong_asymmetry(out: Path) -> None:
    def change(document: dict) -> None:
        muscle(document, "gracilis")["asymmetry"]["index_percent"] += 1.0

    edit(out / f"{STEM}_measures.json", change)


def wrong_interval(out: Path) -> None:
    def change(document: dict) -> None:
        muscle(document, "gracilis")["asymmetry"]["interval_high_percent"] += 1.0

    edit(out / f"{STEM}_measures.json", change)


def edited_configuration(out: Path) -> None:
    def change(document: dict) -> None:
        document["provenance"]["configuration"]["measure"]["profile_step_mm"] = 99

    edit(out / f"{STEM}_measures.json", change)


def moved(out: Path) -> None:
    (out / "sub-09").mkdir()
    shutil.copy(out / f"{STEM}_measures.json", out / "sub-09/sub-09_measures.json")


def other_run(out: Path) -> None:
    edit(out / "sub-01/log/sub-01_run.json", lambda record: record.update(python_version="2.7"))


def other_labels(out: Path) -> None:
    def change(record: dict) -> None:
        record["engine"]["digest"] = "00" * 32

    edit(out / "sub-01/anat/sub-01_dseg.json", change)


def repainted(value: int, by: int) -> Callable[[Path], None]:
    def plant(out: Path) -> None:
        path = out / "sub-01/anat/sub-01_dseg.nii.gz"
        image = nib.load(path)
        labels = np.asarray(image.dataobj).copy()
        labels[labels == value] = by
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)

    plant.__name__ = f"label_{value}_becomes_{by}"
    return plant


def no_labels(out: Path) -> None:
    (out / "sub-01/anat/sub-01_dseg.nii.gz").unlink()


def cut_labels(out: Path) -> None:
    path = out / "sub-01/anat/sub-01_dseg.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


def renamed_label(out: Path) -> None:
    replace_once(out / "sub-01/anat/sub-01_dseg.tsv", "soleus_right", "soleus_left")


def table_without_a_label(out: Path) -> None:
    path = out / "sub-01/anat/sub-01_dseg.tsv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("9\t")))


def spoilt_cell(name: str) -> Callable[[Path], None]:
    def plant(out: Path) -> None:
        path = out / f"{STEM}_{name}"
        header, *rows = path.read_text().splitlines()
        cells = rows[0].split("\t")
        cells[5] = "123.45"
        path.write_text("\n".join([header, "\t".join(cells), *rows[1:]]) + "\n")

    plant.__name__ = f"spoilt_{name}"
    return plant


def short_table(out: Path) -> None:
    path = out / f"{STEM}_measures.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def spoilt_number_on_the_page(out: Path) -> None:
    path = out / f"{STEM}_report.html"
    text = path.read_text()
    start = text.index(">", text.index('<data class="n"')) + 1
    path.write_text(text[:start] + "999" + text[text.index("</data>", start) :])


def page_of_another(out: Path) -> None:
    replace_once(out / f"{STEM}_report.html", "/measures/groups/", "/measures/nothing/")


def empty_page(out: Path) -> None:
    (out / f"{STEM}_report.html").write_text("<html>Not measured</html>")


def no_page(out: Path) -> None:
    (out / f"{STEM}_report.html").unlink()


def pdf_of_another(out: Path) -> None:
    (out / f"{STEM}_report.pdf").write_bytes(
        render_pdf(make_measures(), [], largest=5, scale_percent=20)
    )


def broken_pdf(out: Path) -> None:
    (out / f"{STEM}_report.pdf").write_bytes(b"%PDF-1.4 nothing")


def no_description(out: Path) -> None:
    (out / "dataset_description.json").unlink()


def raw_description(out: Path) -> None:
    edit(out / "dataset_description.json", lambda found: found.update(DatasetType="raw"))


def half_a_file(out: Path) -> None:
    (out / "sub-01/.sub-01_report.pdf.x1.part").write_bytes(b"half")


@pytest.mark.parametrize(
    ("plant", "file", "words"),
    [
        (negative_volume, "sub-01_measures.json", "soleus|right.volume_whole_ml"),
        (unknown_field, "sub-01_measures.json", "diagnosis"),
        (another_schema, "sub-01_measures.json", "results of schema 0.9"),
        (wrong_asymmetry, "sub-01_measures.json", "gracilis: asymmetry of lean_volume"),
        (wrong_interval, "sub-01_measures.json", "gracilis: interval_high_percent"),
        (edited_configuration, "sub-01_measures.json", "digest"),
        (moved, "sub-09_measures.json", "holds results of sub-01"),
        (other_run, "sub-01_run.json", "another run"),
        (other_labels, "sub-01_dseg.json", "engine digest"),
        (repainted(12, 77), "sub-01_dseg.nii.gz", "does not list: 77"),
        (repainted(12, 13), "sub-01_dseg.nii.gz", "gracilis right: expected"),
        (no_labels, "sub-01_dseg.nii.gz", "is missing"),
        (cut_labels, "sub-01_dseg.nii.gz", "cannot be read"),
        (renamed_label, "sub-01_dseg.tsv", "row '26', name"),
        (table_without_a_label, "sub-01_dseg.nii.gz", "does not list: 9"),
        (spoilt_cell("measures.tsv"), "sub-01_measures.tsv", "row 'gluteus_maximus'"),
        (spoilt_cell("desc-wide_measures.tsv"), "desc-wide_measures.tsv", "row 'sub-01'"),
        (short_table, "sub-01_measures.tsv", "rows, found"),
        (spoilt_number_on_the_page, "sub-01_report.html", "found '999'"),
        (page_of_another, "sub-01_report.html", "which the results do not hold"),
        (empty_page, "sub-01_report.html", "no number of these results"),
        (no_page, "sub-01_report.html", "is missing"),
        (pdf_of_another, "sub-01_report.pdf", "expected the row 'Gluteus maximus"),
        (broken_pdf, "sub-01_report.pdf", "cannot be read"),
        (no_description, "dataset_description.json", "found none"),
        (raw_description, "dataset_description.json", "found 'raw'"),
        (half_a_file, ".sub-01_report.pdf.x1.part", "stopped"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_found(out, plant, file, words):
    plant(out)
    problems = check_results(out).problems
    found = [str(p) for p in problems if p.file.endswith(file)]
    assert any(any(word in text for word in words.split("|")) for text in found), problems
    assert all("What to do: " in text for text in found)


def test_good_results_pass_and_bad_ones_have_their_own_exit_code(out, capsys):
    assert cli.main(["validate", str(out)]) == 0
    assert capsys.readouterr().out == "1 results, 0 problems\n"
    no_page(out)
    assert cli.main(["validate", str(out)]) == ResultsError.exit_code == 5
    said = capsys.readouterr()
    assert said.err.startswith("sub-01/sub-01_report.html: is missing. What to do: ")
    assert said.out == "1 results, 1 problems\n"


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="not there"):
        check_results(tmp_path / "nothing")


def test_a_folder_without_results_does_not_pass(tmp_path, capsys):
    with pytest.raises(InputError, match="no subject"):
        check_results(tmp_path)
    assert cli.main(["validate", str(tmp_path)]) == InputError.exit_code
    assert "give the folder that holds the sub-... folders" in capsys.readouterr().err
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(UsageError, match="1 subjects without one"):
        check_results(tmp_path)


def followed_up(out: Path, elsewhere: Path) -> Path:
    """The path of a comparison of these results with later ones that lie elsewhere."""
    first = finished_measures(SubjectFolder(out, "sub-01", None))
    used = first.provenance.model_copy(update={"inputs": {"water.nii.gz": "ab" * 32}})
    later = SubjectFolder(elsewhere, "sub-01", "ses-2")
    made = first.model_copy(update={"session": "ses-2", "provenance": used})
    write_text(later.measures, made.model_dump_json())
    folder = SubjectFolder(out, "sub-01", None)
    _, page = compare_results([folder.path, later.path], out=folder.path)
    return page


def test_a_follow_up_is_checked_too(out, tmp_path, capsys):
    page = followed_up(out, tmp_path / "elsewhere")
    assert cli.main(["validate", str(out)]) == 0
    assert capsys.readouterr().out == "1 results, 1 follow-ups, 0 problems\n"
    document, table = (page.with_suffix(ending) for ending in (".json", ".tsv"))
    replace_once(document, '"results_digest": "', '"results_digest": "0')
    replace_once(table, "soleus", "solaris")
    replace_once(page, "/later/0/changes/", "/later/9/changes/")
    said = list(map(str, check_results(out).problems))
    for path, words in (
        (document, "compares other results of sub-01 than those there are now"),
        (table, "expected 'soleus', found 'solaris'"),
        (page, "which the results do not hold"),
    ):
        (found,) = (text for text in said if text.startswith(f"sub-01/{path.name}: "))
        assert words in found
        assert "myosymmetry compare" in found
    assert len(said) == 3
    replace_once(document, '"basis"', '"diagnosis"')
    assert "does not fit its schema" in str(check_results(out).problems[0])
