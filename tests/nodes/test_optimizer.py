import subprocess
import sys

import pytest
import torch
from torch import Tensor

from sheafnet.config import TrainingConfig
from sheafnet.nodes.optimizer import Optimizer

torch.set_num_threads(1)

CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 3), (5,), (2, 2))
    ]


def loss(values: list[Tensor], step: int) -> Tensor:
    """Different at every step, and without the first parameter at every third."""
    first, vector, matrix = values
    total = (matrix @ matrix.T - step).cos().mean() + (vector.sin() * (step + 1)).sum()
    return total if step % 3 == 0 else total + (first.tanh() * vector[0]).sum()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rate", [1e-3, 0.05])
@pytest.mark.parametrize("name", CLASSES)
def test_steps_are_those_of_the_optimizer_class(name, rate, decay):
    training = TrainingConfig(optimizer=name, learning_rate=rate, weight_decay=decay)
    own, theirs = parameters(), parameters()
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    oracle = CLASSES[name](theirs, lr=rate, weight_decay=decay, **momentum)
    optimizer = Optimizer(own, training)
    for step in range(12):
        loss(own, step).backward()
        optimizer.step()
        oracle.zero_grad()
        loss(theirs, step).backward()
        oracle.step()
        for mine, other in zip(own, theirs, strict=True):
            assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_the_squared_norm_is_of_all_gradients_together():
    first, second, third = parameters()
    optimizer = Optimizer([first, second, third], TrainingConfig())
    first.grad, second.grad = torch.full((4, 3), 2.0), torch.arange(5.0)
    before = third.detach().clone()
    # 12 * 4 + (0 + 1 + 4 + 9 + 16).
    assert optimizer.step() == pytest.approx(78.0)
    assert first.grad is second.grad is third.grad is None
    assert torch.equal(third, before)


@pytest.mark.parametrize("name", CLASSES)
def test_a_step_without_gradients_moves_nothing(name):
    values = parameters()
    before = [value.detach().clone() for value in values]
    assert Optimizer(values, TrainingConfig(optimizer=name, weight_decay=0.5)).step() == 0.0
    assert all(torch.equal(a, b) for a, b in zip(values, before, strict=True))


def test_parameters_are_changed_in_place():
    (value,) = parameters()[:1]
    view = value.detach()
    optimizer = Optimizer([value], TrainingConfig(optimizer="sgd", learning_rate=0.5))
    start = view.clone()
    value.grad = torch.ones(4, 3)
    optimizer.step()
    assert torch.allclose(view, start - 0.5)
    value.grad = torch.ones(4, 3)
    optimizer.step()
    # The momentum carries 0.9 of the first step into the second.
    assert torch.allclose(view, start - 0.5 - 0.5 * 1.9)
    assert value.requires_grad
    assert value.is_leaf


def test_no_compiler_is_imported_for_a_step():
    code = (
        "import sys, torch\n"
        "from sheafnet.config import TrainingConfig\n"
        "from sheafnet.nodes.optimizer import Optimizer\n"
        "for name in ('adam', 'adamw', 'sgd'):\n"
        "    value = torch.ones(3, requires_grad=True)\n"
        "    value.square().sum().backward()\n"
        "    Optimizer([value], TrainingConfig(optimizer=name)).step()\n"
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", CLASSES)
def test_restriction_maps_have_a_rate_of_their_own(name):
    training = TrainingConfig(optimizer=name, learning_rate=0.02, restriction_rate=0.25)
    own, theirs = parameters(), parameters()
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    groups = [{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.005}]
    oracle = CLASSES[name](groups, lr=0.02, weight_decay=0.0, **momentum)
    optimizer = Optimizer(own[:2], training, own[2:])
    for step in range(12):
        loss(own, step).backward()
        optimizer.step()
        oracle.zero_grad()
        loss(theirs, step).backward()
        oracle.step()
        for mine, other in zip(own, theirs, strict=True):
            assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_at_rate_zero_restriction_maps_stay_and_their_gradient_counts():
    first, second, third = parameters()
    training = TrainingConfig(restriction_rate=0.0, weight_decay=0.1)
    optimizer = Optimizer([first, second], training, [third])
    before = [p.detach().clone() for p in (first, third)]
    first.grad, third.grad = torch.ones(4, 3), torch.full((2, 2), 2.0)
    assert optimizer.step() == pytest.approx(12 + 16)
    assert not torch.equal(first, before[0])
    assert torch.equal(third, before[1])
    assert third.grad is None
