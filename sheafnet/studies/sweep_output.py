"""A sweep as a table on the terminal, as CSV or Parquet, and as a plot."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sheafnet.studies.figures import of_seeds
from sheafnet.studies.output import write_columns
from sheafnet.studies.sweep import Sweep

BESIDE = ("recall_at_1", "zero_shot_accuracy", "missing_nmse_ridge", "missing_accuracy_ridge")
"""Figures that are printed beside quality and cost, as far as they fit."""
SHORT = {
    "recall_at_1": "recall@1",
    "zero_shot_accuracy": "zero-shot",
    "missing_nmse_ridge": "NMSE, ridge",
    "missing_accuracy_ridge": "accuracy, ridge",
}


def write_table(sweep: Sweep, path: Path) -> None:
    """Write the tidy table as CSV or Parquet, by the suffix of `path`.

    Values that are no numbers, truth values or text (lists, mappings) become text, and so does a
    swept key whose values are of several kinds.

    Raises:
        StudyError: the suffix is neither, or the file cannot be written.
    """
    rows = sweep.rows()
    keys = [axis.key for axis in sweep.axes]
    columns = {name: [row[name] for row in rows] for name in [*keys, "seed", *sweep.figures]}
    columns |= {key: _of_one_kind(columns[key]) for key in keys}
    write_columns(columns, sweep.figures, path)


def _of_one_kind(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return [float(value) for value in values] if float in kinds else values
    if len(kinds) == 1 and kinds <= {str, bool}:
        return values
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def print_sweep(console: Console, sweep: Sweep) -> None:
    """Print the means over seeds, the Pareto front marked."""
    beside = [
        sweep.figures[name]
        for name in BESIDE
        if name in sweep.figures and name not in {sweep.quality.name, sweep.cost.name}
    ]
    figures = [sweep.quality, sweep.cost, *beside]
    names = [axis.name(sweep.axes) for axis in sweep.axes]
    rows = []
    for index, point in enumerate(sweep.points):
        shown = [point.spread(figure).show(figure) for figure in figures]
        rows.append([*point.texts, "*" if index in sweep.front else "", *shown])
    header = [*names, "front", *(SHORT.get(f.name, f.label) for f in figures)]
    widths = [max(len(name), *(len(row[k]) for row in rows)) + 3 for k, name in enumerate(header)]
    needed = len(names) + 3
    fitting = [n for n in range(needed, len(header) + 1) if sum(widths[:n]) + 1 <= console.width]
    table = Table(title=f"{sweep.topology}: {of_seeds(sweep.seeds)}", title_justify="left")
    for name in header[: max([needed, *fitting])]:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row[: max([needed, *fitting])])
    console.print(table)
    console.print(
        Text(
            f"* Pareto front: no other point has as good a {sweep.quality.label} for as few "
            f"{sweep.cost.label}."
        )
    )
    for failure in sweep.failures:
        console.print(
            Text(f"Failed: {' '.join(failure.overrides)}: {failure.error}", style="yellow")
        )
