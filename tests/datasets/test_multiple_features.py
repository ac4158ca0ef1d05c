import numpy as np
import pytest

from sheafnet.datasets.multiple_features import BUNDLED
from sheafnet.errors import ConfigError

WIDTHS = {
    "profile": 216,
    "fourier": 76,
    "karhunen_loeve": 64,
    "morphological": 6,
    "pixels": 240,
    "zernike": 47,
}
SIZES = {"train": 1400, "validation": 200, "test": 400}


@pytest.fixture(scope="module")
def raw():
    with np.load(BUNDLED) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def data(opened):
    return opened("multiple-features", graph="complete", nodes=6)


@pytest.fixture(scope="module")
def rows(data, raw):
    """Rows of the file by split. Standardising is affine per column: the extremes undo it."""
    views = [data.source(0).samples(s, np.arange(n)).astype(float) for s, n in SIZES.items()]
    seen, profile = np.concatenate(views), raw["profile"]
    scale = np.ptp(profile, axis=0) / np.ptp(seen, axis=0)
    first = {row.tobytes(): i for i, row in reversed(list(enumerate(profile)))}
    undone = [
        np.rint((view - seen.min(axis=0)) * scale + profile.min(axis=0)).astype(profile.dtype)
        for view in views
    ]
    return {
        split: np.array([first[row.tobytes()] for row in part])
        for split, part in zip(SIZES, undone, strict=True)
    }


def test_splits_are_stratified(data, rows, raw):
    for split, size in SIZES.items():
        assert data.distinct(split) == size
        assert data.size(split) == (None if split == "train" else size)
        assert np.bincount(raw["labels"][rows[split]]).tolist() == [size // 10] * 10
    prefix = raw["labels"][rows["test"][:100]]
    assert np.bincount(prefix).tolist() == [10] * 10


def test_the_same_written_digit_is_never_in_two_splits(rows, raw):
    """By absolute differences, with the bounds that `provenance.json` found by hand."""
    sets = [set(found.tolist()) for found in rows.values()]
    # `rows` gives both rows of an equal pair the same number: in two splits, they would meet here.
    assert sum(map(len, sets)) == len(set.union(*sets)) == 1994
    split_of = np.full(2000, "", "U10")
    for split, found in rows.items():
        split_of[found] = split
    pixels, labels = raw["pixels"].astype(np.int16), raw["labels"]
    for row in np.flatnonzero(split_of == ""):
        split_of[row] = split_of[np.argmax((raw["profile"] == raw["profile"][row]).all(axis=1))]
    pairs = 0
    for digit in range(10):
        own = np.flatnonzero(labels == digit)
        for at, row in enumerate(own):
            near = own[at + 1 :]
            near = near[np.abs(pixels[near] - pixels[row]).sum(axis=1) <= 56]
            pairs += len(near)
            assert (split_of[near] == split_of[row]).all()
    assert pairs == 18
    sixes, nines = (np.flatnonzero(labels == d) for d in (6, 9))
    turned = 0
    for row in nines:
        twins = sixes[np.abs(pixels[sixes] - pixels[row, ::-1]).sum(axis=1) <= 40]
        turned += bool(len(twins))
        assert (split_of[twins] == split_of[row]).all()
    assert turned == 109


def test_all_nodes_see_the_same_row_and_know_its_label(data, rows, raw):
    events = np.arange(1400, 4200)
    for node, (modality, width) in enumerate(WIDTHS.items()):
        source = data.source(node)
        assert data.modality(node) == modality
        assert source.shape == (width,)
        for split, own in rows.items():
            at = np.arange(len(own)) if split != "train" else np.arange(1400)
            view, values = source.samples(split, at), raw[modality][own].astype(float)
            train = raw[modality][rows["train"]].astype(float)
            expected = (values - train.mean(axis=0)) / train.std(axis=0)
            assert view.dtype == np.float32
            assert np.allclose(view, expected, atol=1e-4)
            assert np.array_equal(source.labels(split, at, 0), raw["labels"][own])
        assert np.array_equal(
            source.labels("train", events, 0), data.source(0).labels("train", events, 3)
        )


def test_training_views_have_zero_mean_and_unit_deviation(data):
    for node in range(6):
        view = data.source(node).samples("train", np.arange(1400)).astype(float)
        assert np.abs(view.mean(axis=0)).max() < 1e-5
        assert np.abs(view.std(axis=0) - 1).max() < 1e-5


def test_epochs_reorder_and_do_not_repeat(data):
    view = data.source(5).samples("train", np.arange(2800))
    first, second = (view[k : k + 1400] for k in (0, 1400))
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


def test_noise_is_on_training_views_only_and_fresh_every_epoch(opened, data):
    noisy = opened("multiple-features", graph="complete", nodes=6, noise=0.5)
    events = np.arange(2800)
    noise = noisy.source(1).samples("train", events) - data.source(1).samples("train", events)
    assert abs(noise.std() - 0.5) < 0.01
    assert abs(np.corrcoef(noise[:1400].ravel(), noise[1400:].ravel())[0, 1]) < 0.02
    for split in ("validation", "test"):
        views = [d.source(1).samples(split, np.arange(200)) for d in (noisy, data)]
        assert np.array_equal(*views)
    mixed = np.array([2000, 3, 1399, 1400, 64])
    assert np.array_equal(
        noisy.source(1).samples("train", mixed), noisy.source(1).samples("train", events)[mixed]
    )


def test_the_splits_do_not_hang_on_the_seed(opened, data):
    other = opened("multiple-features", graph="complete", nodes=6, seed=9)
    events = np.arange(400)
    assert np.array_equal(
        other.source(4).samples("test", events), data.source(4).samples("test", events)
    )
    assert not np.array_equal(
        other.source(4).samples("train", events), data.source(4).samples("train", events)
    )


def test_unknown_views_are_refused(opened):
    with pytest.raises(ConfigError, match=r"node n1: modality = 'pixel'.*mean 'pixels'"):
        opened("multiple-features", modalities={1: "pixel"})
