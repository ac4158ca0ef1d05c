"""What a node remembers of a neighbour's projections: negatives that cost no bytes.

A queue as in MoCo (He et al. 2020, arXiv 1911.05722), filled with what crosses the edge anyway.
"""

import torch
from torch import Tensor


class Memory:
    """The projections that came over one channel in its last rounds.

    Args:
        rounds: how many of them are kept.
        batch: B, events of a round.
        dim: d_ij.
        device: where they are kept.
    """

    def __init__(self, rounds: int, batch: int, dim: int, device: torch.device) -> None:
        self._rounds = rounds
        self._batch = batch
        self._kept = torch.zeros((rounds * batch, dim), device=device)
        self._count = torch.zeros((), dtype=torch.int64)

    def rows(self) -> Tensor:
        """All that is kept: (n, d_ij), n = 0 before the first round."""
        return self._kept[: min(int(self._count), self._rounds) * self._batch]

    def add(self, received: Tensor) -> None:
        """Keep what came in a round (B, d_ij) in the place of the oldest."""
        at = int(self._count) % self._rounds * self._batch
        self._kept[at : at + self._batch] = received
        self._count += 1

    def state(self) -> dict[str, Tensor]:
        """What is kept, by name; the tensors themselves."""
        return {"kept": self._kept, "count": self._count}
