"""The figures of a benchmark: the schema of its results file, version 1."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sheafnet.bench.machine import Machine
from sheafnet.errors import BenchError

PartName = Literal["messages", "frames", "rounds", "inference", "startup"]
Unit = Literal["us", "ms", "s", "MB", "samples/s"]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spread(_Result):
    """The middle and the ends of what the repeats gave."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of `values`, at least one."""
        return cls(median=statistics.median(values), lowest=min(values), highest=max(values))


class Figure(_Result):
    """One measured thing beside its reference, which was measured in turn with it."""

    part: PartName
    name: str
    """What was measured, as "ring of 6, an actor per node"."""
    reference: str
    """What it is measured against, as "one process, no messages"."""
    unit: Unit
    repeats: int
    value: Spread
    """In `unit`; more is better of samples/s, less of everything else."""
    reference_value: Spread
    """In `unit`."""
    ratio: Spread
    """Value / reference, of each repeat."""


def compare(
    part: PartName,
    name: str,
    reference: str,
    unit: Unit,
    values: Sequence[float],
    references: Sequence[float],
) -> Figure:
    """The figure of `values` beside `references`, pair by pair in the order of measuring."""
    ratios = [value / beside for value, beside in zip(values, references, strict=True)]
    return Figure(
        part=part,
        name=name,
        reference=reference,
        unit=unit,
        repeats=len(values),
        value=Spread.of(values),
        reference_value=Spread.of(references),
        ratio=Spread.of(ratios),
    )


class Results(_Result):
    """Everything that one benchmark found."""

    schema_version: Literal[1] = 1
    sheafnet: str
    """Version of the package."""
    measured: str
    """When, ISO 8601 in UTC."""
    quick: bool
    """Measured for seconds only, to see that all works; not to be quoted."""
    machine: Machine
    figures: list[Figure]

    def ratio_of(self, figure: Figure) -> float | None:
        """The ratio that these results have for the same thing as `figure`, if any."""
        asked = (figure.part, figure.name, figure.reference, figure.unit)
        for own in self.figures:
            if (own.part, own.name, own.reference, own.unit) == asked:
                return own.ratio.median
        return None


def read_results(path: Path) -> Results:
    """The results in the file at `path`.

    Raises:
        BenchError: it cannot be read, or is not a results file of this version.
    """
    try:
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BenchError(
            f"{path}: is no results file of this version: {where + ': ' if where else ''}"
            f"{first['msg']}. `sheafnet bench -o FILE.json` writes one."
        ) from None


def check_new(path: Path) -> None:
    """Refuse a results file that could not be written, before anything is measured.

    Raises:
        BenchError: it exists, or its folder does not.
    """
    if path.exists():
        raise BenchError(f"{path}: exists already; choose another --output.")
    if not path.parent.is_dir():
        raise BenchError(f"{path}: cannot be written: there is no folder {path.parent}.")


def write_results(path: Path, results: Results) -> None:
    """Write a new results file.

    Raises:
        BenchError: it exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(results.model_dump_json(indent=1) + "\n")
    except FileExistsError:
        raise BenchError(f"{path}: exists already; choose another --output.") from None
    except OSError as error:
        raise BenchError(f"{path}: cannot be written: {error.strerror}.") from None
