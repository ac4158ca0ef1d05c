"""The channels of a node: what each edge allows, and the mail that has arrived.

An `Endpoint` is a node's side of all its edges. It refuses to send what its edge does not allow
and refuses to accept what the other end may not have sent (law 3): another run, an edge of
somebody else, the wrong direction, an older incarnation, a payload that is not (rows, d_ij), a
kind without a place in the method, a second copy.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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


class Message(NamedTuple):
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


@dataclass(slots=True)
class _Side:
    """An edge as one of its two nodes sees it."""

    edge: Edge
    peer: int
    """The node at the other end."""
    outgoing: int
    """The direction of what is sent here."""
    peer_incarnation: int = 0
    unread: int = 0
    """Frames that have arrived and were not taken yet."""
    taken: dict[Kind, int] = field(default_factory=dict)
    """The number of the last frame of each kind that was asked for by `take`."""
    asked: tuple[int, Mask] | None = None
    """The round and the rows of the last request that was sent."""


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
        self._sides = {
            edge.index: _Side(edge, edge.other(node), edge.direction(node))
            for edge in topology.incident(node)
        }
        self._limits = limits
        self._most_unread = UNREAD_LIMIT * (1 + limits.iterations)
        self._transport = transport
        self._incarnation = incarnation
        self._links = links
        self._reception = None if links is None else Reception(links, topology, node)
        self._mail: dict[Address, Message] = {}
        self._missed: set[Address] = set()
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
        """Encode once, hand that buffer over, count it; over a simulated link, at every attempt.

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
        begin = time.perf_counter()
        side, round_ = self._side(edge), round_of(kind, number)
        direction = side.outgoing
        try:
            rows = self._checked_rows(side, kind, round_, array, mask)
        except ProtocolError as error:
            arrow = self._topology.arrow(edge, direction)
            raise ProtocolError(f"{arrow}, round {round_}: {error}") from None
        dtype, draws = WireDtype.NONE if array is None else self._limits.dtypes[kind], None
        if kind in self._limits.stochastic:
            seed = self._limits.stochastic[kind]
            draws = stream(seed, "rounding", edge, direction, kind.name, round_)
        frame = Frame(
            kind,
            self._limits.run,
            self._incarnation,
            number,
            edge,
            direction,
            dtype,
            rows,
            None if mask is None else pack_mask(mask),
            b"" if array is None else pack(array, dtype, draws),
        )
        if kind is Kind.REQUEST and mask is not None:
            side.asked = round_, mask.copy()
        buffer = encode(frame)
        attempts = _ONCE
        if self._links is not None:
            attempts = self._links.attempts(kind, number, edge, direction)
        for _ in attempts:
            self._transport.send(side.peer, buffer)
        key, count = Key(kind.phase, round_, edge, direction), measure(frame, len(buffer))
        for _ in attempts:
            self.ledger.record("sent", key, count)
        if self._radio and attempts:
            heard = sum(_HEARD[lot] for lot in attempts)
            size, times = len(buffer), len(attempts)
            step = step_of(number) if kind is Kind.ESTIMATE else 0
            self._sendings.append(Sending(kind, edge, direction, round_, size, times, heard, step))
        self._seconds += time.perf_counter() - begin
        return bool(attempts) and attempts[-1] in ARRIVES

    def drain_sendings(self) -> list[Sending]:
        """What was sent since the last call, where that is noted."""
        sent, self._sendings = self._sendings, []
        return sent

    def drain_seconds(self) -> float:
        """Seconds spent in `send`, local delivery included, since the last call."""
        spent, self._seconds = self._seconds, 0.0
        return spent

    def accept(self, frame: Frame, size: int) -> None:
        """Count and keep a frame that arrived in `size` bytes.

        Raises:
            ProtocolError: the frame is refused, and counted as rejected.
        """
        key, count = key_of(frame), measure(frame, size)
        fate: Fate | None = "rejected"
        try:
            side = self._side(frame.edge)
            try:
                message = self._checked(side, frame)
            except FrameError:
                raise
            except ProtocolError as error:
                arrow = self._topology.arrow(frame.edge, 1 - side.outgoing)
                raise ProtocolError(f"{arrow}, round {key.round}: {error}") from None
            address = (frame.edge, frame.kind, frame.round)
            if self._reception is not None and not self._passes(self._reception, frame, count):
                fate = None
            elif address in self._missed:
                self._missed.discard(address)
                fate = "late"
            elif address in self._mail or frame.round <= side.taken.get(frame.kind, -1):
                fate = "duplicated"
            else:
                fate = "delivered"
                self._mail[address] = message
                side.unread += 1
        except FrameError as error:
            raise FrameError(str(error), frame.edge) from None
        finally:
            if fate is not None:
                self.ledger.record(fate, key, count)

    def _passes(self, reception: Reception, frame: Frame, count: Count) -> bool:
        """Whether a simulated link lets a sound frame through; if not, it is counted when missed.

        Of an address that nothing is to come of any more all that comes is a copy.
        """
        address = (frame.edge, frame.kind, frame.round)
        missed = address in self._missed
        if frame.round <= self._sides[frame.edge].taken.get(frame.kind, -1) and not missed:
            return True
        lot = reception.add(frame, count)
        if lot == "duplicated":
            self.ledger.record("duplicated", key_of(frame), count)
        elif lot not in ARRIVES and missed:
            self._settle(reception, address)
        return lot in ARRIVES

    def arrived(self, addresses: Iterable[Address]) -> bool:
        """Whether everything in `addresses` is here, or will not come over a simulated link."""
        mail, reception = self._mail, self._reception
        for address in addresses:
            if address not in mail and (reception is None or not reception.over(address)):
                return False
        return True

    def take(self, addresses: Iterable[Address]) -> dict[int, Message]:
        """Hand out what has arrived of `addresses`, by edge; the rest is recorded as missed.

        A node takes the frames of a kind from an edge in the order of their rounds. One that sleeps
        misses nothing.
        """
        found = {}
        for address in addresses:
            edge, kind, number = address
            side, message = self._sides[edge], self._mail.pop(address, None)
            side.taken[kind] = number
            if message is None:
                self._miss(address)
            else:
                side.unread -= 1
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
        return Key(kind.phase, round_of(kind, number), edge, 1 - self._sides[edge].outgoing)

    def _side(self, edge: int) -> _Side:
        side = self._sides.get(edge)
        if side is None:
            name = self._topology.nodes[self.node].id
            raise ProtocolError(f"edge {edge} is no edge of {name}")
        return side

    def _checked_rows(
        self, side: _Side, kind: Kind, round_: int, array: Array | None, mask: Mask | None
    ) -> int:
        limit, dim = self._limits.rows.get(kind, -1), side.edge.dim
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
        shape: tuple[int, ...] = array.shape
        if len(shape) != 2 or shape[1] != dim or shape[0] > limit:
            raise ProtocolError(
                f"a {kind.name.lower()} of shape {shape}; "
                f"this edge carries (at most {max(limit, 0)}, {dim}) and nothing else"
            )
        _check_rows(kind, limit, shape[0], mask)
        if not all_finite(array):
            arrow = self._topology.arrow(side.edge.index, side.outgoing)
            raise DivergenceError(
                f"node {self._topology.nodes[self.node].id}, edge {arrow}, "
                f"{kind.phase} round {round_}: the {kind.name.lower()} has NaN or infinite values. "
                "Try a lower training.learning_rate or a higher training.temperature."
            )
        return shape[0]

    def _checked(self, side: _Side, frame: Frame) -> Message:
        limits, kind = self._limits, frame.kind
        if frame.run != limits.run:
            raise ProtocolError(f"a frame of another run ({frame.run:#x})")
        if frame.direction == side.outgoing:
            raise ProtocolError("a frame in the direction of its own receiver")
        if frame.incarnation < side.peer_incarnation:
            raise ProtocolError(f"a frame of incarnation {frame.incarnation}, now stale")
        limit = limits.rows.get(kind)
        if limit is None:
            raise ProtocolError(f"this run has no {kind.name.lower()}")
        expected = WireDtype.NONE if kind is Kind.REQUEST else limits.dtypes[kind]
        if frame.dtype is not expected:
            raise ProtocolError(f"{frame.dtype.name} where {expected.name} was agreed")
        if side.unread >= self._most_unread:
            raise ProtocolError(f"{self._most_unread} frames are unread already")
        if kind is Kind.ESTIMATE and not 1 <= step_of(frame.round) <= limits.iterations:
            raise ProtocolError(f"step {step_of(frame.round)} of {limits.iterations} of diffusion")
        mask = None if frame.mask is None else unpack_mask(frame.mask, limit)
        _check_rows(kind, limit, frame.rows, mask)
        if kind in _REPLIES:
            mask = self._answered_rows(side, frame, mask)
        array = unpack(frame.payload, frame.dtype, frame.rows, side.edge.dim)
        side.peer_incarnation = frame.incarnation
        return Message(array, mask)

    def _answered_rows(self, side: _Side, frame: Frame, given: Mask | None) -> Mask | None:
        """The rows of the batch that a reply has; None where it has all that were asked for.

        A reply that nobody will read any more is not looked into.
        """
        if frame.round <= side.taken.get(frame.kind, -1):
            return None
        if side.asked is None or round_of(frame.kind, frame.round) != side.asked[0]:
            raise ProtocolError(f"an {frame.kind.name.lower()} that nobody asked for")
        asked = side.asked[1]
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
