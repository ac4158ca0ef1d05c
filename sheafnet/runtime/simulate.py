"""One run from configuration to result: what the command line and Python users call."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sheafnet.config import Config
from sheafnet.datasets import with_absolute_paths
from sheafnet.errors import DivergenceError, Interrupted, SheafnetError
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.device import open_device
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
        InputError: configuration, data, device, run directory or cluster address cannot be used.
        DivergenceError: a loss became NaN or infinite.
        AccountingError: bytes sent and received disagree.
        NetworkError: a part of the network failed.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP. In this and the three cases above what was
            measured stays in the run directory, marked with what happened.
    """
    begin = time.perf_counter()
    config = with_absolute_paths(config)
    plan = Plan.open(config)
    with _cluster(config):
        _check_device(plan)
        directory = RunDirectory.create(config, run_dir)
        try:
            return _run(plan, directory, begin, on_start, on_progress)
        except (KeyboardInterrupt, SystemExit):  # Ray turns SIGTERM into the latter
            directory.mark("interrupted")
            raise Interrupted(f"interrupted; what was measured is in {directory.path}") from None
        except SheafnetError as error:
            directory.mark(_status(error), error=str(error))
            raise
        except Exception as error:
            directory.mark("failed", error=f"{type(error).__name__}: {error}")
            raise


def _run(
    plan: Plan,
    directory: RunDirectory,
    begin: float,
    on_start: Callable[[Path], None] | None,
    on_progress: OnProgress | None,
) -> Result:
    with _session(plan, directory) as session:
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


def _cluster(config: Config) -> AbstractContextManager[None]:
    """Membership in the cluster that the run names, before anything is written."""
    if config.run.address is None:
        return nullcontext()
    from sheafnet.runtime.ray_cluster import joined

    return joined(config.run.address)


def _check_device(plan: Plan) -> None:
    """Refuse a device that is not there, before anything is written."""
    if plan.config.run.device == "cpu":
        return
    if plan.config.run.backend == "local":
        open_device(plan.config)
        return
    from sheafnet.runtime.ray_cluster import gpus_of_an_actor

    gpus_of_an_actor(plan)


def _session(plan: Plan, directory: RunDirectory) -> AbstractContextManager[Session]:
    """The run; on leaving, everything that it started has ended."""
    if plan.config.run.backend == "local":
        return nullcontext(Coordinator(plan, LocalPool(plan, directory.path.name), directory))
    from sheafnet.runtime.ray_cluster import RaySession

    return RaySession(plan, directory)


def _status(error: SheafnetError) -> Status:
    return "diverged" if isinstance(error, DivergenceError) else "failed"
