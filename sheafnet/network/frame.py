"""The wire format: one message as bytes, and bytes as one message. The only module with msgpack.

A frame is a msgpack array of eleven elements, in this order::

    head         version * 16 + kind
    run          32-bit tag of the run, its top bit set (so it always takes 5 bytes)
    incarnation  how often the run has been restarted, modulo `INCARNATIONS`
    round        round within the phase that the kind belongs to; of an estimate `STEPS` * round
                 + step (`numbered`, `round_of`, `step_of`)
    edge         index of the edge
    direction    0 tail to head, 1 head to tail
    dtype        of the payload
    rows         of the payload
    mask         bin: the rows that are meant (`pack_mask`), or nil where all are; in an answer
                 and an estimate the rows among those that were asked for, else among those of
                 the batch
    payload      bin: rows x d_ij values, little-endian, C order
    checksum     CRC-32 of every byte before it, always in 5 bytes

A directed edge carries at most one frame of a kind with the same number in the field ``round``, so
(edge, direction, kind, that number) names a message. The number of columns does not travel: it is
the d_ij that both ends of the edge know. Every number and length takes the shortest of its msgpack
forms, so that a message has one spelling: what `decode` accepts, `encode` gives back byte for byte.
Payload bytes are those of `payload`, control bytes those of `mask`, and all others are framing.
This module neither opens a socket nor knows the graph; what an edge allows is checked in `channel`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32

from sheafnet.errors import FrameError
from sheafnet.network.payload import Buffer, WireDtype

VERSION = 1
MAX_FRAME_BYTES = 1 << 28
MAX_ROWS = 1 << 24
STEPS = 256
"""Estimates are numbered in steps of diffusion, from 1, fewer than this in a round."""
INCARNATIONS = 128
"""Incarnations are counted modulo this, so that one takes a byte however often a run is mended."""
_FIELDS = 11
_CHECKSUM_BYTES = 5
_ARRAY = bytes([0x90 + _FIELDS])
_UINT32 = b"\xce"
_NIL = b"\xc0"
_PACKER = msgpack.Packer()
"""One for all frames: each takes 256 KiB of its own."""
_ROUND_AT = 8
"""Where the round begins: the elements before it take 1, 1, 5 and 1 bytes."""
_SHORTEST = 21
"""Bytes of a frame of the smallest numbers without mask and payload."""
_NUMBER_BYTES = [{0xCC: 2, 0xCD: 3, 0xCE: 5}.get(first, 1) for first in range(256)]
"""Bytes of a number, by the first of them."""
_MOST_HEADERS = 1 << 15
"""Known at a time: some 400 bytes each."""

Phase = Literal["train", "evaluation", "calibration", "inference"]
PHASES: tuple[Phase, ...] = ("train", "evaluation", "calibration", "inference")
Mask = npt.NDArray[np.bool_]


class Kind(IntEnum):
    """What a frame carries, and the phase whose bytes it belongs to."""

    phase: Phase

    PROJECTION = 0, "train"
    GRADIENT = 1, "train"
    GALLERY = 2, "evaluation"
    PROTOTYPES = 3, "evaluation"
    REQUEST = 4, "inference"
    ANSWER = 5, "inference"
    ESTIMATE = 6, "inference"
    CALIBRATION = 7, "calibration"

    def __new__(cls, code: int, phase: Phase) -> "Kind":
        """The kind that is `code` on the wire."""
        kind = int.__new__(cls, code)
        kind._value_ = code
        kind.phase = phase
        return kind

    __hash__ = int.__hash__  # that of Enum is written in Python, and each message takes a dozen


Address = tuple[int, Kind, int]
"""(edge, kind, number in the field ``round``): what a node waits for."""

_KINDS = tuple(Kind)
_DTYPES = tuple(WireDtype)


@dataclass(slots=True)
class Frame:
    """A message as it travels; `mask` and `payload` are raw bytes."""

    kind: Kind
    run: int
    incarnation: int
    round: int
    edge: int
    direction: int
    dtype: WireDtype
    rows: int
    mask: bytes | None
    payload: Buffer


def numbered(round_: int, step: int) -> int:
    """What an estimate of a step has in its field ``round``."""
    return STEPS * round_ + step


def round_of(kind: Kind, number: int) -> int:
    """The round within its phase of a frame with `number` in its field ``round``."""
    return number // STEPS if kind is Kind.ESTIMATE else number


def step_of(number: int) -> int:
    """The step of an estimate with `number` in its field ``round``."""
    return number % STEPS


def run_tag(value: int) -> int:
    """A run's 32-bit tag from any integer."""
    return (value & 0x7FFFFFFF) | 0x80000000


def encode(frame: Frame) -> bytes:
    """The bytes of `frame`: encoded once, counted once, sent as they are."""
    mask, payload = frame.mask, frame.payload
    named = _NIL if mask is None else _bin_header(len(mask)) + mask
    start = _numbers(frame) + named + _bin_header(len(payload))
    checksum = crc32(payload, crc32(start))
    return b"".join((start, payload, _UINT32, checksum.to_bytes(4, "big")))


def _numbers(frame: Frame) -> bytes:
    """The array header and the eight numbers that `frame` begins with."""
    fields: bytes = _PACKER.pack(
        (
            VERSION * 16 + frame.kind,
            frame.run,
            frame.incarnation,
            frame.round,
            frame.edge,
            frame.direction,
            int(frame.dtype),
            frame.rows,
        )
    )
    return _ARRAY + fields[1:]


def _bin_header(size: int) -> bytes:
    """What msgpack writes before `size` bytes; mask and payload themselves are copied but once."""
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def _bin_size(content: bytes | None) -> int:
    """Bytes that a mask or a payload takes."""
    return 1 if content is None else len(_bin_header(len(content))) + len(content)


def decode(buffer: bytes) -> Frame:
    """The frame in `buffer`, every field checked for type, range and spelling.

    A frame with the very header of an earlier one, but for its round, needs no second look at it.

    Takes at most the memory of `buffer` once more and 256 KiB, whatever the bytes are, and the
    headers of all frames together 16 MB.

    Raises:
        FrameError: the bytes are no frame of this version; names the edge if it can be read.
    """
    if not _CHECKSUM_BYTES < len(buffer) <= MAX_FRAME_BYTES:
        raise FrameError(f"{len(buffer)} bytes are no frame")
    frame = _familiar(buffer)
    if frame is None:
        frame = _read(buffer)
        _remember(frame, buffer)
    return frame


class _Header(NamedTuple):
    """What frames of one kind without a mask have in common on one directed edge."""

    rest: int
    """Bytes of a frame after its round."""
    after: bytes
    """Those between its round and its payload."""
    kind: Kind
    run: int
    incarnation: int
    edge: int
    direction: int
    dtype: WireDtype
    rows: int


_headers: dict[bytes, _Header] = {}
"""The last one by the bytes before the round and those of edge and direction."""


def _familiar(buffer: bytes) -> Frame | None:
    """The frame in `buffer` if its header is known and its round and checksum are right."""
    if len(buffer) < _SHORTEST:
        return None
    directed_edge, round_end = _placed(buffer)
    header = _headers.get(directed_edge)
    if header is None:
        return None
    body = memoryview(buffer)[:-_CHECKSUM_BYTES]
    spelled = buffer[_ROUND_AT:round_end]
    round_ = int.from_bytes(spelled[1:] or spelled, "big")
    if (
        header.rest != len(buffer) - round_end
        or not buffer.startswith(header.after, round_end)
        or buffer[-_CHECKSUM_BYTES] != _UINT32[0]
        or crc32(body) != int.from_bytes(buffer[-4:], "big")
        or _PACKER.pack(round_) != spelled
    ):
        return None
    _, after, kind, run, incarnation, edge, direction, dtype, rows = header
    payload = body[round_end + len(after) :]
    return Frame(kind, run, incarnation, round_, edge, direction, dtype, rows, None, payload)


def _placed(buffer: bytes) -> tuple[bytes, int]:
    """The bytes before the round with those of edge and direction, and where the round ends."""
    round_end = _ROUND_AT + _NUMBER_BYTES[buffer[_ROUND_AT]]
    edge_end = round_end + _NUMBER_BYTES[buffer[round_end]]
    return buffer[:_ROUND_AT] + buffer[round_end : edge_end + 1], round_end


def _remember(frame: Frame, buffer: bytes) -> None:
    """Know the header of `frame`, which is `buffer`, from now on; masks are too many for that."""
    if frame.mask is not None or frame.run >> 16 == 0 or frame.incarnation >> 7:
        return  # nor is a frame whose round begins elsewhere
    start = len(buffer) - _CHECKSUM_BYTES - len(frame.payload)
    directed_edge, round_end = _placed(buffer)
    if len(_headers) == _MOST_HEADERS:
        _headers.clear()
    _headers[directed_edge] = _Header(
        len(buffer) - round_end,
        buffer[round_end:start],
        frame.kind,
        frame.run,
        frame.incarnation,
        frame.edge,
        frame.direction,
        frame.dtype,
        frame.rows,
    )


def _read(buffer: bytes) -> Frame:
    """The frame in `buffer`, field by field."""
    try:
        fields = msgpack.unpackb(
            buffer,
            max_array_len=_FIELDS,
            max_map_len=0,
            max_str_len=0,
            max_ext_len=0,
            max_bin_len=len(buffer),
            list_hook=_flat,
        )
    except Exception as error:  # msgpack raises several unrelated types for bad bytes
        raise FrameError(f"not msgpack: {type(error).__name__} {error}") from None
    if type(fields) is not list or len(fields) != _FIELDS:
        raise FrameError(f"not an array of {_FIELDS} elements")
    head, run, incarnation, round_, edge, direction, dtype, rows, mask, payload, crc = fields
    named = edge if type(edge) is int and 0 <= edge < 1 << 32 else None
    for number in (head, run, incarnation, round_, edge, direction, dtype, rows, crc):
        if type(number) is not int or number < 0 or number >> 32:
            raise FrameError("a header field is not a 32-bit number", named)
    if type(payload) is not bytes or not (mask is None or type(mask) is bytes):
        raise FrameError("mask or payload are not bytes", named)
    body = memoryview(buffer)[:-_CHECKSUM_BYTES]
    if buffer[-_CHECKSUM_BYTES] != _UINT32[0] or crc32(body) != crc:
        raise FrameError("the checksum does not match", named)
    if head >> 4 != VERSION:
        raise FrameError(f"version {head >> 4}; this is version {VERSION}", named)
    if head & 15 >= len(_KINDS):
        raise FrameError(f"unknown kind {head & 15}", named)
    if dtype >= len(_DTYPES):
        raise FrameError(f"unknown dtype {dtype}", named)
    if direction > 1:
        raise FrameError(f"direction {direction} is neither 0 nor 1", named)
    if rows > MAX_ROWS:
        raise FrameError(f"{rows} rows are more than {MAX_ROWS}", named)
    frame = Frame(
        _KINDS[head & 15],
        run,
        incarnation,
        round_,
        edge,
        direction,
        _DTYPES[dtype],
        rows,
        mask,
        payload,
    )
    start = _numbers(frame)
    # No form is shorter than the shortest: if the sum is right, both lengths are.
    spelled = len(start) + _bin_size(mask) + _bin_size(payload) + _CHECKSUM_BYTES
    if len(buffer) != spelled or not buffer.startswith(start):
        raise FrameError("a number or a length in another form than the shortest", named)
    return frame


def _flat(array: list[object]) -> list[object]:
    """Refuse arrays in arrays as soon as they are read: they take 64 times their bytes."""
    if len(array) != _FIELDS or list in map(type, array):
        raise ValueError(f"not a flat array of {_FIELDS} elements")
    return array


def pack_mask(mask: Mask) -> bytes:
    """A row mask in the shorter of two forms; of equally short ones, the first.

    Bits, first row in the lowest bit of the first byte, without the zero bytes at the end. Or, for
    few rows of many, the number of rows left out before each named one, in half bytes, high one
    first: 15 stands for fifteen that are left out and more to come, and fills up the last byte;
    then a zero byte, which the other form never ends in.
    """
    bits = np.packbits(mask, bitorder="little").tobytes().rstrip(b"\0")
    halves: list[int] = []
    before = -1
    for row in np.flatnonzero(mask).tolist():
        fifteens, rest = divmod(row - before - 1, 15)
        halves += [15] * fifteens + [rest]
        before = row
        if len(halves) > 2 * len(bits):
            return bits
    halves += [15] * (len(halves) % 2)
    pairs = zip(halves[::2], halves[1::2], strict=True)
    gaps = bytes(high * 16 + low for high, low in pairs) + b"\0"
    return gaps if len(gaps) < len(bits) else bits


def unpack_mask(packed: bytes, length: int) -> Mask:
    """The row mask of `length` rows in `packed`.

    Raises:
        FrameError: it names a row beyond the last, or is not the form that `pack_mask` chooses.
    """
    if len(packed) > (length + 7) // 8:
        raise FrameError(f"a row mask of {len(packed)} bytes for {length} rows")
    if packed.endswith(b"\0"):
        rows, row = [], -1
        for half in (half for byte in packed[:-1] for half in (byte >> 4, byte & 15)):
            row += half if half == 15 else half + 1
            if half < 15:
                rows.append(row)
    else:
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
        rows = np.flatnonzero(bits).tolist()
    if rows and rows[-1] >= length:
        raise FrameError(f"a row mask that names rows beyond {length}")
    mask = np.zeros(length, dtype=np.bool_)
    mask[rows] = True
    if pack_mask(mask) != packed:
        raise FrameError(f"a row mask of {len(packed)} bytes in another form than the shortest")
    return mask
