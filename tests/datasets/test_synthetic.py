import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.errors import ConfigError, DatasetError


def monte_carlo(data, node, answered):
    """NMSE of least squares fitted on 10,000 training events, on 20,000 others."""
    train, fresh = np.arange(10_000), np.arange(10_000, 20_000)

    def regressors(e):
        return np.hstack([data.source(j).samples("train", e) for j in answered])

    target, wanted = (data.source(node).samples("train", e) for e in (train, fresh))
    weights = np.linalg.lstsq(regressors(train), target, rcond=None)[0]
    error = wanted - regressors(fresh) @ weights
    return float((error**2).sum() / (wanted**2).sum())


@pytest.mark.parametrize(
    ("graph", "answered", "options"),
    [
        ("ring", [1, 3], {}),
        ("ring", [1], {"noise": 0.5}),
        ("ring", [2], {"unique": 0.2, "pairwise": 0.2}),
        ("complete", [1, 2], {"unique": 0.1, "pairwise": 0.9, "noise": 0.3}),
        ("complete", [3, 1, 2], {"features": 20, "latent": 6, "noise": 0.2}),
    ],
)
def test_optimal_nmse_is_what_least_squares_reaches(opened, graph, answered, options):
    data = opened("synthetic", graph=graph, **{"features": 24, "latent": 4, **options})
    optimum = data.optimal_nmse(0, answered)
    assert 0.05 < optimum < 0.99
    assert monte_carlo(data, 0, answered) == pytest.approx(optimum, rel=0.03)


@pytest.mark.parametrize(
    ("unique", "pairwise", "answered", "expected"),
    [
        (0.3, 0.5, [1, 3], 0.3),
        (0.3, 0.5, [3], 0.3 + 0.25),
        (0.3, 0.5, [2], 0.3 + 0.5),
        (0.3, 0.5, [], 1.0),
        (1.0, 0.0, [1, 3], 1.0),
        (0.0, 0.0, [2], 0.0),
        (0.0, 1.0, [1, 2, 3], 0.0),
    ],
)
def test_without_noise_what_is_lost_is_what_is_not_shared(
    opened, unique, pairwise, answered, expected
):
    """On a ring with room for all latents, neighbours hold g and their z exactly."""
    data = opened("synthetic", unique=unique, pairwise=pairwise, noise=0.0)
    assert data.optimal_nmse(0, answered) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.floats(0, 0.6), st.floats(0, 0.4), st.floats(0.01, 1), st.integers(2, 40))
def test_more_answers_never_hurt(opened, unique, pairwise, noise, features):
    data = opened(
        "synthetic",
        graph="complete",
        unique=unique,
        pairwise=pairwise,
        noise=noise,
        features=features,
        latent=3,
    )
    figures = [data.optimal_nmse(0, list(range(1, 1 + k))) for k in range(4)]
    assert figures[0] == 1.0
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(figures))
    assert figures[-1] >= (unique + noise**2) / (1 + noise**2) - 1e-6


def test_optimal_nmse_is_refused_where_it_is_unknown(opened):
    with pytest.raises(DatasetError, match="linear: true only"):
        opened("synthetic", linear=False).optimal_nmse(0, [1])


@pytest.mark.parametrize("features", [64, 12])
def test_each_kind_of_latent_has_its_share_of_the_variance(opened, features):
    data = opened("synthetic", graph="star", features=features, noise=0.0)
    events = np.arange(8000)
    view = data.source(0).samples("train", events).astype(float)
    assert (view**2).sum(axis=1).mean() / features == pytest.approx(1.0, abs=0.02)
    parts = {("global", 0): 0.2, ("unique", 0): 0.3, **{("pairwise", e): 0.5 / 3 for e in range(3)}}
    for part, share in parts.items():
        latent = data.latent(part, "train", events).astype(float)
        fitted = latent @ np.linalg.lstsq(latent, view, rcond=None)[0]
        assert (fitted**2).sum() / (view**2).sum() == pytest.approx(share, abs=0.02)


def test_mixing_is_orthogonal_where_there_is_room(opened):
    blocks = list(opened("synthetic").loadings(1).values())
    for at, block in enumerate(blocks):
        gram = block.T @ block
        assert np.allclose(gram, gram[0, 0] * np.eye(8))
        assert all(np.allclose(block.T @ other, 0) for other in blocks[:at])


def test_nodes_far_apart_share_the_global_latent_only(opened):
    data = opened("synthetic", nodes=6, unique=0.4, pairwise=0.6)
    a, b = (data.source(n).samples("train", np.arange(4000)) for n in (0, 3))
    cross = np.corrcoef(a.T, b.T)[:64, 64:]
    assert np.abs(cross).max() < 5.5 / 4000**0.5


def test_tanh_bounds_the_signal_and_keeps_its_factors(opened):
    linear, bent = (opened("synthetic", noise=0.0, linear=flag) for flag in (True, False))
    events = np.arange(100)
    a, b = (d.source(2).samples("test", events) for d in (linear, bent))
    assert np.allclose(np.tanh(a), b, atol=1e-6)
    assert np.abs(b).max() < 1


def test_both_ends_know_the_label_and_can_learn_it(opened):
    data = opened("synthetic", unique=0.2, pairwise=0.5, noise=0.05)
    events, fresh = np.arange(4000), np.arange(4000, 6000)
    for node in (0, 1):
        source = data.source(node)
        labels, truth = (source.labels("train", e, 0) for e in (events, fresh))
        assert np.array_equal(labels, data.source(1 - node).labels("train", events, 0))
        counts = np.bincount(labels, minlength=10)
        assert len(counts) == data.classes == 10
        assert counts.min() > 120
        weights = np.linalg.lstsq(source.samples("train", events), np.eye(10)[labels], rcond=None)[
            0
        ]
        guess = (source.samples("train", fresh) @ weights).argmax(axis=1)
        assert (guess == truth).mean() > 0.6
        other = data.source(node).labels("train", events, 1 if node == 0 else 2)
        assert (other != labels).mean() > 0.3


def test_labels_of_what_nobody_shares_stay_at_chance(opened):
    data = opened("synthetic", unique=1.0, pairwise=0.0)
    events, fresh = np.arange(4000), np.arange(4000, 6000)
    source = data.source(0)
    labels = source.labels("train", events, 0)
    assert np.bincount(labels, minlength=10).min() > 120
    weights = np.linalg.lstsq(source.samples("train", events), np.eye(10)[labels], rcond=None)[0]
    guess = (source.samples("train", fresh) @ weights).argmax(axis=1)
    assert (guess == source.labels("train", fresh, 0)).mean() < 0.2


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_views_and_labels_do_not_depend_on_the_batch(opened, events):
    source, events = opened("synthetic", linear=False).source(0), np.array(events)
    run = np.arange(224)
    assert np.array_equal(source.samples("train", events), source.samples("train", run)[events])
    assert np.array_equal(source.labels("train", events, 0), source.labels("train", run, 0)[events])


def test_splits_are_different_events(opened):
    data = opened("synthetic", test_events=64)
    assert [data.size(s) for s in ("train", "validation", "test")] == [None, 500, 64]
    assert data.distinct("train") > 10**12
    assert data.distinct("test") == 64
    source = data.source(0)
    views = [source.samples(s, np.arange(64)) for s in ("train", "validation", "test")]
    rows = [{view.tobytes() for view in each} for each in views]
    assert [len(each) for each in rows] == [64, 64, 64]
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]
    with pytest.raises(IndexError, match="0 to 63"):
        source.samples("test", np.array([64]))
    with pytest.raises(IndexError, match="0 to 63"):
        source.labels("test", np.array([64]), 0)


def test_a_node_has_no_label_of_a_strange_edge(opened):
    with pytest.raises(ValueError, match="node 0 is at neither end of edge 2"):
        opened("synthetic").source(0).labels("test", np.arange(2), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unique": 0.7, "pairwise": 0.5}, "unique = 0.7 and pairwise = 0.5 .*at most 1"),
        ({"unique": -0.1}, r"dataset\.unique = -0\.1"),
        ({"classes": 1}, r"dataset\.classes = 1"),
        ({"latents": 3}, r"dataset\.latents: unknown key\. Did you mean 'latent'"),
    ],
)
def test_wrong_options_are_named(opened, options, message):
    with pytest.raises(ConfigError, match=message):
        opened("synthetic", **options)


def test_shares_that_add_to_one_in_floats_are_allowed(opened):
    assert opened("synthetic", unique=0.9, pairwise=0.1).size("test") == 1000
