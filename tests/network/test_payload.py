"""Tensors as bytes, against Python's struct and torch's bfloat16."""

import math
import struct
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sheafnet.errors import FrameError
from sheafnet.network.payload import WireDtype, all_finite, pack, payload_bytes, unpack

FLOAT32, FLOAT16 = WireDtype.FLOAT32, WireDtype.FLOAT16
BFLOAT16, INT8 = WireDtype.BFLOAT16, WireDtype.INT8
INT8_ROW, INT8_CHANNEL = WireDtype.INT8_ROW, WireDtype.INT8_CHANNEL
SCALED = [INT8_ROW, INT8_CHANNEL]
DTYPES = [FLOAT32, FLOAT16, BFLOAT16, INT8, *SCALED]
FLOAT32_MAX = 3.4028234663852886e38  # (2 - 2**-23) * 2**127
BFLOAT16_MAX = 3.3895313892515355e38  # (2 - 2**-7) * 2**127

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
tensors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite
)


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def through(
    array: np.ndarray, dtype: WireDtype, draws: np.random.Generator | None = None
) -> np.ndarray:
    return unpack(pack(array, dtype, draws), dtype, *array.shape)


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


THREE_ROWS = np.array([[63.5, -63.5, 0.75], [0, 0, 0], [254, 1, -3]], dtype=np.float32)


@pytest.mark.parametrize(
    ("dtype", "golden"),
    [
        # Scales 63.5 / 127 = 0.5 = 3f00, the smallest normal number 0080 of zeros, 254 / 127 = 2 =
        # 4000. 0.75 / 0.5 = 1.5 goes to 2, 1 / 2 to 0, -3 / 2 to -2 (all even).
        (INT8_ROW, "003f 8000 0040  7f8102 000000 7f00fe"),
        # Scales 2, 0.5 and 3 / 127 = 1.5118 / 64, of which 1.515625 / 64 = 3cc2 is the nearest.
        # 63.5 / 2 = 31.75, 0.75 * 64 / 1.515625 = 31.67, -3 * 64 / 1.515625 = -126.7.
        (INT8_CHANNEL, "0040 003f c23c  208120 000000 7f0281"),
    ],
)
def test_golden_payloads_with_a_scale_a_row_or_a_column(dtype, golden):
    assert pack(THREE_ROWS, dtype) == bytes.fromhex(golden)
    scales = {
        INT8_ROW: [[0.5], [2**-126], [2.0]],
        INT8_CHANNEL: [[2.0, 0.5, 1.515625 / 64]],
    }[dtype]
    steps = {
        INT8_ROW: [[127, -127, 2], [0, 0, 0], [127, 0, -2]],
        INT8_CHANNEL: [[32, -127, 32], [0, 0, 0], [127, 2, -127]],
    }[dtype]
    assert through(THREE_ROWS, dtype).tolist() == (np.array(scales) * np.array(steps)).tolist()


@given(array=tensors)
@example(array=row(2.5e-43, -1.4e-45))
@example(array=row(127 * 2.0**-126 * (1 + 2**-9), 2.0**-127))
@example(array=row(FLOAT32_MAX, -FLOAT32_MAX))
@settings(max_examples=300, deadline=None)
def test_a_row_is_within_half_a_step_of_its_own(array):
    """A step is the largest magnitude of the row / 127, rounded to 8 significant bits."""
    exact = np.clip(array.astype(np.float64), -BFLOAT16_MAX, BFLOAT16_MAX)
    steps = np.maximum(np.abs(exact).max(axis=1, keepdims=True) / 127, 2.0**-126)
    wrong = np.abs(through(array, INT8_ROW).astype(np.float64) - exact)
    assert (wrong <= steps / 2 * (1 + 1 / 256)).all()


@given(array=tensors)
@settings(max_examples=100, deadline=None)
def test_a_column_is_what_a_row_of_its_values_is(array):
    turned = np.ascontiguousarray(array.T)
    assert through(array, INT8_CHANNEL).T.tolist() == through(turned, INT8_ROW).tolist()


def test_the_largest_magnitude_is_127_steps_whatever_the_scale_loses():
    """All scales of 8 bits, what rounds to them, and what is just on the other side.

    Beside it stands what is a little smaller, and more than 127 steps of a scale that was rounded
    down.
    """
    largest = (np.linspace(127, 254, 5000, dtype=np.float32) * np.float32(2.0**-30))[:, None]
    ends = np.concatenate([largest, np.nextafter(largest, 0), -largest])
    pairs = np.concatenate([ends, ends * np.float32(0.9995)], axis=1)
    for draws in (None, np.random.default_rng(0)):
        packed = pack(pairs, INT8_ROW, draws)
        steps = np.frombuffer(packed, np.int8, offset=2 * len(pairs)).reshape(-1, 2)
        assert set(steps[:, 0].tolist()) == {127, -127}
        assert set(steps[:, 1].tolist()) == {126, 127, -126, -127}


# Stochastic rounding


@pytest.mark.parametrize("dtype", [INT8, *SCALED])
def test_stochastic_rounding_is_to_a_neighbouring_step_and_right_on_average(dtype):
    """Of scale 1, values up to 126 and the largest, 127; 4,000 draws."""
    values = np.linspace(-126, 125.3, 64, dtype=np.float32).reshape(8, 8)
    corners = np.zeros((9, 9), dtype=np.float32)
    corners[:8, :8] = values
    corners[8, :] = corners[:, 8] = 127
    draws = np.random.default_rng(1)
    found = np.stack([through(corners, dtype, draws) for _ in range(4000)])
    below, share = np.floor(values), values - np.floor(values)
    inner = found[:, :8, :8]
    assert np.isin(inner - below, (0.0, 1.0)).all()
    bound = 5 * np.sqrt(share * (1 - share) / 4000)
    assert (np.abs(inner.mean(axis=0) - values) <= bound + 1e-4).all()
    assert (found[:, 8] == 127).all()
    up = (inner - below).mean(axis=(1, 2))
    assert up.std() > 0  # the draws of one payload differ from those of the next


@pytest.mark.parametrize("dtype", [INT8, *SCALED])
def test_stochastic_rounding_leaves_whole_steps_and_takes_the_draws_as_they_come(dtype):
    whole = np.array([[127.0, -3.0, 64.0], [127.0, 127.0, 127.0]], dtype=np.float32)
    for seed in range(20):
        assert through(whole, dtype, np.random.default_rng(seed)).tolist() == whole.tolist()
    lowest = Mock(random=lambda shape, dtype: np.zeros(shape, dtype))
    assert through(whole, dtype, lowest).tolist() == whole.tolist()
    halves = whole - np.array([[0, 0.5, 0.5], [0, 0, 0]], dtype=np.float32)
    one, same, other = (pack(halves, dtype, np.random.default_rng(s)) for s in (0, 0, 3))
    assert one == same
    assert {one, other} <= {
        pack(whole - np.array([[0, a, b], [0, 0, 0]], dtype=np.float32), dtype)
        for a in (0, 1)
        for b in (0, 1)
    }
    assert one != other


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
        assert through(once, dtype, np.random.default_rng(0)).tobytes() == once.tobytes()


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
    if dtype in (FLOAT32, FLOAT16, BFLOAT16):
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
        (INT8_ROW, 2 * 128 + 128 * 32),
        (INT8_CHANNEL, 2 * 32 + 128 * 32),
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
    right = {FLOAT32: 24, FLOAT16: 12, BFLOAT16: 12, INT8: 10, INT8_ROW: 10, INT8_CHANNEL: 12}
    zeros = pack(np.zeros((2, 3), dtype=np.float32), dtype)
    assert len(zeros) == right[dtype]
    assert unpack(zeros, dtype, 2, 3).tolist() == [[0.0] * 3] * 2
    says = rf"{right[dtype] + change} bytes .* in {dtype.label} takes {right[dtype]}"
    with pytest.raises(FrameError, match=says):
        unpack((zeros + bytes(4))[: right[dtype] + change], dtype, 2, 3)


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


@pytest.mark.parametrize("size", [1, 7, 64, 20_001])  # the last in several threads of a BLAS
@pytest.mark.parametrize("others", [0.0, 1.5, -1.9e19, FLOAT32_MAX])  # squares of 1.9e19 overflow
def test_finite_values_are_told_from_others_wherever_they_stand(size, others):
    values = np.full((size, 2), others, dtype=np.float32)
    assert all_finite(values)
    assert all_finite(values[:, 0])
    for value in (math.nan, math.inf, -math.inf):
        for place in {0, size // 2, size - 1}:
            other = values.copy()
            other[place, 1] = value
            assert not all_finite(other)
            assert not all_finite(other[:, 1])
            assert all_finite(other[:, 0])


HOSTILE = {
    "NaN": ("c07f", 127, 0), "infinite": ("807f", 127, 0), "minus infinite": ("80ff", 127, 0),
    "negative": ("80bf", 127, 0), "minus zero": ("0080", 0, 0), "zero": ("0000", 0, 0),
    "zero under values": ("0000", 127, 1), "subnormal": ("7f00", 127, 1),
    "twice the steps": ("803f", 63, -63), "one step less": ("803f", 126, 1),
    "a step too many": ("803f", -128, 127), "smallest with a step too many": ("8000", -128, 0),
    "a scale of zeros": ("803f", 0, 0),
}  # fmt: skip


@pytest.mark.parametrize(("scale", "one", "two"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("dtype", SCALED)
def test_scales_that_are_not_of_their_values(dtype, scale, one, two):
    """In the second of two rows or columns, beside an honest one."""
    scales, steps = bytes.fromhex("803f" + scale), {INT8_ROW: (127, 1, one, two)}
    steps[INT8_CHANNEL] = (127, one, 1, two)
    with pytest.raises(FrameError, match="a scale of int8"):
        unpack(scales + struct.pack("4b", *steps[dtype]), dtype, 2, 2)


def test_a_scale_whose_values_are_infinite():
    # 127 * 2**121 * (1 + 2**-7) is below 2**128, 127 * 2**121 * (1 + 2**-6) is not.
    assert unpack(bytes.fromhex("017c 7f"), INT8_ROW, 1, 1).tolist() == [[127 * 129 * 2.0**114]]
    with pytest.raises(FrameError, match="NaN or infinite"):
        unpack(bytes.fromhex("027c 7f"), INT8_ROW, 1, 1)


@pytest.mark.parametrize("dtype", SCALED)
@given(
    scales=st.lists(
        st.sampled_from([0x0080, 0x0081, 0x3F80, 0x7C01, 0x0000, 0x8000]) | st.integers(0, 65535),
        min_size=2,
        max_size=2,
    ),
    steps=st.lists(st.sampled_from([0, 127, -127, 126, -128, 5]), min_size=4, max_size=4),
)
@settings(max_examples=500, deadline=None)
def test_what_is_accepted_has_one_spelling(dtype, scales, steps):
    """A payload is what packing its values gives, or it is refused."""
    packed = struct.pack("<2H4b", *scales, *steps)
    try:
        array = unpack(packed, dtype, 2, 2)
    except FrameError:
        return
    assert pack(array, dtype) == packed


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("float32", 1),
        ("float16", 2),
        ("bfloat16", 3),
        ("int8", 4),
        ("int8-row", 5),
        ("int8-channel", 6),
    ],
)
def test_codes_on_the_wire(name, code):
    assert WireDtype.named(name) == code
    assert WireDtype(code).label == name
