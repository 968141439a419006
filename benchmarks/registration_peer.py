"""One peer registers one pair of legs; runs in an interpreter that has the peer, not this project.

Usage: python registration_peer.py elastix|ants PAIR.npz. Prints one JSON line: overlap of
the labels after registration, wall and processor seconds, settings.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
SPACING_MM = (3.0, 3.0, 6.0)


def start(pair: Any) -> tuple[Array, Array, Array, Array]:
    """Images and labels of both legs on arrays of one shape, centres of the labels aligned."""
    fixed, moving = pair["right_labels"], pair["left_labels"]
    shape = np.maximum(fixed.shape, moving.shape) + 8
    out = []
    for side in ("right", "left"):
        labels = pair[f"{side}_labels"]
        shift = np.rint(shape / 2 - np.argwhere(labels).mean(axis=0)).astype(int)
        for what in ("image", "labels"):
            data = pair[f"{side}_{what}"]
            canvas = np.zeros(shape, dtype=data.dtype)
            low = np.maximum(shift, 0)
            high = np.minimum(shift + data.shape, shape)
            inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            source = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, shift, strict=True))
            canvas[inside] = data[source]
            out.append(canvas)
    return out[0], out[1], out[2], out[3]


def elastix(fixed: Array, moving: Array, labels: Array) -> tuple[Array, float, str]:
    """Default affine and B-spline of itk-elastix, final grid 16 mm."""
    itk: Any = importlib.import_module("itk")

    def image(data: Array) -> Any:
        out = itk.image_from_array(np.ascontiguousarray(data.T).astype(np.float32))
        out.SetSpacing(SPACING_MM)
        return out

    parameters = itk.ParameterObject.New()
    for name, spacing in (("affine", 16.0), ("bspline", 16.0)):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(name, 3, spacing))
    started = time.process_time()
    _, found = itk.elastix_registration_method(
        image(fixed), image(moving), parameter_object=parameters, number_of_threads=1
    )
    took = time.process_time() - started
    for k in range(found.GetNumberOfParameterMaps()):
        found.SetParameter(k, "FinalBSplineInterpolationOrder", "0")
    carried = itk.transformix_filter(image(labels), found)
    settings = "default affine, then default bspline, final grid 16 mm, mutual information"
    return np.rint(itk.array_from_image(carried).T).astype(int), took, settings


def ants(fixed: Array, moving: Array, labels: Array) -> tuple[Array, float, str]:
    """Affine and SyN of antspyx with its defaults."""
    tool: Any = importlib.import_module("ants")

    def image(data: Array) -> Any:
        return tool.from_numpy(data.astype(np.float32), spacing=SPACING_MM)

    started = time.process_time()
    found = tool.registration(image(fixed), image(moving), type_of_transform="SyN")
    took = time.process_time() - started
    carried = tool.apply_transforms(
        image(fixed), image(labels), found["fwdtransforms"], interpolator="nearestNeighbor"
    )
    return np.rint(carried.numpy()).astype(int), took, "type_of_transform SyN with its defaults"


TOOLS: dict[str, Callable[[Array, Array, Array], tuple[Array, float, str]]] = {
    "elastix": elastix,
    "ants": ants,
}


def main(name: str, pair: Path) -> None:
    """Register one pair with one tool."""
    fixed, fixed_labels, moving, moving_labels = start(np.load(pair))
    wall = time.perf_counter()
    carried, took, settings = TOOLS[name](fixed, moving, moving_labels)
    dice = []
    for value in np.unique(fixed_labels[fixed_labels > 0]):
        a, b = fixed_labels == value, carried == value
        if b.any():
            dice.append(2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    row = {
        "dice": float(np.mean(dice)),
        "wall_s": time.perf_counter() - wall,
        "processor_s": took,
        "settings": settings,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
