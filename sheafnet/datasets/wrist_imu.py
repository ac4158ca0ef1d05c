"""Real wearable sensors: accelerometer and gyroscope of a smartwatch during shoulder exercises.

Ten subjects, seven exercises with each arm, 50 samples a second. An event is a window of time, the
same moment for all nodes; its label is the exercise. The splits are by subject, so a test window
comes from a person whom training never saw, and no window reaches from one series into another.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sheafnet.config import Model
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.blocks import Blocks, Normal
from sheafnet.datasets.epochs import FiniteEvents, Rows, SplitRows, stratified
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.topology import Topology

AXES = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")
"""In the order of the columns of the file."""
SENSORS = {"accelerometer": AXES[:3], "gyroscope": AXES[3:]}
MODALITIES = (*AXES, *SENSORS)
BUNDLED = Path(__file__).parent / "bundled" / "wrist_imu.npz"
CLASSES = 7
SUBJECTS: dict[Split, tuple[int, ...]] = {
    "train": (1, 2, 3, 4, 5, 6, 7),
    "validation": (8,),
    "test": (9, 10),
}
"""Every subject did every exercise, so any choice has all classes; this one is by number."""


class Options(Model):
    """Keys of ``dataset: {name: wrist-imu}``."""

    window: Annotated[int, Field(ge=2, le=512)] = 64
    """Samples W in an event, at 50 Hz; the shortest series has 947."""
    stride: Annotated[int, Field(ge=1)] = 32
    """Samples from the start of a window to that of the next."""
    noise: Annotated[float, Field(ge=0.0)] = 0.1
    """Standard deviation of Gaussian noise on training views, in standard deviations of the axis;
    drawn anew for every batch."""


@dataclass(frozen=True)
class Series:
    """All series: read-only arrays, one row a series but for the samples."""

    samples: npt.NDArray[np.float32]
    """(samples, 6), series after series, standardised over the training subjects."""
    lengths: Rows
    subjects: Rows
    labels: Labels


@lru_cache(maxsize=1)
def load_series() -> Series:
    """The bundled 140 series. Loaded once in a process."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        samples = arrays["samples"].astype(np.float64)
        lengths, subjects, labels = (
            arrays[name].astype(np.int64) for name in ("lengths", "subjects", "labels")
        )
    train = samples[np.repeat(np.isin(subjects, SUBJECTS["train"]), lengths)]
    standardised = ((samples - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)
    for array in (standardised, lengths, subjects, labels):
        array.flags.writeable = False
    return Series(standardised, lengths, subjects, labels)


@dataclass(frozen=True)
class Windows:
    """The windows of all series: where each starts, its label, and the rows of each split."""

    starts: Rows
    labels: Labels
    splits: dict[Split, Rows]


def cut_windows(series: Series, window: int, stride: int) -> Windows:
    """Windows of `window` samples, the first at the start of its series, the next `stride` on."""
    begins = np.cumsum(series.lengths) - series.lengths
    counts = (series.lengths - window) // stride + 1
    starts = np.concatenate(
        [begin + stride * np.arange(n) for begin, n in zip(begins, counts, strict=True)]
    )
    labels, subjects = (np.repeat(a, counts) for a in (series.labels, series.subjects))
    splits: dict[Split, Rows] = {}
    for split, chosen in SUBJECTS.items():
        rows = np.flatnonzero(np.isin(subjects, chosen))
        splits[split] = rows[stratified(labels[rows], "wrist-imu", split)]
    return Windows(starts, labels, splits)


class WristImu(FiniteEvents):
    """The data set, opened."""

    classes = CLASSES

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check the modalities, load the series, once in a process, and cut them into windows."""
        self._options, self._seed = options, seed
        self._modalities = assign_modalities("wrist-imu", topology, MODALITIES)
        self._windows = cut_windows(load_series(), options.window, options.stride)
        self._rows = SplitRows(self._windows.splits, seed)

    def source(self, node: int) -> Source:
        """The source of `node`: samples of shape (1, window) or (3, window)."""
        modality = self._modalities[node]
        fresh = Blocks(self._seed, "view", node, "train")
        axes = SENSORS.get(modality, (modality,))
        return _View(self._windows, self._rows, self._options, axes, fresh)


class _View:
    """What one node sees."""

    def __init__(
        self,
        windows: Windows,
        rows: SplitRows,
        options: Options,
        axes: tuple[str, ...],
        fresh: Blocks,
    ) -> None:
        self._windows, self._rows, self._options, self._fresh = windows, rows, options, fresh
        self._columns = np.array([[AXES.index(axis)] for axis in axes])
        self.shape: tuple[int, ...] = (len(axes), options.window)

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), axes, window)."""
        starts = self._windows.starts[self._rows.rows(split, events)]
        moments = starts[:, None, None] + np.arange(self._options.window)
        view: Samples = load_series().samples[moments, self._columns]
        if self._options.noise and split == "train":
            (noise,) = self._fresh.rows(events, Normal(self.shape))
            view += np.float32(self._options.noise) * noise
        return view

    def labels(self, split: Split, events: Events, edge: int) -> Labels:  # noqa: ARG002
        """The exercise of `events`, whatever the edge: (len(events),)."""
        return self._windows.labels[self._rows.rows(split, events)]


INFO = DatasetInfo(
    name="wrist-imu",
    summary="a smartwatch's accelerometer and gyroscope during seven exercises, split by subject",
    modalities=", ".join(MODALITIES),
    sizes="5070 / 766 / 1585 windows of 7 / 1 / 2 subjects at the default window and stride",
    licence="BSD-3-Clause, that of the package it comes with; details in bundled/provenance.json",
    citation=(
        "D.M. Burns, N. Leung, M. Hardisty, C.M. Whyne, P. Henry, S. McLachlin. Shoulder "
        "physiotherapy exercise recognition: machine learning the inertial signals from a "
        "smartwatch. Physiological Measurement 39(7), 2018. "
        "https://doi.org/10.1088/1361-6579/aacfd9"
    ),
    options=Options,
    open=WristImu,
)
