"""The code of a page of the documentation, and what its comments say of how tests run it.

A page is run as its reader would: block after block, in one empty folder, with one Python.
Comments, which neither GitHub nor the site shows, say where a test does something else:

``<!-- tests add to COMMAND: OPTIONS -->``
    From here on, ``sheafnet COMMAND`` gets these options too, to be quick.
``<!-- tests replace: OLD => NEW; OLD => NEW -->``
    In the next block.
``<!-- not tested: REASON -->``
    The next block is read only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = re.compile(
    r"^<!-- (?P<told>tests add to|tests replace|not tested)(?P<what>.*?) -->$"
    r"|^```(?P<language>[a-z-]+|\{[^\n]*)?\n(?P<text>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block, with what tests change in it."""

    language: str
    text: str
    line: int
    untested: str | None = None
    added: dict[str, list[str]] = field(default_factory=dict)
    """Options by command."""

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, from its first line: ``# mine.yaml``."""
        found = re.match(r"# ([\w.-]+\.(?:yaml|py))\n", self.text)
        return found[1] if found else None


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    added: dict[str, list[str]] = {}
    replaced: list[tuple[str, str]] = []
    untested: str | None = None
    for piece in _PIECE.finditer(text):
        what = piece["what"]
        if piece["told"] == "tests add to":
            command, _, options = what.strip().partition(": ")
            added = {**added, command: options.split()}
        elif piece["told"] == "tests replace":
            replaced = []
            for pair in what.removeprefix(": ").split("; "):
                old, arrow, new = pair.partition(" => ")
                assert arrow, f"{page.name}: {what}"
                replaced.append((old, new))
        elif piece["told"] == "not tested":
            untested = what.removeprefix(": ").strip()
            assert untested, f"{page.name}: a block is not tested, and does not say why"
        else:
            code = piece["text"]
            for old, new in replaced:
                assert old in code, f"{page.name}: nothing to replace: {old}"
                code = code.replace(old, new)
            line = text.count("\n", 0, piece.start()) + 1
            yield Block(piece["language"] or "", code, line, untested, added)
            replaced, untested = [], None


def transcript(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a shell block, each with the lines of output that stand below it."""
    command: str | None = None
    output: list[str] = []
    for line in block.text.splitlines():
        if block.language == "sh" or line.startswith("$ "):
            if command is not None:
                yield command, output
            command, output = line.removeprefix("$ "), []
        else:
            output.append(line)
    if command is not None:
        yield command, output
