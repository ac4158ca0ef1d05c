"""A run directory that may be read and not written, by a user who is not root."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sheafnet
from sheafnet.errors import Interrupted
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig

NOBODY = 65534
AS_NOBODY = f"""
import os, sys
import safetensors.numpy, sheafnet.cli  # read before what is root's is out of reach
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
sys.exit(sheafnet.cli.run())
"""


def interrupt(_: Progress) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def run(tiny: MakeConfig) -> Iterator[Path]:
    """A run that broke off, in a folder where everyone may read and only root may write."""
    folder = Path(tempfile.mkdtemp(prefix="read-only-"))
    path = folder / "run"
    with pytest.raises(Interrupted):
        sheafnet.simulate(tiny("run.checkpoint_every=1"), run_dir=path, on_progress=interrupt)
    inside = [folder, *folder.rglob("*")]
    for file in inside:
        file.chmod(0o555 if file.is_dir() else 0o444)
    yield path
    for file in inside:
        file.chmod(file.stat().st_mode | stat.S_IRWXU)
    shutil.rmtree(folder)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "200"},
    )


def test_it_is_shown_and_neither_resumed_nor_damaged(run: Path) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert any("checkpoints" in file.parts for file in before)
    shown = command("show", run)
    assert shown.returncode == 0, shown.stderr
    assert "interrupted" in shown.stdout
    again = command("resume", run, "--backend", "local")
    assert again.returncode == 2
    assert "Permission denied" in again.stderr
    assert str(run) in again.stderr
    assert "Traceback" not in again.stderr
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert RunDirectory.open(run).about()["status"] == "interrupted"


def test_none_is_made_where_nothing_may_be_written(run: Path) -> None:
    config = run / "config.yaml"
    there = set(run.parent.rglob("*"))
    refused = command("simulate", "--topology", config, "--run-dir", run.parent / "new")
    assert refused.returncode == 2
    assert f"{run.parent / 'new'}: cannot be" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert set(run.parent.rglob("*")) == there
