"""A decentralized training round at one node (METHOD section 3)."""

from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor

from sheafnet.errors import DivergenceError
from sheafnet.network.channel import Message
from sheafnet.network.frame import Address, Kind
from sheafnet.nodes.node import Node, Program, array_of
from sheafnet.nodes.objective import EdgeTerms, edge_terms
from sheafnet.nodes.records import TrainRecord


def train(node: Node, round_: int, records: list[TrainRecord]) -> Program:
    """Encode, project, exchange, step; appends the round's record to `records`.

    Further steps of the round (``local_steps``) take the node's new projections of the same events
    against what its neighbours sent before their own steps. The record is of the first one.

    A neighbour whose projection does not come in time is left out of the loss and counted. A node
    that sleeps waits for what its neighbours send, which is dropped, so that the books of the round
    close in it.

    Raises:
        DivergenceError: a loss or a projection is NaN or infinite.
    """
    config, method = node.config, node.method
    exchange = config.training.exchange_gradients
    present = node.present(node.channels, "train", round_)
    carrying = {edge.index for edge in present if method.carries(edge, round_)}
    expected = [(index, Kind.PROJECTION, round_) for index in sorted(carrying)]
    if node.asleep("train", round_):
        yield expected
        records.append(TrainRecord.asleep(round_, len(node.trained)))
        return
    sample = node.samples("train", node.batch(round_))
    when = f"train round {round_}"
    section = node.encode(sample, when)
    own = [restriction(section) for restriction in node.restrictions]
    for position, channel in enumerate(node.channels):
        if channel.index in carrying:
            values = array_of(own[position])
            node.endpoint.send(channel.index, Kind.PROJECTION, round_, values)
    mail = yield expected
    received = {
        position: node.tensor(mail[edge.index].array).requires_grad_(exchange)
        for position, edge in enumerate(node.channels)
        if edge.index in mail
    }
    terms, beside = _descend(node, round_, section, own, received)
    missed = len(expected) - len(received)
    if exchange:
        missed += yield from _exchange_gradients(node, own, received, round_)
    neighbours = [received.get(position) for position in range(len(node.edges))]
    known = [there.detach() for there in neighbours if there is not None]
    if len(known) == len(neighbours):
        if node.neural is not None:
            generator, strength = node.generator("left out", round_), config.inference.ridge
            share = config.training.rate_share(round_)
            node.neural.learn(section.detach(), known, node.moments, strength, generator, share)
        node.moments.update(section.detach(), known)
    square = node.step(round_)
    if terms:
        for _ in range(config.training.local_steps - 1):
            again = node.encode(sample, when)
            _descend(node, round_, again, [p(again) for p in node.restrictions], received)
            node.step(round_)
    for position, memory in node.memories.items():
        if position in received:
            memory.add(received[position].detach())
    records.append(_record(node, round_, terms, beside, square, missed))


def _descend(
    node: Node,
    round_: int,
    section: Tensor,
    own: Sequence[Tensor],
    received: Mapping[int, Tensor],
) -> tuple[dict[int, EdgeTerms], float | None]:
    """Gather the gradient of the node's objective.

    Returns:
        Its terms by position of the channel, and that of a plug-in, if there is one.

    Raises:
        DivergenceError: a loss is NaN or infinite.
        PluginError: the code of a plug-in fails.
    """
    beside: float | None = None
    terms = {
        position: edge_terms(
            node.config,
            round_,
            node.channels[position],
            section,
            own[position],
            there,
            node.duals[position] if position < len(node.duals) else None,
            node.memories[position].rows() if position in node.memories else None,
        )
        for position, there in received.items()
        if node.channels[position] in node.trained
    }
    for position, edge in terms.items():
        name = node.method.network.edge_name(node.channels[position].index)
        refuse_divergence(edge.weighted, f"node {node.spec.id}, edge {name}", round_)
    if terms:
        place = f"node {node.spec.id}, train round {round_}"
        loss = torch.stack([edge.weighted for edge in terms.values()]).sum()
        if node.objective is not None:
            pairs = [(own[position], received[position].detach()) for position in terms]
            term = node.objective.loss(section, pairs, place)
            beside, loss = float(term.detach()), loss + term
        exchange = node.config.training.exchange_gradients
        node.backward([loss], f"train round {round_}", retain=exchange)
    return terms, beside


def _exchange_gradients(
    node: Node, own: list[Tensor], received: dict[int, Tensor], round_: int
) -> Generator[list[Address], dict[int, Message], int]:
    """Return dL_recon/dp_j to each neighbour, and send what they return into the own graph.

    Returns how many of them returned nothing in time.
    """
    for position, there in received.items():
        assert there.grad is not None
        values = array_of(there.grad)
        node.endpoint.send(node.edges[position].index, Kind.GRADIENT, round_, values)
    expected = node.every(Kind.GRADIENT, round_)
    mail = yield expected
    returned = [
        (projection, node.tensor(mail[edge.index].array))
        for edge, projection in zip(node.edges, own, strict=True)
        if edge.index in mail
    ]
    if returned:
        outputs, gradients = zip(*returned, strict=True)
        node.backward(outputs, f"train round {round_}", gradients)
    return len(expected) - len(returned)


def refuse_divergence(loss: Tensor, where: str, round_: int) -> None:
    """Raise where a loss is not finite.

    Raises:
        DivergenceError: naming the place and the round.
    """
    if not bool(torch.isfinite(loss)):
        raise DivergenceError(
            f"{where}, train round {round_}: the loss is NaN or infinite. Try a lower "
            "training.learning_rate or a higher training.temperature."
        )


def _record(
    node: Node,
    round_: int,
    terms: dict[int, EdgeTerms],
    beside: float | None,
    gradient_square: float,
    missed: int,
) -> TrainRecord:
    absent = [float("nan")] * 3
    rows = {
        node.channels[position].index: torch.stack(
            [t.disagreement, t.contrastive, t.reconstruction]
        ).tolist()
        for position, t in terms.items()
    }
    columns = [rows.get(edge.index, absent) for edge in node.trained]
    return TrainRecord(
        round=round_,
        disagreement=[c[0] for c in columns],
        contrastive=[c[1] for c in columns],
        reconstruction=[c[2] for c in columns],
        gradient_square=gradient_square,
        missed=missed,
        own=beside,
    )
