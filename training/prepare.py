"""Step 1: label maps of real people (and phantoms) -> prepared bodies on disk.

    python -m training.prepare --anatomy FOLDER --out FOLDER [--phantoms 8]

A prepared body is one compressed file: codes of training.codes on 0.75 x 0.75 mm in-plane (slices
as the source has them), the distance of every outside pixel from the fascia, and what the source
does not draw. Images are made from it later (training.synthesis).
"""

from __future__ import annotations

import argparse
import csv
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES
from pipeline.phantom import Acquisition, BodyParameters, Pose, acquire, grid_for, make_body
from training.codes import (
    FEMUR,
    MUSCLE_IDS,
    OUTSIDE,
    SEAM,
    TIBIA,
    UNKNOWN,
)

logger = logging.getLogger(__name__)

PIXEL_MM = 0.75
#: Air kept around the labels for the fat and skin that are painted there.
_PAD_MM = 45.0
#: Gaps up to this width between labels are divided among their neighbours; a seam of about one
#: pixel is then cut along every contact, so that all sources draw borders alike.
_GAP_MM = 2.4
#: Unlabelled parts that hold a disc of this radius are something, not a gap.
_PART_RADIUS_MM = 5.0
_PELVIC = (1, 2, 3, 5, 6)
_VASTI = (9, 10, 11)
_LARGEST_DISTANCE_MM = 60.0


@dataclass(frozen=True)
class Source:
    """What is known of one label map.

    Attributes:
        name: of its file, without ending.
        person: maps of one person share it.
        kind: "whole" (all muscles drawn), "automatic" (hips and thighs), "thigh" (11 muscles).
        first, last: usable slices, inclusive.
        faulty: muscles that are wrong in this map: neither target nor background.
    """

    name: str
    person: str
    kind: str
    first: int
    last: int
    faulty: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Body:
    """A prepared body.

    Attributes:
        source: where it comes from.
        codes: uint8 (slices, y, x), RAS; ids + 100 on the left side.
        distance: uint8, quarter millimetres from the fascia, 0 inside, on every other pixel.
        spacing_mm: between slices.
        never_labelled: ids the source does not draw.
        complete: see training.codes.allowed_classes.
    """

    source: Source
    codes: NDArray[np.uint8]
    distance: NDArray[np.uint8]
    spacing_mm: float
    never_labelled: tuple[int, ...]
    complete: bool


def read_sources(anatomy: Path) -> list[Source]:
    """The usable maps of the table quality.tsv, in the order of their names."""
    names = {muscle.name: muscle.id for muscle in MUSCLES}
    sources = []
    with (anatomy / "quality.tsv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            if row["use_slices"] == "none":
                continue
            first, last = (int(part) for part in row["use_slices"].split("-"))
            name = row["file"]
            kind = {"vh": "whole", "mm": "automatic"}.get(name[:2], "thigh")
            person = "_".join(name.split("_")[:2]) if kind == "thigh" else name
            # The column holds names of muscles, or a remark.
            listed = row["zero_weight"].split()
            faulty = tuple(names[m] for m in listed) if set(listed) <= set(names) else ()
            if name == "mm_pelvis_calf":
                faulty = (23, 26, 51, 52, 53)
            sources.append(Source(name, person, kind, first, last, faulty))
    return sorted(sources, key=lambda source: source.name)


def prepare(source: Source, labels: NDArray[np.uint8], voxel_mm: tuple[float, ...]) -> Body:
    """Bring one label map (RAS, ids + 100 on the left) to the common codes and pixel."""
    labels = labels[:, :, source.first : source.last + 1]
    slices = []
    distances = []
    for level in range(labels.shape[2]):
        fine = _upsample(labels[:, :, level].T, voxel_mm[1], voxel_mm[0])
        codes, distance = _complete(fine, source)
        slices.append(codes)
        distances.append(distance)
    never: tuple[int, ...] = {
        "whole": (),
        "phantom": (),
        "automatic": (6, 16, *range(21, 31)),
        "thigh": (1, 2, 3, 4, 5, 6, 14, 15, 16, *range(21, 31)),
    }[source.kind]
    if source.name == "vhm":
        never = (7, 8)
    never = tuple(sorted({*never, *(f for f in source.faulty if f in MUSCLE_IDS)}))
    return Body(
        source,
        np.stack(slices),
        np.stack(distances),
        float(voxel_mm[2]),
        never,
        complete=source.kind in ("whole", "phantom"),
    )


def save_body(path: Path, body: Body) -> None:
    """Write a prepared body."""
    np.savez_compressed(
        path,
        codes=body.codes,
        distance=body.distance,
        spacing_mm=body.spacing_mm,
        never_labelled=np.array(body.never_labelled, dtype=np.int64),
        complete=body.complete,
        person=body.source.person,
        kind=body.source.kind,
    )


def load_body(path: Path) -> Body:
    """Read a prepared body."""
    with np.load(path) as stored:
        codes = stored["codes"]
        source = Source(
            path.stem, str(stored["person"]), str(stored["kind"]), 0, len(codes) - 1, ()
        )
        return Body(
            source,
            codes,
            stored["distance"],
            float(stored["spacing_mm"]),
            tuple(int(value) for value in stored["never_labelled"]),
            bool(stored["complete"]),
        )


def _upsample(labels: NDArray[np.uint8], dy: float, dx: float) -> NDArray[np.uint8]:
    """To the common pixel, with smooth borders: the likeliest of the interpolated labels."""
    pad_y, pad_x = (round(_PAD_MM / d) for d in (dy, dx))
    labels = np.pad(labels, ((pad_y, pad_y), (pad_x, pad_x)))
    shape = [round(n * d / PIXEL_MM) for n, d in zip(labels.shape, (dy, dx), strict=True)]
    scale = np.array([PIXEL_MM / dy, PIXEL_MM / dx])
    offset = (scale - 1.0) / 2.0
    if max(dy, dx) < 1.0:
        return ndimage.affine_transform(
            labels, scale, offset=offset, output_shape=shape, order=0, output=np.uint8
        )
    out = np.zeros(shape, dtype=np.uint8)
    best = np.full(shape, 0.5, dtype=np.float32)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        low = np.array([max(part.start - 3, 0) for part in box])
        high = np.array([part.stop + 3 for part in box])
        mask = (labels[low[0] : high[0], low[1] : high[1]] == value).astype(np.float32)
        mask = ndimage.gaussian_filter(mask, 0.5)
        start = np.floor((low - offset) / scale).astype(int).clip(0)
        stop = np.minimum(np.ceil((high - offset) / scale).astype(int), shape)
        soft = ndimage.affine_transform(
            mask,
            scale,
            offset=offset + scale * start - low,
            output_shape=tuple(stop - start),
            order=1,
        )
        part = (slice(start[0], stop[0]), slice(start[1], stop[1]))
        better = soft > best[part]
        out[part][better] = value
        best[part][better] = soft[better]
    return out


def _complete(
    labels: NDArray[np.uint8], source: Source
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Seams, bones in their holes, what is unknown, and the distance from the fascia."""
    codes = labels.copy()
    side = codes // LEFT_OFFSET
    own = codes % LEFT_OFFSET
    for value in source.faulty:
        codes[own == value] = UNKNOWN + LEFT_OFFSET * side[own == value]
    if source.kind != "phantom":
        codes = _close_gaps(codes)
        codes = _cut_seams(codes)
    inside = np.zeros(codes.shape, dtype=bool)
    present = set(np.unique(codes % LEFT_OFFSET).tolist())
    pelvis = bool(present & set(_PELVIC)) and source.kind != "thigh"
    if pelvis and codes.any():
        inside = convex_hull_image(codes > 0)
        whose = _nearest_side(codes)
        codes = _fill(codes, inside, whose, source, present)
    else:
        for offset in (0, LEFT_OFFSET):
            leg = (codes > offset) & (codes < offset + LEFT_OFFSET)
            if not leg.any():
                continue
            hull = convex_hull_image(leg) if source.kind != "phantom" else _closed(leg)
            hull &= ~((codes > 0) & ~leg)
            whose = np.full(codes.shape, offset, dtype=np.uint8)
            codes = _fill(codes, hull, whose, source, present)
            inside |= hull
    if inside.any():
        distance = ndimage.distance_transform_edt(~inside)[::2, ::2] * PIXEL_MM * 4.0
    else:
        distance = np.full(codes[::2, ::2].shape, 255.0)
    return codes, np.minimum(distance, 4.0 * _LARGEST_DISTANCE_MM).astype(np.uint8)


def _closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    radius = round(12.0 / PIXEL_MM)
    padded = np.pad(mask, radius + 2)
    grown = ndimage.distance_transform_edt(~padded) <= radius
    closed = ndimage.distance_transform_edt(grown) > radius
    return ndimage.binary_fill_holes(closed | padded)[
        radius + 2 : -radius - 2, radius + 2 : -radius - 2
    ]


def _close_gaps(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Divide narrow gaps between labels among the nearest ones."""
    labelled = codes > 0
    if not labelled.any():
        return codes
    radius = _GAP_MM / 2.0 / PIXEL_MM
    distance, nearest = ndimage.distance_transform_edt(~labelled, return_indices=True)
    grown = distance <= radius
    closed = grown & (ndimage.distance_transform_edt(grown) > radius)
    gap = closed & ~labelled
    out = codes.copy()
    out[gap] = codes[nearest[0][gap], nearest[1][gap]]
    return out


def _cut_seams(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One pixel of seam along every contact, taken from either side by turns."""
    out = codes.copy()
    turn = (np.indices(codes.shape).sum(axis=0) // 2) % 2 == 0
    for axis in (0, 1):
        first = np.take(codes, range(codes.shape[axis] - 1), axis=axis)
        second = np.take(codes, range(1, codes.shape[axis]), axis=axis)
        contact = (first != second) & (first > 0) & (second > 0)
        which = np.take(turn, range(codes.shape[axis] - 1), axis=axis)
        for take_first in (True, False):
            hit = np.argwhere(contact & (which == take_first))
            if not take_first:
                hit[:, axis] += 1
            values = codes[hit[:, 0], hit[:, 1]]
            out[hit[:, 0], hit[:, 1]] = SEAM + (values // LEFT_OFFSET) * LEFT_OFFSET
    return out


def _nearest_side(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    nearest = ndimage.distance_transform_edt(
        codes == 0, return_distances=False, return_indices=True
    )
    return ((codes // LEFT_OFFSET) * LEFT_OFFSET)[tuple(nearest)].astype(np.uint8)


def _fill(
    codes: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    whose: NDArray[np.uint8],
    source: Source,
    present: set[int],
) -> NDArray[np.uint8]:
    """Unlabelled pixels inside the fascia: bone, unknown part, or seam."""
    out = codes.copy()
    empty = inside & (codes == OUTSIDE)
    radius = _PART_RADIUS_MM / PIXEL_MM
    core = ndimage.distance_transform_edt(empty) > radius
    part = empty & (ndimage.distance_transform_edt(~core) <= radius) if core.any() else core
    out[empty & ~part] = SEAM + whose[empty & ~part]
    if source.kind == "phantom":
        out[part] = SEAM + whose[part]
        return out
    if FEMUR not in present and present & set(_VASTI):
        out = _draw_femur(out, part)
        part &= out == OUTSIDE
    labelled, count = ndimage.label(part)
    for index in range(1, count + 1):
        piece = labelled == index
        area = float(piece.sum()) * PIXEL_MM**2
        # The side most of it belongs to; not a median, which lies between the sides on a tie.
        offset = LEFT_OFFSET * int(np.mean(whose[piece] > 0) > 0.5)
        value = UNKNOWN
        ring = ndimage.binary_dilation(piece, iterations=round(6.0 / PIXEL_MM)) & (codes > 0)
        touching = set(np.unique(codes[ring] % LEFT_OFFSET).tolist()) - {SEAM, UNKNOWN}
        if TIBIA not in present and touching & {21, 27, 28} and 200.0 < area < 4000.0:
            value = TIBIA
        out[piece] = value + offset
    return out


def _draw_femur(codes: NDArray[np.uint8], part: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The shaft: the largest disc in a hole rimmed by vasti, which may open to the adductors."""
    out = codes.copy()
    free = np.isin(codes % LEFT_OFFSET, (OUTSIDE, SEAM))
    depth, nearest = ndimage.distance_transform_edt(free, return_indices=True)
    rim = codes[nearest[0], nearest[1]]
    for offset in (0, LEFT_OFFSET):
        by_vasti = part & np.isin(rim, [value + offset for value in _VASTI])
        if not by_vasti.any():
            continue
        score = np.where(by_vasti, depth, 0.0)
        y, x = np.unravel_index(int(score.argmax()), score.shape)
        radius = score[y, x] * PIXEL_MM
        if not 8.0 <= radius <= 20.0:
            continue
        angles = np.linspace(0.0, 2 * np.pi, 36, endpoint=False)
        reach = (radius + 5.0) / PIXEL_MM
        ys = np.clip(np.rint(y + reach * np.sin(angles)).astype(int), 0, codes.shape[0] - 1)
        xs = np.clip(np.rint(x + reach * np.cos(angles)).astype(int), 0, codes.shape[1] - 1)
        if np.isin(codes[ys, xs] - offset, _VASTI).mean() < 0.5:
            continue
        rows, columns = np.ogrid[: codes.shape[0], : codes.shape[1]]
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= (radius / PIXEL_MM) ** 2
        out[disc & free] = FEMUR + offset
    return out


def _prepare_map(anatomy: Path, out: Path, source: Source) -> str:
    target = out / f"{source.name}.npz"
    if not target.exists():
        image = nib.as_closest_canonical(nib.load(anatomy / f"{source.name}.nii.gz"))
        labels = np.asarray(image.dataobj).astype(np.uint8)
        body = prepare(source, labels, tuple(float(z) for z in image.header.get_zooms()[:3]))
        save_body(target, body)
    return source.name


def _prepare_phantom(out: Path, seed: int) -> str:
    name = f"phantom_{seed:03d}"
    target = out / f"{name}.npz"
    if not target.exists():
        rng = np.random.default_rng(seed)
        height = float(rng.uniform(1.55, 1.95))
        body = make_body(
            BodyParameters(
                height_m=height,
                mass_kg=float(np.clip(rng.uniform(19.0, 29.0) * height**2, 50.0, 100.0)),
                sex=("female", "male")[seed % 2],
                fatness=float(rng.uniform(0.6, 1.6)),
                asymmetry_percent={m.name: float(rng.normal(0.0, 9.0)) for m in MUSCLES},
                pose=Pose(
                    gap_mm=float(rng.uniform(0.0, 25.0)),
                    rotation_deg=(float(rng.uniform(-5, 20)), float(rng.uniform(-5, 20))),
                    knee_flexion_deg=(float(rng.uniform(0, 12)), float(rng.uniform(0, 12))),
                    shift_mm=(0.0, float(rng.uniform(-8, 8))),
                    sway_mm=float(rng.uniform(-10, 10)),
                ),
                seed=seed,
            ),
            detail="reduced",
        )
        grid = grid_for(body, (1.0, 1.0, 4.0))
        scan = acquire(body, Acquisition(grid, contrasts=(), snr=None, supersampling=(1, 1, 1)))
        levels = scan.labels.data.shape[2]
        source = Source(name, name, "phantom", 0, levels - 1, ())
        save_body(target, prepare(source, np.asarray(scan.labels.data, np.uint8), (1.0, 1.0, 4.0)))
    return name


def main() -> None:
    """Prepare every usable map and the asked number of phantoms."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anatomy", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.processes) as pool:
        jobs = [
            pool.submit(_prepare_map, arguments.anatomy, arguments.out, source)
            for source in sorted(read_sources(arguments.anatomy), key=lambda s: s.kind != "whole")
        ]
        jobs += [
            pool.submit(_prepare_phantom, arguments.out, seed) for seed in range(arguments.phantoms)
        ]
        for job in jobs:
            logger.info("prepared %s", job.result())


if __name__ == "__main__":
    main()
