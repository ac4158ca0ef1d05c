"""How far off estimates are on events that training never saw.

The variances that estimators tell are those of training; where a node has fitted its finite data
they are too small for new events. On calibration events, of which a node knows its own section and
its neighbours' projections, it sees for every estimator and every set of neighbours how its errors
relate to what it expected, and corrects its intervals accordingly: split conformal prediction (Vovk
et al. 2005, Algorithmic Learning in a Random World; Lei et al. 2018, arXiv 1604.04173), component
by component.
"""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from sheafnet.sheaf.estimators import Answers

COVERAGE = 0.9
"""Of an interval."""
HALF_WIDTH = NormalDist().inv_cdf((1 + COVERAGE) / 2)
"""Of it where errors are Gaussian, in standard deviations."""
_FLOOR = 1e-9
"""Added to what is told: what training was certain of can be wrong on other events."""


class Interval(NamedTuple):
    """How far off the estimates of some rows are to be expected."""

    half_width: Tensor
    """Of the nominal 90 % interval of every component, (rows, d_i)."""
    expected: Tensor
    """The square error, summed over components, (rows,)."""


def interval_of(variance: Tensor) -> Interval:
    """Of Gaussian errors of this `variance`, (rows, d_i)."""
    return Interval(HALF_WIDTH * variance.sqrt(), variance.sum(dim=1))


Estimator = Callable[[Answers, int], tuple[Tensor, Tensor]]
"""From what is known of so many events to their sections and their variances, (rows, d_i) each."""


class Calibration:
    """What a node keeps of the exchange.

    Args:
        section: h_i (n, d_i) of the events.
        received: p_j (n, d_ij) by position of the edge; those that did not come are absent.
    """

    def __init__(self, section: Tensor, received: Mapping[int, Tensor]) -> None:
        self.section, self.received = section, dict(received)
        self._factors: dict[tuple[str, tuple[int, ...]], tuple[Tensor, float]] = {}

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "Calibration":
        """What `state` returned it of."""
        received = {int(name): tensor for name, tensor in state.items() if name != "section"}
        return cls(state["section"], received)

    def state(self) -> dict[str, Tensor]:
        """The tensors by name: ``section``, and the projections by position."""
        return {"section": self.section, **{str(k): p for k, p in self.received.items()}}

    def correct(
        self, name: str, estimator: Estimator, answers: Answers, interval: Interval
    ) -> Interval:
        """What an estimator tells of its errors, as it would have been right on the events.

        Rows that a neighbour answered of whom no projections came keep what is told of them. Where
        nobody answered, the square error to be expected stays that of the train mean.

        Args:
            name: of the estimator.
            estimator: the function.
            answers: what is known of the rows.
            interval: what the estimator told of them.
        """
        positions = sorted(answers)
        half_width, expected = interval.half_width.clone(), interval.expected.clone()
        groups = torch.zeros(1, 0, dtype=torch.bool)
        member = torch.zeros(len(expected), dtype=torch.long, device=expected.device)
        if positions and len(expected):
            pattern = torch.stack([answers[k][0] for k in positions], dim=1)
            groups, member = torch.unique(pattern, dim=0, return_inverse=True)
        for index, group in enumerate(groups.tolist()):
            chosen = tuple(k for k, there in zip(positions, group, strict=False) if there)
            if self.received.keys() >= set(chosen):
                inside = member == index
                widths, square = self._learned(name, estimator, chosen)
                half_width[inside] = (half_width[inside] + _FLOOR) * widths
                if chosen:
                    expected[inside] = (expected[inside] + _FLOOR) * square
        return Interval(half_width, expected)

    def _learned(
        self, name: str, estimator: Estimator, positions: tuple[int, ...]
    ) -> tuple[Tensor, float]:
        """Where just these neighbours answer: by how much half widths grow, (d_i,), and the square
        error to be expected."""
        if (name, positions) not in self._factors:
            rows = len(self.section)
            whole = torch.ones(rows, dtype=torch.bool, device=self.section.device)
            told = {k: (whole, self.received[k]) for k in positions}
            guess, variance = estimator(told, rows)
            interval = interval_of(variance)
            errors = (guess - self.section).abs()
            rank = math.ceil((rows + 1) * COVERAGE)
            widths = (errors / (interval.half_width + _FLOOR)).kthvalue(rank, dim=0).values
            square = errors.square().sum() / (interval.expected + _FLOOR).sum()
            self._factors[name, positions] = widths, float(square)
        return self._factors[name, positions]
