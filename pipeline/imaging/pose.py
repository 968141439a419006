"""Which way legs lie, seen in the legs themselves: front, head, outer side, and one leg twice.

A leg is judged as it comes in right-leg pose, by what its file says: +x outwards, +y forwards,
+z upwards. What anatomy cannot tell is a mirror image: a right leg in a mirror is a left leg.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import scipy
from numpy.typing import NDArray

from pipeline.core.anatomy import MUSCLES, STRUCTURE_IDS
from pipeline.core.soft import LegPose
from pipeline.core.volume import LabelMap
from pipeline.imaging.plausibility import levels_of_structures, order_of_levels

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Ways to look at a slice: with its columns reversed (outwards), with its rows (forwards).
AS_STATED = (False, False)
LOOKS = (AS_STATED, (True, False), (False, True), (True, True))

#: The first lies in front of the second on every level that shows both.
_IN_FRONT = (
    ("rectus_femoris", "biceps_femoris_long"),
    ("vastus_intermedius", "biceps_femoris_short"),
    ("vastus_medialis", "semimembranosus"),
    ("vastus_lateralis", "semitendinosus"),
    ("iliopsoas", "gluteus_maximus"),
    ("tensor_fasciae_latae", "gluteus_maximus"),
    ("patella", "femur"),
    ("tibia", "soleus"),
    ("tibialis_anterior", "soleus"),
    ("toe_extensors", "gastrocnemius_lateralis"),
    ("leg_anterior_compartment", "soleus"),
)
#: The first lies further out than the second.
_OUTSIDE = (
    ("vastus_lateralis", "vastus_medialis"),
    ("rectus_femoris", "gracilis"),
    ("biceps_femoris_long", "semimembranosus"),
    ("biceps_femoris_short", "semitendinosus"),
    ("tensor_fasciae_latae", "pectineus"),
    ("gluteus_medius", "iliopsoas"),
    ("fibula", "tibia"),
    ("fibulares", "tibia"),
    ("gastrocnemius_lateralis", "gastrocnemius_medialis"),
)
#: Centres nearer than this say nothing, mm.
_NEAR_MM = 3.0
#: So many pairs, and so large a share of them, decide.
_FEWEST_PAIRS, _MAJORITY = 3, 0.75
#: Share of the muscle in view: where less is found of one, a network guesses at its level.
_SPECK = 0.02
#: Levels compared when the legs are held against each other, as shares of those seen.
_COMPARED = (0.2, 0.35, 0.5, 0.65, 0.8)


def certainty(probabilities: Iterable[NDArray[np.float32]]) -> float:
    """How sure a network is which muscle it sees, 0 to 1: the sum of squared probabilities over
    the sum of the probabilities.

    Args:
        probabilities: of muscles only, any shapes. Where it sees none they weigh nothing.
    """
    squares, total = 0.0, 0.0
    for part in probabilities:
        values = part.astype(np.float64)
        squares += float((values**2).sum())
        total += float(values.sum())
    return squares / total if total > 0 else 0.0


def pose_seen(
    certainties: Mapping[tuple[bool, bool], float],
    upright: bool | None,
    margin: float,
    least: float,
) -> LegPose:
    """The pose in which a network recognises a leg best.

    Args:
        certainties: by LOOKS; a network that was shown one pose only is surest in it.
        upright: see `upright_by_levels`.
        margin: a smaller advantage decides nothing.
        least: a leg is said to lie otherwise than stated only if it is known by so much then.
            Noise and muscle in ruins are known by less, some way round by chance more than others.
    """

    def stated(axis: int) -> bool | None:
        kept, turned = (
            max(value for look, value in certainties.items() if look[axis] is reversed_)
            for reversed_ in (False, True)
        )
        if abs(kept - turned) < margin or (turned > kept and turned < least):
            return None
        return kept > turned

    return LegPose(front=stated(1), outside=stated(0), upright=upright)


def pose_of_labels(labels: LabelMap) -> LegPose:
    """The pose that the places of labelled structures against each other show."""
    centres = _centres(labels)
    return LegPose(
        front=_majority(_votes(centres, _IN_FRONT, 1)),
        outside=_majority(_votes(centres, _OUTSIDE, 0)),
        upright=upright_by_levels(levels_of_structures(labels.data), labels.grid.voxel_sizes_mm[2]),
    )


def upright_by_levels(counts: Floats, level_mm: float) -> bool | None:
    """Whether muscles follow each other along the limb as in a leg whose foot is below.

    Args:
        counts: voxels of each label value on each level, shape (256, nz), upwards.
        level_mm: distance of the levels.
    """
    muscles = counts[[muscle.id for muscle in MUSCLES]].sum(axis=1)
    clear = counts.copy()
    for muscle, size in zip(MUSCLES, muscles, strict=True):
        if size < _SPECK * muscles.sum():
            clear[muscle.id] = 0.0
    right, wrong = order_of_levels(clear, level_mm)
    return _majority([True] * len(right) + [False] * len(wrong))


def _majority(votes: list[bool]) -> bool | None:
    if len(votes) < _FEWEST_PAIRS:
        return None
    share = sum(votes) / len(votes)
    if max(share, 1.0 - share) < _MAJORITY:
        return None
    return share > 0.5


def _centres(labels: LabelMap) -> dict[str, Floats]:
    """By structure: in-plane centre on every level in mm, shape (2, nz), NaN where it is not."""
    data, sizes = labels.data, labels.grid.voxel_sizes_mm
    x, y = (np.arange(data.shape[k]) * sizes[k] for k in (0, 1))
    names = {STRUCTURE_IDS[name]: name for pair in (*_IN_FRONT, *_OUTSIDE) for name in pair}
    out = {name: np.full((2, data.shape[2]), np.nan) for name in names.values()}
    for k in range(data.shape[2]):
        level = np.ascontiguousarray(data[:, :, k])
        flat = level.ravel()
        count = np.bincount(flat, minlength=256)
        sums = (
            np.bincount(flat, weights=np.repeat(x, y.size), minlength=256),
            np.bincount(flat, weights=np.tile(y, x.size), minlength=256),
        )
        for value, name in names.items():
            if count[value]:
                out[name][:, k] = [total[value] / count[value] for total in sums]
    return out


def _votes(
    centres: Mapping[str, Floats], pairs: Iterable[tuple[str, str]], axis: int
) -> list[bool]:
    votes = []
    for first, second in pairs:
        apart = centres[first][axis] - centres[second][axis]
        apart = apart[np.isfinite(apart)]
        if apart.size and abs(float(np.median(apart))) > _NEAR_MM:
            votes.append(bool(np.median(apart) > 0))
    return votes


def difference_of_legs(
    right: NDArray[np.float32], left: NDArray[np.float32], own: Flags, others: Flags
) -> float | None:
    """How different two legs are, where they are laid on each other, in units of what differs
    from one voxel of the right leg to the next.

    Two legs of a person differ by more than neighbouring voxels do: their shapes differ, and the
    noise of each is its own (near 1 for a body that is symmetric but for noise). One leg that is
    shown twice, mirrored or not, comes near 0.

    Args:
        right, left: one image of both legs in right-leg pose, same number of levels.
        own, others: tissue of the right and of the left leg.

    Returns:
        None where there is too little tissue or no structure at all.
    """
    shown = np.flatnonzero(own.any(axis=(0, 1)) & others.any(axis=(0, 1)))
    if not shown.size:
        return None
    levels = np.unique(shown[[int(share * (shown.size - 1)) for share in _COMPARED]])
    one, mine = (array[:, :, levels].astype(np.float64) for array in (right * own, own))
    two, theirs = (array[:, :, levels].astype(np.float64) for array in (left * others, others))
    found = []
    for way in (slice(None), slice(None, None, -1)):
        shift = _best_shift(one, two[way])
        there, both = _laid_on(two[way], theirs[way], shift, one.shape)
        inside = (both > 0.5) & (mine > 0.5)
        if np.count_nonzero(inside) < 0.5 * max(map(np.count_nonzero, (mine, theirs))):
            continue
        found.append(float(np.median(np.abs(one - there)[inside])))
    # The smoother leg counts: a copy that was smoothed on the way has lost noise, not likeness.
    rough = [value for value in (_roughness(one, mine), _roughness(two, theirs)) if value > 0]
    return min(found) / max(rough) if found and rough else None


def _roughness(leg: Floats, tissue: Floats) -> float:
    """Median difference of neighbouring voxels of a leg across the body."""
    beside = (tissue[1:] > 0.5) & (tissue[:-1] > 0.5)
    return float(np.median(np.abs(np.diff(leg, axis=0))[beside])) if beside.any() else 0.0


def _best_shift(one: Floats, two: Floats) -> tuple[int, int]:
    """Where the corner of `two` lies in `one` for the largest sum of products of all levels."""
    product = scipy.signal.fftconvolve(one, two[::-1, ::-1], axes=(0, 1)).sum(axis=2)
    at = np.unravel_index(int(product.argmax()), product.shape)
    return int(at[0]) - two.shape[0] + 1, int(at[1]) - two.shape[1] + 1


def _laid_on(
    values: Floats, mask: Floats, shift: tuple[int, int], shape: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Both arrays moved by a shift of whole voxels onto an array of another shape."""
    out = np.zeros(shape), np.zeros(shape)
    here, there = [], []
    for offset, own, wanted in zip(shift, values.shape, shape, strict=False):
        low, high = max(0, offset), min(wanted, offset + own)
        here.append(slice(low, max(low, high)))
        there.append(slice(low - offset, max(low, high) - offset))
    for target, source in zip(out, (values, mask), strict=True):
        target[tuple(here)] = source[tuple(there)]
    return out
