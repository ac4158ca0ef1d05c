"""d_ij chosen, not guessed: a short run whose ends tell how many dimensions they share.

The pilot is a run of its own, on the wire like any other: every byte of it is counted. In its
evaluation the ends of an edge exchange projections of events that neither was trained on, and from
what it has received each estimates the canonical correlations with its own. A dimension is worth
its bytes where these are high: of Gaussian projections, a pair of canonical directions of
correlation rho shares -log(1 - rho^2) / 2 nats of information.

A budget is spent in proportional fairness (Kelly 1997): given to the highest correlations alone, it
goes to the edges that have most already, and starves the others.
"""

import math
from collections.abc import Mapping, Sequence

from sheafnet.config import Config, EdgeConfig, NodeConfig
from sheafnet.network.payload import WireDtype, payload_bytes
from sheafnet.runtime.measurements import mean_known
from sheafnet.runtime.summary import Pilot, Summary
from sheafnet.topology import Topology, build_topology

THRESHOLD = 0.5
"""Least canonical correlation of a dimension, unless there is a budget or another threshold."""
_SURE = 1.0 - 1e-6
"""Correlations above are taken for this: nothing measured is certain."""
FRAMING_BYTES = 32
"""Most that frames a message of training, below 65,536 rounds."""


def wants_pilot(config: Config) -> bool:
    """Whether a d_ij is ``auto``; under other methods than sheafalign edges have none."""
    named = [config.defaults.edge.comparison_dim, *(e.comparison_dim for e in config.edges or ())]
    if config.method.name != "sheafalign" or "auto" not in named:
        return False
    return any(_auto(config, build_topology(config)))


def pilot_of(config: Config) -> Config:
    """The configuration of the pilot: short, without inference, its d_ij those of ``pilot``.

    Raises:
        ConfigError: the budget does not allow one dimension on every edge.
    """
    topology = build_topology(config)
    least = sum(round_bytes(config, dim) for dim in _least(config, topology))
    if config.pilot.budget is not None and least > config.pilot.budget:
        raise config.fault(
            f"pilot.budget = {config.pilot.budget:,}: one dimension on every edge that is auto "
            f"takes {least:,} bytes a round already.",
            "pilot",
            "budget",
        )
    fixed = with_dims(config, topology, [edge.dim for edge in topology.edges])
    return fixed.model_copy(
        update={
            "name": f"{config.name[:58]}-pilot",
            "training": config.training.model_copy(update={"rounds": config.pilot.rounds}),
            "inference": config.inference.model_copy(update={"rounds": 0, "batch_size": 1}),
            "evaluation": config.evaluation.model_copy(
                update={"canonical": True, "every": None, "few_shot": (), "split": "validation"}
            ),
        }
    )


def chosen_dims(config: Config, pilot: Summary) -> list[int]:
    """d_ij of every edge, from what the pilot of `config` found."""
    topology = build_topology(config)
    auto = _auto(config, topology)
    shared = [correlations(pilot, topology, edge.index) for edge in topology.edges]
    if config.pilot.budget is not None:
        return _within(config, topology, config.pilot.budget, shared)
    least = config.pilot.threshold or THRESHOLD
    return [
        max(1, sum(rho >= least for rho in shared[e.index])) if auto[e.index] else e.dim
        for e in topology.edges
    ]


def correlations(pilot: Summary, topology: Topology, edge: int) -> list[float]:
    """The canonical correlations of an edge, the mean of what its two ends found.

    Zeros where an end got nothing before its deadline and the other one neither.
    """
    ends = [pilot.alignment.per_edge.get(topology.arrow(edge, k)) for k in (0, 1)]
    both = [end.canonical_correlations for end in ends if end is not None]
    known = [found for found in both if found]
    if not known:
        return [0.0] * topology.edges[edge].dim
    return [mean_known(pair) or 0.0 for pair in zip(*known, strict=True)]


def with_dims(config: Config, topology: Topology, dims: Sequence[int]) -> Config:
    """`config` with the nodes and edges of `topology` listed and the d_ij `dims`, by edge."""
    ids = [node.id for node in topology.nodes]
    given = {frozenset(edge.between): edge for edge in config.edges or ()}
    edges = []
    for edge, dim in zip(topology.edges, dims, strict=True):
        between = ids[edge.tail], ids[edge.head]
        listed = given.get(frozenset(between)) or EdgeConfig(between=between)
        edges.append(listed.model_copy(update={"comparison_dim": dim}))
    nodes = config.nodes or tuple(NodeConfig(id=name) for name in ids)
    return config.model_copy(update={"graph": None, "nodes": nodes, "edges": tuple(edges)})


def pilot_figures(
    config: Config, topology: Topology, dims: Sequence[int], summary: Summary
) -> Pilot:
    """What the summary of the run tells of its pilot, which had `summary` and chose `dims`."""
    sent = summary.communication
    return Pilot(
        rounds=config.pilot.rounds,
        bytes_total=sent.train.bytes_total + sent.evaluation.bytes_total,
        comparison_dims={
            topology.edge_name(edge): dims[edge]
            for edge, auto in enumerate(_auto(config, topology))
            if auto
        },
    )


def round_bytes(config: Config, dim: int) -> int:
    """At most so many bytes cross an edge of `dim` dimensions in a training round."""
    training = config.training
    messages = 4 if training.exchange_gradients else 2
    dtype = WireDtype.named(training.wire_dtype)
    return messages * (payload_bytes(dtype, training.batch_size, dim) + FRAMING_BYTES)


def _auto(config: Config, topology: Topology) -> list[bool]:
    """By edge, whether its d_ij is left to the pilot."""
    ids = [node.id for node in topology.nodes]
    own: Mapping[frozenset[str], object] = {
        frozenset(edge.between): edge.comparison_dim
        for edge in config.edges or ()
        if edge.comparison_dim is not None
    }
    default = config.defaults.edge.comparison_dim
    return [
        own.get(frozenset((ids[edge.tail], ids[edge.head])), default) == "auto"
        for edge in topology.edges
    ]


def _least(config: Config, topology: Topology) -> list[int]:
    """One dimension on every edge that is left to the pilot, and the others' own."""
    auto = _auto(config, topology)
    return [1 if auto[edge.index] else edge.dim for edge in topology.edges]


def nats(rho: float) -> float:
    """What a pair of canonical directions of correlation `rho` shares, if it is Gaussian."""
    return -0.5 * math.log1p(-(min(rho, _SURE) ** 2))


def _within(
    config: Config, topology: Topology, budget: int, shared: Sequence[Sequence[float]]
) -> list[int]:
    """One dimension on every edge, then each to the edge whose information grows most by it,
    relative to what it has: the product over the edges is made as large as steps of one can."""
    auto, dims = _auto(config, topology), _least(config, topology)
    spent = sum(round_bytes(config, dim) for dim in dims)
    told = [nats(found[0]) for found in shared]

    def gain(edge: int) -> float:
        """Of another dimension, relative; 0 where there is none, or nothing in it."""
        if not auto[edge] or dims[edge] >= len(shared[edge]):
            return 0.0
        more = nats(shared[edge][dims[edge]])
        return more / told[edge] if more > 0.0 else 0.0

    while True:
        best = max(range(len(dims)), key=gain)
        more = round_bytes(config, dims[best] + 1) - round_bytes(config, dims[best])
        if gain(best) == 0.0 or spent + more > budget:
            return dims
        told[best] += nats(shared[best][dims[best]])
        dims[best], spent = dims[best] + 1, spent + more
