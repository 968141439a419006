"""What a DICOM image shows, by rules that the configuration holds vendor by vendor."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pydicom

from pipeline.config import ContrastRule
from pipeline.core.scan import FAT_SHIFT_HZ_PER_T
from pipeline.core.volume import Quantity

#: Rules by a pattern of the manufacturer's name, and the user's own, which come first.
ContrastRules = Sequence[tuple[str, Sequence[ContrastRule]]]

#: Parts of ImageType of images that are no magnitudes of a whole slice, and what they are.
_NO_MAGNITUDE: Mapping[str, str] = {
    **dict.fromkeys(("localizer", "scout", "survey"), "a localiser"),
    **dict.fromkeys(("p", "phase", "phase map", "phase_map", "b0 map"), "a phase image"),
    **dict.fromkeys(("r", "real", "i", "imaginary"), "a real or imaginary part"),
    **dict.fromkeys(("mip", "min_ip", "projection image", "mpr"), "a projection or reformat"),
    **dict.fromkeys(("csa report", "screen save", "report"), "a derived report"),
    **dict.fromkeys(("r2star", "r2_star", "r2*", "t2star", "t2_star", "t2*"), "a relaxation map"),
    **dict.fromkeys(
        (f"{what}{by}map" for what in ("t1", "t2", "r1", "r2", "r2_star") for by in " _"),
        "a relaxation map",
    ),
    **dict.fromkeys(("adc", "adc_unspecified", "adc map", "adc_map"), "a map of diffusion"),
    **dict.fromkeys(("sub", "subtract", "subtraction"), "a difference of two images"),
}
#: Philips joins what a part shows to its technique: SW_P, P_FFE.
_PHASE_PART = re.compile(r"^(sw_p|(sw_)?p_(ffe|se|ir))$")
_LOCALISER_NAME = re.compile(r"\b(locali[sz]er|loc|scout|survey)\b")
_MAP_NAME = re.compile(r"\b[rt]2 ?star\b|[rt]2\*|\b[rt][12] ?map(s|ping)?\b")
#: How sure a map is, spectra and navigators are named after what they are of.
_NO_IMAGE_NAME = re.compile(
    r"\b(error|stdev|(ff|pdff|fraction) std|navigator|svs|spectro\w*|water ?frac\w*)\b"
)
#: Techniques against fat or water say nothing of what an image shows.
_SUPPRESSED = re.compile(r"\b(fat|water) ?(sat|sup|exc|sel|free)\w*\b")
#: Names of Dixon sequences; only beside one do bare echo times or single letters count.
_DIXON = re.compile(r"dixon|ideal|flex|lava|vibe|star ?map|quant|wfi|wfs|quick ?3d")
#: A phase of water against fat within this share of a turn counts as in or opposed.
_PHASE_TOLERANCE = 0.12


@dataclass(frozen=True)
class ImageFacts:
    """What a header says of one image that bears on its contrast.

    Attributes:
        vendor: the manufacturer's name, lower case.
        image_type: parts of ImageType (and FrameType) from the third on, lower case.
        names: series description and protocol, lower case, words parted by single blanks;
            never shown to anyone.
        echo_ms: echo time; None: not stated.
        field_t: field strength; None: not stated.
    """

    vendor: str
    image_type: tuple[str, ...]
    names: tuple[str, ...]
    echo_ms: float | None
    field_t: float | None

    @classmethod
    def of(cls, header: pydicom.Dataset, frame: pydicom.Dataset | None = None) -> ImageFacts:
        """The facts of a file, or of one frame of it, whose own type then counts."""
        stated = header.get("ImageType")
        if frame is not None and frame.get("FrameType"):
            stated = frame.FrameType
        parts = [stated] if isinstance(stated, str) else list(stated or ())
        echo = frame.get("EffectiveEchoTime") if frame is not None else None
        return cls(
            vendor=str(header.get("Manufacturer") or "").lower(),
            image_type=tuple(str(part).strip().lower() for part in parts[2:]),
            names=tuple(
                re.sub(r"[^a-z0-9*]+", " ", str(header.get(key) or "").lower()).strip()
                for key in ("SeriesDescription", "ProtocolName")
            ),
            echo_ms=number(echo if echo is not None else header.get("EchoTime")),
            field_t=number(header.get("MagneticFieldStrength")),
        )


def number(value: object) -> float | None:
    """A value of a header as a finite number; None for anything else."""
    try:
        stated = float(str(value))
    except ValueError:
        return None
    return stated if math.isfinite(stated) else None


def no_image_reason(facts: ImageFacts) -> str | None:
    """Why an image is none of the body's own signal, in words; None where it may be."""
    for part in facts.image_type:
        if part in _NO_MAGNITUDE:
            return _NO_MAGNITUDE[part]
        if _PHASE_PART.search(part):
            return "a phase image"
    if _LOCALISER_NAME.search(facts.names[0]):
        return "a localiser"
    if _NO_IMAGE_NAME.search(facts.names[0]):
        return "an error, a water fraction, a spectrum or a navigator"
    return "a relaxation map" if _MAP_NAME.search(facts.names[0]) else None


@dataclass(frozen=True)
class Contrast:
    """What an image shows, and by what.

    Attributes:
        told_by: words of the rule that says so; nothing of the header but what the rule names.
    """

    shows: Quantity
    told_by: str


def contrast_of(facts: ImageFacts, rules: ContrastRules) -> Contrast | None:
    """What an image shows; None if unknown.

    ImageType is asked first, by the rules in order; then the series' name; then, for a Dixon
    series that names no contrast, the phase of water against fat at its echo time.
    """
    mine = [
        (rule, f"rule {place} of {repr(vendor) if vendor else 'every vendor'}")
        for vendor, some in rules
        if re.search(vendor, facts.vendor)
        for place, rule in enumerate(some, start=1)
    ]
    for rule, where in mine:
        words = sorted(rule.image_type.intersection(facts.image_type))
        if words:
            return Contrast(Quantity(rule.shows), f"ImageType {words[0]} ({where})")
    for name in facts.names:
        named = _SUPPRESSED.sub(" ", name)
        dixon = _DIXON.search(named) is not None
        last = named.split()[-1] if named.split() else ""
        for rule, where in mine:
            # A Dixon sequence without a stated contrast may be any of its images.
            vague = dixon and Quantity(rule.shows) is Quantity.T1W
            if rule.name and not vague and re.search(rule.name, named):
                return Contrast(Quantity(rule.shows), f"the series' name ({where})")
            if dixon and last in rule.last_word:
                return Contrast(
                    Quantity(rule.shows), f"the last word {last} of the series' name ({where})"
                )
        if dixon:
            return _by_echo(facts)
    return None


def _by_echo(facts: ImageFacts) -> Contrast | None:
    """In or opposed phase, from echo time and field strength."""
    if not facts.echo_ms or not facts.field_t:
        return None
    turns = facts.echo_ms * 1e-3 * FAT_SHIFT_HZ_PER_T * facts.field_t
    off = abs(turns - round(turns))
    told_by = f"the echo time, {facts.echo_ms:g} ms at {facts.field_t:g} T"
    if off < _PHASE_TOLERANCE:
        return Contrast(Quantity.IN_PHASE, told_by)
    return Contrast(Quantity.OPPOSED_PHASE, told_by) if off > 0.5 - _PHASE_TOLERANCE else None
