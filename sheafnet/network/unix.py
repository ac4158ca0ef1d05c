"""Frames between processes of one machine, over Unix sockets that only the user may enter.

A stream to each host that is sent to, and one from each that sends here; before each frame stands
its length in four bytes. What the system takes at once is sent at once, and a thread sends the
rest, if there is any: a message wakes up nobody but its receiver.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from sheafnet.errors import NetworkError
from sheafnet.network.frame import MAX_FRAME_BYTES
from sheafnet.network.hub import BATCH, Hub, SocketAddress

_SCHEME = "unix://"
_LENGTH = struct.Struct("<I")
_BACKLOG = 4096
_RETRY_S = 0.01
_SEND_BUFFER = 1 << 20
"""Asked of the system, which gives less: mostly 416 KiB."""
_PASSES = 8
"""How often all that is readable is read until a frame is whole; one that trickles has to wait."""
_AT_ONCE = 1 << 19
"""Bytes read at a time, into memory that stays: that of a fresh object costs more than its copy."""
_NO_WAIT = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)


class UnixHub(Hub["_Peer"]):
    """The Unix sockets of one process; `bind` is ``unix:///folder/name``.

    Raises:
        NetworkError: nothing can listen at `bind`.
    """

    def __init__(self, bind: str, host_of: Mapping[int, int], spins: bool = True) -> None:
        super().__init__(host_of, spins)
        self.address = SocketAddress(bind)
        self._path = Path(bind.removeprefix(_SCHEME))
        self._streams: dict[int, _Stream] = {}
        """What comes in, by file descriptor."""
        self._arrived: deque[bytes] = deque()
        self._memory = memoryview(bytearray(_AT_ONCE))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        try:
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)  # before it listens, nobody can connect
            self._listener.listen(_BACKLOG)
        except OSError as error:
            self._listener.close()
            raise NetworkError(f"cannot listen on {bind}: {error}") from None
        self._listening = self._listener.fileno()
        self._poll = select.poll()
        self._poll.register(self._listening, select.POLLIN)

    def connect(self, addresses: Mapping[int, SocketAddress]) -> None:
        """As `Hub.connect`."""
        for host, address in addresses.items():
            if host in self._ways:
                self._ways.pop(host).close()
            if not address.endpoint.startswith(_SCHEME):
                raise NetworkError(f"cannot connect to {address.endpoint}: it is no Unix socket")
            self._ways[host] = _Peer(address.endpoint)

    def _silent(self, within_s: float) -> list[str]:
        end = time.monotonic() + within_s
        return [
            peer.endpoint
            for peer in self._ways.values()
            if not peer.reached.wait(max(0.0, end - time.monotonic()))
        ]

    def _gone(self) -> list[str]:
        return [peer.endpoint for peer in self._ways.values() if peer.ends()]

    def _look(self, timeout_s: float) -> list[bytes]:
        for _ in range(_PASSES):
            if self._arrived:
                break
            events = self._poll.poll(timeout_s * 1000)
            if not events:
                break
            for descriptor, _ in events:
                if descriptor == self._listening:
                    self._accept()
                else:
                    self._take(self._streams[descriptor])
            timeout_s = 0.0
        if len(self._arrived) > BATCH:
            return [self._arrived.popleft() for _ in range(BATCH)]
        arrived = list(self._arrived)
        self._arrived.clear()
        return arrived

    def _accept(self) -> None:
        """Take every connection that waits."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                raise NetworkError(
                    f"the host on {self._path} cannot take another connection: {error}"
                ) from None
            connection.setblocking(False)
            self._streams[connection.fileno()] = _Stream(connection)
            self._poll.register(connection, select.POLLIN)

    def _take(self, stream: "_Stream") -> None:
        """Read what has come of a stream, and hang up where it has ended or is none of ours."""
        try:
            size = stream.socket.recv_into(self._memory)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0 or not stream.cut(self._memory[:size], self._arrived):
            self._poll.unregister(stream.socket)
            del self._streams[stream.socket.fileno()]
            stream.socket.close()

    def close(self) -> None:
        """As `Hub.close`."""
        if self._listener.fileno() >= 0:
            self._listener.close()
            self._path.unlink(missing_ok=True)
        for stream in self._streams.values():
            stream.socket.close()
        self._streams.clear()
        for peer in self._ways.values():
            peer.close()
        self._ways.clear()


class _Stream:
    """Frames that come in, and the beginning of one that has not come whole."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._begun = bytearray()
        self._needed = 0
        """Bytes of `_begun` with which there is something to cut off."""

    def cut(self, data: memoryview, into: deque[bytes]) -> bool:
        """Append the frames that `data` completes; False where a length is beyond all frames."""
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                return True
            data, self._begun = memoryview(self._begun), bytearray()
        at, size, needed = 0, len(data), _LENGTH.size
        while size - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > MAX_FRAME_BYTES:
                return False
            needed = _LENGTH.size + length
            if size - at < needed:
                break
            into.append(bytes(data[at + _LENGTH.size : at + needed]))
            at, needed = at + needed, _LENGTH.size
        if at < size:
            self._begun, self._needed = bytearray(data[at:]), needed
        return True


class _Peer:
    """The way to another host."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.reached = threading.Event()
        self._socket: socket.socket
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._worker: threading.Thread | None = None
        """Connects and sends what waits; while there is one, all that is sent waits."""
        self._closed = threading.Event()
        self._broken = self._told = False
        if not self._connects():
            self._start()

    def _connects(self) -> bool:
        """Whether somebody listens there; does not wait."""
        try:
            connection = socket.socket(socket.AF_UNIX)
        except OSError:  # too many files are open
            return False
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        connection.setblocking(False)
        try:
            connection.connect(self.endpoint.removeprefix(_SCHEME))
        except OSError:
            connection.close()
            return False
        connection.setblocking(True)
        self._socket = connection
        self.reached.set()
        return True

    def send(self, buffer: bytes) -> None:
        """Send `buffer`, or queue it behind what waits; what is sent to who has gone is lost.

        Always called by the same thread, so that a worker that has ended stays ended meanwhile.
        """
        length = _LENGTH.pack(len(buffer))
        if self._worker is not None:
            with self._lock:
                if self._worker is not None:
                    self._waiting.append(length + buffer)
                    return
        if self._broken:
            return
        try:
            sent = self._socket.sendmsg((length, buffer), (), _NO_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._break()
            return
        if sent < _LENGTH.size + len(buffer):
            self._waiting.append((length + buffer)[sent:])
            self._start()

    def _start(self) -> None:
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def _work(self) -> None:
        while not (self.reached.is_set() or self._connects()):
            if self._closed.wait(_RETRY_S):
                return
        while True:
            with self._lock:
                if not self._waiting:
                    self._worker = None
                    return
                data = self._waiting.popleft()
            if self._broken:
                continue
            try:
                self._socket.sendall(data)
            except OSError:
                self._break()

    def _break(self) -> None:
        """Hang up: after a part of a frame nothing that follows could be read."""
        self._broken = True
        with contextlib.suppress(OSError):  # the other end has hung up
            self._socket.shutdown(socket.SHUT_RDWR)

    def ends(self) -> bool:
        """Whether the connection has ended; says so once."""
        if self._told or not self.reached.is_set():
            return False
        if not self._broken:
            try:
                self._broken = not self._socket.recv(1, _NO_WAIT)  # nobody sends here
            except BlockingIOError:
                pass
            except OSError:
                self._broken = True
        self._told = self._broken
        return self._told

    def close(self) -> None:
        """Drop what waits and hang up."""
        self._closed.set()
        with self._lock:
            self._waiting.clear()
            worker = self._worker
        if self.reached.is_set():
            self._break()
        if worker is not None:
            worker.join()
        if self.reached.is_set():
            self._socket.close()
