"""The hosts of a run as the coordinator sees them, and the pool that is one process.

The pool of actors is in `ray_cluster`. Both run the same `Host`.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sheafnet.runtime.checkpoint import Checkpoint
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.report import HostSize, Parameters, Report


class HostPool(Protocol):
    """All hosts of a run."""

    def start(self, checkpoint: Checkpoint | None, incarnation: int) -> int:
        """Make the hosts, at `checkpoint` if there is one, and connect them.

        Returns how many processes hold nodes.

        Raises:
            ActorError: a host could not be made.
            RunDirectoryError: the checkpoint cannot be read.
        """
        ...

    def recover(self, checkpoint: Checkpoint | None, incarnation: int) -> None:
        """Make hosts in the place of those that died, and have all go back to `checkpoint`.

        What was submitted is forgotten. Frames of older incarnations are refused.

        Raises:
            ActorError: a host could not be made, or died again.
            RunDirectoryError: the checkpoint cannot be read.
        """
        ...

    def submit(self, stretch: Stretch) -> None:
        """Have every host run `stretch` once it is done with what was submitted before."""
        ...

    def collect(self) -> list[Report]:
        """Every host's report of the stretch that was submitted first of those not collected.

        Raises:
            ActorDied: a host died.
            DeadlineError: a host did not report in time.
        """
        ...

    def parameters(self) -> Iterator[Parameters]:
        """The parameters of every node, some nodes at a time."""
        ...

    def sizes(self) -> list[HostSize]:
        """What each process that holds nodes takes."""
        ...


class LocalPool:
    """All nodes in this process, driven by one thread: deterministic, for tests and debugging."""

    def __init__(self, plan: Plan, run: Path) -> None:
        self._plan = plan
        self._run = run
        self._submitted: deque[Stretch] = deque()

    def start(self, checkpoint: Checkpoint | None, incarnation: int) -> int:
        """Make the one host."""
        from sheafnet.runtime.host import Host

        everyone = range(len(self._plan.topology.nodes))
        self._host = Host(self._plan, self._run, everyone, incarnation=incarnation)
        if checkpoint is not None:
            self._host.restore(checkpoint)
        return 1

    def recover(self, checkpoint: Checkpoint | None, incarnation: int) -> None:
        """Make it anew; in one process no host dies alone, so that only tests come here."""
        self._submitted.clear()
        self.start(checkpoint, incarnation)

    def submit(self, stretch: Stretch) -> None:
        """Remember `stretch`."""
        self._submitted.append(stretch)

    def collect(self) -> list[Report]:
        """Run the next stretch here."""
        return [self._host.run(self._submitted.popleft())]

    def parameters(self) -> Iterator[Parameters]:
        """The parameters of every node, one at a time."""
        for node in self._plan.topology.nodes:
            yield self._host.parameters([node.index])

    def sizes(self) -> list[HostSize]:
        """What this process takes."""
        return [self._host.size()]
