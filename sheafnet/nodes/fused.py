"""The classifier of concat-supervised: all sections side by side, one linear head a label.

It lives at the hub, which is given every label of the network: the upper bound of what the
modalities know together. Handing the labels to the hub is not counted.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sheafnet.datasets.base import Dataset, Events, Split
from sheafnet.method import Method
from sheafnet.sheaf.estimators import Moments


class FusedClassifier(nn.Module):
    """Logits of every label of the network from the concatenated sections.

    Args:
        method: with its graph; where edges have labels of their own, each is a label of the
            network.
        dataset: opened for this run.
        device: where it computes.
    """

    def __init__(
        self, method: Method, dataset: Dataset, device: torch.device | None = None
    ) -> None:
        super().__init__()
        topology = method.topology
        self._dataset = dataset
        self._tasks = topology.edges if dataset.labels_per_edge else topology.edges[:1]
        self._classes = dataset.classes
        self.dims = [node.dim for node in topology.nodes]
        total = sum(self.dims)
        outputs = len(self._tasks) * self._classes
        self.weight = nn.Parameter(torch.zeros(outputs, total, device=device))
        self.offset = nn.Parameter(torch.zeros(outputs, device=device))
        self.moments = Moments(total, self.dims, device=device)
        """Of all sections at once, from which missing ones are estimated."""

    def forward(self, joined: Tensor) -> Tensor:
        """Logits (rows, labels, classes) of joined sections (rows, sum of d_i)."""
        logits = joined @ self.weight.T + self.offset
        return logits.view(len(joined), len(self._tasks), self._classes)

    def labels(self, split: Split, events: Events) -> Tensor:
        """Every label of `events`: (rows, labels) int64."""
        columns = [
            self._dataset.source(edge.tail).labels(split, events, edge.index)
            for edge in self._tasks
        ]
        return torch.from_numpy(np.stack(columns, axis=1)).to(self.weight.device)

    def loss(self, joined: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over rows and labels."""
        return F.cross_entropy(self(joined).flatten(0, 1), labels.flatten())

    @torch.no_grad()
    def correct(self, joined: Tensor, labels: Tensor) -> Tensor:
        """Which labels are predicted rightly: (rows, labels) bool."""
        right: Tensor = self(joined).argmax(dim=2) == labels
        return right

    def concerned(self, missing: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """Which labels a missing modality observes: (rows, labels) bool.

        Args:
            missing: per node, the rows that it misses.
        """
        if not self._dataset.labels_per_edge:
            columns = [np.any(missing, axis=0)]
        else:
            columns = [missing[edge.tail] | missing[edge.head] for edge in self._tasks]
        return torch.from_numpy(np.stack(columns, axis=1)).to(self.weight.device)
