"""The rivals of SheafAlign on the tiny network: their gradients, and what they measure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

import sheafnet
from sheafnet.config import NOT_ALIGNED
from sheafnet.network.frame import PHASES
from sheafnet.nodes.alone import MASKED, masked
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig, of_phase
from tests.laws.test_law2_joint_gradient import (
    ONE_STEP,
    assert_equal,
    first_step,
    fresh_nodes,
)

METHODS = ("sheafalign", "imagebind", "all-pairs", "local", "concat-supervised")


def info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    """Symmetric InfoNCE on cosines, in plain terms."""
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    s = torch.exp(a @ b.T / temperature)
    here, there = s.diagonal() / s.sum(dim=1), s.diagonal() / s.sum(dim=0)
    return -(here.log() + there.log()).mean() / 2


def encoder_gradients(nodes: list) -> list[dict[str, np.ndarray]]:
    return [
        {f"encoder.{name}": p.grad.numpy() for name, p in node.encoder.named_parameters()}
        for node in nodes
    ]


@pytest.mark.parametrize(
    ("method", "pairs"),
    [
        # tiny: a-b, b-c, c-d, d-a, a-c; the default hub is a (the first of degree 3).
        ("all-pairs", [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)]),
        ("imagebind", [(0, 1), (0, 2), (0, 3)]),
        ("{name: imagebind, hub: b}", [(0, 1), (1, 2), (1, 3)]),
    ],
)
def test_a_step_in_one_space_is_the_gradient_of_info_nce_on_its_pairs(
    tiny: MakeConfig, tmp_path: Path, method: str, pairs: list[tuple[int, int]]
) -> None:
    config = tiny(*ONE_STEP, f"method={method}", "edges.0.temperature=0.5")
    nodes = fresh_nodes(config)
    h = [node.sections("train", np.arange(16)) for node in nodes]
    own = {(0, 1): 0.5}
    sum(info_nce(h[i], h[j], own.get((i, j), 0.1)) for i, j in pairs).backward()
    assert_equal(first_step_of(config, tmp_path, "encoder"), encoder_gradients(nodes))


def first_step_of(config, directory: Path, part: str) -> list[dict[str, np.ndarray]]:
    steps = first_step(config, directory / "run")
    return [{k: v for k, v in step.items() if k.startswith(part)} for step in steps]


def test_a_step_of_concat_supervised_is_that_of_one_network(tiny: MakeConfig) -> None:
    config = tiny(*ONE_STEP, "method=concat-supervised")
    nodes = fresh_nodes(config)
    weight = torch.zeros(5 * 4, 4 * 8, requires_grad=True)
    # From zero weights no gradient would reach the encoders.
    start = torch.randn(5 * 4, 4 * 8, generator=torch.Generator().manual_seed(1)) / 10
    weight.data.copy_(start)
    events = np.arange(16)
    joined = torch.cat([node.sections("train", events) for node in nodes], dim=1)
    loss = torch.zeros(())
    for task, edge in enumerate(nodes[0].topology.edges):
        logits = joined @ weight[4 * task : 4 * task + 4].T
        source = nodes[0].dataset.source(edge.tail)
        target = torch.from_numpy(source.labels("train", events, edge.index))
        loss = loss + F.cross_entropy(logits, target) / 5
    loss.backward()
    steps = _step_with_head(config, start)
    assert_equal(
        [{k: v for k, v in step.items() if k.startswith("encoder")} for step in steps],
        encoder_gradients(nodes),
    )
    np.testing.assert_allclose(steps[0]["head.weight"], weight.grad.numpy(), rtol=2e-3, atol=1e-6)


def _step_with_head(config, start: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """One training round of a local host whose head starts at `start`, as gradients."""
    from sheafnet.runtime.host import Host
    from sheafnet.runtime.plan import Plan, Stretch

    plan = Plan.open(config)
    host = Host(plan, Path("r"), range(4))
    host._nodes[0].fused.weight.data.copy_(start)
    before = {
        n: {k: v.copy() for k, v in values.items()}
        for n, values in host.parameters(range(4)).items()
    }
    report = host.run(Stretch("train", 0, 1))
    assert report.failure is None
    after = host.parameters(range(4))
    rate = config.training.learning_rate
    return [{k: (before[n][k] - after[n][k]) / rate for k in after[n]} for n in range(4)]


@pytest.mark.parametrize("method", METHODS)
def test_payload_is_the_floor_and_every_byte_balances(
    tiny: MakeConfig, tmp_path: Path, method: str
) -> None:
    calibrated = () if method in NOT_ALIGNED else ("inference.calibration=12",)
    config = tiny(f"method={method}", "evaluation.every=4", "dataset.classes=4", *calibrated)
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    for phase in PHASES:
        traffic = getattr(summary.communication, phase)
        if phase == "calibration" and not calibrated:
            assert traffic is None
            continue
        assert traffic.payload_bytes == traffic.floor_bytes
        assert (traffic.messages > 0) == (method != "local")
    assert summary.communication.lost_messages == summary.communication.rejected_frames == 0


@pytest.mark.parametrize(
    ("method", "messages"),
    [
        ("sheafalign", 6 * 10),
        ("all-pairs", 6 * 10),
        # 3 channels of the hub, and 2 edges without it whose calibration takes all 6 rounds
        ("imagebind", 6 * 10),
        ("{name: imagebind, hub: b}", 6 * (2 * 3 + 2 * 3)),
        ("local", 0),
        ("concat-supervised", 6 * 6),
    ],
)
def test_messages_of_training_by_hand(
    tiny: MakeConfig, tmp_path: Path, method: str, messages: int
) -> None:
    summary = sheafnet.simulate(tiny(f"method={method}"), run_dir=tmp_path / "run").summary
    train = summary.communication.train
    assert train.messages == messages
    dim = 4 if method == "sheafalign" else 8
    assert train.payload_bytes == messages * 16 * dim * 4


def test_what_each_method_measures(tiny: MakeConfig, tmp_path: Path) -> None:
    found = {}
    for method in METHODS:
        config = tiny(f"method={method}", "training.rounds=60")
        found[method] = sheafnet.simulate(config, run_dir=tmp_path / method).summary
    for method, summary in found.items():
        a, m = summary.alignment, summary.missing
        meets = method in {"sheafalign", "imagebind", "all-pairs"}
        assert (a.recall_at_1 is not None) == meets
        assert (a.zero_shot_accuracy is not None) == meets
        assert (summary.sheaf.spectral_gap is not None) == meets
        assert (a.fused_accuracy is not None) == (method == "concat-supervised")
        assert a.probe_accuracy is not None
        assert a.few_shot_accuracy["5"] is not None
        assert m.missing > 0
        assert m.accuracy is not None
        assert (m.nmse is not None) == (method != "concat-supervised")
        assert summary.hub == ("a" if method in {"imagebind", "concat-supervised"} else None)
    local = found["local"].missing
    assert local.unanswered == local.missing
    assert local.estimators["ridge"].nmse == pytest.approx(1.0)
    # The constant sheaf on a connected graph: H^0 is one copy of the space, d = 8.
    assert found["all-pairs"].sheaf.global_sections == 8
    # The Laplacian spectrum of the 4-cycle with one chord is 0, 2, 4, 4.
    assert found["all-pairs"].sheaf.spectral_gap == pytest.approx(2.0)
    fused = found["concat-supervised"]
    assert (fused.alignment.fused_accuracy or 0) > 0.5  # of 4 classes
    accuracies = {k: e.accuracy or 0 for k, e in fused.missing.estimators.items()}
    assert accuracies["ridge"] > accuracies["zero"] - 0.05


def test_masked_copies_keep_half_of_the_values() -> None:
    sample = torch.ones(64, 100)
    first = masked(sample, torch.Generator().manual_seed(0))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert abs(float(first.mean()) - (1 - MASKED)) < 0.02
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(masked(sample, generator), first)
    assert not torch.equal(masked(sample, generator), first)


def test_local_learns_without_a_byte(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("method=local", "training.rounds=100", "dataset.features=64")
    result = sheafnet.simulate(config, run_dir=tmp_path / "run")
    lines = of_phase(list(RunDirectory.open(result.directory).lines("rounds")), "train")
    contrast = [line["contrastive"] for line in lines]
    assert np.mean(contrast[-10:]) < 0.8 * np.mean(contrast[:5])
    assert lines[0]["contrastive_per_edge"] == []
    assert lines[0]["energy"] is None
    assert lines[0]["loss"] == pytest.approx(4 * lines[0]["contrastive"], rel=1e-5)
    assert result.summary.communication.train.bytes_total == 0


@pytest.mark.parametrize("method", ["sheafalign", "imagebind"])
def test_an_evaluation_on_the_way_is_that_of_a_shorter_run(
    tiny: MakeConfig, tmp_path: Path, method: str
) -> None:
    config = tiny(f"method={method}", "evaluation.every=4", "training.rounds=10")
    whole = sheafnet.simulate(config, run_dir=tmp_path / "whole")
    lines = of_phase(list(RunDirectory.open(whole.directory).lines("rounds")), "evaluation")
    assert [line["after"] for line in lines] == [4, 8, 10]
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert [line["probe_accuracy"] is None for line in lines] == [True, True, False]
    for line in lines:
        short = tiny(f"method={method}", f"training.rounds={line['after']}")
        alone = sheafnet.simulate(short, run_dir=tmp_path / str(line["after"])).summary
        assert line["recall_at_1"] == pytest.approx(alone.alignment.recall_at_1, rel=1e-5)
        assert line["zero_shot_accuracy"] == pytest.approx(
            alone.alignment.zero_shot_accuracy, rel=1e-5
        )
        assert line["spectral_gap"] == pytest.approx(alone.sheaf.spectral_gap, rel=1e-4)
    assert lines[-1]["train_bytes"] == whole.summary.communication.train.bytes_total
    assert whole.summary.communication.evaluation.rounds == 3


def test_restriction_maps_that_may_not_learn_stay(tiny: MakeConfig, tmp_path: Path) -> None:
    for rate, stay in ((0.0, True), (0.1, False)):
        config = tiny(f"training.restriction_rate={rate}", "dataset.features=12")
        before = [node.parameters() for node in fresh_nodes(config)]
        sheafnet.simulate(config, run_dir=tmp_path / str(rate))
        for index, name in enumerate("abcd"):
            after = load_file(tmp_path / str(rate) / "parameters" / f"{name}.safetensors")
            for key, value in after.items():
                if key.startswith("restriction"):
                    assert np.array_equal(value, before[index][key]) == stay


def test_restriction_maps_start_as_asked(tiny: MakeConfig) -> None:
    """Nodes b and d have two edges of d/2 each: together they fill the stalk."""
    for start, apart in (("together", True), ("alone", False)):
        node = fresh_nodes(tiny(f"training.restriction_start={start}"))[1]
        first, second = (p.weight.detach() for p in node.restrictions)
        assert (float((first @ second.T).abs().max()) < 1e-5) == apart
        assert not torch.equal(first, second)
    first, second = fresh_nodes(tiny("training.restriction_start=alike"))[1].restrictions
    assert torch.equal(first.weight, second.weight)
