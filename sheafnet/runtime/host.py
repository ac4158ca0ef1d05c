"""Drives the nodes of one process through a stretch of rounds.

Every node is a program that runs until it needs a frame that is not there. The host advances
whichever node can go on, delivers what arrives from other processes, and lets a wait end at its
deadline. It holds no state of the method and decides nothing that a result depends on.

Which node goes first decides how much memory a round takes: a node keeps its activations from its
encoding until its neighbours' projections are there. So the host finishes rounds before it begins
others, and begins with the nodes that have neighbours elsewhere, then theirs, and so on inwards.
"""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from sheafnet.errors import RunDirectoryError, SheafnetError
from sheafnet.network.channel import Endpoint, Message
from sheafnet.network.frame import INCARNATIONS, Address
from sheafnet.network.hub import Hub
from sheafnet.network.ledger import balance
from sheafnet.network.switchboard import Switchboard
from sheafnet.nodes.node import Node, Program
from sheafnet.nodes.programs import programs_of
from sheafnet.nodes.snapshot import restore, snapshot, state_bytes
from sheafnet.runtime.checkpoint import Checkpoint, Checkpoints, Part
from sheafnet.runtime.device import open_device
from sheafnet.runtime.figures import has_spectrum
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.report import HostSize, NodeRecords, Parameters, Report, Seconds
from sheafnet.topology import Topology

_LONGEST_POLL_S = 0.2
"""How soon a waiting host notices that it is to stop."""


@dataclass
class _Waiting:
    program: Program
    addresses: list[Address]
    until_s: float
    """Idle seconds of the host, since it was made, after which it goes on with what has come."""


class Host:
    """Some nodes of the network in one process.

    Args:
        plan: of the run.
        run: its directory, whose name its frames are tagged with.
        nodes: indices of the nodes that live here.
        hub: sockets to the other hosts; None where all nodes live here.
        at: which host this is.
        incarnation: how often hosts of this run have been restarted.

    Raises:
        ConfigError: there is no such device as the nodes are to compute on.
    """

    def __init__(
        self,
        plan: Plan,
        run: Path,
        nodes: Sequence[int],
        hub: Hub[Any] | None = None,
        at: int = 0,
        incarnation: int = 0,
    ) -> None:
        torch.set_num_threads(1)
        self._plan = plan
        self._hub = hub
        self._at = at
        self._checkpoints = Checkpoints(run)
        self._board = Switchboard(plan.method.network, hub, incarnation)
        incarnation %= INCARNATIONS
        self._endpoints: dict[int, Endpoint] = {}
        self._nodes: dict[int, Node] = {}
        self._stop = threading.Event()
        self._idle_s = 0.0
        self._seconds = Seconds()
        self._stepping_s = 0.0
        """Seconds of the steps of all programs, by the clock."""
        self._rank = _ranks(plan.method.network, nodes)
        limits, device = plan.limits(run.name), open_device(plan.config)
        for index in nodes:
            endpoint = Endpoint(
                plan.method.network,
                index,
                limits,
                self._board,
                incarnation,
                plan.links,
                radio=plan.radio is not None,
            )
            self._board.attach(endpoint)
            self._endpoints[index] = endpoint
            self._nodes[index] = Node(
                plan.config, plan.method, index, plan.dataset, endpoint, device, plan.links
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put all nodes here, as they were made, where `checkpoint` was taken.

        Raises:
            RunDirectoryError: it cannot be read, or is of another network.
        """
        for index, state in checkpoint.states(self._nodes).items():
            try:
                restore(self._nodes[index], state)
            except (ValueError, KeyError) as error:
                raise RunDirectoryError(f"{checkpoint.path}: {error}.") from None

    def abort(self) -> None:
        """Make a running stretch end at its next wait, and later ones at once.

        May be called from another thread.
        """
        self._stop.set()

    def run(self, stretch: Stretch) -> Report:
        """Run `stretch` on all nodes here; a failure comes back in the report."""
        torch.set_num_threads(1)  # the number is a property of the calling thread
        begin, self._seconds, self._stepping_s = time.perf_counter(), Seconds(), 0.0
        records = {index: NodeRecords() for index in self._nodes}
        programs = {
            index: rounds_of(node, stretch, records[index]) for index, node in self._nodes.items()
        }
        failure = self._drive(programs)
        for program in programs.values():
            program.close()
        spent = self._seconds
        # To ask for processor time at every message would cost a tenth of it. So it is asked for
        # once a step, and divided as the time by the clock is.
        sending = sum(endpoint.drain_seconds() for endpoint in self._endpoints.values())
        sending *= spent.compute / self._stepping_s if self._stepping_s else 0.0
        spent.compute -= sending
        spent.messaging += sending
        spent.wait = max(0.0, time.perf_counter() - begin - spent.compute - spent.messaging)
        balanced, rest = balance(self._board.drain())
        rejected, rejections = self._board.drain_rejections()
        complete = failure is None and not self._stop.is_set()
        return Report(
            records=records,
            balanced=balanced,
            ledger=rest,
            rejected=rejected,
            rejections=rejections,
            seconds=spent,
            sendings=[
                s for endpoint in self._endpoints.values() for s in endpoint.drain_sendings()
            ],
            restrictions=self._restrictions() if stretch.phase == "evaluation" else None,
            part=self._keep(stretch.checkpoint) if complete else None,
            stale=self._board.stale,
            failure=failure,
        )

    def _keep(self, number: int | None) -> Part | None:
        """Write what the nodes here have learned, if that is due and the run has a directory."""
        if number is None or not self._checkpoints.reachable:
            return None
        states = {index: snapshot(node) for index, node in self._nodes.items()}
        return self._checkpoints.write_part(number, self._at, states)

    def parameters(self, nodes: Sequence[int]) -> Parameters:
        """Every parameter of those of `nodes` that live here."""
        return {index: self._nodes[index].parameters() for index in nodes if index in self._nodes}

    def size(self) -> HostSize:
        """What this process takes."""
        parameters = (node.parameters().values() for node in self._nodes.values())
        return HostSize(
            memory_mb=float(psutil.Process().memory_full_info().uss) / 1e6,
            parameter_bytes=sum(array.nbytes for arrays in parameters for array in arrays),
            state_bytes=sum(map(state_bytes, self._nodes.values())),
            reaches_run=self._checkpoints.reachable,
        )

    def _restrictions(self) -> Parameters | None:
        if not has_spectrum(self._plan):
            return None
        return {
            index: {k: v.copy() for k, v in values.items() if k.startswith("restriction.")}
            for index, values in self.parameters(list(self._nodes)).items()
        }

    def _drive(self, programs: dict[int, Program]) -> SheafnetError | None:
        """Advance all programs to their end, or, once one has failed, as far as they get.

        A program that asks for nothing can go on at any time: it is at the beginning of a round,
        and goes on when no other can, the least advanced one first. Returns the failure.
        """
        waiting: dict[int, _Waiting] = {}
        resting = [(0, self._rank[index], index) for index in programs]
        heapq.heapify(resting)
        ready: deque[int] = deque()
        rests = dict.fromkeys(programs, 0)
        failure = None

        def advance(index: int, program: Program, mail: dict[int, Message] | None) -> None:
            nonlocal failure
            begin, spent = time.perf_counter(), time.thread_time()
            try:
                addresses = program.send(mail)  # type: ignore[arg-type]  # None starts it
            except StopIteration:
                return
            except SheafnetError as error:
                failure = failure or error
                return
            finally:
                self._seconds.compute += time.thread_time() - spent
                self._stepping_s += time.perf_counter() - begin
                ready.extend(self._board.touched)
                self._board.touched.clear()
            if addresses:
                until_s = self._idle_s + self._plan.config.run.deadline_s
                waiting[index] = _Waiting(program, addresses, until_s)
                ready.append(index)
            else:
                rests[index] += 1
                heapq.heappush(resting, (rests[index], self._rank[index], index))

        while (waiting or resting) and not self._stop.is_set():
            while ready and not self._stop.is_set():
                index = ready.popleft()
                wait = waiting.get(index)
                if wait is not None and self._can_go_on(index, wait):
                    del waiting[index]
                    advance(index, wait.program, self._endpoints[index].take(wait.addresses))
            ready.extend(self._receive(0.0))
            if ready:
                continue
            if resting:
                index = heapq.heappop(resting)[2]
                advance(index, programs[index], {} if rests[index] else None)
            elif failure is not None:
                break
            else:
                ready.extend(self._wait(waiting))
                if not ready and self._hub is not None:
                    failure = self._hub.lost()
        return failure

    def _can_go_on(self, index: int, wait: _Waiting) -> bool:
        return wait.until_s <= self._idle_s or self._endpoints[index].arrived(wait.addresses)

    def _wait(self, waiting: Mapping[int, _Waiting]) -> list[int]:
        """Wait for a frame or a deadline; returns the nodes that may go on.

        Only the time of such a wait counts against a deadline: a host that computes for long has
        not looked for its mail yet. Nor has one that was stopped while it waited: at a deadline
        what has come is delivered first. The first of `waiting` has the first deadline.
        """
        first = next(iter(waiting.values()), None)
        if first is None:
            return []
        begin = time.monotonic()
        touched = self._receive(min(first.until_s - self._idle_s, _LONGEST_POLL_S))
        self._idle_s += time.monotonic() - begin
        after = itertools.takewhile(lambda at: at[1].until_s <= self._idle_s, waiting.items())
        late = [index for index, _ in after]
        if late:
            touched += self._receive(0.0)
        return touched + late

    def _receive(self, longest_s: float) -> list[int]:
        """Deliver the frames that have come from outside, or wait for some; returns for whom."""
        if self._hub is None:
            if longest_s > 0.0:
                time.sleep(longest_s)
            return []
        begin = time.thread_time()
        buffers = self._hub.receive(longest_s)
        for buffer in buffers:
            self._board.deliver(buffer)
        self._seconds.messaging += time.thread_time() - begin
        touched = list(self._board.touched)
        self._board.touched.clear()
        return touched


def rounds_of(node: Node, stretch: Stretch, records: NodeRecords) -> Program:
    """The rounds of `stretch` at `node`, one after the other; each begins by asking for nothing."""
    programs = programs_of(node.method)
    for round_ in range(stretch.first, stretch.first + stretch.rounds):
        yield []
        if stretch.phase == "train":
            yield from programs.train(node, round_, records.train)
        elif stretch.phase == "evaluation":
            yield from programs.evaluate(node, round_, records.evaluation)
        elif stretch.phase == "calibration":
            yield from programs.calibrate(node, round_, records.calibration)
        else:
            yield from programs.infer(node, round_, records.inference)


def _ranks(network: Topology, here: Sequence[int]) -> dict[int, int]:
    """Steps from each node of `here` to the nearest one that has a neighbour elsewhere.

    Where none has, from the first node.
    """
    inside = set(here)
    neighbours = {n: [e.other(n) for e in network.incident(n)] for n in here}
    edge = [n for n in here if not inside.issuperset(neighbours[n])] or list(here[:1])
    rank = dict.fromkeys(edge, 0)
    queue = deque(edge)
    while queue:
        node = queue.popleft()
        for other in neighbours[node]:
            if other in inside and other not in rank:
                rank[other] = rank[node] + 1
                queue.append(other)
    return {n: rank.get(n, len(here)) for n in here}
