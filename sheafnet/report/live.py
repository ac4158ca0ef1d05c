"""A run as it goes, in a terminal: what every node and edge does, and what goes wrong.

Reads the run directory alone, so that any run can be watched, from another terminal too, at no cost
to it. What is shown is as old as the last stretch that was logged.
"""

import json
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

from sheafnet.method import Method
from sheafnet.network.frame import Phase
from sheafnet.network.links import Links
from sheafnet.runtime.diagnosis import contrasted
from sheafnet.runtime.loaded import LoadedRun, form_of
from sheafnet.topology import build_topology

LOOK_S = 0.5
"""Between two looks at the run directory."""
_PATIENCE = 4
"""Looks in a row at which nobody holds the run directory, before nobody is waited for."""
_EVENTS = 6
_FIXED_LINES = 12
"""Lines that are not rows of nodes and edges."""
_BAD = ("dropped", "late", "rejected", "duplicated", "missed")


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
        self._links = Links.open(config, self.network)
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
        """By directed edge ``sender->receiver``: bytes that were sent, messages by fate."""
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
            notes = [str(note) for note in self.run.about.get("recoveries", ())]
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
        with path.open("rb") as file:
            file.seek(self._offsets[name])
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offsets[name] += len(line)
                yield json.loads(line)

    def _count(self, line: dict[str, Any]) -> None:
        sums = self.edges.setdefault(str(line["edge"]), Counter())
        for fate, tally in line.items():
            if isinstance(tally, dict):
                sums[fate] += int(tally.get("messages", 0))
                if fate == "sent":
                    sums["bytes"] += sum(int(v) for k, v in tally.items() if k != "messages")

    def _take(self, line: dict[str, Any]) -> None:
        self.phase, self.round = line["phase"], int(line["round"])
        self.bytes += int(line["bytes"])
        self.figures = line
        found = line.get("contrastive_per_edge")
        if found:
            known = zip(self._contrasted, found, strict=False)
            self.contrast |= {name: value for name, value in known if value is not None}
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

    def view(self, height: int) -> RenderableType:
        """What there is to see, in at most about `height` lines."""
        rows = max(3, height - _FIXED_LINES)
        parts: list[RenderableType] = [self._head()]
        parts.append(Columns([self._edges(rows), self._nodes(rows)], padding=(0, 2)))
        if self.events:
            parts.append(Text("\n".join(self.events), style="yellow"))
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
        names = ("loss", "contrastive", "energy", "recall_at_1", "zero_shot_accuracy", "missing")
        for name in names:
            value = self.figures.get(name)
            if value is not None:
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
            bad = sum(each[fate] for each in both for fate in _BAD)
            found.append((sum(each["bytes"] for each in both), name, bad))
        shown = found if len(found) <= rows else sorted(found, key=lambda row: -row[2])[:rows]
        for size, name, bad in shown:
            contrast = self.contrast.get(name)
            table.add_row(
                name,
                f"{size:,}",
                "-" if contrast is None else f"{contrast:.3f}",
                f"{bad:,}",
                style="yellow" if bad else "",
            )
        if len(shown) < len(found):
            table.caption = f"{len(found) - len(shown):,} more"
        return table

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
            table.add_row(name, state, f"{sent[name]:,}")
        if len(shown) < len(found):
            table.caption = f"{len(found) - len(shown):,} more"
        return table


def watch(path: str | Path, console: Console) -> None:
    """Show a run until it ends; once, where `console` is no terminal.

    Raises:
        RunDirectoryError: there is no run, or a file of it is spoiled.
        ConfigError: its configuration is of another version.
    """
    watched = Watched(path)
    watched.look()
    if not console.is_terminal:
        console.print(watched.view(10**6))
        return
    with Live(watched.view(console.height), console=console, auto_refresh=False) as live:
        alone = 0
        while watched.status == "running" and alone < _PATIENCE:
            time.sleep(LOOK_S)
            watched.look()
            live.update(watched.view(console.height), refresh=True)
            alone = 0 if watched.run.directory.held() else alone + 1
    if watched.status == "running":
        text = f"Nobody is at it: `sheafnet resume {watched.run.path}` goes on."
        console.print(Text(text), soft_wrap=True)
