"""Law 5: a run that is broken off and resumed ends as the run that was not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sheafnet
from sheafnet.errors import Interrupted
from sheafnet.runtime.checkpoint import Checkpoints
from sheafnet.runtime.coordinator import Progress
from sheafnet.runtime.rundir import RunDirectory
from tests.conftest import SHOWER, STORM, MakeConfig, artifacts, broken_off

EVERY = ("run.checkpoint_every=1", "run.stretch=2", "evaluation.every=4")
STRETCHES = 2 + 1 + 1 + 1 + 2
"""Training of 4, evaluation, of 2 more, evaluation, inference of 4, two rounds a stretch."""


def logs(run: Path) -> tuple[bytes, bytes]:
    return (run / "rounds.jsonl").read_bytes(), (run / "ledger.jsonl").read_bytes()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["training.exchange_gradients=true", "training.reconstruction_gradient=full"],
        ["method={name: imagebind, hub: b}"],
        ["method=local", "training.optimizer=sgd", "training.schedule=cosine"],
        ["method=concat-supervised", "training.optimizer=adamw"],
        [STORM],
        [SHOWER, "inference.diffusion_iterations=3"],
        [STORM, "training.memory=2", "training.local_steps=2", "inference.neural_hidden=4"],
        [
            SHOWER,
            "inference.neural_hidden=4",
            "inference.estimator=neural",
            "inference.abstain=0.9",
            "inference.calibration=12",
        ],
        [
            *(STORM, "defaults.edge.link=ble"),
            *("training.wire_dtype=int8-row", "training.wire_rounding=stochastic"),
        ],
    ],
    ids=[
        "sheafalign",
        "gradients",
        "imagebind",
        "local",
        "concat-supervised",
        "faults",
        "diffusion",
        "memory",
        "neural",
        "rounded, on links",
    ],
)
def test_killed_after_any_stretch(tiny: MakeConfig, tmp_path: Path, overrides: list[str]) -> None:
    left = broken_off(tiny(*EVERY, *overrides), tmp_path)
    assert len(left) == STRETCHES + any("calibration" in each for each in overrides)
    whole = artifacts(tmp_path / "whole")
    for done, run in enumerate(left, start=1):
        assert RunDirectory.open(run).about()["status"] == "running"
        sheafnet.resume(run)
        assert artifacts(run) == whole, run.name
        assert logs(run) == logs(tmp_path / "whole")
        about = RunDirectory.open(run).about()
        assert about["status"] == "finished"
        assert [note["stretches_done"] for note in about["resumed"]] == [done]
        assert not (run / "checkpoints").exists()


def test_checkpoints_far_apart_and_torn_lines(tiny: MakeConfig, tmp_path: Path) -> None:
    left = broken_off(tiny("run.checkpoint_every=2", "run.stretch=1"), tmp_path)
    whole = artifacts(tmp_path / "whole")
    found = []
    for run in left[::2]:
        for name in ("rounds.jsonl", "ledger.jsonl"):
            with (run / name).open("a") as file:
                file.write('{"phase":"tra')
        sheafnet.resume(run)
        assert artifacts(run) == whole
        found.append(RunDirectory.open(run).about()["resumed"][0]["stretches_done"])
    # six stretches of training, an evaluation, which has a checkpoint of its own, four of inference
    assert found == [0, 2, 4, 7, 8, 10]


def test_without_checkpoints_a_run_begins_again(tiny: MakeConfig, tmp_path: Path) -> None:
    left = broken_off(tiny("run.checkpoint_every=0", "run.stretch=2"), tmp_path)
    assert not (left[-1] / "checkpoints").exists()
    sheafnet.resume(left[-1])
    assert logs(left[-1]) == logs(tmp_path / "whole")
    assert artifacts(left[-1]) == artifacts(tmp_path / "whole")


def test_interrupted_again_and_again(tiny: MakeConfig, tmp_path: Path) -> None:
    config = tiny(*EVERY)
    sheafnet.simulate(config, run_dir=tmp_path / "whole")

    def interrupting() -> Callable[[Progress], None]:
        seen: list[Progress] = []

        def after_one(progress: Progress) -> None:
            seen.append(progress)
            if len(seen) == 2:
                raise KeyboardInterrupt

        return after_one

    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="sheafnet resume"):
        sheafnet.simulate(config, run_dir=run, on_progress=interrupting())
    for _ in range(2):
        with pytest.raises(Interrupted):
            sheafnet.resume(run, on_progress=interrupting())
    sheafnet.resume(run)
    about = RunDirectory.open(run).about()
    assert [note["stretches_done"] for note in about["resumed"]] == [2, 4, 6]
    assert about["incarnation"] == 3
    assert logs(run) == logs(tmp_path / "whole")
    assert artifacts(run) == artifacts(tmp_path / "whole")


@pytest.mark.parametrize("before", [126, 127, 255])
def test_however_often_it_was_resumed_before(tiny: MakeConfig, tmp_path: Path, before: int) -> None:
    """Frames carry the incarnation, and a number from 128 on would take a byte more."""
    run = broken_off(tiny(*EVERY), tmp_path)[0]
    directory = RunDirectory.open(run)
    directory.mark("running", incarnation=before)
    sheafnet.resume(run)
    assert directory.about()["incarnation"] == before + 1
    assert artifacts(run) == artifacts(tmp_path / "whole")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tiny: MakeConfig, tmp_path: Path) -> None:
    left = broken_off(tiny(*EVERY), tmp_path)
    whole = artifacts(tmp_path / "whole")
    run = left[3]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["000003", "000004"]
    for name in ("host-0.safetensors", "manifest"):
        flipped = tmp_path / f"flipped-{name}"
        shutil.copytree(run, flipped)
        path = flipped / "checkpoints" / "000004" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        checkpoint, refused = Checkpoints(flipped).newest()
        assert checkpoint is not None
        assert checkpoint.number == 3
        assert len(refused) == 1
        assert name in refused[0]
        sheafnet.resume(flipped)
        (note,) = RunDirectory.open(flipped).about()["resumed"]
        assert note["stretches_done"] == 3
        assert note["refused"] == refused
        assert artifacts(flipped) == whole
        assert logs(flipped) == logs(tmp_path / "whole")


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_resumed_elsewhere(tiny: MakeConfig, tmp_path: Path) -> None:
    """Begun in one process, gone on with on actors that share the nodes in another way."""
    run = broken_off(tiny(*EVERY), tmp_path)[2]
    where = ["run.backend=ray", "run.nodes_per_actor=3"]
    sheafnet.resume(run, where)
    assert artifacts(run) == artifacts(tmp_path / "whole")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["backend"] == "ray"
    assert summary["actors"] == 2
