"""The cellular sheaf as linear algebra: coboundary, Laplacian, energy, spectrum, global sections.

A section assigns h_i in F(i) to every vertex. With P the restriction maps and each edge
e = (tail, head)::

    (delta h)_e = P_tail,e h_tail - P_head,e h_head        coboundary
    L = delta^T delta                                       sheaf Laplacian
    h^T L h = sum_e ||(delta h)_e||^2                       consistency energy
    ker L = H^0                                             global sections

numpy, float64. `coboundary`, `adjoint` and `energy` work edge by edge and scale to any network;
the spectrum needs the dense Laplacian and is for networks of a few thousand dimensions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sheafnet.topology import Topology

Array = npt.NDArray[np.float64]
Restrictions = Mapping[tuple[int, int], npt.NDArray[np.floating]]
"""P of shape (d_ij, d_i) by node and edge."""


class Sheaf:
    """A cellular sheaf of vector spaces on a topology.

    Args:
        topology: the graph and the dimensions of its stalks.
        restrictions: P by (node, edge index), each (d_ij, d_i).

    Raises:
        ValueError: a restriction map is missing or has the wrong shape.
    """

    def __init__(self, topology: Topology, restrictions: Restrictions) -> None:
        self._topology = topology
        self._maps: dict[tuple[int, int], Array] = {}
        for edge in topology.edges:
            for node in (edge.tail, edge.head):
                expected = (edge.dim, topology.nodes[node].dim)
                given = restrictions.get((node, edge.index))
                if given is None or given.shape != expected:
                    raise ValueError(
                        f"restriction map of node {node} on edge {edge.index}: "
                        f"{None if given is None else given.shape} where {expected} is needed"
                    )
                self._maps[node, edge.index] = np.asarray(given, dtype=np.float64)

    def coboundary(self, section: Sequence[Array]) -> list[Array]:
        """delta h: one (..., d_ij) per edge from one (..., d_i) per node."""
        return [
            section[e.tail] @ self._maps[e.tail, e.index].T
            - section[e.head] @ self._maps[e.head, e.index].T
            for e in self._topology.edges
        ]

    def adjoint(self, cochain: Sequence[Array]) -> list[Array]:
        """delta^T c: one (..., d_i) per node from one (..., d_ij) per edge."""
        leading = cochain[0].shape[:-1]
        result = [np.zeros((*leading, node.dim)) for node in self._topology.nodes]
        for e, values in zip(self._topology.edges, cochain, strict=True):
            result[e.tail] += values @ self._maps[e.tail, e.index]
            result[e.head] -= values @ self._maps[e.head, e.index]
        return result

    def laplacian(self, section: Sequence[Array]) -> list[Array]:
        """L h = delta^T delta h, without forming L."""
        return self.adjoint(self.coboundary(section))

    def energy(self, section: Sequence[Array]) -> Array:
        """h^T L h of every row: (...,), never negative."""
        parts = [(c**2).sum(axis=-1) for c in self.coboundary(section)]
        return np.asarray(np.sum(parts, axis=0))

    def dense_coboundary(self) -> Array:
        """delta as a matrix: (sum of d_ij, sum of d_i)."""
        columns = np.cumsum([0, *(node.dim for node in self._topology.nodes)])
        rows = np.cumsum([0, *(edge.dim for edge in self._topology.edges)])
        delta = np.zeros((rows[-1], columns[-1]))
        for e in self._topology.edges:
            here = slice(rows[e.index], rows[e.index + 1])
            for node, sign in ((e.tail, 1.0), (e.head, -1.0)):
                delta[here, columns[node] : columns[node + 1]] = sign * self._maps[node, e.index]
        return delta

    def dense_laplacian(self) -> Array:
        """L as a symmetric positive semidefinite matrix."""
        delta = self.dense_coboundary()
        return np.asarray(delta.T @ delta)

    def spectrum(self) -> "Spectrum":
        """Eigenvalues of L in rising order, and what follows from them."""
        return Spectrum(np.asarray(np.linalg.eigvalsh(self.dense_laplacian()), dtype=np.float64))


class Spectrum:
    """Eigenvalues of a sheaf Laplacian; those under `tolerance` times the largest count as zero."""

    def __init__(self, eigenvalues: Array, tolerance: float = 1e-9) -> None:
        self.eigenvalues = eigenvalues
        self._zero = eigenvalues <= tolerance * float(eigenvalues[-1])

    @property
    def global_sections(self) -> int:
        """dim H^0 = dim ker L."""
        return int(self._zero.sum())

    @property
    def gap(self) -> float | None:
        """The smallest eigenvalue above zero; None where L is zero."""
        above = self.eigenvalues[~self._zero]
        return float(above[0]) if len(above) else None
