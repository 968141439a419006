"""Parametric digital legs with known truth, made from published figures."""

from pipeline.phantom.acquisition import Acquisition, Scan, acquire, split_into_stations
from pipeline.phantom.body import Body, MuscleTruth, Truth, asymmetry_percent, grid_for, make_body
from pipeline.phantom.parameters import BodyParameters, Pose, mirrored

__all__ = [
    "Acquisition",
    "Body",
    "BodyParameters",
    "MuscleTruth",
    "Pose",
    "Scan",
    "Truth",
    "acquire",
    "asymmetry_percent",
    "grid_for",
    "make_body",
    "mirrored",
    "split_into_stations",
]
