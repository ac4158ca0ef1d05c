"""Optimizers in torch's functional form, one state per parameter.

The step functions of ``torch.optim`` are used without its ``Optimizer`` class: constructing that
imports the compiler stack, which costs each actor a second of start-up and 70 MB.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from sheafnet.config import TrainingConfig

_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Optimizer:
    """Steps `parameters` by the optimizer that `training` names.

    ``adam`` and ``adamw`` use betas (0.9, 0.999) and epsilon 1e-8, ``sgd`` momentum 0.9.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        training: TrainingConfig,
        restrictions: Sequence[Tensor] = (),
    ) -> None:
        """`restrictions` are stepped at ``restriction_rate`` times the learning rate."""
        self._parameters = [*parameters, *restrictions]
        self._groups = [
            (range(len(parameters)), training.learning_rate),
            (
                range(len(parameters), len(self._parameters)),
                training.learning_rate * training.restriction_rate,
            ),
        ]
        self._training = training
        self._first = [torch.zeros_like(p) for p in self._parameters]
        self._second = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [p.new_zeros((), dtype=torch.float32) for p in self._parameters]

    @torch.no_grad()
    def step(self, share: float = 1.0) -> float:
        """One step along the gradients, which are cleared; returns their squared norm.

        `share` is that of the learning rates at which it is taken.
        """
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        square = float(get_total_norm(gradients)) ** 2 if gradients else 0.0
        for group, rate in self._groups:
            if rate > 0.0:
                self._step([k for k in group if self._parameters[k].grad is not None], share * rate)
        for parameter in self._parameters:
            parameter.grad = None
        return square

    def state(self) -> dict[str, Tensor]:
        """What is kept for each parameter between steps, by name; the tensors themselves."""
        kept = {"first": self._first, "second": self._second, "steps": self._steps}
        return {f"{name}.{k}": t for name, found in kept.items() for k, t in enumerate(found)}

    def _step(self, chosen: list[int], rate: float) -> None:
        parameters = [self._parameters[k].detach() for k in chosen]
        gradients = [g for k in chosen if (g := self._parameters[k].grad) is not None]
        first = [self._first[k] for k in chosen]
        decay = self._training.weight_decay
        if self._training.optimizer == "sgd":
            sgd(
                parameters,
                gradients,
                first,  # type: ignore[arg-type]
                lr=rate,
                momentum=_MOMENTUM,
                weight_decay=decay,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                foreach=False,
            )
            return
        step = adam if self._training.optimizer == "adam" else adamw
        step(
            parameters,
            gradients,
            first,
            [self._second[k] for k in chosen],
            [],
            [self._steps[k] for k in chosen],
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=decay,
            eps=_EPSILON,
            maximize=False,
            fused=True,
        )
