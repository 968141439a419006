"""What headers state of an acquisition: the T1 bias of fat fractions, and what fakes a difference.

Findings here do not rest on the images. Those that name a cause of a difference between the legs
become caveats of every asymmetry (docs/decisions/0007-caveats-beside-verdicts.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import CanonicaliseConfig
from pipeline.core.grid import Grid
from pipeline.core.results import (
    T1_BIAS_CORRECTED,
    T1_BIAS_LEFT,
    T1_BIAS_NEGLIGIBLE,
    T1_BIAS_UNKNOWN,
    Finding,
    Severity,
)
from pipeline.core.scan import FAT_SHIFT_HZ_PER_T, LoadedSubject, ScanSettings
from pipeline.core.volume import Quantity
from pipeline.imaging.spoiled_echo import fat_gain, signal_fraction

#: Images of one station and of neighbours agree in the gain of fat to rounding of their headers.
_SAME_GAIN = 0.01
#: The T1 bias is told at this fat fraction: that of a muscle with some fat.
_TOLD_AT = 0.1
#: Nearer than 45 degrees to left-right, an axis runs across the legs.
_ACROSS_COSINE = 0.7071


def gain_of_fat(subject: LoadedSubject, config: CanonicaliseConfig) -> tuple[float, Finding]:
    """How much brighter fat is than as much water, by which fat fractions are corrected.

    Args:
        subject: its settings of the water and fat images are used.
        config: T1 of muscle and fat by field strength, and whether to correct.

    Returns:
        the gain (spoiled_echo.py), 1 where nothing is corrected, and what is said of it.
    """
    settings = [one for q in (Quantity.WATER, Quantity.FAT) for one in subject.settings.get(q, ())]
    lacking = {words for one in settings or [ScanSettings()] for words in _lacking(one)}
    if lacking:
        not_stated = f"not stated: {', '.join(sorted(lacking))}"
        return 1.0, unknown_gain(not_stated)
    gains = [_gain(one, config) for one in settings]
    known = [gain for gain in gains if gain is not None]
    if len(known) < len(gains):
        fields = sorted({f"{one.field_t:g} T" for one in settings})
        why = f"the T1 of muscle and fat at {', '.join(fields)} is not in the configuration"
        return 1.0, unknown_gain(why)
    if max(known) > (1.0 + _SAME_GAIN) * min(known):
        return 1.0, unknown_gain("the images differ in their settings")
    gain, one = known[0], settings[0]
    points = 100.0 * (signal_fraction(_TOLD_AT, gain) - _TOLD_AT)
    how = f"repetition time {one.repetition_ms:g} ms, flip angle {one.flip_deg:g} degrees, "
    how += f"{one.field_t:g} T"
    if abs(points) < config.smallest_t1_bias_points:
        return 1.0, _t1_note(T1_BIAS_NEGLIGIBLE, how, points)
    if not config.correct_t1_bias:
        return 1.0, _t1_note(T1_BIAS_LEFT, how, points)
    return gain, _t1_note(T1_BIAS_CORRECTED, how, points)


def unknown_gain(why: str) -> Finding:
    """That fat fractions are not corrected for their T1 bias, for it is not known."""
    return _t1_note(T1_BIAS_UNKNOWN, why, None)


def _lacking(one: ScanSettings) -> list[str]:
    """What must be known of an image to know its T1 bias, and is not."""
    return [
        words
        for words, known in (
            ("field strength", one.field_t is not None),
            ("repetition time", one.repetition_ms is not None),
            ("flip angle", one.flip_deg is not None and one.flip_deg <= 90.0),
            ("that it is a spoiled gradient echo", one.gradient_echo is True),
        )
        if not known
    ]


def _gain(one: ScanSettings, config: CanonicaliseConfig) -> float | None:
    """The gain of fat over water of an image; None where no T1 is known at its field strength."""
    assert one.field_t is not None
    assert one.repetition_ms is not None
    assert one.flip_deg is not None
    for t1 in config.t1_by_field:
        if abs(one.field_t - t1.field_t) <= config.same_field_t:
            return fat_gain(
                t1.muscle_ms, t1.fat_ms, repetition_ms=one.repetition_ms, flip_deg=one.flip_deg
            )
    return None


def _t1_note(code: str, how: str, points: float | None) -> Finding:
    reads = "" if points is None else f"{100.0 * _TOLD_AT + points:.1f} %"
    true = f"{100.0 * _TOLD_AT:g} %"
    messages = {
        T1_BIAS_UNKNOWN: "The T1 bias of fat fractions was not corrected, for it is not known "
        f"({how}). At large flip angles they read too high, on both sides alike.",
        T1_BIAS_NEGLIGIBLE: f"The T1 bias of fat fractions is small ({how}: a true {true} "
        f"reads as {reads}) and was left.",
        T1_BIAS_LEFT: f"Fat fractions read too high by their T1 bias ({how}: a true {true} "
        f"reads as {reads}); the configuration leaves them so.",
        T1_BIAS_CORRECTED: f"Fat fractions were corrected for their T1 bias ({how}): in the "
        f"images a true {true} reads as {reads}.",
    }
    return Finding(
        code=code,
        severity=Severity.INFO,
        stage="canonicalise",
        message=messages[code],
        value=points,
        unit=None if points is None else f"points at a fat fraction of {true}",
    )


def acquisition_doubts(
    subject: LoadedSubject, grid: Grid, config: CanonicaliseConfig
) -> list[Finding]:
    """What of the acquisition alone can make the legs differ, as far as headers state it.

    Args:
        subject: its settings are looked at.
        grid: canonical grid of the images.
        config: the largest chemical shift that is passed over.
    """
    settings = [one for stated in subject.settings.values() for one in stated]
    return [*_distortion(settings), *_chemical_shift(subject, grid, config)]


def _distortion(settings: Sequence[ScanSettings]) -> list[Finding]:
    if all(one.distortion_corrected is not False for one in settings):
        return []
    return [
        Finding(
            code="distortion_not_corrected",
            severity=Severity.WARNING,
            stage="canonicalise",
            message="The scanner did not correct the distortion of its gradients. Far from the "
            "centre of the magnet muscles look larger or smaller than they are, and the side that "
            "lay further away more so: this alone can make the legs differ. Export the images "
            "with distortion correction.",
        )
    ]


def _chemical_shift(
    subject: LoadedSubject, grid: Grid, config: CanonicaliseConfig
) -> list[Finding]:
    """Fat moved against water across the legs: outwards in the one, inwards in the other."""
    most = 0.0
    for quantity, stated in subject.settings.items():
        # No fat is seen in a water image alone.
        if quantity is Quantity.WATER and Quantity.FAT not in subject.settings:
            continue
        for one in stated:
            if _across_the_legs(one) and one.field_t and one.bandwidth_hz:
                most = max(most, FAT_SHIFT_HZ_PER_T * one.field_t / one.bandwidth_hz)
    shift_mm = most * grid.voxel_sizes_mm[0]
    if shift_mm <= config.largest_chemical_shift_mm:
        return []
    return [
        Finding(
            code="chemical_shift_across_legs",
            severity=Severity.WARNING,
            stage="canonicalise",
            message=f"The frequency was encoded across the legs, which moves fat sideways against "
            f"water by {shift_mm:.1f} mm ({most:.1f} pixels): towards the outside of one leg and "
            "the inside of the other. This alone can make muscles that border on fat differ.",
            value=shift_mm,
            threshold=config.largest_chemical_shift_mm,
            unit="mm",
        )
    ]


def _across_the_legs(one: ScanSettings) -> bool:
    return one.frequency_axis is not None and abs(one.frequency_axis[0]) >= _ACROSS_COSINE


def not_stated(settings: Sequence[ScanSettings]) -> list[Finding]:
    """What the headers do not state, so that its part in a difference cannot be told."""
    stated = list(settings) or [ScanSettings()]
    lacking = [
        words
        for words, known in (
            (
                "whether the distortion of the gradients was corrected",
                all(one.distortion_corrected is not None for one in stated),
            ),
            ("where in the magnet the body lay", all(one.from_isocentre for one in stated)),
            (
                "how far fat is shifted against water, and which way",
                all(one.frequency_axis and one.field_t and one.bandwidth_hz for one in stated),
            ),
        )
        if not known
    ]
    if not lacking:
        return []
    return [
        Finding(
            code="acquisition_not_stated",
            severity=Severity.INFO,
            stage="canonicalise",
            message="The headers do not say, so that it was not checked as a cause of a "
            f"difference: {'; '.join(lacking)}.",
            value=float(len(lacking)),
            unit="of 3 causes",
        )
    ]
