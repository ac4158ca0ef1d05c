"""A whole receiving stack under damaged, forged, replayed and flooding frames.

The stack is that of `tests.fuzz.receiver`: node a of a triangle, its switchboard and its books.
"""

import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sheafnet.network.frame import Kind, decode, encode, run_tag
from sheafnet.network.ledger import REJECTED_LIMIT
from tests.fuzz.mutate import seal
from tests.fuzz.receiver import AB, AC, DTYPES, ITERATIONS, QUESTION_ROUND, Receiver, honest_frames


def fates(receiver: Receiver) -> dict[str, int]:
    """Messages by fate since the last call."""
    counts: Counter[str] = Counter()
    for _, fate, messages, *_ in receiver.board.drain():
        counts[fate] += messages
    del counts["sent"]
    return dict(counts)


# Mutations


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.lower())
def test_no_byte_of_any_frame_can_be_another(dtype) -> None:
    """Every value of every byte of every kind; after each byte, all honest mail is delivered."""
    receiver = Receiver(dtype)
    tried = 0
    for honest in receiver.honest.values():
        for at in range(len(honest)):
            before = receiver.board.rejected
            for value in range(256):
                if value != honest[at]:
                    receiver.board.deliver(honest[:at] + bytes([value]) + honest[at + 1 :])
            assert receiver.board.rejected - before == 255
            assert receiver.board.touched == set()
            tried += 255
            receiver.check_unharmed()
            assert {name for name in fates(receiver) if name != "rejected"} == {"delivered"}
            receiver.renew()
    assert tried == 255 * sum(map(len, receiver.honest.values()))


def test_every_lie_in_a_byte_before_the_payload_is_judged_by_its_fields() -> None:
    """The same with a right checksum: accepted only where a second reading says so."""
    receiver = Receiver(DTYPES[1])
    accepted: Counter[Kind] = Counter()
    for kind, honest in receiver.honest.items():
        start = len(honest) - 5 - len(decode(honest).payload)
        for at in range(start):
            for value in set(range(256)) - {honest[at]}:
                body = honest[:at] + bytes([value]) + honest[at + 1 : -5]
                if receiver.deliver(seal(body)):
                    accepted[kind] += 1
                    receiver.renew()
    # Of one byte each: 127 other incarnations and 127 other rounds. The head makes a gradient of a
    # projection and the reverse, which have the same rows here, and prototypes of an answer or an
    # estimate.
    numbers = 127 + 127
    assert accepted == {
        Kind.PROJECTION: numbers + 1,
        Kind.GRADIENT: numbers + 1,
        Kind.GALLERY: numbers,
        # Classes 0, 2 and 3 of 5 in one byte: 10 - 1 other sets of three.
        Kind.PROTOTYPES: numbers + 9,
        # Row 16 of 24 is `f1 00`. Another first byte: 15 + n for the rows 17 to 23, or two rows of
        # which the second is 16 to 23, 84 pairs of left-out rows below 15. Another last byte: bits.
        # The same request may come over a's other edge, since it carries no tensor.
        Kind.REQUEST: numbers + 7 + 84 + 255 + 1,
        # No other round was asked; the second of the two rows that were, or the first.
        Kind.ANSWER: 127 + 1 + 1,
        # The same, and the two other steps of the round, whose number takes three bytes.
        Kind.ESTIMATE: 127 + 1 + 1 + 2,
        Kind.CALIBRATION: numbers,
    }


# Frames from elsewhere


def test_replayed_frames_are_refused_or_counted_and_never_used() -> None:
    """Earlier rounds, another run, an older incarnation, second copies."""
    receiver = Receiver(DTYPES[0])
    node, board = receiver.node, receiver.board
    projection = decode(receiver.honest[Kind.PROJECTION])
    address = (AB, Kind.PROJECTION, 8)

    def deliver(**changes: object) -> None:
        board.deliver(encode(replace(projection, **changes)))

    deliver(round=7, incarnation=1)
    taken = node.take([(AB, Kind.PROJECTION, 7)])[AB]
    assert fates(receiver) == {"delivered": 1}
    deliver(round=7, incarnation=1)  # a copy of what was taken
    deliver(round=3, incarnation=1)  # a round that is over
    assert fates(receiver) == {"duplicated": 2}
    deliver(round=8, incarnation=0)  # from before its sender was restarted
    deliver(round=8, incarnation=1, run=run_tag(1))  # recorded in another run
    assert fates(receiver) == {"rejected": 2}
    assert "incarnation 0, now stale" in board.rejections[0]
    assert "another run" in board.rejections[1]
    assert not node.arrived([address])
    honest = np.frombuffer(projection.payload, "<f4") + 1
    deliver(round=8, incarnation=1, payload=honest.astype("<f4").tobytes())
    deliver(round=8, incarnation=1)  # other values for what waits unread
    assert fates(receiver) == {"delivered": 1, "duplicated": 1}
    got = node.take([address])[AB]
    assert got.array.tolist() == (taken.array + 1).tolist()
    assert not node.arrived([address])


def test_a_replayed_answer_is_none_to_the_next_question() -> None:
    receiver = Receiver(DTYPES[0])
    answer = receiver.honest[Kind.ANSWER]
    receiver.board.deliver(answer)
    assert receiver.node.take([(AB, Kind.ANSWER, QUESTION_ROUND)]).keys() == {AB}
    receiver.node.send(AB, Kind.REQUEST, 9, mask=np.isin(np.arange(24), (1, 20)))
    receiver.board.deliver(answer)
    receiver.board.deliver(encode(replace(decode(answer), round=8)))
    assert fates(receiver) == {"delivered": 1, "duplicated": 1, "rejected": 1}
    assert not receiver.node.arrived([(AB, Kind.ANSWER, 9)])


def test_an_estimate_belongs_to_a_step_of_the_question() -> None:
    """Steps 1 to 3 of round 5: 1281 to 1283; no other round, and nothing that was not asked."""
    receiver = Receiver(DTYPES[0])
    estimate = decode(receiver.honest[Kind.ESTIMATE])
    steps = [1280, 1281, 1282, 1283, 1284, 1025, 1537, 5]
    for number in steps:
        receiver.board.deliver(encode(replace(estimate, round=number)))
    arrived = [n for n in steps if receiver.node.arrived([(AB, Kind.ESTIMATE, n)])]
    assert arrived == [1281, 1282, 1283]
    assert fates(receiver) == {"delivered": 3, "rejected": 5}
    receiver.board.deliver(encode(replace(estimate, edge=AC, round=1281)))
    assert "an estimate that nobody asked for" in receiver.board.rejections[-1]


def test_frames_of_a_node_that_is_no_neighbour() -> None:
    """Of the edge b-c, of edges that do not exist, and of a's own direction."""
    receiver = Receiver(DTYPES[0])
    projection = decode(receiver.honest[Kind.PROJECTION])
    strange = [{"edge": 2, "direction": 0}, {"edge": 2}, {"edge": 3}, {"edge": 2**32 - 1}]
    strange += [{"direction": 0}]
    for changes in strange:
        receiver.board.deliver(encode(replace(projection, **changes)))
    assert receiver.board.rejected == 5
    assert receiver.board.touched == set()
    receiver.check_unharmed()


def test_a_frame_of_another_edge_of_its_receiver_has_not_its_shape() -> None:
    receiver = Receiver(DTYPES[0])
    for kind, frame in honest_frames(DTYPES[0], AC).items():
        if kind is not Kind.REQUEST:
            receiver.board.deliver(encode(replace(decode(frame), edge=AB)))
    assert fates(receiver) == {"rejected": 7}
    receiver.check_unharmed()


# Floods


def test_a_flood_of_well_formed_frames_fills_no_memory() -> None:
    """From one who knows the run: what waits unread is bounded, and so are the books."""
    receiver = Receiver(DTYPES[0])
    projection = decode(receiver.honest[Kind.PROJECTION])
    flood = 20_000
    receiver.board.deliver(encode(replace(projection, round=9)))
    tracemalloc.start()
    try:
        for number in range(flood):
            receiver.board.deliver(encode(replace(projection, round=100 + number)))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    array_bytes, limit = 24 * 2 * 4, 16 * (1 + ITERATIONS)
    assert held < limit * (array_bytes + 1000) + REJECTED_LIMIT * 1000
    assert receiver.board.rejected == flood - (limit - 1)
    assert fates(receiver) == {"delivered": limit, "rejected": REJECTED_LIMIT}
    addresses = [(AB, Kind.PROJECTION, 100 + number) for number in range(limit - 1)]
    for address in [(AB, Kind.PROJECTION, 9), *addresses]:
        assert receiver.node.take([address]).keys() == {AB}
    receiver.board.deliver(encode(replace(projection, round=5000)))
    assert fates(receiver) == {"delivered": 1}  # the edge is open again, and so are the books


def test_a_flood_of_what_is_no_frame_leaves_nothing() -> None:
    receiver = Receiver(DTYPES[0])
    honest = receiver.honest[Kind.PROJECTION]
    tracemalloc.start()
    try:
        for number in range(20_000):
            receiver.board.deliver(honest[: number % len(honest)])
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert receiver.board.rejected == 20_000
    assert held < 64_000
    receiver.check_unharmed()
