"""What a data set is to the network: a source of events at every node.

An **event** is what all nodes observe at one moment, named by an integer. A node's `Source` makes
its own view of an event out of nothing but (seed, node, split, event), so both ends of an edge see
the same event without moving data, in any order, in any process. Validation and test events are
numbered 0 to size-1. Training events are counted on for ever: round r uses events r*B to
(r+1)*B - 1, and a finite data set maps them to epochs, each a fresh permutation (and fresh noise,
where the data set has noise).
"""

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Split = Literal["train", "validation", "test"]
Events = npt.NDArray[np.int64]
Samples = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Source(Protocol):
    """One node's view of the data; lives at the node, and nothing of it leaves."""

    shape: tuple[int, ...]
    """Shape of one sample, as (features,), (channels, time) or (channels, height, width)."""

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: ``(len(events), *shape)``, float32."""
        ...

    def labels(self, split: Split, events: Events, edge: int) -> Labels:
        """The label of `events` that the node shares across edge index `edge`: (len(events),)."""
        ...


class Dataset(Protocol):
    """A data set opened for one topology and seed."""

    classes: int
    labels_per_edge: bool
    """True where each edge has labels of its own, False where an event has one label."""

    def size(self, split: Split) -> int | None:
        """Events in `split`; None where it has no end."""
        ...

    def distinct(self, split: Split) -> int:
        """Events of `split` before one comes again: an epoch."""
        ...

    def modality(self, node: int) -> str:
        """The modality that `node` observes."""
        ...

    def source(self, node: int) -> Source:
        """The source of `node`."""
        ...
