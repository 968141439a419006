"""Step 3: train on images that are synthesised as it goes; resumable, seeded, CPU or GPU.

    python -m training.train --bodies FOLDER --out FOLDER --steps 8000 [--without vhf]

Writes `checkpoint.pt` (network, EMA, optimiser, step) every few hundred steps; started again with
the same arguments it goes on from there. The images of step s depend on the seed and s alone.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from training.network import LegNetwork, marginal_loss
from training.prepare import load_body
from training.synthesis import Geometry, Synthesiser

logger = logging.getLogger(__name__)

#: Images in a batch by their size in network pixels: about the same work for each.
BATCH = {96: 16, 128: 9, 160: 6}
#: How often a kind of source is drawn, all of its bodies together. Real anatomy dominates.
KIND_WEIGHTS = {
    "whole": 0.28,
    "between": 0.20,
    "automatic": 0.09,
    "thigh": 0.29,
    "phantom": 0.14,
}


def load_geometries(bodies: Path, without: list[str]) -> tuple[list[Geometry], list[float]]:
    """Bodies and their weights, persons weighted alike within a kind."""
    loaded = [load_body(path) for path in sorted(bodies.glob("*.npz"))]
    # A body between two people is named after both.
    kept = [b for b in loaded if not set(b.source.person.split("+")) & set(without)]
    kept = [body for body in kept if body.source.kind not in without]
    persons: dict[str, set[str]] = {}
    maps: dict[str, int] = {}
    for body in kept:
        persons.setdefault(body.source.kind, set()).add(body.source.person)
        maps[body.source.person] = maps.get(body.source.person, 0) + 1
    weights = [
        KIND_WEIGHTS[b.source.kind] / len(persons[b.source.kind]) / maps[b.source.person]
        for b in kept
    ]
    return [Geometry(body) for body in kept], weights


class SyntheticLegs(Dataset):  # type: ignore[type-arg]
    """Sample number i of a size, made from the seed and i."""

    def __init__(self, synthesiser: Synthesiser, *, seed: int) -> None:
        self._synthesiser = synthesiser
        self._seed = seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        size, index = key
        sample = self._synthesiser.sample(size, _generator(self._seed, index))
        return sample.slices, sample.codes, sample.allowed


class _Batches(Sampler):  # type: ignore[type-arg]
    """Which samples make up step s: one image size a batch, more of the small ones."""

    def __init__(self, shares: dict[int, float], *, seed: int, first: int, steps: int) -> None:
        self._sizes = list(shares)
        # A batch of small images holds more of them, so fewer such batches are due.
        due = torch.tensor([shares[size] / BATCH[size] for size in self._sizes])
        self._due = due / due.sum()
        self._seed, self._first, self._steps = seed, first, steps

    def __len__(self) -> int:
        return self._steps - self._first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        largest = max(BATCH.values())
        for step in range(self._first, self._steps):
            generator = _generator(self._seed + 1, step)
            size = self._sizes[int(torch.multinomial(self._due, 1, generator=generator))]
            yield [(size, step * largest + place) for place in range(BATCH[size])]


def _generator(seed: int, index: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> 1))


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Warm-up over 200 steps, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / 200)
    return highest * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def train(arguments: argparse.Namespace) -> None:
    """Run or go on with a training."""
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    network = LegNetwork().to(device).to(memory_format=torch.channels_last)
    if arguments.start is not None:
        network.load_state_dict(torch.load(arguments.start, map_location=device, weights_only=True))
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=arguments.rate, weight_decay=1e-4)
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.out / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
        logger.info("going on from step %d", start)
    synthesiser = Synthesiser(
        *load_geometries(arguments.bodies, arguments.without), sizes=tuple(BATCH)
    )
    logger.info("sizes are due at %s", synthesiser.size_shares)
    loader = DataLoader(
        SyntheticLegs(synthesiser, seed=arguments.seed),
        batch_sampler=_Batches(
            synthesiser.size_shares, seed=arguments.seed, first=start, steps=arguments.steps
        ),
        num_workers=arguments.workers,
        prefetch_factor=4,
    )
    losses: list[float] = []
    began = time.monotonic()
    network.train()
    for step, (slices, codes, allowed) in enumerate(loader, start=start):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.rate)
        slices = slices.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=arguments.bfloat16):
            logits = network(slices)
        loss = marginal_loss(logits.float(), codes.to(device), allowed.to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(network)
        losses.append(float(loss.detach()))
        done = step + 1
        if done % 50 == 0:
            pace = (done - start) / (time.monotonic() - began)
            logger.info("step %d  loss %.4f  %.2f steps/s", done, np.mean(losses[-50:]), pace)
        if done % arguments.save_every == 0 or done == arguments.steps:
            part = checkpoint.with_suffix(".part")
            torch.save(
                {
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": done,
                    "steps": arguments.steps,
                    "seed": arguments.seed,
                    "batch": {str(size): count for size, count in BATCH.items()},
                    "without": list(arguments.without),
                },
                part,
            )
            part.replace(checkpoint)


def main() -> None:
    """Parse the command line and train."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--start", type=Path, help="weights to start from (training.restore)")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bfloat16", action="store_true", help="convolutions in half the bits")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--without", nargs="*", default=[], help="persons or kinds left out")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
