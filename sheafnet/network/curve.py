"""Frames between machines over ZeroMQ: a PULL socket for all that arrives, a PUSH per peer.

The sockets are TCP with CURVE: encrypted, and open only to who knows the server key that the run
hands out through Ray.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from sheafnet.errors import ClusterError, NetworkError
from sheafnet.network.frame import MAX_FRAME_BYTES
from sheafnet.network.hub import BATCH, Hub, SocketAddress

_READABLE = int(zmq.POLLIN)  # the enum's own arithmetic takes as long as asking the socket
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class CurveHub(Hub["zmq.Socket[bytes]"]):
    """The TCP sockets of one process, each way with keys of its own.

    Args:
        bind: ``tcp://host``; a free port is chosen.
        host_of: as of every hub.
        ports: to choose the port from; any by default.
        spins: as of every hub.
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
        super().__init__(host_of, spins)
        self._patience_s = patience_s
        self._context = zmq.Context(io_threads=1)
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.LINGER, 0)
        self._pull.setsockopt(zmq.RCVHWM, 0)  # a full queue would look like a lost connection
        self._pull.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._monitors: dict[int, zmq.Socket[bytes]] = {}
        self._awaited: set[int] = set()
        """Hosts that have not answered yet."""
        key, secret = zmq.curve_keypair()
        try:
            self._pull.curve_server = True
            self._pull.curve_secretkey = secret
            self._pull.curve_publickey = key
            port = self._bind(bind, ports)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise NetworkError(f"cannot listen on {bind}: {error}") from None
        except ClusterError:
            self.close()
            raise
        self.address = SocketAddress(f"{bind}:{port}", key)

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
        """As `Hub.connect`."""
        for host, address in addresses.items():
            if host in self._ways:
                self._unwatch(host)
                self._ways.pop(host).close(linger=0)
            push = self._context.socket(zmq.PUSH)
            push.setsockopt(zmq.LINGER, 0)
            push.setsockopt(zmq.SNDHWM, 0)
            push.curve_serverkey = address.server_key
            push.curve_publickey, push.curve_secretkey = zmq.curve_keypair()
            if self._patience_s is not None:
                push.setsockopt(zmq.TCP_MAXRT, max(1, int(self._patience_s * 1000)))
            self._ways[host] = push
            self._monitors[host] = push.get_monitor_socket(_EVENTS)
            self._awaited.add(host)
            try:
                push.connect(address.endpoint)
            except zmq.ZMQError as error:
                self._unwatch(host)
                self._ways.pop(host).close(linger=0)
                raise NetworkError(f"cannot connect to {address.endpoint}: {error}") from None

    def _silent(self, within_s: float) -> list[str]:
        end = time.monotonic() + within_s
        silent = [
            self._endpoint(host)
            for host in sorted(self._awaited)
            if not _tells(
                self._monitors[host], zmq.EVENT_HANDSHAKE_SUCCEEDED, end - time.monotonic()
            )
        ]
        self._awaited.clear()
        return silent

    def _gone(self) -> list[str]:
        """ZeroMQ connects again by itself, but does not tell what of the frames before arrived."""
        return [
            self._endpoint(host)
            for host, monitor in self._monitors.items()
            if _tells(monitor, zmq.EVENT_DISCONNECTED, 0.0)
        ]

    def _endpoint(self, host: int) -> str:
        return self._ways[host].getsockopt_string(zmq.LAST_ENDPOINT)

    def _unwatch(self, host: int) -> None:
        """Close a monitor; its socket stops telling events first, or libzmq waits for ever."""
        monitor = self._monitors.pop(host, None)
        self._awaited.discard(host)
        if monitor is not None:
            self._ways[host].monitor(None, 0)
            monitor.close(linger=0)

    def _look(self, timeout_s: float) -> list[bytes]:
        buffers: list[bytes] = []
        if timeout_s > 0.0:
            self._pull.poll(max(1, int(timeout_s * 1000)))
        while len(buffers) < BATCH and self._readable():
            buffers.append(self._pull.recv(zmq.NOBLOCK))
        return buffers

    def _readable(self) -> bool:
        events: Any = self._pull.getsockopt(zmq.EVENTS)
        return bool(events & _READABLE)

    def close(self) -> None:
        """As `Hub.close`."""
        for host in list(self._monitors):
            self._unwatch(host)
        for socket in (self._pull, *self._ways.values()):
            socket.close(linger=0)
        self._ways.clear()
        self._context.term()


def _tells(monitor: zmq.Socket[bytes], event: zmq.Event, within_s: float) -> bool:
    """Whether `monitor` tells of `event` in time; events before it are read."""
    end = time.monotonic() + within_s
    while monitor.poll(max(0, int((end - time.monotonic()) * 1000))):
        if recv_monitor_message(monitor)["event"] == event:
            return True
    return False
