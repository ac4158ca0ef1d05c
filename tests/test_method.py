"""Who sends to whom under each method, by hand, and what cannot be."""

import pytest

from sheafnet.config import Config
from sheafnet.errors import ConfigError
from sheafnet.method import CALIBRATION, LARGEST_FUSION, Method
from sheafnet.runtime.plan import Plan
from sheafnet.topology import build_topology
from sheafnet.validation import check_model

RING = {
    "name": "t",
    "dataset": "synthetic",
    "graph": {"generator": "ring", "nodes": 5, "prefix": "n"},
    "training": {"rounds": 200},
}
"""n0-n1, n0-n4, n1-n2, n2-n3, n3-n4 are edges 0 to 4."""


def opened(method, **changed) -> Method:
    config = check_model(Config, RING | {"method": method} | changed)
    return Method.open(config, build_topology(config))


def ends(edges):
    return [(edge.index, edge.tail, edge.head, edge.dim) for edge in edges]


def test_sheafalign_and_all_pairs_train_on_the_edges():
    edges = [(0, 0, 1), (1, 0, 4), (2, 1, 2), (3, 2, 3), (4, 3, 4)]
    for name, dim in (("sheafalign", 32), ("all-pairs", 64)):
        method = opened(name)
        assert ends(method.network.edges) == [(*edge, dim) for edge in edges]
        assert method.trained == method.topology.edges == method.network.edges
        assert method.hub is None
        assert all(method.rounds_carried(e) == 200 for e in method.network.edges)


def test_imagebind_adds_channels_from_the_hub_to_all_others():
    method = opened({"name": "imagebind", "hub": "n1"})
    assert method.hub == 1
    assert ends(method.topology.edges) == ends(opened("all-pairs").topology.edges)
    assert ends(method.network.edges[5:]) == [(5, 1, 3, 64), (6, 1, 4, 64)]
    assert [edge.index for edge in method.trained] == [0, 2, 5, 6]
    assert [e.index for e in method.trained_at(1)] == [0, 2, 5, 6]
    assert [e.index for e in method.trained_at(4)] == [6]


def test_under_imagebind_the_other_edges_carry_the_last_rounds():
    method = opened("imagebind")
    assert method.hub == 0
    other = method.topology.edges[3]
    carried = [r for r in range(200) if method.carries(other, r)]
    assert carried == list(range(200 - CALIBRATION, 200))
    assert method.rounds_carried(other) == len(carried) == 50
    assert all(method.carries(method.network.edges[6], r) for r in range(200))
    short = opened("imagebind", training={"rounds": 7})
    assert short.rounds_carried(short.topology.edges[3]) == 7
    assert all(short.carries(short.topology.edges[3], r) for r in range(7))


def test_concat_supervised_joins_all_at_the_hub_in_their_own_widths():
    nodes = [{"id": k, "embedding_dim": d} for k, d in (("a", 8), ("b", 6), ("c", 4))]
    config = check_model(
        Config,
        {
            "name": "t",
            "dataset": "synthetic",
            "nodes": nodes,
            "edges": [["a", "b"], ["b", "c"]],
            "method": {"name": "concat-supervised", "hub": "a"},
        },
    )
    method = Method.open(config, build_topology(config))
    assert ends(method.network.edges) == [(0, 0, 1, 6), (1, 1, 2, 2), (2, 0, 2, 4)]
    assert [edge.index for edge in method.trained] == [0, 2]
    assert not method.carries(method.network.edges[1], 0)
    assert method.rounds_carried(method.network.edges[1]) == 0
    assert method.fuses
    assert not method.aligns


def test_local_has_no_channel_that_carries():
    method = opened("local")
    assert method.trained == ()
    assert not any(method.carries(edge, 199) for edge in method.network.edges)
    assert not method.aligns


def test_the_default_hub_is_the_first_of_the_nodes_with_most_edges():
    star = {"generator": "star", "nodes": 4}
    assert opened("imagebind", graph=star).hub == 0
    line = {"generator": "line", "nodes": 4}
    assert opened("imagebind", graph=line).hub == 1


def test_a_star_around_the_hub_needs_no_further_channel():
    method = opened("imagebind", graph={"generator": "star", "nodes": 4})
    assert method.network == method.topology


@pytest.mark.parametrize(
    ("method", "changed", "says"),
    [
        ({"name": "imagebind", "hub": "n9"}, {}, r"method.hub: no node is called 'n9'.*Known: n0"),
        ({"name": "sheafalign", "hub": "n1"}, {}, r"sheafalign has no hub; imagebind"),
        ("clip", {}, r"'sheafalign', 'imagebind', 'all-pairs', 'local' or 'concat-supervised'"),
        (
            "concat-supervised",
            {"defaults": {"node": {"embedding_dim": 1000}}},
            rf"join 5,000 dimensions at one node; at most {LARGEST_FUSION:,}",
        ),
        (
            "all-pairs",
            {
                "training": {
                    "exchange_gradients": True,
                    "reconstruction_gradient": "full",
                }
            },
            r"exchange_gradients completes the gradient of sheafalign; all-pairs",
        ),
    ],
)
def test_what_cannot_be_is_refused(method, changed, says):
    with pytest.raises(ConfigError, match=says):
        opened(method, **changed)


@pytest.mark.parametrize("name", ["imagebind", "all-pairs"])
def test_one_space_needs_one_dimension(name):
    values = {
        "name": "t",
        "dataset": "synthetic",
        "method": name,
        "nodes": ["a", {"id": "b", "embedding_dim": 32}],
        "edges": [["a", "b"]],
    }
    with pytest.raises(ConfigError, match=r"one space for all: a has 64 dimensions, b 32"):
        Plan.open(check_model(Config, values))
