"""Frames between processes over ZeroMQ: a PULL socket for all that arrives, a PUSH per peer.

On one machine the sockets are Unix ones in a folder that only the user may enter. Between
machines they are TCP with CURVE: encrypted, and open only to who knows the server key that the
run hands out through Ray. The hub counts nothing: what is a frame, and whose, is for the channels.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from sheafnet.errors import NetworkError
from sheafnet.network.frame import MAX_FRAME_BYTES

_BATCH = 256
_SPIN_S = 100e-6
"""How long a socket is looked at before its process sleeps."""


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
    """

    def __init__(self, bind: str, host_of: Mapping[int, int]) -> None:
        self._host_of = host_of
        self._context = zmq.Context(io_threads=1)
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.LINGER, 0)
        self._pull.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._push: dict[int, zmq.Socket[bytes]] = {}
        key = None
        try:
            if bind.startswith("tcp://"):
                key, secret = zmq.curve_keypair()
                self._pull.curve_server = True
                self._pull.curve_secretkey = secret
                self._pull.curve_publickey = key
                port = self._pull.bind_to_random_port(bind)
                self.address = SocketAddress(f"{bind}:{port}", key)
            else:
                self._pull.bind(bind)
                Path(bind.removeprefix("ipc://")).chmod(0o600)
                self.address = SocketAddress(bind)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise NetworkError(f"cannot listen on {bind}: {error}") from None

    def connect(self, addresses: Mapping[int, SocketAddress]) -> None:
        """Open a socket to each of these hosts; messages queue until they answer.

        A host that is connected already is left for its new address.

        Raises:
            NetworkError: an address is malformed.
        """
        for host, address in addresses.items():
            if host in self._push:
                self._push.pop(host).close(linger=0)
            push = self._context.socket(zmq.PUSH)
            push.setsockopt(zmq.LINGER, 0)
            push.setsockopt(zmq.SNDHWM, 0)
            if address.server_key is not None:
                public, secret = zmq.curve_keypair()
                push.curve_serverkey = address.server_key
                push.curve_publickey, push.curve_secretkey = public, secret
            try:
                push.connect(address.endpoint)
            except zmq.ZMQError as error:
                push.close(linger=0)
                raise NetworkError(f"cannot connect to {address.endpoint}: {error}") from None
            self._push[host] = push

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
                until = time.perf_counter() + min(timeout_s, _SPIN_S)
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
        for socket in (self._pull, *self._push.values()):
            socket.close(linger=0)
        self._push.clear()
        self._context.term()
