"""Machines apart on this one: each with its own network stack, processes, mounts and host name.

A machine is a set of Linux namespaces. Its network card is a TAP device, whose other end is a
switch in this process: it forwards, delays, drops and remembers Ethernet frames, which are of the
size that they would have on a cable, since nothing is offloaded to a TAP device. This machine's own
network is not touched. A machine's first process ends when its input does, so that, whatever
becomes of the tests, the kernel ends every process of the machine and removes its network.
"""

import contextlib
import heapq
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

FIRST_PROCESS = """
import fcntl, os, signal, socket, struct
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # it inherits orphans
card = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(card, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))  # TUNSETIFF: TAP, NO_PI
held = socket.socket(fileno=0)
socket.send_fds(held, [b"up"], [card])
os.close(card)
held.recv(1)
"""
_SPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")
_LONGEST_FRAME = 1 << 16


def why_not(*more: str) -> str | None:
    """What is missing here for machines apart, and for tests that need the commands `more`."""
    for command in ("ip", "unshare", "nsenter", *more):
        if shutil.which(command) is None:
            return f"there is no command `{command}` here"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no TAP device can be made here: /dev/net/tun cannot be opened"
    tried = subprocess.run(
        ["unshare", *_SPACES, "--fork", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if tried.returncode == 0 else f"no namespaces can be made: {tried.stderr.strip()}"


class Machine:
    """One machine, with an interface ``eth0``.

    Args:
        address: of the interface.
        folder: for what its Ray writes.
        mtu: of the interface, bytes.
    """

    def __init__(self, address: str, folder: Path, mtu: int) -> None:
        self.address = address
        self._held, its = socket.socketpair()
        unshare = ["unshare", *_SPACES, "--fork", "--kill-child", "--mount-proc"]
        with its:
            self._process = subprocess.Popen(
                [*unshare, sys.executable, "-c", FIRST_PROCESS], stdin=its
            )
        try:
            _, (self.card,), _, _ = socket.recv_fds(self._held, 2, 1)
        except ValueError:
            self._held.close()
            raise RuntimeError(f"machine {address} does not start") from None
        (first,) = psutil.Process(self._process.pid).children()
        self.pid = first.pid
        """Of its first process, as this machine numbers it."""
        folder.mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        self.run("hostname", f"machine-{address.replace('.', '-')}")
        self.run("mount", "--bind", str(folder), "/tmp/ray")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "mtu", str(mtu), "up")

    def command(self, *words: str) -> list[str]:
        """`words` as a command that runs them there, in the working directory of this process."""
        return ["nsenter", f"--target={self.pid}", *_SPACES, "env", f"--chdir={Path.cwd()}", *words]

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command there, which has to succeed unless ``check=False``."""
        options = {"capture_output": True, "text": True, "check": True, "timeout": 240} | options
        return subprocess.run(self.command(*words), **options)

    def processes(self, name: str) -> list[int]:
        """The numbers of its processes that have `name` in their command line."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                here = os.readlink(f"/proc/{process.pid}/ns/pid") == space
                if here and name in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    def off(self) -> None:
        """End it with everything that runs on it."""
        self._held.close()
        self._process.wait(30)
        os.close(self.card)


class Switch:
    """Joins machines: a frame that one sends reaches all others, whose cards take what is theirs.

    Args:
        machines: to join.
        delay_s: of every frame on its way.
    """

    def __init__(self, machines: Sequence[Machine], delay_s: float = 0.0) -> None:
        self._cards = [machine.card for machine in machines]
        self._delay_s = delay_s
        self._end, self._closing = os.pipe()
        self.drops: Callable[[bytes], bool] | None = None
        """Which frames are dropped, where a function is put here."""
        self.record: list[tuple[int, bytes]] | None = None
        """Sender and frame of all that is forwarded, where a list is put here."""
        self._thread = threading.Thread(target=self._forward)
        self._thread.start()

    def _forward(self) -> None:
        late: list[tuple[float, int, int, bytes]] = []
        number = 0
        while True:
            wait = max(0.0, late[0][0] - time.monotonic()) if late else None
            ready = select.select([self._end, *self._cards], [], [], wait)[0]
            if self._end in ready:
                return
            for card in ready:
                frame, sender = os.read(card, _LONGEST_FRAME), self._cards.index(card)
                if self.drops is None or not self.drops(frame):
                    number += 1
                    heapq.heappush(late, (time.monotonic() + self._delay_s, number, sender, frame))
            while late and late[0][0] <= time.monotonic():
                _, _, sender, frame = heapq.heappop(late)
                if self.record is not None:
                    self.record.append((sender, frame))
                for k, card in enumerate(self._cards):
                    if k != sender:
                        with contextlib.suppress(OSError):  # its queue is full, or it goes down
                            os.write(card, frame)

    def close(self) -> None:
        """Forward nothing any more."""
        os.write(self._closing, b"x")
        self._thread.join()
        os.close(self._end)
        os.close(self._closing)


@contextlib.contextmanager
def machines(
    count: int, folder: Path, mtu: int = 1500, delay_s: float = 0.0
) -> Iterator[tuple[list[Machine], Switch]]:
    """So many machines, ``10.77.0.1`` and so on, at a switch; all is gone afterwards."""
    with contextlib.ExitStack() as stack:
        made = []
        for k in range(1, count + 1):
            made.append(Machine(f"10.77.0.{k}", folder / f"machine{k}", mtu))
            stack.callback(made[-1].off)
        switch = Switch(made, delay_s)
        stack.callback(switch.close)
        yield made, switch
