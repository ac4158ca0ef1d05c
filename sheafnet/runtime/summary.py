"""The figures of a run: the schema of ``summary.json``, version 1, and how each is aggregated.

Bytes are those that the nodes sent, as counted in the ledger. Means over edges are over directed
edges (own projections as queries, neighbour's as gallery). Means over nodes weigh nodes equally,
whatever their degree. A figure that could not be measured is null.
"""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from sheafnet.network.frame import PHASES, Phase
from sheafnet.runtime.finding import Finding

SCHEMA = 1
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Figures(BaseModel):
    """Base of the parts of a summary."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        serialize_by_alias=True,
        protected_namespaces=(),
    )


class Bytes(Figures):
    """What was sent; payload, framing and control are exclusive and add up to the total."""

    messages: int = 0
    payload_bytes: int = 0
    """Tensors."""
    framing_bytes: int = 0
    """Headers, lengths and checksums of frames."""
    control_bytes: int = 0
    """Row masks: which rows are asked for or answered."""
    bytes_total: int = 0
    floor_bytes: int = 0
    """rows x d_ij x itemsize of every tensor that the method has to move, from the plan."""


class Tally(Figures):
    """Messages with one fate."""

    messages: int
    bytes_total: int
    """Zero of those that were missed: only their sender knows their size."""


class NodeRadio(Figures):
    """The radios of one node."""

    busy_seconds: float
    """Sending and receiving."""
    joules: float | None
    """None where the profile of a link of the node tells no energy."""


class RadioTraffic(Figures):
    """Simulated time and energy of one phase; see `sheafnet.network.radio`."""

    seconds: float
    """Sum over its rounds."""
    seconds_per_round: float | None
    joules: float | None
    """Of all nodes."""
    per_node: dict[str, NodeRadio]

    @property
    def busiest_seconds(self) -> float | None:
        """That the radios of a node were in use, at most; None where there is no node."""
        return max((node.busy_seconds for node in self.per_node.values()), default=None)

    @property
    def highest_joules(self) -> float | None:
        """Of a node, at most; None where none is known."""
        known = (node.joules for node in self.per_node.values() if node.joules is not None)
        return max(known, default=None)


class Traffic(Bytes):
    """The bytes of one phase."""

    rounds: int
    bytes_per_round: float | None
    overhead_percent: float | None
    """(bytes_total / floor_bytes - 1) x 100."""
    per_edge: dict[str, Bytes]
    """By directed edge, ``sender->receiver``."""
    per_node: dict[str, Bytes]
    """What each node sent."""
    fates: dict[str, Tally] = {}
    """What became of the messages, by fate; empty without ``faults``."""
    radio: RadioTraffic | None = None
    """Left out where no link has a profile."""

    @model_serializer(mode="wrap")
    def _without_radio(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if self.radio is None:
            values.pop("radio", None)
        return values


class InferenceTraffic(Traffic):
    """The bytes of missing-modality inference."""

    inferred_samples: int
    """Missing (node, event) pairs."""
    bytes_per_inferred_sample: float | None


class Communication(Figures):
    """All bytes between nodes, by phase."""

    train: Traffic
    evaluation: Traffic
    calibration: Traffic | None = None
    """Null without ``inference.calibration``."""
    inference: InferenceTraffic
    lost_messages: int
    rejected_frames: int

    @property
    def phases(self) -> dict[Phase, Traffic]:
        """Those that the run had, in their order."""
        found: dict[Phase, Traffic | None] = {phase: getattr(self, phase) for phase in PHASES}
        return {phase: traffic for phase, traffic in found.items() if traffic is not None}

    @property
    def radios(self) -> dict[Phase, RadioTraffic]:
        """Simulated time and energy by phase; empty where no edge has a link."""
        return {phase: t.radio for phase, t in self.phases.items() if t.radio is not None}


class EdgeAlignment(Figures):
    """Alignment in one direction of an edge, ``querying node->searched node``."""

    recall_at_1: Share | None
    recall_at_5: Share | None
    recall_at_10: Share | None
    zero_shot_accuracy: Share | None
    few_shot_accuracy: dict[str, Share | None]
    """By the number of labelled examples per class."""


class DirectedAlignment(EdgeAlignment):
    """Alignment in one direction of an edge, and what its two ends share."""

    canonical_correlations: list[Share] | None = None
    """Of own and received projections, on held-out halves of the gallery; null without
    ``evaluation.canonical``."""


class NodeAlignment(EdgeAlignment):
    """Mean over a node's edges, and its linear probe."""

    probe_accuracy: Share | None


class Chance(Figures):
    """What guessing scores."""

    recall_at_1: Share
    recall_at_5: Share
    recall_at_10: Share
    accuracy: Share


class Alignment(NodeAlignment):
    """Quality on events that training never saw: recall over directed edges, others over nodes."""

    fused_accuracy: Share | None = None
    """Of the classifier of all sections at once: concat-supervised only."""
    gallery: int
    chance: Chance
    per_edge: dict[str, DirectedAlignment]
    per_node: dict[str, NodeAlignment]


class Estimate(Figures):
    """How good an estimator of missing sections is.

    nmse = sum ||estimate - h||^2 / sum ||h - train mean||^2 over the missing rows, so the train
    mean scores 1; accuracy is that of a linear head trained on true sections.
    """

    nmse: float | None
    accuracy: Share | None
    coverage_90: Share | None = None
    """Share of the components of true sections within the nominal 90 % interval of the estimate;
    null of estimators that tell none."""


class NodeMissing(Figures):
    """Missing-modality inference at one node."""

    missing: int
    unanswered: int
    accuracy_all_present: Share | None
    """Accuracy of the head on the true sections of the same missing rows."""
    estimators: dict[str, Estimate]
    abstained: int | None = None
    """Missing rows for which the node uses no estimate; null without ``inference.abstain``."""
    nmse_kept: float | None = None
    """As `Estimate.nmse`, of the estimator that the network uses, over the other missing rows."""
    accuracy_kept: Share | None = None


class Missing(NodeMissing):
    """Sums of rows, means of the other figures over the nodes that missed any."""

    estimator: str
    """The one that the network uses: ``inference.estimator``."""
    nmse: float | None
    accuracy: Share | None
    """Of that estimator."""
    per_node: dict[str, NodeMissing]


class SheafFigures(Figures):
    """The sheaf that the trained restriction maps make; null for very large networks, and where
    the method has no comparison spaces."""

    stalk_dimension: int
    """Sum of all d_i."""
    global_sections: int | None
    """dim H^0 = dim ker L."""
    spectral_gap: float | None
    """Smallest eigenvalue of L above zero."""
    consistency_energy: float | None
    """sum over edges of mean_b ||p_i - p_j||^2 in the last training round."""


class HostRound(Figures):
    """A round at a process that holds nodes, mean over rounds and processes, in milliseconds."""

    compute_ms: float
    """Processor time of its thread in encoders, losses, steps and estimates."""
    messaging_ms: float
    """Processor time of its thread in frames: made, checked, counted, sent and received."""
    wait_ms: float
    """The rest of the wall-clock time: waiting for neighbours, or for a core."""


class Timing(Figures):
    """Times; with the memory the only figures that two runs of one seed do not share."""

    startup_s: float
    train_round_ms: float | None
    evaluation_s: float
    inference_round_ms: float | None
    wall_s: float
    train_host: HostRound
    inference_host: HostRound


class Memory(Figures):
    """Unique memory of the processes that hold nodes."""

    actor_mb: float
    """Mean over those processes."""
    actor_mb_max: float
    per_actor: list[float]


class Pilot(Figures):
    """The run before it that chose the d_ij."""

    rounds: int
    bytes_total: int
    """All that it sent, in training and evaluation."""
    comparison_dims: dict[str, int]
    """The d_ij of each edge that was left to it, ``left~right``."""


class Summary(Figures):
    """A finished run."""

    schema_: Annotated[int, Field(alias="schema")] = SCHEMA
    topology: str
    dataset: str
    method: str
    hub: str | None = None
    """The node that the method is centred on, where it has one."""
    backend: str
    nodes: int
    edges: int
    rounds: int
    seed: int
    actors: int
    communication: Communication
    pilot: Pilot | None = None
    alignment: Alignment
    missing: Missing
    sheaf: SheafFigures
    timing: Timing
    memory: Memory
    diagnosis: list[Finding] = []
    """Failure signatures that show; empty is good."""
