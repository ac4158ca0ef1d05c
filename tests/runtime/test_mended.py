"""What the coordinator does where frames or connections were lost and nobody died."""

from dataclasses import replace
from pathlib import Path

import pytest

import sheafnet
from sheafnet.errors import ConnectionLost
from sheafnet.runtime.coordinator import Coordinator
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.pool import LocalPool
from sheafnet.runtime.report import Report
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig, artifacts

SIZES = ("training.rounds=12", "run.stretch=2", "run.checkpoint_every=2")


class CutPool(LocalPool):
    """Says after some stretches that a connection was lost."""

    def __init__(self, plan: Plan, run: Path, cuts: list[int]) -> None:
        super().__init__(plan, run)
        self.cuts = cuts
        self.collected = 0

    def collect(self) -> list[Report]:
        self.collected += 1
        (report,) = super().collect()
        if self.collected in self.cuts:
            report = replace(report, failure=ConnectionLost("the wire was cut."))
        return [report]


def to_its_end(plan: Plan, pool: LocalPool, directory: RunDirectory) -> list[str]:
    """Run; returns what was told meanwhile."""
    coordinator = Coordinator(plan, pool, directory)
    coordinator.start()
    told: list[str] = []
    while (progress := coordinator.step()) is not None:
        told += progress.notes
    coordinator.finish(0.0, 0.0)
    return told


def test_after_a_cut_all_go_back_to_the_last_checkpoint(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(*SIZES)
    plan, directory = Plan.open(config), RunDirectory.create(config, tmp_path / "run")
    told = to_its_end(plan, CutPool(plan, directory.path, [1, 5]), directory)
    assert [note.partition("as incarnation")[0] for note in told] == [
        "the wire was cut. All go on from the beginning, ",
        "the wire was cut. All go on from the checkpoint after stretch 2, ",
    ]
    assert directory.about()["recoveries"] == told
    sheafnet.simulate(config, run_dir=tmp_path / "whole")
    assert artifacts(tmp_path / "run") == artifacts(tmp_path / "whole")


def test_cuts_without_end_end_the_run(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(*SIZES, "run.restarts=2")
    plan, directory = Plan.open(config), RunDirectory.create(config, tmp_path / "run")
    pool = CutPool(plan, directory.path, [2, 3, 4])
    with pytest.raises(ConnectionLost, match="the wire was cut"):
        to_its_end(plan, pool, directory)
    assert pool.collected == 4


class SlowPool(LocalPool):
    """A node goes on without a neighbour in each training round."""

    def collect(self) -> list[Report]:
        (report,) = super().collect()
        first = report.records[0]
        first.train[:] = [replace(record, missed=1) for record in first.train]
        return [report]


def test_what_is_missed_is_said_once(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(*SIZES)
    plan, directory = Plan.open(config), RunDirectory.create(config, tmp_path / "run")
    (note,) = to_its_end(plan, SlowPool(plan, directory.path), directory)
    assert note.startswith("train rounds 0-1: 2 frames did not come within run.deadline_s = 30 s")
    assert directory.about()["recoveries"] == [note]
