"""One patch through a network of TotalSegmentator's kind; runs in an interpreter that has torch.

Usage: python segmentation_peer.py THREADS PATCH. Prints one JSON line: seconds of a patch (the
best of three), parameters, settings. The weights are random: what a patch costs does not depend on
them.

TotalSegmentator's networks are those of nnU-Net's default planner (its resources/train_nnunet.md:
"-pl ExperimentPlanner -c 3d_fullres"): a plain U-Net of six levels, 32 to 320 channels, two
convolutions each, which has 31 million parameters (nnU-Net discussion 516 counts the same).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from itertools import pairwise
from typing import Any

#: Channels by level; each level halves the one above along every axis.
CHANNELS = (32, 64, 128, 256, 320, 320)
CONVOLUTIONS = 2
#: Background and classes of thigh_shoulder_muscles_mr (totalsegmentator/map_to_binary.py).
CLASSES = 19
REPEATS = 3


def network(torch: Any) -> Any:
    """The U-Net, from one image to the scores of all classes."""
    nn = torch.nn

    def level(before: int, after: int, stride: int) -> Any:
        layers: list[Any] = []
        for k in range(CONVOLUTIONS):
            layers += [
                nn.Conv3d(
                    before if k == 0 else after,
                    after,
                    kernel_size=3,
                    stride=stride if k == 0 else 1,
                    padding=1,
                ),
                nn.InstanceNorm3d(after, affine=True),
                nn.LeakyReLU(inplace=True),
            ]
        return nn.Sequential(*layers)

    class PlainUNet(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            widths = (1, *CHANNELS)
            self.down = nn.ModuleList(
                level(before, after, 1 if k == 0 else 2)
                for k, (before, after) in enumerate(pairwise(widths))
            )
            steps = list(pairwise(reversed(CHANNELS)))
            self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in steps)
            self.joined = nn.ModuleList(level(2 * b, b, 1) for _, b in steps)
            self.scores = nn.Conv3d(CHANNELS[0], CLASSES, 1)

        def forward(self, x: Any) -> Any:
            seen = []
            for down in self.down:
                x = down(x)
                seen.append(x)
            for up, joined, beside in zip(self.up, self.joined, seen[-2::-1], strict=True):
                x = joined(torch.cat((up(x), beside), dim=1))
            return self.scores(x)

    return PlainUNet().eval()


def main(threads: int, patch: int) -> None:
    """Time one patch."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = network(torch)
    image = torch.randn(1, 1, patch, patch, patch)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(REPEATS):
            started = time.perf_counter()
            model(image)
            best = min(best, time.perf_counter() - started)
    row = {
        "patch_s": best,
        "million_parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "settings": f"torch {torch.__version__}, float32, {threads} threads",
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
