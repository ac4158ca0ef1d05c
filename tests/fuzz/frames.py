"""Mutated frames against the decoder and the node that receives them.

    python -m tests.fuzz.frames --inputs 1000000 --seed 0
    python -m tests.fuzz.frames --replay fuzz-failure.bin

Every input is compared with a second reading of the wire format (`oracle`): it has to be decoded or
refused as that one says, spelled exactly as `encode` spells it, and accepted only if every field is
what the edge allows. What is refused may harm nothing: the honest frames that follow are delivered.
No input may take more memory or time than is declared here. Any other exception is a failure too.
"""

import argparse
import faulthandler
import re
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutate
from tests.fuzz.receiver import DTYPES, Defect, Receiver

CONSTANT_BYTES = 1 << 18
"""An input of n bytes may take n + CONSTANT_BYTES bytes of memory."""
LONGEST_S = 1.0
HANG_S = 60.0
CHECK_EVERY = 500
"""So many refused frames at most a node gets before it has to take its honest mail."""
_WHERE = re.compile(r"^[a-z]->[a-z], round \d+: | \(edge \d+\)$")
_VARYING = re.compile(r"\b(0x[0-9a-f]+|\d+)\b")


@dataclass
class Tally:
    """What became of the inputs."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    """How often the honest mail was delivered in full after refusals."""
    beyond_bytes: int = 0
    """The most memory that an input took beyond its own size."""
    largest_input: int = 0
    longest_s: float = 0.0

    @property
    def inputs(self) -> int:
        """All of them."""
        return self.accepted + self.refused.total()


class Target:
    """A receiver of every dtype, with the bounds on memory and time."""

    def __init__(self) -> None:
        self.receivers = [Receiver(dtype) for dtype in DTYPES]
        self.tally = Tally()
        self._refused = dict.fromkeys(range(len(DTYPES)), 0)

    def feed(self, buffer: bytes, at: int) -> None:
        """Give `buffer` to the receiver `at`.

        Raises:
            Defect: it is treated wrongly, or takes too much; or whatever the receiver raised.
        """
        receiver = self.receivers[at]
        should = receiver.expect(buffer)
        if self._refused[at] == CHECK_EVERY or (should and self._refused[at]):
            self.check(at)
        tracemalloc.reset_peak()
        held, begin = tracemalloc.get_traced_memory()[0], time.perf_counter()
        accepted = receiver.judge(should, buffer)
        spent = time.perf_counter() - begin
        taken = tracemalloc.get_traced_memory()[1] - held
        self.tally.beyond_bytes = max(self.tally.beyond_bytes, taken - len(buffer))
        self.tally.largest_input = max(self.tally.largest_input, len(buffer))
        self.tally.longest_s = max(self.tally.longest_s, spent)
        if taken > len(buffer) + CONSTANT_BYTES:
            raise Defect(f"{len(buffer)} bytes took {taken} bytes of memory")
        if spent > LONGEST_S:
            raise Defect(f"{len(buffer)} bytes took {spent:.1f} s")
        if accepted:
            self.tally.accepted += 1
            receiver.renew()
            self._refused[at] = 0
            return
        self.tally.refused[_VARYING.sub("#", _WHERE.sub("", receiver.board.rejections[-1]))] += 1
        self._refused[at] += 1

    def check(self, at: int) -> None:
        """See that what was refused has harmed nothing.

        Raises:
            Defect: an honest frame is not delivered.
        """
        self.receivers[at].check_unharmed()
        self.receivers[at].renew()
        self._refused[at] = 0
        self.tally.checked += 1


def inputs_of(seed: int, count: int, target: Target) -> Iterator[tuple[bytes, int]]:
    """`count` mutated frames and the receiver that each is for: the same for the same seed."""
    source = Random(seed)
    frames = [list(receiver.honest.values()) for receiver in target.receivers]
    for _ in range(count):
        at = source.randrange(len(frames))
        yield mutate(source, frames[at]), at


def fuzz(inputs: Iterable[tuple[bytes, int]], target: Target, failure: Path) -> None:
    """Feed all `inputs`. One that fails is left in `failure`, as is one that ends the process.

    Raises:
        Defect: of the first that fails, with the line that replays it; its cause is what happened.
    """
    ours = not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        with failure.open("wb", buffering=0) as file:
            for number, (buffer, at) in enumerate(inputs):
                if number % 1000 == 0:
                    faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
                file.seek(0)
                file.truncate(len(buffer))
                file.write(buffer)
                try:
                    target.feed(buffer, at)
                except Exception as error:
                    raise Defect(
                        f"input {number} of receiver {at}: {type(error).__name__}: {error}\n"
                        f"replay it with: python -m tests.fuzz.frames --replay {failure}"
                    ) from error
            for at in range(len(target.receivers)):
                target.check(at)
    finally:
        faulthandler.cancel_dump_traceback_later()
        if ours:
            tracemalloc.stop()
    failure.unlink()


def replay(buffer: bytes) -> Target:
    """One input against the receivers of all dtypes, and their honest mail after it.

    Raises:
        Defect: it is treated wrongly; or whatever a receiver raised.
    """
    target = Target()
    tracemalloc.start()
    try:
        for at in range(len(target.receivers)):
            target.feed(buffer, at)
            target.check(at)
    finally:
        tracemalloc.stop()
    return target


def main() -> int:
    """The command line; returns 1 where an input failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.frames")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failure", type=Path, default=Path("fuzz-failure.bin"))
    parser.add_argument("--replay", type=Path, help="one input instead")
    given = parser.parse_args()
    if given.replay is not None:
        target = replay(given.replay.read_bytes())
        print(f"nothing wrong: accepted by {target.tally.accepted} of {len(target.receivers)}")
        for reason, count in target.tally.refused.items():
            print(f"  {count} refused it: {reason}")
        return 0
    target, begin = Target(), time.perf_counter()
    try:
        fuzz(inputs_of(given.seed, given.inputs, target), target, given.failure)
    except Defect as defect:
        print(defect, file=sys.stderr)
        return 1
    _print(target.tally, time.perf_counter() - begin)
    return 0


def _print(tally: Tally, seconds: float) -> None:
    print(f"inputs {tally.inputs:,} in {seconds:.0f} s, {tally.inputs / seconds:,.0f} a second")
    print(f"accepted, rightly: {tally.accepted:,}; refused, rightly: {tally.refused.total():,}")
    print(f"honest mail delivered in full between refusals: {tally.checked:,} times")
    print(f"largest input {tally.largest_input:,} bytes; longest time {tally.longest_s:.3f} s")
    print(f"largest allocation beyond an input's own bytes: {tally.beyond_bytes:,} bytes")
    for reason, count in tally.refused.most_common():
        print(f"  {count:9,}  {reason}")


if __name__ == "__main__":
    sys.exit(main())
