"""The store of checkpoints: whole or not there, whatever is broken in between."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import sheafnet
from sheafnet.config import Config
from sheafnet.errors import ConfigError, DivergenceError, Interrupted, RunDirectoryError
from sheafnet.network.frame import Frame, Kind, encode, run_tag
from sheafnet.network.payload import WireDtype
from sheafnet.network.switchboard import Switchboard
from sheafnet.runtime.checkpoint import KEPT, Checkpoints, Part
from sheafnet.runtime.plan import Plan
from sheafnet.runtime.rundir import RunDirectory, Status
from tests.conftest import MakeConfig, artifacts

HOSTS = 2


def state_of(number: int, node: int) -> dict[str, np.ndarray]:
    """What a node would have learned; nothing else has these numbers."""
    return {
        "weight": np.full((2, 3), 100 * number + node, dtype=np.float32),
        "step": np.array(number, dtype=np.float64),
    }


class Store(RuleBasedStateMachine):
    """Writes, half-writes, damage and reopening at random, beside a list of what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.whole: dict[int, bool] = {}
        """Numbers that were committed and not removed since; whether nothing of them is damaged."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(self.temporary()).resolve()
        self.store = Checkpoints(self.folder)

    def temporary(self) -> str:
        import tempfile

        self._holder = tempfile.TemporaryDirectory()
        return self._holder.name

    def teardown(self) -> None:
        self._holder.cleanup()

    def parts(self, number: int, hosts: int) -> list[Part]:
        return [
            self.store.write_part(
                number, host, {n: state_of(number, n) for n in (2 * host, 2 * host + 1)}
            )
            for host in range(hosts)
        ]

    @rule()
    def commit(self) -> None:
        self.number += 1
        self.store.commit(self.number, self.parts(self.number, HOSTS), {"done": self.number})
        self.whole[self.number] = True
        here = [n for n in sorted(self.whole, reverse=True) if n <= self.number]
        self.whole = {n: self.whole[n] for n in here[:KEPT]}

    @rule()
    def go_back(self) -> None:
        """The run goes on from the newest checkpoint that is whole, as after a death."""
        found, _ = self.store.newest()
        self.number = 0 if found is None else found.number

    @rule(hosts=st.integers(0, HOSTS))
    def die_before_the_commit(self, hosts: int) -> None:
        self.parts(self.number + 1, hosts)

    @rule()
    def reopen(self) -> None:
        self.store = Checkpoints(self.folder)
        self.store.discard_partial()

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.whole)))
        folder = self.folder / "checkpoints" / f"{number:06d}"
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        if content and data.draw(st.booleans()):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[at:]
        path.write_bytes(content)
        self.whole[number] = False

    @rule()
    def read(self) -> None:
        found, refused = self.store.newest()
        good = [number for number, whole in self.whole.items() if whole]
        newer = [number for number in self.whole if not good or number > max(good)]
        assert len(refused) == len(newer)
        for number, why in zip(sorted(newer, reverse=True), refused, strict=True):
            assert f"{number:06d}" in why
        if not good:
            assert found is None
            return
        assert found is not None
        assert found.number == max(good)
        assert found.books() == {"done": found.number}
        for wanted in ([0, 1, 2, 3], [3], [1, 2], []):
            states = found.states(wanted)
            assert sorted(states) == wanted
            for node, state in states.items():
                expected = state_of(found.number, node)
                assert state.keys() == expected.keys()
                for name, array in expected.items():
                    np.testing.assert_array_equal(state[name], array)
                    assert state[name].dtype == array.dtype


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_refused_checkpoints_make_room_for_those_of_the_run_that_goes_on(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    for number in (11, 12):
        store.commit(number, [store.write_part(number, 0, {0: state_of(number, 0)})], {})
        (tmp_path / "checkpoints" / f"{number:06d}" / "manifest").write_text("damaged")
    assert store.newest()[0] is None  # so the run begins anew
    store.commit(1, [store.write_part(1, 0, {0: state_of(1, 0)})], {})
    found, refused = store.newest()
    assert found is not None
    assert found.number == 1
    assert refused == []


@pytest.mark.parametrize(("now", "before"), [(2, (0, 1)), (129, (0, 127)), (128, (126, 127))])
def test_a_frame_of_an_earlier_incarnation_is_dropped_and_in_no_ledger(
    tiny: MakeConfig, now: int, before: tuple[int, int]
) -> None:
    """On the wire incarnations are counted modulo 128."""
    topology = Plan.open(tiny()).topology
    board = Switchboard(topology, incarnation=now)
    for incarnation in before:
        frame = Frame(
            Kind.PROJECTION, run_tag(1), incarnation, 0, 0, 0, WireDtype.FLOAT32, 0, None, b""
        )
        board.deliver(encode(frame))
    assert board.stale == 2
    assert board.drain() == []
    assert board.drain_rejections() == (0, [])


@pytest.fixture
def broken(tiny: MakeConfig, tmp_path: Path) -> Path:
    """A run that broke off after its first evaluation."""
    run = tmp_path / "run"
    copies = iter(range(100))

    def copy(_: sheafnet.Progress) -> None:
        if next(copies) == 3:
            shutil.copytree(tmp_path / "whole", run)

    config = tiny("run.checkpoint_every=1", "run.stretch=2")
    sheafnet.simulate(config, run_dir=tmp_path / "whole", on_progress=copy)
    return run


def test_what_cannot_be_resumed_is_named_and_left_as_it_is(broken: Path, tmp_path: Path) -> None:
    def refused(path: Path, match: str, *overrides: str, error: type = RunDirectoryError) -> None:
        before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
        with pytest.raises(error, match=match):
            sheafnet.resume(path, overrides)
        del before[path / "lock"]
        for file, content in before.items():
            assert file.read_bytes() == content

    refused(tmp_path / "whole", "is finished")
    refused(broken, r"run\.seed=1.*goes on as it began", "run.seed=1", error=ConfigError)
    refused(broken, "training.rounds", "training.rounds=9", error=ConfigError)
    with RunDirectory(broken).hold():
        refused(broken, r"is in use by process \d+ on ")
    config, about = broken / "config.yaml", broken / "run.json"
    text = config.read_text()
    config.write_text(text.replace("rounds: 6", "rounds: 7"))
    refused(broken, "was changed since the run began")
    config.write_text(text)
    text = about.read_text()
    about.write_text(text.replace('"sheafnet": "0.1.0"', '"sheafnet": "0.0.9"'))
    refused(broken, r"begun by sheafnet 0\.0\.9")
    about.write_text(text)
    log = (broken / "rounds.jsonl").read_bytes()
    (broken / "rounds.jsonl").write_bytes(log[:10])
    with pytest.raises(RunDirectoryError, match="lacks lines"):
        sheafnet.resume(broken)
    (broken / "rounds.jsonl").write_bytes(log)
    sheafnet.resume(broken)
    assert artifacts(broken) == artifacts(tmp_path / "whole")


FULL = """
import resource, sys
import sheafnet
from sheafnet.config import Config
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    sheafnet.simulate(Config.model_validate_json(sys.argv[2]), run_dir=sys.argv[3])
except sheafnet.SheafnetError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_no_room_for_a_checkpoint(tiny: MakeConfig, tmp_path: Path) -> None:
    """A file of a checkpoint takes 50 kB; all else is smaller."""
    config: Config = tiny("run.checkpoint_every=1", "run.stretch=2")
    command = [sys.executable, "-c", FULL, "20000", config.model_dump_json(), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "host-0.safetensors: cannot be written: File too large" in done.stdout
    assert RunDirectory.open(tmp_path / "run").about()["status"] == "failed"
    sheafnet.resume(tmp_path / "run")
    sheafnet.simulate(config, run_dir=tmp_path / "whole")
    assert artifacts(tmp_path / "run") == artifacts(tmp_path / "whole")


def test_a_run_that_diverges_diverges_again(tiny: MakeConfig, tmp_path: Path) -> None:
    hot = ["training.optimizer=sgd", "training.learning_rate=1e6", "run.checkpoint_every=1"]
    with pytest.raises(DivergenceError) as first:
        sheafnet.simulate(tiny(*hot), run_dir=tmp_path / "run")
    with pytest.raises(DivergenceError) as second:
        sheafnet.resume(tmp_path / "run")
    assert str(first.value) == str(second.value)


def test_a_run_has_one_coordinator_whatever_the_backend(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a killed run on Ray may live a moment longer than the command line."""
    monkeypatch.setattr("sheafnet.runtime.rundir._FENCE_S", 0.2)
    logs = [(broken / name).read_bytes() for name in ("rounds.jsonl", "ledger.jsonl")]
    with (
        RunDirectory(broken).hold_books(),
        pytest.raises(RunDirectoryError, match=r"is in use by process \d+ on "),
    ):
        sheafnet.resume(broken)
    assert logs == [(broken / name).read_bytes() for name in ("rounds.jsonl", "ledger.jsonl")]
    sheafnet.resume(broken)


def test_broken_off_between_the_summary_and_the_end(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, run = RunDirectory.mark, tmp_path / "run"

    def interrupted(self: RunDirectory, status: Status, **facts: object) -> None:
        if status == "finished":
            raise KeyboardInterrupt
        mark(self, status, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "mark", interrupted)
        with pytest.raises(Interrupted):
            sheafnet.simulate(tiny("run.checkpoint_every=1"), run_dir=run)
    again: list[sheafnet.Progress] = []
    sheafnet.resume(run, on_progress=again.append)
    assert again == []
    assert RunDirectory.open(run).about()["status"] == "finished"
    assert not (run / "checkpoints").exists()


def full(*_: object) -> None:
    raise RunDirectoryError("run.json: cannot be written: No space left on device.")


@pytest.mark.parametrize("ends", [KeyboardInterrupt(), DivergenceError("a loss is NaN")])
def test_how_a_run_ended_is_told_though_it_cannot_be_written(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    def end_on_a_full_disk(_: sheafnet.Progress) -> None:
        monkeypatch.setattr(RunDirectory, "_write_about", full)
        raise ends

    with pytest.raises((Interrupted, DivergenceError)) as found:
        sheafnet.simulate(tiny(), run_dir=tmp_path / "run", on_progress=end_on_a_full_disk)
    assert found.value.exit_code == (130 if isinstance(ends, KeyboardInterrupt) else 3)
    assert RunDirectory.open(tmp_path / "run").about()["status"] == "running"


def test_what_the_system_refuses_is_an_error_with_its_place(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> Callable[..., object]:
        def refused(*_: object, **__: object) -> object:
            raise OSError(number, os.strerror(number))

        return refused

    for place, number, words in (
        ("pathlib.Path.is_file", errno.EACCES, "cannot be read: Permission denied"),
        ("fcntl.flock", errno.ENOLCK, "cannot be locked: No locks available"),
        ("os.fsync", errno.ENOSPC, "cannot be written: No space left on device"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, refuse(number))
            with pytest.raises(RunDirectoryError) as found:
                sheafnet.resume(broken)
        assert str(broken) in str(found.value)
        assert words in str(found.value)


def test_interrupted_while_it_looks_for_machines(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Plan) -> None:
        raise KeyboardInterrupt

    about = (broken / "run.json").read_bytes()
    monkeypatch.setattr("sheafnet.runtime.simulate._machines", interrupted)
    with pytest.raises(Interrupted, match="before the run went on; it stands as it stood"):
        sheafnet.resume(broken)
    assert (broken / "run.json").read_bytes() == about


def test_a_run_of_a_cluster_goes_on_in_one_process(tiny: MakeConfig, tmp_path: Path) -> None:
    """Neither its address nor its ports are of use there; what else was left out is forgotten."""
    where = ("run.backend=ray", "run.address=10.0.0.1:6379", "run.ports=5000-5009")
    directory = RunDirectory.create(tiny(*where), tmp_path / "run")
    directory.mark("failed", left_out=["checkpoints (no shared storage)"])
    sheafnet.resume(tmp_path / "run", ["run.backend=local"])
    assert "left_out" not in directory.about()
    sheafnet.simulate(tiny(), run_dir=tmp_path / "whole")
    assert artifacts(tmp_path / "run") == artifacts(tmp_path / "whole")
