"""`sheafnet compare` as a user meets it, on the tiny topology."""

import csv
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

import sheafnet
from sheafnet.errors import ConfigError
from sheafnet.studies import running
from sheafnet.studies.cells import LOCAL
from sheafnet.studies.comparison_tables import Grid, grids, write_comparison
from tests.conftest import TINY
from tests.runtime.test_cli import call


def kept(study: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (study / "cells").iterdir()}


def never(*_: object) -> None:
    raise AssertionError("nothing was to be run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sheafnet.Comparison]:
    """The topology, and a comparison of it that ran."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "network.yaml").write_text(yaml.safe_dump(TINY))
    return folder, sheafnet.compare(
        folder / "network.yaml",
        methods="sheafalign,sheafalign@comparison_dim=0.25,imagebind,local",
        seeds=2,
        study=folder / "study",
    )


def test_figures_are_those_of_simulate(
    finished: tuple[Path, sheafnet.Comparison], tmp_path: Path
) -> None:
    folder, comparison = finished
    quarter, hub = comparison.standings[1], comparison.standings[2]
    for standing, override in (
        (quarter, "defaults.edge.comparison_dim=0.25"),
        (hub, "method=imagebind"),
    ):
        runs = []
        for seed in (0, 1):
            config = sheafnet.load_config(
                folder / "network.yaml", [override, f"run.seed={seed}", *LOCAL]
            )
            where = tmp_path / f"{override}-{seed}"
            runs.append(sheafnet.simulate(config, run_dir=where).summary)
        figures = standing.figures
        recalls = [run.alignment.recall_at_1 for run in runs]
        assert figures["recall_at_1"].values == tuple(recalls)
        assert figures["recall_at_1"].deviation == pytest.approx(
            statistics.stdev(r for r in recalls if r is not None)
        )
        errors = [run.missing.estimators["ridge"].nmse for run in runs]
        assert figures["missing_nmse_ridge"].values == tuple(errors)
        sent = [run.communication.train.bytes_total for run in runs]
        assert figures["train_bytes"].values == tuple(sent)


def test_what_a_method_does_not_measure_stays_empty(
    finished: tuple[Path, sheafnet.Comparison],
) -> None:
    _, comparison = finished
    local = comparison.standings[3]
    assert local.figures["recall_at_1"].mean is None
    assert local.figures["probe_accuracy"].mean is not None
    assert [reached.show() for reached in local.reached] == ["-", "-", "-"]
    assert [share.runs for share in comparison.standings[2].reached] == [2, 2, 2]
    assert list(comparison.differences("recall_at_1"))[2] == (None, None)


def test_bytes_to_a_quality_come_from_the_curve(
    finished: tuple[Path, sheafnet.Comparison],
) -> None:
    """The tiny ring sends the same bytes in every training round."""
    _, comparison = finished
    for standing in comparison.standings[:3]:
        (each,) = set(standing.figures["train_bytes_per_round"].values)
        rounds = [e.after for e in standing.results[0].evaluations]
        assert rounds == [1, 2, 3, 4, 5, 6]
        for reached in standing.reached:
            assert all(cost % each == 0 for cost in reached.cost.values)
            assert max(reached.cost.values) <= 6 * each
    finals = [v for s in comparison.standings for v in s.figures["recall_at_1"].values]
    assert comparison.targets[-1].value == pytest.approx(min(finals))


def test_a_second_call_runs_nothing_and_says_the_same(
    finished: tuple[Path, sheafnet.Comparison],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, comparison = finished
    before = kept(folder / "study")
    assert len(before) == 8
    monkeypatch.setattr(running, "_outcomes", never)
    arguments = [
        *("compare", "--topology", folder / "network.yaml", "--study", folder / "study"),
        *("--methods", "sheafalign,sheafalign@comparison_dim=0.25,imagebind,local"),
        *("--seeds", 2),
    ]
    assert call(monkeypatch, *arguments, "--format", "json") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert json.loads(output.out) == comparison.as_dict()
    assert call(monkeypatch, *arguments) == 0
    text = capsys.readouterr().out
    for part in ("recall@1", "missing: NMSE, ridge", "Difference from sheafalign", "Study: "):
        assert part in text
    assert max(map(len, text.replace(str(folder), "").splitlines())) <= 80
    assert kept(folder / "study") == before

    told = json.loads((folder / "study" / "compare.json").read_text())
    assert told == comparison.as_dict()
    with (folder / "study" / "table.csv").open(newline="") as file:
        rows = {(row["contender"], row["figure"]): row for row in csv.DictReader(file)}
    quarter: Any = told["contenders"]["sheafalign@comparison_dim=0.25"]
    row = rows["sheafalign@comparison_dim=0.25", "train_bytes"]
    assert float(row["mean"]) == quarter["figures"]["train_bytes"]["mean"]
    assert float(row["difference_percent"]) < -40
    assert row["outside_spread"] == "True"
    assert rows["local", "recall_at_1"]["mean"] == ""
    page = (folder / "study" / "compare.md").read_text()
    assert "| recall@1 |" in page
    assert "do not overlap" in page


def test_a_mapping_is_compared_as_its_file_is(
    finished: tuple[Path, sheafnet.Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, comparison = finished
    monkeypatch.setattr(running, "_outcomes", never)
    again = sheafnet.compare(
        TINY,
        methods="sheafalign,sheafalign@comparison_dim=0.25,imagebind,local",
        seeds=2,
        study=folder / "study",
    )
    assert again.as_dict() == comparison.as_dict()


def test_rows_are_what_the_csv_holds(
    finished: tuple[Path, sheafnet.Comparison], tmp_path: Path
) -> None:
    _, comparison = finished
    rows = comparison.rows()
    assert len(rows) == 4 * len(comparison.figures)
    write_comparison(dataclasses.replace(comparison, folder=tmp_path))
    with (tmp_path / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert read == as_text
    quarter = next(
        r for r in rows if r["contender"].endswith("0.25") and r["figure"] == "train_bytes"
    )
    ours, theirs = (s.figures["train_bytes"].mean for s in comparison.standings[:2])
    assert quarter["mean"] == theirs
    assert quarter["difference_percent"] == pytest.approx((theirs / ours - 1) * 100)
    assert {row["difference_percent"] for row in rows if row["contender"] == "sheafalign"} == {None}


def test_more_seeds_cost_only_the_new_ones(
    finished: tuple[Path, sheafnet.Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    asked: list[int] = []

    def note(cells: Any, _: int) -> Any:
        asked.extend(cell.config.run.seed for cell in cells)
        yield from ()

    monkeypatch.setattr(running, "_outcomes", note)
    with pytest.raises(KeyError):  # the pretended workers answer nothing
        sheafnet.compare(
            folder / "network.yaml", methods="sheafalign", seeds=3, study=folder / "study"
        )
    assert asked == [2]


def test_one_contender_and_one_seed(
    finished: tuple[Path, sheafnet.Comparison],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = finished
    monkeypatch.setattr(running, "_outcomes", never)
    arguments = ("--methods", "sheafalign", "--seeds", 1, "--study", folder / "study")
    assert call(monkeypatch, "compare", "--topology", folder / "network.yaml", *arguments) == 0
    text = capsys.readouterr().out
    assert "seed 0" in text
    assert "±" not in text
    assert "Difference" not in text


def test_a_failing_contender_leaves_the_others(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    study = tmp_path / "study"
    arguments = [
        *("compare", "--topology", network, "--study", study, "--seeds", 1, "--methods"),
        "sheafalign,sheafalign@learning_rate=1e6",
        *("--target", "recall_at_1=0.9"),
    ]
    assert call(monkeypatch, *arguments) == 3
    text = capsys.readouterr().out
    assert "sheafalign@learning_rate=1e6: 0 of 1 runs finished." in text
    assert "Failed: training.learning_rate=1e6" in text
    assert "never" in text
    before = kept(study)
    assert len(before) == 1
    assert call(monkeypatch, *arguments, "--format", "json") == 3
    told = json.loads(capsys.readouterr().out)
    assert [failure["exit_code"] for failure in told["failures"]] == [3]
    assert kept(study) == before


def test_tuning_chooses_for_everyone_and_runs_the_choice(network: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "methods": "sheafalign,imagebind",
        "seeds": 1,
        "tune": True,
        "grid": ["temperature=0.1,0.5"],
        "study": tmp_path / "study",
    }
    seen = []
    told = sheafnet.compare(network, on_progress=seen.append, **arguments)
    assert {p.what: p.total for p in seen} == {"tuning": 4, "choosing hubs": 4, "test": 2}
    sheaf, hub = told.standings
    assert sheaf.choice is not None
    assert hub.choice is not None
    assert len(sheaf.choice.candidates) == 2 * 4  # after 3, 4, 5 and 6 of 6 rounds
    assert len(hub.choice.candidates) == 2 * 4 + 4 * 4
    for standing, choice in ((sheaf, sheaf.choice), (hub, hub.choice)):
        assert choice.best.value == max(c.value for c in choice.candidates)
        (result,) = standing.results
        assert result.config["evaluation"]["split"] == "test"
        assert result.config["run"] == {"seed": 0}
        assert result.config["training"]["rounds"] == choice.best.rounds
        point = dict(text.split("=") for text in choice.best.overrides)
        assert result.config["training"]["temperature"] == float(point["training.temperature"])
        assert result.config["method"]["hub"] == point.get("method.hub")
    written = told.as_dict()["contenders"]["imagebind"]["chosen"]
    assert written["overrides"] == list(hub.choice.overrides)
    assert written["seeds"] == [1_000_000]


REFUSED = {
    "method": (["--methods", "imagebnd"], "Did you mean 'imagebind'"),
    "key": (["--methods", "sheafalign@temprature=1"], "training.temperature"),
    "value": (["--methods", "sheafalign,local@temperature=0"], "training.temperature = 0"),
    "hub": (["--methods", "sheafalign,imagebind@hub=z"], "no node is called 'z'"),
    "no hub": (["--methods", "local@hub=a"], "local has no hub"),
    "set": (["--set", "training.round=1"], "Did you mean 'rounds'"),
    "target": (["--target", "recall_at_2=0.1"], "--target recall_at_2"),
    "grid alone": (["--grid", "temperature=1,2"], "add --tune"),
    "grid": (["--tune", "--grid", "rounds=1,2"], "inference.rounds"),
    "grid value": (["--tune", "--grid", "temperature=0.1,-1"], "training.temperature = -1"),
    "select": (["--tune", "--select", "recall"], "Did you mean"),
    "folder": (["--study", "/proc/x"], "/proc/x"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    case: str, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given, part = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "_outcomes", never)
    assert call(monkeypatch, "compare", "--topology", network, *given) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("sheafnet: ")
    assert part in output.err
    assert not (tmp_path / "studies").exists()


def test_wide_tables_are_cut_by_columns() -> None:
    table = Grid("t", ("one", "two@key=1", "three"), (("row", "1" * 10, "2" * 10, "3" * 10),))
    assert [piece.columns for piece in table.pieces(80)] == [("one", "two@key=1", "three")]
    assert [piece.columns for piece in table.pieces(34)] == [("one", "two@key=1"), ("three",)]
    narrow = list(table.pieces(5))
    assert [piece.rows[0][1] for piece in narrow] == ["1" * 10, "2" * 10, "3" * 10]


def test_a_comparison_needs_no_figure_to_be_printed(network: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        sheafnet.compare(network, seeds=0, study=tmp_path)
    told = sheafnet.compare(
        network, methods="sheafalign@learning_rate=1e6", seeds=1, study=tmp_path / "study"
    )
    assert list(grids(told)) == []
    assert len(told.failures) == 1
