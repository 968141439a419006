"""A network against people it has never seen: the two bodies labelled from hip to ankle.

Meant for a network that was trained without the person: give its file with --weights. For the
shipped network, which has seen both, the figures say only that nothing is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import asymmetry_percent, dice, mean
from benchmarks.common import Report, command_line, engine_of, shared_data
from benchmarks.perturb import labels_on
from benchmarks.pictures import overlay
from benchmarks.scans import Labelled, Labels, label, measured, read_labels, volumes_ml
from benchmarks.simulator import Protocol, Simulated, simulate, tissue_of
from pipeline import LabelMap, Quantity, Side
from pipeline.core.anatomy import GROUPS, LEFT_OFFSET, MUSCLES, STRUCTURE_IDS
from pipeline.core.errors import MyosymmetryError
from pipeline.engines import Engine
from pipeline.imaging.asymmetry import Z95

#: Usable slices of the label maps, and muscles they do not label (which are never scored).
BODIES: dict[str, tuple[slice, frozenset[tuple[str, Side]]]] = {
    "vhf": (slice(0, 685), frozenset()),
    "vhm": (
        slice(0, 766),
        frozenset({("rectus_femoris", Side.RIGHT), ("sartorius", Side.RIGHT)}),
    ),
}
PROTOCOLS = {
    "dixon": Protocol((Quantity.WATER, Quantity.FAT), (1.9, 1.9, 5.0), seed=701),
    "T1w": Protocol((Quantity.T1W,), (1.6, 1.6, 6.0), fascia_mm=0.8, snr=30.0, seed=702),
    "water": Protocol(
        (Quantity.WATER,), (1.5, 1.5, 6.0), fascia_mm=0.5, spread=0.08, bias=0.3, seed=703
    ),
}
REGION_LIMITS = {"thigh": 0.82, "hip": 0.72, "leg": 0.65}
COMPARTMENT_LIMIT = 0.85
LARGE_ML = 100.0


def run(options: argparse.Namespace) -> Report:
    """Simulate each body in each contrast, label it and compare."""
    report, engine = Report(), engine_of(options)
    for body in options.bodies:
        levels, unlabelled = BODIES[body]
        labels = read_labels(shared_data() / "anatomy" / f"{body}.nii.gz")
        labels = completed(_on_levels(labels, levels), unlabelled)
        tissue = tissue_of(labels, seed=options.seed)
        for contrast in options.contrasts:
            simulated = simulate(tissue, PROTOCOLS[contrast])
            _one(report, engine, options, (body, contrast), simulated, unlabelled)
        _criteria(report, body)
    return report


def _on_levels(labels: LabelMap, levels: slice) -> LabelMap:
    shape = labels.grid.shape
    grid = labels.grid.crop((0, 0, levels.start), (shape[0], shape[1], levels.stop))
    return LabelMap(labels.data[:, :, levels], grid, labels.scheme)


def completed(labels: LabelMap, missing: frozenset[tuple[str, Side]]) -> LabelMap:
    """Muscles that a map lacks on one side, filled in from the mirrored other side.

    A leg without its rectus femoris would be no leg. What is filled in is never scored. Slice by
    slice the mirrored muscle is moved so that the centres of all muscles both sides have agree.
    """
    data = np.array(labels.data)
    for name, side in sorted(missing):
        own, other = (LEFT_OFFSET, 0) if side is Side.LEFT else (0, LEFT_OFFSET)
        absent = {STRUCTURE_IDS[n] for n, _ in missing}
        shared = [m.id for m in MUSCLES if m.id not in absent]
        shifts = np.full((data.shape[2], 2), np.nan)
        for k in range(data.shape[2]):
            here = np.isin(data[:, :, k], [v + own for v in shared])
            there = np.isin(data[::-1, :, k], [v + other for v in shared])
            if here.any() and there.any():
                centres = [np.argwhere(mask).mean(axis=0) for mask in (here, there)]
                shifts[k] = centres[0] - centres[1]
        value = STRUCTURE_IDS[name]
        for k in np.flatnonzero((data == value + other).any(axis=(0, 1))):
            if np.isnan(shifts[k]).any():
                continue
            place = np.argwhere(data[::-1, :, k] == value + other) + np.rint(shifts[k]).astype(int)
            place = place[((place >= 0) & (place < data.shape[:2])).all(axis=1)]
            place = place[data[place[:, 0], place[:, 1], k] == 0]
            data[place[:, 0], place[:, 1], k] = value + own
    return LabelMap(data, labels.grid, labels.scheme)


def _one(
    report: Report,
    engine: Engine,
    options: argparse.Namespace,
    case: tuple[str, str],
    simulated: Simulated,
    unlabelled: frozenset[tuple[str, Side]],
) -> None:
    body, contrast = case
    try:
        found = label(simulated.images, engine, given=simulated.labels)
    except MyosymmetryError as error:
        report.notes.append(f"{body}, {contrast}: {error}")
        return
    truth = labels_on(simulated.labels.data, simulated.labels.grid, found.scan.grid)
    for table, rows in (
        ("muscles", _muscles(found, truth, simulated, unlabelled)),
        ("compartments", _compartments(found, truth, unlabelled)),
    ):
        for row in rows:
            report.add(table, body=body, contrast=contrast, **row)
    overlay(
        options.out / f"unseen_{body}_{contrast}.png",
        next(iter(found.scan.images.values())).data,
        {"found": found.labels, "truth": truth},
        sizes_mm=found.scan.grid.voxel_sizes_mm,
        title=f"{body}, simulated {contrast}",
    )


def _muscles(
    found: Labelled, truth: Labels, simulated: Simulated, unlabelled: frozenset[tuple[str, Side]]
) -> Iterator[dict[str, Any]]:
    """What was found of each muscle, beside the truth."""
    own = volumes_ml(found.labels, found.scan.grid.voxel_volume_ml)
    results = {row.name: row for row in measured(found).muscles}
    for muscle in MUSCLES:
        sides = {side: (muscle.name, side) not in unlabelled for side in Side}
        scores = {
            side: _score(found.labels, truth, (muscle.id,), side) if scored else None
            for side, scored in sides.items()
        }
        true_ai, ai = (
            asymmetry_percent(
                volumes.get((muscle.name, Side.RIGHT)), volumes.get((muscle.name, Side.LEFT))
            )
            if all(sides.values())
            else None
            for volumes in (simulated.volumes_ml, own)
        )
        result = results[muscle.name]
        yield {
            "muscle": muscle.name,
            "region": muscle.region,
            "dice_right": scores[Side.RIGHT],
            "dice_left": scores[Side.LEFT],
            "true_volume_ml": mean([simulated.volumes_ml.get((muscle.name, s)) for s in Side]),
            "volume_ml": mean([own.get((muscle.name, s)) for s in Side]),
            "true_asymmetry": true_ai,
            "asymmetry": ai,
            "asymmetry_error": None if ai is None or true_ai is None else ai - true_ai,
            "se_method": result.asymmetry_total_volume.se_method_percent,
            "repeats_right": result.right.repeat_volume_ratios,
            "repeats_left": result.left.repeat_volume_ratios,
        }


def _compartments(
    found: Labelled, truth: Labels, unlabelled: frozenset[tuple[str, Side]]
) -> Iterator[dict[str, Any]]:
    """Overlap of each compartment on the sides where all of its muscles have a label."""
    for group in GROUPS:
        if group.kind != "compartment":
            continue
        ids = tuple(STRUCTURE_IDS[name] for name in group.muscles)
        for side in Side:
            if not any((name, side) in unlabelled for name in group.muscles):
                score = _score(found.labels, truth, ids, side)
                yield {"compartment": group.name, "side": str(side), "dice": score}


def _score(labels: Labels, truth: Labels, ids: tuple[int, ...], side: Side) -> float | None:
    offset = LEFT_OFFSET if side is Side.LEFT else 0
    wanted = [value + offset for value in ids]
    found: NDArray[np.bool_] = np.isin(labels, wanted)
    return dice(found, np.isin(truth, wanted))


def _criteria(report: Report, body: str) -> None:
    rows = [row for row in report.tables.get("muscles", []) if row["body"] == body]
    for region, limit in REGION_LIMITS.items():
        part = [row for row in rows if row["region"] == region]
        scores = list(_scores(part))
        report.at_least(f"{body}: mean Dice, {region}", mean(scores), limit)
        errors = [abs(row["asymmetry_error"]) for row in part if row["asymmetry_error"] is not None]
        report.report(f"{body}: mean absolute AI error, all of {region}, points", mean(errors))
    groups = [row["dice"] for row in report.tables.get("compartments", []) if row["body"] == body]
    report.at_least(f"{body}: mean Dice of compartments", mean(groups), COMPARTMENT_LIMIT)
    large = [
        row
        for row in rows
        if row["region"] == "thigh"
        and row["true_asymmetry"] is not None
        and row["true_volume_ml"] > LARGE_ML
    ]
    missing = sum(row["asymmetry"] is None for row in large)
    errors = [abs(row["asymmetry_error"]) for row in large if row["asymmetry"] is not None]
    report.at_most(
        f"{body}: mean absolute AI error, thigh muscles above 100 mL, points", mean(errors), 4.0
    )
    report.report(f"{body}: of these, not found on both sides", missing)
    judged = [row for row in rows if row["asymmetry_error"] is not None and row["se_method"]]
    held = [abs(row["asymmetry_error"]) <= Z95 * row["se_method"] for row in judged]
    report.report(
        f"{body}: share of muscles whose error lies within the method's own 95 % interval",
        float(np.mean(held)) if held else None,
    )


def _scores(rows: list[dict[str, float | None]]) -> Iterator[float | None]:
    for row in rows:
        yield row["dice_right"]
        yield row["dice_left"]


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--bodies", nargs="+", choices=list(BODIES), default=list(BODIES))
    parser.add_argument("--contrasts", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--seed", type=int, default=7)


if __name__ == "__main__":
    sys.exit(command_line("unseen_anatomy", __doc__, run, extend))
