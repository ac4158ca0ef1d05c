"""The run directory: never overwritten, readable at every moment."""

import json
from pathlib import Path

import pytest
import yaml

from sheafnet.config import Config
from sheafnet.errors import RunDirectoryError
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import MakeConfig


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
