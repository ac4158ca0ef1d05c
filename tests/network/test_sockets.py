"""Frames between processes: both kinds of socket, strangers, and what stays behind."""

import contextlib
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from sheafnet.config import Named
from sheafnet.errors import ClusterError, NetworkError
from sheafnet.network import hub as hub_module
from sheafnet.network import unix
from sheafnet.network.channel import Endpoint, Limits
from sheafnet.network.frame import Frame, Kind, encode, run_tag
from sheafnet.network.hub import SocketAddress, open_hub
from sheafnet.network.ledger import Account
from sheafnet.network.payload import WireDtype
from sheafnet.network.switchboard import Switchboard
from sheafnet.topology import Edge, Node, Topology

pytestmark = pytest.mark.timeout(60)

HOST_OF = {0: 0, 1: 1, 2: 1}
DEADLINE_S = 20.0
REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


def frame(number, size=1200):
    return encode(
        Frame(
            Kind.PROJECTION, run_tag(1), 0, number, 0, 0, WireDtype.FLOAT32, 100, None,
            bytes([number % 251]) * size,
        )
    )  # fmt: skip


def collect(hub, count):
    """The next `count` buffers; fails at the deadline instead of hanging."""
    buffers, end = [], time.monotonic() + DEADLINE_S
    while len(buffers) < count:
        left = end - time.monotonic()
        assert left > 0, f"{len(buffers)} of {count} came"
        buffers += hub.receive(left)
    return buffers


def event(monitor, wanted):
    """The first event of a socket that is one of `wanted`; none before it may be a success."""
    while True:
        assert monitor.poll(DEADLINE_S * 1000), "no event"
        seen = recv_monitor_message(monitor)["event"]
        if seen & wanted:
            return seen
        assert seen != zmq.EVENT_HANDSHAKE_SUCCEEDED


@pytest.fixture
def hubs():
    """Make hubs that are closed in the end, in whatever state the test left them."""
    made = []

    def make(bind, host_of=HOST_OF):
        hub = open_hub(bind, host_of)
        made.append(hub)
        return hub

    yield make
    for hub in made:
        hub.close()


@pytest.fixture
def stranger():
    """A socket of somebody else, and the monitor of its events."""
    context = zmq.Context()
    made = []

    def make(kind, prepare=None):
        socket = context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        if prepare:
            prepare(socket)
        made.append((socket, socket.get_monitor_socket()))
        return made[-1]

    yield make
    for own, monitor in made:
        # In this order: libzmq waits for ever to tell an event to a monitor that has gone.
        own.monitor(None, 0)
        monitor.close(linger=0)
    context.destroy(linger=0)


@pytest.fixture(params=["unix", "tcp"])
def bind(request, tmp_path):
    """Where a hub of a name may listen, for each kind of socket."""
    if request.param == "tcp":
        return lambda _: "tcp://127.0.0.1"
    return lambda name: f"unix://{tmp_path}/{name}"


@pytest.fixture
def pair(hubs, bind):
    """Two connected hubs."""
    first, second = hubs(bind("a")), hubs(bind("b"))
    first.connect({1: second.address})
    second.connect({0: first.address})
    return first, second


# What arrives


def test_buffers_arrive_unaltered_and_in_order_in_both_directions(pair):
    first, second = pair
    there = [frame(k) for k in range(600)]
    back = [frame(k, size=4 * k) for k in range(50)]
    for k, buffer in enumerate(there):
        first.send(1 + k % 2, buffer)  # nodes 1 and 2 share a process
    for buffer in back:
        second.send(0, buffer)
    assert collect(second, 600) == there
    assert collect(first, 50) == back
    assert first.receive(0.0) == []
    assert second.receive(0.0) == []


def test_a_large_frame(pair):
    first, second = pair
    buffer = frame(1, size=2**24)
    first.send(1, buffer)
    assert collect(second, 1) == [buffer]


def test_bytes_that_are_no_frame_are_none_of_the_hubs_business(pair):
    first, second = pair
    for buffer in (b"", b"\x00", b"\xff" * 100):
        first.send(1, buffer)
    assert collect(second, 3) == [b"", b"\x00", b"\xff" * 100]


def test_a_batch_has_at_most_256(pair):
    first, second = pair
    for k in range(1000):
        first.send(1, frame(k))
    got, largest = [], 0
    while len(got) < 1000:
        batch = second.receive(DEADLINE_S)
        assert batch
        largest = max(largest, len(batch))
        got += batch
    assert got == [frame(k) for k in range(1000)]
    assert largest <= 256


def test_what_is_sent_before_the_other_listens_is_queued(hubs, tmp_path):
    first = hubs(f"unix://{tmp_path}/a")
    first.connect({1: SocketAddress(f"unix://{tmp_path}/b")})
    for k in range(3000):  # beyond ZeroMQ's default of 1,000, where a send would block
        first.send(1, frame(k))
    assert collect(hubs(f"unix://{tmp_path}/b"), 3000) == [frame(k) for k in range(3000)]


def test_what_is_sent_to_who_never_answers_holds_up_nobody(hubs):
    hub = hubs("tcp://127.0.0.1")
    hub.connect({1: SocketAddress("tcp://127.0.0.1:1", zmq.curve_keypair()[0])})
    for k in range(3000):  # as above
        hub.send(1, frame(k))


def test_a_host_that_has_moved_is_reached_at_its_new_address(hubs, bind):
    first, old, new = (hubs(bind(name)) for name in ("a", "old", "new"))
    first.connect({1: old.address})
    first.send(1, frame(1))
    assert collect(old, 1) == [frame(1)]
    first.connect({1: new.address})
    first.send(1, frame(2))
    assert collect(new, 1) == [frame(2)]
    assert old.receive(0.0) == []


def test_endpoints_in_two_processes_balance_to_the_byte(pair):
    first, second = pair
    graph = Topology(
        "line",
        tuple(Node(k, name, None, Named(name="mlp"), 8) for k, name in enumerate("abc")),
        (Edge(0, 0, 1, 4), Edge(1, 1, 2, 3)),
    )
    limits = Limits(run_tag(1), {Kind.PROJECTION: 6}, {Kind.PROJECTION: WireDtype.FLOAT16})
    account, taken = Account(), {}
    boards = {hub: Switchboard(graph, hub) for hub in pair}
    ends = {}
    for node, hub in ((0, first), (1, second), (2, second)):
        ends[node] = Endpoint(graph, node, limits, boards[hub])
        boards[hub].attach(ends[node])
    for node, end in ends.items():
        for edge in graph.incident(node):
            end.send(edge.index, Kind.PROJECTION, 0, np.full((6, edge.dim), node, np.float32))
    for hub in pair:
        for buffer in collect(hub, 1):  # nodes 1 and 2 need no socket
            boards[hub].deliver(buffer)
    for node, end in ends.items():
        wanted = [(edge.index, Kind.PROJECTION, 0) for edge in graph.incident(node)]
        for edge, message in end.take(wanted).items():
            taken[node, edge] = message.array[0, 0]
    for board in boards.values():
        account.post(board.drain())
        assert board.rejected == 0
    assert taken == {(0, 0): 1, (1, 0): 0, (1, 1): 2, (2, 1): 1}
    assert len(list(account.settle())) == 4
    assert account.close() == []
    # rows x d_ij x 2 bytes, and 21 of framing each
    assert account.totals["train", 0, 0] == (1, 48, 21, 0)
    assert account.totals["train", 1, 1] == (1, 36, 21, 0)


# Strangers


def curve(server_key):
    def prepare(socket):
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server_key

    return prepare


@pytest.mark.parametrize(
    "prepare",
    [None, lambda socket: curve(zmq.curve_keypair()[0])(socket)],
    ids=["plain", "wrong server key"],
)
def test_a_stranger_without_the_server_key_delivers_nothing_over_tcp(hubs, stranger, prepare):
    first, second = hubs("tcp://127.0.0.1"), hubs("tcp://127.0.0.1")
    socket, monitor = stranger(zmq.PUSH, prepare)
    socket.connect(first.address.endpoint)
    socket.send(b"from a stranger", zmq.NOBLOCK)
    assert event(monitor, REFUSED)  # it was turned away before it could send anything
    second.connect({0: first.address})
    second.send(0, frame(1))
    assert collect(first, 1) == [frame(1)]
    assert first.receive(0.0) == []


GREETING = bytes.fromhex("ff00000000000000017f 0300") + b"NULL".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.0: signature, version 3.0, mechanism, no server, filler."""


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(1000),
        GREETING,
        # A message of 2^62 bytes, right after the greeting
        GREETING + b"\x02" + (1 << 62).to_bytes(8, "big") + bytes(5000),
        GREETING.replace(b"NULL\0", b"CURVE") + b"\x04\xc8\x05HELLO" + bytes(194),
        b"\xff" * 64 + frame(7),
    ],
    ids=["http", "zeros", "greeting", "huge message", "hello", "frame"],
)
def test_raw_bytes_on_the_port_deliver_nothing_and_hold_up_nobody(hubs, words):
    first, second = hubs("tcp://127.0.0.1"), hubs("tcp://127.0.0.1")
    second.connect({0: first.address})
    host, port = first.address.endpoint.removeprefix("tcp://").split(":")
    strangers = []
    for number in range(10):
        stranger = socket.socket()
        stranger.settimeout(DEADLINE_S)
        stranger.connect((host, int(port)))
        stranger.sendall(words)
        strangers.append(stranger)
        second.send(0, frame(number))
        assert collect(first, 1) == [frame(number)]
    for stranger in strangers:
        # The hub greets it or hangs up: it was heard. Else this ends in a time-out.
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) in (b"\xff", b"")
        stranger.close()
    second.send(0, frame(99))
    assert collect(first, 1) == [frame(99)]
    assert first.receive(0.0) == []


def plain_password(socket):
    socket.plain_username, socket.plain_password = b"user", b"password"


def test_many_strangers_at_once_hold_up_nobody(hubs, stranger):
    """Twenty of each sort, all sending, while an honest host goes on."""
    first, second = hubs("tcp://127.0.0.1"), hubs("tcp://127.0.0.1")
    second.connect({0: first.address})
    wrong, _ = zmq.curve_keypair()
    for prepare in (None, plain_password, curve(wrong)):
        for _ in range(20):
            socket, _monitor = stranger(zmq.PUSH, prepare)
            socket.connect(first.address.endpoint)
            socket.send(b"from a stranger", zmq.NOBLOCK)
    sent = [frame(number) for number in range(200)]
    for buffer in sent:
        second.send(0, buffer)
    assert collect(first, 200) == sent
    late, monitor = stranger(zmq.PUSH, plain_password)
    late.connect(first.address.endpoint)
    assert event(monitor, REFUSED)
    assert first.receive(0.0) == []


def test_who_knows_the_server_key_is_no_stranger(hubs, stranger):
    """The counterpart of the test above: it is the key that makes the difference."""
    hub = hubs("tcp://127.0.0.1")
    socket, _ = stranger(zmq.PUSH, curve(hub.address.server_key))
    socket.connect(hub.address.endpoint)
    socket.send(frame(1), zmq.NOBLOCK)
    assert collect(hub, 1) == [frame(1)]


def test_an_impostor_in_the_place_of_a_host_reads_nothing(hubs, stranger):
    def listen(socket):
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_server = True

    socket, monitor = stranger(zmq.PULL, listen)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    genuine, _ = zmq.curve_keypair()
    hub = hubs("tcp://127.0.0.1")
    hub.connect({1: SocketAddress(f"tcp://127.0.0.1:{port}", genuine)})
    hub.send(1, frame(1))
    assert event(monitor, REFUSED)
    assert not socket.poll(0)


def test_every_hub_has_keys_of_its_own(hubs):
    addresses = [hubs("tcp://127.0.0.1").address for _ in range(2)]
    assert all(len(address.server_key) == 40 for address in addresses)  # Z85 of 32 bytes
    assert addresses[0].server_key != addresses[1].server_key
    assert addresses[0].endpoint != addresses[1].endpoint
    assert all(address.endpoint.startswith("tcp://127.0.0.1:") for address in addresses)


def test_a_message_beyond_the_limit_does_not_arrive(hubs, stranger, monkeypatch):
    monkeypatch.setattr("sheafnet.network.curve.MAX_FRAME_BYTES", 2100)
    hub = hubs("tcp://127.0.0.1")
    socket, monitor = stranger(zmq.PUSH, curve(hub.address.server_key))
    socket.connect(hub.address.endpoint)
    assert event(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.send(bytes(2101))
    assert event(monitor, zmq.EVENT_DISCONNECTED)
    sender = hubs("tcp://127.0.0.1")
    sender.connect({0: hub.address})
    sender.send(0, bytes(2000))
    assert collect(hub, 1) == [bytes(2000)]
    assert hub.receive(0.0) == []


def test_a_unix_socket_is_closed_to_other_users(hubs, tmp_path):
    path = tmp_path / "a"
    hub = hubs(f"unix://{path}")
    assert hub.address == SocketAddress(f"unix://{path}", None)
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert mode & (stat.S_IRWXG | stat.S_IRWXO) == 0


# Streams of one machine


def unix_stranger(hub, words):
    """A connection of somebody else of this user, who has sent `words`."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(hub.address.endpoint.removeprefix("unix://"))
    stranger.sendall(words)
    return stranger


def headed(buffer):
    return len(buffer).to_bytes(4, "little") + buffer


def test_two_who_send_more_than_fits_before_they_read_hold_up_neither(hubs, tmp_path):
    """Some 80 MB each way: far beyond what the system keeps, so both must queue it themselves."""
    pair = [hubs(f"unix://{tmp_path}/{k}", {0: 0, 1: 1}) for k in range(2)]
    for k in (0, 1):
        pair[k].connect({1 - k: pair[1 - k].address})
    sent = {k: [frame(n, size=2**18 + k) for n in range(300)] for k in (0, 1)}
    begin = time.monotonic()
    for n in range(300):
        for k in (0, 1):
            pair[k].send(1 - k, sent[k][n])
    assert time.monotonic() - begin < DEADLINE_S
    for k in (0, 1):
        assert collect(pair[k], 300) == sent[1 - k]
    pair[0].send(1, frame(7))  # and what comes after it all is not stuck behind it
    assert collect(pair[1], 1) == [frame(7)]


def test_frames_are_cut_out_of_a_stream_wherever_it_is_broken(hubs, tmp_path):
    hub = hubs(f"unix://{tmp_path}/a")
    frames = [frame(1), b"", frame(2, size=5), frame(3, size=70_000)]
    stream = b"".join(map(headed, frames))
    for step in (1, 3, 4, 5, 1000, 65_536):
        with unix_stranger(hub, b"") as stranger:
            found = []
            for at in range(0, len(stream), step):
                stranger.sendall(stream[at : at + step])
                found += hub.receive(0.0)
            assert found + collect(hub, 4 - len(found)) == frames


def test_who_announces_more_than_a_frame_is_hung_up_on(hubs, tmp_path, monkeypatch):
    monkeypatch.setattr(unix, "MAX_FRAME_BYTES", 2000)
    hub, honest = hubs(f"unix://{tmp_path}/a"), hubs(f"unix://{tmp_path}/b")
    honest.connect({0: hub.address})
    with unix_stranger(hub, headed(bytes(2000)) + headed(bytes(2001))) as stranger:
        honest.send(0, frame(1))
        assert sorted(collect(hub, 2)) == [bytes(2000), frame(1)]
        assert hub.receive(0.0) == []
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    honest.send(0, frame(2))
    assert collect(hub, 1) == [frame(2)]


def test_who_announces_much_and_sends_little_takes_little(hubs, tmp_path):
    hub = hubs(f"unix://{tmp_path}/a")
    strangers = [unix_stranger(hub, (2**28).to_bytes(4, "little") + bytes(996)) for _ in range(20)]
    before = psutil.Process().memory_info().rss
    for _ in range(50):
        assert hub.receive(0.0) == []
    assert len(hub._streams) == 20
    assert psutil.Process().memory_info().rss - before < 2**22
    for stranger in strangers:
        stranger.close()
    assert hub.receive(0.05) == []
    assert hub._streams == {}  # what a frame began with went with who sent it


def test_all_that_has_come_is_read_at_once(hubs, tmp_path):
    """Of new connections and in several pieces, too: a node at its deadline does not ask again."""
    hub = hubs(f"unix://{tmp_path}/a")
    sent = [frame(k) for k in range(3)]
    strangers = [unix_stranger(hub, headed(buffer)) for buffer in sent]
    assert sorted(hub.receive(0.0)) == sent
    large = frame(4, size=800_000)
    strangers[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**21)
    strangers[0].sendall(headed(large))
    assert hub.receive(0.0) == [large]
    for stranger in strangers:
        stranger.close()


def test_nobody_at_an_address_is_named_with_both(hubs, tmp_path):
    first, second = hubs(f"unix://{tmp_path}/a"), hubs(f"unix://{tmp_path}/b")
    first.connect({0: second.address, 1: SocketAddress(f"unix://{tmp_path}/nobody")})
    with pytest.raises(NetworkError) as caught:
        first.await_connected(0.2)
    says = f"the host on {tmp_path}/a cannot reach {tmp_path}/nobody: no answer within 0 s"
    assert says in str(caught.value)
    assert first.lost() is None  # who never answered is not lost


def test_more_connections_than_files_are_named(hubs, tmp_path):
    hub = hubs(f"unix://{tmp_path}/a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with unix_stranger(hub, b""):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(
                NetworkError, match=f"{tmp_path}/a cannot take another .*open files"
            ):
                hub.receive(1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert hub.receive(0.05) == []
        assert len(hub._streams) == 1  # nothing of it is lost


def test_nothing_is_stuck_where_the_system_takes_little_at_a_time(hubs, tmp_path, monkeypatch):
    """A worker begins and ends every few frames, and often ends while the next one is sent."""
    monkeypatch.setattr(unix, "_SEND_BUFFER", 1)
    started = []
    start = unix._Peer._start
    monkeypatch.setattr(unix._Peer, "_start", lambda peer: (started.append(peer), start(peer)))
    hub, peer = (hubs(f"unix://{tmp_path}/{name}") for name in "ab")
    hub.connect({1: peer.address})
    sent = [frame(n, size=1 + 997 * n % 9000) for n in range(5000)]
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(collect(peer, len(sent))))
    reader.start()
    for number, buffer in enumerate(sent):
        hub.send(1, buffer)
        while number % 3 == 0 and hub._ways[1]._waiting:
            time.sleep(0)
    reader.join()
    assert found == sent
    assert len(started) > 100
    hub.send(1, sent[0])
    assert collect(peer, 1) == [sent[0]]


def test_a_worker_that_ends_at_the_last_moment_takes_nothing_with_it(hubs, tmp_path):
    hub, other = (hubs(f"unix://{tmp_path}/{name}") for name in "ab")
    hub.connect({1: other.address})
    peer = hub._ways[1]

    @contextlib.contextmanager
    def held():
        """The lock, which a worker had while it looked for the last time."""
        peer._worker = None
        yield

    peer._worker, peer._lock = threading.Thread(), held()
    hub.send(1, frame(1))
    peer._lock = threading.Lock()
    assert peer._worker is None
    assert collect(other, 1) == [frame(1)]


def test_closing_again_leaves_who_has_taken_the_place(hubs, tmp_path):
    first = hubs(f"unix://{tmp_path}/a")
    first.close()
    second = hubs(f"unix://{tmp_path}/a")
    first.close()
    third = hubs(f"unix://{tmp_path}/b")
    third.connect({0: second.address})
    third.await_connected(DEADLINE_S)


def test_the_end_of_a_process_that_had_more_to_read_is_told(hubs, tmp_path):
    """Whatever is sent then is lost: the connection never comes back."""
    hub, peer = (hubs(f"unix://{tmp_path}/{name}") for name in "ab")
    hub.connect({1: peer.address})
    hub.await_connected(DEADLINE_S)
    for number in range(100):
        hub.send(1, frame(number, size=2**16))
    peer.close()
    end = time.monotonic() + DEADLINE_S
    while (lost := hub.lost()) is None:
        assert time.monotonic() < end
        hub.receive(0.01)
    assert f"the host on {tmp_path}/a has lost its connection to {tmp_path}/b. Is" in str(lost)
    for number in range(100):
        hub.send(1, frame(number))
    assert hub.lost() is None


# Errors


def test_a_node_on_a_host_without_connection(hubs, tmp_path):
    hub = hubs(f"unix://{tmp_path}/a")
    hub.connect({0: hub.address})
    with pytest.raises(NetworkError, match="host 1, where node 2 lives"):
        hub.send(2, frame(1))


@pytest.mark.parametrize(
    "bind",
    [
        "unix:///nowhere/at/all",
        "unix:///tmp/" + "x" * 200,  # a Unix path has at most 107 bytes
        "tcp://203.0.113.1",  # an address for documentation: of no machine
        "tcp://not a host",
        "nonsense://127.0.0.1",
        "",
    ],
)
def test_an_address_that_cannot_be_bound(bind):
    with pytest.raises(NetworkError) as caught:
        open_hub(bind, HOST_OF)
    assert f"cannot listen on {bind}" in str(caught.value)


@pytest.mark.parametrize("endpoint", ["nonsense://x", "tcp://127.0.0.1", ""])
def test_an_address_that_cannot_be_connected_to(hubs, bind, endpoint):
    hub = hubs(bind("a"))
    with pytest.raises(NetworkError, match=f"cannot connect to {endpoint}"):
        hub.connect({1: SocketAddress(endpoint, zmq.curve_keypair()[0])})
    with pytest.raises(NetworkError, match="no connection to host 1"):
        hub.send(1, frame(1))


# What stays behind


def fewest_threads(process):
    """For a while: a thread that has been joined may take a moment to go."""
    return min((time.sleep(0.01), process.num_threads())[1] for _ in range(30))


def test_closing_leaves_no_file_descriptor_and_no_thread(tmp_path, bind):
    wrong = SocketAddress("nonsense://x", zmq.curve_keypair()[0])

    def whole_life():
        first, second = (open_hub(bind(name), HOST_OF) for name in "ab")
        nowhere = "tcp://127.0.0.1:1" if bind("").startswith("tcp") else bind("nobody")
        nobody = replace(second.address, endpoint=nowhere)
        first.connect({1: second.address})
        second.connect({0: first.address})
        first.connect({1: second.address})  # again, as after a restart
        first.connect({7: nobody})
        first.send(1, frame(1))
        second.send(0, frame(2))
        assert collect(second, 1) == [frame(1)]
        assert collect(first, 1) == [frame(2)]
        for _ in range(200):
            first.send(1, frame(3, size=2**14))  # more than fits, and unread at the end
        first._host_of = {9: 7}
        first.send(9, frame(4))  # and for nobody
        with pytest.raises(NetworkError):
            open_hub("unix:///nowhere/at/all", HOST_OF)
        with pytest.raises(NetworkError):
            first.connect({8: wrong})
        first.close()
        second.close()

    process = psutil.Process()
    whole_life()  # libraries may open something of their own the first time
    before = process.num_fds(), fewest_threads(process)
    for _ in range(3):
        whole_life()
    assert (process.num_fds(), fewest_threads(process)) == before
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_is_no_error(tmp_path):
    hub = open_hub(f"unix://{tmp_path}/a", HOST_OF)
    hub.close()
    hub.close()


# Ports and firewalls


def test_a_port_of_the_range_is_taken_and_a_taken_one_left():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        hub = open_hub("tcp://127.0.0.1", HOST_OF, range(first, first + 50))
        port = int(hub.address.endpoint.rpartition(":")[2])
        assert first < port < first + 50
        with pytest.raises(ClusterError, match=f"run.ports = {first}-{first}: none of these"):
            open_hub("tcp://127.0.0.1", HOST_OF, range(first, first + 1))
        hub.close()


def test_who_is_connected_has_answered(pair):
    first, second = pair
    first.await_connected(DEADLINE_S)
    second.await_connected(DEADLINE_S)
    first.await_connected(0.0)  # nothing is awaited twice
    first.send(1, frame(1))
    assert collect(second, 1) == [frame(1)]


def test_a_closed_port_is_named_with_both_addresses(hubs):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
    first, second = hubs("tcp://127.0.0.1"), hubs("tcp://127.0.0.1")
    genuine, _ = zmq.curve_keypair()
    first.connect({0: second.address, 1: SocketAddress(f"tcp://{closed}", genuine)})
    begin = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        first.await_connected(1.0)
    assert time.monotonic() - begin < 5.0
    own = first.address.endpoint.removeprefix("tcp://")
    assert f"the host on {own} cannot reach {closed}: no answer within 1 s" in str(caught.value)


def test_a_connection_that_has_ended_is_named_with_both_addresses(hubs):
    hub, peers = hubs("tcp://127.0.0.1"), [hubs("tcp://127.0.0.1") for _ in range(2)]
    hub.connect({1: peers[0].address, 2: peers[1].address})
    hub.await_connected(DEADLINE_S)
    assert hub.lost() is None
    peers[1].close()
    end = time.monotonic() + DEADLINE_S
    while (lost := hub.lost()) is None:
        assert time.monotonic() < end
        hub.receive(0.01)
    own, other = (h.address.endpoint.removeprefix("tcp://") for h in (hub, peers[1]))
    assert f"the host on {own} has lost its connection to {other}. Is" in str(lost)
    assert hub.lost() is None  # each loss is told once

    again = hubs("tcp://127.0.0.1")
    hub.connect({2: again.address})
    hub.await_connected(DEADLINE_S)
    assert hub.lost() is None


def test_a_port_behind_which_somebody_else_listens_is_no_connection(hubs):
    """TCP connects, but the handshake with the key of the run does not succeed."""
    first, second = hubs("tcp://127.0.0.1"), hubs("tcp://127.0.0.1")
    another, _ = zmq.curve_keypair()
    first.connect({1: SocketAddress(second.address.endpoint, another)})
    with pytest.raises(NetworkError, match="cannot reach"):
        first.await_connected(1.0)


def test_who_is_one_of_more_than_there_are_cores_sleeps_at_once(
    bind: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    monkeypatch.setattr(hub_module.os, "sched_yield", lambda: looks.append(None))
    for spins in (True, False):
        looks.clear()
        hub = open_hub(bind(str(spins)), HOST_OF, spins=spins)
        try:
            assert hub.receive(0.01) == []
        finally:
            hub.close()
        assert bool(looks) is spins
