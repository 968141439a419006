"""Images and label maps: read-only arrays that know their grid and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import LabelScheme
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import Checked
from pipeline.core.grid import Grid


class Quantity(StrEnum):
    """What an image shows. The values are the suffixes of file names.

    OTHER is any other weighting (T2, proton density, STIR): muscles can be found in it, fat cannot
    be told from it.
    """

    WATER = "water"
    FAT = "fat"
    IN_PHASE = "inphase"
    OPPOSED_PHASE = "opposedphase"
    FAT_FRACTION = "fatfraction"
    T1W = "T1w"
    OTHER = "other"


_T = TypeVar("_T")


def signals(images: Mapping[Quantity, _T]) -> dict[Quantity, _T]:
    """Of images by what they show, those that are signal: a fraction has no bright body, no dark
    air and does not fade with it."""
    return {q: image for q, image in images.items() if q is not Quantity.FAT_FRACTION}


@dataclass(frozen=True, eq=False)
class Volume(Checked):
    """An image on a grid.

    Attributes:
        data: float32, shape of the grid, finite, read-only.
        grid: where its voxels are.
        quantity: what it shows.
        unit: "a.u." for signal, "1" for a fraction.
    """

    data: NDArray[np.float32]
    grid: Grid
    quantity: Quantity
    unit: str = "a.u."

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.dtype != np.float32:
            data = data.astype(np.float32)
        if data.shape != self.grid.shape:
            raise InvariantError(
                f"The {self.quantity} image does not fit its grid",
                expected=f"shape {self.grid.shape}",
                found=f"shape {data.shape}",
            )
        if not np.isfinite(data.sum(dtype=np.float64)):
            raise InvariantError(
                f"The {self.quantity} image has values that are not numbers",
                expected="finite values only",
                found=f"{int(np.count_nonzero(~np.isfinite(data)))} NaN or infinite voxels",
            )
        object.__setattr__(self, "data", _read_only(data))

    def with_data(self, data: NDArray[np.float32]) -> Volume:
        """The same image with other values on the same grid."""
        return Volume(data, self.grid, self.quantity, self.unit)


@dataclass(frozen=True, eq=False)
class LabelMap(Checked):
    """Integers on a grid with their meaning. It has no interpolation order: never resampled
    by anything but nearest neighbour.

    Attributes:
        data: integer array of the grid's shape, values of the scheme or 0, read-only.
        grid: where its voxels are.
        scheme: what the values mean.
    """

    data: NDArray[np.integer]
    grid: Grid
    scheme: LabelScheme

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if not np.issubdtype(data.dtype, np.integer):
            raise InvariantError(
                "A label map holds integers", expected="an integer dtype", found=str(data.dtype)
            )
        if data.shape != self.grid.shape:
            raise InvariantError(
                "The label map does not fit its grid",
                expected=f"shape {self.grid.shape}",
                found=f"shape {data.shape}",
            )
        object.__setattr__(self, "data", _read_only(data))

    def values(self) -> list[int]:
        """The label values that occur, ascending, without 0."""
        return [int(v) for v in np.unique(self.data) if v != 0]


@dataclass(frozen=True, eq=False)
class DixonPair(Checked):
    """Water and fat on one grid, and where their fraction means anything.

    Attributes:
        water, fat: the two images, same grid.
        valid: boolean array: signal above noise; the fat fraction is defined only there.
        fat_gain: how much brighter fat is than as much water, by their T1; 1 where that is not
            known or not corrected. The images hold what was measured; the fat fraction is
            corrected by it.
        fat_noise: standard deviation of the noise of the fat image, a.u.; None: not measurable.
    """

    water: Volume
    fat: Volume
    valid: NDArray[np.bool_]
    fat_gain: float = 1.0
    fat_noise: float | None = None

    def __post_init__(self) -> None:
        if not self.fat_gain > 0:
            raise InvariantError(
                "The gain of fat over water is positive", found=f"{self.fat_gain:g}"
            )
        if (self.water.quantity, self.fat.quantity) != (Quantity.WATER, Quantity.FAT):
            raise InvariantError(
                "A Dixon pair is a water and a fat image",
                found=f"{self.water.quantity} and {self.fat.quantity}",
            )
        if not self.water.grid.same_as(self.fat.grid):
            raise InvariantError(
                "Water and fat lie on different grids",
                expected=self.water.grid.describe(),
                found=self.fat.grid.describe(),
            )
        if self.valid.shape != self.water.grid.shape or self.valid.dtype != np.bool_:
            raise InvariantError("The validity mask is a boolean array on the grid of the pair")
        object.__setattr__(self, "valid", _read_only(self.valid))

    @property
    def grid(self) -> Grid:
        """The grid of both images."""
        return self.water.grid


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.setflags(write=False)
    return view
