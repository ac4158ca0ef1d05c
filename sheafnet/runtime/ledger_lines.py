"""The lines of ledger.jsonl: what became of the messages of a directed edge in a round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sheafnet.network.ledger import FATES, HEARD, Count, Fate, Key, Numbers, tally
from sheafnet.network.radio import Radio, Spent
from sheafnet.runtime.measurements import number

Counted = tuple[Key, Mapping[Fate, Numbers]]
_NAMES = ("messages", "payload_bytes", "framing_bytes", "control_bytes")


def ledger_lines(
    counted: Sequence[Counted], arrow: Callable[[int, int], str] | None, radio: Radio | None
) -> Iterator[dict[str, Any]]:
    """The lines, in the order of their keys.

    Args:
        counted: what both ends counted of each directed edge and round.
        arrow: names a directed edge; None for lines that sum up all edges of a round, as ``*``.
        radio: of the run, where links have profiles: what the messages took of it.
    """
    spent = {} if radio is None else _spent(counted, radio, whole_rounds=arrow is None)
    for key, fates in sorted(counted if arrow else _by_round(counted), key=lambda line: line[0]):
        line: dict[str, Any] = {
            "phase": key.phase,
            "round": key.round,
            "edge": arrow(key.edge, key.direction) if arrow else "*",
        }
        for fate in FATES:
            if fate in fates:
                line[fate] = dict(zip(_NAMES, fates[fate], strict=True))
        if spent:
            line["radio"] = {name: number(n) for name, n in spent[key]._asdict().items()}
        yield line


def _spent(counted: Sequence[Counted], radio: Radio, whole_rounds: bool) -> dict[Key, Spent]:
    """What the messages of each line took."""
    found: dict[Key, Spent] = {}
    for key, fates in counted:
        sent, *heard = (sum(fates[fate][1:]) if fate in fates else 0 for fate in ("sent", *HEARD))
        spent = radio.spent(key.edge, sent, sum(heard))
        line = _round_of(key) if whole_rounds else key
        found[line] = found[line] + spent if line in found else spent
    return found


def _by_round(counted: Sequence[Counted]) -> Sequence[Counted]:
    """The sums over edges and directions."""
    sums: dict[Key, dict[Fate, Count]] = {}
    for key, fates in counted:
        of_round = sums.setdefault(_round_of(key), {})
        for fate, numbers in fates.items():
            tally(of_round, fate, Count(*numbers))
    return list(sums.items())


def _round_of(key: Key) -> Key:
    """What stands for all directed edges of a round."""
    return Key(key.phase, key.round, 0, 0)
