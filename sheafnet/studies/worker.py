"""A worker process of a study: runs the cells that it is given, one after the other.

A line of JSON on stdin is a cell, a line of JSON on stdout what became of it. When stdin ends, as
it does when the study's process ends in whatever way, the worker ends at once, and with it the
actors that it may have made.
"""

import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from sheafnet.config import Config
from sheafnet.errors import Interrupted, SheafnetError
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.simulate import simulate
from sheafnet.studies.cells import Cell, StretchEnd, collect


def main() -> None:
    """Answer every line of stdin."""
    answers = _private_stdout()
    cells: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(cells,), daemon=True).start()
    try:
        while True:
            answers.write(json.dumps(_answer(json.loads(cells.get()))) + "\n")
            answers.flush()
    except (Interrupted, KeyboardInterrupt, SystemExit):  # SIGTERM, in the course of actors
        os._exit(0)  # the reading thread does not end by itself


def _private_stdout() -> TextIO:
    """stdout for the answers alone; what a user's encoder prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _read(cells: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        cells.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


class _Clock:
    """Notes when each stretch of rounds was reported."""

    def __init__(self) -> None:
        self.ends: list[StretchEnd] = []

    def start(self, _: Path) -> None:
        """The hosts are up."""
        self._since = time.perf_counter()

    def note(self, progress: Progress) -> None:
        """A stretch was reported."""
        seconds = time.perf_counter() - self._since
        self.ends.append(StretchEnd(phase=progress.phase, done=progress.done, seconds=seconds))


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    folder = Path(asked["run_dir"])
    try:
        cell = Cell(Config.model_validate(asked["config"]), tuple(asked["overrides"]))
        if cell.timed:  # there are actors to end, which takes more than dying
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        clock = _Clock()
        result = simulate(cell.config, run_dir=folder, on_start=clock.start, on_progress=clock.note)
        kept = collect(cell, RunDirectory.open(folder), result.summary, clock.ends)
        return {"result": kept.model_dump(mode="json")}
    except Interrupted:
        raise
    except SheafnetError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except Exception:
        return {"error": traceback.format_exc().strip(), "exit_code": 1}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
