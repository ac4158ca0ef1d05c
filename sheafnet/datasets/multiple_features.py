"""UCI multiple features: 2,000 handwritten digits as six real feature sets.

The rows are not independent: more than half of the nines are sixes turned by 180 degrees, and some
digits occur twice. Such twins are kept in one split, or a test digit would have been seen.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sheafnet.config import Model
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.blocks import Blocks, Normal
from sheafnet.datasets.epochs import FiniteEvents, Rows, SplitRows, cut, stratified
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.topology import Topology

MODALITIES = ("profile", "fourier", "karhunen_loeve", "morphological", "pixels", "zernike")
BUNDLED = Path(__file__).parent / "bundled" / "multiple_features.npz"
CLASSES = 10
PER_CLASS: dict[Split, int] = {"train": 140, "validation": 20, "test": 40}
TWIN = 160.0
"""Largest squared distance between the pixels of twins, of values 0 to 6. Turned pairs have a gap
from 78 to 221, upright ones thin out from 153 to 170, and different digits begin at 298."""

Table = npt.NDArray[np.float32]


class Options(Model):
    """Keys of ``dataset: {name: multiple-features}``."""

    noise: Annotated[float, Field(ge=0.0)] = 0.0
    """Standard deviation of Gaussian noise on training views, in standard deviations of the
    feature; drawn anew every epoch."""


class MultipleFeatures(FiniteEvents):
    """The data set, opened. Features are standardised by their training mean and deviation."""

    classes = CLASSES

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check the modalities and load labels and splits, once in a process."""
        self._options, self._seed = options, seed
        self._modalities = assign_modalities("multiple-features", topology, MODALITIES)
        self._labels, splits = _labels_and_splits()
        self._rows = SplitRows(splits, seed)

    def source(self, node: int) -> Source:
        """The source of `node`: samples of shape (features,)."""
        fresh = Blocks(self._seed, "view", node, "train")
        table = _standardised(self._modalities[node])
        return _View(table, self._labels, self._rows, self._options.noise, fresh)


class _View:
    """What one node sees."""

    def __init__(
        self, table: Table, labels: Labels, rows: SplitRows, noise: float, fresh: Blocks
    ) -> None:
        self._table, self._labels, self._rows = table, labels, rows
        self._noise, self._fresh = noise, fresh
        self.shape: tuple[int, ...] = table.shape[1:]

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), features)."""
        view = self._table[self._rows.rows(split, events)]
        if self._noise and split == "train":
            (noise,) = self._fresh.rows(events, Normal(self.shape))
            view += np.float32(self._noise) * noise
        return view

    def labels(self, split: Split, events: Events, edge: int) -> Labels:  # noqa: ARG002
        """The digit of `events`, whatever the edge: (len(events),)."""
        return self._labels[self._rows.rows(split, events)]


@lru_cache(maxsize=len(MODALITIES))
def _standardised(modality: str) -> Table:
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        raw = arrays[modality].astype(np.float64)
    train = raw[_labels_and_splits()[1]["train"]]
    sd = train.std(axis=0)
    table: Table = ((raw - train.mean(axis=0)) / np.where(sd > 0, sd, 1.0)).astype(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def _labels_and_splits() -> tuple[Labels, dict[Split, Rows]]:
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        labels, pixels = arrays["labels"].astype(np.int64), arrays["pixels"]
    return labels, _splits(labels, twins(pixels))


def twins(pixels: npt.NDArray[np.uint8]) -> Rows:
    """For each row of `pixels` (n, 240), the first row that shows the same written digit.

    Upright or turned by 180 degrees, directly or through other rows.
    """
    # Sums of products of values up to 6 stay far below 2**24: exact in float32.
    upright = pixels.astype(np.float32)
    square = (upright * upright).sum(axis=1)
    first = np.arange(len(pixels))
    for other in (upright, upright[:, ::-1]):
        distance = square[:, None] + square - 2 * upright @ other.T
        for a, b in np.argwhere(np.triu(distance <= TWIN, 1)):
            low, high = sorted((first[a], first[b]))
            first[first == high] = low
    return first


def _splits(labels: Labels, first: Rows) -> dict[Split, Rows]:
    """140 / 20 / 40 rows of each class, with the rows of a group in the same split."""
    order = stratified(labels, "multiple-features")
    groups = [np.flatnonzero(first == head) for head in np.unique(first)]
    groups = [rows for rows in groups if len(rows) > 1]
    kinds = np.array([labels[rows[0]] * CLASSES + labels[rows[-1]] for rows in groups])
    by_kind = stratified(kinds, "multiple-features", "twins")
    shares = cut(by_kind, round(0.7 * len(groups)), round(0.1 * len(groups)))
    chosen = {split: np.concatenate([groups[g] for g in part]) for split, part in shares.items()}
    alone = order[~np.isin(order, np.concatenate(groups))]
    for digit in range(CLASSES):
        free = alone[labels[alone] == digit]
        for split, quota in PER_CLASS.items():
            taken, free = np.split(free, [quota - int((labels[chosen[split]] == digit).sum())])
            chosen[split] = np.concatenate([chosen[split], taken])
    return {
        split: rows[stratified(labels[rows], "multiple-features", split)]
        for split, rows in chosen.items()
    }


INFO = DatasetInfo(
    name="multiple-features",
    summary="2,000 handwritten digits as six real feature sets (UCI)",
    modalities=", ".join(MODALITIES),
    sizes="1400 / 200 / 400 digits",
    licence="CC BY 4.0 as stated by UCI for donated sets; details in bundled/provenance.json",
    citation=(
        "R. Duin. Multiple Features. UCI Machine Learning Repository, 1998. "
        "https://doi.org/10.24432/C5HC70"
    ),
    options=Options,
    open=MultipleFeatures,
)
