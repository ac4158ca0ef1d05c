"""sheafnet: a simulator of a decentralized sensor network that counts every byte.

    import sheafnet
    config = sheafnet.load_config("topologies/ring.yaml", ["training.rounds=200"])
    result = sheafnet.simulate(config)
    print(result.summary.communication.train.bytes_per_round, result.directory)

Names are imported when they are first used, so that the command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sheafnet.version import __version__

if TYPE_CHECKING:
    from sheafnet.config import Config, load_config
    from sheafnet.errors import SheafnetError
    from sheafnet.runtime.coordinator import Progress
    from sheafnet.runtime.plan import Plan
    from sheafnet.runtime.rundir import RunDirectory
    from sheafnet.runtime.simulate import Result, simulate
    from sheafnet.runtime.summary import Summary
    from sheafnet.topology import Topology, build_topology

_HOMES = {
    "Config": "config",
    "Plan": "runtime.plan",
    "Progress": "runtime.coordinator",
    "Result": "runtime.simulate",
    "RunDirectory": "runtime.rundir",
    "SheafnetError": "errors",
    "Summary": "runtime.summary",
    "Topology": "topology",
    "build_topology": "topology",
    "load_config": "config",
    "simulate": "runtime.simulate",
}

__all__ = [
    "Config",
    "Plan",
    "Progress",
    "Result",
    "RunDirectory",
    "SheafnetError",
    "Summary",
    "Topology",
    "__version__",
    "build_topology",
    "load_config",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sheafnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sheafnet.{_HOMES[name]}"), name)
