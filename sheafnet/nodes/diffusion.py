"""Beyond one hop: after the answers of an inference round, neighbours exchange their estimates.

In every step a node tells each neighbour that it could not answer in full what it makes of the rows
that both miss, as projections of its current estimates, and takes in what these neighbours tell::

    relay     `ridge`, a neighbour's estimate in the place of the projection that it misses
    harmonic  a step of the harmonic extension (`sheaf.diffusion`), from the ridge of the answers

A row has an estimate once a neighbour has its own modality or, a step before, an estimate: what is
known travels a hop a step. Both ends know from request and answer over which edges estimates go.
A row is told again where its projection has moved by more than `diffusion_tolerance` of its length
since the neighbour got it, who keeps what it got last.
"""

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sheafnet.network.channel import Message
from sheafnet.network.frame import Address, Kind, Mask, numbered
from sheafnet.nodes.node import Node, array_of
from sheafnet.sheaf.diffusion import Harmonic
from sheafnet.sheaf.estimators import Answers, reached, ridge_estimate, spread


def diffuse(
    node: Node,
    round_: int,
    missing: Mask,
    short: Mapping[int, Mask],
    waited: Sequence[int],
    given: Answers,
) -> Generator[list[Address], dict[int, Message], tuple[Tensor, int]]:
    """Exchange estimates with the neighbours that miss the same rows.

    Args:
        node: whose estimates these are.
        round_: of inference.
        missing: the rows of the batch that the node misses.
        short: by edge, the rows that were asked for by a neighbour that was not answered in full.
        waited: the edges over which the node itself was not answered in full.
        given: what was answered.

    Returns:
        The estimates, (missing rows, d_i), the train mean where nothing is known; and how many
        frames did not come before the deadline.
    """
    chosen, heard, late = node.config.inference, dict(given), 0
    positions = {edge.index: position for position, edge in enumerate(node.edges)}
    harmonic = Harmonic([node.restrictions[k].weight.detach() for k in positions.values()])

    def ridge() -> Tensor:
        return ridge_estimate(heard, int(missing.sum()), node.moments, chosen.ridge)[0]

    peers = {k: _Peer(int(missing.sum()), node.edges[positions[k]].dim) for k in short}
    section = ridge()
    for step in range(1, chosen.diffusion_iterations + 1 if missing.any() else 1):
        number = numbered(round_, step)
        known = array_of(reached(heard, section))
        own = node.project(section)
        for edge, asked in short.items():
            projection = array_of(own[positions[edge]])
            news = peers[edge].news(projection, chosen.diffusion_tolerance)
            now = asked[missing] & known & news
            rows = np.zeros_like(asked)
            rows[missing] = now
            partial = None if rows.sum() == asked.sum() else rows[asked]
            if node.endpoint.send(edge, Kind.ESTIMATE, number, projection[now], partial):
                peers[edge].knows(projection, now)
        expected = [(edge, Kind.ESTIMATE, number) for edge in waited]
        mail = (yield expected) if expected else {}
        late += len(expected) - len(mail)
        for edge, message in mail.items():
            position = positions[edge]
            heard[position] = _over(
                given.get(position), _over(told(node, message, missing), heard.get(position))
            )
        section = ridge() if chosen.diffusion == "relay" else harmonic.step(section, heard)
    return section, late


def told(node: Node, message: Message, missing: Mask) -> tuple[Tensor, Tensor]:
    """What an answer or an estimate tells of the rows that `node` misses, all of which it asked."""
    here = missing if message.mask is None else message.mask
    return node.tensor(here[missing]), node.tensor(message.array)


class _Peer:
    """What a neighbour knows from the node of the rows that both miss.

    Args:
        rows: that the node misses.
        dim: d_ij.
    """

    def __init__(self, rows: int, dim: int) -> None:
        self._told = np.zeros(rows, dtype=np.bool_)
        self._last = np.zeros((rows, dim), dtype=np.float32)

    def news(self, projections: npt.NDArray[np.float32], tolerance: float) -> Mask:
        """The rows that the neighbour does not know yet, or that moved by more than `tolerance`.

        Args:
            projections: of all missing rows, (missing rows, d_ij).
            tolerance: relative to the length of a projection.
        """
        moved = np.linalg.norm(projections - self._last, axis=1)
        far: Mask = moved > tolerance * np.linalg.norm(projections, axis=1)
        return far | ~self._told

    def knows(self, projections: npt.NDArray[np.float32], rows: Mask) -> None:
        """Note that the neighbour has got `rows` of `projections`."""
        self._told |= rows
        self._last[rows] = projections[rows]


def _over(
    above: tuple[Tensor, Tensor] | None, below: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The rows of both, where both have one that of `above`; one of them is there."""
    if above is None or below is None:
        either = above or below
        assert either is not None
        return either
    (here, projections), (there, others) = above, below
    whole = spread(there, others, len(there))
    whole[here] = projections
    known = here | there
    return known, whole[known]
