"""Step 4: the averaged weights of checkpoints -> the ONNX file of the package and its contract.

    python -m training.export --checkpoint FILE [FILE] --out FOLDER

Of several checkpoints, of which each went on from the one before, the mean is taken (Wortsman et
al., Model soups, ICML 2022).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from training.codes import CLASS_IDS
from training.network import CHANNELS_IN, LegNetwork, WithProbabilities
from training.synthesis import FAR_MM, NEAR_MM, NETWORK_PIXEL_MM

VERSION = "9"
#: Smaller tensors stay as they are: they weigh nothing.
_LEAST_HALVED = 1024
#: Added to the name of a tensor that is kept in half precision.
HALF = "_half"


def export(checkpoints: list[Path], out: Path) -> None:
    """Write legs.onnx and legs.json; without a checkpoint, untrained weights for development."""
    network = LegNetwork()
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in checkpoints]
    if states:
        network.load_state_dict(
            {
                name: sum(state["average"][f"module.{name}"] for state in states) / len(states)
                for name in network.state_dict()
            }
        )
    model = WithProbabilities(network).eval()
    out.mkdir(parents=True, exist_ok=True)
    target = out / "legs.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(1, CHANNELS_IN, 64, 64),),
        str(target),
        input_names=["slices"],
        output_names=["probabilities"],
        dynamic_axes={
            "slices": {0: "n", 2: "h", 3: "w"},
            "probabilities": {0: "n", 2: "h", 3: "w"},
        },
        opset_version=17,
        dynamo=False,
    )
    onnx.save(halved(onnx.load(str(target))), str(target))
    contract = {
        "version": VERSION,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "class_ids": list(CLASS_IDS),
        "pixel_mm": NETWORK_PIXEL_MM,
        "near_mm": NEAR_MM,
        "far_mm": FAR_MM,
        "size_multiple": 16,
        "training": [
            {key: state[key] for key in ("step", "steps", "seed", "batch", "without")}
            for state in states
        ],
    }
    (out / "legs.json").write_text(json.dumps(contract, indent=1) + "\n", encoding="utf-8")


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large weights in half precision, turned back into single precision when the file is loaded.

    Half the size; what is computed stays single precision, and runtimes fold the casts away.
    """
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LEAST_HALVED:
            continue
        kept = numpy_helper.from_array(values.astype(np.float16), tensor.name + HALF)
        graph.initializer.remove(tensor)
        graph.initializer.append(kept)
        casts.append(
            helper.make_node("Cast", [kept.name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()
