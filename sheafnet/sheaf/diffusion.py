"""Harmonic extension on the sheaf, at one node: missing sections from neighbours' projections.

With the known sections h_K held, the missing ones minimize the consistency energy h^T L h, which
is to solve L_UU h_U = -L_UK h_K (Hansen and Ghrist 2019, "Toward a spectral theory of cellular
sheaves"). Node i needs for it the projections of its neighbours alone, true or current::

    h_i <- h_i + omega (D_i + rho I)^-1 sum_e P_ie^T (p_je - P_ie h_i)     D_i = sum_e P_ie^T P_ie

a damped block Jacobi step. The eigenvalues of D^+ L lie between 0 and 2 on any sheaf, so that it
converges for every omega below 1 and rho of at least 0. rho keeps a step small in directions that
the edges of a node hardly see, in which the extension itself is ill-conditioned; without it their
noise drowned everything else. Where the extension is not unique, what it leaves open stays as it
starts.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DAMPING = 2 / 3
"""omega, the part of the step that is taken."""
HARDLY_SEEN = 0.1
"""rho, relative to the largest eigenvalue of D_i."""


class Harmonic:
    """The steps of one node.

    Args:
        maps: P_ie of every incident edge, (d_ij, d_i) each, in the fixed order.
    """

    def __init__(self, maps: Sequence[Tensor]) -> None:
        self._maps = maps
        self._inverses: dict[tuple[bool, ...], Tensor] = {}

    def step(self, section: Tensor, heard: Mapping[int, tuple[Tensor, Tensor]]) -> Tensor:
        """The sections (n, d_i) after `section`; a row is moved by the edges that say something.

        Args:
            section: (n, d_i), n above 0.
            heard: per edge position the rows of which the neighbour's projection is known, (n,)
                bool, and those projections, (rows known, d_ij), in the order of the rows.
        """
        pull = torch.zeros_like(section)
        said = torch.zeros(len(section), len(self._maps), dtype=torch.bool, device=section.device)
        for position in sorted(heard):
            here, projections = heard[position]
            weight = self._maps[position]
            pull[here] += (projections - section[here] @ weight.T) @ weight
            said[:, position] = here
        moved = section.clone()
        groups, member = torch.unique(said, dim=0, return_inverse=True)
        for index, group in enumerate(groups.tolist()):
            inside = member == index
            moved[inside] += DAMPING * pull[inside] @ self._inverse(tuple(group))
        return moved

    def _inverse(self, group: tuple[bool, ...]) -> Tensor:
        """(D_i + rho I)^-1 of the edges in `group`; of none, where no row is moved, zero."""
        if group not in self._inverses:
            size = self._maps[0].shape[1]
            total = torch.zeros(size, size, dtype=torch.float64, device=self._maps[0].device)
            for weight, chosen in zip(self._maps, group, strict=True):
                if chosen:
                    total += weight.double().T @ weight.double()
            rho = HARDLY_SEEN * torch.linalg.matrix_norm(total, 2)
            regular = total + rho * torch.eye(size, dtype=total.dtype, device=total.device)
            self._inverses[group] = torch.linalg.pinv(regular, hermitian=True).float()
        return self._inverses[group]
