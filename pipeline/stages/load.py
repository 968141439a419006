"""Load: find the images of one subject and check that they can be trusted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.config import LABELS, LoadConfig
from pipeline.core.anatomy import LabelScheme
from pipeline.core.errors import InputError
from pipeline.core.results import LEFT_OUT, STATION_INCOMPLETE, Finding, Severity
from pipeline.core.scan import (
    ImageSource,
    LoadedSubject,
    Participant,
    ScanSettings,
    StageResult,
)
from pipeline.core.volume import Quantity
from pipeline.imaging.stations import extent_mm, group_stations
from pipeline.io.dicom import (
    DicomSeries,
    find_dicom,
    on_one_scale,
    open_dicom,
    series_settings,
    side_tags,
)
from pipeline.io.dicom_origin import Origins, check_origin
from pipeline.io.dicom_planes import SideTags, is_dicom
from pipeline.io.digest import file_digest, files_digest, text_digest
from pipeline.io.discover import (
    PARTICIPANTS,
    beside_sessions,
    by_pattern,
    files_below,
    nifti_stem,
    not_read,
    participant_digest,
    participant_in,
    participant_rows,
    sidecar_of,
    some,
    subject_and_session,
    subject_folder,
    tells_no_more,
)
from pipeline.io.nifti import Called, open_nifti
from pipeline.io.schemes import load_label_scheme
from pipeline.io.settings import settings_of_sidecar

#: What is said of series that are not known for certain to be of one examination.
_ORIGIN_DOUBTS = {
    Origins.OTHER_FRAMES: (
        "frames_of_reference_differ",
        "Series state different frames of reference: between them the person may have been laid "
        "anew, and their positions need not fit. Check that they belong together.",
    ),
    Origins.ONE_BY_TRAITS: (
        "examination_per_series",
        "Each series states an examination of its own, as some anonymisers leave them. They were "
        "taken for one examination: persons, dates and scanners do not differ as far as they are "
        "stated, and the series share a frame of reference or lie in exactly one place. Check that "
        "they belong together.",
    ),
}


def load_subject(
    data: Path | str,
    subject: str,
    *,
    session: str | None = None,
    labels: Path | str | None = None,
    label_scheme: str = "myosymmetry",
    use_labels: bool = True,
    config: LoadConfig,
) -> StageResult[LoadedSubject]:
    """Find what was scanned of a subject; pixels are read later.

    Args:
        data: folder with one folder per subject.
        subject, session: labels, with or without their prefix; None: the only session, if any.
        labels: a label map to use in place of one in the subject's folder.
        label_scheme: name of a ready scheme or path of a mapping file.
        use_labels: whether a label map in the subject's folder is read; one named by `labels`
            always is.
        config: file name patterns and limits.

    Raises:
        UsageError: a label that is no plain name; a session must be chosen.
        InputError: missing, broken or contradicting files.
        ConfigError: unknown label scheme.
    """
    data, labels = Path(data), None if labels is None else Path(labels)
    subject, session = subject_and_session(data, subject, session)
    folder = subject_folder(data, subject, session)
    files = files_below(folder)
    found = _look_for(folder, files, labels, config, use_labels=use_labels)
    given = found.given
    if not found.images and given is None:
        raise _nothing_usable(subject, files, found, config)
    findings = list(found.findings)
    if session is not None:
        findings += _beside_sessions(data, subject)
    stations, lacking = _stations(found.images)
    findings += lacking
    used = [image for station in stations for image in station]
    scheme = None if given is None else load_label_scheme(label_scheme)
    participant, unlisted = _participant(data, subject)
    findings += unlisted
    loaded = LoadedSubject(
        subject=subject,
        session=session,
        images=_sources(stations[0]) if len(stations) == 1 else {},
        stations=tuple(map(_sources, stations)) if len(stations) > 1 else (),
        labels=None if given is None else given.source,
        label_scheme=scheme,
        participant=participant,
        inputs=_inputs(used, given, participant, scheme),
        reasons={image.name: image.reason for image in used},
        files={
            name: path
            for image in (*used, *([given] if given else []))
            for name, path in image.files.items()
        },
        unused=found.unused_files,
        side_evidence=found.evidence,
        settings={
            quantity: tuple(image.settings for image in used if image.kind == quantity)
            for quantity in Quantity
            if any(image.kind == quantity for image in used)
        },
    )
    return StageResult(loaded, (*findings, *_findings(loaded, found.unused)))


def _beside_sessions(data: Path, subject: str) -> list[Finding]:
    """What lies beside the sessions of a subject."""
    apart = beside_sessions(data, subject)
    if not apart:
        return []
    return [
        Finding(
            code="beside_sessions",
            severity=Severity.WARNING,
            stage="load",
            message=f"Beside the sessions of {subject} lie folders or NIfTI files ({apart}) "
            "that belong to none of them; nobody looks at them. If they are a scan, put them "
            "into a session folder of their own (ses-...).",
            value=float(apart),
            unit="entries",
        )
    ]


def _participant(data: Path, subject: str) -> tuple[Participant, list[Finding]]:
    """What the table of participants says of a subject, and whether it has no row of it."""
    people = participant_rows(data)
    participant = participant_in(people, subject)
    if not people or subject in people:
        return participant, []
    unlisted = Finding(
        code="participant_not_listed",
        severity=Severity.INFO,
        stage="load",
        message=f"{PARTICIPANTS} has no row of {subject}: height, mass, sex, dominant and "
        "injured side are not known. If there should be one, look how its participant_id "
        "is spelt.",
    )
    return participant, [unlisted]


@dataclass(frozen=True, eq=False)
class _Image:
    """An image that was found.

    Attributes:
        kind: what it shows.
        source: where it can be read.
        name: what it is called wherever something is kept: never after its file.
        digest: of its file or files.
        reason: what says that it shows it.
        file: its NIfTI file in the subject's folder; "" for DICOM.
        settings: how it was acquired.
        sidecar: the file beside it that says so, and its digest.
    """

    kind: str
    source: ImageSource
    name: str
    digest: str
    reason: str
    file: str = ""
    settings: ScanSettings = field(default_factory=ScanSettings)
    sidecar: tuple[str, str] | None = None

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of its files by what each is called."""
        beside = {} if self.sidecar is None else {f"{self.name}:json": self.sidecar[1]}
        return {self.name: self.digest, **beside}

    @property
    def files(self) -> dict[str, str]:
        """Where its NIfTI files lie, by the same names."""
        beside = {} if self.sidecar is None else {f"{self.name}:json": self.sidecar[0]}
        return {self.name: self.file, **beside} if self.file else {}


@dataclass(frozen=True, eq=False)
class _Found:
    """What a subject's folder holds that can be used.

    Attributes:
        images: of one kind of file: NIfTI where there is any, else DICOM.
        given: the label map that is used.
        unused: a label map that is there and was not asked for.
        unused_files: NIfTI files that are left out, and why.
        evidence: what the sides rest on.
        findings: what was left out, and what headers contradict.
    """

    images: list[_Image]
    given: _Image | None
    unused: _Image | None
    unused_files: Mapping[str, str]
    evidence: tuple[str, ...]
    findings: tuple[Finding, ...]


def _look_for(
    folder: Path,
    files: Sequence[Path],
    labels: Path | None,
    config: LoadConfig,
    *,
    use_labels: bool,
) -> _Found:
    """Images and label map among the files of a folder; see load_subject."""
    nifti = _nifti(folder, files, labels, config)
    images, given, findings = nifti.images, nifti.given, list(nifti.findings)
    unused = None
    if not use_labels and labels is None:
        unused, given = given, None
    evidence = ["position stated by the NIfTI affine"]
    others = [path for path in files if nifti_stem(path) is None]
    unread = {path: said for path in others if (said := not_read(path)) and not is_dicom(path)}
    others = [path for path in others if path not in unread]
    for (what, reason), count in sorted(Counter(unread.values()).items()):
        findings.append(_left_out(what, count, reason))
    if images:
        beside = sum(map(is_dicom, others))
        if beside:
            findings.append(
                _left_out("DICOM files", beside, "there are NIfTI images, which are used")
            )
    else:
        images, left_out, tags = _dicom(others, config)
        findings += left_out
        if images:
            evidence = _evidence(tags)
            findings += _contradictions(tags)
    return _Found(
        _numbered(images), given, unused, nifti.left_out, tuple(evidence), tuple(findings)
    )


def _nothing_usable(
    subject: str, files: Sequence[Path], found: _Found, config: LoadConfig
) -> InputError:
    unused = found.unused is not None
    return InputError(
        f"{subject} has no image that can be used",
        expected="files ending in "
        + ", ".join(f"{endings[0]}.nii.gz" for endings in config.patterns.values() if endings)
        + ", or DICOM files of such images",
        found="a label map alone" if unused else _what_is_there(files, found.findings),
        action="use the label map with --engine given"
        if unused
        else "rename the files, or add their endings to load.patterns (NIfTI) or rules to "
        "load.own_dicom_contrasts (DICOM)",
        private=some(list(found.unused_files)),
    )


def _inputs(
    used: Sequence[_Image],
    given: _Image | None,
    participant: Participant,
    scheme: LabelScheme | None,
) -> dict[str, str]:
    """Digest of everything that results rest on, by its name."""
    inputs = {name: digest for image in used for name, digest in image.inputs.items()}
    if given is not None:
        inputs[given.name] = given.digest
    # Facts that lie beside the images change results too.
    facts = participant_digest(participant)
    if facts is not None:
        inputs[PARTICIPANTS] = facts
    if scheme is not None:
        inputs["label scheme"] = text_digest(repr(sorted(scheme.structures.items())))
    return inputs


def _sources(station: Sequence[_Image]) -> dict[Quantity, ImageSource]:
    by_kind = {image.kind: image.source for image in station}
    return {quantity: by_kind[quantity] for quantity in Quantity if quantity in by_kind}


@dataclass(frozen=True, eq=False)
class _Nifti:
    """What a folder holds as NIfTI.

    Attributes:
        images: with what sidecars say of them.
        given: the label map.
        left_out: files that are not used, and why.
        findings: the same, counted; and sidecars that cannot be read.
    """

    images: list[_Image]
    given: _Image | None
    left_out: Mapping[str, str]
    findings: list[Finding]


def _nifti(folder: Path, files: Sequence[Path], labels: Path | None, config: LoadConfig) -> _Nifti:
    """The NIfTI images and the label map of a folder."""
    named = _nifti_files(folder, files, labels, config)
    known = {path for paths in named.values() for path in paths}
    unused = [path for path in files if nifti_stem(path) is not None and path not in known]
    # One named on the command line takes the place of a label map of the folder.
    maps = by_pattern(unused, config.patterns).get(LABELS, [])
    left = [
        (maps, "another label map was named"),
        ([path for path in unused if path not in maps], "no ending that load.patterns knows"),
    ]
    shown = [Quantity(kind) for kind in named if kind != LABELS]
    beside = _not_needed(Quantity.OTHER, shown)
    if Quantity.OTHER in shown and beside is not None:
        left.append((named.pop(Quantity.OTHER), beside))
    findings = [_left_out("NIfTI files", len(paths), why) for paths, why in left if paths]
    images: list[_Image] = []
    given = None
    for kind, paths in named.items():
        for path in paths:
            (file,) = _within(folder, [path])
            name = "The label map" if kind == LABELS else f"The {kind} image"
            if tells_no_more(file, folder, config.patterns):
                name += f" {file}"
            source = open_nifti(
                path,
                Called(name, file),
                affine_tolerance_mm=config.affine_tolerance_mm,
                largest_image_million_voxels=config.largest_image_million_voxels,
            )
            reason = f"{kind} by the end of its name"
            image = _Image(kind, source, f"nifti:{kind}", file_digest(path), reason, file)
            if kind == LABELS:
                given = image
            else:
                with_settings, unread = _with_sidecar(image, path)
                images.append(with_settings)
                findings += unread
    left_out = {file: why for paths, why in left for file in _within(folder, paths)}
    return _Nifti(images, given, left_out, findings)


def _within(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Files as a user finds them: in the subject's folder, or wherever else they lie."""
    return [str(path.relative_to(folder) if folder in path.parents else path) for path in paths]


def _with_sidecar(image: _Image, path: Path) -> tuple[_Image, list[Finding]]:
    """The image with what the JSON file of the same name says of it, and whether that is unread."""
    sidecar = sidecar_of(path)
    if not sidecar.is_file():
        return image, []
    settings = settings_of_sidecar(sidecar, image.source.grid)
    if settings is None:
        unread = Finding(
            code="sidecar_unreadable",
            severity=Severity.WARNING,
            stage="load",
            message=f"The JSON file beside the {image.kind} image cannot be read: how the "
            "image was acquired is not known. Convert the scan again, or correct the file.",
        )
        return image, [unread]
    name = str(Path(image.file).with_name(sidecar.name))
    return replace(image, settings=settings, sidecar=(name, file_digest(sidecar))), []


def _nifti_files(
    folder: Path, files: Sequence[Path], labels: Path | None, config: LoadConfig
) -> dict[str, list[Path]]:
    """NIfTI files per kind of image, several only for stations, and the label map."""
    named = by_pattern(files, config.patterns)
    if labels is not None:
        if not labels.is_file():
            raise InputError(
                "The label map is not there",
                expected="a NIfTI label map",
                found="no file of that name",
                action="check the path given to --labels",
                private=str(labels),
            )
        named[LABELS] = [labels]
    for kind, paths in named.items():
        named_so = [re.search(config.station_pattern, path.name, re.IGNORECASE) for path in paths]
        if len(paths) > 1 and (kind == LABELS or not all(named_so)):
            raise InputError(
                f"There is more than one {kind} file",
                expected="one file per contrast",
                found=f"{len(paths)} files",
                action="keep one, or narrow load.patterns in the configuration; name stations "
                "as in station-1, station-2",
                private=", ".join(_within(folder, paths)),
            )
    return named


def _dicom(
    files: Sequence[Path], config: LoadConfig
) -> tuple[list[_Image], list[Finding], list[SideTags]]:
    """The DICOM images of a folder, what was left out and why, and what their headers say of
    sides."""
    marks = [*config.own_distortion_marks, *config.distortion_marks]
    series, left = find_dicom(files, config.contrast_rules, marks)
    shown = {one.quantity for one in series}
    findings = [_left_out(one.name, one.files, one.reason) for one in left]
    images: list[_Image] = []
    tags: list[SideTags] = []
    needed: list[DicomSeries] = []
    for one in series:
        reason = _not_needed(one.quantity, shown)
        if reason is not None:
            findings.append(_left_out(one.name, len(one.files), reason))
            continue
        needed.append(one)
    # Before places are compared: legs of two people may lie in one place, or one above the other.
    doubt = _ORIGIN_DOUBTS.get(check_origin(needed))
    if doubt is not None:
        code, message = doubt
        findings.append(
            Finding(code=code, severity=Severity.WARNING, stage="load", message=message)
        )
    for one in on_one_scale(needed):
        source = open_dicom(one, largest_image_million_voxels=config.largest_image_million_voxels)
        tags.append(side_tags(one))
        # File names of DICOM exports often hold a person's name: they are not passed on.
        name = f"dicom:{one.quantity}"
        digest = files_digest(source.files)
        reason = f"{one.name}, {_files(len(one.files))}: {one.quantity} by {one.told_by}"
        settings = series_settings(one)
        images.append(_Image(one.quantity, source, name, digest, reason, settings=settings))
    images, uncorrected = _corrected_alone(images)
    return images, findings + uncorrected, tags


def _numbered(images: Sequence[_Image]) -> list[_Image]:
    """Images with names of their own: those of one kind are counted from the lowest one."""
    counts = Counter(image.name for image in images)
    numbers: Counter[str] = Counter()
    out = []
    for image in sorted(images, key=lambda image: (image.kind, extent_mm(image.source.grid))):
        numbers[image.name] += 1
        one_of_several = counts[image.name] > 1
        name = f"{image.name}:{numbers[image.name]}" if one_of_several else image.name
        out.append(replace(image, name=name))
    return out


def _not_needed(quantity: Quantity, shown: Collection[Quantity]) -> str | None:
    """Why an image is left out beside the others that are there; None: it is used."""
    if quantity is Quantity.T1W and {Quantity.WATER, Quantity.FAT} <= set(shown):
        return "T1-weighted; water and fat are there and used"
    if quantity is Quantity.OTHER and set(shown) != {Quantity.OTHER}:
        return "of a weighting that does not tell fat; there are other images, which are used"
    return None


def _evidence(tags: Sequence[SideTags]) -> list[str]:
    """What the sides of DICOM images rest on."""
    out = ["position and orientation stated by the DICOM headers"]
    if all(tag.directions for tag in tags):
        out.append("PatientOrientation says the same")
    positions = {tag.position for tag in tags} - {""}
    if len(positions) == 1:
        out.append(f"patient position {positions.pop()}")
    return out


def _contradictions(tags: Sequence[SideTags]) -> list[Finding]:
    """What headers say of sides that does not fit a scan of both legs in one position."""
    findings = []
    positions = sorted({tag.position for tag in tags} - {""})
    if len(positions) > 1 or any("/" in position for position in positions):
        findings.append(
            Finding(
                code="patient_positions_differ",
                severity=Severity.WARNING,
                stage="load",
                message=f"Series state different patient positions ({', '.join(positions)}): left "
                "and right may be exchanged in some of them.",
            )
        )
    one_sided = sorted({tag.laterality for tag in tags} - {"", "B", "U"})
    if one_sided:
        findings.append(
            Finding(
                code="laterality_of_one_side",
                severity=Severity.WARNING,
                stage="load",
                message=f"The laterality tag says {', '.join(one_sided)}, as of one side; both "
                "legs are looked for. Check that the right series was given.",
            )
        )
    return findings


def _files(count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''}"


def _left_out(what: str, files: int, reason: str) -> Finding:
    return Finding(
        code=LEFT_OUT,
        severity=Severity.INFO,
        stage="load",
        message=f"{what}: {_files(files)} left out: {reason}.",
        value=float(files),
        unit="files",
    )


def _corrected_alone(images: Sequence[_Image]) -> tuple[list[_Image], list[Finding]]:
    """Without the uncorrected ones, where every image is there twice: with the distortion of the
    gradients corrected, and without; and what was left out. Anything else is left as it is: two
    images are no choice."""
    chosen: list[_Image] = []
    for image in images:
        same = [
            other.settings.distortion_corrected
            for other in images
            if other.kind == image.kind and other.source.grid.same_as(image.source.grid)
        ]
        if sorted(map(str, same)) != ["False", "True"]:
            return list(images), []
        if image.settings.distortion_corrected:
            chosen.append(image)
    findings = [
        Finding(
            code=LEFT_OUT,
            severity=Severity.INFO,
            stage="load",
            message=f"{image.reason}: left out: the same image with its distortion corrected is "
            "there and used.",
        )
        for image in images
        if image not in chosen
    ]
    return chosen, findings


def _stations(images: Sequence[_Image]) -> tuple[list[list[_Image]], list[Finding]]:
    """Images station by station, lowest first, and what a station lacks."""
    counts = Counter(image.kind for image in images)
    if not images or max(counts.values()) == 1:
        return [list(images)] if images else [], []
    grids = [(Quantity(image.kind), image.source.grid) for image in images]
    groups = group_stations(
        grids,
        [image.name if image.file else image.reason for image in images],
        [image.file for image in images],
    )
    # Water and fat of a station are both needed; of other images, those seen most often.
    needed = {Quantity.WATER, Quantity.FAT} & {quantity for quantity, _ in grids} or {
        Quantity(counts.most_common(1)[0][0])
    }
    complete = [group for group in groups if needed <= group.keys()]
    if not complete:
        raise InputError(
            "No station is complete",
            expected=f"{' and '.join(sorted(needed))} of each station, in one place",
            found=f"{len(groups)} places with one contrast each",
            action="export all contrasts of each station",
        )
    findings: list[Finding] = []
    everywhere = set.intersection(*(set(group) for group in complete))
    for group in groups:
        low, high = extent_mm(grids[next(iter(group.values()))][1])
        where = f"from {low:.0f} to {high:.0f} mm"
        lacking, extra = needed - group.keys(), group.keys() - everywhere
        if lacking:
            findings.append(
                Finding(
                    code=STATION_INCOMPLETE,
                    severity=Severity.WARNING,
                    stage="load",
                    message=f"The station {where} has no {' and no '.join(sorted(lacking))} "
                    "image and was left out.",
                    value=high - low,
                    unit="mm",
                )
            )
        elif extra:
            findings.append(
                Finding(
                    code=LEFT_OUT,
                    severity=Severity.INFO,
                    stage="load",
                    message=f"The {' and '.join(sorted(extra))} image {where} was left out: "
                    "other stations do not show it.",
                )
            )
    return [[images[group[q]] for q in sorted(everywhere)] for group in complete], findings


def _findings(loaded: LoadedSubject, unused: _Image | None) -> tuple[Finding, ...]:
    side = Finding(
        code="side_unproven",
        severity=Severity.INFO,
        stage="load",
        message=f"Left and right rest on what the files state: "
        f"{'; '.join(loaded.side_evidence)}. A mirrored right leg looks like a left leg, so the "
        "images of legs cannot prove which side is which; heart and liver are not looked for.",
    )
    if unused is not None:
        not_used = Finding(
            code="labels_not_used",
            severity=Severity.INFO,
            stage="load",
            message="A label map lies beside the images and was not used: muscles were found in "
            "the images. With --engine given it is used in their place.",
        )
        return (side, not_used)
    if loaded.images or loaded.stations:
        return (side,)
    return (
        side,
        Finding(
            code="labels_without_image",
            severity=Severity.WARNING,
            stage="load",
            message="There is a label map and no image: volumes only, no lean volumes.",
        ),
    )


def _what_is_there(files: Sequence[Path], left_out: Sequence[Finding]) -> str:
    """What a folder holds, without names of files that may name a person."""
    others = sum(nifti_stem(path) is None for path in files)
    parts = [f"{others} other files, none of them DICOM of a known contrast"] if others else []
    parts += [finding.message.rstrip(".") for finding in left_out[:5]]
    return "; ".join(parts) or "an empty folder"
