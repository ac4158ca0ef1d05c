"""Damaged run directories: the fuzzer in its short form, and damage chosen by hand."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from sheafnet import __main__ as entry
from tests.fuzz import runs
from tests.fuzz.runs import READ, fuzz, look, make_runs


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folders(pristine: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in pristine]


def show(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """`sheafnet show` in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["sheafnet", "show", *map(str, arguments)])
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        entry.main()
    return int(end.value.code or 0)


def test_the_short_form(folders: list[Path]) -> None:
    tally = fuzz(folders, 150, seed=2)
    assert 100 < tally.total() <= 150
    for name in READ:
        assert tally[f"{name}: refused"] + tally[f"{name}: shown"] > 0
        assert tally[f"{name}: refused"] > 0
    assert [look(run) for run in folders] == ["shown", "shown"]  # mended after each


def test_a_reader_that_lets_another_error_through_is_found(folders: list[Path]) -> None:
    def careless(run: Path) -> str:
        json.loads((run / "run.json").read_bytes())
        return "shown"

    with pytest.raises(ValueError, match=r".") as caught:
        fuzz(folders, 1000, seed=0, read=careless)
    assert any("run.json" in note for note in caught.value.__notes__)


def test_what_the_long_form_prints(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["runs", "--inputs", "8"])
    assert runs.main() == 0
    assert " damaged run directories in " in capsys.readouterr().out


DEEP = "[" * 100_000
DAMAGE = {
    "empty": ("run.json", lambda _: ""),
    "no object": ("run.json", lambda _: "[[1, 2]]"),
    "pairs": ("run.json", lambda _: '[["schema", 1], ["status", "running"]]'),
    "another version": ("run.json", lambda text: text.replace('"schema": 1', '"schema": 2')),
    "no version": ("run.json", lambda text: text.replace('"schema"', '"shcema"')),
    "no status": ("run.json", lambda text: text.replace('"status"', '"state"')),
    "strange status": ("run.json", lambda text: text.replace("finished", "\\u001b[31mok")),
    "deep": ("run.json", lambda _: DEEP),
    "left out": ("run.json", lambda text: text.replace("{", '{"left_out": 5,', 1)),
    "not UTF-8": ("run.json", lambda text: text.encode("utf-16")),
    "deep line": ("rounds.jsonl", lambda text: f"{DEEP}\n{text}"),
    "number": ("rounds.jsonl", lambda text: f"1\n{text}"),
    "no phase": ("rounds.jsonl", lambda text: text.replace('"phase"', '"phrase"')),
    "text for a loss": ("rounds.jsonl", lambda text: text.replace('"loss":', '"loss":"x","l":')),
    "empty line": ("ledger.jsonl", lambda text: f"\n{text}"),
    "binary line": ("ledger.jsonl", lambda text: b"\xff\xfe\n" + text.encode()),
    "text for bytes": (
        "ledger.jsonl",
        lambda text: text.replace('"payload_bytes":', '"payload_bytes":"x","p":'),
    ),
    "a list for sent": ("ledger.jsonl", lambda _: '{"phase":"train","round":0,"sent":[1]}\n'),
    "tag": ("config.yaml", lambda _: "a: !!python/object/apply:os.system [exit]\n"),
    "no mapping": ("config.yaml", lambda _: "- 1\n"),
    "true for a phase": ("ledger.jsonl", lambda text: text.replace('"train"', "true")),
    "not there": ("config.yaml", None),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_message_that_names_the_file(
    name: str, folders: list[Path], monkeypatch, capsys
) -> None:
    file, change = DAMAGE[name]
    path = folders[1] / file
    text = path.read_text()
    path.unlink()
    if change is not None:
        new = change(text)
        assert new != text
        path.write_bytes(new if isinstance(new, bytes) else new.encode())
    assert show(monkeypatch, folders[1]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sheafnet: ")
    assert str(folders[1]) in captured.err
    assert "run schema" in captured.err or file in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"schema": 1', '"schema": 99'),
        ('"rounds": 6', '"rounds": "six"'),
        ('"few_shot_accuracy"', '"few"'),
        ('"5": ', '"05": '),
    ],
)
def test_a_damaged_summary_is_named(
    old: str, new: str, folders: list[Path], monkeypatch, capsys
) -> None:
    path = folders[0] / "summary.json"
    text = path.read_text()
    assert old in text
    at = text.rindex(old)
    path.write_text(text[:at] + new + text[at + len(old) :])
    assert show(monkeypatch, folders[0]) == 2
    assert f"sheafnet: {path}: " in capsys.readouterr().err


def test_a_folder_without_run_json_is_no_run(folders: list[Path], monkeypatch, capsys) -> None:
    (folders[0] / "run.json").unlink()
    assert show(monkeypatch, folders[0]) == 2
    assert "is not a run directory (it has no run.json)" in capsys.readouterr().err


def test_what_a_stranger_wrote_is_neither_markup_nor_codes_of_the_terminal(
    folders: list[Path], monkeypatch, capsys
) -> None:
    path = folders[0] / "summary.json"
    summary = json.loads(path.read_text())
    summary["topology"] = "[/red]\x1b]0;owned\x07\x9b2J\ud800"
    summary["missing"]["estimators"]["[bold]\x1b[2J"] = {"nmse": 1.0, "accuracy": None}
    path.write_text(json.dumps(summary))
    about = json.loads((folders[0] / "run.json").read_text())
    about |= {"status": "failed", "error": "\x1b[31m[link=x]", "left_out": ["[/]\x08"]}
    (folders[0] / "run.json").write_text(json.dumps(about))
    assert show(monkeypatch, folders[0]) == 0
    shown = capsys.readouterr().out
    assert "[/red]�]0;owned�2J�: 4 nodes" in shown
    assert "[bold]�[2J" in shown
    assert "Run failed: �[31m[link=x]" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)


def test_showing_a_run_imports_nothing_that_its_configuration_names(
    folders: list[Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "strangers_module.py").write_text("raise SystemExit('executed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = folders[1] / "config.yaml"
    config.write_text(config.read_text().replace("imports: []", "imports: [strangers_module]"))
    assert "strangers_module" in config.read_text()
    assert show(monkeypatch, folders[1]) == 0
    assert "not finished" in capsys.readouterr().out
    assert "strangers_module" not in sys.modules
