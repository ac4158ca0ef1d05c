"""Estimates that know how far off they are, and a dual map that is not affine."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import sheafnet
from sheafnet.config import TrainingConfig
from sheafnet.errors import ConfigError
from sheafnet.nodes.neural import NeuralDual
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.sheaf.calibration import HALF_WIDTH
from sheafnet.sheaf.estimators import Moments, ridge_estimate
from tests.conftest import MakeConfig, of_phase

CPU = torch.device("cpu")


def gathered(h: np.ndarray, p: np.ndarray, widths: list[int]) -> Moments:
    """The moments of one batch, which all of the weight is on."""
    moments = Moments(h.shape[1], widths, decay=0.0)
    cuts = np.cumsum(widths)[:-1]
    moments.update(
        torch.from_numpy(h), [torch.from_numpy(part) for part in np.split(p, cuts, axis=1)]
    )
    return moments


@pytest.mark.parametrize("strength", [1e-9, 0.1, 10.0])
@pytest.mark.parametrize("answered", [[], [0], [1], [0, 1]])
def test_the_residual_is_what_the_ridge_leaves_of_its_own_batch(
    answered: list[int], strength: float
) -> None:
    random = np.random.default_rng(3)
    p = random.standard_normal((200, 5)) * [1, 3, 1, 0.2, 1] + 2
    h = p @ random.standard_normal((5, 3)) + random.standard_normal((200, 3)) * [0.1, 1, 4] - 1
    moments = gathered(h, p, [2, 3])
    weight, offset = (t.numpy() for t in moments.ridge(answered, strength))
    columns = [k for at in answered for k in ([0, 1], [2, 3, 4])[at]]
    left = h - p[:, columns] @ weight.T - offset
    np.testing.assert_allclose(
        moments.residual(answered, strength).numpy(), (left**2).mean(axis=0), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(moments.variance.numpy(), h.var(axis=0), rtol=1e-4)


def test_rows_get_the_variance_of_what_answered_them() -> None:
    random = np.random.default_rng(5)
    p = random.standard_normal((300, 4))
    h = np.stack([p[:, 0], p[:, 2] + 0.5 * p[:, 1]], axis=1)
    moments = gathered(h, p, [2, 2])
    answers = {
        0: (torch.tensor([True, False, False, True]), torch.zeros(2, 2)),
        1: (torch.tensor([True, True, False, False]), torch.zeros(2, 2)),
    }
    _, variance = ridge_estimate(answers, 4, moments, 1e-9)
    for row, answered in enumerate(([0, 1], [1], [], [0])):
        np.testing.assert_allclose(variance[row], moments.residual(answered, 1e-9))
    assert float(variance[0].max()) < 1e-6  # both neighbours tell all
    assert float(variance[1][0]) == pytest.approx(h[:, 0].var(), rel=0.1)
    assert float(variance[1][1]) == pytest.approx(0.25, rel=0.2)


def test_an_interval_of_ninety_percent_holds_as_often() -> None:
    random = np.random.default_rng(9)
    p = random.standard_normal((20_000, 2))
    h = p @ random.standard_normal((2, 3)) + random.standard_normal((20_000, 3)) * [0.2, 1, 3]
    moments = gathered(h[:10_000], p[:10_000], [2])
    new = torch.ones(10_000, dtype=torch.bool)
    guess, variance = ridge_estimate(
        {0: (new, torch.from_numpy(p[10_000:]).float())}, 10_000, moments, 1e-9
    )
    inside = (guess - torch.from_numpy(h[10_000:])).abs() <= HALF_WIDTH * variance.sqrt()
    np.testing.assert_allclose(inside.double().mean(dim=0), 0.9, atol=0.015)


def test_the_neural_map_learns_what_is_not_affine_and_where_it_is_unsure() -> None:
    """h = |p0| with noise that grows with p1: nothing of it is affine in p."""
    random = torch.Generator().manual_seed(0)

    def batch(size: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        p = torch.randn(size, 2, generator=random)
        noise = torch.randn(size, generator=random)
        h = p[:, :1].abs() + (0.05 + 0.5 * (p[:, 1:] > 0)) * noise[:, None]
        return h, [p[:, :1], p[:, 1:]]

    moments, training = Moments(1, [1, 1]), TrainingConfig(learning_rate=3e-3)
    neural = NeuralDual(1, [1, 1], 32, training, torch.Generator().manual_seed(1), CPU)
    for round_ in range(1500):
        h, p = batch(128)
        neural.learn(h, p, moments, 1e-3, torch.Generator().manual_seed(round_))
        moments.update(h, p)
    h, p = batch(4000)
    everywhere = torch.ones(4000, dtype=torch.bool)
    answers = {0: (everywhere, p[0]), 1: (everywhere, p[1])}
    affine, _ = ridge_estimate(answers, 4000, moments, 1e-3)
    guess, variance = neural.estimate(answers, 4000, moments, 1e-3)
    assert float((guess - h).square().mean()) < 0.6 * float((affine - h).square().mean())
    noisy = p[1][:, 0] > 0
    assert float(variance[noisy].mean()) == pytest.approx(0.55**2, rel=0.25)
    assert float(variance[~noisy].mean()) < 0.05
    within = (guess - h).abs() <= 1.645 * variance.sqrt()
    assert 0.85 < float(within[noisy].float().mean()) < 0.95
    assert 0.85 < float(within[~noisy].float().mean()) < 0.99
    nobody, spread = neural.estimate({}, 3, moments, 1e-3)
    assert torch.equal(nobody, moments.mean_section.expand(3, 1))
    assert torch.equal(spread, moments.variance.expand(3, 1))


def test_before_it_has_learned_it_is_the_ridge() -> None:
    random = np.random.default_rng(7)
    p = random.standard_normal((50, 3))
    moments = gathered(p @ random.standard_normal((3, 2)) + random.random((50, 2)), p, [1, 2])
    neural = NeuralDual(2, [1, 2], 8, TrainingConfig(), torch.Generator().manual_seed(1), CPU)
    here = torch.tensor([True, False, True])
    answers = {1: (here, torch.randn(2, 2, generator=torch.Generator().manual_seed(2)))}
    ridge, left = ridge_estimate(answers, 3, moments, 1e-3)
    guess, variance = neural.estimate(answers, 3, moments, 1e-3)
    assert torch.equal(guess, ridge)
    assert torch.allclose(variance, left, rtol=1e-4)


NEURAL = ("inference.neural_hidden=8", "inference.estimator=neural")


def test_a_run_tells_coverage_and_who_abstained(tiny: MakeConfig, tmp_path: Path) -> None:
    plain = sheafnet.simulate(tiny(), run_dir=tmp_path / "plain").summary
    told = {}
    for bound in (1e-6, 0.9999, 1e6):
        run = tmp_path / str(bound)
        told[bound] = sheafnet.simulate(tiny(f"inference.abstain={bound}"), run_dir=run).summary
        assert told[bound].communication == plain.communication  # knowing costs no byte
        assert told[bound].missing.estimators == plain.missing.estimators
    all_, some, none = (told[bound].missing for bound in (1e-6, 0.9999, 1e6))
    assert all_.abstained == all_.missing
    assert all_.nmse_kept is None
    assert all_.accuracy_kept is None
    assert some.abstained == some.unanswered > 0  # who nobody answered expects the train mean's
    assert none.abstained == 0
    assert none.nmse_kept == pytest.approx(none.nmse)
    assert none.accuracy_kept == pytest.approx(none.accuracy)
    assert plain.missing.abstained is None
    for name, estimate in plain.missing.estimators.items():
        assert (estimate.coverage_90 is None) is (name != "ridge")
    lines = of_phase(list(RunDirectory.open(tmp_path / "0.9999").lines("rounds")), "inference")
    assert sum(line["abstained"] for line in lines) == some.abstained


def test_a_run_with_a_neural_map(tiny: MakeConfig, tmp_path: Path) -> None:
    plain = sheafnet.simulate(tiny(), run_dir=tmp_path / "plain").summary
    neural = sheafnet.simulate(tiny(*NEURAL), run_dir=tmp_path / "neural").summary
    assert neural.communication == plain.communication
    for name, estimate in plain.missing.estimators.items():
        assert neural.missing.estimators[name] == estimate  # it disturbs nothing else
    found = neural.missing.estimators["neural"]
    assert neural.missing.nmse == found.nmse
    assert found.coverage_90 is not None
    assert not math.isclose(found.nmse or 0, plain.missing.nmse or 0, rel_tol=1e-9)
    rounds = [
        (tmp_path / run / "rounds.jsonl").read_text().splitlines()[:6]
        for run in ("plain", "neural")
    ]
    assert rounds[0] == rounds[1]


def test_what_cannot_be(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="estimator: neural needs neural_hidden"):
        tiny("inference.estimator=neural")
    with pytest.raises(ConfigError, match="mean does not know its error"):
        tiny("inference.estimator=mean", "inference.abstain=0.5")
    with pytest.raises(ConfigError, match=r"inference\.neural_hidden: under local"):
        tiny("method=local", "inference.neural_hidden=4")
    with pytest.raises(ConfigError, match="abstain"):
        tiny("inference.abstain=0")
