from itertools import combinations
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.config import Config, GraphConfig
from sheafnet.errors import ConfigError
from sheafnet.graphs import generate_graph
from sheafnet.topology import Topology, build_topology
from tests.conftest import MakeConfig

RANDOM_KINDS = ("knn", "random-regular", "small-world")


def topology(**values: Any) -> Topology:
    return build_topology(Config.model_validate({"name": "t", "dataset": "synthetic", **values}))


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        topology(**values)
    return str(caught.value)


def generated(generator: str, nodes: int, **more: Any) -> Topology:
    return topology(graph={"generator": generator, "nodes": nodes, **more})


def pairs(built: Topology) -> set[tuple[int, int]]:
    assert all(edge.tail < edge.head for edge in built.edges)
    found = {(edge.tail, edge.head) for edge in built.edges}
    assert len(found) == len(built.edges)
    return found


# Generators.


def test_a_ring():
    assert pairs(generated("ring", 5)) == {(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)}


def test_a_complete_graph():
    assert pairs(generated("complete", 6)) == set(combinations(range(6), 2))
    assert pairs(generated("complete", 2)) == {(0, 1)}


def test_a_star_has_its_hub_first():
    assert pairs(generated("star", 5)) == {(0, 1), (0, 2), (0, 3), (0, 4)}


def test_a_line():
    assert pairs(generated("line", 4)) == {(0, 1), (1, 2), (2, 3)}


def test_a_grid_is_the_squarest_that_fits():
    built = pairs(generated("grid", 12))
    # 3 rows of 4: 3 * 3 horizontal edges and 2 * 4 vertical ones.
    horizontal = {(4 * r + c, 4 * r + c + 1) for r in range(3) for c in range(3)}
    vertical = {(4 * r + c, 4 * r + c + 4) for r in range(2) for c in range(4)}
    assert len(built) == 17
    assert built == horizontal | vertical


@pytest.mark.parametrize(
    ("nodes", "columns", "edges", "right_of_start"),
    [(12, 6, 16, 6), (12, 2, 16, 2), (12, 1, 11, 1), (12, 12, 11, None), (16, None, 24, 4)],
)
def test_the_width_of_a_grid(nodes, columns, edges, right_of_start):
    built = generated("grid", nodes, columns=columns)
    assert len(built.edges) == edges
    below = {1, right_of_start} - {None}
    assert {edge.other(0) for edge in built.incident(0)} == below


def test_a_prime_grid_would_be_a_line():
    assert "is a line" in refusal(graph={"generator": "grid", "nodes": 7})
    assert pairs(generated("grid", 7, columns=7)) == pairs(generated("line", 7))


@pytest.mark.parametrize(("nodes", "degree"), [(10, 3), (9, 4), (8, 7), (50, 3)])
def test_a_random_regular_graph(nodes, degree):
    graph = generate_graph(GraphConfig(generator="random-regular", nodes=nodes, degree=degree))
    assert {d for _, d in graph.degree} == {degree}
    assert nx.is_connected(graph)


def test_a_small_world_without_rewiring_is_a_ring_lattice():
    built = pairs(generated("small-world", 10, degree=4, rewire=0.0))
    lattice = {(i, (i + step) % 10) for i in range(10) for step in (1, 2)}
    assert built == {(min(pair), max(pair)) for pair in lattice}


@pytest.mark.parametrize("rewire", [0.1, 1.0])
def test_a_small_world_keeps_its_number_of_edges(rewire):
    built = generated("small-world", 20, degree=6, rewire=rewire, seed=4)
    assert len(built.edges) == 20 * 6 // 2
    assert pairs(built) != pairs(generated("small-world", 20, degree=6, rewire=0.0))


def test_the_probability_of_rewiring():
    lattice = pairs(generated("small-world", 200, degree=4, rewire=0.0))
    kept = {
        rewire: len(lattice & pairs(generated("small-world", 200, degree=4, rewire=rewire)))
        for rewire in (0.1, 0.5, 0.9)
    }
    # 400 edges, each kept with probability 1 - rewire (and rarely drawn anew): five deviations.
    for rewire, count in kept.items():
        assert abs(count - 400 * (1 - rewire)) < 5 * (400 * rewire * (1 - rewire)) ** 0.5 + 5


def test_nearest_neighbours_are_near():
    graph = generate_graph(GraphConfig(generator="knn", nodes=80, degree=6))
    degrees = [d for _, d in graph.degree]
    assert min(degrees) >= 6
    assert 80 * 6 / 2 <= graph.number_of_edges() <= 80 * 6
    # Neighbours in the plane are often neighbours of each other (0.5 and above); a random graph of
    # this density clusters at 0.09.
    assert nx.average_clustering(graph) > 0.4
    assert nx.is_connected(graph)


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_a_random_graph_is_its_seed(kind):
    drawn = [pairs(generated(kind, 20, degree=4, rewire=0.5, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("kind", ["knn", "small-world", "ring", "complete", "star", "grid", "line"])
@pytest.mark.parametrize("nodes", [6, 14, 40])
def test_every_generator_makes_a_connected_simple_graph(kind, nodes):
    built = generated(kind, nodes, prefix="cam")
    graph = nx.Graph(sorted(pairs(built)))
    assert sorted(graph) == list(range(nodes))
    assert nx.is_connected(graph)
    assert [node.id for node in built.nodes] == [f"cam{i}" for i in range(nodes)]
    assert [node.index for node in built.nodes] == list(range(nodes))


@pytest.mark.parametrize(
    ("graph", "start"),
    [
        ({"generator": "ring", "nodes": 2}, "graph.nodes = 2: a ring needs at least 3"),
        ({"generator": "star", "nodes": 1}, "graph.nodes = 1: a star needs at least 2"),
        (
            {"generator": "small-world", "nodes": 3},
            "graph.nodes = 3: a small-world needs at least 4",
        ),
        ({"generator": "knn", "nodes": 4, "degree": 4}, "graph.degree = 4: must be below"),
        ({"generator": "small-world", "nodes": 6, "degree": 8}, "graph.degree = 8: must be below"),
        (
            {"generator": "random-regular", "nodes": 5, "degree": 5},
            "graph.degree = 5: must be below",
        ),
        (
            {"generator": "random-regular", "nodes": 9, "degree": 3},
            "graph.degree = 3: nodes x degree must be even",
        ),
        ({"generator": "small-world", "nodes": 9, "degree": 3}, "graph.degree = 3: must be even"),
        ({"generator": "grid", "nodes": 12, "columns": 5}, "graph.columns = 5: a grid of 12"),
        ({"generator": "grid", "nodes": 12, "columns": 13}, "graph.columns = 13: a grid of 12"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(graph, start):
    assert refusal(graph=graph).startswith(f"t: {start}")


def test_a_graph_that_is_never_connected_is_given_up():
    # 200 points of the plane with two neighbours each: clusters, whatever the seed.
    message = refusal(graph={"generator": "knn", "nodes": 200, "degree": 2})
    assert message.startswith(
        "t: graph: no connected knn graph of 200 nodes and degree 2 was found"
    )
    assert "raise graph.degree" in message


def test_an_edge_has_the_temperature_that_is_listed_with_it() -> None:
    found = topology(
        nodes=["a", "b", "c"],
        edges=[
            {"between": ["c", "b"], "temperature": 0.4},
            ["a", "c"],
            {"between": ["b", "a"], "temperature": 0.05, "comparison_dim": 3},
        ],
    )
    assert [(found.edge_name(e.index), e.temperature) for e in found.edges] == [
        ("a~b", 0.05),
        ("a~c", None),
        ("b~c", 0.4),
    ]


@pytest.mark.parametrize("wrong", [0, -0.1, "warm"])
def test_a_temperature_is_above_zero(tiny: MakeConfig, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"edges\.1\.temperature"):
        tiny(f"edges.1.temperature={wrong}")


@settings(deadline=None)
@given(nodes=st.integers(2, 12), chance=st.floats(0.0, 0.5), seed=st.integers(0, 2**32 - 1))
def test_a_graph_is_refused_where_networkx_sees_parts(nodes: int, chance: float, seed: int) -> None:
    graph = nx.gnp_random_graph(nodes, chance, seed=seed)
    given_ = {
        "nodes": [f"n{k}" for k in graph],
        "edges": [[f"n{i}", f"n{j}"] for i, j in graph.edges],
    }
    alone = [f"n{k}" for k in nx.isolates(graph)]
    parts = nx.number_connected_components(graph)
    if alone:
        assert refusal(**given_).startswith(f"t: {', '.join(alone[:5])} has no edge")
    elif parts > 1:
        smallest = min(map(len, nx.connected_components(graph)))
        message = refusal(**given_)
        assert f"falls into {parts} parts" in message
        named = message.partition("one of them is ")[2].partition(". Join")[0].split(", ")
        part = nx.node_connected_component(graph, int(named[0][1:]))
        assert named == [f"n{k}" for k in sorted(part)[:5]]
        assert len(part) == smallest
    else:
        assert len(topology(**given_).edges) == graph.number_of_edges()


# Comparison spaces.


def joined(left: int, right: int, dim: Any = None, default: Any = None) -> Topology:
    return topology(
        nodes=[{"id": "a", "embedding_dim": left}, {"id": "b", "embedding_dim": right}],
        edges=[{"between": ["a", "b"], "comparison_dim": dim}],
        **({} if default is None else {"defaults": {"edge": {"comparison_dim": default}}}),
    )


@pytest.mark.parametrize(
    ("left", "right", "dim", "expected"),
    [
        (64, 64, None, 32),
        (64, 24, None, 12),
        (24, 64, None, 12),
        (64, 24, 0.75, 18),
        (64, 24, 1.0, 24),
        (64, 24, 1, 1),
        (64, 24, 24, 24),
        (8, 8, 0.01, 1),
        (10, 10, 0.33, 3),
        (10, 10, 0.37, 4),
        (1, 1, 0.5, 1),
    ],
)
def test_the_comparison_dimension(left, right, dim, expected):
    (edge,) = joined(left, right, dim).edges
    assert edge.dim == expected
    assert type(edge.dim) is int


def test_an_edge_overrules_the_default():
    assert joined(64, 64, default=5).edges[0].dim == 5
    assert joined(64, 64, dim=7, default=5).edges[0].dim == 7
    assert joined(64, 64, dim=0.25, default=5).edges[0].dim == 16


def test_more_dimensions_than_an_end_has_are_refused():
    with pytest.raises(ConfigError) as caught:
        joined(64, 24, 25)
    assert str(caught.value) == (
        "t: edges.0.comparison_dim = 25: above the embedding dimension 24 of b; "
        "choose 1 to 24, or a fraction."
    )
    with pytest.raises(ConfigError, match=r"^t: defaults\.edge\.comparison_dim = 70: .* 64 of a;"):
        joined(64, 80, default=70)


def test_nodes_take_what_they_leave_out_from_the_defaults():
    built = topology(
        defaults={"node": {"embedding_dim": 16, "modality": "m", "encoder": "conv"}},
        nodes=["a", {"id": "b", "embedding_dim": 8, "modality": "n", "encoder": "mlp"}],
        edges=[["a", "b"]],
    )
    first, second = built.nodes
    assert (first.dim, first.modality, first.encoder.name) == (16, "m", "conv")
    assert (second.dim, second.modality, second.encoder.name) == (8, "n", "mlp")


# Orientation and order.


def test_edges_are_oriented_by_the_order_of_the_nodes():
    built = topology(nodes=["z", "m", "a"], edges=[["a", "m"], ["m", "z"], ["a", "z"]])
    assert [(e.index, e.tail, e.head) for e in built.edges] == [(0, 0, 1), (1, 0, 2), (2, 1, 2)]
    assert [built.edge_name(k) for k in range(3)] == ["z~m", "z~a", "m~a"]
    assert built.arrow(1, 0) == "z->a"
    assert built.arrow(1, 1) == "a->z"
    assert [e.index for e in built.incident(2)] == [1, 2]


@st.composite
def graphs(draw: Any) -> tuple[int, list[tuple[int, int]]]:
    """Nodes and edges of a connected graph: a random tree and more, in any order and direction."""
    count = draw(st.integers(2, 12))
    tree = {(draw(st.integers(0, k - 1)), k) for k in range(1, count)}
    more = draw(st.sets(st.sampled_from(list(combinations(range(count), 2)))))
    edges = draw(st.permutations(sorted(tree | more)))
    return count, [pair[::-1] if draw(st.booleans()) else pair for pair in edges]


@settings(deadline=None)
@given(graphs())
def test_invariants_of_any_graph(graph):
    count, listed = graph
    built = topology(
        nodes=[f"n{i}" for i in range(count)], edges=[[f"n{i}", f"n{j}"] for i, j in listed]
    )
    oracle = nx.Graph(listed)
    assert pairs(built) == {(min(pair), max(pair)) for pair in listed}
    assert [edge.index for edge in built.edges] == list(range(len(listed)))
    assert [(e.tail, e.head) for e in built.edges] == sorted((e.tail, e.head) for e in built.edges)
    for node in range(count):
        incident = built.incident(node)
        assert [edge.index for edge in incident] == sorted(edge.index for edge in incident)
        assert {edge.other(node) for edge in incident} == set(oracle[node])
        assert len(incident) == oracle.degree[node]
    for edge in built.edges:
        assert edge.other(edge.tail) == edge.head
        assert edge.other(edge.head) == edge.tail
        assert (edge.direction(edge.tail), edge.direction(edge.head)) == (0, 1)
        for direction in (0, 1):
            assert edge.direction(edge.sender(direction)) == direction
            sender = edge.sender(direction)
            assert built.arrow(edge.index, direction) == f"n{sender}->n{edge.other(sender)}"


# What is no network.


def test_a_loop_is_refused():
    assert refusal(nodes=["a", "b"], edges=[["a", "b"], ["b", "b"]]) == (
        "t: edges.1: b is joined to itself; an edge needs two nodes."
    )


@pytest.mark.parametrize("second", [["a", "b"], ["b", "a"]])
def test_an_edge_that_stands_twice_is_refused(second):
    message = refusal(nodes=["a", "b", "c"], edges=[["b", "c"], ["a", "b"], second])
    assert (
        message
        == f"t: edges.2: {second[0]}-{second[1]} stands already as edges.1; remove one of them."
    )


def test_an_edge_to_nobody_is_refused_with_the_nearest_node():
    message = refusal(nodes=["camera0", "camera1"], edges=[["camera0", "camra1"]])
    assert message == (
        "t: edges.0: no node is called 'camra1'. Did you mean 'camera1'? Known: camera0, camera1."
    )


def test_a_node_without_an_edge_is_refused():
    message = refusal(nodes=["a", "b", "c", "d"], edges=[["a", "b"]])
    assert message == "t: c, d has no edge; join every node to at least one other."
    assert refusal(nodes=["a"], edges=[]).startswith("t: a has no edge")
    assert refusal(nodes=[], edges=[]).startswith("t: the network has no edge")


def test_a_network_in_parts_is_refused():
    message = refusal(nodes=["a", "b", "c", "d", "e"], edges=[["a", "b"], ["b", "c"], ["d", "e"]])
    assert message == (
        "t: the graph falls into 2 parts; one of them is d, e. Join the parts by an edge."
    )


def test_an_id_that_stands_twice_is_refused():
    assert refusal(nodes=["a", "b", "a"], edges=[["a", "b"]]) == (
        "t: nodes: the id 'a' is used twice."
    )
