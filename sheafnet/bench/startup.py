"""What actors take to start and in memory, beside bare Python processes that import torch."""

import time
from collections.abc import Sequence
from functools import partial
from statistics import mean

import psutil

from sheafnet.bench.children import Child, Group
from sheafnet.bench.effort import Effort
from sheafnet.bench.figures import Figure, compare
from sheafnet.bench.networks import ring
from sheafnet.bench.rounds import whole_run
from sheafnet.bench.turns import Tell, in_turn

_BARE = "import torch; print(1, flush=True); input()"


def measure(effort: Effort, tell: Tell) -> list[Figure]:
    """Seconds until an actor per node is ready, and megabytes of each."""
    short = ("training.rounds=4", "inference.rounds=0", "run.nodes_per_actor=1")
    config = ring(effort.small, *short)
    bare, actors = f"{effort.small} bare processes", f"{effort.small} actors"
    measures = {bare: partial(_bare, effort.small), actors: partial(whole_run, config)}
    found = in_turn(measures, effort.repeats, tell)

    def figure(name: str, reference: str, ours: Sequence[float], at: int) -> Figure:
        return compare(
            "startup", name, reference, ("s", "MB")[at], ours, [pair[at] for pair in found[bare]]
        )

    imports = f"{effort.small} processes that import torch"
    return [
        figure(f"{actors} ready", imports, [trace["startup_s"] for trace in found[actors]], 0),
        figure("an actor", "one of these", [trace["actor_mb"] for trace in found[actors]], 1),
    ]


def _bare(count: int) -> tuple[float, float]:
    """Seconds until `count` processes that begin at once have imported torch, and MB of each.

    Memory is what belongs to a process alone, as it is counted for an actor.
    """
    begin = time.perf_counter()
    with Group([Child("bare python", ["-c", _BARE]) for _ in range(count)]) as group:
        group.answers()
        seconds = time.perf_counter() - begin
        alone = [psutil.Process(pid).memory_full_info().uss / 1e6 for pid in group.pids]
    return seconds, mean(alone)
