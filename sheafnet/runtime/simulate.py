"""One run from configuration to result: what the command line and Python users call."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sheafnet.config import Config
from sheafnet.datasets import with_absolute_paths
from sheafnet.errors import (
    DivergenceError,
    Interrupted,
    NetworkError,
    RunDirectoryError,
    SheafnetError,
)
from sheafnet.runtime.checkpoint import Checkpoint, Checkpoints
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.device import open_device
from sheafnet.runtime.keep import Keep
from sheafnet.runtime.machines import Machine
from sheafnet.runtime.pilot import chosen_dims, pilot_figures, pilot_of, wants_pilot, with_dims
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.pool import LocalPool
from sheafnet.runtime.rundir import PILOT, RunDirectory, Status
from sheafnet.runtime.summary import Summary
from sheafnet.topology import build_topology

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Result:
    """A finished run: its figures and its folder."""

    summary: Summary
    directory: Path


class Session(Protocol):
    """A run under way, in this process or on Ray."""

    def start(self, checkpoint: Checkpoint | None = None) -> None:
        """Start the hosts, at `checkpoint` or else at the beginning."""
        ...

    def step(self) -> Progress | None:
        """Run the next stretch; None when the plan is done."""
        ...

    def finish(self, startup_s: float, wall_s: float) -> Summary:
        """Aggregate and save."""
        ...


def simulate(
    config: Config,
    *,
    run_dir: str | Path | None = None,
    on_start: Callable[[Path], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Result:
    """Run the network that `config` describes.

    Args:
        config: from `sheafnet.load_config`.
        run_dir: folder of the run, new or empty; by default a fresh one under ``run.directory``.
        on_start: called with the run directory once the hosts are up.
        on_progress: called after every stretch of rounds.

    Returns:
        The figures, as in summary.json, and the run directory.

    Raises:
        InputError: configuration, data, device, run directory, cluster address or machines cannot
            be used.
        DivergenceError: a loss became NaN or infinite.
        AccountingError: bytes sent and received disagree.
        NetworkError: a part of the network failed.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP. In this and the three cases above what was
            measured stays in the run directory, marked with what happened.
    """
    begin = time.perf_counter()
    config = with_absolute_paths(config)
    plan = Plan.open(config)
    if wants_pilot(config):
        Plan.open(pilot_of(config))
    Keep.within(plan)  # refuses what no folder of that size can hold
    with _before_it_began("the run began; nothing was written"), _machines(plan) as machines:
        directory = RunDirectory.create(config, run_dir)
        with directory.hold():
            return _Run(plan, directory, machines, begin, on_start, on_progress).to_its_end()


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    on_start: Callable[[Path], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Result:
    """Go on with a run that was broken off, from its last checkpoint.

    It ends with the same artifacts as if it had not been broken off, times aside (law 5).

    Args:
        run_dir: its folder.
        overrides: ``run.KEY=VALUE`` of keys that change no result, such as ``run.nodes_per_actor``.
        on_start: as in `simulate`.
        on_progress: as in `simulate`.

    Returns:
        As `simulate`.

    Raises:
        RunDirectoryError: there is no such run, it is finished, another process is at it, or it
            was written by another version or changed since.
        SheafnetError: as `simulate`.
    """
    begin = time.perf_counter()
    directory = RunDirectory.open(run_dir)
    with _before_it_began("the run went on; it stands as it stood"), directory.hold():
        plan = Plan.open(directory.resumable(overrides))
        with _machines(plan) as machines:
            checkpoint, refused = Checkpoints(directory.path).newest()
            done = 0 if checkpoint is None else checkpoint.number
            directory.mark_resumed(plan.config, done, refused)
            run = _Run(plan, directory, machines, begin, on_start, on_progress)
            return run.to_its_end(checkpoint)


@contextmanager
def _before_it_began(what: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted before {what}") from None


@dataclass(frozen=True)
class _Run:
    """A run whose directory is held by this process."""

    plan: Plan
    directory: RunDirectory
    machines: Sequence[Machine]
    begin: float
    on_start: Callable[[Path], None] | None
    on_progress: OnProgress | None

    def to_its_end(self, checkpoint: Checkpoint | None = None) -> Result:
        """From `checkpoint`, or else the beginning; how it ends is marked in the directory."""
        path = self.directory.path
        try:
            with self._marked():
                return self._go(checkpoint)
        except (KeyboardInterrupt, SystemExit):  # Ray turns SIGTERM into the latter
            raise Interrupted(
                f"interrupted; what was measured is in {path}. `sheafnet resume {path}` goes on."
            ) from None
        except NetworkError as error:
            error.add_note(f"`sheafnet resume {path}` goes on.")
            raise

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Whatever ends the run is marked in its directory."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self._mark_end("interrupted")
            raise
        except SheafnetError as error:
            self._mark_end(_status(error), error=str(error))
            raise
        except Exception as error:
            self._mark_end("failed", error=f"{type(error).__name__}: {error}")
            raise

    def _mark_end(self, status: Status, **facts: str) -> None:
        """Mark how the run ended; on a full disk that stays undone, and what ended it is raised."""
        with suppress(RunDirectoryError):
            self.directory.mark(status, **facts)

    def _go(self, checkpoint: Checkpoint | None) -> Result:
        begin, plan = self.begin, self.plan
        if wants_pilot(plan.config):
            plan = Plan.open(self._after_pilot())
            begin = time.perf_counter()
        with _session(plan, self.directory, self.machines) as session:
            session.start(checkpoint)
            startup_s = time.perf_counter() - begin
            if self.on_start is not None:
                self.on_start(self.directory.path)
            while (progress := session.step()) is not None:
                if self.on_progress is not None:
                    self.on_progress(progress)
            summary = session.finish(startup_s, time.perf_counter() - begin)
            self.directory.mark("finished")
            Checkpoints(self.directory.path).clear()
            return Result(summary, self.directory.path)

    def _after_pilot(self) -> Config:
        """The configuration with the d_ij that the pilot chose; that is run, or what is left of it.

        It has a run directory in that of the run.
        """
        config, path = self.plan.config, self.directory.path / PILOT
        plan, goes_on = Plan.open(pilot_of(config)), _has_begun(path)
        directory = RunDirectory.open(path) if goes_on else RunDirectory.create(plan.config, path)
        pilot = _Run(plan, directory, self.machines, time.perf_counter(), None, None)
        with directory.hold(), pilot._marked():
            ran = directory.summary()
            if ran is None:
                checkpoint, refused = Checkpoints(path).newest()
                if goes_on:
                    done = 0 if checkpoint is None else checkpoint.number
                    directory.mark_resumed(plan.config, done, refused)
                summary = pilot._go(checkpoint).summary
            else:  # killed after its end
                summary = Summary.model_validate(ran)
                directory.mark("finished")
        topology, dims = build_topology(config), chosen_dims(config, summary)
        chosen = with_dims(config, topology, dims)
        self.directory.settle(chosen, pilot_figures(config, topology, dims, summary))
        return chosen


def _has_begun(path: Path) -> bool:
    """Whether a run is at `path`; what a kill in its first moment left there is removed."""
    about = path / "run.json"
    if about.is_file() and about.stat().st_size > 0:
        return True
    shutil.rmtree(path, ignore_errors=True)
    return False


def _machines(plan: Plan) -> AbstractContextManager[Sequence[Machine]]:
    """Where the run takes place, checked before anything is written; a cluster is joined."""
    if plan.config.run.backend == "local":
        if plan.config.run.device != "cpu":
            open_device(plan.config)
        return nullcontext(())
    from sheafnet.runtime.ray_cluster import fit_machines

    return fit_machines(plan)


def _session(
    plan: Plan, directory: RunDirectory, machines: Sequence[Machine]
) -> AbstractContextManager[Session]:
    """The run; on leaving, everything that it started has ended."""
    if plan.config.run.backend == "local":
        return _in_this_process(plan, directory)
    from sheafnet.runtime.ray_cluster import RaySession

    return RaySession(plan, directory, machines)


@contextmanager
def _in_this_process(plan: Plan, directory: RunDirectory) -> Iterator[Session]:
    with directory.hold_books():
        yield Coordinator(plan, LocalPool(plan, directory.path), directory)


def _status(error: SheafnetError) -> Status:
    return "diverged" if isinstance(error, DivergenceError) else "failed"
