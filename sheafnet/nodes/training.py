"""A decentralized training round at one node (METHOD section 3)."""

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from sheafnet.errors import DivergenceError
from sheafnet.network.channel import Address, Message
from sheafnet.network.frame import Kind
from sheafnet.nodes.node import Node, Program
from sheafnet.nodes.objective import EdgeTerms, edge_terms
from sheafnet.nodes.records import TrainRecord


def train(node: Node, round_: int, records: list[TrainRecord]) -> Program:
    """Encode, project, exchange, step; appends the round's record to `records`.

    A neighbour whose projection does not come in time is left out of the loss and counted.

    Raises:
        DivergenceError: a loss or a projection is NaN or infinite.
    """
    training = node.config.training
    size, exchange = training.batch_size, training.exchange_gradients
    events = np.arange(round_ * size, (round_ + 1) * size, dtype=np.int64)
    section = node.sections("train", events)
    own = [restriction(section) for restriction in node.restrictions]
    for edge, projection in zip(node.edges, own, strict=True):
        node.endpoint.send(edge.index, Kind.PROJECTION, round_, projection.detach().numpy())
    mail = yield node.every(Kind.PROJECTION, round_)
    received = {
        position: torch.from_numpy(mail[edge.index].array).requires_grad_(exchange)
        for position, edge in enumerate(node.edges)
        if edge.index in mail
    }
    terms = {
        position: edge_terms(training, round_, section, own[position], there, node.duals[position])
        for position, there in received.items()
    }
    _refuse_divergence(node, terms, round_)
    if terms:
        loss = torch.stack([edge.weighted for edge in terms.values()]).sum()
        loss.backward(retain_graph=exchange)  # type: ignore[no-untyped-call]
    missed = len(node.edges) - len(received)
    if exchange:
        missed += yield from _exchange_gradients(node, own, received, round_)
    if len(received) == len(node.edges):
        node.moments.update(section.detach(), [there.detach() for there in received.values()])
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
        node.endpoint.send(
            node.edges[position].index, Kind.GRADIENT, round_, there.grad.detach().numpy()
        )
    mail = yield node.every(Kind.GRADIENT, round_)
    returned = [
        (projection, torch.from_numpy(mail[edge.index].array))
        for edge, projection in zip(node.edges, own, strict=True)
        if edge.index in mail
    ]
    if returned:
        torch.autograd.backward([p for p, _ in returned], [g for _, g in returned])
    return len(node.edges) - len(returned)


def _refuse_divergence(node: Node, terms: dict[int, EdgeTerms], round_: int) -> None:
    for position, edge in terms.items():
        if not bool(torch.isfinite(edge.weighted)):
            raise DivergenceError(
                f"node {node.spec.id}, edge {node.topology.edge_name(node.edges[position].index)}, "
                f"train round {round_}: the loss is NaN or infinite. Try a lower "
                "training.learning_rate or a higher training.temperature."
            )


def _record(
    node: Node, round_: int, terms: dict[int, EdgeTerms], gradient_square: float, missed: int
) -> TrainRecord:
    absent = [float("nan")] * 3
    rows = {
        position: torch.stack([t.disagreement, t.contrastive, t.reconstruction]).tolist()
        for position, t in terms.items()
    }
    columns = [rows.get(position, absent) for position in range(len(node.edges))]
    return TrainRecord(
        round=round_,
        disagreement=[c[0] for c in columns],
        contrastive=[c[1] for c in columns],
        reconstruction=[c[2] for c in columns],
        gradient_square=gradient_square,
        missed=missed,
    )
