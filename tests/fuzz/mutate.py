"""What a stranger makes of a sound frame: damage, and lies with a right checksum."""

import zlib
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.oracle import elements_of

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""(source of chance, a sound frame, all sound frames) to a mutated frame."""

NUMBERS = (0, 1, 2, 4, 5, 6, 7, 15, 16, 17, 21, 22, 24, 31, 32, 127, 128, 200, 255, 256, 300)
LARGE = (2**15, 2**16 - 1, 2**16, 2**24, 2**24 + 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
_NOTHING_THAT_BELONGS = "c0 c1 c2 c3 ff e0 d080 d18000 d280000000 d38000000000000000"
_FLOATS = "ca3f800000 ca7fc00000 cb3ff0000000000000 cb7ff0000000000000"
_CONTAINERS = "a0 a161 a1ff d90161 80 810000 8180c0 90 9101 9bc0 dc000101"
_EXTENSIONS = "d40100 c70005 d6ff00000000 c8ffff01 c9ffffffff01"
_LENGTHS = "c4ff c5ffff c6ffffffff d9ff daffff dbffffffff dcffff ddffffffff deffff dfffffffff"
STRANGE = [
    bytes.fromhex(text)
    for group in (_NOTHING_THAT_BELONGS, _FLOATS, _CONTAINERS, _EXTENSIONS, _LENGTHS)
    for text in group.split()
]
"""Raw msgpack that belongs into no field, or claims a length with nothing behind it."""


def seal(body: bytes) -> bytes:
    """`body` with a right checksum."""
    return body + b"\xce" + zlib.crc32(body).to_bytes(4, "big")


def spelled(source: Random, value: int) -> bytes:
    """`value` as msgpack, in any form that can hold it."""
    forms = [(b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4), (b"\xcf", 8)]
    fitting = [lead + value.to_bytes(size, "big") for lead, size in forms if value < 256**size]
    signed = [(b"\xd0", 1), (b"\xd1", 2), (b"\xd2", 4), (b"\xd3", 8)]
    fitting += [
        lead + value.to_bytes(size, "big") for lead, size in signed if value < 256**size // 2
    ]
    if value < 128:
        fitting += [bytes([value])] * 4
    return source.choice(fitting)


def bin_of(source: Random, content: bytes) -> bytes:
    """`content` as a msgpack bin, now and then with a longer or a wrong length."""
    claimed = len(content)
    if source.random() < 0.3:
        claimed = max(0, claimed + source.choice((-4, -1, 1, 4, 255, 65536)))
    forms = [(b"\xc4", 1), (b"\xc5", 2), (b"\xc6", 4)]
    fitting = [lead + claimed.to_bytes(size, "big") for lead, size in forms if claimed < 256**size]
    return (fitting[0] if source.random() < 0.7 else source.choice(fitting)) + content


def flip_bits(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """One to eight bits are others."""
    damaged = bytearray(buffer)
    for _ in range(source.randint(1, 8)):
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
    return bytes(damaged)


def truncate(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """The end is missing."""
    return buffer[: source.randrange(len(buffer))]


def extend(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """Something follows."""
    return buffer + source.randbytes(source.randint(1, 40))


def splice(source: Random, buffer: bytes, others: Sequence[bytes]) -> bytes:
    """The beginning of one frame and the end of another."""
    other = source.choice(others)
    return buffer[: source.randrange(len(buffer))] + other[source.randrange(len(other)) :]


def edit(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """Bytes are replaced, inserted or cut out."""
    damaged = bytearray(buffer)
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(damaged))
        new = source.choice(STRANGE) if source.random() < 0.5 else source.randbytes(1)
        damaged[at : at + source.randint(0, 3)] = new
    return bytes(damaged)


def noise(source: Random, _: bytes, __: Sequence[bytes]) -> bytes:
    """Any bytes."""
    return source.randbytes(source.randrange(80))


def sealed_damage(source: Random, buffer: bytes, others: Sequence[bytes]) -> bytes:
    """Damage of any of the sorts above, in most cases before the payload, then a right checksum."""
    how = source.choice((flip_bits, splice, edit))
    if source.random() < 0.7:
        head = buffer[:20]
        return seal(how(source, head, [other[:20] for other in others]) + buffer[20:-5])
    return seal(how(source, buffer[:-5], others))


def lie(source: Random, buffer: bytes, others: Sequence[bytes]) -> bytes:
    """One or two elements are others, with a right checksum."""
    elements = elements_of(buffer)
    for _ in range(source.choice((1, 1, 1, 2))):
        place = source.randrange(10)
        chance = source.random()
        if chance < 0.2:
            elements[place] = source.choice(STRANGE)
        elif chance < 0.4:
            elements[place] = elements_of(source.choice(others))[place]
        elif place < 8:
            number = NUMBERS if source.random() < 0.8 else LARGE
            elements[place] = spelled(source, source.choice(number))
        elif chance < 0.6:
            elements[place] = bin_of(source, source.randbytes(source.randrange(6)))
        else:
            raw = elements[place]
            content = raw[2:] if raw[:1] == b"\xc4" else raw
            elements[place] = bin_of(source, flip_bits(source, content, ()) if content else b"\0")
    return seal(b"\x9b" + b"".join(elements))


def rearrange(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """Elements are left out, doubled or swapped, with a right checksum."""
    elements = elements_of(buffer)
    one, two = source.randrange(10), source.randrange(10)
    chance = source.randrange(3)
    if chance == 0:
        del elements[one]
    elif chance == 1:
        elements.insert(one, elements[two])
    else:
        elements[one], elements[two] = elements[two], elements[one]
    heads = (b"\x9b", bytes([0x91 + len(elements)]), b"\xdc\x00\x0b", b"\xdd\x00\x00\x00\x0b")
    return seal(source.choice(heads) + b"".join(elements))


def nest(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """An element is arrays or maps in one another, with a right checksum."""
    elements = elements_of(buffer)
    depth = source.choice((1, 2, 10, 100, 1023, 1024, 1025, 3000))
    opening = source.choice((b"\x91", b"\x9b", b"\x81\xc0", b"\xdc\x00\x01"))
    elements[source.randrange(10)] = opening * depth + b"\xc0"
    return seal(b"\x9b" + b"".join(elements))


def inflate(source: Random, buffer: bytes, _: Sequence[bytes]) -> bytes:
    """A mask or payload of up to a mebibyte, a right checksum, and a right or wrong length."""
    elements = elements_of(buffer)
    elements[source.choice((8, 9))] = bin_of(source, bytes(source.choice((65535, 65536, 1 << 20))))
    return seal(b"\x9b" + b"".join(elements))


COMMON: tuple[Mutation, ...] = (
    flip_bits, truncate, extend, splice, edit, noise,
    sealed_damage, sealed_damage, lie, lie, lie, lie, lie, rearrange,
)  # fmt: skip
RARE: tuple[Mutation, ...] = (nest, inflate)


def mutate(source: Random, frames: Sequence[bytes]) -> bytes:
    """Some frame, mutated in some way; one in a hundred in a way that takes long or much."""
    mutations = COMMON if source.random() < 0.99 else RARE
    return source.choice(mutations)(source, source.choice(frames), frames)
