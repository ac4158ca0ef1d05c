"""The report of a run: whole, self-contained, and true to the run directory."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sheafnet
from sheafnet.errors import Interrupted, RunDirectoryError, StudyError
from sheafnet.report import charts
from sheafnet.report.export import export
from sheafnet.report.live import Watched
from sheafnet.report.page import write_report
from sheafnet.report.retrieved import retrieved
from sheafnet.runtime.loaded import load_run
from sheafnet.topology import build_topology
from tests.conftest import STORM, MakeConfig
from tests.report.pages import Page


def report(output: Path, *runs: Path, figures: Path | None = None) -> Page:
    write_report(runs, output, figures)
    return Page(output.read_text())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tiny: MakeConfig) -> tuple[Path, Path]:
    """Two finished runs, the second under every fault."""
    folder = tmp_path_factory.mktemp("pair")
    sheafnet.simulate(tiny("evaluation.every=2"), run_dir=folder / "calm")
    sheafnet.simulate(tiny("evaluation.every=2", STORM), run_dir=folder / "stormy")
    return folder / "calm", folder / "stormy"


def test_a_page_is_whole_and_needs_nothing_else(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path / "report.html", pair[0])
    assert [i for i, count in page.ids.items() if count > 1] == []
    outside = [ref for ref in page.references if not ref.startswith(("#", "data:"))]
    assert outside == []
    inside = {ref[1:] for ref in page.references if ref.startswith("#")}
    assert inside <= set(page.ids)
    # The network, training, quality against bytes (2), heat maps (2), reconstruction.
    assert page.tags["svg"] == len(page.labels) == 7
    assert all(page.labels)
    text = (tmp_path / "report.html").read_text()
    assert "currentColor" in text
    assert "#010203" not in text
    assert not re.search(r"url\((?!#)|@import|<link[^>]+stylesheet", text)


def test_the_ledger_is_that_of_the_summary(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page, summary = report(tmp_path / "r.html", pair[0]), load_run(pair[0]).summary
    assert summary is not None
    (ledger,) = [table for table in page.tables if table[0][:2] == ["edge", "phase"]]
    told = {
        (row[0], row[1]): [int(c.replace(",", "").replace("-", "0")) for c in row[2:]]
        for row in ledger[1:]
    }
    expected = {
        (arrow, phase): [
            b.messages,
            b.payload_bytes,
            b.framing_bytes,
            b.control_bytes,
            b.bytes_total,
            b.floor_bytes,
        ]
        for phase in ("train", "evaluation", "inference")
        for arrow, b in getattr(summary.communication, phase).per_edge.items()
    }
    assert told == expected
    (phases,) = [table for table in page.tables if table[0][:2] == ["phase", "rounds"]]
    totals = {row[0]: int(row[6].replace(",", "")) for row in phases[1:]}
    assert totals["train"] == summary.communication.train.bytes_total
    assert totals["inference"] == summary.communication.inference.bytes_total


def test_links_show_their_time_and_energy(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of as many nodes as a figure names and of more; a link without energy has no figure."""
    for name, link, named in (("few", "ble", 4), ("many", "ble", 3), ("untold", "5g", 4)):
        monkeypatch.setattr(charts, "NAMED_NODES", named)
        chosen = ("training.rounds=1", "inference.rounds=1", f"defaults.edge.link={link}")
        result = sheafnet.simulate(tiny(*chosen), run_dir=tmp_path / name)
        page = report(tmp_path / "r.html", tmp_path / name)
        (table,) = [t for t in page.tables if t[0][-1:] == ["highest node"]]
        told = {row[0]: row[1:] for row in table[1:]}
        radio = result.summary.communication.train.radio
        assert radio is not None
        assert told["train"][0] == told["train"][1] == f"{radio.seconds:.4g}"
        drawn = [label for label in page.labels if label.startswith("Energy of the radios")]
        assert len(drawn) == (link == "ble")
        if radio.joules is None:
            assert told["train"][3:] == ["-", "-"]
        else:
            highest = max(node.joules or 0.0 for node in radio.per_node.values())
            assert told["train"][3:] == [f"{radio.joules:.4g}", f"{highest:.4g}"]


def test_two_runs_stand_side_by_side(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", *pair, figures=tmp_path / "figures")
    (beside,) = [table for table in page.tables if "against the first" in table[0]]
    assert beside[0] == ["", "calm", "stormy", "against the first"]
    recall = next(row for row in beside if row[0] == "recall@1")
    figures = [load_run(run).summary.alignment.recall_at_1 for run in pair]
    assert recall[1:3] == [f"{value:.3f}" for value in figures]
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {name.removesuffix(".svg") for name in names if name.endswith(".svg")} == {
        name.removesuffix(".png") for name in names if name.endswith(".png")
    }
    assert len(names) == 2 * page.tags["svg"]
    assert "side-by-side-training.png" in names
    with Image.open(tmp_path / "figures" / "run-1-training.png") as picture:
        assert picture.format == "PNG"
        assert picture.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)
    told = " ".join(page.texts)
    assert "slept, died or was cut off" in told  # nodes a and d of the storm
    assert any("what simulated faults made" in text for text in page.texts)


def test_an_unfinished_run_shows_what_was_logged(tiny: MakeConfig, tmp_path: Path) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        sheafnet.simulate(tiny(), run_dir=tmp_path / "run", on_progress=stop)
    page = report(tmp_path / "r.html", tmp_path / "run")
    text = " ".join(page.texts)
    assert "Run interrupted" in text
    assert "sheafnet resume" in text
    assert page.tags["svg"] == 2  # the network, and training so far
    (ledger,) = [table for table in page.tables if table[0][:2] == ["edge", "phase"]]
    # 4 rounds, 16 rows of 4 float32 in each direction of 5 edges
    assert {row[3] for row in ledger[1:]} == {f"{4 * 16 * 4 * 4:,}"}
    assert len(ledger) == 11


@pytest.mark.parametrize(
    "chosen",
    [
        ["method={name: imagebind, hub: b}", "inference.calibration=12"],
        ["method=all-pairs", "defaults.edge.link=ble"],
        ["method=local"],
        ["method=concat-supervised"],
        ["training.rounds=0"],
        ["inference.rounds=0"],
        ["training.rounds=200", "run.directory_mb=0.33"],
        ["defaults.edge.comparison_dim=auto", "pilot.rounds=2"],
        ["nodes=null", "edges=null", "graph={generator: ring, nodes: 45}", "training.rounds=2"],
    ],
    ids=lambda chosen: chosen[0],
)
def test_every_kind_of_run_has_a_page(tiny: MakeConfig, tmp_path: Path, chosen: list[str]) -> None:
    summary = sheafnet.simulate(tiny(*chosen), run_dir=tmp_path / "run").summary
    page = report(tmp_path / "r.html", tmp_path / "run")
    assert page.tags["svg"] == len(page.labels) >= 1
    assert f"{summary.communication.train.bytes_total:,}" in " ".join(page.texts)
    Watched(tmp_path / "run").look()
    assert export(load_run(tmp_path / "run"), tmp_path / "tables", "csv")


def test_a_configuration_of_another_version_leaves_the_findings(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    config = tiny("training.learning_rate=1e-9", "training.rounds=30")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    assert summary.diagnosis
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text() + "from_the_future: 1\n")
    text = " ".join(report(tmp_path / "r.html", tmp_path / "run").texts)
    assert all(finding.signature in text for finding in summary.diagnosis)


def test_pictures_are_those_that_the_projections_find(tiny: MakeConfig, tmp_path: Path) -> None:
    images = (
        "dataset={name: multiview-mnist}",
        "defaults.node.encoder={name: mlp, hidden: [16]}",
        "nodes=[a, b, c]",
        "edges=[[a, b], [b, c], [c, a]]",
        "training.rounds=40",
        "evaluation.gallery=8",
    )
    summary = sheafnet.simulate(tiny(*images), run_dir=tmp_path / "run").summary
    run = load_run(tmp_path / "run")
    found = retrieved(run)
    assert 1 <= len(found) <= 3
    for each in found:
        asks, searched = (run.node(name) for name in each.arrow.split("->"))
        (edge,) = (e for e in asks.edges if e.other(asks.spec.index) == searched.spec.index)
        events = np.arange(8)
        h = [n.labelled("test", events).section for n in (asks, searched)]
        p = [
            n.project(section)[[e.index for e in n.edges].index(edge.index)]
            for n, section in zip((asks, searched), h, strict=True)
        ]
        similar = torch.nn.functional.cosine_similarity(p[0][:, None], p[1][None], dim=2)
        recall = float((similar.argmax(dim=1) == torch.arange(8)).float().mean())
        assert summary.alignment.per_edge[each.arrow].recall_at_1 == pytest.approx(recall)
        for event, row, hit in zip((0, 2, 4, 6), each.rows, each.hits, strict=True):
            order = similar[event].argsort(descending=True)[:5].tolist()
            assert hit == (order.index(event) if event in order else None)
            views = searched.samples("test", np.array([event, *order])).numpy()[:, 0]
            assert all(np.array_equal(a, b) for a, b in zip(row[1:], views, strict=True))
            own = asks.samples("test", np.array([event])).numpy()[0, 0]
            assert np.array_equal(row[0], own)


def test_a_heat_map_has_the_asking_node_in_its_row(tiny: MakeConfig) -> None:
    topology = build_topology(tiny())
    figure = charts.heat_map(topology, {"a->b": 0.25, "c->a": 0.5}, "t", None)
    assert figure is not None
    texts = {t.get_text(): t.get_position() for t in figure.axes[0].texts}
    assert texts == {"0.25": (1, 0), "0.50": (0, 2)}  # (column, row)


def test_odd_names_are_shown_as_they_are(pair: tuple[Path, Path], tmp_path: Path) -> None:
    runs = [tmp_path / name for name in (r"a$\bad$", "_old")]
    for run in runs:
        shutil.copytree(pair[0], run)
    page = report(tmp_path / "r.html", *runs)
    told = " ".join(page.texts)
    assert r"a$\bad$" in told
    assert "old" in told


def test_text_of_a_stranger_is_text(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "<script>alert(1)<script>&amp;"
    run.mkdir()
    for name in ("config.yaml", "summary.json", "rounds.jsonl", "ledger.jsonl"):
        (run / name).write_bytes((pair[0] / name).read_bytes())
    about = json.loads((pair[0] / "run.json").read_text())
    about["recoveries"] = ["</p><script>alert(2)</script>"]
    (run / "run.json").write_text(json.dumps(about))
    page = report(tmp_path / "r.html", run)
    assert page.tags["script"] == 1  # the page's own
    assert "</p><script>alert(2)</script>" in " ".join(page.texts)


def test_what_cannot_be(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        write_report([tmp_path], tmp_path / "r.html")
    with pytest.raises(StudyError, match="is no file"):
        write_report([pair[0]], tmp_path)
    with pytest.raises(StudyError, match="cannot be written"):
        write_report([pair[0]], pair[0] / "run.json" / "r.html")
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    for path in pair[0].glob("*.*"):
        (spoiled / path.name).write_bytes(path.read_bytes())
    (spoiled / "rounds.jsonl").write_text('{"phase": "train"}\n')
    with pytest.raises(RunDirectoryError, match=r"rounds\.jsonl"):
        write_report([spoiled], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
