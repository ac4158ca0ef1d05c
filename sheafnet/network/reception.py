"""The receiving end of a node's simulated links.

Every transmission reaches the other process as it was sent; what its link made of it takes effect
here. The n-th frame of an address gets the n-th fate, and since the frames of an address are equal
it does not matter which is which. What did not get through is counted when the node goes on
without it: in its own round, whenever it arrived.
"""

from sheafnet.errors import FrameError
from sheafnet.network.frame import Address, Frame, decode, encode, round_of
from sheafnet.network.ledger import Count, Fate
from sheafnet.network.links import ARRIVES, Links, Lot
from sheafnet.topology import Topology


class Reception:
    """What has come over the links to one node, and did not get through.

    Args:
        links: of the run.
        network: its channels.
        node: the receiver.
    """

    def __init__(self, links: Links, network: Topology, node: int) -> None:
        self._links = links
        self._node = node
        self._incoming = {e.index: 1 - e.direction(node) for e in network.incident(node)}
        self._failed: dict[Address, list[tuple[Fate, Count]]] = {}

    def add(self, frame: Frame, count: Count) -> Lot:
        """What the link made of `frame`, which has arrived and is `count` in size.

        What got through is the caller's; all else is kept until `settle`.
        """
        address = (frame.edge, frame.kind, frame.round)
        attempts, at = self._attempts(address), len(self._failed.get(address, ()))
        lot: Lot = attempts[at] if at < len(attempts) else "rejected"
        if lot in ARRIVES:
            return lot
        if at < len(attempts) and lot == "rejected":
            self._refuse_damaged(frame, at)
        self._failed.setdefault(address, []).append((lot, count))
        return lot

    def over(self, address: Address) -> bool:
        """Whether every transmission has come and none got through, or there was none."""
        return len(self._failed.get(address, ())) >= len(self._attempts(address))

    def settle(self, address: Address) -> list[tuple[Fate, Count]]:
        """Hand out and forget what did not get through."""
        return self._failed.pop(address, [])

    def awaits(self, address: Address) -> bool:
        """Whether the node is awake in that round, and so misses what does not come."""
        _, kind, number = address
        return not self._links.asleep(kind.phase, round_of(kind, number), self._node)

    def _attempts(self, address: Address) -> tuple[Lot, ...]:
        edge, kind, number = address
        return self._links.attempts(kind, number, edge, self._incoming[edge])

    def _refuse_damaged(self, frame: Frame, attempt: int) -> None:
        """Damage the bytes of `frame`, of which there is one encoding, and have them refused."""
        try:
            decode(self._links.damage(frame, attempt, encode(frame)))
        except FrameError:
            return
        raise AssertionError(f"a damaged frame was decoded (edge {frame.edge})")
