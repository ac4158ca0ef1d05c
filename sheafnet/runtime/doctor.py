"""Whether this machine can run sheafnet, and how much of it: `sheafnet doctor`."""

import importlib.metadata
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from sheafnet.errors import SheafnetError
from sheafnet.network.hub import open_hub
from sheafnet.plugins import distribution
from sheafnet.runtime.foreign import GROUPS
from sheafnet.runtime.machines import usable_cores
from sheafnet.runtime.memory import RAY_BYTES, free_bytes, process_bytes

_PACKAGES = ("torch", "ray", "numpy", "pyzmq", "msgpack", "pydantic", "networkx", "matplotlib")
_SPARE_BYTES = 500 * 10**6
_CONNECT_S = 5.0
_TASK_S = 60.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    well: bool
    found: str
    """What was found, or what is wrong and what to do."""


def checks() -> Iterator[Check]:
    """Look at one thing after the other; none of them is left running."""
    for name, look in (
        ("Python", _python),
        ("packages", _packages),
        ("plug-ins", _plugins),
        ("torch", _torch),
        ("sockets of one machine", lambda: _sockets("unix://{folder}/a")),
        ("sockets between machines", lambda: _sockets("tcp://127.0.0.1")),
        ("Ray", _ray),
        ("memory", _memory),
        ("disk", _disk),
    ):
        yield _checked(name, look)


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except (SheafnetError, OSError, ImportError, RuntimeError) as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"{name} is not installed; install sheafnet again") from None
    return ", ".join(versions)


def _plugins() -> str:
    """The entry points of others; none of them is loaded."""
    usable, troubles = [], []
    for group, entry in [(kind, entry) for kind in GROUPS for entry in kind.installed()]:
        trouble, whose = group.trouble(entry), distribution(entry)
        if trouble is None:
            usable.append(f"{group.noun} {entry.name} ({entry.value}, {whose})")
        else:
            troubles.append(f"{trouble}; {whose} is not asked. Name it by its path, {entry.value}")
    told = ", ".join(usable) or "none"
    if troubles:
        raise RuntimeError(". ".join([*troubles, f"Usable: {told}"]))
    return told


def _torch() -> str:
    import torch

    found = float(torch.ones(3) @ torch.ones(3))
    if found != 3.0:
        raise RuntimeError(f"1 + 1 + 1 is {found}")
    if not torch.cuda.is_available():
        return "computes on the CPU; no GPU"
    names = {torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())}
    return f"computes on the CPU and on {torch.cuda.device_count()} x {', '.join(sorted(names))}"


def _sockets(bind: str) -> str:
    """A message from a hub to itself."""
    with tempfile.TemporaryDirectory(prefix="sheafnet-doctor-") as folder:
        hub = open_hub(bind.format(folder=folder), {0: 0})
        try:
            hub.connect({0: hub.address})
            hub.await_connected(_CONNECT_S)
            begin = time.perf_counter()
            hub.send(0, b"well")
            if hub.receive(_CONNECT_S) != [b"well"]:
                raise RuntimeError("a message did not come back")
            took = time.perf_counter() - begin
        finally:
            hub.close()
    how = "encrypted TCP" if bind.startswith("tcp") else "Unix sockets"
    return f"a message over {how} takes {took * 1e6:.0f} µs"


def _ray() -> str:
    from sheafnet.runtime.ray_cluster import try_private

    begin = time.perf_counter()
    try_private(_TASK_S)
    return f"starts, runs a task and stops in {time.perf_counter() - begin:.1f} s"


def _memory() -> str:
    total, free = psutil.virtual_memory().total, free_bytes()
    actor = process_bytes(private=True)
    fit = (free - RAY_BYTES) // actor
    if fit < 1:
        raise RuntimeError(
            f"{free / 1e9:.1f} GB are free; Ray and one actor take "
            f"{(RAY_BYTES + actor) / 1e9:.1f} GB. `--backend local` takes less."
        )
    return (
        f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free: up to {fit} actors of their own, on "
        f"{usable_cores()} cores; larger networks share them (--nodes-per-actor)"
    )


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _SPARE_BYTES:
        raise RuntimeError(f"{free / 1e6:.0f} MB are free in {Path.cwd()}; a run may take more")
    return f"{free / 1e9:.1f} GB are free in {Path.cwd()}"
