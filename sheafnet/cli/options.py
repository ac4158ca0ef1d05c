"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sheafnet.cli.completion import keys, topologies


class Format(StrEnum):
    """How results are printed."""

    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key, as training.rounds=200.",
        autocompletion=keys,
    ),
]
TopologyOption = Annotated[
    Path,
    typer.Option(
        help="The YAML of the network and the run, or the name of a shipped one.",
        autocompletion=topologies,
    ),
]
