"""Law 1: the same seed gives the same results, bit for bit, wherever the nodes run."""

import random
from pathlib import Path

import pytest

from sheafnet.network.channel import Endpoint
from sheafnet.network.switchboard import Switchboard
from sheafnet.nodes.node import Node
from sheafnet.nodes.records import TrainRecord
from sheafnet.nodes.training import train
from sheafnet.runtime.plan import Plan
from tests.conftest import SHOWER, STORM, MakeConfig, artifacts, run_artifacts


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_one_process_actors_and_packed_actors_agree(tiny: MakeConfig, tmp_path: Path) -> None:
    local = run_artifacts(tiny(), tmp_path / "local")
    assert len(local["parameters"]) == 4
    assert len(local["rounds"]) == 6 + 1 + 4
    for name, *overrides in (
        ("literal", "run.backend=ray", "run.nodes_per_actor=1"),
        ("packed, tcp", "run.backend=ray", "run.nodes_per_actor=2", "run.transport=tcp"),
    ):
        assert run_artifacts(tiny(*overrides), tmp_path / name) == local, name


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_random_graph_in_odd_parts_agrees(tiny: MakeConfig, tmp_path: Path) -> None:
    """Ten nodes in parts of 4, 3 and 3 that no order of their numbers explains."""
    graph = ("nodes=null", "edges=null", "graph={generator: random-regular, nodes: 10, degree: 3}")
    local = run_artifacts(tiny(*graph), tmp_path / "local")
    packed = tiny(*graph, "run.backend=ray", "run.nodes_per_actor=4")
    (hosts,) = Plan.open(packed).placement([1])
    assert sorted(map(len, hosts)) == [3, 3, 4]
    assert [node for host in hosts for node in host] != list(range(10))
    assert run_artifacts(packed, tmp_path / "packed") == local


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(
    "method",
    [
        "sheafalign",
        "{name: imagebind, hub: b}",
        pytest.param("concat-supervised", marks=pytest.mark.long),
    ],
)
def test_simulated_faults_are_the_same_everywhere(
    tiny: MakeConfig, tmp_path: Path, method: str
) -> None:
    """All kinds at once, on links that take time; even the lines of the ledger come in the same
    order. Whatever is sent is rounded at random, gradients as well.

    A hub's channels reach nodes that are no neighbours, in other processes.
    """
    chosen = [f"method={method}", STORM, "run.stretch=2", "evaluation.every=4"]
    chosen += ["training.wire_dtype=int8-channel", "training.wire_rounding=stochastic"]
    chosen += ["inference.wire_dtype=int8-row", "defaults.edge.link=ble"]
    if method == "sheafalign":
        chosen += ["training.exchange_gradients=true", "training.reconstruction_gradient=full"]
        chosen += ["training.memory=2", "inference.calibration=12"]
    elif method != "concat-supervised":
        chosen += ["training.local_steps=3"]
    local = run_artifacts(tiny(*chosen), tmp_path / "local")
    for phase in ("train", "inference"):
        fates = local["summary"]["communication"][phase]["fates"]
        assert fates["dropped"]["messages"] > 0, "the faults happened"
    assert local["summary"]["communication"]["train"]["radio"]["joules"] > 0
    each = 3 if method == "sheafalign" else 2
    actors = tiny(*chosen, "run.backend=ray", f"run.nodes_per_actor={each}")
    assert run_artifacts(actors, tmp_path / "actors") == local
    ledgers = [tmp_path / run / "ledger.jsonl" for run in ("local", "actors")]
    assert ledgers[0].read_bytes() == ledgers[1].read_bytes()


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(
    ("diffusion", "each"), [("relay", 3), pytest.param("harmonic", 2, marks=pytest.mark.long)]
)
def test_estimates_that_go_on_are_the_same_everywhere(
    tiny: MakeConfig, tmp_path: Path, diffusion: str, each: int
) -> None:
    """In steps, of which some are lost under relay."""
    chosen = ["inference.diffusion_iterations=6", f"inference.diffusion={diffusion}"]
    if diffusion == "relay":
        chosen.append(SHOWER)
    local = run_artifacts(tiny(*chosen), tmp_path / "local")
    estimators = local["summary"]["missing"]["estimators"]
    assert estimators["diffusion"] != estimators["ridge"]
    actors = tiny(*chosen, "run.backend=ray", f"run.nodes_per_actor={each}")
    assert run_artifacts(actors, tmp_path / "actors") == local


def test_the_same_seed_gives_the_same_artifacts(tiny: MakeConfig, tmp_path: Path) -> None:
    first = run_artifacts(tiny(), tmp_path / "1")
    assert run_artifacts(tiny(), tmp_path / "2") == first
    other = run_artifacts(tiny("run.seed=1"), tmp_path / "3")
    assert other["parameters"] != first["parameters"]


def test_the_length_of_a_stretch_changes_nothing(tiny: MakeConfig, tmp_path: Path) -> None:
    first = run_artifacts(tiny(), tmp_path / "1")
    assert run_artifacts(tiny("run.stretch=1"), tmp_path / "2") == first


class Shuffled:
    """Holds frames back and delivers them in random order, across nodes and rounds."""

    def __init__(self, order: random.Random) -> None:
        self.held: list[bytes] = []
        self.order = order

    def send(self, node: int, buffer: bytes) -> None:
        del node
        self.held.append(buffer)

    def release(self) -> bytes:
        return self.held.pop(self.order.randrange(len(self.held)))


def _trained(config, order: random.Random | None) -> list[dict[str, bytes]]:
    """Train by a scheduler of the test's own: any node that can go on may, in any order."""
    plan = Plan.open(config)
    post = Shuffled(order or random.Random(0))
    board = Switchboard(plan.method.network)
    nodes, waiting = [], {}
    for spec in plan.topology.nodes:
        endpoint = Endpoint(plan.method.network, spec.index, plan.limits("r"), post)
        board.attach(endpoint)
        nodes.append(Node(config, plan.method, spec.index, plan.dataset, endpoint))
    records: list[TrainRecord] = []

    def rounds(node):
        for round_ in range(config.training.rounds):
            yield from train(node, round_, records)

    for node in nodes:
        program = rounds(node)
        waiting[node.spec.index] = (program, next(program))
    while waiting:
        able = [k for k, (_, need) in waiting.items() if nodes[k].endpoint.arrived(need)]
        if post.held and (not able or post.order.random() < 0.5):
            board.deliver(post.release())
            continue
        chosen = post.order.choice(able)
        program, need = waiting.pop(chosen)
        try:
            waiting[chosen] = (program, program.send(nodes[chosen].endpoint.take(need)))
        except StopIteration:
            continue
    assert not post.held
    assert board.rejected == 0
    return [{k: v.tobytes() for k, v in node.parameters().items()} for node in nodes]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_delivery_changes_nothing(tiny: MakeConfig, seed: int) -> None:
    config = tiny(
        "training={rounds: 4, batch_size: 16, reconstruction_gradient: full, "
        "wire_dtype: int8-row, wire_rounding: stochastic}"
    )
    assert _trained(config, random.Random(seed)) == _trained(config, random.Random(99))


def test_a_local_run_equals_the_shuffled_one(tiny: MakeConfig, tmp_path: Path) -> None:
    from safetensors.numpy import load

    config = tiny()
    files = run_artifacts(config, tmp_path / "run")["parameters"]
    shuffled = _trained(config, random.Random(3))
    for index, spec in enumerate(Plan.open(config).topology.nodes):
        saved = load(files[f"{spec.id}.safetensors"])
        assert {k: v.tobytes() for k, v in saved.items()} == shuffled[index]


def test_artifacts_are_compared_in_full(tiny: MakeConfig, tmp_path: Path) -> None:
    """The comparison above would notice one changed bit."""
    first = run_artifacts(tiny(), tmp_path / "1")
    path = next((tmp_path / "1" / "parameters").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert artifacts(tmp_path / "1") != first
