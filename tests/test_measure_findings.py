"""Volumes that cannot be right are said so."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from bodies import VOXEL_MM, body
from legs import changed, phantom_legs
from matches import unregistered

from pipeline import (
    LimbMeasures,
    Participant,
    SegmentedLegs,
    Side,
    StageResult,
    default_config,
    load_config,
    measure,
)
from pipeline.config import MeasureConfig
from pipeline.core.anatomy import MUSCLES_BY_NAME, STRUCTURE_IDS
from pipeline.core.results import Finding, Verdict
from pipeline.measuring.limits import HealthyLimit, healthy_limit, se_of_limit

GRACILIS, MEDIALIS = STRUCTURE_IDS["gracilis"], STRUCTURE_IDS["vastus_medialis"]


DEFAULT = default_config().measure


@lru_cache(maxsize=1)
def whole_legs() -> SegmentedLegs:
    return phantom_legs(body(), VOXEL_MM)


def measured(
    legs: SegmentedLegs,
    participant: Participant | None = None,
    config: MeasureConfig = DEFAULT,
) -> StageResult[LimbMeasures]:
    return measure(legs, unregistered(legs), participant=participant, config=config)


def findings_of(legs: SegmentedLegs, participant: Participant | None = None) -> dict[str, list]:
    found: dict[str, list[Finding]] = {}
    for finding in measured(legs, participant).findings:
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


def test_a_limit_says_how_unsure_it_is_itself():
    """12 % of 21 people: SD 6.12, standard error sqrt(1 / 21 + 1.96^2 / 40) SD = 2.32, +- 4.5."""
    vastus, soleus = (MUSCLES_BY_NAME[name] for name in ("vastus_lateralis", "soleus"))
    published = healthy_limit(vastus, DEFAULT)
    assert (published.percent, published.people) == (12, 21)
    assert published.half_width_percent == pytest.approx(4.55, abs=0.02)
    assert healthy_limit(soleus, DEFAULT) == HealthyLimit(None, None, None)
    own = {
        "own_limits_percent": {"soleus": 9.0, "vastus_lateralis": 10.0},
        "own_limits_people": {"soleus": 200},
        "own_limits_se_percent": {"soleus": 0.5},
    }
    mine = load_config(overrides={"measure": own}).measure
    assert healthy_limit(soleus, mine) == HealthyLimit(9.0, 200, pytest.approx(0.98, abs=0.001))
    # Nothing published stands beside a figure of one's own.
    assert healthy_limit(vastus, mine) == HealthyLimit(10.0, None, None)
    # Drawn again and again, limits of 21 people scatter by what is said of one.
    rng = np.random.default_rng(3)
    draws = rng.normal(0.0, 6.0, (20000, 21))
    limits = draws.mean(axis=1) + 1.959964 * draws.std(axis=1, ddof=1)
    assert limits.std() == pytest.approx(se_of_limit(6.0, 21), rel=0.03)


def test_limits_and_volumes_of_an_own_cohort_take_the_place_of_the_published():
    """No limit is published for the semitendinosus, in which the phantom plants 20 %."""
    person = Participant(height_m=1.75, mass_kg=72.0)
    line = {"slope_ml_per_m_kg": 1.5, "intercept_ml": 11.0}
    seen = {}
    for limit in (None, 5.0, 40.0):
        own = {} if limit is None else {"semitendinosus": limit}
        volumes = {} if limit is None else {"semitendinosus": line}
        changes = {"own_limits_percent": own, "own_expected_volumes_ml": volumes}
        result = measured(whole_legs(), person, load_config(overrides={"measure": changes}).measure)
        by_name = {m.name: m for m in result.value.muscles}
        muscle = by_name["semitendinosus"]
        seen[limit] = muscle.asymmetry_total_volume.verdict
        assert muscle.healthy_limit_percent == limit
        assert any(f.code == "own_cohort" for f in result.findings) == (limit is not None)
        assert by_name["vastus_lateralis"].healthy_limit_percent == 12
    assert muscle.expected_volume_ml == 1.5 * 1.75 * 72.0 + 11.0
    assert seen == {
        None: Verdict.MEASURABLE,
        5.0: Verdict.OUTSIDE_HEALTHY,
        40.0: Verdict.WITHIN_HEALTHY,
    }
