"""The topologies that come with sheafnet, by name: ``ring`` for topologies/ring.yaml."""

from contextlib import suppress
from pathlib import Path

from sheafnet.errors import ConfigError
from sheafnet.validation import nearest

_PACKAGE = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """By name, in an installation and in a checkout alike."""
    folder = _PACKAGE / "topologies"
    if not folder.is_dir():
        folder = _PACKAGE.parent / "topologies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(path: str | Path) -> Path:
    """The file at `path`, or else the shipped topology of that name.

    Raises:
        ConfigError: a name is none of theirs, and no file.
    """
    path = Path(path)
    if path.suffix or len(path.parts) != 1:
        return path
    with suppress(OSError):
        if path.is_file():
            return path
    known = shipped()
    if path.name not in known:
        raise ConfigError(
            f"{path}: there is no such file, and no topology of that name is shipped. "
            f"{nearest(path.name, list(known))}"
        )
    return known[path.name]
