"""The sample subjects are what their truth tables say, and can be made again."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.anatomy import LEFT_OFFSET, MUSCLES, OWN_SCHEME
from pipeline.core.scan import SCANNER_SPACE
from pipeline.core.volume import Quantity
from pipeline.io.nifti import read_label_map, read_volume

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
SUBJECTS = ("sub-01", "sub-02")


def truth_of(subject: str) -> dict[str, dict[str, str]]:
    path = SAMPLE / "truth" / f"{subject}_truth.tsv"
    with path.open(encoding="utf-8") as stream:
        return {row["muscle"]: row for row in csv.DictReader(stream, delimiter="\t")}


def test_small_enough_to_carry_along() -> None:
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) < 15e6


@pytest.mark.parametrize("subject", SUBJECTS)
def test_labels_hold_the_true_volumes(subject: str) -> None:
    labels = read_label_map(SAMPLE / "truth" / f"{subject}_dseg.nii.gz", OWN_SCHEME)
    counts = np.bincount(labels.data.ravel(), minlength=256)
    truth = truth_of(subject)
    assert list(truth) == [m.name for m in MUSCLES]
    for m in MUSCLES:
        for side, offset in (("right", 0), ("left", LEFT_OFFSET)):
            stated = truth[m.name][f"grid_{side}_volume_ml"]
            found = float(counts[m.id + offset]) * labels.grid.voxel_volume_ml
            assert found == pytest.approx(0.0 if stated == "n/a" else float(stated), abs=2e-3)
            model = float(truth[m.name][f"model_{side}_volume_ml"])
            if subject == "sub-01" and model > 30.0:
                assert found == pytest.approx(model, rel=0.025), m.name


def test_the_thighs_alone_cut_hips_and_lack_calves() -> None:
    truth = truth_of("sub-02")
    assert truth["flexor_hallucis_longus"]["grid_right_volume_ml"] == "n/a"
    shown, whole = (
        float(truth["gluteus_maximus"][f"{kind}_right_volume_ml"]) for kind in ("grid", "model")
    )
    assert shown < 0.8 * whole


def test_stored_images_show_lean_tissue_and_fat_where_the_labels_say() -> None:
    folder = SAMPLE / "sub-01"
    water, fat = (
        read_volume(folder / f"sub-01_{q.value}.nii.gz", q, SCANNER_SPACE)
        for q in (Quantity.WATER, Quantity.FAT)
    )
    labels = read_label_map(SAMPLE / "truth" / "sub-01_dseg.nii.gz", OWN_SCHEME)
    assert water.grid.same_as(fat.grid)
    assert water.grid.same_as(labels.grid)
    muscle = labels.data % LEFT_OFFSET == 9
    assert np.median(water.data[muscle]) > 5.0 * np.median(fat.data[muscle])


@pytest.mark.slow
def test_generator_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(SAMPLE / "generate.py"), str(tmp_path)],
        check=True,
        cwd=SAMPLE.parent,
        env={"PYTHONPATH": str(SAMPLE.parent)},
    )
    made = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(made) == 8
    for path in made:
        assert path.read_bytes() == (SAMPLE / path.relative_to(tmp_path)).read_bytes(), path.name
