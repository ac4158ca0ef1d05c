"""What a benchmark ran on."""

import os
import platform
from importlib.metadata import version

import psutil
from pydantic import BaseModel, ConfigDict

from sheafnet.runtime.machines import usable_cores

PACKAGES = ("msgpack", "numpy", "pyzmq", "ray", "torch")
"""Those whose version a figure can depend on."""


class Machine(BaseModel):
    """The facts about a machine that explain a figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    processor: str
    cores: int
    """That this process may use."""
    memory_gb: float
    load: float
    """Processes that ran or waited before the benchmark began, mean over a minute."""
    python: str
    packages: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        """This machine, now."""
        return cls(
            system=f"{platform.system()} {platform.release()}",
            processor=_processor(),
            cores=usable_cores(),
            memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
            load=round(os.getloadavg()[0], 2),
            python=platform.python_version(),
            packages={name: version(name) for name in PACKAGES},
        )


def _processor() -> str:
    """The model of the processor, where Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2] for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0].strip() if models else platform.machine()
