"""The checked graph of a run: nodes, oriented edges, dimensions.

A topology is what every other room sees of the YAML's network. Nodes and edges carry small
integer indices, which is what the wire format names them by. An edge is oriented from its `tail`
to its `head`, the smaller index first; the orientation fixes the sign of the coboundary and the
meaning of a frame's direction bit, and has no other effect.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import networkx as nx
import numpy as np

from sheafnet.config import Config, GraphConfig, Named
from sheafnet.errors import ConfigError
from sheafnet.seeds import stream
from sheafnet.validation import nearest


@dataclass(frozen=True)
class Node:
    """A modality node: `dim` is d_i, the dimension of its vertex stalk."""

    index: int
    id: str
    modality: str | None
    encoder: Named
    dim: int


@dataclass(frozen=True)
class Edge:
    """An edge with its comparison space: `dim` is d_ij, `tail` < `head` are node indices."""

    index: int
    tail: int
    head: int
    dim: int
    temperature: float | None = None
    """Its own τ; None where it has that of all."""

    def other(self, node: int) -> int:
        """The node at the other end."""
        return self.head if node == self.tail else self.tail

    def direction(self, sender: int) -> int:
        """0 when the tail sends, 1 when the head sends."""
        return 0 if sender == self.tail else 1

    def sender(self, direction: int) -> int:
        """The node that sends in `direction`."""
        return self.head if direction else self.tail


@dataclass(frozen=True)
class Topology:
    """A connected graph without loops or parallel edges."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @cached_property
    def _incident(self) -> tuple[tuple[Edge, ...], ...]:
        found: list[list[Edge]] = [[] for _ in self.nodes]
        for edge in self.edges:
            found[edge.tail].append(edge)
            found[edge.head].append(edge)
        return tuple(tuple(sorted(edges, key=lambda e: e.index)) for edges in found)

    def incident(self, node: int) -> tuple[Edge, ...]:
        """The edges at `node`, by index: the fixed order of every reduction over neighbours."""
        return self._incident[node]

    def edge_name(self, edge: int) -> str:
        """``left~right`` with the ids of both ends, in which no ~ occurs."""
        e = self.edges[edge]
        return f"{self.nodes[e.tail].id}~{self.nodes[e.head].id}"

    def arrow(self, edge: int, direction: int) -> str:
        """``sender->receiver`` of a directed edge."""
        e = self.edges[edge]
        sender = e.sender(direction)
        return f"{self.nodes[sender].id}->{self.nodes[e.other(sender)].id}"


def build_topology(config: Config) -> Topology:
    """Check the network that `config` describes.

    Raises:
        ConfigError: no node, a duplicate id, an edge to an unknown node, a self-loop, a duplicate
            edge, an isolated node, a graph in several parts, a d_ij below 1 or above d_i.
    """
    ids, pairs = _generated(config, config.graph) if config.graph else _listed(config)
    nodes = _nodes(config, ids)
    position = {node.id: node.index for node in nodes}
    seen: dict[tuple[int, int], int] = {}
    found = []
    for at, (left, right, comparison_dim, temperature) in enumerate(pairs):
        for end in (left, right):
            if end not in position:
                raise config.fault(
                    f"edges.{at}: no node is called {end!r}. {nearest(end, ids)}", "edges", at
                )
        if left == right:
            raise config.fault(
                f"edges.{at}: {left} is joined to itself; an edge needs two nodes.", "edges", at
            )
        tail, head = sorted((position[left], position[right]))
        if (tail, head) in seen:
            raise config.fault(
                f"edges.{at}: {left}-{right} stands already as edges.{seen[tail, head]}; "
                "remove one of them.",
                "edges",
                at,
            )
        seen[tail, head] = at
        key: tuple[str | int, ...] = ("edges", at, "comparison_dim")
        if comparison_dim is None:
            comparison_dim = config.defaults.edge.comparison_dim
            key = ("defaults", "edge", "comparison_dim")
        if comparison_dim == "auto":
            comparison_dim, key = config.pilot.widest, ("pilot", "widest")
        dim = _dimension(config, key, comparison_dim, nodes[tail], nodes[head])
        found.append((tail, head, dim, temperature))
    found.sort(key=lambda values: values[:2])
    edges = tuple(Edge(i, *values) for i, values in enumerate(found))
    _check_connected(config, nodes, edges)
    return Topology(config.name, nodes, edges)


def generate_graph(config: GraphConfig) -> nx.Graph:
    """The graph of a generator, nodes 0 to N-1.

    Raises:
        ConfigError: the generator has no connected graph of that size.
    """
    n, kind = config.nodes, config.generator
    smallest = {"ring": 3, "small-world": 4, "knn": 3, "random-regular": 3}.get(kind, 2)
    if n < smallest:
        raise ConfigError(f"graph.nodes = {n}: a {kind} needs at least {smallest} nodes.")
    if kind in {"knn", "random-regular", "small-world"} and config.degree >= n:
        raise ConfigError(
            f"graph.degree = {config.degree}: must be below graph.nodes = {n} for {kind}."
        )
    if kind == "small-world" and config.degree % 2:
        raise ConfigError(
            f"graph.degree = {config.degree}: must be even for small-world, half on either side."
        )
    if kind == "random-regular" and n * config.degree % 2:
        raise ConfigError(
            f"graph.degree = {config.degree}: nodes x degree must be even for random-regular "
            f"(now {n} x {config.degree})."
        )
    if kind == "ring":
        return nx.cycle_graph(n)
    if kind == "complete":
        return nx.complete_graph(n)
    if kind == "star":
        return nx.star_graph(n - 1)
    if kind == "line":
        return nx.path_graph(n)
    if kind == "grid":
        return _grid(n, config.columns)
    if kind == "small-world":
        return nx.connected_watts_strogatz_graph(
            n, config.degree, config.rewire, tries=1000, seed=config.seed
        )
    for attempt in range(100):
        seed = config.seed * 1000 + attempt
        graph = (
            nx.random_regular_graph(config.degree, n, seed=seed)
            if kind == "random-regular"
            else _nearest_neighbours(n, config.degree, seed)
        )
        if nx.is_connected(graph):
            return graph
    raise ConfigError(
        f"graph: no connected {kind} graph of {n} nodes and degree {config.degree} was found in "
        "100 draws; raise graph.degree or change graph.seed."
    )


def _grid(n: int, columns: int | None) -> nx.Graph:
    if columns is None:
        columns = next(c for c in range(math.isqrt(n), 0, -1) if n % c == 0)
        columns = n // columns
        if columns == n > 3:
            raise ConfigError(
                f"graph.nodes = {n}: a grid of {n} nodes is a line; choose another number, or "
                "the generator line."
            )
    if n % columns:
        raise ConfigError(
            f"graph.columns = {columns}: a grid of {n} nodes needs a divisor of {n} as width."
        )
    grid = nx.grid_2d_graph(n // columns, columns)
    return nx.relabel_nodes(grid, {(r, c): r * columns + c for r, c in grid})


def _nearest_neighbours(n: int, k: int, seed: int) -> nx.Graph:
    """Each of n random points of the unit square joined to its k nearest."""
    points = stream(seed, "points").random((n, 2))
    graph = nx.empty_graph(n)
    for i, here in enumerate(points):
        distance = ((points - here) ** 2).sum(axis=1)
        distance[i] = np.inf
        graph.add_edges_from((i, int(j)) for j in np.argpartition(distance, k)[:k])
    return graph


Pair = tuple[str, str, int | float | Literal["auto"] | None, float | None]
"""Two ids, and what their edge says of d_ij and τ."""


def _generated(config: Config, graph: GraphConfig) -> tuple[list[str], list[Pair]]:
    try:
        drawn = generate_graph(graph)
    except ConfigError as error:
        raise config.fault(str(error), "graph") from None
    ids = [f"{graph.prefix}{i}" for i in range(graph.nodes)]
    return ids, [(ids[i], ids[j], None, None) for i, j in drawn.edges]


def _listed(config: Config) -> tuple[list[str], list[Pair]]:
    ids = [node.id for node in config.nodes or ()]
    doubled = [name for name, count in Counter(ids).items() if count > 1]
    if doubled:
        raise config.fault(f"nodes: the id {doubled[0]!r} is used twice.", "nodes")
    return ids, [
        (*edge.between, edge.comparison_dim, edge.temperature) for edge in config.edges or ()
    ]


def _nodes(config: Config, ids: list[str]) -> tuple[Node, ...]:
    default = config.defaults.node
    given = {node.id: node for node in config.nodes or ()}
    nodes = []
    for index, name in enumerate(ids):
        own = given.get(name)
        nodes.append(
            Node(
                index=index,
                id=name,
                modality=(own.modality if own else None) or default.modality,
                encoder=(own.encoder if own else None) or default.encoder,
                dim=(own.embedding_dim if own else None) or default.embedding_dim,
            )
        )
    return tuple(nodes)


def _dimension(
    config: Config, key: tuple[str | int, ...], chosen: int | float, tail: Node, head: Node
) -> int:
    smaller = min(tail, head, key=lambda node: node.dim)
    if isinstance(chosen, float):
        return max(1, round(chosen * smaller.dim))
    if chosen > smaller.dim:
        raise config.fault(
            f"{'.'.join(map(str, key))} = {chosen}: above the embedding dimension "
            f"{smaller.dim} of {smaller.id}; choose 1 to {smaller.dim}, or a fraction.",
            *key,
        )
    return chosen


def _check_connected(config: Config, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> None:
    graph = nx.Graph()
    graph.add_nodes_from(node.index for node in nodes)
    graph.add_edges_from((edge.tail, edge.head) for edge in edges)
    alone = [nodes[i].id for i in nx.isolates(graph)]
    if alone or len(nodes) < 2:
        who = ", ".join(alone[:5]) or "the network"
        raise config.fault(f"{who} has no edge; join every node to at least one other.", "edges")
    parts = sorted(nx.connected_components(graph), key=len)
    if len(parts) > 1:
        sample = ", ".join(nodes[i].id for i in sorted(parts[0])[:5])
        raise config.fault(
            f"the graph falls into {len(parts)} parts; one of them is {sample}. "
            "Join the parts by an edge.",
            "edges",
        )
