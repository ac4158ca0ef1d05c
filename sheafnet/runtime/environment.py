"""What the processes of a network find in their environment beside what the user has there."""

import contextlib
import os
import sys
from collections.abc import Iterator

_TUNABLES = "GLIBC_TUNABLES"
_NO_REP_MOVSB = "glibc.cpu.x86_rep_movsb_threshold=1073741824"
"""The C library copies in vector registers below 1 GiB, never by the string instruction. That one
takes up to ten times as long on AMD's Zen 3 where the target begins 1 to 31 bytes after the source
modulo 4 KiB, as arrays do that were allocated one after the other. It is read at a process' start,
and ignored where there is no such option."""


def environment() -> dict[str, str]:
    """The variables to add to those of this process, for one that it starts."""
    chosen = os.environ.get(_TUNABLES, "").split(":")
    if _NO_REP_MOVSB not in chosen:
        chosen.insert(0, _NO_REP_MOVSB)
    return {_TUNABLES: ":".join(filter(None, chosen))}


def of_python(**more: str) -> dict[str, str]:
    """All variables of a Python that this process starts by ``-P``: it finds the same modules."""
    paths = [os.path.abspath(entry) for entry in sys.path]
    return os.environ | environment() | {"PYTHONPATH": os.pathsep.join(paths)} | more


@contextlib.contextmanager
def inherited(**more: str) -> Iterator[None]:
    """Processes that are started meanwhile find them and `more`, whatever library starts them."""
    added = environment() | more
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
