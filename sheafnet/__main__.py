"""Entry point: the first thing to run, so that Ctrl-C is answered while modules still load."""

import os
import signal
import sys


def main() -> None:
    """Run the command line; SIGTERM and SIGHUP end it as Ctrl-C does."""
    code = 0
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    try:
        from sheafnet.cli import run

        code = run()
    except KeyboardInterrupt:
        print("sheafnet: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
