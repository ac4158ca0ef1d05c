import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sheafnet.nodes.alignment import (
    RECALL_AT,
    accuracy,
    few_shot,
    nearest_prototype,
    prototypes,
    ranks,
    recalls,
)

torch.set_num_threads(1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / max(1e-12, math.hypot(*a)) / max(1e-12, math.hypot(*b))


def looped_ranks(queries: Tensor, gallery: Tensor) -> list[int]:
    """One more than the number of other rows that are at least as similar as the partner."""
    found = []
    for b, query in enumerate(queries.tolist()):
        scores = [cosine(query, row) for row in gallery.tolist()]
        rivals = [s for j, s in enumerate(scores) if j != b]
        found.append(1 + sum(s > scores[b] - 1e-12 for s in rivals))
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 25), st.integers(2, 6), st.integers(0, 10**6))
def test_ranks_are_the_loops(rows, dim, seed):
    queries, gallery = (
        randn(rows, dim, seed=seed).double(),
        randn(rows, dim, seed=seed + 1).double(),
    )
    assert ranks(queries, gallery).tolist() == looped_ranks(queries, gallery)


def test_ranks_by_hand():
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 2.0]])
    gallery = torch.tensor([[5.0, 1.0], [0.0, 1.0], [-1.0, 1.0]])
    # Query 0 prefers row 0; query 1 row 0 over its partner; query 2 rows 1, 2, 0 in turn.
    assert ranks(queries, gallery).tolist() == [1, 2, 2]
    assert recalls(queries, gallery) == {1: pytest.approx(1 / 3), 5: 1.0, 10: 1.0}


def test_duplicates_in_the_gallery_count_against_the_partner():
    gallery = randn(12, 5)
    gallery[[3, 7]] = gallery[1].clone()
    found = ranks(gallery.clone(), gallery).tolist()
    assert found == [3 if b in (1, 3, 7) else 1 for b in range(12)]
    assert found == looped_ranks(gallery, gallery)


@pytest.mark.parametrize("rows", [11, 100, 1003, 2100])
@pytest.mark.parametrize("dim", [1, 3, 32])
def test_constant_projections_do_not_score(rows, dim):
    constant = randn(1, dim).repeat(rows, 1)
    nothing = dict.fromkeys(RECALL_AT, 0.0)
    assert recalls(constant, constant) == nothing
    assert recalls(randn(rows, dim, seed=1), constant) == nothing
    assert recalls(torch.zeros(rows, dim), randn(rows, dim)) == nothing


def test_not_a_number_does_not_score():
    broken = torch.full((20, 4), float("nan"))
    for queries, gallery in ((broken, randn(20, 4)), (randn(20, 4), broken), (broken, broken)):
        assert ranks(queries, gallery).tolist() == [20] * 20


def test_ranks_hold_over_more_rows_than_are_computed_at_once():
    gallery = randn(2500, 16)
    assert set(ranks(3 * gallery, gallery).tolist()) == {1}
    assert recalls(gallery.roll(1, 0), gallery)[1] == 0.0
    # Rank 2 where the partner is second to one copy of the query.
    queries = gallery.clone()
    queries[[5, 2400]] = gallery[[2400, 5]]
    found = ranks(queries, gallery)
    assert min(found[5], found[2400]) > 1
    assert int((found == 1).sum()) == 2498


def test_recall_of_unrelated_projections_is_chance():
    found = recalls(randn(2000, 8, seed=2), randn(2000, 8, seed=3))
    for k, value in found.items():
        # Five standard deviations of a binomial share.
        assert abs(value - k / 2000) < 5 * math.sqrt(k / 2000 / 2000)


def test_prototypes_are_the_mean_directions():
    projections = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [3.0, 4.0]])
    labels = torch.tensor([4, 4, 0, 2])
    means, present = prototypes(projections, labels, 6)
    assert present.tolist() == [True, False, True, False, True, False]
    assert torch.allclose(means, torch.tensor([[-1.0, 0.0], [0.6, 0.8], [0.5, 0.5]]))


def test_the_nearest_prototype_is_named_by_its_class():
    means = torch.tensor([[-1.0, 0.0], [0.6, 0.8], [9.0, 0.0]])
    present = torch.tensor([True, False, True, False, True])
    queries = torch.tensor([[-3.0, 1.0], [1.0, 1.5], [1.0, 0.1]])
    # By cosine, whatever the length of a prototype.
    assert nearest_prototype(queries, means, present).tolist() == [0, 2, 4]


def test_accuracy_is_the_share_of_equals():
    assert accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 0])) == 0.5


def clusters(rows: int, seed: int, spread: float = 0.05) -> tuple[Tensor, Tensor]:
    """Rows of 4 classes around the axes of R^4."""
    labels = torch.arange(rows) % 4
    return torch.eye(4)[labels] + spread * randn(rows, 4, seed=seed), labels


def shot(shots: int, draws: int, seed: int, spread: float = 0.05, support: int = 40) -> float:
    known, known_labels = clusters(support, 0, spread)
    queries, labels = clusters(200, 1, spread)
    generator = torch.Generator().manual_seed(seed)
    return few_shot(known, known_labels, queries, labels, 4, shots, draws, generator)


def test_few_shots_of_separate_classes_are_enough():
    assert shot(1, 3, 0) == 1.0
    assert shot(5, 3, 0) == 1.0


def test_few_shot_is_its_generator_and_the_mean_of_its_draws():
    assert shot(1, 4, 7, 0.6) == shot(1, 4, 7, 0.6)
    assert shot(1, 4, 7, 0.6) != shot(1, 4, 8, 0.6)
    known, known_labels = clusters(40, 0, 0.6)
    queries, labels = clusters(200, 1, 0.6)
    generator = torch.Generator().manual_seed(7)
    each = [few_shot(known, known_labels, queries, labels, 4, 1, 1, generator) for _ in range(4)]
    assert len(set(each)) > 1
    assert shot(1, 4, 7, 0.6) == pytest.approx(sum(each) / 4)


def test_more_shots_help():
    assert shot(1, 20, 0, 0.5) < shot(3, 20, 0, 0.5) < shot(10, 20, 0, 0.5)


def test_more_shots_than_rows_take_all_rows():
    known, known_labels = clusters(20, 0, 0.6)
    queries, labels = clusters(200, 1, 0.6)
    guess = nearest_prototype(queries, *prototypes(known, known_labels, 4))
    expected = accuracy(guess, labels)
    for shots in (5, 6, 1000):
        assert shot(shots, 3, shots, 0.6, support=20) == pytest.approx(expected)


def test_few_shot_without_examples_of_a_class_never_names_it():
    known, known_labels = clusters(40, 0)
    seen = known_labels != 3
    queries, labels = clusters(200, 1)
    generator = torch.Generator().manual_seed(0)
    found = few_shot(known[seen], known_labels[seen], queries, labels, 4, 2, 2, generator)
    assert found == 0.75
