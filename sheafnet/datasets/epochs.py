"""From events, which training counts on for ever, to the rows of a finite set."""

import numpy as np
import numpy.typing as npt

from sheafnet.datasets.base import Events, Split
from sheafnet.seeds import Name, derive, stream

Rows = npt.NDArray[np.int64]


class Epochs:
    """`size` rows in a fresh order every epoch, keyed by (seed, *names, epoch).

    Event number e is row ``order[e % size]`` of epoch ``e // size``, so that within an epoch no
    row occurs twice. Only the latest order is kept, in the smallest integers that hold it.
    """

    def __init__(self, size: int, seed: int, *names: Name) -> None:
        """The epoch's number is the last name of its stream."""
        self.size = size
        self._seed, self._names = seed, names
        self._latest: tuple[int, npt.NDArray[np.unsignedinteger]] | None = None

    def rows(self, events: Events) -> Rows:
        """The row of each event: (len(events),)."""
        epochs, places = np.divmod(events, self.size)
        rows = np.empty(len(events), np.int64)
        for epoch in sorted(set(epochs.tolist())):
            here = epochs == epoch
            rows[here] = self._order(epoch)[places[here]]
        return rows

    def _order(self, epoch: int) -> npt.NDArray[np.unsignedinteger]:
        if self._latest is None or self._latest[0] != epoch:
            rng = stream(self._seed, *self._names, epoch)
            order = rng.permutation(self.size).astype(np.min_scalar_type(self.size))
            # One assignment of a finished pair: threads that share it see the old or the new one.
            self._latest = latest = (epoch, order)
            return latest[1]
        return self._latest[1]


class SplitRows:
    """Which row of a finite table an event is, the same at every node.

    Training events go through `Epochs` keyed by (seed, "epoch"); validation and test events are
    the rows of their split in order.
    """

    def __init__(self, splits: dict[Split, Rows], seed: int) -> None:
        """`splits` are rows of the table, in the order in which events number them."""
        self._splits = splits
        self._epochs = Epochs(len(splits["train"]), seed, "epoch")

    def size(self, split: Split) -> int | None:
        """Events in `split`; None for training, which has no end."""
        return None if split == "train" else len(self._splits[split])

    def distinct(self, split: Split) -> int:
        """Rows of `split`: the events of one epoch."""
        return len(self._splits[split])

    def rows(self, split: Split, events: Events) -> Rows:
        """The row of each event: (len(events),).

        Raises:
            IndexError: an event is negative or, outside training, not below the split's size.
        """
        check_events(events, self.size(split), split)
        return self._splits[split][self._epochs.rows(events) if split == "train" else events]


class FiniteEvents:
    """What data sets of a finite table share: an event has one label and one row at every node."""

    labels_per_edge = False
    _rows: SplitRows
    _modalities: tuple[str, ...]

    def size(self, split: Split) -> int | None:
        """Events in `split`; None for training, which has no end."""
        return self._rows.size(split)

    def distinct(self, split: Split) -> int:
        """Rows of `split`: the events of one epoch."""
        return self._rows.distinct(split)

    def modality(self, node: int) -> str:
        """The modality of `node`: its own choice, or the data set's by the node's index in turn."""
        return self._modalities[node]


def check_events(events: Events, size: int | None, split: Split) -> None:
    """Refuse event numbers that `split` does not have.

    Raises:
        IndexError: which numpy would not raise for a negative number.
    """
    if len(events) and (events.min() < 0 or (size is not None and events.max() >= size)):
        bound = "0 on" if size is None else f"0 to {size - 1}"
        raise IndexError(
            f"{split} events are numbered {bound}; asked for {events.min()} to {events.max()}"
        )


def stratified(labels: npt.NDArray[np.integer], *names: Name) -> Rows:
    """All rows in a fixed random order whose every stretch holds the classes in proportion.

    Cutting it gives stratified splits. The order hangs on `names` alone, never on the run's seed,
    and on raw Philox output, which numpy promises to keep (unlike that of ``permutation``).
    """
    raw = np.random.Philox(key=derive(0, "split", *names)).random_raw(len(labels))
    by_class = np.lexsort((raw, labels))
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    quantile = np.empty(len(labels))
    quantile[by_class] = (np.arange(len(labels)) - np.repeat(starts, counts) + 0.5) / np.repeat(
        counts, counts
    )
    return np.lexsort((raw, quantile)).astype(np.int64)


def cut(order: Rows, train: int, validation: int) -> dict[Split, Rows]:
    """The first `train` rows, the next `validation` ones, and the rest as test."""
    return {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation :],
    }
