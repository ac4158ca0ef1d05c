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
    stretches: int
    """Of rounds in a repeat, after the first, which warms up."""
    stretch: int
    """Rounds in a stretch of a small network."""
    small: int
    """Nodes of the small network, an even number."""
    large: int | None
    """Nodes of the large network, or None to leave it out."""
    large_stretch: int
    """Rounds in a stretch of the large network."""


FULL = Effort(
    repeats=5,
    round_trips=1000,
    copies=400,
    stretches=4,
    stretch=25,
    small=6,
    large=64,
    large_stretch=6,
)
QUICK = Effort(
    repeats=1,
    round_trips=30,
    copies=20,
    stretches=1,
    stretch=3,
    small=4,
    large=None,
    large_stretch=1,
)
