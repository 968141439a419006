"""The command line: arguments in, exit code out. Nothing is computed here."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import InputError, ResultsError, SubjectUnusableError, UsageError
from pipeline.runner import Task, guarded, run_tasks, workers_for

if TYPE_CHECKING:
    from pipeline.batch.status import JobState

_EPILOG = """other commands, recognised by the first word:
  myosymmetry status DATA OUT [--table FILE]      how far each subject is: complete, failed and
                                                  why, missing, stale
  myosymmetry norms DATA OUT [--table FILE]       limits and expected volumes from a healthy cohort
  myosymmetry plan DATA OUT [--table FILE]        the jobs of a batch as a table (docs/batch.md)
  myosymmetry report OUT --participant-label 01   build the report again from saved results
  myosymmetry validate OUT                        check results: schema, digests, files, numbers
  myosymmetry compare OUT/sub-01/ses-1 OUT/sub-01/ses-2 ...
                                                  what changed since the first scan
  myosymmetry dicom OUT --participant-label 01 --source SLICES --to FOLDER
                                                  results as DICOM SEG, SR and PDF
  myosymmetry inspect DATA --participant-label 01 show which files would be used, and why
  myosymmetry schema [measures|change]            print the JSON schema of a published document

exit codes: 0 done, 2 usage or configuration, 3 input, 4 subject unusable, 5 results do not hold,
6 not enough memory, 70 a bug
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "report": _report,
        "validate": _validate,
        "compare": _compare,
        "dicom": _dicom,
        "inspect": _inspect,
        "schema": _schema,
        "status": _status,
        "norms": _norms,
        "plan": _plan,
    }
    command = commands.get(arguments[0]) if arguments else None
    work = partial(command, arguments[1:]) if command else partial(_participant, arguments)
    if command is None and arguments and not Path(arguments[0]).exists():
        near = difflib.get_close_matches(arguments[0], commands, n=1, cutoff=0.75)
        if near:
            work = partial(_misspelt, arguments[0], near[0])
    try:
        return guarded(work)
    except KeyboardInterrupt:
        sys.stderr.write("myosymmetry: stopped; run the same command again to go on\n")
        return 130


def _misspelt(word: str, command: str) -> int:
    raise UsageError(
        "This is neither a command nor a folder",
        expected="a folder with data, or a command such as " + command,
        found=word,
        action=f"write myosymmetry {command}, if that is what was meant; --help lists all",
    )


def _parser(prog: str, description: str, **keywords: Any) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
        **keywords,
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="subjects, with or without sub- (default: all found)",
    )
    parser.add_argument(
        "--session-label", nargs="+", metavar="LABEL", help="sessions, with or without ses-"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", help="segmentation engine (segment.engine)")
    parser.add_argument(
        "--label-scheme", help="what the values of given labels mean (segment.label_scheme)"
    )


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Configuration values that have options of their own."""
    named = {"engine": options.engine, "label_scheme": options.label_scheme}
    given = {key: value for key, value in named.items() if value}
    return {"segment": given} if given else {}


def _participant_parser() -> argparse.ArgumentParser:
    parser = _parser(
        "myosymmetry",
        "Per-muscle left/right lean-volume asymmetry from lower-limb MRI.",
        epilog=_EPILOG,
    )
    parser.add_argument("data", type=Path, help="folder with one sub-... folder per subject")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument(
        "level",
        choices=["participant", "group"],
        help="participant: measure; group: put the results together in OUT/group",
    )
    _add_labels(parser)
    parser.add_argument("--config", type=Path, help="YAML file with the values to change")
    _add_engine(parser)
    parser.add_argument(
        "--labels",
        type=Path,
        help="label map made elsewhere, in place of an engine (one subject only)",
    )
    parser.add_argument("--force", action="store_true", help="reuse nothing saved earlier")
    parser.add_argument(
        "--report-only", action="store_true", help="build only the report, from saved results"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    parser.add_argument("--nprocs", type=int, default=1, help="subjects at a time (default 1)")
    parser.add_argument("--mem", help="memory for the whole run, e.g. 8G; limits --nprocs")
    return parser


def _participant(arguments: Sequence[str]) -> int:
    options = _participant_parser().parse_args(arguments)
    if options.level == "group":
        return _group(options)
    overrides = _overrides(options)
    # A report is built from results alone: the scans may be elsewhere or gone.
    pairs = _subjects(options, options.out if options.report_only else options.data)
    if options.labels is not None and len(pairs) != 1:
        raise UsageError(
            "--labels names one label map, for one subject and session",
            expected="one subject and session",
            found=f"{len(pairs)} subjects or sessions",
            action="add --participant-label (and --session-label)",
        )
    tasks = [
        Task(
            data=options.data,
            out=options.out,
            subject=subject,
            session=session,
            config=options.config,
            overrides=overrides,
            labels=options.labels,
            force=options.force,
            report_only=options.report_only,
            verbose=options.verbose,
            progress=len(pairs) == 1 and sys.stderr.isatty(),
        )
        for subject, session in pairs
    ]
    return max(run_tasks(tasks, workers_for(options.nprocs, options.mem, len(tasks))))


def _subjects(options: argparse.Namespace, folder: Path) -> list[tuple[str, str | None]]:
    """Subject and session of every job below a folder, in a stable order."""
    from pipeline.io.discover import list_subjects, with_sessions

    subjects = options.participant_label or list_subjects(folder)
    if options.session_label:
        return [(subject, session) for subject in subjects for session in options.session_label]
    return with_sessions(folder, subjects)


def _report(arguments: Sequence[str]) -> int:
    parser = _parser("myosymmetry report", "Build reports again from saved results.")
    parser.add_argument("out", type=Path, help="folder with results")
    _add_labels(parser)
    parser.add_argument("--config", type=Path, help="YAML file with the values to change")
    parser.add_argument(
        "--with-3d", action="store_true", help="also the page with both legs to turn and click"
    )
    options = parser.parse_args(arguments)
    from pipeline.config import load_config
    from pipeline.flow import rebuild_report

    config = load_config(options.config)

    def rebuild(subject: str, session: str | None) -> int:
        path = rebuild_report(
            options.out, subject, session=session, config=config, surfaces=options.with_3d
        )
        sys.stdout.write(f"{path}\n")
        return 0

    # A subject without results does not keep the others from their reports.
    pairs = _subjects(options, options.out)
    return max(guarded(partial(rebuild, *pair), pair[0]) for pair in pairs)


def _validate(arguments: Sequence[str]) -> int:
    parser = _parser("myosymmetry validate", "Check every result in a folder.")
    parser.add_argument("out", type=Path, help="folder with results")
    options = parser.parse_args(arguments)
    from pipeline.report.check import check_results

    checked = check_results(options.out)
    for problem in checked.problems:
        sys.stderr.write(f"{problem}\n")
    counts = [f"{checked.results} results", f"{len(checked.problems)} problems"]
    if checked.comparisons:
        counts.insert(1, f"{checked.comparisons} follow-ups")
    sys.stdout.write(", ".join(counts) + "\n")
    return ResultsError.exit_code if checked.problems else 0


def _compare(arguments: Sequence[str]) -> int:
    parser = _parser("myosymmetry compare", "What changed between scans of one person.")
    parser.add_argument(
        "results", type=Path, nargs="+", help="folders of processed sessions, first scan first"
    )
    parser.add_argument("--out", type=Path, help="folder for the comparison (default: theirs)")
    parser.add_argument("--config", type=Path, help="YAML file with the values to change")
    options = parser.parse_args(arguments)
    from pipeline.config import load_config
    from pipeline.followup import compare_results

    config = load_config(options.config)
    changes, page = compare_results(options.results, out=options.out, config=config)
    for finding in changes.findings:
        sys.stderr.write(f"{finding.severity}: {finding.message}\n")
    sys.stdout.write(f"{page}\n")
    return 0


def _dicom(arguments: Sequence[str]) -> int:
    parser = _parser(
        "myosymmetry dicom",
        "Results as DICOM objects of the study they were made from: a segmentation, a structured\n"
        "report and the PDF. They hold what identifies the patient, as the slices do.",
    )
    parser.add_argument("out", type=Path, help="folder with results")
    parser.add_argument("--participant-label", required=True, metavar="LABEL", help="the subject")
    parser.add_argument("--session-label", metavar="LABEL", help="the session, if any")
    parser.add_argument("--source", type=Path, required=True, help="folder of the DICOM slices")
    parser.add_argument("--to", type=Path, required=True, help="folder for the DICOM objects")
    parser.add_argument("--config", type=Path, help="YAML file with the values to change")
    options = parser.parse_args(arguments)
    from pipeline.config import load_config
    from pipeline.io.derivatives import SubjectFolder, finished_measures
    from pipeline.io.dicom_out import export_dicom
    from pipeline.io.discover import subject_labels

    load = load_config(options.config).load
    labels = subject_labels(options.participant_label, options.session_label)
    folder = SubjectFolder(options.out, *labels)
    for path in export_dicom(
        folder,
        finished_measures(folder),
        options.source,
        options.to,
        rules=load.contrast_rules,
        largest_image_million_voxels=load.largest_image_million_voxels,
    ):
        sys.stdout.write(f"{path}\n")
    return 0


def _inspect(arguments: Sequence[str]) -> int:
    parser = _parser(
        "myosymmetry inspect", "Show what would be used of subjects and why, and what is left out."
    )
    parser.add_argument("data", type=Path, help="folder with one sub-... folder per subject")
    _add_labels(parser)
    parser.add_argument("--config", type=Path, help="YAML file with the values to change")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    from pipeline.config import load_config
    from pipeline.flow import inspect_subject
    from pipeline.io.discover import subject_labels

    config = load_config(options.config)
    found: list[dict[str, Any]] = []
    worst = 0
    for pair in _subjects(options, options.data):
        subject, session = subject_labels(*pair)
        try:
            found.append(inspect_subject(options.data, subject, session=session, config=config))
        except (InputError, SubjectUnusableError) as error:
            which = f" Which: {error.private}." if error.private else ""
            found.append({"subject": subject, "session": session, "error": f"{error}{which}"})
            worst = max(worst, error.exit_code)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return worst
    for one in found:
        sys.stdout.write(f"{one['subject']} {one['session'] or ''}\n")
        if "error" in one:
            sys.stdout.write(f"  unusable       {one['error']}\n")
            continue
        for name, grid in one["images"].items():
            sys.stdout.write(f"  {name:<14} {grid}\n")
        for name in one["inputs"]:
            reason, file = one["reasons"].get(name), one["files"].get(name)
            said = f"{name}{f' ({reason})' if reason else ''}{f': {file}' if file else ''}"
            sys.stdout.write(f"  used           {said}\n")
        for message in one["left_out"]:
            sys.stdout.write(f"  left out       {message}\n")
        for file, reason in one["files_left_out"].items():
            sys.stdout.write(f"  left out       {file}: {reason}\n")
        for message in one["findings"]:
            sys.stdout.write(f"  note           {message}\n")
    return worst


def _group(options: argparse.Namespace) -> int:
    from pipeline.batch.group import group_results
    from pipeline.config import load_config
    from pipeline.io.discover import subject_labels

    refused = {
        "--session-label": options.session_label,
        "--labels": options.labels,
        "--report-only": options.report_only,
    }
    given = [name for name, value in refused.items() if value]
    if given:
        raise UsageError(
            f"The level group knows no {' and no '.join(given)}",
            expected="--participant-label, --config, --nprocs and --mem",
            found=", ".join(given),
            action="leave it out: every session of the subjects named is put together",
        )
    labels = options.participant_label
    group = group_results(
        options.data,
        options.out,
        subjects=None if labels is None else [subject_labels(s, None)[0] for s in labels],
        # A batch hands every call the same configuration, engine included; all is made anew.
        config=load_config(options.config, overrides=_overrides(options)).group,
        workers=workers_for(options.nprocs, options.mem, options.nprocs),
    )
    for note in group.notes:
        sys.stderr.write(f"myosymmetry: {note}\n")
    sys.stderr.write(f"{group.results} results, {group.failed} failed\n")
    sys.stdout.write(f"{group.folder}\n")
    return 0


def _batch_parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = _parser(f"myosymmetry {command}", description)
    parser.add_argument("data", type=Path, help="folder with one sub-... folder per subject")
    parser.add_argument("out", type=Path, help="folder with results")
    parser.add_argument(
        "--table",
        type=Path,
        help="table of subjects: participant_id, and as wanted session_id and memory_mb\n"
        "(default: every subject of the data folder)",
    )
    parser.add_argument("--config", type=Path, help="YAML file with the values to change")
    return parser


def _states(options: argparse.Namespace) -> list[JobState]:
    from pipeline.batch.jobs import list_jobs
    from pipeline.batch.status import job_states
    from pipeline.config import load_config

    config = load_config(options.config, overrides=_overrides(options))
    jobs = list_jobs(options.data, options.table)
    return job_states(options.data, options.out, jobs, config)


def _status(arguments: Sequence[str]) -> int:
    parser = _batch_parser("status", "How far each subject is, and why it is not complete.")
    _add_engine(parser)
    options = parser.parse_args(arguments)
    states = _states(options)
    for found in states:
        if found.reason is not None:
            sys.stdout.write(f"{found.job.name}\t{found.state}\t{found.reason}\n")
    counts = Counter(found.state.value for found in states)
    sys.stdout.write(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    sys.stdout.write("\n")
    return 0


def _plan(arguments: Sequence[str]) -> int:
    parser = _batch_parser("plan", "The jobs of a batch as a tab-separated table.")
    _add_engine(parser)
    options = parser.parse_args(arguments)
    sys.stdout.write("participant_id\tsession_id\tmemory_mb\tstate\tmeasures\n")
    for found in _states(options):
        job = found.job
        cells = (job.subject, job.session or "n/a", job.memory_mb or "n/a", found.state)
        measures = found.measures.relative_to(options.out)
        sys.stdout.write("\t".join(map(str, (*cells, measures))) + "\n")
    return 0


def _norms(arguments: Sequence[str]) -> int:
    parser = _batch_parser("norms", "Limits and expected volumes from a healthy cohort.")
    options = parser.parse_args(arguments)
    from pipeline.batch.jobs import list_jobs
    from pipeline.batch.norms import write_norms
    from pipeline.config import load_config

    jobs = list_jobs(options.data, options.table)
    path = write_norms(options.data, options.out, jobs, config=load_config(options.config).group)
    sys.stdout.write(f"{path}\n")
    return 0


def _schema(arguments: Sequence[str]) -> int:
    parser = _parser("myosymmetry schema", "Print the JSON schema of a published document.")
    parser.add_argument(
        "document", nargs="?", choices=["measures", "change"], default="measures",
        help="measures: of one scan (default); change: of a comparison",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    from pipeline.core.change import Changes
    from pipeline.core.results import Measures

    model = Changes if options.document == "change" else Measures
    sys.stdout.write(json.dumps(model.model_json_schema(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
