"""Compare: how scans of one person differ from the first of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pipeline.config import CompareConfig
from pipeline.core.anatomy import Side
from pipeline.core.change import (
    Changes,
    ChangeVerdict,
    ComparedScan,
    MuscleChange,
    PointsChange,
    ScanChanges,
    VolumeChange,
)
from pipeline.core.errors import UsageError
from pipeline.core.grid import voxels_described
from pipeline.core.results import (
    T1_BIAS_CORRECTED,
    T1_BIAS_NEGLIGIBLE,
    UNUSUAL_SIZE,
    Asymmetry,
    Compared,
    Finding,
    GroupResult,
    Lead,
    Measurement,
    Measures,
    Severity,
    Status,
    leading,
    on_side,
)
from pipeline.imaging.asymmetry import expected_by_chance
from pipeline.imaging.change import (
    detectable_change,
    judge_change,
    volume_interval_percent,
)
from pipeline.io.discover import PARTICIPANTS
from pipeline.measuring.images import NOISE_FLOORS
from pipeline.provenance import digest_of, digest_of_document

#: Sections of the configuration that decide the numbers.
_DECIDING = ("canonicalise", "separate", "segment", "register", "reconcile", "measure")


def compare(scans: Sequence[Measures], *, config: CompareConfig) -> Changes:
    """Hold every later scan of a person against the first one.

    Whole muscles are compared: the parts that two scans show are not laid onto each other. The
    detectable changes come from the standard errors that each scan states: those of a side for its
    volume, those of the difference for the asymmetry. Lean volumes
    lead where every scan measured them, else total volumes: of lean volumes and fat fractions that
    are estimates of a single contrast nothing is concluded.

    Args:
        scans: published results of one subject, in the order of time; at least two.
        config: what is known of the precision of fat fractions.

    Returns:
        changes of every muscle and group that both scans name, with verdicts, and findings on
        what makes the scans less comparable.

    Raises:
        UsageError: fewer than two scans, different subjects, or one scan given twice.
    """
    _refuse(scans)
    of: Lead = (
        "lean_volume"
        if all(scan.measures.lead == "lean_volume" for scan in scans)
        else "total_volume"
    )
    return Changes(
        subject=scans[0].subject,
        of=of,
        basis=_basis(config),
        scans=tuple(_described(scan, number) for number, scan in enumerate(scans, start=1)),
        later=tuple(
            _later(scans[0], scan, number, of, config)
            for number, scan in enumerate(scans)
            if number > 0
        ),
        findings=tuple(_findings(scans, of, config)),
    )


def _refuse(scans: Sequence[Measures]) -> None:
    if len(scans) < 2:
        raise UsageError(
            "A comparison needs at least two scans",
            expected="results of two sessions or more",
            found=str(len(scans)),
            action="name their folders, e.g. OUT/sub-01/ses-1 OUT/sub-01/ses-2",
        )
    subjects = sorted({scan.subject for scan in scans})
    if len(subjects) > 1:
        raise UsageError(
            "Only scans of one person can be compared",
            expected="results of one subject",
            found=", ".join(subjects),
            action="name folders of the same subject",
        )
    # By content: a copy in another session has another name.
    inputs = [
        digest_of(sorted(v for k, v in scan.provenance.inputs.items() if k != PARTICIPANTS))
        for scan in scans
    ]
    for number, digest in enumerate(inputs):
        if digest in inputs[:number]:
            raise UsageError(
                "One scan is given twice",
                expected="different scans, in the order of time",
                found=f"the same input files in scans {inputs.index(digest) + 1} and {number + 1}",
                action="name each scan once",
            )


def _basis(config: CompareConfig) -> str:
    return (
        "Detectable changes are 95 % limits. Those of volumes come from what both scans state of "
        "how far the volume of a side moves from scan to scan, those of asymmetries from the total "
        "standard errors of the differences, as independent errors of two scans; those of fat "
        "fractions come from the published scan-rescan variation (PMC6240750), which lean volumes "
        "hold too, and are at least "
        f"{config.smallest_fat_fraction_change_points:g} points."
    )


def _described(scan: Measures, number: int) -> ComparedScan:
    return ComparedScan(
        label=scan.session or f"scan {number}",
        session=scan.session,
        results_digest=digest_of_document(scan),
        contrasts=scan.contrasts,
        grid=scan.grid,
        engine=_engine(scan),
        software_version=scan.provenance.software_version,
        code_digest=scan.provenance.code_digest,
    )


def _engine(scan: Measures) -> str:
    return f"{scan.engine.name} {scan.engine.version}"


def _later(
    first: Measures, later: Measures, number: int, of: Lead, config: CompareConfig
) -> ScanChanges:
    withheld = _withheld(first, later)
    noise = _noise_apart(first, later)
    muscles = {m.name: m for m in later.measures.muscles}
    groups = {g.name: g for g in later.measures.groups}
    change = partial(_change, of=of, withheld=withheld, noise=noise, config=config)
    changes = [
        change(m, muscles[m.name], kind="muscle")
        for m in first.measures.muscles
        if m.name in muscles
    ]
    judged = [c for c in changes if _verdicts(c)]
    volumes = sum(len(_verdicts(c)) for c in changes)
    changed = [c for c in judged if any(v is not ChangeVerdict.NONE for v in _verdicts(c))]
    changes += [
        change(g, groups[g.name], kind=g.kind) for g in first.measures.groups if g.name in groups
    ]
    return ScanChanges(
        scan=number,
        changes=tuple(changes),
        muscles_judged=len(judged),
        muscles_changed=len(changed),
        expected_by_chance=expected_by_chance(volumes),
    )


def _verdicts(change: MuscleChange) -> list[ChangeVerdict]:
    return [v.verdict for v in (change.volume_right, change.volume_left) if v.verdict is not None]


def _withheld(first: Measures, later: Measures) -> str | None:
    """Why nothing is concluded from a pair of scans."""
    for which, scan in (("first", first), ("later", later)):
        for finding in scan.findings:
            if finding.severity is Severity.ERROR:
                return f"the {which} scan has an error ({finding.code})"
    return None


def _noise_apart(first: Measures, later: Measures) -> dict[Side, float]:
    """By side, points of fat fraction that noise alone reads as in the later scan more than in the
    first; 0 where it is not known."""
    found = dict.fromkeys(Side, 0.0)
    for side in Side:
        floors = [
            finding.value
            for scan in (first, later)
            for finding in scan.findings
            if finding.code in NOISE_FLOORS and finding.side is side and finding.value is not None
        ]
        if len(floors) == 2:
            found[side] = floors[1] - floors[0]
    return found


def _change(
    first: Compared,
    later: Compared,
    *,
    kind: str,
    of: Lead,
    withheld: str | None,
    noise: Mapping[Side, float],
    config: CompareConfig,
) -> MuscleChange:
    one, two = leading(first, of), leading(later, of)
    members = _different_members(first, later)
    why = withheld or members
    volumes = {
        side: _volume_change(on_side(first, side), on_side(later, side), of, abs(noise[side]), why)
        for side in Side
    }
    fractions = {
        side: _fraction_change(
            on_side(first, side), on_side(later, side), abs(noise[side]), why, config
        )
        for side in Side
    }
    return MuscleChange(
        name=first.name,
        kind=kind,
        volume_right=volumes[Side.RIGHT],
        volume_left=volumes[Side.LEFT],
        fat_fraction_right=fractions[Side.RIGHT],
        fat_fraction_left=fractions[Side.LEFT],
        asymmetry=_asymmetry_change(one, two, abs(noise[Side.RIGHT] - noise[Side.LEFT]), why),
    )


def _different_members(first: Compared, later: Compared) -> str | None:
    """Why the sums of two groups cannot be compared: they are of different muscles."""
    if not isinstance(first, GroupResult) or not isinstance(later, GroupResult):
        return None
    if set(first.muscles_compared) == set(later.muscles_compared):
        return None
    return "the scans do not show the same muscles of this group"


def _volume_change(
    first: Measurement,
    later: Measurement,
    of: Lead,
    noise_points: float,
    withheld: str | None,
) -> VolumeChange:
    before, after = (m.volume_ml(of, "whole") for m in (first, later))
    missing = _unlike(first, later)
    if missing is None and of == "lean_volume":
        missing = _estimated(first, later)
    if missing is None and (not before or not after):
        missing = f"no {of.replace('_', ' ')} in one of the scans"
    error_before, error_after = (_error_of_repeat(m, of) for m in (first, later))
    if missing or not before or not after or error_before is None or error_after is None:
        return VolumeChange(
            before_ml=before,
            after_ml=after,
            change_percent=None,
            interval_low_percent=None,
            interval_high_percent=None,
            detectable_percent=None,
            verdict=None,
            reason=missing or "one of the scans states no standard error for this muscle",
        )
    log_change = math.log(after / before)
    detectable = detectable_change(error_before, error_after)
    if of == "lean_volume":
        # Fat that noise alone gives is missing from the lean volume, in one scan more.
        detectable += noise_points
    low, high = volume_interval_percent(log_change, detectable)
    reason = withheld or _unreliable(first, later)
    return VolumeChange(
        before_ml=before,
        after_ml=after,
        change_percent=100.0 * math.expm1(log_change),
        interval_low_percent=low,
        interval_high_percent=high,
        detectable_percent=detectable,
        verdict=None if reason else judge_change(100.0 * log_change, detectable),
        reason=reason,
    )


def _error_of_repeat(of_side: Measurement, of: Lead) -> float | None:
    """Standard error of 100 ln(volume) of one side from scan to scan."""
    error = of_side.se_repeat_percent
    if error is None or of == "total_volume":
        return error
    return math.hypot(error, of_side.fat_fraction_error_of_lean_percent)


def _fraction_change(
    first: Measurement,
    later: Measurement,
    noise_points: float,
    withheld: str | None,
    config: CompareConfig,
) -> PointsChange:
    """The core's fat fraction where both scans have one: partial volume does not reach it."""
    cores = (first.fat_fraction_core_percent, later.fat_fraction_core_percent)
    means = (first.fat_fraction_percent, later.fat_fraction_percent)
    before, after = means if None in cores else cores
    missing = _unlike(first, later) or _estimated(first, later)
    if missing is None and (before is None or after is None):
        missing = "no fat fraction in one of the scans"
    error_before = first.fat_fraction_se_repeat_points
    error_after = later.fat_fraction_se_repeat_points
    if missing is None and (error_before is None or error_after is None):
        missing = "one of the scans states no standard error of it"
    if before is None or after is None or error_before is None or error_after is None or missing:
        return _no_points(before, after, missing)
    # Near no fat the relative error says nothing about noise and about partial volume with the
    # fat around a muscle.
    floor = config.smallest_fat_fraction_change_points
    detectable = max(floor, detectable_change(error_before, error_after)) + noise_points
    return _points(before, after, detectable, withheld or _unreliable(first, later))


def _asymmetry_change(
    first: Asymmetry, later: Asymmetry, noise_points: float, withheld: str | None
) -> PointsChange:
    before, after = first.index_percent, later.index_percent
    missing = None
    if before is None or after is None:
        missing = "no asymmetry in one of the scans"
    elif first.extent != later.extent:
        missing = (
            f"of the {first.extent} muscle in one scan, of the {later.extent} one in the other"
        )
    if missing is not None or before is None or after is None:
        return _no_points(before, after, missing)
    reason = withheld
    if first.extent == "matched":
        reason = reason or "a part of the muscle was compared, and it may differ between the scans"
    for asymmetry in (first, later):
        if asymmetry.verdict is None:
            reason = reason or asymmetry.reason
    if first.se_total_percent is None or later.se_total_percent is None:
        return _no_points(before, after, reason or "one of the scans states no standard error")
    detectable = detectable_change(first.se_total_percent, later.se_total_percent)
    if first.of == "lean_volume":
        # What noise adds to both sides alike cancels.
        detectable += noise_points
    return _points(before, after, detectable, reason)


def _points(before: float, after: float, detectable: float, reason: str | None) -> PointsChange:
    return PointsChange(
        before_percent=before,
        after_percent=after,
        change_points=after - before,
        detectable_points=detectable,
        verdict=None if reason else judge_change(after - before, detectable),
        reason=reason,
    )


def _no_points(before: float | None, after: float | None, reason: str | None) -> PointsChange:
    return PointsChange(
        before_percent=before,
        after_percent=after,
        change_points=None,
        detectable_points=None,
        verdict=None,
        reason=reason,
    )


def _unlike(first: Measurement, later: Measurement) -> str | None:
    """Why two measurements are not of the same thing."""
    for which, m in (("first", first), ("later", later)):
        if m.status in (Status.ABSENT, Status.TRUNCATED):
            return f"{m.status} in the {which} scan ({m.reason})"
    return None


def _estimated(first: Measurement, later: Measurement) -> str | None:
    """Why two lean volumes or fat fractions cannot be held against each other: one is guessed."""
    for which, m in (("first", first), ("later", later)):
        if m.lean_estimate is not None:
            return f"only estimated in the {which} scan ({m.lean_estimate})"
    return None


def _unreliable(first: Measurement, later: Measurement) -> str | None:
    for which, m in (("first", first), ("later", later)):
        if m.why_doubted is not None:
            return f"unreliable in the {which} scan ({m.why_doubted})"
    return None


def _findings(scans: Sequence[Measures], of: Lead, config: CompareConfig) -> list[Finding]:
    """What differs between the scans besides the body, as warnings."""
    found = [
        _warning(code, f"The scans differ in {what}: {_listed(scans, said)}. {why}")
        for code, what, said, why in _DIFFERENCES
        if len({said(scan) for scan in scans}) > 1
    ]
    settings = _different_settings(scans)
    if settings:
        found.append(
            _warning(
                "configuration_differs",
                f"The scans were measured with different settings ({', '.join(settings)}): "
                "process them again with one configuration.",
            )
        )
    for number, scan in enumerate(scans[1:], start=2):
        cut = _coverage(scans[0], scan)
        if cut:
            found.append(
                _warning(
                    "coverage_differs",
                    f"Scan {number} and the first do not both show the whole of "
                    f"{', '.join(cut)}: these are not compared.",
                    value=float(len(cut)),
                )
            )
        noise = max(map(abs, _noise_apart(scans[0], scan).values()))
        if noise > config.largest_noise_floor_change_points:
            found.append(
                _warning(
                    "noise_differs",
                    f"Noise alone reads as {noise:.1f} points more fat in one of the scans 1 and "
                    f"{number}: detectable changes of fat fractions and lean volumes are wider by "
                    "that.",
                    value=noise,
                    unit="points",
                )
            )
    lean = {_lean(scan) for scan in scans}
    if of == "total_volume" and lean != {_NO_LEAN}:
        found.append(
            _warning(
                "lean_volume_missing",
                f"Total volumes are compared, since not every scan measured lean volumes "
                f"({_listed(scans, _lean)}).",
            )
        )
    return found


_NO_LEAN = "none"


def _lean(scan: Measures) -> str:
    """What a scan says of lean volume."""
    if scan.measures.lead == "lean_volume":
        return "measured"
    sides = [on_side(m, side) for m in scan.measures.muscles for side in Side]
    return "estimated" if any(s.lean_estimate for s in sides) else _NO_LEAN


def _warning(
    code: str, message: str, *, value: float | None = None, unit: str = "muscles"
) -> Finding:
    return Finding(
        code=code,
        severity=Severity.WARNING,
        stage="compare",
        message=message,
        value=value,
        unit=None if value is None else unit,
    )


def _fat_correction(scan: Measures) -> str:
    """Whether the T1 bias of fat fractions is gone: corrected, or none to speak of."""
    codes = {finding.code for finding in scan.findings}
    return "yes" if codes & {T1_BIAS_CORRECTED, T1_BIAS_NEGLIGIBLE} else "no"


def _caveats(scan: Measures) -> str:
    """Codes of what may fake a difference between the sides, and so a change, in one scan."""
    codes = sorted(code.replace("_", " ") for code in scan.measures.caveats)
    return ", ".join(codes) or "nothing"


def _body_size(scan: Measures) -> str:
    """Size at which the legs were read, against an adult's."""
    sizes = [f.value for f in scan.findings if f.code == UNUSUAL_SIZE and f.value is not None]
    return f"{sizes[0]:g}" if sizes else "1"


def _voxels(scan: Measures) -> str:
    """Size of the voxels; shapes differ by a slice or two between sessions and do not matter."""
    return voxels_described(scan.grid)


#: Code, what differs, how a scan says it, and what follows from a difference.
_DIFFERENCES: tuple[tuple[str, str, Callable[[Measures], str], str], ...] = (
    (
        "protocol_differs",
        "their contrasts",
        lambda scan: ", ".join(sorted(scan.contrasts)) or "none",
        "Detectable changes hold for one protocol.",
    ),
    (
        "scanner_differs",
        "field strength, repetition time or flip angle",
        lambda scan: scan.describe_scanner_settings() or "not stated",
        "The contrast of water and fat changes with them, and so can fat fractions and borders.",
    ),
    (
        "grid_differs",
        "the size of their voxels",
        _voxels,
        "Detectable changes hold for one grid; partial volume alone can shift volumes by percents.",
    ),
    (
        "fat_correction_differs",
        "whether fat fractions were corrected for their T1 bias",
        _fat_correction,
        "Fat fractions and lean volumes change by that alone.",
    ),
    (
        "body_size_differs",
        "the size, against an adult's, at which the network read the legs",
        _body_size,
        "Borders between muscles can shift by that alone.",
    ),
    (
        "caveats_differ",
        "what besides the body may fake a difference",
        _caveats,
        "A change can come from that alone: see the findings of each scan.",
    ),
    (
        "engine_differs",
        "what made their labels",
        _engine,
        "Changes may be those of the labels.",
    ),
    (
        "software_differs",
        "the version of this program",
        lambda scan: f"{scan.provenance.software_version} (code {scan.provenance.code_digest[:8]})",
        "Process them again with one version.",
    ),
)


def _listed(scans: Sequence[Measures], said: Callable[[Measures], str]) -> str:
    return "; ".join(
        f"{scan.session or f'scan {number}'}: {said(scan)}"
        for number, scan in enumerate(scans, start=1)
    )


def _different_settings(scans: Sequence[Measures]) -> list[str]:
    """Keys of the deciding sections whose values differ, e.g. measure.profile_step_mm."""
    flat = [
        {
            f"{section}.{key}": value
            for section in _DECIDING
            for key, value in _mapping(scan.provenance.configuration.get(section)).items()
        }
        for scan in scans
    ]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    return [key for key in keys if any(s.get(key) != flat[0].get(key) for s in flat[1:])]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _coverage(first: Measures, later: Measures) -> list[str]:
    """Muscles that one scan shows whole and the other does not."""
    whole = [
        {
            (m.name, side)
            for m in scan.measures.muscles
            for side in Side
            if on_side(m, side).volume_whole_ml is not None
        }
        for scan in (first, later)
    ]
    return [
        m.name.replace("_", " ")
        for m in first.measures.muscles
        if any(((m.name, side) in whole[0]) != ((m.name, side) in whole[1]) for side in Side)
    ]
