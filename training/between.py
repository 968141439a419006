"""Step 1b: bodies between people, from label maps that are registered to each other.

    python -m training.between --anatomy FOLDER --out FOLDER

Hips and calves come from two to four people. The pipeline's own registration lays a leg of one
person onto a leg of another; following its flow only part of the way, or beyond, gives legs that
nobody has, with every muscle where it belongs. Only legs whose maps hold all muscles are carried.
"""

from __future__ import annotations

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline import (
    OWN_SCHEME,
    ArraySource,
    Grid,
    LoadedSubject,
    Quantity,
    Side,
    canonicalise,
    default_config,
    load_config,
    register,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import LEFT_OFFSET
from pipeline.core.transform import CompositeTransform, FlowTransform, SpatialTransform
from training.prepare import Body, Source, prepare, read_sources, save_body

logger = logging.getLogger(__name__)

VOXEL_MM = 1.5
#: The flow is looked up on this lattice and interpolated.
_LATTICE = 4
#: One slice in so many is kept.
_EVERY = 2
#: Between the innermost muscles of both sides; they come as close over this length of the legs.
_MIDLINE_MM = 12.0
_SMOOTH_MM = 60.0


@dataclass(frozen=True)
class Pair:
    """A leg that is carried towards another.

    Attributes:
        moving, fixed: name of the map and side of each leg.
        shares: parts of the way; below 0 away from the other, above 1 beyond it.
    """

    moving: tuple[str, Side]
    fixed: tuple[str, Side]
    shares: tuple[float, ...]


PAIRS = (
    Pair(("vhf", Side.RIGHT), ("vhm", Side.LEFT), (-0.4, 0.35, 0.7)),
    Pair(("vhm", Side.LEFT), ("vhf", Side.LEFT), (-0.4, 0.35, 0.7)),
    Pair(("vhf", Side.LEFT), ("vhm", Side.LEFT), (0.5, 1.0)),
    Pair(("vhm", Side.LEFT), ("vhf", Side.RIGHT), (0.5, 1.0)),
    Pair(("vhf", Side.LEFT), ("mm_pelvis_calf", Side.LEFT), (0.5, 1.0)),
    Pair(("vhf", Side.RIGHT), ("mm_pelvis_calf", Side.RIGHT), (-0.5, 0.75)),
    Pair(("vhf", Side.RIGHT), ("mm_neck_knee", Side.RIGHT), (0.5, 1.0)),
    Pair(("vhf", Side.LEFT), ("mm_neck_knee", Side.LEFT), (-0.5, 0.75)),
    Pair(("vhm", Side.LEFT), ("mm_pelvis_calf", Side.RIGHT), (0.5, 1.0)),
    Pair(("vhm", Side.LEFT), ("mm_pelvis_calf", Side.LEFT), (-0.4, 0.75)),
    Pair(("vhm", Side.LEFT), ("mm_neck_knee", Side.LEFT), (0.5, 1.0)),
)


def leg_of(anatomy: Path, source: Source, side: Side) -> NDArray[np.uint8]:
    """One leg of a map in right-leg pose, ids without side, on cubes of VOXEL_MM."""
    image = nib.as_closest_canonical(nib.load(anatomy / f"{source.name}.nii.gz"))
    labels = np.asarray(image.dataobj).astype(np.uint8)[:, :, source.first : source.last + 1]
    offset = LEFT_OFFSET if side is Side.LEFT else 0
    leg = np.where((labels > offset) & (labels < offset + LEFT_OFFSET), labels - offset, 0)
    leg[np.isin(leg, source.faulty)] = 0
    if side is Side.LEFT:
        leg = leg[::-1]
    box = ndimage.find_objects((leg > 0).astype(np.uint8))[0]
    zooms = np.array(image.header.get_zooms()[:3]) / VOXEL_MM
    return ndimage.zoom(leg[box], zooms, order=0, grid_mode=True, mode="nearest").astype(np.uint8)


def both(moving: NDArray[np.uint8], fixed: NDArray[np.uint8]) -> LoadedSubject:
    """A body whose left leg is the moving leg and whose right leg is the fixed one."""
    shape = np.max([moving.shape, fixed.shape], axis=0)
    gap, pad = 20, 8
    labels = np.zeros((2 * shape[0] + gap + 2 * pad, shape[1] + 2 * pad, shape[2]), dtype=np.uint8)
    # Hips on one level: labels start at the feet or at a cut, and end at the crest of the hip.
    top = shape[2]
    mirrored = moving[::-1]
    for leg, start, offset in ((mirrored, pad, LEFT_OFFSET), (fixed, shape[0] + pad + gap, 0)):
        place = labels[
            start : start + leg.shape[0], pad : pad + leg.shape[1], top - leg.shape[2] : top
        ]
        place[...] = np.where(leg > 0, leg + offset, 0)
    grid = Grid(
        tuple(int(n) for n in labels.shape), np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0]), "scanner"
    )
    tissue = ndimage.uniform_filter((labels > 0).astype(np.float32), (5, 5, 1)) > 0
    return LoadedSubject(
        subject="sub-pair",
        session=None,
        images={Quantity.T1W: ArraySource(tissue.astype(np.float32), grid)},
        labels=ArraySource(labels, grid),
        label_scheme=OWN_SCHEME,
    )


def carried(pair: Pair, moving: NDArray[np.uint8], fixed: NDArray[np.uint8]) -> list[NDArray]:
    """The moving leg at each share of its way, ids on cubes of VOXEL_MM."""
    config = load_config(overrides={"segment": {"engine": "given"}})
    canonical = canonicalise(both(moving, fixed), config=config.canonicalise).value
    legs = segment(
        separate_legs(canonical, config=config.separate).value, config=config.segment
    ).value
    match = register(legs, config=default_config().register_).value
    logger.info("%s: mean overlap %.2f", pair, np.mean(list(match.overlap.values())))
    way = match.left_to_right
    assert isinstance(way, CompositeTransform)
    assert isinstance(way.first, CompositeTransform)
    half, flow = way.first.first, way.first.second
    assert isinstance(flow, FlowTransform)
    labels, grid = np.asarray(legs.left.labels.data), legs.left.leg.grid
    return [_at(share, half, flow, labels, grid) for share in pair.shares]


def _at(
    share: float, half: SpatialTransform, flow: FlowTransform, labels: NDArray, grid: Grid
) -> NDArray:
    corners = half.apply(grid.index_to_world(np.argwhere(labels)[::50]))
    low, high = corners.min(axis=0) - 25.0, corners.max(axis=0) + 25.0
    shape = np.ceil((high - low) / VOXEL_MM / _LATTICE).astype(int) + 1
    nodes = np.moveaxis(np.indices(shape), 0, -1) * (VOXEL_MM * _LATTICE) + low
    back = FlowTransform(-share * flow.velocity, flow.grid)
    index = grid.world_to_index(half.inverse().apply(back.apply(nodes)))
    size = tuple(int(n) for n in (shape - 1) * _LATTICE + 1)
    fine = np.stack(
        [ndimage.zoom(index[..., k], np.array(size) / shape, order=1) for k in range(3)]
    )
    return ndimage.map_coordinates(labels, fine, order=0, output=np.uint8)


def with_other_leg(leg: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The leg and its mirror image as a left leg, every _EVERY-th slice: legs lie side by side.

    Slices are shifted sideways, little by little, so that the innermost muscle of every level is
    as far from the middle as that of the others.
    """
    leg = leg[:, :, ::_EVERY]
    inner = np.array([np.argmax(plane.any(axis=1)) for plane in np.moveaxis(leg, 2, 0)])
    shown = leg.any(axis=(0, 1))
    levels = np.arange(len(inner))
    inner = np.interp(levels, levels[shown], inner[shown])
    smooth = ndimage.uniform_filter1d(inner, max(1, round(_SMOOTH_MM / _EVERY / VOXEL_MM)))
    shifts = np.rint(smooth - _MIDLINE_MM / 2.0 / VOXEL_MM).astype(int)
    moved = np.zeros_like(leg)
    for level, shift in enumerate(shifts):
        plane = leg[max(shift, 0) :, :, level]
        start = max(-shift, 0)
        moved[start : start + len(plane), :, level] = plane[: len(moved) - start]
    other = np.where(moved > 0, moved + np.uint8(LEFT_OFFSET), 0).astype(np.uint8)
    return np.concatenate([other[::-1], moved])


def _make(anatomy: Path, out: Path, pair: Pair) -> str:
    sources = {source.name: source for source in read_sources(anatomy)}
    legs = [leg_of(anatomy, sources[name], side) for name, side in (pair.moving, pair.fixed)]
    name = f"{pair.moving[0]}_{pair.moving[1]}_to_{pair.fixed[0]}_{pair.fixed[1]}"
    for number, labels in enumerate(carried(pair, legs[0], legs[1])):
        person = f"{pair.moving[0]}+{pair.fixed[0]}"
        last = (labels.shape[2] - 1) // _EVERY
        source = Source(pair.moving[0], person, "whole", 0, last, ())
        body = prepare(source, with_other_leg(labels), (VOXEL_MM, VOXEL_MM, _EVERY * VOXEL_MM))
        named = Source(f"{name}_{number}", person, "between", 0, last, ())
        # Of vhm only the left leg is carried, and that one is drawn wholly.
        whole = Body(named, body.codes, body.distance, body.spacing_mm, (), complete=True)
        save_body(out / f"between_{named.name}.npz", whole)
    return name


def main() -> None:
    """Make every pair."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anatomy", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.processes) as pool:
        jobs = [pool.submit(_make, arguments.anatomy, arguments.out, pair) for pair in PAIRS]
        for job in jobs:
            logger.info("made %s", job.result())


if __name__ == "__main__":
    main()
