"""A failure signature that shows in a run, in words and with the figure that shows it.

A figure counts as no better than guessing while it has gone less than `NEAR` of the way from what
guessing scores to perfect, or lies within `SIGMAS` standard errors of guessing.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

NEAR = 0.05
"""The part of the way from guessing to perfect that is as good as none."""
SIGMAS = 3.0
"""Standard errors of a share over G events, sqrt(p (1 - p) / G)."""

Signature = Literal[
    "contrast-at-chance",
    "collapse",
    "zero-shot-at-chance",
    "overfitting",
    "reconstruction",
    "dual-maps",
]
Scope = Literal["network", "edge", "node"]

_NAMED = 5
"""Places that a text lists."""


class Finding(BaseModel):
    """One signature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Signature
    scope: Scope
    where: list[str]
    """Names of the edges or nodes; empty where it is the whole network."""
    figure: str
    """The key of the figure in the summary or in rounds.jsonl."""
    value: float
    """The figure; the worst one of the places."""
    bound: float
    """What it should have stayed clear of."""
    text: str
    """Where, what, and what to try."""

    @classmethod
    def at(
        cls,
        signature: Signature,
        scope: Scope,
        places: Mapping[str, float],
        *,
        figure: str,
        value: float,
        bound: float,
        text: str,
    ) -> "Finding":
        """A finding at the edges or nodes `places`, or of the network where there are none."""
        where = sorted(places)
        if where:
            more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
            kind = scope if len(where) == 1 else f"{scope}s"
            text = f"{kind} {', '.join(where[:_NAMED])}{more}: {text}"
        return cls(
            signature=signature,
            scope=scope if where else "network",
            where=where,
            figure=figure,
            value=value,
            bound=bound,
            text=text,
        )
