"""Real scans against labels and fat fractions made by others, with pictures to look at."""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from benchmarks.agreement import dice, mean, rank_correlation, surface_dice, tolerance_dice
from benchmarks.common import Report, command_line, engine_of
from benchmarks.pictures import overlay
from benchmarks.scans import REAL, Labelled, label, measured, real_scan
from pipeline import LabelMap, Side
from pipeline.core.anatomy import LEFT_OFFSET, STRUCTURE_IDS, muscle
from pipeline.core.errors import MyosymmetryError
from pipeline.core.results import Status
from pipeline.imaging.tissue import fat_fraction

#: Slices and muscles for which the silver labels of thigh_water_b are good on both sides.
SILVER_SLICES = slice(8, 21)
SILVER_IDS = (7, 8, 9, 10, 11, 12, 13, 14, 17, 19, 20)
SURFACE_TOLERANCE_MM = 1.5
#: Mean fat fraction by muscle of thigh_dixon_a, both sides together, as its authors give them.
PUBLISHED_FAT = {
    "sartorius": 0.205,
    "rectus_femoris": 0.216,
    "vastus_lateralis": 0.331,
    "vastus_intermedius": 0.369,
    "vastus_medialis": 0.350,
    "adductor_magnus": 0.224,
    "gracilis": 0.127,
    "biceps_femoris_long": 0.325,
    "semitendinosus": 0.202,
    "semimembranosus": 0.267,
    "biceps_femoris_short": 0.198,
}
_THIGH = (*range(7, 15), 17, 18, 19, 20)
_CALF = tuple(range(21, 30))
#: Muscles of which each scan clearly shows a part, on both sides; whichever of them has no trusted
#: value counts as withheld.
IN_VIEW = {
    "thigh_dixon_a": _THIGH,
    "thigh_water_b": _THIGH,
    "thigh_water_c": tuple(value for value in _THIGH if value != 14),
    "leg_water_d": _CALF,
    "leg_dixon_e": _CALF,
    "leg_dwi_f": _CALF,
}


def run(options: argparse.Namespace) -> Report:
    """Label every real scan and hold it against what is known of it."""
    report, engine = Report(), engine_of(options)
    for name in options.scans:
        images, reference = real_scan(name)
        started = time.perf_counter()
        try:
            found = label(images, engine, given=reference)
        except MyosymmetryError as error:
            report.add("scans", scan=name, outcome=str(error))
            continue
        seconds = time.perf_counter() - started
        _withheld(report, name, found, seconds)
        if name == "thigh_water_b" and reference is not None:
            _against_silver(report, found, reference)
        if name == "leg_dwi_f" and reference is not None:
            _against_manual(report, found.labels, reference)
        if name == "thigh_dixon_a":
            _against_published(report, found)
        shown = {"found": found.labels}
        if reference is not None:
            shown["reference"] = np.asarray(reference.data)
        overlay(
            options.out / f"{name}.png",
            next(iter(found.scan.images.values())).data,
            shown,
            sizes_mm=found.scan.grid.voxel_sizes_mm,
            title=name,
        )
    return report


def _withheld(report: Report, name: str, found: Labelled, seconds: float) -> None:
    """How many of the muscles in view have no trusted value."""
    measures = measured(found)
    states = [(m.name, side, getattr(m, side)) for m in measures.muscles for side in Side]
    for muscle_name, side, state in states:
        if state.status is not Status.ABSENT:
            report.add(
                "muscles",
                scan=name,
                muscle=muscle_name,
                side=str(side),
                status=str(state.status),
                volume_ml=state.volume_in_view_ml,
                confidence=state.confidence,
            )
    trusted = {
        (n, side)
        for n, side, s in states
        if s.status is not Status.ABSENT and s.why_doubted is None
    }
    expected = [(muscle(value).name, side) for value in IN_VIEW[name] for side in Side]
    share = sum(key not in trusted for key in expected) / len(expected)
    report.add(
        "scans",
        scan=name,
        outcome="labelled",
        seconds=seconds,
        muscles_found=sum(s.status is not Status.ABSENT for *_, s in states),
        withheld_share=share,
        findings=", ".join(sorted({f.code for f in found.findings})),
    )
    report.at_most(f"{name}: share of muscles in view that are withheld or not found", share, 0.15)


def _against_silver(report: Report, found: Labelled, reference: LabelMap) -> None:
    sizes = found.scan.grid.voxel_sizes_mm
    scores, surfaces = [], []
    for value in SILVER_IDS:
        for side, offset in ((Side.RIGHT, 0), (Side.LEFT, LEFT_OFFSET)):
            mine = found.labels[:, :, SILVER_SLICES] == value + offset
            theirs = reference.data[:, :, SILVER_SLICES] == value + offset
            score = dice(mine, theirs)
            surface = surface_dice(
                mine, theirs, sizes_mm=sizes[:2], tolerance_mm=SURFACE_TOLERANCE_MM
            )
            ratio = np.count_nonzero(mine) / max(1, np.count_nonzero(theirs))
            report.add(
                "thigh_water_b",
                muscle=muscle(value).name,
                side=str(side),
                dice=score,
                surface_dice=surface,
                volume_ratio=float(ratio),
            )
            scores.append(score)
            surfaces.append(surface)
    report.at_least("thigh_water_b: mean Dice, silver labels, slices 8 to 20", mean(scores), 0.85)
    worst = min((s for s in scores if s is not None), default=None)
    report.at_least("thigh_water_b: lowest Dice of a muscle", worst, 0.70)
    report.report("thigh_water_b: mean surface Dice at 1.5 mm", mean(surfaces))


def _against_manual(report: Report, labels: np.ndarray, reference: LabelMap) -> None:
    """Tolerant Dice of muscles drawn by hand, on the levels that were drawn."""
    levels = reference.data.any(axis=(0, 1))
    scores = []
    for value in sorted({int(v) for v in np.unique(reference.data)} - {0}):
        mine = (labels == value) & levels
        theirs = reference.data == value
        scores.append(tolerance_dice(mine, theirs))
        report.add(
            "leg_dwi_f",
            muscle=muscle(value).name,
            side=str(Side.LEFT if value > LEFT_OFFSET else Side.RIGHT),
            tolerance_dice=scores[-1],
            dice=dice(mine, theirs),
        )
    what = "leg_dwi_f: mean Dice with one voxel of tolerance"
    report.at_least(what, mean(scores), 0.75)
    report.notes.append(
        "leg_dwi_f: a voxel counts as right when the other label map has it or one of its four "
        "neighbours in the plane (3 mm). The sides of this scan cannot be verified."
    )


def _against_published(report: Report, found: Labelled) -> None:
    """Mean F / (F + W) of the voxels of each muscle, both sides together."""
    assert found.scan.dixon is not None
    fractions = fat_fraction(found.scan.dixon)
    pairs = []
    for name, published in PUBLISHED_FAT.items():
        value = STRUCTURE_IDS[name]
        inside = np.isin(found.labels, (value, value + LEFT_OFFSET))
        values = fractions[inside]
        own = float(np.nanmean(values)) if np.isfinite(values).any() else None
        report.add("thigh_dixon_a", muscle=name, fat_fraction=own, published=published)
        if own is not None:
            pairs.append((own, published))
    missing = len(PUBLISHED_FAT) - len(pairs)
    differences = [abs(a - b) for a, b in pairs]
    report.at_most(
        "thigh_dixon_a: mean absolute difference of fat fractions",
        None if missing else mean(differences),
        0.025,
    )
    report.at_least(
        "thigh_dixon_a: rank correlation of fat fractions",
        None if missing else rank_correlation(*zip(*pairs, strict=True)),
        0.9,
    )
    if missing:
        report.notes.append(f"thigh_dixon_a: {missing} of 11 muscles were not found at all.")


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--scans", nargs="+", choices=list(REAL), default=list(REAL))


if __name__ == "__main__":
    sys.exit(command_line("real_scans", __doc__, run, extend))
