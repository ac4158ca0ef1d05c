"""The fuzzer in its short form, its corpus, and that it finds what is planted."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet.errors import FrameError
from sheafnet.network import channel, switchboard
from sheafnet.network.channel import Endpoint
from sheafnet.network.frame import decode, unpack_mask
from tests.fuzz import frames, oracle, receiver
from tests.fuzz.mutate import NUMBERS, STRANGE, seal
from tests.fuzz.receiver import AB, DTYPES, RUN, Defect, Receiver, honest_frames

INPUTS = 10_000
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))


def test_the_short_form(tmp_path: Path) -> None:
    target = frames.Target()
    frames.fuzz(frames.inputs_of(1, INPUTS, target), target, tmp_path / "failure.bin")
    tally = target.tally
    assert tally.inputs == INPUTS
    assert tally.accepted > 0.02 * INPUTS  # the mutations are near enough to be worth something
    assert tally.checked > 0.02 * INPUTS
    assert tally.largest_input > 1 << 20
    assert tally.beyond_bytes > 4096  # tracemalloc was at work
    for reason in (
        "another form than the shortest",
        "checksum does not match",
        "another run",
        "does not live in this process",
        "StackError",
        "NaN or infinite",
        "a scale of int8",
        "nobody asked for",
        "where FLOAT32 was agreed",
    ):
        assert any(reason in found for found in tally.refused), reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus(path: Path) -> None:
    target = frames.replay(path.read_bytes())
    assert (target.tally.accepted > 0) is path.stem.startswith("accepted-")
    assert target.tally.inputs == target.tally.checked == len(DTYPES)


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 30
    assert sum(path.stem.startswith("accepted-") for path in CORPUS) >= 5
    assert all(path.stem.startswith(("accepted-", "refused-")) for path in CORPUS)


# What is planted is found


def lax_spelling(buffer):
    try:
        return decode(buffer)
    except FrameError as error:
        if "shortest" not in str(error):
            raise
        return decode(honest_frames(DTYPES[0])[0])


def unexpected_exception(buffer):
    frame = decode(buffer)
    return {0: frame, 1: frame}[frame.incarnation]


def wasteful(buffer):
    return decode(bytes(1 << 19) and buffer)


def any_run(self, side, frame):
    return CHECKED(self, side, replace(frame, run=RUN))


def harmful(self, side, frame):
    if frame.run != RUN:
        self._sides[AB].peer_incarnation = 1 << 20
    return CHECKED(self, side, frame)


def forgiving(payload, dtype, rows, dim):
    try:
        return UNPACK(payload, dtype, rows, dim)
    except FrameError as error:
        if "NaN" not in str(error):
            raise
        return UNPACK(bytes(len(payload)), dtype, rows, dim)


CHECKED, UNPACK = Endpoint._checked, channel.unpack


@pytest.mark.parametrize(
    ("place", "name", "defect", "says"),
    [
        ((receiver, switchboard), "decode", lax_spelling, "decoded, though it is no frame"),
        ((receiver, switchboard), "decode", unexpected_exception, "KeyError"),
        ((switchboard,), "decode", wasteful, r"took \d+ bytes of memory"),
        ((Endpoint,), "_checked", any_run, "accepted wrongly"),
        ((Endpoint,), "_checked", harmful, "an honest projection was refused afterwards"),
        ((channel,), "unpack", forgiving, "accepted wrongly"),
    ],
    ids=["spelling", "exception", "memory", "run", "harm", "nan"],
)
def test_a_planted_defect_is_found_and_can_be_replayed(
    place, name, defect, says, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "failure.bin"
    command = ["frames", "--inputs", "20000", "--failure", str(path)]
    with monkeypatch.context() as planted:
        for where in place:
            planted.setattr(where, name, defect)
        planted.setattr(sys, "argv", command)
        assert frames.main() == 1
        words = capsys.readouterr().err
        assert re.search(says, words)
        assert words.endswith(f"replay it with: python -m tests.fuzz.frames --replay {path}\n")
        if defect is harmful:  # the input that shows it is not the one that did it
            return
        with pytest.raises((Defect, KeyError), match=None if "Key" in says else says):
            frames.replay(path.read_bytes())
    planted.setattr(sys, "argv", ["frames", "--replay", str(path)])
    assert frames.main() == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_what_the_long_form_prints(tmp_path, monkeypatch, capsys):
    path = tmp_path / "failure.bin"
    monkeypatch.setattr(sys, "argv", ["frames", "--inputs", "300", "--failure", str(path)])
    assert frames.main() == 0
    words = capsys.readouterr().out
    accepted, refused = re.search(
        r"^inputs 300 in .*^accepted, rightly: (\d+); refused, rightly: (\d+)$", words, re.M | re.S
    ).groups()
    assert int(accepted) + int(refused) == 300
    assert "largest allocation" in words
    assert not path.exists()


# Two readings of the same format


RAW = st.one_of(
    st.sampled_from(STRANGE),
    st.integers(0, 127).map(lambda n: bytes([n])),
    st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from(NUMBERS), st.booleans()).map(
        lambda of: (
            bytes([{1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}[of[0]] + 4 * of[2]])
            + (of[1] % 256 ** of[0]).to_bytes(of[0], "big")
        )
    ),
    st.binary(max_size=40).map(lambda b: b"\xc4" + bytes([len(b)]) + b),
)


@given(
    kind=st.sampled_from(range(7)),
    dtype=st.sampled_from(range(len(DTYPES))),
    changes=st.dictionaries(st.integers(0, 9), RAW, max_size=4),
    head=st.sampled_from([b"\x9b", b"\x9b", b"\x9b", b"\x9a", b"\xdc\x00\x0b"]),
)
@settings(max_examples=500, deadline=None)
def test_both_readings_agree_on_any_elements(kind, dtype, changes, head):
    receivers = Receiver(DTYPES[dtype])
    elements = oracle.elements_of(receivers.honest[kind])
    for place, raw in changes.items():
        elements[place] = raw
    receivers.deliver(seal(head + b"".join(elements)))


@given(packed=st.binary(max_size=8), zero=st.booleans(), length=st.integers(0, 64))
@settings(max_examples=500, deadline=None)
def test_both_readings_agree_on_any_row_mask(packed, zero, length):
    packed += b"\0" * zero
    try:
        rows = unpack_mask(packed, length).nonzero()[0].tolist()
    except FrameError:
        rows = None
    assert oracle.rows_named(packed, length) == rows
