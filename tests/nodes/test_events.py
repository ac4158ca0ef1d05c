import math

import numpy as np
import pytest

from sheafnet.config import InferenceConfig, Named
from sheafnet.nodes.events import inference_events, missing_rows
from sheafnet.topology import Node


def node(index: int, name: str | None = None) -> Node:
    return Node(index, name or f"n{index}", None, Named(name="mlp"), 8)


def drawn(probability: float, index: int = 0, round_: int = 0, seed: int = 0, rows: int = 128):
    inference = InferenceConfig(missing_probability=probability, batch_size=rows)
    return missing_rows(inference, seed, node(index), round_)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_of_missing_rows_is_the_probability(probability):
    masks = np.stack([drawn(probability, i, r) for i in range(10) for r in range(20)])
    assert masks.shape == (200, 128)
    assert masks.dtype == np.bool_
    # Five standard deviations of a binomial share.
    bound = 5 * math.sqrt(probability * (1 - probability) / masks.size)
    assert abs(masks.mean() - probability) < bound
    # Rounds and nodes are no copies of each other: pairs agree as often as independent draws.
    agreement = (masks[:-1] == masks[1:]).mean()
    assert agreement == pytest.approx(probability**2 + (1 - probability) ** 2, abs=0.03)


def test_nobody_misses_at_probability_0_and_everybody_at_1():
    assert not any(drawn(0.0, i, r).any() for i in range(4) for r in range(4))
    assert all(drawn(1.0, i, r).all() for i in range(4) for r in range(4))


def test_a_mask_depends_on_seed_node_and_round_alone():
    asked = [(i, r) for i in range(4) for r in range(4)]
    forward = {key: drawn(0.5, *key) for key in asked}
    backward = {key: drawn(0.5, *key) for key in reversed(asked)}
    assert all(np.array_equal(forward[key], backward[key]) for key in asked)
    assert len({forward[key].tobytes() for key in asked}) == len(asked)
    assert not np.array_equal(drawn(0.5, 1, 1, seed=0), drawn(0.5, 1, 1, seed=1))
    renamed = missing_rows(InferenceConfig(missing_probability=0.5), 0, node(1, "other"), 2)
    assert np.array_equal(renamed, forward[1, 2])


def test_who_misses_more_misses_the_same_and_more():
    few, many = drawn(0.2), drawn(0.6)
    assert (many | ~few).all()
    assert many.sum() > few.sum() > 0


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_fixed_pattern_overrules_the_probability(probability):
    inference = InferenceConfig(
        missing_probability=probability, missing_nodes=("n1", "n3"), batch_size=7
    )
    for round_ in (0, 5):
        masks = [missing_rows(inference, 3, node(i), round_) for i in range(4)]
        assert [mask.tolist() for mask in masks] == [
            [False] * 7,
            [True] * 7,
            [False] * 7,
            [True] * 7,
        ]
    nobody = InferenceConfig(missing_probability=1.0, missing_nodes=(), batch_size=7)
    assert not missing_rows(nobody, 3, node(1), 0).any()


def test_events_go_through_the_split_over_and_over():
    inference = InferenceConfig(batch_size=4)
    rounds = [inference_events(inference, r, 10).tolist() for r in range(5)]
    assert rounds == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]
    assert inference_events(inference, 0, 4).tolist() == [0, 1, 2, 3]
    assert inference_events(inference, 10**9, 7).dtype == np.int64
    assert inference_events(inference, 10**9, 7).tolist() == [(4 * 10**9 + k) % 7 for k in range(4)]
