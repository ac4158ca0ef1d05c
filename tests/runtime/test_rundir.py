"""The run directory: never overwritten, readable at every moment."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

import sheafnet
from sheafnet.config import Config
from sheafnet.errors import DivergenceError, RunDirectoryError
from sheafnet.runtime.loaded import load_run
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies.tables import print_run
from tests.conftest import TINY, MakeConfig


def test_what_a_new_run_directory_says(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny("run.seed=7")
    directory = RunDirectory.create(config, tmp_path / "deep" / "run")
    about = directory.about()
    assert about["status"] == "running"
    assert about["seed"] == 7
    assert {"python", "torch", "ray", "numpy", "sheafnet"} <= set(about["versions"])
    text = (directory.path / "config.yaml").read_text()
    assert Config.model_validate(yaml.safe_load(text)) == config


def test_default_names_do_not_collide(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {RunDirectory.create(tiny()).path for _ in range(4)}
    assert len(paths) == 4
    assert all(path.parent == Path("runs") for path in paths)


def test_a_torn_last_line_is_left_out(tiny: MakeConfig, tmp_path: Path) -> None:
    directory = RunDirectory.create(tiny(), tmp_path / "run")
    directory.append("rounds", [{"round": 0}, {"round": 1}])
    whole = (directory.path / "rounds.jsonl").read_bytes()
    for cut in range(1, len(b'{"round":1}\n')):
        (directory.path / "rounds.jsonl").write_bytes(whole[:-cut])
        assert list(directory.lines("rounds")) == [{"round": 0}]


def test_a_folder_that_is_no_run_of_this_version(tiny: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        RunDirectory.open(tmp_path)
    directory = RunDirectory.create(tiny(), tmp_path / "run")
    path = directory.path / "run.json"
    path.write_text(json.dumps(directory.about() | {"schema": 99}))
    with pytest.raises(RunDirectoryError, match="99"):
        RunDirectory.open(directory.path)
    path.write_text("{")
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        RunDirectory.open(directory.path)


def test_a_folder_that_cannot_be_written(tiny: MakeConfig, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below", Path("/proc/nothing")):
        with pytest.raises(RunDirectoryError, match=str(path)):
            RunDirectory.create(tiny(), path)
    assert file.read_text() == "x"


def test_a_full_disk_is_named(tiny: MakeConfig, tmp_path: Path) -> None:
    directory = RunDirectory.create(tiny(), tmp_path / "run")
    (directory.path / "ledger.jsonl").unlink()
    (directory.path / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunDirectoryError, match="No space left"):
        directory.append("ledger", [{"round": 0}])


def test_of_many_runs_that_start_at_once_each_gets_a_folder(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    config = tiny(f"run.directory={tmp_path}")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: RunDirectory.create(config).path, range(16)))
    assert len(set(made)) == 16

    def claim(_: int) -> bool:
        try:
            RunDirectory.create(config, tmp_path / "one")
        except RunDirectoryError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(16))) == 1


def test_damaged_folders_are_named_not_traced(tiny: MakeConfig, tmp_path: Path) -> None:
    directory = RunDirectory.create(tiny(), tmp_path / "run")
    (directory.path / "config.yaml").unlink()
    with pytest.raises(RunDirectoryError, match=r"config\.yaml"):
        directory.config()
    (directory.path / "rounds.jsonl").write_text("{]\n")
    with pytest.raises(RunDirectoryError, match=r"rounds\.jsonl"):
        list(directory.lines("rounds"))
    (directory.path / "summary.json").write_text('{"schema": 1}')
    with pytest.raises(RunDirectoryError, match=r"summary\.json"):
        print_run(Console(), load_run(directory.path))
    (directory.path / "run.json").write_text("[1]")
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        RunDirectory.open(directory.path)


# Full disks


def test_a_run_on_a_disk_that_fills_up_keeps_what_it_wrote(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the ledger grows beyond it."""
    topology, run = tmp_path / "net.yaml", tmp_path / "run"
    topology.write_text(yaml.safe_dump(TINY | {"training": {"rounds": 200, "batch_size": 16}}))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
        "from sheafnet.__main__ import main; main()"
    )
    command = [sys.executable, "-c", program, "simulate", "--topology", str(topology)]
    done = subprocess.run(
        [*command, "--run-dir", str(run)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert f"sheafnet: {run}/ledger.jsonl: File too large; what stands there stays." in done.stderr
    assert "Traceback" not in done.stderr
    ledger = (run / "ledger.jsonl").read_bytes()
    assert len(ledger) == 60_000
    directory = RunDirectory.open(run)
    about = directory.about()
    assert about["status"] == "failed"
    assert "File too large" in about["error"]
    whole = list(directory.lines("ledger"))
    assert len(whole) == ledger.count(b"\n") > 100
    assert {line["phase"] for line in whole} == {"train"}
    assert next(directory.lines("rounds"))["round"] == 0
    shown = subprocess.run(
        [sys.executable, "-m", "sheafnet", "show", str(run)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "not finished" in shown.stdout


def test_a_whole_file_on_a_full_disk_leaves_the_old_one(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory.create(tiny(), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in directory.path.iterdir()}
    tried = []

    def fills_up(file: int) -> None:
        tried.append(file)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fills_up)
    for write_it, name in (
        (lambda: directory.mark("failed", error="x"), "run.json"),
        (lambda: directory.write_summary({"schema": 1}), "summary.json"),
        (lambda: directory.write_parameters("a", {"w": np.zeros(3, np.float32)}), "a.safetensors"),
    ):
        with pytest.raises(RunDirectoryError, match=f"{name}: cannot be written: No space left"):
            write_it()
    assert len(tried) == 3
    (directory.path / "parameters").rmdir()  # empty: nothing half-written is left
    assert {path.name: path.read_bytes() for path in directory.path.iterdir()} == before


def test_a_file_where_the_parameters_belong_is_named(tiny: MakeConfig, tmp_path: Path) -> None:
    directory = RunDirectory.create(tiny(), tmp_path / "run")
    (directory.path / "parameters").write_text("mine")
    with pytest.raises(RunDirectoryError, match="parameters: cannot be written: File exists"):
        directory.write_parameters("a", {"w": np.zeros(3, np.float32)})
    assert (directory.path / "parameters").read_text() == "mine"


def test_why_a_run_ended_is_told_though_it_cannot_be_written(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        raise DivergenceError("a loss became NaN")

    def full(*_: object, **__: object) -> None:
        tried.append(True)
        raise RunDirectoryError("no space")

    tried: list[bool] = []
    monkeypatch.setattr("sheafnet.runtime.simulate._Run._go", diverge)
    monkeypatch.setattr(RunDirectory, "mark", full)
    with pytest.raises(DivergenceError, match="a loss became NaN"):
        sheafnet.simulate(tiny(), run_dir=tmp_path / "run")
    assert tried == [True]
