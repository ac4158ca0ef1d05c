"""What a private Ray starts in place of its worker: has the fork server fork one instead.

The worker gets the arguments, the environment, the folder and the streams of this process, which
then ends. Where nothing has been forked in time, this process becomes the worker itself, and takes
as long to start as any. Imports little: Ray starts one for every actor.
"""

import importlib.util
import json
import os
import socket
import sys
from pathlib import Path

ADDRESS = "SHEAFNET_FORK_SERVER"
"""The environment variable of where the fork server of a private Ray listens."""
_PATIENCE_S = 30.0
"""For the fork server to import what it has to. Ray gives a worker 60 s to register."""


def main() -> None:
    """Have the worker forked, or become it."""
    worker = _worker()
    if not _forked([worker, *sys.argv[1:]]):
        again = sys.orig_argv
        again[again.index(sys.argv[0])] = worker
        os.execv(sys.executable, again)


def _worker() -> str:
    """The script of Ray's that a worker runs."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return os.path.join(os.path.dirname(spec.origin), "_private", "workers", "default_worker.py")


def _forked(arguments: list[str], patience_s: float = _PATIENCE_S) -> bool:
    """Whether a forked process says that it goes on with these arguments."""
    try:
        request = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "leads": os.getpgrp() == os.getpid(),
            "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),
        }
        said = json.dumps(request).encode()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(patience_s)
            asking.connect(os.environ[ADDRESS])
            sent = socket.send_fds(asking, [said], [0, 1, 2])
            asking.sendall(said[sent:])
            asking.shutdown(socket.SHUT_WR)
            return asking.recv(16) != b""
    except (OSError, KeyError):
        return False


if __name__ == "__main__":
    main()
