"""Limits and expected volumes of a healthy cohort, as a configuration for later runs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline import report
from pipeline.batch.cohort import SizeLine, Spread, percentiles, size_line, spread
from pipeline.batch.group import FOLDER, STRUCTURES, first_of_each, mixed
from pipeline.batch.jobs import Job
from pipeline.batch.results import Outcome, read_outcomes
from pipeline.config import GroupConfig
from pipeline.core.anatomy import GROUPS, MUSCLES, Side
from pipeline.core.errors import UsageError
from pipeline.core.scan import Participant
from pipeline.io.derivatives import SubjectFolder, write_text
from pipeline.io.discover import participant_in, participant_rows
from pipeline.report.format import MISSING, tsv

logger = logging.getLogger(__name__)

#: Published limits are of total volume, and so are those of a cohort.
_MEASURE = "asymmetry_total_volume_percent"
_HEADER = """\
# Limits and expected volumes of a cohort of {people} people, made by `myosymmetry norms`.
# Use it with --config, alone or with other values added. Limits: the farther end of mean +- 1.96 SD
# of total-volume asymmetry; volumes: the line over height x mass. Details: {table}.
"""


@dataclass(frozen=True)
class Norm:
    """What a cohort says of one muscle or group.

    Attributes:
        name: of the muscle or group.
        asymmetry: spread of total-volume asymmetry, percent; None for too few people.
        percentiles: of the same, in the order of the configuration.
        volume: mean volume of both sides by body size; None for too few people with height and
            mass.
    """

    name: str
    asymmetry: Spread | None
    percentiles: tuple[float, ...]
    volume: SizeLine | None


def cohort_norms(
    outcomes: Sequence[Outcome], people: Mapping[str, Participant], *, config: GroupConfig
) -> list[Norm]:
    """What a cohort says, by muscle and group in the order of the vocabulary.

    Args:
        outcomes: results of the cohort; of each person the first counts.
        people: height and mass by subject.
        config: fewest people, percentiles.
    """
    asymmetries: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[float]] = defaultdict(list)
    volumes: dict[str, list[float]] = defaultdict(list)
    for outcome in first_of_each(outcomes):
        person = people.get(outcome.folder.subject, Participant())
        for name in STRUCTURES:
            if (name, _MEASURE) in outcome.values:
                asymmetries[name].append(outcome.values[name, _MEASURE])
            sides = [outcome.values.get((name, f"volume_{side}_ml")) for side in Side]
            known = [side for side in sides if side is not None]
            if len(known) == 2 and person.height_m is not None and person.mass_kg is not None:
                sizes[name].append(person.height_m * person.mass_kg)
                volumes[name].append(sum(known) / 2.0)
    norms = []
    for name in STRUCTURES:
        values = asymmetries[name]
        enough = len(values) >= config.fewest_cohort_people
        sized = len(sizes[name]) >= config.fewest_cohort_people
        norms.append(
            Norm(
                name,
                spread(values) if enough else None,
                tuple(percentiles(values, config.percentiles)) if enough else (),
                size_line(sizes[name], volumes[name]) if sized else None,
            )
        )
    return norms


def write_norms(data: Path, out: Path, jobs: Sequence[Job], *, config: GroupConfig) -> Path:
    """Write group/norms.tsv and group/norms.yaml of a cohort; the latter is a configuration.

    Args:
        data: folder with participants.tsv (height and mass, optional).
        out: folder with the results.
        jobs: who belongs to the cohort.
        config: fewest people, percentiles.

    Returns:
        the path of norms.yaml.

    Raises:
        UsageError: too few people with results.
    """
    folders = [SubjectFolder(out, job.subject, job.session) for job in jobs]
    outcomes = [o for o in read_outcomes(folders, rows=False) if o.failure is None]
    count = len({outcome.folder.subject for outcome in outcomes})
    if count < config.fewest_cohort_people:
        raise UsageError(
            "The cohort is too small for limits",
            expected=f"results of {config.fewest_cohort_people} people or more "
            "(group.fewest_cohort_people)",
            found=f"{count}",
            action="process more of them first",
        )
    rows = participant_rows(data)
    people = {o.folder.subject: participant_in(rows, o.folder.subject) for o in outcomes}
    norms = cohort_norms(outcomes, people, config=config)
    table, target = (out / FOLDER / f"norms.{ending}" for ending in ("tsv", "yaml"))
    write_text(table, _table(norms, config))
    header = _HEADER.format(people=count, table=table.name)
    for note in mixed(outcomes):
        logger.warning(note)
        header += f"# {note}\n"
    write_text(target, header + yaml.safe_dump(_configuration(norms), sort_keys=False))
    return target


def _configuration(norms: Sequence[Norm]) -> dict[str, Any]:
    muscles = {muscle.name for muscle in MUSCLES}
    known = muscles | {group.name for group in GROUPS}
    spreads = {
        norm.name: norm.asymmetry
        for norm in norms
        if norm.name in known and norm.asymmetry is not None and norm.asymmetry.limit > 0
    }
    lines = {
        norm.name: {
            "slope_ml_per_m_kg": round(norm.volume.slope_ml_per_m_kg, 6),
            "intercept_ml": round(norm.volume.intercept_ml, 4),
        }
        for norm in norms
        if norm.name in muscles and norm.volume is not None
    }
    return {
        "measure": {
            "own_limits_percent": {name: round(s.limit, 3) for name, s in spreads.items()},
            "own_limits_people": {name: s.people for name, s in spreads.items()},
            "own_limits_se_percent": {
                name: se for name, s in spreads.items() if (se := round(s.se_limit, 4)) > 0
            },
            "own_expected_volumes_ml": lines,
        }
    }


def _table(norms: Sequence[Norm], config: GroupConfig) -> str:
    wanted = [f"asymmetry_percentile_{p:g}_percent" for p in config.percentiles]
    header = (
        *("name", "people", "asymmetry_mean_percent", "asymmetry_sd_percent"),
        *("asymmetry_se_of_sd_percent", "limit_percent", "se_of_limit_percent", *wanted),
        *("people_with_size", "slope_ml_per_m_kg", "intercept_ml", "residual_sd_ml"),
    )
    rows = []
    for norm in norms:
        found, line = norm.asymmetry, norm.volume
        cells = [norm.name]
        if found is None:
            cells += [MISSING] * (6 + len(wanted))
        else:
            figures = (found.mean, found.sd, found.se_sd, found.limit, found.se_limit)
            cells += [str(found.people), *(tsv(v, places=3) for v in figures)]
            cells += [tsv(v, places=3) for v in norm.percentiles]
        if line is None:
            cells += [MISSING] * 4
        else:
            lined = (line.slope_ml_per_m_kg, line.intercept_ml, line.residual_sd_ml)
            cells += [str(line.people), *(tsv(v, places=4) for v in lined)]
        rows.append(cells)
    return report.table_text(header, rows)
