"""Frames between processes over ZeroMQ: a PULL socket for all that arrives, a PUSH per peer.

On one machine the sockets are Unix ones in a folder that only the user may enter. Between
machines they are TCP with CURVE: encrypted, and open only to who knows the server key that the
run hands out through Ray. The hub counts nothing: what is a frame, and whose, is for the channels.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from sheafnet.errors import ClusterError, ConnectionLost, NetworkError
from sheafnet.network.frame import MAX_FRAME_BYTES

_BATCH = 256
_READABLE = int(zmq.POLLIN)  # the enum's own arithmetic takes as long as asking the socket
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_SPIN_S = 300e-6
"""How long a socket is looked at before its process sleeps. Longer than a message takes there and
back: two ends that wake each other up every time would never be fast again."""


@dataclass(frozen=True)
class SocketAddress:
    """Where a hub listens; `server_key` is its CURVE public key, or None on Unix sockets."""

    endpoint: str
    server_key: bytes | None = None


class SocketHub:
    """The sockets of one process.

    Args:
        bind: ``ipc:///folder/name`` or ``tcp://host`` (a free port is chosen).
        host_of: the host index of every node.
        ports: to choose the TCP port from; any by default.
        spins: whether a process that waits looks again and again for a moment before it sleeps.
            Where more processes than cores take turns, who looks keeps others from computing.
        patience_s: how long the other machine may leave unacknowledged what was sent, before the
            connection counts as lost; as long as the system waits (some 15 minutes) by default.

    Raises:
        NetworkError: nothing can listen at `bind`.
        ClusterError: none of `ports` is free.
    """

    def __init__(
        self,
        bind: str,
        host_of: Mapping[int, int],
        ports: Sequence[int] | None = None,
        spins: bool = True,
        patience_s: float | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._spin_s = _SPIN_S if spins else 0.0
        self._host_of = host_of
        self._context = zmq.Context(io_threads=1)
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.LINGER, 0)
        self._pull.setsockopt(zmq.RCVHWM, 0)  # a full queue would look like a lost connection
        self._pull.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._push: dict[int, zmq.Socket[bytes]] = {}
        self._monitors: dict[int, zmq.Socket[bytes]] = {}
        self._awaited: set[int] = set()
        """Hosts that have not answered yet."""
        key = None
        try:
            if bind.startswith("tcp://"):
                key, secret = zmq.curve_keypair()
                self._pull.curve_server = True
                self._pull.curve_secretkey = secret
                self._pull.curve_publickey = key
                port = self._bind(bind, ports)
                self.address = SocketAddress(f"{bind}:{port}", key)
            else:
                self._pull.bind(bind)
                Path(bind.removeprefix("ipc://")).chmod(0o600)
                self.address = SocketAddress(bind)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise NetworkError(f"cannot listen on {bind}: {error}") from None
        except ClusterError:
            self.close()
            raise

    def _bind(self, bind: str, ports: Sequence[int] | None) -> int:
        if ports is None:
            return self._pull.bind_to_random_port(bind)
        for port in ports:
            try:
                self._pull.bind(f"{bind}:{port}")
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
                continue
            return port
        raise ClusterError(
            f"run.ports = {ports[0]}-{ports[-1]}: none of these ports is free on {bind}. Every "
            "actor of a machine needs one; open a wider range, or raise --nodes-per-actor."
        )

    def connect(self, addresses: Mapping[int, SocketAddress]) -> None:
        """Open a socket to each of these hosts; messages queue until they answer.

        A host that is connected already is left for its new address.

        Raises:
            NetworkError: an address is malformed.
        """
        for host, address in addresses.items():
            if host in self._push:
                self._unwatch(host)
                self._push.pop(host).close(linger=0)
            push = self._context.socket(zmq.PUSH)
            push.setsockopt(zmq.LINGER, 0)
            push.setsockopt(zmq.SNDHWM, 0)
            if address.server_key is not None:
                public, secret = zmq.curve_keypair()
                push.curve_serverkey = address.server_key
                push.curve_publickey, push.curve_secretkey = public, secret
            if self._patience_s is not None:
                push.setsockopt(zmq.TCP_MAXRT, max(1, int(self._patience_s * 1000)))
            self._push[host] = push
            self._monitors[host] = push.get_monitor_socket(_EVENTS)
            self._awaited.add(host)
            try:
                push.connect(address.endpoint)
            except zmq.ZMQError as error:
                self._unwatch(host)
                self._push.pop(host).close(linger=0)
                raise NetworkError(f"cannot connect to {address.endpoint}: {error}") from None

    def await_connected(self, within_s: float) -> None:
        """Wait until every host that was connected to has answered.

        Raises:
            NetworkError: naming the address here and those that cannot be reached.
        """
        end = time.monotonic() + within_s
        silent = [
            self._endpoint(host)
            for host in sorted(self._awaited)
            if not _tells(
                self._monitors[host], zmq.EVENT_HANDSHAKE_SUCCEEDED, end - time.monotonic()
            )
        ]
        self._awaited.clear()
        if silent:
            raise NetworkError(
                f"the host on {_shown(self.address.endpoint)} cannot reach "
                f"{', '.join(map(_shown, silent))}: no answer within {within_s:.0f} s. Does a "
                "firewall stand between them? run.ports fixes the range of TCP ports to open."
            )

    def lost(self) -> ConnectionLost | None:
        """What says that a connection has ended since all were awaited; None if none has.

        ZeroMQ connects again by itself, but does not tell what of the frames before has arrived.
        """
        gone = [
            self._endpoint(host)
            for host, monitor in self._monitors.items()
            if _tells(monitor, zmq.EVENT_DISCONNECTED, 0.0)
        ]
        if not gone:
            return None
        return ConnectionLost(
            f"the host on {_shown(self.address.endpoint)} has lost its connection to "
            f"{', '.join(map(_shown, gone))}. Is the network between them cut, or closed by a "
            "firewall?"
        )

    def _endpoint(self, host: int) -> str:
        return self._push[host].getsockopt_string(zmq.LAST_ENDPOINT)

    def _unwatch(self, host: int) -> None:
        """Close a monitor; its socket stops telling events first, or libzmq waits for ever."""
        monitor = self._monitors.pop(host, None)
        self._awaited.discard(host)
        if monitor is not None:
            self._push[host].monitor(None, 0)
            monitor.close(linger=0)

    def send(self, node: int, buffer: bytes) -> None:
        """Queue `buffer` for the process of `node`."""
        host = self._host_of[node]
        socket = self._push.get(host)
        if socket is None:
            raise NetworkError(f"no connection to host {host}, where node {node} lives")
        socket.send(buffer)

    def receive(self, timeout_s: float) -> list[bytes]:
        """What has arrived, at most a batch; else the first that does within `timeout_s`, alone.

        It looks again and again for a moment before it sleeps: waking up takes longer than most
        waits, and what woke up is slow for a while. Whoever else wants the core gets it meanwhile.
        """
        buffers: list[bytes] = []
        try:
            if not self._readable():
                return [self._first(timeout_s)] if timeout_s > 0 else []
            while len(buffers) < _BATCH and self._readable():
                buffers.append(self._pull.recv(zmq.NOBLOCK))
        except zmq.Again:
            pass
        return buffers

    def _first(self, timeout_s: float) -> bytes:
        until = time.perf_counter() + min(timeout_s, self._spin_s)
        while not self._readable():
            if time.perf_counter() > until:
                self._pull.setsockopt(zmq.RCVTIMEO, max(1, int(timeout_s * 1000)))
                return self._pull.recv()
            os.sched_yield()
        return self._pull.recv(zmq.NOBLOCK)

    def _readable(self) -> bool:
        events: Any = self._pull.getsockopt(zmq.EVENTS)
        return bool(events & _READABLE)

    def close(self) -> None:
        """Close every socket; nothing more is sent."""
        for host in list(self._monitors):
            self._unwatch(host)
        for socket in (self._pull, *self._push.values()):
            socket.close(linger=0)
        self._push.clear()
        self._context.term()


def _tells(monitor: zmq.Socket[bytes], event: zmq.Event, within_s: float) -> bool:
    """Whether `monitor` tells of `event` in time; events before it are read."""
    end = time.monotonic() + within_s
    while monitor.poll(max(0, int((end - time.monotonic()) * 1000))):
        if recv_monitor_message(monitor)["event"] == event:
            return True
    return False


def _shown(endpoint: str) -> str:
    return endpoint.removeprefix("tcp://").removeprefix("ipc://")
