"""Law 2: a decentralized step is a step along the gradient of the joint loss.

The joint loss is written here once more, from the paper's formulas, over all nodes at one place,
and differentiated by autograd. With SGD, the first step of a node is its gradient times the rate.
"""

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

import sheafnet
from sheafnet.config import Config, Model
from sheafnet.network.channel import Endpoint
from sheafnet.network.switchboard import Switchboard
from sheafnet.nodes.node import Node
from sheafnet.nodes.objective_kind import ObjectiveKind
from sheafnet.runtime.plan import Plan
from tests.conftest import TINY, MakeConfig

RATE = 0.5


def fresh_nodes(config: Config) -> list[Node]:
    """The nodes as they are before the first round."""
    plan = Plan.open(config)
    board = Switchboard(plan.method.network)
    return [
        Node(
            config,
            plan.method,
            spec.index,
            plan.dataset,
            Endpoint(plan.method.network, spec.index, plan.limits("r"), board),
        )
        for spec in plan.topology.nodes
    ]


def joint_loss(config: Config, nodes: list[Node], stop: bool) -> torch.Tensor:
    """Sum over edges of lambda L_sheaf + beta L_contrast + gamma L_recon, by plain loops.

    `stop`: L_recon's gradient reaches only the dual maps.
    """
    t = config.training
    events = np.arange(t.batch_size)
    h = [node.sections("train", events) for node in nodes]
    total = torch.zeros(())
    temperatures = {frozenset(e.between): e.temperature or t.temperature for e in config.edges}
    for edge in nodes[0].topology.edges:
        ends = []
        for k in (edge.tail, edge.head):
            at = [e.index for e in nodes[k].edges].index(edge.index)
            ends.append((k, nodes[k].restrictions[at].weight, nodes[k].duals[at]))
        (i, p_map, q_i), (j, r_map, q_j) = ends
        p, r = h[i] @ p_map.T, h[j] @ r_map.T
        sheaf = sum((p[b] - r[b]) @ (p[b] - r[b]) for b in range(len(p))) / len(p)
        if t.sheaf_reduction == "mean":
            sheaf = sheaf / edge.dim
        pn = p / p.norm(dim=1, keepdim=True)
        rn = r / r.norm(dim=1, keepdim=True)
        s = torch.exp(pn @ rn.T / temperatures[frozenset((nodes[i].spec.id, nodes[j].spec.id))])
        contrast = torch.zeros(())
        for b in range(len(p)):
            contrast = (
                contrast - torch.log(s[b, b] / s[b].sum()) - torch.log(s[b, b] / s[:, b].sum())
            )
        contrast = contrast / (2 * len(p))
        sources = (r, p) if t.reconstruction == "neighbour" else (p, r)
        recon = torch.zeros(())
        for node, dual, source in ((i, q_i, sources[0]), (j, q_j, sources[1])):
            target = h[node].detach() if stop else h[node]
            source = source.detach() if stop else source
            rebuilt = source @ dual.weight.T + dual.offset
            recon = recon + ((target - rebuilt) ** 2).sum(dim=1).mean()
        total = (
            total
            + t.sheaf_weight * sheaf
            + t.contrastive_weight * contrast
            + t.reconstruction_weight * recon
        )
    return total


def joint_gradients(config: Config, stop: bool) -> list[dict[str, np.ndarray]]:
    nodes = fresh_nodes(config)
    joint_loss(config, nodes, stop).backward()
    return gradients_of(nodes)


def gradients_of(nodes: list[Node]) -> list[dict[str, np.ndarray]]:
    """What a backward pass left at every node, by name."""
    found = []
    for node in nodes:
        named = {f"encoder.{n}": p for n, p in node.encoder.named_parameters()}
        for edge, restriction, dual in zip(node.edges, node.restrictions, node.duals, strict=True):
            name = node.topology.edge_name(edge.index)
            named[f"restriction.{name}"] = restriction.weight
            named[f"dual.{name}.weight"] = dual.weight
            named[f"dual.{name}.offset"] = dual.offset
        found.append({k: p.grad.numpy() for k, p in named.items()})
    return found


def first_step(config: Config, directory: Path) -> list[dict[str, np.ndarray]]:
    """What each node's first step followed, from the parameters that the run saved."""
    before = [node.parameters() for node in fresh_nodes(config)]
    sheafnet.simulate(config, run_dir=directory)
    steps = []
    for index, spec in enumerate(Plan.open(config).topology.nodes):
        after = load((directory / "parameters" / f"{spec.id}.safetensors").read_bytes())
        assert after.keys() == before[index].keys()
        steps.append({k: (before[index][k] - after[k]) / RATE for k in after})
    return steps


def assert_equal(steps, gradients) -> None:
    for step, gradient in zip(steps, gradients, strict=True):
        for name in gradient:
            scale = float(np.abs(gradient[name]).max())
            # A step is the difference of two float32 weights below 4, by the rate: off by 1e-6.
            np.testing.assert_allclose(
                step[name], gradient[name], rtol=2e-3, atol=1e-6 + 2e-4 * scale, err_msg=name
            )


ONE_STEP = (
    "training.rounds=1",
    "training.optimizer=sgd",
    f"training.learning_rate={RATE}",
    "training.restriction_rate=1",
    "inference.rounds=0",
)


@pytest.mark.parametrize(
    ("overrides", "stop"),
    [
        ((), True),
        (("training.sheaf_reduction=sum", "training.sheaf_weight=0.3"), True),
        (("edges.0.temperature=0.5", "edges.3.temperature=0.02"), True),
        (("training.reconstruction=inverse",), True),
        (("training.reconstruction=inverse", "training.reconstruction_gradient=full"), False),
        (("training.exchange_gradients=true", "training.reconstruction_gradient=full"), False),
    ],
)
def test_a_step_is_the_joint_gradient(
    tiny: MakeConfig, tmp_path: Path, overrides: tuple[str, ...], stop: bool
) -> None:
    config = tiny(*ONE_STEP, *overrides)
    assert_equal(first_step(config, tmp_path / "run"), joint_gradients(config, stop))


def quartic(_: torch.Tensor, pairs, options: Model) -> torch.Tensor:
    """mean_b ||p_i - p_j||^4 of every edge; both ends compute the same."""
    assert not options.model_fields_set
    return torch.stack([((p - r) ** 2).sum(dim=1).square().mean() for p, r in pairs]).sum()


QUARTIC = ObjectiveKind(quartic)


@pytest.mark.parametrize("instead", [False, True], ids=["beside", "instead"])
def test_a_step_along_an_objective_of_a_plugin_is_the_joint_gradient(
    tiny: MakeConfig, tmp_path: Path, instead: bool
) -> None:
    """Of the method's terms and its own, or of its own alone."""
    weights = ("contrastive_weight", "sheaf_weight", "reconstruction_weight")
    none = [f"training.{name}=0" for name in weights if instead]
    config = tiny(*ONE_STEP, *none, f"training.objective={__name__}:QUARTIC")
    nodes = fresh_nodes(config)
    events = np.arange(config.training.batch_size)
    h = [node.sections("train", events) for node in nodes]
    total = joint_loss(config, nodes, stop=True)
    for edge in nodes[0].topology.edges:
        ends = []
        for k in (edge.tail, edge.head):
            at = [e.index for e in nodes[k].edges].index(edge.index)
            ends.append(h[k] @ nodes[k].restrictions[at].weight.T)
        total = total + sum(((p - r) @ (p - r)) ** 2 for p, r in zip(*ends, strict=True)) / len(
            h[0]
        )
    total.backward()
    steps = first_step(config, tmp_path / "run")
    assert_equal(steps, gradients_of(nodes))
    (line,) = (x for x in sheafnet.load_run(tmp_path / "run").lines("train"))
    # Both ends of an edge have its term.
    alone = float(total.detach() - joint_loss(config, nodes, stop=True).detach())
    assert line["objective"] == pytest.approx(2 * alone, rel=1e-4)


def test_without_exchange_only_the_neighbours_share_is_lacking(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    """The dropped term of METHOD section 3 is there to be dropped: the step differs without it."""
    config = tiny(*ONE_STEP, "training.reconstruction_gradient=full")
    steps, joint = first_step(config, tmp_path / "run"), joint_gradients(config, stop=False)
    duals = [{k: v for k, v in d.items() if k.startswith("dual")} for d in joint]
    assert_equal(steps, duals)
    restriction = next(k for k in joint[0] if k.startswith("restriction"))
    gap = np.abs(steps[0][restriction] - joint[0][restriction]).max()
    assert gap > 1e-2 * np.abs(joint[0][restriction]).max()


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_step_of_actors_is_the_joint_gradient(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(
        *ONE_STEP,
        "run.backend=ray",
        "run.nodes_per_actor=2",
        "training.exchange_gradients=true",
        "training.reconstruction_gradient=full",
    )
    assert_equal(first_step(config, tmp_path / "run"), joint_gradients(config, stop=False))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000), nodes=st.integers(2, 7), chance=st.floats(0.2, 1.0))
def test_on_random_graphs(tmp_path_factory, seed: int, nodes: int, chance: float) -> None:
    graph = nx.gnp_random_graph(nodes, chance, seed=seed)
    graph.add_edges_from((k, k + 1) for k in range(nodes - 1))
    generator = np.random.default_rng(seed)
    dims = [int(d) for d in generator.integers(3, 9, nodes)]
    values = TINY | {
        "nodes": [{"id": f"n{k}", "embedding_dim": dims[k]} for k in range(nodes)],
        "edges": [
            {
                "between": [f"n{i}", f"n{j}"],
                # Not 1: there a cosine is 1 or -1, and the gradient of it nothing but rounding.
                "comparison_dim": int(generator.integers(2, min(dims[i], dims[j]) + 1)),
            }
            for i, j in graph.edges
        ],
        "training": {
            "rounds": 1,
            "batch_size": 8,
            "optimizer": "sgd",
            "learning_rate": RATE,
            "restriction_rate": 1.0,
            "exchange_gradients": True,
            "reconstruction_gradient": "full",
        },
        "inference": {"rounds": 0},
        "run": {"backend": "local", "seed": seed},
    }
    config = sheafnet.Config.model_validate(values)
    directory = tmp_path_factory.mktemp("law2") / "run"
    assert_equal(first_step(config, directory), joint_gradients(config, stop=False))
