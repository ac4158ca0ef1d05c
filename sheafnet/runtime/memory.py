"""How much memory a run needs on each machine, and how much is free there.

The need is estimated from the plan, without torch. Measured with `Host` on the shipped data sets:
a process that holds one small node has about 210 MB of its own, most of it torch, or 70 MB where it
shares torch with the fork server that it comes from; a node adds its weights with gradients and two
moments, the values that it keeps for the backward pass while it waits for its neighbours, its
second moments of the projections, the projections that it remembers, and the frames of an
evaluation.
A file of yours (`arrays`, `deepsense`) that a node reads comes on top, and so does an encoder of
yours that does not tell its size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sheafnet.nodes.encoders import encoder_size
from sheafnet.nodes.events import gallery_size, support_size
from sheafnet.runtime.fork_server import SUPPORTED
from sheafnet.runtime.plan import Plan

_STARTED_BYTES = 210 * 10**6
"""Unique memory of an actor process before its nodes: Python, torch, Ray and the bundled data."""
_FORKED_BYTES = 70 * 10**6
"""The same of one that is forked."""
RAY_BYTES = 480 * 10**6
"""What a private Ray takes on this machine beside the host actors, with coordinator and torch."""
_COPIES = 4
"""Weights, gradients and both moments of the optimizer."""
_CHUNK = 512
"""Samples that an evaluation encodes at once."""


@dataclass(frozen=True)
class Need:
    """Bytes of memory.

    Args:
        actor: of every host actor beside its nodes.
        nodes: of every node, by index.
    """

    actor: int
    nodes: tuple[int, ...]

    def of(self, hosts: Sequence[Sequence[int]]) -> int:
        """All that these hosts of a machine need."""
        return len(hosts) * self.actor + sum(self.nodes[node] for host in hosts for node in host)


def process_bytes(private: bool) -> int:
    """Unique memory of an actor process before its nodes; `private` if its Ray is."""
    return _FORKED_BYTES if private and SUPPORTED else _STARTED_BYTES


def estimate(plan: Plan, private: bool = False) -> Need:
    """What the hosts and nodes of `plan` need; `private` if their Ray is."""
    config = plan.config
    batch = config.training.batch_size
    rows = max(gallery_size(config, plan.dataset), *plan.limits("").rows.values())
    labelled = support_size(config, plan.dataset) + rows
    nodes, largest = [], 0
    for node in plan.topology.nodes:
        shape = plan.dataset.source(node.index).shape
        size = encoder_size(node.encoder, shape, node.dim, node.id)
        values = size.values + math.prod(shape)
        largest = max(largest, values)
        sent = sum(channel.dim for channel in plan.method.network.incident(node.index))
        asked = sent if plan.method.aligns else 0
        maps = node.dim * (sent + asked) + len(plan.topology.incident(node.index)) * node.dim
        nodes.append(
            4 * _COPIES * (size.parameters + maps)
            + 4 * 2 * batch * values
            + 8 * ((node.dim + asked) * (1 + asked) + node.dim)
            + 4 * (labelled * node.dim + 2 * rows * sent)
            + 4 * config.training.memory * batch * sent
            + (_joined(plan) if plan.method.fuses and plan.method.hub == node.index else 0)
        )
    return Need(process_bytes(private) + 4 * 2 * _CHUNK * largest, tuple(nodes))


def _joined(plan: Plan) -> int:
    """What the hub of concat-supervised adds: moments and heads of all sections at once."""
    whole = sum(node.dim for node in plan.topology.nodes)
    labels = len(plan.topology.edges) if plan.dataset.labels_per_edge else 1
    return 8 * 2 * whole * whole + 4 * _COPIES * whole * labels * plan.dataset.classes


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that is free on this machine, in bytes, within the control groups of this process.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    rooms = [limit - used for limit, used in _control_groups(root)]
    return max(0, min([int(psutil.virtual_memory().available), *rooms]))


def _control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of every group that this process is in, version 1 or 2, innermost first.

    Page cache that the kernel would give back does not count as used.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used, cache = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / base
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            numbers = _numbers(group, limit, used, cache)
            if numbers is not None:
                yield numbers
            if group == top:
                break


def _numbers(group: Path, limit: str, used: str, cache: str) -> tuple[int, int] | None:
    try:
        bound = (group / limit).read_text(encoding="utf-8").strip()
        if bound == "max":
            return None
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(bound), int((group / used).read_text()) - int(stat.get(cache, 0))
    except (OSError, ValueError):
        return None
