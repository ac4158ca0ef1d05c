"""A cell of a study: one configuration, one run, one small file that keeps what it measured.

A cell is known by a hash of its resolved configuration and the versions of sheafnet and of the
distributions whose plug-ins it names, so a study that broke off goes on where it stopped, and
another study in the same folder shares its runs. What the hash cannot see is the content of data
files and of code of one's own that nothing installed. A cell that is run for its times is known by
the machine and the placement too.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from sheafnet.config import Config, ConfigSource, load_config
from sheafnet.datasets import with_absolute_paths
from sheafnet.errors import ConfigError
from sheafnet.network.frame import Phase
from sheafnet.runtime.foreign import distributions
from sheafnet.runtime.machines import usable_cores
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import Summary
from sheafnet.version import __version__

LOCAL = ("run.backend=local", "run.address=null")
"""A cell runs in one process: its figures are those of the actors, bit for bit."""
TIMED = ("run.backend=ray", "run.nodes_per_actor=auto")
"""Unless it is run for its times: those of the actors are asked for."""
CURVE_EVALUATIONS = 10
CURVE_POINTS = 200
"""At most about so many training rounds are kept of a curve."""
_CURVE = ("round", "loss", "energy", "contrastive", "gradient_norm")


@dataclass(frozen=True)
class Cell:
    """A run to be made, with what was set on top of the topology file."""

    config: Config
    overrides: tuple[str, ...]

    @property
    def timed(self) -> bool:
        """Whether it is run for its times, and so alone, on actors."""
        return self.config.run.backend == "ray"

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """Everything that can change a figure, as plain values."""
        values = self.config.model_dump(mode="json")
        if plugins := distributions(self.config):
            values["plugins"] = plugins
        if self.timed:
            return values | {"machine": [platform.node(), usable_cores()]}
        return values | {"run": {"seed": self.config.run.seed}}

    @cached_property
    def key(self) -> str:
        """The name of the cell: 20 hexadecimal digits."""
        known = json.dumps([__version__, self.resolved], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:20]


def open_base(topology: ConfigSource, overrides: Sequence[str]) -> Config:
    """The configuration that a study starts from, checked; its encoders are registered.

    Raises:
        InputError: it cannot be run.
    """
    base = load_config(topology, [*overrides, *LOCAL])
    Plan.open(base)
    return base


def curve_overrides(base: Config) -> tuple[str, ...]:
    """About ten evaluations in the training of `base`, unless it says how often itself.

    The same for all runs of a comparison, whatever their rounds: the bytes to a quality are read
    off these evaluations.
    """
    if "every" in base.evaluation.model_fields_set:
        return ()
    return (f"evaluation.every={max(1, -(-base.training.rounds // CURVE_EVALUATIONS))}",)


def seeds_from(base: Config, count: int) -> tuple[int, ...]:
    """`count` seeds that count up from ``run.seed``.

    Raises:
        ConfigError: there is none, or they would pass the largest one.
    """
    if count < 1:
        raise ConfigError(f"seeds = {count}: a study takes at least one.")
    if base.run.seed + count > 2**63:
        raise ConfigError(f"run.seed = {base.run.seed}: {count} seeds from there pass 2^63 - 1.")
    return tuple(range(base.run.seed, base.run.seed + count))


def read_cells(
    topology: ConfigSource,
    overrides: Sequence[str],
    seeds: Sequence[int],
    where: Sequence[str] = LOCAL,
) -> list[Cell]:
    """A cell for every seed of the run at `topology` under `overrides`.

    Args:
        topology: as `load_config` takes it.
        overrides: on top of it.
        seeds: of the cells.
        where: they run: `LOCAL` or `TIMED`.

    Raises:
        ConfigError: file or override is wrong.
    """
    config = with_absolute_paths(load_config(topology, [*overrides, *where]))
    return [
        Cell(
            config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})}),
            (*overrides, f"run.seed={seed}"),
        )
        for seed in seeds
    ]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evaluation(_Kept):
    """A point of the evaluation curve."""

    after: int
    """Training rounds done."""
    train_bytes: int
    """Sent in training so far."""
    figures: dict[str, float | None]
    """By name: those of `CURVE_FIGURES`, and others that the run measured on its way, as what
    training had cost in simulated seconds and joules."""

    def cost(self, name: str) -> float | None:
        """What training had cost so far in one of `sheafnet.studies.figures.COSTS`."""
        return self.train_bytes if name == "bytes" else self.figures.get(f"train_{name}")


class StretchEnd(_Kept):
    """When a stretch of rounds was reported."""

    phase: Phase
    done: int
    """Rounds of the phase that were finished by then."""
    seconds: float
    """Since the hosts were up."""


CURVE_FIGURES = ("recall_at_1", "zero_shot_accuracy", "probe_accuracy", "fused_accuracy")
_PLACE = {"phase", "round", "after", "train_bytes", "bytes"}
_OWN_COST = {"seconds", "joules", "joules_per_node"}
"""Of the evaluation itself."""


class CellResult(_Kept):
    """What is kept of a finished cell."""

    key: str
    sheafnet: str
    """The version that measured it."""
    overrides: tuple[str, ...]
    config: dict[str, Any]
    summary: Summary
    """Without the figures of single nodes, edges and actors."""
    evaluations: tuple[Evaluation, ...]
    training: tuple[dict[str, int | float | None], ...]
    """Round, loss, energy, contrast and gradient norm of a thinned-out sequence of rounds."""
    stretches: tuple[StretchEnd, ...] = ()
    """Of a cell that was run for its times."""


def collect(
    cell: Cell, run: RunDirectory, summary: Summary, stretches: Sequence[StretchEnd] = ()
) -> CellResult:
    """What is to be kept of a finished run."""
    rounds = summary.rounds
    step = -(-rounds // CURVE_POINTS) or 1
    training, evaluations = [], []
    for line in run.lines("rounds"):
        if line["phase"] == "train" and (line["round"] % step == 0 or line["round"] == rounds - 1):
            training.append({name: line[name] for name in _CURVE})
        elif line["phase"] == "evaluation":
            figures = {n: value for n, value in line.items() if n not in _PLACE | _OWN_COST}
            evaluations.append(
                Evaluation(after=line["after"], train_bytes=line["train_bytes"], figures=figures)
            )
    return CellResult(
        key=cell.key,
        sheafnet=__version__,
        overrides=cell.overrides,
        config=cell.resolved,
        summary=Summary.model_validate(_network_only(summary.model_dump(mode="json"))),
        evaluations=tuple(evaluations),
        training=tuple(training),
        stretches=tuple(stretches) if cell.timed else (),
    )


def _network_only(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with every ``per_...`` emptied."""
    kept = {}
    for name, value in values.items():
        if name.startswith("per_"):
            kept[name] = type(value)()
        else:
            kept[name] = _network_only(value) if isinstance(value, dict) else value
    return kept
