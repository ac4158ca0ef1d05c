"""Damaged runs that go on: the fuzzer in its short form, and damage chosen by hand."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import sheafnet
from sheafnet.errors import RunDirectoryError
from tests.fuzz import resumed
from tests.fuzz.resumed import break_off, files, fuzz

Broken = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    return break_off(tmp_path_factory.mktemp("broken"))


def test_the_short_form(broken: Broken) -> None:
    run, whole = broken
    names = {path.relative_to(run).as_posix() for path in files(run)}
    assert {"run.json", "rounds.jsonl", "checkpoints/000003/manifest"} < names
    tally = fuzz(run, whole, 10, seed=1)
    assert tally.total() == 10
    ended = {name for name in tally if name.endswith(": ended")}
    assert any("checkpoints" in name for name in ended)
    assert not any("checkpoints" in name for name in tally.keys() - ended)
    assert sum(tally.values()) > sum(tally[name] for name in ended)


def test_a_run_that_ends_otherwise_is_found(broken: Broken) -> None:
    run, whole = broken
    other = whole | {"rounds": whole["rounds"][:-1]}
    with pytest.raises(AssertionError) as caught:
        fuzz(run, other, 20, seed=0, hurt=lambda _, content: content)
    assert any("input " in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "change",
    [
        {"versions": None},
        {"versions": ["sheafnet"]},
        {"incarnation": "2"},
        {"incarnation": 1.5},
        {"incarnation": True},
        {"resumed": 4},
        {"recoveries": {}},
        {"status": ["running"]},
        {"pilot": 7},
    ],
    ids=str,
)
def test_what_a_run_goes_on_from_is_of_its_kind(
    broken: Broken, tmp_path: Path, change: dict[str, Any]
) -> None:
    run = Path(shutil.copytree(broken[0], tmp_path / "run"))
    path, (key,) = run / "run.json", change
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = path.read_bytes()
    with pytest.raises(RunDirectoryError, match=rf"run\.json: its {key} is not what a run writes"):
        sheafnet.resume(run)
    assert path.read_bytes() == before


def test_what_the_long_form_prints(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["resumed", "--inputs", "3"])
    assert resumed.main() == 0
    assert "3 damaged runs resumed in " in capsys.readouterr().out
