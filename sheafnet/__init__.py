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
    from sheafnet.config import Config, LinkConfig, Model, load_config
    from sheafnet.datasets.info import DatasetInfo
    from sheafnet.errors import PluginError, SheafnetError
    from sheafnet.nodes.encoders import EncoderKind
    from sheafnet.nodes.objective_kind import ObjectiveKind
    from sheafnet.report.page import write_report
    from sheafnet.runtime.coordinator import Progress
    from sheafnet.runtime.loaded import LoadedRun, load_run
    from sheafnet.runtime.plan import Plan
    from sheafnet.runtime.rundir import RunDirectory
    from sheafnet.runtime.simulate import Result, resume, simulate
    from sheafnet.runtime.summary import Summary
    from sheafnet.sheaf.estimator_kind import EstimatorKind
    from sheafnet.studies.compare import Comparison, compare
    from sheafnet.studies.scale import Scale, scale
    from sheafnet.studies.sweep import Sweep, sweep
    from sheafnet.topology import Topology, build_topology

_HOMES = {
    "Comparison": "studies.compare",
    "Config": "config",
    "DatasetInfo": "datasets.info",
    "EncoderKind": "nodes.encoders",
    "EstimatorKind": "sheaf.estimator_kind",
    "LinkConfig": "config",
    "LoadedRun": "runtime.loaded",
    "Model": "config",
    "ObjectiveKind": "nodes.objective_kind",
    "Plan": "runtime.plan",
    "PluginError": "errors",
    "Progress": "runtime.coordinator",
    "Result": "runtime.simulate",
    "RunDirectory": "runtime.rundir",
    "Scale": "studies.scale",
    "SheafnetError": "errors",
    "Summary": "runtime.summary",
    "Sweep": "studies.sweep",
    "Topology": "topology",
    "build_topology": "topology",
    "compare": "studies.compare",
    "load_config": "config",
    "load_run": "runtime.loaded",
    "resume": "runtime.simulate",
    "scale": "studies.scale",
    "simulate": "runtime.simulate",
    "sweep": "studies.sweep",
    "write_report": "report.page",
}

__all__ = [
    "Comparison",
    "Config",
    "DatasetInfo",
    "EncoderKind",
    "EstimatorKind",
    "LinkConfig",
    "LoadedRun",
    "Model",
    "ObjectiveKind",
    "Plan",
    "PluginError",
    "Progress",
    "Result",
    "RunDirectory",
    "Scale",
    "SheafnetError",
    "Summary",
    "Sweep",
    "Topology",
    "__version__",
    "build_topology",
    "compare",
    "load_config",
    "load_run",
    "resume",
    "scale",
    "simulate",
    "sweep",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sheafnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sheafnet.{_HOMES[name]}"), name)
