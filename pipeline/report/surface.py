"""The page with both legs to turn and click: one surface per structure, numbers beside it.

It needs nothing else: surfaces are in the page, and its own short script draws them with WebGL.
Every number is on the page as an element too, so it can be read without a picture.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.grid import Grid
from pipeline.core.results import Measures, volume_field
from pipeline.report import legs, words
from pipeline.report.drawing import COLOURS, DARK_COLOURS
from pipeline.report.evidence import ReportEvidence
from pipeline.report.html import page_environment, script_and_digest
from pipeline.report.numbers import Numbers

_SCRIPT = "surface.js"
#: Surfaces are made on voxels of this size: thin muscles stay whole, the page stays small.
_STEP_MM = 4.0
#: Places on a surface are stored in steps of this many mm.
_PLACE_MM = 0.1
#: A difference that may be measurement error keeps this share of its colour; the rest is pale.
_UNCERTAIN_SHARE = 0.35
_PALE = (0.93, 0.93, 0.93)
#: Colours of the scale below the list, on each side of no difference.
_SCALE_STEPS = 4


def render_surface(measures: Measures, evidence: ReportEvidence, *, scale_percent: float) -> str:
    """The page as HTML, the same bytes every time.

    Args:
        measures: the published results; every number is one of theirs.
        evidence: the labels whose surfaces are shown.
        scale_percent: difference at which the colours end.
    """
    lead = measures.measures.lead
    painted = legs.paints(measures, lead)
    numbers = {m.name: i for i, m in enumerate(measures.measures.muscles)}
    shown: list[dict[str, Any]] = []
    labels = evidence.labels
    for value, box in enumerate(ndimage.find_objects(labels.data), start=1):
        if box is None:
            continue
        lower = tuple(side.start for side in box)
        surface = structure_surface(labels.data[box] == value, labels.grid, lower=lower)
        if surface is None:
            continue
        name, side = OWN_SCHEME.structures[value]
        places, faces = surface
        shown.append(
            {
                "places": _packed(np.rint(places / _PLACE_MM).astype("<i2")),
                "faces": _packed(faces.astype("<u2")),
                "colour": _colour(value, painted, scale_percent),
                "card": f"card-{numbers[name]}" if name in numbers else None,
                "title": f"{words.muscle_title(name)}, {side}",
            }
        )
    script, digest = script_and_digest(_SCRIPT)
    environment = page_environment()
    environment.globals.update(num=Numbers(measures), words=words)
    return environment.get_template("surface.html.j2").render(
        measures=measures,
        lead=lead,
        lead_key=words.lead_key(lead),
        volume_field=volume_field,
        scale_percent=scale_percent,
        scale_colours=[
            legs.colour_of(scale_percent * k / _SCALE_STEPS, scale_percent)
            for k in range(-_SCALE_STEPS, _SCALE_STEPS + 1)
        ],
        # "<" is written as an escape, so that no title can end the element.
        surfaces=Markup(json.dumps(shown).replace("<", "\\u003c")),
        script=Markup(script),
        script_digest=digest,
        colours=COLOURS,
        dark_colours=DARK_COLOURS,
    )


def structure_surface(
    mask: NDArray[np.bool_], grid: Grid, *, lower: tuple[int, ...] = (0, 0, 0)
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Surface of one structure: corners in RAS mm from the grid's middle, and triangles.

    The mask is smoothed and looked at on coarser voxels, which also makes the surface simple.

    Args:
        mask: voxels of the structure, in a box of the grid.
        grid: where they are.
        lower: index of that box on the grid.

    Returns:
        corners (n, 3) and indices (m, 3), turned so that normals point outwards; None where
        nothing is left of the structure at this resolution.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    sizes = np.array(grid.voxel_sizes_mm)
    # Room for the smoothing, and a rim of nothing that closes surfaces at the edge of the scan.
    margin = np.ceil(2.0 * _STEP_MM / sizes).astype(int)
    first = np.array([part.start for part in found[0]]) + lower - margin
    padded = np.pad(mask[found[0]].astype(np.float32), [(m, m) for m in margin])
    smooth = ndimage.gaussian_filter(padded, np.maximum(0.0, 0.5 * _STEP_MM / sizes))
    shape = np.ceil(np.array(padded.shape) * sizes / _STEP_MM).astype(int)
    index = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    places = [axis * _STEP_MM / size for axis, size in zip(index, sizes, strict=True)]
    coarse = ndimage.map_coordinates(smooth, places, order=1, mode="constant")
    if coarse.max() <= 0.5 or min(coarse.shape) < 2:
        return None
    corners, faces, _, _ = marching_cubes(coarse, level=0.5)  # type: ignore[no-untyped-call]
    middle = grid.index_to_world((np.array(grid.shape) - 1.0) / 2.0)
    world = grid.index_to_world(first + corners * _STEP_MM / sizes) - middle
    return world, faces[:, ::-1].astype(np.int64)


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _colour(value: int, painted: Any, scale_percent: float) -> list[float]:
    """Red, green and blue, 0 to 1."""
    paint = painted.get(value)
    if paint is None:
        return list(to_rgb(legs.BONE))
    if not paint.judged or paint.excess_percent is None:
        return list(to_rgb(legs.UNJUDGED))
    colour = np.array(to_rgb(legs.colour_of(paint.excess_percent, scale_percent)))
    share = 1.0 if paint.certain else _UNCERTAIN_SHARE
    mixed = share * colour + (1.0 - share) * np.array(_PALE)
    return [round(float(v), 3) for v in mixed]
