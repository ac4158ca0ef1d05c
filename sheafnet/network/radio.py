"""Simulated time and energy of a round, from the links' profiles and the frames that were sent.

Pure logic: no clock, no socket, and nothing that a run computes depends on it.

A node has a half-duplex radio for each profile among its links: it sends or receives one message at
a time. A message takes the radios of both ends for bits / bandwidth at each of its transmissions,
which follow one another, and is there after the latency. All that a node sends without being asked
(projections; galleries and prototypes; calibration; requests) may go at the beginning of the round;
what it returns (gradients, answers) once it has sent those and all that was sent to it has come;
and the estimates of each step of diffusion once it is through with what goes before them. Whenever
both radios are free the message starts, the lowest (kind, edge, direction) first. A round lasts
until the last message is there and begins when the one before is over; computing takes no time.

A bit costs its sender at every transmission, and its receiver at each that reaches it, whatever
becomes of it there: all but those that the link has dropped.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sheafnet.config import Config, LinkConfig
from sheafnet.network.frame import PHASES, Kind, Phase
from sheafnet.network.profiles import profiles_of
from sheafnet.topology import Topology

_RETURNED = frozenset({Kind.GRADIENT, Kind.ANSWER})
"""Kinds that a node sends once it has got what is sent without being asked."""


class Sending(NamedTuple):
    """A message with all of its transmissions."""

    kind: Kind
    edge: int
    direction: int
    round: int
    size: int
    """Bytes of its frame."""
    sent: int
    """Transmissions."""
    heard: int
    """Those that reached the receiver, copies included."""
    step: int = 0
    """Of diffusion, from 1: of estimates alone."""

    @property
    def stage(self) -> int:
        """Its place in the round at its sender."""
        return 1 + self.step if self.kind is Kind.ESTIMATE else int(self.kind in _RETURNED)


@dataclass(frozen=True)
class RoundCost:
    """What a round took."""

    seconds: float
    joules: tuple[float | None, ...]
    """By node; None where a link of the node does not tell its energy."""


class Spent(NamedTuple):
    """What messages over one or more directed edges took of the radios at their ends."""

    seconds: float
    """That the radios were in use, of each end alike."""
    send_joules: float | None
    receive_joules: float | None
    """None where a link does not tell its energy."""

    def __add__(self, other: "Spent") -> "Spent":  # type: ignore[override]
        """Of both together."""
        return Spent(
            self.seconds + other.seconds,
            total((self.send_joules, other.send_joules)),
            total((self.receive_joules, other.receive_joules)),
        )


class Radio:
    """The radios of a run.

    Args:
        network: its channels.
        profiles: of each of them, by index.
    """

    def __init__(self, network: Topology, profiles: Sequence[LinkConfig]) -> None:
        self._network, self._profiles = network, profiles

    @classmethod
    def open(cls, config: Config, network: Topology) -> "Radio | None":
        """The radios of a run; None where no link has a profile.

        Raises:
            ConfigError: as `profiles_of` does.
        """
        profiles = profiles_of(config, network)
        return None if profiles is None else cls(network, profiles)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each channel's profile, by index."""
        return tuple(profile.name for profile in self._profiles)

    @cached_property
    def untold(self) -> str | None:
        """The name of a profile that tells no energy; None where all do."""
        return next((p.name for p in self._profiles if p.send_j_per_bit is None), None)

    def seconds(self, sendings: Iterable[Sending]) -> float:
        """How long the round of these messages lasts: its critical path."""
        return _Schedule(self._network, self._profiles, sorted(sendings)).run()

    def spent(self, edge: int, sent: int, heard: int) -> Spent:
        """What the messages in one direction of a channel took.

        Args:
            edge: index of the channel.
            sent: bytes, at every transmission.
            heard: bytes of the transmissions that reached the receiver.
        """
        profile = self._profiles[edge]
        send, receive = profile.send_j_per_bit, profile.receive_j_per_bit
        return Spent(
            8 * sent / profile.bandwidth_bps,
            None if send is None else 8 * sent * send,
            None if receive is None else 8 * heard * receive,
        )

    def joules(self, bits: Mapping[tuple[int, int], Sequence[int]]) -> tuple[float | None, ...]:
        """What each node took, in joules; None where a link of the node does not tell.

        Args:
            bits: sent and heard, by (channel, direction).
        """
        found: list[float | None] = [
            None
            if any(
                self._profiles[e.index].send_j_per_bit is None for e in self._network.incident(n)
            )
            else 0.0
            for n in range(len(self._network.nodes))
        ]
        for (edge, direction), (sent, heard) in sorted(bits.items()):
            channel, profile = self._network.edges[edge], self._profiles[edge]
            sender = channel.sender(direction)
            for node, count, each in (
                (sender, sent, profile.send_j_per_bit),
                (channel.other(sender), heard, profile.receive_j_per_bit),
            ):
                before = found[node]
                if before is not None and each is not None:
                    found[node] = before + count * each
        return tuple(found)

    def busy(self, bits: Mapping[tuple[int, int], Sequence[int]]) -> tuple[float, ...]:
        """How long the radios of each node sent or received, in seconds; `bits` as in `joules`."""
        found = [0.0] * len(self._network.nodes)
        for (edge, _), (sent, _) in sorted(bits.items()):
            channel = self._network.edges[edge]
            for node in (channel.tail, channel.head):
                found[node] += sent / self._profiles[edge].bandwidth_bps
        return tuple(found)


_OneRadio = tuple[int, str]
"""A node and the profile of those of its links that the radio is for."""
_FREED = -1
"""Stands in the queue before all messages of its time."""


class _Schedule:
    """The messages of one round, each started as soon as its radios let it.

    The queue holds what may happen next, by time: a radio gets free, or a message tries to start. A
    message that finds a radio in use lines up there; when that gets free, the first in the line
    tries, and where it cannot start for another radio, it lines up there and the next one tries.

    Args:
        network: its channels.
        profiles: of each of them.
        messages: of the round, the first to go first.
    """

    def __init__(
        self, network: Topology, profiles: Sequence[LinkConfig], messages: Sequence[Sending]
    ) -> None:
        self._profiles, self._messages = profiles, messages
        self._ends: list[tuple[int, int]] = []
        self._owed: dict[int, Counter[int]] = defaultdict(Counter)
        """Messages that a node has still to send or to get, by stage."""
        self._held: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        """Those that it may not send yet, by stage."""
        self._ready: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        """When it will have the last of those that are on their way, by stage."""
        self._free: dict[_OneRadio, float] = defaultdict(float)
        self._line: dict[_OneRadio, list[int]] = defaultdict(list)
        self._queue: list[tuple[float, int, _OneRadio | None]] = []
        for at, message in enumerate(messages):
            channel = network.edges[message.edge]
            sender = channel.sender(message.direction)
            ends = sender, channel.other(sender)
            self._ends.append(ends)
            self._held[sender][message.stage].append(at)
            for node in ends:
                self._owed[node][message.stage] += 1
        for node in list(self._held):
            self._release(node)

    def run(self) -> float:
        """When the last message is there."""
        last = 0.0
        while self._queue:
            now, at, radio = heapq.heappop(self._queue)
            if at != _FREED:
                last = max(last, self._try(now, at))
            if radio is not None and self._free[radio] <= now and self._line[radio]:
                heapq.heappush(self._queue, (now, heapq.heappop(self._line[radio]), radio))
        return last

    def _try(self, now: float, at: int) -> float:
        """Start a message, or line it up; returns when it is there, or 0."""
        message, ends = self._messages[at], self._ends[at]
        profile = self._profiles[message.edge]
        radios = [(node, profile.name) for node in ends]
        busy = max(radios, key=self._free.__getitem__)
        if self._free[busy] > now:
            heapq.heappush(self._line[busy], at)
            return 0.0
        end = now + message.sent * message.size * 8 / profile.bandwidth_bps
        there = end + profile.latency_s
        for radio in radios:
            self._free[radio] = end
            heapq.heappush(self._queue, (end, _FREED, radio))
        for node, until in zip(ends, (end, there), strict=True):
            ready = self._ready[node]
            ready[message.stage] = max(ready[message.stage], until)
            self._owed[node][message.stage] -= 1
            if not self._owed[node][message.stage]:
                self._release(node)
        return there

    def _release(self, node: int) -> None:
        """Let a node send what nothing goes before any more, once it has what it waits for."""
        stage = min((s for s, count in self._owed[node].items() if count), default=-1)
        ready = max((t for s, t in self._ready[node].items() if s < stage), default=0.0)
        for at in self._held[node].pop(stage, ()):
            heapq.heappush(self._queue, (ready, at, None))


class RadioAccount:
    """What the radios took so far.

    Args:
        radio: of the run.
    """

    def __init__(self, radio: Radio) -> None:
        self._radio = radio
        self.seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        """Sum over the rounds of a phase."""
        self.bits: dict[Phase, dict[tuple[int, int], list[int]]] = {phase: {} for phase in PHASES}
        """Sent and heard, by (channel, direction)."""

    def enter(
        self, phase: Phase, rounds: range, sendings: Iterable[Sending]
    ) -> dict[int, RoundCost]:
        """Add all messages of `rounds`, which follow those that are entered; what each took."""
        by_round: dict[int, list[Sending]] = {round_: [] for round_ in rounds}
        for message in sendings:
            by_round[message.round].append(message)
        costs = {}
        for round_, messages in by_round.items():
            bits: dict[tuple[int, int], list[int]] = {}
            for message in messages:
                _add(bits, message)
                _add(self.bits[phase], message)
            seconds = self._radio.seconds(messages)
            self.seconds[phase] += seconds
            costs[round_] = RoundCost(seconds, self._radio.joules(bits))
        return costs

    def joules(self, phase: Phase) -> tuple[float | None, ...]:
        """What each node took in a phase."""
        return self._radio.joules(self.bits[phase])

    def busy(self, phase: Phase) -> tuple[float, ...]:
        """How long the radios of each node were in use in a phase, in seconds."""
        return self._radio.busy(self.bits[phase])

    def state(self) -> dict[str, Any]:
        """The books as JSON."""
        return {
            "seconds": dict(self.seconds),
            "bits": [
                [phase, *key, *counts]
                for phase, of in self.bits.items()
                for key, counts in of.items()
            ],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on, with fresh books, from what `state` returned."""
        self.seconds.update(state["seconds"])
        for phase, edge, direction, sent, heard in state["bits"]:
            self.bits[phase][edge, direction] = [sent, heard]


def _add(bits: dict[tuple[int, int], list[int]], message: Sending) -> None:
    count = bits.setdefault((message.edge, message.direction), [0, 0])
    count[0] += 8 * message.size * message.sent
    count[1] += 8 * message.size * message.heard


def total(joules: Sequence[float | None]) -> float | None:
    """The sum over all nodes; None where one is not known."""
    known = [each for each in joules if each is not None]
    return sum(known) if len(known) == len(joules) else None
