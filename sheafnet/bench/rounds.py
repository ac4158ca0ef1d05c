"""Training rounds of whole networks, beside the same arithmetic in one process.

Beside them stands the limit of the machine: the loop in as many processes as there are cores, each
with its share of the nodes and none with a message. No placement can be faster.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from sheafnet.bench.children import run, task
from sheafnet.bench.effort import Effort
from sheafnet.bench.figures import Figure, compare
from sheafnet.bench.networks import ring
from sheafnet.bench.trace import steady
from sheafnet.bench.turns import Tell, in_turn
from sheafnet.config import Config
from sheafnet.runtime.machines import usable_cores

HOSTS = 2
"""Actors of the packed placements."""
LOOP = "loop"
"""The same arithmetic in one process without messages."""


def measure(effort: Effort, tell: Tell) -> list[Figure]:
    """The small ring with an actor per node and packed, the large one packed, and the limits."""
    figures = _network(effort.small, (1, effort.small // HOSTS), effort.stretches, effort, tell)
    if effort.large is not None:
        per_actor = (effort.large // HOSTS,)
        figures += _network(effort.large, per_actor, effort.large_stretches, effort, tell)
    return figures


def _network(
    nodes: int, per_actor: tuple[int, ...], stretches: int, effort: Effort, tell: Tell
) -> list[Figure]:
    rounds = (1 + stretches) * effort.stretch
    sizes = (f"training.rounds={rounds}", f"run.stretch={effort.stretch}", "inference.rounds=0")
    config = ring(nodes, *sizes)
    copies = min(usable_cores(), nodes)
    ring_of = f"ring of {nodes}"
    loop = f"{ring_of}, {LOOP}"
    limit = f"{ring_of}, limit"
    measures: dict[str, Callable[[], Any]] = {loop: partial(whole_loop, config)}
    for count in per_actor:
        chosen = ring(nodes, *sizes, f"run.nodes_per_actor={count}")
        measures[f"{ring_of}, {nodes // count} actors"] = partial(whole_run, chosen)
    measures[limit] = partial(_limit, config, copies)
    found = in_turn(measures, effort.repeats, tell)
    check_same({name: traces for name, traces in found.items() if name != limit})
    ms = {name: [train_ms(trace) for trace in traces] for name, traces in found.items()}
    return [
        compare("rounds", name, LOOP, "ms", ms[name], ms[loop]) for name in measures if name != loop
    ]


def whole_loop(config: Config) -> Any:
    """The trace of the run in one process without messages."""
    (trace,) = run(task("loop:whole", config=config.model_dump(mode="json")))
    return trace


def whole_run(config: Config) -> Any:
    """The trace of the run on actors."""
    (trace,) = run(task("actors:whole", config=config.model_dump(mode="json")))
    return trace


def train_ms(trace: Any) -> float:
    """Milliseconds of a training round in its steady state."""
    return steady(trace["seconds"]["train"]) * 1e3


def check_same(traces: dict[str, list[Any]]) -> None:
    """Make sure that all computed the same losses and estimates, so that times may be compared."""
    digests = {name: {trace["digest"] for trace in found} for name, found in traces.items()}
    if len(set().union(*digests.values())) > 1:
        raise RuntimeError(f"the same network gave different records: {digests}")


def _limit(config: Config, copies: int) -> Any:
    """The trace of the slowest of `copies` loops that train at once, a share of the nodes each."""
    assert config.graph is not None
    count, values = config.graph.nodes, config.model_dump(mode="json")
    bounds = [count * k // copies for k in range(copies + 1)]
    shares = [list(range(bounds[k], bounds[k + 1])) for k in range(copies)]
    traces = run(*(task("loop:share", config=values, nodes=nodes) for nodes in shares))
    return max(traces, key=train_ms)
