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
from pipeline.core.errors import InputError
from pipeline.core.grid import Grid
from pipeline.core.match import BY_STRUCTURE, LegMatch
from pipeline.core.results import Finding
from pipeline.core.scan import CanonicalScan, EngineInfo, LegPair, SegmentedLegs
from pipeline.core.soft import Confidence
from pipeline.core.transform import SpatialTransform
from pipeline.core.volume import LabelMap, Quantity, Volume
from pipeline.io.derivatives import (
    SubjectFolder,
    flow_of,
    read_json,
    transform_from_json,
    transform_to_json,
    write_json,
)
from pipeline.io.digest import file_digest
from pipeline.io.nifti import (
    read_label_map,
    read_vectors,
    write_label_map,
    write_map,
    write_vectors,
    write_volume,
)

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
    Quantity.OTHER,
)
#: Fields of a match that are saved as they are, besides those by structure.
_MATCH_VALUES = (
    "succeeded",
    "reason",
    "similarity",
    "similarity_before",
    "similar_image",
    "inverse_error_mm",
    "folded_voxels",
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
            "labels": file_digest(folder.labels),
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
    current.

    Raises:
        InputError: the file has been changed since it was written.
    """
    record = read_json(folder.label_record)
    if not isinstance(record, dict) or record.get("key") != key or not folder.labels.is_file():
        return None
    if file_digest(folder.labels) != record["labels"]:
        raise InputError(
            f"{folder.labels.name} is not as this program wrote it",
            expected=f"corrected labels in a file of their own, {folder.manual_labels.name}",
            found="a file that was changed since",
            action=f"rename it to {folder.manual_labels.name}, or make it again with --force",
        )
    labels = read_label_map(folder.labels, OWN_SCHEME)
    findings = [Finding.model_validate(finding) for finding in record["findings"]]
    return labels, EngineInfo(**record["engine"]), record["sides"], findings


def confidences(saved: Mapping[str, Mapping[str, Any]]) -> dict[str, Confidence]:
    """What save_segmentation wrote of the confidence of one leg."""
    return {
        name: Confidence(values["agreement"], tuple(values["volume_ratios"]))
        for name, values in saved.items()
    }


def flags_of_levels(levels: list[int] | None, count: int) -> NDArray[np.bool_]:
    """The flags that save_segmentation shortened to first and last level."""
    flags = np.zeros(count, dtype=np.bool_)
    if levels is not None:
        flags[levels[0] : levels[1] + 1] = True
    return flags


def save_match(
    folder: SubjectFolder,
    grid: Grid,
    legs: LegPair,
    match: LegMatch,
    change: tuple[NDArray[np.float32], Grid] | None,
    findings: Sequence[Finding],
    key: str,
) -> None:
    """The transforms between the legs and to the scanner, how good they are, what was noticed.

    Args:
        folder: where to.
        grid: canonical grid of the scan.
        legs: both legs.
        match: how they correspond.
        change: log Jacobian on a grid of the right leg's space, for display; None: no match.
        findings: of the stage.
        key: what the match rests on.
    """
    for path in (folder.transform, folder.velocity, folder.log_jacobian):
        path.unlink(missing_ok=True)
    flow = flow_of(match.left_to_right)
    if flow is not None:
        write_vectors(folder.velocity, flow.velocity, flow.grid)
    if change is not None:
        values, here = change
        to_scanner = legs.right.to_scanner
        there = Grid(here.shape, to_scanner.matrix @ here.affine, to_scanner.to_space)
        write_map(folder.log_jacobian, values, there)
    write_json(
        folder.transform,
        {
            "key": key,
            "note": "points in RAS mm; the left leg is mirrored into right-leg pose; the flow in "
            "the middle is exp of the velocities saved beside this file",
            "canonical_grid": {
                "shape": list(grid.shape),
                "affine": grid.affine.tolist(),
                "space": grid.space,
            },
            "right_to_scanner": transform_to_json(legs.right.to_scanner),
            "left_to_scanner": transform_to_json(legs.left.to_scanner),
            "left_to_right": transform_to_json(match.left_to_right),
            **{name: getattr(match, name) for name in _MATCH_VALUES},
            **{name: dict(getattr(match, name)) for name in BY_STRUCTURE},
            "findings": [finding.model_dump(mode="json") for finding in findings],
        },
    )


def load_match(folder: SubjectFolder, key: str) -> tuple[LegMatch, list[Finding]] | None:
    """The saved match and what was noticed when it was made; None if it is not current."""
    record = read_json(folder.transform)
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    transform = load_transform(folder, record)
    match = LegMatch(
        left_to_right=transform,
        right_to_left=transform.inverse(),
        **{name: record[name] for name in (*_MATCH_VALUES, *BY_STRUCTURE)},
    )
    return match, [Finding.model_validate(finding) for finding in record["findings"]]


def load_transform(folder: SubjectFolder, record: Mapping[str, Any]) -> SpatialTransform:
    """The transform from the left leg to the right one of the record in folder.transform."""
    return transform_from_json(
        record["left_to_right"], lambda shape: read_vectors(folder.velocity, shape)
    )


def save_images(
    folder: SubjectFolder, scan: CanonicalScan, fractions: NDArray[np.float32] | None
) -> None:
    """The images the report shows: one background, and the fat fraction (NaN = undefined)."""
    # Images of an earlier run may be of other contrasts and on another grid.
    for quantity in {*BACKGROUNDS, Quantity.FAT_FRACTION}:
        folder.canonical_image(quantity).unlink(missing_ok=True)
    for quantity in BACKGROUNDS:
        if quantity in scan.images:
            path = folder.canonical_image(quantity)
            write_volume(path, scan.images[quantity], dtype=np.int16)
            break
    if fractions is not None:
        stored = np.where(np.isnan(fractions), np.float32(UNDEFINED_FRACTION), fractions)
        image = Volume(stored, scan.grid, Quantity.FAT_FRACTION, "1")
        write_volume(folder.canonical_image(Quantity.FAT_FRACTION), image, dtype=np.int16)
