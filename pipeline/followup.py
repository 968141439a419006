"""The follow-up of one person: results of earlier runs in, their comparison as files out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config, default_config
from pipeline.core.change import Changes
from pipeline.core.errors import UsageError
from pipeline.core.results import Measures
from pipeline.io.derivatives import read_measures, write_text
from pipeline.io.discover import subject_labels
from pipeline.report.change import change_table, render_change
from pipeline.stages.compare import compare


def compare_results(
    results: Sequence[Path], *, out: Path | None = None, config: Config | None = None
) -> tuple[Changes, Path]:
    """Compare the published results of several scans of one subject and write what changed.

    Args:
        results: folders of processed sessions (or their measures files), in the order of time.
        out: folder for the comparison; None: the folder that holds all of the session folders.
        config: configuration; None: the default.

    Returns:
        the changes, and the path of their page. The JSON appears last.

    Raises:
        UsageError: no valid results in a folder, or results that cannot be compared.
    """
    config = config if config is not None else default_config()
    changes = compare([_read(path) for path in results], config=config.compare)
    folder = out if out is not None else _common_folder(results)
    stem = "_".join(
        [changes.subject, *(scan.label.replace(" ", "-") for scan in changes.scans), "change"]
    )
    page = folder / f"{stem}.html"
    write_text(page, render_change(changes, largest=config.report.largest_differences))
    write_text(folder / f"{stem}.tsv", change_table(changes))
    write_text(folder / f"{stem}.json", changes.model_dump_json(indent=1) + "\n")
    return changes, page


def _read(path: Path) -> Measures:
    found = [path] if path.is_file() else sorted(path.glob("*_measures.json"))
    results = read_measures(found[0]) if len(found) == 1 else None
    if results is None:
        raise UsageError(
            f"There are no results to compare in {path}",
            expected="the folder of one processed subject and session, e.g. OUT/sub-01/ses-1",
            found=f"{len(found)} measures files" if len(found) != 1 else "one that is not valid",
            action="process the scan first, or name the session's folder",
        )
    # The labels become file names.
    subject_labels(results.subject, results.session)
    return results


def _common_folder(results: Sequence[Path]) -> Path:
    parents = {path.resolve().parent for path in results}
    if len(parents) > 1 or any(path.is_file() for path in results):
        raise UsageError(
            "The results lie in different places",
            expected="sessions of one subject in one folder, or --out",
            found=", ".join(sorted(str(path) for path in results)),
            action="say with --out where the comparison is to be written",
        )
    return parents.pop()
