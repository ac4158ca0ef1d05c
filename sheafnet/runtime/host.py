"""Drives the nodes of one process through a stretch of rounds.

Every node is a program that runs until it needs a frame that is not there. The host advances
whichever node can go on, delivers what arrives from other processes, and lets a wait end at its
deadline. It holds no state of the method and decides nothing that a result depends on.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import torch

from sheafnet.errors import SheafnetError
from sheafnet.network.channel import Address, Endpoint
from sheafnet.network.ledger import Entry
from sheafnet.network.sockets import SocketHub
from sheafnet.network.switchboard import Switchboard
from sheafnet.nodes.node import FloatArray, Node, Program
from sheafnet.nodes.programs import programs_of
from sheafnet.nodes.records import EvaluationRecord, InferenceRecord, TrainRecord
from sheafnet.runtime.plan import Plan, Stretch

_LONGEST_POLL_S = 0.2
"""How soon a waiting host notices that it is to stop."""


@dataclass
class NodeRecords:
    """The records of one node in a stretch."""

    train: list[TrainRecord] = field(default_factory=list)
    evaluation: list[EvaluationRecord] = field(default_factory=list)
    inference: list[InferenceRecord] = field(default_factory=list)


@dataclass
class Report:
    """What a host tells the coordinator after a stretch."""

    records: dict[int, NodeRecords]
    ledger: list[Entry]
    rejected: int
    """Frames refused so far."""
    rejections: list[str]
    """Why, for the last of them."""
    memory_mb: float
    """Memory that belongs to this process alone."""
    failure: SheafnetError | None = None


@dataclass
class _Waiting:
    program: Program
    addresses: list[Address] | None = None
    """None before the program has started."""
    patience_s: float = math.inf
    """Idle seconds of the host after which it goes on with what has come."""


class Host:
    """Some nodes of the network in one process.

    Args:
        plan: of the run.
        run: name of the run, which its frames are tagged with.
        nodes: indices of the nodes that live here.
        hub: sockets to the other hosts; None where all nodes live here.
    """

    def __init__(
        self, plan: Plan, run: str, nodes: Sequence[int], hub: SocketHub | None = None
    ) -> None:
        torch.set_num_threads(1)
        self._plan = plan
        self._hub = hub
        self._board = Switchboard(plan.method.network, hub)
        self._endpoints: dict[int, Endpoint] = {}
        self._nodes: dict[int, Node] = {}
        self._stop = threading.Event()
        limits = plan.limits(run)
        for index in nodes:
            endpoint = Endpoint(plan.method.network, index, limits, self._board)
            self._board.attach(endpoint)
            self._endpoints[index] = endpoint
            self._nodes[index] = Node(plan.config, plan.method, index, plan.dataset, endpoint)

    def abort(self) -> None:
        """Make a running stretch end at its next wait; may be called from another thread."""
        self._stop.set()

    def run(self, stretch: Stretch) -> Report:
        """Run `stretch` on all nodes here; a failure comes back in the report."""
        torch.set_num_threads(1)  # the number is a property of the calling thread
        records = {index: NodeRecords() for index in self._nodes}
        programs = {
            index: self._program(node, stretch, records[index])
            for index, node in self._nodes.items()
        }
        failure = self._drive(programs)
        for program in programs.values():
            program.close()
        return Report(
            records=records,
            ledger=self._board.drain(),
            rejected=self._board.rejected,
            rejections=list(self._board.rejections),
            memory_mb=psutil.Process().memory_full_info().uss / 1e6,
            failure=failure,
        )

    def parameters(self) -> dict[int, dict[str, FloatArray]]:
        """Every parameter of every node here."""
        return {index: node.parameters() for index, node in self._nodes.items()}

    def _program(self, node: Node, stretch: Stretch, records: NodeRecords) -> Program:
        programs = programs_of(node.method)
        for round_ in range(stretch.first, stretch.first + stretch.rounds):
            if stretch.phase == "train":
                yield from programs.train(node, round_, records.train)
            elif stretch.phase == "evaluation":
                yield from programs.evaluate(node, round_, records.evaluation)
            else:
                yield from programs.infer(node, round_, records.inference)

    def _drive(self, programs: dict[int, Program]) -> SheafnetError | None:
        """Advance all programs to their end, or, once one has failed, as far as they get.

        Returns the failure.
        """
        waiting = {index: _Waiting(program) for index, program in programs.items()}
        ready = deque(programs)
        failure = None
        while waiting and not self._stop.is_set():
            while ready and not self._stop.is_set():
                index = ready.popleft()
                wait = waiting.get(index)
                if wait is not None and self._can_go_on(index, wait):
                    try:
                        self._advance(index, waiting)
                    except SheafnetError as error:
                        failure = failure or error
                    ready.append(index)
                self._take_touched(ready)
            if failure is not None:
                break
            if waiting:
                idle = self._wait(min(wait.patience_s for wait in waiting.values()))
                self._take_touched(ready)
                for index, wait in waiting.items():
                    wait.patience_s -= idle
                    if wait.patience_s <= 0:
                        ready.append(index)
        return failure

    def _can_go_on(self, index: int, wait: _Waiting) -> bool:
        return wait.patience_s <= 0 or self._endpoints[index].arrived(wait.addresses or ())

    def _take_touched(self, ready: deque[int]) -> None:
        ready.extend(self._board.touched)
        self._board.touched.clear()

    def _advance(self, index: int, waiting: dict[int, _Waiting]) -> None:
        """Resume a node with what has come for it, up to its next wait or its end."""
        wait = waiting.pop(index)
        mail = None if wait.addresses is None else self._endpoints[index].take(wait.addresses)
        try:
            wait.addresses = wait.program.send(mail)  # type: ignore[arg-type]  # None starts it
        except StopIteration:
            return
        wait.patience_s = self._plan.config.run.deadline_s
        waiting[index] = wait

    def _wait(self, longest_s: float) -> float:
        """Wait for frames from outside and deliver all that have come; returns the seconds.

        Only this idle time counts against a deadline: a host that computes for long has not
        looked for its mail yet.
        """
        start = time.monotonic()
        timeout = max(0.0, min(longest_s, _LONGEST_POLL_S))
        if self._hub is None:
            time.sleep(timeout)
        else:
            buffers = self._hub.receive(timeout)
            while buffers:
                for buffer in buffers:
                    self._board.deliver(buffer)
                buffers = self._hub.receive(0.0)
        return time.monotonic() - start
