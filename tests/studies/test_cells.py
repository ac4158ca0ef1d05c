"""Cells: what their names depend on, and what is kept of a run."""

import json
from pathlib import Path

import pytest

import sheafnet
from sheafnet.errors import ConfigError, StudyError
from sheafnet.studies import cells as module
from sheafnet.studies.cells import (
    Cell,
    collect,
    curve_overrides,
    open_base,
    read_cells,
    seeds_from,
)
from sheafnet.studies.folder import StudyFolder, write
from tests.studies.conftest import Pretend


def key(network: Path, *overrides: str, seed: int = 0) -> str:
    return read_cells(network, overrides, [seed])[0].key


def test_the_key_is_of_everything_that_can_change_a_figure(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = key(network)
    assert first == key(network) == key(network, "training.temperature=0.1")
    assert first == key(network, "run.stretch=1", "run.directory=elsewhere", "run.seed=5")
    assert first == key(network, "training.wire_rounding=nearest")
    others = {
        key(network, "training.wire_dtype=int8"),
        key(network, "training.wire_dtype=int8", "training.wire_rounding=stochastic"),
        key(network, seed=1),
        key(network, "training.temperature=0.2"),
        key(network, "dataset.noise=0.3"),
        key(network, "defaults.edge.comparison_dim=1"),
        key(network, "defaults.edge.comparison_dim=1.0"),
    }
    assert len(others | {first}) == 8
    network.write_text(network.read_text().replace("batch_size: 16", "batch_size: 17"))
    assert key(network) not in others | {first}
    network.write_text(network.read_text().replace("batch_size: 17", "batch_size: 16"))
    assert key(network) == first
    monkeypatch.setattr(module, "__version__", "0.0.0")
    assert key(network) != first


def test_a_cluster_in_the_topology_is_left_alone(network: Path) -> None:
    network.write_text(network.read_text().replace("backend: local", "address: 'h:1'"))
    config = read_cells(network, (), [0])[0].config
    assert (config.run.backend, config.run.address) == ("local", None)


@pytest.mark.parametrize(
    ("given", "every"),
    [
        ((), 1),  # 6 rounds
        (("training.rounds=1000",), 100),
        (("training.rounds=15",), 2),
        (("training.rounds=0",), 1),
        (("evaluation.every=3",), 3),
        (("evaluation.every=null",), None),
    ],
)
def test_about_ten_evaluations_unless_it_is_said(
    network: Path, given: tuple[str, ...], every: int | None
) -> None:
    common = (*given, *curve_overrides(open_base(network, given)))
    assert read_cells(network, common, [0])[0].config.evaluation.every == every
    # Whatever rounds a contender has of its own, it is looked at as often as the others.
    other = (*common, "training.rounds=7")
    assert read_cells(network, other, [0])[0].config.evaluation.every == every


def test_what_is_kept_of_a_run(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CURVE_POINTS", 3)
    (cell,) = read_cells(network, ["training.rounds=8", "evaluation.every=4"], [3])
    result = sheafnet.simulate(cell.config, run_dir=tmp_path / "run")
    run = sheafnet.RunDirectory.open(result.directory)
    kept = collect(cell, run, result.summary)
    lines = [line for line in run.lines("rounds") if line["phase"] == "train"]
    assert [point["round"] for point in kept.training] == [0, 3, 6, 7]
    for point in kept.training:
        line = lines[int(point["round"] or 0)]
        assert point == {name: line[name] for name in point}
    assert [e.after for e in kept.evaluations] == [4, 8]
    assert [e.train_bytes for e in kept.evaluations] == [
        sum(line["bytes"] for line in lines[:4]),
        sum(line["bytes"] for line in lines),
    ]
    last = kept.evaluations[-1].figures
    assert last["recall_at_1"] == pytest.approx(result.summary.alignment.recall_at_1)
    assert kept.summary.alignment.per_edge == {}
    assert kept.summary.alignment.recall_at_1 == result.summary.alignment.recall_at_1
    folder = StudyFolder(tmp_path / "study")
    folder.keep(kept)
    assert folder.result(cell) == kept
    (file,) = (tmp_path / "study" / "cells").iterdir()
    assert file.name == f"{cell.key}.json"
    assert json.loads(file.read_text())["overrides"][-1] == "run.seed=3"


def test_a_file_that_is_no_result_counts_as_none(
    network: Path, tmp_path: Path, pretend: Pretend
) -> None:
    one, other = read_cells(network, (), [0, 1])
    folder = StudyFolder(tmp_path)
    assert folder.result(one) is None
    folder.keep(pretend((), one))
    assert isinstance(folder.result(one), module.CellResult)
    file = tmp_path / "cells" / f"{one.key}.json"
    (tmp_path / "cells" / f"{other.key}.json").write_bytes(file.read_bytes())
    assert folder.result(other) is None
    file.write_bytes(file.read_bytes()[:-40])
    assert folder.result(one) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        StudyFolder(tmp_path / "file").claim()
    with pytest.raises(StudyError, match="cannot be written"):
        write(tmp_path, "a folder is there")
    StudyFolder(tmp_path / "new").claim()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cells", "file", "new"]


def test_seeds_count_up_from_that_of_the_run(network: Path) -> None:
    base = open_base(network, ["run.seed=7"])
    assert seeds_from(base, 3) == (7, 8, 9)
    with pytest.raises(ConfigError, match="at least one"):
        seeds_from(base, 0)
    assert Cell(base, ()).resolved["run"] == {"seed": 7}
