"""What is built from the checkout works by itself, wherever it is unpacked."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sheafnet.version import __version__

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICES.md")
BUILD = "import sys; from setuptools import build_meta as b; print(b.{}(sys.argv[1]))"


def built(what: str, source: Path, folder: Path) -> Path:
    """What setuptools makes of `source`, without a network."""
    command = [sys.executable, "-c", BUILD.format(what), str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return folder / done.stdout.split()[-1]


def names(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An sdist of the checkout, and a wheel of that sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for part in ("sheafnet", "topologies"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, source / part, ignore=ignored)
    sdist = built("build_sdist", source, folder)
    with tarfile.open(sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        archive.extractall(folder / "sdist", **safely)
    (unpacked,) = (folder / "sdist").iterdir()
    return sdist, built("build_wheel", unpacked, folder)


def test_the_wheel_has_all_files_of_the_package(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    assert archives[1].name == f"sheafnet-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(archives[1]) as wheel:
        wheel.extractall(tmp_path)
    here = {name for name in names(ROOT / "sheafnet") if "__pycache__" not in name}
    topologies = {f"topologies/{path.name}" for path in (ROOT / "topologies").glob("*.yaml")}
    assert names(tmp_path / "sheafnet") == here | topologies
    assert not (tmp_path / "tests").exists()


def test_it_works_from_any_folder(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """With the dependencies of this environment, and no checkout in sight."""
    with zipfile.ZipFile(archives[1]) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def sheafnet(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "sheafnet", *arguments],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-P", "-c", "import sheafnet; print(sheafnet.__file__)"]
    found = subprocess.run(
        where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(tmp_path / "site"))
    assert sheafnet("--version") == f"sheafnet {__version__}\n"
    small = ("--backend", "local", "--rounds", "2", "--set", "inference.rounds=1")
    fast = ("--set", "evaluation={gallery: 50, support: 50, probe_steps: 5}")
    assert "Run finished" in sheafnet(
        "simulate", "--topology", "ring", "--run-dir", "run", *small, *fast
    )
    assert "report.html" in sheafnet("report", "run")
    assert (tmp_path / "elsewhere" / "report.html").stat().st_size > 100_000


def test_an_editable_install_reads_the_topologies_in_place() -> None:
    """No copy that could fall behind lies in the package of the checkout."""
    assert not (ROOT / "sheafnet" / "topologies").exists()


def test_every_pinned_version_allows_the_oldest_python() -> None:
    """That of 3.11.0 itself: a pin that asked for 3.11.5 kept Debian's 3.11.2 from installing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (oldest,) = SpecifierSet(project["requires-python"])
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]]
    asked: dict[str, str | None] = {}
    for pin in pins:
        try:
            about = metadata(pin.name)
        except PackageNotFoundError:
            continue  # of another platform
        if pin.specifier.contains(about["Version"], prereleases=True):
            asked[pin.name] = about["Requires-Python"]
    assert len(asked) > 0.9 * len(pins)
    assert str(oldest) == ">=3.11"
    refused = {name: a for name, a in asked.items() if not SpecifierSet(a or "").contains("3.11.0")}
    assert refused == {}
