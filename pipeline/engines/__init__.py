"""Segmentation engines behind one protocol."""

from pipeline.engines.base import Engine, get_engine

__all__ = ["Engine", "get_engine"]
