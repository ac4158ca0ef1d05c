"""A cluster of two raylets on this machine, whose Python lacks sheafnet: it has to be sent along.

Each raylet counts as a machine: it has workers, CPUs and a name of its own, and frames between
them go over TCP with CURVE.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.state import actors
from ray.cluster_utils import Cluster

from sheafnet.runtime.environment import environment
from sheafnet.runtime.memory import estimate
from sheafnet.runtime.placement import crossing
from sheafnet.runtime.plan import Plan
from tests.conftest import TINY, MakeConfig, artifacts, run_artifacts

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
PORTS = "21800-21849"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Machines of 1 and 3 CPUs, and a third that offers none."""
    lacking = tmp_path_factory.mktemp("lacking") / "sheafnet"
    lacking.mkdir()
    (lacking / "__init__.py").write_text("raise ImportError('sheafnet is not installed here')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(lacking.parent))
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            started.add_node(num_cpus=3)
            started.add_node(num_cpus=0)
            yield started
        finally:
            started.shutdown()


def python(cluster: Cluster, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A driver that has sheafnet, in a folder that has not."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def simulated(
    cluster: Cluster, tmp_path: Path, *overrides: str, **values: Any
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(TINY | values))
    chosen = ["run.backend=ray", f"run.address={cluster.address}", *overrides]
    options = [word for override in chosen for word in ("--set", override)]
    command = ["-m", "sheafnet", "simulate", "--topology", "network.yaml", "--run-dir", "run"]
    return python(cluster, tmp_path, *command, "--format", "json", *options)


def actor_states(cluster: Cluster) -> list[tuple[str, str, str]]:
    """Class, state and machine of every actor that there ever was, as Ray tells."""
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        return [
            (actor["ActorClassName"], actor["State"], actor["Address"]["NodeID"])
            for actor in actors().values()
        ]
    finally:
        ray.shutdown()


def ended_since(
    cluster: Cluster, before: list[tuple[str, str, str]]
) -> Counter[tuple[str, str, str]]:
    """The actors that were made since, once all of them have ended."""
    end = time.monotonic() + 20
    while True:
        left = Counter(actor_states(cluster)) - Counter(before)
        if {state for _, state, _ in left} == {"DEAD"}:
            return left
        assert time.monotonic() < end, left


def test_a_run_over_two_machines_is_the_local_one(
    cluster: Cluster, tiny: MakeConfig, tmp_path: Path
) -> None:
    before = actor_states(cluster)
    done = simulated(cluster, tmp_path, f"run.ports={PORTS}")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["actors"] == 4
    need = estimate(Plan.open(tiny()))
    for measured in summary["memory"]["per_actor"]:  # what the refusal reckons with is about right
        assert 0.7 < measured * 1e6 / need.of([[0]]) < 1.1
    assert artifacts(tmp_path / "run") == run_artifacts(tiny(), tmp_path / "local")

    left = ended_since(cluster, before)
    hosts = Counter(machine for name, _, machine in left.elements() if name == "HostProcess")
    # Four hosts over 1 and 3 CPUs; none on the machine without.
    assert sorted(hosts.values()) == [1, 3]
    head = cluster.head_node.node_id
    assert hosts[head] == 1
    assert [m for name, _, m in left if name == "CoordinatorProcess"] == [head]


def test_few_messages_cross_machines(tiny: MakeConfig) -> None:
    """Two pairs of nodes joined by one edge: the machines are cut there."""
    edges = "edges=[[a,c],[b,d],[a,b]]"
    plan = Plan.open(tiny(edges, "run.nodes_per_actor=1"))
    placed = plan.placement([2, 2])
    assert sorted(sorted(n for host in machine for n in host) for machine in placed) == [
        [0, 2],
        [1, 3],
    ]
    assert crossing(plan.method.network, [[0, 2], [1, 3]]) == 4


WALL = f"""
from dataclasses import replace
import sheafnet.runtime.ray_cluster as cluster
from sheafnet.network.curve import CurveHub
cluster._HANDSHAKE_DEADLINE_S = 1.0
connect = CurveHub.connect
def walled(hub, addresses):
    port = int(hub.address.endpoint.rpartition(":")[2])
    assert port in range({PORTS.partition("-")[0]}, {PORTS.partition("-")[2]} + 1)
    closed = {{k: replace(a, endpoint="tcp://127.0.0.1:1") for k, a in addresses.items()}}
    connect(hub, closed)
CurveHub.connect = walled
"""
"""A module that the YAML imports in every process: all ports of neighbours are closed."""


@pytest.mark.long
def test_a_firewall_between_machines_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "wall.py").write_text(WALL)
    before = actor_states(cluster)
    chosen = (f"run.ports={PORTS}", "run.nodes_per_actor=2")
    done = simulated(cluster, tmp_path, *chosen, imports=["wall"])
    assert done.returncode == 5, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert ":218" in message.partition("cannot reach")[0]
    assert "cannot reach 127.0.0.1:1: no answer within 1 s" in message
    assert "Traceback" not in done.stderr
    left = ended_since(cluster, before)
    assert {name for name, _, _ in left} == {"CoordinatorProcess", "HostProcess"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_module_that_one_machine_lacks(cluster: Cluster, tmp_path: Path) -> None:
    """The driver has it beside sheafnet; the workers are not told of that folder."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "only_here.py").write_text("")
    program = (
        "import sys; sys.path.append('here')\n"
        "from sheafnet.__main__ import main\n"
        "sys.argv[1:] = sys.argv[2:]; sys.exit(main())\n"
    )
    values = TINY | {"imports": ["only_here"]}
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(values))
    simulate = ["simulate", "--topology", "network.yaml", "--run-dir", "run", "--backend", "ray"]
    done = python(cluster, tmp_path, "-c", program, "-", *simulate, "--address", cluster.address)
    assert done.returncode == 2, done.stderr
    (message,) = done.stderr.strip().splitlines()
    assert message.startswith("sheafnet: machine ")
    assert "imports: only_here cannot be imported: ModuleNotFoundError" in message
    assert not (tmp_path / "run").exists()


JOINED_BEFORE = """
import os, sys
import ray, sheafnet
ray.init(address=os.environ["ADDRESS"], log_to_driver=False, logging_level="ERROR")
try:
    config = sheafnet.load_config("network.yaml", ["run.backend=ray"])
    sheafnet.simulate(config, run_dir="run")
except sheafnet.SheafnetError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def test_a_machine_that_lacks_sheafnet(cluster: Cluster, tmp_path: Path) -> None:
    """Who joins the cluster without sending the package along is told where it is missing."""
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(TINY))
    done = python(cluster, tmp_path, "-c", JOINED_BEFORE)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ClusterError: machine ")
    assert "cannot import sheafnet 0.1.0: ImportError: sheafnet is not installed here" in message
    assert "Install the same environment there" in message
    assert not (tmp_path / "run").exists()


ENVIRONMENT = """
import os
import ray
from sheafnet.runtime.ray_cluster import joined
with joined(os.environ["ADDRESS"]):
    told = ray.remote(lambda: os.environ["GLIBC_TUNABLES"]).options(num_cpus=0).remote()
    print(ray.get(told))
"""


def test_actors_of_a_cluster_find_what_those_of_one_machine_find(
    cluster: Cluster, tmp_path: Path
) -> None:
    done = python(cluster, tmp_path, "-c", ENVIRONMENT)
    assert done.stdout.strip() == environment()["GLIBC_TUNABLES"], done.stderr
