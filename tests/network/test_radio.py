"""Simulated time and energy of rounds: closed forms, and a second reckoning by networkx."""

import itertools
import json
import random
from collections.abc import Sequence

import networkx as nx
import pytest

from sheafnet.config import LinkConfig, Named
from sheafnet.network.frame import Kind
from sheafnet.network.radio import Radio, RadioAccount, Sending, total
from sheafnet.topology import Edge, Node, Topology

SLOW = LinkConfig(
    name="slow",
    bandwidth_bps=1000.0,
    latency_s=0.25,
    send_j_per_bit=3e-3,
    receive_j_per_bit=1e-3,
)
"""A byte takes 8 ms, so that 125 bytes take a second."""
BYTES = 125


def network(pairs: Sequence[tuple[int, int]]) -> Topology:
    count = 1 + max(max(pair) for pair in pairs)
    nodes = tuple(Node(k, f"n{k}", None, Named(name="mlp"), 8) for k in range(count))
    edges = tuple(Edge(k, *pair, 4) for k, pair in enumerate(sorted(pairs)))
    return Topology("t", nodes, edges)


def everybody(topology: Topology, kind: Kind, size: int = BYTES, **more: int) -> list[Sending]:
    """A message each way over every edge."""
    values = {"sent": 1, "heard": 1} | more
    return [
        Sending(kind, edge.index, direction, 0, size, **values)
        for edge in topology.edges
        for direction in (0, 1)
    ]


def radio(topology: Topology, profile: LinkConfig = SLOW) -> Radio:
    return Radio(topology, [profile] * len(topology.edges))


PATH = network([(0, 1), (1, 2)])


def test_steps_of_diffusion_follow_each_other() -> None:
    """Two nodes on one half-duplex link: requests, answers and each step take two messages, each of
    a second. The latency of all but the last passes while the other one sends."""
    pair = network([(0, 1)])
    sent = everybody(pair, Kind.REQUEST) + everybody(pair, Kind.ANSWER)
    for step in (1, 2, 3):
        sent += everybody(pair, Kind.ESTIMATE, step=step)
        assert radio(pair).seconds(sent) == pytest.approx(2 * (2 + step) + 0.25)
    # On a path the second step of an end waits for the first one of the middle.
    second = Sending(Kind.ESTIMATE, 0, 0, 0, BYTES, 1, 1, step=2)
    path = [*everybody(PATH, Kind.ESTIMATE, step=1), second]
    assert radio(PATH).seconds(path) == pytest.approx(4 + 1 + 0.25)
    # What the middle makes of the first one it may tell once that is there, not once it is sent.
    heard = Sending(Kind.ESTIMATE, 0, 0, 0, BYTES, 1, 1, step=1)
    told = Sending(Kind.ESTIMATE, 1, 0, 0, BYTES, 1, 1, step=2)
    assert radio(PATH).seconds([heard, told]) == pytest.approx((1 + 0.25) + (1 + 0.25))


def test_an_answer_on_its_way_holds_nobody_up() -> None:
    """0-1 is far, 1-2 takes 13 s a message. 1 may answer 2 as soon as it is asked, at 13.25 s,
    though the answer of 0 is on its way to it then, from 12 s to 22 s."""
    far = SLOW.model_copy(update={"name": "far", "latency_s": 10.0})
    crawl = SLOW.model_copy(update={"name": "crawl", "bandwidth_bps": 1000.0 / 13})
    sent = [
        Sending(Kind.REQUEST, 0, 1, 0, BYTES, 1, 1),
        Sending(Kind.REQUEST, 1, 1, 0, BYTES, 1, 1),
        Sending(Kind.ANSWER, 0, 0, 0, BYTES, 1, 1),
        Sending(Kind.ANSWER, 1, 0, 0, BYTES, 1, 1),
    ]
    assert Radio(PATH, [far, crawl]).seconds(sent) == pytest.approx(13.25 + 13 + 0.25)


def test_a_message_takes_its_bits_and_the_latency() -> None:
    one = Sending(Kind.PROJECTION, 0, 0, 0, BYTES, 1, 1)
    assert radio(PATH).seconds([one]) == 1.25
    assert radio(PATH).seconds([one._replace(size=2 * BYTES)]) == 2.25
    assert radio(PATH).seconds([]) == 0.0


def test_a_path_of_three() -> None:
    """All four messages are sent or heard by the node in the middle."""
    sent = everybody(PATH, Kind.PROJECTION)
    assert radio(PATH).seconds(sent) == 4 + 0.25
    assert radio(PATH).seconds(reversed(sent)) == 4 + 0.25


def test_a_path_of_three_that_asks() -> None:
    """The middle misses rows. It asks both in 0.2 s each; the first answer begins when the first
    request is there, at 0.2 + 0.25, the second follows on the radio of the middle."""
    ask, tell = 25, 50  # bytes: 0.2 s and 0.4 s
    requests = [
        Sending(Kind.REQUEST, 0, 1, 0, ask, 1, 1),
        Sending(Kind.REQUEST, 1, 0, 0, ask, 1, 1),
    ]
    answers = [
        Sending(Kind.ANSWER, 0, 0, 0, tell, 1, 1),
        Sending(Kind.ANSWER, 1, 1, 0, tell, 1, 1),
    ]
    begin = 0.2 + 0.25
    assert radio(PATH).seconds([*answers, *requests]) == pytest.approx(begin + 2 * 0.4 + 0.25)
    # The second end alone: its request goes first, and nothing else is in the way.
    alone = [requests[1], answers[1]]
    assert radio(PATH).seconds(alone) == pytest.approx(0.2 + 0.25 + 0.4 + 0.25)


def test_a_gradient_waits_for_all_projections_of_its_sender() -> None:
    """All eight messages pass the middle's radio. It is free at 4 s, and is sent n0's gradient
    then, which had its projection at 2.25 s, so that there is no gap."""
    sent = [*everybody(PATH, Kind.PROJECTION), *everybody(PATH, Kind.GRADIENT)]
    assert radio(PATH).seconds(sent) == pytest.approx(8.25)
    # The middle alone returns some: its last projection is there at 4.25 s.
    middle = [m for m in sent if m.kind is Kind.PROJECTION or m.edge != m.direction]
    assert [m.kind for m in middle].count(Kind.GRADIENT) == 2
    assert radio(PATH).seconds(middle) == pytest.approx(4.25 + 2 + 0.25)


@pytest.mark.parametrize(("nodes", "slots"), [(3, 6), (4, 4), (6, 4), (20, 4)])
def test_a_ring(nodes: int, slots: int) -> None:
    """A node has four messages to send or hear. On an even ring every other edge is in use at a
    time; on a triangle only one pair of radios can be."""
    ring = network([tuple(sorted((k, (k + 1) % nodes))) for k in range(nodes)])
    assert radio(ring).seconds(everybody(ring, Kind.PROJECTION)) == slots + 0.25


def test_the_hub_of_a_star_is_in_the_way() -> None:
    star = network([(0, k) for k in range(1, 8)])
    assert radio(star).seconds(everybody(star, Kind.PROJECTION)) == 2 * 7 + 0.25


def test_a_node_has_a_radio_for_each_profile() -> None:
    fast = SLOW.model_copy(update={"name": "fast", "bandwidth_bps": 4000.0, "latency_s": 0.0})
    both = Radio(PATH, [SLOW, fast])
    assert both.seconds(everybody(PATH, Kind.PROJECTION)) == 2.25
    assert both.seconds(everybody(PATH, Kind.PROJECTION)[2:]) == 0.5
    assert both.names == ("slow", "fast")


def test_transmissions_follow_one_another() -> None:
    tried = Sending(Kind.PROJECTION, 0, 0, 0, BYTES, 3, 1)
    assert radio(PATH).seconds([tried]) == 3.25


# A second reckoning


def _names(topology: Topology, message: Sending) -> tuple[int, int]:
    edge = topology.edges[message.edge]
    return (edge.tail, edge.head) if message.direction == 0 else (edge.head, edge.tail)


def by_longest_path(
    topology: Topology, profiles: Sequence[LinkConfig], sent: list[Sending]
) -> float:
    """Choose the next message by looking at all of them, again and again; then forget its time and
    let networkx find the longest path through who had to wait for whom."""
    graph = nx.DiGraph()
    graph.add_node("end")
    begun: dict[Sending, float] = {}
    last_use: dict[tuple[int, str], Sending] = {}
    air = {m: m.sent * m.size * 8 / profiles[m.edge].bandwidth_bps for m in sent}
    late = {m: profiles[m.edge].latency_s for m in sent}
    unasked = [m for m in sent if m.kind in (Kind.PROJECTION, Kind.REQUEST)]

    def before(message: Sending) -> list[tuple[Sending, float]]:
        """What has to be over, and how long after its begin."""
        if message in unasked:
            return []
        who = _names(topology, message)[0]
        own = [(m, air[m]) for m in unasked if _names(topology, m)[0] == who]
        return own + [(m, air[m] + late[m]) for m in unasked if _names(topology, m)[1] == who]

    while len(begun) < len(sent):
        able = []
        for message in sent:
            needs = before(message)
            if message in begun or any(m not in begun for m, _ in needs):
                continue
            name = profiles[message.edge].name
            uses = [last_use.get((node, name)) for node in _names(topology, message)]
            needs += [(m, air[m]) for m in uses if m is not None]
            start = max((begun[m] + wait for m, wait in needs), default=0.0)
            able.append((start, message.kind, message.edge, message.direction, message, needs))
        start, *_, message, needs = min(able, key=lambda found: found[:4])
        begun[message] = start
        for earlier, wait in needs:
            weight = max(wait, graph.get_edge_data(earlier, message, {"weight": 0.0})["weight"])
            graph.add_edge(earlier, message, weight=weight)
        graph.add_edge(message, "end", weight=air[message] + late[message])
        for node in _names(topology, message):
            last_use[node, profiles[message.edge].name] = message
    return float(nx.dag_longest_path_length(graph))


@pytest.mark.parametrize("seed", range(40))
def test_random_rounds_as_networkx_has_them(seed: int) -> None:
    draw = random.Random(seed)
    nodes = draw.randint(2, 7)
    pairs = [(draw.randrange(k), k) for k in range(1, nodes)]
    pairs += [p for p in itertools.combinations(range(nodes), 2) if draw.random() < 0.4]
    topology = network(sorted(set(pairs)))
    kinds = draw.choice([(Kind.PROJECTION, Kind.GRADIENT), (Kind.REQUEST, Kind.ANSWER)])
    profiles = [
        SLOW.model_copy(
            update={
                "name": name,
                "bandwidth_bps": 1000.0 * (1 + (name == "b")),
                "latency_s": draw.random(),
            }
        )
        for name in (draw.choice("ab") for _ in topology.edges)
    ]
    sent = [
        message._replace(size=draw.randint(1, 300), sent=draw.randint(1, 3))
        for kind in kinds
        for message in everybody(topology, kind)
        if draw.random() < 0.8
    ]
    found = Radio(topology, profiles).seconds(sent)
    assert found == pytest.approx(by_longest_path(topology, profiles, sent))
    draw.shuffle(sent)
    assert Radio(topology, profiles).seconds(sent) == found, "bit for bit, whatever the order"


# Energy


def test_energy_of_both_ends() -> None:
    """1,000 bits at 3 mJ sent and 1 mJ heard; the middle of the path sends and hears two."""
    account = RadioAccount(radio(PATH))
    (cost,) = account.enter("train", range(1), everybody(PATH, Kind.PROJECTION)).values()
    assert cost.joules == pytest.approx((4.0, 8.0, 4.0))
    assert total(cost.joules) == pytest.approx(16.0)
    assert account.busy("train") == (2.0, 4.0, 2.0)


def test_what_is_dropped_costs_its_sender_alone_and_a_copy_its_receiver_twice() -> None:
    account = RadioAccount(radio(PATH))
    lost = Sending(Kind.PROJECTION, 0, 0, 0, BYTES, 3, 0)
    copied = Sending(Kind.PROJECTION, 1, 0, 0, BYTES, 1, 2)
    (cost,) = account.enter("train", range(1), [lost, copied]).values()
    assert cost.joules == pytest.approx((9.0, 3.0, 2.0))


def test_energy_that_a_profile_does_not_tell_is_not_known() -> None:
    silent = LinkConfig(name="silent", bandwidth_bps=1000.0)
    account = RadioAccount(Radio(PATH, [SLOW, silent]))
    (cost,) = account.enter("train", range(1), everybody(PATH, Kind.PROJECTION)).values()
    assert cost.joules == (pytest.approx(4.0), None, None)
    assert total(cost.joules) is None


def test_the_books_add_rounds_and_go_on_from_json() -> None:
    once, resumed = (RadioAccount(radio(PATH)) for _ in range(2))
    rounds = [
        m._replace(round=k) for k in range(4) for m in everybody(PATH, Kind.PROJECTION, 7 + k)
    ]
    once.enter("train", range(4), rounds)
    first = RadioAccount(radio(PATH))
    first.enter("train", range(2), [m for m in rounds if m.round < 2])
    resumed.load(json.loads(json.dumps(first.state())))
    resumed.enter("train", range(2, 4), [m for m in rounds if m.round >= 2])
    assert resumed.state() == once.state()
    assert resumed.joules("train") == once.joules("train")
    assert once.seconds["train"] == pytest.approx(4 * 8 * (7 + 8 + 9 + 10) / 1000 + 4 * 0.25)
    assert once.seconds["inference"] == 0.0
    assert once.joules("inference") == (0.0, 0.0, 0.0)


def test_a_round_in_which_nothing_was_sent_takes_nothing() -> None:
    costs = RadioAccount(radio(PATH)).enter("train", range(3, 5), [])
    assert [(n, c.seconds, c.joules) for n, c in costs.items()] == [
        (3, 0.0, (0.0, 0.0, 0.0)),
        (4, 0.0, (0.0, 0.0, 0.0)),
    ]
