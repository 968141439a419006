"""What the images behind the numbers leave to be doubted: noise that reads as fat, swaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import MeasureConfig
from pipeline.core.anatomy import Side
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import Leg, SegmentedLegs
from pipeline.core.volume import Quantity
from pipeline.imaging.brightness import fat_over_muscle
from pipeline.imaging.labels import is_muscle
from pipeline.imaging.noise import fraction_of_noise, with_signal
from pipeline.imaging.rims import (
    along_limb,
    beneath_surface,
    long_runs,
    surface,
    usual_signal,
)
from pipeline.imaging.unseen import at_heights, enclosed_voids
from pipeline.measuring.one_leg import RawStructure

Flags = NDArray[np.bool_]
#: Outermost voxels of each leg, on its grid, by the names of its sides (EDGES); some are missing.
Surfaces = Mapping[Side, Mapping[str, Flags]]

#: Codes of the finding on what fat fraction noise alone gives: as usual, and too high.
NOISE_FLOORS = ("noise_floor", "noise_floor_high")
#: Codes of findings that are a caveat on differences of lean volume alone.
NOISE_DIFFERS = "noise_floors_differ"
FAT_UNLIKE = "fat_unlike_bright"
#: Codes of findings that are a caveat on every difference.
NO_SIGNAL = "no_signal"
SIGNAL_FADES = "signal_fades"
#: Code of the finding on muscle that is cut at the surface of a leg.
CUT_ASIDE = "cut_aside"
_TOLD = {
    SIGNAL_FADES: "Over {mm:.0f} mm the signal of the {leg} leg fades towards its {sides} side, "
    "and that of the other leg does not: what lies there is taken for air, or not seen well, and "
    "this alone makes the legs differ. Muscles there are not judged. Was the leg outside the reach "
    "of a coil?",
    CUT_ASIDE: "Over {mm:.0f} mm muscle of the {leg} leg ends at its {sides} side without the fat "
    "beneath the skin that the other leg has there: the leg goes on outside the images. Muscles "
    "there are not compared.",
}
#: Single images in which muscle, fat and marrow are bright: what is dark there is not tissue.
_SHOW_ALL_TISSUE = (Quantity.IN_PHASE, Quantity.T1W)


def noise_floors(legs: SegmentedLegs, config: MeasureConfig) -> Iterator[Finding]:
    """What fat fraction noise alone gives in the muscles of each leg."""
    floors: dict[Side, float] = {}
    for side in Side:
        leg, labels = legs[side].leg, legs[side].labels.data
        if leg.dixon is None:
            return
        pair = leg.dixon
        muscle = is_muscle(labels) & pair.valid
        if pair.fat_noise is None or not muscle.any():
            continue
        # The signal that the muscle would have without its fat.
        lean = pair.water.data[muscle] + pair.fat.data[muscle] / np.float32(pair.fat_gain)
        floors[side] = 100.0 * fraction_of_noise(
            pair.fat_noise, float(np.median(lean)), pair.fat_gain
        )
    if len(floors) < len(Side):
        yield Finding(
            code="noise_floor_unknown",
            severity=Severity.INFO,
            stage="measure",
            message="How much fat noise alone reads as could not be told: the images show no air "
            "with noise in it around the legs.",
        )
        return
    limit = config.largest_noise_floor_percent
    for side, floor in floors.items():
        high = floor > limit
        yield Finding(
            code=NOISE_FLOORS[high],
            severity=Severity.WARNING if high else Severity.INFO,
            stage="measure",
            side=side,
            message=f"Noise alone reads as {floor:.1f} % fat in lean muscle of the {side} leg"
            + ("; fat fractions of healthy muscle are no larger." if high else "."),
            value=floor,
            threshold=limit,
            unit="percent",
        )
    apart = floors[Side.RIGHT] - floors[Side.LEFT]
    if abs(apart) > config.largest_noise_floor_difference_points:
        noisy = Side.RIGHT if apart > 0 else Side.LEFT
        yield Finding(
            code=NOISE_DIFFERS,
            severity=Severity.WARNING,
            stage="measure",
            side=noisy,
            message=f"Noise alone reads as {abs(apart):.1f} points more fat in the {noisy} leg, "
            "whose signal is weaker: lean volumes of muscles with little fat differ by that alone.",
            value=abs(apart),
            threshold=config.largest_noise_floor_difference_points,
            unit="points",
        )


def fat_brightness(legs: SegmentedLegs, config: MeasureConfig) -> Iterator[Finding]:
    """Whether fat, held against the muscle beside it, is equally bright in both legs."""
    ratios: dict[Side, float] = {}
    for side in Side:
        leg = legs[side].leg
        if leg.dixon is None:
            return
        found = fat_over_muscle(
            leg.dixon.water.data,
            leg.dixon.fat.data,
            leg.dixon.valid & leg.tissue,
            leg.grid.voxel_sizes_mm,
        )
        if found is None:
            return
        ratios[side] = found
    brighter = max(Side, key=lambda side: ratios[side])
    ratio, limit = ratios[brighter] / ratios[brighter.other], config.largest_fat_brightness_ratio
    if ratio > limit:
        yield Finding(
            code=FAT_UNLIKE,
            severity=Severity.WARNING,
            stage="measure",
            side=brighter,
            message=f"Held against the muscle beside it, fat is {ratio:.1f} times as bright in the "
            f"{brighter} leg as in the {brighter.other} leg: muscles with fat in them read as "
            "fatter there by that alone, and lean volumes differ. Were the water and the fat "
            "images corrected for the coils one by one?",
            value=ratio,
            threshold=limit,
        )


def signal_voids(leg: Leg, config: MeasureConfig) -> Flags | None:
    """Where metal, or something else, left no signal in a leg; None where the images cannot tell:
    in a water image fat is as dark."""
    if leg.dixon is not None:
        signal = leg.dixon.valid
    else:
        shown = _all_tissue(leg)
        if shown is None:
            return None
        signal = with_signal(shown)
    return enclosed_voids(
        leg.tissue, signal, leg.grid.voxel_sizes_mm, smallest_mm=config.smallest_void_mm
    )


def _all_tissue(leg: Leg) -> NDArray[np.float32] | None:
    """A signal with which muscle, fat and marrow are bright, if there is one."""
    if leg.dixon is not None:
        return np.asarray(leg.dixon.water.data + leg.dixon.fat.data)
    shown = [leg.images[quantity].data for quantity in _SHOW_ALL_TISSUE if quantity in leg.images]
    return shown[0] if shown else None


def fading_surfaces(legs: SegmentedLegs, config: MeasureConfig) -> Surfaces:
    """Where the signal of one leg fades towards a side on which the other leg's does not."""
    rims = {}
    for side in Side:
        leg = legs[side].leg
        signal = _all_tissue(leg)
        if signal is None:
            return {side: {} for side in Side}
        usual = usual_signal(leg.tissue, leg.seen, signal)
        beneath = beneath_surface(leg.tissue, leg.seen, signal, leg.grid.voxel_sizes_mm)
        with np.errstate(divide="ignore", invalid="ignore"):
            rims[side] = {name: values / usual for name, values in beneath.items()}
    return _smaller(legs, rims, config.darkest_rim_share, config.darkest_rim_ratio)


def cut_surfaces(legs: SegmentedLegs, fading: Surfaces, config: MeasureConfig) -> Surfaces:
    """Where one leg has muscle in the place of the fat beneath the skin, and the other has not: it
    goes on outside the images, whatever they are filled with there.

    On the shin there is little fat, and inner sides may touch. Where the signal fades, the fat may
    be lost in the dark.
    """
    rims = {}
    for side in Side:
        leg = legs[side].leg
        if leg.dixon is None:
            return {side: {} for side in Side}
        fat, water = (
            beneath_surface(leg.tissue, leg.seen, image.data, leg.grid.voxel_sizes_mm)
            for image in (leg.dixon.fat, leg.dixon.water)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            rims[side] = {n: fat[n] / (fat[n] + water[n]) for n in ("outer", "back")}
    lean = _smaller(legs, rims, config.leanest_rim_share, config.leanest_rim_ratio)
    return {
        side: {name: mask for name, mask in lean[side].items() if name not in fading[side]}
        for side in Side
    }


def _smaller(
    legs: SegmentedLegs,
    rims: Mapping[Side, Mapping[str, NDArray[np.float64]]],
    limit: float,
    largest_ratio: float,
) -> Surfaces:
    """Surfaces on the levels on which a value of one leg is below a limit, and below this share of
    the other leg's at the same height."""
    found: dict[Side, dict[str, Flags]] = {side: {} for side in Side}
    smooth = {
        side: {
            name: along_limb(values, legs[side].leg.grid.voxel_sizes_mm[2])
            for name, values in rims[side].items()
        }
        for side in Side
    }
    for side in Side:
        leg, other = legs[side].leg, legs[side.other].leg
        for name, own in smooth[side].items():
            # Nothing is smaller than what is not known of the other leg.
            known = np.nan_to_num(smooth[side.other][name], posinf=0.0)
            theirs = at_heights(leg.grid, other.grid, known, outside=0.0)
            small = (own < limit) & (own < largest_ratio * theirs) & leg.seen
            small = long_runs(small, leg.grid.voxel_sizes_mm[2])
            if small.any():
                found[side][name] = surface(leg.tissue, name, small)
    return found


def joined(surfaces: Mapping[str, Flags]) -> Flags | None:
    """All surfaces of one leg together; None where there is none."""
    return np.logical_or.reduce([*surfaces.values()]) if surfaces else None


def surface_findings(legs: SegmentedLegs, code: str, surfaces: Surfaces) -> Iterator[Finding]:
    """Legs whose signal fades towards a side (SIGNAL_FADES), or that are cut (CUT_ASIDE)."""
    for side in Side:
        mask = joined(surfaces[side])
        if mask is None:
            continue
        levels = np.count_nonzero(mask.any(axis=(0, 1)))
        length = float(levels * legs[side].leg.grid.voxel_sizes_mm[2])
        yield Finding(
            code=code,
            severity=Severity.WARNING,
            stage="measure",
            side=side,
            message=_TOLD[code].format(mm=length, leg=side, sides=" and ".join(surfaces[side])),
            value=length,
            unit="mm",
        )


def void_findings(legs: SegmentedLegs, voids: Mapping[Side, Flags | None]) -> Iterator[Finding]:
    """Legs that have a part without signal."""
    for side, void in voids.items():
        if void is None or not void.any():
            continue
        volume = np.count_nonzero(void) * legs[side].leg.grid.voxel_volume_ml
        yield Finding(
            code=NO_SIGNAL,
            severity=Severity.WARNING,
            stage="measure",
            side=side,
            message=f"{volume:.0f} mL inside the {side} leg give no signal, as beside metal (an "
            "implant). Muscle there cannot be seen, shapes around it may be distorted, and this "
            "alone can make the legs differ. Muscles beside it are not judged.",
            value=volume,
            unit="mL",
        )


def swap_findings(
    structures: Mapping[Side, Mapping[str, RawStructure]],
) -> Iterator[Finding]:
    """Legs in which water and fat look exchanged and were not put right."""
    for side in Side:
        swap = next((raw.swap for raw in structures[side].values()), None)
        if swap is not None:
            yield Finding(
                code="fat_water_swap_not_corrected",
                severity=Severity.ERROR,
                stage="measure",
                side=side,
                message=f"The {side} leg cannot be relied on: {swap}. None of its muscles is "
                "judged. Reconstruct the images again, or give water and fat images.",
            )
