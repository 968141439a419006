"""From the package's ONNX file back to a network that can be trained further.

python -m training.restore --weights FILE --bodies FOLDER --out FOLDER

The export folds every batch normalisation into the convolution before it. Here each one is put back
with the mean and the spread that synthetic images have there, and the scale and shift that undo
them: the function is that of the file, the network trains like one that was never exported.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from training.export import HALF
from training.network import LegNetwork
from training.synthesis import Synthesiser
from training.train import BATCH, SyntheticLegs, load_geometries

logger = logging.getLogger(__name__)

_IMAGES_PER_SIZE = 24
#: Of the weights of one output, as they are drawn for a rectified layer (He et al. 2015).
_ROW_NORM = 2.0**0.5


def restore(weights: Path, slices: list[Tensor]) -> LegNetwork:
    """The network of an exported file, its normalisations estimated on images.

    Args:
        weights: ONNX file written by `training.export`.
        slices: batches (N, 10, H, W) that set the statistics of the normalisations.

    Returns:
        The network, in training mode.
    """
    network = LegNetwork().eval()
    convolutions = _in_order_of_use(network, slices[0][:1])
    graph = onnx.load(str(weights)).graph
    tensors = {
        tensor.name.removesuffix(HALF): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in graph.initializer
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    with torch.no_grad():
        for (convolution, normalisation), node in zip(convolutions, nodes, strict=True):
            weight, bias = (torch.from_numpy(tensors[name].copy()) for name in node.input[1:])
            convolution.weight.copy_(weight)
            if normalisation is None:
                convolution.bias.copy_(bias)
            else:
                # A normalised convolution has no scale of its own, but how fast it learns
                # depends on it: that of a fresh network.
                norm = convolution.weight.flatten(1).norm(dim=1).clamp(min=1e-6)
                convolution.weight.mul_((_ROW_NORM / norm)[:, None, None, None])
                normalisation.weight.copy_(norm / _ROW_NORM)
                normalisation.bias.copy_(bias)
                normalisation.running_var.fill_(1.0 - normalisation.eps)
        _estimate_statistics(
            [pair[1] for pair in convolutions if pair[1] is not None], network, slices
        )
    return network.train()


def _in_order_of_use(
    network: LegNetwork, image: Tensor
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """Convolutions as they run, each with the normalisation that follows it."""
    order: list[tuple[nn.Conv2d, nn.BatchNorm2d | None]] = []

    def note(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Conv2d):
            order.append((module, None))
        elif isinstance(module, nn.BatchNorm2d):
            order[-1] = (order[-1][0], module)

    handles = [module.register_forward_hook(note) for module in network.modules()]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return order


def _estimate_statistics(
    normalisations: list[nn.BatchNorm2d], network: LegNetwork, slices: list[Tensor]
) -> None:
    sums = {module: [0.0, 0.0, 0.0] for module in normalisations}

    def gather(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        values = inputs[0].double()
        total = sums[module]  # type: ignore[index]
        total[0] += values.numel() / values.shape[1]
        total[1] = total[1] + values.sum(dim=(0, 2, 3))
        total[2] = total[2] + (values**2).sum(dim=(0, 2, 3))

    handles = [module.register_forward_hook(gather) for module in normalisations]
    for batch in slices:
        network(batch)
    for handle in handles:
        handle.remove()
    for module, (count, first, second) in sums.items():
        mean = first / count
        variance = (second / count - mean**2).clamp(min=1e-6)
        scale = torch.sqrt(variance + module.eps)
        module.bias.add_(module.weight * mean)
        module.weight.mul_(scale)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)


def main() -> None:
    """Parse the command line, restore, write `start.pt`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--bodies", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    synthesiser = Synthesiser(*load_geometries(arguments.bodies, []), sizes=tuple(BATCH))
    images = SyntheticLegs(synthesiser, seed=arguments.seed)
    slices = [
        torch.stack([images[size, index][0].float() for index in range(first, first + 8)])
        for size in BATCH
        for first in range(0, _IMAGES_PER_SIZE, 8)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.save(restore(arguments.weights, slices).state_dict(), arguments.out / "start.pt")
    logger.info("wrote start.pt")


if __name__ == "__main__":
    main()
