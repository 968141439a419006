"""What happens to scans that show no legs, and to a slab of 30 mm at the knee."""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Report, command_line, engine_of
from benchmarks.scans import Images, Labels, label, measured, volumes_ml
from pipeline import Grid, Quantity, Side, Volume
from pipeline.core.errors import MyosymmetryError
from pipeline.core.results import Status
from pipeline.core.scan import SCANNER_SPACE
from pipeline.engines import Engine
from pipeline.phantom import Acquisition, BodyParameters, acquire, grid_for, make_body

Floats = NDArray[np.float64]

_SHAPE, _VOXEL_MM = (180, 120, 40), (2.2, 2.2, 5.0)
_SD = 15.0
_MUSCLE, _FAT, _FLUID = (1000.0, 60.0), (60.0, 950.0), (1100.0, 10.0)
_KNEE_MM = (-15.0, 15.0)
#: Truth of fewer voxels than this is no muscle in view.
_FEW_VOXELS = 3


def run(options: argparse.Namespace) -> Report:
    """Label each scan; whatever is found where there is no leg was invented."""
    report, engine = Report(), engine_of(options)
    for name, (water, fat) in scenes().items():
        _no_leg(report, engine, name, _scan(water, fat))
    _knee(report, engine)
    return report


def scenes() -> dict[str, tuple[Floats, Floats]]:
    """Noise-free water and fat images by name."""
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * d for n, d in zip(_SHAPE, _VOXEL_MM, strict=True)),
        indexing="ij",
    )
    empty = np.zeros(_SHAPE), np.zeros(_SHAPE)
    noise = np.random.default_rng(31).uniform(0.0, 1000.0, (2, *_SHAPE))
    head = _shells(
        [
            ((x / 78) ** 2 + (y / 98) ** 2 + (z / 95) ** 2, 1.00, _FAT),
            ((x / 78) ** 2 + (y / 98) ** 2 + (z / 95) ** 2, 0.90, (40.0, 40.0)),
            ((x / 78) ** 2 + (y / 98) ** 2 + (z / 95) ** 2, 0.78, (900.0, 20.0)),
            ((x / 10) ** 2 + ((y + 5) / 25) ** 2 + (z / 30) ** 2, 1.0, _FLUID),
        ]
    )
    abdomen = _shells(
        [
            ((x / 165) ** 2 + (y / 110) ** 2, 1.00, _FAT),
            ((x / 145) ** 2 + (y / 90) ** 2, 1.00, _MUSCLE),
            ((x / 130) ** 2 + ((y - 5) / 76) ** 2, 1.00, (120.0, 700.0)),
            (((x - 60) / 60) ** 2 + ((y - 10) / 50) ** 2 + (z / 80) ** 2, 1.00, (800.0, 50.0)),
            (((x + 70) / 30) ** 2 + ((y + 20) / 30) ** 2 + (z / 60) ** 2, 1.00, (950.0, 20.0)),
            ((x / 22) ** 2 + ((y + 50) / 20) ** 2, 1.00, (300.0, 400.0)),
            (((np.abs(x) - 45) / 22) ** 2 + ((y + 60) / 20) ** 2, 1.00, _MUSCLE),
        ]
    )
    bottle = _shells([((x / 55) ** 2 + (y / 55) ** 2, 1.0, _FLUID)])
    bottles = _shells([(((np.abs(x) - 80) / 55) ** 2 + (y / 55) ** 2, 1.0, _FLUID)])
    aside = np.abs(x) - 100.0
    ball = (aside / 78) ** 2 + (y / 98) ** 2 + (z / 95) ** 2
    heads = _shells(
        [
            (ball, 1.00, _FAT),
            (ball, 0.90, (40.0, 40.0)),
            (ball, 0.78, (900.0, 20.0)),
        ]
    )
    tube = (aside / 70) ** 2 + (y / 70) ** 2
    tubes = _shells(
        [
            (tube, 1.0, _FAT),
            (tube, 0.8, _MUSCLE),
            (((aside - 20) / 14) ** 2 + ((y + 10) / 14) ** 2, 1.0, _FAT),
        ]
    )
    return {
        "empty room": empty,
        "noise": (noise[0], noise[1]),
        "head": head,
        "abdomen": abdomen,
        "bottle": bottle,
        "two bottles": bottles,
        "two balls with shells, as two heads": heads,
        "two tubes of muscle with a core, in fat": tubes,
    }


def _shells(
    parts: list[tuple[Floats, float, tuple[float, float]]],
) -> tuple[Floats, Floats]:
    """Water and fat painted over each other where a distance is below a bound."""
    water, fat = np.zeros(_SHAPE), np.zeros(_SHAPE)
    for distance, bound, (w, f) in parts:
        inside = np.broadcast_to(distance < bound, _SHAPE)
        water[inside], fat[inside] = w, f
    return water, fat


def _scan(water: Floats, fat: Floats) -> Images:
    affine = np.diag([*_VOXEL_MM, 1.0])
    grid = Grid(_SHAPE, affine, SCANNER_SPACE)
    rng = np.random.default_rng(32)
    out = {}
    for quantity, clean in ((Quantity.WATER, water), (Quantity.FAT, fat)):
        noise = _SD * rng.standard_normal((2, *_SHAPE))
        magnitude = np.hypot(clean + noise[0], noise[1]).astype(np.float32)
        out[quantity] = Volume(magnitude, grid, quantity)
    return out


def _no_leg(report: Report, engine: Engine, name: str, images: Images) -> None:
    try:
        found = label(images, engine)
    except MyosymmetryError as error:
        report.add(
            "scenes",
            scene=name,
            exit_code=error.exit_code,
            muscles=0,
            volume_ml=0.0,
            said=str(error),
        )
        report.at_most(f"{name}: muscles invented", 0, 0)
        return
    volumes = volumes_ml(found.labels, found.scan.grid.voxel_volume_ml)
    report.add(
        "scenes",
        scene=name,
        exit_code=0,
        muscles=len(volumes),
        volume_ml=sum(volumes.values()),
        said=", ".join(sorted({f.code for f in found.findings})),
    )
    report.at_most(f"{name}: muscles invented", len(volumes), 0)
    report.at_least(f"{name}: an exit code or a finding that says so", len(found.findings), 1)


def _knee(report: Report, engine: Engine) -> None:
    body = make_body(BodyParameters(seed=5900), detail="reduced")
    grid = grid_for(body, (1.6, 1.6, 5.0), z_range_mm=_KNEE_MM)
    scan = acquire(body, Acquisition(grid, seed=5900))
    try:
        found = label(scan.images, engine, given=scan.labels)
    except MyosymmetryError as error:
        report.add(
            "scenes",
            scene="knee, 30 mm",
            exit_code=error.exit_code,
            muscles=0,
            volume_ml=0.0,
            said=str(error),
        )
        report.at_least("knee: muscles found", 0, 1)
        return
    true_names = _names(scan.labels.data)
    extra, whole = [], []
    measures = measured(found)
    for muscle in measures.muscles:
        for side in Side:
            state = getattr(muscle, side)
            if state.status is Status.ABSENT:
                continue
            true = (muscle.name, side) in true_names
            report.add(
                "knee",
                muscle=muscle.name,
                side=str(side),
                there=true,
                status=str(state.status),
                volume_ml=state.volume_in_view_ml,
            )
            if not true:
                extra.append(muscle.name)
            if state.status is not Status.TRUNCATED:
                whole.append(muscle.name)
    report.report("knee: muscles there", len(true_names))
    report.at_least("knee: muscles found", len(report.tables.get("knee", [])), 1)
    report.at_most("knee: muscles found that are not there", len(extra), 0)
    report.at_most("knee: muscles found that are not truncated", len(whole), 0)


def _names(labels: Labels) -> set[tuple[str, Side]]:
    """Muscles of which a scan shows more than a trace."""
    return {key for key, voxels in volumes_ml(labels, 1.0).items() if voxels >= _FEW_VOXELS}


if __name__ == "__main__":
    sys.exit(command_line("not_legs", __doc__, run))
