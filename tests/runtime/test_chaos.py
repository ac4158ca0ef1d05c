"""Processes killed at moments that nobody chose: the run ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml
from ray.exceptions import RayError

import sheafnet
from sheafnet.config import Config
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.host import Host
from sheafnet.runtime.machines import this_machine
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.ray_cluster import HostProcess, RayPool, start_private, stop_private
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import TINY, MakeConfig, artifacts
from tests.runtime.test_ray import children_of, end_of, named, until_training

pytestmark = pytest.mark.ray
SEED = int(os.environ.get("SHEAFNET_CHAOS_SEED", "0"))
"""Another one kills at other moments."""


class Killer:
    """Kills a host with SIGKILL some milliseconds after some of the stretches of a run."""

    def __init__(self, seed: int, after: list[int]) -> None:
        self._random = random.Random(seed)
        self._after = after
        self._stretches = 0
        self.killed: list[int] = []
        self.notes: list[str] = []

    def __call__(self, progress: Progress) -> None:
        self._stretches += 1
        self.notes += progress.notes
        if self._after and self._stretches >= self._after[0]:
            self._after.pop(0)
            threading.Timer(self._random.uniform(0, 0.03), self._kill).start()

    def _kill(self) -> None:
        hosts = named(psutil.Process().children(recursive=True), "HostProcess")
        victim = self._random.choice(hosts)
        victim.kill()
        self.killed.append(victim.pid)


@pytest.mark.parametrize("round_", range(int(os.environ.get("SHEAFNET_CHAOS_ROUNDS", "1"))))
def test_hosts_killed_in_every_phase(tiny: MakeConfig, tmp_path: Path, round_: int) -> None:
    sizes = ("training.rounds=60", "inference.rounds=60", "run.stretch=2", "evaluation.every=30")
    sheafnet.simulate(tiny(*sizes), run_dir=tmp_path / "whole")
    where = ("run.backend=ray", "run.nodes_per_actor=2", "run.checkpoint_every=3")
    # 15 stretches of training, an evaluation, 15 more, another one, 30 of inference
    killer = Killer(SEED + round_, [4, 15, 40])
    run = tmp_path / "run"
    sheafnet.simulate(tiny(*sizes, *where), run_dir=run, on_progress=killer)
    assert len(killer.killed) == 3
    assert len(set(killer.killed)) == 3
    assert len(killer.notes) == 3
    for note in killer.notes:
        assert "actor" in note
        assert "died" in note
    about = RunDirectory.open(run).about()
    assert about["incarnation"] == 3
    assert about["recoveries"] == killer.notes
    for name in ("rounds.jsonl", "ledger.jsonl"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert artifacts(run) == artifacts(tmp_path / "whole")


def answer_for_ever(host: Any) -> None:
    while ray.get(host.alive.remote()):
        pass


class PoolWithAWeakActor(RayPool):
    """Kills the first actor that it makes in the place of host 1, before that can listen."""

    killed = 0

    def _make(self, at: int) -> Any:
        host = super()._make(at)
        if self._hosts and at == 1 and not self.killed:
            ray.get(host.alive.remote())
            ray.kill(host)
            with pytest.raises(RayError):
                answer_for_ever(host)
            self.killed += 1
        return host


@pytest.mark.long
def test_both_hosts_die_and_one_of_those_in_their_place(tiny: MakeConfig, tmp_path: Path) -> None:
    """The other one listens already, at an address that nobody has been told."""
    config = tiny("run.stretch=2", "run.backend=ray", "run.nodes_per_actor=2")
    sockets, plan = tmp_path / "sockets", Plan.open(config)
    sockets.mkdir()
    start_private()
    try:
        here = ray.get_runtime_context().get_node_id()
        machine = replace(this_machine(config), id=here)
        directory = RunDirectory.create(config, tmp_path / "run")
        pool = PoolWithAWeakActor(plan, directory.path, [machine], str(sockets))
        coordinator = Coordinator(plan, pool, directory)
        coordinator.start()
        assert coordinator.step() is not None
        for host in pool._hosts:
            ray.kill(host)
        while coordinator.step() is not None:
            pass
        coordinator.finish(0.0, 0.0)
    finally:
        stop_private()
    assert pool.killed == 1
    assert len(directory.about()["recoveries"]) == 2
    sheafnet.simulate(tiny("run.stretch=2"), run_dir=tmp_path / "whole")
    assert artifacts(tmp_path / "run") == artifacts(tmp_path / "whole")


def test_a_host_takes_the_graph_that_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheafnet.runtime.ray_cluster._end_with_raylet", lambda: None)
    graph = {"generator": "random-regular", "nodes": 6, "degree": 3}
    config = Config.model_validate({"name": "drawn", "dataset": "synthetic", "graph": graph})
    drawn = Plan.open(config).topology

    def refuse(_: object) -> None:
        raise AssertionError("the graph was drawn again")

    monkeypatch.setattr("sheafnet.graphs.generate_graph", refuse)
    with pytest.raises(AssertionError):
        Plan.open(config)
    process = HostProcess(config, drawn, tmp_path, [range(6)], 0)
    process.listen(f"unix://{tmp_path}/0", spins=True)
    assert process._plan.topology == drawn
    process._hub.close()


def test_a_survivor_lets_go_of_its_nodes_before_it_makes_them_anew(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheafnet.runtime.ray_cluster._end_with_raylet", lambda: None)
    config = tiny()
    process = HostProcess(config, Plan.open(config).topology, tmp_path, [[0, 1, 2, 3]], 0)
    addresses = {0: process.listen(f"unix://{tmp_path}/0", spins=True)}
    process.abort()  # nothing to end yet
    process.connect(addresses, None, 0)
    process.run(next(Plan.open(config).stretches()))
    before = [weakref.ref(node) for node in process._host._nodes.values()]
    there: list[int] = []
    make = Host.__init__

    def counting(self: Host, *arguments: Any) -> None:
        there.append(sum(node() is not None for node in before))
        make(self, *arguments)

    monkeypatch.setattr(Host, "__init__", counting)
    process.connect(addresses, None, 1)
    process._hub.close()
    assert there == [0]


@pytest.mark.long
def test_coordinator_driver_and_raylet_killed_one_after_the_other(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    values = TINY | {"training": {"rounds": 1000, "batch_size": 16}}
    values["run"] = values["run"] | {"backend": "ray", "nodes_per_actor": 2, "stretch": 10}
    path, run = tmp_path / "network.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(values))
    command = ["simulate", "--topology", str(path), "--run-dir", str(run)]
    scratch = tempfile.mkdtemp(prefix="chaos-")  # short, for Unix sockets
    for victim in ("CoordinatorProcess", "driver", "raylet/raylet"):
        process = subprocess.Popen(
            [sys.executable, "-m", "sheafnet", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"TMPDIR": scratch},
        )
        until_training(process)
        until_training(process)  # the next tenth
        assert len(list(Path(scratch).glob("sheafnet-*/[0-9]*"))) == 2  # of each host
        children = children_of(process)
        if victim == "driver":
            process.kill()
        else:
            only(named(children, victim)).kill()
        # Ray's own agents notice at once, and then try for a minute to tell a server that is gone.
        agents = (
            {p.pid for p in named(children, "Agent")} if victim != "CoordinatorProcess" else set()
        )
        code, words = end_of(process, [p for p in children if p.pid not in agents])
        assert "Traceback" not in words
        if victim == "driver":
            assert code == -signal.SIGKILL
            assert RunDirectory.open(run).about()["status"] == "running"
        else:
            assert code == 5
            assert f"sheafnet resume {run}" in words
            assert RunDirectory.open(run).about()["status"] == "failed"
        command = ["resume", str(run)]
    assert list(Path(scratch).glob("sheafnet-*")) == []
    assert not [path for path in Path(scratch).rglob("*") if path.is_socket()]
    shutil.rmtree(scratch)  # where Ray has left its logs
    sheafnet.resume(run, ["run.backend=local"])
    about = RunDirectory.open(run).about()
    done = [note["stretches_done"] for note in about["resumed"]]
    assert len(done) == 3
    assert sorted(done) == done
    assert done[0] > 0
    assert done[-1] < 100
    whole = tmp_path / "whole"
    sheafnet.simulate(tiny("training.rounds=1000", "run.stretch=10"), run_dir=whole)
    assert artifacts(run) == artifacts(whole)
    assert json.loads((run / "summary.json").read_text())["backend"] == "local"


@pytest.mark.long
def test_a_machine_is_lost(tiny: MakeConfig, tmp_path: Path) -> None:
    """Its hosts, one of two, move to the machine that is left."""
    from ray.cluster_utils import Cluster

    sizes = {"training": {"rounds": 600, "batch_size": 16}}
    path, run = tmp_path / "network.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(TINY | sizes))
    where = ["run.stretch=10", "run.checkpoint_every=2", "run.nodes_per_actor=2"]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        process = subprocess.Popen(
            [sys.executable, "-m", "sheafnet", "simulate", "--topology", str(path)]
            + ["--backend", "ray", "--address", cluster.address, "--run-dir", str(run)]
            + [word for override in where for word in ("--set", override)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until_training(process)
        until_training(process)
        raylet = psutil.Process(lost.all_processes["raylet"][0].process.pid)
        hosts = named(raylet.children(), "HostProcess")
        assert len(hosts) == 1
        raylet.kill()
        _, words = process.communicate(timeout=180)
        assert process.returncode == 0, words
        _, alive = psutil.wait_procs(hosts, timeout=10)
        assert alive == []
    finally:
        cluster.shutdown()
    recoveries = RunDirectory.open(run).about()["recoveries"]
    assert recoveries
    sheafnet.simulate(tiny("training.rounds=600", "run.stretch=10"), run_dir=tmp_path / "whole")
    assert artifacts(run) == artifacts(tmp_path / "whole")


def only(found: list[psutil.Process]) -> psutil.Process:
    """The one process that there is."""
    (process,) = found
    return process
