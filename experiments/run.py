"""Runs the experiments and writes what they measured to RESULTS.md.

    .venv/bin/python experiments/run.py                # all, hours; goes on where it stopped
    .venv/bin/python experiments/run.py e2 e4          # some
    .venv/bin/python experiments/run.py --quick        # all of them, tiny, in minutes

Every ``eN-*.yaml`` beside this file is one question: its title, why it is asked, its studies (each
one command of sheafnet) and a reading of the result. The studies keep every finished run in
``runs/experiments``, so that a broken-off call loses nothing. Tables and plots are copied to
``results/`` and RESULTS.md is written anew from them; a quick call leaves both alone and writes
into ``runs/experiments-quick``.
"""

import argparse
import csv
import datetime
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curves
import price
import yaml

import sheafnet

HERE = Path(__file__).parent
ROOT = HERE.parent
KEPT = ("compare.md", "compare.json", "table.csv", "sweep.csv")
PLOTS = ("sweep.png", "curves.png", "price.png")
HEAD = """\
# Results

Written by `experiments/run.py`; the questions, commands and readings stand in
`experiments/e*.yaml`, tables and plots are what those commands printed. Each command can be run by
itself, and `make experiments` runs them all.

All figures are of the test split, mean ± standard deviation over the seeds; whatever was tuned was
tuned on validation events with other seeds, every method over the same grid.

To be read with the figures: the defaults of SheafAlign (`sheaf_weight` 0.1, `restriction_start`,
`restriction_rate`) were chosen on validation events of the ring, with a look at multiple-features.
Its rivals have no such settings.
"""


@dataclass(frozen=True)
class Study:
    """One command of an experiment."""

    experiment: str
    name: str
    command: str
    quick: str
    columns: dict[str, str]
    """Of a sweep: figure and heading of the columns that are shown."""
    curves: bool
    """Whether its course over training rounds is drawn."""
    price: bool
    """Whether quality is drawn against bytes."""

    @property
    def label(self) -> str:
        """Of its folder and files."""
        return f"{self.experiment}-{self.name}"

    def arguments(self, folder: Path, quick: bool) -> list[str]:
        """What follows ``sheafnet``; a quick grid replaces the whole one."""
        words, more = shlex.split(self.command), shlex.split(self.quick) if quick else []
        if "--grid" in more:
            given = zip(["", *words], words, strict=False)
            words = [word for before, word in given if "--grid" not in (before, word)]
        return [*words, *more, "--study", str(folder / self.label)]


@dataclass(frozen=True)
class Experiment:
    """One question."""

    name: str
    title: str
    question: str
    studies: tuple[Study, ...]
    reading: str


def experiments() -> list[Experiment]:
    """All of them, in order."""
    found = []
    for path in sorted(HERE.glob("e[0-9]*.yaml"), key=_number):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = path.stem.partition("-")[0]
        studies = tuple(
            Study(
                name,
                key,
                " ".join(s["run"].split()),
                s.get("quick", ""),
                s.get("columns", {}),
                s.get("curves", False),
                s.get("price", False),
            )
            for key, s in values["studies"].items()
        )
        found.append(
            Experiment(name, values["title"], values["question"], studies, values["reading"])
        )
    return found


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[0].removeprefix("e"))


def run(study: Study, folder: Path, quick: bool) -> int:
    """Run a study; returns its exit code."""
    arguments = study.arguments(folder, quick)
    print(f"\n{study.label}: sheafnet {shlex.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", "sheafnet", *arguments], cwd=ROOT).returncode


def keep(study: Study, folder: Path, results: Path) -> None:
    """Copy what a study is to be remembered by."""
    results.mkdir(parents=True, exist_ok=True)
    measured = (folder / study.label / "compare.json").exists()
    if study.curves and measured:
        curves.plot(folder / study.label, folder / study.label / "curves.png")
    if study.price and measured:
        price.plot(folder / study.label, folder / study.label / "price.png")
    for name in (*KEPT, *PLOTS):
        if (folder / study.label / name).exists():
            shutil.copyfile(folder / study.label / name, results / f"{study.label}-{name}")


def report(chosen: Sequence[Experiment], results: Path) -> str:
    """RESULTS.md from what stands in `results`."""
    packages = ("ray", "torch", "numpy")
    versions = ", ".join(f"{p} {sheafnet_version(p)}" for p in packages)
    today = datetime.datetime.now(datetime.UTC).date()
    parts = [
        HEAD,
        f"Written {today} with sheafnet {sheafnet.__version__}, {versions}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores.\n",
    ]
    for experiment in chosen:
        parts.append(f"## {experiment.name.upper()}. {experiment.title}\n\n{experiment.question}")
        for study in experiment.studies:
            parts += _section(study, results)
        parts.append(f"### Reading of {experiment.name.upper()}\n\n{experiment.reading}")
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def sheafnet_version(package: str) -> str:
    """The installed version of a package."""
    from importlib.metadata import version

    return version(package)


def _section(study: Study, results: Path) -> Iterator[str]:
    def at(name: str) -> Path:
        return results / f"{study.label}-{name}"

    yield f"### {study.label}\n\n```sh\nsheafnet {study.command}\n```\n"
    if at("compare.md").exists():
        yield at("compare.md").read_text(encoding="utf-8")
    elif at("sweep.csv").exists():
        yield _sweep_table(at("sweep.csv"), study.columns)
    else:
        yield "Not run yet.\n"
    for plot in PLOTS:
        if at(plot).exists():
            yield f"![{study.label}]({results.name}/{at(plot).name})\n"


def _sweep_table(path: Path, columns: dict[str, str]) -> str:
    """A Markdown table of a tidy one: mean ± sd over seeds of the chosen columns."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    keys = names[: names.index("seed")]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    seeds = len({row["seed"] for row in rows})
    lines = [[f"`{key}`" for key in keys] + list(columns.values())]
    for values, group in groups.items():
        lines.append([*values, *(_mean(group, name) for name in columns)])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines[1:])
    head = f"| {' | '.join(lines[0])} |\n|{'---|' * len(lines[0])}\n"
    return f"{seeds} seeds.\n\n{head}{text}"


def _mean(group: Sequence[dict[str, Any]], name: str) -> str:
    values = [float(row[name]) for row in group if row[name]]
    if not values:
        return "-"
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 100 else 3
    text = f"{mean:,.{digits}f}"
    return text if spread == 0 else f"{text} ± {spread:,.{digits}f}"


def main() -> int:
    """Run, keep, report; returns the first exit code that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="e1, e2, ...; all by default")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that all works")
    parser.add_argument("--report", action="store_true", help="run nothing, write RESULTS.md anew")
    asked = parser.parse_args()
    every = experiments()
    unknown = set(asked.names) - {e.name for e in every}
    if unknown:
        known = ", ".join(e.name for e in every)
        print(f"no experiment is called {', '.join(sorted(unknown))}. Known: {known}.")
        return 2
    folder = ROOT / "runs" / ("experiments-quick" if asked.quick else "experiments")
    results = folder / "results" if asked.quick else HERE / "results"
    code = 0
    for experiment in every:
        for study in experiment.studies:
            if asked.report or (asked.names and experiment.name not in asked.names):
                continue
            ended = run(study, folder, asked.quick)
            code = code or ended
            if ended == 130:
                return ended
            if (folder / study.label).exists():
                keep(study, folder, results)
    page = (folder if asked.quick else HERE) / "RESULTS.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(report(every, results), encoding="utf-8")
    print(f"\n{page}")
    return code


if __name__ == "__main__":
    sys.exit(main())
