"""Step 3: train on images that are synthesised as it goes; resumable, seeded, CPU or GPU.

    python -m training.train --bodies FOLDER --out FOLDER --steps 8000 [--fold vhf --fold vhm]

Writes `checkpoint.pt` (network, EMA, optimiser, step) every few hundred steps; started again with
the same arguments it goes on from there. The images of step s depend on the seed and s alone.
Each fold is one more network, `without-vhf.pt`, that learns from the same images but those of a
person: making images costs more than learning from them.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from training.network import LegNetwork, marginal_loss
from training.prepare import load_body
from training.synthesis import Geometry, Synthesiser

logger = logging.getLogger(__name__)

#: Images in a batch by their size in network pixels: about the same work for each (`--times`
#: makes all of them larger).
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
    geometries = [Geometry(body) for body in loaded if body.source.kind not in without]
    geometries = [geometry for geometry in geometries if not geometry.persons & set(without)]
    kept = [geometry.body for geometry in geometries]
    persons: dict[str, set[str]] = {}
    maps: dict[str, int] = {}
    for body in kept:
        persons.setdefault(body.source.kind, set()).add(body.source.person)
        maps[body.source.person] = maps.get(body.source.person, 0) + 1
    weights = [
        KIND_WEIGHTS[b.source.kind] / len(persons[b.source.kind]) / maps[b.source.person]
        for b in kept
    ]
    return geometries, weights


class SyntheticLegs(Dataset):  # type: ignore[type-arg]
    """Sample number i of a size, made from the seed and i.

    Items are slices (float16: half of what has to be passed on), codes, allowed classes, and
    whether each fold may learn from the sample.
    """

    def __init__(self, synthesiser: Synthesiser, *, seed: int, folds: tuple[str, ...] = ()) -> None:
        self._synthesiser = synthesiser
        self._seed = seed
        self._folds = folds

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        size, index = key
        sample = self._synthesiser.sample(size, _generator(self._seed, index))
        mine = torch.tensor([fold not in sample.persons for fold in self._folds], dtype=torch.bool)
        return sample.slices.half(), sample.codes.to(torch.uint8), sample.allowed, mine


class _Batches(Sampler):  # type: ignore[type-arg]
    """Which samples make up step s: one image size a batch, more of the small ones."""

    def __init__(
        self, shares: dict[int, float], *, seed: int, first: int, steps: int, times: int
    ) -> None:
        self._sizes = list(shares)
        # A batch of small images holds more of them, so fewer such batches are due.
        due = torch.tensor([shares[size] / BATCH[size] for size in self._sizes])
        self._due = due / due.sum()
        self._seed, self._first, self._steps, self._times = seed, first, steps, times

    def __len__(self) -> int:
        return self._steps - self._first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        largest = max(BATCH.values()) * self._times
        for step in range(self._first, self._steps):
            generator = _generator(self._seed + 1, step)
            size = self._sizes[int(torch.multinomial(self._due, 1, generator=generator))]
            yield [(size, step * largest + place) for place in range(BATCH[size] * self._times)]


def _generator(seed: int, index: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> 1))


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Warm-up over 200 steps, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / 200)
    return highest * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


@dataclass(frozen=True)
class _Batch:
    """Images on the device, channels last, and what may be where."""

    slices: torch.Tensor
    codes: torch.Tensor
    allowed: torch.Tensor

    def only(self, chosen: torch.Tensor) -> _Batch:
        slices = self.slices[chosen].contiguous(memory_format=torch.channels_last)
        return _Batch(slices, self.codes[chosen], self.allowed[chosen])


class _Learner:
    """A network, its average over the steps and its optimiser, kept in one file."""

    def __init__(
        self, checkpoint: Path, start: Path | None, without: list[str], device: torch.device
    ) -> None:
        self.checkpoint, self.without, self._device = checkpoint, without, device
        self.network = LegNetwork().to(device).to(memory_format=torch.channels_last)
        if start is not None:
            # Blocks that a smaller network does not have yet do nothing at first.
            state = torch.load(start, map_location=device, weights_only=True)
            names = self.network.load_state_dict(state, strict=False)
            if names.unexpected_keys:
                raise SystemExit(f"{start} is of another network: {names.unexpected_keys[0]}")
            logger.info("%d tensors that %s lacks are new", len(names.missing_keys), start)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998),
            use_buffers=True,
        )
        self._optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)
        self.step = 0
        if checkpoint.exists():
            stored = torch.load(checkpoint, map_location=device, weights_only=True)
            self.network.load_state_dict(stored["network"])
            self.average.load_state_dict(stored["average"])
            self._optimiser.load_state_dict(stored["optimiser"])
            self.step = stored["step"]
        self.network.train()

    def learn(self, batch: _Batch, *, rate: float, bfloat16: bool) -> torch.Tensor:
        """One step; the loss. A batch that holds nothing for this network is passed over."""
        self.step += 1
        if not len(batch.codes):
            return torch.tensor(float("nan"), device=self._device)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = self.network(batch.slices)
        loss = marginal_loss(logits.float(), batch.codes, batch.allowed)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        self.average.update_parameters(self.network)
        return loss.detach()

    def save(self, **facts: Any) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.checkpoint.with_suffix(".part")
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "without": self.without,
            **facts,
        }
        torch.save(state, part)
        part.replace(self.checkpoint)


def train(arguments: argparse.Namespace) -> None:
    """Run or go on with a training."""
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    folds: list[str] = []
    learners = [
        _Learner(arguments.out / "checkpoint.pt", arguments.start, arguments.without, device)
    ]
    for words in arguments.fold:
        fold, _, file = words.partition("=")
        path = arguments.out / f"without-{fold}.pt"
        start = Path(file) if file else None
        learners.append(_Learner(path, start, [*arguments.without, fold], device))
        folds.append(fold)
    first = min(learner.step for learner in learners)
    if any(learner.step != first for learner in learners):
        raise SystemExit(f"the checkpoints in {arguments.out} are of different steps")
    logger.info("from step %d", first)
    synthesiser = Synthesiser(
        *load_geometries(arguments.bodies, arguments.without), sizes=tuple(BATCH)
    )
    logger.info("sizes are due at %s", synthesiser.size_shares)
    loader = DataLoader(
        SyntheticLegs(synthesiser, seed=arguments.seed, folds=tuple(folds)),
        batch_sampler=_Batches(
            synthesiser.size_shares,
            seed=arguments.seed,
            first=first,
            steps=arguments.steps,
            times=arguments.times,
        ),
        num_workers=arguments.workers,
        prefetch_factor=4 if arguments.workers else None,
        pin_memory=device.type == "cuda",
    )
    losses: list[torch.Tensor] = []
    began = time.monotonic()
    for step, (slices, codes, allowed, used) in enumerate(loader, start=first):
        rate = learning_rate(step, arguments.steps, arguments.rate)
        slices = slices.to(device, non_blocking=True).float()
        batch = _Batch(
            slices.contiguous(memory_format=torch.channels_last),
            codes.to(device, non_blocking=True).long(),
            allowed.to(device, non_blocking=True),
        )
        shares = [batch] + [batch.only(mine.nonzero()[:, 0].to(device)) for mine in used.T]
        losses.append(
            torch.stack(
                [
                    learner.learn(share, rate=rate, bfloat16=arguments.bfloat16)
                    for learner, share in zip(learners, shares, strict=True)
                ]
            )
        )
        done = step + 1
        if done % 50 == 0:
            pace = (done - first) / (time.monotonic() - began)
            means = torch.stack(losses).nanmean(dim=0).tolist()
            losses.clear()
            logger.info("step %d  loss %s  %.2f steps/s", done, np.round(means, 4), pace)
        if done % arguments.save_every == 0 or done == arguments.steps:
            for learner in learners:
                learner.save(
                    steps=arguments.steps,
                    seed=arguments.seed,
                    batch={str(size): count * arguments.times for size, count in BATCH.items()},
                )


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
    parser.add_argument("--times", type=int, default=1, help="batches so many times as large")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bfloat16", action="store_true", help="convolutions in half the bits")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--without", nargs="*", default=[], help="persons or kinds left out")
    parser.add_argument(
        "--fold",
        action="append",
        default=[],
        metavar="PERSON[=START]",
        help="one more network that never sees a person, and the weights it starts from",
    )
    train(parser.parse_args())


if __name__ == "__main__":
    main()
