"""What a run logged, as tables and events that other tools read."""

import csv
from pathlib import Path

import pyarrow.parquet
import pytest

import sheafnet
from sheafnet.errors import StudyError
from sheafnet.report.export import export
from sheafnet.runtime.loaded import LoadedRun, load_run
from tests.conftest import STORM, MakeConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: MakeConfig) -> LoadedRun:
    folder = tmp_path_factory.mktemp("exported") / "run"
    sheafnet.simulate(tiny("evaluation.every=4", STORM), run_dir=folder)
    return load_run(folder)


def test_rows_are_flat_and_whole(run: LoadedRun) -> None:
    rounds = run.rounds("train")
    assert [row["round"] for row in rounds] == list(range(6))
    assert all(type(value) not in (dict, list) for row in rounds for value in row.values())
    assert [row["loss"] for row in rounds] == [line["loss"] for line in run.lines("train")]
    inference = run.rounds("inference")[0]
    assert (
        inference["estimators.ridge.nmse"]
        == run.lines("inference")[0]["estimators"]["ridge"]["nmse"]
    )
    ledger = run.ledger()
    sent = sum(row.get("sent.payload_bytes", 0) for row in ledger if row["phase"] == "train")
    assert run.summary is not None
    assert sent == run.summary.communication.train.payload_bytes


@pytest.mark.parametrize("target", ["csv", "parquet"])
def test_tables_hold_every_round_and_the_ledger(
    run: LoadedRun, tmp_path: Path, target: str
) -> None:
    paths = export(run, tmp_path / "out", target)
    names = ["rounds-train", "rounds-evaluation", "rounds-inference", "ledger"]
    assert [path.name for path in paths] == [f"{name}.{target}" for name in names]
    if target == "csv":
        with paths[-1].open(newline="") as file:
            rows = list(csv.DictReader(file))
        sent = sum(int(row["sent.messages"] or 0) for row in rows)
        with paths[0].open(newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    else:
        rows = pyarrow.parquet.read_table(paths[-1]).to_pylist()
        sent = sum(row["sent.messages"] or 0 for row in rows)
        losses = pyarrow.parquet.read_table(paths[0])["loss"].to_pylist()
    assert len(rows) == len(run.ledger())
    assert run.summary is not None
    c = run.summary.communication
    assert sent == c.train.messages + c.evaluation.messages + c.inference.messages
    assert losses == [line["loss"] for line in run.lines("train")]


def test_events_are_those_of_the_rounds(run: LoadedRun, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = export(run, tmp_path / "events", "tensorboard")
    found = EventAccumulator(str(path)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("train/loss")]
    assert losses == [(line["round"], pytest.approx(line["loss"])) for line in run.lines("train")]
    assert [event.step for event in found.Scalars("evaluation/recall_at_1")] == [4, 6]
    assert "inference/estimators/ridge/nmse" in found.Tags()["scalars"]


def test_without_tensorboard_it_says_so(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(StudyError, match=r"pip install 'sheafnet\[tensorboard\]'"):
        export(run, tmp_path / "events", "tensorboard")


def test_a_file_in_the_way(run: LoadedRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        export(run, tmp_path / "file", "csv")
