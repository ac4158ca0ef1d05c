"""A decentralized training round at one node (METHOD section 3)."""

from collections.abc import Generator

import torch
from torch import Tensor

from sheafnet.errors import DivergenceError
from sheafnet.network.channel import Address, Message
from sheafnet.network.frame import Kind
from sheafnet.nodes.node import Node, Program, array_of
from sheafnet.nodes.objective import EdgeTerms, edge_terms
from sheafnet.nodes.records import TrainRecord


def train(node: Node, round_: int, records: list[TrainRecord]) -> Program:
    """Encode, project, exchange, step; appends the round's record to `records`.

    A neighbour whose projection does not come in time is left out of the loss and counted.

    Raises:
        DivergenceError: a loss or a projection is NaN or infinite.
    """
    config, method = node.config, node.method
    exchange = config.training.exchange_gradients
    section = node.sections("train", node.batch(round_))
    own = [restriction(section) for restriction in node.restrictions]
    active = [k for k, edge in enumerate(node.channels) if method.carries(edge, round_)]
    for position in active:
        values = array_of(own[position])
        node.endpoint.send(node.channels[position].index, Kind.PROJECTION, round_, values)
    mail = yield [(node.channels[k].index, Kind.PROJECTION, round_) for k in active]
    received = {
        position: node.tensor(mail[edge.index].array).requires_grad_(exchange)
        for position, edge in enumerate(node.channels)
        if edge.index in mail
    }
    terms = {
        position: edge_terms(
            config,
            round_,
            section,
            own[position],
            there,
            node.duals[position] if position < len(node.duals) else None,
        )
        for position, there in received.items()
        if node.channels[position] in node.trained
    }
    for position, edge in terms.items():
        name = method.network.edge_name(node.channels[position].index)
        refuse_divergence(edge.weighted, f"node {node.spec.id}, edge {name}", round_)
    if terms:
        loss = torch.stack([edge.weighted for edge in terms.values()]).sum()
        loss.backward(retain_graph=exchange)  # type: ignore[no-untyped-call]
    missed = len(active) - len(received)
    if exchange:
        missed += yield from _exchange_gradients(node, own, received, round_)
    neighbours = [received.get(position) for position in range(len(node.edges))]
    known = [there.detach() for there in neighbours if there is not None]
    if len(known) == len(neighbours):
        node.moments.update(section.detach(), known)
    square = node.optimizer.step()
    records.append(_record(node, round_, terms, square, missed))


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
    mail = yield node.every(Kind.GRADIENT, round_)
    returned = [
        (projection, node.tensor(mail[edge.index].array))
        for edge, projection in zip(node.edges, own, strict=True)
        if edge.index in mail
    ]
    if returned:
        torch.autograd.backward([p for p, _ in returned], [g for _, g in returned])
    return len(node.edges) - len(returned)


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
    node: Node, round_: int, terms: dict[int, EdgeTerms], gradient_square: float, missed: int
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
    )
