"""What is published of a run: the parts of all stages in one document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config import Config, MeasureConfig
from pipeline.core.match import LegMatch
from pipeline.core.results import (
    SIDES_FROM_ANATOMY,
    EngineUsed,
    Finding,
    LimbMeasures,
    Measures,
    RegistrationQuality,
    ScannerSettings,
)
from pipeline.core.scan import GIVEN, CanonicalScan, EngineInfo, LoadedSubject, ScanSettings
from pipeline.provenance import provenance

_SCAN_RESCAN_ALONE = (
    "95 % intervals hold the published scan-rescan variation of thigh muscle volume (RMS-CV {cv:g} "
    "% per side, PMC6240750) and how well a few slices stand for the whole muscle (Gundersen and "
    "Jensen 1987), no more: how far labels made elsewhere can be trusted is not known to this "
    "program."
)
_METHOD_AND_SCAN_RESCAN = (
    "95 % intervals hold the error of finding the muscles, told from how far the labels of both "
    "legs move when the images are disturbed a little and fitted on digital legs, not on people, "
    "and the published scan-rescan variation of thigh muscle volume (RMS-CV {cv:g} % per side, "
    "PMC6240750)."
)
_PLACES_OF_PARTS = (
    " Those of a part that both legs show also hold how well it is known where the end of one "
    "leg's view lies in the other leg."
)
_FAT_FRACTIONS = (
    " Those of lean volume also hold the published scan-rescan variation of fat fractions (RMS-CV "
    "{cv:g} % of them, same source)."
)
_LEAN_IS_ESTIMATE = (
    " Those of lean volume, which is an estimate here, hold a further standard error of {se:g} % "
    "for that."
)


def measures_document(
    loaded: LoadedSubject,
    scan: CanonicalScan,
    limb: LimbMeasures,
    *,
    engine: EngineUsed,
    match: LegMatch,
    findings: Sequence[Finding],
    config: Config,
) -> Measures:
    """The document that is published of a subject and session.

    Args:
        loaded, scan: what was read, and on which grid it was measured.
        limb: the numbers.
        engine: who made the labels.
        match: how the legs lie on each other.
        findings: of all stages, in their order.
        config: what it was run with.
    """
    return Measures(
        subject=loaded.subject,
        session=loaded.session,
        contrasts=tuple(str(quantity) for quantity in scan.images),
        grid=scan.grid.describe(),
        scanner_settings={
            str(quantity): ScannerSettings(
                **{name: _common(s, name) for name in ScannerSettings.model_fields}
            )
            for quantity, s in loaded.settings.items()
        },
        side_evidence=(
            *loaded.side_evidence,
            *(f.message.rstrip(".") for f in findings if f.code == SIDES_FROM_ANATOMY),
        ),
        interval_basis=interval_basis(limb, config.measure),
        engine=engine,
        registration=_quality(match),
        measures=limb,
        findings=tuple(findings),
        provenance=provenance(config, loaded.inputs),
    )


def _common(settings: Sequence[ScanSettings], name: str) -> float | None:
    """What all stations of a contrast state; None where one states nothing, or they differ."""
    stated = {getattr(one, name) for one in settings}
    return stated.pop() if len(stated) == 1 else None


def interval_basis(limb: LimbMeasures, config: MeasureConfig) -> str:
    """What the 95 % intervals of these numbers contain, in words."""
    pairs = [(m.right, m.left) for m in limb.muscles]
    text = _METHOD_AND_SCAN_RESCAN if limb.looked_at_again else _SCAN_RESCAN_ALONE
    text = text.format(cv=config.scan_rescan_cv_percent)
    if any(m.asymmetry_total_volume.extent == "matched" for m in limb.muscles):
        text += _PLACES_OF_PARTS
    if any(side.fat_fraction_se_repeat_points is not None for pair in pairs for side in pair):
        text += _FAT_FRACTIONS.format(cv=config.fat_fraction_cv_percent)
    if any(side.lean_estimate is not None for pair in pairs for side in pair):
        text += _LEAN_IS_ESTIMATE.format(se=config.lean_estimate_se_percent)
    return text


def engine_used(engine: EngineInfo, *, manual: bool) -> EngineUsed:
    """Who made the labels, in words too.

    Args:
        engine: as it names itself.
        manual: a person corrected the labels.
    """
    note = (
        f"The muscles were outlined automatically (engine {engine.name!r} of this program); nobody "
        "has corrected the outlines."
    )
    if engine.name == GIVEN:
        note = "The outlines of the muscles came with the scan; this program did not find them."
    if manual:
        note = "The outlines of the muscles were corrected by hand: the manual label map was used."
    return EngineUsed(name=engine.name, version=engine.version, digest=engine.digest, note=note)


def _quality(match: LegMatch) -> RegistrationQuality:
    return RegistrationQuality(
        succeeded=match.succeeded,
        reason=match.reason,
        overlap_mean=float(np.mean(list(match.overlap.values()))) if match.overlap else None,
        overlap_before_mean=(
            float(np.mean(list(match.overlap_before.values()))) if match.overlap_before else None
        ),
        overlap=dict(match.overlap),
        disagreement_ml=dict(match.disagreement_ml),
        outside_share=dict(match.outside_share),
        surface_distance_mm=dict(match.surface_distance_mm),
        inverse_error_mm=match.inverse_error_mm if match.overlap else None,
        folded_voxels=match.folded_voxels if match.overlap else None,
        similar_image=match.similar_image,
        similarity=match.similarity,
        similarity_before=match.similarity_before,
    )
