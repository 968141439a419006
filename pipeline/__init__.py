"""Per-muscle left/right lean-volume asymmetry from lower-limb MRI.

The stages, in order, and the types they hand to each other. They are imported on first use, so
that `import pipeline` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Config, default_config, load_config
    from pipeline.core.anatomy import GROUPS, MUSCLES, OWN_SCHEME, LabelScheme, Side
    from pipeline.core.errors import (
        ConfigError,
        InputError,
        MyosymmetryError,
        SubjectUnusableError,
        UnmetNeedError,
        UsageError,
    )
    from pipeline.core.grid import Grid
    from pipeline.core.match import LegMatch
    from pipeline.core.results import Asymmetry, Finding, LimbMeasures, Measurement, Measures
    from pipeline.core.scan import (
        ArraySource,
        CanonicalScan,
        Leg,
        LegPair,
        LoadedSubject,
        Participant,
        SegmentedLeg,
        SegmentedLegs,
        StageResult,
    )
    from pipeline.core.transform import AffineTransform, SpatialTransform
    from pipeline.core.volume import DixonPair, LabelMap, Quantity, Volume
    from pipeline.engines.base import Engine
    from pipeline.flow import ProcessedSubject, process_subject
    from pipeline.report import render_report, write_report
    from pipeline.stages.canonicalise import canonicalise
    from pipeline.stages.load import load_subject
    from pipeline.stages.measure import measure
    from pipeline.stages.reconcile import reconcile
    from pipeline.stages.register import register
    from pipeline.stages.segment import segment
    from pipeline.stages.separate import separate_legs

_HOMES = {
    "config": ("Config", "default_config", "load_config"),
    "core.anatomy": ("GROUPS", "MUSCLES", "OWN_SCHEME", "LabelScheme", "Side"),
    "core.errors": (
        "ConfigError",
        "InputError",
        "MyosymmetryError",
        "SubjectUnusableError",
        "UnmetNeedError",
        "UsageError",
    ),
    "core.grid": ("Grid",),
    "core.match": ("LegMatch",),
    "core.results": ("Asymmetry", "Finding", "LimbMeasures", "Measurement", "Measures"),
    "core.scan": (
        "ArraySource",
        "CanonicalScan",
        "Leg",
        "LegPair",
        "LoadedSubject",
        "Participant",
        "SegmentedLeg",
        "SegmentedLegs",
        "StageResult",
    ),
    "core.transform": ("AffineTransform", "SpatialTransform"),
    "core.volume": ("DixonPair", "LabelMap", "Quantity", "Volume"),
    "engines.base": ("Engine",),
    "flow": ("ProcessedSubject", "process_subject"),
    "report": ("render_report", "write_report"),
    "stages.canonicalise": ("canonicalise",),
    "stages.load": ("load_subject",),
    "stages.measure": ("measure",),
    "stages.reconcile": ("reconcile",),
    "stages.register": ("register",),
    "stages.segment": ("segment",),
    "stages.separate": ("separate_legs",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "GROUPS",
    "MUSCLES",
    "OWN_SCHEME",
    "AffineTransform",
    "ArraySource",
    "Asymmetry",
    "CanonicalScan",
    "Config",
    "ConfigError",
    "DixonPair",
    "Engine",
    "Finding",
    "Grid",
    "InputError",
    "LabelMap",
    "LabelScheme",
    "Leg",
    "LegMatch",
    "LegPair",
    "LimbMeasures",
    "LoadedSubject",
    "Measurement",
    "Measures",
    "MyosymmetryError",
    "Participant",
    "ProcessedSubject",
    "Quantity",
    "SegmentedLeg",
    "SegmentedLegs",
    "Side",
    "SpatialTransform",
    "StageResult",
    "SubjectUnusableError",
    "UnmetNeedError",
    "UsageError",
    "Volume",
    "canonicalise",
    "default_config",
    "load_config",
    "load_subject",
    "measure",
    "process_subject",
    "reconcile",
    "register",
    "render_report",
    "segment",
    "separate_legs",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.{_HOME_OF[name]}"), name)
