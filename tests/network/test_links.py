"""Simulated links: the fate of every transmission, worked out by hand or from a closed form.

The network is the path a - b - c - d with the chord a - c; edges by index: 0 = a-b, 1 = a-c,
2 = b-c, 3 = c-d.
"""

import math
from typing import Any

import networkx as nx
import numpy as np
import pytest

from sheafnet.config import Config
from sheafnet.errors import ConfigError, FrameError
from sheafnet.network.frame import Frame, Kind, decode, encode, run_tag
from sheafnet.network.links import Links
from sheafnet.network.payload import WireDtype, pack
from sheafnet.topology import build_topology
from sheafnet.validation import check_model

A, B, C, D = range(4)
AB, AC, BC, CD = range(4)
EDGES = [["a", "b"], ["b", "c"], ["c", "d"], ["a", "c"]]
PROJECTION, GRADIENT, REQUEST, ANSWER = Kind.PROJECTION, Kind.GRADIENT, Kind.REQUEST, Kind.ANSWER
ESTIMATE = Kind.ESTIMATE


def config_of(seed: int = 0, **faults: Any) -> Config:
    values = {
        "name": "path", "dataset": "synthetic", "nodes": ["a", "b", "c", "d"], "edges": EDGES,
        "run": {"seed": seed}, "faults": faults,
    }  # fmt: skip
    return check_model(Config, values)


def links(seed: int = 0, **faults: Any) -> Links:
    config = config_of(seed, **faults)
    return Links(config, build_topology(config))


def both(of: Links, edge: int, rounds: int, kind: Kind = PROJECTION) -> list[tuple[str, ...]]:
    return [of.attempts(kind, r, edge, d) for r in range(rounds) for d in (0, 1)]


# Without chance


def test_without_faults_there_are_no_links_and_without_chances_all_is_delivered() -> None:
    config = config_of()
    bare = config.model_copy(update={"faults": None})
    assert Links.open(bare, build_topology(bare)) is None
    whole = Links.open(config, build_topology(config))
    assert whole is not None
    for kind in Kind:
        assert set(both(whole, AB, 20, kind)) == {("delivered",)}


@pytest.mark.parametrize(
    ("fault", "fate"),
    [
        ("loss", "dropped"), ("corruption", "rejected"), ("delay", "late"),
        ("reordering", "late"), ("duplication", "duplicated"),
    ],
)  # fmt: skip
def test_a_certain_fault_happens_to_every_message_but_those_of_an_evaluation(
    fault: str, fate: str
) -> None:
    sure = links(**{fault: 1.0})
    assert set(both(sure, AC, 10)) == {(fate,)}
    assert set(both(sure, AC, 10, REQUEST)) == {(fate,)}
    for kind in (Kind.GALLERY, Kind.PROTOTYPES):
        assert set(both(sure, AC, 10, kind)) == {("delivered",)}


def test_faults_meet_a_transmission_in_their_order() -> None:
    """What is lost is not damaged, what is damaged is not late, what is late has no copy."""
    rest = ["loss", "corruption", "delay", "duplication"]
    for fate in ("dropped", "rejected", "late", "duplicated"):
        assert set(both(links(**dict.fromkeys(rest, 1.0)), AB, 3)) == {(fate,)}
        rest.pop(0)


def test_phases_bound_the_chances() -> None:
    only = links(loss=1.0, phases=["inference"])
    assert set(both(only, AB, 5)) == {("delivered",)}
    assert set(both(only, AB, 5, REQUEST)) == {("dropped",)}


def test_an_edge_may_have_its_own_chances_in_one_direction_or_both() -> None:
    own = links(
        loss=1.0,
        edges=[
            {"between": ["b", "c"], "loss": 0.0},
            {"from_to": ["c", "b"], "corruption": 1.0},
            {"from_to": ["d", "c"], "loss": 0.0, "duplication": 1.0},
        ],
    )
    # b is the tail of b-c and c that of c-d: direction 0 is b->c and c->d.
    assert own.attempts(PROJECTION, 0, BC, 0) == ("delivered",)
    assert own.attempts(PROJECTION, 0, BC, 1) == ("rejected",)
    assert own.attempts(PROJECTION, 0, CD, 0) == ("dropped",)
    assert own.attempts(PROJECTION, 0, CD, 1) == ("duplicated",)
    assert set(both(own, AB, 3)) == {("dropped",)}


def test_a_link_is_down_in_its_window_and_phase() -> None:
    down = links(
        down=[
            {"between": ["b", "a"], "rounds": [2, 4]},
            {"from_to": ["c", "a"], "rounds": [1, None], "phase": "inference"},
        ]
    )
    lost = [
        r for r in range(6) for d in (0, 1) if down.attempts(PROJECTION, r, AB, d)[0] != "delivered"
    ]
    assert lost == [2, 2, 3, 3]
    assert set(both(down, AB, 6, REQUEST)) == {("delivered",)}
    assert [down.attempts(REQUEST, r, AC, 1)[0] for r in range(3)] == [
        "delivered", "dropped", "dropped",
    ]  # fmt: skip
    assert set(both(down, AC, 6)) == {("delivered",)}
    assert [down.attempts(REQUEST, r, AC, 0)[0] for r in range(3)] == ["delivered"] * 3


def test_a_node_asleep_sends_nothing_and_receives_nothing() -> None:
    dead = links(nodes=[{"node": "c", "rounds": [3, None]}, {"node": "a", "rounds": [0, 1]}])
    assert [dead.asleep("train", r, C) for r in range(5)] == [False] * 3 + [True] * 2
    assert [dead.asleep("train", r, A) for r in range(3)] == [True, False, False]
    assert not dead.asleep("inference", 3, C)
    assert not dead.asleep("evaluation", 3, C)
    assert dead.attempts(PROJECTION, 3, CD, 0) == ()
    assert dead.attempts(PROJECTION, 3, CD, 1) == ("dropped",)
    assert dead.attempts(PROJECTION, 2, CD, 0) == ("delivered",)
    assert dead.attempts(REQUEST, 9, CD, 0) == ("delivered",)


def test_a_straggler_is_late_on_all_its_edges_in_a_round_or_on_none() -> None:
    slow = links(stragglers=[{"node": "c", "probability": 0.5}])
    outgoing = [(AC, 1), (BC, 1), (CD, 0)]
    rounds = [{slow.attempts(PROJECTION, r, e, d) for e, d in outgoing} for r in range(200)]
    assert all(len(fates) == 1 for fates in rounds)
    late = sum(fates == {("late",)} for fates in rounds)
    assert abs(late - 100) <= 4 * math.sqrt(200 * 0.25)
    assert set(both(slow, AB, 50)) == {("delivered",)}
    assert {slow.attempts(PROJECTION, r, AC, 0) for r in range(50)} == {("delivered",)}


@pytest.mark.parametrize(
    "groups", [[["a", "b"], ["c", "d"]], [["a", "b"]], [["a"], ["b"], ["c", "d"]], [["d"]]]
)
def test_a_partition_cuts_the_edges_between_its_groups(groups: list[list[str]]) -> None:
    cut = links(partitions=[{"groups": groups, "rounds": [5, 8]}])
    graph = nx.Graph([tuple(edge) for edge in EDGES])
    parts = [set(group) for group in groups]
    rest = set(graph) - set().union(*parts)
    boundary = {
        frozenset(edge)
        for part in [*parts, rest]
        for edge in nx.edge_boundary(graph, part, set(graph) - part)
    }
    network = build_topology(config_of())
    ids = [node.id for node in network.nodes]
    for edge in network.edges:
        separated = frozenset((ids[edge.tail], ids[edge.head])) in boundary
        for direction in (0, 1):
            fates = [cut.attempts(PROJECTION, r, edge.index, direction)[0] for r in range(10)]
            expected = ["dropped" if separated and 5 <= r < 8 else "delivered" for r in range(10)]
            assert fates == expected
    assert boundary


def test_a_schedule_says_when_an_edge_is_there() -> None:
    some = links(activity={"schedule": [{"between": ["c", "b"], "every": 3, "offset": 1}]})
    there = [some.active("train", r, BC) for r in range(7)]
    assert there == [False, True, False, False, True, False, False]
    assert [some.attempts(PROJECTION, r, BC, 0) for r in range(2)] == [(), ("delivered",)]
    assert all(some.active("train", r, AB) for r in range(7))
    assert all(some.active("evaluation", r, BC) for r in range(7))


# Replies


def test_a_reply_is_sent_only_to_what_has_arrived() -> None:
    """The request b->a is lost, so a does not answer; a's own request is answered by b."""
    one_way = links(edges=[{"from_to": ["b", "a"], "loss": 1.0}])
    assert one_way.attempts(REQUEST, 0, AB, 1) == ("dropped",)
    assert one_way.attempts(ANSWER, 0, AB, 0) == ()
    assert one_way.attempts(REQUEST, 0, AB, 0) == ("delivered",)
    assert one_way.attempts(ANSWER, 0, AB, 1) == ("dropped",)
    assert one_way.attempts(GRADIENT, 0, AB, 0) == ()
    assert one_way.attempts(GRADIENT, 0, AB, 1) == ("dropped",)


def test_estimates_go_where_the_answer_before_them_has_arrived() -> None:
    """Step 3 of round 1 is number 259. d sleeps in round 1; a-b is there in every other one."""
    some = links(
        edges=[{"from_to": ["b", "c"], "loss": 0.5}],
        nodes=[{"node": "d", "rounds": [1, 2], "phase": "inference"}],
        activity={"schedule": [{"between": ["a", "b"], "every": 2}]},
    )
    assert some.attempts(ESTIMATE, 256 * 1 + 3, CD, 0) == ()  # d has asked nothing
    assert some.attempts(ESTIMATE, 256 * 1 + 3, CD, 1) == ()
    assert some.attempts(ESTIMATE, 256 * 2 + 3, CD, 0) == ("delivered",)
    assert [bool(some.attempts(ESTIMATE, 256 * r + 1, AB, 0)) for r in range(4)] == [1, 0, 1, 0]
    told = {True: set(), False: set()}  # type: dict[bool, set[tuple[str, ...]]]
    for round_ in range(60):
        answered = some.delivers(ANSWER, round_, BC, 0)
        told[answered] |= {some.attempts(ESTIMATE, 256 * round_ + s, BC, 0) for s in range(1, 5)}
    assert told == {True: {("delivered",), ("dropped",)}, False: {()}}


@pytest.mark.parametrize("fault", ["delay", "corruption", "loss"])
def test_what_did_not_get_through_is_not_replied_to(fault: str) -> None:
    assert set(both(links(**{fault: 1.0}), AB, 3, ANSWER)) == {()}
    assert set(both(links(duplication=1.0), AB, 3, ANSWER)) == {("duplicated",)}


# Retransmission


@pytest.mark.parametrize("fault", ["loss", "corruption"])
def test_what_never_gets_through_is_tried_once_and_as_often_again_as_allowed(fault: str) -> None:
    fate = {"loss": "dropped", "corruption": "rejected"}[fault]
    assert links(retransmissions=3, **{fault: 1.0}).attempts(PROJECTION, 0, AB, 0) == (fate,) * 4


def test_nothing_is_sent_again_after_it_arrived_or_is_on_its_way() -> None:
    found = set(both(links(loss=0.5, delay=0.3, retransmissions=2), AB, 400))
    assert found == {
        ("delivered",), ("late",), ("dropped", "delivered"), ("dropped", "late"),
        ("dropped", "dropped", "delivered"), ("dropped", "dropped", "late"),
        ("dropped", "dropped", "dropped"),
    }  # fmt: skip


def test_the_same_transmissions_are_lost_however_many_may_follow() -> None:
    once, more = links(loss=0.4), links(loss=0.4, retransmissions=2)
    for first, tried in zip(both(once, AB, 200), both(more, AB, 200), strict=True):
        assert tried[0] == first[0]


# Chance


@pytest.mark.parametrize(
    ("fault", "fate"),
    [("loss", "dropped"), ("corruption", "rejected"), ("delay", "late"),
     ("duplication", "duplicated")],
)  # fmt: skip
def test_a_fault_is_as_frequent_as_its_probability(fault: str, fate: str) -> None:
    """Within 4 standard deviations of the binomial distribution, over edges and directions."""
    n, p = 4 * 2 * 1000, 0.15
    some = links(**{fault: p})
    hits = sum(found == (fate,) for edge in range(4) for found in both(some, edge, n // 8))
    assert abs(hits - n * p) <= 4 * math.sqrt(n * p * (1 - p))
    assert 0 < hits < n


def test_edges_come_and_go_as_often_as_the_activity_says() -> None:
    n, p = 4 * 1000, 0.3
    some = links(activity={"probability": p})
    there = sum(some.active("train", r, e) for r in range(n // 4) for e in range(4))
    assert abs(there - n * p) <= 4 * math.sqrt(n * p * (1 - p))
    for round_ in range(50):
        sent = [some.attempts(PROJECTION, round_, AB, d) for d in (0, 1)]
        assert sent == [("delivered",) if some.active("train", round_, AB) else ()] * 2


def test_losses_of_edges_directions_kinds_and_rounds_are_independent() -> None:
    half = links(loss=0.5)
    series = {
        (kind, edge, d): [half.attempts(kind, r, edge, d) == ("dropped",) for r in range(400)]
        for kind in (PROJECTION, REQUEST) for edge in (AB, BC) for d in (0, 1)
    }  # fmt: skip
    columns = np.array([*series.values(), np.roll(series[PROJECTION, AB, 0], 1)], dtype=float)
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 4 / math.sqrt(400)


def test_the_same_seed_draws_the_same_and_another_seed_another() -> None:
    mix = {"loss": 0.2, "delay": 0.2, "corruption": 0.1, "duplication": 0.1}
    first = both(links(7, **mix), AB, 100)
    assert both(links(7, **mix), AB, 100) == first
    assert both(links(8, **mix), AB, 100) != first


def test_what_is_lost_at_a_low_rate_is_lost_at_a_higher_one() -> None:
    """A sweep over faults.loss compares nested sets of losses."""
    low, high = both(links(loss=0.1), AB, 500), both(links(loss=0.3), AB, 500)
    assert {b for a, b in zip(low, high, strict=True) if a == ("dropped",)} == {("dropped",)}
    assert 0 < low.count(("dropped",)) < high.count(("dropped",))


# Damage


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_a_damaged_frame_is_always_refused(rows: int) -> None:
    frame = Frame(
        PROJECTION, run_tag(1), 0, 3, BC, 1, WireDtype.FLOAT32, rows, None,
        pack(np.ones((rows, 3), np.float32), WireDtype.FLOAT32),
    )  # fmt: skip
    buffer, some, flipped = encode(frame), links(), set()
    for attempt in range(300):
        damaged = some.damage(frame, attempt, buffer)
        bits = sum((x ^ y).bit_count() for x, y in zip(buffer, damaged, strict=True))
        flipped.add(bits)
        with pytest.raises(FrameError):
            decode(damaged)
    assert flipped == {1, 2}
    assert some.damage(frame, 5, buffer) == some.damage(frame, 5, buffer)


# What a configuration may not say


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"nodes": [{"node": "e", "rounds": [0, 1]}]},
         r"faults\.nodes\.0\.node: no node is called 'e'"),
        ({"stragglers": [{"node": "aa", "probability": 0.1}]},
         r"stragglers\.0\.node.*Did you mean 'a'"),
        ({"edges": [{"between": ["a", "d"], "loss": 0.1}]},
         r"faults\.edges\.0\.between: a and d are joined by no channel; those of a lead to b, c"),
        ({"down": [{"from_to": ["d", "b"], "rounds": [0, 1]}]},
         r"down\.0\.from_to: d and b.*lead to c"),
        ({"activity": {"schedule": [{"between": ["a", "x"], "every": 2}]}},
         r"faults\.activity\.schedule\.0\.between: no node is called 'x'"),
        ({"activity": {"schedule": [{"between": ["a", "b"], "every": 2},
                                    {"between": ["b", "a"], "every": 3}]}},
         r"schedule\.1\.between: the edge of b and a is named twice"),
        ({"stragglers": [{"node": "a", "probability": 0.1}] * 2},
         r"stragglers\.1\.node: a is named twice"),
        ({"partitions": [{"groups": [["a"], ["a", "b"]], "rounds": [0, 1]}]},
         r"partitions\.0\.groups: a is in two groups"),
        ({"partitions": [{"groups": [["a", "b", "c", "d"]], "rounds": [0, 1]}]},
         "nothing would be cut"),
    ],
)  # fmt: skip
def test_a_fault_of_what_is_not_there_is_refused(faults: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        links(**faults)


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"loss": 1.5}, r"faults\.loss = 1\.5: .*less than or equal to 1"),
        ({"losses": 0.5}, r"faults\.losses: unknown key\. Did you mean 'loss'"),
        ({"phases": ["evaluation"]}, r"faults\.phases\.0 = 'evaluation': .*'train' or 'inference'"),
        ({"phases": []}, r"faults\.phases"),
        ({"retransmissions": 17}, r"faults\.retransmissions = 17"),
        ({"down": [{"rounds": [0, 1]}]}, r"faults\.down\.0: name the edge by either between"),
        ({"down": [{"between": ["a", "b"], "from_to": ["a", "b"], "rounds": [0, 1]}]},
         "either between"),
        ({"nodes": [{"node": "a", "rounds": [4, 4]}]},
         r"nodes\.0\.rounds: \[4, 4\] holds no round"),
        ({"nodes": [{"node": "a"}]}, r"faults\.nodes\.0\.rounds: is missing"),
        ({"activity": {"schedule": [{"between": ["a", "b"], "every": 2, "offset": 2}]}},
         r"offset = 2 must be below every = 2"),
        ({"partitions": [{"groups": [], "rounds": [0, 1]}]}, r"partitions\.0\.groups"),
    ],
)  # fmt: skip
def test_a_malformed_fault_is_refused(faults: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_of(**faults)
