"""What a run will do, worked out and checked before anything starts.

A `Plan` joins configuration, topology and data set, refuses what cannot work, cuts the run into
stretches that the nodes run on their own, says what each edge may carry, and computes the analytic
floor of bytes without looking at any message. It needs no torch, so that the command line and the
coordinator start fast, and every process builds it anew from the configuration.
"""

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sheafnet.config import Config
from sheafnet.datasets import open_dataset
from sheafnet.datasets.base import Dataset
from sheafnet.network.channel import Limits
from sheafnet.network.frame import MAX_FRAME_BYTES, PHASES, Kind, Mask, Phase, run_tag
from sheafnet.network.payload import WireDtype, payload_bytes
from sheafnet.nodes.encoders import check_encoder
from sheafnet.nodes.events import gallery_size, missing_rows, support_size
from sheafnet.seeds import derive
from sheafnet.topology import Edge, Topology, build_topology
from sheafnet.validation import nearest

LITERAL_NODES = 8
"""Up to this many nodes ``nodes_per_actor: auto`` gives every node its own actor."""


@dataclass(frozen=True)
class Stretch:
    """Rounds `first` to `first + rounds - 1` of a phase, run without the coordinator."""

    phase: Phase
    first: int
    rounds: int


@dataclass(frozen=True)
class Plan:
    """A checked run."""

    config: Config
    topology: Topology
    dataset: Dataset

    @classmethod
    def open(cls, config: Config) -> "Plan":
        """Check `config` as a whole.

        Raises:
            ConfigError: graph, encoder, modality or sizes do not fit together, or a module of
                ``imports`` cannot be imported.
            DatasetError: the data set is unknown or its files cannot be used.
        """
        _import(config)
        topology = build_topology(config)
        dataset = open_dataset(config, topology)
        for node in topology.nodes:
            check_encoder(
                node.encoder,
                dataset.source(node.index).shape,
                f"{config.origin.source}: node {node.id}",
            )
        _check_rows(config, dataset)
        known = [node.id for node in topology.nodes]
        for name in config.inference.missing_nodes or ():
            if name not in known:
                raise config.fault(
                    f"inference.missing_nodes: no node is called {name!r}. {nearest(name, known)}",
                    "inference",
                    "missing_nodes",
                )
        plan = cls(config, topology, dataset)
        plan._check_frames()
        return plan

    def stretches(self) -> Iterator[Stretch]:
        """The run in order: training, one round of evaluation, inference."""
        size = self.config.run.stretch
        for phase in PHASES:
            rounds = self.rounds(phase)
            for first in range(0, rounds, size):
                yield Stretch(phase, first, min(size, rounds - first))

    def rounds(self, phase: Phase) -> int:
        """Rounds of `phase` in the whole run."""
        training, inference = self.config.training.rounds, self.config.inference.rounds
        return {"train": training, "evaluation": 1, "inference": inference}[phase]

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
        if training.exchange_gradients:
            rows[Kind.GRADIENT] = training.batch_size
        train, infer = WireDtype.named(training.wire_dtype), WireDtype.named(inference.wire_dtype)
        dtypes = {kind: infer if kind.phase == "inference" else train for kind in rows}
        return Limits(run_tag(derive(self.config.run.seed, "run", run)), rows, dtypes)

    def floor(self, phase: Phase) -> dict[tuple[int, int], int]:
        """Fewest payload bytes that `phase` can take, per (edge, direction).

        rows x d_ij x itemsize of every tensor that the method has to move; computed from the
        plan and the labels alone.
        """
        config = self.config
        name = (config.inference if phase == "inference" else config.training).wire_dtype
        dtype = WireDtype.named(name)
        masks = self._missing_masks() if phase == "inference" else []
        floors = {}
        for edge in self.topology.edges:
            classes = self._labelled_classes(edge) if phase == "evaluation" else 0
            for direction in (0, 1):
                times = 1
                if phase == "train":
                    times = config.training.rounds * (
                        2 if config.training.exchange_gradients else 1
                    )
                    rows = [config.training.batch_size]
                elif phase == "evaluation":
                    rows = [gallery_size(self.config, self.dataset), classes]
                else:
                    sender = edge.sender(direction)
                    answered = masks[edge.other(sender)] & ~masks[sender]
                    rows = answered.sum(axis=1).tolist()
                total = sum(payload_bytes(dtype, count, edge.dim) for count in rows)
                floors[edge.index, direction] = times * total
        return floors

    def _labelled_classes(self, edge: Edge) -> int:
        """Classes that occur among the labelled training events, and so have a prototype."""
        events = np.arange(support_size(self.config, self.dataset), dtype=np.int64)
        labels = self.dataset.source(edge.tail).labels("train", events, edge.index)
        return len(np.unique(labels))

    def _check_frames(self) -> None:
        """Refuse what would not fit into one frame."""
        largest = max(self.limits("").rows.values()) * max(e.dim for e in self.topology.edges) * 4
        if largest > MAX_FRAME_BYTES // 2:
            raise self.config.fault(
                f"a message of {largest:,} bytes; at most {MAX_FRAME_BYTES // 2:,} fit into one. "
                "Choose a smaller evaluation.gallery, batch_size or comparison_dim."
            )

    def _missing_masks(self) -> list[Mask]:
        """Per node, (rounds, batch_size) bool."""
        inference, seed = self.config.inference, self.config.run.seed
        empty = np.zeros((0, inference.batch_size), dtype=np.bool_)
        return [
            np.stack([missing_rows(inference, seed, n, r) for r in range(inference.rounds)])
            if inference.rounds
            else empty
            for n in self.topology.nodes
        ]

    def placement(self, cores: int | None = None) -> list[list[int]]:
        """Which nodes share an actor: consecutive ones, so that neighbours mostly do.

        ``auto`` is one node an actor for small networks and one actor per core for larger ones.
        """
        count = len(self.topology.nodes)
        chosen = self.config.run.nodes_per_actor
        if chosen == "auto":
            hosts = cores or len(os.sched_getaffinity(0))
            chosen = 1 if count <= LITERAL_NODES else -(-count // hosts)
        return [list(range(k, min(k + chosen, count))) for k in range(0, count, chosen)]


def _import(config: Config) -> None:
    for module in config.imports:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the user's module raises is the user's to read
            raise config.fault(
                f"imports: {module} cannot be imported: {type(error).__name__}: {error}. It has to "
                "be installed, or on PYTHONPATH, on every machine.",
                "imports",
            ) from None


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
    if size < 2:
        raise config.fault(
            f"evaluation.split = {split!r}: it has {size} events; retrieval needs at least 2.",
            "evaluation",
            "split",
        )
    if config.inference.batch_size > size:
        raise config.fault(
            f"inference.batch_size = {config.inference.batch_size}: the {split} split has {size} "
            f"events; choose at most {size}.",
            "inference",
            "batch_size",
        )
