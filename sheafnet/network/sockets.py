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

from sheafnet.errors import ClusterError, NetworkError
from sheafnet.network.frame import MAX_FRAME_BYTES

_BATCH = 256
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
    ) -> None:
        self._spin_s = _SPIN_S if spins else 0.0
        self._host_of = host_of
        self._context = zmq.Context(io_threads=1)
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.LINGER, 0)
        self._pull.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._push: dict[int, zmq.Socket[bytes]] = {}
        self._monitors: dict[int, zmq.Socket[bytes]] = {}
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
            self._push[host] = push
            self._monitors[host] = push.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
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
        silent = []
        for host in list(self._monitors):
            monitor = self._monitors[host]
            if monitor.poll(max(0, int((end - time.monotonic()) * 1000))):
                recv_monitor_message(monitor)
            else:
                silent.append(self._push[host].getsockopt_string(zmq.LAST_ENDPOINT))
            self._unwatch(host)
        if silent:
            raise NetworkError(
                f"the host on {_shown(self.address.endpoint)} cannot reach "
                f"{', '.join(map(_shown, silent))}: no answer within {within_s:.0f} s. Does a "
                "firewall stand between them? run.ports fixes the range of TCP ports to open."
            )

    def _unwatch(self, host: int) -> None:
        """Close a monitor; its socket stops telling events first, or libzmq waits for ever."""
        monitor = self._monitors.pop(host, None)
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
        """What has arrived, at most a batch; waits up to `timeout_s` for the first.

        It looks again and again for a moment before it sleeps: waking up takes longer than most
        waits, and what woke up is slow for a while. Whoever else wants the core gets it meanwhile.
        """
        buffers: list[bytes] = []
        try:
            if not self._readable():
                if timeout_s <= 0:
                    return buffers
                until = time.perf_counter() + min(timeout_s, self._spin_s)
                while not self._readable():
                    if time.perf_counter() > until:
                        self._pull.setsockopt(zmq.RCVTIMEO, max(1, int(timeout_s * 1000)))
                        buffers.append(self._pull.recv())
                        break
                    os.sched_yield()
            while len(buffers) < _BATCH and self._readable():
                buffers.append(self._pull.recv(zmq.NOBLOCK))
        except zmq.Again:
            pass
        return buffers

    def _readable(self) -> bool:
        events: Any = self._pull.getsockopt(zmq.EVENTS)
        return bool(events & zmq.POLLIN)

    def close(self) -> None:
        """Close every socket; nothing more is sent."""
        for host in list(self._monitors):
            self._unwatch(host)
        for socket in (self._pull, *self._push.values()):
            socket.close(linger=0)
        self._push.clear()
        self._context.term()


def _shown(endpoint: str) -> str:
    return endpoint.removeprefix("tcp://").removeprefix("ipc://")
