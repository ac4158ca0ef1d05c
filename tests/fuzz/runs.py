"""Damaged run directories against whoever reads them.

    python -m tests.fuzz.runs --inputs 20000 --seed 0

A file of a finished or a broken-off run is damaged at random; then the run is opened, and shown as
text and as JSON. Whatever it is, that ends well or in a `RunDirectoryError` that names the file (or
in a `ConfigError`, where the configuration is another's), and no file is changed by it.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from rich.console import Console

from sheafnet.errors import RunDirectoryError
from sheafnet.runtime.loaded import load_run
from sheafnet.runtime.simulate import simulate
from sheafnet.studies.tables import print_run
from tests.conftest import tiny_config

READ = ("run.json", "config.yaml", "rounds.jsonl", "ledger.jsonl", "summary.json")
_TOKENS = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"{}", b"[]", b'""', b'"\\ud800"', b'"\\u001b[2J"',
    b'"[/red]"', b"9" * 400, b"[" * 5000, b"!!python/name:os.system", b"\xff", b"\0", b"\n", b"",
)  # fmt: skip


def make_runs(folder: Path) -> list[Path]:
    """A finished run and one that broke off."""
    simulate(tiny_config(), run_dir=folder / "finished")
    shutil.copytree(folder / "finished", folder / "broken")
    (folder / "broken" / "summary.json").unlink()
    return [folder / "finished", folder / "broken"]


def damage(source: Random, content: bytes) -> bytes:
    """Bits, bytes or a value are others, or the end is missing."""
    damaged = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 3, 20))):
        at = source.randrange(max(1, len(damaged)))
        how = source.randrange(5)
        if how == 0 and damaged:
            damaged[at] ^= 1 << source.randrange(8)
        elif how == 1 and damaged:
            damaged[at] = source.randrange(256)
        elif how == 2:
            del damaged[at:]
        elif how == 3:
            del damaged[at : at + source.randint(1, 30)]
        else:
            _replace_value(source, damaged)
    return bytes(damaged)


def _replace_value(source: Random, damaged: bytearray) -> None:
    """What stands between a colon and the comma or line after it becomes another value."""
    colons = [at for at in range(len(damaged)) if damaged[at] == ord(":")]
    begin = source.choice(colons) + 1 if colons else 0
    end = begin
    while end < len(damaged) and damaged[end] not in b",\n}]":
        end += 1
    damaged[begin:end] = source.choice(_TOKENS)


def look(run: Path) -> str:
    """Read `run` as `sheafnet show` does; what came of it.

    Raises:
        AssertionError: the refusal does not name the file, or the output is no plain text.
    """
    text = io.StringIO()
    try:
        print_run(Console(file=text, force_terminal=False, width=100), load_run(run))
    except RunDirectoryError as error:
        if str(run) not in str(error):
            raise AssertionError(f"no file is named: {error}") from error
        return "refused"
    shown = text.getvalue()
    shown.encode()
    assert "\x1b" not in shown
    return "shown"


def fuzz(
    runs: list[Path], inputs: int, seed: int, read: Callable[[Path], str] = look
) -> Counter[str]:
    """Damage, look and mend `inputs` times; counts of what came of it, by file.

    Raises:
        Exception: whatever `read` raised, with a note of the damaged file, which is left.
    """
    source, tally = Random(seed), Counter[str]()
    for number in range(inputs):
        path = source.choice(runs) / source.choice(READ)
        if not path.exists():
            continue
        content = path.read_bytes()
        damaged = damage(source, content)
        path.write_bytes(damaged)
        try:
            came_of_it = read(path.parent)
            assert path.read_bytes() == damaged
        except Exception as error:
            error.add_note(f"input {number}: {path}")
            raise
        path.write_bytes(content)
        tally[f"{path.name}: {came_of_it}"] += 1
    return tally


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.runs")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sheafnet-fuzz-"))
    runs = make_runs(folder)
    begin = time.perf_counter()
    tally = fuzz(runs, given.inputs, given.seed)
    shutil.rmtree(folder)
    tell(tally, "damaged run directories", begin)
    return 0


def tell(tally: Counter[str], what: str, begin: float) -> None:
    """Print the counts, and the seconds since `begin` of the performance counter."""
    print(f"{tally.total():,} {what} in {time.perf_counter() - begin:.0f} s")
    for name, count in sorted(tally.items()):
        print(f"  {count:7,}  {name}")


if __name__ == "__main__":
    sys.exit(main())
