"""Registration of the left leg onto the right one: known deformations, real scans, peers.

Phantom pairs: both legs are one leg in two poses, so the truth of every point is known from the
phantom's own coordinates. Real scans: labels of the embedded engine. Peers: elastix (affine and
B-spline) and ANTs (affine and SyN) on the images of one phantom pair, in an interpreter of their
own, because they are no dependency of this project.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Report, SkippedError, command_line, engine_of
from benchmarks.pictures import outlines
from benchmarks.scans import label, real_scan
from pipeline import (
    OWN_SCHEME,
    ArraySource,
    LegMatch,
    LoadedSubject,
    SegmentedLegs,
    Side,
    canonicalise,
    default_config,
    load_config,
    register,
    segment,
    separate_legs,
)
from pipeline.core.anatomy import LEG_SCHEME, MUSCLES_BY_NAME
from pipeline.core.errors import MyosymmetryError
from pipeline.phantom import Acquisition, Body, BodyParameters, Pose, acquire, grid_for, make_body

#: Two poses of one leg, from near to far.
POSES = {
    "turned": Pose(rotation_deg=(5.0, -3.0), shift_mm=(0.0, 7.3)),
    "bent": Pose(rotation_deg=(8.0, 0.0), knee_flexion_deg=(0.0, 10.0), shift_mm=(0.0, 20.0)),
    "far": Pose(rotation_deg=(12.0, -8.0), knee_flexion_deg=(3.0, 14.0), shift_mm=(0.0, 40.0)),
}
GRIDS_MM = {"fine": (2.0, 2.0, 4.0), "thick": (1.5, 1.5, 12.0)}
REAL = ("thigh_dixon_a", "thigh_water_b", "leg_dixon_e")
#: Muscles above this volume are held against the promised overlap.
LARGE_ML = 50.0
PEERS = ("elastix", "ants")


def run(options: argparse.Namespace) -> Report:
    """Register phantom pairs, real scans and, where they are at hand, let peers do the same."""
    report = Report()
    if "phantoms" in options.parts:
        _phantoms(report)
    if "real" in options.parts:
        _real(report, options)
    if "peers" in options.parts:
        peers(report, options.peers_python)
    return report


def _labelled(body: Body, voxel_mm: tuple[float, float, float]) -> SegmentedLegs:
    """Both legs of a scanned phantom with their true labels."""
    scan = acquire(body, Acquisition(grid_for(body, voxel_mm), supersampling=(1, 1, 1)))
    config = load_config(overrides={"segment": {"engine": "given"}})
    subject = LoadedSubject(
        subject="sub-phantom",
        session=None,
        images={q: ArraySource(v.data, v.grid) for q, v in scan.images.items()},
        labels=ArraySource(scan.labels.data, scan.labels.grid),
        label_scheme=OWN_SCHEME,
    )
    canonical = canonicalise(subject, config=config.canonicalise).value
    legs = separate_legs(canonical, config=config.separate).value
    return segment(legs, config=config.segment).value


def _timed(legs: SegmentedLegs) -> tuple[LegMatch, float, float]:
    """The match, and how long it took: wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    match = register(legs, config=default_config().register_).value
    return match, time.perf_counter() - wall, time.process_time() - processor


def _landmark_errors(body: Body, legs: SegmentedLegs, match: LegMatch) -> np.ndarray:
    """Distance of carried points of the left leg from where they belong, mm.

    Both legs are one model: a point and its partner have the same coordinates in the leg before
    its pose (outwards, forwards, along the limb).
    """
    left, right = legs.left, legs.right
    points = left.leg.grid.index_to_world(np.argwhere(left.labels.data)[::211])
    own = []
    for side, there in ((Side.LEFT, points), (Side.RIGHT, match.left_to_right.apply(points))):
        x, y, z = legs[side].leg.to_scanner.apply(there).T
        outwards = x if side is Side.RIGHT else -x
        own.append(np.stack(body.legs[side].pose.to_leg(outwards, y, z), axis=-1))
    seen = right.leg.grid.world_to_index(match.left_to_right.apply(points))[:, 2]
    inside = (seen > 0) & (seen < right.leg.grid.shape[2] - 1)
    return np.asarray(np.linalg.norm(own[0] - own[1], axis=1)[inside])


def _volumes_ml(legs: SegmentedLegs) -> dict[str, float]:
    """Labelled volume of every structure of the right leg."""
    counts = np.bincount(legs.right.labels.data.ravel(), minlength=256)
    voxel = legs.right.leg.grid.voxel_volume_ml
    return {name: voxel * counts[k] for k, (name, _) in LEG_SCHEME.structures.items()}


def _phantoms(report: Report) -> None:
    for pose_name, pose in POSES.items():
        body = make_body(BodyParameters(pose=pose), detail="reduced")
        for grid_name, voxel_mm in GRIDS_MM.items():
            legs = _labelled(body, voxel_mm)
            match, wall, processor = _timed(legs)
            errors = _landmark_errors(body, legs, match)
            volumes = _volumes_ml(legs)
            large = [
                dice
                for name, dice in match.overlap.items()
                if name in volumes and volumes[name] > LARGE_ML
            ]
            median = float(np.median(errors))
            name = f"{pose_name}, {grid_name}"
            report.add(
                "phantoms",
                pair=name,
                landmark_median_mm=median,
                landmark_95_mm=float(np.percentile(errors, 95)),
                dice_large=float(np.mean(large)),
                dice_before=float(np.mean(list(match.overlap_before.values()))),
                folded=match.folded_voxels,
                inverse_error_mm=match.inverse_error_mm,
                wall_s=wall,
                processor_s=processor,
            )
            limit = min(3.0, 1.5 * voxel_mm[2])
            report.below(f"{name}: median landmark error, mm", median, limit)
            report.at_least(f"{name}: mean Dice above {LARGE_ML:g} mL", float(np.mean(large)), 0.9)
            report.at_most(f"{name}: folded voxels", match.folded_voxels, 0)
            report.below(f"{name}: inverse error, mm", match.inverse_error_mm, 1.0)


def _real(report: Report, options: argparse.Namespace) -> None:
    engine = engine_of(options)
    for name in options.scans:
        try:
            images, reference = real_scan(name)
            found = label(images, engine, given=reference)
        except (SkippedError, MyosymmetryError) as reason:
            report.notes.append(f"{name}: skipped: {reason}")
            continue
        result_match, wall, processor = _timed(found.legs)
        mean = float(np.mean(list(result_match.overlap.values())))
        muscles = [d for s, d in result_match.overlap.items() if s in MUSCLES_BY_NAME]
        report.add(
            "real",
            scan=name,
            dice_muscles=float(np.mean(muscles)),
            dice=mean,
            dice_before=float(np.mean(list(result_match.overlap_before.values()))),
            lowest=min(result_match.overlap, key=result_match.overlap.__getitem__),
            lowest_dice=min(result_match.overlap.values()),
            boundary_mm=float(np.mean(list(result_match.surface_distance_mm.values()))),
            similarity_before=result_match.similarity_before,
            similarity=result_match.similarity,
            folded=result_match.folded_voxels,
            inverse_error_mm=result_match.inverse_error_mm,
            wall_s=wall,
            processor_s=processor,
        )
        for structure, dice in result_match.overlap.items():
            report.add("structures", scan=name, structure=structure, dice=dice)
        report.at_least(f"{name}: mean Dice of the engine's muscles", float(np.mean(muscles)), 0.8)
        report.report(f"{name}: mean Dice of all its labels, bones too", mean)
        report.at_most(f"{name}: folded voxels", result_match.folded_voxels, 0)
        outlines(options.out / f"{name}.png", found.legs, result_match, title=name)


def peers(report: Report, python: Path | None) -> None:
    """The same pair, the same working grid, one thread for each tool.

    Args:
        report: gets a table "peers", and a note for each peer that is left out.
        python: an interpreter that has the peers.
    """
    if python is None:
        report.notes.append(
            "registration peers: skipped: no interpreter with itk-elastix and antspyx was named"
        )
        return
    body = make_body(BodyParameters(pose=POSES["turned"]), detail="reduced")
    legs = _labelled(body, (3.0, 3.0, 6.0))
    match, wall, processor = _timed(legs)
    mean = float(np.mean(list(match.overlap.values())))
    report.add("peers", tool="this one", dice=mean, wall_s=wall, processor_s=processor)
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.npz"
        np.savez(
            pair,
            **{
                f"{side}_{what}": data
                for side in Side
                for what, data in (
                    ("image", _image(legs, side)),
                    ("labels", legs[side].labels.data),
                    ("affine", legs[side].leg.grid.affine),
                )
            },
        )
        for tool in PEERS:
            script = Path(__file__).with_name("registration_peer.py")
            command = [str(python), str(script), tool, str(pair)]
            # The interpreter is named by the person who runs this.
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                report.notes.append(f"registration peers: {tool} skipped: {reason}")
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            report.add("peers", tool=tool, **row)
            report.at_least(
                f"{tool}: its processor time over ours", row["processor_s"] / processor, 3.0
            )
            report.at_least(f"overlap less that of {tool}", mean - row["dice"], 0.0)


def _image(legs: SegmentedLegs, side: Side) -> np.ndarray:
    """Water image of a leg, other leg and air left out."""
    leg = legs[side].leg
    image = next(iter(leg.images.values()))
    return np.where(leg.tissue, image.data, 0.0).astype(np.float32)


def extend(parser: argparse.ArgumentParser) -> None:
    """Arguments of this tool."""
    parts = ("phantoms", "real", "peers")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--scans", nargs="+", choices=REAL, default=list(REAL))
    parser.add_argument("--peers-python", type=Path, help="python with itk-elastix and antspyx")


if __name__ == "__main__":
    sys.exit(command_line("registration", __doc__, run, extend))
