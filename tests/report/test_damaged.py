"""Damaged run directories: whoever looks at them gets something, or a word with the file."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from sheafnet.errors import ConfigError, RunDirectoryError, StudyError
from sheafnet.report.export import export
from sheafnet.report.live import Watched
from sheafnet.report.page import write_report
from sheafnet.runtime.loaded import load_run
from tests.fuzz import runs as fuzzed


def named(error: Exception, run: Path) -> str:
    assert str(run) in str(error), f"no file is named: {error}"
    return "refused"


def watched(run: Path) -> str:
    text = io.StringIO()
    try:
        view = Watched(run)
        view.look()
    except (RunDirectoryError, ConfigError) as error:
        return named(error, run)
    Console(file=text, width=100).print(view.view(100, 40))
    assert "\x1b" not in text.getvalue()
    return "shown"


def exported(run: Path) -> str:
    out = run.parent / "exported"
    try:
        for target in ("csv", "parquet", "tensorboard"):
            export(load_run(run), out / target, target)
    except RunDirectoryError as error:
        return named(error, run)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return "written"


def reported(run: Path) -> str:
    out = run.parent / "report.html"
    try:
        write_report([run], out)
    except (RunDirectoryError, ConfigError) as error:
        assert not out.exists()
        return named(error, run)
    out.read_text(encoding="utf-8")
    out.unlink()
    return "written"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return fuzzed.make_runs(tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize(
    ("read", "inputs"),
    [(watched, 400), (exported, 150), (reported, 12)],
    ids=["watched", "exported", "reported"],
)
def test_damaged_runs_are_shown_or_refused(made: list[Path], read, inputs: int) -> None:
    tally = fuzzed.fuzz(made, inputs, seed=3, read=read)
    assert tally.total() > inputs / 2
    assert any(key.endswith("refused") for key in tally)
    assert any(not key.endswith("refused") for key in tally)


def test_nothing_that_a_run_names_is_imported(made: list[Path], tmp_path: Path) -> None:
    """A module of a stranger's that would tell."""
    run = tmp_path / "run"
    shutil.copytree(made[0], run)
    config = run / "config.yaml"
    text = config.read_text()
    assert "\nimports: []\n" in text
    config.write_text(text.replace("\nimports: []\n", "\nimports: [module_of_a_stranger]\n"))
    assert reported(run) == "written"
    assert watched(run) == "shown"


def test_a_device_is_no_place_for_a_page(made: list[Path]) -> None:
    before = Path("/dev/null").stat().st_rdev
    with pytest.raises(StudyError, match="is no file"):
        write_report([made[0]], "/dev/null")
    assert Path("/dev/null").stat().st_rdev == before
