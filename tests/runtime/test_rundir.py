"""The run directory: never overwritten, readable at every moment."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from sheafnet.config import Config
from sheafnet.errors import RunDirectoryError
from sheafnet.runtime.rundir import RunDirectory
from sheafnet.studies.tables import print_run
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
        print_run(Console(), directory)
    (directory.path / "run.json").write_text("[1]")
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        RunDirectory.open(directory.path)
