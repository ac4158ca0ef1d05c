"""The command that measures what sheafnet itself costs."""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sheafnet.bench.figures import check_new, read_results, write_results
from sheafnet.bench.report import markdown, print_results
from sheafnet.bench.suite import PARTS, run_suite
from sheafnet.errors import BenchError


class BenchFormat(StrEnum):
    """How a benchmark is printed."""

    text = "text"
    json = "json"
    markdown = "markdown"


def bench_command(
    only: Annotated[
        str | None,
        typer.Option(metavar="PART,...", help="Parts to measure: " + ", ".join(PARTS) + "."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="For seconds only, to see that all works.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New file for the results, in JSON.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Earlier results to lay beside.")
    ] = None,
    show: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Print these results; measure nothing.")
    ] = None,
    output_format: Annotated[
        BenchFormat, typer.Option("--format", help="How to print the result.")
    ] = BenchFormat.text,
) -> None:
    """Measure messages, rounds and start-up, each beside a reference of the same run."""
    if show is not None and (only is not None or quick or output is not None):
        raise BenchError("--show prints what was measured; drop --only, --quick and --output.")
    if output is not None:
        check_new(output)
    before = None if against is None else read_results(against)
    if show is not None:
        results = read_results(show)
    else:
        parts = None if only is None else [name.strip() for name in only.split(",")]
        results = run_suite(parts, quick=quick, on_progress=_told(output_format))
    if output is not None:
        write_results(output, results)
    if output_format is BenchFormat.json:
        typer.echo(results.model_dump_json(indent=1))
    elif output_format is BenchFormat.markdown:
        typer.echo(markdown(results, before), nl=False)
    else:
        print_results(Console(), results, before)


def _told(output_format: BenchFormat) -> Callable[[str], None]:
    """Lines on stderr; none under --format json."""
    begin = time.monotonic()

    def tell(what: str) -> None:
        if output_format is not BenchFormat.json:
            typer.echo(f"[{time.monotonic() - begin:6.1f} s] {what}", err=True)

    return tell
