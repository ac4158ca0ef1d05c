"""The three losses of an edge and how each is reduced (METHOD section 2).

Every function takes batches whose row b is event b, and returns a scalar. Summation over edges
and the weights lambda, beta, gamma are the objective's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def disagreement(own: Tensor, other: Tensor) -> Tensor:
    """L_sheaf: mean_b ||p_i - p_j||^2, summed over the d_ij dimensions. (B, d_ij) each.

    Also the edge's share of the consistency energy h^T L h.
    """
    return (own - other).square().sum(dim=1).mean()


def contrastive_loss(
    own: Tensor, other: Tensor, temperature: float, memory: Tensor | None = None
) -> Tensor:
    """L_contrast: symmetric InfoNCE on cosine similarities, both directions averaged.

    Row b of `own` and `other` (B, d_ij) are the positive pair, the other B - 1 rows of the batch
    the negatives; rows of `memory` (n, d_ij), of earlier batches of the other side, are further
    ones for the rows of `own`. log B + log(1 + n / B) / 2 where nothing has been learned.
    """
    queries = F.normalize(own, dim=1)
    logits = queries @ F.normalize(other, dim=1).T / temperature
    target = torch.arange(logits.shape[0], device=logits.device)
    outward = logits
    if memory is not None and len(memory):
        further = queries @ F.normalize(memory, dim=1).T / temperature
        outward = torch.cat([logits, further], dim=1)
    return 0.5 * (F.cross_entropy(outward, target) + F.cross_entropy(logits.T, target))


def reconstruction_loss(section: Tensor, rebuilt: Tensor) -> Tensor:
    """One side of L_recon: mean_b ||h_i - Q_ij p||^2, summed over the d_i dimensions."""
    return (section - rebuilt).square().sum(dim=1).mean()
