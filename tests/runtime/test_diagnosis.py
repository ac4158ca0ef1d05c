"""Findings of training lines made by hand, and of short runs that provoke each signature."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import sheafnet
from sheafnet.config import Config
from sheafnet.runtime.diagnosis import Watch, diagnose_training
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.summary import Summary
from tests.conftest import MakeConfig
from tests.runtime.test_cli import call

RING = Path(__file__).parents[2] / "topologies" / "ring.yaml"
EDGES = ["a~b", "b~c", "c~d"]
LOG_B = math.log(128)


def of_rounds(rounds: int, method: str = "sheafalign") -> Config:
    """A run of so many training rounds, with B = 128."""
    graph = {"generator": "line", "nodes": 4}
    values = {"name": "line", "dataset": "synthetic", "graph": graph, "method": method}
    return Config.model_validate(values | {"training": {"rounds": rounds}})


SHORT = of_rounds(30)


def lines(
    contrast: list[float | None], rounds: int = 30, *, energy: float | None = 100.0, first: int = 0
) -> list[dict[str, Any]]:
    """Rounds of the same contrast per edge; the energy starts at 100."""
    return [
        {"round": k, "contrastive_per_edge": contrast, "energy": 100.0 if k == 0 else energy}
        for k in range(first, first + rounds)
    ]


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_contrast_at_chance_begins_at_95_percent_of_log_b() -> None:
    stuck, learning = 0.951 * LOG_B, 0.949 * LOG_B
    found = only(diagnose_training(lines([learning, stuck, learning]), EDGES, SHORT))
    assert (found.signature, found.scope, found.where) == ("contrast-at-chance", "edge", ["b~c"])
    assert found.value == pytest.approx(stuck)
    assert found.bound == pytest.approx(4.609429)  # 0.95 ln 128
    assert found.text.startswith("edge b~c: after 30 rounds")
    assert "training.temperature" in found.text
    assert "sheaf_warmup" in found.text
    other = only(diagnose_training(lines([stuck] * 3), EDGES, of_rounds(30, "all-pairs")))
    assert "sheaf" not in other.text  # there is no sheaf loss to be lowered
    assert diagnose_training(lines([learning] * 3), EDGES, SHORT) == []
    network = only(diagnose_training(lines([stuck] * 3), EDGES, SHORT))
    assert (network.scope, network.where) == ("network", [])


def test_a_loss_is_judged_after_200_rounds_or_all_that_there_are() -> None:
    stuck = [LOG_B] * 3
    for rounds, enough in ((1000, 200), (200, 200), (199, 199), (5, 5)):
        config = of_rounds(rounds)
        assert diagnose_training(lines(stuck, enough - 1), EDGES, config) == []
        assert diagnose_training(lines(stuck, enough), EDGES, config)


def test_the_newest_20_rounds_are_judged() -> None:
    config = of_rounds(1000)
    late = lines([LOG_B] * 3, 500) + lines([1.0] * 3, 20, first=500)
    assert diagnose_training(late, EDGES, config) == []
    relapse = lines([1.0] * 3, 500) + lines([LOG_B] * 3, 20, first=500)
    assert diagnose_training(relapse, EDGES, config)


def test_what_was_not_measured_shows_nothing() -> None:
    assert diagnose_training([], EDGES, SHORT) == []
    assert diagnose_training(lines([None] * 3), EDGES, SHORT) == []
    assert diagnose_training([{"round": 29}], EDGES, SHORT) == []
    known = only(diagnose_training(lines([None, LOG_B, 1.0]), EDGES, SHORT))
    assert known.where == ["b~c"]
    assert only(diagnose_training(lines([LOG_B] * 3, energy=None), EDGES, SHORT)).scope == "network"


def test_collapse_is_an_energy_below_a_400th_with_the_contrast_at_chance() -> None:
    found = only(diagnose_training(lines([LOG_B] * 3, energy=0.249), EDGES, SHORT))
    assert (found.signature, found.scope, found.figure) == ("collapse", "network", "energy")
    assert found.value == pytest.approx(0.249)
    assert found.bound == pytest.approx(0.25)  # 100 / 20^2
    assert "sheaf_reduction" in found.text
    above = only(diagnose_training(lines([LOG_B] * 3, energy=0.251), EDGES, SHORT))
    assert above.signature == "contrast-at-chance"
    assert diagnose_training(lines([1.0] * 3, energy=0.1), EDGES, SHORT) == []
    # the mean over edges decides: 0.94 log B on average is no collapse, and two edges are stuck
    partly = lines([LOG_B, LOG_B, 0.82 * LOG_B], energy=0.1)
    assert only(diagnose_training(partly, EDGES, SHORT)).where == ["a~b", "b~c"]


def test_a_watch_tells_each_place_once_and_keeps_few_lines() -> None:
    watch = Watch(EDGES, of_rounds(1000))
    told = []
    for stretch, contrast in enumerate(
        [[5.0, 5.0, 1.0]] * 10 + [[5.0, 1.0, 1.0]] * 2 + [[1.0, 1.0, 5.0]] * 2 + [[5.0] * 3] * 2
    ):
        found = watch.add(lines(list(contrast), 25, first=25 * stretch))
        told += [(stretch, finding.where) for finding in found]
    assert told == [(7, ["a~b", "b~c"]), (12, ["c~d"])]
    assert [line["round"] for line in watch.lines] == [0, *range(380, 400)]


def test_a_watch_tells_of_the_network_before_its_edges() -> None:
    watch = Watch(EDGES, of_rounds(1000))
    assert only(watch.add(lines([5.0] * 3, 200))).scope == "network"
    assert watch.add(lines([5.0, 1.0, 1.0], 25, first=200)) == []


# Runs that provoke what is said of them


def run(tmp_path: Path, *overrides: str, path: Path = RING) -> dict[str, Finding]:
    """The findings of a local run of three ring nodes, or of `path`, by signature."""
    small = ("graph.nodes=3", "evaluation.support=500", "evaluation.probe_steps=100")
    given = [*(small if path == RING else ()), *overrides]
    config = sheafnet.load_config(path, ["run.backend=local", *given])
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert len({finding.signature for finding in summary.diagnosis}) == len(summary.diagnosis)
    return {finding.signature: finding for finding in summary.diagnosis}


def arrays(tmp_path: Path, labels: Any, **modalities: Any) -> Path:
    """A topology over arrays: a line of one node a modality."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, values in (modalities | {"labels": labels}).items():
        np.save(folder / f"{name}.npy", values)
    names = list(modalities)
    topology = {
        "name": "mine",
        "dataset": {"name": "arrays", "path": str(folder)},
        "nodes": [{"id": name, "modality": name} for name in names],
        "edges": [list(pair) for pair in itertools.pairwise(names)],
        "training": {"batch_size": 64},
        "inference": {"batch_size": 64},
        "evaluation": {"gallery": "all", "few_shot": [1]},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(topology))
    return path


def test_an_untrained_network_is_at_chance(tmp_path: Path) -> None:
    found = run(tmp_path, "training.rounds=0")
    assert set(found) == {"zero-shot-at-chance", "reconstruction"}
    assert "alignment failed" in found["zero-shot-at-chance"].text
    assert {finding.scope for finding in found.values()} == {"network"}


def test_a_tiny_learning_rate_leaves_the_contrast_at_chance(tmp_path: Path) -> None:
    found = run(tmp_path, "training.rounds=25", "training.learning_rate=1e-8")
    assert found["contrast-at-chance"].scope == "network"
    assert "collapse" not in found


def test_the_summed_sheaf_loss_collapses_a_convolutional_ring(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        "training.rounds=60",
        "training.batch_size=64",
        "training.sheaf_reduction=sum",
        "defaults.node.encoder={name: conv}",
    )
    assert found["collapse"].value < 0.8 * found["collapse"].bound
    assert "contrast-at-chance" not in found


def test_learned_dual_maps_lag_on_the_ring(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        "training.rounds=200",
        "training.sheaf_weight=1",
        "training.restriction_rate=1",
        "inference.dual_map=learned",
        "inference.estimator=mean",
    )
    assert set(found) == {"dual-maps"}
    assert found["dual-maps"].scope == "network"
    assert found["dual-maps"].value > 1


def test_an_edge_without_shared_events_is_named(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    shared, other = draw.normal(size=(2, 6000, 8))
    labels = np.arange(6000) % 4
    shared[:, 0] += 2 * labels
    path = arrays(
        tmp_path,
        labels,
        left=shared @ draw.normal(size=(8, 20)),
        right=shared @ draw.normal(size=(8, 20)),
        stranger=other @ draw.normal(size=(8, 20)),
    )
    found = run(tmp_path, "training.rounds=60", path=path)
    assert found["contrast-at-chance"].where == ["right~stranger"]
    assert "network" not in {finding.scope for finding in found.values()}


def test_labels_that_neighbours_do_not_share_leave_recall_fine(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(4000, 8))
    path = arrays(
        tmp_path,
        draw.permutation(np.arange(4000) % 4),
        left=shared @ draw.normal(size=(8, 20)),
        right=shared @ draw.normal(size=(8, 20)),
    )
    found = run(tmp_path, "training.rounds=100", path=path)
    assert set(found) == {"zero-shot-at-chance"}
    assert "events are aligned, classes are not" in found["zero-shot-at-chance"].text


def test_few_noisy_events_are_learned_by_heart(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    shared, labels = draw.normal(size=(400, 4)), np.arange(400) % 4
    shared[:, 0] += 2 * labels
    views = {
        name: shared @ draw.normal(size=(4, 60)) + 6 * draw.normal(size=(400, 60))
        for name in ("left", "right")
    }
    path = arrays(tmp_path, labels, **views)
    found = run(tmp_path, "training.rounds=100", path=path)
    assert set(found) == {"overfitting", "reconstruction"}
    assert found["overfitting"].value < 0.2 < 0.7 < found["overfitting"].bound


def test_a_hub_that_shares_nothing_with_a_node_is_named(tmp_path: Path) -> None:
    """Under imagebind the channels of the hub train; camera2 is no neighbour of camera0."""
    found = run(
        tmp_path,
        "graph.nodes=4",
        "method={name: imagebind, hub: camera0}",
        "training.rounds=80",
    )
    assert found["contrast-at-chance"].where == ["camera0~camera2"]


@pytest.mark.parametrize("method", ["local", "concat-supervised"])
def test_methods_without_a_figure_get_no_finding_of_it(
    method: str, tmp_path: Path, tiny: MakeConfig
) -> None:
    config = tiny(f"method={method}")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.diagnosis == []


def test_the_command_line_tells_it_while_running_and_afterwards(
    tmp_path: Path,
    tiny: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny("training.learning_rate=1e-9", "training.rounds=12")
    path = tmp_path / "stuck.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    folder = tmp_path / "run"
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, "simulate", "--topology", path, "--run-dir", folder) == 0
    output = capsys.readouterr()
    assert output.err.count("contrast-at-chance: after 12 rounds") == 1
    assert "Diagnosis\n- contrast-at-chance: after 12 rounds" in output.out
    assert max(map(len, output.out.replace(str(folder), "").splitlines())) <= 80
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["diagnosis"][0]["signature"] == "contrast-at-chance"
    (folder / "summary.json").unlink()
    assert call(monkeypatch, "show", folder) == 0
    assert "Diagnosis\n- contrast-at-chance: after 12 rounds" in capsys.readouterr().out
    del summary["diagnosis"]
    assert Summary.model_validate(summary).diagnosis == []
    (folder / "summary.json").write_text(json.dumps(summary))
    assert call(monkeypatch, "show", folder) == 0
    assert "Diagnosis: no failure signature shows." in capsys.readouterr().out
