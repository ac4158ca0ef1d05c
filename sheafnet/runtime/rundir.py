"""The run directory: what a run leaves behind, readable at every moment.

    config.yaml            the resolved configuration
    run.json               status, seed, versions, times, and what went wrong
    rounds.jsonl           a line per round, appended as it goes
    ledger.jsonl           a line per directed edge and round, appended as it goes
    summary.json           the figures, once the run is finished
    parameters/*.safetensors   every node's final parameters

The program never overwrites or deletes any of it. Whole files are written aside and renamed, so
that a crash leaves the old one or the new one; a torn last line of a .jsonl is skipped on reading.
"""

import datetime
import importlib.metadata
import itertools
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from sheafnet.config import Config
from sheafnet.errors import RunDirectoryError

SCHEMA = 1
Status = Literal["running", "finished", "interrupted", "diverged", "failed"]
_PACKAGES = ("sheafnet", "ray", "torch", "numpy", "pyzmq", "msgpack", "pydantic", "networkx")


class RunDirectory:
    """A folder that belongs to one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, config: Config, path: str | Path | None = None) -> "RunDirectory":
        """Make the folder of a new run and write what is known before it starts.

        Args:
            config: of the run.
            path: the folder; by default ``<run.directory>/<name>-<date>-<time>``.

        Raises:
            RunDirectoryError: it exists and is not empty, or cannot be written.
        """
        folder = Path(path) if path is not None else Path(config.run.directory)
        try:
            folder = _claim(folder) if path is not None else _unused(folder, config.name)
            directory = cls(folder)
            text = yaml.safe_dump(
                config.model_dump(mode="json", exclude_none=True), sort_keys=False
            )
            _write(folder / "config.yaml", text)
            directory._write_about(
                {
                    "schema": SCHEMA,
                    "status": "running",
                    "seed": config.run.seed,
                    "started": _now(),
                    "versions": versions(),
                }
            )
            for name in ("rounds.jsonl", "ledger.jsonl"):
                (folder / name).touch()
        except OSError as error:
            raise RunDirectoryError(
                f"{folder}: cannot be written: {error.strerror or error}. "
                "Choose another --run-dir or free the disk."
            ) from None
        return directory

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """The run at `path`, finished or broken off.

        Raises:
            RunDirectoryError: there is no run, or one of another version.
        """
        folder = Path(path)
        if not (folder / "run.json").is_file():
            raise RunDirectoryError(f"{folder}: is not a run directory (it has no run.json).")
        directory = cls(folder)
        found = directory.about().get("schema")
        if found != SCHEMA:
            raise RunDirectoryError(
                f"{folder}: was written in run schema {found}; this sheafnet reads {SCHEMA}."
            )
        return directory

    def about(self) -> dict[str, Any]:
        """The contents of run.json."""
        return self._json("run.json")

    def config(self) -> dict[str, Any]:
        """The contents of config.yaml."""
        path = self.path / "config.yaml"
        try:
            return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error}") from None

    def summary(self) -> dict[str, Any] | None:
        """The contents of summary.json; None where the run did not finish."""
        return self._json("summary.json") if (self.path / "summary.json").exists() else None

    def mark(self, status: Status, **facts: Any) -> None:
        """Set the status in run.json and add `facts`."""
        values = self.about() | {"status": status, **facts}
        if status != "running":
            values["ended"] = _now()
        self._write_about(values)

    def append(self, name: Literal["rounds", "ledger"], lines: Iterable[Mapping[str, Any]]) -> None:
        """Append `lines` to rounds.jsonl or ledger.jsonl.

        Raises:
            RunDirectoryError: the disk is full or the folder is gone.
        """
        text = "".join(
            json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines
        )
        path = self.path / f"{name}.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise RunDirectoryError(f"{path}: {error.strerror}; what stands there stays.") from None

    def lines(self, name: Literal["rounds", "ledger"]) -> Iterator[dict[str, Any]]:
        """The lines of rounds.jsonl or ledger.jsonl; a torn last one is left out."""
        path = self.path / f"{name}.jsonl"
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise RunDirectoryError(f"{path}: cannot be read: {error}") from None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        _write(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def write_parameters(
        self, node: str, parameters: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """Write a node's parameters to parameters/<node>.safetensors."""
        from safetensors.numpy import save

        folder = self.path / "parameters"
        folder.mkdir(exist_ok=True)
        contiguous = {name: np.ascontiguousarray(values) for name, values in parameters.items()}
        _write(folder / f"{node}.safetensors", save(contiguous))

    def _write_about(self, values: Mapping[str, Any]) -> None:
        _write(self.path / "run.json", json.dumps(values, indent=2) + "\n")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunDirectoryError(f"{self.path / name}: cannot be read: {error}") from None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _claim(folder: Path) -> Path:
    """Make `folder` this run's own; of two runs that try, one gets it."""
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    try:
        if not taken:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").open("x").close()
            return folder
    except FileExistsError:
        pass
    raise RunDirectoryError(
        f"{folder}: exists already; sheafnet never overwrites a run. Choose another --run-dir."
    )


def _unused(base: Path, name: str) -> Path:
    """A new folder below `base`, named after the run and the time."""
    base.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = base / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise AssertionError("there is always another number")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write(path: Path, content: str | bytes) -> None:
    """Replace `path` as a whole."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}.") from None
