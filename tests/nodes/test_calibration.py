"""Intervals that hold on events which training never saw, and what it costs to know how wide."""

from pathlib import Path

import numpy as np
import pytest
import torch

import sheafnet
from sheafnet.datasets import synthetic
from sheafnet.errors import ConfigError
from sheafnet.nodes.node import Node
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.sheaf.calibration import Calibration, interval_of
from sheafnet.sheaf.estimators import Answers, Moments, ridge_estimate
from tests.conftest import STORM, MakeConfig, artifacts, of_phase

WIDTHS = (4, 6)


def drawn(random: np.random.Generator, rows: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """h of two components, one with heavy tails, and what two neighbours tell of it."""
    p = random.standard_normal((rows, sum(WIDTHS)))
    noise = np.stack([random.standard_normal(rows), random.standard_t(3, rows)], axis=1)
    h = p[:, [0, 5]] + p[:, [1, 9]] + noise
    seen = torch.from_numpy(p).float()
    return torch.from_numpy(h).float(), [seen[:, :4], seen[:, 4:]]


def learned_by_heart() -> Moments:
    """The moments of 25 events: ten columns fit them far better than any other."""
    h, p = drawn(np.random.default_rng(0), 25)
    moments = Moments(2, WIDTHS, decay=0.0)
    moments.update(h, p)
    return moments


def everybody(p: list[torch.Tensor]) -> Answers:
    return {k: (torch.ones(len(part), dtype=torch.bool), part) for k, part in enumerate(p)}


def test_intervals_that_are_too_narrow_hold_as_often_as_promised() -> None:
    random, moments = np.random.default_rng(1), learned_by_heart()

    def ridge(answers: Answers, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        return ridge_estimate(answers, rows, moments, 1e-9)

    section, received = drawn(random, 500)
    calibration = Calibration(section, dict(enumerate(received)))
    h, p = drawn(random, 20_000)
    for answers in (everybody(p), {1: everybody(p)[1]}, {}):
        guess, variance = ridge(answers, len(h))
        told = interval_of(variance)
        found = calibration.correct("ridge", ridge, answers, told)
        errors = (guess - h).abs()
        held = [(errors <= i.half_width).double().mean(dim=0) for i in (told, found)]
        np.testing.assert_allclose(held[1], 0.9, atol=0.03)
        if answers:
            assert float(held[0].max()) < 0.87  # as training tells
            square = float(errors.square().sum(dim=1).mean())
            assert float(told.expected.mean()) < 0.8 * square
            assert float(found.expected.mean()) == pytest.approx(square, rel=0.15)
        else:
            assert torch.equal(found.expected, told.expected)  # that of the train mean, by its name


def test_the_interval_reaches_to_the_quantile_of_the_errors() -> None:
    """Of 20 errors 1 to 20 the 19th: ceil(0.9 * 21)."""
    errors = torch.arange(1.0, 21.0)[torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    section = torch.stack([errors, -2 * errors], dim=1)
    asked: list[tuple[int, ...]] = []

    def nothing(answers: Answers, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(tuple(answers))
        return torch.zeros(rows, 2), torch.full((rows, 2), 0.25)

    calibration = Calibration(section, {0: torch.zeros(20, 1), 2: torch.zeros(20, 3)})
    first = torch.tensor([True, False, True, False])
    answers = {
        0: (first, torch.zeros(2, 1)),
        1: (torch.tensor([False, False, False, True]), torch.zeros(1, 1)),
        2: (torch.tensor([True, True, False, False]), torch.zeros(2, 3)),
    }
    told = interval_of(torch.tensor([[0.25, 0.25], [1.0, 0.25], [0.25, 0.25], [0.01, 0.01]]))
    found = calibration.correct("any", nothing, answers, told)
    # The second row is told twice the deviation of its first component.
    np.testing.assert_allclose(found.half_width[:3], [[19, 38], [38, 38], [19, 38]], rtol=1e-5)
    # mean of (1 + 4) e^2 for e = 1..20, which 0.5 was told of; the second row was told 1.25
    mean = 5 * 20 * 21 * 41 / 6 / 20
    np.testing.assert_allclose(found.expected[:3], [mean, 2.5 * mean, mean], rtol=1e-5)
    # nothing came of neighbour 1 to learn from
    assert found.half_width[3].tolist() == told.half_width[3].tolist()
    assert float(found.expected[3]) == float(told.expected[3])
    assert sorted(asked) == [(0,), (0, 2), (2,)]
    again = calibration.correct("any", nothing, answers, told)
    assert torch.equal(again.half_width, found.half_width)
    assert len(asked) == 3  # it knows by now
    restored = Calibration.of(calibration.state()).correct("any", nothing, answers, told)
    assert torch.equal(restored.half_width, found.half_width)


def test_who_was_certain_learns_better_and_nothing_is_no_rows() -> None:
    """A component that never varied in training, and rounds in which nobody answers or is asked."""

    def certain(_: Answers, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(rows, 1), torch.zeros(rows, 1)

    calibration = Calibration(torch.full((9, 1), 3.0), {0: torch.zeros(9, 1)})
    everything = {0: (torch.ones(2, dtype=torch.bool), torch.zeros(2, 1))}
    found = calibration.correct("any", certain, everything, interval_of(torch.zeros(2, 1)))
    np.testing.assert_allclose(found.half_width, 3.0, rtol=1e-4)
    np.testing.assert_allclose(found.expected, 9.0, rtol=1e-4)
    none = {0: (torch.zeros(0, dtype=torch.bool), torch.zeros(0, 1))}
    for answers, rows in (({}, 2), ({}, 0), (none, 0)):
        nothing = calibration.correct("any", certain, answers, interval_of(torch.zeros(rows, 1)))
        assert nothing.half_width.shape == (rows, 1)
        assert nothing.expected.shape == (rows,)


def test_a_run_counts_what_calibration_costs(tiny: MakeConfig, tmp_path: Path) -> None:
    plain = sheafnet.simulate(tiny(), run_dir=tmp_path / "plain").summary
    options = ("inference.calibration=30", "inference.wire_dtype=float16")
    summary = sheafnet.simulate(tiny(*options), run_dir=tmp_path / "run").summary
    assert plain.communication.calibration is None
    traffic = summary.communication.calibration
    assert traffic is not None
    # 5 edges, both ways; 30 events of d_ij 4 in 2 bytes; 21 bytes of framing as 240 need one more.
    assert (traffic.rounds, traffic.messages) == (1, 10)
    assert traffic.payload_bytes == traffic.floor_bytes == 10 * 30 * 4 * 2
    assert traffic.framing_bytes == 10 * 21
    assert traffic.bytes_total == 10 * (240 + 21)
    (line,) = of_phase(list(RunDirectory.open(tmp_path / "run").lines("rounds")), "calibration")
    assert line == {
        "phase": "calibration", "round": 0, "events": 30, "missed": 0, "bytes": 2610
    }  # fmt: skip
    assert summary.communication.train == plain.communication.train


def test_calibration_changes_no_estimate(tiny: MakeConfig, tmp_path: Path) -> None:
    chosen = ("inference.neural_hidden=4", "inference.abstain=0.9")
    plain = sheafnet.simulate(tiny(*chosen), run_dir=tmp_path / "plain").summary
    options = (*chosen, "inference.calibration=100")
    summary = sheafnet.simulate(tiny(*options), run_dir=tmp_path / "run").summary
    for name, estimate in plain.missing.estimators.items():
        found = summary.missing.estimators[name]
        assert (found.nmse, found.accuracy) == (estimate.nmse, estimate.accuracy)
        assert (found.coverage_90 == estimate.coverage_90) is (name not in ("ridge", "neural"))
    assert summary.missing.abstained != plain.missing.abstained
    assert summary.communication.inference == plain.communication.inference


def test_simulated_faults_leave_it_alone(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(STORM, "inference.calibration=30")
    traffic = sheafnet.simulate(config, run_dir=tmp_path / "run").summary.communication.calibration
    assert traffic is not None
    assert traffic.fates["delivered"].messages == traffic.messages == 10


def test_no_more_events_than_there_are(tiny: MakeConfig, tmp_path: Path) -> None:
    """The validation split has 500; a larger number is all of them."""
    sheafnet.simulate(tiny("inference.calibration=9999"), run_dir=tmp_path / "many")
    sheafnet.simulate(tiny("inference.calibration=500"), run_dir=tmp_path / "all")
    (line,) = of_phase(list(RunDirectory.open(tmp_path / "many").lines("rounds")), "calibration")
    assert line["events"] == 500
    assert artifacts(tmp_path / "many")["summary"] == artifacts(tmp_path / "all")["summary"]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_events_are_those_of_the_validation_split(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    asked = []
    labelled = Node.labelled

    def watch(self, which, events):
        asked.append((which, len(events)))
        return labelled(self, which, events)

    monkeypatch.setattr(Node, "labelled", watch)
    config = tiny("inference.calibration=17", f"evaluation.split={split}")
    sheafnet.simulate(config, run_dir=tmp_path / "run")
    assert [which for which, count in asked if count == 17] == ["validation"] * 4


@pytest.mark.parametrize("method", ["all-pairs", "{name: imagebind, hub: b}"])
def test_a_single_space_is_calibrated_by_its_sections(
    tiny: MakeConfig, tmp_path: Path, method: str
) -> None:
    """Between neighbours alone: 5 edges, both ways, 30 events of 8 dimensions in 4 bytes."""
    config = tiny(f"method={method}", "inference.calibration=30")
    traffic = sheafnet.simulate(config, run_dir=tmp_path / "run").summary.communication.calibration
    assert traffic is not None
    assert traffic.payload_bytes == traffic.floor_bytes == 10 * 30 * 8 * 4


def test_who_misses_nothing_asks_nobody(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("inference.calibration=30", "inference.missing_nodes=[a]")
    missing = sheafnet.simulate(config, run_dir=tmp_path / "run").summary.missing
    assert missing.per_node["a"].missing == 80
    assert missing.per_node["b"].missing == 0


def test_what_cannot_be(tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least 9 events"):
        tiny("inference.calibration=8")
    with pytest.raises(ConfigError, match=r"inference\.calibration: under local"):
        tiny("method=local", "inference.calibration=20")
    monkeypatch.setattr(synthetic, "VALIDATION_EVENTS", 8)
    with pytest.raises(ConfigError, match="the validation split has 8 events"):
        Plan.open(tiny("inference.calibration=9"))
