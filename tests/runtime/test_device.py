"""Nodes compute where the configuration says, and a device that is not there is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from torch import Tensor
from torch.utils._pytree import tree_leaves

import sheafnet
from sheafnet.config import Config
from sheafnet.errors import ConfigError
from sheafnet.nodes.node import Node
from sheafnet.runtime import host as hosts
from sheafnet.runtime.device import gpu_share
from sheafnet.runtime.host import Host
from sheafnet.runtime.plan import Plan
from tests.conftest import MakeConfig, run_artifacts
from tests.pretended import DEVICE, Pretended, PretendedDevice

RUNS = {
    "sheafalign": ("evaluation.every=2",),
    "exact": ("training.exchange_gradients=true", "training.reconstruction_gradient=full"),
    "inverse": ("training.reconstruction=inverse", "inference.dual_map=learned"),
    "sgd": ("training.optimizer=sgd", "training.restriction_start=alone"),
    "adamw": ("training.optimizer=adamw", "training.weight_decay=0.1"),
    "nobody": ("inference.missing_probability=1",),
    "relay": ("inference.diffusion_iterations=3",),
    "harmonic": ("inference.diffusion_iterations=3", "inference.diffusion=harmonic"),
    "all-pairs": ("method=all-pairs",),
    "imagebind": ("method={name: imagebind, hub: b}",),  # d is not among b's neighbours
    "local": ("method=local",),
    "concat-supervised": ("method=concat-supervised",),
    "images": (
        "dataset={name: overlap-mnist}",
        "defaults.node.encoder={name: conv, channels: [4], hidden: 16}",
    ),
}
"""Every program, loss, optimizer and estimator that a node may run."""
SHORT = ("training.rounds=3", "inference.rounds=2", "evaluation.probe_steps=4")
"""Every operation on the pretended device is slow."""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedDevice]:
    """Hosts of this process have their nodes on the pretended device."""
    monkeypatch.setattr(hosts, "open_device", lambda _: DEVICE)
    with PretendedDevice() as device:
        yield device


def test_the_pretended_device_refuses_what_a_gpu_would(pretended: PretendedDevice) -> None:
    there, here = torch.ones(2, 3).to(DEVICE), torch.ones(2, 3)
    assert isinstance(there, Pretended)
    assert there.device == DEVICE
    for mixed in (
        lambda: there + here,
        lambda: here @ there.T,
        lambda: torch.cat([there, here]),
        lambda: torch.nn.functional.cross_entropy(there, torch.arange(2)),
        lambda: there[torch.tensor([True, False])],
    ):
        with pytest.raises(RuntimeError, match="on meta and on the CPU"):
            mixed()
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    np.testing.assert_array_equal((2 * there).cpu().numpy(), np.full((2, 3), 2.0))
    assert pretended.done["mul"] == 1


@pytest.mark.parametrize("name", RUNS)
def test_a_run_stays_on_its_device_and_gives_the_same_there(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing mixes devices, and nothing that is sent, saved or reported is left on one."""
    config = tiny(*SHORT, *RUNS[name])
    expected = run_artifacts(config, tmp_path / "cpu")
    monkeypatch.setattr(hosts, "open_device", lambda _: DEVICE)
    with PretendedDevice() as device:
        assert run_artifacts(config, tmp_path / "device") == expected
    steps = "_fused_adamw_" if name == "adamw" else "_fused_adam_"
    if name != "sgd":
        assert device.done[steps] >= 4 * 3  # nodes x rounds


def kept(node: Node) -> dict[str, list[Tensor]]:
    """Every tensor that `node` keeps between rounds, by what it belongs to."""
    modules = [node.encoder, *node.restrictions, *node.duals]
    held = {
        "modules": [t for m in modules for t in m.state_dict(keep_vars=True).values()],
        "optimizer": tree_leaves(list(vars(node.optimizer).values())),
        "moments": tree_leaves(list(vars(node.moments).values())),
        "probe": tree_leaves(list(vars(node.probe).values())),
    }
    if node.fused is not None:
        held["head"] = list(node.fused.parameters())
        held["joint moments"] = tree_leaves(list(vars(node.fused.moments).values()))
    return {key: [t for t in found if isinstance(t, Tensor)] for key, found in held.items()}


@pytest.mark.parametrize("name", ["sheafalign", "concat-supervised"])
def test_whatever_a_node_keeps_is_on_its_device(
    tiny: MakeConfig, pretended: PretendedDevice, name: str
) -> None:
    plan = Plan.open(tiny(*SHORT, *RUNS[name]))
    host = Host(plan, Path("run"), range(4))
    for stretch in plan.stretches():
        assert host.run(stretch).failure is None
    for node in host._nodes.values():
        for part, tensors in kept(node).items():
            assert tensors, part
            assert all(isinstance(t, Pretended) for t in tensors), part
        assert all(type(a) is np.ndarray for a in node.parameters().values())
    assert pretended.done["_fused_adam_"] >= 4 * 3


def config_on(tiny: MakeConfig, share: float | None = None) -> Config:
    given = () if share is None else (f"run.gpus_per_actor={share}",)
    return tiny("run.device=cuda", *given)


@pytest.mark.parametrize(
    ("share", "actors", "gpus", "expected"),
    [
        (None, 1, 1, 1.0),
        (None, 4, 1, 0.25),
        (None, 3, 1, 0.3333),  # rounded down: 3 x 0.3334 would be more than a GPU
        (None, 6, 1, 0.1666),
        (None, 5, 2, 0.3333),  # 3 on the one and 2 on the other
        (None, 2, 8, 1.0),
        (0.5, 4, 2, 0.5),
        (0.0001, 10_000, 1, 0.0001),
        (0.3, 6, 2, 0.3),
    ],
)
def test_what_an_actor_reserves(tiny: MakeConfig, share, actors, gpus, expected) -> None:
    assert gpu_share(config_on(tiny, share), actors, gpus) == expected
    assert gpu_share(tiny(), actors, gpus) == 0.0


@pytest.mark.parametrize(
    ("share", "actors", "gpus", "words"),
    [
        (None, 6, 0, "run.device = cuda: 6 actors would share the GPUs of Ray, which has none"),
        (0.5, 6, 1, "6 actors x 0.5 GPUs do not fit: a GPU has room for 2, the 1 of Ray for 2"),
        # 4 x 0.4 = 1.6 < 2, but a second GPU does not take what is left of the first
        (0.4, 5, 2, "at most 0.3333, leave it out for an equal share, or raise run.nodes_per"),
        (0.4, 5, 2, "until there are at most 4 actors"),
        (1.0, 10_001, 1, "do not fit"),
    ],
)
def test_actors_that_do_not_fit_are_refused(tiny: MakeConfig, share, actors, gpus, words) -> None:
    with pytest.raises(ConfigError) as refusal:
        gpu_share(config_on(tiny, share), actors, gpus)
    assert words in str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("share", [0, 1.5, -1, 0.00001])
def test_a_share_is_of_one_gpu(tiny: MakeConfig, share: float) -> None:
    with pytest.raises(ConfigError, match=r"run\.gpus_per_actor"):
        config_on(tiny, share)


def test_a_share_without_a_gpu_is_refused(tiny: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="it needs device: cuda"):
        tiny("run.gpus_per_actor=0.5")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(
    tiny: MakeConfig, tmp_path: Path, backend: str
) -> None:
    config = tiny("run.device=cuda", f"run.backend={backend}")
    with pytest.raises(ConfigError, match=r"run\.device = cuda: torch .* can use no GPU"):
        sheafnet.simulate(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


WITNESS = """
import json, os, pathlib, ray
context = ray.get_runtime_context()
if context.get_actor_id() and "HostProcess" in open("/proc/self/cmdline").read():
    seen = [context.get_assigned_resources(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    pathlib.Path(__file__).with_name(f"{os.getpid()}.json").write_text(json.dumps(seen))
"""


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_ray_reserves_a_share_for_each_actor_and_says_which_gpu(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray believes in one GPU here: actors get their share of it, then torch finds none."""
    import ray

    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "witness.py").write_text(WITNESS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    chosen = ("run.backend=ray", "run.device=cuda", "run.nodes_per_actor=2")
    ray.init(address="local", num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(ConfigError, match=r"2 actors x 0\.6 GPUs do not fit"):
            sheafnet.simulate(tiny(*chosen, "run.gpus_per_actor=0.6"), run_dir=tmp_path / "many")
        assert not (tmp_path / "many").exists()
        with pytest.raises(ConfigError, match="can use no GPU in this process"):
            sheafnet.simulate(tiny(*chosen, "imports=[witness]"), run_dir=tmp_path / "run")
    finally:
        ray.shutdown()
    seen = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert seen == [[{"GPU": 0.5}, "0"]] * 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.gpu
@pytest.mark.parametrize("name", [n for n in RUNS if n != "nobody"])
def test_a_gpu_gives_what_the_cpu_gives(tiny: MakeConfig, tmp_path: Path, name: str) -> None:
    """The same bytes, and the same figures but for rounding."""
    runs = {
        device: run_artifacts(tiny(*RUNS[name], f"run.device={device}"), tmp_path / device)
        for device in ("cpu", "cuda")
    }
    assert runs["cuda"]["ledger"] == runs["cpu"]["ledger"]
    for here, there in zip(runs["cpu"]["rounds"][:4], runs["cuda"]["rounds"][:4], strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)
    for file, data in runs["cpu"]["parameters"].items():
        found = load(runs["cuda"]["parameters"][file])
        for key, value in load(data).items():
            apart = np.abs(found[key] - value)
            # Adam turns the rounding of a gradient about 0 into at most a whole step, here 0.001.
            assert apart.max() <= 6 * 2 * 0.0011, key
            assert apart.mean() <= 2e-4, key


@pytest.mark.gpu
def test_weights_begin_the_same_on_a_gpu(tiny: MakeConfig, tmp_path: Path) -> None:
    runs = [
        run_artifacts(tiny("training.rounds=0", f"run.device={device}"), tmp_path / device)
        for device in ("cpu", "cuda")
    ]
    assert runs[0]["parameters"] == runs[1]["parameters"]


@pytest.mark.gpu
@pytest.mark.ray
def test_actors_on_a_gpu_give_what_one_process_gives_there(
    tiny: MakeConfig, tmp_path: Path
) -> None:
    """Law 1 on the device."""
    local = run_artifacts(tiny("run.device=cuda"), tmp_path / "local")
    for nodes in (1, 3):
        chosen = ("run.device=cuda", "run.backend=ray", f"run.nodes_per_actor={nodes}")
        assert run_artifacts(tiny(*chosen), tmp_path / f"{nodes}") == local
