"""The run directory: what a run leaves behind, readable at every moment.

    config.yaml            the resolved configuration
    run.json               status, seed, versions, times, and what went wrong
    rounds.jsonl           a line per round, appended as it goes
    ledger.jsonl           a line per directed edge and round, appended as it goes
    summary.json           the figures, once the run is finished
    parameters/*.safetensors   every node's final parameters
    checkpoints/           until the run is finished: see `sheafnet.runtime.checkpoint`
    lock, coordinator.lock who writes here

No run overwrites another. Whole files are written aside and renamed, so that a crash leaves the
old one or the new one; a torn last line of a .jsonl is skipped on reading. Whoever goes on from a
checkpoint first cuts off the lines that were appended after it, and appends the same again.
"""

import datetime
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import psutil
import yaml

from sheafnet import document
from sheafnet.config import Config, load_config
from sheafnet.errors import ConfigError, RunDirectoryError
from sheafnet.runtime.files import make_folder, replace_file
from sheafnet.runtime.foreign import distributions
from sheafnet.runtime.summary import Pilot
from sheafnet.validation import nearest
from sheafnet.version import __version__

SCHEMA = 1
_LOGS = ("rounds", "ledger")
_FENCE_S = 10.0
"""For the coordinator of a run that was broken off to end, before another one takes its place."""
_FREE = tuple(
    f"run.{key}"
    for key in (
        "address",
        "backend",
        "checkpoint_every",
        "deadline_s",
        "nodes_per_actor",
        "ports",
        "restarts",
        "transport",
    )
)
"""Keys that may differ when a run goes on: where and how it runs, not what it computes or keeps."""
PILOT = "pilot"
"""The run directory of a run's pilot, in its own."""
Status = Literal["running", "finished", "interrupted", "diverged", "failed"]
_KINDS = {
    "status": str,
    "versions": dict,
    "incarnation": int,
    "recoveries": list,
    "resumed": list,
    "pilot": dict,
}
"""What run.json has where it has it."""
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
            replace_file(folder / "config.yaml", _yaml(config))
            directory._write_about(
                {
                    "schema": SCHEMA,
                    "status": "running",
                    "seed": config.run.seed,
                    "config": directory._config_digest(),
                    "started": _now(),
                    "versions": distributions(config) | versions(),
                }
            )
            for name in _LOGS:
                directory._log(name).touch()
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
        try:
            there = (folder / "run.json").is_file()
        except OSError as error:
            raise RunDirectoryError(f"{folder}: cannot be read: {error.strerror}.") from None
        if not there:
            raise RunDirectoryError(f"{folder}: is not a run directory (it has no run.json).")
        directory = cls(folder)
        about = directory.about()
        found = about.get("schema")
        if found != SCHEMA:
            raise RunDirectoryError(
                f"{folder}: was written in run schema {found}; this sheafnet reads {SCHEMA}."
            )
        if about.get("status") not in get_args(Status):
            raise RunDirectoryError(
                f"{folder / 'run.json'}: its status is none of {', '.join(get_args(Status))}."
            )
        return directory

    def about(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            RunDirectoryError: it cannot be read, or what a run goes on from is of another kind.
        """
        found = self._json("run.json")
        for key, kind in _KINDS.items():
            if key in found and type(found[key]) is not kind:
                raise RunDirectoryError(
                    f"{self.path / 'run.json'}: its {key} is not what a run writes there; it was "
                    "damaged or changed."
                )
        return found

    def config(self) -> dict[str, Any]:
        """The contents of config.yaml."""
        try:
            return document.read(self.path / "config.yaml")[0]
        except ConfigError as error:  # names the file
            raise RunDirectoryError(str(error)) from None

    def resumable(self, overrides: Sequence[str] = ()) -> Config:
        """The configuration of a run that can go on.

        Args:
            overrides: ``run.KEY=VALUE`` of keys that change no result.

        Raises:
            RunDirectoryError: the run is finished, of another version of sheafnet or of a plug-in,
                or its configuration was changed.
            ConfigError: an override would change the result, or is wrong.
        """
        about = self.about()
        if about.get("status") == "finished":
            raise RunDirectoryError(f"{self.path}: is finished; there is nothing to go on with.")
        wrote = about.get("versions", {}).get("sheafnet")
        if wrote != __version__:
            raise RunDirectoryError(
                f"{self.path}: was begun by sheafnet {wrote}; this is {__version__}, which may "
                "compute something else. Go on with the version that began it."
            )
        if self._config_digest() not in (about.get("config"), about.get("settled")):
            raise RunDirectoryError(
                f"{self.path / 'config.yaml'}: was changed since the run began. A run goes on as "
                "it began; start a new one for another configuration."
            )
        for override in overrides:
            key = override.partition("=")[0].strip()
            if key not in _FREE:
                raise ConfigError(
                    f"--set {override}: a run goes on as it began. {nearest(key, _FREE)}"
                )
        given = dict(override.split("=", 1) for override in overrides if "=" in override)
        if given.get("run.backend") == "local":  # which no cluster's address and ports are for
            overrides = ["run.address=null", "run.ports=null", *overrides]
        config = load_config(self.path / "config.yaml", overrides)
        self._refuse_other_plugins(about.get("versions", {}), distributions(config))
        return config

    def _refuse_other_plugins(self, wrote: Mapping[str, str], here: Mapping[str, str]) -> None:
        """Refuse code of others in another version than began the run."""
        for name in sorted(wrote.keys() - {"python", *_PACKAGES} | here.keys()):
            then, now = (found.get(name, "of no version") for found in (wrote, here))
            if then != now:
                raise RunDirectoryError(
                    f"{self.path}: was begun with the plug-in {name} {then}; here it is {now}, "
                    "which may compute something else. Go on with the version that began it."
                )

    def mark_resumed(self, config: Config, done: int, refused: Sequence[str]) -> None:
        """Note that the run of `config` goes on from the checkpoint after `done` stretches."""
        about = self.about()
        note = {
            "at": _now(),
            "stretches_done": done,
            "refused": list(refused),
            "versions": distributions(config) | versions(),
        }
        self.mark(
            "running",
            incarnation=about.get("incarnation", 0) + 1,
            resumed=[*about.get("resumed", []), note],
            error=None,
            ended=None,
        )

    def settle(self, config: Config, pilot: Pilot) -> None:
        """Put `config`, with the d_ij that `pilot` chose, in the place of what the run began with.

        Killed at any moment, the run goes on from either.
        """
        text = _yaml(config)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.mark("running", settled=digest, pilot=pilot.model_dump(mode="json"))
        replace_file(self.path / "config.yaml", text)

    def _config_digest(self) -> str:
        try:
            return hashlib.sha256((self.path / "config.yaml").read_bytes()).hexdigest()
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path / 'config.yaml'}: cannot be read: {error.strerror}."
            ) from None

    def summary(self) -> dict[str, Any] | None:
        """The contents of summary.json; None where the run did not finish."""
        return self._json("summary.json") if (self.path / "summary.json").exists() else None

    def mark(self, status: Status, **facts: Any) -> None:
        """Set the status in run.json and add `facts`; a fact that is None is taken out."""
        values = self.about() | {"status": status, **facts}
        if status != "running":
            values["ended"] = _now()
        self._write_about({key: value for key, value in values.items() if value is not None})

    def append(self, name: Literal["rounds", "ledger"], lines: Iterable[Mapping[str, Any]]) -> None:
        """Append `lines` to rounds.jsonl or ledger.jsonl.

        Raises:
            RunDirectoryError: the disk is full or the folder is gone.
        """
        text = "".join(
            json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines
        )
        path = self._log(name)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise RunDirectoryError(f"{path}: {error.strerror}; what stands there stays.") from None

    def lengths(self) -> dict[str, int]:
        """Bytes of rounds.jsonl and ledger.jsonl, all of them on the disk: a power cut keeps them.

        Raises:
            RunDirectoryError: one is gone, or the disk is full.
        """
        return {name: self._flushed(self._log(name)) for name in _LOGS}

    def _flushed(self, path: Path) -> int:
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_size
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}.") from None

    def cut(self, lengths: Mapping[str, int]) -> None:
        """Cut rounds.jsonl and ledger.jsonl off at what `lengths` returned before.

        Raises:
            RunDirectoryError: one is shorter than it was, or cannot be written.
        """
        for name, length in lengths.items():
            path = self._log(name)
            try:
                if path.stat().st_size < length:
                    raise RunDirectoryError(
                        f"{path}: lacks lines that were there at the checkpoint; it was changed "
                        "since. The run cannot go on."
                    )
                os.truncate(path, length)
            except OSError as error:
                raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}.") from None

    @contextmanager
    def hold(self, name: str = "lock", within_s: float = 0.0) -> Iterator[None]:
        """Be the only one who writes here; the lock ends with this process, however it ends.

        Args:
            name: of the lock file.
            within_s: how long to wait for who has it.

        Raises:
            RunDirectoryError: naming who has it.
        """
        path = self.path / name
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}.") from None
        with file:
            self._lock(file, within_s)
            with suppress(OSError):  # a full disk: it holds without a name in it
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()} since {_now()}\n".encode())
            yield
            file.truncate(0)

    def held(self) -> bool:
        """Whether somebody writes here, as far as that can be told from this machine.

        Takes no lock, which could keep out who is about to.
        """
        try:
            _, pid, _, host, *_ = (self.path / "lock").read_text(errors="replace").split()
            return host != platform.node() or psutil.pid_exists(int(pid))
        except (OSError, ValueError):
            return False

    def _lock(self, file: FileIO, within_s: float) -> None:
        end = time.monotonic() + within_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    file.seek(0)
                    who = file.read().decode(errors="replace").strip() or "another process"
                    raise RunDirectoryError(f"{self.path}: is in use by {who}.") from None
                time.sleep(0.05)
            except OSError as error:
                raise RunDirectoryError(
                    f"{self.path}: cannot be locked: {error.strerror}. Its file system has to "
                    "have locks."
                ) from None

    def hold_books(self) -> AbstractContextManager[None]:
        """Be its only coordinator; waits for that of a run that was broken off to end."""
        return self.hold("coordinator.lock", _FENCE_S)

    def lines(self, name: Literal["rounds", "ledger"]) -> Iterator[dict[str, Any]]:
        """The lines of rounds.jsonl or ledger.jsonl; a torn last one is left out."""
        path = self._log(name)
        if not path.exists():
            return
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        return
                    yield json_object(line, f"{path}:{number}")
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}.") from None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        replace_file(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def write_parameters(
        self, node: str, parameters: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """Write a node's parameters to parameters/<node>.safetensors."""
        from safetensors.numpy import save

        folder = self.path / "parameters"
        make_folder(folder)
        contiguous = {name: np.ascontiguousarray(values) for name, values in parameters.items()}
        replace_file(folder / f"{node}.safetensors", save(contiguous))

    def parameters(self, node: str) -> dict[str, npt.NDArray[np.float32]]:
        """A node's final parameters by name.

        Raises:
            RunDirectoryError: they are not there, as of a run that is not finished or was told not
                to keep them, or they are spoiled.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.path / "parameters" / f"{node}.safetensors"
        try:
            found: dict[str, npt.NDArray[np.float32]] = load(path.read_bytes())
            return found
        except FileNotFoundError:
            raise RunDirectoryError(
                f"{path}: is not there. Parameters are kept once a run is finished (`sheafnet "
                f"resume {self.path}` goes on with one that is not), unless run.directory_mb left "
                "them out."
            ) from None
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}.") from None
        except SafetensorError as error:
            raise RunDirectoryError(f"{path}: is no file of parameters ({error}).") from None

    def _log(self, name: str) -> Path:
        return self.path / f"{name}.jsonl"

    def _write_about(self, values: Mapping[str, Any]) -> None:
        replace_file(self.path / "run.json", json.dumps(values, indent=2) + "\n")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}.") from None
        return json_object(content, str(path))


def _yaml(config: Config) -> str:
    text: str = yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)
    return text


def json_object(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `content`.

    Raises:
        RunDirectoryError: there is none; names `where`.
    """
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{where}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RunDirectoryError(f"{where}: cannot be read: it holds no JSON object.")
    return found


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
    try:
        if not _taken(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").open("x").close()
            return folder
    except FileExistsError:
        pass
    raise _refusal(folder)


def _taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _refusal(folder: Path) -> RunDirectoryError:
    return RunDirectoryError(
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
