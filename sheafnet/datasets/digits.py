"""The source digits behind the MNIST data sets: bundled, or the standard IDX files of a user."""

import gzip
import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sheafnet.datasets.base import Split
from sheafnet.datasets.epochs import Rows, cut, stratified
from sheafnet.errors import DatasetError

SIDE = 28
CLASSES = 10
BUNDLED = Path(__file__).parent / "bundled" / "mnist5k.npz"
LICENCE = "CC BY-SA 3.0 as commonly stated; details in bundled/provenance.json"
CITATION = (
    "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document "
    "recognition. Proceedings of the IEEE 86(11), 1998. https://doi.org/10.1109/5.726791"
)
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Digits:
    """Images (n, 28, 28) and labels (n,), both uint8 and read-only, and the rows of each split."""

    images: Bytes
    labels: Bytes
    splits: dict[Split, Rows]


def load_digits(data_dir: str | None) -> Digits:
    """The bundled 5,000 digits, or the full set from the IDX files in `data_dir`.

    The splits are by source digit, stratified and fixed: 3,500 / 500 / 1,000 of the bundled ones;
    of the full set 11/12 and 1/12 of the train files (55,000 / 5,000) and all of the t10k files.
    Loaded once in a process.

    Raises:
        DatasetError: a file of `data_dir` is missing or is not the IDX file it should be.
    """
    return _bundled() if data_dir is None else _idx(Path(data_dir).expanduser().resolve())


@lru_cache(maxsize=1)
def _bundled() -> Digits:
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return _frozen(images, labels, cut(stratified(labels, "mnist5k"), 3500, 500))


@lru_cache(maxsize=1)
def _idx(folder: Path) -> Digits:
    if not folder.is_dir():
        raise DatasetError(
            f"dataset.data_dir: {folder} is not a folder; give the one that holds the MNIST IDX "
            "files train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz] and both t10k files."
        )
    images, labels = _part(folder, "train")
    test_images, test_labels = _part(folder, "t10k")
    order = stratified(labels, "mnist-idx")
    validation = len(order) // 12
    splits = cut(order, len(order) - validation, validation)
    splits["test"] = len(order) + stratified(test_labels, "mnist-idx")
    for split, rows in splits.items():
        if not len(rows):
            raise DatasetError(
                f"{folder}: {len(images)} train and {len(test_images)} t10k images leave no digit "
                f"for {split}; the standard files have 60000 and 10000."
            )
    return _frozen(
        np.concatenate([images, test_images]), np.concatenate([labels, test_labels]), splits
    )


def _frozen(images: Bytes, labels: Bytes, splits: dict[Split, Rows]) -> Digits:
    images.flags.writeable = labels.flags.writeable = False
    for rows in splits.values():
        rows.flags.writeable = False
    return Digits(images, labels, splits)


def _part(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    images = _read_idx(folder / f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
    if images.shape[1:] != (SIDE, SIDE):
        raise DatasetError(
            f"{folder}/{part}-images-idx3-ubyte: the images have shape {images.shape[1:]}; "
            f"expected {SIDE} x {SIDE}."
        )
    if len(images) != len(labels):
        raise DatasetError(
            f"{folder}/{part}-labels-idx1-ubyte: {len(labels)} labels for {len(images)} images in "
            f"{part}-images-idx3-ubyte; take both from the same download."
        )
    if len(labels) and labels.max() >= CLASSES:
        row = int(np.argmax(labels >= CLASSES))
        raise DatasetError(
            f"{folder}/{part}-labels-idx1-ubyte: label {labels[row]} in row {row}; "
            "expected digits 0 to 9."
        )
    return images, labels


def _read_idx(plain: Path, dimensions: int) -> Bytes:
    """Unsigned bytes of an IDX file: magic 0x0000080D, D big-endian sizes, the values."""
    packed = plain.with_name(f"{plain.name}.gz")
    path = plain if plain.exists() else packed
    try:
        raw = gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(
            f"{plain}: no such file, nor {packed.name}; "
            "download it from the MNIST distribution into this folder."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; download it again.") from None
    head = 4 + 4 * dimensions
    if len(raw) < head or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise DatasetError(
            f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions: starts with "
            f"{raw[:4].hex(' ') or 'nothing'}, expected 00 00 08 {dimensions:02x}."
        )
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", dimensions, 4))
    count = math.prod(shape)
    if len(raw) != head + count:
        raise DatasetError(
            f"{path}: {len(raw)} bytes, expected {head + count} for shape {shape}; "
            "download it again."
        )
    return np.frombuffer(raw, np.uint8, count, head).reshape(shape)
