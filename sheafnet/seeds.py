"""One seed, many independent named streams.

Every random number of a run is drawn from ``stream(seed, *names)``. A name says what the stream
is for ("view", node, split, block), so that two nodes which must agree (both ends of an edge, all
nodes of a round) name the same stream and draw the same numbers without exchanging anything, and
nothing depends on the order in which nodes run. Philox is counter-based: a stream costs a few
microseconds to open, and no state is carried from one to the next.
"""

from hashlib import blake2b

import numpy as np

Name = str | int


def derive(seed: int, *names: Name) -> int:
    """A 128-bit key for the stream called `names` under `seed`; stable across machines."""
    text = "\x1f".join(f"{type(n).__name__}:{n}" for n in (seed, *names))
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "little")


def stream(seed: int, *names: Name) -> np.random.Generator:
    """The generator of the stream called `names`."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *names)))
