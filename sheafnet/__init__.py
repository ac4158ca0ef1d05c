"""sheafnet: a simulator of a decentralized sensor network that counts every byte.

import sheafnet
config = sheafnet.load_config("topologies/ring.yaml", ["training.rounds=200"])
result = sheafnet.simulate(config)
print(result.summary.communication.train.bytes_per_round, result.directory)
"""

from sheafnet.config import Config, load_config
from sheafnet.errors import SheafnetError
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.simulate import Result, simulate
from sheafnet.runtime.summary import Summary
from sheafnet.topology import Topology, build_topology
from sheafnet.version import __version__

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
