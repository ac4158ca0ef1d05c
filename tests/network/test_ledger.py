"""The books: sent = delivered + late + dropped + rejected + lost, byte for byte."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.errors import AccountingError
from sheafnet.network.frame import Frame, Kind
from sheafnet.network.ledger import (
    Account,
    Count,
    Entry,
    Key,
    Ledger,
    Line,
    balance,
    key_of,
    measure,
)
from sheafnet.network.payload import WireDtype

KEY = Key("train", 7, 3, 1)
SENT = ("sent", 1, 16384, 27, 0)


def posted(*fates, key=KEY):
    """An account after these (fate, messages, payload, framing, control)."""
    account = Account()
    account.post([(key, *fate) for fate in fates])
    return account


def closed(*fates):
    account = posted(*fates)
    return account, account.close()


# Counting


def test_a_frame_is_measured_by_the_bytes_it_took():
    frame = Frame(Kind.ANSWER, 1 << 31, 0, 9, 4, 1, WireDtype.INT8, 2, b"\x03\x00", bytes(36))
    assert measure(frame, 63) == (1, 36, 25, 2)
    assert measure(frame, 63).total == 63
    assert key_of(frame) == ("inference", 9, 4, 1)


def test_a_frame_without_mask_has_no_control_bytes():
    frame = Frame(Kind.GALLERY, 1 << 31, 0, 9, 4, 0, WireDtype.FLOAT32, 1, None, bytes(8))
    assert measure(frame, 29) == (1, 8, 21, 0)
    assert key_of(frame) == ("evaluation", 9, 4, 0)


def test_a_ledger_adds_up_and_is_empty_once_drained():
    ledger = Ledger()
    other = Key("train", 7, 3, 0)
    ledger.record("sent", KEY, Count(1, 100, 27, 0))
    ledger.record("delivered", other, Count(1, 50, 26, 0))
    ledger.record("sent", KEY, Count(1, 10, 25, 3))
    assert ledger.drain() == [
        (KEY, "sent", 2, 110, 52, 3),
        (other, "delivered", 1, 50, 26, 0),
    ]
    assert ledger.drain() == []
    ledger.record("sent", KEY, Count(1, 1, 1, 1))
    assert ledger.drain() == [(KEY, "sent", 1, 1, 1, 1)]


def test_a_ledger_keeps_no_count_of_its_callers():
    """One constant is recorded for every missed message; it must stay what it is."""
    ledger, constant = Ledger(), Count(messages=1)
    ledger.record("missed", KEY, constant)
    ledger.record("missed", KEY, constant)
    assert constant == (1, 0, 0, 0)


# Lines that balance


@pytest.mark.parametrize(
    "fates",
    [
        [SENT, ("delivered", 1, 16384, 27, 0)],
        [SENT, ("dropped", 1, 16384, 27, 0)],
        [SENT, ("missed", 1, 0, 0, 0), ("late", 1, 16384, 27, 0)],
        [("sent", 2, 32768, 54, 0), ("delivered", 1, 16384, 27, 0), ("dropped", 1, 16384, 27, 0)],
        # A copy, or a stranger's frame, was not sent by the other end.
        [SENT, ("delivered", 1, 16384, 27, 0), ("duplicated", 3, 49152, 81, 0)],
        [SENT, ("delivered", 1, 16384, 27, 0), ("rejected", 2, 9, 40, 1)],
        [("rejected", 5, 100, 100, 0)],
        # Damaged on a simulated link: what is short was refused, byte for byte, and missed.
        [SENT, ("rejected", 1, 16384, 27, 0), ("missed", 1, 0, 0, 0)],
        # Or came at the second attempt.
        [("sent", 2, 32768, 54, 0), ("delivered", 1, 16384, 27, 0), ("rejected", 1, 16384, 27, 0)],
    ],
)
def test_a_line_settles_with_all_its_fates(fates):
    account = posted(*fates)
    (line,) = account.settle()
    assert line.key == KEY
    got = {(fate, *count) for fate, count in line.fates.items()}
    assert got == set(fates)
    assert list(account.settle()) == []
    assert account.close() == []
    assert account.lost == 0


def test_a_line_is_open_until_both_ends_have_reported():
    account = posted(SENT)
    assert list(account.settle()) == []
    account.post([(KEY, "delivered", 1, 16384, 27, 0)])
    assert [line.key for line in account.settle()] == [KEY]
    account = posted(("delivered", 1, 16384, 27, 0))
    assert list(account.settle()) == []
    account.post([(KEY, *SENT)])
    assert [line.key for line in account.settle()] == [KEY]


def test_lines_settle_in_the_order_of_their_keys():
    keys = [Key("train", 10, 0, 0), Key("train", 9, 2, 1), Key("train", 9, 2, 0), KEY]
    account = Account()
    account.post((key, *SENT) for key in keys)
    account.post((key, "delivered", *SENT[1:]) for key in reversed(keys))
    assert [line.key for line in account.settle()] == [keys[3], keys[2], keys[1], keys[0]]


@pytest.mark.parametrize(
    "fates",
    [
        [SENT, ("rejected", 1, 16384, 27, 0)],
        [SENT, ("rejected", 1, 16383, 27, 0), ("missed", 1, 0, 0, 0)],
        [SENT, ("rejected", 2, 32768, 54, 0), ("missed", 1, 0, 0, 0)],
    ],
)
def test_what_was_refused_but_is_not_what_is_short_leaves_a_line_open(fates):
    assert list(posted(*fates).settle()) == []


def test_what_became_of_messages_is_told_of_closed_lines_and_survives_a_restart():
    """A frame of the next round that came early is told with its own round, once."""
    account, early = Account(), Key("train", 8, 3, 1)
    account.post([(KEY, *SENT), (KEY, "dropped", *SENT[1:]), (KEY, "missed", 1, 0, 0, 0)])
    account.post([(early, "delivered", *SENT[1:])])
    account.enter([(Key("train", 7, 3, 0), 1, 10, 5, 0)])
    list(account.settle())
    told = {fate: count for (_, fate), count in account.fates.items()}
    assert told == {
        "sent": (2, 16394, 32, 0), "dropped": SENT[1:], "missed": (1, 0, 0, 0),
        "delivered": (1, 10, 5, 0),
    }  # fmt: skip
    again = Account()
    again.load(account.state({"train": 8, "evaluation": 0, "inference": 0}))
    assert again.fates == account.fates
    again.post([(early, *SENT), (early, "delivered", *SENT[1:])])
    list(again.settle())
    assert again.fates["train", "delivered"] == (2, 16394, 32, 0)
    assert again.close() == []


def test_what_a_line_has_not_is_zero():
    line = Line(KEY)
    assert line.of("late") == (0, 0, 0, 0)
    assert line.balanced
    assert line.fates == {}


def test_totals_are_what_was_sent_by_phase_edge_and_direction():
    account = Account()
    for round_ in range(3):
        account.post([(Key("train", round_, 3, 1), "sent", 1, 100, 27, 0)])
        account.post([(Key("train", round_, 3, 1), "delivered", 1, 100, 27, 0)])
        account.post([(Key("inference", round_, 3, 0), "sent", 2, 10, 44, 8)])
    list(account.settle())
    assert account.totals["train", 3, 1] == (3, 300, 81, 0)
    assert account.totals["inference", 3, 0] == (6, 30, 132, 24)
    assert account.totals["train", 3, 1].total == 381
    assert len(account.totals) == 2


# Lines that are settled at the end


@pytest.mark.parametrize(
    ("fates", "lost"),
    [
        ([SENT, ("missed", 1, 0, 0, 0)], 1),
        ([("sent", 2, 8, 54, 0), ("delivered", 1, 4, 27, 0), ("missed", 1, 0, 0, 0)], 1),
        ([("sent", 2, 8, 54, 0), ("missed", 2, 0, 0, 0)], 2),
        # Refused on arrival: the receiver waited for it too.
        ([SENT, ("rejected", 1, 16384, 27, 0), ("missed", 1, 0, 0, 0)], 0),
        ([SENT, ("rejected", 1, 16384, 27, 0)], 0),
        # A stranger's frame beside the one that was lost.
        ([SENT, ("rejected", 1, 3, 30, 0), ("missed", 1, 0, 0, 0)], 0),
        # One of two refused, and a stranger's on top.
        ([("sent", 2, 8, 54, 0), ("delivered", 1, 4, 27, 0), ("rejected", 2, 5, 80, 0)], 0),
        # Two waits in vain, but one of the two frames came after all.
        (
            [("sent", 2, 8, 54, 0), ("missed", 2, 0, 0, 0), ("late", 1, 4, 27, 0)],
            1,
        ),
        # Its sender never sent: the gradient of a projection that did not come, say.
        ([("missed", 1, 0, 0, 0)], 0),
    ],
)
def test_what_is_short_at_the_end_was_rejected_or_lost(fates, lost):
    account, lines = closed(*fates)
    assert account.lost == lost
    assert [line.key for line in lines] == [KEY]
    assert account.close() == []


def refused(*fates):
    account = posted(*fates)
    with pytest.raises(AccountingError) as caught:
        account.close()
    for named in ("train", "round 7", "edge 3", "direction 1"):
        assert named in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", [1, 2, 3, 4])
@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("fate", ["delivered", "late", "dropped"])
def test_an_imbalance_of_one(fate, place, by):
    """One message, payload, framing or control byte, too few or too many."""
    sent, other = ["sent", 1, 16384, 27, 5], [fate, 1, 16384, 27, 5]
    other[place] += by
    waits = [("missed", 1, 0, 0, 0)] if fate == "late" else []
    message = refused(tuple(sent), tuple(other), *waits)
    assert f"({sum(other[2:])} bytes) {fate}" in message
    assert "16416 bytes) sent" in message


@pytest.mark.parametrize(
    "fates",
    [
        [SENT],
        [("delivered", 1, 16384, 27, 0)],
        [("late", 1, 16384, 27, 0)],
        [SENT, ("delivered", 2, 32768, 54, 0)],
        [SENT, ("duplicated", 1, 16384, 27, 0)],
        [("sent", 2, 32768, 54, 0), ("missed", 1, 0, 0, 0)],
        [("sent", 2, 32768, 54, 0), ("delivered", 1, 16384, 27, 0)],
        # Rejected, but not of the size that was sent, and nobody missed it.
        [SENT, ("rejected", 1, 16383, 27, 0)],
        [SENT, ("rejected", 1, 16384, 28, 0)],
        [SENT, ("rejected", 3, 400, 81, 0)],
        # The one that was missed has come late; the other has vanished.
        [("sent", 2, 8, 54, 0), ("missed", 1, 0, 0, 0), ("late", 1, 4, 27, 0)],
        # A message without bytes, and bytes without a message, are no messages.
        [SENT, ("delivered", 0, 16384, 27, 0), ("missed", 1, 0, 0, 0)],
        [SENT, ("delivered", 1, 16384, 26, 0), ("missed", 1, 0, 0, 0)],
        [SENT, ("delivered", 1, 16384, 26, 0), ("rejected", 1, 0, 30, 0)],
    ],
)
def test_what_nobody_can_explain_fails_the_run(fates):
    refused(*fates)


def test_one_wrong_line_among_right_ones_is_found():
    account = Account()
    for round_ in range(100):
        key = Key("train", round_, 3, 1)
        account.post([(key, *SENT), (key, "delivered", 1, 16384, 27 + (round_ == 42), 0)])
    assert len(list(account.settle())) == 99
    with pytest.raises(AccountingError, match="train round 42, edge 3, direction 1"):
        account.close()


# Random traffic


@dataclass(frozen=True)
class Sent:
    key: Key
    size: tuple[int, int, int]
    fate: str


keys = st.builds(
    Key,
    st.sampled_from(["train", "evaluation", "inference"]),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 1),
)
messages = st.builds(
    Sent,
    keys,
    st.tuples(st.integers(0, 5000), st.integers(21, 32), st.integers(0, 20)),
    st.sampled_from(["delivered", "late", "dropped", "rejected", "lost"]),
)
certain = messages.filter(lambda message: message.fate in ("delivered", "late", "dropped"))


def reports_of(traffic, strangers):
    """Entries as nodes make them: a ledger for each end of each message, and for nobody's."""
    ledgers = {}

    def ledger(node):
        return ledgers.setdefault(node, Ledger())

    for message in traffic:
        sender = message.key.direction
        ledger(sender).record("sent", message.key, Count(1, *message.size))
        if message.fate in ("late", "lost", "rejected"):
            ledger(1 - sender).record("missed", message.key, Count(messages=1))
        if message.fate == "dropped":
            ledger(sender).record("dropped", message.key, Count(1, *message.size))
        elif message.fate != "lost":
            ledger(1 - sender).record(message.fate, message.key, Count(1, *message.size))
    for message, fate in strangers:
        ledger(1 - message.key.direction).record(fate, message.key, Count(1, *message.size))
    return [entry for node in ledgers.values() for entry in node.drain()]


@given(
    traffic=st.lists(messages, max_size=40),
    copies=st.lists(messages, max_size=8),
    source=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_random_traffic_settles_in_any_order_of_reports(traffic, copies, source):
    entries = reports_of(traffic, [(copy, "duplicated") for copy in copies])
    source.shuffle(entries)
    cut = source.randint(0, len(entries))
    account = Account()
    account.post(entries[:cut])
    account.post(entries[cut:])
    lines = [*account.settle(), *account.close()]
    assert sorted(line.key for line in lines) == sorted({entry[0] for entry in entries})
    expected: Counter = Counter()
    for message in traffic:
        for place, number in enumerate((1, *message.size)):
            where = (message.key.phase, message.key.edge, message.key.direction, place)
            expected[where] += number
    got: Counter = Counter()
    for where, count in account.totals.items():
        for place, number in enumerate(count):
            got[(*where, place)] += number
    assert +got == +expected
    assert account.lost == sum(message.fate == "lost" for message in traffic)
    whole: Counter = Counter()
    for line in lines:
        for fate, count in line.fates.items():
            whole[fate] += count.messages
    for fate in ("delivered", "late", "dropped", "rejected"):
        assert whole[fate] == sum(message.fate == fate for message in traffic)
    assert whole["duplicated"] == len(copies)


@given(
    traffic=st.lists(certain, min_size=1, max_size=20),
    strangers=st.lists(messages, max_size=5),
    source=st.randoms(use_true_random=False),
    by=st.sampled_from([-1000, -2, -1, 1, 2, 1000]),
)
@settings(max_examples=200, deadline=None)
def test_one_wrong_number_anywhere_fails_the_run(traffic, strangers, source, by):
    """Strangers' frames in the books must not hide it. (A lost frame on the same directed edge
    and round could: how large it was, only its sender knows.)"""
    clean = {message.key for message in traffic} - {stranger.key for stranger in strangers}
    entries = reports_of(traffic, [(stranger, "duplicated") for stranger in strangers])
    places = [
        k
        for k, entry in enumerate(entries)
        if entry[0] in clean and entry[1] in ("sent", "delivered", "late", "dropped")
    ]
    if not places:
        return
    wrong = source.choice(places)
    place = source.randint(2, 5)
    entry = list(entries[wrong])
    entry[place] += by
    entries[wrong] = tuple(entry)
    source.shuffle(entries)
    account = Account()
    account.post(entries)
    key = entry[0]
    assert key not in {line.key for line in account.settle()}
    with pytest.raises(AccountingError, match=f"{key.phase} round {key.round}, edge {key.edge}"):
        account.close()


def test_reports_of_many_stretches_can_be_settled_between():
    """What is left open in one stretch (a late frame) is settled with the next."""
    source = random.Random(3)
    account, settled, late = Account(), 0, []
    for round_ in range(50):
        entries = [(key, "late", *count) for key, count in late]
        late = []
        for direction in (0, 1):
            key = Key("train", round_, 0, direction)
            count = (1, source.randint(1, 9000), source.randint(21, 32), 0)
            entries.append((key, "sent", *count))
            if source.random() < 0.5:
                entries.append((key, "missed", 1, 0, 0, 0))
                late.append((key, count))
            else:
                entries.append((key, "delivered", *count))
        account.post(entries)
        settled += len(list(account.settle()))
    assert len(late) > 0
    account.post([(key, "late", *count) for key, count in late])
    settled += len(list(account.settle()))
    assert settled == 100
    assert account.close() == []
    assert account.lost == 0


def test_a_host_balances_only_what_was_sent_and_delivered_in_full() -> None:
    full, short, early, alone = (Key("train", round_, 0, 0) for round_ in range(4))
    entries: list[Entry] = [
        (early, "missed", 1, 0, 0, 0),
        (short, "sent", 1, 100, 27, 0),
        (short, "delivered", 1, 99, 27, 0),
        (full, "delivered", 2, 64, 44, 3),
        (alone, "sent", 1, 100, 27, 0),
        (early, "late", 1, 100, 27, 0),
        (full, "sent", 2, 64, 44, 3),
    ]
    rows, rest = balance(entries)
    assert rows == [(full, 2, 64, 44, 3)]
    assert sorted(rest) == sorted(e for e in entries if e[0] != full)
    account = Account()
    account.enter(rows)
    assert account.totals["train", 0, 0] == (2, 64, 44, 3)
