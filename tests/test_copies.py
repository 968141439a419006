"""What the stages hand on can be pickled and copied, and the copies are as read-only as it is."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bodies import GIVEN, thighs, write_subject

from pipeline import (
    OWN_SCHEME,
    Config,
    Quantity,
    canonicalise,
    default_config,
    load_subject,
    measure,
    register,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import LEG_SCHEME

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Any]:
    """The value of every stage, read from files."""
    data: Path = tmp_path_factory.mktemp("data")
    write_subject(data / "sub-01", thighs())
    found = load_subject(data, "01", config=GIVEN.load, use_labels=True)
    scan = canonicalise(found.value, config=GIVEN.canonicalise)
    legs = separate_legs(scan.value, config=GIVEN.separate)
    segmented = segment(legs.value, config=GIVEN.segment)
    match = register(segmented.value, config=GIVEN.register_)
    limb = measure(segmented.value, match.value, config=GIVEN.measure)
    named = {"load": found, "canonicalise": scan, "separate": legs, "segment": segmented}
    return {**named, "register": match, "measure": limb}


def arrays_in(value: object) -> Iterator[np.ndarray]:
    """Arrays that a value holds, at any depth."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from arrays_in(inner)
    elif is_dataclass(value):
        for field in fields(value):
            yield from arrays_in(getattr(value, field.name))


def test_a_configuration_cannot_be_changed_and_is_written_as_before():
    config = default_config()
    with pytest.raises(TypeError, match="cannot be changed"):
        config.load.patterns["water"] = ("_other",)
    with pytest.raises(TypeError, match="cannot be changed"):
        config.measure.own_limits_percent["soleus"] = 1.0
    for copied in COPIES.values():
        assert copied(config) == config
    dumped = config.model_dump(mode="json", by_alias=True)
    assert type(dumped["load"]["patterns"]) is dict
    assert Config.model_validate(dumped) == Config.model_validate_json(json.dumps(dumped)) == config


@pytest.mark.parametrize("way", COPIES)
def test_values_of_stages_are_copied_whole(results, way):
    for stage, value in results.items():
        again = COPIES[way](value)
        assert type(again) is type(value), stage
        for one, two in zip(arrays_in(value), arrays_in(again), strict=True):
            assert np.array_equal(one, two), stage
            assert one.flags.writeable == two.flags.writeable, stage


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_read_only_and_keep_their_meaning(results, way):
    leg, match = COPIES[way]((results["segment"].value.right, results["register"].value))
    assert leg.labels.scheme == LEG_SCHEME
    assert COPIES[way](OWN_SCHEME) == OWN_SCHEME
    # Checked by the constructor: labels of a leg are labels of a leg in any process.
    assert replace(leg).labels is leg.labels
    with pytest.raises(TypeError, match="cannot be changed"):
        leg.leg.images[Quantity.WATER] = None
    with pytest.raises(TypeError, match="cannot be changed"):
        match.overlap.clear()
    with pytest.raises(ValueError, match="read-only"):
        leg.leg.dixon.water.data[0, 0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        leg.labels.data[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        leg.leg.grid.affine[0, 0] = 1.0
