"""What was scanned: sources before reading, one scan on one grid, and its two legs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import LEG_SCHEME, LabelScheme, Side
from pipeline.core.errors import InvariantError
from pipeline.core.frozen import FrozenDict
from pipeline.core.grid import Grid
from pipeline.core.results import Finding
from pipeline.core.soft import Confidence
from pipeline.core.transform import AffineTransform
from pipeline.core.volume import DixonPair, LabelMap, Quantity, Volume

#: World of the scanner, as the affines of the input state it.
SCANNER_SPACE = "scanner"

#: Name of the engine that takes over labels made elsewhere.
GIVEN = "given"

#: Water and fat precess this far apart at body temperature (3.4 ppm of the 42.577 MHz per tesla
#: of protons), Hz per tesla.
FAT_SHIFT_HZ_PER_T = 3.4 * 42.577

T = TypeVar("T", covariant=True)
Index3 = tuple[int, int, int]


@dataclass(frozen=True)
class StageResult(Generic[T]):
    """What a stage gives back: its value, and what it noticed on the way."""

    value: T
    findings: tuple[Finding, ...] = ()


class ImageSource(Protocol):
    """An image that is read piece by piece, so that a whole body never fills the memory."""

    @property
    def grid(self) -> Grid:
        """The grid as stored, in the scanner space."""
        ...

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """Voxels lower <= i < upper, every step-th along each axis, scaled, float32 or integer."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """An ImageSource over an array in memory, for programs that have no files."""

    data: NDArray[Any]
    grid: Grid

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """See ImageSource.read."""
        box = tuple(slice(a, b, step) for a, b in zip(lower, upper, strict=True))
        return self.data[box]


@dataclass(frozen=True)
class Participant:
    """What participants.tsv says of a person; None where it says nothing."""

    height_m: float | None = None
    mass_kg: float | None = None
    sex: str | None = None
    dominant_side: Side | None = None
    injured_side: Side | None = None


@dataclass(frozen=True)
class ScanSettings:
    """How an image was acquired, as its header or sidecar states it; None: not stated.

    Attributes:
        field_t: field strength, tesla.
        repetition_ms: repetition time.
        flip_deg: flip angle.
        gradient_echo: whether it is a spoiled gradient echo, the steady state of which is known.
        bandwidth_hz: bandwidth of one pixel.
        frequency_axis: direction of the frequency encoding in the scanner, unit vector (RAS).
        distortion_corrected: whether the scanner undid the distortion of its gradients.
        from_isocentre: positions count from the centre of the magnet.
    """

    field_t: float | None = None
    repetition_ms: float | None = None
    flip_deg: float | None = None
    gradient_echo: bool | None = None
    bandwidth_hz: float | None = None
    frequency_axis: tuple[float, float, float] | None = None
    distortion_corrected: bool | None = None
    from_isocentre: bool = False


@dataclass(frozen=True)
class LoadedSubject:
    """Everything found for one subject and session, not yet read in full.

    Attributes:
        subject, session: labels with their prefix, "sub-01", "ses-1" or None.
        images: one source per quantity; all on one grid. Empty where there are stations.
        stations: sources by quantity of each of several stations, lowest first.
        labels: a label map made elsewhere, or None.
        label_scheme: what its values mean; None exactly when labels is None.
        participant: facts about the person.
        inputs: digest (sha256) of everything that results rest on, by what it was taken for: names
            of files may be those of people.
        reasons: by image among the inputs, what says that it shows what it is used for.
        files: by the same name, where an input lies; for the terminal alone.
        unused: by NIfTI file that is left out, why; for the terminal alone.
        side_evidence: what the sides rest on, e.g. "nifti affine".
        settings: by quantity, how its image was acquired, or the one of each station.
    """

    subject: str
    session: str | None
    images: Mapping[Quantity, ImageSource]
    labels: ImageSource | None = None
    label_scheme: LabelScheme | None = None
    stations: tuple[Mapping[Quantity, ImageSource], ...] = ()
    participant: Participant = field(default_factory=Participant)
    inputs: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    side_evidence: tuple[str, ...] = ()
    settings: Mapping[Quantity, tuple[ScanSettings, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.images and not self.stations and self.labels is None:
            raise InvariantError(f"{self.subject} has neither an image nor a label map")
        if (self.labels is None) != (self.label_scheme is None):
            raise InvariantError("A label map and its scheme come together")
        object.__setattr__(self, "images", FrozenDict(dict(self.images)))
        object.__setattr__(self, "inputs", FrozenDict(dict(self.inputs)))
        object.__setattr__(self, "reasons", FrozenDict(dict(self.reasons)))
        object.__setattr__(self, "files", FrozenDict(dict(self.files)))
        object.__setattr__(self, "unused", FrozenDict(dict(self.unused)))
        object.__setattr__(self, "settings", FrozenDict(dict(self.settings)))


@dataclass(frozen=True)
class StorageMap:
    """How the canonical grid lies in the array of the input file.

    canonical axis k runs along input axis `axes[k]`, backwards where `flips[k]`; canonical index
    0 is `offset[k]` voxels from the start of that (possibly flipped) input axis.
    """

    input_grid: Grid
    axes: Index3
    flips: tuple[bool, bool, bool]
    offset: Index3


@dataclass(frozen=True, eq=False)
class CanonicalScan:
    """One scan on one grid whose storage axes run closest to right, anterior, superior.

    Attributes:
        grid: RAS+ storage order, voxels exactly those of the input (no resampling), cropped to
            the lower limbs.
        images: by quantity, all on grid.
        dixon: water, fat and validity, where both channels exist.
        labels: given labels in OWN_SCHEME, or None.
        storage: the way back to the array of the input file.
        from_isocentre: positions count from the centre of the magnet.
        caveats: codes of findings that say what may fake a difference between the legs.
    """

    grid: Grid
    images: Mapping[Quantity, Volume]
    dixon: DixonPair | None
    labels: LabelMap | None
    storage: StorageMap
    from_isocentre: bool = False
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for quantity, volume in self.images.items():
            if not volume.grid.same_as(self.grid):
                raise InvariantError(f"The {quantity} image is not on the canonical grid")
        if self.labels is not None and not self.labels.grid.same_as(self.grid):
            raise InvariantError("The given labels are not on the canonical grid")
        object.__setattr__(self, "images", FrozenDict(dict(self.images)))


@dataclass(frozen=True, eq=False)
class Leg:
    """One leg, always in the pose of a right leg.

    The left leg was mirrored: its arrays are stored flipped along the first axis and its space
    is the mirror image of the scanner's, so that every later step sees a right leg. Nothing was
    resampled; the voxels are the scanner's.

    Attributes:
        side: the patient's side it belongs to.
        grid: grid in right-leg pose.
        images, dixon: as in CanonicalScan, on grid.
        tissue: boolean: voxels of this leg's body part (on its own side of the mid-sagittal
            surface).
        seen: boolean per voxel of the third axis (superior): this leg was imaged there. Levels in
            between that nobody scanned (a missing station) are not, nor those at a bent or slanted
            end that show a part of it.
        given: given labels of this leg in LEG_SCHEME, or None.
        to_scanner: leg space -> scanner space; determinant -1 for the left leg.
        lower: index on the canonical grid of the box this leg was cut from.
    """

    side: Side
    grid: Grid
    images: Mapping[Quantity, Volume]
    dixon: DixonPair | None
    tissue: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    given: LabelMap | None
    to_scanner: AffineTransform
    lower: Index3

    def __post_init__(self) -> None:
        mirrored = self.to_scanner.determinant < 0
        if mirrored != (self.side is Side.LEFT):
            raise InvariantError(
                "Only a left leg is mirrored into right-leg pose",
                found=f"{self.side} leg, mirrored: {mirrored}",
            )
        if self.tissue.shape != self.grid.shape or self.seen.shape != (self.grid.shape[2],):
            raise InvariantError(f"The masks of the {self.side} leg do not fit its grid")
        if self.given is not None and self.given.scheme != LEG_SCHEME:
            raise InvariantError("Labels of a leg are in the scheme of a leg in right-leg pose")
        object.__setattr__(self, "images", FrozenDict(dict(self.images)))

    @property
    def canonical_box(self) -> tuple[slice, slice, slice]:
        """Where this leg's box lies in the arrays of the canonical scan."""
        a, b, c = self.lower
        n = self.grid.shape
        return (slice(a, a + n[0]), slice(b, b + n[1]), slice(c, c + n[2]))

    def to_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array of this leg as it lies in its canonical box (unmirrored)."""
        return array[::-1] if self.side is Side.LEFT else array


@dataclass(frozen=True)
class LegPair:
    """Both legs of one scan, in right-leg pose.

    Attributes:
        right, left: the legs.
        doubt: why no verdict may rest on a difference between them; None without such a reason.
        caveats: codes of findings that say what may fake a difference between them.
    """

    right: Leg
    left: Leg
    doubt: str | None = None
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.right.side is not Side.RIGHT or self.left.side is not Side.LEFT:
            raise InvariantError("A leg pair is a right and a left leg, in this order")

    def __getitem__(self, side: Side) -> Leg:
        return self.right if side is Side.RIGHT else self.left


@dataclass(frozen=True)
class LimbAxis:
    """The long axis of a leg in its own space: hip 0, knee 1, ankle 2.

    Attributes:
        hip, knee, ankle: joint centres, mm; None where out of view or not found.
        direction: unit vector, downwards, used where fewer than two joints are known.
        origin: a point of the axis, mm, from which distances count where no joint is known.
    """

    hip: tuple[float, float, float] | None
    knee: tuple[float, float, float] | None
    ankle: tuple[float, float, float] | None
    direction: tuple[float, float, float]
    origin: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class SegmentedLeg:
    """A leg with its labels.

    Attributes:
        leg: the leg.
        labels: LEG_SCHEME on the leg's grid.
        axis: joints found from bones or muscles.
        confidence: by structure name; missing where the engine states none.
        labelled: boolean per voxel of the third axis: levels the labels speak of. Outside, the
            absence of a label says nothing.
    """

    leg: Leg
    labels: LabelMap
    axis: LimbAxis
    confidence: Mapping[str, Confidence]
    labelled: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.labels.grid.same_as(self.leg.grid):
            raise InvariantError("The labels of a leg lie on the grid of the leg")
        if self.labels.scheme != LEG_SCHEME:
            raise InvariantError("Labels of a leg are in the scheme of a leg in right-leg pose")
        object.__setattr__(self, "confidence", FrozenDict(dict(self.confidence)))


@dataclass(frozen=True)
class EngineInfo:
    """Which engine made the labels: name, version and the digest of its weights or input."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True)
class SegmentedLegs:
    """Both legs with their labels, who made them, and the doubt and caveats of the LegPair."""

    right: SegmentedLeg
    left: SegmentedLeg
    engine: EngineInfo
    doubt: str | None = None
    caveats: tuple[str, ...] = ()

    def __getitem__(self, side: Side) -> SegmentedLeg:
        return self.right if side is Side.RIGHT else self.left
