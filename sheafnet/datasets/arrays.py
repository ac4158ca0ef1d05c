"""A folder of the user's own arrays: ``<modality>.npy`` each, ``labels.npy``, ``splits.npy``.

The first axis of every array is the event. All that a run uses is checked when the folder is
opened; an array's values are kept only once a node asks for them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sheafnet.config import Model
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.epochs import FiniteEvents, Rows, SplitRows, cut, stratified
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.errors import DatasetError
from sheafnet.topology import Topology
from sheafnet.validation import nearest

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
RESERVED = ("labels", "splits")
CHUNK = 4096
Array = npt.NDArray[Any]


class Options(Model):
    """Keys of ``dataset: {name: arrays}``."""

    path: str
    """The folder; a relative one starts at the working directory."""
    split_seed: int = 0
    """Seed of the stratified 70 / 10 / 20 split that is made where there is no ``splits.npy``."""
    standardise: bool = True
    """Subtract the training mean and divide by the training deviation: per feature of a vector,
    per channel of an image."""


class Arrays(FiniteEvents):
    """The folder, opened and checked."""

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check all that the nodes of `topology` will read.

        Raises:
            DatasetError: naming the file, what is wrong with it and what to do.
        """
        self._options = options
        self._folder = Path(options.path).expanduser()
        known = _modalities(self._folder)
        for node in topology.nodes:
            if node.modality is not None and node.modality not in known:
                raise DatasetError(
                    f"{self._folder / node.modality}.npy: no such file, but node {node.id} has "
                    f"that modality; add it or change the node. {nearest(node.modality, known)}"
                )
        self._modalities = assign_modalities("arrays", topology, known)
        self._labels = _labels(self._folder / "labels.npy")
        self.classes = int(self._labels.max()) + 1
        for modality in sorted(set(self._modalities)):
            _check_values(self._path(modality), self._open(modality))
        splits = _splits(self._folder / "splits.npy", self._labels, options.split_seed)
        self._train = np.sort(splits["train"])
        self._rows = SplitRows(splits, seed)
        self._tables: dict[str, Samples] = {}

    def source(self, node: int) -> Source:
        """The source of `node`: samples of shape (features,) or (channels, height, width)."""
        modality = self._modalities[node]
        shape = self._open(modality).shape[1:]
        return _View(shape, partial(self._shared, modality), self._labels, self._rows)

    def _shared(self, modality: str) -> Samples:
        """The values of `modality`, loaded when a node of this process first asks for one."""
        if modality not in self._tables:
            self._tables[modality] = self._table(modality)
        return self._tables[modality]

    def _path(self, modality: str) -> Path:
        return self._folder / f"{modality}.npy"

    def _open(self, modality: str) -> Array:
        """The array as it lies on disk, brought to (n, features) or (n, c, h, w)."""
        path = self._path(modality)
        array = _read(path)
        if array.dtype.kind not in "biuf":
            raise DatasetError(
                f"{path}: holds {array.dtype}, expected whole or floating-point numbers; "
                "convert it with astype(np.float32)."
            )
        if array.ndim not in (1, 2, 3, 4) or 0 in array.shape[1:]:
            raise DatasetError(
                f"{path}: shape {array.shape}; expected (events,), (events, features), "
                "(events, height, width) or (events, channels, height, width)."
            )
        if len(array) != len(self._labels):
            raise DatasetError(
                f"{path}: {len(array)} events, but labels.npy has {len(self._labels)}; row i of "
                "every array must be the same event."
            )
        if array.ndim == 1:
            return array[:, None]
        return array[:, None] if array.ndim == 3 else array

    def _table(self, modality: str) -> Samples:
        array = self._open(modality)
        if not self._options.standardise:
            return array.astype(np.float32)
        train = array[self._train]
        axes = (0,) if array.ndim == 2 else (0, 2, 3)
        mean = train.mean(axis=axes, keepdims=True, dtype=np.float64)
        sd = train.std(axis=axes, keepdims=True, dtype=np.float64)
        table = np.empty(array.shape, np.float32)
        for start in range(0, len(array), CHUNK):
            part = array[start : start + CHUNK]
            table[start : start + CHUNK] = (part - mean) / np.where(sd > 0, sd, 1.0)
        return table


class _View:
    """What one node sees."""

    def __init__(
        self,
        shape: tuple[int, ...],
        table: Callable[[], Samples],
        labels: Labels,
        rows: SplitRows,
    ) -> None:
        self._table, self._labels, self._rows = table, labels, rows
        self.shape = shape

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), *shape)."""
        return self._table()[self._rows.rows(split, events)]

    def labels(self, split: Split, events: Events, edge: int) -> Labels:  # noqa: ARG002
        """The label of `events`, whatever the edge: (len(events),)."""
        return self._labels[self._rows.rows(split, events)]


def _modalities(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DatasetError(
            f"dataset.path: {folder} is not a folder (relative paths start at {Path.cwd()}); make "
            "it and put <modality>.npy files and labels.npy into it."
        )
    found = sorted(path.stem for path in folder.glob("*.npy") if path.stem not in RESERVED)
    if not found:
        raise DatasetError(
            f"{folder}: holds no <modality>.npy; write one array per modality with np.save, first "
            "axis events."
        )
    return found


def _read(path: Path) -> Array:
    try:
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; write it with np.save.") from None
    # A damaged header reaches numpy's parser, which lets TokenError and others through.
    except Exception as error:
        raise DatasetError(
            f"{path}: cannot be read as an array of numbers ({error}); write it again with np.save "
            "and a numeric dtype."
        ) from None
    if array.ndim == 0:
        raise DatasetError(f"{path}: is not an array with a first axis of events.")
    return array


def _check_values(path: Path, array: Array) -> None:
    largest = np.finfo(np.float32).max
    for start in range(0, len(array), CHUNK):
        part = np.abs(np.asarray(array[start : start + CHUNK]).reshape(-1, *array.shape[1:]))
        usable = (part <= largest).reshape(len(part), -1).all(axis=1)
        if not usable.all():
            row = int(np.argmin(usable))
            what = "NaN" if np.isnan(part[row]).any() else "infinity or a value beyond float32"
            raise DatasetError(
                f"{path}: {what} in row {start + row}, the first such; remove that event from all "
                "arrays, or fill the value."
            )


def _labels(path: Path) -> Labels:
    array = _read(path)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DatasetError(
            f"{path}: shape {array.shape} of {array.dtype}; expected one whole number per event."
        )
    if not len(array):
        raise DatasetError(f"{path}: holds no event.")
    values = np.unique(array)
    if values[0] < 0:
        row = int(np.argmax(np.asarray(array) < 0))
        raise DatasetError(f"{path}: label {array[row]} in row {row}; labels are 0 to classes - 1.")
    gaps = np.flatnonzero(values != np.arange(len(values)))
    if len(gaps):
        raise DatasetError(
            f"{path}: no event has label {gaps[0]}, but some have {values[-1]}; number the classes "
            "from 0 without gaps, for example with np.unique(labels, return_inverse=True)[1]."
        )
    return np.array(array, np.int64)


def _splits(path: Path, labels: Labels, seed: int) -> dict[Split, Rows]:
    if not path.exists():
        order = stratified(labels, "arrays", seed)
        splits = cut(order, round(0.7 * len(labels)), round(0.1 * len(labels)))
        must: tuple[Split, ...] = SPLITS
        remedy = "give about 10 events or more of each class, or a splits.npy"
    else:
        array = _read(path)
        if array.shape != labels.shape or array.dtype.kind not in "iu":
            raise DatasetError(
                f"{path}: shape {array.shape} of {array.dtype}; expected {labels.shape} whole "
                "numbers, 0 train, 1 validation, 2 test."
            )
        wrong = np.flatnonzero((array < 0) | (array > 2))
        if len(wrong):
            raise DatasetError(
                f"{path}: {array[wrong[0]]} in row {wrong[0]}; expected 0 train, 1 validation or "
                "2 test."
            )
        splits = {}
        for number, split in enumerate(SPLITS):
            rows = np.flatnonzero(array == number)
            splits[split] = rows[stratified(labels[rows], "arrays", split)]
        must = ("train",)
        remedy = "assign some to it in splits.npy"
    for split in SPLITS:
        if not len(splits[split]):
            raise DatasetError(f"{path.parent}: no event is left for {split}; {remedy}.")
    for split in must:
        lacking = np.setdiff1d(labels, labels[splits[split]])
        if len(lacking):
            raise DatasetError(
                f"{path.parent}: class {lacking[0]} has {(labels == lacking[0]).sum()} events in "
                f"all and none in {split}: too few for the splits; {remedy}."
            )
    return splits


INFO = DatasetInfo(
    name="arrays",
    summary="your own folder of .npy arrays, one per modality",
    modalities="one per .npy file, by name",
    sizes="yours; 70% / 10% / 20% without splits.npy",
    licence="yours",
    citation="yours",
    options=Options,
    open=Arrays,
)
