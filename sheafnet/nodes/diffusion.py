"""Beyond one hop: after the answers of an inference round, neighbours exchange their estimates.

In every step a node tells each neighbour that it could not answer in full what it makes of the rows
that both miss, as projections of its current estimates, and takes in what these neighbours tell::

    relay     `ridge`, a neighbour's estimate in the place of the projection that it misses
    harmonic  a step of the harmonic extension (`sheaf.diffusion`), from the ridge of the answers

A row has an estimate once a neighbour has its own modality or, a step before, an estimate: what is
known travels a hop a step. Both ends know from request and answer over which edges estimates go.
"""

from collections.abc import Generator, Mapping, Sequence

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

    section = ridge()
    for step in range(1, chosen.diffusion_iterations + 1 if missing.any() else 1):
        number = numbered(round_, step)
        known = missing.copy()
        known[missing] = array_of(reached(heard, section))
        own = node.project(section)
        for edge, asked in short.items():
            rows = asked & known
            partial = None if rows.sum() == asked.sum() else rows[asked]
            values = array_of(own[positions[edge]])[rows[missing]]
            node.endpoint.send(edge, Kind.ESTIMATE, number, values, partial)
        expected = [(edge, Kind.ESTIMATE, number) for edge in waited]
        mail = (yield expected) if expected else {}
        late += len(expected) - len(mail)
        for edge, message in mail.items():
            position = positions[edge]
            heard[position] = _beside(given.get(position), *told(node, message, missing))
        section = ridge() if chosen.diffusion == "relay" else harmonic.step(section, heard)
    return section, late


def told(node: Node, message: Message, missing: Mask) -> tuple[Tensor, Tensor]:
    """What an answer or an estimate tells of the rows that `node` misses, all of which it asked."""
    here = missing if message.mask is None else message.mask
    return node.tensor(here[missing]), node.tensor(message.array)


def _beside(
    given: tuple[Tensor, Tensor] | None, here: Tensor, projections: Tensor
) -> tuple[Tensor, Tensor]:
    """What a neighbour estimates of the rows `here`, beside what it has answered."""
    if given is None:
        return here, projections
    answered, true = given
    whole = spread(here, projections, len(here))
    whole[answered] = true
    known = here | answered
    return known, whole[known]
