"""What a segmentation engine is, and which ones there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pipeline.config import SegmentConfig
from pipeline.core.errors import ConfigError
from pipeline.core.frozen import FrozenDict
from pipeline.core.scan import GIVEN, EngineInfo, Leg, LegPair
from pipeline.core.soft import SoftLabels
from pipeline.engines.embedded import EmbeddedEngine
from pipeline.engines.given import GivenEngine


class Engine(Protocol):
    """Finds muscles in one leg at a time, always in right-leg pose."""

    def describe(self, legs: LegPair) -> EngineInfo:
        """Name, version and digest (of weights or given labels) for the provenance."""
        ...

    def body_size(self, legs: LegPair) -> float:
        """How large these legs are against the bodies the engine knows: one figure for both, so
        that neither is read at another size than the other; 1 where size does not matter."""
        ...

    def segment_leg(self, leg: Leg, body_size: float = 1.0) -> SoftLabels:
        """Soft labels of a leg; ids of LEG_SCHEME, any grid in the leg's space.

        Automatic ones state a confidence of each muscle.
        """
        ...


_ENGINES: Mapping[str, Callable[[SegmentConfig], Engine]] = FrozenDict(
    {
        "embedded": lambda config: EmbeddedEngine(config.embedded),
        GIVEN: lambda config: GivenEngine(),
    }
)


def get_engine(config: SegmentConfig) -> Engine:
    """The configured engine.

    Raises:
        ConfigError: no engine of that name.
    """
    if config.engine not in _ENGINES:
        raise ConfigError(
            "Unknown segmentation engine",
            expected=f"one of {', '.join(_ENGINES)}",
            found=repr(config.engine),
            action="correct segment.engine in the configuration, or --engine",
        )
    return _ENGINES[config.engine](config)
