"""What the report is made from besides the results, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.core.grid import Grid
from pipeline.core.transform import AffineTransform, SpatialTransform
from pipeline.core.volume import LabelMap, Volume


@dataclass(frozen=True, eq=False)
class ReportEvidence:
    """The images behind the numbers, for the pictures.

    Attributes:
        labels: both legs in OWN_SCHEME on the canonical grid (storage axes closest to right,
            anterior, superior).
        image: background of the pictures on the same grid; None where only labels exist.
        fat_fraction: 0 to 1 on the same grid, NaN where undefined; None for a single contrast.
        right_to_scanner, left_to_scanner: leg space -> the space of the grid; the left one
            mirrors (determinant -1).
        right_to_left: registration, right leg space -> left leg space; None where it failed.
        log_jacobian: ln of the right leg's volume over that of what corresponds to it in the left
            one, on a coarser grid in the same space as labels; None where there is none.
    """

    labels: LabelMap
    image: Volume | None
    fat_fraction: NDArray[np.floating] | None
    right_to_scanner: AffineTransform
    left_to_scanner: AffineTransform
    right_to_left: SpatialTransform | None
    log_jacobian: tuple[NDArray[np.floating], Grid] | None = None

    def __post_init__(self) -> None:
        grid = self.labels.grid
        if self.labels.scheme != OWN_SCHEME:
            raise InvariantError(
                "The labels of a report are in the project's own scheme",
                expected=OWN_SCHEME.name,
                found=self.labels.scheme.name,
            )
        axes = np.argmax(np.abs(grid.affine[:3, :3]), axis=0)
        if axes.tolist() != [0, 1, 2] or np.any(np.diag(grid.affine)[:3] <= 0):
            raise InvariantError(
                "The labels of a report lie on a canonical grid",
                expected="array axes that run closest to right, anterior and superior",
                found=f"affine {grid.affine[:3, :3].round(2).tolist()}",
            )
        if self.image is not None and not self.image.grid.same_as(grid):
            raise InvariantError(
                "The background image and the labels of a report share one grid",
                expected=grid.describe(),
                found=self.image.grid.describe(),
            )
        if self.fat_fraction is not None and self.fat_fraction.shape != grid.shape:
            raise InvariantError(
                "The fat fraction and the labels of a report share one grid",
                expected=f"shape {grid.shape}",
                found=f"shape {self.fat_fraction.shape}",
            )
        if self.left_to_scanner.determinant > 0 or self.right_to_scanner.determinant < 0:
            raise InvariantError("Only the left leg of a report is mirrored into right-leg pose")


@dataclass(frozen=True)
class RenderedReport:
    """The report: one HTML page that needs nothing else, a PDF, and the pictures as files.

    Attributes:
        html: the page.
        pdf: three A4 pages, more where much could not be judged.
        figures: bytes by file name (SVG charts, PNG pictures).
    """

    html: str
    pdf: bytes
    figures: Mapping[str, bytes]

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", FrozenDict(dict(self.figures)))
