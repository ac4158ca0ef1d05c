"""A data set of a plug-in, held to what `datasets.base` says of data sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sheafnet.datasets.base import Dataset, Events, Labels, Samples, Source, Split
from sheafnet.plugins import Code

MOST_DISTINCT = 10**7
"""Events of a split that differ: whether each class occurs is found by reading their labels, unless
labels are of edges."""


class GuardedDataset:
    """Passes everything on, and says whose code it is that fails or gives another form.

    Args:
        code: the data set's `DatasetInfo`.
        opened: what it opened.
        nodes: ids of the nodes.
        where: file and key of its name.

    Raises:
        PluginError: it lacks an attribute of a data set, or has one of another form.
    """

    def __init__(self, code: Code[Any], opened: Any, nodes: Sequence[str], where: str) -> None:
        self._code, self._opened, self._nodes, self._where = code, opened, nodes, where
        with code.guard("its data set's attributes", where):
            classes, self.labels_per_edge = opened.classes, bool(opened.labels_per_edge)
        self.classes = self._whole(classes, 2, "classes")

    def size(self, split: Split) -> int | None:
        """As of `Dataset`."""
        with self._code.guard(f"size({split!r})", self._where):
            found = self._dataset.size(split)
        if found is None and split == "train":
            return None
        return self._whole(found, 0, f"size({split!r})")

    def distinct(self, split: Split) -> int:
        """As of `Dataset`."""
        with self._code.guard(f"distinct({split!r})", self._where):
            found = self._dataset.distinct(split)
        distinct = self._whole(found, 0, f"distinct({split!r})")
        if distinct > MOST_DISTINCT and not self.labels_per_edge:
            raise self._code.refuse(
                f"gave {distinct:,} as distinct({split!r}); labels of so many events are read at "
                f"once, which takes at most {MOST_DISTINCT:,}",
                self._where,
            )
        return distinct

    def modality(self, node: int) -> str:
        """As of `Dataset`."""
        with self._code.guard("modality", f"node {self._nodes[node]}"):
            return str(self._dataset.modality(node))

    def source(self, node: int) -> Source:
        """As of `Dataset`."""
        place = f"node {self._nodes[node]}"
        with self._code.guard("source", place):
            found = self._dataset.source(node)
        return _GuardedSource(self._code, found, self.classes, place)

    @property
    def _dataset(self) -> Dataset:
        opened: Dataset = self._opened
        return opened

    def _whole(self, found: object, least: int, what: str) -> int:
        if isinstance(found, int | np.integer) and found >= least:
            return int(found)
        raise self._code.refuse(
            f"gave {found!r} as {what}; it takes a whole number from {least}", self._where
        )


class _GuardedSource:
    """Passes a source on, its samples and labels checked."""

    def __init__(self, code: Code[Any], source: Source, classes: int, place: str) -> None:
        self._code, self._source, self._classes, self._place = code, source, classes, place
        with code.guard("its source's shape", place):
            self.shape = tuple(int(size) for size in source.shape)
        if not self.shape or min(self.shape) < 1:
            raise code.refuse(f"has samples of shape {self.shape}; all sizes are from 1", place)

    def samples(self, split: Split, events: Events) -> Samples:
        """As of `Source`."""
        place = f"{self._place}, {split} split"
        with self._code.guard("samples", place):
            found = self._source.samples(split, events)
        return self._code.array(found, (len(events), *self.shape), np.float32, place)

    def labels(self, split: Split, events: Events, edge: int) -> Labels:
        """As of `Source`."""
        place = f"{self._place}, {split} split"
        with self._code.guard("labels", place):
            found = self._source.labels(split, events, edge)
        labels = self._code.array(found, (len(events),), np.int64, place)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self._classes:
            raise self._code.refuse(
                f"gave labels from {labels.min()} to {labels.max()}; with {self._classes} classes "
                f"they are 0 to {self._classes - 1}",
                place,
            )
        return labels
