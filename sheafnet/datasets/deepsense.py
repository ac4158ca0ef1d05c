"""A scenario of DeepSense 6G that the user has downloaded: camera, beam power, lidar and radar.

The csv, the files that it names and the labels are checked when the scenario is opened, and the
first reading of every modality in use is tried; the others are read once a node asks for them.
Splits are made of whole sequences.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sheafnet.config import Model, Positive
from sheafnet.datasets import readings
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.epochs import FiniteEvents, Rows, SplitRows
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.datasets.scenario import Recording, Scenario
from sheafnet.datasets.sequences import SHARES, numbered, split_sequences
from sheafnet.errors import DatasetError
from sheafnet.topology import Topology

MODALITIES = {
    "camera": ("unit1_rgb",),
    "power": ("unit1_pwr_60ghz", "unit1_pwr"),
    "lidar": ("unit1_lidar_SCR", "unit1_lidar"),
    "radar": ("unit1_radar",),
}
"""Columns of each, the preferred one first; SCR is a scan without what stands still."""
BEAM = ("unit1_beam_index", "unit1_beam", "beam_index", "best_beam")
BLOCKAGE = ("unit1_blockage", "blockage")
SEQUENCE = ("seq_index", "sequence")
BEAMS = 64
"""Beams of the codebook that the beam columns count."""
CHUNK = 1024
Sizes = tuple[Positive, Positive]


class Options(Model):
    """Keys of ``dataset: {name: deepsense}``."""

    path: str
    """The scenario's folder, or the csv in it; a relative one starts at the working directory."""
    label: Literal["beam", "blockage"] = "beam"
    beams: Annotated[int, Field(ge=2, le=BEAMS)] = 8
    """Classes of ``label: beam``: the codebook cut into as many sectors of neighbouring beams."""
    split_seed: int = 0
    """Seed of the order in which sequences are dealt out to the splits."""
    image_size: Sizes = (36, 64)
    """Height and width of camera samples."""
    colour: bool = True
    lidar_bins: Sizes = (16, 32)
    """Range by azimuth."""
    lidar_range: Annotated[float, Field(gt=0.0)] = 50.0
    """Metres; echoes from there on are left out."""
    radar_bins: Sizes = (32, 16)
    """Range by angle."""


class DeepSense(FiniteEvents):
    """The scenario, opened and checked."""

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check all that the nodes of `topology` will read.

        Raises:
            DatasetError: naming the file, the column and line, and what to do.
        """
        self._scenario = scenario = Scenario(options.path)
        for node in topology.nodes:
            if node.modality in MODALITIES:
                why = f"node {node.id} has the modality {node.modality}; change the node"
                scenario.require(MODALITIES[node.modality], why)
        known = [name for name, columns in MODALITIES.items() if scenario.find(columns)]
        if not known:
            columns = [column for names in MODALITIES.values() for column in names]
            scenario.require(columns, "these are the sensors that can be read")
        self._modalities = assign_modalities("deepsense", topology, known)
        self._readers: dict[str, Callable[[Path], npt.NDArray[Any]]] = {
            "camera": partial(readings.camera, size=options.image_size, colour=options.colour),
            "power": readings.power,
            "lidar": partial(readings.lidar, bins=options.lidar_bins, furthest=options.lidar_range),
            "radar": partial(readings.radar, bins=options.radar_bins),
        }
        self._recordings: dict[str, Recording] = {}
        for modality in self._modalities:
            self._recording(modality)
        self._labels, classes = self._classes(options)
        self.classes = len(classes)
        splits = _splits(scenario, self._labels, classes, options)
        self._train = np.sort(splits["train"])
        self._rows = SplitRows(splits, seed)
        self._tables: dict[str, _Table] = {}

    def source(self, node: int) -> Source:
        """The source of `node`: samples of shape (beams,) or (channels, height, width)."""
        modality = self._modalities[node]
        table = partial(self._table, modality)
        return _View(self._recording(modality).shape, table, self._labels, self._rows)

    def _table(self, modality: str) -> "_Table":
        if modality not in self._tables:
            self._tables[modality] = _Table(self._recording(modality).readings(), self._train)
        return self._tables[modality]

    def _recording(self, modality: str) -> Recording:
        if modality not in self._recordings:
            column = self._scenario.require(MODALITIES[modality], f"{modality} needs it")
            reader = self._readers[modality]
            self._recordings[modality] = Recording(self._scenario, column, reader)
        return self._recordings[modality]

    def _classes(self, options: Options) -> tuple[Labels, list[str]]:
        """The class of every row, numbered without gaps, and what each class is called."""
        if options.label == "blockage":
            kinds, labels = np.unique(_blockages(self._scenario), return_inverse=True)
            names = [f"blockage {kind}" for kind in kinds]
        else:
            beams, total = self._beams()
            kinds, labels = np.unique(beams * options.beams // total, return_inverse=True)
            names = [f"beam sector {kind + 1} of {options.beams}" for kind in kinds]
        if len(names) < 2:
            raise DatasetError(
                f"{self._scenario.csv}: all {len(labels)} rows are of {names[0]}; choose another "
                "dataset.label, or more dataset.beams."
            )
        return labels.astype(np.int64), names

    def _beams(self) -> tuple[Labels, int]:
        """The best beam of every row, from 0, and how many beams there are."""
        column = self._scenario.find(BEAM)
        if column is not None:
            return _indices(self._scenario, column), BEAMS
        why = "label: beam needs one; choose label: blockage"
        self._scenario.require((*BEAM, *MODALITIES["power"]), why)
        powers = self._recording("power").readings()
        return powers.argmax(axis=1).astype(np.int64), powers.shape[1]


class _View:
    """What one node sees."""

    def __init__(
        self,
        shape: tuple[int, ...],
        table: "Callable[[], _Table]",
        labels: Labels,
        rows: SplitRows,
    ) -> None:
        self._table, self._labels, self._rows = table, labels, rows
        self.shape = shape

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), *shape)."""
        return self._table().standardised(self._rows.rows(split, events))

    def labels(self, split: Split, events: Events, edge: int) -> Labels:  # noqa: ARG002
        """The label of `events`, whatever the edge: (len(events),)."""
        return self._labels[self._rows.rows(split, events)]


class _Table:
    """Readings as compact as they came, standardised row by row as they are asked for.

    Mean and deviation are of the rows `train`: per feature of a vector, per channel of an image.
    """

    def __init__(self, values: npt.NDArray[Any], train: Rows) -> None:
        self._values = values
        axes = (0,) if values.ndim == 2 else (0, 2, 3)
        chunks = [values[train[k : k + CHUNK]] for k in range(0, len(train), CHUNK)]
        count = len(train) * values[0].size / values.shape[1]
        mean = sum(part.sum(axes, np.float64, keepdims=True) for part in chunks) / count
        spread = sum(((part - mean) ** 2).sum(axes, keepdims=True) for part in chunks) / count
        self._mean = mean.astype(np.float32)
        self._scale = (1.0 / np.sqrt(np.where(spread > 0, spread, 1.0))).astype(np.float32)

    def standardised(self, rows: Rows) -> Samples:
        """(len(rows), *shape)."""
        view: Samples = self._values[rows].astype(np.float32)
        view -= self._mean
        view *= self._scale
        return view


def _whole(scenario: Scenario, column: str, row: int, text: str, place: str = "") -> int:
    """A label that is written as a number."""
    try:
        value = float(text)
        if value >= 0 and value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise DatasetError(
        f"{scenario.where(column, row)}: {place}{text!r} is no label; expected a whole number from "
        "0. Mend it or remove the line."
    )


def _blockages(scenario: Scenario) -> Labels:
    """The blockage of every row; a cell is the number itself or a file that holds it."""
    column = scenario.require(BLOCKAGE, "label: blockage needs it; choose label: beam")
    cells = scenario.cells(column)
    if _is_number(cells[0]):
        values = [_whole(scenario, column, row, cell) for row, cell in enumerate(cells)]
    else:
        values = [
            _whole(scenario, column, row, _text(file), f"{file}: ")
            for row, file in enumerate(scenario.files(column))
        ]
    return np.array(values, np.int64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()


def _indices(scenario: Scenario, column: str) -> Labels:
    """The beams that `column` names, from 0."""
    cells = scenario.cells(column)
    beams = np.array([_whole(scenario, column, row, cell) for row, cell in enumerate(cells)])
    # Scenarios count from 1; a column that knows a beam 0 counts from 0.
    first = 0 if (beams == 0).any() else 1
    beyond = np.flatnonzero(beams >= BEAMS + first)
    if len(beyond):
        raise DatasetError(
            f"{scenario.where(column, beyond[0])}: beam {beams[beyond[0]]}; expected {first} to "
            f"{BEAMS - 1 + first}. Mend it or remove the line."
        )
    return beams - first


def _splits(
    scenario: Scenario, labels: Labels, classes: list[str], options: Options
) -> dict[Split, Rows]:
    column = scenario.find(SEQUENCE)
    sequence = numbered(None if column is None else scenario.cells(column), len(labels))
    of = f"column {column}" if column else "blocks of rows"
    count = int(sequence.max()) + 1
    if count < len(SHARES):
        raise DatasetError(
            f"{scenario.csv}: {count} sequences ({of}), but training, validation and test need one "
            "each; remove the column to split by blocks of rows, or take a longer scenario."
        )
    try:
        return split_sequences(sequence, labels, classes, options.split_seed)
    except DatasetError as error:
        fewer = "fewer dataset.beams, " if options.label == "beam" else ""
        raise DatasetError(
            f"{scenario.csv}: {error} ({of}); choose {fewer}another dataset.split_seed or a longer "
            "scenario, or remove these rows."
        ) from None


INFO = DatasetInfo(
    name="deepsense",
    summary="a DeepSense 6G scenario that you downloaded: camera, beam power, lidar, radar",
    modalities="camera, power, lidar, radar (those that the scenario has)",
    sizes="the scenario's; about 70% / 10% / 20% in whole sequences",
    licence="of the scenario, as its page on https://www.deepsense6g.net states",
    citation=(
        "A. Alkhateeb, G. Charan, T. Osman, A. Hredzak, J. Morais, U. Demirhan, N. Srinivas. "
        "DeepSense 6G: A Large-Scale Real-World Multi-Modal Sensing and Communication Dataset. "
        "IEEE Communications Magazine, 2023. https://www.deepsense6g.net"
    ),
    options=Options,
    open=DeepSense,
)
