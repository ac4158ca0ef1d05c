import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sheafnet.runtime.shortfalls import contrast_at_chance
from sheafnet.sheaf.losses import contrastive_loss, disagreement, reconstruction_loss

torch.set_num_threads(1)


def batch(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(
        rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def info_nce(own: Tensor, other: Tensor, temperature: float) -> float:
    """The formula of METHOD section 2 in loops, both directions averaged."""
    a, b = own.tolist(), other.tolist()
    total = 0.0
    for queries, keys in ((a, b), (b, a)):
        for row, query in enumerate(queries):
            scores = [math.exp(cosine(query, key) / temperature) for key in keys]
            total -= math.log(scores[row] / sum(scores))
    return total / (2 * len(a))


def squared(a: Tensor, b: Tensor) -> float:
    rows = zip(a.tolist(), b.tolist(), strict=True)
    return sum(sum((x - y) ** 2 for x, y in zip(*row, strict=True)) for row in rows) / len(a)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(0, 10**6))


@settings(deadline=None, max_examples=50)
@given(shapes, st.floats(0.05, 5.0))
def test_losses_are_the_formulas_in_loops(shape, temperature):
    rows, dim, seed = shape
    own, other = batch(rows, dim, seed), batch(rows, dim, seed + 1)
    assert float(contrastive_loss(own, other, temperature)) == pytest.approx(
        info_nce(own, other, temperature), abs=1e-9
    )
    assert float(disagreement(own, other)) == pytest.approx(squared(own, other))
    assert float(reconstruction_loss(own, other)) == pytest.approx(squared(own, other))


def test_memory_is_further_negatives_of_the_own_rows():
    own, other, memory = batch(4, 3, 1), batch(4, 3, 2), batch(6, 3, 3)
    a, b, more = own.tolist(), other.tolist(), memory.tolist()
    total = 0.0
    for row in range(4):
        positive = math.exp(cosine(a[row], b[row]) / 0.3)
        outward = sum(math.exp(cosine(a[row], key) / 0.3) for key in [*b, *more])
        inward = sum(math.exp(cosine(b[row], key) / 0.3) for key in a)
        total -= math.log(positive / outward) + math.log(positive / inward)
    found = contrastive_loss(own, other, 0.3, memory)
    assert float(found) == pytest.approx(total / 8, abs=1e-9)
    empty = memory[:0]
    assert float(contrastive_loss(own, other, 0.3, empty)) == float(
        contrastive_loss(own, other, 0.3)
    )


def test_contrast_at_chance_is_that_of_projections_that_are_all_one():
    own, rounds, size = torch.ones(8, 3), 3, 8
    found = contrastive_loss(own, own, 0.1, torch.ones(rounds * size, 3))
    assert float(found) == pytest.approx(contrast_at_chance(size, rounds), abs=1e-6)


def test_squares_are_summed_over_dimensions_and_averaged_over_events():
    own = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    other = torch.tensor([[0.0, 0.0], [3.0, -1.0]])
    # (1 + 4 + 9 + 1) / 2 events.
    assert float(disagreement(own, other)) == 7.5
    assert float(reconstruction_loss(own, other)) == 7.5


@pytest.mark.parametrize("rows", [1, 2, 128])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_constant_projections_score_log_of_the_batch(rows, temperature):
    constant = torch.tensor([[0.3, -1.2, 2.0]]).repeat(rows, 1)
    loss = float(contrastive_loss(constant, 2 * constant, temperature))
    assert loss == pytest.approx(math.log(rows), abs=1e-5)
    dead = float(contrastive_loss(torch.zeros(rows, 3), constant, temperature))
    assert dead == pytest.approx(math.log(rows), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_orthonormal_events_have_a_closed_form(temperature):
    # Similarity 1 to the partner and 0 to the B - 1 others.
    aligned = math.log(1 + 7 * math.exp(-1 / temperature))
    eye = torch.eye(8, dtype=torch.float64)
    assert float(contrastive_loss(3 * eye, eye, temperature)) == pytest.approx(aligned)
    # Every event mistaken for the next: 0 to the partner, 1 to one other, 0 to B - 2.
    mistaken = math.log(7 + math.exp(1 / temperature))
    assert float(contrastive_loss(eye, eye.roll(1, 0), temperature)) == pytest.approx(mistaken)


def test_each_direction_has_its_own_denominator():
    # Both queries of `own` are the same vector, so that one direction cannot tell them apart.
    own = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    forward = 0.5 * (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1)))
    backward = math.log(2)
    assert float(contrastive_loss(own, other, 1.0)) == pytest.approx(0.5 * (forward + backward))


@settings(deadline=None, max_examples=30)
@given(shapes, st.floats(1e-3, 1e3))
def test_symmetries(shape, scale):
    rows, dim, seed = shape
    own, other = batch(rows, dim, seed), batch(rows, dim, seed + 1)
    loss = contrastive_loss(own, other, 0.2)
    assert torch.allclose(loss, contrastive_loss(other, own, 0.2))
    assert torch.allclose(disagreement(own, other), disagreement(other, own))
    # Cosines do not see lengths, and no loss sees the order of the events or a common rotation.
    assert torch.allclose(loss, contrastive_loss(scale * own, other, 0.2))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(batch(dim, dim, seed + 2))[0]
    for change in (lambda p: p[order], lambda p: p @ turn):
        assert torch.allclose(loss, contrastive_loss(change(own), change(other), 0.2))
        assert torch.allclose(disagreement(own, other), disagreement(change(own), change(other)))


def test_losses_are_zero_exactly_where_nothing_is_wrong():
    own = batch(5, 3, 0)
    assert float(disagreement(own, own.clone())) == 0.0
    assert float(reconstruction_loss(own, own.clone())) == 0.0


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gradients_against_finite_differences(temperature):
    own, other = batch(5, 3, 0).requires_grad_(), batch(5, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: contrastive_loss(a, b, temperature), (own, other))
    assert torch.autograd.gradcheck(disagreement, (own, other))
    assert torch.autograd.gradcheck(reconstruction_loss, (own, other))


def test_gradients_stay_finite_at_a_dead_projection():
    own = torch.zeros(4, 3, requires_grad=True)
    contrastive_loss(own, torch.ones(4, 3), 0.1).backward()
    assert torch.isfinite(own.grad).all()
