from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.config import Config
from sheafnet.sheaf.cellular import Sheaf, Spectrum
from sheafnet.topology import Topology, build_topology


def topology(graph: nx.Graph, dims: list[int], edge_dim: float | int) -> Topology:
    values = {
        "name": "t",
        "dataset": "synthetic",
        "nodes": [{"id": f"n{i}", "embedding_dim": dims[i]} for i in range(len(graph))],
        "edges": [[f"n{i}", f"n{j}"] for i, j in graph.edges],
        "defaults": {"edge": {"comparison_dim": edge_dim}},
    }
    return build_topology(Config.model_validate(values))


def random_maps(built: Topology, seed: int) -> dict[tuple[int, int], Any]:
    rng = np.random.default_rng(seed)
    return {
        (node, edge.index): rng.standard_normal((edge.dim, built.nodes[node].dim))
        for edge in built.edges
        for node in (edge.tail, edge.head)
    }


def identities(built: Topology) -> dict[tuple[int, int], Any]:
    return {
        (node, e.index): np.eye(e.dim, built.nodes[node].dim)
        for e in built.edges
        for node in (e.tail, e.head)
    }


def section(built: Topology, rng: Any, *leading: int) -> list[Any]:
    return [rng.standard_normal((*leading, node.dim)) for node in built.nodes]


def flat(parts: list[Any]) -> Any:
    return np.concatenate(parts, axis=-1)


@st.composite
def sheaves(draw: Any) -> tuple[Topology, dict[tuple[int, int], Any], Any]:
    count, seed = draw(st.integers(2, 6)), draw(st.integers(0, 10**6))
    graph = nx.random_labeled_tree(count, seed=seed)
    graph.add_edges_from(draw(st.sets(st.sampled_from(list(nx.complete_graph(count).edges)))))
    dims = [draw(st.integers(1, 5)) for _ in range(count)]
    built = topology(graph, dims, draw(st.sampled_from([0.3, 0.6, 1.0])))
    return built, random_maps(built, seed), np.random.default_rng(seed + 1)


def test_one_edge_by_hand():
    built = topology(nx.path_graph(2), [2, 1], 1)
    maps = {(0, 0): np.array([[1.0, 2.0]]), (1, 0): np.array([[3.0]])}
    sheaf = Sheaf(built, maps)
    h = [np.array([5.0, -1.0]), np.array([2.0])]
    # 1 * 5 + 2 * (-1) - 3 * 2 = -3.
    assert [c.tolist() for c in sheaf.coboundary(h)] == [[-3.0]]
    assert [g.tolist() for g in sheaf.adjoint([np.array([-3.0])])] == [[-3.0, -6.0], [9.0]]
    assert [g.tolist() for g in sheaf.laplacian(h)] == [[-3.0, -6.0], [9.0]]
    assert float(sheaf.energy(h)) == 9.0
    assert sheaf.dense_coboundary().tolist() == [[1.0, 2.0, -3.0]]
    assert sheaf.dense_laplacian().tolist() == [[1, 2, -3], [2, 4, -6], [-3, -6, 9]]
    spectrum = sheaf.spectrum()
    assert spectrum.global_sections == 2
    assert spectrum.gap == pytest.approx(14.0)


@settings(deadline=None, max_examples=40)
@given(sheaves())
def test_operators_are_the_block_matrices(drawn):
    built, maps, rng = drawn
    sheaf = Sheaf(built, maps)
    h, c = section(built, rng), [rng.standard_normal(e.dim) for e in built.edges]
    # L by its blocks: L_ii = sum_e P_ie^T P_ie and L_ij = -P_ie^T P_je.
    blocks = [[np.zeros((a.dim, b.dim)) for b in built.nodes] for a in built.nodes]
    for e in built.edges:
        for i in (e.tail, e.head):
            for j in (e.tail, e.head):
                sign = 1.0 if i == j else -1.0
                blocks[i][j] += sign * maps[i, e.index].T @ maps[j, e.index]
    laplacian = np.block(blocks)
    assert np.allclose(sheaf.dense_laplacian(), laplacian)
    assert np.allclose(flat(sheaf.laplacian(h)), laplacian @ flat(h))
    delta = sheaf.dense_coboundary()
    assert delta.shape == (sum(e.dim for e in built.edges), sum(n.dim for n in built.nodes))
    assert np.allclose(flat(sheaf.coboundary(h)), delta @ flat(h))
    assert np.allclose(flat(sheaf.adjoint(c)), delta.T @ flat(c))
    # <delta h, c> = <h, delta^T c>.
    assert flat(sheaf.coboundary(h)) @ flat(c) == pytest.approx(flat(h) @ flat(sheaf.adjoint(c)))
    assert np.array_equal(sheaf.dense_laplacian(), sheaf.dense_laplacian().T)
    assert np.linalg.eigvalsh(sheaf.dense_laplacian()).min() > -1e-9
    energy = float(sheaf.energy(h))
    assert energy >= 0.0
    assert energy == pytest.approx(flat(h) @ laplacian @ flat(h))
    by_edge = sum(
        np.linalg.norm(maps[e.tail, e.index] @ h[e.tail] - maps[e.head, e.index] @ h[e.head]) ** 2
        for e in built.edges
    )
    assert energy == pytest.approx(by_edge)


@settings(deadline=None, max_examples=40)
@given(sheaves())
def test_global_sections_are_the_kernel(drawn):
    built, maps, _ = drawn
    sheaf = Sheaf(built, maps)
    spectrum = sheaf.spectrum()
    rank = np.linalg.matrix_rank(sheaf.dense_coboundary())
    total = sum(node.dim for node in built.nodes)
    assert spectrum.global_sections == total - rank
    singular = np.linalg.svd(sheaf.dense_coboundary(), compute_uv=False)[:rank]
    assert spectrum.gap == pytest.approx(singular.min() ** 2, rel=1e-6)
    vectors = np.linalg.eigh(sheaf.dense_laplacian())[1][:, : spectrum.global_sections]
    splits = np.cumsum([node.dim for node in built.nodes])[:-1]
    assert np.allclose(sheaf.energy(np.split(vectors.T, splits, axis=1)), 0.0, atol=1e-9)


def test_rows_of_a_batch_are_sections_of_their_own():
    built = topology(nx.cycle_graph(4), [3, 2, 4, 3], 0.5)
    sheaf = Sheaf(built, random_maps(built, 0))
    h = section(built, np.random.default_rng(1), 5, 2)
    assert sheaf.energy(h).shape == (5, 2)
    for row in np.ndindex(5, 2):
        alone = [part[row] for part in h]
        assert sheaf.energy(h)[row] == pytest.approx(float(sheaf.energy(alone)))
        assert np.allclose(flat(sheaf.laplacian(h))[row], flat(sheaf.laplacian(alone)))


GRAPHS = [
    nx.path_graph(6),
    nx.cycle_graph(7),
    nx.complete_graph(5),
    nx.star_graph(4),
    nx.convert_node_labels_to_integers(nx.grid_2d_graph(2, 3)),
]


@pytest.mark.parametrize("graph", GRAPHS)
def test_numbers_with_identity_maps_are_the_graph_laplacian(graph):
    built = topology(graph, [1] * len(graph), 1)
    sheaf = Sheaf(built, identities(built))
    adjacency = nx.to_numpy_array(graph, nodelist=sorted(graph))
    oracle = np.diag([d for _, d in sorted(graph.degree)]) - adjacency
    assert np.array_equal(sheaf.dense_laplacian(), oracle)
    assert sheaf.spectrum().global_sections == 1
    for row, (i, j) in zip(sheaf.dense_coboundary(), sorted(graph.edges), strict=True):
        assert row.tolist() == [(k == i) - (k == j) for k in range(len(graph))]


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize(
    ("graph", "eigenvalues"),
    [
        (nx.path_graph(6), [2 - 2 * np.cos(np.pi * k / 6) for k in range(6)]),
        (nx.cycle_graph(7), [2 - 2 * np.cos(2 * np.pi * k / 7) for k in range(7)]),
        (nx.complete_graph(5), [0, 5, 5, 5, 5]),
        (nx.star_graph(4), [0, 1, 1, 1, 5]),
    ],
)
def test_identity_maps_have_the_graphs_spectrum_dim_times(graph, eigenvalues, dim):
    built = topology(graph, [dim] * len(graph), 1.0)
    spectrum = Sheaf(built, identities(built)).spectrum()
    expected = np.sort(np.repeat(eigenvalues, dim))
    assert np.allclose(spectrum.eigenvalues, expected, atol=1e-9)
    assert spectrum.global_sections == dim
    assert spectrum.gap == pytest.approx(expected[dim])


def test_a_constant_section_is_global_under_identity_maps():
    built = topology(nx.cycle_graph(5), [3] * 5, 1.0)
    sheaf = Sheaf(built, identities(built))
    assert float(sheaf.energy([np.array([1.0, -2.0, 3.0])] * 5)) == 0.0


def test_a_twisted_cycle_has_no_global_section():
    # x = -x round the cycle: the Moebius band over a ring.
    built = topology(nx.cycle_graph(4), [1] * 4, 1)
    maps = identities(built)
    maps[0, 0] = -maps[0, 0]
    assert Sheaf(built, identities(built)).spectrum().global_sections == 1
    twisted = Sheaf(built, maps).spectrum()
    assert twisted.global_sections == 0
    assert twisted.gap == pytest.approx(2 - 2 * np.cos(np.pi / 4))


def test_a_triangle_has_six_stalks_and_six_restriction_maps():
    built = topology(nx.complete_graph(3), [4] * 3, 0.5)
    maps = random_maps(built, 0)
    assert (len(built.nodes), len(built.edges), len(maps)) == (3, 3, 6)
    sheaf = Sheaf(built, maps)
    assert sheaf.dense_coboundary().shape == (6, 12)
    # Each of the 3 edges has its 2 rows and two blocks of 4 columns.
    assert np.count_nonzero(sheaf.dense_coboundary()) == 6 * 2 * 4
    # 12 unknowns, 6 independent equations.
    assert sheaf.spectrum().global_sections == 6
    for key in maps:
        with pytest.raises(ValueError, match=f"node {key[0]} on edge {key[1]}: None where"):
            Sheaf(built, {k: p for k, p in maps.items() if k != key})


@pytest.mark.parametrize("shape", [(4, 2), (2, 3), (2,), (1, 4)])
def test_a_map_of_another_shape_is_refused(shape):
    built = topology(nx.path_graph(2), [4, 4], 2)
    maps = random_maps(built, 0) | {(1, 0): np.zeros(shape)}
    with pytest.raises(ValueError, match=r"node 1 on edge 0: .* where \(2, 4\) is needed"):
        Sheaf(built, maps)


@pytest.mark.parametrize("scale", [1e-7, 0.5, 3.0, 1e6])
def test_scaled_maps_scale_the_laplacian_by_the_square(scale):
    built = topology(nx.cycle_graph(4), [4] * 4, 2)
    maps = random_maps(built, 3)
    sheaf, scaled = Sheaf(built, maps), Sheaf(built, {k: scale * p for k, p in maps.items()})
    assert np.allclose(scaled.dense_laplacian(), scale**2 * sheaf.dense_laplacian(), rtol=1e-9)
    before, after = sheaf.spectrum(), scaled.spectrum()
    assert after.global_sections == before.global_sections == 8
    assert after.gap == pytest.approx(scale**2 * before.gap)


def test_maps_of_float32_are_computed_in_float64():
    built = topology(nx.path_graph(2), [2, 2], 2)
    maps = {k: p.astype(np.float32) for k, p in random_maps(built, 0).items()}
    exact = {k: p.astype(np.float64) for k, p in maps.items()}
    h = [np.full(2, 0.1, np.float32), np.full(2, 0.7, np.float32)]
    assert Sheaf(built, maps).energy(h).dtype == np.float64
    assert Sheaf(built, maps).energy(h) == Sheaf(built, exact).energy([p.astype(float) for p in h])
    assert np.array_equal(
        Sheaf(built, maps).dense_laplacian(), Sheaf(built, exact).dense_laplacian()
    )


def test_nothing_but_global_sections_where_the_maps_are_zero():
    built = topology(nx.path_graph(3), [2] * 3, 1)
    spectrum = Sheaf(built, {k: 0 * p for k, p in random_maps(built, 0).items()}).spectrum()
    assert spectrum.global_sections == 6
    assert spectrum.gap is None


def test_rounding_counts_as_zero():
    spectrum = Spectrum(np.array([-1e-15, 1e-14, 0.25, 4.0]))
    assert spectrum.global_sections == 2
    assert spectrum.gap == 0.25
