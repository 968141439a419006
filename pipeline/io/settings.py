"""How images were acquired: from DICOM headers, and from the JSON sidecars of NIfTI files.

Only the fields named here are read of a sidecar; what else it holds is passed on to nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from pipeline.config import DistortionMark
from pipeline.core.grid import Grid
from pipeline.core.scan import ScanSettings
from pipeline.io.contrast import number

#: DICOM counts coordinates to the patient's left and back, this program to the right and front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Parts of ImageType that say whether gradient distortion was undone (Siemens). Where else it may
#: stand, the configuration says (load.distortion_marks).
_CORRECTED, _UNCORRECTED = frozenset({"dis2d", "dis3d", "dis3d2d"}), "nd"
#: Nothing but a gradient echo is repeated this fast, ms.
_SURELY_GRADIENT_MS = 50.0
#: Steady states other than the spoiled one (Steady State Pulse Sequence, 0018,9017).
_NOT_SPOILED = frozenset({"FREE_PRECESSION", "TRANSVERSE", "TIME_REVERSED"})
_LARGEST_SIDECAR_BYTES = 2**20
#: Private creators are looked for in so many blocks of a group; few groups hold more than three.
_PRIVATE_BLOCKS = 16
#: In which axis of the array the phase is encoded -> in which the frequency is.
_OTHER_AXIS = {"i": 1, "j": 0}
#: Words for what is encoded along rows or columns (BIDS and DICOM).
_ALONG_ROW, _ALONG_COLUMN = frozenset({"ROW"}), frozenset({"COL", "COLUMN"})


def settings_of_header(
    header: pydicom.Dataset,
    frame: pydicom.Dataset | None,
    image_type: Iterable[str],
    *,
    private: Sequence[pydicom.Dataset] = (),
    marks: Sequence[DistortionMark] = (),
) -> ScanSettings:
    """The settings of a DICOM image, or of one frame of an enhanced file.

    Args:
        header: of the file.
        frame: the functional groups of a frame in one data set, which then count first.
        image_type: parts of ImageType from the third on, lower case.
        private: private functional groups of the frame.
        marks: private elements that say whether distortion was corrected, asked in order where
            ImageType does not.
    """

    def stated(keyword: str) -> Any:
        own = None if frame is None else frame.get(keyword)
        return header.get(keyword) if own is None else own

    corrected = _distortion_corrected(image_type)
    if corrected is None:
        corrected = _marked([*private, header], marks)
    repetition = _positive(stated("RepetitionTime"))
    steady = str(stated("SteadyStatePulseSequence") or "").upper()
    words = [*_words(stated("ScanningSequence")), *_words(stated("EchoPulseSequence"))]
    return ScanSettings(
        field_t=_positive(stated("MagneticFieldStrength")),
        repetition_ms=repetition,
        flip_deg=_positive(stated("FlipAngle")),
        gradient_echo=False if steady in _NOT_SPOILED else _gradient_echo(words, repetition),
        bandwidth_hz=_positive(stated("PixelBandwidth")),
        frequency_axis=_across_phase(
            stated("ImageOrientationPatient"), stated("InPlanePhaseEncodingDirection")
        ),
        distortion_corrected=corrected,
        from_isocentre=True,
    )


def settings_of_sidecar(path: Path, grid: Grid) -> ScanSettings | None:
    """The settings in a JSON file beside a NIfTI image; None where it cannot be read.

    Fields and units are those of BIDS (repetition time in seconds) and of dcm2niix.

    Args:
        path: the JSON file.
        grid: grid of the image, as stored.
    """
    try:
        if path.stat().st_size > _LARGEST_SIDECAR_BYTES:
            return None
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, Mapping):
        return None
    repetition = _positive(said.get("RepetitionTimeExcitation", said.get("RepetitionTime")))
    repetition = None if repetition is None else 1000.0 * repetition
    corrected = said.get("NonlinearGradientCorrection")
    if not isinstance(corrected, bool):
        corrected = _distortion_corrected(_words(said.get("ImageType"), lower=True))
    axis = _across_phase(
        said.get("ImageOrientationPatientDICOM"), said.get("InPlanePhaseEncodingDirectionDICOM")
    )
    if axis is None:
        encoded = str(said.get("PhaseEncodingDirection") or said.get("PhaseEncodingAxis") or "")
        axis = _axis_of(grid, _OTHER_AXIS.get(encoded[:1]))
    return ScanSettings(
        field_t=_positive(said.get("MagneticFieldStrength")),
        repetition_ms=repetition,
        flip_deg=_positive(said.get("FlipAngle")),
        gradient_echo=_gradient_echo(_words(said.get("ScanningSequence")), repetition),
        bandwidth_hz=_positive(said.get("PixelBandwidth")),
        frequency_axis=axis,
        distortion_corrected=corrected,
    )


def agreed(settings: Sequence[ScanSettings]) -> ScanSettings:
    """What all of several settings state alike; the rest is not stated."""
    alike = {}
    for field in fields(ScanSettings):
        values = {getattr(one, field.name) for one in settings}
        if len(values) == 1:
            alike[field.name] = values.pop()
    return ScanSettings(**alike)


def _positive(value: object) -> float | None:
    stated = number(value)
    return stated if stated is not None and stated > 0 else None


def _words(value: object, *, lower: bool = False) -> list[str]:
    """Words of a field of one or several values; some writers join them with _ or \\."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, Iterable):
        return []
    text = " ".join(str(part) for part in parts).replace("_", " ").replace("\\", " ")
    return (text.lower() if lower else text.upper()).split()


def _gradient_echo(words: Sequence[str], repetition_ms: float | None) -> bool | None:
    if {"SE", "SPIN", "BOTH"} & set(words):
        return False
    if {"GR", "GRADIENT"} & set(words):
        return True
    fast = repetition_ms is not None and repetition_ms < _SURELY_GRADIENT_MS
    return True if fast else None


def _distortion_corrected(image_type: Iterable[str]) -> bool | None:
    parts = set(image_type)
    if parts & _CORRECTED:
        return True
    return False if _UNCORRECTED in parts else None


def mark_tags(marks: Iterable[DistortionMark]) -> list[int]:
    """Elements of a header in which marks, and the creators that name them, may stand."""
    return [tag for mark in marks for tag in private_tags(mark.group, mark.element)]


def private_tags(group: int, element: int) -> list[int]:
    """Elements of a header in which a private one, and the creator that names it, may stand."""
    blocks = range(0x10, 0x10 + _PRIVATE_BLOCKS)
    return [group << 16 | low for block in blocks for low in (block, block << 8 | element)]


def _marked(data: Iterable[pydicom.Dataset], marks: Sequence[DistortionMark]) -> bool | None:
    """What the first mark that fits says; None where none does."""
    everywhere = list(data)
    for mark in marks:
        for dataset in everywhere:
            try:
                value = dataset.private_block(mark.group, mark.creator)[mark.element].value
            # Private elements are nobody's standard: what cannot be read says nothing.
            except (KeyError, ValueError, TypeError, AttributeError, NotImplementedError):
                continue
            # An element that no dictionary names comes as its bytes.
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if re.search(mark.value, " ".join(_words(text, lower=True))):
                return mark.corrected
    return None


def _across_phase(orientation: object, phase: object) -> tuple[float, float, float] | None:
    """Direction of the frequency encoding in the scanner from row and column of the image."""
    word = str(phase or "").upper()
    if word not in _ALONG_ROW | _ALONG_COLUMN:
        return None
    try:
        cosines = np.array(orientation, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if cosines.shape != (6,) or not np.all(np.isfinite(cosines)):
        return None
    # Phase in rows leaves the frequency along the columns, and the other way round.
    return _unit(LPS_TO_RAS[:3, :3] @ (cosines[3:] if word in _ALONG_ROW else cosines[:3]))


def _axis_of(grid: Grid, axis: int | None) -> tuple[float, float, float] | None:
    return None if axis is None else _unit(grid.affine[:3, axis])


def _unit(vector: np.ndarray) -> tuple[float, float, float] | None:
    length = float(np.linalg.norm(vector))
    if length == 0:
        return None
    x, y, z = (round(float(v) / length, 6) for v in vector)
    return x, y, z
