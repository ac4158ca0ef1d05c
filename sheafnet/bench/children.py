"""The processes that a benchmark measures in, as the process that started them sees them.

Everything is measured in fresh processes, so that nothing that one measurement loaded or warmed
disturbs another. A child prepares, says so, and begins when all of its group are ready (see
`sheafnet.bench.child`). In a process group of its own, so that a Ctrl-C of the terminal reaches the
benchmark alone, which then ends its children.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from sheafnet.errors import ActorError, DeadlineError
from sheafnet.runtime.environment import of_python

_LONGEST_S = 600.0
"""No step of a child takes longer; one that does hangs."""
_FAREWELL_S = 15.0
"""For a child to end what it has started itself."""


class Child:
    """A process that answers a line of JSON for every step, and goes on at every line it is sent.

    Args:
        name: for messages.
        arguments: of the Python interpreter.
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            process_group=0,
            env=of_python(),
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self.stdout = self._process.stdin, self._process.stdout

    def go(self) -> None:
        """Let it take its next step; one that is gone shows by its missing answer."""
        with suppress(BrokenPipeError):
            self._stdin.write("\n")
            self._stdin.flush()

    def answer(self) -> Any:
        """What it answers, once there is something to read.

        Raises:
            ActorError: it ended instead.
        """
        line = self.stdout.readline()
        if line.endswith("\n"):
            return json.loads(line)
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        self._log.seek(0)
        said = self._log.read().strip()[-2000:]
        raise ActorError(f"benchmark {self._name}: its process ended with {how}: {said}")

    def ask_to_end(self) -> None:
        """Close its stdin, at which it stops what it has started and ends."""
        with suppress(BrokenPipeError):
            self._stdin.close()

    def end(self) -> None:
        """End it and its group, whatever it does."""
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.stdout.close()
        self._log.close()


def task(name: str, **arguments: Any) -> Child:
    """A child that runs the task `name`, which is ``module:function`` in this package."""
    words = ["-m", "sheafnet.bench.child", name, json.dumps(arguments)]
    return Child(name, words)


class Group:
    """Children that take every step together; all end with the block.

    Args:
        children: started already, none of which has been read from.
    """

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._stack = ExitStack()
        self.pids = [child.pid for child in children]

    def __enter__(self) -> "Group":
        for child in self._children:
            self._stack.callback(child.end)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.ask_to_end()
        self._stack.close()

    def go(self) -> None:
        """Let every child take its next step."""
        for child in self._children:
            child.go()

    def answers(self) -> list[Any]:
        """What every child answers, in order.

        Raises:
            ActorError: one ended instead, however long the others would go on.
            DeadlineError: one does not answer.
        """
        found: dict[int, Any] = {}
        end = time.monotonic() + _LONGEST_S
        with selectors.DefaultSelector() as selector:
            for at, child in enumerate(self._children):
                selector.register(child.stdout, selectors.EVENT_READ, at)
            while len(found) < len(self._children):
                events = selector.select(end - time.monotonic())
                if not events:
                    raise DeadlineError(f"a benchmark took more than {_LONGEST_S:.0f} s for a step")
                for key, _ in events:
                    found[key.data] = self._children[key.data].answer()
                    selector.unregister(key.fileobj)
        return [found[at] for at in range(len(self._children))]


def run(*children: Child) -> list[Any]:
    """What the tasks of these children found, begun together once all have prepared.

    Raises:
        ActorError: one of them failed.
    """
    with Group(children) as group:
        group.answers()
        group.go()
        return group.answers()
