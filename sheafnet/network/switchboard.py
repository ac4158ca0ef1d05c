"""The endpoints of one process, joined to one another and to the outside.

Frames between two of them go through the same bytes, checks and ledger as frames that leave
through the transport.
"""

from collections import deque

from sheafnet.errors import ProtocolError
from sheafnet.network.channel import Endpoint, Transport
from sheafnet.network.frame import INCARNATIONS, decode
from sheafnet.network.ledger import Entry, Ledger, key_of, measure
from sheafnet.topology import Topology


class Switchboard:
    """The endpoints of one process and their way out of it.

    Args:
        topology: the channels.
        outside: the way out; None where all nodes live here.
        incarnation: of the run. Frames of an older one, still on their way when the hosts were
            restarted, are no part of it: they are dropped, and in no ledger.
    """

    def __init__(
        self, topology: Topology, outside: Transport | None = None, incarnation: int = 0
    ) -> None:
        self._topology = topology
        self._incarnation = incarnation
        self._outside = outside
        self._endpoints: dict[int, Endpoint] = {}
        self.ledger = Ledger()
        """Sound frames for nodes that do not live here."""
        self.rejections: deque[str] = deque(maxlen=64)
        """The last refusals as text: an exception would keep its frame's buffer alive."""
        self.rejected = 0
        """Refusals in all, buffers among them that are no frame and so in no ledger."""
        self.stale = 0
        """Frames of an older incarnation."""
        self.touched: set[int] = set()
        """Nodes that have got mail since somebody last cleared this."""

    def attach(self, endpoint: Endpoint) -> None:
        """Make `endpoint` reachable."""
        self._endpoints[endpoint.node] = endpoint

    def send(self, node: int, buffer: bytes) -> None:
        """Deliver `buffer` to `node`, in this process or outside."""
        if node in self._endpoints:
            self.deliver(buffer)
        elif self._outside is not None:
            self._outside.send(node, buffer)
        else:
            raise ProtocolError(f"node {node} is not in this process and there is no way out")

    def deliver(self, buffer: bytes) -> None:
        """Give an arrived buffer to its endpoint; a refused one is counted and does no harm."""
        try:
            frame = decode(buffer)
            behind = (self._incarnation - frame.incarnation) % INCARNATIONS
            if 0 < behind < INCARNATIONS // 2 and behind <= self._incarnation:
                self.stale += 1
                return
            if frame.edge >= len(self._topology.edges):
                raise ProtocolError(f"edge {frame.edge} does not exist")
            receiver = self._topology.edges[frame.edge].receiver(frame.direction)
            endpoint = self._endpoints.get(receiver)
            if endpoint is None:
                self.ledger.record("rejected", key_of(frame), measure(frame, len(buffer)))
                raise ProtocolError(f"node {receiver} does not live in this process")
            endpoint.accept(frame, len(buffer))
            self.touched.add(receiver)
        except ProtocolError as error:
            self.rejections.append(str(error))
            self.rejected += 1

    def drain_rejections(self) -> tuple[int, list[str]]:
        """How many frames were refused since the last call, and why the last of them."""
        found = self.rejected, list(self.rejections)
        self.rejected = 0
        self.rejections.clear()
        return found

    def drain(self) -> list[Entry]:
        """The ledger entries of all endpoints since the last call."""
        entries = self.ledger.drain()
        for node in sorted(self._endpoints):
            entries += self._endpoints[node].ledger.drain()
        return entries
