"""Every connection of the benchmark carries the payload that it says it does."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sheafnet.bench.frames import block, decoded, encoded, place_for
from sheafnet.bench.messages import _WIRES as WIRES
from sheafnet.bench.messages import KIB, Channel, end, median_us, payload_of


@pytest.mark.parametrize("kib", KIB)
def test_a_payload_has_its_size(kib: int) -> None:
    assert payload_of(kib).nbytes == kib * 1024
    assert payload_of(kib).shape[1] == 32


@pytest.mark.parametrize("name", WIRES)
def test_a_wire_carries_the_payload_both_ways(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ends = [WIRES[name](tmp_path, me, payload_of(1)) for me in (0, 1)]
    for own in ends:
        if isinstance(own, Channel):
            request.addfinalizer(own.hub.close)
    for own in reversed(ends):  # end 0 of TCP listens already, and waits for end 1
        own.connect()
    for sender, receiver in (ends, ends[::-1]):
        sender.send(0)
        came = np.frombuffer(bytes(receiver.receive(0)), dtype=np.float32)
        assert came.tobytes() == payload_of(1).tobytes()


def test_the_channel_counts_every_byte(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """1 KiB of payload and 23 bytes of framing, at both ends (see the README)."""
    drained = []
    ends = [Channel(tmp_path, me, payload_of(1), "unix://{folder}/{me}") for me in (0, 1)]
    for own in ends:
        request.addfinalizer(own.hub.close)
        own.connect()
        board = own._board
        own._board.drain = partial(_keep, drained, board.drain)  # type: ignore[method-assign]
    ends[0].send(0)  # the first round of a stretch drains the ledger
    ends[1].receive(0)
    (entry,) = [e for e in drained if e[1] == "delivered"]
    assert entry[2:4] == (1, 1024)
    assert 21 <= entry[4] <= 32
    assert entry[5] == 0


def _keep(kept: list, drain) -> list:
    entries = drain()
    kept += entries
    return entries


def test_a_message_is_half_of_the_median_round_trip_after_the_first_tenth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 10 round trips 1 warms up: then 8 of 2 µs, and 2 of 100 µs."""
    now = [0.0]
    took = iter([500e-6] + [2e-6] * 8 + [100e-6] * 2)
    monkeypatch.setattr("sheafnet.bench.messages.time.perf_counter", lambda: now[0])

    def trip(_: int) -> None:
        now[0] += next(took)

    assert median_us(trip, 10) == pytest.approx(1.0)


def test_frames_come_back_as_they_were() -> None:
    for kib in KIB:
        values = payload_of(kib)
        assert (decoded(encoded(values), 32) == values).all()
        assert 21 <= len(encoded(values)) - values.nbytes <= 32


@pytest.mark.parametrize("kib", KIB)
def test_a_copy_goes_half_a_page_away(kib: int) -> None:
    values = payload_of(kib)
    place = place_for(values)
    assert (place.ctypes.data - values.ctypes.data) % 4096 == 2048
    np.copyto(place, values)
    assert place.shape == values.shape
    assert (place == values).all()


def test_a_block_times_copy_encode_and_decode_of_each_size() -> None:
    found = block(3)()
    assert len(found) == len(KIB)
    for copy, encode, decode in found:
        assert 0 < copy < encode + decode


def test_an_unknown_wire_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        end("pigeon", str(tmp_path), 0, 1)
