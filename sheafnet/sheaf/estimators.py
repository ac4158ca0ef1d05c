"""What a node makes of its neighbours' projections when its own modality is missing.

``mean``        average of Q_ij p_j over the neighbours that answered (the paper)
``ridge``       the best affine estimate from whichever neighbours answered (`Moments`)
``zero``        the zero vector
``train-mean``  the mean section of training: the best constant

These are of one hop and in closed form; `nodes.diffusion` goes on from there with neighbours that
miss theirs too, `nodes.neural` with what is not affine. Where no neighbour answered, ``mean`` and
``ridge`` are the train mean.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sheafnet.config import ON_REQUEST, OUR_ESTIMATORS, EstimatorName

AffineMap = tuple[Tensor, Tensor]
"""Weight (d_i, k) and offset (d_i,)."""
Answers = Mapping[int, tuple[Tensor, Tensor]]
"""Per edge position which of the rows are known, (rows,) bool, and their projections p_j, (rows
known, d_ij), in the order of the rows."""

ESTIMATORS: tuple[EstimatorName, ...] = tuple(n for n in OUR_ESTIMATORS if n not in ON_REQUEST)
"""The estimators of one hop in closed form."""


_GATHERED = ("h", "hh", "p", "hp", "pp")
_KEPT = 64
"""Closed forms that are kept at once; a node of few neighbours needs no more."""


class Moments:
    """Exponentially weighted second moments of a node's section and what its neighbours sent.

    Gathered while training at no extra bytes. The encoder moves meanwhile, so old batches fade:
    with `decay` 0.98 about the last 50 batches count. Stored in float64: mean of h (d_i), mean
    of the stacked p (sum of d_ij), their covariances S_hp and S_pp, and the diagonal of S_hh.

    Args:
        dim: d_i.
        edge_dims: d_ij of each incident edge, in the fixed order of the edges.
        decay: weight that an old batch keeps when a new one comes.
        device: where they are kept, and where batches come from.
    """

    def __init__(
        self,
        dim: int,
        edge_dims: Sequence[int],
        decay: float = 0.98,
        device: torch.device | None = None,
    ) -> None:
        self._decay = decay
        starts = [sum(edge_dims[:k]) for k in range(len(edge_dims))]
        self._slices = [slice(s, s + d) for s, d in zip(starts, edge_dims, strict=True)]
        total = sum(edge_dims)
        self._weight = 0.0
        self._solved: dict[tuple[tuple[int, ...], float], tuple[Tensor, Tensor, Tensor]] = {}
        self._h = torch.zeros(dim, dtype=torch.float64, device=device)
        self._hh = self._h.new_zeros(dim)
        self._p = self._h.new_zeros(total)
        self._hp = self._h.new_zeros(dim, total)
        self._pp = self._h.new_zeros(total, total)

    def update(self, section: Tensor, received: Sequence[Tensor]) -> None:
        """Take in a batch: h (B, d_i) and the p_j of every incident edge, each (B, d_ij)."""
        rows = section.shape[0]
        p = torch.cat([*received, section.new_zeros(rows, 0)], dim=1)
        keep = self._decay
        self._weight = keep * self._weight + (1 - keep)
        self._solved.clear()
        for total, batch in (
            (self._h, section.mean(dim=0)),
            (self._hh, section.square().mean(dim=0)),
            (self._p, p.mean(dim=0)),
            (self._hp, section.T @ p / rows),
            (self._pp, p.T @ p / rows),
        ):
            total.mul_(keep).add_(batch, alpha=1 - keep)

    def state(self) -> dict[str, Tensor]:
        """All that was gathered, by name: ``weight`` (), ``h``, ``hh``, ``p``, ``hp``, ``pp``."""
        gathered = {name: getattr(self, f"_{name}") for name in _GATHERED}
        return {"weight": self._h.new_full((), self._weight), **gathered}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned.

        Raises:
            ValueError: it is of other dimensions.
        """
        own = self.state()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in state.items()}:
            raise ValueError("moments of other dimensions")
        self._solved.clear()
        self._weight = float(state["weight"])
        for name in _GATHERED:
            own[name].copy_(state[name])

    @property
    def empty(self) -> bool:
        """Whether no batch has been taken in yet."""
        return self._weight == 0.0

    @property
    def mean_section(self) -> Tensor:
        """The mean of h, (d_i,) float32; zero before the first batch."""
        return (self._h / (self._weight or 1.0)).float()

    @property
    def variance(self) -> Tensor:
        """The variance of every component of h, (d_i,) float32; zero before the first batch."""
        scale = 1.0 / (self._weight or 1.0)
        return (self._hh * scale - (self._h * scale).square()).clamp(min=0.0).float()

    def ridge(self, answered: Sequence[int], strength: float) -> AffineMap:
        """The best affine map from the stacked projections of `answered` to h.

        h is estimated as ``p @ weight.T + offset``, with
        weight = S_hp (S_pp + rho I)^-1 on the columns of `answered`, centred, and rho the
        `strength` times the mean variance of those columns.

        Args:
            answered: positions of the edges, in the fixed order.
            strength: relative regularization, above 0.

        Returns:
            weight (d_i, sum of d_ij) and offset (d_i,), float32.
        """
        return self._closed_form(answered, strength)[:2]

    def residual(self, answered: Sequence[int], strength: float) -> Tensor:
        """The mean square that `ridge` leaves of every component of h, (d_i,) float32.

        diag(S_hh - W S_ph - S_hp W^T + W S_pp W^T); of a Gaussian and without regularization the
        conditional variance. The same for every sample.
        """
        return self._closed_form(answered, strength)[2]

    def _closed_form(
        self, answered: Sequence[int], strength: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        asked = (tuple(answered), strength)
        if len(self._solved) >= _KEPT:
            self._solved.clear()
        if asked not in self._solved:
            self._solved[asked] = self._ridge(answered, strength)
        return self._solved[asked]

    def _ridge(self, answered: Sequence[int], strength: float) -> tuple[Tensor, Tensor, Tensor]:
        scale = 1.0 / (self._weight or 1.0)
        columns = _columns(self._slices, answered).to(self._h.device)
        mean_h, mean_p = self._h * scale, self._p[columns] * scale
        if not len(columns) or self.empty:
            nothing = mean_h.new_zeros(len(mean_h), len(columns)).float()
            return nothing, mean_h.float(), self.variance
        cross = self._hp[:, columns] * scale - torch.outer(mean_h, mean_p)
        own = self._pp[columns][:, columns] * scale - torch.outer(mean_p, mean_p)
        weight = _solve(own, cross, strength)
        left = self._hh * scale - mean_h.square()
        left = left + (weight * (weight @ own - 2 * cross)).sum(dim=1)
        return weight.float(), (mean_h - weight @ mean_p).float(), left.clamp(min=0.0).float()


def _columns(slices: Sequence[slice], answered: Sequence[int]) -> Tensor:
    parts = [torch.arange(slices[k].start, slices[k].stop) for k in answered]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)


def _solve(own: Tensor, cross: Tensor, strength: float) -> Tensor:
    """cross (own + rho I)^-1 with rho relative to the mean of the diagonal."""
    solved: Tensor = torch.linalg.solve(regularized(own, strength), cross.T)
    return solved.T


def regularized(covariance: Tensor, strength: float) -> Tensor:
    """`covariance` + rho I, rho `strength` times the mean of the diagonal."""
    rho = strength * float(covariance.diagonal().mean()) or 1e-12
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return covariance + rho * identity


def estimate(
    name: str,
    answers: Answers,
    rows: int,
    moments: Moments,
    duals: Sequence[AffineMap],
    strength: float,
) -> Tensor:
    """The missing sections of `rows` events under the estimator `name`.

    Args:
        name: one of `ESTIMATORS`.
        answers: what is known.
        rows: number of events.
        moments: of training.
        duals: Q_ij per edge position.
        strength: of the ridge.

    Returns:
        (rows, d_i) float32.

    Raises:
        ValueError: there is no such estimator.
    """
    mean = moments.mean_section
    result = mean.new_zeros(rows, len(mean))
    if name == "zero":
        return result
    if name == "train-mean":
        return result + mean
    if name == "mean":
        counts = mean.new_zeros(rows, 1)
        for position in sorted(answers):
            here, projections = answers[position]
            weight, offset = duals[position]
            result[here] += projections @ weight.T + offset
            counts[here] += 1
        return torch.where(counts > 0, result / counts.clamp(min=1), mean)
    if name == "ridge":
        return ridge_estimate(answers, rows, moments, strength)[0]
    raise ValueError(f"no estimator is called {name!r}; known: {', '.join(ESTIMATORS)}")


def ridge_estimate(
    answers: Answers, rows: int, moments: Moments, strength: float
) -> tuple[Tensor, Tensor]:
    """The missing sections of `rows` events by `Moments.ridge`, and what it leaves: (rows, d_i).

    Rows are grouped by which neighbours answered; each group has its own closed form.
    """
    mean = moments.mean_section
    result, left = mean.new_zeros(rows, len(mean)), mean.new_zeros(rows, len(mean))
    positions = sorted(answers)
    if not positions:
        return result + mean, left + moments.variance
    pattern = torch.stack([answers[k][0] for k in positions], dim=1)
    full = [spread(*answers[k], rows) for k in positions]
    groups, member = torch.unique(pattern, dim=0, return_inverse=True)
    for index, group in enumerate(groups):
        chosen = [k for k in range(len(positions)) if group[k]]
        asked = [positions[k] for k in chosen]
        weight, offset = moments.ridge(asked, strength)
        inside = member == index
        stacked = torch.cat([full[k][inside] for k in chosen], dim=1) if chosen else None
        result[inside] = offset if stacked is None else stacked @ weight.T + offset
        left[inside] = moments.residual(asked, strength)
    return result, left


def reached(answers: Answers, like: Tensor) -> Tensor:
    """The rows that any neighbour told something of: (rows,) bool, for the rows of `like`."""
    found = torch.zeros(len(like), dtype=torch.bool, device=like.device)
    for here, _ in answers.values():
        found |= here
    return found


def spread(here: Tensor, projections: Tensor, rows: int) -> Tensor:
    """The projections of the rows `here` among all `rows`, the others zero: (rows, d_ij)."""
    whole = projections.new_zeros(rows, projections.shape[1])
    whole[here] = projections
    return whole
