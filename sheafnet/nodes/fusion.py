"""What a node does under concat-supervised: all modalities at one place, with labels.

The encoders stay where they are and sections go to the hub, which joins them, classifies, and
returns the gradient of its loss with respect to each section: split learning (Vepakomma et al.
2018). A step is therefore exactly that of one network of all encoders and a linear classifier of
their concatenated outputs, and what it costs is counted on the same wire. It is the upper bound
that alignment is measured against, not a rival: every event needs every section at the hub.
"""

import numpy as np
import torch
from torch import Tensor

from sheafnet.network.channel import Message
from sheafnet.network.frame import Address, Kind
from sheafnet.nodes.evaluation import judge_alone
from sheafnet.nodes.events import gallery_size, inference_events, missing_rows
from sheafnet.nodes.fused import FusedClassifier
from sheafnet.nodes.inference import Rows
from sheafnet.nodes.node import Node, Program, array_of
from sheafnet.nodes.records import EstimatorSums, EvaluationRecord, InferenceRecord, TrainRecord
from sheafnet.nodes.training import refuse_divergence
from sheafnet.sheaf.estimators import estimate


def train_fused(node: Node, round_: int, records: list[TrainRecord]) -> Program:
    """Send the section to the hub, take its gradient, step; or, at the hub, join and classify.

    Raises:
        DivergenceError: the loss is NaN or infinite.
        PluginError: the code of a plug-in fails.
    """
    expected = _from_all(node, Kind.GRADIENT if node.fused is None else Kind.PROJECTION, round_)
    if node.asleep("train", round_):
        yield expected
        records.append(TrainRecord.asleep(round_, 0))
        return
    section, loss = node.sections("train", node.batch(round_)), None
    if node.fused is None:
        for channel, _, _ in expected:
            node.endpoint.send(channel, Kind.PROJECTION, round_, array_of(section))
        mail = yield expected
        for message in mail.values():
            node.backward([section], f"train round {round_}", [node.tensor(message.array)])
    else:
        mail = yield expected
        loss = _classify(node, node.fused, section, mail, round_)
    records.append(
        TrainRecord(
            round=round_,
            disagreement=[],
            contrastive=[],
            reconstruction=[],
            gradient_square=node.step(round_),
            missed=len(expected) - len(mail),
            own=loss,
        )
    )


def _classify(
    node: Node, fused: FusedClassifier, section: Tensor, mail: dict[int, Message], round_: int
) -> float:
    """The loss of the joined sections, whose gradients go into the graph and to the senders."""
    parts = [section.new_zeros(len(section), dim) for dim in fused.dims]
    parts[node.spec.index] = section
    for channel in node.trained:
        if channel.index in mail:
            there = node.tensor(mail[channel.index].array).requires_grad_()
            parts[channel.other(node.spec.index)] = there
    loss = fused.loss(torch.cat(parts, dim=1), fused.labels("train", node.batch(round_)))
    refuse_divergence(loss, f"node {node.spec.id}, the hub", round_)
    node.backward([loss], f"train round {round_}")
    for channel in node.trained:
        gradient = parts[channel.other(node.spec.index)].grad
        if gradient is not None:
            node.endpoint.send(channel.index, Kind.GRADIENT, round_, array_of(gradient))
    if len(mail) == len(fused.dims) - 1:
        known = [part.detach() for part in parts]
        fused.moments.update(torch.cat(known, dim=1), known)
    return float(loss.detach())


def evaluate_fused(node: Node, round_: int, records: list[EvaluationRecord]) -> Program:
    """Judge the node's own section, and at the hub the classifier of all of them."""
    scores, probe = judge_alone(node, round_)
    events = np.arange(gallery_size(node.config, node.dataset), dtype=np.int64)
    split = node.config.evaluation.split
    section = node.labelled(split, events).section
    if node.fused is None:
        (channel,) = node.trained
        node.endpoint.send(channel.index, Kind.GALLERY, round_, array_of(section))
        records.append(EvaluationRecord(round_, scores, probe))
        return
    mail = yield _from_all(node, Kind.GALLERY, round_)
    joined = section.new_zeros(len(events), sum(node.fused.dims))
    for index, here in _columns(node.fused).items():
        arrived = mail.get(_channel(node, index))
        if index == node.spec.index:
            joined[:, here] = section
        elif arrived is not None:
            joined[:, here] = node.tensor(arrived.array)
    right = node.fused.correct(joined, node.fused.labels(split, events))
    whole = len(mail) == len(node.fused.dims) - 1
    accuracy = float(right.float().mean()) if whole else None
    records.append(EvaluationRecord(round_, scores, probe, accuracy))


def infer_fused(node: Node, round_: int, records: list[InferenceRecord]) -> Program:
    """Send what is there when the hub asks; at the hub, fill what is missing and classify.

    The hub's record speaks for the network. It knows no true section of a missing row, so that
    errors of sections are not measured.
    """
    chosen, seed = node.config.inference, node.config.run.seed
    expected = _from_all(node, Kind.REQUEST if node.fused is None else Kind.ANSWER, round_)
    if node.asleep("inference", round_):
        yield expected
        records.append(InferenceRecord.nothing(round_, chosen.measured))
        return
    split = node.config.evaluation.split
    size = node.dataset.size(split)
    assert size is not None, "validation and test splits are finite"
    events = inference_events(chosen, round_, size)
    section = node.labelled(split, events).section
    if node.fused is None:
        mail = yield expected
        have = ~missing_rows(chosen, seed, node.spec, round_)
        for channel in mail:
            values = array_of(section[node.tensor(have)])
            node.endpoint.send(channel, Kind.ANSWER, round_, values, None if have.all() else have)
        records.append(InferenceRecord.nothing(round_, chosen.measured, len(expected) - len(mail)))
        return
    whole = np.ones(chosen.batch_size, dtype=np.bool_)
    for channel, _, _ in expected:
        node.endpoint.send(channel, Kind.REQUEST, round_, mask=whole)
    mail = yield expected
    missing = [missing_rows(chosen, seed, spec, round_) for spec in node.topology.nodes]
    given: dict[int, tuple[Tensor, Tensor]] = {}
    for index in range(len(missing)):
        here = node.tensor(~missing[index])
        arrived = mail.get(_channel(node, index))
        if index == node.spec.index:
            given[index] = here, section[here]
        elif arrived is not None:
            given[index] = here, node.tensor(arrived.array)
    late = len(expected) - len(mail)
    records.append(_judge(node, node.fused, round_, missing, given, late))


def _judge(
    node: Node,
    fused: FusedClassifier,
    round_: int,
    missing: list[Rows],
    given: dict[int, tuple[Tensor, Tensor]],
    late: int,
) -> InferenceRecord:
    chosen, columns = node.config.inference, _columns(fused)
    size = node.dataset.size(node.config.evaluation.split) or 0
    labels = fused.labels(node.config.evaluation.split, inference_events(chosen, round_, size))
    concerned = fused.concerned(missing)
    nobody = np.all(missing, axis=0)
    duals = [fused.moments.ridge([k], chosen.ridge) for k in range(len(missing))]
    sums: dict[str, EstimatorSums] = {}
    for name in chosen.measured:
        if name in node.estimators:
            place = f"node {node.spec.id}, the hub, inference round {round_}"
            opened = node.estimators[name]
            joined = opened.estimate(given, chosen.batch_size, fused.moments, place).clone()
        else:
            joined = estimate(name, given, chosen.batch_size, fused.moments, duals, chosen.ridge)
        for index, (here, values) in given.items():
            joined[here, columns[index]] = values
        right = fused.correct(joined, labels) & concerned
        sums[name] = EstimatorSums(0.0, int(right.sum()))
    return InferenceRecord(
        round=round_,
        missing=int(np.sum(missing)),
        unanswered=int(nobody.sum()) * len(missing),
        missed=late,
        variance=0.0,
        judged=int(concerned.sum()),
        present_correct=None,
        estimators=sums,
    )


def _columns(fused: FusedClassifier) -> dict[int, slice]:
    """Where each node's section stands among the joined ones."""
    starts = np.cumsum([0, *fused.dims])
    return {k: slice(int(starts[k]), int(starts[k + 1])) for k in range(len(fused.dims))}


def _channel(node: Node, other: int) -> int:
    """The index of the hub's channel to `other`; -1 for the hub itself."""
    found = [e.index for e in node.channels if e.other(node.spec.index) == other]
    return found[0] if found else -1


def _from_all(node: Node, kind: Kind, round_: int) -> list[Address]:
    """The addresses of a frame from the hub, or at the hub from all others."""
    channels = node.present(node.trained, kind.phase, round_)
    return [(edge.index, kind, round_) for edge in channels]
