"""The tiny topology as a file, and results of runs that never took place."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import sheafnet
from sheafnet.runtime.summary import Summary
from sheafnet.studies.cells import Cell, CellResult, Evaluation
from tests.conftest import TINY, MakeConfig


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


Point = tuple[int, int, dict[str, float | None]]
"""Training rounds, bytes, figures."""
Pretend = Callable[..., CellResult]


@pytest.fixture(scope="session")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Of one real run, for what a test does not say."""
    folder = tmp_path_factory.mktemp("pretend")
    (folder / "network.yaml").write_text(yaml.safe_dump(TINY))
    config = sheafnet.load_config(folder / "network.yaml", ["training.rounds=1"])
    return sheafnet.simulate(config, run_dir=folder / "run").summary


@pytest.fixture
def pretend(summary: Summary, tiny: MakeConfig) -> Pretend:
    """A result with a given curve and given figures of the alignment."""

    def make(curve: Sequence[Point] = (), cell: Cell | None = None, **figures: Any) -> CellResult:
        cell = cell or Cell(tiny(), ())
        alignment = summary.alignment.model_copy(update=figures)
        rounds = curve[-1][0] if curve else summary.rounds
        return CellResult(
            key=cell.key,
            sheafnet="0",
            overrides=cell.overrides,
            config=cell.resolved,
            summary=summary.model_copy(update={"alignment": alignment, "rounds": rounds}),
            evaluations=tuple(
                Evaluation(after=after, train_bytes=size, figures=values)
                for after, size, values in curve
            ),
            training=(),
        )

    return make
