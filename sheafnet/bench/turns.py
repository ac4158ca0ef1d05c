"""Measurements in turn, so that what else the machine does falls on all of them alike."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from sheafnet.errors import SheafnetError

Tell = Callable[[str], None]
"""Is told what is being measured."""


def in_turn(measures: Mapping[str, Callable[[], Any]], repeats: int, tell: Tell) -> dict[str, Any]:
    """What each of `measures` gave, `repeats` times, one round of all after the other.

    Raises:
        NetworkError: a measurement failed; says which.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    for repeat in range(repeats):
        for name, measure in measures.items():
            tell(f"{name}, {repeat + 1} of {repeats}")
            try:
                found[name].append(measure())
            except SheafnetError as error:
                raise type(error)(f"{name}: {error}") from None
    return dict(found)
