"""Three views of one digit: the multi-view MNIST experiment of the SheafAlign paper.

The paper (arXiv 2510.20540) names three views and does not specify them. These are ours, chosen so
that no view is a copy of another: ``image``, the digit itself; ``gradient``, the Sobel magnitude of
the digit, its outline without its filling; ``rotated``, the digit turned by a random angle. Each
node draws its own shift, angle and pixel noise, so two nodes with the same view differ too.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from sheafnet.config import Model
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.blocks import Blocks, Draw, Integers, PixelNoise, Uniform
from sheafnet.datasets.digits import CITATION, CLASSES, LICENCE, SIDE, Digits, load_digits
from sheafnet.datasets.epochs import FiniteEvents, SplitRows
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.datasets.raster import gradient, rotated, shifted
from sheafnet.topology import Topology

MODALITIES = ("image", "gradient", "rotated")
MEAN_SD = {"image": (0.1314, 0.3086), "gradient": (0.1818, 0.3294), "rotated": (0.1312, 0.2901)}
"""Of a clean pixel over the bundled training digits, at the default rotation."""


class Options(Model):
    """Keys of ``dataset: {name: multiview-mnist}``."""

    shift: Annotated[int, Field(ge=0, le=4)] = 2
    """Largest shift of the digit in pixels, each axis, uniform, per node and event."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 45.0
    """Largest angle of ``rotated`` in degrees, either way, uniform, per node and event."""
    noise: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the Gaussian noise on every view; pixels lie in [0, 1]."""
    data_dir: str | None = None
    """Folder with the four IDX files of the full MNIST; the bundled 5,000 digits otherwise."""


class MultiviewMnist(FiniteEvents):
    """The data set, opened. An event is one digit, the same for all nodes."""

    classes = CLASSES

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check the modalities and load the digits, once in a process."""
        self._options, self._seed = options, seed
        self._modalities = assign_modalities("multiview-mnist", topology, MODALITIES)
        self._digits = load_digits(options.data_dir)
        self._rows = SplitRows(self._digits.splits, seed)

    def source(self, node: int) -> Source:
        """The source of `node`: samples of shape (1, 28, 28)."""
        modality = self._modalities[node]
        return _View(self._digits, self._rows, self._options, modality, self._seed, node)


class _View:
    """What one node sees."""

    shape: tuple[int, ...] = (1, SIDE, SIDE)

    def __init__(
        self,
        digits: Digits,
        rows: SplitRows,
        options: Options,
        modality: str,
        seed: int,
        node: int,
    ) -> None:
        self._digits, self._rows, self._options = digits, rows, options
        self._modality, self._seed, self._node = modality, seed, node

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), 1, 28, 28)."""
        images = self._digits.images[self._rows.rows(split, events)]
        reach = self._options.shift
        draws: list[Draw] = [Integers((2,), -reach, reach), Uniform(())]
        if self._options.noise:
            draws.append(PixelNoise((SIDE, SIDE)))
        blocks = Blocks(self._seed, "view", self._node, split)
        shifts, turns, *noise = blocks.rows(events, *draws)
        if self._modality == "gradient":
            view = gradient(shifted(images, shifts, border=1))
        else:
            view = shifted(images, shifts)
        if self._modality == "rotated":
            view = rotated(view, (2 * turns - 1) * np.float32(self._options.rotation))
        for drawn in noise:
            drawn *= np.float32(self._options.noise)
            view += drawn
        mean, sd = MEAN_SD[self._modality]
        view -= np.float32(mean)
        view *= np.float32(1 / sd)
        return view[:, None]

    def labels(self, split: Split, events: Events, edge: int) -> Labels:  # noqa: ARG002
        """The digit of `events`, whatever the edge: (len(events),)."""
        return self._digits.labels[self._rows.rows(split, events)].astype(np.int64)


INFO = DatasetInfo(
    name="multiview-mnist",
    summary="three views of one digit: image, gradient, rotated (the paper's experiment)",
    modalities=", ".join(MODALITIES),
    sizes="3500 / 500 / 1000 digits (full MNIST: 55000 / 5000 / 10000)",
    licence=LICENCE,
    citation=CITATION,
    options=Options,
    open=MultiviewMnist,
)
