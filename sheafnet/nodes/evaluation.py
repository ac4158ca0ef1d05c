"""Alignment quality at one node, on events that training never saw.

Two kinds of frame cross each edge, in a phase of their own: the projections of the judged events
(the gallery that a neighbour searches), and the mean projection of each class over labelled
training events (the prototypes that classify a neighbour's events without its having a label).
"""

import numpy as np
import torch
from torch import Tensor

from sheafnet.network.channel import Message
from sheafnet.network.frame import Kind
from sheafnet.nodes import alignment
from sheafnet.nodes.events import gallery_size, support_size
from sheafnet.nodes.node import Node, Program
from sheafnet.nodes.probe import LinearProbe
from sheafnet.nodes.records import EdgeScores, EvaluationRecord


def evaluate(node: Node, round_: int, records: list[EvaluationRecord]) -> Program:
    """Judge retrieval, zero-shot, few-shot and linear probe; appends to `records`.

    Trains the node's downstream heads, which inference uses after it.
    """
    chosen, classes = node.config.evaluation, node.dataset.classes
    size = gallery_size(node.config, node.dataset)
    labelled = support_size(node.config, node.dataset)
    support = node.labelled("train", np.arange(labelled, dtype=np.int64))
    judged = node.labelled(chosen.split, np.arange(size, dtype=np.int64))
    known, own = node.project(support.section), node.project(judged.section)
    for position, edge in enumerate(node.edges):
        labels = support.labels[node.task(position)]
        means, present = alignment.prototypes(known[position], labels, classes)
        node.endpoint.send(edge.index, Kind.GALLERY, round_, own[position].numpy())
        node.endpoint.send(edge.index, Kind.PROTOTYPES, round_, means.numpy(), present.numpy())
    galleries = yield node.every(Kind.GALLERY, round_)
    prototypes = yield node.every(Kind.PROTOTYPES, round_)
    node.probe = LinearProbe(support.section, support.labels, classes)
    predicted = node.probe.predict(judged.section)
    scores = [
        _scores(
            node,
            position,
            (known[position], support.labels[node.task(position)]),
            (own[position], judged.labels[node.task(position)]),
            galleries[edge.index],
            prototypes[edge.index],
        )
        for position, edge in enumerate(node.edges)
        if edge.index in galleries and edge.index in prototypes
    ]
    probe = [alignment.accuracy(p, y) for p, y in zip(predicted, judged.labels, strict=True)]
    records.append(EvaluationRecord(scores, sum(probe) / len(probe)))


def _scores(
    node: Node,
    position: int,
    support: tuple[Tensor, Tensor],
    judged: tuple[Tensor, Tensor],
    gallery: Message,
    prototypes: Message,
) -> EdgeScores:
    """The scores of the edge at `position` from own projections and labels (support, judged)."""
    edge = node.edges[position].index
    known, known_labels = support
    own, labels = judged
    assert prototypes.mask is not None, "prototypes name their classes"
    guessed = alignment.nearest_prototype(
        own, torch.from_numpy(prototypes.array), torch.from_numpy(prototypes.mask)
    )
    chosen = node.config.evaluation
    generator = node.generator("few-shot", edge)
    few_shot = {
        shots: alignment.few_shot(
            known,
            known_labels,
            own,
            labels,
            node.dataset.classes,
            shots,
            chosen.few_shot_draws,
            generator,
        )
        for shots in chosen.few_shot
    }
    return EdgeScores(
        edge=edge,
        recall=alignment.recalls(own, torch.from_numpy(gallery.array)),
        zero_shot=alignment.accuracy(guessed, labels),
        few_shot=few_shot,
    )
