"""The machines of a cluster as they describe themselves, and what is refused before a start.

Nothing has been started when `refuse_unfit` raises: no actor, no run directory.
"""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sheafnet.config import Config
from sheafnet.errors import ClusterError
from sheafnet.runtime.device import gpu_share, open_device
from sheafnet.runtime.memory import RAY_BYTES, estimate, free_bytes
from sheafnet.runtime.plan import Plan
from sheafnet.version import __version__


@dataclass(frozen=True)
class Machine:
    """A machine as it was found.

    Args:
        id: how Ray names it; empty before Ray runs.
        address: its network address.
        cores: CPUs that it offers.
        free: bytes of memory that are free there.
        versions: of sheafnet, Python and torch, the latter two to the minor.
        gpus: that Ray has there; counted only where the run asks for one.
        private: Ray has still to be started on it.
    """

    id: str
    address: str
    cores: int
    free: int
    versions: Mapping[str, str]
    gpus: int = 0
    private: bool = False


def this_machine(config: Config) -> Machine:
    """The machine of this process, before Ray runs on it.

    Raises:
        ConfigError: `config` asks for a GPU that torch cannot use.
    """
    cores, gpus = usable_cores(), 0
    if config.run.device == "cuda":
        open_device(config)
        import torch  # slow to import, and needed for this alone

        gpus = torch.cuda.device_count()
    return Machine("", "localhost", cores, free_bytes(), versions(), gpus, private=True)


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """What has to be the same everywhere, as this process has it."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "none"
    found = {"Python": platform.python_version(), "torch": torch}
    minor = {name: ".".join(text.split(".")[:2]) for name, text in found.items()}
    return {"sheafnet": __version__, **minor}


def refuse_unfit(plan: Plan, machines: Sequence[Machine]) -> None:
    """Refuse a cluster that cannot run `plan`.

    Raises:
        ConfigError: a machine has no GPU where the run asks for one, or too few.
        ClusterError: no machine offers a CPU, versions differ, Unix sockets would have to join
            machines, or a machine has too few ports or too little memory.
    """
    if not machines:
        raise ClusterError(
            "no machine of the cluster offers a CPU, so none can hold an actor. Start one with "
            "`ray start --num-cpus=N`, N at least 1."
        )
    for machine in machines:
        _refuse_versions(machine)
    run = plan.config.run
    if run.transport == "ipc" and len({machine.address for machine in machines}) > 1:
        raise ClusterError(
            "run.transport = 'ipc': Unix sockets do not reach from machine to machine, and this "
            f"cluster has {', '.join(sorted({m.address for m in machines}))}. Take auto or tcp."
        )
    placed = plan.placement([machine.cores for machine in machines])
    for machine, hosts in zip(machines, placed, strict=True):
        gpu_share(plan.config, len(hosts), machine.gpus)
        if run.port_range is not None and len(hosts) > len(run.port_range):
            raise ClusterError(
                f"run.ports = {run.ports}: {len(run.port_range)} ports, but {len(hosts)} actors "
                f"on machine {machine.address}. Open a wider range, or raise --nodes-per-actor."
            )
    _refuse_overload(plan, machines)


def _refuse_versions(machine: Machine) -> None:
    for name, here in versions().items():
        there = machine.versions[name]
        if there != here:
            raise ClusterError(
                f"machine {machine.address} has {name} {there}, this one {here}. Install the same "
                "environment there."
            )


def _refuse_overload(plan: Plan, machines: Sequence[Machine]) -> None:
    need = estimate(plan, any(machine.private for machine in machines))
    cores = [machine.cores for machine in machines]

    def overloaded(nodes_per_actor: int | None = None) -> tuple[Machine, list[list[int]]] | None:
        placed = plan.placement(cores, nodes_per_actor)
        for machine, hosts in zip(machines, placed, strict=True):
            if need.of(hosts) + machine.private * RAY_BYTES > machine.free:
                return machine, hosts
        return None

    found = overloaded()
    if found is None:
        return
    machine, hosts = found
    own = [need.nodes[node] for host in hosts for node in host]
    ray = f" + {_size(RAY_BYTES)} for Ray" if machine.private else ""
    whole = need.of(hosts) + machine.private * RAY_BYTES
    fewest, most = max(map(len, hosts)), len(plan.topology.nodes)
    fitting = most if overloaded(most) is None else None
    while fitting is not None and fitting - fewest > 1:
        middle = (fewest + fitting) // 2
        fewest, fitting = (middle, fitting) if overloaded(middle) else (fewest, middle)
    advice = (
        f"--nodes-per-actor {fitting} would fit."
        if fitting is not None
        else "No --nodes-per-actor would fit: take a smaller network, encoder or batch_size, or "
        "more machines."
    )
    raise ClusterError(
        f"machine {machine.address} lacks memory: {len(hosts)} actors x {_size(need.actor)} + "
        f"{len(own)} nodes x {_size(sum(own) / len(own))}{ray} = {_size(whole)}, and "
        f"{_size(machine.free)} are free. {advice}"
    )


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
