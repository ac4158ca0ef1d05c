"""The checked graph of a run: nodes, oriented edges, dimensions.

A topology is what every other room sees of the YAML's network. Nodes and edges carry small
integer indices, which is what the wire format names them by. An edge is oriented from its `tail`
to its `head`, the smaller index first; the orientation fixes the sign of the coboundary and the
meaning of a frame's direction bit, and has no other effect.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sheafnet.config import Config, GraphConfig, Named
from sheafnet.errors import ConfigError
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

    def receiver(self, direction: int) -> int:
        """The node that receives what goes in `direction`."""
        return self.tail if direction else self.head


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
        return f"{self.nodes[e.sender(direction)].id}->{self.nodes[e.receiver(direction)].id}"


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


Pair = tuple[str, str, int | float | Literal["auto"] | None, float | None]
"""Two ids, and what their edge says of d_ij and τ."""


def _generated(config: Config, graph: GraphConfig) -> tuple[list[str], list[Pair]]:
    from sheafnet.graphs import generate_graph  # networkx, which nothing else here takes

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
    parts = sorted(_parts(len(nodes), edges), key=len)
    alone = [nodes[part[0]].id for part in parts if len(part) == 1]
    if alone or not nodes:
        who = ", ".join(alone[:5]) or "the network"
        raise config.fault(f"{who} has no edge; join every node to at least one other.", "edges")
    if len(parts) > 1:
        sample = ", ".join(nodes[i].id for i in sorted(parts[0])[:5])
        raise config.fault(
            f"the graph falls into {len(parts)} parts; one of them is {sample}. "
            "Join the parts by an edge.",
            "edges",
        )


def _parts(count: int, edges: tuple[Edge, ...]) -> list[list[int]]:
    """The nodes that hang together, in the order of the first of each part."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for edge in edges:
        neighbours[edge.tail].append(edge.head)
        neighbours[edge.head].append(edge.tail)
    parts, seen = [], [False] * count
    for first in range(count):
        part = [] if seen[first] else [first]
        seen[first] = True
        for node in part:  # which grows meanwhile
            for other in neighbours[node]:
                if not seen[other]:
                    seen[other] = True
                    part.append(other)
        if part:
            parts.append(part)
    return parts
