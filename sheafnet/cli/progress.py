"""What a run or a study tells while it is under way, on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from sheafnet.cli.options import Format
from sheafnet.runtime.coordinator import Progress
from sheafnet.studies.running import StudyProgress

Callbacks = tuple[Callable[[Path], None], Callable[[Progress], None]]


@contextmanager
def run_progress(output: Format, live: bool = False) -> Iterator[Callbacks]:
    """A bar on a terminal, plain lines when piped; both on stderr, nothing under --format json.

    Args:
        output: of the command.
        live: on a terminal nodes and edges instead of the bar.
    """
    console = Console(stderr=True)
    if output is Format.json:
        yield lambda _: None, lambda _: None
    elif console.is_terminal and live:
        with _live(console) as callbacks:
            yield callbacks
    elif console.is_terminal:
        with _bar(console) as callbacks:
            yield callbacks
    else:
        yield _lines()


@contextmanager
def _bar(console: Console) -> Iterator[Callbacks]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(compact=True),
    )
    with Bar(*columns, console=console, expand=True) as bar:
        tasks: dict[str, TaskID] = {}
        starting = bar.add_task("starting", total=None, figures="")

        def on_start(directory: Path) -> None:
            bar.remove_task(starting)
            console.print(f"Run directory: {directory}", soft_wrap=True)

        def on_progress(progress: Progress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = bar.add_task(
                    progress.phase, total=progress.total, figures=""
                )
            bar.update(tasks[progress.phase], completed=progress.done, figures=progress.figures)
            for note in progress.notes:
                console.print(Text(note, style="yellow"))
            for finding in progress.findings:
                console.print(Text(f"{finding.signature}: {finding.text}", style="yellow"))

        yield on_start, on_progress


@contextmanager
def _live(console: Console) -> Iterator[Callbacks]:
    from rich.live import Live

    from sheafnet.report.live import Watched

    with Live(Text("starting"), console=console, auto_refresh=False) as shown:
        watched: list[Watched] = []

        def on_start(directory: Path) -> None:
            console.print(f"Run directory: {directory}", soft_wrap=True)
            watched.append(Watched(directory))

        def on_progress(progress: Progress) -> None:
            watched[-1].look()
            shown.update(watched[-1].view(console.width, console.height), refresh=True)
            for finding in progress.findings:
                console.print(Text(f"{finding.signature}: {finding.text}", style="yellow"))

        yield on_start, on_progress


def _lines() -> Callbacks:
    begin = time.monotonic()
    shown: dict[str, int] = {}

    def on_start(directory: Path) -> None:
        typer.echo(f"Run directory: {directory}", err=True)

    def on_progress(progress: Progress) -> None:
        for note in progress.notes:
            typer.echo(note, err=True)
        for finding in progress.findings:
            typer.echo(f"{finding.signature}: {finding.text}", err=True)
        tenth = 10 * progress.done // progress.total
        if shown.get(progress.phase) == tenth and progress.done < progress.total:
            return
        shown[progress.phase] = tenth
        typer.echo(
            f"[{time.monotonic() - begin:6.1f} s] {progress.phase} "
            f"{progress.done}/{progress.total} {progress.figures}",
            err=True,
        )

    return on_start, on_progress


@contextmanager
def study_progress(output: Format) -> Iterator[Callable[[StudyProgress], None]]:
    """As `_progress`, for the cells of a study."""
    console = Console(stderr=True)
    if output is Format.json:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield lambda progress: typer.echo(progress, err=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None))
    with Bar(*columns, console=console, expand=True) as bar:
        tasks: dict[str, TaskID] = {}

        def on_progress(progress: StudyProgress) -> None:
            if progress.what not in tasks:
                tasks[progress.what] = bar.add_task("", total=progress.total)
            bar.update(tasks[progress.what], completed=progress.done, description=str(progress))

        yield on_progress
