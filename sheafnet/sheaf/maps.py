"""Restriction and dual maps: the linear maps between a vertex stalk and an edge stalk.

Node i owns, for each incident edge e = (i, j), a restriction map P_ij: F(i) -> F(e) and a dual
map Q_ij: F(e) -> F(i) (SheafAlign, METHOD section 1). P is linear, as the maps of a cellular
sheaf of vector spaces are. Q has an offset beside its matrix: contrastive training centres the
projections but not the sections, and a matrix alone cannot rebuild the mean of h from them.
"""

from collections.abc import Sequence

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


def maps_apart(
    stalk_dim: int, edge_dims: Sequence[int], generator: torch.Generator
) -> list[RestrictionMap]:
    """The maps of one node, in the order of `edge_dims`, whose rows start orthonormal together.

    What a node says on one edge then does not disturb what it says on another. A node whose d_ij
    add up to more than its d_i begins another orthonormal basis where one is used up, so that the
    rows of each single map are orthonormal all the same.
    """
    maps, left = [], torch.empty(0, stalk_dim)
    for dim in edge_dims:
        if len(left) < dim:
            left = RestrictionMap(stalk_dim, stalk_dim, generator).weight.detach()
        chosen = RestrictionMap(stalk_dim, dim, generator)
        chosen.weight = nn.Parameter(left[:dim].clone())
        maps.append(chosen)
        left = left[dim:]
    return maps


def maps_alike(
    stalk_dim: int, edge_dims: Sequence[int], generator: torch.Generator
) -> list[RestrictionMap]:
    """The maps of one node, in the order of `edge_dims`, with the same orthonormal rows.

    A narrower map has the first of them. Edges begin as parts of one space, as in methods that know
    no other, and part in training.
    """
    rows = RestrictionMap(stalk_dim, max(edge_dims, default=0), generator).weight.detach()
    maps = [RestrictionMap(stalk_dim, dim, generator) for dim in edge_dims]
    for chosen, dim in zip(maps, edge_dims, strict=True):
        chosen.weight = nn.Parameter(rows[:dim].clone())
    return maps


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
