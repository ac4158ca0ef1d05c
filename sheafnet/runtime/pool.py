"""The hosts of a run as the coordinator sees them, and the pool that is one process.

The pool of actors is in `ray_cluster`. Both run the same `Host`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from sheafnet.runtime.plan import Plan, Stretch

if TYPE_CHECKING:
    from sheafnet.runtime.host import Report

Parameters = Mapping[int, Mapping[str, npt.NDArray[np.float32]]]


class HostPool(Protocol):
    """All hosts of a run."""

    def start(self) -> int:
        """Make the hosts and connect them; returns how many processes hold nodes.

        Raises:
            ActorError: a host could not be made.
        """
        ...

    def run(self, stretch: Stretch) -> "list[Report]":
        """Run `stretch` everywhere and return every host's report.

        Raises:
            ActorError: a host died.
            DeadlineError: a host did not report in time.
        """
        ...

    def parameters(self) -> Parameters:
        """The parameters of every node."""
        ...


class LocalPool:
    """All nodes in this process, driven by one thread: deterministic, for tests and debugging."""

    def __init__(self, plan: Plan, run: str) -> None:
        self._plan = plan
        self._run = run

    def start(self) -> int:
        """Make the one host."""
        from sheafnet.runtime.host import Host

        self._host = Host(self._plan, self._run, range(len(self._plan.topology.nodes)))
        return 1

    def run(self, stretch: Stretch) -> "list[Report]":
        """Run `stretch` here."""
        return [self._host.run(stretch)]

    def parameters(self) -> Parameters:
        """The parameters of every node."""
        return self._host.parameters()
