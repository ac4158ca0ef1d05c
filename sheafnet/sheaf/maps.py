"""Restriction and dual maps: the linear maps between a vertex stalk and an edge stalk.

Node i owns, for each incident edge e = (i, j), a restriction map P_ij: F(i) -> F(e) and a dual
map Q_ij: F(e) -> F(i) (SheafAlign, METHOD section 1). P is linear, as the maps of a cellular
sheaf of vector spaces are. Q has an offset beside its matrix: contrastive training centres the
projections but not the sections, and a matrix alone cannot rebuild the mean of h from them.
"""

import torch
from torch import Tensor, nn


class RestrictionMap(nn.Module):
    """P_ij: (B, d_i) -> (B, d_ij). Rows start orthonormal, so that no direction is favoured."""

    def __init__(self, stalk_dim: int, edge_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.empty(edge_dim, stalk_dim)
        nn.init.orthogonal_(weight, generator=generator)
        self.weight = nn.Parameter(weight)

    def forward(self, embedding: Tensor) -> Tensor:
        """The projection P h of (B, d_i) into the comparison space, (B, d_ij)."""
        return embedding @ self.weight.T


class IdentityMap(nn.Module):
    """What stands for P where sections themselves cross, in one space: (B, d) -> (B, d)."""

    weight: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(dim))

    def forward(self, embedding: Tensor) -> Tensor:
        """The section as it is."""
        return embedding


class DualMap(nn.Module):
    """Q_ij: (B, d_ij) -> (B, d_i), affine. Starts as the transpose of its P."""

    def __init__(self, restriction: RestrictionMap | IdentityMap) -> None:
        super().__init__()
        self.weight = nn.Parameter(restriction.weight.detach().T.clone())
        self.offset = nn.Parameter(torch.zeros(len(self.weight)))

    def forward(self, projection: Tensor) -> Tensor:
        """The section Q p rebuilt from a projection (B, d_ij), (B, d_i)."""
        return projection @ self.weight.T + self.offset
