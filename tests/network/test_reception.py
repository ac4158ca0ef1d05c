"""Two endpoints on a simulated link: which frames, which fate, which bytes.

One edge, a - b with d_ij 2, ten rows: a projection has 10 x 2 x 4 bytes of payload and 21 of
framing (1 array, 1 head, 5 run, 1 incarnation, 1 round, 1 edge, 1 direction, 1 dtype, 1 rows,
1 nil, 2 bin, 5 checksum).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sheafnet.config import Config
from sheafnet.network.channel import Endpoint, Limits
from sheafnet.network.frame import Kind, run_tag
from sheafnet.network.ledger import Account, Entry, Key, Line
from sheafnet.network.links import Links
from sheafnet.network.payload import WireDtype
from sheafnet.network.switchboard import Switchboard
from sheafnet.topology import Topology, build_topology
from sheafnet.validation import check_model

A, B, AB = 0, 1, 0
ROWS, PAYLOAD, FRAMING = 10, 80, 21
SIZE = (1, PAYLOAD, FRAMING, 0)
LIMITS = Limits(
    run_tag(1),
    {Kind.PROJECTION: ROWS, Kind.REQUEST: ROWS, Kind.ANSWER: ROWS},
    dict.fromkeys((Kind.PROJECTION, Kind.ANSWER), WireDtype.FLOAT32),
)


class Pair:
    """a and b on one switchboard; what either sends is held until it is delivered."""

    def __init__(self, **faults: Any) -> None:
        values = {
            "name": "pair",
            "dataset": "synthetic",
            "nodes": ["a", "b"],
            "edges": [{"between": ["a", "b"], "comparison_dim": 2}],
            "faults": faults,
        }
        config = check_model(Config, values)
        self.network: Topology = build_topology(config)
        self.links = Links(config, self.network)
        self.held: list[bytes] = []
        self.board = Switchboard(self.network)
        self.ends = [
            Endpoint(self.network, node, LIMITS, self, links=self.links) for node in (A, B)
        ]
        for end in self.ends:
            self.board.attach(end)

    def send(self, node: int, buffer: bytes) -> None:
        """A transport that delivers nothing of its own accord."""
        del node
        self.held.append(buffer)

    def project(self, round_: int = 0, sender: int = A) -> int:
        """A projection from `sender`; how many frames went out."""
        before = len(self.held)
        self.ends[sender].send(AB, Kind.PROJECTION, round_, np.ones((ROWS, 2), np.float32))
        return len(self.held) - before

    def deliver(self) -> None:
        for buffer in self.held:
            self.board.deliver(buffer)
        self.held.clear()

    def entries(self) -> list[Entry]:
        return self.board.drain()


def counts(entries: Sequence[Entry]) -> dict[str, tuple[int, ...]]:
    return {fate: tuple(numbers) for _, fate, *numbers in entries}


AWAITED = [(AB, Kind.PROJECTION, 0)]


def test_a_projection_is_as_long_as_worked_out_by_hand() -> None:
    pair = Pair()
    assert pair.project() == 1
    assert len(pair.held[0]) == PAYLOAD + FRAMING
    assert not pair.ends[B].arrived(AWAITED)
    pair.deliver()
    assert pair.ends[B].arrived(AWAITED)
    assert list(pair.ends[B].take(AWAITED)) == [AB]
    assert counts(pair.entries()) == {"sent": SIZE, "delivered": SIZE}


@pytest.mark.parametrize(
    ("fault", "fate"), [("loss", "dropped"), ("corruption", "rejected"), ("delay", "late")]
)
def test_what_does_not_get_through_is_counted_once_it_is_missed(fault: str, fate: str) -> None:
    pair = Pair(**{fault: 1.0})
    assert pair.project() == 1
    assert not pair.ends[B].arrived(AWAITED), "b waits for the transmission, not for a clock"
    pair.deliver()
    assert pair.ends[B].arrived(AWAITED)
    assert counts(pair.entries()) == {"sent": SIZE}, "told in its own round, not before"
    assert pair.ends[B].take(AWAITED) == {}
    told = pair.entries()
    assert counts(told) == {"missed": (1, 0, 0, 0), fate: SIZE}
    assert {key for key, *_ in told} == {Key("train", 0, AB, 0)}
    assert pair.board.rejected == 0, "no stranger was there"


def test_a_duplicate_is_used_once_and_counted_beside_the_balance() -> None:
    pair = Pair(duplication=1.0)
    assert pair.project() == 1
    pair.deliver()
    assert list(pair.ends[B].take(AWAITED)) == [AB]
    entries = pair.entries()
    assert counts(entries) == {"sent": SIZE, "delivered": SIZE, "duplicated": SIZE}
    account = Account()
    account.post(entries)
    assert len(list(account.settle())) == 1


@pytest.mark.parametrize("retransmissions", [0, 1, 4])
def test_every_retransmission_is_sent_and_its_bytes_count(retransmissions: int) -> None:
    pair = Pair(loss=1.0, retransmissions=retransmissions)
    tries = 1 + retransmissions
    assert pair.project() == tries
    assert len(set(pair.held)) == 1, "the same buffer each time"
    pair.deliver()
    pair.ends[B].take(AWAITED)
    whole = (tries, tries * PAYLOAD, tries * FRAMING, 0)
    assert counts(pair.entries()) == {"sent": whole, "missed": (1, 0, 0, 0), "dropped": whole}


def test_a_second_attempt_gets_through_where_the_first_was_lost() -> None:
    pair = Pair(loss=0.5, retransmissions=1)
    lots = [pair.links.attempts(Kind.PROJECTION, r, AB, 0) for r in range(50)]
    round_ = lots.index(("dropped", "delivered"))
    assert pair.project(round_) == 2
    address = [(AB, Kind.PROJECTION, round_)]
    pair.board.deliver(pair.held.pop())
    assert not pair.ends[B].arrived(address)
    pair.deliver()
    assert list(pair.ends[B].take(address)) == [AB]
    twice = (2, 2 * PAYLOAD, 2 * FRAMING, 0)
    assert counts(pair.entries()) == {"sent": twice, "delivered": SIZE, "dropped": SIZE}


def test_a_frame_that_comes_a_stretch_early_is_rejected_in_its_own() -> None:
    """b reports between the arrival of a damaged frame and the round that it belongs to: the line
    stays whole, and settles with that round."""
    pair = Pair(corruption=1.0)
    pair.project(round_=1)
    sent = pair.entries()
    pair.deliver()
    assert pair.entries() == [], "nothing of a round that has not been yet"
    assert pair.ends[B].take([(AB, Kind.PROJECTION, 1)]) == {}
    account = Account()
    account.post([*sent, *pair.entries()])
    (line,) = account.settle()
    assert line.of("rejected") == line.of("sent") == SIZE
    assert account.close() == []
    assert account.lost == 0
    assert account.fates["train", "rejected"] == SIZE


def test_a_sleeper_misses_nothing_and_drops_what_comes() -> None:
    pair = Pair(nodes=[{"node": "b", "rounds": [0, 1]}])
    assert pair.project(sender=B) == 0
    assert pair.ends[A].arrived(AWAITED), "nobody waits for who sleeps"
    assert pair.ends[A].take(AWAITED) == {}
    assert counts(pair.entries()) == {"missed": (1, 0, 0, 0)}
    assert pair.project() == 1
    pair.deliver()
    assert pair.ends[B].take(AWAITED) == {}
    assert counts(pair.entries()) == {"sent": SIZE, "dropped": SIZE}
    assert pair.project(1, sender=B) == 1


def test_nothing_is_sent_over_an_edge_that_is_not_there() -> None:
    pair = Pair(activity={"schedule": [{"between": ["a", "b"], "every": 2, "offset": 1}]})
    assert [pair.project(round_) for round_ in range(4)] == [0, 1, 0, 1]


def test_the_frames_of_strangers_do_not_pass_for_transmissions() -> None:
    """A frame of another run is refused, and the true one still meets the first fate."""
    pair, other = Pair(loss=1.0), Pair()
    stranger = Endpoint(other.network, A, Limits(run_tag(2), LIMITS.rows, LIMITS.dtypes), pair)
    stranger.send(AB, Kind.PROJECTION, 0, np.ones((ROWS, 2), np.float32))
    pair.deliver()
    assert pair.board.rejected == 1
    assert not pair.ends[B].arrived(AWAITED)
    pair.project()
    pair.deliver()
    assert pair.ends[B].take(AWAITED) == {}
    told = counts(pair.entries())
    assert told["dropped"] == told["sent"] == told["rejected"] == SIZE


def test_a_replayed_frame_does_not_undo_a_loss() -> None:
    pair = Pair(loss=1.0)
    pair.project()
    replay = pair.held[0]
    pair.deliver()
    pair.board.deliver(replay)
    assert pair.ends[B].take(AWAITED) == {}
    pair.board.deliver(replay)
    told = counts(pair.entries())
    assert told["dropped"] == SIZE
    assert told["rejected"] == told["duplicated"] == SIZE
    assert "delivered" not in told


@pytest.mark.parametrize(
    ("faults", "fate"), [({"loss": 1.0}, "dropped"), ({}, "late"), ({"delay": 1.0}, "late")]
)
def test_a_real_deadline_and_a_simulated_fault_balance_together(
    faults: dict[str, Any], fate: str
) -> None:
    """b gave up waiting, and the transmission comes after all."""
    pair = Pair(**faults)
    pair.project()
    assert pair.ends[B].take(AWAITED) == {}
    pair.deliver()
    entries = pair.entries()
    assert counts(entries) == {"sent": SIZE, "missed": (1, 0, 0, 0), fate: SIZE}
    account = Account()
    account.post(entries)
    assert [line.key for line in account.settle()] == [Key("train", 0, AB, 0)]


def test_an_answer_is_awaited_only_where_the_request_got_through() -> None:
    mask = np.arange(ROWS) < 3
    pair = Pair(edges=[{"from_to": ["a", "b"], "loss": 1.0}])
    for asker in (A, B):
        pair.ends[asker].send(AB, Kind.REQUEST, 0, mask=mask)
    requests, answers = [(AB, Kind.REQUEST, 0)], [(AB, Kind.ANSWER, 0)]
    assert pair.ends[A].arrived(answers), "a's request is lost: there will be no answer"
    assert not pair.ends[B].arrived(answers)
    pair.deliver()
    assert pair.ends[B].take(requests) == {}
    assert list(pair.ends[A].take(requests)) == [AB]
    pair.ends[A].send(AB, Kind.ANSWER, 0, np.ones((3, 2), np.float32))
    pair.deliver()
    assert pair.ends[B].take(answers) == {}, "the way from a to b loses answers too"
    assert pair.ends[A].take(answers) == {}
    account = Account()
    account.post(pair.entries())
    lines = {line.key.direction: line for line in account.settle()}
    assert isinstance(lines[0], Line)
    assert lines[0].of("dropped").messages == lines[0].of("sent").messages == 2
    assert lines[1].of("delivered").messages == lines[1].of("sent").messages == 1
    assert lines[1].of("missed").messages == 1


def test_nothing_is_in_flight_between_rounds() -> None:
    """An endpoint made anew after any round goes on as the old one does."""
    mix = {"loss": 0.3, "delay": 0.2, "corruption": 0.2, "retransmissions": 1}
    old, anew = Pair(**mix), Pair(**mix)
    told: list[list[Any]] = [[], []]
    for round_ in range(40):
        fresh = [Endpoint(anew.network, n, LIMITS, anew, links=anew.links) for n in (A, B)]
        anew.ends = fresh
        for end in fresh:
            anew.board.attach(end)
        for found, pair in zip(told, (old, anew), strict=True):
            pair.project(round_)
            pair.deliver()
            address = [(AB, Kind.PROJECTION, round_)]
            assert pair.ends[B].arrived(address)
            found.append((sorted(pair.ends[B].take(address)), pair.entries()))
    assert told[0] == told[1]
    assert {len(taken) for taken, _ in told[0]} == {0, 1}
