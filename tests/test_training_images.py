"""The image side of the training; needs torch, which the pipeline does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch", reason="torch is not a dependency of the pipeline")

from training.codes import CLASS_COUNT, CODE_COUNT, OTHER_MUSCLE, OUTSIDE  # noqa: E402
from training.network import LegNetwork, marginal_loss  # noqa: E402
from training.prepare import Source, prepare, save_body  # noqa: E402
from training.synthesis import Geometry, Synthesiser, context_offsets  # noqa: E402
from training.train import main as train_main  # noqa: E402


def ring() -> Geometry:
    """A thigh of two rings on three slices; the right leg only."""
    rows, columns = np.ogrid[:120, :120]
    radius = np.hypot(rows - 60, columns - 60)
    plane = np.where((radius < 30) & (radius > 12), 10, 0)
    plane[(radius < 45) & (radius >= 30)] = 9
    labels = np.repeat(plane.astype(np.uint8)[:, :, None], 3, axis=2)
    return Geometry(prepare(Source("map", "person", "thigh", 0, 2, ()), labels, (1.0, 1.0, 10.0)))


def test_the_same_seed_gives_the_same_image() -> None:
    synthesiser = Synthesiser([ring()], [1.0], sizes=(96,))
    one, two = (synthesiser.sample(96, torch.Generator().manual_seed(5)) for _ in range(2))
    other = synthesiser.sample(96, torch.Generator().manual_seed(6))
    assert torch.equal(one.slices, two.slices)
    assert not torch.equal(one.slices, other.slices)
    assert one.slices.shape == (10, 96, 96)
    assert 0.0 <= float(one.slices.min()) <= float(one.slices.max()) <= 1.5
    assert {9, 10} <= set(torch.unique(one.codes).tolist())


def test_a_leg_is_cut_from_the_other_one() -> None:
    """Two thighs that touch: of the other one at most a strip at the cut is left."""
    one = ring().body
    codes, distance = one.codes[:, :, 74:-74], one.distance[:, :, 37:-37]
    codes = np.concatenate([np.where(codes > 0, codes + 100, 0), codes], axis=2)
    both = Geometry(replace(one, codes=codes, distance=np.tile(distance, (1, 1, 2))))
    middle = codes.shape[2] / 2 - 0.5
    assert both.middle.tolist() == pytest.approx([middle] * len(codes), abs=1.0)
    synthesiser = Synthesiser([both], [1.0], sizes=(96,))
    shares = []
    for seed in range(40):
        sample = synthesiser.sample(96, torch.Generator().manual_seed(seed))
        shares.append(float((sample.codes == OTHER_MUSCLE).float().mean()))
    whole = [share > 0.05 for share in shares]
    assert 0 < sum(whole) < 0.4 * len(shares)


def test_some_legs_are_full_of_fat_in_every_muscle() -> None:
    synthesiser = Synthesiser([ring()], [1.0], sizes=(96,))
    full = []
    for seed in range(120):
        sample = synthesiser.sample(96, torch.Generator().manual_seed(seed))
        water, fat = sample.slices[2], sample.slices[7]
        muscles = [sample.codes == value for value in (9, 10)]
        if not fat.any() or not all(bool(muscle.any()) for muscle in muscles):
            continue
        shares = [float((fat / (water + fat + 1e-6))[muscle].median()) for muscle in muscles]
        full.append(min(shares) > 0.3)
    assert len(full) > 20
    assert 0.08 < np.mean(full) < 0.5


def test_some_legs_are_cut_by_the_field_of_view() -> None:
    """Beyond a straight edge nothing is imaged, and nothing is asked for."""
    synthesiser = Synthesiser([ring()], [1.0], sizes=(96,))
    cut = 0
    for seed in range(150):
        sample = synthesiser.sample(96, torch.Generator().manual_seed(seed))
        nothing = (sample.slices == 0).all(dim=0)
        beyond = nothing & (nothing.all(dim=0) | nothing.all(dim=1)[:, None])
        if bool(beyond.any()):
            cut += 1
            assert set(torch.unique(sample.codes[beyond]).tolist()) == {OUTSIDE}
            assert bool((sample.codes == 9).any())
    assert 8 < cut < 40


def test_some_muscles_are_wasted_and_fat_lies_around_them() -> None:
    synthesiser = Synthesiser([ring()], [1.0], sizes=(96,))
    between: list[float] = []
    for seed in range(150):
        sample = synthesiser.sample(96, torch.Generator().manual_seed(seed))
        water, fat = sample.slices[2], sample.slices[7]
        parts, count = ndimage.label((sample.codes == OUTSIDE).numpy())
        if not fat.any() or count < 2:
            continue
        inside = torch.from_numpy((parts > 0) & (parts != parts[0, 0]))
        inside &= sample.slices.sum(dim=0) > 0
        if int(inside.sum()) > 30:
            between.append(float((fat / (water + fat + 1e-6))[inside].median()))
    assert len(between) > 3
    assert np.median(between) > 0.6


def test_context_is_near_and_far_in_millimetres() -> None:
    assert context_offsets(3.0) == (2, 13)
    assert context_offsets(6.0) == (1, 7)
    assert context_offsets(24.0) == (1, 2)


def test_what_a_source_leaves_open_costs_nothing() -> None:
    logits = torch.zeros(1, CLASS_COUNT, 4, 4)
    logits[:, 3] = 20.0
    codes = torch.full((1, 4, 4), 7)
    allowed = torch.zeros(1, CODE_COUNT, CLASS_COUNT, dtype=torch.bool)
    allowed[0, 7, [3, 5]] = True
    open_to_both = marginal_loss(logits, codes, allowed)
    allowed[0, 7, 3] = False
    wrong = marginal_loss(logits, codes, allowed)
    assert float(open_to_both) < 1e-3
    assert float(wrong) > 5.0


def test_the_network_gives_every_class_for_every_pixel() -> None:
    assert LegNetwork()(torch.zeros(2, 10, 32, 64)).shape == (2, CLASS_COUNT, 32, 64)


def test_a_fold_never_learns_from_its_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies of one person alone: the network of all learns, that without the person does not."""
    bodies, run, start = tmp_path / "bodies", tmp_path / "run", tmp_path / "start.pt"
    bodies.mkdir()
    save_body(bodies / "thigh.npz", ring().body)
    torch.manual_seed(3)
    torch.save(LegNetwork().state_dict(), start)
    words = f"train --bodies {bodies} --out {run} --start {start} --fold person={start}"
    monkeypatch.setattr("sys.argv", [*words.split(), "--steps", "2", "--workers", "0"])
    train_main()
    before = torch.load(start, weights_only=True)["stem.0.0.weight"]
    learned, left_out = (
        torch.load(run / name, weights_only=True) for name in ("checkpoint.pt", "without-person.pt")
    )
    assert left_out["without"] == ["person"]
    assert learned["without"] == []
    assert torch.equal(left_out["network"]["stem.0.0.weight"], before)
    assert not torch.equal(learned["network"]["stem.0.0.weight"], before)
    # Started again, it has nothing left to do.
    train_main()
