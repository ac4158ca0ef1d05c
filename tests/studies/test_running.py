"""Worker processes: what fails, crashes or is interrupted does not take the rest with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

import sheafnet
from sheafnet.errors import ConfigError, StudyError
from sheafnet.runtime.environment import environment
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies import running
from sheafnet.studies.cells import Cell, CellResult, collect, read_cells
from sheafnet.studies.folder import StudyFolder
from sheafnet.studies.running import CellRunner, Failure, StudyProgress

CRASHING = """
import os
from sheafnet.config import Model
from sheafnet.nodes.encoders import EncoderKind, register

class Options(Model):
    how: str = "die"

def build(shape, dim, options):
    print("not an answer")
    if options.how == "die":
        os.write(2, b"out of luck")
        os._exit(9)
    if options.how == "spoil":
        from sheafnet.runtime.coordinator import Coordinator
        Coordinator.step = lambda _: 1 / 0
        from torch import nn
        return nn.Linear(shape[0], dim)
    raise ValueError("a mistake of my own")

register(EncoderKind("crashing", Options, build, check=lambda shape: None))
"""


def test_a_cell_is_the_run_that_simulate_makes_and_runs_once(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = read_cells(network, ["evaluation.every=2"], [0, 1])
    seen: list[StudyProgress] = []
    folder = StudyFolder(tmp_path / "study")
    found = CellRunner(folder, 2, seen.append)([*cells, cells[0]], "test")
    assert [(p.what, p.done, p.total, p.failed) for p in seen] == [
        ("test", k, 2, 0) for k in range(3)
    ]
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0.0
    for cell in cells:
        result = sheafnet.simulate(cell.config, run_dir=tmp_path / cell.key)
        here = collect(cell, RunDirectory.open(result.directory), result.summary)
        there = found[cell.key]
        assert isinstance(there, CellResult)
        varying = {"timing": True, "memory": True}
        assert there.model_dump(exclude={"summary": varying}) == here.model_dump(
            exclude={"summary": varying}
        )

    def never(*_: object) -> None:
        raise AssertionError("nothing was left to run")

    monkeypatch.setattr(running, "_outcomes", never)
    monkeypatch.setattr(running, "check_cells", never)
    assert CellRunner(folder)(cells, "test") == found


def test_all_cells_are_checked_before_one_runs(network: Path, tmp_path: Path) -> None:
    cells = [
        *read_cells(network, (), [0]),
        *read_cells(network, ["dataset.nose=1"], [0]),
    ]
    with pytest.raises(ConfigError, match="nose"):
        CellRunner(StudyFolder(tmp_path / "study"))(cells, "test")
    assert not (tmp_path / "study").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        CellRunner(StudyFolder(tmp_path / "file"))(cells[:1], "test")


def test_a_crash_and_a_defect_are_told_and_harm_no_other(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_crashing_encoder.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    from sheafnet.nodes import encoders

    monkeypatch.setattr(encoders, "ENCODERS", dict(encoders.ENCODERS))
    monkeypatch.delitem(sys.modules, "my_crashing_encoder", raising=False)
    own = ("imports=[my_crashing_encoder]",)

    def cells(*overrides: str) -> list[Cell]:
        return read_cells(network, (*own, *overrides), [0])

    dying = cells("defaults.node.encoder=crashing")
    faulty = cells("defaults.node.encoder={name: crashing, how: raise}")
    spoiling = cells("defaults.node.encoder={name: crashing, how: spoil}")
    diverging, sound = cells("training.learning_rate=1e6"), cells()
    listed: Sequence[Cell] = [*dying, *faulty, *diverging, *sound, *spoiling]
    folder = StudyFolder(tmp_path / "study")
    found = CellRunner(folder, 1)(listed, "test")
    crash, mistake, divergence, result, defect = (found[cell.key] for cell in listed)
    assert isinstance(crash, Failure)
    assert isinstance(mistake, Failure)
    assert isinstance(defect, Failure)
    assert isinstance(divergence, Failure)
    assert isinstance(result, CellResult)
    failed = (crash, mistake, divergence, defect)
    assert [each.exit_code for each in failed] == [5, 6, 3, 1]
    assert "exit code 9" in crash.error
    assert "out of luck" in crash.error
    assert "the encoder 'crashing' (my_crashing_encoder) failed in its build" in mistake.error
    assert "ValueError: a mistake of my own" in mistake.error
    assert defect.error.startswith("Traceback")
    assert defect.error.endswith("ZeroDivisionError: division by zero")
    assert "learning_rate" in divergence.error
    assert divergence.overrides == (*own, "training.learning_rate=1e6", "run.seed=0")
    assert [f.stem for f in (tmp_path / "study" / "cells").iterdir()] == [sound[0].key]


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(network: Path, tmp_path: Path) -> None:
    """One cell ends at once, the other would take hours."""
    command = [
        *(sys.executable, "-m", "sheafnet", "sweep", "--topology", str(network)),
        *("--over", "training.rounds=1,500000", "--seeds", "1", "--workers", "2"),
        *("--study", str(tmp_path / "study")),
    ]
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "1/2" not in (line := process.stderr.readline()):
        assert line
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert told.startswith("sheafnet: interrupted; 1 of 2 cells (sweep) are kept in")
    assert "Traceback" not in told
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert len(list((tmp_path / "study" / "cells").iterdir())) == 1


def test_workers_end_when_the_study_is_killed(network: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from sheafnet.studies import running, cells, folder\n"
        "c = cells.read_cells(sys.argv[1], ['training.rounds=100000000'], [0])\n"
        "running.CellRunner(folder.StudyFolder(sys.argv[2]), 1, lambda p: print(p, flush=True))"
        "([*c, *cells.read_cells(sys.argv[1], ['training.rounds=1'], [0])][::-1], 'x')\n"
    )
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(network), str(tmp_path / "study")],
        env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while ": 1/2 cells" not in (line := process.stdout.readline()):
        assert line
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 1
    process.kill()
    process.wait()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    process.stdout.close()


def test_a_worker_finds_what_the_actors_of_a_network_find(tmp_path: Path) -> None:
    worker = running._Worker(tmp_path, 0)
    try:
        found = psutil.Process(worker._process.pid).environ()
    finally:
        worker.end()
    assert (environment() | {"OMP_NUM_THREADS": "1"}).items() <= found.items()
