"""From what was measured and counted to the figures of the summary."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sheafnet.network.frame import Phase
from sheafnet.network.ledger import FATES, Account, Count, tally
from sheafnet.network.radio import RadioAccount, total
from sheafnet.nodes.events import gallery_size
from sheafnet.nodes.records import EdgeScores, EvaluationRecord
from sheafnet.runtime.measurements import (
    Measurements,
    inference_totals,
    mean,
    mean_known,
    number,
)
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.report import Parameters, Seconds
from sheafnet.runtime.summary import (
    Alignment,
    Bytes,
    Chance,
    Communication,
    DirectedAlignment,
    Estimate,
    HostRound,
    InferenceTraffic,
    Memory,
    Missing,
    NodeAlignment,
    NodeMissing,
    NodeRadio,
    RadioTraffic,
    SheafFigures,
    Summary,
    Tally,
    Timing,
    Traffic,
)
from sheafnet.sheaf.cellular import Sheaf, Spectrum
from sheafnet.topology import Topology

_DENSE_LIMIT = 2048
"""Largest sum of stalk dimensions whose Laplacian is diagonalized."""


@dataclass
class Costs:
    """What the run took, beside bytes."""

    actors: int = 0
    seconds: dict[Phase, float] = field(default_factory=lambda: defaultdict(float))
    """Wall-clock time of each phase."""
    spent: dict[Phase, Seconds] = field(default_factory=lambda: defaultdict(Seconds))
    """What all hosts together did in it."""
    memory_mb: list[float] = field(default_factory=list)
    rejected: int = 0
    startup_s: float = 0.0
    wall_s: float = 0.0

    def state(self) -> dict[str, Any]:
        """What adds up from stretch to stretch, as JSON."""
        return {
            "seconds": dict(self.seconds),
            "spent": {phase: asdict(spent) for phase, spent in self.spent.items()},
            "rejected": self.rejected,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.seconds.update(state["seconds"])
        self.spent.update({phase: Seconds(**spent) for phase, spent in state["spent"].items()})
        self.rejected = state["rejected"]


def summarize(
    plan: Plan,
    account: Account,
    measured: Measurements,
    costs: Costs,
    spectrum: Spectrum | None,
    radio: RadioAccount | None,
) -> Summary:
    """The summary of a finished run."""
    config, topology = plan.config, plan.topology
    missing = _missing(plan, measured)
    traffic = _traffic(plan, account, "inference", radio)
    inference = InferenceTraffic(
        **traffic,
        inferred_samples=missing.missing,
        bytes_per_inferred_sample=(
            traffic["bytes_total"] / missing.missing if missing.missing else None
        ),
    )
    return Summary(
        topology=topology.name,
        dataset=config.dataset.name,
        method=config.method.name,
        hub=None if plan.method.hub is None else topology.nodes[plan.method.hub].id,
        backend=config.run.backend,
        nodes=len(topology.nodes),
        edges=len(topology.edges),
        rounds=config.training.rounds,
        seed=config.run.seed,
        actors=costs.actors,
        communication=Communication(
            train=Traffic(**_traffic(plan, account, "train", radio)),
            evaluation=Traffic(**_traffic(plan, account, "evaluation", radio)),
            calibration=(
                Traffic(**_traffic(plan, account, "calibration", radio))
                if plan.calibrates
                else None
            ),
            inference=inference,
            lost_messages=account.lost,
            rejected_frames=costs.rejected,
        ),
        alignment=_alignment(plan, measured.evaluation),
        missing=missing,
        sheaf=_sheaf(plan, measured, spectrum),
        timing=Timing(
            startup_s=round(costs.startup_s, 3),
            train_round_ms=_per_round(costs, plan, "train"),
            evaluation_s=round(costs.seconds["evaluation"], 3),
            inference_round_ms=_per_round(costs, plan, "inference"),
            wall_s=round(costs.wall_s, 3),
            train_host=_host_round(costs, plan, "train"),
            inference_host=_host_round(costs, plan, "inference"),
        ),
        memory=Memory(
            actor_mb=round(mean(costs.memory_mb), 1),
            actor_mb_max=round(max(costs.memory_mb), 1),
            per_actor=[round(mb, 1) for mb in costs.memory_mb],
        ),
    )


def _per_round(costs: Costs, plan: Plan, phase: Phase) -> float | None:
    rounds = plan.rounds(phase)
    return round(1000 * costs.seconds[phase] / rounds, 3) if rounds else None


def _host_round(costs: Costs, plan: Plan, phase: Phase) -> HostRound:
    scale = 1000 / max(1, plan.rounds(phase) * costs.actors)
    spent = costs.spent[phase]
    return HostRound(
        compute_ms=round(scale * spent.compute, 3),
        messaging_ms=round(scale * spent.messaging, 3),
        wait_ms=round(scale * spent.wait, 3),
    )


def _traffic(
    plan: Plan, account: Account, phase: Phase, radio: RadioAccount | None
) -> dict[str, Any]:
    topology, floors = plan.method.network, plan.floor(phase)
    per_edge: dict[str, Bytes] = {}
    whole, whole_floor = Count(), 0
    sent = {node.index: Count() for node in topology.nodes}
    node_floors = dict.fromkeys(sent, 0)
    for (edge, direction), floor in floors.items():
        count = account.totals.get((phase, edge, direction), Count())
        per_edge[topology.arrow(edge, direction)] = _bytes(count, floor)
        sender = topology.edges[edge].sender(direction)
        tally(sent, sender, count)
        node_floors[sender] += floor
        whole, whole_floor = whole.plus(count), whole_floor + floor
    rounds = plan.rounds(phase)
    return {
        **_bytes(whole, whole_floor).model_dump(),
        "rounds": rounds,
        "bytes_per_round": whole.total / rounds if rounds else None,
        "overhead_percent": (
            number((whole.total / whole_floor - 1) * 100) if whole_floor else None
        ),
        "per_edge": per_edge,
        "per_node": {
            topology.nodes[index].id: _bytes(count, node_floors[index])
            for index, count in sent.items()
        },
        "fates": {} if plan.links is None else _fates(account, phase),
        "radio": None if radio is None else _radio(plan, radio, phase),
    }


def _radio(plan: Plan, radio: RadioAccount, phase: Phase) -> RadioTraffic:
    seconds, rounds, joules = radio.seconds[phase], plan.rounds(phase), radio.joules(phase)
    return RadioTraffic(
        seconds=seconds,
        seconds_per_round=seconds / rounds if rounds else None,
        joules=total(joules),
        per_node={
            node.id: NodeRadio(busy_seconds=busy, joules=each)
            for node, busy, each in zip(plan.topology.nodes, radio.busy(phase), joules, strict=True)
        },
    )


def _fates(account: Account, phase: Phase) -> dict[str, Tally]:
    counts = {fate: account.fates.get((phase, fate), Count()) for fate in FATES}
    return {fate: Tally(messages=n.messages, bytes_total=n.total) for fate, n in counts.items()}


def _bytes(count: Count, floor: int) -> Bytes:
    return Bytes(
        messages=count.messages,
        payload_bytes=count.payload,
        framing_bytes=count.framing,
        control_bytes=count.control,
        bytes_total=count.total,
        floor_bytes=floor,
    )


def _alignment(plan: Plan, records: Mapping[int, EvaluationRecord]) -> Alignment:
    topology = plan.topology
    gallery = gallery_size(plan.config, plan.dataset)
    shots = plan.config.evaluation.few_shot
    per_edge: dict[str, DirectedAlignment] = {}
    per_node: dict[str, NodeAlignment] = {}
    for index, record in sorted(records.items()):
        for score in record.scores:
            direction = topology.edges[score.edge].direction(index)
            name = topology.arrow(score.edge, direction)
            per_edge[name] = DirectedAlignment(
                **_mean_scores([score], shots), canonical_correlations=score.canonical
            )
        per_node[topology.nodes[index].id] = NodeAlignment(
            **_mean_scores(record.scores, shots), probe_accuracy=record.probe
        )
    nodes = list(per_node.values())
    return Alignment(
        recall_at_1=mean_known(e.recall_at_1 for e in per_edge.values()),
        recall_at_5=mean_known(e.recall_at_5 for e in per_edge.values()),
        recall_at_10=mean_known(e.recall_at_10 for e in per_edge.values()),
        zero_shot_accuracy=mean_known(n.zero_shot_accuracy for n in nodes),
        few_shot_accuracy={
            str(k): mean_known(n.few_shot_accuracy[str(k)] for n in nodes) for k in shots
        },
        probe_accuracy=mean_known(node.probe_accuracy for node in nodes),
        fused_accuracy=mean_known(record.fused for record in records.values()),
        gallery=gallery,
        chance=Chance(
            recall_at_1=1 / gallery,
            recall_at_5=min(1.0, 5 / gallery),
            recall_at_10=min(1.0, 10 / gallery),
            accuracy=1 / plan.dataset.classes,
        ),
        per_edge=per_edge,
        per_node=per_node,
    )


def _mean_scores(scores: Sequence[EdgeScores], shots: Sequence[int]) -> dict[str, Any]:
    return {
        **{f"recall_at_{k}": mean_known(s.recall.get(k) for s in scores) for k in (1, 5, 10)},
        "zero_shot_accuracy": mean_known(s.zero_shot for s in scores),
        "few_shot_accuracy": {str(k): mean_known(s.few_shot.get(k) for s in scores) for k in shots},
    }


def _missing(plan: Plan, measured: Measurements) -> Missing:
    per_node = {}
    for index, record in sorted(measured.inference.items()):
        totals = inference_totals([record])
        del totals["missed"]
        per_node[plan.topology.nodes[index].id] = NodeMissing(**totals)
    judged = [node for node in per_node.values() if node.missing]
    estimators: dict[str, Estimate] = {
        name: Estimate(
            nmse=mean_known(node.estimators[name].nmse for node in judged),
            accuracy=mean_known(node.estimators[name].accuracy for node in judged),
            coverage_90=mean_known(node.estimators[name].coverage_90 for node in judged),
        )
        for name in plan.config.inference.measured
    }
    used = estimators[plan.config.inference.estimator]
    return Missing(
        estimator=plan.config.inference.estimator,
        nmse=used.nmse,
        accuracy=used.accuracy,
        missing=sum(node.missing for node in judged),
        unanswered=sum(node.unanswered for node in judged),
        accuracy_all_present=mean_known(node.accuracy_all_present for node in judged),
        estimators=estimators,
        abstained=_sum_known(node.abstained for node in judged),
        nmse_kept=mean_known(node.nmse_kept for node in judged),
        accuracy_kept=mean_known(node.accuracy_kept for node in judged),
        per_node=per_node,
    )


def _sum_known(values: Iterable[int | None]) -> int | None:
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def _sheaf(plan: Plan, measured: Measurements, spectrum: Spectrum | None) -> SheafFigures:
    return SheafFigures(
        stalk_dimension=_stalk_dimension(plan),
        global_sections=spectrum.global_sections if spectrum else None,
        spectral_gap=number(spectrum.gap) if spectrum else None,
        consistency_energy=measured.last_train.get("energy"),
    )


def has_spectrum(plan: Plan) -> bool:
    """Whether the method makes a sheaf, and one that is small enough to diagonalize."""
    return plan.method.aligns and _stalk_dimension(plan) <= _DENSE_LIMIT


def sheaf_of(topology: Topology, parameters: Parameters) -> Sheaf:
    """The sheaf that `parameters` make on `topology`, that of a method.

    A single space is the constant sheaf: its restriction maps are identities.

    Raises:
        ValueError: the parameters are of another network.
    """
    maps = {}
    for node in topology.nodes:
        for edge in topology.incident(node.index):
            name = f"restriction.{topology.edge_name(edge.index)}"
            learned = parameters[node.index].get(name)
            maps[node.index, edge.index] = np.eye(node.dim) if learned is None else learned
    return Sheaf(topology, maps)


def _stalk_dimension(plan: Plan) -> int:
    return sum(node.dim for node in plan.topology.nodes)
