"""The network as Ray actors. The only module that imports ray.

Ray places, starts and supervises; it carries control, never a projection. One actor is the
coordinator; it makes the host actors, which exchange frames over sockets among themselves. Since
the coordinator owns the hosts, they end with it, and it ends with the driver.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from sheafnet.config import Config
from sheafnet.errors import ActorDied, ActorError, ClusterError, DeadlineError, SheafnetError
from sheafnet.network.hub import SocketAddress, open_hub
from sheafnet.runtime import forked
from sheafnet.runtime.address import check_address
from sheafnet.runtime.checkpoint import Checkpoint
from sheafnet.runtime.coordinator import Coordinator, Progress
from sheafnet.runtime.device import gpu_share
from sheafnet.runtime.environment import environment, inherited
from sheafnet.runtime.foreign import references
from sheafnet.runtime.fork_server import SUPPORTED, ForkServer, no_garbage
from sheafnet.runtime.machines import Machine, refuse_unfit, this_machine
from sheafnet.runtime.plan import Plan, Stretch
from sheafnet.runtime.report import HostSize, Parameters, Report
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.runtime.scratch import ScratchFolder
from sheafnet.runtime.summary import Summary
from sheafnet.topology import Topology
from sheafnet.version import __version__

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "64")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # the actors' priority is that of the command

import ray
from ray._private import ray_constants
from ray.exceptions import RayActorError, RayError, RayTaskError

_START_DEADLINE_S = 180.0
_PROBE_DEADLINE_S = 60.0
_HANDSHAKE_DEADLINE_S = 20.0
_ANSWER_S = 15.0
"""Least time that an actor has for an answer, whatever the deadline of frames."""
_PATIENCE_S = 30.0
"""Longest time that a machine may leave unacknowledged what was sent to it. At most half the
deadline of frames, so that a lost connection is found before anybody goes on without a frame."""
_LOOK_S = 0.5
_AT_ONCE = 16
"""Nodes of a host whose parameters are on their way together."""
_OBJECT_STORE_BYTES = 100 * 2**20
_PACKAGE = Path(__file__).parents[1]
"""Sent to every machine of a cluster that is joined, so that all run the same code."""


class HostProcess:
    """The actor around a `Host`: some nodes of the network and their sockets.

    Its calls run one after the other, except for those of the group ``control``, which are answered
    while a stretch is under way.
    """

    def __init__(
        self,
        config: Config,
        topology: Topology,
        run: Path,
        placement: Sequence[Sequence[int]],
        at: int,
    ) -> None:
        _end_with_raylet()
        self._config = config  # all else happens in calls, whose errors come back as they are
        self._topology = topology
        self._run = run
        self._placement = placement
        self._at = at
        self._host_of = {node: k for k, nodes in enumerate(placement) for node in nodes}
        self._host: Any = None

    def listen(self, bind: str, spins: bool) -> SocketAddress:
        """Open the plan, and the socket for what arrives; returns where it listens."""
        self._plan = Plan.open(self._config, self._topology)
        ports = None
        if bind.startswith("tcp://"):
            bind = f"tcp://{ray.util.get_node_ip_address()}"
            ports = self._config.run.port_range
        patience_s = min(_PATIENCE_S, self._config.run.deadline_s / 2)
        self._hub = open_hub(bind, self._host_of, ports, spins, patience_s)
        return self._hub.address

    def connect(
        self,
        addresses: Mapping[int, SocketAddress],
        checkpoint: Checkpoint | None,
        incarnation: int,
    ) -> None:
        """Connect to the hosts of all neighbours, and make the nodes as in `checkpoint`."""
        _import_torch()
        from sheafnet.runtime.host import Host

        self._host = None  # its nodes go before others are made in their place
        own = self._placement[self._at]
        network = self._plan.method.network
        neighbours = {self._host_of[e.other(n)] for n in own for e in network.incident(n)}
        self._hub.connect({k: addresses[k] for k in sorted(neighbours - {self._at})})
        self._hub.await_connected(_HANDSHAKE_DEADLINE_S)
        self._host = Host(self._plan, self._run, own, self._hub, self._at, incarnation)
        if checkpoint is not None:
            self._host.restore(checkpoint)

    def run(self, stretch: Stretch) -> Report:
        """Run `stretch` on the nodes here."""
        report: Report = self._host.run(stretch)
        return report

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def abort(self) -> None:
        """Make the running stretch end; called while `run` is under way."""
        if self._host is not None:
            self._host.abort()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def alive(self) -> bool:
        """Answers while `run` is under way, however long a round takes."""
        return True

    def parameters(self, nodes: Sequence[int]) -> Parameters:
        """The parameters of those of `nodes` that live here."""
        parameters: Parameters = self._host.parameters(nodes)
        return parameters

    def size(self) -> HostSize:
        """What this process takes."""
        size: HostSize = self._host.size()
        return size


class RayPool:
    """Host actors, made and supervised by the coordinator actor.

    Args:
        plan: of the run.
        run: its directory.
        machines: to place hosts on.
        socket_folder: for Unix sockets; None for TCP.
    """

    def __init__(
        self, plan: Plan, run: Path, machines: Sequence[Machine], socket_folder: str | None
    ) -> None:
        self._plan = plan
        self._run = run
        self._folder = socket_folder
        self._machines = machines
        placed = plan.placement([machine.cores for machine in machines])
        self._placement = [nodes for hosts in placed for nodes in hosts]
        self._machine_of = [
            (machine.id, gpu_share(plan.config, len(hosts), machine.gpus))
            for machine, hosts in zip(machines, placed, strict=True)
            for _ in hosts
        ]
        self._hosts: list[Any] = []
        self._addresses: dict[int, SocketAddress] = {}
        """Of the hosts that have told where they listen."""
        self._submitted: deque[tuple[Stretch, dict[int, Any]]] = deque()

    def start(self, checkpoint: Checkpoint | None, incarnation: int) -> int:
        """Make all host actors and connect them."""
        everyone = range(len(self._placement))
        self._hosts = [self._make(k) for k in everyone]
        self._listen(everyone, incarnation)
        self._connect(checkpoint, incarnation)
        return len(self._hosts)

    def recover(self, checkpoint: Checkpoint | None, incarnation: int) -> None:
        """Make host actors in the place of those that are gone; all go back to `checkpoint`."""
        self._submitted.clear()
        for host in self._hosts:
            host.abort.remote()
        gone = self._gone()
        self._move_to_what_is_left(gone)
        for k in gone:
            ray.kill(self._hosts[k])
            self._addresses.pop(k, None)
            self._hosts[k] = self._make(k)
        self._listen(gone, incarnation)
        self._connect(checkpoint, incarnation)

    def _make(self, at: int) -> Any:
        machine, share = self._machine_of[at]
        return (
            ray.remote(concurrency_groups={"control": 1})(HostProcess)
            .options(num_cpus=0, num_gpus=share, scheduling_strategy=_on(machine))
            .remote(self._plan.config, self._plan.topology, self._run, self._placement, at)
        )

    def _listen(self, hosts: Sequence[int], incarnation: int) -> None:
        binds = [
            f"unix://{self._folder}/{k}.{incarnation}" if self._folder else "tcp://" for k in hosts
        ]
        calls = {
            k: self._hosts[k].listen.remote(bind, self._spins(k))
            for k, bind in zip(hosts, binds, strict=True)
        }
        found = self._gather(calls, "start", _START_DEADLINE_S)
        self._addresses.update(zip(hosts, found, strict=True))

    def _spins(self, at: int) -> bool:
        """Whether every host of the machine where host `at` is has a core of its own."""
        here = self._machine_of[at][0]
        cores = sum(machine.cores for machine in self._machines if machine.id == here)
        return sum(machine == here for machine, _ in self._machine_of) <= cores

    def _connect(self, checkpoint: Checkpoint | None, incarnation: int) -> None:
        self._gather(
            self._of_all("connect", self._addresses, checkpoint, incarnation), "connect", None
        )

    def _of_all(self, method: str, *arguments: Any) -> dict[int, Any]:
        """A call of every host, by its number."""
        return {k: getattr(h, method).remote(*arguments) for k, h in enumerate(self._hosts)}

    def _gone(self) -> list[int]:
        """The hosts that do not answer any more, or had not begun to listen when another died."""
        pings = {host.alive.remote(): k for k, host in enumerate(self._hosts)}
        answered, late = ray.wait(list(pings), num_returns=len(pings), timeout=_ANSWER_S)
        gone = {k for k in pings.values() if k not in self._addresses}
        gone |= {pings[ping] for ping in late}
        for ping in answered:
            try:
                ray.get(ping)
            except RayError:
                gone.add(pings[ping])
        return sorted(gone)

    def _move_to_what_is_left(self, gone: Sequence[int]) -> None:
        """Give a host whose machine is gone to the machine that then has fewest for its cores."""
        up = _machines_up()
        left = [machine for machine in self._machines if machine.id in up]
        for k in gone:
            if self._machine_of[k][0] not in up and left:
                load = Counter(machine for machine, _ in self._machine_of)
                least = min(left, key=lambda machine: load[machine.id] / machine.cores)
                self._machine_of[k] = (least.id, self._machine_of[k][1])

    def submit(self, stretch: Stretch) -> None:
        """Have every host run `stretch` after what was submitted before."""
        self._submitted.append((stretch, self._of_all("run", stretch)))

    def collect(self) -> list[Report]:
        """The reports of the next stretch; one failing host makes the others stop early."""
        stretch, calls = self._submitted.popleft()
        last = stretch.first + stretch.rounds - 1
        return self._gather(calls, f"report {stretch.phase} rounds {stretch.first}-{last}")

    def parameters(self) -> Iterator[Parameters]:
        """The parameters of every node, `_AT_ONCE` of each host at a time."""
        for first in range(0, max(map(len, self._placement)), _AT_ONCE):
            calls = {
                k: self._hosts[k].parameters.remote(nodes[first : first + _AT_ONCE])
                for k, nodes in enumerate(self._placement)
            }
            yield {n: v for part in self._gather(calls, "save") for n, v in part.items()}

    def sizes(self) -> list[HostSize]:
        """What each host's process takes."""
        return self._gather(self._of_all("size"), "measure itself")

    def _gather(
        self, calls: Mapping[int, Any], what: str, within_s: float | None = None
    ) -> list[Any]:
        """The results of calls to hosts, by their number, in that order.

        A host may compute for as long as it likes while it answers that it is alive; `within_s`
        bounds a call during which it cannot answer.
        """
        deadline_s = within_s or max(self._plan.config.run.deadline_s, _ANSWER_S)
        results: dict[int, Any] = {}
        pending = {call: k for k, call in calls.items()}
        while pending:
            done, _ = ray.wait(list(pending), timeout=deadline_s)
            if not done:
                self._refuse_silence(list(pending.values()), what, deadline_s, within_s is None)
                continue
            at = pending.pop(done[0])
            try:
                results[at] = ray.get(done[0])
            except RayError as error:
                raise self._translated(at, what, error) from None
            if getattr(results[at], "failure", None) is not None:
                for host in self._hosts:
                    host.abort.remote()
        return [results[k] for k in calls]

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
        if self._machine_of[at][0] not in _machines_up():
            return ActorDied(
                f"{self._names(at)}: its machine left the cluster before the actor could {what}. "
                "Was it switched off, or its network cut?"
            )
        return ActorDied(
            f"{self._names(at)}: the actor process died before it could {what}. "
            "Was it killed, or the machine out of memory? Raising --nodes-per-actor takes less."
        )

    def _names(self, at: int) -> str:
        nodes = [self._plan.topology.nodes[k].id for k in self._placement[at]]
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        on = {machine.id: f" on {machine.address}" for machine in self._machines}
        where = on[self._machine_of[at][0]] if len(on) > 1 else ""
        return f"actor {at} ({', '.join(nodes[:3])}{more}){where}"


class CoordinatorProcess:
    """The actor around a `Coordinator`."""

    def __init__(
        self,
        config: Config,
        topology: Topology,
        directory: Path,
        machines: Sequence[Machine],
        socket_folder: str | None,
    ) -> None:
        _end_with_raylet()
        self._config = config
        self._topology = topology
        self._directory = RunDirectory(directory)
        self._machines = machines
        self._folder = socket_folder

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Open the plan and start the hosts."""
        self._held = self._directory.hold_books()
        self._held.__enter__()  # for as long as this process lives
        plan = Plan.open(self._config, self._topology)
        pool = RayPool(plan, self._directory.path, self._machines, self._folder)
        self._coordinator = Coordinator(plan, pool, self._directory)
        self._coordinator.start(checkpoint)

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

    Args:
        plan: of the run.
        directory: where it logs.
        machines: as `fit_machines` found them.
    """

    def __init__(self, plan: Plan, directory: RunDirectory, machines: Sequence[Machine]) -> None:
        self._plan = plan
        self._directory = directory
        self._machines = machines
        self._scratch: ScratchFolder | None = None
        self._coordinator: Any = None
        self._ours = False

    def start(self, checkpoint: Checkpoint | None = None) -> None:
        """Start Ray if need be, then coordinator and hosts.

        Raises:
            ActorError: an actor could not be made.
        """
        run = self._plan.config.run
        self._scratch = ScratchFolder()
        if not ray.is_initialized():
            self._ours = True
            with _interrupt_held():
                start_private()
                self._scratch.take(f"{_session_folder()}/sockets")
        here = ray.get_runtime_context().get_node_id()
        machines = [replace(m, id=m.id or here) for m in self._machines]
        transport = run.transport
        if transport == "auto":
            transport = "ipc" if [m.id for m in machines] == [here] else "tcp"
        self._coordinator = (
            ray.remote(CoordinatorProcess)
            .options(num_cpus=0, max_concurrency=2, scheduling_strategy=_on(here))
            .remote(
                self._plan.config,
                self._plan.topology,
                self._directory.path.resolve(),
                machines,
                str(self._scratch.path) if transport == "ipc" else None,
            )
        )
        self._call(self._coordinator.start.remote(checkpoint))

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

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        """End every actor; a Ray that was started here is stopped."""
        with contextlib.suppress(KeyboardInterrupt), _interrupt_held():
            if ray.is_initialized() and self._coordinator is not None:
                with contextlib.suppress(RayError):
                    ray.kill(self._coordinator)
            if self._ours:
                stop_private(keep_logs=problem is not None)
            if self._scratch is not None:
                self._scratch.close()

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
                "What it had logged stays."
            ) from None


def _end_with_raylet() -> None:
    """End this process soon after the raylet that it belongs to, which Ray itself does not ensure.

    An actor whose raylet was killed would go on sending and writing beside the run that goes on
    without it.
    """
    raylet = psutil.Process(int(os.environ.get("RAY_RAYLET_PID", os.getppid())))

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while raylet.is_running() and raylet.status() != psutil.STATUS_ZOMBIE:
                time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _import_torch() -> None:
    """Import torch and all that a host needs, if nothing has yet."""
    if "torch" not in sys.modules:
        with no_garbage():
            import sheafnet.runtime.host  # noqa: F401


def start_private() -> None:
    """Start a Ray of this process' own on this machine.

    Raises:
        ActorError: it does not start.
    """
    with contextlib.ExitStack() as beside:
        try:
            with _loopback(), _lean(_fork_server(beside)):
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="CRITICAL",
                    object_store_memory=_OBJECT_STORE_BYTES,
                )
        except Exception as error:  # of any kind: Ray raises Exception itself, too
            raise ActorError(f"Ray does not start on this machine: {error}") from None
        _beside.push(beside.pop_all())


def stop_private(keep_logs: bool = False) -> None:
    """Stop the Ray that `start_private` started; its folder goes unless its logs are to be read."""
    with _beside:
        if ray.is_initialized():
            session = _session_folder()
            ray.shutdown()
            if not keep_logs:
                shutil.rmtree(session, ignore_errors=True)


def try_private(within_s: float) -> None:
    """Start a private Ray, have it run a task, and stop it.

    Raises:
        ActorError: it does not start, or the task does not come back in time.
    """
    start_private()
    try:
        task = ray.remote(lambda: None).options(num_cpus=0)
        ray.get(task.remote(), timeout=within_s)
    except RayError as error:
        raise ActorError(f"Ray runs no task: {type(error).__name__}: {error}") from None
    finally:
        stop_private()


def _session_folder() -> str:
    """Where the private Ray keeps its logs and sockets."""
    folder: str = ray._private.worker._global_node.get_session_dir_path()
    return folder


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Ray opens its ports on the loopback interface; on Linux it takes every interface by default.

    Ray decides it when it starts, by a constant that has no argument of `ray.init`.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


_beside = contextlib.ExitStack()
"""What ends with the private Ray."""


def _fork_server(beside: contextlib.ExitStack) -> str | None:
    """The address of a fork server that ends with `beside`; None where there can be none."""
    if not SUPPORTED:
        return None
    try:
        return beside.enter_context(ForkServer("sheafnet.runtime.host", __name__)).address
    except OSError:
        return None


@contextlib.contextmanager
def _lean(forks: str | None) -> Iterator[None]:
    """Ray starts its workers by the fork server at `forks`, and three helpers less.

    Left out are the autoscaler's monitor, the monitor of logs and the dashboard, which starts
    without pages where `include_dashboard` is false. Each imports as much as a worker does, and
    `ray.init`, which has no argument for it, waits for the last.
    """
    node, parameter = ray._private.node.Node, ray._private.parameter
    parameters, dashboard = parameter.RayParams, node.start_api_server
    chosen = {} if forks is None else {"worker_path": forked.__file__}
    parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False, **chosen)
    node.start_api_server = lambda *_, **__: None
    try:
        with inherited(**({} if forks is None else {forked.ADDRESS: forks})):
            yield
    finally:
        parameter.RayParams, node.start_api_server = parameters, dashboard


@contextlib.contextmanager
def fit_machines(plan: Plan) -> Iterator[list[Machine]]:
    """The machines that `plan` runs on, which can run it; a cluster is joined meanwhile.

    Raises:
        ClusterError: the cluster cannot be joined, or cannot run the plan.
    """
    address = plan.config.run.address
    with contextlib.nullcontext() if address is None else joined(address):
        there = _survey(plan.config) if ray.is_initialized() else [this_machine(plan.config)]
        machines = there
        if plan.config.run.device == "cuda":
            machines = [machine for machine in there if machine.gpus] or there
        refuse_unfit(plan, machines)
        yield machines


def _survey(config: Config) -> list[Machine]:
    """Every machine of the cluster that offers CPUs, as a task there describes it."""
    modules = config.imports
    named = [(each.noun, each.key, each.name) for each in references(config)]

    def describe() -> "tuple[dict[str, str], int, str | None] | str":
        # Pickled by value, so that it runs, and can say what is missing, without sheafnet too.
        import sys

        try:
            from sheafnet.runtime.foreign import problem_of
            from sheafnet.runtime.machines import versions
            from sheafnet.runtime.memory import free_bytes

            return versions(), free_bytes(), problem_of(modules, named)
        except Exception as error:
            python = ".".join(map(str, sys.version_info[:3]))
            return f"{type(error).__name__}: {error} (Python {python}, {sys.executable})"

    nodes = sorted(
        (node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1),
        key=lambda node: (node["NodeManagerAddress"], node["NodeID"]),
    )
    task = ray.remote(describe)
    calls = [
        task.options(num_cpus=0, max_retries=0, scheduling_strategy=_on(n["NodeID"])).remote()
        for n in nodes
    ]
    answered, _ = ray.wait(calls, num_returns=len(calls), timeout=_PROBE_DEADLINE_S)
    return [
        _described(node, call if call in answered else None)
        for node, call in zip(nodes, calls, strict=True)
    ]


def _described(node: dict[str, Any], call: Any) -> Machine:
    """What the probe of `node` returned; None where it has not."""
    address = node["NodeManagerAddress"]
    if call is None:
        raise ClusterError(
            f"machine {address} did not start a task within {_PROBE_DEADLINE_S:.0f} s. Is it "
            "overloaded? `ray status` tells what the cluster sees."
        )
    try:
        answer = ray.get(call)
    except RayError as error:
        raise ClusterError(f"machine {address} cannot start a task: {error}") from None
    if isinstance(answer, str):
        raise ClusterError(
            f"machine {address} cannot import sheafnet {__version__}: {answer}. Install "
            "the same environment there, and start its Ray from it."
        )
    versions, free, problem = answer
    if problem is not None:
        raise ClusterError(f"machine {address}: {problem}")
    cores, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
    return Machine(node["NodeID"], address, cores, free, versions, gpus)


def _machines_up() -> set[str]:
    """The machines that the cluster counts as its own now, by Ray's names."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _on(machine: str) -> Any:
    """The scheduling strategy: on this machine and no other."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(machine, soft=False)


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Be part of the Ray cluster at `address`, unless this process is connected already.

    Raises:
        ClusterError: with the address and what to do.
    """
    if ray.is_initialized():
        yield
        return
    check_address(address)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="CRITICAL",
            runtime_env={"py_modules": [str(_PACKAGE)], "env_vars": environment()},
        )
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"--address {address}: cannot join this Ray cluster: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


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
