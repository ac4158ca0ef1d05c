"""Processes of actors are forked from one that has imported torch, and are as if started."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from sheafnet.errors import ActorError
from sheafnet.runtime import forked, ray_cluster
from sheafnet.runtime.fork_server import ForkServer
from sheafnet.runtime.forked import ADDRESS
from sheafnet.runtime.ray_cluster import HostProcess, start_private, stop_private
from tests.runtime.test_ray import named, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")

TELLS = """
import json, os, random, signal, sys, numpy, late
torch = sys.modules.get("torch")
json.dump(
    {
        "arguments": sys.argv[1:],
        "name": __name__,
        "folder": os.getcwd(),
        "own": os.environb.get(b"OWN", b"").hex(),
        "late": late.OWN.hex(),
        "read": sys.stdin.read(),
        "drawn": [
            random.random(),
            float(numpy.random.random()),
            torch and float(torch.rand(1)),
        ],
        "pid": os.getpid(),
        "parent": os.getppid(),
        "children": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "leads": os.getpgrp() == os.getpid(),
        "oom": int(open("/proc/self/oom_score_adj").read()),
        "open": sorted(int(number) for number in os.listdir("/proc/self/fd")),
    },
    sys.stdout,
)
sys.stdout.flush()
print("to stderr", file=sys.stderr, flush=True)
"""
LATE = "import os, numpy.random\nOWN = os.environb.get(b'OWN', b'')\n"
ASKS = (
    "import sys; from sheafnet.runtime.forked import _forked; "
    "sys.exit(not _forked(sys.argv[2:], float(sys.argv[1])))"
)

Fork = Callable[..., dict[str, Any]]


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that the server imports with the first request."""
    path = tmp_path / "late.py"
    path.write_text(LATE)
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.fixture
def server(late: Path, request: pytest.FixtureRequest) -> Iterator[ForkServer]:
    with ForkServer(getattr(request, "param", "colorsys"), late.stem) as server:
        yield server


def asked(server: ForkServer, *arguments: str, patience_s: float = 30, **more: Any) -> int:
    """The exit code of a process that asks: 0 if it is told that a process was forked."""
    variables = os.environ | {ADDRESS: server.address} | more.pop("env", {})
    words = [sys.executable, "-c", ASKS, str(patience_s), *arguments]
    return subprocess.run(words, env=variables, timeout=60, **more).returncode


@pytest.fixture
def fork(server: ForkServer, tmp_path: Path) -> Fork:
    """What a forked process tells of itself."""
    script = tmp_path / "tells.py"
    script.write_text(TELLS)

    def tell(
        *arguments: str, own: bytes = b"", folder: Path = tmp_path, **more: Any
    ) -> dict[str, Any]:
        out, words = tmp_path / "out", tmp_path / "words"
        with out.open("w") as stdout, words.open("w") as stderr:
            env: Mapping[str, str] = {"OWN": os.fsdecode(own)}
            more |= {"stdout": stdout, "stderr": stderr, "input": b"read"}
            assert not asked(server, str(script), *arguments, env=env, cwd=folder, **more)
        wait_until(lambda: words.read_text() == "to stderr\n", "the forked process")
        return dict(json.loads(out.read_text()))

    return tell


def test_it_goes_on_as_the_process_that_asked(
    fork: Fork, server: ForkServer, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    told = fork("a", "b c", "ü\n", own=b"\xff=1", folder=tmp_path / "inner")
    assert told["arguments"] == ["a", "b c", "ü\n"]
    assert told["name"] == "__main__"
    assert told["folder"] == str(tmp_path / "inner")
    assert told["own"] == b"\xff=1".hex()
    assert told["read"] == "read"
    assert told["parent"] == server._process.pid
    assert told["children"]
    assert told["open"][:4] == [0, 1, 2, 3]  # and 3 is the folder that is listed
    assert len(told["open"]) == 4


def test_the_late_module_finds_the_first_environment(fork: Fork) -> None:
    first, second = fork(own=b"one"), fork(own=b"two")
    assert [first["own"], second["own"]] == [b"one".hex(), b"two".hex()]
    assert first["late"] == second["late"] == b"one".hex()
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize("server", ["torch"], indirect=True)
def test_forks_draw_numbers_of_their_own(fork: Fork) -> None:
    first, second = fork()["drawn"], fork()["drawn"]
    assert None not in first
    assert [a == b for a, b in zip(first, second, strict=True)] == [False] * 3


@pytest.mark.parametrize("leads", [True, False])
def test_group_and_priority_when_memory_runs_out_are_those_of_who_asked(
    leads: bool, fork: Fork
) -> None:
    def prepare() -> None:
        Path("/proc/self/oom_score_adj").write_text("700")

    told = fork(process_group=0 if leads else None, preexec_fn=prepare)
    assert told["leads"] == leads
    assert told["oom"] == 700


def test_nothing_is_forked_for_one_that_waits_no_longer(server: ForkServer, tmp_path: Path) -> None:
    """It has become the worker itself, and there must not be two."""
    script, sign = tmp_path / "signs.py", tmp_path / "sign"
    script.write_text(f"import sys; open({str(sign)!r} + sys.argv[1], 'w')")
    assert not asked(server, str(script), "first")
    os.kill(server._process.pid, signal.SIGSTOP)
    assert asked(server, str(script), "late", patience_s=0.2)
    os.kill(server._process.pid, signal.SIGCONT)
    assert not asked(server, str(script), "last")
    wait_until(Path(f"{sign}last").exists, "the last fork")
    wait_until(lambda: not psutil.Process(server._process.pid).children(), "the forks to end")
    assert sorted(path.name for path in tmp_path.glob("sign?*")) == [
        "signfirst",
        "signlast",
        script.name,
    ]


def test_it_finds_modules_where_its_starter_does(
    late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At paths relative to the starter's folder, too; and not in that folder unasked."""
    (tmp_path / "colorsys.py").write_text("1/0")
    inner = tmp_path / "inner"
    inner.mkdir()
    late.rename(inner / "late.py")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("inner")
    with ForkServer("colorsys", "late") as server:
        monkeypatch.chdir("/")
        assert not asked(server, str(inner / "late.py"))


def test_a_forked_process_that_ends_leaves_nothing(fork: Fork, server: ForkServer) -> None:
    fork()
    wait_until(lambda: not psutil.Process(server._process.pid).children(), "the fork to end")


def test_what_was_forked_outlives_it(server: ForkServer, tmp_path: Path) -> None:
    script, sign = tmp_path / "waits.py", tmp_path / "sign"
    script.write_text(f"import time; time.sleep(1); open({str(sign)!r}, 'w')")
    assert not asked(server, str(script))
    server.__exit__()
    assert not sign.exists()
    wait_until(sign.exists, "the forked process")


def test_nonsense_does_not_end_it(fork: Fork, server: ForkServer) -> None:
    for said in (b"", b"nonsense", b'["a", {}]', b'[["a"], {"b'):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(server.address)
            asking.sendall(said)
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(16) == b""
    assert fork("well")["arguments"] == ["well"]


@pytest.mark.parametrize(
    "problem",
    ["import threading, time; threading.Thread(target=time.sleep, args=[60]).start()", "1/0"],
)
def test_a_module_that_it_cannot_fork_with_ends_it(
    problem: str, late: Path, server: ForkServer
) -> None:
    """A fork has no threads but one; what waits for the others would wait for ever."""
    late.write_text(problem)
    assert asked(server, "never.py")
    assert server._process.wait(10) == 1
    assert asked(server, "never.py")


def test_it_ignores_ctrl_c_and_ends_with_whoever_started_it(late: Path) -> None:
    starts = (
        "import sys; from sheafnet.runtime.fork_server import ForkServer\n"
        f"sys.path.insert(0, {str(late.parent)!r})\n"
        "server = ForkServer('colorsys', 'late')\n"
        "print(server._process.pid, server.address, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid, address = process.stdout.readline().split()
    server = psutil.Process(int(pid))
    wait_until(lambda: _blocks(server.pid, signal.SIGINT), "the server")
    server.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert server.is_running()
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    _, alive = psutil.wait_procs([server], timeout=10)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
    wait_until(lambda: not Path(address).exists(), "the socket to go")


def _blocks(pid: int, which: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")]
    return bool(mask >> (which - 1) & 1)


@pytest.mark.parametrize("there", [True, False])
def test_without_it_the_worker_of_ray_is_started(
    there: bool, server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its usage shows that it is Ray's own; either way with the streams of who asked."""
    monkeypatch.setenv(ADDRESS, server.address if there else "/nowhere")
    words = [sys.executable, forked.__file__, "--help"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0
    assert "--raylet-name" in told.stdout


@pytest.fixture
def private() -> Iterator[None]:
    start_private()
    yield
    stop_private()


def parents(count: int) -> list[int]:
    """The processes that those of some actors came from."""

    class Tells:
        def tell(self) -> int:
            return os.getppid()

    actors = [ray.remote(Tells).options(num_cpus=0).remote() for _ in range(count)]
    found: list[int] = ray.get([actor.tell.remote() for actor in actors])
    return found


def imported() -> set[str]:
    """What a worker has imported that has not run anything yet."""

    def modules() -> set[str]:
        import sys

        return set(sys.modules)

    found: set[str] = ray.get(ray.remote(modules).options(num_cpus=0).remote())
    return found


def beside() -> list[psutil.Process]:
    """The processes of this one's private Ray."""
    return psutil.Process().children(recursive=True)


def servers() -> list[psutil.Process]:
    return named(psutil.Process().children(), "sheafnet.runtime.fork_server")


@pytest.mark.ray
@pytest.mark.usefixtures("private")
def test_a_private_ray_forks_actors_and_starts_three_helpers_less() -> None:
    (server,) = servers()
    assert parents(4) == [server.pid] * 4
    assert {"torch", "sheafnet.runtime.host"} <= imported()
    for needless in ("dashboard.py", "log_monitor.py", "autoscaler"):
        assert named(beside(), needless) == []
    assert len(named(beside(), "gcs_server")) == 1
    # What was changed for its start is as it was.
    assert ADDRESS not in os.environ
    assert isinstance(ray._private.parameter.RayParams, type)
    assert ray._private.node.Node.start_api_server.__qualname__ == "Node.start_api_server"


@pytest.mark.ray
@pytest.mark.usefixtures("private")
def test_without_the_server_actors_are_started() -> None:
    (server,) = servers()
    assert parents(1) == [server.pid]
    server.kill()
    server.wait()
    raylet = named(beside(), "raylet")[0].pid
    assert parents(4).count(raylet) >= 3  # one had been forked before it was needed


@pytest.mark.ray
def test_where_no_process_can_be_forked_actors_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "SUPPORTED", False)
    start_private()
    try:
        assert servers() == []
        raylet = named(beside(), "raylet")[0].pid
        assert parents(1) == [raylet]
    finally:
        stop_private()


@pytest.mark.ray
@pytest.mark.usefixtures("private")
def test_actors_end_with_their_raylet() -> None:
    hosts = ray.remote(concurrency_groups={"control": 1})(HostProcess).options(num_cpus=0)
    host = hosts.remote(None, None, None, [], 0)
    assert ray.get(host.alive.remote())
    (process,) = named(beside(), "HostProcess")
    named(beside(), "raylet")[0].kill()
    _, alive = psutil.wait_procs([process], timeout=10)
    assert alive == []
    assert len(servers()) == 1  # which ends with this process


@pytest.mark.ray
def test_the_server_ends_with_a_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fail(**_: object) -> None:
        seen.extend(servers())
        raise Exception("no port is free")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ActorError, match="Ray does not start on this machine: no port is free"):
        start_private()
    assert len(seen) == 1
    assert servers() == []


@pytest.mark.ray
@pytest.mark.usefixtures("private")
def test_the_server_of_a_running_ray_stays_and_ends_after_it() -> None:
    before = servers()
    with pytest.raises(ActorError, match="does not start"):
        start_private()
    assert servers() == before
    ray.shutdown()
    assert servers() == before
    stop_private()
    assert servers() == []
