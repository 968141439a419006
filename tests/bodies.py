"""Phantom scans for tests, and the stages run on them in memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from pipeline import (
    OWN_SCHEME,
    ArraySource,
    Grid,
    LabelMap,
    LegMatch,
    LimbMeasures,
    LoadedSubject,
    SegmentedLegs,
    Side,
    canonicalise,
    load_config,
    measure,
    register,
    segment,
    separate_legs,
)
from pipeline.io.nifti import write_label_map, write_volume
from pipeline.phantom import (
    Acquisition,
    Body,
    BodyParameters,
    Pose,
    Scan,
    acquire,
    grid_for,
    make_body,
)

#: Named asymmetries of the test person, percent.
ASYMMETRY = {
    "vastus_lateralis": 10.0,
    "soleus": -8.0,
    "gluteus_maximus": 5.0,
    "semitendinosus": 20.0,
    "gracilis": -12.0,
    "tibialis_anterior": 15.0,
}
PERSON = BodyParameters(
    asymmetry_percent=ASYMMETRY,
    fat_fraction={("soleus", Side.LEFT): 0.15, ("soleus", Side.RIGHT): 0.05},
    pose=Pose(gap_mm=8.0, rotation_deg=(5.0, -3.0), shift_mm=(0.0, 7.3)),
    seed=1,
)
VOXEL_MM = (4.0, 4.0, 8.0)
#: The default configuration, but labels are given: what comes after them is tested quickly.
GIVEN = load_config(overrides={"segment": {"engine": "given"}})


@cache
def body() -> Body:
    """The test person at reduced detail."""
    return make_body(PERSON, detail="reduced")


@cache
def small_scan() -> Scan:
    """Whole legs of the test person on a coarse grid."""
    return acquire(body(), Acquisition(grid_for(body(), VOXEL_MM), seed=1))


def loaded(scan: Scan, *, labels: bool = True) -> LoadedSubject:
    """A scan as a loaded subject with its true labels as given labels."""
    return LoadedSubject(
        subject="sub-test",
        session=None,
        images={q: ArraySource(v.data, v.grid) for q, v in scan.images.items()},
        labels=ArraySource(scan.labels.data, scan.labels.grid) if labels else None,
        label_scheme=OWN_SCHEME if labels else None,
    )


def run_stages(subject: LoadedSubject) -> tuple[LimbMeasures, LegMatch, SegmentedLegs]:
    """All stages from canonicalise to measure, with the subject's own labels."""
    config = GIVEN
    scan = canonicalise(subject, config=config.canonicalise).value
    legs = separate_legs(scan, config=config.separate).value
    segmented = segment(legs, config=config.segment).value
    match = register(segmented, config=config.register_).value
    return measure(segmented, match, config=config.measure).value, match, segmented


@cache
def thighs() -> Scan:
    """Of the small scan the thighs only: most muscles are cut and compared where both are seen."""
    levels = small_scan().labels.grid.shape[2]
    return cropped(small_scan(), levels // 2, levels * 3 // 4)


@cache
def small_results() -> tuple[LimbMeasures, LegMatch, SegmentedLegs]:
    """What the stages find in the small scan."""
    return run_stages(loaded(small_scan()))


@cache
def thigh_results() -> LimbMeasures:
    """What the stages find in the thighs."""
    return run_stages(loaded(thighs()))[0]


def write_subject(folder: Path, scan: Scan) -> None:
    """Write a scan as a subject's folder of NIfTI files."""
    folder.mkdir(parents=True, exist_ok=True)
    for quantity, volume in scan.images.items():
        write_volume(folder / f"{folder.name}_{quantity}.nii.gz", volume, dtype=np.int16)
    write_label_map(folder / f"{folder.name}_dseg.nii.gz", scan.labels)


def cropped(scan: Scan, first: int, last: int) -> Scan:
    """Only levels first <= k < last of a scan."""
    grid = scan.labels.grid
    part: Grid = grid.crop((0, 0, first), (grid.shape[0], grid.shape[1], last))
    images = {q: type(v)(v.data[:, :, first:last], part, q, v.unit) for q, v in scan.images.items()}
    labels = LabelMap(scan.labels.data[:, :, first:last], part, OWN_SCHEME)
    return Scan(images, labels, scan.truth_on_grid, scan.noise_sd)
