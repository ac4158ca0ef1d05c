"""A run as it goes, in a terminal: what every node and edge does, and what goes wrong.

Reads the run directory alone, so that any run can be watched, from another terminal too, at no cost
to it. What is shown is as old as the last stretch that was logged.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sheafnet.config import Config
from sheafnet.errors import RunDirectoryError
from sheafnet.method import Method
from sheafnet.network.frame import PHASES, Phase
from sheafnet.network.links import Links
from sheafnet.runtime.diagnosis import contrasted
from sheafnet.runtime.loaded import LoadedRun, form_of, printable
from sheafnet.runtime.rundir import json_object
from sheafnet.topology import build_topology

LOOK_S = 0.5
"""Between two looks at the run directory."""
_PATIENCE = 4
"""Looks in a row at which nobody holds the run directory, before nobody is waited for."""
_SHOWN = ("loss", "contrastive", "energy", "recall_at_1", "zero_shot_accuracy", "missing")
_EVENTS = 6
_FRAME_LINES = 6
"""Lines of a table that are no rows."""
_FIXED_LINES = 3 + _FRAME_LINES
_GAP = 2


def _without_profiles(config: Config) -> Config:
    """`config` without its edges' profiles, which may be code of somebody's: looking loads none.

    Who sleeps and which edges are there does not depend on them.
    """
    edge = config.defaults.edge.model_copy(update={"link": None})
    listed = config.edges and tuple(e.model_copy(update={"link": None}) for e in config.edges)
    defaults = config.defaults.model_copy(update={"edge": edge})
    return config.model_copy(update={"defaults": defaults, "edges": listed})


class Watched:
    """The state of a run, as far as it has been logged.

    Args:
        path: of its directory.

    Raises:
        RunDirectoryError: there is no run.
        ConfigError: its configuration is of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.run = LoadedRun(path)
        config = self.run.config
        self.topology = build_topology(config)
        method = Method.open(config, self.topology)
        self.network = method.network
        self._contrasted = contrasted(method)
        self._links = Links.open(_without_profiles(config), self.network)
        self._rounds: dict[Phase, int] = {
            "train": config.training.rounds,
            "inference": config.inference.rounds,
        }
        self._offsets: dict[str, int] = {}
        self._forget()

    def _forget(self) -> None:
        self.phase: Phase | None = None
        self.round = -1
        self.bytes = 0
        self.figures: dict[str, Any] = {}
        self.contrast: dict[str, float] = {}
        self.edges: dict[str, Counter[str]] = {}
        """By directed edge ``sender->receiver``: bytes that were sent, transmissions by fate. Where
        the run keeps no ledger by edge, all of them stand under ``*``."""
        self.events: deque[str] = deque(maxlen=_EVENTS)
        self._down: set[str] = set()
        self._noted = 0
        self._offsets = dict.fromkeys(("rounds", "ledger"), 0)

    @property
    def status(self) -> str:
        """The run's, from run.json."""
        return str(self.run.about["status"])

    def look(self) -> None:
        """Take in what was logged since the last look."""
        with form_of(self.run.path / "run.json"):
            self.run.about = self.run.directory.about()
            notes = [printable(str(note)) for note in self.run.about.get("recoveries", ())]
        if any(self._size(name) < offset for name, offset in self._offsets.items()):
            self._forget()  # the run went on from a checkpoint, and what came after it is cut off
        with form_of(self.run.path / "ledger.jsonl"):
            for line in self._new("ledger"):
                self._count(line)
        with form_of(self.run.path / "rounds.jsonl"):
            for line in self._new("rounds"):
                self._take(line)
        self.events += notes[self._noted :]
        self._noted = len(notes)

    def _size(self, name: str) -> int:
        path = self.run.path / f"{name}.jsonl"
        return path.stat().st_size if path.exists() else 0

    def _new(self, name: str) -> Iterator[dict[str, Any]]:
        """Whole lines that were appended since the last look."""
        path = self.run.path / f"{name}.jsonl"
        if not path.exists():
            return
        try:
            with path.open("rb") as file:
                file.seek(self._offsets[name])
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    yield json_object(line, str(path))
                    self._offsets[name] += len(line)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}.") from None

    def _count(self, line: dict[str, Any]) -> None:
        sums = self.edges.setdefault(str(line["edge"]), Counter())
        for fate, tally in line.items():
            if isinstance(tally, dict):
                sums[fate] += int(tally.get("messages", 0))
                if fate == "sent":
                    sums["bytes"] += sum(int(v) for k, v in tally.items() if k != "messages")

    def _take(self, line: dict[str, Any]) -> None:
        if line["phase"] not in PHASES:
            raise ValueError(f"{line['phase']!r} is no phase")
        self.phase, self.round = line["phase"], int(line["round"])
        self.bytes += int(line["bytes"])
        shown = {name: line.get(name) for name in _SHOWN}
        self.figures = {name: float(value) for name, value in shown.items() if value is not None}
        found = line.get("contrastive_per_edge")
        if found:
            known = zip(self._contrasted, found, strict=False)
            self.contrast |= {name: float(value) for name, value in known if value is not None}
        down = set(self._downs())
        for what in sorted(down - self._down):
            self.events.append(f"{self.phase} round {self.round}: {what}")
        for what in sorted(self._down - down):
            self.events.append(f"{self.phase} round {self.round}: {what} no longer")
        self._down = down

    def _downs(self) -> Iterator[str]:
        """What simulated faults have switched off in this round."""
        if self._links is None or self.phase is None:
            return
        for node in self.topology.nodes:
            if self._links.asleep(self.phase, self.round, node.index):
                yield f"node {node.id} sleeps"
        for edge in self.network.edges:
            if not self._links.active(self.phase, self.round, edge.index):
                yield f"edge {self.network.edge_name(edge.index)} is not there"

    def view(self, width: int, height: int) -> RenderableType:
        """What there is to see, in at most about `height` lines where that is enough for anything.

        What has happened stands above the tables: what does not fit is cut off below.
        """
        parts: list[RenderableType] = [self._head()]
        if self.events:
            parts.append(Text("\n".join(self.events), style="yellow"))
        left = height - _FIXED_LINES - len(self.events)
        tables = [self._edges(max(3, left)), self._nodes(max(3, left))]
        if sum(_width(table) for table in tables) + _GAP > width:  # one below the other
            rows = max(3, (left - _FRAME_LINES) // 2)
            tables = [self._edges(rows), self._nodes(rows)]
        parts.append(Columns(tables, padding=(0, _GAP)))
        return Group(*parts)

    def _head(self) -> Text:
        config = self.run.config
        if self.phase is None:
            where = "nothing is logged yet"
        else:
            total = self._rounds.get(self.phase)
            where = f"{self.phase} round {self.round + 1:,}{f' of {total:,}' if total else ''}"
        text = Text(f"{config.name}, {config.method.name}: {self.status}, {where}, ")
        text.append(f"{self.bytes:,} bytes", style="bold")
        for name, value in self.figures.items():
            text.append(f"  {name} {value:.4g}")
        return text

    def _edges(self, rows: int) -> Table:
        table = Table(title="edges", title_justify="left", pad_edge=False)
        table.add_column("edge", overflow="fold")
        table.add_column("bytes", justify="right")
        table.add_column("contrast", justify="right")
        table.add_column("not delivered", justify="right")
        found = []
        for edge in self.network.edges:
            both = [self.edges.get(self.network.arrow(edge.index, k), Counter()) for k in (0, 1)]
            name = self.network.edge_name(edge.index)
            bad = sum(each["sent"] - each["delivered"] for each in both)
            found.append((sum(each["bytes"] for each in both), name, bad))
        shown = found if len(found) <= rows else sorted(found, key=lambda row: -row[2])[:rows]
        for size, name, bad in shown:
            contrast = self.contrast.get(name)
            table.add_row(
                name,
                self._known(size),
                "-" if contrast is None else f"{contrast:.3f}",
                self._known(bad),
                style="yellow" if bad else "",
            )
        if len(shown) < len(found):
            table.caption = f"{len(found) - len(shown):,} more"
        return table

    def _known(self, count: int) -> str:
        """A count of one edge or node; unknown where the ledger is kept for all together."""
        return "-" if "*" in self.edges else f"{count:,}"

    def _nodes(self, rows: int) -> Table:
        table = Table(title="nodes", title_justify="left", pad_edge=False)
        table.add_column("node", overflow="fold")
        table.add_column("state")
        table.add_column("bytes sent", justify="right")
        sent: Counter[str] = Counter()
        for arrow, sums in self.edges.items():
            sent[arrow.partition("->")[0]] += sums["bytes"]
        found = [(f"node {n.id} sleeps" in self._down, n.id) for n in self.topology.nodes]
        shown = found if len(found) <= rows else sorted(found, key=lambda row: not row[0])[:rows]
        awake = {"running": "at work", "finished": "done"}.get(self.status, "stopped")
        for asleep, name in shown:
            state = Text("asleep", style="yellow") if asleep else Text(awake)
            table.add_row(name, state, self._known(sent[name]))
        if len(shown) < len(found):
            table.caption = f"{len(found) - len(shown):,} more"
        return table


def _width(table: Table) -> int:
    return Console().measure(table).maximum


def watch(path: str | Path, console: Console) -> None:
    """Show a run until it ends; once, where `console` is no terminal.

    Raises:
        RunDirectoryError: there is no run, or a file of it is spoiled.
        ConfigError: its configuration is of another version.
    """
    watched = Watched(path)
    watched.look()
    if not console.is_terminal:
        console.print(watched.view(console.width, 10**6))
        return
    with Live(
        watched.view(console.width, console.height), console=console, auto_refresh=False
    ) as live:
        alone = 0
        while watched.status == "running" and alone < _PATIENCE:
            time.sleep(LOOK_S)
            watched.look()
            live.update(watched.view(console.width, console.height), refresh=True)
            alone = 0 if watched.run.directory.held() else alone + 1
    if watched.status == "running":
        text = f"Nobody is at it: `sheafnet resume {watched.run.path}` goes on."
        console.print(Text(text), soft_wrap=True)
