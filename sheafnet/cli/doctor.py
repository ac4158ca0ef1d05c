"""``sheafnet doctor``: what is installed, and what works here."""

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.text import Text

from sheafnet.cli.options import Format, FormatOption
from sheafnet.version import __version__


def doctor_command(output: FormatOption = Format.text) -> None:
    """Say whether sheafnet can run here: packages, sockets, Ray, memory. Exit code 1 if not."""
    from sheafnet.runtime.doctor import checks

    console, found = Console(), []
    if output is Format.text:
        console.print(f"sheafnet {__version__}")
    for check in checks():
        found.append(check)
        if output is Format.text:
            mark = Text("well   " if check.well else "wrong  ", "green" if check.well else "red")
            console.print(mark + Text(f"{check.name}: {check.found}"), soft_wrap=True)
    if output is Format.json:
        typer.echo(json.dumps([asdict(check) for check in found], indent=2))
    if not all(check.well for check in found):
        raise typer.Exit(1)
