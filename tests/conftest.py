"""Small runs that several tests share."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sheafnet
from sheafnet.config import Config
from sheafnet.document import apply_override
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.validation import check_model

torch.set_num_threads(1)

TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "synthetic", "features": 12, "latent": 3, "classes": 4},
    "nodes": ["a", "b", "c", "d"],
    "edges": [["a", "b"], ["b", "c"], ["c", "d"], ["d", "a"], ["a", "c"]],
    "defaults": {
        "node": {"encoder": {"name": "mlp", "hidden": [16]}, "embedding_dim": 8},
        "edge": {"comparison_dim": 0.5},
    },
    "training": {"rounds": 6, "batch_size": 16},
    "inference": {"rounds": 4, "batch_size": 20, "missing_probability": 0.4},
    "evaluation": {"gallery": 50, "support": 80, "few_shot_draws": 2, "probe_steps": 30},
    "run": {"backend": "local", "stretch": 4, "deadline_s": 30},
}
"""Four nodes of unequal degree, seconds to run, every phase included."""

STORM = (
    "faults={loss: 0.2, duplication: 0.2, delay: 0.1, reordering: 0.1, corruption: 0.15, "
    "retransmissions: 1, edges: [{from_to: [a, b], loss: 0.7}], "
    "down: [{between: [b, c], rounds: [1, 3]}, "
    "{from_to: [c, a], rounds: [2, 3], phase: inference}], "
    "nodes: [{node: d, rounds: [2, 4]}, {node: a, rounds: [1, 2], phase: inference}], "
    "stragglers: [{node: c, probability: 0.3}], "
    "partitions: [{groups: [[a, b]], rounds: [4, 5]}], "
    "activity: {probability: 0.9, schedule: [{between: [a, c], every: 2}]}}"
)
"""An override of the tiny run: every kind of fault at once."""

SHOWER = (
    "faults={loss: 0.2, duplication: 0.2, delay: 0.1, corruption: 0.1, retransmissions: 1, "
    "phases: [inference], nodes: [{node: a, rounds: [1, 2], phase: inference}]}"
)
"""Another one, of inference only: nodes have learned from all their neighbours by then."""

MakeConfig = Callable[..., Config]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long`` runs what carries the marker ``long`` too."""
    parser.addoption("--long", action="store_true", help="run the tests that take minutes too")


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs in one of the parallel processes: a file, which often shares what is slow to make.

    Tests on real Ray actors, first of all, in two of the processes; those of the laws share a Ray.
    """
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    places: list[Path] = []
    for item in items:
        group = item.nodeid.partition("::")[0]
        if item.get_closest_marker("ray"):
            place = item.path.parent if item.path.parent.name == "laws" else item.path
            if place not in places:
                places.append(place)
            group = f"ray-{places.index(place) % 2}"
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that carry the marker ``gpu`` run where there is one, ``long`` ones when asked for."""
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("runs with --long")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("torch can use no GPU here")


@pytest.fixture(scope="session")
def tiny() -> MakeConfig:
    """The tiny run with overrides, as ``tiny("training.rounds=3")``."""

    return tiny_config


def tiny_config(*overrides: str) -> Config:
    """The same, where no fixture reaches."""
    values = yaml.safe_load(yaml.safe_dump(TINY))
    for override in overrides:
        apply_override(values, override)
    return check_model(Config, values)


def broken_off(config: Config, folder: Path) -> list[Path]:
    """A finished run at folder/whole, and what a kill after each of its stretches leaves."""
    left: list[Path] = []

    def copy(_: Progress) -> None:
        left.append(folder / f"killed-{len(left)}")
        shutil.copytree(folder / "whole", left[-1])

    sheafnet.simulate(config, run_dir=folder / "whole", on_progress=copy)
    return left


def artifacts(directory: Path) -> dict[str, Any]:
    """What a run leaves that has to be the same wherever and whenever it ran."""
    run = RunDirectory.open(directory)
    summary = run.summary()
    assert summary is not None
    for key in ("timing", "memory", "backend", "actors"):
        del summary[key]
    return {
        "summary": summary,
        "rounds": list(run.lines("rounds")),
        "ledger": sorted(map(json.dumps, run.lines("ledger"))),
        "parameters": {
            path.name: path.read_bytes() for path in sorted((directory / "parameters").iterdir())
        },
    }


def run_artifacts(config: Config, directory: Path) -> dict[str, Any]:
    """Run `config` in `directory` and return its artifacts."""
    sheafnet.simulate(config, run_dir=directory)
    return artifacts(directory)


def of_phase(lines: Sequence[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """The lines of one phase."""
    return [line for line in lines if line["phase"] == phase]
