"""A small neural dual map: what the best affine estimate leaves, learned where it is not affine.

It sees whichever neighbours' projections are there, and tells, per component of the section, a
correction of `Moments.ridge` and a variance of its own for this very sample, which an affine map of
second moments cannot: its variance is the same for all samples. Trained beside the network, on what
crosses the edges anyway, by the Gaussian likelihood in the beta form of Seitzer et al. (2022, arXiv
2203.09168, equation 5, beta = 0.5), under which a large variance does not excuse a poor mean.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sheafnet.config import TrainingConfig
from sheafnet.nodes.optimizer import Optimizer
from sheafnet.sheaf.estimators import Answers, Moments, reached, ridge_estimate, spread

KEPT = 0.7
"""Probability that a neighbour is there in a batch of training."""
_BETA = 0.5
_FLOOR = 1e-6
"""Least variance, relative to that of the section."""


class NeuralDual:
    """The map of one node and its optimizer.

    Args:
        dim: d_i.
        edge_dims: d_ij of each incident edge, in the fixed order.
        hidden: units between.
        training: for the optimizer.
        generator: of the first weights.
        device: where it computes.
    """

    def __init__(
        self,
        dim: int,
        edge_dims: Sequence[int],
        hidden: int,
        training: TrainingConfig,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._edge_dims = list(edge_dims)
        inputs = sum(edge_dims) + len(edge_dims)
        first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, 2 * dim)
        with torch.no_grad():
            bound = inputs**-0.5
            first.weight.uniform_(-bound, bound, generator=generator)
            first.bias.zero_()
            last.weight.zero_()  # it begins as the affine estimate
            last.bias.zero_()
        self.module = nn.Sequential(first, nn.ReLU(), last).to(device)
        self.optimizer = Optimizer(list(self.module.parameters()), training)

    def learn(
        self,
        section: Tensor,
        received: Sequence[Tensor],
        moments: Moments,
        strength: float,
        generator: torch.Generator,
        share: float = 1.0,
    ) -> None:
        """A step on a batch that `moments` has not taken in yet, some neighbours left out.

        Args:
            section: h_i (B, d_i), without graph.
            received: p_j (B, d_ij) of every incident edge.
            moments: of the node.
            strength: of the ridge.
            generator: draws which neighbours are there.
            share: of the learning rate at which the step is taken.
        """
        if moments.empty:
            return
        there = torch.rand(len(received), generator=generator) < KEPT
        if not bool(there.any()):
            there[int(torch.randint(len(received), (), generator=generator))] = True
        whole = torch.ones(len(section), dtype=torch.bool, device=section.device)
        answers = {k: (whole, p) for k, p in enumerate(received) if bool(there[k])}
        base, variance = ridge_estimate(answers, len(section), moments, strength)
        scale = _deviation(variance, moments)
        mean, log_variance = self._tell(answers, len(section))
        error = ((section - base) / scale - mean).square() * torch.exp(-log_variance)
        weight = torch.exp(_BETA * log_variance.detach())
        loss = (weight * 0.5 * (error + log_variance)).sum(dim=1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(share)

    @torch.no_grad()
    def estimate(
        self, answers: Answers, rows: int, moments: Moments, strength: float
    ) -> tuple[Tensor, Tensor]:
        """The missing sections and the variance of each component: (rows, d_i) each.

        Arguments as of `sheaf.estimators.ridge_estimate`. Where no neighbour answered it is the
        train mean, and the variance that of the section.
        """
        base, variance = ridge_estimate(answers, rows, moments, strength)
        scale = _deviation(variance, moments)
        mean, log_variance = self._tell(answers, rows)
        here = reached(answers, base)[:, None]
        guess = torch.where(here, base + scale * mean, base)
        return guess, torch.where(here, scale.square() * torch.exp(log_variance), variance)

    def _tell(self, answers: Answers, rows: int) -> tuple[Tensor, Tensor]:
        """Correction and logarithm of the variance, in units of the affine estimate's deviation."""
        weight = cast(nn.Linear, self.module[0]).weight
        parts, masks = [], []
        for position, dim in enumerate(self._edge_dims):
            if position in answers:
                parts.append(spread(*answers[position], rows))
                masks.append(answers[position][0].to(weight.dtype))
            else:
                parts.append(weight.new_zeros(rows, dim))
                masks.append(weight.new_zeros(rows))
        told: Tensor = self.module(torch.cat([*parts, torch.stack(masks, dim=1)], dim=1))
        mean, log_variance = told.chunk(2, dim=1)
        return mean, 8.0 * torch.tanh(log_variance / 8.0)  # bounded, and never without a gradient


def _deviation(variance: Tensor, moments: Moments) -> Tensor:
    return (variance + _FLOOR * moments.variance.mean() + 1e-12).sqrt()
