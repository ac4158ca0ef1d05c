"""A whole run as a user runs it, on Ray actors, timed from outside."""

import tempfile
import time
from pathlib import Path
from typing import Any

from sheafnet.bench.child import Measure
from sheafnet.bench.trace import Trace
from sheafnet.config import Config
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.simulate import simulate


def whole(config: dict[str, Any]) -> Measure:
    """A task: the run that `config` describes.

    Gives its trace, with ``startup_s`` (seconds until all actors were ready) and ``actor_mb``
    (memory of an actor's own, mean over actors).
    """
    checked = Config.model_validate(config)

    def measure() -> dict[str, Any]:
        clock = _Clock()
        with tempfile.TemporaryDirectory(prefix="sheafnet-bench-") as folder:
            path = Path(folder) / "run"
            result = simulate(
                checked, run_dir=path, on_start=clock.begin, on_progress=clock.progress
            )
            clock.trace.add_lines(RunDirectory.open(path).lines("rounds"))
        return clock.trace.as_dict() | {
            "startup_s": result.summary.timing.startup_s,
            "actor_mb": result.summary.memory.actor_mb,
        }

    return measure


class _Clock:
    """Takes the time of every stretch from the calls between them."""

    def __init__(self) -> None:
        self.trace = Trace()
        self._last = 0.0
        self._done: dict[str, int] = {}

    def begin(self, _: Path) -> None:
        self._last = time.perf_counter()

    def progress(self, progress: Progress) -> None:
        now = time.perf_counter()
        rounds = progress.done - self._done.get(progress.phase, 0)
        self.trace.add_time(progress.phase, now - self._last, rounds)
        self._done[progress.phase] = progress.done
        self._last = now
