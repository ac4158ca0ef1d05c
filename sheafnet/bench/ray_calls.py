"""What a message costs as the call of a Ray actor. The only module of the benchmark with ray."""

from functools import partial
from typing import Any

from sheafnet.bench.child import Measure
from sheafnet.bench.messages import KIB, median_us, payload_of
from sheafnet.network.payload import Array
from sheafnet.runtime.ray_cluster import start_private, stop_private  # its settings come before ray

import ray  # isort: skip


class Echo:
    """An actor that gives back what it is called with."""

    def echo(self, values: Array) -> Array:
        """`values`."""
        return values


def callee(round_trips: int) -> Measure:
    """A task: an actor of a private Ray, set up as that of a run, is called with every size.

    Gives microseconds of half a call.
    """

    def measure() -> list[float]:
        start_private()
        try:
            actor = ray.remote(Echo).options(num_cpus=0).remote()
            return [median_us(partial(_call, actor, payload_of(kib)), round_trips) for kib in KIB]
        finally:
            stop_private()

    return measure


def _call(actor: Any, values: Array, round_: int) -> None:
    del round_
    ray.get(actor.echo.remote(values))
