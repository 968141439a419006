"""Step 2: from prepared bodies to training images, by domain randomisation.

Geometry first (pose, shape, slice distance), then tissue, then the scanner; after Billot et al.,
SynthSeg, Medical Image Analysis 2023, adapted to legs: muscles that look alike, thin fascia of
partial volume, fat in and around muscles, water and fat as channels. Everything is torch and runs
on CPU and GPU alike; all randomness comes from the generator that is passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.core.anatomy import LEFT_OFFSET
from training.codes import (
    BONE_IDS,
    CODE_COUNT,
    MUSCLE_IDS,
    OTHER_BONE,
    OTHER_MUSCLE,
    OUTSIDE,
    SEAM,
    UNKNOWN,
    allowed_classes,
)
from training.prepare import PIXEL_MM, Body

#: Pixel of the network, mm; images are synthesised at half of it and averaged down.
NETWORK_PIXEL_MM = 1.5
#: Wanted distance of the near and the far context slices, mm.
NEAR_MM, FAR_MM = 6.0, 40.0
#: Share of the images that show water and fat.
_BOTH = 0.33
#: Room around a leg, network pixels.
_MARGIN = 22
#: Further from everything than any distance that matters, mm or pixels.
_FAR = 1000.0


def context_offsets(spacing_mm: float) -> tuple[int, int]:
    """Near and far context, in slices, for a distance between slices."""
    near = max(1, round(NEAR_MM / spacing_mm))
    return near, max(near + 1, round(FAR_MM / spacing_mm))


@dataclass(frozen=True, eq=False)
class Sample:
    """One training image.

    Attributes:
        slices: float32 (10, H, W), as the network takes them.
        codes: int64 (H, W), codes of the middle slice.
        allowed: bool (CODE_COUNT, classes).
        persons: whose body it is; of a body between two people, both.
    """

    slices: Tensor
    codes: Tensor
    allowed: Tensor
    persons: frozenset[str]


class Geometry:
    """The legs of one body, as slices in right-leg pose."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.codes = torch.from_numpy(body.codes)
        self.distance = torch.from_numpy(body.distance)
        self._tables = {side: _side_table(side) for side in (0, LEFT_OFFSET)}

    @property
    def persons(self) -> frozenset[str]:
        """Whose body it is: a body between two people is named after both."""
        return frozenset(self.body.source.person.split("+"))

    @cached_property
    def levels(self) -> dict[int, np.ndarray]:
        """Rows (slice, centre y, centre x, height, width; pixels) of one leg, by side offset."""
        found = {}
        for offset in (0, LEFT_OFFSET):
            rows = []
            for level, plane in enumerate(self.body.codes):
                own = (plane > offset) & (plane < offset + SEAM)
                muscle = own & ~np.isin(plane, [bone + offset for bone in BONE_IDS])
                # Feet are bone only: a few of their slices are enough.
                if own.sum() < 400 or (muscle.sum() < 300 and level % 6):
                    continue
                y, x = np.nonzero(own)
                rows.append((level, y.mean(), x.mean(), np.ptp(y), np.ptp(x)))
            found[offset] = np.array(rows, dtype=np.float64).reshape(-1, 5)
        return found

    @cached_property
    def middle(self) -> Tensor:
        """Column between the legs at each level: the fewest labels lie on the wrong side of it.

        The middle of all such columns; levels that show one leg only have that of the level
        nearest to them. NaN, beyond which nothing lies, where the body has one leg.
        """
        planes = self.body.codes
        right, left = (
            ((planes > offset) & (planes < offset + SEAM)).sum(axis=1)
            for offset in (0, LEFT_OFFSET)
        )
        wrong = np.cumsum(right, axis=1) + left.sum(axis=1, keepdims=True) - np.cumsum(left, axis=1)
        best = wrong == wrong.min(axis=1, keepdims=True)
        columns = (best * np.arange(1, best.shape[1] + 1)).sum(axis=1) / best.sum(axis=1) - 0.5
        both = np.flatnonzero(right.any(axis=1) & left.any(axis=1))
        if not len(both):
            return torch.full((len(planes),), torch.nan)
        levels = np.arange(len(planes))
        nearest = both[np.abs(levels[:, None] - both).argmin(axis=1)]
        return torch.from_numpy(columns[nearest].astype(np.float32))

    def beyond(self, z: float, x: Tensor, offset: int) -> Tensor:
        """How far points of a level lie on the other leg's side of the middle, pixels."""
        middle = self.middle[min(max(round(z), 0), len(self.middle) - 1)]
        return x - middle if offset == LEFT_OFFSET else middle - x

    def look_up(self, z: Tensor, y: Tensor, x: Tensor, offset: int) -> tuple[Tensor, Tensor]:
        """Codes in right-leg pose, and distance from the fascia in mm, at continuous indices."""
        depth, height, width = self.codes.shape
        iz, iy, ix = (torch.round(value).to(torch.int32) for value in (z, y, x))
        outside = (iz < 0) | (iz >= depth) | (iy < 0) | (iy >= height) | (ix < 0) | (ix >= width)
        iz, iy, ix = iz.clamp(0, depth - 1), iy.clamp(0, height - 1), ix.clamp(0, width - 1)
        # One index into the flat volume is several times faster than three.
        stored = torch.take(self.codes, _flat((iz, iy, ix), height, width))
        codes = self._tables[offset][stored.long()]
        codes[outside] = OUTSIDE
        _, height, width = self.distance.shape
        half = (iz, (iy >> 1).clamp(max=height - 1), (ix >> 1).clamp(max=width - 1))
        return codes, torch.take(self.distance, _flat(half, height, width)).float() / 4.0


def _flat(index: tuple[Tensor, Tensor, Tensor], height: int, width: int) -> Tensor:
    return (index[0].long() * height + index[1]) * width + index[2]


class Synthesiser:
    """Makes samples; one for all bodies of a training run.

    Legs are sorted by the image size they need: a calf in an image made for hips is mostly air.

    Args:
        geometries: bodies.
        weights: how often each is drawn.
        sizes: heights (= widths) of images, network pixels, ascending.
    """

    def __init__(
        self, geometries: list[Geometry], weights: list[float], *, sizes: tuple[int, ...]
    ) -> None:
        self._geometries = geometries
        self._places: dict[int, list[tuple[int, int, np.ndarray]]] = {size: [] for size in sizes}
        shares: dict[int, list[float]] = {size: [] for size in sizes}
        for index, (geometry, weight) in enumerate(zip(geometries, weights, strict=True)):
            count = sum(len(rows) for rows in geometry.levels.values())
            for offset, rows in geometry.levels.items():
                need = rows[:, 3:].max(axis=1, initial=0) * PIXEL_MM / NETWORK_PIXEL_MM + _MARGIN
                place = np.minimum(np.searchsorted(sizes, need), len(sizes) - 1)
                for position, size in enumerate(sizes):
                    fitting = rows[place == position]
                    if len(fitting):
                        self._places[size].append((index, offset, fitting))
                        shares[size].append(weight * len(fitting) / count)
        self._weights = {size: torch.tensor(share) for size, share in shares.items()}
        total = sum(float(share.sum()) for share in self._weights.values())
        #: How often each size is due.
        self.size_shares = {size: float(w.sum()) / total for size, w in self._weights.items()}

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """One image of one leg at one level."""
        draw = _Draw(generator)
        chosen = int(torch.multinomial(self._weights[size], 1, generator=generator))
        index, offset, rows = self._places[size][chosen]
        geometry = self._geometries[index]
        planes, targets = self._geometry(geometry, offset, rows, size, draw)
        present = [value for value in torch.unique(targets).tolist() if 0 < value < SEAM]
        allowed = allowed_classes(
            present,
            never_labelled=geometry.body.never_labelled,
            complete=geometry.body.complete,
        )
        kind = geometry.body.source.kind
        unknown_is_muscle = draw.chance(0.1 if kind in ("whole", "between") else 0.6)
        tissue = _Tissue(draw, size, unknown_is_muscle=unknown_is_muscle)
        if unknown_is_muscle and kind == "thigh":
            # What looks like muscle inside a thigh is one, of those that this slice may hide. (In
            # bodies with a belly it may be the belly.)
            allowed[UNKNOWN, 0] = False
        water, fat = tissue.water_and_fat(planes)
        slices = _scan(draw, water, fat, torch.stack([plane.own for plane in planes]))
        return Sample(slices, targets, torch.from_numpy(allowed), geometry.persons)

    def _geometry(
        self, geometry: Geometry, offset: int, rows: np.ndarray, size: int, draw: _Draw
    ) -> tuple[list[_Plane], Tensor]:
        """Five planes, the middle one in full detail, and the middle slice's codes (H, W)."""
        body = geometry.body
        level, cy, cx, *_ = rows[draw.index(len(rows))]
        fine = body.spacing_mm < 4.5
        spacing = body.spacing_mm
        if fine:
            # The slices of the scan lie at any distance; a body is longer or shorter than it was.
            stretch = float(np.exp(draw.uniform(-0.22, 0.22)))
            spacing = float(np.exp(draw.uniform(np.log(1.5), np.log(12.0))))
            if draw.chance(0.15):
                spacing = draw.uniform(12.0, 26.0)
            step = spacing / body.spacing_mm / stretch
        else:
            step = 1.0
        near, far = context_offsets(spacing)
        half = torch.arange(2 * size, dtype=torch.float32) - (size - 0.5)
        v, u = torch.meshgrid(half, half, indexing="ij")
        u, v = u + draw.uniform(-25, 25), v + draw.uniform(-25, 25)
        du, dv = self._bend(draw, u, v)
        angle = math.radians(draw.normal(0.0, 14.0))
        scale = float(np.exp(draw.normal(0.0, 0.13)))
        if body.source.kind == "whole" and body.source.name == "vhm":
            scale *= draw.uniform(1.0, 1.3)
        squash = float(np.exp(draw.normal(0.0, 0.14)))
        lean = math.radians(draw.uniform(0, 180))
        u, v = u + du, v + dv
        # Flattened calves and squeezed thighs: an area-preserving squash along any direction.
        a, b = math.cos(lean), math.sin(lean)
        p, q = (a * u + b * v) * squash, (-b * u + a * v) / squash
        u, v = a * p - b * q, b * p + a * q
        x = (math.cos(angle) * u - math.sin(angle) * v) * scale
        y = (math.sin(angle) * u + math.cos(angle) * v) * scale
        if offset == LEFT_OFFSET:
            x = -x
        tilt = (draw.normal(0.0, 0.10), draw.normal(0.0, 0.12)) if fine else (0.0, 0.0)
        dz = (tilt[0] * x + tilt[1] * y) * PIXEL_MM / body.spacing_mm
        x, y = x + float(cx), y + float(cy)
        thick = step * draw.uniform(0.6, 1.0) if fine else 0.0
        parts = 2 if fine and thick * body.spacing_mm > 2.5 else 1
        points = {2: (x, y, dz)}
        points[1] = tuple(functional.avg_pool2d(t[None, None], 2)[0, 0] for t in (x, y, dz))
        drift = (draw.normal(0.0, 0.05), draw.normal(0.0, 0.05))
        # Legs are cut from each other before the network sees them, not quite in the middle.
        wobble = draw.normal(0.0, 4.0) + 4.0 * draw.smooth(2 * size, 4, 1.0)
        edge = {2: wobble, 1: wobble[::2, ::2]} if draw.chance(0.85) else {2: _FAR, 1: _FAR}
        planes = []
        for slot in (-far, -near, 0, near, far):
            detail = 2 if slot == 0 else 1
            px, py, pz = points[detail]
            shift = slot * step * body.spacing_mm / PIXEL_MM
            layers = []
            for part in range(parts if slot == 0 else 1):
                z = float(level) + slot * step
                if slot == 0:
                    z += thick * ((part + 0.5) / parts - 0.5)
                x = px + shift * drift[0]
                found = geometry.look_up(z + pz, py + shift * drift[1], x, offset)
                layers.append((*found, geometry.beyond(z, x, offset) > edge[detail]))
            codes, distance, cut = (torch.stack(list(t)) for t in zip(*layers, strict=True))
            codes, distance = codes.masked_fill(cut, OUTSIDE), distance.masked_fill(cut, _FAR)
            own = 1.0 - cut.to(torch.float32).mean(dim=0)[::detail, ::detail]
            planes.append(_Plane(codes, distance, own, detail))
        x, y, dz = points[1]
        targets, _ = geometry.look_up(float(level) + dz, y, x, offset)
        cut = geometry.beyond(float(level), x, offset) > edge[1]
        targets = targets.masked_fill(cut, OUTSIDE)
        if draw.chance(0.3):
            planes, targets = _wasted(draw, planes, targets)
        if draw.chance(0.15):
            planes, targets = _out_of_view(draw, planes, targets)
        if draw.chance(0.2):
            # The end of the stack, or of what was imaged.
            for slot in ((0, 1), (3, 4), (0,), (4,))[draw.index(4)]:
                planes[slot] = replace(planes[slot], detail=0)
        return planes, targets

    def _bend(self, draw: _Draw, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Smooth displacement: random bends, and muscles blown up or shrunk where they lie."""
        wide, narrow = draw.uniform(1.5, 11.0), draw.uniform(0.7, 3.5)
        du, dv = draw.smooth(len(u), 5, wide), draw.smooth(len(u), 5, wide)
        du, dv = du + draw.smooth(len(u), 10, narrow), dv + draw.smooth(len(u), 10, narrow)
        for _ in range(draw.index(7)):
            cu, cv = draw.uniform(-90, 90), draw.uniform(-90, 90)
            radius, amount = draw.uniform(15, 55), draw.uniform(-0.32, 0.32)
            bump = amount * torch.exp(-((u - cu) ** 2 + (v - cv) ** 2) / (2 * radius**2))
            du, dv = du + bump * (u - cu), dv + bump * (v - cv)
        return du, dv


@dataclass(frozen=True, eq=False)
class _Plane:
    """One slice.

    Attributes:
        codes, distance: codes and distance from the fascia in mm (parts, H, W); below 0 is fat
            between muscles.
        own: on the network's pixel, 1 where this leg is imaged and 0 beyond the cut between the
            legs or the field of view.
        detail: 2 at half the network's pixel, 1 at the network's pixel, 0 not imaged.
    """

    codes: Tensor
    distance: Tensor
    own: Tensor
    detail: int


def _wasted(draw: _Draw, planes: list[_Plane], targets: Tensor) -> tuple[list[_Plane], Tensor]:
    """Muscles that have lost their outer millimetres, with fat where these were."""
    chosen = torch.rand(CODE_COUNT, generator=draw.generator) < draw.uniform(0.05, 1.0)
    chosen &= _MUSCLE_TABLE
    pixels = 1 + draw.index(2)

    def lost(codes: Tensor, radius: int) -> Tensor:
        values = codes[:, None].float()
        highest, lowest = (
            sign * functional.max_pool2d(sign * values, 2 * radius + 1, 1, radius)
            for sign in (1.0, -1.0)
        )
        return (highest != lowest)[:, 0] & chosen[codes]

    wasted = []
    for plane in planes:
        rim = lost(plane.codes, pixels * plane.detail)
        codes, distance = plane.codes.masked_fill(rim, OUTSIDE), plane.distance
        wasted.append(replace(plane, codes=codes, distance=distance.masked_fill(rim, -1.0)))
    return wasted, targets.masked_fill(lost(targets[None], pixels)[0], OUTSIDE)


def _out_of_view(draw: _Draw, planes: list[_Plane], targets: Tensor) -> tuple[list[_Plane], Tensor]:
    """A leg that the field of view cuts along one of its four sides."""
    rows = draw.chance(0.4)
    seen = torch.nonzero(((targets > 0) & (targets < SEAM)).any(dim=1 if rows else 0))[:, 0]
    if not len(seen):
        return planes, targets
    first, last = int(seen[0]), int(seen[-1])
    edge = draw.uniform(0.0, 0.35) * (last - first)
    place = torch.arange(len(targets))
    beyond = place < first + edge if draw.chance(0.5) else place > last - edge
    beyond = beyond[:, None].expand(targets.shape) if rows else beyond.expand(targets.shape)
    fine = {1: beyond, 2: beyond.repeat_interleave(2, 0).repeat_interleave(2, 1)}
    cut = [
        replace(
            plane,
            codes=plane.codes.masked_fill(fine[plane.detail], OUTSIDE),
            distance=plane.distance.masked_fill(fine[plane.detail], _FAR),
            own=plane.own.masked_fill(beyond, 0.0),
        )
        for plane in planes
    ]
    return cut, targets.masked_fill(beyond, OUTSIDE)


class _Draw:
    """Random numbers of one sample."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, mean: float, sd: float) -> float:
        return mean + sd * float(torch.randn((), generator=self.generator))

    def chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < share

    def index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def table(self, count: int, mean: float, sd: float) -> Tensor:
        return mean + sd * torch.randn(count, generator=self.generator)

    def noise(self, shape: torch.Size | tuple[int, ...], sd: float) -> Tensor:
        return sd * torch.randn(shape, generator=self.generator)

    def smooth(self, size: int, cells: int, sd: float) -> Tensor:
        """A smooth random field (size, size): noise on a coarse lattice, interpolated."""
        field = torch.randn((1, 1, cells, cells), generator=self.generator) * sd
        if cells < size // 8:
            field = functional.interpolate(
                field, size=size // 4, mode="bicubic", align_corners=True
            )
        return functional.interpolate(field, size=size, mode="bilinear", align_corners=True)[0, 0]


class _Tissue:
    """Water and fat of every pixel: one tissue for all slices of a sample."""

    def __init__(self, draw: _Draw, size: int, *, unknown_is_muscle: bool) -> None:
        fine = 2 * size
        self._size = size
        self._share, self._signal = _tables(draw, unknown_is_muscle)
        self._texture = draw.smooth(fine, 40, 1.0) + 0.6 * draw.smooth(fine, 90, 1.0)
        self._streak = draw.uniform(0.0, 0.5 if draw.chance(0.3) else 0.12)
        self._patch = draw.uniform(0.0, 1.6) if draw.chance(0.3) else 0.0
        large = draw.smooth(fine, 10 + draw.index(60), 1.0)
        patches = large + draw.uniform(0.0, 1.0) * draw.smooth(fine, 60 + draw.index(100), 1.0)
        self._patches = patches / patches.std()
        self._shading = 1.0 + draw.uniform(0.0, 0.09) * draw.smooth(fine, 60, 1.0)
        self._marrow, self._bone_signal = draw.uniform(0.5, 1.0), draw.uniform(0.5, 1.1)
        self._cortex_pixels, self._cortex_signal = 1 + draw.index(3), draw.uniform(0.02, 0.25)
        thickness = float(np.exp(draw.uniform(np.log(1.5), np.log(45.0))))
        self._thickness = (thickness * (1.0 + 0.35 * draw.smooth(fine, 4, 1.0))).clamp(min=0.5)
        self._skin_mm, self._skin_signal = draw.uniform(0.8, 2.5), draw.uniform(0.2, 0.8)
        self._fat_share = draw.uniform(0.85, 1.0)
        self._fat_signal = draw.uniform(0.8, 1.15) * (1.0 + 0.1 * draw.smooth(fine, 50, 1.0))
        fade = draw.uniform(-0.3, 1.6) + 0.7 * draw.smooth(fine, 8, 1.0)
        if draw.chance(0.35):
            # Lines that are seen in dots.
            fade = fade + draw.uniform(0.3, 1.2) * draw.smooth(fine, 30 + draw.index(50), 1.0)
        self._fade = fade.clamp(0.0, 1.0)
        self._fascia_lean = draw.uniform(0.02, 0.12)
        self._septa = _septa(draw, fine) if draw.chance(0.35) else None
        self._septa_share = draw.uniform(0.3, 1.0)
        # The fascia of the whole leg, where water and fat also cancel: a line under the fat.
        self._wrap_mm = draw.uniform(0.4, 3.0) if draw.chance(0.45) else 0.0
        self._wrap_share, self._wrap_signal = draw.uniform(0.1, 0.9), draw.uniform(0.05, 0.6)
        self._wide = draw.chance(0.35)
        self._wide_part, self._wide_share = draw.uniform(0.3, 1.0), draw.uniform(0.5, 1.0)
        self._arm = _arm(draw, fine) if draw.chance(0.15) else None
        self._lumps = _lumps(draw, fine) if draw.chance(0.2) else None
        self._lump_share, self._lump_signal = draw.uniform(0.0, 0.3), draw.uniform(0.4, 1.3)
        self._lumps_in_air = draw.chance(0.4)
        self._spots = [_spot(draw, fine) for _ in range(draw.index(9))]
        self._fat_brightness = draw.uniform(0.7, 1.6)
        self._leak = draw.uniform(0.0, 0.12)

    def water_and_fat(self, planes: list[_Plane]) -> tuple[Tensor, Tensor]:
        """Two images (5, H, W) on the network's pixel; pure lean tissue has water 1."""
        pairs = [self._paint(plane, place) for place, plane in enumerate(planes)]
        water, fat = (torch.stack(list(images)) for images in zip(*pairs, strict=True))
        return water, fat

    def _paint(self, plane: _Plane, place: int) -> tuple[Tensor, Tensor]:
        if plane.detail == 0:
            return torch.zeros(self._size, self._size), torch.zeros(self._size, self._size)
        step = 3 - plane.detail
        cut = (slice(None, None, step), slice(None, None, step))
        codes, texture, fade = plane.codes, self._texture[cut], self._fade[cut]
        share, amount = self._share[codes], self._signal[codes]
        muscle, bone, seam = _MUSCLE_TABLE[codes], _BONE_TABLE[codes], codes == SEAM
        streaks = share * (1.0 + self._streak * 3 * texture)
        streaks = streaks + self._streak * 0.25 * (texture - 1.2).clamp(min=0)
        if self._patch:
            # Fat comes in patches where there is much of it, others on every level.
            moved = self._patches.roll((61 * place, 97 * place), dims=(0, 1))[cut]
            streaks = streaks + self._patch * moved * streaks.clamp(0.0, 0.25)
        share = torch.where(muscle, streaks, share)
        amount = torch.where(muscle, amount * self._shading[cut], amount)
        if self._septa is not None:
            inside = (self._septa[cut] & muscle).to(share.dtype)
            share = share + inside * (self._septa_share - share)
        share = torch.where(seam, fade * share + (1 - fade) * self._fascia_lean, share)
        amount = torch.where(seam, fade * amount + (1 - fade), amount)
        if self._wide:
            grown = (_grow(seam, plane.detail) & muscle) * (fade * self._wide_part)
            share = share + grown * (self._wide_share - share)
        if bool(bone.any()):
            cortex = bone & _grow(~bone, self._cortex_pixels * plane.detail)
            share = torch.where(bone, self._marrow + cortex * (0.4 - self._marrow), share)
            dark = self._bone_signal + cortex * (self._cortex_signal - self._bone_signal)
            amount = torch.where(bone, dark, amount)
        share, amount = self._around(plane, cut, share, amount)
        for top, left, mask, spot_share, spot_amount in self._spots:
            part = mask[cut]
            rows = slice(top // step, top // step + part.shape[0])
            columns = slice(left // step, left // step + part.shape[1])
            hit = part & (codes[:, rows, columns] != OUTSIDE)
            share[:, rows, columns] = share[:, rows, columns].masked_fill(hit, spot_share)
            amount[:, rows, columns] = amount[:, rows, columns].masked_fill(hit, spot_amount)
        share = share.clamp(0.0, 1.0)
        water = (amount * (1.0 - share)).mean(dim=0)
        fat = (amount * share).mean(dim=0) * self._fat_brightness
        water, fat = water + self._leak * fat, fat + 0.5 * self._leak * water
        if plane.detail == 2:
            return tuple(functional.avg_pool2d(t[None, None], 2)[0, 0] for t in (water, fat))
        return tuple(_blur(t[None], 0.45)[0] for t in (water, fat))

    def _around(
        self, plane: _Plane, cut: tuple[slice, slice], share: Tensor, amount: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fat under the skin, skin, air, and now and then an arm, a hand, genitals or lumps."""
        outside, thickness = plane.codes == OUTSIDE, self._thickness[cut]
        fat = outside & (plane.distance < thickness)
        cover = outside & ~fat & (plane.distance < thickness + self._skin_mm)
        air = outside & ~fat & ~cover
        share = share.masked_fill(fat, self._fat_share).masked_fill(cover, 0.25)
        amount = torch.where(fat, self._fat_signal[cut], amount)
        if self._septa is not None:
            # Thin membranes part the fat under the skin too.
            amount = torch.where(fat & self._septa[cut], 0.5 * amount, amount)
        if self._wrap_mm:
            wrap = fat & (plane.distance >= 0) & (plane.distance < self._wrap_mm)
            share = share.masked_fill(wrap, self._wrap_share)
            amount = amount.masked_fill(wrap, self._wrap_signal)
        amount = amount.masked_fill(cover, self._skin_signal).masked_fill(air, 0.0)
        if self._lumps is not None:
            lumps = self._lumps[cut] & (outside if self._lumps_in_air else fat)
            share = share.masked_fill(lumps, self._lump_share)
            amount = amount.masked_fill(lumps, self._lump_signal)
        if self._arm is not None:
            inner, outer = (mask[cut] & air for mask in self._arm)
            share = share.masked_fill(inner, 0.08).masked_fill(outer, 0.9)
            amount = amount.masked_fill(inner | outer, 1.0)
        return share, amount


def _tables(draw: _Draw, unknown_is_muscle: bool) -> tuple[Tensor, Tensor]:
    """Fat share and signal by code; what is unlabelled looks like muscle, or like anything."""
    share, signal = torch.zeros(CODE_COUNT), torch.ones(CODE_COUNT)
    alike = draw.chance(0.6)
    share += draw.uniform(0.01, 0.13)
    share += draw.table(CODE_COUNT, 0.0, 0.015 if alike else draw.uniform(0.02, 0.10))
    signal += draw.table(CODE_COUNT, 0.0, 0.02 if alike else 0.10)
    if draw.chance(0.3):
        # Single muscles replaced by fat.
        sick = torch.rand(CODE_COUNT, generator=draw.generator) < draw.uniform(0.05, 0.7)
        amount = torch.rand(CODE_COUNT, generator=draw.generator) * draw.uniform(0.1, 0.75)
        share = torch.where(sick, share + amount, share)
    if draw.chance(0.25):
        # All muscles full of fat, some more than others.
        share += draw.uniform(0.05, 0.65) + draw.table(CODE_COUNT, 0.0, draw.uniform(0.03, 0.2))
    if draw.chance(0.3):
        # Single muscles darker or brighter than the others, and no fatter: coils, oedema, flow.
        other = torch.rand(CODE_COUNT, generator=draw.generator) < draw.uniform(0.05, 0.5)
        factor = 0.5 + 0.8 * torch.rand(CODE_COUNT, generator=draw.generator)
        signal = torch.where(other, signal * factor, signal)
    share = share.clamp(0.0, 0.9)
    share[SEAM], signal[SEAM] = draw.uniform(0.25, 0.98), draw.uniform(0.35, 1.1)
    if draw.chance(0.2):
        # Fascia that is dark in every image.
        share[SEAM], signal[SEAM] = draw.uniform(0.1, 0.6), draw.uniform(0.1, 0.4)
    if unknown_is_muscle:
        share[UNKNOWN], signal[UNKNOWN] = share[13], signal[13]
    else:
        share[UNKNOWN], signal[UNKNOWN] = draw.uniform(0.0, 1.0), draw.uniform(0.3, 1.1)
    return share, signal


def _septa(draw: _Draw, fine: int) -> Tensor:
    """Thin fat inside muscles, in pieces of lines: mask (fine, fine)."""
    lines = draw.smooth(fine, 8 + draw.index(20), 1.0).abs() < draw.uniform(0.02, 0.10)
    return lines & (draw.smooth(fine, 25, 1.0) > draw.uniform(-0.3, 1.0))


def _arm(draw: _Draw, fine: int) -> tuple[Tensor, Tensor]:
    """Muscle and fat of an arm beside the leg, masks (fine, fine)."""
    y, x = torch.meshgrid(
        torch.arange(fine) - fine / 2, torch.arange(fine) - fine / 2, indexing="ij"
    )
    cy, cx = draw.uniform(-fine / 2, fine / 2), draw.uniform(0.25, 0.5) * fine
    arm = ((y - cy) / draw.uniform(25, 60)) ** 2 + ((x - cx) / draw.uniform(20, 45)) ** 2
    inner = arm < draw.uniform(0.5, 0.9)
    return inner, (arm < 1.0) & ~inner


def _lumps(draw: _Draw, fine: int) -> Tensor:
    """What lies outside the muscles and looks like one: mask (fine, fine) of a few ellipses."""
    y, x = torch.meshgrid(torch.arange(fine), torch.arange(fine), indexing="ij")
    lumps = torch.zeros(fine, fine, dtype=torch.bool)
    for _ in range(1 + draw.index(4)):
        cy, cx = draw.uniform(0.1, 0.9) * fine, draw.uniform(0.1, 0.9) * fine
        along, across = draw.uniform(3, 30), draw.uniform(3, 30)
        lumps |= ((y - cy) / along) ** 2 + ((x - cx) / across) ** 2 < 1.0
    return lumps


def _spot(draw: _Draw, fine: int) -> tuple[int, int, Tensor, float, float]:
    """A vessel, nerve or tendon: place, mask (16, 16), fat share, signal."""
    half = torch.arange(16) - 7.5
    y, x = torch.meshgrid(half, half, indexing="ij")
    mask = (y / draw.uniform(1.0, 6.0)) ** 2 + (x / draw.uniform(1.0, 6.0)) ** 2 < 1.0
    top, left = (int(draw.uniform(0.2, 0.75) * fine) for _ in range(2))
    return top, left, mask, draw.uniform(0.0, 0.6), draw.uniform(0.05, 1.6)


def _grow(mask: Tensor, pixels: int) -> Tensor:
    """Dilation by a number of pixels along both axes."""
    out = mask
    for axis in (-1, -2):
        size = out.shape[axis]
        grown = out.clone()
        for shift in range(1, pixels + 1):
            grown.narrow(axis, shift, size - shift).logical_or_(out.narrow(axis, 0, size - shift))
            grown.narrow(axis, 0, size - shift).logical_or_(out.narrow(axis, shift, size - shift))
        out = grown
    return out


def _scan(draw: _Draw, water: Tensor, fat: Tensor, own: Tensor) -> Tensor:
    """What the scanner makes of it, scaled as the network's contract says; (10, H, W).

    Args:
        water, fat: pure signals (5, H, W).
        own: 1 on this leg's side of the cut, as large.
    """
    shift = draw.index(3) - 1 if draw.chance(0.3) else 0
    if shift:
        fat = torch.roll(fat, shift, dims=draw.index(2) + 1)
    mode = draw.uniform(0.0, 1.0)
    if draw.chance(0.10 if mode < _BOTH else 0.45):
        water, fat = _mixed(draw, water, fat)
    images: tuple[Tensor, ...]
    if mode < _BOTH:
        images = (water, fat)
    elif mode < 0.48:
        images = (water,)
    elif mode < 0.61:
        images = (fat,)
    elif mode < 0.74:
        images = (draw.uniform(0.2, 0.7) * water + fat,)
    elif mode < 0.86:
        # In phase: fat can be as bright as muscle, and then only thin lines part them.
        part = draw.uniform(0.4, 1.0)
        if draw.chance(0.5):
            part = draw.uniform(0.75, 1.1) / float(torch.quantile(fat, 0.98).clamp(min=0.2))
        images = (water + fat * part,)
    elif mode < 0.96:
        # Opposed phase: borders of water and fat cancel into dark lines.
        images = ((water - fat * draw.uniform(0.25, 1.1)).abs(),)
    else:
        total = water + fat
        images = (((1.3 - water) * (total > 0.1)).clamp(min=0.0),)
    if draw.chance(0.5):
        images = tuple(_blur(image, draw.uniform(0.3, 1.1)) for image in images)
    if draw.chance(0.3):
        # A coarser scan, brought to the network's pixel by linear interpolation.
        size = images[0].shape[-1]
        coarse = max(32, round(size / draw.uniform(1.2, 2.2)))
        images = tuple(
            functional.interpolate(
                functional.interpolate(image[None], size=coarse, mode="area"),
                size=size,
                mode="bilinear",
                align_corners=False,
            )[0]
            for image in images
        )
    field = torch.exp(draw.uniform(0.0, 0.42) * draw.smooth(water.shape[-1], 3, 1.0))
    if draw.chance(0.2):
        field = field * _fall_off(draw, water.shape[-1])
    sigma = float(np.exp(draw.uniform(np.log(0.005), np.log(0.10))))
    ghost, places = draw.uniform(0.0, 0.05) if draw.chance(0.15) else 0.0, 10 + draw.index(50)
    out = []
    for image in images:
        image = image * field
        if ghost:
            image = image + ghost * torch.roll(image, places, dims=-2)
        real = image + draw.noise(image.shape, sigma)
        out.append(torch.sqrt(real**2 + draw.noise(image.shape, sigma) ** 2))
    both = sum(out)
    tissue = both[2] > 4.0 * sigma + 0.05
    level = torch.quantile(both[2][tissue], 0.99) if bool(tissue.any()) else torch.tensor(1.0)
    level = level.clamp(min=1e-3) * float(np.exp(draw.normal(0.0, 0.1)))
    empty = torch.zeros_like(out[0])
    pair = [(image / level).clamp(0.0, 1.5) for image in (*out, empty)[:2]]
    if draw.chance(0.35):
        # Another balance of dim and bright: coils, saturation, weighting.
        pair = [image ** float(np.exp(draw.normal(0.0, 0.3))) for image in pair]
    seen = (water.amax(dim=(1, 2)) > 0)[:, None, None]
    return torch.cat([image * seen * own for image in pair])


def _fall_off(draw: _Draw, size: int) -> Tensor:
    """Sensitivity of a coil on one side of the leg: down to a fifth at the other, (size, size)."""
    angle = math.radians(draw.uniform(0.0, 360.0))
    place = torch.linspace(-0.5, 0.5, size)
    along = math.sin(angle) * place[:, None] + math.cos(angle) * place[None]
    return torch.exp(-draw.uniform(0.3, 2.4) * along)


def _mixed(draw: _Draw, water: Tensor, fat: Tensor) -> tuple[Tensor, Tensor]:
    """Water and fat parted or suppressed badly in places: muscle as bright as the fat beside it.

    Where the two signals oppose each other, dark lines are all that parts them.
    """
    part = draw.uniform(-0.6, 0.8) + 0.8 * draw.smooth(water.shape[-1], 3 + draw.index(3), 1.0)
    part = part.clamp(0.0, 1.0) * draw.uniform(0.15, 0.75)
    sign = 1.0 if draw.chance(0.4) else -1.0
    return (
        (water * (1.0 - part) + sign * part * fat).abs(),
        (fat * (1.0 - part) + sign * part * water).abs(),
    )


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = 3
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    image = functional.pad(image[:, None], (radius,) * 4, mode="replicate")
    image = functional.conv2d(image, kernel.view(1, 1, 1, -1))
    return functional.conv2d(image, kernel.view(1, 1, -1, 1))[:, 0]


def _table_of(values: tuple[int, ...]) -> Tensor:
    table = torch.zeros(CODE_COUNT, dtype=torch.bool)
    table[list(values)] = True
    return table


_MUSCLE_TABLE = _table_of((*MUSCLE_IDS, 51, 52, 53, UNKNOWN, OTHER_MUSCLE))
_BONE_TABLE = _table_of((*BONE_IDS, OTHER_BONE))


def _side_table(offset: int) -> Tensor:
    """From stored codes to those of one leg: what belongs to the other leg is only that."""
    table = torch.zeros(256, dtype=torch.long)
    for value in range(1, OTHER_MUSCLE):
        for side in (0, LEFT_OFFSET):
            if side == offset or value in (SEAM, UNKNOWN):
                code = value
            elif value in BONE_IDS:
                code = OTHER_BONE
            else:
                code = OTHER_MUSCLE
            table[value + side] = code
    return table
