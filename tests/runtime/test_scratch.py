"""A scratch folder goes with its process, whichever way that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sheafnet.runtime.scratch import ScratchFolder

MAKES_ONE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from sheafnet.runtime.scratch import ScratchFolder
folder = ScratchFolder()
(folder.path / "0.0").touch()
for path in sys.argv[1:]:
    folder.take(path)
print(folder.path, folder._remover.pid, flush=True)
sys.stdin.read()
"""


def test_closed() -> None:
    folder = ScratchFolder()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "inner").mkdir()
    (folder.path / "inner" / "0.0").touch()
    folder.close()
    assert not folder.path.exists()
    assert folder._remover.returncode == 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_its_process_ends(ending: signal.Signals | None, tmp_path: Path) -> None:
    others = [tmp_path / "with a blank", tmp_path / "file", tmp_path / "never there"]
    others[0].mkdir()
    others[1].touch()
    process = subprocess.Popen(
        [sys.executable, "-c", MAKES_ONE, *map(str, others)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    name, pid = process.stdout.readline().split()
    folder, remover = Path(name), psutil.Process(int(pid))
    assert (folder / "0.0").exists()
    if ending is None:
        process.stdin.close()
    else:
        os.killpg(process.pid, ending)  # as a terminal does: all that hang on it
    assert process.wait(10) == (0 if ending is None else -ending) or ending is signal.SIGINT
    _, alive = psutil.wait_procs([remover], timeout=10)
    assert alive == []
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []
