"""A sensor that has failed: its samples inferred from the neighbours, beside the arithmetic alone.

One camera of the small ring misses every sample. It asks both neighbours, they answer, and it
estimates; the rest of the ring has nothing to do with it.
"""

from functools import partial

from sheafnet.bench.effort import Effort
from sheafnet.bench.figures import Figure, compare
from sheafnet.bench.networks import ring
from sheafnet.bench.rounds import LOOP, check_same, whole_loop, whole_run
from sheafnet.bench.trace import steady
from sheafnet.bench.turns import Tell, in_turn

_BATCH = 128
_STRETCH = {1: 4, _BATCH: 1}
"""Length of a stretch by batch, as a multiple of the usual one: short rounds need more."""


def measure(effort: Effort, tell: Tell) -> list[Figure]:
    """The latency of one sample, and how many of a batch are inferred in a second."""
    latency = [[s * 1e3 for s in seconds] for seconds in _seconds(1, effort, tell)]
    rate = [[_BATCH / s for s in seconds] for seconds in _seconds(_BATCH, effort, tell)]
    return [
        compare("inference", f"ring of {effort.small}, one sample", LOOP, "ms", *latency),
        compare("inference", f"ring of {effort.small}, {_BATCH} samples", LOOP, "samples/s", *rate),
    ]


def _seconds(batch: int, effort: Effort, tell: Tell) -> tuple[list[float], list[float]]:
    """Seconds a round in which `batch` samples are missing: on actors, and in one process."""
    stretch = effort.stretch * _STRETCH[batch]
    config = ring(
        effort.small,
        "training.rounds=4",
        f"run.stretch={stretch}",
        "run.nodes_per_actor=1",
        f"inference.rounds={(1 + effort.stretches) * stretch}",
        f"inference.batch_size={batch}",
        "inference.missing_nodes=[camera0]",
    )
    loop, actors = f"inference of {batch}, {LOOP}", f"inference of {batch}, actors"
    measures = {loop: partial(whole_loop, config), actors: partial(whole_run, config)}
    found = in_turn(measures, effort.repeats, tell)
    check_same(found)
    ours, reference = (
        [steady(trace["seconds"]["inference"]) for trace in found[name]] for name in (actors, loop)
    )
    return ours, reference
