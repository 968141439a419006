"""How it was measured, in sentences that say what was run on this scan, and on what they rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.frozen import FrozenDict
from pipeline.core.results import (
    CONSENSUS,
    STATIONS_JOINED,
    SWAP_CORRECTED,
    T1_BIAS_CORRECTED,
    T1_BIAS_LEFT,
    T1_BIAS_NEGLIGIBLE,
    T1_BIAS_UNKNOWN,
    Finding,
    Lead,
    Measures,
)
from pipeline.core.volume import Quantity
from pipeline.report import words

#: What became of the T1 bias of the fat fraction, by the code of the finding that says so.
_T1_BIAS: Mapping[str, str] = FrozenDict(
    {
        T1_BIAS_CORRECTED: "with the gain g of fat over water that the T1 of both gives at this "
        "repetition time and flip angle, it is fat / (fat + g water)",
        T1_BIAS_NEGLIGIBLE: "it is fat / (fat + water); its T1 bias is small and was left",
        T1_BIAS_LEFT: "it is fat / (fat + water); its T1 bias is known and was left "
        "(configuration)",
        T1_BIAS_UNKNOWN: "it is fat / (fat + water); its T1 bias is not known and was not "
        "corrected",
    }
)

_FORMULAS = (
    "Bishop et al. Strength and Conditioning Journal 2016, doi 10.1519/SSC.0000000000000264 "
    "(formulas of asymmetry; there is no consensus)."
)
_COUNTING = (
    "Gundersen and Jensen, Journal of Microscopy 1987;147:229 (error of a few slices that stand "
    "for the whole)."
)
_LIMITS = (
    "Journal of Orthopaedic Research 2018;36:963 (side differences of thigh muscle volume in "
    "healthy young adults)."
)
_LIMITS_OF_FEW = (
    "Bland and Altman, Lancet 1986;327:307 (limits of agreement and how sure they are)."
)
_EXPECTED = (
    "Handsfield et al. Journal of Biomechanics 2014;47:631 (muscle volumes by height and mass)."
)


@dataclass(frozen=True)
class Methods:
    """What was done.

    Attributes:
        paragraphs: in the order of the work.
        expected: where expected volumes come from; None where there are none.
        references: what the paragraphs rest on.
    """

    paragraphs: tuple[str, ...]
    expected: str | None
    references: tuple[str, ...]


def methods_of(measures: Measures, lead: Lead) -> Methods:
    """The methods of this run, told from its findings, its configuration and its results."""
    found = {finding.code: finding for finding in measures.findings}
    own = _OwnCohort(measures)
    expected = _expected(measures, own)
    references = [_FORMULAS]
    if not measures.measures.looked_at_again:
        references.append(_COUNTING)
    if own.published_limits:
        references.append(_LIMITS)
    if own.any_limit:
        references.append(_LIMITS_OF_FEW)
    if expected is not None and own.published_volumes:
        references.append(_EXPECTED)
    paragraphs = (
        _images(measures, found),
        _lean(measures, found),
        "The difference between the sides is 100 (R \N{MINUS SIGN} L) / ((R + L) / 2) percent "
        f"(Bishop et al. 2016), first of {lead.replace('_', ' ')}. It is of the whole muscle where "
        "both sides are whole; otherwise only of the part that both legs show, and it is said so.",
        _registration(measures),
        f"{measures.interval_basis} “Within measurement error” means that the interval includes no "
        "difference at all.",
        own.limits(),
    )
    return Methods(tuple(p for p in paragraphs if p), expected, tuple(references))


def _images(measures: Measures, found: Mapping[str, Finding]) -> str:
    engine, settings = measures.engine, measures.describe_scanner_settings()
    said = [
        f"Images: {', '.join(measures.contrasts) or 'none, labels alone'}; {measures.grid}.",
        *([f"Scanner settings, as the files state them: {settings}."] if settings else []),
        f"Muscle labels: engine “{engine.name}”, version {engine.version}.",
        "The sides rest on: "
        f"{'; '.join(measures.side_evidence) or 'nothing that could be checked'}.",
    ]
    joined = found.get(STATIONS_JOINED)
    if joined is not None:
        count = "The" if joined.value is None else f"{joined.value:.0f}"
        said.append(
            f"{count} stations were joined on one grid; one whose voxels do not lie on that grid "
            "was interpolated linearly, and where two overlap they were blended."
        )
    if SWAP_CORRECTED in found:
        said.append(
            "Where water and fat were exchanged in a leg they were exchanged back (see the "
            "findings)."
        )
    said.append(
        "The left leg was mirrored into the pose of a right leg before any step, so both went "
        "through the same steps; each was measured on the voxels "
        + (
            "of the joined grid, and not resampled again."
            if joined is not None
            else "of the scan itself, without resampling."
        )
    )
    if CONSENSUS in found:
        said.append(
            "What was measured is a consensus of the labels of both legs, carried over by the "
            "registration (configuration): it hides a part of a true difference, and no "
            "difference gets a verdict."
        )
    return " ".join(said)


def _lean(measures: Measures, found: Mapping[str, Finding]) -> str | None:
    """Where fat fraction and lean volume come from; None where there are none."""
    sides = [side for m in measures.measures.muscles for side in (m.right, m.left)]
    if all(side.lean_volume_in_view_ml is None for side in sides):
        return None
    said = []
    estimates = sorted({side.lean_estimate for side in sides if side.lean_estimate is not None})
    if estimates:
        se = _configured(measures, "measure").get("lean_estimate_se_percent")
        said.append(f"Water and fat were not both measured: {'; '.join(estimates)}.")
        said.append(
            "Its differences get no verdict"
            + ("." if se is None else f"; {se:g} % is added to their standard error.")
        )
    elif {Quantity.WATER, Quantity.FAT} <= set(measures.contrasts):
        bias = next((text for code, text in _T1_BIAS.items() if code in found), None)
        said.append(f"The fat fraction of a voxel: {bias or 'it is fat / (fat + water)'}.")
    elif Quantity.FAT_FRACTION in measures.contrasts:
        said.append("The fat fraction was taken as given, from a map made elsewhere.")
    said.append(
        "Lean volume is the sum of voxel volume × (1 \N{MINUS SIGN} fat fraction); voxels without "
        "a valid fat fraction are missing, not lean, and count with the mean of their muscle."
    )
    return " ".join(said)


def _registration(measures: Measures) -> str:
    quality = measures.registration
    if not quality.succeeded:
        reason = f" ({quality.reason})" if quality.reason else ""
        return (
            f"Laying the mirrored left leg onto the right one failed{reason}: what rests on it, "
            "parts that both legs show and differences along a muscle, is withheld."
        )
    image = quality.similar_image
    judged = f" and judged on the {words.image_title(image)} image" if image else ""
    return (
        "The mirrored left leg was laid onto the right one: thigh and shank as rigid bodies that "
        "bend at the knee, then affinely, then by a smooth deformation in which both legs meet "
        f"half-way, led by the borders of labels and tissue{judged}. It only says which points "
        "correspond: for the part that both legs show, for levels along a muscle, and for how far "
        "the labels of both sides agree."
    )


def _expected(measures: Measures, own: _OwnCohort) -> str | None:
    if all(m.expected_volume_ml is None for m in measures.measures.muscles):
        return None
    cohort = "the regression of your own cohort (configuration)"
    published = (
        "a published regression (Handsfield et al. 2014), which was published without a spread"
    )
    source = published
    if own.own_volumes:
        listed = ", ".join(words.muscle_title(name).lower() for name in own.own_volumes)
        source = f"{cohort} for all muscles"
        if own.published_volumes:
            source = f"{cohort} for {listed}, for the others {published}"
    return (
        f"Expected volumes for height and mass follow {source}. A muscle that is larger or smaller "
        "is not abnormal by that, and no verdict is drawn from it."
    )


class _OwnCohort:
    """Which limits and volumes are the user's own, and which are published."""

    def __init__(self, measures: Measures) -> None:
        section = _configured(measures, "measure")
        limb = measures.measures
        limited = [row for row in limb.compared if row.healthy_limit_percent is not None]
        own_limits = section.get("own_limits_percent", {})
        self._own = sum(r.name in own_limits for r in limited)
        self._people = sorted(
            {
                r.healthy_limit_people
                for r in limited
                if r.healthy_limit_people is not None and r.name not in own_limits
            }
        )
        self.any_limit = bool(limited)
        self.published_limits = self._own < len(limited)
        expected = [m.name for m in limb.muscles if m.expected_volume_ml is not None]
        own_volumes = section.get("own_expected_volumes_ml", {})
        self.own_volumes = [name for name in expected if name in own_volumes]
        self.published_volumes = len(self.own_volumes) < len(expected)

    def limits(self) -> str | None:
        """Where healthy limits come from and how sure they are; None where there are none."""
        if not self.any_limit:
            return None
        said = []
        if self.published_limits:
            people = " or ".join(str(count) for count in self._people)
            said.append(
                "Healthy limits are published 95 % limits of agreement of total volume between "
                f"the sides in {people} healthy young adults (J Orthop Res 2018;36:963)."
                if people
                else "Healthy limits are published 95 % limits of agreement of total volume "
                "between the sides."
            )
        if self._own:
            said.append(
                f"{self._own} limits are of your own cohort (configuration), in place of "
                "published ones or where there are none."
                if self.published_limits
                else "Healthy limits are those of your own cohort (configuration)."
            )
        said.append(
            "They are applied to total volume; what has no limit gets no such verdict. A limit of "
            "few people is itself unsure: “itself” gives the half width of its 95 % interval, "
            "from the number of people alone (Bland and Altman 1986). Verdicts take the limit as "
            "it stands."
        )
        return " ".join(said)


def _configured(measures: Measures, section: str) -> Mapping[str, Any]:
    found = measures.provenance.configuration.get(section, {})
    return found if isinstance(found, Mapping) else {}
