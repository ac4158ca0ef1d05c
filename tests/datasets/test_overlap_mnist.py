import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.errors import ConfigError

MEAN, SD = 0.2409, 0.3859


def tiles(view):
    """Tiles in pixel units: (events, tiles, 20, 20)."""
    n, _, _, width = view.shape
    return (view[:, 0] * SD + MEAN).reshape(n, 20, width // 20, 20).transpose(0, 2, 1, 3)


@pytest.fixture(scope="module")
def plain(opened):
    """Without shift and noise a tile is the middle of its source digit, pixel for pixel."""
    return opened("overlap-mnist", shift=0, noise=0.0)


@pytest.fixture(scope="module")
def recover(mnist):
    """From plain tiles to rows of the bundled file."""
    row_of = {image[4:24, 4:24].tobytes(): row for row, image in enumerate(mnist[0])}
    assert len(row_of) == 5000

    def rows(view):
        grey = np.rint(tiles(view) * 255).astype(np.uint8)
        return np.array([[row_of[tile.tobytes()] for tile in event] for event in grey])

    return rows


def test_a_node_sees_its_edges_digits_in_edge_order(opened, mnist, recover):
    data = opened("overlap-mnist", graph="star", nodes=4, shift=0, noise=0.0)
    events = np.arange(40)
    hub = recover(data.source(0).samples("validation", events))
    assert hub.shape == (40, 3)
    for edge in range(3):
        leaf = recover(data.source(edge + 1).samples("validation", events))
        assert np.array_equal(hub[:, edge], leaf[:, 0])
        for node in (0, edge + 1):
            labels = data.source(node).labels("validation", events, edge)
            assert labels.dtype == np.int64
            assert np.array_equal(labels, mnist[1][hub[:, edge]])
    assert data.source(0).shape == (1, 20, 60)
    assert data.source(1).shape == (1, 20, 20)


def test_with_shift_and_noise_both_ends_still_show_the_same_digit(opened, mnist):
    data = opened("overlap-mnist", noise=0.1)
    events = np.arange(100, 132)
    windows = np.lib.stride_tricks.sliding_window_view(mnist[0], (20, 20), axis=(1, 2))
    known = (windows[:, 2:7, 2:7].reshape(-1, 400) / 255).astype(np.float32)
    square = (known**2).sum(axis=1)
    nearest = []
    for node in (0, 1):
        first = tiles(data.source(node).samples("test", events))[:, 0].reshape(32, 400)
        nearest.append(np.argmin(square - 2 * first @ known.T, axis=1))
    digits = [found // 25 for found in nearest]
    assert np.array_equal(*digits)
    assert np.array_equal(mnist[1][digits[0]], data.source(0).labels("test", events, 0))
    places = [found % 25 for found in nearest]
    assert (places[0] != places[1]).mean() > 0.8
    assert len(set(places[0].tolist())) > 10


def test_splits_are_disjoint_and_no_digit_comes_twice_in_an_epoch(plain, recover):
    source, seen = plain.source(2), []
    sizes = {"train": 3500, "validation": 500, "test": 1000}
    for split, size in sizes.items():
        rows = recover(source.samples(split, np.arange(size)))
        assert plain.distinct(split) == size
        assert all(len(set(column.tolist())) == size for column in rows.T)
        assert set(rows[:, 0].tolist()) == set(rows[:, 1].tolist())
        assert (rows[:, 0] == rows[:, 1]).mean() < 0.02
        seen.append(set(rows[:, 0].tolist()))
    assert len(set.union(*seen)) == 5000
    assert [plain.size(split) for split in sizes] == [None, 500, 1000]


def test_epochs_bring_the_digits_in_a_new_order(plain, recover):
    first = recover(plain.source(0).samples("train", np.arange(3500)))
    second = recover(plain.source(0).samples("train", np.arange(3500, 7000)))
    assert sorted(first[:, 0].tolist()) == sorted(second[:, 0].tolist())
    assert (first == second).mean() < 0.01


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(3400, 3700), min_size=1, max_size=40))
def test_a_view_does_not_depend_on_its_batch(opened, events):
    fresh = opened("overlap-mnist").source(1).samples("train", np.array(events))
    run = opened("overlap-mnist").source(1).samples("train", np.arange(3392, 3712))
    assert np.array_equal(fresh, run[np.array(events) - 3392])


def test_nodes_seeds_splits_and_epochs_have_noise_of_their_own(opened):
    noise = {}
    for seed in (0, 1):
        noisy, clean = (
            opened("overlap-mnist", seed=seed, shift=0, noise=n).source for n in (0.2, 0.0)
        )
        for node, split, first in ((0, "train", 0), (1, "train", 0), (0, "train", 3500)):
            events = np.arange(first, first + 32)
            noise[seed, node, first] = tiles(
                noisy(node).samples(split, events) - clean(node).samples(split, events)
            )
        noise[seed, "test"] = tiles(
            noisy(0).samples("test", np.arange(32)) - clean(0).samples("test", np.arange(32))
        )
    flat = np.stack([(values - MEAN).ravel() for values in noise.values()])
    assert np.allclose(flat.std(axis=1), 0.2, atol=0.005)
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(correlation).max() < 5 / flat.shape[1] ** 0.5


def test_values_are_centred_and_scaled(opened):
    view = opened("overlap-mnist").source(0).samples("train", np.arange(1280))
    assert view.dtype == np.float32
    assert abs(view.mean()) < 0.02
    assert abs(view.var() - (1 + (0.2 / SD) ** 2)) < 0.03


def test_the_view_of_a_batch_belongs_to_the_caller(opened):
    source = opened("overlap-mnist").source(0)
    before = source.samples("test", np.arange(32))
    source.samples("test", np.arange(32))[:] = 0
    assert np.array_equal(before, source.samples("test", np.arange(32)))


def test_a_node_has_no_label_of_a_strange_edge(plain):
    with pytest.raises(ValueError, match="node 0 is at neither end of edge 2"):
        plain.source(0).labels("test", np.arange(2), 2)


def test_events_past_the_split_are_refused(plain):
    with pytest.raises(IndexError, match="0 to 999"):
        plain.source(0).samples("test", np.array([1000]))


def test_a_node_of_a_large_ring_stays_light(opened):
    data = opened("overlap-mnist", nodes=100)
    tracemalloc.start()
    sources = [data.source(node) for node in range(100)]
    for source in sources:
        for split in ("train", "validation", "test"):
            source.samples(split, np.arange(2))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown / 100 < 50_000


def test_only_cameras(opened):
    assert opened("overlap-mnist", modalities={0: "camera"}).modality(3) == "camera"
    with pytest.raises(ConfigError, match=r"node n2: modality = 'lidar'.*Known: camera"):
        opened("overlap-mnist", modalities={2: "lidar"})
