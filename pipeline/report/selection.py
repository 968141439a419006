"""What of the results a reader is shown first, and how it is judged: stages, muscles, groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Finding,
    Lead,
    Measures,
    Severity,
    Status,
    Verdict,
    leading,
)
from pipeline.report import words

#: What each stage does, for a reader who decides where to look.
_STAGES: Mapping[str, str] = FrozenDict(
    {
        "load": "reading the files",
        "canonicalise": "images on one grid, how they were scanned",
        "separate": "telling the legs apart",
        "segment": "finding the muscles",
        "register": "laying the left leg onto the right",
        "reconcile": "consensus of both sides' labels",
        "measure": "volumes and differences",
    }
)


@dataclass(frozen=True)
class StageCheck:
    """What the program's own checks say of a stage.

    Attributes:
        name, what: of the stage.
        verdict: fine, look at or failed.
        noticed: first sentences of what it warns of, errors first.
        notes: first sentences of what it found besides.
    """

    name: str
    what: str
    verdict: Literal["fine", "look at", "failed"]
    noticed: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The verdict with the number of notes, e.g. "fine; 1 note"."""
        count = len(self.notes)
        return f"{self.verdict}; {count} note{'s' * (count > 1)}" if count else self.verdict


@dataclass(frozen=True)
class Unjudged:
    """Muscles that could not be judged for one kind of reason.

    Attributes:
        heading, explanation: the kind of reason in words.
        muscles: their titles.
        reasons: (exact reason, titles of the muscles it holds for).
    """

    heading: str
    explanation: str
    muscles: tuple[str, ...]
    reasons: tuple[tuple[str, tuple[str, ...]], ...]


def stage_checks(measures: Measures) -> list[StageCheck]:
    """Every stage with the verdict of its checks; a consensus only where one was asked for."""
    checks = []
    for name, what in _STAGES.items():
        found = [f for f in measures.findings if f.stage == name]
        bad = [f for f in found if f.severity is Severity.ERROR]
        doubtful = [f for f in found if f.severity is Severity.WARNING]
        failed = bool(bad) or (name == "register" and not measures.registration.succeeded)
        if name == "reconcile" and not found:
            continue
        said = [words.first_sentence(f.message) for f in (*bad, *doubtful)]
        if failed and not said and measures.registration.reason:
            said.append(f"{measures.registration.reason}.")
        notes = [words.first_sentence(f.message) for f in found if f.severity is Severity.INFO]
        verdict: Literal["fine", "look at", "failed"] = "look at" if doubtful else "fine"
        checks.append(
            StageCheck(
                name,
                what,
                verdict="failed" if failed else verdict,
                noticed=tuple(dict.fromkeys(said)),
                notes=tuple(dict.fromkeys(notes)),
            )
        )
    return checks


def caveats(measures: Measures) -> list[Finding]:
    """Findings that say what of this scan may fake a difference, in their order."""
    named = measures.measures.caveats
    return [finding for finding in measures.findings if finding.code in named]


def largest(measures: Measures, lead: Lead, count: int) -> list[int]:
    """Positions of the muscles with the largest judged differences.

    Differences beyond measurement error come first, largest first; then those that may be nothing.
    """
    judged = [
        (a.verdict is Verdict.WITHIN_ERROR, -abs(a.index_percent), i)
        for i, m in enumerate(measures.measures.muscles)
        if (a := leading(m, lead)).verdict is not None and a.index_percent is not None
    ]
    return [i for *_, i in sorted(judged)[:count]]


def summary_groups(measures: Measures, lead: Lead) -> list[int]:
    """Positions of the groups of the first screen: the limb first, then down the leg.

    Groups of the same muscles (hamstrings, back of the thigh) appear once: the one that has a
    number, else the one whose name is better known.
    """
    order = {"limb": 0, "functional_group": 1, "compartment": 2, "union": 3}
    groups = measures.measures.groups

    def preference(i: int) -> tuple[bool, int, int]:
        return (leading(groups[i], lead).index_percent is None, order[groups[i].kind], i)

    chosen: dict[frozenset[str], int] = {}
    for i in sorted((i for i, g in enumerate(groups) if g.kind in order), key=preference):
        chosen.setdefault(frozenset(groups[i].muscles), i)
    position = {m.name: n for n, m in enumerate(measures.measures.muscles)}

    def place(i: int) -> tuple[bool, int, int]:
        members = [position.get(name, len(position)) for name in groups[i].muscles]
        return (groups[i].kind != "limb", min(members, default=0), -len(members))

    return sorted(chosen.values(), key=place)


def unjudged(measures: Measures, lead: Lead) -> list[Unjudged]:
    """Muscles without a verdict, by kind of reason."""
    told = words.common_lean_reason(measures)
    kinds: dict[str, tuple[str, str]] = {
        Status.TRUNCATED: (
            "Cut by the edge of what was scanned or labelled",
            "A cut muscle is not a small muscle, so it is not compared.",
        ),
        Status.ABSENT: ("Not found", "Not there to measure on at least one side."),
        Status.UNRELIABLE: ("Not reliable", "A value is given, but nothing is concluded from it."),
        "lean": ("No lean volume", "The fat in the muscle is not known."),
        "other": ("Other reasons", ""),
    }
    found: dict[str, dict[str, list[str]]] = {kind: {} for kind in kinds}
    for result in measures.measures.muscles:
        asymmetry = leading(result, lead)
        if asymmetry.verdict is not None:
            continue
        sides = (result.right, result.left)
        statuses = [m.status for m in sides]
        if Status.ABSENT in statuses:
            kind: str = Status.ABSENT
        elif any(m.why_doubted for m in sides):
            kind = Status.UNRELIABLE
        elif Status.TRUNCATED in statuses:
            kind = Status.TRUNCATED
        elif lead == "lean_volume" and any(m.lean_reason for m in sides):
            kind = "lean"
        else:
            kind = "other"
        for reason in words.reasons(result, lead, told=told):
            found[kind].setdefault(reason, []).append(words.muscle_title(result.name))
    return [
        Unjudged(
            *kinds[kind],
            muscles=tuple(dict.fromkeys(t for titles in by_reason.values() for t in titles)),
            reasons=tuple((reason, tuple(titles)) for reason, titles in by_reason.items()),
        )
        for kind, by_reason in found.items()
        if by_reason
    ]
