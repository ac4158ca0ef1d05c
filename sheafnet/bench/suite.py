"""The whole benchmark: every part, and all figures together."""

import datetime
from collections.abc import Callable, Sequence
from typing import get_args

from sheafnet.bench import frames, inference, messages, rounds, startup
from sheafnet.bench.effort import FULL, QUICK, Effort
from sheafnet.bench.figures import Figure, PartName, Results
from sheafnet.bench.machine import Machine
from sheafnet.bench.turns import Tell
from sheafnet.errors import BenchError, Interrupted
from sheafnet.validation import nearest
from sheafnet.version import __version__

PARTS: dict[PartName, Callable[[Effort, Tell], list[Figure]]] = {
    "messages": messages.measure,
    "frames": frames.measure,
    "rounds": rounds.measure,
    "inference": inference.measure,
    "startup": startup.measure,
}


def run_suite(
    only: Sequence[str] | None = None,
    *,
    quick: bool = False,
    on_progress: Tell = lambda _: None,
) -> Results:
    """Measure, each figure in turn with its reference.

    Args:
        only: names of the parts; all of `PARTS` by default.
        quick: measure for seconds instead of minutes, to see that all works.
        on_progress: told what is being measured.

    Raises:
        BenchError: there is no such part.
        NetworkError: a process of a measurement failed.
        Interrupted: Ctrl-C; all processes have ended.
    """
    chosen = _checked(only)
    machine, effort = Machine.here(), QUICK if quick else FULL
    begin = datetime.datetime.now(datetime.UTC)
    found: list[Figure] = []
    try:
        for name in chosen:
            found += PARTS[name](effort, lambda what, part=name: on_progress(f"{part}: {what}"))  # type: ignore[misc]
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was kept") from None
    return Results(
        sheafnet=__version__,
        measured=begin.isoformat(timespec="seconds"),
        quick=quick,
        machine=machine,
        figures=found,
    )


def _checked(only: Sequence[str] | None) -> list[PartName]:
    known: tuple[PartName, ...] = get_args(PartName)
    for name in only or ():
        if name not in known:
            raise BenchError(f"--only {name}: no such part. {nearest(name, known)}")
    return [name for name in known if only is None or name in only]
