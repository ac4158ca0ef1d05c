"""More out of a round: further steps on the same projections, and a memory of earlier ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

import sheafnet
from sheafnet.config import load_config
from sheafnet.errors import ConfigError
from sheafnet.nodes.memory import Memory
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig, of_phase
from tests.laws.test_law2_joint_gradient import fresh_nodes

STEPS = 3


def test_local_steps_descend_from_the_projections_of_the_first(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    """Three steps of one round, redone with torch.optim on losses that are written out here."""
    config = tiny("training.rounds=1", f"training.local_steps={STEPS}", "inference.rounds=0")
    sheafnet.simulate(config, run_dir=tmp_path / "run")
    nodes, t = fresh_nodes(config), config.training
    events = np.arange(t.batch_size)
    with torch.no_grad():
        sent = {
            (node.spec.index, edge.index): node.sections("train", events) @ p.weight.T
            for node in nodes
            for edge, p in zip(node.edges, node.restrictions, strict=True)
        }
    for node in nodes:
        optimizer = torch.optim.Adam(
            [
                {"params": [*node.encoder.parameters()], "lr": t.learning_rate},
                {"params": [p for q in node.duals for p in q.parameters()], "lr": t.learning_rate},
                {
                    "params": [p.weight for p in node.restrictions],
                    "lr": t.learning_rate * t.restriction_rate,
                },
            ]
        )
        for _ in range(STEPS):
            h = node.encoder(node.samples("train", events))
            loss = torch.zeros(())
            for edge, p, q in zip(node.edges, node.restrictions, node.duals, strict=True):
                own, there = h @ p.weight.T, sent[edge.other(node.spec.index), edge.index]
                cosines = torch.cosine_similarity(own[:, None], there[None], dim=2)
                both = (
                    torch.log_softmax(cosines / t.temperature, 1).diagonal()
                    + torch.log_softmax(cosines / t.temperature, 0).diagonal()
                )
                rebuilt = there @ q.weight.T + q.offset
                loss = (
                    loss
                    + t.sheaf_weight * (own - there).square().mean()
                    - t.contrastive_weight * both.mean() / 2
                    + t.reconstruction_weight * (h.detach() - rebuilt).square().sum(1).mean()
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        saved = load((tmp_path / "run" / "parameters" / f"{node.spec.id}.safetensors").read_bytes())
        for name, value in node.parameters().items():
            np.testing.assert_allclose(saved[name], value, rtol=1e-4, atol=2e-6, err_msg=name)


def test_neither_sends_a_byte_more_and_both_change_what_is_learned(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    lines = {}
    for name, override in (
        ("plain", "training.memory=0"),
        ("steps", "training.local_steps=2"),
        ("memory", "training.memory=2"),
    ):
        run = tmp_path / name
        result = sheafnet.simulate(tiny(override), run_dir=run)
        rounds = of_phase(list(RunDirectory.open(run).lines("rounds")), "train")
        lines[name] = rounds
        assert result.summary.communication.train.bytes_total == sum(r["bytes"] for r in rounds)
        assert [r["bytes"] for r in rounds] == [r["bytes"] for r in lines["plain"]]
        assert rounds[0] == lines["plain"][0]  # nothing is stale, and nothing remembered yet
        if name != "plain":
            assert all(
                here["contrastive"] != there["contrastive"]
                for here, there in zip(rounds[1:], lines["plain"][1:], strict=True)
            )
    # The memory fills in two rounds: more negatives, a higher loss.
    for here, there in zip(lines["memory"][1:3], lines["plain"][1:3], strict=True):
        assert here["contrastive"] > there["contrastive"]


def test_a_memory_keeps_the_last_rounds() -> None:
    memory = Memory(3, 2, 1, torch.device("cpu"))
    assert memory.rows().shape == (0, 1)
    for round_ in range(7):
        memory.add(torch.full((2, 1), float(round_)))
        expected = list(range(max(0, round_ - 2), round_ + 1))
        assert sorted(memory.rows()[:, 0].tolist()) == sorted(2 * expected)


@pytest.mark.parametrize("method", ["sheafalign", "all-pairs", "imagebind"])
def test_every_contrasting_method_takes_them(method: str, tiny: MakeConfig, tmp_path: Path) -> None:
    told = {}
    for override in ("training.memory=0", "training.memory=3", "training.local_steps=3"):
        run = tmp_path / override
        result = sheafnet.simulate(tiny(f"method={method}", override), run_dir=run)
        told[override] = result.summary
    bytes_ = {summary.communication.train.bytes_total for summary in told.values()}
    assert len(bytes_) == 1
    assert len({summary.missing.nmse for summary in told.values()}) == 3


def test_what_cannot_be(tiny: MakeConfig) -> None:
    exact = ("training.exchange_gradients=true", "training.reconstruction_gradient=full")
    with pytest.raises(ConfigError, match="local_steps = 2"):
        tiny(*exact, "training.local_steps=2")
    topology = Path(__file__).parents[2] / "topologies" / "multiple-features.yaml"
    config = load_config(topology, ["training.memory=100"])
    with pytest.raises(ConfigError, match=r"training\.memory = 100: 12,800 events") as refused:
        Plan.open(config)
    most = int(str(refused.value).rsplit("at most ", 1)[1].split(".")[0])
    Plan.open(load_config(topology, [f"training.memory={most}"]))
    with pytest.raises(ConfigError):
        Plan.open(load_config(topology, [f"training.memory={most + 1}"]))
