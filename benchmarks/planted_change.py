"""Muscles of one leg made larger, smaller, fatter or wasted by a known amount in real scans.

The mask that is warped or fattened is the silver label where the scan has one (in the slices in
which it is good), else the engine's own label of the undisturbed scan. Planted is what the
undisturbed asymmetry would become if the muscle's volume changed by exactly the share by which the
warp changes the mask (its Jacobian, integrated over it), or by what turns into fat around it.
Total volume and, where the scan gives one, lean volume are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.agreement import asymmetry_percent, mean
from benchmarks.common import Report, SkippedError, command_line, engine_of
from benchmarks.perturb import foreground, grid_of, wasted
from benchmarks.real_scans import SILVER_SLICES
from benchmarks.scans import Images, Labelled, in_view, label, measured, real_scan, within_levels
from benchmarks.warp import PlaneWarp, planted
from pipeline import LimbMeasures, Quantity, Side, Volume
from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES, STRUCTURE_IDS
from pipeline.core.errors import MyosymmetryError
from pipeline.engines import Engine

R, L = Side.RIGHT, Side.LEFT
#: What a few voxels more or less hardly change.
LARGE_ML = 100.0


@dataclass(frozen=True)
class Case:
    """One change of one muscle: relative volume, fat fraction added, or an outer rim of so many
    millimetres turned into fat."""

    scan: str
    muscle: str
    side: Side
    volume: float = 0.0
    fat: float = 0.0
    wasted_mm: float = 0.0

    @property
    def kind(self) -> str:
        return "volume" if self.volume else "fat" if self.fat else "wasted"


def _both_ways(scan: str, muscle: str, side: Side, *shares: float) -> Iterator[Case]:
    for share in shares:
        yield Case(scan, muscle, side, volume=-share)
        yield Case(scan, muscle, side, volume=share)


#: 34 changes of volume, 6 of fat inside a muscle and 8 of fat in the place of its outside.
CASES: tuple[Case, ...] = (
    *_both_ways("thigh_water_b", "vastus_lateralis", R, 0.05, 0.10, 0.20),
    *_both_ways("thigh_water_b", "rectus_femoris", L, 0.05, 0.10, 0.20),
    *_both_ways("thigh_water_b", "vastus_medialis", R, 0.10),
    *_both_ways("thigh_water_b", "adductor_magnus", L, 0.10),
    *_both_ways("thigh_water_b", "semitendinosus", R, 0.10),
    *_both_ways("thigh_water_b", "biceps_femoris_long", L, 0.10),
    *_both_ways("thigh_water_c", "vastus_lateralis", L, 0.10),
    *_both_ways("thigh_water_c", "semimembranosus", R, 0.10),
    *_both_ways("leg_water_d", "soleus", R, 0.10),
    *_both_ways("leg_water_d", "gastrocnemius_medialis", L, 0.10),
    *_both_ways("leg_water_d", "tibialis_anterior", R, 0.10),
    *_both_ways("leg_dixon_e", "soleus", L, 0.10),
    *_both_ways("leg_dixon_e", "gastrocnemius_medialis", R, 0.20),
    Case("leg_dixon_e", "soleus", R, fat=0.10),
    Case("leg_dixon_e", "gastrocnemius_lateralis", L, fat=0.20),
    Case("leg_dixon_e", "tibialis_anterior", R, fat=0.10),
    Case("thigh_dixon_a", "vastus_lateralis", R, fat=0.10),
    Case("thigh_dixon_a", "semimembranosus", L, fat=0.20),
    Case("thigh_dixon_a", "rectus_femoris", R, fat=0.10),
    Case("thigh_dixon_a", "vastus_lateralis", L, wasted_mm=1.5),
    Case("thigh_dixon_a", "adductor_magnus", R, wasted_mm=1.5),
    Case("leg_dixon_e", "soleus", R, wasted_mm=1.5),
    Case("leg_dixon_e", "gastrocnemius_medialis", L, wasted_mm=1.5),
    Case("thigh_water_b", "vastus_lateralis", L, wasted_mm=1.5),
    Case("thigh_water_b", "rectus_femoris", R, wasted_mm=1.5),
    Case("thigh_water_c", "vastus_medialis", R, wasted_mm=1.5),
    Case("leg_water_d", "tibialis_anterior", L, wasted_mm=1.5),
)


@dataclass(frozen=True, eq=False)
class _Start:
    """A scan before anything is planted: images, masks to plant in, and what is measured."""

    images: Images
    masks: NDArray[np.uint8]
    levels: slice
    measures: LimbMeasures


def run(options: argparse.Namespace) -> Report:
    """Plant each change, run segmentation and measurement again, compare."""
    if options.engine == "given":
        raise SkippedError("muscles must be found anew in each changed image")
    report, engine = Report(), engine_of(options)
    starts: dict[str, _Start | str] = {}
    for case in CASES[: options.cases]:
        if case.scan not in starts:
            starts.clear()
            try:
                starts[case.scan] = _start(case.scan, engine, matched=options.matched)
            except MyosymmetryError as error:
                starts[case.scan] = str(error)
        start = starts[case.scan]
        if isinstance(start, str):
            _failed(report, case, start)
        else:
            _try(report, engine, case, start, matched=options.matched)
    _criteria(report, options.cases)
    return report


def _start(scan: str, engine: Engine, *, matched: bool) -> _Start:
    images, reference = real_scan(scan)
    found = label(images, engine)
    levels = slice(0, found.scan.grid.shape[2])
    masks = found.labels
    if scan == "thigh_water_b" and reference is not None:
        levels, masks = SILVER_SLICES, np.asarray(reference.data, dtype=np.uint8)
    measures = measured(within_levels(found, levels), matched=matched)
    return _Start(images, masks, levels, measures)


def _failed(report: Report, case: Case, why: str) -> None:
    report.add(
        "cases", scan=case.scan, muscle=case.muscle, side=str(case.side), outcome=why, kind="-"
    )


def _try(report: Report, engine: Engine, case: Case, start: _Start, *, matched: bool) -> None:
    value = STRUCTURE_IDS[case.muscle] + (LEFT_OFFSET if case.side is L else 0)
    mask = start.masks == value
    mask[:, :, : start.levels.start] = mask[:, :, start.levels.stop :] = False
    if not mask.any():
        _failed(report, case, "the muscle was not found in the undisturbed scan")
        return
    warp, kept = None, mask
    if case.volume:
        air = ~ndimage.binary_dilation(foreground(start.images), iterations=2)
        sizes = grid_of(start.images).voxel_sizes_mm
        warp = planted(mask, case.volume, air=air, sizes_mm=sizes[:2])
        images = warped(start.images, warp)
    elif case.fat:
        images = fattened(start.images, mask, case.fat)
    else:
        images, lost = wasted(start.images, mask.astype(np.uint8), case.wasted_mm)
        kept = mask & ~lost
    try:
        found = within_levels(label(images, engine), start.levels)
    except MyosymmetryError as error:
        _failed(report, case, str(error))
        return
    after = measured(found, matched=matched)
    for of in ("volume", "lean"):
        if of == "lean" and None in _sides(start.measures, case.muscle, of):
            continue
        if warp is not None:
            # The deformation moves tissue and leaves its fat fraction as it is.
            share = warp.share_of(mask)
        elif of == "volume":
            share = float(kept.sum() / mask.sum()) - 1.0
        else:
            share = _lean(images, kept) / _lean(start.images, mask) - 1.0
        _compare(report, case, of, share, start, found, after, warp)


def warped(images: Images, warp: PlaneWarp) -> Images:
    """All images under one deformation."""
    return {q: Volume(warp.image(v.data), v.grid, q) for q, v in images.items()}


def fattened(images: Images, mask: NDArray[np.bool_], share: float) -> Images:
    """A share of the water signal inside a mask turned into fat signal."""
    water, fat = images[Quantity.WATER], images[Quantity.FAT]
    moved = np.where(mask, np.float32(share) * water.data, np.float32(0.0))
    return {
        Quantity.WATER: water.with_data(water.data - moved),
        Quantity.FAT: fat.with_data(fat.data + moved),
    }


def _lean(images: Images, mask: NDArray[np.bool_]) -> float:
    """Sum of W / (W + F) over a mask, in voxels; of W where there is no fat image."""
    water = images[Quantity.WATER].data[mask]
    if Quantity.FAT not in images:
        return float(np.sum(water))
    total = water + images[Quantity.FAT].data[mask]
    return float(np.sum(water[total > 0] / total[total > 0]))


def _compare(
    report: Report,
    case: Case,
    of: str,
    share: float,
    start: _Start,
    found: Labelled,
    after: LimbMeasures,
    warp: PlaneWarp | None,
) -> None:
    before = _sides(start.measures, case.muscle, of)
    now = _sides(after, case.muscle, of)
    old, new = asymmetry_percent(*before), asymmetry_percent(*now)
    factor = [1.0 + share * (side is case.side) for side in (R, L)]
    goal = asymmetry_percent(
        *(None if v is None else v * f for v, f in zip(before, factor, strict=True))
    )
    neighbours = list(_neighbours(start, after, case, of, warp))
    any_size = max(neighbours, key=lambda n: abs(n.moved), default=None)
    large = [n for n in neighbours if n.volume_ml > LARGE_ML]
    largest = max(large, key=lambda n: abs(n.moved), default=None)
    report.add(
        "cases",
        scan=case.scan,
        muscle=case.muscle,
        side=str(case.side),
        kind=case.kind,
        of=of,
        planted_share=share,
        planted_change=None if goal is None or old is None else goal - old,
        measured_change=None if new is None or old is None else new - old,
        undisturbed_ai=old,
        neighbour=None if any_size is None else any_size.name,
        neighbour_change=None if any_size is None else any_size.moved,
        large_neighbour=None if largest is None else largest.name,
        large_neighbour_change=None if largest is None else largest.moved,
        status=str(in_view(after, case.muscle, case.side).status),
        findings=", ".join(sorted({f.code for f in found.findings})),
        outcome="compared" if new is not None and old is not None else "not measured",
    )


def _sides(measures: LimbMeasures, name: str, of: str) -> list[float | None]:
    """Right and left volume: of the matched extent where the legs were matched, else in view."""
    out = []
    for side in (R, L):
        m = in_view(measures, name, side)
        lean = of == "lean"
        matched = m.lean_volume_matched_ml if lean else m.volume_matched_ml
        seen = m.lean_volume_in_view_ml if lean else m.volume_in_view_ml
        out.append(seen if matched is None else matched)
    return out


@dataclass(frozen=True)
class _Neighbour:
    """A muscle beside the changed one: its volume, and how far its AI moved beyond the warp."""

    name: str
    volume_ml: float
    moved: float


def _neighbours(
    start: _Start, after: LimbMeasures, case: Case, of: str, warp: PlaneWarp | None
) -> Iterator[_Neighbour]:
    """Muscles beside the changed one, compared with what the warp does to them."""
    offset = LEFT_OFFSET if case.side is L else 0
    grown = ndimage.binary_dilation(
        start.masks == STRUCTURE_IDS[case.muscle] + offset, iterations=3
    )
    for muscle in MUSCLES:
        own = start.masks == muscle.id + offset
        if muscle.name == case.muscle or not (own & grown).any():
            continue
        own[:, :, : start.levels.start] = own[:, :, start.levels.stop :] = False
        share = 0.0 if warp is None or not own.any() else warp.share_of(own)
        before = _sides(start.measures, muscle.name, of)
        factor = [1.0 + share * (side is case.side) for side in (R, L)]
        goal = asymmetry_percent(
            *(None if v is None else v * f for v, f in zip(before, factor, strict=True))
        )
        now = asymmetry_percent(*_sides(after, muscle.name, of))
        volume = before[0 if case.side is R else 1]
        if goal is not None and now is not None and volume is not None:
            yield _Neighbour(muscle.name, volume, now - goal)


def slope_of(planted_changes: NDArray[np.float64], measured_changes: NDArray[np.float64]) -> float:
    """Least-squares slope of measured against planted changes, through the origin."""
    return float(planted_changes @ measured_changes / (planted_changes @ planted_changes))


def _criteria(report: Report, cases: int) -> None:
    rows = report.tables.get("cases", [])
    compared = [row for row in rows if row["outcome"] == "compared"]
    report.report("cases planted", cases)
    report.report("rows that could not be compared", len(rows) - len(compared))
    planted_inside = [row for row in compared if row["kind"] != "wasted"]
    for what, part in (
        ("all but wasted", planted_inside),
        ("volume", [row for row in compared if row["kind"] == "volume" and row["of"] == "volume"]),
        ("fat, lean volume", [r for r in compared if r["kind"] == "fat" and r["of"] == "lean"]),
        ("wasted, volume", [r for r in compared if r["kind"] == "wasted" and r["of"] == "volume"]),
        ("wasted, lean", [r for r in compared if r["kind"] == "wasted" and r["of"] == "lean"]),
    ):
        planted_changes = np.array([row["planted_change"] for row in part])
        if not np.any(planted_changes):
            report.report(f"slope of measured against planted AI, {what}", None)
            continue
        slope = slope_of(planted_changes, np.array([row["measured_change"] for row in part]))
        if part is planted_inside:
            report.at_most(
                f"|slope of measured against planted AI - 1|, {what}", abs(slope - 1), 0.1
            )
        report.report(f"slope of measured against planted AI, {what}", slope)
        errors = [abs(row["measured_change"] - row["planted_change"]) for row in part]
        report.report(f"mean absolute error of the change, {what}, points", mean(errors))
    for what, column in (
        ("a neighbour's AI", "neighbour_change"),
        (f"the AI of a neighbour above {LARGE_ML:.0f} mL", "large_neighbour_change"),
    ):
        moved = [abs(r[column]) for r in planted_inside if r[column] is not None]
        report.below(f"largest change of {what}, points", max(moved, default=None), 1.0)
        report.report(f"{what}: median over the rows", float(np.median(moved)) if moved else None)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first cases")
    parser.add_argument("--matched", action="store_true", help="register, compare matched extents")


if __name__ == "__main__":
    sys.exit(command_line("planted_change", __doc__, run, extend))
