from pathlib import Path

import numpy as np
import pytest

import sheafnet
from sheafnet.datasets.spoken_digits import BUNDLED, Recordings, resampled
from sheafnet.errors import ConfigError

SIZES = {"train": 2100, "validation": 300, "test": 600}
CLEAN = {"shift": 0, "noise": 0.0, "trim": 0.0, "audio_noise": 0.0}


@pytest.fixture(scope="module")
def raw():
    """The bundled recordings, each (frames, 13), and their labels."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        frames, lengths = arrays["mfcc"].astype(float), arrays["lengths"].astype(int)
        return np.split(frames, np.cumsum(lengths)[:-1]), arrays["labels"]


@pytest.fixture(scope="module")
def data(opened):
    """Nodes 0 and 2 see the image, 1 and 3 hear the recording, undisturbed."""
    return opened("spoken-digits", **CLEAN)


@pytest.fixture(scope="module")
def images(data, mnist):
    """Rows of MNIST by split, for the training split of its first two epochs."""
    row_of = {image.tobytes(): row for row, image in enumerate(mnist[0])}

    def rows(split):
        view = data.source(0).samples(split, np.arange(SIZES[split] * (1 + (split == "train"))))
        grey = np.rint((view[:, 0] * 0.3086 + 0.1314) * 255).astype(np.uint8)
        return np.array([row_of[image.tobytes()] for image in grey])

    return {split: rows(split) for split in SIZES}


@pytest.fixture(scope="module")
def recordings(data, raw):
    """Rows of the bundled file by split.

    The first and the last moment of an undisturbed view are frames of the recording, standardised
    per coefficient. That is affine: the extremes undo it.
    """
    ends = np.array([np.stack([one[0], one[-1]], axis=1) for one in raw[0]])
    views = {
        split: data.source(1).samples(split, np.arange(size))[:, :, [0, -1]].astype(float)
        for split, size in SIZES.items()
    }
    seen = np.concatenate(list(views.values()))
    low, high = (f(seen, axis=(0, 2))[:, None] for f in (np.min, np.max))
    unit = (ends - np.min(ends, axis=(0, 2))[:, None]) / np.ptp(ends, axis=(0, 2))[:, None]
    found = {}
    for split, view in views.items():
        scaled, known = ((view - low) / (high - low)).reshape(-1, 26), unit.reshape(-1, 26)
        found[split] = ((known**2).sum(axis=1) - 2 * scaled @ known.T).argmin(axis=1)
        assert np.abs(scaled - known[found[split]]).max() < 1e-4
    return found


def test_splits_are_stratified_and_share_neither_image_nor_recording(data, raw, recordings, images):
    for split, size in SIZES.items():
        assert data.distinct(split) == size
        assert data.size(split) == (None if split == "train" else size)
        assert np.bincount(raw[1][recordings[split]]).tolist() == [size // 10] * 10
    heard = [set(rows.tolist()) for rows in recordings.values()]
    assert len(set.union(*heard)) == sum(map(len, heard)) == 3000
    seen = [set(rows.tolist()) for rows in images.values()]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_an_event_is_an_image_and_a_recording_of_one_digit(data, raw, recordings, images, mnist):
    for split, size in SIZES.items():
        labels = raw[1][recordings[split]]
        assert np.array_equal(mnist[1][images[split][:size]], labels)
        for node in range(4):
            found = data.source(node).labels(split, np.arange(size), 0)
            assert found.dtype == np.int64
            assert np.array_equal(found, labels)


def test_every_epoch_pairs_anew_and_shows_no_image_twice(data, images):
    first, second = images["train"][:2100], images["train"][2100:]
    for epoch in (first, second):
        assert len(set(epoch.tolist())) == 2100
    # 2,100 of 3,500 images are drawn for each epoch: of the first, about 3/5 return.
    assert abs(np.isin(second, first).mean() - 0.6) < 0.05
    view = data.source(1).samples("train", np.arange(2100, 4200))
    keys = {
        one.tobytes(): k for k, one in enumerate(data.source(1).samples("train", np.arange(2100)))
    }
    again = np.array([keys[one.tobytes()] for one in view])
    assert sorted(again.tolist()) == list(range(2100))
    # The image of a recording is drawn from 350 of its digit.
    assert (first[again] == second).mean() < 0.02


def test_validation_and_test_pairs_are_fixed(opened, data):
    other = opened("spoken-digits", seed=7, **CLEAN)
    for node in (0, 1):
        for split in ("validation", "test"):
            events = np.arange(SIZES[split])
            a, b = (d.source(node).samples(split, events) for d in (data, other))
            assert np.array_equal(a, b)
        a, b = (d.source(node).samples("train", np.arange(64)) for d in (data, other))
        assert not np.array_equal(a, b)


def test_nodes_of_a_modality_see_the_same_item_each_through_its_own_noise(opened, data):
    noisy, events = opened("spoken-digits"), np.arange(64)
    for a, b in ((0, 2), (1, 3)):
        assert np.array_equal(*(data.source(n).samples("test", events) for n in (a, b)))
        x, y = (noisy.source(n).samples("test", events) for n in (a, b))
        assert all(np.abs(p - q).max() > 0.3 for p, q in zip(x, y, strict=True))
        assert not np.array_equal(x, noisy.source(a).samples("train", events))


def test_an_edge_may_join_two_nodes_of_one_modality(opened):
    data = opened("spoken-digits", nodes=3, modalities={0: "audio", 1: "audio", 2: "image"})
    assert [data.modality(n) for n in range(3)] == ["audio", "audio", "image"]
    assert [data.source(n).shape for n in range(3)] == [(13, 32), (13, 32), (1, 28, 28)]
    labels = [data.source(n).labels("train", np.arange(5000, 5100), 0) for n in range(3)]
    assert all(np.array_equal(labels[0], other) for other in labels[1:])


def test_audio_is_standardised_and_resampled_linearly(data, raw, recordings):
    train = np.concatenate([raw[0][row] for row in recordings["train"]])
    mean, sd = train.mean(axis=0), train.std(axis=0)
    for split in SIZES:
        view = data.source(1).samples(split, np.arange(40))
        assert view.shape == (40, 13, 32)
        assert view.dtype == np.float32
        for found, row in zip(view, recordings[split], strict=False):
            one = (raw[0][row] - mean) / sd
            at = np.linspace(0, len(one) - 1, 32)
            expected = [np.interp(at, np.arange(len(one)), one[:, c]) for c in range(13)]
            assert np.allclose(found, expected, atol=1e-4)


def test_a_trim_cuts_its_share_off_each_end():
    """Of a recording whose frames are their own numbers, a view is the moments themselves."""
    lengths = np.array([6, 11])
    frames = np.repeat(np.concatenate([np.arange(6), np.arange(11)])[:, None], 13, axis=1)
    ramps = Recordings(
        frames.astype(np.float32), np.array([0, 6]), lengths, np.array([0, 1]), splits={}
    )
    trims = np.array([[0, 0], [0.1, 0.3], [0.5, 0.5], [0.4, 0]], np.float32)
    view = resampled(ramps, np.array([0, 1, 1, 0]), trims, 5)
    assert view.shape == (4, 13, 5)
    expected = [[0, 1.25, 2.5, 3.75, 5], [1, 2.5, 4, 5.5, 7], [5] * 5, [2, 2.75, 3.5, 4.25, 5]]
    assert np.allclose(view[:, 7], expected, atol=1e-5)


def test_views_are_trimmed_within_the_bound(opened):
    """The start of a trimmed view is a moment of the recording in its first fifth."""
    trimmed = opened("spoken-digits", **(CLEAN | {"trim": 0.2, "frames": 2}))
    fine = opened("spoken-digits", **(CLEAN | {"frames": 128}))
    ends = trimmed.source(1).samples("test", np.arange(100))
    whole = fine.source(1).samples("test", np.arange(100))
    starts = []
    for pair, one in zip(ends, whole, strict=True):
        for at, end in enumerate(pair.T):
            near = np.abs(one - end[:, None]).max(axis=0)
            place = near.argmin() / 127
            starts.append(place if at == 0 else 1 - place)
    assert max(starts) < 0.22
    assert np.mean(starts) == pytest.approx(0.1, abs=0.02)


def test_noise_has_the_asked_deviation(opened, data):
    events = np.arange(200)
    noisy = opened("spoken-digits", **(CLEAN | {"audio_noise": 0.5, "noise": 0.3}))
    for node, sd in ((0, 0.3 / 0.3086), (1, 0.5)):
        for split in ("train", "test"):
            added = noisy.source(node).samples(split, events) - data.source(node).samples(
                split, events
            )
            assert added.std() == pytest.approx(sd, rel=0.02)


@pytest.mark.parametrize("node", [0, 1])
def test_a_view_does_not_depend_on_its_batch(opened, node):
    source = opened("spoken-digits").source(node)
    run = source.samples("train", np.arange(2048, 2176))
    order = np.random.default_rng(0).permutation(128)[:50]
    assert np.array_equal(source.samples("train", order + 2048), run[order])
    assert np.array_equal(source.samples("train", order[:1] + 2048), run[order[:1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 1}, r"dataset\.frames = 1"),
        ({"trim": 0.5}, r"dataset\.trim = 0\.5"),
        ({"audio_noise": -0.1}, r"dataset\.audio_noise = -0\.1"),
        ({"audio": 1}, r"dataset\.audio: unknown key\. Did you mean 'audio_noise'"),
    ],
)
def test_wrong_options_are_named(opened, options, message):
    with pytest.raises(ConfigError, match=message):
        opened("spoken-digits", **options)


def test_the_shipped_network_has_encoders_that_fit():
    path = Path(__file__).parents[2] / "topologies" / "spoken-digits.yaml"
    assert sheafnet.Plan.open(sheafnet.load_config(path)).dataset.classes == 10
