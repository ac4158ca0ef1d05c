"""Simulated links: what becomes of every message under the faults of a configuration.

A pure function of (seed, sender, receiver, kind, round): both ends of an edge compute the same,
nothing is exchanged, no clock is involved and nothing is in flight from one round to the next.
So a fault does the same whatever the backend, the placement and the order of delivery.

A transmission meets, in this order: a link that is down, a partition or a sleeping receiver
(dropped); loss (dropped); corruption (rejected); delay, a reordering or a straggling sender (late);
or else it is delivered, with a copy where the link duplicates it. With retransmissions the sender
tries again while a transmission is dropped or rejected; it learns that at no cost.

The loss of a link's profile acts like ``faults.loss`` on its edges; an edge has one of both.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from sheafnet.config import Config
from sheafnet.errors import ConfigError
from sheafnet.faults import Ends, FaultPhase, FaultsConfig
from sheafnet.network.frame import Frame, Kind, Phase, round_of
from sheafnet.network.profiles import profiles_of
from sheafnet.seeds import stream
from sheafnet.topology import Edge, Topology
from sheafnet.validation import nearest

Lot = Literal["delivered", "duplicated", "late", "dropped", "rejected"]
"""The fate of a transmission; ``duplicated`` is delivered twice."""

ARRIVES: frozenset[Lot] = frozenset({"delivered", "duplicated"})
_NO_MORE: frozenset[Lot] = ARRIVES | {"late"}
"""After these the sender does not try again."""
_FAULTY = frozenset(get_args(FaultPhase))
"""Phases that a simulated fault can be in; the others measure."""
_REPLY_TO = {Kind.ANSWER: Kind.REQUEST, Kind.GRADIENT: Kind.PROJECTION}
"""Kinds that are sent only to who has delivered the other kind in the same round. Estimates are
sent only to whom the sender's own answer has reached."""
_PROBABILITIES = ("loss", "corruption", "delay", "reordering", "duplication")
_REMEMBERED = 1 << 16


class Links:
    """The links of a run.

    Args:
        config: of the run, with ``faults`` or a link that loses.
        network: its channels.

    Raises:
        ConfigError: a fault names a node or an edge that is not there, a node twice, or a
            partition that cuts nothing; or an edge has a loss beside that of its link.
    """

    def __init__(self, config: Config, network: Topology) -> None:
        faults = config.faults or FaultsConfig()
        self._faults, self._seed, self._network = faults, config.run.seed, network
        names = _Names(config, network)
        self._chances = _chances(faults, network, names)
        for edge, loss in _losses(config, network).items():
            for directed in ((edge, 0), (edge, 1)):
                if self._chances[directed][0] > 0.0:
                    raise config.fault(
                        f"faults: {network.edge_name(edge)} has a loss here, and its link one of "
                        f"{loss:g}; leave one of them.",
                        "faults",
                    )
                self._chances[directed][0] = loss
        self._down = [
            (directed, fault)
            for at, fault in enumerate(faults.down)
            for directed in names.directed(fault, "down", at)
        ]
        self._cut = [
            (names.cut(fault.groups, at), fault) for at, fault in enumerate(faults.partitions)
        ]
        self._asleep = [
            (names.node(fault.node, "nodes", at, "node"), fault)
            for at, fault in enumerate(faults.nodes)
        ]
        self._stragglers = {
            names.node(fault.node, "stragglers", at, "node", once=True): fault.probability
            for at, fault in enumerate(faults.stragglers)
        }
        self._schedule = {
            names.edge(fault.between, "activity", "schedule", at, "between", once=True): fault
            for at, fault in enumerate(faults.activity.schedule)
        }
        self.attempts = lru_cache(_REMEMBERED)(self._attempts)

    @classmethod
    def open(cls, config: Config, network: Topology) -> "Links | None":
        """The links of a run; None where nothing goes wrong."""
        calm = config.faults is None and not _losses(config, network)
        return None if calm else cls(config, network)

    def delivers(self, kind: Kind, number: int, edge: int, direction: int) -> bool:
        """Whether the receiver gets the message, if the method has its sender send it."""
        attempts = self.attempts(kind, number, edge, direction)
        return bool(attempts) and attempts[-1] in ARRIVES

    def active(self, phase: Phase, round_: int, edge: int) -> bool:
        """Whether `edge` is there in a round; over one that is not, nobody sends and none waits."""
        if phase not in self._faults.phases:
            return True
        schedule = self._schedule.get(edge)
        if schedule is not None:
            return round_ % schedule.every == schedule.offset
        chance = self._faults.activity.probability
        return chance == 1.0 or self._draw("activity", edge, phase, round_) < chance

    def asleep(self, phase: Phase, round_: int, node: int) -> bool:
        """Whether `node` sleeps in a round: it computes and sends nothing and receives nothing."""
        return any(node == who and window.holds(phase, round_) for who, window in self._asleep)

    def damage(self, frame: Frame, attempt: int, buffer: bytes) -> bytes:
        """The `buffer` of `frame` with one or two bits flipped, which a CRC-32 always finds."""
        names = (frame.edge, frame.direction, frame.kind.name, frame.round, attempt)
        draws = stream(self._seed, "faults", "bits", *names)
        spoiled = bytearray(buffer)
        count = int(draws.integers(1, 3))
        for bit in draws.choice(8 * len(buffer), size=count, replace=False).tolist():
            spoiled[bit // 8] ^= 1 << bit % 8
        return bytes(spoiled)

    def _attempts(self, kind: Kind, number: int, edge: int, direction: int) -> tuple[Lot, ...]:
        """The fate of every transmission of a message, in order; none where it is not sent.

        Args:
            kind: of the message.
            number: in the field ``round`` of the message.
            edge: index of the channel.
            direction: 0 from its tail to its head, 1 back.
        """
        phase = kind.phase
        if phase not in _FAULTY:
            return ("delivered",)
        channel, round_ = self._network.edges[edge], round_of(kind, number)
        sender = channel.sender(direction)
        if self.asleep(phase, round_, sender) or not self.active(phase, round_, edge):
            return ()
        prompt = _REPLY_TO.get(kind)
        if prompt is not None and not self.delivers(prompt, round_, edge, 1 - direction):
            return ()
        if kind is Kind.ESTIMATE and not self.delivers(Kind.ANSWER, round_, edge, direction):
            return ()
        found: list[Lot] = []
        for lot in self._lots(kind, number, channel, direction):
            found.append(lot)
            if lot in _NO_MORE:
                break
        return tuple(found)

    def _lots(self, kind: Kind, number: int, edge: Edge, direction: int) -> Iterator[Lot]:
        """What would become of each transmission that the sender may try."""
        phase, tries = kind.phase, 1 + self._faults.retransmissions
        round_ = round_of(kind, number)
        if self._unreachable(phase, round_, edge, direction):
            for _ in range(tries):
                yield "dropped"
            return
        if phase not in self._faults.phases:
            yield "delivered"
            return
        straggles = self._straggles(phase, round_, edge.sender(direction))
        names = ("link", edge.index, direction, kind.name, number)
        draws = stream(self._seed, "faults", *names).random((tries, len(_PROBABILITIES)))
        for hits in draws < self._chances[edge.index, direction]:
            loss, corruption, delay, reordering, duplication = hits.tolist()
            if loss:
                yield "dropped"
            elif corruption:
                yield "rejected"
            elif delay or reordering or straggles:
                yield "late"
            else:
                yield "duplicated" if duplication else "delivered"

    def _unreachable(self, phase: Phase, round_: int, edge: Edge, direction: int) -> bool:
        """Whether nothing can get from one end to the other."""
        return (
            self.asleep(phase, round_, edge.receiver(direction))
            or any(
                (edge.index, direction) == directed and window.holds(phase, round_)
                for directed, window in self._down
            )
            or any(edge.index in cut and window.holds(phase, round_) for cut, window in self._cut)
        )

    def _straggles(self, phase: Phase, round_: int, node: int) -> bool:
        chance = self._stragglers.get(node, 0.0)
        return chance > 0.0 and self._draw("straggler", node, phase, round_) < chance

    def _draw(self, *names: str | int) -> float:
        return float(stream(self._seed, "faults", *names).random())


def _losses(config: Config, network: Topology) -> dict[int, float]:
    """The losses of the links that have one, by channel."""
    profiles = profiles_of(config, network) or ()
    return {edge: profile.loss for edge, profile in enumerate(profiles) if profile.loss > 0.0}


def _chances(
    faults: FaultsConfig, network: Topology, names: "_Names"
) -> dict[tuple[int, int], npt.NDArray[np.float64]]:
    """The probabilities of each directed edge, in the order of `_PROBABILITIES`."""
    everywhere = np.array([getattr(faults, name) for name in _PROBABILITIES])
    found = {(e.index, d): everywhere.copy() for e in network.edges for d in (0, 1)}
    for at, own in enumerate(faults.edges):
        for directed in names.directed(own, "edges", at):
            for place, name in enumerate(_PROBABILITIES):
                if getattr(own, name) is not None:
                    found[directed][place] = getattr(own, name)
    return found


class _Names:
    """Nodes and edges by the names that a configuration's faults give them."""

    def __init__(self, config: Config, network: Topology) -> None:
        self._config, self._network = config, network
        self._ids = [node.id for node in network.nodes]
        self._edges = {frozenset((e.tail, e.head)): e.index for e in network.edges}
        self._named: set[tuple[str | int, int]] = set()

    def node(self, name: str, *key: str | int, once: bool = False) -> int:
        """The index of the node called `name` under `key`, in a list that names it `once`."""
        if name not in self._ids:
            raise self._fault(f"no node is called {name!r}. {nearest(name, self._ids)}", *key)
        index = self._ids.index(name)
        if once:
            self._claim(index, f"{name} is named twice; keep one of the entries.", *key)
        return index

    def edge(self, ends: tuple[str, str], *key: str | int, once: bool = False) -> int:
        """The index of the channel between two nodes, in a list that names it `once`."""
        left, right = (self.node(name, *key) for name in ends)
        index = self._edges.get(frozenset((left, right)))
        if index is None:
            beside = [self._ids[e.other(left)] for e in self._network.incident(left)]
            raise self._fault(
                f"{ends[0]} and {ends[1]} are joined by no channel; those of {ends[0]} lead to "
                f"{', '.join(beside)}.",
                *key,
            )
        if once:
            twice = f"the edge of {ends[0]} and {ends[1]} is named twice; keep one of the entries."
            self._claim(index, twice, *key)
        return index

    def _claim(self, index: int, otherwise: str, *key: str | int) -> None:
        if (key[0], index) in self._named:
            raise self._fault(otherwise, *key)
        self._named.add((key[0], index))

    def directed(self, ends: Ends, *key: str | int) -> list[tuple[int, int]]:
        """The directions of the channel that `ends` names: (channel, direction)."""
        if ends.between is not None:
            edge = self.edge(ends.between, *key, "between")
            return [(edge, 0), (edge, 1)]
        assert ends.from_to is not None, "one of both is given"
        edge = self.edge(ends.from_to, *key, "from_to")
        sender = self._ids.index(ends.from_to[0])
        return [(edge, self._network.edges[edge].direction(sender))]

    def cut(self, groups: Sequence[Sequence[str]], at: int) -> frozenset[int]:
        """The channels between different groups."""
        key = ("partitions", at, "groups")
        group: dict[int, int] = {}
        for number, members in enumerate(groups):
            for name in members:
                node = self.node(name, *key)
                if node in group:
                    raise self._fault(f"{name} is in two groups; leave it in one.", *key)
                group[node] = number
        cut = [e.index for e in self._network.edges if group.get(e.tail) != group.get(e.head)]
        if not cut:
            raise self._fault(
                "no edge joins two of these groups, so nothing would be cut. Leave out some nodes: "
                "those that are named nowhere are one more group.",
                *key,
            )
        return frozenset(cut)

    def _fault(self, message: str, *key: str | int) -> ConfigError:
        whole = ("faults", *key)
        return self._config.fault(f"{'.'.join(map(str, whole))}: {message}", *whole)
