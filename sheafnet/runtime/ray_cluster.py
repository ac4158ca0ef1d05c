"""The network as Ray actors. The only module that imports ray.

Ray places, starts and supervises; it carries control, never a projection. One actor is the
coordinator; it makes the host actors, which exchange frames over ZeroMQ among themselves. Since
the coordinator owns the hosts, they end with it, and it ends with the driver.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sheafnet.config import Config
from sheafnet.errors import ActorError, ClusterError, DeadlineError, SheafnetError
from sheafnet.network.sockets import SocketAddress, SocketHub
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.device import gpu_share, open_device
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.report import HostSize, Parameters, Report
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.summary import Summary

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "64")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

_START_DEADLINE_S = 180.0
_CONNECT_DEADLINE_S = 5.0
_JOIN_DEADLINE_S = 30.0
_ANSWER_S = 15.0
"""Least time that an actor has for an answer, whatever the deadline of frames."""
_AT_ONCE = 16
"""Nodes of a host whose parameters are on their way together."""
_OBJECT_STORE_BYTES = 100 * 2**20


class HostProcess:
    """The actor around a `Host`: some nodes of the network and their sockets.

    Its calls run one after the other, except for those of the group ``control``, which are answered
    while a stretch is under way.
    """

    def __init__(
        self, config: Config, run: str, placement: Sequence[Sequence[int]], at: int
    ) -> None:
        self._config = config  # all else happens in calls, whose errors come back as they are
        self._run_name = run
        self._placement = placement
        self._at = at
        self._host_of = {node: k for k, nodes in enumerate(placement) for node in nodes}

    def listen(self, bind: str) -> SocketAddress:
        """Open the plan, and the socket for what arrives; returns where it listens."""
        self._plan = Plan.open(self._config)
        if bind.startswith("tcp://"):
            bind = f"tcp://{ray.util.get_node_ip_address()}"
        self._hub = SocketHub(bind, self._host_of)
        return self._hub.address

    def connect(self, addresses: Sequence[SocketAddress]) -> None:
        """Connect to the hosts of all neighbours, and make the nodes."""
        from sheafnet.runtime.host import Host

        own = self._placement[self._at]
        network = self._plan.method.network
        neighbours = {self._host_of[e.other(n)] for n in own for e in network.incident(n)}
        self._hub.connect({k: addresses[k] for k in sorted(neighbours - {self._at})})
        self._host = Host(self._plan, self._run_name, own, self._hub)

    def run(self, stretch: Stretch) -> Report:
        """Run `stretch` on the nodes here."""
        return self._host.run(stretch)

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def abort(self) -> None:
        """Make the running stretch end; called while `run` is under way."""
        self._host.abort()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def alive(self) -> bool:
        """Answers while `run` is under way, however long a round takes."""
        return True

    def parameters(self, nodes: Sequence[int]) -> Parameters:
        """The parameters of those of `nodes` that live here."""
        return self._host.parameters(nodes)

    def size(self) -> HostSize:
        """What this process takes."""
        return self._host.size()


class RayPool:
    """Host actors, made and supervised by the coordinator actor.

    Args:
        plan: of the run.
        run: its name.
        socket_folder: for Unix sockets; None for TCP.
    """

    def __init__(self, plan: Plan, run: str, socket_folder: str | None) -> None:
        self._plan = plan
        self._run = run
        self._folder = socket_folder
        self._placement = plan.placement(int(ray.cluster_resources().get("CPU", 1)))
        self._hosts: list[Any] = []
        self._submitted: deque[tuple[Stretch, list[Any]]] = deque()

    def start(self) -> int:
        """Make all host actors and connect them."""
        spread = ray.remote(concurrency_groups={"control": 1})(HostProcess).options(
            num_cpus=0, num_gpus=gpus_of_an_actor(self._plan), scheduling_strategy="SPREAD"
        )
        config = self._plan.config
        self._hosts = [
            spread.remote(config, self._run, self._placement, k)
            for k in range(len(self._placement))
        ]
        binds = [
            f"ipc://{self._folder}/{k}" if self._folder else "tcp://"
            for k in range(len(self._hosts))
        ]
        addresses = self._gather(
            [h.listen.remote(b) for h, b in zip(self._hosts, binds, strict=True)],
            "start",
            _START_DEADLINE_S,
        )
        self._gather([h.connect.remote(addresses) for h in self._hosts], "connect")
        return len(self._hosts)

    def submit(self, stretch: Stretch) -> None:
        """Have every host run `stretch` after what was submitted before."""
        calls = [host.run.remote(stretch) for host in self._hosts]
        self._submitted.append((stretch, calls))

    def collect(self) -> list[Report]:
        """The reports of the next stretch; one failing host makes the others stop early."""
        stretch, calls = self._submitted.popleft()
        last = stretch.first + stretch.rounds - 1
        return self._gather(calls, f"report {stretch.phase} rounds {stretch.first}-{last}")

    def parameters(self) -> Iterator[Parameters]:
        """The parameters of every node, `_AT_ONCE` of each host at a time."""
        for first in range(0, max(map(len, self._placement)), _AT_ONCE):
            calls = [
                host.parameters.remote(nodes[first : first + _AT_ONCE])
                for host, nodes in zip(self._hosts, self._placement, strict=True)
            ]
            yield {n: v for part in self._gather(calls, "save") for n, v in part.items()}

    def sizes(self) -> list[HostSize]:
        """What each host's process takes."""
        return self._gather([host.size.remote() for host in self._hosts], "measure itself")

    def _gather(self, calls: list[Any], what: str, within_s: float | None = None) -> list[Any]:
        """The results of one call to every host, in order.

        A host may compute for as long as it likes while it answers that it is alive; `within_s`
        bounds a call during which it cannot answer.
        """
        deadline_s = within_s or max(self._plan.config.run.deadline_s, _ANSWER_S)
        results: dict[int, Any] = {}
        pending = {call: k for k, call in enumerate(calls)}
        while pending:
            done, _ = ray.wait(list(pending), timeout=deadline_s)
            if not done:
                self._refuse_silence(list(pending.values()), what, deadline_s, within_s is None)
                continue
            at = pending.pop(done[0])
            try:
                results[at] = ray.get(done[0])
            except (RayActorError, RayTaskError) as error:
                raise self._translated(at, what, error) from None
            if getattr(results[at], "failure", None) is not None:
                for host in self._hosts:
                    host.abort.remote()
        return [results[k] for k in range(len(calls))]

    def _refuse_silence(
        self, late: list[int], what: str, deadline_s: float, may_compute: bool
    ) -> None:
        """Let hosts go on that are alive; raise for one that does not answer."""
        silent = late
        if may_compute:
            pings = {self._hosts[k].alive.remote(): k for k in late}
            answered, _ = ray.wait(list(pings), num_returns=len(pings), timeout=deadline_s)
            silent = [k for ping, k in pings.items() if ping not in answered]
        if silent:
            names = ", ".join(self._names(k) for k in silent)
            raise DeadlineError(
                f"{names}: did not {what}, nor answer, within {deadline_s:.0f} s. Is the machine "
                "stopped or overloaded? A longer run.deadline_s waits longer."
            )

    def _translated(self, at: int, what: str, error: RayError) -> SheafnetError:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SheafnetError):
            return cause
        if isinstance(error, RayTaskError):
            return ActorError(f"{self._names(at)}: failed to {what}:\n{error}")
        return ActorError(
            f"{self._names(at)}: the actor process died before it could {what}. "
            "Was it killed, or the machine out of memory? Raising --nodes-per-actor takes less."
        )

    def _names(self, at: int) -> str:
        nodes = [self._plan.topology.nodes[k].id for k in self._placement[at]]
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        return f"actor {at} ({', '.join(nodes[:3])}{more})"


def gpus_of_an_actor(plan: Plan) -> float:
    """What a host actor reserves of a GPU: of those of Ray or, before it has started, of ours.

    Raises:
        ConfigError: there is no GPU, torch cannot use it, or the actors do not fit.
    """
    if plan.config.run.device == "cpu":
        return 0.0
    if ray.is_initialized():
        have = ray.cluster_resources()
    else:
        open_device(plan.config)
        import torch  # slow to import, and needed for this alone

        have = {"GPU": torch.cuda.device_count()}
    actors = len(plan.placement(int(have.get("CPU", 0)) or None))
    return gpu_share(plan.config, actors, int(have.get("GPU", 0)))


class CoordinatorProcess:
    """The actor around a `Coordinator`."""

    def __init__(self, config: Config, run: str, directory: str, socket_folder: str | None) -> None:
        self._config = config
        self._run_name = run
        self._directory = RunDirectory(Path(directory))
        self._folder = socket_folder

    def start(self) -> None:
        """Open the plan and start the hosts."""
        plan = Plan.open(self._config)
        pool = RayPool(plan, self._run_name, self._folder)
        self._coordinator = Coordinator(plan, pool, self._directory)
        self._coordinator.start()

    def step(self) -> Progress | None:
        """Run the next stretch."""
        return self._coordinator.step()

    def finish(self, startup_s: float, wall_s: float) -> Summary:
        """Aggregate and save."""
        return self._coordinator.finish(startup_s, wall_s)

    def alive(self) -> bool:
        """Answers while another call is under way."""
        return True


class RaySession:
    """A run on Ray as the driver holds it: the same calls as a `Coordinator`.

    Starts a private Ray on this machine unless this process is connected to a cluster already.
    """

    def __init__(self, plan: Plan, directory: RunDirectory) -> None:
        self._plan = plan
        self._directory = directory
        self._folder: str | None = None
        self._coordinator: Any = None
        self._ours = False

    def start(self) -> None:
        """Start Ray if need be, then coordinator and hosts.

        Raises:
            ActorError: an actor could not be made.
        """
        run = self._plan.config.run
        if not ray.is_initialized():
            self._ours = True
            with _interrupt_held():
                _start_private()
        machines = [node for node in ray.nodes() if node["Alive"]]
        transport = run.transport
        if transport == "auto":
            transport = "ipc" if len(machines) == 1 else "tcp"
        if transport == "ipc":
            self._folder = tempfile.mkdtemp(prefix="sheafnet-")
        here = ray.get_runtime_context().get_node_id()
        self._coordinator = (
            ray.remote(CoordinatorProcess)
            .options(
                num_cpus=0,
                max_concurrency=2,
                scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                    here, soft=False
                ),
            )
            .remote(
                self._plan.config,
                self._directory.path.name,
                str(self._directory.path.resolve()),
                self._folder,
            )
        )
        self._call(self._coordinator.start.remote())

    def step(self) -> Progress | None:
        """Run the next stretch."""
        progress: Progress | None = self._call(self._coordinator.step.remote())
        return progress

    def finish(self, startup_s: float, wall_s: float) -> Summary:
        """Aggregate and save."""
        summary: Summary = self._call(self._coordinator.finish.remote(startup_s, wall_s))
        return summary

    def __enter__(self) -> "RaySession":
        return self

    def __exit__(self, *_: object) -> None:
        """End every actor; a Ray that was started here is stopped."""
        with contextlib.suppress(KeyboardInterrupt), _interrupt_held():
            if ray.is_initialized():
                if self._coordinator is not None:
                    with contextlib.suppress(RayError):
                        ray.kill(self._coordinator)
                if self._ours:
                    ray.shutdown()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, reference: Any) -> Any:
        deadline_s = max(self._plan.config.run.deadline_s, _ANSWER_S)
        try:
            while not ray.wait([reference], timeout=deadline_s)[0]:
                ping = self._coordinator.alive.remote()
                if not ray.wait([ping, reference], timeout=deadline_s)[0]:
                    raise DeadlineError(
                        f"the coordinator did not answer within {deadline_s:.0f} s. Is the machine "
                        "stopped or overloaded? A longer run.deadline_s waits longer."
                    )
            return ray.get(reference)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, SheafnetError):
                raise cause from None
            raise
        except RayActorError:
            raise ActorError(
                "the coordinator's process died. Was it killed, or the machine out of memory? "
                "What it had logged stays in the run directory."
            ) from None


def _start_private() -> None:
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="CRITICAL",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    except (RayError, OSError, RuntimeError, ConnectionError, ValueError) as error:
        raise ActorError(f"Ray does not start on this machine: {error}") from None


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Be part of the Ray cluster at `address`, unless this process is connected already.

    Raises:
        ClusterError: with the address and what to do.
    """
    if ray.is_initialized():
        yield
        return
    if address != "auto":
        _check_address(address)
    _try_to_join(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"--address {address}: cannot join this Ray cluster: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _try_to_join(address: str) -> None:
    """Join from another process first, which can be ended: what is no Ray may never answer."""
    attempt = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", attempt, address],
            capture_output=True,
            text=True,
            timeout=_JOIN_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"--address {address}: something listens there, but it did not answer as a Ray head "
            f"node within {_JOIN_DEADLINE_S:.0f} s."
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        token = " Set RAY_AUTH_MODE=token and give its token." if "AuthToken" in done.stderr else ""
        raise ClusterError(f"--address {address}: cannot join this Ray cluster: {last}.{token}")


def _check_address(address: str) -> None:
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal():
        raise ClusterError(
            f"--address {address}: must be host:port of a Ray head node (as `ray start --head` "
            "prints it), or auto."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_DEADLINE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"--address {address}: nothing answers there ({error}). Is Ray running "
            "(`ray status`), and is the port open?"
        ) from None


@contextlib.contextmanager
def _interrupt_held() -> Iterator[None]:
    """Let a Ctrl-C take effect only afterwards: Ray must not be left half started or half ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    pressed = []
    before = {ending: signal.signal(ending, lambda *_: pressed.append(True)) for ending in held}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
    if pressed:
        raise KeyboardInterrupt
