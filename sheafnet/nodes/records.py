"""What a node reports of a round: plain numbers, no tensors, nothing that another node sees."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TrainRecord:
    """A training round at one node; lists are per incident edge, in the fixed order."""

    round: int
    disagreement: list[float]
    """mean_b ||p_i - p_j||^2: the edge's consistency energy."""
    contrastive: list[float]
    reconstruction: list[float]
    """This node's side of L_recon."""
    gradient_square: float
    missed: int
    """Frames of neighbours that did not come before the deadline."""


@dataclass(frozen=True, slots=True)
class EdgeScores:
    """Alignment across one edge as one of its ends measures it: own projections are queries."""

    edge: int
    recall: dict[int, float]
    """recall@k in the neighbour's gallery, by k."""
    zero_shot: float
    few_shot: dict[int, float]
    """Accuracy of k labelled own projections per class, by k."""


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """Alignment quality at one node."""

    scores: list[EdgeScores]
    probe: float
    """Accuracy of a linear probe on h_i, mean over the node's labels."""


@dataclass(frozen=True, slots=True)
class EstimatorSums:
    """Sums over the missing rows of a round under one estimator."""

    square_error: float
    correct: int


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
    present_correct: int
    """Correct predictions of the head on the true sections of the missing rows."""
    estimators: dict[str, EstimatorSums] = field(default_factory=dict)
