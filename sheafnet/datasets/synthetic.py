"""Latent factors with a known amount of unique, pairwise and global information.

Every event has a global latent g, a latent z_e for each edge and a latent u_i for each node, all
standard normal. Node i observes

    x_i = A_i s_i + noise,   s_i = [g, z_e for its edges e, u_i],

or tanh(A_i s_i) + noise, where the fixed A_i gives each kind of latent its share of the variance
(1 per feature on average, before tanh and noise). What neighbours share is known exactly, and in
the linear case so is the best that any estimator linear in their samples can do.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from sheafnet.config import Model
from sheafnet.datasets.base import Events, Labels, Samples, Source, Split
from sheafnet.datasets.blocks import BLOCK, Blocks, Normal, whole_blocks
from sheafnet.datasets.epochs import check_events
from sheafnet.datasets.info import DatasetInfo, assign_modalities
from sheafnet.errors import DatasetError
from sheafnet.seeds import stream
from sheafnet.topology import Topology

MODALITIES = ("signal",)
VALIDATION_EVENTS = 500
ENDLESS = 2**62
"""Training events never repeat; the number that stands for them is above any batch."""

Part = tuple[Literal["global", "pairwise", "unique"], int]
"""A block of latents: the edge of a pairwise one, the node of a unique one, else 0."""
Matrix = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Options(Model):
    """Keys of ``dataset: {name: synthetic}``."""

    unique: Share = 0.3
    """Share of a node's signal variance that no other node sees."""
    pairwise: Share = 0.5
    """Share that it has in common with its neighbours, split evenly among its edges; what unique
    and pairwise leave is global, seen by all."""
    linear: bool = True
    """``false`` puts tanh on the signal."""
    noise: Annotated[float, Field(ge=0.0)] = 0.1
    """Standard deviation of the Gaussian noise on each feature."""
    features: Annotated[int, Field(ge=1)] = 64
    latent: Annotated[int, Field(ge=1)] = 8
    """Dimensions of each latent."""
    classes: Annotated[int, Field(ge=2)] = 10
    test_events: Annotated[int, Field(ge=2)] = 1000

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.unique + self.pairwise > 1.0 + 1e-9:
            raise ValueError(
                f"unique = {self.unique} and pairwise = {self.pairwise} are shares of one "
                "variance; together at most 1"
            )
        return self

    @property
    def shared(self) -> float:
        """The global share."""
        return max(0.0, 1.0 - self.unique - self.pairwise)


class Synthetic:
    """The data set, opened.

    The label of an edge is the largest of `classes` fixed random linear scores of what its ends
    share, [√global · g, √pairwise · z_e]: both can learn it. With nothing shared it is the label of
    latents that nobody sees, so that accuracy stays at chance.
    """

    labels_per_edge = True

    def __init__(self, options: Options, topology: Topology, seed: int) -> None:
        """Check the modalities and draw the scores of the classes."""
        self._options, self._topology, self._seed = options, topology, seed
        self._modalities = assign_modalities("synthetic", topology, MODALITIES)
        self.classes = options.classes
        scores = stream(seed, "classes").standard_normal((options.classes, 2 * options.latent))
        scores /= np.linalg.norm(scores, axis=1, keepdims=True)
        weights = np.sqrt([options.shared, options.pairwise])
        if not weights.any():
            weights = np.ones(2)
        self._scores = (scores * np.repeat(weights, options.latent)).astype(np.float32)

    def size(self, split: Split) -> int | None:
        """Events in `split`; None for training, which has no end."""
        return None if split == "train" else self.distinct(split)

    def distinct(self, split: Split) -> int:
        """Events of `split` before one returns."""
        sizes = {"validation": VALIDATION_EVENTS, "test": self._options.test_events}
        return sizes.get(split, ENDLESS)

    def modality(self, node: int) -> str:
        """Always ``signal``."""
        return self._modalities[node]

    def source(self, node: int) -> Source:
        """The sensor of `node`: samples of shape (features,)."""
        return _Sensor(self, self._options, self._seed, node, self.loadings(node))

    def loadings(self, node: int) -> dict[Part, Matrix]:
        """A_i by block of latents, each (features, latent), in the order of s_i.

        Orthogonal columns as long as there are no more latents than features.
        """
        o, edges = self._options, self._topology.incident(node)
        shares: dict[Part, float] = {("global", 0): o.shared}
        shares.update({("pairwise", edge.index): o.pairwise / len(edges) for edge in edges})
        shares["unique", node] = o.unique
        size = (o.features, o.latent * len(shares))
        mixing = stream(self._seed, "mixing", node).standard_normal(size)
        wide = size[1] > size[0]
        basis = np.linalg.qr(mixing.T if wide else mixing)[0]
        basis = basis.T if wide else basis
        # Unit columns make each block's share of the mean variance exact, orthogonal or not.
        basis = basis / np.linalg.norm(basis, axis=0)
        blocks = np.split(basis, len(shares), axis=1)
        return {
            part: block * np.sqrt(share * o.features / o.latent)
            for (part, share), block in zip(shares.items(), blocks, strict=True)
        }

    def latent(self, part: Part, split: Split, events: Events) -> npt.NDArray[np.float32]:
        """The latents of `events` that belong to `part`, unweighted: (len(events), latent)."""
        kind, index = part
        blocks = Blocks(self._seed, "latent", kind, index, split)
        return blocks.rows(events, Normal((self._options.latent,)))[0]

    def labels(self, edge: int, split: Split, events: Events) -> Labels:
        """The class of `events` on `edge`: (len(events),)."""
        check_events(events, self.size(split), split)
        whole, at = whole_blocks(events)
        parts: list[Part] = [("global", 0), ("pairwise", edge)]
        shared = np.concatenate([self.latent(part, split, whole) for part in parts], axis=1)
        scores = shared.reshape(-1, BLOCK, shared.shape[1]) @ self._scores.T
        labels: Labels = scores.argmax(axis=2).ravel()[at].astype(np.int64)
        return labels

    def optimal_nmse(self, node: int, answered_neighbours: Sequence[int]) -> float:
        """Least E‖x̂_i − x_i‖² / E‖x_i‖² of an x̂_i linear in the samples x_j that answered.

        With C the covariances: 1 − tr(C_iJ C_JJ⁻¹ C_Ji) / tr(C_ii). Gaussian, so no estimator at
        all does better. The samples of `node` count with their noise.

        Raises:
            DatasetError: the data set is not linear.
        """
        if not self._options.linear:
            raise DatasetError("synthetic: the optimal NMSE is known for linear: true only.")
        own = self.loadings(node)
        total = np.trace(self._covariance(node, own, node, own))
        others = [(j, self.loadings(j)) for j in dict.fromkeys(answered_neighbours)]
        if not others:
            return 1.0
        within = np.block([[self._covariance(j, a, k, b) for k, b in others] for j, a in others])
        across = np.vstack([self._covariance(j, a, node, own) for j, a in others])
        inverse = np.linalg.pinv(within, rcond=1e-10, hermitian=True)
        explained = np.trace(across.T @ inverse @ across)
        return float(1.0 - explained / total)

    def _covariance(self, i: int, a: dict[Part, Matrix], j: int, b: dict[Part, Matrix]) -> Matrix:
        noise = self._options.noise**2 * (i == j)
        common: Matrix = np.sum([a[part] @ b[part].T for part in a if part in b], axis=0)
        return common + noise * np.eye(self._options.features)


class _Sensor:
    """What one node sees."""

    def __init__(
        self, data: Synthetic, options: Options, seed: int, node: int, loadings: dict[Part, Matrix]
    ) -> None:
        self._data, self._options, self._seed, self._node = data, options, seed, node
        self._parts = tuple(loadings)
        self._mixing = np.hstack(list(loadings.values())).T.astype(np.float32)
        self.shape: tuple[int, ...] = (options.features,)

    def samples(self, split: Split, events: Events) -> Samples:
        """The node's view of `events`: (len(events), features)."""
        check_events(events, self._data.size(split), split)
        whole, at = whole_blocks(events)
        latents = np.concatenate(
            [self._data.latent(part, split, whole) for part in self._parts], axis=1
        )
        view = latents.reshape(-1, BLOCK, latents.shape[1]) @ self._mixing
        if not self._options.linear:
            np.tanh(view, out=view)
        view = view.reshape(len(whole), *self.shape)
        if self._options.noise:
            (noise,) = Blocks(self._seed, "view", self._node, split).rows(whole, Normal(self.shape))
            view += np.float32(self._options.noise) * noise
        seen: Samples = view[at]
        return seen

    def labels(self, split: Split, events: Events, edge: int) -> Labels:
        """The class of `events` on `edge`, one of the node's own: (len(events),).

        Raises:
            ValueError: the node is at neither end of `edge`.
        """
        if ("pairwise", edge) not in self._parts:
            raise ValueError(f"node {self._node} is at neither end of edge {edge}")
        return self._data.labels(edge, split, events)


INFO = DatasetInfo(
    name="synthetic",
    summary="latent factors with chosen unique, pairwise and global shares: ground truth",
    modalities=", ".join(MODALITIES),
    sizes="endless / 500 / 1000 events",
    licence="generated, no rights reserved",
    citation="generated by sheafnet",
    options=Options,
    open=Synthetic,
)
