"""A round of missing-modality inference at one node (METHOD section 4)."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sheafnet.network.channel import Message
from sheafnet.network.frame import Kind
from sheafnet.nodes.diffusion import diffuse, told
from sheafnet.nodes.events import inference_events, missing_rows
from sheafnet.nodes.node import Labelled, Node, Program, array_of
from sheafnet.nodes.records import EstimatorSums, InferenceRecord, KeptSums
from sheafnet.sheaf.calibration import Estimator, Interval, interval_of
from sheafnet.sheaf.estimators import AffineMap, Answers, estimate, reached, ridge_estimate

Rows = npt.NDArray[np.bool_]


def infer(node: Node, round_: int, records: list[InferenceRecord]) -> Program:
    """Ask, answer, estimate; appends the round's record to `records`.

    The node asks every neighbour for the rows that it misses, answers for those rows that it is
    asked for and has, estimates its missing sections from the answers, and goes on, if that is
    chosen, with the estimates of neighbours that miss the same rows. The true sections of missing
    rows are computed too, as the yardstick; no message and no estimate uses them. Where
    neighbours do not align (local), nobody is asked. A node that sleeps is not judged; the requests
    that it waits for are dropped.
    """
    chosen, seed = node.config.inference, node.config.run.seed
    split = node.config.evaluation.split
    size = node.dataset.size(split)
    assert size is not None, "validation and test splits are finite"
    partners = node.present(node.edges if node.method.aligns else (), "inference", round_)
    others = {e.index: node.topology.nodes[e.other(node.spec.index)] for e in partners}
    askers = [k for k, other in others.items() if missing_rows(chosen, seed, other, round_).any()]
    asked = [(edge, Kind.REQUEST, round_) for edge in askers]
    if node.asleep("inference", round_):
        yield asked
        records.append(InferenceRecord.nothing(round_, chosen.measured))
        return
    missing = missing_rows(chosen, seed, node.spec, round_)
    batch = node.labelled(split, inference_events(chosen, round_, size))
    wanted = [(edge.index, Kind.ANSWER, round_) for edge in partners if missing.any()]
    for edge, _, _ in wanted:
        node.endpoint.send(edge, Kind.REQUEST, round_, mask=missing)
    requests = yield asked
    for k in askers:
        if k in requests:
            _answer(node, k, requests[k], ~missing, batch.section, round_)
    answers = yield wanted
    late = len(askers) - len(requests) + len(wanted) - len(answers)
    given = {
        position: told(node, answers[edge.index], missing)
        for position, edge in enumerate(node.edges)
        if edge.index in answers
    }
    diffused = None
    if chosen.diffusion_iterations:
        short = {k: _asked(r) for k, r in requests.items() if (_asked(r) & missing).any()}
        waited = [k for k, _, _ in wanted if k not in answers or answers[k].mask is not None]
        diffused, more = yield from diffuse(node, round_, missing, short, waited, given)
        late += more
    records.append(_judge(node, round_, missing, batch, given, diffused, late))


def _answer(
    node: Node, edge: int, request: Message, have: Rows, section: Tensor, round_: int
) -> None:
    """Send p of the rows that are asked for and present, and which these are if some are not."""
    asked = _asked(request)
    given = asked & have
    position = next(k for k, e in enumerate(node.edges) if e.index == edge)
    projection = node.project(section[node.tensor(given)])[position]
    partial = None if given.sum() == asked.sum() else have[asked]
    node.endpoint.send(edge, Kind.ANSWER, round_, array_of(projection), partial)


def _asked(request: Message) -> Rows:
    assert request.mask is not None, "a request is its mask"
    return request.mask


def _judge(
    node: Node,
    round_: int,
    missing: Rows,
    batch: Labelled,
    given: Answers,
    diffused: Tensor | None,
    late: int,
) -> InferenceRecord:
    rows = node.tensor(missing)
    count = int(rows.sum())
    truth, targets = batch.section[rows], [labels[rows] for labels in batch.labels]
    duals, chosen, uncertain = _duals(node), node.config.inference, _uncertain(node)
    estimators: dict[str, EstimatorSums] = {}
    kept = None
    for name in chosen.measured:
        interval: Interval | None = None
        if name in uncertain:
            guess, variance = uncertain[name](given, count)
            interval = interval_of(variance)
            if node.calibration is not None:
                interval = node.calibration.correct(name, uncertain[name], given, interval)
        elif name == "diffusion" and diffused is not None:
            guess = diffused
        elif name in node.estimators:
            place = f"node {node.spec.id}, inference round {round_}"
            guess = node.estimators[name].estimate(given, count, node.moments, place)
        else:
            guess = estimate(name, given, count, node.moments, duals, chosen.ridge)
        error, correct = float((guess - truth).square().sum()), _correct(node, guess, targets)
        if interval is None:
            estimators[name] = EstimatorSums(error, correct)
            continue
        inside = (guess - truth).abs() <= interval.half_width
        estimators[name] = EstimatorSums(error, correct, int(inside.sum()), inside.numel())
        if name == chosen.estimator and chosen.abstain is not None:
            expected = interval.expected / node.moments.variance.sum().clamp(min=1e-30)
            kept = _kept(node, guess, truth, targets, expected <= chosen.abstain)
    return InferenceRecord(
        round=round_,
        missing=count,
        unanswered=count - int(reached(given, truth).sum()),
        missed=late,
        variance=float((truth - node.moments.mean_section).square().sum()),
        judged=count * len(targets),
        present_correct=_correct(node, truth, targets),
        estimators=estimators,
        kept=kept,
    )


def _uncertain(node: Node) -> dict[str, Estimator]:
    """The estimators that tell a variance, by name."""
    moments, strength = node.moments, node.config.inference.ridge
    found: dict[str, Estimator] = {"ridge": lambda a, n: ridge_estimate(a, n, moments, strength)}
    if (neural := node.neural) is not None:
        found["neural"] = lambda a, n: neural.estimate(a, n, moments, strength)
    return found


def _kept(
    node: Node, guess: Tensor, truth: Tensor, targets: list[Tensor], used: Tensor
) -> KeptSums:
    """The sums over the rows `used` (missing rows,), bool."""
    guess, truth, targets = guess[used], truth[used], [labels[used] for labels in targets]
    return KeptSums(
        rows=len(truth),
        square_error=float((guess - truth).square().sum()),
        variance=float((truth - node.moments.mean_section).square().sum()),
        correct=_correct(node, guess, targets),
        judged=len(truth) * len(targets),
    )


def _correct(node: Node, sections: Tensor, targets: list[Tensor]) -> int:
    assert node.probe is not None, "evaluation comes before inference"
    predicted = node.probe.predict(sections)
    return sum(int((p == y).sum()) for p, y in zip(predicted, targets, strict=True))


def _duals(node: Node) -> list[AffineMap]:
    """Q_ij of every incident edge: its closed form given only that neighbour, or as learned."""
    chosen = node.config.inference
    if chosen.dual_map == "fitted":
        return [node.moments.ridge([position], chosen.ridge) for position in range(len(node.duals))]
    return [(dual.weight.detach(), dual.offset.detach()) for dual in node.duals]
