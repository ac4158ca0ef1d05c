"""Which nodes share a process, and which processes a machine: graph partition by METIS.

Neighbours belong together, since what they send to each other then leaves no process, or no
machine. METIS (Karypis and Kumar, *SIAM J. Sci. Comput.* 20(1), 1998) cuts the graph into parts of
given sizes so that the d_ij of the cut edges add up to little; what it leaves a node too large or
too small is moved afterwards. The same network is cut the same way each time. No result depends on
it.
"""

from collections.abc import Sequence

import pymetis

from sheafnet.topology import Topology

_OPTIONS = pymetis.Options(seed=0, ncuts=16)
"""The best of 16 cuts, which takes milliseconds."""


def place(network: Topology, hosts: Sequence[int]) -> list[list[list[int]]]:
    """The nodes of every host of every machine, in ascending order.

    First the graph is cut into machines, then each machine's share into its hosts. The sizes of any
    two hosts differ by at most one.

    Args:
        network: the channels of the run, each weighted by its d_ij.
        hosts: how many hosts there are on each machine, some of them; no more than nodes in all.
    """
    count, whole = sum(hosts), len(network.nodes)
    sizes = [whole // count + (k < whole % count) for k in range(count)]
    starts = [sum(hosts[:k]) for k in range(len(hosts))]
    of_machine = [sizes[start : start + n] for start, n in zip(starts, hosts, strict=True)]
    shares = _cut(network, range(whole), [sum(own) for own in of_machine])
    return [
        sorted(_cut(network, share, own)) for share, own in zip(shares, of_machine, strict=True)
    ]


def apportion(count: int, weights: Sequence[int]) -> list[int]:
    """`count` things dealt out in proportion to `weights`, by largest remainder; ties to the first.

    A weight has to be above zero.
    """
    total = sum(weights)
    dealt = [count * weight // total for weight in weights]
    remainder = sorted(range(len(weights)), key=lambda k: (-(count * weights[k] % total), k))
    for k in remainder[: count - sum(dealt)]:
        dealt[k] += 1
    return dealt


def crossing(network: Topology, parts: Sequence[Sequence[int]]) -> int:
    """Sum of d_ij over the edges between different parts."""
    part_of = {node: k for k, part in enumerate(parts) for node in part}
    return sum(e.dim for e in network.edges if part_of[e.tail] != part_of[e.head])


def _cut(network: Topology, members: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """`members` in parts of exactly these sizes, part k of ``sizes[k]``."""
    wanted = [k for k, size in enumerate(sizes) if size]
    parts: list[list[int]] = [[] for _ in sizes]
    if len(wanted) <= 1 or max(sizes) == 1:
        rest = iter(members)
        for k in wanted:
            parts[k] = [next(rest) for _ in range(sizes[k])]
        return parts
    found = _partition(network, members, [sizes[k] for k in wanted])
    # A part of the right size, or nearly so, is as good under one name as under another.
    by_size = sorted(wanted, key=lambda k: -sizes[k])
    for k, part in zip(by_size, sorted(found, key=len, reverse=True), strict=True):
        parts[k] = part
    _even_out(network, parts, sizes)
    return [sorted(part) for part in parts]


def _partition(network: Topology, members: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Parts of about these sizes, by METIS' recursive bisection."""
    position = {node: k for k, node in enumerate(members)}
    starts, adjacent, weights = [0], [], []
    for node in members:
        for edge in network.incident(node):
            if edge.other(node) in position:
                adjacent.append(position[edge.other(node)])
                weights.append(edge.dim)
        starts.append(len(adjacent))
    _, part_of = pymetis.part_graph(
        len(sizes),
        pymetis.CSRAdjacency(starts, adjacent),
        eweights=weights,
        tpwgts=[size / sum(sizes) for size in sizes],
        recursive=True,
        options=_OPTIONS,
    )
    parts: list[list[int]] = [[] for _ in sizes]
    for node, k in zip(members, part_of, strict=True):
        parts[k].append(node)
    return parts


def _even_out(network: Topology, parts: list[list[int]], sizes: Sequence[int]) -> None:
    """Move nodes from parts that are too large to those too small, each time the cheapest move."""
    part_of = {node: k for k, part in enumerate(parts) for node in part}
    while full := [k for k, part in enumerate(parts) if len(part) > sizes[k]]:
        lacking = [k for k, part in enumerate(parts) if len(part) < sizes[k]]
        best: tuple[int, int, int] | None = None
        for node in (n for k in full for n in parts[k]):
            bond = dict.fromkeys([part_of[node], *lacking], 0)
            for edge in network.incident(node):
                there = part_of.get(edge.other(node))
                if there in bond:
                    bond[there] += edge.dim
            to = max(lacking, key=lambda k: (bond[k], -k))
            move = (bond[to] - bond[part_of[node]], -node, to)
            best = move if best is None else max(best, move)
        assert best is not None
        node, to = -best[1], best[2]
        parts[part_of[node]].remove(node)
        parts[to].append(node)
        part_of[node] = to
