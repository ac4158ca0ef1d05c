"""Node records brought together by round: the lines of rounds.jsonl."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from sheafnet.config import UNCERTAIN
from sheafnet.nodes.records import (
    CalibrationRecord,
    EstimatorSums,
    EvaluationRecord,
    InferenceRecord,
    KeptSums,
    TrainRecord,
)
from sheafnet.runtime.plan import Plan
from sheafnet.topology import Edge

Line = dict[str, Any]
_EVALUATION = TypeAdapter(dict[int, EvaluationRecord])
_INFERENCE = TypeAdapter(dict[int, InferenceRecord])


class Measurements:
    """Everything that the nodes measured so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.evaluation: dict[int, EvaluationRecord] = {}
        self.inference: dict[int, InferenceRecord] = {}
        """The sums over all rounds so far, by node."""
        self.last_train: Line = {}
        """The newest training line."""

    def state(self) -> dict[str, Any]:
        """What is known so far, as JSON."""
        return {
            "evaluation": _EVALUATION.dump_python(self.evaluation),
            "inference": _INFERENCE.dump_python(self.inference),
            "last_train": self.last_train,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.evaluation = _EVALUATION.validate_python(state["evaluation"])
        self.inference = _INFERENCE.validate_python(state["inference"])
        self.last_train = state["last_train"]

    def add_training(self, records: Mapping[int, Sequence[TrainRecord]]) -> list[Line]:
        """A line per round that every node finished."""
        complete = min((len(found) for found in records.values()), default=0)
        lines = [
            self._train_line({node: found[k] for node, found in records.items()})
            for k in range(complete)
        ]
        if lines:
            self.last_train = lines[-1]
        return lines

    def add_evaluation(
        self, records: Mapping[int, Sequence[EvaluationRecord]], **facts: Any
    ) -> list[Line]:
        """A line, with `facts`, once every node is evaluated."""
        self.evaluation = {node: found[0] for node, found in records.items() if found}
        if len(self.evaluation) < len(records):
            return []
        everyone = list(self.evaluation.values())
        scores = [s for record in everyone for s in record.scores]
        by_node = [[s.zero_shot for s in r.scores if s.zero_shot is not None] for r in everyone]
        return [
            {
                "phase": "evaluation",
                "round": everyone[0].round,
                **facts,
                "recall_at_1": number(mean(s.recall[1] for s in scores if s.recall)),
                "zero_shot_accuracy": number(mean(mean(found) for found in by_node if found)),
                "probe_accuracy": number(mean(r.probe for r in everyone if r.probe is not None)),
                "fused_accuracy": number(mean(r.fused for r in everyone if r.fused is not None)),
            }
        ]

    @staticmethod
    def add_calibration(records: Mapping[int, Sequence[CalibrationRecord]]) -> list[Line]:
        """A line, once every node has calibrated."""
        if not all(records.values()):
            return []
        everyone = [found[0] for found in records.values()]
        return [
            {
                "phase": "calibration",
                "round": everyone[0].round,
                "events": everyone[0].events,
                "missed": sum(record.missed for record in everyone),
            }
        ]

    def add_inference(self, records: Mapping[int, Sequence[InferenceRecord]]) -> list[Line]:
        """A line per round that every node finished."""
        for node, found in records.items():
            known = [self.inference[node]] if node in self.inference else []
            if known or found:
                self.inference[node] = _sum([*known, *found])
        complete = min((len(found) for found in records.values()), default=0)
        return [
            {
                "phase": "inference",
                "round": records[next(iter(records))][k].round,
                **inference_totals([found[k] for found in records.values()]),
            }
            for k in range(complete)
        ]

    def _train_line(self, records: Mapping[int, TrainRecord]) -> Line:
        """Both ends of a channel measure the same disagreement and contrast; the tail's counts, or
        the head's where the tail did not measure. Sums are scaled to all channels, or nodes, from
        those that were measured."""
        config, method = self._plan.config, self._plan.method
        training = config.training
        contrastive: list[float | None] = []
        energies, rebuilts, losses = [], [], []
        round_ = next(iter(records.values())).round
        for edge, ends in self._aligned:
            seen = [at for at in ends if not math.isnan(records[at[0]].contrastive[at[1]])]
            contrastive.append(None)
            if not seen:
                continue
            node, position = seen[0]
            disagreement = records[node].disagreement[position]
            contrastive[-1] = contrast = records[node].contrastive[position]
            rebuilt = sum(records[n].reconstruction[at] for n, at in seen) * (len(ends) / len(seen))
            energies.append(disagreement)
            rebuilts.append(rebuilt)
            losses.append(
                config.sheaf_factor(round_, edge.dim) * disagreement
                + training.contrastive_weight * contrast
                + training.reconstruction_weight * rebuilt
            )
        own = [record.own for record in records.values() if record.own is not None]
        gradient = math.sqrt(sum(record.gradient_square for record in records.values()))
        whole, beside = len(self._aligned), None
        if not method.aligns:
            losses, whole = own, 1 if method.fuses else len(records)
        elif training.objective is not None:
            beside = _scaled(own, len(records))
        return {
            "phase": "train",
            "round": round_,
            "loss": number(_added(_scaled(losses, whole), beside)),
            "energy": number(_scaled(energies, len(self._aligned))),
            "contrastive": number(mean_known(own if method.name == "local" else contrastive)),
            "reconstruction": number(mean(rebuilts)),
            "gradient_norm": number(gradient),
            "missed": sum(record.missed for record in records.values()),
            "contrastive_per_edge": [number(value) for value in contrastive],
            **({} if training.objective is None else {"objective": number(beside)}),
        }

    @cached_property
    def _aligned(self) -> list[tuple[Edge, list[tuple[int, int]]]]:
        """The trained channels that have losses of their own, and for each its ends: the node and
        the channel's position among those that train there."""
        method = self._plan.method
        return [
            (edge, [(n, method.trained_at(n).index(edge)) for n in (edge.tail, edge.head)])
            for edge in (method.trained if method.aligns else ())
        ]


def inference_totals(records: Sequence[InferenceRecord]) -> Line:
    """Sums of rows, and ratios of sums, over `records`: nmse and accuracy per estimator."""
    total = _sum(records)
    known = total.present_correct
    return {
        "missing": total.missing,
        "unanswered": total.unanswered,
        "missed": total.missed,
        "accuracy_all_present": None if known is None else number(_ratio(known, total.judged)),
        "estimators": {
            name: {
                "nmse": number(_ratio(sums.square_error, total.variance)),
                "accuracy": number(_ratio(sums.correct, total.judged)),
                **(
                    {"coverage_90": number(_ratio(sums.covered, sums.judged))}
                    if name in UNCERTAIN
                    else {}
                ),
            }
            for name, sums in total.estimators.items()
        },
        **({} if total.kept is None else _kept(total.kept, total.missing)),
    }


def _kept(kept: KeptSums, missing: int) -> Line:
    return {
        "abstained": missing - kept.rows,
        "nmse_kept": number(_ratio(kept.square_error, kept.variance)),
        "accuracy_kept": number(_ratio(kept.correct, kept.judged)),
    }


def _sum(records: Sequence[InferenceRecord]) -> InferenceRecord:
    """One record with the sums of `records` and the round of the last."""
    present = [r.present_correct for r in records if r.present_correct is not None]
    return InferenceRecord(
        round=records[-1].round,
        missing=sum(r.missing for r in records),
        unanswered=sum(r.unanswered for r in records),
        missed=sum(r.missed for r in records),
        variance=sum(r.variance for r in records),
        judged=sum(r.judged for r in records),
        present_correct=sum(present) if present else None,
        estimators={
            name: EstimatorSums(
                sum(r.estimators[name].square_error for r in records),
                sum(r.estimators[name].correct for r in records),
                sum(r.estimators[name].covered for r in records),
                sum(r.estimators[name].judged for r in records),
            )
            for name in records[-1].estimators
        },
        kept=_sum_kept([r.kept for r in records if r.kept is not None]),
    )


def _sum_kept(records: Sequence[KeptSums]) -> KeptSums | None:
    if not records:
        return None
    return KeptSums(*(sum(column) for column in zip(*map(astuple, records), strict=True)))


def mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def mean_known(values: Iterable[float | None]) -> float | None:
    """The mean of those values that were measured; None where none was."""
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def number(value: float | None) -> float | None:
    """`value` for JSON: seven significant digits, and null for what is not finite."""
    return float(f"{value:.7g}") if value is not None and math.isfinite(value) else None


def _scaled(found: Sequence[float], whole: int) -> float | None:
    """The sum over `whole` places, of which those in `found` were measured; None of nothing."""
    return sum(found) * (whole / len(found)) if found else None


def _added(loss: float | None, beside: float | None) -> float | None:
    return loss if loss is None or beside is None else loss + beside


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
