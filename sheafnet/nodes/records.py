"""What a node reports of a round: plain numbers, no tensors, nothing that another node sees."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TrainRecord:
    """A training round at one node; lists are per trained channel, in the fixed order."""

    round: int
    disagreement: list[float]
    """mean_b ||p_i - p_j||^2: the edge's consistency energy."""
    contrastive: list[float]
    reconstruction: list[float]
    """This node's side of L_recon."""
    gradient_square: float
    missed: int
    """Frames of neighbours that did not come before the deadline."""
    own: float | None = None
    """A loss beside those of the channels: of two masked copies under local, the cross-entropy at
    the hub of concat-supervised, the terms of ``training.objective``."""

    @classmethod
    def asleep(cls, round_: int, channels: int) -> "TrainRecord":
        """The record of a node that slept: nothing was measured on its trained channels."""
        absent = [math.nan] * channels
        return cls(round_, absent, absent, absent, 0.0, 0)


@dataclass(frozen=True, slots=True)
class EdgeScores:
    """Alignment across one edge as one of its ends measures it: own projections are queries."""

    edge: int
    recall: dict[int, float]
    """recall@k in the neighbour's gallery, by k; empty where neighbours do not align."""
    zero_shot: float | None
    few_shot: dict[int, float]
    """Accuracy of k labelled own projections per class, by k; only in the last evaluation."""
    canonical: list[float] | None = None
    """Canonical correlations of own and received projections, where they are measured."""


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """Alignment quality at one node."""

    round: int
    """Number of the evaluation."""
    scores: list[EdgeScores]
    probe: float | None
    """Accuracy of a linear probe on h_i, mean over the node's labels; only in the last one."""
    fused: float | None = None
    """Accuracy of the classifier of all sections, at the hub of concat-supervised."""


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """The exchange before inference at one node."""

    round: int
    events: int
    missed: int
    """Frames of neighbours that did not come before the deadline."""


@dataclass(frozen=True, slots=True)
class EstimatorSums:
    """Sums over the missing rows of a round under one estimator."""

    square_error: float
    correct: int
    covered: int = 0
    """Components of true sections within the 90 % interval of the estimate."""
    judged: int = 0
    """Components of which the estimator tells an interval."""


@dataclass(frozen=True, slots=True)
class KeptSums:
    """Sums over those missing rows of a round whose estimate the node uses."""

    rows: int
    square_error: float
    variance: float
    """sum ||h - train mean||^2."""
    correct: int
    judged: int
    """Predictions behind `correct`."""


@dataclass(frozen=True, slots=True)
class InferenceRecord:
    """A round of missing-modality inference at one node."""

    round: int
    missing: int
    """Rows whose modality was missing here."""
    unanswered: int
    """Missing rows that no neighbour could answer."""
    missed: int
    """Neighbours whose frame did not come before the deadline."""
    variance: float
    """sum ||h - train mean||^2 over the missing rows: the denominator of NMSE."""
    judged: int
    """Predictions behind `correct`: missing rows times labels of the node."""
    present_correct: int | None
    """Correct predictions of the head on the true sections of the missing rows, where known."""
    estimators: dict[str, EstimatorSums] = field(default_factory=dict)
    kept: KeptSums | None = None
    """Under the estimator that the network uses, where nodes may abstain."""

    @classmethod
    def nothing(cls, round_: int, estimators: Iterable[str], missed: int = 0) -> "InferenceRecord":
        """The record of a node that judges nothing: it slept, or another speaks for it."""
        sums: dict[str, EstimatorSums] = {name: EstimatorSums(0.0, 0) for name in estimators}
        return cls(round_, 0, 0, missed, 0.0, 0, None, sums)
