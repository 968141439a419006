"""Checks of published results: does everything in a folder still say what the JSON says?

Nothing is repaired and nothing is written. Every problem names the file, what was expected, what
was found and what to do about it.
"""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import ValidationError
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from pipeline.core.anatomy import LEFT_OFFSET, OWN_SCHEME, Side
from pipeline.core.change import Changes
from pipeline.core.errors import MyosymmetryError, UsageError
from pipeline.core.results import Asymmetry, Compared, Measures, on_side, volume_field
from pipeline.core.volume import LabelMap
from pipeline.imaging.asymmetry import index_from_log_ratio, interval_percent
from pipeline.io.derivatives import SubjectFolder, read_json, read_measures
from pipeline.io.discover import list_subjects
from pipeline.io.nifti import read_label_map
from pipeline.provenance import digest_of, digest_of_document
from pipeline.report.change import change_table
from pipeline.report.format import Style, show
from pipeline.report.numbers import Numbers
from pipeline.report.pdf import table_rows
from pipeline.report.tables import label_table, measures_table, wide_table

#: Sums over the same voxels in another order agree to this share.
_ROUNDING = 1e-6
#: Problems of one kind in one file beyond this many are counted, not listed.
_MOST_LISTED = 5

_REBUILD = "build the report again: myosymmetry report"
_PROCESS = "process the subject again"
_COMPARE = "compare the scans again: myosymmetry compare"

#: A published document.
D = TypeVar("D", Measures, Changes)


@dataclass(frozen=True)
class Problem:
    """Something that does not hold.

    Attributes:
        file: the file, relative to the results folder.
        said: what was expected and found, in one sentence.
        action: what to do about it.
    """

    file: str
    said: str
    action: str

    def __str__(self) -> str:
        return f"{self.file}: {self.said}. What to do: {self.action}."


@dataclass(frozen=True)
class CheckedResults:
    """What a check found.

    Attributes:
        results: how many published results there are.
        comparisons: how many published follow-ups.
        problems: everything that does not hold, in the order of the files.
    """

    results: int
    comparisons: int
    problems: tuple[Problem, ...]


def check_results(out: Path) -> CheckedResults:
    """Check everything published below a folder against its schema and its own files.

    Args:
        out: the results folder that was given to the runs.

    Raises:
        UsageError: the folder is not there, or no subject in it has results.
        InputError: there is no subject in it.
    """
    if not out.is_dir():
        raise UsageError(
            "The results folder is not there",
            expected="the output folder of earlier runs",
            found=str(out),
            action="check the path",
        )
    subjects = list_subjects(out)
    paths, changes = (
        sorted(out.glob(f"sub-*/**/*_{name}.json")) for name in ("measures", "change")
    )
    if not paths:
        raise UsageError(
            f"There are no results to check in {out}",
            expected="a <subject>_measures.json in a subject's folder",
            found=f"{len(subjects)} subjects without one",
            action="process them first; `myosymmetry status` says how far they are",
        )
    problems = list(_dataset_description(out))
    for path in paths:
        problems += _Subject(out, path).problems()
    for path in changes:
        problems += _Comparison(out, path).problems()
    return CheckedResults(len(paths), len(changes), tuple(problems))


def _dataset_description(out: Path) -> Iterator[Problem]:
    name = "dataset_description.json"
    found = read_json(out / name)
    if not isinstance(found, dict):
        yield Problem(name, "expected a JSON object, found none", _PROCESS)
        return
    for key in ("Name", "BIDSVersion"):
        if not isinstance(found.get(key), str):
            yield Problem(name, f"expected a text as {key}, found {found.get(key)!r}", _PROCESS)
    if found.get("DatasetType") != "derivative":
        kind = found.get("DatasetType")
        yield Problem(name, f"expected DatasetType 'derivative', found {kind!r}", _PROCESS)
    makers = found.get("GeneratedBy")
    first = makers[0] if isinstance(makers, list) and makers else None
    if not isinstance(first, dict) or not {"Name", "Version"} <= first.keys():
        yield Problem(name, "expected GeneratedBy with Name and Version, found none", _PROCESS)


class _Document(ABC, Generic[D]):
    """The checks that every published document has in common.

    Attributes:
        model: what the document has to fit.
        action: how it is made again.
        rebuild: how the files beside it are.
    """

    model: type[D]
    action: str
    rebuild: str

    def __init__(self, out: Path, path: Path) -> None:
        self._out = out
        self._path = path

    def problems(self) -> list[Problem]:
        """All of them; a document that does not fit its schema ends its checks."""
        try:
            document = self.model.model_validate_json(self._path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            return [self._problem(self._path, "is not text in UTF-8", self.action)]
        except ValidationError as error:
            return [
                self._problem(self._path, f"does not fit its schema: {_in_words(e)}", self.action)
                for e in error.errors()[:_MOST_LISTED]
            ]
        return self.of_document(document)

    @abstractmethod
    def of_document(self, document: D) -> list[Problem]:
        """The problems of a document that fits its schema."""

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._out).as_posix()

    def _problem(self, path: Path, said: str, action: str) -> Problem:
        return Problem(self._relative(path), said, action)

    def _some(self, path: Path, said: list[str], action: str) -> Iterator[Problem]:
        """The first problems of a kind, and how many more there are."""
        for text in said[:_MOST_LISTED]:
            yield self._problem(path, text, action)
        if len(said) > _MOST_LISTED:
            yield self._problem(path, f"{len(said) - _MOST_LISTED} more of this kind", action)

    def _table(self, path: Path, expected: str) -> Iterator[Problem]:
        """A table, where it is there, is the one that the document gives."""
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if text != expected:
                yield self._problem(path, _first_difference(expected, text), self.rebuild)

    def _numbers(self, path: Path, document: D) -> Iterator[Problem]:
        """Every number of a page, where it is there, is the one of the document."""
        if not path.is_file():
            return
        page = _Page(path.read_text(encoding="utf-8", errors="replace"))
        if not page.numbers:
            yield self._problem(path, "holds no number of these results", self.rebuild)
        num = Numbers(document)
        said = []
        for attributes, text in page.numbers:
            pointer = attributes.get("data-pointer", "")
            try:
                value, style = num.value(pointer), Style(attributes.get("data-style", ""))
            except (KeyError, IndexError, ValueError):
                said.append(f"shows {text!r} from {pointer!r}, which the results do not hold")
                continue
            shown = (show(value, style), show(value, style, unit=True))
            if attributes.get("value") != repr(value) or text not in shown:
                said.append(
                    f"{pointer}: expected {shown[1]!r} ({value!r}), "
                    f"found {text!r} ({attributes.get('value')})"
                )
        yield from self._some(path, said, self.rebuild)


class _Subject(_Document[Measures]):
    """The checks of one published result."""

    model = Measures
    action = _PROCESS
    rebuild = _REBUILD

    def of_document(self, measures: Measures) -> list[Problem]:
        folder = SubjectFolder(self._out, measures.subject, measures.session)
        if folder.measures != self._path:
            said = f"holds results of {folder.stem}, expected at {self._relative(folder.measures)}"
            return [self._problem(self._path, said, "put it back where it belongs")]
        checks: tuple[Callable[[SubjectFolder, Measures], Iterator[Problem]], ...] = (
            self._files,
            self._arithmetic,
            self._digests,
            self._labels,
            self._tables,
            self._page,
            self._pdf,
        )
        return [problem for check in checks for problem in check(folder, measures)]

    def _files(self, folder: SubjectFolder, _: Measures) -> Iterator[Problem]:
        """Everything a run leaves is there, and nothing half-written."""
        for path in (folder.labels, folder.label_record, folder.transform, folder.run_record):
            if not path.is_file():
                yield self._problem(path, "is missing", _PROCESS)
        for path in (
            folder.report,
            folder.pdf,
            folder.table,
            folder.wide_table,
            folder.label_table,
            folder.figure("asymmetry.svg"),
        ):
            if not path.is_file():
                yield self._problem(path, "is missing", _REBUILD)
        for path in sorted(folder.path.rglob(".*.part")):
            yield self._problem(path, "is left of a run that was stopped", "delete it")

    def _arithmetic(self, folder: SubjectFolder, measures: Measures) -> Iterator[Problem]:
        """Asymmetries are those of the volumes beside them, intervals those of their errors."""
        said = [
            f"{result.name}: {text}"
            for result in measures.measures.compared
            for asymmetry in (result.asymmetry, result.asymmetry_total_volume)
            for text in _wrong_numbers(result, asymmetry)
        ]
        yield from self._some(folder.measures, said, _PROCESS)

    def _digests(self, folder: SubjectFolder, measures: Measures) -> Iterator[Problem]:
        """Digests are those of what they stand for, and the records agree."""
        used = measures.provenance
        digest = digest_of(used.configuration)
        if digest != used.configuration_digest:
            said = (
                f"the configuration's digest is {digest[:12]}, "
                f"expected {used.configuration_digest[:12]}"
            )
            yield self._problem(folder.measures, said, _PROCESS)
        if folder.run_record.is_file() and read_json(folder.run_record) != used.model_dump(
            mode="json"
        ):
            said = "is of another run than the results (versions, configuration or inputs differ)"
            yield self._problem(folder.run_record, said, _PROCESS)
        record = read_json(folder.label_record) if folder.label_record.is_file() else None
        engine = record.get("engine") if isinstance(record, dict) else None
        if isinstance(engine, dict):
            for key in ("name", "version", "digest"):
                expected = getattr(measures.engine, key)
                if engine.get(key) != expected:
                    said = f"engine {key}: expected {expected!r}, found {engine.get(key)!r}"
                    yield self._problem(folder.label_record, said, _PROCESS)

    def _labels(self, folder: SubjectFolder, measures: Measures) -> Iterator[Problem]:
        """The label map holds what its table lists, and the volumes that were published."""
        listed: set[int] = set()
        if folder.label_table.is_file():
            text = folder.label_table.read_text(encoding="utf-8", errors="replace")
            if text != label_table():
                said = (
                    f"is not the table of this label map: {_first_difference(label_table(), text)}"
                )
                yield self._problem(folder.label_table, said, _REBUILD)
            listed = {
                int(row["index"])
                for row in csv.DictReader(io.StringIO(text), delimiter="\t")
                if (row.get("index") or "").isdigit()
            }
        path = folder.measured_labels
        if not path.is_file():
            return
        try:
            labels = read_label_map(path, OWN_SCHEME)
        except MyosymmetryError as error:
            yield self._problem(path, f"cannot be read ({error})", _PROCESS)
            return
        unknown = sorted(set(labels.values()) - listed)
        if unknown and listed:
            said = f"holds values that its table does not list: {', '.join(map(str, unknown))}"
            yield self._problem(path, said, _PROCESS)
        yield from self._some(path, _wrong_volumes(labels, measures), _PROCESS)

    def _tables(self, folder: SubjectFolder, measures: Measures) -> Iterator[Problem]:
        """The tables hold the numbers of the JSON."""
        yield from self._table(folder.table, measures_table(measures))
        yield from self._table(folder.wide_table, wide_table(measures))

    def _page(self, folder: SubjectFolder, measures: Measures) -> Iterator[Problem]:
        """Every number of the page is the one of the JSON."""
        yield from self._numbers(folder.report, measures)

    def _pdf(self, folder: SubjectFolder, measures: Measures) -> Iterator[Problem]:
        """Every row of the PDF's tables holds the numbers of the JSON."""
        if not folder.pdf.is_file():
            return
        try:
            pages = [page.extract_text() for page in PdfReader(folder.pdf).pages]
        except (PyPdfError, ValueError, KeyError) as error:
            yield self._problem(folder.pdf, f"cannot be read ({error})", _REBUILD)
            return
        text = _one_line(" ".join(pages))
        said = [
            f"expected the row {line!r}, found none"
            for row in table_rows(measures)
            if (line := _one_line(" ".join(row))) not in text
        ]
        yield from self._some(folder.pdf, said, _REBUILD)


class _Comparison(_Document[Changes]):
    """The checks of one published follow-up."""

    model = Changes
    action = rebuild = _COMPARE

    def of_document(self, changes: Changes) -> list[Problem]:
        """Table and page hold the numbers of the JSON, which is of the results there are now."""
        table, page = (self._path.with_suffix(ending) for ending in (".tsv", ".html"))
        missing = [
            self._problem(path, "is missing", self.rebuild)
            for path in (table, page)
            if not path.is_file()
        ]
        return [
            *missing,
            *self._scans(changes),
            *self._table(table, change_table(changes)),
            *self._numbers(page, changes),
        ]

    def _scans(self, changes: Changes) -> Iterator[Problem]:
        for scan in changes.scans:
            folder = SubjectFolder(self._out, changes.subject, scan.session)
            results = read_measures(folder.measures)
            # Scans may have been processed elsewhere.
            if results is not None and digest_of_document(results) != scan.results_digest:
                said = f"compares other results of {folder.stem} than those there are now"
                yield self._problem(self._path, said, self.action)


class _Page(HTMLParser):
    """The numbers of a page: attributes of each <data> element and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[Mapping[str, str], str]] = []
        self._open: dict[str, str] | None = None
        self._text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "data":
            self._open = {key: value or "" for key, value in attrs}
            self._text = ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self._open is not None:
            self.numbers.append((self._open, self._text))
            self._open = None


def _in_words(error: Mapping[str, Any]) -> str:
    """A pydantic error as "where: what"; the document itself is never quoted."""
    where = ".".join(str(part) for part in error["loc"]) or "the document"
    return f"{where}: {error['msg']}"


def _wrong_numbers(result: Compared, asymmetry: Asymmetry) -> Iterator[str]:
    index, log_ratio, extent = asymmetry.index_percent, asymmetry.log_ratio, asymmetry.extent
    if index is None or log_ratio is None or extent is None:
        return
    right, left = (side.volume_ml(asymmetry.of, extent) for side in (result.right, result.left))
    if not right or not left:
        field = volume_field(asymmetry.of, extent)
        yield f"asymmetry of {asymmetry.of} without {field} on both sides"
        return
    expected = 200.0 * (right - left) / (right + left)
    of = f"asymmetry of {asymmetry.of}, percent"
    for what, value in ((of, expected), (f"{of}, from ln(R/L)", index_from_log_ratio(log_ratio))):
        if abs(value - index) > 100.0 * _ROUNDING:
            yield f"{what}: expected {value:.6g}, found {index:.6g}"
    if asymmetry.se_total_percent is None:
        return
    low, high = interval_percent(log_ratio, asymmetry.se_total_percent / 100.0)
    for end, value, found in (
        ("low", low, asymmetry.interval_low_percent),
        ("high", high, asymmetry.interval_high_percent),
    ):
        if found is None or abs(value - found) > 100.0 * _ROUNDING:
            yield f"interval_{end}_percent of {asymmetry.of}: expected {value:.6g}, found {found}"


def _wrong_volumes(labels: LabelMap, measures: Measures) -> list[str]:
    """Volumes in view that are not those of the label map."""
    counts = np.bincount(labels.data.ravel(), minlength=2 * LEFT_OFFSET)
    said = []
    for muscle in measures.measures.muscles:
        for side in Side:
            value = muscle.id + (LEFT_OFFSET if side is Side.LEFT else 0)
            counted = float(counts[value]) * labels.grid.voxel_volume_ml
            published = on_side(muscle, side).volume_in_view_ml or 0.0
            if abs(counted - published) > _ROUNDING * max(counted, published):
                said.append(
                    f"{muscle.name} {side}: expected {published:.4g} mL in view as published, "
                    f"found {counted:.4g} mL"
                )
    return said


def _first_difference(expected: str, found: str) -> str:
    """Where a table first differs, by the names of its row and column."""
    right, wrong = (
        list(csv.reader(io.StringIO(text), delimiter="\t")) for text in (expected, found)
    )
    for row, (one, other) in enumerate(zip(right, wrong, strict=False)):
        for column, (good, bad) in enumerate(zip(one, other, strict=False)):
            if good != bad:
                where = f"row {one[0]!r}, {right[0][column]}" if row else "the column names"
                return f"{where}: expected {good!r}, found {bad!r}"
        if len(one) != len(other):
            return f"row {one[0]!r}: expected {len(one)} cells, found {len(other)}"
    return f"expected {len(right)} rows, found {len(wrong)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
