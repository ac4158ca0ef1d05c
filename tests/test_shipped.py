"""Topologies by name, from any folder, in a checkout and in an installation."""

from pathlib import Path

import pytest

import sheafnet
from sheafnet import shipped
from sheafnet.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_every_topology_has_a_name() -> None:
    names = {path.stem for path in (ROOT / "topologies").glob("*.yaml")}
    assert set(shipped.shipped()) == names
    assert "ring" in names


def test_a_name_is_the_shipped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = sheafnet.load_config("ring", ["training.rounds=7"])
    assert config.training.rounds == 7
    there = sheafnet.load_config(ROOT / "topologies" / "ring.yaml", ["training.rounds=7"])
    assert config == there


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "topologies" / "ring.yaml").read_text()
    Path("ring").write_text(text.replace("name: ring", "name: my-own"))
    assert sheafnet.load_config("ring").name == "my-own"


def test_a_folder_of_that_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring").mkdir()
    assert sheafnet.load_config("ring").name == "ring"
    with pytest.raises(ConfigError, match="no topology of that name"):
        sheafnet.load_config("x" * 300)


def test_an_installation_has_them_beside_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies" / "other.yaml").touch()
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path)
    assert list(shipped.shipped()) == ["other"]
    assert shipped.find("other") == tmp_path / "topologies" / "other.yaml"


@pytest.mark.parametrize("name", ["rinf", "nothing-like-it"])
def test_no_such_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no topology of that name is shipped") as error:
        sheafnet.load_config(name)
    assert ("ring" in str(error.value)) is True  # the nearest, or all of them
    with pytest.raises(ConfigError, match=r"rinf\.yaml"):
        sheafnet.load_config("rinf.yaml")
