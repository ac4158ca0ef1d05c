"""The YAML of a run as frozen models: what may be said, its defaults and its bounds.

What only a registry can know (options of a data set or of an encoder) is kept as given in
``options``; that registry checks it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_serializer,
    model_validator,
)

from sheafnet.document import Origin, read, take
from sheafnet.errors import ConfigError
from sheafnet.faults import FaultsConfig, Probability
from sheafnet.shipped import find
from sheafnet.validation import Model as Model
from sheafnet.validation import check_model, nearest

Positive = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "float16", "bfloat16", "int8", "int8-row", "int8-channel"]
Rounding = Literal["nearest", "stochastic"]
EstimatorName = Literal["mean", "ridge", "zero", "train-mean", "diffusion", "neural"]
MethodName = Literal["sheafalign", "imagebind", "all-pairs", "local", "concat-supervised"]

OUR_ESTIMATORS: tuple[EstimatorName, ...] = get_args(EstimatorName)
ON_REQUEST: dict[str, str] = {
    "diffusion": "diffusion_iterations",
    "neural": "neural_hidden",
}
"""Estimators that are there where a key of ``inference`` is above 0, and that key."""
UNCERTAIN: tuple[EstimatorName, ...] = ("ridge", "neural")
"""Estimators that tell how far off they expect to be."""
LEAST_CALIBRATION = 9
"""Events that a 90 % quantile of a new event's error needs: ceil(0.9 (n + 1)) is at most n."""
CENTRED: tuple[MethodName, ...] = ("imagebind", "concat-supervised")
"""Methods with a hub."""
SINGLE_SPACE: tuple[MethodName, ...] = ("imagebind", "all-pairs")
"""Methods that send sections as they are, in one space for all."""
NOT_ALIGNED: tuple[MethodName, ...] = ("local", "concat-supervised")
"""Methods whose neighbours do not meet in a space."""


def _comparison_dim(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            "must be a whole number of dimensions from 1, or a fraction above 0.0 and at most 1.0"
        ) from None


def _comparison_dim_or_auto(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            "must be a whole number of dimensions from 1, a fraction above 0.0 and at most 1.0, or "
            "auto"
        ) from None


_Dimensions = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0.0, le=1.0)]
FixedDim = Annotated[_Dimensions, WrapValidator(_comparison_dim)]
ComparisonDim = Annotated[_Dimensions | Literal["auto"], WrapValidator(_comparison_dim_or_auto)]


class Named(Model):
    """A thing by the name that it is registered under, by that of an entry point of a plug-in, or
    by a path ``module:attribute``; its further keys are the options of that thing."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside ``name``, unchecked."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer
    def _as_given(self) -> dict[str, Any]:
        """With every option: a null that was given may stand against another default."""
        return {"name": self.name, **self.options}


class MethodConfig(Model):
    """The method by name; see `sheafnet.method` for what each one is."""

    name: MethodName = "sheafalign"
    hub: str | None = None
    """Of imagebind and concat-supervised: the node that all others exchange with; by default the
    first of those with the most edges."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _hub_is_of_a_centred_method(self) -> Self:
        if self.hub is not None and self.name not in CENTRED:
            raise ValueError(f"{self.name} has no hub; {' and '.join(CENTRED)} have one")
        return self


class NodeDefaults(Model):
    """What a node is unless it says otherwise."""

    modality: str | None = None
    encoder: Named = Named(name="mlp")
    embedding_dim: Positive = 64


class EdgeDefaults(Model):
    """What an edge is unless it says otherwise."""

    comparison_dim: ComparisonDim = 0.5
    link: str | None = None
    """A profile of ``links``, of `sheafnet.network.profiles` or of a plug-in."""


class Defaults(Model):
    """Defaults of all nodes and all edges."""

    node: NodeDefaults = NodeDefaults()
    edge: EdgeDefaults = EdgeDefaults()


class NodeConfig(Model):
    """A modality node. Left-out keys come from ``defaults.node``."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]
    modality: str | None = None
    encoder: Named | None = None
    embedding_dim: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value


class EdgeConfig(Model):
    """An edge between two nodes.

    ``comparison_dim``: a whole number is d_ij itself, a fraction in (0, 1] is taken of the
    smaller of both embedding dimensions.
    """

    between: tuple[str, str]
    comparison_dim: ComparisonDim | None = None
    temperature: Annotated[float, Field(gt=0.0)] | None = None
    """τ of this edge, instead of ``training.temperature``."""
    link: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"between": value} if isinstance(value, list | tuple) else value


class LinkConfig(Model):
    """The profile of a link: what its medium is like, in either direction."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    bandwidth_bps: Annotated[float, Field(gt=0.0)]
    """Bits a second."""
    latency_s: Annotated[float, Field(ge=0.0)] = 0.0
    """From the end of a transmission until it is there."""
    loss: Probability = 0.0
    """That a transmission is lost."""
    send_j_per_bit: Annotated[float, Field(ge=0.0)] | None = None
    """Joules that a bit takes at its sender; None where it is not known."""
    receive_j_per_bit: Annotated[float, Field(ge=0.0)] | None = None

    @model_validator(mode="after")
    def _energy_of_both_ends(self) -> Self:
        if (self.send_j_per_bit is None) is not (self.receive_j_per_bit is None):
            raise ValueError(
                "energy is of both ends: give send_j_per_bit and receive_j_per_bit, or neither"
            )
        return self


class GraphConfig(Model):
    """A generated graph instead of lists of nodes and edges."""

    generator: Literal[
        "ring", "complete", "star", "grid", "line", "knn", "random-regular", "small-world"
    ]
    nodes: Positive
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]{0,47}$")] = "node"
    degree: Annotated[int, Field(ge=2)] = 4
    """k of knn, degree of random-regular, neighbours each in small-world."""
    rewire: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Rewiring probability of small-world."""
    columns: Positive | None = None
    """Width of a grid; the squarest that fits by default."""
    seed: int = 0


class TrainingConfig(Model):
    """A training run (METHOD: objective and decentralized round)."""

    rounds: Annotated[int, Field(ge=0)] = 1000
    batch_size: Annotated[int, Field(ge=2)] = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    """``cosine``: the learning rate falls along half a cosine, from ``learning_rate`` towards 0."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    temperature: Annotated[float, Field(gt=0.0)] = 0.1
    sheaf_weight: Annotated[float, Field(ge=0.0)] = 0.1
    sheaf_reduction: Literal["mean", "sum"] = "mean"
    """How ‖p_i − p_j‖² is reduced over the d_ij dimensions: ``sum`` is the paper's."""
    sheaf_warmup: Annotated[int, Field(ge=0)] = 0
    """Rounds over which the sheaf weight rises linearly from 0."""
    restriction_start: Literal["together", "alone", "alike"] = "together"
    """Rows of all restriction maps of a node start orthonormal together, those of each alone, or
    all maps with the same rows."""
    restriction_rate: Annotated[float, Field(ge=0.0)] = 0.1
    """Learning rate of the restriction maps, relative to ``learning_rate``; 0 leaves them be."""
    contrastive_weight: Annotated[float, Field(ge=0.0)] = 1.0
    reconstruction_weight: Annotated[float, Field(ge=0.0)] = 0.1
    reconstruction: Literal["neighbour", "inverse"] = "neighbour"
    """Rebuild h_i from the neighbour's projection (as in inference) or from its own."""
    reconstruction_gradient: Literal["dual", "full"] = "dual"
    """``dual``: only Q learns from L_recon; ``full``: the encoder too."""
    exchange_gradients: bool = False
    """Return ∂L_recon/∂p_j to the neighbour: the exact joint gradient, at twice the bytes."""
    local_steps: Positive = 1
    """Steps of every round, all against the projections that came in it."""
    memory: Annotated[int, Field(ge=0)] = 0
    """Rounds whose received projections stay as further negatives."""
    wire_dtype: Dtype = "float32"
    wire_rounding: Rounding = "nearest"
    """Of int8 in training rounds."""
    objective: Named | None = None
    """Further loss terms of every node, of a plug-in."""

    def rate_share(self, round_: int) -> float:
        """The learning rate of a round relative to ``learning_rate``.

        Under ``cosine`` (1 + cos(π t / T)) / 2 in round t of T, SGDR's without restarts (Loshchilov
        and Hutter 2017, equation 5).
        """
        if self.schedule == "constant":
            return 1.0
        return (1.0 + math.cos(math.pi * round_ / self.rounds)) / 2.0

    @model_validator(mode="after")
    def _stochastic_needs_steps(self) -> Self:
        if self.wire_rounding == "stochastic" and not self.wire_dtype.startswith("int8"):
            raise ValueError(
                f"wire_rounding: stochastic rounds the steps of int8, and wire_dtype is "
                f"{self.wire_dtype}: choose int8, int8-row or int8-channel, or wire_rounding: "
                "nearest"
            )
        return self

    @model_validator(mode="after")
    def _exchange_needs_full(self) -> Self:
        if self.exchange_gradients and (
            self.reconstruction_gradient != "full" or self.reconstruction != "neighbour"
        ):
            raise ValueError(
                "exchange_gradients has nothing to send: it needs "
                "reconstruction_gradient: full and reconstruction: neighbour"
            )
        if self.exchange_gradients and self.local_steps > 1:
            raise ValueError(
                f"local_steps = {self.local_steps}: with exchange_gradients a round is one step, "
                "along the gradient that the neighbours return; choose one of the two"
            )
        return self


class InferenceConfig(Model):
    """Missing-modality inference (METHOD: the main job)."""

    rounds: Annotated[int, Field(ge=0)] = 16
    batch_size: Positive = 128
    missing_probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Probability that a node misses its modality for an event, independent over both."""
    missing_nodes: tuple[str, ...] | None = None
    """A fixed pattern instead: these nodes miss every event, the others none."""
    estimators: tuple[Named, ...] = ()
    """Estimators of plug-ins, to be measured beside ours."""
    estimator: str = "ridge"
    """The estimator that the network uses; the others are measured on the same messages."""
    ridge: Annotated[float, Field(gt=0.0)] = 1e-3
    """Regularization, relative to the mean variance of the projections."""
    dual_map: Literal["learned", "fitted"] = "fitted"
    """Q of the ``mean`` estimator: learned by L_recon, or its closed form from the moments."""
    wire_dtype: Dtype = "float32"
    diffusion: Literal["relay", "harmonic"] = "relay"
    """What a node makes of its neighbours' estimates of what they miss too."""
    diffusion_iterations: Annotated[int, Field(ge=0, lt=256)] = 0
    """How often neighbours exchange their estimates after the answers of a round; 0: never."""
    diffusion_tolerance: Annotated[float, Field(ge=0.0)] = 0.3
    """How far an estimate's projection has to move, relative to its length, to be told again."""
    neural_hidden: Annotated[int, Field(ge=0)] = 0
    """Hidden units of the neural dual map, which training then fits as well; 0: none."""
    calibration: Annotated[int, Field(ge=0)] = 0
    """Events of the validation split that intervals are calibrated on before inference; 0: none."""
    abstain: Annotated[float, Field(gt=0.0)] | None = None
    """Expected relative square error above which a node does without an estimate."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The estimators that a run measures, those of plug-ins last."""
        own = (n for n in OUR_ESTIMATORS if n not in ON_REQUEST or getattr(self, ON_REQUEST[n]))
        return (*own, *(chosen.name for chosen in self.estimators))

    @field_validator("estimators", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"takes a list: write [{value}]")
        return value

    @field_validator("estimators")
    @classmethod
    def _of_different_names(cls, value: tuple[Named, ...]) -> tuple[Named, ...]:
        columns: dict[str, str] = {re.sub(r"\W", "_", name): name for name in OUR_ESTIMATORS}
        for chosen in value:
            if chosen.name in OUR_ESTIMATORS:
                raise ValueError(
                    f"{chosen.name} is sheafnet's own and measured anyway; list those of plug-ins"
                )
            column = re.sub(r"\W", "_", chosen.name)
            if column in columns:
                raise ValueError(
                    f"{columns[column]} and {chosen.name} would have the same columns in tables"
                )
            columns[column] = chosen.name
        return value

    @field_validator("estimator")
    @classmethod
    def _a_known_one(cls, value: str, info: ValidationInfo) -> str:
        plugins = [chosen.name for chosen in info.data.get("estimators", ())]
        if "estimators" in info.data and value not in (*OUR_ESTIMATORS, *plugins):
            raise ValueError(
                f"no such estimator. {nearest(value, (*OUR_ESTIMATORS, *plugins))} "
                "Those of plug-ins have to be listed in inference.estimators, too"
            )
        return value

    @model_validator(mode="after")
    def _the_used_estimator_is_measured(self) -> Self:
        key = ON_REQUEST.get(self.estimator)
        if key is not None and not getattr(self, key):
            raise ValueError(f"estimator: {self.estimator} needs {key} of at least 1")
        return self

    @field_validator("calibration")
    @classmethod
    def _enough_for_a_quantile(cls, value: int) -> int:
        if 0 < value < LEAST_CALIBRATION:
            raise ValueError(
                f"an interval of 90 % needs at least {LEAST_CALIBRATION} events; 0 is none"
            )
        return value

    @model_validator(mode="after")
    def _who_abstains_knows_its_error(self) -> Self:
        if self.abstain is not None and self.estimator not in UNCERTAIN:
            raise ValueError(
                f"abstain: the estimator {self.estimator} does not know its error; choose "
                f"{' or '.join(UNCERTAIN)}"
            )
        return self


class PilotConfig(Model):
    """The short run before a run that chooses the d_ij that are ``auto``."""

    rounds: Positive = 100
    widest: FixedDim = 0.5
    """d_ij of these edges in the pilot, and the most that it can choose."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Least canonical correlation of a dimension that is kept; 0.5 without a budget."""
    budget: Positive | None = None
    """Bytes of a training round, of all edges; the dimensions are those that help most."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.threshold is not None and self.budget is not None:
            raise ValueError("give either a threshold or a budget: each of them chooses all d_ij")
        return self


class EvaluationConfig(Model):
    """Measurements on events that training never saw."""

    split: Literal["test", "validation"] = "test"
    gallery: Annotated[int, Field(ge=2)] | Literal["all"] = 1000
    support: Annotated[int, Field(ge=2)] = 2000
    """Labelled training events behind prototypes, few-shot examples and the linear probe."""
    every: Positive | None = None
    """Training rounds between two evaluations; by default there is one, after the last round."""
    few_shot: tuple[Positive, ...] = (1, 5, 10)
    few_shot_draws: Positive = 10
    probe_steps: Positive = 300
    """Steps of Adam, all labelled events at once, that fit the linear probe."""
    canonical: bool = False
    """Measure the canonical correlations of the projections of every edge, in the last one."""

    @field_validator("few_shot")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a number of shots twice")
        return value


class RunConfig(Model):
    """How and where the run takes place.

    None of it changes a result but ``seed`` and, by rounding, ``device``.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    backend: Literal["ray", "local"] = "ray"
    address: str | None = None
    """A running Ray cluster to join; by default a private one is started and stopped."""
    nodes_per_actor: Positive | Literal["auto"] = "auto"
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the nodes compute: on the CPU, or each actor on one GPU."""
    gpus_per_actor: Annotated[float, Field(ge=0.0001, le=1.0)] | None = None
    """Share of a GPU that Ray reserves for an actor; by default all actors get an equal one."""
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    """Sockets between actors: Unix ones on one machine, encrypted TCP between machines."""
    ports: Annotated[str, Field(pattern=r"^[0-9]{1,5}-[0-9]{1,5}$")] | None = None
    """TCP ports that actors may listen on, one each; any free one by default."""
    stretch: Positive = 25
    """Rounds that the nodes run on their own between two reports to the coordinator."""
    deadline_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Longest wait for a neighbour's message before the round goes on without it."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 10
    """Stretches between two checkpoints; there is one after each evaluation too. 0: none at all."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often in a row actors that died are restarted, without a stretch that gets done."""
    directory: str = "runs"
    """Where a run directory is made when none is named."""
    directory_mb: Annotated[float, Field(gt=0.0)] = 1024.0
    """Most megabytes that a run directory takes; `sheafnet.runtime.keep` says what goes first."""

    @model_validator(mode="after")
    def _address_is_of_ray(self) -> Self:
        if self.address is not None and self.backend == "local":
            raise ValueError("address names a Ray cluster; the local backend cannot use it")
        return self

    @model_validator(mode="after")
    def _ports_are_of_tcp(self) -> Self:
        if self.port_range is None:
            return self
        if not (1 <= self.port_range.start < self.port_range.stop <= 65536):
            raise ValueError(
                f"ports = {self.ports}: must be a range of ports from 1 to 65535, the lower first"
            )
        if self.transport == "ipc" or self.backend == "local":
            where = "transport: ipc" if self.transport == "ipc" else "the local backend"
            raise ValueError(f"ports are of TCP sockets; {where} has none")
        return self

    @property
    def port_range(self) -> range | None:
        """``ports``, both ends included."""
        if self.ports is None:
            return None
        first, last = map(int, self.ports.split("-"))
        return range(first, last + 1)

    @model_validator(mode="after")
    def _share_is_of_a_gpu(self) -> Self:
        if self.gpus_per_actor is not None and self.device == "cpu":
            raise ValueError("gpus_per_actor reserves a share of a GPU; it needs device: cuda")
        return self


class Config(Model):
    """A whole run. Either ``graph`` or ``nodes`` and ``edges``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    dataset: Named
    method: MethodConfig = MethodConfig()
    graph: GraphConfig | None = None
    nodes: tuple[NodeConfig, ...] | None = None
    edges: tuple[EdgeConfig, ...] | None = None
    imports: tuple[str, ...] = ()
    """Python modules to import first, in every process: they may register encoders."""
    defaults: Defaults = Defaults()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    pilot: PilotConfig = PilotConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()
    faults: FaultsConfig | None = None
    """What goes wrong on purpose."""
    links: tuple[LinkConfig, ...] = ()
    """Profiles of one's own, which edges name."""

    @model_validator(mode="after")
    def _gradients_are_sheafaligns(self) -> Self:
        if self.training.exchange_gradients and self.method.name != "sheafalign":
            raise ValueError(
                f"training.exchange_gradients completes the gradient of sheafalign; "
                f"{self.method.name} has no use for it"
            )
        return self

    @model_validator(mode="after")
    def _objectives_need_neighbours(self) -> Self:
        if self.training.objective is not None and self.method.name in NOT_ALIGNED:
            raise ValueError(
                f"training.objective: under {self.method.name} a node has no projections of "
                "neighbours to take a loss of; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _estimators_need_neighbours(self) -> Self:
        for key, lacking in (
            ("diffusion_iterations", "neighbours exchange no estimates"),
            ("neural_hidden", "there is nothing to learn a dual map from"),
            ("calibration", "neighbours exchange no projections"),
        ):
            if getattr(self.inference, key) and self.method.name in NOT_ALIGNED:
                raise ValueError(
                    f"inference.{key}: under {self.method.name} {lacking}; leave it at 0"
                )
        return self

    def sheaf_factor(self, round_: int, edge_dim: int) -> float:
        """The factor of mean_b ||p_i - p_j||^2 in the loss: lambda, its warm-up, its reduction.

        Zero for every method but sheafalign: a single space has no consistency loss.
        """
        t = self.training
        if self.method.name != "sheafalign":
            return 0.0
        rise = min(1.0, round_ / t.sheaf_warmup) if t.sheaf_warmup else 1.0
        return t.sheaf_weight * rise / (edge_dim if t.sheaf_reduction == "mean" else 1)

    @model_validator(mode="after")
    def _one_graph(self) -> Self:
        listed = self.nodes is not None or self.edges is not None
        if self.graph is not None and listed:
            raise ValueError("give either graph (generated) or nodes and edges, not both")
        if self.graph is None and (self.nodes is None or self.edges is None):
            raise ValueError("give the network: graph (generated), or nodes and edges")
        return self

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose keys are all commented out is one that is not there."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None}

    @property
    def origin(self) -> Origin:
        """Where the values were given, for messages."""
        return self._origin if self._origin.source else Origin(self.name)

    def fault(self, message: str, *key: str | int) -> ConfigError:
        """An error about the value at `key`, to be raised, that says where it was given."""
        return ConfigError(f"{self.origin.locate(*key)}: {message}")


ConfigSource = str | Path | Mapping[str, Any]
"""A YAML file, the name of a shipped topology, or the keys and values of such a file."""


def load_config(source: ConfigSource, overrides: Sequence[str] = ()) -> Config:
    """Take the values of `source`, apply overrides of the form ``a.b=c``, and validate.

    Args:
        source: a YAML file; the name of a shipped topology, as ``ring``; or a mapping of the same
            keys and values made in Python, which stays as it is.
        overrides: one key each.

    Raises:
        ConfigError: the file is missing or no YAML, an override is malformed, or a value is wrong;
            names file, line, key and value and says what would be right.
    """
    if isinstance(source, Mapping):
        values, origin = take(source, overrides)
    else:
        values, origin = read(find(source), overrides)
    config = check_model(Config, values, source=origin)
    config._origin = origin
    return config
