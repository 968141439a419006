"""Images made from a label map of a real person, by code that nothing else here shares.

It exists to test a network that was trained on images made from label maps: a second simulator,
written apart from the first, with other assumptions, so that a shared mistake cannot pass for
skill. Tissue is worked out slice by slice on the map's own voxels (hulls for the fascia, what no
label fills deep inside for bone); a scan is the exact overlap of its voxels with the map's, so
that partial volume conserves what it averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from pipeline import OWN_SCHEME, Grid, LabelMap, Quantity, Side, Volume
from pipeline.core.anatomy import BONES, LEFT_OFFSET, MUSCLES
from pipeline.core.frozen import FrozenDict

Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]

#: Codes of what carries no muscle label, above all label values.
FAT, SUBCUTANEOUS, SKIN, CORTEX, MARROW, VISCERA = 200, 201, 202, 203, 204, 205
#: Water and fat signal of these, for muscle without fat = 1.
_SIGNALS = {
    FAT: (0.07, 0.90),
    SUBCUTANEOUS: (0.03, 0.98),
    SKIN: (0.45, 0.10),
    CORTEX: (0.04, 0.03),
    MARROW: (0.10, 0.80),
    VISCERA: (0.75, 0.15),
}
_FASCIA = (0.20, 0.30)
_PAD = 18
#: Gaps between labels up to this wide are the drawing's, not the body's: labels grow into them.
_GROWTH_MM = 1.6
#: Unlabelled tissue deeper than this below every label's edge is bone (or viscera, further off).
_BONE_DEPTH_MM = 5.0
_VISCERA_DISTANCE_MM = 18.0
_CORTEX_MM = 2.6
_SKIN_MM = 1.5
_MUSCLE_IDS = frozenset(m.id + offset for m in MUSCLES for offset in (0, LEFT_OFFSET))
_BONE_IDS = tuple(b.id + offset for b in BONES for offset in (0, LEFT_OFFSET))


@dataclass(frozen=True, eq=False)
class Tissue:
    """A body as codes on the voxels of its label map.

    Attributes:
        codes: label values of muscles (OWN_SCHEME) and the codes above; 0 is air.
        grid: its voxels, axes along right, anterior, superior.
    """

    codes: Codes
    grid: Grid


@dataclass(frozen=True)
class Protocol:
    """How a body is imaged.

    Attributes:
        contrasts: images wanted.
        voxel_mm: voxel size; at least that of the label map.
        fascia_mm: thickness of the septum between two muscles.
        fat_range: mean fat fraction of a muscle is drawn between these.
        spread: how much the water signal differs between muscles.
        bias: largest deviation of the coil's sensitivity.
        snr: signal of muscle over the noise.
        seed: for everything drawn.
    """

    contrasts: tuple[Quantity, ...]
    voxel_mm: tuple[float, float, float]
    fascia_mm: float = 0.6
    fat_range: tuple[float, float] = (0.03, 0.12)
    spread: float = 0.04
    bias: float = 0.2
    snr: float = 35.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulated scan.

    Attributes:
        images: by quantity.
        labels: muscle that fills most of each voxel, OWN_SCHEME, muscles only.
        volumes_ml: true volume by muscle and side, counted on the label map.
    """

    images: Mapping[Quantity, Volume]
    labels: LabelMap
    volumes_ml: Mapping[tuple[str, Side], float]


def tissue_of(labels: LabelMap, *, seed: int, fat_mm: float = 9.0) -> Tissue:
    """A whole body section around the labels of a person.

    Args:
        labels: OWN_SCHEME, isotropic in the plane, axes along right, anterior, superior.
        seed: for the course of the subcutaneous fat.
        fat_mm: its thickness at mid-thigh.
    """
    rng = np.random.default_rng([seed, 11])
    data = np.pad(np.asarray(labels.data), ((_PAD, _PAD), (_PAD, _PAD), (0, 0)))
    pixel = labels.grid.voxel_sizes_mm[0]
    levels = data.shape[2]
    # Thinner at the ankle, thicker at the hip, with a slow wave of its own.
    course = np.interp(np.arange(levels) / levels, [0.0, 0.25, 0.7, 1.0], [0.5, 0.7, 1.0, 1.7])
    wave = ndimage.gaussian_filter1d(rng.standard_normal(levels), 40.0)
    wave -= wave.mean()
    course = course * (1.0 + 0.15 * wave / max(np.abs(wave).max(), 1e-9))
    codes = np.zeros(data.shape, dtype=np.uint8)
    for k in range(levels):
        if data[:, :, k].any():
            codes[:, :, k] = _section(data[:, :, k], pixel, fat_mm * float(course[k]))
    affine = labels.grid.affine.copy()
    affine[:3, 3] = labels.grid.index_to_world([-_PAD, -_PAD, 0.0])
    shape = (data.shape[0], data.shape[1], levels)
    return Tissue(codes, Grid(shape, affine, labels.grid.space))


def _section(labels: Codes, pixel_mm: float, fat_mm: float) -> Codes:
    """Codes of one slice."""
    is_bone = np.isin(labels, _BONE_IDS)
    muscles = np.where(is_bone, 0, labels)
    sides = [np.where(is_left == (labels > LEFT_OFFSET), labels, 0) > 0 for is_left in (0, 1)]
    hull = np.zeros(labels.shape, dtype=np.bool_)
    for mask in sides:
        if np.count_nonzero(mask) > 2:
            hull |= convex_hull_image(mask)
    # Legs whose hulls meet are one pelvis.
    if ndimage.label(hull)[1] == 1 and all(mask.any() for mask in sides):
        hull = convex_hull_image(hull)
    away, nearest = ndimage.distance_transform_edt(
        muscles == 0, sampling=pixel_mm, return_indices=True
    )
    grow = (muscles == 0) & hull & ~is_bone & (away <= _GROWTH_MM)
    muscles = np.where(grow, muscles[nearest[0], nearest[1]], muscles)
    empty = hull & (muscles == 0)
    deep = empty & (ndimage.distance_transform_edt(empty, sampling=pixel_mm) > _BONE_DEPTH_MM)
    reached = ndimage.distance_transform_edt(~deep, sampling=pixel_mm) if deep.any() else away
    bone = is_bone | (empty & (reached <= _BONE_DEPTH_MM) & deep.any())
    viscera = bone & ~is_bone & (away > _VISCERA_DISTANCE_MM)
    depth = ndimage.distance_transform_edt(bone, sampling=pixel_mm)
    outside = ndimage.distance_transform_edt(~hull, sampling=pixel_mm)
    out = np.zeros(labels.shape, dtype=np.uint8)
    out[outside <= fat_mm + _SKIN_MM] = SKIN
    out[outside <= fat_mm] = SUBCUTANEOUS
    out[hull] = FAT
    out[bone] = np.where(depth[bone] <= _CORTEX_MM, CORTEX, MARROW)
    out[viscera] = VISCERA
    out[muscles > 0] = muscles[muscles > 0]
    return out


def simulate(tissue: Tissue, protocol: Protocol) -> Simulated:
    """Scan a body.

    Raises:
        KeyError: a contrast that is not made here.
    """
    water, fat, labels = mixtures(tissue, protocol)
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    grid = _scan_grid(tissue.grid, protocol.voxel_mm, shape)
    return Simulated(
        FrozenDict(_images(water, fat, grid, protocol)),
        LabelMap(labels, grid, OWN_SCHEME),
        FrozenDict(true_volumes(tissue)),
    )


def mixtures(tissue: Tissue, protocol: Protocol) -> tuple[Floats, Floats, Codes]:
    """Water, fat (muscle without fat = 1) and fullest muscle in the voxels of a scan, no noise."""
    source = tissue.grid
    across, along, through = (
        overlap(n, d, size)
        for n, d, size in zip(source.shape, source.voxel_sizes_mm, protocol.voxel_mm, strict=True)
    )
    shape = (across.shape[0], along.shape[0], through.shape[0])
    water, fat = np.zeros(shape), np.zeros(shape)
    labels = np.zeros(shape, dtype=np.uint8)
    lookup = _lookup(protocol)
    texture = _Texture(tissue.codes.shape[:2], protocol.seed)
    ready: dict[int, tuple[Floats, Floats]] = {}
    for k in range(shape[2]):
        used = np.flatnonzero(through[k])
        for level in used:
            if level not in ready:
                codes = tissue.codes[:, :, level]
                ready[level] = _signals(codes, lookup, texture.next(), protocol, source)
        share = through[k][used]
        for image, part in ((water, 0), (fat, 1)):
            mixed = sum(s * ready[level][part] for s, level in zip(share, used, strict=True))
            image[:, :, k] = across @ mixed @ along.T
        # A level on the border of two slices is needed once more.
        ready = {level: v for level, v in ready.items() if level >= used[-1]}
        labels[:, :, k] = _fullest(tissue.codes[:, :, used], share, across, along)
    return water, fat, labels


def overlap(count: int, size_mm: float, new_mm: float) -> Floats:
    """Which share of each new voxel the old ones fill, along one axis: (new, old).

    Both rows of voxels begin at the same edge. A new row that reaches past the end is filled with
    nothing there, so that sums times voxel size are conserved.
    """
    new_count = int(np.ceil(count * size_mm / new_mm - 1e-9))
    old, new = np.arange(count + 1) * size_mm, np.arange(new_count + 1) * new_mm
    shared = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    return np.maximum(shared, 0.0) / new_mm


def _scan_grid(
    source: Grid, voxel_mm: tuple[float, float, float], shape: tuple[int, int, int]
) -> Grid:
    """The grid of the new voxels, which begin at the outer corner of the old ones."""
    old = np.array(source.voxel_sizes_mm)
    new = np.array(voxel_mm)
    affine = np.eye(4)
    affine[:3, :3] = source.affine[:3, :3] / old * new
    affine[:3, 3] = source.index_to_world(0.5 * new / old - 0.5)
    return Grid(shape, affine, source.space)


def _lookup(protocol: Protocol) -> tuple[Floats, Floats]:
    """Water signal of lean tissue and fat fraction by code; both sides of a muscle are alike."""
    rng = np.random.default_rng([protocol.seed, 12])
    brightness, fraction = np.zeros(256), np.zeros(256)
    for muscle in MUSCLES:
        b = 1.0 + protocol.spread * rng.standard_normal()
        f = rng.uniform(*protocol.fat_range)
        for value in (muscle.id, muscle.id + LEFT_OFFSET):
            brightness[value], fraction[value] = b, f
    return brightness, fraction


class _Texture:
    """Fat in streaks along the limb: a random field that changes slowly from slice to slice."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self._rng = np.random.default_rng([seed, 13])
        self._shape = shape
        self._field = self._fresh()

    def _fresh(self) -> Floats:
        field = ndimage.gaussian_filter(self._rng.standard_normal(self._shape), 1.2)
        return np.asarray(field / field.std())

    def next(self) -> Floats:
        """Factors of mean about 1 for the next slice up."""
        self._field = 0.9 * self._field + np.sqrt(1.0 - 0.9**2) * self._fresh()
        return np.asarray(np.exp(0.5 * self._field - 0.125))


def _signals(
    codes: Codes, lookup: tuple[Floats, Floats], texture: Floats, protocol: Protocol, grid: Grid
) -> tuple[Floats, Floats]:
    """Water and fat of one slice of the body."""
    brightness, fraction = lookup
    mixed = np.minimum(fraction[codes] * texture, 0.8)
    water = brightness[codes] * (1.0 - mixed)
    fat = brightness[codes] * mixed
    for code, (w, f) in _SIGNALS.items():
        here = codes == code
        water[here], fat[here] = w, f
    if VISCERA in codes:
        here = codes == VISCERA
        water[here] *= np.minimum(texture[here], 1.6)
    septum = _septum_share(codes, protocol.fascia_mm, grid.voxel_sizes_mm[0])
    water += septum * (_FASCIA[0] - water)
    fat += septum * (_FASCIA[1] - fat)
    return water, fat


def _septum_share(codes: Codes, thickness_mm: float, pixel_mm: float) -> Floats:
    """Share of each voxel that the septum to a neighbouring muscle takes."""
    muscle = (codes > 0) & (codes < FAT)
    share = np.zeros(codes.shape)
    for axis in (0, 1):
        for step in (-1, 1):
            other = np.roll(codes, step, axis)
            meets = muscle & (other != codes) & (other > 0) & (other < FAT)
            share += meets * (0.5 * thickness_mm / pixel_mm)
    return np.minimum(share, 1.0)


def _fullest(slab: Codes, shares: Floats, across: Floats, along: Floats) -> Codes:
    """The muscle that fills most of each voxel of a slice, 0 where the rest fills more."""
    best = np.zeros((across.shape[0], along.shape[0]))
    total = np.zeros_like(best)
    out = np.zeros(best.shape, dtype=np.uint8)
    for value in np.unique(slab):
        if int(value) not in _MUSCLE_IDS:
            continue
        filled = across @ ((slab == value) @ shares) @ along.T
        better = filled > best
        out[better] = value
        best[better] = filled[better]
        total += filled
    out[best < 1.0 - total] = 0
    return out


def _images(water: Floats, fat: Floats, grid: Grid, protocol: Protocol) -> dict[Quantity, Volume]:
    rng = np.random.default_rng([protocol.seed, 14])
    x, y, z = (np.linspace(-1.0, 1.0, n) for n in grid.shape)
    a, b, c = rng.uniform(-1.0, 1.0, 3)
    field = a * x[:, None, None] + b * y[None, :, None] + c * np.sin(2.0 * z)[None, None, :]
    field = 1.0 + protocol.bias * field / np.abs(field).max()
    mixtures = {
        Quantity.WATER: water,
        Quantity.FAT: fat,
        Quantity.IN_PHASE: water + fat,
        Quantity.T1W: 0.35 * water + 0.95 * fat,
    }
    # Relative to muscle in the same image, which is darker in T1.
    level = {Quantity.T1W: 0.35}
    images = {}
    for quantity in protocol.contrasts:
        sd = level.get(quantity, 1.0) / protocol.snr
        signal = ndimage.gaussian_filter(mixtures[quantity] * field, (0.4, 0.4, 0.0))
        noise = rng.standard_normal((2, *grid.shape)) * sd
        magnitude = np.hypot(signal + noise[0], noise[1]) * 1000.0
        images[quantity] = Volume(magnitude.astype(np.float32), grid, quantity)
    return images


def true_volumes(tissue: Tissue) -> dict[tuple[str, Side], float]:
    """Volume of every muscle in mL, counted on the voxels of the label map."""
    counts = np.bincount(tissue.codes.ravel(), minlength=256)
    return {
        OWN_SCHEME.structures[value]: float(counts[value]) * tissue.grid.voxel_volume_ml
        for value in sorted(_MUSCLE_IDS)
        if counts[value]
    }
