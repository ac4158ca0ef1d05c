"""The network learns, and every figure of the summary follows from what was measured."""

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import sheafnet
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import Summary
from tests.conftest import MakeConfig, of_phase

RING = Path(__file__).parents[2] / "topologies" / "ring.yaml"


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, RunDirectory]:
    """The shipped ring, shortened to 120 rounds."""
    folder = tmp_path_factory.mktemp("ring") / "run"
    shortened = ["training.rounds=120", "evaluation.probe_steps=100"]
    config = sheafnet.load_config(RING, [*shortened, "run.backend=local"])
    result = sheafnet.simulate(config, run_dir=folder)
    return result.summary, RunDirectory.open(folder)


def test_the_ring_aligns_and_infers(ring: tuple[Summary, RunDirectory]) -> None:
    summary, _ = ring
    assert summary.alignment.gallery == 1000
    assert summary.diagnosis == []
    assert summary.alignment.recall_at_1 > 0.05 > 10 * summary.alignment.chance.recall_at_1
    assert summary.alignment.zero_shot_accuracy > 0.35
    m = summary.missing.estimators
    nmse = {name: estimate.nmse or math.inf for name, estimate in m.items()}
    assert nmse["ridge"] < nmse["mean"] < nmse["train-mean"] < nmse["zero"]
    assert nmse["train-mean"] == pytest.approx(1.0, abs=1e-6)
    assert (m["ridge"].accuracy or 0) > (m["zero"].accuracy or 1) + 0.15
    assert (summary.missing.accuracy_all_present or 0) > (m["ridge"].accuracy or 1)


def test_the_loss_starts_at_log_b_and_falls(ring: tuple[Summary, RunDirectory]) -> None:
    _, directory = ring
    lines = of_phase(list(directory.lines("rounds")), "train")
    assert [line["round"] for line in lines] == list(range(120))
    contrast = [line["contrastive"] for line in lines]
    assert contrast[0] > 0.9 * math.log(128)
    assert np.mean(contrast[-20:]) < 0.5 * math.log(128)
    for line in lines:
        assert line["contrastive"] == pytest.approx(np.mean(line["contrastive_per_edge"]), rel=1e-5)
        assert line["energy"] >= 0
        # lambda / d_ij x energy + sum of contrast + gamma x sum of reconstruction, by hand
        whole = 0.1 * line["energy"] / 32 + 6 * (line["contrastive"] + 0.1 * line["reconstruction"])
        assert line["loss"] == pytest.approx(whole, rel=1e-5)


def test_means_are_means(ring: tuple[Summary, RunDirectory]) -> None:
    summary, _ = ring
    a, m = summary.alignment, summary.missing
    assert len(a.per_edge) == 12
    assert len(a.per_node) == 6
    assert a.recall_at_5 == pytest.approx(np.mean([e.recall_at_5 for e in a.per_edge.values()]))
    for name, node in a.per_node.items():
        own = [e for arrow, e in a.per_edge.items() if arrow.startswith(f"{name}->")]
        assert len(own) == 2
        assert node.zero_shot_accuracy == pytest.approx(
            np.mean([e.zero_shot_accuracy for e in own])
        )
    assert m.missing == sum(node.missing for node in m.per_node.values())
    accuracies = [node.estimators["ridge"].accuracy for node in m.per_node.values()]
    assert m.estimators["ridge"].accuracy == pytest.approx(np.mean(accuracies))


def test_what_was_saved_is_the_sheaf_of_the_summary(
    ring: tuple[Summary, RunDirectory],
) -> None:
    """H^0 and the gap once more, from the saved restriction maps, by ranks and singular values."""
    summary, directory = ring
    saved = {p.stem: load_file(p) for p in (directory.path / "parameters").iterdir()}
    delta = np.zeros((6 * 32, 6 * 64))
    for row, (i, j) in enumerate([(0, 1), (0, 5), (1, 2), (2, 3), (3, 4), (4, 5)]):
        name = f"restriction.camera{i}~camera{j}"
        rows = slice(32 * row, 32 * row + 32)
        delta[rows, 64 * i : 64 * i + 64] = saved[f"camera{i}"][name]
        delta[rows, 64 * j : 64 * j + 64] = -saved[f"camera{j}"][name]
    values = np.linalg.svd(delta, compute_uv=False)
    assert summary.sheaf.stalk_dimension == 384
    assert summary.sheaf.global_sections == 384 - np.linalg.matrix_rank(delta)
    assert summary.sheaf.spectral_gap == pytest.approx(values[-1] ** 2, rel=1e-4)


def test_without_anything_missing_nothing_is_sent(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("inference.missing_probability=0")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.communication.inference.messages == 0
    assert summary.communication.inference.bytes_per_inferred_sample is None
    assert summary.missing.missing == 0
    for estimate in (summary.missing, *summary.missing.estimators.values()):
        assert estimate.nmse is None
        assert estimate.accuracy is None
    assert summary.missing.accuracy_all_present is None


def test_where_everything_is_missing_nobody_can_answer(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("inference.missing_probability=1")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.missing.missing == summary.missing.unanswered == 4 * 4 * 20
    assert summary.communication.inference.payload_bytes == 0
    assert summary.communication.inference.floor_bytes == 0
    assert summary.communication.inference.control_bytes > 0
    ridge = summary.missing.estimators["ridge"]
    assert ridge.nmse == pytest.approx(1.0)  # the train mean is all that is left
    mean = summary.missing.estimators["mean"]
    assert (ridge.nmse, ridge.accuracy) == (mean.nmse, mean.accuracy)


def test_a_fixed_pattern_misses_those_nodes(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("inference.missing_nodes=[b]")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    missing = {name: node.missing for name, node in summary.missing.per_node.items()}
    assert missing == {"a": 0, "b": 4 * 20, "c": 0, "d": 0}
    # b asks a and c: 4 rounds x 2 requests of a 20-bit mask, and 2 answers of 20 x 4 floats.
    inference = summary.communication.inference
    assert inference.messages == 4 * 2 * 2
    assert inference.control_bytes == 4 * 2 * 3
    assert inference.payload_bytes == 4 * 2 * 20 * 4 * 4


def test_narrow_dtypes_are_counted_as_sent(tiny: MakeConfig, tmp_path: Path) -> None:
    bytes_of = {}
    for dtype in ("float32", "float16", "bfloat16", "int8", "int8-row", "int8-channel"):
        config = tiny(f"training.wire_dtype={dtype}", f"inference.wire_dtype={dtype}")
        summary = sheafnet.simulate(config, run_dir=tmp_path / dtype).summary
        for phase in ("train", "evaluation", "inference"):
            traffic = getattr(summary.communication, phase)
            assert traffic.payload_bytes == traffic.floor_bytes
        bytes_of[dtype] = summary.communication.train.payload_bytes
    assert bytes_of["float16"] == bytes_of["bfloat16"] == bytes_of["float32"] // 2
    messages = 6 * 10
    assert bytes_of["int8"] == bytes_of["float32"] // 4 + 4 * messages  # and a scale each
    assert bytes_of["int8-row"] == bytes_of["float32"] // 4 + 2 * 16 * messages  # of B = 16 rows
    assert bytes_of["int8-channel"] == bytes_of["float32"] // 4 + 2 * 4 * messages  # and d_ij = 4


def test_stochastic_rounding_changes_training_and_no_byte(tiny: MakeConfig, tmp_path: Path) -> None:
    found = []
    for rounding in ("nearest", "stochastic"):
        chosen = (f"training.wire_rounding={rounding}", "training.wire_dtype=int8-row")
        config = tiny(*chosen, "inference.missing_nodes=[b]")  # so that inference is of one pattern
        found.append(sheafnet.simulate(config, run_dir=tmp_path / rounding).summary)
    nearest, stochastic = found
    assert nearest.communication == stochastic.communication
    assert nearest.alignment != stochastic.alignment
