"""What tuning chooses, with runs whose figures the test makes up."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sheafnet.config import Config, load_config
from sheafnet.errors import ConfigError
from sheafnet.studies.cells import LOCAL, Cell
from sheafnet.studies.contenders import read_contenders
from sheafnet.studies.figures import figures_of
from sheafnet.studies.running import Failure, Outcome
from sheafnet.studies.tuning import (
    BALANCE,
    FIRST_SEED,
    Candidate,
    Choice,
    Tuner,
    Tuning,
    read_tuning,
)
from tests.conftest import MakeConfig
from tests.studies.conftest import Pretend

GRID = ("temperature=0.1,0.2", "learning_rate=0.001,0.01")


class Runs:
    """Runs nothing: asks `figures` for the curve's value after so many rounds."""

    def __init__(self, pretend: Pretend, value: Callable[[Config, int], float | None]) -> None:
        self.pretend, self.value = pretend, value
        self.cells: dict[str, list[Cell]] = {}

    def __call__(self, cells: Sequence[Cell], what: str) -> dict[str, Outcome]:
        self.cells.setdefault(what, []).extend(cells)
        return {cell.key: self.outcome(cell) for cell in cells}

    def outcome(self, cell: Cell) -> Outcome:
        config = cell.config
        if config.training.learning_rate == 0.01 and config.training.temperature == 0.1:
            return Failure(cell.overrides, "diverged", 3)
        if config.method.name == "local":
            value = self.value(config, 6)
            curve = [(k, k, {"recall_at_1": None, "probe_accuracy": None}) for k in (2, 4, 6)]
            return self.pretend(curve, cell, recall_at_1=None, probe_accuracy=value)
        points = []
        for k in (2, 4, 6):
            value = self.value(config, k)
            points.append((k, k, {"recall_at_1": value, "zero_shot_accuracy": value}))
        return self.pretend(points, cell)


@pytest.fixture
def tuner(network: Path, pretend: Pretend, tiny: MakeConfig):
    def make(
        value: Callable[[Config, int], float | None],
        grid: Sequence[str] = GRID,
        select: str | None = None,
        seeds: int = 1,
    ) -> tuple[Tuner, Runs]:
        runs = Runs(pretend, value)
        tuning = read_tuning(grid, select, seeds, figures_of(tiny()))
        base = load_config(network, LOCAL)
        return Tuner(network, (), base, tuning, runs), runs

    return make


def test_the_best_point_and_number_of_rounds(tuner) -> None:
    def value(config: Config, after: int) -> float:
        t = config.training
        peak = 4 if t.temperature == 0.2 else 2  # 2 is before the half, and not to be chosen
        return 0.5 + t.temperature - t.learning_rate - abs(after - peak) / 100

    study, runs = tuner(value)
    (contender,) = read_contenders("sheafalign")
    choices, outcomes = study.choose([contender])
    choice = choices["sheafalign"]
    assert choice.overrides == (
        "training.temperature=0.2",
        "training.learning_rate=0.001",
        "training.rounds=4",
    )
    assert choice.figure == BALANCE
    assert choice.best.value == pytest.approx(0.699)
    # Three points that finished, each after 4 and 6 of 6 rounds.
    assert [(c.overrides[0][-3:], c.rounds) for c in choice.candidates] == [
        *[("0.1", 4), ("0.1", 6)],
        *[("0.2", 4), ("0.2", 6), ("0.2", 4), ("0.2", 6)],
    ]
    assert sum(isinstance(outcome, Failure) for outcome in outcomes) == 1
    assert len(runs.cells["tuning"]) == 4
    for cell in runs.cells["tuning"]:
        assert cell.config.evaluation.split == "validation"
        assert cell.config.run.seed == FIRST_SEED
        assert cell.config.training.rounds == 6
        assert cell.config.evaluation.every == 1


def test_a_point_is_judged_by_its_mean_over_seeds(tuner) -> None:
    def value(config: Config, _: int) -> float:
        lucky = config.run.seed == FIRST_SEED
        return {0.1: 0.9 if lucky else 0.1, 0.2: 0.6}[config.training.temperature]

    study, _ = tuner(value, ["temperature=0.1,0.2"], seeds=2)
    choices, _ = study.choose(read_contenders("sheafalign"))
    assert choices["sheafalign"].best.overrides == ("training.temperature=0.2",)
    assert choices["sheafalign"].best.value == pytest.approx(0.6)


def test_the_hub_is_chosen_at_the_best_point_of_methods_that_have_one(tuner) -> None:
    def value(config: Config, after: int) -> float:
        hub = config.method.hub
        return config.training.temperature + (0.3 if hub == "c" and after == 4 else 0.0)

    study, runs = tuner(value, ["temperature=0.1,0.2"])
    choices, _ = study.choose(read_contenders("sheafalign,imagebind,imagebind@hub=b"))
    assert choices["imagebind"].overrides == (
        *("training.temperature=0.2", "method.hub=c", "training.rounds=4"),
    )
    tried = [cell.config.method for cell in runs.cells["choosing hubs"]]
    assert [(m.name, m.hub) for m in tried] == [("imagebind", hub) for hub in "abcd"]
    assert choices["sheafalign"].best.overrides == ("training.temperature=0.2",)
    assert choices["imagebind@hub=b"].best.overrides == ("training.temperature=0.2",)


def test_a_key_that_the_contender_sets_is_not_tuned(tuner) -> None:
    study, runs = tuner(lambda config, _: config.training.temperature)
    choices, _ = study.choose(read_contenders("sheafalign@temperature=0.05@training.rounds=6"))
    assert {cell.config.training.temperature for cell in runs.cells["tuning"]} == {0.05}
    choice = choices["sheafalign@temperature=0.05@training.rounds=6"]
    assert choice.best.overrides == ("training.learning_rate=0.001",)
    assert {candidate.rounds for candidate in choice.candidates} == {6}


def test_a_falling_learning_rate_is_judged_after_all_rounds(tuner) -> None:
    """After 4 of 6 rounds it stands at a quarter: a run of 4 rounds would end elsewhere."""
    study, _ = tuner(lambda _, after: -abs(after - 4), ["training.schedule=constant,cosine"])
    choice = study.choose(read_contenders("sheafalign"))[0]["sheafalign"]
    assert [(c.overrides[0], c.rounds) for c in choice.candidates] == [
        ("training.schedule=constant", 4),
        ("training.schedule=constant", 6),
        ("training.schedule=cosine", 6),
    ]


def test_a_method_without_recall_is_chosen_by_its_probe(tuner) -> None:
    study, _ = tuner(lambda config, _: config.training.temperature, ["temperature=0.1,0.2"])
    choice = study.choose(read_contenders("local"))[0]["local"]
    assert choice.figure == "probe_accuracy"
    assert choice.overrides == ("training.temperature=0.2", "training.rounds=6")


def test_an_error_is_to_be_low(tuner, pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {0.1: 0.7, 0.2: 0.4, 0.3: 0.5}
    study, runs = tuner(lambda *_: 0.5, ["temperature=0.1,0.2,0.3"], "missing_nmse_ridge")

    def outcome(cell: Cell) -> Outcome:
        result = pretend((), cell)
        missing = result.summary.missing
        nmse = errors[cell.config.training.temperature]
        ridge = missing.estimators["ridge"].model_copy(update={"nmse": nmse})
        told = missing.model_copy(update={"estimators": {**missing.estimators, "ridge": ridge}})
        summary = result.summary.model_copy(update={"missing": told})
        return result.model_copy(update={"summary": summary})

    monkeypatch.setattr(runs, "outcome", outcome)
    choice = study.choose(read_contenders("sheafalign"))[0]["sheafalign"]
    assert choice.figure == "missing_nmse_ridge"
    assert choice.best.overrides == ("training.temperature=0.2",)
    assert choice.best.value == 0.4


def test_nothing_is_chosen_where_nothing_finished(tuner) -> None:
    study, _ = tuner(lambda *_: 0.5, ["temperature=0.1", "learning_rate=0.01"])
    choices, outcomes = study.choose(read_contenders("sheafalign"))
    assert choices == {}
    assert [outcome.exit_code for outcome in outcomes] == [3]


def test_what_cannot_be_tuned(tiny: MakeConfig) -> None:
    figures = figures_of(tiny())
    assert len(read_tuning((), None, 1, figures).axes) == 2
    assert isinstance(read_tuning((), "probe_accuracy", 2, figures), Tuning)
    for grid, select, part in (
        (["split=test,validation"], None, "not for tuning"),
        (["hub=a,b"], None, "not for tuning"),
        (["temprature=1"], None, "training.temperature"),
        ([], "probe", "Did you mean 'probe_accuracy'"),
    ):
        with pytest.raises(ConfigError) as refused:
            read_tuning(grid, select, 1, figures)
        assert part in str(refused.value)


def test_rounds_that_the_grid_names_are_named_once() -> None:
    best = Candidate(("training.rounds=4", "training.temperature=0.2"), 4, 0.5)
    assert Choice("recall_at_1", best, (best,)).overrides == best.overrides
