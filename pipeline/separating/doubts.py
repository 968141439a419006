"""What is said of legs that may differ for other reasons than the body's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SeparateConfig
from pipeline.core.anatomy import Side
from pipeline.core.grid import Grid
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import CanonicalScan, Leg
from pipeline.core.volume import Quantity, signals
from pipeline.imaging.ghosts import ghost_signal
from pipeline.imaging.pose import difference_of_legs
from pipeline.imaging.separation import coarse
from pipeline.separating.parting import Parting

Flags = NDArray[np.bool_]

_AXES = ("from right to left", "from front to back")

#: Codes of findings on levels of one leg that give too little signal, on a leg that ends while the
#: other goes on, and on legs that cannot be told apart: each is a caveat on every difference.
LEVELS_DIM, LEG_ENDS_EARLY, LEGS_CROSS = "levels_dim", "leg_ends_early", "legs_cross"
LEVEL_DOUBTS = {
    LEGS_CROSS: "The legs lie across each other: which is which cannot be told over {mm:.0f} mm, "
    "from there down to the feet. Those levels count as not seen, and just above them the border "
    "between the legs may be wrong. Scan with the legs side by side.",
    LEVELS_DIM: "Over {mm:.0f} mm the {leg} leg gives far less signal than above and below, and "
    "the other leg does not: it moved, or slices were lost. Those levels count as not seen, and "
    "what is next to them may be wrong.",
    LEG_ENDS_EARLY: "The {leg} leg ends {mm:.0f} mm above the other one, within the images: an "
    "amputation, or images blanked there. The legs are no pair below that, and muscles that end "
    "there are no whole ones.",
}


def levels_doubted(code: str, grid: Grid, side: Side | None, levels: Flags) -> list[Finding]:
    """What is said of levels of one leg, or of both, that let the legs differ: of LEVEL_DOUBTS."""
    if not levels.any():
        return []
    length_mm = np.count_nonzero(levels) * grid.voxel_sizes_mm[2]
    return [
        Finding(
            code=code,
            severity=Severity.WARNING,
            stage="separate",
            message=LEVEL_DOUBTS[code].format(mm=length_mm, leg=side),
            side=side,
            value=length_mm,
            unit="mm",
        )
    ]


def ends_cut(grid: Grid, side: Side, shown: Flags, whole: Flags) -> list[Finding]:
    """What is said of levels on which a leg is cut by an end of the scan that is not straight."""
    cut = np.flatnonzero(shown & ~whole)
    if cut.size == 0:
        return []
    middle = np.median(np.flatnonzero(whole))
    ends = [end for end, there in (("lower", cut < middle), ("upper", cut > middle)) if there.any()]
    cut_mm = cut.size * grid.voxel_sizes_mm[2]
    return [
        Finding(
            code="ends_not_straight",
            severity=Severity.INFO,
            stage="separate",
            message=f"At the {' and '.join(ends)} end of the scan, {cut_mm:.0f} mm of the {side} "
            "leg are shown in part only: the end is bent or slanted, as the correction of "
            "distortion or resampling leaves it. Those levels count as not seen.",
            side=side,
            value=cut_mm,
            unit="mm",
        )
    ]


def off_isocentre(middle_mm: float, config: SeparateConfig) -> list[Finding]:
    """Doubt on a body that lay to one side in the magnet; its middle as world x."""
    limit = config.largest_midline_offset_mm
    if abs(middle_mm) <= limit:
        return []
    side = Side.RIGHT if middle_mm > 0 else Side.LEFT
    return [
        Finding(
            code="off_isocentre",
            severity=Severity.WARNING,
            stage="separate",
            message=f"The body lay {abs(middle_mm):.0f} mm to its {side} in the magnet, so the "
            f"{side} leg was seen further from the centre, where distances and signals are less "
            "true: this alone can make the legs differ. Centre the body between the legs.",
            side=side,
            value=middle_mm,
            threshold=limit if middle_mm > 0 else -limit,
            unit="mm",
        )
    ]


def unlike_bright(legs: Mapping[Side, Leg], config: SeparateConfig) -> list[Finding]:
    """Doubt on legs of which one is far brighter than the other."""
    bright = {}
    for side, leg in legs.items():
        shown = [image.data for image in signals(leg.images).values()]
        if not shown:
            return []
        bright[side] = float(np.median(sum(np.abs(image[leg.tissue]) for image in shown)))
    dark = min(bright, key=bright.__getitem__)
    ratio = bright[dark.other] / max(bright[dark], 1e-12)
    if ratio <= config.largest_brightness_ratio:
        return []
    return [
        Finding(
            code="legs_unlike_bright",
            severity=Severity.WARNING,
            stage="separate",
            message=f"The {dark.other} leg is {ratio:.1f} times as bright as the {dark} one (a "
            "coil far from that one, or a correction of brightness): muscle there may be taken for "
            "air. This alone can make the legs differ.",
            side=dark,
            value=ratio,
            threshold=config.largest_brightness_ratio,
            unit="times",
        )
    ]


def legs_alike(legs: Mapping[Side, Leg], config: SeparateConfig) -> list[Finding]:
    """Doubt on legs that look more alike than two legs of one person do: one was shown twice."""
    quantity = next(iter(legs[Side.RIGHT].images))
    right, left = (legs[side] for side in (Side.RIGHT, Side.LEFT))
    apart = difference_of_legs(
        right.images[quantity].data, left.images[quantity].data, right.tissue, left.tissue
    )
    if apart is None or apart >= config.usual_leg_difference:
        return []
    same = apart < config.smallest_leg_difference
    return [
        Finding(
            code="one_leg_twice" if same else "legs_alike",
            severity=Severity.ERROR if same else Severity.WARNING,
            stage="separate",
            message="One leg is shown twice: both sides hold the same image. Look for the step "
            "that put the legs together, and give the scan as it came from the scanner."
            if same
            else "The legs look more alike than two legs of a person do. Check that it is not "
            "one leg shown twice.",
            value=apart,
            threshold=config.smallest_leg_difference if same else config.usual_leg_difference,
            unit="difference of neighbouring voxels",
        )
    ]


def labels_astray(
    scan: CanonicalScan,
    given: Mapping[Side, NDArray[np.uint8]],
    tissue: Mapping[Side, Flags],
    config: SeparateConfig,
) -> list[Finding]:
    """Labels that lie on the other leg's side of the surface."""
    findings = []
    limit = config.largest_share_on_other_side
    for side in Side:
        wrong = int(np.count_nonzero(tissue[side.other] & (given[side] != 0)))
        share = wrong / max(1, int(np.count_nonzero(given[side])))
        if share > limit:
            volume = wrong * scan.grid.voxel_volume_ml
            findings.append(
                Finding(
                    code="labels_on_other_side",
                    severity=Severity.WARNING,
                    stage="separate",
                    side=side,
                    message=f"{volume:.0f} mL ({100 * share:.1f} %) of the labels given as "
                    f"{side} lie on the {side.other} side of the body; the given sides were kept.",
                    value=100.0 * share,
                    threshold=100.0 * limit,
                    unit="percent",
                )
            )
    return findings


def ghosts(scan: CanonicalScan, parting: Parting, config: SeparateConfig) -> list[Finding]:
    """Doubt on images with ghosts in the air beside the legs, told of the image with most."""
    thin: dict[Quantity, NDArray[np.float64]] = {
        quantity: coarse(image.data, parting.lattice)
        for quantity, image in signals(scan.images).items()
    }
    pair = (Quantity.WATER, Quantity.FAT) if scan.dixon is not None else ()
    found = []
    for quantity, image in thin.items():
        ghost = ghost_signal(image, parting.body, parting.lattice_mm)
        # A ghost of water or fat is part of what both give; other images have units of their own.
        units = pair if quantity in pair else (quantity,)
        usual = float(np.median(sum(thin[one][parting.body] for one in units)))
        if ghost is not None and usual > 0:
            found.append((ghost[0] / usual, ghost[1], quantity))
    share, axis, quantity = max(found, default=(0.0, 0, Quantity.OTHER), key=lambda one: one[0])
    if share <= config.largest_ghost_share:
        return []
    return [
        Finding(
            code="ghosts",
            severity=Severity.WARNING,
            stage="separate",
            message=f"In line with the legs, {_AXES[axis]}, the air of the {quantity} image shows "
            f"{100 * share:.0f} % of their signal: ghosts, of movement or of pulsating blood. They "
            "lie over the legs too, and shift borders and fat fractions there. Look at the images.",
            value=100.0 * share,
            threshold=100.0 * config.largest_ghost_share,
            unit="percent",
        )
    ]


def legs_touch(grid: Grid, share: float) -> list[Finding]:
    """That the border between the legs runs through body over a share of the levels."""
    touching = share * grid.shape[2] * grid.voxel_sizes_mm[2]
    if touching <= 0:
        return []
    return [
        Finding(
            code="legs_touch",
            severity=Severity.INFO,
            stage="separate",
            message=f"The body is in one piece between the legs over {touching:.0f} mm "
            "(pelvis and touching thighs); the border there was found from the images.",
            value=touching,
            unit="mm",
        )
    ]
