"""Segment: labels for each leg, in right-leg pose, on its own voxels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.core.anatomy import Side
from pipeline.core.errors import SubjectUnusableError
from pipeline.core.results import SIDES_FROM_ANATOMY, UNUSUAL_SIZE, Finding, Severity
from pipeline.core.scan import Leg, LegPair, SegmentedLegs, StageResult
from pipeline.core.soft import LegPose, SoftLabels
from pipeline.core.volume import LabelMap
from pipeline.engines import Engine, get_engine
from pipeline.imaging.decision import decide, labelled_levels
from pipeline.imaging.fat_border import keep_to_leg
from pipeline.imaging.limb_axis import with_labels
from pipeline.imaging.plausibility import (
    border_ridge,
    levels_out_of_order,
    mean_confidence,
    muscle_image,
    muscle_share_of_tissue,
    share_of_levels_with_bone,
    unexplained_share,
)
from pipeline.imaging.pose import pose_of_labels
from pipeline.imaging.threads import one_thread


@one_thread()
def segment(
    legs: LegPair, *, config: SegmentConfig, engine: Engine | None = None
) -> StageResult[SegmentedLegs]:
    """Label both legs with one engine, each on its own and in the same pose.

    Labels that a program found are kept to the leg's own tissue and checked; labels given by a
    person are taken as they are.

    Args:
        legs: both legs in right-leg pose.
        config: names the engine; its parameters, and limits of the checks.
        engine: an engine of the caller's own, in place of the configured one.

    Raises:
        ConfigError: unknown engine.
        SubjectUnusableError: the engine cannot work with these legs, or they are no legs.
    """
    chosen = engine if engine is not None else get_engine(config)
    segmented = []
    findings: list[Finding] = []
    poses: dict[Side, LegPose] = {}
    no_leg: SubjectUnusableError | None = None
    body_size = chosen.body_size(legs)
    for leg in (legs.right, legs.left):
        soft = chosen.segment_leg(leg, body_size)
        labels = decide(soft, leg.grid)
        poses[leg.side] = soft.pose if soft.pose is not None else pose_of_labels(labels)
        _refuse_turned(leg.side, poses[leg.side])
        if soft.automatic:
            labels = keep_to_leg(
                labels,
                leg,
                fat_border_percent=config.fat_border_percent,
                thick_fat_mm=config.thick_fat_mm,
            )
            try:
                findings += _check(leg, labels, soft, config)
            except SubjectUnusableError as error:
                no_leg = no_leg or error
        labelled = labelled_levels(soft, leg.grid)
        segmented.append(with_labels(leg, labels, confidence=soft.confidence, labelled=labelled))
    right, left = segmented
    if no_leg is not None and all(pose.outside is not False for pose in poses.values()):
        raise no_leg
    # A leg that lies the wrong way round hardly looks like one, but what is wrong is the side.
    findings += _sides_from_anatomy(poses)
    findings += _unusual_size(body_size)
    return StageResult(
        SegmentedLegs(right, left, chosen.describe(legs), legs.doubt, legs.caveats),
        tuple(findings),
    )


def _refuse_turned(side: Side, pose: LegPose) -> None:
    """
    Raises:
        SubjectUnusableError: the leg lies the other way round than its file says.
    """
    turned = [
        words
        for words, stated in (("front and back", pose.front), ("head and foot", pose.upright))
        if stated is False
    ]
    if turned:
        raise SubjectUnusableError(
            f"The {side} leg does not lie as the position in its file says",
            expected="front, back, head and foot where the headers put them",
            found=f"{' and '.join(turned)} exchanged, by the anatomy",
            action="correct the orientation at its source (an axis with a wrong sign, or a "
            "wrong patient position). Whether right and left are exchanged too cannot be seen "
            "from legs, so flipping the image back is no proof of its sides",
        )


def _sides_from_anatomy(poses: Mapping[Side, LegPose]) -> Iterator[Finding]:
    """What the anatomy says of the sides.

    Raises:
        SubjectUnusableError: the outer side of a leg faces the other leg.
    """
    inwards = [side for side, pose in poses.items() if pose.outside is False]
    if inwards:
        both = len(inwards) == len(poses)
        raise SubjectUnusableError(
            "The outer sides of both legs face each other"
            if both
            else f"The outer side of the {inwards[0]} leg faces the other leg",
            expected="the outer side of each leg (fibula, vastus lateralis) pointing outwards",
            found="the legs in each other's place, by a program or because they lay crossed"
            if both
            else "two right or two left legs: one leg shown twice, or legs of two scans",
            action="look for the step that put the legs together, and give the scan as it came "
            "from the scanner; legs that lay crossed have to be scanned side by side",
        )
    known = [
        words
        for words, field in (
            ("front and back", "front"),
            ("outer and inner sides", "outside"),
            ("head and foot", "upright"),
        )
        if all(getattr(pose, field) for pose in poses.values())
    ]
    if known:
        yield Finding(
            code=SIDES_FROM_ANATOMY,
            severity=Severity.INFO,
            stage="segment",
            message=f"The anatomy agrees with the headers on {', '.join(known)} of both legs; "
            "a mirror image would look the same.",
            value=float(len(known)),
            unit="of 3 directions",
        )


def _unusual_size(body_size: float) -> Iterator[Finding]:
    if body_size != 1.0:
        yield Finding(
            code=UNUSUAL_SIZE,
            severity=Severity.INFO,
            stage="segment",
            message=f"The legs were read as those of a body {body_size:g} times the size of an "
            "adult's: that is how the network knows their muscles best. If this is neither a child "
            "nor a very small or large person, check the voxel sizes of the images. Healthy limits "
            "are those of adults.",
            value=body_size,
            threshold=1.0,
            unit="times an adult's",
        )


def _check(
    leg: Leg, labels: LabelMap, soft: SoftLabels, config: SegmentConfig
) -> Iterator[Finding]:
    """What is doubtful about labels a program found.

    Raises:
        SubjectUnusableError: what is in view does not look like a leg.
    """
    # Muscles full of fat are read with little confidence, but front and outside are still told:
    # tubes, bottles and balls look alike from all sides.
    told = soft.pose is not None and soft.pose.front is True and soft.pose.outside is True
    for value, limit, words, without in (
        (
            muscle_share_of_tissue(labels, leg),
            config.smallest_muscle_share,
            "muscle is {0:.2f} of the tissue (at least {1:.2f} in a leg)",
            "no muscle",
        ),
        (
            mean_confidence(labels, soft.confidence),
            config.lowest_told_confidence if told else config.lowest_leg_confidence,
            "labels stay the same by {0:.2f} only when the images are disturbed a little "
            "({1:.2f} in a leg)",
            "no word of the engine how sure it is of any muscle",
        ),
        (
            share_of_levels_with_bone(labels),
            config.smallest_share_with_bone,
            "a long bone beside the muscles on {0:.2f} of the levels only ({1:.2f} in a leg)",
            "no muscle with a bone beside it",
        ),
    ):
        if value is None or value < limit:
            raise SubjectUnusableError(
                f"What is in view on the {leg.side} does not look like a leg",
                expected="thigh, knee, leg or hip of a person, in slices across the limb",
                found=without if value is None else words.format(value, limit),
                action="check the images; labels made elsewhere are used with --labels",
            )
    yield from _doubts(leg, labels, muscle_image(leg), config)


def _doubts(
    leg: Leg, labels: LabelMap, image: NDArray[np.float32], config: SegmentConfig
) -> Iterator[Finding]:
    """Findings on labels that are those of a leg."""
    unexplained = unexplained_share(labels, leg, image)
    ridge = border_ridge(labels, image)
    wrong = levels_out_of_order(labels)
    named = ", ".join(f"{u} below {v}" for u, v in wrong).replace("_", " ")
    for code, value, limit, unit, doubtful, message in (
        (
            "unexplained_tissue",
            unexplained,
            config.largest_unexplained_share,
            "share",
            unexplained is not None and unexplained > config.largest_unexplained_share,
            f"Tissue that looks like muscle was left without a label on the {leg.side}: "
            f"{100 * (unexplained or 0.0):.0f} % of the labelled muscle.",
        ),
        (
            "borders_not_on_fascia",
            ridge,
            config.smallest_border_ridge,
            "ratio",
            ridge is not None and ridge < config.smallest_border_ridge,
            f"Borders between muscles on the {leg.side} follow the dark or bright lines between "
            f"muscles in the images only weakly ({ridge or 0.0:.3f} times as much of them as 3 mm "
            f"beside; {config.smallest_border_ridge:g} at least is wanted): look at the pictures "
            "whether outlines cut through muscles.",
        ),
        (
            "levels_out_of_order",
            float(len(wrong)),
            0.0,
            "pairs",
            bool(wrong),
            f"Muscles lie in the wrong order along the {leg.side} limb: {named}.",
        ),
    ):
        if doubtful:
            yield Finding(
                code=code,
                severity=Severity.WARNING,
                stage="segment",
                side=leg.side,
                message=message,
                value=value,
                threshold=limit,
                unit=unit,
            )
