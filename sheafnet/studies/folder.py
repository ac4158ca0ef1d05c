"""The folder of a study: a small file for every finished cell, and the tables made of them.

    cells/<key>.json       what one run measured

Files are written aside and renamed: each is whole or not there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from sheafnet.errors import StudyError
from sheafnet.studies.cells import Cell, CellResult


def default_folder(name: str) -> Path:
    """Where studies of the topology called `name` are kept unless it is said."""
    return Path("studies") / name


class StudyFolder:
    """Where a study keeps what it measured."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def result(self, cell: Cell) -> CellResult | None:
        """What is kept of `cell`; None where it has not run, or its file cannot be used."""
        try:
            found = CellResult.model_validate_json(self._file(cell.key).read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.key == cell.key else None

    def keep(self, result: CellResult) -> None:
        """Write the file of a finished cell.

        Raises:
            StudyError: it cannot be written.
        """
        write(self._file(result.key), result.model_dump_json(indent=1) + "\n")

    def claim(self) -> None:
        """Make the folder, before anything is run for it.

        Raises:
            StudyError: it cannot be made or written to.
        """
        with replacing(self.path / "cells" / "writable") as aside:
            aside.touch()
        (self.path / "cells" / "writable").unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.json"


def write(path: Path, content: str) -> None:
    """Replace the file at `path` as a whole, making its folder if need be.

    Raises:
        StudyError: it cannot be written.
    """
    with replacing(path) as aside:
        aside.write_text(content, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, which becomes `path` at the end of the block.

    Raises:
        StudyError: the file cannot be written.
    """
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be written: {error.strerror or error}. "
            "Choose another folder or free the disk."
        ) from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
