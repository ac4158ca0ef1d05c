"""The cut of a network into processes and machines, against cuts counted by hand."""

import itertools
import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.config import Named
from sheafnet.runtime.placement import apportion, crossing, place
from sheafnet.topology import Edge, Node, Topology


def network(graph: nx.Graph, dims: dict[tuple[int, int], int] | None = None) -> Topology:
    nodes = tuple(Node(k, f"n{k}", None, Named(name="mlp"), 64) for k in range(len(graph)))
    pairs = sorted(tuple(sorted(pair)) for pair in graph.edges)
    return Topology(
        "t", nodes, tuple(Edge(k, *p, (dims or {}).get(p, 1)) for k, p in enumerate(pairs))
    )


def flat(placed: list[list[list[int]]]) -> list[list[int]]:
    return [host for machine in placed for host in machine]


def cut_edges(graph: nx.Graph, parts: list[list[int]]) -> int:
    """Counted edge by edge, apart from the program's own count."""
    return sum(not any(a in part and b in part for part in parts) for a, b in graph.edges)


def shuffled_grid() -> nx.Graph:
    """8 x 8, its nodes numbered at random."""
    grid = nx.grid_2d_graph(8, 8)
    numbers = list(range(64))
    random.Random(1).shuffle(numbers)
    return nx.relabel_nodes(grid, dict(zip(sorted(grid), numbers, strict=True)))


@pytest.mark.parametrize("nodes", [6, 9, 20, 101])
def test_a_ring_in_two_is_cut_twice(nodes: int) -> None:
    ring = nx.cycle_graph(nodes)
    assert cut_edges(ring, flat(place(network(ring), [2]))) == 2


def test_a_grid_in_four_is_cut_as_into_quadrants() -> None:
    """Quadrants of 4 x 4 cut 8 edges along either middle line; consecutive numbers cut 5 times
    as many once the nodes are numbered at random."""
    grid = shuffled_grid()
    cut = cut_edges(grid, flat(place(network(grid), [4])))
    consecutive = [list(range(k, k + 16)) for k in range(0, 64, 16)]
    assert cut <= 20
    assert cut_edges(grid, consecutive) > 4 * cut


def test_machines_are_cut_before_hosts() -> None:
    """Halves of an 8 x 8 grid cut 8 edges; the hosts of a machine lie inside its half."""
    grid = shuffled_grid()
    placed = place(network(grid), [2, 2])
    halves = [sorted(itertools.chain(*machine)) for machine in placed]
    assert [len(half) for half in halves] == [32, 32]
    assert cut_edges(grid, halves) <= 10
    assert cut_edges(grid, flat(placed)) <= 20


def test_machines_get_nodes_in_proportion_to_their_hosts() -> None:
    placed = place(network(nx.cycle_graph(40)), [3, 0, 1])
    assert [sum(map(len, machine)) for machine in placed] == [30, 0, 10]
    assert [len(machine) for machine in placed] == [3, 0, 1]


def test_wide_comparison_spaces_stay_inside_a_process() -> None:
    """A ring of four: one cut of two edges weighs 2, the other 128."""
    ring = nx.cycle_graph(4)
    dims = {(0, 1): 1, (1, 2): 64, (2, 3): 1, (0, 3): 64}
    opened = network(ring, dims)
    assert place(opened, [2]) == [[[0, 3], [1, 2]]]
    assert crossing(opened, [[0, 3], [1, 2]]) == 2
    assert crossing(opened, [[0, 1], [2, 3]]) == 128


@st.composite
def connected(draw: st.DrawFn) -> nx.Graph:
    """A random tree and some more edges."""
    nodes = draw(st.integers(2, 40))
    graph = nx.empty_graph(nodes)
    for k in range(1, nodes):
        graph.add_edge(k, draw(st.integers(0, k - 1)))
    more = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    graph.add_edges_from((a, b) for a, b in draw(st.lists(more, max_size=60)) if a != b)
    return graph


@settings(deadline=None, max_examples=200)
@given(connected(), st.data())
def test_every_node_once_in_parts_as_equal_as_can_be(graph: nx.Graph, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, len(graph)))
    cores = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    hosts = apportion(total, cores)
    opened = network(graph)
    placed = place(opened, hosts)
    assert [len(machine) for machine in placed] == hosts
    parts = flat(placed)
    assert sorted(itertools.chain(*parts)) == list(range(len(graph)))
    assert {len(part) for part in parts} <= {len(graph) // total, -(-len(graph) // total)}
    assert all(part == sorted(part) for part in parts)
    assert crossing(opened, parts) == cut_edges(graph, parts)
    assert place(opened, hosts) == placed


@given(st.integers(0, 200), st.lists(st.integers(1, 64), min_size=1, max_size=6))
def test_shares_are_within_one_of_the_proportion(count: int, weights: list[int]) -> None:
    dealt = apportion(count, weights)
    assert sum(dealt) == count
    for share, weight in zip(dealt, weights, strict=True):
        assert abs(share - count * weight / sum(weights)) < 1


def test_shares_by_hand() -> None:
    assert apportion(6, [2, 4]) == [2, 4]
    assert apportion(5, [2, 2]) == [3, 2]  # a tie goes to the first
    assert apportion(2, [1, 8, 1]) == [0, 2, 0]
