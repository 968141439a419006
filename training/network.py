"""The network: a 2.5D U-Net with additive skips. Five slices in, the middle slice's classes out."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.codes import CLASS_COUNT

CHANNELS_IN = 10
WIDTHS = (16, 32, 64, 128, 192)
#: Residual blocks on the way down, by level; the deep levels cost little.
DEPTHS = (1, 2, 4, 4)


class _Block(nn.Sequential):
    def __init__(self, into: int, out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(into, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _Block(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )
        # A new block passes on what it gets (Goyal et al. 2017): a network can grow by blocks.
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class LegNetwork(nn.Module):
    """Logits (N, 38, H, W) from slices (N, 10, H, W); H and W multiples of 16."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Block(CHANNELS_IN, widths[0]), _Block(widths[0], widths[0]))
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(
            nn.Sequential(_Block(a, b, 2), *(_Residual(b) for _ in range(depth)))
            for (a, b), depth in zip(pairs, depths, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(
            _Residual(a) if a > widths[0] else _Block(a, 2 * a) for a, _ in pairs
        )
        self.head = nn.Conv2d(2 * widths[0], CLASS_COUNT, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for narrow, up, skip in zip(
            reversed(self.narrow), reversed(self.up), reversed(skips), strict=True
        ):
            x = functional.interpolate(
                narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False
            )
            x = up(x + skip)
        return self.head(x)


class WithProbabilities(nn.Module):
    """The network as it is exported: softmax included."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: Tensor) -> Tensor:
        # Softmax in its parts: over channels onnxruntime's own takes a sixth of the network's time.
        logits = self.network(slices)
        raised = torch.exp(logits - logits.amax(dim=1, keepdim=True))
        return raised / raised.sum(dim=1, keepdim=True)


def marginal_loss(logits: Tensor, codes: Tensor, allowed: Tensor) -> Tensor:
    """Cross-entropy and Dice that know what a source does not label.

    The probability of a pixel is the sum over everything it may be; Dice is taken where only one
    class is possible.

    Args:
        logits: (N, C, H, W).
        codes: int64 (N, H, W).
        allowed: bool (N, codes, C).
    """
    # Classes last: that is how both the logits of a channels-last network and the table lie.
    p = torch.softmax(logits.permute(0, 2, 3, 1), dim=-1)
    image = torch.arange(len(codes), device=codes.device)[:, None, None]
    mask = allowed[image, codes].to(p.dtype)
    entropy = -torch.log((p * mask).sum(dim=-1).clamp(min=1e-6)).mean()
    # Every other pixel is enough for a sum over an image.
    p, mask = p[:, ::2, ::2], mask[:, ::2, ::2]
    sure = (mask.sum(dim=-1, keepdim=True) == 1).to(p.dtype)
    truth = mask * sure
    overlap = (p * truth).sum(dim=(0, 1, 2))
    size = truth.sum(dim=(0, 1, 2))
    both = (p * sure).sum(dim=(0, 1, 2)) + size
    there = size > 5
    dice = (2 * overlap[there] + 3.0) / (both[there] + 3.0)
    # No sure pixel in a batch: no Dice, and no 0 / 0.
    return entropy + 0.5 * (1.0 - dice).sum() / max(len(dice), 1)
