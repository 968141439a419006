"""Where voxels are in the world: shape, affine and the name of the space."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.errors import InvariantError
from pipeline.core.frozen import Checked

FloatArray = NDArray[np.float64]

#: Two grids are the same when no corner is further apart than this.
SAME_GRID_TOLERANCE_MM = 1e-2
#: Between the shape and the size of the voxels where a grid is told in words.
_VOXELS_OF = " voxels of "


@dataclass(frozen=True, eq=False)
class Grid(Checked):
    """A regular lattice of voxel centres in a named RAS+ millimetre space.

    Attributes:
        shape: number of voxels along the three array axes.
        affine: 4x4 matrix, array index of a voxel centre -> RAS+ mm (+x = patient's right
            hand side in the NIfTI sense: x grows towards the patient's Right).
        space: name of the world the millimetres live in; points of two spaces are never
            compared without a transform between them.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    space: str

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise InvariantError(
                "A grid needs three axes of at least one voxel", found=f"shape {self.shape}"
            )
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.all(np.isfinite(affine)):
            raise InvariantError(
                "A grid needs a finite 4x4 affine",
                found=f"shape {affine.shape}, finite: {bool(np.all(np.isfinite(affine)))}",
            )
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise InvariantError(
                "The last row of an affine must be 0 0 0 1", found=str(affine[3].tolist())
            )
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InvariantError(
                "The affine of a grid must be invertible",
                expected="three axes that span a volume",
                found=f"determinant {np.linalg.det(affine[:3, :3]):.3g} mm^3",
            )
        if not self.space:
            raise InvariantError("A grid needs the name of its space")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def voxel_sizes_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel along the array axes, in mm."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(sizes[0]), float(sizes[1]), float(sizes[2]))

    @property
    def level_heights_mm(self) -> FloatArray:
        """Height (z) of the middle of each level of the third axis, shape (nz,)."""
        middle = [(count - 1) / 2 for count in self.shape[:2]]
        return self.index_to_world([[*middle, level] for level in range(self.shape[2])])[:, 2]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel in mm^3: |det| of the affine, right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of a voxel in mL."""
        return self.voxel_volume_mm3 / 1000.0

    def index_to_world(self, index: ArrayLike) -> FloatArray:
        """Map array indices (..., 3) to RAS mm (..., 3)."""
        points = np.asarray(index, dtype=np.float64)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def world_to_index(self, points: ArrayLike) -> FloatArray:
        """Map RAS mm (..., 3) to fractional array indices (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        world = np.asarray(points, dtype=np.float64)
        return np.asarray(world @ inverse[:3, :3].T + inverse[:3, 3])

    def corners_mm(self) -> FloatArray:
        """The eight outer corner voxel centres in RAS mm, shape (8, 3)."""
        ends = [(0, n - 1) for n in self.shape]
        return self.index_to_world(np.array(list(itertools.product(*ends)), dtype=np.float64))

    def same_as(self, other: Grid, *, tolerance_mm: float = SAME_GRID_TOLERANCE_MM) -> bool:
        """Whether both name the same space, shape and corners (within tolerance_mm)."""
        if self.space != other.space or self.shape != other.shape:
            return False
        return self.largest_corner_distance_mm(other) <= tolerance_mm

    def largest_corner_distance_mm(self, other: Grid) -> float:
        """Largest distance between corresponding corners, in mm."""
        return float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max())

    def crop(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> Grid:
        """The sub-grid with indices lower <= i < upper (upper exclusive)."""
        if any(not 0 <= a < b <= n for a, b, n in zip(lower, upper, self.shape, strict=True)):
            raise InvariantError(
                "A crop must lie inside its grid",
                expected=f"within {self.shape}",
                found=f"{lower} to {upper}",
            )
        affine = self.affine.copy()
        affine[:3, 3] = self.index_to_world(np.array(lower, dtype=np.float64))
        shape = (upper[0] - lower[0], upper[1] - lower[1], upper[2] - lower[2])
        return Grid(shape, affine, self.space)

    def every(self, step: tuple[int, int, int]) -> Grid:
        """The grid of every n-th voxel along each axis, from index 0 on."""
        affine = self.affine.copy()
        affine[:3, :3] *= step
        shape = [(n - 1) // s + 1 for n, s in zip(self.shape, step, strict=True)]
        return Grid((shape[0], shape[1], shape[2]), affine, self.space)

    def covered_by(self, spacing_mm: float) -> Grid:
        """A grid of voxels of about this size (never smaller ones) that covers this one."""
        step = [max(1, round(spacing_mm / mm)) for mm in self.voxel_sizes_mm]
        affine = self.affine.copy()
        affine[:3, :3] *= step
        shape = [-(-(n - 1) // s) + 1 for n, s in zip(self.shape, step, strict=True)]
        return Grid((shape[0], shape[1], shape[2]), affine, self.space)

    def resized(self, factor: float) -> Grid:
        """The same voxels of a body that is so many times as large."""
        affine = self.affine.copy()
        affine[:3] *= factor
        return Grid(self.shape, affine, self.space)

    def renamed(self, space: str) -> Grid:
        """The same lattice in a space of another name."""
        return Grid(self.shape, self.affine, space)

    def describe(self) -> str:
        """Short text for messages: shape and voxel size."""
        size = " x ".join(f"{s:.3g}" for s in self.voxel_sizes_mm)
        return f"{' x '.join(map(str, self.shape))}{_VOXELS_OF}{size} mm"


def voxels_described(text: str) -> str:
    """The size of the voxels out of the description of a grid."""
    return text.rsplit(_VOXELS_OF, 1)[-1]
