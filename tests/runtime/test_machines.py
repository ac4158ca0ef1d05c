"""What is refused before anything starts, each with the arithmetic that led to it."""

from pathlib import Path
from typing import Any

import pytest

import sheafnet
from sheafnet.config import Config
from sheafnet.errors import ClusterError, Interrupted
from sheafnet.runtime import machines
from sheafnet.runtime.foreign import problem_of
from sheafnet.runtime.machines import Machine, refuse_unfit, versions
from sheafnet.runtime.memory import RAY_BYTES, estimate
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.ray_cluster import RayPool
from sheafnet.validation import check_model
from tests.conftest import MakeConfig

GB = 10**9


def ring(nodes: int, **run: Any) -> Plan:
    graph = {"generator": "ring", "nodes": nodes}
    return Plan.open(
        check_model(Config, {"name": "t", "dataset": "synthetic", "graph": graph, "run": run})
    )


def machine(
    free: int = 64 * GB, cores: int = 4, address: str = "10.0.0.1", **other: Any
) -> Machine:
    return Machine(address, address, cores, free, **({"versions": versions()} | other))


def refusal(plan: Plan, *of: Machine) -> str:
    with pytest.raises(ClusterError) as caught:
        refuse_unfit(plan, of)
    return str(caught.value)


def test_what_fits_is_not_refused() -> None:
    refuse_unfit(ring(6), [machine(), machine(address="10.0.0.2")])


def test_a_cluster_without_cpus() -> None:
    assert "no machine of the cluster offers a CPU" in refusal(ring(3))


@pytest.mark.parametrize("name", ["sheafnet", "Python", "torch"])
def test_another_version_somewhere(name: str) -> None:
    old = machine(address="10.0.0.2", versions=versions() | {name: "0.0"})
    words = refusal(ring(3), machine(), old)
    assert f"machine 10.0.0.2 has {name} 0.0, this one {versions()[name]}" in words


def test_unix_sockets_between_machines() -> None:
    plan = ring(3, transport="ipc")
    assert "10.0.0.1, 10.0.0.2" in refusal(plan, machine(), machine(address="10.0.0.2"))
    refuse_unfit(plan, [machine()])


def test_too_few_ports() -> None:
    """Eight actors on machines of 3 and 1 cores: 6 and 2 of them."""
    plan = ring(8, ports="20000-20004")
    words = refusal(plan, machine(cores=3), machine(address="10.0.0.2", cores=1))
    assert "run.ports = 20000-20004: 5 ports, but 6 actors on machine 10.0.0.1" in words
    refuse_unfit(ring(8, ports="20000-20005"), [machine(cores=3), machine(cores=1)])


def test_memory_of_one_machine_with_the_advice_that_fits() -> None:
    plan = ring(60, nodes_per_actor=1)
    need = estimate(plan)
    words = refusal(plan, machine(free=4 * GB), machine(address="10.0.0.2"))
    assert "machine 10.0.0.1 lacks memory: 30 actors x" in words
    assert f"= {need.of([[k] for k in range(30)]) / GB:.2f} GB, and 4.00 GB are free" in words
    advised = int(words.rpartition("--nodes-per-actor ")[2].split()[0])
    both = [machine(free=4 * GB), machine(address="10.0.0.2")]
    refuse_unfit(ring(60, nodes_per_actor=advised), both)
    refusal(ring(60, nodes_per_actor=advised - 1), *both)


def test_nothing_fits() -> None:
    words = refusal(ring(9), machine(free=100_000_000))
    assert "No --nodes-per-actor would fit" in words


def test_a_private_ray_counts_besides() -> None:
    plan = ring(3)
    exact = estimate(plan).of([[0], [1], [2]])
    refuse_unfit(plan, [machine(free=exact)])
    refusal(plan, machine(free=exact - 1))
    forked = estimate(plan, private=True).of([[0], [1], [2]])
    refuse_unfit(plan, [machine(free=forked + RAY_BYTES, private=True)])
    words = refusal(plan, machine(free=forked + RAY_BYTES - 1, private=True))
    assert "+ 480.0 MB for Ray =" in words


def test_a_module_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("raise OSError('no such sensor')")
    monkeypatch.syspath_prepend(tmp_path)
    assert problem_of(["json"], ()) is None
    assert "imports: nowhere_to_be_found cannot be imported" in str(
        problem_of(["json", "nowhere_to_be_found"], ())
    )
    assert "OSError: no such sensor" in str(problem_of(["broken_module"], ()))


def test_a_run_without_memory_leaves_nothing(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(machines, "free_bytes", lambda: 700_000_000)
    with pytest.raises(ClusterError, match=r"4 actors x .* 700.0 MB are free"):
        sheafnet.simulate(tiny("run.backend=ray"), run_dir=tmp_path / "run")
    assert not ray.is_initialized()
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_machines_are_surveyed(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(machines, "free_bytes", pressed)
    with pytest.raises(Interrupted, match="before the run began"):
        sheafnet.simulate(tiny("run.backend=ray"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_hosts_look_again_and_again_only_where_each_has_a_core(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    plan = Plan.open(tiny("run.nodes_per_actor=1"))
    few, many = machine(cores=1), machine(cores=3, address="10.0.0.2")
    pool = RayPool(plan, tmp_path, [few, many], None)
    # four hosts, in proportion to cores: one on the first, three on the second
    assert [pool._spins(host) for host in range(4)] == [True] * 4
    crowded = RayPool(plan, tmp_path, [few], None)
    assert [crowded._spins(host) for host in range(4)] == [False] * 4
