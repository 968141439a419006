"""What a pixel of a prepared label map can be, and what the network may call it.

Ids 1-30 (muscles) and 41-47 (bones) are those of the pipeline's registry; the codes here stand
for what the sources leave open.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.core.anatomy import BONES, MUSCLES

MUSCLE_IDS = tuple(muscle.id for muscle in MUSCLES)
BONE_IDS = tuple(bone.id for bone in BONES)
FEMUR, TIBIA, FIBULA, PATELLA, HIP_BONE, SACRUM, FOOT = BONE_IDS

#: Unions of muscles that a source does not resolve (ids of the anatomy maps).
UNIONS: dict[int, tuple[int, ...]] = {51: (21, 22), 52: (27, 28, 29, 30), 53: (24, 25)}

OUTSIDE = 0
#: Thin gaps between labels: fascia and fat between muscles.
SEAM = 60
#: A large unlabelled part inside the fascia or the pelvis.
UNKNOWN = 61
#: Muscles and bones of the other leg.
OTHER_MUSCLE, OTHER_BONE = 62, 63
CODE_COUNT = 64

#: Classes of the network: background, 30 muscles, 7 bones.
CLASS_IDS = (0, *MUSCLE_IDS, *BONE_IDS)
CLASS_COUNT = len(CLASS_IDS)
_CLASS_OF = {value: index for index, value in enumerate(CLASS_IDS)}


def allowed_classes(
    present: Iterable[int], *, never_labelled: Iterable[int], complete: bool
) -> NDArray[np.bool_]:
    """Which classes a pixel of each code may have in truth.

    Args:
        present: ids that are labelled on this slice.
        never_labelled: ids that the source does not draw although they may be there.
        complete: the source draws everything else wherever it is. Automatic maps drop their own
            muscles in single slices: there a thin gap may hide any class that is not on the slice.

    Returns:
        Boolean, shape (CODE_COUNT, CLASS_COUNT).
    """
    table = np.zeros((CODE_COUNT, CLASS_COUNT), dtype=bool)
    for value, index in _CLASS_OF.items():
        if value < CODE_COUNT:
            table[value, index] = True
    for union, members in UNIONS.items():
        table[union, [_CLASS_OF[member] for member in members]] = True
    hidden = {_CLASS_OF[value] for value in never_labelled}
    if not complete:
        seen = set(present)
        for union, members in UNIONS.items():
            if union in seen:
                seen.update(members)
        hidden |= {_CLASS_OF[value] for value in MUSCLE_IDS + BONE_IDS if value not in seen}
    for code in (SEAM, UNKNOWN):
        table[code, 0] = True
        table[code, sorted(hidden)] = True
    bones = [_CLASS_OF[bone] for bone in (FEMUR, TIBIA, HIP_BONE, SACRUM)]
    table[UNKNOWN, bones] = True
    table[[OUTSIDE, OTHER_MUSCLE, OTHER_BONE], 0] = True
    return table
