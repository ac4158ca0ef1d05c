from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from sheafnet.config import Config
from sheafnet.datasets import open_dataset
from sheafnet.datasets.digits import BUNDLED
from sheafnet.topology import build_topology

Opener = Callable[..., Any]


@pytest.fixture(scope="session")
def opened() -> Opener:
    """Open a data set by name over a generated graph; `modalities` names nodes of a ring."""

    def open_it(
        name: str,
        *,
        graph: str = "ring",
        nodes: int = 4,
        seed: int = 0,
        modalities: Mapping[int, str] | None = None,
        **options: Any,
    ) -> Any:
        values: dict[str, Any] = {
            "name": "t",
            "dataset": {"name": name, **options},
            "run": {"seed": seed},
        }
        if modalities is None:
            values["graph"] = {"generator": graph, "nodes": nodes}
        else:
            values["nodes"] = [{"id": f"n{i}", "modality": modalities.get(i)} for i in range(nodes)]
            values["edges"] = [[f"n{i}", f"n{(i + 1) % nodes}"] for i in range(nodes)]
        config = Config.model_validate(values)
        return open_dataset(config, build_topology(config))

    return open_it


@pytest.fixture(scope="session")
def mnist() -> Any:
    """Images and labels straight from the bundled file."""
    with np.load(BUNDLED) as arrays:
        return arrays["images"], arrays["labels"]
