"""Canonicalise: everything on one grid, axes closest to right, anterior, superior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.acquisition import acquisition_doubts, gain_of_fat, not_stated, unknown_gain
from pipeline.config import CanonicaliseConfig
from pipeline.core.anatomy import LabelScheme
from pipeline.core.errors import InputError, SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.results import STATIONS_JOINED, SWAP_CORRECTED, Finding, Severity
from pipeline.core.scan import (
    ArraySource,
    CanonicalScan,
    ImageSource,
    Index3,
    LoadedSubject,
    StageResult,
    StorageMap,
)
from pipeline.core.volume import DixonPair, LabelMap, Quantity, Volume, signals
from pipeline.imaging.given_labels import in_own_scheme, values_of, whole_numbers
from pipeline.imaging.lower_limbs import body_mask, find_lower_limbs
from pipeline.imaging.noise import above_noise, bright_signal
from pipeline.imaging.orientation import input_box, nearest_axes, reorient, reoriented_grid
from pipeline.imaging.sampling import centred_lattice, odd_step
from pipeline.imaging.signals import as_image, check_order, check_two_images
from pipeline.imaging.stations import Seam, Station, join_stations
from pipeline.imaging.swaps import exchange, find_swaps
from pipeline.imaging.threads import one_thread
from pipeline.io.schemes import settle_version

_LABELS = "labels"


@dataclass(frozen=True)
class _Turned:
    """A source seen in canonical orientation, whole."""

    source: ImageSource
    storage: StorageMap
    grid: Grid

    def read(self, lower: Index3, upper: Index3, step: int = 1) -> NDArray[Any]:
        """Canonical voxels lower <= i < upper; with a step, the last one is upper - 1."""
        box = input_box(self.storage, lower, upper)
        return reorient(self.source.read(*box, step), self.storage.axes, self.storage.flips)


def _turn(source: ImageSource) -> _Turned:
    axes, flips = nearest_axes(source.grid.affine)
    storage = StorageMap(source.grid, axes, flips, (0, 0, 0))
    return _Turned(source, storage, reoriented_grid(source.grid, axes, flips))


@one_thread()
def canonicalise(
    subject: LoadedSubject, *, config: CanonicaliseConfig
) -> StageResult[CanonicalScan]:
    """Read a subject's images into canonical storage order, cropped to the lower limbs.

    Voxels stay exactly those of the input: axes are renamed and reversed, nothing is resampled.
    A mirrored body gives the mirrored scan.

    Raises:
        InputError: images or labels on different grids, values that are no signal, labels
            without a meaning.
        SubjectUnusableError: a long scan in which no pair of legs is found.
    """
    subject, joining = _joined(subject, config)
    turned = {str(quantity): _turn(source) for quantity, source in subject.images.items()}
    if subject.labels is not None:
        turned[_LABELS] = _turn(subject.labels)
    first_source = _on_one_grid(turned, config.same_grid_tolerance_mm)
    whole = first_source.grid
    first, last, findings = _lower_limbs(subject, turned, whole, config)
    lower, upper = (0, 0, first), (whole.shape[0], whole.shape[1], last)
    canonical = whole.crop(lower, upper)
    stored = first_source.storage
    storage = StorageMap(stored.input_grid, stored.axes, stored.flips, lower)

    images = {
        quantity: as_image(turned[quantity].read(lower, upper), canonical, quantity)
        for quantity in subject.images
    }
    labels = None
    if subject.label_scheme is not None:
        data = turned[_LABELS].read(lower, upper)
        labels = _labels(data, canonical, subject.label_scheme)
        if images:
            check_order(next(iter(images.values())), labels.data, "label map")
    dixon = None
    if Quantity.WATER in images and Quantity.FAT in images:
        check_two_images(images)
        findings += _check_one_scale(images, config)
        if not joining:
            images, undone = _undo_swaps(images)
            findings += undone
        water, fat = images[Quantity.WATER], images[Quantity.FAT]
        valid, fat_noise = above_noise(water.data, fat.data, config.noise_multiple)
        gain, told = gain_of_fat(subject, config)
        findings.append(told)
        dixon = DixonPair(water, fat, valid, gain, fat_noise)
    elif Quantity.FAT_FRACTION in images:
        findings.append(unknown_gain("the map was made elsewhere"))
    settings = [one for stated in subject.settings.values() for one in stated]
    doubts = acquisition_doubts(subject, canonical, config)
    scan = CanonicalScan(
        canonical,
        images,
        dixon,
        labels,
        storage,
        from_isocentre=bool(settings) and all(one.from_isocentre for one in settings),
        caveats=tuple(doubt.code for doubt in doubts),
    )
    unchecked = not_stated(settings) if images else []
    return StageResult(scan, (*joining, *findings, *doubts, *unchecked))


def _joined(
    subject: LoadedSubject, config: CanonicaliseConfig
) -> tuple[LoadedSubject, list[Finding]]:
    """The subject with its stations joined into one image per quantity."""
    if not subject.stations:
        return subject, []
    findings: list[Finding] = []
    stations = []
    for sources in subject.stations:
        turned = {str(quantity): _turn(source) for quantity, source in sources.items()}
        grid = _on_one_grid(turned, config.same_grid_tolerance_mm).grid
        images = {
            quantity: as_image(turned[quantity].read((0, 0, 0), grid.shape), grid, quantity)
            for quantity in sources
        }
        images, undone = _undo_swaps(images)
        findings += undone
        stations.append(Station(grid, {q: image.data for q, image in images.items()}))
    joined = join_stations(stations, largest_million_voxels=config.largest_joined_million_voxels)
    findings += _seam_findings(joined.seams, config)
    findings.append(
        Finding(
            code=STATIONS_JOINED,
            severity=Severity.INFO,
            stage="canonicalise",
            message=f"{len(stations)} stations were joined on one grid of "
            f"{joined.grid.describe()}.",
            value=float(len(stations)),
            unit="stations",
        )
    )
    sources = {q: ArraySource(data, joined.grid) for q, data in joined.images.items()}
    return replace(subject, images=sources, stations=()), findings


def _undo_swaps(
    images: dict[Quantity, Volume],
) -> tuple[dict[Quantity, Volume], list[Finding]]:
    """The images with water and fat exchanged back where a leg shows them exchanged."""
    if not {Quantity.WATER, Quantity.FAT} <= images.keys():
        return images, []
    water, fat = images[Quantity.WATER], images[Quantity.FAT]
    swaps = find_swaps(water.data, fat.data, water.grid)
    if not swaps:
        return images, []
    new_water, new_fat = exchange(water.data, fat.data, water.grid, swaps)
    back = {Quantity.WATER: water.with_data(new_water), Quantity.FAT: fat.with_data(new_fat)}
    return {**images, **back}, [
        Finding(
            code=SWAP_CORRECTED,
            severity=Severity.WARNING,
            stage="canonicalise",
            message=f"Water and fat were exchanged in the {swap.side} leg from "
            f"{swap.low_mm:.0f} to {swap.high_mm:.0f} mm (z); they were exchanged back. "
            "Look at the pictures of this leg.",
            side=swap.side,
            value=(swap.last - swap.first) * water.grid.voxel_sizes_mm[2],
            unit="mm",
        )
        for swap in swaps
    ]


def _seam_findings(seams: Sequence[Seam], config: CanonicaliseConfig) -> list[Finding]:
    findings = []
    for seam in seams:
        where = f"from {seam.low_mm:.0f} to {seam.high_mm:.0f} mm (z)"
        if seam.gap:
            findings.append(
                _seam_finding(
                    "station_gap",
                    f"Nothing was scanned {where}: a station is missing, and the gap was kept.",
                    seam.high_mm - seam.low_mm,
                    None,
                    "mm",
                )
            )
        if seam.guessed_gain is not None:
            findings.append(
                _seam_finding(
                    "station_gain_unknown",
                    f"Two stations show no tissue in common {where}: the brightness of the upper "
                    "one was matched without an overlap. Fat fractions do not depend on it; where "
                    "one image alone was given, compare the muscles above and below.",
                    seam.guessed_gain,
                    None,
                    "times as bright",
                )
            )
        if seam.fat_step is not None and 100 * abs(seam.fat_step) > config.largest_fat_step_points:
            findings.append(
                _seam_finding(
                    "station_fat_step",
                    f"Two stations state different fat fractions where they overlap, {where}.",
                    100 * seam.fat_step,
                    config.largest_fat_step_points,
                    "points",
                )
            )
        if (
            seam.outline_overlap is not None
            and seam.outline_overlap < config.lowest_outline_overlap
        ):
            findings.append(
                _seam_finding(
                    "station_outline_step",
                    f"The outlines of two stations do not fit where they overlap, {where}: "
                    "the person may have moved between them.",
                    seam.outline_overlap,
                    config.lowest_outline_overlap,
                    "1",
                )
            )
    return findings


def _seam_finding(
    code: str, message: str, value: float, threshold: float | None, unit: str
) -> Finding:
    return Finding(
        code=code,
        severity=Severity.WARNING,
        stage="canonicalise",
        message=message,
        value=value,
        threshold=threshold,
        unit=unit,
    )


def _on_one_grid(turned: Mapping[str, _Turned], tolerance_mm: float) -> _Turned:
    """The first of the sources, when all lie on its grid (stored in whatever order)."""
    (first, reference), *others = turned.items()
    for name, source in others:
        same_shape = source.grid.shape == reference.grid.shape
        apart = source.grid.largest_corner_distance_mm(reference.grid)
        if not same_shape or apart > tolerance_mm:
            raise InputError(
                f"The {first} and the {name} image lie on different grids",
                expected=f"{reference.grid.describe()}, as {first}, corners at most "
                f"{tolerance_mm:g} mm apart",
                found=f"{source.grid.describe()}, corners up to {apart:.1f} mm apart",
                action="give images of one acquisition; resample label maps onto the image "
                "with nearest-neighbour interpolation",
            )
    return reference


def _lower_limbs(
    subject: LoadedSubject, turned: Mapping[str, _Turned], whole: Grid, config: CanonicaliseConfig
) -> tuple[int, int, list[Finding]]:
    """Levels to read: all of a scan of the legs, the lower part of one that shows more."""
    levels = whole.shape[2]
    level_mm = whole.voxel_sizes_mm[2]
    long = levels * level_mm > config.longest_lower_limb_mm
    shown = [turned[quantity] for quantity in signals(subject.images)]
    if levels * level_mm <= config.shortest_whole_body_mm or not shown:
        return 0, levels, []
    step = odd_step(config.search_voxel_mm / whole.voxel_volume_mm3 ** (1.0 / 3.0))
    lattice = [centred_lattice(size, step) for size in whole.shape]
    lower = (lattice[0][0], lattice[1][0], lattice[2][0])
    ends = [first + (count - 1) * step + 1 for first, count in lattice]
    shape = tuple(count for _, count in lattice)
    signal = np.zeros(shape, dtype=np.float32)
    for image in shown:
        signal += np.nan_to_num(image.read(lower, (ends[0], ends[1], ends[2]), step))
    found = find_lower_limbs(body_mask(signal), step * level_mm, margin_mm=config.hip_margin_mm)
    if not long and (found is None or not found.of_whole_body):
        return 0, levels, []
    if found is None:
        raise SubjectUnusableError(
            "No pair of legs was found in a scan longer than the lower limbs",
            expected="two legs side by side at its lower end",
            found=f"a scan of {levels * level_mm:.0f} mm without them",
            action="check that the scan shows both legs, and its orientation",
        )
    # What lies between two looked-at levels belongs to the body where either shows it.
    first = 0 if found.first == 0 else lower[2] + (found.first - 1) * step + 1
    last = levels if found.last == lattice[2][1] else lower[2] + found.last * step
    used_mm = (last - first) * level_mm
    return (
        first,
        last,
        [
            Finding(
                code="cropped_to_lower_limbs",
                severity=Severity.INFO,
                stage="canonicalise",
                message=f"The scan shows {levels * level_mm:.0f} mm of the body; "
                f"{used_mm:.0f} mm of it, from the feet to above the hips, were used.",
                value=used_mm,
                threshold=config.longest_lower_limb_mm if long else config.shortest_whole_body_mm,
                unit="mm",
            )
        ],
    )


def _check_one_scale(
    images: Mapping[Quantity, Volume], config: CanonicaliseConfig
) -> list[Finding]:
    """Refuse water and fat whose signals cannot be those of one acquisition; doubt those that
    hardly can."""
    water, fat = (bright_signal(images[q].data) for q in (Quantity.WATER, Quantity.FAT))
    usual, largest = config.usual_signal_ratio, config.largest_signal_ratio
    if max(water, fat) > largest * min(water, fat):
        raise InputError(
            "The water and the fat image are on different scales",
            expected=f"bright signals within a factor of {largest:g}",
            found=f"{water:.4g} in water, {fat:.4g} in fat",
            action="check the scale in the files (scl_slope, RescaleSlope), and export them again",
        )
    if max(water, fat) <= usual * min(water, fat):
        return []
    return [
        Finding(
            code="water_fat_scale",
            severity=Severity.WARNING,
            stage="canonicalise",
            message=f"What is bright in the water image ({water:.4g}) and in the fat image "
            f"({fat:.4g}) differs more than usual. Unless nearly all muscle has turned to fat, the "
            "images are on different scales, and fat fractions and lean volumes are wrong: check "
            "the scale in the files (scl_slope, RescaleSlope).",
            value=fat / water,
            threshold=usual if fat > water else 1.0 / usual,
            unit="fat to water",
        )
    ]


def _labels(data: NDArray[Any], grid: Grid, scheme: LabelScheme) -> LabelMap:
    """A given label map in the project's own ids."""
    integers = whole_numbers(data)
    values = values_of(integers)
    return in_own_scheme(integers, values, grid, settle_version(scheme, values))
