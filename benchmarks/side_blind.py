"""Real scans in the mirror, half a voxel off, and a leg beside its own mirror image."""

from __future__ import annotations

import argparse
import sys

import numpy as np
from scipy import ndimage

from benchmarks.agreement import asymmetry_percent
from benchmarks.common import Report, command_line, engine_of
from benchmarks.perturb import mirrored, shifted
from benchmarks.scans import REAL, Images, Labelled, label, real_scan, volumes_ml
from pipeline import Grid, Side, Volume
from pipeline.core.anatomy import MUSCLES
from pipeline.core.errors import MyosymmetryError

LARGE_ML = 100.0
HALF_A_VOXEL = (0.5, 0.5)
#: Air between a leg and its mirror image on each side of the middle, in voxels.
_GAP = 6


def run(options: argparse.Namespace) -> Report:
    """Asymmetries of each scan, of its mirror image, and of each leg beside its own."""
    report, engine = Report(), engine_of(options)
    for name in options.scans:
        images, _ = real_scan(name)
        try:
            before = label(images, engine)
            turned = label(shifted(mirrored(images), HALF_A_VOXEL), engine)
            legs = {
                (side, off): label(beside_its_mirror_image(images, before, side, off), engine)
                for side in Side
                for off in (False, True)
            }
        except MyosymmetryError as error:
            report.notes.append(f"{name}: {error}")
            continue
        _compare(report, name, before, turned, legs)
    rows = [row for row in report.tables.get("asymmetry", []) if row["volume_ml"] > LARGE_ML]
    report.below("largest change of AI in the mirror above 100 mL", _largest(rows, "sum"), 1.0)
    for side in Side:
        for what in ("alone", "shifted"):
            report.below(
                f"largest |AI| above 100 mL, {side} leg and its mirror image, {what}",
                _largest(rows, f"{side}_{what}"),
                0.5,
            )
    report.report("muscles above 100 mL", len(rows))
    report.notes.append(
        "alone: the mirror image is exact, voxel by voxel; shifted: it lies half a voxel off in "
        "both directions of the plane."
    )
    return report


def beside_its_mirror_image(images: Images, labelled: Labelled, side: Side, shift: bool) -> Images:
    """A scan of one leg and its mirror image, with air between them.

    Args:
        images: both legs, on the canonical grid.
        labelled: their segmentation, which tells the legs apart.
        side: the leg that is kept.
        shift: whether the mirror image lies half a voxel off.
    """
    leg = labelled.legs[side].leg
    own = np.zeros(labelled.scan.grid.shape, dtype=np.bool_)
    own[leg.canonical_box] = leg.to_canonical(leg.tissue)
    # Skin and what little signal lies around the leg belong to it, the other leg does not.
    own = ndimage.binary_dilation(own, np.ones((3, 3, 1)), iterations=2)
    columns = np.flatnonzero(own.any(axis=(1, 2)))
    part = slice(columns[0], columns[-1] + 1)
    out = {}
    for quantity, image in images.items():
        data = np.where(own, image.data, 0.0)[part].astype(np.float32)
        # The first axis grows to the right: a right leg keeps its place, a left one is put first.
        right = np.pad(data if side is Side.RIGHT else data[::-1], ((_GAP, _GAP), (0, 0), (0, 0)))
        grid = image.grid
        half = Grid(right.shape, grid.affine, grid.space)
        copy = Volume(np.ascontiguousarray(right[::-1]), half, quantity)
        if shift:
            copy = shifted({quantity: copy}, HALF_A_VOXEL)[quantity]
        both = np.concatenate([copy.data, right], axis=0)
        out[quantity] = Volume(both, Grid(both.shape, grid.affine, grid.space), quantity)
    return out


def _compare(
    report: Report,
    name: str,
    before: Labelled,
    turned: Labelled,
    legs: dict[tuple[Side, bool], Labelled],
) -> None:
    voxel_ml = before.scan.grid.voxel_volume_ml
    volumes = volumes_ml(before.labels, voxel_ml)
    others = {
        "mirrored": turned,
        **{f"{side}_{'shifted' if off else 'alone'}": found for (side, off), found in legs.items()},
    }
    counted = {what: volumes_ml(found.labels, voxel_ml) for what, found in others.items()}
    for muscle in MUSCLES:
        sizes = [volumes[muscle.name, side] for side in Side if (muscle.name, side) in volumes]
        if not sizes:
            continue
        index = _index(volumes, muscle.name)
        indices = {what: _index(found, muscle.name) for what, found in counted.items()}
        mirror = indices["mirrored"]
        report.add(
            "asymmetry",
            scan=name,
            muscle=muscle.name,
            volume_ml=float(np.mean(sizes)),
            asymmetry=index,
            sum=None if index is None or mirror is None else index + mirror,
            **indices,
        )


def _index(volumes: dict[tuple[str, Side], float], name: str) -> float | None:
    return asymmetry_percent(volumes.get((name, Side.RIGHT)), volumes.get((name, Side.LEFT)))


def _largest(rows: list[dict[str, float | None]], column: str) -> float | None:
    values = [abs(row[column]) for row in rows if row[column] is not None]
    return max(values, default=None)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument(
        "--scans", nargs="+", choices=list(REAL), default=[n for n in REAL if n != "leg_dwi_f"]
    )


if __name__ == "__main__":
    sys.exit(command_line("side_blind", __doc__, run, extend))
