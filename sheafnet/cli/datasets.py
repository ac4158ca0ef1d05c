"""``sheafnet datasets``: the data sets, ours and those of installed plug-ins."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sheafnet.cli.options import Format, FormatOption
from sheafnet.datasets import DATASETS, GROUP, DatasetInfo, find_dataset
from sheafnet.errors import SheafnetError
from sheafnet.plugins import distribution
from sheafnet.version import __version__


class _Listed(NamedTuple):
    name: str
    distribution: str
    info: DatasetInfo | None
    trouble: str = ""
    """Why it cannot be used."""


def datasets_command(output: FormatOption = Format.text) -> None:
    """List the data sets with their modalities, sizes and licences, those of plug-ins last."""
    listed = list(_listed())
    if output is Format.json:
        told: dict[str, dict[str, Any]] = {}
        for each in listed:  # a name that is taken stays whose it is
            told.setdefault(each.name, _told(each))
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table(title="Data sets", title_justify="left", show_lines=True)
    table.add_column("name", no_wrap=True)
    for column in ("what it is", "modalities", "sizes", "licence"):
        table.add_column(column, overflow="fold")
    for name, source, info, trouble in listed:
        called = escape(name if name in DATASETS and info else f"{name}\n({source})")
        if info is None:
            table.add_row(called, escape(trouble))
        else:
            texts = (info.summary, info.modalities, info.sizes, info.licence)
            table.add_row(called, *map(escape, texts))
    Console().print(table)


def _listed() -> Iterator[_Listed]:
    for name, info in DATASETS.items():
        yield _Listed(name, f"sheafnet {__version__}", info)
    for entry in GROUP.installed():
        whose, trouble = distribution(entry), GROUP.trouble(entry)
        if trouble is not None:
            yield _Listed(entry.name, whose, None, trouble)
            continue
        try:
            found = find_dataset(entry.name, "cannot be used").value
        except SheafnetError as error:
            yield _Listed(entry.name, whose, None, str(error))
        else:
            yield _Listed(entry.name, whose, found)


def _told(listed: _Listed) -> dict[str, Any]:
    known: dict[str, Any] = (
        {"trouble": listed.trouble} if listed.info is None else listed.info.as_dict()
    )
    return known | {"name": listed.name, "distribution": listed.distribution}
