"""`sheafnet scale`: growth and costs against hand-made runs, refusals, and a run on actors."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import sheafnet
from sheafnet.errors import ConfigError
from sheafnet.runtime.summary import HostRound
from sheafnet.studies import running
from sheafnet.studies.cells import LOCAL, TIMED, Cell, CellResult, StretchEnd, read_cells
from sheafnet.studies.folder import StudyFolder
from sheafnet.studies.growth import exponent, fitted_sizes
from sheafnet.studies.round_cost import steady_rounds
from sheafnet.studies.running import Failure, StudyProgress
from sheafnet.studies.scale import BASE, read_counts
from tests.conftest import TINY
from tests.runtime.test_cli import call
from tests.studies.conftest import Pretend
from tests.studies.test_compare import kept, never


def generated() -> dict[str, Any]:
    """The tiny run with a graph instead of listed nodes."""
    values = {key: value for key, value in TINY.items() if key not in {"nodes", "edges"}}
    return values | {"graph": {"generator": "star", "nodes": 3}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(generated()))
    return path


# Growth


def test_exponents_of_powers_are_their_powers() -> None:
    xs = (64, 256, 1024)
    assert exponent([(x, 3.0 * x**1.5) for x in xs]) == pytest.approx(1.5, abs=1e-12)
    assert exponent([(x, 7.0) for x in xs]) == pytest.approx(0.0, abs=1e-12)
    # Deviations by factors of 2, 1/4 and 2 at equal steps do not tilt the line.
    bent = [(x, x * f) for x, f in zip(xs, (2.0, 0.25, 2.0), strict=True)]
    assert exponent(bent) == pytest.approx(1.0, abs=1e-12)
    # y at the last of three is 8 times too large: by hand, log 8 / (2 log 4) = 0.75 more.
    bent = [(x, x * f) for x, f in zip(xs, (1.0, 1.0, 8.0), strict=True)]
    assert exponent(bent) == pytest.approx(1.75, abs=1e-12)


def test_what_cannot_be_fitted_has_no_exponent() -> None:
    assert exponent([(64, 2.0)]) is None
    assert exponent([(64, 2.0), (64, 3.0)]) is None
    assert exponent([(64, 2.0), (128, None), (256, 0.0)]) is None


@pytest.mark.parametrize(
    ("sizes", "fitted"),
    [
        ((4, 16, 64, 256, 1024), (64, 256, 1024)),
        ((64, 63, 4), (4, 63, 64)),
        ((1024, 64), (64, 1024)),
        ((16,), (16,)),
    ],
)
def test_sizes_from_64_on_are_fitted_where_two_are(
    sizes: tuple[int, ...], fitted: tuple[int, ...]
) -> None:
    assert fitted_sizes(sizes) == fitted


# Rounds


def ends(*listed: tuple[Any, int, float]) -> list[StretchEnd]:
    return [StretchEnd(phase=p, done=n, seconds=s) for p, n, s in listed]


def test_the_first_stretch_and_other_phases_are_left_out_of_a_round() -> None:
    line = ends(
        *(("train", 4, 9.0), ("train", 8, 9.4), ("evaluation", 1, 20.0), ("train", 10, 20.8)),
        *(("inference", 4, 30.0), ("inference", 6, 30.5)),
    )
    assert steady_rounds(line, "train") == (6, pytest.approx((0.4 + 0.8) / 6 * 1000))
    assert steady_rounds(line, "inference") == (2, pytest.approx(250.0))
    assert steady_rounds(line[:1], "train") is None
    assert steady_rounds(line[:4], "inference") is None


# A study of pretended runs

HOSTS = {4: 4, 64: 2, 256: 2}


@pytest.fixture
def measured(pretend: Pretend) -> Callable[[Cell], CellResult]:
    """A run of which a training round takes 0.02 N^1.5 degree ms after a slow first stretch."""

    def run(cell: Cell) -> CellResult:
        assert cell.timed
        assert cell.config.run.nodes_per_actor == "auto"
        graph = cell.config.graph
        assert graph is not None
        n, degree = graph.nodes, graph.degree
        result, each = pretend(cell=cell), 0.02 * n**1.5 * degree
        old = result.summary
        host = HostRound(compute_ms=0.6 * each, messaging_ms=0.1 * each, wait_ms=0.1 * each)
        timing = old.timing.model_copy(
            update={"train_round_ms": 0.8 * each, "train_host": host, "startup_s": 2.5}
        )
        train = old.communication.train.model_copy(
            update={"rounds": 8, "messages": 8 * n * degree, "bytes_total": 800 * n * degree}
        )
        summary = old.model_copy(
            update={
                "nodes": n,
                "edges": n * degree // 2,
                "actors": HOSTS[n],
                "timing": timing,
                "communication": old.communication.model_copy(update={"train": train}),
                "memory": old.memory.model_copy(update={"actor_mb": 200.0 + 0.75 * n}),
            }
        )
        stretches = ends(("train", 2, 5.0), ("train", 8, 5.0 + 6 * each / 1000))
        return result.model_copy(update={"summary": summary, "stretches": tuple(stretches)})

    return run


Outcomes = Callable[[Sequence[Cell], int], Iterator[tuple[Cell, CellResult | Failure]]]


@pytest.fixture
def outcomes(
    measured: Callable[[Cell], CellResult], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int]]:
    """Pretends all runs; (nodes, degree) of those that were asked for. 4 nodes of degree 3 fail."""
    asked: list[tuple[int, int]] = []

    def pretended(cells: Sequence[Cell], workers: int) -> Iterator[tuple[Cell, Any]]:
        assert workers == 1
        for cell in cells:
            assert cell.config.graph is not None
            asked.append((cell.config.graph.nodes, cell.config.graph.degree))
            failed = asked[-1] == (4, 3)
            yield cell, Failure(cell.overrides, "no luck", 5) if failed else measured(cell)

    monkeypatch.setattr(running, "_outcomes", pretended)
    return asked


def study(base: Path, tmp_path: Path, **options: Any) -> sheafnet.Scale:
    options = {"kind": "random-regular", "degree": "2,3"} | options
    return sheafnet.scale("4,64,256", topology=base, study=tmp_path / "study", **options)


def test_the_figures_of_every_size(
    base: Path, tmp_path: Path, outcomes: list[tuple[int, int]]
) -> None:
    seen: list[StudyProgress] = []
    scale = study(base, tmp_path, on_progress=seen.append)
    assert outcomes == [(n, d) for n in (4, 64, 256) for d in (2, 3)]
    assert [(p.what, p.done) for p in seen] == [("scale", k) for k in range(7)]
    assert {p.seconds_left for p in seen} == {None}
    rows = {(row["nodes"], row["degree"]): row for row in scale.rows()}
    assert list(rows) == [(4, 2), (64, 2), (256, 2), (64, 3), (256, 3)]
    row = rows[256, 2]
    assert (row["kind"], row["edges"], row["hosts"]) == ("random-regular", 256, 2)
    assert row["startup_s"] == 2.5
    each = 0.02 * 4096 * 2
    assert row["train_round_ms"] == pytest.approx(each)
    assert row["train_rounds"] == 6
    assert row["train_warmed_up"] is True
    assert row["train_compute_ms"] == 0.6 * each
    # Of the hosts' time over all rounds, 0.6 of 0.8.
    assert row["train_efficiency"] == pytest.approx(0.75)
    assert row["train_messages"] == 512
    assert row["train_bytes"] == 51_200
    assert row["memory_mb"] == 2 * (200 + 192)
    assert row["train_node_round_ms"] == pytest.approx(each * 2 / 256)
    # ms/node grows as sqrt N: from 64 to 256 twofold.
    assert row["train_node_round_ratio"] == pytest.approx(2.0)
    assert row["reference_nodes"] == 64
    # Two hosts that grow by 0.75 MB a node each. At 4 nodes there are 4 hosts, so no slope.
    assert row["node_mb"] == pytest.approx(1.5)
    assert row["memory_from_nodes"] == 64
    assert rows[64, 2]["node_mb"] is None
    assert rows[64, 3]["memory_from_nodes"] is None


def test_the_growth_with_nodes_edges_and_degree(
    base: Path, tmp_path: Path, outcomes: list[tuple[int, int]]
) -> None:
    scale = study(base, tmp_path)
    assert outcomes
    found = {(g.against, g.held): g for g in scale.growth}
    assert {key: g.over for key, g in found.items()} == {
        ("nodes", 2): (64, 256),
        ("edges", 2): (64, 256),
        ("nodes", 3): (64, 256),
        ("edges", 3): (64, 256),
        ("degree", 64): (2, 3),
        ("degree", 256): (2, 3),
    }
    for (against, _), growth in found.items():
        power = 1.0 if against == "degree" else 1.5
        assert growth.exponents["train.round_ms"] == pytest.approx(power)
        assert growth.exponents["train.bytes"] == pytest.approx(1.0)
        assert growth.exponents["train.messages"] == pytest.approx(1.0)


def test_a_failed_size_leaves_the_others_and_is_tried_again(
    base: Path,
    tmp_path: Path,
    outcomes: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        *("scale", "--nodes", "4,64,256", "--topology-kind", "random-regular"),
        *("--degree", "2,3", "--topology", base, "--study", tmp_path / "study"),
    ]
    assert call(monkeypatch, *arguments) == 5
    text = capsys.readouterr().out
    assert "Failed: graph={generator: random-regular, nodes: 4, degree: 3}: no luck" in text
    shown = text.replace(str(tmp_path), "").splitlines()
    assert max(map(len, [line for line in shown if "graph=" not in line])) <= 80
    flat = " ".join(text.split())
    assert "to that at 64 nodes" in flat
    assert "Not as many hosts as the reference have 4 nodes of degree 2" in flat
    assert re.search(r"│ +256 │ +2 │ +164 │ +98.3 │ +16.4 │ +16.4 │ +75% │ +1.28 │ +2.00 │", text)
    assert len(outcomes) == 6
    with (tmp_path / "study" / "scale.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["nodes"] for line in lines] == ["4", "64", "256", "64", "256"]
    assert lines[2]["train_bytes"] == "51200.0"
    assert (tmp_path / "study" / "scale.png").read_bytes().startswith(b"\x89PNG")
    plot, table = tmp_path / "p.svg", tmp_path / "t.parquet"
    more = ("--plot", plot, "-o", table, "--format", "json")
    assert call(monkeypatch, *arguments, *more) == 5
    assert outcomes[6:] == [(4, 3)]
    told = json.loads(capsys.readouterr().out)
    assert [row["nodes"] for row in told["sizes"]] == [4, 64, 256, 64, 256]
    assert told["failures"][0]["exit_code"] == 5
    from pyarrow import parquet

    rows = parquet.read_table(table).to_pylist()
    assert rows == told["sizes"]
    drawn = plot.read_text()
    for words in ("time of a training round", "memory of all hosts", "bytes a round", "~ nodes"):
        assert f"<!-- {words}" in drawn, words
    assert "<!-- messaging, degree 3 -->" in drawn


# What a study is made of


def test_rounds_and_overrides_reach_every_size(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Cell] = []

    def note(cells: Sequence[Cell], _: int) -> Iterator[Any]:
        asked.extend(cells)
        yield from ()

    monkeypatch.setattr(running, "_outcomes", note)
    own = ("training.temperature=0.3", "graph.seed=7", "run.seed=5")
    with pytest.raises(KeyError):  # the pretended workers answer nothing
        sheafnet.scale(
            "9,5",
            topology=base,
            rounds=12,
            inference_rounds=9,
            overrides=own,
            study=tmp_path / "study",
        )
    for cell, nodes in zip(asked, (5, 9), strict=True):
        config = cell.config
        assert config.graph is not None
        assert (config.graph.generator, config.graph.nodes, config.graph.seed) == ("ring", nodes, 7)
        assert (config.training.rounds, config.inference.rounds, config.run.stretch) == (12, 9, 2)
        assert (config.training.temperature, config.run.seed) == (0.3, 5)
        assert (config.run.backend, config.run.nodes_per_actor) == ("ray", "auto")
        assert config.training.batch_size == TINY["training"]["batch_size"]


def test_a_timed_cell_is_known_by_its_placement_too(base: Path) -> None:
    def key(*overrides: str, where: Sequence[str] = TIMED) -> str:
        return read_cells(base, overrides, [0], where)[0].key

    assert key() == key()
    assert len({key(), key("run.stretch=3"), key(where=LOCAL)}) == 3


def test_the_own_network_of_the_study_moves_no_data_and_is_small() -> None:
    config = sheafnet.load_config(BASE)
    assert config.dataset.name == "overlap-mnist"
    assert config.defaults.node.encoder.options == {"hidden": [64]}
    assert config.evaluation.few_shot == ()


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": "4,x"}, "--nodes 4,x: 'x' is no whole number from 1 on"),
        ({"nodes": ""}, "'' is no whole number"),
        ({"nodes": "8,0"}, "'0' is no whole number from 1"),
        ({"nodes": "8,4.5"}, "'4.5' is no whole"),
        ({"nodes": "4,8,4"}, "--nodes 4,8,4: 4 stands twice"),
        ({"nodes": "6,7", "kind": "grid"}, "--nodes 7 --topology-kind grid: .*is a line"),
        (
            {"nodes": "8,9", "kind": "random-regular", "degree": "3"},
            "--nodes 9 --topology-kind random-regular --degree 3: .*must be even",
        ),
        ({"nodes": "4,8", "kind": "knn"}, "--nodes 4 --topology-kind knn --degree 4: .*below"),
        ({"nodes": "2"}, "--nodes 2 --topology-kind ring: .*at least 3"),
        ({"nodes": "8", "kind": "knn", "degree": "1"}, "--degree 1: '1' is no whole number from 2"),
        ({"nodes": "8", "degree": "4"}, "--degree 4: a ring has no degree"),
        ({"nodes": "8", "kind": "rings"}, "--topology-kind rings: no such.*'ring'"),
        ({"rounds": 0}, "--rounds 0: .*at least one"),
        ({"inference_rounds": -1}, "--inference-rounds -1: must be 0"),
        ({"overrides": ["graph.nodes=5"]}, "--set graph.nodes=5: .*by --nodes"),
        ({"overrides": ["graph={generator: star, nodes: 4}"]}, "graph is set by --topology-kind"),
        ({"overrides": ["training.rounds=9"]}, "by --rounds"),
        ({"overrides": ["run.backend=local"]}, "run.backend is fixed"),
        ({"overrides": ["run.nodes_per_actor=2"]}, "run.nodes_per_actor is fixed"),
        ({"overrides": ["nodes.0.modality=x"]}, "generates its nodes and edges"),
        ({"overrides": ["training.temperatur=1"]}, "training.temperatur"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_outcomes", never)
    with pytest.raises(ConfigError, match=message):
        sheafnet.scale(**options, study=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_listed_nodes_are_refused_with_their_line(network: Path) -> None:
    line = next(
        k for k, text in enumerate(network.read_text().splitlines(), 1) if text.startswith("nodes:")
    )
    with pytest.raises(ConfigError, match=rf"network.yaml:{line}: nodes: .*generates"):
        sheafnet.scale("4", topology=network)


def test_sizes_are_read_ascending() -> None:
    assert read_counts("64, 4,16", "--nodes", 1) == (4, 16, 64)


# On actors


@pytest.mark.long
@pytest.mark.ray
def test_two_sizes_on_actors(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("scale", "--nodes", "8,4", "--topology", base, "--study", tmp_path / "study"),
        *("--rounds", 8, "--inference-rounds", 8, "--format", "json"),
    ]
    assert call(monkeypatch, *arguments) == 0
    told = json.loads(capsys.readouterr().out)
    small, large = told["sizes"]
    assert [(row["nodes"], row["edges"], row["hosts"]) for row in (small, large)] == [
        (4, 4, 4),
        (8, 8, 8),
    ]
    results = {
        result.summary.nodes: result
        for path in (tmp_path / "study" / "cells").iterdir()
        if (result := CellResult.model_validate_json(path.read_bytes()))
    }
    for row in (small, large):
        result = results[row["nodes"]]
        summary, timing = result.summary, result.summary.timing
        assert summary.backend == "ray"
        assert row["startup_s"] == timing.startup_s
        assert row["memory_mb"] == summary.memory.actor_mb * row["hosts"]
        assert row["node_mb"] is None  # the hosts differ
        assert row["train_messages"] == 2 * row["edges"]
        assert row["train_bytes"] == summary.communication.train.bytes_total / 8
        assert row["train_compute_ms"] == timing.train_host.compute_ms > 0
        assert row["train_efficiency"] == timing.train_host.compute_ms / timing.train_round_ms
        assert 0 < row["train_efficiency"] <= 1
        assert row["inference_wait_ms"] == timing.inference_host.wait_ms
        train = [end for end in result.stretches if end.phase == "train"]
        assert [end.done for end in train] == [2, 4, 6, 8]
        steady = (train[-1].seconds - train[0].seconds) / 6 * 1000
        assert row["train_round_ms"] == pytest.approx(steady)
        assert (row["train_rounds"], row["inference_rounds"]) == (6, 6)
    assert large["train_bytes"] == 2 * small["train_bytes"]
    assert told["growth"][0]["exponents"]["train.bytes"] == pytest.approx(1.0)
    before = kept(tmp_path / "study")
    monkeypatch.setattr(running, "_outcomes", never)
    assert call(monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert kept(tmp_path / "study") == before
    assert StudyFolder(tmp_path / "study").path.is_dir()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_the_actors_end_with_the_study(base: Path, tmp_path: Path, ending: signal.Signals) -> None:
    """The size would take hours; the study is ended once its actors are at work."""
    command = [
        *(sys.executable, "-m", "sheafnet", "scale", "--nodes", "3", "--topology", str(base)),
        *("--rounds", "1000000", "--set", "run.stretch=5", "--set", "run.directory_mb=10000"),
        *("--study", str(tmp_path / "study")),
    ]
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # paths of Unix sockets have to be short
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not any(p.stat().st_size for p in scratch.glob("*/run-0/rounds.jsonl")):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
        started = psutil.Process(process.pid).children(recursive=True)
        assert sum("HostProcess" in " ".join(p.cmdline()) for p in started) == 3
        process.send_signal(ending)
        out, told = process.communicate(timeout=60)
        alive = psutil.wait_procs(started, timeout=20)[1]
        left = {path.name[:15] for path in scratch.glob("sheafnet-*")}
    finally:
        process.kill()
        shutil.rmtree(scratch)
    assert alive == []
    assert out == ""
    if ending == signal.SIGKILL:
        assert left <= {"sheafnet-study-"}  # the study's own, which nobody was left to remove
        return
    assert process.returncode == 130
    assert "sheafnet: interrupted; 0 of 1 cells (scale) are kept in" in told
    assert "Traceback" not in told
    assert left == set()
