"""Tensors as wire bytes: little-endian, C order, one of four dtypes.

``float32`` is exact. ``float16`` and ``bfloat16`` round to nearest. ``int8`` is one float32 scale
(largest magnitude / 127) followed by a byte a value. All but ``float32`` saturate: a finite
tensor never becomes infinite on its way. What arrives is float32 again.
"""

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sheafnet.errors import FrameError

Array = npt.NDArray[np.float32]


class WireDtype(IntEnum):
    """The dtype codes of the wire format."""

    NONE = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4

    @classmethod
    def named(cls, name: str) -> "WireDtype":
        """The code of a configuration's ``wire_dtype``."""
        return cls[name.upper()]


_ITEM_BYTES = {
    WireDtype.NONE: 0,
    WireDtype.FLOAT32: 4,
    WireDtype.FLOAT16: 2,
    WireDtype.BFLOAT16: 2,
    WireDtype.INT8: 1,
}
_SCALE_BYTES = 4
_SMALLEST_SCALE = np.finfo(np.float32).tiny
_BFLOAT16_MAX = float.fromhex("0x1.fep127")
_LARGEST = {
    WireDtype.FLOAT16: 65504.0,
    WireDtype.BFLOAT16: _BFLOAT16_MAX,
    WireDtype.INT8: _BFLOAT16_MAX,
}


def payload_bytes(dtype: WireDtype, rows: int, dim: int) -> int:
    """Size of the payload of a (rows, dim) tensor: the analytic floor of a message."""
    if rows == 0 or dtype is WireDtype.NONE:
        return 0
    return rows * dim * _ITEM_BYTES[dtype] + (_SCALE_BYTES if dtype is WireDtype.INT8 else 0)


def all_finite(array: Array) -> bool:
    """Whether no value of `array` is NaN or infinite.

    A NaN or an infinity makes the sum of squares one too; huge finite values may, and are looked
    at one by one.
    """
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.dot(flat, flat)
    return math.isfinite(square) or bool(np.isfinite(flat).all())


def pack(array: Array, dtype: WireDtype) -> bytes:
    """The wire bytes of `array` (rows, dim), finite float32."""
    if array.size == 0:
        return b""
    values = np.ascontiguousarray(array, dtype="<f4")
    if dtype is WireDtype.FLOAT32:
        return values.tobytes()
    values = values.clip(-_LARGEST[dtype], _LARGEST[dtype])
    if dtype is WireDtype.FLOAT16:
        return values.astype("<f2").tobytes()
    if dtype is WireDtype.BFLOAT16:
        bits = values.view("<u4")
        to_even = ((bits >> 16) & 1) + np.uint32(0x7FFF)
        return bytes(((bits + to_even) >> 16).astype("<u2"))
    scale = np.float32(max(np.abs(values).max() / 127.0, _SMALLEST_SCALE))
    return bytes(scale.astype("<f4")) + bytes(np.rint(values / scale).astype(np.int8))


def unpack(payload: bytes, dtype: WireDtype, rows: int, dim: int) -> Array:
    """The (rows, dim) float32 tensor of `payload`, writable.

    Raises:
        FrameError: the size is not that of (rows, dim) in `dtype`, or a value is NaN or infinite.
    """
    expected = payload_bytes(dtype, rows, dim)
    if len(payload) != expected:
        raise FrameError(
            f"a payload of {len(payload)} bytes where ({rows}, {dim}) in {dtype.name.lower()} "
            f"takes {expected}"
        )
    if rows == 0:
        return np.zeros((0, dim), dtype=np.float32)
    values: Array
    if dtype is WireDtype.FLOAT32:
        values = np.frombuffer(payload, dtype="<f4").astype(np.float32)
    elif dtype is WireDtype.FLOAT16:
        values = np.frombuffer(payload, dtype="<f2").astype(np.float32)
    elif dtype is WireDtype.BFLOAT16:
        bits = np.frombuffer(payload, dtype="<u2").astype("<u4") << np.uint32(16)
        values = bits.view("<f4").astype(np.float32)
    else:
        scale = np.frombuffer(payload, dtype="<f4", count=1)[0]
        values = np.frombuffer(payload, dtype=np.int8, offset=_SCALE_BYTES).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            values *= scale
    if not all_finite(values):
        raise FrameError("a payload with NaN or infinite values")
    return values.reshape(rows, dim)
