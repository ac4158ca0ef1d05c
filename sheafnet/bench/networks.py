"""The networks that are measured: the ring that sheafnet ships, in code.

An installed package has no topologies folder.
"""

from typing import Any

from sheafnet.config import Config
from sheafnet.document import apply_override
from sheafnet.validation import check_model


def ring(nodes: int, *overrides: str) -> Config:
    """The shipped ring with `nodes` cameras, and overrides such as ``training.rounds=50``."""
    values: dict[str, Any] = {
        "name": "ring",
        "dataset": {"name": "overlap-mnist"},
        "graph": {"generator": "ring", "nodes": nodes, "prefix": "camera"},
        "defaults": {
            "node": {"encoder": {"name": "mlp", "hidden": [256, 256]}, "embedding_dim": 64},
            "edge": {"comparison_dim": 0.5},
        },
        "training": {
            "rounds": 1000,
            "batch_size": 128,
            "temperature": 0.1,
            "learning_rate": 0.001,
            "sheaf_weight": 0.1,
            "contrastive_weight": 1.0,
            "reconstruction_weight": 0.1,
        },
        "inference": {"missing_probability": 0.1, "estimator": "ridge", "batch_size": 128},
    }
    for override in (*_SHORT_EVALUATION, *overrides):
        apply_override(values, override)
    return check_model(Config, values)


_SHORT_EVALUATION = ("evaluation.gallery=64", "evaluation.support=256", "evaluation.few_shot=[]")
"""What no figure here is about takes no time."""
