"""What an edge allows, at both ends (law 3), and that what is counted is what went (law 4).

The network is a triangle in which every dimension differs: a (d_i 8), b (6), c (5); edges
0 = a-b with d_ij 3, 1 = a-c with 2, 2 = b-c with 4. A whole batch has 10 rows, a gallery 12,
there are 5 classes, and gradients are no part of the run.
"""

import re
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.config import Named
from sheafnet.errors import DivergenceError, FrameError, ProtocolError
from sheafnet.network.channel import UNREAD_LIMIT, Endpoint, Limits
from sheafnet.network.frame import Frame, Kind, decode, encode, pack_mask, run_tag
from sheafnet.network.ledger import Account, Key
from sheafnet.network.payload import WireDtype, pack
from sheafnet.network.switchboard import Switchboard
from sheafnet.topology import Edge, Node, Topology

A, B, C = 0, 1, 2
AB, AC, BC = 0, 1, 2
DIM = {AB: 3, AC: 2, BC: 4}
ROWS = 10
TRIANGLE = Topology(
    "triangle",
    tuple(
        Node(index, name, None, Named(name="mlp"), dim)
        for index, name, dim in [(A, "a", 8), (B, "b", 6), (C, "c", 5)]
    ),
    (Edge(AB, A, B, DIM[AB]), Edge(AC, A, C, DIM[AC]), Edge(BC, B, C, DIM[BC])),
)
KINDS = {
    Kind.PROJECTION: ROWS,
    Kind.GALLERY: 12,
    Kind.PROTOTYPES: 5,
    Kind.REQUEST: ROWS,
    Kind.ANSWER: ROWS,
}
RUN = run_tag(1)
LIMITS = Limits(RUN, KINDS, dict.fromkeys(KINDS, WireDtype.FLOAT32))


class Spy:
    """A transport that keeps what it gets."""

    def __init__(self):
        self.sent = []

    def send(self, node, buffer):
        self.sent.append((node, buffer))


def endpoint(node, transport=None, *, limits=LIMITS, incarnation=0):
    return Endpoint(TRIANGLE, node, limits, transport or Spy(), incarnation)


def tensor(rows=ROWS, dim=DIM[AB], start=1.0):
    return np.arange(start, start + rows * dim, dtype=np.float32).reshape(rows, dim)


def mask(*rows, length=ROWS):
    bits = np.zeros(length, dtype=np.bool_)
    bits[list(rows)] = True
    return bits


def frame(kind=Kind.PROJECTION, round_=0, **changed):
    """What b sends to a on their edge, unless told otherwise."""
    array = changed.pop("array", None)
    if array is None:
        array = tensor(KINDS.get(kind, ROWS))
    values = {
        "kind": kind, "run": RUN, "incarnation": 0, "round": round_, "edge": AB, "direction": 1,
        "dtype": WireDtype.FLOAT32, "rows": len(array), "mask": None,
        "payload": pack(array, WireDtype.FLOAT32),
    }  # fmt: skip
    return Frame(**{**values, **changed})


def request(round_=0, rows=(1, 4), **changed):
    values = {"dtype": WireDtype.NONE, "rows": 0, "mask": pack_mask(mask(*rows)), "payload": b""}
    return frame(Kind.REQUEST, round_, **{**values, **changed})


def answer(round_=0, rows=(1, 4), named=True, asked=(1, 4), **changed):
    """`rows` of the batch, named by their places among those that were asked for."""
    places = mask(*(asked.index(row) for row in rows), length=len(asked)) if named else None
    values = {
        "array": tensor(len(rows)),
        "mask": None if places is None else pack_mask(places),
    }
    return frame(Kind.ANSWER, round_, **{**values, **changed})


def fates(at):
    """Messages by fate, and empties the ledger."""
    counts = Counter()
    for _, fate, messages, *_ in at.ledger.drain():
        counts[fate] += messages
    return dict(counts)


# Sending


@pytest.mark.parametrize(
    ("node", "edge", "direction", "receiver"), [(A, AB, 0, B), (B, AB, 1, A), (C, BC, 1, B)]
)
def test_the_ledger_counts_the_very_buffer_that_the_transport_got(node, edge, direction, receiver):
    spy = Spy()
    sender = endpoint(node, spy, incarnation=3)
    array = tensor(dim=DIM[edge])
    sender.send(edge, Kind.PROJECTION, 300, array)
    ((to, buffer),) = spy.sent
    assert to == receiver
    assert decode(buffer) == Frame(
        Kind.PROJECTION, RUN, 3, 300, edge, direction, WireDtype.FLOAT32, ROWS, None,
        array.tobytes(),
    )  # fmt: skip
    payload = ROWS * DIM[edge] * 4
    # 1 array, 1 head, 5 run, 1 incarnation, 3 round, 1 edge, 1 direction, 1 dtype, 1 rows,
    # 1 nil, 2 bin, 5 checksum
    assert len(buffer) == payload + 23
    assert sender.ledger.drain() == [
        (Key("train", 300, edge, direction), "sent", 1, payload, 23, 0)
    ]


def test_mask_bytes_are_control_bytes():
    spy = Spy()
    sender = endpoint(B, spy)
    sender.send(AB, Kind.REQUEST, 0, mask=mask(0, 3, 9))
    sender.send(AB, Kind.ANSWER, 0, tensor(2), mask(1, 2, length=3))
    sizes = [len(buffer) for _, buffer in spy.sent]
    # 1 + 1 + 5 + six numbers + mask header 2 + bin header 2 + checksum 5 = 22; the mask of the
    # batch takes 2 bytes, that of the three rows asked for takes 1
    assert sizes == [24, 23 + 2 * 3 * 4]
    assert sender.ledger.drain() == [
        (Key("inference", 0, AB, 1), "sent", 2, 24, 44, 3),
    ]
    assert decode(spy.sent[0][1]) == request(rows=(0, 3, 9))
    assert decode(spy.sent[1][1]) == answer(rows=(3, 9), asked=(0, 3, 9))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("float32", 120),
        ("float16", 60),
        ("bfloat16", 60),
        ("int8", 34),
        ("int8-row", 50),
        ("int8-channel", 36),
    ],
)
def test_the_agreed_dtype_goes_out(name, size):
    dtype, spy = WireDtype.named(name), Spy()
    limits = replace(LIMITS, dtypes=dict.fromkeys(KINDS, dtype))
    endpoint(B, spy, limits=limits).send(AB, Kind.PROJECTION, 0, tensor())
    sent = decode(spy.sent[0][1])
    assert sent.dtype is dtype
    assert len(sent.payload) == size
    receiver = endpoint(A, limits=limits)
    receiver.accept(sent, len(spy.sent[0][1]))
    got = receiver.take([(AB, Kind.PROJECTION, 0)])[AB].array
    assert np.abs(got - tensor()).max() <= 30 / 127 / 2 * 1.001  # int8 is the coarsest
    assert got.dtype == np.float32


def test_stochastic_rounding_is_drawn_anew_for_every_message_and_only_for_it():
    """By seed, edge, direction, kind and round; of nothing that was sent before."""
    rows = KINDS | {Kind.GRADIENT: ROWS}
    coarse = Limits(RUN, rows, dict.fromkeys(rows, WireDtype.INT8_ROW))

    def sent(node: int, edge: int, kind: Kind, round_: int, seed: int | None) -> bytes:
        spy, own = Spy(), {} if seed is None else {Kind.PROJECTION: seed, Kind.GRADIENT: seed}
        values = np.linspace(-1, 1, rows[kind] * DIM[edge], dtype=np.float32)
        sender = endpoint(node, spy, limits=replace(coarse, stochastic=own))
        sender.send(edge, kind, round_, values.reshape(rows[kind], -1))
        return decode(spy.sent[0][1]).payload

    first = sent(A, AB, Kind.PROJECTION, 3, 7)
    assert sent(A, AB, Kind.PROJECTION, 3, 7) == first
    others = {
        sent(B, AB, Kind.PROJECTION, 3, 7),
        sent(A, AB, Kind.GRADIENT, 3, 7),
        sent(A, AB, Kind.PROJECTION, 4, 7),
        sent(A, AB, Kind.PROJECTION, 3, 8),
        sent(A, AB, Kind.PROJECTION, 3, None),
    }
    assert len(others | {first}) == 6
    assert sent(A, AB, Kind.GALLERY, 3, 7) == sent(A, AB, Kind.GALLERY, 3, None)


NAN = tensor()
NAN[3, 1] = np.nan
INFINITE = tensor()
INFINITE[9, 2] = -np.inf


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((BC, Kind.PROJECTION, 0, tensor(dim=4)), "edge 2 is no edge of a"),
        ((7, Kind.PROJECTION, 0, tensor()), "edge 7 is no edge of a"),
        ((-1, Kind.PROJECTION, 0, tensor()), "edge -1 is no edge of a"),
        # An embedding of a, of b; the projection of another edge
        ((AB, Kind.PROJECTION, 0, tensor(dim=8)), r"a->b.*\(10, 8\).*\(at most 10, 3\)"),
        ((AB, Kind.PROJECTION, 0, tensor(dim=6)), r"\(10, 6\)"),
        ((AB, Kind.PROJECTION, 0, tensor(dim=2)), r"\(10, 2\)"),
        ((AC, Kind.PROJECTION, 0, tensor(dim=3)), r"a->c.*\(10, 3\)"),
        ((AB, Kind.PROJECTION, 0, tensor().T), r"\(3, 10\)"),
        ((AB, Kind.PROJECTION, 0, tensor().ravel()), r"\(30,\)"),
        ((AB, Kind.PROJECTION, 0, tensor()[None]), r"\(1, 10, 3\)"),
        ((AB, Kind.PROJECTION, 0, np.float32(1.0)), r"\(\)"),
        ((AB, Kind.PROJECTION, 0, tensor(11)), r"\(11, 3\)"),
        ((AB, Kind.GALLERY, 0, tensor(13)), r"\(13, 3\)"),
        ((AB, Kind.PROTOTYPES, 0, tensor(6), mask(0, length=5)), r"\(6, 3\)"),
        ((AB, Kind.ANSWER, 0, tensor(11), None), r"\(11, 3\)"),
        # Fewer than all where all are meant
        ((AB, Kind.PROJECTION, 0, tensor(9)), "9 rows with no row mask, of 10"),
        ((AB, Kind.PROJECTION, 0, tensor(9), mask(*range(9))), "9 rows with a mask of 9"),
        ((AB, Kind.GALLERY, 0, tensor(10)), "10 rows with no row mask, of 12"),
        # Masks that are missing or do not fit
        ((AB, Kind.PROTOTYPES, 0, tensor(5)), "5 rows with no row mask"),
        ((AB, Kind.PROTOTYPES, 0, tensor(2), mask(0, length=5)), "2 rows with a mask of 1"),
        ((AB, Kind.PROTOTYPES, 0, tensor(2), mask(0, 1)), r"mask of shape \(10,\) for 5"),
        ((AB, Kind.ANSWER, 0, tensor(2), mask(0, 1, 2)), "2 rows with a mask of 3"),
        ((AB, Kind.ANSWER, 0, tensor(2), mask(0, 1, length=11)), r"mask of shape \(11,\)"),
        ((AB, Kind.REQUEST, 0, None, mask(0, 1, length=11)), r"mask of shape \(11,\)"),
        ((AB, Kind.REQUEST, 0, None, mask(0, 1)[None]), r"mask of shape \(1, 10\)"),
        ((AB, Kind.REQUEST, 0, None, None), "request of 0 rows with no row mask"),
        ((AB, Kind.REQUEST, 0, tensor(2), mask(0, 1)), "carries no tensor"),
        ((AB, Kind.PROJECTION, 0, None, None), "projection without a tensor"),
        ((AB, Kind.ANSWER, 0, None, mask(0)), "answer without a tensor"),
        # A kind that this run does not have
        ((AB, Kind.GRADIENT, 0, tensor()), r"gradient of shape \(10, 3\).*at most 0"),
        ((AB, Kind.GRADIENT, 0, tensor(0)), r"gradient of shape \(0, 3\).*at most 0"),
    ],
)
def test_what_an_edge_does_not_carry_never_reaches_the_transport(arguments, says):
    spy = Spy()
    sender = endpoint(A, spy)
    with pytest.raises(ProtocolError, match=says):
        sender.send(*arguments)
    assert spy.sent == []
    assert sender.ledger.drain() == []


@pytest.mark.parametrize("array", [NAN, INFINITE])
def test_a_tensor_that_is_not_finite_names_node_edge_and_round(array):
    spy = Spy()
    sender = endpoint(A, spy)
    with pytest.raises(DivergenceError) as caught:
        sender.send(AB, Kind.PROJECTION, 41, array)
    for named in ("node a", "a->b", "train round 41", "projection"):
        assert named in str(caught.value)
    assert spy.sent == []
    assert sender.ledger.drain() == []


# Accepting


def test_what_arrives_is_what_was_sent_and_counted_again():
    receiver = endpoint(A)
    sent = frame(round_=2)
    buffer = encode(sent)
    receiver.accept(decode(buffer), len(buffer))
    address = (AB, Kind.PROJECTION, 2)
    assert receiver.arrived([address])
    assert not receiver.arrived([address, (AC, Kind.PROJECTION, 2)])
    assert not receiver.arrived([(AB, Kind.PROJECTION, 1)])
    got = receiver.take([address])
    assert list(got) == [AB]
    assert got[AB].array.tolist() == tensor().tolist()
    assert got[AB].mask is None
    assert not receiver.arrived([address])
    assert receiver.ledger.drain() == [
        (Key("train", 2, AB, 1), "delivered", 1, 120, len(buffer) - 120, 0)
    ]


def test_a_request_and_its_answers():
    asker = endpoint(A)
    asker.accept(request(5, rows=(0, 7)), 24)
    message = asker.take([(AB, Kind.REQUEST, 5)])[AB]
    assert message.mask.tolist() == mask(0, 7).tolist()
    assert message.array.shape == (0, DIM[AB])
    asker.send(AB, Kind.REQUEST, 5, mask=mask(1, 4, 8))
    asker.send(AC, Kind.REQUEST, 5, mask=mask(1, 4, 8))
    asker.accept(answer(5, rows=(1, 8), asked=(1, 4, 8)), 100)
    asker.accept(answer(5, (1, 4, 8), named=False, edge=AC, array=tensor(3, 2)), 100)
    got = asker.take([(AB, Kind.ANSWER, 5), (AC, Kind.ANSWER, 5)])
    assert got[AB].mask.tolist() == mask(1, 8).tolist()
    assert got[AB].array.tolist() == tensor(2).tolist()
    assert got[AC].mask is None
    assert got[AC].array.tolist() == tensor(3, 2).tolist()


def test_prototypes_of_some_classes():
    receiver = endpoint(A)
    packed = pack_mask(mask(0, 4, length=5))
    receiver.accept(frame(Kind.PROTOTYPES, array=tensor(2), mask=packed), 50)
    message = receiver.take([(AB, Kind.PROTOTYPES, 0)])[AB]
    assert message.mask.tolist() == [True, False, False, False, True]
    assert message.array.shape == (2, DIM[AB])


HALF = pack(tensor(5), WireDtype.FLOAT32)
BAD_FRAMES = {
    "another run": (frame(run=run_tag(2)), "another run"),
    "own direction": (frame(direction=0), "direction of its own receiver"),
    "foreign edge": (frame(edge=BC, array=tensor(dim=4)), "edge 2 is no edge of a"),
    "no edge": (frame(edge=3), "edge 3 is no edge of a"),
    "stale": (frame(incarnation=1), "incarnation 1, now stale"),
    "another dtype": (
        frame(dtype=WireDtype.FLOAT16, payload=pack(tensor(), WireDtype.FLOAT16)),
        "FLOAT16 where FLOAT32",
    ),
    "no dtype": (frame(dtype=WireDtype.NONE, rows=0, payload=b""), "NONE where FLOAT32"),
    "a row more": (frame(array=tensor(11)), "11 rows with no row mask, of 10"),
    "a row less": (frame(array=tensor(9)), "9 rows with no row mask, of 10"),
    "a row that would broadcast": (frame(array=tensor(1)), "1 rows"),
    "no rows": (frame(array=tensor(0)), "0 rows"),
    "rows that are not there": (frame(payload=HALF), "60 bytes.*takes 120.*edge 0"),
    "an embedding of the receiver": (frame(array=tensor(dim=8)), "320 bytes.*takes 120"),
    "an embedding of the sender": (frame(array=tensor(dim=6)), "240 bytes.*takes 120"),
    "rows of 4 GB": (frame(rows=1 << 24), "16777216 rows"),
    "NaN": (frame(array=NAN), "NaN or infinite"),
    "infinity": (frame(array=INFINITE), "NaN or infinite"),
    "masked projection": (
        frame(array=tensor(2), mask=pack_mask(mask(0, 1))), "2 rows with a mask of 2"
    ),
    "fully masked projection": (frame(mask=pack_mask(mask(*range(ROWS)))), "mask of 10"),
    "gradient": (frame(Kind.GRADIENT), "this run has no gradient"),
    "short gallery": (frame(Kind.GALLERY, array=tensor(11)), "11 rows with no row mask, of 12"),
    "unnamed prototypes": (frame(Kind.PROTOTYPES), "no row mask"),
    "miscounted prototypes": (
        frame(Kind.PROTOTYPES, array=tensor(2), mask=b"\x01"), "2 rows with a mask of 1"
    ),
    "prototype of class 5": (
        frame(Kind.PROTOTYPES, array=tensor(1), mask=b"\x20"), "beyond 5.*edge 0"
    ),
    "request with a payload": (request(payload=bytes(12)), "12 bytes.*takes 0"),
    "request that counts its rows": (
        replace(request(rows=(1,)), rows=1), "1 rows with a mask of 1"
    ),
    "request with a dtype": (request(dtype=WireDtype.FLOAT32), "FLOAT32 where NONE"),
    "request of nothing named": (request(mask=None), "no row mask"),
    "request with a zero byte at its end": (request(mask=b"\x01\x00"), "another form"),
    "request with a long mask": (request(mask=b"\x01\x00\x00"), "mask of 3 bytes for 10"),
    "request of row 10": (request(mask=b"\x00\x04"), "beyond 10"),
    "answer to nobody": (answer(1), "nobody asked"),
    "answer to a later question": (answer(6), "nobody asked"),
    "answer with a row too many": (answer(5, array=tensor(3), mask=b"\x07"), "beyond 2"),
    "answer with other rows": (answer(5, mask=b"\x0c"), "beyond 2"),
    "answer with all but one": (answer(5, rows=(1,), named=False), "1 rows where 2 were asked"),
    "answer that miscounts": (answer(5, (1, 4), mask=b"\x02"), "2 rows with a mask of 1"),
    "answer with a NaN": (answer(5, array=NAN[2:4]), "NaN"),
}  # fmt: skip

HONEST = {
    Kind.PROJECTION: frame(incarnation=2),
    Kind.GALLERY: frame(Kind.GALLERY, incarnation=2),
    Kind.PROTOTYPES: frame(Kind.PROTOTYPES, incarnation=2, mask=b"\x1f"),
    Kind.REQUEST: request(incarnation=2),
    Kind.ANSWER: answer(5, incarnation=2),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_refused_frame_is_counted_and_changes_nothing(name):
    bad, says = BAD_FRAMES[name]
    receiver = endpoint(A)
    receiver.accept(frame(round_=7, incarnation=2), 150)  # from now on, 1 is stale
    receiver.send(AB, Kind.REQUEST, 5, mask=mask(1, 4))
    receiver.ledger.drain()
    if name != "stale":
        bad = replace(bad, incarnation=3)  # must not make the honest ones stale either
    with pytest.raises(ProtocolError, match=says):
        receiver.accept(bad, 1000)
    key = Key(bad.kind.phase, bad.round, bad.edge, bad.direction)
    control = len(bad.mask or b"")
    expected = (1, len(bad.payload), 1000 - len(bad.payload) - control, control)
    assert receiver.ledger.drain() == [(key, "rejected", *expected)]
    assert not receiver.arrived([(bad.edge, bad.kind, bad.round)])
    for honest in HONEST.values():
        receiver.accept(honest, 150)
    addresses = [(AB, kind, honest.round) for kind, honest in HONEST.items()]
    assert receiver.arrived(addresses)
    for kind, honest in HONEST.items():
        message = receiver.take([(AB, kind, honest.round)])[AB]
        rows = {Kind.REQUEST: 0, Kind.ANSWER: 2}.get(kind, KINDS[kind])
        assert message.array.tolist() == tensor(rows).tolist()
    assert fates(receiver) == {"delivered": 5}


@pytest.mark.parametrize("name", [n for n, (bad, _) in BAD_FRAMES.items() if bad.edge == AB])
def test_a_refusal_names_the_edge(name):
    bad, _ = BAD_FRAMES[name]
    receiver = endpoint(A)
    receiver.accept(frame(round_=7, incarnation=2), 150)
    receiver.send(AB, Kind.REQUEST, 5, mask=mask(1, 4))
    with pytest.raises(ProtocolError, match=r"b->a|edge 0"):
        receiver.accept(bad, 1000)


def test_an_answer_to_an_earlier_question_is_not_taken_for_the_present_one():
    receiver = endpoint(A)
    receiver.send(AB, Kind.REQUEST, 5, mask=mask(1, 4))
    receiver.take([(AB, Kind.ANSWER, 5)])
    receiver.send(AB, Kind.REQUEST, 8, mask=mask(2))
    with pytest.raises(ProtocolError, match="nobody asked"):
        receiver.accept(answer(6, rows=(1, 4)), 100)
    receiver.accept(answer(5, rows=(1, 4)), 100)
    receiver.accept(answer(8, rows=(2,), asked=(2,)), 100)
    assert receiver.take([(AB, Kind.ANSWER, 8)])[AB].array.tolist() == tensor(1).tolist()
    assert {f: n for f, n in fates(receiver).items() if f != "sent"} == {
        "missed": 1, "rejected": 1, "late": 1, "delivered": 1,
    }  # fmt: skip


def test_changing_the_mask_after_asking_changes_nothing():
    receiver, asked = endpoint(A), mask(1, 4)
    receiver.send(AB, Kind.REQUEST, 5, mask=asked)
    asked[:] = True
    with pytest.raises(ProtocolError, match="beyond 2"):
        receiver.accept(answer(5, array=tensor(3), mask=b"\x07"), 100)


# Incarnations


def test_a_restarted_peer_makes_its_older_self_stale_on_that_edge_alone():
    receiver = endpoint(A)
    receiver.accept(frame(round_=0, incarnation=0), 150)
    receiver.accept(frame(round_=1, incarnation=2), 150)
    with pytest.raises(ProtocolError, match="stale"):
        receiver.accept(frame(round_=2, incarnation=1), 150)
    receiver.accept(frame(round_=2, incarnation=2), 150)
    other = frame(edge=AC, array=tensor(dim=2), incarnation=0)
    receiver.accept(other, 150)
    assert fates(receiver) == {"delivered": 4, "rejected": 1}


# Copies, late frames, floods


def test_copies_are_counted_and_neither_kept_nor_handed_out_twice():
    receiver = endpoint(A)
    address = (AB, Kind.PROJECTION, 4)
    receiver.accept(frame(round_=4), 150)
    receiver.accept(frame(round_=4, array=tensor(start=100.0)), 150)  # while the first waits
    assert receiver.take([address])[AB].array.tolist() == tensor().tolist()
    receiver.accept(frame(round_=4), 150)  # after it was taken
    receiver.accept(frame(round_=3), 150)  # from a round that is over
    assert not receiver.arrived([address])
    assert not receiver.arrived([(AB, Kind.PROJECTION, 3)])
    assert fates(receiver) == {"delivered": 1, "duplicated": 3}


def test_the_same_round_of_another_kind_or_edge_is_no_copy():
    receiver = endpoint(A)
    receiver.accept(frame(round_=4), 150)
    receiver.take([(AB, Kind.PROJECTION, 4)])
    receiver.accept(frame(Kind.GALLERY, round_=0), 170)
    receiver.accept(frame(edge=AC, round_=4, array=tensor(dim=2)), 150)
    assert receiver.take([(AB, Kind.GALLERY, 0), (AC, Kind.PROJECTION, 4)]).keys() == {AB, AC}
    assert fates(receiver) == {"delivered": 3}


def test_a_late_frame_is_counted_late_once_and_is_not_handed_out():
    receiver = endpoint(A)
    addresses = [(AB, Kind.PROJECTION, 0), (AC, Kind.PROJECTION, 0)]
    receiver.accept(frame(edge=AC, array=tensor(dim=2)), 150)
    assert receiver.take(addresses).keys() == {AC}
    assert receiver.ledger.drain() == [
        (Key("train", 0, AC, 1), "delivered", 1, 80, 70, 0),
        (Key("train", 0, AB, 1), "missed", 1, 0, 0, 0),
    ]
    receiver.accept(frame(), 141)
    assert receiver.ledger.drain() == [(Key("train", 0, AB, 1), "late", 1, 120, 21, 0)]
    assert not receiver.arrived(addresses[:1])
    receiver.accept(frame(), 141)
    assert fates(receiver) == {"duplicated": 1}
    receiver.accept(frame(round_=1), 141)
    assert receiver.take([(AB, Kind.PROJECTION, 1)]).keys() == {AB}


@pytest.mark.parametrize("node", [A, B, C])
def test_a_missed_frame_is_entered_in_the_direction_in_which_it_would_have_come(node):
    receiver = endpoint(node)
    edges = [edge.index for edge in TRIANGLE.incident(node)]
    assert receiver.take([(edge, Kind.ANSWER, 6) for edge in edges]) == {}
    # a is the tail of both its edges, c the head of both; b is the head of 0 and the tail of 2.
    direction = {A: {AB: 1, AC: 1}, B: {AB: 0, BC: 1}, C: {AC: 0, BC: 0}}[node]
    assert receiver.ledger.drain() == [
        (Key("inference", 6, edge, direction[edge]), "missed", 1, 0, 0, 0) for edge in edges
    ]


def test_a_flood_on_one_edge_is_refused_and_leaves_the_other_open():
    receiver = endpoint(A)
    for round_ in range(UNREAD_LIMIT):
        receiver.accept(frame(round_=round_), 150)
    for round_ in range(UNREAD_LIMIT, 3 * UNREAD_LIMIT):
        with pytest.raises(ProtocolError, match="unread"):
            receiver.accept(frame(round_=round_), 150)
    receiver.accept(frame(edge=AC, array=tensor(dim=2)), 150)
    assert fates(receiver) == {"delivered": UNREAD_LIMIT + 1, "rejected": 2 * UNREAD_LIMIT}
    receiver.take([(AB, Kind.PROJECTION, 0)])
    receiver.accept(frame(round_=UNREAD_LIMIT), 150)
    with pytest.raises(ProtocolError, match="unread"):
        receiver.accept(frame(round_=UNREAD_LIMIT + 1), 150)
    for round_ in range(1, UNREAD_LIMIT + 1):
        assert receiver.take([(AB, Kind.PROJECTION, round_)]).keys() == {AB}
    assert fates(receiver) == {"delivered": 1, "rejected": 1}


def test_missed_and_late_frames_take_no_place_of_unread_ones():
    receiver = endpoint(A)
    for round_ in range(2 * UNREAD_LIMIT):
        receiver.take([(AB, Kind.PROJECTION, round_)])
        receiver.accept(frame(round_=round_), 150)
        receiver.accept(frame(round_=round_), 150)
    counts = {"missed": 2 * UNREAD_LIMIT, "late": 2 * UNREAD_LIMIT, "duplicated": 2 * UNREAD_LIMIT}
    assert fates(receiver) == counts


# The switchboard


def board_of(*nodes, outside=None, limits=LIMITS):
    board = Switchboard(TRIANGLE, outside)
    ends = {node: endpoint(node, board, limits=limits) for node in nodes}
    for end in ends.values():
        board.attach(end)
    return board, ends


def test_nodes_of_one_process_exchange_the_same_bytes_as_through_a_transport():
    spy = Spy()
    board, ends = board_of(A, B, outside=spy)
    ends[A].send(AB, Kind.PROJECTION, 0, tensor())
    ends[A].send(AC, Kind.PROJECTION, 0, tensor(dim=2))
    assert board.touched == {B}
    ((to, buffer),) = spy.sent
    assert to == C
    elsewhere, others = board_of(C)
    elsewhere.deliver(buffer)
    assert elsewhere.touched == {C}
    assert others[C].take([(AC, Kind.PROJECTION, 0)])[AC].array.tolist() == tensor(dim=2).tolist()
    assert ends[B].take([(AB, Kind.PROJECTION, 0)])[AB].array.tolist() == tensor().tolist()
    assert board.drain() == [
        (Key("train", 0, AB, 0), "sent", 1, 120, 21, 0),
        (Key("train", 0, AC, 0), "sent", 1, 80, 21, 0),
        (Key("train", 0, AB, 0), "delivered", 1, 120, 21, 0),
    ]
    assert board.drain() == []
    assert elsewhere.drain() == [(Key("train", 0, AC, 0), "delivered", 1, 80, 21, 0)]


def test_no_way_out_is_an_error_of_the_sender():
    _, ends = board_of(A, B)
    with pytest.raises(ProtocolError, match="node 2 is not in this process"):
        ends[A].send(AC, Kind.PROJECTION, 0, tensor(dim=2))


GOOD = encode(frame())


@pytest.mark.parametrize(
    "buffer",
    [b"", b"\x00", GOOD[:-1], GOOD + b"\x00", GOOD[:40] + b"\xff" + GOOD[41:], bytes(1000)],
)
def test_bytes_that_are_no_frame_are_counted_and_never_raised(buffer):
    board, ends = board_of(A, B, C)
    board.deliver(buffer)
    assert board.rejected == 1
    assert len(board.rejections) == 1
    assert board.touched == set()
    assert board.drain() == []
    board.deliver(GOOD)
    assert board.rejected == 1
    assert ends[A].take([(AB, Kind.PROJECTION, 0)]).keys() == {AB}


@pytest.mark.parametrize("name", sorted({*BAD_FRAMES} - {"own direction", "foreign edge"}))
def test_frames_that_an_endpoint_refuses_are_not_raised_either(name):
    board, ends = board_of(A, B, C)
    board.deliver(encode(frame(round_=7, incarnation=2)))
    ends[A].send(AB, Kind.REQUEST, 5, mask=mask(1, 4))
    board.drain()
    board.touched.clear()
    bad, _ = BAD_FRAMES[name]
    board.deliver(encode(bad))
    assert board.rejected == 1
    assert board.touched == set()
    counted = sum(entry[2] for entry in board.drain() if entry[1] == "rejected")
    assert counted == (0 if bad.edge == 3 else 1)


def test_a_sound_frame_for_a_node_elsewhere_is_entered_as_rejected():
    board, _ = board_of(B, C)
    board.deliver(GOOD)  # for a
    assert board.rejected == 1
    assert "node 0 does not live in this process" in board.rejections[0]
    assert board.drain() == [(Key("train", 0, AB, 1), "rejected", 1, 120, 21, 0)]


def test_every_refusal_is_counted_and_the_last_ones_are_explained():
    board, _ = board_of(A)
    for at in range(200):
        board.deliver(encode(frame(round_=at, run=run_tag(2))))
    assert board.rejected == 200
    assert 0 < len(board.rejections) < 200
    assert "round 199" in board.rejections[-1]


def test_refusals_do_not_keep_their_buffers_alive():
    """64 explanations with frames of up to 256 MiB each would be 16 GiB."""
    board, _ = board_of(A)
    tracemalloc.start()
    try:
        for _ in range(10):
            board.deliver(encode(frame(payload=bytes(2**20))))
            board.deliver(encode(frame(payload=bytes(2**20)))[:-1])
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert board.rejected == 20
    assert kept < 2**20


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_every_buffer_is_counted_once_whatever_it_is(data):
    """Mutations of sound frames: delivered + late + duplicated + rejected add up to all."""
    board, ends = board_of(A, B, C)
    ends[A].send(AB, Kind.REQUEST, 5, mask=mask(1, 4))
    board.drain()
    pool = [*HONEST.values(), *(bad for bad, _ in BAD_FRAMES.values())]
    count = data.draw(st.integers(1, 12))
    undecodable = 0
    for _ in range(count):
        buffer = encode(data.draw(st.sampled_from(pool)))
        if data.draw(st.integers(0, 3)) == 0:
            at = data.draw(st.integers(0, len(buffer) - 1))
            buffer = buffer[:at] + bytes([buffer[at] ^ 0x5A]) + buffer[at + 1 :]
        try:
            undecodable += decode(buffer).edge == 3
        except FrameError:
            undecodable += 1
        board.deliver(buffer)
    counts = Counter()
    for _, fate, messages, *_ in board.drain():
        counts[fate] += messages
    assert sum(counts.values()) + undecodable == count
    assert counts["rejected"] + undecodable == board.rejected
    assert set(counts) <= {"delivered", "rejected", "duplicated"}


# Both ends and the books together


class Faulty:
    """A transport that loses, damages, copies, delays and forges as it is told."""

    def __init__(self, plan):
        self.plan = iter(plan)
        self.delayed = []
        self.count = Counter()
        self.bytes = 0
        self.boards = {}

    def send(self, node, buffer):
        fault = next(self.plan, "none")
        self.count[fault] += 1
        self.bytes += len(buffer)
        board = self.boards[node]
        if fault == "delayed":
            self.delayed.append((board, buffer))
        elif fault == "damaged":
            board.deliver(buffer[:-1] + bytes([buffer[-1] ^ 1]))
        elif fault == "copied":
            board.deliver(buffer)
            board.deliver(buffer)
        elif fault == "stranger":
            board.deliver(encode(replace(decode(buffer), run=run_tag(2))))
            board.deliver(buffer)
        elif fault == "none":
            board.deliver(buffer)


@given(
    plan=st.lists(
        st.sampled_from(["none", "lost", "delayed", "damaged", "copied", "stranger"]),
        min_size=18,
        max_size=18,
    ),
    order=st.permutations([A, B, C]),
)
@settings(max_examples=100, deadline=None)
def test_the_books_balance_under_every_fault(plan, order):
    """Three rounds of projections on three edges: 18 messages, each with its fault."""
    faulty = Faulty(plan)
    ends = {}
    for node in order:
        board = Switchboard(TRIANGLE, faulty)
        faulty.boards[node] = board
        ends[node] = endpoint(node, faulty)
        board.attach(ends[node])
    account, received = Account(), Counter()
    for round_ in range(3):
        for node in order:
            for edge in TRIANGLE.incident(node):
                ends[node].send(edge.index, Kind.PROJECTION, round_, tensor(dim=edge.dim))
        for node in order:
            wanted = [(edge.index, Kind.PROJECTION, round_) for edge in TRIANGLE.incident(node)]
            received["taken"] += len(ends[node].take(wanted))
        for board, buffer in faulty.delayed:
            board.deliver(buffer)
        faulty.delayed.clear()
        for node in order:
            account.post(faulty.boards[node].drain())
    lines = [*account.settle(), *account.close()]
    assert len(lines) == 18
    assert account.lost == faulty.count["lost"] + faulty.count["damaged"]
    assert sum(count.total for count in account.totals.values()) == faulty.bytes
    # Each payload by hand: 10 rows x d_ij x 4 bytes, both directions of every edge, three rounds.
    assert sum(c.payload for c in account.totals.values()) == 3 * 2 * 40 * (3 + 2 + 4)
    fate = Counter()
    for line in lines:
        for name, count in line.fates.items():
            fate[name] += count.messages
    assert fate["late"] == faulty.count["delayed"]
    assert fate["duplicated"] == faulty.count["copied"]
    assert fate["rejected"] == faulty.count["stranger"]
    assert fate["delivered"] == received["taken"]
    assert fate["delivered"] == 18 - sum(faulty.count[f] for f in ("lost", "delayed", "damaged"))
    assert fate["missed"] == 18 - fate["delivered"]


def test_names_in_messages_are_those_of_the_topology():
    receiver = endpoint(C)
    bad = frame(edge=BC, direction=0, array=tensor(dim=4), run=run_tag(2), round_=12)
    with pytest.raises(ProtocolError, match=re.escape("b->c, round 12: a frame of another run")):
        receiver.accept(bad, 200)
