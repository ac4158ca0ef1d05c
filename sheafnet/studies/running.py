"""Runs the cells of a study that have not run yet, as many at once as there are workers."""

import json
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sheafnet.errors import ActorError, ConfigError, Interrupted
from sheafnet.runtime.environment import of_python
from sheafnet.runtime.machines import usable_cores
from sheafnet.runtime.plan import Plan
from sheafnet.studies.cells import Cell, CellResult
from sheafnet.studies.folder import StudyFolder

_ENDING_S = 20.0
"""Time that a worker has to end its actors."""


@dataclass(frozen=True)
class Failure:
    """A cell that did not finish; it is tried again by the next call."""

    overrides: tuple[str, ...]
    error: str
    exit_code: int


@dataclass(frozen=True)
class StudyProgress:
    """What is known after a cell."""

    what: str
    """What the cells are run for, as "test" or "tuning"."""
    done: int
    total: int
    failed: int
    seconds_left: float | None
    """None as long as no cell of this call has ended."""

    def __str__(self) -> str:
        """A line: ``on_progress=print``."""
        failed = f", {self.failed} failed" if self.failed else ""
        left = self.seconds_left
        time_left = "" if left is None else f", {left // 60:.0f} min {left % 60:.0f} s left"
        return f"{self.what}: {self.done}/{self.total} cells{failed}{time_left}"


OnStudyProgress = Callable[[StudyProgress], None]
Outcome = CellResult | Failure
Runner = Callable[[Sequence[Cell], str], dict[str, Outcome]]
"""Runs cells for a purpose; returns what became of each, by key."""


def check_cells(cells: Sequence[Cell]) -> None:
    """Check every configuration as a whole, each once whatever its seeds.

    Raises:
        InputError: one cannot be run.
    """
    distinct = {str(cell.resolved | {"run": None}): cell for cell in cells}
    for cell in distinct.values():
        Plan.open(cell.config)


class CellRunner:
    """Runs the missing cells of a study in worker processes.

    Args:
        folder: of the study.
        workers: processes at most; by default one per usable core.
        on_progress: called at the start and after every cell.
    """

    def __init__(
        self,
        folder: StudyFolder,
        workers: int | None = None,
        on_progress: OnStudyProgress | None = None,
    ) -> None:
        self._folder = folder
        if workers is not None and workers < 1:
            raise ConfigError(f"workers = {workers}: a study takes at least one.")
        self._workers = workers or usable_cores()
        self._on_progress = on_progress or (lambda _: None)

    def __call__(self, cells: Sequence[Cell], what: str) -> dict[str, Outcome]:
        """What became of each of `cells`, by key; those that finished before are read.

        Raises:
            InputError: a configuration cannot be run; then none was run.
            Interrupted: Ctrl-C; what is finished is kept, and no worker is left.
        """
        distinct = {cell.key: cell for cell in cells}
        found: dict[str, Outcome] = {
            key: result
            for key, cell in distinct.items()
            if (result := self._folder.result(cell)) is not None
        }
        waiting = [cell for key, cell in distinct.items() if key not in found]
        if not waiting:
            return found
        check_cells(waiting)
        self._folder.claim()
        begin, before = time.monotonic(), len(found)
        self._report(what, found, len(distinct), None)
        try:
            with closing(_outcomes(waiting, self._workers)) as outcomes:
                for cell, outcome in outcomes:
                    if isinstance(outcome, CellResult):
                        self._folder.keep(outcome)
                    found[cell.key] = outcome
                    each = (time.monotonic() - begin) / (len(found) - before)
                    left = each * (len(distinct) - len(found))
                    self._report(what, found, len(distinct), left)
        except KeyboardInterrupt:
            kept = sum(isinstance(outcome, CellResult) for outcome in found.values())
            raise Interrupted(
                f"interrupted; {kept} of {len(distinct)} cells ({what}) are kept in "
                f"{self._folder.path}, and the same command goes on from there"
            ) from None
        return found

    def _report(self, what: str, found: dict[str, Outcome], total: int, left: float | None) -> None:
        failed = sum(isinstance(outcome, Failure) for outcome in found.values())
        self._on_progress(StudyProgress(what, len(found), total, failed, left))


def _outcomes(cells: Sequence[Cell], workers: int) -> Generator[tuple[Cell, Outcome], None, None]:
    """Every cell with what became of it, in the order in which they end."""
    waiting = deque(cells)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sheafnet-study-")))
        selector = stack.enter_context(selectors.DefaultSelector())
        hired = 0

        def hire() -> None:
            nonlocal hired
            worker = _Worker(scratch, hired)
            hired += 1
            stack.callback(worker.end)
            selector.register(worker.answers, selectors.EVENT_READ, worker)
            worker.take(waiting.popleft())

        for _ in range(min(workers, len(waiting))):
            hire()
        while selector.get_map():
            for ready, _ in selector.select():
                worker: _Worker = ready.data
                outcome = worker.outcome()
                yield worker.cell, outcome
                if worker.alive and waiting and not worker.cell.timed:
                    worker.take(waiting.popleft())
                    continue
                selector.unregister(worker.answers)
                worker.end()
                if waiting:
                    hire()


class _Worker:
    """A process that runs one cell at a time (see `sheafnet.studies.worker`).

    A cell that is run for its times has a fresh process to itself.
    In a process group of its own, so that a Ctrl-C of the terminal reaches the study alone.
    """

    def __init__(self, scratch: Path, number: int) -> None:
        self._run_dir = scratch / f"run-{number}"
        self._log = (scratch / f"log-{number}").open("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sheafnet.studies.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            process_group=0,
            env=of_python(OMP_NUM_THREADS="1"),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._cells: IO[str] = self._process.stdin
        self.answers: IO[str] = self._process.stdout
        self.alive = True

    def take(self, cell: Cell) -> None:
        """Begin a cell; a worker that is gone shows by its missing answer."""
        self.cell = cell
        asked = {
            "config": cell.config.model_dump(mode="json"),
            "overrides": cell.overrides,
            "run_dir": str(self._run_dir),
        }
        with suppress(BrokenPipeError):
            self._cells.write(json.dumps(asked) + "\n")
            self._cells.flush()

    def outcome(self) -> Outcome:
        """What became of the cell, once there is something to read."""
        line = self.answers.readline()
        if not line.endswith("\n"):
            self.alive = False
            return Failure(self.cell.overrides, self._last_words(), ActorError.exit_code)
        answer = json.loads(line)
        if "error" in answer:
            return Failure(self.cell.overrides, answer["error"], answer["exit_code"])
        return CellResult.model_validate(answer["result"])

    def _last_words(self) -> str:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        self._log.seek(0)
        said = self._log.read().strip()[-2000:]
        return f"its process ended with {how}" + (f": {said}" if said else "")

    def end(self) -> None:
        """End the process, whatever it does, and close its files."""
        try:
            self._process.terminate()  # it may have actors to end
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_S)
        finally:
            self._process.kill()
            self._process.wait()
            for file in (self.answers, self._log):
                file.close()
            with suppress(BrokenPipeError):
                self._cells.close()
