"""A process of a benchmark: prepares one measurement, waits to be told, measures.

    python -m sheafnet.bench.child MODULE:FUNCTION ARGUMENTS

The function in `sheafnet.bench` takes the arguments, an object in JSON, and prepares; what it
returns is called to measure. A line on stdout says that it is ready, another one what it found.
When stdin ends, as it does when the benchmark's process ends in whatever way, so does this one.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from sheafnet.errors import SheafnetError

Measure = Callable[[], Any]
"""What a task returns when it is prepared: measures, and returns what JSON can hold."""


def main() -> None:
    """Run the task that the arguments name."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    module, _, function = sys.argv[1].partition(":")
    prepare = getattr(importlib.import_module(f"sheafnet.bench.{module}"), function)
    try:
        measure: Measure = prepare(**json.loads(sys.argv[2]))
        print("true", file=answers, flush=True)
        lines.get()
        print(json.dumps(measure()), file=answers, flush=True)
        lines.get()  # sockets stay open until nobody needs them
    except SheafnetError as error:
        sys.exit(f"sheafnet: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _read(lines: "queue.SimpleQueue[str]") -> None:
    """Hand over the lines of stdin; at its end, interrupt whatever is under way as Ctrl-C does."""
    for line in sys.stdin:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
