"""Files that a study is told to write: tables as CSV or Parquet, and plots."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sheafnet.errors import StudyError
from sheafnet.studies.folder import replacing

TABLES = (".csv", ".parquet")
PLOTS = (".png", ".pdf", ".svg")


def check_suffix(path: Path, known: tuple[str, ...], option: str) -> None:
    """Refuse a file that cannot be written in the format that its name asks for.

    Raises:
        StudyError: its suffix is none of `known`.
    """
    if path.suffix not in known:
        raise StudyError(f"{option} {path}: must end in {' or '.join(known)}.")


def write_columns(
    columns: Mapping[str, Sequence[Any]], doubles: Collection[str], path: Path
) -> None:
    """Write columns of equal length as CSV or Parquet, by the suffix of `path`.

    Args:
        columns: by name.
        doubles: the columns that are floating-point numbers even where all values are missing.
        path: of the file.

    Raises:
        StudyError: the suffix is neither, or the file cannot be written.
    """
    check_suffix(path, TABLES, "--output")
    with replacing(path) as aside:
        if path.suffix == ".csv":
            with aside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
            return
        import pyarrow as pa
        from pyarrow import parquet

        typed = {name: pa.array(columns[name], pa.float64()) for name in doubles}
        parquet.write_table(pa.table(dict(columns) | typed), aside)
