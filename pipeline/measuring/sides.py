"""The raw values of both sides as measurements: status, whole, in view and matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import UNIONS, Side
from pipeline.core.match import LegMatch
from pipeline.core.results import Measurement, Status
from pipeline.imaging.asymmetry import se_of_repeat
from pipeline.imaging.extent import End
from pipeline.imaging.local_difference import going_on
from pipeline.measuring.one_leg import RawStructure


@dataclass(frozen=True)
class BrokenEnd:
    """An end of a structure that is none of a muscle's, held against the other side.

    Attributes:
        side: where it is.
        end: which end.
        z_mm: height of its last level.
        area_share: its last cross-section as a share of its largest.
        going_on: how much of that the other side goes on with beyond the matched level.
    """

    side: Side
    end: End
    z_mm: float
    area_share: float
    going_on: float

    def describe(self) -> str:
        """Where it ends, and what is wrong with that."""
        return (
            f"end at z = {self.z_mm:.0f} mm (its {self.end} end) with {100 * self.area_share:.0f} "
            f"% of its largest cross-section, where the {self.side.other} side goes on with "
            f"{100 * self.going_on:.0f} % of that"
        )


class Sides:
    """Turns the raw values of both sides into measurements that know each other."""

    def __init__(
        self,
        right: Mapping[str, RawStructure],
        left: Mapping[str, RawStructure],
        match: LegMatch,
        config: MeasureConfig,
    ) -> None:
        self._raw = {Side.RIGHT: right, Side.LEFT: left}
        self._outside = match.outside_share if match.succeeded else {}
        self._config = config

    def measurements(self, name: str) -> tuple[Measurement, Measurement]:
        """Right and left measurement of a structure."""
        both_whole = all(name in raw and raw[name].extent.cut is None for raw in self._raw.values())
        right, left = (
            self._measurement(name, side, both_whole=both_whole) for side in (Side.RIGHT, Side.LEFT)
        )
        return right, left

    def broken_ends(self, name: str) -> tuple[BrokenEnd, ...]:
        """Ends of a structure at which its labels break off while the other side goes on.

        The images go on there, so that the field of view does not cut it. Whether labels are
        missing or the muscle ends (torn, or taken by a surgeon) cannot be told from labels.
        """
        found = []
        for side, structures in self._raw.items():
            own, other = structures.get(name), self._raw[side.other].get(name)
            if own is None or other is None or own.course is None or other.course is None:
                continue
            for end, area_share in own.extent.blunt.items():
                step = self._config.broken_off_step_mm
                share = going_on(own.course, other.course, end, step_mm=step)
                if share > self._config.broken_off_share:
                    found.append(BrokenEnd(side, end, own.ends_mm[end], area_share, share))
        return tuple(found)

    def _measurement(self, name: str, side: Side, *, both_whole: bool) -> Measurement:
        raw = self._raw[side].get(name)
        if raw is None:
            return absent(self._absent_reason(name, side))
        confidence = self._confidence(name, raw)
        doubts = "; ".join(self._doubts(name, side, confidence)) or None
        status = Status.OK if doubts is None else Status.UNRELIABLE
        if raw.extent.cut is not None:
            status = Status.TRUNCATED
        view = raw.in_view
        whole = raw.extent.cut is None
        # A muscle that is whole on both sides is matched in full: the levels of its ends are
        # its own anatomy, not the field of view's.
        matched = view if both_whole else raw.matched
        other = self._raw[side.other].get(name)
        if other is None or matched is None or matched.volume_ml <= 0:
            matched = None
        if not both_whole and other is not None and other.matched is None:
            matched = None
        # Levels are matched: of one that is cut along its length, no part is known to be shown.
        if any(name in own and own[name].extent.cut_aside for own in self._raw.values()):
            matched = None
        cut: tuple[float | None, float | None] = (None, None)
        if matched is not None:
            cut = (0.0, 0.0) if both_whole else raw.cut_mm2
        looks = None if raw.confidence is None else raw.confidence.volume_ratios
        cv = self._config.scan_rescan_cv_percent / 100.0
        lean_reason = raw.lean_reason
        if lean_reason is None and view.fat_fraction is None:
            lean_reason = "no voxel of the muscle has a defined fat fraction"
        return Measurement(
            status=status,
            reason="; ".join(filter(None, (doubts, raw.extent.cut))) or None,
            doubt=doubts if status is Status.TRUNCATED else None,
            volume_whole_ml=view.volume_ml if whole else None,
            volume_in_view_ml=view.volume_ml,
            volume_matched_ml=matched.volume_ml if matched else None,
            lean_volume_whole_ml=view.lean_ml if whole else None,
            lean_volume_in_view_ml=view.lean_ml,
            lean_volume_matched_ml=matched.lean_ml if matched else None,
            lean_volume_core_ml=view.lean_core_ml,
            fat_free_volume_in_view_ml=view.fat_free_ml,
            fat_volume_in_view_ml=view.fat_ml,
            fat_fraction_percent=_percent(view.fat_fraction),
            fat_fraction_core_percent=_percent(view.core_fat_fraction),
            lean_reason=lean_reason,
            lean_estimate=raw.lean_estimate,
            valid_share=view.valid_share,
            matched_share=min(matched.volume_ml / view.volume_ml, 1.0) if matched else None,
            length_mm=raw.length_mm,
            area_max_mm2=max(point.area_mm2 for point in raw.profile),
            matched_cut_upper_mm2=cut[0],
            matched_cut_lower_mm2=cut[1],
            counting_se_percent=100.0 * raw.counting_se,
            se_repeat_percent=100.0 * se_of_repeat(looks, cv, raw.counting_se),
            fat_fraction_se_repeat_points=fat_fraction_error(
                _percent(view.fat_fraction), raw.lean_estimate, self._config
            ),
            confidence=confidence,
            repeat_volume_ratios=looks,
            profile=raw.profile,
        )

    def _confidence(self, name: str, raw: RawStructure) -> float | None:
        """What the engine states, lowered the same on both sides where their labels disagree."""
        if raw.confidence is None:
            return None
        usual = self._config.usual_outside_share
        inside = 1.0 - max(self._outside.get(name, 0.0), usual)
        return raw.confidence.agreement * inside / (1.0 - usual)

    def _doubts(self, name: str, side: Side, confidence: float | None) -> list[str]:
        """Why nothing may rest on what was measured of a structure."""
        raw, config = self._raw[side][name], self._config
        if raw.swap is not None:
            return [raw.swap]
        reasons = []
        if confidence is not None and confidence < config.lowest_confidence:
            reasons.append(
                f"confidence {confidence:.2f} of the segmentation is below "
                f"{config.lowest_confidence:.2f}"
            )
        outside = self._outside.get(name, 0.0)
        if outside > config.largest_outside_share:
            reasons.append(
                f"left and right labels disagree: {100 * outside:.0f} % of the smaller one lies "
                "outside the other when carried over "
                f"(limit {100 * config.largest_outside_share:.0f} %)"
            )
        valid = raw.in_view.valid_share
        if valid is not None and 1.0 - valid > config.largest_invalid_share:
            reasons.append(
                f"{100 * (1 - valid):.0f} % of its voxels have no defined fat fraction "
                f"(limit {100 * config.largest_invalid_share:.0f} %)"
            )
        if raw.void_share > config.largest_edge_share:
            reasons.append("it lies beside a part of the leg without signal (an implant?)")
        if raw.fading_share > config.largest_edge_share:
            reasons.append("it lies where the signal of the leg fades towards a side")
        if raw.confidence is not None and raw.cut_deep_share > config.largest_edge_share:
            reasons.append(
                f"an edge of the images takes more than {100 * config.largest_cut_share:.0f} % of "
                "the leg's cross-section there: the network has seen no such leg"
            )
        if raw.extent.gap_share > config.largest_gap_share:
            reasons.append(
                f"its labels are missing on levels between its ends "
                f"({100 * raw.extent.gap_share:.0f} % of its volume)"
            )
        reasons += [
            f"its labels {end.describe()}" for end in self.broken_ends(name) if end.side is side
        ]
        return reasons

    def _absent_reason(self, name: str, side: Side) -> str:
        for union in UNIONS:
            if name in union.muscles and union.name in self._raw[side]:
                return f"not labelled on its own; it is part of {union.title.lower()}"
        return "not labelled anywhere in the field of view"


def fat_fraction_error(
    fat_fraction_percent: float | None, estimate: str | None, config: MeasureConfig
) -> float | None:
    """Standard error of a measured fat fraction from scan to scan, points; None of an estimate."""
    if fat_fraction_percent is None or estimate is not None:
        return None
    return config.fat_fraction_cv_percent / 100.0 * max(fat_fraction_percent, 0.0)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100.0 * fraction


def absent(reason: str) -> Measurement:
    """A structure that is not there, and why."""
    return Measurement(
        status=Status.ABSENT,
        reason=reason,
        volume_whole_ml=None,
        volume_in_view_ml=None,
        volume_matched_ml=None,
        lean_volume_whole_ml=None,
        lean_volume_in_view_ml=None,
        lean_volume_matched_ml=None,
        lean_volume_core_ml=None,
        fat_free_volume_in_view_ml=None,
        fat_volume_in_view_ml=None,
        fat_fraction_percent=None,
        fat_fraction_core_percent=None,
        lean_reason=reason,
        valid_share=None,
        matched_share=None,
        length_mm=None,
        area_max_mm2=None,
        confidence=None,
        repeat_volume_ratios=None,
    )
