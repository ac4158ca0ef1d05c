"""One run from configuration to result: what the command line and Python users call."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sheafnet.config import Config
from sheafnet.datasets import with_absolute_paths
from sheafnet.errors import DivergenceError, Interrupted, SheafnetError
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.device import open_device
from sheafnet.runtime.keep import Keep
from sheafnet.runtime.machines import Machine
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.pool import LocalPool
from sheafnet.runtime.rundir import RunDirectory, Status
from sheafnet.runtime.summary import Summary

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Result:
    """A finished run: its figures and its folder."""

    summary: Summary
    directory: Path


class Session(Protocol):
    """A run under way, in this process or on Ray."""

    def start(self) -> None:
        """Start the hosts."""
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
    Keep.within(plan, parameter_bytes=0)  # refuses what no folder of that size can hold
    try:
        with _machines(plan) as machines:
            directory = RunDirectory.create(config, run_dir)
            try:
                return _run(plan, directory, machines, begin, on_start, on_progress)
            except (KeyboardInterrupt, SystemExit):  # Ray turns SIGTERM into the latter
                directory.mark("interrupted")
                raise Interrupted(
                    f"interrupted; what was measured is in {directory.path}"
                ) from None
            except SheafnetError as error:
                directory.mark(_status(error), error=str(error))
                raise
            except Exception as error:
                directory.mark("failed", error=f"{type(error).__name__}: {error}")
                raise
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the run began; nothing was written") from None


def _run(
    plan: Plan,
    directory: RunDirectory,
    machines: Sequence[Machine],
    begin: float,
    on_start: Callable[[Path], None] | None,
    on_progress: OnProgress | None,
) -> Result:
    with _session(plan, directory, machines) as session:
        session.start()
        startup_s = time.perf_counter() - begin
        if on_start is not None:
            on_start(directory.path)
        while (progress := session.step()) is not None:
            if on_progress is not None:
                on_progress(progress)
        summary = session.finish(startup_s, time.perf_counter() - begin)
        directory.mark("finished")
        return Result(summary, directory.path)


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
        return nullcontext(Coordinator(plan, LocalPool(plan, directory.path.name), directory))
    from sheafnet.runtime.ray_cluster import RaySession

    return RaySession(plan, directory, machines)


def _status(error: SheafnetError) -> Status:
    return "diverged" if isinstance(error, DivergenceError) else "failed"
