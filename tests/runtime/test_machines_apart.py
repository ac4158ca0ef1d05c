"""Clusters of machines that share no network stack: what crosses between them, and what cuts them.

On the wire between two machines a ZeroMQ frame stands in a CURVE box, which is 33 bytes longer.
Whoever listens sees boxes and their lengths, so that the ledger can be compared to the byte.
"""

import contextlib
import os
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from sheafnet import load_config
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from tests.apart import Machine, Switch, machines, why_not
from tests.conftest import TINY, MakeConfig, artifacts, run_artifacts
from tests.runtime.test_ray import until_training, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
RING = ROOT / "topologies" / "ring.yaml"
PORTS = range(21800, 21850)
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
SYN = 2
BOX_BYTES = 33
"""``MESSAGE`` with its length, a nonce of 8 bytes, the authenticator of 16, and a byte of flags."""
TWO_PAIRS = ("run.nodes_per_actor=2", f"run.ports={PORTS[0]}-{PORTS[-1]}")
LONG = ("training.rounds=600", "run.stretch=5", "run.checkpoint_every=10")


@contextlib.contextmanager
def ray_on(count: int, folder: Path, **wire: Any) -> Iterator[tuple[list[Machine], Switch]]:
    """A Ray cluster of so many machines with a CPU each, its head on the first."""
    missing = why_not()
    if missing:
        pytest.skip(missing)
    with machines(count, folder, **wire) as (made, switch):
        head, *others = made
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1"]
        ray += ["--object-store-memory=80000000", "--disable-usage-stats"]
        start = [*ray, "--head", "--port=6379", "--include-dashboard=false"]
        head.run(*start, f"--node-ip-address={head.address}", env=ENVIRONMENT)
        join = [*ray, f"--address={head.address}:6379"]
        joining = [
            subprocess.Popen(
                machine.command(*join, f"--node-ip-address={machine.address}"),
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for machine in others
        ]
        assert [process.wait(120) for process in joining] == [0] * len(others)
        yield made, switch


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Machine], Switch]]:
    with ray_on(2, tmp_path_factory.mktemp("two")) as cluster:
        yield cluster


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start the command line on a machine; ends it in any case."""
    started: list[subprocess.Popen[str]] = []

    def launch(
        machine: Machine, *overrides: str, topology: Path | None = None
    ) -> subprocess.Popen[str]:
        if topology is None:
            topology = tmp_path / "network.yaml"
            topology.write_text(yaml.safe_dump(TINY))
        chosen = ["run.backend=ray", "run.address=10.77.0.1:6379", *overrides]
        process = subprocess.Popen(
            machine.command(
                *(sys.executable, "-m", "sheafnet", "simulate"),
                *("--topology", str(topology)),
                *("--run-dir", str(tmp_path / "run")),
                *(word for override in chosen for word in ("--set", override)),
            ),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def end_of(process: subprocess.Popen[str], cluster: Sequence[Machine]) -> tuple[int, str]:
    """Exit code and last words, once none of its actors is left on any machine."""
    _, err = process.communicate(timeout=200)
    for machine in cluster:
        for name in ("ray::HostProcess", "ray::CoordinatorProcess"):
            wait_until(lambda m=machine, n=name: not m.processes(n), f"{name} to end")
    return process.returncode, err


def summary_of(run: Path) -> dict[str, Any]:
    summary = RunDirectory.open(run).summary()
    assert summary is not None
    return summary


def port_of(frame: bytes, at: int) -> int:
    """The source (0) or destination (2) port of a TCP segment, 0 of anything else."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return 0
    return int(struct.unpack_from(">H", frame, 14 + (frame[14] & 15) * 4 + at)[0])


def of_sockets(frame: bytes) -> bool:
    """Whether it is of the sockets between hosts."""
    return port_of(frame, 0) in PORTS or port_of(frame, 2) in PORTS


def streams(record: Sequence[tuple[int, bytes]]) -> dict[tuple[int, int, int], bytes]:
    """What each machine sent to the ports of sockets, put together, by machine and both ports."""
    begins: dict[tuple[int, int, int], int] = {}
    segments: dict[tuple[int, int, int], dict[int, bytes]] = defaultdict(dict)
    for machine, frame in record:
        if port_of(frame, 2) not in PORTS:
            continue
        tcp = 14 + (frame[14] & 15) * 4
        (length,) = struct.unpack_from(">H", frame, 16)
        sequence, _, offset, flags = struct.unpack_from(">IIBB", frame, tcp + 4)
        payload = frame[tcp + (offset >> 4) * 4 : 14 + length]
        key = (machine, port_of(frame, 0), port_of(frame, 2))
        if flags & SYN:
            begins[key] = sequence + 1
        at, own = (sequence - begins[key]) % 2**32, segments[key]
        if payload:
            own[at] = max(payload, own.get(at, b""), key=len)
    found = {}
    for key, parts in segments.items():
        whole = b""
        for at, payload in sorted(parts.items()):
            assert at <= len(whole), "a gap"
            whole += payload[len(whole) - at :]  # sent again, maybe in other pieces
        found[key] = whole
    return found


def boxes(stream: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and length of each command of a ZMTP 3 stream, after its greeting of 64 bytes."""
    at = 64
    while at < len(stream):
        wide = stream[at] & 2
        (length,) = struct.unpack_from(">Q" if wide else ">B", stream, at + 1)
        at += 9 if wide else 2
        yield stream[at + 1 : at + 1 + stream[at]], length
        at += length


def crossing(run: Path, placed: Sequence[Sequence[str]]) -> Counter[int]:
    """Bytes that the ledger of `run` has between two machines, by the machine that sent them."""
    total: Counter[int] = Counter()
    for line in RunDirectory.open(run).lines("ledger"):
        tail, head = line["edge"].split("->")
        sender = next(k for k, nodes in enumerate(placed) if tail in nodes)
        if head not in placed[sender]:
            sent = line["sent"]
            total[sender] += sum(count for name, count in sent.items() if name != "messages")
    return total


@pytest.mark.long
@pytest.mark.parametrize("network", ["tiny", "ring"])
def test_what_crosses_between_two_machines(
    two: tuple[list[Machine], Switch], start: Any, tmp_path: Path, network: str
) -> None:
    cluster, switch = two
    topology = tmp_path / "tiny.yaml" if network == "tiny" else RING
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    rounds = f"training.rounds={6 if network == 'tiny' else 20}"
    where = (f"run.ports={PORTS[0]}-{PORTS[-1]}", "run.nodes_per_actor=3")
    switch.record = record = []
    code, err = end_of(start(cluster[0], rounds, *where, topology=topology), cluster)
    switch.record = None
    assert code == 0, err
    assert summary_of(tmp_path / "run")["actors"] == 2
    local = load_config(topology, ["run.backend=local", rounds])
    assert artifacts(tmp_path / "run") == run_artifacts(local, tmp_path / "local")

    plan = Plan.open(load_config(topology, ["run.backend=ray", *where]))
    names = [node.id for node in plan.topology.nodes]
    placed = [[names[n] for host in hosts for n in host] for hosts in plan.placement([1, 1])]
    counted = crossing(tmp_path / "run", placed)
    wire = streams(record)
    assert sorted(machine for machine, _, _ in wire) == [0, 1]
    sent: Counter[int] = Counter()
    for (machine, _, _), stream in wire.items():
        commands = list(boxes(stream))
        assert [name for name, _ in commands[:2]] == [b"HELLO", b"INITIATE"]
        assert {name for name, _ in commands[2:]} == {b"MESSAGE"}
        sent[machine] += sum(length - BOX_BYTES for _, length in commands[2:])
    assert sent == counted  # to the byte, each way
    assert min(counted.values()) > 5_000
    ethernet = sum(len(frame) for _, frame in record if of_sockets(frame))
    print(
        f"\n{network}: {sum(counted.values()):,} bytes in the ledger between the machines, "
        f"{sum(map(len, wire.values())):,} in TCP streams, {ethernet:,} in Ethernet frames"
    )

    tag = struct.pack(">BI", 0xCE, plan.limits("run").run)
    assert not any(tag in frame for _, frame in record)  # which every frame of the run has in it


@pytest.mark.long
@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_a_firewall_between_two_machines(
    two: tuple[list[Machine], Switch], start: Any, tmp_path: Path, target: str
) -> None:
    cluster, _ = two
    missing = why_not("iptables")
    if missing:
        pytest.skip(missing)
    closed = ["INPUT", "-p", "tcp", "--dport", f"{PORTS[0]}:{PORTS[-1]}", "-j", target]
    cluster[1].run("iptables", "-A", *closed)
    try:
        code, err = end_of(start(cluster[0], *TWO_PAIRS), cluster)
    finally:
        cluster[1].run("iptables", "-D", *closed)
    assert code == 5, err
    message = err.strip().splitlines()[-1]
    assert "host on 10.77.0.1:21800 cannot reach 10.77.0.2:21800: no answer within 20 s" in message
    assert "Traceback" not in err
    about = RunDirectory.open(tmp_path / "run").about()
    assert about["status"] == "failed"


@pytest.mark.long
@pytest.mark.parametrize("heals", [True, False])
def test_sockets_that_are_cut_off_while_a_run_is_under_way(
    two: tuple[list[Machine], Switch], start: Any, tiny: MakeConfig, tmp_path: Path, heals: bool
) -> None:
    """Ray's own connections stay, so that nobody dies: the sockets have to notice by themselves."""
    cluster, switch = two
    dropped = [0]

    def drops(frame: bytes) -> bool:
        dropped[0] += of_sockets(frame)
        return of_sockets(frame)

    process = start(cluster[0], *TWO_PAIRS, *LONG, "run.deadline_s=6")
    until_training(process)
    switch.drops = drops
    try:
        if heals:
            about = RunDirectory.open(tmp_path / "run").about
            wait_until(lambda: "recoveries" in about(), "the hosts to notice")
            switch.drops = None
        code, err = end_of(process, cluster)
    finally:
        switch.drops = None
    assert dropped[0] > 0
    run = RunDirectory.open(tmp_path / "run")
    (note,) = run.about()["recoveries"]
    assert "has lost its connection to 10.77.0." in note
    assert {f"10.77.0.{k}:21800" for k in (1, 2)} <= set(note.replace(". ", " ").split())
    lines = list(run.lines("rounds"))
    assert sum(line.get("missed", 0) for line in lines) == 0
    if heals:
        assert code == 0, err
        expected = run_artifacts(tiny(*LONG), tmp_path / "local")
        assert artifacts(tmp_path / "run") == expected
    else:
        assert code == 5, err
        assert "cannot reach 10.77.0." in err.strip().splitlines()[-1]
        assert run.about()["status"] == "failed"
        assert [line["round"] for line in lines] == list(range(len(lines)))
        assert len(lines) >= 2


@pytest.mark.long
def test_a_machine_is_unplugged(start: Any, tiny: MakeConfig, tmp_path: Path) -> None:
    """Nothing is heard of it any more, and on it everything runs on until it is plugged in."""
    with ray_on(2, tmp_path / "two") as (cluster, switch):
        process = start(cluster[0], *TWO_PAIRS, *LONG)
        until_training(process)
        switch.drops = bool  # everything
        about, begin = RunDirectory.open(tmp_path / "run").about, time.monotonic()
        wait_until(lambda: "recoveries" in about(), "the machine to be given up")
        print(f"\ngiven up after {time.monotonic() - begin:.0f} s")
        code, err = end_of(process, cluster[:1])
        assert code == 0, err
        assert cluster[1].processes("ray::HostProcess")
        switch.drops = None
        end_of(process, cluster)
    (note,) = about()["recoveries"]
    assert note.startswith("actor 1 (c, d) on 10.77.0.2: its machine left the cluster before")
    assert artifacts(tmp_path / "run") == run_artifacts(tiny(*LONG), tmp_path / "local")


@pytest.mark.long
def test_three_machines_far_apart(start: Any, tiny: MakeConfig, tmp_path: Path) -> None:
    """20 ms of the way, packets of 576 bytes, and no storage that they share."""
    sizes = ("training.rounds=30", "run.checkpoint_every=2")
    with ray_on(3, tmp_path / "three", mtu=576, delay_s=0.02) as (cluster, switch):
        for machine in cluster[1:]:
            machine.run("mount", "-t", "tmpfs", "none", str(tmp_path))
        switch.record = record = []
        code, err = end_of(start(cluster[0], "run.nodes_per_actor=1", *sizes), cluster)
    assert code == 0, err
    summary = summary_of(tmp_path / "run")
    assert summary["actors"] == 4
    assert artifacts(tmp_path / "run") == run_artifacts(tiny(*sizes), tmp_path / "local")
    left_out = RunDirectory.open(tmp_path / "run").about()["left_out"]
    assert any("shared storage" in text for text in left_out)
    assert 550 < max(len(frame) for _, frame in record) <= 576 + 14
    # Neighbours wait for each other's projections: a round takes at least once the way.
    assert summary["timing"]["train_round_ms"] >= 20
    assert summary["timing"]["train_host"]["wait_ms"] > 10
