"""What a node has learned so far, as arrays: enough to go on as if it had never stopped.

Between two rounds a node's state is its parameters, its optimizer's, its moments, its memories,
the heads of the last evaluation, and what it was told to calibrate.
Everything that it draws comes from streams named by the round, and its mail is empty: whoever
starts the next round anew gets the same frames again.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sheafnet.nodes.node import Node, array_of
from sheafnet.nodes.probe import LinearProbe
from sheafnet.sheaf.calibration import Calibration
from sheafnet.sheaf.estimators import Moments

State = dict[str, npt.NDArray[np.generic]]
"""Arrays by name."""

_PROBE = "probe."
_CALIBRATION = "calibration."


def snapshot(node: Node) -> State:
    """The state of `node` between two rounds; views where the node computes on the CPU."""
    return {name: array_of(tensor) for name, tensor in _tensors(node).items()}


def state_bytes(node: Node) -> int:
    """What `snapshot` takes now; the heads of an evaluation come on top."""
    return sum(tensor.nbytes for tensor in _tensors(node).values())


@torch.no_grad()
def restore(node: Node, state: State) -> None:
    """Put `node`, as it was made, into `state`.

    Raises:
        ValueError: it is the state of another node or configuration.
    """
    tensors = {name: node.tensor(array.copy()) for name, array in state.items()}
    learned = dict(_learned(node))
    shapes = {name: tensor.shape for name, tensor in learned.items()}
    if shapes != {name: tensors[name].shape for name in shapes if name in tensors}:
        raise ValueError(f"not the state of node {node.spec.id} in this configuration")
    for name, tensor in learned.items():
        tensor.copy_(tensors[name])
    for prefix, moments in _moments(node):
        moments.load(_below(prefix, tensors))
    probe = _below(_PROBE, tensors)
    node.probe = LinearProbe.of(probe) if probe else None
    calibration = _below(_CALIBRATION, tensors)
    node.calibration = Calibration.of(calibration) if calibration else None


def _tensors(node: Node) -> dict[str, Tensor]:
    tensors = dict(_learned(node))
    for prefix, moments in _moments(node):
        tensors |= {prefix + name: tensor for name, tensor in moments.state().items()}
    if node.probe is not None:
        tensors |= {_PROBE + name: tensor for name, tensor in node.probe.state().items()}
    if node.calibration is not None:
        kept = node.calibration.state()
        tensors |= {_CALIBRATION + name: tensor for name, tensor in kept.items()}
    return tensors


def _learned(node: Node) -> Iterator[tuple[str, Tensor]]:
    """The parameters, what the optimizer keeps beside each, and the memories."""
    modules = [("encoder.", node.encoder)]
    modules += [(f"restriction.{k}.", module) for k, module in enumerate(node.restrictions)]
    modules += [(f"dual.{k}.", module) for k, module in enumerate(node.duals)]
    if node.fused is not None:
        modules.append(("fused.", node.fused))
    optimizers = [("optimizer.", node.optimizer)]
    if node.neural is not None:
        modules.append(("neural.", node.neural.module))
        optimizers.append(("neural-optimizer.", node.neural.optimizer))
    for prefix, module in modules:
        for name, tensor in module.state_dict(keep_vars=True).items():
            yield prefix + name, tensor
    for prefix, optimizer in optimizers:
        for name, tensor in optimizer.state().items():
            yield prefix + name, tensor
    for position, memory in node.memories.items():
        for name, tensor in memory.state().items():
            yield f"memory.{position}.{name}", tensor


def _moments(node: Node) -> Iterator[tuple[str, Moments]]:
    yield "moments.", node.moments
    if node.fused is not None:
        yield "fused-moments.", node.fused.moments


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
