"""The environment of the processes that a network runs in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sheafnet.runtime.environment import environment, inherited, of_python

_TOLD = [sys.executable, "-c", "import os; print(os.environ.get('GLIBC_TUNABLES'))"]


def told() -> str:
    """What a process that is started now has."""
    return subprocess.run(_TOLD, capture_output=True, text=True, check=True).stdout.strip()


def test_what_is_started_meanwhile_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with inherited():
        assert told() == "glibc.cpu.x86_rep_movsb_threshold=1073741824"
    assert told() == "None"
    assert "GLIBC_TUNABLES" not in os.environ


def test_what_the_user_has_chosen_stands_behind_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library reads them in order, and the last word is the user's."""
    chosen = "glibc.cpu.x86_rep_movsb_threshold=4096:glibc.malloc.perturb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", chosen)
    with inherited():
        assert told().endswith(f"=1073741824:{chosen}")
    assert told() == os.environ["GLIBC_TUNABLES"] == chosen
    assert environment()["GLIBC_TUNABLES"].endswith(f":{chosen}")


def test_a_python_finds_modules_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "inner", "/opt/modules"])
    found = of_python(OMP_NUM_THREADS="1")
    assert found["PYTHONPATH"].split(os.pathsep) == [
        str(tmp_path),
        str(tmp_path / "inner"),
        "/opt/modules",
    ]
    assert found["OMP_NUM_THREADS"] == "1"
    assert (os.environ | environment()).items() - found.items() <= {
        (name, os.environ.get(name)) for name in ("PYTHONPATH", "OMP_NUM_THREADS")
    }
