"""What cannot be two legs: refused, with what to do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SeparateConfig
from pipeline.core.anatomy import Side
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.imaging.separation import between_shares

Flags = NDArray[np.bool_]

#: Both legs of a newborn side by side are wider than the one, no magnet shows more than the other.
#: What lies beyond was not written in mm.
_NARROWEST_SCAN_MM, _WIDEST_SCAN_MM = 60.0, 1500.0


def check_width(grid: Grid) -> None:
    """Refuse metres, centimetres or microns in the place of mm: volumes would be absurd."""
    sizes = [count * size for count, size in zip(grid.shape, grid.voxel_sizes_mm, strict=True)]
    if _NARROWEST_SCAN_MM <= sizes[0] <= _WIDEST_SCAN_MM:
        return
    raise InputError(
        "The scan is of a size that no pair of legs has",
        expected=f"{_NARROWEST_SCAN_MM:g} to {_WIDEST_SCAN_MM:g} mm from right to left",
        found=" x ".join(f"{size:.4g}" for size in sizes) + " mm (right-left, front-back, up-down)",
        action="check the voxel size in the files: it has to be in mm, not in m, cm or microns",
    )


def check_both_sides(given: Mapping[Side, NDArray[np.uint8]]) -> None:
    """Refuse a label map of one leg."""
    for side in Side:
        if not given[side].any():
            other = "has labels" if given[side.other].any() else "has none either"
            raise SubjectUnusableError(
                f"The label map has no label of the {side} leg",
                expected="labels of both legs",
                found=f"none on the {side}; the {side.other} leg {other}",
                action="check the label map and its scheme (--label-scheme)",
            )


def check_two_legs(
    body: Flags, middle: NDArray[np.float64], narrow: Flags, config: SeparateConfig
) -> None:
    """Refuse a scan without body, and body that never parts into two legs.

    Args:
        body: body mask on a lattice (nx, ny, nz).
        middle: lattice column of the midline (nz,).
        narrow: levels that show one leg only (nz,); where all do, all count.
    """
    if not body.any():
        raise SubjectUnusableError(
            "No body was found in the images",
            expected="both legs in view",
            found="no connected region of signal",
            action="check the images",
        )
    there = body.any(axis=(0, 1))
    shares = between_shares(body, middle)[there & ~narrow if (there & ~narrow).any() else there]
    if float(np.percentile(shares, 5)) > config.largest_valley_share:
        raise SubjectUnusableError(
            "The scan does not show two legs side by side",
            expected="two legs with a gap or a valley between them at some level",
            found="one piece of body without a valley (one leg, a trunk, or one leg in front of "
            "the other, as of a person who lay on the side)",
            action="give a scan that shows both legs, with an affine in which right and left are "
            "those of the person; a side difference needs both",
        )


def check_sizes(volumes: Mapping[Side, float], config: SeparateConfig) -> None:
    """Refuse one leg in view, by the body of either side in mL."""
    small = min(volumes, key=lambda side: volumes[side])
    large = max(volumes.values())
    if large == 0 or volumes[small] < config.smallest_leg_share * large:
        raise SubjectUnusableError(
            f"Only one leg is in view: the {small} one is missing",
            expected="both legs",
            found=f"{volumes[Side.RIGHT]:.0f} mL of body on the right, "
            f"{volumes[Side.LEFT]:.0f} mL on the left",
            action="give a scan that shows both legs",
        )
