"""The output folder of a subject: one table of names, and how results are written and found.

The derivative is the cache: a stage finds its earlier result again through the same table that
names it for the user, next to a small JSON that says what it was made from.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.core.errors import InvariantError, UsageError
from pipeline.core.grid import Grid
from pipeline.core.results import Measures
from pipeline.core.scan import Index3
from pipeline.core.transform import (
    AffineTransform,
    BlendedAffine,
    CompositeTransform,
    FlowTransform,
    NumericInverse,
    SpatialTransform,
)
from pipeline.core.volume import Quantity
from pipeline.io.atomic import atomic_write

#: Every picture that a report can have as a file of its own.
FIGURES = (
    "asymmetry.svg",
    "profiles.svg",
    "local_differences.svg",
    "segmentation_axial.png",
    "segmentation_coronal.png",
    "fat_fraction.png",
    "registration_before.png",
    "registration.png",
    "volume_change.png",
    "legs_front.png",
    "legs_back.png",
)


def stem_of(subject: str, session: str | None) -> str:
    """What the name of every file of a subject and session starts with."""
    return f"{subject}_{session}" if session else subject


@dataclass(frozen=True)
class SubjectFolder:
    """Paths of everything a run of one subject (and session) writes.

    Attributes:
        root: the output folder given by the user.
        subject: "sub-01".
        session: "ses-1" or None.
    """

    root: Path
    subject: str
    session: str | None

    @property
    def path(self) -> Path:
        """Folder of this subject and session."""
        folder = self.root / self.subject
        return folder / self.session if self.session else folder

    @property
    def stem(self) -> str:
        """What every file name starts with."""
        return stem_of(self.subject, self.session)

    def _file(self, name: str, folder: str = "") -> Path:
        return self.path / folder / f"{self.stem}_{name}"

    @property
    def measures(self) -> Path:
        """The result; published last, its presence means done."""
        return self._file("measures.json")

    @property
    def table(self) -> Path:
        """One row per muscle or group."""
        return self._file("measures.tsv")

    @property
    def wide_table(self) -> Path:
        """The same in one row, to be laid below those of other subjects."""
        return self._file("desc-wide_measures.tsv")

    @property
    def report(self) -> Path:
        """The page for people."""
        return self._file("report.html")

    @property
    def pdf(self) -> Path:
        """The pages for the inbox."""
        return self._file("report.pdf")

    @property
    def surface_page(self) -> Path:
        """Both legs to turn and click, made on request."""
        return self._file("report-3d.html")

    @property
    def labels(self) -> Path:
        """Labels of both legs on the grid of the input."""
        return self._file("dseg.nii.gz", "anat")

    @property
    def consensus_labels(self) -> Path:
        """Labels that took the place of each leg's own, where a consensus was asked for."""
        return self._file("desc-consensus_dseg.nii.gz", "anat")

    @property
    def measured_labels(self) -> Path:
        """The label map that was measured."""
        consensus = self.consensus_labels
        return consensus if consensus.is_file() else self.labels

    @property
    def label_table(self) -> Path:
        """Look-up table of the labels."""
        return self._file("dseg.tsv", "anat")

    @property
    def label_record(self) -> Path:
        """What the labels were made from, and what the engine said besides."""
        return self._file("dseg.json", "anat")

    @property
    def manual_labels(self) -> Path:
        """A corrected label map that the user may put here; it wins."""
        return self._file("desc-manual_dseg.nii.gz", "anat")

    def canonical_image(self, quantity: Quantity) -> Path:
        """An image on the canonical grid, kept for the pictures of the report."""
        return self._file(f"desc-canonical_{quantity}.nii.gz", "anat")

    @property
    def transform(self) -> Path:
        """How the legs lie to each other and to the scanner."""
        return self._file("from-left_to-right_xfm.json", "xfm")

    @property
    def velocity(self) -> Path:
        """The flow that is part of the transform between the legs, where there is one."""
        return self._file("from-left_to-right_desc-velocity_xfm.nii.gz", "xfm")

    @property
    def log_jacobian(self) -> Path:
        """Local change of volume between the legs, for display."""
        return self._file("from-left_to-right_desc-logjacobian_map.nii.gz", "xfm")

    def figure(self, name: str) -> Path:
        """A picture of the report as a file of its own.

        Raises:
            InvariantError: not one of FIGURES, so that a later run would not know it.
        """
        if name not in FIGURES:
            raise InvariantError(f"{name!r} is not one of the report's figures: {FIGURES}")
        return self._file(name, "figures")

    @property
    def results(self) -> tuple[Path, ...]:
        """Everything that tells or shows results, the results themselves first: what must not
        outlive them. What a stage reuses, the log and the user's own files are not among them."""
        return (
            *(self.measures, self.report, self.pdf, self.surface_page),
            *(self.table, self.wide_table, self.run_record, self.consensus_labels),
            *map(self.figure, FIGURES),
        )

    @property
    def run_record(self) -> Path:
        """Configuration, versions and digests of the last run."""
        return self._file("run.json", "log")

    @property
    def input_record(self) -> Path:
        """State of the input folder (`io.discover.input_state`) that the last run began with."""
        return self._file("inputs.json", "log")

    @property
    def run_log(self) -> Path:
        """Plain log lines of the last run."""
        return self._file("run.log", "log")

    @property
    def failure_record(self) -> Path:
        """Why the last run could not measure the subject; absent where it could."""
        return self._file("failure.json", "log")

    @property
    def lock(self) -> Path:
        """Held while a run works in this folder."""
        return self._file("run.lock", "log")


def refuse_output_in_input(folder: SubjectFolder, data: Path) -> None:
    """Let no result lie among the files of the subject it is made from, where it could take the
    place of one and would be read as one by the next run.

    Raises:
        UsageError: what is written of the subject lies among its data, links followed.
    """
    inside = (data / folder.subject).resolve()
    for path in (folder.root, folder.path, folder.labels.parent):
        target = path.resolve()
        if any(_same_folder(inside, place) for place in (target, *target.parents)):
            raise UsageError(
                "The results would lie inside the subject's input folder",
                expected="results beside the data, never among them",
                found=f"{path}, which is in {inside}",
                action=f"use another output folder, for example {data / 'derivatives'}",
            )


def _same_folder(one: Path, other: Path) -> bool:
    """Whether two resolved paths are one folder, mounted twice or spelt differently as well."""
    try:
        return one.samefile(other)
    except OSError:
        return one == other


@contextmanager
def exclusive(folder: SubjectFolder) -> Iterator[None]:
    """Hold the lock of a subject's folder; the system frees it even if the process is killed.

    Raises:
        UsageError: the folder cannot be written, or another run holds the lock.
    """
    try:
        folder.lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"The output folder {folder.path} cannot be written",
            expected="a folder this user may write to",
            found=error.strerror or str(error),
            action="choose another output folder or change its permissions",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another run is working on {folder.stem}",
                expected="one run per subject and session at a time",
                found=f"the lock {folder.lock.name} is held",
                action="wait for it to end, or stop it",
            ) from error
        except OSError as error:
            raise UsageError(
                f"The output folder {folder.path} cannot be locked",
                expected="a file system with locks (flock), so that no two runs mix their files",
                found=error.strerror or str(error),
                action="mount it with locks (Lustre: -o flock), or choose another output folder",
            ) from error
        yield
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file as a whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any | None:
    """Read a JSON file; None if it is not there or was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def read_measures(path: Path) -> Measures | None:
    """Published results; None where they are missing or do not fit their schema."""
    try:
        return Measures.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError, UnicodeDecodeError):
        return None


def finished_measures(folder: SubjectFolder) -> Measures:
    """Published results of a subject.

    Raises:
        UsageError: there are no valid ones.
    """
    results = read_measures(folder.measures)
    if results is None:
        raise UsageError(
            f"There are no finished results of {folder.stem}",
            expected=f"a valid {folder.measures.name}",
            found="none" if not folder.measures.exists() else "one that does not fit its schema",
            action="process the subject first",
        )
    return results


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    with atomic_write(path) as handle:
        handle.write(content)


def write_dataset_description(root: Path, version: str) -> None:
    """The BIDS description of the output folder, where it is missing or older."""
    value = {
        "Name": "myosymmetry: per-muscle left/right asymmetry",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "myosymmetry", "Version": version}],
    }
    path = root / "dataset_description.json"
    if read_json(path) != value:
        write_json(path, value)


def transform_to_json(transform: SpatialTransform) -> dict[str, Any]:
    """A transform as JSON values, exact: matrices map RAS mm of from_space to to_space.

    The velocities of a flow are too many for JSON: flow_of finds the flow, whose velocities are
    saved in a file of their own.
    """
    common = {"from_space": transform.from_space, "to_space": transform.to_space}
    if isinstance(transform, AffineTransform):
        return {"type": "affine", **common, "matrix": transform.matrix.tolist()}
    if isinstance(transform, BlendedAffine):
        return {
            "type": "blended_affine",
            **common,
            "upper": transform.upper.tolist(),
            "lower": transform.lower.tolist(),
            "centre": np.asarray(transform.centre).tolist(),
            "direction": np.asarray(transform.direction).tolist(),
            "half_width_mm": transform.half_width_mm,
        }
    if isinstance(transform, CompositeTransform):
        return {
            "type": "composite",
            **common,
            "first": transform_to_json(transform.first),
            "second": transform_to_json(transform.second),
        }
    if isinstance(transform, NumericInverse):
        return {"type": "inverse", **common, "of": transform_to_json(transform.forward)}
    if isinstance(transform, FlowTransform):
        grid = transform.grid
        return {
            "type": "flow",
            **common,
            "shape": list(grid.shape),
            "affine": grid.affine.tolist(),
        }
    raise InvariantError(f"No file form for a {type(transform).__name__}")


def affine_from_json(values: Mapping[str, Any]) -> AffineTransform:
    """The affine transform that transform_to_json wrote."""
    matrix = np.array(values["matrix"], dtype=np.float64)
    return AffineTransform(matrix, values["from_space"], values["to_space"])


def flow_of(transform: SpatialTransform) -> FlowTransform | None:
    """The flow in a transform; None where it has none."""
    if isinstance(transform, CompositeTransform):
        first = flow_of(transform.first)
        return first if first is not None else flow_of(transform.second)
    return transform if isinstance(transform, FlowTransform) else None


def transform_from_json(
    values: Mapping[str, Any], velocity: Callable[[Index3], NDArray[np.float32]]
) -> SpatialTransform:
    """The transform that transform_to_json wrote.

    Args:
        values: what it wrote.
        velocity: reads the velocities of a flow of a shape (nx, ny, nz).
    """
    if values["type"] == "affine":
        return affine_from_json(values)
    if values["type"] == "composite":
        return CompositeTransform(
            transform_from_json(values["first"], velocity),
            transform_from_json(values["second"], velocity),
        )
    if values["type"] == "inverse":
        return transform_from_json(values["of"], velocity).inverse()
    if values["type"] == "flow":
        x, y, z = values["shape"]
        grid = Grid((x, y, z), np.array(values["affine"]), values["from_space"])
        return FlowTransform(velocity(grid.shape), grid)
    spaces = {"from_space": values["from_space"], "to_space": values["to_space"]}
    arrays = {
        key: np.array(values[key], dtype=np.float64)
        for key in ("upper", "lower", "centre", "direction")
    }
    return BlendedAffine(
        upper=arrays["upper"],
        lower=arrays["lower"],
        centre=arrays["centre"],
        direction=arrays["direction"],
        half_width_mm=float(values["half_width_mm"]),
        **spaces,
    )
