"""The channels of a node: what each edge allows, and the mail that has arrived.

An `Endpoint` is a node's side of all its edges. It refuses to send what its edge does not allow
and refuses to accept what the other end may not have sent (law 3): another run, an edge of
somebody else, the wrong direction, an older incarnation, a payload that is not (rows, d_ij), a
kind without a place in the method, a second copy.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from sheafnet.errors import DivergenceError, FrameError, ProtocolError
from sheafnet.network.frame import (
    Address,
    Frame,
    Kind,
    Mask,
    encode,
    pack_mask,
    round_of,
    step_of,
    unpack_mask,
)
from sheafnet.network.ledger import Count, Fate, Key, Ledger, key_of, measure
from sheafnet.network.links import ARRIVES, Links, Lot
from sheafnet.network.payload import Array, WireDtype, all_finite, pack, unpack
from sheafnet.network.radio import Sending
from sheafnet.network.reception import Reception
from sheafnet.seeds import stream
from sheafnet.topology import Edge, Topology

_ONE_MESSAGE = Count(messages=1)
_ONCE: tuple[Lot, ...] = ("delivered",)
"""Attempts at a message where no simulated link says otherwise."""
_HEARD: dict[Lot, int] = {"delivered": 1, "duplicated": 2, "late": 1, "rejected": 1, "dropped": 0}
"""How often a transmission reaches the receiver's radio."""
UNREAD_LIMIT = 16
"""Frames of one edge that may wait unread, steps of diffusion aside; an honest neighbour is at most
a round ahead."""
_WHOLE = frozenset({Kind.PROJECTION, Kind.GRADIENT, Kind.GALLERY, Kind.CALIBRATION})
"""Kinds that always carry every row of the batch, and so no mask."""
_REPLIES = frozenset({Kind.ANSWER, Kind.ESTIMATE})
"""Kinds whose rows, and so their mask, are among those that were asked for."""


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived: `array` is (rows, d_ij); `mask` names its rows in the batch, or is None."""

    array: Array
    mask: Mask | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What every edge of a run allows beside its own d_ij."""

    run: int
    rows: dict[Kind, int]
    """Rows of a whole batch (and mask bits) of each kind that the run uses; others are refused."""
    dtypes: dict[Kind, WireDtype]
    iterations: int = 0
    """Steps of diffusion in an inference round."""
    stochastic: dict[Kind, int] = field(default_factory=dict)
    """The seed of each kind whose int8 is rounded stochastically; all others round to nearest."""

    @property
    def unread(self) -> int:
        """Frames of one edge that may wait unread: as many rounds, whatever their steps."""
        return UNREAD_LIMIT * (1 + self.iterations)


class Transport(Protocol):
    """Carries a buffer to the process of another node."""

    def send(self, node: int, buffer: bytes) -> None:
        """Hand over `buffer` for `node`; never blocks for long, never alters it."""
        ...


class Endpoint:
    """One node's side of its edges.

    Args:
        topology: the channels.
        node: whose side this is.
        limits: what every edge of the run allows.
        transport: what carries a buffer to the other end.
        incarnation: how often the node has been restarted.
        links: simulated links; None where every frame is delivered.
        radio: whether what is sent is noted for `drain_sendings`.
    """

    def __init__(
        self,
        topology: Topology,
        node: int,
        limits: Limits,
        transport: Transport,
        incarnation: int = 0,
        links: Links | None = None,
        radio: bool = False,
    ) -> None:
        self.node = node
        self.ledger = Ledger()
        self._topology = topology
        self._edges = {edge.index: edge for edge in topology.incident(node)}
        self._limits = limits
        self._transport = transport
        self._incarnation = incarnation
        self._links = links
        self._reception = None if links is None else Reception(links, topology, node)
        self._peer_incarnation = dict.fromkeys(self._edges, 0)
        self._mail: dict[Address, Message] = {}
        self._unread = dict.fromkeys(self._edges, 0)
        self._last_taken: dict[tuple[int, Kind], int] = {}
        self._missed: set[Address] = set()
        self._asked: dict[int, tuple[int, Mask]] = {}
        self._seconds = 0.0
        self._radio = radio
        self._sendings: list[Sending] = []

    def send(
        self,
        edge: int,
        kind: Kind,
        number: int,
        array: Array | None = None,
        mask: Mask | None = None,
    ) -> bool:
        """Encode once, count that buffer, hand it over; over a simulated link, at every attempt.

        Args:
            edge: index of an edge of this node.
            kind: what the frame is.
            number: the round within the kind's phase; of an estimate, as `frame.numbered` has it.
            array: (rows, d_ij) float32; None for a request.
            mask: the rows that are meant: of those asked for in an answer or an estimate, else of
                the batch.

        Returns:
            Whether the link brings it there in time. A sender learns that at no cost; of a peer
            that dies it learns nothing.

        Raises:
            ProtocolError: the edge does not allow it.
            DivergenceError: the array is not finite.
        """
        begin = time.thread_time()
        own, round_ = self._edge(edge), round_of(kind, number)
        try:
            rows = self._checked_rows(own, kind, round_, array, mask)
        except ProtocolError as error:
            arrow = self._arrow(own, self.node)
            raise ProtocolError(f"{arrow}, round {round_}: {error}") from None
        dtype = WireDtype.NONE if array is None else self._limits.dtypes[kind]
        key = Key(kind.phase, round_, edge, own.direction(self.node))
        seed, draws = self._limits.stochastic.get(kind), None
        if seed is not None:
            draws = stream(seed, "rounding", edge, key.direction, kind.name, round_)
        frame = Frame(
            kind=kind,
            run=self._limits.run,
            incarnation=self._incarnation,
            round=number,
            edge=edge,
            direction=key.direction,
            dtype=dtype,
            rows=rows,
            mask=None if mask is None else pack_mask(mask),
            payload=b"" if array is None else pack(array, dtype, draws),
        )
        if kind is Kind.REQUEST and mask is not None:
            self._asked[edge] = round_, mask.copy()
        buffer = encode(frame)
        count, receiver = measure(frame, len(buffer)), own.other(self.node)
        attempts = _ONCE
        if self._links is not None:
            attempts = self._links.attempts(kind, number, edge, key.direction)
        for _ in attempts:
            self.ledger.record("sent", key, count)
            self._transport.send(receiver, buffer)
        if self._radio and attempts:
            heard = sum(_HEARD[lot] for lot in attempts)
            size, times = len(buffer), len(attempts)
            step = step_of(number) if kind is Kind.ESTIMATE else 0
            self._sendings.append(
                Sending(kind, edge, key.direction, round_, size, times, heard, step)
            )
        self._seconds += time.thread_time() - begin
        return bool(attempts) and attempts[-1] in ARRIVES

    def drain_sendings(self) -> list[Sending]:
        """What was sent since the last call, where that is noted."""
        sent, self._sendings = self._sendings, []
        return sent

    def drain_seconds(self) -> float:
        """Processor seconds spent in `send`, local delivery included, since the last call."""
        spent, self._seconds = self._seconds, 0.0
        return spent

    def accept(self, frame: Frame, size: int) -> None:
        """Count and keep a frame that arrived in `size` bytes.

        Raises:
            ProtocolError: the frame is refused, and counted as rejected.
        """
        address = (frame.edge, frame.kind, frame.round)
        count = measure(frame, size)
        fate: Fate | None = "rejected"
        try:
            edge = self._edge(frame.edge)
            try:
                message = self._checked(edge, frame)
            except FrameError:
                raise
            except ProtocolError as error:
                arrow = self._arrow(edge, edge.other(self.node))
                round_ = round_of(frame.kind, frame.round)
                raise ProtocolError(f"{arrow}, round {round_}: {error}") from None
            if self._reception is not None and not self._passes(self._reception, frame, count):
                fate = None
            elif address in self._missed:
                self._missed.discard(address)
                fate = "late"
            elif address in self._mail or frame.round <= self._last_taken.get(address[:2], -1):
                fate = "duplicated"
            else:
                fate = "delivered"
                self._mail[address] = message
                self._unread[frame.edge] += 1
        except FrameError as error:
            raise FrameError(str(error), frame.edge) from None
        finally:
            if fate is not None:
                self.ledger.record(fate, key_of(frame), count)

    def _passes(self, reception: Reception, frame: Frame, count: Count) -> bool:
        """Whether a simulated link lets a sound frame through; if not, it is counted when missed.

        Of an address that nothing is to come of any more all that comes is a copy.
        """
        address = (frame.edge, frame.kind, frame.round)
        missed = address in self._missed
        if frame.round <= self._last_taken.get(address[:2], -1) and not missed:
            return True
        lot = reception.add(frame, count)
        if lot == "duplicated":
            self.ledger.record("duplicated", key_of(frame), count)
        elif lot not in ARRIVES and missed:
            self._settle(reception, address)
        return lot in ARRIVES

    def arrived(self, addresses: Iterable[Address]) -> bool:
        """Whether everything in `addresses` is here, or will not come over a simulated link."""
        if self._reception is None:
            return all(address in self._mail for address in addresses)
        over = self._reception.over
        return all(address in self._mail or over(address) for address in addresses)

    def take(self, addresses: Iterable[Address]) -> dict[int, Message]:
        """Hand out what has arrived of `addresses`, by edge; the rest is recorded as missed.

        A node takes the frames of a kind from an edge in the order of their rounds. One that sleeps
        misses nothing.
        """
        found = {}
        for address in addresses:
            edge, kind, number = address
            message = self._mail.pop(address, None)
            self._last_taken[edge, kind] = number
            if message is None:
                self._miss(address)
            else:
                self._unread[edge] -= 1
                found[edge] = message
            if self._reception is not None:
                self._settle(self._reception, address)
        return found

    def _miss(self, address: Address) -> None:
        reception = self._reception
        if reception is None or not reception.over(address):
            self._missed.add(address)
        if reception is None or reception.awaits(address):
            self.ledger.record("missed", self._incoming(address), _ONE_MESSAGE)

    def _settle(self, reception: Reception, address: Address) -> None:
        for fate, count in reception.settle(address):
            self.ledger.record(fate, self._incoming(address), count)

    def _incoming(self, address: Address) -> Key:
        edge, kind, number = address
        direction = 1 - self._edges[edge].direction(self.node)
        return Key(kind.phase, round_of(kind, number), edge, direction)

    def _edge(self, index: int) -> Edge:
        edge = self._edges.get(index)
        if edge is None:
            name = self._topology.nodes[self.node].id
            raise ProtocolError(f"edge {index} is no edge of {name}")
        return edge

    def _checked_rows(
        self, edge: Edge, kind: Kind, round_: int, array: Array | None, mask: Mask | None
    ) -> int:
        limit = self._limits.rows.get(kind, -1)
        if mask is not None and not (
            mask.shape == (limit,) or (kind in _REPLIES and mask.ndim == 1 and mask.size < limit)
        ):
            raise ProtocolError(f"a row mask of shape {mask.shape} for {limit} rows")
        if array is None:
            if kind is not Kind.REQUEST:
                raise ProtocolError(f"a {kind.name.lower()} without a tensor")
            _check_rows(kind, limit, 0, mask)
            return 0
        if kind is Kind.REQUEST:
            raise ProtocolError("a request carries no tensor")
        if array.ndim != 2 or array.shape[1] != edge.dim or array.shape[0] > limit:
            raise ProtocolError(
                f"a {kind.name.lower()} of shape {array.shape}; "
                f"this edge carries (at most {max(limit, 0)}, {edge.dim}) and nothing else"
            )
        _check_rows(kind, limit, len(array), mask)
        if not all_finite(array):
            raise DivergenceError(
                f"node {self._topology.nodes[self.node].id}, edge {self._arrow(edge, self.node)}, "
                f"{kind.phase} round {round_}: the {kind.name.lower()} has NaN or infinite values. "
                "Try a lower training.learning_rate or a higher training.temperature."
            )
        return int(array.shape[0])

    def _checked(self, edge: Edge, frame: Frame) -> Message:
        if frame.run != self._limits.run:
            raise ProtocolError(f"a frame of another run ({frame.run:#x})")
        if frame.direction == edge.direction(self.node):
            raise ProtocolError("a frame in the direction of its own receiver")
        if frame.incarnation < self._peer_incarnation[frame.edge]:
            raise ProtocolError(f"a frame of incarnation {frame.incarnation}, now stale")
        limit = self._limits.rows.get(frame.kind)
        if limit is None:
            raise ProtocolError(f"this run has no {frame.kind.name.lower()}")
        expected = WireDtype.NONE if frame.kind is Kind.REQUEST else self._limits.dtypes[frame.kind]
        if frame.dtype is not expected:
            raise ProtocolError(f"{frame.dtype.name} where {expected.name} was agreed")
        if self._unread[frame.edge] >= self._limits.unread:
            raise ProtocolError(f"{self._limits.unread} frames are unread already")
        if frame.kind is Kind.ESTIMATE and not 1 <= step_of(frame.round) <= self._limits.iterations:
            raise ProtocolError(
                f"step {step_of(frame.round)} of {self._limits.iterations} of diffusion"
            )
        mask = None if frame.mask is None else unpack_mask(frame.mask, limit)
        _check_rows(frame.kind, limit, frame.rows, mask)
        if frame.kind in _REPLIES:
            mask = self._answered_rows(frame, mask)
        array = unpack(frame.payload, frame.dtype, frame.rows, edge.dim)
        self._peer_incarnation[frame.edge] = frame.incarnation
        return Message(array, mask)

    def _answered_rows(self, frame: Frame, given: Mask | None) -> Mask | None:
        """The rows of the batch that a reply has; None where it has all that were asked for.

        A reply that nobody will read any more is not looked into.
        """
        if frame.round <= self._last_taken.get((frame.edge, frame.kind), -1):
            return None
        round_, asked = self._asked.get(frame.edge, (-1, None))
        if asked is None or round_of(frame.kind, frame.round) != round_:
            raise ProtocolError(f"an {frame.kind.name.lower()} that nobody asked for")
        count = int(asked.sum())
        if given is None:
            if frame.rows != count:
                raise ProtocolError(f"{frame.rows} rows where {count} were asked for")
            return None
        if given[count:].any():
            raise ProtocolError(f"a row mask that names rows beyond {count}")
        rows = asked.copy()
        rows[asked] = given[:count]
        return rows

    def _arrow(self, edge: Edge, sender: int) -> str:
        return self._topology.arrow(edge.index, edge.direction(sender))


def _check_rows(kind: Kind, limit: int, rows: int, mask: Mask | None) -> None:
    """What a kind may have for rows and mask; the same rule at both ends."""
    if mask is None:
        right = rows == limit if kind in _WHOLE else kind in _REPLIES and rows <= limit
    else:
        named = 0 if kind is Kind.REQUEST else int(mask.sum())
        right = kind not in _WHOLE and rows == named
    if not right:
        masked = "no row mask" if mask is None else f"a mask of {int(mask.sum())} rows"
        raise ProtocolError(
            f"a {kind.name.lower()} of {rows} rows with {masked}, of {limit} in all"
        )
