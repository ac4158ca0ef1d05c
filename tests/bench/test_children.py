"""The processes of a benchmark: begun together, heard when they fail, never left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from sheafnet.bench.children import Child, Group, run
from sheafnet.errors import ActorError
from sheafnet.runtime.environment import environment
from tests.runtime.test_ray import children_of, end_of, wait_until

ECHO = "print(1, flush=True); input(); print('[2, 3]', flush=True); input()"
SILENT = "print(1, flush=True); input(); input()"
FAILING = "print(1, flush=True); input(); raise SystemExit('out of luck')"


def python(code: str) -> Child:
    return Child("test", ["-c", code])


def test_what_children_find_comes_back_in_their_order() -> None:
    other = ECHO.replace("[2, 3]", "4")
    assert run(python(ECHO), python(other)) == [[2, 3], 4]


def test_nobody_begins_before_all_are_ready() -> None:
    begun = "import time; print(time.monotonic(), flush=True); input(); {}"
    stamp = "print(time.monotonic(), flush=True); input()"
    late = "import time; time.sleep(0.5); " + begun.removeprefix("import time; ").format(stamp)
    with Group([python(begun.format(stamp)), python(late)]) as group:
        ready = group.answers()
        group.go()
        assert min(group.answers()) >= max(ready)


def test_one_that_fails_is_heard_while_another_would_go_on_for_ever() -> None:
    children = [python(SILENT), python(FAILING)]
    with pytest.raises(ActorError, match=r"benchmark test: .* exit code 1: out of luck"):
        run(*children)
    assert not any(psutil.pid_exists(child.pid) for child in children)


def test_one_that_is_killed_is_heard() -> None:
    child = python(SILENT)
    with Group([child]) as group:
        group.answers()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(ActorError, match="SIGKILL"):
            group.answers()


def test_an_unknown_task_says_what_it_was() -> None:
    with pytest.raises(ActorError, match="AttributeError"):
        run(Child("nothing", ["-m", "sheafnet.bench.child", "frames:nothing", "{}"]))


def bench(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sheafnet", "bench", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_interrupted_benchmark_leaves_no_process() -> None:
    process = bench("--only", "messages")
    wait_until(lambda: len(children_of(process)) == 2, "two ends")
    children = children_of(process)
    process.send_signal(signal.SIGINT)
    code, words = end_of(process, children)
    assert code == 130
    assert words.endswith("sheafnet: interrupted; nothing was kept\n")


def test_children_end_with_a_benchmark_that_is_killed() -> None:
    with tempfile.TemporaryDirectory() as folder:  # nobody is left to remove the killed one's
        process = bench("--only", "messages", TMPDIR=folder)
        wait_until(lambda: len(children_of(process)) == 2, "two ends")
        children = children_of(process)
        process.kill()
        assert end_of(process, children)[0] == -signal.SIGKILL


@pytest.mark.long
@pytest.mark.ray
def test_an_interrupted_benchmark_leaves_no_ray() -> None:
    process = bench("--only", "startup", "--quick")
    begin = time.monotonic()
    wait_until(
        lambda: any(child.name() == "raylet" for child in children_of(process)), "a Ray of its own"
    )
    children = children_of(process)
    process.send_signal(signal.SIGINT)
    code, _ = end_of(process, children)
    assert code == 130
    assert time.monotonic() - begin < 120


def test_they_find_what_the_actors_of_a_network_find() -> None:
    child = python(SILENT)
    with Group([child]):
        assert environment().items() <= psutil.Process(child.pid).environ().items()
