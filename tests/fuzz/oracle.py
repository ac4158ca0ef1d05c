"""A second reading of the wire format, from docs/wire-format.md: byte by byte, without msgpack.

It says what `decode` has to accept, and what node a of `receiver` has to accept of that.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

MAX_BYTES, MAX_ROWS, VERSION = 1 << 28, 1 << 24, 1
PROJECTION, GRADIENT, GALLERY, PROTOTYPES, REQUEST, ANSWER, ESTIMATE, CALIBRATION = range(8)
NONE, FLOAT32, FLOAT16, BFLOAT16, INT8, INT8_ROW, INT8_CHANNEL = range(7)
VALUE_BYTES = {NONE: 0, FLOAT32: 4, FLOAT16: 2, BFLOAT16: 2, INT8: 1, INT8_ROW: 1, INT8_CHANNEL: 1}
SMALLEST_SCALE = 2.0**-126


class NoFrameError(Exception):
    """The bytes are no frame."""


@dataclass(frozen=True)
class Fields:
    """A frame as it was read."""

    kind: int
    run: int
    incarnation: int
    round: int
    edge: int
    direction: int
    dtype: int
    rows: int
    mask: bytes | None
    payload: bytes


class _Reader:
    def __init__(self, buffer: bytes) -> None:
        self.buffer, self.at = buffer, 0

    def take(self, count: int) -> bytes:
        taken = self.buffer[self.at : self.at + count]
        if len(taken) < count:
            raise NoFrameError("it ends too early")
        self.at += count
        return taken

    def sized(self, sizes: dict[int, tuple[int, int]]) -> int:
        """A number after one of these leading bytes: its bytes, and the least that needs them."""
        lead = self.take(1)[0]
        if lead not in sizes:
            raise NoFrameError(f"a leading byte {lead:#x}")
        count, least = sizes[lead]
        value = int.from_bytes(self.take(count), "big")
        if value < least:
            raise NoFrameError("in another form than the shortest")
        return value

    def number(self) -> int:
        if self.buffer[self.at : self.at + 1] < b"\x80":
            return self.take(1)[0]
        return self.sized({0xCC: (1, 1 << 7), 0xCD: (2, 1 << 8), 0xCE: (4, 1 << 16)})

    def bytes_(self) -> bytes:
        return self.take(self.sized({0xC4: (1, 0), 0xC5: (2, 1 << 8), 0xC6: (4, 1 << 16)}))

    def mask(self) -> bytes | None:
        if self.buffer[self.at : self.at + 1] == b"\xc0":
            self.at += 1
            return None
        return self.bytes_()


def elements_of(buffer: bytes) -> list[bytes]:
    """The ten raw elements of a sound frame before its checksum."""
    reader, found = _Reader(buffer), []
    reader.at = 1
    readings: list[Callable[[], object]] = [reader.number] * 8
    for read in [*readings, reader.mask, reader.bytes_]:
        begin = reader.at
        read()
        found.append(buffer[begin : reader.at])
    return found


def read(buffer: bytes) -> Fields | None:
    """The frame in `buffer`, or None where it is none."""
    try:
        return _read(buffer)
    except NoFrameError:
        return None


def _read(buffer: bytes) -> Fields:
    if not 6 <= len(buffer) <= MAX_BYTES:
        raise NoFrameError("a size that no frame has")
    reader = _Reader(buffer)
    if reader.take(1) != b"\x9b":
        raise NoFrameError("no array of eleven")
    head, run, incarnation, round_, edge, direction, dtype, rows = (
        reader.number() for _ in range(8)
    )
    mask, payload = reader.mask(), reader.bytes_()
    checksum = b"\xce" + zlib.crc32(buffer[: reader.at]).to_bytes(4, "big")
    if reader.take(5) != checksum or reader.at != len(buffer):
        raise NoFrameError("a wrong checksum, or more after it")
    version, kind = divmod(head, 16)
    known = version == VERSION and kind <= CALIBRATION and direction <= 1 and dtype <= INT8_CHANNEL
    if not known or rows > MAX_ROWS:
        raise NoFrameError("a field that is out of range")
    return Fields(kind, run, incarnation, round_, edge, direction, dtype, rows, mask, payload)


@dataclass(frozen=True)
class Rules:
    """What reaches a node that has asked one question and has had no mail."""

    run: int
    dims: dict[int, int]
    """d_ij of the node's edges."""
    directions: dict[int, int]
    """In which the other end of each edge sends."""
    rows: dict[int, int]
    """Of a whole batch, by kind."""
    dtype: int
    question: tuple[int, int, int]
    """(edge, round, rows that were asked for)."""
    iterations: int
    """Of diffusion."""

    def allow(self, frame: Fields) -> bool:
        """Whether the node has to accept `frame`."""
        limit = self.rows.get(frame.kind)
        if (
            frame.run != self.run
            or frame.direction != self.directions.get(frame.edge)
            or limit is None
            or frame.dtype != (NONE if frame.kind == REQUEST else self.dtype)
        ):
            return False
        named = None if frame.mask is None else rows_named(frame.mask, limit)
        if frame.mask is not None and named is None:
            return False
        return self._right_rows(frame, named, limit) and _right_values(frame, self.dims[frame.edge])

    def _right_rows(self, frame: Fields, named: list[int] | None, limit: int) -> bool:
        if frame.kind in (PROJECTION, GRADIENT, GALLERY, CALIBRATION):
            return named is None and frame.rows == limit
        if frame.kind == REQUEST:
            return named is not None and frame.rows == 0
        if frame.kind == PROTOTYPES:
            return named is not None and frame.rows == len(named)
        edge, round_, asked = self.question
        numbers = [round_]
        if frame.kind == ESTIMATE:
            numbers = [256 * round_ + step for step in range(1, self.iterations + 1)]
        if frame.edge != edge or frame.round not in numbers:
            return False
        if named is None:
            return frame.rows == asked
        return frame.rows == len(named) and all(row < asked for row in named)


def rows_named(mask: bytes, length: int) -> list[int] | None:
    """The rows that a row mask names, or None where it is not the shortest form of such rows."""
    if 8 * len(mask) >= length + 8:
        return None
    rows = _rows_in_gaps(mask) if mask.endswith(b"\0") else _rows_in_bits(mask)
    if any(row >= length for row in rows):
        return None
    return rows if mask == min(_bits(rows), _gaps(rows), key=len) else None


def _rows_in_bits(mask: bytes) -> list[int]:
    return [row for row in range(8 * len(mask)) if mask[row // 8] >> row % 8 & 1]


def _rows_in_gaps(mask: bytes) -> list[int]:
    rows, left_out = [], 0
    for digit in mask[:-1].hex():
        left_out += int(digit, 16)
        if digit != "f":
            rows.append(left_out + len(rows))
    return rows


def _bits(rows: list[int]) -> bytes:
    number = sum(1 << row for row in rows)
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


def _gaps(rows: list[int]) -> bytes:
    digits = ""
    for row, before in zip(rows, [-1, *rows], strict=False):
        left_out = row - before - 1
        digits += "f" * (left_out // 15) + f"{left_out % 15:x}"
    return bytes.fromhex(digits + "f" * (len(digits) % 2)) + b"\0"


def _right_values(frame: Fields, dim: int) -> bool:
    count = frame.rows * dim
    scale_bytes = {INT8: 4, INT8_ROW: 2 * frame.rows, INT8_CHANNEL: 2 * dim}.get(frame.dtype, 0)
    if len(frame.payload) != count * VALUE_BYTES[frame.dtype] + (scale_bytes if count else 0):
        return False
    if frame.dtype in (INT8_ROW, INT8_CHANNEL) and count:
        return all(_right_scale(*group) for group in _groups(frame, dim))
    return all(_finite(value) for value in _values(frame, count))


def _groups(frame: Fields, dim: int) -> list[tuple[float, list[int]]]:
    """Each scale with the steps that are steps of it."""
    count = frame.rows * dim
    scales = _bfloat16s(frame.payload[:-count])
    steps = list(struct.unpack(f"{count}b", frame.payload[-count:]))
    if frame.dtype == INT8_ROW:
        return [(scale, steps[row * dim : (row + 1) * dim]) for row, scale in enumerate(scales)]
    return [(scale, steps[column::dim]) for column, scale in enumerate(scales)]


def _right_scale(scale: float, steps: list[int]) -> bool:
    """Whether 127 steps of `scale` are the largest value, as far as a normal scale can be."""
    largest = max(abs(step) for step in steps)
    if not _finite(127 * scale) or not scale >= SMALLEST_SCALE:
        return False
    return largest == 127 or (largest < 127 and scale == SMALLEST_SCALE)


def _bfloat16s(payload: bytes) -> list[float]:
    halves = [b"\0\0" + payload[at : at + 2] for at in range(0, len(payload), 2)]
    return list(struct.unpack(f"<{len(halves)}f", b"".join(halves)))


def _values(frame: Fields, count: int) -> list[float]:
    payload = frame.payload
    if not count:
        return []
    if frame.dtype == FLOAT32:
        return list(struct.unpack(f"<{count}f", payload))
    if frame.dtype == FLOAT16:
        return list(struct.unpack(f"<{count}e", payload))
    if frame.dtype == BFLOAT16:
        return _bfloat16s(payload)
    (scale,) = struct.unpack("<f", payload[:4])
    return [scale * value for value in struct.unpack(f"<{count}b", payload[4:])]


def _finite(value: float) -> bool:
    """As a float32: one that rounds to infinity is not."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return False
    return abs(value) < float("inf")
