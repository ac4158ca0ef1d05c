"""The harmonic step against least squares, and its promise that it converges on any sheaf."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sheafnet.sheaf.diffusion import DAMPING, Harmonic

Heard = dict[int, tuple[Tensor, Tensor]]


def random(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def told(*projections: Tensor | None) -> Heard:
    """Of every row, by each neighbour that is not None."""
    return {
        position: (torch.ones(len(p), dtype=torch.bool), p)
        for position, p in enumerate(projections)
        if p is not None
    }


def steps(harmonic: Harmonic, section: Tensor, heard: Heard, count: int) -> Tensor:
    for _ in range(count):
        section = harmonic.step(section, heard)
    return section


def test_a_step_by_hand() -> None:
    """Two numbers, seen as they are by one edge and doubled by the other: D = 1 + 4 = 5.

    A tenth of it, the only eigenvalue, comes on top.
    """
    harmonic = Harmonic([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
    both = told(torch.tensor([[3.0]]), torch.tensor([[10.0]]))
    # From 1: the pull is (3 - 1) + 2 (10 - 2) = 18.
    moved = harmonic.step(torch.tensor([[1.0]]), both)
    assert moved.item() == pytest.approx(1 + DAMPING * 18 / 5.5)
    # By the first edge alone: D = 1 and the pull is 2.
    moved = harmonic.step(torch.tensor([[1.0]]), told(torch.tensor([[3.0]])))
    assert moved.item() == pytest.approx(1 + DAMPING * 2 / 1.1)


def test_rows_are_moved_by_the_edges_that_say_something_of_them() -> None:
    maps = [random(1, 2, 3), random(2, 3, 3)]
    start, first, second = random(3, 4, 3), random(4, 2, 2), random(5, 2, 3)
    heard = {
        0: (torch.tensor([True, True, False, False]), first),
        1: (torch.tensor([False, True, True, False]), second),
    }
    moved = Harmonic(maps).step(start, heard)
    alone = [
        told(first[:1], None),
        told(first[1:], second[:1]),
        told(None, second[1:]),
        told(None, None),
    ]
    for row, of_row in enumerate(alone):
        expected = Harmonic(maps).step(start[row : row + 1], of_row)
        assert torch.allclose(moved[row : row + 1], expected, atol=1e-6)
    assert torch.equal(moved[3], start[3])


@pytest.mark.parametrize("seed", range(5))
def test_among_known_neighbours_it_is_least_squares(seed: int) -> None:
    """5 equations in 4 unknowns; a step leaves 1 - omega mu / (mu + rho) of the error along an
    eigenvector of D with eigenvalue mu."""
    maps = [random(seed, 3, 4), random(seed + 100, 2, 4)]
    projections = [random(seed + 200, 6, 3), random(seed + 300, 6, 2)]
    stacked = np.vstack([m.numpy() for m in maps])
    right = np.hstack([p.numpy() for p in projections])
    expected = np.linalg.lstsq(stacked, right.T, rcond=None)[0].T
    start = random(seed + 400, 6, 4)
    mu, vectors = np.linalg.eigh(stacked.T @ stacked)
    shares = 1 - DAMPING * mu / (mu + 0.1 * mu[-1])
    before = (start.numpy() - expected) @ vectors
    for count in (1, 3, 300):
        left = steps(Harmonic(maps), start, told(*projections), count).numpy() - expected
        assert np.allclose(left @ vectors, before * shares**count, atol=1e-3)


def test_what_no_edge_sees_stays_as_it_starts() -> None:
    """2 equations in 4 unknowns: the solution nearest to the start."""
    weight, projection, start = random(1, 2, 4), random(2, 5, 2), random(3, 5, 4)
    found = steps(Harmonic([weight]), start, told(projection), 300).numpy()
    matrix, origin = weight.numpy(), start.numpy()
    nearest = origin + (projection.numpy() - origin @ matrix.T) @ np.linalg.pinv(matrix).T
    assert np.allclose(found, nearest, atol=1e-4)


@given(seed=st.integers(0, 10**6), dims=st.lists(st.integers(1, 4), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_energy_of_any_missing_neighbourhood_never_rises(seed: int, dims: list[int]) -> None:
    """Three nodes of a triangle, all missing, that hear each other's current projections."""
    edges = [(0, 1), (1, 2), (2, 0)]
    maps = {
        (node, e): random(seed + 7 * e + node, dim, 3)
        for e, dim in enumerate(dims)
        for node in edges[e]
    }
    incident = [[e for e in range(3) if node in edges[e]] for node in range(3)]
    nodes = [Harmonic([maps[node, e] for e in incident[node]]) for node in range(3)]
    sections = [random(seed + 50 + node, 2, 3) for node in range(3)]

    def energy() -> float:
        return sum(
            float((sections[i] @ maps[i, e].T - sections[j] @ maps[j, e].T).square().sum())
            for e, (i, j) in enumerate(edges)
        )

    energies = [energy()]
    for _ in range(30):
        heard = [
            told(
                *(
                    sections[other] @ maps[other, e].T
                    for e in incident[node]
                    for other in edges[e]
                    if other != node
                )
            )
            for node in range(3)
        ]
        sections = [nodes[n].step(sections[n], heard[n]) for n in range(3)]
        energies.append(energy())
    assert all(b <= a * (1 + 1e-4) + 1e-5 for a, b in pairwise(energies))
