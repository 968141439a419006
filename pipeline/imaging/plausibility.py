"""What labels found by a program must look like, judged without any truth.

Each function takes one leg in right-leg pose and gives back numbers; the stage holds them
against limits. Nothing here changes a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.core.anatomy import MUSCLES, MUSCLES_BY_NAME, STRUCTURE_IDS
from pipeline.core.errors import InvariantError
from pipeline.core.scan import Leg
from pipeline.core.soft import Confidence
from pipeline.core.volume import LabelMap, Quantity
from pipeline.imaging.labels import is_muscle

Flags = NDArray[np.bool_]
Labels = NDArray[np.integer]
Singles = NDArray[np.float32]

#: Centre of the first lies above that of the second, also where a scan shows a part of the leg:
#: their origins and insertions lie in that order, or far apart.
_ABOVE = (
    ("gluteus_maximus", "vastus_lateralis"),
    ("gluteus_medius", "vastus_intermedius"),
    ("tensor_fasciae_latae", "vastus_lateralis"),
    ("pectineus", "adductor_magnus"),
    ("adductor_brevis", "adductor_magnus"),
    ("adductor_longus", "biceps_femoris_short"),
    ("adductor_magnus", "biceps_femoris_short"),
    ("rectus_femoris", "vastus_medialis"),
    ("rectus_femoris", "biceps_femoris_short"),
    ("gracilis", "semimembranosus"),
    ("biceps_femoris_long", "biceps_femoris_short"),
    ("vastus_medialis", "gastrocnemius_medialis"),
    ("semimembranosus", "popliteus"),
    ("gastrocnemius_medialis", "soleus"),
    ("gastrocnemius_medialis", "toe_extensors"),
    ("gastrocnemius_medialis", "fibulares"),
    ("gastrocnemius_medialis", "tibialis_posterior"),
    ("gastrocnemius_lateralis", "soleus"),
    ("gastrocnemius_lateralis", "fibulares"),
    ("soleus", "flexor_hallucis_longus"),
    ("tibialis_posterior", "flexor_hallucis_longus"),
    ("popliteus", "flexor_hallucis_longus"),
)
#: On less of a limb than this, the centres of muscles that go on beyond both ends say where the
#: scan lies: 0.2 % of the stretches of 40 and 70 mm of labelled real legs showed head and foot
#: exchanged, none of 3,600 longer ones.
_SHORTEST_MM = 100.0
#: Structures of a long bone: next to any muscle of the limb lies one of them.
_BONES = tuple(STRUCTURE_IDS[n] for n in ("femur", "tibia", "fibula", "hip_bone"))
_PELVIS = tuple(STRUCTURE_IDS[n] for n in ("hip_bone", "sacrum"))
#: Muscle-like tissue thinner than this is skin, vessels, or the rim of a muscle.
_THIN_MM = 8.0
_MOST = 0.55
#: A border is compared with what lies at about this distance from it, inside the muscles.
_BESIDE_MM = (2.0, 4.0)
#: Width of the fascia looked for.
_FASCIA_MM = 1.2
#: Levels between the slices looked at.
_EVERY_MM = 12.0


def levels_out_of_order(labels: LabelMap) -> list[tuple[str, str]]:
    """Pairs of muscles whose first should lie above its second and does not."""
    counts = levels_of_structures(labels.data)
    return order_of_levels(counts, labels.grid.voxel_sizes_mm[2])[1]


def order_of_levels(
    counts: NDArray[np.float64], level_mm: float
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of muscles whose first lies above its second, as it should, and those where not; none
    where muscles are seen on too short a stretch of the limb to tell.

    Args:
        counts: voxels of each label value on each level, shape (256, nz), upwards.
        level_mm: distance of the levels.
    """
    levels = np.flatnonzero(counts[[muscle.id for muscle in MUSCLES]].any(axis=0))
    if levels.size == 0 or (levels[-1] + 1 - levels[0]) * level_mm < _SHORTEST_MM:
        return [], []
    heights = {}
    for muscle in MUSCLES:
        here = counts[muscle.id]
        if here.any():
            heights[muscle.name] = float(here @ np.arange(here.size) / here.sum())
    seen = [pair for pair in _ABOVE if pair[0] in heights and pair[1] in heights]
    wrong = [pair for pair in seen if heights[pair[0]] < heights[pair[1]]]
    return [pair for pair in seen if pair not in wrong], wrong


def levels_of_structures(labels: Labels) -> NDArray[np.float64]:
    """Voxels of each label value on each level, shape (256, nz)."""
    return np.stack(
        [
            np.bincount(np.ascontiguousarray(labels[:, :, k]).ravel(), minlength=256)
            for k in range(labels.shape[2])
        ],
        axis=1,
    ).astype(np.float64)


def muscle_image(leg: Leg) -> Singles:
    """The image in which muscle stands out best, any unit: fraction of water where known."""
    if leg.dixon is not None:
        total = leg.dixon.water.data + leg.dixon.fat.data
        out = np.zeros(total.shape, dtype=np.float32)
        np.divide(leg.dixon.water.data, total, out=out, where=leg.dixon.valid & (total > 0))
        return out
    for quantity in Quantity:
        if quantity in leg.images:
            return leg.images[quantity].data
    raise InvariantError("A leg without an image has no picture of its muscles")


def unexplained_share(labels: LabelMap, leg: Leg, image: Singles) -> float | None:
    """Tissue that looks like the labelled muscle and has no label, as a share of that muscle.

    Muscle-like is what lies between the 10th and 90th percentile of the labelled muscle's
    values; only tissue thicker than vessels and skin counts, on levels that have muscle and not
    the pelvis: what it holds, and the wall of the belly, may look like muscle and has no label.

    Returns:
        None where every level with muscle shows the pelvis.
    """
    muscle = is_muscle(labels.data)
    sizes = leg.grid.voxel_sizes_mm
    limb = ~np.isin(labels.data, _PELVIS).any(axis=(0, 1))
    levels = _some_levels(muscle & limb, sizes[2])
    if not len(levels):
        return None
    low, high = np.percentile(image[:, :, levels][muscle[:, :, levels]], (10.0, 90.0))
    around = [max(1, round(_THIN_MM / size)) for size in sizes[:2]]
    found = 0
    for level in levels:
        value = image[:, :, level]
        free = (labels.data[:, :, level] == 0) & leg.tissue[:, :, level]
        like = free & (value >= low) & (value <= high)
        # Noise takes single voxels out of the range, so most of the neighbours must be in it.
        thick = ndimage.uniform_filter(like.astype(np.float32), around) > _MOST
        found += int(np.count_nonzero(like & thick))
    return found / float(np.count_nonzero(muscle[:, :, levels]))


def border_ridge(labels: LabelMap, image: Singles) -> float | None:
    """How much more fascia lies on the borders between muscles than 3 mm beside them.

    Fascia is a thin sheet: a ridge across which the image bends sharply, darker or brighter.
    Its strength is the largest bend (second derivative at the width of fascia), averaged over
    the border and over the inside of the muscles about 3 mm away from it, on either side.

    Returns:
        the ratio of the two; 1 means that the borders lie anywhere. None without a border.
    """
    sizes = labels.grid.voxel_sizes_mm
    muscle = is_muscle(labels.data)
    on, beside = np.zeros(2), np.zeros(2)
    sigma = [max(0.5, _FASCIA_MM / size) for size in sizes[:2]]
    for level in _some_levels(muscle, sizes[2]):
        border = _borders(labels.data[:, :, level], muscle[:, :, level])
        if not border.any():
            continue
        ridge = _ridge(image[:, :, level].astype(np.float64), sigma)
        on += np.array([ridge[border].sum(), np.count_nonzero(border)])
        away = ndimage.distance_transform_edt(~border, sizes[:2])
        near = muscle[:, :, level] & (away >= _BESIDE_MM[0]) & (away <= _BESIDE_MM[1])
        beside += np.array([ridge[near].sum(), np.count_nonzero(near)])
    if on[1] == 0 or beside[0] <= 0:
        return None
    return float((on[0] / on[1]) / (beside[0] / beside[1]))


def _borders(labels: Labels, muscle: Flags) -> Flags:
    """Voxels of one slice with another muscle beside them."""
    out = np.zeros(labels.shape, dtype=np.bool_)
    for axis in (0, 1):
        one = [slice(None), slice(None)]
        two = [slice(None), slice(None)]
        one[axis], two[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(one), tuple(two)
        differ = (labels[a] != labels[b]) & muscle[a] & muscle[b]
        out[a] |= differ
        out[b] |= differ
    return out


def _ridge(image: NDArray[np.float64], sigma: Sequence[float]) -> NDArray[np.float64]:
    """Absolute value of the strongest bend of an image at each voxel."""
    xx, yy, xy = (ndimage.gaussian_filter(image, sigma, order=o) for o in ((2, 0), (0, 2), (1, 1)))
    mean, half = (xx + yy) / 2.0, np.hypot((xx - yy) / 2.0, xy)
    return np.asarray(np.abs(mean) + half)


def _some_levels(mask: Flags, level_mm: float) -> NDArray[np.intp]:
    """Levels with something on them, about 12 mm apart."""
    present = np.flatnonzero(mask.any(axis=(0, 1)))
    return present[:: max(1, round(_EVERY_MM / level_mm))]


def share_of_levels_with_bone(labels: LabelMap) -> float | None:
    """Share of the levels with muscle that show a long bone or the hip bone too."""
    counts = levels_of_structures(labels.data)
    muscle = counts[is_muscle(np.arange(len(counts)))].sum(axis=0) > 0
    if not muscle.any():
        return None
    bone = counts[list(_BONES)].sum(axis=0) > 0
    return float((bone & muscle).sum() / muscle.sum())


def muscle_share_of_tissue(labels: LabelMap, leg: Leg) -> float:
    """Muscle as a share of the tissue of a leg, on all levels that show it."""
    muscle = np.count_nonzero(is_muscle(labels.data))
    return muscle / max(1, int(np.count_nonzero(leg.tissue & leg.seen)))


def mean_confidence(labels: LabelMap, confidence: Mapping[str, Confidence]) -> float | None:
    """Mean confidence of the muscles, weighted by volume; None without any."""
    counts = np.bincount(labels.data.ravel(), minlength=256)
    known = [
        (counts[MUSCLES_BY_NAME[name].id], value.agreement)
        for name, value in confidence.items()
        if name in MUSCLES_BY_NAME
    ]
    total = sum(count for count, _ in known)
    return float(sum(count * value for count, value in known) / total) if total else None
