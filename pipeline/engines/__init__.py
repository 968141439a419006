"""Segmentation engines behind one protocol."""

from pipeline.engines.base import Engine, engine_names, get_engine

__all__ = ["Engine", "engine_names", "get_engine"]
