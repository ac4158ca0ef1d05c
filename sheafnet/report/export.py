"""A run where people already look: tables as CSV or Parquet, scalars as TensorBoard events."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from sheafnet.errors import StudyError
from sheafnet.network.frame import PHASES
from sheafnet.runtime.loaded import TABLES, LoadedRun, form_of
from sheafnet.studies.output import write_columns


class Target(StrEnum):
    """What a run can be exported as."""

    csv = "csv"
    parquet = "parquet"
    tensorboard = "tensorboard"


def export(run: LoadedRun, folder: Path, target: Target) -> list[Path]:
    """Write what `run` logged into `folder`; returns the files.

    As tables: ``rounds-PHASE`` with a row per round and ``ledger`` with a row per line of
    ledger.jsonl, their columns flat as those of `LoadedRun.rounds` and `LoadedRun.ledger`. As
    TensorBoard events: every number of every round, by its phase, at the number of the round; of an
    evaluation at the training rounds before it.

    Raises:
        RunDirectoryError: a file of the run is spoiled.
        StudyError: a file cannot be written, or what `target` takes is not installed.
    """
    if target == Target.tensorboard:
        return [_events(run, folder)]
    paths = []
    for table in TABLES:
        columns = run.columns(table)
        if columns:
            name, log = ("ledger", "ledger") if table == "ledger" else (f"rounds-{table}", "rounds")
            paths.append(folder / f"{name}.{target}")
            with form_of(run.path / f"{log}.jsonl"):
                write_columns(columns, _doubles(columns), paths[-1])
    return paths


def _doubles(columns: dict[str, list[Any]]) -> set[str]:
    """The columns of floating-point numbers; one in which nothing is known is taken for one."""
    return {
        name
        for name, values in columns.items()
        if all(value is None or type(value) in (int, float) for value in values)
        and not all(type(value) is int for value in values)
    }


def _events(run: LoadedRun, folder: Path) -> Path:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise StudyError(
            "tensorboard is not installed: pip install 'sheafnet[tensorboard]'."
        ) from None
    with form_of(run.path / "rounds.jsonl"):
        scalars = list(_scalars(run))
    try:
        writer = EventFileWriter(str(folder))
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {error.strerror}.") from None
    try:
        for step, values in scalars:
            found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            writer.add_event(Event(step=step, wall_time=float(step), summary=Summary(value=found)))
    finally:
        writer.close()
    return max(folder.glob("events.out.tfevents.*"))


def _scalars(run: LoadedRun) -> Iterator[tuple[int, dict[str, float]]]:
    for phase in PHASES:
        for line in run.rounds(phase):
            step = line["after"] if phase == "evaluation" else line["round"]
            yield (
                step,
                {
                    f"{phase}/{name.replace('.', '/')}": float(value)
                    for name, value in line.items()
                    if name != "round" and type(value) in (int, float)
                },
            )
