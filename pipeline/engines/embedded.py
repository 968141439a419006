"""The engine of this package: a small network that reads one leg slice by slice.

It sees each slice with its neighbours, on its own pixels in the plane; what it says of the slices
is then cleaned in three dimensions (imaging.cleaning). A muscle's confidence is how far the
network stays with its labels when the leg is seen a little differently (imaging.perturbation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.config import EmbeddedConfig
from pipeline.core.anatomy import MUSCLES, STRUCTURES
from pipeline.core.errors import SubjectUnusableError
from pipeline.core.grid import Grid
from pipeline.core.scan import EngineInfo, Leg, LegPair
from pipeline.core.soft import Confidence, LegPose, SoftLabels
from pipeline.core.volume import Quantity
from pipeline.engines.session import Network, embedded_network, on_gpu
from pipeline.imaging.body_size import body_size_seen
from pipeline.imaging.cleaning import FULL, Rules, boxed, clean, decided
from pipeline.imaging.fat_border import without_holes
from pipeline.imaging.perturbation import Perturbation, disturbed, overlap_sums, perturbations
from pipeline.imaging.plausibility import levels_of_structures
from pipeline.imaging.pose import AS_STATED, LOOKS, certainty, pose_seen, upright_by_levels
from pipeline.imaging.slices import (
    Stack,
    neighbour_offsets,
    plane_weights,
    resample_slices,
    shifted_back,
    stack_over,
    window_around,
    with_neighbours,
)

Singles = NDArray[np.float32]
Bytes = NDArray[np.uint8]
#: Of columns and rows, as `plane_weights` gives them.
_Weights = tuple[csr_array, csr_array]

#: Where water and fat are not both there, the first of these is looked at alone.
_SINGLE = (
    Quantity.T1W,
    Quantity.WATER,
    Quantity.IN_PHASE,
    Quantity.FAT,
    Quantity.OPPOSED_PHASE,
    Quantity.OTHER,
)
#: Share of the tissue's voxels brighter than the full scale.
_BRIGHTEST_PERCENT = 1.0
_LARGEST_SIGNAL = 1.5
#: A pixel with less tissue than this is air: borders are left to the network.
_LEAST_TISSUE = 0.25
_MUSCLES = frozenset(muscle.id for muscle in MUSCLES)
_NAMES = {structure.id: structure.name for structure in STRUCTURES}


class EmbeddedEngine:
    """Finds muscles and bones from the images alone."""

    def __init__(self, config: EmbeddedConfig, network: Network | None = None) -> None:
        """Args:
        config: pixels of batches, rules of cleaning, perturbations.
        network: in place of the package's own.
        """
        self._config = config
        self._own = network

    def describe(self, legs: LegPair) -> EngineInfo:
        contract = self._network.contract
        version = f"{contract.version} on a GPU" if on_gpu() else contract.version
        return EngineInfo("embedded", version, contract.digest)

    def body_size(self, legs: LegPair) -> float:
        """The size at which the network knows both legs best, on a few levels. Legs that it knows
        better the other way round are left as they are: what is wrong is not their size.

        Raises:
            SubjectUnusableError, InputError: as segment_leg.
        """
        network, config = self._network, self._config
        views = [_look_at(leg, network, config) for leg in (legs.right, legs.left)]

        def shown(size: float) -> Iterator[Singles]:
            for view in views:
                resized = _at_size(view, network, config, size)
                yield from _sample(resized, network, config, config.body_size_levels)

        size = body_size_seen(
            lambda tried: _certainty(network, shown(tried), AS_STATED),
            config.body_sizes,
            config.body_size_margin,
        )
        if size == 1.0:
            return size
        known = {look: _certainty(network, shown(size), look) for look in LOOKS}
        return size if known[AS_STATED] == max(known.values()) else 1.0

    def segment_leg(self, leg: Leg, body_size: float = 1.0) -> SoftLabels:
        """Memberships on the network's pixels.

        Raises:
            SubjectUnusableError: no image it can read, or nothing in it that looks like a leg.
            InputError: the weights are missing or not the ones they should be.
        """
        network = self._network
        view = _at_size(_look_at(leg, network, self._config), network, self._config, body_size)
        raw = _predict(view, network, self._config)
        contract, config = network.contract, self._config
        pose = _pose(view, network, config, raw)
        cleaned = clean(
            raw,
            contract.class_ids,
            pixel_mm=contract.pixel_mm,
            level_mm=view.stack.grid.voxel_sizes_mm[2],
            rules=_rules(config),
        )
        # `clean` worked in place: what is left of all classes is in `raw`.
        confidence = _confidence(view, network, config, raw)
        memberships = {value: boxed(membership) for value, membership in cleaned.items()}
        return SoftLabels(
            view.stack.grid.resized(body_size),
            memberships,
            (1, len(view.stack.levels) + 1),
            confidence,
            automatic=True,
            pose=pose,
        )

    @property
    def _network(self) -> Network:
        return self._own if self._own is not None else embedded_network()


def _rules(config: EmbeddedConfig) -> Rules:
    """The rules of cleaning: keys of the same names."""
    return Rules(**{rule.name: getattr(config, rule.name) for rule in fields(Rules)})


@dataclass(frozen=True, eq=False)
class _View:
    """A leg as the network sees it.

    Attributes:
        leg: the leg.
        grid: its grid, if the body had the size of those the network knows: all lengths of the
            network and of the rules of cleaning are those of such a body.
        outline: boolean on the leg's grid: its tissue and what that encloses in a slice (bone is
            dark in many images).
        images: one or two images of it, raw; 0 outside the outline, where the other leg is. Planes
            lie together in memory.
        scale: signal that counts as 1.
        stack: the network's pixels.
        offsets: neighbours of a slice, in the leg's own slices.
    """

    leg: Leg
    grid: Grid
    outline: NDArray[np.bool_]
    images: tuple[Singles, ...]
    scale: float
    stack: Stack
    offsets: tuple[int, ...]

    def scale_signal(self, slices: Singles) -> None:
        """Make signal what the network takes, in place."""
        slices *= np.float32(1.0 / self.scale)
        np.minimum(slices, np.float32(_LARGEST_SIGNAL), out=slices)

    def sampled_levels(self, distance_mm: float) -> NDArray[np.intp]:
        """Levels of the stack about distance_mm apart, the same from either end."""
        count = len(self.stack.levels)
        length_mm = count * self.stack.grid.voxel_sizes_mm[2]
        return self.spread_levels(max(1, round(length_mm / distance_mm)))

    def spread_levels(self, wanted: int) -> NDArray[np.intp]:
        """So many levels of the stack, or all, the same from either end."""
        count = len(self.stack.levels)
        middle = (np.arange(min(wanted, count)) + 0.5) * count / min(wanted, count)
        return np.floor(middle).astype(np.intp)


def _look_at(leg: Leg, network: Network, config: EmbeddedConfig) -> _View:
    outline = without_holes(leg.tissue)
    images = tuple(_by_planes(np.where(outline, image, np.float32(0.0))) for image in _images(leg))
    inside = leg.tissue & leg.seen
    if not inside.any():
        raise _no_leg(leg, "no tissue at all")
    total = sum(image[inside] for image in images)
    scale = float(np.percentile(total, 100.0 - _BRIGHTEST_PERCENT))
    if scale <= 0:
        raise _no_leg(leg, "no signal")
    stack, offsets = _stack_of(leg, leg.grid, network, config)
    return _View(leg, leg.grid, outline, images, scale, stack, offsets)


def _by_planes(image: Singles) -> Singles:
    """The same image (nx, ny, nz), stored plane after plane."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 2, 0)), 0, 2)


def _at_size(view: _View, network: Network, config: EmbeddedConfig, body_size: float) -> _View:
    """The same leg, as if its body had the size of those the network knows."""
    if body_size == 1.0:
        return view
    grid = view.leg.grid.resized(1.0 / body_size)
    stack, offsets = _stack_of(view.leg, grid, network, config)
    return replace(view, grid=grid, stack=stack, offsets=offsets)


def _stack_of(
    leg: Leg, grid: Grid, network: Network, config: EmbeddedConfig
) -> tuple[Stack, tuple[int, ...]]:
    """The network's pixels over a leg that lies on this grid, and neighbours of a slice."""
    contract = network.contract
    stack = stack_over(
        grid,
        leg.tissue,
        leg.seen,
        pixel_mm=contract.pixel_mm,
        level_mm=config.level_mm,
        margin_mm=config.margin_mm,
        multiple=contract.size_multiple,
    )
    return stack, neighbour_offsets(stack.spacing_mm, contract.near_mm, contract.far_mm)


def _images(leg: Leg) -> tuple[Singles, ...]:
    """Water and fat, or the one image there is."""
    if leg.dixon is not None:
        return leg.dixon.water.data, leg.dixon.fat.data
    for quantity in _SINGLE:
        if quantity in leg.images:
            return (leg.images[quantity].data,)
    raise SubjectUnusableError(
        "The engine 'embedded' has no image it can find muscles in",
        expected="water and fat, or one of " + ", ".join(map(str, _SINGLE)),
        found=", ".join(map(str, leg.images)) or "a label map without an image",
        action="add an image, or use labels made elsewhere with --engine given",
    )


def _no_leg(leg: Leg, found: str) -> SubjectUnusableError:
    return SubjectUnusableError(
        f"What is in view on the {leg.side} does not look like a leg",
        expected="thigh, knee, leg or hip of a person",
        found=found,
        action="check that the scan shows legs, in slices across them",
    )


def _predict(view: _View, network: Network, config: EmbeddedConfig) -> Bytes:
    """Memberships (class, level, row, column) as bytes; outside the windows all background.

    Where the network's pixels happen to lie must not decide a border: levels are looked at on
    several lattices, the more the thicker the slices. Thin ones, which are smoothed through the
    plane afterwards, are looked at on one of them by turns.

    Outside the leg's outline all is background: noise in the air can look like anything, and the
    order of levels is told from what is found.
    """
    stack = view.stack
    first = int(stack.levels[0])
    native = np.arange(first, int(stack.levels[-1]) + 1)
    count = len(stack.levels)
    everything = np.arange(count)
    level_mm, shifts = stack.grid.voxel_sizes_mm[2], config.look_shifts_pixels
    plan = (
        [(everything, shifts[: max(1, round(level_mm / config.look_every_mm))])]
        if level_mm > config.look_by_turns_mm
        else [(everything[k :: len(shifts)], (shift,)) for k, shift in enumerate(shifts)]
    )
    shape = (len(network.contract.class_ids), count, len(stack.rows), len(stack.columns))
    out = np.zeros(shape, dtype=np.uint8)
    out[0] = FULL
    for positions, used in plan:
        # Neighbours are the scanner's own slices, also where only every n-th is predicted.
        lattices = {
            (across, along): _slices_on(
                view,
                native,
                plane_weights(view.grid, stack, (across * stack.pixel_mm, along * stack.pixel_mm)),
            )
            for across, along in used
        }
        for start in range(0, len(positions), config.batch_slices):
            batch = positions[start : start + config.batch_slices]
            levels = stack.levels[batch]
            window = _window(view, network, config, levels)
            if window is None:
                continue
            looks = [
                network.predict(
                    with_neighbours(
                        lattices[shift][:, :, window[0], window[1]], levels - first, view.offsets
                    )
                )
                for shift in used
            ]
            # Most classes are nowhere on a few slices: as bytes they are 0.
            most = np.stack([look.max(axis=(0, 2, 3)) for look in looks]).max(axis=0)
            most[0] = 1.0
            classes = np.flatnonzero(most * FULL >= 0.5)
            looks = [
                shifted_back(look[:, classes], shift)
                for look, shift in zip(looks, used, strict=True)
            ]
            mean = sum(looks[1:], looks[0]) / np.float32(len(looks))
            out[classes[:, None], batch, window[0], window[1]] = _as_bytes(
                mean.transpose(1, 0, 2, 3)
            )
    shown = resample_slices(view.outline, stack.levels, plane_weights(view.grid, stack))
    for position, inside in enumerate(shown >= _LEAST_TISSUE):
        out[:, position] *= inside
        out[0, position][~inside] = FULL
    return out


def _slices_on(view: _View, native: NDArray[np.intp], weights: _Weights) -> Singles:
    """Two images (image, level, row, column) as the network takes them; 0 where there is none."""
    shape = (2, len(native), weights[1].shape[0], weights[0].shape[0])
    slices = np.zeros(shape, dtype=np.float32)
    for k, image in enumerate(view.images):
        slices[k] = resample_slices(image, native, weights)
    view.scale_signal(slices)
    return slices


def _window(
    view: _View, network: Network, config: EmbeddedConfig, levels: NDArray[np.intp]
) -> tuple[slice, slice] | None:
    """Rows and columns of the stack that some levels of a leg need."""
    return window_around(
        view.leg.tissue,
        levels,
        view.stack,
        view.grid.voxel_sizes_mm,
        margin_mm=config.margin_mm,
        multiple=network.contract.size_multiple,
    )


def _certainty(network: Network, shown: Iterable[Singles], look: tuple[bool, bool]) -> float:
    """How sure the network is of the muscles on some levels, seen in one of LOOKS."""
    muscles = [k for k, value in enumerate(network.contract.class_ids) if value in _MUSCLES]
    columns, rows = (slice(None, None, -1 if turned else 1) for turned in look)
    return certainty(
        network.predict(np.ascontiguousarray(part[:, :, rows, columns]))[:, muscles]
        for part in shown
    )


def _sample(
    view: _View, network: Network, config: EmbeddedConfig, wanted: int
) -> Iterator[Singles]:
    """So many levels of a leg, as the network takes them; those without tissue are left out."""
    weights = [plane_weights(view.grid, view.stack)] * len(view.offsets)
    for level in view.spread_levels(wanted):
        window, shown = _slices_at(view, network, config, int(level), weights)
        if window is not None:
            yield shown


def _as_bytes(probabilities: Singles) -> Bytes:
    scaled = probabilities * np.float32(FULL)
    np.clip(scaled, 0.0, FULL, out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def _pose(view: _View, network: Network, config: EmbeddedConfig, raw: Bytes) -> LegPose:
    """How the leg lies: which way round the network knows its muscles best, and their order.

    The network learned legs in right-leg pose. On a few levels it is shown the leg with its outer
    and inner side, its front and back, or both reversed too.

    Args:
        raw: what it said of the leg as stated, before it is cleaned.
    """
    ids = network.contract.class_ids
    shown = list(_sample(view, network, config, config.pose_levels))
    certainties = {look: _certainty(network, shown, look) for look in LOOKS}
    labels = np.array(ids, dtype=np.uint8)[decided(raw)]
    upright = upright_by_levels(
        levels_of_structures(labels.transpose(2, 1, 0)), view.stack.grid.voxel_sizes_mm[2]
    )
    return pose_seen(certainties, upright, config.pose_margin, config.pose_certainty)


def _confidence(
    view: _View, network: Network, config: EmbeddedConfig, cleaned: Bytes
) -> dict[str, Confidence]:
    """How far the network says the same of a leg seen a little differently, and is sure of it.

    By structure: the mean Dice of the labels with the probabilities found in the perturbed leg,
    and the volume in each of them, on some levels, near the structure. One that none of these
    levels shows is looked at on the level that shows most of it.
    """
    ids = network.contract.class_ids
    sample = view.sampled_levels(config.confidence_every_mm).tolist()
    wanted = {level: set(np.unique(_labels_at(cleaned, level)).tolist()) - {0} for level in sample}
    for index in set(range(1, len(ids))).difference(*wanted.values()):
        fullest = int(np.argmax(cleaned[index].sum(axis=(1, 2), dtype=np.int64)))
        if np.any(_labels_at(cleaned, fullest) == index):
            wanted.setdefault(fullest, set()).add(index)
    looks = perturbations(
        config.perturbations,
        noise_share=config.noise_share,
        bias_share=config.bias_share,
        shift_pixels=config.shift_pixels,
        tilt_deg=config.tilt_deg,
    )
    # By look: what is shared, what was found, what the labels have.
    sums = {value: np.zeros((len(looks), 3)) for value in ids[1:]}
    for number, perturbation in enumerate(looks):
        weights = _tilted_weights(view, perturbation)
        for level, indices in wanted.items():
            window, found = _seen_otherwise(view, network, config, level, weights, perturbation)
            if window is None:
                continue
            labels = _labels_at(cleaned, level)
            # Onto the pixels that the shifted look fell on.
            across, along = perturbation.shift_pixels
            for index in indices:
                near = cleaned[index, level][window] > 0
                mask = (labels == index)[window].astype(np.float32)
                own = shifted_back(mask, (-across, -along))
                sums[ids[index]][number] += overlap_sums(found[index][near], own[near])
    return {
        _NAMES[value]: Confidence(
            agreement=float(2.0 * looked[:, 0].sum() / looked[:, 1:].sum()),
            volume_ratios=tuple(float(v) for v in looked[:, 1] / looked[:, 2]),
        )
        for value, looked in sums.items()
        if looked[:, 2].all()
    }


def _labels_at(cleaned: Bytes, level: int) -> Bytes:
    """Index of the winning class of each pixel of a level."""
    labels: Bytes = decided(cleaned[:, level : level + 1])[0]
    return labels


def _tilted_weights(view: _View, perturbation: Perturbation) -> list[_Weights]:
    """Weights of a slice and its neighbours, shifted and tilted."""
    stack = view.stack
    pixels, slopes = perturbation.shift_pixels, perturbation.tilt
    return [
        plane_weights(
            view.grid,
            stack,
            (
                pixels[0] * stack.pixel_mm + slopes[0] * offset * stack.spacing_mm,
                pixels[1] * stack.pixel_mm + slopes[1] * offset * stack.spacing_mm,
            ),
        )
        for offset in view.offsets
    ]


def _seen_otherwise(
    view: _View,
    network: Network,
    config: EmbeddedConfig,
    level: int,
    weights: list[_Weights],
    perturbation: Perturbation,
) -> tuple[tuple[slice, slice] | None, Singles]:
    """What the network says of one level of a perturbed leg: its window, and probabilities
    (class, row, column) there."""
    window, slices = _slices_at(view, network, config, level, weights)
    if window is None:
        return None, slices[0]
    used = slices.reshape(2, len(view.offsets), *slices.shape[2:])[: len(view.images)]
    used[...] = disturbed(used, int(view.stack.levels[level]), perturbation)
    return window, network.predict(slices)[0]


def _slices_at(
    view: _View,
    network: Network,
    config: EmbeddedConfig,
    level: int,
    weights: list[_Weights],
) -> tuple[tuple[slice, slice] | None, Singles]:
    """One level and its neighbours as the network takes them, (1, 10, row, column), and the
    window they show; no window and no pixel where the level has no tissue.

    Args:
        weights: of each neighbour, `plane_weights`.
    """
    leg, stack = view.leg, view.stack
    window = _window(view, network, config, stack.levels[[level]])
    if window is None:
        return None, np.zeros((1, 0, 0, 0), dtype=np.float32)
    rows, columns = window
    size = (rows.stop - rows.start, columns.stop - columns.start)
    slices = np.zeros((2, len(view.offsets), *size), dtype=np.float32)
    shown = np.flatnonzero(leg.seen)
    for k, offset in enumerate(view.offsets):
        there = int(stack.levels[level]) + offset
        if not shown[0] <= there <= shown[-1]:
            continue
        across, along = weights[k]
        shown_here = (across[columns], along[rows])
        for image, data in enumerate(view.images):
            slices[image, k] = resample_slices(data, [there], shown_here)[0]
    view.scale_signal(slices)
    return window, slices.reshape(1, -1, *size)
