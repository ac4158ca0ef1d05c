"""The experiments can be run as they stand, and RESULTS.md is of these commands."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from sheafnet import cli
from sheafnet.config import load_config
from sheafnet.runtime.plan import Plan
from sheafnet.studies.contenders import read_contenders
from sheafnet.studies.keys import read_axes

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments"


def load() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("experiments_run", FOLDER / "run.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(FOLDER))


RUN = load()
STUDIES = {s.label: s for experiment in RUN.experiments() for s in experiment.studies}


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    group: Any = typer.main.get_command(cli.app)
    context = group.make_context("sheafnet", [], resilient_parsing=True)
    return words[0], group.get_command(context, words[0]).make_context(words[0], words[1:]).params


def test_every_question_of_the_method_is_asked() -> None:
    assert [e.name for e in RUN.experiments()] == [f"e{k}" for k in range(1, 16)]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("label", STUDIES)
def test_every_run_of_a_study_is_valid(label: str, quick: bool, tmp_path: Path) -> None:
    """No key, value, method or size that the program would refuse after hours."""
    command, options = parsed(STUDIES[label].arguments(tmp_path, quick))
    topology, overrides = ROOT / options["topology"], tuple(options["overrides"] or ())
    if command == "compare":
        axes = read_axes(options["grid"] or (), "--grid")
        settings = [
            (*contender.overrides(load_config(topology)), *point)
            for contender in read_contenders(options["methods"])
            for point in itertools.product(*(axis.overrides for axis in axes))
        ]
    else:
        axes = read_axes(options["over"], "--over")
        settings = list(itertools.product(*(axis.overrides for axis in axes)))
    assert len(settings) > 1
    for setting in settings:
        Plan.open(load_config(topology, [*overrides, *setting]))


@pytest.mark.parametrize("label", [pytest.param("e4-unique", marks=pytest.mark.long), "e7-ring"])
def test_quick_studies_run_and_are_reported(label: str, tmp_path: Path) -> None:
    study = STUDIES[label]
    assert RUN.run(study, tmp_path, quick=True) == 0
    RUN.keep(study, tmp_path, tmp_path / "results")
    page = RUN.report([e for e in RUN.experiments() if study in e.studies], tmp_path / "results")
    assert f"sheafnet {study.command}\n" in page
    assert "Not run yet" not in page
    if study.curves:
        picture = (tmp_path / "results" / f"{label}-curves.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert f"results/{label}-curves.png" in page
    else:
        table = [line for line in page.splitlines() if line.startswith("| 0.")]
        assert len(table) == 7  # a row for each unique share


def test_means_and_spreads_of_a_sweep_are_those_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("key,seed,quality,other\na,0,0.1,\na,1,0.3,\nb,0,2000,5\nb,1,2000,5\n")
    text = RUN._sweep_table(path, {"quality": "Q", "other": "O"})
    assert text.startswith("2 seeds.")
    assert "| `key` | Q | O |" in text
    assert "| a | 0.200 ± 0.141 | - |" in text
    assert "| b | 2,000 | 5.000 |" in text


def test_a_price_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    def contender(**means: float | None) -> dict[str, Any]:
        numbers = {k: {"mean": v, "standard_deviation": v and v / 10} for k, v in means.items()}
        return {"figures": numbers}

    figures = {"zero_shot_accuracy": 0.7, "missing_accuracy_ridge": 0.6, "missing_nmse_ridge": 0.3}
    costs = {"train_bytes_per_round": 1000.0, "inference_bytes_per_sample": 60.0}
    contenders = {
        "sheafalign": contender(recall_at_1=0.5, **figures, **costs),
        "sheafalign@training.wire_dtype=int8@inference.wire_dtype=int8@wire_rounding=stochastic": (
            contender(recall_at_1=None, **figures, **costs | {"train_bytes_per_round": 250.0})
        ),
    }
    drawn = RUN.price.draw(contenders)
    marks = [[tuple(m.get_xydata()[0]) for m, *_ in panel.containers] for panel in drawn.axes]
    assert marks == [
        [(1000.0, 0.5)],
        [(1000.0, 0.7), (250.0, 0.7)],
        [(60.0, 0.6), (60.0, 0.6)],
        [(60.0, 0.3), (60.0, 0.3)],
    ]
    names = [handle.get_label() for handle in drawn.axes[1].containers]
    assert names == ["sheafalign", "sheafalign int8 stochastic"]
    study = next(s for s in STUDIES.values() if s.price)
    folder = tmp_path / study.label
    folder.mkdir()
    (folder / "compare.json").write_text(json.dumps({"contenders": contenders}))
    RUN.keep(study, tmp_path, tmp_path / "results")
    picture = (tmp_path / "results" / f"{study.label}-price.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_the_results_are_of_these_commands_and_have_been_read() -> None:
    page = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    for experiment in RUN.experiments():
        assert experiment.reading in page, experiment.name
        for study in experiment.studies:
            assert f"sheafnet {study.command}\n" in page, study.label
    assert "Not run yet" not in page
    assert "Not read yet" not in page
    for picture in FOLDER.glob("results/*.png"):
        assert f"results/{picture.name}" in page
