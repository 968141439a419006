"""Context of a difference outside the healthy spread: causes, what people do, the evidence.

It informs. It names no diagnosis, prescribes nothing and predicts no injury; each sentence stands
with its evidence and that evidence's limits. Nothing of it is shown when a check of the scan
failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.anatomy import GROUPS
from pipeline.core.results import Lead, Measures, Severity, Verdict, leading
from pipeline.report import words


@dataclass(frozen=True)
class Statement:
    """One thing that is known.

    Attributes:
        said: what is said.
        evidence: what it rests on, with its source.
        limit: what it does not show.
        muscles: muscles it is about; empty: any.
    """

    said: str
    evidence: str
    limit: str
    muscles: frozenset[str] = frozenset()


_MEMBERS = {group.name: frozenset(group.muscles) for group in GROUPS}
_HAMSTRINGS, _QUADRICEPS = _MEMBERS["hamstrings"], _MEMBERS["quadriceps"]
_VASTI = _QUADRICEPS - {"rectus_femoris"}
_GLUTEALS = _MEMBERS["gluteal"] - {"tensor_fasciae_latae"}

#: How hard a muscle works is not how much it grows.
_EMG_LIMIT = "electrical activity says how hard a muscle works, not how much it grows"

CAUSES: tuple[Statement, ...] = (
    Statement(
        "a preferred leg, or sport and work that load one side",
        "healthy people differ too: single muscles by 12.6 % on average, functional groups by "
        "4.7 % (15 men, Rothwell 2019)",
        "why a given person differs cannot be read from a scan",
    ),
    Statement(
        "an injured or reconstructed cruciate ligament, graft harvest included",
        "rectus femoris and vastus lateralis were more than 15 % smaller before surgery; rectus "
        "femoris, gracilis and the vasti more than 20 % after it (PMID 28290752)",
        "found in people known to be injured; it does not work backwards",
        _QUADRICEPS | {"gracilis"},
    ),
    Statement(
        "an old injury, an operation, or a long time of sparing one leg",
        "common experience; no figures for single muscles were found",
        "a scan does not tell old from new",
    ),
    Statement(
        "not: mild to moderate osteoarthritis of the hip",
        "muscle was lost on both sides, without a side difference (PMC6103991)",
        "a difference neither shows nor excludes it",
        _GLUTEALS,
    ),
    Statement(
        "the position in the scanner, or an error in the labels",
        "the pictures on this page show the labels that were counted",
        "repeating the scan tells more than looking again",
    ),
)

PRACTICE: tuple[Statement, ...] = (
    Statement(
        "measure again with the same protocol before and after anything is changed",
        "eight weeks of training added 5.1 (SD 5.5) % to the quadriceps (PMC7010694), about as "
        "much as the smallest change of asymmetry that two scans can show (3.92 times the "
        "scan-rescan variation)",
        "a single scan shows no change",
    ),
    Statement(
        "strength work on one leg at a time, the smaller side first",
        "single-leg deadlift: gluteus medius at 78 %, biceps femoris at 82 % of its maximal "
        "voluntary activity (15 trained men, Diamant 2021, Int J Exerc Sci 14:187)",
        _EMG_LIMIT,
        _HAMSTRINGS | {"gluteus_medius"},
    ),
    Statement(
        "step-ups with a load",
        "gluteus maximus above 60 % of its maximal voluntary activity (review, PMC7039033); "
        "about 30 % in a study without one (MacAskill, Int J Sports Phys Ther)",
        _EMG_LIMIT,
        frozenset({"gluteus_maximus"}) | _QUADRICEPS,
    ),
    Statement(
        "hip thrusts",
        "gluteus maximus at 70 to 87 %, biceps femoris at 41 %, vastus lateralis at 100 % of "
        "their maximal voluntary activity (13 trained women, Contreras 2015, J Appl Biomech "
        "31:452)",
        _EMG_LIMIT,
        frozenset({"gluteus_maximus"}) | _HAMSTRINGS | _VASTI,
    ),
    Statement(
        "activation of the gluteal muscles: single-leg bridge, half-moon pose",
        "bridge: gluteus maximus at 40 to 54 % (studies listed in PMC4004121); half-moon: gluteus "
        "maximus at 63 %, medius at 42 % of their maximal voluntary activity (31 people, doi "
        "10.26603/001c.22499)",
        _EMG_LIMIT,
        _GLUTEALS,
    ),
    Statement(
        "mobility work such as foam rolling",
        "range of motion grew over weeks of it (effect size 0.82, PMC9474417); strength right "
        "after it hardly (0.12, PMC6465761)",
        "nothing is known of an effect on volume",
    ),
)

#: The question that most people ask, and the answer.
INJURY = (
    "Whether a side difference leads to injury is not known: 28 prospective studies were highly "
    "inconsistent (doi 10.3390/jcm11020360)."
)


@dataclass(frozen=True)
class Context:
    """What the page says besides the numbers.

    Attributes:
        titles: muscles and groups outside the healthy spread.
        causes, practice: statements about any muscle and about those.
        injury: on the prediction of injuries.
    """

    titles: tuple[str, ...]
    causes: tuple[Statement, ...]
    practice: tuple[Statement, ...]
    injury: str


def context_of(measures: Measures, lead: Lead) -> Context | None:
    """Context of the muscles and groups outside the healthy spread; None where there is none.

    None too where a check failed (an error among the findings, or legs that could not be laid
    onto each other): then a difference may be the scan's own.
    """
    failed = any(f.severity is Severity.ERROR for f in measures.findings)
    if failed or not measures.registration.succeeded:
        return None
    limb = measures.measures
    muscles = [m for m in limb.muscles if _outside(leading(m, lead).verdict)]
    groups = [g for g in limb.groups if _outside(leading(g, lead).verdict)]
    if not muscles and not groups:
        return None
    names = {m.name for m in muscles}.union(*(g.muscles_compared for g in groups))
    return Context(
        titles=(
            *(words.muscle_title(m.name) for m in muscles),
            *(words.group_title(g.name) for g in groups),
        ),
        causes=_about(CAUSES, names),
        practice=_about(PRACTICE, names),
        injury=INJURY,
    )


def _outside(verdict: Verdict | None) -> bool:
    return verdict is Verdict.OUTSIDE_HEALTHY


def _about(statements: tuple[Statement, ...], names: set[str]) -> tuple[Statement, ...]:
    return tuple(s for s in statements if not s.muscles or s.muscles & names)
