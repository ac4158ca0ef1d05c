"""What the chosen method makes of the graph: who sends to whom, in which dimension, and when.

SheafAlign and its rivals run on the same nodes, encoders, data, channels and ledger. They differ
in three things only, and the first two are settled here, without torch:

    method             space                channels                  objective of a node
    sheafalign         one an edge, d_ij    the edges                 L_sheaf, InfoNCE, L_recon
    all-pairs          one for all, d       the edges                 InfoNCE on its edges
    imagebind          one for all, d       hub to every other node   InfoNCE on the hub's channels
    local              its own              none                      InfoNCE of two masked copies
    concat-supervised  joined at a hub      hub to every other node   cross-entropy at the hub

The graph says which nodes observe the same events, hence where alignment is judged and whom a node
asks when its modality is missing. A hub also needs channels to nodes that are not its neighbours:
these stand behind the edges of the graph in `Method.network` and carry training only. Under
imagebind, edges between two nodes that are not the hub carry nothing in training; so that a node
can fit its estimators to the neighbours that it will ask, they carry the sections of the last
`CALIBRATION` training rounds, which are counted like all others.

Sources: SheafAlign (arXiv 2510.20540); ImageBind (Girdhar et al. 2023); all-pairs is CLIP (Radford
et al. 2021) on every edge.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from sheafnet.config import CENTRED, NOT_ALIGNED, SINGLE_SPACE, Config, MethodName
from sheafnet.topology import Edge, Topology
from sheafnet.validation import nearest

CALIBRATION = 50
"""Batches to which the moments of an edge that does not train are fitted; it is also about how
many batches the moments of all other edges remember."""
LARGEST_FUSION = 1024
"""Most dimensions that concat-supervised joins: it solves for the missing ones of all of them, once
for every pattern of what is there."""


@dataclass(frozen=True)
class Method:
    """The method of a run on its graph.

    Args:
        name: of the method.
        topology: the graph of the observations, its d_ij those that the method sends.
        network: the channels: the edges of `topology`, then those that only the hub needs.
        hub: the node that the method is centred on, or None.
        rounds: training rounds of the run.
    """

    name: MethodName
    topology: Topology
    network: Topology
    hub: int | None
    rounds: int

    @classmethod
    def open(cls, config: Config, topology: Topology) -> "Method":
        """The method that `config` names, on `topology`.

        Raises:
            ConfigError: the hub is no node, the nodes of a single space differ in dimension, or
                more is to be joined at one place than fits.
        """
        name = config.method.name
        if name in SINGLE_SPACE:
            topology = _in_one_space(config, topology)
        network, hub = topology, None
        if name in CENTRED:
            hub = _hub(config, topology)
            network = _with_hub(topology, hub)
        if name == "concat-supervised":
            _check_fusion(config, topology)
        return cls(name, topology, network, hub, config.training.rounds)

    @property
    def aligns(self) -> bool:
        """Whether neighbours can compare and replace what they send: they meet in a space."""
        return self.name not in NOT_ALIGNED

    @property
    def fuses(self) -> bool:
        """Whether the hub joins the sections of all nodes."""
        return self.name == "concat-supervised"

    @cached_property
    def trained(self) -> tuple[Edge, ...]:
        """The channels that the objective is about."""
        if self.name == "local":
            return ()
        return tuple(
            e for e in self.network.edges if self.hub is None or self.hub in (e.tail, e.head)
        )

    def trained_at(self, node: int) -> tuple[Edge, ...]:
        """Those of them at `node`, in the fixed order."""
        chosen = self._trained_indices
        return tuple(e for e in self.network.incident(node) if e.index in chosen)

    @cached_property
    def _trained_indices(self) -> frozenset[int]:
        return frozenset(edge.index for edge in self.trained)

    def carries(self, edge: Edge, round_: int) -> bool:
        """Whether both ends of a channel send over it in training round `round_`."""
        if edge.index in self._trained_indices:
            return True
        return self.aligns and self.rounds - CALIBRATION <= round_

    def rounds_carried(self, edge: Edge) -> int:
        """In how many training rounds of the run they do."""
        if edge.index in self._trained_indices:
            return self.rounds
        return min(self.rounds, CALIBRATION) if self.aligns else 0


def _hub(config: Config, topology: Topology) -> int:
    """The hub that is named, or the first of the nodes with the most edges."""
    ids = [node.id for node in topology.nodes]
    chosen = config.method.hub
    if chosen is None:
        return max(range(len(ids)), key=lambda k: (len(topology.incident(k)), -k))
    if chosen not in ids:
        raise config.fault(
            f"method.hub: no node is called {chosen!r}. {nearest(chosen, ids)}", "method", "hub"
        )
    return ids.index(chosen)


def _in_one_space(config: Config, topology: Topology) -> Topology:
    """`topology` with the common d as the dimension of every edge."""
    first = topology.nodes[0]
    other = next((node for node in topology.nodes if node.dim != first.dim), None)
    if other is not None:
        raise config.fault(
            f"method = {config.method.name!r} has one space for all: {first.id} has "
            f"{first.dim} dimensions, {other.id} {other.dim}. Give every node the same "
            "embedding_dim.",
            "method",
        )
    edges = tuple(replace(edge, dim=first.dim) for edge in topology.edges)
    return replace(topology, edges=edges)


def _with_hub(topology: Topology, hub: int) -> Topology:
    """`topology` and a channel from `hub` to every node, as wide as that node's section."""
    edges = [
        replace(edge, dim=topology.nodes[edge.other(hub)].dim)
        if hub in (edge.tail, edge.head)
        else edge
        for edge in topology.edges
    ]
    known = {hub, *(edge.other(hub) for edge in topology.incident(hub))}
    for node in topology.nodes:
        if node.index not in known:
            tail, head = sorted((hub, node.index))
            edges.append(Edge(len(edges), tail, head, node.dim))
    return replace(topology, edges=tuple(edges))


def _check_fusion(config: Config, topology: Topology) -> None:
    whole = sum(node.dim for node in topology.nodes)
    if whole > LARGEST_FUSION:
        raise config.fault(
            f"method = 'concat-supervised' would join {whole:,} dimensions at one node; at most "
            f"{LARGEST_FUSION:,}. Take a smaller network or embedding_dim.",
            "method",
        )
