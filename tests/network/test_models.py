"""The books and the mailbox against models that remember every single message."""

from collections import Counter
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sheafnet.config import Named
from sheafnet.errors import AccountingError, ProtocolError
from sheafnet.network import channel
from sheafnet.network.channel import Endpoint, Limits
from sheafnet.network.frame import Kind, decode, encode, run_tag
from sheafnet.network.ledger import Account, Count, Key, Ledger, balance
from sheafnet.network.payload import WireDtype
from sheafnet.topology import Edge, Node, Topology

KEYS = st.builds(Key, st.sampled_from(["train", "inference"]), st.integers(0, 1), st.just(0),
                 st.integers(0, 1))  # fmt: skip
SIZES = st.tuples(st.integers(0, 3), st.integers(21, 22), st.integers(0, 1))


@dataclass
class Sent:
    """A message on its way, and how it ended."""

    key: Key
    size: tuple[int, int, int]
    fate: str = "under way"
    missed: bool = False


class Books(RuleBasedStateMachine):
    """Two nodes, their ledgers, and the coordinator's account.

    The model is the list of all messages; every sum is taken over it anew. Reports are drained at
    any time, balanced at the host or not, and posted in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledgers = [Ledger(), Ledger()]
        self.account = Account()
        self.messages: list[Sent] = []
        self.copies: Counter[Key] = Counter()
        self.drained: list[list] = []
        self.settled: Counter[tuple[Key, str]] = Counter()

    def record(self, node: int, fate: str, message: Sent) -> None:
        self.ledgers[node].record(fate, message.key, Count(1, *message.size))

    @rule(key=KEYS, size=SIZES)
    def send(self, key: Key, size: tuple[int, int, int]) -> None:
        message = Sent(key, size)
        self.messages.append(message)
        self.record(key.direction, "sent", message)

    def under_way(self) -> list[Sent]:
        return [message for message in self.messages if message.fate == "under way"]

    @precondition(lambda self: self.under_way())
    @rule(data=st.data(), fate=st.sampled_from(["delivered", "dropped", "rejected", "lost"]))
    def end(self, data: st.DataObject, fate: str) -> None:
        message = data.draw(st.sampled_from(self.under_way()))
        if message.missed and fate == "delivered":
            fate = "late"
        message.fate = fate
        receiver = 1 - message.key.direction
        if fate == "dropped":
            self.record(message.key.direction, fate, message)
        elif fate != "lost":
            self.record(receiver, fate, message)
        if fate in ("rejected", "lost") and not message.missed:
            self.miss(message)

    @precondition(lambda self: [m for m in self.under_way() if not m.missed])
    @rule(data=st.data())
    def wait_in_vain(self, data: st.DataObject) -> None:
        self.miss(data.draw(st.sampled_from([m for m in self.under_way() if not m.missed])))

    def miss(self, message: Sent) -> None:
        message.missed = True
        ledger = self.ledgers[1 - message.key.direction]
        ledger.record("missed", message.key, Count(messages=1))

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.messages))
        self.copies[message.key] += 1
        self.record(1 - message.key.direction, "duplicated", message)

    @rule(node=st.integers(0, 1))
    def drain(self, node: int) -> None:
        self.drained.append(self.ledgers[node].drain())
        assert self.ledgers[node].drain() == []

    @precondition(lambda self: self.drained)
    @rule(data=st.data(), at_host=st.booleans())
    def post(self, data: st.DataObject, at_host: bool) -> None:
        """Some reports in any order; as one host's, if both nodes live there."""
        reports = data.draw(st.permutations(self.drained))
        entries = [entry for report in reports for entry in report]
        self.drained.clear()
        if at_host and len({(key, fate) for key, fate, *_ in entries}) == len(entries):
            rows, rest = balance(entries)
            for key, *numbers in rows:
                assert {(fate, *counts) for k, fate, *counts in entries if k == key} == {
                    ("sent", *numbers),
                    ("delivered", *numbers),
                }
                self.settled[key, "delivered"] += numbers[0]
            assert sorted(rest) == sorted(e for e in entries if e[0] not in {r[0] for r in rows})
            self.account.enter(rows)
            entries = rest
        self.account.post(entries)

    @rule()
    def settle(self) -> None:
        if not self.drained and not any(ledger._counts for ledger in self.ledgers):
            self.take(list(self.account.settle()))

    def take(self, lines: list) -> None:
        for line in lines:
            for fate, count in line.fates.items():
                self.settled[line.key, fate] += count.messages

    def teardown(self) -> None:
        """All that is still under way is lost or delivered; then every sum is as the model's."""
        for message in self.under_way():
            message.fate = "late" if message.missed else "delivered"
            self.record(1 - message.key.direction, message.fate, message)
        for ledger in self.ledgers:
            self.account.post(ledger.drain())
        for report in self.drained:
            self.account.post(report)
        self.take(self.account.close())
        for fate in ("delivered", "late", "dropped", "rejected"):
            expected = Counter(m.key for m in self.messages if m.fate == fate)
            assert {k: n for (k, f), n in self.settled.items() if f == fate and n} == expected
        assert {k: n for (k, f), n in self.settled.items() if f == "duplicated"} == self.copies
        assert self.account.lost == sum(message.fate == "lost" for message in self.messages)
        totals: dict = {}
        for message in self.messages:
            where = message.key.phase, message.key.edge, message.key.direction
            totals.setdefault(where, np.zeros(4, int))
            totals[where] += (1, *message.size)
        assert self.account.totals == {w: tuple(n) for w, n in totals.items()}


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase


# The mailbox

LINE = Topology(
    "line",
    tuple(Node(k, name, None, Named(name="mlp"), 4) for k, name in enumerate("ab")),
    (Edge(0, 0, 1, 2),),
)
UNREAD = 3
"""Instead of 16 frames that may wait unread, so that few steps reach it."""
ROWS = {Kind.PROJECTION: 3, Kind.GALLERY: 2}
LIMITS = Limits(run_tag(5), ROWS, dict.fromkeys(ROWS, WireDtype.FLOAT32))


@dataclass
class Wire:
    """Carries nothing by itself: what is on it is delivered, copied or dropped by a rule."""

    buffers: list[bytes] = field(default_factory=list)

    def send(self, node: int, buffer: bytes) -> None:
        assert node == 1
        self.buffers.append(buffer)


class Mailbox(RuleBasedStateMachine):
    """Sender a and receiver b with a wire that drops, copies and reorders.

    The model: what is waiting, what was missed and is not here yet, and how far b has read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limit = patch.object(channel, "UNREAD_LIMIT", UNREAD)
        self.limit.start()
        self.wire = Wire()
        self.sender = Endpoint(LINE, 0, LIMITS, self.wire)
        self.receiver = Endpoint(LINE, 1, LIMITS, Wire())
        self.next_sent = dict.fromkeys(ROWS, 0)
        self.next_taken = dict.fromkeys(ROWS, 0)
        self.sent: dict[tuple[Kind, int], np.ndarray] = {}
        self.waiting: set[tuple[Kind, int]] = set()
        self.missed: set[tuple[Kind, int]] = set()
        self.fates: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()

    @rule(kind=st.sampled_from(list(ROWS)), value=st.floats(-1, 1, width=32))
    def send(self, kind: Kind, value: float) -> None:
        round_ = self.next_sent[kind]
        array = np.full((ROWS[kind], 2), value, np.float32)
        array[0, 0] = round_
        self.sent[kind, round_] = array.copy()
        self.sender.send(0, kind, round_, array)
        array[:] = np.nan  # what was sent is sent
        self.next_sent[kind] += 1

    @precondition(lambda self: self.wire.buffers)
    @rule(data=st.data(), keep=st.booleans(), damage=st.booleans())
    def deliver(self, data: st.DataObject, keep: bool, damage: bool) -> None:
        """Any buffer on the wire, in any order; kept, it will come again."""
        at = data.draw(st.integers(0, len(self.wire.buffers) - 1))
        buffer = self.wire.buffers[at] if keep else self.wire.buffers.pop(at)
        frame = decode(buffer)
        if damage:
            frame.run = run_tag(6)
        address = frame.kind, frame.round
        if damage or len(self.waiting) >= UNREAD:
            expected = "rejected"
        elif address in self.missed:
            expected = "late"
            self.missed.remove(address)
        elif address in self.waiting or frame.round < self.next_taken[frame.kind]:
            expected = "duplicated"
        else:
            expected = "delivered"
            self.waiting.add(address)
        self.fates[expected] += 1
        try:
            self.receiver.accept(frame, len(buffer))
        except ProtocolError:
            assert expected == "rejected"
        else:
            assert expected != "rejected"
        assert encode(decode(buffer)) == buffer

    @precondition(lambda self: self.wire.buffers)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.wire.buffers.pop(data.draw(st.integers(0, len(self.wire.buffers) - 1)))

    @rule(kind=st.sampled_from(list(ROWS)))
    def take(self, kind: Kind) -> None:
        """The next round of a kind, whether it is here or not."""
        round_ = self.next_taken[kind]
        self.next_taken[kind] += 1
        got = self.receiver.take([(0, kind, round_)])
        if (kind, round_) in self.waiting:
            self.waiting.remove((kind, round_))
            np.testing.assert_array_equal(got[0].array, self.sent[kind, round_])
        else:
            assert got == {}
            self.missed.add((kind, round_))
            self.fates["missed"] += 1

    def teardown(self) -> None:
        self.limit.stop()

    @invariant()
    def what_waits_is_here(self) -> None:
        for kind in ROWS:
            for round_ in range(self.next_sent[kind] + 1):
                here = self.receiver.arrived([(0, kind, round_)])
                assert here is ((kind, round_) in self.waiting)
        assert self.receiver.arrived([(0, *address) for address in self.waiting])

    @invariant()
    def the_books_say_what_happened(self) -> None:
        for _, fate, messages, *_ in self.receiver.ledger.drain():
            self.counted[fate] += messages
        assert self.counted == self.fates


Mailbox.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestMailbox = Mailbox.TestCase


# What is planted is found


def forgets(fate: str):
    record = Ledger.record
    return lambda self, of, key, count: record(self, of, key, count) if of != fate else None


def forgets_to_count_down(self, addresses):
    addresses = list(addresses)
    unread = {edge: side.unread for edge, side in self._sides.items()}
    found = TAKE(self, addresses)
    for edge, side in self._sides.items():
        side.unread = unread[edge]
    return found


def takes_a_copy_for_news(self, frame, size):
    for side in self._sides.values():
        side.taken.clear()
    return ACCEPT(self, frame, size)


def counts_twice(self, entries):
    entries = list(entries)
    return POST(self, entries + [e for e in entries if e[1] == "sent" and e[3] == 3])


TAKE, ACCEPT, POST = Endpoint.take, Endpoint.accept, Account.post


@pytest.mark.parametrize(
    ("machine", "place", "name", "defect"),
    [
        (Books, Ledger, "record", forgets("late")),
        (Books, Ledger, "record", forgets("duplicated")),
        (Books, Account, "post", counts_twice),
        (Mailbox, Ledger, "record", forgets("missed")),
        (Mailbox, Endpoint, "take", forgets_to_count_down),
        (Mailbox, Endpoint, "accept", takes_a_copy_for_news),
    ],
    ids=["late", "copies", "sent", "missed", "unread", "news"],
)
def test_a_planted_defect_is_found(machine, place, name, defect, monkeypatch) -> None:
    monkeypatch.setattr(place, name, defect)
    quick = settings(
        machine.TestCase.settings, phases=[Phase.generate], database=None, derandomize=True
    )
    with pytest.raises((AssertionError, AccountingError, ProtocolError)):
        run_state_machine_as_test(machine, settings=quick)
