"""`sheafnet bench` as a user meets it."""

import json
from pathlib import Path

import pytest

from tests.runtime.test_cli import call

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "frames,rouns"], "--only rouns: no such part. Did you mean 'rounds'?"),
        (["--only", ""], "--only : no such part."),
        (["--show", "x.json", "--quick"], "--show prints what was measured; drop --only, --quick"),
        (["--show", "x.json"], "x.json: cannot be read: No such file or directory."),
        (["--against", "x.json"], "x.json: cannot be read: No such file or directory."),
        (["--output", "no/x.json"], "no/x.json: cannot be written: there is no folder no."),
    ],
)
def test_a_wrong_call_is_one_message(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Capture,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "bench", *arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"sheafnet: {words}")
    assert errors.count("\n") == 1


def test_frames_are_measured_kept_shown_and_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "new.json"
    words = ("bench", "--only", "frames", "--quick")
    assert call(monkeypatch, *words, "-o", path, "--format", "json") == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert json.loads(output) == json.loads(path.read_text())
    figures = json.loads(output)["figures"]
    assert [figure["name"] for figure in figures] == [
        f"{kib} KiB, {what}" for what in ("encode", "decode") for kib in (1, 16, 256)
    ]
    ratio = figures[0]["ratio"]["median"]
    assert call(monkeypatch, "bench", "--show", path, "--against", path) == 0
    output, _ = capsys.readouterr()
    assert "Frames: encoded and decoded in one process" in output
    assert "QUICK" in output
    assert max(map(len, output.splitlines())) <= 80
    assert call(monkeypatch, "bench", "--show", path, "--against", path, "--format=markdown") == 0
    output, _ = capsys.readouterr()
    row = next(line for line in output.splitlines() if line.startswith("| 1 KiB, encode |"))
    now, before = row.strip("| ").split(" | ")[-2:]
    assert now == before
    assert float(now) == pytest.approx(ratio, abs=0.06)
    assert call(monkeypatch, *words, "-o", path) == 2
    assert "exists already" in capsys.readouterr().err
