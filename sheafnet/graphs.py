"""Generated graphs. The only module that a run needs networkx for."""

import math

import networkx as nx
import numpy as np

from sheafnet.config import GraphConfig
from sheafnet.errors import ConfigError
from sheafnet.seeds import stream


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
