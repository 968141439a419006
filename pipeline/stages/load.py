"""Load: find the images of one subject and check that they can be trusted."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import LoadConfig
from pipeline.core.errors import InputError
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import ImageSource, LoadedSubject, StageResult
from pipeline.core.volume import Quantity
from pipeline.io.dicom import find_dicom, open_dicom
from pipeline.io.discover import (
    by_pattern,
    files_below,
    nifti_stem,
    read_participant,
    subject_folder,
    subject_labels,
)
from pipeline.io.nifti import file_digest, open_nifti
from pipeline.io.schemes import load_label_scheme

_LABELS = "labels"


def load_subject(
    data: Path,
    subject: str,
    *,
    session: str | None = None,
    labels: Path | None = None,
    label_scheme: str = "myosymmetry",
    config: LoadConfig,
) -> StageResult[LoadedSubject]:
    """Find what was scanned of a subject; pixels are read later.

    Args:
        data: folder with one folder per subject.
        subject, session: labels, with or without their prefix.
        labels: a label map to use in place of one in the subject's folder.
        label_scheme: name of a ready scheme or path of a mapping file.
        config: file name patterns and limits.

    Raises:
        UsageError: a label that is no plain name; a session must be chosen.
        InputError: missing, broken or contradicting files.
    """
    subject, session = subject_labels(subject, session)
    folder = subject_folder(data, subject, session)
    files = files_below(folder)
    named = by_pattern(files, config.patterns)
    if labels is not None:
        if not labels.is_file():
            raise InputError(
                f"The label map {labels.name} is not there",
                expected="a NIfTI label map",
                found="no file of that name",
                action="check the path given to --labels",
            )
        named[_LABELS] = [labels]
    sources: dict[str, ImageSource] = {}
    used: list[Path] = []
    for kind, paths in named.items():
        if len(paths) > 1:
            raise InputError(
                f"{subject} has more than one {kind} image",
                expected="one file per contrast",
                found=", ".join(str(p.relative_to(folder)) for p in paths),
                action="keep one, or narrow load.patterns in the configuration",
            )
        sources[kind] = open_nifti(
            paths[0],
            affine_tolerance_mm=config.affine_tolerance_mm,
            largest_image_million_voxels=config.largest_image_million_voxels,
        )
        used.append(paths[0])
    evidence = ["position stated by the NIfTI affine"]
    findings: list[Finding] = []
    if not any(kind != _LABELS for kind in sources):
        series = find_dicom([path for path in files if nifti_stem(path) is None])
        for quantity, one in series.items():
            sources[str(quantity)] = open_dicom(
                one, largest_image_million_voxels=config.largest_image_million_voxels
            )
            used += one.files
        if series:
            evidence = ["position and orientation stated by the DICOM headers"]
    if not sources:
        raise InputError(
            f"{subject} has no image that can be used",
            expected="files ending in "
            + ", ".join(f"{p[0]}.nii.gz" for p in config.patterns.values())
            + ", or DICOM files of a Dixon or T1 series",
            found=", ".join(p.name for p in files[:5]) or "an empty folder",
            action="rename the files, or add their endings to load.patterns",
        )
    inputs = {}
    for path in used:
        inside = folder in path.parents
        name = str(path.relative_to(folder)) if inside else f"labels:{path.name}"
        inputs[name] = file_digest(path)
    given = sources.pop(_LABELS, None)
    if not sources:
        findings.append(
            Finding(
                code="labels_without_image",
                severity=Severity.WARNING,
                stage="load",
                message="There is a label map and no image: volumes only, no lean volumes.",
            )
        )
    loaded = LoadedSubject(
        subject=subject,
        session=session,
        images={Quantity(kind): source for kind, source in sources.items()},
        labels=given,
        label_scheme=None if given is None else load_label_scheme(label_scheme),
        participant=read_participant(data, subject),
        inputs=inputs,
        side_evidence=tuple(evidence),
    )
    return StageResult(loaded, tuple(findings))
