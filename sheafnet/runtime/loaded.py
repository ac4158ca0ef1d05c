"""A run read back from its directory, finished or broken off."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from sheafnet.config import Config
from sheafnet.datasets.base import Split
from sheafnet.errors import RunDirectoryError
from sheafnet.method import Method
from sheafnet.network.channel import Endpoint
from sheafnet.network.frame import PHASES, Phase
from sheafnet.network.switchboard import Switchboard
from sheafnet.runtime.diagnosis import contrasted, diagnose_training
from sheafnet.runtime.figures import sheaf_of
from sheafnet.runtime.finding import Finding
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import SCHEMA, Bytes, Summary
from sheafnet.sheaf.cellular import Sheaf
from sheafnet.topology import Topology, build_topology
from sheafnet.validation import check_model, nearest

if TYPE_CHECKING:
    from sheafnet.nodes.node import Node

Line = dict[str, Any]
Table = Phase | Literal["ledger"]
TABLES: tuple[Table, ...] = (*PHASES, "ledger")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class LoadedRun:
    """What a run directory holds.

    Args:
        path: of the run directory.

    Raises:
        RunDirectoryError: there is no run, one of another version, or a file of it is spoiled.
    """

    def __init__(self, path: str | Path) -> None:
        self.directory = RunDirectory.open(path)
        self.path = self.directory.path
        self.about = self.directory.about()
        """The contents of run.json."""

    @property
    def finished(self) -> bool:
        """Whether it has a summary."""
        return self.summary is not None

    @cached_property
    def summary(self) -> Summary | None:
        """The figures; None of a run that is not finished."""
        figures = self.directory.summary()
        if figures is None:
            return None
        path = self.path / "summary.json"
        if figures.get("schema") != SCHEMA:
            raise RunDirectoryError(
                f"{path}: is of schema {figures.get('schema')}; this sheafnet reads {SCHEMA}."
            )
        try:
            return Summary.model_validate(figures)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise RunDirectoryError(
                f"{path}: is no summary of this version: "
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}."
            ) from None

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: it is of another version.
        """
        source = str(self.path / "config.yaml")
        return check_model(Config, self.directory.config(), source=source)

    @cached_property
    def topology(self) -> Topology:
        """The network; raises as `config` does."""
        return build_topology(self.config)

    def lines(self, phase: Phase) -> list[Line]:
        """The lines of rounds.jsonl of one phase, as docs/summary.md describes them."""
        return self._lines.get(phase, [])

    @cached_property
    def _lines(self) -> dict[str, list[Line]]:
        """All of them, read once."""
        found: dict[str, list[Line]] = {}
        with form_of(self.path / "rounds.jsonl"):
            for line in self.directory.lines("rounds"):
                found.setdefault(line["phase"], []).append(line)
        return found

    def rounds(self, phase: Phase = "train") -> list[Line]:
        """The same, flat: one value a column, so that a data frame can be made of it.

        Nested figures are joined by dots, as ``estimators.ridge.nmse``; lists are left out.
        """
        return [dict(_flat(line)) for line in self.lines(phase)]

    def ledger(self) -> list[Line]:
        """The lines of ledger.jsonl, flat: ``phase``, ``round``, ``edge``, ``sent.messages`` ..."""
        with form_of(self.path / "ledger.jsonl"):
            return [dict(_flat(line)) for line in self.directory.lines("ledger")]

    def columns(self, table: Table = "train") -> dict[str, list[Any]]:
        """`rounds` of a phase, or `ledger`, by column, all of one length.

        ``pandas.DataFrame(run.columns("ledger"))``, ``pyarrow.table(run.columns("ledger"))`` and
        ``plot(*map(run.columns().get, ["round", "loss"]))`` take them as they are. What a round did
        not measure is None; a fate that a line of the ledger does not name has counted 0.

        Raises:
            RunDirectoryError: there is no such table.
        """
        if table not in TABLES:
            raise RunDirectoryError(
                f"{self.path}: has no table {table!r}. {nearest(table, TABLES)}"
            )
        lines = self.ledger() if table == "ledger" else self.rounds(table)
        absent = 0 if table == "ledger" else None
        names = dict.fromkeys(name for line in lines for name in line)
        return {name: [line.get(name, absent) for line in lines] for name in names}

    def sent(self) -> dict[Phase, dict[str, Bytes]]:
        """What was sent so far, by phase and directed edge ``sender->receiver``.

        Of a run that is not finished it is the sum of its ledger, without a floor.
        """
        if self.summary is not None:
            phases = self.summary.communication.phases
            return {phase: dict(traffic.per_edge) for phase, traffic in phases.items()}
        totals: dict[Phase, dict[str, dict[str, int]]] = {}
        path = self.path / "ledger.jsonl"
        with form_of(path):
            for line in self.directory.lines("ledger"):
                if line["phase"] not in PHASES:
                    raise RunDirectoryError(f"{path}: {line['phase']!r} is no phase.")
                sums = totals.setdefault(line["phase"], {}).setdefault(line["edge"], {})
                for key, value in line.get("sent", {}).items():
                    sums[key] = sums.get(key, 0) + value
                    if key != "messages":
                        sums["bytes_total"] = sums.get("bytes_total", 0) + value
            return {
                phase: {edge: Bytes.model_validate(sums) for edge, sums in edges.items()}
                for phase, edges in totals.items()
            }

    def rounds_logged(self, phase: Phase) -> int:
        """How many rounds of `phase` the ledger has."""
        with form_of(self.path / "ledger.jsonl"):
            lines = self.directory.lines("ledger")
            return len({line["round"] for line in lines if line["phase"] == phase})

    def findings(self) -> list[Finding]:
        """The failure signatures that show; of a run that is not finished, in training so far.

        Raises:
            ConfigError: its config.yaml, which that takes, is of another version.
        """
        if self.summary is not None:
            return self.summary.diagnosis
        method = Method.open(self.config, self.topology)
        with form_of(self.path / "rounds.jsonl"):
            return diagnose_training(self.lines("train"), contrasted(method), self.config)

    @cached_property
    def plan(self) -> Plan:
        """What the run does, and its data set; raises as `config` does."""
        return Plan.open(self.config)

    def sheaf(self) -> Sheaf:
        """The cellular sheaf of the restriction maps that the run ended with.

        In a single space these are identities. Of a run of no training rounds, those it began with.

        Raises:
            RunDirectoryError: the method has no spaces to compare in, the parameters were not kept,
                or they are of another network.
            ConfigError: the configuration is of another version.
        """
        method = Method.open(self.config, self.topology)
        if not method.aligns:
            raise RunDirectoryError(
                f"{self.path}: under {method.name} neighbours have no space to compare in, and so "
                "there is no sheaf; run it with method=sheafalign."
            )
        nodes = method.topology.nodes
        parameters = {node.index: self.directory.parameters(node.id) for node in nodes}
        try:
            return sheaf_of(method.topology, parameters)
        except ValueError as error:
            raise RunDirectoryError(f"{self.path}: {error}.") from None

    def sections(self, split: Split = "test", events: int = 200) -> list[npt.NDArray[np.float32]]:
        """What the encoders of the run make of its data: h_i (events, d_i) of every node in order.

        Args:
            split: validation and test events are unseen in training.
            events: how many, from the first on.

        Raises:
            RunDirectoryError: there is no such split, it has fewer events, or as `node`.
            ConfigError: the configuration is of another version.
        """
        if split not in get_args(Split):
            known = nearest(split, get_args(Split))
            raise RunDirectoryError(f"{self.path}: has no split {split!r}. {known}")
        if events < 1:
            raise RunDirectoryError(f"{self.path}: {events} events; at least one.")
        have = self.plan.dataset.size(split)
        if have is not None and events > have:
            raise RunDirectoryError(
                f"{self.path}: {events} events of the {split} split, which has {have}."
            )
        from sheafnet.nodes.node import array_of  # torch

        chosen = np.arange(events, dtype=np.int64)
        nodes = (self.node(node.id) for node in self.topology.nodes)
        return [array_of(node.labelled(split, chosen).section) for node in nodes]

    def node(self, name: str) -> "Node":
        """A node with what it has learned, to look into: encoder, restriction and dual maps.

        What is not a parameter (moments, probe) is as in a node that has not begun.

        Raises:
            RunDirectoryError: there is no such node, its parameters were not kept, or they are of
                another network.
            ConfigError: the configuration is of another version.
        """
        from sheafnet.nodes.node import Node  # torch

        names = [node.id for node in self.topology.nodes]
        if name not in names:
            raise RunDirectoryError(
                f"{self.path}: no node is called {name}. {nearest(name, names)}"
            )
        plan, index = self.plan, names.index(name)
        network = plan.method.network
        endpoint = Endpoint(network, index, plan.limits("loaded"), Switchboard(network))
        node = Node(self.config, plan.method, index, plan.dataset, endpoint)
        try:
            node.load_parameters(self.directory.parameters(name))
        except ValueError as error:
            raise RunDirectoryError(f"{self.path}, node {name}: {error}.") from None
        return node


def load_run(path: str | Path) -> LoadedRun:
    """The run at `path`, finished or broken off.

    Raises:
        RunDirectoryError: there is none, or one of another version.
    """
    return LoadedRun(path)


def labelled(runs: Sequence[LoadedRun]) -> dict[str, LoadedRun]:
    """Runs by the name of their folder, or by its path where two have the same."""
    names = [run.path.resolve().name for run in runs]
    return {
        name if names.count(name) == 1 else str(run.path): run
        for name, run in zip(names, runs, strict=True)
    }


def printable(text: str) -> str:
    """`text` without what a terminal obeys and what no file can hold."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


@contextmanager
def form_of(path: Path) -> Iterator[None]:
    """What is missing, or of another type, is the fault of the file at `path`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunDirectoryError(
            f"{path}: has not the form of this version ({type(error).__name__}: {error})."
        ) from None


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif not isinstance(value, list):
            yield before + name, value
