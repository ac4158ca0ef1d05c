from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sheafnet.sheaf.estimators import ESTIMATORS, Moments, estimate

torch.set_num_threads(1)

TINY = 1e-12
"""A strength that is as good as no regularization in float64."""


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def gathered(h: Any, received: Sequence[Any]) -> Moments:
    """The moments of one batch in float64."""
    moments = Moments(h.shape[1], [p.shape[1] for p in received])
    moments.update(torch.from_numpy(h), [torch.from_numpy(p) for p in received])
    return moments


def applied(affine: tuple[Tensor, Tensor], p: Any) -> Any:
    weight, offset = affine
    return p @ weight.numpy().T + offset.numpy()


def least_squares(h: Any, p: Any, weights: Any, rho: float) -> tuple[Any, Any]:
    """Weighted ridge with a free offset, as lstsq of an augmented system: weight and offset."""
    weights = weights / weights.sum()
    mean_h, mean_p = weights @ h, weights @ p
    root = np.sqrt(weights)[:, None]
    design = np.vstack([root * (p - mean_p), np.sqrt(rho) * np.eye(p.shape[1])])
    target = np.vstack([root * (h - mean_h), np.zeros((p.shape[1], h.shape[1]))])
    weight = np.linalg.lstsq(design, target, rcond=None)[0].T
    return weight, mean_h - weight @ mean_p


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.5, 0.98]),
    st.sampled_from([1e-9, 1e-3, 1.0, 50.0]),
)
def test_ridge_is_weighted_least_squares_over_all_batches(seed, batches, decay, strength):
    random = rng(seed)
    moments = Moments(3, [2, 1, 2], decay)
    mixing = random.standard_normal((5, 3))
    rows, weights = [], []
    for age in reversed(range(batches)):
        p = random.standard_normal((11, 5)) * [1, 2, 0.3, 1, 1] + [4, 0, 1, 0, -2]
        h = p @ mixing + 0.5 * random.standard_normal((11, 3)) + 1
        moments.update(torch.from_numpy(h), [torch.from_numpy(p[:, s]) for s in SLICES])
        rows.append((h, p))
        weights += [decay**age] * 11
    h, p = (np.vstack(part) for part in zip(*rows, strict=True))
    shares = np.array(weights) / sum(weights)
    assert np.allclose(moments.mean_section.numpy(), shares @ h, atol=1e-5)
    for answered in ([0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2]):
        columns = np.concatenate([np.arange(5)[SLICES[k]] for k in answered])
        chosen = p[:, columns]
        variance = shares @ (chosen - shares @ chosen) ** 2
        expected = least_squares(h, chosen, shares, strength * variance.mean())
        weight, offset = moments.ridge(answered, strength)
        assert weight.shape == (3, len(columns))
        assert np.allclose(weight.numpy(), expected[0], atol=1e-4)
        assert np.allclose(offset.numpy(), expected[1], atol=1e-4)


SLICES = (slice(0, 2), slice(2, 3), slice(3, 5))


def test_half_a_batch_of_decay_by_hand():
    # Decay 1/2 over three batches of one row: weights 1 : 2 : 4.
    moments = Moments(1, [1], decay=0.5)
    assert moments.empty
    assert moments.mean_section.tolist() == [0.0]
    for value in (7.0, 0.0, 14.0):
        moments.update(torch.tensor([[value]]), [torch.tensor([[2 * value]])])
    assert not moments.empty
    assert float(moments.mean_section) == pytest.approx((7 + 0 + 4 * 14) / 7)
    weight, offset = moments.ridge([0], TINY)
    assert float(weight) == pytest.approx(0.5)
    assert float(offset) == pytest.approx(0.0, abs=1e-5)


def test_without_noise_ridge_recovers_the_sections():
    random = rng(0)
    p, unrelated = random.standard_normal((60, 4)) + 3, random.standard_normal((60, 2))
    h = p @ random.standard_normal((4, 6)) - 5
    moments = gathered(h, [p, unrelated])
    fresh = random.standard_normal((9, 4))
    solution, *_ = np.linalg.lstsq(np.hstack([p, np.ones((60, 1))]), h, rcond=None)
    expected = np.hstack([fresh, np.ones((9, 1))]) @ solution
    assert np.allclose(applied(moments.ridge([0], TINY), fresh), expected, atol=1e-4)
    both = np.hstack([fresh, random.standard_normal((9, 2))])
    assert np.allclose(applied(moments.ridge([0, 1], TINY), both), expected, atol=1e-4)
    alone = applied(moments.ridge([1], TINY), unrelated)
    assert ((alone - h) ** 2).sum() > 0.8 * ((h - h.mean(0)) ** 2).sum()


def test_two_halves_make_the_whole():
    random = rng(1)
    z = random.standard_normal((80, 4))
    h = z @ random.standard_normal((4, 5))
    moments = gathered(h, [z[:, :2], z[:, 2:]])
    whole = estimated("ridge", moments, {0: z[:, :2], 1: z[:, 2:]}, 80)
    assert np.allclose(whole, h, atol=1e-4)
    for k, half in ((0, z[:, :2]), (1, z[:, 2:])):
        assert not np.allclose(estimated("ridge", moments, {k: half}, 80), h, atol=0.5)


def test_any_strength_shrinks_towards_the_mean():
    random = rng(2)
    p = random.standard_normal((50, 3))
    h = p @ random.standard_normal((3, 2)) + 4
    moments = gathered(h, [p])
    sizes = [float(moments.ridge([0], s)[0].norm()) for s in (TINY, 1e-2, 1.0, 1e2, 1e12)]
    assert sizes == sorted(sizes, reverse=True)
    weight, offset = moments.ridge([0], 1e12)
    assert np.allclose(weight, 0, atol=1e-9)
    assert np.allclose(offset, h.mean(0), atol=1e-5)


def test_the_scale_of_projections_does_not_matter():
    # The strength is relative to their variance.
    random = rng(3)
    p = random.standard_normal((50, 3))
    h = p @ random.standard_normal((3, 2)) + random.standard_normal((50, 2))
    small, large = (
        estimated("ridge", gathered(h, [s * p]), {0: s * p}, 50, 0.1) for s in (1e-3, 1e3)
    )
    assert np.allclose(small, large, atol=1e-4)


def test_a_new_batch_changes_the_answer():
    random = rng(4)
    p = random.standard_normal((40, 2))
    moments = gathered(p @ np.array([[1.0, 0.0], [0.0, 1.0]]), [p])
    first = moments.ridge([0], TINY)[0].clone()
    for _ in range(600):  # the weight of the first batch falls to 0.98**600
        moments.update(torch.from_numpy(-2 * p), [torch.from_numpy(p)])
    assert np.allclose(first, np.eye(2), atol=1e-5)
    assert np.allclose(moments.ridge([0], TINY)[0], -2 * np.eye(2), atol=1e-3)


def test_constant_projections_tell_nothing():
    h = rng(5).standard_normal((50, 2))
    moments = gathered(h, [np.full((50, 3), 0.75)])
    guess = estimated("ridge", moments, {0: np.full((4, 3), 0.75)}, 4, 1e-3)
    assert np.allclose(guess, h.mean(0), atol=1e-4)


# The estimators.


def estimated(
    name: str,
    moments: Moments,
    answers: dict[int, Any],
    rows: int,
    strength: float = TINY,
    here: dict[int, Any] | None = None,
    duals: Sequence[tuple[Tensor, Tensor]] = (),
) -> Any:
    """The estimate in numpy; all rows are answered unless `here` says which."""
    given_ = {
        k: (
            torch.ones(rows, dtype=torch.bool) if here is None else torch.tensor(here[k]),
            torch.from_numpy(np.asarray(p, np.float32)),
        )
        for k, p in answers.items()
    }
    result = estimate(name, given_, rows, moments, duals, strength)
    assert result.dtype == torch.float32
    assert result.shape == (rows, len(moments.mean_section))
    return result.numpy()


@pytest.fixture
def three() -> tuple[Moments, Any, list[Any]]:
    """Moments of a node with three neighbours, and one batch of h and p."""
    random = rng(6)
    z = random.standard_normal((200, 6))
    h = z @ random.standard_normal((6, 4)) + 2
    received = [z[:, :2], z[:, 2:5] + 0.3 * random.standard_normal((200, 3)), z[:, 5:]]
    return gathered(h, received), h, received


def test_the_mean_by_hand():
    moments = Moments(2, [1, 2])
    moments.update(torch.tensor([[7.0, 9.0]]), [torch.zeros(1, 1), torch.zeros(1, 2)])
    duals = [
        (torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 1.0])),
        (torch.tensor([[1.0, 1.0], [0.0, -1.0]]), torch.tensor([10.0, 0.0])),
    ]
    answers = {1: [[1.0, 2.0], [0.0, 5.0]], 0: [[3.0], [4.0]]}
    here = {0: [True, False, True, False], 1: [True, True, False, False]}
    result = estimated("mean", moments, answers, 4, here=here, duals=duals)
    # Row 0: ((3, 7) + (13, -2)) / 2. Row 1: (15, -5). Row 2: (4, 9). Row 3: nobody, the mean of h.
    assert result.tolist() == [[8.0, 2.5], [15.0, -5.0], [4.0, 9.0], [7.0, 9.0]]


def test_the_baselines_look_at_no_answer(three):
    moments, h, received = three
    answers = dict(enumerate(received))
    assert not estimated("zero", moments, answers, 200).any()
    constant = estimated("train-mean", moments, answers, 200)
    assert np.allclose(constant, np.tile(h.mean(0), (200, 1)), atol=1e-5)


@pytest.mark.parametrize("name", ["mean", "ridge", "train-mean"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_without_any_neighbour_the_train_mean_remains(three, name, rows):
    moments, h, _ = three
    expected = np.tile(h.mean(0), (rows, 1))
    assert np.allclose(estimated(name, moments, {}, rows), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mean", "ridge"])
def test_a_neighbour_that_answers_no_row_changes_nothing(three, name):
    moments, h, _ = three
    duals = [moments.ridge([k], 1.0) for k in range(3)]
    here = {1: [False] * 4}
    result = estimated(name, moments, {1: np.zeros((0, 3))}, 4, here=here, duals=duals)
    assert np.allclose(result, np.tile(h.mean(0), (4, 1)), atol=1e-5)
    assert estimated(name, moments, {1: np.zeros((0, 3))}, 0, duals=duals).shape == (0, 4)


@pytest.mark.parametrize("name", ["mean", "ridge"])
def test_a_mixture_of_patterns_is_each_row_on_its_own(three, name):
    moments, _, received = three
    duals = [moments.ridge([k], 0.1) for k in range(3)]
    rows = 40
    random = rng(7)
    here = {k: random.random(rows) < 0.5 for k in range(3)}
    assert len({tuple(here[k][b] for k in range(3)) for b in range(rows)}) == 8
    answers = {k: received[k][:rows][here[k]] for k in (2, 0, 1)}
    together = estimated(name, moments, answers, rows, 0.1, here, duals)
    for b in range(rows):
        mine = {k: received[k][b : b + 1] for k in range(3) if here[k][b]}
        assert np.allclose(
            together[b], estimated(name, moments, mine, 1, 0.1, duals=duals)[0], atol=1e-5
        )


@pytest.mark.parametrize("name", ["mean", "ridge"])
def test_the_order_in_which_answers_came_changes_no_bit(name):
    random = rng(8)
    received = [random.standard_normal((64, 3)).astype(np.float32) for _ in range(3)]
    h = random.standard_normal((64, 5)).astype(np.float32)
    results = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        moments = gathered(h, received)
        duals = [moments.ridge([k], 0.1) for k in range(3)]
        answers = {k: received[k] for k in order}
        results.add(estimated(name, moments, answers, 64, 0.1, duals=duals).tobytes())
    assert len(results) == 1


def test_every_subset_helps_and_the_whole_helps_most(three):
    moments, h, received = three
    variance = ((h - h.mean(0)) ** 2).sum()

    def nmse(*positions: int) -> float:
        guess = estimated("ridge", moments, {k: received[k] for k in positions}, 200)
        return float(((guess - h) ** 2).sum() / variance)

    singles = [nmse(k) for k in range(3)]
    assert max(singles) < 1
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert nmse(*pair) < min(singles[k] for k in pair)
        assert nmse(0, 1, 2) < nmse(*pair)
    duals = [moments.ridge([k], TINY) for k in range(3)]
    mean = estimated("mean", moments, dict(enumerate(received)), 200, duals=duals)
    assert nmse(0, 1, 2) < ((mean - h) ** 2).sum() / variance


def test_before_any_training_every_estimate_is_zero():
    moments = Moments(3, [2])
    for name in ("ridge", "train-mean", "zero"):
        assert not estimated(name, moments, {0: np.ones((4, 2))}, 4, 1e-3).any()


def test_an_unknown_estimator_is_refused(three):
    moments, *_ = three
    with pytest.raises(ValueError, match=r"no estimator is called 'magic'; known: mean, ridge"):
        estimated("magic", moments, {}, 3)
    assert ESTIMATORS == ("mean", "ridge", "zero", "train-mean")
