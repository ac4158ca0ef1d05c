"""The analytic floor: the fewest payload bytes that a method can take, without any message.

rows x d_ij x itemsize of every tensor that the method has to move over each channel, computed from
the configuration and the labels alone. What the ledger counted stands beside it.
"""

import numpy as np

from sheafnet.config import Config
from sheafnet.datasets.base import Dataset
from sheafnet.method import Method
from sheafnet.network.frame import Mask, Phase
from sheafnet.network.payload import WireDtype, payload_bytes
from sheafnet.nodes.events import (
    calibration_size,
    evaluation_points,
    gallery_size,
    missing_rows,
    support_size,
)
from sheafnet.topology import Edge


def wire_dtype(config: Config, phase: Phase) -> WireDtype:
    """What tensors of `phase` travel as."""
    inferring = phase in ("calibration", "inference")
    return WireDtype.named((config.inference if inferring else config.training).wire_dtype)


class Floor:
    """The floor of a run.

    Args:
        config: of the run.
        method: of the run.
        dataset: opened for it.
    """

    def __init__(self, config: Config, method: Method, dataset: Dataset) -> None:
        self._config, self._method, self._dataset = config, method, dataset

    def of(self, phase: Phase) -> dict[tuple[int, int], int]:
        """Bytes of `phase` by (channel, direction)."""
        config = self._config
        dtype = wire_dtype(config, phase)
        masks = self._missing_masks() if phase == "inference" else []
        known = self._estimated(masks) if phase == "inference" else []
        found = {}
        for edge in self._method.network.edges:
            for direction in (0, 1):
                if phase == "train":
                    times, rows = self._train(edge)
                elif phase == "evaluation":
                    times, rows = self._evaluation(edge, direction)
                elif phase == "calibration":
                    times, rows = 1, self._calibration(edge)
                else:
                    times, rows = 1, self._inference(edge, direction, masks, known)
                found[edge.index, direction] = times * sum(
                    payload_bytes(dtype, count, edge.dim) for count in rows
                )
        return found

    def _train(self, edge: Edge) -> tuple[int, list[int]]:
        """A batch each way; under concat-supervised the way back is that of the gradients."""
        training = self._config.training
        times = self._method.rounds_carried(edge) * (2 if training.exchange_gradients else 1)
        return times, [training.batch_size]

    def _evaluation(self, edge: Edge, direction: int) -> tuple[int, list[int]]:
        times = len(evaluation_points(self._config))
        gallery = gallery_size(self._config, self._dataset)
        if self._method.fuses:
            return times, [gallery] if self._to_hub(edge, direction) else []
        if not self._asks(edge):
            return times, []
        return times, [gallery, self._labelled_classes(edge)]

    def _calibration(self, edge: Edge) -> list[int]:
        if not (self._config.inference.rounds and self._asks(edge)):
            return []
        return [calibration_size(self._config, self._dataset)]

    def _inference(
        self, edge: Edge, direction: int, masks: list[Mask], known: list[list[Mask]]
    ) -> list[int]:
        """Answers, and estimates in every step of diffusion."""
        sender = edge.sender(direction)
        have = ~masks[sender]
        if self._method.fuses:
            answered = have if self._to_hub(edge, direction) else np.zeros_like(have)
        elif self._asks(edge):
            answered = masks[edge.other(sender)] & have
        else:
            answered = np.zeros_like(have)
        asked = masks[edge.other(sender)]
        told = [estimated[sender] & asked for estimated in known if self._asks(edge)]
        return [int(count) for rows in (answered, *told) for count in rows.sum(axis=1)]

    def _estimated(self, masks: list[Mask]) -> list[list[Mask]]:
        """Per step of diffusion and node, the missing rows of which it has an estimate at last.

        Each has to be told once; how far it moves from there, nothing here can say.
        """
        network, steps = self._method.topology, []
        known = [~mask for mask in masks]
        for _ in range(self._config.inference.diffusion_iterations):
            near = [
                np.any([known[e.other(n)] for e in network.incident(n)], axis=0) & ~known[n]
                for n in range(len(masks))
            ]
            known = [here | there for here, there in zip(known, near, strict=True)]
            steps.append(near)
        return steps

    def _asks(self, edge: Edge) -> bool:
        """Whether the ends of a channel compare and ask each other: they are neighbours."""
        return self._method.aligns and edge.index < len(self._method.topology.edges)

    def _to_hub(self, edge: Edge, direction: int) -> bool:
        return edge.receiver(direction) == self._method.hub

    def _labelled_classes(self, edge: Edge) -> int:
        """Classes that occur among the labelled training events, and so have a prototype."""
        events = np.arange(support_size(self._config, self._dataset), dtype=np.int64)
        labels = self._dataset.source(edge.tail).labels("train", events, edge.index)
        return len(set(labels.tolist()))

    def _missing_masks(self) -> list[Mask]:
        """Per node, (rounds, batch_size) bool."""
        inference, seed = self._config.inference, self._config.run.seed
        empty = np.zeros((0, inference.batch_size), dtype=np.bool_)
        return [
            np.stack([missing_rows(inference, seed, n, r) for r in range(inference.rounds)])
            if inference.rounds
            else empty
            for n in self._method.topology.nodes
        ]
