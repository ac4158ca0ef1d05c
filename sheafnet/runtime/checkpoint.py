"""Checkpoints of a run: what all nodes have learned at the end of a stretch, and the books then.

    checkpoints/000012/host-0.safetensors   the state of some nodes, as ``<node index>/<array>``
    checkpoints/000012/manifest             which files, their SHA-256, and the coordinator's books,
                                            as JSON; the line before it is its own SHA-256

The number counts the stretches that are done. Every host writes its own file, into
``000012.partial``; the coordinator adds the manifest and renames the folder, so that there is a
whole checkpoint or none. The newest two are kept. On reading, everything is checked against its
SHA-256, and a checkpoint of which a single bit is wrong is refused for the one before it. Nothing
in it executes anything when it is loaded. No torch: the coordinator reads and writes here too.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sheafnet.errors import RunDirectoryError
from sheafnet.runtime.files import make_folder, replace_file

SCHEMA = 1
KEPT = 2
_MANIFEST = "manifest"

State = Mapping[str, npt.NDArray[Any]]
"""What a node has learned: arrays by name."""
Books = dict[str, Any]
"""What the coordinator knows, as JSON."""


@dataclass(frozen=True)
class Part:
    """The file of one host."""

    name: str
    sha256: str
    size: int
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been committed."""

    path: Path
    number: int
    """Stretches that are done."""
    parts: tuple[Part, ...]

    def states(self, nodes: Iterable[int]) -> dict[int, dict[str, npt.NDArray[Any]]]:
        """The state of each of `nodes`, whichever host wrote it.

        Raises:
            RunDirectoryError: a file is not what was written.
        """
        from safetensors.numpy import load

        wanted = set(nodes)
        found: dict[int, dict[str, npt.NDArray[Any]]] = {node: {} for node in wanted}
        for part in self.parts:
            if wanted.isdisjoint(part.nodes):
                continue
            for key, array in load(self._checked(part)).items():
                node, _, name = key.partition("/")
                if int(node) in wanted:
                    found[int(node)][name] = array
        return found

    def books(self) -> Books:
        """What the coordinator knew.

        Raises:
            RunDirectoryError: the manifest is not what was written.
        """
        books: Books = _manifest(self.path)["books"]
        return books

    def check(self) -> None:
        """Read all of it.

        Raises:
            RunDirectoryError: a file is not what was written.
        """
        for part in self.parts:
            self._checked(part)

    def _checked(self, part: Part) -> bytes:
        path = self.path / part.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}.") from None
        if len(content) != part.size or hashlib.sha256(content).hexdigest() != part.sha256:
            raise RunDirectoryError(f"{path}: is not what was written (its SHA-256 differs).")
        return content


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: its directory.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "checkpoints"

    @property
    def reachable(self) -> bool:
        """Whether the run directory is there on this machine, and may be written."""
        run = self._folder.parent
        return os.path.isfile(run / "run.json") and os.access(run, os.W_OK)

    def write_part(self, number: int, host: int, states: Mapping[int, State]) -> Part:
        """Write the states of the nodes of one host, by node; for the host itself.

        Raises:
            RunDirectoryError: the disk is full, or the folder cannot be reached from here.
        """
        from safetensors.numpy import save

        content = save(
            {
                f"{node}/{name}": np.asarray(array, order="C")
                for node, state in states.items()
                for name, array in state.items()
            }
        )
        folder = self._partial(number)
        name = f"host-{host}.safetensors"
        make_folder(folder)
        replace_file(folder / name, content)
        digest = hashlib.sha256(content).hexdigest()
        return Part(name, digest, len(content), tuple(sorted(states)))

    def commit(self, number: int, parts: Sequence[Part], books: Books) -> None:
        """Make the parts of all hosts a checkpoint, and let go of those before the last two.

        One with a higher number was refused, or the run would not be here again: it goes too.

        Raises:
            RunDirectoryError: the disk is full or the folder is gone.
        """
        body = {
            "schema": SCHEMA,
            "number": number,
            "parts": [asdict(part) for part in parts],
            "books": books,
        }
        partial, whole = self._partial(number), self._folder / f"{number:06d}"
        text = json.dumps(body)
        replace_file(partial / _MANIFEST, f"{_digest(text)}\n{text}\n")
        try:
            shutil.rmtree(whole, ignore_errors=True)
            partial.rename(whole)
        except OSError as error:
            raise RunDirectoryError(f"{whole}: cannot be written: {error.strerror}.") from None
        found = self._committed()
        refused = [path for path in found if int(path.name) > number]
        for old in refused + found[len(refused) + KEPT :]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, and why newer ones are refused."""
        refused: list[str] = []
        for folder in self._committed():
            try:
                body = _manifest(folder)
                parts = tuple(
                    Part(part["name"], part["sha256"], part["size"], tuple(part["nodes"]))
                    for part in body["parts"]
                )
                found = Checkpoint(folder, body["number"], parts)
                found.check()
                return found, refused
            except RunDirectoryError as error:
                refused.append(str(error))
        return None, refused

    def discard_partial(self) -> None:
        """Remove what was never committed; for when no host runs."""
        for partial in self._folder.glob("*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def clear(self) -> None:
        """Remove all of them: the run is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _committed(self) -> list[Path]:
        """The newest first."""
        found = [path for path in self._folder.glob("[0-9]*") if path.name.isdecimal()]
        return sorted(found, key=lambda path: int(path.name), reverse=True)

    def _partial(self, number: int) -> Path:
        return self._folder / f"{number:06d}.partial"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        digest, _, text = path.read_text(encoding="utf-8").removesuffix("\n").partition("\n")
        if digest != _digest(text):
            raise ValueError("its SHA-256 differs")
        body: dict[str, Any] = json.loads(text)
        if body["schema"] != SCHEMA:
            raise ValueError(f"schema {body['schema']}; this sheafnet reads {SCHEMA}")
        return body
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: is not what was written ({error}).") from None
