"""Frames between processes: what the sockets of every kind have in common.

On one machine they are Unix sockets (`unix`), between machines encrypted ZeroMQ ones (`curve`). A
hub counts nothing: what is a frame, and whose, is for the channels.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sheafnet.errors import ConnectionLost, NetworkError

BATCH = 256
"""Frames that `Hub.receive` gives at a time, at most."""
_SPIN_S = 300e-6
"""How long a hub looks before its process sleeps. Longer than a message takes there and back: two
ends that wake each other up every time would never be fast again."""


@dataclass(frozen=True)
class SocketAddress:
    """Where a hub listens; `server_key` is its CURVE public key, or None on Unix sockets."""

    endpoint: str
    server_key: bytes | None = None


class Outgoing(Protocol):
    """The way to another process."""

    def send(self, buffer: bytes) -> object:
        """Queue `buffer`."""
        ...


_Way = TypeVar("_Way", bound=Outgoing)


class Hub(ABC, Generic[_Way]):
    """The sockets of one process.

    Args:
        host_of: the host index of every node.
        spins: whether a process that waits looks again and again for a moment before it sleeps.
            Where more processes than cores take turns, who looks keeps others from computing.
    """

    address: SocketAddress

    def __init__(self, host_of: Mapping[int, int], spins: bool) -> None:
        self._host_of = host_of
        self._spin_s = _SPIN_S if spins else 0.0
        self._ways: dict[int, _Way] = {}
        """By host."""

    @abstractmethod
    def connect(self, addresses: Mapping[int, SocketAddress]) -> None:
        """Open the way to each of these hosts; messages queue until they answer.

        A host that is connected already is left for its new address.

        Raises:
            NetworkError: an address is malformed.
        """

    def await_connected(self, within_s: float) -> None:
        """Wait until every host that was connected to has answered.

        Raises:
            NetworkError: naming the address here and those that cannot be reached.
        """
        silent = self._silent(within_s)
        if silent:
            raise NetworkError(
                f"the host on {_shown(self.address.endpoint)} cannot reach "
                f"{', '.join(map(_shown, silent))}: no answer within {within_s:.0f} s. Does a "
                "firewall stand between them? run.ports fixes the range of TCP ports to open."
            )

    def lost(self) -> ConnectionLost | None:
        """What says that a connection has ended since all were awaited; None if none has.

        Each is told of once. What was on its way may have arrived or not.
        """
        gone = self._gone()
        if not gone:
            return None
        return ConnectionLost(
            f"the host on {_shown(self.address.endpoint)} has lost its connection to "
            f"{', '.join(map(_shown, gone))}. Is the network between them cut, or closed by a "
            "firewall?"
        )

    def send(self, node: int, buffer: bytes) -> None:
        """Queue `buffer` for the process of `node`."""
        host = self._host_of[node]
        way = self._ways.get(host)
        if way is None:
            raise NetworkError(f"no connection to host {host}, where node {node} lives")
        way.send(buffer)

    def receive(self, timeout_s: float) -> list[bytes]:
        """What has arrived, at most `BATCH`; else what does first, within `timeout_s`.

        It looks again and again for a moment before it sleeps: waking up takes longer than most
        waits, and what woke up is slow for a while. Whoever else wants the core gets it meanwhile.
        """
        found = self._look(0.0)
        if found or timeout_s <= 0.0:
            return found
        now = time.perf_counter()
        awake, end = now + min(timeout_s, self._spin_s), now + timeout_s
        while not found and now < end:
            if now < awake:
                os.sched_yield()
                found = self._look(0.0)
            else:
                found = self._look(end - now)
            now = time.perf_counter()
        return found

    @abstractmethod
    def close(self) -> None:
        """Close every socket; nothing more is sent."""

    @abstractmethod
    def _silent(self, within_s: float) -> list[str]:
        """The endpoints that were connected to and have not answered in time."""

    @abstractmethod
    def _gone(self) -> list[str]:
        """The endpoints whose connection has ended, each told of once."""

    @abstractmethod
    def _look(self, timeout_s: float) -> list[bytes]:
        """What has arrived, at most `BATCH`; waits for it, but may come back early with nothing."""


def open_hub(
    bind: str,
    host_of: Mapping[int, int],
    ports: Sequence[int] | None = None,
    spins: bool = True,
    patience_s: float | None = None,
) -> Hub[Any]:
    """The hub that listens on `bind`, ``unix:///folder/name`` or ``tcp://host``.

    Only a hub between machines imports ZeroMQ; `ports` and `patience_s` are of such a one
    (`CurveHub`), the other arguments of `Hub`.

    Raises:
        NetworkError: nothing can listen there.
        ClusterError: none of `ports` is free.
    """
    if bind.startswith("unix://"):
        from sheafnet.network.unix import UnixHub

        return UnixHub(bind, host_of, spins)
    if bind.startswith("tcp://"):
        from sheafnet.network.curve import CurveHub

        return CurveHub(bind, host_of, ports, spins, patience_s)
    raise NetworkError(f"cannot listen on {bind}: it begins with neither unix:// nor tcp://")


def _shown(endpoint: str) -> str:
    return endpoint.removeprefix("tcp://").removeprefix("unix://")
