import gzip
import struct

import numpy as np
import pytest

from sheafnet.datasets.digits import load_digits
from sheafnet.errors import DatasetError

TRAIN, T10K = 240, 60


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + (array.tobytes())
    )


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", TRAIN), ("t10k", T10K)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels = (np.arange(n) % 10).astype(np.uint8)
        packed = gzip.compress(idx(images), mtime=0)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(packed)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_bundled_splits_are_stratified_and_disjoint(mnist):
    images, labels = mnist
    digits = load_digits(None)
    assert np.array_equal(digits.images, images)
    assert np.array_equal(digits.labels, labels)
    sizes = {"train": 350, "validation": 50, "test": 100}
    for split, each in sizes.items():
        assert np.bincount(labels[digits.splits[split]]).tolist() == [each] * 10
    pixels = [{images[i].tobytes() for i in digits.splits[split]} for split in sizes]
    assert sum(map(len, pixels)) == len(set.union(*pixels)) == 5000


def test_bundled_digits_are_shared_and_cannot_be_changed():
    digits = load_digits(None)
    assert load_digits(None) is digits
    with pytest.raises(ValueError, match="read-only"):
        digits.images[0, 0, 0] = 1


def test_idx_files_plain_or_packed(folder):
    digits = load_digits(str(folder))
    assert np.array_equal(digits.images[:, 0, 0], digits.labels)
    assert {s: len(r) for s, r in digits.splits.items()} == {
        "train": 220,
        "validation": 20,
        "test": 60,
    }
    assert digits.splits["test"].min() == TRAIN
    assert digits.splits["train"].max() < TRAIN
    assert np.bincount(digits.labels[digits.splits["validation"]]).tolist() == [2] * 10
    assert not set(digits.splits["train"]) & set(digits.splits["validation"])


def test_idx_views_reach_the_nodes(folder, opened):
    data = opened("overlap-mnist", data_dir=str(folder))
    assert (data.distinct("train"), data.size("validation"), data.size("test")) == (220, 20, 60)
    assert data.source(0).samples("test", np.arange(60)).shape == (60, 1, 20, 40)


def damage(folder, name, content):
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)


BLANK = np.zeros((TRAIN, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", b"", "not an IDX file .* 1 dim.*nothing, expected 00 00 08 01"),
        ("train-labels-idx1-ubyte", idx(BLANK), "starts with 00 00 08 03"),
        ("train-labels-idx1-ubyte", idx(BLANK[:, 0, 0])[:-1], "247 bytes, expected 248"),
        ("train-labels-idx1-ubyte", idx(BLANK[:, 0, 0]) + b"x", "249 bytes, expected 248"),
        ("train-labels-idx1-ubyte", idx(BLANK[1:, 0, 0]), "239 labels for 240 images"),
        ("train-labels-idx1-ubyte", idx(BLANK[:, 0, 0] + 10), "label 10 in row 0"),
        ("train-images-idx3-ubyte", idx(BLANK[:, 1:]), r"\(27, 28\); expected 28 x 28"),
        ("train-images-idx3-ubyte.gz", b"no gzip", "cannot be read"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(BLANK), mtime=0)[:-9], "cannot be read"),
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1]) + b"\xff" * 4, "expected 4294967303"),
    ],
)
def test_malformed_files_are_named(folder, name, content, message):
    damage(folder, name, content)
    with pytest.raises(DatasetError, match=message) as error:
        load_digits(str(folder))
    assert name.removesuffix(".gz") in str(error.value)


def test_missing_files_and_folders_are_named(folder, tmp_path):
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte: no such file, nor .*\.gz"):
        load_digits(str(folder))
    with pytest.raises(DatasetError, match=r"dataset\.data_dir: .*nowhere is not a folder"):
        load_digits(str(tmp_path / "nowhere"))


def test_too_few_digits_for_the_splits(folder):
    damage(folder, "t10k-images-idx3-ubyte.gz", gzip.compress(idx(BLANK[:0]), mtime=0))
    damage(folder, "t10k-labels-idx1-ubyte", idx(BLANK[:0, 0, 0]))
    with pytest.raises(DatasetError, match="leave no digit for test"):
        load_digits(str(folder))
