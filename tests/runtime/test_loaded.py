"""A run read back: its columns, its sheaf and its sections."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pytest
import torch

import sheafnet
from sheafnet.errors import RunDirectoryError
from sheafnet.runtime.loaded import LoadedRun, load_run
from tests.conftest import STORM, MakeConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: MakeConfig) -> LoadedRun:
    folder = tmp_path_factory.mktemp("loaded") / "run"
    sheafnet.simulate(tiny("evaluation.every=4", STORM), run_dir=folder)
    return load_run(folder)


@pytest.mark.parametrize("phase", ["train", "evaluation", "inference"])
def test_columns_are_the_rounds_turned_round(run: LoadedRun, phase: str) -> None:
    columns, rounds = run.columns(phase), run.rounds(phase)
    assert {len(values) for values in columns.values()} == {len(rounds)}
    for index, line in enumerate(rounds):
        assert {name: columns[name][index] for name in line} == line
    absent = [name for name in columns if name not in rounds[0]]
    assert [columns[name][0] for name in absent] == [None] * len(absent)
    assert pyarrow.table(columns).num_rows == len(rounds)


def test_the_columns_of_the_ledger_are_whole_numbers(run: LoadedRun) -> None:
    table = pyarrow.table(run.columns("ledger"))
    counts = [name for name in table.column_names if "." in name]
    assert {"sent.messages", "dropped.payload_bytes", "missed.messages"} < set(counts)
    assert {table[name].type for name in counts} == {pyarrow.int64()}
    assert sum(table[name].null_count for name in counts) == 0
    lines = run.ledger()
    assert any("dropped.messages" not in line for line in lines)
    dropped = sum(line.get("dropped.messages", 0) for line in lines)
    assert pc.sum(table["dropped.messages"]).as_py() == dropped > 0


def test_a_table_that_is_not_there(run: LoadedRun) -> None:
    assert run.columns("calibration") == {}
    with pytest.raises(RunDirectoryError, match=r"no table 'trian'\. Did you mean 'train'"):
        run.columns("trian")


def test_the_sheaf_is_that_of_the_summary_and_of_the_nodes(run: LoadedRun) -> None:
    assert run.summary is not None
    sheaf, sections = run.sheaf(), run.sections("test", 30)
    spectrum = sheaf.spectrum()
    assert spectrum.global_sections == run.summary.sheaf.global_sections
    assert spectrum.gap == pytest.approx(run.summary.sheaf.spectral_gap)
    assert [section.shape for section in sections] == [(30, 8)] * 4
    nodes = [run.node(node.id) for node in run.topology.nodes]
    projected = [node.project(torch.tensor(h)) for node, h in zip(nodes, sections, strict=True)]
    energy = np.zeros(30)
    for edge in run.topology.edges:
        tail, head = (
            projected[end][[e.index for e in nodes[end].edges].index(edge.index)].numpy()
            for end in (edge.tail, edge.head)
        )
        energy += ((tail - head) ** 2).sum(axis=1)
    assert sheaf.energy(sections) == pytest.approx(energy, rel=1e-4)
    events = np.arange(30)
    with torch.no_grad():
        here = nodes[2].encoder(nodes[2].samples("test", events)).numpy()
    assert sections[2] == pytest.approx(here)


def test_more_sections_than_events(run: LoadedRun) -> None:
    with pytest.raises(
        RunDirectoryError, match="501 events of the validation split, which has 500"
    ):
        run.sections("validation", 501)
    with pytest.raises(RunDirectoryError, match="0 events; at least one"):
        run.sections("test", 0)
    with pytest.raises(RunDirectoryError, match=r"no split 'tset'\. Did you mean 'test'"):
        run.sections("tset")  # type: ignore[arg-type]


def test_a_single_space_is_the_constant_sheaf(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("method=all-pairs", "training.rounds=0", "inference.rounds=0")
    sheafnet.simulate(config, run_dir=tmp_path)
    spectrum = load_run(tmp_path).sheaf().spectrum()
    assert spectrum.global_sections == 8  # R^d, as the graph is connected
    laplacian = [[3, -1, -1, -1], [-1, 2, -1, 0], [-1, -1, 3, -1], [-1, 0, -1, 2]]
    expected = np.repeat(np.linalg.eigvalsh(laplacian), 8)
    assert spectrum.eigenvalues == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def spoiled(run: LoadedRun, tmp_path: Path) -> Path:
    """A copy of the run, to be spoiled."""
    return shutil.copytree(run.path, tmp_path / "copy")


def test_a_method_without_spaces_has_no_sheaf(spoiled: Path) -> None:
    config = spoiled / "config.yaml"
    config.write_text(config.read_text().replace("name: sheafalign", "name: local"))
    with pytest.raises(RunDirectoryError, match="under local neighbours have no space to compare"):
        load_run(spoiled).sheaf()


def test_parameters_that_are_not_there_or_of_another_node(spoiled: Path) -> None:
    first, second = (spoiled / "parameters" / f"{node}.safetensors" for node in "ab")
    first.write_bytes(second.read_bytes())
    with pytest.raises(
        RunDirectoryError, match=r"copy: restriction map of node 0 on edge 1: \(8, 8"
    ):
        load_run(spoiled).sheaf()
    first.unlink()
    with pytest.raises(RunDirectoryError, match=r"a\.safetensors: is not there.*sheafnet resume"):
        load_run(spoiled).sheaf()
