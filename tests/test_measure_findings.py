"""Volumes that cannot be right are said so."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from bodies import VOXEL_MM, body
from legs import changed, phantom_legs
from matches import unregistered

from pipeline import Participant, SegmentedLegs, Side, default_config, measure
from pipeline.core.anatomy import STRUCTURE_IDS
from pipeline.core.results import Finding

GRACILIS, MEDIALIS = STRUCTURE_IDS["gracilis"], STRUCTURE_IDS["vastus_medialis"]


@lru_cache(maxsize=1)
def whole_legs() -> SegmentedLegs:
    return phantom_legs(body(), VOXEL_MM)


def findings_of(legs: SegmentedLegs, participant: Participant | None = None) -> dict[str, list]:
    result = measure(
        legs, unregistered(legs), participant=participant, config=default_config().measure
    )
    found: dict[str, list[Finding]] = {}
    for finding in result.findings:
        found.setdefault(finding.code, []).append(finding)
    return found


def gracilis_grown(labels: np.ndarray) -> np.ndarray:
    """Most of the vastus medialis labelled as gracilis."""
    return np.where(labels == MEDIALIS, GRACILIS, labels)


def test_a_body_as_most_are_raises_no_doubt():
    for participant in (None, Participant(height_m=1.75, mass_kg=72.0)):
        assert (
            not {"volumes_unlikely", "sides_far_apart"}
            & findings_of(whole_legs(), participant).keys()
        )


def test_a_muscle_far_from_the_reference_is_doubted_on_its_side():
    right = changed(whole_legs().right, change=gracilis_grown)
    legs = SegmentedLegs(right, whole_legs().left, whole_legs().engine)
    for participant in (None, Participant(height_m=1.75, mass_kg=72.0)):
        found = findings_of(legs, participant)
        (doubt,) = found["volumes_unlikely"]
        assert doubt.side is Side.RIGHT
        assert "gracilis" in doubt.message
        assert "gracilis" in found["sides_far_apart"][0].message
