"""A folder that is gone once the process that made it is, however that ends."""

import shutil
import subprocess
import tempfile
from pathlib import Path

_WAIT_FOR_THE_END = 'while read -r more; do set -- "$@" "$more"; done; exec rm -rf -- "$0" "$@"'
"""A shell's: its input ends when the process that holds the other end is gone."""


class ScratchFolder:
    """A temporary folder that only the user may enter.

    A small process of its own removes it, so that it goes after a SIGKILL, too.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="sheafnet-"))
        try:
            self._remover = subprocess.Popen(
                ["/bin/sh", "-c", _WAIT_FOR_THE_END, self.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the process that made it
            )
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def take(self, path: str) -> None:
        """Have `path`, of another's folder, removed with it."""
        assert self._remover.stdin is not None
        self._remover.stdin.write(f"{path}\n".encode())
        self._remover.stdin.flush()

    def close(self) -> None:
        """Remove it now."""
        self._remover.communicate()
