"""The pipeline. Read this first: the stages in order, what is saved, and how a run resumes.

    load -> canonicalise -> separate -> segment -> register -> (reconcile) -> measure -> report

`segment` and `register` cost time and are saved; they are reused when nothing they rest on has
changed (inputs, their configuration, the code). The other stages are cheap and always run. The
report is built from what was saved, and then the results file is published, last. `reconcile` is
part of the step `register` and changes nothing unless the configuration asks for a consensus.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline import report
from pipeline.config import Config, default_config, with_given_labels
from pipeline.core.anatomy import OWN_SCHEME, Side
from pipeline.core.errors import UsageError, out_of_memory
from pipeline.core.match import LegMatch
from pipeline.core.results import (
    LEFT_OUT,
    STATION_INCOMPLETE,
    Finding,
    Measures,
    Severity,
)
from pipeline.core.scan import (
    GIVEN,
    CanonicalScan,
    EngineInfo,
    LegPair,
    LoadedSubject,
    SegmentedLegs,
    StageResult,
)
from pipeline.core.volume import LabelMap
from pipeline.engines import get_engine
from pipeline.imaging.deformation import log_jacobian
from pipeline.imaging.labels import join_labels, split_labels
from pipeline.imaging.limb_axis import with_labels
from pipeline.imaging.orientation import restore, to_canonical
from pipeline.imaging.tissue import fat_fraction
from pipeline.io.derivatives import (
    SubjectFolder,
    exclusive,
    finished_measures,
    read_measures,
    refuse_output_in_input,
    write_dataset_description,
    write_json,
    write_text,
)
from pipeline.io.discover import input_state, subject_and_session, subject_folder
from pipeline.io.nifti import write_label_map
from pipeline.io.stage_results import (
    confidences,
    flags_of_levels,
    load_match,
    load_segmentation,
    save_images,
    save_match,
    save_segmentation,
)
from pipeline.measuring.document import engine_used, measures_document
from pipeline.provenance import provenance, stage_key
from pipeline.stages.canonicalise import canonicalise
from pipeline.stages.load import load_subject
from pipeline.stages.measure import measure
from pipeline.stages.reconcile import reconcile
from pipeline.stages.register import register
from pipeline.stages.segment import segment
from pipeline.stages.separate import separate_legs

logger = logging.getLogger(__name__)

STAGES = ("load", "canonicalise", "separate", "segment", "register", "measure", "report")

#: Told the stage that begins, its number from 1, and how many there are.
Progress = Callable[[str, int, int], None]

T = TypeVar("T")

#: Findings that say what of a subject's folder is not used.
_NOT_USED = frozenset({LEFT_OUT, STATION_INCOMPLETE})


@dataclass(frozen=True)
class ProcessedSubject:
    """What a run leaves behind."""

    measures: Measures
    report: Path
    reused: bool


def process_subject(
    data: Path | str,
    out: Path | str,
    subject: str,
    *,
    session: str | None = None,
    labels: Path | str | None = None,
    config: Config | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ProcessedSubject:
    """From the images of one subject to the published results and the report.

    Args:
        data: folder with one folder per subject.
        out: folder for the results; another than data, so that nothing is written among the scans.
        subject, session: labels, with or without their prefix; None: the only session, if any.
        labels: a label map made elsewhere, used in place of the configured engine. One that lies
            in the subject's folder is used when the engine is "given".
        config: configuration; None: the default.
        force: reuse nothing that was saved earlier.
        progress: told about each stage as it begins.

    Raises:
        UsageError, InputError, SubjectUnusableError, UnmetNeedError: see the message; nothing is
            published. A subject that could not be measured gets a report that says so.
    """
    config = config if config is not None else default_config()
    data, out, labels = Path(data), Path(out), None if labels is None else Path(labels)
    # An unknown one is refused before any work is done.
    get_engine(config.segment)
    subject, session = subject_and_session(data, subject, session)
    folder = SubjectFolder(out, subject, session)
    refuse_output_in_input(folder, data)
    run = _Run(folder, force=force, progress=progress)
    try:
        return _process(run, data, labels=labels, config=config)
    except UsageError:
        # The command was wrong, not the subject: there is nothing to say about the subject.
        raise
    except MemoryError as error:
        short = out_of_memory(error)
        _leave_failure(folder, run, short)
        raise short from error
    except Exception as error:
        # A label without data is a typing mistake, not a person who could not be measured.
        if (data / subject).is_dir():
            _leave_failure(folder, run, error)
        raise


def _process(run: _Run, data: Path, *, labels: Path | None, config: Config) -> ProcessedSubject:
    folder = run.folder
    run.begin("load")
    begun_with = input_state(
        subject_folder(data, folder.subject, folder.session), folder.manual_labels
    )
    manual = folder.manual_labels if folder.manual_labels.is_file() else None
    if manual is not None:
        config = with_given_labels(config, OWN_SCHEME.name)
    elif labels is not None:
        config = with_given_labels(config, config.segment.label_scheme)
    found = load_subject(
        data,
        folder.subject,
        session=folder.session,
        labels=manual if manual is not None else labels,
        label_scheme=config.segment.label_scheme,
        use_labels=config.segment.engine == GIVEN,
        config=config.load,
    )
    with exclusive(folder), _logged_to(folder.run_log):
        loaded = run.note(found)
        folder.failure_record.unlink(missing_ok=True)
        write_json(folder.input_record, begun_with)
        finished = None if run.force else _finished(folder, config, loaded)
        if finished is not None:
            logger.info("%s: nothing has changed, results are kept", folder.stem)
            return ProcessedSubject(finished, folder.report, reused=True)

        # What was published before no longer describes what is asked for now.
        for published in folder.results:
            published.unlink(missing_ok=True)
        run.begin("canonicalise")
        scan = run.note(canonicalise(loaded, config=config.canonicalise))
        run.begin("separate")
        legs = run.note(separate_legs(scan, config=config.separate))
        run.begin("segment")
        segmented = run.segment(loaded, scan, legs, config)
        run.begin("register")
        match = run.register(scan, legs, segmented, config)
        segmented = run.reconcile(scan, segmented, match, config)
        run.begin("measure")
        limb = run.note(
            measure(segmented, match, participant=loaded.participant, config=config.measure)
        )
        results = measures_document(
            loaded,
            scan,
            limb,
            engine=engine_used(segmented.engine, manual=manual is not None),
            match=match,
            findings=run.findings,
            config=config,
        )
        run.begin("report")
        save_images(folder, scan, None if scan.dixon is None else fat_fraction(scan.dixon))
        report.write_report(results, report.load_evidence(folder), folder, config=config.report)
        write_dataset_description(folder.root, results.provenance.software_version)
        write_json(folder.run_record, results.provenance.model_dump(mode="json"))
        write_text(folder.measures, results.model_dump_json(indent=1) + "\n")
    return ProcessedSubject(results, folder.report, reused=False)


def rebuild_report(
    out: Path,
    subject: str,
    *,
    session: str | None = None,
    config: Config | None = None,
    surfaces: bool = False,
) -> Path:
    """Build the report again from the published results and the saved derivatives.

    Args:
        out: folder with results.
        subject, session: labels, with or without their prefix; None: the only session, if any.
        config: what is shown; None: the default.
        surfaces: also write the page with both legs to turn.

    Raises:
        UsageError: there are no valid results to build it from.
    """
    config = config if config is not None else default_config()
    folder = SubjectFolder(out, *subject_and_session(out, subject, session))
    results = finished_measures(folder)
    with exclusive(folder):
        evidence = report.load_evidence(folder)
        report.write_report(results, evidence, folder, config=config.report, surfaces=surfaces)
    return folder.report


def inspect_subject(
    data: Path, subject: str, *, session: str | None = None, config: Config | None = None
) -> dict[str, Any]:
    """What would be used of a subject and by what rule, and what is left out and why, as JSON-like
    values. They hold names of files, which results do not."""
    config = config if config is not None else default_config()
    result = load_subject(
        data,
        subject,
        session=session,
        label_scheme=config.segment.label_scheme,
        use_labels=config.segment.engine == GIVEN,
        config=config.load,
    )
    loaded = result.value
    stations = loaded.stations or (loaded.images,)
    images = {
        str(q) if len(stations) == 1 else f"{q} (station {number})": source.grid.describe()
        for number, station in enumerate(stations, start=1)
        for q, source in station.items()
    }
    if loaded.labels is not None:
        images["labels"] = loaded.labels.grid.describe()
    return {
        "subject": loaded.subject,
        "session": loaded.session,
        "images": images,
        "inputs": dict(loaded.inputs),
        "files": dict(loaded.files),
        "reasons": dict(loaded.reasons),
        "left_out": [f.message for f in result.findings if f.code in _NOT_USED],
        "files_left_out": dict(loaded.unused),
        "findings": [f.message for f in result.findings if f.code not in _NOT_USED],
    }


class _Run:
    """One run: collects findings, tells the progress, reuses saved stages."""

    def __init__(self, folder: SubjectFolder, *, force: bool, progress: Progress | None) -> None:
        self.findings: list[Finding] = []
        self.folder = folder
        self.force = force
        self._progress = progress
        self._segment_key = ""
        self.stage = STAGES[0]

    def begin(self, stage: str) -> None:
        """Say that a stage begins."""
        self.stage = stage
        number = STAGES.index(stage) + 1
        logger.info("%s: %s (%d of %d)", self.folder.stem, stage, number, len(STAGES))
        if self._progress is not None:
            self._progress(stage, number, len(STAGES))

    def note(self, result: StageResult[T]) -> T:
        """Keep the findings of a stage and hand on its value."""
        for finding in result.findings:
            level = logging.INFO if finding.severity is Severity.INFO else logging.WARNING
            logger.log(level, "%s: %s", self.folder.stem, finding.message)
        self.findings += result.findings
        return result.value

    def segment(
        self, loaded: LoadedSubject, scan: CanonicalScan, legs: LegPair, config: Config
    ) -> SegmentedLegs:
        """Labels saved earlier where they are still current, else new ones."""
        engine = get_engine(config.segment).describe(legs)
        sections = [config.canonicalise, config.separate, config.segment]
        self._segment_key = stage_key(
            "segment",
            section=[section.model_dump(mode="json") for section in sections],
            upstream={
                **loaded.inputs,
                "engine": f"{engine.name} {engine.version} {engine.digest}",
            },
        )
        found = None if self.force else load_segmentation(self.folder, self._segment_key)
        if found is not None:
            logger.info("%s: labels saved earlier are reused", self.folder.stem)
            saved, engine_info, sides, findings = found
            legs_again = _saved_segmentation(scan, legs, saved, engine_info, sides)
            return self.note(StageResult(legs_again, tuple(findings)))
        result = segment(legs, config=config.segment)
        segmented = self.note(result)
        save_segmentation(
            self.folder, _as_stored(segmented, scan), segmented, result.findings, self._segment_key
        )
        return segmented

    def register(
        self, scan: CanonicalScan, legs: LegPair, segmented: SegmentedLegs, config: Config
    ) -> LegMatch:
        """The match saved earlier where it is still current, else a new one."""
        key = stage_key(
            "register",
            section=config.register_.model_dump(mode="json"),
            upstream={"segment": self._segment_key},
        )
        found = None if self.force else load_match(self.folder, key)
        if found is not None:
            logger.info("%s: registration saved earlier is reused", self.folder.stem)
            saved, findings = found
            return self.note(StageResult(saved, tuple(findings)))
        result = register(segmented, config=config.register_)
        match = self.note(result)
        change = None
        if match.succeeded:
            change = log_jacobian(
                segmented.right, match.right_to_left, spacing_mm=config.register_.flow_node_mm
            )
        save_match(self.folder, scan.grid, legs, match, change, result.findings, key)
        return match

    def reconcile(
        self, scan: CanonicalScan, segmented: SegmentedLegs, match: LegMatch, config: Config
    ) -> SegmentedLegs:
        """The labels to be measured: each leg's own, or the consensus that was asked for."""
        agreed = self.note(reconcile(segmented, match, config=config.reconcile))
        if agreed is not segmented:
            write_label_map(self.folder.consensus_labels, _as_stored(agreed, scan))
        return agreed


def _as_stored(segmented: SegmentedLegs, scan: CanonicalScan) -> LabelMap:
    """Labels of both legs on the grid of the input."""
    labels = restore(join_labels(segmented, scan.grid), scan.storage)
    return LabelMap(labels, scan.storage.input_grid, OWN_SCHEME)


def _leave_failure(folder: SubjectFolder, run: _Run, error: Exception) -> None:
    """The page that says why there are no results; results of an earlier run keep theirs."""
    failure = report.Failure(folder.subject, folder.session, run.stage, STAGES, error, run.findings)
    # A folder that cannot be written or is in use must not hide what went wrong first.
    with suppress(OSError, UsageError, MemoryError), exclusive(folder):
        write_json(folder.failure_record, report.failure_values(failure))
        if not folder.measures.exists():
            write_text(folder.report, report.render_failure(failure))


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Keep the log lines of a run beside its results."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("pipeline")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


def _saved_segmentation(
    scan: CanonicalScan,
    legs: LegPair,
    labels: LabelMap,
    engine: EngineInfo,
    sides: Mapping[str, Any],
) -> SegmentedLegs:
    canonical = to_canonical(labels.data, scan.storage, scan.grid.shape)
    segmented = {
        side: with_labels(
            legs[side],
            split_labels(canonical, legs[side]),
            confidence=confidences(sides[side]["confidence"]),
            labelled=flags_of_levels(sides[side]["labelled_levels"], legs[side].grid.shape[2]),
        )
        for side in Side
    }
    return SegmentedLegs(
        segmented[Side.RIGHT], segmented[Side.LEFT], engine, legs.doubt, legs.caveats
    )


def _finished(folder: SubjectFolder, config: Config, loaded: LoadedSubject) -> Measures | None:
    """Published results that this very run would give again, or None."""
    results = read_measures(folder.measures)
    if results is None or not folder.report.is_file():
        return None
    return results if results.provenance == provenance(config, loaded.inputs) else None
