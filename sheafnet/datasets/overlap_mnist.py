"""Cameras whose fields of view overlap pairwise, on any graph.

Every edge's overlap shows one digit; a node sees the digits of its incident edges side by side, in
edge-index order, each through its own window with its own shift and noise. No digit is seen by more
than two nodes: partial redundancy by construction. Labels belong to edges.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sheafnet.config import Model
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.blocks import Blocks, Draw, Integers, PixelNoise
from sheafnet.datasets.digits import CITATION, CLASSES, LICENCE, SIDE, load_digits
from sheafnet.datasets.epochs import Epochs, Rows, check_events
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.datasets.raster import windows
from sheafnet.topology import Topology

MODALITIES = ("camera",)
WINDOW = 20
MARGIN = (SIDE - WINDOW) // 2
MEAN, SD = 0.2409, 0.3859
"""Of a clean pixel, in [0, 1], of the bundled training digits in windows at the default shift."""


class Options(Model):
    """Keys of ``dataset: {name: overlap-mnist}``."""

    shift: Annotated[int, Field(ge=0, le=MARGIN)] = 2
    """Largest shift of the window in pixels, each axis, uniform, per node, event and digit."""
    noise: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the Gaussian noise; pixels lie in [0, 1]."""
    data_dir: str | None = None
    """Folder with the four IDX files of the full MNIST; the bundled 5,000 digits otherwise."""


class OverlapMnist:
    """The data set, opened.

    The digit of (edge, split, event) comes from a permutation of the split's digits keyed by
    (seed, "digits", edge, split, epoch): no digit twice on an edge within an epoch.
    """

    classes = CLASSES
    labels_per_edge = True

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check the modalities and load the digits, once in a process."""
        self._options, self._topology, self._seed = options, topology, seed
        self._modalities = assign_modalities("overlap-mnist", topology, MODALITIES)
        self._digits = load_digits(options.data_dir)
        self._epochs: dict[tuple[int, Split], Epochs] = {}

    def size(self, split: Split) -> int | None:
        """Events in `split`; None for training, which has no end."""
        return None if split == "train" else self.distinct(split)

    def distinct(self, split: Split) -> int:
        """Source digits of `split`: the events of one epoch."""
        return len(self._digits.splits[split])

    def modality(self, node: int) -> str:
        """Always ``camera``."""
        return self._modalities[node]

    def source(self, node: int) -> Source:
        """The camera of `node`: samples of shape (1, 20, 20·degree)."""
        edges = tuple(edge.index for edge in self._topology.incident(node))
        return _Camera(self, self._options, self._seed, node, edges)

    def digits(self, edge: int, split: Split, events: Events) -> Rows:
        """The source digit that `edge` shows at each event, as a row of the digits: (n,)."""
        check_events(events, self.size(split), split)
        key = (edge, split)
        if key not in self._epochs:
            self._epochs[key] = Epochs(self.distinct(split), self._seed, "digits", edge, split)
        return self._digits.splits[split][self._epochs[key].rows(events)]

    def labels(self, edge: int, split: Split, events: Events) -> Labels:
        """The digit 0 to 9 that `edge` shows at each event: (n,)."""
        return self._digits.labels[self.digits(edge, split, events)].astype(np.int64)

    def crops(self, digits: Rows, top: Rows, left: Rows) -> npt.NDArray[np.uint8]:
        """The 20 x 20 windows of `digits` at `top`, `left`: (*digits.shape, 20, 20)."""
        return windows(self._digits.images, WINDOW)[digits, top, left]


class _Camera:
    """What one node sees."""

    def __init__(
        self, data: OverlapMnist, options: Options, seed: int, node: int, edges: tuple[int, ...]
    ) -> None:
        self._data, self._options, self._seed = data, options, seed
        self._node, self._edges = node, edges
        self.shape: tuple[int, ...] = (1, WINDOW, WINDOW * len(edges))

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), 1, 20, 20·degree)."""
        count, tiles = len(events), len(self._edges)
        digits = np.stack([self._data.digits(e, split, events) for e in self._edges], axis=1)
        reach = self._options.shift
        draws: list[Draw] = [Integers((tiles, 2), MARGIN - reach, MARGIN + reach)]
        if self._options.noise:
            draws.append(PixelNoise((WINDOW, tiles * WINDOW)))
        blocks = Blocks(self._seed, "view", self._node, split)
        corners, *noise = blocks.rows(events, *draws)
        crops = self._data.crops(digits, corners[..., 0], corners[..., 1])
        seen = np.empty((count, WINDOW, tiles, WINDOW), np.float32)
        np.multiply(crops.transpose(0, 2, 1, 3), np.float32(1 / (255 * SD)), out=seen)
        seen -= np.float32(MEAN / SD)
        view = seen.reshape(count, WINDOW, tiles * WINDOW)
        for drawn in noise:
            drawn *= np.float32(self._options.noise / SD)
            view += drawn
        return view[:, None]

    def labels(self, split: Split, events: Events, edge: int) -> Labels:
        """The digit that `edge`, one of the node's own, shows at `events`: (len(events),).

        Raises:
            ValueError: the node is at neither end of `edge`.
        """
        if edge not in self._edges:
            raise ValueError(f"node {self._node} is at neither end of edge {edge}")
        return self._data.labels(edge, split, events)


INFO = DatasetInfo(
    name="overlap-mnist",
    summary="cameras with overlapping fields of view on any graph; one digit per edge",
    modalities=", ".join(MODALITIES),
    sizes="3500 / 500 / 1000 digits on each edge (full MNIST: 55000 / 5000 / 10000)",
    licence=LICENCE,
    citation=CITATION,
    options=Options,
    open=OverlapMnist,
)
