"""Methods side by side: the same topology, data, seeds and ledger for every contender."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sheafnet.config import Config, ConfigSource
from sheafnet.errors import ConfigError
from sheafnet.runtime.plan import Plan
from sheafnet.studies.cells import (
    Cell,
    CellResult,
    curve_overrides,
    open_base,
    read_cells,
    seeds_from,
)
from sheafnet.studies.contenders import METHODS, Contender, read_contenders
from sheafnet.studies.figures import (
    COSTS,
    NO_LINK,
    Figure,
    Spread,
    apart,
    difference,
    figures_of,
    headline,
)
from sheafnet.studies.folder import StudyFolder, default_folder
from sheafnet.studies.running import CellRunner, Failure, OnStudyProgress, Runner, check_cells
from sheafnet.studies.targets import Reached, Target, default_targets, read_target
from sheafnet.studies.tuning import Choice, Tuner, Tuning, read_tuning
from sheafnet.validation import nearest
from sheafnet.version import __version__

SCHEMA = 1


@dataclass(frozen=True)
class Standing:
    """What a contender measured on the test split."""

    contender: Contender
    overrides: tuple[str, ...]
    """On top of the topology file, the tuned ones included."""
    choice: Choice | None
    """None without tuning."""
    results: tuple[CellResult, ...]
    """By seed; runs that failed are left out."""
    figures: dict[str, Spread]
    reached: tuple[Reached, ...]
    """In the order of the comparison's targets."""


@dataclass(frozen=True)
class Comparison:
    """The contenders of a study; the first is the reference."""

    topology: str
    seeds: tuple[int, ...]
    figures: dict[str, Figure]
    targets: tuple[Target, ...]
    tuning: Tuning | None
    standings: tuple[Standing, ...]
    failures: tuple[Failure, ...]
    folder: Path
    cost: str = "bytes"
    """What a target costs, one of `COSTS`."""

    def differences(self, name: str) -> Iterator[tuple[float | None, bool | None]]:
        """Of every contender but the first: percent from the first, and whether spreads part.

        None where both do not measure the same thing.
        """
        reference, *others = (standing.figures[name] for standing in self.standings)
        fuses = [s.contender.method == "concat-supervised" for s in self.standings]
        for spread, other in zip(others, fuses[1:], strict=True):
            if name.startswith("missing_accuracy") and other is not fuses[0]:
                yield None, None  # of a classifier of all sections here, of one section there
            else:
                yield difference(spread, reference), apart(spread, reference)

    def rows(self) -> list[dict[str, Any]]:
        """Tidy: a row per contender and figure, without a difference in those of the first."""
        found = []
        for name in self.figures:
            pairs = [(None, None), *self.differences(name)]
            for standing, (percent, outside) in zip(self.standings, pairs, strict=True):
                spread = standing.figures[name]
                found.append(
                    {
                        "contender": standing.contender.label,
                        "figure": name,
                        "mean": spread.mean,
                        "standard_deviation": spread.deviation,
                        "runs": len(spread.values),
                        "difference_percent": percent,
                        "outside_spread": outside,
                    }
                )
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "sheafnet": __version__,
            "topology": self.topology,
            "seeds": list(self.seeds),
            "reference": self.standings[0].contender.label,
            "contenders": {
                standing.contender.label: self._standing(index, standing)
                for index, standing in enumerate(self.standings)
            },
            "failures": [asdict(failure) for failure in self.failures],
        }

    def _standing(self, index: int, standing: Standing) -> dict[str, Any]:
        figures = {}
        for name in self.figures:
            spread = standing.figures[name]
            figures[name] = _numbers(spread)
            if index:
                percent, outside = list(self.differences(name))[index - 1]
                figures[name] |= {"difference_percent": percent, "outside_spread": outside}
        return {
            "overrides": list(standing.overrides),
            "runs": len(standing.results),
            "cells": [result.key for result in standing.results],
            "figures": figures,
            f"{self.cost}_to": {
                reached.target.label: _numbers(reached.cost)
                | {"reached": len(reached.cost.values), "measured": reached.runs}
                for reached in standing.reached
            },
            "chosen": standing.choice and self._chosen(standing.choice),
        }

    def _chosen(self, choice: Choice) -> dict[str, Any]:
        return {
            "overrides": list(choice.overrides),
            "by": choice.figure,
            "value": choice.best.value,
            "seeds": list(self.tuning.seeds) if self.tuning else [],
            "candidates": [asdict(candidate) for candidate in choice.candidates],
        }


def _numbers(spread: Spread) -> dict[str, Any]:
    return {
        "mean": spread.mean,
        "standard_deviation": spread.deviation,
        "values": list(spread.values),
    }


def compare(
    topology: ConfigSource,
    *,
    methods: str = ",".join(METHODS),
    seeds: int = 5,
    overrides: Sequence[str] = (),
    targets: Sequence[str] = (),
    cost: str = "bytes",
    tune: bool = False,
    grid: Sequence[str] = (),
    select: str | None = None,
    tune_seeds: int = 1,
    study: str | Path | None = None,
    workers: int | None = None,
    on_progress: OnStudyProgress | None = None,
) -> Comparison:
    """Run every contender with every seed, and compare what they measured.

    Args:
        topology: the YAML of the network and the run, or whatever `load_config` takes.
        methods: contenders, separated by commas; the first is the reference. A method, or
            ``method@key=value@key=value``.
        seeds: how many; they count up from ``run.seed``.
        overrides: of the form ``a.b=c``, for all contenders.
        targets: of the form ``recall_at_1=0.2``: what it costs to reach them is told. By default
            shares of the lowest final recall@1.
        cost: in which targets cost: bytes, or simulated seconds or joules, for which links need
            profiles.
        tune: choose a setting for every contender on validation events first.
        grid: of the form ``KEY=V1,V2``: what to tune over, instead of temperature and learning
            rate.
        select: the figure to tune by, instead of the mean of recall@1 and zero-shot accuracy.
        tune_seeds: how many seeds to tune with; they are others than those of the comparison.
        study: the folder that keeps what was measured; by default ``studies/<name>``. What
            stands there already is not run again.
        workers: processes at most; by default one per usable core.
        on_progress: called after every run.

    Returns:
        The figures of all contenders. Runs that failed are among its failures.

    Raises:
        InputError: something cannot be run as asked; then nothing was run.
        Interrupted: Ctrl-C; finished runs stay in the study's folder.
    """
    asked = tuple(read_target(text) for text in targets)
    if cost not in COSTS:
        raise ConfigError(f"--cost {cost}: no such cost. {nearest(cost, COSTS)}")
    base = open_base(topology, overrides)
    contenders = read_contenders(methods)
    folder = StudyFolder(study if study is not None else default_folder(base.name))
    runner = CellRunner(folder, workers, on_progress)
    tuning = None
    if tune:
        tuning = read_tuning(grid, select, tune_seeds, figures_of(base))
    elif grid or select:
        raise ConfigError("--grid and --select say how to tune; add --tune.")
    used = seeds_from(base, seeds)
    matches = _Matches(topology, tuple(overrides), base, contenders, used, runner, cost)
    return matches.run(tuning, asked, folder.path)


@dataclass(frozen=True)
class _Matches:
    topology: ConfigSource
    overrides: tuple[str, ...]
    base: Config
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    runner: Runner
    cost: str = "bytes"

    def run(self, tuning: Tuning | None, asked: tuple[Target, ...], folder: Path) -> Comparison:
        self._check_cost()
        choices: Mapping[str, Choice] = {}
        failures: list[Failure] = []
        if tuning:
            check_cells([self.cells(contender, None)[0] for contender in self.contenders])
            tuner = Tuner(self.topology, self.overrides, self.base, tuning, self.runner)
            choices, outcomes = tuner.choose(self.contenders)
            failures += [o for o in outcomes if isinstance(o, Failure)]
        cells = {
            contender.label: self.cells(contender, choices.get(contender.label))
            for contender in self.contenders
            if not tuning or contender.label in choices
        }
        found = self.runner([cell for some in cells.values() for cell in some], "test")
        failures += [o for o in found.values() if isinstance(o, Failure)]
        results = {
            contender.label: tuple(
                result
                for cell in cells.get(contender.label, ())
                if isinstance(result := found[cell.key], CellResult)
            )
            for contender in self.contenders
        }
        figures = figures_of(self.base)
        for some in cells.values():
            figures |= figures_of(some[0].config)
        targets = asked or default_targets([r for some in results.values() for r in some])
        standings = tuple(
            Standing(
                contender=contender,
                overrides=self.settings(contender, choices.get(contender.label)),
                choice=choices.get(contender.label),
                results=results[contender.label],
                figures=_spreads(figures, results[contender.label]),
                reached=tuple(Reached.of(t, results[contender.label], self.cost) for t in targets),
            )
            for contender in self.contenders
        )
        return Comparison(
            topology=self.base.name,
            seeds=self.seeds,
            figures=figures,
            targets=targets,
            tuning=tuning,
            standings=standings,
            failures=tuple(failures),
            folder=folder,
            cost=self.cost,
        )

    def _check_cost(self) -> None:
        """Refuse a cost that some contender's links do not tell.

        Raises:
            ConfigError: naming the contender.
        """
        for contender in self.contenders if self.cost != "bytes" else ():
            radio = Plan.open(self.cells(contender, None)[0].config).radio
            if radio is None:
                raise ConfigError(f"--cost {self.cost}: {contender.label}: {NO_LINK}.")
            if self.cost == "joules" and radio.untold:
                raise ConfigError(
                    f"--cost joules: of {contender.label} the profile {radio.untold} tells no "
                    "energy; describe one under links that has send_j_per_bit and receive_j_per_bit"
                )

    def settings(self, contender: Contender, choice: Choice | None) -> tuple[str, ...]:
        """The overrides of a contender's runs on the test split."""
        chosen = (*choice.overrides, "evaluation.split=test") if choice else ()
        own = contender.overrides(self.base)
        return (*self.overrides, *own, *chosen, *curve_overrides(self.base))

    def cells(self, contender: Contender, choice: Choice | None) -> list[Cell]:
        """The runs of a contender on the test split."""
        return read_cells(self.topology, self.settings(contender, choice), self.seeds)


def _spreads(figures: Mapping[str, Figure], results: Sequence[CellResult]) -> dict[str, Spread]:
    found = [headline(result.summary) for result in results]
    return {name: Spread.of(run.get(name) for run in found) for name in figures}
