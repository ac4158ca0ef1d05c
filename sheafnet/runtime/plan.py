"""What a run will do, worked out and checked before anything starts.

A `Plan` joins configuration, graph, method and data set, refuses what cannot work, cuts the run
into stretches that the nodes run on their own, and says what each channel may carry. It needs no
torch, so that the command line and the coordinator start fast, and every process builds it anew
from the configuration.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sheafnet.config import LEAST_CALIBRATION, Config
from sheafnet.datasets import open_dataset
from sheafnet.datasets.base import Dataset, Split
from sheafnet.method import Method
from sheafnet.network.channel import Limits
from sheafnet.network.frame import MAX_FRAME_BYTES, Kind, Phase, run_tag
from sheafnet.network.links import Links
from sheafnet.network.radio import Radio
from sheafnet.nodes.encoders import check_encoder
from sheafnet.nodes.events import calibration_size, evaluation_points, gallery_size
from sheafnet.nodes.objective_kind import open_objective
from sheafnet.plugins import problem_of_import
from sheafnet.runtime.floor import Floor, wire_dtype
from sheafnet.runtime.placement import apportion, place
from sheafnet.seeds import derive
from sheafnet.sheaf.estimator_kind import open_estimators
from sheafnet.topology import Topology, build_topology
from sheafnet.validation import nearest

LITERAL_NODES = 8
"""Up to this many nodes ``nodes_per_actor: auto`` gives every node its own actor."""


@dataclass(frozen=True)
class Stretch:
    """Rounds `first` to `first + rounds - 1` of a phase, run without the coordinator."""

    phase: Phase
    first: int
    rounds: int
    checkpoint: int | None = None
    """Under which number the hosts keep what their nodes have learned at its end, if they do."""


@dataclass(frozen=True)
class Plan:
    """A checked run."""

    config: Config
    method: Method
    dataset: Dataset
    links: Links | None = None
    """What goes wrong on purpose; None where nothing does."""
    radio: Radio | None = None
    """What time and energy the links take; None where none has a profile."""

    @property
    def topology(self) -> Topology:
        """The graph of the observations."""
        return self.method.topology

    @classmethod
    def open(cls, config: Config, topology: Topology | None = None) -> "Plan":
        """Check `config` as a whole.

        `topology` is that of `config` where somebody has built it before.

        Raises:
            ConfigError: graph, encoder, modality or sizes do not fit together, a module of
                ``imports`` cannot be imported, or ``faults`` or ``link`` names what is not there.
            DatasetError: the data set is unknown or its files cannot be used.
            PluginError: code of others that it names fails.
        """
        for problem in filter(None, map(problem_of_import, config.imports)):
            raise config.fault(problem, "imports")
        method = Method.open(config, topology or build_topology(config))
        topology = method.topology
        dataset = open_dataset(config, topology)
        for node in topology.nodes:
            check_encoder(
                node.encoder,
                dataset.source(node.index).shape,
                f"{config.origin.source}: node {node.id}",
            )
        open_objective(config)
        open_estimators(config)
        _check_rows(config, dataset)
        _check_classes(config, dataset)
        known = [node.id for node in topology.nodes]
        for name in config.inference.missing_nodes or ():
            if name not in known:
                raise config.fault(
                    f"inference.missing_nodes: no node is called {name!r}. {nearest(name, known)}",
                    "inference",
                    "missing_nodes",
                )
        links = Links.open(config, method.network)
        plan = cls(config, method, dataset, links, Radio.open(config, method.network))
        plan._check_frames()
        return plan

    def stretches(self) -> Iterator[Stretch]:
        """The run in order: training, with an evaluation after each of its parts, inference."""
        every = self.config.run.checkpoint_every
        for number, stretch in enumerate(self._all(), start=1):
            due = every and (number % every == 0 or stretch.phase == "evaluation")
            yield replace(stretch, checkpoint=number) if due else stretch

    def _all(self) -> Iterator[Stretch]:
        done = 0
        for number, point in enumerate(evaluation_points(self.config)):
            yield from self._cut("train", done, point)
            yield Stretch("evaluation", number, 1)
            done = point
        yield from self._cut("calibration", 0, self.rounds("calibration"))
        yield from self._cut("inference", 0, self.config.inference.rounds)

    def _cut(self, phase: Phase, first: int, end: int) -> Iterator[Stretch]:
        size = self.config.run.stretch
        for start in range(first, end, size):
            yield Stretch(phase, start, min(size, end - start))

    def rounds(self, phase: Phase) -> int:
        """Rounds of `phase` in the whole run."""
        training, inference = self.config.training.rounds, self.config.inference.rounds
        return {
            "train": training,
            "evaluation": len(evaluation_points(self.config)),
            "calibration": int(self.calibrates),
            "inference": inference,
        }[phase]

    @property
    def calibrates(self) -> bool:
        """Whether neighbours exchange projections to calibrate the intervals of estimates."""
        return bool(self.config.inference.calibration and self.config.inference.rounds)

    def limits(self, run: str) -> Limits:
        """What every edge may carry in the run called `run`."""
        training, inference = self.config.training, self.config.inference
        rows = {
            Kind.PROJECTION: training.batch_size,
            Kind.GALLERY: gallery_size(self.config, self.dataset),
            Kind.PROTOTYPES: self.dataset.classes,
            Kind.REQUEST: inference.batch_size,
            Kind.ANSWER: inference.batch_size,
        }
        if training.exchange_gradients or self.method.fuses:
            rows[Kind.GRADIENT] = training.batch_size
        if inference.diffusion_iterations:
            rows[Kind.ESTIMATE] = inference.batch_size
        if self.calibrates:
            rows[Kind.CALIBRATION] = calibration_size(self.config, self.dataset)
        dtypes = {kind: wire_dtype(self.config, kind.phase) for kind in rows}
        seed, stochastic = self.config.run.seed, training.wire_rounding == "stochastic"
        drawn = {kind: seed for kind in rows if stochastic and kind.phase == "train"}
        tag = run_tag(derive(seed, "run", run))
        return Limits(tag, rows, dtypes, inference.diffusion_iterations, drawn)

    def floor(self, phase: Phase) -> dict[tuple[int, int], int]:
        """Fewest payload bytes that `phase` can take, per (channel, direction)."""
        return Floor(self.config, self.method, self.dataset).of(phase)

    def _check_frames(self) -> None:
        """Refuse what would not fit into one frame."""
        widest = max(edge.dim for edge in self.method.network.edges)
        largest = max(self.limits("").rows.values()) * widest * 4
        if largest > MAX_FRAME_BYTES // 2:
            raise self.config.fault(
                f"a message of {largest:,} bytes; at most {MAX_FRAME_BYTES // 2:,} fit into one. "
                "Choose a smaller evaluation.gallery, batch_size or comparison_dim."
            )

    def placement(
        self, cores: Sequence[int], nodes_per_actor: int | None = None
    ) -> list[list[list[int]]]:
        """The nodes of every host of every machine; neighbours mostly share one.

        ``auto`` is one node an actor for small networks and one actor per core for larger ones.

        Args:
            cores: of each machine, above zero; it gets its share of the hosts in proportion.
            nodes_per_actor: instead of the configured one.
        """
        count = len(self.topology.nodes)
        chosen = nodes_per_actor or self.config.run.nodes_per_actor
        if chosen != "auto":
            hosts = -(-count // chosen)
        else:
            hosts = count if count <= LITERAL_NODES else min(count, sum(cores))
        return place(self.method.network, apportion(hosts, cores))


def _check_rows(config: Config, dataset: Dataset) -> None:
    have = dataset.distinct("train")
    split = config.evaluation.split
    size = dataset.size(split) or 0
    if config.training.batch_size > have:
        raise config.fault(
            f"training.batch_size = {config.training.batch_size}: the data set has {have} "
            f"training events; choose at most {have}.",
            "training",
            "batch_size",
        )
    remembered = config.training.memory * config.training.batch_size
    if remembered >= have:
        raise config.fault(
            f"training.memory = {config.training.memory}: {remembered:,} events of earlier rounds, "
            f"but the data set has {have:,} training events; choose at most "
            f"{(have - 1) // config.training.batch_size}.",
            "training",
            "memory",
        )
    if size < 2:
        raise config.fault(
            f"evaluation.split = {split!r}: it has {size} events; retrieval needs at least 2.",
            "evaluation",
            "split",
        )
    unseen = dataset.size("validation") or 0
    if config.inference.calibration and unseen < LEAST_CALIBRATION:
        raise config.fault(
            f"inference.calibration = {config.inference.calibration}: the validation split has "
            f"{unseen} events; an interval of 90 % needs at least {LEAST_CALIBRATION}.",
            "inference",
            "calibration",
        )
    if config.inference.batch_size > size:
        raise config.fault(
            f"inference.batch_size = {config.inference.batch_size}: the {split} split has {size} "
            f"events; choose at most {size}.",
            "inference",
            "batch_size",
        )


def _check_classes(config: Config, dataset: Dataset) -> None:
    """Refuse a split in which a class does not occur: its accuracy would be of another task."""
    if dataset.labels_per_edge:
        return
    source = dataset.source(0)
    splits: tuple[Split, ...] = ("train", config.evaluation.split)
    for split in splits:
        events = np.arange(dataset.distinct(split), dtype=np.int64)
        found = set(source.labels(split, events, 0).tolist())
        lacking = sorted(set(range(dataset.classes)) - found)
        if lacking:
            raise config.fault(
                f"dataset {config.dataset.name}: the {split} split has {len(found)} of "
                f"{dataset.classes} classes; class {lacking[0]} does not occur. Assign some of "
                "its events to that split, or leave the class out.",
                "dataset",
            )
