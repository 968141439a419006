"""Results in plain words: what differs, how sure that is, what could not be judged and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from markupsafe import Markup

from pipeline.core.anatomy import Side, title_of
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    Compared,
    GroupResult,
    Lead,
    Measurement,
    Measures,
    Of,
    Status,
    Verdict,
    leading,
)
from pipeline.core.volume import Quantity
from pipeline.report.format import NO_BREAK
from pipeline.report.numbers import Numbers
from pipeline.report.reach import drawn_values, goes_on

#: Groups by names that a person without anatomy knows; the anatomical name stands beside them.
_PLAIN_GROUPS: Mapping[str, str] = FrozenDict(
    {
        "gluteal": "Buttock",
        "thigh_anterior": "Front of the thigh",
        "thigh_medial": "Inner thigh",
        "thigh_posterior": "Back of the thigh",
        "leg_anterior": "Shin",
        "leg_superficial_posterior": "Calf",
        "leg_deep_posterior": "Deep calf",
        "hip_abductors": "Hip abductors",
        "quadriceps": "Quadriceps",
        "adductors": "Adductors",
        "hamstrings": "Hamstrings",
        "triceps_surae": "Calf (triceps surae)",
        "vastus_lateralis_and_intermedius": "Vastus lateralis and intermedius",
        "limb": "All muscles of the leg",
    }
)

_REGIONS: Mapping[str, str] = FrozenDict({"hip": "Hip", "thigh": "Thigh", "leg": "Lower leg"})

_KINDS: Mapping[str, str] = FrozenDict(
    {
        "compartment": "compartment",
        "functional_group": "functional group",
        "pair": "pair",
        "limb": "limb",
        "union": "labelled as one",
    }
)

_VERDICTS: Mapping[Verdict, str] = FrozenDict(
    {
        Verdict.WITHIN_ERROR: "within measurement error",
        Verdict.MEASURABLE: "measurable",
        Verdict.WITHIN_HEALTHY: "measurable, within the healthy spread",
        Verdict.NOT_SURELY_OUTSIDE: "not surely outside the healthy spread",
        Verdict.OUTSIDE_HEALTHY: "outside the healthy spread",
    }
)

#: Measurable differences by how they compare with those of healthy legs, the largest first.
_SPREAD: Mapping[Verdict, str] = FrozenDict(
    {
        Verdict.OUTSIDE_HEALTHY: "surely more than healthy legs do",
        Verdict.NOT_SURELY_OUTSIDE: "more, but not surely",
        Verdict.WITHIN_HEALTHY: "no more than healthy legs do",
        Verdict.MEASURABLE: "where no limit decides",
    }
)

#: What the verdicts mean, for whoever meets them first.
VERDICT_KEY: Mapping[str, str] = FrozenDict(
    {
        "Within measurement error": "may be no difference at all.",
        "Measurable": "larger than that error.",
        "Healthy spread": "how much the sides of healthy people differ in total volume, "
        "where that is known; outside it only if the whole interval is, and that of total volume "
        "too.",
    }
)

INTERVAL_KEY = (
    "A 95 % interval is the range that should hold the true difference 19 times out of 20"
)

#: Lean volume beyond the limit, which is of total volume, and total volume not.
_LEAN_ALONE = "beyond the limit in lean volume alone"

#: Short names for style sheets.
_VERDICT_CLASSES: Mapping[Verdict, str] = FrozenDict(
    {
        Verdict.WITHIN_ERROR: "error",
        Verdict.MEASURABLE: "measurable",
        Verdict.WITHIN_HEALTHY: "healthy",
        Verdict.NOT_SURELY_OUTSIDE: "healthy",
        Verdict.OUTSIDE_HEALTHY: "outside",
    }
)


def lead_key(lead: Lead) -> str:
    """Name of the field of a muscle or group that holds the leading asymmetry."""
    return "asymmetry" if lead == "lean_volume" else "asymmetry_total_volume"


def image_title(quantity: str) -> str:
    """What an image shows, as people write it."""
    return "fat fraction" if quantity == Quantity.FAT_FRACTION else quantity


def who(measures: Measures) -> str:
    """Subject and session, as they stand on everything that leaves the folder."""
    return " ".join(part for part in (measures.subject, measures.session) if part)


def cross_section(of: set[Lead]) -> str:
    """What the cross-sections of all muscles together are called."""
    if of == {"lean_volume"}:
        return "lean cross-section"
    if of == {"total_volume"}:
        return "cross-section, fat inside the muscle included,"
    return "lean cross-section (where none was measured: the whole one)"


def how_many_differ(measures: Measures, lead: Lead) -> str:
    """How many muscles were judged, and how many of them came out how, in a sentence or two."""
    verdicts = [leading(muscle, lead).verdict for muscle in measures.measures.muscles]
    judged = sum(verdict is not None for verdict in verdicts)
    said = f"Of {len(verdicts)} muscles {judged} were judged"
    if not judged:
        return f"{said}."
    within = verdicts.count(Verdict.WITHIN_ERROR)
    said += f": in {within or 'none'} no difference can be told from the measurement error, "
    said += f"{judged - within or 'none'} differ measurably"
    parts = [
        f"{count or 'none'} {what}"
        for verdict, what in _SPREAD.items()
        if (count := verdicts.count(verdict)) or verdict is Verdict.OUTSIDE_HEALTHY
    ]
    return f"{said} ({', '.join(parts)})." if judged > within else f"{said}."


def judged_in_part(measures: Measures, lead: Lead) -> list[str]:
    """Titles of muscles of which only the part that both legs show was judged."""
    return [
        muscle_title(muscle.name)
        for muscle in measures.measures.muscles
        if (a := leading(muscle, lead)).extent == "matched" and a.verdict is not None
    ]


def muscle_title(name: str) -> str:
    """A muscle's name as people write it."""
    return title_of(name)


def group_title(name: str) -> str:
    """A group's name for a reader without anatomy."""
    return _PLAIN_GROUPS.get(name) or title_of(name)


def region_title(name: str) -> str:
    """A region's heading."""
    return _REGIONS.get(name) or title_of(name)


def kind_title(name: str) -> str:
    """What kind of group it is."""
    return _KINDS.get(name) or title_of(name).lower()


def ratio_title(name: str) -> str:
    """A ratio's name, e.g. "Hamstrings : quadriceps"."""
    top, _, bottom = name.partition("_to_")
    if not bottom:
        return title_of(name)
    return f"{group_title(top)}\u2009:\u2009{group_title(bottom).lower()}"


def verdict_text(result: Compared, lead: Lead) -> str:
    """A verdict as the page words it; one that something of the scan may fake says so."""
    asymmetry = leading(result, lead)
    if asymmetry.verdict is None:
        return "no verdict"
    limited = asymmetry.extent == "whole" and result.healthy_limit_percent is not None
    lean_alone = limited and asymmetry.verdict is Verdict.MEASURABLE
    text = _LEAN_ALONE if lean_alone else _VERDICTS[asymmetry.verdict]
    return text + (" (caveat)" if asymmetry.caveats else "")


def first_sentence(message: str) -> str:
    """The first sentence of a finding."""
    return f"{message.split('. ')[0].rstrip('.')}."


def verdict_class(result: Compared, lead: Lead) -> str:
    """A verdict's name in the style sheet."""
    verdict = leading(result, lead).verdict
    return "none" if verdict is None else _VERDICT_CLASSES[verdict]


def names(titles: tuple[str, ...] | list[str]) -> str:
    """Titles as a list in a sentence: the first keeps its capital, the others lose theirs."""
    return ", ".join(
        title if i == 0 else title[:1].lower() + title[1:] for i, title in enumerate(titles)
    )


def shown_extent(measurement: Measurement, of: Of) -> Literal["whole", "in_view"]:
    """Of which extent tables show a volume: the whole one, else what is in view."""
    return "in_view" if measurement.volume_ml(of, "whole") is None else "whole"


def difference(result: Compared, base: str, lead: Lead, num: Numbers) -> Markup:
    """Which side is smaller and by how much, e.g. "the left is smaller by 9.8 %"."""
    asymmetry = leading(result, lead)
    pointer = f"{base}/{lead_key(lead)}/index_percent"
    if asymmetry.index_percent is None:
        return Markup("no difference can be given")
    if asymmetry.smaller_side is None:
        return Markup("both sides are equal ({})").format(num(pointer, "percent", unit=True))
    return Markup("the {} is smaller by {}").format(
        asymmetry.smaller_side.value, num(pointer, "magnitude_percent", unit=True)
    )


def interval(result: Compared, base: str, lead: Lead, num: Numbers) -> Markup:
    """The 95 % interval told from the smaller side; empty where there is none."""
    asymmetry = leading(result, lead)
    low, high = asymmetry.interval_low_percent, asymmetry.interval_high_percent
    if low is None or high is None or asymmetry.smaller_side is None:
        return Markup("")
    ends = [f"{base}/{lead_key(lead)}/interval_{end}_percent" for end in ("low", "high")]
    label = Markup("95{}%{}interval ").format(NO_BREAK, NO_BREAK)
    if low < 0 < high:
        # Told from the smaller side: one end says larger, the other smaller.
        larger, smaller = ends if asymmetry.smaller_side is Side.LEFT else ends[::-1]
        return label + Markup("from {} larger to {} smaller").format(
            num(larger, "magnitude_percent", unit=True),
            num(smaller, "magnitude_percent", unit=True),
        )
    near, far = ends if low >= 0 else ends[::-1]
    return label + Markup("{} to {}").format(
        num(near, "magnitude_percent"), num(far, "magnitude_percent", unit=True)
    )


def cut_note(result: Compared, base: str, lead: Lead, num: Numbers, *, reach: float) -> Markup:
    """Says how far a difference goes on that is drawn only to the end of a chart; else empty."""
    asymmetry = leading(result, lead)
    if goes_on(drawn_values(asymmetry), reach) == (None, None):
        return Markup("")
    if asymmetry.interval_low_percent is None:
        return Markup("drawn cut")
    low, high = (f"{base}/{lead_key(lead)}/interval_{end}_percent" for end in ("low", "high"))
    return Markup("drawn cut: the 95{}% interval is {} to {}").format(
        NO_BREAK, num(low, "signed_percent"), num(high, "signed_percent", unit=True)
    )


def extent_note(result: Compared, base: str, lead: Lead, num: Numbers) -> Markup:
    """Says so where only a part was compared; empty for a whole muscle."""
    asymmetry = leading(result, lead)
    if asymmetry.extent != "matched":
        return Markup("")
    if asymmetry.matched_share is None:
        return Markup("only the part that both legs show was compared")
    return Markup("only the part that both legs show was compared, {} of what is in view").format(
        num(f"{base}/{lead_key(lead)}/matched_share", "share", unit=True)
    )


def group_note(group: GroupResult, lead: Lead) -> str:
    """Says so where only some muscles of a group, or a part of them, were compared; else empty."""
    said = []
    if len(group.muscles_compared) < len(group.muscles):
        said.append(f"{len(group.muscles_compared)} of {len(group.muscles)} muscles compared")
    if leading(group, lead).extent == "matched":
        said.append("only the part that both legs show")
    return ", ".join(said)


def limit_note(result: Compared, base: str, lead: Lead, num: Numbers) -> Markup:
    """The healthy limit and how unsure it is itself, and, where lean volume is shown, how much
    total volume differs, which the limit is of; empty where there is none."""
    if result.healthy_limit_percent is None:
        return Markup("")
    said = Markup("healthy limit {}").format(
        num(f"{base}/healthy_limit_percent", "percent", unit=True)
    )
    if result.healthy_limit_half_width_percent is not None:
        half = num(f"{base}/healthy_limit_half_width_percent", "limit_percent")
        said += Markup(" {}").format(half)
    if result.healthy_limit_people is not None:
        people = num(f"{base}/healthy_limit_people", "plain")
        said += Markup(" ({} people)").format(people)
    if lead == "lean_volume" and result.asymmetry_total_volume.index_percent is not None:
        pointer = f"{base}/{lead_key('total_volume')}/index_percent"
        differs = num(pointer, "signed_percent", unit=True)
        said += Markup(" of total volume, which differs by {}").format(differs)
    return said


def legs_alternative(measures: Measures, lead: Lead, view: str) -> str:
    """What the picture of the legs says, for who cannot see it: the muscles that differ surely."""
    smaller: dict[Side, list[str]] = {Side.RIGHT: [], Side.LEFT: []}
    found = [leading(result, lead) for result in measures.measures.muscles]
    for result, asymmetry in zip(measures.measures.muscles, found, strict=True):
        side = asymmetry.smaller_side
        if asymmetry.verdict not in (None, Verdict.WITHIN_ERROR) and side is not None:
            smaller[side].append(muscle_title(result.name).lower())
    none = "no muscle that was judged differs by more than the measurement error"
    if all(asymmetry.verdict is None for asymmetry in found):
        none = "no muscle was judged"
    said = [
        f"measurably smaller on the {side}: {', '.join(titles)}"
        for side, titles in smaller.items()
        if titles
    ] or [none]
    return (
        f"Both legs from the {view}, every muscle coloured by how it differs from the other "
        f"leg's; {'; '.join(said)}."
    )


def by_reasons(results: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[str, str]]:
    """(titles in one sentence, reasons) of results that share their reasons, in order."""
    together: dict[tuple[str, ...], list[str]] = {}
    for title, why in results:
        together.setdefault(why, []).append(title)
    return [(names(titles), "; ".join(why)) for why, titles in together.items()]


def lean_heading(measures: Measures) -> str:
    """What a notice says of lean volumes that do not lead, before it says why."""
    sides = [side for m in measures.measures.muscles for side in (m.right, m.left)]
    estimated = any(side.lean_estimate is not None for side in sides)
    return "Lean volumes are estimated" if estimated else "No lean volumes"


def common_lean_reason(measures: Measures) -> str | None:
    """Why no muscle has a lean volume, or only an estimate of one, where one reason holds for all
    that are there."""
    sides = [s for m in measures.measures.muscles for s in (m.right, m.left)]
    found = {s.lean_reason or s.lean_estimate for s in sides if s.status is not Status.ABSENT}
    return found.pop() if len(found) == 1 else None


def reasons(result: Compared, lead: Lead, *, told: str | None = None) -> list[str]:
    """Everything that says why something is missing or unsure, each once, sides named.

    Args:
        result: the muscle or group.
        lead: which asymmetry leads.
        told: a reason the page gives once for all muscles and that is not repeated.
    """
    said: list[str] = []
    known: list[str] = [] if told is None else [told]
    for field in ("reason", "lean_reason", "lean_estimate"):
        right, left = (
            None if (text := getattr(side, field)) == told else text
            for side in (result.right, result.left)
        )
        if right is not None and right == left:
            pairs = [("Both sides", right)]
        else:
            pairs = [("Right", right), ("Left", left)]
        said += [f"{side}: {text}" for side, text in pairs if text is not None]
        known += [text for _, text in pairs if text is not None]
    for asymmetry in (result.asymmetry, result.asymmetry_total_volume):
        text = asymmetry.reason
        # Most reasons for no verdict repeat why a side has no value.
        if text is None or any(text in k or k in text for k in known):
            continue
        what = "" if asymmetry is leading(result, lead) else f" on {asymmetry.of}"
        said.append(f"No verdict{what.replace('_', ' ')}: {text}")
        known.append(text)
    return list(dict.fromkeys(said))
