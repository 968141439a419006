"""The evidence of a report, read back from the saved derivatives of a subject."""

from __future__ import annotations

import numpy as np

from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.grid import Grid
from pipeline.core.volume import LabelMap, Quantity
from pipeline.imaging.labels import crop_of
from pipeline.imaging.orientation import nearest_axes, reorient, reoriented_grid
from pipeline.io.derivatives import SubjectFolder, affine_from_json, read_json
from pipeline.io.nifti import read_label_map, read_map, read_volume
from pipeline.io.stage_results import BACKGROUNDS, UNDEFINED_FRACTION, load_transform
from pipeline.report.evidence import ReportEvidence


def load_evidence(folder: SubjectFolder) -> ReportEvidence | None:
    """Labels, pictures and transforms of a processed subject; None where they are not saved."""
    record = read_json(folder.transform)
    if not isinstance(record, dict) or not folder.measured_labels.is_file():
        return None
    stated = record["canonical_grid"]
    grid = Grid(tuple(stated["shape"]), np.array(stated["affine"]), stated["space"])
    stored = read_label_map(folder.measured_labels, OWN_SCHEME)
    axes, flips = nearest_axes(stored.grid.affine)
    turned = reoriented_grid(stored.grid, axes, flips)
    labels = crop_of(turned, grid, reorient(stored.data, axes, flips))
    image = None
    for quantity in BACKGROUNDS:
        path = folder.canonical_image(quantity)
        if path.is_file():
            image = read_volume(path, quantity, grid.space)
            break
    fractions = None
    path = folder.canonical_image(Quantity.FAT_FRACTION)
    if path.is_file():
        fractions = read_volume(path, Quantity.FAT_FRACTION, grid.space).data.copy()
        fractions[fractions < 0.5 * UNDEFINED_FRACTION] = np.nan
        fractions = np.clip(fractions, 0.0, 1.0)
    change = None
    if record["succeeded"] and folder.log_jacobian.is_file():
        change = read_map(folder.log_jacobian, grid.space)
    left_to_right = load_transform(folder, record) if record["succeeded"] else None
    return ReportEvidence(
        labels=LabelMap(labels, grid, OWN_SCHEME),
        image=image,
        fat_fraction=fractions,
        right_to_scanner=affine_from_json(record["right_to_scanner"]),
        left_to_scanner=affine_from_json(record["left_to_scanner"]),
        right_to_left=None if left_to_right is None else left_to_right.inverse(),
        log_jacobian=change,
    )
