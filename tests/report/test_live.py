"""A run watched from its directory: what is shown is what was logged."""

import io
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import sheafnet
from sheafnet.errors import RunDirectoryError
from sheafnet.report.live import Watched, watch
from sheafnet.runtime.loaded import load_run
from tests.conftest import MakeConfig

SLEEPS = (
    "faults={nodes: [{node: d, rounds: [2, 4]}], loss: 0.3, "
    "activity: {schedule: [{between: [a, c], every: 2}]}}"
)


def shown(watched: Watched, width: int = 120, height: int = 60) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(watched.view(width, height))
    return text.getvalue()


def test_it_shows_the_bytes_of_the_ledger(tiny: MakeConfig, tmp_path: Path) -> None:
    summary = sheafnet.simulate(tiny(), run_dir=tmp_path / "run").summary
    watched = Watched(tmp_path / "run")
    watched.look()
    c = summary.communication
    traffics = (c.train, c.evaluation, c.inference)
    assert watched.bytes == sum(traffic.bytes_total for traffic in traffics)
    for arrow in c.train.per_edge:
        assert watched.edges[arrow]["bytes"] == sum(t.per_edge[arrow].bytes_total for t in traffics)
    text = shown(watched)
    for node in "abcd":
        sent = sum(t.per_node[node].bytes_total for t in traffics)
        assert f"{sent:,}" in text
    last = load_run(tmp_path / "run").lines("train")[-1]
    assert f"{last['contrastive_per_edge'][0]:.3f}" in text
    assert "finished, inference round 4 of 4" in text


def test_it_follows_a_run_and_tells_what_fails(tiny: MakeConfig, tmp_path: Path) -> None:
    seen: list[str] = []
    run = tmp_path / "run"
    watched: list[Watched] = []

    def look(_: object) -> None:
        if not watched:
            watched.append(Watched(run))
        watched[0].look()
        seen.append(shown(watched[0]))

    sheafnet.simulate(tiny(SLEEPS, "run.stretch=1"), run_dir=run, on_progress=look)
    assert len(seen) == 6 + 1 + 4
    assert "train round 1 of 6" in seen[0]
    asleep = ["asleep" in text for text in seen[:6]]
    assert asleep == [False, False, True, True, False, False]
    assert "train round 2: node d sleeps" in seen[2]
    assert "train round 4: node d sleeps no longer" in seen[4]
    assert "train round 1: edge a~c is not there" in seen[1]
    whole = Watched(run)
    whole.look()
    assert whole.edges == watched[0].edges  # bit by bit it is the same
    lines = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]

    def count(edge: str, fate: str) -> int:
        return sum(k.get(fate, {}).get("messages", 0) for k in lines if k["edge"] == edge)

    failed = sum(count(edge, "sent") - count(edge, "delivered") for edge in ("a->b", "b->a"))
    assert failed > 0
    row = next(line for line in seen[-1].splitlines() if "a~b" in line)
    assert row.split("│")[4].strip() == f"{failed:,}"


def test_a_copy_is_no_failure(tiny: MakeConfig, tmp_path: Path) -> None:
    sheafnet.simulate(tiny("faults.duplication=0.5"), run_dir=tmp_path / "run")
    watched = Watched(tmp_path / "run")
    watched.look()
    assert any(sums["duplicated"] for sums in watched.edges.values())
    rows = [line for line in shown(watched).splitlines() if "~" in line]
    assert {row.split("│")[4].strip() for row in rows} == {"0"}


def test_without_a_ledger_by_edge_nothing_is_made_up(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("training.rounds=200", "run.directory_mb=0.33")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    watched = Watched(tmp_path / "run")
    watched.look()
    assert set(watched.edges) == {"*"}
    c = summary.communication
    total = c.train.bytes_total + c.evaluation.bytes_total + c.inference.bytes_total
    assert watched.edges["*"]["bytes"] == watched.bytes == total
    rows = [line for line in shown(watched).splitlines() if "a~b" in line]
    assert [row.split("│")[2].strip() for row in rows] == ["-"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 24), (120, 24)])
def test_what_happens_is_seen_in_any_terminal(
    tiny: MakeConfig, tmp_path: Path, width: int, height: int
) -> None:
    sheafnet.simulate(tiny(SLEEPS), run_dir=tmp_path / "run")
    watched = Watched(tmp_path / "run")
    watched.look()
    lines = shown(watched, width, height).splitlines()
    seen = " ".join(lines[:height])
    assert "inference round 3: edge a~c is not there" in " ".join(seen.split())
    assert "nodes" in seen
    assert len(lines) <= height + (8 if width == 40 else 0)  # where what happened takes two lines


def test_a_torn_line_waits_and_what_is_cut_off_is_forgotten(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    sheafnet.simulate(tiny(), run_dir=tmp_path / "run")
    path = tmp_path / "run" / "rounds.jsonl"
    whole = path.read_bytes()
    third = len(b"".join(whole.splitlines(keepends=True)[:3]))
    path.write_bytes(whole[: third + 20])
    watched = Watched(tmp_path / "run")
    watched.look()
    assert watched.round == 2
    path.write_bytes(whole)
    watched.look()
    assert (watched.phase, watched.round) == ("inference", 3)
    path.write_bytes(whole[:third])
    watched.look()
    assert (watched.phase, watched.round) == ("train", 2)
    assert watched.bytes == sum(json.loads(line)["bytes"] for line in whole.splitlines()[:3])


def test_many_rows_fit_into_a_small_terminal(tiny: MakeConfig, tmp_path: Path) -> None:
    graph = ("nodes=null", "edges=null", "graph={generator: ring, nodes: 30}", "training.rounds=1")
    sheafnet.simulate(tiny(*graph, "inference.rounds=0"), run_dir=tmp_path / "run")
    watched = Watched(tmp_path / "run")
    watched.look()
    text = shown(watched, height=20)
    assert len(text.splitlines()) <= 20
    assert "19 more" in text


def test_piped_it_is_shown_once(tiny: MakeConfig, tmp_path: Path) -> None:
    sheafnet.simulate(tiny(), run_dir=tmp_path / "run")
    command = [sys.executable, "-m", "sheafnet", "watch", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("nodes") == 1
    nothing = [*command[:-1], str(tmp_path)]
    done = subprocess.run(nothing, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == RunDirectoryError.exit_code
    assert "is not a run directory" in done.stderr


def test_a_run_that_nobody_is_at_is_not_waited_for(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    sheafnet.simulate(tiny(), run_dir=run)
    about = json.loads((run / "run.json").read_text()) | {"status": "running"}
    (run / "run.json").write_text(json.dumps(about))
    directory = load_run(run).directory
    assert not directory.held()  # a lock that was let go of is empty
    (run / "lock").write_text(f"process 999999999 on {platform.node()} since today\n")
    assert not directory.held()
    (run / "lock").write_text(f"process 1 on {platform.node()} since today\n")
    assert directory.held()
    (run / "lock").write_text("process 999999999 on another-machine since today\n")
    assert directory.held()
    (run / "lock").unlink()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    text = io.StringIO()
    watch(run, Console(file=text, force_terminal=True, width=100))
    assert "Nobody is at it" in text.getvalue()
