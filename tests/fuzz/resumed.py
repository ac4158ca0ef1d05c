"""Damaged runs that broke off, against `sheafnet resume`.

    python -m tests.fuzz.resumed --inputs 2000 --seed 0

A file of a run that broke off is damaged at random, and the run goes on. It is refused with one
message, or it ends as the run that was not disturbed. Of the logs, whose lines before the
checkpoint are kept as they stand, only that it ends or is refused.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import sheafnet
from sheafnet.errors import ConfigError, RunDirectoryError
from tests.conftest import artifacts, broken_off, tiny_config
from tests.fuzz.runs import damage, tell

LOGS = ("rounds.jsonl", "ledger.jsonl")


def break_off(folder: Path, after: int = 3) -> tuple[Path, dict[str, Any]]:
    """A run that was killed after some stretches, and what it would have left at its end."""
    left = broken_off(tiny_config("run.checkpoint_every=1", "run.stretch=2"), folder)
    return left[after - 1], artifacts(folder / "whole")


def files(run: Path) -> list[Path]:
    """All that a run that broke off consists of, but its locks."""
    return sorted(p for p in run.rglob("*") if p.is_file() and not p.name.endswith("lock"))


def go_on(run: Path, damaged: Path, whole: dict[str, Any]) -> str:
    """Resume `run`, of which `damaged` was damaged; what came of it.

    Raises:
        AssertionError: it ended otherwise than `whole`, or the refusal does not name the run.
    """
    try:
        sheafnet.resume(run)
    except (RunDirectoryError, ConfigError) as error:
        if str(run) not in str(error):
            raise AssertionError(f"no file is named: {error}") from error
        return "refused"
    if damaged.name not in LOGS:
        assert artifacts(run) == whole
    return "ended"


def fuzz(
    broken: Path,
    whole: dict[str, Any],
    inputs: int,
    seed: int,
    hurt: Callable[[Random, bytes], bytes] = damage,
) -> Counter[str]:
    """Damage one file of a copy of `broken` and resume it, `inputs` times; counts of what came.

    Raises:
        Exception: whatever came of it beside the two allowed ends; the run is left where it is.
    """
    source, tally = Random(seed), Counter[str]()
    for number in range(inputs):
        run = broken.with_name(f"input-{number}")
        shutil.copytree(broken, run)
        path = source.choice(files(run))
        content = path.read_bytes()
        path.write_bytes(hurt(source, content))
        try:
            came_of_it = go_on(run, path, whole)
        except Exception as error:
            error.add_note(f"input {number}: {path}")
            raise
        tally[f"{path.relative_to(run)}: {came_of_it}"] += 1
        shutil.rmtree(run)
    return tally


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.resumed")
    parser.add_argument("--inputs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sheafnet-fuzz-"))
    broken, whole = break_off(folder)
    begin = time.perf_counter()
    tally = fuzz(broken, whole, given.inputs, given.seed)
    shutil.rmtree(folder)
    tell(tally, "damaged runs resumed", begin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
