"""The command line as a user meets it: wrong input is one message and exit code 2."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from sheafnet import __main__ as entry
from sheafnet.cli import app
from tests.conftest import TINY, artifacts

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["sheafnet", *map(str, arguments)])
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        entry.main()
    return int(end.value.code or 0)


@pytest.fixture
def file(tmp_path: Path):
    """Write a YAML with changes to the tiny topology; returns its path."""

    def write(**changes: object) -> Path:
        path = tmp_path / "network.yaml"
        path.write_text(yaml.safe_dump(TINY | changes))
        return path

    return write


BAD = {
    "self-loop": ({"edges": [["a", "a"]]}, "edges.0", "itself"),
    "duplicate edge": ({"edges": [["a", "b"], ["b", "a"]]}, "edges.1", "edges.0"),
    "unknown node": ({"edges": [["a", "bb"]]}, "'bb'", "Did you mean 'b'"),
    "disconnected": ({"edges": [["a", "b"], ["c", "d"]]}, "2 parts", "Join"),
    "isolated": ({"edges": [["a", "b"], ["b", "c"]]}, "d has no edge", "join"),
    "d_ij zero": ({"defaults": {"edge": {"comparison_dim": 0}}}, "comparison_dim = 0", "from 1"),
    "d_ij large": ({"defaults": {"edge": {"comparison_dim": 65}}}, "comparison_dim = 65", "64"),
    "data set": ({"dataset": "overlap-mnsit"}, "overlap-mnsit", "Did you mean 'overlap-mnist'"),
    "data option": ({"dataset": {"name": "synthetic", "nose": 1}}, "dataset.nose", "'noise'"),
    "encoder": ({"defaults": {"node": {"encoder": "mlpp"}}}, "mlpp", "Did you mean 'mlp'"),
    "estimator": ({"inference": {"estimator": "rigde"}}, "inference.estimator", "'ridge'"),
    "temperature": ({"training": {"temperature": 0}}, "training.temperature = 0", "greater than 0"),
    "batch of 1": ({"training": {"batch_size": 1}}, "training.batch_size = 1", "2"),
    "unknown key": ({"trianing": {}}, "trianing", "Did you mean 'training'"),
    "rows": (
        {"dataset": "multiple-features", "training": {"batch_size": 5000}},
        "training.batch_size = 5000",
        "1400",
    ),
    "modality": (
        {"dataset": "multiview-mnist", "nodes": [{"id": "a", "modality": "sonar"}, "b", "c", "d"]},
        "sonar",
        "gradient",
    ),
    "method": ({"method": "imagebnd"}, "method.name = 'imagebnd'", "'imagebind'"),
    "hub": ({"method": {"name": "imagebind", "hub": "e"}}, "method.hub", "no node is called 'e'"),
    "hub of none": ({"method": {"name": "local", "hub": "a"}}, "method", "local has no hub"),
    "missing node": ({"inference": {"missing_nodes": ["e"]}}, "missing_nodes", "'e'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_with_place_and_remedy(
    case: str, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, *expected = BAD[case]
    runs_before = list(Path.cwd().glob("runs"))
    for command in (["validate"], ["simulate", "--topology"]):
        assert call(monkeypatch, *command, file(**changes)) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("sheafnet: ")
        assert len(output.err.strip().splitlines()) == 1
        assert "Traceback" not in output.err
        for part in expected:
            assert part in output.err
    assert list(Path.cwd().glob("runs")) == runs_before


def test_files_that_are_no_topology(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(TOPOLOGIES / "ring.yaml", tmp_path / "ring.yaml")
    assert call(monkeypatch, "validate", tmp_path / "rnig.yaml") == 2
    assert "ring.yaml?" in capsys.readouterr().err
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nedges: [a, b\n")
    assert call(monkeypatch, "validate", broken) == 2
    assert f"{broken}:" in capsys.readouterr().err


def test_bad_command_lines(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file()
    for arguments, expected in (
        (["simulate", "--topology", path, "--rounds", "-1"], "training.rounds = -1"),
        (["simulate", "--topology", path, "--nodes-per-actor", "0"], "nodes_per_actor = 0"),
        (["simulate", "--topology", path, "--nodes-per-actor", "many"], "nodes_per_actor"),
        (["simulate", "--topology", path, "--set", "nonsense"], "--set nonsense"),
        (["simulate", "--topology", path, "--backend", "spark"], "spark"),
        (["simulate", "--topology", path, "--method", "clip"], "method.name = 'clip'"),
        (["validate", path, "--method", "local", "--set", "method=all-pairs"], "drop one"),
        (["validate", path, "--method", "imagebind", "--set", "method.hub=x"], "'x'"),
        (["simulate", "--topology", path, "--run-dir", path], "exists already"),
        (["simulate", "--topology", path, "--run-dir", "/proc/x"], "/proc/x"),
        (["topology", "ring", "--nodes", "2"], "at least 3"),
        (["topology", "moebius", "--nodes", "9"], "moebius"),
        (["show", tmp_path], "not a run directory"),
        (["simulate", "--topology", path, "--fault-free"], "no faults"),
        (["simulate"], "--topology"),
    ):
        assert call(monkeypatch, *arguments) == 2, arguments
        output = capsys.readouterr()
        assert expected in output.err
        assert "Traceback" not in output.err


def test_a_run_directory_is_never_overwritten(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert call(monkeypatch, "simulate", "--topology", file(), "--run-dir", run) == 0
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert call(monkeypatch, "simulate", "--topology", file(), "--run-dir", run) == 2
    assert "never overwrites" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_text_json_and_show_tell_the_same(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ("simulate", "--topology", file(), "--run-dir", run, "--format", "json")
    assert call(monkeypatch, *arguments) == 0
    output = capsys.readouterr()
    summary = json.loads(output.out)
    assert output.err == ""
    assert summary == json.loads((run / "summary.json").read_text())
    assert call(monkeypatch, "show", run, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == summary
    monkeypatch.setenv("COLUMNS", "60")
    assert call(monkeypatch, "show", run) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.replace(str(run), "").splitlines())) <= 60
    for figure in (
        f"{summary['communication']['train']['payload_bytes']:,}",
        f"{summary['communication']['inference']['bytes_total']:,}",
        f"{summary['alignment']['recall_at_1']:.3f}",
        f"{summary['missing']['estimators']['ridge']['nmse']:.3f}",
        "finished",
    ):
        assert figure in text


def test_show_reads_a_run_that_broke_off(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert call(monkeypatch, "simulate", "--topology", file(), "--run-dir", run) == 0
    capsys.readouterr()
    (run / "summary.json").unlink()
    about = json.loads((run / "run.json").read_text()) | {"status": "interrupted"}
    (run / "run.json").write_text(json.dumps(about))
    with (run / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"phase":"train","rou')
    assert call(monkeypatch, "show", run) == 0
    text = capsys.readouterr().out
    assert "not finished" in text
    assert "interrupted" in text
    assert f"{6 * 10 * 16 * 4 * 4:,}" in text  # the payload of 6 rounds, counted by hand
    config = run / "config.yaml"
    config.write_text(config.read_text() + "key_of_another_version: 1\n")
    assert call(monkeypatch, "show", run) == 0
    text = capsys.readouterr().out
    assert "of another version" in text
    assert "interrupted" in text


def test_a_run_stands_beside_the_same_without_faults(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = tmp_path / "stormy", file()
    losses = ("--set", "faults.loss=0.5", "--set", "faults.retransmissions=1")
    monkeypatch.setenv("COLUMNS", "70")
    arguments = ("simulate", "--topology", path, "--run-dir", run, *losses, "--fault-free")
    assert call(monkeypatch, *arguments) == 0
    simulated = capsys.readouterr().out
    calm = run / "fault-free"
    assert call(monkeypatch, "simulate", "--topology", path, "--run-dir", tmp_path / "calm") == 0
    capsys.readouterr()
    assert artifacts(calm) == artifacts(tmp_path / "calm")
    assert call(monkeypatch, "show", calm, run) == 0
    told = capsys.readouterr().out
    assert simulated.endswith(told)
    assert max(map(len, told.splitlines())) <= 70
    first, second = (json.loads((p / "summary.json").read_text()) for p in (calm, run))
    rows = {
        cells[1]: cells[2:5]
        for cells in ([c.strip() for c in line.split("│")] for line in told.splitlines())
        if len(cells) > 4
    }
    sent = [s["communication"]["train"]["bytes_total"] for s in (first, second)]
    assert rows["bytes in training"] == [
        *(f"{n:,}" for n in sent),
        f"{(sent[1] / sent[0] - 1) * 100:+.1f}%",
    ]
    assert sent[1] > sent[0]
    recall = [s["alignment"]["recall_at_1"] for s in (first, second)]
    assert rows["recall@1"] == [*(f"{r:.3f}" for r in recall), f"{recall[1] - recall[0]:+.3f}"]
    nmse = [s["missing"]["estimators"]["ridge"]["nmse"] for s in (first, second)]
    assert rows["NMSE of what was missing"][:2] == [f"{v:.3f}" for v in nmse]
    fates = [second["communication"][phase]["fates"] for phase in ("train", "inference")]
    for fate in ("sent", "delivered", "dropped", "missed"):
        assert rows[f"messages {fate}"][1] == f"{sum(f[fate]['messages'] for f in fates):,}"
    assert rows["messages dropped"][0] == "0"
    assert rows["messages dropped"][1] != "0"
    assert rows["messages sent"][0] == rows["messages delivered"][0] != "0"
    assert call(monkeypatch, "show", calm, run, calm, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == [first, second, first]


def test_a_run_that_broke_off_stands_beside_none(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    for run in runs:
        assert call(monkeypatch, "simulate", "--topology", file(), "--run-dir", run) == 0
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "300")
    assert call(monkeypatch, "show", *runs) == 0
    text = capsys.readouterr().out
    assert all(str(run) in text for run in runs)  # one name is not enough
    (runs[1] / "summary.json").unlink()
    assert call(monkeypatch, "show", *runs) == 2
    output = capsys.readouterr()
    assert f"{runs[1]}: is not finished" in output.err
    assert "Traceback" not in output.err


def test_the_method_of_the_command_line_goes_before_that_of_the_file(
    file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(method={"name": "imagebind", "hub": "c"})
    for arguments, expected in (
        ([], "method: imagebind, hub c"),
        (["--method", "all-pairs"], "method: all-pairs\n"),
        (["--method", "concat-supervised"], "method: concat-supervised, hub a"),
        (["--method", "imagebind", "--set", "method.hub=d"], "method: imagebind, hub d"),
        (["--set", "method.hub=d"], "method: imagebind, hub d"),
    ):
        assert call(monkeypatch, "validate", path, *arguments) == 0
        assert expected in capsys.readouterr().out


def test_a_diverging_loss_names_node_edge_and_round_and_keeps_the_rounds_before(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    path = file(
        training={"rounds": 50, "batch_size": 16, "optimizer": "sgd", "learning_rate": 1e30}
    )
    assert call(monkeypatch, "simulate", "--topology", path, "--run-dir", run) == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    for part in ("node ", "edge ", "round ", "learning_rate"):
        assert part in message
    assert json.loads((run / "run.json").read_text())["status"] == "diverged"
    assert (run / "rounds.jsonl").read_text().count("\n") >= 1


def test_arrays_of_the_user(
    tmp_path: Path, file, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's own two modalities: trained, and refused when they are not usable."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 4
    sound = generator.normal(size=(400, 10)) + labels[:, None]
    np.save(folder / "labels.npy", labels)
    np.save(folder / "sound.npy", sound)
    np.save(folder / "light.npy", sound[:, :6] * 2 + generator.normal(size=(400, 6)))
    changes = {
        "dataset": {"name": "arrays", "path": str(folder)},
        "nodes": [{"id": "ear", "modality": "sound"}, {"id": "eye", "modality": "light"}],
        "edges": [["ear", "eye"]],
    }
    run = tmp_path / "run"
    assert call(monkeypatch, "simulate", "--topology", file(**changes), "--run-dir", run) == 0
    capsys.readouterr()
    bad = sound.copy()
    bad[7, 2] = np.nan
    for name, values, expected in (
        ("sound", bad, "row 7"),
        ("sound", sound[:300], "300"),
        ("labels", labels * 1.5, "labels.npy"),
    ):
        good = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", values)
        assert call(monkeypatch, "validate", file(**changes)) == 2
        message = capsys.readouterr().err
        assert f"{name}.npy" in message
        assert expected in message
        np.save(folder / f"{name}.npy", good)


def test_generated_topologies_are_valid_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("ring", "complete", "star", "grid", "line", "knn", "random-regular", "small-world")
    for kind in kinds:
        path = tmp_path / f"{kind}.yaml"
        assert call(monkeypatch, "topology", kind, "--nodes", "12", "-o", path) == 0
        assert call(monkeypatch, "validate", path) == 0
        assert "nodes: 12" in capsys.readouterr().out
        assert call(monkeypatch, "topology", kind, "--nodes", "12", "-o", path) == 2
        assert "exists already" in capsys.readouterr().err


DOWNLOADED = {"deepsense"}
"""Shipped topologies of data that cannot be bundled."""


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(TOPOLOGIES.glob("*.yaml")) if path.stem not in DOWNLOADED],
    ids=lambda p: p.stem,
)
def test_shipped_topologies_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("simulate", "--topology", path, "--run-dir", tmp_path / "run", "--backend", "local"),
        *("--rounds", 3, "--format", "json", "--set", "inference.rounds=2"),
        *("--set", "evaluation.gallery=100", "--set", "evaluation.support=200"),
    ]
    assert call(monkeypatch, *arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["topology"] == path.stem
    assert summary["communication"]["train"]["rounds"] == 3


def test_a_topology_of_data_to_download_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in DOWNLOADED:
        assert call(monkeypatch, "validate", TOPOLOGIES / f"{name}.yaml") == 2
        message = " ".join(capsys.readouterr().err.split())
        assert "download a scenario from https://www.deepsense6g.net" in message
        assert "unzip it, and name the folder" in message


def test_datasets_are_listed_with_licences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "datasets", "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {
        "overlap-mnist",
        "multiview-mnist",
        "multiple-features",
        "spoken-digits",
        "wrist-imu",
        "synthetic",
        "arrays",
        "deepsense",
    }
    assert all(entry["licence"] and entry["modalities"] for entry in listed.values())
    assert call(monkeypatch, "datasets") == 0
    assert "overlap-mnist" in capsys.readouterr().out


def on_terminal(folder: Path, *arguments: object) -> bytes:
    """What the command, which must succeed, writes on a pseudo-terminal of 70 columns."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sheafnet", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "70"},
        stdin=inside,
        stdout=inside,
        stderr=inside,
    )
    os.close(inside)
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(terminal)
    assert process.wait() == 0, text.decode()
    return text


def test_a_terminal_gets_a_progress_bar(tmp_path: Path, file) -> None:
    """On a pseudo-terminal, since the bar is not drawn into pipes."""
    chosen = ("--run-dir", "run", "--set", "training.learning_rate=1e-9")
    text = on_terminal(tmp_path, "simulate", "--topology", file(), *chosen)
    for part in (b"train", b"6/6", b"loss", b"inference", b"4/4", b"Missing modalities"):
        assert part in text
    running, _, tables = text.partition(b"Bytes between nodes")
    for place in (running, tables):
        assert place.count(b"contrast-at-chance: ") == 1


def test_a_terminal_is_shown_a_run_as_it_goes(tmp_path: Path, file) -> None:
    asleep = {"nodes": [{"node": "d", "rounds": [2, 4], "phase": "train"}]}
    chosen = ("--run-dir", "run", "--set", "run.stretch=1", "--live")
    text = on_terminal(tmp_path, "simulate", "--topology", file(faults=asleep), *chosen)
    running, _, _ = text.partition(b"Bytes between nodes")
    for part in (b"a~b", b"c~d", b"not delivered", b"at work", b"asleep", b"train round 3 of 6"):
        assert part in running
    assert running.index(b"train round 2: node d sleeps") < running.index(
        b"node d sleeps no longer"
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    whole = sum(
        summary["communication"][phase]["bytes_total"]
        for phase in ("train", "evaluation", "inference")
    )
    assert f"{whole:,} bytes".encode() in running


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("simulate --topology r", ["ring"]),
        ("validate w", ["wrist-imu", "wrist-imu-pair"]),
        ("compare --topology ./r", []),
        ("sweep --over training.tem", ["training.temperature="]),
        ("simulate --set run.see", ["run.seed="]),
        ("simulate --method im", ["imagebind"]),
        ("sim", ["simulate"]),
        ("simulate --li", ["--live"]),
    ],
)
def test_the_shell_is_offered_what_can_follow(typed: str, offered: list[str]) -> None:
    words = f"sheafnet {typed}"
    asked = {
        "_SHEAFNET_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    found = CliRunner().invoke(app, [], prog_name="sheafnet", env=asked)
    assert found.exit_code == 0
    assert sorted(found.stdout.split()) == offered
