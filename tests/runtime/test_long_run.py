"""Thousands of rounds: no process grows, and none opens more than it closes."""

from pathlib import Path

import numpy as np
import psutil
import pytest

import sheafnet
from sheafnet.runtime.coordinator import Progress
from tests.conftest import MakeConfig
from tests.runtime.test_ray import named

pytestmark = [pytest.mark.ray, pytest.mark.long]
ROUNDS = 5000
SETTLED = 1000
"""Rounds before which a process may still grow: allocators, first evaluation, Ray's buffers."""
GROWTH_MB = 1.0
"""Most that a process may grow in all rounds after these, by the slope of a straight line."""


class Meter:
    """Memory, file handles and sockets of the processes of a run, at every tenth stretch."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[int, float, int]]] = {}
        self._calls = 0

    def __call__(self, progress: Progress) -> None:
        self._calls += 1
        if progress.phase != "train" or progress.done < SETTLED or self._calls % 10:
            return
        me = psutil.Process()
        children = me.children(recursive=True)
        hosts = enumerate(sorted(named(children, "HostProcess"), key=lambda p: p.pid))
        (coordinator,) = named(children, "CoordinatorProcess")
        processes = {"driver": me, "coordinator": coordinator}
        for name, process in (processes | {f"host {k}": host for k, host in hosts}).items():
            row = progress.done, process.memory_full_info().uss / 1e6, process.num_fds()
            self.rows.setdefault(name, []).append(row)


@pytest.mark.timeout(900)
def test_memory_and_handles_stay_as_they_are(tiny: MakeConfig, tmp_path: Path) -> None:
    meter = Meter()
    config = tiny(f"training.rounds={ROUNDS}", "run.backend=ray", "run.nodes_per_actor=2")
    sheafnet.simulate(config, run_dir=tmp_path / "run", on_progress=meter)
    assert set(meter.rows) == {"driver", "coordinator", "host 0", "host 1"}
    for name, rows in meter.rows.items():
        assert len(rows) >= 50
        rounds, memory, handles = np.array(rows).T
        slope = np.polyfit(rounds, memory, 1)[0]
        print(
            f"{name}: {1000 * slope:+.4f} MB in 1,000 rounds, {memory[0]:.1f} MB at first, "
            f"{handles.min():.0f} to {handles.max():.0f} handles"
        )
        assert slope * (ROUNDS - SETTLED) < GROWTH_MB, name
        assert np.polyfit(rounds, handles, 1)[0] * (ROUNDS - SETTLED) < 1, name
