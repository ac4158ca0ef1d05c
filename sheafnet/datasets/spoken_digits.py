"""A written digit and a spoken one: MNIST images and the Free Spoken Digit Dataset as MFCCs.

Only the class is shared. An event is a recording and, drawn for it, an image of the same digit;
nothing else of the one can be known from the other. So a node cannot tell the partner of its own
sample from the other members of the class: recall across modalities is at most about the share of
one event in its class's events, and zero-shot accuracy is the figure to read. Nodes of the same
modality see the same image or recording, each through its own shift, trim and noise.

The bundled recordings do not say who spoke: the splits are by recording, and all six voices are
heard in each.
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
from sheafnet.datasets.blocks import Blocks, Draw, Integers, Normal, PixelNoise, Uniform
from sheafnet.datasets.digits import CLASSES, SIDE, Digits, load_digits
from sheafnet.datasets.epochs import Epochs, FiniteEvents, Rows, SplitRows, cut, stratified
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.datasets.multiview_mnist import MEAN_SD
from sheafnet.datasets.raster import shifted
from sheafnet.topology import Topology

MODALITIES = ("image", "audio")
BUNDLED = Path(__file__).parent / "bundled" / "spoken_digits.npz"
COEFFICIENTS = 13


class Options(Model):
    """Keys of ``dataset: {name: spoken-digits}``."""

    shift: Annotated[int, Field(ge=0, le=4)] = 2
    """Largest shift of an image in pixels, each axis, uniform, per node and event."""
    noise: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the Gaussian noise on images; pixels lie in [0, 1]."""
    frames: Annotated[int, Field(ge=2, le=128)] = 32
    """Frames T to which every recording is resampled."""
    trim: Annotated[float, Field(ge=0.0, le=0.4)] = 0.1
    """Largest share of a recording that is cut off at each end, uniform, per node and event."""
    audio_noise: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the Gaussian noise on audio, in deviations of the coefficient."""


@dataclass(frozen=True)
class Recordings:
    """All recordings: read-only arrays, and the rows of each split."""

    frames: npt.NDArray[np.float32]
    """(frames, 13), recording after recording, standardised over the training frames."""
    starts: Rows
    """The first frame of each recording."""
    lengths: Rows
    labels: Labels
    splits: dict[Split, Rows]


@lru_cache(maxsize=1)
def load_recordings() -> Recordings:
    """The bundled 3,000 recordings, 210 / 30 / 60 of each digit. Loaded once in a process."""
    with np.load(BUNDLED, allow_pickle=False) as arrays:
        frames = arrays["mfcc"].astype(np.float32)
        lengths, labels = arrays["lengths"].astype(np.int64), arrays["labels"].astype(np.int64)
    splits = cut(stratified(labels, "spoken-digits"), 2100, 300)
    train = frames[np.repeat(np.isin(np.arange(len(labels)), splits["train"]), lengths)]
    frames -= train.mean(axis=0, dtype=np.float64).astype(np.float32)
    frames /= train.std(axis=0, dtype=np.float64).astype(np.float32)
    starts = np.cumsum(lengths) - lengths
    for array in (frames, starts, lengths, labels, *splits.values()):
        array.flags.writeable = False
    return Recordings(frames, starts, lengths, labels, splits)


class Pairs:
    """Which recording and which image an event is.

    Every event of an epoch is another recording and another image. In training both the order of
    the recordings and their images are drawn anew every epoch; in validation and test the k-th
    recording of a digit always goes with the k-th image of it.
    """

    def __init__(self, recordings: Recordings, digits: Digits, seed: int) -> None:
        """Each split must have at least as many images of a digit as recordings."""
        self.recordings = SplitRows(recordings.splits, seed)
        self._labels = recordings.labels
        self._place = np.empty(len(recordings.labels), np.int64)
        self._images: dict[Split, list[Rows]] = {}
        for split, rows in recordings.splits.items():
            for digit in range(CLASSES):
                own = rows[recordings.labels[rows] == digit]
                self._place[own] = np.arange(len(own))
            images = digits.splits[split]
            self._images[split] = [images[digits.labels[images] == d] for d in range(CLASSES)]
        self._orders = [
            Epochs(len(images), seed, "pairs", digit)
            for digit, images in enumerate(self._images["train"])
        ]

    def labels(self, split: Split, events: Events) -> Labels:
        """The digit of each event: (len(events),)."""
        return self._labels[self.recordings.rows(split, events)]

    def images(self, split: Split, events: Events) -> Rows:
        """The row of each event's image: (len(events),)."""
        recordings = self.recordings.rows(split, events)
        labels, places = self._labels[recordings], self._place[recordings]
        epochs = events // self.recordings.distinct("train")
        rows = np.empty(len(events), np.int64)
        for digit in np.unique(labels):
            here, images = labels == digit, self._images[split][digit]
            place = places[here]
            if split == "train":
                place = self._orders[digit].rows(epochs[here] * len(images) + place)
            rows[here] = images[place]
        return rows


class SpokenDigits(FiniteEvents):
    """The data set, opened."""

    classes = CLASSES

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check the modalities and load images and recordings, once in a process."""
        self._options, self._seed = options, seed
        self._modalities = assign_modalities("spoken-digits", topology, MODALITIES)
        self._pairs = Pairs(load_recordings(), load_digits(None), seed)
        self._rows = self._pairs.recordings

    def source(self, node: int) -> Source:
        """The source of `node`: samples of shape (1, 28, 28) or (13, frames)."""
        if self._modalities[node] == "image":
            return _Images(self._pairs, self._options, self._seed, node)
        return _Audio(self._pairs, self._options, self._seed, node)


class _View:
    """What one node sees, but for its samples."""

    def __init__(self, pairs: Pairs, options: Options, seed: int, node: int) -> None:
        self._pairs, self._options = pairs, options
        self._seed, self._node = seed, node

    def labels(self, split: Split, events: Events, edge: int) -> Labels:  # noqa: ARG002
        """The digit of `events`, whatever the edge: (len(events),)."""
        return self._pairs.labels(split, events)

    def _blocks(self, split: Split) -> Blocks:
        return Blocks(self._seed, "view", self._node, split)


class _Images(_View):
    shape: tuple[int, ...] = (1, SIDE, SIDE)

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), 1, 28, 28)."""
        images = load_digits(None).images[self._pairs.images(split, events)]
        reach = self._options.shift
        draws: list[Draw] = [Integers((2,), -reach, reach)]
        if self._options.noise:
            draws.append(PixelNoise((SIDE, SIDE)))
        shifts, *noise = self._blocks(split).rows(events, *draws)
        view = shifted(images, shifts)
        for drawn in noise:
            drawn *= np.float32(self._options.noise)
            view += drawn
        mean, sd = MEAN_SD["image"]
        view -= np.float32(mean)
        view *= np.float32(1 / sd)
        return view[:, None]


class _Audio(_View):
    def __init__(self, pairs: Pairs, options: Options, seed: int, node: int) -> None:
        super().__init__(pairs, options, seed, node)
        self.shape: tuple[int, ...] = (COEFFICIENTS, options.frames)

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), 13, frames)."""
        rows = self._pairs.recordings.rows(split, events)
        draws: list[Draw] = [Uniform((2,))]
        if self._options.audio_noise:
            draws.append(Normal(self.shape))
        trims, *noise = self._blocks(split).rows(events, *draws)
        trims *= np.float32(self._options.trim)
        view = resampled(load_recordings(), rows, trims, self._options.frames)
        for drawn in noise:
            drawn *= np.float32(self._options.audio_noise)
            view += drawn
        return view


def resampled(
    recordings: Recordings, rows: Rows, trims: npt.NDArray[np.float32], count: int
) -> Samples:
    """Recordings `rows` at `count` moments spread evenly over what `trims` leaves: (n, 13, count).

    `trims` (n, 2) are the shares of a recording cut off at its start and its end; between frames
    it is interpolated linearly.
    """
    last = (recordings.lengths[rows] - 1).astype(np.float32)
    start, end = last * trims[:, 0], last * (1 - trims[:, 1])
    steps = np.linspace(0, 1, count, dtype=np.float32)
    moments = start[:, None] + (end - start)[:, None] * steps
    # The last moment may be the last frame, which has none behind it.
    before = np.minimum(moments.astype(np.int64), recordings.lengths[rows, None] - 2)
    part = (moments - before).astype(np.float32)[:, :, None]
    at = recordings.starts[rows, None] + before
    view = recordings.frames[at] * (1 - part) + recordings.frames[at + 1] * part
    return np.ascontiguousarray(view.transpose(0, 2, 1))


INFO = DatasetInfo(
    name="spoken-digits",
    summary="a written and a spoken digit: only the class is shared (MNIST and FSDD)",
    modalities=", ".join(MODALITIES),
    sizes="2100 / 300 / 600 recordings, with as many images",
    licence="images CC BY-SA 3.0, audio CC BY-SA 4.0 as stated; details in bundled/provenance.json",
    citation=(
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document "
        "recognition. Proceedings of the IEEE 86(11), 1998. https://doi.org/10.1109/5.726791; "
        "Z. Jackson et al. Free Spoken Digit Dataset, v1.0.8. Zenodo, 2018. "
        "https://doi.org/10.5281/zenodo.1342401"
    ),
    options=Options,
    open=SpokenDigits,
)
