"""A modality node: its data, its encoder, its outgoing maps, and its side of the edges.

Nothing here knows of Ray, sockets or other nodes' objects. What a node does in a round stands in
`training`, `evaluation` and `inference` as generators, called **programs**: a program sends
through the node's endpoint, yields the addresses of the frames that it needs next, and is resumed
with those that came. Whoever drives it (one loop over all nodes, or an actor per node) decides
when; the results do not depend on it, since every reduction over neighbours goes by edge index.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sheafnet.config import Config
from sheafnet.datasets.base import Dataset, Events, Split
from sheafnet.method import Method
from sheafnet.network.channel import Endpoint, Message
from sheafnet.network.frame import Address, Kind, Phase
from sheafnet.network.links import Links
from sheafnet.nodes.encoders import build_encoder, find_encoder, keeping_buffers
from sheafnet.nodes.fused import FusedClassifier
from sheafnet.nodes.memory import Memory
from sheafnet.nodes.neural import NeuralDual
from sheafnet.nodes.objective_kind import open_objective
from sheafnet.nodes.optimizer import Optimizer
from sheafnet.nodes.probe import LinearProbe
from sheafnet.plugins import Code, guard
from sheafnet.seeds import derive
from sheafnet.sheaf.calibration import Calibration
from sheafnet.sheaf.estimator_kind import open_estimators
from sheafnet.sheaf.estimators import Moments
from sheafnet.sheaf.maps import DualMap, IdentityMap, RestrictionMap, maps_alike, maps_apart
from sheafnet.topology import Edge

Program = Generator[list[Address], dict[int, Message], None]
"""Yields what it waits for; is sent what came, by edge index."""

FloatArray = npt.NDArray[np.float32]

_CHUNK = 512


@dataclass(frozen=True)
class Labelled:
    """Events as a node represents them: sections (n, d_i) and the labels (n,) of each task."""

    section: Tensor
    labels: list[Tensor]


class Node:
    """One sensor of the network.

    Args:
        config: of the run.
        method: of the run, with its graph and channels.
        index: which node this is.
        dataset: opened for this run.
        endpoint: this node's side of its channels.
        device: where the node computes. Weights and draws are made on the CPU and moved, so that
            they are the same everywhere.
        links: simulated links and what else goes wrong; None where nothing does.
    """

    def __init__(
        self,
        config: Config,
        method: Method,
        index: int,
        dataset: Dataset,
        endpoint: Endpoint,
        device: torch.device | None = None,
        links: Links | None = None,
    ) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.method = method
        self.topology = method.topology
        self.spec = method.topology.nodes[index]
        self.edges = method.topology.incident(index)
        self.channels = method.network.incident(index)
        """The node's edges, then its channels to nodes that are no neighbours."""
        self.trained = method.trained_at(index)
        """Those of them that the objective is about."""
        self.dataset = dataset
        self.endpoint = endpoint
        self._links = links
        self.probe: LinearProbe | None = None
        """The downstream heads, trained by the last evaluation."""
        self.calibration: Calibration | None = None
        """What neighbours exchanged before inference, where intervals are calibrated."""
        self._source = dataset.source(index)
        # What a source reads when first asked it reads here, where no neighbour waits for it yet.
        self._source.samples("train", np.zeros(1, np.int64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed("encoder"))
            self.encoder = build_encoder(
                self.spec.encoder, self._source.shape, self.spec.dim, self.spec.id
            ).to(self.device)
        self.encoder_code = find_encoder(self.spec.encoder.name, f"node {self.spec.id}")
        """Whose the encoder is."""
        self.objective = open_objective(config)
        """Loss terms of a plug-in, where the training has some."""
        self.estimators = open_estimators(config)
        """Those of plug-ins, by name."""
        generator = self.generator("maps")
        self.restrictions = self._restrictions(generator)
        asked = self.edges if method.aligns else ()
        self.duals = [
            DualMap(self.restrictions[position]).to(self.device) for position in range(len(asked))
        ]
        self.fused: FusedClassifier | None = None
        """The classifier of all sections, at the hub of concat-supervised."""
        if method.fuses and self.is_hub:
            self.fused = FusedClassifier(method, dataset, self.device)
        modules = [self.encoder, *self.duals]
        if self.fused is not None:
            modules.append(self.fused)
        self.optimizer = Optimizer(
            [p for m in modules for p in m.parameters()],
            config.training,
            [p for m in self.restrictions for p in m.parameters()],
        )
        training = config.training
        self.memories = {
            position: Memory(training.memory, training.batch_size, channel.dim, self.device)
            for position, channel in enumerate(self.channels)
            if training.memory and channel in self.trained
        }
        """What is kept of earlier rounds' projections, by position of the channel."""
        widths = [edge.dim for edge in asked]
        self.moments = Moments(self.spec.dim, widths, device=self.device)
        self.neural: NeuralDual | None = None
        """The neural dual map, where one is chosen and there are neighbours to learn it from."""
        if config.inference.neural_hidden and asked:
            self.neural = NeuralDual(
                self.spec.dim,
                widths,
                config.inference.neural_hidden,
                training,
                self.generator("neural"),
                self.device,
            )

    @property
    def is_hub(self) -> bool:
        """Whether the method is centred on this node."""
        return self.method.hub == self.spec.index

    def _restrictions(self, generator: torch.Generator) -> Sequence[RestrictionMap | IdentityMap]:
        dims = [channel.dim for channel in self.channels]
        maps: Sequence[RestrictionMap | IdentityMap]
        if self.method.name != "sheafalign":
            maps = [IdentityMap(self.spec.dim) for _ in dims]
        elif self.config.training.restriction_start == "together":
            maps = maps_apart(self.spec.dim, dims, generator)
        elif self.config.training.restriction_start == "alike":
            maps = maps_alike(self.spec.dim, dims, generator)
        else:
            maps = [RestrictionMap(self.spec.dim, dim, generator) for dim in dims]
        return [restriction.to(self.device) for restriction in maps]

    def batch(self, round_: int) -> Events:
        """The events of training round `round_`, the same at every node."""
        size = self.config.training.batch_size
        return np.arange(round_ * size, (round_ + 1) * size, dtype=np.int64)

    def tensor(self, array: npt.NDArray[Any]) -> Tensor:
        """`array`, which is the node's own or came over a channel, where the node computes."""
        return torch.from_numpy(array).to(self.device)

    def samples(self, split: Split, events: Events) -> Tensor:
        """The node's view of `events`: (n, *shape)."""
        return self.tensor(self._source.samples(split, events))

    def sections(self, split: Split, events: Events) -> Tensor:
        """The sections h_i = f_i(x_i) of `events`, with their graph: (n, d_i)."""
        return self.encode(self.samples(split, events), f"{split} split")

    def encode(self, sample: Tensor, when: str) -> Tensor:
        """f_i of `sample`, (n, *shape), with its graph: (n, d_i).

        Raises:
            PluginError: the encoder is somebody else's, and fails, draws from torch's global
                generator, changes its buffers, or gives another form.
            DivergenceError: then too, where it gives NaN or infinity.
        """
        code = self.encoder_code
        if code.ours:
            encoded: Tensor = self.encoder(sample)
            return encoded
        place = f"node {self.spec.id}, {when}"
        with (
            keeping_buffers(code, self.encoder, place),
            code.computing("its forward", self.device, place),
        ):
            found = self.encoder(sample)
        section = code.tensor(found, (len(sample), self.spec.dim), self.device, place)
        if not bool(torch.isfinite(section).all()):
            raise code.diverged(place)
        return section

    def backward(
        self,
        outputs: Sequence[Tensor],
        when: str,
        gradients: Sequence[Tensor] | None = None,
        *,
        retain: bool = False,
    ) -> None:
        """Gather the gradient of `outputs`, scalars or with `gradients` of a loss given for each.

        Raises:
            PluginError: the code of a plug-in fails.
        """
        codes: list[Code[Any]] = [self.encoder_code]
        if self.objective is not None:
            codes.append(self.objective.code)
        with guard(codes, "the backward pass", f"node {self.spec.id}, {when}"):
            torch.autograd.backward(outputs, gradients, retain_graph=retain)

    def step(self, round_: int) -> float:
        """Step along what `backward` gathered, at the learning rate of training round `round_`.

        Returns the squared norm of the gradient.
        """
        return self.optimizer.step(self.config.training.rate_share(round_))

    @torch.no_grad()
    def labelled(self, split: Split, events: Events) -> Labelled:
        """Sections without their graph, and labels, of `events`."""
        chunks = [events[k : k + _CHUNK] for k in range(0, len(events), _CHUNK)]
        section = torch.cat([self.sections(split, chunk) for chunk in chunks])
        tasks = self.edges if self.dataset.labels_per_edge else self.edges[:1]
        labels = [self.tensor(self._source.labels(split, events, edge.index)) for edge in tasks]
        return Labelled(section, labels)

    def task(self, position: int) -> int:
        """Which task the labels of the edge at `position` are."""
        return position if self.dataset.labels_per_edge else 0

    @torch.no_grad()
    def project(self, section: Tensor) -> list[Tensor]:
        """p_i = P_ij h_i for every incident edge: (n, d_ij) each, without graph."""
        return [self.restrictions[position](section) for position in range(len(self.edges))]

    def asleep(self, phase: Phase, round_: int) -> bool:
        """Whether the node sleeps in a round: then it neither computes nor sends."""
        return self._links is not None and self._links.asleep(phase, round_, self.spec.index)

    def present(self, channels: Sequence[Edge], phase: Phase, round_: int) -> Sequence[Edge]:
        """Those of `channels` that are there in a round; all, unless the graph changes."""
        if self._links is None:
            return channels
        return [edge for edge in channels if self._links.active(phase, round_, edge.index)]

    def every(self, kind: Kind, round_: int) -> list[Address]:
        """The addresses of one frame of `kind` from every neighbour that has an edge to here."""
        edges = self.present(self.edges, kind.phase, round_)
        return [(edge.index, kind, round_) for edge in edges]

    def generator(self, *names: str | int) -> torch.Generator:
        """A torch generator of this node's own, by name."""
        generator = torch.Generator()
        generator.manual_seed(self._seed(*names))
        return generator

    def parameters(self) -> dict[str, FloatArray]:
        """Every parameter by name: ``encoder.*``, ``restriction.<edge>``, ``dual.<edge>.*``.

        Buffers are not among them: those of an encoder stay as it was built.
        A single space has no restriction maps, a network without estimates no dual maps; the hub
        of concat-supervised has ``head.*`` beside them, and a neural dual map is ``neural.*``.
        """
        return {name: array_of(p) for name, p in self._named().items()}

    @torch.no_grad()
    def load_parameters(self, parameters: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `parameters` returned.

        Raises:
            ValueError: it is of another node or configuration.
        """
        own = self._named()
        shapes = {name: tuple(p.shape) for name, p in own.items()}
        if shapes != {name: array.shape for name, array in parameters.items()}:
            raise ValueError("its parameters are of another node or configuration")
        for name, parameter in own.items():
            parameter.copy_(self.tensor(np.array(parameters[name])))

    def _named(self) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {
            f"encoder.{name}": p for name, p in self.encoder.named_parameters()
        }
        names = [self.topology.edge_name(edge.index) for edge in self.edges]
        for name, restriction in zip(names, self.restrictions, strict=False):
            if isinstance(restriction, RestrictionMap):
                named[f"restriction.{name}"] = restriction.weight
        for name, dual in zip(names, self.duals, strict=False):
            named[f"dual.{name}.weight"] = dual.weight
            named[f"dual.{name}.offset"] = dual.offset
        if self.neural is not None:
            named |= {f"neural.{name}": p for name, p in self.neural.module.named_parameters()}
        if self.fused is not None:
            named |= {f"head.{name}": p for name, p in self.fused.named_parameters()}
        return named

    def _seed(self, *names: str | int) -> int:
        return derive(self.config.run.seed, *names, "node", self.spec.index) % (1 << 63)


def array_of(tensor: Tensor) -> npt.NDArray[Any]:
    """`tensor` without its graph, as what leaves the node: an array in the CPU's memory."""
    return tensor.detach().cpu().numpy()
