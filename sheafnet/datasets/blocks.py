"""Random numbers that belong to events, drawn in blocks of consecutive events.

A view must be the same whatever batch it is asked in, so its random numbers hang on the event
alone. One stream per event would spend the time on opening streams; one stream per `BLOCK` events
is always drawn in full, and an event owns the row of its offset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sheafnet.datasets.base import Events
from sheafnet.seeds import Name, stream

BLOCK = 32
Array = npt.NDArray[Any]


class Draw(Protocol):
    """What is drawn for every event: an array of ``shape`` from some distribution."""

    def empty(self, events: int) -> Array:
        """Room for the draws of `events` events: (events, *shape)."""
        ...

    def fill(self, rng: np.random.Generator, out: Array) -> None:
        """Draw all of `out`, which is C-contiguous."""
        ...


@dataclass(frozen=True)
class Normal:
    """Standard normal numbers, float32."""

    shape: tuple[int, ...]

    def empty(self, events: int) -> Array:
        """Room for the draws of `events` events: (events, *shape)."""
        return np.empty((events, *self.shape), np.float32)

    def fill(self, rng: np.random.Generator, out: Array) -> None:
        """Draw all of `out`."""
        rng.standard_normal(out=out, dtype=np.float32)


@dataclass(frozen=True)
class PixelNoise:
    """Standard normal noise in 65,536 equally likely levels, float32.

    A sixth of the cost of exact normal numbers, which would be most of the cost of a view; the
    levels reach 4.3 standard deviations and lie far closer than the 256 greys of a pixel, except
    in the outermost thousandth.
    """

    shape: tuple[int, ...]

    def empty(self, events: int) -> Array:
        """Room for the draws of `events` events: (events, *shape)."""
        return np.empty((events, *self.shape), np.float32)

    def fill(self, rng: np.random.Generator, out: Array) -> None:
        """Draw all of `out`."""
        words = np.asarray(rng.bit_generator.random_raw(-(-out.size // 4)), "<u8")
        levels = words.view("<u2")[: out.size].reshape(out.shape)
        # Every level is a valid index; "clip" only spares numpy the buffer of its checked mode.
        np.take(_normal_levels(), levels, out=out, mode="clip")


@lru_cache(maxsize=1)
def _normal_levels() -> npt.NDArray[np.float32]:
    upper = [NormalDist().inv_cdf((level + 0.5) / 65536) for level in range(32768, 65536)]
    levels = np.concatenate([-np.array(upper[::-1]), upper])
    unit: npt.NDArray[np.float32] = (levels / levels.std()).astype(np.float32)
    return unit


@dataclass(frozen=True)
class Uniform:
    """Uniform numbers in [0, 1), float32."""

    shape: tuple[int, ...]

    def empty(self, events: int) -> Array:
        """Room for the draws of `events` events: (events, *shape)."""
        return np.empty((events, *self.shape), np.float32)

    def fill(self, rng: np.random.Generator, out: Array) -> None:
        """Draw all of `out`."""
        rng.random(out=out, dtype=np.float32)


@dataclass(frozen=True)
class Integers:
    """Whole numbers from `low` to `high`, both included, int64."""

    shape: tuple[int, ...]
    low: int
    high: int

    def empty(self, events: int) -> Array:
        """Room for the draws of `events` events: (events, *shape)."""
        return np.empty((events, *self.shape), np.int64)

    def fill(self, rng: np.random.Generator, out: Array) -> None:
        """Draw all of `out`."""
        out[...] = rng.integers(self.low, self.high, out.shape, endpoint=True)


class Blocks:
    """The random numbers of the stream family `names` under `seed`."""

    def __init__(self, seed: int, *names: Name) -> None:
        """The block's number is the last name of its stream."""
        self._seed, self._names = seed, names

    def rows(self, events: Events, *draws: Draw) -> tuple[Array, ...]:
        """For each of `draws`, in this order from each block's stream: (len(events), *shape)."""
        found = tuple(draw.empty(len(events)) for draw in draws)
        if _whole(events):
            for start in range(0, len(events), BLOCK):
                rng = self._open(int(events[start]) // BLOCK)
                for draw, out in zip(draws, found, strict=True):
                    draw.fill(rng, out[start : start + BLOCK])
            return found
        block = tuple(draw.empty(BLOCK) for draw in draws)
        for number, at, offsets in _groups(events):
            rng = self._open(number)
            for draw, out, drawn in zip(draws, found, block, strict=True):
                draw.fill(rng, drawn)
                out[at] = drawn[offsets]
        return found

    def _open(self, number: int) -> np.random.Generator:
        return stream(self._seed, *self._names, number)


def whole_blocks(events: Events) -> tuple[Events, Events]:
    """All events of the blocks that `events` touch, and where among them each of `events` is.

    For arithmetic whose rounding may depend on the size of the batch (matrix products): done on
    whole blocks of `BLOCK` rows, it gives an event the same bits in every batch.
    """
    numbers, at = np.unique(events // BLOCK, return_inverse=True)
    whole = (numbers[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    return whole, at * BLOCK + events % BLOCK


def _whole(events: Events) -> bool:
    """Are `events` an ascending run of complete blocks, so that draws can land in place?"""
    if len(events) % BLOCK or not len(events) or events[0] % BLOCK:
        return False
    return bool((events == np.arange(events[0], events[0] + len(events))).all())


def _groups(events: Events) -> Iterator[tuple[int, Events, Events]]:
    """Each block that `events` touch: its number, their positions in the batch, their offsets."""
    numbers, offsets = np.divmod(events, BLOCK)
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    for at in np.split(order, cuts) if len(events) else ():
        yield int(numbers[at[0]]), at, offsets[at]
