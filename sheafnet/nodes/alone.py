"""A training round of the method `local`: no neighbour, no label, no message.

The positive pair of InfoNCE, which a neighbour's view is for the other methods, are two copies of
the node's own sample with half of the values masked out at random in each (in the manner of
SimCLR, Chen et al. 2020, and SCARF, Bahri et al. 2022). Same encoder, loss, batch and temperature:
what is missing is the neighbour.
"""

import torch
from torch import Tensor

from sheafnet.nodes.node import Node, Program
from sheafnet.nodes.records import TrainRecord
from sheafnet.nodes.training import refuse_divergence
from sheafnet.sheaf.losses import contrastive_loss

MASKED = 0.5
"""Share of a sample's values that a copy loses: they become 0, about the mean of a value."""


def train_alone(node: Node, round_: int, records: list[TrainRecord]) -> Program:
    """Encode two masked copies, step; appends the round's record to `records`.

    Raises:
        DivergenceError: the loss is NaN or infinite.
        PluginError: the code of a plug-in fails.
    """
    yield from ()
    if node.asleep("train", round_):
        records.append(TrainRecord.asleep(round_, 0))
        return
    sample = node.samples("train", node.batch(round_))
    generator = node.generator("mask", round_)
    when = f"train round {round_}"
    first, second = (node.encode(masked(sample, generator), when) for _ in range(2))
    loss = contrastive_loss(first, second, node.config.training.temperature)
    refuse_divergence(loss, f"node {node.spec.id}", round_)
    node.backward([loss], when)
    with torch.no_grad():
        node.moments.update(node.encode(sample, when), [])
    records.append(
        TrainRecord(
            round=round_,
            disagreement=[],
            contrastive=[],
            reconstruction=[],
            gradient_square=node.step(round_),
            missed=0,
            own=float(loss.detach()),
        )
    )


def masked(sample: Tensor, generator: torch.Generator) -> Tensor:
    """`sample` with each value set to 0 with probability `MASKED`."""
    kept = torch.rand(sample.shape, generator=generator) >= MASKED
    return sample * kept.to(sample.device)
