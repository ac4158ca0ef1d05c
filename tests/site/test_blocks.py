"""The code of the tutorial, the how-to guides and the concepts runs, and prints what it should."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import sheafnet
from sheafnet import cli
from sheafnet.config import Config
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies import running
from sheafnet.studies.cells import Cell, CellResult, collect
from tests.site.blocks import Block, blocks_of, transcript

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    DOCS / "tutorial.md",
    *sorted((DOCS / "howto").glob("*.md")),
    *sorted((DOCS / "concepts").glob("*.md")),
    DOCS / "api.md",
]
BASE: dict[str, Any] = {
    "name": "base",
    "dataset": "synthetic",
    "graph": {"generator": "ring", "nodes": 4},
}
"""What a fragment of YAML on a page is a part of."""

Sheafnet = Callable[[list[str]], str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sheafnet:
    """Runs a command line of sheafnet in this process, workers included; what it printed."""
    monkeypatch.setattr(running, "_outcomes", cells_here)

    def run(words: list[str]) -> str:
        monkeypatch.setattr("sys.argv", words)
        capsys.readouterr()
        code = cli.run()
        told = capsys.readouterr()
        assert code == 0, f"{shlex.join(words)}\n{told.err}"
        return told.out

    return run


def cells_here(cells: Sequence[Cell], _: int) -> Iterator[tuple[Cell, CellResult]]:
    """What the worker processes of a study make of its cells, without starting any."""
    for cell in cells:
        result = sheafnet.simulate(cell.config)
        yield cell, collect(cell, RunDirectory.open(result.directory), result.summary, [])


def run_shell(block: Block, command: Sheafnet) -> None:
    for line, output in transcript(block):
        words = shlex.split(line, comments=True)
        assert words[0] == "sheafnet", line
        more = block.added.get(words[1], [])
        printed = command([*words, *more])
        if not more:  # then what is printed is what the page shows
            lines = {" ".join(each.split()) for each in printed.splitlines()}
            for each in output:
                assert each == "..." or measured(each) or " ".join(each.split()) in lines, each


def measured(line: str) -> bool:
    """Whether a line tells what differs with the settings that tests change."""
    return re.match(r"[┏┡│└┃]|Side by side|report\.html", line) is not None


def parses(block: Block) -> None:
    """The commands of a block that is not run are commands."""
    group: Any = typer.main.get_command(cli.app)
    for line, _ in transcript(block):
        words = shlex.split(line, comments=True)
        if words[0] == "sheafnet":
            context = group.make_context("sheafnet", [], resilient_parsing=True)
            group.get_command(context, words[1]).make_context(words[1], words[2:])


def check_yaml(block: Block) -> None:
    if block.file:
        Path(block.file).write_text(block.text, encoding="utf-8")
        sheafnet.load_config(block.file)
    else:
        given = yaml.safe_load(block.text)
        Config.model_validate(BASE | given)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_code_of_a_page_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Sheafnet,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    names: dict[str, Any] = {"__name__": page.stem}
    printed = ""
    for block in blocks_of(page):
        if block.untested:
            parses(block)
        elif block.language in {"sh", "console"}:
            run_shell(block, command)
        elif block.language == "python":
            capsys.readouterr()
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
            printed = capsys.readouterr().out
        elif block.language == "yaml":
            check_yaml(block)
        elif block.language == "text":
            assert printed == block.text, f"line {block.line}"
        else:
            assert block.language.startswith("{"), f"line {block.line}: what is it?"


def test_untested_blocks_are_few_and_say_why() -> None:
    told = [block.untested for page in PAGES for block in blocks_of(page) if block.untested]
    assert len(told) == 5
    assert all(len(reason.split()) > 5 for reason in told)
