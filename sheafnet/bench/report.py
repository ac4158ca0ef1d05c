"""The tables of a benchmark: for a terminal, and in Markdown for a page."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sheafnet.bench.figures import Figure, PartName, Results
from sheafnet.bench.machine import Machine

TITLES: dict[PartName, str] = {
    "messages": "Messages: one way between two processes",
    "frames": "Frames: encoded and decoded in one process",
    "rounds": "Training rounds (loop: the same in one process, without messages)",
    "inference": "Inference of missing samples (loop: the same in one process, without messages)",
    "startup": "Start-up and memory",
}
_READING = (
    "Ratio: ours to the reference, median of the repeats; range: its lowest and highest; before: "
    "the median of earlier results. Less is better, but of samples a second (1/s) more."
)
_COLUMNS = ("measured", "against", "unit", "ours", "reference", "ratio")
_UNITS = {"us": "µs", "samples/s": "1/s"}


def print_results(console: Console, results: Results, against: Results | None = None) -> None:
    """Print a table a part; with the ratios of `against` beside, where it has the same figure."""
    console.print(Text("\n".join(_head(results))))
    if against is not None:
        console.print(Text("Before: " + "\n".join(_head(against))))
        console.print(Text(_difference(results.machine, against.machine), style="yellow"), end="")
    for part, figures in _parts(results):
        table = Table(title=TITLES[part], title_justify="left")
        for column in _columns(against):
            left = column in _COLUMNS[:3]
            table.add_column(column, justify="left" if left else "right", no_wrap=not left)
        for figure in figures:
            table.add_row(*_row(figure, against))
        console.print(table)
    console.print(Text(_READING, style="dim"))


def markdown(results: Results, against: Results | None = None) -> str:
    """The same as Markdown."""
    lines = [*_head(results), ""]
    for part, figures in _parts(results):
        columns = _columns(against)
        lines += [f"**{TITLES[part]}**", "", _cells(columns), _cells(["---"] * len(columns))]
        lines += [_cells(_row(figure, against)) for figure in figures]
        lines.append("")
    return "\n".join([*lines, _READING]) + "\n"


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(results: Results) -> list[str]:
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    quick = " QUICK: measured for seconds only, not to be quoted." if results.quick else ""
    return [
        f"sheafnet {results.sheafnet}, {results.measured}.{quick}",
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb:g} GB, "
        f"load {machine.load:g} before.",
        f"{machine.system}, Python {machine.python}, {packages}.",
    ]


def _difference(now: Machine, before: Machine) -> str:
    """A warning where the machines are not alike; else nothing."""
    ours, theirs = ((m.processor, m.cores, m.packages) for m in (now, before))
    return "" if ours == theirs else "Another machine or other packages: compare with care.\n"


def _parts(results: Results) -> Iterable[tuple[PartName, list[Figure]]]:
    for part in TITLES:
        found = [figure for figure in results.figures if figure.part == part]
        if found:
            yield part, found


def _columns(against: Results | None) -> list[str]:
    return [*_COLUMNS, "range" if against is None else "before"]


def _row(figure: Figure, against: Results | None) -> list[str]:
    cells = [
        figure.name,
        figure.reference,
        _UNITS.get(figure.unit, figure.unit),
        _number(figure.value.median),
        _number(figure.reference_value.median),
        _number(figure.ratio.median),
    ]
    if against is None:
        return [*cells, f"{_number(figure.ratio.lowest)}-{_number(figure.ratio.highest)}"]
    before = against.ratio_of(figure)
    return [*cells, "-" if before is None else _number(before)]


def _number(value: float) -> str:
    """Three significant digits, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
