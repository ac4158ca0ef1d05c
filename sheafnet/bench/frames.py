"""A frame encoded and decoded, in one process, beside a copy of its payload in memory."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from sheafnet.bench.child import Measure
from sheafnet.bench.children import run, task
from sheafnet.bench.effort import Effort
from sheafnet.bench.figures import Figure, compare
from sheafnet.bench.messages import KIB, payload_of
from sheafnet.bench.turns import Tell, in_turn
from sheafnet.network.frame import Frame, Kind, decode, encode, run_tag
from sheafnet.network.payload import Array, WireDtype, pack, unpack

_PAGE = 4096


def encoded(values: Array) -> bytes:
    """The frame of a projection."""
    return encode(
        Frame(
            kind=Kind.PROJECTION,
            run=run_tag(0),
            incarnation=0,
            round=100,
            edge=1,
            direction=0,
            dtype=WireDtype.FLOAT32,
            rows=len(values),
            mask=None,
            payload=pack(values, WireDtype.FLOAT32),
        )
    )


def decoded(buffer: bytes, dim: int) -> Array:
    """The tensor (rows, dim) of a frame, every field checked."""
    frame = decode(buffer)
    return unpack(frame.payload, frame.dtype, frame.rows, dim)


def block(copies: int) -> Measure:
    """A task: copy, encode and decode `copies` frames of every size.

    Gives microseconds of each of the three, per size.
    """

    def measure() -> list[tuple[float, ...]]:
        found = []
        for kib in KIB:
            values = payload_of(kib)
            buffer, target = encoded(values), place_for(values)
            actions = (
                partial(np.copyto, target, values),
                partial(encoded, values),
                partial(decoded, buffer, values.shape[1]),
            )
            found.append(tuple(_fastest_us(action, copies) for action in actions))
        return found

    return measure


def place_for(values: Array) -> Array:
    """Memory for a copy of `values` that begins half a page away from where they do in theirs.

    The few bytes that an allocator puts before an array decide otherwise: some processors copy ten
    times slower to a place up to 31 bytes after the source modulo the 4 KiB of a page.
    """
    space = np.empty(values.nbytes + _PAGE, dtype=np.uint8)
    start = (values.ctypes.data + _PAGE // 2 - space.ctypes.data) % _PAGE
    return space[start : start + values.nbytes].view(values.dtype).reshape(values.shape)


def _fastest_us(action: Callable[[], object], count: int) -> float:
    """Microseconds of one `action`: of ten blocks of `count`, the mean of the fastest."""
    blocks = []
    for _ in range(10):
        begin = time.perf_counter()
        for _ in range(count):
            action()
        blocks.append((time.perf_counter() - begin) / count)
    return min(blocks) * 1e6


def measure(effort: Effort, tell: Tell) -> list[Figure]:
    """Frames of every size encoded and decoded."""
    child = partial(_block, effort.copies)
    repeats = in_turn({"frames": child}, effort.repeats, tell)["frames"]
    return [
        compare(
            "frames",
            f"{kib} KiB, {name}",
            "np.copyto",
            "us",
            [repeat[at][column] for repeat in repeats],
            [repeat[at][0] for repeat in repeats],
        )
        for column, name in ((1, "encode"), (2, "decode"))
        for at, kib in enumerate(KIB)
    ]


def _block(copies: int) -> list[tuple[float, ...]]:
    (found,) = run(task("frames:block", copies=copies))
    return [tuple(times) for times in found]
