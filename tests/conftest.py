"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bodies import GIVEN, thighs, write_subject
from hypothesis import HealthCheck, settings

from pipeline.flow import process_subject

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans and anatomies, kept outside the project; absent on most machines."""
    named = os.environ.get("MYOSYMMETRY_SHARED_DATA")
    path = Path(named) if named else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("real scans are not on this machine (set MYOSYMMETRY_SHARED_DATA)")
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data folder with one small subject, its true labels beside its images."""
    folder = tmp_path_factory.mktemp("data")
    write_subject(folder / "sub-01", thighs())
    (folder / "participants.tsv").write_text(
        "participant_id\theight_m\tmass_kg\tsex\tdominant_side\tinjured_side\n"
        "sub-01\t1.75\t72\tM\tright\tn/a\n"
    )
    return folder


@pytest.fixture(scope="session")
def processed(data, tmp_path_factory) -> Path:
    """The results of that subject; tests that change them work on a copy."""
    out = tmp_path_factory.mktemp("out")
    process_subject(data, out, "sub-01", config=GIVEN)
    return out
