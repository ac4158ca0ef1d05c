"""The learning rate over the rounds."""

from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

import sheafnet
from sheafnet.config import TrainingConfig
from sheafnet.nodes.optimizer import Optimizer
from tests.conftest import MakeConfig

ROUNDS = 6


def shares_of_torch(rounds: int) -> list[float]:
    """What torch's own scheduler makes of a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = CosineAnnealingLR(optimizer, T_max=rounds), []
    for _ in range(rounds):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("rounds", [1, 2, ROUNDS, 400])
def test_the_cosine_is_that_of_torch(rounds: int) -> None:
    training = TrainingConfig(rounds=rounds, schedule="cosine")
    found = [training.rate_share(k) for k in range(rounds)]
    assert found == pytest.approx(shares_of_torch(rounds))
    assert min(found) > 0.0, "every round learns"


def test_a_constant_rate_is_the_default() -> None:
    assert {TrainingConfig(rounds=3).rate_share(k) for k in range(3)} == {1.0}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_share_scales_both_learning_rates(name: str) -> None:
    """At a third of the rates a step is that of an optimizer whose rates are a third."""

    def stepped(rate: float, share: float) -> list[torch.Tensor]:
        values = [torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)]
        training = TrainingConfig(optimizer=name, learning_rate=rate, weight_decay=0.1)
        optimizer = Optimizer(values[:1], training, values[1:])
        for value in values:
            value.grad = torch.arange(1.0, len(value) + 1)
        optimizer.step(share)
        return [value.detach() for value in values]

    for ours, theirs in zip(stepped(0.3, 1 / 3), stepped(0.1, 1.0), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
        assert not torch.allclose(ours, torch.ones(len(ours)), atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ((), 1),
        (("training.local_steps=2",), 2),
        (("inference.neural_hidden=4",), 2),
        (("method=imagebind",), 1),
        (("method=all-pairs",), 1),
        (("method=local",), 1),
        (("method=concat-supervised",), 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_every_step_of_every_method_follows_it(
    overrides: tuple[str, ...],
    steps: int,
    tiny: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[int, list[float]] = {}
    step = Optimizer.step

    def noted(self: Optimizer, share: float = 1.0) -> float:
        seen.setdefault(id(self), []).append(share)
        return step(self, share)

    monkeypatch.setattr(Optimizer, "step", noted)
    few = (f"training.rounds={ROUNDS}", "inference.rounds=0", "training.schedule=cosine")
    config = tiny(*few, *overrides)
    sheafnet.simulate(config, run_dir=tmp_path / "run")
    neural = "inference.neural_hidden=4" in overrides
    for found in seen.values():
        each = steps if not neural else 1
        expected = [share for share in shares_of_torch(ROUNDS) for _ in range(each)]
        # A neural dual map learns from the second round on, when there are moments.
        assert found == pytest.approx(expected) or (neural and found == pytest.approx(expected[1:]))
    assert len(seen) == len(config.nodes or ()) * (2 if neural else 1)
