"""Real actors: interrupted, killed, joined to a cluster; nothing is ever left running."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from sheafnet.runtime.environment import environment
from tests.conftest import TINY, MakeConfig, run_artifacts

pytestmark = pytest.mark.ray
LONG = TINY | {"training": {"rounds": 1_000_000, "batch_size": 16}}
WAIT_S = 120


@pytest.fixture
def start(tmp_path: Path):
    """Start the command line on a run that would take for ever; ends it in any case."""
    started = []

    def launch(*arguments: str, values: dict | None = None) -> subprocess.Popen[str]:
        path = tmp_path / "network.yaml"
        path.write_text(yaml.safe_dump(values or LONG))
        command = [sys.executable, "-m", "sheafnet", "simulate", "--topology", str(path)]
        where = ["--backend", "ray", "--nodes-per-actor", "2", "--run-dir", str(tmp_path / "run")]
        process = subprocess.Popen(
            [*command, *where, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def until_training(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "] train " in line:
            return
    pytest.fail("the run ended before it trained")


def end_of(process: subprocess.Popen[str], children: list[psutil.Process]) -> tuple[int, str]:
    """Exit code and last words, after a check that no child lives on."""
    _, words = process.communicate(timeout=WAIT_S)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    return process.returncode, words


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def status(tmp_path: Path) -> str:
    return json.loads((tmp_path / "run" / "run.json").read_text())["status"]


def named(children: list[psutil.Process], name: str) -> list[psutil.Process]:
    found = []
    for child in children:
        try:
            if name in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_ctrl_c_while_training(start, tmp_path: Path) -> None:
    process = start()
    until_training(process)
    children = children_of(process)
    hosts = named(children, "HostProcess")
    assert len(hosts) == 2
    assert {host.nice() for host in hosts} == {psutil.Process(process.pid).nice()}
    assert environment().items() <= hosts[0].environ().items()  # not of this process, nor of that
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    code, words = end_of(process, children)
    assert code == 130
    assert "interrupted" in words
    assert "Traceback" not in words
    assert status(tmp_path) == "interrupted"
    lines = [json.loads(x) for x in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(len(lines)))
    assert len(lines) >= 4


def test_ctrl_c_while_ray_starts(start, tmp_path: Path) -> None:
    process = start()
    wait_until(lambda: bool(named(children_of(process), "gcs_server")), "Ray to start")
    children = {child.pid: child for child in children_of(process)}
    os.killpg(process.pid, signal.SIGINT)

    def ended() -> bool:  # Ray may still start more processes before it ends
        if process.poll() is None:
            children.update((child.pid, child) for child in children_of(process))
        return process.poll() is not None

    wait_until(ended, "the end")
    code, words = end_of(process, list(children.values()))
    assert code == 130
    assert "Traceback" not in words
    assert status(tmp_path) == "interrupted"


def test_a_host_that_dies_too_often_ends_the_run_with_its_nodes_named(
    start, tmp_path: Path
) -> None:
    process = start("--set", "run.restarts=0")
    until_training(process)
    children = children_of(process)
    hosts = named(children, "HostProcess")
    assert len(hosts) == 2
    hosts[0].kill()
    code, words = end_of(process, children)
    assert code == 5
    message = words.strip().splitlines()[-1]
    assert "died" in message
    assert "(a, b)" in message or "(c, d)" in message
    assert message.endswith(f"`sheafnet resume {tmp_path / 'run'}` goes on.")
    assert "Traceback" not in words
    assert status(tmp_path) == "failed"
    assert (tmp_path / "run" / "rounds.jsonl").read_text().count("\n") >= 4


def test_an_address_where_nothing_answers(start, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for address, expected in (
        (f"127.0.0.1:{port}", "nothing answers"),
        ("nowhere", "host:port"),
    ):
        process = start("--address", address)
        _, words = process.communicate(timeout=WAIT_S)
        assert process.returncode == 2
        assert len(words.strip().splitlines()) == 1
        assert address in words
        assert expected in words
        assert not (tmp_path / "run").exists()  # nothing began, so nothing is left


@pytest.mark.long
def test_a_running_cluster_is_joined_and_left_running(
    start, tiny: MakeConfig, tmp_path: Path
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        process = start("--address", cluster.address, "--format", "json", values=TINY)
        output, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
        assert json.loads(output)["backend"] == "ray"
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        assert [node["Alive"] for node in ray.nodes()] == [True]
        own = psutil.Process()
        wait_until(
            lambda: not named(own.children(recursive=True), "HostProcess"), "the actors to end"
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    local = run_artifacts(tiny(), tmp_path / "local")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["alignment"] == local["summary"]["alignment"]


@pytest.mark.long
def test_divergence_in_one_actor_stops_all(start, tmp_path: Path) -> None:
    training = {"rounds": 1000, "batch_size": 16, "optimizer": "sgd", "learning_rate": 1e6}
    process = start(values=TINY | {"training": training})
    begin = time.monotonic()
    _, words = process.communicate(timeout=WAIT_S)
    assert process.returncode == 3
    assert time.monotonic() - begin < TINY["run"]["deadline_s"] + 30
    message = words.strip().splitlines()[-1]
    assert "node " in message
    assert "round " in message
    assert status(tmp_path) == "diverged"


@pytest.mark.long
def test_a_registered_encoder_reaches_the_actors(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_encoders.py").write_text(
        "from sheafnet.config import Model\n"
        "from sheafnet.nodes.encoders import EncoderKind, register\n"
        "def build(shape, dim, options):\n"
        "    from torch import nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], dim))\n"
        "register(EncoderKind('flat', Model, build, lambda shape: None))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    node = {"encoder": "flat", "embedding_dim": 8}
    own = TINY | {"imports": ["own_encoders"], "defaults": {"node": node}}
    process = start(values=own)
    _, words = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, words
    from safetensors.numpy import load_file

    saved = load_file(tmp_path / "run" / "parameters" / "a.safetensors")
    assert saved["encoder.1.weight"].shape == (8, 12)


@pytest.mark.long
def test_a_port_that_is_no_ray_is_given_up(start, tmp_path: Path) -> None:
    with socket.socket() as deaf:  # it takes connections and never says a word
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        process = start("--address", address)
        _, words = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert len(words.strip().splitlines()) == 1
    assert address in words
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_terminal_that_closes_is_as_clean_as_ctrl_c(start, tmp_path: Path) -> None:
    process = start()
    until_training(process)
    children = children_of(process)
    process.send_signal(signal.SIGHUP)
    code, _ = end_of(process, children)
    assert code == 130
    assert status(tmp_path) == "interrupted"


@pytest.mark.long
@pytest.mark.parametrize("name", ["HostProcess", "CoordinatorProcess"])
def test_a_stopped_process_is_noticed(start, tmp_path: Path, name: str) -> None:
    """Neither dead nor answering: only a deadline can end the wait for it."""
    process = start("--set", "run.deadline_s=1")
    until_training(process)
    children = children_of(process)
    stopped = named(children, name)[0]
    stopped.suspend()
    code, words = end_of(process, children)
    assert code == 5
    message = words.strip().splitlines()[-1]
    assert "answer within 15 s" in message or "nor answer, within 15 s" in message
    assert ("coordinator" if name == "CoordinatorProcess" else "actor ") in message
    assert status(tmp_path) == "failed"


LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_on_one_machine_no_port_is_open_to_others(start, tmp_path: Path) -> None:
    """Neither of sheafnet nor of Ray; the hosts' frames go over Unix sockets that no other user
    can reach. SIGTERM, then, is as clean an end as Ctrl-C."""
    process = start()
    until_training(process)
    sockets, ports, hosts = set(), set(), 0
    for child in [psutil.Process(process.pid), *children_of(process)]:
        listening = [c for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        ports |= {connection.laddr.ip for connection in listening}
        if "HostProcess" in " ".join(child.cmdline()):
            hosts += 1
            sockets |= {c.laddr for c in child.net_connections("unix") if "sheafnet-" in c.laddr}
    assert hosts == 2
    assert ports <= LOOPBACK
    assert ports  # Ray's own were seen: a process of another user could not be looked into
    assert len(sockets) == 2
    for path in map(Path, sockets):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
    children = children_of(process)
    process.send_signal(signal.SIGTERM)
    assert end_of(process, children)[0] == 130
    assert status(tmp_path) == "interrupted"
