import math

import pytest
import torch
from torch import Tensor

from sheafnet.nodes.probe import LinearProbe

torch.set_num_threads(1)

STEPS = 300


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(rows: int, seed: int, spread: float) -> tuple[Tensor, Tensor]:
    labels = torch.arange(rows) % 5
    return 3 * torch.eye(5)[labels] + spread * randn(rows, 5, seed=seed), labels


def share(predicted: Tensor, labels: Tensor) -> float:
    return float((predicted == labels).float().mean())


def test_separable_classes_are_separated():
    features, labels = clusters(300, 0, 0.2)
    fresh, truth = clusters(200, 1, 0.2)
    assert share(LinearProbe(features, [labels], 5, STEPS).predict(fresh)[0], truth) == 1.0


def test_two_gaussians_are_cut_where_they_are_equally_likely():
    # Means -1 and +1, deviation 1 in one dimension: the best accuracy is Phi(1) = 0.8413.
    labels = torch.arange(20_000) % 2
    features = (2.0 * labels - 1)[:, None] + randn(20_000, 1, seed=0)
    probe = LinearProbe(features, [labels], 2, STEPS)
    grid = torch.linspace(-3, 3, 1201)[:, None]
    (predicted,) = probe.predict(grid)
    cut = float(grid[int((predicted == 1).nonzero()[0])])
    assert cut == pytest.approx(0.0, abs=0.06)
    assert bool((predicted == (grid[:, 0] >= cut)).all())
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert share(probe.predict(features)[0], labels) == pytest.approx(best, abs=0.01)


def test_labels_without_a_rule_are_guessed_at_chance():
    labels = torch.randint(10, (4000,), generator=torch.Generator().manual_seed(0))
    features = randn(4000, 16, seed=1)
    probe = LinearProbe(features[:2000], [labels[:2000]], 10, STEPS)
    found = share(probe.predict(features[2000:])[0], labels[2000:])
    # Five standard deviations of a binomial share.
    assert abs(found - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 2000)


def test_each_label_has_a_head_of_its_own():
    features = randn(500, 3, seed=2)
    first, second = (features[:, 0] > 0).long(), (features[:, 2] > 0).long()
    probe = LinearProbe(features, [first, second], 2, STEPS)
    fresh = randn(400, 3, seed=3)
    one, two = probe.predict(fresh)
    assert share(one, (fresh[:, 0] > 0).long()) > 0.97
    assert share(two, (fresh[:, 2] > 0).long()) > 0.97


def test_a_common_class_is_guessed_where_features_say_nothing():
    labels = (torch.arange(2000) % 10 == 0).long()
    features = randn(2000, 2, seed=4)
    probe = LinearProbe(features, [labels], 2, STEPS)
    assert share(probe.predict(features)[0], labels) == pytest.approx(0.9)


def test_units_and_origin_of_the_features_do_not_matter():
    features, labels = clusters(300, 0, 1.0)
    fresh, _ = clusters(200, 1, 1.0)
    scale, shift = torch.tensor([1e3, 1e-3, 1.0, 50.0, 0.1]), torch.tensor([5.0, 0, -9, 1, 2])
    plain = LinearProbe(features, [labels], 5, STEPS).predict(fresh)[0]
    changed = LinearProbe(features * scale + shift, [labels], 5, STEPS).predict(
        fresh * scale + shift
    )[0]
    assert share(plain, changed) > 0.99


def test_a_constant_feature_does_no_harm():
    features, labels = clusters(300, 0, 0.2)
    with_constant = torch.cat([features, torch.full((300, 2), 7.0)], dim=1)
    probe = LinearProbe(with_constant, [labels], 5, STEPS)
    assert share(probe.predict(with_constant)[0], labels) == 1.0


def test_a_class_that_never_occurs_is_never_named():
    features, labels = clusters(300, 0, 0.2)
    assert int(LinearProbe(features, [labels], 9, STEPS).predict(features)[0].max()) <= 4


def test_training_draws_no_random_number():
    features, labels = clusters(100, 0, 1.0)
    fresh, _ = clusters(300, 1, 1.0)
    torch.manual_seed(1)
    first = LinearProbe(features, [labels], 5, STEPS).predict(fresh)[0]
    torch.manual_seed(2)
    assert torch.equal(first, LinearProbe(features, [labels], 5, STEPS).predict(fresh)[0])


def test_one_step_is_one_step_of_adam():
    """From zero, Adam moves every weight by the rate, against the sign of its gradient."""
    features, labels = clusters(50, seed=1, spread=0.1)
    (head,) = [v for k, v in LinearProbe(features, [labels], 5, 1).state().items() if "head" in k]
    standard = (features - features.mean(dim=0)) / features.std(dim=0)
    inputs = torch.cat([standard, torch.ones(50, 1)], dim=1)
    gradient = inputs.T @ (0.2 - torch.eye(5)[labels])
    moved = gradient.abs() > 1e-3
    torch.testing.assert_close(head[moved], -0.05 * gradient.sign()[moved], rtol=1e-4, atol=0)
