from pathlib import Path

import numpy as np
import pytest

import sheafnet
from sheafnet.datasets.wrist_imu import BUNDLED, SUBJECTS, cut_windows, load_series
from sheafnet.errors import ConfigError

AXES = ["acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z"]
SIZES = {"train": 5070, "validation": 766, "test": 1585}


@pytest.fixture(scope="module")
def raw():
    """The bundled series, each (samples, 6) in g and rad/s, their subjects and exercises."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        cuts = np.cumsum(arrays["lengths"].astype(int))[:-1]
        series = np.split(arrays["samples"] / 1000, cuts)
        return series, arrays["subjects"], arrays["labels"]


@pytest.fixture(scope="module")
def data(opened):
    """A node for each axis, without noise."""
    return opened("wrist-imu", nodes=6, noise=0.0)


def test_every_subject_did_every_exercise_with_both_arms(raw):
    series, subjects, labels = raw
    assert len(series) == 140
    assert sum(map(len, series)) == 244102
    assert min(map(len, series)) == 947
    for subject in range(1, 11):
        assert np.bincount(labels[subjects == subject]).tolist() == [2] * 7
    # At rest a watch feels the earth: about 1 g.
    gravity = np.linalg.norm(np.concatenate(series)[:, :3], axis=1)
    assert np.median(gravity) == pytest.approx(1, abs=0.1)


def test_subjects_are_in_one_split_each(data):
    assert sorted(s for chosen in SUBJECTS.values() for s in chosen) == list(range(1, 11))
    for split, size in SIZES.items():
        assert data.distinct(split) == size
        assert data.size(split) == (None if split == "train" else size)
        counts = np.bincount(data.source(0).labels(split, np.arange(size), 0))
        assert len(counts) == data.classes == 7
        assert counts.min() / size > 0.1
    start = np.bincount(data.source(0).labels("test", np.arange(158), 0))
    whole = np.bincount(data.source(0).labels("test", np.arange(1585), 0))
    assert np.abs(start - whole / 10).max() <= 1


@pytest.mark.parametrize(("window", "stride"), [(64, 32), (512, 1000), (2, 97), (100, 100)])
def test_windows_lie_within_their_series(raw, window, stride):
    """Against all windows of each series, cut one by one."""
    series, subjects, labels = raw
    expected, begin = [], 0
    for one, subject, label in zip(series, subjects, labels, strict=True):
        for start in range(0, len(one) - window + 1, stride):
            expected.append((begin + start, label, subject))
        begin += len(one)
    windows = cut_windows(load_series(), window, stride)
    assert np.array_equal(windows.starts, [start for start, _, _ in expected])
    assert np.array_equal(windows.labels, [label for _, label, _ in expected])
    for split, rows in windows.splits.items():
        own = [k for k, (_, _, subject) in enumerate(expected) if subject in SUBJECTS[split]]
        assert sorted(rows.tolist()) == own
        assert set(windows.labels[rows]) == set(range(7))


def test_all_nodes_see_the_same_moment(data, raw):
    series, subjects, _ = raw
    train = np.concatenate([s for s, who in zip(series, subjects, strict=True) if who <= 7])
    samples = (np.concatenate(series) - train.mean(axis=0)) / train.std(axis=0)
    windows = cut_windows(load_series(), 64, 32)
    for split, rows in windows.splits.items():
        if split == "train":
            continue
        for event, row in enumerate(rows[:50]):
            seen = np.concatenate(
                [data.source(n).samples(split, np.array([event]))[0] for n in range(6)]
            )
            start = windows.starts[row]
            assert np.allclose(seen, samples[start : start + 64].T, atol=1e-5)
            for node in (0, 5):
                label = data.source(node).labels(split, np.array([event]), 3)
                assert label == windows.labels[row]


def test_a_sensor_has_its_three_axes_as_channels(opened, data):
    pair = opened("wrist-imu", nodes=3, noise=0.0, modalities={0: "gyroscope", 1: "accelerometer"})
    assert [pair.modality(n) for n in range(3)] == ["gyroscope", "accelerometer", "acc_z"]
    assert [pair.source(n).shape for n in range(3)] == [(3, 64), (3, 64), (1, 64)]
    events = np.arange(5000, 5100)
    axes = [data.source(n).samples("train", events) for n in range(6)]
    for node, own in ((0, axes[3:]), (1, axes[:3]), (2, axes[2:3])):
        view = pair.source(node).samples("train", events)
        assert view.dtype == np.float32
        assert view.flags.c_contiguous
        assert np.array_equal(view, np.concatenate(own, axis=1))


def test_modalities_go_to_the_nodes_in_turn(data):
    assert [data.modality(n) for n in range(6)] == AXES


def test_epochs_reorder_and_do_not_repeat(data):
    view = data.source(3).samples("train", np.arange(2 * 5070))[:, 0]
    first, second = np.split(view, 2)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


def test_training_samples_have_unit_deviation(data):
    for node in range(6):
        view = data.source(node).samples("train", np.arange(5070)).astype(float)
        # Windows overlap and leave out the ends, so the moments are not those of all samples.
        assert abs(view.mean()) < 0.02
        assert abs(view.std() - 1) < 0.02


def test_noise_is_on_training_views_only_and_fresh_every_epoch(opened, data):
    noisy, events = opened("wrist-imu", nodes=6, noise=0.5), np.arange(2 * 5070)
    added = noisy.source(1).samples("train", events) - data.source(1).samples("train", events)
    assert added.std() == pytest.approx(0.5, rel=0.01)
    first, second = np.split(added.ravel(), 2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    for split in ("validation", "test"):
        views = [d.source(1).samples(split, np.arange(200)) for d in (noisy, data)]
        assert np.array_equal(*views)
    mixed = np.array([9000, 3, 5069, 5070, 64])
    assert np.array_equal(
        noisy.source(1).samples("train", mixed), noisy.source(1).samples("train", events)[mixed]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, r"dataset\.window = 1"),
        ({"window": 513}, r"dataset\.window = 513"),
        ({"stride": 0}, r"dataset\.stride = 0"),
        ({"strides": 3}, r"dataset\.strides: unknown key\. Did you mean 'stride'"),
        ({"noise": -1}, r"dataset\.noise = -1"),
    ],
)
def test_wrong_options_are_named(opened, options, message):
    with pytest.raises(ConfigError, match=message):
        opened("wrist-imu", **options)


def test_unknown_modalities_are_refused(opened):
    with pytest.raises(ConfigError, match=r"node n1: modality = 'gyro_x'.*mean 'gyr_x'"):
        opened("wrist-imu", modalities={1: "gyro_x"})


@pytest.mark.parametrize("name", ["wrist-imu", "wrist-imu-pair"])
def test_the_shipped_networks_have_encoders_that_fit(name):
    path = Path(__file__).parents[2] / "topologies" / f"{name}.yaml"
    assert sheafnet.Plan.open(sheafnet.load_config(path)).dataset.classes == 7
