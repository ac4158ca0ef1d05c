"""Scaling: the same network at several sizes, on actors, and what each size costs.

Sizes run one after the other, each in a fresh process, since their times are what is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from sheafnet.config import GraphConfig, load_config
from sheafnet.document import read
from sheafnet.errors import ConfigError
from sheafnet.shipped import find
from sheafnet.studies.cells import TIMED, Cell, CellResult, read_cells
from sheafnet.studies.folder import StudyFolder, default_folder
from sheafnet.studies.growth import exponent, fitted_sizes
from sheafnet.studies.round_cost import PHASES, RoundCost, TimedPhase
from sheafnet.studies.running import CellRunner, Failure, OnStudyProgress, Outcome
from sheafnet.validation import nearest
from sheafnet.version import __version__

SCHEMA = 1
BASE = Path(__file__).with_name("scale.yaml")
"""The network unless another is named."""
SIZES = "4,16,64,256,1024"
ROUNDS = 16
REFERENCE = 64
"""The size that others are compared with, where it is among them; else the smallest is."""
KINDS: tuple[str, ...] = get_args(GraphConfig.model_fields["generator"].annotation)
WITH_DEGREE = ("knn", "random-regular", "small-world")
STRETCHES = 4
"""A phase runs in so many stretches; the first is a warm-up."""
_OPTIONS = {
    "graph": "--topology-kind, --nodes and --degree",
    "graph.generator": "--topology-kind",
    "graph.nodes": "--nodes",
    "graph.degree": "--degree",
    "training.rounds": "--rounds",
    "inference.rounds": "--inference-rounds",
}
_FIXED = ("run.backend", "run.nodes_per_actor")


@dataclass(frozen=True)
class Size:
    """One size of the network and what it cost."""

    nodes: int
    degree: int | None
    """None for kinds of graph without one."""
    edges: int
    hosts: int
    """Processes that held nodes."""
    startup_s: float
    """From the call until all hosts were connected."""
    wall_s: float
    memory_mb: float
    """Of all hosts together, in 10^6 bytes."""
    train: RoundCost | None
    inference: RoundCost | None

    @classmethod
    def of(cls, result: CellResult, degree: int | None) -> "Size":
        """From what is kept of a run."""
        summary = result.summary
        return cls(
            nodes=summary.nodes,
            degree=degree,
            edges=summary.edges,
            hosts=summary.actors,
            startup_s=summary.timing.startup_s,
            wall_s=summary.timing.wall_s,
            memory_mb=summary.memory.actor_mb * summary.actors,
            train=RoundCost.of(result, "train"),
            inference=RoundCost.of(result, "inference"),
        )

    def cost(self, phase: TimedPhase) -> RoundCost | None:
        """Of a round of `phase`."""
        return self.train if phase == "train" else self.inference

    def figure(self, name: str) -> float | None:
        """One of `GROWING`, as ``train.bytes``."""
        phase, _, field = name.partition(".")
        cost = self.cost("train" if phase == "train" else "inference")
        return None if cost is None else float(getattr(cost, field))


GROWING = tuple(f"{p}.{name}" for p in PHASES for name in ("round_ms", "bytes", "messages"))
"""The costs whose growth is fitted."""


@dataclass(frozen=True)
class Growth:
    """The exponents b of cost ~ x^b, x being nodes, edges or the degree, the rest held."""

    against: Literal["nodes", "edges", "degree"]
    over: tuple[int, ...]
    """The numbers of nodes that were fitted, or the degrees."""
    held: int | None
    """The degree, or the number of nodes, that is the same for all of them."""
    exponents: dict[str, float | None]
    """By names of `GROWING`."""


@dataclass(frozen=True)
class Scale:
    """What a scaling study measured."""

    topology: str
    kind: str
    sizes: tuple[Size, ...]
    """By degree, then by nodes; those that failed are left out."""
    failures: tuple[Failure, ...]
    folder: Path

    @cached_property
    def series(self) -> dict[int | None, tuple[Size, ...]]:
        """The sizes of each degree, ascending."""
        degrees = dict.fromkeys(size.degree for size in self.sizes)
        return {d: tuple(s for s in self.sizes if s.degree == d) for d in degrees}

    def reference(self, size: Size) -> Size:
        """What `size` is compared with: the named size of the same degree."""
        alike = self.series[size.degree]
        return next((other for other in alike if other.nodes == REFERENCE), alike[0])

    def ratio(self, size: Size, phase: TimedPhase) -> float | None:
        """Time of a node's round over that at the reference."""
        own, other = size.cost(phase), self.reference(size).cost(phase)
        return None if own is None or other is None else own.node_round_ms / other.node_round_ms

    def memory_from(self, size: Size) -> Size | None:
        """The smallest size of the same degree with as many hosts; None where `size` is it."""
        alike = [other for other in self.series[size.degree] if other.hosts == size.hosts]
        return alike[0] if alike[0].nodes < size.nodes else None

    def node_mb(self, size: Size) -> float | None:
        """Memory of a node beyond the hosts: the slope against `memory_from`."""
        least = self.memory_from(size)
        if least is None:
            return None
        return (size.memory_mb - least.memory_mb) / (size.nodes - least.nodes)

    @cached_property
    def growth(self) -> tuple[Growth, ...]:
        """Every exponent that the sizes allow."""
        return tuple(g for g in self._fits() if len(g.over) > 1)

    def _fits(self) -> Iterator[Growth]:
        for degree, sizes in self.series.items():
            fitted = fitted_sizes([size.nodes for size in sizes])
            used = [size for size in sizes if size.nodes in fitted]
            yield _fit("nodes", fitted, degree, used)
            yield _fit("edges", fitted, degree, used)
        for nodes in fitted_sizes([size.nodes for size in self.sizes]):
            used = [s for s in self.sizes if s.nodes == nodes and s.degree is not None]
            yield _fit("degree", tuple(s.degree for s in used if s.degree), nodes, used)

    def rows(self) -> list[dict[str, Any]]:
        """A row per size; the costs of a phase begin with its name."""
        return [self._row(size) for size in self.sizes]

    def _row(self, size: Size) -> dict[str, Any]:
        least = self.memory_from(size)
        row = {"kind": self.kind} | asdict(replace(size, train=None, inference=None))
        del row["train"], row["inference"]
        row |= {"node_mb": self.node_mb(size), "memory_from_nodes": least and least.nodes}
        row |= {"reference_nodes": self.reference(size).nodes}
        for phase in PHASES:
            cost = size.cost(phase)
            for name in RoundCost.__dataclass_fields__:
                row[f"{phase}_{name}"] = None if cost is None else getattr(cost, name)
            row[f"{phase}_node_round_ratio"] = self.ratio(size, phase)
        return row

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "sheafnet": __version__,
            "topology": self.topology,
            "kind": self.kind,
            "sizes": self.rows(),
            "growth": [asdict(growth) for growth in self.growth],
            "failures": [asdict(failure) for failure in self.failures],
        }


def _fit(
    against: Literal["nodes", "edges", "degree"],
    over: tuple[int, ...],
    held: int | None,
    sizes: Sequence[Size],
) -> Growth:
    exponents = {
        name: exponent([(getattr(size, against), size.figure(name)) for size in sizes])
        for name in GROWING
    }
    return Growth(against, over, held, exponents)


def scale(
    nodes: str = SIZES,
    *,
    kind: str = "ring",
    degree: str | None = None,
    topology: str | Path | None = None,
    rounds: int = ROUNDS,
    inference_rounds: int = ROUNDS,
    overrides: Sequence[str] = (),
    study: str | Path | None = None,
    on_progress: OnStudyProgress | None = None,
) -> Scale:
    """Run the network at every size (and degree), one after the other, on actors.

    Args:
        nodes: the sizes, separated by commas.
        kind: of the graph: a generator.
        degree: of kinds that have one, separated by commas; by default 4.
        topology: a YAML whose graph is replaced; by default a network of small cameras.
        rounds: training rounds of every size.
        inference_rounds: rounds of missing-modality inference of every size.
        overrides: of the form ``a.b=c``, for all sizes.
        study: the folder that keeps what was measured; by default ``studies/<name>``. What
            stands there already is not measured again.
        on_progress: called after every size.

    Returns:
        What every size cost. Sizes that failed are among its failures.

    Raises:
        InputError: something cannot be run as asked; then nothing was run.
        Interrupted: Ctrl-C; finished sizes stay in the study's folder.
    """
    sizes, degrees = read_counts(nodes, "--nodes", 1), _degrees(kind, degree)
    _refuse_set(overrides)
    base = BASE if topology is None else topology
    _refuse_listed(base)
    phases = _rounds(rounds, inference_rounds)
    cells = {
        (size, chosen): _cell(base, kind, size, chosen, phases, overrides)
        for size in sizes
        for chosen in degrees
    }
    for (size, chosen), cell in cells.items():
        _check_graph(cell, kind, size, chosen)
    name = next(iter(cells.values())).config.name
    folder = StudyFolder(study if study is not None else default_folder(name))
    runner = CellRunner(folder, 1, on_progress and _without_forecast(on_progress))
    found = runner(list(cells.values()), "scale")
    return Scale(
        topology=name,
        kind=kind,
        sizes=_finished(cells, found),
        failures=tuple(o for o in found.values() if isinstance(o, Failure)),
        folder=folder.path,
    )


def read_counts(text: str, option: str, least: int) -> tuple[int, ...]:
    """Whole numbers between commas, ascending.

    Raises:
        ConfigError: one is none, below `least`, or stands twice.
    """
    found: list[int] = []
    for part in text.split(","):
        typed = part.strip()
        if not (typed.isascii() and typed.isdecimal()) or int(typed) < least:
            raise ConfigError(
                f"{option} {text}: {typed!r} is no whole number from {least} on; write them as "
                f"in {option} 4,16"
            )
        if int(typed) in found:
            raise ConfigError(f"{option} {text}: {typed} stands twice; keep one of them.")
        found.append(int(typed))
    return tuple(sorted(found))


def _degrees(kind: str, given: str | None) -> tuple[int | None, ...]:
    if kind not in KINDS:
        raise ConfigError(f"--topology-kind {kind}: no such graph. {nearest(kind, KINDS)}")
    if kind in WITH_DEGREE:
        default: int = GraphConfig.model_fields["degree"].default
        return (default,) if given is None else read_counts(given, "--degree", 2)
    if given is not None:
        raise ConfigError(
            f"--degree {given}: a {kind} has no degree to choose; {', '.join(WITH_DEGREE[:-1])} "
            f"and {WITH_DEGREE[-1]} have one."
        )
    return (None,)


def _refuse_set(overrides: Sequence[str]) -> None:
    """Refuse overrides of what the study sets itself."""
    for override in overrides:
        key = override.partition("=")[0]
        if key in _OPTIONS:
            raise ConfigError(f"--set {override}: {key} is set by {_OPTIONS[key]}.")
        if key in _FIXED:
            raise ConfigError(
                f"--set {override}: {key} is fixed in a scaling study, which measures actors, "
                "placed as nodes_per_actor: auto places them. Leave it out."
            )
        if key.split(".")[0] in {"nodes", "edges"}:
            raise ConfigError(
                f"--set {override}: a scaling study generates its nodes and edges; set "
                "defaults.node or defaults.edge."
            )


def _refuse_listed(topology: str | Path) -> None:
    values, origin = read(find(topology))
    for key in ("nodes", "edges"):
        if values.get(key) is not None:
            raise ConfigError(
                f"{origin.locate(key)}: {key}: a scaling study generates its nodes and edges. "
                "Leave both lists out of the file, and say in defaults what all nodes and edges "
                "have in common."
            )


def _rounds(rounds: int, inference_rounds: int) -> list[str]:
    """Overrides: the rounds of both phases, after the length of a stretch."""
    if rounds < 1:
        raise ConfigError(f"--rounds {rounds}: a scaling study takes at least one.")
    if inference_rounds < 0:
        raise ConfigError(f"--inference-rounds {inference_rounds}: must be 0 or more.")
    shorter = min(rounds, inference_rounds or rounds)
    return [
        f"run.stretch={max(1, shorter // STRETCHES)}",
        f"training.rounds={rounds}",
        f"inference.rounds={inference_rounds}",
    ]


def _cell(
    base: str | Path,
    kind: str,
    nodes: int,
    degree: int | None,
    phases: Sequence[str],
    overrides: Sequence[str],
) -> Cell:
    of_degree = "" if degree is None else f", degree: {degree}"
    graph = f"graph={{generator: {kind}, nodes: {nodes}{of_degree}}}"
    stretch, *rounds = phases
    given = [graph, stretch, *overrides, *rounds]
    seed = load_config(base, given).run.seed
    return read_cells(base, given, [seed], TIMED)[0]


def _check_graph(cell: Cell, kind: str, nodes: int, degree: int | None) -> None:
    from sheafnet.graphs import generate_graph

    assert cell.config.graph is not None
    try:
        generate_graph(cell.config.graph)
    except ConfigError as error:
        of_degree = "" if degree is None else f" --degree {degree}"
        raise ConfigError(f"--nodes {nodes} --topology-kind {kind}{of_degree}: {error}") from None


def _finished(
    cells: dict[tuple[int, int | None], Cell], found: dict[str, Outcome]
) -> tuple[Size, ...]:
    sizes = [
        Size.of(result, degree)
        for (_, degree), cell in cells.items()
        if isinstance(result := found[cell.key], CellResult)
    ]
    return tuple(sorted(sizes, key=lambda size: (size.degree or 0, size.nodes)))


def _without_forecast(on_progress: OnStudyProgress) -> OnStudyProgress:
    """Large sizes take longer than small ones: what these took foretells nothing."""
    return lambda progress: on_progress(replace(progress, seconds_left=None))
