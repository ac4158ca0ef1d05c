"""Alignment quality at one node, on events that training never saw.

Two kinds of frame cross each edge, in a phase of their own: the projections of the judged events
(the gallery that a neighbour searches), and the mean projection of each class over labelled
training events (the prototypes that classify a neighbour's events without its having a label).
"""

import numpy as np
from torch import Tensor

from sheafnet.network.channel import Message
from sheafnet.network.frame import Kind
from sheafnet.nodes import alignment
from sheafnet.nodes.events import gallery_size, is_last, support_size
from sheafnet.nodes.node import Labelled, Node, Program, array_of
from sheafnet.nodes.probe import LinearProbe
from sheafnet.nodes.records import EdgeScores, EvaluationRecord


def evaluate(node: Node, round_: int, records: list[EvaluationRecord]) -> Program:
    """Judge retrieval and zero-shot, and in the last evaluation few-shot and a linear probe.

    Appends to `records`. The last one trains the downstream heads that inference uses after it.
    """
    support, judged = _events(node)
    known, own = node.project(support.section), node.project(judged.section)
    for position, edge in enumerate(node.edges):
        labels = support.labels[node.task(position)]
        means, present = alignment.prototypes(known[position], labels, node.dataset.classes)
        node.endpoint.send(edge.index, Kind.GALLERY, round_, array_of(own[position]))
        classes = array_of(present)
        node.endpoint.send(edge.index, Kind.PROTOTYPES, round_, array_of(means), classes)
    galleries = yield node.every(Kind.GALLERY, round_)
    prototypes = yield node.every(Kind.PROTOTYPES, round_)
    last = is_last(node.config, round_)
    scores = []
    for position, edge in enumerate(node.edges):
        if edge.index in galleries and edge.index in prototypes:
            task = node.task(position)
            ours = own[position], judged.labels[task]
            recall, zero_shot = _across(node, ours, galleries[edge.index], prototypes[edge.index])
            theirs = known[position], support.labels[task]
            few_shot = _few_shot(node, edge.index, theirs, ours) if last else {}
            canonical = None
            if last and node.config.evaluation.canonical:
                there = node.tensor(galleries[edge.index].array)
                canonical = alignment.canonical_correlations(own[position], there)
            scores.append(EdgeScores(edge.index, recall, zero_shot, few_shot, canonical))
    probe = _probe(node, support, judged) if last else None
    records.append(EvaluationRecord(round_, scores, probe))


def evaluate_alone(node: Node, round_: int, records: list[EvaluationRecord]) -> Program:
    """Judge what can be judged without neighbours; appends to `records`."""
    yield from ()
    records.append(EvaluationRecord(round_, *judge_alone(node, round_)))


def judge_alone(node: Node, round_: int) -> tuple[list[EdgeScores], float | None]:
    """Few-shot classification of sections for the labels of every edge, and a linear probe.

    Nothing but the last evaluation has them.
    """
    if not is_last(node.config, round_):
        return [], None
    support, judged = _events(node)
    scores = []
    for position, edge in enumerate(node.edges):
        task = node.task(position)
        known = support.section, support.labels[task]
        few_shot = _few_shot(node, edge.index, known, (judged.section, judged.labels[task]))
        scores.append(EdgeScores(edge.index, {}, None, few_shot))
    return scores, _probe(node, support, judged)


def _events(node: Node) -> tuple[Labelled, Labelled]:
    """The labelled training events that classifiers are made of, and the judged ones."""
    size = gallery_size(node.config, node.dataset)
    labelled = support_size(node.config, node.dataset)
    return (
        node.labelled("train", np.arange(labelled, dtype=np.int64)),
        node.labelled(node.config.evaluation.split, np.arange(size, dtype=np.int64)),
    )


def _probe(node: Node, support: Labelled, judged: Labelled) -> float:
    classes, steps = node.dataset.classes, node.config.evaluation.probe_steps
    node.probe = LinearProbe(support.section, support.labels, classes, steps)
    predicted = node.probe.predict(judged.section)
    rights = [alignment.accuracy(p, y) for p, y in zip(predicted, judged.labels, strict=True)]
    return sum(rights) / len(rights)


def _across(
    node: Node, own: tuple[Tensor, Tensor], gallery: Message, prototypes: Message
) -> tuple[dict[int, float], float]:
    """Recalls and zero-shot accuracy of own (projections, labels) by what a neighbour sent."""
    assert prototypes.mask is not None, "prototypes name their classes"
    projections, labels = own
    guessed = alignment.nearest_prototype(
        projections, node.tensor(prototypes.array), node.tensor(prototypes.mask)
    )
    recalls = alignment.recalls(projections, node.tensor(gallery.array))
    return recalls, alignment.accuracy(guessed, labels)


def _few_shot(
    node: Node, edge: int, known: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]
) -> dict[int, float]:
    chosen, generator = node.config.evaluation, node.generator("few-shot", edge)
    return {
        shots: alignment.few_shot(
            *known, *own, node.dataset.classes, shots, chosen.few_shot_draws, generator
        )
        for shots in chosen.few_shot
    }
