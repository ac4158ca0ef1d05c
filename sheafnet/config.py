"""The YAML of a run as frozen models: what may be said, its defaults and its bounds.

``load_config`` reads a file, applies ``a.b=c`` overrides and validates. Every error is a
`ConfigError` that names file, line, key and value and says what would be right. What only a
registry can know (options of a data set or of an encoder) is kept as given in ``options`` and is
checked by that registry with `check_model`.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from sheafnet.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "float16", "bfloat16", "int8"]
EstimatorName = Literal["mean", "ridge", "zero", "train-mean"]


def _comparison_dim(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            "must be a whole number of dimensions from 1, or a fraction above 0.0 and at most 1.0"
        ) from None


ComparisonDim = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0.0, le=1.0)],
    WrapValidator(_comparison_dim),
]


class Model(BaseModel):
    """Base of every configuration model: frozen, and no key that nothing reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if bool not in (annotation, *get_args(annotation)) and any(
            isinstance(part, bool) for part in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(
                "true or false does not belong here (YAML reads a bare yes, no, on and off as "
                "that; put quotes round text)"
            )
        return value


class Named(Model):
    """A registered thing by name; its further keys are the options of that thing."""

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


class NodeDefaults(Model):
    """What a node is unless it says otherwise."""

    modality: str | None = None
    encoder: Named = Named(name="mlp")
    embedding_dim: Positive = 64


class EdgeDefaults(Model):
    """What an edge is unless it says otherwise."""

    comparison_dim: ComparisonDim = 0.5


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

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"between": value} if isinstance(value, list | tuple) else value


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
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    temperature: Annotated[float, Field(gt=0.0)] = 0.1
    sheaf_weight: Annotated[float, Field(ge=0.0)] = 1.0
    sheaf_reduction: Literal["mean", "sum"] = "mean"
    """How ‖p_i − p_j‖² is reduced over the d_ij dimensions: ``sum`` is the paper's."""
    sheaf_warmup: Annotated[int, Field(ge=0)] = 0
    """Rounds over which the sheaf weight rises linearly from 0."""
    contrastive_weight: Annotated[float, Field(ge=0.0)] = 1.0
    reconstruction_weight: Annotated[float, Field(ge=0.0)] = 0.1
    reconstruction: Literal["neighbour", "inverse"] = "neighbour"
    """Rebuild h_i from the neighbour's projection (as in inference) or from its own."""
    reconstruction_gradient: Literal["dual", "full"] = "dual"
    """``dual``: only Q learns from L_recon; ``full``: the encoder too."""
    exchange_gradients: bool = False
    """Return ∂L_recon/∂p_j to the neighbour: the exact joint gradient, at twice the bytes."""
    wire_dtype: Dtype = "float32"

    def sheaf_factor(self, round_: int, edge_dim: int) -> float:
        """The factor of mean_b ||p_i - p_j||^2 in the loss: lambda, its warm-up, its reduction."""
        rise = min(1.0, round_ / self.sheaf_warmup) if self.sheaf_warmup else 1.0
        return self.sheaf_weight * rise / (edge_dim if self.sheaf_reduction == "mean" else 1)

    @model_validator(mode="after")
    def _exchange_needs_full(self) -> Self:
        if self.exchange_gradients and (
            self.reconstruction_gradient != "full" or self.reconstruction != "neighbour"
        ):
            raise ValueError(
                "exchange_gradients has nothing to send: it needs "
                "reconstruction_gradient: full and reconstruction: neighbour"
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
    estimator: EstimatorName = "ridge"
    """The estimator that the network uses; the others are measured on the same messages."""
    ridge: Annotated[float, Field(gt=0.0)] = 1e-3
    """Regularization, relative to the mean variance of the projections."""
    dual_map: Literal["learned", "fitted"] = "fitted"
    """Q of the ``mean`` estimator: learned by L_recon, or its closed form from the moments."""
    wire_dtype: Dtype = "float32"


class EvaluationConfig(Model):
    """Measurements on events that training never saw."""

    split: Literal["test", "validation"] = "test"
    gallery: Annotated[int, Field(ge=2)] | Literal["all"] = 1000
    support: Annotated[int, Field(ge=2)] = 2000
    """Labelled training events behind prototypes, few-shot examples and the linear probe."""
    few_shot: tuple[Positive, ...] = (1, 5, 10)
    few_shot_draws: Positive = 10

    @field_validator("few_shot")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a number of shots twice")
        return value


class RunConfig(Model):
    """How and where the run takes place; none of it changes a result but ``seed``."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    backend: Literal["ray", "local"] = "ray"
    address: str | None = None
    """A running Ray cluster to join; by default a private one is started and stopped."""
    nodes_per_actor: Positive | Literal["auto"] = "auto"
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    """Sockets between actors: Unix ones on one machine, encrypted TCP between machines."""
    stretch: Positive = 25
    """Rounds that the nodes run on their own between two reports to the coordinator."""
    deadline_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Longest wait for a neighbour's message before the round goes on without it."""
    directory: str = "runs"
    """Where a run directory is made when none is named."""


class Config(Model):
    """A whole run. Either ``graph`` or ``nodes`` and ``edges``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    dataset: Named
    method: Literal["sheafalign"] = "sheafalign"
    graph: GraphConfig | None = None
    nodes: tuple[NodeConfig, ...] | None = None
    edges: tuple[EdgeConfig, ...] | None = None
    defaults: Defaults = Defaults()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _one_graph(self) -> Self:
        listed = self.nodes is not None or self.edges is not None
        if self.graph is not None and listed:
            raise ValueError("give either graph (generated) or nodes and edges, not both")
        if self.graph is None and (self.nodes is None or self.edges is None):
            raise ValueError("give the network: graph (generated), or nodes and edges")
        return self


M = TypeVar("M", bound=BaseModel)
Path_ = tuple[str | int, ...]


def check_model(
    model: type[M],
    values: Mapping[str, Any],
    *,
    source: str = "configuration",
    prefix: Path_ = (),
    lines: Mapping[Path_, int] | None = None,
    origins: Mapping[Path_, str] | None = None,
) -> M:
    """Validate `values` as `model`.

    Args:
        model: what to validate as.
        values: the keys and values.
        source: where they come from, for the message.
        prefix: the key under which `values` stands.
        lines: line in `source` of each key, where known.
        origins: where single keys come from instead of `source`.

    Raises:
        ConfigError: naming `source`, line (where known), the whole key, the value and the remedy;
            an unknown key comes with the nearest valid one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [
            _problem(model, detail, _where(source, lines or {}, origins or {}), prefix)
            for detail in _one_per_key(error.errors(include_url=False))
        ]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML at `path`, apply overrides of the form ``a.b=c``, and validate.

    Raises:
        ConfigError: the file is missing or no YAML, an override is malformed, or a value is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            path.name, [p.name for p in sorted(path.parent.glob("*.y*ml"))], n=1
        )
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such file.{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values, lines = _parse_yaml(text, str(path))
    origins: dict[Path_, str] = {}
    for override in overrides:
        for key in _apply_override(values, override):
            for replaced in [k for k in origins if len(k) > len(key) and k[: len(key)] == key]:
                del origins[replaced]
            origins[key] = f"--set {override}"
    return check_model(Config, values, source=str(path), lines=lines, origins=origins)


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence that lists what is known and names the nearest to `name`."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(known)}."


def _parse_yaml(text: str, source: str) -> tuple[dict[str, Any], dict[Path_, int]]:
    lines: dict[Path_, int] = {}
    walked: set[int] = set()
    """Nodes that need no second walk: behind aliases it would take exponential time."""
    open_: set[int] = set()

    def walk(node: yaml.Node, path: Path_) -> None:
        lines[path] = node.start_mark.line + 1
        if id(node) in open_:
            raise ConfigError(f"{source}:{lines[path]}: an alias stands for what contains it.")
        if id(node) in walked:
            return
        walked.add(id(node))
        open_.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                line, name = key.start_mark.line + 1, str(key.value)
                if key.tag not in {_TEXT, _MERGE}:
                    what = f"the key {name}" if isinstance(key, yaml.ScalarNode) else "a key"
                    raise ConfigError(f"{source}:{line}: {what} is no text; put it in quotes.")
                if key.tag == _MERGE and isinstance(value, yaml.SequenceNode):
                    # PyYAML copies every mapping of the list: nested, that takes exponential time.
                    raise ConfigError(f"{source}:{line}: '<<' takes one mapping, not a list.")
                if name in seen:
                    raise ConfigError(
                        f"{source}:{line}: the key {name!r} stands twice; keep one of them."
                    )
                seen.add(name)
                walk(value, (*path, name))
                lines[(*path, name)] = line
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*path, index))
        open_.discard(id(node))

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            walk(root, ())
        values = _construct(text)
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply for a topology.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}: this is not YAML: {what}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: a topology is a mapping of keys; this is {_kind(values)}.")
    return values, lines


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def _construct(text: str) -> Any:
    """The values of a YAML text of plain types.

    Raises:
        yaml.YAMLError: it is no YAML, or a scalar has not the form of its type (2020-13-45), for
            which PyYAML lets other exceptions through.
    """
    try:
        return yaml.safe_load(text)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, yaml.YAMLError):
            raise
        raise yaml.YAMLError(f"a value has not the form of its type ({error})") from None


def _kind(value: object) -> str:
    return {"NoneType": "empty", "str": "one text", "list": "a list"}.get(
        type(value).__name__, "one value"
    )


def _where(
    source: str, lines: Mapping[Path_, int], origins: Mapping[Path_, str]
) -> Callable[[Path_], str]:
    """Says where the value of a key was given."""

    def where(key: Path_) -> str:
        above = [key[:n] for n in range(len(key), 0, -1)]
        nearest_ = next((origins[k] for k in above if k in origins), None)
        below = [o for k, o in origins.items() if len(k) > len(key) and k[: len(key)] == key]
        if nearest_ is not None:
            return " ".join(dict.fromkeys([nearest_, *below]))
        if below:
            return f"{source} with {' '.join(dict.fromkeys(below))}"
        line = next((lines[k] for k in above if k in lines), None)
        return source if line is None else f"{source}:{line}"

    return where


def _apply_override(values: dict[str, Any], override: str) -> list[Path_]:
    """Set one key of `values`; returns its path, after that of the parent that it made, if any."""
    key, separator, text = override.partition("=")
    if not separator or not key or not all(key.split(".")):
        raise ConfigError(
            f"--set {override}: must be key=value, as in --set training.temperature=0.2"
        )
    try:
        value = _construct(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value.") from None
    left = key.split(".")
    at: Any = values
    path: Path_ = ()
    made: list[Path_] = []
    while True:
        part = left.pop(0)
        step: Any = _index(at, part, override) if isinstance(at, list) else part
        path = (*path, step)
        if not left:
            at[step] = value
            return [*made, path]
        child = at[step] if isinstance(at, list) else at.get(step)
        if child is None:
            child = {}
            made = made or [path]
        if path[:-1] == ("edges",) and isinstance(child, list) and left[0].isdecimal():
            left.insert(0, "between")
        # A copy, since an alias may stand for the same object elsewhere in the file.
        at[step] = at = copy(_long_form(child, path))
        if not isinstance(at, dict | list):
            here = ".".join(map(str, path))
            raise ConfigError(f"--set {override}: {here} is a value, it has no keys.")


def _long_form(value: Any, path: Path_) -> Any:
    """A data set, encoder, node or edge in its short form as the mapping that it stands for."""
    if isinstance(value, str):
        if path[-1] in {"dataset", "encoder"}:
            return {"name": value}
        if path[:-1] == ("nodes",):
            return {"id": value}
    if isinstance(value, list) and path[:-1] == ("edges",):
        return {"between": value}
    return value


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        bound = f"must be a position from 0 to {len(items) - 1}" if items else "is in an empty list"
        raise ConfigError(f"--set {override}: {part!r} {bound}.")
    return int(part)


def _one_per_key(errors: Sequence[Any]) -> list[Any]:
    """Pydantic reports every branch of a union; a user needs one problem per key."""
    branches: dict[Path_, list[Any]] = {}
    for error in errors:
        branches.setdefault(_key_path(error), []).append(error)
    return [_joined(group) for group in branches.values()]


def _joined(branches: list[Any]) -> Any:
    """The errors of all branches of a union as one that offers each of them."""
    if len(branches) == 1:
        return branches[0]
    offers = []
    for error in branches:
        offer = error["msg"].removeprefix("Input should be ")
        offers.append(offer if error["type"] == "literal_error" else offer.partition(", ")[0])
    return {**branches[0], "msg": "Input should be " + " or ".join(dict.fromkeys(offers))}


_BRANCHES = {"int", "float", "constrained-int", "constrained-float"}


def _key_path(error: Any) -> Path_:
    """The keys of an error's location without pydantic's names of union branches."""
    location: Path_ = error["loc"]
    own = 1 if error["type"] == "extra_forbidden" else 0  # the user's own key, whatever it is
    within = location[: len(location) - own]
    return (
        tuple(
            part
            for part in within
            if not (isinstance(part, str) and (part in _BRANCHES or "[" in part))
        )
        + location[len(within) :]
    )


def _problem(
    model: type[BaseModel],
    detail: Any,
    locate: Callable[[Path_], str],
    prefix: Path_,
) -> str:
    path = _key_path(detail)
    whole = (*prefix, *path)
    where = locate(whole)
    key = ".".join(str(part) for part in whole)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return f"{where}: {key}: unknown key. {nearest(str(path[-1]), known)}"
    if detail["type"] == "missing":
        return f"{where}: {key}: is missing and has no default."
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "model_type":
        message = f"needs keys below it: {', '.join(_fields_at(model, path))}"
    message = message[0].lower() + message[1:]
    if not path and not prefix:
        return f"{where}: {message}."
    given = detail["input"]
    shown = f" = {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {key}{shown}: {message}."


def _fields_at(model: type[BaseModel], path: Path_) -> list[str]:
    """Names of the keys that are allowed at `path` below `model`."""
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        current = _model_in(annotation)
        if current is None:
            return []
    return list(current.model_fields)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
