"""The wire format against the msgpack specification, worked out by hand.

From the specification: a number below 128 is its own byte; ``cc``, ``cd``, ``ce``, ``cf`` come
before 1, 2, 4, 8 big-endian bytes; ``9n`` is an array of n elements; ``c0`` is nil; ``c4``, ``c5``,
``c6`` come before a length of 1, 2, 4 bytes and that many raw bytes.
"""

import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.errors import FrameError, ProtocolError
from sheafnet.network import frame as frame_module
from sheafnet.network.frame import (
    MAX_FRAME_BYTES,
    MAX_ROWS,
    Frame,
    Kind,
    decode,
    encode,
    pack_mask,
    run_tag,
    unpack_mask,
)
from sheafnet.network.payload import WireDtype


def crc32_bit_by_bit(data: bytes) -> int:
    """CRC-32 (reflected, polynomial 0x04C11DB7) as its definition says, without zlib."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def spec_number(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    for lead, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if value < 256**size:
            return bytes([lead]) + value.to_bytes(size, "big")
    raise AssertionError(value)


def spec_bin(value: bytes) -> bytes:
    for lead, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4)):
        if len(value) < 256**size:
            return bytes([lead]) + len(value).to_bytes(size, "big") + value
    raise AssertionError(len(value))


def spec_elements(frame: Frame) -> list[bytes]:
    """The ten elements before the checksum."""
    numbers = [
        16 + int(frame.kind), frame.run, frame.incarnation, frame.round, frame.edge,
        frame.direction, int(frame.dtype), frame.rows,
    ]  # fmt: skip
    mask = b"\xc0" if frame.mask is None else spec_bin(frame.mask)
    return [*map(spec_number, numbers), mask, spec_bin(frame.payload)]


def seal(elements: list[bytes], head: bytes = b"\x9b") -> bytes:
    """An array of raw elements with a right checksum: what a liar who knows the format sends."""
    body = head + b"".join(elements)
    return body + b"\xce" + zlib.crc32(body).to_bytes(4, "big")


# name: (frame, its bytes, whole size, framing)
GOLDEN = {
    # (1, 2) float32: 1.0 = 3f800000, -2.0 = c0000000, each little-endian.
    # 1 array + 1 head + 5 run + 1+1+1+1+1+1 numbers + 1 nil + 2 bin header + 5 checksum = 21
    "projection": (
        Frame(
            Kind.PROJECTION, 0x80000001, 0, 0, 0, 0, WireDtype.FLOAT32, 1, None,
            bytes.fromhex("0000803f000000c0"),
        ),
        "9b 10 ce80000001 00 00 00 00 01 01 c0 c408 0000803f000000c0 ce02312a01",
        29,
        21,
    ),
    # Round 300 = 0x012c takes 3 bytes, edge 200 = 0xc8 takes 2; (3, 1) float16: 1.0 = 3c00,
    # 0.5 = 3800, -2.0 = c000.  21 + 2 + 1 = 24
    "gradient": (
        Frame(
            Kind.GRADIENT, 0x80000001, 0, 300, 200, 1, WireDtype.FLOAT16, 3, None,
            bytes.fromhex("003c003800c0"),
        ),
        "9b 11 ce80000001 00 cd012c ccc8 01 02 03 c0 c406 003c003800c0 ce61470b30",
        30,
        24,
    ),
    # The largest two-byte round and edge, the largest tag and one-byte incarnation;
    # (2, 1) bfloat16: 1.0 = 3f80, -3.0 = c040.  21 + 2 + 2 = 25
    "gallery": (
        Frame(
            Kind.GALLERY, 0xFFFFFFFF, 127, 65535, 65535, 1, WireDtype.BFLOAT16, 2, None,
            bytes.fromhex("803f40c0"),
        ),
        "9b 12 ceffffffff 7f cdffff cdffff 01 03 02 c0 c404 803f40c0 ce053e9bd3",
        29,
        25,
    ),
    # Classes 0 and 2 of 3: bits 0b101 = 05; (2, 1) float32: 0.5 = 3f000000, -0.25 = be800000.
    # 21 - 1 nil + 2 bin header = 22, and a byte of mask
    "prototypes": (
        Frame(
            Kind.PROTOTYPES, 0x89ABCDEF, 1, 7, 5, 0, WireDtype.FLOAT32, 2, b"\x05",
            bytes.fromhex("0000003f000080be"),
        ),
        "9b 13 ce89abcdef 01 07 05 00 01 02 c40105 c408 0000003f000080be ce46a8226c",
        31,
        22,
    ),
    # Rows 0, 3 and 9 of 10: 0b00001001, 0b10 = 09 02; round 65536 takes 5 bytes; no payload.
    # 22 + 4 = 26, and 2 bytes of mask
    "request": (
        Frame(
            Kind.REQUEST, 0x80000001, 2, 65536, 5, 1, WireDtype.NONE, 0, b"\x09\x02", b"",
        ),
        "9b 14 ce80000001 02 ce00010000 05 01 00 00 c4020902 c400 cee14e5281",
        28,
        26,
    ),
    # Rows 3 and 9 of 10: 08 02; (2, 2) int8: scale 0.5 = 3f000000, then 127, -127, 1, 0.
    "answer": (
        Frame(
            Kind.ANSWER, 0x80000001, 0, 15, 5, 0, WireDtype.INT8, 2, b"\x08\x02",
            bytes.fromhex("0000003f7f810100"),
        ),
        "9b 15 ce80000001 00 0f 05 00 04 02 c4020802 c408 0000003f7f810100 ce52842eb1",
        32,
        22,
    ),
    # Step 2 of round 5: 256 * 5 + 2 = 0x0502 takes 3 bytes. Rows 1 and 2 of those asked for are 06;
    # (2, 2) float16: 1.0 = 3c00, 0.5 = 3800, -2.0 = c000, 0 = 0000.
    # 21 - 1 nil + 2 bin header + 2 = 24, and a byte of mask
    "estimate": (
        Frame(
            Kind.ESTIMATE, 0x80000001, 0, 1282, 5, 0, WireDtype.FLOAT16, 2, b"\x06",
            bytes.fromhex("003c003800c00000"),
        ),
        "9b 16 ce80000001 00 cd0502 05 00 02 02 c40106 c408 003c003800c00000 ce8fd85c44",
        33,
        24,
    ),
    # One event: (1, 2) float32: 1.0 = 0000803f, -2.0 = 000000c0. 21 + 8 = 29.
    "calibration": (
        Frame(
            Kind.CALIBRATION, 0x80000001, 0, 0, 5, 1, WireDtype.FLOAT32, 1, None,
            bytes.fromhex("0000803f000000c0"),
        ),
        "9b 17 ce80000001 00 00 05 01 01 01 c0 c408 0000803f000000c0 ceda00ed52",
        29,
        21,
    ),
}  # fmt: skip

PROJECTION, ANSWER = GOLDEN["projection"][0], GOLDEN["answer"][0]


def golden_bytes(name: str) -> bytes:
    return bytes.fromhex(GOLDEN[name][1].replace(" ", ""))


uint32 = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1))
frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    run=st.integers(2**31, 2**32 - 1),
    incarnation=uint32,
    round=uint32,
    edge=uint32,
    direction=st.integers(0, 1),
    dtype=st.sampled_from(WireDtype),
    rows=st.integers(0, MAX_ROWS),
    mask=st.none() | st.binary(max_size=300),
    payload=st.binary(max_size=600),
)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_frames_in_both_directions(name):
    frame, _, size, framing = GOLDEN[name]
    golden = golden_bytes(name)
    assert len(golden) == size
    assert size - len(frame.payload) - len(frame.mask or b"") == framing
    assert int.from_bytes(golden[-4:], "big") == crc32_bit_by_bit(golden[:-5])
    assert encode(frame) == golden
    assert decode(golden) == frame


@given(frame=frames)
@settings(max_examples=300, deadline=None)
def test_every_frame_is_what_the_specification_says(frame):
    encoded = encode(frame)
    assert encoded == seal(spec_elements(frame))
    assert decode(encoded) == frame


@pytest.mark.parametrize("size", [255, 256, 65535, 65536])
def test_payload_sizes_round_the_lengths_of_bin(size):
    frame = replace(PROJECTION, payload=bytes(range(256)) * (size // 256 + 1))
    frame = replace(frame, payload=frame.payload[:size])
    header = {255: "c4ff", 256: "c50100", 65535: "c5ffff", 65536: "c600010000"}[size]
    encoded = encode(frame)
    # Before the payload: array, head, run (5), incarnation, round, edge, direction, dtype, rows,
    # nil = 14 bytes.
    assert encoded[14 : -size - 5].hex() == header
    assert len(encoded) == 14 + len(header) // 2 + size + 5
    assert decode(encoded) == frame


# The largest framing of a realistic message. Each of these fields at its largest:
# array 1, head 1, run 5, incarnation < 128: 1, round < 65536: 3, edge < 65536: 3, direction 1,
# dtype 1, rows < 65536: 3, mask: header 2 (2,000 bits are 250 bytes, so one byte of length),
# payload: header 5 (from 64 KiB up), checksum 5.
WORST = 1 + 1 + 5 + 1 + 3 + 3 + 1 + 1 + 3 + 2 + 5 + 5


def test_worst_realistic_framing_by_hand_is_31():
    frame = Frame(
        Kind.ANSWER, 0xFFFFFFFF, 127, 65535, 65535, 1, WireDtype.FLOAT32, 65535,
        bytes(250), bytes(2**24),
    )  # fmt: skip
    assert len(encode(frame)) - 2**24 - 250 == WORST == 31


@given(
    run=st.integers(),
    incarnation=st.integers(0, 127),
    numbers=st.tuples(*[st.integers(0, 65535)] * 3),
    kind=st.sampled_from(Kind),
    direction=st.integers(0, 1),
    mask_bits=st.none() | st.integers(0, 2000),
    payload_size=st.sampled_from([0, 1, 255, 256, 65535, 65536, 2**20]),
)
@settings(max_examples=200, deadline=None)
def test_framing_is_at_most_32_bytes(
    run, incarnation, numbers, kind, direction, mask_bits, payload_size
):
    round_, edge, rows = numbers
    mask = None if mask_bits is None else bytes((mask_bits + 7) // 8)
    frame = Frame(
        kind, run_tag(run), incarnation, round_, edge, direction, WireDtype.FLOAT16, rows,
        mask, bytes(payload_size),
    )  # fmt: skip
    framing = len(encode(frame)) - payload_size - len(mask or b"")
    assert 21 <= framing <= WORST <= 32


@given(value=st.integers())
def test_run_tags_always_take_five_bytes(value):
    assert spec_number(run_tag(value))[0] == 0xCE
    assert run_tag(value) % 2**31 == value % 2**31


# What is refused


@pytest.mark.parametrize("name", GOLDEN)
def test_truncated_anywhere(name):
    golden = golden_bytes(name)
    for size in range(len(golden)):
        with pytest.raises(FrameError):
            decode(golden[:size])


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("extra", [b"\x00", b"\xc0", b"\xce", b"\x9b", bytes(100)])
def test_trailing_bytes(name, extra):
    with pytest.raises(FrameError):
        decode(golden_bytes(name) + extra)


def test_two_frames_in_one_buffer():
    with pytest.raises(FrameError):
        decode(golden_bytes("projection") * 2)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_flipped_bit(name):
    golden = golden_bytes(name)
    for at in range(len(golden) * 8):
        damaged = bytearray(golden)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(FrameError):
            decode(bytes(damaged))


@given(frame=frames, data=st.data())
@settings(max_examples=200, deadline=None)
def test_every_burst_of_up_to_32_bits(frame, data):
    """CRC-32 finds every burst that is no longer than itself."""
    whole = int.from_bytes(encode(frame), "big")
    length = len(encode(frame))
    burst = data.draw(st.integers(1, 2**32 - 1))
    shift = data.draw(st.integers(0, length * 8 - burst.bit_length()))
    with pytest.raises(FrameError):
        decode((whole ^ burst << shift).to_bytes(length, "big"))


def test_a_frame_beyond_the_size_limit():
    with pytest.raises(FrameError, match=f"{MAX_FRAME_BYTES + 1} bytes"):
        decode(bytes(MAX_FRAME_BYTES + 1))


FIELDS = (
    "head", "run", "incarnation", "round", "edge", "direction", "dtype", "rows", "mask", "payload",
)  # fmt: skip

# Raw msgpack of one element, and its value; REFUSED where the specification makes it no number,
# nil or bin, or where it does not end.
REFUSED = object()
ELEMENTS: list[tuple[str, Any]] = [
    *((spec_number(n).hex(), n) for n in (0, 1, 2, 4, 5, 6, 15, 16, 22, 23, 31, 32, 37, 127, 255)),
    *((spec_number(n).hex(), n) for n in (MAX_ROWS, MAX_ROWS + 1, 2**31, 2**32 - 1)),
    # Numbers in more bytes than they need, or as signed ones: a message has one spelling.
    ("cc10", REFUSED), ("cd0001", REFUSED), ("ce00000002", REFUSED), ("d001", REFUSED),
    ("cf0000000000000003", REFUSED), ("d10001", REFUSED), ("d200000001", REFUSED),
    ("d30000000000000001", REFUSED), ("d10100", REFUSED), ("d200010000", REFUSED),
    # Too large, and negative.
    ("cf0000000100000000", 2**32), ("cfffffffffffffffff", 2**64 - 1),
    ("ff", -1), ("e0", -32), ("d080", -128), ("d18000", -(2**15)), ("d280000000", -(2**31)),
    ("d38000000000000000", -(2**63)),
    # bool, float
    ("c2", REFUSED), ("c3", REFUSED), ("ca3f800000", REFUSED), ("cb3ff0000000000000", REFUSED),
    ("ca7fc00000", REFUSED), ("cb7ff0000000000000", REFUSED),
    # nil, bin
    ("c0", None), ("c400", b""), ("c401ff", b"\xff"), ("c50001aa", REFUSED),
    ("c600000002abcd", REFUSED),
    # str (one not UTF-8), map, array
    ("a0", REFUSED), ("a161", REFUSED), ("a1ff", REFUSED), ("d90161", REFUSED),
    ("da000161", REFUSED), ("80", REFUSED), ("810000", REFUSED), ("de00010000", REFUSED),
    ("8180c0", REFUSED), ("90", REFUSED), ("9101", REFUSED), ("9b" + "00" * 11, REFUSED),
    ("dc000101", REFUSED), ("dd00000000", REFUSED),
    # ext, time stamp, the byte that means nothing
    ("d40100", REFUSED), ("c70005", REFUSED), ("c70105ff", REFUSED), ("d6ff00000000", REFUSED),
    ("c70cff" + "00" * 12, REFUSED), ("c1", REFUSED),
    # Lengths of 4 GiB with nothing behind them
    ("c6ffffffff", REFUSED), ("dbffffffff", REFUSED), ("ddffffffff", REFUSED),
    ("dfffffffff", REFUSED), ("c9ffffffff01", REFUSED),
]  # fmt: skip


def allowed(field: str, value: Any) -> bool:
    """The rules of the format's description, field by field."""
    if field in ("mask", "payload"):
        return isinstance(value, bytes) or (field == "mask" and value is None)
    if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
        return False
    return {
        "head": value in range(16, 24),
        "direction": value in (0, 1),
        "dtype": value in range(7),
        "rows": value <= 2**24,
    }.get(field, True)


@pytest.mark.parametrize("position", range(10), ids=FIELDS)
def test_any_element_in_any_field_with_a_right_checksum(position):
    field = FIELDS[position]
    for name in GOLDEN:
        frame = GOLDEN[name][0]
        elements = spec_elements(frame)
        for raw, value in ELEMENTS:
            elements[position] = bytes.fromhex(raw)
            buffer = seal(elements)
            if value is not REFUSED and allowed(field, value):
                change = {"kind": Kind(value - 16)} if field == "head" else {field: value}
                assert decode(buffer) == replace(frame, **change), (field, raw)
            else:
                with pytest.raises(FrameError):
                    decode(buffer)


@pytest.mark.parametrize(
    ("position", "element", "says"),
    [
        (0, "00", "version 0"),
        (0, "20", "version 2"),
        (0, "cd1010", "version 257"),
        (0, "18", "unknown kind 8"),
        (0, "1f", "unknown kind 15"),
        (3, "ff", "32-bit number"),
        (3, "c3", "32-bit number"),
        (5, "02", "direction 2"),
        (6, "07", "unknown dtype 7"),
        (7, "ce01000001", "16777217 rows"),
        (7, "ca3f800000", "32-bit number"),
        (8, "00", "mask or payload"),
        (9, "c0", "mask or payload"),
    ],
)
def test_a_refusal_says_why_and_names_the_edge(position, element, says):
    elements = spec_elements(ANSWER)
    elements[position] = bytes.fromhex(element)
    with pytest.raises(FrameError, match=says) as caught:
        decode(seal(elements))
    assert caught.value.edge == 5
    assert "(edge 5)" in str(caught.value)
    assert isinstance(caught.value, ProtocolError)


def test_the_edge_of_a_damaged_payload_is_named():
    golden = bytearray(golden_bytes("gradient"))
    golden[-6] ^= 0x10
    with pytest.raises(FrameError, match="checksum") as caught:
        decode(bytes(golden))
    assert caught.value.edge == 200


@pytest.mark.parametrize("element", ["ff", "c3", "ca3f800000", "c0", "cf0000000100000000"])
def test_an_edge_that_is_no_number_is_not_named(element):
    elements = spec_elements(ANSWER)
    elements[4] = bytes.fromhex(element)
    with pytest.raises(FrameError) as caught:
        decode(seal(elements))
    assert caught.value.edge is None


def test_truncated_frames_name_no_edge():
    with pytest.raises(FrameError) as caught:
        decode(golden_bytes("answer")[:-1])
    assert caught.value.edge is None


@pytest.mark.parametrize(
    ("head", "count"), [(b"\x9a", 9), (b"\x9c", 11), (b"\x90", 0), (b"\xdc\x00\x0c", 11)]
)
def test_more_or_fewer_fields(head, count):
    elements = [*spec_elements(PROJECTION), b"\x00"][:count]
    with pytest.raises(FrameError):
        decode(seal(elements, head))


@pytest.mark.parametrize("head", [b"\xdc\x00\x0b", b"\xdd\x00\x00\x00\x0b"])
def test_the_long_form_of_the_array_is_another_spelling(head):
    with pytest.raises(FrameError, match="another form than the shortest"):
        decode(seal(spec_elements(PROJECTION), head))


@pytest.mark.parametrize(
    ("position", "spelling"),
    # 300 as a signed number, as many bytes as the unsigned one; 200 and 3 in more; the payload's
    # length in two bytes.
    [(3, "d1012c"), (4, "cd00c8"), (7, "cc03"), (9, "c50006 003c003800c0")],
)
def test_another_spelling_of_the_same_message_is_refused(position, spelling):
    frame = GOLDEN["gradient"][0]
    elements = spec_elements(frame)
    elements[position] = bytes.fromhex(spelling)
    with pytest.raises(FrameError, match=r"another form than the shortest \(edge 200\)"):
        decode(seal(elements))


@pytest.mark.parametrize(
    "whole",
    [b"\xc0" * 6, b"\x8b" + b"\x00" * 22, b"\x05" * 6, b"\xc4\x20" + bytes(32), b"\xa6abcdef"],
    ids=["nil", "map", "numbers", "bin", "str"],
)
def test_something_else_than_an_array(whole):
    with pytest.raises(FrameError):
        decode(whole)


def test_a_checksum_in_another_type_is_refused():
    """Same value, but as a number of 8 bytes: the checksum has to be where it is looked for."""
    body = golden_bytes("projection")[:-5]
    value = zlib.crc32(body)
    assert value < 2**31
    for raw in (b"\xcf" + value.to_bytes(8, "big"), b"\xd2" + value.to_bytes(4, "big")):
        with pytest.raises(FrameError, match="checksum"):
            decode(body + raw)


@pytest.mark.parametrize("depth", [1, 2, 10, 1000, 1023, 1024, 1025, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x9b", b"\x81\xc0", b"\xdc\x00\x01"])
def test_deep_nesting(depth, opening):
    with pytest.raises(FrameError):
        decode(opening * depth + b"\xc0")
    with pytest.raises(FrameError):
        decode(seal([*spec_elements(PROJECTION)[:-1], opening * depth + b"\xc0"]))


def peak_of_refusing(buffer: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decode(buffer)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("claim", ["c6", "db", "dd", "df", "c9"])
def test_a_claim_of_four_gigabytes_allocates_nothing(claim):
    element = bytes.fromhex(claim + "ffffffff")
    for position in (8, 9):
        elements = spec_elements(PROJECTION)
        elements[position] = element
        assert peak_of_refusing(seal(elements)) < 100_000
    assert peak_of_refusing(element + bytes(100)) < 100_000


def test_wide_nesting_takes_no_multiple_of_its_bytes():
    """11 x 11 x 11 x 11 empty arrays are 16 kB here and would be 1 MB as Python lists."""

    def tree(levels: int) -> bytes:
        return b"\x90" if levels == 0 else b"\x9b" + tree(levels - 1) * 11

    buffer = tree(4)
    assert len(buffer) == 1 + 11 + 11**2 + 11**3 + 11**4
    assert peak_of_refusing(buffer) < 2 * len(buffer)


# Row masks


def mask_of(length: int, *rows: int) -> np.ndarray:
    bits = np.zeros(length, dtype=np.bool_)
    bits[list(rows)] = True
    return bits


@given(bits=st.lists(st.booleans(), max_size=300), sparse=st.integers(1, 40))
def test_a_mask_comes_back_and_takes_no_more_than_a_bit_a_row(bits, sparse):
    mask = np.array(bits, dtype=np.bool_)
    mask[np.arange(len(mask)) % sparse != 0] = False
    packed = pack_mask(mask)
    assert len(packed) <= -(-len(mask) // 8)
    unpacked = unpack_mask(packed, len(mask))
    assert unpacked.dtype == np.bool_
    assert unpacked.tolist() == mask.tolist()


@given(bits=st.lists(st.booleans(), max_size=16))
def test_bit_k_of_a_short_mask_is_bit_k_mod_8_of_byte_k_div_8(bits):
    whole = int.from_bytes(pack_mask(np.array(bits, dtype=np.bool_)), "little")
    assert whole == sum(1 << k for k, bit in enumerate(bits) if bit)


@pytest.mark.parametrize(
    ("mask", "packed"),
    [
        (mask_of(128), ""),
        (mask_of(128, 0, 3, 9), "09 02"),
        # Left out before each row: 20 = 15 + 5, then 14; 15 fills up. Bits would take 5 bytes.
        (mask_of(128, 20, 35), "f5 ef 00"),
        # 100 = 6 x 15 + 10
        (mask_of(128, 100), "ff ff ff af 00"),
        # 15 = 15 + 0, 15 = 15 + 0, 2
        (mask_of(128, 15, 31, 34), "f0 f0 2f 00"),
        # As long as the bits: the bits.
        (mask_of(24, 16, 17), "00 00 03"),
        (mask_of(16, *range(16)), "ff ff"),
    ],
)
def test_masks_by_hand(mask, packed):
    assert pack_mask(mask).hex(" ") == packed
    assert unpack_mask(bytes.fromhex(packed), len(mask)).tolist() == mask.tolist()


@given(packed=st.binary(max_size=16), zero=st.booleans(), length=st.integers(0, 128))
def test_every_mask_has_one_form(packed, zero, length):
    """Whatever bytes are accepted are those that the mask they name is packed into."""
    packed += b"\0" * zero
    try:
        mask = unpack_mask(packed, length)
    except FrameError:
        return
    assert len(mask) == length
    assert pack_mask(mask) == packed


@pytest.mark.parametrize(
    ("packed", "length"),
    [
        (b"\x01\x01", 8),
        (b"\x00", 9),
        (b"\x01\x00", 9),
        (b"\x00", 0),
        (b"\x08", 3),
        (b"\xff\x02", 9),
    ],
)
def test_masks_of_the_wrong_size_or_with_rows_beyond_the_last(packed, length):
    with pytest.raises(FrameError, match="row mask"):
        unpack_mask(packed, length)


# Frames with the header of an earlier one


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    """The frames that are looked at field by field, from no header known on."""
    looked_at: list[bytes] = []
    whole = frame_module._read

    def noting(buffer: bytes) -> Frame:
        looked_at.append(buffer)
        return whole(buffer)

    monkeypatch.setattr(frame_module, "_headers", {})
    monkeypatch.setattr(frame_module, "_read", noting)
    return looked_at


NEXT = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_second_frame_of_a_header_is_read_as_the_first(read, name):
    """Only its round and payload differ; with a mask, every frame is looked at anew."""
    golden = GOLDEN[name][0]
    for number in NEXT:
        for payload in (golden.payload, golden.payload[::-1]):
            frame = replace(golden, round=number, payload=payload)
            assert decode(encode(frame)) == frame
    assert len(read) == (1 if golden.mask is None else 2 * len(NEXT))


@pytest.mark.parametrize("field", ["kind", "run", "incarnation", "edge", "direction", "rows"])
def test_another_header_is_looked_at(read, field):
    first = GOLDEN["projection"][0]
    change = {"kind": Kind.GRADIENT}.get(field, getattr(first, field) ^ 1)
    second = replace(first, **{field: change})
    for frame in (first, second, first, second):
        assert decode(encode(frame)) == frame
    assert len(read) == 2 + 2 * (field == "rows")  # the last one is known of an edge and kind
    longer = replace(first, payload=first.payload + b"x")
    assert decode(encode(longer)) == longer


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("name", ["projection", "gradient"])
def test_what_is_refused_is_refused_of_a_known_header_too(name):
    """Every element of every field, and every damaged bit, as where no header is known."""
    golden = GOLDEN[name][0]

    def outcome(buffer: bytes) -> object:
        try:
            return decode(buffer)
        except FrameError as error:
            return str(error)

    buffers = []
    for position in range(10):
        for raw, _ in ELEMENTS:
            elements = spec_elements(golden)
            elements[position] = bytes.fromhex(raw)
            buffers.append(seal(elements))
    whole = encode(golden)
    for body in (whole[:-5] + b"EXTRA", whole[:-6], whole[:-7] + b"\x00", whole[:13]):
        buffers.append(seal([body[1:]]))
    for at in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        buffers.append(bytes(damaged))
    fresh = []
    for buffer in buffers:
        frame_module._headers.clear()
        fresh.append(outcome(buffer))
    known = []
    for buffer in buffers:
        frame_module._headers.clear()
        decode(whole)
        known.append(outcome(buffer))
    assert known == fresh
    assert any(isinstance(found, Frame) for found in fresh)


def test_headers_of_shorter_prefixes_are_not_known(read):
    """A round is found by its place, behind elements of always the same size."""
    for change in ({"run": 1}, {"run": 2**16 - 1}, {"incarnation": 128}):
        odd = replace(GOLDEN["projection"][0], **change)
        for number in (0, 1, 0):
            assert decode(encode(replace(odd, round=number))) == replace(odd, round=number)
    assert len(read) == 9
    assert frame_module._headers == {}


@pytest.mark.usefixtures("read")
def test_headers_that_are_known_take_little(monkeypatch):
    monkeypatch.setattr(frame_module, "_MOST_HEADERS", 10)
    for edge in range(25):
        decode(encode(replace(GOLDEN["projection"][0], edge=edge)))
        assert 0 < len(frame_module._headers) <= 10
