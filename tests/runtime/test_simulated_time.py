"""Whole runs over links with profiles, on the tiny network: a-b, a-c, a-d, b-c, c-d.

A training projection there has 16 rows of 4 dimensions in float32, 256 bytes, and 22 of framing.
"""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import sheafnet
from sheafnet.network.frame import Kind
from sheafnet.network.radio import Sending
from sheafnet.runtime.keep import Keep, least_bytes
from sheafnet.runtime.loaded import load_run
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import Traffic
from sheafnet.studies.tables import print_run
from tests.conftest import STORM, TINY, MakeConfig, artifacts, of_phase, run_artifacts
from tests.runtime.test_cli import call

BITS = 8 * (256 + 22)
LINK = (
    "{name: x, bandwidth_bps: 1000, latency_s: 0.5, send_j_per_bit: 2e-3, receive_j_per_bit: 1e-3}"
)
OWN = (f"links=[{LINK}]", "defaults.edge.link=x")
DEGREES = {"a": 3, "b": 2, "c": 3, "d": 2}


def traffic_of(config: Any, folder: Path, phase: str = "train") -> Traffic:
    found = getattr(sheafnet.simulate(config, run_dir=folder).summary.communication, phase)
    assert isinstance(found, Traffic)
    return found


def test_training_takes_what_its_busiest_nodes_take(tiny: MakeConfig, tmp_path: Path) -> None:
    """a and c have three edges, so six messages a round; there is an order without a gap."""
    radio = traffic_of(tiny(*OWN), tmp_path / "run").radio
    assert radio is not None
    each = 6 * BITS / 1000 + 0.5
    assert radio.seconds == pytest.approx(6 * each)
    assert radio.seconds_per_round == pytest.approx(each)
    assert radio.joules == pytest.approx(6 * 10 * BITS * 3e-3)
    for name, degree in DEGREES.items():
        node = radio.per_node[name]
        assert node.joules == pytest.approx(6 * degree * BITS * 3e-3)
        assert node.busy_seconds == pytest.approx(6 * 2 * degree * BITS / 1000)
    lines = of_phase(list(RunDirectory.open(tmp_path / "run").lines("rounds")), "train")
    for line in lines:
        assert line["seconds"] == pytest.approx(each)
        assert line["joules_per_node"] == pytest.approx(
            [degree * BITS * 3e-3 for degree in DEGREES.values()]
        )
        assert line["joules"] == pytest.approx(10 * BITS * 3e-3)


def test_energy_is_that_of_the_bytes_counted(tiny: MakeConfig, tmp_path: Path) -> None:
    """Without faults every bit is sent once and heard once, in every phase."""
    config = tiny(*OWN, "evaluation.every=3")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    lines = list(RunDirectory.open(tmp_path / "run").lines("rounds"))
    for phase in ("train", "evaluation", "inference"):
        traffic = getattr(summary.communication, phase)
        assert traffic.radio.joules == pytest.approx(8 * traffic.bytes_total * 3e-3)
        found = of_phase(lines, phase)
        assert sum(line["seconds"] for line in found) == pytest.approx(traffic.radio.seconds)
        assert sum(line["joules"] for line in found) == pytest.approx(traffic.radio.joules)
    halfway, last = of_phase(lines, "evaluation")
    assert last["train_seconds"] == pytest.approx(summary.communication.train.radio.seconds)
    assert halfway["train_seconds"] == pytest.approx(last["train_seconds"] / 2)
    assert halfway["train_joules"] == pytest.approx(last["train_joules"] / 2)


def test_links_change_nothing_else(tiny: MakeConfig, tmp_path: Path) -> None:
    plain = run_artifacts(tiny("evaluation.every=3"), tmp_path / "plain")
    linked = run_artifacts(tiny("evaluation.every=3", *OWN), tmp_path / "linked")
    for phase in ("train", "evaluation", "inference"):
        assert linked["summary"]["communication"][phase].pop("radio")["seconds"] > 0
        assert "radio" not in plain["summary"]["communication"][phase]
    for line in linked["rounds"]:
        for key in ("seconds", "joules", "joules_per_node"):
            del line[key]
        for key in ("train_seconds", "train_joules"):
            line.pop(key, None)
    counted = [json.loads(line) for line in linked.pop("ledger")]
    assert all(line.pop("radio")["seconds"] > 0 for line in counted)
    assert counted == [json.loads(line) for line in plain.pop("ledger")]
    assert linked == plain


def test_the_loss_of_a_link_is_the_loss_of_faults(tiny: MakeConfig, tmp_path: Path) -> None:
    """The same draws, and so the same artifacts, but for what the links take."""
    lossy = f"links=[{LINK[:-1]}, loss: 0.3}}]"
    linked = run_artifacts(tiny(lossy, "defaults.edge.link=x"), tmp_path / "linked")
    faulty = run_artifacts(tiny(*OWN, "faults.loss=0.3"), tmp_path / "faulty")
    fates = faulty["summary"]["communication"]["train"]["fates"]
    assert fates["dropped"]["messages"] > 5
    assert linked == faulty


def test_dropped_and_repeated_messages(tiny: MakeConfig, tmp_path: Path) -> None:
    """Only a->b loses, all it sends: three transmissions of six messages, none of them heard. They
    keep a busy for two messages more each round."""
    lossy = "faults={edges: [{from_to: [a, b], loss: 1.0}], retransmissions: 2, phases: [train]}"
    radio = traffic_of(tiny(*OWN, lossy), tmp_path / "run").radio
    assert radio is not None
    assert radio.seconds == pytest.approx(6 * (8 * BITS / 1000 + 0.5))
    assert radio.per_node["a"].joules == pytest.approx(6 * BITS * (5 * 2e-3 + 3 * 1e-3))
    assert radio.per_node["b"].joules == pytest.approx(6 * BITS * (2 * 2e-3 + 1 * 1e-3))
    assert radio.per_node["c"].joules == pytest.approx(6 * BITS * 3 * 3e-3)


@pytest.mark.parametrize("by_edge", [True, False])
def test_the_ledger_tells_what_every_edge_took(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_edge: bool
) -> None:
    """A projection in each direction and round; of a->b three transmissions, none of them heard."""
    if not by_edge:
        within = Keep.within
        monkeypatch.setattr(
            Keep, "within", lambda *args: replace(within(*args), ledger_by_edge=False)
        )
    lossy = "faults={edges: [{from_to: [a, b], loss: 1.0}], retransmissions: 2, phases: [train]}"
    sheafnet.simulate(tiny(*OWN, lossy), run_dir=tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    ledger = of_phase(list(run.lines("ledger")), "train")
    once = {"seconds": BITS / 1000, "send_joules": BITS * 2e-3, "receive_joules": BITS * 1e-3}
    thrice = {"seconds": 3 * BITS / 1000, "send_joules": 3 * BITS * 2e-3, "receive_joules": 0.0}
    if by_edge:
        assert len(ledger) == 6 * 10
        for line in ledger:
            assert line["radio"] == pytest.approx(thrice if line["edge"] == "a->b" else once)
    else:
        assert [line["edge"] for line in ledger] == ["*"] * 6
        for line in ledger:
            assert line["radio"] == pytest.approx({k: 9 * once[k] + thrice[k] for k in once})


def test_the_ledger_and_the_rounds_took_the_same(tiny: MakeConfig, tmp_path: Path) -> None:
    sheafnet.simulate(tiny(*OWN, STORM), run_dir=tmp_path / "run")
    run, found = RunDirectory.open(tmp_path / "run"), Counter[tuple[str, int]]()
    for line in run.lines("ledger"):
        radio = line["radio"]
        found[line["phase"], line["round"]] += radio["send_joules"] + radio["receive_joules"]
    rounds = {(n["phase"], n["round"]): n["joules"] for n in run.lines("rounds")}
    assert len(rounds) > 10
    assert dict(found) == pytest.approx(rounds)


def test_a_node_that_sleeps_takes_nothing(tiny: MakeConfig, tmp_path: Path) -> None:
    """d sends and hears nothing; a and c send to it in vain."""
    config = tiny(*OWN, "faults={nodes: [{node: d, rounds: [0, null]}]}")
    radio = traffic_of(config, tmp_path / "run").radio
    assert radio is not None
    assert radio.per_node["d"].joules == 0.0
    assert radio.per_node["b"].joules == pytest.approx(6 * BITS * 2 * 3e-3)
    assert radio.per_node["a"].joules == pytest.approx(6 * BITS * (3 * 2e-3 + 2 * 1e-3))


def test_gradients_and_answers_are_second(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the endpoints note is what the ledger counts, of the kinds of each phase."""
    noted: list[tuple[str, Sending]] = []
    from sheafnet.network.radio import RadioAccount

    enter = RadioAccount.enter

    def spy(self: RadioAccount, phase: Any, rounds: range, sendings: Any) -> Any:
        found = list(sendings)
        noted.extend((phase, sending) for sending in found)
        return enter(self, phase, rounds, found)

    monkeypatch.setattr(RadioAccount, "enter", spy)
    full = ("training.exchange_gradients=true", "training.reconstruction_gradient=full")
    summary = sheafnet.simulate(tiny(*OWN, *full, STORM), run_dir=tmp_path / "run").summary
    kinds = {
        "train": {Kind.PROJECTION, Kind.GRADIENT},
        "evaluation": {Kind.GALLERY, Kind.PROTOTYPES},
        "inference": {Kind.REQUEST, Kind.ANSWER},
    }
    for phase, expected in kinds.items():
        of = [sending for at, sending in noted if at == phase]
        traffic = getattr(summary.communication, phase)
        assert {sending.kind for sending in of} == expected
        assert sum(s.sent * s.size for s in of) == traffic.bytes_total
        heard = sum(s.heard * s.size for s in of)
        got = ("delivered", "late", "rejected", "duplicated")
        assert heard == sum(traffic.fates[fate].bytes_total for fate in got)
        assert heard != traffic.bytes_total or phase == "evaluation"


def test_without_energy_there_are_seconds_only(tiny: MakeConfig, tmp_path: Path) -> None:
    result = sheafnet.simulate(tiny("defaults.edge.link=5g"), run_dir=tmp_path / "run")
    radio = result.summary.communication.train.radio
    assert radio is not None
    assert radio.seconds == pytest.approx(6 * (6 * BITS / 50e6 + 0.008))
    assert radio.joules is None
    (line, *_) = RunDirectory.open(tmp_path / "run").lines("ledger")
    assert line["radio"] == {
        "seconds": pytest.approx(BITS / 50e6), "send_joules": None, "receive_joules": None,
    }  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["communication"]["train"]["radio"]["joules"] is None
    console = Console(width=80, file=io.StringIO(), record=True)
    print_run(console, load_run(tmp_path / "run"))
    (row,) = [line for line in console.export_text().splitlines() if line.startswith("│ joules  ")]
    assert row.replace(" ", "") == "│joules│-│-│-│"


def test_the_tables_tell_time_and_energy(tiny: MakeConfig, tmp_path: Path) -> None:
    sheafnet.simulate(tiny(*OWN), run_dir=tmp_path / "run")
    console = Console(width=80, file=io.StringIO(), record=True)
    print_run(console, load_run(tmp_path / "run"))
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in console.export_text().splitlines()
        if len(cells := line.split("│")) > 3
    }
    assert rows["seconds"] == f"{6 * (6 * BITS / 1000 + 0.5):.4g}"
    assert rows["seconds per round"] == f"{6 * BITS / 1000 + 0.5:.4g}"
    assert rows["joules"] == f"{6 * 10 * BITS * 3e-3:.4g}"
    assert rows["joules, highest node"] == f"{6 * 3 * BITS * 3e-3:.4g}"


def test_runs_side_by_side(
    tiny: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half the energy of a bit, and no energy at all; a run without links has neither."""
    half = LINK.replace("2e-3", "1e-3").replace("1e-3}", "5e-4}").replace("0.5, s", "1.0, s")
    for name, given in (
        ("x", OWN),
        ("half", (f"links=[{half}]", "defaults.edge.link=x")),
        ("plain", ()),
    ):
        sheafnet.simulate(tiny(*given), run_dir=tmp_path / name)
    monkeypatch.setenv("COLUMNS", "120")
    assert call(monkeypatch, "show", tmp_path / "x", tmp_path / "half") == 0
    told = [line.split("│") for line in capsys.readouterr().out.splitlines()]
    rows = {cells[1].strip(): [c.strip() for c in cells[2:5]] for cells in told if len(cells) > 4}
    seconds = 6 * 6 * BITS / 1000
    assert rows["seconds of training"] == [
        f"{seconds + 3:.6g}",
        f"{seconds + 6:.6g}",
        f"{3 / (seconds + 3):+.1%}",
    ]
    joules = 6 * 10 * BITS * 3e-3
    assert rows["joules of training"] == [f"{joules:.6g}", f"{joules / 2:.6g}", "-50.0%"]
    assert call(monkeypatch, "show", tmp_path / "plain", tmp_path / "plain") == 0
    assert "seconds of" not in capsys.readouterr().out


def test_validate_counts_the_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(TINY))
    own = "edges.1={between: [b, c], link: lora}"
    assert call(monkeypatch, "validate", path, "--set", own, "--set", "defaults.edge.link=ble") == 0
    assert "  links: ble x 4, lora x 1\n" in capsys.readouterr().out
    assert call(monkeypatch, "validate", path) == 0
    assert "links:" not in capsys.readouterr().out


def test_a_run_directory_has_room_for_the_energy_of_every_round(tiny: MakeConfig) -> None:
    plain, linked = (Plan.open(tiny(*given)) for given in ((), OWN))
    rounds = 6 + 1 + 4
    assert least_bytes(linked) - least_bytes(plain) == rounds * (4 * 14 + 90)


@pytest.mark.parametrize("method", ["{name: imagebind, hub: b}", "local", "concat-supervised"])
def test_other_methods(tiny: MakeConfig, tmp_path: Path, method: str) -> None:
    config = tiny(*OWN, f"method={method}")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    for phase in ("train", "evaluation", "inference"):
        traffic = getattr(summary.communication, phase)
        assert traffic.radio.joules == pytest.approx(8 * traffic.bytes_total * 3e-3)
        assert (traffic.radio.seconds > 0) is (traffic.messages > 0)
    if method == "concat-supervised":
        # The hub hears three sections in turn and then returns three gradients: 16 x 8 float32.
        bits = 8 * (512 + 22)
        per_round = summary.communication.train.radio.seconds_per_round
        assert per_round == pytest.approx(3 * bits / 1000 + 0.5 + 3 * bits / 1000 + 0.5)


@pytest.mark.long
@pytest.mark.ray
def test_actors_take_the_same_time(tiny: MakeConfig, tmp_path: Path) -> None:
    """Law 1, under faults of all kinds, to the order of the lines."""
    chosen = [*OWN, STORM, "run.stretch=2"]
    local = run_artifacts(tiny(*chosen), tmp_path / "local")
    packed = tiny(*chosen, "run.backend=ray", "run.nodes_per_actor=3")
    assert run_artifacts(packed, tmp_path / "packed") == local
    assert artifacts(tmp_path / "local")["summary"]["communication"]["train"]["radio"]["joules"] > 0
