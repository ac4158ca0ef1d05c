"""How well projections align: retrieval, prototypes, few-shot classification.

Pure functions of tensors; a node calls them on its own data and on what its neighbours sent.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sheafnet.sheaf.estimators import regularized

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


def canonical_correlations(own: Tensor, other: Tensor) -> list[float]:
    """Correlations of the pairs of directions in which two batches of projections agree most.

    Rows are events, (n, a) and (n, b). The directions are fitted to every second event and judged
    on the others, and the other way round, so that what is shared by chance is near 0 and not, as
    within a sample, near sqrt(a / n) + sqrt(b / n).

    Returns:
        min(a, b) numbers from 0 to 1, none above the one before it.
    """
    a, b = own.double(), other.double()
    halves = slice(0, None, 2), slice(1, None, 2)
    found = []
    for fit, judge in (halves, halves[::-1]):
        left, right = _canonical_directions(a[fit], b[fit])
        u, v = _centred(a[judge]) @ left, _centred(b[judge]) @ right
        found.append((u * v).sum(dim=0) / (u.norm(dim=0) * v.norm(dim=0)).clamp(min=1e-30))
    mean = torch.stack(found).mean(dim=0).clamp(0.0, 1.0)
    kept: list[float] = torch.cummin(mean, dim=0).values.tolist()
    return kept


def _canonical_directions(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of two matrices, (dim a, k) and (dim b, k), the pair that agrees most first."""
    a, b = _centred(a), _centred(b)
    left, right = _root(a.T @ a / len(a)), _root(b.T @ b / len(b))
    whitened = torch.linalg.solve(left, a.T @ b / len(a))
    whitened = torch.linalg.solve(right, whitened.T).T
    u, _, vh = torch.linalg.svd(whitened, full_matrices=False)
    return torch.linalg.solve(left.T, u), torch.linalg.solve(right.T, vh.T)


def _root(covariance: Tensor) -> Tensor:
    """The Cholesky factor, lightly regularized."""
    found: Tensor = torch.linalg.cholesky(regularized(covariance, 1e-3))
    return found


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=0)


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
