"""Tensors as wire bytes: little-endian, C order, one of six dtypes.

``float32`` is exact. ``float16`` and ``bfloat16`` round to nearest. The others are scales
followed by a byte a value, which counts steps of its scale: ``int8`` has one float32 scale (largest
magnitude / 127), ``int8-row`` and ``int8-channel`` a bfloat16 scale for each row or column. All but
``float32`` saturate: a finite tensor never becomes infinite on its way. What arrives is float32
again.

A bfloat16 scale has 8 significant bits and a step count 7, so that their product is exact in
float32. Rounding the scale moves it by at most 1 / 257 of itself, so the largest magnitude of a
row is always 127 steps of it, to nearest; the scale follows from the values that arrive, and they
have one spelling. Only rows whose scale would be below the smallest normal number have that one and
fewer steps.
"""

import math
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sheafnet.errors import FrameError

Array = npt.NDArray[np.float32]
Buffer = bytes | memoryview
"""Bytes that may be those of something larger."""
_Bits = npt.NDArray[np.uint16]


class WireDtype(IntEnum):
    """The dtype codes of the wire format."""

    NONE = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4
    INT8_ROW = 5
    INT8_CHANNEL = 6

    __hash__ = int.__hash__  # as that of `Kind`

    @classmethod
    def named(cls, name: str) -> "WireDtype":
        """The code of a configuration's ``wire_dtype``."""
        return cls[name.upper().replace("-", "_")]

    @property
    def label(self) -> str:
        """The ``wire_dtype`` of a configuration."""
        return self.name.lower().replace("_", "-")


_ITEM_BYTES = {
    WireDtype.NONE: 0,
    WireDtype.FLOAT32: 4,
    WireDtype.FLOAT16: 2,
    WireDtype.BFLOAT16: 2,
    WireDtype.INT8: 1,
    WireDtype.INT8_ROW: 1,
    WireDtype.INT8_CHANNEL: 1,
}
_FLOAT32 = np.dtype("<f4")
_BFLOAT16 = np.dtype("<u2")
_SCALE_BYTES = {WireDtype.INT8: 4, WireDtype.INT8_ROW: 2, WireDtype.INT8_CHANNEL: 2}
_SHARING = {WireDtype.INT8: (0, 1), WireDtype.INT8_ROW: (1,), WireDtype.INT8_CHANNEL: (0,)}
"""The axes along which values share a scale."""
_STEPS = np.float32(127)
_SMALLEST_SCALE = np.finfo(np.float32).tiny
_SMALLEST_BITS = 0x0080
"""The smallest normal number in bfloat16; infinity and NaN, and after them all that is negative,
begin at `_INFINITE_BITS`."""
_INFINITE_BITS = 0x7F80
_BFLOAT16_MAX = float.fromhex("0x1.fep127")
_LARGEST = {WireDtype.FLOAT16: 65504.0}
"""Where a dtype saturates, if not at the largest bfloat16."""


@lru_cache
def payload_bytes(dtype: WireDtype, rows: int, dim: int) -> int:
    """Size of the payload of a (rows, dim) tensor: the analytic floor of a message."""
    if rows == 0 or dtype is WireDtype.NONE:
        return 0
    scales = math.prod(_scales_shape(dtype, rows, dim)) * _SCALE_BYTES.get(dtype, 0)
    return rows * dim * _ITEM_BYTES[dtype] + scales


def pack(array: Array, dtype: WireDtype, draws: np.random.Generator | None = None) -> bytes:
    """The wire bytes of `array` (rows, dim), finite float32.

    Args:
        array: the tensor.
        dtype: on the wire.
        draws: rounds the steps of int8 stochastically, so that what arrives is `array` on average,
            but for the largest magnitudes that share a scale: those are rounded to nearest, as
            everything is without it.
    """
    if dtype is WireDtype.FLOAT32:
        return array.astype(_FLOAT32, copy=False).tobytes()
    if array.size == 0:
        return b""
    values = np.ascontiguousarray(array, dtype=_FLOAT32)
    bound = _LARGEST.get(dtype, _BFLOAT16_MAX)
    values = values.clip(-bound, bound)
    if dtype is WireDtype.FLOAT16:
        return values.astype("<f2").tobytes()
    if dtype is WireDtype.BFLOAT16:
        return _bfloat16(values).tobytes()
    largest = np.abs(values).max(axis=_SHARING[dtype], keepdims=True)
    scales = np.maximum(largest / _STEPS, _SMALLEST_SCALE)
    packed = bytes(scales)
    if dtype is not WireDtype.INT8:
        rounded = _bfloat16(scales)
        scales, packed = _widened(rounded), rounded.tobytes()
    steps: Array = values / scales
    if draws is None:
        steps = np.rint(steps)
    else:
        below = np.floor(steps)
        up = draws.random(steps.shape, dtype=np.float32) < steps - below
        steps = np.where(np.abs(values) == largest, np.rint(steps), below + up)
        steps = steps.clip(-_STEPS, _STEPS)
    return packed + steps.astype(np.int8).tobytes()


def unpack(payload: Buffer, dtype: WireDtype, rows: int, dim: int) -> Array:
    """The (rows, dim) float32 tensor of `payload`, writable.

    Raises:
        FrameError: the size is not that of (rows, dim) in `dtype`, a value is NaN or infinite, or
            a scale of a row or column is another than `pack` chooses.
    """
    expected = payload_bytes(dtype, rows, dim)
    if len(payload) != expected:
        raise FrameError(
            f"a payload of {len(payload)} bytes where ({rows}, {dim}) in {dtype.label} "
            f"takes {expected}"
        )
    if rows == 0:
        return np.zeros((0, dim), dtype=np.float32)
    values: Array
    if dtype is WireDtype.FLOAT32:
        values = np.frombuffer(payload, dtype=_FLOAT32).astype(np.float32)
    elif dtype is WireDtype.FLOAT16:
        values = np.frombuffer(payload, dtype="<f2").astype(np.float32)
    elif dtype is WireDtype.BFLOAT16:
        values = _widened(np.frombuffer(payload, dtype=_BFLOAT16)).astype(np.float32)
    else:
        values = _stepped(payload, dtype, rows, dim)
    if not all_finite(values):
        raise FrameError("a payload with NaN or infinite values")
    return values.reshape(rows, dim)


def all_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite.

    One pass of a sum of squares tells of nearly all tensors: it is finite only if every value is.
    Of larger values than the root of the largest number it is not, and each is looked at.
    """
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())


def _stepped(payload: Buffer, dtype: WireDtype, rows: int, dim: int) -> Array:
    """The values of scales and steps; infinite ones among them are still to be refused."""
    steps = np.frombuffer(payload, dtype=np.int8, offset=len(payload) - rows * dim)
    values = steps.astype(np.float32).reshape(rows, dim)
    shape = _scales_shape(dtype, rows, dim)
    if dtype is WireDtype.INT8:
        scales = np.frombuffer(payload, dtype=_FLOAT32, count=1)
    else:
        bits = np.frombuffer(payload, dtype=_BFLOAT16, count=math.prod(shape)).reshape(shape)
        _refuse_other_scales(bits, np.abs(values).max(axis=_SHARING[dtype], keepdims=True))
        scales = _widened(bits)
    with np.errstate(over="ignore", invalid="ignore"):
        values *= scales.reshape(shape)
    return values


def _refuse_other_scales(bits: _Bits, largest: Array) -> None:
    """Refuse scales that are not those of the `largest` step counts; -128 is none of them."""
    normal = (bits >= _SMALLEST_BITS) & (bits < _INFINITE_BITS)
    right = (largest == _STEPS) | ((bits == _SMALLEST_BITS) & (largest < _STEPS))
    if not (normal & right).all():
        raise FrameError("a scale of int8 that is not the largest magnitude / 127")


def _scales_shape(dtype: WireDtype, rows: int, dim: int) -> tuple[int, ...]:
    """Of the scales of a (rows, dim) tensor, to be multiplied with it; of no scales (0,)."""
    if dtype not in _SHARING:
        return (0,)
    return tuple(1 if axis in _SHARING[dtype] else n for axis, n in enumerate((rows, dim)))


def _bfloat16(values: Array) -> _Bits:
    """The nearest bfloat16 of each value, as bits; of two, the even one."""
    bits = values.view("<u4")
    to_even = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    rounded: _Bits = ((bits + to_even) >> 16).astype(_BFLOAT16)
    return rounded


def _widened(bits: _Bits) -> Array:
    """The float32 of bfloat16 bits."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4")
