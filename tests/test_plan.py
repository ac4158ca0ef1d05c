from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.config import Config
from sheafnet.errors import ConfigError, DatasetError
from sheafnet.network.frame import Kind
from sheafnet.nodes.events import gallery_size, missing_rows
from sheafnet.runtime.plan import Plan
from sheafnet.validation import check_model

RING = {"generator": "ring", "nodes": 3}


def config(**values: Any) -> Config:
    return check_model(Config, {"name": "t", "dataset": "synthetic", "graph": RING} | values)


def plan(**values: Any) -> Plan:
    return Plan.open(config(**values))


def listed(**node: Any) -> dict[str, Any]:
    """A line of two nodes, the second as given."""
    return {"graph": None, "nodes": ["a", {"id": "b"} | node], "edges": [["a", "b"]]}


# Stretches.


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 70))
def test_stretches_cover_every_round_once_in_order(train, inference, size):
    opened = plan(
        training={"rounds": train}, inference={"rounds": inference}, run={"stretch": size}
    )
    stretches = list(opened.stretches())
    rounds = [(s.phase, r) for s in stretches for r in range(s.first, s.first + s.rounds)]
    assert rounds == [
        *[("train", r) for r in range(train)],
        ("evaluation", 0),
        *[("inference", r) for r in range(inference)],
    ]
    assert all(1 <= s.rounds <= size for s in stretches)
    # As few stretches as that allows: only the last of a phase is shorter.
    for one, following in pairwise(stretches):
        assert one.phase == "evaluation" or one.rounds == size or following.phase != one.phase
    for phase, expected in (("train", train), ("evaluation", 1), ("inference", inference)):
        assert opened.rounds(phase) == expected


# The floor of bytes.


def directed(opened: Plan) -> set[tuple[int, int]]:
    return {(edge.index, direction) for edge in opened.topology.edges for direction in (0, 1)}


@pytest.mark.parametrize(
    ("wire_dtype", "message"),
    [
        # B = 128 rows of d_ij = 32 values.
        ("float32", 128 * 32 * 4),
        ("float16", 128 * 32 * 2),
        ("bfloat16", 128 * 32 * 2),
        ("int8", 128 * 32 + 4),
        ("int8-row", 128 * 32 + 128 * 2),
        ("int8-channel", 128 * 32 + 32 * 2),
    ],
)
def test_the_floor_of_training_by_hand(wire_dtype, message):
    opened = plan(training={"rounds": 1000, "batch_size": 128, "wire_dtype": wire_dtype})
    floor = opened.floor("train")
    assert set(floor) == directed(opened)
    assert set(floor.values()) == {1000 * message}
    # 2 |E| messages of B d_ij values a round: the whole ring of 3.
    assert sum(floor.values()) == 6 * 1000 * message


def test_exchanged_gradients_double_the_floor_of_training_only():
    training = {"rounds": 7, "batch_size": 16, "wire_dtype": "int8"}
    exchanged = {"exchange_gradients": True, "reconstruction_gradient": "full"}
    alone, both = plan(training=training), plan(training=training | exchanged)
    assert set(both.floor("train").values()) == {2 * 7 * (16 * 32 + 4)}
    for phase in ("evaluation", "inference"):
        assert both.floor(phase) == alone.floor(phase)


def test_the_floor_counts_each_edges_own_dimension():
    opened = plan(
        graph=None,
        nodes=["a", {"id": "b", "embedding_dim": 10}, "c"],
        edges=[["a", "b"], {"between": ["b", "c"], "comparison_dim": 3}, ["a", "c"]],
        training={"rounds": 2, "batch_size": 5},
    )
    per_edge = {0: 5, 1: 32, 2: 3}
    assert {e.index: e.dim for e in opened.topology.edges} == per_edge
    assert opened.floor("train") == {
        (edge, direction): 2 * 5 * dim * 4 for edge, dim in per_edge.items() for direction in (0, 1)
    }


def test_no_training_no_bytes():
    assert set(plan(training={"rounds": 0}).floor("train").values()) == {0}
    assert set(plan(inference={"rounds": 0}).floor("inference").values()) == {0}


def test_a_long_training_is_planned_at_once():
    assert plan(training={"rounds": 10**12, "batch_size": 2}).floor("train")[0, 0] == (
        10**12 * 2 * 32 * 4
    )


@pytest.mark.parametrize(("gallery", "judged"), [(200, 200), (5000, 1000), ("all", 1000)])
def test_the_floor_of_evaluation_by_hand(gallery, judged):
    opened = plan(evaluation={"gallery": gallery}, training={"wire_dtype": "float16"})
    assert gallery_size(opened.config, opened.dataset) == judged
    # The judged projections and 10 prototypes of 32 values.
    assert opened.floor("evaluation") == dict.fromkeys(directed(opened), (judged + 10) * 32 * 2)


def test_classes_without_a_labelled_event_have_no_prototype_to_send():
    opened = plan(evaluation={"support": 3, "gallery": 50})
    for edge in opened.topology.edges:
        labels = opened.dataset.source(edge.head).labels("train", np.arange(3), edge.index)
        expected = (50 + len(set(labels.tolist()))) * 32 * 4
        assert opened.floor("evaluation")[edge.index, 0] == expected
        assert opened.floor("evaluation")[edge.index, 1] == expected


def recount(opened: Plan, item: float, scale: int) -> dict[tuple[int, int], int]:
    """Bytes of the answers, by asking of every row whether it crosses."""
    inference, seed = opened.config.inference, opened.config.run.seed
    found = dict.fromkeys(directed(opened), 0)
    for round_ in range(inference.rounds):
        masks = [missing_rows(inference, seed, n, round_).tolist() for n in opened.topology.nodes]
        for edge in opened.topology.edges:
            for direction, (sender, receiver) in enumerate(
                [(edge.tail, edge.head), (edge.head, edge.tail)]
            ):
                rows = 0
                for row in range(inference.batch_size):
                    rows += masks[receiver][row] and not masks[sender][row]
                found[edge.index, direction] += rows * edge.dim * item + (scale if rows else 0)
    return found


@pytest.mark.parametrize(
    ("wire_dtype", "item", "scale"),
    [
        ("float32", 4, 0),
        ("float16", 2, 0),
        ("int8", 1, 4),
        ("int8-row", 1 + 2 / 5, 0),  # two bytes for the five values of a row
        ("int8-channel", 1, 5 * 2),
    ],
)
@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 1.0])
def test_the_floor_of_inference_by_counting_rows(wire_dtype, item, scale, probability):
    opened = plan(
        graph={"generator": "ring", "nodes": 4},
        defaults={"edge": {"comparison_dim": 5}},
        inference={
            "rounds": 6,
            "batch_size": 9,
            "missing_probability": probability,
            "wire_dtype": wire_dtype,
        },
        run={"seed": 11},
    )
    floor = opened.floor("inference")
    assert floor == recount(opened, item, scale)
    assert any(floor.values()) == (probability in (0.05, 0.5))
    # Who has it sends to who misses it: the two directions of an edge differ.
    assert (probability in (0.05, 0.5)) == any(floor[e, 0] != floor[e, 1] for e in range(4))


def test_the_floor_of_a_fixed_pattern_by_hand():
    opened = plan(
        graph={"generator": "line", "nodes": 4, "prefix": "n"},
        inference={"rounds": 3, "batch_size": 10, "missing_nodes": ["n1", "n2"]},
    )
    # n0 -> n1 and n3 -> n2; n1 and n2 have nothing to send each other.
    sent = 3 * 10 * 32 * 4
    assert {key: n for key, n in opened.floor("inference").items() if n} == {
        (0, 0): sent,
        (2, 1): sent,
    }


def test_the_floor_is_that_of_the_seed():
    inference = {"missing_probability": 0.5}
    first, again, other = (plan(inference=inference, run={"seed": s}) for s in (1, 1, 2))
    assert first.floor("inference") == again.floor("inference") != other.floor("inference")


# What an edge may carry.


def test_limits_are_the_sizes_of_the_run():
    opened = plan(
        training={"batch_size": 17, "wire_dtype": "float16"},
        inference={"batch_size": 19, "wire_dtype": "int8"},
        evaluation={"gallery": 23},
    )
    limits = opened.limits("one")
    assert {kind.name: rows for kind, rows in limits.rows.items()} == {
        "PROJECTION": 17,
        "GALLERY": 23,
        "PROTOTYPES": 10,
        "REQUEST": 19,
        "ANSWER": 19,
    }
    assert limits.dtypes[Kind.PROJECTION] == limits.dtypes[Kind.GALLERY]
    assert limits.dtypes[Kind.PROJECTION].name == "FLOAT16"
    assert limits.dtypes[Kind.ANSWER].name == "INT8"
    assert limits.run == opened.limits("one").run != opened.limits("two").run
    assert limits.stochastic == {}
    exchanged = plan(training={"exchange_gradients": True, "reconstruction_gradient": "full"})
    assert exchanged.limits("one").rows[Kind.GRADIENT] == 128
    diffused = plan(inference={"batch_size": 19, "diffusion_iterations": 7}).limits("one")
    assert (diffused.rows[Kind.ESTIMATE], diffused.iterations) == (19, 7)
    assert limits.iterations == 0
    told = {"calibration": 29, "wire_dtype": "int8"}
    calibrated = plan(inference=told, training={"wire_dtype": "float16"}).limits("one")
    assert calibrated.rows[Kind.CALIBRATION] == 29
    assert calibrated.dtypes[Kind.CALIBRATION].name == "INT8"
    none = plan(inference=told | {"rounds": 0})
    assert Kind.CALIBRATION not in none.limits("one").rows
    assert none.rounds("calibration") == sum(none.floor("calibration").values()) == 0


def test_only_what_crosses_in_training_is_rounded_stochastically():
    rounding = {"wire_dtype": "int8-row", "wire_rounding": "stochastic"}
    exchange = {"exchange_gradients": True, "reconstruction_gradient": "full"}
    opened = plan(
        training=rounding | exchange, inference={"wire_dtype": "int8-row"}, run={"seed": 5}
    )
    assert opened.limits("one").stochastic == {Kind.PROJECTION: 5, Kind.GRADIENT: 5}


# Placement.


def placed(nodes: int, cores: list[int], chosen: Any = "auto") -> list[list[list[int]]]:
    graph = {"generator": "line", "nodes": nodes}
    return plan(graph=graph, run={"nodes_per_actor": chosen}).placement(cores)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 16), st.just("auto") | st.integers(1, 70))
def test_every_node_has_one_actor(nodes, cores, chosen):
    (hosts,) = placed(nodes, [cores], chosen)
    assert sorted(node for host in hosts for node in host) == list(range(nodes))
    assert all(hosts)
    if chosen == "auto" and nodes > 8:
        assert len(hosts) == min(nodes, cores)
    elif chosen == "auto":
        assert hosts == [[node] for node in range(nodes)]
    else:
        assert len(hosts) == int(np.ceil(nodes / chosen))
        assert max(map(len, hosts)) <= chosen


@pytest.mark.parametrize(
    ("nodes", "cores", "chosen", "expected"),
    [
        (8, 2, "auto", [1] * 8),
        (9, 2, "auto", [4, 5]),
        (12, 4, "auto", [3, 3, 3, 3]),
        (9, 1, "auto", [9]),
        (9, 100, "auto", [1] * 9),
        (5, 1, 2, [1, 2, 2]),
        (5, 8, 99, [5]),
        (10, 1, 4, [3, 3, 4]),
        (20, 1, 1, [1] * 20),
    ],
)
def test_sizes_of_hosts(nodes, cores, chosen, expected):
    (hosts,) = placed(nodes, [cores], chosen)
    assert sorted(map(len, hosts)) == expected


def test_machines_share_the_hosts_in_proportion_to_their_cores():
    assert [len(machine) for machine in placed(12, [1, 3])] == [1, 3]
    assert [len(machine) for machine in placed(12, [2, 4], 2)] == [2, 4]
    assert [len(machine) for machine in placed(3, [2, 4])] == [1, 2]


# What is refused before anything starts.


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(**values)
    return str(caught.value)


def test_batches_are_no_larger_than_the_data():
    digits = {"dataset": "multiple-features"}
    assert refusal(**digits, training={"batch_size": 1401}) == (
        "t: training.batch_size = 1401: the data set has 1400 training events; choose at most 1400."
    )
    assert refusal(**digits, inference={"batch_size": 401}) == (
        "t: inference.batch_size = 401: the test split has 400 events; choose at most 400."
    )
    validation = {"split": "validation"}
    assert refusal(**digits, inference={"batch_size": 201}, evaluation=validation) == (
        "t: inference.batch_size = 201: the validation split has 200 events; choose at most 200."
    )
    largest = plan(**digits, training={"batch_size": 1400}, inference={"batch_size": 400})
    assert gallery_size(largest.config, largest.dataset) == 400
    endless = {"dataset": {"name": "synthetic", "test_events": 2}}
    large = plan(**endless, training={"batch_size": 10**6}, inference={"batch_size": 2})
    assert gallery_size(large.config, large.dataset) == 2


def test_an_unknown_missing_node_is_told_the_nearest():
    assert refusal(inference={"missing_nodes": ["node0", "nod1"]}) == (
        "t: inference.missing_nodes: no node is called 'nod1'. Did you mean 'node1'? "
        "Known: node0, node1, node2."
    )


def test_an_unknown_data_set_is_told_the_nearest():
    with pytest.raises(DatasetError) as caught:
        plan(dataset="multiple_features")
    assert str(caught.value).startswith(
        "t: dataset.name = 'multiple_features': no such data set. "
        "Did you mean 'multiple-features'? Known: "
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noize": 1}, "t: dataset.noize: unknown key. Did you mean 'noise'?"),
        ({"int": 1}, "t: dataset.int: unknown key. "),
        ({"noise": -1}, "t: dataset.noise = -1: input should be greater than or equal to 0"),
        ({"noise": True}, "t: dataset.noise = True: true or false does not belong here"),
        ({"linear": "maybe"}, "t: dataset.linear = 'maybe': "),
        ({"unique": 0.9, "pairwise": 0.9}, "t: dataset: unique = 0.9 and pairwise = 0.9 are"),
    ],
)
def test_a_bad_option_of_the_data_set_is_named(options, message):
    assert refusal(dataset={"name": "synthetic"} | options).startswith(message)


def test_a_modality_that_the_data_set_lacks_is_told_the_nearest():
    assert refusal(dataset="multiple-features", **listed(modality="pixel")) == (
        "t: node b: modality = 'pixel': multiple-features has no such modality. Did you mean "
        "'pixels'? Known: profile, fourier, karhunen_loeve, morphological, pixels, zernike."
    )


def test_an_encoder_that_cannot_be_is_refused():
    assert refusal(**listed(encoder="convv")).startswith(
        "t: node b: no encoder is called 'convv'. Did you mean 'conv'?"
    )
    assert refusal(**listed(encoder={"name": "mlp", "hiden": 3})).startswith(
        "t: node b: encoder mlp: encoder.hiden: unknown key. Did you mean 'hidden'?"
    )
    assert refusal(**listed(encoder="conv")).startswith(
        "t: node b: encoder conv: it needs images (channels, height, width); these samples are"
    )


def test_a_graph_that_cannot_be_is_refused():
    assert refusal(graph={"generator": "ring", "nodes": 2}).startswith("t: graph.nodes = 2: a ring")


def test_a_split_without_a_class_is_refused(tmp_path):
    labels = np.arange(200) % 4
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 5)))
    splits = np.arange(200) // 4 % 3
    splits[(splits == 2) & (labels == 3)] = 0
    np.save(tmp_path / "splits.npy", splits)
    values = {
        "dataset": {"name": "arrays", "path": str(tmp_path)},
        "training": {"batch_size": 16},
        "inference": {"batch_size": 16},
    }
    with pytest.raises(ConfigError, match=r"the test split has 3 of 4 classes; class 3 does not"):
        plan(**values)
    plan(**values, evaluation={"split": "validation"})


def test_evaluations_on_the_way_stand_between_the_stretches_of_training():
    opened = plan(
        training={"rounds": 10},
        evaluation={"every": 4},
        run={"stretch": 3},
        inference={"rounds": 1},
    )
    assert [(s.phase, s.first, s.rounds) for s in opened.stretches()] == [
        ("train", 0, 3), ("train", 3, 1), ("evaluation", 0, 1),
        ("train", 4, 3), ("train", 7, 1), ("evaluation", 1, 1),
        ("train", 8, 2), ("evaluation", 2, 1), ("inference", 0, 1),
    ]  # fmt: skip
    assert opened.rounds("evaluation") == 3
    once = plan(training={"rounds": 10})
    assert 3 * sum(once.floor("evaluation").values()) == sum(opened.floor("evaluation").values())
