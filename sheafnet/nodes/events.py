"""Which events a phase is about, and which node misses its modality for which of them.

What is missing is a property of the simulated world, drawn from the seed. A node learns only its
own mask; that the simulator can compute a neighbour's is used to know for whom to wait, never to
decide what to send.
"""

import numpy as np
import numpy.typing as npt

from sheafnet.config import Config, InferenceConfig
from sheafnet.datasets.base import Dataset, Events
from sheafnet.seeds import stream
from sheafnet.topology import Node


def missing_rows(
    inference: InferenceConfig, seed: int, node: Node, round_: int
) -> npt.NDArray[np.bool_]:
    """The rows of inference round `round_` that `node` misses: (batch_size,) bool."""
    rows = inference.batch_size
    if inference.missing_nodes is not None:
        return np.full(rows, node.id in inference.missing_nodes)
    draws = stream(seed, "missing", node.index, round_).random(rows)
    return np.asarray(draws < inference.missing_probability)


def inference_events(inference: InferenceConfig, round_: int, size: int) -> Events:
    """The events of inference round `round_`: the split of `size` events, over and over."""
    first = round_ * inference.batch_size
    return np.arange(first, first + inference.batch_size, dtype=np.int64) % size


def evaluation_points(config: Config) -> list[int]:
    """After how many training rounds each evaluation takes place; the last is after all."""
    rounds, every = config.training.rounds, config.evaluation.every
    return [*range(every, rounds, every), rounds] if every else [rounds]


def is_last(config: Config, evaluation: int) -> bool:
    """Whether evaluation number `evaluation` is the one after all training rounds."""
    return evaluation == len(evaluation_points(config)) - 1


def gallery_size(config: Config, dataset: Dataset) -> int:
    """Events judged in the evaluation: all of the split, or at most the configured number."""
    size = dataset.size(config.evaluation.split)
    assert size is not None, "validation and test splits are finite"
    chosen = config.evaluation.gallery
    return size if chosen == "all" else min(size, chosen)


def calibration_size(config: Config, dataset: Dataset) -> int:
    """Events of the validation split that intervals are calibrated on."""
    size = dataset.size("validation")
    assert size is not None, "validation and test splits are finite"
    return min(config.inference.calibration, size)


def support_size(config: Config, dataset: Dataset) -> int:
    """Labelled training events behind prototypes, few-shot examples and the linear probe."""
    return min(config.evaluation.support, dataset.distinct("train"))
