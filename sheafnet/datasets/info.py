"""What the registry knows of a data set without opening it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sheafnet.config import Model
from sheafnet.datasets.base import Dataset
from sheafnet.errors import ConfigError
from sheafnet.topology import Topology
from sheafnet.validation import nearest


@dataclass(frozen=True)
class DatasetInfo:
    """One entry of ``sheafnet datasets``."""

    name: str
    summary: str
    modalities: str
    """In the order in which nodes that name none are given them, separated by commas."""
    sizes: str
    """Training, validation and test events."""
    licence: str
    citation: str
    options: type[Model]
    open: Callable[[Any, Topology, int], Dataset]
    """From checked options, topology and seed."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the texts, and each option with its default (None where it has none)."""
        texts = ("name", "summary", "modalities", "sizes", "licence", "citation")
        options = {
            name: None if field.is_required() else field.default
            for name, field in self.options.model_fields.items()
        }
        return {**{name: getattr(self, name) for name in texts}, "options": options}


def assign_modalities(dataset: str, topology: Topology, known: Sequence[str]) -> tuple[str, ...]:
    """The modality of every node; those that name none take `known` in turn, by node index.

    Raises:
        ConfigError: a node names a modality that `dataset` has not.
    """
    for node in topology.nodes:
        if node.modality is not None and node.modality not in known:
            raise ConfigError(
                f"node {node.id}: modality = {node.modality!r}: {dataset} has no "
                f"such modality. {nearest(node.modality, known)}"
            )
    return tuple(node.modality or known[node.index % len(known)] for node in topology.nodes)
