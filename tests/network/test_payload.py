"""Tensors as bytes, against Python's struct and torch's bfloat16."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sheafnet.errors import FrameError
from sheafnet.network.payload import WireDtype, pack, payload_bytes, unpack

FLOAT32, FLOAT16 = WireDtype.FLOAT32, WireDtype.FLOAT16
BFLOAT16, INT8 = WireDtype.BFLOAT16, WireDtype.INT8
DTYPES = [FLOAT32, FLOAT16, BFLOAT16, INT8]
FLOAT32_MAX = 3.4028234663852886e38  # (2 - 2**-23) * 2**127
BFLOAT16_MAX = 3.3895313892515355e38  # (2 - 2**-7) * 2**127

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
tensors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite
)


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def through(array: np.ndarray, dtype: WireDtype) -> np.ndarray:
    return unpack(pack(array, dtype), dtype, *array.shape)


# Values of the bytes


@pytest.mark.parametrize(
    ("dtype", "values", "golden"),
    [
        # 1.0 = 3f800000, -2.0 = c0000000, 2**-149 = 1: little-endian
        (FLOAT32, (1.0, -2.0, 2.0**-149), "0000803f 000000c0 01000000"),
        # 1.0 = 3c00, -2.0 = c000; 1 + 2**-11 is halfway to 1 + 2**-10: even is 3c00;
        # 1 + 3 * 2**-11 is halfway between 3c01 and 3c02: even is 3c02; 2**-24 is the smallest
        (FLOAT16, (1.0, -2.0, 1 + 2**-11, 1 + 3 * 2**-11, 2**-24), "003c 00c0 003c 023c 0100"),
        # 1.0 = 3f80; 1 + 2**-8 is halfway to 3f81: even is 3f80; 1 + 3 * 2**-8 goes up to 3f82
        (BFLOAT16, (1.0, -2.0, 1 + 2**-8, 1 + 3 * 2**-8), "803f 00c0 803f 823f"),
        # scale 63.5 / 127 = 0.5; 0.75 / 0.5 = 1.5 goes to 2, 0.25 / 0.5 = 0.5 to 0 (both even)
        (INT8, (63.5, -63.5, 0.75, 0.25, -1.0), "0000003f 7f 81 02 00 fe"),
    ],
)
def test_golden_payloads(dtype, values, golden):
    assert pack(row(*values), dtype) == bytes.fromhex(golden)


@pytest.mark.parametrize(
    ("dtype", "golden", "values"),
    [
        (FLOAT32, "0000803f 000000c0", (1.0, -2.0)),
        (FLOAT16, "003c 00c0 0100", (1.0, -2.0, 2.0**-24)),
        (BFLOAT16, "803f 00c0 7f7f", (1.0, -2.0, BFLOAT16_MAX)),
        (INT8, "0000003f 7f 80 01", (63.5, -64.0, 0.5)),
    ],
)
def test_golden_payloads_read(dtype, golden, values):
    array = unpack(bytes.fromhex(golden), dtype, 1, len(values))
    assert array.dtype == np.float32
    assert array.tolist() == [list(values)]


@given(array=tensors)
@settings(max_examples=100, deadline=None)
def test_float32_is_exact(array):
    packed = pack(array, FLOAT32)
    assert packed == struct.pack(f"<{array.size}f", *array.ravel().tolist())
    assert unpack(packed, FLOAT32, *array.shape).tobytes() == array.tobytes()  # -0.0 too


@given(value=finite)
@example(value=65504.0)
@example(value=65519.99609375)
@example(value=65520.0)
@example(value=-FLOAT32_MAX)
@example(value=2.0**-25)
@settings(max_examples=500, deadline=None)
def test_float16_rounds_as_struct_does_and_saturates(value):
    bound = 65504.0
    expected = struct.pack("<e", max(-bound, min(bound, value)))
    assert pack(row(value), FLOAT16) == expected


def test_every_float16_is_read_as_struct_does():
    for first in range(0, 65536, 4096):
        packed = struct.pack("<4096H", *range(first, first + 4096))
        values = [v for (v,) in struct.iter_unpack("<e", packed)]
        kept = [k for k, v in enumerate(values) if math.isfinite(v)]
        sound = b"".join(packed[2 * k : 2 * k + 2] for k in kept)
        assert unpack(sound, FLOAT16, len(kept), 1).ravel().tolist() == [values[k] for k in kept]
        for k in set(range(4096)) - set(kept):
            with pytest.raises(FrameError, match="NaN or infinite"):
                unpack(packed[2 * k : 2 * k + 2], FLOAT16, 1, 1)


def bfloat16_by_torch(array: np.ndarray) -> np.ndarray:
    return torch.from_numpy(array).to(torch.bfloat16).view(torch.int16).numpy().view("<u2")


def test_bfloat16_rounds_as_torch_does():
    """All 65,536 upper halves, with lower halves below, at and above the middle."""
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)
    bits = (np.arange(65536, dtype=np.uint32)[:, None] << 16) | lower
    values = bits.view(np.float32)
    values = values[np.isfinite(values).all(axis=1)]
    assert len(values) == 65536 - 2 * 128  # exponent 255: 7 bits and a sign
    expected = bfloat16_by_torch(values)
    infinite = (expected & 0x7FFF) == 0x7F80
    assert infinite.sum() == 2 * 3  # what torch rounds up to infinity from 7f7f8000 on, ...
    expected = np.where(infinite, expected - 1, expected)  # ... stays at the largest value here
    assert pack(values, BFLOAT16) == expected.tobytes()


def test_every_bfloat16_is_read_as_torch_does():
    bits = np.arange(65536, dtype=np.uint16)
    values = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).to(torch.float32).numpy()
    sound = np.isfinite(values)
    read = unpack(bits[sound].tobytes(), BFLOAT16, int(sound.sum()), 1)
    assert read.ravel().tobytes() == values[sound].tobytes()
    for pattern in bits[~sound].tolist():
        with pytest.raises(FrameError, match="NaN or infinite"):
            unpack(pattern.to_bytes(2, "little"), BFLOAT16, 1, 1)


@given(array=tensors)
@example(array=row(2.5e-43, -1.4e-45))  # a scale below the smallest normal number
@example(array=row(FLOAT32_MAX, -FLOAT32_MAX))
@example(array=row(0.0, -0.0))
@settings(max_examples=300, deadline=None)
def test_int8_is_within_half_a_step(array):
    """A step is the largest magnitude / 127, and never below the smallest normal float32."""
    largest = float(np.abs(array.astype(np.float64)).max())
    step = max(min(largest, BFLOAT16_MAX) / 127, 2.0**-126)
    got = through(array, INT8).astype(np.float64)
    exact = np.clip(array.astype(np.float64), -BFLOAT16_MAX, BFLOAT16_MAX)
    assert np.abs(got - exact).max() <= step / 2 * (1 + 1e-4)


@given(array=tensors)
@settings(max_examples=100, deadline=None)
def test_int8_is_a_scale_and_a_byte_a_value(array):
    packed = pack(array, INT8)
    (scale,) = struct.unpack_from("<f", packed)
    levels = struct.unpack_from(f"{array.size}b", packed, 4)
    assert len(packed) == 4 + array.size
    assert -127 <= min(levels) <= max(levels) <= 127
    expected = [np.float32(scale) * np.float32(level) for level in levels]
    assert unpack(packed, INT8, *array.shape).ravel().tolist() == expected
    if np.abs(array).max() > 1e-30:
        assert max(map(abs, levels)) == 127  # the whole range is used


def test_int8_uses_one_scale_for_the_whole_tensor():
    array = np.array([[127.0, 1.0], [-64.0, 0.4]], dtype=np.float32)
    assert through(array, INT8).tolist() == [[127.0, 1.0], [-64.0, 0.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@given(array=tensors)
@example(array=row(FLOAT32_MAX, -FLOAT32_MAX))
@example(array=row(BFLOAT16_MAX, 1.0))
@example(array=row(2.5e-43, -1.4e-45))
@settings(max_examples=60, deadline=None)
def test_what_is_finite_arrives_and_twice_changes_nothing_more(dtype, array):
    """A sender that checked its tensor is never refused; rounded values are fixed points."""
    once = through(array, dtype)
    assert once.shape == array.shape
    assert np.isfinite(once).all()
    assert np.array_equal(np.signbit(once)[once != 0], np.signbit(array)[once != 0])
    if dtype is not INT8:
        assert through(once, dtype).tobytes() == once.tobytes()


# Layout


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_go_out_in_c_order_whatever_the_memory_order(dtype):
    array = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
    expected = pack(array, dtype)
    wide = np.zeros((6, 8), dtype=np.float32)
    wide[::2, ::2] = array
    backwards = np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    big_endian = array.astype(">f4")
    for same in (np.asfortranarray(array), wide[::2, ::2], backwards, big_endian):
        assert pack(same, dtype) == expected
    if dtype is not INT8:
        assert unpack(expected, dtype, 3, 4).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_packing_leaves_its_input_alone_and_unpacking_gives_an_own_writable_array(dtype):
    array = row(1e30, -2.0, 3.0)
    packed = pack(array, dtype)
    assert array.tolist() == row(1e30, -2.0, 3.0).tolist()
    first, second = unpack(packed, dtype, 1, 3), unpack(packed, dtype, 1, 3)
    first[:] = 0
    assert second[0, 0] != 0
    assert torch.from_numpy(second).requires_grad_().is_leaf  # torch warns if it is read-only


# Sizes


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (WireDtype.NONE, 0),
        (FLOAT32, 128 * 32 * 4),
        (FLOAT16, 128 * 32 * 2),
        (BFLOAT16, 128 * 32 * 2),
        (INT8, 4 + 128 * 32),
    ],
)
def test_floor_of_a_training_message(dtype, size):
    assert payload_bytes(dtype, 128, 32) == size
    if dtype is not WireDtype.NONE:
        assert len(pack(np.ones((128, 32), dtype=np.float32), dtype)) == size


@pytest.mark.parametrize("dtype", WireDtype)
def test_no_rows_are_no_bytes(dtype):
    empty = np.zeros((0, 7), dtype=np.float32)
    assert payload_bytes(dtype, 0, 7) == 0
    assert pack(empty, dtype) == b""
    assert unpack(b"", dtype, 0, 7).shape == (0, 7)
    for extra in (b"\x00", bytes(4), bytes(28)):
        with pytest.raises(FrameError, match="takes 0"):
            unpack(extra, dtype, 0, 7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [-4, -2, -1, 1, 2, 4])
def test_any_other_size_is_refused(dtype, change):
    right = {FLOAT32: 24, FLOAT16: 12, BFLOAT16: 12, INT8: 10}[dtype]
    assert unpack(bytes(right), dtype, 2, 3).tolist() == [[0.0] * 3] * 2
    with pytest.raises(FrameError, match=rf"{right + change} bytes .* takes {right}"):
        unpack(bytes(right + change), dtype, 2, 3)


def test_none_has_no_values():
    with pytest.raises(FrameError):
        unpack(bytes(4), WireDtype.NONE, 1, 1)


# NaN and infinity on arrival


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        (FLOAT32, "0000807f"), (FLOAT32, "000080ff"),  # infinities
        (FLOAT32, "0000c07f"), (FLOAT32, "0100807f"), (FLOAT32, "ffffffff"),  # NaN
        (FLOAT16, "007c"), (FLOAT16, "00fc"), (FLOAT16, "007e"), (FLOAT16, "017c"),
        (BFLOAT16, "807f"), (BFLOAT16, "80ff"), (BFLOAT16, "c07f"), (BFLOAT16, "817f"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 2, 5])
def test_one_value_that_is_not_finite(dtype, bits, place):
    value = bytes.fromhex(bits)
    packed = b"".join(value if k == place else bytes(len(value)) for k in range(6))
    with pytest.raises(FrameError, match="NaN or infinite"):
        unpack(packed, dtype, 2, 3)


@pytest.mark.parametrize(
    ("scale", "level"),
    [
        ("0000c07f", 1), ("0000c07f", 0), ("0100807f", 1),  # NaN
        ("0000807f", 1), ("000080ff", 0),  # infinite; infinite times 0 is NaN
        ("ffff7f7f", 2), ("ffff7f7f", -128),  # finite, but their product is not
    ],
)  # fmt: skip
def test_an_int8_scale_that_makes_values_infinite(scale, level):
    with pytest.raises(FrameError, match="NaN or infinite"):
        unpack(bytes.fromhex(scale) + struct.pack("2b", 0, level), INT8, 1, 2)


@pytest.mark.parametrize(
    ("name", "code"), [("float32", 1), ("float16", 2), ("bfloat16", 3), ("int8", 4)]
)
def test_codes_on_the_wire(name, code):
    assert WireDtype.named(name) == code
