"""The downstream task: linear heads on a node's own sections."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.adam import adam


class LinearProbe:
    """Multinomial logistic regression on standardized sections, one head per label of the node.

    Args:
        features: (n, d_i).
        labels: one (n,) int64 per head.
        classes: number of classes.
        steps: of Adam, which fit a head.
    """

    _RATE = 0.05
    _PENALTY = 1e-4

    def __init__(
        self, features: Tensor, labels: Sequence[Tensor], classes: int, steps: int
    ) -> None:
        self._mean = features.mean(dim=0)
        self._scale = 1.0 / features.std(dim=0).clamp(min=1e-6)
        standard = self._standard(features)
        self._heads = [self._fit(standard, target, classes, steps) for target in labels]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "LinearProbe":
        """The probe that `state` was taken from."""
        probe = cls.__new__(cls)
        probe._mean, probe._scale = state["mean"], state["scale"]
        probe._heads = [state[f"head.{k}"] for k in range(len(state) - 2)]
        return probe

    def state(self) -> dict[str, Tensor]:
        """All that it is, by name: ``mean`` (d_i,), ``scale`` (d_i,), ``head.<k>``."""
        heads = {f"head.{k}": weight for k, weight in enumerate(self._heads)}
        return {"mean": self._mean, "scale": self._scale, **heads}

    def _standard(self, features: Tensor) -> Tensor:
        scaled = (features - self._mean) * self._scale
        return torch.cat([scaled, features.new_ones(len(features), 1)], dim=1)

    def _fit(self, features: Tensor, labels: Tensor, classes: int, steps: int) -> Tensor:
        weight = features.new_zeros(features.shape[1], classes)
        first, second, step = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros(())
        target = F.one_hot(labels, classes).float()
        for _ in range(steps):
            error = torch.softmax(features @ weight, dim=1) - target
            gradient = features.T @ error / len(features) + self._PENALTY * weight
            adam(
                [weight],
                [gradient],
                [first],
                [second],
                [],
                [step],
                foreach=False,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self._RATE,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
        return weight

    def predict(self, features: Tensor) -> list[Tensor]:
        """The predicted classes of each head: (n,) int64 each."""
        standard = self._standard(features)
        return [(standard @ weight).argmax(dim=1) for weight in self._heads]
