"""A comparison as tables: on the terminal, in Markdown, as CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sheafnet.studies.compare import Comparison, Standing
from sheafnet.studies.figures import of_seeds
from sheafnet.studies.folder import write
from sheafnet.studies.keys import Axis
from sheafnet.studies.tuning import BALANCE

UNPRINTED = {"missing_nmse_train_mean", "missing_accuracy_train_mean", "inference_bytes"}
"""In the files only."""
OUTSIDE = "* outside the spread: the intervals mean ± standard deviation do not overlap."


@dataclass(frozen=True)
class Grid:
    """A table of texts: a row per figure, a column per contender."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The name of the row comes first."""

    def pieces(self, width: int) -> Iterator["Grid"]:
        """The table cut by columns, so that each piece is at most `width` wide."""
        first = max(len(row[0]) for row in self.rows)
        widths = [
            max(*(len(part) for part in _folded(name)), *(len(row[k + 1]) for row in self.rows))
            for k, name in enumerate(self.columns)
        ]
        chosen: list[int] = []
        for k, size in enumerate(widths):
            if chosen and first + 4 + sum(widths[c] + 3 for c in chosen) + size + 3 > width:
                yield self._piece(chosen)
                chosen = []
            chosen.append(k)
        yield self._piece(chosen)

    def _piece(self, chosen: Sequence[int]) -> "Grid":
        return Grid(
            self.title,
            tuple(self.columns[k] for k in chosen),
            tuple((row[0], *(row[k + 1] for k in chosen)) for row in self.rows),
        )

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left")
        table.add_column("")
        for name in self.columns:
            table.add_column("\n".join(_folded(name)), justify="right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """A table of Markdown."""
        lines = [("", *self.columns), ("---", *("---:" for _ in self.columns)), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{table}\n"


def _folded(label: str) -> list[str]:
    """The name of a contender in lines, for a narrow column."""
    return label.replace("@", "\n@").replace("=", "\n=").split("\n")


def grids(comparison: Comparison) -> Iterable[Grid]:
    """Its tables: the figures, the cost to reach targets, the differences from the first."""
    standings = comparison.standings
    labels = tuple(standing.contender.label for standing in standings)
    shown = [
        figure
        for name, figure in comparison.figures.items()
        if name not in UNPRINTED and any(s.figures[name].values for s in standings)
    ]
    if shown:
        yield Grid(
            f"{comparison.topology}: figures on unseen events, {of_seeds(comparison.seeds)}",
            labels,
            tuple((f.label, *(s.figures[f.name].show(f) for s in standings)) for f in shown),
        )
    measured = [s for s in standings if any(reached.runs for reached in s.reached)]
    if measured:
        yield Grid(
            f"{comparison.cost.capitalize()} in training until an evaluation reached",
            tuple(standing.contender.label for standing in measured),
            tuple(
                (
                    f"{comparison.figures[target.figure].label} {target.value:.3f}",
                    *(standing.reached[k].show() for standing in measured),
                )
                for k, target in enumerate(comparison.targets)
            ),
        )
    compared = [f for f in shown if standings[0].figures[f.name].mean]
    if len(standings) > 1 and compared:
        yield Grid(
            f"Difference from {labels[0]} in percent of it",
            labels[1:],
            tuple(
                (f.label, *(_difference(*pair) for pair in comparison.differences(f.name)))
                for f in compared
            ),
        )


def _difference(percent: float | None, outside: bool | None) -> str:
    return "-" if percent is None else f"{percent:+.1f} {'*' if outside else ' '}"


def notes(comparison: Comparison) -> Iterator[str]:
    """What the tables need to be understood."""
    several = len(comparison.standings) > 1
    if several:
        yield OUTSIDE if len(comparison.seeds) > 1 else "One seed: nothing is known of the spread."
    for standing in comparison.standings:
        if len(standing.results) < len(comparison.seeds):
            what = f"{len(standing.results)} of {len(comparison.seeds)} runs finished"
            yield f"{standing.contender.label}: {what}."
    if comparison.tuning:
        seeds = ", ".join(map(str, comparison.tuning.seeds))
        yield f"Chosen on validation events, seed {seeds}:"
        axes = comparison.tuning.axes
        yield from (f"  {_chosen(standing, axes)}" for standing in comparison.standings)


def _chosen(standing: Standing, axes: Sequence[Axis]) -> str:
    choice = standing.choice
    if choice is None:
        return f"{standing.contender.label}: nothing, as no run of its grid finished"
    by = "recall@1 and zero-shot" if choice.figure == BALANCE else choice.figure
    outermost = [
        axis.key
        for axis in axes
        if len(axis.overrides) > 2
        and {axis.overrides[0], axis.overrides[-1]} & set(choice.overrides)
    ]
    edge = f"; at the edge of the grid: {', '.join(outermost)}" if outermost else ""
    return (
        f"{standing.contender.label}: {', '.join(choice.overrides)} "
        f"({by}: {choice.best.value:.3f}, best of {len(choice.candidates)}{edge})"
    )


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print all tables, as wide as the terminal is."""
    parts: list[RenderableType] = []
    for grid in grids(comparison):
        parts += [piece.rich() for piece in grid.pieces(console.width)]
    parts += [Text(note) for note in notes(comparison)]
    for part in parts:
        console.print(part)
    for failure in comparison.failures:
        console.print(
            Text(f"Failed: {' '.join(failure.overrides)}: {failure.error}", style="yellow")
        )
    console.print(Text(f"Study: {comparison.folder}"), soft_wrap=True)


def write_comparison(comparison: Comparison) -> None:
    """Write compare.json, compare.md and table.csv into the study's folder.

    Raises:
        StudyError: they cannot be written.
    """
    folder: Path = comparison.folder
    write(folder / "compare.json", json.dumps(comparison.as_dict(), indent=2) + "\n")
    text = "\n".join(grid.markdown() for grid in grids(comparison))
    write(folder / "compare.md", "\n".join([text, *(f"{n}\n" for n in notes(comparison))]))
    write(folder / "table.csv", _csv(comparison))


def _csv(comparison: Comparison) -> str:
    """Tidy: a row per contender and figure."""
    file = io.StringIO()
    rows = comparison.rows()
    table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()
