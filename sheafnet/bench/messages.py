"""A message from one process to another: through a channel, and the same bytes without one.

Two processes play ping-pong, each bound to a core of its own where there are two; half of a round
trip is a message. The system under test does all that a node does: encode, send, count, receive,
check, count, hand over.
"""

import json
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zmq

from sheafnet.bench.child import Measure
from sheafnet.bench.children import run, task
from sheafnet.bench.effort import Effort
from sheafnet.bench.figures import Figure, compare
from sheafnet.bench.turns import Tell, in_turn
from sheafnet.config import Config, RunConfig
from sheafnet.network.channel import Endpoint, Limits
from sheafnet.network.frame import Kind, run_tag
from sheafnet.network.hub import SocketAddress, open_hub
from sheafnet.network.payload import Array, WireDtype
from sheafnet.network.switchboard import Switchboard
from sheafnet.topology import build_topology

KIB = (1, 16, 256)
"""Payloads; 16 KiB is a projection of the shipped ring."""
_DIM = 32
_PATIENCE_S = 60.0
_STRETCH = RunConfig().stretch


class Wire(Protocol):
    """One end of a connection between two processes."""

    def connect(self) -> None:
        """Reach the other end, which listens."""
        ...

    def send(self, round_: int) -> None:
        """Send the payload."""
        ...

    def receive(self, round_: int) -> Array | bytes:
        """Wait for the other end's payload."""
        ...


class Channel:
    """Ours: an endpoint, its checks and ledger, over the sockets of a host."""

    def __init__(self, folder: Path, me: int, payload: Array, bind: str) -> None:
        values = {
            "name": "pair",
            "dataset": "synthetic",
            "nodes": ["a", "b"],
            "edges": [["a", "b"]],
        }
        topology = build_topology(Config.model_validate(values))
        rows, dtypes = {Kind.PROJECTION: len(payload)}, {Kind.PROJECTION: WireDtype.FLOAT32}
        self.hub = open_hub(bind.format(folder=folder, me=me), {0: 0, 1: 1})
        self._board = Switchboard(topology, self.hub)
        self._endpoint = Endpoint(topology, me, Limits(run_tag(0), rows, dtypes), self._board)
        self._board.attach(self._endpoint)
        self._payload, self._folder, self._other = payload, folder, 1 - me
        address = self.hub.address
        key = None if address.server_key is None else address.server_key.decode()
        _publish(folder, me, [address.endpoint, key])

    def connect(self) -> None:
        """Open the socket to the other host."""
        endpoint, key = _published(self._folder, self._other)
        address = SocketAddress(endpoint, None if key is None else key.encode())
        self.hub.connect({self._other: address})

    def send(self, round_: int) -> None:
        """Send a projection."""
        self._endpoint.send(0, Kind.PROJECTION, round_, self._payload)

    def receive(self, round_: int) -> Array | bytes:
        """Take the other node's projection; the ledger is drained as after a stretch of rounds."""
        address = [(0, Kind.PROJECTION, round_)]
        while not self._endpoint.arrived(address):
            for buffer in self.hub.receive(_PATIENCE_S):
                self._board.deliver(buffer)
        message = self._endpoint.take(address)[0]
        if round_ % _STRETCH == 0:
            self._board.drain()
        return message.array


class BareZeroMQ:
    """A PUSH and a PULL socket, and the bytes of the payload."""

    def __init__(self, folder: Path, me: int, payload: Array, bind: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._pull, self._push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        self._pull.setsockopt(zmq.LINGER, 0)
        self._push.setsockopt(zmq.LINGER, 0)
        self._pull.bind(bind.format(folder=folder, me=me))
        self._bytes, self._folder, self._other = payload.tobytes(), folder, 1 - me
        _publish(folder, me, self._pull.getsockopt_string(zmq.LAST_ENDPOINT))

    def connect(self) -> None:
        """Open the socket to the other end."""
        self._push.connect(_published(self._folder, self._other))

    def send(self, round_: int) -> None:
        """Send the bytes."""
        del round_
        self._push.send(self._bytes)

    def receive(self, round_: int) -> Array | bytes:
        """Receive some bytes."""
        del round_
        return self._pull.recv()


class PlainTcp:
    """A TCP connection over the loopback without delay; each message has its length before it."""

    def __init__(self, folder: Path, me: int, payload: Array) -> None:
        self._bytes, self._folder, self._me = payload.tobytes(), folder, me
        if me == 0:
            self._listener = socket.create_server(("127.0.0.1", 0))
            _publish(folder, me, self._listener.getsockname()[1])

    def connect(self) -> None:
        """One end calls, the other one answers."""
        if self._me == 0:
            self._socket, _ = self._listener.accept()
        else:
            self._socket = socket.create_connection(("127.0.0.1", _published(self._folder, 0)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def send(self, round_: int) -> None:
        """Send length and bytes."""
        del round_
        self._socket.sendall(struct.pack("<I", len(self._bytes)) + self._bytes)

    def receive(self, round_: int) -> Array | bytes:
        """Receive as many bytes as the length says."""
        del round_
        (length,) = struct.unpack("<I", self._reader.read(4))
        return self._reader.read(length)


_IPC, _TCP = "ipc://{folder}/{me}", "tcp://127.0.0.1:*"
_UNIX, _CURVE = "unix://{folder}/{me}", "tcp://127.0.0.1"
_WIRES: dict[str, Callable[[Path, int, Array], Wire]] = {
    "channel": partial(Channel, bind=_UNIX),
    "zeromq": partial(BareZeroMQ, bind=_IPC),
    "tcp": PlainTcp,
    "curve": partial(Channel, bind=_CURVE),
    "zeromq-tcp": partial(BareZeroMQ, bind=_TCP),
}


def payload_of(kib: int) -> Array:
    """A float32 payload (rows, 32) of `kib` KiB."""
    rows = kib * 1024 // (4 * _DIM)
    return np.random.default_rng(kib).normal(size=(rows, _DIM)).astype(np.float32)


def end(wire: str, folder: str, me: int, round_trips: int) -> Measure:
    """A task: one end of a game over a wire, for every size; gives microseconds a message.

    End 0 serves and measures, end 1 returns.
    """
    _bind_to_core(me)
    ends = {kib: _open(wire, Path(folder) / str(kib), me, kib) for kib in KIB}

    def measure() -> list[float]:
        found = []
        for own in ends.values():
            own.connect()
            found.append(median_us(partial(_serve if me == 0 else _return, own), round_trips))
        return found

    return measure


def median_us(round_trip: Callable[[int], None], count: int) -> float:
    """Microseconds of half a round trip: the median of `count`, after a tenth to warm up."""
    times = []
    for round_ in range(count + count // 10):
        begin = time.perf_counter()
        round_trip(round_)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[count // 10 :]) / 2 * 1e6


def _bind_to_core(me: int) -> None:
    """Keep all threads of this process on one core, another one for each end.

    Left to the scheduler, the threads that do the sockets' work settle on either core, for as long
    as a game lasts, and a message takes half as long again by that alone.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[me]})


def _open(wire: str, folder: Path, me: int, kib: int) -> Wire:
    folder.mkdir(exist_ok=True)
    return _WIRES[wire](folder, me, payload_of(kib))


def _serve(own: Wire, round_: int) -> None:
    own.send(round_)
    own.receive(round_)


def _return(own: Wire, round_: int) -> None:
    own.receive(round_)
    own.send(round_)


def _publish(folder: Path, me: int, address: Any) -> None:
    (folder / f"{me}.json").write_text(json.dumps(address))


def _published(folder: Path, whose: int) -> Any:
    return json.loads((folder / f"{whose}.json").read_text())


def measure(effort: Effort, tell: Tell) -> list[Figure]:
    """Messages of every size over every wire, in turn."""
    count = effort.round_trips
    labels = {
        "zeromq": "bare ZeroMQ",
        "channel": "channel",
        "tcp": "TCP",
        "calls": "Ray actor call",
        "zeromq-tcp": "bare ZeroMQ over TCP",
        "curve": "channel over CURVE",
    }
    measures = {label: partial(_game, wire, count) for wire, label in labels.items()}
    found = in_turn(measures, effort.repeats, tell)
    pairs = [
        ("channel", "zeromq"),
        ("channel", "tcp"),
        ("channel", "calls"),
        ("curve", "zeromq-tcp"),
    ]
    return [
        compare(
            "messages",
            f"{kib} KiB, {labels[ours]}",
            labels[reference],
            "us",
            *([each[at] for each in found[labels[wire]]] for wire in (ours, reference)),
        )
        for ours, reference in pairs
        for at, kib in enumerate(KIB)
    ]


def _game(wire: str, round_trips: int) -> list[float]:
    """Microseconds a message of each size."""
    if wire == "calls":
        (calls,) = run(task("ray_calls:callee", round_trips=round_trips))
        return list(calls)
    with tempfile.TemporaryDirectory(prefix="sheafnet-bench-") as folder:
        arguments = {"wire": wire, "folder": folder, "round_trips": round_trips}
        served, _ = run(*(task("messages:end", **arguments, me=me) for me in (0, 1)))
        return list(served)
