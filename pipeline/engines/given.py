"""The engine that uses label maps made elsewhere: by hand, or by another tool."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy import ndimage

from pipeline.core.errors import SubjectUnusableError
from pipeline.core.scan import GIVEN, EngineInfo, Leg, LegPair
from pipeline.core.soft import SoftLabels
from pipeline.imaging.decision import membership_of


class GivenEngine:
    """Takes over the labels that came with the scan, voxel by voxel."""

    def describe(self, legs: LegPair) -> EngineInfo:
        """Digest: sha256 over the given labels of both legs."""
        digest = hashlib.sha256()
        for leg in (legs.right, legs.left):
            if leg.given is not None:
                digest.update(np.ascontiguousarray(leg.given.data).tobytes())
        return EngineInfo(GIVEN, "1", digest.hexdigest())

    def body_size(self, legs: LegPair) -> float:
        """Labels say where muscles are, however large the body."""
        return 1.0

    def segment_leg(self, leg: Leg, body_size: float = 1.0) -> SoftLabels:
        """Memberships of 0 and 1 on the leg's own grid.

        Raises:
            SubjectUnusableError: the scan came without labels, or without any of this leg.
        """
        if leg.given is None:
            raise SubjectUnusableError(
                "The engine 'given' has no labels to use",
                expected="a label map beside the images (*_dseg.nii.gz) or --labels FILE",
                found="images only",
                action="add a label map, or choose another engine with --engine",
            )
        labels = leg.given.data
        boxes = ndimage.find_objects(labels)
        memberships = {
            value: membership_of(labels, value, box)
            for value, box in enumerate(boxes, start=1)
            if box is not None
        }
        levels = np.flatnonzero(labels.any(axis=(0, 1)))
        if levels.size == 0:
            raise SubjectUnusableError(
                f"The given label map has no label of the {leg.side} leg",
                expected="labels of both legs",
                found=f"none on the {leg.side}",
                action="check the label map and its scheme (--label-scheme)",
            )
        return SoftLabels(leg.grid, memberships, (int(levels[0]), int(levels[-1]) + 1))
