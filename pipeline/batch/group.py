"""The results of many subjects together: tables, a summary without individuals, a quality page."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline import report
from pipeline.batch.cohort import percentiles, robust_distances, spread
from pipeline.batch.results import Outcome, read_outcomes, subject_folders
from pipeline.config import GroupConfig
from pipeline.core.anatomy import GROUPS, MUSCLES, UNIONS
from pipeline.core.errors import UsageError
from pipeline.core.scan import Participant
from pipeline.io.atomic import atomic_write
from pipeline.io.derivatives import SubjectFolder, write_json, write_text
from pipeline.io.discover import participant_in, participant_rows, some
from pipeline.report.format import MISSING, tsv

#: Folder of the group's files in the output folder.
FOLDER = "group"
#: Structures in the order of the vocabulary.
STRUCTURES: tuple[str, ...] = (
    *(muscle.name for muscle in MUSCLES),
    *(group.name for group in GROUPS),
    *(union.name for union in UNIONS),
)

#: Pictures that can stand for a subject on the quality page: the first that is there.
_THUMBNAILS = ("segmentation_coronal.png", "legs_front.png", "segmentation_axial.png")
_IDS = ("participant_id", "session_id")
_FACTS = ("height_m", "mass_kg", "sex", "dominant_side", "injured_side")
#: Columns of the long table that the wide one has for every structure.
_WIDE = (
    "volume_whole_right_ml",
    "volume_whole_left_ml",
    "lean_volume_whole_right_ml",
    "lean_volume_whole_left_ml",
    "fat_fraction_core_right_percent",
    "fat_fraction_core_left_percent",
    "asymmetry_lean_percent",
    "interval_low_percent",
    "interval_high_percent",
    "verdict",
    "asymmetry_total_volume_percent",
    "status_right",
    "status_left",
    "lean_estimate_right",
    "lean_estimate_left",
)


@dataclass(frozen=True)
class Group:
    """What the group job left behind.

    Attributes:
        folder: where its files are.
        results, failed: subjects and sessions with results, and without because of a failure.
        notes: what a user of the tables has to know.
    """

    folder: Path
    results: int
    failed: int
    notes: tuple[str, ...]


def group_results(
    data: Path,
    out: Path,
    *,
    subjects: Sequence[str] | None = None,
    config: GroupConfig,
    workers: int = 1,
) -> Group:
    """Put the published results of many subjects together in out/group/.

    Writes participants_long.tsv, participants_wide.tsv, summary.tsv (holds no individual),
    quality.tsv, quality.html and group.json.

    Args:
        data: folder with participants.tsv (optional).
        out: folder with the results.
        subjects: labels with their prefix; None: all there are.
        config: cell size, percentiles, distance of outliers.
        workers: processes that read results.

    Raises:
        UsageError: there are no results, or nothing of a named subject, or the tables cannot be
            written.
    """
    folders = subject_folders(out)
    if subjects is not None:
        missing = sorted(set(subjects) - {folder.subject for folder in folders})
        if missing:
            raise UsageError(
                f"There is nothing of {some(missing)} to put together",
                expected=f"labels of subjects with a folder in {out}",
                found=f"{len(folders)} folders, none of that name",
                action="check --participant-label, or process these subjects first",
            )
        folders = [folder for folder in folders if folder.subject in subjects]
    if not any(folder.measures.is_file() for folder in folders):
        raise UsageError(
            "There are no results to put together",
            expected=f"results of subjects in {out}",
            found=f"{len(folders)} subjects' folders without results",
            action="process the subjects first; `myosymmetry status` says how far they are",
        )
    target = out / FOLDER
    people = participant_rows(data)
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        long, wide = (
            stack.enter_context(atomic_write(target / f"participants_{form}.tsv"))
            for form in ("long", "wide")
        )
        for outcome in read_outcomes(folders, rows=True, workers=workers):
            if outcome.rows:
                if long.tell() == 0:
                    long.write(_line((*_IDS, *outcome.rows[0])))
                    wide.write(_line(_wide_header()))
                ids = _ids(outcome.folder)
                long.write(b"".join(_line((*ids, *row.values())) for row in outcome.rows))
                facts = participant_in(people, outcome.folder.subject)
                wide.write(_line((*ids, *_wide_cells(outcome.rows, facts))))
            # The rows are on disk; keeping them would fill the memory.
            outcomes.append(replace(outcome, rows=()))
    done = [outcome for outcome in outcomes if outcome.failure is None]
    write_text(target / "summary.tsv", _summary(done, config))
    tiles = _tiles(outcomes, target, config)
    write_text(target / "quality.tsv", _quality(tiles))
    write_text(target / "quality.html", report.render_overview(tiles))
    group = Group(target, len(done), len(outcomes) - len(done), tuple(mixed(done)))
    write_json(
        target / "group.json",
        {
            "results": group.results,
            "participants": len({outcome.folder.subject for outcome in done}),
            "failed": group.failed,
            "smallest_cell_people": config.smallest_cell_people,
            "notes": group.notes,
        },
    )
    return group


def first_of_each(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """The first session of each person: nobody counts twice in a figure about people."""
    seen: set[str] = set()
    for outcome in outcomes:
        if outcome.folder.subject not in seen:
            seen.add(outcome.folder.subject)
            yield outcome


def _line(cells: Iterable[str]) -> bytes:
    return report.table_line(cells).encode("utf-8")


def _ids(folder: SubjectFolder) -> tuple[str, str]:
    return folder.subject, folder.session or MISSING


def _wide_header() -> tuple[str, ...]:
    return (*_IDS, *_FACTS, *(f"{name}_{column}" for name in STRUCTURES for column in _WIDE))


def _wide_cells(rows: Sequence[Mapping[str, str]], person: Participant) -> Iterator[str]:
    for name in _FACTS:
        value = getattr(person, name)
        yield tsv(value) if isinstance(value, float) else str(value or MISSING)
    by_name = {row["name"]: row for row in rows}
    for name in STRUCTURES:
        row = by_name.get(name)
        yield from (MISSING if row is None else row[column] for column in _WIDE)


def _summary(outcomes: Sequence[Outcome], config: GroupConfig) -> str:
    """Mean, spread and percentiles by structure and measure, for cells that are large enough."""
    columns: dict[tuple[str, str], array[float]] = {}
    for outcome in first_of_each(outcomes):
        for key, value in outcome.values.items():
            columns.setdefault(key, array("d")).append(value)
    places = {name: number for number, name in enumerate(STRUCTURES)}
    header = ("name", "measure", "people", "mean", "sd")
    lines = []
    for name, measure in sorted(columns, key=lambda key: (places[key[0]], key[1])):
        values = columns[name, measure]
        lines.append((name, measure, *_cell(values, config)))
    return report.table_text((*header, *(f"percentile_{p:g}" for p in config.percentiles)), lines)


def _cell(values: Sequence[float], config: GroupConfig) -> list[str]:
    """People, mean, sd and percentiles; what rests on too few people is left out."""
    fewest, count = config.smallest_cell_people, len(values)
    if count < fewest:
        return [f"<{fewest}", *[MISSING] * (2 + len(config.percentiles))]
    found = spread(values)
    cells = [str(count), tsv(found.mean), tsv(found.sd)]
    for wanted, value in zip(
        config.percentiles, percentiles(values, config.percentiles), strict=True
    ):
        beyond = count * min(wanted, 100.0 - wanted) / 100.0
        cells.append(tsv(value) if beyond >= fewest else MISSING)
    return cells


def _tiles(
    outcomes: Sequence[Outcome], target: Path, config: GroupConfig
) -> list[report.OverviewTile]:
    """One tile per subject and session: failures, then what stands furthest apart, first."""
    names = next((list(o.quality) for o in outcomes if o.quality), [])
    table = [robust_distances([o.quality.get(name) for o in outcomes]) for name in names]
    distances = np.array(table).reshape(len(names), len(outcomes))
    tiles = []
    for column, outcome in zip(distances.T, outcomes, strict=True):
        known = np.where(np.isnan(column), -1.0, column)
        worst = int(known.argmax()) if known.size else 0
        distance = float(known[worst]) if known.size and known[worst] >= 0 else None
        folder = outcome.folder
        page, picture = folder.report, _thumbnail(folder)
        tiles.append(
            report.OverviewTile(
                participant=folder.subject,
                session=folder.session,
                failure=outcome.failure,
                distance=distance,
                stands_apart_by=names[worst] if distance is not None else None,
                is_outlier=distance is not None and distance > config.outlier_distance,
                quality=dict(outcome.quality),
                findings=dict(outcome.findings),
                page=_relative(page, target) if page.is_file() else None,
                picture=_relative(picture, target) if picture is not None else None,
            )
        )
    return sorted(tiles, key=lambda t: (t.failure is None, -(t.distance or 0.0)))


def _thumbnail(folder: SubjectFolder) -> Path | None:
    return next((p for name in _THUMBNAILS if (p := folder.figure(name)).is_file()), None)


def _relative(path: Path, target: Path) -> str:
    return f"../{path.relative_to(target.parent).as_posix()}"


def _quality(tiles: Sequence[report.OverviewTile]) -> str:
    names = next((list(t.quality) for t in tiles if t.quality), [])
    header = (*_IDS, "failure", "is_outlier", "distance", "stands_apart_by", *names, "findings")
    rows = [
        (
            *(tile.participant, tile.session or MISSING, tile.failure or MISSING),
            *("yes" if tile.is_outlier else "no", tsv(tile.distance)),
            tile.stands_apart_by or MISSING,
            *(tsv(tile.quality.get(name)) for name in names),
            ", ".join(tile.findings) or MISSING,
        )
        for tile in tiles
    ]
    return report.table_text(header, rows)


def mixed(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What in the making of results differs between them."""
    for what, attribute in (
        ("versions of the program", "code_digest"),
        ("configurations", "configuration_digest"),
    ):
        count = len({getattr(outcome, attribute) for outcome in outcomes})
        if count > 1:
            yield (
                f"The results come from {count} different {what}: process the subjects again "
                "where that matters (`myosymmetry status` names them)."
            )
