"""Load: find the images of one subject and check that they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import LoadConfig
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.results import Finding, Severity
from pipeline.core.scan import ImageSource, LoadedSubject, Participant, StageResult
from pipeline.core.volume import Quantity
from pipeline.io.dicom import find_dicom, open_dicom
from pipeline.io.digest import file_digest, files_digest, text_digest
from pipeline.io.discover import (
    by_pattern,
    files_below,
    nifti_stem,
    read_participant,
    some,
    subject_folder,
    subject_labels,
)
from pipeline.io.nifti import open_nifti
from pipeline.io.schemes import load_label_scheme

_LABELS = "labels"


def load_subject(
    data: Path,
    subject: str,
    *,
    session: str | None = None,
    labels: Path | None = None,
    label_scheme: str = "myosymmetry",
    use_labels: bool = True,
    config: LoadConfig,
) -> StageResult[LoadedSubject]:
    """Find what was scanned of a subject; pixels are read later.

    Args:
        data: folder with one folder per subject.
        subject, session: labels, with or without their prefix.
        labels: a label map to use in place of one in the subject's folder.
        label_scheme: name of a ready scheme or path of a mapping file.
        use_labels: whether a label map in the subject's folder is read; one named by `labels`
            always is.
        config: file name patterns and limits.

    Raises:
        UsageError: a label that is no plain name; a session must be chosen.
        InputError: missing, broken or contradicting files.
        ConfigError: unknown label scheme or pattern key.
    """
    subject, session = subject_labels(subject, session)
    folder = subject_folder(data, subject, session)
    files = files_below(folder)
    found = _nifti_files(folder, files, labels, config)
    unused = None if use_labels or labels is not None else found.pop(_LABELS, None)
    sources: dict[str, ImageSource] = {}
    inputs: dict[str, str] = {}
    for kind, path in found.items():
        sources[kind] = open_nifti(
            path,
            affine_tolerance_mm=config.affine_tolerance_mm,
            largest_image_million_voxels=config.largest_image_million_voxels,
        )
        inside = folder in path.parents
        inputs[str(path.relative_to(folder)) if inside else f"labels:{path.name}"] = file_digest(
            path
        )
    evidence = "position stated by the NIfTI affine"
    if not sources.keys() - {_LABELS}:
        series = find_dicom([path for path in files if nifti_stem(path) is None])
        for quantity, one in series.items():
            sources[str(quantity)] = open_dicom(
                one, largest_image_million_voxels=config.largest_image_million_voxels
            )
            # File names of DICOM exports often hold a person's name: they are not passed on.
            inputs[f"dicom:{quantity}"] = files_digest(one.files)
            evidence = "position and orientation stated by the DICOM headers"
    if not sources:
        raise InputError(
            f"{subject} has no image that can be used",
            expected="files ending in "
            + ", ".join(f"{endings[0]}.nii.gz" for endings in config.patterns.values())
            + ", or DICOM files of a Dixon or T1 series",
            found=_what_is_there(files) if unused is None else "a label map alone",
            action="use the label map with --engine given"
            if unused is not None
            else "rename the files, or add their endings to load.patterns",
        )
    given = sources.pop(_LABELS, None)
    scheme = None if given is None else load_label_scheme(label_scheme)
    participant = read_participant(data, subject)
    # Facts that lie beside the images change results too.
    if participant != Participant():
        inputs["participants.tsv"] = text_digest(repr(participant))
    if scheme is not None:
        inputs["label scheme"] = text_digest(repr(sorted(scheme.structures.items())))
    loaded = LoadedSubject(
        subject=subject,
        session=session,
        images={quantity: sources[quantity] for quantity in Quantity if quantity in sources},
        labels=given,
        label_scheme=scheme,
        participant=participant,
        inputs=inputs,
        side_evidence=(evidence,),
    )
    return StageResult(loaded, _findings(loaded, unused))


def _nifti_files(
    folder: Path, files: Sequence[Path], labels: Path | None, config: LoadConfig
) -> dict[str, Path]:
    """One NIfTI file per kind of image, and the label map."""
    unknown = config.patterns.keys() - {*map(str, Quantity), _LABELS}
    if unknown:
        raise ConfigError(
            "load.patterns names images that do not exist",
            expected=f"keys among {', '.join([*map(str, Quantity), _LABELS])}",
            found=", ".join(sorted(unknown)),
            action="correct the key in the configuration",
        )
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
    for kind, paths in named.items():
        if len(paths) > 1:
            raise InputError(
                f"There is more than one {kind} file",
                expected="one file per contrast",
                found=", ".join(str(path.relative_to(folder)) for path in paths),
                action="keep one, or narrow load.patterns in the configuration",
            )
    return {kind: paths[0] for kind, paths in named.items()}


def _findings(loaded: LoadedSubject, unused: Path | None) -> tuple[Finding, ...]:
    if unused is not None:
        return (
            Finding(
                code="labels_not_used",
                severity=Severity.INFO,
                stage="load",
                message=f"The label map {unused.name} was not used: muscles were found in the "
                "images. With --engine given it is used in their place.",
            ),
        )
    if loaded.images:
        return ()
    return (
        Finding(
            code="labels_without_image",
            severity=Severity.WARNING,
            stage="load",
            message="There is a label map and no image: volumes only, no lean volumes.",
        ),
    )


def _what_is_there(files: Sequence[Path]) -> str:
    """What a folder holds, without names of files that may name a person."""
    images = [path.name for path in files if nifti_stem(path) is not None]
    others = len(files) - len(images)
    parts = []
    if images:
        parts.append(f"NIfTI files that no pattern fits: {some(images)}")
    if others:
        parts.append(f"{others} other files, none of them DICOM of a known contrast")
    return "; ".join(parts) or "an empty folder"
