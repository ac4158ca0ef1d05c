"""`sheafnet sweep` as a user meets it, on the tiny topology."""

import csv
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import sheafnet
from sheafnet.errors import ConfigError, StudyError
from sheafnet.studies import running
from sheafnet.studies.cells import LOCAL
from sheafnet.studies.plot import write_plot
from sheafnet.studies.sweep_output import write_table
from tests.conftest import TINY
from tests.runtime.test_cli import call
from tests.studies.test_compare import kept, never

OVER = ["comparison_dim=0.25,1.0", "noise=0.1,0.3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sheafnet.Sweep]:
    """The folder of the topology, and a sweep of it that ran."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "network.yaml").write_text(yaml.safe_dump(TINY))
    found = sheafnet.sweep(folder / "network.yaml", OVER, seeds=2, study=folder / "study")
    return folder, found


def test_every_combination_and_seed_has_a_row(
    finished: tuple[Path, sheafnet.Sweep], tmp_path: Path
) -> None:
    folder, sweep = finished
    rows = sweep.rows()
    found = [(r["defaults.edge.comparison_dim"], r["dataset.noise"], r["seed"]) for r in rows]
    assert found == list(itertools.product((0.25, 1.0), (0.1, 0.3), (0, 1)))
    config = sheafnet.load_config(
        folder / "network.yaml",
        ["defaults.edge.comparison_dim=1.0", "dataset.noise=0.3", "run.seed=1", *LOCAL],
    )
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert rows[-1]["recall_at_1"] == summary.alignment.recall_at_1
    assert rows[-1]["missing_accuracy_ridge"] == summary.missing.estimators["ridge"].accuracy
    assert rows[-1]["train_bytes"] == summary.communication.train.bytes_total
    for index, point in enumerate(sweep.points):
        beaten = any(
            other.spread(sweep.cost).mean <= point.spread(sweep.cost).mean
            and other.spread(sweep.quality).mean > point.spread(sweep.quality).mean
            for other in sweep.points
        )
        assert not (beaten and index in sweep.front)
    assert sweep.front


def test_csv_and_parquet_hold_the_same(
    finished: tuple[Path, sheafnet.Sweep], tmp_path: Path
) -> None:
    from pyarrow import parquet

    _, sweep = finished
    write_table(sweep, tmp_path / "t.csv")
    write_table(sweep, tmp_path / "t.parquet")
    columns = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == list(columns)
    assert len(lines) == 8
    for name, values in columns.items():
        assert [float(line[name]) if line[name] else None for line in lines] == values
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.parquet"]


def test_the_command_and_its_second_call(
    finished: tuple[Path, sheafnet.Sweep],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, sweep = finished
    before = kept(folder / "study")
    monkeypatch.setattr(running, "_outcomes", never)
    over = [part for text in OVER for part in ("--over", text)]
    arguments = [
        *("sweep", "--topology", folder / "network.yaml", "--study", folder / "study"),
        *(*over, "--seeds", 2),
    ]
    assert call(monkeypatch, *arguments) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.replace(str(folder), "").splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert [k for k, row in enumerate(rows) if "*" in row] == sorted(sweep.front)
    assert (folder / "study" / "sweep.csv").stat().st_size > 500
    assert (folder / "study" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    plot, table = tmp_path / "p.svg", tmp_path / "t.parquet"
    more = ("--plot", plot, "-o", table, "--quality", "missing_nmse_ridge")
    assert call(monkeypatch, *arguments, *more, "--cost", "inference_bytes_per_sample") == 0
    assert "NMSE" in capsys.readouterr().out
    drawn = plot.read_text()
    assert "<svg" in drawn
    assert table.exists()
    assert kept(folder / "study") == before


def test_what_the_plot_says(finished: tuple[Path, sheafnet.Sweep], tmp_path: Path) -> None:
    """Texts of an SVG stand in comments beside their outlines."""
    _, sweep = finished
    write_plot(sweep, tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    for text in (
        *("bytes in training (kB)", "recall@1 (share)", "Pareto front", "comparison_dim 0.25"),
        *("comparison_dim 1.0", "beside the marks:", "bars: standard deviation", "2 seeds"),
    ):
        assert f"<!-- {text}" in drawn or text in drawn, text
    with pytest.raises(StudyError, match="cannot be written"):
        write_plot(sweep, Path("/proc/x/p.png"))


def test_lists_methods_and_failures(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    study = tmp_path / "study"
    arguments = [
        *("sweep", "--topology", network, "--study", study, "--seeds", 1),
        *("--over", "few_shot=[1,2],[3]", "--over", "method=local,sheafalign"),
        *("--over", "learning_rate=0.001,1e6", "--output", tmp_path / "t.csv"),
    ]
    assert call(monkeypatch, *arguments) == 3
    output = capsys.readouterr()
    failed = output.out.count("Failed: ")
    assert failed >= 2
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 - failed == len(kept(study))
    (line,) = [
        line
        for line in lines
        if (line["evaluation.few_shot"], line["method"], line["training.learning_rate"])
        == ("[3]", "local", "0.001")
    ]
    assert line["few_shot_accuracy_1"] == line["recall_at_1"] == ""
    assert float(line["few_shot_accuracy_3"]) > 0
    assert float(line["train_bytes"]) == 0


REFUSED = {
    "unknown": (["--over", "temprature=1,2"], "training.temperature"),
    "ambiguous": (["--over", "rounds=1,2"], "training.rounds, inference.rounds or pilot.rounds"),
    "value": (["--over", "temperature=0.1,-1"], "training.temperature = -1"),
    "option of another data set": (["--over", "rotation=1,2"], "dataset.rotation"),
    "encoder option": (["--over", "activation=relu,reluu"], "activation"),
    "method": (["--over", "method=local,imagebnd"], "imagebnd"),
    "seed": (["--over", "run.seed=1,2"], "--seeds"),
    "quality": (["--over", "noise=1", "--quality", "recall"], "Did you mean 'recall_at_"),
    "cost": (["--over", "noise=1", "--cost", "byte"], "--cost byte"),
    "seconds without a link": (["--over", "noise=1", "--cost", "seconds"], "link=ble"),
    "cost that is a quality": (["--over", "noise=1", "--cost", "recall_at_1"], "more of it is"),
    "wiped": (["--set", "dataset.noise=1", "--over", "dataset=synthetic"], "undoes --set"),
    "output": (["--over", "noise=1", "--output", "t.xlsx"], ".csv or .parquet"),
    "plot": (["--over", "noise=1", "--plot", "p.gif"], ".png or .pdf or .svg"),
    "nothing": ([], "--over"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_swept_is_refused_before_anything_runs(
    case: str, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given, part = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "_outcomes", never)
    assert call(monkeypatch, "sweep", "--topology", network, *given) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert part in output.err
    assert not (tmp_path / "studies").exists()


def test_a_mapping_as_a_whole_comes_before_keys_of_it(network: Path, tmp_path: Path) -> None:
    """Whatever the order of --over: the hub is not lost to the method that is set after it."""
    found = sheafnet.sweep(
        network,
        ["method.hub=b,d", "method=imagebind"],
        seeds=1,
        overrides=["training.rounds=2", "inference.rounds=1"],
        study=tmp_path / "study",
    )
    files = (tmp_path / "study" / "cells").glob("*.json")
    cells = [yaml.safe_load(path.read_text()) for path in files]
    assert {cell["summary"]["hub"] for cell in cells} == {"b", "d"}
    assert [point.texts for point in found.points] == [("b", "imagebind"), ("d", "imagebind")]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"seeds": 0}, "at least one"),
        ({"workers": 0, "seeds": 1}, "workers = 0"),
        ({"overrides": [f"run.seed={2**63 - 1}"], "seeds": 2}, "pass 2^63"),
    ],
)
def test_bounds_of_the_python_call(
    network: Path, tmp_path: Path, arguments: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        sheafnet.sweep(network, ["noise=0.1,0.2"], study=tmp_path / "s", **arguments)
