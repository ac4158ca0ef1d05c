"""Which programs the nodes of a method run, by phase."""

from collections.abc import Callable
from dataclasses import dataclass

from sheafnet.method import Method
from sheafnet.nodes.alone import train_alone
from sheafnet.nodes.calibration import calibrate
from sheafnet.nodes.evaluation import evaluate, evaluate_alone
from sheafnet.nodes.fusion import evaluate_fused, infer_fused, train_fused
from sheafnet.nodes.inference import infer
from sheafnet.nodes.node import Node, Program
from sheafnet.nodes.records import (
    CalibrationRecord,
    EvaluationRecord,
    InferenceRecord,
    TrainRecord,
)
from sheafnet.nodes.training import train


@dataclass(frozen=True)
class Programs:
    """A round of each phase at one node; each appends its record."""

    train: Callable[[Node, int, list[TrainRecord]], Program] = train
    evaluate: Callable[[Node, int, list[EvaluationRecord]], Program] = evaluate
    calibrate: Callable[[Node, int, list[CalibrationRecord]], Program] = calibrate
    infer: Callable[[Node, int, list[InferenceRecord]], Program] = infer


def programs_of(method: Method) -> Programs:
    """The programs of `method`."""
    if method.fuses:
        return Programs(train_fused, evaluate_fused, infer=infer_fused)
    return Programs() if method.aligns else Programs(train_alone, evaluate_alone)
