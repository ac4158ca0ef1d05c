"""How well projections align: retrieval, prototypes, few-shot classification.

Pure functions of tensors; a node calls them on its own data and on what its neighbours sent.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

RECALL_AT = (1, 5, 10)
_QUERY_CHUNK = 1024
_ROUNDING = 1e-6
"""Similarities that are nearer than this are equal: products of equal rows may differ so much by
where in a matrix they stand."""


def ranks(queries: Tensor, gallery: Tensor) -> Tensor:
    """Rank, from 1, of row b of `gallery` among all rows for query b, by cosine similarity.

    Ties and NaN count against the true partner, so constant projections rank last, not first.
    (G, d_ij) each; returns (G,) int64.
    """
    queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    found = []
    for start in range(0, len(queries), _QUERY_CHUNK):
        similarity = queries[start : start + _QUERY_CHUNK] @ gallery.T
        own = similarity.diagonal(start)
        found.append((~(similarity < own[:, None] - _ROUNDING)).sum(dim=1))
    return torch.cat(found)


def recalls(queries: Tensor, gallery: Tensor) -> dict[int, float]:
    """Share of queries whose partner is among the k nearest, for each k of `RECALL_AT`."""
    rank = ranks(queries, gallery)
    return {k: int((rank <= k).sum()) / len(rank) for k in RECALL_AT}


def prototypes(projections: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean direction of each class that occurs.

    Returns:
        (classes that occur, d_ij), and which do: (classes,) bool.
    """
    unit = F.normalize(projections, dim=1)
    present = labels.new_zeros(classes, dtype=torch.bool)
    present[labels] = True
    means = [unit[labels == c].mean(dim=0) for c in range(classes) if present[c]]
    return torch.stack(means), present


def nearest_prototype(queries: Tensor, means: Tensor, present: Tensor) -> Tensor:
    """The class of the most similar prototype by cosine: (rows,) int64."""
    names = present.nonzero().squeeze(1)
    return names[(F.normalize(queries, dim=1) @ F.normalize(means, dim=1).T).argmax(dim=1)]


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of equal entries."""
    return int((predicted == labels).sum()) / len(labels)


def few_shot(
    support: Tensor,
    support_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    classes: int,
    shots: int,
    draws: int,
    generator: torch.Generator,
) -> float:
    """Accuracy of prototypes from `shots` labelled rows per class, mean over `draws` draws.

    Prototypical classification (Snell et al. 2017) on cosine similarity.
    """
    scores = []
    for _ in range(draws):
        order = torch.randperm(len(support), generator=generator).to(support.device)
        chosen = torch.cat([order[support_labels[order] == c][:shots] for c in range(classes)])
        means, present = prototypes(support[chosen], support_labels[chosen], classes)
        scores.append(accuracy(nearest_prototype(queries, means, present), labels))
    return sum(scores) / len(scores)
