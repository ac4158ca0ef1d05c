"""Whole runs under simulated faults, on the tiny network: a-b, a-c, a-d, b-c, c-d.

A training projection there has 16 rows of 4 dimensions in float32, 256 bytes, and 22 of framing:
the 21 of a short frame and one more for the length of the payload.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from safetensors.numpy import load_file

import sheafnet
from sheafnet.errors import ConfigError
from sheafnet.nodes.records import TrainRecord
from sheafnet.runtime.host import Host
from sheafnet.runtime.keep import _FAULTY_LEDGER_LINE
from sheafnet.runtime.loaded import load_run
from sheafnet.runtime.measurements import Measurements
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies.keys import resolve_key
from sheafnet.studies.tables import print_run
from tests.conftest import STORM, TINY, MakeConfig, of_phase, run_artifacts

MESSAGE = 256 + 22
METHODS = ["sheafalign", "imagebind", "all-pairs", "local", "concat-supervised"]


def lines_of(directory: Path, name: Any) -> list[dict[str, Any]]:
    return list(RunDirectory.open(directory).lines(name))


def ledger_sums(directory: Path, key: str) -> Counter[tuple[str, str]]:
    """`key` by phase and fate."""
    sums: Counter[tuple[str, str]] = Counter()
    for line in lines_of(directory, "ledger"):
        for fate in line.keys() - {"phase", "round", "edge"}:
            sums[line["phase"], fate] += line[fate][key]
    return sums


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that waits fails the test."""

    def never(_: Host, waiting: Mapping[int, object]) -> list[int]:
        assert not waiting, f"a simulated fault makes {waiting} wait"
        return []

    monkeypatch.setattr(Host, "_wait", never)


# Faults that do not happen


@pytest.mark.parametrize("method", METHODS)
def test_a_run_whose_faults_never_happen_is_one_without_faults(
    tiny: MakeConfig, tmp_path: Path, method: str
) -> None:
    plain = run_artifacts(tiny(f"method={method}"), tmp_path / "plain")
    calm = tiny(f"method={method}", "faults={loss: 0.0, retransmissions: 2}")
    found = run_artifacts(calm, tmp_path / "calm")
    for phase in ("train", "evaluation", "inference"):
        fates = found["summary"]["communication"][phase].pop("fates")
        assert plain["summary"]["communication"][phase].pop("fates") == {}
        sent = plain["summary"]["communication"][phase]["messages"]
        assert fates["sent"]["messages"] == fates["delivered"]["messages"] == sent
        assert sum(n["messages"] for n in fates.values()) == 2 * sent
    assert found == plain


# Faults by hand


@pytest.mark.usefixtures("no_clock")
def test_a_link_that_is_down_drops_what_is_sent_over_it(tiny: MakeConfig, tmp_path: Path) -> None:
    """a-b for 2 of 6 rounds: 4 of the 60 messages."""
    config = tiny("faults={down: [{between: [a, b], rounds: [2, 4]}]}")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    fates = summary.communication.train.fates
    assert (fates["dropped"].messages, fates["dropped"].bytes_total) == (4, 4 * MESSAGE)
    assert (fates["sent"].messages, fates["sent"].bytes_total) == (60, 60 * MESSAGE)
    assert fates["delivered"].bytes_total == 56 * MESSAGE
    assert fates["missed"].messages == 4
    assert summary.communication.lost_messages == 0
    dropped = [
        (line["round"], line["edge"])
        for line in lines_of(tmp_path / "run", "ledger")
        if "dropped" in line
    ]
    assert dropped == [(2, "a->b"), (2, "b->a"), (3, "a->b"), (3, "b->a")]
    train = of_phase(lines_of(tmp_path / "run", "rounds"), "train")
    assert [line["missed"] for line in train] == [0, 0, 2, 2, 0, 0]
    assert [line["contrastive_per_edge"][0] is None for line in train] == [
        False, False, True, True, False, False,
    ]  # fmt: skip
    assert all(line["loss"] is not None for line in train)


@pytest.mark.usefixtures("no_clock")
def test_retransmissions_cost_their_bytes_and_no_more(tiny: MakeConfig, tmp_path: Path) -> None:
    """Only a->b loses: every one of its 6 messages is sent 3 times."""
    lossy = "edges: [{from_to: [a, b], loss: 1.0}], retransmissions: 2, phases: [train]"
    config = tiny(f"faults={{{lossy}}}")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    train = summary.communication.train
    assert train.per_edge["a->b"].bytes_total == 3 * 6 * MESSAGE
    assert train.per_edge["b->a"].bytes_total == 6 * MESSAGE
    assert train.bytes_total == (60 + 12) * MESSAGE
    assert train.fates["dropped"].messages == 18
    assert train.fates["missed"].messages == 6
    assert set(summary.communication.inference.fates["dropped"].model_dump().values()) == {0}


@pytest.mark.usefixtures("no_clock")
def test_a_sleeping_node_stands_still_while_the_others_go_on(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    """d, of two edges, sleeps from round 2 on: its parameters are those after 2 rounds."""
    dead = tiny("faults={nodes: [{node: d, rounds: [2, null]}]}")
    summary = sheafnet.simulate(dead, run_dir=tmp_path / "dead").summary
    assert sheafnet.load_config(tmp_path / "dead" / "config.yaml") == dead
    short = tiny("training.rounds=2")
    sheafnet.simulate(short, run_dir=tmp_path / "short")
    still, after = (
        load_file(tmp_path / run / "parameters" / "d.safetensors") for run in ("dead", "short")
    )
    assert {k: v.tobytes() for k, v in still.items()} == {k: v.tobytes() for k, v in after.items()}
    a, a_short = (
        load_file(tmp_path / run / "parameters" / "a.safetensors") for run in ("dead", "short")
    )
    assert any(a[name].tobytes() != a_short[name].tobytes() for name in a)
    fates = summary.communication.train.fates
    # 4 rounds, 2 edges: 8 messages to d are dropped, 8 of d are never sent and missed.
    assert (fates["sent"].messages, fates["dropped"].messages) == (60 - 8, 8)
    assert fates["missed"].messages == 8
    train = of_phase(lines_of(tmp_path / "dead", "rounds"), "train")
    assert len(train) == 6
    for line in train[2:]:
        assert [v is None for v in line["contrastive_per_edge"]] == [
            False,
            False,
            True,
            False,
            True,
        ]
    assert summary.alignment.per_node["d"].recall_at_1 is not None, "evaluation is not disturbed"


@pytest.mark.usefixtures("no_clock")
def test_a_node_asleep_in_inference_is_not_judged(tiny: MakeConfig, tmp_path: Path) -> None:
    asleep = "nodes: [{node: d, rounds: [0, null], phase: inference}]"
    config = tiny(f"faults={{{asleep}}}")
    whole = sheafnet.simulate(tiny(), run_dir=tmp_path / "whole").summary.missing
    found = sheafnet.simulate(config, run_dir=tmp_path / "run").summary.missing
    assert found.per_node["d"].missing == 0
    assert found.per_node["d"].estimators["ridge"].nmse is None
    for name in "abc":
        assert found.per_node[name].missing == whole.per_node[name].missing > 0
    assert found.per_node["b"] == whole.per_node["b"], "no neighbour of b sleeps"
    assert found.per_node["a"].unanswered > whole.per_node["a"].unanswered


@pytest.mark.usefixtures("no_clock")
def test_an_edge_that_is_not_there_is_neither_used_nor_missed(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    """c-d in rounds 0, 2, 4 of 6 only: 6 messages fewer."""
    config = tiny("faults={activity: {schedule: [{between: [c, d], every: 2}]}}")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.communication.train.messages == 54
    assert summary.communication.train.fates["missed"].messages == 0
    train = of_phase(lines_of(tmp_path / "run", "rounds"), "train")
    assert [line["contrastive_per_edge"][4] is None for line in train] == [False, True] * 3


@pytest.mark.usefixtures("no_clock")
def test_gradients_return_only_for_projections_that_came(tiny: MakeConfig, tmp_path: Path) -> None:
    exchange = ("training.exchange_gradients=true", "training.reconstruction_gradient=full")
    config = tiny(*exchange, "faults={down: [{from_to: [a, b], rounds: [0, null]}]}")
    train = sheafnet.simulate(config, run_dir=tmp_path / "run").summary.communication.train
    # In each of 6 rounds a->b carries a projection and the gradient of b's, both dropped; b->a
    # carries its projection only.
    assert train.per_edge["a->b"].messages == 12
    assert train.per_edge["b->a"].messages == 6
    assert train.fates["dropped"].messages == 12
    assert train.fates["missed"].messages == 18


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gets_through_a_storm(tiny: MakeConfig, tmp_path: Path, method: str) -> None:
    config = tiny(f"method={method}", STORM)
    result = sheafnet.simulate(config, run_dir=tmp_path / "run")
    rounds, traffic = lines_of(tmp_path / "run", "rounds"), result.summary.communication
    assert [len(of_phase(rounds, p)) for p in ("train", "evaluation", "inference")] == [6, 1, 4]
    messages, happened = ledger_sums(tmp_path / "run", "messages"), Counter[str]()
    for phase in ("train", "inference"):
        fates = {fate: n.messages for fate, n in getattr(traffic, phase).fates.items()}
        happened.update(fates)
        assert fates == {fate: messages[phase, fate] for fate in fates}
        parts = sum(fates[f] for f in ("delivered", "late", "dropped", "rejected"))
        assert fates["sent"] == parts
        missed = sum(line["missed"] for line in of_phase(rounds, phase))
        assert fates["missed"] == missed
    if method != "local":
        assert min(happened.values()) > 0, happened
    longest = max(map(len, (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()), default=0)
    assert longest < _FAULTY_LEDGER_LINE


def test_the_books_close_in_the_stretch_of_their_rounds(tiny: MakeConfig, tmp_path: Path) -> None:
    """The lines of the ledger are in order of phases and rounds though a stretch has one round."""
    sheafnet.simulate(tiny(STORM, "run.stretch=1"), run_dir=tmp_path / "run")
    lines = lines_of(tmp_path / "run", "ledger")
    keys = [(("train", "evaluation", "inference").index(n["phase"]), n["round"]) for n in lines]
    assert keys == sorted(keys)
    sheafnet.simulate(tiny(STORM, "run.stretch=6"), run_dir=tmp_path / "long")
    short, long = (
        sorted(map(json.dumps, lines_of(tmp_path / run, "ledger"))) for run in ("run", "long")
    )
    assert short == long


# Healing


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_training_makes_progress_after_a_partition_heals(
    tiny: MakeConfig, tmp_path: Path, seed: int
) -> None:
    """After 40 rounds of two halves on their own: within 40 rounds the contrastive loss of the
    edges between them is a tenth below what it was when they met again."""
    halves = "partitions: [{groups: [[a, b], [c, d]], rounds: [20, 60]}]"
    config = tiny(
        f"faults={{{halves}}}", "training.rounds=100", "inference.rounds=0", f"run.seed={seed}"
    )
    sheafnet.simulate(config, run_dir=tmp_path / "run")
    losses = [
        line["contrastive_per_edge"]
        for line in of_phase(lines_of(tmp_path / "run", "rounds"), "train")
    ]
    cut = [1, 2, 3]  # a-c, a-d, b-c
    for round_, loss in enumerate(losses):
        assert all((loss[k] is None) is (20 <= round_ < 60) for k in cut)
    mean = [sum(loss[k] for k in cut) / 3 for loss in losses[60:]]
    assert sum(mean[-10:]) / 10 < 0.9 * mean[0]


# What is measured where an end, or both, measured nothing


def test_a_round_is_told_by_the_ends_that_measured_it(tiny: MakeConfig) -> None:
    """a-b was measured by both ends, a-c by c alone, a-d by nobody, b-c by b alone, c-d by both."""
    plan = Plan.open(tiny("training.sheaf_reduction=sum"))
    no = math.nan

    def record(values: list[float]) -> TrainRecord:
        known = [10 * v for v in values]
        return TrainRecord(0, known, values, [v / 2 for v in values], 4.0, 1)

    records = {
        0: [record([1.0, no, no])],
        1: [record([1.0, 4.0])],
        2: [record([2.0, no, 8.0])],
        3: [record([no, 8.0])],
    }
    (line,) = Measurements(plan).add_training(records)
    # contrast 1, 2, -, 4, 8; energy ten times as much; L_recon of both ends as much as the contrast
    assert line["contrastive_per_edge"] == [1.0, 2.0, None, 4.0, 8.0]
    assert line["contrastive"] == 15 / 4
    assert line["energy"] == 150 * 5 / 4
    assert line["reconstruction"] == 15 / 4
    assert line["loss"] == pytest.approx((0.1 * 150 + 15 + 0.1 * 15) * 5 / 4)
    assert line["gradient_norm"] == 4.0
    assert line["missed"] == 4
    asleep = {n: [TrainRecord.asleep(0, len(plan.method.trained_at(n)))] for n in range(4)}
    (nothing,) = Measurements(plan).add_training(asleep)
    for key in ("loss", "energy", "contrastive", "reconstruction"):
        assert nothing[key] is None
    assert nothing["contrastive_per_edge"] == [None] * 5


# As a user meets them


def test_a_wrong_name_is_refused_with_its_key(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"faults\.nodes\.0\.node: no node is called 'e'"):
        Plan.open(tiny("faults={nodes: [{node: e, rounds: [0, 1]}]}"))


def test_what_happened_is_printed(tiny: MakeConfig, tmp_path: Path) -> None:
    for name, overrides, shown in (("storm", [STORM], True), ("calm", [], False)):
        result = sheafnet.simulate(tiny(*overrides), run_dir=tmp_path / name)
        console = Console(width=100, record=True, file=(tmp_path / f"{name}.txt").open("w"))
        print_run(console, load_run(result.directory))
        text = console.export_text()
        assert ("under simulated faults" in text) is shown
        if shown:
            dropped = result.summary.communication.train.fates["dropped"]
            (row,) = [line for line in text.splitlines() if "dropped" in line]
            assert f"{dropped.messages:,}" in row
            assert f"{dropped.bytes_total:,}" in row


def test_faults_are_swept_as_any_other_key(tmp_path: Path) -> None:
    assert resolve_key("loss", "--over") == "faults.loss"
    assert resolve_key("missing.probability", "--over") == "inference.missing_probability"
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(TINY))
    sweep = sheafnet.sweep(
        tmp_path / "network.yaml", ["faults.loss=0.0,0.5"], seeds=1, study=tmp_path / "study"
    )
    calm, lossy = sweep.rows()
    plain = sheafnet.simulate(
        sheafnet.load_config(tmp_path / "network.yaml"), run_dir=tmp_path / "plain"
    ).summary
    assert calm["recall_at_1"] == plain.alignment.recall_at_1
    assert calm["train_bytes"] == lossy["train_bytes"] == plain.communication.train.bytes_total
    assert lossy["recall_at_1"] != calm["recall_at_1"]
    assert lossy["inference_bytes"] < calm["inference_bytes"]
