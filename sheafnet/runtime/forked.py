"""What a private Ray starts in place of its worker: has the fork server fork one instead.

The worker gets the arguments, the environment, the folder and the streams of this process, which
then ends. Where the fork server does not answer, this process becomes the worker itself, and takes
as long to start as any. Imports little: Ray starts one for every actor.
"""

import importlib.util
import json
import os
import socket
import sys


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


def _forked(arguments: list[str]) -> bool:
    """Whether the fork server says that it has forked a process that runs these arguments."""
    try:
        request = json.dumps([arguments, dict(os.environ), os.getcwd()]).encode()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(os.environ["SHEAFNET_FORK_SERVER"])
            sent = socket.send_fds(asking, [request], [0, 1, 2])
            asking.sendall(request[sent:])
            asking.shutdown(socket.SHUT_WR)
            return asking.recv(16) != b""
    except (OSError, KeyError):
        return False


if __name__ == "__main__":
    main()
