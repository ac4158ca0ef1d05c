"""``sheafnet report`` and ``sheafnet watch``: runs, for people to look at."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sheafnet.report.export import Target, export
from sheafnet.runtime.loaded import load_run


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The HTML file; it is replaced.")
    ] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="A folder for every figure as SVG and PNG, too.")
    ] = None,
) -> None:
    """Write one self-contained page about a run, or about several side by side."""
    from sheafnet.report.page import write_report

    count = write_report(runs, output, figures)
    typer.echo(f"{output}: {count} figures, {output.stat().st_size / 1e6:.1f} MB")
    if figures is not None:
        typer.echo(f"{figures}: each of them as SVG and PNG")


def watch_command(
    run: Annotated[Path, typer.Argument(help="The run directory of a run, under way or not.")],
) -> None:
    """Watch a run: its nodes, edges, bytes and faults, until it ends or Ctrl-C."""
    from sheafnet.report.live import watch

    try:
        watch(run, Console())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def export_command(
    run: Annotated[Path, typer.Argument(help="The run directory.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="The folder to write into.")],
    target: Annotated[Target, typer.Option("--to", help="Tables or events.")] = Target.csv,
) -> None:
    """Write the rounds and the ledger of a run as tables, or its scalars for TensorBoard."""
    for path in export(load_run(run), folder, target):
        typer.echo(path)
