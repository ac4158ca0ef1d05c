"""Law 4: the bytes counted are the bytes sent, at both ends, in every figure that is printed."""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

import sheafnet
from sheafnet.errors import AccountingError
from sheafnet.network import switchboard
from sheafnet.network.frame import decode
from sheafnet.network.ledger import Account
from sheafnet.network.unix import UnixHub
from sheafnet.runtime.host import Host
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig


def ledger_sums(directory: Path, fate: str) -> Counter:
    sums: Counter = Counter()
    for line in RunDirectory.open(directory).lines("ledger"):
        for key, value in line.get(fate, {}).items():
            sums[line["phase"], key] += value
    return sums


def test_every_figure_is_the_length_of_the_buffers(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire: Counter = Counter()
    deliver = switchboard.Switchboard.deliver

    def tap(self, buffer):
        frame = decode(buffer)
        wire[frame.kind.phase, "messages"] += 1
        wire[frame.kind.phase, "bytes_total"] += len(buffer)
        wire[frame.kind.phase, "payload_bytes"] += len(frame.payload)
        deliver(self, buffer)

    monkeypatch.setattr(switchboard.Switchboard, "deliver", tap)
    summary = sheafnet.simulate(tiny(), run_dir=tmp_path / "run").summary
    for phase in ("train", "evaluation", "inference"):
        traffic = getattr(summary.communication, phase)
        for name in ("messages", "bytes_total", "payload_bytes"):
            assert getattr(traffic, name) == wire[phase, name] > 0
        parts = traffic.payload_bytes + traffic.framing_bytes + traffic.control_bytes
        assert parts == traffic.bytes_total
        assert sum(e.bytes_total for e in traffic.per_edge.values()) == traffic.bytes_total
        assert sum(n.bytes_total for n in traffic.per_node.values()) == traffic.bytes_total
        assert traffic.payload_bytes == traffic.floor_bytes
        assert all(n.payload_bytes == n.floor_bytes for n in traffic.per_node.values())
        assert traffic.framing_bytes <= 32 * traffic.messages
    inference = summary.communication.inference
    assert inference.bytes_per_inferred_sample == inference.bytes_total / summary.missing.missing


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_both_ends_of_every_edge_agree_between_actors(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("run.backend=ray", "run.nodes_per_actor=2")
    summary = sheafnet.simulate(config, run_dir=tmp_path / "run").summary
    sent, delivered = (ledger_sums(tmp_path / "run", fate) for fate in ("sent", "delivered"))
    assert sent == delivered
    train = summary.communication.train
    # By hand: 6 rounds x 10 directed edges x 16 rows x 4 dimensions x 4 bytes.
    assert train.payload_bytes == 6 * 10 * 16 * 4 * 4 == train.floor_bytes
    for phase in ("train", "evaluation", "inference"):
        traffic = getattr(summary.communication, phase)
        assert traffic.messages == sent[phase, "messages"]
        assert traffic.payload_bytes == sent[phase, "payload_bytes"]
        assert traffic.framing_bytes == sent[phase, "framing_bytes"]
        assert traffic.control_bytes == sent[phase, "control_bytes"]
    rounds = list(RunDirectory.open(tmp_path / "run").lines("rounds"))
    by_round = Counter()
    for line in rounds:
        by_round[line["phase"]] += line["bytes"]
    assert by_round["train"] == train.bytes_total
    assert by_round["inference"] == summary.communication.inference.bytes_total


class LossyHub(UnixHub):
    """Loses or damages chosen frames on their way out, and says that it did."""

    def __init__(self, *args: object, damage: bool) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.damage = damage
        self.hit: list[int] = []

    def send(self, node: int, buffer: bytes) -> None:
        if decode(buffer).round == 2 and not self.hit:
            self.hit.append(len(buffer))
            if not self.damage:
                return
            buffer = buffer[:60] + bytes([buffer[60] ^ 4]) + buffer[61:]
        super().send(node, buffer)


@pytest.mark.parametrize("damage", [False, True])
def test_a_lost_or_damaged_frame_is_missed_counted_and_survived(
    tiny: MakeConfig, tmp_path: Path, damage: bool
) -> None:
    config = tiny("run.deadline_s=0.5", "training.rounds=5")
    plan = Plan.open(config)
    host_of = {0: 0, 1: 0, 2: 1, 3: 1}
    hubs = [
        LossyHub(f"unix://{tmp_path}/0", host_of, damage=damage),
        UnixHub(f"unix://{tmp_path}/1", host_of),
    ]
    try:
        hubs[0].connect({1: hubs[1].address})
        hubs[1].connect({0: hubs[0].address})
        hosts = [
            Host(plan, Path("r"), nodes, hub)
            for nodes, hub in zip(([0, 1], [2, 3]), hubs, strict=True)
        ]
        reports: dict[int, object] = {}

        def work(k: int) -> None:
            reports[k] = hosts[k].run(Stretch("train", 0, 5))

        threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for hub in hubs:
            hub.close()
    assert hubs[0].hit  # the fault happened
    records = [r for report in reports.values() for r in report.records.values()]  # type: ignore[attr-defined]
    assert all(len(node.train) == 5 for node in records)
    # One frame is lost; whoever waits for the node that waits for it may miss a late one too.
    missed = sum(record.missed for node in records for record in node.train)
    assert missed >= 1
    account = Account()
    for report in reports.values():
        account.post(report.ledger)  # type: ignore[attr-defined]
    account.close()
    assert 1 <= account.lost <= missed
    assert reports[1].rejected == int(damage)  # type: ignore[attr-defined]


def test_a_byte_that_is_not_accounted_for_fails_the_run(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = switchboard.Switchboard.drain
    tampered = []

    def short(self):
        entries = drain(self)
        for at, (key, fate, messages, payload, framing, control) in enumerate(entries):
            if key.phase == "train" and key.round == 1 and fate == "delivered" and not tampered:
                entries[at] = (key, fate, messages, payload - 1, framing, control)
                tampered.append(key)
        return entries

    monkeypatch.setattr(switchboard.Switchboard, "drain", short)
    with pytest.raises(AccountingError, match="train round 1"):
        sheafnet.simulate(tiny(), run_dir=tmp_path / "run")
    assert tampered
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert not (tmp_path / "run" / "summary.json").exists()
