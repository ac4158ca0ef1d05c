"""How long a benchmark measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Sizes of every measurement."""

    repeats: int
    """Of everything, each in fresh processes, in turn with its reference."""
    round_trips: int
    """Of each message size in a repeat."""
    copies: int
    """Of each frame size in a block; a repeat is a block."""
    stretch: int
    """Rounds in a stretch."""
    stretches: int
    """Of rounds of the small network in a repeat, after the first, which warms up."""
    small: int
    """Nodes of the small network, an even number."""
    large: int | None
    """Nodes of the large network, or None to leave it out."""
    large_stretches: int
    """Of rounds of the large network."""


FULL = Effort(
    repeats=5,
    round_trips=1000,
    copies=400,
    stretch=25,
    stretches=4,
    small=6,
    large=64,
    large_stretches=2,
)
QUICK = Effort(
    repeats=1,
    round_trips=30,
    copies=20,
    stretch=3,
    stretches=1,
    small=4,
    large=None,
    large_stretches=1,
)
