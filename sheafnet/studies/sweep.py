"""Sweeps: every combination of values of any keys, and what each buys for its bytes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sheafnet.config import ConfigSource
from sheafnet.errors import ConfigError
from sheafnet.studies.cells import Cell, CellResult, open_base, read_cells, seeds_from
from sheafnet.studies.figures import (
    COSTS,
    NO_LINK,
    Figure,
    Spread,
    figure_named,
    figures_of,
    headline,
)
from sheafnet.studies.folder import StudyFolder, default_folder
from sheafnet.studies.keys import Axis, read_axes
from sheafnet.studies.pareto import pareto_front
from sheafnet.studies.running import CellRunner, Failure, OnStudyProgress, Outcome


@dataclass(frozen=True)
class Point:
    """One combination of the swept values."""

    values: tuple[Any, ...]
    """In the order of the axes."""
    texts: tuple[str, ...]
    """The same as typed."""
    runs: tuple[tuple[int, dict[str, float | None]], ...]
    """Seed and headline figures of every run that finished."""

    def spread(self, figure: Figure) -> Spread:
        """Of a figure over its seeds."""
        return Spread.of(run.get(figure.name) for _, run in self.runs)


@dataclass(frozen=True)
class Sweep:
    """What a sweep measured."""

    topology: str
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    figures: dict[str, Figure]
    quality: Figure
    cost: Figure
    points: tuple[Point, ...]
    failures: tuple[Failure, ...]
    folder: Path

    @cached_property
    def front(self) -> tuple[int, ...]:
        """The points of the Pareto front of mean quality against mean cost, by rising cost."""
        sign = 1.0 if self.quality.better == "higher" else -1.0
        measured = [
            (index, cost, sign * quality)
            for index, point in enumerate(self.points)
            if (cost := point.spread(self.cost).mean) is not None
            and (quality := point.spread(self.quality).mean) is not None
        ]
        front = pareto_front([(cost, quality) for _, cost, quality in measured])
        return tuple(measured[k][0] for k in front)

    def rows(self) -> list[dict[str, Any]]:
        """Tidy: a row per point and seed, with the swept keys, the seed and every figure."""
        keys = [axis.key for axis in self.axes]
        return [
            dict(zip(keys, point.values, strict=True))
            | {"seed": seed}
            | {name: run.get(name) for name in self.figures}
            for point in self.points
            for seed, run in point.runs
        ]


def sweep(
    topology: ConfigSource,
    over: Sequence[str],
    *,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    quality: str = "recall_at_1",
    cost: str = "train_bytes",
    study: str | Path | None = None,
    workers: int | None = None,
    on_progress: OnStudyProgress | None = None,
) -> Sweep:
    """Run every combination of the values in `over` with every seed.

    Args:
        topology: the YAML of the network and the run, or whatever `load_config` takes.
        over: of the form ``KEY=V1,V2``; the key may be shortened as long as it is unambiguous.
        seeds: how many; they count up from ``run.seed``.
        overrides: of the form ``a.b=c``, for all runs.
        quality: the figure of the Pareto front.
        cost: the figure that it is weighed against; bytes, seconds and joules are those of
            training.
        study: the folder that keeps what was measured; by default ``studies/<name>``. What
            stands there already is not run again.
        workers: processes at most; by default one per usable core.
        on_progress: called after every run.

    Returns:
        The figures of all points. Runs that failed are among its failures.

    Raises:
        InputError: something cannot be run as asked; then nothing was run.
        Interrupted: Ctrl-C; finished runs stay in the study's folder.
    """
    base = open_base(topology, overrides)
    if not over:
        raise ConfigError("--over: name at least one key, as in --over comparison_dim=0.25,0.5")
    axes = read_axes(over, "--over")
    _refuse_wiped(axes, overrides)
    used = seeds_from(base, seeds)
    cells = {
        combination: read_cells(topology, (*overrides, *_whole_first(combination)), used)
        for combination in itertools.product(*(axis.overrides for axis in axes))
    }
    figures = figures_of(base)
    for some in cells.values():
        figures |= figures_of(some[0].config)
    if cost in COSTS:
        if f"train_{cost}" not in figures:
            raise ConfigError(f"--cost {cost}: {NO_LINK}.")
        cost = f"train_{cost}"
    chosen = figure_named(quality, figures, "--quality"), figure_named(cost, figures, "--cost")
    if chosen[1].better == "higher":
        raise ConfigError(f"--cost {cost}: more of it is better; a cost is one of bytes or errors.")
    folder = StudyFolder(study if study is not None else default_folder(base.name))
    runner = CellRunner(folder, workers, on_progress)
    found = runner([cell for some in cells.values() for cell in some], "sweep")
    values = itertools.product(*(axis.values for axis in axes))
    texts = itertools.product(*(axis.texts for axis in axes))
    return Sweep(
        topology=base.name,
        axes=axes,
        seeds=used,
        figures=figures,
        quality=chosen[0],
        cost=chosen[1],
        points=tuple(
            Point(value, text, _runs(some, found))
            for value, text, some in zip(values, texts, cells.values(), strict=True)
        ),
        failures=tuple(o for o in found.values() if isinstance(o, Failure)),
        folder=folder.path,
    )


def _whole_first(overrides: Sequence[str]) -> list[str]:
    """`overrides` so that a mapping as a whole is set before single keys of it."""
    return sorted(overrides, key=lambda override: override.partition("=")[0].count("."))


def _refuse_wiped(axes: Sequence[Axis], overrides: Sequence[str]) -> None:
    """Refuse to sweep over a mapping as a whole of which ``--set`` sets a key.

    Raises:
        ConfigError: the swept value would wipe that key out.
    """
    for override in overrides:
        for axis in axes:
            if override.startswith(f"{axis.key}."):
                raise ConfigError(
                    f"--over {axis.key}: sets all of it anew, and so undoes --set {override}. "
                    "Name the key in --over, or leave it out."
                )


def _runs(
    cells: Sequence[Cell], found: dict[str, Outcome]
) -> tuple[tuple[int, dict[str, float | None]], ...]:
    return tuple(
        (cell.config.run.seed, headline(result.summary))
        for cell in cells
        if isinstance(result := found[cell.key], CellResult)
    )
