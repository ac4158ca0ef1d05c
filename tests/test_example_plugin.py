"""The package in examples/plugin: installed, named both ways, in one process and on actors."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sheafnet.document import read
from sheafnet.errors import PluginError
from sheafnet.plugins import Code
from tests.conftest import artifacts
from tests.runtime.test_cli import call

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "plugin"
MODULE = EXAMPLE / "sheafnet_sounds.py"
SMALL = (
    *("--set", "training.rounds=3", "--set", "inference.rounds=2"),
    *("--set", "evaluation.support=200", "--set", "evaluation.few_shot=[1]"),
)
BY_PATH = (
    *("--set", "dataset=sheafnet_sounds:SOUNDS"),
    *("--set", "defaults.node.encoder=sheafnet_sounds:FOURIER"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed the package, without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ("--no-index", "--no-build-isolation", "--no-deps", "--target", folder / "site")
    subprocess.run([*pip, *offline, folder / "source"], check=True)
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    monkeypatch.setattr("sheafnet.plugins._FOUND", {})
    monkeypatch.delitem(sys.modules, "sheafnet_sounds", raising=False)
    yield
    sys.modules.pop("sheafnet_sounds", None)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the example's network by the command line; returns what has to be the same."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        network = ("--topology", EXAMPLE / "sounds.yaml", "--run-dir", tmp_path / name)
        assert call(monkeypatch, "simulate", *network, *SMALL, *arguments) == 0
        found = artifacts(tmp_path / name)
        del found["summary"]["dataset"]  # as it was named
        return found

    return run


def test_it_is_short() -> None:
    assert len(MODULE.read_text(encoding="utf-8").splitlines()) < 60
    values, _ = read(EXAMPLE / "sounds.yaml")
    assert (values["dataset"], values["defaults"]["node"]["encoder"]) == ("sounds", "fourier")


@pytest.mark.usefixtures("installed")
def test_it_is_listed_and_loaded_only_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "validate", "ring") == 0
    assert "sheafnet_sounds" not in sys.modules
    capsys.readouterr()
    assert call(monkeypatch, "datasets", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sounds"]["distribution"] == "sheafnet-sounds 0.1"
    assert told["sounds"]["options"] == {"tones": 8}
    assert told["synthetic"]["distribution"].startswith("sheafnet ")
    assert call(monkeypatch, "datasets") == 0
    assert "(sheafnet-sounds 0.1)" in capsys.readouterr().out
    wrong = ("simulate", "--topology", EXAMPLE / "sounds.yaml", "--set", "dataset=sound")
    assert call(monkeypatch, *wrong) == 2
    assert "no such data set. Did you mean 'sounds'?" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.usefixtures("installed")
def test_named_either_way_and_run_anywhere_it_gives_the_same(simulated) -> None:
    by_name = simulated("by-name", "--backend", "local")
    assert by_name["summary"]["missing"]["missing"] > 0
    assert by_name == simulated("by-path", "--backend", "local", *BY_PATH)
    assert by_name == simulated("actors", "--backend", "ray", "--nodes-per-actor", "2")


@pytest.mark.ray
def test_the_error_of_a_plugin_comes_whole_through_ray() -> None:
    import ray

    from sheafnet.runtime.ray_cluster import start_private, stop_private

    def fail() -> None:
        code = Code("encoder", "mine", None, "own_module:E")
        with code.guard("its forward", "node a"):
            raise MemoryError(lambda: "an argument that no pickle takes")

    start_private()
    try:
        with pytest.raises(ray.exceptions.RayTaskError) as failed:
            ray.get(ray.remote(fail).options(num_cpus=0).remote())
    finally:
        stop_private()
    assert isinstance(failed.value.cause, PluginError)
    assert "the encoder 'mine' (own_module:E) failed in its forward" in str(failed.value.cause)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("installed")
def test_what_fails_on_an_actor_says_whose_code_it_is(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where nodes live is it found out: the command line builds no encoder."""
    broken = site / "broken_forward.py"
    broken.write_text(
        "from sheafnet import EncoderKind, Model\nfrom sheafnet_sounds import build_fourier\n"
        "def build(shape, dim, options):\n"
        "    module = build_fourier(shape, dim, options)\n"
        "    module.register_forward_hook(lambda *_: 1 / 0)\n"
        "    return module\n"
        "E = EncoderKind('e', Model, build, lambda shape: None)\n"
    )
    network = ("--topology", EXAMPLE / "sounds.yaml", "--run-dir", tmp_path / "run", *SMALL)
    wrong = ("--set", "defaults.node.encoder=broken_forward:E")
    assert call(monkeypatch, "simulate", *network, *wrong) == 6
    words = capsys.readouterr().err
    message = words.strip().splitlines()[-1]
    assert "train round 0: the encoder 'broken_forward:E' failed in its forward" in message
    assert f"ZeroDivisionError: division by zero ({broken}:5, in <lambda>)" in message
    assert "Traceback" not in words
