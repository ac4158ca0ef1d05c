"""The host loop: deadlines count idle time, and end waits that nobody will answer."""

import threading
import time
from pathlib import Path

import pytest

from sheafnet.network.channel import Endpoint
from sheafnet.network.unix import UnixHub
from sheafnet.nodes.node import Node
from sheafnet.runtime.host import Host, Report
from sheafnet.runtime.plan import Plan, Stretch
from tests.conftest import MakeConfig

HOST_OF = {0: 0, 1: 0, 2: 1, 3: 1}


class StoppedHub(UnixHub):
    """Of a process that is stopped in its first wait till all mail has come; wakes to one frame."""

    DEADLINE_S = 0.5
    FRAMES = 3
    stopped = False
    left: list[bytes]

    def receive(self, timeout_s: float) -> list[bytes]:
        if self.stopped:
            left, self.left = self.left, []
            return left or super().receive(timeout_s)
        if timeout_s <= 0.0:
            return []  # it has not come yet
        type(self).stopped = True
        time.sleep(2 * self.DEADLINE_S)
        found: list[bytes] = []
        while len(found) < self.FRAMES:
            found += super().receive(0.1)
        self.left = found[1:]
        return found[:1]


def run_two(
    plan: Plan,
    folder: Path,
    stretch: Stretch,
    alone: bool = False,
    hub: type[UnixHub] = UnixHub,
) -> list[Report]:
    """Two hosts of two nodes in threads of this process, or only the first of them, with `hub`."""
    hubs = [kind(f"unix://{folder}/{k}", HOST_OF) for k, kind in enumerate((hub, UnixHub))]
    reports: dict[int, Report] = {}
    try:
        for k in (0, 1):
            hubs[k].connect({1 - k: hubs[1 - k].address})
        hosts = [Host(plan, Path("r"), [2 * k, 2 * k + 1], hubs[k]) for k in (0, 1)]

        def work(k: int) -> None:
            reports[k] = hosts[k].run(stretch)

        threads = [threading.Thread(target=work, args=(k,)) for k in ((0,) if alone else (0, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for hub in hubs:
            hub.close()
    return [reports[k] for k in sorted(reports)]


def test_computing_does_not_count_against_the_deadline(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, slow = Node.samples, []

    def slowly(self, split, events):
        slow.append(self.spec.id)
        end = time.perf_counter() + 0.12
        while time.perf_counter() < end:  # work, not a wait
            pass
        return samples(self, split, events)

    monkeypatch.setattr(Node, "samples", slowly)
    plan = Plan.open(tiny("run.deadline_s=0.6", "training.rounds=4"))
    reports = run_two(plan, tmp_path, Stretch("train", 0, 4))
    assert len(slow) == 16  # 4 nodes x 4 rounds: 0.96 s of work at each host, above the deadline
    records = [r for report in reports for node in report.records.values() for r in node.train]
    assert len(records) == 16
    assert sum(record.missed for record in records) == 0


def test_a_neighbour_that_never_answers_is_missed_in_every_round(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    plan = Plan.open(tiny("run.deadline_s=0.1", "training.rounds=3"))
    (report,) = run_two(plan, tmp_path, Stretch("train", 0, 3), alone=True)
    # Node a has edges to b, c, d; node b to a and c. c and d live in the silent host.
    assert [r.missed for r in report.records[0].train] == [2, 2, 2]
    assert [r.missed for r in report.records[1].train] == [1, 1, 1]
    assert report.failure is None


def test_what_has_come_is_not_missed_however_late_a_host_looks(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoppedHub, "stopped", False)
    plan = Plan.open(tiny(f"run.deadline_s={StoppedHub.DEADLINE_S}", "training.rounds=1"))
    reports = run_two(plan, tmp_path, Stretch("train", 0, 1), hub=StoppedHub)
    assert StoppedHub.stopped
    records = [r for report in reports for node in report.records.values() for r in node.train]
    assert [record.missed for record in records] == [0, 0, 0, 0]


def test_sending_has_its_share_of_the_time_of_its_steps(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(Plan.open(tiny("training.rounds=4")), Path("r"), [0, 1, 2, 3])
    for first in (0, 2):
        begin, spent = time.perf_counter(), time.thread_time()
        seconds = host.run(Stretch("train", first, 2)).seconds
        spent = time.thread_time() - spent
        assert seconds.compute > 0.0
        assert seconds.messaging > 0.0
        assert seconds.compute + seconds.messaging <= spent
        assert host._stepping_s <= time.perf_counter() - begin  # of this stretch alone

    # Had half the time of all steps gone to sending, so would half of their processor time.
    monkeypatch.setattr(Endpoint, "drain_seconds", lambda _: host._stepping_s / 8)
    seconds = host.run(Stretch("train", 4, 2)).seconds
    assert seconds.messaging == pytest.approx(seconds.compute)


def test_abort_ends_a_wait(tiny: MakeConfig, tmp_path: Path) -> None:
    plan = Plan.open(tiny("run.deadline_s=600"))
    hub = UnixHub(f"unix://{tmp_path}/0", HOST_OF)
    other = UnixHub(f"unix://{tmp_path}/1", HOST_OF)
    try:
        hub.connect({1: other.address})
        host = Host(plan, Path("r"), [0, 1], hub)
        reports: list[Report] = []
        thread = threading.Thread(target=lambda: reports.append(host.run(Stretch("train", 0, 1))))
        thread.start()
        assert other.receive(30.0)  # the host is under way and waits for its neighbours
        host.abort()
        thread.join(30.0)
        assert not thread.is_alive()
        assert reports[0].records[0].train == []
    finally:
        hub.close()
        other.close()
