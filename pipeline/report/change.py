"""The page and the table of a follow-up: changes in, HTML and TSV out."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from pipeline.core.change import (
    Changes,
    ChangeVerdict,
    MuscleChange,
    PointsChange,
    ScanChanges,
    VolumeChange,
)
from pipeline.report import change_charts, words
from pipeline.report.drawing import COLOURS, DARK_COLOURS, inline_svg
from pipeline.report.format import MISSING, tsv
from pipeline.report.html import SORTING, findings_by_severity, page_environment, script_and_digest
from pipeline.report.numbers import Numbers
from pipeline.report.tables import table_text

#: Charts are drawn for a desk and for a phone.
_WIDTHS_PX = {"wide": 980, "narrow": 350}
_PANEL_COLUMNS = {"wide": 4, "narrow": 2}

#: What a muscle did, told of its side.
_DID = {ChangeVerdict.INCREASED: "gained", ChangeVerdict.DECREASED: "lost"}


@dataclass(frozen=True)
class _Row:
    """A muscle or group of one later scan.

    Attributes:
        base: JSON pointer of the change.
        title: its name.
        change: the change itself.
    """

    base: str
    title: str
    change: MuscleChange


def render_change(changes: Changes, *, largest: int) -> str:
    """The page of a follow-up, which needs nothing else. Pure: the same bytes every time.

    Args:
        changes: the published document; every number of the page is one of its.
        largest: how many changes are told in words.
    """
    num = Numbers(changes)
    environment = page_environment()
    script, digest = script_and_digest(SORTING)
    environment.globals.update(num=num, words=words, sentence=_sentence, reasons=_reasons)
    return environment.get_template("change.html.j2").render(
        changes=changes,
        volume_name="lean volume" if changes.of == "lean_volume" else "total volume",
        last=changes.later[-1],
        changed=_largest_changes(changes, largest, num),
        unchanged_groups=_unchanged_groups(changes),
        unjudged=_unjudged(changes.later[-1]),
        later=[
            (changes.scans[one.scan], one, _rows(changes, number), _charts(changes, one, number))
            for number, one in enumerate(changes.later)
        ],
        timeline=_timeline(changes),
        findings=findings_by_severity(changes.findings),
        colours=COLOURS,
        dark_colours=DARK_COLOURS,
        script=Markup(script),
        script_digest=digest,
    )


def change_table(changes: Changes) -> str:
    """One row per later scan and muscle or group; units in the column names, "n/a" if missing.

    Volumes and asymmetries are of what the column "of" says; changes are later minus first.
    """
    rows = []
    for one in changes.later:
        for change in one.changes:
            row = {
                "scan": changes.scans[one.scan].label,
                "name": change.name,
                "kind": change.kind,
                "of": changes.of,
            }
            for side, volume in (("right", change.volume_right), ("left", change.volume_left)):
                row |= _volume_cells(f"volume_{side}", volume)
            for name, points in (
                ("fat_fraction_right", change.fat_fraction_right),
                ("fat_fraction_left", change.fat_fraction_left),
                ("asymmetry", change.asymmetry),
            ):
                row |= _points_cells(name, points)
            row["reason"] = "; ".join(_reasons(change)) or MISSING
            rows.append(row)
    return table_text(rows[0].keys(), (row.values() for row in rows))


def _volume_cells(name: str, volume: VolumeChange) -> dict[str, str]:
    return {
        f"{name}_before_ml": tsv(volume.before_ml),
        f"{name}_after_ml": tsv(volume.after_ml),
        f"{name}_change_percent": tsv(volume.change_percent),
        f"{name}_interval_low_percent": tsv(volume.interval_low_percent),
        f"{name}_interval_high_percent": tsv(volume.interval_high_percent),
        f"{name}_detectable_percent": tsv(volume.detectable_percent),
        f"{name}_verdict": volume.verdict.value if volume.verdict else MISSING,
    }


def _points_cells(name: str, points: PointsChange) -> dict[str, str]:
    return {
        f"{name}_before_percent": tsv(points.before_percent),
        f"{name}_after_percent": tsv(points.after_percent),
        f"{name}_change_points": tsv(points.change_points),
        f"{name}_detectable_points": tsv(points.detectable_points),
        f"{name}_verdict": points.verdict.value if points.verdict else MISSING,
    }


def _rows(changes: Changes, number: int) -> list[_Row]:
    return [
        _Row(
            f"/later/{number}/changes/{i}",
            words.muscle_title(c.name) if c.kind == "muscle" else words.group_title(c.name),
            c,
        )
        for i, c in enumerate(changes.later[number].changes)
    ]


def _largest_changes(changes: Changes, count: int, num: Numbers) -> list[tuple[str, Markup]]:
    """Title and words of the largest detectable volume changes of muscles in the last scan."""
    number = len(changes.later) - 1
    found = [
        (abs(volume.change_percent or 0.0), row, side)
        for row in _rows(changes, number)
        if row.change.kind == "muscle"
        for side, volume in (("right", row.change.volume_right), ("left", row.change.volume_left))
        if volume.verdict in _DID
    ]
    # The order of the vocabulary settles ties.
    found.sort(key=lambda item: -item[0])
    return [(row.title, _sentence(row, side, num)) for _, row, side in found[:count]]


def _sentence(row: _Row, side: str, num: Numbers) -> Markup:
    """What a muscle did on a side, e.g. "the right lost 6.0 % (95 % interval ...), 282 to 265"."""
    volume = getattr(row.change, f"volume_{side}")
    base = f"{row.base}/volume_{side}"
    return Markup("the {} {} {} (95\u00a0% interval {} to {}), {} to {}").format(
        side,
        _DID[volume.verdict],
        num(f"{base}/change_percent", "magnitude_percent", unit=True),
        num(f"{base}/interval_low_percent", "signed_percent"),
        num(f"{base}/interval_high_percent", "signed_percent", unit=True),
        num(f"{base}/before_ml", "ml"),
        num(f"{base}/after_ml", "ml", unit=True),
    )


def _unchanged_groups(changes: Changes) -> list[str]:
    """Titles of the groups whose volume changed on no side in the last scan."""
    return [
        row.title
        for row in _rows(changes, len(changes.later) - 1)
        if row.change.kind != "muscle"
        and {row.change.volume_right.verdict, row.change.volume_left.verdict}
        == {ChangeVerdict.NONE}
    ]


def _unjudged(one: ScanChanges) -> list[tuple[str, str]]:
    """Titles and shared reasons of the muscles without a verdict on a volume."""
    return words.by_reasons(
        [
            (words.muscle_title(c.name), tuple(_volume_reasons(c)))
            for c in one.changes
            if c.kind == "muscle" and _volume_reasons(c)
        ]
    )


def _volume_reasons(change: MuscleChange) -> list[str]:
    return _sided(change.volume_right.reason, change.volume_left.reason)


def _reasons(change: MuscleChange) -> list[str]:
    """Why something has no verdict, each reason once."""
    said = _volume_reasons(change)
    known = " ".join(said)
    fat = [
        text
        for text in _sided(change.fat_fraction_right.reason, change.fat_fraction_left.reason)
        if text not in said
    ]
    said += [f"Fat fraction: {text}" for text in fat]
    if change.asymmetry.reason is not None and change.asymmetry.reason not in known:
        said.append(f"Asymmetry: {change.asymmetry.reason}")
    return said


def _sided(right: str | None, left: str | None) -> list[str]:
    if right is not None and right == left:
        return [f"Both sides: {right}"]
    return [f"{side}: {t}" for side, t in (("Right", right), ("Left", left)) if t is not None]


def _charts(changes: Changes, one: ScanChanges, number: int) -> dict[str, Markup]:
    """The intervals of every muscle's change, wide and narrow."""
    label = changes.scans[one.scan].label
    return {
        size: Markup(
            inline_svg(
                change_charts.interval_chart(one, width_px=width),
                prefix=f"change-{number}-{size}",
                title=f"Change of every muscle's volume in {label} with its 95 % interval; "
                "the table below holds the same numbers",
            )
        )
        for size, width in _WIDTHS_PX.items()
    }


def _timeline(changes: Changes) -> dict[str, Markup]:
    """Volumes over all scans, wide and narrow."""
    return {
        size: Markup(
            inline_svg(
                change_charts.timeline_chart(changes, columns=_PANEL_COLUMNS[size], width_px=width),
                prefix=f"timeline-{size}",
                title="Volumes of the limb, groups and changed muscles in every scan",
            )
        )
        for size, width in _WIDTHS_PX.items()
    }
