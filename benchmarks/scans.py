"""Real scans and their labels, in memory, on the canonical grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import shared_data
from pipeline import (
    ArraySource,
    CanonicalScan,
    LabelMap,
    LegMatch,
    LimbMeasures,
    LoadedSubject,
    Quantity,
    SegmentedLegs,
    Side,
    Volume,
    canonicalise,
    default_config,
    measure,
    register,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import LEFT_OFFSET, LEG_SCHEME, MUSCLES, OWN_SCHEME
from pipeline.core.frozen import FrozenDict
from pipeline.core.results import Finding, Measurement
from pipeline.core.transform import identity
from pipeline.engines import Engine
from pipeline.imaging.labels import join_labels
from pipeline.imaging.limb_axis import with_labels
from pipeline.io.nifti import Called, open_nifti

Images = Mapping[Quantity, Volume]
Labels = NDArray[np.integer]

#: Files of each real scan by what they show. A diffusion-weighted image shows water.
REAL: Mapping[str, Mapping[Quantity, str]] = FrozenDict(
    {
        "thigh_dixon_a": {
            Quantity.WATER: "thigh_dixon_a_water",
            Quantity.FAT: "thigh_dixon_a_fat",
        },
        "thigh_water_b": {Quantity.WATER: "thigh_water_b"},
        "thigh_water_c": {Quantity.WATER: "thigh_water_c"},
        "leg_water_d": {Quantity.WATER: "leg_water_d"},
        "leg_dixon_e": {Quantity.WATER: "leg_dixon_e_water", Quantity.FAT: "leg_dixon_e_fat"},
        "leg_dwi_f": {Quantity.WATER: "leg_dwi_f"},
    }
)
#: Their label maps, where there are any.
REFERENCES = {"thigh_water_b": "thigh_water_b_dseg-silver", "leg_dwi_f": "leg_dwi_f_dseg"}


def real_path(stem: str) -> Path:
    """File of a real scan; its folder is kept outside the project."""
    return shared_data() / "images" / f"{stem}.nii.gz"


@lru_cache(maxsize=2)
def real_scan(name: str) -> tuple[Images, LabelMap | None]:
    """Images of a real scan and its reference labels (or None), on the canonical grid."""
    images = {quantity: _source(real_path(stem)) for quantity, stem in REAL[name].items()}
    labels = None
    if name in REFERENCES:
        labels = _source(real_path(REFERENCES[name]))
    subject = LoadedSubject(
        subject="sub-real",
        session=None,
        images=images,
        labels=labels,
        label_scheme=None if labels is None else OWN_SCHEME,
    )
    scan = canonicalise(subject, config=default_config().canonicalise).value
    return scan.images, scan.labels


def read_labels(path: Path) -> LabelMap:
    """A label map in the ids of OWN_SCHEME, on the canonical grid."""
    subject = LoadedSubject(
        subject="sub-labels",
        session=None,
        images={},
        labels=_source(path),
        label_scheme=OWN_SCHEME,
    )
    labels = canonicalise(subject, config=default_config().canonicalise).value.labels
    assert labels is not None
    return labels


def _source(path: Path) -> ArraySource:
    config = default_config().load
    source = open_nifti(
        path,
        Called(path.name),
        affine_tolerance_mm=config.affine_tolerance_mm,
        largest_image_million_voxels=config.largest_image_million_voxels,
    )
    return ArraySource(source.read((0, 0, 0), source.grid.shape), source.grid)


@dataclass(frozen=True, eq=False)
class Labelled:
    """A scan after segmentation.

    Attributes:
        scan: the scan on its canonical grid.
        legs: both legs with labels.
        labels: both legs' labels on the canonical grid, ids of OWN_SCHEME.
        findings: what the stages noticed.
    """

    scan: CanonicalScan
    legs: SegmentedLegs
    labels: NDArray[np.uint8]
    findings: tuple[Finding, ...]


def label(images: Images, engine: Engine, *, given: LabelMap | None = None) -> Labelled:
    """Canonicalise, separate and segment.

    Args:
        images: by quantity, on one grid.
        engine: what finds the muscles.
        given: labels that the engine "given" takes over; other engines do not look at them.

    Raises:
        MyosymmetryError: as the stages do.
    """
    config = default_config()
    subject = LoadedSubject(
        subject="sub-trial",
        session=None,
        images={
            quantity: ArraySource(image.data, image.grid) for quantity, image in images.items()
        },
        labels=None if given is None else ArraySource(given.data, given.grid),
        label_scheme=None if given is None else OWN_SCHEME,
    )
    scan = canonicalise(subject, config=config.canonicalise)
    legs = separate_legs(scan.value, config=config.separate)
    segmented = segment(legs.value, config=config.segment, engine=engine)
    return Labelled(
        scan.value,
        segmented.value,
        join_labels(segmented.value, scan.value.grid),
        (*scan.findings, *legs.findings, *segmented.findings),
    )


def within_levels(labelled: Labelled, levels: slice) -> Labelled:
    """The same labels on some levels (third axis) only, as if nothing else had been labelled."""
    legs = {}
    keep = np.zeros(labelled.scan.grid.shape[2], dtype=np.bool_)
    keep[levels] = True
    for side in Side:
        own = labelled.legs[side]
        data = np.where(keep, own.labels.data, 0).astype(np.uint8)
        legs[side] = with_labels(
            own.leg,
            LabelMap(data, own.leg.grid, LEG_SCHEME),
            confidence=own.confidence,
            labelled=own.labelled & keep,
        )
    segmented = SegmentedLegs(legs[Side.RIGHT], legs[Side.LEFT], labelled.legs.engine)
    return replace(
        labelled, legs=segmented, labels=np.where(keep, labelled.labels, 0).astype(np.uint8)
    )


def measured(labelled: Labelled, *, matched: bool = False) -> LimbMeasures:
    """The measures of a segmented scan.

    Args:
        labelled: the scan.
        matched: register the legs, so that cut muscles are compared where both legs show them;
            else in-view values stand alone.
    """
    config = default_config()
    if matched:
        match = register(labelled.legs, config=config.register_).value
    else:
        spaces = [labelled.legs[side].leg.grid.space for side in (Side.LEFT, Side.RIGHT)]
        match = LegMatch.failed(
            identity(spaces[0], spaces[1]), "not asked for: in-view volumes are compared"
        )
    return measure(labelled.legs, match, config=config.measure).value


def volumes_ml(labels: Labels, voxel_ml: float) -> dict[tuple[str, Side], float]:
    """Volume of every muscle that has a voxel, by name and side, by counting."""
    counts = np.bincount(labels.ravel(), minlength=2 * LEFT_OFFSET)
    return {
        (muscle.name, side): float(counts[value]) * voxel_ml
        for muscle in MUSCLES
        for side, value in ((Side.RIGHT, muscle.id), (Side.LEFT, muscle.id + LEFT_OFFSET))
        if counts[value]
    }


def in_view(measures: LimbMeasures, name: str, side: Side) -> Measurement:
    """Measurement of a muscle on a side."""
    found: Measurement = next(getattr(m, side) for m in measures.muscles if m.name == name)
    return found
