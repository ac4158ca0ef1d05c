"""What a run left that a benchmark compares: seconds, and a digest of what was computed."""

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sheafnet.network.frame import PHASES, Phase


class Trace:
    """The rounds of one run, stretch by stretch."""

    def __init__(self) -> None:
        self._seconds: dict[Phase, list[float]] = {phase: [] for phase in PHASES}
        self._digest = hashlib.sha256()

    def add_time(self, phase: Phase, seconds: float, rounds: int) -> None:
        """Enter a stretch of `rounds` rounds."""
        self._seconds[phase].append(seconds / rounds)

    def add_lines(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Enter lines of rounds.jsonl: losses and estimates count, bytes do not.

        Evaluations are left out: their lines tell bytes, too.
        """
        for line in lines:
            if line["phase"] != "evaluation":
                values = {key: value for key, value in line.items() if key != "bytes"}
                self._digest.update(json.dumps(values, sort_keys=True).encode())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``seconds`` a round of each stretch, by phase, and the ``digest``."""
        return {"seconds": self._seconds, "digest": self._digest.hexdigest()}


def steady(seconds: Sequence[float]) -> float:
    """Seconds a round once everything is warm: the median stretch but for the first."""
    return statistics.median(seconds[1:])
