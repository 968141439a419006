"""Whether DICOM series are of one person and one examination."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pipeline.core.errors import InputError
from pipeline.io.dicom import DicomSeries
from pipeline.io.dicom_planes import EXAMINATION_TRAITS

#: Images of one examination are acquired within this time.
_LONGEST_EXAMINATION_S = 2 * 3600.0
#: Planes that are said to lie in one place agree to this: what headers state is the same number.
_SAME_PLACE_MM = 1e-3


class Origins(StrEnum):
    """How well series that are used together are known to be of one examination."""

    ONE = "one examination and, as far as stated, one frame of reference"
    OTHER_FRAMES = "one examination with several frames of reference"
    ONE_BY_TRAITS = "an examination for each series, which are one by all else that is stated"


def check_origin(used: Sequence[DicomSeries]) -> Origins:
    """Whether series that are used together are of one person and one examination.

    Some anonymisers give every series an examination of its own (and a frame of reference). They
    are taken for one where nothing that is stated speaks against it, and either their frame of
    reference is the same or all of them lie in exactly one place.

    Raises:
        InputError: they are of several persons or from several examinations.
    """
    for what in ("person", "examination"):
        series = _by_origin(used, what)
        if len(series) < 2:
            continue
        against = _not_one(used) if what == "examination" else ""
        if against is None:
            return Origins.ONE_BY_TRAITS
        why = f" ({against})" if against else ""
        raise InputError(
            f"The DICOM images are of {len(series)} {what}s",
            expected="images of one person from one examination",
            found="; ".join(f"one with {', '.join(names)}" for names in series) + why,
            action=f"keep the files of one {what} in the subject's folder; sessions have "
            "folders of their own",
        )
    return Origins.ONE if len(_by_origin(used, "coordinates")) < 2 else Origins.OTHER_FRAMES


def _not_one(used: Sequence[DicomSeries]) -> str | None:
    """What keeps series with an examination each from being of one; "" where it is not so that
    each has one of its own; None: nothing."""
    planes = [plane for series in used for plane in series.planes]
    origins = [plane.origin for plane in planes if plane.origin is not None]
    pairs = {(origin.examination, origin.series) for origin in origins}
    if not len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}):
        return ""
    for place, trait in enumerate(EXAMINATION_TRAITS):
        if len({origin.traits[place] for origin in origins} - {""}) > 1:
            return f"each series has one of its own, and they state different values of {trait}"
    times = [origin.acquired_s for origin in origins if origin.acquired_s is not None]
    if times and max(times) - min(times) > _LONGEST_EXAMINATION_S:
        return (
            "each series has one of its own, and they were acquired "
            f"{(max(times) - min(times)) / 3600:.1f} hours apart"
        )
    if len({origin.coordinates for origin in origins}) == 1 and origins[0].coordinates:
        return None
    if len({_places(series) for series in used}) == 1:
        return None
    return (
        "each series has one of its own, and neither a frame of reference nor their places in it "
        "say that they are of one"
    )


def _places(series: DicomSeries) -> frozenset[tuple[int, ...]]:
    """Where the slices of a series lie, what size they have, and which way they are turned."""
    return frozenset(
        tuple(
            round(float(value) / _SAME_PLACE_MM)
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
            for value in plane.place.get(keyword) or ()
        )
        + plane.size
        for plane in series.planes
    )


def _by_origin(used: Sequence[DicomSeries], what: str) -> list[list[str]]:
    """Names of the series of each origin that any states, sorted."""
    names: dict[str, set[str]] = {}
    for series in used:
        for plane in series.planes:
            stated = "" if plane.origin is None else getattr(plane.origin, what)
            if stated:
                names.setdefault(stated, set()).add(series.name)
    return sorted(sorted(some) for some in names.values())
