"""The index of a DeepSense 6G scenario: ``scenarioN.csv``, a row per moment, a column per sensor.

Most cells are paths of files, relative to the folder of the csv; some are plain values.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sheafnet.errors import DatasetError

SITE = "https://www.deepsense6g.net"
_NAMED = 3
"""How many of the missing files a message lists."""


class Scenario:
    """A scenario's csv, read; its files are looked at only when asked for.

    Args:
        path: the folder that holds the csv, or the csv.

    Raises:
        DatasetError: there is no such csv, or more than one, or it is no table.
    """

    def __init__(self, path: str) -> None:
        self.csv = _find(Path(path).expanduser())
        self.folder = self.csv.parent
        self._cells, self._lines = _read(self.csv)

    def __len__(self) -> int:
        """Rows of the csv."""
        return len(self._lines)

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the file's order."""
        return list(self._cells)

    def find(self, names: Sequence[str]) -> str | None:
        """The first of `names` that is a column, in any case of letters, as the file writes it."""
        written = {column.lower(): column for column in reversed(self.columns)}
        return next((written[name.lower()] for name in names if name.lower() in written), None)

    def require(self, names: Sequence[str], why: str) -> str:
        """The first of `names` that is a column.

        Raises:
            DatasetError: there is none; `why` says what for, and what else to choose.
        """
        column = self.find(names)
        if column is None:
            raise DatasetError(
                f"{self.csv}: no column {' or '.join(names)}: {why}, or take a scenario that has "
                f"it. Columns: {', '.join(self.columns)}."
            )
        return column

    def where(self, column: str, row: int) -> str:
        """The place of a cell, for a message; lines count from 1 as an editor shows them."""
        return f"{self.csv}: line {self._lines[row]}, column {column}"

    def cells(self, column: str) -> list[str]:
        """The cells of `column`, none of them empty.

        Raises:
            DatasetError: naming the first empty one.
        """
        cells = self._cells[column]
        for row, cell in enumerate(cells):
            if cell.lower() in {"", "nan", "none"}:
                raise DatasetError(
                    f"{self.where(column, row)}: {cell or 'empty'}; remove the line, or fill the "
                    "cell."
                )
        return cells

    def files(self, column: str) -> list[Path]:
        """The files that `column` names, all of them there.

        Raises:
            DatasetError: how many are missing, which are the first, and what to download.
        """
        # Written ./unit1/a.jpg, /unit1/a.jpg or unit1\\a.jpg; all lie below the csv's folder.
        cells = [cell.replace("\\", "/").lstrip("/") for cell in self.cells(column)]
        files = [self.folder / cell for cell in cells]
        missing = [row for row, file in enumerate(files) if not file.is_file()]
        if missing:
            named = [f"{cells[row]} (line {self._lines[row]})" for row in missing[:_NAMED]]
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise DatasetError(
                f"{self.csv}: column {column}: {len(missing)} of {len(files)} files are missing: "
                f"{', '.join(named)}{more}. Unzip every part of the scenario's download from "
                f"{SITE} into {self.folder}, or remove these lines."
            )
        return files


class Recording:
    """The files of one column, each read to an array of the same shape.

    Args:
        scenario: the scenario.
        column: which names the files.
        read: from a file to its array; raises `DatasetError`.

    Raises:
        DatasetError: a file is missing, or the first cannot be read.
    """

    def __init__(
        self, scenario: Scenario, column: str, read: Callable[[Path], npt.NDArray[Any]]
    ) -> None:
        self._scenario, self._column, self._read = scenario, column, read
        self._files = scenario.files(column)
        self._first = self._reading(0)
        self.shape: tuple[int, ...] = self._first.shape
        self._all: npt.NDArray[Any] | None = None

    def readings(self) -> npt.NDArray[Any]:
        """All readings, (rows, *shape), read the first time that somebody asks for them.

        Raises:
            DatasetError: a file cannot be read, or not to the shape of the first.
        """
        if self._all is None:
            read = np.empty((len(self._files), *self.shape), self._first.dtype)
            for row in range(len(read)):
                read[row] = self._reading(row)
            self._all = read
        return self._all

    def _reading(self, row: int) -> npt.NDArray[Any]:
        file = self._files[row]
        try:
            reading = self._read(file)
            if row and reading.shape != self.shape:
                raise DatasetError(
                    f"{file}: {reading.size} values, but the first file has {self._first.size}; "
                    "remove the line."
                )
        except DatasetError as error:
            raise DatasetError(f"{self._scenario.where(self._column, row)}: {error}") from None
        return reading


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DatasetError(
            f"dataset.path: {path} is not there (relative paths start at {Path.cwd()}); download a "
            f"scenario from {SITE} (free, after registration), unzip it, and name the folder that "
            "holds its scenarioN.csv."
        )
    tables = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    named = [file for file in tables if file.name.lower().startswith("scenario")]
    found = named or tables
    if not found:
        raise DatasetError(
            f"{path}: holds no scenarioN.csv; name the folder that the scenario was unzipped to "
            f"(downloads are on {SITE}), directly above unit1."
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DatasetError(
            f"{path}: holds {len(found)} csv files ({names}); name one of them, as "
            f"path: {path / found[0].name}."
        )
    return found[0]


def _read(path: Path) -> tuple[dict[str, list[str]], list[int]]:
    """The cells of every column, and the line of every row."""
    rows, lines = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as a csv ({error}); unzip it again.") from None
    if not rows:
        raise DatasetError(f"{path}: holds no row below its header; unzip it again.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}: column {twice[0]!r} occurs twice; rename or remove one.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DatasetError(
                f"{path}: line {line} has {len(row)} cells, the header {len(header)}; mend or "
                "remove the line."
            )
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), lines
