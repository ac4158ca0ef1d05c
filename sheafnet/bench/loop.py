"""The reference of a round: the same nodes in one process and one thread, without any messages.

The programs of `sheafnet.nodes` run as they are and compute the same numbers; what they send is
handed over as the array that it is. There is no frame, check, ledger, socket or actor.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch

from sheafnet.bench.child import Measure
from sheafnet.bench.trace import Trace
from sheafnet.config import Config
from sheafnet.network.channel import Endpoint, Message
from sheafnet.network.frame import Address, Kind, Mask
from sheafnet.network.payload import Array
from sheafnet.nodes.node import Node, Program
from sheafnet.runtime.host import rounds_of
from sheafnet.runtime.measurements import Line, Measurements
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.report import NodeRecords
from sheafnet.topology import Topology

_NO_ROWS = np.zeros((0, 0), dtype=np.float32)


class DirectEndpoint:
    """A node's side of its edges, to a program like an `Endpoint`: gives arrays, not frames.

    Where the neighbour is not in this loop, the node gets its own array back: of the same shape,
    and so as much work.

    Args:
        network: the channels.
        node: whose side this is.
        endpoints: of all nodes in the loop, by node.
    """

    def __init__(
        self, network: Topology, node: int, endpoints: "dict[int, DirectEndpoint]"
    ) -> None:
        self._others = {edge.index: edge.other(node) for edge in network.incident(node)}
        self._endpoints = endpoints
        self._mail: dict[Address, Message] = {}
        self._asked: dict[int, Mask] = {}

    def send(
        self,
        edge: int,
        kind: Kind,
        round_: int,
        array: Array | None = None,
        mask: Mask | None = None,
    ) -> None:
        """Hand `array` and `mask` over."""
        if kind is Kind.REQUEST and mask is not None:
            self._asked[edge] = mask
        receiver = self._endpoints.get(self._others[edge], self)
        receiver._accept((edge, kind, round_), _NO_ROWS if array is None else array, mask)

    def _accept(self, address: Address, array: Array, mask: Mask | None) -> None:
        """Keep what was sent; the rows of an answer are named among those that were asked for."""
        edge, kind, _ = address
        if kind is Kind.ANSWER and mask is not None:
            asked = self._asked[edge]
            rows = np.zeros_like(asked)
            rows[asked] = mask
            mask = rows
        self._mail[address] = Message(array, mask)

    def arrived(self, addresses: Iterable[Address]) -> bool:
        """Whether everything in `addresses` is here."""
        return all(address in self._mail for address in addresses)

    def take(self, addresses: Iterable[Address]) -> dict[int, Message]:
        """Hand out what has arrived, by edge."""
        return {address[0]: self._mail.pop(address) for address in addresses}


class Loop:
    """Nodes of a plan, one after the other, in this thread.

    Args:
        plan: of the run.
        nodes: which of its nodes; all by default.
    """

    def __init__(self, plan: Plan, nodes: Sequence[int] | None = None) -> None:
        torch.set_num_threads(1)
        network = plan.method.network
        here = range(len(plan.topology.nodes)) if nodes is None else nodes
        self._endpoints: dict[int, DirectEndpoint] = {}
        self._nodes: dict[int, Node] = {}
        for index in here:
            direct = DirectEndpoint(network, index, self._endpoints)
            self._endpoints[index] = direct
            endpoint = cast(Endpoint, direct)  # a program does no more than send
            self._nodes[index] = Node(plan.config, plan.method, index, plan.dataset, endpoint)

    def run(self, stretch: Stretch) -> dict[int, NodeRecords]:
        """Run `stretch` on all nodes here; returns what each of them recorded.

        Raises:
            DivergenceError: a loss is NaN or infinite.
        """
        records = {index: NodeRecords() for index in self._nodes}
        waiting: deque[tuple[int, Program, list[Address]]] = deque()
        for index, node in self._nodes.items():
            self._advance(waiting, index, rounds_of(node, stretch, records[index]), None)
        while waiting:
            index, program, addresses = waiting.popleft()
            if self._endpoints[index].arrived(addresses):
                self._advance(waiting, index, program, self._endpoints[index].take(addresses))
            else:
                waiting.append((index, program, addresses))
        return records

    @staticmethod
    def _advance(
        waiting: deque[tuple[int, Program, list[Address]]],
        index: int,
        program: Program,
        mail: dict[int, Message] | None,
    ) -> None:
        """Resume a program; it waits again unless that was its end."""
        try:
            addresses = program.send(mail)  # type: ignore[arg-type]  # None starts it
        except StopIteration:
            return
        waiting.append((index, program, addresses))


def whole(config: dict[str, Any]) -> Measure:
    """A task: every stretch of the run that `config` describes; gives its trace."""
    plan = Plan.open(Config.model_validate(config))
    loop = Loop(plan)
    return lambda: _trace(plan, loop, plan.stretches())


def share(config: dict[str, Any], nodes: list[int]) -> Measure:
    """A task: the training of some of the nodes alone; gives the trace of that."""
    plan = Plan.open(Config.model_validate(config))
    loop = Loop(plan, nodes)
    stretches = [stretch for stretch in plan.stretches() if stretch.phase == "train"]
    trace = Trace()

    def measure() -> dict[str, Any]:
        for stretch in stretches:
            _timed(loop, stretch, trace)
        return trace.as_dict()

    return measure


def _trace(plan: Plan, loop: Loop, stretches: Iterator[Stretch]) -> dict[str, Any]:
    trace, measurements = Trace(), Measurements(plan)
    for stretch in stretches:
        trace.add_lines(lines_of(measurements, stretch, _timed(loop, stretch, trace)))
    return trace.as_dict()


def _timed(loop: Loop, stretch: Stretch, trace: Trace) -> dict[int, NodeRecords]:
    begin = time.perf_counter()
    records = loop.run(stretch)
    trace.add_time(stretch.phase, time.perf_counter() - begin, stretch.rounds)
    return records


def lines_of(
    measurements: Measurements, stretch: Stretch, records: dict[int, NodeRecords]
) -> list[Line]:
    """The lines that a run would log of a stretch of training or inference."""
    if stretch.phase == "train":
        return measurements.add_training({n: r.train for n, r in records.items()})
    if stretch.phase == "inference":
        return measurements.add_inference({n: r.inference for n, r in records.items()})
    return []
