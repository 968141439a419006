"""Saved results of stages: what each writes, and how it is found again and trusted.

A saved result is used only when the key beside it equals the key of the run that asks. The key
is written last, so that a run that was killed in between leaves nothing that looks whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import OWN_SCHEME, Side
from pipeline.core.grid import Grid
from pipeline.core.match import LegMatch, MatchedExtent
from pipeline.core.results import Finding
from pipeline.core.scan import CanonicalScan, EngineInfo, LegPair, LimbAxis, SegmentedLegs
from pipeline.core.soft import Confidence
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.io.derivatives import (
    SubjectFolder,
    read_json,
    transform_from_json,
    transform_to_json,
    write_json,
)
from pipeline.io.nifti import read_label_map, write_label_map, write_volume

#: Undefined fat fractions are stored as this and read back as NaN.
UNDEFINED_FRACTION = -1.0
#: The picture behind the labels in the report: the first of these that was scanned.
BACKGROUNDS = (
    Quantity.WATER,
    Quantity.T1W,
    Quantity.IN_PHASE,
    Quantity.OPPOSED_PHASE,
    Quantity.FAT,
    Quantity.FAT_FRACTION,
)


def save_segmentation(
    folder: SubjectFolder,
    labels: LabelMap,
    legs: SegmentedLegs,
    findings: Sequence[Finding],
    key: str,
) -> None:
    """Labels of both legs on the grid of the input, and what the stage said besides."""
    folder.label_record.unlink(missing_ok=True)
    write_label_map(folder.labels, labels)
    sides = {}
    for side in Side:
        levels = np.flatnonzero(legs[side].labelled)
        sides[str(side)] = {
            "confidence": {
                name: asdict(confidence) for name, confidence in legs[side].confidence.items()
            },
            "labelled_levels": [int(levels[0]), int(levels[-1])] if levels.size else None,
        }
    engine = legs.engine
    write_json(
        folder.label_record,
        {
            "key": key,
            "engine": {
                "name": engine.name,
                "version": engine.version,
                "digest": engine.digest,
            },
            "sides": sides,
            "findings": [finding.model_dump(mode="json") for finding in findings],
        },
    )


def load_segmentation(
    folder: SubjectFolder, key: str
) -> tuple[LabelMap, EngineInfo, Mapping[str, Any], list[Finding]] | None:
    """Saved labels on the grid of the input, engine, facts by side and findings; None if not
    current."""
    record = read_json(folder.label_record)
    if not isinstance(record, dict) or record.get("key") != key or not folder.labels.is_file():
        return None
    labels = read_label_map(folder.labels, OWN_SCHEME)
    findings = [Finding.model_validate(finding) for finding in record["findings"]]
    return labels, EngineInfo(**record["engine"]), record["sides"], findings


def confidences(saved: Mapping[str, Mapping[str, Any]]) -> dict[str, Confidence]:
    """What save_segmentation wrote of the confidence of one leg."""
    return {
        name: Confidence(values["agreement"], tuple(values["volume_ratios"]))
        for name, values in saved.items()
    }


def labelled_levels(levels: list[int] | None, count: int) -> NDArray[np.bool_]:
    """The flags that save_segmentation shortened to first and last level."""
    flags = np.zeros(count, dtype=np.bool_)
    if levels is not None:
        flags[levels[0] : levels[1] + 1] = True
    return flags


def save_match(folder: SubjectFolder, grid: Grid, legs: LegPair, match: LegMatch, key: str) -> None:
    """The transforms between the legs and to the scanner, and how good they are."""
    extent = None
    if match.extent is not None:
        axis = match.extent.axis
        extent = {
            "low_mm": match.extent.low_mm,
            "high_mm": match.extent.high_mm,
            "axis": {
                name: getattr(axis, name)
                for name in ("hip", "knee", "ankle", "direction", "origin")
            },
        }
    write_json(
        folder.transform,
        {
            "key": key,
            "note": "points in RAS mm; the left leg is mirrored into right-leg pose",
            "canonical_grid": {
                "shape": list(grid.shape),
                "affine": grid.affine.tolist(),
                "space": grid.space,
            },
            "right_to_scanner": transform_to_json(legs.right.to_scanner),
            "left_to_scanner": transform_to_json(legs.left.to_scanner),
            "left_to_right": transform_to_json(match.left_to_right),
            "succeeded": match.succeeded,
            "reason": match.reason,
            "overlap": dict(match.overlap),
            "overlap_before": dict(match.overlap_before),
            "surface_distance_mm": dict(match.surface_distance_mm),
            "inverse_error_mm": match.inverse_error_mm,
            "extent": extent,
        },
    )


def load_match(folder: SubjectFolder, key: str) -> LegMatch | None:
    """The saved match; None if it is not current."""
    record = read_json(folder.transform)
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    transform = transform_from_json(record["left_to_right"])
    extent = None
    if record["extent"] is not None:
        axis: dict[str, Any] = {
            name: None if point is None else tuple(point)
            for name, point in record["extent"]["axis"].items()
        }
        extent = MatchedExtent(
            LimbAxis(**axis), record["extent"]["low_mm"], record["extent"]["high_mm"]
        )
    kept = ("overlap", "overlap_before", "surface_distance_mm", "inverse_error_mm")
    return LegMatch(
        left_to_right=transform,
        right_to_left=transform.inverse(),
        extent=extent,
        succeeded=record["succeeded"],
        reason=record["reason"],
        **{name: record[name] for name in kept},
    )


def save_images(
    folder: SubjectFolder, scan: CanonicalScan, fractions: NDArray[np.float32] | None
) -> None:
    """The images the report shows: one background, and the fat fraction (NaN = undefined)."""
    for quantity in BACKGROUNDS:
        if quantity in scan.images:
            path = folder.canonical_image(quantity)
            write_volume(path, scan.images[quantity], dtype=np.int16)
            break
    if fractions is not None:
        stored = np.where(np.isnan(fractions), np.float32(UNDEFINED_FRACTION), fractions)
        image = Volume(stored, scan.grid, Quantity.FAT_FRACTION, "1")
        write_volume(folder.canonical_image(Quantity.FAT_FRACTION), image, dtype=np.int16)
