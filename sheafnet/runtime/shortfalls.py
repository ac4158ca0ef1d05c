"""Failure signatures of a finished run: figures of its summary that fall short of a yardstick."""

import math
from collections.abc import Mapping

from sheafnet.config import InferenceConfig
from sheafnet.runtime.finding import NEAR, SIGMAS, Finding, Signature
from sheafnet.runtime.measurements import mean_known
from sheafnet.runtime.summary import Alignment, Missing, NodeMissing

FEWEST_ANSWERED = 20
"""Answered rows from which on an NMSE is judged. An estimate that is pure noise of c times the
variance has an NMSE of 1 + c, give or take 2 sqrt(c / (d n)) over n rows of d directions. It passes
for better than the bound, 1 - NEAR, most easily at c = NEAR, and there too this is more than 2
deviations away once d n >= 80."""

KEPT = 0.75
"""Of the recall that the training contrast promises, the part below which a gap is no ordinary
one."""


def zero_shot(alignment: Alignment) -> list[Finding]:
    """``zero-shot-at-chance``: the network's accuracy, or that of directed edges, is guessing.

    The bound lies 3 binomial standard errors of G events above 1 / classes, and not less than
    `NEAR` of the way from there to 1: an unaligned edge sends a whole class to whatever prototype
    is nearest, so its accuracy strays farther than that of independent guesses.

    Recall@1 tells why. By chance it is one hit in G, Poisson distributed; more than the 4 hits
    that 3 standard errors allow come once in 270 times.
    """
    chance = alignment.chance.accuracy
    error = math.sqrt(chance * (1 - chance) / alignment.gallery)
    bound = chance + max(NEAR * (1 - chance), SIGMAS * error)
    if bound >= 1:
        return []
    whole = alignment.zero_shot_accuracy
    if whole is not None and whole <= bound:
        return [_at_chance(alignment, {}, whole, alignment.recall_at_1, bound)]
    findings = []
    for unaligned in (True, False):
        low = {
            name: edge.zero_shot_accuracy
            for name, edge in alignment.per_edge.items()
            if edge.zero_shot_accuracy is not None
            and edge.zero_shot_accuracy <= bound
            and _recall_is_guessing(alignment, edge.recall_at_1) is unaligned
        }
        if low:
            recall = mean_known(alignment.per_edge[name].recall_at_1 for name in low)
            findings.append(_at_chance(alignment, low, min(low.values()), recall, bound))
    return findings


def _recall_is_guessing(alignment: Alignment, recall: float | None) -> bool:
    chance = alignment.chance.recall_at_1
    error = math.sqrt(chance * (1 - chance) / alignment.gallery)
    return recall is None or recall <= chance + SIGMAS * error


def _at_chance(
    alignment: Alignment,
    places: Mapping[str, float],
    accuracy: float,
    recall: float | None,
    bound: float,
) -> Finding:
    what = (
        "recall@1, the share of events whose partner is the most similar one of the gallery of "
        f"{alignment.gallery:,},"
    )
    guessed = f"by chance {alignment.chance.recall_at_1:.3g}"
    if recall is None:
        reason = "recall was not measured; look at the contrastive loss."
    elif _recall_is_guessing(alignment, recall):
        reason = (
            f"{what} is so too ({recall:.3g}, {guessed}): alignment failed. Look at the "
            "contrastive loss; try more training.rounds, another training.temperature or encoder."
        )
    else:
        reason = (
            f"{what} is not ({recall:.3g}, {guessed}): events are aligned, classes are not. Check "
            "that the labels are of what neighbours share; try a larger evaluation.support. If "
            "probe_accuracy is at chance too, the sections do not hold the classes."
        )
    return Finding.at(
        "zero-shot-at-chance",
        "edge",
        places,
        figure=f"alignment.{'per_edge.EDGE.' if places else ''}zero_shot_accuracy",
        value=accuracy,
        bound=bound,
        text=f"zero-shot accuracy is {accuracy:.3f}, no better than guessing "
        f"({alignment.chance.accuracy:.3f}); {reason}",
    )


def contrast_at_chance(batch: int, memory: int) -> float:
    """L_contrast where nothing has been learned: log B, or more with a memory."""
    return math.log(batch) + 0.5 * math.log1p(memory)


def overfitting(
    alignment: Alignment, contrast: Mapping[str, float], batch: int, memory: int = 0
) -> list[Finding]:
    """``overfitting``: recall@1 on unseen events is below what the training contrast promises.

    A loss c among B - 1 negatives gives the true partner odds of 1 to e^c - 1; among the G - 1 of
    the gallery they worsen by (G - 1) / (B - 1). If unseen events are like those of training, its
    mean probability is at least p = 1 / (1 + (e^c - 1)(G - 1) / (B - 1)), by Jensen (twice), and a
    calibrated similarity is right as often. The bound is p less 3 standard errors of G events,
    and at most `KEPT` p. Healthy runs of the shipped topologies
    have a recall of 6 p and more.

    Args:
        alignment: of the summary.
        contrast: L_contrast in the last training rounds, by undirected edge.
        batch: B.
        memory: M, rounds whose projections are further negatives at one end: B - 1 becomes the
            geometric mean of what both ends have.
    """
    recalls = {}
    for name in contrast:
        left, right = name.split("~")
        ends = [alignment.per_edge.get(arrow) for arrow in (f"{left}->{right}", f"{right}->{left}")]
        recalls[name] = mean_known(end.recall_at_1 for end in ends if end is not None)
    recall = mean_known(recalls.values())
    loss = mean_known(contrast[name] for name, found in recalls.items() if found is not None)
    if recall is None or loss is None or loss >= contrast_at_chance(batch, memory):
        return []
    gallery = alignment.gallery
    negatives = math.sqrt((batch - 1) * (batch - 1 + memory * batch))
    promised = 1 / (1 + math.expm1(loss) * (gallery - 1) / negatives)
    error = math.sqrt(promised * (1 - promised) / gallery)
    bound = min(promised - SIGMAS * error, KEPT * promised)
    if recall >= bound:
        return []
    return [
        Finding.at(
            "overfitting",
            "network",
            {},
            figure="alignment.recall_at_1",
            value=recall,
            bound=bound,
            text=f"recall@1 on unseen events is {recall:.3g}, where the contrastive loss of the "
            f"training batches ({loss:.3g}) promises {promised:.3g}: the training events were "
            "learned by heart. Try more events, noise or other fresh views in the data set, fewer "
            "training.rounds, training.weight_decay, a smaller encoder.",
        )
    ]


def reconstruction(missing: Missing, inference: InferenceConfig) -> list[Finding]:
    """``reconstruction`` and ``dual-maps``: estimates no better than the train mean.

    The train mean has an NMSE of 1 and stands in for rows without an answer, so the bound is 1 less
    `NEAR` of the answered share. A mean of estimates that are each better than the train mean is so
    too (convexity): where `mean` with learned dual maps is not, and `ridge` on the same answers is,
    the dual maps are at fault.
    """
    lagging: set[str] = set()
    if inference.dual_map == "learned":
        lagging = _poor(missing, "mean") - _poor(missing, "ridge")
    poor: set[str] = set()
    if missing.estimator not in ("zero", "train-mean"):
        poor = _poor(missing, missing.estimator)
    if missing.estimator == "mean":
        poor -= lagging
    findings = []
    if lagging:
        findings.append(
            _no_better(
                "dual-maps",
                missing,
                "mean",
                lagging,
                "ridge is, on the same answers, so the learned dual maps lag behind the "
                "projections. Try inference.dual_map=fitted, inference.estimator=ridge, a higher "
                "training.reconstruction_weight.",
            )
        )
    if poor:
        findings.append(
            _no_better(
                "reconstruction",
                missing,
                missing.estimator,
                poor,
                "the neighbours' projections do not carry what is missing. Try a larger "
                "comparison_dim (d_ij), more training.rounds, "
                + (
                    "a higher inference.ridge."
                    if missing.estimator == "ridge"
                    else "inference.estimator=ridge, inference.dual_map=fitted."
                    if missing.estimator == "mean"
                    else "inference.estimator=ridge."
                ),
            )
        )
    return findings


def _poor(missing: Missing, estimator: str) -> set[str]:
    """The nodes where `estimator` is no better than the train mean."""
    return {
        name
        for name, node in missing.per_node.items()
        if (bound := _bound(node)) is not None and _nmse(node, estimator) >= bound
    }


def _bound(node: NodeMissing) -> float | None:
    """None where there are too few answers to judge."""
    answered = node.missing - node.unanswered
    return 1 - NEAR * answered / node.missing if answered >= FEWEST_ANSWERED else None


def _nmse(node: NodeMissing, estimator: str) -> float:
    """Zero, which no bound refuses, where it was not measured."""
    found = node.estimators.get(estimator)
    return 0.0 if found is None or found.nmse is None else found.nmse


def _no_better(
    signature: Signature, missing: Missing, estimator: str, names: set[str], text: str
) -> Finding:
    found = {name: _nmse(missing.per_node[name], estimator) for name in names}
    judged = [node for node in missing.per_node.values() if _bound(node) is not None]
    worst = max(found, key=lambda name: found[name])
    return Finding.at(
        signature,
        "node",
        found if len(found) < len(judged) else {},
        figure=f"missing.per_node.NODE.estimators.{estimator}.nmse",
        value=found[worst],
        bound=_bound(missing.per_node[worst]) or 0.0,
        text=f"the estimates of missing sections by {estimator} (NMSE up to {found[worst]:.3g}) "
        f"are no better than the train mean (1); {text}",
    )
