"""The process that actors' processes are forked from: it imports once what all of them need.

Ray starts a Python for every actor, and torch takes most of its start and of its memory. A private
Ray on Linux starts `sheafnet.runtime.forked` in its worker's place, which asks here for a fork that
goes on as that worker. Where it gets none in time, it becomes the worker itself.

    python -m sheafnet.runtime.fork_server SOCKET MODULE MODULE
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sheafnet.runtime.environment import of_python
from sheafnet.runtime.scratch import ScratchFolder

SUPPORTED = sys.platform == "linux"
"""Elsewhere the libraries of the system do not bear that a process is forked and goes on."""
_WAITING = 512
_REQUEST_S = 10.0
"""For a request to arrive whole. The process that makes it does nothing else."""


class ForkServer:
    """The fork server, as the process sees it that starts it and that it ends with.

    Args:
        module: imported at once.
        late: the module that reads the environment when it is imported; so it is imported in that
            of the first process that asks, which all get.
    """

    def __init__(self, module: str, late: str) -> None:
        self._folder = ScratchFolder()
        self.address = str(self._folder.path / "forks")
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen(_WAITING)
            number = listening.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(number), module, late],
                stdin=subprocess.PIPE,  # ends when this process does, however that ends
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[number],
                env=of_python(**one),
            )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        """End it; what was forked from it goes on."""
        self._process.kill()
        self._process.communicate()
        self._folder.close()


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Import without looking for garbage in what is imported, then or later.

    The collector would go through it again and again, which is a tenth of the processor time that
    torch takes to import, and would write to memory that forked processes have in common.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@dataclass(frozen=True)
class Request:
    """What a process is forked for, as `sheafnet.runtime.forked` asks for it.

    Args:
        arguments: a script and its arguments.
        environment: of the one that asks, as all that follows.
        folder: where it works.
        leads: whether it leads a process group.
        oom_score_adj: how soon it is killed when memory runs out.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    leads: bool
    oom_score_adj: str


def main() -> None:
    """Serve until the starting process is gone; every process forked goes on as the worker."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a Ctrl-C is for the starting one
    number, module, late = sys.argv[1:]
    with no_garbage():
        importlib.import_module(module)
    with socket.socket(fileno=int(number)) as listening:
        request, streams, asking = _next_fork(listening, late)
    with asking:
        _become(request, streams)
        try:
            asking.sendall(b"forked")
        except OSError:
            os._exit(0)  # nobody waits for it any more
    runpy.run_path(sys.argv[0], run_name="__main__")


def _next_fork(listening: socket.socket, late: str) -> tuple[Request, Sequence[int], socket.socket]:
    """Fork for whoever asks; returns in the forked process, with the streams of who asked."""
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        asking, _ = listening.accept()
        streams: Sequence[int] = []
        with contextlib.suppress(OSError, ValueError, TypeError):  # then nobody gets an answer
            asking.settimeout(_REQUEST_S)
            said, streams, _, _ = socket.recv_fds(asking, 2**16, 3)
            while more := asking.recv(2**16):
                said += more
            request = Request(**json.loads(said))
            if late not in sys.modules:
                _set_environment(request.environment)
                with no_garbage():
                    importlib.import_module(late)
                _refuse_threads()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that end leave nothing behind
            if os.fork() == 0:
                return request, streams, asking
        asking.close()
        for stream in streams:
            os.close(stream)


def _become(request: Request, streams: Sequence[int]) -> None:
    """Take on all that makes the process that asked another than this one."""
    for at, stream in enumerate(streams):
        os.dup2(stream, at)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request.leads:
        os.setpgid(0, 0)
    Path("/proc/self/oom_score_adj").write_text(request.oom_score_adj)
    _set_environment(request.environment)
    os.chdir(request.folder)
    sys.argv = request.arguments
    _draw_anew()


def _draw_anew() -> None:
    """Seed the global generators; forks would draw the same. Python's own does it by itself."""
    np.random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _refuse_threads() -> None:
    """End if something that was imported has started a thread, which a fork would be without."""
    if len(os.listdir("/proc/self/task")) > 1:
        os._exit(1)


if __name__ == "__main__":
    main()
