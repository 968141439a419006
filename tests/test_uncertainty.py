"""What disturbed looks at the legs do to intervals and verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bodies import VOXEL_MM, body
from legs import phantom_legs
from matches import unregistered

from pipeline import SegmentedLegs, default_config, measure
from pipeline.core.results import GroupResult, LimbMeasures, MuscleResult
from pipeline.core.soft import Confidence

CONFIG = default_config().measure


def measured(right: dict[str, Confidence], left: dict[str, Confidence]) -> LimbMeasures:
    legs = phantom_legs(body(), VOXEL_MM)
    legs = SegmentedLegs(
        replace(legs.right, confidence=right), replace(legs.left, confidence=left), legs.engine
    )
    return measure(legs, unregistered(legs), config=CONFIG).value


def named(rows: tuple[MuscleResult, ...] | tuple[GroupResult, ...], name: str):
    return next(row for row in rows if row.name == name)


def test_without_looks_the_published_figure_stands_alone():
    found = named(measured({}, {}).muscles, "soleus").asymmetry_total_volume
    assert found.se_method_percent is None
    assert found.se_total_percent == pytest.approx(2**0.5 * CONFIG.scan_rescan_cv_percent)


def test_a_muscle_that_moves_on_one_side_is_less_certain():
    still, moved = Confidence(0.97, (1.0, 1.0, 1.0)), Confidence(0.9, (1.1, 0.95, 0.9))
    calm = named(measured({"soleus": still}, {"soleus": still}).muscles, "soleus")
    one = named(measured({"soleus": moved}, {"soleus": still}).muscles, "soleus")
    other = named(measured({"soleus": still}, {"soleus": moved}).muscles, "soleus")
    both = named(measured({"soleus": moved}, {"soleus": moved}).muscles, "soleus")
    assert one.right.repeat_volume_ratios == moved.volume_ratios
    assert (
        one.asymmetry_total_volume.se_method_percent
        > 2 * calm.asymmetry_total_volume.se_method_percent
    )
    assert other.asymmetry_total_volume.se_method_percent == pytest.approx(
        one.asymmetry_total_volume.se_method_percent
    )
    # What both sides do alike leaves the difference alone.
    assert both.asymmetry_total_volume.se_method_percent == pytest.approx(
        calm.asymmetry_total_volume.se_method_percent
    )
    width = [
        m.asymmetry_total_volume.interval_high_percent
        - m.asymmetry_total_volume.interval_low_percent
        for m in (calm, one)
    ]
    assert width[1] > width[0]


def test_a_group_moves_as_its_muscles_do_together():
    quadriceps = ("rectus_femoris", "vastus_lateralis", "vastus_intermedius", "vastus_medialis")
    still = dict.fromkeys(quadriceps, Confidence(0.97, (1.0, 1.0)))
    up = {**still, "vastus_lateralis": Confidence(0.9, (1.2, 0.8))}
    one = measured(up, still)
    alone = named(one.muscles, "vastus_lateralis").asymmetry_total_volume.se_method_percent
    together = named(one.groups, "quadriceps")
    volumes = {m.name: m.right.volume_in_view_ml for m in one.muscles if m.name in quadriceps}
    share = volumes["vastus_lateralis"] / sum(volumes.values())
    assert together.right.repeat_volume_ratios == pytest.approx((1 + 0.2 * share, 1 - 0.2 * share))
    assert together.asymmetry_total_volume.se_method_percent < alone
    # A member without looks leaves the group without.
    del up["rectus_femoris"]
    assert (
        named(measured(up, still).groups, "quadriceps").asymmetry_total_volume.se_method_percent
        is None
    )


def test_sides_exchanged_exchange_the_interval():
    a, b = {"soleus": Confidence(0.9, (1.05, 0.98))}, {"soleus": Confidence(0.95, (1.01, 1.0))}
    one = named(measured(a, b).muscles, "soleus").asymmetry_total_volume.se_method_percent
    assert named(
        measured(b, a).muscles, "soleus"
    ).asymmetry_total_volume.se_method_percent == pytest.approx(one, rel=0.01)
