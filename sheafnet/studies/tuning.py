"""Tuning: every contender gets the same grid on validation events, and keeps its best point.

The number of training rounds is read from the evaluation curve of the same runs, and so takes no
further ones; but where the learning rate falls to the last round, for then the curve does not tell
how a shorter run would end. Methods with a hub try every node as the hub at their best point.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sheafnet.config import Config, ConfigSource
from sheafnet.errors import ConfigError
from sheafnet.studies.cells import Cell, CellResult, curve_overrides, read_cells
from sheafnet.studies.contenders import HUB_METHODS, Contender
from sheafnet.studies.figures import Figure, figure_named, headline, mean_of
from sheafnet.studies.keys import Axis, read_axes
from sheafnet.studies.running import Outcome, Runner
from sheafnet.topology import build_topology

GRID = ("training.temperature=0.07,0.1,0.2", "training.learning_rate=0.0005,0.001,0.002")
FIRST_SEED = 1_000_000
"""Seeds of tuning begin here, far above those of the test."""
BALANCE = "mean of recall_at_1 and zero_shot_accuracy"
"""What is selected by unless a figure is named."""
INSTEAD = ("fused_accuracy", "probe_accuracy")
"""What is selected by for methods that do not measure that."""


@dataclass(frozen=True)
class Tuning:
    """How to tune."""

    axes: tuple[Axis, ...]
    select: Figure | None
    """None stands for `BALANCE`."""
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """A setting that was tried, with its mean over the seeds of tuning."""

    overrides: tuple[str, ...]
    rounds: int
    value: float


@dataclass(frozen=True)
class Choice:
    """What a contender runs with on the test split."""

    figure: str
    """What was selected by."""
    best: Candidate
    candidates: tuple[Candidate, ...]
    """All of them, in the order of trial."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """What to set."""
        rounds = f"training.rounds={self.best.rounds}"
        return tuple(dict.fromkeys((*self.best.overrides, rounds)))  # a grid may name it, too


def read_tuning(
    grid: Sequence[str], select: str | None, seeds: int, figures: Mapping[str, Figure]
) -> Tuning:
    """How to tune, from what was typed; an empty `grid` is `GRID`.

    Raises:
        ConfigError: a key, value or figure is wrong.
    """
    axes = read_axes(grid or GRID, "--grid")
    for axis in axes:
        if axis.key in {"evaluation.split", "method", "method.name", "method.hub"}:
            raise ConfigError(f"--grid {axis.key}: is not for tuning; see --methods.")
    if seeds < 1:
        raise ConfigError(f"tune_seeds = {seeds}: tuning takes at least one.")
    figure = None if select is None else figure_named(select, figures, "--select")
    return Tuning(axes, figure, tuple(range(FIRST_SEED, FIRST_SEED + seeds)))


class Tuner:
    """Tunes the contenders of one comparison.

    Args:
        topology: as `load_config` takes it.
        overrides: on top of it, for all contenders.
        base: the configuration that both make.
        tuning: grid, seeds and figure.
        runner: of the cells.
    """

    def __init__(
        self,
        topology: ConfigSource,
        overrides: Sequence[str],
        base: Config,
        tuning: Tuning,
        runner: Runner,
    ) -> None:
        self._topology = topology
        self._overrides = tuple(overrides)
        self._base = base
        self._tuning = tuning
        self._runner = runner

    def cells(self, contender: Contender, point: Sequence[str]) -> list[Cell]:
        """The runs of a point of the grid, one a seed, judged on validation events."""
        overrides = (*self._overrides, *contender.overrides(self._base), *point)
        overrides = (*overrides, "evaluation.split=validation", *curve_overrides(self._base))
        return read_cells(self._topology, overrides, self._tuning.seeds)

    def points(self, contender: Contender) -> list[tuple[str, ...]]:
        """The grid, without the keys that the contender sets itself."""
        free = [axis for axis in self._tuning.axes if axis.key not in contender.keys]
        return list(itertools.product(*(axis.overrides for axis in free)))

    def hubs(self, contender: Contender, point: tuple[str, ...]) -> list[tuple[str, ...]]:
        """`point` with every node as the hub in turn; nothing where there is no choice."""
        chosen = self._base.method.hub is not None or "method.hub" in contender.keys
        if contender.method not in HUB_METHODS or chosen:
            return []
        nodes = build_topology(self.cells(contender, point)[0].config).nodes
        return [(*point, f"method.hub={node.id}") for node in nodes]

    def choose(self, contenders: Sequence[Contender]) -> tuple[dict[str, Choice], list[Outcome]]:
        """Run the grid for all; the best of each contender by its label, and all outcomes.

        A contender none of whose points finished under all seeds has no choice.
        """
        grid = {c.label: self.points(c) for c in contenders}
        choices, outcomes = self._try(contenders, grid, "tuning", {})
        hubs = {
            c.label: self.hubs(c, choices[c.label].best.overrides)
            for c in contenders
            if c.label in choices
        }
        centred = [c for c in contenders if hubs.get(c.label)]
        better, more = self._try(centred, hubs, "choosing hubs", choices)
        return choices | better, [*outcomes, *more]

    def _try(
        self,
        contenders: Sequence[Contender],
        points: Mapping[str, Sequence[tuple[str, ...]]],
        what: str,
        before: Mapping[str, Choice],
    ) -> tuple[dict[str, Choice], list[Outcome]]:
        cells = {
            (contender.label, point): self.cells(contender, point)
            for contender in contenders
            for point in points[contender.label]
        }
        listed = [cell for some in cells.values() for cell in some]
        outcomes = self._runner(listed, what) if listed else {}
        choices = {}
        for contender in contenders:
            counted = "training.rounds" in contender.keys | {a.key for a in self._tuning.axes}
            earlier = before.get(contender.label)
            candidates = list(earlier.candidates) if earlier else []
            figure = earlier.figure if earlier else ""
            for point in points[contender.label]:
                here = cells[contender.label, point]
                whole = counted or here[0].config.training.schedule != "constant"
                results = [outcomes[cell.key] for cell in here]
                finished = [result for result in results if isinstance(result, CellResult)]
                if len(finished) == len(results):
                    figure, found = judge(point, finished, self._tuning.select, whole)
                    candidates += found
            if candidates:
                best = best_of(candidates, _sign(figure, self._tuning.select))
                choices[contender.label] = Choice(figure, best, tuple(candidates))
        return choices, list(outcomes.values())


def judge(
    point: tuple[str, ...], results: Sequence[CellResult], select: Figure | None, whole: bool
) -> tuple[str, list[Candidate]]:
    """What was judged by, and a candidate for every number of rounds that can be judged.

    Args:
        point: the setting.
        results: its runs, one a seed.
        select: the figure; None for `BALANCE`. Where no run has it, one of `INSTEAD`.
        whole: only after all rounds, else at every evaluation from the half on.
    """
    rounds = results[0].summary.rounds
    least = rounds if whole else -(-rounds // 2)
    finals = [headline(result.summary) for result in results]
    asked = select.name if select else BALANCE
    for name in (asked, *INSTEAD):
        curves = [_curve(result, name, least) for result in results]
        at = {after: mean_of([curve.get(after) for curve in curves]) for after in curves[0]}
        if at.get(rounds) is None:
            at = {rounds: mean_of([final.get(name) for final in finals])}
        found = [Candidate(point, k, value) for k, value in at.items() if value is not None]
        if found:
            return name, found
    return asked, []


def _curve(result: CellResult, name: str, least: int) -> dict[int, float | None]:
    """The figure called `name` at the evaluations after `least` rounds and more."""
    parts = ("recall_at_1", "zero_shot_accuracy") if name == BALANCE else (name,)
    return {
        evaluation.after: mean_of([evaluation.figures.get(part) for part in parts])
        for evaluation in result.evaluations
        if evaluation.after >= least
    }


def _sign(figure: str, select: Figure | None) -> int:
    return -1 if select and select.name == figure and select.better == "lower" else 1


def best_of(candidates: Sequence[Candidate], sign: int = 1) -> Candidate:
    """The first of those with the highest value (the lowest if `sign` is -1)."""
    return max(candidates, key=lambda candidate: sign * candidate.value)
