"""What a message costs as the call of a Ray actor. The only module of the benchmark with ray."""

from functools import partial
from typing import Any

import sheafnet.runtime.ray_cluster  # noqa: F401  (its settings come before ray)
from sheafnet.bench.child import Measure
from sheafnet.bench.messages import KIB, median_us, payload_of
from sheafnet.network.payload import Array

import ray  # isort: skip

_OBJECT_STORE_BYTES = 100 * 2**20


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
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="CRITICAL",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
        try:
            actor = ray.remote(Echo).options(num_cpus=0).remote()
            return [median_us(partial(_call, actor, payload_of(kib)), round_trips) for kib in KIB]
        finally:
            ray.shutdown()

    return measure


def _call(actor: Any, values: Array, round_: int) -> None:
    del round_
    ray.get(actor.echo.remote(values))
