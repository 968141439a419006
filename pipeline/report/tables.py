"""Tables for programs: the measures and the look-up table of the label map, as TSV text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.core.anatomy import LEFT_OFFSET, STRUCTURES, Side
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Asymmetry,
    Compared,
    Measurement,
    Measures,
    MuscleResult,
)
from pipeline.report.format import MISSING, tsv

#: Column stem -> field of Measurement, decimals. Sides are put between stem and unit.
_PER_SIDE: tuple[tuple[str, str, str, int], ...] = (
    ("volume_whole", "ml", "volume_whole_ml", 2),
    ("volume_in_view", "ml", "volume_in_view_ml", 2),
    ("volume_matched", "ml", "volume_matched_ml", 2),
    ("lean_volume_whole", "ml", "lean_volume_whole_ml", 2),
    ("lean_volume_in_view", "ml", "lean_volume_in_view_ml", 2),
    ("lean_volume_matched", "ml", "lean_volume_matched_ml", 2),
    ("lean_volume_core", "ml", "lean_volume_core_ml", 2),
    ("fat_free_volume_in_view", "ml", "fat_free_volume_in_view_ml", 2),
    ("fat_volume_in_view", "ml", "fat_volume_in_view_ml", 2),
    ("fat_fraction", "percent", "fat_fraction_percent", 2),
    ("fat_fraction_core", "percent", "fat_fraction_core_percent", 2),
    ("length", "mm", "length_mm", 1),
    ("area_max", "mm2", "area_max_mm2", 1),
)

#: Columns that a row of one muscle needs and a row of one subject does not.
_LONG_ONLY = frozenset({"name", "kind", "reason"})

#: Customary abbreviations where the rule of _abbreviation would give one twice.
_ABBREVIATIONS: Mapping[str, str] = FrozenDict(
    {
        "gluteus_maximus": "GMAX",
        "gluteus_medius": "GMED",
        "gluteus_minimus": "GMIN",
        "semitendinosus": "ST",
        "semimembranosus": "SM",
        "fibulares": "FIB",
        "gastrocnemius_medialis": "MG",
        "gastrocnemius_lateralis": "LG",
    }
)


def measures_table(measures: Measures) -> str:
    """One row per muscle, then per group; units in the column names, "n/a" where missing.

    The unqualified asymmetry, its interval, extent, share and verdict are of lean volume, those
    with total_volume in the name of total volume. Percentages of asymmetry are
    100 (R - L) / ((R + L) / 2), + = right larger. lean_estimate says whether a side's lean volumes
    and fat fractions are an estimate ("yes") or were measured of water and fat ("no").
    """
    rows = measures_rows(measures)
    if not rows:
        return ""
    return table_text(rows[0].keys(), (row.values() for row in rows))


def measures_rows(measures: Measures) -> list[dict[str, str]]:
    """The rows of measures_table, by column name."""
    return [row for _, row in _rows(measures)]


def wide_table(measures: Measures) -> str:
    """One row for the whole subject and session: every column of measures_table for every muscle
    and group, "<muscle>_<column>", so that tables of many subjects can be laid below each other.

    Reasons, which are text for people, stay in the long table.
    """
    row = {
        "subject": measures.subject,
        "session": measures.session or MISSING,
        "schema_version": measures.schema_version,
    }
    for name, columns in _rows(measures):
        row |= {f"{name}_{c}": cell for c, cell in columns.items() if c not in _LONG_ONLY}
    return table_text(row.keys(), [row.values()])


def label_table() -> str:
    """BIDS look-up table of the label map: index, name, abbreviation, color."""
    rows = [
        (
            str(s.id + offset),
            f"{s.name}_{side}",
            f"{_abbreviation(s.name)}_{side[0].upper()}",
            s.colour,
        )
        for side, offset in ((Side.RIGHT.value, 0), (Side.LEFT.value, LEFT_OFFSET))
        for s in STRUCTURES
    ]
    return table_text(("index", "name", "abbreviation", "color"), rows)


def _rows(measures: Measures) -> list[tuple[str, dict[str, str]]]:
    """Name and cells by column of every muscle, then of every group."""
    limb = measures.measures
    return [(m.name, _row(m, kind="muscle")) for m in limb.muscles] + [
        (g.name, _row(g, kind=g.kind)) for g in limb.groups
    ]


def _row(result: Compared, *, kind: str) -> dict[str, str]:
    row = {"name": result.name, "kind": kind}
    sides = ((Side.RIGHT, result.right), (Side.LEFT, result.left))
    for stem, unit, attribute, places in _PER_SIDE:
        for side, measurement in sides:
            row[f"{stem}_{side}_{unit}"] = tsv(getattr(measurement, attribute), places=places)
    row |= _asymmetry(result.asymmetry, infix="")
    row |= _asymmetry(result.asymmetry_total_volume, infix="total_volume_")
    row["healthy_limit_percent"] = tsv(result.healthy_limit_percent)
    people = result.healthy_limit_people
    row["healthy_limit_people"] = MISSING if people is None else str(people)
    row["healthy_limit_half_width_percent"] = tsv(result.healthy_limit_half_width_percent)
    expected = result.expected_volume_ml if isinstance(result, MuscleResult) else None
    row["expected_volume_ml"] = tsv(expected)
    for side, measurement in sides:
        row[f"status_{side}"] = measurement.status.value
    for side, measurement in sides:
        row[f"lean_estimate_{side}"] = _is_estimate(measurement)
    reasons = [
        f"{side}: {reason}"
        for side, measurement in sides
        for reason in (measurement.reason, measurement.lean_reason, measurement.lean_estimate)
        if reason is not None
    ]
    if result.asymmetry.reason is not None:
        reasons.append(result.asymmetry.reason)
    row["reason"] = "; ".join(dict.fromkeys(reasons)) or MISSING
    return row


def _is_estimate(measurement: Measurement) -> str:
    """Whether lean volumes and fat fractions are an estimate; "n/a" where there are none."""
    if measurement.lean_volume_in_view_ml is None:
        return MISSING
    return "no" if measurement.lean_estimate is None else "yes"


def _asymmetry(asymmetry: Asymmetry, *, infix: str) -> dict[str, str]:
    index = "asymmetry_total_volume_percent" if infix else "asymmetry_lean_percent"
    return {
        index: tsv(asymmetry.index_percent),
        f"{infix}extent": asymmetry.extent or MISSING,
        f"{infix}matched_share": tsv(asymmetry.matched_share, places=3),
        f"{infix}se_total_percent": tsv(asymmetry.se_total_percent),
        f"{infix}interval_low_percent": tsv(asymmetry.interval_low_percent),
        f"{infix}interval_high_percent": tsv(asymmetry.interval_high_percent),
        f"{infix}verdict": asymmetry.verdict.value if asymmetry.verdict else MISSING,
        f"{infix}caveats": ", ".join(asymmetry.caveats) or MISSING,
    }


def _abbreviation(name: str) -> str:
    """Initials of a name of several words, the first four letters of a single one."""
    if name in _ABBREVIATIONS:
        return _ABBREVIATIONS[name]
    words = name.split("_")
    return "".join(w[0] for w in words).upper() if len(words) > 1 else name[:4].upper()


def table_text(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table as tab-separated text."""
    return "".join(table_line(cells) for cells in (header, *rows))


def table_line(cells: Iterable[str]) -> str:
    """A row of a table; a cell is one line without tabs, and its text is kept."""
    return "\t".join(" ".join(cell.split()) or MISSING for cell in cells) + "\n"
