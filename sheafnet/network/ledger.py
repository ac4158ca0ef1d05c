"""Every byte that crosses, counted at both ends and balanced (law 4).

A node's `Ledger` counts what it sent, from the very buffer that it handed to the transport, and
what reached it, from the buffer that arrived. The coordinator's `Account` brings both ends
together. Per directed edge and round, and for messages, payload, framing and control bytes alike::

    sent = delivered + late + dropped + rejected + lost

where a message is lost only if its receiver reported that it waited for it in vain. What simulated
links drop, damage or delay is counted by the receiver too, in the round that it belongs to. An
imbalance is an `AccountingError`. Copies and frames of strangers were never sent by the edge's
other end: they are counted too (``duplicated``, and ``rejected`` beyond what is short) but balance
nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from sheafnet.errors import AccountingError
from sheafnet.network.frame import Frame, Phase, round_of

Fate = Literal["sent", "delivered", "late", "dropped", "rejected", "duplicated", "missed"]
"""What became of a message. ``missed``: the receiver's wait for it ended without it."""

FATES: tuple[Fate, ...] = get_args(Fate)
HEARD: tuple[Fate, ...] = ("delivered", "late", "rejected", "duplicated")
"""Fates of what reached the receiver."""
REJECTED_LIMIT = 4096
"""Directed edges and rounds under which a node enters refused frames between two drains."""
_Of = TypeVar("_Of")
Numbers = Sequence[int]
"""Messages, payload, framing, control."""
_CERTAIN: tuple[Fate, ...] = ("delivered", "late", "dropped")


class Key(NamedTuple):
    """A directed edge in a round of a phase."""

    phase: Phase
    round: int
    edge: int
    direction: int


class Count(NamedTuple):
    """Messages and their bytes; the three kinds of byte are exclusive."""

    messages: int = 0
    payload: int = 0
    framing: int = 0
    control: int = 0

    @property
    def total(self) -> int:
        """All bytes."""
        return self.payload + self.framing + self.control

    def plus(self, other: "Count") -> "Count":
        """The sum of both."""
        messages, payload, framing, control = other
        return Count(
            self.messages + messages,
            self.payload + payload,
            self.framing + framing,
            self.control + control,
        )


_NOTHING = Count()


def tally(counts: dict[_Of, Count], of: _Of, count: Count) -> None:
    """Add `count` to what `counts` has of `of`."""
    counts[of] = counts.get(of, _NOTHING).plus(count)


def key_of(frame: Frame) -> Key:
    """Where `frame` is accounted."""
    round_ = round_of(frame.kind, frame.round)
    return Key(frame.kind.phase, round_, frame.edge, frame.direction)


def measure(frame: Frame, size: int) -> Count:
    """The count of one frame that took `size` bytes on the wire."""
    payload, control = len(frame.payload), len(frame.mask or b"")
    return Count(1, payload, size - payload - control, control)


Entry = tuple[Key, Fate, int, int, int, int]
"""Key, fate, messages, payload, framing, control: what a host reports."""

Row = tuple[Key, int, int, int, int]
"""Key, messages, payload, framing, control that were sent and delivered in full."""


def balance(entries: Sequence[Entry]) -> tuple[list[Row], list[Entry]]:
    """Check the edges whose two ends are both in `entries`, in the order of their keys.

    Returns:
        A row for each key of which every byte that was sent was delivered and nothing else
        happened, and the entries of all other keys.
    """
    by_key: dict[Key, list[Entry]] = {}
    for entry in entries:
        by_key.setdefault(entry[0], []).append(entry)
    rows: list[Row] = []
    rest: list[Entry] = []
    for key in sorted(by_key):
        found = by_key[key]
        fates = {entry[1]: entry[2:] for entry in found}
        if len(found) == 2 and "sent" in fates and fates["sent"] == fates.get("delivered"):
            rows.append((key, *fates["sent"]))
        else:
            rest += found
    return rows, rest


class Ledger:
    """The counts of one node, until they are drained to the coordinator."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Key, Fate], Count] = {}
        self._rejected = 0

    def record(self, fate: Fate, key: Key, count: Count) -> None:
        """Add `count` under `key` and `fate`.

        Whoever floods a node with frames of rounds that do not exist fills no memory: beyond
        `REJECTED_LIMIT` keys, what is refused is counted by the switchboard alone.
        """
        of = key, fate
        known = self._counts.get(of)
        if known is not None:
            count = known.plus(count)
        elif fate == "rejected":
            if self._rejected == REJECTED_LIMIT:
                return
            self._rejected += 1
        self._counts[of] = count

    def drain(self) -> list[Entry]:
        """The counts since the last call, as plain tuples in the order of first use."""
        entries: list[Entry] = [(*of, *count) for of, count in self._counts.items()]
        self._counts.clear()
        self._rejected = 0
        return entries


@dataclass(slots=True)
class Line:
    """Both ends of one directed edge in one round."""

    key: Key
    fates: dict[Fate, Count] = field(default_factory=dict)

    def of(self, fate: Fate) -> Count:
        """The count of `fate`, zero where nothing was recorded."""
        return self.fates.get(fate, _NOTHING)

    @property
    def outstanding(self) -> Count:
        """Sent less everything that certainly came from the sender."""
        rest = self.of("sent")
        for fate in _CERTAIN:
            rest = rest.plus(Count(*(-n for n in self.of(fate))))
        return rest

    @property
    def balanced(self) -> bool:
        """Whether every byte sent is accounted for.

        What was refused counts where it is what is short, byte for byte, and the receiver has gone
        on without it or has got it by another attempt.
        """
        short = self.outstanding
        if short == _NOTHING:
            return True
        answered = self.of("missed").messages or self.of("delivered").messages
        return short == self.of("rejected") and answered > 0

    @property
    def lost(self) -> int | None:
        """Messages that are short and were not rejected; None if the line is wrong.

        A rejected frame may be a stranger's, so what is short can be less than what was rejected.
        How large a lost message was is known to its sender alone.
        """
        short, rejected = self.outstanding, self.of("rejected")
        waited = self.of("missed").messages - self.of("late").messages
        lost = short.messages - rejected.messages
        if min(short) < 0 or (short.messages > 0) is not (short.total > 0):
            return None
        if lost > waited:
            return None
        if waited == 0 and short.messages:
            pairs = list(zip(short, rejected, strict=True))
            if any(s > r for s, r in pairs) or (lost == 0 and any(s < r for s, r in pairs)):
                return None
        return max(lost, 0)


class Account:
    """The coordinator's books: open lines until both ends have reported, totals for ever."""

    def __init__(self) -> None:
        self._open: dict[Key, Line] = {}
        self.totals: dict[tuple[Phase, int, int], Count] = {}
        """Sent, per (phase, edge, direction)."""
        self.fates: dict[tuple[Phase, Fate], Count] = {}
        """What became of it, and what was missed, of all lines that are closed."""
        self.lost = 0
        """Messages that never arrived and were missed."""

    def post(self, entries: Iterable[Entry]) -> None:
        """Enter the report of a host."""
        for key, fate, *numbers in entries:
            line = self._open.setdefault(key, Line(key))
            count = Count(*numbers)
            tally(line.fates, fate, count)
            if fate == "sent":
                tally(self.totals, (key.phase, key.edge, key.direction), count)

    def enter(self, rows: Iterable[Row]) -> None:
        """Enter what a host has balanced."""
        for key, *numbers in rows:
            count = Count(*numbers)
            tally(self.totals, (key.phase, key.edge, key.direction), count)
            self._tell(key.phase, {"sent": count, "delivered": count})

    def _tell(self, phase: Phase, fates: Mapping[Fate, Count]) -> None:
        """Add a line that is closed to what became of all messages."""
        for fate, count in fates.items():
            tally(self.fates, (phase, fate), count)

    def state(self, done: Mapping[Phase, int]) -> dict[str, Any]:
        """The books at the end of `done` rounds of each phase, as JSON; later rounds left out."""
        return {
            "totals": [[*key, *count] for key, count in self.totals.items()],
            "fates": [[*key, *count] for key, count in self.fates.items()],
            "lost": self.lost,
            "open": [
                [list(key), fate, *count]
                for key, line in self._open.items()
                if key.round < done[key.phase]
                for fate, count in line.fates.items()
            ],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on, with fresh books, from what `state` returned."""
        self.totals = {
            (phase, edge, direction): Count(*numbers)
            for phase, edge, direction, *numbers in state["totals"]
        }
        self.fates = {(phase, fate): Count(*n) for phase, fate, *n in state["fates"]}
        self.lost = state["lost"]
        for key, fate, *numbers in state["open"]:
            line = self._open.setdefault(Key(*key), Line(Key(*key)))
            line.fates[fate] = Count(*numbers)

    def settle(self) -> Iterator[Line]:
        """Yield and forget the lines that balance; for when every host has reported."""
        for key in sorted(k for k, line in self._open.items() if line.balanced):
            line = self._open.pop(key)
            self._tell(key.phase, line.fates)
            yield line

    def close(self) -> list[Line]:
        """Settle the rest: what is short was rejected, or else lost where a receiver missed it.

        Raises:
            AccountingError: bytes are short that nobody missed, or more arrived than were sent.
        """
        rest = list(self.settle())
        for key in sorted(self._open):
            line = self._open[key]
            if line.lost is None:
                fates = ", ".join(
                    f"{count.messages} messages ({count.total} bytes) {fate}"
                    for fate, count in line.fates.items()
                )
                raise AccountingError(
                    f"{key.phase} round {key.round}, edge {key.edge}, direction {key.direction} "
                    f"does not balance: {fates}. This is a defect of the program; the figures of "
                    "this run are not to be used."
                )
            self.lost += line.lost
            self._tell(key.phase, line.fates)
            rest.append(line)
        self._open.clear()
        return rest
