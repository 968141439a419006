"""The one registry of sides, muscles, bones, groups, label ids, codes and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict

#: A left structure carries the id of its right twin plus this.
LEFT_OFFSET = 100


class Side(StrEnum):
    """The patient's side."""

    LEFT = "left"
    RIGHT = "right"

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.LEFT if self is Side.RIGHT else Side.RIGHT


def title_of(name: str) -> str:
    """A name as people write it, whatever it names: "vastus_lateralis" -> "Vastus lateralis"."""
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Codes:
    """Terminology codes, of the muscle whatever its side: FMA, MDC, SNOMED CT; None = none found."""

    fma: str | None
    mdc: str | None
    snomed_ct: str | None


@dataclass(frozen=True)
class Structure:
    """A labelled structure that is not a muscle: a bone, or a union of muscles."""

    id: int
    name: str
    colour: str
    muscles: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name as people write it."""
        return title_of(self.name)


@dataclass(frozen=True)
class Muscle:
    """One muscle of the vocabulary.

    Attributes:
        id: label value on the right side; the left side carries id + 100.
        name: snake_case name used in every file.
        region: hip, thigh or leg.
        compartment: anatomical compartment.
        functional_group: quadriceps, hamstrings, ... or None.
        reference_slope, reference_intercept_ml: b1 and b2 of Handsfield et al. 2014
            (J Biomech 47:631): V = b1 V_total + b2, V_total[mL] = 47 height[m] mass[kg] + 1285.
        healthy_limit_percent: 95 % limit of agreement of total-volume asymmetry in healthy
            young adults (J Orthop Res 2018;36:963); None where none was published.
        colour: display colour, #rrggbb.
        codes: terminology codes.
    """

    id: int
    name: str
    region: str
    compartment: str
    functional_group: str | None
    reference_slope: float
    reference_intercept_ml: float
    healthy_limit_percent: float | None
    colour: str
    codes: Codes

    @property
    def title(self) -> str:
        """The name as people write it, e.g. "Vastus lateralis"."""
        return title_of(self.name)


# fmt: off
MUSCLES: tuple[Muscle, ...] = (
    Muscle(1, "gluteus_maximus", "hip", "gluteal", None, 0.123, -25.4, None, "#f2923d", Codes("22314", "459548", "206007")),
    Muscle(2, "gluteus_medius", "hip", "gluteal", "hip_abductors", 0.0478, -16.9, None, "#c38031", Codes("22315", "459552", "78333006")),
    Muscle(3, "gluteus_minimus", "hip", "gluteal", "hip_abductors", 0.0129, 12.6, None, "#956925", Codes("22317", "459556", "75297007")),
    Muscle(4, "tensor_fasciae_latae", "hip", "gluteal", "hip_abductors", 0.0136, -31.5, None, "#663d19", Codes("22423", "459560", None)),
    Muscle(5, "iliopsoas", "hip", "hip_flexor", None, 0.0798, -116.617, None, "#f2ba30", Codes(None, "459544", None)),
    Muscle(6, "deep_hip_rotators", "hip", "hip_rotator", None, 0.0162, 55.58, None, "#f2df49", Codes(None, None, None)),
    Muscle(7, "sartorius", "thigh", "thigh_anterior", None, 0.0256, -18.2, None, "#3dbef2", Codes("22353", "459580", None)),
    Muscle(8, "rectus_femoris", "thigh", "thigh_anterior", "quadriceps", 0.0371, 4.97, 21.4, "#3497cf", Codes("22430", "459588", "72226001")),
    Muscle(9, "vastus_lateralis", "thigh", "thigh_anterior", "quadriceps", 0.125, -55.7, 12, "#2b74ac", Codes("22431", "459592", "1403006")),
    Muscle(10, "vastus_intermedius", "thigh", "thigh_anterior", "quadriceps", 0.0273, 76.5, 12, "#226b89", Codes("22433", "459596", None)),
    Muscle(11, "vastus_medialis", "thigh", "thigh_anterior", "quadriceps", 0.0631, -16.3, 12, "#194a66", Codes("22432", "459600", None)),
    Muscle(12, "gracilis", "thigh", "thigh_medial", "adductors", 0.0138, 6.07, None, "#c885f2", Codes("43882", "459620", None)),
    Muscle(13, "adductor_magnus", "thigh", "thigh_medial", "adductors", 0.0793, -4.7, None, "#b172cf", Codes("22443", "459616", None)),
    Muscle(14, "adductor_longus", "thigh", "thigh_medial", "adductors", 0.0259, -21.9, None, "#995fac", Codes("22441", "459608", None)),
    Muscle(15, "adductor_brevis", "thigh", "thigh_medial", "adductors", 0.0137, 6.2, None, "#714b89", Codes("22442", "459612", None)),
    Muscle(16, "pectineus", "thigh", "thigh_medial", "adductors", 0.0107, -9.94, None, "#573866", Codes(None, "459604", None)),
    Muscle(17, "biceps_femoris_long", "thigh", "thigh_posterior", "hamstrings", 0.0256, 24.3, 20.9, "#49f295", Codes("45887", "459628", None)),
    Muscle(18, "biceps_femoris_short", "thigh", "thigh_posterior", "hamstrings", 0.016, -13.8, 33.5, "#3bc382", Codes("45890", "459632", None)),
    Muscle(19, "semitendinosus", "thigh", "thigh_posterior", "hamstrings", 0.0285, -16.8, None, "#2d956a", Codes("22357", "459636", None)),
    Muscle(20, "semimembranosus", "thigh", "thigh_posterior", "hamstrings", 0.0319, 18.2, None, "#1f663f", Codes("22438", "459640", None)),
    Muscle(21, "tibialis_anterior", "leg", "leg_anterior", None, 0.0161, 20.3, None, "#79e5f2", Codes("22532", "459644", None)),
    Muscle(22, "toe_extensors", "leg", "leg_anterior", None, 0.0132, 8.7, None, "#335d66", Codes(None, None, None)),
    Muscle(23, "fibulares", "leg", "leg_lateral", None, 0.0194, -7.43, None, "#f279b5", Codes(None, None, None)),
    Muscle(24, "gastrocnemius_medialis", "leg", "leg_superficial_posterior", "triceps_surae", 0.0348, 9.42, None, "#f25d30", Codes("45956", "459680", None)),
    Muscle(25, "gastrocnemius_lateralis", "leg", "leg_superficial_posterior", "triceps_surae", 0.0199, 8.21, None, "#ac4c22", Codes("45959", "459676", None)),
    Muscle(26, "soleus", "leg", "leg_superficial_posterior", "triceps_surae", 0.0507, 78.2, None, "#663314", Codes("22542", "459684", None)),
    Muscle(27, "tibialis_posterior", "leg", "leg_deep_posterior", None, 0.0104, 30.8, None, "#9385f2", Codes("51099", "459696", None)),
    Muscle(28, "flexor_digitorum_longus", "leg", "leg_deep_posterior", None, 0.00259, 11.6, None, "#7d6cc3", Codes("51071", "459700", None)),
    Muscle(29, "flexor_hallucis_longus", "leg", "leg_deep_posterior", None, 0.0137, -18.9, None, "#645295", Codes("22593", None, None)),
    Muscle(30, "popliteus", "leg", "leg_deep_posterior", None, 0.00298, 2.11, None, "#3e3866", Codes("22590", "459692", None)),
)
# fmt: on

BONES: tuple[Structure, ...] = (
    Structure(41, "femur", "#f2ead3"),
    Structure(42, "tibia", "#e8dcc0"),
    Structure(43, "fibula", "#dccfae"),
    Structure(44, "patella", "#fff6e0"),
    Structure(45, "hip_bone", "#d9cba3"),
    Structure(46, "sacrum", "#cbbd97"),
    Structure(47, "foot", "#bfb28f"),
)

#: Labels of sources that do not resolve the single muscles.
UNIONS: tuple[Structure, ...] = (
    Structure(51, "leg_anterior_compartment", "#40a0b0", ("tibialis_anterior", "toe_extensors")),
    Structure(
        52,
        "leg_deep_posterior_compartment",
        "#6a5fa8",
        ("tibialis_posterior", "flexor_digitorum_longus", "flexor_hallucis_longus", "popliteus"),
    ),
    Structure(
        53, "gastrocnemius", "#c05a20", ("gastrocnemius_medialis", "gastrocnemius_lateralis")
    ),
)


@dataclass(frozen=True)
class MuscleGroup:
    """Muscles that are also reported together.

    Attributes:
        name: snake_case name.
        kind: "compartment", "functional_group", "pair" or "limb".
        muscles: names of the members.
        healthy_limit_percent: as for Muscle.
    """

    name: str
    kind: str
    muscles: tuple[str, ...]
    healthy_limit_percent: float | None = None


#: People that the published limits of muscles and groups come from (J Orthop Res 2018;36:963).
HEALTHY_LIMIT_PEOPLE = 21

#: Published limits of functional groups (J Orthop Res 2018;36:963), percent.
_GROUP_LIMITS: Mapping[str, float] = FrozenDict({"quadriceps": 8.8, "hamstrings": 11.4})


def _groups() -> tuple[MuscleGroup, ...]:
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for kind, attribute in (("compartment", "compartment"), ("functional_group",) * 2):
        names = dict.fromkeys(getattr(m, attribute) for m in MUSCLES if getattr(m, attribute))
        for name in names:
            members = tuple(m.name for m in MUSCLES if getattr(m, attribute) == name)
            # A compartment of one muscle (iliopsoas, hip rotators, fibulares) adds no row.
            if len(members) > 1:
                found.append((name, kind, members))
    # The septum between them is often incomplete on MRI (PMID 1917669).
    pair = ("vastus_lateralis", "vastus_intermedius")
    found.append(("vastus_lateralis_and_intermedius", "pair", pair))
    found.append(("limb", "limb", tuple(m.name for m in MUSCLES)))
    # The same muscles under two names (the hamstrings, the back of the thigh) have one limit.
    limits = {members: _GROUP_LIMITS[name] for name, _, members in found if name in _GROUP_LIMITS}
    return tuple(MuscleGroup(*group, limits.get(group[2])) for group in found)


MUSCLES_BY_NAME: Mapping[str, Muscle] = FrozenDict({m.name: m for m in MUSCLES})
MUSCLES_BY_ID: Mapping[int, Muscle] = FrozenDict({m.id: m for m in MUSCLES})
GROUPS: tuple[MuscleGroup, ...] = _groups()


def muscle(key: str | int) -> Muscle:
    """The muscle of a name or of a label id of either side.

    Raises:
        InvariantError: no such muscle.
    """
    if isinstance(key, str):
        found = MUSCLES_BY_NAME.get(key)
    else:
        found = MUSCLES_BY_ID.get(key - LEFT_OFFSET if key > LEFT_OFFSET else key)
    if found is None:
        raise InvariantError(
            "No such muscle in the vocabulary",
            expected="a name or id of pipeline.core.anatomy.MUSCLES",
            found=repr(key),
        )
    return found


@dataclass(frozen=True)
class LabelScheme:
    """What the integers of a label map mean.

    Attributes:
        name: name of the scheme, e.g. "myosymmetry".
        structures: label value -> (structure name, side). Side None: the value says nothing
            about the side (it then comes from geometry). 0 is never listed: not labelled.
        ignored: label values that are known and not used.
    """

    name: str
    structures: Mapping[int, tuple[str, Side | None]]
    ignored: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if 0 in self.structures or 0 in self.ignored:
            raise InvariantError(f"Scheme {self.name!r}: 0 means not labelled and is never mapped")
        unknown = {n for n, _ in self.structures.values()} - STRUCTURE_IDS.keys()
        if unknown:
            raise InvariantError(
                f"Scheme {self.name!r} names structures outside the vocabulary",
                expected="names of muscles, bones or unions of pipeline.core.anatomy",
                found=", ".join(sorted(unknown)),
            )
        object.__setattr__(self, "structures", FrozenDict(dict(self.structures)))

    def value_of(self, name: str, side: Side | None) -> int:
        """The label value of a structure and side.

        Raises:
            InvariantError: the scheme has no such label.
        """
        for value, key in self.structures.items():
            if key == (name, side):
                return value
        raise InvariantError(f"Scheme {self.name!r} has no label for {name} ({side})")


STRUCTURES: tuple[Muscle | Structure, ...] = (*MUSCLES, *BONES, *UNIONS)
STRUCTURE_IDS: Mapping[str, int] = FrozenDict({s.name: s.id for s in STRUCTURES})

#: The project's own ids: right 1-30, 41-47, 51-53; left + 100.
OWN_SCHEME = LabelScheme(
    "myosymmetry",
    {s.id: (s.name, Side.RIGHT) for s in STRUCTURES}
    | {s.id + LEFT_OFFSET: (s.name, Side.LEFT) for s in STRUCTURES},
)

#: One leg in right-leg pose: right ids only, whichever leg it is.
LEG_SCHEME = LabelScheme("leg", {s.id: (s.name, None) for s in STRUCTURES})
