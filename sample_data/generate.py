"""Make the sample subjects with the phantom: the same bytes every time.

Run from anywhere: python sample_data/generate.py [FOLDER]. Images go beside this file (or into
FOLDER), labels and what else is true of them into truth/, where no reader of subjects looks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.anatomy import MUSCLES, Side
from pipeline.core.volume import Quantity, Volume
from pipeline.io.nifti import write_label_map, write_volume
from pipeline.phantom import (
    Acquisition,
    BodyParameters,
    MuscleTruth,
    Pose,
    Scan,
    acquire,
    asymmetry_percent,
    grid_for,
    make_body,
)

#: A unit of the stored integers in units of the phantom (lean tissue 1000): well below the noise.
STORED_UNIT = 8.0


@dataclass(frozen=True)
class Subject:
    """A sample subject: the person, the scan, the row of participants.tsv."""

    name: str
    parameters: BodyParameters
    contrasts: tuple[Quantity, ...]
    voxel_mm: tuple[float, float, float]
    z_range_mm: tuple[float, float] | None
    oblique_deg: float
    snr: float
    dominant_side: str
    injured_side: str


#: After an injury of the left knee with a hamstring graft: the left thigh is smaller.
SUB_01 = Subject(
    name="sub-01",
    parameters=BodyParameters(
        height_m=1.77,
        mass_kg=75.0,
        sex="male",
        fatness=0.9,
        asymmetry_percent={
            "gluteus_maximus": 3.0,
            "gluteus_medius": -2.0,
            "tensor_fasciae_latae": -6.0,
            "sartorius": 2.0,
            "rectus_femoris": 11.0,
            "vastus_lateralis": 8.0,
            "vastus_intermedius": 6.0,
            "vastus_medialis": 14.0,
            "gracilis": 18.0,
            "adductor_magnus": 1.0,
            "biceps_femoris_long": -5.0,
            "biceps_femoris_short": 4.0,
            "semitendinosus": 20.0,
            "semimembranosus": -3.0,
            "tibialis_anterior": 1.5,
            "gastrocnemius_medialis": 9.0,
            "gastrocnemius_lateralis": 5.0,
            "soleus": 3.0,
        },
        fat_fraction={
            ("vastus_medialis", Side.LEFT): 0.11,
            ("vastus_lateralis", Side.LEFT): 0.09,
            ("semitendinosus", Side.LEFT): 0.16,
            ("gracilis", Side.LEFT): 0.13,
        },
        fat_texture="streaky",
        pose=Pose(
            gap_mm=8.0,
            rotation_deg=(9.0, 14.0),
            knee_flexion_deg=(2.0, 5.0),
            shift_mm=(0.0, 6.0),
            sway_mm=8.0,
        ),
        seed=1,
    ),
    contrasts=(Quantity.WATER, Quantity.FAT),
    voxel_mm=(2.2, 2.2, 5.0),
    z_range_mm=None,
    oblique_deg=0.0,
    snr=45.0,
    dominant_side="right",
    injured_side="left",
)

#: A healthy woman; both thighs in one stack of thick slices, one contrast.
SUB_02 = Subject(
    name="sub-02",
    parameters=BodyParameters(
        height_m=1.66,
        mass_kg=60.0,
        sex="female",
        asymmetry_percent={
            "rectus_femoris": -7.0,
            "vastus_lateralis": -4.0,
            "vastus_medialis": 2.0,
            "biceps_femoris_long": 9.0,
            "semitendinosus": -3.0,
            "sartorius": 5.0,
            "adductor_longus": -10.0,
        },
        fat_texture="streaky",
        pose=Pose(gap_mm=0.0, rotation_deg=(6.0, 4.0)),
        seed=2,
    ),
    contrasts=(Quantity.T1W,),
    voxel_mm=(1.6, 1.6, 6.0),
    z_range_mm=(-20.0, 370.0),
    oblique_deg=3.0,
    snr=30.0,
    dominant_side="left",
    injured_side="n/a",
)


def main(folder: Path) -> None:
    """Write both subjects, their truth and the table of participants."""
    rows = ["participant_id\theight_m\tmass_kg\tsex\tdominant_side\tinjured_side"]
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    for subject in (SUB_01, SUB_02):
        body = make_body(subject.parameters)
        grid = grid_for(
            body,
            subject.voxel_mm,
            z_range_mm=subject.z_range_mm,
            oblique_deg=subject.oblique_deg,
        )
        scan = acquire(
            body,
            Acquisition(
                grid,
                contrasts=subject.contrasts,
                snr=subject.snr,
                bias_field=0.15,
                seed=subject.parameters.seed,
            ),
        )
        _write(folder / subject.name, subject.name, scan)
        write_label_map(folder / "truth" / f"{subject.name}_dseg.nii.gz", scan.labels)
        text = truth_table(body.truth, scan.truth_on_grid)
        (folder / "truth" / f"{subject.name}_truth.tsv").write_text(text, encoding="utf-8")
        p = subject.parameters
        rows.append(
            f"{subject.name}\t{p.height_m:.2f}\t{p.mass_kg:.0f}\t{p.sex}"
            f"\t{subject.dominant_side}\t{subject.injured_side}"
        )
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write(folder: Path, name: str, scan: Scan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for quantity, volume in scan.images.items():
        stored = Volume(np.rint(volume.data / STORED_UNIT), volume.grid, quantity, volume.unit)
        write_volume(folder / f"{name}_{quantity.value}.nii.gz", stored, dtype=np.int16)


Truth = Mapping[tuple[str, Side], MuscleTruth]


def truth_table(model: Truth, on_grid: Truth) -> str:
    """One row per muscle: the truth of the model, and what the grid of the scan shows of it."""
    columns = ["muscle"]
    for prefix in ("model", "grid"):
        for side in (Side.RIGHT, Side.LEFT):
            columns += [
                f"{prefix}_{side.value}_{what}"
                for what in ("volume_ml", "lean_volume_ml", "fat_fraction")
            ]
        columns += [f"{prefix}_asymmetry_total_percent", f"{prefix}_asymmetry_lean_percent"]
    lines = ["\t".join(columns)]
    for muscle in MUSCLES:
        cells = [muscle.name]
        for truth in (model, on_grid):
            values = [truth.get((muscle.name, side)) for side in (Side.RIGHT, Side.LEFT)]
            for value in values:
                cells += (
                    ["n/a"] * 3
                    if value is None
                    else [
                        f"{value.volume_ml:.3f}",
                        f"{value.lean_volume_ml:.3f}",
                        f"{value.fat_fraction:.5f}",
                    ]
                )
            cells += (
                ["n/a"] * 2
                if None in values
                else [
                    f"{asymmetry_percent(truth, muscle.name, lean=lean):.3f}"
                    for lean in (False, True)
                ]
            )
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
